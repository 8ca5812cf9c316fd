"""Indexes of vectors: their tables, what waits to be embedded, and what a lot of vectors changes in one transaction.

The function that makes vectors is not known here: whoever has it asks what waits (`waiting`), and says what became of
it (`keep`). A lot is kept only if nobody else was faster, of each record only if it still is its key's value, and how
far the index is (`Index.pos`) moves in the same transaction: a crash, or two fillers, lose and double nothing.

Vectors of two identities never meet: each lies under its index's number, and that is never given twice. A collection
has at most one complete index, which is searched, and one that is being built beside it; when that is complete, one
transaction ends the other. Rows of an index that ended are removed in lots (`sweep`), so that no writer waits.
"""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from holdfast import wire
from holdfast.corpus.pages import LIVE
from holdfast.corpus.rows import COLUMNS, Stored, within
from holdfast.corpus.search.chunks import CHUNK_CHARS, CHUNK_LEAST, CHUNKER, path_of
from holdfast.corpus.sql import SqlCorpus
from holdfast.corpus.transaction import VECTOR_BITS, SqlTransaction
from holdfast.errors import UsageError
from holdfast.query import check_field
from holdfast.records import DELETE_PREFIX, SEALED, TOMBSTONE, VALUE

LOT: Final = 64
"""Texts of one call of a function: what services take at once."""
WINDOW: Final = 20_000
"""Positions that are looked through for them: 20 ms where other collections lie between."""
DIMS_MAX: Final = 16_384
FIELDS_MAX: Final = 32
ERROR_CHARS: Final = 300
MANY: Final = 250_000
"""From so many vectors on a warning is shown: each search compares all of them, some 20 ms."""
SWEEP: Final = 500
AGAIN: Final = -1
"""Stands for the place of a lot that is about records which failed before."""
_NEWEST: Final = "vindex_id"
"""In `meta`: the newest number of an index."""
_FIELDS: Final = (
    "v.id, n.s, v.identity, v.said, v.dims, v.pos, v.complete, v.next, v.held, v.drops, v.tries, v.next_ms, v.error,"
    " v.holder, v.held_ms"
)
_READ: Final = f"SELECT {_FIELDS} FROM vindex v JOIN name n ON n.id=v.coll"
_WAITING: Final = (
    f"SELECT {COLUMNS} FROM rec r WHERE r.pos>? AND r.pos<=? AND +r.coll=(SELECT id FROM name WHERE s=?)"
    f" AND (r.flags & {VALUE})<>0 AND (r.flags & {TOMBSTONE | SEALED})=0 AND r.why<>{wire.REDACTED} AND {LIVE}"
    " ORDER BY r.pos LIMIT ?"
)
_STANDING: Final = (
    f"SELECT r.pos FROM rec r WHERE r.pos IN ({{}}) AND (r.flags & {TOMBSTONE | SEALED})=0 AND r.why<>{wire.REDACTED}"
    f" AND {LIVE}"
)
_REPLACED: Final = (
    "SELECT r.prior, r.pos, r.agent, r.coll, r.key, r.kind=(SELECT id FROM name WHERE s=?) FROM rec r"
    f" WHERE r.pos>? AND r.pos<=? AND +r.coll=? AND (r.flags & {VALUE | TOMBSTONE})<>0"
)
_HIDDEN: Final = "SELECT st.pos FROM state st WHERE st.agent=? AND st.coll=? AND {} AND st.gone=?"


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """How vectors are made of values: all that makes two of them comparable.

    Attributes:
        model: the name of what the function asks; another model is another name.
        fields: what of a value is embedded, joined; none: all its texts.
        dims: how many numbers a vector has; 0: as many as the first that comes.
        chunk: letters of a piece; 0: texts are not cut.
        chunker: the way of cutting.
        norm: how vectors are normalised.
    """

    model: str
    fields: tuple[str, ...] = ()
    dims: int = 0
    chunk: int = CHUNK_CHARS
    chunker: str = CHUNKER
    norm: str = "l2"

    @property
    def identity(self) -> str:
        """The hash that says what may be compared with what."""
        return hashlib.sha256(b"hf/vec/1\0" + msgspec.json.encode(self, order="deterministic")).hexdigest()[:32]


class Index(msgspec.Struct, frozen=True):
    """One index of vectors as its row says; see migrations/0008_vectors.sql."""

    id: int
    collection: str
    identity: str
    declared: Declared
    dims: int
    pos: int
    complete: bool
    next: int
    held: int
    drops: int
    tries: int
    next_ms: int
    error: str
    holder: str
    held_ms: int

    @property
    def first_row(self) -> int:
        """The id that a vector of its would have at number 0."""
        return self.id << VECTOR_BITS

    @property
    def end_row(self) -> int:
        """The first id behind all that its vectors may have."""
        return self.id + 1 << VECTOR_BITS


class Lot(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be embedded next.

    `after` and `upto` are positions: once it is kept, every record between them has been seen. Both are `AGAIN` where
    the records failed before. Without records, nothing is to be embedded between them.
    """

    after: int
    upto: int
    records: tuple[Stored, ...] = ()


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a lot: the packed vectors of each position's pieces, and what was said of those that failed.

    `next_ms` is when a failed record is tried again, by how often it has failed, this time included.
    """

    after: int
    upto: int
    vectors: Mapping[int, Sequence[bytes]] = {}
    failed: Mapping[int, str] = {}
    next_ms: Callable[[int], int] = lambda tries: 0


def declared(
    model: str, *, fields: Sequence[str] = (), dims: int | None = None, chunk: int | None = None
) -> Declared:
    """A declaration, if it can be one.

    Raises:
        UsageError: no name of a model, an impossible field, impossible numbers.
    """
    if not isinstance(model, str) or not model.strip() or len(model) > 200:
        raise UsageError(f"no name of a model: {model!r:.80}", hint="such as model='all-MiniLM-L6-v2'")
    if isinstance(fields, str):
        raise UsageError(f"fields={fields!r:.80} is a text, not a list of fields", hint=f"fields=({fields!r:.80},)")
    if len(fields) > FIELDS_MAX:
        raise UsageError(f"{len(fields)} fields, the most is {FIELDS_MAX}", hint="none: all texts of a value")
    paths = tuple(check_field(path_of(field)) for field in fields)
    if dims is not None and (not isinstance(dims, int) or not 1 <= dims <= DIMS_MAX):
        raise UsageError(f"dims {dims!r:.40} is not between 1 and {DIMS_MAX:,}", hint="None: as the function gives")
    if chunk is not None and (not isinstance(chunk, int) or (chunk and chunk < CHUNK_LEAST)):
        raise UsageError(f"chunk {chunk!r:.40} is no number of letters from {CHUNK_LEAST} on", hint="0: never cut")
    return Declared(model=model, fields=paths, dims=dims or 0, chunk=CHUNK_CHARS if chunk is None else chunk)


# -- declaring, and reading what there is -----------------------------------------------------------------------------


def declare(corpus: SqlCorpus, collection: str, said: Declared) -> Index:
    """Has a collection indexed so; again is free. What is being built with another identity ends, what is complete
    stays until this one is.
    """
    have = find(corpus, collection, said.identity)
    if have is not None:
        return have

    def job(tx: SqlTransaction) -> None:
        coll = tx.name(collection)
        if tx.sql("SELECT 1 FROM vindex WHERE coll=? AND identity=?", (coll, said.identity)).fetchone():
            return
        for (other,) in tx.sql("SELECT id FROM vindex WHERE coll=? AND complete=0", (coll,)).fetchall():
            _end(tx, other)
        number = (tx.meta(_NEWEST) or 0) + 1
        tx.set_meta(_NEWEST, number)
        text = msgspec.json.encode(said).decode()
        tx.sql("INSERT INTO vindex(id, coll, identity, said) VALUES(?,?,?,?)", (number, coll, said.identity, text))

    corpus.write(job)
    made = find(corpus, collection, said.identity)
    assert made is not None
    return made


def indexes(corpus: SqlCorpus, collection: str | None = None) -> list[Index]:
    """All indexes, or those of one collection: that which is searched, then that which is being built."""
    where, args = ("", ()) if collection is None else (" WHERE n.s=?", (collection,))
    return [_index(row) for row in corpus.query(f"{_READ}{where} ORDER BY n.s, v.complete DESC, v.id", args)]


def find(corpus: SqlCorpus, collection: str, identity: str) -> Index | None:
    """The index of this identity."""
    row = corpus.one(f"{_READ} WHERE n.s=? AND v.identity=?", (collection, identity))
    return _index(row) if row else None


def searched(corpus: SqlCorpus, collection: str) -> Index | None:
    """The index that is searched: the complete one, or else the one that is being built."""
    return next(iter(indexes(corpus, collection)), None)


def drop(corpus: SqlCorpus, collection: str) -> bool:
    """Ends all indexes of a collection; False if there was none. Their rows go with `sweep`."""

    def job(tx: SqlTransaction) -> bool:
        sql = "SELECT id FROM vindex WHERE coll=(SELECT id FROM name WHERE s=?)"
        found = [row[0] for row in tx.sql(sql, (collection,)).fetchall()]
        for each in found:
            _end(tx, each)
        return bool(found)

    return corpus.write(job)


def pending(corpus: SqlCorpus, index: Index) -> int:
    """How many records of its collection the index has not seen, counted among the first `WINDOW` / 10 positions
    behind it; beyond them every position counts.
    """
    last, near = corpus.last(), index.pos + WINDOW // 10
    if last <= index.pos:
        return 0
    sql = (
        "SELECT count(*) FROM rec r WHERE r.pos>? AND r.pos<=? AND +r.coll=(SELECT id FROM name WHERE s=?)"
        f" AND (r.flags & {VALUE})<>0 AND (r.flags & {TOMBSTONE | SEALED})=0"
    )
    return int(corpus.one(sql, (index.pos, near, index.collection))[0]) + max(0, last - near)


def failed(corpus: SqlCorpus, index: Index) -> tuple[int, str]:
    """How many records the function failed on, and what it said of the newest of them."""
    many = corpus.one("SELECT count(*) FROM vmiss WHERE vindex=?", (index.id,))[0]
    if not many:
        return 0, ""
    sql = "SELECT error FROM vmiss WHERE vindex=? ORDER BY pos DESC LIMIT 1"
    return int(many), str(corpus.one(sql, (index.id,))[0])


# -- what waits -------------------------------------------------------------------------------------------------------


def waiting(corpus: SqlCorpus, index: Index, after: int | None = None, most: int = LOT) -> Lot:
    """The next records that an index has not seen; `upto` is `after` when there is nothing behind it.

    Args:
        corpus: where.
        index: the index, as it was just read.
        after: a position from which on there is something to see, for who knows more than the row says.
        most: how many records.
    """
    after = index.pos if after is None else after
    end = min(corpus.last(), after + WINDOW)
    if end <= after:
        return Lot(after=index.pos, upto=after)
    found = corpus.rows(_WAITING, (after, end, index.collection, most))
    upto = found[-1].pos if len(found) == most else end
    return Lot(after=index.pos, upto=upto, records=tuple(found))


def touched(corpus: SqlCorpus, index: Index, after: int, upto: int) -> bool:
    """Whether anything of its collection was written, replaced or deleted between two positions."""
    sql = (
        "SELECT 1 FROM rec r WHERE r.pos>? AND r.pos<=? AND +r.coll=(SELECT id FROM name WHERE s=?)"
        f" AND (r.flags & {VALUE | TOMBSTONE})<>0 LIMIT 1"
    )
    return corpus.one(sql, (after, upto, index.collection)) is not None


def due(corpus: SqlCorpus, index: Index, now_ms: int, most: int = LOT) -> Lot:
    """Records that failed before and may be tried again."""
    sql = "SELECT pos FROM vmiss WHERE vindex=? AND next_ms<=? ORDER BY next_ms LIMIT ?"
    places = [row[0] for row in corpus.query(sql, (index.id, now_ms, most))]
    found = [stored for pos in places if (stored := corpus.at(pos)) is not None]
    return Lot(after=AGAIN, upto=AGAIN, records=tuple(found))


def hold(corpus: SqlCorpus, index: Index, who: str, now_ms: int, until_ms: int) -> bool:
    """Takes an index in hand until a time, so that others leave it alone; False while somebody else has it."""
    sql = "UPDATE vindex SET holder=?, held_ms=? WHERE id=? AND (holder IN ('', ?) OR held_ms<=?) RETURNING 1"
    return bool(corpus.write(lambda tx: tx.execute(sql, (who, until_ms, index.id, who, now_ms))))


# -- what a lot changes -----------------------------------------------------------------------------------------------


def keep(corpus: SqlCorpus, index: Index, made: Made) -> bool:
    """Keeps what became of a lot; False, and nothing is changed, if another was faster or the index has ended.

    Args:
        corpus: where.
        index: the index.
        made: what became of it; positions that are no key's value any more are left out.

    Raises:
        UsageError: vectors of another length than those of the index.
    """
    sizes = {len(each) // 4 for pieces in made.vectors.values() for each in pieces}
    fits = index.dims or index.declared.dims or min(sizes, default=0)
    if sizes - {fits}:
        raise UsageError(
            f"a vector of {min(sizes - {fits})} numbers for an index of {fits}",
            hint="another model is another index: add_index(…, model=…) builds it beside the old one",
        )
    return corpus.write(lambda tx: _keep(tx, index, made, min(sizes, default=0)))


def _keep(tx: SqlTransaction, index: Index, made: Made, dims: int) -> bool:
    row = tx.sql("SELECT coll, pos, dims, next, held, complete FROM vindex WHERE id=?", (index.id,)).fetchone()
    if row is None:
        return False
    coll, pos, have, newest, held, complete = row
    again = made.after == AGAIN
    if (not again and pos != made.after) or (have and dims and have != dims):
        return False
    gone = 0 if again else _take_out(tx, index.id, _replaced(tx, coll, made.after, made.upto))
    standing = _standing(tx, [*made.vectors, *made.failed])
    taken = _take_out(tx, index.id, list(made.vectors)) if again else 0  # whoever was faster
    first, rows = (index.id << VECTOR_BITS) + newest + 1, []
    for place in sorted(standing & made.vectors.keys()):
        rows += [(first + len(rows) + part, place, part, each) for part, each in enumerate(made.vectors[place])]
    rows = [(first + number, *row[1:]) for number, row in enumerate(rows)]
    tx.keep_vectors(rows)
    _note_failed(tx, index.id, made, standing)
    # Whoever fails a retry says nothing of the function as a whole.
    upto = pos if again else made.upto
    now = int(complete or (not again and upto >= tx.last()))
    tx.sql(
        "UPDATE vindex SET pos=?, next=?, held=?, dims=?, complete=?, tries=0, next_ms=0, error=? WHERE id=?",
        (upto, newest + len(rows), max(0, held + len(rows) - gone - taken), have or dims, now, "", index.id),
    )
    if now and not complete:  # what was searched until now ends with the same commit
        for (other,) in tx.sql("SELECT id FROM vindex WHERE coll=? AND id<>?", (coll, index.id)).fetchall():
            _end(tx, other)
    return True


def failing(corpus: SqlCorpus, index: Index, error: str, next_ms: Callable[[int], int]) -> int:
    """Notes that the function fails whatever it is given; returns how often it did in a row.

    Args:
        corpus: where.
        index: the index; it stays where it is.
        error: what the function said.
        next_ms: when it is tried again, by how often it has failed.
    """

    def job(tx: SqlTransaction) -> int:
        row = tx.sql("SELECT tries FROM vindex WHERE id=?", (index.id,)).fetchone()
        if row is None:
            return 0
        tries = int(row[0]) + 1
        sql = "UPDATE vindex SET tries=?, next_ms=?, error=? WHERE id=?"
        tx.sql(sql, (tries, next_ms(tries), error[:ERROR_CHARS], index.id))
        return tries

    return corpus.write(job)


def again(corpus: SqlCorpus, index: Index) -> None:
    """Has everything that failed tried at once, for whoever has put the function right."""

    def job(tx: SqlTransaction) -> None:
        tx.sql("UPDATE vmiss SET next_ms=0 WHERE vindex=?", (index.id,))
        tx.sql("UPDATE vindex SET next_ms=0 WHERE id=?", (index.id,))

    corpus.write(job)


def restart(corpus: SqlCorpus, index: Index) -> None:
    """Has one index filled anew from the first record, as its positions are another course of events'."""

    def job(tx: SqlTransaction) -> None:
        row = tx.sql("SELECT pos FROM vindex WHERE id=?", (index.id,)).fetchone()
        if row is None or row[0] <= tx.last():
            return
        tx.drop_vectors("id>=? AND id<?", (index.first_row, index.end_row))
        tx.sql("DELETE FROM vmiss WHERE vindex=?", (index.id,))
        tx.sql("UPDATE vindex SET pos=0, held=0, complete=0, drops=drops+1 WHERE id=?", (index.id,))

    corpus.write(job)


def rebuild(tx: SqlTransaction) -> None:
    """Empties every index inside the open transaction, so that it is filled anew; what is declared stays."""
    tx.sql("DELETE FROM vec")
    tx.sql("DELETE FROM vmiss")
    tx.sql("UPDATE vindex SET pos=0, held=0, complete=0, drops=drops+1, tries=0, next_ms=0, error=''")


def sweep(corpus: SqlCorpus, lot: int = SWEEP) -> int:
    """Removes rows of indexes that have ended, at most so many; returns how many."""
    there = [row[0] for row in corpus.query("SELECT id FROM vindex ORDER BY id")]
    edges = [0, *[edge for each in there for edge in (each << VECTOR_BITS, each + 1 << VECTOR_BITS)], 1 << 62]
    for low, high in zip(edges[::2], edges[1::2], strict=True):
        rows = corpus.query("SELECT id FROM vec WHERE id>=? AND id<? ORDER BY id LIMIT ?", (low, high, lot))
        if rows:
            first, last = rows[0][0], rows[-1][0]

            def job(tx: SqlTransaction, first: int = first, last: int = last) -> None:
                tx.drop_vectors("id>=? AND id<=?", (first, last))

            corpus.write(job)
            return len(rows)
    return 0


class _Stale:
    """What searches have found not to stand any more, until a filler takes it out: a search writes nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _noted
        self._noted: weakref.WeakKeyDictionary[SqlCorpus, dict[int, set[int]]] = weakref.WeakKeyDictionary()

    def note(self, corpus: SqlCorpus, number: int, places: Sequence[int]) -> None:
        with self._lock:
            noted = self._noted.setdefault(corpus, {}).setdefault(number, set())
            noted.update(places[: max(0, SWEEP - len(noted))])

    def take(self, corpus: SqlCorpus, number: int) -> list[int]:
        with self._lock:
            return sorted(self._noted.get(corpus, {}).pop(number, ()))


_STALE: Final = _Stale()


def note_stale(corpus: SqlCorpus, index: Index, places: Sequence[int]) -> None:
    """Remembers vectors of records that a search found to be no key's value any more, for `prune_stale`."""
    _STALE.note(corpus, index.id, places)


def prune_stale(corpus: SqlCorpus, index: Index) -> int:
    """Takes out what searches have noted, if it still does not stand; returns how many vectors.

    Where several branches meet, what is replaced is not always what the next version names.
    """
    places = _STALE.take(corpus, index.id)

    def job(tx: SqlTransaction) -> int:
        gone = sorted({*places} - _standing(tx, places))
        many = _take_out(tx, index.id, gone)
        if many:
            tx.sql("UPDATE vindex SET held=held-? WHERE id=?", (many, index.id))
        return many

    return corpus.write(job) if places else 0


# -- inside -----------------------------------------------------------------------------------------------------------


def _index(row: Any) -> Index:
    number, collection, identity, said, dims, pos, complete, *rest = row
    made = msgspec.json.decode(said, type=Declared)
    return Index(number, collection, identity, made, dims, pos, bool(complete), *rest)


def _end(tx: SqlTransaction, number: int) -> None:
    """Ends an index: nobody finds it from here on, and its rows are swept."""
    tx.sql("DELETE FROM vmiss WHERE vindex=?", (number,))
    tx.sql("DELETE FROM vindex WHERE id=?", (number,))
    tx.end_vectors(number)


def _standing(tx: SqlTransaction, places: Sequence[int]) -> set[int]:
    """Those of these records that are their keys' values, with bodies that were not erased."""
    out: set[int] = set()
    for first in range(0, len(places), SWEEP):
        lot = list(places[first : first + SWEEP])
        out |= {row[0] for row in tx.sql(_STANDING.format(_places(lot)), lot).fetchall()}
    return out


def _replaced(tx: SqlTransaction, coll: int, after: int, upto: int) -> list[int]:
    """Positions that records between these two have replaced or hidden."""
    out = []
    for prior, pos, agent, of, key, prefix in tx.sql(_REPLACED, (DELETE_PREFIX, after, upto, coll)).fetchall():
        if prior:
            out.append(prior)
        if prefix:
            span, ends = within("st.key", key)
            out += [row[0] for row in tx.sql(_HIDDEN.format(span), (agent, of, *ends, pos)).fetchall()]
    return out


def _take_out(tx: SqlTransaction, number: int, places: Sequence[int]) -> int:
    """Takes the vectors of these records out of one index, and what failed of them; how many vectors there were."""
    low, high, many = number << VECTOR_BITS, number + 1 << VECTOR_BITS, 0
    for first in range(0, len(places), SWEEP):
        lot = list(places[first : first + SWEEP])
        where = f"pos IN ({_places(lot)}) AND id>=? AND id<?"
        many += len(tx.drop_vectors(where, (*lot, low, high)))
        tx.sql(f"DELETE FROM vmiss WHERE vindex=? AND pos IN ({_places(lot)})", (number, *lot))
    return many


def _note_failed(tx: SqlTransaction, number: int, made: Made, standing: set[int]) -> None:
    for place, said in sorted(made.failed.items()):
        row = tx.sql("SELECT tries FROM vmiss WHERE vindex=? AND pos=?", (number, place)).fetchone()
        tx.sql("DELETE FROM vmiss WHERE vindex=? AND pos=?", (number, place))
        if place in standing:
            tries = (row[0] if row else 0) + 1
            sql = "INSERT INTO vmiss(vindex, pos, tries, next_ms, error) VALUES(?,?,?,?,?)"
            tx.sql(sql, (number, place, tries, made.next_ms(tries), said[:ERROR_CHARS]))


def _places(values: Sequence[Any]) -> str:
    return ",".join("?" * len(values))

"""Indexes of vectors: their tables, what waits to be embedded, and what a lot of vectors changes in one transaction.

The function that makes vectors is not known here: whoever has it asks what waits (`waiting`), and says what became of
it (`keep`). A lot is kept only if nobody else was faster, of each record only if it still is its key's value, and how
far the index is (`Index.pos`) moves in the same transaction: a crash, or two fillers, lose and double nothing.

Vectors of two identities never meet: each lies under its index's number, and that is never given twice. A collection
has at most one complete index, which is searched, and one that is being built beside it; when that is complete, one
transaction ends the other. Rows of an index that ended are removed in lots (`sweep`), so that no writer waits.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from holdfast import wire
from holdfast.corpus.pages import LIVE
from holdfast.corpus.rows import within
from holdfast.corpus.search.indexes import AGAIN as AGAIN
from holdfast.corpus.search.indexes import LOT as LOT
from holdfast.corpus.search.indexes import MANY as MANY
from holdfast.corpus.search.indexes import Declared as Declared
from holdfast.corpus.search.indexes import Index as Index
from holdfast.corpus.search.indexes import Lot as Lot
from holdfast.corpus.search.indexes import Made as Made
from holdfast.corpus.search.indexes import declared as declared
from holdfast.corpus.search.indexes import due as due
from holdfast.corpus.search.indexes import failed as failed
from holdfast.corpus.search.indexes import find as find
from holdfast.corpus.search.indexes import indexes as indexes
from holdfast.corpus.search.indexes import pending as pending
from holdfast.corpus.search.indexes import searched as searched
from holdfast.corpus.search.indexes import touched as touched
from holdfast.corpus.search.indexes import waiting as waiting
from holdfast.corpus.sql import SqlCorpus
from holdfast.corpus.transaction import VECTOR_BITS, SqlTransaction
from holdfast.errors import UsageError
from holdfast.records import DELETE_PREFIX, SEALED, TOMBSTONE, VALUE

ERROR_CHARS: Final = 300
SWEEP: Final = 500
_NEWEST: Final = "vindex_id"
"""In `meta`: the newest number of an index."""
_STANDING: Final = (
    f"SELECT r.pos FROM rec r WHERE r.pos IN ({{}}) AND (r.flags & {TOMBSTONE | SEALED})=0 AND r.why<>{wire.REDACTED}"
    f" AND {LIVE}"
)
_REPLACED: Final = (
    "SELECT r.prior, r.pos, r.agent, r.coll, r.key, r.kind=(SELECT id FROM name WHERE s=?) FROM rec r"
    f" WHERE r.pos>? AND r.pos<=? AND +r.coll=? AND (r.flags & {VALUE | TOMBSTONE})<>0"
)
_HIDDEN: Final = "SELECT st.pos FROM state st WHERE st.agent=? AND st.coll=? AND {} AND st.gone=?"


# -- declaring --------------------------------------------------------------------------------------------------------


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


def drop(corpus: SqlCorpus, collection: str) -> bool:
    """Ends all indexes of a collection; False if there was none. Their rows go with `sweep`."""

    def job(tx: SqlTransaction) -> bool:
        sql = "SELECT id FROM vindex WHERE coll=(SELECT id FROM name WHERE s=?)"
        found = [row[0] for row in tx.sql(sql, (collection,)).fetchall()]
        for each in found:
            _end(tx, each)
        return bool(found)

    return corpus.write(job)


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
    first = (index.id << VECTOR_BITS) + newest + 1
    there = sorted(standing & made.vectors.keys())
    pieces = [(pos, part, each) for pos in there for part, each in enumerate(made.vectors[pos])]
    rows = [(first + number, *piece) for number, piece in enumerate(pieces)]
    tx.keep_vectors(rows)
    _note_failed(tx, index.id, made, standing)
    upto = pos if again else made.upto
    now = int(complete or (not again and upto >= tx.last()))
    tx.sql(
        "UPDATE vindex SET pos=?, next=?, held=?, dims=?, complete=? WHERE id=?",
        (upto, newest + len(rows), max(0, held + len(rows) - gone - taken), have or dims, now, index.id),
    )
    if rows:  # the function works
        tx.sql("UPDATE vindex SET tries=0, next_ms=0, error=? WHERE id=?", ("", index.id))
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

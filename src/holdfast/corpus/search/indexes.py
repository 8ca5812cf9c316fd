"""Indexes of vectors as their rows say: what is declared, how far each is, and what waits to be embedded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from holdfast import wire
from holdfast.corpus.pages import LIVE
from holdfast.corpus.rows import COLUMNS, Stored
from holdfast.corpus.search.chunks import CHUNK_CHARS, CHUNK_LEAST, CHUNKER, path_of
from holdfast.corpus.sql import SqlCorpus
from holdfast.corpus.transaction import VECTOR_BITS
from holdfast.errors import UsageError
from holdfast.query import check_field
from holdfast.records import SEALED, TOMBSTONE, VALUE

LOT: Final = 64
"""Texts of one call of a function: what services take at once."""
WINDOW: Final = 20_000
"""Positions that are looked through for them: 20 ms where other collections lie between."""
DIMS_MAX: Final = 16_384
"""The longest vector: four times the longest that a model on the market makes."""
FIELDS_MAX: Final = 32
MANY: Final = 250_000
"""From so many vectors on a warning is shown: each search compares all of them, some 20 ms."""
AGAIN: Final = -1
"""Stands for the place of a lot that is about records which failed before."""
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


def declared(model: str, *, fields: Sequence[str] = (), dims: int | None = None, chunk: int | None = None) -> Declared:
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


def _index(row: Any) -> Index:
    number, collection, identity, said, dims, pos, complete, *rest = row
    made = msgspec.json.decode(said, type=Declared)
    return Index(number, collection, identity, made, dims, pos, bool(complete), *rest)

"""Takes a hub's corpus from one engine to another, row by row and as it is: positions, numbers of branches and all.

Tables are copied in the order of their keys, a lot in a transaction, so what the target holds says how far it came: one
that was killed goes on behind its last row. Nothing here judges records; `integrity` does, before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any, Final

import msgspec

from holdfast import codec
from holdfast.corpus.index.fields import MARK
from holdfast.corpus.rows import COLUMNS
from holdfast.corpus.search import INDEXED
from holdfast.corpus.sql import SqlCorpus
from holdfast.corpus.transaction import SqlTransaction
from holdfast.errors import Conflict, IntegrityError

UNFINISHED: Final = "migrating"
"""In `meta` of a corpus that is not all there yet: what it is to become, see `Origin`."""
HISTORY: Final = "history"
"""In `meta` of a database: the course of events that its positions belong to."""
MAILED: Final = "mail_pos"
"""In `meta`: the newest message, or word of its reader, that the tables of mail hold."""
STEP: Final = 500
"""Rows read at once: 32 MB of bodies at most."""
ANOTHER: Final = "nothing was overwritten: give a new directory, or an empty database"
LOT: Final = 1_000
LOT_BYTES: Final = 4 << 20
ELSEWHERE: Final = (UNFINISHED, HISTORY, INDEXED, MARK, MAILED)
"""What `meta` says of its own file alone; the indexes and the tables of mail are filled anew."""


class Table(msgspec.Struct, frozen=True):
    """A table that is copied: the first `keys` of its columns say where a row stands among the others."""

    name: str
    columns: str
    keys: int = 1

    @property
    def key(self) -> str:
        """The columns of its key."""
        return ", ".join(self.columns.split(", ")[: self.keys])


RECORDS: Final = Table("rec", COLUMNS.replace("r.", ""))
TAGS: Final = Table("tag", "k, v, pos", 3)
STREAMS: Final = Table("stream", "id, stream, agent, public_key, current_key, own")
BRANCHES: Final = Table("branch", "id, stream, inc, parent, base_seq, base_link, seq, link, signature, settled")
STATE: Final = Table("state", "agent, coll, key, pos, gone", 3)
TABLES: Final = (
    Table("name", "id, s"),
    STREAMS,
    BRANCHES,
    RECORDS,
    STATE,
    Table("scope", "agent, coll, prefix, pos", 4),
    TAGS,
    Table("arrival", "at_ms, pos"),
    Table("label", "stream, inc, branch, seq, link, signature", 2),
    Table("signed", "branch, seq, signature, rotates", 2),
    Table("told", "pos, ms"),
    Table("session", "pos, id, agent, user_id, status, created_ms"),
    Table("sample", "pos, entity_type, entity, metric, session, at_ms, value"),
    Table("cache", "key, value, ttl, created_ms, expires_ms, accessed_ms"),
    Table("field", "id, coll, path, words"),
    Table("vindex", "id, coll, identity, said"),
    Table("notice", "id, rule, state, made_ms, due_ms, next_ms, since_ms, tries, held, many, poses, said, done_ms"),
    Table("figure", "step, at, who, data", 3),
    Table("lineage", "gen, first, at_ms, ord"),
)
_PLACES: Final = [name.strip() for name in RECORDS.columns.split(",")]
_LENGTH, _CODEC, _WHY = _PLACES.index("plen"), _PLACES.index("codec"), _PLACES.index("why")
assert _PLACES[_CODEC:] == ["codec", "why", "body"]

Row = tuple[Any, ...]
KeyRow = tuple[bytes, bytes, str, int]
"""A key of the hub: public, private, state, made_ms."""


class Origin(msgspec.Struct, frozen=True):
    """Which corpus it is, and where it stood: its hub, newest generation and record, and the count of its writes."""

    hub: str
    gen: str
    pos: int
    link: str
    writes: int


def origin_of(corpus: SqlCorpus, public_key: bytes, writes: int) -> Origin:
    """Where a hub's corpus stands now."""
    gen = corpus.one("SELECT gen FROM lineage ORDER BY ord DESC LIMIT 1")
    newest = corpus.one("SELECT pos, link FROM rec ORDER BY pos DESC LIMIT 1")
    pos, link = newest or (0, b"")
    return Origin(public_key.hex(), gen[0] if gen else "", pos, link.hex(), writes)


# -- reading ------------------------------------------------------------------------------------------------------


def count(corpus: SqlCorpus, table: Table) -> int:
    """How many rows there are."""
    return int(corpus.one(f"SELECT count(*) FROM {table.name}")[0])


def payload_bytes(corpus: SqlCorpus) -> int:
    """The bytes that the records speak for, before compression, without blobs."""
    return int(corpus.one("SELECT coalesce(sum(plen), 0) FROM rec")[0])


def last(corpus: SqlCorpus, table: Table) -> Row | None:
    """The key of the last row, in the order of keys; None for no row."""
    order = ", ".join(f"{each} DESC" for each in table.key.split(", "))
    row = corpus.one(f"SELECT {table.key} FROM {table.name} ORDER BY {order} LIMIT 1")
    return tuple(row) if row else None


def rows(corpus: SqlCorpus, table: Table, after: Row | None = None) -> Iterator[Row]:
    """The rows behind this key, in the order of keys, a few hundred in memory."""
    marks = ",".join("?" * table.keys)
    while True:
        where = f" WHERE ({table.key})>({marks})" if after is not None else ""
        sql = f"SELECT {table.columns} FROM {table.name}{where} ORDER BY {table.key} LIMIT {STEP}"
        found = corpus.query(sql, after or ())
        yield from found
        if len(found) < STEP:
            return
        after = tuple(found[-1][: table.keys])


def metas(corpus: SqlCorpus) -> dict[str, Any]:
    """What is kept beside the records, but for what concerns one file alone."""
    names = [row[0] for row in corpus.query("SELECT k FROM meta ORDER BY k")]
    return {name: corpus.meta(name) for name in names if name not in ELSEWHERE}


def is_empty(corpus: SqlCorpus) -> bool:
    """Whether no hub has ever been here."""
    if corpus.one("SELECT 1 FROM name WHERE id>1 LIMIT 1") or corpus.one("SELECT 1 FROM meta LIMIT 1"):
        return False
    return not any(corpus.one(f"SELECT 1 FROM {table.name} LIMIT 1") for table in TABLES[1:])


def unfinished(corpus: SqlCorpus) -> Origin | None:
    """What this corpus is to become, while it is not that yet."""
    said = corpus.meta(UNFINISHED)
    return msgspec.json.decode(said, type=Origin) if said else None


# -- writing ------------------------------------------------------------------------------------------------------


def may_claim(corpus: SqlCorpus, origin: Origin) -> bool:
    """Returns if the corpus is empty, or the target of this very migration; whether it is the latter.

    Raises:
        Conflict: it holds something else.
    """
    found = unfinished(corpus)
    if found == origin:
        return True
    if found is not None:
        same = found.hub == origin.hub
        what = "an older state of this hub: the source was served since" if same else "another hub"
        raise Conflict(
            f"the target holds an unfinished migration of {what}",
            hint="nothing was overwritten: remove the target, or give a new one, and begin again",
        )
    if not is_empty(corpus):
        raise Conflict("the target holds a hub already", hint=ANOTHER)
    return False


def claim(corpus: SqlCorpus, origin: Origin) -> bool:
    """Makes an empty corpus the target of a migration; whether it was that before.

    Raises:
        Conflict: it holds something else.
    """
    before = may_claim(corpus, origin)
    if not before:
        corpus.write(lambda tx: tx.set_meta(UNFINISHED, msgspec.json.encode(origin)))
    return before


def release(tx: SqlTransaction) -> None:
    """Makes the target of a migration a corpus like any other, in an open transaction."""
    tx.execute("DELETE FROM meta WHERE k=?", (UNFINISHED,))


def copy(source: SqlCorpus, target: SqlCorpus, table: Table, told: Callable[[int], None]) -> None:
    """Copies the rows that the target has not yet.

    Args:
        source: where from.
        target: where to; nobody else writes there.
        table: which.
        told: is given how many rows each lot had.

    Raises:
        IntegrityError: a body is not of the recorded length.
    """
    for lot in lots(source, target, table, last(target, table)):

        def job(tx: SqlTransaction, lot: list[Row] = lot) -> None:
            tx.fill(table.name, table.columns, lot)

        target.write(job)
        told(len(lot))


def lots(source: SqlCorpus, target: SqlCorpus, table: Table, after: Row | None = None) -> Iterator[list[Row]]:
    """The rows behind a key as the target holds them, in lots of one transaction each.

    Raises:
        IntegrityError: a body is not of the recorded length.
    """
    found = rows(source, table, after)
    if table is TAGS:
        found = (row for row in found if len(row[1].encode()) <= target.tag_bytes_max)
    if table is RECORDS:
        found = (_repacked(target, row) for row in found)
    return _lots(found)


def copy_metas(source: SqlCorpus, target: SqlCorpus) -> None:
    """Copies what is kept beside the records."""
    found = metas(source)

    def job(tx: SqlTransaction) -> None:
        for name, value in found.items():
            tx.set_meta(name, value)

    target.write(job)


def _repacked(target: SqlCorpus, row: Row) -> Row:
    if row[-1] is None:
        return row
    payload = codec.unpack(row[_CODEC], row[-1], row[_LENGTH])
    packed, body = target.pack(payload)
    return (*row[:_CODEC], packed, row[_WHY], body)


def _lots(found: Iterable[Row]) -> Iterator[list[Row]]:
    lot: list[Row] = []
    size = 0
    for row in found:
        lot.append(row)
        size += len(row[-1]) if isinstance(row[-1], bytes) else 0
        if len(lot) >= LOT or size >= LOT_BYTES:
            yield lot
            lot, size = [], 0
    if lot:
        yield lot


# -- proving ------------------------------------------------------------------------------------------------------


def compare(source: SqlCorpus, target: SqlCorpus, table: Table) -> Generator[int, None, None]:
    """Reads a table on both sides, row beside row, but for how bodies are packed; gives how many were equal so far.

    Raises:
        IntegrityError: they differ.
    """
    each = (_outline(table, corpus, other) for corpus, other in ((source, target), (target, source)))
    number = 0
    for one, other in zip_longest(*each):
        if one != other:
            where = (one or other)[: table.keys]
            raise IntegrityError(
                f"source and target differ in {table.name} at {where!r:.200}",
                hint="was the source served meanwhile? remove the target and begin again",
            )
        number += 1
        if number % STEP == 0:
            yield number
    yield number


def _outline(table: Table, corpus: SqlCorpus, other: SqlCorpus) -> Iterator[Row]:
    found = rows(corpus, table)
    if table is RECORDS:  # the scan has proven that a body is what the hash in its row says
        return ((*row[:_CODEC], row[_WHY], row[-1] is None) for row in found)
    if table is TAGS:
        return (tuple(row) for row in found if len(row[1].encode()) <= other.tag_bytes_max)
    return (tuple(row) for row in found)


# -- keys ---------------------------------------------------------------------------------------------------------


def read_keys(query: Callable[..., Sequence[Any]], table: str) -> list[KeyRow]:
    """The keys in this table, oldest first."""
    return [tuple(row) for row in query(f"SELECT public, private, state, made_ms FROM {table} ORDER BY id")]


def add_keys(execute: Callable[..., Any], table: str, keys: Sequence[KeyRow]) -> None:
    """Adds keys that are not there yet, in an open transaction."""
    for key in keys:
        sql = f"INSERT INTO {table}(public, private, state, made_ms) VALUES(?,?,?,?) ON CONFLICT(public) DO NOTHING"
        execute(sql, key)

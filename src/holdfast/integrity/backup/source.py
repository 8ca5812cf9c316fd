"""What is backed up, as it is read: files of records and what stands beside them, while writers go on.

What may change is read in one short moment, with the newest position. The records up to there never change any more, so
they are read page by page outside of it: no backup, however long, holds up a checkpoint or a writer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol

import msgspec

from holdfast import seal, wire
from holdfast.corpus import SqlCorpus, Stored, moving
from holdfast.corpus.rows import COLUMNS
from holdfast.corpus.sql import MESSAGES
from holdfast.integrity.backup.segment import Beside
from holdfast.records import ZERO32
from holdfast.wire import Mark

AGENT: Final = "agent"
HUB: Final = "hub"
STEP: Final = 500
REDACT: Final = "redact"
"""The kind of the record that says which payloads were erased."""

_COLUMNS: Final = {table.name: table.columns for table in moving.TABLES}
SMALL: Final = ("name", "stream", "branch")
SMALL_HUB: Final = (*SMALL, "label", "lineage")
_BY_POS: Final = ("told", "session", "sample")


def columns(table: str) -> str:
    """The columns of a table, as rows of it are kept."""
    return _COLUMNS[table]


class Blobs(Protocol):
    """Where payloads above 64 KiB are read."""

    def open(self, digest: bytes) -> Any:
        """A reader of its bytes."""
        ...

    def has(self, digest: bytes) -> bool:
        """Whether it is here."""
        ...


class Part(msgspec.Struct, frozen=True):
    """One file of records.

    Attributes:
        kind: `AGENT` or `HUB`.
        place: where it lies in its directory, such as ``agents/ada/log.db``.
        corpus: the file, open.
        blobs: where its blobs are.
    """

    kind: str
    place: str
    corpus: SqlCorpus
    blobs: Any


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A whole node, or a whole hub.

    Attributes:
        name: what it is, for people.
        parts: its files of records.
        public_key: the key in force.
        signer: signs with a key of its own, in force or retired; None for a key that it has not.
        documents: what is no record, by name.
    """

    name: str
    parts: Sequence[Part]
    public_key: bytes
    signer: Callable[[bytes], seal.Signer | None]
    documents: dict[str, bytes]


class Tables(msgspec.Struct, kw_only=True):
    """What stands beside the records of one part, as of the moment of the backup.

    Attributes:
        kind, place: of the part.
        pos: the newest position.
        rows: of the small tables, by table.
        meta: what is kept under a name.
        erased: links of the records whose payloads were erased.
    """

    kind: str
    place: str
    pos: int
    rows: Beside
    meta: dict[str, Any]
    erased: list[bytes] = []

    @property
    def own(self) -> set[int]:
        """The numbers of the branches that were written where the file is (of a hub: by plain clients)."""
        streams = {row[0] for row in self.rows["stream"] if row[5]}
        return {row[0] for row in self.rows["branch"] if row[1] in streams}


def moment(part: Part) -> Tables:
    """What may change, and the newest position, all of one moment."""
    corpus = part.corpus
    with corpus.moment() as execute:
        pos = int(execute("SELECT coalesce(max(pos), 0) FROM rec").fetchone()[0])
        rows: Beside = {}
        for table in SMALL_HUB if part.kind == HUB else SMALL:
            order = columns(table).split(", ")[0]
            found = execute(f"SELECT {columns(table)} FROM {table} ORDER BY {order}").fetchall()
            rows[table] = [list(row) for row in found]
        names = [row[0] for row in execute("SELECT k FROM meta ORDER BY k").fetchall()]
        meta = {k: corpus.unfold(execute("SELECT v FROM meta WHERE k=?", (k,)).fetchone()) for k in names}
    for name in moving.ELSEWHERE:
        meta.pop(name, None)
    return Tables(kind=part.kind, place=part.place, pos=pos, rows=rows, meta=meta)


def records(part: Part, after: int, upto: int) -> Iterator[Stored]:
    """The records between two positions, in their order."""
    sql = f"SELECT {COLUMNS} FROM rec r WHERE r.pos>? AND r.pos<=? ORDER BY r.pos LIMIT ?"
    while after < upto:
        found = part.corpus.rows(sql, (after, upto, STEP))
        yield from found
        if len(found) < STEP:
            return
        after = found[-1].pos


def link_at(part: Part, pos: int) -> bytes:
    """The link of the record at a position; zeros if there is none."""
    row = part.corpus.one("SELECT link FROM rec WHERE pos=?", (pos,))
    return bytes(row[0]) if row else ZERO32


def erased(part: Part, upto: int) -> list[bytes]:
    """The links of all records whose payloads were erased."""
    sql = "SELECT link FROM rec WHERE why=? AND pos<=?"
    return [bytes(row[0]) for row in part.corpus.query(sql, (wire.REDACTED, upto))]


def beside(part: Part, span: tuple[int, int], told: set[int], before: dict[int, Mark], ends: dict[int, Mark]) -> Beside:
    """Rows of other tables that came with these records.

    Args:
        part: where they are read.
        span: the first and the last position.
        told: the positions whose tags do not follow from the record (`explicit`).
        before, ends: where each of the branches stood before, and stands behind.
    """
    corpus, out = part.corpus, {}
    between = (span[0] - 1, span[1])
    if told:
        # By position there is no index, and one would cost every put: a scan of the tags, and of nothing else.
        rows = corpus.query(f"SELECT {columns('tag')} FROM tag WHERE pos>? AND pos<=?", between)
        out["tag"] = [list(row) for row in rows if row[2] in told]
    if part.kind == HUB:
        for table in _BY_POS if told else ():
            sql = f"SELECT {columns(table)} FROM {table} WHERE pos>? AND pos<=? ORDER BY pos"
            out[table] = [list(row) for row in corpus.query(sql, between) if row[0] in told]
        sql = f"SELECT {columns('arrival')} FROM arrival WHERE pos>=? AND pos<? ORDER BY at_ms"
        out["arrival"] = [list(row) for row in corpus.query(sql, between)]
        out["signed"] = [
            list(row)
            for branch in ends
            for row in corpus.query(
                f"SELECT {columns('signed')} FROM signed WHERE branch=? AND seq>? AND seq<=? ORDER BY seq",
                (branch, before[branch].seq, ends[branch].seq),
            )
        ]
    return {table: rows for table, rows in out.items() if rows}


def explicit(stored: Stored, own: set[int], kind: str) -> bool:
    """Whether what a record is found by is kept beside it: it does not follow from what is in its row."""
    if kind == AGENT:
        return stored.body is None or (stored.is_blob and stored.record.collection == MESSAGES)
    return stored.body is None or stored.branch in own

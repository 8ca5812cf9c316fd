"""Writes the rows of a plan: each gets the next pos, its place in its key's history, and its tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from holdfast.corpus.port import Branch
from holdfast.corpus.rows import INSERT, Stored, bind
from holdfast.corpus.tags import mark
from holdfast.corpus.transaction import SqlTransaction
from holdfast.protocol.merge import order
from holdfast.protocol.ports import Row
from holdfast.records import DELETE_PREFIX, TOMBSTONE, Record

Tags = Mapping[bytes, Sequence[tuple[int, str]]]
"""A record's link -> its tags, for the records that have any."""
At = tuple[int, int, str]
"""A key: the numbers of its agent and collection, and itself."""

SPLICE_STEPS_MAX: Final = 64
"""How far down a key's history a late version looks for its place; beyond, its place is approximate."""

_CURRENT: Final = (
    "SELECT r.pos, r.link, r.prior, r.hlc, r.flags, r.phash FROM rec r"
    " WHERE r.pos=(SELECT pos FROM state WHERE agent=? AND coll=? AND key=?)"
)
_FIRST: Final = "INSERT INTO state(agent,coll,key,pos,gone) VALUES(?,?,?,?,?) ON CONFLICT DO NOTHING RETURNING 1"
_MOVE: Final = "UPDATE state SET pos=?, gone=? WHERE agent=? AND coll=? AND key=?"
_COVER: Final = (
    "SELECT s.pos FROM scope s WHERE s.agent=? AND s.coll=? AND substr(?,1,length(s.prefix))=s.prefix"
    " AND (SELECT hlc FROM rec WHERE rec.pos=s.pos)>? ORDER BY s.pos DESC LIMIT 1"
)


class Scribe:
    """Writes one plan in the open transaction.

    Args:
        tx: the transaction.
        agents: the names behind the plan's streams.
    """

    def __init__(self, tx: SqlTransaction, agents: Mapping[bytes, str]) -> None:
        self._tx, self._execute, self._agents = tx, tx.sql, agents
        self._pos = tx.last()
        self._ids: dict[str, int] = {}
        self._scoped: dict[tuple[int, int], bool] = {}

    def write(self, rows: Sequence[Row], branches: Mapping[int, int], tags: Tags) -> list[Stored]:
        """Writes the rows in their order, and returns them as they are stored.

        Args:
            rows: of the plan.
            branches: the plan's provisional branch numbers -> those of the file.
            tags: what records are found by.
        """
        return [self._write(row, branches.get(row.branch, row.branch), tags) for row in rows]

    def _write(self, row: Row, branch: int, tags: Tags) -> Stored:
        record, item = row.record, row.item
        agent_name = self._agents[record.stream]
        agent, author, kind, coll = map(self._id, (agent_name, record.author, record.kind, record.collection))
        mine = tags.get(record.link, ())
        self._pos = pos = self._pos + 1
        prior = 0
        if record.kind == DELETE_PREFIX and record.flags & TOMBSTONE:
            where = Branch(branch, record.stream, b"", agent_name, b"", b"", False, 0, b"", 0, b"")
            self._tx.insert(where, record, item, 0, mine)
            self._scoped[agent, coll] = True
        else:
            if record.is_value:
                prior = self._place(agent, coll, record, pos)
            self._add(bind(pos, branch, prior, (agent, author, kind, coll), record, item), mine)
        return Stored(pos, branch, agent_name, prior, record, item.salt, item.codec, item.body, item.why)

    def _id(self, text: str) -> int:
        number = self._ids.get(text)
        if number is None:
            number = self._ids[text] = self._tx.name(text)
        return number

    def _place(self, agent: int, coll: int, record: Record, pos: int) -> int:
        """Puts the record among the versions of its key, the highest `merge.order` first; the pos it stands on."""
        gone = pos if record.flags & TOMBSTONE else self._cover(agent, coll, record)
        at = (agent, coll, record.key)
        if record.key_version == 1 and self._begin(at, pos, gone):
            return 0
        row = self._current(at)
        if row is None:
            self._begin(at, pos, gone)
            return 0
        mine = order(record)
        current, link, prior = row[:3]
        if record.base == link or mine > _order(*row[3:6]):
            self._move(at, pos, gone)
            return int(current)
        for _ in range(SPLICE_STEPS_MAX):
            below = self._execute("SELECT prior, hlc, flags, phash FROM rec WHERE pos=?", (prior,)).fetchone()
            if below is None or mine > _order(*below[1:]):
                break
            current, prior = prior, below[0]
        # `prior` is no part of a record: it is where its key's history goes on in this file.
        self._execute("UPDATE rec SET prior=? WHERE pos=?", (pos, current))
        return int(prior)

    def _cover(self, agent: int, coll: int, record: Record) -> int:
        """The pos of a newer deletion by prefix that came first from elsewhere; 0 for none."""
        scoped = self._scoped.get((agent, coll))
        if scoped is None:
            sql = "SELECT 1 FROM scope WHERE agent=? AND coll=? LIMIT 1"
            scoped = self._scoped[agent, coll] = self._execute(sql, (agent, coll)).fetchone() is not None
        if not scoped:
            return 0
        row = self._execute(_COVER, (agent, coll, record.key, record.hlc)).fetchone()
        return int(row[0]) if row else 0

    # -- where the rows go; an engine far away gathers them ------------------------------------------------------

    def _begin(self, at: At, pos: int, gone: int) -> bool:
        """Names the key's newest version if it has none; whether it did."""
        return self._execute(_FIRST, (*at, pos, gone)).fetchone() is not None

    def _current(self, at: At) -> Any:
        """The key's newest version: its pos, link, prior, hlc, flags and payload's hash."""
        return self._execute(_CURRENT, at).fetchone()

    def _move(self, at: At, pos: int, gone: int) -> None:
        """Names another version the newest."""
        self._execute(_MOVE, (pos, gone, *at))

    def _add(self, values: Any, tags: Sequence[tuple[int, str]]) -> None:
        """Adds a row of `INSERT`, and its tags."""
        self._execute(INSERT, values)
        for number, value in tags:
            self._execute(*mark(values[0], number, value))


def _order(hlc: int, flags: int, phash: bytes) -> tuple[int, bool, bytes]:
    """`merge.order` of a record as it lies in a row."""
    gone = bool(flags & TOMBSTONE)
    return (hlc, gone, b"" if gone else phash)

"""The corpus on SQLite: an agent's log (pos = seq, one branch) or a hub's (many branches), by one set of tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from holdfast.corpus.engine import Engine
from holdfast.corpus.port import Branch, Filter, Head
from holdfast.corpus.rows import COLUMNS, Stored, behind, unbind
from holdfast.corpus.transaction import BRANCH, HEAD_AGENT, HEAD_HUB, KEY, branch_of
from holdfast.corpus.transaction import SqliteTransaction as SqliteTransaction
from holdfast.errors import IntegrityError
from holdfast.records import MORE, genesis
from holdfast.wire import RECORDS_MAX

T = TypeVar("T")

MESSAGES: Final = "messages"
"""The collection of messages; its name has the number 1 in every file."""
TAGS: Final = {"to": 1, "task": 2, "thread": 3, "msg_id": 4}
"""Declared fields that records can be found by; the numbers are in every file, so they never change."""

_ARRIVAL_SLACK_MS: Final = 60_000
# From message to message, newest first. Where one was pruned, the record before it knows the way.
_WAY: Final = (
    "WITH RECURSIVE way(pos, back) AS (SELECT pos, back FROM rec WHERE pos=(SELECT max(pos) FROM rec WHERE pos<?)"
    " UNION ALL SELECT n.pos, n.back FROM way w CROSS JOIN rec n"
    " ON n.pos=(SELECT max(pos) FROM rec WHERE pos<=min(w.back, w.pos-1)))"
)
_ON_WAY: Final = " ON r.pos=w.pos WHERE "
_NEWEST: Final = f"SELECT {COLUMNS} FROM rec r WHERE r.pos=(SELECT pos {KEY} AND gone=0)"


class SqliteCorpus:
    """All records of one file. Safe to share among threads and processes.

    Args:
        path: the database file; its directory exists.
        hub: whether many streams share it (then several branches of each may).
        full: commit with an fsync each (level CRITICAL).
        options: passed to `Engine`.
    """

    def __init__(self, path: Path, *, hub: bool = False, full: bool = False, **options: Any) -> None:
        self.hub = hub
        self.engine = Engine(path, roles=("", "hub" if hub else "agent"), full=full, **options)
        self.engine.on_rollback = self._forget
        # Caches of what never changes once committed; a rollback may undo what was learnt inside it.
        self._ids: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._streams: dict[int, bytes] = {}
        self.tx = self.engine.hands = SqliteTransaction(self)
        self.engine.on_change = self.tx.forget

    # -- writing ------------------------------------------------------------------------------------------------

    def write(self, job: Callable[[SqliteTransaction], T]) -> T:
        """Runs a job in a (shared) transaction and returns its result once committed."""
        return self.engine.commits.run(job)

    def submit(
        self,
        job: Callable[[SqliteTransaction], Any],
        sink: Callable[[list[Any]], None],
        token: Any = None,
    ) -> None:
        """Queues a job; `sink` gets its outcome with those of its batch."""
        self.engine.commits.submit(job, sink, token)

    def sync(self) -> None:
        """Returns when every commit made before the call survives a power cut."""
        self.engine.sync()

    def close(self) -> None:
        """Commits what is queued and closes; a second close is fine."""
        self.engine.close()

    def _forget(self) -> None:
        # New ones and not emptied: a reader may be between asking one and using the answer.
        self._ids, self._names, self._streams = {}, {}, {}
        self.tx.forget()

    # -- reading ------------------------------------------------------------------------------------------------

    def last(self) -> int:
        """The newest pos, 0 when empty."""
        row = self.engine.one("SELECT max(pos) FROM rec")
        return (row and row[0]) or 0

    def head(self, branch: int) -> Head:
        """Where a branch stands."""
        row = self.engine.one(HEAD_HUB, (branch,)) if self.hub else self.engine.one(HEAD_AGENT)
        return Head(*(row or self.engine.one("SELECT base_seq, base_link, 0 FROM branch WHERE id=?", (branch,))))

    def stream_of(self, branch: int) -> bytes:
        """The stream of a branch."""
        return self._stream(branch)

    def at(self, pos: int) -> Stored | None:
        """The record at a pos."""
        row = self.engine.one(f"SELECT {COLUMNS} FROM rec r WHERE r.pos=?", (pos,))
        return self.stored(row) if row else None

    def newest(self, agent: str, collection: str, key: str) -> Stored | None:
        """The key's value, or None if it has none (never had, or deleted)."""
        ids = self._known(agent, collection)
        if ids is None:
            return None
        row = self.engine.one(_NEWEST, (*ids, key))
        return self.stored(row) if row else None

    def versions(self, agent: str, collection: str, key: str) -> Iterator[Stored]:
        """Every version of the key, newest first, tombstones (also of a prefix) included."""
        ids = self._known(agent, collection)
        if ids is None:
            return
        row = self.engine.one("SELECT pos FROM state WHERE agent=? AND coll=? AND key=?", (*ids, key))
        pos = row[0] if row else 0
        # A prefix tombstone is a version of every key under it that existed then.
        scopes = self.engine.query(
            "SELECT pos FROM scope WHERE agent=? AND coll=? AND substr(?,1,length(prefix))=prefix ORDER BY pos DESC",
            (*ids, key),
        )
        wide = [row[0] for row in scopes]
        while pos:
            found = self.at(pos)
            if found is None:
                return  # pruned: the history begins later
            while wide and wide[0] > pos:
                cover = self.at(wide.pop(0))
                if cover is not None:
                    yield cover
            yield found
            pos = found.prior

    def keys(self, agent: str, collection: str, prefix: str = "", after: str = "", limit: int = 1000) -> list[Stored]:
        """The newest values of keys that start with `prefix`, in key order, behind `after` (empty: from the start)."""
        ids = self._known(agent, collection)
        if ids is None:
            return []
        sql = (
            f"SELECT {COLUMNS} FROM state st JOIN rec r ON r.pos=st.pos WHERE st.agent=? AND st.coll=? AND st.key>=?"
            " AND st.key<? AND st.key>? AND st.gone=0 ORDER BY st.key LIMIT ?"
        )
        args = (*ids, prefix, behind(prefix), after or "", limit)
        if not after:  # the empty key is a key too
            sql, args = sql.replace(" AND st.key>?", ""), (*ids, prefix, behind(prefix), limit)
        return [self.stored(row) for row in self.engine.query(sql, args)]

    def collections(self, agent: str) -> list[tuple[str, int]]:
        """The agent's collections and how many live keys each has."""
        sql = (
            "SELECT n.s, count(*) FROM state st JOIN name n ON n.id=st.coll"
            " WHERE st.agent=(SELECT id FROM name WHERE s=?) AND st.gone=0 GROUP BY st.coll ORDER BY n.s"
        )
        return self.engine.query(sql, (agent,))

    def agents(self) -> list[str]:
        """Every agent that this file holds a log of."""
        sql = "SELECT DISTINCT n.s FROM stream st JOIN name n ON n.id=st.agent ORDER BY n.s"
        return [row[0] for row in self.engine.query(sql)]

    def page(self, which: Filter) -> list[Stored]:
        """Records in commit order, or newest first."""
        where, args = self._where(which)
        order = "DESC" if which.newest_first else "ASC"
        if where.startswith("tag t"):
            # By the tag's pos, so that its index gives the order: sorting whole rows took 1 ms of a page.
            pos = "t.pos"
        elif which.collection == MESSAGES and which.newest_first and not self.hub:
            before = (1 << 62) if which.after is None else which.after
            sql = f"{_WAY} SELECT {COLUMNS} FROM way w CROSS JOIN {where.replace(' WHERE ', _ON_WAY, 1)} LIMIT ?"
            return [self.stored(row) for row in self.engine.query(sql, (before, *args, which.limit))]
        else:
            pos = "r.pos"
        if which.after is not None:
            where += f" AND {pos}<?" if which.newest_first else f" AND {pos}>?"
            args = (*args, which.after)
        sql = f"SELECT {COLUMNS} FROM {where} ORDER BY {pos} {order} LIMIT ?"
        return [self.stored(row) for row in self.engine.query(sql, (*args, which.limit))]

    def count(self, which: Filter, most: int = 10_000) -> int:
        """How many records `which` matches, counted up to `most`."""
        where, args = self._where(which)
        sql = f"SELECT count(*) FROM (SELECT 1 FROM {where} LIMIT ?)"
        return int(self.engine.one(sql, (*args, most))[0])

    def find_tag(self, tag: str, value: str) -> Stored | None:
        """The first record that carries a tag with this value."""
        sql = f"SELECT {COLUMNS} FROM tag t JOIN rec r ON r.pos=t.pos WHERE t.k=? AND t.v=? ORDER BY t.pos LIMIT 1"
        row = self.engine.one(sql, (TAGS[tag], value))
        return self.stored(row) if row else None

    def feed(self, after: int, limit: int = RECORDS_MAX, bytes_max: int = 1 << 20) -> list[Stored]:
        """Records behind a pos in commit order; never cut inside a batch."""
        return self._run("r.pos>? ORDER BY r.pos", (after,), limit, bytes_max)

    def chain(self, branch: int, after: int, limit: int = RECORDS_MAX, bytes_max: int = 1 << 20) -> list[Stored]:
        """Records of one branch's chain behind a seq, its ancestors' included; never cut inside a batch."""
        if not self.hub:
            return self.feed(after, limit, bytes_max)
        for owner, low, high in self._ancestry(branch):
            if after < high or owner == branch:
                where = "r.branch=? AND r.seq>? AND r.seq<=? ORDER BY r.seq"
                return self._run(where, (owner, max(after, low), high), limit, bytes_max)
        return []

    def rows(self, sql: str, args: Sequence[Any] = ()) -> list[Stored]:
        """The records that a query of this package finds; it selects `COLUMNS`."""
        return [self.stored(row) for row in self.engine.query(sql, args)]

    def link_at(self, branch: int, seq: int) -> bytes | None:
        """The link of a record of a branch's chain, also below its base; None if the file does not hold it."""
        if not self.hub:
            row = self.engine.one("SELECT link FROM rec WHERE pos=?", (seq,)) if seq else None
            if seq == 0:
                found = self.branch(branch)
                return genesis(found.stream) if found else None
            return bytes(row[0]) if row else None
        for owner, low, high in self._ancestry(branch):
            if low < seq <= high:
                row = self.engine.one("SELECT link FROM rec WHERE branch=? AND seq=?", (owner, seq))
                return bytes(row[0]) if row else None
        found = self.branch(branch)
        return genesis(found.stream) if found and seq == 0 else None

    def branch(self, branch: int) -> Branch | None:
        """A branch by its number in this file."""
        row = self.engine.one(f"{BRANCH} WHERE b.id=?", (branch,))
        return branch_of(row) if row else None

    def branches(self, agent: str | None = None, stream: bytes | None = None) -> list[Branch]:
        """All branches, of one agent or stream where given, oldest first."""
        sql: str = BRANCH
        args: tuple[Any, ...] = ()
        if agent is not None:
            sql, args = f"{BRANCH} WHERE n.s=?", (agent,)
        if stream is not None:
            sql, args = f"{BRANCH} WHERE s.stream=?", (stream,)
        rows = self.engine.query(f"{sql} ORDER BY b.id", args)
        return [branch_of(row) for row in rows]

    def meta(self, key: str) -> Any:
        """A value kept beside the records, or None."""
        row = self.engine.one("SELECT v FROM meta WHERE k=?", (key,))
        return row and row[0]

    def size_bytes(self) -> int:
        """What the file and its WAL take on disk."""
        return sum(os.stat(p).st_size for p in (self.engine.path, f"{self.engine.path}-wal") if os.path.exists(p))

    # -- inside -------------------------------------------------------------------------------------------------

    def stored(self, row: tuple[Any, ...]) -> Stored:
        """The record in a row of `COLUMNS`, for queries of this package."""
        try:  # most names are known, and asking a dict is a third of asking a function that asks it
            return unbind(row, self._names.__getitem__, self._streams.__getitem__)
        except KeyError:
            return unbind(row, self._name, self._stream)

    def _known(self, *names: str) -> tuple[int, ...] | None:
        ids = self._ids
        try:
            return tuple([ids[name] for name in names])
        except KeyError:
            for name in names:
                row = self.engine.one("SELECT id FROM name WHERE s=?", (name,))
                if row is None:
                    return None
                ids[name] = row[0]
            return tuple([ids[name] for name in names])

    def _name(self, number: int) -> str:
        try:
            return self._names[number]
        except KeyError:
            row = self.engine.one("SELECT s FROM name WHERE id=?", (number,))
            if row is None:
                raise IntegrityError(f"name {number} is missing", hint="holdfast verify") from None
            text: str = row[0]
            self._names[number] = text
            return text

    def _stream(self, branch: int) -> bytes:
        try:
            return self._streams[branch]
        except KeyError:
            sql = "SELECT s.stream FROM branch b JOIN stream s ON s.id=b.stream WHERE b.id=?"
            row = self.engine.one(sql, (branch,))
            if row is None:
                raise IntegrityError(f"branch {branch} is missing", hint="holdfast verify") from None
            stream: bytes = row[0]
            self._streams[branch] = stream
            return stream

    def _run(self, where: str, args: Sequence[Any], limit: int, bytes_max: int) -> list[Stored]:
        out: list[Stored] = []
        size = 0
        with self.engine.reader() as connection:
            rows = connection.execute(
                f"SELECT {COLUMNS} FROM rec r WHERE {where} LIMIT ?", (*args, limit + RECORDS_MAX)
            )
            for row in rows:
                if out and (len(out) >= limit or size >= bytes_max) and not out[-1].record.flags & MORE:
                    break
                out.append(self.stored(row))
                size += len(row[-1] or b"") + 256
        return out

    def _ancestry(self, branch: int) -> list[tuple[int, int, int]]:
        """Which branch holds which part (low, high] of this branch's chain, oldest part first."""
        parts: list[tuple[int, int, int]] = []
        here = self.branch(branch)
        high = here.seq if here else 0
        while here is not None:
            if high > here.base_seq or here.id == branch:
                parts.append((here.id, here.base_seq, high))
            high = min(high, here.base_seq)
            row = self.engine.one("SELECT parent FROM branch WHERE id=?", (here.id,))
            here = self.branch(row[0]) if row and row[0] is not None else None
        return parts[::-1]

    def _where(self, which: Filter) -> tuple[str, tuple[Any, ...]]:
        tables, tests, args = "rec r", ["1"], []
        for field in ("to", "task", "thread"):
            value = getattr(which, field)
            if value is not None:
                if tables == "rec r":
                    tables = "tag t CROSS JOIN rec r ON r.pos=t.pos"
                    tests.append("t.k=? AND t.v=?")
                else:
                    tests.append("r.pos IN (SELECT pos FROM tag WHERE k=? AND v=?)")
                args += [TAGS[field], value]
        if which.agents and not self.hub:  # one file, one agent
            ids = [self._known(name) for name in which.agents]
            tests.append(f"r.agent IN ({','.join(str(found[0]) for found in ids if found)})")
        elif which.agents:
            # The unary plus keeps the planner on the collection's index where a tag has already narrowed it.
            tests.append(f"r.agent IN (SELECT id FROM name WHERE s IN ({','.join('?' * len(which.agents))}))")
            args += which.agents
        if which.collection == MESSAGES and not self.hub:
            tests.append("r.coll=1")
        elif which.collection is not None:
            plain = "" if not which.agents and tables == "rec r" else "+"
            tests.append(f"{plain}r.coll=(SELECT id FROM name WHERE s=?)")
            args.append(which.collection)
        if which.kinds:
            tests.append(f"+r.kind IN (SELECT id FROM name WHERE s IN ({','.join('?' * len(which.kinds))}))")
            args += which.kinds
        if which.current:
            tests.append("r.pos=(SELECT pos FROM state WHERE agent=r.agent AND coll=r.coll AND key=r.key AND gone=0)")
        if which.key is not None:
            tests.append("r.key=?")
            args.append(which.key)
        if which.since:
            tests.append("r.hlc>=? AND r.pos>?")
            args += [which.since, self._arrived_before(which.since)]
        if which.until < 1 << 62:
            tests.append("r.hlc<?")
            args.append(which.until)
        return f"{tables} WHERE {' AND '.join(tests)}", tuple(args)

    def _arrived_before(self, stamp: int) -> int:
        if not self.hub:
            return 0
        sql = "SELECT pos FROM arrival WHERE at_ms<? ORDER BY at_ms DESC LIMIT 1"
        row = self.engine.one(sql, ((stamp >> 16) - _ARRIVAL_SLACK_MS,))
        return row[0] if row else 0

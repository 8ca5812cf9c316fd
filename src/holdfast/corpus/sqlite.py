"""The corpus on SQLite: an agent's log (pos = seq, one branch) or a hub's (many branches), by one set of tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from holdfast.corpus.engine import Engine
from holdfast.corpus.port import Body, Branch, Filter, Head, Prior
from holdfast.corpus.rows import COLUMNS, INSERT, Stored, behind, bind, unbind
from holdfast.errors import IntegrityError
from holdfast.records import DELETE_PREFIX, MORE, TOMBSTONE, Record, genesis
from holdfast.wire import RECORDS_MAX

T = TypeVar("T")

MESSAGES: Final = "messages"
"""The collection of messages; its name has the number 1 in every file."""
TAGS: Final = {"to": 1, "task": 2, "thread": 3, "msg_id": 4}
"""Declared fields that records can be found by; the numbers are in every file, so they never change."""

_ARRIVAL_SLACK_MS: Final = 60_000
_HEAD_AGENT: Final = "SELECT seq, link, hlc FROM rec ORDER BY pos DESC LIMIT 1"
_HEAD_HUB: Final = (
    "SELECT b.seq, b.link, coalesce((SELECT hlc FROM rec WHERE branch=b.id AND seq=b.seq),"
    " (SELECT hlc FROM rec WHERE branch=b.parent AND seq=b.seq), 0)"
    " FROM branch b WHERE b.id=?"
)
# Scalar subqueries and not joins: with STAT4 a join on bound values is prepared anew at each call (7 µs against 1.6).
_KEY: Final = "FROM state WHERE agent=?1 AND coll=?2 AND key=?3"
_PRIOR: Final = (
    f"SELECT r.pos, r.link, r.version, (SELECT gone {_KEY}), r.hlc FROM rec r WHERE r.pos=(SELECT pos {_KEY})"
)
_NEWEST: Final = f"SELECT {COLUMNS} FROM rec r WHERE r.pos=(SELECT pos {_KEY} AND gone=0)"
_STATE: Final = (
    "INSERT INTO state(agent,coll,key,pos,gone) VALUES(?,?,?,?,?)"
    " ON CONFLICT(agent,coll,key) DO UPDATE SET pos=excluded.pos, gone=excluded.gone"
)
_BRANCH: Final = (
    "SELECT b.id, s.stream, b.inc, n.s, s.public_key, s.current_key, s.own, b.base_seq, b.base_link, b.seq, b.link"
    " FROM branch b JOIN stream s ON s.id=b.stream JOIN name n ON n.id=s.agent"
)


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

    # -- reading ------------------------------------------------------------------------------------------------

    def last(self) -> int:
        """The newest pos, 0 when empty."""
        row = self.engine.one("SELECT max(pos) FROM rec")
        return (row and row[0]) or 0

    def head(self, branch: int) -> Head:
        """Where a branch stands."""
        row = self.engine.one(_HEAD_HUB, (branch,)) if self.hub else self.engine.one(_HEAD_AGENT)
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
        if which.after is not None:
            where += " AND r.pos<?" if which.newest_first else " AND r.pos>?"
            args = (*args, which.after)
        order = "DESC" if which.newest_first else "ASC"
        sql = f"SELECT {COLUMNS} FROM {where} ORDER BY r.pos {order} LIMIT ?"
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
        row = self.engine.one(f"{_BRANCH} WHERE b.id=?", (branch,))
        return _branch(row) if row else None

    def branches(self, agent: str | None = None, stream: bytes | None = None) -> list[Branch]:
        """All branches, of one agent or stream where given, oldest first."""
        sql: str = _BRANCH
        args: tuple[Any, ...] = ()
        if agent is not None:
            sql, args = f"{_BRANCH} WHERE n.s=?", (agent,)
        if stream is not None:
            sql, args = f"{_BRANCH} WHERE s.stream=?", (stream,)
        rows = self.engine.query(f"{sql} ORDER BY b.id", args)
        return [_branch(row) for row in rows]

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
        if which.agents:
            # The unary plus keeps the planner on the collection's index where a tag has already narrowed it.
            tests.append(f"r.agent IN (SELECT id FROM name WHERE s IN ({','.join('?' * len(which.agents))}))")
            args += which.agents
        if which.collection == MESSAGES and not self.hub:
            tests.append("r.coll=1")  # the constant that the partial index is made for
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


class SqliteTransaction:
    """What a job may do; valid only inside the job, in the thread that leads."""

    def __init__(self, corpus: SqliteCorpus) -> None:
        self._corpus = corpus
        self._execute = corpus.engine.writer_execute
        self.many_branches = self._hub = corpus.hub

    def name(self, text: str) -> int:
        """The number that stands for a name in this file."""
        ids = self._corpus._ids
        try:
            return ids[text]
        except KeyError:
            row = self._execute("SELECT id FROM name WHERE s=?", (text,)).fetchone()
            if row is None:
                row = self._execute("INSERT INTO name(s) VALUES(?) RETURNING id", (text,)).fetchone()
            number: int = row[0]
            ids[text] = number
            return number

    def head(self, branch: int) -> Head:
        """Where the branch stands now, inside the transaction."""
        if self._hub:
            return Head(*self._execute(_HEAD_HUB, (branch,)).fetchone())
        row = self._execute(_HEAD_AGENT).fetchone()
        if row is None:
            row = self._execute("SELECT base_seq, base_link, 0 FROM branch WHERE id=?", (branch,)).fetchone()
        return Head(*row)

    def last(self) -> int:
        """The newest pos inside the transaction."""
        newest: int | None = self._execute("SELECT max(pos) FROM rec").fetchone()[0]
        return newest or 0

    def prior(self, agent: str, collection: str, key: str) -> Prior | None:
        """The key's newest version, also if it is a tombstone; None if it never had one."""
        row = self._execute(_PRIOR, (self.name(agent), self.name(collection), key)).fetchone()
        return Prior(*row) if row else None

    def insert(
        self, branch: Branch, record: Record, item: Body, prior: int, tags: Sequence[tuple[int, str]] = ()
    ) -> int:
        """Adds the record behind the branch's head and returns its pos; updates state and scopes."""
        execute, names = self._execute, self._corpus._ids
        pos = self.last() + 1 if self._hub else record.seq
        texts = (branch.agent, record.author, record.kind, record.collection)
        try:
            ids = agent, _, _, coll = names[texts[0]], names[texts[1]], names[texts[2]], names[texts[3]]
        except KeyError:
            a, b, c, d = map(self.name, texts)
            ids = agent, _, _, coll = a, b, c, d
        execute(INSERT, bind(pos, branch.id, prior, ids, record, item))
        if record.kind == DELETE_PREFIX and record.flags & TOMBSTONE:
            self._hide(agent, coll, record, pos)
        elif record.is_value and not (self._hub and self._older(agent, coll, record, prior)):
            execute(_STATE, (agent, coll, record.key, pos, pos if record.flags & TOMBSTONE else 0))
        for number, value in tags:
            execute("INSERT OR IGNORE INTO tag VALUES(?,?,?)", (number, value, pos))
        return pos

    def _hide(self, agent: int, coll: int, tombstone: Record, pos: int) -> None:
        """Hides every key under a prefix that is not newer than its tombstone (on a hub, another branch's may be)."""
        self._execute("INSERT INTO scope VALUES(?,?,?,?)", (agent, coll, tombstone.key, pos))
        self._execute(
            "UPDATE state SET gone=? WHERE agent=? AND coll=? AND key>=? AND key<? AND gone=0"
            " AND (SELECT hlc FROM rec WHERE rec.pos=state.pos)<?",
            (pos, agent, coll, tombstone.key, behind(tombstone.key), tombstone.hlc),
        )

    def _older(self, agent: int, coll: int, record: Record, prior: int) -> bool:
        """Whether another branch's value of the key is newer than this one, which does not replace it."""
        row = self._execute(
            "SELECT st.pos, r.hlc, (SELECT g.hlc FROM rec g WHERE g.pos=st.gone) FROM state st"
            " JOIN rec r ON r.pos=st.pos WHERE st.agent=? AND st.coll=? AND st.key=?",
            (agent, coll, record.key),
        ).fetchone()
        return row is not None and row[0] != prior and max(row[1], row[2] or 0) > record.hlc

    def advance(self, branch: int, seq: int, link: bytes, signature: bytes | None = None) -> None:
        """Moves the head of a branch (in files with several); keeps the head's signature where given."""
        self._execute("UPDATE branch SET seq=?, link=?, signature=? WHERE id=?", (seq, link, signature, branch))

    def open_branch(self, branch: Branch, parent: int | None = None) -> Branch:
        """Adds a branch (its `id` is ignored) and, if new, its stream; returns it as stored."""
        self._execute(
            "INSERT INTO stream(stream, agent, public_key, current_key, own) VALUES(?,?,?,?,?) ON CONFLICT DO NOTHING",
            (branch.stream, self.name(branch.agent), branch.public_key, branch.current_key, int(branch.own)),
        )
        self._execute(
            "INSERT INTO branch(stream, inc, parent, base_seq, base_link, seq, link)"
            " SELECT id, ?, ?, ?, ?, ?, ? FROM stream WHERE stream=? ON CONFLICT DO NOTHING",
            (branch.inc, parent, branch.base_seq, branch.base_link, branch.seq, branch.link, branch.stream),
        )
        where = f"{_BRANCH} WHERE s.stream=? AND b.inc=? AND b.base_seq=?"
        return _branch(self._execute(where, (branch.stream, branch.inc, branch.base_seq)).fetchone())

    def branches(self, stream: bytes) -> list[Branch]:
        """All incarnations of a stream, oldest first."""
        rows = self._execute(f"{_BRANCH} WHERE s.stream=? ORDER BY b.id", (stream,))
        return [_branch(row) for row in rows]

    def rekey(self, stream: bytes, public_key: bytes) -> None:
        """The stream is signed by another key from here on."""
        self._execute("UPDATE stream SET current_key=? WHERE stream=?", (public_key, stream))

    def drop_body(self, pos: int, why: int) -> None:
        """Takes a record's body away, and says why; the record stays."""
        self._execute("UPDATE rec SET body=NULL, why=? WHERE pos=? AND why=0", (why, pos))

    def meta(self, key: str) -> Any:
        """A value kept beside the records, or None."""
        row = self._execute("SELECT v FROM meta WHERE k=?", (key,)).fetchone()
        return row and row[0]

    def set_meta(self, key: str, value: int | str | bytes | None) -> None:
        """Keeps a value beside the records, in the same transaction."""
        self._execute("INSERT INTO meta VALUES(?,?) ON CONFLICT(k) DO UPDATE SET v=excluded.v", (key, value))

    def execute(self, sql: str, args: Sequence[Any] = ()) -> list[Any]:
        """Rows of a statement run inside the transaction: for tables beside the records (index, arrivals, lineage)."""
        rows: list[Any] = self._execute(sql, args).fetchall()
        return rows


def _branch(row: Any) -> Branch:
    stream = (*row[:6], bool(row[6]), *row[7:])
    return Branch(*stream)

"""The corpus over an engine that speaks SQL: everything that one text says to SQLite and to PostgreSQL alike.

A query here keeps to what both understand: `?` for values (`?1` where one stands twice), ON CONFLICT with its target,
named subqueries, tests that are true or false and not numbers. `CROSS JOIN … ON` is SQLite's way of fixing an order and
a plain join elsewhere; a unary plus keeps either planner off an index. What must differ the engine's corpus overrides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, TypeVar

import msgspec

from holdfast import codec
from holdfast.corpus import times
from holdfast.corpus.commit import GroupCommit
from holdfast.corpus.engines import Engine
from holdfast.corpus.port import Branch, Filter, Head, fits
from holdfast.corpus.rows import ARCHIVED, COLUMNS, Stored, named, unbind, within
from holdfast.corpus.transaction import BRANCH, HEAD_HUB, KEY, SqlTransaction, branch_of
from holdfast.errors import IntegrityError
from holdfast.records import MORE, genesis
from holdfast.wire import EVICTED, RECORDS_MAX

T = TypeVar("T")

MESSAGES: Final = "messages"
"""The collection of messages; its name has the number 1 in every file."""
TAGS: Final = {"to": 1, "task": 2, "thread": 3, "msg_id": 4, "ref": 5, "label": 6, "touched": 7, "request": 8}
"""Declared fields that records can be found by; the numbers are in every file, so they never change.

`ref` is the id of a session or an artifact, `label` a metric's ``name=text``; `touched` stands where a collection holds
anything but first versions; `request` is a request's own name, which no message can have (`msg_id` is anybody's).
"""

_ARRIVAL_SLACK_MS: Final = 60_000
_PLAIN: Final = re.compile(r"[^*?]*")
NEWEST: Final = f"SELECT {COLUMNS} FROM rec r WHERE r.pos=(SELECT pos {KEY} AND gone=0)"


LINED_UP: Final = "r.{0} {{0}}, r.pos {{0}}"
"""The order of records that hold the same in a column: said with the column, as that keeps a planner to its index."""


class SqlCorpus:
    """All records of one file or database. Safe to share among threads and processes.

    Args:
        engine: runs the statements.
        hub: whether many streams share it (then several branches of each may).
    """

    engine: Engine
    tx: SqlTransaction
    """What jobs are given; its `sql` runs a statement inside the open transaction."""
    scour: Callable[..., bool]
    """Lets go of what is still kept of rows as they were, with ``index=`` of their words; False while one is read."""

    elsewhere: Callable[[Stored], Stored | None] | None = None
    """Brings the body of a row that an archive holds; None while it cannot."""
    lot_bytes = 1 << 20
    """Of bodies, as they are stored, that are indexed in one transaction: all of a lot's words lie in the WAL first."""

    def __init__(self, *, hub: bool) -> None:
        self.hub = hub
        # Caches of what never changes once committed; a rollback may undo what was learnt inside it.
        self._ids: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._streams: dict[int, bytes] = {}

    # -- writing ------------------------------------------------------------------------------------------------

    def write(self, job: Callable[[Any], T]) -> T:
        """Runs a job in a (shared) transaction and returns its result once committed."""
        return self.engine.commits.run(job)

    def submit(
        self,
        job: Callable[[Any], Any],
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

    def _undone(self) -> None:
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
        row = self.engine.one(HEAD_HUB, (branch,))
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
        row = self.engine.one(NEWEST, (*ids, key)) if ids is not None else None
        found = self.stored(row) if row else None
        if found and (found.record.key != key or found.record.collection != collection):
            raise IntegrityError(f"another record lies where {collection}/{key} should", hint="holdfast verify")
        return found

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
        span, ends = within("st.key", prefix)
        if after:  # the empty key is a key too
            span, ends = f"{span} AND st.key>?", (*ends, after)
        sql = (
            f"SELECT {COLUMNS} FROM state st JOIN rec r ON r.pos=st.pos WHERE st.agent=? AND st.coll=? AND {span}"
            " AND st.gone=0 ORDER BY st.key LIMIT ?"
        )
        return [self.stored(row) for row in self.engine.query(sql, (*ids, *ends, limit))]

    def collections(self, agent: str) -> list[tuple[str, int]]:
        """The agent's collections and how many live keys each has."""
        sql = (
            "SELECT n.s, count(*) FROM state st JOIN name n ON n.id=st.coll"
            " WHERE st.agent=(SELECT id FROM name WHERE s=?) AND st.gone=0 GROUP BY n.s ORDER BY n.s"
        )
        return self.engine.query(sql, (agent,))

    def agents(self) -> list[str]:
        """Every agent that this file holds a log of."""
        sql = "SELECT DISTINCT n.s FROM stream st JOIN name n ON n.id=st.agent ORDER BY n.s"
        return [row[0] for row in self.engine.query(sql)]

    def page(self, which: Filter) -> list[Stored]:
        """Records in commit order, or newest first."""
        where, args, pos = self._behind(which)
        order = "DESC" if which.newest_first else "ASC"
        sql = f"SELECT {COLUMNS} FROM {where} ORDER BY {pos.format(order)} LIMIT ?"
        return [self.stored(row) for row in self.engine.query(sql, (*args, which.limit))]

    def count(self, which: Filter, most: int = 10_000) -> int:
        """How many records `which` matches, counted up to `most`."""
        where, args, _ = self._behind(which)
        sql = f"SELECT count(*) FROM (SELECT 1 FROM {where} LIMIT ?) f"
        return int(self.engine.one(sql, (*args, most))[0])

    def _behind(self, which: Filter) -> tuple[str, tuple[Any, ...], str]:
        """What `which` matches behind its keyset, and what orders it, to be given a direction."""
        after, line = which.after, self._line(which)
        if line is not None:
            where, args = self._where(which, line[0])
            low, high = self._span(which) if _timed(which) else (0, 1 << 62)
            if after is not None:
                low, high = (low, min(high, after - 1)) if which.newest_first else (max(low, after + 1), high)
            test, ends = self.lined_up(*line, low, high)
            return f"{where} AND {test}", (*args, *ends), LINED_UP.format(line[0])
        where, args = self._where(which)
        # By the tag's pos, so that its index gives the order: sorting whole rows took 1 ms of a page.
        pos = "t.pos" if where.startswith("tag t") else "r.pos"
        if after is not None:
            where += f" AND {pos}<?" if which.newest_first else f" AND {pos}>?"
            args = (*args, after)
        return where, args, f"{pos} {{}}"

    def _line(self, which: Filter) -> tuple[str, str] | None:
        """The column whose index holds a page of a hub in order, and what it is to hold; None if none does."""
        if not self.hub or which.to is not None or which.task is not None or which.thread is not None:
            return None
        if which.agents:
            return ("agent", which.agents[0]) if len(which.agents) == 1 else None
        return None if which.collection is None else ("coll", which.collection)

    def lined_up(self, column: str, name: str, low: int, high: int) -> tuple[str, tuple[Any, ...]]:
        """The test of records between two positions with this name in `agent` or `coll`, to be had as `LINED_UP`."""
        return f"r.{column}=(SELECT id FROM name WHERE s=?) AND r.pos BETWEEN ? AND ?", (name, low, high)

    index_is_exact = True
    """Whether `matching` also knows where in a text its words stand."""
    tag_bytes_max = 1 << 30
    """The longest tag that records can be found by."""

    matching: Callable[..., list[Stored]]
    """Records that the index has for all of some terms, the newest below a position: (terms, below, limit, agents=()).

    A term is words in a row, and whether the last is only a beginning; `agents` are those whose records the index is to
    look for, as far as it knows.
    """
    places: Callable[..., list[int]]
    """The positions of the same, without the records."""
    nearest: Callable[[int, bytes, int], list[tuple[int, float]]] | None = None
    """The positions of an index's vectors nearest to a packed one, and the cosines, where the engine can tell."""

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
        for owner, low, high in self._ancestry(branch):
            if after < high or owner == branch:
                where = "r.branch=? AND r.seq>? AND r.seq<=? ORDER BY r.seq"
                return self._run(where, (owner, max(after, low), high), limit, bytes_max)
        return []

    def query(self, sql: str, args: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query."""
        return self.engine.query(sql, args)

    def one(self, sql: str, args: Sequence[Any] = ()) -> Any:
        """The first row of a query, or None."""
        return self.engine.one(sql, args)

    def rows(self, sql: str, args: Sequence[Any] = ()) -> list[Stored]:
        """The records that a query of `COLUMNS` finds."""
        return [self.stored(row) for row in self.engine.query(sql, args)]

    def read(self, sql: str, args: Sequence[Any] = ()) -> Generator[Stored, None, None]:
        """The same, fetched as they are asked for."""
        # Row by row, so that a page ends where its bytes do and not where its rows would.
        for row in self.engine.read(sql, args):
            yield self.stored(row)

    def places_of_each(
        self, some: Sequence[Sequence[tuple[list[str], bool]]], below: int, limit: int, agents: Sequence[str] = ()
    ) -> list[list[int]]:
        """What `places` gives for each of several searches."""
        return [self.places(terms, below, limit, agents) for terms in some]

    def sort_words(self) -> None:
        """Sorts in what the index of words has only noted, where an engine leaves that."""

    def moment(self) -> AbstractContextManager[Callable[..., Any]]:
        """What runs statements that all see the same moment; each gives a cursor."""
        return self.engine.moment()

    def link_at(self, branch: int, seq: int) -> bytes | None:
        """The link of a record of a branch's chain, also below its base; None if the file does not hold it."""
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
        return self.unfold(self.engine.one("SELECT v FROM meta WHERE k=?", (key,)))

    @staticmethod
    def unfold(row: Any) -> Any:
        """The value in a row of `meta`; None for no row."""
        return row and row[0]

    @property
    def commits(self) -> GroupCommit:
        """What runs jobs, for whoever says in which thread."""
        return self.engine.commits

    @property
    def inline(self) -> bool:
        """Whether a small commit may be made where nobody may wait, such as on an event loop."""
        return self.engine.inline

    @property
    def wal_pages(self) -> int:
        """How much lies beside the file until a `checkpoint` moves it there; 0 where nothing does."""
        return self.engine.wal_pages

    def checkpoint(self, *, most_pages: int = 0) -> None:
        """Moves what lies beside the file into it when there are at least so many pages."""
        self.engine.checkpoint(most_pages=most_pages)

    @property
    def unusable(self) -> bool:
        """Whether it is closed, or has failed for good."""
        return self.engine.unusable

    def pack(self, payload: bytes) -> tuple[int, bytes]:
        """How a payload is stored here: its codec, and its bytes."""
        return codec.pack(payload)

    # -- inside -------------------------------------------------------------------------------------------------

    def stored(self, row: tuple[Any, ...]) -> Stored:
        """The record in a row of `COLUMNS`, for queries of this package."""
        try:  # most names are known, and asking a dict is a third of asking a function that asks it
            found = unbind(row, self._names.__getitem__, self._streams.__getitem__)
        except KeyError:
            found = unbind(row, self._name, self._stream)
        return found if found.why != ARCHIVED else self._brought(found)

    def bare(self, row: tuple[Any, ...]) -> Stored:
        """The same without what an archive holds: for who looks at all of a file, and not beyond it."""
        found = unbind(row, self._name, self._stream)
        return found if found.why != ARCHIVED else msgspec.structs.replace(found, why=EVICTED)

    def _brought(self, found: Stored) -> Stored:
        back = self.elsewhere(found) if self.elsewhere is not None else None
        return msgspec.structs.replace(found, why=EVICTED) if back is None else back

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
        out, size = list[Stored](), 0
        rows = self.engine.read(f"SELECT {COLUMNS} FROM rec r WHERE {where} LIMIT ?", (*args, limit + RECORDS_MAX))
        for row in rows:
            if out and (len(out) >= limit or size >= bytes_max) and not out[-1].record.flags & MORE:
                break
            if out and row[0] <= out[-1].pos:
                raise IntegrityError(f"position {row[0]} follows {out[-1].pos}", hint="holdfast verify")
            out.append(self.stored(row))
            size += len(row[-1] or b"") + 256
        rows.close()
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

    def _where(self, which: Filter, line: str = "") -> tuple[str, tuple[Any, ...]]:
        """What `which` matches wherever it stands, but for the column that `line` names."""
        tables, tests, args = "rec r", ["true"], []
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
        elif which.agents and line != "agent":
            # The unary plus keeps the planner on the collection's index where a tag has already narrowed it.
            tests.append(named("r.agent", which.agents))
            args += which.agents
        if which.collection == MESSAGES and not self.hub:
            tests.append("r.coll=1")
        elif which.collection is not None and line != "coll":
            plain = "" if not which.agents and tables == "rec r" else "+"
            tests.append(named("r.coll", (which.collection,), plain))
            args.append(which.collection)
        if which.kinds:
            tests.append(named("r.kind", which.kinds, "+"))
            args += which.kinds
        if which.readable:
            tests.append(self.in_collections(which.readable, "+r.coll"))
        if which.current:
            tests.append("r.pos=(SELECT pos FROM state WHERE agent=r.agent AND coll=r.coll AND key=r.key AND gone=0)")
        if which.key is not None:
            tests.append("r.key=?")
            args.append(which.key)
        if _timed(which):
            tests.append("r.hlc>=? AND r.hlc<?")
            args += [which.since, which.until]
            if not line:
                tests.append("r.pos BETWEEN ? AND ?")
                args += self._span(which)
        return f"{tables} WHERE {' AND '.join(tests)}", tuple(args)

    def _span(self, which: Filter) -> tuple[int, int]:
        """Between which positions everything lies that has the time asked for."""
        if not self.hub:
            return 0, 1 << 62
        if which.agents:
            branches = [branch for agent in set(which.agents) for branch in self.branches(agent)]
            found = times.span(self.engine.one, branches, which.since, which.until)
            if found is not None:
                return found
        return self._arrived_before(which.since) + 1, 1 << 62

    def in_collections(self, globs: tuple[str, ...], column: str) -> str:
        """The test of a record in a collection that fits one of these globs."""
        found: set[int] = set()
        for glob in globs:
            # Which letters stand for others differs between databases: they narrow it, and we decide.
            span, ends = within("s", _PLAIN.match(glob)[0])  # type: ignore[index]
            found.update(
                row[0] for row in self.query(f"SELECT id, s FROM name WHERE {span}", ends) if fits(row[1], globs)
            )
        return f"{column} IN ({','.join(map(str, sorted(found))) or 'NULL'})"

    def _arrived_before(self, stamp: int) -> int:
        sql = "SELECT pos FROM arrival WHERE at_ms<? ORDER BY at_ms DESC LIMIT 1"
        row = self.engine.one(sql, ((stamp >> 16) - _ARRIVAL_SLACK_MS,))
        return row[0] if row else 0


def _timed(which: Filter) -> bool:
    return bool(which.since) or which.until < 1 << 62

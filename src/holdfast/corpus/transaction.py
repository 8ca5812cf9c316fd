"""What a job does inside a transaction on SQLite: where the log stands, what a key had, and adding to both.

Of an agent's file it remembers where the log stood behind its newest commit, and what the keys that are written again
and again had then: two queries of a put. That holds only while nobody else has written, and the engine says so
(`Engine.on_change`); a rollback, and whatever writes rows by itself (`execute`), end it too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import apsw

from holdfast.corpus.port import Body, Branch, Head, Prior
from holdfast.corpus.rows import INSERT, INSERT_OWN, bind, within
from holdfast.corpus.tags import mark
from holdfast.errors import Conflict, IntegrityError
from holdfast.records import DELETE_PREFIX, TOMBSTONE, VALUE, Record

if TYPE_CHECKING:
    from holdfast.corpus.sqlite import SqliteCorpus

_MESSAGES: Final = 1  # the number of their collection's name in every file
PRIORS_MAX: Final = 1000
"""Keys that are remembered: some 300 KiB."""
VECTOR_BITS: Final = 40
"""An id of a vector is the number of its index, shifted by so many bits, and its own: an index lies in one piece."""
PLACES_MAX: Final = 500

HEAD_AGENT: Final = "SELECT seq, link, hlc FROM rec ORDER BY pos DESC LIMIT 1"
HEAD_HUB: Final = (
    "SELECT b.seq, b.link, coalesce((SELECT hlc FROM rec WHERE branch=b.id AND seq=b.seq),"
    " (SELECT hlc FROM rec WHERE branch=b.parent AND seq=b.seq), 0)"
    " FROM branch b WHERE b.id=?"
)
_TIP: Final = "SELECT seq, link, hlc, iif(coll=1, pos, back) FROM rec ORDER BY pos DESC LIMIT 1"
# Scalar subqueries and not joins: with STAT4 a join on bound values is prepared anew at each call (7 µs against 1.6).
KEY: Final = "FROM state WHERE agent=?1 AND coll=?2 AND key=?3"
_PRIOR: Final = f"SELECT r.pos, r.link, r.version, (SELECT gone {KEY}), r.hlc FROM rec r WHERE r.pos=(SELECT pos {KEY})"
_FIRST: Final = "INSERT INTO state(agent,coll,key,pos,gone) VALUES(?,?,?,?,?)"
_STATE: Final = f"{_FIRST} ON CONFLICT(agent,coll,key) DO UPDATE SET pos=excluded.pos, gone=excluded.gone"
BRANCH: Final = (
    "SELECT b.id, s.stream, b.inc, n.s, s.public_key, s.current_key, s.own, b.base_seq, b.base_link, b.seq, b.link"
    " FROM branch b JOIN stream s ON s.id=b.stream JOIN name n ON n.id=s.agent"
)


_BRANCH_TYPES: Final = (int, bytes, bytes, str, bytes, bytes, int, int, bytes, int, bytes)
SCOPE: Final = "INSERT INTO scope VALUES(?,?,?,?)"
HIDE: Final = (
    "UPDATE state SET gone=? WHERE agent=? AND coll=? AND {} AND gone=0"
    " AND (SELECT hlc FROM rec WHERE rec.pos=state.pos)<?"
)


class SqlTransaction:
    """What a job may do; valid only inside the job, in the thread that leads.

    `sql` runs a statement inside the open transaction and gives a cursor: for whoever keeps tables beside the records.
    """

    many_branches = True
    scribe: Any = None
    """What writes the rows of a plan, where the engine has a kind of its own: ``(transaction, agents)``."""
    sql: Callable[..., Any]

    # What each engine does its own way.

    def name(self, text: str) -> int:
        """The number that stands for a name in this file."""
        raise NotImplementedError

    def forget(self) -> None:
        """Drops what was remembered of the file: from here on it is read."""

    def head(self, branch: int) -> Head:
        """Where the branch stands now, inside the transaction."""
        raise NotImplementedError

    def last(self) -> int:
        """The newest pos inside the transaction."""
        raise NotImplementedError

    def prior(self, agent: str, collection: str, key: str) -> Prior | None:
        """The key's newest version, also if it is a tombstone; None if it never had one."""
        raise NotImplementedError

    def insert(
        self, branch: Branch, record: Record, item: Body, prior: int, tags: Sequence[tuple[int, str]] = ()
    ) -> int:
        """Adds the record behind the branch's head and returns its pos; updates state and scopes."""
        raise NotImplementedError

    def look_ahead(self, agent: str, keys: Sequence[tuple[str, str]], tags: Sequence[tuple[int, str]] = ()) -> None:
        """Says which (collection, key) and which tags will be asked for, to an engine that can fetch them at once."""

    def tagged(self, number: int, value: str) -> int | None:
        """The pos of the first record that carries a tag with this value, also one of this transaction."""
        row = self.sql("SELECT min(pos) FROM tag WHERE k=? AND v=?", (number, value)).fetchone()
        return row[0] if row else None

    def tag(self, pos: int, number: int, value: str) -> None:
        """Has the record at `pos` carry one more tag."""
        self.sql(*mark(pos, number, value))

    def index(self, rows: Sequence[tuple[int, str, str, str]]) -> None:
        """Adds (pos, text, agent, kind) to the search index."""
        raise NotImplementedError

    def unindex(self, places: Sequence[int]) -> None:
        """Takes records out of the search index: their words, and their vectors."""
        for pos in places:
            self.unword(pos)
        for first in range(0, len(places), PLACES_MAX):
            lot = list(places[first : first + PLACES_MAX])
            self.unvector(f"pos IN ({','.join('?' * len(lot))})", lot)

    def unword(self, pos: int) -> None:
        """Takes a record's words out of the search index."""
        self.sql("DELETE FROM fts WHERE rowid=?", (pos,))

    def unvector(self, where: str, args: Sequence[Any]) -> None:
        """Takes vectors out of all indexes, and what was said of records that have none; tells who keeps copies."""
        many: dict[int, int] = {}
        for number in self.drop_vectors(where, args):
            many[number >> VECTOR_BITS] = many.get(number >> VECTOR_BITS, 0) + 1
        for index, gone in many.items():
            self.sql("UPDATE vindex SET drops=drops+1, held=held-? WHERE id=?", (gone, index))
        self.sql(f"DELETE FROM vmiss WHERE {where}", args)

    def keep_vectors(self, rows: Sequence[tuple[int, int, int, bytes]]) -> None:
        """Adds vectors: (id, pos, part, packed)."""
        if rows:
            self.fill("vec", "id, pos, part, v", rows)

    def drop_vectors(self, where: str, args: Sequence[Any]) -> list[int]:
        """Removes vectors by a test of `vec`; returns their ids."""
        return [row[0] for row in self.sql(f"DELETE FROM vec WHERE {where} RETURNING id", args).fetchall()]

    def end_vectors(self, index: int) -> None:
        """An index has ended; its vectors are swept behind this transaction."""

    def fill(self, table: str, columns: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Adds rows to a table as they are, in the columns named: for whoever copies a whole corpus."""
        raise NotImplementedError

    # What one text says to all of them.

    def advance(self, branch: int, seq: int, link: bytes, signature: bytes | None = None) -> None:
        """Moves the head of a branch (in files with several); keeps the head's signature where given."""
        self.sql("UPDATE branch SET seq=?, link=?, signature=? WHERE id=?", (seq, link, signature, branch))

    def open_branch(self, branch: Branch, parent: int | None = None) -> Branch:
        """Adds a branch (its `id` is ignored) and, if new, its stream; returns it as stored."""
        self.forget()
        self.sql(
            "INSERT INTO stream(stream, agent, public_key, current_key, own) VALUES(?,?,?,?,?) ON CONFLICT DO NOTHING",
            (branch.stream, self.name(branch.agent), branch.public_key, branch.current_key, int(branch.own)),
        )
        self.sql(
            "INSERT INTO branch(stream, inc, parent, base_seq, base_link, seq, link)"
            " SELECT id, ?, ?, ?, ?, ?, ? FROM stream WHERE stream=? ON CONFLICT DO NOTHING",
            (branch.inc, parent, branch.base_seq, branch.base_link, branch.seq, branch.link, branch.stream),
        )
        where = f"{BRANCH} WHERE s.stream=? AND b.inc=? AND b.base_seq=?"
        return branch_of(self.sql(where, (branch.stream, branch.inc, branch.base_seq)).fetchone())

    def branches(self, stream: bytes) -> list[Branch]:
        """All incarnations of a stream, oldest first."""
        rows = self.sql(f"{BRANCH} WHERE s.stream=? ORDER BY b.id", (stream,))
        return [branch_of(row) for row in rows]

    def rekey(self, stream: bytes, public_key: bytes) -> None:
        """The stream is signed by another key from here on."""
        self.sql("UPDATE stream SET current_key=? WHERE stream=?", (public_key, stream))

    def drop_body(self, pos: int, why: int) -> None:
        """Takes a record's body away, and says why; the record stays."""
        self.sql("UPDATE rec SET body=NULL, why=? WHERE pos=? AND why=0", (why, pos))

    def meta(self, key: str) -> Any:
        """A value kept beside the records, or None."""
        row = self.sql("SELECT v FROM meta WHERE k=?", (key,)).fetchone()
        return row and row[0]

    def set_meta(self, key: str, value: int | str | bytes | None) -> None:
        """Keeps a value beside the records, in the same transaction."""
        self.sql("INSERT INTO meta VALUES(?,?) ON CONFLICT(k) DO UPDATE SET v=excluded.v", (key, value))

    def execute(self, sql: str, args: Sequence[Any] = ()) -> list[Any]:
        """Rows of a statement run inside the transaction: for tables beside the records (index, arrivals, lineage)."""
        self.forget()
        rows: list[Any] = self.sql(sql, args).fetchall()
        return rows


class SqliteTransaction(SqlTransaction):
    """A job's hands on a file."""

    def __init__(self, corpus: SqliteCorpus) -> None:
        self._corpus = corpus
        self.sql = corpus.engine.writer_execute
        self._many = corpus.engine.quick_many
        self._quick = corpus.engine.quick  # every row is taken, or none comes, before the next statement
        self.many_branches = self._hub = corpus.hub
        # Of an agent's file only, and only while they are known to hold (`_back` where `_head` is there):
        self._head: Head | None = None
        self._back = 0  # the newest message
        self._priors: dict[tuple[str, str, str], Prior] = {}

    def name(self, text: str) -> int:
        """The number that stands for a name in this file."""
        ids = self._corpus._ids
        try:
            return ids[text]
        except KeyError:
            row = self._quick("SELECT id FROM name WHERE s=?", (text,)).fetchone()
            if row is None:
                row = self._quick("INSERT INTO name(s) VALUES(?) RETURNING id", (text,)).fetchone()
            number: int = row[0]
            ids[text] = number
            return number

    def fill(self, table: str, columns: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Adds rows to a table as they are, in the columns named: for whoever copies a whole corpus."""
        self._many(f"INSERT INTO {table}({columns}) VALUES({','.join('?' * len(rows[0]))})", rows)

    def put_state(self, rows: Sequence[tuple[int, int, str, int, int]]) -> None:
        """Names newest versions (agent, collection, key, pos, pos of what hides it), for whoever writes a log anew."""
        self._many(_STATE, rows)

    def forget(self) -> None:
        """Drops what was remembered of the file: from here on it is read."""
        self._head = None
        self._priors.clear()

    @property
    def newest(self) -> Head | None:
        """Where the agent's log stood behind the newest commit made here, or None if that is not at hand."""
        return self._head

    def head(self, branch: int) -> Head:
        """Where the branch stands now, inside the transaction."""
        if self._head is not None:
            return self._head
        if self._hub:
            return Head(*self._quick(HEAD_HUB, (branch,)).fetchone())
        row = self._quick(_TIP).fetchone()
        if row is None:
            row = self._quick("SELECT base_seq, base_link, 0, 0 FROM branch WHERE id=?", (branch,)).fetchone()
        seq, link, stamp, self._back = row
        self._head = Head(seq, link, stamp)
        return self._head

    def last(self) -> int:
        """The newest pos inside the transaction."""
        newest: int | None = self._quick("SELECT max(pos) FROM rec").fetchone()[0]
        return newest or 0

    def prior(self, agent: str, collection: str, key: str) -> Prior | None:
        """The key's newest version, also if it is a tombstone; None if it never had one."""
        known = self._priors.get((agent, collection, key))
        if known is not None:
            return known
        row = self._quick(_PRIOR, (self.name(agent), self.name(collection), key)).fetchone()
        return Prior(*row) if row else None

    def insert(
        self, branch: Branch, record: Record, item: Body, prior: int, tags: Sequence[tuple[int, str]] = ()
    ) -> int:
        """Adds the record behind the branch's head and returns its pos; updates state and scopes.

        Raises:
            Conflict: a message that replaces none has the key of one that is there.
        """
        execute, names = self._quick, self._corpus._ids
        pos = self.last() + 1 if self._hub else record.seq
        texts = (branch.agent, record.author, record.kind, record.collection)
        try:
            ids = agent, _, _, coll = names[texts[0]], names[texts[1]], names[texts[2]], names[texts[3]]
        except KeyError:
            a, b, c, d = map(self.name, texts)
            ids = agent, _, _, coll = a, b, c, d
        if self._hub:
            execute(INSERT, bind(pos, branch.id, prior, ids, record, item))
        else:
            if self._head is None:
                self.head(branch.id)
            execute(INSERT_OWN, (*bind(pos, branch.id, prior, ids, record, item), self._back))
        flags = record.flags
        if flags & TOMBSTONE and record.kind == DELETE_PREFIX:
            self._hide(agent, coll, record, pos)
        elif flags & (VALUE | TOMBSTONE) and not (self._hub and self._older(agent, coll, record, prior)):
            gone = pos if flags & TOMBSTONE else 0
            if prior or self._hub or coll != _MESSAGES:
                execute(_STATE, (agent, coll, record.key, pos, gone))
            else:
                try:  # the key may be one that was made up for it and not looked for
                    execute(_FIRST, (agent, coll, record.key, pos, gone))
                except apsw.ConstraintError:
                    raise Conflict(f"there is a message {record.key} already", hint="give it another msg_id") from None
        for number, value in tags:
            execute(*mark(pos, number, value))
        if not self._hub:
            self._remember(branch.agent, record, pos, coll)
        return pos

    def index(self, rows: Sequence[tuple[int, str, str, str]]) -> None:
        """Adds (pos, text, agent, kind) to the search index."""
        for row in rows:
            self._quick("INSERT INTO fts(rowid, t, a, k) VALUES(?,?,?,?)", row)

    def _remember(self, agent: str, record: Record, pos: int, coll: int) -> None:
        self._head = Head(record.seq, record.link, record.hlc)
        if coll == _MESSAGES:
            self._back = pos
        flags, priors = record.flags, self._priors
        if flags & TOMBSTONE and record.kind == DELETE_PREFIX:
            priors.clear()
        elif not flags & (VALUE | TOMBSTONE):
            return
        elif record.key_version > 1:  # written again, so probably not for the last time
            if len(priors) >= PRIORS_MAX:
                priors.clear()
            gone = pos if flags & TOMBSTONE else 0
            at = (agent, record.collection, record.key)
            priors[at] = Prior(pos, record.link, record.key_version, gone, record.hlc)
        elif priors:  # a first version may come from elsewhere, behind a later one
            priors.pop((agent, record.collection, record.key), None)

    def _hide(self, agent: int, coll: int, tombstone: Record, pos: int) -> None:
        """Hides every key under a prefix that is not newer than its tombstone (on a hub, another branch's may be)."""
        self._quick(SCOPE, (agent, coll, tombstone.key, pos))
        span, ends = within("key", tombstone.key)
        self._quick(HIDE.format(span), (pos, agent, coll, *ends, tombstone.hlc))

    def _older(self, agent: int, coll: int, record: Record, prior: int) -> bool:
        """Whether another branch's value of the key is newer than this one, which does not replace it."""
        row = self._quick(
            "SELECT st.pos, r.hlc, (SELECT g.hlc FROM rec g WHERE g.pos=st.gone) FROM state st"
            " JOIN rec r ON r.pos=st.pos WHERE st.agent=? AND st.coll=? AND st.key=?",
            (agent, coll, record.key),
        ).fetchone()
        return row is not None and row[0] != prior and max(row[1], row[2] or 0) > record.hlc


def branch_of(row: Any) -> Branch:
    """The branch in a row of `BRANCH`."""
    if row is None or tuple(map(type, row)) != _BRANCH_TYPES:
        raise IntegrityError("a row of the table of branches is not a branch", hint="holdfast verify")
    stream = (*row[:6], bool(row[6]), *row[7:])
    return Branch(*stream)

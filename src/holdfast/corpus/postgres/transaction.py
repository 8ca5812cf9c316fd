"""A job's hands on PostgreSQL: everything it adds is gathered, and goes over in a few exchanges.

A statement that only adds is put off until something is asked that might see it, or until the commit. What keys had is
asked for many at once (`look_ahead`, `Writing.write`), and what was learnt of them is kept true by whatever is added:
so 500 records take a handful of exchanges and not 1,500.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast import codec
from holdfast.corpus.port import Body, Branch, Head, Prior
from holdfast.corpus.postgres.door import plain, translate
from holdfast.corpus.rows import COLUMNS, INSERT, bind, within
from holdfast.corpus.scribe import At, Scribe, Tags
from holdfast.corpus.search import WORD_CHARS_MAX, words_of
from holdfast.corpus.tags import ROW_FIRST, TAG_BYTES_MAX, mark
from holdfast.corpus.transaction import HEAD_HUB, HIDE, SCOPE, SqlTransaction
from holdfast.protocol.ports import Row
from holdfast.records import DELETE_PREFIX, KEY_BYTES_MAX, NAME_BYTES_MAX, TOMBSTONE, VALUE, Record

if TYPE_CHECKING:
    from holdfast.corpus.postgres import PostgresCorpus
    from holdfast.corpus.rows import Stored

KEPT_MAX: Final = 5_000
COPY_FROM: Final = 8
"""From so many rows on COPY is faster than an INSERT each in one exchange."""

_NAMES = COLUMNS.replace("r.", "")
_TYPES: Final = {
    **dict.fromkeys(("pos", "seq", "hlc", "version", "prior", "plen"), "int8"),
    **dict.fromkeys(("branch", "agent", "author", "kind", "coll", "flags"), "int4"),
    **dict.fromkeys(("fmt", "codec", "why"), "int2"),
    "key": "text",
}
_COPY: Final = f"COPY rec({_NAMES}) FROM STDIN (FORMAT BINARY)"
_COPY_TYPES: Final = [_TYPES.get(name.strip(), "bytea") for name in _NAMES.split(",")]
_KEY_AT: Final = [name.strip() for name in _NAMES.split(",")].index("key")
_KEPT: Final = (
    "SELECT q.n, r.pos, r.link, r.prior, r.hlc, r.flags, r.phash, r.version, s.gone,"
    " (SELECT g.hlc FROM rec g WHERE g.pos=s.gone)"
    " FROM unnest(?::int8[], ?::int8[], ?::text[]) WITH ORDINALITY AS q(agent, coll, key, n)"
    " JOIN state s ON s.agent=q.agent AND s.coll=q.coll AND s.key=q.key JOIN rec r ON r.pos=s.pos"
)
_STATES: Final = (
    "INSERT INTO state(agent, coll, key, pos, gone)"
    " SELECT * FROM unnest(?::int8[], ?::int8[], ?::text[], ?::int8[], ?::int8[])"
    " ON CONFLICT(agent, coll, key) DO UPDATE SET pos=excluded.pos, gone=excluded.gone"
)
_TAGS: Final = "INSERT INTO tag SELECT * FROM unnest(?::int8[], ?::text[], ?::int8[]) ON CONFLICT DO NOTHING"
_TAGGED: Final = (
    "SELECT q.k, q.v, min(t.pos) FROM unnest(?::int8[], ?::text[]) AS q(k, v) JOIN tag t ON t.k=q.k AND t.v=q.v"
    " GROUP BY q.k, q.v"
)
_ADVANCE: Final = "UPDATE branch SET seq=?, link=?, signature=? WHERE id=?"
_FTS: Final = "INSERT INTO fts SELECT * FROM unnest(?::int8[], ?::text[]::tsvector[]) ON CONFLICT DO NOTHING"


class Kept(msgspec.Struct, gc=False):
    """What is known of a key's newest version."""

    pos: int
    link: bytes
    prior: int
    hlc: int
    flags: int
    phash: bytes
    version: int
    gone: int
    gone_hlc: int | None


class _Nothing:
    """The cursor of a statement that was put off."""

    def fetchone(self) -> None:
        return None

    def fetchall(self) -> list[Any]:
        return []

    def __iter__(self) -> Any:
        return iter(())


class PostgresTransaction(SqlTransaction):
    """A job's hands on a database."""

    def __init__(self, corpus: PostgresCorpus) -> None:
        self._corpus = corpus
        self.scribe = Writing
        self._connection: Any = None
        self.pos = self._room = 0
        self.wrote = False
        self._rows: list[tuple[Any, ...]] = []
        self._tags: dict[tuple[int, str, int], None] = {}
        self._moved: dict[At, tuple[int, int]] = {}
        self._advanced: dict[int, tuple[Any, ...]] = {}
        self._later: list[tuple[str, Sequence[Any]]] = []
        # True for as long as nobody else writes, and dropped with any rollback:
        self._kept: dict[At, Kept | None] = {}
        self._tagged: dict[tuple[int, str], int | None] = {}
        self._heads: dict[int, Head] = {}
        self._scoped: dict[tuple[int, int], bool] = {}

    # -- the engine's side --------------------------------------------------------------------------------------

    def begin(self, connection: Any, pos: int, room: int) -> None:
        """A transaction is open, and this is where the counter stands."""
        self._connection, self.pos, self._room, self.wrote = connection, pos, room, False
        for known in (self._kept, self._tagged, self._heads, self._scoped):
            if len(known) > KEPT_MAX:
                known.clear()

    def end(self) -> None:
        """The transaction is over, one way or the other."""
        self._connection = None
        for left in (self._rows, self._tags, self._moved, self._advanced, self._later):
            left.clear()

    def forget(self) -> None:
        """Drops what was remembered: from here on it is read."""
        for known in (self._kept, self._tagged, self._heads, self._scoped):
            known.clear()

    def flush(self) -> None:
        """Sends what was gathered."""
        if self.copy():
            with self._connection.pipeline():
                self.send()

    def copy(self) -> bool:
        """Sends the rows where there are many; whether anything is left to `send`."""
        rows = self._rows
        if not (rows or self._later or self._moved or self._tags or self._advanced):
            return False
        self.wrote = True
        connection = self._connection
        if rows and rows[-1][0] >= self._room:
            self._make_room(rows[-1][0])
        if len(rows) >= COPY_FROM:
            with connection.cursor().copy(_COPY) as copy:
                copy.set_types(_COPY_TYPES)
                for row in rows:
                    copy.write_row(row if row[_KEY_AT].isprintable() else _held(row))
            rows.clear()
        return True

    def send(self) -> None:
        """Sends everything else, inside an open pipeline: one exchange for all of it."""
        execute = self._connection.execute
        for row in self._rows:
            execute(translate(INSERT), row)
        if self._tags:
            execute(translate(_TAGS), _arrays(self._tags))
        if self._moved:
            execute(translate(_STATES), _arrays([(*at, *where) for at, where in self._moved.items()]))
        for branch, values in self._advanced.items():
            execute(translate(_ADVANCE), (*values, branch))
        for text, args in self._later:
            execute(translate(text), args)
        for left in (self._rows, self._tags, self._moved, self._advanced, self._later):
            left.clear()

    def fill(self, table: str, columns: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Adds rows to a table as they are, in the columns named: for whoever copies a whole corpus."""
        if table == "rec":
            for row in rows:
                self.add(row, ())
            return
        self.flush()
        self.wrote = True
        with self._connection.cursor().copy(f"COPY {table}({columns}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)

    def count_on(self, table: str) -> None:
        """Numbers that the database gives out in this table from here on are behind those that are there."""
        self.flush()
        at = f"pg_get_serial_sequence('{table}', 'id')"
        self._ask(f"SELECT setval({at}, (SELECT coalesce(max(id), 0) + 1 FROM {table}), false)", ())

    def _make_room(self, pos: int) -> None:
        """Adds the partitions that positions up to this one need.

        Made beside the table and attached, not made in it: that would wait for every reader, and all would wait for it.
        """
        size, low = self._corpus.engine.partition, self._room
        while low <= pos:
            high = (low - 1) // size * size + size + 1
            name = f"rec_{low}"
            self._connection.execute(f"CREATE TABLE {name} (LIKE rec INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
            self._connection.execute(f"ALTER TABLE rec ATTACH PARTITION {name} FOR VALUES FROM ({low}) TO ({high})")
            low = high
        self._connection.execute("UPDATE counter SET room=$1 WHERE id=1", (low,))
        self._room = low

    # -- statements of others -----------------------------------------------------------------------------------

    def sql(self, text: str, args: Sequence[Any] = ()) -> Any:
        """Runs a statement inside the open transaction, or puts it off if it only adds; gives a cursor."""
        reads = text.startswith(("SELECT", "WITH"))
        if not reads and text.startswith(("INSERT", "UPDATE branch", "UPDATE stream")) and "RETURNING" not in text:
            self._later.append((text, args))
            return _NOTHING
        self.flush()
        if not reads:
            self.wrote = True
            self._kept.clear()
            self._tagged.clear()
        return self._ask(text, args)

    def _ask(self, text: str, args: Sequence[Any]) -> Any:
        return self._connection.cursor(binary=True).execute(translate(text), args)

    def execute(self, sql: str, args: Sequence[Any] = ()) -> list[Any]:
        """Rows of a statement run inside the transaction: for tables beside the records."""
        cursor = self.sql(sql, args)
        if cursor is _NOTHING or cursor.description is None:
            return []
        rows: list[Any] = cursor.fetchall()
        return rows

    # -- names and keys -----------------------------------------------------------------------------------------

    def name(self, text: str) -> int:
        """The number that stands for a name in this database."""
        number = self._corpus.known_name(text)
        return number if number is not None else self.names([text])[text]

    def names(self, texts: Iterable[str]) -> dict[str, int]:
        """The numbers of many names; those that are new are given one."""
        known = self._corpus.known_name
        found = {text: known(text) for text in set(texts)}
        new = [text for text, number in found.items() if number is None]
        if new:
            rows = self._ask("SELECT s, id FROM name WHERE s=ANY(?::text[])", (_array(new),)).fetchall()
            new = sorted({*new} - {row[0] for row in rows})
            if new:
                self.wrote = True
                sql = "INSERT INTO name(s) SELECT * FROM unnest(?::text[]) RETURNING s, id"
                rows += self._ask(sql, (_array(new),)).fetchall()
            for text, number in rows:
                found[text] = number
                self._corpus.learn_name(text, number)
        return found  # type: ignore[return-value]

    def look_ahead(self, agent: str, keys: Sequence[tuple[str, str]], tags: Sequence[tuple[int, str]] = ()) -> None:
        """Says which (collection, key) and which tags will be asked for: they are fetched at once."""
        ids = self.names([agent, *(collection for collection, _ in keys)])
        self.fetch({(ids[agent], ids[collection], key) for collection, key in keys})
        wanted = [tag for tag in dict.fromkeys(tags) if tag not in self._tagged]
        if wanted:
            self._send_tags()
            self._tagged.update(dict.fromkeys(wanted))
            for number, value, pos in self._ask(_TAGGED, _arrays(wanted)):
                self._tagged[number, value] = pos

    def fetch(self, wanted: set[At]) -> None:
        """Learns what these keys have, in one exchange."""
        new = [at for at in wanted if at not in self._kept]
        if not new:
            return
        self._kept.update(dict.fromkeys(new))
        for number, *found in self._ask(_KEPT, _arrays(new)):
            self._kept[new[number - 1]] = Kept(*found)

    def kept(self, at: At) -> Kept | None:
        """What is known of the key."""
        if at not in self._kept:
            self.fetch({at})
        return self._kept[at]

    def tagged(self, number: int, value: str) -> int | None:
        """The pos of the first record that carries a tag with this value, also one of this transaction."""
        if (number, value) not in self._tagged:
            self._send_tags()
            row = self._ask("SELECT min(pos) FROM tag WHERE k=? AND v=?", (number, value)).fetchone()
            self._tagged[number, value] = row[0]
        return self._tagged[number, value]

    def tag(self, pos: int, number: int, value: str) -> None:
        """Has the record at `pos` carry one more tag."""
        if len(value.encode()) <= TAG_BYTES_MAX:
            self._tags[number, value, pos] = None
            known = self._tagged.get((number, value), 0)
            if known is None or known > pos:
                self._tagged[number, value] = pos

    def _send_tags(self) -> None:
        if self._tags:
            self.flush()

    def prior(self, agent: str, collection: str, key: str) -> Prior | None:
        """The key's newest version, also if it is a tombstone; None if it never had one."""
        found = self.kept((self.name(agent), self.name(collection), key))
        return Prior(found.pos, found.link, found.version, found.gone, found.hlc) if found else None

    # -- where branches stand, and adding to them ---------------------------------------------------------------

    def head(self, branch: int) -> Head:
        """Where the branch stands now, inside the transaction."""
        found = self._heads.get(branch)
        if found is None:
            found = self._heads[branch] = Head(*self.sql(HEAD_HUB, (branch,)).fetchone())
        return found

    def last(self) -> int:
        """The newest pos inside the transaction."""
        return self.pos

    def advance(self, branch: int, seq: int, link: bytes, signature: bytes | None = None) -> None:
        """Moves the head of a branch; keeps the head's signature where given."""
        self._advanced[branch] = (seq, link, signature)

    def insert(
        self, branch: Branch, record: Record, item: Body, prior: int, tags: Sequence[tuple[int, str]] = ()
    ) -> int:
        """Adds the record behind the branch's head and returns its pos; updates state and scopes."""
        ids = self.names((branch.agent, record.author, record.kind, record.collection))
        agent, coll = ids[branch.agent], ids[record.collection]
        pos = self.pos + 1
        row = bind(pos, branch.id, prior, (agent, ids[record.author], ids[record.kind], coll), record, item)
        flags = record.flags
        if flags & TOMBSTONE and record.kind == DELETE_PREFIX:
            self.add(row, tags)
            self._hide(agent, coll, record, pos)
        else:
            at = (agent, coll, record.key)
            moves = bool(flags & (VALUE | TOMBSTONE)) and not self._older(at, record, prior)
            self.add(row, tags)
            if moves:
                self.move(at, pos, pos if flags & TOMBSTONE else 0)
                self.know(at, record, pos, prior)
        self._heads[branch.id] = Head(record.seq, record.link, record.hlc)
        return pos

    def _older(self, at: At, record: Record, prior: int) -> bool:
        """Whether another branch's value of the key is newer than this one, which does not replace it."""
        found = self.kept(at)
        return found is not None and found.pos != prior and max(found.hlc, found.gone_hlc or 0) > record.hlc

    def add(self, row: tuple[Any, ...], tags: Sequence[tuple[int, str]]) -> None:
        """Gathers a row of `INSERT`, and its tags."""
        self.pos = pos = row[0]
        self._rows.append(row)
        for number, value in tags:
            if number >= ROW_FIRST:
                self.sql(*mark(pos, number, value))
            elif len(value) <= TAG_BYTES_MAX // 4 or len(value.encode()) <= TAG_BYTES_MAX:
                self._tags[number, value, pos] = None
                if self._tagged.get((number, value), 0) is None:
                    self._tagged[number, value] = pos

    def move(self, at: At, pos: int, gone: int) -> None:
        """Names the key's newest version."""
        self._moved[at] = (pos, gone)

    def know(self, at: At, record: Record, pos: int, prior: int) -> None:
        """Remembers the version that was just named the newest."""
        gone = self._moved[at][1]
        version = record.key_version
        # What hides a value from elsewhere is no version of it; its stamp is asked for when it matters.
        self._kept[at] = Kept(
            pos, record.link, prior, record.hlc, record.flags, record.payload_hash, version, gone, record.hlc
        )
        if gone not in (0, pos):
            self.flush()
            del self._kept[at]

    def _hide(self, agent: int, coll: int, tombstone: Record, pos: int) -> None:
        """Hides every key under a prefix that is not newer than its tombstone."""
        self.flush()
        span, ends = within("key", tombstone.key)
        self._ask(SCOPE, (agent, coll, tombstone.key, pos))
        self._ask(HIDE.format(span), (pos, agent, coll, *ends, tombstone.hlc))
        self._kept.clear()
        self._scoped[agent, coll] = True

    def scoped(self, agent: int, coll: int) -> bool:
        """Whether anything was ever deleted by prefix in this collection."""
        found = self._scoped.get((agent, coll))
        if found is None:
            row = self.sql("SELECT 1 FROM scope WHERE agent=? AND coll=? LIMIT 1", (agent, coll)).fetchone()
            found = self._scoped[agent, coll] = row is not None
        return found

    # -- beside the records -------------------------------------------------------------------------------------

    def meta(self, key: str) -> Any:
        """A value kept beside the records, or None."""
        return self._corpus.unfold(self.sql("SELECT v FROM meta WHERE k=?", (key,)).fetchone())

    def set_meta(self, key: str, value: int | str | bytes | None) -> None:
        """Keeps a value beside the records, in the same transaction."""
        super().set_meta(key, msgspec.msgpack.encode(value))

    def index(self, rows: Sequence[tuple[int, str, str, str]]) -> None:
        """Adds (pos, text, agent, kind) to the search index."""
        if not rows:  # a lot of nothing but deletions, or of sealed records
            return
        self.wrote = True
        self._ask(_FTS, _arrays([(row[0], f"{_lexemes(row[1])} {whose(row[2])}") for row in rows]))

    def unword(self, pos: int) -> None:
        """Takes a record's words out of the search index."""
        self.sql("DELETE FROM fts WHERE pos=?", (pos,))


class Writing(Scribe):
    """Writes a plan with what its keys have fetched beforehand."""

    _tx: PostgresTransaction

    def write(self, rows: Sequence[Row], branches: Any, tags: Tags) -> list[Stored]:
        """Writes the rows in their order, and returns them as they are stored."""
        for row in rows:
            record = row.record
            if len(record.key) > KEY_BYTES_MAX or len(record.collection) + len(record.author) > 2 * NAME_BYTES_MAX:
                # Of no Holdfast: its names are checked. Not an error of ours, so that only this request fails.
                raise ValueError("a record's names are longer than names may be")
        texts = {self._agents[row.record.stream] for row in rows}
        texts.update(*((row.record.author, row.record.kind, row.record.collection) for row in rows))
        self._ids = ids = self._tx.names(texts) if rows else {}
        self._tx.fetch(
            {
                (ids[self._agents[row.record.stream]], ids[row.record.collection], row.record.key)
                for row in rows
                if row.record.is_value
            }
        )
        return super().write(rows, branches, tags)

    def _write(self, row: Row, branch: int, tags: Tags) -> Stored:
        item = row.item
        if item.body is not None and item.codec != codec.RAW:
            body = codec.unpack(item.codec, item.body, row.record.payload_len)
            row = msgspec.structs.replace(row, item=msgspec.structs.replace(item, codec=codec.RAW, body=body))
        self._record = row.record
        self._at: At | None = None
        return super()._write(row, branch, tags)

    def _cover(self, agent: int, coll: int, record: Record) -> int:
        self._scoped[agent, coll] = self._tx.scoped(agent, coll)
        return super()._cover(agent, coll, record)

    def _begin(self, at: At, pos: int, gone: int) -> bool:
        if self._tx.kept(at) is not None:
            return False
        self._move(at, pos, gone)
        return True

    def _current(self, at: At) -> Any:
        found = self._tx.kept(at)
        return found and (found.pos, found.link, found.prior, found.hlc, found.flags, found.phash)

    def _move(self, at: At, pos: int, gone: int) -> None:
        self._tx.move(at, pos, gone)
        self._at = at

    def _add(self, values: Any, tags: Sequence[tuple[int, str]]) -> None:
        self._tx.add(values, tags)
        if self._at is not None:
            self._tx.know(self._at, self._record, values[0], values[12])


_NOTHING: Final = _Nothing()


def _arrays(rows: Iterable[tuple[Any, ...]]) -> list[str]:
    """The columns of at least one row of numbers and texts, each as an array."""
    return [_array(column) for column in zip(*rows, strict=True)]


def _array(values: Sequence[Any]) -> str:
    # Written here: the driver asks for the type of each element, which took a quarter of a batch.
    if isinstance(values[0], int):
        return "{" + ",".join(map(str, values)) + "}"
    quoted = [value.replace("\\", "\\\\").replace('"', '\\"') for value in values]
    return '{"' + '","'.join(quoted) + '"}'


def _held(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A row for COPY, which takes text as it comes."""
    return (*row[:_KEY_AT], plain(row[_KEY_AT]), *row[_KEY_AT + 1 :])


def whose(agent: str) -> str:
    """The lexeme that stands for an agent, which no word of a text can be."""
    escaped = agent.replace("\\", "\\\\").replace("'", "''")
    return f"'@{escaped}'"


def _lexemes(text: str) -> str:
    return " ".join([f"'{word}'" for word in {word[:WORD_CHARS_MAX] for word in words_of(text)}])

"""Inboxes of a hub's corpus: which messages wait for whom, found and counted by an index, however many there are.

The tables `mail` and `delivery` are derived. They are filled from messages and acts in commit order behind a watermark,
in a transaction of the filler's own: no write waits for them, and whoever reads an inbox fills what is left first
(`catch_up`). A message lies in one tab at a time (`delivery.TABS`). What moves by itself, because it expires or comes
back from being snoozed, is moved when somebody looks (`stir`).
Everything here is SQL that SQLite and PostgreSQL both understand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from holdfast.collections.delivery import (
    DELIVERY,
    DONE,
    NOTHING,
    OPEN,
    STATES,
    TABS,
    Act,
    Reading,
    act_of,
    lies,
    reading_of,
    together,
)
from holdfast.collections.messages import PEOPLE, expiry_ms, has_artifact, needs_you, rank_of, role_of
from holdfast.corpus import SqlCorpus, Stored
from holdfast.corpus.moving import MAILED
from holdfast.corpus.rows import COLUMNS, within
from holdfast.corpus.sql import LINED_UP, MESSAGES
from holdfast.corpus.transaction import SqlTransaction
from holdfast.errors import HoldfastError
from holdfast.log.reading import BlobReader, load
from holdfast.records import DELETE, DELETE_PREFIX, NAME_BYTES_MAX, TOMBSTONE, read_blob_reference

LOT: Final = 200
"""Records that one transaction takes up: 10 ms that a writer may have to wait."""
LOTS_MAX: Final = 20
"""What a reader fills by himself: beyond, he is told to come again."""
COUNT_MAX: Final = 1000
VALUE_BYTES_MAX: Final = 64 << 20
"""Of a larger message nobody is told by an inbox: it would be read as a whole to learn whose it is."""
_EXPIRED: Final = TABS.index("expired")
_KEYS: Final = 400
_FOR_SHOW: Final = {
    "unread": ((0,), (0, 1)),
    "open": (OPEN, (0, 1)),
    "needs": (OPEN, (1,)),
    "all": (tuple(range(len(TABS))), (0, 1)),
}
VIEWS: Final = tuple(dict.fromkeys([*_FOR_SHOW, *TABS]))
"""What can be asked for: one tab, or several together."""

Key = tuple[str, str]
"""A message: its id, and who sent it."""


class Mail(msgspec.Struct):
    """A message in an inbox: where it is, and in which tab."""

    pos: int
    box: str
    msg: str
    sender: str
    needs: int
    tab: int
    was: int
    due_ms: int | None
    expires_ms: int | None
    kind: str = ""
    priority: int = 1
    role: str = ""
    task: str | None = None
    dedupe: str | None = None
    artifact: int = 0


class Said(msgspec.Struct, frozen=True):
    """What one reader's acts on a message come to; `done_pos` is where the newest says what came of it."""

    reader: str
    reading: Reading
    done_pos: int


Part = tuple[str, tuple[Any, ...]]
"""A test that an index answers in the order of positions, and its values."""
MAIL: Final = "pos, box, msg, sender, needs, tab, was, due_ms, expires_ms, kind, priority, role, task, dedupe, artifact"
_ERASED: Final = (
    "SELECT pos FROM rec WHERE coll=(SELECT id FROM name WHERE s='messages') AND pos>? AND pos<=? AND body IS NULL"
)
_CONTROL: Final = re.compile("[\0-\x1f\x7f]")
_SAID: Final = "msg, sender, reader, reading, done_pos"
_encode = msgspec.json.Encoder().encode
_read = msgspec.json.Decoder(Reading).decode


# -- filling ------------------------------------------------------------------------------------------------------


def fill(corpus: SqlCorpus, blobs: BlobReader | None, lot: int = LOT) -> int:
    """Takes up the next records and returns how many these were; 0 when nothing is left."""
    mark = corpus.meta(MAILED) or 0
    batch = _behind(corpus, mark, lot)
    if not batch:
        return 0
    notes = [_noted(each, blobs) for each in batch]
    last = batch[-1].pos

    def job(tx: SqlTransaction) -> None:
        if (tx.meta(MAILED) or 0) != mark:
            return  # another process has taken them up
        # What was erased since it was read must not be taken up now: nobody would look for it here again.
        gone = {pos for (pos,) in tx.sql(_ERASED, (mark, last)).fetchall()}
        _Lot(tx).write([each for each in notes if each and not (isinstance(each, _New) and each.mail.pos in gone)])
        tx.set_meta(MAILED, last)

    corpus.write(job)
    return len(batch)


def catch_up(corpus: SqlCorpus, blobs: BlobReader | None, lots: int = LOTS_MAX) -> bool:
    """Takes up what is left, if that is not too much; whether nothing is left."""
    return any(fill(corpus, blobs) < LOT for _ in range(lots)) or not _behind(corpus, corpus.meta(MAILED) or 0, 1)


def _behind(corpus: SqlCorpus, mark: int, lot: int) -> list[Stored]:
    def of(name: str) -> list[Stored]:
        test, ends = corpus.lined_up("coll", name, mark + 1, 1 << 62)
        order = LINED_UP.format("coll").format("ASC")
        return corpus.rows(f"SELECT {COLUMNS} FROM rec r WHERE {test} ORDER BY {order} LIMIT ?", (*ends, lot))

    # One by one: of two collections together neither engine's index gives the order.
    both = of(MESSAGES), of(DELIVERY)
    return sorted([*both[0], *both[1]], key=lambda each: each.pos)[:lot]


class _New(msgspec.Struct, frozen=True):
    """A message that came."""

    mail: Mail


class _Acted(msgspec.Struct, frozen=True):
    """An act that came."""

    key: Key
    reader: str
    reading: Reading
    done_pos: int


class _Gone(msgspec.Struct, frozen=True):
    """Messages of one sender that were deleted: one, or all whose id begins so."""

    msg: str
    sender: str
    prefix: bool


_Note = _New | _Acted | _Gone


def _noted(stored: Stored, blobs: BlobReader | None) -> _Note | None:
    """What a record means here; None for nothing."""
    record = stored.record
    who = record.author or stored.agent
    if _CONTROL.search(record.key) or _CONTROL.search(who):
        return None  # no name that any writer of ours lets through, and one that engines keep in different ways
    if record.flags & TOMBSTONE:
        if record.collection == MESSAGES and record.kind in (DELETE, DELETE_PREFIX):
            return _Gone(record.key, who, record.kind == DELETE_PREFIX)
        return None
    try:
        huge = stored.is_blob and stored.body is not None and read_blob_reference(stored.payload())[1] > VALUE_BYTES_MAX
        value = None if huge else load(stored, blobs)
    except HoldfastError:
        value = None  # erased, sealed or damaged: nobody can be told whose it is
    if record.collection == DELIVERY:
        said = act_of(value)
        if said is None or not _fits(said.of):
            return None
        done = stored.pos if said.state == STATES[DONE] and not said.undo else 0
        return _Acted((record.key, said.of), who, reading_of(record.hlc, said), done)
    if not record.is_value or not isinstance(value, dict) or "body" not in value:
        return None
    to, ends = value.get("to"), expiry_ms(value.get("expires_at"))
    needs = needs_you(record.kind, value.get("priority"))
    told = Mail(stored.pos, _text(to) or "", record.key, who, int(needs), 0, 0, ends, ends)
    told.kind, told.priority = record.kind, rank_of(value.get("priority"))
    told.role = _text(role_of(value, who)) or ""
    told.task, told.dedupe = _text(value.get("task")), _text(value.get("dedupe"))
    told.artifact = int(has_artifact(value))
    return _New(told)


def _text(given: Any) -> str | None:
    return given if isinstance(given, str) and given and _fits(given) else None


def _fits(name: str) -> bool:
    # An index holds no text of any length.
    return not _CONTROL.search(name) and len(name.encode("utf-8", "replace")) <= NAME_BYTES_MAX


class _Lot:
    """One transaction's work: what is known of the messages that it touches, and what changes."""

    def __init__(self, tx: SqlTransaction) -> None:
        self._tx = tx
        self._mail: dict[Key, Mail] = {}
        self._said: dict[Key, dict[str, Said]] = {}

    def write(self, notes: Sequence[_Note]) -> None:
        """Takes up what came, in its order."""
        self._learn({_key(each) for each in notes if not isinstance(each, _Gone)})
        there = set(self._mail)
        touched: dict[Key, None] = {}
        spoken: set[str] = set()
        for note in notes:
            if isinstance(note, _Gone):
                self._remove(note)
            elif isinstance(note, _Acted):
                self._say(note)
                spoken.add(note.key[0])
                touched[note.key] = None
            elif _key(note) not in self._mail:  # an id that comes twice is one message: the first
                self._mail[_key(note)] = note.mail
                touched[_key(note)] = None
        placed = [self._mail[key] for key in touched if key in self._mail]
        for mail in placed:
            _place(mail, self._said.get((mail.msg, mail.sender), {}))
        # Taken out and put back: engines differ in how many rows they replace at once, not in how they add them.
        self._replace("mail", MAIL, "pos", [m.pos for m in placed if (m.msg, m.sender) in there], placed)
        said = [
            (*key, each.reader, _encode(each.reading).decode(), each.done_pos)
            for key, readers in self._said.items()
            if key[0] in spoken
            for each in readers.values()
        ]
        self._replace("delivery", _SAID, "msg", sorted(spoken), said)

    def _replace(self, table: str, columns: str, by: str, gone: Sequence[Any], rows: Sequence[Any]) -> None:
        for first in range(0, len(gone), _KEYS):
            lot = gone[first : first + _KEYS]
            self._tx.sql(f"DELETE FROM {table} WHERE {by} IN ({','.join('?' * len(lot))})", lot)
        if rows:
            tuples = [msgspec.structs.astuple(row) if isinstance(row, Mail) else row for row in rows]
            self._tx.fill(table, columns, tuples)

    def _learn(self, keys: set[Key]) -> None:
        ids = sorted({msg for msg, _ in keys})
        for first in range(0, len(ids), _KEYS):
            lot = ids[first : first + _KEYS]
            marks = ",".join("?" * len(lot))
            for row in self._tx.sql(f"SELECT {MAIL} FROM mail WHERE msg IN ({marks})", lot).fetchall():
                mail = Mail(*row)
                self._mail[mail.msg, mail.sender] = mail
            sql = f"SELECT {_SAID} FROM delivery WHERE msg IN ({marks})"
            for msg, sender, reader, reading, done_pos in self._tx.sql(sql, lot).fetchall():
                self._said.setdefault((msg, sender), {})[reader] = Said(reader, _read(reading), done_pos)

    def _say(self, note: _Acted) -> None:
        readers = self._said.setdefault(note.key, {})
        before = readers.get(note.reader, Said(note.reader, NOTHING, 0))
        reading = before.reading.merge(note.reading)
        newest = note.done_pos and reading.newest[DONE] == note.reading.newest[DONE]
        readers[note.reader] = Said(note.reader, reading, note.done_pos if newest else before.done_pos)

    def _remove(self, note: _Gone) -> None:
        span, ends = within("msg", note.msg) if note.prefix else ("msg=?", (note.msg,))
        self._tx.sql(f"DELETE FROM mail WHERE {span} AND sender=?", (*ends, note.sender))
        for key in [key for key in self._mail if key[1] == note.sender]:
            if key[0] == note.msg or (note.prefix and key[0].startswith(note.msg)):
                del self._mail[key]


def _key(note: _New | _Acted) -> Key:
    return note.key if isinstance(note, _Acted) else (note.mail.msg, note.mail.sender)


def _place(mail: Mail, said: dict[str, Said]) -> None:
    """Puts a message where its readers' acts say that it lies."""
    reading = in_box(mail.box, {reader: each.reading for reader, each in said.items()})
    by_sender = said.get(mail.sender)
    mail.tab, mail.was = lies(reading, by_sender is not None and by_sender.reading.is_withdrawn)
    if TABS[mail.tab] == "snoozed":
        mail.due_ms = reading.place[2] or None
    else:
        mail.due_ms = mail.expires_ms if mail.tab in OPEN else None


def in_box(box: str, said: Mapping[str, Reading]) -> Reading:
    """What counts in an inbox: of an agent's its own word alone; people share one, so there it is everybody's."""
    return together(said.values()) if box in ("", PEOPLE) else said.get(box, NOTHING)


def tabs_of(view: str) -> tuple[frozenset[str], bool]:
    """The tabs of a view, and whether only what wants a person counts."""
    cells = _cells(view)
    return frozenset(TABS[tab] for tab, _ in cells), {needs for _, needs in cells} == {1}


# -- what moves by itself -----------------------------------------------------------------------------------------


def is_due(corpus: SqlCorpus, box: str, now_ms: int) -> bool:
    """Whether anything in an inbox has moved by itself since somebody looked."""
    return corpus.one("SELECT 1 FROM mail WHERE box=? AND due_ms<=? LIMIT 1", (box, now_ms)) is not None


def stir(tx: SqlTransaction, box: str, now_ms: int, *, limit: int = 1000) -> int:
    """Moves what has expired or is no longer snoozed; how many these were, at most `limit`."""
    sql = (
        "UPDATE mail SET tab=CASE WHEN expires_ms<=? THEN ? ELSE was END,"
        " due_ms=CASE WHEN expires_ms>? THEN expires_ms END"
        " WHERE pos IN (SELECT pos FROM mail WHERE box=? AND due_ms<=? ORDER BY due_ms LIMIT ?) RETURNING 1"
    )
    return len(tx.sql(sql, (now_ms, _EXPIRED, now_ms, box, now_ms, limit)).fetchall())


# -- reading ------------------------------------------------------------------------------------------------------


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which page of an inbox: `view` is one of `VIEWS`, `after` the position of the last one of the page before."""

    box: str
    view: str = "unread"
    after: int | None = None
    newest_first: bool = False
    limit: int = 100


def page(corpus: SqlCorpus, wanted: Wanted) -> list[tuple[Mail, Stored]]:
    """The messages of a page, in commit order or newest first."""
    sign, order = ("<", "DESC") if wanted.newest_first else (">", "ASC")
    behind = "" if wanted.after is None else f" AND pos{sign}?"
    parts, args = [], list[Any]()
    for number, (tab, needs) in enumerate(_cells(wanted.view)):
        # Each walks its index from where the page begins, and none further than the page is long.
        inner = f"SELECT {MAIL} FROM mail WHERE box=? AND tab=? AND needs=?{behind} ORDER BY pos {order} LIMIT ?"
        parts.append(f"SELECT * FROM ({inner}) p{number}")
        args += [wanted.box, tab, needs, *(() if wanted.after is None else (wanted.after,)), wanted.limit]
    sql = f"SELECT {MAIL} FROM ({' UNION ALL '.join(parts)}) f ORDER BY pos {order} LIMIT ?"
    found = [Mail(*row) for row in corpus.query(sql, (*args, wanted.limit))]
    return with_records(corpus, found)


def with_records(corpus: SqlCorpus, found: Sequence[Mail]) -> list[tuple[Mail, Stored]]:
    """Messages with their records, in the order given."""
    if not found:
        return []
    marks = ",".join("?" * len(found))
    sql = f"SELECT {COLUMNS} FROM rec r WHERE r.pos IN ({marks})"
    records = {each.pos: each for each in corpus.rows(sql, [mail.pos for mail in found])}
    return [(mail, records[mail.pos]) for mail in found if mail.pos in records]


def counts(corpus: SqlCorpus, box: str) -> dict[str, int]:
    """How many messages lie in each view of an inbox, counted up to `COUNT_MAX`."""
    cells = _cells("all")
    parts: list[Part] = [("box=? AND tab=? AND needs=?", (box, *cell)) for cell in cells]
    have = dict(zip(cells, counted(corpus, parts, (0, 1 << 62), COUNT_MAX), strict=True))
    views = [view for view in VIEWS if view != "all"]
    return {view: min(COUNT_MAX, sum(have[cell] for cell in _cells(view))) for view in views}


def counted(corpus: SqlCorpus, parts: Sequence[Part], span: tuple[int, int], most: int) -> list[int]:
    """How many rows each of these parts holds between two positions, up to `most`; all have the same test."""
    test, own = parts[0]
    if not own:
        rows = corpus.query(
            f"SELECT count(*) FROM (SELECT 1 FROM mail WHERE {test} AND pos>? AND pos<? LIMIT {most}) c", span
        )
        return [rows[0][0]] * len(parts)
    for number in range(len(own)):
        test = test.replace("?", f"each.column{number + 2}", 1)
    values = ",".join([f"({','.join('?' * (len(own) + 1))})"] * len(parts))
    # Of one shape for all of them, so that PostgreSQL plans it once: a plan for each part takes longer than the answer.
    count = f"SELECT count(*) FROM (SELECT 1 FROM mail WHERE {test} AND pos>? AND pos<? LIMIT {most}) c"
    sql = f"SELECT each.column1, ({count}) FROM (VALUES {values}) each"
    args = [arg for number, (_, values_of) in enumerate(parts) for arg in (number, *values_of)]
    found = dict(corpus.query(sql, (*span, *args)))
    return [found[number] for number in range(len(parts))]


def _cells(view: str) -> list[tuple[int, int]]:
    tabs, needs = _FOR_SHOW[view] if view in _FOR_SHOW else ((TABS.index(view),), (0, 1))
    return [(tab, each) for tab in tabs for each in needs]


def named(corpus: SqlCorpus, msg: str, sender: str | None = None) -> list[Mail]:
    """The messages with this id: of one sender there is one at most."""
    rows = corpus.query(f"SELECT {MAIL} FROM mail WHERE msg=? ORDER BY pos LIMIT 100", (msg,))
    return [mail for mail in (Mail(*row) for row in rows) if sender in (None, mail.sender)]


def said_of(corpus: SqlCorpus, msg: str, sender: str) -> dict[str, Said]:
    """What each reader said of a message."""
    sql = "SELECT reader, reading, done_pos FROM delivery WHERE msg=? AND sender=? ORDER BY reader LIMIT 1000"
    rows = corpus.query(sql, (msg, sender))
    return {reader: Said(reader, _read(reading), done_pos) for reader, reading, done_pos in rows}


def result_at(corpus: SqlCorpus, blobs: BlobReader | None, pos: int) -> Any:
    """What the act at a position says that came of a message; None where that is nothing, or not to be had."""
    stored = corpus.at(pos) if pos else None
    try:
        said = act_of(load(stored, blobs)) if stored is not None else None
    except HoldfastError:
        return None
    return said.result if said is not None else None


def acts_in(versions: Iterable[Stored], of: str, read: Any) -> list[tuple[int, Act]]:
    """One reader's acts on a message, with their stamps, out of the versions of its key.

    Args:
        versions: of the key, from one corpus.
        of: who sent the message.
        read: gives the value of a record.
    """
    found = []
    for stored in versions:
        if stored.gone:
            continue
        try:
            said = act_of(read(stored))
        except HoldfastError:
            continue
        if said is not None and said.of == of:
            found.append((stored.record.hlc, said))
    return found


def unread(corpus: SqlCorpus, box: str, most: int) -> int:
    """How many messages of an inbox nobody has read, counted up to `most`: what a list of many inboxes can afford."""
    sql = "SELECT count(*) FROM (SELECT 1 FROM mail WHERE box=? AND tab=? AND needs IN (0, 1) LIMIT ?) c"
    return int(corpus.one(sql, (box, TABS.index("unread"), most))[0])

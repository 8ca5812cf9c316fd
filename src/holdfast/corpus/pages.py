"""Pages of a hub's file that only its readers ask for: a filtered feed, a mailbox, the rows of a table, its agents.

Every page is bounded in what it returns and in what it looks at; none counts without a cap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from holdfast import codec
from holdfast.corpus.port import fits
from holdfast.corpus.rows import COLUMNS, Stored, named, within
from holdfast.corpus.sql import MESSAGES, TAGS, SqlCorpus
from holdfast.errors import HoldfastError
from holdfast.records import BLOB, MORE
from holdfast.wire import RECORDS_MAX, SEGMENT_BYTES_MAX

WINDOW: Final = 50_000
"""Positions that one page of a filtered feed looks at: 50 ms where no index helps."""
COUNT_MAX: Final = 10_000
LIVE: Final = (
    "r.pos=(SELECT pos FROM state st WHERE st.agent=r.agent AND st.coll=r.coll AND st.key=r.key AND st.gone=0)"
)
"""A record `r` that is the value of its key: neither replaced nor deleted since."""
_SLACK_MS: Final = 60_000


class Page(msgspec.Struct, frozen=True):
    """Records behind a position, and the position that has been looked at: `done` when nothing was left."""

    records: list[Stored]
    pos: int
    done: bool


class _To(msgspec.Struct):
    to: Any = None


_to = msgspec.json.Decoder(_To).decode


_RECIPIENTS_MAX: Final = 1000
_recipients: dict[bytes, Any] = {}


def _recipient(stored: Stored) -> Any:
    """To whom a message says that it goes; read once however many wait for theirs."""
    link = stored.record.link
    if link in _recipients:
        return _recipients[link]
    try:
        found = _to(stored.payload()).to if stored.record.fmt == codec.FMT_JSON else None
    except (HoldfastError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    if len(_recipients) >= _RECIPIENTS_MAX:
        _recipients.clear()
    _recipients[link] = found
    return found


class Wanted(msgspec.Struct, frozen=True):
    """What a reader of the feed wants to see: any of these; empty: everything. `readable`: globs of what he may.

    With `to` only messages, to this recipient; and those that are blobs, as only who has the blob can tell whose it is.
    """

    agents: tuple[str, ...] = ()
    collections: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    prefix: str = ""
    readable: tuple[str, ...] = ()
    to: str = ""

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return not (self.agents or self.collections or self.kinds or self.prefix or self.readable or self.to)

    def wants(self, stored: Stored) -> bool:
        """Whether this record is to be shown."""
        record = stored.record
        return (
            (not self.agents or stored.agent in self.agents)
            and (not self.collections or record.collection in self.collections)
            and (not self.kinds or record.kind in self.kinds)
            and record.key.startswith(self.prefix)
            and (not self.readable or fits(record.collection, self.readable))
            and (not self.to or self._goes_to(stored))
        )

    def _goes_to(self, stored: Stored) -> bool:
        record = stored.record
        return record.collection == MESSAGES and (stored.is_blob or _recipient(stored) == self.to)


class Mail(msgspec.Struct, frozen=True, kw_only=True):
    """Which messages are asked for, and in which order of arrival.

    `agent` sent or is to get them; `task` is what they belong to; `since_ms` compares with the time that a message's
    writer gave it.
    """

    agent: str | None = None
    task: str | None = None
    since_ms: int = 0
    newest_first: bool = True


def feed(
    corpus: SqlCorpus, after: int, wanted: Wanted, *, limit: int = RECORDS_MAX, bytes_max: int = SEGMENT_BYTES_MAX
) -> Page:
    """Records behind `after` in commit order that are wanted; never cut inside a batch.

    Args:
        corpus: where they lie.
        after: the position to read on from.
        wanted: what is to be shown.
        limit: about how many.
        bytes_max: about how many bytes of values, before compression.
    """
    head = corpus.last()
    if after >= head:
        return Page([], after, True)
    agents, last = wanted.agents, head if wanted.everything else min(head, after + WINDOW)
    where = ["r.pos>? AND r.pos<=?"]
    args: list[Any] = [after, last]
    for column, names in (("agent", agents), ("coll", wanted.collections), ("kind", wanted.kinds)):
        if names:
            # Only one index serves; the agent's is the narrowest, so the others are told to stay out of it.
            plain = "" if column == "agent" or (column == "coll" and not agents) else "+"
            where.append(named(f"r.{column}", names, plain))
            args += names
    if wanted.readable:
        where.append(corpus.in_collections(wanted.readable, "+r.coll"))
    if wanted.prefix:
        span, ends = within("r.key", wanted.prefix)
        where.append(span)
        args += ends
    if wanted.to:
        where.append(
            f"{named('r.coll', (MESSAGES,), '' if not agents and not wanted.collections else '+')} AND"
            " (EXISTS(SELECT 1 FROM tag t WHERE t.k=? AND t.v=? AND t.pos=r.pos) OR (r.flags & ?)<>0)"
        )
        args += [MESSAGES, TAGS["to"], wanted.to, BLOB]
    sql = f"SELECT {COLUMNS} FROM rec r WHERE {' AND '.join(where)} ORDER BY r.pos LIMIT ?"
    found: list[Stored] = []
    cut, size = False, 0
    rows = corpus.read(sql, (*args, limit + RECORDS_MAX))
    for stored in rows:
        if found and (len(found) >= limit or size >= bytes_max) and not found[-1].record.flags & MORE:
            cut = True
            rows.close()
            break
        found.append(stored)
        size += (0 if stored.body is None else stored.record.payload_len) + 256
    if cut or len(found) == limit + RECORDS_MAX:
        return Page(found, found[-1].pos, False)
    return Page(found, last, last == head)


def mailbox(corpus: SqlCorpus, which: Mail, *, skip: int = 0, limit: int = 100) -> tuple[list[Stored], int]:
    """A page of messages, and how many there are in all (counted up to `COUNT_MAX` + 1).

    Args:
        corpus: where they lie.
        which: what is asked for.
        skip: how many to leave out.
        limit: the most to return.
    """
    agent = which.agent
    tests = ["r.coll=(SELECT id FROM name WHERE s='messages')", "(r.flags&1)<>0", LIVE]
    values: list[Any] = []
    if which.task is not None:
        tests.append("r.pos IN (SELECT pos FROM tag WHERE k=? AND v=?)")
        values += [TAGS["task"], which.task]
    if which.since_ms:
        row = corpus.one(
            "SELECT pos FROM arrival WHERE at_ms<? ORDER BY at_ms DESC LIMIT 1", (which.since_ms - _SLACK_MS,)
        )
        tests.append("r.pos>? AND coalesce((SELECT ms FROM told WHERE told.pos=r.pos), r.hlc>>16)>=?")
        values += [row[0] if row else 0, which.since_ms]
    order = "DESC" if which.newest_first else "ASC"
    test = " AND ".join(tests)

    def part(where: str, extra: Sequence[Any], most: int) -> tuple[str, list[Any]]:
        sql = f"SELECT r.pos AS pos FROM rec r WHERE {where}{test} ORDER BY r.pos {order} LIMIT ?"
        return f"SELECT pos FROM ({sql}) p", [*extra, *values, most]

    def union(most: int) -> tuple[str, list[Any]]:
        if agent is None:
            return part("", (), most)
        sent, one = part("r.agent=(SELECT id FROM name WHERE s=?) AND +", (agent,), most)
        got, two = part("r.pos IN (SELECT pos FROM tag WHERE k=? AND v=?) AND +", (TAGS["to"], agent), most)
        return f"{sent} UNION {got}", [*one, *two]

    sql, args = union(skip + limit)
    rows = f"SELECT {COLUMNS} FROM ({sql}) f CROSS JOIN rec r ON r.pos=f.pos ORDER BY r.pos {order} LIMIT ? OFFSET ?"
    found = corpus.rows(rows, (*args, limit, skip))
    sql, args = union(COUNT_MAX + 1)
    total = corpus.one(f"SELECT count(*) FROM ({sql} LIMIT ?) f", (*args, COUNT_MAX + 1))[0]
    return found, int(total)


def told_ms(corpus: SqlCorpus, positions: Sequence[int]) -> dict[int, int]:
    """The times, in ms since 1970, that plain clients gave their messages at these positions."""
    if not positions:
        return {}
    marks = ",".join("?" * len(positions))
    rows = corpus.query(f"SELECT pos, ms FROM told WHERE pos IN ({marks})", tuple(positions))
    return {pos: ms for pos, ms in rows}


def live(corpus: SqlCorpus, collection: str, *, agent: str | None = None, after: int = 0) -> Iterator[Stored]:
    """The current values of a collection, of one agent or all, in the order in which they were last written."""
    where = f"r.coll=(SELECT id FROM name WHERE s=?) AND r.pos>? AND {LIVE}"
    args: list[Any] = [collection, after]
    if agent is not None:
        where += " AND +r.agent=(SELECT id FROM name WHERE s=?)"
        args.append(agent)
    yield from corpus.read(f"SELECT {COLUMNS} FROM rec r WHERE {where} ORDER BY r.pos", args)


def writers(corpus: SqlCorpus, readable: tuple[str, ...], after: str, limit: int) -> list[str]:
    """Agents behind a name, in order, that ever wrote to a collection that fits one of these globs."""
    sql = (
        "SELECT DISTINCT n.s FROM stream s CROSS JOIN name n ON n.id=s.agent WHERE n.s>? AND EXISTS(SELECT 1 FROM state"
        f" WHERE state.agent=s.agent AND {corpus.in_collections(readable, 'state.coll')}) ORDER BY n.s LIMIT ?"
    )
    return [row[0] for row in corpus.query(sql, (after, limit))]


def streams(corpus: SqlCorpus, after: str, limit: int) -> list[tuple[str, bytes, bool, int, bytes, int]]:
    """Agents behind a name, in order: (agent, stream, written by this hub, newest seq, its link, incarnations)."""
    sql = (
        "SELECT n.s, s.stream, s.own, l.seq, l.link, (SELECT count(*) FROM label WHERE label.stream=s.id)"
        " FROM name n CROSS JOIN stream s ON s.agent=n.id"
        " JOIN label l ON l.stream=s.id"
        " AND l.inc=(SELECT inc FROM label WHERE label.stream=s.id ORDER BY inc DESC LIMIT 1)"
        " WHERE n.s IN (SELECT DISTINCT n.s FROM stream s CROSS JOIN name n ON n.id=s.agent WHERE n.s>?"
        " ORDER BY n.s LIMIT ?) ORDER BY n.s, s.id"
    )
    return [(row[0], row[1], bool(row[2]), *row[3:]) for row in corpus.query(sql, (after, limit))]

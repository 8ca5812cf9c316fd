"""Pages of a hub's file that only its readers ask for: a filtered feed, a mailbox, the rows of a table, its agents.

Every page is bounded in what it returns and in what it looks at; none counts without a cap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from holdfast.corpus.rows import COLUMNS, Stored, behind
from holdfast.corpus.sqlite import TAGS, SqliteCorpus
from holdfast.records import MORE
from holdfast.wire import RECORDS_MAX, SEGMENT_BYTES_MAX

WINDOW: Final = 50_000
"""Positions that one page of a filtered feed looks at: 50 ms where no index helps."""
COUNT_MAX: Final = 10_000
_LIVE: Final = (
    "r.pos=(SELECT pos FROM state st WHERE st.agent=r.agent AND st.coll=r.coll AND st.key=r.key AND st.gone=0)"
)
_SLACK_MS: Final = 60_000


class Page(msgspec.Struct, frozen=True):
    """Records behind a position, and the position that has been looked at: `done` when nothing was left."""

    records: list[Stored]
    pos: int
    done: bool


def feed(
    corpus: SqliteCorpus,
    after: int,
    *,
    agents: Sequence[str] = (),
    collections: Sequence[str] = (),
    kinds: Sequence[str] = (),
    prefix: str = "",
    limit: int = RECORDS_MAX,
) -> Page:
    """Records behind `after` in commit order that pass all filters; never cut inside a batch.

    Args:
        corpus: where they lie.
        after: the position to read on from.
        agents, collections, kinds: any of these; empty for all.
        prefix: what their keys start with.
        limit: about how many.
    """
    head = corpus.last()
    if after >= head:
        return Page([], after, True)
    last = min(head, after + WINDOW) if agents or collections or kinds or prefix else head
    where = ["r.pos>? AND r.pos<=?"]
    args: list[Any] = [after, last]
    for column, names in (("agent", agents), ("coll", collections), ("kind", kinds)):
        if names:
            # Only one index serves; the agent's is the narrowest, so the others are told to stay out of it.
            plain = "" if column == "agent" or (column == "coll" and not agents) else "+"
            where.append(f"{plain}r.{column} IN (SELECT id FROM name WHERE s IN ({','.join('?' * len(names))}))")
            args += names
    if prefix:
        where.append("r.key>=? AND r.key<?")
        args += [prefix, behind(prefix)]
    sql = f"SELECT {COLUMNS} FROM rec r WHERE {' AND '.join(where)} ORDER BY r.pos LIMIT ?"
    found: list[Stored] = []
    cut, size = False, 0
    for stored in _read(corpus, sql, (*args, limit + RECORDS_MAX)):
        if found and (len(found) >= limit or size >= SEGMENT_BYTES_MAX) and not found[-1].record.flags & MORE:
            cut = True
            break
        found.append(stored)
        size += len(stored.body or b"") + 256
    if cut or len(found) == limit + RECORDS_MAX:
        return Page(found, found[-1].pos, False)
    return Page(found, last, last == head)


def mailbox(
    corpus: SqliteCorpus,
    *,
    agent: str | None = None,
    task: str | None = None,
    since_ms: int = 0,
    newest_first: bool = True,
    skip: int = 0,
    limit: int = 100,
) -> tuple[list[Stored], int]:
    """Messages from or to an agent, and how many there are in all (counted up to `COUNT_MAX` + 1).

    Args:
        corpus: where they lie.
        agent: who sent or is to get them; None for everybody's.
        task: what they belong to.
        since_ms: not older than this, by the time that their writer gave them.
        newest_first: the order, which is that of arrival.
        skip: how many to leave out.
        limit: the most to return.
    """
    tests = ["r.coll=(SELECT id FROM name WHERE s='messages')", "(r.flags&1)", _LIVE]
    values: list[Any] = []
    if task is not None:
        tests.append("r.pos IN (SELECT pos FROM tag WHERE k=? AND v=?)")
        values += [TAGS["task"], task]
    if since_ms:
        row = corpus.engine.one(
            "SELECT pos FROM arrival WHERE at_ms<? ORDER BY at_ms DESC LIMIT 1", (since_ms - _SLACK_MS,)
        )
        tests.append("r.pos>? AND coalesce((SELECT ms FROM told WHERE told.pos=r.pos), r.hlc>>16)>=?")
        values += [row[0] if row else 0, since_ms]
    order = "DESC" if newest_first else "ASC"
    test = " AND ".join(tests)

    def part(where: str, extra: Sequence[Any], most: int) -> tuple[str, list[Any]]:
        sql = f"SELECT r.pos AS pos FROM rec r WHERE {where}{test} ORDER BY r.pos {order} LIMIT ?"
        return f"SELECT pos FROM ({sql})", [*extra, *values, most]

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
    total = corpus.engine.one(f"SELECT count(*) FROM ({sql} LIMIT ?)", (*args, COUNT_MAX + 1))[0]
    return found, int(total)


def told_ms(corpus: SqliteCorpus, positions: Sequence[int]) -> dict[int, int]:
    """The times, in ms since 1970, that plain clients gave their messages at these positions."""
    if not positions:
        return {}
    marks = ",".join("?" * len(positions))
    rows = corpus.engine.query(f"SELECT pos, ms FROM told WHERE pos IN ({marks})", tuple(positions))
    return {pos: ms for pos, ms in rows}


def live(corpus: SqliteCorpus, collection: str, *, agent: str | None = None, after: int = 0) -> Iterator[Stored]:
    """The current values of a collection, of one agent or all, in the order in which they were last written."""
    where = f"r.coll=(SELECT id FROM name WHERE s=?) AND r.pos>? AND {_LIVE}"
    args: list[Any] = [collection, after]
    if agent is not None:
        where += " AND +r.agent=(SELECT id FROM name WHERE s=?)"
        args.append(agent)
    yield from _read(corpus, f"SELECT {COLUMNS} FROM rec r WHERE {where} ORDER BY r.pos", args)


def streams(corpus: SqliteCorpus, after: str, limit: int) -> list[tuple[str, bytes, bool, int, bytes, int]]:
    """Agents behind a name, in order: (agent, stream, written by this hub, newest seq, its link, incarnations)."""
    sql = (
        "SELECT n.s, s.stream, s.own, l.seq, l.link, (SELECT count(*) FROM label WHERE label.stream=s.id)"
        " FROM name n CROSS JOIN stream s ON s.agent=n.id"
        " JOIN label l ON l.stream=s.id AND l.inc=(SELECT max(inc) FROM label WHERE label.stream=s.id)"
        " WHERE n.s IN (SELECT DISTINCT n.s FROM stream s CROSS JOIN name n ON n.id=s.agent WHERE n.s>?"
        " ORDER BY n.s LIMIT ?) ORDER BY n.s, s.id"
    )
    return [(row[0], row[1], bool(row[2]), *row[3:]) for row in corpus.engine.query(sql, (after, limit))]


def _read(corpus: SqliteCorpus, sql: str, args: Sequence[Any]) -> Iterator[Stored]:
    # Row by row, so that a page ends where its bytes do and not where its rows would.
    with corpus.engine.reader() as connection:
        cursor = connection.execute(sql, args)
        try:
            for row in cursor:
                yield corpus.stored(row)
        finally:
            cursor.close(True)  # a page cut short must not hold its snapshot: the WAL could not restart

"""Lists of messages, narrowed: by who sent them, of what kind, about what; the newest first, however many there are.

No list looks at more than a few thousand rows at once. Where nothing narrower is indexed, it says how far it has looked
and where to go on. Repeated messages (one `dedupe` key, several senders) are one row: the newest of them.
Everything here is SQL that SQLite and PostgreSQL both understand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from holdfast.collections.delivery import TABS
from holdfast.collections.mailbox import COUNT_MAX, MAIL, Mail, Part, counted, with_records
from holdfast.corpus import SqlCorpus, Stored, search
from holdfast.corpus.sql import MESSAGES

STEPS: Final = 4_000
"""Rows that one page looks at where its filters are not all in one index: some 4 ms."""
STEP: Final = 8
"""So many rows for each one that is wanted are looked at first: where most of them fit, that is all it takes."""
PARTS_MAX: Final = 40
HITS_MAX: Final = 1_000
"""Records that one page of a search looks at."""
NAMES_MAX: Final = 100
FACETS: Final = ("kind", "role", "sender")
"""Columns whose values can be listed."""
_PLACES: Final = {"senders": "sender", "kinds": "kind", "roles": "role", "tasks": "task", "priorities": "priority"}


class Sought(msgspec.Struct, frozen=True, kw_only=True):
    """Which messages; every field narrows it, and an empty one does not.

    Attributes:
        boxes: whose they are; None: anybody's.
        tabs: in which of `TABS` they lie, by number.
        needs: of those that want a person (1), of the others (0).
        senders, kinds, roles, tasks, priorities: one of these.
        artifact: only with something attached.
        dedupe: only repeats of this one.
        since, until: behind that position, and up to this one.
        folded: whether repeats are one row.
    """

    boxes: tuple[str, ...] | None
    tabs: tuple[int, ...]
    needs: tuple[int, ...] = (0, 1)
    senders: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    priorities: tuple[int, ...] = ()
    artifact: bool = False
    dedupe: str | None = None
    since: int = 0
    until: int = 1 << 62
    folded: bool = True

    @property
    def narrowed(self) -> bool:
        """Whether more than a place in the inbox is asked for."""
        return bool(self.artifact or self.dedupe or any(getattr(self, name) for name in _PLACES))


class Listed(msgspec.Struct, frozen=True):
    """A page: `next` is the position to go on below (None: there is no more), `cut` whether looking ended early."""

    rows: list[tuple[Mail, Stored]]
    next: int | None
    cut: bool = False
    partial: bool = False


def listed(corpus: SqlCorpus, sought: Sought, below: int, limit: int) -> Listed:
    """The newest messages below a position that are sought.

    Args:
        corpus: of a hub, whose mail was taken up.
        sought: which.
        below: a position.
        limit: rows at most.
    """
    below = min(below, sought.until + 1)
    tests, values = _tests(sought, "m")
    if sought.folded:
        again, more = _tests(sought, "g")
        newer = f"SELECT 1 FROM mail g WHERE g.dedupe=m.dedupe AND g.pos>m.pos{again}"
        tests += f" AND (m.dedupe IS NULL OR NOT EXISTS({newer}))"
        values += more
    cells = _cells(sought)
    if sought.narrowed or not cells:
        return _walked(corpus, sought, (tests, values), below, limit)
    held = counted(corpus, cells, (sought.since, below), 1)
    parts = [cell for cell, some in zip(cells, held, strict=True) if some]  # each costs a database a plan of its own
    return _page(corpus, _united(corpus, parts, (tests, values), (sought.since, below), limit + 1), limit)


def _walked(corpus: SqlCorpus, sought: Sought, within: tuple[str, list[Any]], below: int, limit: int) -> Listed:
    """A page where each part is walked for some rows, and those that fit are picked out of them."""
    parts = _narrowest(corpus, sought, below)
    most = max(STEPS // len(parts), limit + 1)
    for walked in (min(STEP * (limit + 1), most), most):
        sql, args = _walks(parts, ("", []), (sought.since, below), walked)
        whole = f"SELECT {MAIL} FROM ({sql}) m WHERE true{within[0]} ORDER BY pos DESC LIMIT ?"
        found = [Mail(*row) for row in corpus.query(whole, (*args, *within[1], limit + 1))]
        end = _looked_to(corpus, sought, below, parts, walked)
        # Below the end some part has not been walked: what lies there may come between.
        if end is None or (len(found) > limit and found[-1].pos >= end):
            return _page(corpus, found, limit)
    assert end is not None
    return Listed(with_records(corpus, [mail for mail in found if mail.pos >= end]), end, cut=True)


def _united(
    corpus: SqlCorpus, parts: Sequence[Part], tests: tuple[str, list[Any]], span: tuple[int, int], limit: int
) -> list[Mail]:
    """The newest rows of all parts together that meet the tests."""
    if not parts:
        return []
    sql, args = _walks(parts, tests, span, limit)
    return [
        Mail(*row) for row in corpus.query(f"SELECT {MAIL} FROM ({sql}) m ORDER BY pos DESC LIMIT ?", (*args, limit))
    ]


def _walks(
    parts: Sequence[Part], tests: tuple[str, list[Any]], span: tuple[int, int], limit: int
) -> tuple[str, list[Any]]:
    sql, args = list[str](), list[Any]()
    for number, (test, own) in enumerate(parts):
        walk = f"SELECT {MAIL} FROM mail m WHERE {test} AND pos>? AND pos<?{tests[0]} ORDER BY pos DESC LIMIT ?"
        sql.append(f"SELECT * FROM ({walk}) p{number}")
        args += [*own, *span, *tests[1], limit]
    return " UNION ALL ".join(sql), args


def _page(corpus: SqlCorpus, found: list[Mail], limit: int) -> Listed:
    shown = found[:limit]
    return Listed(with_records(corpus, shown), shown[-1].pos if len(found) > limit else None)


def above(corpus: SqlCorpus, sought: Sought, pos: int) -> Mail | None:
    """The message that is sought next above a position; None: there is none, or not among the rows that are looked at.

    Args:
        corpus: of a hub, whose mail was taken up.
        sought: which.
        pos: a position.
    """
    tests, values = _tests(sought, "m")
    if sought.folded:
        again, more = _tests(sought, "g")
        newer = f"SELECT 1 FROM mail g WHERE g.dedupe=m.dedupe AND g.pos>m.pos{again}"
        tests += f" AND (m.dedupe IS NULL OR NOT EXISTS({newer}))"
        values += more
    parts, sql, args = _cells(sought), list[str](), list[Any]()
    if not parts:
        return None
    # Where a place in the inbox is all that is asked for, each part ends with its first row.
    inner, outer, walked = ("", tests, STEPS // len(parts)) if sought.narrowed else (tests, "", 1)
    for number, (test, own) in enumerate(parts):
        walk = f"SELECT {MAIL} FROM mail m WHERE {test} AND pos>? AND pos<=?{inner} ORDER BY pos LIMIT {walked}"
        sql.append(f"SELECT * FROM ({walk}) p{number}")
        args += [*own, max(pos, sought.since), sought.until, *(values if inner else ())]
    whole = f"SELECT {MAIL} FROM ({' UNION ALL '.join(sql)}) m WHERE true{outer} ORDER BY pos LIMIT 1"
    row = corpus.one(whole, (*args, *(values if outer else ())))
    return None if row is None else Mail(*row)


def _looked_to(corpus: SqlCorpus, sought: Sought, below: int, parts: Sequence[Part], walked: int) -> int | None:
    """How far every part was walked; None: to its end."""
    ends = []
    for test, own in parts:
        sql = f"SELECT pos FROM mail WHERE {test} AND pos>? AND pos<? ORDER BY pos DESC LIMIT 1 OFFSET ?"
        row = corpus.one(sql, (*own, sought.since, below, walked - 1))
        if row is not None:
            ends.append(row[0])
    return max(ends, default=None)


def _tests(sought: Sought, alias: str) -> tuple[str, list[Any]]:
    """What a row must be, as text behind other tests, and the values in it."""
    tests, values = "", list[Any]()
    if sought.boxes is not None:
        tests += f" AND {alias}.box IN ({_marks(sought.boxes)})"
        values += sought.boxes
    tests += f" AND {alias}.tab IN ({','.join(map(str, sought.tabs)) or 'NULL'})"
    tests += f" AND {alias}.needs IN ({','.join(map(str, sought.needs))})"
    for name, column in _PLACES.items():
        wanted = getattr(sought, name)
        if wanted:
            tests += f" AND {alias}.{column} IN ({_marks(wanted)})"
            values += wanted
    if sought.artifact:
        tests += f" AND {alias}.artifact=1"
    if sought.dedupe is not None:
        tests += f" AND {alias}.dedupe=?"
        values.append(sought.dedupe)
    return tests, values


def _marks(values: Sequence[Any]) -> str:
    return ",".join("?" * len(values)) or "NULL"


def _cells(sought: Sought) -> list[Part]:
    """The places in inboxes that are asked for."""
    cells = [(tab, needs) for tab in sought.tabs for needs in sought.needs]
    if sought.boxes is None:
        return [("tab=? AND needs=?", cell) for cell in cells]
    return [("box=? AND tab=? AND needs=?", (box, *cell)) for box in sought.boxes for cell in cells]


def _narrowest(corpus: SqlCorpus, sought: Sought, below: int) -> list[Part]:
    """The way through the fewest rows that holds all that is sought."""
    ways: list[list[Part]] = [_cells(sought)]
    if sought.dedupe is not None:
        ways.append([("dedupe=?", (sought.dedupe,))])
    if sought.artifact:
        ways.append([("artifact=1", ())])
    ways += [[(f"{column}=?", (each,)) for each in getattr(sought, name)] for name, column in _PLACES.items()]
    ways = [way for way in ways if 0 < len(way) <= PARTS_MAX]
    if not ways:
        return [("true", ())]
    costs = []
    for way in ways:
        most = STEPS // len(way) + 1
        counts = counted(corpus, way, (sought.since, below), most)
        # One that holds more than was counted may hold everything; then that of the fewest parts is walked furthest.
        full = max(counts) >= most
        costs.append((full, len(way) if full else sum(counts), len(way)))
    return ways[costs.index(min(costs))]


def all_of(corpus: SqlCorpus, sought: Sought, most: int) -> list[Mail]:
    """Every message that is sought, the newest first, repeats and all; one more than `most` where there are more."""
    tests, values = _tests(sought, "m")
    sql = f"SELECT {MAIL} FROM mail m WHERE pos>? AND pos<=?{tests} ORDER BY pos DESC LIMIT ?"
    return [Mail(*row) for row in corpus.query(sql, (sought.since, sought.until, *values, most + 1))]


def at(corpus: SqlCorpus, positions: Sequence[int]) -> list[Mail]:
    """The messages at these positions, the newest first."""
    if not positions:
        return []
    sql = f"SELECT {MAIL} FROM mail WHERE pos IN ({_marks(positions)}) ORDER BY pos DESC"
    return [Mail(*row) for row in corpus.query(sql, tuple(positions))]


# -- words --------------------------------------------------------------------------------------------------------


def searched(corpus: SqlCorpus, sought: Sought, text: str, below: int, limit: int, hits: int = HITS_MAX) -> Listed:
    """The newest messages below a position that are sought and hold every word of a text.

    Args:
        corpus: of a hub, whose mail was taken up.
        sought: which.
        text: what to look for; see `holdfast.corpus.search`.
        below: a position.
        limit: rows at most.
        hits: records at most that are looked at.

    Raises:
        UsageError: nothing to look for, or too much.
    """
    tests, values = _tests(sought, "m")
    found: list[tuple[Mail, Stored]] = []

    def wanted(lot: list[Stored]) -> None:
        mine = {each.pos: each for each in lot if each.record.collection == MESSAGES and sought.since < each.pos}
        if mine:
            sql = f"SELECT {MAIL} FROM mail m WHERE pos IN ({_marks(list(mine))}){tests} ORDER BY pos DESC"
            found.extend((Mail(*row), mine[row[0]]) for row in corpus.query(sql, (*mine, *values)))

    look = search.looked(corpus, text, min(below, sought.until + 1), hits)
    for lot in look:
        wanted(lot)
        if len(found) > limit or look.last <= sought.since:
            break
    ended = look.ended or look.last <= sought.since + 1
    if len(found) > limit:
        return Listed(found[:limit], found[limit - 1][0].pos, partial=look.partial)
    return Listed(found, None if ended else look.last, cut=not ended, partial=look.partial)


# -- figures ------------------------------------------------------------------------------------------------------


def counts(corpus: SqlCorpus, boxes: Sequence[str] | None, cells: dict[str, list[tuple[int, int]]]) -> dict[str, int]:
    """How many messages lie in several places, each counted up to `COUNT_MAX`.

    Args:
        corpus: of a hub.
        boxes: whose; None: everybody's.
        cells: for each name the (tab, needs) that it stands for.
    """
    each = sorted({cell for group in cells.values() for cell in group})
    if not each or (boxes is not None and not boxes):
        return dict.fromkeys(cells, 0)
    parts: list[Part] = [("tab=? AND needs=?", cell) for cell in each]
    if boxes is not None:
        parts = [("box=? AND tab=? AND needs=?", (box, *cell)) for cell in each for box in boxes]
    found = counted(corpus, parts, (0, 1 << 62), COUNT_MAX)
    many = len(parts) // len(each)
    have = {cell: sum(found[n * many : (n + 1) * many]) for n, cell in enumerate(each)}
    return {name: min(COUNT_MAX, sum(have[cell] for cell in group)) for name, group in cells.items()}


UNREAD: Final = {"unread": [(0, 0), (0, 1)]}
NEEDS: Final = {"needs": [(0, 1), (1, 1)]}


def unread(corpus: SqlCorpus, boxes: Sequence[str]) -> int:
    """How many messages to any of these nobody has read, counted up to `COUNT_MAX`."""
    return counts(corpus, boxes, UNREAD)["unread"] if boxes else 0


def names(corpus: SqlCorpus, column: str) -> list[str]:
    """The first values of one of `FACETS` among all messages, in order."""
    # From one to the next by the index: to ask for distinct ones would read all of it.
    sql = (
        f"WITH RECURSIVE each(v) AS (SELECT min({column}) FROM mail UNION ALL"
        f" SELECT (SELECT min({column}) FROM mail WHERE {column}>each.v) FROM each WHERE each.v IS NOT NULL)"
        f" SELECT v FROM each WHERE v IS NOT NULL LIMIT {NAMES_MAX}"
    )
    return [row[0] for row in corpus.query(sql)]


def repeats(corpus: SqlCorpus, sought: Sought, keys: Sequence[str]) -> dict[str, int]:
    """How many messages there are of each of these `dedupe` keys among those sought, counted up to `COUNT_MAX`."""
    if not keys:
        return {}
    tests, values = _tests(sought, "m")
    part = f"(SELECT count(*) FROM (SELECT 1 FROM mail m WHERE m.dedupe=?{tests} LIMIT {COUNT_MAX}) c)"
    args = [each for key in keys for each in (key, *values)]
    return dict(zip(keys, corpus.one(f"SELECT {', '.join([part] * len(keys))}", args), strict=True))


def tabs_named(names: Sequence[str]) -> tuple[int, ...]:
    """The numbers of tabs by name."""
    return tuple(TABS.index(name) for name in names)

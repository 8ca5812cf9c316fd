"""The ways to the items that pass the tests a condition makes in SQL, each with its keys in the order asked for.

Tests bring a table ``e`` of their own: what they test must have another name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from holdfast.corpus.index.fields import Field, Kept
from holdfast.corpus.index.planning import FEW, Choice, Chooser, Execute, Part, bounds, said
from holdfast.corpus.index.question import Order, Place, Query, latest_first
from holdfast.query import Test

Ranked = tuple[tuple[bytes, ...], int]
"""An item's keys in the order asked for, and its id."""
CHUNK: Final = 1_000
"""Entries walked along in the first statement; in each further one twice as many, up to `CHUNK_MAX`, some 10 ms."""
CHUNK_MAX: Final = 8_000
STEP: Final = 500


class Ways:
    """One question, in one moment.

    Args:
        execute: runs a statement and gives a cursor.
        asked: the question.
        kept: what is indexed of its collection.
        part: what its condition says to the index.
        agents: the numbers of the agents asked for; None: anybody's.
    """

    def __init__(self, execute: Execute, asked: Query, kept: Kept, part: Part, agents: Sequence[int] | None) -> None:
        self._execute, self._asked, self._kept, self._part, self._agents = execute, asked, kept, part, agents
        self._coll = kept.own.coll
        self._straight = False  # along the fewest candidates: there is no better way
        self._step = STEP
        self.way = ""

    # -- without an order ---------------------------------------------------------------------------------------

    def base(self) -> tuple[str, tuple[Any, ...]]:
        """The query for all items, as ``id``; and its values."""
        choice = Chooser(self._execute, self._kept, 25 * FEW).best(self._asked.condition)
        if choice is not None:
            sql, args = choice.items
            self.way = f"collect:{choice.name}"
            tests, more = self._tests("d.item", among=True, passed=choice.test)
            return f"SELECT d.item AS id FROM ({sql}) d WHERE {tests}", (*args, *more)
        self.way = "walk"
        tests, more = self._tests("i.id", among=False)
        return f"SELECT i.id AS id FROM item i WHERE i.coll=? AND i.bare=0 AND {tests}", (self._coll, *more)

    def every(self) -> Iterator[int]:
        """The ids of all items, in no order."""
        sql, args = self.base()
        cursor = self._execute(sql, args)
        for row in cursor:
            yield row[0]

    def _tests(self, item: str, *, among: bool, passed: Test | None = None) -> tuple[str, tuple[Any, ...]]:
        """The tests of an item, which with `among` is no row of `item` yet, but for one that it has passed."""
        part = self._part if passed is None else said(self._asked.condition, self._kept, passed=passed)
        tests, args = [], list[Any]()
        if part.sql:
            tests.append(part.sql.replace("{i}", item))
            args += part.args
        if self._agents is not None:
            marks = ",".join("?" * len(self._agents)) or "NULL"
            whose = f"(SELECT a.agent FROM item a WHERE a.coll=? AND a.id={item})" if among else "i.agent"
            tests.append(f"{whose} IN ({marks})")
            args += [*([self._coll] if among else []), *self._agents]
        return " AND ".join(tests) or "1=1", tuple(args)

    # -- in order -----------------------------------------------------------------------------------------------

    def ranked(
        self, order: Sequence[Order], fields: Sequence[Field], start: Place | None, want: int
    ) -> Iterator[Ranked]:
        """The items behind a place, in order.

        Args:
            order: the order.
            fields: its fields in the index.
            start: where to begin; None: with the first.
            want: how many will be asked for, as far as is known.
        """
        self._step = min(STEP, max(want, 1)) if self._part.exact else STEP
        choice = self._least()
        straight = not order and choice is not None and choice.point is not None
        if choice is not None and choice.count <= FEW and not straight:  # these lie in their order
            yield from self._collect(choice, order, fields, start, want)
            return
        walked = hits = 0
        for lot, many in self._walk(choice, order, fields, start):
            for keys, number in lot:
                hits += 1
                start = Place(order, keys, number)
                yield keys, number
            walked += many
            if choice is None or not many or self._straight or hits >= want:
                continue
            # Was that the wrong way? All that is left to walk, by what was found so far, against all candidates, of
            # which each costs some four steps: the pages of its entries are its own.
            left = (want - hits) * walked // max(1, hits) // 4
            choice = Chooser(self._execute, self._kept, min(left, 100 * FEW)).best(self._asked.condition)
            if choice is not None and choice.count <= left:
                # From the newest that was found: what lies between it and here was seen, and did not pass.
                yield from self._collect(choice, order, fields, start, want)
                return

    def _least(self) -> Choice | None:
        choice = Chooser(self._execute, self._kept).best(self._asked.condition)
        if self._agents is None or (choice is not None and choice.count <= FEW):
            return choice
        marks = ",".join("?" * len(self._agents)) or "NULL"
        sql = f"SELECT count(*) FROM (SELECT 1 FROM item i WHERE i.coll=? AND i.agent IN ({marks}) LIMIT ?) c"
        (count,) = self._execute(sql, (self._coll, *self._agents, FEW + 1)).fetchone()
        return Choice(count, (), "agents") if count <= FEW else choice

    def _collect(
        self, choice: Choice, order: Sequence[Order], fields: Sequence[Field], start: Place | None, want: int
    ) -> Iterator[Ranked]:
        """Takes all candidates and sorts them."""
        self.way = f"collect:{choice.name}"
        if choice.spans:
            (inner, among), (tests, more) = choice.items, self._tests("d.item", among=True, passed=choice.test)
        else:
            marks = ",".join("?" * len(self._agents or ())) or "NULL"
            inner = f"SELECT i.id AS item FROM item i WHERE i.coll=? AND i.bare=0 AND i.agent IN ({marks})"
            among = (self._coll, *(self._agents or ()))
            tests, more = (self._part.sql or "1=1").replace("{i}", "d.item"), self._part.args
        columns, keys = _columns(order, fields, "d.item", 0)
        behind, bound = _behind(order, [f"k{n}" for n in range(len(order))], "id", start)
        by = ", ".join([f"k{n}{_way(each.down)}" for n, each in enumerate(order)] + [f"id{_tail(order)}"])
        inner = f"SELECT d.item AS id{columns} FROM ({inner}) d WHERE {tests}"
        sql = f"SELECT * FROM ({inner}) f WHERE {behind} ORDER BY {by}"
        args = (*keys, *among, *more, *bound)
        if self._part.exact:
            sql, args = f"{sql} LIMIT ?", (*args, want)
        for number, *found in self._execute(sql, args).fetchall():
            yield tuple(map(bytes, found)), number

    def _walk(
        self, choice: Choice | None, order: Sequence[Order], fields: Sequence[Field], start: Place | None
    ) -> Iterator[tuple[list[Ranked], int]]:
        """Goes along an index in the order asked for; gives what it found, and how many entries it went along."""
        if order:
            self.way = f"walk:{order[0].field}"
            yield from self._along_values(order, fields, start)
        elif choice is not None and choice.point is not None:
            self.way, self._straight = f"walk:{choice.name}", True
            span = choice.point
            yield from self._along(
                "entry w", "w.item", "w.field=? AND w.v=?", (span.field, span.low), start, choice.test
            )
        else:
            self.way = "walk"
            yield from self._along("item i", "i.id", "i.coll=? AND i.bare=0", (self._coll,), start)

    def _along(
        self, table: str, item: str, where: str, among: tuple[Any, ...], start: Place | None, passed: Test | None = None
    ) -> Iterator[tuple[list[Ranked], int]]:
        """Goes along ids, a chunk of entries after another."""
        tests, more = self._tests(item, among=table != "item i", passed=passed)
        after = start.number if start is not None else 0
        for chunk in _chunks():
            sql = f"SELECT {item} FROM {table} WHERE {where} AND {item}>? ORDER BY {item} LIMIT 1 OFFSET ?"
            edge = self._execute(sql, (*among, after, chunk - 1)).fetchone()
            end = edge[0] if edge else 1 << 62
            within = f"{where} AND {item}>? AND {item}<=?"
            sql = f"SELECT {item} FROM {table} WHERE {within} AND {tests} ORDER BY {item} LIMIT ?"
            full = True
            while full:
                found = self._execute(sql, (*among, after, end, *more, self._step)).fetchall()
                full = len(found) == self._step
                yield [((), row[0]) for row in found], 0 if full else chunk
                after = found[-1][0] if full else end
            if edge is None:
                return

    def _along_values(
        self, order: Sequence[Order], fields: Sequence[Field], start: Place | None
    ) -> Iterator[tuple[list[Ranked], int]]:
        """Goes along the values of the first field of an order, a chunk of entries (and the rest of its last value)
        after another.
        """
        field, down = fields[0], order[0].down
        low, high = bounds(self._asked.condition, field, down, self._kept)
        tests, more = self._tests("w.item", among=True)
        if field.many:
            sign = ">" if down else "<"
            tests += f" AND (SELECT 1 FROM entry s WHERE s.item=w.item AND s.field=? AND s.v{sign}w.v LIMIT 1) IS NULL"
            more = (*more, field.id)
        columns, keys = _columns(order[1:], fields[1:], "w.item", 1)
        by = [f"k{n}{_way(each.down)}" for n, each in enumerate(order)] + [f"id{_tail(order)}"]
        for chunk in _chunks():
            if start is not None:
                low, high = (low, min(high, start.keys[0] + b"\0")) if down else (max(low, start.keys[0]), high)
            if low >= high:
                return
            where = "w.field=? AND w.v>=? AND w.v<?"
            sql = f"SELECT w.v FROM entry w WHERE {where} ORDER BY w.v{_way(down)}, w.item{_way(down)} LIMIT 1 OFFSET ?"
            row = self._execute(sql, (field.id, low, high, chunk - 1)).fetchone()
            edge = bytes(row[0]) if row else (low if down else high)
            near, far = (edge, high) if down else (low, edge + b"\0" if row else high)
            full = True
            while full:
                if len(order) == 1:
                    where, bound = _from(down, near, far, start)
                    sql = f"SELECT w.item AS id, w.v AS k0 FROM entry w WHERE w.field=? AND {where} AND {tests}"
                    args = (field.id, *bound, *more)
                    sql += f" ORDER BY w.v{_way(down)}, w.item{_way(down)} LIMIT ?"
                else:
                    inner = f"SELECT w.item AS id, w.v AS k0{columns} FROM entry w WHERE {where} AND {tests}"
                    behind, bound = _behind(order, [f"k{n}" for n in range(len(order))], "id", start)
                    sql = f"SELECT * FROM ({inner}) f WHERE {behind} ORDER BY {', '.join(by)} LIMIT ?"
                    args = (*keys, field.id, near, far, *more, *bound)
                found = self._execute(sql, (*args, self._step)).fetchall()
                full = len(found) == self._step
                lot: list[Ranked] = [(tuple(map(bytes, each)), number) for number, *each in found]
                yield lot, 0 if full else chunk
                start = Place(order, *lot[-1]) if full else None
            if not row:
                return
            low, high = (low, edge) if down else (edge + b"\0", high)


def _chunks() -> Iterator[int]:
    size = CHUNK
    while True:
        yield size
        size = min(2 * size, CHUNK_MAX)


def _from(down: bool, near: bytes, far: bytes, start: Place | None) -> tuple[str, tuple[Any, ...]]:
    """The test of entries between two values (below the second), behind a place: as one, for an index begins there."""
    if start is None:
        return "w.v>=? AND w.v<?", (near, far)
    if down:
        return "w.v>=? AND (w.v, w.item)<(?,?)", (near, start.keys[0], start.number)
    return "w.v<? AND (w.v, w.item)>(?,?)", (far, start.keys[0], start.number)


def _columns(order: Sequence[Order], fields: Sequence[Field], item: str, first: int) -> tuple[str, tuple[Any, ...]]:
    """The columns that hold an item's keys in an order, from ``k<first>`` on; and their values."""
    text = ""
    for number, each in enumerate(order, first):
        way = _way(each.down)
        text += f", (SELECT o.v FROM entry o WHERE o.item={item} AND o.field=? ORDER BY o.v{way} LIMIT 1) AS k{number}"
    return text, tuple(field.id for field in fields)


def _behind(
    order: Sequence[Order], columns: Sequence[str], number: str, start: Place | None
) -> tuple[str, tuple[Any, ...]]:
    """The test of what stands behind a place; and its values."""
    if start is None:
        return "1=1", ()
    tail = "<" if latest_first([each.down for each in order]) else ">"
    ways, args = [], list[Any]()
    for count, each in enumerate(order):
        same = "".join(f"{column}=? AND " for column in columns[:count])
        ways.append(f"({same}{columns[count]}{'<' if each.down else '>'}?)")
        args += [*start.keys[:count], start.keys[count]]
    same = "".join(f"{column}=? AND " for column in columns)
    ways.append(f"({same}{number}{tail}?)")
    return f"({' OR '.join(ways)})", (*args, *start.keys, start.number)


def _way(down: bool) -> str:
    return " DESC" if down else ""


def _tail(order: Sequence[Order]) -> str:
    return _way(latest_first([each.down for each in order]))

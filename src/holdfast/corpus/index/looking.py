"""One question to a collection in one moment: by its index where it has one, by all of its values where it has none."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

from holdfast import wire
from holdfast.corpus.index.fields import MARK, WHOLE, Field, Kept, Mark, read_kept, read_mark
from holdfast.corpus.index.filling import AWAY, HERE, LOOKED_AT, LOT, NOTHING, Filler, add_entries
from holdfast.corpus.index.planning import Execute, said
from holdfast.corpus.index.question import Load, Order, Place, Query, keys_in
from holdfast.corpus.index.ways import Ways
from holdfast.corpus.rows import COLUMNS, Stored
from holdfast.corpus.sql import SqlCorpus
from holdfast.corpus.transaction import SqlTransaction
from holdfast.errors import Erased, Sealed
from holdfast.query import Condition, matches, tests_in

UNREADABLE: Final = object()
_STEP: Final = 200


class Again(Exception):
    """A record that the index names is gone by now, for its key has another: ask again."""


class Look:
    """What a question asks in one moment, of the index or of all values; made by `looking`.

    Args:
        corpus: where.
        execute: runs a statement in the moment.
        asked: the question.
        load: gives a record's value.
    """

    def __init__(self, corpus: SqlCorpus, execute: Execute, asked: Query, load: Load) -> None:
        self.corpus, self.execute, self.asked, self._load = corpus, execute, asked, load
        self.values: dict[int, Any] = {}
        self.kept: Kept | None = None
        self.way = "scan"

    def ranked(self, order: Sequence[Order], start: Place | None) -> Iterator[Place]:
        """Everything that meets the condition behind a place, in order."""
        found = heapq.nsmallest(self.asked.limit + 1, self._behind(order, start))
        kept = {place.number for place in found}
        self.values = {number: value for number, value in self.values.items() if number in kept}
        return iter(found)

    def _behind(self, order: Sequence[Order], start: Place | None) -> Iterator[Place]:
        for place in self._placed(order):
            if start is None or start < place:
                yield place
            else:
                del self.values[place.number]

    def count(self) -> int:
        """How many meet the condition."""
        return sum(1 for _ in self.every())

    def every(self) -> Iterator[Any]:
        """The values of everything that meets the condition."""
        for place in self._placed(()):
            yield self.values.pop(place.number)

    def _placed(self, order: Sequence[Order]) -> Iterator[Place]:
        for number, stored in self._all():
            value = self.value(number, stored)
            if matches_object(self.asked.condition, value):
                yield Place(order, keys_in(order, value), number)
            else:
                del self.values[number]

    def _all(self) -> Iterator[tuple[int, Stored]]:
        agents = dict.fromkeys(self.asked.agents or self.corpus.agents())
        for agent in agents:
            after: tuple[str, ...] = ()
            while True:
                sql = (
                    f"SELECT {COLUMNS} FROM state st JOIN rec r ON r.pos=st.pos WHERE"
                    " st.agent=(SELECT id FROM name WHERE s=?) AND st.coll=(SELECT id FROM name WHERE s=?)"
                    f"{' AND st.key>?' if after else ''} AND st.gone=0 ORDER BY st.key LIMIT {_STEP}"
                )
                rows = self.execute(sql, (agent, self.asked.collection, *after)).fetchall()
                for row in rows:
                    stored = self.corpus.stored(row)
                    yield stored.pos, stored
                if len(rows) < _STEP:
                    break
                after = (stored.record.key,)

    def records(self, numbers: Sequence[int]) -> dict[int, Stored]:
        """The records of what was found, by id."""
        found: dict[int, Stored] = {}
        for first in range(0, len(numbers), LOT):
            lot = numbers[first : first + LOT]
            sql = f"SELECT {COLUMNS} FROM rec r WHERE r.pos IN ({','.join('?' * len(lot))})"
            found |= {row[0]: self.corpus.stored(row) for row in self.execute(sql, lot).fetchall()}
        return found

    def value(self, number: int, stored: Stored) -> Any:
        """The value of a record; `UNREADABLE` where there is none that anybody here could read."""
        value = self.values[number] = read(stored, self._load)
        return value


class IndexLook(Look):
    """The same of an index."""

    def __init__(
        self, corpus: SqlCorpus, execute: Execute, asked: Query, load: Load, kept: Kept, agents: Sequence[int] | None
    ) -> None:
        super().__init__(corpus, execute, asked, load)
        self.kept = kept
        self.part = said(asked.condition, kept)
        self.agents = agents
        self.ways = Ways(execute, asked, kept, self.part, agents)
        self.bare = self._bare()

    def ranked(self, order: Sequence[Order], start: Place | None) -> Iterator[Place]:
        """Everything that meets the condition behind a place, in order."""
        assert self.kept is not None
        fields = [field for each in order if (field := self.kept.find(each.field)) is not None]
        if len(fields) < len(order):
            return super().ranked(order, start)
        found = self._in_order(order, fields, start)
        if not self.bare:
            return found
        bare = [place for place in self._met(self.bare, order) if start is None or start < place]
        return heapq.merge(found, sorted(bare))

    def count(self) -> int:
        """How many meet the condition."""
        if not self.part.exact:
            return super().count()
        sql, args = self.ways.base()
        self.way = self.ways.way
        return int(self.execute(f"SELECT count(*) FROM ({sql}) b", args).fetchone()[0]) + sum(1 for _ in self.looked())

    def adds_up(self, paths: Sequence[str]) -> bool:
        """Whether the index alone can add up these fields."""
        assert self.kept is not None
        return self.part.exact and all(self.kept.find(path) for path in paths)

    def sums(self, paths: Sequence[str]) -> Iterator[tuple[tuple[bytes, ...], int]]:
        """The entries of these fields together, of what meets the condition, and how often there are such."""
        assert self.kept is not None
        sql, args = self.ways.base()
        self.way = self.ways.way
        joins, columns, more = "", [], []
        for number, path in enumerate(paths):
            field = self.kept.find(path)
            assert field is not None
            joins += f" CROSS JOIN entry e{number} ON e{number}.item=b.id AND e{number}.field=?"
            columns.append(f"e{number}.v")
            more.append(field.id)
        names = ", ".join(columns)
        sql = f"SELECT {names + ', ' if names else ''}count(*) FROM ({sql}) b{joins}"
        if names:
            sql += f" GROUP BY {names}"
        for *keys, times in self.execute(sql, (*args, *more)):
            yield tuple(map(bytes, keys)), times

    def looked(self) -> Iterator[Any]:
        """The values that meet the condition and are not in the index."""
        for place in self._met(self.bare, ()):
            yield self.values.pop(place.number)

    def _in_order(self, order: Sequence[Order], fields: Sequence[Field], start: Place | None) -> Iterator[Place]:
        ranked = self.ways.ranked(order, fields, start, self.asked.limit + 1)
        if self.part.exact:
            for keys, number in ranked:
                self.way = self.ways.way
                yield Place(order, keys, number)
            self.way = self.ways.way
            return
        size = min(_STEP, 2 * self.asked.limit)
        while lot := list(islice(ranked, size)):
            self.way = f"{self.ways.way}+look"
            met = {place.number for place in self._met([number for _, number in lot], ())}
            yield from (Place(order, keys, number) for keys, number in lot if number in met)
        self.way = f"{self.ways.way}+look"

    def _placed(self, order: Sequence[Order]) -> Iterator[Place]:
        ids = self.ways.every()
        while lot := list(islice(ids, _STEP)):
            self.way = f"{self.ways.way}+look"
            yield from self._met(lot, order)
        yield from self._met(self.bare, order)

    def _met(self, numbers: Sequence[int], order: Sequence[Order]) -> Iterator[Place]:
        for first in range(0, len(numbers), _STEP):
            lot = numbers[first : first + _STEP]
            records = self.records(lot)
            for number in lot:
                value = self.value(number, records[number])
                if matches_object(self.asked.condition, value):
                    yield Place(order, keys_in(order, value), number)
                else:
                    del self.values[number]

    def _bare(self) -> list[int]:
        whose, args = "", tuple[int, ...]()
        if self.agents is not None:
            whose, args = f" AND +agent IN ({','.join('?' * len(self.agents)) or 'NULL'})", tuple(self.agents)
        assert self.kept is not None
        # The pluses keep the planner on the index of these few.
        sql = f"SELECT id FROM item WHERE bare>0 AND +coll=?{whose} ORDER BY +id"
        return [row[0] for row in self.execute(sql, (self.kept.own.coll, *args)).fetchall()]

    def records(self, numbers: Sequence[int]) -> dict[int, Stored]:
        """The records of what was found, by id."""
        assert self.kept is not None
        found: dict[int, Stored] = {}
        for first in range(0, len(numbers), LOT):
            lot = numbers[first : first + LOT]
            # One by one: without statistics PostgreSQL takes a list of ids for a reason to read the collection.
            sql = (
                f"SELECT q.id, {COLUMNS} FROM (SELECT v.column1 AS id, (SELECT i.pos FROM item i WHERE i.coll=? AND"
                f" i.id=v.column1) AS pos FROM (VALUES {','.join(['(?)'] * len(lot))}) v) q"
                " CROSS JOIN rec r ON r.pos=q.pos"
            )
            rows = self.execute(sql, (self.kept.own.coll, *lot)).fetchall()
            found |= {row[0]: self.corpus.stored(row[1:]) for row in rows}
        if len(found) < len(set(numbers)):
            raise Again
        return found


@contextlib.contextmanager
def looking(corpus: SqlCorpus, asked: Query, load: Load, fields: Sequence[str]) -> Iterator[Look]:
    """A look at a moment behind every write that was committed before the call.

    Args:
        corpus: where.
        asked: the question.
        load: gives a record's value.
        fields: fields that are needed beside those of the condition.
    """
    paths = {*fields, *(test.field for test in tests_in(asked.condition))}
    with contextlib.ExitStack() as stack:
        yield _open(stack, corpus, asked, load, paths)


def _open(stack: contextlib.ExitStack, corpus: SqlCorpus, asked: Query, load: Load, paths: set[str]) -> Look:
    last = corpus.last()
    writes = not getattr(corpus.engine, "read_only", False)
    while True:
        kept = read_kept(corpus.query, asked.collection)
        if kept and writes:
            Filler(corpus).until(last, asked.collection, paths)
            settle(corpus, next(iter(kept.values())), load)
        execute = stack.enter_context(corpus.moment())
        found, mark = _standing(corpus, execute, asked.collection)
        for each in found.values():
            done = each.whole and all(field.built == WHOLE for field in each.fields if field.path in paths)
            if done and mark is not None and mark.pos >= last:
                return IndexLook(corpus, execute, asked, load, each, _agents(corpus, execute, asked))
        if not found or not writes:
            return Look(corpus, execute, asked, load)
        stack.close()  # another process has emptied it, or declared a field, in between


def _standing(corpus: SqlCorpus, execute: Execute, collection: str) -> tuple[dict[int, Kept], Mark | None]:
    found = read_kept(lambda sql, args: execute(sql, args).fetchall(), collection)
    return found, read_mark(corpus.unfold(execute("SELECT v FROM meta WHERE k=?", (MARK,)).fetchone()))


def _agents(corpus: SqlCorpus, execute: Execute, asked: Query) -> list[int] | None:
    if not asked.agents or (not corpus.hub and set(corpus.agents()) <= set(asked.agents)):
        return None
    marks = ",".join("?" * len(asked.agents))
    return [row[0] for row in execute(f"SELECT id FROM name WHERE s IN ({marks})", asked.agents).fetchall()]


def settle(corpus: SqlCorpus, kept: Kept, load: Load) -> None:
    """Indexes what could not be when its record was met, but can be loaded here.

    Raises:
        HoldfastError: what `load` raises, but for `Erased` and `Sealed`: an answer without this value may be wrong.
    """
    after = 0
    while True:
        sql = (
            f"SELECT i.id, {COLUMNS} FROM item i CROSS JOIN rec r ON r.pos=i.pos WHERE i.bare>0 AND i.bare={AWAY}"
            " AND +i.coll=? AND +i.id>? ORDER BY +i.id LIMIT 20"
        )
        rows = corpus.query(sql, (kept.own.coll, after))
        if not rows:
            return
        after = rows[-1][0]
        drops = read_mark(corpus.meta(MARK))
        made: dict[int, tuple[int, list[tuple[int, bytes]], int]] = {}
        for number, *row in rows:
            value = read(stored := corpus.stored(tuple(row)), load)
            if not isinstance(value, dict):
                if value is not UNREADABLE:
                    made[number] = (stored.pos, [], NOTHING)
                continue
            entries = kept.entries(value)
            made[number] = (stored.pos, entries or [], LOOKED_AT if entries is None else HERE)

        def job(tx: SqlTransaction, made: Any = made, drops: Any = drops) -> None:
            now = read_mark(tx.meta(MARK))
            if now is not None and drops is not None and now.drops == drops.drops:
                # As the fields are now: made anew, an index has yet to learn of which an item has several entries.
                found = read_kept(lambda text, args: tx.sql(text, args).fetchall()).get(kept.own.coll)
                if found is not None:
                    add_entries(tx, kept.own.coll, made, found.fields)

        if made:
            corpus.write(job)


def read(stored: Stored, load: Load) -> Any:
    """The value of a record; `UNREADABLE` where there is none that anybody here could read.

    Raises:
        HoldfastError: what `load` raises, but for `Erased` and `Sealed`.
    """
    if stored.body is None and stored.why in (wire.REDACTED, wire.QUARANTINED):
        return UNREADABLE
    try:
        return load(stored)
    except (Erased, Sealed):
        return UNREADABLE


def matches_object(condition: Condition, value: Any) -> bool:
    """Whether a value is an object that meets a condition."""
    return isinstance(value, dict) and matches(condition, value)

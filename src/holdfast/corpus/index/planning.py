"""Says in SQL what a condition means to the index, and which way leads to its values soonest.

Where the index cannot tell everything (a text behind its first 200 bytes, a field that is not indexed), the SQL finds
more than is wanted and never less, and `exact` says so: then the values are looked at.

Tests of one item are scalar subqueries, which no planner turns into something else: each is a probe of an index.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from holdfast.corpus.index.fields import Field, Kept
from holdfast.corpus.index.question import OPAQUE, told_apart
from holdfast.query import ABSENT, SORTED_BYTES_MAX, AllOf, AnyOf, Condition, Not, Test, sort_key, words_of

Execute = Callable[..., Any]
FEW: Final = 1_500
"""So many candidates are taken and sorted before an order is walked along: some 5 ms, or 25 if no page is in memory."""
SPANS_MAX: Final = 64
TRIED_MAX: Final = 8
"""Tests whose candidates are counted, before one is chosen."""
_END: Final = b"\xff"


class Span(msgspec.Struct, frozen=True):
    """Entries of one field: all with the bytes `low`, or with `high` all from `low` on and below `high`."""

    field: int
    low: bytes
    high: bytes | None = None

    @property
    def test(self) -> tuple[str, tuple[Any, ...]]:
        """The test of an entry ``e``, and its values."""
        if self.high is None:
            return "e.field=? AND e.v=?", (self.field, self.low)
        return "e.field=? AND e.v>=? AND e.v<?", (self.field, self.low, self.high)


class Part(msgspec.Struct, frozen=True):
    """What a condition says of the item ``{i}``: a test (none: nothing is known), its values, whether that is all."""

    sql: str | None
    args: tuple[Any, ...] = ()
    exact: bool = True


ANY: Final = Part(None)
UNKNOWN: Final = Part(None, exact=False)
NEVER: Final = Part("1=0")


def said(condition: Condition, kept: Kept, no: bool = False, *, passed: Test | None = None) -> Part:
    """What a condition (with `no` its contrary) says of an item that has `passed` one of its tests already."""
    if isinstance(condition, Test):
        return ANY if condition is passed else _probe(condition, kept, no)
    if isinstance(condition, Not):
        return said(condition.no, kept, not no)
    each = condition.all if isinstance(condition, AllOf) else condition.any
    parts = [said(part, kept, no, passed=passed if isinstance(condition, AllOf) else None) for part in each]
    exact = all(part.exact for part in parts)
    args = tuple(arg for part in parts if part.sql for arg in part.args)
    if isinstance(condition, AllOf) is not no:
        known = [part.sql for part in parts if part.sql]
        return Part(" AND ".join(known) if known else None, args, exact)
    if not parts:
        return NEVER
    if any(part.sql is None for part in parts):
        return ANY if any(part.sql is None and part.exact for part in parts) else UNKNOWN
    return Part(f"({' OR '.join(f'({part.sql})' for part in parts)})", args, exact)


def _probe(test: Test, kept: Kept, no: bool) -> Part:
    if test.op == "in" and not test.value:
        return ANY if no else NEVER
    found = spans_of(test, kept)
    if found is None:
        return UNKNOWN
    each, exact, together = found
    if no and not exact:
        return UNKNOWN
    sql, args = [], []
    if len(each) > 1 and not together:
        marks = ",".join("?" * len(each))
        sql.append(f"(SELECT 1 FROM entry e WHERE e.item={{i}} AND e.field=? AND e.v IN ({marks}) LIMIT 1)")
        args += [each[0].field, *(span.low for span in each)]
    else:
        for span in each:
            text, values = span.test
            sql.append(f"(SELECT 1 FROM entry e WHERE e.item={{i}} AND {text} LIMIT 1)")
            args += values
    if no:
        return Part(f"({' OR '.join(f'{text} IS NULL' for text in sql)})", tuple(args))
    return Part(" AND ".join(f"{text} IS NOT NULL" for text in sql), tuple(args), exact)


def spans_of(test: Test, kept: Kept) -> tuple[list[Span], bool, bool] | None:
    """The entries that a test is about, whether they are exactly those that meet it, and whether all or one must be.

    None where the index knows nothing of it, and of an `in` without values.
    """
    op, value = test.op, test.value
    if op == "text":
        field = kept.find(test.field, words=True)
        words = dict.fromkeys(words_of(value))
        if field is None:
            return None
        spans = [Span(field.id, sort_key(word) or ABSENT) for word in words]
        return spans, len(spans) == 1 and all(map(told_apart, words)), True
    field = kept.find(test.field)
    if field is None or (op == "in" and not value):
        return None
    if op == "exists":
        return [Span(field.id, OPAQUE, _END) if value else Span(field.id, ABSENT)], True, False
    if op in ("eq", "in"):
        values = [value] if op == "eq" else value
        keys = dict.fromkeys(sort_key(each) or ABSENT for each in values)
        return [Span(field.id, key) for key in keys], all(map(told_apart, values)), False
    if op == "starts":
        return _beginning(field, value)
    key, exact = sort_key(value) or ABSENT, told_apart(value)
    kind, behind = key[:1], bytes([key[0] + 1])
    low, high = {
        "lt": (kind, key if exact else key + b"\0"),
        "le": (kind, key + b"\0"),
        "gt": (key + b"\0" if exact else key, behind),
        "ge": (key, behind),
    }[op]
    return [Span(field.id, low, high)], exact, False


def _beginning(field: Field, prefix: str) -> tuple[list[Span], bool, bool]:
    data = prefix.encode("utf-8", "surrogatepass")
    key = (sort_key("") or b"") + data[:SORTED_BYTES_MAX]
    if len(data) > SORTED_BYTES_MAX:
        return [Span(field.id, key)], False, False
    return [Span(field.id, key, key[:-1] + bytes([key[-1] + 1]))], True, False  # no byte of UTF-8 is the last


class Choice(msgspec.Struct, frozen=True):
    """Entries among which everything is that meets a condition: how many (counted up to a bound), and a name.

    `test` is the one that everything must pass and all of these do, where it is that of one.
    """

    count: int
    spans: tuple[Span, ...]
    name: str
    test: Test | None = None

    @property
    def point(self) -> Span | None:
        """The one value that they all have, if they do."""
        return self.spans[0] if len(self.spans) == 1 and self.spans[0].high is None else None

    @property
    def items(self) -> tuple[str, tuple[Any, ...]]:
        """The query for their items, each once, as ``item``; and its values."""
        each = [span.test for span in self.spans]
        args = tuple(arg for _, values in each for arg in values)
        if self.point:
            return f"SELECT e.item FROM entry e WHERE {each[0][0]}", args
        if len(each) == 1:
            return f"SELECT DISTINCT e.item FROM entry e WHERE {each[0][0]}", args
        return " UNION ".join(f"SELECT e.item FROM entry e WHERE {test}" for test, _ in each), args


class Chooser:
    """Counts candidates.

    Args:
        execute: runs a statement and gives a cursor.
        kept: what is indexed.
        most: as far as it counts.
    """

    def __init__(self, execute: Execute, kept: Kept, most: int = FEW) -> None:
        self._execute, self._kept, self._most = execute, kept, most
        self._tried = 0

    def best(self, condition: Condition) -> Choice | None:
        """The fewest entries that hold everything that meets a condition; None where the index does not know any."""
        if isinstance(condition, Test):
            return self._test(condition)
        if isinstance(condition, AllOf):
            best: Choice | None = None
            for part in condition.all:
                choice = self.best(part)
                if choice is not None and (best is None or choice.count < best.count):
                    best = choice
            return best
        if isinstance(condition, AnyOf):
            each = [self.best(part) for part in condition.any]
            found = [choice for choice in each if choice is not None]
            spans = tuple(span for choice in found for span in choice.spans)
            if not found or len(found) < len(each) or len(spans) > SPANS_MAX:
                return None
            return Choice(sum(each.count for each in found), spans, " or ".join({each.name: 0 for each in found}))
        return None

    def _test(self, test: Test) -> Choice | None:
        found = spans_of(test, self._kept)
        if found is None or len(found[0]) > SPANS_MAX or self._tried >= TRIED_MAX:
            return None
        self._tried += 1
        spans, _, together = found
        counts = [self.count(span) for span in spans]
        if together:  # all of the words: those with the rarest are enough
            least = min(range(len(spans)), key=counts.__getitem__)
            return Choice(counts[least], (spans[least],), test.field)
        return Choice(sum(counts), tuple(spans), test.field, test)

    def count(self, span: Span) -> int:
        """How many entries there are, counted up to one more than the bound."""
        test, args = span.test
        sql = f"SELECT count(*) FROM (SELECT 1 FROM entry e WHERE {test} LIMIT ?) c"
        return int(self._execute(sql, (*args, self._most + 1)).fetchone()[0])


def bounds(condition: Condition, field: Field, down: bool, kept: Kept) -> tuple[bytes, bytes]:
    """Between which bytes the entries lie by which a field orders what meets a condition: the first, and the end.

    Of several members the smallest orders upwards and the largest downwards: a test that one of them must pass says
    something of these from one side only.
    """
    low, high = b"", _END
    for part in _conjuncts(condition):
        found = (
            spans_of(part, kept) if isinstance(part, Test) and part.op != "text" and part.field == field.path else None
        )
        if not found or found[2]:
            continue
        first = min(span.low for span in found[0])
        last = max(span.high if span.high is not None else span.low + b"\0" for span in found[0])
        if down or not field.many:
            low = max(low, first)
        if not down or not field.many:
            high = min(high, last)
    return low, high


def _conjuncts(condition: Condition) -> Sequence[Condition]:
    if isinstance(condition, AllOf):
        return [part for each in condition.all for part in _conjuncts(each)]
    return [condition]

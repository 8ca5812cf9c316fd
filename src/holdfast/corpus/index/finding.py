"""Finds, counts and adds up the values of a collection that meet a condition."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

from holdfast import query
from holdfast.corpus.index import scanning
from holdfast.corpus.index.question import (
    FUNCS,
    Func,
    Group,
    Load,
    Page,
    Place,
    Query,
    checked,
    cursor_of,
    keys_in,
    keys_of,
    read_cursor,
    value_of,
)
from holdfast.corpus.sql import SqlCorpus
from holdfast.errors import UsageError


def find(corpus: SqlCorpus, asked: Query, load: Load) -> Page:
    """The values that are asked for, as of a moment behind every write that was committed before the call.

    Only JSON objects are found. A declared collection is answered from its index, which is first brought up to date;
    what the index cannot tell (fields that are not declared, `text` on fields without words, parts of texts behind
    their first 200 bytes) is told by looking at the candidates' values, and an undeclared collection by looking at
    all of them: some 5 µs for each.

    Args:
        corpus: where the collection is.
        asked: what is wanted.
        load: gives the value of a record. Values that it says nobody here can read (`Erased`, `Sealed`) are not found;
            whatever else it raises is raised, for an answer without them would be wrong.

    Raises:
        UsageError: a condition, an order, a limit or a cursor that means nothing, or the cursor of another query.
    """
    order, cursor = checked(asked), read_cursor(asked)
    start = None if cursor is None else Place(order, cursor.keys, cursor.id)
    placed = []
    for number, stored, value in scanning.candidates(corpus, asked, load):
        place = Place(order, keys_in(order, value), number)
        if start is None or start < place:
            placed.append((place, stored, value))
    first = heapq.nsmallest(asked.limit + 1, placed, key=lambda each: each[0])
    page = first[: asked.limit]
    more = len(first) > len(page)
    return Page(
        found=[each[1] for each in page],
        cursor=cursor_of(asked, page[-1][0].keys, page[-1][0].number) if more else None,
        values={each[1].pos: each[2] for each in page},
        way="scan",
    )


def count(corpus: SqlCorpus, asked: Query, load: Load) -> int:
    """How many values meet the condition; its order, limit and cursor do not matter."""
    query.checked(asked.condition)
    return sum(1 for _ in scanning.candidates(corpus, asked, load))


def aggregate(
    corpus: SqlCorpus,
    asked: Query,
    load: Load,
    *,
    group: str | None = None,
    of: Sequence[tuple[Func, str]] = (),
) -> list[Group]:
    """What the values that meet the condition add up to, in the order of their groups; without `group` one, of all.

    A value with several members in the field grouped by counts in the group of each. Of a field to be reckoned with,
    each different member of a value counts once: ``count`` counts members, ``distinct`` different ones among all;
    ``sum`` and ``avg`` are of numbers; ``min`` and ``max`` of what has an order. Numbers are those that the index
    keeps: whole ones up to 2⁵³ exactly.

    Args:
        corpus, asked, load: as for `find`; order, limit and cursor do not matter.
        group: a field.
        of: what is asked of which field; the field of ``count`` may be empty: then values are counted.

    Raises:
        UsageError: a function or a field that is none.
    """
    query.checked(asked.condition)
    check_functions(group, of)
    sums: dict[Any, list[Sum]] = {}
    if group is None:
        sums[None] = [Sum(func) for func, _ in of]
    for _, _, value in scanning.candidates(corpus, asked, load):
        for key in [None] if group is None else keys_of(value, group):
            each = sums.setdefault(key, [Sum(func) for func, _ in of])
            for total, (_, field) in zip(each, of, strict=True):
                total.add(keys_of(value, field) if field else [b""])
    return [
        Group(None if key is None else value_of(key), tuple(each.result() for each in found))
        for key, found in sorted(sums.items(), key=lambda each: each[0] or b"")
    ]


def check_functions(group: str | None, of: Sequence[tuple[Func, str]]) -> None:
    """Returns if these can be reckoned.

    Raises:
        UsageError: they cannot.
    """
    if group is not None:
        query.check_field(group)
    for func, field in of:
        if func not in FUNCS:
            raise UsageError(f"unknown function {func!r:.80}", hint=f"one of {', '.join(FUNCS)}")
        if field or func != "count":
            query.check_field(field)


class Sum:
    """One function over the members of a group.

    Args:
        func: which.
    """

    def __init__(self, func: Func) -> None:
        self._func = func
        self._seen: set[bytes] = set()
        self._count = 0
        self._total: int | float = 0

    def add(self, keys: Sequence[bytes], times: int = 1) -> None:
        """Takes the members of `times` values."""
        for key in keys:
            self._take(key, times)

    def _take(self, key: bytes, times: int) -> None:
        if key and key[:1] < b"\x10":
            return  # nothing is there, or nothing with an order
        if self._func in ("sum", "avg"):
            if key[:1] != b"\x20":
                return
            self._total += value_of(key) * times
        elif self._func != "count":
            self._seen.add(key)
        self._count += times

    def result(self) -> Any:
        """What it comes to; None where there was nothing to reckon with."""
        if self._func == "count":
            return self._count
        if self._func == "distinct":
            return len(self._seen)
        if not self._count:
            return None
        if self._func in ("sum", "avg"):
            return self._total if self._func == "sum" else self._total / self._count
        return value_of(min(self._seen) if self._func == "min" else max(self._seen))

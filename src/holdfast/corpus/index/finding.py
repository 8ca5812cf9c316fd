"""Finds, counts and adds up the values of a collection that meet a condition."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from holdfast import query
from holdfast.corpus.index.looking import Again, IndexLook, Look, looking
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
    keys_of,
    read_cursor,
    value_of,
)
from holdfast.corpus.sql import SqlCorpus
from holdfast.errors import IntegrityError, UsageError
from holdfast.query import ABSENT

T = TypeVar("T")

_TRIES: Final = 10
_LEAST: Final = b"\x10"
"""What stands before it in the order of keys is nothing, or nothing with an order."""


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

    def page(look: Look) -> Page:
        found = list(itertools.islice(look.ranked(order, start), asked.limit + 1))
        these = [each.number for each in found[: asked.limit]]
        records = look.records(these)
        last = found[len(these) - 1] if len(found) > len(these) else None
        return Page(
            found=[records[number] for number in these],
            cursor=None if last is None else cursor_of(asked, last.keys, last.number),
            values={records[number].pos: look.values[number] for number in these if number in look.values},
            way=look.way,
        )

    return _answered(corpus, asked, load, [each.field for each in order], page)


def count(corpus: SqlCorpus, asked: Query, load: Load) -> int:
    """How many values meet the condition, as of such a moment; order, limit and cursor do not matter."""
    query.checked(asked.condition)
    return _answered(corpus, asked, load, [], lambda look: look.count())


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
    ``sum`` and ``avg`` are of numbers; ``min`` and ``max`` of what has an order. Members are told apart as the index
    does it: texts by their first 200 bytes, whole numbers up to 2⁵³ exactly.

    Args:
        corpus, asked, load: as for `find`; order, limit and cursor do not matter.
        group: a field.
        of: what is asked of which field; the field of ``count`` may be empty: then values are counted.

    Raises:
        UsageError: a function or a field that is none.
    """
    query.checked(asked.condition)
    _check_functions(group, of)
    by = [] if group is None else [group]
    fields = list(dict.fromkeys(field for _, field in of))

    def reckoned(look: Look) -> list[Group]:
        sums: dict[bytes, list[Sum]] = {}

        def add(key: bytes, field: str | None, found: Sequence[bytes], times: int = 1) -> None:
            if key < _LEAST:
                key = ABSENT
            each = sums.setdefault(key, [Sum(func) for func, _ in of])
            for total, (_, name) in zip(each, of, strict=True):
                if name == field:
                    total.add(found, times)

        values = look.every()
        if group is None:
            add(ABSENT, None, ())
        if isinstance(look, IndexLook) and look.adds_up([*by, *filter(None, fields)]):
            values = look.looked()
            for field in [*fields, *([""] if group is not None and "" not in fields else [])]:
                for keys, times in look.sums([*by, *([field] if field else [])]):
                    add(keys[0] if by else ABSENT, field, [keys[-1] if field else b""], times)
        for value in values:
            for key in [ABSENT] if group is None else keys_of(value, group):
                add(key, None, ())
                for field in fields:
                    add(key, field, keys_of(value, field) if field else [b""])
        return [Group(value_of(key), tuple(each.result() for each in sums[key])) for key in sorted(sums)]

    return _answered(corpus, asked, load, [*by, *filter(None, fields)], reckoned)


def _answered(corpus: SqlCorpus, asked: Query, load: Load, fields: Sequence[str], answer: Callable[[Look], T]) -> T:
    for attempt in itertools.count(1):
        try:
            with looking(corpus, asked, load, fields) as look:
                return answer(look)
        except Again:
            if attempt >= _TRIES:
                raise IntegrityError(
                    f"the index of {asked.collection} names records that are not there", hint="holdfast verify"
                ) from None
    raise AssertionError


def _check_functions(group: str | None, of: Sequence[tuple[Func, str]]) -> None:
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
        if key and key < _LEAST:
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

"""What values add up to, where they are looked through; as the index says it where they are looked up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from holdfast.corpus.index.finding import Sum
from holdfast.corpus.index.question import Func, Group, keys_of, value_of


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """What a group of values adds up to.

    Attributes:
        by: what they have in common: a member of the field that groups them; None where it is absent.
        count: how many values there are.
        sum, avg: of the numbers in the field that is added up; None where there is none.
        min, max: of what has an order in it.
    """

    by: Any = None
    count: int = 0
    sum: float | None = None
    avg: float | None = None
    min: Any = None
    max: Any = None


_FUNCS: Final[tuple[Func, ...]] = ("sum", "avg", "min", "max")


def functions(of: str | None) -> list[tuple[Func, str]]:
    """What the index is asked for."""
    return [("count", ""), *((func, of) for func in _FUNCS if of is not None)]


def sums_of(group: Group) -> Sums:
    """A group as the index tells it."""
    return Sums(by=group.by, count=group.results[0], **dict(zip(_FUNCS, group.results[1:], strict=False)))


def add_up(values: Iterable[Any], by: str | None, of: str | None) -> list[Sums]:
    """The groups of some JSON values, in the order of what they have in common; see `holdfast.corpus.index.aggregate`.

    Args:
        values: as they are in this version of the schema.
        by: the field that groups them; None: one group.
        of: the field that is added up.
    """
    asked = functions(of)
    groups: dict[bytes | None, list[Sum]] = {} if by is not None else {None: [Sum(func) for func, _ in asked]}
    for value in values:
        for key in [None] if by is None else keys_of(value, by):
            totals = groups.setdefault(key, [Sum(func) for func, _ in asked])
            for total, (_, field) in zip(totals, asked, strict=True):
                total.add(keys_of(value, field) if field else [b""])
    ordered: Sequence[tuple[bytes | None, list[Sum]]] = sorted(groups.items(), key=lambda each: each[0] or b"")
    return [
        sums_of(Group(None if key is None else value_of(key), tuple(total.result() for total in totals)))
        for key, totals in ordered
    ]

"""Finding among values of several versions of a schema: an index holds what is stored, so an older value is looked at
as its migrations make it, and takes its place among the others.

Where there are no older values (the rule: they go with each write, or all at once by `Collection.migrate`) this costs
one question of the index.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from holdfast.collections.typed.asking import Row, Rows, read_cursor, write_cursor
from holdfast.collections.typed.backing import Asked, Finding
from holdfast.collections.typed.schema import ENDS, VERSION, Shape, ends_of
from holdfast.collections.typed.sums import Sums, add_up
from holdfast.corpus.index.question import Order, keys_in
from holdfast.errors import UsageError
from holdfast.query import EVERYTHING, AllOf, Condition, matches, where

PAGE: Final = 1000
_TOGETHER: Final = "~"
"""Begins the cursor of a page that was put together here."""
_Keys = tuple[bytes, ...]
_Older = tuple[_Keys, str, str]
"""Where an older value stands: its keys in the order asked for, its key, its agent."""


class Mixed:
    """What a collection asks its backing, with older and expired values as they count now.

    Args:
        shape: of the collection.
        backing: where the values lie.
    """

    def __init__(self, shape: Shape, backing: Finding) -> None:
        self._shape = shape
        self._backing = backing

    def find(self, asked: Asked) -> Rows:
        """A page. All pages of one question are as of the time of the first; what has ended since is left out."""
        now = self._backing.now_ms()
        began, after = now, asked.after
        if self._shape.schema.expires and after:
            began, after = read_cursor(after, tuple[int, str])
        asked = msgspec.structs.replace(asked, after=after)
        older = self._older_values(asked.agent, began)
        if older or after.startswith(_TOGETHER):
            found = self._together(asked, older, began)
        else:
            found = self._backing.find(self._alive(asked, began))
        if not self._shape.schema.expires:
            return found
        rows = [row for row in found.rows if ends_of(row.raw) > now]
        return Rows(rows, write_cursor(began, found.cursor) if found.cursor else "")

    def count(self, asked: Asked) -> int:
        """How many."""
        now = self._backing.now_ms()
        older = self._older_values(asked.agent, now)
        if not older:
            return self._backing.count(self._alive(asked, now))
        found = sum(matches(asked.condition, value) for _, value in older)
        return found + self._backing.count(self._alive(self._current(asked), now))

    def sums(self, asked: Asked, by: str | None, of: str | None) -> list[Sums]:
        """What they add up to."""
        now = self._backing.now_ms()
        older = self._older_values(asked.agent, now)
        if not older:
            return self._backing.sums(self._alive(asked, now), by, of)
        values = [value for _, value in older if matches(asked.condition, value)]
        newer = self._all(self._alive(self._current(asked), now))
        return add_up([*values, *(self._shape.current(row.raw) for row in newer)], by, of)

    def older(self, agent: str | None) -> Iterator[Row]:
        """Every value of an older version, as it is stored."""
        version = self._shape.schema.version
        if version > 1:
            old = (where(VERSION) < version) | (where(VERSION) == None)  # noqa: E711 - both are looked up
            yield from self._all(Asked(condition=old, agent=agent))

    def _all(self, asked: Asked) -> Iterator[Row]:
        asked = msgspec.structs.replace(asked, limit=PAGE, order=(), after="")
        while True:
            found = self._backing.find(asked)
            yield from found.rows
            if not found.cursor:
                return
            asked = msgspec.structs.replace(asked, after=found.cursor)

    def _older_values(self, agent: str | None, now: int) -> list[tuple[Row, Any]]:
        out = []
        for row in self.older(agent):
            if ends_of(row.raw) > now:
                try:
                    out.append((row, self._shape.current(row.raw)))
                except UsageError:
                    out.append((row, row.raw))  # it is shown as one that does not fit, if it is found at all
        return out

    def _current(self, asked: Asked) -> Asked:
        newer = where(VERSION) >= self._shape.schema.version
        return msgspec.structs.replace(asked, condition=_both(asked.condition, newer))

    def _alive(self, asked: Asked, now: int) -> Asked:
        if not self._shape.schema.expires:
            return asked
        return msgspec.structs.replace(asked, condition=_both(asked.condition, ~(where(ENDS) <= now)))

    def _together(self, asked: Asked, older: list[tuple[Row, Any]], now: int) -> Rows:
        """A page of both kinds. Of values that are equal in the order, the older ones stand first."""
        inner: str | None = ""
        behind: _Older | None = None
        if asked.after.startswith(_TOGETHER):
            inner, behind = read_cursor(asked.after[1:], tuple[str | None, _Older | None])
        elif asked.after:
            older, inner = [], asked.after  # there were none when the paging began: they are a later question's
        order = tuple(Order(name.removeprefix("-"), name.startswith("-")) for name in asked.order)
        cmp = functools.cmp_to_key(functools.partial(_compare, order))
        fits = [(row, value) for row, value in older if matches(asked.condition, value)]
        among = [((keys_in(order, value), row.key, row.agent), row) for row, value in fits]
        among = [each for each in among if behind is None or cmp(each[0]) > cmp(behind)]
        among.sort(key=lambda each: cmp(each[0]))
        newer = self._alive(self._current(asked), now)
        found = Rows([]) if inner is None else self._backing.find(msgspec.structs.replace(newer, after=inner))
        page: list[Row] = []
        taken = old = 0
        while len(page) < asked.limit and (taken < len(found.rows) or old < len(among)):
            if taken < len(found.rows):
                keys = keys_in(order, self._shape.current(found.rows[taken].raw))
                if old == len(among) or _compare_keys(order, among[old][0][0], keys) > 0:
                    page.append(found.rows[taken])
                    taken += 1
                    continue
            behind = among[old][0]
            page.append(among[old][1])
            old += 1
        if taken == len(found.rows) and not found.cursor:
            if old == len(among):
                return Rows(page)
            inner = None
        elif taken == len(found.rows):
            inner = found.cursor
        elif taken:
            inner = self._backing.find(msgspec.structs.replace(newer, after=inner or "", limit=taken)).cursor
        return Rows(page, _TOGETHER + write_cursor(inner, behind))


def _both(one: Condition, other: Condition) -> Condition:
    return other if one == EVERYTHING else AllOf(all=(one, other))


def _compare_keys(order: tuple[Order, ...], mine: _Keys, theirs: _Keys) -> int:
    for one, other, each in zip(mine, theirs, order, strict=True):
        if one != other:
            return -1 if (one < other) != each.down else 1
    return 0


def _compare(order: tuple[Order, ...], mine: _Older, theirs: _Older) -> int:
    return _compare_keys(order, mine[0], theirs[0]) or (mine[1:] > theirs[1:]) - (mine[1:] < theirs[1:])

"""The rows of an agent's tables: JSON objects under their ids, changed only if nobody was faster, found by conditions.

A table is the collection ``table/<name>``, as on the hub (docs/http.md, docs/sql.md): what is written here,
the hub's tables and its SQL show to everybody. `OwnRows` are the agent's own, decided on this machine inside its log's
transaction; `HubRows` are everybody's, and the hub decides each write.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from holdfast.errors import NotFound, UsageError
from holdfast.log.versions import Version
from holdfast.query import ABSENT, EVERYTHING, Condition, matches, members, sort_key

if TYPE_CHECKING:
    from holdfast.node.hub import Hub
    from holdfast.node.store import Store

PREFIX: Final = "table/"
PAGE: Final = 500
Order = str | tuple[str, ...]
LIMIT: Final = 1000
"""Rows that a find returns where nobody says how many."""


class Row(msgspec.Struct, frozen=True):
    """A row as it is now: its id, its fields, and the version to name as `expect` when it is changed."""

    id: str
    value: dict[str, Any]
    version: int


class Found(msgspec.Struct, frozen=True):
    """A page of rows; `cursor` is what the next page begins behind, None when there is no next one."""

    rows: list[Row]
    cursor: str | None


class Rows(Protocol):
    """One table. Safe to share among threads."""

    def get(self, id: str) -> Row | None:
        """The row, or None."""
        ...

    def put(self, id: str, value: dict[str, Any], expect: int | None = None) -> Row:
        """Sets a row, and returns it.

        Args:
            id: its key.
            value: all its fields.
            expect: the version that must be current; 0: there must be none; None: whatever is there.

        Raises:
            Conflict: somebody was faster.
            HubUnavailable: the hub decides, and it is away; nothing was written.
        """
        ...

    def delete(self, id: str, expect: int | None = None) -> bool:
        """Takes a row away; False if there is none.

        Raises:
            Conflict: somebody was faster.
        """
        ...

    def find(
        self, condition: Condition = EVERYTHING, *, order: Order = "id", limit: int = LIMIT, after: str | None = None
    ) -> Found:
        """The rows that meet a condition, in order.

        Args:
            condition: such as ``where("skills").has("Python")``.
            order: the field to sort by, or several; with a minus sign the greatest first. Equal rows: by id.
            limit: the most.
            after: the `cursor` of the page before.

        Raises:
            UsageError: `after` is no cursor.
        """
        ...

    def each(self, condition: Condition = EVERYTHING) -> Iterator[Row]:
        """Every row that meets a condition, by id; what is written meanwhile may be among them."""
        ...


class OwnRows:
    """A table of an agent's own, on this machine.

    Args:
        store: the agent's.
        table: its name.
    """

    def __init__(self, store: Store, table: str) -> None:
        self._store = store
        self._collection = PREFIX + table

    def get(self, id: str) -> Row | None:
        newest = self._store.history(id, collection=self._collection, limit=1)
        return _row(newest[0]) if newest else None

    def put(self, id: str, value: dict[str, Any], expect: int | None = None) -> Row:
        made = self._store.put(id, value, collection=self._collection, expect=expect)
        return Row(id, value, made.version)

    def delete(self, id: str, expect: int | None = None) -> bool:
        return _deleted(self._store, self._collection, id, expect)

    def find(
        self, condition: Condition = EVERYTHING, *, order: Order = "id", limit: int = LIMIT, after: str | None = None
    ) -> Found:
        return picked(self.each(condition), order, limit, after)

    def each(self, condition: Condition = EVERYTHING) -> Iterator[Row]:
        last = ""
        while names := self._store.keys(collection=self._collection, after=last, limit=PAGE):
            for last in names:
                row = self.get(last)
                if row is not None and matches(condition, row.value):
                    yield row


class HubRows:
    """A table that the hub decides about: one for all agents of all machines.

    Args:
        store: an agent's, opened with this table's collection among its ``cas``.
        table: its name.
        hub: the same hub.
    """

    def __init__(self, store: Store, table: str, hub: Callable[[], Hub]) -> None:
        self._store = store
        self._table = table
        self._collection = PREFIX + table
        self._hub = hub

    def get(self, id: str) -> Row | None:
        newest = self._store.history(id, collection=self._collection, limit=1)
        return _row(newest[0]) if newest else None

    def put(self, id: str, value: dict[str, Any], expect: int | None = None) -> Row:
        made = self._store.put(id, value, collection=self._collection, expect=expect)
        return Row(id, value, made.version)

    def delete(self, id: str, expect: int | None = None) -> bool:
        return _deleted(self._store, self._collection, id, expect)

    def find(
        self, condition: Condition = EVERYTHING, *, order: Order = "id", limit: int = LIMIT, after: str | None = None
    ) -> Found:
        page = picked(self._shown(condition), order, limit, after)
        return Found(list(self._fresh(page.rows, condition)), page.cursor)

    def each(self, condition: Condition = EVERYTHING) -> Iterator[Row]:
        return self._fresh(self._shown(condition), condition)

    def _shown(self, condition: Condition) -> Iterator[Row]:
        """The rows as the hub lists them: without their versions."""
        rows = self._hub().tables.find(self._table, agent="hub", limit=1 << 30)
        return (Row(str(row["id"]), row, 0) for row in rows if matches(condition, row))

    def _fresh(self, shown: Iterable[Row], condition: Condition) -> Iterator[Row]:
        for each in shown:
            row = self.get(each.id)
            if row is not None and matches(condition, row.value):
                yield row


def picked(rows: Iterator[Row], order: Order, limit: int, after: str | None) -> Found:
    """A page of rows that were found in no order."""
    fields = (order,) if isinstance(order, str) else order

    def part(row: Row, field: str) -> bytes:
        down, name = field.startswith("-"), field.removeprefix("-")
        keys = [key for each in members(row.value, name) if (key := sort_key(each)) is not None]
        at = (max(keys) if down else min(keys)) if keys else ABSENT
        return bytes(255 - byte for byte in at) + b"\xff" if down else at

    placed = sorted((((*(part(row, field) for field in fields), row.id.encode()), row) for row in rows), key=_first)
    if after is not None:
        behind = _read_cursor(after)
        placed = [each for each in placed if each[0] > behind]
    page = placed[:limit]
    return Found([row for _, row in page], _cursor(page[-1][0]) if len(placed) > limit and page else None)


def _first(each: tuple[tuple[bytes, ...], Row]) -> tuple[bytes, ...]:
    return each[0]


def _cursor(place: tuple[bytes, ...]) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(place)).decode()


def _read_cursor(text: str) -> tuple[bytes, ...]:
    try:
        return msgspec.msgpack.decode(base64.urlsafe_b64decode(text), type=tuple[bytes, ...])
    except (binascii.Error, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"no cursor: {text!r:.80}", hint="give the one that came with the page before") from error


def _row(version: Version) -> Row | None:
    if version.gone or not isinstance(version.value, dict):
        return None
    return Row(version.key, version.value, version.version)


def _deleted(store: Store, collection: str, id: str, expect: int | None) -> bool:
    try:
        store.delete(id, collection=collection, expect=expect)
    except NotFound:
        return False
    return True

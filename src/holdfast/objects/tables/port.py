"""The port of all table stores: entities by two keys, as Azure Table Storage has them. Its laws, once.

1. **Whole.** An entity is written as one, or not at all; what a call returned is what every client then finds.
2. **One winner.** `insert` lets one writer through of any number; `update` and `delete` with an etag let through only
   whoever knows the entity as it is. A loser gets `ObjectConflict` and changes nothing.
3. **Values** come back as the type they were: text, bool, int (64 bits), float (NaN and the infinities too), bytes,
   datetime (in UTC, microseconds) and UUID. What is none of these is refused; None too: leave the property out.
4. **Keys** are text, at most 1 KiB; ``/ \\ # ?`` may be in them. Control characters may not.
5. **Order.** A query gives entities by PartitionKey, then RowKey, each by its UTF-16 units.
6. **Filters** are Azure's: see `filters`. A comparison with a property that an entity has not, or has as another kind,
   is false, ``ne`` too; an int and a float are two kinds.
7. **A transaction** is up to 100 operations on different rows of one partition: all are done, or none.
8. **Limits** are Azure's on every store: 64 KiB a property, 1 MiB an entity, 252 properties, 4 MiB a transaction.
9. **Names** of tables differ in more than capital letters; the store maps what Azure does not take, one to one.
10. **Any thread** may use a store at any time; so may a forked child, with connections of its own.

`holdfast.testing.tables` has these laws as tests.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Literal, TypeAlias

import msgspec

from holdfast.errors import ObjectConflict, ObjectNotFound, StorageRefused
from holdfast.objects.place import Place
from holdfast.objects.tables.keys import check_key
from holdfast.objects.tables.limits import (
    TRANSACTION_BYTES_MAX,
    TRANSACTION_MAX,
    Value,
    body_of,
    check_entity,
)

Mode: TypeAlias = Literal["merge", "replace"]
PAGE: int = 1000
"""The most entities in a page: Azure's limit."""


class Entity(dict[str, Value]):
    """An entity's properties, ``PartitionKey`` and ``RowKey`` among them.

    Args:
        properties: by name.
        etag: of this state of the entity.
        timestamp: when it was written, by the store's clock, in UTC.
    """

    def __init__(self, properties: Mapping[str, Value], etag: str, timestamp: datetime | None) -> None:
        super().__init__(properties)
        self.etag = etag
        self.timestamp = timestamp


class Page(msgspec.Struct, frozen=True):
    """A part of a query's answer; `next` is where the following part begins, None after the last."""

    entities: list[Entity]
    next: str | None


class Insert(msgspec.Struct, frozen=True):
    """In a transaction: makes an entity that must not be there."""

    entity: Mapping[str, object]


class Upsert(msgspec.Struct, frozen=True):
    """In a transaction: makes an entity, or changes the one that is there."""

    entity: Mapping[str, object]
    mode: Mode = "merge"


class Update(msgspec.Struct, frozen=True):
    """In a transaction: changes an entity that must be there, as `etag` knows it if that is given."""

    entity: Mapping[str, object]
    mode: Mode = "merge"
    etag: str | None = None


class Delete(msgspec.Struct, frozen=True):
    """In a transaction: removes an entity that must be there, as `etag` knows it if that is given."""

    partition_key: str
    row_key: str
    etag: str | None = None


Operation: TypeAlias = Insert | Upsert | Update | Delete


class TableStore(Place):
    """Tables of entities in one place. The laws are at the head of this module."""

    _closed = False

    @abstractmethod
    def create_table(self, table: str) -> bool:
        """Makes a table; False if there was one of this name.

        Raises:
            StorageRefused: not a table's name.
            StorageUnavailable: no answer.
        """

    @abstractmethod
    def delete_table(self, table: str) -> bool:
        """Removes a table with all that is in it; False if there was none."""

    @abstractmethod
    def list_tables(self) -> list[str]:
        """The names of all tables, in order."""

    @abstractmethod
    def insert(self, table: str, entity: Mapping[str, object]) -> str:
        """Makes an entity; returns its etag.

        Args:
            table: its name.
            entity: properties by name, with ``PartitionKey`` and ``RowKey``.

        Raises:
            ObjectConflict: there is one with these keys; nothing was written.
            ObjectNotFound: there is no such table.
            StorageRefused: a key, a name, a value or a size that cannot be.
            StorageUnavailable: no answer; it may be there or not.
        """

    @abstractmethod
    def get(self, table: str, partition_key: str, row_key: str, *, select: Sequence[str] | None = None) -> Entity:
        """An entity.

        Args:
            table: its name.
            partition_key: the entity's.
            row_key: the entity's.
            select: the properties wanted, beside the keys; None: all.

        Raises:
            ObjectNotFound: there is none, or no such table.
            StorageUnavailable: no answer.
        """

    @abstractmethod
    def upsert(self, table: str, entity: Mapping[str, object], *, mode: Mode = "merge") -> str:
        """Makes an entity, or changes the one that is there; returns its etag.

        Args:
            table: its name.
            entity: properties by name, with the keys.
            mode: ``merge`` keeps what the entity has beside these properties, ``replace`` does not.

        Raises:
            ObjectNotFound: there is no such table.
            StorageRefused: as `insert`.
            StorageUnavailable: no answer; the entity is the old one or the new one.
        """

    @abstractmethod
    def update(self, table: str, entity: Mapping[str, object], *, mode: Mode = "merge", etag: str | None = None) -> str:
        """Changes an entity that is there; returns its new etag.

        Args:
            table: its name.
            entity: properties by name, with the keys.
            mode: ``merge`` keeps what the entity has beside these properties, ``replace`` does not.
            etag: the one that must be current; None: whatever is there.

        Raises:
            ObjectConflict: another etag is current, or the entity is gone; nothing was written.
            ObjectNotFound: there is no such entity, and no etag was given; or no such table.
            StorageRefused: as `insert`.
            StorageUnavailable: no answer; the entity is the old one or the new one.
        """

    @abstractmethod
    def delete(self, table: str, partition_key: str, row_key: str, *, etag: str | None = None) -> bool:
        """Removes an entity; False if there was none, or no such table.

        Args:
            table: its name.
            partition_key: the entity's.
            row_key: the entity's.
            etag: the one that must be current; None: whatever is there.

        Raises:
            ObjectConflict: another etag is current, or the entity is gone; nothing was removed.
            StorageUnavailable: no answer; it may be gone or not.
        """

    @abstractmethod
    def page(
        self,
        table: str,
        filter: str = "",
        *,
        select: Sequence[str] | None = None,
        size: int = PAGE,
        after: str | None = None,
    ) -> Page:
        """A part of what a query finds. It may hold fewer than `size`, even none, and yet not be the last.

        Args:
            table: its name.
            filter: which entities, in OData; empty: all.
            select: the properties wanted, beside the keys; None: all.
            size: the most entities, up to 1,000.
            after: the `next` of the page before.

        Raises:
            ObjectNotFound: there is no such table.
            StorageRefused: not a filter, a size or a `next`.
            StorageUnavailable: no answer.
        """

    @abstractmethod
    def transact(self, table: str, operations: Sequence[Operation]) -> list[str]:
        """Does up to 100 operations on one partition, or none of them; the new etags, empty for deletions.

        Args:
            table: its name.
            operations: `Insert`, `Upsert`, `Update` and `Delete`, of different rows of one partition.

        Raises:
            ObjectConflict: what one of them expects is not so; `context["index"]` says which, where it is known.
            ObjectNotFound: there is no such entity, or no such table.
            StorageRefused: too many, of several partitions, the same row twice, or as `insert`.
            StorageUnavailable: no answer; all are done or none.
        """

    def query(
        self, table: str, filter: str = "", *, select: Sequence[str] | None = None, limit: int | None = None
    ) -> Iterator[Entity]:
        """The entities that a filter finds, in order of their keys; fetched page by page while iterating.

        Args:
            table: its name.
            filter: which entities, in OData; empty: all.
            select: the properties wanted, beside the keys; None: all.
            limit: at most so many; None: all.

        Raises:
            ObjectNotFound: there is no such table.
            StorageRefused: not a filter.
            StorageUnavailable: no answer.
        """
        left = limit
        after: str | None = None
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            found = self.page(table, filter, select=select, size=size, after=after)
            yield from found.entities
            after = found.next
            if after is None:
                return
            left = None if left is None else left - len(found.entities)

    def _look(self) -> str | None:
        self.list_tables()
        return None


def check_mode(mode: str) -> None:
    """Whether it is a way to write over an entity.

    Raises:
        StorageRefused: it is none.
    """
    if mode not in ("merge", "replace"):
        raise StorageRefused(f"not a mode: {mode!r:.80}", hint="merge or replace")


def check_page_size(size: int) -> None:
    """Whether a page may have so many entities.

    Raises:
        StorageRefused: it may not.
    """
    if not 1 <= size <= PAGE:
        raise StorageRefused(f"a page has 1 to {PAGE} entities, not {size!r:.40}")


def check_select(select: Sequence[str] | None) -> list[str] | None:
    """The properties to return, the keys among them; None: all.

    Raises:
        StorageRefused: a text in place of several.
    """
    if select is None:
        return None
    if isinstance(select, str):
        raise StorageRefused(f"select takes several names: {select!r:.80}", hint="such as ['name', 'size']")
    return ["PartitionKey", "RowKey", *(name for name in select if name not in ("PartitionKey", "RowKey"))]


def check_operations(operations: Sequence[Operation]) -> list[tuple[Operation, dict[str, Value]]]:
    """The operations with their entities as they are stored; of a deletion, its keys.

    Raises:
        StorageRefused: too many of them, of several partitions, a row twice, or an entity that cannot be.
    """
    if len(operations) > TRANSACTION_MAX:
        raise StorageRefused(
            f"{len(operations)} operations in a transaction, {TRANSACTION_MAX} are allowed", hint="make several of it"
        )
    checked: list[tuple[Operation, dict[str, Value]]] = []
    rows: set[str] = set()
    total = 0
    for operation in operations:
        if isinstance(operation, Delete):
            keys = {"PartitionKey": operation.partition_key, "RowKey": operation.row_key}
            entity: dict[str, Value] = {name: check_key(key, name) for name, key in keys.items()}
        elif isinstance(operation, Insert | Upsert | Update):
            entity = check_entity(operation.entity)
            if not isinstance(operation, Insert):
                check_mode(operation.mode)
        else:
            raise StorageRefused(f"not an operation: {operation!r:.80}", hint="Insert, Upsert, Update or Delete")
        checked.append((operation, entity))
        if entity["PartitionKey"] != checked[0][1]["PartitionKey"]:
            raise StorageRefused(
                f"a transaction is of one partition: {checked[0][1]['PartitionKey']!r:.80}, "
                f"not {entity['PartitionKey']!r:.80} too"
            )
        row = str(entity["RowKey"])
        if row in rows:
            raise StorageRefused(f"the row {row!r:.120} is in the transaction twice")
        rows.add(row)
        total += body_of(entity)
    if total > TRANSACTION_BYTES_MAX:
        raise StorageRefused(
            f"some {total} bytes in a transaction, {TRANSACTION_BYTES_MAX} are allowed (4 MiB)",
            hint="make several of it",
        )
    return checked


def no_table(store: TableStore, table: str) -> ObjectNotFound:
    """The error of a table that is not there."""
    return ObjectNotFound(f"no table {table!r:.80} in {store.name}", hint="create_table makes it", table=table)


def no_entity(store: TableStore, table: str, partition_key: object, row_key: object) -> ObjectNotFound:
    """The error of keys without an entity."""
    return ObjectNotFound(
        f"no entity {partition_key!r:.120}, {row_key!r:.120} in the table {table!r:.80} of {store.name}",
        key=f"{partition_key}/{row_key}",
    )


def conflict(table: str, partition_key: object, row_key: object, *, there: bool) -> ObjectConflict:
    """The error of whoever was not the first (`there`), or came too late."""
    what = f"entity {partition_key!r:.120}, {row_key!r:.120} in the table {table!r:.80}"
    if there:
        return ObjectConflict(f"there is an {what}", hint="read it and decide")
    return ObjectConflict(f"the {what} was changed or is gone", hint="read it again and decide")

"""`Collection`, awaited: the same names and parameters, nothing that blocks the loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from holdfast.collections.typed import Collection, Item, Page, Schema, Sums
from holdfast.collections.typed.collection import LIST_MAX, MISSING
from holdfast.log.versions import Version
from holdfast.node.looking import When
from holdfast.query import EVERYTHING, Condition

if TYPE_CHECKING:
    from holdfast.node.aio import AsyncStore
    from holdfast.node.batch import Batch
    from holdfast.node.typed import BatchCollection, StoreCollection

T = TypeVar("T")


class AsyncCollection(Generic[T]):
    """The values of one name that one schema describes, for asyncio; see `Collection`. Each call runs in a thread.

    Args:
        collection: the same, not awaited.
    """

    def __init__(self, collection: Collection[T]) -> None:
        self._collection = collection
        self.name = collection.name
        self.schema: Schema[T] = collection.schema

    async def put(
        self,
        key: str,
        value: T | Mapping[str, Any],
        *,
        expect: int | str | None = None,
        durable: bool = False,
        ttl_s: float | None = None,
    ) -> Version:
        """See `Collection.put`."""
        call = self._collection.put
        return await asyncio.to_thread(call, key, value, expect=expect, durable=durable, ttl_s=ttl_s)

    async def add(self, value: T | Mapping[str, Any], *, durable: bool = False, ttl_s: float | None = None) -> str:
        """See `Collection.add`."""
        return await asyncio.to_thread(self._collection.add, value, durable=durable, ttl_s=ttl_s)

    async def update(
        self,
        key: str,
        change: Callable[[T], T | None] | Mapping[str, Any],
        *,
        default: T = MISSING,
        durable: bool = False,
        ttl_s: float | None = None,
    ) -> Version:
        """See `Collection.update`; a function is called in a thread."""
        call = self._collection.update
        return await asyncio.to_thread(call, key, change, default=default, durable=durable, ttl_s=ttl_s)

    async def delete(self, key: str, *, reason: str = "", expect: int | str | None = None) -> Version:
        """See `Collection.delete`."""
        return await asyncio.to_thread(self._collection.delete, key, reason=reason, expect=expect)

    async def migrate(self) -> int:
        """See `Collection.migrate`."""
        return await asyncio.to_thread(self._collection.migrate)

    async def sweep(self, most: int = LIST_MAX) -> int:
        """See `Collection.sweep`."""
        return await asyncio.to_thread(self._collection.sweep, most)

    async def get(self, key: str, *, default: Any = MISSING, at: When | None = None, agent: str | None = None) -> T:
        """See `Collection.get`."""
        return await asyncio.to_thread(self._collection.get, key, default=default, at=at, agent=agent)

    async def item(self, key: str, *, agent: str | None = None) -> Item[T]:
        """See `Collection.item`."""
        return await asyncio.to_thread(self._collection.item, key, agent=agent)

    async def history(self, key: str, *, limit: int = LIST_MAX, agent: str | None = None) -> list[Version]:
        """See `Collection.history`."""
        return await asyncio.to_thread(self._collection.history, key, limit=limit, agent=agent)

    async def find(
        self,
        condition: Condition = EVERYTHING,
        *,
        order: str | Sequence[str] = (),
        limit: int = 100,
        after: str = "",
        agent: str | None = None,
        **equals: Any,
    ) -> Page[T]:
        """See `Collection.find`."""
        more = {"limit": limit, "after": after, "agent": agent, **equals}
        return await asyncio.to_thread(lambda: self._collection.find(condition, order=order, **more))

    async def items(
        self,
        condition: Condition = EVERYTHING,
        *,
        order: str | Sequence[str] = (),
        agent: str | None = None,
        **equals: Any,
    ) -> AsyncIterator[tuple[str, T]]:
        """See `Collection.items`."""
        after = ""
        while True:
            page = await self.find(condition, order=order, limit=LIST_MAX, after=after, agent=agent, **equals)
            for each in page:
                yield each
            after = page.cursor
            if not after:
                return

    async def first(
        self,
        condition: Condition = EVERYTHING,
        *,
        order: str | Sequence[str] = (),
        agent: str | None = None,
        **equals: Any,
    ) -> tuple[str, T] | None:
        """See `Collection.first`."""
        return await asyncio.to_thread(lambda: self._collection.first(condition, order=order, agent=agent, **equals))

    async def count(self, condition: Condition = EVERYTHING, *, agent: str | None = None, **equals: Any) -> int:
        """See `Collection.count`."""
        return await asyncio.to_thread(lambda: self._collection.count(condition, agent=agent, **equals))

    async def aggregate(
        self,
        of: str | None = None,
        *,
        by: str | None = None,
        condition: Condition = EVERYTHING,
        agent: str | None = None,
        **equals: Any,
    ) -> list[Sums]:
        """See `Collection.aggregate`."""
        more = {"agent": agent, **equals}
        return await asyncio.to_thread(lambda: self._collection.aggregate(of, by=by, condition=condition, **more))

    async def search(self, words: str, *, limit: int = 50, agent: str | None = None) -> list[tuple[str, T]]:
        """See `Collection.search`."""
        return await asyncio.to_thread(self._collection.search, words, limit=limit, agent=agent)


class AsyncStoreCollection(AsyncCollection[T]):
    """A collection in an agent's own log, for asyncio; see `StoreCollection`. What needs no more than the log goes the
    way of `AsyncStore`: writes through the log's writer thread, single reads in place.

    Args:
        collection: the same, not awaited.
        store: the agent's.
    """

    _collection: StoreCollection[T]

    def __init__(self, collection: StoreCollection[T], store: AsyncStore) -> None:
        super().__init__(collection)
        self._store = store

    async def put(
        self,
        key: str,
        value: T | Mapping[str, Any],
        *,
        expect: int | str | None = None,
        durable: bool = False,
        ttl_s: float | None = None,
    ) -> Version:
        """See `Collection.put`."""
        collection = self._collection
        if not (collection._in_log and collection._at_once(expect)) or collection._is_due():
            return await super().put(key, value, expect=expect, durable=durable, ttl_s=ttl_s)
        raw = collection._shape.write(value, collection._ends(ttl_s))
        made = await self._store.put(key, raw, collection=self.name, expect=expect, durable=durable)
        return msgspec.structs.replace(made, value=value)

    async def get(self, key: str, *, default: Any = MISSING, at: When | None = None, agent: str | None = None) -> T:
        """See `Collection.get`."""
        collection = self._collection
        if at is None and agent is None and collection._in_log:
            stored = self._store._store._log.newest(self.name, key)
            if stored is None or (stored.body is not None and not stored.is_blob):
                return collection.get(key, default=default)
        return await super().get(key, default=default, at=at, agent=agent)

    def everybody(self) -> AsyncCollection[T]:
        """See `StoreCollection.everybody`; nothing is asked before its first call."""
        return AsyncCollection(self._collection.everybody())

    def into(self, batch: Batch) -> BatchCollection[T]:
        """See `StoreCollection.into`; collecting needs no await, the end of the batch does."""
        return self._collection.into(batch)

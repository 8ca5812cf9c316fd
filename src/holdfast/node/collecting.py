"""`collection`, the one method that stores have for typed values; the work is in `holdfast.node.typed`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from holdfast.collections.typed import Collection, Schema
    from holdfast.node.hub import Hub
    from holdfast.node.store import Store
    from holdfast.node.typed import StoreCollection
    from holdfast.node.typed_aio import AsyncCollection, AsyncStoreCollection

T = TypeVar("T")


class Collecting:
    """What a `Store` is besides: the place of its collections."""

    def collection(
        self, name: str, what: type[T] | Schema[T] | None = None, *, index: Sequence[str] = ()
    ) -> StoreCollection[T]:
        """Typed values under a name: checked when written, found by what stands in them (docs/collections.md).

        Args:
            name: the collection's.
            what: a msgspec Struct, a dataclass, or a `Schema`, which says more; None: any JSON objects.
            index: fields that `find` looks up instead of reading every value.

        Raises:
            UsageError: a name of Holdfast's own, a type that JSON cannot say, an index on a field that it has not.
        """
        from holdfast.node.typed import collection_of

        store: Any = self
        return collection_of(store, name, what, index)


class AsyncCollecting:
    """What an `AsyncStore` is besides."""

    _store: Store

    def collection(
        self, name: str, what: type[T] | Schema[T] | None = None, *, index: Sequence[str] = ()
    ) -> AsyncStoreCollection[T]:
        """Typed values under a name; see `Store.collection`. It is opened in place: some milliseconds, once."""
        from holdfast.node.typed_aio import AsyncStoreCollection

        store: Any = self
        return AsyncStoreCollection(self._store.collection(name, what, index=index), store)


class HubCollecting:
    """What a `Hub` is besides."""

    def collection(
        self,
        name: str,
        what: type[T] | Schema[T] | None = None,
        *,
        index: Sequence[str] = (),
        agent: str | None = None,
    ) -> Collection[T]:
        """Typed values under a name, as everybody wrote them, or one agent; nothing is asked before its first call.

        Args:
            name, what, index: see `Store.collection`; they are declared with the first value that is written.
            agent: whose values, and in whose name they are written; None: everybody's, to be read.
        """
        from holdfast.node.typed_hub import hub_collection_of

        hub: Any = self
        return hub_collection_of(hub, name, what, index, agent)


class AsyncHubCollecting:
    """What an `AsyncHub` is besides."""

    _hub: Hub

    def collection(
        self,
        name: str,
        what: type[T] | Schema[T] | None = None,
        *,
        index: Sequence[str] = (),
        agent: str | None = None,
    ) -> AsyncCollection[T]:
        """Typed values under a name; see `Hub.collection`."""
        from holdfast.node.typed_aio import AsyncCollection

        return AsyncCollection(self._hub.collection(name, what, index=index, agent=agent))

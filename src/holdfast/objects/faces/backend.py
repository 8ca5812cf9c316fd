"""What a user may put under `StorageManager`: a class of his own with five coroutines, or any object store.

A backend of yours keeps bytes by name and nothing else: what the bytes mean is the manager's business. Those that we
bring stand over an `ObjectStore`; the manager then talks to the store, and has its etags and conditions.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self, TypeGuard

from holdfast.errors import StorageError
from holdfast.objects.aio import AsyncObjectStore
from holdfast.objects.port import TYPE, Health, ObjectStore
from holdfast.objects.raw import Bytes

__all__ = ["StorageBackend", "StorageError", "StoreBackend"]


class StorageBackend(ABC):
    """Bytes by name, for asyncio: subclass it with these five, and hand it to `StorageManager`.

    A missing key may be told by any `KeyError`; every other exception reaches the manager's user as a `StorageError`
    with yours as its cause. The manager calls with keys that it has checked (`objects.keys`), and with `bytes`.
    """

    keeps_types = False
    """Whether `load_typed` is yours too; if not, the manager marks those bytes whose type cannot be told by looking."""

    @abstractmethod
    async def save(self, key: str, data: Bytes, content_type: str = TYPE) -> object:
        """Keeps the bytes under the key, in place of what was there; what it returns is not looked at."""

    @abstractmethod
    async def load(self, key: str) -> bytes:
        """The bytes under the key; a `KeyError` if there are none."""

    @abstractmethod
    async def list_keys(self, prefix: str = "") -> list[str]:
        """The keys that begin with `prefix`, in any order."""

    @abstractmethod
    async def delete(self, key: str) -> object:
        """Removes what is under the key; False or a `KeyError` if there was nothing."""

    @abstractmethod
    async def exists(self, key: str) -> bool:
        """Whether there is something under the key."""

    async def load_typed(self, key: str) -> tuple[bytes, str]:
        """The bytes under the key and their content type; asked for only where `keeps_types`."""
        return await self.load(key), TYPE

    async def close(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Lets go of what the backend holds; more than once is no error."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


_FIVE = ("save", "load", "load_typed", "list_keys", "delete", "exists")


class StoreBackend(StorageBackend):
    """The five calls over an object store, such as our backends for files, Azure and S3 are.

    Args:
        store: closed with this one.
        threads: the most calls under way at once.
    """

    keeps_types = True
    _found: AsyncObjectStore | None = None

    def __init__(self, store: ObjectStore, *, threads: int = 32) -> None:
        self.objects = AsyncObjectStore(store, threads=threads)

    async def _at(self) -> AsyncObjectStore:
        # Of some subclasses `objects` is opened when it is first asked for, which is no business of the loop's.
        if self._found is None:
            self._found = await asyncio.get_running_loop().run_in_executor(None, lambda: self.objects)
        return self._found

    @property
    def store(self) -> ObjectStore:
        """The store itself."""
        return self.objects.store

    async def save(self, key: str, data: Bytes, content_type: str = TYPE) -> None:
        """Stores the bytes in place of what was there; when it returns, they are there.

        Raises:
            StorageError: as `ObjectStore.put` says.
        """
        await (await self._at()).put(key, data, content_type=content_type)

    async def load(self, key: str) -> bytes:
        """The bytes of an object.

        Raises:
            ObjectNotFound: there is none; it is a `KeyError` too.
            StorageError: as `ObjectStore.get` says.
        """
        return await (await self._at()).read(key)

    async def load_typed(self, key: str) -> tuple[bytes, str]:
        """The bytes of an object and its content type, of the same write."""
        content = await (await self._at()).content(key)
        return content[1], content[0].content_type

    async def list_keys(self, prefix: str = "") -> list[str]:
        """The keys that begin with `prefix`, in order."""
        return [info.key async for info in (await self._at()).list(prefix)]

    async def delete(self, key: str) -> bool:
        """Removes an object; False if there was none."""
        return await (await self._at()).delete(key)

    async def exists(self, key: str) -> bool:
        """Whether there is an object under this key."""
        return await (await self._at()).exists(key)

    async def health(self) -> Health:
        """Whether the store answers now."""
        return await (await self._at()).health()

    async def close(self) -> None:
        """Lets go of the store."""
        await self.objects.close()


def stands_on_store(backend: StorageBackend) -> TypeGuard[StoreBackend]:
    """Whether its store may be called in its place: not where a subclass does one of the calls itself.

    The store is not touched: some are only opened when they are.
    """
    return isinstance(backend, StoreBackend) and not any(
        getattr(type(backend), name) is not getattr(StoreBackend, name) for name in _FIVE
    )

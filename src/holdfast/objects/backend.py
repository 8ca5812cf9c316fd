"""What a user may put under `StorageManager`: a class of his own with five coroutines, or any object store.

A backend of yours keeps bytes by name and nothing else: what the bytes mean is the manager's business. Those that we
bring stand over an `ObjectStore`; the manager then talks to the store, and has its etags and conditions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

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
    """Whether `load_typed` is yours too: without it the manager marks those bytes whose type cannot be told by looking."""

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

    def __init__(self, store: ObjectStore, *, threads: int = 32) -> None:
        self.objects = AsyncObjectStore(store, threads=threads)

    @property
    def store(self) -> ObjectStore:
        """The store itself."""
        return self.objects.store

    async def save(self, key: str, data: Bytes, content_type: str = TYPE) -> None:
        """Stores the bytes in place of what was there; when it returns, they are there.

        Raises:
            StorageError: as `ObjectStore.put` says.
        """
        await self.objects.put(key, data, content_type=content_type)

    async def load(self, key: str) -> bytes:
        """The bytes of an object.

        Raises:
            ObjectNotFound: there is none; it is a `KeyError` too.
            StorageError: as `ObjectStore.get` says.
        """
        return await self.objects.read(key)

    async def load_typed(self, key: str) -> tuple[bytes, str]:
        """The bytes of an object and its content type, of the same write."""
        content = await self.objects.content(key)
        return content[1], content[0].content_type

    async def list_keys(self, prefix: str = "") -> list[str]:
        """The keys that begin with `prefix`, in order."""
        return [info.key async for info in self.objects.list(prefix)]

    async def delete(self, key: str) -> bool:
        """Removes an object; False if there was none."""
        return await self.objects.delete(key)

    async def exists(self, key: str) -> bool:
        """Whether there is an object under this key."""
        return await self.objects.exists(key)

    async def health(self) -> Health:
        """Whether the store answers now."""
        return await self.objects.health()

    async def close(self) -> None:
        """Lets go of the store."""
        await self.objects.close()


def store_of(backend: StorageBackend) -> ObjectStore | None:
    """The store that may be called in the backend's place: none where a subclass does one of the calls itself."""
    if not isinstance(backend, StoreBackend):
        return None
    own = any(getattr(type(backend), name) is not getattr(StoreBackend, name) for name in _FIVE)
    return None if own else backend.store

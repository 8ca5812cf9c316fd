"""What `StorageManager` talks to: a store with etags and conditions, or a backend of the user's with neither.

A backend may raise what it likes; here it becomes the house's errors. One that keeps no content types gets those bytes
marked whose type looking at them would not tell: JSON documents and most bytes lie in it as they are.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Concatenate, Final, NamedTuple, ParamSpec, TypeVar

from holdfast.errors import HoldfastError, ObjectNotFound, StorageError, StorageRefused, StorageUnavailable
from holdfast.objects.aio import AsyncObjectStore
from holdfast.objects.faces.backend import StorageBackend, StoreBackend
from holdfast.objects.keys import check_key, check_prefix
from holdfast.objects.port import CREATE, SWAP, SWAP_DELETE, Expect, Health, ObjectInfo
from holdfast.objects.values.serial import guess

T = TypeVar("T")
P = ParamSpec("P")
_MARK: Final = b"hf/typed/1 "
_HEAD_MAX: Final = 300


class Found(NamedTuple):
    """An object as a place gives it."""

    data: bytes
    content_type: str
    etag: str
    """Empty where the place has none."""


class Place(ABC):
    """Bytes by name, each with a content type."""

    lacks: frozenset[str] = frozenset()

    @property
    @abstractmethod
    def name(self) -> str:
        """Which one, without secrets."""

    @abstractmethod
    async def put(
        self, key: str, data: bytes, content_type: str, *, metadata: Mapping[str, str] | None, expect: Expect
    ) -> str:
        """Stores an object; its etag."""

    @abstractmethod
    async def get(self, key: str) -> Found:
        """An object."""

    @abstractmethod
    async def info(self, key: str) -> ObjectInfo:
        """What is known of an object."""

    @abstractmethod
    async def keys(self, prefix: str) -> list[str]:
        """The keys that begin so, in order."""

    @abstractmethod
    async def delete(self, key: str, expect: str | None) -> bool:
        """Removes an object; False if there was none."""

    @abstractmethod
    async def exists(self, key: str) -> bool:
        """Whether there is one."""

    @abstractmethod
    async def health(self) -> Health:
        """Whether it answers now."""

    @abstractmethod
    async def close(self) -> None:
        """Lets go of it."""


class StorePlace(Place):
    """An object store; of a backend of ours, which is then what is closed."""

    def __init__(self, store: AsyncObjectStore, backend: StoreBackend | None = None) -> None:
        self._store = store
        self._owner = backend or store

    @property
    def name(self) -> str:
        return self._store.name

    @property
    def lacks(self) -> frozenset[str]:  # type: ignore[override]
        """What the store cannot do."""
        return self._store.lacks

    async def put(
        self, key: str, data: bytes, content_type: str, *, metadata: Mapping[str, str] | None, expect: Expect
    ) -> str:
        info = await self._store.put(key, data, content_type=content_type, metadata=metadata, expect=expect)
        return info.etag

    async def get(self, key: str) -> Found:
        info, data = await self._store.content(key)
        return Found(data, info.content_type, info.etag)

    async def info(self, key: str) -> ObjectInfo:
        return await self._store.head(key)

    async def keys(self, prefix: str) -> list[str]:
        return [info.key async for info in self._store.list(prefix)]

    async def delete(self, key: str, expect: str | None) -> bool:
        return await self._store.delete(key, expect=expect)

    async def exists(self, key: str) -> bool:
        return await self._store.exists(key)

    async def health(self) -> Health:
        return await self._store.health()

    async def close(self) -> None:
        await self._owner.close()


def _told(
    call: Callable[Concatenate[BackendPlace, str, P], Awaitable[T]],
) -> Callable[Concatenate[BackendPlace, str, P], Coroutine[Any, Any, T]]:
    """The same call of a `BackendPlace`, with the backend's own exceptions turned into ours."""

    async def asked(self: BackendPlace, key: str, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await call(self, key, *args, **kwargs)
        except HoldfastError:
            raise
        except KeyError as error:
            raise ObjectNotFound(f"no object {key!r:.200} in {self.name}", key=key) from error
        except (ConnectionError, TimeoutError) as error:
            raise StorageUnavailable(f"{self.name} does not answer: {error!r:.300}") from error
        except Exception as error:
            raise StorageError(f"{self.name} failed: {error!r:.300}") from error

    return asked


class BackendPlace(Place):
    """A backend of the user's."""

    lacks = frozenset({CREATE, SWAP, SWAP_DELETE})

    def __init__(self, backend: StorageBackend) -> None:
        self._backend = backend

    @property
    def name(self) -> str:
        return type(self._backend).__name__

    def _no_conditions(self, expect: Expect) -> None:
        if expect is not None:
            raise StorageRefused(f"{self.name} has no conditional writes", hint="use an object store: open_store(...)")

    @_told
    async def put(
        self, key: str, data: bytes, content_type: str, *, metadata: Mapping[str, str] | None, expect: Expect
    ) -> str:
        check_key(key)
        self._no_conditions(expect)
        if metadata:
            raise StorageRefused(f"{self.name} keeps no metadata", hint="use an object store: open_store(...)")
        if not self._backend.keeps_types and (guess(data) != content_type or data.startswith(_MARK)):
            data = b"%b%b\n%b" % (_MARK, content_type.encode("ascii"), data)
        await self._backend.save(key, data, content_type=content_type)
        return ""

    @_told
    async def get(self, key: str) -> Found:
        check_key(key)
        if self._backend.keeps_types:
            data, content_type = await self._backend.load_typed(key)
            return Found(bytes(data), content_type, "")
        loaded: Any = await self._backend.load(key)
        if loaded is None:
            raise KeyError(key)
        if not isinstance(loaded, bytes | bytearray | memoryview):
            raise TypeError(f"load gave a {type(loaded).__name__}, not bytes")
        data = bytes(loaded)
        if data.startswith(_MARK):
            end = data.find(b"\n", len(_MARK), len(_MARK) + _HEAD_MAX)
            if end > 0:
                return Found(data[end + 1 :], data[len(_MARK) : end].decode("ascii", "replace"), "")
        return Found(data, guess(data), "")

    async def info(self, key: str) -> ObjectInfo:
        raise StorageRefused(f"{self.name} knows nothing of objects but their bytes", hint="use an object store")

    async def keys(self, prefix: str) -> list[str]:
        check_prefix(prefix)
        return await self._keys(prefix)

    @_told
    async def _keys(self, prefix: str) -> list[str]:
        # What a backend of one evening forgets: to look at the prefix to its end, and to sort.
        return sorted(key for key in await self._backend.list_keys(prefix) if key.startswith(prefix))

    async def delete(self, key: str, expect: str | None) -> bool:
        self._no_conditions(expect)
        try:
            return await self._delete(check_key(key))
        except ObjectNotFound:
            return False

    @_told
    async def _delete(self, key: str) -> bool:
        return await self._backend.delete(key) is not False

    @_told
    async def exists(self, key: str) -> bool:
        return bool(await self._backend.exists(check_key(key)))

    async def health(self) -> Health:
        begun, failed = time.perf_counter(), ""
        try:
            await self.exists("holdfast/health")
        except (HoldfastError, OSError) as error:
            failed = str(error)
        took = 1000 * (time.perf_counter() - begun)
        return Health(ok=not failed, store=self.name, milliseconds=took, lacks=tuple(sorted(self.lacks)), error=failed)

    async def close(self) -> None:
        await self._backend.close()

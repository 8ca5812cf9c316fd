"""`StorageManager`: values under keys, on any storage, with one set of calls.

What it adds to a store is what values mean (`serial`), many at once (`batches`) and versions (`versions`).
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, TypeVar, overload

from holdfast.errors import ObjectNotFound, StorageRefused, StoreClosed
from holdfast.objects.aio import AsyncObjectStore
from holdfast.objects.faces.backend import StorageBackend, StoreBackend, stands_on_store
from holdfast.objects.faces.batches import Batch, each
from holdfast.objects.faces.config import StorageConfig
from holdfast.objects.faces.places import BackendPlace, Place, StorePlace
from holdfast.objects.faces.versions import Version, Versions
from holdfast.objects.opening import open_store
from holdfast.objects.port import Expect, Health, ObjectInfo, ObjectStore
from holdfast.objects.values.serial import deserialise, serialise
from holdfast.objects.values.types import TYPES, Types

T = TypeVar("T")
AT_ONCE: Final = 16
Storage: TypeAlias = StorageConfig | ObjectStore | AsyncObjectStore | StorageBackend | str
_RAISE: Final[Any] = object()

_managers: weakref.WeakSet[StorageManager] = weakref.WeakSet()


def _forked() -> None:
    for manager in list(_managers):
        manager._opening = threading.Lock()  # whoever of the parent's threads held it is not here


os.register_at_fork(after_in_child=_forked)


class StorageManager:
    """Values under keys. One may be used by any number of tasks, event loops and threads.

    Nothing is opened before the first call. Keys follow `holdfast.objects.keys`: ``{domain}/{type}/{identifier}``.

    Args:
        storage: a `StorageConfig`, an address for `open_store`, a store, or a backend of yours.
        types: the classes that may be stored as they are; by default those of `holdfast.objects.register`.
        at_once: the most calls that a batch has under way.

    Raises:
        StorageRefused: it is none of these.
    """

    def __init__(self, storage: Storage, *, types: Types | None = None, at_once: int = AT_ONCE) -> None:
        if not isinstance(storage, StorageConfig | ObjectStore | AsyncObjectStore | StorageBackend | str):
            raise StorageRefused(
                f"not a storage: {type(storage).__name__}",
                hint="a StorageConfig, an address such as file:./data, an ObjectStore, or a StorageBackend of yours",
            )
        self._storage = storage
        self._types = TYPES if types is None else types
        self._at_once = at_once
        self._held = _placed(storage)
        self._closed = False
        self._opening = threading.Lock()
        self._versions = Versions(self)
        _managers.add(self)

    async def save(
        self,
        key: str,
        data: Any,
        content_type: str | None = None,
        *,
        metadata: Mapping[str, str] | None = None,
        expect: Expect = None,
    ) -> str:
        """Stores a value, in place of the one under this key; `load` gives one that is equal and of the same type.

        Args:
            key: where; a key may be the beginning of another one.
            data: text, bytes, what JSON can say, and within it bytes, dates, sets, number arrays and the like; objects
                of registered classes. Of a bytearray or memoryview that is not within something, the bytes.
            content_type: a MIME type; None: the one that fits. Bytes or text that are called JSON are a document that
                is ready, and is loaded as its value.
            metadata: names and values in ASCII.
            expect: the etag that must be current, or `ABSENT`; None: whatever is there.

        Returns:
            The object's etag; empty on a backend of yours, which has none.

        Raises:
            ObjectConflict: `expect` is not what is there; nothing was written.
            StorageRefused: a key or value that cannot be stored, and why; nothing was written.
            StorageError: it failed.
        """
        body, kind = serialise(data, content_type, types=self._types)
        place = await self._place()
        return await place.put(key, body, kind, metadata=metadata, expect=expect)

    @overload
    async def load(self, key: str) -> Any: ...
    @overload
    async def load(self, key: str, default: T) -> Any | T: ...
    async def load(self, key: str, default: Any = _RAISE) -> Any:
        """The value under a key.

        Args:
            key: where.
            default: what to return if there is nothing; left out: `ObjectNotFound`.

        Raises:
            ObjectNotFound: there is nothing under this key; it is a `KeyError` too.
            ObjectCorrupt: what is there is not what was stored.
            StorageError: it failed.
        """
        try:
            value, _ = await self.load_with_etag(key)
        except ObjectNotFound:
            if default is _RAISE:
                raise
            return default
        return value

    async def load_with_etag(self, key: str) -> tuple[Any, str]:
        """The value under a key, and its etag for ``save(expect=…)``.

        Raises:
            ObjectNotFound: there is nothing under this key.
            ObjectCorrupt: what is there is not what was stored.
            StorageError: it failed.
        """
        place = await self._place()
        found = await place.get(key)
        return deserialise(found.data, found.content_type, types=self._types, key=key), found.etag

    async def load_bytes(self, key: str) -> bytes:
        """The bytes under a key as they are stored, whatever they mean.

        Raises:
            ObjectNotFound: there is nothing under this key.
            StorageError: it failed.
        """
        place = await self._place()
        return (await place.get(key)).data

    async def list_keys(self, prefix: str = "") -> list[str]:
        """The keys that begin with `prefix`, in order; the prefix may end within a segment.

        Raises:
            StorageError: it failed.
        """
        place = await self._place()
        return await place.keys(prefix)

    async def delete(self, key: str, *, expect: str | None = None) -> bool:
        """Removes what is under a key; False if there was nothing.

        Args:
            key: where.
            expect: the etag that must be current.

        Raises:
            ObjectConflict: another one is current; nothing was removed.
            StorageError: it failed.
        """
        place = await self._place()
        return await place.delete(key, expect)

    async def exists(self, key: str) -> bool:
        """Whether there is something under a key.

        Raises:
            StorageError: it failed: that is not a no.
        """
        place = await self._place()
        return await place.exists(key)

    async def info(self, key: str) -> ObjectInfo:
        """Size, content type, etag, metadata and time of what is under a key.

        Raises:
            ObjectNotFound: there is nothing under this key.
            StorageError: it failed, or a backend of yours is asked, which does not know.
        """
        place = await self._place()
        return await place.info(key)

    async def save_many(
        self, items: Mapping[str, Any] | Iterable[tuple[str, Any]], content_type: str | None = None
    ) -> Batch[str]:
        """Stores many values, several at a time; one that fails does not keep the others from being stored.

        Args:
            items: values by key, or pairs of key and value.
            content_type: of all of them; None: what fits each.

        Returns:
            The etags of those that were stored, and the errors of the others.

        Raises:
            StorageRefused: a key twice: which value should it have? Nothing was written.
        """
        pairs = list(items.items() if isinstance(items, Mapping) else items)
        seen: set[str] = set()
        for key, _ in pairs:
            if _text(key) in seen:
                raise StorageRefused(f"the key {key!r:.200} is there twice", hint="one value a key")
            seen.add(key)
        return await each(lambda pair: self.save(*pair, content_type), ((p[0], p) for p in pairs), self._at_once)

    async def load_many(self, keys: Iterable[str]) -> Batch[Any]:
        """The values under many keys, several at a time; a key that has none is among the failed."""
        return await each(self.load, _once(keys), self._at_once)

    async def delete_many(self, keys: Iterable[str]) -> Batch[bool]:
        """Removes what is under many keys, several at a time; whether there was something, of each."""
        return await each(self.delete, _once(keys), self._at_once)

    async def save_versioned(
        self, key: str, data: Any, version: Version | None = None, content_type: str | None = None
    ) -> Version:
        """Stores a version at ``{key}/v{version}`` and lets ``{key}/current`` show it.

        Two who save at once get two versions, and the later number is the current one. A version does not change.

        Args:
            key: the versions' common key.
            data: as `save`.
            version: a number or a name such as ``1.2``; None: the number after the highest that there was.
            content_type: as `save`.

        Returns:
            The version.

        Raises:
            ObjectConflict: this version is there already.
            StorageRefused: ``{key}/current`` is an object of its own, or as `save` says.
            StorageError: it failed; the version may be there without being the current one.
        """
        return await self._versions.save(key, data, version, content_type)

    async def load_version(self, key: str, version: Version | None = None) -> Any:
        """A version's value; of the current one if none is named.

        Raises:
            ObjectNotFound: there is no such version.
            StorageError: it failed.
        """
        return await self._versions.load(key, version)

    async def list_versions(self, key: str) -> list[Version]:
        """The versions that there are: numbers first, then names, in order."""
        return await self._versions.list(key)

    async def current_version(self, key: str) -> Version:
        """The version that ``{key}/current`` shows.

        Raises:
            ObjectNotFound: there are no versions.
        """
        return await self._versions.current(key)

    async def roll_back(self, key: str, version: Version | None = None) -> Version:
        """Lets ``{key}/current`` show an older version; nothing is removed, and the next save gets a number of its own.

        Args:
            key: the versions' common key.
            version: which; None: the one before the current one.

        Returns:
            The version that is current now.

        Raises:
            ObjectNotFound: there is no such version.
            StorageError: it failed.
        """
        return await self._versions.roll_back(key, version)

    async def lacks(self) -> frozenset[str]:
        """What the storage cannot do, in the port's words (`ObjectStore.lacks`)."""
        return (await self._place()).lacks

    async def health(self) -> Health:
        """Whether the storage answers now.

        Raises:
            StorageError: it cannot even be opened.
        """
        place = await self._place()
        return await place.health()

    async def close(self) -> None:
        """Lets go of the storage, also of a store or backend that was handed in; more than once is no error."""
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(None, self._shut)  # waits for who is opening it now
        held, self._held = self._held, None
        if held is not None:
            await held.close()
        elif isinstance(self._storage, StorageBackend):
            await self._storage.close()

    def _shut(self) -> None:
        with self._opening:
            self._closed = True

    async def _place(self) -> Place:
        if self._closed:
            raise StoreClosed("this StorageManager was closed")
        if self._held is not None:
            return self._held
        # Opening may look for a server, and the loop has others to serve meanwhile.
        return await asyncio.get_running_loop().run_in_executor(None, self._open)

    def _open(self) -> Place:
        with self._opening:
            if self._closed:
                raise StoreClosed("this StorageManager was closed")
            if self._held is None:
                self._held = _opened(self._storage)
            return self._held

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        held = self._held
        return f"<StorageManager {held.name if held is not None else type(self._storage).__name__}>"


def _text(key: Any) -> str:
    if not isinstance(key, str):
        raise StorageRefused(f"a key is text, not {type(key).__name__}: {key!r:.80}")
    return key


def _once(keys: Iterable[str]) -> list[tuple[str, str]]:
    if isinstance(keys, str):
        raise StorageRefused(f"keys come in a list, not as one text: {keys!r:.80}", hint=f"[{keys!r:.40}]")
    return [(key, key) for key in dict.fromkeys(map(_text, keys))]


def _placed(storage: Storage) -> Place | None:
    """The place of what is open already; None: it is still to be opened."""
    if isinstance(storage, ObjectStore):
        return StorePlace(AsyncObjectStore(storage))
    if isinstance(storage, AsyncObjectStore):
        return StorePlace(storage)
    if isinstance(storage, StorageBackend) and not stands_on_store(storage):
        return BackendPlace(storage)
    return None


def _opened(storage: Storage) -> Place:
    """The place of what is not; this may take its time."""
    if isinstance(storage, StoreBackend):
        return StorePlace(storage.objects, storage)
    store = storage.open() if isinstance(storage, StorageConfig) else open_store(str(storage))
    return StorePlace(AsyncObjectStore(store))

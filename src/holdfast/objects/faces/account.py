"""Blobs, tables and queues of one account, for asyncio, with the calls of the seed's AzureStorageBackend.

What holds for every account, wherever it lies; `azure_backend` has Azure's, `embedded_backend` the one on this machine.
Containers, tables and queues that are not there are made by the first call that writes; who reads finds nothing there.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, TypeAlias, TypeVar

from holdfast.errors import ObjectNotFound, StorageRefused, StoreClosed
from holdfast.objects.aio import AsyncObjectStore, Threads
from holdfast.objects.faces.backend import StoreBackend
from holdfast.objects.port import TYPE, ObjectInfo, ObjectStore, Source
from holdfast.objects.queues.port import TTL_S, VISIBILITY_S, QueueMessage, QueueStore
from holdfast.objects.tables.keys import check_name
from holdfast.objects.tables.port import Entity, Mode, Operation, TableStore

Access: TypeAlias = Literal["private", "blob", "container"]
LEVELS: Final = ("private", "blob", "container")
CONTAINER: Final = "holdfast"
"""Where `StorageManager`'s keys lie, if nobody says otherwise."""
T = TypeVar("T")


class AccountBackend(StoreBackend):
    """An account's blobs, tables and queues; under `StorageManager`, one container of it.

    Args:
        container: the one for `save`, `load` and the rest of `StorageBackend`.
    """

    def __init__(self, container: str = CONTAINER) -> None:
        self.container = check_name(container, "container")
        self._threads = Threads()
        self._lock = threading.RLock()
        self._stores: dict[str, AsyncObjectStore] = {}
        self._closed = False

    # -- what a subclass gives ----------------------------------------------------------------------------------

    @property
    @abstractmethod
    def tables(self) -> TableStore:
        """The account's tables."""

    @property
    @abstractmethod
    def queues(self) -> QueueStore:
        """The account's queues."""

    @abstractmethod
    def _make_container(self, name: str, level: Access) -> bool:
        """Makes a container; False if there is one of this name."""

    @abstractmethod
    def _has_container(self, name: str) -> bool:
        """Whether there is such a container."""

    @abstractmethod
    def _open_container(self, name: str) -> ObjectStore:
        """The store of a container that is there."""

    # -- blobs --------------------------------------------------------------------------------------------------

    @property
    def objects(self) -> AsyncObjectStore:  # type: ignore[override]
        """The container for `save` and `load`, opened when it is first asked for."""
        found = self._container(self.container, make=True)
        assert found is not None  # it was made
        return found

    async def create_container(self, name: str, access_level: Access = "private") -> bool:
        """Makes a container; False if there was one of this name, which is left as it is.

        Args:
            name: ``_`` and capital letters may be in it; Azure has it under another name then.
            access_level: who may read without credentials: nobody (``private``), whoever knows a blob's address
                (``blob``), or everybody, lists included (``container``).

        Raises:
            StorageRefused: not a name, or not a level.
            StorageDenied: the credentials may not, or the account forbids public containers.
        """
        if access_level not in LEVELS:
            raise StorageRefused(f"not an access level: {access_level!r:.80}", hint=", ".join(LEVELS))
        return await self._threads.run(self._make_container, check_name(name, "container"), access_level)

    async def upload_blob(
        self, container: str, blob_name: str, data: Source | str, *, content_type: str = TYPE
    ) -> ObjectInfo:
        """Stores a blob in place of what was there; text goes as UTF-8.

        Raises:
            StorageError: as `ObjectStore.put` says.
        """
        body = data.encode() if isinstance(data, str) else data

        def upload() -> ObjectInfo:
            found = self._container(container, make=True)
            assert found is not None
            return found.store.put(blob_name, body, content_type=content_type)

        return await self._threads.run(upload)

    async def download_blob(self, container: str, blob_name: str) -> bytes:
        """The bytes of a blob.

        Raises:
            ObjectNotFound: there is none, or no such container.
            StorageError: as `ObjectStore.get` says.
        """

        def download() -> bytes:
            found = self._container(container)
            if found is None:
                raise ObjectNotFound(
                    f"no blob {blob_name!r:.200}: there is no container {container!r:.80}", key=blob_name
                )
            return found.store.read(blob_name)

        return await self._threads.run(download)

    async def list_blobs(self, container: str, prefix: str = "") -> list[str]:
        """The names of the blobs that begin with `prefix`, in order."""

        def listed() -> list[str]:
            found = self._container(container)
            return [] if found is None else [info.key for info in found.store.list(prefix)]

        return await self._threads.run(listed)

    async def delete_blob(self, container: str, blob_name: str) -> bool:
        """Removes a blob; False if there was none."""

        def delete() -> bool:
            found = self._container(container)
            return found is not None and found.store.delete(blob_name)

        return await self._threads.run(delete)

    def _container(self, name: str, *, make: bool = False) -> AsyncObjectStore | None:
        if self._closed:
            raise StoreClosed("the account was closed")
        found = self._stores.get(check_name(name, "container"))
        if found is None:
            if make:
                self._make_container(name, "private")
            elif not self._has_container(name):
                return None
            with self._lock:
                found = self._stores.get(name)
                if found is None:
                    found = self._stores[name] = AsyncObjectStore(self._open_container(name))
        return found

    # -- tables -------------------------------------------------------------------------------------------------

    async def insert_entity(self, table_name: str, entity: Mapping[str, object]) -> str:
        """Makes an entity; returns its etag.

        Raises:
            ObjectConflict: there is one with these keys.
            StorageRefused: a name, a key, a value or a size that cannot be.
        """
        return await self._in_table(table_name, lambda: self.tables.insert(table_name, entity))

    async def upsert_entity(self, table_name: str, entity: Mapping[str, object], *, mode: Mode = "merge") -> str:
        """Makes an entity, or changes the one that is there; returns its etag."""
        return await self._in_table(table_name, lambda: self.tables.upsert(table_name, entity, mode=mode))

    async def update_entity(
        self, table_name: str, entity: Mapping[str, object], *, mode: Mode = "merge", etag: str | None = None
    ) -> str:
        """Changes an entity that is there, as `etag` knows it if that is given; returns its new etag.

        Raises:
            ObjectConflict: another etag is current.
            ObjectNotFound: there is no such entity.
        """
        return await self._threads.run(self.tables.update, table_name, entity, mode=mode, etag=etag)

    async def get_entity(
        self, table_name: str, partition_key: str, row_key: str, *, select: Sequence[str] | None = None
    ) -> Entity:
        """An entity: a dict with `etag` and `timestamp`.

        Raises:
            ObjectNotFound: there is none.
        """
        return await self._threads.run(self.tables.get, table_name, partition_key, row_key, select=select)

    async def query_entities(
        self, table_name: str, filter: str = "", *, select: Sequence[str] | None = None, limit: int | None = None
    ) -> list[Entity]:
        """The entities that a filter finds, in order of their keys; all of them in memory.

        Raises:
            StorageRefused: not a filter.
        """

        def query() -> list[Entity]:
            try:
                return list(self.tables.query(table_name, filter, select=select, limit=limit))
            except ObjectNotFound:
                return []

        return await self._threads.run(query)

    async def delete_entity(
        self, table_name: str, partition_key: str, row_key: str, *, etag: str | None = None
    ) -> bool:
        """Removes an entity, as `etag` knows it if that is given; False if there was none."""
        return await self._threads.run(self.tables.delete, table_name, partition_key, row_key, etag=etag)

    async def submit_transaction(self, table_name: str, operations: Sequence[Operation]) -> list[str]:
        """Does up to 100 operations on one partition, or none of them; see `TableStore.transact`."""
        return await self._in_table(table_name, lambda: self.tables.transact(table_name, operations))

    async def _in_table(self, table: str, call: Callable[[], T]) -> T:
        return await self._threads.run(_twice, call, "table", lambda: self.tables.create_table(table))

    # -- queues -------------------------------------------------------------------------------------------------

    async def send_message(
        self, queue_name: str, message: str | bytes, *, ttl: int | None = TTL_S, delay: int = 0
    ) -> QueueMessage:
        """Adds a message; `ttl` and `delay` in seconds.

        Raises:
            StorageRefused: neither text nor bytes, or more than 64 KiB.
        """
        return await self._threads.run(
            _twice,
            lambda: self.queues.send(queue_name, message, ttl=ttl, delay=delay),
            "queue",
            lambda: self.queues.create_queue(queue_name),
        )

    async def receive_message(self, queue_name: str, *, visibility_timeout: int = VISIBILITY_S) -> QueueMessage | None:
        """Takes a message to work on, hidden from others for so many seconds; None if none is due."""
        found = await self.receive_messages(queue_name, 1, visibility_timeout=visibility_timeout)
        return found[0] if found else None

    async def receive_messages(
        self, queue_name: str, most: int = 32, *, visibility_timeout: int = VISIBILITY_S
    ) -> list[QueueMessage]:
        """Takes up to `most` messages to work on."""

        def receive() -> list[QueueMessage]:
            try:
                return self.queues.receive(queue_name, most=most, visibility=visibility_timeout)
            except ObjectNotFound:
                return []

        return await self._threads.run(receive)

    async def peek_messages(self, queue_name: str, most: int = 1) -> list[QueueMessage]:
        """Looks at messages that are due, and leaves them so."""

        def peek() -> list[QueueMessage]:
            try:
                return self.queues.peek(queue_name, most=most)
            except ObjectNotFound:
                return []

        return await self._threads.run(peek)

    async def update_message(
        self,
        queue_name: str,
        message: QueueMessage,
        *,
        visibility_timeout: int = VISIBILITY_S,
        content: str | bytes | None = None,
    ) -> QueueMessage:
        """Keeps a received message for longer (0: gives it back); only what it returns can be deleted then.

        Raises:
            ObjectConflict: somebody else has received it since.
        """
        return await self._threads.run(
            self.queues.update, queue_name, message, visibility=visibility_timeout, content=content
        )

    async def delete_message(self, queue_name: str, message: QueueMessage) -> bool:
        """Ends a message whose work is done; False if it is gone already.

        Raises:
            ObjectConflict: somebody else has received it since: it is theirs.
        """
        return await self._threads.run(self.queues.delete, queue_name, message)

    # -- the end ------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Lets go of connections, files and threads; more than once is no error."""
        if not self._closed:
            self._closed = True
            for store in self._stores.values():
                await store.close()
            await self._threads.run(self._close)
            self._threads.close()

    def _close(self) -> None:
        self.tables.close()
        self.queues.close()


def _twice(call: Callable[[], T], what: str, make: Callable[[], bool]) -> T:
    """What the call returns; if what it wants to write to is not there, that is made first."""
    try:
        return call()
    except ObjectNotFound as error:
        # A server may not say what it is that is missing. Then it was that, if it could be made now.
        if not make() and what not in error.context:
            raise
        return call()

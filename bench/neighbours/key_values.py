"""py-key-value's stores on this machine's disk, and ours by the same protocol: dictionaries by key, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from bench.neighbours.object_stores import Objects


class KeyValues(Objects):
    """A store of the protocol; a body goes in as one text of a dictionary, which costs it no base64."""

    def __init__(self, store: Any) -> None:
        self.runner = asyncio.Runner()
        self._store = store

    def put(self, key: str, body: bytes) -> Coroutine[Any, Any, None]:
        """One value."""
        coroutine: Coroutine[Any, Any, None] = self._store.put(key.rpartition("/")[2], {"body": body.decode("ascii")})
        return coroutine

    def get(self, key: str) -> Coroutine[Any, Any, Any]:
        """One value."""
        coroutine: Coroutine[Any, Any, Any] = self._store.get(key.rpartition("/")[2])
        return coroutine

    def shown(self, found: Any) -> Any:
        """The bytes that the text stands for."""
        return found["body"].encode("ascii")

    def close(self) -> None:
        """Ends it, and the loop."""
        assert self.runner is not None
        if hasattr(self._store, "close"):  # FileTreeStore holds nothing open
            self.runner.run(self._store.close())
        self.runner.close()


def disk(folder: Path) -> KeyValues:
    """DiskStore: diskcache, an SQLite file with pickles switched off, and files for what is large."""
    from key_value.aio.stores.disk import DiskStore

    return KeyValues(DiskStore(directory=folder / "disk"))


def file_tree(folder: Path) -> KeyValues:
    """FileTreeStore: a JSON file a key."""
    from key_value.aio.stores.filetree import FileTreeStore

    data = folder / "tree"
    data.mkdir()
    return KeyValues(FileTreeStore(data_directory=data))


def ours(folder: Path, *, durable: bool) -> KeyValues:
    """Our `KeyValue` over our SQLite store."""
    from holdfast.integrations.key_value import KeyValue
    from holdfast.objects import open_store

    class Owner(KeyValue):
        async def close(self) -> None:
            await super().close()
            store.close()

    store = open_store(f"sqlite:{folder / 'values.db'}", durable=durable)
    return KeyValues(Owner(store))


def ours_synced(folder: Path) -> KeyValues:
    """Synced before a put returns."""
    return ours(folder, durable=True)


def ours_unsynced(folder: Path) -> KeyValues:
    """At DiskStore's durability."""
    return ours(folder, durable=False)


DISK, TREE = "py-key-value DiskStore", "py-key-value FileTreeStore"
OURS, OURS_UNSYNCED = "holdfast KeyValue, sqlite", "holdfast KeyValue, sqlite, durable=False"
STORES: dict[str, Callable[[Path], Objects]] = {
    OURS: ours_synced,
    OURS_UNSYNCED: ours_unsynced,
    DISK: disk,
    TREE: file_tree,
}
SURVIVES = {
    OURS: "a power cut",
    OURS_UNSYNCED: "the process's end",
    DISK: "the process's end",
    TREE: "a power cut, but for a new name",
}

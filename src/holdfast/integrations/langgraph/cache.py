"""LangGraph's cache of what nodes gave: in a file of the node's directory, in any object store, or a hub's."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from holdfast.clock import SYSTEM, Clock
from holdfast.errors import ObjectNotFound
from holdfast.integrations.langgraph.door import BaseCache
from holdfast.integrations.langgraph.packing import packed, unpacked
from holdfast.integrations.langgraph.paths import segment
from holdfast.integrations.langgraph.serde import StrictSerializer
from holdfast.node.aio import AsyncStore
from holdfast.node.aio_hub import AsyncHub
from holdfast.node.hub import Hub
from holdfast.node.store import Store
from holdfast.objects import ObjectStore, open_store

FILE: Final = "langgraph-cache.db"
Namespace = tuple[str, ...]
FullKey = tuple[Namespace, str]


class HoldfastCache(BaseCache):
    """Keeps what nodes gave, until its time is over. It may be lost: it is in no log, no backup, and on one machine.

    Args:
        place: a directory (or a Store), the address of an object store or one that is open, or a hub or its address.
        serde: LangGraph's serialiser; None: its standard one, strictly with an allow-list, and without pickle.
        allow: types of your own that the standard one may make when it reads: classes, or ("module", "Class").
        wall: the clock.
    """

    def __init__(self, place: Any, *, serde: Any = None, allow: Iterable[Any] = (), wall: Clock = SYSTEM) -> None:
        super().__init__(serde=serde or StrictSerializer(allow))
        self._wall = wall
        self._drawer, self._owned = _drawer_of(place)

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        """What is kept under these keys, and not over."""
        now = self._wall.now_ms()
        out: dict[FullKey, Any] = {}
        for namespace, key in keys:
            row = self._drawer.get(namespace, key)
            if row is not None and (row.get("ends") is None or row["ends"] > now):
                out[namespace, key] = unpacked(row, self.serde)
        return out

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        """See `get`."""
        return await asyncio.to_thread(self.get, keys)

    def set(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        """Keeps values, each for so many seconds, or for ever."""
        for (namespace, key), (value, ttl) in pairs.items():
            row = packed(value, self.serde)
            if ttl is not None:
                row["ends"] = self._wall.now_ms() + ttl * 1000
            self._drawer.put(namespace, key, row, ttl)

    async def aset(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        """See `set`."""
        await asyncio.to_thread(self.set, pairs)

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Takes away what is kept in these namespaces, or everything."""
        self._drawer.clear(namespaces)

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """See `clear`."""
        await asyncio.to_thread(self.clear, namespaces)

    def close(self) -> None:
        """Closes what was opened here; a second close is fine."""
        if self._owned:
            self._drawer.close()


class _Drawer(Protocol):
    def get(self, namespace: Namespace, key: str) -> dict[str, Any] | None: ...
    def put(self, namespace: Namespace, key: str, row: dict[str, Any], ttl: int | None) -> None: ...
    def clear(self, namespaces: Sequence[Namespace] | None) -> None: ...
    def close(self) -> None: ...


class _Objects:
    """Rows as objects: a namespace is the beginning of their keys."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def get(self, namespace: Namespace, key: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = msgspec.json.decode(self._store.read(_name(namespace, key)))
        except (ObjectNotFound, msgspec.DecodeError):
            return None  # damaged or not, it may be lost: what it held is made again
        return found

    def put(self, namespace: Namespace, key: str, row: dict[str, Any], ttl: int | None) -> None:
        self._store.put(_name(namespace, key), msgspec.json.encode(row), content_type="application/json")

    def clear(self, namespaces: Sequence[Namespace] | None) -> None:
        prefixes = [""] if namespaces is None else [_name(namespace, "") for namespace in namespaces]
        for prefix in prefixes:
            for info in list(self._store.list(prefix)):
                self._store.delete(info.key)

    def close(self) -> None:
        self._store.close()


class _AtHub:
    """Rows in a hub's cache, which has no lists: a namespace is cleared by giving it another number, a part of keys."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def get(self, namespace: Namespace, key: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._hub.cache.get(self._key(namespace, key), default=None)
        return found

    def put(self, namespace: Namespace, key: str, row: dict[str, Any], ttl: int | None) -> None:
        # A hub keeps nothing for no time; what the row says of its end counts.
        self._hub.cache.set(self._key(namespace, key), row, ttl=None if ttl is None else max(ttl, 1))

    def clear(self, namespaces: Sequence[Namespace] | None) -> None:
        for name in [""] if namespaces is None else [_name(namespace, "") for namespace in namespaces]:
            self._hub.cache.set(_hashed("number", name), os.urandom(8).hex())

    def close(self) -> None:
        self._hub.close()

    def _key(self, namespace: Namespace, key: str) -> str:
        names = [_hashed("number", name) for name in ("", _name(namespace, ""))]
        return _hashed(*(str(self._hub.cache.get(name, default="")) for name in names), _name(namespace, key))


def _drawer_of(place: Any) -> tuple[_Drawer, bool]:
    if isinstance(place, AsyncStore):
        place = place._store
    if isinstance(place, AsyncHub):
        place = place._hub
    if isinstance(place, Hub):
        return _AtHub(place), False
    if isinstance(place, Store):
        return _Objects(open_store(f"sqlite:{place._directory.path / FILE}")), True
    if isinstance(place, str) and place.startswith(("http://", "https://")):
        return _AtHub(Hub(place)), True
    if isinstance(place, Path) or (isinstance(place, str) and ":" not in place):
        Path(place).mkdir(parents=True, exist_ok=True)
        return _Objects(open_store(f"sqlite:{Path(place) / FILE}")), True
    if isinstance(place, str):
        return _Objects(open_store(place)), True
    return _Objects(place), False


def _name(namespace: Namespace, key: str) -> str:
    return "".join(f"{segment(part)}/" for part in namespace) + (f"={segment(key)}" if key else "=")


def _hashed(*texts: str) -> str:
    return "langgraph." + hashlib.sha256("\0".join(texts).encode()).hexdigest()

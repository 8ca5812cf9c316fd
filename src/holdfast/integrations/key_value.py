"""py-key-value's `AsyncKeyValue`, the storage that FastMCP and others are given: in a node's log, at a hub, or on any
object store of ours.

    store = KeyValue("./node", agent="server-1")
    store = KeyValue("sqlite:./kv.db")
    await store.put("ada", {"token": "…"}, collection="sessions", ttl=3600)

The one door to py-key-value: only its errors are used, so that who catches them catches ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self, SupportsFloat

from holdfast.clock import LASTS_S_MAX, SYSTEM, Clock
from holdfast.errors import MissingExtra, UsageError
from holdfast.integrations.keyed import AsObjects, AsRecords, Entries, Entry, at_once, body_of, segment_of
from holdfast.integrations.place import HISTORY, Place, Where
from holdfast.objects import ObjectStore, open_store

try:
    from key_value.aio.errors import InvalidTTLError, SerializationError
except ImportError as error:  # pragma: no cover - tests/house has a bare install
    raise MissingExtra("py-key-value is not installed", hint="pip install 'holdfast[key-value]'") from error

COLLECTION: Final = "key-value"
DEFAULT_COLLECTION: Final = "default_collection"
"""As in py-key-value, where none is said."""
_URLS: Final = ("http://", "https://")


class KeyValue:
    """Dictionaries by key and collection, with a time to live.

    What is expired is never returned, and goes with `cull`. Values are what JSON can say; one that JSON would change
    silently (a date, NaN, a key that is a number) is refused. Each call returns when it is stored: in a log at its
    level, in an object store as far as that promises (on SQLite and files it survives a power cut).

    Args:
        where: a node directory, a hub's address, or a store or hub that is open; or an object store, or the address of
            one (``scheme:…``, see `open_store`).
        agent: who writes; needed for a directory and a hub's address.
        shared: one set of values for all machines, decided by the hub; None: so at a hub, and not on a node.
        collection: the name under which all of them are kept, in a log or at a hub.
        default_collection: py-key-value's, where none is said.
        wall: the clock.
    """

    def __init__(
        self,
        where: Where | ObjectStore,
        *,
        agent: str | None = None,
        shared: bool | None = None,
        collection: str = COLLECTION,
        default_collection: str = DEFAULT_COLLECTION,
        wall: Clock = SYSTEM,
    ) -> None:
        self.default_collection = default_collection
        self._wall = wall
        self._kept: Entries
        if isinstance(where, ObjectStore) or (isinstance(where, str) and ":" in where and not where.startswith(_URLS)):
            if agent is not None or shared is not None:
                raise UsageError("an object store is nobody's", hint="agent= and shared= are for a node or a hub")
            self._kept = AsObjects(open_store(where), True) if isinstance(where, str) else AsObjects(where, False)
        else:
            self._kept = AsRecords(Place(where, agent=agent, shared=shared), collection)

    async def get(self, key: str, *, collection: str | None = None) -> dict[str, Any] | None:
        """The value, or None where there is none or it is expired.

        Raises:
            ObjectCorrupt: what lies there is no value of ours.
            StorageUnavailable, HubUnavailable: whoever has it does not answer.
        """
        entry = await self._live(key, collection)
        return entry.value if entry else None

    async def ttl(self, key: str, *, collection: str | None = None) -> tuple[dict[str, Any] | None, float | None]:
        """The value and the seconds that are left to it (None: for ever); (None, None) where there is none."""
        entry = await self._live(key, collection)
        if entry is None:
            return None, None
        return entry.value, None if entry.expires is None else (entry.expires - self._now()).total_seconds()

    async def put(
        self, key: str, value: Mapping[str, Any], *, collection: str | None = None, ttl: SupportsFloat | None = None
    ) -> None:
        """Stores a value in place of the one under this key.

        Args:
            key: any text.
            value: a mapping of what JSON can say.
            collection: any text.
            ttl: seconds to live, more than 0; None: for ever.

        Raises:
            InvalidTTLError: no number of seconds.
            SerializationError: JSON cannot say it.
            TypeError: a key that is no text, a value that is no mapping.
            StorageFull, NodeFull: no room; the old value is there.
        """
        await self.put_many([key], [value], collection=collection, ttl=ttl)

    async def delete(self, key: str, *, collection: str | None = None) -> bool:
        """Removes a value; False if there was none, or it was expired."""
        there = await self._live(key, collection) is not None
        return await self._kept.delete(self._name(key, collection)) and there

    async def get_many(self, keys: Sequence[str], *, collection: str | None = None) -> list[dict[str, Any] | None]:
        """The values in the order of their keys, None where there is none."""
        return list(await at_once([self.get(key, collection=collection) for key in keys]))

    async def ttl_many(
        self, keys: Sequence[str], *, collection: str | None = None
    ) -> list[tuple[dict[str, Any] | None, float | None]]:
        """The values with the seconds that are left to each, in the order of their keys."""
        return list(await at_once([self.ttl(key, collection=collection) for key in keys]))

    async def put_many(
        self,
        keys: Sequence[str],
        values: Sequence[Mapping[str, Any]],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """Stores several values with one time to live; all are checked before the first is written.

        Not one transaction: when the store fails half-way, some are written.

        Raises:
            InvalidTTLError: no number of seconds.
            SerializationError: JSON cannot say one of them; none is written.
            ValueError: not as many values as keys.
        """
        if len(keys) != len(values):
            raise UsageError(f"{len(keys)} keys for {len(values)} values", hint="one value a key")
        now = self._now()
        expires = None if ttl is None else datetime.fromtimestamp(now.timestamp() + _seconds(ttl), UTC)
        room = collection or self.default_collection
        entries = []
        for key, value in zip(keys, values, strict=True):
            if not isinstance(value, Mapping):
                raise TypeError(f"a value is a mapping, not {type(value).__name__}")
            entry = Entry(room, key, dict(value), now, expires)
            name = self._name(key, room)
            try:
                entries.append((name, entry, body_of(entry)))
            except (TypeError, ValueError) as error:
                raise SerializationError(f"failed to serialize {key!r:.80}: {error}") from error
        await at_once([self._kept.put(*each) for each in entries])

    async def delete_many(self, keys: Sequence[str], *, collection: str | None = None) -> int:
        """Removes several values; how many there were."""
        return sum(await at_once([self.delete(key, collection=collection) for key in keys]))

    async def keys(self, collection: str | None = None, *, limit: int | None = None) -> list[str]:
        """The keys of a collection that are not expired, at most so many."""
        found: list[str] = []
        if limit is not None and limit <= 0:
            return found
        async for each in self._kept.every(collection or self.default_collection):
            if not self._expired(each.entry):
                found.append(each.entry.key)
                if len(found) == limit:
                    break
        return found

    async def collections(self, *, limit: int | None = None) -> list[str]:
        """The names of the collections in which anything lies, at most so many."""
        return await self._kept.collections(limit)

    async def history(
        self, key: str, *, collection: str | None = None, limit: int = HISTORY
    ) -> list[tuple[dict[str, Any], datetime]]:
        """The values that a key has had, newest first, each with the time at which it was put.

        Raises:
            UsageError: they are kept in an object store, which has no past.
        """
        if not isinstance(self._kept, AsRecords):
            raise UsageError("an object store keeps what is, not what was", hint='KeyValue("./node", agent=…)')
        found = await self._kept.history(self._name(key, collection), limit)
        return [(entry.value, entry.created) for entry, _ in found]

    async def cull(self) -> None:
        """Removes what is expired, and nothing that was written meanwhile.

        Raises:
            StorageRefused: the store cannot delete just what was looked at (it lacks ``swap-delete``).
        """
        async for each in self._kept.every():
            if self._expired(each.entry):
                await self._kept.delete(each.name, each.mark)

    async def destroy(self) -> bool:
        """Removes everything of every collection."""
        return await self._clear(None)

    async def destroy_collection(self, collection: str) -> bool:
        """Removes everything of a collection; False if there was nothing."""
        return await self._clear(collection)

    async def close(self) -> None:
        """Closes the node, hub or store, if it was opened here."""
        await self._kept.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _clear(self, collection: str | None) -> bool:
        names = [each.name async for each in self._kept.every(collection)]
        return any(await at_once([self._kept.delete(name) for name in names]))

    async def _live(self, key: str, collection: str | None) -> Entry | None:
        entry = await self._kept.read(self._name(key, collection))
        return None if entry is None or self._expired(entry) else entry

    def _expired(self, entry: Entry) -> bool:
        return entry.expires is not None and entry.expires <= self._now()

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._wall.now_ms() / 1000, UTC)

    def _name(self, key: str, collection: str | None) -> str:
        return f"{segment_of(collection or self.default_collection)}/{segment_of(key)}"


def _seconds(ttl: SupportsFloat) -> float:
    try:
        seconds = math.nan if isinstance(ttl, bool) else float(ttl)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 < seconds <= LASTS_S_MAX:
        raise InvalidTTLError(ttl=ttl)
    return seconds

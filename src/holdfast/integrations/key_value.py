"""py-key-value's `AsyncKeyValue` on any object store of ours: the storage that FastMCP and others are given.

    store = KeyValue("sqlite:./kv.db")
    await store.put("ada", {"token": "…"}, collection="sessions", ttl=3600)

The one door to py-key-value: only its errors are used, so that who catches them catches ours.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self, SupportsFloat
from urllib.parse import quote

import msgspec

from holdfast.clock import SYSTEM, Clock
from holdfast.codec import serialise
from holdfast.errors import MissingExtra, ObjectConflict, ObjectCorrupt, ObjectNotFound, UsageError
from holdfast.objects import AsyncObjectStore, ObjectInfo, ObjectStore, open_store

try:
    from key_value.aio.errors import InvalidTTLError, SerializationError
except ImportError as error:  # pragma: no cover - tests/house has a bare install
    raise MissingExtra("py-key-value is not installed", hint="pip install 'holdfast[key-value]'") from error

COLLECTION: Final = "default_collection"
"""As in py-key-value, where none is said."""
AT_ONCE: Final = 16
_NAME_MAX: Final = 180
_SAFE: Final = " !#$&'()+,;=@[]^{}~"
_JSON: Final = "application/json"


class Entry(msgspec.Struct):
    """What lies in the store under a key: a value with all that is known of it."""

    collection: str
    key: str
    value: dict[str, Any]
    created: datetime
    expires: datetime | None = None


class KeyValue:
    """Dictionaries by key and collection, with a time to live, on an object store.

    What is expired is never returned, and goes with `cull`. Values are what JSON can say; one that JSON would change
    silently (a date, NaN, a key that is a number) is refused. Each call returns when the store has it: on SQLite and
    files it survives a power cut.

    Args:
        store: an object store, or the address of one; see `open_store`.
        default_collection: where no collection is said.
        wall: the clock.
    """

    def __init__(self, store: ObjectStore | str, *, default_collection: str = COLLECTION, wall: Clock = SYSTEM) -> None:
        self._store = AsyncObjectStore(open_store(store) if isinstance(store, str) else store, threads=AT_ONCE)
        self._owned = isinstance(store, str)
        self.default_collection = default_collection
        self._wall = wall

    async def get(self, key: str, *, collection: str | None = None) -> dict[str, Any] | None:
        """The value, or None where there is none or it is expired.

        Raises:
            ObjectCorrupt: what lies there is no value of ours.
            StorageUnavailable: the store does not answer.
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
            StorageFull: no room; the old value is there.
        """
        await self.put_many([key], [value], collection=collection, ttl=ttl)

    async def delete(self, key: str, *, collection: str | None = None) -> bool:
        """Removes a value; False if there was none, or it was expired."""
        there = await self._live(key, collection) is not None
        return await self._store.delete(self._name(key, collection)) and there

    async def get_many(self, keys: Sequence[str], *, collection: str | None = None) -> list[dict[str, Any] | None]:
        """The values in the order of their keys, None where there is none."""
        return list(await _at_once([self.get(key, collection=collection) for key in keys]))

    async def ttl_many(
        self, keys: Sequence[str], *, collection: str | None = None
    ) -> list[tuple[dict[str, Any] | None, float | None]]:
        """The values with the seconds that are left to each, in the order of their keys."""
        return list(await _at_once([self.ttl(key, collection=collection) for key in keys]))

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
        bodies = []
        for key, value in zip(keys, values, strict=True):
            if not isinstance(value, Mapping):
                raise TypeError(f"a value is a mapping, not {type(value).__name__}")
            entry = Entry(room, key, dict(value), now, expires)
            bodies.append((self._name(key, room), _body(entry)))
        await _at_once([self._store.put(name, body, content_type=_JSON) for name, body in bodies])

    async def delete_many(self, keys: Sequence[str], *, collection: str | None = None) -> int:
        """Removes several values; how many there were."""
        return sum(await _at_once([self.delete(key, collection=collection) for key in keys]))

    async def keys(self, collection: str | None = None, *, limit: int | None = None) -> list[str]:
        """The keys of a collection that are not expired, at most so many."""
        found: list[str] = []
        if limit is not None and limit <= 0:
            return found
        async for _, entry in self._entries(f"{_segment(collection or self.default_collection)}/"):
            if not self._expired(entry):
                found.append(entry.key)
                if len(found) == limit:
                    break
        return found

    async def collections(self, *, limit: int | None = None) -> list[str]:
        """The names of the collections in which anything lies, at most so many."""
        found: dict[str, None] = {}
        after = ""
        while limit is None or len(found) < limit:
            try:
                first = await anext(self._store.list(after=after, limit=1))
            except StopAsyncIteration:
                break
            entry = await self._read(first.key)
            if entry is not None:
                found[entry.collection] = None
            # Past all keys of this collection: 0 is the sign behind the slash.
            after = first.key.partition("/")[0] + "0"
        return list(found)

    async def cull(self) -> None:
        """Removes what is expired, and nothing that was written meanwhile.

        Raises:
            StorageRefused: the store cannot delete just what was looked at (it lacks ``swap-delete``).
        """
        async for info, entry in self._entries(""):
            if self._expired(entry):
                try:
                    await self._store.delete(info.key, expect=info.etag)
                except ObjectConflict:
                    continue

    async def destroy(self) -> bool:
        """Removes everything of every collection."""
        return await self._clear("")

    async def destroy_collection(self, collection: str) -> bool:
        """Removes everything of a collection; False if there was nothing."""
        return await self._clear(f"{_segment(collection)}/")

    async def close(self) -> None:
        """Closes the store, if it was opened here."""
        if self._owned:
            await self._store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _clear(self, prefix: str) -> bool:
        names = [info.key async for info in self._store.list(prefix)]
        return any(await _at_once([self._store.delete(name) for name in names]))

    async def _entries(self, prefix: str) -> AsyncIterator[tuple[ObjectInfo, Entry]]:
        async for info in self._store.list(prefix):
            entry = await self._read(info.key)
            if entry is not None:
                yield info, entry

    async def _live(self, key: str, collection: str | None) -> Entry | None:
        entry = await self._read(self._name(key, collection))
        return None if entry is None or self._expired(entry) else entry

    async def _read(self, name: str) -> Entry | None:
        try:
            body = await self._store.read(name)
        except ObjectNotFound:
            return None
        try:
            return _decode(body)
        except msgspec.MsgspecError as error:
            raise ObjectCorrupt(f"{name!r:.200} in {self._store.name} is no value of a key: {error}") from error

    def _expired(self, entry: Entry) -> bool:
        return entry.expires is not None and entry.expires <= self._now()

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._wall.now_ms() / 1000, UTC)

    def _name(self, key: str, collection: str | None) -> str:
        return f"{_segment(collection or self.default_collection)}/{_segment(key)}"


_decode: Final = msgspec.json.Decoder(Entry).decode


def _body(entry: Entry) -> bytes:
    """The entry as JSON; its value as strictly as all of our JSON."""
    try:
        _, value = serialise(entry.value)
        return msgspec.json.encode(msgspec.structs.asdict(entry) | {"value": msgspec.Raw(value)})
    except (TypeError, ValueError) as error:
        raise SerializationError(f"failed to serialize {entry.key!r:.80}: {error}") from error


def _segment(name: str) -> str:
    """A text as a segment of an object's key, one to one; a long one by its digest (it stands in the entry)."""
    if not isinstance(name, str):
        raise TypeError(f"keys and collections are text, not {type(name).__name__}: {name!r:.80}")
    encoded = name.encode("utf-8", "surrogatepass")
    quoted = (
        quote(encoded, safe=_SAFE)
        if name not in ("", ".", "..")
        else f"%-{quote(encoded, safe='').replace('.', '%2E')}"
    )
    if len(quoted) > _NAME_MAX:
        return f"%={hashlib.sha256(encoded).hexdigest()}"
    return quoted


def _seconds(ttl: SupportsFloat) -> float:
    try:
        seconds = math.nan if isinstance(ttl, bool) else float(ttl)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InvalidTTLError(ttl=ttl)
    return seconds


async def _at_once(calls: Sequence[Any]) -> list[Any]:
    """What the calls return; raises what the first that failed raised, when all are over."""
    if len(calls) == 1:
        return [await calls[0]]
    done = await asyncio.gather(*calls, return_exceptions=True)
    for result in done:
        if isinstance(result, BaseException):
            raise result
    return done

"""What a key-value store keeps its entries in: objects of any store, or records in an agent's log or at a hub."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from holdfast.codec import serialise
from holdfast.collections.typed import Collection
from holdfast.errors import Conflict, ObjectCorrupt, ObjectNotFound
from holdfast.integrations.place import Place, segment, settled
from holdfast.objects import AsyncObjectStore, ObjectStore
from holdfast.query import EVERYTHING, Condition, where

AT_ONCE: Final = 16
IN_PLACE_BYTES: Final = 16 << 10
_JSON: Final = "application/json"


class Entry(msgspec.Struct):
    """What lies under a key: a value with all that is known of it."""

    collection: str
    key: str
    value: dict[str, Any]
    created: datetime
    expires: datetime | None = None


class Kept(Entry):
    """An entry as a record: `room` is the segment of its collection, which is short enough for an index."""

    room: str = ""


class Found(NamedTuple):
    """An entry with its name, and the mark of the write that it is of."""

    name: str
    mark: Any
    entry: Entry


class Entries(Protocol):
    """Entries by name: the segment of a collection, a slash, and that of a key."""

    async def read(self, name: str) -> Entry | None:
        """The entry; None if there is none."""
        ...

    async def put(self, name: str, entry: Entry, body: bytes) -> None:
        """Stores one, whose JSON is `body`, in place of what is there."""
        ...

    async def delete(self, name: str, mark: Any = None) -> bool:
        """Takes one away, with a mark only that one; False if there is none, or another by now."""
        ...

    def every(self, collection: str | None = None) -> AsyncIterator[Found]:
        """All entries, or those of a collection."""
        ...

    async def collections(self, limit: int | None) -> list[str]:
        """The names of the collections in which anything lies, at most so many."""
        ...

    async def close(self) -> None:
        """Closes what was opened for it."""
        ...


class AsObjects:
    """Entries as objects, each its own JSON.

    Args:
        store: in which.
        owned: whether to close it.
    """

    def __init__(self, store: ObjectStore, owned: bool) -> None:
        self._store = AsyncObjectStore(store, threads=AT_ONCE)
        self._owned = owned

    async def read(self, name: str) -> Entry | None:
        """See `Entries.read`.

        Raises:
            ObjectCorrupt: what lies there is no entry.
        """
        try:
            body = await self._store.read(name)
        except ObjectNotFound:
            return None
        try:
            return _decode(body)
        except msgspec.MsgspecError as error:
            raise ObjectCorrupt(f"{name!r:.200} in {self._store.name} is no value of a key: {error}") from error

    async def put(self, name: str, entry: Entry, body: bytes) -> None:
        """See `Entries.put`."""
        await self._store.put(name, body, content_type=_JSON)

    async def delete(self, name: str, mark: Any = None) -> bool:
        """See `Entries.delete`."""
        try:
            return await self._store.delete(name, expect=mark)
        except Conflict:
            return False

    async def every(self, collection: str | None = None) -> AsyncIterator[Found]:
        """See `Entries.every`."""
        async for info in self._store.list("" if collection is None else f"{segment_of(collection)}/"):
            entry = await self.read(info.key)
            if entry is not None:
                yield Found(info.key, info.etag, entry)

    async def collections(self, limit: int | None) -> list[str]:
        """See `Entries.collections`."""
        found: dict[str, None] = {}
        after = ""
        while limit is None or len(found) < limit:
            try:
                first = await anext(self._store.list(after=after, limit=1))
            except StopAsyncIteration:
                break
            entry = await self.read(first.key)
            if entry is not None:
                found[entry.collection] = None
            # Past all keys of this collection: 0 is the sign behind the slash.
            after = first.key.partition("/")[0] + "0"
        return list(found)

    async def close(self) -> None:
        """See `Entries.close`."""
        if self._owned:
            await self._store.close()


class AsRecords:
    """Entries as records: each put is a version of its key, and goes where all records of its log go.

    Args:
        place: where.
        name: of the collection that holds them all.
    """

    def __init__(self, place: Place, name: str) -> None:
        self.place = place
        self.kept: Collection[Kept] = place.collection(name, Kept, index=("room",))
        # A small record of one's own is read and written in less time than a thread takes to wake.
        store = place.at_once(self.kept)
        self._quick = store is not None and not store._opened.level.full

    async def read(self, name: str) -> Entry | None:
        """See `Entries.read`."""
        if self._quick:
            return self.kept.get(name, default=None)
        return await settled(lambda: self.kept.get(name, default=None))

    async def put(self, name: str, entry: Entry, body: bytes) -> None:
        """See `Entries.put`."""
        kept = Kept(**msgspec.structs.asdict(entry), room=segment_of(entry.collection))
        if self._quick and len(body) <= IN_PLACE_BYTES:
            self.kept.put(name, kept)
        else:
            await settled(self.kept.put, name, kept)

    async def delete(self, name: str, mark: Any = None) -> bool:
        """See `Entries.delete`."""
        return await settled(self.place.take, self.kept, name, mark)

    async def every(self, collection: str | None = None) -> AsyncIterator[Found]:
        """See `Entries.every`."""
        condition: Condition = EVERYTHING if collection is None else where("room") == segment_of(collection)
        for item in await settled(lambda: list(self.place.every(self.kept, condition))):
            yield Found(item.key, item.version, item.value)

    async def collections(self, limit: int | None) -> list[str]:
        """See `Entries.collections`."""
        return await settled(self._collections, limit)

    async def history(self, name: str, limit: int) -> list[tuple[Kept, int]]:
        """What an entry was, newest first, each with its version."""
        return await settled(lambda: list(self.place.past(self.kept, name, limit)))

    async def close(self) -> None:
        """See `Entries.close`."""
        self.place.close()

    def _collections(self, limit: int | None) -> list[str]:
        whose = self.place.whose
        rooms = [each.by for each in self.kept.aggregate(by="room", agent=whose)][:limit]
        found = [self.kept.first(where("room") == room, agent=whose) for room in rooms]
        return [each[1].collection for each in found if each is not None]


_decode: Final = msgspec.json.Decoder(Entry).decode


def body_of(entry: Entry) -> bytes:
    """The entry as JSON; its value as strictly as all of our JSON.

    Raises:
        TypeError, ValueError: JSON cannot say it, or would change it.
    """
    _, value = serialise(entry.value)
    return msgspec.json.encode(msgspec.structs.asdict(entry) | {"value": msgspec.Raw(value)})


def segment_of(name: str) -> str:
    """A collection or a key as a segment of a name, one to one; no object may be called like a step in a path.

    Raises:
        TypeError: it is no text.
    """
    if not isinstance(name, str):
        raise TypeError(f"keys and collections are text, not {type(name).__name__}: {name!r:.80}")
    return f"%-{name.replace('.', '%2E')}" if name in (".", "..") else segment(name)


async def at_once(calls: Sequence[Any]) -> list[Any]:
    """What the calls return; raises what the first that failed raised, when all are over."""
    if len(calls) == 1:
        return [await calls[0]]
    done = await asyncio.gather(*calls, return_exceptions=True)
    for result in done:
        if isinstance(result, BaseException):
            raise result
    return done

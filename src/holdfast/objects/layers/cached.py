"""Objects kept in this process's memory, so that reading them again asks nobody.

What was written through this layer is never answered with what was there before, in no order of threads: a write takes
the object out before it begins, and nothing that was read while it went on is kept. What other processes write is seen
after `ttl_s` at the latest; with ``check=True`` at once, for one `head` a read. Listings are not kept.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, Final

import msgspec

from holdfast.errors import ObjectNotFound, StorageRefused
from holdfast.objects.keys import check_key
from holdfast.objects.layers.layer import CACHED, Layer
from holdfast.objects.port import TYPE, Content, Expect, ObjectInfo, ObjectStore, Source, check_range

BYTES_MAX: Final = 64 << 20
TTL_S: Final = 300.0
_PART: Final = 8
"""An object of more than this part of the budget would push out too many others."""
_ENTRY: Final = 600
"""Bytes that an entry takes beside its key, metadata and body: measured with tracemalloc, rounded up."""


class CacheStats(msgspec.Struct, frozen=True, kw_only=True):
    """What a cache did since it was made."""

    hits: int
    misses: int
    evictions: int
    """Taken out for want of room, not because of a write or their age."""
    bytes: int
    """Kept now, with what keeping them takes."""
    entries: int


class _Entry:
    __slots__ = ("body", "cost", "info", "until")

    def __init__(self, info: ObjectInfo, body: bytes | None, until: float) -> None:
        self.info = info
        self.body = body
        self.until = until
        words = sum(len(name) + len(value) + 100 for name, value in info.metadata.items())
        self.cost = _ENTRY + len(info.key) + words + len(body or b"")


class _Reading:
    """A read under way; what it finds may be kept unless a write began or ended meanwhile."""

    __slots__ = ("spoiled",)

    def __init__(self, spoiled: bool) -> None:
        self.spoiled = spoiled


class _Writing:
    """The writes under way to one key."""

    __slots__ = ("count", "together")

    def __init__(self) -> None:
        self.count = 0
        self.together = False


class Cached(Layer):
    """Answers reads from memory where it can; every write goes through to the store first.

    Whole objects are kept; ranges and `head` are answered from them. An error, a missing object and an object of more
    than an eighth of the budget are never kept.

    Args:
        inner: where the objects are.
        bytes_max: the most bytes of memory; the least recently used go first.
        ttl_s: for how many seconds an answer is good.
        check: ask the store with `head` at every read whether the object is still the same: answers are then never old.
        clock: seconds that only grow.

    Raises:
        StorageRefused: a budget or a time below zero.
    """

    kind: ClassVar[str] = CACHED

    def __init__(
        self,
        inner: ObjectStore,
        *,
        bytes_max: int = BYTES_MAX,
        ttl_s: float = TTL_S,
        check: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not (bytes_max >= 0 and ttl_s >= 0):  # nor NaN, by which nothing would ever be too old
            raise StorageRefused(f"not a budget or a time: bytes_max={bytes_max!r}, ttl_s={ttl_s!r}", hint="0 or more")
        super().__init__(inner)
        self._bytes_max = bytes_max
        self._ttl_s = ttl_s
        self._check = check
        self._clock = clock
        self._hits = self._misses = self._evictions = 0
        self._empty()

    def put(
        self,
        key: str,
        data: Source,
        *,
        content_type: str = TYPE,
        metadata: Mapping[str, str] | None = None,
        expect: Expect = None,
    ) -> ObjectInfo:
        self._open()
        check_key(key)
        body = (
            bytes(data)
            if isinstance(data, bytes | bytearray | memoryview) and self._fits(memoryview(data).nbytes)
            else None
        )
        with self._writing(key) as kept:
            source, until = data if body is None else body, self._until()
            info = self.inner.put(key, source, content_type=content_type, metadata=metadata, expect=expect)
            if body is not None:
                kept.append(_Entry(_copied(info), body, until))
        return info

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
        self._open()
        check_range(start, stop)
        check_key(key)
        entry = self._found(key, body=True)
        if entry is not None and entry.body is not None:
            return Content(_copied(entry.info), (entry.body[start:stop],))  # of all of it, bytes make no copy
        if start or stop is not None:
            return self.inner.get(key, start=start, stop=stop)
        with self._reading(key) as reading:
            content = self.inner.get(key)
            if not self._fits(content.info.size):
                return content
            until = self._until()
            with content:
                body = content.read()
            self._keep(reading, _Entry(_copied(content.info), body, until))
        return Content(content.info, (body,))

    def head(self, key: str) -> ObjectInfo:
        self._open()
        check_key(key)
        if self._check:
            return self.inner.head(key)
        entry = self._found(key, body=False)
        if entry is not None:
            return _copied(entry.info)
        with self._reading(key) as reading:
            until = self._until()
            info = self.inner.head(key)
            self._keep(reading, _Entry(_copied(info), None, until))
        return info

    def delete(self, key: str, *, expect: str | None = None) -> bool:
        self._open()
        check_key(key)
        with self._writing(key):
            return self.inner.delete(key, expect=expect)

    def forget(self, key: str | None = None) -> None:
        """Takes an object out of the cache, or all of them: for who knows that somebody else wrote."""
        with self._lock:
            for each in [key] if key is not None else list(self._entries):
                self._drop(each)
            for readings in [self._readings.get(key, ())] if key is not None else list(self._readings.values()):
                for reading in readings:
                    reading.spoiled = True

    def stats(self) -> CacheStats:
        """What the cache did, and what it has."""
        with self._lock:
            return CacheStats(
                hits=self._hits,
                misses=self._misses,
                evictions=self._evictions,
                bytes=self._bytes,
                entries=len(self._entries),
            )

    def close(self) -> None:
        """Forgets everything, and closes the store below."""
        self.forget()
        super().close()

    def forked(self) -> None:
        # Another thread of the parent may have been in the middle of a change: the child begins with nothing.
        self._empty()

    # -- inside -------------------------------------------------------------------------------------------------

    def _empty(self) -> None:
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._bytes = 0
        self._readings: dict[str, list[_Reading]] = {}
        self._writings: dict[str, _Writing] = {}

    def _fits(self, size: int) -> bool:
        return (size + _ENTRY) * _PART <= self._bytes_max

    def _until(self) -> float:
        """Until when an answer is good that is asked for now: its age counts from before the question."""
        return self._clock() + self._ttl_s

    def _found(self, key: str, *, body: bool) -> _Entry | None:
        """What is kept of an object and still good."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and entry.until <= self._clock() and not self._check:
                self._drop(key)
                entry = None
            if entry is None or (body and entry.body is None):
                self._misses += 1
                return None
            if not self._check:
                self._entries.move_to_end(key)
                self._hits += 1
                return entry
        current = None
        with contextlib.suppress(ObjectNotFound):
            current = self.inner.head(key)
        with self._lock:
            if current is not None and current.etag == entry.info.etag:
                if key in self._entries:
                    self._entries.move_to_end(key)
                self._hits += 1
                return entry
            if self._entries.get(key) is entry:
                self._drop(key)
            self._misses += 1
        return None

    @contextlib.contextmanager
    def _reading(self, key: str) -> Iterator[_Reading]:
        with self._lock:
            # While a write goes on, this may be the old one, and another reader may have seen the new one already.
            reading = _Reading(spoiled=key in self._writings)
            self._readings.setdefault(key, []).append(reading)
        try:
            yield reading
        finally:
            with self._lock:
                others = self._readings[key]
                others.remove(reading)
                if not others:
                    del self._readings[key]

    @contextlib.contextmanager
    def _writing(self, key: str) -> Iterator[list[_Entry]]:
        """A write of this key; what lies in the list at its end is kept, unless there were two at a time."""
        with self._lock:
            self._drop(key)
            self._spoil(key)
            writing = self._writings.setdefault(key, _Writing())
            writing.together = writing.count > 0 or writing.together
            writing.count += 1
        kept: list[_Entry] = []
        try:
            yield kept
        finally:
            with self._lock:
                writing.count -= 1
                if not writing.count:
                    del self._writings[key]
                if kept and not writing.together:
                    self._add(kept[0])

    def _spoil(self, key: str) -> None:
        for reading in self._readings.get(key, ()):
            reading.spoiled = True

    def _keep(self, reading: _Reading, entry: _Entry) -> None:
        with self._lock:
            held = self._entries.get(entry.info.key)
            if reading.spoiled or self._closed:
                return
            # A body says more than a head that was asked for at the same time.
            if held is not None and entry.body is None and held.body is not None:
                return
            self._add(entry)

    def _add(self, entry: _Entry) -> None:
        self._drop(entry.info.key)
        if entry.cost > self._bytes_max:
            return
        self._entries[entry.info.key] = entry
        self._bytes += entry.cost
        while self._bytes > self._bytes_max:
            _, oldest = self._entries.popitem(last=False)
            self._bytes -= oldest.cost
            self._evictions += 1

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry.cost


def _copied(info: ObjectInfo) -> ObjectInfo:
    """With metadata of its own, for its caller may change the dictionary."""
    return msgspec.structs.replace(info, metadata=dict(info.metadata)) if info.metadata else info

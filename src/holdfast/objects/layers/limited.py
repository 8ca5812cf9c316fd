"""A store of which so much may be used and no more: objects, bytes, and bytes of one object.

What a write needs is reserved before it begins, so any number of threads together cannot pass a quota. Other processes'
writes are learnt by listing, every `refresh_s`: several processes may pass it by what they write within that time.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import EllipsisType
from typing import ClassVar, Final

import msgspec

from holdfast.errors import ObjectConflict, ObjectNotFound, StorageDenied, StorageFull, StorageRefused
from holdfast.objects.keys import check_key, check_prefix
from holdfast.objects.layers.layer import LIMITED, Layer
from holdfast.objects.port import TYPE, Expect, ObjectInfo, ObjectStore, Source, check_put
from holdfast.objects.raw import pieces_of

REFRESH_S: Final = 300.0
_NOTHING_DONE: Final = (ObjectConflict, ObjectNotFound, StorageDenied, StorageFull, StorageRefused)
"""After these errors the store is as it was."""


class Quotas(msgspec.Struct, frozen=True, kw_only=True):
    """What may be stored below a prefix; None: any amount."""

    objects_max: int | None = None
    bytes_max: int | None = None
    """Of all objects together, as the store below the layer lists them."""
    object_bytes_max: int | None = None
    """Of one object."""
    prefix: str = ""
    """Only keys that begin so count, and only they are held to it."""


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """What is used, with what writes under way have reserved."""

    objects: int
    bytes: int


class _Writing:
    """The writes under way to one key, what they reserved beyond the object that was there, and what they left."""

    __slots__ = ("after", "changes", "count", "object", "reserved")

    def __init__(self) -> None:
        self.count = 0
        self.object = False
        self.reserved = 0
        self.changes = 0
        self.after: int | EllipsisType | None = ...


class _Share:
    """One write: what it reserved, and what it left there."""

    __slots__ = ("after", "reserved", "size")

    def __init__(self) -> None:
        self.size = 0
        self.reserved = 0
        self.after: int | EllipsisType | None = ...
        """The size of the object after it, None if there is none; as long as nobody knows: ``...``."""


class Limited(Layer):
    """Refuses what would pass a quota, before anything is written; a stream as soon as it passes it.

    The size of every object that counts is held in memory, about 150 bytes for each. They are learnt by listing, at the
    first write.

    Args:
        inner: where the objects go. Sizes are as the caller of this layer sees them: over `Compressed`, plain ones.
        quotas: see there; put several layers over each other for several prefixes.
        refresh_s: after so many seconds the next write lists anew what is there.
        clock: seconds that only grow.

    Raises:
        StorageRefused: a quota below zero, or a prefix that no key begins with.
    """

    kind: ClassVar[str] = LIMITED

    def __init__(
        self,
        inner: ObjectStore,
        quotas: Quotas,
        *,
        refresh_s: float = REFRESH_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        amounts = (quotas.objects_max, quotas.bytes_max, quotas.object_bytes_max)
        if any(most is not None and most < 0 for most in amounts):
            raise StorageRefused(f"a quota below zero: {quotas}", hint="0 or more; None is no limit")
        check_prefix(quotas.prefix)
        super().__init__(inner)
        self.quotas = quotas
        self._refresh_s = refresh_s
        self._clock = clock
        self._sizes: dict[str, int] = {}
        self._bytes = 0
        self._learnt: float | None = None
        self._since: dict[str, int | None] | None = None
        self._fresh_locks()

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
        if not check_key(key).startswith(self.quotas.prefix):
            return self.inner.put(key, data, content_type=content_type, metadata=metadata, expect=expect)
        check_put(self, content_type, metadata, expect)  # a bad call is told so, however full it is
        self._learn()
        with self._writing(key) as share:
            self._grow(key, share, memoryview(data).nbytes if isinstance(data, bytes | bytearray | memoryview) else 0)
            body = data if share.size else self._counted(key, share, pieces_of(data))
            info = self.inner.put(key, body, content_type=content_type, metadata=metadata, expect=expect)
            share.after = info.size
        return info

    def delete(self, key: str, *, expect: str | None = None) -> bool:
        self._open()
        if not check_key(key).startswith(self.quotas.prefix):
            return self.inner.delete(key, expect=expect)
        with self._writing(key) as share:
            found = self.inner.delete(key, expect=expect)
            share.after = None
        return found

    def used(self) -> Used:
        """What is used now of the quotas, as far as this process knows.

        Raises:
            StorageUnavailable: the store could not be listed.
        """
        self._open()
        self._learn()
        with self._lock:
            return self._used()

    def refresh(self) -> Used:
        """Lists what is there, and returns it: to be called when others wrote.

        Raises:
            StorageUnavailable: the store could not be listed.
        """
        self._open()
        with self._learning:
            self._relearn()
        with self._lock:
            return self._used()

    def forked(self) -> None:
        self._fresh_locks()
        self._learnt, self._since = None, None

    # -- inside -------------------------------------------------------------------------------------------------

    def _fresh_locks(self) -> None:
        self._lock = threading.Lock()
        self._learning = threading.Lock()
        self._writings: dict[str, _Writing] = {}

    def _used(self) -> Used:
        new = sum(writing.object and key not in self._sizes for key, writing in self._writings.items())
        reserved = sum(writing.reserved for writing in self._writings.values())
        return Used(objects=len(self._sizes) + new, bytes=self._bytes + reserved)

    def _learn(self) -> None:
        """Lists, if nobody knows what is there, or what is known is too old."""
        learnt = self._learnt
        if learnt is not None and self._clock() < learnt + self._refresh_s:
            return
        # Who knows something old lets another thread list; who knows nothing waits for it.
        if self._learning.acquire(blocking=learnt is None):
            try:
                if self._learnt is learnt:
                    self._relearn()
            finally:
                self._learning.release()

    def _relearn(self) -> None:
        begun = self._clock()
        with self._lock:
            self._since = {}
        try:
            found = {info.key: info.size for info in self.inner.list(self.quotas.prefix)}
        except BaseException:
            with self._lock:
                self._since = None
            raise
        with self._lock:
            # What was written while the listing went on may be in it or not.
            for key, size in (self._since or {}).items():
                if size is None:
                    found.pop(key, None)
                else:
                    found[key] = size
            self._sizes, self._bytes = found, sum(found.values())
            self._learnt, self._since = begun, None

    @contextlib.contextmanager
    def _writing(self, key: str) -> Iterator[_Share]:
        share = _Share()
        with self._lock:
            writing = self._writings.setdefault(key, _Writing())
            writing.count += 1
        changed = True
        try:
            yield share
        except _NOTHING_DONE:
            changed = False
            raise
        finally:
            self._settle(key, writing, share, changed)

    def _settle(self, key: str, writing: _Writing, share: _Share, changed: bool) -> None:
        """Counts what is there now, in place of what was reserved."""
        with self._lock:
            if changed:
                writing.changes += 1
                # Of two that changed it at a time, nobody knows who was the last.
                writing.after = share.after if writing.changes == 1 else ...
            else:
                writing.reserved -= share.reserved
        looked = False
        while True:
            with self._lock:
                last = writing.count == 1
                if not last or not writing.changes or writing.after is not ... or looked:
                    writing.count -= 1
                    if last:
                        self._count(key, writing)
                    return
            # It stays registered while it looks, so that another write cannot come and go unseen.
            found = self._look_at(key)
            with self._lock:
                if writing.count == 1:
                    writing.after, looked = found, True

    def _count(self, key: str, writing: _Writing) -> None:
        del self._writings[key]
        if not writing.changes:
            return
        if writing.after is not ...:
            self._note(key, writing.after)
            return
        # The store does not answer: as much as may be there is counted, until the next write has listed.
        if writing.object or key in self._sizes:
            self._note(key, self._sizes.get(key, 0) + writing.reserved)
        self._learnt = None if self._learnt is None else -math.inf

    def _look_at(self, key: str) -> int | EllipsisType | None:
        try:
            return self.inner.head(key).size
        except ObjectNotFound:
            return None
        except Exception:  # whatever it is, the write's own outcome is what the caller is told
            return ...

    def _grow(self, key: str, share: _Share, more: int) -> None:
        """Reserves what a write needs, if there is room for it.

        Raises:
            StorageFull: there is not; which quota, and the figures.
        """
        quotas = self.quotas
        share.size += more
        if quotas.object_bytes_max is not None and share.size > quotas.object_bytes_max:
            raise self._full(key, "object_bytes_max", quotas.object_bytes_max, 0, share.size)
        with self._lock:
            writing, used = self._writings[key], self._used()
            new = key not in self._sizes and not writing.object
            if new and quotas.objects_max is not None and used.objects >= quotas.objects_max:
                raise self._full(key, "objects_max", quotas.objects_max, used.objects, 1)
            needed = max(0, share.size - self._sizes.get(key, 0)) - share.reserved
            if needed > 0:
                if quotas.bytes_max is not None and used.bytes + needed > quotas.bytes_max:
                    raise self._full(key, "bytes_max", quotas.bytes_max, used.bytes, needed)
                writing.reserved += needed
                share.reserved += needed
            writing.object = writing.object or new

    def _counted(self, key: str, share: _Share, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._grow(key, share, len(piece))
            yield piece

    def _full(self, key: str, quota: str, limit: int, used: int, asked: int) -> StorageFull:
        where = f"below {self.quotas.prefix!r} in {self.name}" if self.quotas.prefix else f"in {self.name}"
        what = {
            "objects_max": f"{used} objects {where}, {limit} are allowed",
            "bytes_max": f"{used} bytes {where}, {limit} are allowed, and this object needs {asked} more",
            "object_bytes_max": f"an object of {asked} bytes or more, {limit} are allowed {where}",
        }[quota]
        return StorageFull(
            f"quota {quota}: {what}", hint="delete some, or raise it", key=key, quota=quota, limit=limit, used=used
        )

    def _note(self, key: str, size: int | None) -> None:
        self._bytes += (size or 0) - self._sizes.pop(key, 0)
        if size is not None:
            self._sizes[key] = size
        if self._since is not None:
            self._since[key] = size

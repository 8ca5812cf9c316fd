"""The journal of a fallback: what waits, the newest write of each key, as it lies in a store."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from typing import Final, Literal

from holdfast import clock
from holdfast.errors import HoldfastError, ObjectNotFound
from holdfast.objects.layers.waiting import PENDING, Waiting, Written, found, keep, proof
from holdfast.objects.port import TYPE, ObjectStore, Source

_BEFORE_MAX: Final = 32


class Journal:
    """What waits in a store, read when it is first asked for. Any thread may use it; a key's writers take turns.

    Args:
        store: where it lies.
        now_ms: the wall clock.
    """

    def __init__(self, store: ObjectStore, now_ms: Callable[[], int]) -> None:
        self.store = store
        self._now_ms = now_ms
        self._stamp = 0
        self._known: dict[str, Waiting] | None = None
        self._lock = threading.RLock()

    def forked(self) -> None:
        """In a forked child: nobody is left who would open the parent's lock."""
        self._lock = threading.RLock()

    @property
    def empty(self) -> bool:
        """Whether it is known, without looking, that nothing waits."""
        return self._known == {}

    def refresh(self) -> None:
        """The store may hold what it was told or not: it is read again before anything else is done.

        Else a write of which nobody was told that it waits would come back after a later deletion.
        """
        with self._lock:
            self._known = None

    def all(self) -> dict[str, Waiting]:
        """What waits, by key.

        Raises:
            StorageUnavailable: the store does not answer.
        """
        with self._lock:
            return dict(self._loaded())

    def of(self, key: str) -> Waiting | None:
        """The write of a key that waits."""
        known = self._known
        if known is not None:
            return known.get(key)
        with self._lock:
            return self._loaded().get(key)

    def add(self, write: Written, before: Waiting | None, data: Source) -> Waiting:
        """Keeps a write in place of the one that waited before; when it returns, a crash does not lose it."""
        try:
            made = keep(self.store, PENDING, write, data)
        except BaseException:
            self.refresh()
            raise
        with self._lock:
            self._loaded()[write.key] = made
        if before is not None:
            with contextlib.suppress(HoldfastError):  # the newer one counts, and it is there
                self._delete(before)
        return made

    def done(self, waits: Waiting) -> None:
        """Forgets a write.

        Raises:
            StorageUnavailable: it may still be there: then it waits on, and is brought once more.
        """
        self._delete(waits)
        with self._lock:
            self._loaded().pop(waits.write.key, None)

    def write(
        self,
        op: Literal["put", "delete"],
        key: str,
        before: Waiting | None,
        base: str | None,
        content_type: str = TYPE,
        metadata: Mapping[str, str] | None = None,
    ) -> Written:
        """What is to be kept of a write that is made now.

        Args:
            op, key, content_type, metadata: the write.
            before: the write of this key that waits.
            base: the etag that the primary is known to have; that of `before` counts.
        """
        earlier: list[str] = []
        if before is not None:
            base = before.write.base
            earlier = before.write.before[-_BEFORE_MAX:]
            if before.write.op == "put":
                earlier = [*earlier, proof(self.store, before).hex()]
        with self._lock:
            self._stamp = clock.tick(self._stamp, self._now_ms())
            stamp = self._stamp
        return Written(
            op=op,
            key=key,
            stamp=stamp,
            content_type=content_type,
            metadata=dict(metadata or {}),
            base=base,
            before=earlier,
        )

    def _delete(self, waits: Waiting) -> None:
        try:
            self.store.delete(waits.name)
        except HoldfastError:
            self.refresh()
            raise

    def _loaded(self) -> dict[str, Waiting]:
        if self._known is None:
            known: dict[str, Waiting] = {}
            for info in self.store.list(PENDING):
                try:
                    each = found(self.store, info)
                except ObjectNotFound:
                    continue  # it has caught up in this moment
                older = known.get(each.write.key)
                if older is not None:  # a crash between a write and the removal of the one before
                    older, each = sorted((older, each), key=lambda one: one.write.stamp)
                    self.store.delete(older.name)
                known[each.write.key] = each
                self._stamp = max(self._stamp, each.write.stamp)
            self._known = known
        return self._known

"""Every write to a second store too. A write counts when the first store has it; what the mirror missed catches up.

What the mirror missed is noted durably before the call returns, as a key and nothing more: catching up makes the
mirror's object what the first store's is then, or removes it, reads it back and compares digests. So an old note does
no harm, and the order of notes does not matter.

A crash in the middle of a write that nobody was told of may leave the mirror behind without a note; `verify` finds
that, and ``ahead=True`` notes every write before it is made, for two more small writes each.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import ClassVar, Final

import msgspec

from holdfast import clock
from holdfast.errors import HoldfastError, ObjectCorrupt, ObjectNotFound, StorageUnavailable
from holdfast.objects.keys import check_key, check_limit, check_prefix
from holdfast.objects.layers.layer import MIRRORED, Layer
from holdfast.objects.layers.notes import NOTES, Notes
from holdfast.objects.layers.owing import (
    CatchUp,
    KeyLocks,
    alike,
    check_free,
    check_journal,
    digest_of,
    first_few,
    free_listing,
    hashing,
)
from holdfast.objects.layers.waiting import CONFLICTS, PENDING
from holdfast.objects.port import (
    STREAMS,
    SWAP,
    TYPE,
    Content,
    Expect,
    Health,
    ObjectInfo,
    ObjectStore,
    Source,
)
from holdfast.objects.raw import Bytes

_ROUNDS: Final = 8
_JOURNALS: Final = (NOTES, PENDING, CONFLICTS)
"""A mirror may be somebody's fallback too: what waits in it is no object that the first store has lost."""
_log: Final = logging.getLogger("holdfast.objects.mirrored")


class MirrorReport(msgspec.Struct, kw_only=True):
    """What a comparison of two stores found, by key."""

    checked: int = 0
    missing: list[str] = []
    """Not in the mirror."""
    different: list[str] = []
    """The mirror has other bytes, another type or other metadata."""
    damaged: list[str] = []
    """The first store's bytes are not what was stored; the mirror's are."""
    extra: list[str] = []
    """In the mirror alone: never removed, as the first store may have lost them. Delete or restore them yourself."""
    repaired: int = 0
    failed: dict[str, str] = {}
    """What could not be compared or repaired, and why."""

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not (self.missing or self.different or self.damaged or self.extra or self.failed)


class Mirrored(Layer):
    """A store and its mirror. Reads come from the store; one that says `ObjectCorrupt` is repaired from the mirror.

    Args:
        inner: the first store; it alone decides about conditions.
        mirror: gets every write after it.
        journal: where notes lie, under ``.holdfast/mirror/``; None: in the first store. Closed with this one.
        ahead: note every write before it is made.
        pause_s: seconds for which a mirror that failed is not tried again.
        clock: for tests.
    """

    kind: ClassVar[str] = MIRRORED

    def __init__(
        self,
        inner: ObjectStore,
        mirror: ObjectStore,
        *,
        journal: ObjectStore | None = None,
        ahead: bool = False,
        pause_s: float = 5.0,
        clock: clock.Clock = clock.SYSTEM,
    ) -> None:
        super().__init__(inner, mirror)
        self.mirror = mirror
        self.journal = journal or inner
        check_journal(MIRRORED, self.journal)
        self._ahead = ahead
        self._pause_s = pause_s
        self._clock = clock
        self._again = self._next = float("-inf")
        self._notes = Notes(self.journal)
        self._failed: dict[str, str] = {}
        self.forked()

    def forked(self) -> None:
        self._keys = KeyLocks()
        self._notes.forked()
        self._passing = threading.Lock()

    @property
    def lacks(self) -> frozenset[str]:  # type: ignore[override]
        return self.inner.lacks | self.mirror.lacks & {STREAMS}

    @property
    def quick(self) -> bool:  # type: ignore[override]
        return super().quick and self.journal.quick

    @property
    def lists_all(self) -> bool:  # type: ignore[override]
        return self.inner.lists_all

    # -- writing ------------------------------------------------------------------------------------------------

    def put(
        self,
        key: str,
        data: Source,
        *,
        content_type: str = TYPE,
        metadata: Mapping[str, str] | None = None,
        expect: Expect = None,
    ) -> ObjectInfo:
        self._begin(key)
        with self._keys.holding(key):
            with self._noted(key):
                info = self.inner.put(key, data, content_type=content_type, metadata=metadata, expect=expect)

            def follow() -> None:
                if isinstance(data, Bytes):
                    self.mirror.put(key, data, content_type=info.content_type, metadata=info.metadata)
                    if self._is_current(key, info.etag):
                        return
                self._copy(key, verify=False)

            self._follow(key, follow)
        return info

    def delete(self, key: str, *, expect: str | None = None) -> bool:
        self._begin(key)
        with self._keys.holding(key):
            with self._noted(key):
                was = self.inner.delete(key, expect=expect)
            self._follow(key, lambda: self._copy(key, verify=False))
        return was

    # -- reading ------------------------------------------------------------------------------------------------

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
        self._begin(key)
        try:
            first = self.inner.get(key, start=start, stop=stop)
        except ObjectCorrupt as damage:
            self._repair(key, damage)
            first = self.inner.get(key, start=start, stop=stop)
        return _Mended(self, key, first, start, stop)

    def read(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        self._begin(key)
        try:
            return self.inner.read(key, start=start, stop=stop)
        except ObjectCorrupt as damage:
            self._repair(key, damage)
            return self.inner.read(key, start=start, stop=stop)

    def head(self, key: str) -> ObjectInfo:
        self._begin(key)
        try:
            return self.inner.head(key)
        except ObjectCorrupt as damage:
            self._repair(key, damage)
            return self.inner.head(key)

    def list(self, prefix: str = "", *, after: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        self._open()
        check_prefix(prefix)
        check_limit(limit)
        self._pass_by()
        return self._free(prefix, after, limit)

    def _free(self, prefix: str, after: str, limit: int | None) -> Iterator[ObjectInfo]:
        if limit is not None and limit <= 0:
            return
        for number, info in enumerate(free_listing(self.inner, prefix, after, limit, (NOTES,)), 1):
            yield info
            if number == limit:
                return

    # -- catching up --------------------------------------------------------------------------------------------

    def catch_up(self) -> CatchUp:
        """Brings to the mirror all that it missed, proven; what it cannot take waits on.

        Raises:
            StorageUnavailable: the notes cannot be read; that the mirror does not answer is no error: see `left`.
        """
        self._open()
        self._notes.refresh()
        return self._catch_up(self._notes.owed())

    def pending(self) -> Sequence[str]:
        """The keys of which the mirror missed a write."""
        self._open()
        return sorted(self._notes.owed())

    def verify(self, *, deep: bool = True, repair: bool = True) -> MirrorReport:
        """Compares both stores object by object, and makes the mirror what the store is.

        What the first store has damaged is put back from the mirror, if the mirror's is whole.

        Args:
            deep: read every object on both sides and compare digests; else names, sizes, types and metadata.
            repair: mend what is found, each proven by reading back; else only say it.

        Raises:
            StorageUnavailable: a listing broke off.
        """
        self._open()
        report = MirrorReport()
        theirs = free_listing(self.mirror, "", "", None, _JOURNALS)
        other = next(theirs, None)
        for ours in free_listing(self.inner, "", "", None, _JOURNALS):
            while other is not None and other.key < ours.key:
                self._extra(other.key, report)
                other = next(theirs, None)
            report.checked += 1
            self._compare(ours.key, report, deep=deep, repair=repair)
            if other is not None and other.key == ours.key:
                other = next(theirs, None)
        while other is not None:
            self._extra(other.key, report)
            other = next(theirs, None)
        return report

    def health(self) -> Health:
        first, mirror = self.inner.health(), self.mirror.health()
        told = [*dict.fromkeys(each.degraded for each in (first, mirror, self.journal.health()) if each.degraded)]
        if not mirror.ok:
            told.append(f"the mirror {mirror.store} is away: {mirror.error}")
        with contextlib.suppress(HoldfastError):
            if waiting := len(self._notes.owed()):
                told.append(f"writes of {waiting} keys wait for the mirror")
            told += [f"{key!r:.80} cannot catch up: {why}" for key, why in list(self._failed.items())[:3]]
        return msgspec.structs.replace(first, lacks=tuple(sorted(self.lacks)), degraded="; ".join(told))

    def close(self) -> None:
        super().close()
        self.journal.close()

    def _catch_up(self, keys: Iterable[str]) -> CatchUp:
        done = 0
        for key in keys:
            try:
                with self._keys.holding(key):
                    done += self._settle(key)
            except StorageUnavailable:
                self._away()
                break
            except HoldfastError as error:
                self._failed[key] = str(error)
        return CatchUp(done=done, left=len(self._notes.owed()), failed=dict(self._failed))

    def _settle(self, key: str) -> bool:
        if key not in self._notes:
            return False
        notes = self._notes.of(key)
        self._copy(key, verify=True)
        self._forget(key, notes)
        return True

    def _pass_by(self) -> None:
        """Catches up a little, if there is something and the mirror may be back."""
        now = self._clock.monotonic()
        if self._notes.none or self._paused() or now < self._next or not self._passing.acquire(blocking=False):
            return
        try:
            with contextlib.suppress(HoldfastError):  # a read or a write of something else does not fail for it
                some = first_few(self._notes.owed(), self._failed)
                self._catch_up(some)
                if any(key in self._failed for key in some):
                    self._next = self._clock.monotonic() + self._pause_s
        finally:
            self._passing.release()

    def _copy(self, key: str, *, verify: bool) -> None:
        """Makes the mirror's object what the first store's is."""
        for _ in range(_ROUNDS):
            try:
                content = self.inner.get(key)
            except ObjectNotFound:
                self.mirror.delete(key)
                if not self.inner.exists(key):
                    return
                continue
            sent = hashlib.sha256()
            with content:
                info = content.info
                self.mirror.put(key, hashing(content, sent), content_type=info.content_type, metadata=info.metadata)
            if verify:
                back, digest = digest_of(self.mirror.get(key))
                if digest != sent.digest() or not alike(back, info):
                    raise ObjectCorrupt(f"{key!r:.200} came back from {self.mirror.name} with other bytes", key=key)
            if self._is_current(key, info.etag):
                return
        raise StorageUnavailable(f"{key!r:.200} changes faster than it can be copied", key=key)

    def _is_current(self, key: str, etag: str) -> bool:
        """Whether nobody, in another process, wrote since: his copy may be older than ours, or ours than his."""
        try:
            return self.inner.head(key).etag == etag
        except ObjectNotFound:
            return False

    # -- notes --------------------------------------------------------------------------------------------------

    def _begin(self, key: str) -> None:
        self._open()
        check_key(key)
        check_free(key, NOTES)
        self._pass_by()

    @contextlib.contextmanager
    def _noted(self, key: str) -> Iterator[None]:
        """A write to the first store. Without an answer, whether the mirror missed it is not known: it is noted."""
        if self._ahead:
            self._note(key)
        try:
            yield
        except StorageUnavailable:
            with contextlib.suppress(HoldfastError):
                self._note(key)
            raise

    def _follow(self, key: str, follow: Callable[[], None]) -> None:
        """The mirror's half of a write; what it misses is noted, or the call fails."""
        if not self._paused():
            try:
                notes = self._notes.of(key)
                follow()
            except StorageUnavailable:
                self._away()
            except HoldfastError as error:
                self._failed[key] = str(error)
            else:
                self._forget(key, notes)
                return
        if not self._ahead:
            self._note(key)

    def _note(self, key: str) -> None:
        try:
            self._notes.add(key)
        except HoldfastError as error:
            raise StorageUnavailable(
                f"{key!r:.200} is written, but its mirror missed it, and that cannot be noted: {error}",
                hint="write it again, or call verify",
                key=key,
            ) from error

    def _forget(self, key: str, notes: Set[str]) -> None:
        self._notes.forget(key, notes)
        self._failed.pop(key, None)

    def _paused(self) -> bool:
        return self._clock.monotonic() < self._again

    def _away(self) -> None:
        self._again = self._clock.monotonic() + self._pause_s

    # -- repairing ----------------------------------------------------------------------------------------------

    def _repair(self, key: str, damage: ObjectCorrupt) -> None:
        """Puts the mirror's object in the place of the first store's damaged one.

        Raises:
            ObjectCorrupt: the damage, if the mirror has not the same object, whole.
        """
        with self._keys.holding(key):
            if key in self._notes:
                raise damage  # the mirror's is an older one
            try:
                known: ObjectInfo | None = self.inner.head(key)
            except (ObjectCorrupt, ObjectNotFound):
                known = None
            try:
                with self.mirror.get(key) as content:
                    info = content.info
                    if known is not None and not alike(known, info):
                        raise damage
                    expect = known.etag if known is not None and SWAP not in self.inner.lacks else None
                    self.inner.put(key, content, content_type=info.content_type, metadata=info.metadata, expect=expect)
            except HoldfastError as error:
                if error is damage:
                    raise
                raise damage from error
        _log.warning("%r in %s was damaged, and was repaired from %s", key, self.inner.name, self.mirror.name)

    def _extra(self, key: str, report: MirrorReport) -> None:
        try:
            if not self.inner.exists(key) and self.mirror.exists(key) and key not in self._notes:
                report.extra.append(key)
        except HoldfastError as error:
            report.failed[key] = str(error)

    def _compare(self, key: str, report: MirrorReport, *, deep: bool, repair: bool) -> None:
        try:
            found = self._difference(key, deep)
            if found is None:
                return
            getattr(report, found).append(key)
            if not repair:
                return
            if found == "damaged":
                self._repair(key, ObjectCorrupt(f"{key!r:.200} is damaged, and its mirror is not whole", key=key))
            else:
                with self._keys.holding(key):
                    notes = self._notes.of(key)
                    self._copy(key, verify=True)
                    self._forget(key, notes)
            report.repaired += 1
        except HoldfastError as error:
            report.failed[key] = str(error)

    def _difference(self, key: str, deep: bool) -> str | None:
        """missing, different, damaged, or None."""
        try:
            ours = digest_of(self.inner.get(key)) if deep else (self.inner.head(key), b"")
        except ObjectNotFound:
            return None  # deleted since it was listed
        except ObjectCorrupt:
            return "damaged"
        try:
            theirs = digest_of(self.mirror.get(key)) if deep else (self.mirror.head(key), b"")
        except ObjectNotFound:
            return "missing"
        except ObjectCorrupt:
            return "different"
        return None if ours[1] == theirs[1] and alike(ours[0], theirs[0]) else "different"


class _Mended(Content):
    """A body that is repaired where it turns out to be damaged, if what was handed out until then is right."""

    def __init__(self, store: Mirrored, key: str, first: Content, start: int, stop: int | None) -> None:
        super().__init__(first.info, self._all(store, key, start, stop))
        self._now = first

    def close(self) -> None:
        super().close()
        self._now.close()

    def _all(self, store: Mirrored, key: str, start: int, stop: int | None) -> Iterator[bytes]:
        sent, size = hashlib.sha256(), 0
        try:
            for piece in self._now:
                sent.update(piece)
                size += len(piece)
                yield piece
            return
        except ObjectCorrupt as error:
            damage = error
        finally:
            self._now.close()
        store._repair(key, damage)
        if size:
            _, again = digest_of(store.inner.get(key, start=start, stop=start + size))
            if again != sent.digest():
                raise damage  # what was handed out was wrong; the next read is right
        with store.inner.get(key, start=start + size, stop=stop) as rest:
            yield from rest

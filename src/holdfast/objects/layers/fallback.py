"""A store that goes on while another one is away: what missed the primary is kept, and catches up, proven.

The rules, which docs/adr/0029 explains:

* A write that the primary does not answer is put into the journal, whole and durable, before the call returns. From
  then on this layer answers for that key from the journal, until the primary has it.
* While a key waits, its later writes wait behind it: they go into the journal first, so that no crash puts an older
  one over a newer one.
* Catching up writes, reads back and compares digests, and only then forgets. Where somebody else wrote to the primary
  meanwhile, the later one stays, and the other one is kept under `conflicts`: no acknowledged byte is dropped.
* A condition (`expect`) is decided by the primary, or refused: a journal cannot promise that one writer wins.
* What only the primary can know is not guessed: a missing object and a listing are `StorageUnavailable` while it is
  away, unless the fallback is said to be a replica of it.
"""

from __future__ import annotations

import contextlib
import heapq
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Final, TypeVar

import msgspec

from holdfast import clock
from holdfast.errors import HoldfastError, ObjectNotFound, StorageUnavailable
from holdfast.objects.keys import check_key, check_limit, check_prefix
from holdfast.objects.layers import waiting as journal_of
from holdfast.objects.layers.bringing import Bringer
from holdfast.objects.layers.journal import Journal
from holdfast.objects.layers.layer import FALLBACK, Layer
from holdfast.objects.layers.owing import (
    CatchUp,
    KeyLocks,
    Replay,
    check_free,
    check_journal,
    first_few,
    free_listing,
)
from holdfast.objects.layers.waiting import CONFLICTS, PENDING
from holdfast.objects.port import (
    STREAMS,
    TYPE,
    Content,
    Expect,
    Health,
    ObjectInfo,
    ObjectStore,
    Source,
    check_put,
    check_range,
    not_found,
)

_SEEN_MAX: Final = 10_000
_ROUNDS: Final = 8
_OURS: Final = (PENDING, CONFLICTS)
T = TypeVar("T")


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A copy of an object that lost against another one."""

    name: str
    """For `Fallback.read_conflict` and `Fallback.drop_conflict`."""
    info: ObjectInfo


class Fallback(Layer):
    """The primary, and a second store for when it does not answer.

    One process at a time writes through a fallback: what another one has in the journal is seen after `catch_up`. A
    journal that cannot be read at the beginning leaves every call without an answer: nobody knows then what waits.

    Args:
        primary: asked first; it alone decides about conditions.
        fallback: holds what the primary missed; other objects in it are served while the primary is away, as they are.
        journal: where the writes wait instead, under ``.holdfast/``; closed with this one.
        replica: whether the fallback is kept as a copy of the primary: what it does not have is not there then.
        pause_s: seconds for which a primary that did not answer is not asked, if the fallback can answer.
        clock: for tests.
    """

    kind: ClassVar[str] = FALLBACK

    def __init__(
        self,
        primary: ObjectStore,
        fallback: ObjectStore,
        *,
        journal: ObjectStore | None = None,
        replica: bool = False,
        pause_s: float = 5.0,
        clock: clock.Clock = clock.SYSTEM,
    ) -> None:
        super().__init__(primary, fallback)
        self.fallback = fallback
        self.journal = journal or fallback
        check_journal(FALLBACK, self.journal)
        self._replica = replica
        self._pause_s = pause_s
        self._clock = clock
        self._again = self._next = float("-inf")
        self._seen: dict[str, str] = {}
        self._journal = Journal(self.journal, clock.now_ms)
        self._failed: dict[str, str] = {}
        self.forked()

    def forked(self) -> None:
        self._keys = KeyLocks()
        self._lock = threading.Lock()
        self._journal.forked()
        self._passing = threading.Lock()

    @property
    def lacks(self) -> frozenset[str]:  # type: ignore[override]
        return self.inner.lacks | (self.fallback.lacks | self.journal.lacks) & {STREAMS}

    @property
    def quick(self) -> bool:  # type: ignore[override]
        return super().quick and self.journal.quick

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
        kept = check_put(self, content_type, metadata, expect)
        body = Replay(data)
        try:
            with self._keys.holding(key):
                if expect is not None:
                    self._must_settle(key)
                waits = self._journal.of(key)
                if expect is not None or (waits is None and not self._paused()):
                    try:
                        info = self.inner.put(
                            key, body.again(), content_type=content_type, metadata=kept, expect=expect
                        )
                    except StorageUnavailable as error:
                        self._away()
                        if expect is not None:
                            raise _undecided(key, error) from error
                    else:
                        self._saw(key, info.etag)
                        return info
                write = self._journal.write("put", key, waits, self._seen.get(key), content_type, kept)
                mine = self._journal.add(write, waits, body.again())
                return self._try(key) or mine.info
        finally:
            body.close()

    def delete(self, key: str, *, expect: str | None = None) -> bool:
        """Removes an object; while the primary is away: True unless it is known that there was none."""
        self._begin(key)
        with self._keys.holding(key):
            if expect is not None:
                self._must_settle(key)
            waits = self._journal.of(key)
            if expect is not None or (waits is None and not self._paused()):
                try:
                    was = self.inner.delete(key, expect=expect)
                except StorageUnavailable as error:
                    self._away()
                    if expect is not None:
                        raise _undecided(key, error) from error
                else:
                    self._saw(key, "")
                    return was
            was = waits.write.op == "put" if waits is not None else True
            self._journal.add(self._journal.write("delete", key, waits, self._seen.get(key)), waits, b"")
            self._try(key)
            return was

    # -- reading ------------------------------------------------------------------------------------------------

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
        check_range(start, stop)
        self._begin(key)
        for _ in range(_ROUNDS):
            waits = self._journal.of(key)
            if waits is None:
                return self._asked(lambda store: store.get(key, start=start, stop=stop))
            if waits.write.op == "delete":
                raise not_found(self, key)
            with contextlib.suppress(ObjectNotFound):  # it has caught up in this moment
                return journal_of.body(self.journal, waits, start, stop)
        raise StorageUnavailable(f"{key!r:.200} is written faster than it can be read", key=key)

    def read(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        check_range(start, stop)
        self._begin(key)
        for _ in range(_ROUNDS):
            waits = self._journal.of(key)
            if waits is None:
                return self._asked(lambda store: store.read(key, start=start, stop=stop))
            if waits.write.op == "delete":
                raise not_found(self, key)
            with contextlib.suppress(ObjectNotFound):
                if start == 0 and stop is None:
                    return b"".join(journal_of.proven(self.journal, waits))
                return journal_of.body(self.journal, waits, start, stop).read()
        raise StorageUnavailable(f"{key!r:.200} is written faster than it can be read", key=key)

    def head(self, key: str) -> ObjectInfo:
        self._begin(key)
        waits = self._journal.of(key)
        if waits is None:
            return self._asked(lambda store: store.head(key))
        if waits.write.op == "delete":
            raise not_found(self, key)
        return waits.info

    def list(self, prefix: str = "", *, after: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        self._open()
        check_prefix(prefix)
        check_limit(limit)
        self._pass_by()
        return self._merged(prefix, after, limit)

    def _asked(self, call: Callable[[ObjectStore], T]) -> T:
        """What the primary says of a key that does not wait; while it is away, what the fallback has."""
        if self._paused():
            try:
                return call(self.fallback)
            except StorageUnavailable:
                pass
            except ObjectNotFound:
                if self._replica:
                    raise
        try:
            return call(self.inner)
        except StorageUnavailable as error:
            self._away()
            try:
                return call(self.fallback)
            except ObjectNotFound:
                if self._replica:
                    raise
            raise error

    def _merged(self, prefix: str, after: str, limit: int | None) -> Iterator[ObjectInfo]:
        if limit is not None and limit <= 0:
            return
        ours = {key: each for key, each in self._journal.all().items() if key.startswith(prefix) and key > after}
        made = [ours[key].info for key in sorted(ours) if ours[key].write.op == "put"]
        page = None if limit is None else limit + len(ours)
        theirs = (info for info in self._listing(prefix, after, page) if info.key not in ours)
        for number, info in enumerate(heapq.merge(made, theirs, key=lambda info: info.key), 1):
            yield info
            if number == limit:
                return

    def _listing(self, prefix: str, after: str, page: int | None) -> Iterator[ObjectInfo]:
        if not (self._replica and self._paused()):
            found = free_listing(self.inner, prefix, after, page, _OURS)
            try:
                first = next(found, None)
            except StorageUnavailable:
                self._away()
                if not self._replica:
                    raise
            else:
                if first is not None:
                    yield first
                    yield from found
                return
        yield from free_listing(self.fallback, prefix, after, page, _OURS)

    # -- catching up --------------------------------------------------------------------------------------------

    def catch_up(self) -> CatchUp:
        """Brings to the primary all that it missed, proven; what it cannot take waits on.

        Raises:
            StorageUnavailable: the journal does not answer; that the primary does not is no error: see `left`.
        """
        self._open()
        self._journal.refresh()
        return self._catch_up(self._journal.all())

    def pending(self) -> Sequence[str]:
        """The keys whose last write the primary does not have yet."""
        self._open()
        return sorted(self._journal.all())

    def conflicts(self) -> Sequence[Kept]:
        """The copies that were kept of objects that lost against another one, by key and time."""
        self._open()
        found = [journal_of.found(self.journal, info) for info in self.journal.list(CONFLICTS)]
        found.sort(key=lambda each: (each.write.key, each.write.stamp))
        return [Kept(name=each.name, info=each.info) for each in found]

    def read_conflict(self, name: str) -> bytes:
        """The bytes of a copy.

        Raises:
            ObjectNotFound: there is none of this name.
            ObjectCorrupt: its bytes are not what was written.
        """
        return b"".join(journal_of.proven(self.journal, journal_of.found(self.journal, self.journal.head(name))))

    def drop_conflict(self, name: str) -> bool:
        """Removes a copy; False if there was none."""
        return name.startswith(CONFLICTS) and self.journal.delete(name)

    def health(self) -> Health:
        primary, fallback = self.inner.health(), self.fallback.health()
        told = [*dict.fromkeys(each.degraded for each in (primary, fallback, self.journal.health()) if each.degraded)]
        if not primary.ok:
            told.append(f"the primary {primary.store} is away: {primary.error}")
        if not fallback.ok:
            told.append(f"the fallback {fallback.store} is away: {fallback.error}")
        with contextlib.suppress(HoldfastError):
            if waiting := len(self._journal.all()):
                told.append(f"writes of {waiting} keys wait for the primary")
            told += [f"{key!r:.80} cannot catch up: {why}" for key, why in list(self._failed.items())[:3]]
        ok = primary.ok or fallback.ok
        return msgspec.structs.replace(
            primary,
            ok=ok,
            lacks=tuple(sorted(self.lacks)),
            error="" if ok else "; ".join(told),
            degraded="; ".join(told),
        )

    def close(self) -> None:
        super().close()
        self.journal.close()

    def _catch_up(self, keys: Iterable[str]) -> CatchUp:
        done = kept = 0
        for key in keys:
            try:
                with self._keys.holding(key):
                    if self._journal.of(key) is not None:
                        kept += self._settle(key)[1]
                        done += 1
            except StorageUnavailable:
                self._away()
                break
            except HoldfastError as error:
                self._failed[key] = str(error)
        return CatchUp(done=done, left=len(self._journal.all()), conflicts=kept, failed=dict(self._failed))

    def _pass_by(self) -> None:
        """Catches up a little, if there is something and the primary may be back."""
        now = self._clock.monotonic()
        if self._paused() or self._journal.empty or now < self._next or not self._passing.acquire(blocking=False):
            return
        try:
            some = first_few(self._journal.all(), self._failed)
            self._catch_up(some)
            if any(key in self._failed for key in some):
                self._next = self._clock.monotonic() + self._pause_s
        finally:
            self._passing.release()

    def _must_settle(self, key: str) -> None:
        """Before a condition: the primary must have what waits."""
        if self._journal.of(key) is not None:
            try:
                self._settle(key)
            except HoldfastError as error:
                raise _undecided(key, error) from error

    def _try(self, key: str) -> ObjectInfo | None:
        """Brings a write to the primary at once, if it may be there; else it waits on, and `health` says so."""
        if self._paused():
            return None
        try:
            return self._settle(key)[0]
        except StorageUnavailable:
            self._away()
        except HoldfastError as error:
            self._failed[key] = str(error)
        return None

    def _settle(self, key: str) -> tuple[ObjectInfo | None, int]:
        """Brings one write to the primary: what the primary has then, and how many copies were kept.

        Whoever calls it holds the key's lock.
        """
        waits = self._journal.of(key)
        if waits is None:
            return None, 0
        info, kept = Bringer(self.inner, self.journal).bring(waits)
        self._journal.done(waits)
        self._failed.pop(key, None)
        self._saw(key, info.etag if info is not None else "")
        return info, kept

    # -- what is known ------------------------------------------------------------------------------------------

    def _begin(self, key: str) -> None:
        self._open()
        check_key(key)
        check_free(key, *_OURS)
        self._pass_by()

    def _saw(self, key: str, etag: str) -> None:
        with self._lock:
            self._seen.pop(key, None)
            self._seen[key] = etag
            if len(self._seen) > _SEEN_MAX:
                del self._seen[next(iter(self._seen))]

    def _paused(self) -> bool:
        return self._clock.monotonic() < self._again

    def _away(self) -> None:
        self._again = self._clock.monotonic() + self._pause_s


def _undecided(key: str, error: Exception) -> StorageUnavailable:
    return StorageUnavailable(
        f"{key!r:.200}: a condition needs the primary, which does not answer: {error}",
        hint="write without a condition, or later",
        key=key,
        degraded=True,
    )

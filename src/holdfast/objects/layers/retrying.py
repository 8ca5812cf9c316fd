"""Tries again what failed for want of an answer, and never takes its own success for somebody else's."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, TypeAlias, TypeVar, cast

import msgspec

from holdfast.errors import (
    HoldfastError,
    ObjectConflict,
    ObjectNotFound,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
)
from holdfast.objects.layers.layer import RETRYING, Layer
from holdfast.objects.port import (
    ABSENT,
    METADATA_BYTES_MAX,
    SWAP_DELETE,
    TYPE,
    Content,
    Expect,
    ObjectInfo,
    ObjectStore,
    Source,
    check_expect,
    check_metadata,
    conflict,
)
from holdfast.objects.raw import Bytes, pieces_of
from holdfast.protocol.retry import RETRY_AFTER_MAX, Backoff, retry_after

WRITE_ID: Final = "hf_write"
"""In the metadata of what was written under a condition: who wrote it. Hidden from callers."""
SPOOL_BYTES: Final = 8 << 20
"""Of a body that can be read once, so much is kept in memory to be sent again."""
T = TypeVar("T")
Decorator: TypeAlias = Callable[[Callable[[], Any]], Callable[[], Any]]


class Pace:
    """How time passes for a `Retrying`; tests hand in their own."""

    def __init__(self) -> None:
        self.rng = random.SystemRandom()

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Lets so many seconds pass."""
        time.sleep(seconds)


class Retrying(Layer):
    """Repeats calls that got no answer, after waits of random length, until one does or the time is over.

    Retried is what raises an error that is `retryable`, but not `StorageFull`: waiting makes no room. A read that
    breaks off goes on where it was, if the object is still the same. A conditional write whose answer was lost is
    recognised by an id in the object's metadata; where nobody can know whether it took effect, `StorageUnavailable`
    says so, and never `ObjectConflict`. A body that is an iterator is kept for a repetition up to 8 MiB; a longer one
    is sent once.

    Args:
        inner: the store.
        tries: the most of one call, the first included.
        deadline_s: seconds from the beginning of a call after which none is begun; of a body, since its last byte.
        first_s: the longest wait after the first failure; doubled with each.
        most_s: the longest wait. What a store asks for (Retry-After) is waited at least, up to 300 s.
        retry: a decorator that repeats instead, such as ``tenacity.retry(stop=…)``; the four numbers do not count then.
    """

    kind: ClassVar[str] = RETRYING

    def __init__(
        self,
        inner: ObjectStore,
        *,
        tries: int = 6,
        deadline_s: float = 60.0,
        first_s: float = 0.2,
        most_s: float = 30.0,
        retry: Decorator | None = None,
    ) -> None:
        if tries < 1 or not deadline_s > 0 or not 0 < first_s <= most_s:
            raise StorageRefused(
                f"not a way to retry: {tries=}, {deadline_s=}, {first_s=}, {most_s=}",
                hint="tries >= 1, deadline_s > 0, 0 < first_s <= most_s",
            )
        super().__init__(inner)
        self.pace = Pace()
        self._tries = tries
        self._deadline_s = deadline_s
        self._first_s = first_s
        self._most_s = most_s
        self._retry = retry

    @property
    def quick(self) -> bool:  # type: ignore[override]
        return False  # it may sleep

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
        kept = check_metadata(metadata)
        if WRITE_ID in kept:
            raise StorageRefused(f"{WRITE_ID!r} is the name of our own metadata", hint="give it another name", key=key)
        mine = None if expect is None else _write_id(expect)
        if mine is not None and sum(map(len, (*kept, *kept.values(), WRITE_ID, mine))) <= METADATA_BYTES_MAX:
            kept[WRITE_ID] = mine
        body = _Body(data)
        unknown: list[HoldfastError] = []

        def put() -> ObjectInfo:
            try:
                return self.inner.put(key, body.again(), content_type=content_type, metadata=kept, expect=expect)
            except ObjectConflict as lost:
                if not unknown or mine is None:
                    raise
                return self._own(key, mine, lost, unknown[-1])
            except HoldfastError as error:
                if is_passing(error):
                    unknown.append(error)
                raise

        return _hidden(self._call(put, lambda: body.repeatable))

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
        self._open()
        first = self._call(lambda: self.inner.get(key, start=start, stop=stop))
        return _Resumed(self, key, first, start, stop)

    def read(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        # Whole each time: a store that proves objects proves what is read from beginning to end.
        self._open()
        return self._call(lambda: self.inner.read(key, start=start, stop=stop))

    def head(self, key: str) -> ObjectInfo:
        self._open()
        return _hidden(self._call(lambda: self.inner.head(key)))

    def list(self, prefix: str = "", *, after: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        self._open()
        found = self._call(lambda: self.inner.list(prefix, after=after, limit=limit))
        return self._listed(found, prefix, after, limit)

    def delete(self, key: str, *, expect: str | None = None) -> bool:
        self._open()
        check_expect(self, expect, SWAP_DELETE)
        # Looked at first: whether a try whose answer was lost removed anything is not to be found out later.
        try:
            there = self._call(lambda: self.inner.head(key))
        except ObjectNotFound:
            if expect is None:
                return False
            raise conflict(self, key, expect, None) from None
        if expect is None:
            self._call(lambda: self.inner.delete(key))
            return True
        if there.etag != expect:
            raise conflict(self, key, expect, there.etag)
        unknown: list[HoldfastError] = []

        def delete() -> bool:
            try:
                return self.inner.delete(key, expect=expect)
            except (ObjectConflict, ObjectNotFound) as lost:
                if not unknown or lost.context.get("etag") is not None:
                    raise
                raise _never_known(key, "it is gone, and whether this call removed it is not known") from unknown[-1]
            except HoldfastError as error:
                if is_passing(error):
                    unknown.append(error)
                raise

        return self._call(delete)

    def _own(self, key: str, mine: str, lost: ObjectConflict, failed: HoldfastError) -> ObjectInfo:
        """Whether the object that is in the way is what an earlier try wrote.

        Raises:
            ObjectConflict: it was made of the same one as ours would have been, so ours never was.
            StorageUnavailable: nobody can know.
        """
        try:
            there = self.inner.head(key)
        except ObjectNotFound:
            there = None
        theirs = there.metadata.get(WRITE_ID, "") if there is not None else ""
        if there is not None and theirs == mine:
            return there
        if theirs.partition(".")[0] == mine.partition(".")[0]:
            raise lost
        raise _never_known(key, "whether this write took effect is not known: there is another object now") from failed

    def _listed(self, found: Iterator[ObjectInfo], prefix: str, after: str, limit: int | None) -> Iterator[ObjectInfo]:
        left = limit
        source = found

        def following() -> ObjectInfo | None:
            nonlocal source
            try:
                return next(source, None)
            except HoldfastError as error:
                if is_passing(error):
                    source = _later(lambda: self.inner.list(prefix, after=after, limit=left))
                raise

        while left != 0 and (info := self._call(following)) is not None:
            after = info.key
            left = None if left is None else left - 1
            yield _hidden(info)

    def _call(self, call: Callable[[], T], repeatable: Callable[[], bool] = lambda: True) -> T:
        """What the call returns, or raises in the end."""
        if self._retry is not None:
            return _decorated(self._retry, call, repeatable)
        backoff = Backoff(self.pace.rng, self._first_s)
        until = self.pace.monotonic() + self._deadline_s
        for number in itertools.count(1):
            try:
                return call()
            except HoldfastError as error:
                if not is_passing(error) or number >= self._tries or not repeatable():
                    raise
                wait = backoff.delay(_asked_wait(error), self._most_s)
                if self.pace.monotonic() + wait > until:
                    raise
            self.pace.sleep(wait)
        raise AssertionError("counting has no end")


class _Resumed(Content):
    """A body that goes on where it broke off, if the object is still the same."""

    def __init__(self, store: Retrying, key: str, first: Content, start: int, stop: int | None) -> None:
        super().__init__(_hidden(first.info), self._all(store, key, start, stop))
        self._now: Content | None = first
        self._etag = first.info.etag

    def close(self) -> None:
        super().close()
        self._let_go()

    def _let_go(self) -> None:
        now, self._now = self._now, None
        if now is not None:
            now.close()

    def _all(self, store: Retrying, key: str, start: int, stop: int | None) -> Iterator[bytes]:
        at = start

        def following() -> bytes | None:
            try:
                if self._now is None:
                    self._now = store.inner.get(key, start=at, stop=stop)
                    if self._now.info.etag != self._etag:
                        raise _Changed(f"the object {key!r:.200} was changed while it was read", key=key)
                return next(iter(self._now), None)
            except ObjectNotFound as error:
                raise _Changed(f"the object {key!r:.200} was deleted while it was read", key=key) from error
            except HoldfastError as error:
                if is_passing(error):
                    self._let_go()
                raise

        try:
            while (piece := store._call(following)) is not None:
                at += len(piece)
                yield piece
        finally:
            self._let_go()


class _Changed(StorageUnavailable):
    """Another object than the one whose first bytes were handed out; read it from the beginning."""


class _Body:
    """What is to be stored, as often as it can be sent."""

    def __init__(self, data: Source) -> None:
        self.repeatable = True
        self._data: Source = data
        if isinstance(data, Bytes | Path | list | tuple):
            return
        # Also what makes a new iterator each time may make an empty one: a `Content` does.
        pieces, kept, size = iter(pieces_of(data)), [], 0
        for piece in pieces:
            kept.append(piece)
            size += len(piece)
            if size > SPOOL_BYTES:
                self.repeatable = False
                self._data = itertools.chain(kept, pieces)
                return
        self._data = kept

    def again(self) -> Source:
        return self._data


def is_passing(error: BaseException) -> bool:
    """Whether the same call may be answered in a while."""
    return isinstance(error, HoldfastError) and error.retryable and not isinstance(error, StorageFull | _Changed)


def _decorated(retry: Decorator, call: Callable[[], T], repeatable: Callable[[], bool]) -> T:
    """The call, repeated by somebody else's decorator: it sees only the errors that it may repeat."""

    def tried() -> tuple[T | None, BaseException | None]:
        try:
            return call(), None
        except Exception as error:
            if is_passing(error) and repeatable():
                raise
            return None, error

    try:
        found, failed = retry(tried)()
    except HoldfastError:
        raise
    except Exception as error:
        # tenacity wraps what the last try raised, unless it is told to reraise.
        last = getattr(error, "last_attempt", None)
        cause = last.exception() if last is not None else None
        if isinstance(cause, HoldfastError):
            raise cause from error
        raise
    if failed is not None:
        raise failed
    return cast(T, found)


def _later(make: Callable[[], Iterable[T]]) -> Iterator[T]:
    yield from make()


def _asked_wait(error: HoldfastError) -> float | None:
    asked = error.context.get("retry_after")
    if isinstance(asked, int | float):
        return min(float(asked), RETRY_AFTER_MAX) if asked > 0 else None
    return retry_after(asked, time.time_ns() // 1_000_000) if isinstance(asked, str) else None


def _write_id(expect: Expect) -> str:
    """An id of one write, which begins with what it was to replace."""
    known = hashlib.blake2b(b"" if expect == ABSENT else str(expect).encode(), digest_size=6).hexdigest()
    return f"{known}.{os.urandom(12).hex()}"


def _never_known(key: str, what: str) -> StorageUnavailable:
    return _Changed(f"{key!r:.200}: {what}", hint="read it again and decide", key=key, outcome="unknown")


def _hidden(info: ObjectInfo) -> ObjectInfo:
    if WRITE_ID not in info.metadata:
        return info
    kept = {name: value for name, value in info.metadata.items() if name != WRITE_ID}
    return msgspec.structs.replace(info, metadata=kept)

"""Garbage collection of blobs on an object store, in two phases, that never deletes what anything refers to.

*Mark*: a blob to which nothing refers, and that nobody has leased, gets a mark with the time. *Purge*, after a time of
grace: what is still not referred to is deleted, by the very name that was marked; the mark of what is referred to again
is taken away.

Why nothing live is lost. Whoever makes a reference looks first, and commits it within the grace time (a hub looks
within the transaction). Either he saw the mark: then the blob was missing to him, and was written again under another
name, which no purge that knows the old mark will ever delete. Or there was none yet: then he has committed before the
grace was over, and the purge, which asks for the references after that, sees his. A purge that stands still between
asking and deleting deletes only what was marked all the while, and everybody saw as missing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from holdfast.clock import SYSTEM, Clock
from holdfast.errors import NotFound, ObjectConflict, UsageError
from holdfast.objects.blobs.stored import MARKS, PREFIX, StoredBlobs, digest_of, mark_of, place_of
from holdfast.objects.port import ABSENT, CREATE, Expect, ObjectStore

GRACE_S: Final = 48 * 3600.0
GRACE_S_MIN: Final = 60.0
"""No commit takes that long."""
LEASES: Final = "leases/"


class Collected(msgspec.Struct, kw_only=True):
    """What a run did."""

    blobs: int = 0
    """Objects looked at."""
    live: int = 0
    """Those that are referred to, or leased."""
    marked: int = 0
    """Condemned now."""
    spared: int = 0
    """Whose mark was taken away."""
    waiting: int = 0
    """Whose time of grace is not over."""
    deleted: int = 0
    deleted_bytes: int = 0


class _At(msgspec.Struct):
    ms: int


class Collector:
    """Collects what nothing refers to.

    Args:
        blobs: of one hub, or of several whose references are all asked for.
        references: the digests that all live records, versions and backups refer to, as of now.
        grace_s: seconds between mark and purge.
        wall: the clock.

    Raises:
        UsageError: too short a grace.
    """

    def __init__(
        self,
        blobs: StoredBlobs,
        references: Callable[[], Iterator[bytes]],
        *,
        grace_s: float = GRACE_S,
        wall: Clock = SYSTEM,
    ) -> None:
        if grace_s < GRACE_S_MIN:
            raise UsageError(f"a grace of {grace_s} s is too short", hint=f"at least {GRACE_S_MIN:.0f}")
        self._store: ObjectStore = blobs.store
        self._references = references
        self._grace_ms = round(grace_s * 1000)
        self._wall = wall

    def run(self, *, dry_run: bool = False) -> Collected:
        """Purges what was marked long enough ago, then marks; again and again is how it is meant to be called.

        Args:
            dry_run: only count.

        Raises:
            StorageError: the store does not answer; what was done is done, and nothing is half done.
        """
        done = Collected()
        marks = {info.key: self._time(info.key) for info in self._store.list(MARKS)}
        old = {key for key, ms in marks.items() if ms is not None and ms + self._grace_ms <= self._wall.now_ms()}
        # After the marks were read: a reference that is not seen here was made by somebody who saw them.
        live = set(self._references()) | self._leased()
        self._purge(marks, old, live, done, dry_run)
        for info in self._store.list(PREFIX):
            digest = digest_of(info.key)
            if digest is None:
                continue
            done.blobs += 1
            if digest in live:
                done.live += 1
            elif mark_of(info.key) not in marks:
                done.marked += 1
                if not dry_run:
                    self._mark(info.key)
        return done

    def _purge(
        self, marks: dict[str, int | None], old: set[str], live: set[bytes], done: Collected, dry_run: bool
    ) -> None:
        for mark, ms in marks.items():
            digest, key = digest_of(mark), PREFIX + mark.removeprefix(MARKS)
            if digest is None or ms is None:
                continue
            if digest in live and self._only(digest):
                done.spared += 1
                if not dry_run:
                    self._store.delete(mark)
            elif mark not in old:
                done.waiting += 1
            else:
                with contextlib.suppress(NotFound):
                    done.deleted_bytes += self._store.head(key).size
                    done.deleted += 1
                if not dry_run:
                    self._store.delete(key)
                    self._store.delete(mark)  # last: a mark without a blob is taken away by the next run

    def _only(self, digest: bytes) -> bool:
        """Whether this is the one object of the blob; of several, a condemned one goes though the blob is live."""
        names = {info.key for info in self._store.list(place_of(digest))}
        return names <= {PREFIX + info.key.removeprefix(MARKS) for info in self._store.list(mark_of(place_of(digest)))}

    def _mark(self, key: str) -> None:
        body = msgspec.json.encode(_At(self._wall.now_ms()))
        with contextlib.suppress(ObjectConflict):
            expect: Expect = None if CREATE in self._store.lacks else ABSENT
            self._store.put(mark_of(key), body, content_type="application/json", expect=expect)

    def _time(self, key: str) -> int | None:
        with contextlib.suppress(NotFound, msgspec.MsgspecError):
            return msgspec.json.decode(self._store.read(key), type=_At).ms
        return None

    def _leased(self) -> set[bytes]:
        now, found = self._wall.now_ms(), set()
        for info in self._store.list(LEASES):
            until = self._time(info.key)
            digest = digest_of(info.key.rpartition("/")[0])
            if digest is None or until is None:
                continue
            if until > now:
                found.add(digest)
            else:
                self._store.delete(info.key)
        return found


@contextlib.contextmanager
def lease(blobs: StoredBlobs, digest: bytes, seconds: float, *, wall: Clock = SYSTEM) -> Iterator[None]:
    """Keeps a blob from being collected, for the block and at most so many seconds: for whoever refers to it late.

    Raises:
        NotFound: it is not there, or condemned already: send it again.
    """
    key = f"{LEASES}{digest.hex()}/{os.urandom(8).hex()}"
    until = wall.now_ms() + round(seconds * 1000)
    blobs.store.put(key, msgspec.json.encode(_At(until)), content_type="application/json")
    try:
        if blobs.missing([digest]):  # looked at behind the lease: whoever marks from now on has seen it
            raise NotFound(f"no blob {digest.hex()}", hint="send it again")
        yield
    finally:
        blobs.store.delete(key)

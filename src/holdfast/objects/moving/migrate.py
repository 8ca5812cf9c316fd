"""Every object of a store to another one: resumable, in parallel, and each read back and proven by its digest.

A pass walks the source's listing and copies what the journal does not know, or knows of another etag; passes go on
until one finds nothing to do. Nothing of the target's own is ever overwritten unasked. What is in the journal is
proven: a migration that was broken off goes on behind it.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Final, TypeAlias

import msgspec

from holdfast.errors import ObjectConflict, ObjectCorrupt, ObjectNotFound, StorageError, StorageRefused
from holdfast.objects.moving.journal import Copied, Journal
from holdfast.objects.port import ABSENT, CREATE, SWAP, SWAP_DELETE, Expect, ObjectInfo, ObjectStore

PARALLEL: Final = 8
PASSES_MAX: Final = 20
GUARDED_BYTES_MAX: Final = 32 << 20
"""Above it a target over the network could not hold a stream to `ABSENT`; it is looked at before."""
TROUBLES_MAX: Final = 1000
Told: TypeAlias = Callable[[int, int], None]
"""Is told how many objects and bytes are done."""


class Moved(msgspec.Struct, kw_only=True):
    """What a migration did."""

    source: str
    target: str
    objects: int = 0
    """Of the source, at the last look."""
    copied: int = 0
    """Written to the target now, and proven by their digests."""
    copied_bytes: int = 0
    known: int = 0
    """Copied and proven by an earlier run."""
    same: int = 0
    """The target had them already, byte for byte."""
    removed: int = 0
    """Copies of objects that are no longer in the source."""
    conflicts: list[str] = []
    """Keys under which the target has something else; left as they are."""
    failed: dict[str, str] = {}
    """Keys that could not be copied, and why."""
    passes: int = 0
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether the target has all that the source has."""
        return not self.conflicts and not self.failed


class Mover:
    """Copies from one store to another.

    Args:
        source, target: stay open.
        journal: what is remembered between runs.
        parallel: objects under way at once.
        overwrite: what the target has under a key gives way; that cannot be taken back.
        told: is told how far it is.
    """

    def __init__(
        self,
        source: ObjectStore,
        target: ObjectStore,
        journal: Journal,
        *,
        parallel: int = PARALLEL,
        overwrite: bool = False,
        told: Told | None = None,
    ) -> None:
        if not 1 <= parallel <= 256:
            raise StorageRefused(f"cannot copy {parallel} objects at once", hint="1 to 256")
        self._source, self._target, self._journal = source, target, journal
        self._parallel = parallel
        self._overwrite = overwrite
        self._told = told or (lambda objects, size: None)
        self._lock = threading.Lock()
        self.moved = Moved(source=source.name, target=target.name)

    def run(self, *, passes: int = PASSES_MAX) -> Moved:
        """Copies until a pass finds nothing to do.

        Args:
            passes: the most looks at the source.

        Raises:
            StorageError: a store cannot be listed; what was copied so far is remembered.
        """
        start = time.monotonic()
        while self.moved.passes < passes:
            self.moved.passes += 1
            self.moved.conflicts, self.moved.failed, self.moved.objects = [], {}, 0
            before = (self.moved.copied, self.moved.removed)
            self._pass()
            self._sweep()
            if (self.moved.copied, self.moved.removed) == before:
                break
        self.moved.seconds = time.monotonic() - start
        return self.moved

    def look(self) -> Moved:
        """What `run` would do, by names and sizes: nothing is read or written."""
        for info in self._source.list():
            self.moved.objects += 1
            done = self._journal.copied(info.key)
            if done is not None and done.source == info.etag:
                self.moved.known += 1
                continue
            try:
                there = self._target.head(info.key)
            except ObjectNotFound:
                there = None
            if there is None or done is not None:
                self.moved.copied += 1
                self.moved.copied_bytes += info.size
            elif there.size == info.size:
                self.moved.same += 1
            else:
                self.moved.conflicts.append(info.key)
        return self.moved

    def copy(self, key: str) -> bool:
        """Makes the target's object that of the source, gone if it is gone; whether there is one.

        Raises:
            StorageError: it could not be copied or proven.
        """
        try:
            self._write(key, None, made=False)
        except ObjectNotFound:
            self._target.delete(key)
            self._journal.forget_copied(key)
            return False
        return True

    # -- inside ------------------------------------------------------------------------------------------------

    def _pass(self) -> None:
        known = 0
        for done in _bounded(self._one, self._source.list(), self._parallel):
            known += done
            self._told(self.moved.objects, self.moved.copied_bytes)
        if self.moved.passes == 1:
            self.moved.known = known

    def _one(self, info: ObjectInfo) -> bool:
        """Copies an object unless the journal knows it; whether it does."""
        with self._lock:
            self.moved.objects += 1
        done = self._journal.copied(info.key)
        if done is not None and done.source == info.etag:
            return True
        try:
            self._bring(info, done)
        except ObjectNotFound:
            return False  # it went away since it was listed
        except StorageError as error:
            with self._lock:
                if len(self.moved.failed) < TROUBLES_MAX:
                    self.moved.failed[info.key] = str(error)
        return False

    def _bring(self, info: ObjectInfo, done: Copied | None) -> None:
        expect: Expect = None
        begun = done is not None and not done.target  # by a run that was broken off: what is there may be its copy
        if done is not None and not begun:
            # Ours: but if somebody has changed it there since, it is theirs.
            expect = done.target if SWAP not in self._target.lacks and info.size <= GUARDED_BYTES_MAX else None
        elif not self._overwrite:
            if CREATE in self._target.lacks or info.size > GUARDED_BYTES_MAX:
                if self._target.exists(info.key):
                    return self._compare(info, made=begun)
            else:
                expect = ABSENT
            self._journal.note_copied(Copied(info.key, "", "", b"", 0, made=True))
        try:
            size = self._write(info.key, expect, made=done.made if done is not None else not self._overwrite)
        except ObjectConflict:
            return self._compare(info, made=begun)
        with self._lock:
            self.moved.copied += 1
            self.moved.copied_bytes += size
        return None

    def _write(self, key: str, expect: Expect, *, made: bool) -> int:
        """Copies an object, reads the copy back, and remembers it."""
        digest = hashlib.sha256()
        with self._source.get(key) as content:
            info = content.info
            put = self._target.put(
                key,
                _hashed(content, digest),
                content_type=info.content_type,
                metadata=info.metadata,
                expect=expect,
            )
        found, there = _digest(self._target, key)
        if found != digest.digest() and there.etag == put.etag:
            if expect == ABSENT:
                self._target.delete(key)  # it is ours, and worth nothing
            raise ObjectCorrupt(f"the copy of {key!r:.200} in {self._target.name} reads back differently", key=key)
        if found != digest.digest():
            raise ObjectConflict(f"somebody writes {key!r:.200} in {self._target.name} too", key=key)
        self._journal.note_copied(Copied(key, info.etag, there.etag, digest.digest(), info.size, made))
        return info.size

    def _compare(self, info: ObjectInfo, *, made: bool) -> None:
        """Something is there already: the same, or a conflict."""
        ours, here = _digest(self._source, info.key)
        theirs, there = _digest(self._target, info.key)
        if (ours, here.content_type, here.metadata) == (theirs, there.content_type, there.metadata):
            self._journal.note_copied(Copied(info.key, here.etag, there.etag, ours, here.size, made))
            with self._lock:
                self.moved.same += 1
        else:
            self._journal.forget_copied(info.key)
            with self._lock:
                if len(self.moved.conflicts) < TROUBLES_MAX:
                    self.moved.conflicts.append(info.key)

    def _sweep(self) -> None:
        """Takes away the copies of objects that are no longer in the source, if nobody has changed them since."""
        live = (info.key for info in self._source.list())
        at = next(live, None)
        for one in self._journal.all_copied():
            while at is not None and at < one.key:  # both go by code points
                at = next(live, None)
            if at == one.key or self._source.exists(one.key):
                continue
            if one.made and _take(self._target, one):
                self.moved.removed += 1
            self._journal.forget_copied(one.key)


def roll_back(target: ObjectStore, journal: Journal) -> Moved:
    """Takes out of the target what a migration put there, but for what was changed there since, or was there before.

    Returns:
        `removed`, and as conflicts what was changed since.
    """
    begun = time.monotonic()
    moved = Moved(source=journal.said("from"), target=target.name)
    for one in journal.all_copied():
        moved.objects += 1
        if one.made and not _take(target, one):
            moved.conflicts.append(one.key)
            continue
        moved.removed += one.made
        journal.forget_copied(one.key)
    moved.seconds = time.monotonic() - begun
    return moved


def _take(target: ObjectStore, one: Copied) -> bool:
    """Deletes a copy; False if somebody has changed it."""
    try:
        if SWAP_DELETE not in target.lacks:
            target.delete(one.key, expect=one.target)
        elif target.head(one.key).etag == one.target:
            target.delete(one.key)
        else:
            return False
    except ObjectNotFound:
        return True
    except ObjectConflict:
        return not target.exists(one.key)
    return True


def _digest(store: ObjectStore, key: str) -> tuple[bytes, ObjectInfo]:
    digest = hashlib.sha256()
    with store.get(key) as content:
        for piece in content:
            digest.update(piece)
        return digest.digest(), content.info


def _hashed(pieces: Iterable[bytes], digest: hashlib._Hash) -> Iterator[bytes]:
    for piece in pieces:
        digest.update(piece)
        yield piece


def _bounded(work: Callable[[ObjectInfo], bool], infos: Iterator[ObjectInfo], parallel: int) -> Iterator[bool]:
    """What `work` returns for each, so many at once; the listing is read no faster than the work is done."""
    under_way: set[Future[bool]] = set()
    with ThreadPoolExecutor(parallel, thread_name_prefix="holdfast-move") as pool:
        for info in infos:
            under_way.add(pool.submit(work, info))
            if len(under_way) >= 2 * parallel:
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for each in done:
                    yield each.result()
        for each in under_way:
            yield each.result()

"""Blobs on any object store: named by their SHA-256, stored once, behind what a hub has of its own.

A blob arrives in the *staging* blobs (the hub's directory, or its database), where uploads are resumed and proven; from
there `move` takes it to the store. So a hub acknowledges at the speed of its own disk, and goes on while the store is
away. In the store a blob is ``blobs/ab/cd/<sha256>.<generation>``, and a generation's name is never used twice: to
bring back a blob that the collector has condemned, another is written, and the condemned one is left to die. So nothing
that is deleted late, by whoever stood still for an hour, can be what somebody refers to (`objects.blobs.collect`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from holdfast.errors import BlobCorrupt, Conflict, HubUnavailable, NotFound, ObjectCorrupt, StorageError, UsageError
from holdfast.objects.blobs.reading import corrupt
from holdfast.objects.port import ObjectInfo, ObjectStore
from holdfast.objects.raw import PIECE_BYTES, Bytes

PREFIX: Final = "blobs/"
MARKS: Final = "marks/"
_HEX: Final = frozenset("0123456789abcdef")


class StoredBlobs:
    """What `BlobFiles` can, but for paths, with the finished blobs in an object store.

    Args:
        store: any that lists; conditions are not needed. Other hubs may share it: the same bytes are stored once.
        staging: where blobs arrive: `BlobFiles`, or a database's.
    """

    def __init__(self, store: ObjectStore, staging: Any) -> None:
        self.store = store
        self._staging = staging

    # -- whole blobs --------------------------------------------------------------------------------------------

    def put(self, source: Bytes | Path | Iterable[bytes], *, expect: bytes | None = None) -> tuple[bytes, int]:
        """Stores a blob; when it returns, the blob survives a power cut here, and is on its way to the store.

        Returns:
            The digest (32 bytes) and the size in bytes.
        """
        found: tuple[bytes, int] = self._staging.put(source, expect=expect)
        return found

    def open(self, digest: bytes) -> Any:
        """A reader that checks the digest while streaming.

        Raises:
            NotFound: there is no such blob.
            HubUnavailable: the store does not answer.
        """
        with contextlib.suppress(NotFound):
            return self._staging.open(digest)
        with _errors():
            for info in self._generations(digest):
                return StoredReader(self.store, info, digest)
        raise _absent(digest)

    def read(self, digest: bytes, offset: int = 0, length: int | None = None, *, verify: bool = True) -> bytes:
        """The bytes of a blob, or a range of them, proven unless `verify` is False.

        Raises:
            NotFound: there is no such blob.
            BlobCorrupt: its bytes do not have its digest.
            HubUnavailable: the store does not answer.
            UsageError: a negative offset or length.
        """
        if offset < 0 or (length is not None and length < 0):
            raise UsageError(f"not a range of a blob: {offset}, {length}")
        with contextlib.suppress(NotFound):
            here: bytes = self._staging.read(digest, offset, length, verify=verify)
            return here
        with _errors(digest):
            stop = None if length is None else offset + length
            for info in self._generations(digest):
                if not verify:
                    return self.store.read(info.key, start=offset, stop=stop)
                with StoredReader(self.store, info, digest) as reader:
                    return reader.read()[offset:stop]
        raise _absent(digest)

    def size(self, digest: bytes) -> int:
        """The size in bytes.

        Raises:
            NotFound: there is no such blob.
        """
        with contextlib.suppress(NotFound):
            here: int = self._staging.size(digest)
            return here
        with _errors():
            for info in self._generations(digest):
                return info.size
        raise _absent(digest)

    def has(self, digest: bytes) -> bool:
        """Whether the blob is here, condemned or not; looks at the name only."""
        return self._staging.has(digest) or self._there(digest, condemned=True)

    def missing(self, digests: Iterable[bytes]) -> list[bytes]:
        """Those that must be sent before anything may refer to them, in the order given, each once.

        A blob that is condemned counts as missing: it may be gone by the time that it is wanted.
        """
        return [each for each in self._staging.missing(digests) if not self._there(each, condemned=False)]

    def verify(self, digest: bytes) -> bool:
        """Whether the blob is here and its bytes have its digest."""
        try:
            with self.open(digest) as reader:
                while reader.read(PIECE_BYTES):
                    pass
        except (NotFound, BlobCorrupt):
            return False
        return True

    def delete(self, digest: bytes) -> bool:
        """Removes a blob, all of it; False if there was none."""
        gone = [self._staging.delete(digest)]
        with _errors():
            for info in list(self._generations(digest)):
                gone.append(self.store.delete(info.key))
                self.store.delete(mark_of(info.key))
        return any(gone)

    def iter(self) -> Iterator[bytes]:
        """The digests of all blobs, in order; what is added or removed meanwhile may be seen or not."""
        here, there = iter(self._staging.iter()), self._stored()
        mine, other = next(here, None), next(there, None)
        while mine is not None or other is not None:
            first = min(each for each in (mine, other) if each is not None)
            yield first
            mine = next(here, None) if mine == first else mine
            while other == first:
                other = next(there, None)

    # -- uploads: all of them are the staging's -------------------------------------------------------------------

    def resume(self, digest: bytes, offset_expected: int | None = None) -> int:
        """Where an upload stands: how many bytes of the blob are here (all of them when it is finished).

        Raises:
            Conflict: it stands elsewhere; ``context["offset"]`` says where.
        """
        at: int = self._staging.resume(digest)
        if not at and self._there(digest, condemned=False):
            at = self.size(digest)
        if offset_expected not in (None, at):
            raise Conflict(f"the upload of {digest.hex()} stands at {at}", hint="go on from there", offset=at)
        return at

    def append(self, digest: bytes, offset: int, data: bytes) -> int:
        """Adds bytes to an upload and returns where it stands then; see `BlobFiles.append`."""
        at: int = self._staging.append(digest, offset, data)
        return at

    def finish(self, digest: bytes) -> int:
        """Proves an upload and makes it a blob that survives a power cut; returns its size. Again is fine.

        Raises:
            BlobCorrupt: the bytes do not have the digest; the upload is dropped.
            NotFound: there is no such upload.
        """
        try:
            size: int = self._staging.finish(digest)
        except NotFound:
            if not self._there(digest, condemned=False):
                raise
            return self.size(digest)
        return size

    def __getattr__(self, name: str) -> Any:
        if name in ("finish_found", "begin", "stands", "extend", "complete", "drop"):
            return getattr(self._staging, name)
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")

    def sweep(self, older_than_s: float, **options: Any) -> int:
        """Moves what has arrived to the store, and removes partial uploads of that age; how many of these.

        Raises:
            HubUnavailable: the store does not answer; what could not be moved is kept and served from here.
        """
        swept: int = self._staging.sweep(older_than_s, **options)
        self.move()
        return swept

    # -- to the store ---------------------------------------------------------------------------------------------

    def move(self) -> int:
        """Takes every blob that has arrived to the store; how many. Several hub processes may do so at once.

        Raises:
            HubUnavailable: the store does not answer; the rest is kept here.
            BlobCorrupt: what the store has afterwards is not the blob; it is kept here, and all others are moved.
        """
        count = 0
        failed: BlobCorrupt | None = None
        with _errors():
            for digest in list(self._staging.iter()):
                try:
                    self._bring(digest)
                except NotFound:
                    continue  # another process was faster
                except BlobCorrupt as error:
                    failed = failed or error
                    continue
                self._staging.delete(digest)
                count += 1
        if failed is not None:
            raise failed
        return count

    def _bring(self, digest: bytes) -> None:
        # Of as many bytes is not enough: what a torn write left, or what rotted there, must not outlive what is here.
        there = {info.key: self._is_whole(info, digest) for info in self._sound(digest)}
        if not any(there.values()):
            key = f"{place_of(digest)}{os.urandom(8).hex()}"
            with self._staging.open(digest) as reader:
                self.store.put(key, iter(lambda: reader.read(PIECE_BYTES), b""))
            if not self._is_whole(self.store.head(key), digest):
                self.store.delete(key)
                raise corrupt(digest, f"it did not arrive whole in {self.store.name}")
        for key in [key for key, whole in there.items() if not whole]:
            self.store.delete(key)

    def _is_whole(self, info: ObjectInfo, digest: bytes) -> bool:
        """Whether an object has all the bytes of a blob."""
        try:
            with StoredReader(self.store, info, digest) as there:
                for _ in iter(lambda: there.read(PIECE_BYTES), b""):
                    pass
        except (NotFound, BlobCorrupt):
            return False
        return True

    # -- inside ---------------------------------------------------------------------------------------------------

    def _there(self, digest: bytes, *, condemned: bool) -> bool:
        with _errors():
            return next(iter(self._generations(digest) if condemned else self._sound(digest)), None) is not None

    def _generations(self, digest: bytes) -> Iterator[ObjectInfo]:
        return self.store.list(place_of(digest))

    def _sound(self, digest: bytes) -> Iterator[ObjectInfo]:
        condemned = set(self._condemned(digest))
        return (info for info in self._generations(digest) if info.key not in condemned)

    def _condemned(self, digest: bytes) -> Iterator[str]:
        for info in self.store.list(mark_of(place_of(digest))):
            yield PREFIX + info.key.removeprefix(MARKS)

    def _stored(self) -> Iterator[bytes]:
        with _errors():
            for info in self.store.list(PREFIX):
                if (digest := digest_of(info.key)) is not None:
                    yield digest


class StoredReader:
    """Streams a blob; the read that would reach its end raises when the bytes do not have their digest."""

    def __init__(self, store: ObjectStore, info: ObjectInfo, digest: bytes) -> None:
        self.size = info.size
        """Size of the whole blob in bytes."""
        with _errors(digest):
            self._content = store.get(info.key)
        self._digest = digest
        self._hash = hashlib.sha256()
        self._left = info.size
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most so many; empty at the end."""
        if size < 0:
            return b"".join(iter(lambda: self.read(PIECE_BYTES), b""))
        while not self._rest and self._left:
            with _errors(self._digest):
                piece = next(iter(self._content), None)
            if piece is None:
                raise corrupt(self._digest, "it ends too soon")
            self._hash.update(piece)
            self._rest, self._left = piece, self._left - len(piece)
        # The last piece is proven before it is handed out.
        if self._left <= 0 and self._hash.digest() != self._digest:
            raise corrupt(self._digest, "its bytes have another digest")
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    def close(self) -> None:
        """Reads no more."""
        self._left, self._rest = 0, b""
        self._hash = hashlib.sha256()
        self._content.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def place_of(digest: bytes) -> str:
    """What the keys of all generations of a blob begin with.

    Raises:
        UsageError: it is not a digest.
    """
    if len(digest) != 32:
        raise UsageError(f"not a SHA-256 digest: {len(digest)} bytes", hint="32 raw bytes")
    name = digest.hex()
    return f"{PREFIX}{name[:2]}/{name[2:4]}/{name}."


def digest_of(key: str) -> bytes | None:
    """The digest of the blob under a key, of any generation; None for what is no blob."""
    name = key.rpartition("/")[2].partition(".")[0]
    return bytes.fromhex(name) if len(name) == 64 and _HEX.issuperset(name) else None


def mark_of(key: str) -> str:
    """Where the collector's mark of a blob's object lies."""
    return MARKS + key.removeprefix(PREFIX)


@contextlib.contextmanager
def _errors(digest: bytes = b"") -> Iterator[None]:
    """A store's failure as the hub's: its clients know that one, and try again. But rot is no failure to answer."""
    try:
        yield
    except (NotFound, BlobCorrupt, UsageError):
        raise
    except StorageError as error:
        if digest and isinstance(error, ObjectCorrupt):
            raise corrupt(digest, error.message) from error
        raise HubUnavailable(f"the blobs' store: {error.message}", hint="ask again in a moment") from error


def _absent(digest: bytes) -> NotFound:
    return NotFound(f"no blob {digest.hex()}", digest=digest.hex())

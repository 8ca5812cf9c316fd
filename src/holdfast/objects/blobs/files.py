"""Blobs as files: bytes named by their SHA-256, whole or not there, and never returned when they rotted.

A blob lies at ``<root>/ab/cd/<sha256 in hex>``; what is not finished lies in ``<root>/partial``. The
order of a write is partial file, fsync, rename, fsync of the directories: after a crash there is a
blob or a partial file, which nobody reads and `sweep` collects. There is no state but the root, so any
number of threads, processes and forked children may use one root at once; who writes a partial file
holds its flock, which ends with the process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from holdfast.disk import sync_directory
from holdfast.errors import BlobCorrupt, Conflict, NodeFull, NotFound, UsageError
from holdfast.objects.blobs.reading import BlobReader, corrupt, no_upload
from holdfast.objects.raw import PIECE_BYTES, Bytes, digest_of, pieces_of, read_at, write_at
from holdfast.records import BLOB_BYTES_MAX

_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_HEX: Final = frozenset("0123456789abcdef")


class BlobFiles:
    """The blobs below one directory.

    Args:
        root: the directory; made, with mode 0700, by the first write.
        limit: the most bytes a blob may have.
    """

    def __init__(self, root: Path, *, limit: int = BLOB_BYTES_MAX) -> None:
        self._root = root
        self._partial = root / "partial"
        self._limit = limit

    def put(self, source: Bytes | Path | Iterable[bytes], *, expect: bytes | None = None) -> tuple[bytes, int]:
        """Stores a blob; when it returns, the blob survives a power cut. Storing it again heals a rotten one.

        Args:
            source: the bytes, pieces of them, or a file to copy.
            expect: the digest that they must have.

        Returns:
            The digest (32 bytes) and the size in bytes.

        Raises:
            BlobCorrupt: the digest is not the expected one; nothing is stored.
            NodeFull: no room; nothing is stored.
            UsageError: longer than the limit (5 GiB).
        """
        if isinstance(source, bytes | bytearray | memoryview):
            digest = hashlib.sha256(source).digest()
            if expect in (None, digest) and self._same(digest, len(source)):
                self._settle(digest)  # whoever wrote it may not have come to that yet
                return digest, len(source)
        name = f"{os.getpid():x}-{os.urandom(8).hex()}.put"
        with self._open_partial(name) as (fd, path):
            try:
                digest, size = self._fill(fd, pieces_of(source))
                if expect is not None and digest != expect:
                    raise corrupt(expect, f"what came has the digest {digest.hex()}")
                self._publish(fd, path, digest)
            except BaseException as error:
                path.unlink(missing_ok=True)
                _say_no_room(error, self._root)
                raise
        return digest, size

    def open(self, digest: bytes) -> BlobReader:
        """A reader that checks the digest while streaming.

        Raises:
            NotFound: there is no such blob.
        """
        return BlobReader(self._descriptor(digest), digest)

    def read(self, digest: bytes, offset: int = 0, length: int | None = None, *, verify: bool = True) -> bytes:
        """The bytes of a blob, or a range of them, proven.

        Args:
            digest: 32 bytes.
            offset: where to begin.
            length: how many bytes at most; None for all.
            verify: read the whole blob to prove the range. False is for those whose reader proves the whole
                (a hub that serves ranges).

        Raises:
            NotFound: there is no such blob.
            BlobCorrupt: its bytes do not have its digest.
            UsageError: a negative offset or length.
        """
        if offset < 0 or (length is not None and length < 0):
            raise UsageError(f"not a range of a blob: {offset}, {length}")
        with self.open(digest) as reader:
            end = reader.size if length is None else min(reader.size, offset + length)
            wanted = max(0, end - offset)
            if not verify:
                return read_at(reader.fileno(), wanted, offset)
            kept: list[bytes] = []
            at = 0
            while piece := reader.read(PIECE_BYTES):
                low, high = max(offset - at, 0), min(end - at, len(piece))
                if low < high:
                    kept.append(piece if high - low == len(piece) else piece[low:high])
                at += len(piece)
        return kept[0] if len(kept) == 1 else b"".join(kept)

    def size(self, digest: bytes) -> int:
        """The size in bytes.

        Raises:
            NotFound: there is no such blob.
        """
        try:
            return os.stat(self.path(digest)).st_size
        except FileNotFoundError:
            raise _absent(digest) from None

    def has(self, digest: bytes) -> bool:
        """Whether the blob is here; looks at the name only."""
        return os.path.isfile(self.path(digest))

    def missing(self, digests: Iterable[bytes]) -> list[bytes]:
        """Those that are not here, in the order given, each once."""
        return [digest for digest in dict.fromkeys(digests) if not self.has(digest)]

    def verify(self, digest: bytes) -> bool:
        """Whether the blob is here and its bytes have its digest."""
        buffer = bytearray(PIECE_BYTES)
        try:
            with self.open(digest) as reader:
                while reader.readinto(buffer):
                    pass
        except (NotFound, BlobCorrupt):
            return False
        return True

    def delete(self, digest: bytes) -> bool:
        """Removes a blob; False if there was none. Readers that have it open may finish."""
        path = self.path(digest)
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        sync_directory(path.parent)
        return True

    def iter(self) -> Iterator[bytes]:
        """The digests of all blobs, in order; what is added or removed meanwhile may be seen or not."""
        for first in _entries(self._root, 2):
            for second in _entries(self._root / first, 2):
                for name in _entries(self._root / first / second, 64):
                    if name.startswith(first + second):
                        yield bytes.fromhex(name)

    def path(self, digest: bytes) -> Path:
        """Where the blob with this digest lies, whether it is there or not.

        Raises:
            UsageError: it is not a digest.
        """
        if len(digest) != 32:
            raise UsageError(f"not a SHA-256 digest: {len(digest)} bytes", hint="32 raw bytes")
        name = digest.hex()
        return self._root / name[:2] / name[2:4] / name

    def resume(self, digest: bytes, offset_expected: int | None = None) -> int:
        """Where an upload stands: how many bytes of the blob are here (all of them when it is finished).

        Args:
            digest: the blob's.
            offset_expected: where the uploader believes it stands.

        Raises:
            Conflict: it stands elsewhere; ``context["offset"]`` says where.
        """
        try:
            at = self.size(digest)
        except NotFound:
            at = 0
            with contextlib.suppress(FileNotFoundError):
                at = os.stat(self._upload(digest)).st_size
        if offset_expected not in (None, at):
            raise _elsewhere(digest, at)
        return at

    def append(self, digest: bytes, offset: int, data: bytes) -> int:
        """Adds bytes to an upload and returns where it stands then. They are synced by `finish`.

        Raises:
            Conflict: the upload does not stand at `offset`; ``context["offset"]`` says where it does.
            NodeFull: no room; the upload is dropped.
            UsageError: longer than the limit; the upload is dropped.
        """
        with self._open_partial(self._upload(digest).name) as (fd, path):
            at = os.fstat(fd).st_size
            done = self.has(digest)
            if done or at != offset:
                if done or not at:
                    path.unlink()
                raise _elsewhere(digest, self.size(digest) if done else at)
            try:
                self._cap(at + len(data))
                write_at(fd, data, at)
            except BaseException as error:
                path.unlink(missing_ok=True)
                _say_no_room(error, self._root)
                raise
            return at + len(data)

    def finish(self, digest: bytes) -> int:
        """Proves an upload and makes it a blob that survives a power cut; returns its size. Again is fine.

        Raises:
            BlobCorrupt: the bytes do not have the digest; the upload is dropped.
            NotFound: there is no such upload.
        """
        name = self._upload(digest).name
        with contextlib.ExitStack() as stack:
            try:
                fd, path = stack.enter_context(self._open_partial(name, create=False))
            except FileNotFoundError:
                size = self.size(digest)  # finished before, perhaps by another writer
                self._settle(digest)
                return size
            found, size = digest_of(fd), os.fstat(fd).st_size
            if found != digest:
                path.unlink(missing_ok=True)
                if self.has(digest):
                    # Another writer finished meanwhile, and what stood here was the beginning of a third.
                    return self.size(digest)
                raise corrupt(digest, f"what came has the digest {found.hex()}")
            try:
                self._publish(fd, path, digest)
            except OSError as error:
                path.unlink(missing_ok=True)
                _say_no_room(error, self._root)
                raise
        return size

    def finish_found(self, upload: bytes) -> tuple[bytes, int]:
        """Makes an upload whose digest nobody knew a blob that survives a power cut; returns its digest and size.

        Args:
            upload: 32 bytes by which `append` was told which upload it is; no digest.

        Raises:
            NotFound: there is no such upload.
        """
        try:
            with self._open_partial(self._upload(upload).name, create=False) as (fd, path):
                return self._become(fd, path, None, None)
        except FileNotFoundError:
            raise NotFound(f"there is no upload {upload.hex()}", hint="begin it again") from None

    # -- uploads of bytes whose digest nobody knows yet ----------------------------------------------------------

    def begin(self, name: bytes = b"") -> str:
        """Begins an upload without a digest and returns its name, which nobody can guess: 16 bytes, or `name`."""
        upload = (name or os.urandom(16)).hex()
        with self._open_partial(f"{upload}.begun"):
            return upload

    def stands(self, upload: str) -> int:
        """How many bytes of an upload are here.

        Raises:
            NotFound: there is no such upload: never begun, completed, dropped or swept.
        """
        try:
            return os.stat(self._begun(upload)).st_size
        except FileNotFoundError:
            raise no_upload(upload) from None

    def extend(self, upload: str, offset: int, data: bytes) -> int:
        """Adds bytes to an upload and returns where it stands then. They are synced by `complete`.

        Raises:
            Conflict: it does not stand at `offset`; ``context["offset"]`` says where it does.
            NodeFull: no room; the upload stays as it was.
            NotFound: there is no such upload.
            UsageError: longer than the limit (status 413); the upload stays as it was.
        """
        with self._open_begun(upload) as (fd, _):
            at = os.fstat(fd).st_size
            if at != offset:
                raise Conflict(f"the upload stands at {at}, not at {offset}", hint="go on from there", offset=at)
            self._cap(at + len(data))
            try:
                return write_at(fd, data, at)
            except BaseException as error:
                os.ftruncate(fd, at)
                _say_no_room(error, self._root)
                raise

    def complete(self, upload: str, *, expect: bytes | None = None, hashed: bytes | None = None) -> tuple[bytes, int]:
        """Makes an upload the blob that its bytes are, which then survives a power cut; the upload ends.

        Args:
            upload: its name.
            expect: the digest that it must have.
            hashed: the digest of all its bytes, from whoever appended all of them; they are read again without it.

        Returns:
            The digest (32 bytes) and the size in bytes.

        Raises:
            BlobCorrupt: the digest is not the expected one; the upload is dropped.
            NodeFull: no room; the upload is dropped.
            NotFound: there is no such upload.
        """
        with self._open_begun(upload) as (fd, path):
            return self._become(fd, path, expect, hashed)

    def drop(self, upload: str) -> bool:
        """Ends an upload that is not wanted; False if there was none."""
        try:
            with self._open_begun(upload) as (_, path):
                path.unlink()
        except NotFound:
            return False
        return True

    def _become(self, fd: int, path: Path, expect: bytes | None, hashed: bytes | None) -> tuple[bytes, int]:
        """Makes a partial file the blob that its bytes are; without what cannot be one."""
        try:
            digest = hashed if hashed is not None else digest_of(fd)
            if expect is not None and digest != expect:
                raise corrupt(expect, f"what came has the digest {digest.hex()}")
            size = os.fstat(fd).st_size
            self._publish(fd, path, digest)
        except BaseException as error:
            path.unlink(missing_ok=True)
            _say_no_room(error, self._root)
            raise
        return digest, size

    def sweep(self, older_than_s: float, *, now: Callable[[], float] = time.time) -> int:
        """Removes partial files that nobody writes, or has written for so many seconds; returns how many.

        Args:
            older_than_s: age in seconds from which on they go.
            now: seconds since 1970, as the file system counts them.
        """
        swept = 0
        limit = now() - older_than_s
        try:
            names = os.listdir(self._partial)
        except FileNotFoundError:
            return 0
        for name in names:
            path = self._partial / name
            with contextlib.suppress(FileNotFoundError, BlockingIOError):
                fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if os.fstat(fd).st_mtime <= limit:
                        path.unlink()
                        swept += 1
                finally:
                    os.close(fd)
        return swept

    # -- inside -------------------------------------------------------------------------------------------------

    def _upload(self, digest: bytes) -> Path:
        return self._partial / f"{self.path(digest).name}.upload"

    def _begun(self, upload: str) -> Path:
        if len(upload) != 32 or not _HEX.issuperset(upload):
            raise no_upload(upload)
        return self._partial / f"{upload}.begun"

    @contextlib.contextmanager
    def _open_begun(self, upload: str) -> Iterator[tuple[int, Path]]:
        name = self._begun(upload).name
        with contextlib.ExitStack() as stack:
            try:
                found = stack.enter_context(self._open_partial(name, create=False))
            except FileNotFoundError:
                raise no_upload(upload) from None
            yield found

    def _descriptor(self, digest: bytes) -> int:
        try:
            return os.open(self.path(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _absent(digest) from None

    @contextlib.contextmanager
    def _open_partial(self, name: str, *, create: bool = True) -> Iterator[tuple[int, Path]]:
        """The partial file, ours alone until the block ends."""
        path = self._partial / name
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        while True:
            try:
                fd = os.open(path, flags, 0o600)
            except FileNotFoundError:
                if not create:
                    raise
                self._partial.mkdir(mode=0o700, parents=True, exist_ok=True)
                os.chmod(self._root, 0o700)
                sync_directory(self._root.parent)
                continue
            except OSError as error:
                _say_no_room(error, self._root)
                raise
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                # Whoever held it may have finished, dropped or swept it: then what we hold has no name.
                if _still_named(fd, path):
                    yield fd, path
                    return
            finally:
                fcntl.flock(fd, fcntl.LOCK_UN)  # said, not only closed: a child forked meanwhile has it too
                os.close(fd)

    def _fill(self, fd: int, pieces: Iterable[bytes]) -> tuple[bytes, int]:
        digest = hashlib.sha256()
        size = 0
        for piece in pieces:
            self._cap(size + len(piece))
            digest.update(piece)
            size = write_at(fd, piece, size)
        return digest.digest(), size

    def _cap(self, size: int) -> None:
        if size > self._limit:
            error = UsageError(f"a blob has at most {self._limit} bytes", hint="store it in several parts")
            error.status = 413
            raise error

    def _same(self, digest: bytes, size: int) -> bool:
        try:
            if self.size(digest) != size:
                return False
        except NotFound:
            return False
        return self.verify(digest)

    def _publish(self, fd: int, partial: Path, digest: bytes) -> None:
        os.fsync(fd)
        path = self.path(digest)
        try:
            partial.rename(path)
        except FileNotFoundError:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.chmod(path.parent.parent, 0o700)
            partial.rename(path)
        self._settle(digest)

    def _settle(self, digest: bytes) -> None:
        """Makes the name survive a power cut, with the directories on the way, whoever made them."""
        for directory in [*self.path(digest).parents][:3]:
            sync_directory(directory)


def _still_named(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _entries(directory: Path, length: int) -> list[str]:
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(name for name in names if len(name) == length and _HEX.issuperset(name))


def _say_no_room(error: BaseException, root: Path) -> None:
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        raise NodeFull(f"no room for a blob in {root}", hint="free space on this disk; reads go on") from error


def _absent(digest: bytes) -> NotFound:
    return NotFound(f"no blob {digest.hex()}", digest=digest.hex())


def _elsewhere(digest: bytes, offset: int) -> Conflict:
    return Conflict(
        f"the upload of {digest.hex()} stands at {offset}",
        hint="go on from there",
        digest=digest.hex(),
        offset=offset,
    )

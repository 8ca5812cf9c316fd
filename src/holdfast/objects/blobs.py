"""Blobs as files: bytes named by their SHA-256, whole or not there, and never returned when they rotted.

A blob lies at ``<root>/ab/cd/<sha256 in hex>``; what is not finished lies in ``<root>/partial``. Order of a write:
partial file, fsync, rename, fsync of the directories: after a crash there is a blob or a partial file, which is
ignored and later swept. There is no state but the root, so any number of objects, threads, processes and forked
children may use one root at once.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path


class BlobReader(io.RawIOBase):
    """Streams a blob; the read that would reach its end raises when the bytes do not have their digest.

    Not seekable. What was read before the end is unproven until the end: use `BlobFiles.read` to have only proven
    bytes.
    """


class BlobFiles:
    """The blobs below one directory.

    Args:
        root: the directory; made, with mode 0700, by the first write.
    """

    def __init__(self, root: Path) -> None:
        raise NotImplementedError

    def put(
        self, source: bytes | Path | Iterable[bytes], *, expect: bytes | None = None
    ) -> tuple[bytes, int]:
        """Stores a blob; when it returns, the blob survives a power cut. Storing it again heals a rotten one.

        Args:
            source: the bytes, pieces of them, or a file to copy.
            expect: the digest that they must have.

        Returns:
            The digest (32 bytes) and the size in bytes.

        Raises:
            BlobCorrupt: the digest is not the expected one; nothing is stored.
            NodeFull: no room; nothing is stored.
            UsageError: longer than `records.BLOB_BYTES_MAX`.
        """
        raise NotImplementedError

    def open(self, digest: bytes) -> BlobReader:
        """A reader that checks the digest while streaming.

        Raises:
            NotFound: there is no such blob.
        """
        raise NotImplementedError

    def read(
        self, digest: bytes, offset: int = 0, length: int | None = None, *, verify: bool = True
    ) -> bytes:
        """The bytes of a blob, or a range of them, proven.

        Args:
            digest: 32 bytes.
            offset: where to begin.
            length: how many bytes at most; None for all.
            verify: read the whole blob to prove the range. False is for those whose reader proves the whole (a hub
                that serves ranges).

        Raises:
            NotFound: there is no such blob.
            BlobCorrupt: its bytes do not have its digest.
        """
        raise NotImplementedError

    def size(self, digest: bytes) -> int:
        """The size in bytes.

        Raises:
            NotFound: there is no such blob.
        """
        raise NotImplementedError

    def has(self, digest: bytes) -> bool:
        """Whether the blob is here; looks at the name only."""
        raise NotImplementedError

    def missing(self, digests: Iterable[bytes]) -> list[bytes]:
        """Those that are not here, in the order given, each once."""
        raise NotImplementedError

    def verify(self, digest: bytes) -> bool:
        """Whether the blob is here and its bytes have its digest."""
        raise NotImplementedError

    def delete(self, digest: bytes) -> bool:
        """Removes a blob; False if there was none. Readers that have it open may finish."""
        raise NotImplementedError

    def iter(self) -> Iterator[bytes]:
        """The digests of all blobs, in order; what is added or removed meanwhile may be seen or not."""
        raise NotImplementedError

    def resume(self, digest: bytes, offset_expected: int | None = None) -> int:
        """Where an upload stands: how many bytes of the blob are here (all of them when it is finished).

        Args:
            digest: the blob's.
            offset_expected: where the uploader believes it stands.

        Raises:
            Conflict: it stands elsewhere; `context["offset"]` says where.
        """
        raise NotImplementedError

    def append(self, digest: bytes, offset: int, data: bytes) -> int:
        """Adds bytes to an upload and returns where it stands then. They are synced by `finish`.

        Raises:
            Conflict: the upload does not stand at `offset`; `context["offset"]` says where it does.
            NodeFull: no room; the upload is dropped.
            UsageError: longer than `records.BLOB_BYTES_MAX`; the upload is dropped.
        """
        raise NotImplementedError

    def finish(self, digest: bytes) -> int:
        """Proves an upload and makes it a blob that survives a power cut; returns its size. Again is fine.

        Raises:
            BlobCorrupt: the bytes do not have the digest; the upload is dropped.
            NotFound: there is no such upload.
        """
        raise NotImplementedError

    def sweep(self, older_than_s: float) -> int:
        """Removes partial files that nobody has written to for so many seconds; returns how many."""
        raise NotImplementedError

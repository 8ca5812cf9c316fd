"""Reading a blob from its file: its last bytes come out only if all of them have its digest."""

from __future__ import annotations

import hashlib
import io
import os
from typing import Any

from holdfast.errors import BlobCorrupt, NotFound


class BlobReader(io.RawIOBase):
    """Streams a blob; the read that would reach its end raises when the bytes do not have their digest.

    Not seekable. What was read before the end is unproven until the end: whoever must not act on unproven
    bytes uses `BlobFiles.read`, or waits for the end. Made by `BlobFiles.open`.
    """

    def __init__(self, fd: int, digest: bytes) -> None:
        super().__init__()
        self._fd = fd
        self._digest = digest
        self._hash = hashlib.sha256()
        self._left = os.fstat(fd).st_size
        self.size = self._left
        """Size of the whole blob in bytes."""

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def readinto(self, buffer: Any) -> int:
        if self.closed:
            raise ValueError("read of a closed blob")
        view = memoryview(buffer).cast("B")
        if not len(view):
            return 0
        try:
            got = os.readv(self._fd, [view[: self._left]]) if self._left else 0
        except OSError as error:
            raise corrupt(self._digest, f"the disk cannot read it: {error.strerror}") from error
        self._hash.update(view[:got])
        self._left -= got
        # The last piece is proven before it is handed out; so is the end of an empty or a shortened file.
        if (not self._left or not got) and self._hash.digest() != self._digest:
            view[:got] = bytes(got)
            raise corrupt(self._digest, "its bytes have another digest")
        return got

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


def corrupt(digest: bytes, why: str) -> BlobCorrupt:
    """The error of a blob whose bytes are not what its name says."""
    return BlobCorrupt(f"blob {digest.hex()}: {why}", hint="fetch it again; the hub may have it", digest=digest.hex())


def no_upload(upload: str) -> NotFound:
    """The error of an upload that is not there."""
    return NotFound(f"there is no upload {upload!r:.80}", hint="it ended, or stood still for a day: begin another")

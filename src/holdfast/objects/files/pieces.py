"""An object's bytes out of its file: the last of them come only if all of them are what was stored."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

from holdfast.errors import ObjectCorrupt
from holdfast.objects.files.sidecars import ROTTEN, About
from holdfast.objects.raw import PIECE_BYTES, read_at


class Pieces:
    """A file's bytes, or a range; the last piece comes only if all of them are what was stored."""

    def __init__(self, where: str, key: str, fd: int, span: tuple[int, int], proof: str) -> None:
        self._where, self._key, self._fd, self._proof = where, key, fd, proof
        self._at, self._end = span
        self._hash = hashlib.sha256()

    def check(self, about: About) -> None:
        """Refuses a file of which it can be said without reading it that it is not what was stored."""
        if about is ROTTEN:
            raise self._wrong("its description was changed")
        found = os.fstat(self._fd).st_size
        if found != about.size:
            raise self._wrong(f"its file has {found} bytes, {about.size} were stored")

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        want = min(PIECE_BYTES, self._end - self._at)
        if self._fd < 0 or (want <= 0 and not self._proof):
            self.close()
            raise StopIteration
        try:
            piece = read_at(self._fd, want, self._at)
        except OSError as error:
            raise self._wrong(f"the disk cannot read it: {error.strerror}") from error
        if len(piece) < want:
            raise self._wrong("its file is shorter than what was stored")
        self._at += want
        if self._proof:
            self._hash.update(piece)
            if self._at >= self._end:
                if self._hash.hexdigest() != self._proof:
                    raise self._wrong("its bytes have another digest than those that were stored")
                self._proof = ""
        if not piece:
            self.close()
            raise StopIteration
        return piece

    def _wrong(self, why: str) -> ObjectCorrupt:
        self.close()
        return corrupt(self._where, self._key, why)

    def close(self) -> None:
        """Gives the file back; more than once is no error."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close


def corrupt(store: str, key: str, why: str) -> ObjectCorrupt:
    """The error of a file whose bytes, or whose description, are not what was stored."""
    return ObjectCorrupt(
        f"object {key!r:.200} in {store}: {why}",
        hint="put it again from elsewhere; if you changed its file by hand, put what it is now",
        key=key,
    )

"""Where a log's head was, kept outside the log: shows a tail that was cut off, a file that was rolled back, and
acknowledged commits that a damaged WAL has swallowed. Nothing inside the file can show these.

Two slots, written in turn, each with its own checksum and within one sector, so that a torn write leaves the other. The
anchor never moves past what the log has synced, so after an honest power cut it is never ahead of the log.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Final, NamedTuple

_SLOT: Final = 4096
_FORM: Final = struct.Struct(">8s16sQ32sQQ")
_MAGIC: Final = b"hf/anc/1"


class Mark(NamedTuple):
    """A head that was durable: its stream, number, link and stamp."""

    stream: bytes
    seq: int
    link: bytes
    hlc: int


class Anchor:
    """The anchor file of one log. Not shared between threads; two processes may write it, the newer mark wins."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._turn = max(count for count, _ in self._slots())

    def read(self) -> Mark | None:
        """The newest mark whose slot is whole, or None if there never was one."""
        return _newest(self._slots())

    def write(self, mark: Mark) -> None:
        """Moves the anchor, also for whoever reads it after this process was killed.

        Call only for a head that the log has synced. A power cut may take the newest marks: see `sync`.
        """
        self._turn += 1
        body = _FORM.pack(_MAGIC, *mark, self._turn)
        os.pwrite(self._fd, body + zlib.crc32(body).to_bytes(4, "big"), (self._turn % 2) * _SLOT)

    def sync(self) -> None:
        """Returns when what was written before the call survives a power cut; another thread may write meanwhile."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Closes the file; a second close is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _slots(self) -> list[tuple[int, Mark | None]]:
        return _slots(self._fd)


def read_mark(path: Path) -> Mark | None:
    """The newest mark in an anchor file, which may be another process's; None if there is none. Changes nothing."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return _newest(_slots(fd))
    finally:
        os.close(fd)


def _newest(slots: list[tuple[int, Mark | None]]) -> Mark | None:
    # By number and not by turn: two processes count their turns apart, and a head only grows.
    return max((mark for _, mark in slots if mark is not None), key=lambda mark: mark.seq, default=None)


def _slots(fd: int) -> list[tuple[int, Mark | None]]:
    out: list[tuple[int, Mark | None]] = []
    for slot in range(2):
        data = os.pread(fd, _FORM.size + 4, slot * _SLOT)
        body, check = data[: _FORM.size], data[_FORM.size :]
        if len(check) != 4 or zlib.crc32(body).to_bytes(4, "big") != check or body[:8] != _MAGIC:
            out.append((0, None))
            continue
        _, stream, seq, link, hlc, count = _FORM.unpack(body)
        out.append((count, Mark(stream, seq, link, hlc)))
    return out

"""Room on the disk: stops writes before the disk is full, and keeps room to get out again when it is.

On a full disk SQLite can neither delete nor checkpoint, since both write to the WAL first: a store that
fills its disk is locked in. So a ballast file keeps a few MiB that can be given back. It must be larger
than what the way out needs (measured: 512 KiB beside a 2.6 MB WAL did not help, five times the WAL's
limit did).

The floor is bytes and not a share of the disk: 5 % of a laptop's disk is many GB, and most laptops
have less free. The default is what a checkpoint, a ballast and some blobs need; set it higher on a hub.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.clock import SYSTEM, Clock
from holdfast.errors import NodeFull

BALLAST_BYTES: Final = 20 << 20
"""The default ballast: 5 × a WAL of 4 MiB, and not less than 16 MiB."""
FLOOR_BYTES: Final = 64 << 20
"""The default floor: free bytes below which nothing new is written."""
LOOK_EVERY_S: Final = 0.25
LOOK_EVERY_BYTES: Final = 4 << 20
_PIECE_BYTES: Final = 1 << 20
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Space(msgspec.Struct, frozen=True):
    """How much room there is, in bytes: free for us, the disk's size, the floor, the ballast now and as wanted."""

    free: int
    total: int
    floor: int
    ballast: int
    ballast_wanted: int

    @property
    def writable(self) -> bool:
        """Whether writes are let through."""
        return self.free >= self.floor


class Reserve:
    """The guard of one directory's disk. Threads, processes and forked children may share one directory.

    It does nothing by itself: call `ensure` at open and now and then, `check` before a write, `release` when
    a write hit a full disk, and then evict and checkpoint.

    Args:
        directory: where the ballast lies; it exists.
        ballast_bytes: size of the ballast; at least max(16 MiB, 5 × the WAL's limit) to be of use, 0 for none.
        floor_bytes: free bytes below which `check` refuses.
        statvfs: what tells the free space; tests hand in their own.
        clock: for how long an answer is believed.
    """

    def __init__(
        self,
        directory: Path,
        *,
        ballast_bytes: int = BALLAST_BYTES,
        floor_bytes: int = FLOOR_BYTES,
        statvfs: Callable[[Path], Any] = os.statvfs,
        clock: Clock = SYSTEM,
    ) -> None:
        self.path = directory / "ballast"
        self._ballast_bytes = ballast_bytes
        self._floor = floor_bytes
        self._statvfs = statvfs
        self._clock = clock
        # What was known at the last look. Threads may race here: the price is one statvfs more or less.
        self._free = 0
        self._budget = 0
        self._again = float("-inf")
        self._hopeless = False

    def set_floor(self, floor_bytes: int) -> None:
        """Has writes refused below another number of free bytes from now on."""
        self._floor = floor_bytes
        self._again = float("-inf")

    def ensure(self) -> bool:
        """Makes the ballast if it is missing and the disk has room for it above the floor.

        Returns:
            Whether the ballast is there now.
        """
        here = self._ballast()
        if here >= self._ballast_bytes:
            return True
        if self._look() + here - self._ballast_bytes <= self._floor:
            return False
        if self._hopeless:
            return False
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # In place and not by rename: what a crash leaves of it is found by its name and completed.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _fill(fd, self._ballast_bytes)
            os.fsync(fd)
        except BlockingIOError:
            return False  # somebody else is at it
        except OSError as error:
            self.release()
            if error.errno not in _NO_ROOM:
                raise
            return False
        finally:
            os.close(fd)
            self._again = float("-inf")
        self._hopeless = self._ballast() < self._ballast_bytes  # a disk that compresses zeros away
        return not self._hopeless

    def release(self) -> int:
        """Gives the ballast back to the disk, for the way out of a full one.

        Returns:
            The bytes freed; 0 when it had been given back before.
        """
        freed = self._ballast()
        try:
            # Cut before it is removed: a file that somebody still has open keeps its blocks otherwise.
            os.truncate(self.path, 0)
            self.path.unlink()
        except FileNotFoundError:
            return 0
        self._again = float("-inf")
        return freed

    def check(self, size: int = 0) -> None:
        """Returns only while there is room to write. Cheap: asks the disk every 0.25 s or 4 MiB.

        Args:
            size: bytes about to be written.

        Raises:
            NodeFull: less than the floor is, or would be, free; reads go on.
        """
        self._budget -= size
        if self._budget <= 0 or self._clock.monotonic() >= self._again:
            self._look()
            self._budget = LOOK_EVERY_BYTES
        self._free -= size
        if self._free < self._floor:
            free = self._free + size
            self._again = float("-inf")  # a refused write was not written, and space may return at any time
            raise NodeFull(
                f"{free >> 20} MiB free on the disk of {self.path.parent}, {self._floor >> 20} MiB must stay free",
                hint="free space on this disk, or lower the floor; reads go on",
                free=free,
                floor=self._floor,
            )

    def state(self) -> Space:
        """How much room there is now, for health and metrics; always asks the disk."""
        found = self._statvfs(self.path.parent)
        return Space(
            free=found.f_bavail * found.f_frsize,
            total=found.f_blocks * found.f_frsize,
            floor=self._floor,
            ballast=self._ballast(),
            ballast_wanted=self._ballast_bytes,
        )

    def _look(self) -> int:
        found = self._statvfs(self.path.parent)
        self._free = int(found.f_bavail * found.f_frsize)
        self._again = self._clock.monotonic() + LOOK_EVERY_S
        return self._free

    def _ballast(self) -> int:
        """The bytes that removing it would give back: a file with holes is no ballast."""
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(self.path)
            return min(found.st_size, found.st_blocks * 512)
        return 0


def _fill(fd: int, size: int) -> None:
    # Blocks must be taken, so no truncate. Where there is no posix_fallocate (macOS), zeros are written.
    if not size:
        return
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
    zeros = memoryview(bytes(_PIECE_BYTES))
    while size:
        size -= os.write(fd, zeros[: min(size, _PIECE_BYTES)])

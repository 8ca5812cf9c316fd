"""Room on the disk: stops writes before the disk is full, and keeps room to get out again when it is.

On a full disk SQLite can neither delete nor checkpoint, since both write to the WAL first: a store that fills
its disk is locked in. So a ballast file keeps a few MiB that can be given back. It must be larger than what the
way out needs (measured: 512 KiB beside a 2.6 MB WAL did not help, 5 × the WAL's limit did).

The floor is bytes and not a share of the disk: 5 % of a laptop's disk is many GB, and would stop most laptops.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.clock import SYSTEM, Clock

BALLAST_BYTES: Final = 20 << 20
"""The default ballast: 5 × a WAL of 4 MiB, and not less than 16 MiB."""
FLOOR_BYTES: Final = 64 << 20
LOOK_EVERY_S: Final = 0.25
LOOK_EVERY_BYTES: Final = 4 << 20


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
    """The guard of one directory's disk. Safe to share among threads and after a fork; does nothing by itself.

    Args:
        directory: where the ballast lies; it exists.
        ballast_bytes: size of the ballast; at least max(16 MiB, 5 × the WAL's limit) to be of use.
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
        raise NotImplementedError

    def ensure(self) -> bool:
        """Makes the ballast if it is missing and the disk has room for it above the floor.

        Returns:
            Whether the ballast is there now.
        """
        raise NotImplementedError

    def release(self) -> int:
        """Gives the ballast back to the disk, for the way out of a full one.

        Returns:
            The bytes freed; 0 when it had been given back before.
        """
        raise NotImplementedError

    def check(self, size: int = 0) -> None:
        """Returns only while there is room to write. Cheap: asks the disk every 0.25 s or 4 MiB.

        Args:
            size: bytes about to be written.

        Raises:
            NodeFull: less than the floor is free; reads go on.
        """
        raise NotImplementedError

    def state(self) -> Space:
        """How much room there is now, for health and metrics; always asks the disk."""
        raise NotImplementedError

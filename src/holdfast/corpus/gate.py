"""The lock beside a file: who is first at it, and who else has it open."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Gate:
    """Who is first at a file: a lock beside it, held shared while open, exclusively while looking before opening.

    A second lock, the door, is held while opening: going from exclusive to shared is not atomic (flock lets go in
    between), and a third opener who slipped in would look at, or prefill, a WAL that is being written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = self._door = -1

    def enter(self) -> bool:
        """Returns True to the first opener, who alone may look and prefill until `shared`."""
        self._door = self._open(".door")
        fcntl.flock(self._door, fcntl.LOCK_EX)
        self._fd = self._open(".lock")
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            fcntl.flock(self._fd, fcntl.LOCK_SH)
            return False

    def shared(self) -> None:
        """Open: others may come."""
        fcntl.flock(self._fd, fcntl.LOCK_SH)
        os.close(self._door)
        self._door = -1

    def leave(self) -> None:
        """Closed, or never opened; again is fine."""
        for fd in (self._fd, self._door):
            if fd >= 0:
                os.close(fd)
        self._fd = self._door = -1

    def _open(self, suffix: str) -> int:
        return os.open(self._path.with_suffix(suffix), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

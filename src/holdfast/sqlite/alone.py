"""Being alone with a database before it is opened, by SQLite's own locks: no file of ours lies beside it.

Whoever has a database in WAL mode open holds SQLite's shared lock on it. Who gets the exclusive one is alone: neither
this process nor another has it open, and who comes waits as for any lock. Those who want to be alone queue at the WAL,
by a lock of its own that SQLite knows nothing of: two who came at once would each take the other for an owner.

The database is read through SQLite's file, never through another: to close that would drop the lock.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import apsw

_SYSTEM: Final = "unix"


class Alone:
    """The lock. Leave it in any case, and open the database between `admit` and `leave`.

    Args:
        path: the database file; it is there.
        wait: asked with the number of tries before; it sleeps, and says whether to try again.
    """

    def __init__(self, path: Path, wait: Callable[[int], bool]) -> None:
        self._path = path
        self._wait = wait
        self._door = -1
        self._file: apsw.VFSFile | None = None

    def enter(self) -> bool:
        """Whether there is a WAL and nobody has the database open; until `admit`, nobody can open it then.

        Raises:
            apsw.Error: the file cannot be opened or locked.
            OSError: the WAL cannot be read.
            PermissionError: the file may not be written.
        """
        if not self._shut_door():
            return False
        flags = [apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READWRITE, 0]
        self._file = apsw.VFSFile(_SYSTEM, str(self._path), flags)
        if flags[1] & apsw.SQLITE_OPEN_READONLY:
            raise PermissionError(13, os.strerror(13), str(self._path))
        tries = 0
        while not self._locked(apsw.SQLITE_LOCK_SHARED):  # somebody checkpoints as the last, or is alone himself
            if not self._wait(tries):
                raise apsw.BusyError("database is locked")
            tries += 1
        return self._locked(apsw.SQLITE_LOCK_EXCLUSIVE)

    def read(self, size: int, offset: int) -> bytes:
        """Bytes of the database, fewer at its end."""
        assert self._file is not None
        return self._file.xRead(size, offset)

    def sync(self) -> None:
        """Returns once what the database holds survives a power cut."""
        assert self._file is not None
        self._file.xSync(apsw.SQLITE_SYNC_FULL)

    def admit(self) -> None:
        """Lets others open the database; nobody is alone with it until `leave`."""
        if self._file is not None:
            self._file.xUnlock(apsw.SQLITE_LOCK_SHARED)
        self._open_door()

    def leave(self) -> None:
        """Lets go of all of it; again is fine."""
        file, self._file = self._file, None
        if file is not None:
            file.xUnlock(apsw.SQLITE_LOCK_NONE)
            file.xClose()
        self._open_door()

    def _locked(self, level: int) -> bool:
        assert self._file is not None
        try:
            self._file.xLock(level)
        except apsw.BusyError:
            return False
        return True

    def _shut_door(self) -> bool:
        path = f"{self._path}-wal"
        while True:
            try:
                self._door = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                fcntl.flock(self._door, fcntl.LOCK_EX)
                if os.fstat(self._door).st_ino == os.stat(path).st_ino:
                    return True
            except FileNotFoundError:
                self._open_door()
                return False
            self._open_door()  # another WAL by now

    def _open_door(self) -> None:
        if self._door >= 0:
            fcntl.flock(self._door, fcntl.LOCK_UN)  # said, not only closed: a child forked meanwhile has it too
            os.close(self._door)
            self._door = -1

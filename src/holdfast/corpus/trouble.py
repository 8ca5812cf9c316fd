"""What an engine does about SQLite: patience with other writers, errors of our tree, pragmas that are read back."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import apsw

from holdfast.errors import HoldfastError, IntegrityError, Locked, NodeFull, UsageError

BUSY_S_MAX: Final = 600.0
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Patience:
    """A busy handler: a second writer waits its turn, in short random steps, for as long as a disk may stall."""

    def __init__(self) -> None:
        self._since = 0.0

    def __call__(self, tries: int) -> bool:
        from random import uniform  # not before somebody must wait: it would cost every command 2 ms

        if tries == 0:
            self._since = time.monotonic()
        time.sleep(uniform(0.0001, min(0.0002 * (tries + 1), 0.005)))  # SQLite's own steps reach 100 ms
        return time.monotonic() - self._since < BUSY_S_MAX


def ours(error: apsw.Error, path: Path, connection: apsw.Connection | None = None) -> HoldfastError:
    """The error of our tree that an SQLite error means; SQLite's never reach a caller."""
    # SQLite says "full" of a full disk alone; a quota, a limit, or no room for the WAL's index are an I/O error to it.
    grown = getattr(error, "extendedresult", 0) in (apsw.SQLITE_IOERR_WRITE, apsw.SQLITE_IOERR_SHMSIZE)
    if isinstance(error, apsw.FullError) or (grown and connection and connection.system_errno in _NO_ROOM):
        return NodeFull(f"no room to write {path.name}", hint="free space on this disk; reads go on")
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return Locked(f"{path.name} stayed locked for {BUSY_S_MAX:.0f} s", hint="which process holds it?")
    if isinstance(error, apsw.CorruptError | apsw.NotADBError | apsw.IOError):
        return IntegrityError(f"{path.name} is damaged: {error}", hint="holdfast verify")
    if isinstance(error, apsw.CantOpenError):
        return NodeFull(f"cannot open {path.name}: {error}", hint="is the disk full, or not writable?")
    return HoldfastError(f"{path.name}: {type(error).__name__}: {error}")


@contextlib.contextmanager
def as_ours(path: Path) -> Iterator[None]:
    """Raises what SQLite raises in the block as an error of our tree."""
    try:
        yield
    except apsw.Error as error:
        raise ours(error, path) from error
    except (UnicodeEncodeError, OverflowError) as error:
        raise unsayable(error) from error


def unsayable(error: UnicodeEncodeError | OverflowError) -> UsageError:
    """The error of whoever asks for what no file can hold: it was never written, and cannot be found."""
    if isinstance(error, UnicodeEncodeError):
        return UsageError(
            "text holds half a surrogate pair, which no record does", hint="repair it where it comes from"
        )
    return UsageError("a number of more than 64 bits, which no record holds", hint="is it a key? keys are text")


def pragma(connection: apsw.Connection, name: str, value: int | str) -> None:
    """Sets a pragma, and reads it back: SQLite does not say when it will not."""
    connection.execute(f"PRAGMA {name}={value}").fetchall()
    got = connection.pragma(name)
    if got != value:
        raise IntegrityError(f"PRAGMA {name} is {got!r} after setting {value!r}")

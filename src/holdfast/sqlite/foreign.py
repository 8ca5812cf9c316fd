"""Another program's SQLite file: read while that program writes it, and never written.

A file with a WAL is read through it and under SQLite's own locks, as any reader would: a snapshot that whoever writes
neither waits for nor breaks. Where no WAL lies beside the file (its program has ended, or the folder was copied) SQLite
could read it only by laying files there; so it is read as it lies, and whether that was one state is asked afterwards.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar
from urllib.parse import quote

import apsw

from holdfast.errors import StorageError, StorageUnavailable

T = TypeVar("T")
Stamp = tuple[int, ...]
"""What changes whenever the file was written: sizes, times and the inode of the file, of its WAL and its journal."""

_BUSY_MS: Final = 2_000
_TRIES: Final = 5
_BESIDE: Final = ("-wal", "-journal")


def stamp(path: str) -> Stamp:
    """What tells whether a database was written since.

    Raises:
        OSError: it is not there, or may not be looked at.
    """
    here = os.stat(path)
    found = [here.st_size, here.st_mtime_ns, here.st_ino]
    for suffix in _BESIDE:
        try:
            beside = os.stat(path + suffix)
        except FileNotFoundError:
            found += (0, 0)
        else:
            found += (beside.st_size, beside.st_mtime_ns)
    return tuple(found)


class Foreign:
    """An open snapshot of another program's database."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def rows(self, sql: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """The rows of a query, one by one."""
        yield from self._connection.execute(sql, values)

    def columns(self, table: str) -> tuple[str, ...]:
        """A table's columns; empty if there is no such table."""
        return tuple(name for (name,) in self.rows("SELECT name FROM pragma_table_info(?)", table))


def read(path: str, job: Callable[[Foreign], T]) -> T:
    """What `job` returns on one state of the database; it may be called again, when that was none.

    Args:
        path: the file.
        job: must read all it wants: what it returns may not hold on to the snapshot.

    Raises:
        OSError: the file is not there.
        StorageUnavailable: its program is at it without a pause.
        StorageError: it is no database, is damaged, or cannot be read where it lies.
    """
    for _ in range(_TRIES):
        before = stamp(path)
        live = any(before[3::2])
        try:
            with _opened(path, live) as found:
                made = job(found)
        except apsw.BusyError:
            continue
        except UnicodeDecodeError as error:
            raise StorageError(f"{path} holds text that is none: {error}") from error
        except apsw.Error as error:
            if not live and stamp(path) != before:
                continue  # pages of two states do not fit together
            raise _ours(path, error) from error
        if live or stamp(path) == before:
            return made
    raise StorageUnavailable(f"{path} is being written without a pause", hint="it is looked at again by itself")


@contextlib.contextmanager
def _opened(path: str, live: bool) -> Iterator[Foreign]:
    name = f"file:{quote(os.path.abspath(path))}?mode=ro" + ("" if live else "&immutable=1")
    connection = apsw.Connection(name, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    try:
        connection.set_busy_timeout(_BUSY_MS)
        # What stands in the file is somebody else's: it may call no function, and change nothing.
        connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        connection.execute("BEGIN")
        yield Foreign(connection)
    finally:
        connection.close(True)


def _ours(path: str, error: apsw.Error) -> StorageError:
    if isinstance(error, apsw.CantOpenError | apsw.ReadOnlyError):
        hint = "it has a WAL or a journal, which is read beside it: copy the folder to where files may be made"
        return StorageError(f"{path} cannot be read where it lies: {error}", hint=hint)
    if isinstance(error, apsw.NotADBError | apsw.CorruptError):
        return StorageError(f"{path} is no SQLite database, or is damaged: {error}", hint="its own program may know")
    return StorageError(f"{path}: {error}")

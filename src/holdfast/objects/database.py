"""An SQLite file for named bytes, tables and queues: the objects room's one door to apsw.

What it gives: page checksums, WAL, transactions that are safe from a power cut when they return, readers in any thread,
and errors of ours. What it refuses to know: what lies in the tables. Several of its owners (*parts*) may share a file.

Theory of operation. There is one connection that writes, behind a lock, and as many that read as threads read at once.
A commit is written with ``synchronous=NORMAL``, and then the WAL is synced once for everybody who waits: threads that
write at the same time share a sync, and nobody holds the lock while the disk is waited for.

Forks. SQLite remembers in the process's memory which of its files are locked; a forked child has that memory but not
the locks, and a file that it opened would lose commits. So whoever forks closes every connection of every database
first, and waits for those in use; parent and child then open theirs anew, when they need them.

Traps, as in `holdfast.corpus.engine`: the file is never opened or closed but by SQLite (that drops SQLite's locks);
pragmas go singly and are read back; after a failed sync nothing is written until it was opened again.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import apsw

from holdfast.errors import (
    ObjectCorrupt,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
    StoreClosed,
)
from holdfast.objects.database_file import NO_ROOM, create_file, looked_at, refused, trouble
from holdfast.objects.database_patience import BUSY_S, Patience
from holdfast.objects.forks import WAIT_S, watch
from holdfast.sqlite import checksums
from holdfast.sqlite.doctor import Diagnosis

_WAL_BYTES_KEPT: Final = 64 << 20
_CACHE_KIB: Final = 4096
_PARTS: Final = "CREATE TABLE holdfast_part (part TEXT NOT NULL PRIMARY KEY, version INTEGER NOT NULL) STRICT"

Execute: TypeAlias = Callable[..., Any]
"""Runs one statement, ``(sql, args=())``, and gives a cursor: to iterate over, or `fetchone`."""


class Database:
    """An open file. Any thread may use it at any time, and so may a forked child.

    Args:
        path: the file; made, with its directories, if it is not there. Only its owner may read it (0600).
        part: what its owner calls its tables, such as ``objects``; parts do not know of each other.
        steps: scripts that make the part's tables, oldest first; more may be added, none may ever be changed.
        durable: whether a transaction that returned survives a power cut; if not, it survives the process.

    Raises:
        StorageRefused: the file is another program's, or a newer Holdfast's.
        StorageDenied: it may not be read or written.
        ObjectCorrupt: it is damaged.
        StorageUnavailable: it stayed locked; `StorageFull`: no room to make it.
    """

    def __init__(self, path: str | os.PathLike[str], part: str, steps: Sequence[str], *, durable: bool = True) -> None:
        self.path = Path(os.path.realpath(path))  # another working directory must not mean another file
        self.durable = durable
        self._part = part
        self._closed = False
        self._failed: Exception | None = None
        self._writer: apsw.Connection | None = None
        self._wal: int | None = None
        self._sync_begun = self._sync_done = 0
        self._made = 0  # readers, in use or not; guarded by _making
        self._readers: list[apsw.Connection] = []
        self.diagnosis: Diagnosis | None = None
        """What the WAL was when this process opened the file as the only one; damage stays."""
        self._returned = self._readers  # where a reader is put back: elsewhere while a fork waits for all of them
        self._snapshots: weakref.WeakSet[Snapshot] = weakref.WeakSet()  # guarded by _making
        self._locks()
        try:
            create_file(self.path)
            with self._writing:
                self._migrate(self._write_connection(), steps)
        except apsw.Error as error:
            raise self._ours(error, self._writer) from error
        except StorageError:
            raise
        except OSError as error:
            raise refused(self.path, error) from error
        watch(self)

    def _locks(self) -> None:
        self._writing = threading.RLock()
        self._making = threading.RLock()  # garbage may be collected, and a reader come back, anywhere
        self._syncing = threading.Lock()
        self._patience = Patience()  # the writer's

    # -- writing ------------------------------------------------------------------------------------------------

    def change(self, sql: str, args: Sequence[Any] = ()) -> int:
        """Runs one statement as a transaction; how many rows it changed, triggers not counted.

        Raises:
            StorageFull: no room; nothing was changed.
            ObjectCorrupt: the file is damaged.
            StorageUnavailable: it stayed locked; or the disk failed, and whether it was kept is not known.
        """
        with self._writing:
            writer = self._writer
            if writer is None or self._failed is not None:
                writer = self._write_connection()
            try:
                writer.execute(sql, args)
                changed = writer.changes()
            except apsw.Error as error:
                raise self._ours(error, writer) from error
        if self.durable:
            self._sync()
        return changed

    def change_now(self, sql: str, args: Sequence[Any] = ()) -> int | None:
        """What `change` does and raises, if it need not wait for a writer, a sync or a checkpoint. None: it must."""
        if self.durable or self._patience.costly or not self._writing.acquire(blocking=False):
            return None
        try:
            if (writer := self._writer) is None or self._failed is not None or writer.in_transaction:
                return None
            self._patience.hasty = True
            writer.execute(sql, args)
            return writer.changes()
        except apsw.BusyError:
            return None
        except apsw.Error as error:
            raise self._ours(error, writer) from error
        finally:
            self._patience.hasty = False
            self._writing.release()

    @contextlib.contextmanager
    def write(self) -> Iterator[Execute]:
        """A transaction: what its block did is there when it ends, or nothing of it if it raises.

        The block has the file for itself: it must not wait for anything, nor call code that it does not know. Raises
        what `change` raises.
        """
        with self._writing:
            writer = self._write_connection()
            if writer.in_transaction:
                raise StorageRefused("a transaction within a transaction", hint="end the first one before")
            try:
                writer.execute("BEGIN IMMEDIATE")
                yield writer.execute
                writer.execute("COMMIT")
            except BaseException as error:
                if writer.in_transaction:  # a full disk has already ended it
                    writer.execute("ROLLBACK")
                if isinstance(error, apsw.Error):
                    raise self._ours(error, writer) from error
                raise
        if self.durable:
            self._sync()

    def _sync(self) -> None:
        asked = self._sync_begun
        with self._syncing:
            if self._failed is not None:
                raise self._unusable()
            if self._sync_done > asked:
                return  # one that began after we asked has ended: callers who wait together share it
            self._sync_begun += 1
            path = f"{self.path}-wal"
            try:
                if self._wal is None or os.fstat(self._wal).st_ino != os.stat(path).st_ino:
                    self._forget_wal()
                    self._wal = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                os.fdatasync(self._wal)
                self._sync_done = self._sync_begun
            except FileNotFoundError:
                return  # no WAL: every commit has been moved into the file, and that syncs
            except OSError as error:
                # The system has dropped what it could not write and would say yes to the next sync.
                self._failed = error
                raise self._unusable() from error

    def _forget_wal(self) -> None:
        wal, self._wal = self._wal, None
        if wal is not None:
            os.close(wal)

    # -- reading ------------------------------------------------------------------------------------------------

    def one(self, sql: str, args: Sequence[Any] = ()) -> Any:
        """The first row, or None.

        Raises:
            ObjectCorrupt: the file is damaged.
            StorageUnavailable: the disk does not answer.
        """
        reader = self._reader()
        try:
            return reader.execute(sql, args).fetchone()
        except apsw.Error as error:
            raise self._ours(error, reader) from error
        finally:
            self._back(reader)

    def all(self, sql: str, args: Sequence[Any] = ()) -> list[Any]:
        """All rows; for many, ask page by page. Raises what `one` raises."""
        reader = self._reader()
        try:
            return reader.execute(sql, args).fetchall()
        except apsw.Error as error:
            raise self._ours(error, reader) from error
        finally:
            self._back(reader)

    def snapshot(self) -> Snapshot:
        """The file as it is at the first question, for as long as it is asked; close it.

        While it is open the WAL grows with every write and starts no more from its beginning.
        """
        with self._making:  # around both: a fork waits for readers that it does not find among the snapshots
            snapshot = Snapshot(self, self._reader())
            self._snapshots.add(snapshot)
            return snapshot

    # -- connections --------------------------------------------------------------------------------------------

    def _unusable(self) -> StorageError | StoreClosed:
        if self._closed:
            return StoreClosed(f"{self.path.name} was closed")
        if isinstance(self._failed, StoreClosed):
            return self._failed  # of a fork
        return StorageUnavailable(
            f"the disk could not sync {self.path}: {self._failed}; whether the last writes were kept is not known",
            hint="open it again: it then shows what is really there",
        )

    def _write_connection(self) -> apsw.Connection:
        if self._closed or self._failed is not None:
            raise self._unusable()
        if self._writer is None:
            self._writer = self._connect(apsw.SQLITE_OPEN_READWRITE)
        return self._writer

    def _back(self, reader: apsw.Connection) -> None:
        self._returned.append(reader)
        if self._closed:
            with self._making:
                self._drain()

    def _reader(self) -> apsw.Connection:
        try:
            return self._readers.pop()
        except IndexError:
            return self._more()

    def _more(self) -> apsw.Connection:
        with self._making:
            if self._closed or self._failed is not None:
                raise self._unusable()
            reader = self._connect(apsw.SQLITE_OPEN_READONLY)
            self._made += 1
            return reader

    def _connect(self, flags: int) -> apsw.Connection:
        try:
            if self._writer is not None or self._made:
                return self._connection(flags)
            with looked_at(self.path, Patience()) as found:  # SQLite would forget what lies behind a flipped bit
                if self.diagnosis is None or not (self.diagnosis.damaged or self.diagnosis.flipped):
                    self.diagnosis = found
                return self._connection(flags)
        except apsw.Error as error:
            raise self._ours(error, None) from error
        except StorageError:
            raise  # one of them is an OSError too
        except OSError as error:
            raise refused(self.path, error) from error

    def trouble(self) -> str:
        """What was damaged when the file was opened, now or earlier, until the copies are removed; or nothing."""
        return trouble(self.path)

    def _connection(self, flags: int) -> apsw.Connection:
        connection = apsw.Connection(str(self.path), flags=flags, vfs=checksums())
        patience = self._patience if flags == apsw.SQLITE_OPEN_READWRITE else Patience()
        connection.set_busy_handler(patience)
        if flags == apsw.SQLITE_OPEN_READWRITE:
            connection.set_wal_hook(patience.committed)
            connection.reserve_bytes(reserve=8)  # the checksum's place in each page; counts before the first write only
            _into_wal(connection)
            _pragma(connection, "synchronous", 1)
            _pragma(connection, "journal_size_limit", _WAL_BYTES_KEPT)
        _pragma(connection, "cache_size", -_CACHE_KIB)
        _pragma(connection, "temp_store", 2)
        _pragma(connection, "mmap_size", 0)
        return connection

    def _migrate(self, writer: apsw.Connection, steps: Sequence[str]) -> None:
        found = "SELECT version FROM holdfast_part WHERE part = ?"
        ours = "SELECT count(*), coalesce(sum(name = 'holdfast_part'), 0) FROM sqlite_schema WHERE type = 'table'"
        with self.write() as execute:
            tables, known = execute(ours).fetchone()
            if tables and not known:
                raise StorageRefused(f"{self.path} is another program's database", hint="name a file that is not there")
            if not known:
                execute(_PARTS)
            row = execute(found, (self._part,)).fetchone()
            have = row[0] if row else 0
            if have > len(steps):
                raise StorageRefused(
                    f"{self.path} was written by a newer Holdfast ({self._part} {have}, this knows {len(steps)})",
                    hint="update holdfast on this machine",
                )
            for step in steps[have:]:
                writer.execute(step)
            if have < len(steps):
                upsert = "INSERT INTO holdfast_part VALUES (?1, ?2) ON CONFLICT DO UPDATE SET version = ?2"
                execute(upsert, (self._part, len(steps)))

    def _ours(self, error: apsw.Error, connection: apsw.Connection | None) -> StorageError:
        return _translated(error, self.path, connection.system_errno if connection else 0)

    # -- forks, and the end -------------------------------------------------------------------------------------

    def hold(self) -> bool:
        """Closes all connections and lets nobody open one; False if one stayed in use. For whoever forks."""
        end = time.monotonic() + WAIT_S
        if not self._writing.acquire(timeout=WAIT_S):
            return False
        self._making.acquire()  # held for no longer than it takes to connect
        self._returned = []
        loose = [snapshot._loosen(end) for snapshot in list(self._snapshots)]
        inside = self._writer is not None and self._writer.in_transaction  # this very thread's
        while all(loose) and not inside and time.monotonic() < end:
            self._drain()
            if not self._made and self._syncing.acquire(timeout=WAIT_S):
                writer, self._writer = self._writer, None
                if writer is not None:
                    with contextlib.suppress(apsw.Error):
                        writer.close()
                self._forget_wal()
                self._returned = self._readers
                return True
            time.sleep(0.0002)
        self._readers += self._returned
        self._returned = self._readers
        self._making.release()
        self._writing.release()
        return False

    def let_go(self) -> None:
        """Goes on after a fork."""
        for lock in (self._syncing, self._making, self._writing):
            lock.release()

    def _drain(self) -> None:
        # Only what nobody has: a reader in use comes back by itself.
        for idle in (self._readers, self._returned):
            while idle:
                with contextlib.suppress(IndexError):
                    reader = idle.pop()
                    self._made -= 1
                    reader.close()

    def in_child(self, *, clean: bool) -> None:
        """Begins anew in a forked child."""
        self._locks()
        if not clean:
            # To close the parent's could reset its WAL: they are left alone, their memory is the price.
            _inherited.append((self._writer, self._readers, [taken._forget() for taken in list(self._snapshots)]))
            self._writer, self._readers, self._made = None, [], 0
            self._returned = self._readers
            self._failed = StoreClosed(
                f"{self.path.name} was in use when this process was forked",
                hint="open it again in a process of its own",
            )

    def close(self) -> None:
        """Closes the file; the last to close it leaves no WAL. More than once is no error."""
        with self._writing, self._making:
            if self._closed:
                return
            for snapshot in list(self._snapshots):
                snapshot._loosen(time.monotonic() + 1)
            with contextlib.suppress(apsw.Error, StorageError):
                writer = self._write_connection()  # a reader cannot take the WAL away, and a fork closed the writer
                self._closed = True
                self._drain()
                writer.close()
            self._closed = True
            self._drain()
            self._writer = None
            with self._syncing:
                self._forget_wal()


_inherited: list[Any] = []
"""In a forked child: connections of the parent's, kept for ever so that nothing closes them."""


class Snapshot:
    """A database at one moment. Made by `Database.snapshot`; any thread may ask, one at a time."""

    def __init__(self, database: Database, reader: apsw.Connection) -> None:
        self._database = database
        self._reader: apsw.Connection | None = reader
        self._lock = threading.Lock()
        self._begun = False
        self.loose = False
        """Whether a fork or a close took the moment away: answers then are of now."""

    def one(self, sql: str, args: Sequence[Any] = ()) -> Any:
        """The first row, or None. Raises what `Database.one` raises."""
        with self._lock:
            reader = self._reader
            if reader is not None:
                try:
                    if not self._begun:
                        reader.execute("BEGIN")
                        self._begun = True
                    return reader.execute(sql, args).fetchone()
                except apsw.Error as error:
                    raise self._database._ours(error, reader) from error
        return self._database.one(sql, args)

    def close(self) -> None:
        """Gives the moment back; more than once is no error."""
        with self._lock:
            self._end()

    def _loosen(self, end: float) -> bool:
        if not self._lock.acquire(timeout=max(0.0, end - time.monotonic())):
            return False
        self._end()
        self.loose = True
        self._lock.release()
        return True

    def _forget(self) -> apsw.Connection | None:
        reader, self._reader = self._reader, None
        self._lock, self.loose = threading.Lock(), True
        return reader

    def _end(self) -> None:
        reader, self._reader = self._reader, None
        if reader is None:
            return
        if self._begun:
            with contextlib.suppress(apsw.Error):
                reader.execute("ROLLBACK")
        self._database._back(reader)


def _into_wal(connection: apsw.Connection) -> None:
    # Two who open a new file at once may each find the other in the way, where SQLite does not ask for patience.
    patience = Patience()
    tries = 0
    while True:
        try:
            if connection.pragma("journal_mode") != "wal":
                _pragma(connection, "journal_mode", "wal")
            return
        except apsw.BusyError:
            if not patience(tries):
                raise
            tries += 1


def _pragma(connection: apsw.Connection, name: str, value: int | str) -> None:
    connection.execute(f"PRAGMA {name}={value}").fetchall()
    got = connection.pragma(name)
    if got != value:
        raise StorageUnavailable(f"SQLite keeps {name} at {got!r}, {value!r} was set")


def _translated(error: apsw.Error, path: Path, number: int) -> StorageError:
    """The error of our tree that an SQLite error means; SQLite's never reach a caller."""
    kind = getattr(error, "extendedresult", 0)
    if isinstance(error, apsw.FullError) or (isinstance(error, apsw.IOError) and number in NO_ROOM):
        return StorageFull(f"no room to write {path}", hint="free space on this disk; reads go on")
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return StorageUnavailable(f"{path} stayed locked for {BUSY_S:.0f} s", hint="which process holds it?")
    damaged = (apsw.SQLITE_IOERR_DATA, apsw.SQLITE_IOERR_CORRUPTFS, apsw.SQLITE_IOERR_SHORT_READ)
    if isinstance(error, apsw.CorruptError | apsw.NotADBError) or kind in damaged:
        return ObjectCorrupt(f"{path} is damaged: {error}", hint="put a copy of it back; holdfast wrote it otherwise")
    if isinstance(error, apsw.ReadOnlyError | apsw.PermissionsError | apsw.AuthError):
        return StorageDenied(f"{path} may not be written: {error}", hint="whose is the file, and its directory?")
    if isinstance(error, apsw.CantOpenError):
        return refused(path, OSError(number, os.strerror(number) if number else str(error)))
    if isinstance(error, apsw.IOError | apsw.NoMemError):
        return StorageUnavailable(f"the disk does not answer for {path}: {error}")
    return StorageError(f"{path}: {type(error).__name__}: {error}")

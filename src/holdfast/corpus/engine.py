"""One SQLite file, opened the only way Holdfast opens one: checked first, page checksums on, WAL, one writer.

What this refuses to know: records. It gives transactions (through group commit), readers, and `sync`, the barrier
behind which a write survives a power cut.

Traps this module exists for, each with a test:
* A flipped bit in the WAL silently drops every commit behind it: the doctor looks before SQLite opens (and resets) it,
  and where a checkpoint had gone past the damage, nothing is opened (`holdfast.corpus.leftover`).
* Opening and closing the live file with plain I/O, or with another SQLite library, drops SQLite's locks and loses
  commits: nothing here does. The WAL is opened beside SQLite only to sync it, and is never locked.
* `execute` runs a multi-statement PRAGMA only to its first row: pragmas go singly and are read back.
* After a failed fsync the page cache can no longer be trusted: the engine is failed for good, and opening it again
  verifies (Rebello et al., "Can Applications Recover from fsync Failures?", 2020).
* SQLite before 3.51.3 corrupts a WAL that is reset while another connection writes: refused.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from array import array
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import apsw

from holdfast.corpus import leftover, scrub
from holdfast.corpus.commit import GroupCommit
from holdfast.corpus.gate import Gate
from holdfast.corpus.scripts import scripts
from holdfast.corpus.scrub import Part
from holdfast.corpus.trouble import Patience as _Patience
from holdfast.corpus.trouble import as_ours as _as_ours
from holdfast.corpus.trouble import ours, unsayable
from holdfast.corpus.trouble import pragma as _pragma
from holdfast.disk import sync_directory
from holdfast.errors import IntegrityError, NodeFull, StoreClosed, UsageError
from holdfast.sqlite import checksums, doctor
from holdfast.sqlite.standing import Standing

PAGE_BYTES: Final = 4096
WAL_PAGES_PASSIVE: Final = 1000
WAL_PAGES_INLINE: Final = 4000
WAL_BYTES: Final = 4 << 20
CUT_MS: Final = 100
_LOG: Final = ""  # the role of a file of records

_open_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_inherited: list[Engine] = []
"""In a forked child: the parent's engines, kept for ever so that nothing finalises (and so closes) them."""


class Engine:
    """An open file. Safe to share among threads; several processes may open the same file.

    Args:
        path: the database file; its directory exists.
        roles: which migrations it gets, in this order (file name prefixes under ``migrations/``).
        full: True commits with ``synchronous=FULL`` (level CRITICAL).
        cache_kib: page cache of each connection.
        vfs: the VFS to use instead of the checksumming one (the power-loss harness brings its own stack).
        datasync: syncs a file descriptor; the harness records it.

    Raises:
        IntegrityError: the file is damaged in a way that opening would make worse; it was copied, and not changed.
        NodeFull: no room to open it.
    """

    read_only: ClassVar[bool] = False

    def __init__(
        self,
        path: Path,
        *,
        roles: Sequence[str] = ("",),
        full: bool = False,
        cache_kib: int = 8192,
        vfs: str | None = None,
        datasync: Callable[[int], None] = os.fdatasync,
    ) -> None:
        self.path = path
        self.full = full
        self.diagnosis: doctor.Diagnosis | None = None
        self.standing: Standing | None = None  # of a file whose WAL was damaged
        self.quarantined: Path | None = None
        self._vfs = vfs
        self._datasync = datasync
        self._failed: BaseException | None = None
        self._closed = False
        self._pid = os.getpid()
        self._cache_kib = self.reader_cache_kib = cache_kib  # the second is for connections opened from now on
        self._readers: list[apsw.Connection] = []
        self._keeper: apsw.Connection | None = None  # checkpoints beside the writer; guarded by _keeper_lock
        self._keeper_lock = threading.Lock()
        self._wal: int | None = None
        self._wal_lock = threading.Lock()  # guards _wal and orders syncs
        self._sync_begun = self._sync_done = 0  # guarded by _wal_lock, but for one read of _sync_begun
        self._unsynced = False  # whether this process committed since a sync began
        self.inline = True  # a commit without a sync touches the page cache alone
        self.wal_pages = 0  # as of this process's newest commit
        self.wal_passive = WAL_PAGES_PASSIVE  # so many make the background move them
        self.wal_limit = 0  # so many have it cut, where a file may take only so much; 0: none
        self._known = -1  # the file's version behind our newest commit; -1 while one is under way, or ended badly
        self.on_rollback: Callable[[], None] = lambda: None
        self.on_change: Callable[[], None] = lambda: None  # in a transaction: the file is not as our last one left it
        self.hands: Any = self  # what jobs are given to work with: the corpus puts its transaction here
        self.on_commit: Callable[[], None] = lambda: None  # in the leader, before any caller returns
        self._gate = Gate(path)
        try:
            first = self._gate.enter()
            if first:
                self._look_first()
            with _as_ours(path):
                self._writer = self._connect(read_only=self.read_only)
                self.writer_execute: Callable[..., Any] = (
                    self._writer.execute
                )  # for jobs only, inside their transaction
                # The same where every row is taken at once: one cursor for all saves 0.4 µs a statement.
                cursor = self._writer.cursor()
                self.quick: Callable[..., Any] = cursor.execute
                self.quick_many: Callable[..., Any] = cursor.executemany
                self._version: Callable[[], int] = self._writer.data_version  # also grows with each commit of our own
                self._migrate(roles)
                self.watch_wal(WAL_PAGES_INLINE)
            if first and full and _LOG in roles:
                self._prefill()
        except BaseException:
            self._gate.leave()
            raise
        self._let_in()
        self.commits = GroupCommit(self._transact, name=f"holdfast-{path.parent.name}")
        _open_engines.add(self)

    # -- opening ------------------------------------------------------------------------------------------------

    def _let_in(self) -> None:
        self._gate.shared()

    def _look_first(self) -> None:
        # Opening replays what is good of a WAL and resets it: what lies behind the damage would be gone.
        self.diagnosis, self.standing, self.quarantined = leftover.look(self.path)

    def _connect(self, *, read_only: bool = False) -> apsw.Connection:
        flags = apsw.SQLITE_OPEN_READONLY if read_only else 0
        flags = flags or apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        new = not read_only and not self.path.exists()
        connection = apsw.Connection(str(self.path), flags=flags, vfs=self._vfs or checksums())
        connection.set_busy_handler(_Patience())
        if new:
            # Two processes may both believe the file new; both then say the same, and the second is a no-op.
            os.chmod(self.path, 0o600)
        if not read_only:
            connection.reserve_bytes(reserve=8)  # the checksum's place in each page; only before the first write
            _pragma(connection, "page_size", PAGE_BYTES)
            one = array("i", [1])  # a C int and its address, without the 6 ms of ctypes
            connection.file_control("main", apsw.SQLITE_FCNTL_PERSIST_WAL, one.buffer_info()[0])
            _pragma(connection, "journal_mode", "wal")
            _pragma(connection, "synchronous", 2 if self.full else 1)
            _pragma(connection, "wal_autocheckpoint", WAL_PAGES_INLINE)
            _pragma(connection, "journal_size_limit", 64 << 20)
            _pragma(connection, "secure_delete", 1)
        else:
            # The last to close a WAL moves it into the file, even one who was only to read.
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        _pragma(connection, "cache_size", -(self.reader_cache_kib if read_only else self._cache_kib))
        _pragma(connection, "temp_store", 2)
        _pragma(connection, "mmap_size", 0)
        return connection

    def _migrate(self, roles: Sequence[str]) -> None:
        steps = scripts(roles)
        have = self._writer.pragma("user_version")
        if have == len(steps):
            return
        if have > len(steps):
            raise UsageError(
                f"{self.path} was written by a newer Holdfast (format {have}, this knows {len(steps)})",
                hint="update holdfast on this machine",
            )
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            have = self._writer.pragma("user_version")
            for number, script in enumerate(steps[have:], have + 1):
                self._writer.execute(script.read_text("utf-8"))
                self._writer.execute(f"PRAGMA user_version={number}")
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:  # a failing disk has already ended it
                self._writer.execute("ROLLBACK")
            raise
        self._unsynced = True
        sync_directory(self.path.parent)

    def _prefill(self) -> None:
        # A file that already has its size syncs 40 % cheaper; worth 4 MiB (15 ms) only where each commit
        # syncs and many will: not for keys, which are read at every opening and hardly ever written.
        doctor.prefill(self.path, WAL_BYTES)

    # -- writing ------------------------------------------------------------------------------------------------

    def _transact(self, jobs: Sequence[Callable[[Any], Any]]) -> list[Any]:
        # The hot path of every write: checks inlined, no context managers.
        if self._closed or self._failed is not None:  # a fork has set _closed
            self.check()
        execute, version, known = self.quick, self._version, self._known
        self._known = -1
        try:
            execute("BEGIN IMMEDIATE")
            if version() != known:
                self.on_change()
            results = [job(self.hands) for job in jobs]
            execute("COMMIT")
            self._known = version()
        except BaseException as error:
            self.on_rollback()
            if self._writer.in_transaction:  # a full disk has already ended it
                execute("ROLLBACK")
            if isinstance(error, apsw.Error):
                mine = ours(error, self.path, self._writer)
                if isinstance(error, apsw.IOError) and not isinstance(mine, NodeFull):
                    self.fail(error)
                raise mine from error
            raise
        try:
            self.on_commit()
        except Exception as error:
            # Committed is committed: to raise here would have the batch run again. Whoever comes next is told.
            self.fail(error)
        return results

    def sync(self) -> None:
        """Returns when every commit made before the call survives a power cut.

        Raises:
            IntegrityError: the disk refused; the engine is failed and must be opened again.
        """
        self.check()
        asked = self._sync_begun
        with self._wal_lock:
            if self._sync_done > asked:
                return  # one that began after we asked has ended: callers who wait together share it
            self._sync_begun += 1
            path = f"{self.path}-wal"
            try:
                if self._wal is None or os.fstat(self._wal).st_ino != os.stat(path).st_ino:
                    if self._wal is not None:
                        os.close(self._wal)
                    self._wal = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                self._unsynced = False  # before the sync: a commit beside it is not covered
                self._datasync(self._wal)
                self._sync_done = self._sync_begun
            except FileNotFoundError:
                return  # no WAL: every commit has been checkpointed, and a checkpoint syncs
            except OSError as error:
                self.fail(error)
                raise IntegrityError(
                    f"the disk could not sync {self.path.name}: {error}",
                    hint="open the store again: it verifies what is really there",
                ) from error

    def checkpoint(self, *, most_pages: int | None = None) -> None:
        """Moves the WAL's pages into the file when there are at least so many; never waits for readers."""
        self.check()
        # Not the file's size: that stays, and would be a reason at every look.
        if self.wal_pages < (self.wal_passive if most_pages is None else most_pages):
            return
        if self.wal_limit and self.wal_pages > self.wal_limit:
            self.scour(CUT_MS)  # a reader at the wrong moment has let it grow: this waits for him, but not for long
            return
        with self._keeper_lock, _as_ours(self.path):
            self._keeper = self._keeper or self._connect()
            try:
                self._keeper.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            except (apsw.BusyError, apsw.LockedError):
                return
            except apsw.IOError as error:
                if getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_FSYNC:
                    self.fail(error)  # the next try might be told that all is well, of pages that are lost
                raise ours(error, self.path, self._keeper) from error

    def scour(self, patience_ms: int = 5_000) -> bool:
        """Empties the WAL, so that no page as it was stays readable there; False while somebody still reads it.

        Args:
            patience_ms: for how long it waits for readers and the writer, and lets no other writer in.
        """
        self.check()
        with self._keeper_lock, _as_ours(self.path):
            self._keeper = self._keeper or self._connect()
            try:
                self._keeper.set_busy_timeout(patience_ms)
                return not self._keeper.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0][0]
            except apsw.IOError as error:
                if getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_FSYNC:
                    self.fail(error)  # as in `checkpoint`
                raise
            finally:
                self._keeper.set_busy_handler(_Patience())

    def watch_wal(self, inline_pages: int) -> None:
        """Keeps the WAL's length in `wal_pages` from now on; the writer itself checkpoints beyond `inline_pages`.

        For a file whose owner checkpoints beside the writer: without the writer's own, an unlucky pair of writer and
        checkpointer lets the WAL grow without limit (bench: 1.3 GB in 300,000 records).
        """

        def hook(connection: apsw.Connection, _: str, pages: int) -> int:
            self.wal_pages = pages
            self._unsynced = True
            if pages > inline_pages:
                with contextlib.suppress(apsw.BusyError, apsw.LockedError):
                    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            return apsw.SQLITE_OK

        self._writer.set_wal_hook(hook)

    def keep_wal(self, size: int) -> None:
        """Keeps the WAL at about so many bytes from now on, for a file that may take only so much."""
        pages = max(32, min(size // PAGE_BYTES, WAL_PAGES_INLINE))

        def job(_: Any) -> None:
            self.watch_wal(pages // 2)
            self.writer_execute(f"PRAGMA journal_size_limit={pages * PAGE_BYTES}").fetchall()

        self.wal_passive, self.wal_limit = min(WAL_PAGES_PASSIVE, max(16, pages // 4)), pages
        self.commits.run(job)

    # -- reading ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def reader(self) -> Iterator[apsw.Connection]:
        """A connection for reading, yours until the block ends; sees every commit made before its first query."""
        self.check()
        try:
            connection = self._readers.pop()
        except IndexError:
            with _as_ours(self.path):
                connection = self._connect(read_only=True)
        try:
            with _as_ours(self.path):
                yield connection
        finally:
            if self._closed:
                connection.close()
            else:
                self._readers.append(connection)

    def query(self, sql: str, args: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query, on a reader."""
        with self.reader() as connection:
            return list(connection.execute(sql, args))

    def one(self, sql: str, args: Sequence[Any] = ()) -> Any:
        """The first row of a query, or None, on a reader."""
        # The hot path of `get`: no context managers (they cost more than the query), the same rules.
        if self._closed or self._failed is not None:
            self.check()
        try:
            connection = self._readers.pop()
        except IndexError:
            with _as_ours(self.path):
                connection = self._connect(read_only=True)
        try:
            return connection.execute(sql, args).fetchone()
        except apsw.Error as error:
            raise ours(error, self.path) from error
        except (UnicodeEncodeError, OverflowError) as error:
            raise unsayable(error) from error
        finally:
            self._readers.append(connection)

    def read(self, sql: str, args: Sequence[Any] = ()) -> Generator[Any, None, None]:
        """The rows of a query, fetched as they are asked for; to be closed by whoever does not ask for all."""
        with self.reader() as connection:
            cursor = connection.execute(sql, args)
            try:
                yield from cursor
            finally:
                cursor.close(True)  # a query cut short must not hold its snapshot: the WAL could not restart

    @contextlib.contextmanager
    def moment(self) -> Iterator[Callable[..., Any]]:
        """What runs statements that all see the same moment; each gives a cursor."""
        with self.reader() as connection:
            connection.execute("BEGIN")
            try:
                yield connection.execute
            finally:
                with contextlib.suppress(apsw.Error):
                    connection.execute("ROLLBACK")

    def scrub(self) -> list[str]:
        """What is wrong with the size, any page or any index of the file, read anew; empty when it is sound."""
        return [*self.scrub_part("size"), *self.scrub_part((1, scrub.ALL)), *self.scrub_part("indexes")]

    def scrub_part(self, part: Part) -> list[str]:
        """The same for one part: ``size``, ``indexes``, or (the first page, how many) of the pages."""
        self.check()
        with _as_ours(self.path):
            connection = self._connect(read_only=True)
        try:
            return scrub.examine(connection, lambda: os.stat(self.path).st_size, PAGE_BYTES, part)
        finally:
            connection.close()

    @property
    def pages(self) -> int:
        """How many pages the file has."""
        return os.stat(self.path).st_size // PAGE_BYTES

    # -- ending -------------------------------------------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        """Ends all use of this engine: what it would read or write can no longer be trusted."""
        self._failed = self._failed or error

    @property
    def unusable(self) -> bool:
        """Whether it is closed, failed, or another process's."""
        return self._closed or self._failed is not None or self._pid != os.getpid()

    def check(self) -> None:
        """Returns only while the engine may be used.

        Raises:
            StoreClosed: closed, or inherited through a fork.
            IntegrityError: an earlier write or sync failed.
        """
        if self._pid != os.getpid():
            raise StoreClosed(
                "this store was opened before a fork",
                # Not "open another here": SQLite's own locks may have been held by another thread when it forked.
                hint="open a store in a process of its own (multiprocessing: spawn or forkserver, or exec)",
            )
        if self._closed:
            raise StoreClosed(f"{self.path.name} is closed", hint="open the store again")
        if self._failed is not None:
            raise IntegrityError(
                f"{self.path.name} failed earlier: {self._failed}",
                hint="open the store again: it verifies what is really there",
            )

    def close(self) -> None:
        """Commits what is queued, syncs it, and closes; the last to close leaves no WAL. A second close is fine."""
        if self._closed or self._pid != os.getpid():
            self._closed = True
            return
        self.commits.stop()
        if self._failed is None and self._unsynced:  # a process that only read has nothing to make safe
            with contextlib.suppress(IntegrityError):
                self.sync()
        self._closed = True
        while self._readers:
            self._readers.pop().close()
        with contextlib.suppress(apsw.Error):
            if self._keeper is not None:
                self._keeper.close()
            self._writer.close()
        if self._wal is not None:
            os.close(self._wal)
        self._gate.leave()


def _after_fork() -> None:
    # The child has the parent's connections but not its locks; closing them here could reset the parent's WAL. They
    # are left alone (their memory is the price), and `check` tells whoever uses them.
    _inherited.extend(_open_engines)
    _open_engines.clear()
    for engine in _inherited:
        engine._closed = True
        # The parent may have been committing: whoever led there does not exist here, and would be waited for.
        engine.commits = GroupCommit(engine._transact)


os.register_at_fork(after_in_child=_after_fork)

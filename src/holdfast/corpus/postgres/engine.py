"""PostgreSQL behind the corpus: one connection that writes, some that read, and a turn that all processes take.

Rules that tests hold it to:
1. Writes are serial over all processes: a transaction begins by locking the counter's row, as BEGIN IMMEDIATE locks a
   file. So positions are gapless and in commit order, nothing deadlocks, and code that is right in one process stays
   so. Group commit pays for the lock. What was remembered ends when the row says that somebody else wrote.
2. A transaction is committed only if COMMIT said so. A connection that died in it leaves the outcome unknown: nobody is
   told "done", nobody "refused", and nothing is run again here; whoever asked asks again.
3. Another timeline, or another table, is another history: this process ends its use, and the next start begins a new
   generation.
4. Whoever writes holds a lock that all share, or that one has alone (a migration): so each knows of the other.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from importlib import resources
from typing import Any, Final, TypeVar

from holdfast.corpus.commit import GroupCommit
from holdfast.corpus.postgres.door import Database, Facts, translate
from holdfast.errors import HoldfastError, HubUnavailable, IntegrityError, Locked, StoreClosed, UsageError

T = TypeVar("T")

FETCH: Final = 200
READERS_MAX: Final = 8
PARTITION: Final = 10_000_000
"""Records in one partition: 5 to 20 GB, so that the oldest can be detached in sensible pieces."""
_CHANNEL: Final = "holdfast"
_MOMENT: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_TURN: Final = "SELECT pos, writes, room FROM counter WHERE id=1 FOR UPDATE"
_MIGRATING: Final = 7_165_921_084
_USING: Final = 71_659
"""Every process that writes holds this lock, with others or alone, for as long as its connection lives."""


class Unsettled(HubUnavailable):
    """Whether a transaction was committed is not known; `final`: it must not be run again."""

    final = True


class PostgresEngine:
    """An open database. Safe to share among threads; many processes may open the same one.

    Args:
        database: how to reach it.
        partition: records in one partition of the table.
        alone: no other process may have it open.

    Raises:
        HubUnavailable: it cannot be reached.
        Locked: another process has it open, and one of both wants it alone.
        UsageError: a newer Holdfast has migrated it, or it cannot hold a corpus.
    """

    inline = False
    wal_pages = 0

    def __init__(self, database: Database, *, partition: int = PARTITION, alone: bool = False) -> None:
        self.database = database
        self._alone = alone
        self.partition = partition
        self.channel = f"{_CHANNEL}_{database.schema}"
        self.on_rollback: Callable[[], None] = lambda: None
        self.on_change: Callable[[], None] = lambda: None
        self.hands: Any = None  # the corpus puts its transaction here
        self._pid = os.getpid()
        self._failed: BaseException | None = None
        self._closed = False
        self._readers: list[Any] = []
        self._lock = threading.Lock()
        self._known = -1  # the counter of writes behind our newest commit
        self._writer: Any
        self._writer, _ = database.connect()
        try:
            self._migrate(self._writer)
        finally:
            self._writer.close()
        self.facts: Facts
        """What the database was when it was opened; every later connection must find the same history."""
        self._writer, self.facts = database.connect()  # again: only now is the table there, to be known by
        self._enter(self._writer)
        self.commits = GroupCommit(self._transact, name=f"holdfast-{database.schema}")

    # -- opening ------------------------------------------------------------------------------------------------

    def _migrate(self, connection: Any) -> None:
        steps = migrations()
        try:
            connection.execute("SELECT pg_advisory_lock($1)", (_MIGRATING,))
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {self.database.schema}")
            connection.execute("CREATE TABLE IF NOT EXISTS format(version integer PRIMARY KEY, at timestamptz)")
            have = connection.execute("SELECT coalesce(max(version), 0) FROM format").fetchone()[0]
            if have > len(steps):
                raise UsageError(
                    f"the database {self.database.name} was written by a newer Holdfast (format {have}, this knows"
                    f" {len(steps)})",
                    hint="update holdfast on this machine",
                )
            for number, script in enumerate(steps[have:], have + 1):
                with connection.transaction():
                    connection.execute(script)
                    connection.execute("INSERT INTO format VALUES($1, now())", (number,))
        except self.database.driver.Error as error:
            raise self.database.ours(error) from error

    def connect(self) -> Any:
        """A new connection, to the same history.

        Raises:
            HubUnavailable: there is none to be had.
            IntegrityError: the database took another course; this engine is failed.
        """
        connection, facts = self.database.connect()
        if facts.mark != self.facts.mark:
            connection.close()
            self.fail(
                HoldfastError(
                    f"the database {self.database.name} is not where it was: it was promoted, recovered or restored"
                )
            )
            self.check()
        return connection

    def _enter(self, connection: Any) -> None:
        """Says on the connection that writes that this process is here.

        Raises:
            Locked: somebody wants it alone, or we do and somebody is here; the connection is closed.
        """
        name = "pg_try_advisory_lock" if self._alone else "pg_try_advisory_lock_shared"
        try:
            (got,) = connection.execute(f"SELECT {name}({_USING}, hashtext($1))", (self.database.schema,)).fetchone()
        except BaseException:
            connection.close()
            raise
        if not got:
            connection.close()
            if self._alone:
                raise Locked(
                    f"the database {self.database.name} is being served", hint="stop all hub processes, then try again"
                )
            raise Locked(f"the database {self.database.name} is being migrated", hint="serve it when that is done")

    # -- writing ------------------------------------------------------------------------------------------------

    def _transact(self, jobs: Sequence[Callable[[Any], Any]]) -> list[Any]:
        self.check()
        connection, (pos, writes, room) = self._take_turn()
        hands, committing = self.hands, False
        try:
            if writes != self._known:
                self.on_change()
            hands.begin(connection, pos, room)
            results = [job(hands) for job in jobs]
            left = hands.copy()
            committing = True
            with connection.pipeline():
                if left:
                    hands.send()
                if hands.wrote:
                    connection.execute("UPDATE counter SET pos=$1, writes=writes+1 WHERE id=1", (hands.pos,))
                    if hands.pos != pos:
                        connection.execute("SELECT pg_notify($1, $2)", (self.channel, str(hands.pos)))
                committed = connection.execute("COMMIT")
            if committed.statusmessage != "COMMIT":
                raise HoldfastError(f"the transaction was not committed: {committed.statusmessage}")
            self._known = writes + 1 if hands.wrote else writes
        except BaseException as error:
            self._known = -1
            self._undo(connection)
            self.on_rollback()
            raise self._why(error, committing and connection.closed) from error
        finally:
            hands.end()
        return results

    def _take_turn(self) -> tuple[Any, Any]:
        """A transaction in which nobody else writes, and the counter's row."""
        while True:
            fresh = self._writer.closed
            if fresh:
                self._writer = self.connect()
                self._known = -1
            connection = self._writer
            try:
                if fresh:
                    self._enter(connection)
                with connection.pipeline():
                    connection.execute("BEGIN")
                    turn = connection.execute(_TURN)
                return connection, turn.fetchone()
            except BaseException as error:
                self._undo(connection)
                # One that died while it was idle is replaced unnoticed: nothing has begun.
                if fresh or not connection.closed or not isinstance(error, self.database.driver.Error):
                    raise self._why(error, False) from error

    def _undo(self, connection: Any) -> None:
        try:
            connection.execute("ROLLBACK")
        except BaseException:
            connection.close()

    def _why(self, error: BaseException, unsettled: bool) -> BaseException:
        driver = self.database.driver
        if isinstance(error, Locked):  # met on a new connection; whoever asked may wait for the end of a migration
            mine = HubUnavailable(error.message, hint=error.hint)
            mine.final = True  # type: ignore[attr-defined]
            return mine
        if not isinstance(error, driver.Error):
            return error
        if unsettled:
            return Unsettled(
                f"the database {self.database.name} went away in the middle of a commit: whether it was kept is not"
                " known",
                hint="send it again: what was kept is recognised",
            )
        found = self.database.ours(error)
        if isinstance(found, HubUnavailable):
            found.final = True  # type: ignore[attr-defined]  # nothing was kept; each job alone would only wait again
        return found

    def sync(self) -> None:
        """Returns at once: a commit that was answered survives a power cut."""
        self.check()

    def checkpoint(self, *, most_pages: int = 0) -> None:
        """Nothing lies beside the tables that would be ours to move."""

    # -- reading ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def reader(self) -> Iterator[Any]:
        """A connection for reading, yours until the block ends."""
        connection = self._take()
        try:
            yield connection
        except self.database.driver.Error as error:
            if connection.closed:
                self.drop_readers()
            raise self.database.ours(error) from error
        finally:
            self._give(connection)

    def _take(self) -> Any:
        self.check()
        with self._lock:
            if self._readers:
                return self._readers.pop()
        return self.connect()

    def _give(self, connection: Any) -> None:
        if not connection.closed and connection.info.transaction_status:  # whoever had it left in the middle
            self._undo(connection)
        if not connection.closed:
            with self._lock:
                if not self._closed and len(self._readers) < READERS_MAX:
                    self._readers.append(connection)
                    return
            connection.close()

    def _ask(self, sql: str, args: Sequence[Any]) -> Any:
        """A cursor with the whole answer; asked again on a new connection where an old one turns out to be dead."""
        text = translate(sql)
        while True:
            fresh = not self._readers
            connection = self._take()
            try:
                return connection.cursor(binary=True).execute(text, args)
            except self.database.driver.Error as error:
                if fresh or not connection.closed:
                    raise self.database.ours(error) from error
                self.drop_readers()
            finally:
                self._give(connection)

    def drop_readers(self) -> None:
        """Closes the connections that wait: one of them was found dead, so the others are."""
        with self._lock:
            found, self._readers = self._readers, []
        for connection in found:
            connection.close()

    def query(self, sql: str, args: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query."""
        rows: list[Any] = self._ask(sql, args).fetchall()
        return rows

    def one(self, sql: str, args: Sequence[Any] = ()) -> Any:
        """The first row of a query, or None."""
        return self._ask(sql, args).fetchone()

    def read(self, sql: str, args: Sequence[Any] = ()) -> Generator[Any, None, None]:
        """The rows of a query, fetched as they are asked for; to be closed by whoever does not ask for all."""
        with self.reader() as connection:
            with connection.pipeline():
                connection.execute("BEGIN READ ONLY")
                connection.execute(f"DECLARE rows NO SCROLL CURSOR FOR {translate(sql)}", args)
                rows = connection.cursor(binary=True).execute(f"FETCH {FETCH} FROM rows")
            while True:
                found = rows.fetchall()
                yield from found
                if len(found) < FETCH:
                    break
                rows = connection.cursor(binary=True).execute(f"FETCH {FETCH} FROM rows")
            connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def moment(self) -> Iterator[Callable[..., Any]]:
        """What runs statements that all see the same moment; each gives a cursor."""
        with self.reader() as connection:
            connection.execute(_MOMENT)

            def execute(sql: str, args: Sequence[Any] = ()) -> Any:
                return connection.cursor(binary=True).execute(translate(sql), args)

            yield execute
            connection.execute("ROLLBACK")

    def side_by_side(self, courses: Sequence[Generator[tuple[str, Sequence[Any]], list[Any], T]]) -> list[T]:
        """What courses of questions return that all see the same moment; the next question of each goes with the
        others', so that they wait for the database as often as the longest of them asks.
        """
        found: dict[int, T] = {}
        with self.reader() as connection, connection.pipeline():
            connection.execute(_MOMENT)
            asking = [(number, course, next(course)) for number, course in enumerate(courses)]
            while asking:
                cursors = [connection.cursor(binary=True).execute(translate(sql), args) for _, _, (sql, args) in asking]
                answered, asking = asking, []
                for (number, course, _), cursor in zip(answered, cursors, strict=True):
                    try:
                        asking.append((number, course, course.send(cursor.fetchall())))
                    except StopIteration as end:
                        found[number] = end.value
            connection.execute("ROLLBACK")
        return [found[number] for number in range(len(courses))]

    def scrub(self) -> list[str]:
        """Nothing: pages are the database's own business (pg_amcheck, data checksums)."""
        self.check()
        return []

    def scrub_part(self, part: object) -> list[str]:
        """Nothing, for the same reason."""
        return self.scrub()

    @property
    def pages(self) -> int:
        """None that this could read."""
        return 0

    # -- ending -------------------------------------------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        """Ends all use of this engine."""
        self._failed = self._failed or error

    @property
    def unusable(self) -> bool:
        """Whether it is closed, failed, or another process's."""
        return self._closed or self._failed is not None or self._pid != os.getpid()

    def check(self) -> None:
        """Returns only while the engine may be used.

        Raises:
            StoreClosed: closed, or inherited through a fork.
            IntegrityError: what it would read or write is another history now.
        """
        if self._pid != os.getpid():
            raise StoreClosed("this corpus was opened before a fork", hint="open one in a process of its own")
        if self._closed:
            raise StoreClosed(f"the database {self.database.name} is closed", hint="open it again")
        if self._failed is not None:
            raise IntegrityError(f"{self._failed}", hint="start again: a new generation begins, nodes refill it")

    def close(self) -> None:
        """Commits what is queued and closes; a second close is fine."""
        if self._closed or self._pid != os.getpid():
            self._closed = True
            return
        self.commits.stop()
        self._closed = True
        self.drop_readers()
        self._writer.close()


def migrations() -> list[str]:
    """The scripts that make the tables, oldest first; `format` says how many a database has had."""
    folder = resources.files(__package__).joinpath("migrations")
    names = sorted(each.name for each in folder.iterdir() if each.name.endswith(".sql"))
    return [folder.joinpath(name).read_text("utf-8") for name in names]

"""The objects room's one door to psycopg: a database, connections to it, and errors of ours in place of the driver's.

A connection of the pool serves one call at a time. Whoever streams takes one beside them, so that a program that reads
an object to write another never waits for itself. Nothing here ever shows a password: a database is named by its host
and name.
"""

from __future__ import annotations

import contextlib
import functools
import re
import select
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Final

from holdfast.errors import (
    MissingExtra,
    ObjectCorrupt,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
)

VERSION_LEAST: Final = 130_000
CONNECT_S: Final = 5
CALL_S: Final = 30
STANDSTILL_S: Final = 600
"""How long a stream, in or out, may stand still before the database ends it."""

_SETTINGS: Final = {
    "client_encoding": "UTF8",
    "timezone": "UTC",
    "statement_timeout": str(1000 * CALL_S),
    "lock_timeout": str(1000 * CALL_S),
    "idle_in_transaction_session_timeout": str(1000 * STANDSTILL_S),
    "default_transaction_isolation": r"read\ committed",
    "application_name": "holdfast",
}
_NETWORK: Final = {
    "connect_timeout": CONNECT_S,
    "target_session_attrs": "read-write",
    "tcp_user_timeout": 1000 * CALL_S,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "ssl_min_protocol_version": "TLSv1.2",
}
_LOOK: Final = """
SELECT current_setting('server_version_num')::int8, current_setting('server_encoding'),
  current_setting('synchronous_commit')"""
_DENIED: Final = re.compile(
    "authentication failed|no password supplied|permission denied|pg_hba|not permitted|role .* does not exist"
)
_MISTAKEN: Final = re.compile("database .* does not exist|invalid (sslmode|connection option|port)")

inherited: Final[list[Any]] = []
"""In a forked child: the parent's connections, kept for ever: to close one here would end it there."""


class Server:
    """A database and a schema in it.

    Args:
        address: a libpq URL.
        schema: where all tables lie; in statements it is written ``{s}``.
        connections: how many the pool has at most.

    Raises:
        MissingExtra: psycopg is not installed.
        StorageRefused: not an address, or not a schema's name.
    """

    def __init__(self, address: str, schema: str, connections: int) -> None:
        self._driver = _psycopg()
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,40}", schema):
            raise StorageRefused(f"not a schema's name: {schema!r:.80}", hint="small letters, digits and underscores")
        if connections < 1:
            raise StorageRefused(f"{connections} connections are none", hint="at least 1")
        self.schema = schema
        self._connections = connections
        self._given = _parts(self._driver, address)
        given = self._given
        self.name = f"postgresql://{given.get('host') or 'localhost'}/{given.get('dbname') or given.get('user') or ''}"
        self._closed = False
        self._idle: list[Any] = []
        self.forked()

    def forked(self) -> None:
        """In a child: leaves the parent's connections alone."""
        inherited.extend(self._idle)
        self._idle = []
        self._turns = threading.BoundedSemaphore(self._connections)

    def sql(self, sql: str) -> str:
        """A statement with the schema in its place."""
        return _within(sql, self.schema)

    # -- connections --------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def call(self) -> Iterator[Any]:
        """A connection of the pool, for one call that commits each statement by itself."""
        turns = self._turns
        if not turns.acquire(timeout=CALL_S):
            raise StorageUnavailable(
                f"all {self._connections} connections to {self.name} were in use for {CALL_S} s",
                hint="give the store more connections",
            )
        try:
            with self.beside() as connection:
                yield connection
        finally:
            turns.release()

    @contextlib.contextmanager
    def beside(self) -> Iterator[Any]:
        """A connection that is not counted, for what may take its time."""
        connection = self.take()
        try:
            with self.errors(connection):
                yield connection
        finally:
            self.back(connection)

    def ask(self, sql: str, args: Sequence[Any] = (), *, every: bool = False) -> Any:
        """The first row of a question's answer, or all; asked once more where the line turned out to be dead."""
        for last in (False, True):
            try:
                with self.call() as connection:
                    cursor = connection.execute(self.sql(sql), args, binary=True)
                    return cursor.fetchall() if every else cursor.fetchone()
            except StorageUnavailable as error:
                if last or not error.context.get("broken"):
                    raise
        raise AssertionError

    def take(self) -> Any:
        """A connection that lives; to be given `back`."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:
                break
            # A server says nothing unasked but that it ends, or has ended, this connection.
            poll = select.poll()
            poll.register(connection.fileno(), select.POLLIN)
            if not poll.poll(0):
                return connection
            connection.close()
        return self._connect()

    def back(self, connection: Any) -> None:
        """Keeps a connection for the next call, if it is of use to one."""
        idle = connection.info.transaction_status == self._driver.pq.TransactionStatus.IDLE
        if self._closed or not idle or len(self._idle) >= self._connections:
            connection.close()
        else:
            self._idle.append(connection)

    def _connect(self) -> Any:
        try:
            connection = self._driver.connect("", autocommit=True, cursor_factory=self._driver.RawCursor, **self._given)
        except self._driver.Error as error:
            raise self._refused(error) from error
        try:
            with self.errors(connection):
                version, encoding, commits = connection.execute(_LOOK).fetchone()
                if version < VERSION_LEAST:
                    raise StorageRefused(f"PostgreSQL {version // 10_000} is too old", hint="13 or newer")
                if encoding != "UTF8":
                    raise StorageRefused(f"{self.name} is in {encoding}", hint="CREATE DATABASE … ENCODING 'UTF8'")
                if commits in ("off", "local"):
                    # What is acknowledged must be there after a power cut: the session's business, so put right here.
                    connection.execute("SET synchronous_commit = on")
        except BaseException:
            connection.close()
            raise
        return connection

    def migrate(self, steps: Sequence[str]) -> None:
        """Makes the tables, or brings them up to date.

        Args:
            steps: statements, oldest first; more may be added, none may ever be changed.
        """
        version = f"{self.schema}.version"
        with self.call() as connection:
            if connection.execute("SELECT to_regclass($1)", (version,)).fetchone()[0] is not None:
                row = connection.execute(f"SELECT number FROM {version}").fetchone()
                if row is not None and row[0] == len(steps):
                    return  # nothing is locked, and no right to make tables is needed
            with connection.transaction():
                # Two may open a new store at once, and "if not exists" is no promise to the second.
                connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", (version,))
                connection.execute(f"CREATE SCHEMA IF NOT EXISTS {self.schema}")
                connection.execute(f"CREATE TABLE IF NOT EXISTS {version} (number int8 NOT NULL)")
                row = connection.execute(f"SELECT number FROM {version}").fetchone()
                have = row[0] if row else 0
                if have > len(steps):
                    raise StorageRefused(
                        f"{self.name} was written by a newer Holdfast (format {have}, this knows {len(steps)})",
                        hint="update holdfast on this machine",
                    )
                for step in steps[have:]:
                    connection.execute(self.sql(step))
                sql = f"UPDATE {version} SET number = $1" if row else f"INSERT INTO {version} VALUES ($1)"
                connection.execute(sql, (len(steps),))

    def close(self) -> None:
        """Hangs up; what is in use ends with its call."""
        self._closed = True
        while self._idle:
            with contextlib.suppress(IndexError):
                self._idle.pop().close()

    # -- errors -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def errors(self, connection: Any) -> Iterator[None]:
        """Turns the driver's errors into ours."""
        try:
            yield
        except self._driver.Error as error:
            raise self._ours(error, connection) from error

    def rollback(self, connection: Any) -> None:
        """Ends a transaction of a connection that may be dead already."""
        with contextlib.suppress(self._driver.Error):
            connection.execute("ROLLBACK")

    def _refused(self, error: Any) -> StorageError:
        # Without a connection libpq has words alone, in the server's language; what is not understood is no answer.
        what = _first_line(error)
        if _DENIED.search(str(error)):
            return StorageDenied(f"{self.name} does not let us in: {what}", hint="check the user and the password")
        if _MISTAKEN.search(str(error)):
            return StorageRefused(f"{self.name}: {what}", hint="create the database, or correct the address")
        return StorageUnavailable(f"{self.name} cannot be reached: {what}", hint="is it running?")

    def _ours(self, error: Any, connection: Any) -> StorageError:
        state = error.sqlstate or ""
        what = _first_line(error)
        if state == "42501" or state.startswith("28"):
            return StorageDenied(f"{self.name}: {what}", hint="the user wants the right to make a schema, and owns it")
        if state == "53100":
            return StorageFull(f"{self.name} has no room: {what}", hint="free space there; reads go on")
        if state.startswith("XX00"):
            return ObjectCorrupt(f"{self.name} is damaged: {what}", hint="see its log; restore it")
        if not state or state[:2] in ("08", "25", "40", "53", "55", "57", "58"):
            broken = bool(connection.closed)
            return StorageUnavailable(f"{self.name} does not answer: {what}", hint="ask again", broken=broken)
        return StorageError(f"{self.name}: {type(error).__name__}: {what}")


def _parts(driver: Any, address: str) -> dict[str, Any]:
    try:
        given: dict[str, Any] = driver.conninfo.conninfo_to_dict(address)
    except driver.Error:
        given = {"port": "?"}  # without the driver's words: they quote the address, and that may hold a password
    # A password with a sign that should have been written as %40 or %2F leaves pieces of itself in the others.
    misread = [given.get(name) for name in ("host", "dbname", "user") if "@" in str(given.get(name))]
    if misread or not re.fullmatch(r"[\d,]*", str(given.get("port", ""))):
        raise StorageRefused(
            "cannot read the database's address",
            hint="such as postgresql://user@host:5432/name; in a password @ is written %40, / is %2F",
        )
    for name, value in _NETWORK.items():
        given.setdefault(name, value)
    if str(given["ssl_min_protocol_version"]).lower() not in ("tlsv1.2", "tlsv1.3"):
        raise StorageRefused(f"TLS from {given['ssl_min_protocol_version']!r:.20} on is not safe", hint="TLSv1.2")
    options = " ".join(f"-c {name}={value}" for name, value in _SETTINGS.items())
    given["options"] = f"{options} {given.get('options') or ''}".strip()  # theirs may say otherwise
    return given


@functools.lru_cache(maxsize=256)
def _within(sql: str, schema: str) -> str:
    return sql.replace("{s}", schema)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


@functools.cache
def _psycopg() -> Any:
    try:
        import psycopg
    except ImportError as error:
        raise MissingExtra(
            f"objects in PostgreSQL need a package that is not installed: {error.name}",
            hint="pip install 'holdfast[postgres]'",
        ) from error
    return psycopg

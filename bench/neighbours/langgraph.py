"""LangGraph's SQLite checkpointer and store, at the durability that is asked for (theirs by default is WAL, FULL).

A checkpoint that holds one message is its smallest unit of work, and what a step of a graph costs at least.
"""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.store.sqlite import SqliteStore

from bench.neighbours.local import PAGE, LocalStore


def synchronous(durability: str) -> str:
    """SQLite's word for it."""
    return "PRAGMA synchronous=" + ("FULL" if durability == "critical" else "NORMAL")


def checkpoint_of(number: int, message: dict[str, Any]) -> Checkpoint:
    """A checkpoint with one message in it."""
    made = empty_checkpoint()
    made["id"] = str(uuid6(clock_seq=number & 0x3FFF))
    made["channel_values"] = {"messages": [message]}
    return made


def thread(session: str) -> Any:
    """How LangGraph names a conversation."""
    return {"configurable": {"thread_id": session, "checkpoint_ns": ""}}


class Saver(LocalStore):
    """SqliteSaver: `put` and `get_tuple`, `list`."""

    def __init__(self, folder: Path, durability: str) -> None:
        self._connection = sqlite3.connect(folder / "saver.db", check_same_thread=False)
        self._saver = SqliteSaver(self._connection)
        self._saver.setup()
        self._connection.execute(synchronous(durability))
        self._places: list[Any] = []

    def append(self, number: int, session: str, message: dict[str, Any]) -> None:
        """One checkpoint."""
        made = checkpoint_of(number, message)
        self._places.append(self._saver.put(thread(session), made, {"source": "loop", "step": number}, {}))

    def message(self, number: int) -> Any:
        """One checkpoint by its id."""
        return self._saver.get_tuple(self._places[number])

    def last(self, session: str) -> Any:
        """The thread's newest checkpoints."""
        return list(self._saver.list(thread(session), limit=PAGE))

    def shown(self, found: Any) -> Any:
        """The messages in checkpoints."""
        if isinstance(found, list):
            return [self.shown(each) for each in reversed(found)]
        return found.checkpoint["channel_values"]["messages"][0]

    def close(self) -> None:
        """Ends it."""
        self._connection.close()


class Values(LocalStore):
    """SqliteStore: `put` and `get` of values."""

    def __init__(self, folder: Path, durability: str) -> None:
        self._connection = sqlite3.connect(folder / "store.db", check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL").fetchall()
        self._store = SqliteStore(self._connection)
        self._store.setup()
        self._connection.execute(synchronous(durability))

    def put(self, number: int, key: str, value: dict[str, Any]) -> None:
        """One value."""
        self._store.put(("state",), key, value)

    def get(self, key: str) -> Any:
        """One item."""
        return self._store.get(("state",), key)

    def shown(self, found: Any) -> Any:
        """An item's value."""
        return found.value

    def close(self) -> None:
        """Ends it."""
        self._connection.close()


async def agents(folder: Path, durability: str, plan: list[list[dict[str, Any]]]) -> tuple[float, list[float], Any]:
    """AsyncSqliteSaver under many agents at once; see `bench.peers.crowd`."""
    from bench.peers import crowd

    async with AsyncSqliteSaver.from_conn_string(str(folder / "async.db")) as saver:
        await saver.setup()
        await saver.conn.execute(synchronous(durability))

        async def write(agent: int, number: int, message: dict[str, Any]) -> None:
            made = checkpoint_of(number, message)
            await saver.aput(thread(f"agent-{agent}"), made, {"source": "loop", "step": number}, {})

        took, each = await crowd(plan, write)
        found = []
        for agent in range(len(plan)):
            rows = [row async for row in saver.alist(thread(f"agent-{agent}"))]
            found.append([row.checkpoint["channel_values"]["messages"][0] for row in reversed(rows)])
        await asyncio.sleep(0)
        return took, each, found

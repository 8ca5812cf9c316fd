"""The OpenAI Agents SDK's SQLiteSession, at the durability that is asked for (its own default is WAL, FULL)."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

from agents import SQLiteSession

from bench import material
from bench.neighbours.local import PAGE, LocalStore


class _Relaxed(SQLiteSession):
    """The same with synchronous=NORMAL."""

    @staticmethod
    def _configure_connection(conn: sqlite3.Connection) -> None:
        SQLiteSession._configure_connection(conn)
        conn.execute("PRAGMA synchronous=NORMAL")


class Session(LocalStore):
    """`add_items` and `get_items`, one session object for each session; it knows no single message by name."""

    def __init__(self, folder: Path, durability: str) -> None:
        self.runner = asyncio.Runner()
        kind = SQLiteSession if durability == "critical" else _Relaxed
        names = [material.session(number) for number in range(material.SESSIONS)]
        self._sessions = {name: kind(name, folder / "sessions.db") for name in names}

    def append(self, number: int, session: str, message: dict[str, Any]) -> Any:
        """One item."""
        return self._sessions[session].add_items([message])  # type: ignore[list-item]

    def last(self, session: str) -> Any:
        """The session's newest items."""
        return self._sessions[session].get_items(limit=PAGE)

    def close(self) -> None:
        """Ends it."""
        for each in self._sessions.values():
            each.close()
        assert self.runner is not None
        self.runner.close()

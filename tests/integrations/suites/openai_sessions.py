"""A pytest plugin: the OpenAI Agents SDK's own tests with our session in the place of its SQLite session."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import agents
import pytest
from agents.memory.session_settings import coerce_session_settings

from holdfast import Store
from holdfast.integrations.openai import HoldfastSession
from holdfast.node.directory import Limits

OPEN: list[tuple[Store, tempfile.TemporaryDirectory[str] | None]] = []


class Ours(HoldfastSession):
    """Ours, with the arguments of theirs: a database's path is a node's directory, none is a new one."""

    def __init__(
        self,
        session_id: str,
        db_path: Any = ":memory:",
        sessions_table: str = "",
        messages_table: str = "",
        session_settings: Any = None,
    ) -> None:
        directory = tempfile.TemporaryDirectory() if str(db_path) == ":memory:" else None
        place = directory.name if directory else Path(f"{db_path}.node")
        self._store = Store(place, "suite", hub=[], limits=Limits(scan_s=0))
        OPEN.append((self._store, directory))
        settings = coerce_session_settings(session_settings) if session_settings is not None else None
        super().__init__(session_id, self._store, session_settings=settings)

    def close(self) -> None:
        """Closes the node, which theirs does with its file."""
        self._store.close()


agents.SQLiteSession = Ours  # type: ignore[misc, assignment]


@pytest.fixture(autouse=True)
def _stores_are_closed() -> Iterator[None]:
    yield
    while OPEN:
        store, directory = OPEN.pop()
        store.close()
        if directory is not None:
            directory.cleanup()

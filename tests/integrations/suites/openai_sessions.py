"""A pytest plugin: the OpenAI Agents SDK's own tests with our session in the place of its SQLite session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import agents
from agents.memory.session_settings import coerce_session_settings
from holdfast_nodes import node

from holdfast.integrations.openai import HoldfastSession


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
        self._store = node(None if str(db_path) == ":memory:" else Path(f"{db_path}.node"))
        settings = coerce_session_settings(session_settings) if session_settings is not None else None
        super().__init__(session_id, self._store, session_settings=settings)

    def close(self) -> None:
        """Closes the node, which theirs does with its file."""
        self._store.close()


agents.SQLiteSession = Ours  # type: ignore[misc, assignment]

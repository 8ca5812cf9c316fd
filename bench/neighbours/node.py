"""Holdfast on one machine: `Store` as an agent uses it, full-text index and all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.neighbours.local import PAGE, LocalStore
from holdfast import Store
from holdfast.log.drafts import MESSAGES

AGENT = "agent-0"


class Node(LocalStore):
    """`post` and `put`, `messages` and `get`, with nothing switched off."""

    def __init__(self, folder: Path, durability: str) -> None:
        self._store = Store(folder / "node", AGENT, hub=[], level=durability)
        self._ids: list[str] = []

    def append(self, number: int, session: str, message: dict[str, Any]) -> None:
        """A message in a thread."""
        self._ids.append(self._store.post(message, thread=session).id)

    def message(self, number: int) -> Any:
        """The message by its id."""
        return self._store.get(self._ids[number], collection=MESSAGES)["body"]

    def last(self, session: str) -> Any:
        """The thread's newest page."""
        return self._store.messages(thread=session, agent=AGENT, limit=PAGE)

    def put(self, number: int, key: str, value: dict[str, Any]) -> None:
        """A new version of the key."""
        self._store.put(key, value)

    def get(self, key: str) -> Any:
        """The key's value."""
        return self._store.get(key)

    def shown(self, found: Any) -> Any:
        """The bodies of a page."""
        return [message.body for message in found] if isinstance(found, list) else found

    def close(self) -> None:
        """Ends it."""
        self._store.close()

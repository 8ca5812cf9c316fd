"""A pytest plugin: the Claude Agent SDK's own tests with our store in the place of its in-memory one."""

from __future__ import annotations

from typing import Any

import claude_agent_sdk
import claude_agent_sdk._internal.session_store as theirs
from holdfast_nodes import node

from holdfast.integrations.claude import HoldfastSessionStore, _name


class Ours(HoldfastSessionStore):
    """Ours on a node of its own, with what the SDK's tests ask of the in-memory one to look inside."""

    def __init__(self) -> None:
        super().__init__(node())

    def get_entries(self, key: Any) -> list[Any]:
        """What lies under a key."""
        return self.conversations.load(_name(key)) or []

    @property
    def size(self) -> int:
        """How many sessions there are, without what is below them."""
        return sum(len(each.name) == 2 for each in self.conversations.list(deep=True))

    def clear(self) -> None:
        """Empties it."""
        for each in self.conversations.list(deep=True):
            self.conversations.delete(each.name)


claude_agent_sdk.InMemorySessionStore = theirs.InMemorySessionStore = Ours  # type: ignore[assignment, misc]

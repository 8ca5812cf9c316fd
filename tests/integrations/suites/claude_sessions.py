"""A pytest plugin: the Claude Agent SDK's own tests with our store in the place of its in-memory one."""

from __future__ import annotations

import tempfile
from typing import Any

import claude_agent_sdk
import claude_agent_sdk._internal.session_store as theirs
import pytest

from holdfast import Store
from holdfast.integrations.claude import HoldfastSessionStore, _name
from holdfast.node.directory import Limits

OPEN: list[tuple[Store, tempfile.TemporaryDirectory[str]]] = []


class Ours(HoldfastSessionStore):
    """Ours in a directory of its own, with what the SDK's tests ask of the in-memory one to look inside."""

    def __init__(self) -> None:
        directory = tempfile.TemporaryDirectory()
        store = Store(directory.name, "suite", hub=[], limits=Limits(scan_s=0))
        OPEN.append((store, directory))
        super().__init__(store)

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


@pytest.fixture(autouse=True)
def _stores_are_closed() -> Any:
    yield
    while OPEN:
        store, directory = OPEN.pop()
        store.close()
        directory.cleanup()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """No test counts that only its own doubles were in."""
    print(f"{len(items)} tests with {Ours.__module__}.{Ours.__name__}")

"""A real hub in a process of its own, and stores that ship to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.node.directory import Limits
from holdfast.node.store import Store
from tests.flow.hubs import HubProcess
from tests.flow.swarm import files as files
from tests.flow.swarm import hybrid as hybrid
from tests.flow.swarm import storage as storage


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    """A hub, running."""
    process = HubProcess(tmp_path / "hub")
    yield process
    process.kill()


@pytest.fixture
def on_node(tmp_path: Path, hub: HubProcess) -> Iterator[Callable[..., Store]]:
    """Opens an agent's store on a named node; all are closed at the end."""
    opened: list[Store] = []

    def make(node: str, agent: str, **options: Any) -> Store:
        options.setdefault("hub", hub.url)
        options.setdefault("limits", Limits(floor_bytes=0, ballast_bytes=0))
        store = Store(tmp_path / node, agent, **options)
        opened.append(store)
        return store

    yield make
    for store in reversed(opened):
        store.close()

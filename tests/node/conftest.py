"""A node directory on a disk with room, and stores on it that are closed whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.node.directory import Limits
from holdfast.node.store import Store

ROOMY = Limits(floor_bytes=0, ballast_bytes=0)


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Callable[..., Store]]:
    """Opens a store on `tmp_path/node` (or another directory); all are closed at the end."""
    opened: list[Store] = []

    def make(agent: str = "ada", directory: Path | None = None, **options: Any) -> Store:
        options.setdefault("hub", [])
        options.setdefault("limits", ROOMY)
        store = Store(directory or tmp_path / "node", agent, **options)
        opened.append(store)
        return store

    yield make
    for store in reversed(opened):
        store.close()


@pytest.fixture
def store(open_store: Callable[..., Store]) -> Store:
    """One agent's store, without a hub."""
    return open_store()

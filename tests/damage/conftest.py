"""Where damage is tried out: in memory, since nothing here needs a disk that syncs, and thousands of files are made."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.damage.recovering import World
from tests.flow.hubs import HubProcess
from tests.flow.swarm import files as files
from tests.flow.swarm import hybrid as hybrid
from tests.flow.swarm import storage as storage

MEMORY = Path("/dev/shm")


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in memory, or on the disk where the system has no such place."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path_factory.mktemp("quick")
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as made:
        yield Path(made)


@pytest.fixture
def memory_path(quick: Path) -> Path:
    """The same for one test alone."""
    return Path(tempfile.mkdtemp(dir=quick))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A store, its copies and its hub, which runs until the tests end."""
    root = tmp_path_factory.mktemp("world")
    hub = HubProcess(root / "hub")
    try:
        yield World(root, hub)
    finally:
        hub.kill()

"""Collections keep their promises on a node, and over HTTP on a hub in a directory and on one in a database."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.collections.typed import Collection, Schema
from holdfast.node.directory import Limits
from holdfast.node.hub import Hub
from holdfast.node.store import Store
from holdfast.testing.clock import SettableClock
from holdfast.testing.collections import CollectionContract
from tests.flow.hubs import HubProcess
from tests.services import shared_postgres


@pytest.fixture(scope="module")
def in_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One hub for all of them."""
    process = HubProcess(tmp_path_factory.mktemp("collections") / "hub")
    yield process.url
    process.kill()


@pytest.fixture(scope="module")
def in_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One hub for all of them, in a database."""
    where = tmp_path_factory.mktemp("collections") / "hub"
    process = HubProcess(where, database=shared_postgres().database())
    yield process.url
    process.kill()


class OnNode:
    """An agent's own collections; time passes when a test says so."""

    ttl_s = 60.0

    def __init__(self, directory: Path) -> None:
        self.clock = SettableClock()
        self.store = Store(directory / "node", "ada", hub=[], limits=Limits(floor_bytes=0, ballast_bytes=0, scan_s=0))
        self.store._directory.wall = self.clock

    def collection(self, name: str, schema: Schema[Any]) -> Collection[Any]:
        """One of them."""
        return self.store.collection(name, schema)

    def let_end(self) -> None:
        """A minute later."""
        self.clock.advance(60)


class AtHub:
    """The same through a hub; its clock is its own, so what is to end is put for a moment only."""

    ttl_s = 0.05

    def __init__(self, url: str) -> None:
        self.hub = Hub(url)

    def collection(self, name: str, schema: Schema[Any]) -> Collection[Any]:
        """One of ada's."""
        return self.hub.collection(name, schema, agent="ada")

    def let_end(self) -> None:
        """A moment later."""
        end = time.time() + 2 * self.ttl_s
        while time.time() < end:
            time.sleep(self.ttl_s / 4)


class TestOnNode(CollectionContract):
    @contextlib.contextmanager
    def make(self, directory: Path) -> Iterator[OnNode]:
        ground = OnNode(directory)
        with ground.store:
            yield ground


class OverHttp(CollectionContract):
    url: str

    @contextlib.contextmanager
    def make(self, directory: Path) -> Iterator[AtHub]:
        ground = AtHub(self.url)
        with ground.hub:
            yield ground


class TestAtHubInDirectory(OverHttp):
    @pytest.fixture(autouse=True)
    def at(self, in_directory: str) -> None:
        """Where it is asked."""
        self.url = in_directory


class TestAtHubInDatabase(OverHttp):
    @pytest.fixture(autouse=True)
    def at(self, in_database: str) -> None:
        """Where it is asked."""
        self.url = in_database

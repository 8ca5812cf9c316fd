"""Collections keep their promises on a node, and over HTTP on a hub in a directory and on one in a database."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from holdfast.collections.typed import Collection, Schema
from holdfast.corpus.space import Reserve
from holdfast.hub.app import create_app
from holdfast.hub.database import HubDatabase
from holdfast.hub.directory import HubDirectory
from holdfast.hub.home import Home
from holdfast.hub.serve import listen
from holdfast.node.directory import Limits
from holdfast.node.hub import Hub
from holdfast.node.store import Store
from holdfast.testing.clock import SettableClock
from holdfast.testing.collections import CollectionContract
from tests.flow.hubs import until
from tests.services import shared_postgres

CLOCK = SettableClock()
"""The time of all hubs here."""


@pytest.fixture(scope="module")
def in_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One hub for all of them."""
    where = tmp_path_factory.mktemp("collections")
    reserve = Reserve(where, floor_bytes=0, ballast_bytes=0)
    with served(HubDirectory(where / "hub", settle="acked", reserve=reserve, wall=CLOCK)) as url:
        yield url


@pytest.fixture(scope="module")
def in_database() -> Iterator[str]:
    """One hub for all of them, in a database."""
    with served(HubDatabase(shared_postgres().corpus(), settle="acked", wall=CLOCK)) as url:
        yield url


@contextlib.contextmanager
def served(home: Home) -> Iterator[str]:
    """A hub in a thread of this process, whose clock a test can set; its address."""
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(create_app(home), lifespan="on", ws="none", log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    until(lambda: server.started or not thread.is_alive(), "the hub listens")
    assert server.started, "the hub did not start"
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


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
    """The same through a hub."""

    ttl_s = 60.0

    def __init__(self, url: str) -> None:
        self.hub = Hub(url)

    def collection(self, name: str, schema: Schema[Any]) -> Collection[Any]:
        """One of ada's."""
        found = self.hub.collection(name, schema, agent="ada")
        found._backing.wall = CLOCK  # type: ignore[attr-defined]
        return found

    def let_end(self) -> None:
        """A minute later."""
        CLOCK.advance(60)


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

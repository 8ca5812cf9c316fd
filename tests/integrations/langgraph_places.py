"""Where LangGraph's things may lie: a node, a hub in a directory, a hub in a database. For tests that look at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast import Hub, Store
from tests.flow.hubs import HubProcess
from tests.services import shared_postgres

PLACES = ["node", "hub", "hub in a database"]
LIMIT_S = 30.0


@contextmanager
def opened(kind: str, tmp_path: Path) -> Iterator[Store | Hub]:
    """A place of this kind."""
    if kind == "node":
        with Store(tmp_path / "node", "graph", hub=[]) as store:
            yield store
        return
    options = {"database": shared_postgres().corpus()} if kind == "hub in a database" else {}
    process = HubProcess(tmp_path / "hub", **options)
    try:
        with Hub(process.url) as hub:
            yield hub
    finally:
        process.kill()

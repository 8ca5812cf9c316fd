"""The places that every adapter is tried at: a node, a node whose hub decides, and a hub without a node."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast import Hub, Store
from holdfast.node.directory import Limits
from tests.flow.hubs import HubProcess

MISSING = "the framework is not installed; `make test-integrations` has it"
LIMITS = Limits(scan_s=0)
KINDS = ["node", "shared", "hub"]
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """One for all tests of a module."""
    process = HubProcess(tmp_path_factory.mktemp("integrations") / "hub")
    yield process
    process.kill()


@pytest.fixture(params=KINDS)
def kept(request: pytest.FixtureRequest, tmp_path: Path, hub: HubProcess) -> Iterator[dict[str, Any]]:
    """What an adapter is told of where to keep things, as keyword arguments; each time where nothing is yet."""
    with at(request.param, tmp_path / "node", hub, f"laptop-{next(_numbers)}") as arguments:
        yield {**arguments, "collection": fresh()}


class at:
    """A place of a kind, while it is open; its arguments as adapters take them."""

    def __init__(self, kind: str, directory: Path, hub: HubProcess, agent: str) -> None:
        self._inner: Store | Hub
        if kind == "hub":
            self._inner = Hub(hub.url)
            self._more: dict[str, Any] = {"agent": agent}
        else:
            self._inner = Store(directory, agent, hub=hub.url if kind == "shared" else [], limits=LIMITS)
            self._more = {"shared": True} if kind == "shared" else {}

    def __enter__(self) -> dict[str, Any]:
        return {"where": self._inner, **self._more}

    def __exit__(self, *exc: object) -> None:
        self._inner.close()


@pytest.fixture
def machines(tmp_path: Path, hub: HubProcess) -> Iterator[tuple[Store, Store]]:
    """Two nodes with one hub between them."""
    number = next(_numbers)
    with (
        Store(tmp_path / "laptop", f"laptop-{number}", hub=hub.url, limits=LIMITS) as laptop,
        Store(tmp_path / "desk", f"desk-{number}", hub=hub.url, limits=LIMITS) as desk,
    ):
        yield laptop, desk


def fresh() -> str:
    """The name of a collection that no other test has."""
    return f"kept-{next(_numbers)}"

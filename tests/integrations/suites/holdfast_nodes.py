"""What the plugins here share: a node under each object of ours that a framework's test makes.

Loaded as a plugin itself: it closes the nodes after each test, and says how many there were, so that a suite in which a
class of ours was never made does not pass for one that it passed.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast import Store
from holdfast.node.directory import Limits

_home = tempfile.TemporaryDirectory(prefix="hf-suite-")
_numbers = itertools.count(1)
_open: list[Store] = []


def node(directory: Path | None = None) -> Store:
    """A node for one object, or the one in a directory that several objects name."""
    number = next(_numbers)
    agent = f"suite-{number}" if directory is None else "suite"
    place = Path(_home.name) / "node" if directory is None else directory
    _open.append(Store(place, agent, hub=[], level="basic", limits=Limits(scan_s=0)))
    return _open[-1]


@pytest.fixture(autouse=True)
def _nodes_are_closed() -> Iterator[None]:
    yield
    while _open:
        _open.pop().close()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"objects of ours: {next(_numbers) - 1}")

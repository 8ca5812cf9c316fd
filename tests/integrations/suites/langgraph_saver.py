"""A plugin for langgraph's own graph tests: where they want a saver on SQLite, they get ours.

    PYTHONPATH=…/suites python -m pytest -p langgraph_saver -k "sqlite and not sqlite_aes" tests

Loaded before their conftest, so that the names which that imports are replaced already; `tests` is theirs here.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import tests.conftest_checkpointer as theirs  # type: ignore[import-not-found]
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from holdfast import Store
from holdfast.integrations.langgraph import HoldfastSaver

BUILT = {"sync": 0, "async": 0, "put": 0}
_home = tempfile.TemporaryDirectory(prefix="hf-suite-")
_numbers = itertools.count(1)


class Ours(HoldfastSaver):
    """Ours; it counts."""

    def put(self, *args: Any) -> Any:
        BUILT["put"] += 1
        return super().put(*args)

    async def aput(self, *args: Any) -> Any:
        BUILT["put"] += 1
        return await super().aput(*args)


def _saver() -> tuple[Store, Ours]:
    # Their types are many, and are all theirs: the serialiser is as their own savers have it.
    store = Store(Path(_home.name) / "node", f"saver-{next(_numbers)}", hub=[], level="basic")
    return store, Ours(store, serde=JsonPlusSerializer())


@contextmanager
def _sync() -> Iterator[Ours]:
    BUILT["sync"] += 1
    store, saver = _saver()
    with store:
        yield saver


@asynccontextmanager
async def _async() -> AsyncIterator[Ours]:
    BUILT["async"] += 1
    store, saver = _saver()
    with store:
        yield saver


theirs._checkpointer_sqlite = _sync
theirs._checkpointer_sqlite_aio = _async


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"savers of ours: {BUILT}")

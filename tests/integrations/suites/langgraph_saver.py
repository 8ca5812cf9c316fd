"""A plugin for langgraph's own graph tests: where they want a saver on SQLite, they get ours.

Loaded before their conftest, so that the names which that imports are replaced already; `tests` is theirs here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import tests.conftest_checkpointer as theirs  # type: ignore[import-not-found]
from holdfast_nodes import node
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from holdfast.integrations.langgraph import HoldfastSaver


def _ours() -> HoldfastSaver:
    # Their types are many, and are all theirs: the serialiser is as their own savers have it.
    return HoldfastSaver(node(), serde=JsonPlusSerializer())


@contextmanager
def _sync() -> Iterator[HoldfastSaver]:
    yield _ours()


@asynccontextmanager
async def _async() -> AsyncIterator[HoldfastSaver]:
    yield _ours()


theirs._checkpointer_sqlite = _sync
theirs._checkpointer_sqlite_aio = _async

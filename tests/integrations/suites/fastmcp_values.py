"""A pytest plugin: FastMCP's own tests with our values in the place of py-key-value's in-memory ones."""

from __future__ import annotations

from typing import Any

import key_value.aio.stores.memory as theirs
import key_value.aio.stores.memory.store as inside
from holdfast_nodes import node

from holdfast.integrations.key_value import DEFAULT_COLLECTION, KeyValue


class Ours(KeyValue):
    """Ours, made as theirs is."""

    def __init__(
        self, *, max_entries_per_collection: int | None = None, default_collection: str | None = None, seed: Any = None
    ) -> None:
        super().__init__(node(), default_collection=default_collection or DEFAULT_COLLECTION)


theirs.MemoryStore = inside.MemoryStore = Ours  # type: ignore[assignment, misc]

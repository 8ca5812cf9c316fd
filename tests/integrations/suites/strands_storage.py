"""A pytest plugin: Strands' own tests with our storage in the place of its in-memory one."""

from __future__ import annotations

from typing import Any

import strands.storage as theirs
import strands.storage.in_memory_storage as inside
from holdfast_nodes import node

from holdfast.integrations.strands import HoldfastStorage


class Ours(HoldfastStorage):
    """Ours on a node of its own, with what is asked of a storage that may be emptied."""

    def __init__(self, *, search_strategy: Any = None) -> None:
        super().__init__(node(), search_strategy=search_strategy)

    def clear(self) -> None:
        """Takes all away that is below this prefix."""
        for key in self.bodies.list(self._prefix):
            self.bodies.delete(key)


theirs.InMemoryStorage = inside.InMemoryStorage = Ours  # type: ignore[assignment, misc]

"""A plugin for langgraph-checkpoint's own store tests: for their store in memory they get ours."""

from __future__ import annotations

from typing import Any

import langgraph.store.memory as theirs
from holdfast_nodes import node

from holdfast.integrations.langgraph import HoldfastStore


class Ours(HoldfastStore):
    """Ours, made as theirs is."""

    def __init__(self, *, index: Any = None) -> None:
        super().__init__(node(), index=index)


theirs.InMemoryStore = Ours

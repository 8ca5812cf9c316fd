"""A plugin for langgraph-checkpoint's own store tests: for their store in memory they get ours."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import langgraph.store.memory as theirs

from holdfast import Store
from holdfast.integrations.langgraph import HoldfastStore

BUILT = {"stores": 0}
_home = tempfile.TemporaryDirectory(prefix="hf-suite-")
_numbers = itertools.count(1)


class Ours(HoldfastStore):
    """Ours, made as theirs is."""

    def __init__(self, *, index: Any = None) -> None:
        BUILT["stores"] += 1
        super().__init__(
            Store(Path(_home.name) / "node", f"store-{next(_numbers)}", hub=[], level="basic"), index=index
        )


theirs.InMemoryStore = Ours


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"stores of ours: {BUILT}")

"""How far an answer reaches: everybody's records through the hub, or what is on this machine; and how it says so."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Final, TypeVar

from holdfast.errors import HubUnavailable
from holdfast.node.directory import LOCAL
from holdfast.node.store import Store
from holdfast.node.typed import beside

T = TypeVar("T")
SLOW_S: Final = 1.0
PAUSE_S: Final = 20.0
"""A hub that took longer than `SLOW_S` not to answer is left alone for so long: nobody waits for it at every call."""
NEIGHBOURS_MAX: Final = 64
"""So many other agents of this machine are looked at when no hub answers."""
EVERYBODY: Final = "everybody"
HERE: Final = "this machine"

_MISSED: ContextVar[list[str] | None] = ContextVar("missed", default=None)


@contextlib.contextmanager
def noting() -> Iterator[list[str]]:
    """Why answers given within the block do not reach beyond this machine; empty: they do, or nothing lies beyond."""
    missed: list[str] = []
    mark = _MISSED.set(missed)
    try:
        yield missed
    finally:
        _MISSED.reset(mark)


class Line:
    """A store's line to its hub, which may be down. Safe to share among threads.

    Args:
        store: the agent's.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock = threading.Lock()  # guards _near
        self._near: dict[str, Store] = {}
        self._silent_until = 0.0
        self._why = ""

    @property
    def reach(self) -> str:
        """How far answers reach while the hub answers."""
        return EVERYBODY if self.store.hubs else HERE

    def ask(self, question: Callable[[], T], instead: Callable[[], T]) -> T:
        """What the hub says; while it does not answer, or without one, what this machine says instead."""
        if not self.store.hubs:
            return instead()
        if time.monotonic() < self._silent_until:
            self._miss(self._why)
            return instead()
        began = time.monotonic()
        try:
            return question()
        except HubUnavailable as error:
            now = time.monotonic()
            self._why = error.message
            if now - began > SLOW_S:
                self._silent_until = now + PAUSE_S
            self._miss(error.message)
            return instead()

    def neighbours(self) -> list[Store]:
        """The other agents of this directory, to be read and not to be closed: they end with the directory."""
        names = [name for name in self.store._directory.agents() if name != self.store.agent]
        names = [name for name in names if not name.endswith(LOCAL)][:NEIGHBOURS_MAX]
        with self._lock:
            for name in names:
                if name not in self._near:
                    self._near[name] = beside(self.store, name)
            return [self._near[name] for name in names]

    def _miss(self, why: str) -> None:
        missed = _MISSED.get()
        if missed is not None and why not in missed:
            missed.append(why)

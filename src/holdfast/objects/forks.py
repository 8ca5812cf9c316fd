"""Forks, for what must be put down before one: connections whose locks a child would believe to have, and has not."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Final, Protocol

WAIT_S: Final = 30.0
"""How long a fork waits for calls under way."""


class Held(Protocol):
    """What stands still while its process is forked."""

    def hold(self) -> bool:
        """Lets go of all that a child must not inherit, and lets nobody begin; False if something stayed in use."""

    def let_go(self) -> None:
        """In the parent, if all was let go: goes on."""

    def in_child(self, *, clean: bool) -> None:
        """In the child: with locks of its own; unless all was let go, it is of no use here."""


_watched: weakref.WeakSet[Held] = weakref.WeakSet()  # guarded by _forking
_forking = threading.Lock()
_held: list[tuple[Held, bool]] = []  # guarded by _forking, which whoever forks has


def watch(held: Held) -> None:
    """Has it asked at every fork from now on, for as long as it lives."""
    with _forking:
        _watched.add(held)


def _before() -> None:
    _forking.acquire()
    _held.extend((held, held.hold()) for held in list(_watched))


def _in_parent() -> None:
    for held, clean in _held:
        if clean:
            held.let_go()
    _held.clear()
    _forking.release()


def _in_child() -> None:
    global _forking
    for held, clean in _held:
        held.in_child(clean=clean)
    _held.clear()
    _forking = threading.Lock()


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)

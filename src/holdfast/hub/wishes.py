"""What people ask of nodes: to pause, to try again now; and which nodes are forgotten. Told to them with each hello.

A node has no port, so nobody can be told anything: each hears of it when it next says hello, once a minute at the
latest, and one that is shipping is asked to say hello at once. What is wished lies in the corpus, so that every process
of a hub tells the same, and a restart forgets nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from holdfast.clock import Clock
from holdfast.corpus import SqlCorpus
from holdfast.wire import Wish

NODES_MAX: Final = 10_000
_META: Final = "wishes"


class Wanted(msgspec.Struct, frozen=True):
    """What is wished of one node, by whom and when; what it said until `forgotten_ms` is forgotten."""

    paused: bool = False
    asked: int = 0
    by: str = ""
    at_ms: int = 0
    forgotten_ms: int = 0


NOTHING: Final = Wanted()


class Wishes:
    """The wishes of one hub. Its methods read or write the corpus, so they are for threads.

    Args:
        corpus: the hub's.
        wall: the clock.
    """

    def __init__(self, corpus: SqlCorpus, wall: Clock) -> None:
        self._corpus, self._wall = corpus, wall
        self.fresh: set[str] = set()
        """The nodes that have not heard yet of what was wished through this process."""

    def every(self) -> dict[str, Wanted]:
        """What is wished, by node."""
        stored = self._corpus.meta(_META)
        return msgspec.msgpack.decode(stored, type=dict[str, Wanted]) if stored else {}

    def of(self, node: str) -> Wish | None:
        """What a node is to be told; None: nothing."""
        found = self.every().get(node)
        return None if found is None else Wish(found.paused, found.asked)

    def pause(self, node: str, paused: bool, by: str) -> Wanted:
        """Has a node ship nothing from its next hello on, or go on."""
        wanted = self._change(
            node, lambda known: msgspec.structs.replace(known, paused=paused, by=by, at_ms=self._now())
        )
        self.fresh.add(node)
        return wanted

    def hurry(self, node: str, by: str) -> Wanted:
        """Has a node say how it stands, and try again what it has put off."""
        wanted = self._change(
            node, lambda known: msgspec.structs.replace(known, asked=known.asked + 1, by=by, at_ms=self._now())
        )
        self.fresh.add(node)
        return wanted

    def forget(self, node: str) -> None:
        """Has every process of this hub forget what a node ever said; when it speaks again it is a new one."""
        self._change(node, lambda _: Wanted(forgotten_ms=self._now()))
        self.fresh.discard(node)

    def forgotten(self) -> dict[str, int]:
        """Until when (ms since 1970) what was said by each forgotten node is forgotten."""
        return {node: found.forgotten_ms for node, found in self.every().items() if found.forgotten_ms}

    def heard(self, node: str) -> None:
        """A node has been told."""
        self.fresh.discard(node)

    def _change(self, node: str, change: Callable[[Wanted], Wanted]) -> Wanted:
        def job(tx: Any) -> Wanted:
            stored = tx.meta(_META)
            known = msgspec.msgpack.decode(stored, type=dict[str, Wanted]) if stored else {}
            wanted = known[node] = change(known.get(node, NOTHING))
            while len(known) > NODES_MAX:
                del known[next(iter(known))]
            tx.set_meta(_META, msgspec.msgpack.encode(known))
            return wanted

        return self._corpus.write(job)

    def _now(self) -> int:
        return self._wall.now_ms()

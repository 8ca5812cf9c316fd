"""How far each hub has each log of a node directory: told in memory at once, written to node.db a little behind.

A commit for each acknowledgement would cost the shipper as much as reading what it ships. What a kill takes from here,
the hub's next hello tells again: a position is a hint, and never the truth.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from holdfast.clock import Clock
from holdfast.errors import HoldfastError
from holdfast.protocol.ports import Position
from holdfast.wire import Mark

if TYPE_CHECKING:
    from holdfast.node.directory import Directory

logger = logging.getLogger(__name__)

BEHIND_S: Final = 0.1
"""So long may what other processes see lag while records flow; a line that has nothing to do writes at once."""


class Positions:
    """Every hub's position in every log of one directory. Safe to share among threads.

    Args:
        directory: the node's; its node.db holds them.
        clock: monotonic.
    """

    def __init__(self, directory: Directory, clock: Clock) -> None:
        self._directory, self._clock = directory, clock
        self._lock = threading.Lock()  # guards _fresh and _saved
        self._fresh: dict[tuple[str, bytes], Position] = {}  # not in node.db yet
        self._saved = float("-inf")

    def of(self, hub: str) -> dict[bytes, Position]:
        """A hub's position in each log, by stream."""
        with self._lock:  # before the rows: what leaves memory is on disk by then
            fresh = {stream: each for (name, stream), each in self._fresh.items() if name == hub}
        rows = self._directory.node.query(
            "SELECT stream, inc, acked_seq, acked_link, settled_seq, settled_link FROM position WHERE hub=?", (hub,)
        )
        return {row[0]: Position(row[1], Mark(row[2], row[3]), Mark(row[4], row[5])) for row in rows} | fresh

    def acked(self, hub: str, stream: bytes) -> Mark | None:
        """Up to where a hub has acknowledged one log; None when nobody has told."""
        fresh = self._fresh.get((hub, stream))
        if fresh is not None:
            return fresh.acked
        row = self._directory.node.one(
            "SELECT acked_seq, acked_link FROM position WHERE hub=? AND stream=?", (hub, stream)
        )
        return row and Mark(*row)

    def keep(self, hub: str, positions: Mapping[bytes, Position]) -> None:
        """Remembers how far this hub has these streams (others stay as they were); on disk within 100 ms."""
        if not positions:
            return
        with self._lock:
            self._fresh |= {(hub, stream): each for stream, each in positions.items()}
            due = self._clock.monotonic() - self._saved >= BEHIND_S
        if due:
            self.save()

    def save(self) -> None:
        """Writes what is not written yet. A full disk keeps it here: shipping is what may make room again."""
        with self._lock:
            fresh = dict(self._fresh)
            self._saved = self._clock.monotonic()
        if not fresh:
            return
        engine = self._directory.node

        def job(_: Any) -> None:
            for (hub, stream), each in fresh.items():
                row = (hub, stream, each.inc, *_flat(each.acked), *_flat(each.settled))
                engine.writer_execute("INSERT OR REPLACE INTO position VALUES(?,?,?,?,?,?,?)", row)

        try:
            engine.commits.run(job)
        except HoldfastError as error:
            logger.warning("could not write down what the hubs acknowledged", exc_info=error)
            return
        with self._lock:
            for at, each in fresh.items():
                if self._fresh.get(at) is each:
                    del self._fresh[at]


def _flat(mark: Mark) -> tuple[int, bytes]:
    return mark.seq, mark.link

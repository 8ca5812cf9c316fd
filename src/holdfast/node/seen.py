"""Which records a reader has had, in about 15 bytes each: what a feed sends again is known, whichever hub sends it."""

from __future__ import annotations

from array import array
from typing import Final

RUN: Final = 64
RUNS_MAX: Final = 1 << 15
"""Two million records where they lie close together, some 20 MB; beyond, the oldest are forgotten."""
MORE_MAX: Final = 1 << 16


class Seen:
    """The records that were given, by stream, number and link. Not to be shared among threads."""

    def __init__(self) -> None:
        self._runs: dict[tuple[str, int], array[int]] = {}
        self._more: set[tuple[str, int, int]] = set()  # of several records with one number (branches) all but the first

    def add(self, stream: str, seq: int, etag: str) -> bool:
        """Notes a record; False if it was noted before."""
        mark = int(etag[:16], 16) or 1
        at = (stream, seq // RUN)
        run = self._runs.get(at)
        if run is None:
            if len(self._runs) >= RUNS_MAX:
                del self._runs[next(iter(self._runs))]
            run = self._runs[at] = array("Q", bytes(8 * RUN))
        known = run[seq % RUN]
        if known == mark:
            return False
        if not known:
            run[seq % RUN] = mark
            return True
        other = (stream, seq, mark)
        if other in self._more:
            return False
        if len(self._more) >= MORE_MAX:
            self._more.clear()
        self._more.add(other)
        return True

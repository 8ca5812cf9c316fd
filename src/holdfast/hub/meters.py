"""What a hub counts while it works: plain numbers, made into metrics only when somebody asks for them.

On the hottest routes a request costs half a microsecond of this; `metrics` does the rest at scrape time.
"""

from __future__ import annotations

import logging
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from math import exp
from typing import Final

from holdfast.wire import Append, AppendAnswer

ACCESS: Final = logging.getLogger("holdfast.hub.access")
"""One line a request, at the level debug: the route, never the path, as keys are in paths."""

BOUNDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
"""Upper ends of the latency buckets, in seconds: from a read in memory to a disk in trouble."""
OUTCOMES: Final = ("ok", "refused", "failed", "gone")
"""Answered; refused (4xx); failed or sent away (5xx); the client left first."""
OK, REFUSED, FAILED, GONE = range(4)
NODES_MAX: Final = 200
NAME_MAX: Final = 255
OTHER: Final = "other"
HUB: Final = "hub"
RATE_S: Final = 60.0
PACE_S: Final = 15.0
"""Over about so long is averaged how fast one node ships."""


class Meter:
    """How often one operation was asked for, with what outcome, and how long it took. The loop's own.

    Args:
        method, path: of the operation; the path as it was declared.
        lasting: whether a request lasts as long as somebody listens, so that its duration says nothing.
    """

    __slots__ = ("buckets", "counts", "lasting", "name", "seconds")

    def __init__(self, method: str, path: str, *, lasting: bool = False) -> None:
        self.name = f"{method} {path}"
        self.lasting = lasting
        self.counts = [0, 0, 0, 0]
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    def note(self, outcome: int, began: float) -> None:
        """Counts one request that has ended now.

        Args:
            outcome: OK, REFUSED, FAILED or GONE.
            began: `time.perf_counter` when it came.
        """
        took = time.perf_counter() - began
        self.counts[outcome] += 1
        self.buckets[bisect_left(BOUNDS, took)] += 1
        self.seconds += took
        if ACCESS.isEnabledFor(logging.DEBUG):
            more = {"route": self.name, "outcome": OUTCOMES[outcome], "duration_ms": round(took * 1000, 3)}
            ACCESS.debug("request", extra=more)


class Intake:
    """What came in, by who sent it: the nodes by name, and the hub itself for its plain clients. The loop's own."""

    def __init__(self) -> None:
        self.records: dict[str, int] = {HUB: 0}
        self.bytes: dict[str, int] = {HUB: 0}
        self._total = 0
        self._paces: dict[str, tuple[float, float]] = {}
        self._samples: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def took(self, message: Append, answer: AppendAnswer) -> None:
        """Counts what of a node's request was taken."""
        for segment, verdict in zip(message.segments, answer.verdicts, strict=False):
            if verdict.state == "ack":
                self.note(message.node, len(segment.items), sum([len(i.body or b"") for i in segment.items]))

    def note(self, who: str, records: int, size: int) -> None:
        """Counts records that came, and the bytes of their bodies."""
        if who not in self.records and (len(self.records) >= NODES_MAX or len(who) > NAME_MAX):
            who = OTHER
        self.records[who] = self.records.get(who, 0) + records
        self.bytes[who] = self.bytes.get(who, 0) + size
        self._total += size
        now = time.monotonic()
        then, pace = self._paces.get(who, (now, 0.0))
        self._paces[who] = now, pace * exp((then - now) / PACE_S) + records / PACE_S

    def pace(self, who: str, now: float) -> float:
        """Records a second that somebody shipped of late.

        Args:
            who: the node.
            now: `time.monotonic`.
        """
        then, pace = self._paces.get(who, (now, 0.0))
        return pace * exp((then - now) / PACE_S)

    def rate(self, now: float) -> float:
        """Bytes a second over the last minute or so: since the newest look that is a minute old, else since the start.

        Args:
            now: `time.monotonic`.
        """
        samples = self._samples
        while len(samples) > 1 and now - samples[1][0] >= RATE_S:
            samples.popleft()
        then, total = samples[0]
        if now - samples[-1][0] >= 1.0:
            samples.append((now, self._total))
        return (self._total - total) / (now - then) if now > then else 0.0


class Meters:
    """Everything that one hub counts."""

    def __init__(self) -> None:
        self.intake = Intake()
        self._operations: list[Meter] = []

    def of(self, method: str, path: str, *, lasting: bool = False) -> Meter:
        """A new meter for an operation."""
        made = Meter(method, path, lasting=lasting)
        self._operations.append(made)
        return made

    def operations(self) -> Iterator[Meter]:
        """The meters of all operations that anybody has asked for."""
        return (each for each in self._operations if any(each.counts))

"""What tests of layers share: time that passes only in the books."""

from __future__ import annotations

import random
import time

from holdfast.objects.layers.retrying import Pace


class Instant(Pace):
    """A pace that sleeps no time and remembers for how long."""

    def __init__(self) -> None:
        self.rng = random.Random(7)  # type: ignore[assignment]
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return sum(self.slept)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


class Calendar:
    """The real wall clock, and seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.passed = 0.0

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return self.passed

"""A clock that tests set: time passes only when they say so."""

from __future__ import annotations

import threading

START_MS = 1_767_700_800_000
"""2026-01-06T12:00:00Z, where a clock stands that was not told otherwise."""


class SettableClock:
    """A `holdfast.clock.Clock` that stands still until it is moved. Safe to share among threads.

    Args:
        now_ms: milliseconds since 1970 to begin with.
    """

    def __init__(self, now_ms: int = START_MS) -> None:
        self._lock = threading.Lock()
        self._now_ms = float(now_ms)
        self._monotonic = 0.0

    def now_ms(self) -> int:
        """Milliseconds since 1970, as set."""
        return int(self._now_ms)

    def monotonic(self) -> float:
        """Seconds by which the clock was advanced; setting the wall clock does not change them."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Lets time pass, on both clocks.

        Raises:
            ValueError: monotonic time does not run backwards; `set` moves the wall clock alone.
        """
        if seconds < 0:
            raise ValueError("monotonic time does not run backwards")
        with self._lock:
            self._now_ms += seconds * 1000
            self._monotonic += seconds

    def set(self, now_ms: int) -> None:
        """Sets the wall clock, backwards too, as an administrator or a time server may."""
        with self._lock:
            self._now_ms = float(now_ms)

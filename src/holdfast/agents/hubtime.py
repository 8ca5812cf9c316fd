"""The hub's time, where several machines must agree which lease is over."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from holdfast.clock import Clock, parse_time

if TYPE_CHECKING:
    from holdfast.node.hub import Hub

LOOK_S: Final = 60.0


class HubTime:
    """The time as the hub's clock shows it, whatever this machine's clock does; the hub is asked once a minute.

    Args:
        clock: this machine's; only its monotonic side counts.
        hub: the hub.
    """

    def __init__(self, clock: Clock, hub: Callable[[], Hub]) -> None:
        self._clock = clock
        self._hub = hub
        self._lock = threading.Lock()  # guards what follows
        self._told_ms = 0.0
        self._told_at = float("-inf")

    def now_ms(self) -> int:
        """Milliseconds since 1970, as far off as an answer of the hub takes.

        Raises:
            HubUnavailable: the hub does not answer.
        """
        with self._lock:
            asked = self._clock.monotonic()
            if asked - self._told_at > LOOK_S:
                told = parse_time(self._hub().health()["timestamp"])
                now = self._clock.monotonic()
                # It never runs backwards: a lease that was over stays over.
                self._told_ms, self._told_at = max(told + (now - asked) * 500, self._at(now)), now
            return round(self._at(self._clock.monotonic()))

    def _at(self, monotonic: float) -> float:
        return self._told_ms + (monotonic - self._told_at) * 1000 if self._told_ms else 0.0

"""How long to wait after each kind of failure: for ever patient, never in step with other nodes. Pure.

Full jitter between 0 and a ceiling that doubles from 0.2 to 30 s; `Retry-After` is a lower bound, and 0–20 % more.
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Final

from holdfast.protocol.ports import Rng

BASE: Final = 0.2
CAP: Final = 30.0
FULL_CAP: Final = 60.0
SLOW: Final = 60.0
"""Between tries of what will not get better by itself: no right to write, another protocol."""
RETRY_AFTER_MAX: Final = 300.0


class Reaction(Enum):
    """What a failure asks for."""

    RETRY = "retry"
    FULL = "full"
    DENIED = "denied"
    SMALLER = "smaller"
    MISMATCH = "mismatch"


def reaction(status: int | None, hub_header: bool) -> Reaction:
    """What to do about an answer with this status, or about no answer (None).

    Args:
        status: of the HTTP answer; None for network errors, timeouts and answers that were not ours.
        hub_header: whether the answer named a hub; without it a proxy or a captive portal may have spoken.
    """
    if status == 507:
        return Reaction.FULL
    if status in (401, 403):
        return Reaction.DENIED if hub_header else Reaction.RETRY
    if status in (400, 413, 422):
        return Reaction.SMALLER if hub_header else Reaction.RETRY
    if status in (404, 405, 421, 426, 501):
        # 404 without our header is still most likely a wrong address: slow, but for ever.
        return Reaction.MISMATCH if hub_header or status in (426, 501) else Reaction.RETRY
    return Reaction.RETRY


def mismatch(status: int | None) -> str:
    """What a person should know about an answer that no waiting will change."""
    return "it is not known by this name" if status == 421 else "not a protocol that this node speaks"


def retry_after(value: str | None, now_ms: int) -> float | None:
    """The seconds that a `Retry-After` header asks for, at most 300; None for none, the past, or nonsense."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now_ms / 1000
        except (ValueError, TypeError, OverflowError):
            return None
    if not seconds > 0:
        return None
    return min(seconds, RETRY_AFTER_MAX)


class Backoff:
    """Counts failures in a row and says how long to wait after each.

    Args:
        rng: where the jitter comes from.
        first: the ceiling after the first failure, in seconds.
    """

    def __init__(self, rng: Rng, first: float = BASE) -> None:
        self.failures = 0
        self._rng = rng
        self._first = first

    def reset(self) -> None:
        """Something worked."""
        self.failures = 0

    def delay(self, after: float | None = None, cap: float = CAP) -> float:
        """Count one more failure; the seconds to wait."""
        ceiling = min(cap, self._first * 2.0 ** min(self.failures, 20))
        self.failures += 1
        wait = self._rng.random() * ceiling
        return max(wait, after * (1 + 0.2 * self._rng.random())) if after else wait

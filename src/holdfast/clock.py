"""Time that never runs backwards within a stream: a hybrid logical clock, and the wall clock it leans on.

A stamp is 60 bits: 44 bits of milliseconds since 1970 and a 16-bit counter, so it fits SQLite's INTEGER
and sorts as a number. It is for people and for choosing among concurrent versions; it is never used to
recognise a repeat or to order a stream (`seq` does that).

Source: Kulkarni et al., "Logical Physical Clocks" (2014), with a bound on how far others may push us.
"""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

from holdfast.errors import UsageError

COUNTER_BITS = 16
COUNTER_MAX = (1 << COUNTER_BITS) - 1
MILLIS_MAX = (1 << 44) - 1
_LATEST = MILLIS_MAX << COUNTER_BITS
AHEAD_MS_MAX = 60_000
"""How far past our wall clock another's stamp may push ours: a wrong clock elsewhere must not become ours."""
LASTS_S_MAX = 10_000_000_000
"""The longest that anything may be said to last, three hundred years: when it ends must be a date."""


class Clock(Protocol):
    """Where the time comes from; tests and the simulator hand in their own."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 by the wall clock; may jump either way."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow, from any start."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 by the wall clock."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return time.monotonic()


SYSTEM = SystemClock()


def pack(ms: int, counter: int = 0) -> int:
    """The stamp for this millisecond and counter."""
    return max(0, min(ms, MILLIS_MAX)) << COUNTER_BITS | counter


def millis(stamp: int) -> int:
    """The milliseconds since 1970 in a stamp."""
    return stamp >> COUNTER_BITS


def tick(last: int, now_ms: int) -> int:
    """The next stamp of our own: greater than `last`, and the wall clock's time if that is later."""
    stamp = now_ms << COUNTER_BITS
    if stamp <= last:
        return last + 1
    return stamp if stamp <= _LATEST else max(last + 1, pack(now_ms))


def observe(last: int, other: int, now_ms: int) -> int:
    """What `last` becomes after seeing another's stamp: never more than 60 s past our wall clock for it."""
    return max(last, min(other, pack(now_ms + AHEAD_MS_MAX, COUNTER_MAX)))


def to_iso(stamp: int) -> str:
    """The stamp's time as RFC 3339 text in UTC, with milliseconds."""
    return iso(millis(stamp))


def iso(ms: int) -> str:
    """Milliseconds since 1970 as RFC 3339 text in UTC."""
    seconds, rest = divmod(ms, 1000)
    return f"{_second(seconds)}.{rest:03d}Z"


@lru_cache(maxsize=256)
def _second(seconds: int) -> str:
    # What is shown together was mostly written within the same few seconds; making the text costs 2.5 µs.
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def parse_time(value: float | str | datetime) -> int:
    """Milliseconds since 1970 from what people write.

    Args:
        value: seconds since 1970 as a number or its text, an ISO 8601 text, or a datetime; without a zone, UTC.

    Raises:
        UsageError: it is none of these.
    """
    if isinstance(value, str):
        value = _read(value)
    if isinstance(value, datetime):
        value = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if not 0 <= value < MILLIS_MAX / 1000:
        raise UsageError(f"time out of range: {value!r}", hint="seconds since 1970, not milliseconds")
    return round(value * 1000)


def _read(text: str) -> float | datetime:
    if text[4:5] == "-":  # as our own texts look: no detour over a number
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(text)
    with contextlib.suppress(ValueError):
        return float(text)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        hint = "seconds since 1970, or ISO 8601 such as 2026-01-06T12:00:00Z"
        raise UsageError(f"not a time: {text!r}", hint=hint) from None

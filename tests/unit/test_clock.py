"""Stamps only grow, follow others by at most a minute, and are read and written as people write time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import clock
from holdfast.clock import AHEAD_MS_MAX, COUNTER_MAX, MILLIS_MAX
from holdfast.errors import UsageError
from holdfast.testing.clock import SettableClock

stamps = st.integers(0, (1 << 60) - 2)
walls = st.integers(0, MILLIS_MAX - AHEAD_MS_MAX - 1)


@given(stamps, walls)
def test_a_tick_is_greater_than_the_last_and_not_behind_the_wall(last: int, now: int) -> None:
    made = clock.tick(last, now)
    assert made > last
    assert clock.millis(made) >= now
    assert made == last + 1 or made == clock.pack(now)


@given(stamps, stamps, walls)
def test_observing_never_goes_back_and_never_past_a_minute_ahead(last: int, other: int, now: int) -> None:
    seen = clock.observe(last, other, now)
    assert seen >= last
    assert seen in (last, other) or clock.millis(seen) == now + AHEAD_MS_MAX
    if clock.millis(last) <= now:
        assert clock.millis(seen) <= now + AHEAD_MS_MAX


@given(stamps, stamps, walls)
def test_observing_twice_is_observing_once(last: int, other: int, now: int) -> None:
    once = clock.observe(last, other, now)
    assert clock.observe(once, other, now) == once


@given(stamps, walls)
def test_what_follows_an_observed_stamp_is_later_than_it(last: int, now: int) -> None:
    other = clock.pack(now + 1000, 7)
    assert clock.tick(clock.observe(last, other, now), now) > other


@given(st.lists(walls, min_size=1, max_size=50))
def test_a_wall_clock_that_jumps_either_way_never_turns_the_stamps(jumps: list[int]) -> None:
    last, made = 0, []
    for now in jumps:
        last = clock.tick(last, now)
        made.append(last)
    assert made == sorted(set(made))


@given(walls, st.integers(0, COUNTER_MAX))
def test_a_stamp_is_its_milliseconds_and_its_counter_in_60_bits(ms: int, counter: int) -> None:
    stamp = clock.pack(ms, counter)
    assert clock.millis(stamp) == ms
    assert stamp & COUNTER_MAX == counter
    assert 0 <= stamp < 1 << 60


def test_a_full_counter_runs_over_into_the_next_millisecond() -> None:
    assert clock.tick(clock.pack(5, COUNTER_MAX), 5) == clock.pack(6)


def test_times_outside_the_range_are_held_at_its_ends() -> None:
    assert clock.pack(-5) == 0
    assert clock.millis(clock.pack(MILLIS_MAX + 5)) == MILLIS_MAX


@given(st.integers(0, MILLIS_MAX - 1))
def test_a_time_survives_being_written_and_read(ms: int) -> None:
    assert clock.parse_time(clock.iso(ms)) == ms
    assert clock.to_iso(clock.pack(ms)) == clock.iso(ms)


@pytest.mark.parametrize(
    "text",
    [
        1767700800,
        1767700800.0,
        "1767700800",
        "2026-01-06T12:00:00Z",
        "2026-01-06T12:00:00",
        "2026-01-06 12:00",
        "2026-01-06T13:00:00+01:00",
        datetime(2026, 1, 6, 12, tzinfo=UTC),
        datetime(2026, 1, 6, 12),
        datetime(2026, 1, 6, 14, tzinfo=timezone(timedelta(hours=2))),
    ],
)
def test_one_moment_is_read_from_every_form(text: float | str | datetime) -> None:
    assert clock.parse_time(text) == 1767700800_000


def test_a_number_that_looks_like_a_date_at_first_is_still_a_number() -> None:
    assert clock.parse_time("1.5e-3") == 2


@pytest.mark.parametrize("text", ["", "yesterday", "nan", "inf", "-1", -0.001, float("nan"), 1767700800_000, "1e300"])
def test_what_is_no_time_is_refused(text: float | str) -> None:
    with pytest.raises(UsageError, match="time"):
        clock.parse_time(text)


def test_the_systems_clock_is_a_clock() -> None:
    before = clock.SYSTEM.monotonic()
    assert clock.SYSTEM.now_ms() > 1_700_000_000_000
    assert clock.SYSTEM.monotonic() >= before


def test_a_settable_clock_stands_until_it_is_moved() -> None:
    wall = SettableClock(1000)
    assert (wall.now_ms(), wall.monotonic()) == (1000, 0.0)
    wall.advance(1.5)
    assert (wall.now_ms(), wall.monotonic()) == (2500, 1.5)
    wall.set(10)
    assert (wall.now_ms(), wall.monotonic()) == (10, 1.5)
    with pytest.raises(ValueError, match="monotonic"):
        wall.advance(-1)

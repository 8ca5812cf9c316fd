"""What the hubs acknowledged is known at once, on disk soon, and never in the way of shipping."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from holdfast.clock import SYSTEM
from holdfast.node.positions import BEHIND_S, Positions
from holdfast.node.store import Store
from holdfast.protocol.ports import Position
from holdfast.testing.clock import SettableClock
from holdfast.wire import Mark

STREAM = bytes(16)


def at(seq: int) -> Position:
    """A position at a number."""
    return Position(b"\x01" * 16, Mark(seq, seq.to_bytes(32, "big")), Mark(0, b""))


@pytest.fixture
def clock() -> SettableClock:
    """Stands still until told."""
    return SettableClock()


@pytest.fixture
def kept(open_store: Callable[..., Store], clock: SettableClock) -> Positions:
    """Those of a node directory."""
    return Positions(open_store()._directory, clock)


def on_disk(positions: Positions) -> int | None:
    """What another process would read."""
    found = Positions(positions._directory, SYSTEM).acked("hub", STREAM)
    return found and found.seq


def test_the_first_is_written_and_what_follows_within_the_promise(kept: Positions, clock: SettableClock) -> None:
    kept.keep("hub", {STREAM: at(1)})
    assert on_disk(kept) == 1
    kept.keep("hub", {STREAM: at(2)})
    kept.keep("hub", {STREAM: at(3)})
    assert (kept.acked("hub", STREAM), kept.of("hub")) == (at(3).acked, {STREAM: at(3)})
    assert on_disk(kept) == 1
    clock.advance(BEHIND_S)
    kept.keep("hub", {STREAM: at(4)})
    assert on_disk(kept) == 4


def test_who_has_nothing_else_to_do_writes_at_once(kept: Positions) -> None:
    kept.keep("hub", {STREAM: at(1)})
    kept.keep("hub", {STREAM: at(2)})
    kept.keep("other", {STREAM: at(9)})
    kept.save()
    assert on_disk(kept) == 2
    assert kept.of("other") == {STREAM: at(9)}
    assert not kept._fresh


def test_a_position_may_also_go_back(kept: Positions) -> None:
    kept.keep("hub", {STREAM: at(5)})
    kept.keep("hub", {STREAM: at(2)})
    kept.save()
    assert on_disk(kept) == 2


def test_a_full_disk_keeps_it_in_memory_until_there_is_room(kept: Positions) -> None:
    many = {number.to_bytes(16, "big"): at(number) for number in range(1, 500)}
    writer = kept._directory.node._writer
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count={pages}").fetchall()
    kept.keep("hub", many)
    assert (on_disk(kept), kept.of("hub")) == (None, many)
    writer.execute(f"PRAGMA max_page_count={1 << 30}").fetchall()
    kept.save()
    assert not kept._fresh
    assert kept.of("hub") == many

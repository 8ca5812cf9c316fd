"""Histories with every fault we know: nothing is lost, doubled or out of order; and each protection is needed."""

from __future__ import annotations

from collections import Counter

import pytest

from holdfast.testing import sim
from tests.promises import Count

QUICK = 140
"""Seeds in the everyday run; `long` runs all."""
LONG = 300
CHUNK = 20
FAULTS = (
    "batch",
    "blob",
    "clock_jump",
    "eviction",
    "fast_forward",
    "fork",
    "http_error",
    "hub_kill",
    "hub_power_loss",
    "hub_restore",
    "hub_restore_twice",
    "merge",
    "message_cut_off",
    "message_late",
    "message_lost",
    "message_twice",
    "node_clone",
    "node_kill",
    "node_power_loss",
    "node_restore",
    "partition",
    "poison",
)


@pytest.mark.parametrize("first", range(0, QUICK, CHUNK))
def test_nothing_acknowledged_is_lost_doubled_or_out_of_order_whatever_goes_wrong(first: int, count: Count) -> None:
    for seed in range(first, first + CHUNK):
        report = sim.simulate(seed)
        assert report.problems == [], f"seed {seed}"
        assert report.records >= 200
        struck = report.faults.total()
        count("a simulated history of nodes and hubs", tried=1, faults=struck, records_all_there_once=report.records)


@pytest.mark.parametrize("protection", sim.PROTECTIONS)
def test_without_one_protection_something_is_lost(protection: str) -> None:
    failing = (seed for seed in range(50) if not sim.simulate(seed, without=frozenset({protection})).ok)
    assert next(failing, None) is not None


def test_a_seed_is_a_history() -> None:
    assert sim.simulate(7) == sim.simulate(7)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_three_hundred_histories_meet_every_fault_and_keep_every_promise(capsys: pytest.CaptureFixture[str]) -> None:
    faults: Counter[str] = Counter()
    for seed in range(LONG):
        report = sim.simulate(seed)
        assert report.problems == [], f"seed {seed}"
        faults += report.faults
    with capsys.disabled():
        print(f"\n{sim.table(faults)}")
    assert {name: faults[name] for name in FAULTS if faults[name] < 50} == {}

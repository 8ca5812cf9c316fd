"""Random writes, outages and crashes over two stores: nothing acknowledged is lost, nothing deleted comes back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from holdfast.errors import ObjectNotFound, StorageUnavailable
from holdfast.objects import MemoryStore
from holdfast.objects.layers import Fallback, Mirrored
from holdfast.objects.layers.notes import NOTES
from holdfast.objects.layers.waiting import CONFLICTS, PENDING
from holdfast.testing.faults import AFTER, BEFORE, OK, FaultyStore
from tests.unit.objects_tools import Calendar

KEYS = st.sampled_from(["a", "a/b", "b"])
BODIES = st.binary(max_size=3)
OUTCOMES = st.lists(st.sampled_from([OK, OK, BEFORE, AFTER]), max_size=6)
GONE = None


class Pair(RuleBasedStateMachine):
    """One client of two stores that fail; the model holds what each key may be: one value once a write returned."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = FaultyStore(MemoryStore()), FaultyStore(MemoryStore())
        self.clock = Calendar()
        self.may: dict[str, set[bytes | None]] = {}
        self.store: Any = self.opened()

    def opened(self) -> Any:
        raise NotImplementedError

    @rule(which=st.booleans(), down=st.booleans())
    def goes_or_comes(self, which: bool, down: bool) -> None:
        (self.first if which else self.second).down = down

    @rule(which=st.booleans(), outcomes=OUTCOMES)
    def will_fail(self, which: bool, outcomes: list[str]) -> None:
        planned = iter(outcomes)
        (self.first if which else self.second).plan = lambda operation, key: next(planned, OK)

    @rule(seconds=st.sampled_from([1, 10]))
    def time_passes(self, seconds: int) -> None:
        self.clock.passed += seconds

    @rule()
    def crash(self) -> None:
        self.store = self.opened()

    @rule(key=KEYS, body=BODIES)
    def put(self, key: str, body: bytes) -> None:
        try:
            self.store.put(key, body)
        except StorageUnavailable:
            self.may[key] = self.may.get(key, {GONE}) | {body}
        else:
            self.may[key] = {body}

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        try:
            self.store.delete(key)
        except StorageUnavailable:
            self.may[key] = self.may.get(key, {GONE}) | {GONE}
        else:
            self.may[key] = {GONE}

    @rule(key=KEYS)
    def read(self, key: str) -> None:
        try:
            found = self.store.read(key)
        except ObjectNotFound:
            found = GONE
        except StorageUnavailable:
            return
        assert found in self.may.get(key, {GONE})

    @rule()
    def catch_up(self) -> None:
        try:
            self.store.catch_up()
        except StorageUnavailable:
            return

    def heal(self) -> None:
        for store in (self.first, self.second):
            store.down = False
            store.plan = lambda operation, key: OK
        self.clock.passed += 100
        assert self.store.catch_up().left == 0

    def held(self, store: FaultyStore) -> dict[str, bytes]:
        own = (NOTES, PENDING, CONFLICTS)
        return {each.key: store.inner.read(each.key) for each in store.inner.list() if not each.key.startswith(own)}

    def agrees(self, held: dict[str, bytes]) -> None:
        for key, may in self.may.items():
            assert held.get(key) in may, key
        assert set(held) <= set(self.may)

    def teardown(self) -> None:
        self.heal()
        self.agrees(self.held(self.first))
        listed = {info.key: self.store.read(info.key) for info in self.store.list()}
        assert listed == self.held(self.first)
        assert not self.store.pending()


class FallbackMachine(Pair):
    """The primary fails, the fallback too: what was acknowledged is in the primary in the end, and nothing else is."""

    def opened(self) -> Fallback:
        return Fallback(self.first, self.second, clock=self.clock, pause_s=5.0)

    @invariant()
    def the_fallback_holds_nothing_but_the_journal(self) -> None:
        assert self.held(self.second) == {}

    def teardown(self) -> None:
        super().teardown()
        assert [each.key for each in self.second.inner.list(PENDING)] == []


class MirroredMachine(Pair):
    """Either store fails: what was acknowledged is in both in the end."""

    def opened(self) -> Mirrored:
        self.journal = getattr(self, "journal", None) or MemoryStore()
        return Mirrored(self.first, self.second, journal=self.journal, clock=self.clock, pause_s=5.0)

    def teardown(self) -> None:
        super().teardown()
        assert self.held(self.first) == self.held(self.second)


@pytest.mark.parametrize("many", [60, pytest.param(1500, marks=pytest.mark.long)])
@pytest.mark.parametrize("machine", [FallbackMachine, MirroredMachine])
def test_what_was_acknowledged_is_there_in_the_end(machine: type[RuleBasedStateMachine], many: int) -> None:
    limits = settings(max_examples=many, stateful_step_count=30, deadline=None, suppress_health_check=[*HealthCheck])
    run_state_machine_as_test(machine, settings=limits)

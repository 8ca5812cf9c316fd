"""A store against a dict, through reopening, batches and deletions of prefixes: both say the same, always."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from holdfast.errors import Conflict, NotFound
from holdfast.node.directory import Limits
from holdfast.node.store import Store
from holdfast.records import INLINE_BYTES_MAX

KEYS = st.sampled_from(["", "a", "a/1", "a/2", "ab", "b", "ü"])
PREFIXES = st.sampled_from(["", "a", "a/", "b", "z"])
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.text(max_size=200),
    st.binary(max_size=200),
    st.integers(1, 3).map(lambda n: b"large" * n * (INLINE_BYTES_MAX // 4)),
    st.lists(st.integers(0, 9), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=3),
)


class StoreMachine(RuleBasedStateMachine):
    """The model: each key's versions, oldest first, None for a deletion."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp())
        self.past: dict[str, list[tuple[Any] | None]] = {}
        self.count = 0

    @initialize()
    def begin(self) -> None:
        """Opens the store."""
        self.store = Store(self.home, "ada", hub=[], limits=Limits(0, 0))

    def teardown(self) -> None:
        """Closes and forgets it."""
        self.store.close()
        shutil.rmtree(self.home)

    def note(self, key: str, value: tuple[Any] | None) -> None:
        """Adds a version to the model."""
        self.past.setdefault(key, []).append(value)

    def newest(self, key: str) -> tuple[Any] | None:
        """What the model says of a key."""
        return (self.past.get(key) or [None])[-1]

    @rule(key=KEYS, value=VALUES)
    def put(self, key: str, value: Any) -> None:
        """A put counts versions and numbers up."""
        made = self.store.put(key, value)
        self.note(key, (value,))
        self.count += 1
        assert made.seq == self.count

    @rule(key=KEYS, value=VALUES, ahead=st.integers(-1, 1))
    def put_if(self, key: str, value: Any, ahead: int) -> None:
        """Only the current version may be expected."""
        current = self.newest(key)
        version = self.store.history(key, limit=1)[0].version if current is not None else 0
        if ahead == 0:
            self.store.put(key, value, expect=version)
            self.note(key, (value,))
            self.count += 1
        else:
            with pytest.raises(Conflict):
                self.store.put(key, value, expect=version + ahead)

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        """A key with a value can be deleted; one without cannot."""
        if self.newest(key) is None:
            with pytest.raises(NotFound):
                self.store.delete(key)
            return
        self.store.delete(key)
        self.note(key, None)
        self.count += 1

    @rule(prefix=PREFIXES)
    def delete_prefix(self, prefix: str) -> None:
        """Everything under a prefix goes at once."""
        self.store.delete(prefix, prefix=True)
        self.count += 1
        for key in self.past:
            if key.startswith(prefix):
                self.note(key, None)

    @rule(writes=st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=5), fails=st.booleans())
    def batch(self, writes: list[tuple[str, Any]], fails: bool) -> None:
        """All or none."""
        try:
            with self.store.batch() as batch:
                for key, value in writes:
                    batch.put(key, value)
                if fails:
                    batch.put(writes[0][0], 0, expect="no such etag")
        except Conflict:
            assert fails
            return
        assert not fails
        for key, value in writes:
            self.note(key, (value,))
        self.count += len(writes)

    @rule(key=KEYS, data=st.data())
    def rollback(self, key: str, data: st.DataObject) -> None:
        """An earlier value can be made the newest again."""
        versions = [each for each in self.store.history(key) if not each.gone]
        if versions:
            version = data.draw(st.sampled_from(versions))
            self.store.rollback(key, version.version)
            self.note(key, (version.value,))
            self.count += 1

    @rule()
    def reopen(self) -> None:
        """Nothing depends on what was in memory."""
        self.store.close()
        self.store = Store(self.home, "ada", hub=[], limits=Limits(0, 0))

    @rule()
    def rotate(self) -> None:
        """A new key changes nothing that is stored."""
        self.store.rotate()
        self.count += 1

    @invariant()
    def both_say_the_same(self) -> None:
        """Values, keys and histories."""
        if not hasattr(self, "store"):
            return
        live = sorted(key for key in self.past if self.newest(key) is not None)
        assert self.store.keys() == live
        for key in self.past:
            newest = self.newest(key)
            assert self.store.get(key, default=None) == (newest[0] if newest else None)
            put = [each.value for each in self.store.history(key) if not each.gone]
            assert put == [each[0] for each in reversed(self.past[key]) if each is not None]

    @invariant()
    def the_log_is_whole(self) -> None:
        """Numbers without a gap."""
        if hasattr(self, "store"):
            assert self.store.health()["head"]["seq"] == self.count


@pytest.mark.parametrize("many", [12, pytest.param(250, marks=pytest.mark.long)])
def test_a_store_holds_what_a_dict_would(many: int) -> None:
    limits = settings(max_examples=many, stateful_step_count=25, deadline=None, suppress_health_check=[*HealthCheck])
    run_state_machine_as_test(StoreMachine, settings=limits)

"""What prune lets go of, what it refuses, and that a backup which is being made meanwhile loses nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast import Store
from holdfast.errors import Conflict, UsageError
from holdfast.integrity.backup import Moment, Policy, Repository, create, drill, making, prune, verify
from holdfast.integrity.backup.retention import DAY_MS, GRACE_MS, HOUR_MS
from holdfast.node.backup import node_source
from holdfast.node.directory import attach, detach
from holdfast.objects.memory import MemoryStore
from holdfast.testing.clock import SettableClock
from tests.flow.test_backup import LIMITS, bring, signer_of, state


def test_prune_refuses_where_it_would_be_unsafe_and_deletes_in_two_steps(tmp_path: Path) -> None:
    home, repository, clock = tmp_path / "node", Repository(MemoryStore()), SettableClock(1_700_000_000_000)
    with Store(home, "ada", limits=LIMITS) as store:
        directory = attach(home, limits=LIMITS, make=False)
        for number in range(6):
            store.put("k", number)
            with node_source(directory) as source:
                create(repository, source, wall=clock)
            clock.advance((6 * HOUR_MS) / 1000)
        detach(directory)
    names, signer, policy = repository.names(), signer_of(home), Policy(last=1)
    with pytest.raises(UsageError, match="keeps nothing"):
        prune(repository, Policy(), wall=clock)
    with pytest.raises(Conflict, match="ever verified"):
        prune(repository, policy, wall=clock)
    assert drill(repository, signer, names[2:3], wall=clock).ok
    looked = prune(repository, policy, wall=clock, dry_run=True)
    assert (looked.kept, looked.removed) == (names[2:], names[:2])  # never below the newest verified
    assert repository.names() == names
    clock.advance((2 * DAY_MS) / 1000)
    with pytest.raises(Conflict, match="older than two intervals"):
        prune(repository, policy, wall=clock)
    assert drill(repository, signer, names[5:], wall=clock).ok
    with pytest.raises(Conflict, match="older than two intervals"):  # it was made that long ago
        prune(repository, policy, wall=clock)
    done = prune(repository, policy, wall=clock, interval_ms=3 * DAY_MS)
    assert done.kept == names[5:]
    assert (done.marked > 0, done.deleted) == (True, 0)
    # A backup that builds on what is marked takes the mark away.
    again = prune(repository, policy, wall=clock, interval_ms=3 * DAY_MS)
    assert (again.marked, again.waiting) == (0, done.marked)
    clock.advance((GRACE_MS) / 1000)
    gone = prune(repository, policy, wall=clock, interval_ms=9 * DAY_MS)
    assert gone.deleted == done.marked
    assert verify(repository).sound
    assert {each.backup for said in repository.drills() for each in said.backups} == {names[5]}
    bring(repository, tmp_path / "back")
    key = next(iter(repository.store.list("segments/"))).key
    body = repository.store.read(key)
    repository.store.delete(key)
    assert not drill(repository, signer, wall=clock).ok
    with pytest.raises(Conflict, match="last drill failed"):
        prune(repository, policy, wall=clock, interval_ms=9 * DAY_MS)
    repository.store.put(key, body)
    assert drill(repository, signer, wall=clock).ok
    with Store(home, "ada", limits=LIMITS) as store:
        for number in range(20):
            store.put("k", number)
            directory = attach(home, limits=LIMITS, make=False)
            clock.advance((HOUR_MS * (12 if number < 3 else 0)) / 1000)
            with node_source(directory) as source:
                create(repository, source, wall=clock)
            detach(directory)
    assert drill(repository, signer, repository.names()[-1:], wall=clock).ok
    clock.advance((13 * HOUR_MS) / 1000)
    with pytest.raises(Conflict, match="are usual"):
        prune(repository, policy, wall=clock)
    assert len(prune(repository, policy, wall=clock, many=True).kept) == 1


def test_a_backup_that_is_being_made_loses_nothing_to_a_prune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, repository, clock = tmp_path / "node", Repository(MemoryStore()), SettableClock()
    pruned: list[Any] = []

    def meanwhile(*_: object) -> None:
        """Somebody makes a newer backup, which builds on nothing of the first, and lets go of that."""
        if not pruned:
            pruned.append(None)
            with monkeypatch.context() as patch:
                patch.setattr(making, "SMALL_MAX", 2)  # its two segments become one
                create(repository, source, wall=clock)
            assert drill(repository, signer_of(home), repository.names()[-1:], wall=clock).ok
            pruned[0] = prune(repository, Policy(last=1), wall=clock)

    with Store(home, "ada", limits=LIMITS) as store:
        directory = attach(home, limits=LIMITS, make=False)
        with node_source(directory) as source:
            store.put("k", 1)
            create(repository, source, wall=clock)
            clock.advance(60)
            store.put("k", 2)
            late = create(repository, source, wall=clock, told=meanwhile).backup
        detach(directory)
    assert len(pruned[0].removed) == 1
    assert pruned[0].marked > 1  # what it builds on is condemned
    clock.advance(GRACE_MS / 1000)
    after = prune(repository, Policy(last=9), wall=clock, interval_ms=9 * DAY_MS, many=True)
    assert (after.spared > 0, late in after.kept) == (True, True)
    assert verify(repository).sound
    bring(repository, tmp_path / "back", Moment(backup=late))
    assert state(tmp_path / "back") == {"k": 2}

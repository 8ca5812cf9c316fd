"""The audit finds what it is there to find: each kind of damage, done by hand, and nothing where there is none."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from holdfast.corpus import SqliteCorpus
from holdfast.node.directory import Limits
from holdfast.node.store import Store
from tests.chaos import audit
from tests.chaos.actors import Hands, Journal, entries


def written(home: Path) -> tuple[audit.Journals, Path]:
    """A node on which some of everything was written, and what its writer says of it."""
    with Store(home / "node", "ada", hub=[], limits=Limits(0, 0)) as store:
        hands = Hands(store, Journal(home / "w.journal"), "w", random.Random(1))
        for kind in (hands.put, hands.large, hands.post, hands.batch, hands.put, hands.delete):
            kind()
    return audit.Journals.read([home / "w.journal"]), home / "node"


def test_what_is_whole_passes(tmp_path: Path) -> None:
    journals, path = written(tmp_path)
    place = audit.node(path)
    assert len(journals.returned) >= 6
    assert place.wrong == audit.missing(journals, place) == audit.doubled(place) == []
    assert audit.halves(journals, place) == audit.order(place) == audit.differing([place], place) == []
    assert audit.survivors(journals, place) == 0


def test_what_is_lost_changed_doubled_halved_or_moved_is_found(tmp_path: Path) -> None:
    journals, path = written(tmp_path)
    place = audit.node(path)
    (stream, seq, link), uid, value = last = place.records.pop()
    assert len(audit.missing(journals, place)) == 1
    place.records.append(((stream, seq, link), uid, "another"))
    assert len(audit.missing(journals, place)) == 1
    place.records[-1] = ((stream, seq, link), uid, value)
    assert audit.missing(journals, place) == []
    place.records.append(last)
    assert len(audit.doubled(place)) == 1
    assert any("2 times" in what for what in audit.halves(journals, place))
    assert len(audit.order(place)) == 1
    place.records.pop()
    batch = next(uids for uids in journals.batches if len(uids) > 1)
    place.records = [each for each in place.records if each[1] != batch[-1]]
    assert any("half a batch" in what for what in audit.halves(journals, place))
    journals.batches.remove(batch)
    assert any("nobody wrote" in what for what in audit.halves(journals, place))


def test_values_that_differ_are_found(tmp_path: Path) -> None:
    _, path = written(tmp_path)
    mine, theirs = audit.node(path), audit.node(path)
    at = next(iter(theirs.newest))
    theirs.newest[at] = "another"
    assert len(audit.differing([mine], theirs)) == 1
    del theirs.newest[at]
    assert len(audit.differing([mine], theirs)) == 1


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("UPDATE rec SET hlc=hlc+1 WHERE pos=2", "does not follow"),
        ("DELETE FROM rec WHERE pos=3", "comes behind"),
        ("UPDATE rec SET body=zeroblob(length(body)), codec=0 WHERE pos=1", "cannot be read"),
    ],
)
def test_a_log_that_was_changed_is_found(tmp_path: Path, damage: str, told: str) -> None:
    _, path = written(tmp_path)
    corpus = SqliteCorpus(path / "agents" / "ada" / "log.db")
    corpus.write(lambda tx: tx.execute(damage))
    corpus.close()
    assert any(told in what for what in audit.node(path).wrong)


def test_a_journal_that_was_cut_off_says_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "cut.journal"
    Journal(path).note("try", uids=["a"])
    path.write_bytes(path.read_bytes() + b'{"what": "wro')
    assert [entry["what"] for entry in entries(path)] == ["try"]

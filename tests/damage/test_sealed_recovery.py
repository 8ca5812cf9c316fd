"""What recovery writes again of sealed collections is sealed as it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from holdfast.errors import Erased
from holdfast.integrity.recovery import Policy
from holdfast.node import repair
from holdfast.node.directory import attach, detach
from holdfast.node.erase import erase_subject
from holdfast.node.store import Store
from holdfast.records import SEALED
from tests.damage.recovering import NO_LIMITS, World, corpus_of, everything

ALONE = repair.Tools(hubs=())


@pytest.fixture
def home(world: World, memory_path: Path) -> Path:
    """A copy of the store."""
    return shutil.copytree(world.root / "closed", memory_path / "home")


def test_what_was_sealed_goes_back_sealed_and_is_erased_with_its_subject(home: Path) -> None:
    sealed = {"collection": "patients", "subject": "ada"}
    with Store(home, "a", hub=(), limits=NO_LIMITS, sealed=["patients"]) as store:
        first = store.put("ada", {"n": 1}, **sealed)
        moment = store._log.corpus.head(store._log.branch.id).hlc
        newest = store.put("ada", {"n": 2}, **sealed)
    with corpus_of(home) as corpus:
        corpus.write(lambda tx: tx.execute(f"UPDATE rec SET body=x'00' WHERE pos={newest.seq}"))
    assert repair.repair(home, ALONE, Policy(rollback=True)).done
    with Store(home, "a", hub=(), limits=NO_LIMITS) as store:
        assert store.get("ada", collection="patients") == {"n": 1}
        store.put("ada", {"n": 3}, collection="patients")
    repair.to_moment(home, "a", moment, confirmed=True)
    with Store(home, "a", hub=(), limits=NO_LIMITS) as store:
        assert store.get("ada", collection="patients") == {"n": 1}
        assert store.verify().sound
    with corpus_of(home) as corpus:
        kept = [each.record for each in everything(corpus) if each.record.collection == "patients"]
        assert [each.key_version for each in kept] == [1, 2, 3, 4, 5]
        assert {(each.flags & SEALED, each.kid) for each in kept} == {(SEALED, kept[0].kid)}
        assert kept[0].seq == first.seq
    directory = attach(home, limits=NO_LIMITS, make=False)
    try:
        erase_subject(directory, "ada")
    finally:
        detach(directory)
    with Store(home, "a", hub=(), limits=NO_LIMITS) as store, pytest.raises(Erased):
        store.get("ada", collection="patients")

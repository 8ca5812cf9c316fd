"""What no hub has comes back from a backup, and what was erased comes back from nowhere."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.corpus import Stored
from holdfast.hub.backup import hub_source
from holdfast.integrity.backup import BackupSource, Created, Repository, Source, create, drill
from holdfast.integrity.recovery import Policy
from holdfast.integrity.source import BACKUP
from holdfast.node import repair
from holdfast.node.backup import node_source
from holdfast.node.directory import attach, detach, write_config
from holdfast.node.erase import erase_key, erase_subject
from holdfast.node.proving import prove
from holdfast.node.refetch import StoreSource
from holdfast.node.repair import Tools
from holdfast.node.store import Store
from holdfast.objects import BlobFiles
from holdfast.objects.files.store import FileStore
from holdfast.seal import KeyRing
from holdfast.wire import REDACTED
from tests.damage.recovering import NO_LIMITS, World, corpus_of, flip_in, is_as_before, log_at

NOBODY = "http://127.0.0.1:9"
LARGE = bytes(range(256)) * 300


def backed_up(home: Path, into: Path, ring: KeyRing | None = None) -> Created:
    """A verified backup of a node."""
    directory = attach(home, limits=NO_LIMITS, make=False)
    try:
        with node_source(directory) as source:
            return kept(source, into, ring)
    finally:
        detach(directory)


def kept(source: Source, into: Path, ring: KeyRing | None = None) -> Created:
    with FileStore(into) as store:
        repository = Repository(store, ring)
        made = create(repository, source)
        signer = source.signer(repository.keys[0])
        assert signer is not None
        assert drill(repository, signer).ok
        return made


@pytest.fixture(scope="module")
def backup(world: World, quick: Path) -> Path:
    """The backups of the world's node."""
    home = shutil.copytree(world.root / "closed", quick / "source")
    backed_up(home, quick / "backups")
    return quick / "backups"


def lose_log(home: Path) -> None:
    log_at(home).unlink()
    log_at(home, "-wal").unlink(missing_ok=True)


def lose_blobs(home: Path) -> None:
    shutil.rmtree(home / "blobs")


FAULTS: dict[str, tuple[Callable[[Path], None], Policy]] = {
    "a payload": (flip_in(b"value 61 ", 3), Policy()),
    "the whole log": (lose_log, Policy()),
    "every blob": (lose_blobs, Policy()),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_lost_comes_back_from_a_backup_while_the_hub_is_away(
    fault: str, world: World, backup: Path, memory_path: Path
) -> None:
    home = shutil.copytree(world.root / "closed", memory_path / "home")
    harm, policy = FAULTS[fault]
    harm(home)
    assert not repair.plan(home, Tools(hubs=(NOBODY,)), policy).sound
    outcome = repair.repair(home, Tools(hubs=(NOBODY,), backups=[f"file:{backup}"]), policy)
    assert outcome.done, outcome.plan.refusals
    taken = {(step.source, step.strategy) for step in outcome.plan.steps if step.source != "pages"}
    assert taken == {(f"backup file:{backup}", "backup_restore")}
    assert outcome.attempts[0]["outcome"] == "repaired"
    if fault != "every blob":
        assert any(step["source"] == f"backup file:{backup}" for step in outcome.attempts[0]["steps"])
        assert f"hub {NOBODY}" in outcome.attempts[0]["away"]
    is_as_before(home, world)


def test_the_repositories_that_the_directory_names_are_asked(world: World, backup: Path, memory_path: Path) -> None:
    home = shutil.copytree(world.root / "closed", memory_path / "home")
    flip_in(b"value 61 ", 3)(home)
    write_config(home, {"format": 1, "hubs": [], "backups": ["file:" + str(memory_path / "none"), f"file:{backup}"]})
    outcome = repair.repair(home)
    assert outcome.repaired == ["a"]
    assert f"backup file:{memory_path / 'none'}" in outcome.plan.away
    is_as_before(home, world)


def test_the_backups_of_the_hub_hold_the_nodes_chains_too(world: World, memory_path: Path) -> None:
    with hub_source(str(world.root / "hub")) as source:
        kept(source, memory_path / "backups")
    home = shutil.copytree(world.root / "closed", memory_path / "home")
    lose_log(home)
    lose_blobs(home)
    outcome = repair.repair(home, Tools(hubs=(), backups=[f"file:{memory_path / 'backups'}"]))
    assert outcome.repaired == ["a"], outcome.plan
    is_as_before(home, world)


def test_a_backup_of_somebody_else_and_a_damaged_one_do_not_help(world: World, backup: Path, memory_path: Path) -> None:
    with Store(memory_path / "other", "a", hub=(), limits=NO_LIMITS) as store:
        store.put("k", 1)
    backed_up(memory_path / "other", memory_path / "others")
    spoilt = shutil.copytree(backup, memory_path / "spoilt")
    for path in (spoilt / "segments").rglob("*"):
        if path.is_file():
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(bytes(data))
    home = shutil.copytree(world.root / "closed", memory_path / "home")
    flip_in(b"value 61 ", 3)(home)
    tools = Tools(hubs=(), backups=[f"file:{memory_path / 'others'}", f"file:{spoilt}"])
    found = repair.plan(home, tools)
    assert [each.rule for each in found.refusals] == ["loses a value"]
    assert f"backup file:{spoilt}" in found.away
    assert repair.repair(home, Tools(hubs=(), backups=[f"file:{spoilt}", f"file:{backup}"])).repaired == ["a"]


def test_while_the_newest_list_is_rotten_nobody_knows_what_was_erased_and_nothing_is_given(
    world: World, memory_path: Path
) -> None:
    home = shutil.copytree(world.root / "closed", memory_path / "home")
    backed_up(home, memory_path / "backups")
    made = backed_up(home, memory_path / "backups")
    (memory_path / "backups" / "backups" / made.backup).write_bytes(b"rotten")
    flip_in(b"value 61 ", 3)(home)
    found = repair.plan(home, Tools(hubs=(), backups=[f"file:{memory_path / 'backups'}"]))
    assert [each.rule for each in found.refusals] == ["loses a value"]
    assert made.backup in found.away[f"backup file:{memory_path / 'backups'}"]


def test_sealed_backups_are_read_with_their_keys(world: World, memory_path: Path) -> None:
    ring = KeyRing.generate()
    home = shutil.copytree(world.root / "closed", memory_path / "home")
    backed_up(home, memory_path / "sealed", ring)
    flip_in(b"value 61 ", 3)(home)
    address = f"file:{memory_path / 'sealed'}"
    assert "sealed" in repair.plan(home, Tools(hubs=(), backups=[address])).away[f"backup {address}"]
    assert repair.repair(home, Tools(hubs=(), backups=[address], ring=ring)).repaired == ["a"]
    is_as_before(home, world)


# -- what was erased ------------------------------------------------------------------------------------------------

CANARY = b"canary-2f6d1c0b9a"


def everywhere(home: Path) -> list[str]:
    """The files of a node that hold the erased text, but for what was put aside before."""
    return [
        str(path.relative_to(home))
        for path in home.rglob("*")
        if path.is_file() and "quarantine" not in path.parts and CANARY in path.read_bytes()
    ]


def at(home: Path, pos: int) -> Stored:
    with corpus_of(home) as corpus:
        found = corpus.at(pos)
    assert found is not None
    return found


@pytest.mark.parametrize("place", ["backup", "hub", "copy"])
def test_what_was_erased_comes_back_neither_from_an_old_backup_nor_from_an_old_hub(
    place: str, memory_path: Path
) -> None:
    """They were made before the erasure, and the damage took away what the row itself said of it."""
    home = memory_path / "home"
    with Store(home, "a", hub=(), limits=NO_LIMITS) as store:
        store.put("before", 1)
        store.put("secret", CANARY.decode())  # 2
        store.put("large", CANARY + LARGE)  # 3
        store.put("after", 1)
    shutil.copytree(home, memory_path / "old")
    backed_up(home, memory_path / "backups")
    directory = attach(home, limits=NO_LIMITS)
    erase_key(directory, "a", "secret", collection="state")
    erase_key(directory, "a", "large", collection="state")
    detach(directory)
    (digest,) = BlobFiles(memory_path / "old" / "blobs").iter()
    with corpus_of(home) as corpus:
        corpus.write(lambda tx: tx.execute("UPDATE rec SET why=0, hlc=hlc+1 WHERE pos IN (2, 3)"))
    with contextlib.ExitStack() as stack:
        sources = []
        if place != "backup":
            kind = "hub" if place == "hub" else "store"
            sources.append(stack.enter_context(contextlib.closing(StoreSource(memory_path / "old", kind))))  # type: ignore[arg-type]
        else:
            sources.append(StoreSource(memory_path / "nothing"))
        backups = [f"file:{memory_path / 'backups'}"] if place == "backup" else []
        outcome = repair.repair(home, Tools(hubs=(), sources=sources, backups=backups))
    assert outcome.repaired == ["a"], outcome.plan
    assert [(each.body, each.why) for each in (at(home, 2), at(home, 3))] == [(None, REDACTED)] * 2
    assert not BlobFiles(home / "blobs").has(digest)
    assert everywhere(home) == []
    assert prove(home, "a").findings == []


def test_a_key_that_was_destroyed_keeps_what_it_sealed_erased_though_nothing_in_the_log_says_so(
    memory_path: Path,
) -> None:
    """The log and its anchor are lost with the redact record; the backup is from before the erasure."""
    home = memory_path / "home"
    with Store(home, "a", hub=(), limits=NO_LIMITS, sealed=["patients"]) as store:
        store.put("p/1", {"note": "rest"}, collection="patients", subject="p-17")
        store.put("p/2", {"note": "walk"}, collection="patients", subject="p-18")
    backed_up(home, memory_path / "backups")
    directory = attach(home, limits=NO_LIMITS)
    erase_subject(directory, "p-17")
    detach(directory)
    lose_log(home)
    (home / "agents/a/log.anchor").write_bytes(b"")
    outcome = repair.repair(home, Tools(hubs=(), backups=[f"file:{memory_path / 'backups'}"]))
    assert outcome.repaired == ["a"], outcome.plan
    assert [at(home, pos).why for pos in (1, 2)] == [REDACTED, 0]
    assert prove(home, "a").findings == []
    with Store(home, "a", hub=(), limits=NO_LIMITS, sealed=["patients"]) as store:
        assert store.get("p/2", collection="patients") == {"note": "walk"}


def test_a_backup_gives_nothing_that_a_later_one_calls_erased(memory_path: Path) -> None:
    home = memory_path / "home"
    with Store(home, "a", hub=(), limits=NO_LIMITS) as store:
        store.put("secret", CANARY.decode())
        store.put("other", 1)
    backed_up(home, memory_path / "backups")
    directory = attach(home, limits=NO_LIMITS)
    erase_key(directory, "a", "secret", collection="state")
    detach(directory)
    made = backed_up(home, memory_path / "backups")
    with FileStore(memory_path / "backups") as store, corpus_of(home) as corpus:
        repository = Repository(store)
        source = BackupSource(repository, [bytes.fromhex(repository.about.signer)])
        assert source.kind == BACKUP
        source._order = repository.names()  # the old one first
        assert source._order[-1] == made.backup
        stream = corpus.branches()[0].stream
        (held,) = source.held(stream, "a")
        given = list(source.fetch(stream, held.branch, 1, 9))
        assert held.head.seq == len(given) == 2
        assert [(each.body is None, each.why) for each in given] == [(True, REDACTED), (False, 0)]

"""Damage to every kind of file that the swarm's storage has: found by the check that sees it, and mended or refused."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.clock import SYSTEM
from holdfast.errors import HoldfastError, IntegrityError, NotFound, UsageError
from holdfast.integrity import (
    DataIntegrityManager,
    IntegrityCheckType,
    PersistentDataStorage,
    RecoveryStrategy,
    StorageType,
)
from holdfast.integrity.swarm.restoring import drill, rescue
from holdfast.testing.clock import SettableClock
from tests.flow.swarm import HUGE, both, edit, failing, flip, heal, old_file, pos_of, rows, set_meta

CHECKSUM, HASH_CHAIN, TIMESTAMP, SIZE, VERSION = IntegrityCheckType


# -- the five checks ------------------------------------------------------------------------------------------------


FILE_FAULTS: dict[str, tuple[Callable[[PersistentDataStorage], None], set[IntegrityCheckType]]] = {
    "a bit flipped": (lambda s: flip(both(s)[0], 40), {CHECKSUM}),
    "the copy flipped": (lambda s: flip(both(s)[1], 40), {CHECKSUM}),
    "other data, same size": (lambda s: edit(both(s)[0], lambda p: p.__setitem__("data", "TWO")), {CHECKSUM}),
    "description changed": (
        lambda s: edit(both(s)[0], set_meta("integrity_level", "basic"), relink=False),
        {HASH_CHAIN},
    ),
    "size changed, link redone": (lambda s: edit(both(s)[0], set_meta("size", 99)), {SIZE, HASH_CHAIN}),
    "file lost": (lambda s: both(s)[0].unlink(), {SIZE}),
    "copy lost": (lambda s: both(s)[1].unlink(), {VERSION}),
    "old file put back": (old_file, {VERSION}),
    "file empty": (lambda s: os.truncate(both(s)[0], 0), {CHECKSUM}),
}


@pytest.mark.parametrize("fault", FILE_FAULTS)
def test_damage_to_a_file_is_found_and_healed_from_its_twin(files: PersistentDataStorage, fault: str) -> None:
    files.store("v", "one")
    files.store("v", "two")
    files.store("bystander", "here")
    harm, expected = FILE_FAULTS[fault]
    harm(files)
    found = failing(files, "v")
    assert expected <= found, found
    if expected == {CHECKSUM} or expected == {HASH_CHAIN}:
        assert found == expected
    heal(files, "v", "two")
    assert files.retrieve("bystander") == "here"


LOG_FAULTS: dict[str, tuple[Callable[[PersistentDataStorage], None], set[IntegrityCheckType]]] = {
    "payload changed": (lambda s: rows(s, "UPDATE rec SET body=x'54574F' WHERE pos=?", pos_of(s, "v") - 1), {CHECKSUM}),
    "link changed": (lambda s: rows(s, "UPDATE rec SET link=zeroblob(32) WHERE pos=?", pos_of(s, "v")), {HASH_CHAIN}),
    "body lost": (lambda s: rows(s, "UPDATE rec SET body=NULL WHERE pos=?", pos_of(s, "v") - 1), {SIZE}),
    "body cut": (lambda s: rows(s, "UPDATE rec SET body=x'61' WHERE pos=?", pos_of(s, "v") - 1), {SIZE, CHECKSUM}),
    "newest value replayed": (
        lambda s: rows(s, "UPDATE state SET pos=? WHERE key='v' AND pos=?", pos_of(s, "v") - 3, pos_of(s, "v") - 1),
        {VERSION},
    ),
}


@pytest.mark.parametrize("fault", LOG_FAULTS)
def test_damage_to_a_record_is_found_and_healed(hybrid: PersistentDataStorage, fault: str) -> None:
    hybrid.store("v", "one")
    hybrid.store("v", "two")
    hybrid.store("bystander", "here")
    hybrid.backup()
    hybrid.store("later", "not in the backup")
    harm, expected = LOG_FAULTS[fault]
    harm(hybrid)
    assert failing(hybrid, "v") == expected
    heal(hybrid, "v", "two")
    assert hybrid.metadata("v").version == 2
    assert (hybrid.retrieve("bystander"), hybrid.retrieve("later")) == ("here", "not in the backup")
    assert hybrid.shelf.whole() == []


def test_a_clock_that_was_set_ahead_is_found_by_the_timestamp_alone(storage: PersistentDataStorage) -> None:
    storage.wall = SettableClock(SYSTEM.now_ms() + 86_400_000)
    storage.store("tomorrow", 1)
    storage.wall = SYSTEM
    assert failing(storage, "tomorrow") == {TIMESTAMP}
    storage.store("tomorrow", 2)
    assert failing(storage, "tomorrow") == {TIMESTAMP}, "it is older than the version before it"
    checks = DataIntegrityManager(storage).check("tomorrow")
    assert [check.recovery_successful for check in checks if not check.passed] == [False], "no bytes would mend a clock"
    assert storage.retrieve("tomorrow") == 2


def blob_path(storage: PersistentDataStorage, data_id: str) -> Path:
    name = storage.metadata(data_id).checksum
    return storage.path / "blobs" / name[:2] / name[2:4] / name


BLOB_FAULTS: dict[str, tuple[Callable[[Path], None], set[IntegrityCheckType]]] = {
    "flipped": (lambda path: flip(path, 1000), {CHECKSUM}),
    "cut": (lambda path: os.truncate(path, 1000), {CHECKSUM, SIZE}),
    "lost": (lambda path: path.unlink(), {SIZE}),
}


@pytest.mark.parametrize("fault", BLOB_FAULTS)
@pytest.mark.parametrize("kind", [StorageType.FILE_BASED, StorageType.HYBRID])
def test_damage_to_a_large_value_is_found_and_healed(tmp_path: Path, kind: StorageType, fault: str) -> None:
    with PersistentDataStorage(tmp_path, kind, backup_interval_s=None) as storage:
        value = random.Random(1).randbytes(HUGE)
        storage.store("big", value)
        storage.backup()
        harm, expected = BLOB_FAULTS[fault]
        harm(blob_path(storage, "big"))
        assert failing(storage, "big") == expected
        with pytest.raises(HoldfastError):
            storage.retrieve("big")
        heal(storage, "big", value)


def test_a_check_never_writes_when_it_is_told_not_to(files: PersistentDataStorage) -> None:
    files.store("v", "one")
    files.store("v", "two")
    flip(both(files)[0], 40)
    before = {path: path.read_bytes() for path in files.path.rglob("*") if path.is_file()}
    checks = DataIntegrityManager(files).check("v", recover=False)
    assert [check.check_type for check in checks if not check.passed] == [CHECKSUM]
    assert not any(check.recovery_attempted for check in checks)
    assert before == {path: path.read_bytes() for path in files.path.rglob("*") if path.is_file()}
    with pytest.raises(IntegrityError):
        files.retrieve("v")


# -- recovery -------------------------------------------------------------------------------------------------------


def test_when_both_files_are_gone_the_backup_brings_them_back(files: PersistentDataStorage) -> None:
    files.store("v", "one")
    files.store("v", "two")
    files.backup()
    for path in both(files):
        flip(path, 40)
    (check,) = (check for check in heal(files, "v", "two") if check.check_type is CHECKSUM)
    tried = {each["strategy"]: each["successful"] for each in check.details["recovery"]}
    assert tried == {"CHECKSUM_MATCH": False, "BACKUP_RESTORE": True}
    evidence = Path(check.details["recovery"][-1]["evidence"])
    assert [each.name for each in evidence.iterdir()], "what was there is kept"


def test_a_value_that_only_a_backup_knows_is_brought_back(storage: PersistentDataStorage, tmp_path: Path) -> None:
    """The storage is lost with its disk; the backups lay elsewhere."""
    place = f"file:{tmp_path / 'elsewhere'}"
    kind = storage.storage_type
    with PersistentDataStorage(tmp_path / "one", kind, backup_interval_s=None, backup_to=place) as lost:
        lost.store("plan", {"goal": 1}, "tasks")
        lost.store("big", b"b" * HUGE)
        lost.store("gone", 1)
        lost.delete("gone")
        lost.backup()
    with PersistentDataStorage(tmp_path / "two", kind, backup_interval_s=None, backup_to=place) as new:
        manager = DataIntegrityManager(new)
        failed = manager.scan()
        assert {check.data_id for check in failed} == {"plan", "big", "gone"}
        assert manager.scan() == []
        assert (new.retrieve("plan"), new.metadata("plan").version) == ({"goal": 1}, 1)
        assert new.retrieve("big") == b"b" * HUGE
        assert new.ids() == ["big", "plan"]


def test_what_is_not_proven_is_not_put_back_unasked(files: PersistentDataStorage) -> None:
    files.store("v", "one")
    files.backup()
    files.store("v", "two")
    for path in both(files):
        flip(path, 40)
    manager = DataIntegrityManager(files)
    wrong = [check for check in manager.check("v") if not check.passed]
    assert wrong
    assert not any(check.recovery_successful for check in wrong)
    assert "v" in manager.status()["damaged"]
    with pytest.raises(IntegrityError):
        files.retrieve("v")
    # A person, or a policy, may.
    checks = DataIntegrityManager(files, allow_loss=True).check("v")
    assert any(check.recovery_successful for check in checks)
    assert files.retrieve("v") == "one"
    assert files.metadata("v").version == 3


@pytest.mark.parametrize("strategy", ["VERSION_ROLLBACK", RecoveryStrategy.TIMESTAMP_ROLLBACK])
def test_rollbacks_add_a_version(storage: PersistentDataStorage, strategy: Any) -> None:
    clock = SettableClock(SYSTEM.now_ms() - 100_000)
    storage.wall = clock
    for number in range(1, 5):
        storage.store("v", f"value {number}")
        clock.advance(10)
    storage.wall = SYSTEM
    at = storage.metadata("v", 2).timestamp + 5 if strategy is RecoveryStrategy.TIMESTAMP_ROLLBACK else None
    manager = DataIntegrityManager(storage)
    (done,) = manager.recover("v", strategy, at=at)
    assert done.successful, done
    assert done.lossy
    assert storage.retrieve("v") == ("value 3" if at is None else "value 2")
    assert storage.metadata("v").version == 5
    assert storage.retrieve("v", 4) == "value 4", "nothing is taken away"
    (done,) = manager.recover("v", RecoveryStrategy.VERSION_ROLLBACK, version=1)
    assert storage.retrieve("v") == "value 1"
    with pytest.raises(UsageError, match="which time"):
        manager.recover("v", RecoveryStrategy.TIMESTAMP_ROLLBACK)
    with pytest.raises(NotFound):
        manager.check("never stored")


def test_manual_recovery_collects_what_is_known(storage: PersistentDataStorage) -> None:
    storage.store("v", "one")
    storage.backup()
    manager = DataIntegrityManager(storage)
    (made,) = manager.recover("v", RecoveryStrategy.MANUAL_RECOVERY)
    assert not made.successful
    report = json.loads((Path(made.evidence) / "report.json").read_text())
    assert report["versions"][0]["version"] == report["backups"][0]["version"] == 1
    assert storage.retrieve("v") == "one"
    lines = (storage.path / "recovery.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["strategy"] == "manual_recovery"
    assert manager.status()["attempts"] == len(lines)


@pytest.mark.parametrize("seed", range(6))
def test_a_bit_flipped_anywhere_in_the_log_is_never_returned_and_brought_back(tmp_path: Path, seed: int) -> None:
    """A page of a closed log: what was in the backup and what was written since is there afterwards, or refused."""
    rng = random.Random(seed)
    with PersistentDataStorage(tmp_path, StorageType.HYBRID, backup_interval_s=None) as storage:
        values = {f"v{number:03}": rng.randbytes(400) for number in range(60)}
        for name, value in values.items():
            storage.store(name, value)
        storage.backup()
        first = values["v001"]
        values["v001"] = b"newer"
        storage.store("v001", b"newer")
    log = tmp_path / "log" / "log.db"
    flip(log, rng.randrange(4096, log.stat().st_size), rng.randrange(8))
    try:
        PersistentDataStorage(tmp_path, backup_interval_s=None).close()
    except IntegrityError:  # a page that opening reads: the log is made anew from the backup
        rescue(tmp_path)
        with PersistentDataStorage(tmp_path, backup_interval_s=None) as storage:
            found = {name: storage.retrieve(name) for name in values}
        assert found.pop("v001") in (b"newer", first)
        assert found == {name: value for name, value in values.items() if name != "v001"}
        return
    with PersistentDataStorage(tmp_path, backup_interval_s=None) as storage:
        for name, value in values.items():
            with contextlib.suppress(IntegrityError):
                assert storage.retrieve(name) == value
        manager = DataIntegrityManager(storage)
        failed = manager.scan()
        assert failed or manager.status()["whole"], "the flip was found"
        left = manager.status()["damaged"]
        if not left:
            assert {name: storage.retrieve(name) for name in values} == values
        for name in left:
            with pytest.raises(IntegrityError):
                storage.retrieve(name)


def test_a_log_that_cannot_be_opened_is_made_anew_from_the_backup(tmp_path: Path) -> None:
    with PersistentDataStorage(tmp_path, StorageType.HYBRID, backup_interval_s=None) as storage:
        storage.store("v", "one")
        storage.store("big", b"b" * HUGE)
        with pytest.raises(NotFound, match="no backup"):
            drill(storage)
        storage.backup()
        storage.store("v", "since the backup")
    with pytest.raises(UsageError, match="can be opened"):
        rescue(tmp_path)
    flip(tmp_path / "log" / "log.db", 110)  # the schema's page
    with pytest.raises(IntegrityError):
        PersistentDataStorage(tmp_path, backup_interval_s=None)
    assert "2 values are in a new log" in rescue(tmp_path)
    with PersistentDataStorage(tmp_path, backup_interval_s=None) as storage:
        assert (storage.retrieve("v"), storage.retrieve("big")) == ("one", b"b" * HUGE)
        assert DataIntegrityManager(storage).scan() == []
    assert len([*tmp_path.glob("quarantine/*/log/log.db")]) == 1


def test_a_log_that_another_has_open_is_not_moved_away(hybrid: PersistentDataStorage) -> None:
    hybrid.store("v", "one")
    hybrid.store("v", "two")
    hybrid.backup()
    with PersistentDataStorage(hybrid.path, backup_interval_s=None) as other:
        rows(hybrid, "UPDATE rec SET link=zeroblob(32) WHERE pos=?", pos_of(hybrid, "v"))
        checks = DataIntegrityManager(hybrid).check("v")
        assert not any(check.recovery_successful for check in checks)
        assert other.retrieve("v") == "two"
        assert other.update("v", "three").version == 3
    assert hybrid.retrieve("v") == "three"


def test_damage_to_the_files_beside_the_values_is_told_and_mended(tmp_path: Path) -> None:
    """The key, the lists of backups, and the file that says which type of storage this is."""
    with PersistentDataStorage(tmp_path, StorageType.HYBRID, backup_interval_s=None) as storage:
        storage.store("v", "one")
        storage.backup()
        storage.store("v", "two")
        storage.backup()
        newest = sorted((tmp_path / "backups" / "lists").iterdir())[-1]
    flip(newest, 30)
    with PersistentDataStorage(tmp_path, backup_interval_s=None) as storage:
        assert storage.status()["backups"] == 1, "a list that was changed is no backup"
        assert storage.cleanup(0)["copies"] == 0, "nor is anything swept that it may have named"
        assert storage.backup().values == 1
    for harm in (lambda path: flip(path, 3), lambda path: os.truncate(path, 7)):
        harm(tmp_path / "log" / "storage.key")
        with pytest.raises(IntegrityError):
            PersistentDataStorage(tmp_path, backup_interval_s=None)
        rescue(tmp_path)
        with PersistentDataStorage(tmp_path, backup_interval_s=None) as storage:
            assert storage.retrieve("v") == "two"
    (tmp_path / "storage.json").write_text('{"format":1,"storage_type":"hybric"}')
    with pytest.raises(UsageError, match="says nothing of a storage"):
        PersistentDataStorage(tmp_path)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_of_the_flips_that_damage_values_nearly_all_are_mended_without_a_person(tmp_path: Path) -> None:
    values = {f"v{number:03}": random.Random(number).randbytes(400) for number in range(200)}
    with PersistentDataStorage(tmp_path / "whole", StorageType.HYBRID, backup_interval_s=None) as storage:
        for name, value in values.items():
            storage.store(name, value)
        storage.backup()
        values |= {"v001": b"newer", "since": b"the backup"}
        storage.store("v001", values["v001"])
        storage.store("since", values["since"])
    damaged = mended = 0
    for seed in range(200):
        rng, home = random.Random(seed), tmp_path / str(seed)
        shutil.copytree(tmp_path / "whole", home)
        log = home / "log" / "log.db"
        flip(log, rng.randrange(log.stat().st_size), rng.randrange(8))
        with contextlib.suppress(IntegrityError), PersistentDataStorage(home, backup_interval_s=None) as storage:
            refused = right(storage, values)
            manager = DataIntegrityManager(storage)
            assert manager.scan() or manager.status()["whole"], "the flip was found"
            damaged += refused > 0
            mended += refused > 0 and right(storage, values) == 0
        shutil.rmtree(home)
    assert damaged > 100
    assert mended >= damaged * 95 // 100, (mended, damaged)


def right(storage: PersistentDataStorage, values: dict[str, bytes]) -> int:
    """How many values are refused; none is wrong."""
    refused = 0
    for name, value in values.items():
        try:
            assert storage.retrieve(name) == value
        except IntegrityError:
            refused += 1
    return refused

"""The swarm's persistent storage does what its report says: every line of it is a test here, in all three modes."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import threading
import tracemalloc
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from holdfast.clock import SYSTEM
from holdfast.errors import Conflict, IntegrityError, NotFound, StoreClosed, UsageError
from holdfast.integrity import (
    DataIntegrityLevel,
    DataIntegrityManager,
    IntegrityCheck,
    IntegrityCheckType,
    PersistentDataStorage,
    RecoveryStrategy,
    StorageMetadata,
    StorageType,
)
from holdfast.integrity.swarm.restoring import drill
from holdfast.testing.clock import SettableClock
from tests.flow.swarm import HUGE, both, failing, flip, heal, rows, wait_for

DATA_TYPES = ("messages", "tasks", "status", "config", "logs")
LARGE = 300_000
"""Lies beside the log; in a file it is still text."""


# -- the words ----------------------------------------------------------------------------------------------------


def test_the_words_are_those_of_the_report() -> None:
    fields = {field.name: field.type for field in dataclasses.fields(StorageMetadata)}
    assert list(fields) == (
        ["data_id", "timestamp", "checksum", "size", "version", "integrity_level", "backup_count", "last_backup"]
    )
    assert get_type_hints(StorageMetadata)["integrity_level"] is DataIntegrityLevel
    assert [field.name for field in dataclasses.fields(IntegrityCheck)] == (
        [
            "check_id",
            "data_id",
            "check_type",
            "timestamp",
            "passed",
            "details",
            "recovery_attempted",
            "recovery_successful",
        ]
    )
    assert [each.name for each in StorageType] == ["FILE_BASED", "DATABASE", "HYBRID"]
    assert [each.name for each in DataIntegrityLevel] == ["BASIC", "ADVANCED", "CRITICAL"]
    assert [each.name for each in IntegrityCheckType] == (
        ["CHECKSUM", "HASH_CHAIN", "TIMESTAMP", "SIZE_VERIFICATION", "VERSION_CONTROL"]
    )
    assert {each.name for each in RecoveryStrategy} == set(
        ["BACKUP_RESTORE", "CHECKSUM_MATCH", "TIMESTAMP_ROLLBACK", "VERSION_ROLLBACK", "MANUAL_RECOVERY"]
    )


# -- store, retrieve, update, delete ------------------------------------------------------------------------------


VALUES: list[Any] = [
    {"goal": "map the reef", "steps": [1, 2.5, None, True], "ü": "ß"},
    "plain text",
    b"\x00\xffbytes",
    17,
    None,
    "",
    b"",
    ["y" * 100] * (LARGE // 100),
    "z" * HUGE,
    b"\x01" * HUGE,
]


def test_what_was_stored_is_retrieved_after_a_restart_too(storage: PersistentDataStorage) -> None:
    for number, value in enumerate(VALUES):
        meta = storage.store(f"agent-{number}/value", value, DATA_TYPES[number % 5])
        assert (meta.data_id, meta.version, meta.backup_count, meta.last_backup) == (
            f"agent-{number}/value",
            1,
            0,
            None,
        )
    names = [f"agent-{number}/value" for number in range(len(VALUES))]
    assert [storage.retrieve(name) for name in names] == VALUES
    assert storage.ids("tasks") == ["agent-1/value", "agent-6/value"]
    storage.close()
    with pytest.raises(StoreClosed):
        storage.retrieve(names[0])
    with PersistentDataStorage(storage.path, backup_interval_s=None) as again:
        assert again.storage_type is storage.storage_type
        assert [again.retrieve(name) for name in names] == VALUES
        assert again.ids() == sorted(names)
        assert not any(failing(again, name) for name in names)


def test_a_value_has_versions_and_a_deletion_is_one(storage: PersistentDataStorage) -> None:
    assert storage.store("plan", "one", "tasks").version == 1
    assert storage.update("plan", "two").version == 2
    assert storage.store("plan", "three", expect=2).version == 3
    with pytest.raises(Conflict, match="is at version 3, you expected 1"):
        storage.update("plan", "late", expect=1)
    assert (storage.retrieve("plan"), storage.retrieve("plan", 1)) == ("three", "one")
    assert storage.delete("plan")
    assert not storage.delete("plan")
    for ask in (storage.retrieve, storage.metadata, lambda data_id: storage.update(data_id, 1)):
        with pytest.raises(NotFound):
            ask("plan")
    assert storage.ids() == []
    assert storage.versions("plan") == [3, 2, 1]
    assert storage.store("plan", "five").version == 5
    assert storage.retrieve("plan", 3) == "three"
    assert failing(storage, "plan") == set()


def test_what_cannot_be_is_refused_and_nothing_is_lost(storage: PersistentDataStorage) -> None:
    storage.store("kept", 1, "status")
    for refused, hint in (
        (lambda: storage.store("kept", 2, "tasks"), "another name"),
        (lambda: storage.store("new", 2, "poems"), "one of messages"),
        (lambda: storage.store("../out", 2), "such as"),
        (lambda: storage.store("new", {1, 2}), "store JSON values"),
        (lambda: storage.store("new", 1, integrity_level="utmost"), ""),
    ):
        with pytest.raises(UsageError) as caught:
            refused()
        assert hint in caught.value.hint
    assert storage.ids() == ["kept"]
    assert storage.retrieve("kept") == 1
    other = next(kind for kind in StorageType if kind is not storage.storage_type)
    with pytest.raises(UsageError, match="holds a storage of type"):
        PersistentDataStorage(storage.path, other)


def test_the_directories_make_themselves(tmp_path: Path) -> None:
    for kind in StorageType:
        with PersistentDataStorage(tmp_path / "deep" / kind.value, kind, backup_interval_s=None) as storage:
            storage.store("x", 1, "logs")
            storage.delete("x")
        assert {*DATA_TYPES} <= {each.name for each in (tmp_path / "deep" / kind.value).iterdir() if each.is_dir()}


def test_a_file_is_json_that_people_can_read(files: PersistentDataStorage) -> None:
    files.store("agent-1/mood", {"mood": "calm"}, "status")
    found = json.loads((files.path / "status" / "agent-1" / "mood.json").read_text())
    assert found["data"] == {"mood": "calm"}
    assert found["metadata"]["data_id"] == "agent-1/mood"
    assert found["metadata"]["version"] == 1


def test_in_the_hybrid_small_values_are_in_the_log_and_large_ones_are_files(hybrid: PersistentDataStorage) -> None:
    hybrid.store("small", "s" * 1000)
    assert not (hybrid.path / "blobs").exists()
    large = hybrid.store("large", "l" * LARGE)
    blob = hybrid.path / "blobs" / large.checksum[:2] / large.checksum[2:4] / large.checksum
    assert blob.stat().st_size == large.size == LARGE


def test_the_database_keeps_large_values_too(tmp_path: Path) -> None:
    with PersistentDataStorage(tmp_path, StorageType.DATABASE, backup_interval_s=None) as storage:
        storage.store("large", os.urandom(HUGE))
    assert (tmp_path / "large" / "large.db").stat().st_size > HUGE
    assert [p for p in tmp_path.rglob("*") if p.is_file() and p.stat().st_size > LARGE and p.suffix != ".db"] == []


def test_many_threads_write_and_no_version_is_lost(storage: PersistentDataStorage) -> None:
    def write(who: int) -> None:
        for number in range(10):
            storage.store("shared", [who, number])
            storage.store(f"own-{who}", number)

    threads = [threading.Thread(target=write, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert storage.metadata("shared").version == 40
    seen = [storage.retrieve("shared", number) for number in range(1, 41)]
    assert sorted(map(tuple, seen)) == [(who, number) for who in range(4) for number in range(10)]
    assert [storage.metadata(f"own-{who}").version for who in range(4)] == [10] * 4
    assert failing(storage, "shared") == set()


def test_a_check_beside_a_writer_finds_nothing(storage: PersistentDataStorage) -> None:
    storage.store("v", 0)
    done = threading.Event()

    def write() -> None:
        for number in range(60):
            storage.store("v", number)
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    found = [failing(storage, "v")]
    while not done.is_set():
        found.append(failing(storage, "v"))
    thread.join()
    assert not any(found)


# -- values larger than memory --------------------------------------------------------------------------------------


def stream_through(storage: PersistentDataStorage, size: int) -> None:
    piece = random.Random(5).randbytes(1 << 20)
    tracemalloc.start()
    try:
        meta = storage.store("dataset", (piece for _ in range(size >> 20)), "logs")
        assert meta.size == size
        assert sum(len(each) for each in storage.stream("dataset")) == size
        storage.backup()
        assert failing(storage, "dataset") == set()
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()


def test_a_large_value_streams_in_bounded_memory(storage: PersistentDataStorage) -> None:
    stream_through(storage, 64 << 20)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_value_of_a_gigabyte_streams_in_bounded_memory(storage: PersistentDataStorage) -> None:
    stream_through(storage, 1 << 30)


def test_a_value_comes_from_a_file_a_path_or_an_iterator(storage: PersistentDataStorage, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"0123456789" * 9)
    storage.store("path", source)
    with source.open("rb") as file:
        storage.store("file", file)
    storage.store("pieces", iter([b"0123456789"] * 9))
    assert {storage.retrieve(name) for name in ("path", "file", "pieces")} == {b"0123456789" * 9}


# -- backups --------------------------------------------------------------------------------------------------------


def test_a_backup_costs_what_changed_and_says_what_it_holds(storage: PersistentDataStorage) -> None:
    for number in range(20):
        storage.store(f"v{number}", f"value {number}")
    storage.store("big", b"b" * HUGE)
    assert (first := storage.backup()).written == first.values == 21
    assert storage.backup().written == 0
    storage.update("v3", "changed")
    assert storage.backup().written == 1
    meta = storage.metadata("v3")
    assert (meta.version, meta.backup_count) == (2, 3)
    assert meta.last_backup == storage.status()["last_backup"]


def test_backups_expire_but_never_the_newest(storage: PersistentDataStorage) -> None:
    clock = SettableClock(SYSTEM.now_ms())
    storage.wall = clock
    for number in range(5):
        storage.store("v", f"value {number}")
        storage.store("big", bytes([number]) * HUGE)
        storage.backup()
        clock.advance(8 * 3600)
    assert storage.cleanup()["backups"] == 2, "the default is 24 hours"
    assert storage.status()["backups"] == 3
    clock.advance(100 * 3600)
    gone = storage.cleanup()
    assert gone["backups"] == 2
    assert gone["copies"] == 6
    assert storage.status()["backups"] == 1
    assert storage.backups.read(storage.backups.holding("v")[0][2]) == b"value 4"


def test_a_backup_keeps_the_good_copy_of_what_was_damaged_since(files: PersistentDataStorage) -> None:
    files.store("v", "one")
    files.store("v", "two")
    files.backup()
    for path in both(files):
        path.unlink()
    result = files.backup()
    assert list(result.failed) == ["v"]
    heal(files, "v", "two")


def test_a_drill_proves_a_backup_or_says_what_is_wrong_with_it(storage: PersistentDataStorage) -> None:
    for number in range(5):
        storage.store(f"v{number}", number)
    storage.store("big", b"b" * HUGE)
    storage.delete("v4")
    storage.backup()
    found = drill(storage)
    assert (found.sound, found.values, found.proven) == (True, 6, 6)
    flip(next((storage.path / "backups" / "blobs").iterdir()), 99)
    found = drill(storage)
    assert (found.sound, list(found.failed)) == (False, ["big"])
    assert not [*storage.path.glob("drill-*")]


def test_backups_are_made_in_the_background(tmp_path: Path) -> None:
    with PersistentDataStorage(tmp_path / "often", backup_interval_s=0.01) as storage:
        storage.store("v", 1)
        wait_for(lambda: storage.metadata("v").backup_count > 0)
        assert storage.trouble == ""
    with PersistentDataStorage(tmp_path / "seldom", backup_interval_s=3600) as storage:
        storage.store("v", 1)
        storage.store("dear", 2, integrity_level=DataIntegrityLevel.CRITICAL)
        wait_for(lambda: storage.metadata("dear").backup_count > 0)
        assert storage.metadata("dear").integrity_level is DataIntegrityLevel.CRITICAL


# -- the integrity manager --------------------------------------------------------------------------------------------


def test_the_manager_scans_every_five_minutes_until_it_is_stopped(files: PersistentDataStorage) -> None:
    files.store("v", "one")
    files.store("v", "two")
    assert DataIntegrityManager(files).scan_interval_s == 300
    flip(both(files)[0], 40)
    with DataIntegrityManager(files, scan_interval_s=0.01) as manager:
        manager.start()
        manager.start()
        wait_for(lambda: manager.status()["scans"] > 2)
        status = manager.status()
        assert (status["running"], status["damaged"], status["recovered"], status["trouble"]) == (True, {}, 1, "")
        manager.stop()
        assert not manager.status()["running"]
    assert files.retrieve("v") == "two"


def test_the_manager_opens_a_directory_by_itself(tmp_path: Path) -> None:
    with PersistentDataStorage(tmp_path, backup_interval_s=None) as storage:
        storage.store("v", 1)
    with DataIntegrityManager(tmp_path) as manager:
        checks = manager.check("v")
        assert [check.check_type for check in checks] == list(IntegrityCheckType)
        assert all(check.passed and check.data_id == "v" and check.details == {} for check in checks)
        assert len({check.check_id for check in checks}) == 5
    with pytest.raises(StoreClosed):
        manager.storage.ids()


@pytest.mark.parametrize("level", list(DataIntegrityLevel))
def test_every_level_keeps_and_proves(tmp_path: Path, level: DataIntegrityLevel) -> None:
    with PersistentDataStorage(tmp_path, StorageType.HYBRID, level, backup_interval_s=None) as storage:
        assert storage.store("v", 1).integrity_level is level
        rows(storage, "UPDATE rec SET body=x'32' WHERE pos=1")
        with pytest.raises(IntegrityError):
            storage.retrieve("v")

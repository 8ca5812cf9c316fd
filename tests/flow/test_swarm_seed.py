"""The swarm's persistent storage does what its report says: every line of it is a test here, in all three modes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from holdfast.clock import SYSTEM
from holdfast.errors import Conflict, HoldfastError, IntegrityError, NotFound, StoreClosed, UsageError
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
from holdfast.integrity.swarm.logged import LogShelf
from holdfast.integrity.swarm.package import Kept, link_of
from holdfast.integrity.swarm.restoring import drill, rescue
from holdfast.testing.clock import SettableClock

CHECKSUM, HASH_CHAIN, TIMESTAMP, SIZE, VERSION = IntegrityCheckType
DATA_TYPES = ("messages", "tasks", "status", "config", "logs")
LARGE = 300_000
"""Lies beside the log; in a file it is still text."""
HUGE = 3_000_000
"""Lies beside everywhere."""


@pytest.fixture(params=list(StorageType), ids=lambda kind: kind.name)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PersistentDataStorage]:
    with PersistentDataStorage(tmp_path / "data", request.param, backup_interval_s=None) as made:
        yield made


@pytest.fixture
def files(tmp_path: Path) -> Iterator[PersistentDataStorage]:
    with PersistentDataStorage(tmp_path / "data", StorageType.FILE_BASED, backup_interval_s=None) as made:
        yield made


@pytest.fixture
def hybrid(tmp_path: Path) -> Iterator[PersistentDataStorage]:
    with PersistentDataStorage(tmp_path / "data", StorageType.HYBRID, backup_interval_s=None) as made:
        yield made


def failing(storage: PersistentDataStorage, data_id: str) -> set[IntegrityCheckType]:
    return {kind for kind, found in storage.problems(data_id).items() if found}


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


# -- the five checks ------------------------------------------------------------------------------------------------


def edit(path: Path, change: Callable[[dict[str, Any]], None], *, relink: bool = True) -> None:
    """Changes a package as somebody with an editor would: another file takes its name."""
    found = json.loads(path.read_text())
    change(found)
    if relink:
        found["link"] = link_of(found["previous"], Kept(**found["metadata"]))
    other = path.with_suffix(".new")
    other.write_text(json.dumps(found))
    other.replace(path)


def flip(path: Path, at: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    with path.open("r+b") as file:  # in place: the file stays the one that was written
        file.write(data)


def both(storage: PersistentDataStorage, number: int = 2) -> tuple[Path, Path]:
    """The two files of the newest version."""
    return storage.path / "messages" / "v.json", storage.path / "versions" / "messages" / "v" / f"{number:08}.json"


def set_meta(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda package: package["metadata"].__setitem__(name, value)


def old_file(storage: PersistentDataStorage) -> None:
    shown, _ = both(storage)
    before = storage.path / "versions" / "messages" / "v" / "00000001.json"
    shown.write_bytes(b"")
    other = shown.with_suffix(".new")
    other.write_bytes(before.read_bytes())
    other.replace(shown)


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


def heal(storage: PersistentDataStorage, data_id: str, value: Any) -> list[IntegrityCheck]:
    manager = DataIntegrityManager(storage)
    checks = manager.check(data_id)
    wrong = [check for check in checks if not check.passed]
    assert wrong
    assert all(check.recovery_attempted and check.recovery_successful for check in wrong), wrong
    assert [check.passed for check in manager.check(data_id)] == [True] * 5
    assert storage.retrieve(data_id) == value
    return wrong


def rows(storage: PersistentDataStorage, sql: str, *args: Any) -> None:
    """Changes rows behind the log's back, with right page checksums."""
    assert isinstance(storage.shelf, LogShelf)
    storage.shelf.opened.corpus.write(lambda tx: tx.execute(sql, args))


def pos_of(storage: PersistentDataStorage, data_id: str) -> int:
    found = storage.shelf.newest(data_id)
    assert found is not None
    return int(found.at)


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
        values["v001"] = b"newer"
        storage.store("v001", b"newer")
    log = tmp_path / "log" / "log.db"
    flip(log, rng.randrange(4096, log.stat().st_size), rng.randrange(8))
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


def wait_for(happened: Callable[[], bool]) -> None:
    """Until it has; the test's own time limit is the deadline."""
    pause = threading.Event()
    while not happened():
        pause.wait(0.005)


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

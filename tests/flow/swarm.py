"""What the tests of the swarm's storage share: damage to its files and rows, and what must be so afterwards."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.integrity import (
    DataIntegrityManager,
    IntegrityCheck,
    IntegrityCheckType,
    PersistentDataStorage,
    StorageType,
)
from holdfast.integrity.swarm.logged import LogShelf
from holdfast.integrity.swarm.package import Kept, link_of

HUGE = 3_000_000
"""Lies beside the value's description in every mode."""


@pytest.fixture(params=list(StorageType), ids=lambda kind: kind.name)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PersistentDataStorage]:
    """The swarm's storage, in each of its modes."""
    with PersistentDataStorage(tmp_path / "data", request.param, backup_interval_s=None) as made:
        yield made


@pytest.fixture
def files(tmp_path: Path) -> Iterator[PersistentDataStorage]:
    """The one that keeps files."""
    with PersistentDataStorage(tmp_path / "data", StorageType.FILE_BASED, backup_interval_s=None) as made:
        yield made


@pytest.fixture
def hybrid(tmp_path: Path) -> Iterator[PersistentDataStorage]:
    """The one that keeps files and a log."""
    with PersistentDataStorage(tmp_path / "data", StorageType.HYBRID, backup_interval_s=None) as made:
        yield made


def failing(storage: PersistentDataStorage, data_id: str) -> set[IntegrityCheckType]:
    return {kind for kind, found in storage.problems(data_id).items() if found}


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


def wait_for(happened: Callable[[], bool]) -> None:
    """Until it has; the test's own time limit is the deadline."""
    pause = threading.Event()
    while not happened():
        pause.wait(0.005)

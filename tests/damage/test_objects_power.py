"""Objects in SQLite after a power cut: every acknowledged put is there, and no write is there by half.

Each state that a machine may find is made from what was written and synced (`holdfast.testing.power`): at every sync,
before it and behind it, in four ways of losing what was not synced. The store's own sync of the WAL is recorded too.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from holdfast.objects import SqliteStore
from holdfast.objects.database_file import create_file
from holdfast.objects.sqlite import CHUNK_BYTES
from holdfast.sqlite import checksums
from holdfast.testing.objects_many import at_once
from holdfast.testing.power import MODES, Mode, Recorder, crash_state, recording, write_state

WRITES = 26
KEYS = 5
SIZES = (200, 5000, CHUNK_BYTES + 9000)


class Told(NamedTuple):
    """What a writer knew at a moment: how many of its writes had been acknowledged."""

    at: int
    writer: int
    done: int


class Machine:
    """A store whose every write and sync is recorded."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.path = directory / "objects.db"
        create_file(self.path)
        self.recorder = Recorder(directory)
        self.told: list[Told] = []

    @contextmanager
    def on(self, monkeypatch: pytest.MonkeyPatch, *, durable: bool = True) -> Iterator[SqliteStore]:
        """The store; when the block ends it is closed, which is recorded as well."""
        checksums()  # loaded before the recorder goes below it
        real = os.fdatasync

        def datasync(fd: int) -> None:
            assert os.path.samestat(os.fstat(fd), os.stat(f"{self.path}-wal"))
            upto = self.recorder.mark()
            real(fd)
            self.recorder.synced(f"{self.path}-wal", upto)

        with recording(self.recorder, checksums=True), monkeypatch.context() as patched:
            patched.setattr("os.fdatasync", datasync)
            with SqliteStore(self.path, durable=durable) as store:
                store._database._write_connection().execute("PRAGMA wal_autocheckpoint=60")
                yield store

    def write(self, store: SqliteStore, writer: int, number: int) -> None:
        """The n-th write of a writer: a put, every seventh a deletion."""
        key = f"{writer}/{number % KEYS}"
        if number % 7 == 6:
            store.delete(key)
        else:
            store.put(key, body(number), metadata={"n": str(number)})
        self.told.append(Told(self.recorder.mark(), writer, number + 1))

    def cuts(self) -> list[int]:
        """Before and behind every sync."""
        syncs = [at for at, op in enumerate(self.recorder.ops) if op.kind == "sync"]
        return sorted({cut for at in syncs for cut in (at, at + 1)})

    def acknowledged(self, cut: int, writer: int = 0) -> int:
        """How many writes the writer had been told are safe."""
        return max((told.done for told in self.told if told.writer == writer and told.at <= cut), default=0)


def body(number: int) -> bytes:
    """Says whose it is in every byte."""
    return bytes([number + 1]) * SIZES[number % 3]


def after(writes: int, writer: int = 0) -> dict[str, int]:
    """Which put each key is of, after so many writes."""
    found: dict[str, int] = {}
    for number in range(writes):
        key = f"{writer}/{number % KEYS}"
        if number % 7 == 6:
            found.pop(key, None)
        else:
            found[key] = number
    return found


def seen_in(store: SqliteStore, writer: int = 0) -> dict[str, int]:
    """Which put each key is of; every body is held to be whole."""
    found = {}
    for info in store.list(f"{writer}/"):
        number = int(store.head(info.key).metadata["n"])
        assert store.read(info.key) == body(number), "an object by half"
        found[info.key] = number
    return found


def lost(machine: Machine, cut: int, mode: Mode, directory: Path, writers: int = 1) -> tuple[int, bool]:
    """How many acknowledged writes are not there after a cut, and whether the cut was taken for damage."""
    write_state(crash_state(machine.recorder.ops, cut, random.Random(f"{cut}{mode}"), mode), directory)
    with SqliteStore(directory / "objects.db", durable=False) as store:
        missing = 0
        for writer in range(writers):
            seen, told = seen_in(store, writer), machine.acknowledged(cut, writer)
            states = [n for n in range(WRITES + 1) if after(n, writer) == seen]
            assert states, f"no prefix of what was written: {seen}"
            missing += max(0, told - states[-1])
        assert store._database.one("PRAGMA integrity_check")[0] == "ok"
        chunks = store._database.one("SELECT count(*) FROM holdfast_chunk")[0]
        large = [info for info in store.list() if info.size > CHUNK_BYTES]
        assert chunks == 2 * len(large), "chunks that belong to no object"
        alarmed = bool(store.health().degraded)
    shutil.rmtree(directory)
    return missing, alarmed


def test_no_power_cut_costs_an_acknowledged_put_or_leaves_half_a_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path / "machine")
    with machine.on(monkeypatch) as store:
        for number in range(WRITES):
            machine.write(store, 0, number)
    cuts = machine.cuts()
    assert len(cuts) > WRITES
    assert sum(op.kind == "write" and op.name == "objects.db" for op in machine.recorder.ops) > 60, "no checkpoint"
    alarms = 0
    for number, cut in enumerate(cuts):
        for mode in (MODES[number % 4], MODES[(number + 1) % 4]):
            missing, alarmed = lost(machine, cut, mode, tmp_path / "found")
            assert missing == 0, (cut, mode)
            alarms += alarmed and mode != "garbage"  # rubbish may lie where the header of the WAL was being written
    assert alarms <= 1, "honest power cuts were taken for damage"


def test_no_power_cut_costs_a_put_whose_sync_was_anothers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path / "machine")
    with machine.on(monkeypatch) as store:

        def work(writer: int) -> None:
            for number in range(9):
                machine.write(store, writer, number)

        at_once(4, work)
    for cut in machine.cuts()[::4]:
        for mode in ("torn", "drop"):
            assert lost(machine, cut, mode, tmp_path / "found", writers=4)[0] == 0, (cut, mode)


def test_a_store_that_does_not_sync_is_caught_losing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness can fail: without durability, acknowledged puts are gone, and only whole ones."""
    machine = Machine(tmp_path / "machine")
    with machine.on(monkeypatch, durable=False) as store:
        for number in range(WRITES):
            machine.write(store, 0, number)
    ops = machine.recorder.ops
    assert any(lost(machine, cut, "drop", tmp_path / "found")[0] for cut in range(10, len(ops), len(ops) // 20))

"""The power-loss harness is trusted only because it catches what is known to lose or corrupt data."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import itertools
import os
import random
from collections.abc import Sequence
from pathlib import Path

import apsw
import pytest

from holdfast.disk import sync_directory
from holdfast.testing.power import (
    MODES,
    Faults,
    Mode,
    Op,
    Recorder,
    crash_state,
    faulty,
    recording,
    recording_calls,
    write_state,
)

STATES = 150
COMMITS = 40


@pytest.fixture
def tmp_path(memory_path: Path) -> Path:
    return memory_path


def body_of(i: int) -> bytes:
    """The i-th commit's payload: of three sizes, so that some spill over pages."""
    return random.Random(i).randbytes((40, 300, 3000)[i % 3])


def connect(path: Path, vfs: str, sync: str, journal: str = "wal") -> apsw.Connection:
    connection = apsw.Connection(str(path), vfs=vfs)
    if vfs == "cksmvfs":
        connection.reserve_bytes(reserve=8)
    assert connection.pragma("journal_mode", journal) == journal
    connection.pragma("synchronous", sync)
    connection.wal_autocheckpoint(8)
    return connection


def write(connection: apsw.Connection, acked: list[int], mark: Recorder | None = None) -> None:
    """Commits 1, 2, 3… and notes each in `acked` (the mark of a recorder, else its number)."""
    connection.execute("create table if not exists log(seq integer primary key, body blob, h blob)")
    connection.execute("create table if not exists state(k primary key, seq)")
    for i in range(1, COMMITS + 1):
        with connection:
            connection.execute("insert into log values(?,?,?)", (i, body_of(i), digest(i)))
            connection.execute("insert or replace into state values(?,?)", (i % 7, i))
        acked.append(mark.mark() if mark else i)


def digest(i: int) -> bytes:
    return hashlib.sha256(body_of(i)).digest()


def record(directory: Path, sync: str, journal: str = "wal", *, checksums: bool = False) -> tuple[list[Op], list[int]]:
    """What a store did to its files, and the mark behind each acknowledged commit."""
    directory.mkdir()
    recorder, acked = Recorder(directory), list[int]()
    with recording(recorder, checksums=checksums) as vfs:
        connection = connect(directory / "a.db", vfs, sync, journal)
        write(connection, acked, recorder)
        ops = list(recorder.ops)
        connection.close()
    return ops, acked


def commits_in(path: Path) -> int | str:
    """How many commits a store holds, or what is wrong with it."""
    if not path.exists():
        return 0
    try:
        connection = apsw.Connection(str(path))
        try:
            if connection.pragma("integrity_check") != "ok":
                return "corrupt"
            if not connection.table_exists("main", "state"):
                return 0
            rows = connection.execute("select seq, h from log order by seq").fetchall()
            state = dict(connection.execute("select k, seq from state").fetchall())
        finally:
            connection.close()
    except apsw.Error as error:
        return f"corrupt: {type(error).__name__}"
    if rows != [(i, digest(i)) for i in range(1, len(rows) + 1)]:
        return "a hole"
    return len(rows) if state == {i % 7: i for i in range(1, len(rows) + 1)} else "half a commit"


def outcomes(ops: Sequence[Op], acked: Sequence[int], directory: Path) -> collections.Counter[str]:
    """What became of the store in many power cuts at random places."""
    seen: collections.Counter[str] = collections.Counter()
    for seed in range(STATES):
        rng = random.Random(seed)
        k, mode = rng.randrange(1, len(ops) + 1), MODES[seed % len(MODES)]
        target = directory / f"{seed}"
        write_state(crash_state(ops, k, rng, mode), target)
        found = commits_in(target / "a.db")
        if isinstance(found, str):
            seen[found.split(":")[0]] += 1
        else:
            seen["lost" if found < sum(mark <= k for mark in acked) else "whole"] += 1
    return seen


@pytest.mark.parametrize("checksums", [False, True])
def test_wal_with_full_sync_loses_nothing(tmp_path: Path, checksums: bool) -> None:
    ops, acked = record(tmp_path / "live", "full", checksums=checksums)
    assert outcomes(ops, acked, tmp_path) == {"whole": STATES}


@pytest.mark.parametrize("checksums", [False, True])
def test_wal_with_normal_sync_loses_a_tail_and_never_corrupts(tmp_path: Path, checksums: bool) -> None:
    seen = outcomes(*record(tmp_path / "live", "normal", checksums=checksums), tmp_path)
    assert set(seen) == {"whole", "lost"}


def test_wal_without_sync_is_caught_corrupting(tmp_path: Path) -> None:
    seen = outcomes(*record(tmp_path / "live", "off"), tmp_path)
    assert sum(seen.values()) - seen["whole"] - seen["lost"] > STATES // 20, seen


def test_a_rollback_journal_without_a_synced_directory_is_caught_losing(tmp_path: Path) -> None:
    seen = outcomes(*record(tmp_path / "live", "full", "delete"), tmp_path)
    assert set(seen) == {"whole", "lost"}


def test_a_rollback_journal_with_extra_sync_loses_nothing(tmp_path: Path) -> None:
    assert outcomes(*record(tmp_path / "live", "extra", "delete"), tmp_path) == {"whole": STATES}


def test_a_sync_outside_sqlite_makes_commits_survive(tmp_path: Path) -> None:
    recorder, acked = Recorder(tmp_path), list[int]()
    with recording(recorder) as vfs:
        connection = connect(tmp_path / "a.db", vfs, "normal")
        connection.wal_autocheckpoint(0)
        write(connection, acked, recorder)
        with open(tmp_path / "a.db-wal", "rb+") as wal:
            recorder.datasync(tmp_path / "a.db-wal")(wal.fileno())
        k = recorder.mark()
        connection.close()
    without = [op for op in recorder.ops[:k] if op is not recorder.ops[k - 1]]
    for ops, want in ((recorder.ops, COMMITS), (without, 0)):
        target = tmp_path / f"cut-{want}"
        write_state(crash_state(ops, k, random.Random(0), "drop"), target)
        assert commits_in(target / "a.db") == want


def test_a_sync_covers_only_what_was_written_before_it_began() -> None:
    recorder = Recorder()
    recorder.wrote("a", 0, b"one")
    began = recorder.mark()
    recorder.wrote("a", 3, b"two")
    recorder.synced("a", began)
    assert crash_state(recorder.ops, 3, random.Random(0), "drop") == {"a": b"one"}


def test_what_was_there_before_survives(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "old").write_bytes(b"kept")
    recorder = Recorder(tmp_path)
    recorder.wrote(tmp_path / "sub" / "old", 0, b"NEW!")
    assert crash_state(recorder.ops, 1, random.Random(0), "drop") == {"sub/old": b"kept"}
    assert crash_state(recorder.ops, recorder.mark(), random.Random(0), "drop") == {"sub/old": b"kept"}


def test_a_rename_is_whole_and_only_a_sync_of_names_makes_it_stay(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    with recording_calls(recorder):
        fd = os.open(tmp_path / "new", os.O_RDWR | os.O_CREAT)
        os.pwrite(fd, b"body", 0)
        os.fsync(fd)
        made = recorder.mark()
        (tmp_path / "new").rename(tmp_path / "name")
        renamed = recorder.mark()
        sync_directory(tmp_path)
        synced = recorder.mark()
        (tmp_path / "name").unlink()
        os.close(fd)
    states = [crash_state(recorder.ops, renamed, random.Random(seed), "subset") for seed in range(40)]
    assert {tuple(state.items()) for state in states} == {(("new", b"body"),), (("name", b"body"),)}
    assert crash_state(recorder.ops, made, random.Random(1), "drop") == {"new": b"body"}
    assert crash_state(recorder.ops, synced, random.Random(1), "drop") == {"name": b"body"}
    gone = [crash_state(recorder.ops, recorder.mark(), random.Random(seed), "subset") for seed in range(40)]
    assert {bool(state) for state in gone} == {False, True}


@pytest.mark.parametrize("mode", MODES)
def test_a_synced_write_survives_every_mode(mode: Mode) -> None:
    recorder = Recorder()
    recorder.wrote("a", 0, bytes(range(256)) * 8)
    recorder.synced("a")
    recorder.wrote("b", 0, b"x" * 4096)
    for seed in range(50):
        assert crash_state(recorder.ops, 3, random.Random(seed), mode)["a"] == bytes(range(256)) * 8


def test_each_mode_does_what_it_says() -> None:
    recorder = Recorder()
    recorder.wrote("a", 0, b"x" * 4096)
    found = {
        mode: {crash_state(recorder.ops, 1, random.Random(seed), mode).get("a") for seed in range(60)} for mode in MODES
    }
    assert found["drop"] <= {None, b""}
    assert b"x" * 4096 in found["subset"]
    assert any(data and 0 < data.count(b"x") < 4096 and set(data) <= {0, 120} for data in found["torn"])
    assert any(data and len(set(data)) > 100 for data in found["garbage"])


def try_with(faults: Faults, directory: Path, at: int, error: str, sticky: bool) -> tuple[int, bool]:
    """One run in which the `at`-th call fails; how many commits were acknowledged, and whether it came to that."""
    directory.mkdir()
    acked: list[int] = []
    connection: apsw.Connection | None = None
    with faulty(faults) as vfs:
        faults.arm(at, "full" if error == "full" else "ioerr", sticky=sticky, torn=error == "full")
        with contextlib.suppress(apsw.Error):
            connection = connect(directory / "a.db", vfs, "full")
            write(connection, acked)
        hit = faults.hits > 0
        faults.disarm()
        if connection is not None:
            connection.close()
    return len(acked), hit


@pytest.mark.parametrize("sticky", [False, True])
@pytest.mark.parametrize("error", ["ioerr", "full"])
def test_no_failing_call_loses_an_acknowledged_commit(tmp_path: Path, error: str, sticky: bool) -> None:
    faults = Faults()
    for at in itertools.count(1, 5):
        acked, hit = try_with(faults, tmp_path / f"{at}", at, error, sticky)
        if not hit:
            break
        found = commits_in(tmp_path / f"{at}" / "a.db")
        assert isinstance(found, int), (at, found)
        assert acked <= found <= acked + 1, (at, acked, found)
    assert at > 100


def test_a_full_disk_is_an_apsw_full_error_and_ends_with_disarm(tmp_path: Path) -> None:
    faults = Faults(frozenset({"write"}))
    with faulty(faults, checksums=True) as vfs:
        connection = connect(tmp_path / "a.db", vfs, "full")
        connection.execute("create table t(x)")
        faults.arm(1, "full", sticky=True)
        with pytest.raises(apsw.FullError):
            connection.execute("insert into t values(1)")
        with pytest.raises(apsw.FullError):
            connection.execute("insert into t values(2)")
        faults.disarm()
        connection.execute("insert into t values(3)")
        assert connection.execute("select x from t").fetchall() == [(3,)]
        connection.close()


def test_a_failing_sync_is_an_io_error(tmp_path: Path) -> None:
    faults = Faults(frozenset({"sync"}))
    with faulty(faults) as vfs:
        connection = connect(tmp_path / "a.db", vfs, "full")
        connection.execute("create table t(x)")
        faults.arm(1)
        with pytest.raises(apsw.IOError, match="injected: sync number 1") as caught:
            connection.execute("insert into t values(1)")
        assert caught.value.extendedresult == apsw.SQLITE_IOERR_FSYNC
        connection.close()


def test_the_checksum_vfs_is_back_where_it_was(tmp_path: Path) -> None:
    default = apsw.vfs_names()[0]
    names = set(apsw.vfs_names())
    recorder = Recorder(tmp_path)
    with recording(recorder, checksums=True) as vfs:
        apsw.Connection(str(tmp_path / "a.db"), vfs=vfs).close()
    assert apsw.vfs_names()[0] == default
    assert set(apsw.vfs_names()) == names

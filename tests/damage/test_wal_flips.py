"""One turned bit in a WAL never costs two acknowledged commits unseen, and no honest power cut looks like one."""

from __future__ import annotations

import collections
import random
from pathlib import Path

import apsw
import pytest

from holdfast.sqlite.doctor import examine, prefill
from holdfast.testing.power import MODES, Op, Recorder, crash_state, recording, write_state

COMMITS = 500
FLIPS = 150  # test_log_flips.py turns more of them, in a whole log
STATES = 400
FRAME = 4120


@pytest.fixture
def tmp_path(memory_path: Path) -> Path:
    return memory_path


def connect(path: Path, vfs: str, sync: str, autocheckpoint: int) -> apsw.Connection:
    connection = apsw.Connection(str(path), vfs=vfs)
    if vfs == "cksmvfs":
        connection.reserve_bytes(reserve=8)
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", sync)
    connection.wal_autocheckpoint(autocheckpoint)
    connection.execute("create table rec(seq integer primary key, body blob)")
    connection.execute("create table counter(k primary key, v)")
    return connection


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a killed process leaves behind 500 acknowledged commits, none of them checkpointed."""
    path = tmp_path_factory.mktemp("left") / "a.db"
    with recording(Recorder(), checksums=True) as vfs:
        connection = connect(path, vfs, "full", 0)
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        for i in range(COMMITS):
            with connection:
                connection.execute("insert into rec values(?,?)", (i, random.Random(i).randbytes(300)))
        files = {end: Path(f"{path}{end}").read_bytes() for end in ("", "-wal")}
        connection.close()
    return files


def commits_that_sqlite_keeps(path: Path) -> int:
    connection = apsw.Connection(str(path), vfs="unix")
    count: int = connection.execute("select count(*) from rec").fetchone()[0]
    assert connection.pragma("integrity_check") == "ok", "SQLite itself says nothing of what it threw away"
    connection.close()
    return count


def test_every_flip_that_would_lose_two_commits_is_found(tmp_path: Path, left: dict[str, bytes]) -> None:
    path = tmp_path / "a.db"
    lost: collections.Counter[bool] = collections.Counter()
    for seed in range(FLIPS):
        rng = random.Random(seed)
        wal = bytearray(left["-wal"])
        # Half of them anywhere, half of them in the last eight frames, where finding them is hard.
        start = 0 if seed % 2 else len(wal) - 8 * FRAME
        offset, mask = rng.randrange(start, len(wal)), 1 << rng.randrange(8)
        wal[offset] ^= mask
        path.write_bytes(left[""])
        Path(f"{path}-wal").write_bytes(wal)
        found = examine(path)
        kept = commits_that_sqlite_keeps(path)
        lost[kept < COMMITS] += 1
        assert found.damaged or kept >= COMMITS - 1, (seed, offset, mask, kept, found)
        assert found.state == "header-damaged" or found.commits == kept
        for end in ("-wal", "-shm"):
            Path(f"{path}{end}").unlink(missing_ok=True)
    assert lost[True] == FLIPS, "each flip made SQLite drop commits without a word"


def record(directory: Path, sync: str, *, filled: bool, counting: bool) -> list[Op]:
    directory.mkdir()
    path, recorder = directory / "a.db", Recorder(directory)
    with recording(recorder, checksums=True) as vfs:
        connection = connect(path, vfs, sync, 40)
        if filled:
            wal = Path(f"{path}-wal")
            had = wal.stat().st_size
            recorder.wrote(wal, had, bytes(prefill(path, 600_000) - had))
            recorder.synced(wal)
        for i in range(120):
            with connection:
                if counting:
                    connection.execute("insert or replace into counter values(1, ?)", (i,))
                else:
                    body = random.Random(i).randbytes((40, 300, 3000, 9000)[i % 4])
                    connection.execute("insert into rec values(?, ?)", (i, body))
        ops = list(recorder.ops)
        connection.close()
    return ops


def diagnoses(ops: list[Op], directory: Path) -> collections.Counter[tuple[str, str]]:
    seen: collections.Counter[tuple[str, str]] = collections.Counter()
    for seed in range(STATES):
        rng, mode = random.Random(seed), MODES[seed % len(MODES)]
        files = crash_state(ops, rng.randrange(1, len(ops) + 1), rng, mode)
        write_state({n: data for n, data in files.items() if n.endswith("-wal")}, directory / str(seed))
        seen[examine(directory / str(seed) / "a.db").state, mode] += 1
    return seen


@pytest.mark.parametrize("counting", [False, True])
@pytest.mark.parametrize("filled", [False, True])
def test_no_honest_power_cut_is_called_damage(tmp_path: Path, filled: bool, counting: bool) -> None:
    seen = diagnoses(record(tmp_path / "live", "full", filled=filled, counting=counting), tmp_path)
    assert sum(seen["torn-tail", mode] for mode in MODES) > STATES // 8, "the cuts did tear tails"
    # A sector that holds rubbish may be the WAL's header while it is reset; then a copy is taken for nothing.
    seen.pop(("header-damaged", "garbage"), None)
    assert {state for state, _ in seen} <= {"absent", "empty", "clean", "torn-tail"}


def test_without_a_sync_per_commit_few_power_cuts_are_ambiguous(tmp_path: Path) -> None:
    seen = diagnoses(record(tmp_path / "live", "normal", filled=True, counting=False), tmp_path)
    assert sum(n for (state, _), n in seen.items() if "damaged" in state) <= STATES * 5 // 100

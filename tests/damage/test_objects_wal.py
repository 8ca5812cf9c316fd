"""SQLite files of objects after a killed process: a flipped bit in what it left is found, and never becomes data."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.errors import ObjectCorrupt, ObjectNotFound, StorageDenied, StorageFull
from holdfast.objects import SqliteStore
from holdfast.objects.database import Database
from holdfast.objects.layers.fallback import Fallback
from holdfast.objects.layers.mirrored import Mirrored
from holdfast.objects.memory import MemoryStore
from holdfast.objects.moving.journal import Journal
from holdfast.objects.queues.sqlite import SqliteQueues
from holdfast.objects.tables.sqlite import SqliteTables
from tests import forks

PUTS = 40
KEYS = 13
FRAME = 4120
FLIPS = 64

_WRITER = """
import os, sys, random
from holdfast.objects import SqliteStore
path, puts, keys, moved, pinned = sys.argv[1], *map(int, sys.argv[2:])
store = SqliteStore(path)
store.put("first", b"in the file")
store.close()
store = SqliteStore(path)
execute = store._database._write_connection().execute
execute("PRAGMA wal_autocheckpoint=0")
for i in range(puts):
    if i == pinned:
        moment = store._database.snapshot()
        moment.one("SELECT 1 FROM holdfast_object")
    body = bytes([i]) * (300, 4500, 20_000)[i % 3]
    store.put(f"k{i % keys}", body, metadata={"n": str(i)})
    if i == moved:
        execute("PRAGMA wal_checkpoint(PASSIVE)")
os._exit(9)
"""


def killed(path: Path, *, moved: int = -1, pinned: int = -1) -> None:
    """What a killed process leaves behind acknowledged puts; `moved`: after which a checkpoint moved them."""
    assert forks.run("-c", _WRITER, str(path), *map(str, (PUTS, KEYS, moved, pinned))).returncode == 9


def after(puts: int) -> dict[str, int]:
    """Which put each key is of, after so many."""
    return {f"k{i % KEYS}": i for i in range(puts)}


def found_in(store: SqliteStore) -> dict[str, int]:
    """Which put each key is of; every body is held to be of one put."""
    assert store.read("first") == b"in the file"
    seen = {}
    for info in store.list("k"):
        body = store.read(info.key)
        number = int(store.head(info.key).metadata["n"])
        assert body == bytes([number]) * (300, 4500, 20_000)[number % 3], "wrong data"
        seen[info.key] = number
    return seen


class Left:
    """Files of a killed process, put into a directory again and again, each time with another bit changed."""

    def __init__(self, directory: Path, **how: int) -> None:
        directory.mkdir()
        self.path = directory / "objects.db"
        killed(self.path, **how)
        self.files = {end: Path(f"{self.path}{end}").read_bytes() for end in ("", "-wal", "-shm")}

    def without_shm(self) -> None:
        """As a power cut leaves it, or whoever copied the two other files."""
        del self.files["-shm"]

    def again(self, change: Callable[[bytearray], None]) -> Path:
        """The files as they were left, but for a change of the WAL."""
        shutil.rmtree(f"{self.path}-quarantine", ignore_errors=True)
        Path(f"{self.path}-shm").unlink(missing_ok=True)
        wal = bytearray(self.files["-wal"])
        change(wal)
        for end, data in {**self.files, "-wal": bytes(wal)}.items():
            Path(f"{self.path}{end}").write_bytes(data)
        return self.path


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    return Left(tmp_path_factory.mktemp("left") / "plain")


def flip(seed: int, size: int) -> tuple[int, int]:
    """Where, and which bit: anywhere, in the last frames, in a frame's header, in the file's header."""
    rng = random.Random(seed)
    frames = (size - 32) // FRAME
    at = (
        rng.randrange(size),
        size - 1 - rng.randrange(4 * FRAME),
        32 + rng.randrange(frames) * FRAME + rng.randrange(24),
        rng.randrange(32),
    )[min(seed % 8, 3) if seed % 8 < 4 else seed % 2]
    return at, 1 << rng.randrange(8)


def turn(at: int, mask: int) -> Callable[[bytearray], None]:
    """What turns bits of one byte."""

    def change(wal: bytearray) -> None:
        wal[at] ^= mask

    return change


def put_in(at: int, noise: bytes) -> Callable[[bytearray], None]:
    """What puts noise in the place of bytes."""

    def change(wal: bytearray) -> None:
        wal[at : at + len(noise)] = noise

    return change


def judge(path: Path) -> str:
    """Opens what was left: refused, or found and said, or nothing was lost. Any other outcome is a failure."""
    try:
        store = SqliteStore(path, durable=False)  # the tests' time: nothing here is about syncs
    except ObjectCorrupt:
        return "refused"
    with store:
        seen = found_in(store)
        diagnosis, health = store._database.diagnosis, store.health()
        assert diagnosis is not None
        states = [puts for puts in range(PUTS + 1) if after(puts) == seen]
        assert states, f"a state that never was: {seen}"
        if states[-1] == PUTS and not health.degraded:
            return "harmless"
        assert health.ok
        assert health.degraded, (states, diagnosis)
        assert diagnosis.damaged or diagnosis.flipped
        store.put("later", b"goes on")
    with SqliteStore(path, durable=False) as store:
        assert store.health().degraded == health.degraded, "it is said until somebody has seen to it"
        assert store.read("later") == b"goes on"
    kept = sorted(Path(f"{path}-quarantine").glob("*/"))
    assert len(kept) == 1
    return "nothing lost" if states[-1] == PUTS else "told"


def test_a_whole_wal_of_a_killed_process_is_nothing_to_speak_of(left: Left) -> None:
    assert judge(left.again(lambda wal: None)) == "harmless"
    assert not Path(f"{left.path}-quarantine").exists()


def test_no_flipped_bit_undoes_a_put_unsaid(left: Left) -> None:
    seen: Counter[str] = Counter()
    for seed in range(FLIPS):
        at, mask = flip(seed, len(left.files["-wal"]))
        seen[judge(left.again(turn(at, mask)))] += 1
    assert seen == {"told": FLIPS}, "each of them made SQLite drop acknowledged puts"


def test_the_copies_are_what_was_found(left: Left, caplog: pytest.LogCaptureFixture) -> None:
    path = left.again(turn(9 * FRAME, 4))
    spoilt = Path(f"{path}-wal").read_bytes()
    with caplog.at_level(logging.WARNING, "holdfast"):
        SqliteStore(path).close()
    [kept] = Path(f"{path}-quarantine").glob("*/")
    assert (kept / "objects.db").read_bytes() == left.files[""]
    assert (kept / "objects.db-wal").read_bytes() == spoilt
    assert f"{path}-wal is damaged at frame 8: the last writes were undone" in caplog.text
    assert str(kept) in caplog.text
    [line] = Path(f"{path}-quarantine", "incidents.jsonl").read_text().splitlines()
    assert json.loads(line)["note"]["diagnosis"]["first_bad"] == 8


def test_large_damage_is_found_unless_it_hits_the_last_writes(left: Left) -> None:
    for at in range(40, len(left.files["-wal"]) - 9 * FRAME, 11 * FRAME + 100):
        noise = random.Random(at).randbytes(3000)
        assert judge(left.again(put_in(at, noise))) == "told"


def test_a_write_that_was_cut_short_is_noted_and_no_damage(left: Left) -> None:
    path = left.again(lambda wal: wal.__delitem__(slice(len(wal) - FRAME, None)))
    with SqliteStore(path) as store:
        health = store.health()
        assert (health.ok, health.degraded) == (True, "")
        assert "in the middle of a write" in health.note
        assert found_in(store) == after(PUTS - 1)
    assert not Path(f"{path}-quarantine").exists()


@pytest.mark.parametrize("shm", [True, False])
def test_what_a_checkpoint_had_moved_is_not_undone(tmp_path: Path, shm: bool) -> None:
    """The file has all of the WAL: to replay a part of it would put older pages over newer ones."""
    moved = Left(tmp_path / "moved", moved=PUTS - 1)
    if not shm:
        moved.without_shm()
    seen: Counter[str] = Counter()
    for seed in range(16):
        at, mask = flip(seed, len(moved.files["-wal"]))
        seen[judge(moved.again(turn(at, mask)))] += 1
    assert seen == {"nothing lost": 16}


def test_what_a_checkpoint_had_moved_in_part_is_refused_or_an_earlier_state(tmp_path: Path) -> None:
    part = Left(tmp_path / "part", moved=30, pinned=18)
    seen: Counter[str] = Counter()
    for seed in range(40):
        at, mask = flip(seed, len(part.files["-wal"]))
        path = part.again(turn(at, mask))
        before = Path(f"{path}-wal").read_bytes()
        seen[outcome := judge(path)] += 1
        if outcome == "refused":
            assert Path(f"{path}-wal").read_bytes() == before
            assert path.read_bytes() == part.files[""]
            assert not Path(f"{path}-quarantine").exists(), "nothing was touched, so nothing was copied"
    assert seen["refused"] > 5
    assert seen["told"] > 5
    assert set(seen) == {"refused", "told"}


def test_pages_that_were_written_unchanged_are_not_taken_for_moved_ones(tmp_path: Path) -> None:
    """Of a run that a checkpoint did not touch every damage is an earlier state, though the file is full."""
    again = Left(tmp_path / "again", moved=20)
    seen: Counter[str] = Counter()
    for seed in range(16):
        seen[judge(again.again(turn(*flip(seed, 99 * FRAME))))] += 1
    assert seen == {"told": 16}


def test_where_nothing_tells_how_far_a_checkpoint_went_a_doubt_is_refused(tmp_path: Path) -> None:
    part = Left(tmp_path / "part", moved=30, pinned=18)
    part.without_shm()
    seen: Counter[str] = Counter()
    for seed in range(24):
        seen[judge(part.again(turn(*flip(seed, len(part.files["-wal"])))))] += 1
    assert seen["refused"] > 3
    assert seen["told"] > 3
    assert set(seen) == {"refused", "told"}


def test_where_there_is_no_room_for_copies_nothing_is_opened(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    path = left.again(turn(5000, 1))
    before = Path(f"{path}-wal").read_bytes()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("holdfast.sqlite.quarantine.os.fsync", full)
        with pytest.raises(StorageFull, match="damaged at frame 1"):
            SqliteStore(path)
    assert Path(f"{path}-wal").read_bytes() == before
    assert judge(path) == "told"


def test_whoever_is_not_the_first_does_not_look(tmp_path: Path) -> None:
    """A WAL that is being written is no leftover: neither another thread nor another process judges it."""
    path = tmp_path / "objects.db"
    look = "import sys; from holdfast.objects import SqliteStore; s = SqliteStore(sys.argv[1]); s.put('x', b'x');"
    look += "print(s._database.diagnosis, flush=True); os = __import__('os'); os._exit(0)"
    with SqliteStore(path) as store:
        store.put("one", b"1")
        with SqliteStore(path) as other:
            assert other._database.diagnosis is None
        said = subprocess.run([sys.executable, "-c", look, str(path)], check=True, capture_output=True, text=True)
        assert said.stdout == "None\n"
        child = os.fork()
        if child == 0:
            store.put("child", b"2")
            os._exit(0 if store._database.diagnosis is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert store.read("child") == b"2"


def test_of_many_who_open_a_damaged_file_at_once_one_looks(left: Left) -> None:
    path = left.again(turn(5000, 1))
    words = [
        sys.executable,
        "-c",
        "import sys; from holdfast.objects import SqliteStore\n"
        "s = SqliteStore(sys.argv[1]); print(s._database.diagnosis is not None, flush=True); sys.stdin.read()",
        str(path),
    ]
    running = [subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = [one.stdout.readline() for one in running if one.stdout]
    for one in running:
        one.communicate("", timeout=60)
    assert Counter(said) == {"True\n": 1, "False\n": 3}
    assert len(list(Path(f"{path}-quarantine").glob("*/"))) == 1


def test_tables_queues_and_a_migrations_journal_say_it_too(left: Left) -> None:
    path = left.again(turn(5000, 1))
    with SqliteTables(path) as tables, SqliteQueues(path) as queues:
        assert "damaged at frame 1" in tables.health().degraded
        assert tables.health().degraded == queues.health().degraded
    with pytest.raises(ObjectCorrupt, match="may have forgotten what is still to be copied"):
        Journal(path)
    with Mirrored(SqliteStore(path), MemoryStore(), journal=MemoryStore()) as mirrored:
        assert "damaged at frame 1" in mirrored.health().degraded
    with Fallback(MemoryStore(), MemoryStore(), journal=SqliteStore(path)) as fallback:
        assert "damaged at frame 1" in fallback.health().degraded
    shutil.rmtree(f"{path}-quarantine")
    Journal(path).close()
    with SqliteStore(path) as store:
        assert store.health().degraded == ""
        with pytest.raises(ObjectNotFound):
            store.head("k1")


def test_a_database_that_may_not_be_written_is_refused_before_it_is_replayed(left: Left) -> None:
    path = left.again(turn(5000, 1))
    path.chmod(0o400)
    try:
        if os.access(path, os.W_OK):
            pytest.skip("root may write everything")
        with pytest.raises(StorageDenied):
            Database(path, "objects", ("",))
    finally:
        path.chmod(0o600)

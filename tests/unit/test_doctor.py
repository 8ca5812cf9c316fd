"""The WAL doctor says what SQLite would make of a WAL, and what it would throw away."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import apsw
import msgspec
import pytest

from holdfast.errors import NodeFull
from holdfast.sqlite import doctor
from holdfast.sqlite.doctor import Diagnosis, examine, prefill
from holdfast.sqlite.quarantine import quarantine

COMMITS = 12


def connect(path: Path, page_size: int = 4096) -> apsw.Connection:
    connection = apsw.Connection(str(path), vfs="unix")
    connection.pragma("page_size", page_size)
    assert connection.pragma("journal_mode", "wal") == "wal"
    connection.pragma("synchronous", "full")
    connection.wal_autocheckpoint(0)
    connection.execute("create table if not exists rec(seq integer primary key, body blob)")
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
    return connection


def add(connection: apsw.Connection, count: int, size: int = 300) -> None:
    for _ in range(count):
        with connection:
            connection.execute("insert into rec(body) values(?)", (random.Random(count).randbytes(size),))


def rows_in(path: Path) -> int:
    connection = apsw.Connection(str(path), vfs="unix")
    count: int = connection.execute("select count(*) from rec").fetchone()[0]
    connection.close()
    return count


def wal_of(path: Path) -> Path:
    return Path(f"{path}-wal")


@pytest.fixture
def live(tmp_path: Path) -> Iterator[apsw.Connection]:
    connection = connect(tmp_path / "live.db")
    yield connection
    connection.close()


@pytest.fixture
def left(tmp_path: Path, live: apsw.Connection) -> Path:
    """A database as a killed process leaves it: twelve commits in the WAL, each of at least one frame."""
    add(live, COMMITS)
    for end in ("", "-wal"):
        shutil.copy(f"{tmp_path / 'live.db'}{end}", f"{tmp_path / 'a.db'}{end}")
    return tmp_path / "a.db"


def spoil(path: Path, offset: int, mask: int = 1) -> None:
    data = bytearray(wal_of(path).read_bytes())
    data[offset] ^= mask
    wal_of(path).write_bytes(data)


def frame_at(number: int, page_size: int = 4096) -> int:
    return 32 + number * (page_size + 24)


def test_no_wal_is_absent(tmp_path: Path) -> None:
    assert examine(tmp_path / "a.db") == Diagnosis(state="absent")


@pytest.mark.parametrize("content", [b"", b"\1" * 31, bytes(32), bytes(1 << 20)])
def test_a_wal_without_a_frame_is_empty(tmp_path: Path, content: bytes) -> None:
    wal_of(tmp_path / "a.db").write_bytes(content)
    assert examine(tmp_path / "a.db") == Diagnosis(state="empty", size=len(content))


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_a_whole_wal_is_clean_and_counted(tmp_path: Path, page_size: int) -> None:
    connection = connect(tmp_path / "a.db", page_size)
    add(connection, COMMITS, size=page_size * 2)
    found = examine(tmp_path / "a.db")
    frames = (wal_of(tmp_path / "a.db").stat().st_size - 32) // (page_size + 24)
    assert (found.state, found.page_size, found.commits, found.frames) == ("clean", page_size, COMMITS, frames)
    assert found.first_bad is None
    connection.close()


def test_examining_changes_nothing(left: Path) -> None:
    before = [Path(f"{left}{end}").read_bytes() for end in ("", "-wal")]
    examine(left)
    assert [Path(f"{left}{end}").read_bytes() for end in ("", "-wal")] == before
    assert not Path(f"{left}-shm").exists()


def test_frames_of_an_older_run_are_not_counted(tmp_path: Path, live: apsw.Connection) -> None:
    add(live, 20)
    live.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
    add(live, 3)
    found = examine(tmp_path / "live.db")
    assert (found.state, found.commits, found.first_bad) == ("clean", 3, None)
    assert found.size > frame_at(found.frames + 5)


def test_big_endian_checksums_are_understood(left: Path) -> None:
    data = bytearray(wal_of(left).read_bytes())
    data[3] |= 1
    seed = doctor._checksum(bytes(data[:24]), (0, 0), big=True)
    data[24:32] = b"".join(s.to_bytes(4, "big") for s in seed)
    for start in range(32, len(data), 4120):
        half = doctor._checksum(bytes(data[start : start + 8]), seed, big=True)
        seed = doctor._checksum(bytes(data[start + 24 : start + 4120]), half, big=True)
        data[start + 16 : start + 24] = b"".join(s.to_bytes(4, "big") for s in seed)
    wal_of(left).write_bytes(data)
    assert examine(left).commits == COMMITS
    assert rows_in(left) == COMMITS, "SQLite agrees that this is a WAL"


def test_a_flip_in_the_middle_is_damage_that_sqlite_would_swallow(left: Path) -> None:
    spoil(left, frame_at(4) + 2000)
    found = examine(left)
    assert found.damaged
    assert found.flipped
    assert found.first_bad == 4
    assert found.commits + 1 + found.commits_behind == COMMITS
    assert rows_in(left) == found.commits


@pytest.mark.parametrize("place", [0, 4, 8, 12, 16, 20, 24, 4119])
def test_a_flip_in_the_last_commit_but_one_is_damage(left: Path, place: int) -> None:
    last = examine(left).frames - 1
    spoil(left, frame_at(last - 1) + place)
    assert examine(left).state == "damaged"


def test_a_flip_in_the_last_commit_looks_torn_and_is_left_to_the_anchor(left: Path) -> None:
    last = examine(left).frames - 1
    spoil(left, frame_at(last) + 1000)
    found = examine(left)
    assert (found.state, found.flipped, found.commits) == ("torn-tail", True, COMMITS - 1)


def test_many_spoilt_bytes_are_damage_when_two_commits_lie_behind(left: Path) -> None:
    data = bytearray(wal_of(left).read_bytes())
    data[frame_at(5) : frame_at(6) + 100] = random.Random(1).randbytes(4220)
    wal_of(left).write_bytes(data)
    found = examine(left)
    assert (found.state, found.first_bad, found.flipped) == ("damaged", 5, False)


@pytest.mark.parametrize("keep", [1, 23, 24, 2000, 4119])
def test_a_cut_last_frame_is_a_torn_tail_or_nothing(left: Path, keep: int) -> None:
    frames = examine(left).frames
    with wal_of(left).open("rb+") as file:
        file.truncate(frame_at(frames - 1) + keep)
    found = examine(left)
    assert not found.damaged
    assert (found.commits, found.frames) == (COMMITS - 1, frames - 1)


def test_uncommitted_frames_are_a_torn_tail(tmp_path: Path, live: apsw.Connection) -> None:
    add(live, 2)
    live.pragma("cache_size", 5)
    live.execute("begin")
    live.execute("insert into rec(body) values(?)", (bytes(200_000),))  # spills into the WAL
    found = examine(tmp_path / "live.db")
    assert (found.state, found.commits) == ("torn-tail", 2)
    live.execute("rollback")


@pytest.mark.parametrize("offset", range(32))
def test_any_flip_in_the_header_is_header_damage(left: Path, offset: int) -> None:
    spoil(left, offset, 1 << offset % 8)
    found = examine(left)
    assert found.state == "header-damaged"
    assert found.commits_behind >= COMMITS - 1
    assert found.page_size == 4096


def test_a_spoilt_header_is_understood_without_the_database_file(left: Path) -> None:
    spoil(left, 10)
    left.unlink()
    assert examine(left).commits_behind == COMMITS


def test_rubbish_is_header_damage(tmp_path: Path) -> None:
    wal_of(tmp_path / "a.db").write_bytes(random.Random(0).randbytes(50_000))
    assert examine(tmp_path / "a.db").state == "header-damaged"


def test_the_lanes_agree_with_the_plain_checksum() -> None:
    rng = random.Random(5)
    for page_size, n, big in ((512, 1, False), (512, 7, True), (4096, 3, False), (1024, 40, True)):
        frames = [rng.randbytes(page_size + 24) for _ in range(n)]
        seed, sums = (0xFFFFFFFF, 0xFFFFFFFF), list[int]()
        for i, frame in enumerate(frames):
            half = doctor._checksum(frame[:8], seed, big=big)
            seed = doctor._checksum(frame[24:], half, big=big)
            sums += [*seed[:1], seed[1] ^ (i == 2)]  # frame 2 says something wrong, so 3 is judged from it
            seed = (sums[-2], sums[-1])
        found = doctor._misfits(
            doctor.array("Q", b"".join(frames)), (page_size + 24) // 8, tuple(sums), (0xFFFFFFFF, 0xFFFFFFFF), big=big
        )
        assert found == [i == 2 for i in range(n)]


def test_lanes_full_of_ones_do_not_overflow() -> None:
    frame = b"\xff" * 65560
    half = doctor._checksum(frame[:8], (0xFFFFFFFF, 0xFFFFFFFF), big=False)
    stored = doctor._checksum(frame[24:], half, big=False)
    quads = doctor.array("Q", frame)
    assert doctor._misfits(quads, 8195, stored, (0xFFFFFFFF, 0xFFFFFFFF), big=False) == [False]


# -- prefill ----------------------------------------------------------------------------------------------------


def test_prefill_gives_the_wal_its_size_and_loses_nothing(tmp_path: Path, live: apsw.Connection) -> None:
    add(live, 5)
    assert prefill(tmp_path / "live.db", 1 << 20) == 1 << 20
    add(live, 5)
    assert wal_of(tmp_path / "live.db").stat().st_size == 1 << 20
    assert examine(tmp_path / "live.db").commits == 10
    for end in ("", "-wal"):
        shutil.copy(f"{tmp_path / 'live.db'}{end}", f"{tmp_path / 'b.db'}{end}")
    assert rows_in(tmp_path / "b.db") == 10


def test_prefill_before_the_header_is_an_empty_wal_to_sqlite(tmp_path: Path, live: apsw.Connection) -> None:
    add(live, 3)
    live.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    assert prefill(tmp_path / "live.db", 300_000) == 300_000
    assert examine(tmp_path / "live.db").state == "empty"
    shutil.copy(tmp_path / "live.db", tmp_path / "b.db")
    shutil.copy(tmp_path / "live.db-wal", tmp_path / "b.db-wal")
    assert rows_in(tmp_path / "b.db") == 3
    add(live, 3)
    assert examine(tmp_path / "live.db").commits == 3


def test_prefill_never_shortens_and_never_creates(tmp_path: Path, left: Path) -> None:
    size = wal_of(left).stat().st_size
    assert prefill(left, 100) == size == wal_of(left).stat().st_size
    assert prefill(tmp_path / "none.db", 4096) == 0
    assert not wal_of(tmp_path / "none.db").exists()


def test_prefill_over_many_stale_frames_leaves_them(tmp_path: Path, live: apsw.Connection) -> None:
    add(live, 20)
    before = wal_of(tmp_path / "live.db").read_bytes()
    prefill(tmp_path / "live.db", len(before) + 10_000)
    assert wal_of(tmp_path / "live.db").read_bytes() == before + bytes(10_000)


# -- quarantine -------------------------------------------------------------------------------------------------


def test_a_quarantine_holds_exact_copies_and_one_line_says_so(tmp_path: Path, left: Path) -> None:
    (tmp_path / "a.anchor").write_bytes(b"mark")
    (tmp_path / "more").write_bytes(b"")
    into = tmp_path / "q" / "quarantine"
    made = quarantine(
        left,
        into,
        also=(tmp_path / "more", tmp_path / "a.anchor", tmp_path / "not-there"),
        note={"diagnosis": examine(left)},
    )
    again = quarantine(left, into)
    assert made.parent == into
    assert sorted(p.name for p in made.iterdir()) == ["a.anchor", "a.db", "a.db-wal", "more"]
    assert all((made / p.name).read_bytes() == (tmp_path / p.name).read_bytes() for p in made.iterdir())
    lines = [msgspec.json.decode(line) for line in (into / "incidents.jsonl").read_bytes().splitlines()]
    assert [line["incident"] for line in lines] == [made.name, again.name]
    assert lines[0]["note"]["diagnosis"]["state"] == "clean"
    assert {f["name"]: f["size"] for f in lines[0]["files"]}["a.db"] == left.stat().st_size
    assert (made.stat().st_mode & 0o777, (made / "a.db").stat().st_mode & 0o777) == (0o700, 0o600)


def test_a_torn_line_in_the_incidents_does_not_swallow_the_next(tmp_path: Path, left: Path) -> None:
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "incidents.jsonl").write_bytes(b'{"incident":"half')
    made = quarantine(left, tmp_path / "q")
    last = (tmp_path / "q" / "incidents.jsonl").read_bytes().splitlines()[-1]
    assert msgspec.json.decode(last)["incident"] == made.name


def test_a_quarantine_without_room_leaves_nothing(tmp_path: Path, left: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("holdfast.sqlite.quarantine.os.fsync", full)
    with pytest.raises(NodeFull):
        quarantine(left, tmp_path / "q")
    assert list((tmp_path / "q").iterdir()) == []

"""The disk guard refuses before the disk is full, asks the disk rarely, and gives its ballast back once."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from holdfast.corpus.space import LOOK_EVERY_BYTES, LOOK_EVERY_S, Reserve
from holdfast.errors import NodeFull

MIB = 1 << 20


class Disk:
    """A disk with as much room as the test says, and a clock that stands still."""

    def __init__(self, free: int) -> None:
        self.free, self.looks, self.at = free, 0, 100.0

    def statvfs(self, path: Path) -> SimpleNamespace:
        self.looks += 1
        return SimpleNamespace(f_bavail=self.free // 4096, f_frsize=4096, f_blocks=1 << 20)

    def now_ms(self) -> int:
        return 0

    def monotonic(self) -> float:
        return self.at


def guard(path: Path, disk: Disk, ballast: int = MIB, floor: int = 64 * MIB) -> Reserve:
    return Reserve(path, ballast_bytes=ballast, floor_bytes=floor, statvfs=disk.statvfs, clock=disk)


def test_a_write_passes_while_the_floor_is_free(tmp_path: Path) -> None:
    guard(tmp_path, Disk(64 * MIB)).check()


def test_a_write_is_refused_below_the_floor_and_the_error_says_how_much(tmp_path: Path) -> None:
    with pytest.raises(NodeFull, match="63 MiB free") as caught:
        guard(tmp_path, Disk(64 * MIB - 4096)).check()
    assert caught.value.context == {"free": 64 * MIB - 4096, "floor": 64 * MIB}


def test_a_write_that_would_go_below_the_floor_is_refused(tmp_path: Path) -> None:
    reserve = guard(tmp_path, Disk(66 * MIB))
    with pytest.raises(NodeFull):
        reserve.check(3 * MIB)
    reserve.check(2 * MIB)


def test_the_disk_is_asked_once_in_a_quarter_second(tmp_path: Path) -> None:
    disk = Disk(100 * MIB)
    reserve = guard(tmp_path, disk)
    for _ in range(1000):
        reserve.check(100)
    assert disk.looks == 1
    disk.at += LOOK_EVERY_S
    reserve.check()
    assert disk.looks == 2


def test_the_disk_is_asked_again_after_4_mib(tmp_path: Path) -> None:
    disk = Disk(100 * MIB)
    reserve = guard(tmp_path, disk)
    reserve.check()
    reserve.check(LOOK_EVERY_BYTES - 1)
    assert disk.looks == 1
    disk.free = 0
    with pytest.raises(NodeFull):
        reserve.check(1)


def test_what_was_let_through_counts_before_the_disk_is_asked_again(tmp_path: Path) -> None:
    disk = Disk(64 * MIB + 8192)
    reserve = guard(tmp_path, disk)
    reserve.check(4096)
    reserve.check(4096)
    with pytest.raises(NodeFull):
        reserve.check(4096)
    assert disk.looks == 1


def test_a_refusal_ends_as_soon_as_space_returns(tmp_path: Path) -> None:
    disk = Disk(0)
    reserve = guard(tmp_path, disk)
    with pytest.raises(NodeFull):
        reserve.check()
    disk.free = 65 * MIB
    reserve.check()


def test_the_ballast_takes_real_blocks_and_is_private(tmp_path: Path) -> None:
    reserve = guard(tmp_path, Disk(100 * MIB))
    assert reserve.ensure()
    found = os.stat(tmp_path / "ballast")
    assert found.st_size == MIB
    assert found.st_blocks * 512 >= MIB
    assert found.st_mode & 0o777 == 0o600
    assert reserve.state().ballast == MIB


def test_the_ballast_is_given_back_once(tmp_path: Path) -> None:
    reserve = guard(tmp_path, Disk(100 * MIB))
    reserve.ensure()
    assert reserve.release() == MIB
    assert reserve.release() == 0
    assert not (tmp_path / "ballast").exists()


def test_the_ballast_comes_back_only_when_it_leaves_the_floor(tmp_path: Path) -> None:
    disk = Disk(65 * MIB)
    reserve = guard(tmp_path, disk)
    assert not reserve.ensure()
    disk.free += 4096
    assert reserve.ensure()


def test_half_a_ballast_is_completed(tmp_path: Path) -> None:
    (tmp_path / "ballast").write_bytes(bytes(1000))
    assert guard(tmp_path, Disk(100 * MIB)).ensure()
    assert (tmp_path / "ballast").stat().st_size == MIB


def test_a_ballast_of_holes_is_no_ballast(tmp_path: Path) -> None:
    with (tmp_path / "ballast").open("wb") as file:
        file.truncate(MIB)
    reserve = guard(tmp_path, Disk(100 * MIB))
    assert reserve.state().ballast == 0
    assert reserve.ensure()
    assert reserve.state().ballast == MIB


def test_without_posix_fallocate_zeros_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    assert guard(tmp_path, Disk(100 * MIB), ballast=MIB + 5).ensure()
    assert (tmp_path / "ballast").read_bytes() == bytes(MIB + 5)


@pytest.mark.parametrize("native", [True, False])
def test_a_ballast_that_does_not_fit_is_removed(tmp_path: Path, native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    if native:
        monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    else:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
        monkeypatch.setattr(os, "write", full)
    assert not guard(tmp_path, Disk(100 * MIB)).ensure()
    assert not (tmp_path / "ballast").exists()


def test_a_second_reserve_sees_the_first_ones_ballast(tmp_path: Path) -> None:
    disk = Disk(100 * MIB)
    guard(tmp_path, disk).ensure()
    other = guard(tmp_path, disk)
    assert other.ensure()
    assert disk.looks == 1
    assert other.release() == MIB


def test_no_ballast_may_be_wanted(tmp_path: Path) -> None:
    assert guard(tmp_path, Disk(0), ballast=0).ensure()
    assert not (tmp_path / "ballast").exists()


def test_the_state_names_everything_and_agrees_with_the_real_disk(tmp_path: Path) -> None:
    state = Reserve(tmp_path, floor_bytes=1).state()
    assert 0 < state.free <= state.total
    assert state.writable
    assert (state.floor, state.ballast, state.ballast_wanted) == (1, 0, 20 * MIB)
    assert not guard(tmp_path, Disk(0)).state().writable

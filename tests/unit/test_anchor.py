"""The anchor remembers the newest durable head, whatever becomes of the last write to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.log.anchor import Anchor, Mark

SLOT = 4096


def mark(seq: int) -> Mark:
    return Mark(b"s" * 16, seq, bytes([seq % 256]) * 32, seq << 16)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.anchor"


def test_a_new_anchor_has_seen_nothing(path: Path) -> None:
    anchor = Anchor(path)
    assert anchor.read() is None
    anchor.close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_last_mark_is_read_back_here_and_after_opening_again(path: Path) -> None:
    anchor = Anchor(path)
    for seq in range(1, 20):
        anchor.write(mark(seq))
        if seq % 5 == 0:
            anchor.sync()
        assert anchor.read() == mark(seq)
        again = Anchor(path)
        assert again.read() == mark(seq)
        again.close()
    anchor.close()
    anchor.close()
    assert path.stat().st_size <= 2 * SLOT


@pytest.mark.parametrize("writes", [2, 3, 10, 11])
def test_a_torn_or_rotten_write_leaves_the_mark_before_it(path: Path, writes: int) -> None:
    anchor = Anchor(path)
    for seq in range(1, writes):
        anchor.write(mark(seq))
    before = path.read_bytes().ljust(2 * SLOT, b"\0")
    anchor.write(mark(writes))
    anchor.close()
    after = path.read_bytes().ljust(2 * SLOT, b"\0")
    changed = [at for at in range(2 * SLOT) if before[at] != after[at]]
    slot = changed[0] // SLOT
    assert {at // SLOT for at in changed} == {slot}, "a write touches one slot"
    whole = [at for at in range(slot * SLOT, (slot + 1) * SLOT) if after[at]][-1] + 1
    for at in range(slot * SLOT, whole):
        path.write_bytes(after[:at] + before[at:])  # torn: the beginning is new, the rest is old
        again = Anchor(path)
        torn = again.read()
        again.close()
        assert torn in (mark(writes - 1), mark(writes), mark(writes - 2) if writes > 2 else None)
        assert torn is not None
        rotten = bytearray(after)
        rotten[at] ^= 1 << at % 8
        path.write_bytes(rotten)
        again = Anchor(path)
        assert again.read() == mark(writes - 1)
        again.write(mark(writes + 1))  # and it goes on from there
        assert again.read() == mark(writes + 1)
        again.close()


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * SLOT, os.urandom(2 * SLOT), b"hf/anc/1" + bytes(5000)])
def test_a_file_that_is_no_anchor_says_nothing_and_can_be_written(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    anchor = Anchor(path)
    assert anchor.read() is None
    anchor.write(mark(5))
    anchor.write(mark(6))
    assert anchor.read() == mark(6)
    anchor.close()


def test_of_two_processes_marks_the_newer_wins(path: Path) -> None:
    one, other = Anchor(path), Anchor(path)
    for seq, anchor in enumerate([one, one, other, one, other, other, other, one], 1):
        anchor.write(mark(seq))
        assert one.read() == other.read() == mark(seq)
    one.close()
    other.close()


def test_a_mark_of_another_stream_is_told_apart(path: Path) -> None:
    anchor = Anchor(path)
    anchor.write(mark(3))
    moved = mark(4)._replace(stream=b"t" * 16)
    anchor.write(moved)
    assert anchor.read() == moved
    anchor.close()

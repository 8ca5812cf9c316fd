"""A blob that rotted is never returned; a killed or a full put leaves nothing that counts."""

from __future__ import annotations

import hashlib
import os
import random
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from holdfast.errors import BlobCorrupt, NodeFull, NotFound
from holdfast.objects import BlobFiles

SIZE = 3 * (1 << 20) + 17
BODY = random.Random(1).randbytes(SIZE)
DIGEST = hashlib.sha256(BODY).digest()
INTERESTING = (0, 1, 4095, (1 << 20) - 1, 1 << 20, SIZE // 2, SIZE - 1)


@pytest.fixture
def blobs(tmp_path: Path) -> BlobFiles:
    found = BlobFiles(tmp_path / "blobs")
    found.put(BODY)
    return found


def partials(root: Path) -> list[Path]:
    return sorted((root / "partial").iterdir())


def spoil(blobs: BlobFiles, offset: int) -> None:
    with blobs.path(DIGEST).open("rb+") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << offset % 8]))


@pytest.mark.parametrize("offset", INTERESTING)
def test_a_flipped_bit_is_never_returned(blobs: BlobFiles, offset: int) -> None:
    spoil(blobs, offset)
    with pytest.raises(BlobCorrupt):
        blobs.read(DIGEST)
    with pytest.raises(BlobCorrupt):
        blobs.read(DIGEST, 100, 10)
    assert not blobs.verify(DIGEST)


@pytest.mark.parametrize("piece", [1 << 12, 1 << 20, SIZE, SIZE * 2])
def test_a_stream_of_a_rotten_blob_never_reaches_its_end(blobs: BlobFiles, piece: int) -> None:
    spoil(blobs, 5)
    got: list[bytes] = []
    with blobs.open(DIGEST) as reader, pytest.raises(BlobCorrupt):
        got.extend(iter(lambda: reader.read(piece), b""))
    assert sum(map(len, got)) < SIZE


def test_a_rotten_last_piece_is_not_left_in_the_callers_buffer(blobs: BlobFiles) -> None:
    spoil(blobs, 5)
    buffer = bytearray(SIZE)
    with blobs.open(DIGEST) as reader, pytest.raises(BlobCorrupt):
        reader.readinto(buffer)
    assert not any(buffer)


@pytest.mark.parametrize("size", [0, 1, SIZE - 1, SIZE + 1])
def test_a_blob_of_another_size_is_never_returned(blobs: BlobFiles, size: int) -> None:
    with blobs.path(DIGEST).open("rb+") as file:
        file.truncate(size)
    with pytest.raises(BlobCorrupt):
        blobs.read(DIGEST)


def test_a_blob_that_shrinks_while_it_is_read_is_noticed(blobs: BlobFiles) -> None:
    with blobs.open(DIGEST) as reader:
        reader.read(1000)
        os.truncate(blobs.path(DIGEST), 2000)
        with pytest.raises(BlobCorrupt):
            reader.readall()


@pytest.mark.parametrize("whole", [True, False])
def test_putting_a_rotten_blob_again_heals_it(blobs: BlobFiles, whole: bool) -> None:
    spoil(blobs, 77)
    blobs.put(BODY if whole else [BODY[:10], BODY[10:]])
    assert blobs.read(DIGEST) == BODY


def test_a_link_in_a_blobs_place_is_not_followed(blobs: BlobFiles, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(BODY)
    blobs.path(DIGEST).unlink()
    blobs.path(DIGEST).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        blobs.read(DIGEST)


@pytest.mark.parametrize("offset", INTERESTING)
def test_an_upload_with_one_wrong_bit_is_dropped_and_can_begin_anew(tmp_path: Path, offset: int) -> None:
    blobs = BlobFiles(tmp_path)
    wrong = bytearray(BODY)
    wrong[offset] ^= 4
    blobs.append(DIGEST, 0, bytes(wrong))
    with pytest.raises(BlobCorrupt):
        blobs.finish(DIGEST)
    assert not blobs.has(DIGEST)
    assert blobs.resume(DIGEST) == 0
    blobs.append(DIGEST, 0, BODY)
    blobs.finish(DIGEST)
    assert blobs.read(DIGEST) == BODY


def test_an_upload_whose_tail_a_power_cut_left_as_zeros_is_dropped(tmp_path: Path) -> None:
    blobs = BlobFiles(tmp_path)
    blobs.append(DIGEST, 0, BODY[:-5000])
    with partials(tmp_path)[0].open("rb+") as file:
        file.seek(-3000, 2)
        file.write(bytes(3000))
    blobs.append(DIGEST, SIZE - 5000, BODY[-5000:])
    with pytest.raises(BlobCorrupt):
        blobs.finish(DIGEST)
    assert partials(tmp_path) == []


PUT_AND_STALL = """
import sys, pathlib
from holdfast.objects import BlobFiles
blobs = BlobFiles(pathlib.Path(sys.argv[1]))
def pieces():
    yield bytes(1 << 20)
    print("in the middle", flush=True)
    sys.stdin.read()
if sys.argv[2] == "put":
    blobs.put(pieces())
else:
    for piece in pieces():
        blobs.append(bytes.fromhex(sys.argv[3]), 0, piece)
"""


@pytest.mark.parametrize("how", ["put", "append"])
def test_a_writer_killed_in_the_middle_leaves_only_a_partial(tmp_path: Path, how: str) -> None:
    blobs = BlobFiles(tmp_path / "blobs")
    child = subprocess.Popen(
        [sys.executable, "-c", PUT_AND_STALL, str(tmp_path / "blobs"), how, DIGEST.hex()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"in the middle\n"
        if how == "put":
            assert blobs.sweep(-3600) == 0, "it is being written"
        child.kill()
    assert list(blobs.iter()) == []
    assert len(partials(tmp_path / "blobs")) == 1
    assert blobs.resume(DIGEST) == (0 if how == "put" else 1 << 20)
    assert blobs.sweep(3600) == 0
    assert blobs.sweep(-3600) == 1
    assert partials(tmp_path / "blobs") == []


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process may grow past `size`: a full disk without root (Python ignores SIGXFSZ)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_put_without_room_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    blobs = BlobFiles(tmp_path)
    with file_size_limit(1 << 20), pytest.raises(NodeFull):
        blobs.put(BODY)
    assert (list(blobs.iter()), partials(tmp_path)) == ([], [])
    blobs.put(BODY)
    assert blobs.read(DIGEST) == BODY


def test_an_upload_without_room_says_so_and_gives_its_room_back(tmp_path: Path) -> None:
    blobs = BlobFiles(tmp_path)
    blobs.append(DIGEST, 0, BODY[:1000])
    with file_size_limit(1 << 20), pytest.raises(NodeFull):
        blobs.append(DIGEST, 1000, BODY[1000:])
    assert partials(tmp_path) == []
    with pytest.raises(NotFound):
        blobs.finish(DIGEST)


@pytest.mark.parametrize("call", ["fsync", "open", "mkdir"])
def test_a_disk_that_fills_at_any_step_says_so(tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = BlobFiles(tmp_path)
    blobs.put(b"another, so that the directories are there")
    real = getattr(os, call)

    def full(*args: object, **named: object) -> object:
        if call == "open" and not int(args[1]) & os.O_CREAT:  # type: ignore[call-overload]
            return real(*args, **named)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(NodeFull):
            blobs.put(BODY)
    assert partials(tmp_path) == []
    assert not blobs.has(DIGEST)


def test_writers_in_many_processes_make_one_blob(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom holdfast.objects import BlobFiles\n"
        "body = bytes(range(256)) * 8192\n"
        "for _ in range(10): BlobFiles(pathlib.Path(sys.argv[1])).put([body[:9], body[9:]])\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(3)]
    assert [child.wait() for child in children] == [0, 0, 0]
    blobs = BlobFiles(tmp_path)
    digests = list(blobs.iter())
    assert [blobs.read(d) for d in digests] == [bytes(range(256)) * 8192]
    assert partials(tmp_path) == []

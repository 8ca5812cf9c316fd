"""Blob files keep bytes by their digest: whole or not there, resumable, and private."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from holdfast.errors import BlobCorrupt, Conflict, NotFound, UsageError
from holdfast.objects import BlobFiles

BODY = bytes(range(256)) * 9000  # more than two pieces of 1 MiB
DIGEST = hashlib.sha256(BODY).digest()


@pytest.fixture
def blobs(tmp_path: Path) -> BlobFiles:
    return BlobFiles(tmp_path / "blobs")


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def left_in(blobs: BlobFiles) -> list[str]:
    partial = blobs.path(bytes(32)).parents[2] / "partial"
    return os.listdir(partial) if partial.exists() else []


def test_bytes_pieces_and_a_file_become_the_same_blob(blobs: BlobFiles, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(BODY)
    for source in (BODY, bytearray(BODY), iter([BODY[:100], b"", BODY[100:]]), tmp_path / "source"):
        assert blobs.put(source) == (DIGEST, len(BODY))
        assert blobs.read(DIGEST) == BODY
    assert list(blobs.iter()) == [DIGEST]
    assert left_in(blobs) == []


def test_a_blob_lies_under_its_digest_and_is_private(blobs: BlobFiles, tmp_path: Path) -> None:
    blobs.put(BODY)
    name = DIGEST.hex()
    path = tmp_path / "blobs" / name[:2] / name[2:4] / name
    assert path == blobs.path(DIGEST)
    assert path.stat().st_mode & 0o777 == 0o600
    assert {p.stat().st_mode & 0o777 for p in [*path.parents][:3]} == {0o700}
    assert (tmp_path / "blobs" / "partial").stat().st_mode & 0o777 == 0o700


def test_an_empty_blob_is_a_blob(blobs: BlobFiles) -> None:
    digest, size = blobs.put(b"")
    assert (digest, size) == (sha(b""), 0)
    assert blobs.read(digest) == b""
    assert blobs.has(digest)


def test_the_expected_digest_must_be_met(blobs: BlobFiles) -> None:
    assert blobs.put([BODY], expect=DIGEST) == (DIGEST, len(BODY))
    with pytest.raises(BlobCorrupt):
        blobs.put([b"other"], expect=DIGEST)
    with pytest.raises(BlobCorrupt):
        blobs.put(b"other", expect=DIGEST)
    assert list(blobs.iter()) == [DIGEST]
    assert left_in(blobs) == []


def test_a_source_that_fails_leaves_nothing(blobs: BlobFiles) -> None:
    def source() -> object:
        yield b"one"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        blobs.put(source())  # type: ignore[arg-type]
    assert (list(blobs.iter()), left_in(blobs)) == ([], [])


def test_a_blob_over_the_limit_is_refused(tmp_path: Path) -> None:
    blobs = BlobFiles(tmp_path, limit=10)
    blobs.put(b"0123456789")
    with pytest.raises(UsageError, match="10 bytes"):
        blobs.put([b"0123456789", b"a"])
    assert blobs.append(sha(b"x"), 0, b"01234") == 5
    with pytest.raises(UsageError):
        blobs.append(sha(b"x"), 5, b"567890")
    assert left_in(blobs) == []


@pytest.mark.parametrize(("offset", "length"), [(0, 0), (0, 1), (1, None), (1048575, 2), (2303999, 9), (9999999, 5)])
@pytest.mark.parametrize("verify", [True, False])
def test_a_range_is_the_slice(blobs: BlobFiles, offset: int, length: int | None, verify: bool) -> None:
    blobs.put(BODY)
    want = BODY[offset:] if length is None else BODY[offset : offset + length]
    assert blobs.read(DIGEST, offset, length, verify=verify) == want


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, -1)])
def test_a_range_that_is_none_is_refused(blobs: BlobFiles, offset: int, length: int) -> None:
    with pytest.raises(UsageError):
        blobs.read(DIGEST, offset, length)


def test_a_reader_streams_and_knows_the_size(blobs: BlobFiles) -> None:
    blobs.put(BODY)
    with blobs.open(DIGEST) as reader:
        assert reader.size == len(BODY)
        assert reader.read(7) + reader.read() == BODY
        assert reader.read(1) == b""
    with pytest.raises(ValueError, match="closed"):
        reader.read(1)


def test_what_is_not_there_is_not_found(blobs: BlobFiles) -> None:
    for call in (blobs.open, blobs.read, blobs.size, blobs.finish):
        with pytest.raises(NotFound):
            call(DIGEST)
    assert not blobs.has(DIGEST)
    assert not blobs.verify(DIGEST)
    assert not blobs.delete(DIGEST)
    assert list(blobs.iter()) == []
    assert blobs.sweep(0) == 0
    assert blobs.resume(DIGEST) == 0


@pytest.mark.parametrize("name", [b"", b"x" * 31, b"../../../etc/passwd"])
def test_what_is_no_digest_is_refused(blobs: BlobFiles, name: bytes) -> None:
    with pytest.raises(UsageError):
        blobs.has(name)


def test_the_missing_are_named_once_and_in_order(blobs: BlobFiles) -> None:
    blobs.put(BODY)
    one, two = sha(b"1"), sha(b"2")
    assert blobs.missing([two, DIGEST, one, two]) == [two, one]


def test_a_deleted_blob_is_gone_but_its_reader_finishes(blobs: BlobFiles) -> None:
    blobs.put(BODY)
    with blobs.open(DIGEST) as reader:
        assert blobs.delete(DIGEST)
        assert reader.readall() == BODY
    assert list(blobs.iter()) == []


def test_the_iteration_is_in_order_and_ignores_strangers(blobs: BlobFiles) -> None:
    digests = sorted(blobs.put(bytes([i]))[0] for i in range(40))
    (blobs.path(digests[0]).parent / "README").write_text("not a blob")
    (blobs.path(digests[0]).parents[2] / "zz").mkdir()
    assert list(blobs.iter()) == digests


@pytest.mark.parametrize("cut", [0, 1, 1048575, 1048576, 1048577, len(BODY) - 1, len(BODY)])
def test_an_upload_goes_on_where_it_stood(tmp_path: Path, cut: int) -> None:
    first = BlobFiles(tmp_path)
    assert first.append(DIGEST, 0, BODY[:cut]) == cut
    second = BlobFiles(tmp_path)  # another process, after a crash of the first
    assert second.resume(DIGEST, cut) == cut
    assert not second.has(DIGEST)
    assert second.append(DIGEST, cut, BODY[cut:]) == len(BODY)
    assert second.finish(DIGEST) == len(BODY)
    assert second.read(DIGEST) == BODY
    assert second.finish(DIGEST) == len(BODY), "a repeated finish is fine"
    assert second.resume(DIGEST) == len(BODY)
    assert left_in(second) == []


def test_an_upload_elsewhere_is_a_conflict_that_says_where(blobs: BlobFiles) -> None:
    blobs.append(DIGEST, 0, BODY[:10])
    for call in (
        lambda: blobs.resume(DIGEST, 9),
        lambda: blobs.append(DIGEST, 0, BODY[:10]),
        lambda: blobs.append(DIGEST, 11, BODY[11:]),
    ):
        with pytest.raises(Conflict) as caught:
            call()
        assert caught.value.context["offset"] == 10
    blobs.put(BODY)
    with pytest.raises(Conflict) as caught:
        blobs.append(DIGEST, 10, BODY[10:])
    assert caught.value.context["offset"] == len(BODY)
    assert left_in(blobs) == []


def test_a_first_append_elsewhere_leaves_no_empty_file(blobs: BlobFiles) -> None:
    with pytest.raises(Conflict):
        blobs.append(DIGEST, 5, b"x")
    assert left_in(blobs) == []


def test_many_threads_may_put_and_upload_the_same_blob(blobs: BlobFiles) -> None:
    failures: list[BaseException] = []
    start = threading.Barrier(8)

    def work(number: int) -> None:
        try:
            start.wait()
            for _ in range(5):
                if number % 2:
                    blobs.put([BODY[:1000], BODY[1000:]])
                else:
                    upload()
                assert blobs.read(DIGEST) == BODY
        except BaseException as error:
            failures.append(error)

    def upload() -> None:
        at = blobs.resume(DIGEST)
        while at < len(BODY):
            try:
                at = blobs.append(DIGEST, at, BODY[at : at + 700_000])
            except Conflict as error:
                at = error.context["offset"]
        blobs.finish(DIGEST)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert left_in(blobs) == []


def test_sweeping_takes_old_partials_only(blobs: BlobFiles) -> None:
    blobs.put(BODY)
    blobs.append(sha(b"old"), 0, b"ol")
    later = (blobs.path(DIGEST).parents[2] / "partial" / f"{sha(b'old').hex()}.upload").stat().st_mtime
    assert blobs.sweep(60, now=lambda: later + 59) == 0
    assert blobs.sweep(60, now=lambda: later + 61) == 1
    assert left_in(blobs) == []
    assert blobs.read(DIGEST) == BODY


def test_sweeping_leaves_what_is_being_written(blobs: BlobFiles) -> None:
    swept: list[int] = []

    def source() -> object:
        yield b"one"
        swept.append(blobs.sweep(-3600))
        yield b"two"

    digest, _ = blobs.put(source())  # type: ignore[arg-type]
    assert swept == [0]
    assert blobs.read(digest) == b"onetwo"


def test_a_forked_child_may_use_the_same_object(blobs: BlobFiles) -> None:
    blobs.put(BODY)
    pid = os.fork()
    if not pid:
        done = blobs.read(DIGEST) == BODY and blobs.put(b"of the child")[1] == 12
        os._exit(0 if done else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert blobs.read(sha(b"of the child")) == b"of the child"


def test_an_upload_without_a_digest_becomes_the_blob_that_its_bytes_are(blobs: BlobFiles) -> None:
    upload = blobs.begin()
    assert blobs.stands(upload) == 0
    assert blobs.extend(upload, 0, BODY[:70]) == 70
    again = BlobFiles(blobs.path(bytes(32)).parents[2])  # another process: nothing but the files is remembered
    assert again.stands(upload) == 70
    assert again.extend(upload, 70, BODY[70:]) == len(BODY)
    assert again.complete(upload, expect=DIGEST) == (DIGEST, len(BODY))
    assert blobs.read(DIGEST) == BODY
    assert left_in(blobs) == []
    with pytest.raises(NotFound):
        blobs.stands(upload)


def test_whoever_hashed_all_of_an_upload_spares_reading_it_again(blobs: BlobFiles) -> None:
    upload = blobs.begin()
    blobs.extend(upload, 0, BODY)
    assert blobs.complete(upload, hashed=DIGEST) == (DIGEST, len(BODY))
    assert blobs.verify(DIGEST)


def test_an_upload_goes_on_only_where_it_stands(blobs: BlobFiles) -> None:
    upload = blobs.begin()
    blobs.extend(upload, 0, b"abc")
    for offset in (0, 2, 4):
        with pytest.raises(Conflict) as error:
            blobs.extend(upload, offset, b"x")
        assert error.value.context["offset"] == 3
    assert blobs.complete(upload) == (sha(b"abc"), 3)


def test_an_upload_that_is_not_what_was_expected_is_dropped(blobs: BlobFiles) -> None:
    upload = blobs.begin()
    blobs.extend(upload, 0, b"abc")
    with pytest.raises(BlobCorrupt):
        blobs.complete(upload, expect=DIGEST)
    assert (list(blobs.iter()), left_in(blobs)) == ([], [])


def test_an_upload_over_the_limit_stays_as_it_was(tmp_path: Path) -> None:
    blobs = BlobFiles(tmp_path, limit=10)
    upload = blobs.begin()
    blobs.extend(upload, 0, b"01234567")
    with pytest.raises(UsageError) as error:
        blobs.extend(upload, 8, b"89a")
    assert error.value.status == 413
    assert blobs.stands(upload) == 8


@pytest.mark.parametrize("name", ["", "x", "0" * 31, "g" * 32, "../" + "0" * 29, "0" * 32])
def test_an_upload_that_was_never_begun_is_not_found(blobs: BlobFiles, name: str) -> None:
    for call in (blobs.stands, blobs.complete, lambda upload: blobs.extend(upload, 0, b"")):
        with pytest.raises(NotFound):
            call(name)
    assert not blobs.drop(name)


def test_an_upload_can_be_given_up_or_is_swept(blobs: BlobFiles) -> None:
    one, two = blobs.begin(), blobs.begin()
    assert one != two
    assert blobs.drop(one)
    assert not blobs.drop(one)
    assert blobs.sweep(0) == 1
    assert left_in(blobs) == []

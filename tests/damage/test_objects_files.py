"""Objects in files when bits flip, the disk is full or gone, and the power is cut."""

from __future__ import annotations

import fcntl
import os
import random
import resource
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.errors import (
    ObjectConflict,
    ObjectCorrupt,
    StorageDenied,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
)
from holdfast.objects import FileStore
from holdfast.objects.files.sidecars import ATTRIBUTE
from holdfast.objects.files.store import _Moved
from holdfast.testing.objects import keys

both = pytest.mark.parametrize("attributes", [True, False], ids=["attributes", "sidecars"])
JSON = "application/json"


def read_pieces(store: FileStore, got: list[bytes]) -> None:
    """Reads "one" as it comes."""
    for piece in store.get("one"):
        got.append(piece)


@both
@pytest.mark.parametrize("size", [1, 5000, (3 << 20) + 7])
def test_no_changed_bit_is_returned(tmp_path: Path, attributes: bool, size: int) -> None:
    rng = random.Random(size)
    body = rng.randbytes(size)
    with FileStore(tmp_path, attributes=attributes) as store:
        store.put("one", body)
        path = tmp_path / "one.bin"
        for _ in range(10 if size < 1 << 20 else 2):
            at, bit = rng.randrange(size), 1 << rng.randrange(8)
            with open(path, "r+b") as file:
                file.seek(at)
                file.write(bytes([body[at] ^ bit]))
            with pytest.raises(ObjectCorrupt):
                store.read("one")
            got: list[bytes] = []
            with pytest.raises(ObjectCorrupt):
                read_pieces(store, got)
            assert sum(map(len, got)) < size
            with open(path, "r+b") as file:
                file.seek(at)
                file.write(body[at : at + 1])
            assert store.read("one") == body
        for length in (size - 1, size + 1):
            os.truncate(path, length)
            with pytest.raises(ObjectCorrupt):
                store.read("one")
            with pytest.raises(ObjectCorrupt):
                store.read("one", start=0, stop=1)
        store.put("one", b"healed")
        assert store.read("one") == b"healed"


@both
def test_no_changed_description_is_believed(tmp_path: Path, attributes: bool) -> None:
    rng = random.Random(7)
    with FileStore(tmp_path, attributes=attributes) as store:
        etag = store.put("one", b"1", content_type="text/plain", metadata={"owner": "ada"}).etag
        store.put("two", b"2")
        if attributes:
            path = str(tmp_path / "one.txt")
            raw = os.getxattr(path, ATTRIBUTE)
        else:
            path = str(store._sidecars._path("one.txt"))
            raw = Path(path).read_bytes()
        for _ in range(60):
            at = rng.randrange(len(raw))
            bad = raw[:at] + bytes([raw[at] ^ (1 << rng.randrange(8))]) + raw[at + 1 :]
            os.setxattr(path, ATTRIBUTE, bad) if attributes else Path(path).write_bytes(bad)
            try:
                head = store.head("one")
            except ObjectCorrupt:
                with pytest.raises(ObjectCorrupt):
                    store.read("one")
                with pytest.raises(ObjectConflict):
                    store.put("one", b"x", expect="damaged")
            else:
                # Only what a sidecar says of the file's name, or of another inode, may change unseen.
                assert not attributes
                assert head.etag in (etag, "6b86b273ff34fce19d6b804eff5a3f57")
            assert keys(store) == ["one", "two"]
        store.put("one", b"healed")
        assert store.read("one") == b"healed"


# -- no room, no right, no disk ---------------------------------------------------------------------------------


@both
def test_a_full_disk_harms_nothing(tmp_path: Path, attributes: bool) -> None:
    with FileStore(tmp_path, attributes=attributes) as store:
        before = store.put("one", b"whole")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
        try:
            for key in ("one", "new"):
                with pytest.raises(StorageFull):
                    store.put(key, bytes(1 << 20))
            store.put("small", b"fits")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (store.read("one"), store.head("one").etag, keys(store)) == (b"whole", before.etag, ["one", "small"])
        assert [*(tmp_path / ".holdfast" / "partial").iterdir()] == []


def test_a_directory_that_may_only_be_read_is_read() -> None:
    place = Path(tempfile.mkdtemp(prefix="hf-files-"))
    try:
        (place / "a.txt").write_bytes(b"there")
        place.chmod(0o555)
        (place / "a.txt").chmod(0o444)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                if os.getuid() == 0:
                    os.setgid(65534)
                    os.setuid(65534)
                with FileStore(place) as store:
                    good = store.read("a") == b"there" and keys(store) == ["a"] and store.health().ok
                    for call in (lambda: store.put("b", b"1"), lambda: store.delete("a")):
                        try:
                            call()
                            good = False
                        except StorageDenied:
                            pass
                code = 0 if good else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        place.chmod(0o755)
        shutil.rmtree(place)


def test_a_store_whose_disk_went_away_does_not_say_that_there_is_nothing(tmp_path: Path) -> None:
    with FileStore(tmp_path / "data") as store:
        store.put("a/b", b"1")
        (tmp_path / "data").rename(tmp_path / "away")
        (tmp_path / "data").mkdir()  # as the mount point of a disk that is not mounted
        calls = (lambda: store.read("a/b"), lambda: store.exists("a/b"), lambda: store.delete("a/b"))
        for call in (*calls, lambda: keys(store), lambda: store.put("a/b", b"2")):
            with pytest.raises(StorageUnavailable):
                call()
        assert not store.health().ok
        assert [*(tmp_path / "data").iterdir()] == []
        (tmp_path / "data").rmdir()
        (tmp_path / "away").rename(tmp_path / "data")
        assert store.read("a/b") == b"1"


def test_a_tree_of_capitals_is_refused_where_capitals_fold(tmp_path: Path) -> None:
    with FileStore(tmp_path) as store:
        store.put("CEO", b"1")
    (tmp_path / ".HOLDFAST").mkdir()  # what a look for it finds on a file system that folds
    with pytest.raises(StorageRefused, match="capitals"):
        FileStore(tmp_path)
    (tmp_path / ".holdfast" / "names").write_text("folded\n")
    with FileStore(tmp_path) as store:
        store.put("CEO", b"2")
        assert (tmp_path / "%43%45%4F.bin").exists()


def test_rubbish_of_dead_processes_is_collected_and_that_of_the_living_is_not(tmp_path: Path) -> None:
    with FileStore(tmp_path) as store, store._room.partial() as living:
        dead = tmp_path / ".holdfast" / "partial" / "1-dead"
        dead.write_bytes(b"half")
        assert keys(store) == []
        store.put("one", b"1")
        assert not dead.exists()
        assert os.path.exists(living.path)


def test_a_file_swept_before_it_was_locked_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FileStore(tmp_path) as store:
        store.put("one", b"1")
        lock, swept = fcntl.flock, []

        def slow(fd: int, how: int) -> None:
            for path in [] if swept else (tmp_path / ".holdfast" / "partial").iterdir():
                path.unlink()
                swept.append(path)
            lock(fd, how)

        monkeypatch.setattr(fcntl, "flock", slow)
        store.put("one", b"2")
        assert swept
        assert store.read("one") == b"2"


# -- what survives a power cut ----------------------------------------------------------------------------------


class Told:
    """What the system was told, in order: names of calls with the inodes and paths they were about."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, object]] = []
        for name in ("fsync", "rename", "mkdir", "rmdir", "unlink", "pwrite"):
            monkeypatch.setattr(os, name, self._noting(name, getattr(os, name)))

    def _noting(self, name: str, call: Callable[..., object]) -> Callable[..., object]:
        def noting(*given: object, **named: object) -> object:
            about: object = given[-1] if name == "rename" else given[0]
            if name in ("fsync", "pwrite"):
                assert isinstance(given[0], int)
                about = os.fstat(given[0]).st_ino
            if name == "rename":
                self.calls.append(("rename of", os.stat(str(given[0])).st_ino))
                if (directory := named.get("dst_dir_fd")) is not None:
                    about = os.path.join(os.readlink(f"/proc/self/fd/{directory}"), str(about))
            self.calls.append((name, str(about) if isinstance(about, Path) else about))
            return call(*given, **named)

        return noting

    def at(self, name: str, about: object) -> int:
        """The place of the last such call."""
        return max(number for number, call in enumerate(self.calls) if call == (name, about))


@both
def test_a_put_that_returned_survives_a_power_cut(
    tmp_path: Path, attributes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FileStore(tmp_path / "data", attributes=attributes) as store:
        told = Told(monkeypatch)
        store.put("a/b/c", b"1")
        root, a, b = store.root, store.root / "a", store.root / "a" / "b"
        file = b / "c.bin"
        renamed = told.at("rename", str(file))
        inode = file.stat().st_ino
        assert told.at("pwrite", inode) < told.at("fsync", inode) < renamed < told.at("fsync", b.stat().st_ino)
        assert told.at("mkdir", str(a)) < told.at("fsync", root.stat().st_ino)
        assert told.at("mkdir", str(b)) < told.at("fsync", a.stat().st_ino)
        if not attributes:
            path = store._sidecars._path("a/b/c.bin")
            first = told.calls.index(("rename", str(path)))
            assert first < told.calls.index(("fsync", path.parent.stat().st_ino)) < renamed
            assert ("fsync", told.calls[first - 1][1]) in told.calls[:first]
        else:
            told.calls.clear()
            store.put("a/b/c", b"2")
            # No more than is needed: the file, and the directory that names it.
            assert [call for call, _ in told.calls].count("fsync") == 2
        told.calls.clear()
        store.delete("a/b/c")
        assert told.at("rmdir", str(a)) < told.at("fsync", root.stat().st_ino)
        store.put("x", b"1")
        store.put("y", b"1")
        told.calls.clear()
        store.delete("x")
        assert told.at("unlink", str(root / "x.bin")) < told.at("fsync", root.stat().st_ino)


def test_a_new_root_survives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch)
    FileStore(tmp_path / "new" / "data").close()
    assert told.at("mkdir", str(tmp_path / "new")) < told.at("fsync", tmp_path.stat().st_ino)
    assert told.at("mkdir", str(tmp_path / "new" / "data")) < told.at("fsync", (tmp_path / "new").stat().st_ino)


def test_a_sidecar_tells_old_files_from_new_ones(tmp_path: Path) -> None:
    with FileStore(tmp_path, attributes=False) as store:
        store.put("one", b"1", metadata={"n": "1"})
        path = tmp_path / "one.bin"
        with open(path, "rb") as old:
            store.put("one", b"2", metadata={"n": "2"})
            # Who opened the file before knows that it is another one's now; who comes later can have its number.
            with pytest.raises(_Moved):
                store._describe(old.fileno(), str(path), "one.bin")
            assert list(store._sidecars._held("one.bin")) == [str(path.stat().st_ino)]
            store.delete("one")
            with pytest.raises(_Moved):
                store._describe(old.fileno(), str(path), "one.bin")

"""What is peculiar to objects in files: the tree that people see, what they drop in it, damage, and no room."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import resource
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.errors import (
    ObjectConflict,
    ObjectCorrupt,
    ObjectNotFound,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
)
from holdfast.objects import ABSENT, FileStorageBackend, FileStore, StorageBackend, open_store
from holdfast.objects.file import _Moved
from holdfast.objects.sidecars import ATTRIBUTE
from holdfast.testing.objects import keys
from holdfast.testing.objects_many import at_once

both = pytest.mark.parametrize("attributes", [None, False], ids=["attributes", "sidecars"])
JSON = "application/json"


def tree(root: Path) -> list[str]:
    """The files that people see."""
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file() and ".holdfast" not in p.parts)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FileStore]:
    with FileStore(tmp_path / "data") as made:
        yield made


# -- the tree ---------------------------------------------------------------------------------------------------


def test_the_tree_is_the_one_that_the_seed_shows(store: FileStore) -> None:
    store.put("agent_configs/ceo", b'{"name": "CEO"}', content_type=JSON)
    store.put("agent_configs/ceo/current", b"{}", content_type="application/ld+json; profile=x")
    store.put("models/ceo_adapter", b"\x00")
    store.put("knowledge/notes", b"hello", content_type="text/markdown")
    assert tree(store.root) == [
        "agent_configs/ceo.json",
        "agent_configs/ceo/current.json",
        "knowledge/notes.txt",
        "models/ceo_adapter.bin",
    ]
    assert (store.root / "agent_configs/ceo.json").read_bytes() == b'{"name": "CEO"}'


def test_a_key_keeps_its_file_when_the_type_changes(store: FileStore) -> None:
    store.put("one", b"{}", content_type=JSON)
    store.put("one", b"text", content_type="text/plain")
    assert tree(store.root) == ["one.json"]
    assert (store.head("one").content_type, keys(store)) == ("text/plain", ["one"])
    store.delete("one")
    store.put("one", b"text", content_type="text/plain")
    assert tree(store.root) == ["one.txt"]


@both
def test_nobody_else_can_read_it(tmp_path: Path, attributes: bool | None) -> None:
    before = os.umask(0)
    try:
        with FileStore(tmp_path / "new" / "data", attributes=attributes) as store:
            store.put("a/b/c", b"1", metadata={"a": "1"})
            store.put("a/b/c", b"2")
    finally:
        os.umask(before)
    for path in [tmp_path / "new", *(tmp_path / "new").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_empty_directories_go_and_the_root_stays(store: FileStore) -> None:
    store.put("a/b/c/d", b"1")
    store.put("a/x", b"1")
    store.delete("a/b/c/d")
    assert sorted(p.name for p in store.root.iterdir()) == [".holdfast", "a"]
    assert not (store.root / "a" / "b").exists()
    store.delete("a/x")
    assert [p.name for p in store.root.iterdir()] == [".holdfast"]
    store.put("a/b/c/d", b"2")
    assert store.read("a/b/c/d") == b"2"


@both
def test_directories_come_and_go_under_many_hands(tmp_path: Path, attributes: bool | None) -> None:
    with FileStore(tmp_path, attributes=attributes) as store:

        def work(number: int) -> None:
            key = f"a/b/c/{number}"
            for turn in range(40):
                store.put(key, b"%d" % turn)
                assert store.read(key) == b"%d" % turn
                assert key in keys(store, "a/b")
                assert store.delete(key)

        at_once(6, work)
        assert keys(store) == []
        assert [p.name for p in tmp_path.iterdir()] == [".holdfast"]
        assert [*(tmp_path / ".holdfast" / "partial").iterdir()] == []
        assert store._sidecars.files() == []


# -- what people drop into it -----------------------------------------------------------------------------------


@both
def test_a_dropped_file_is_an_object(tmp_path: Path, attributes: bool | None) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.json", "b.txt", "c.bin", "d.pkl", "e", "f.md"):
        (tmp_path / "in" / name).write_bytes(name.encode())
    (tmp_path / "in" / ".hidden").write_bytes(b"no object")
    (tmp_path / "in" / "link.json").symlink_to(tmp_path / "in" / "a.json")
    with FileStore(tmp_path, attributes=attributes) as store:
        assert keys(store) == ["in/a", "in/b", "in/c", "in/d.pkl", "in/e", "in/f.md"]
        types = {info.key: info.content_type for info in store.list()}
        assert [types["in/a"], types["in/b"], types["in/f.md"]] == [JSON, "text/plain", "text/markdown"]
        assert {types["in/c"], types["in/d.pkl"], types["in/e"]} == {"application/octet-stream"}
        assert not store.exists("in/link")
        first = store.head("in/a")
        assert next(store.list("in/a")) == first
        assert store.read("in/a", start=2, stop=6) == b"json"
        # Written again with as many bytes, in the same file, at the same time: still another etag.
        times = (tmp_path / "in" / "a.json").stat()
        (tmp_path / "in" / "a.json").write_bytes(b"other!")
        os.utime(tmp_path / "in" / "a.json", ns=(times.st_atime_ns, times.st_mtime_ns))
        with pytest.raises(ObjectConflict):
            store.put("in/a", b"lost", expect=first.etag)
        assert store.read("in/a") == b"other!"
        store.put("in/a", b"ours", expect=store.head("in/a").etag, metadata={"by": "us"})
        with pytest.raises(ObjectConflict):
            store.put("in/e", b"x", expect=ABSENT)
        store.put("in/e", b"ours too", content_type="text/plain")
        assert store.delete("in/d.pkl")
        assert tree(tmp_path) == [
            *("in/.hidden", "in/a.json", "in/b.txt", "in/c.bin", "in/e", "in/f.md"),
            "in/link.json",
        ]
        assert (store.read("in/e"), store.head("in/e").content_type) == (b"ours too", "text/plain")


@both
def test_a_tree_copied_without_descriptions_is_still_there(tmp_path: Path, attributes: bool | None) -> None:
    with FileStore(tmp_path / "one", attributes=attributes) as store:
        store.put("a/b", b'{"x": 1}', content_type=JSON, metadata={"m": "1"})
    for place in (tmp_path / "one").rglob("*"):
        if place.is_file() and ".holdfast" not in place.parts:
            to = tmp_path / "two" / place.relative_to(tmp_path / "one")
            to.parent.mkdir(parents=True)
            to.write_bytes(place.read_bytes())
    with FileStore(tmp_path / "two") as store:
        assert store.read("a/b") == b'{"x": 1}'
        assert (store.head("a/b").content_type, store.head("a/b").metadata) == (JSON, {})


@both
def test_a_dropped_file_makes_room_for_a_directory(tmp_path: Path, attributes: bool | None) -> None:
    (tmp_path / "a").write_bytes(b"dropped")
    with FileStore(tmp_path, attributes=attributes) as store:
        store.put("a", b"stored", metadata={"m": "1"})
        etag = store.head("a").etag
        store.put("a/b", b"below")
        assert (store.read("a"), store.head("a").etag, store.head("a").metadata) == (b"stored", etag, {"m": "1"})
        assert keys(store) == ["a", "a/b"]
        assert tree(tmp_path) == ["a.bin", "a/b.bin"]
        (tmp_path / "c").write_bytes(b"1")
        (tmp_path / "c.txt").write_bytes(b"2")
        with pytest.raises(StorageError, match="in the way"):
            store.put("c/d", b"x")
        assert (tmp_path / "c").read_bytes() == b"1"


def test_of_two_files_for_one_key_the_first_counts_and_a_deletion_takes_both(store: FileStore) -> None:
    for name in ("a.txt", "a.json"):
        (store.root / name).write_bytes(name.encode())
    assert [(info.key, info.content_type) for info in store.list()] == [("a", JSON)]
    assert store.read("a") == b"a.json"
    store.put("a", b"new")
    assert (store.read("a"), keys(store)) == (b"new", ["a"])
    assert store.delete("a")
    assert not store.exists("a")
    assert tree(store.root) == []


def test_a_dropped_directory_does_not_take_a_key_s_place(store: FileStore) -> None:
    (store.root / "a.json").mkdir()
    store.put("a", b"1", content_type=JSON)
    assert (store.read("a"), keys(store)) == (b"1", ["a"])


def test_a_link_to_elsewhere_is_no_part_of_the_store(store: FileStore, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (store.root / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="no directory"):
        store.put("out/a", b"1")
    assert [*(tmp_path / "elsewhere").iterdir()] == []


def read_pieces(store: FileStore, got: list[bytes]) -> None:
    """Reads "one" as it comes."""
    for piece in store.get("one"):
        got.append(piece)


# -- damage -----------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("size", [1, 5000, (3 << 20) + 7])
def test_no_changed_bit_is_returned(tmp_path: Path, attributes: bool | None, size: int) -> None:
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
def test_no_changed_description_is_believed(tmp_path: Path, attributes: bool | None) -> None:
    rng = random.Random(7)
    with FileStore(tmp_path, attributes=attributes) as store:
        etag = store.put("one", b"1", content_type="text/plain", metadata={"owner": "ada"}).etag
        store.put("two", b"2")
        if attributes is None:
            path = str(tmp_path / "one.txt")
            raw = os.getxattr(path, ATTRIBUTE)
        else:
            path = str(store._sidecars._path("one.txt"))
            raw = Path(path).read_bytes()
        for _ in range(60):
            at = rng.randrange(len(raw))
            bad = raw[:at] + bytes([raw[at] ^ (1 << rng.randrange(8))]) + raw[at + 1 :]
            os.setxattr(path, ATTRIBUTE, bad) if attributes is None else Path(path).write_bytes(bad)
            try:
                head = store.head("one")
            except ObjectCorrupt:
                with pytest.raises(ObjectCorrupt):
                    store.read("one")
                with pytest.raises(ObjectConflict):
                    store.put("one", b"x", expect="damaged")
            else:
                # Only what a sidecar says of the file's name, or of another inode, may change unseen.
                assert attributes is False
                assert head.etag in (etag, "6b86b273ff34fce19d6b804eff5a3f57")
            assert keys(store) == ["one", "two"]
        store.put("one", b"healed")
        assert store.read("one") == b"healed"


# -- no room, no right, no disk ---------------------------------------------------------------------------------


@both
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_harms_nothing(tmp_path: Path, attributes: bool | None) -> None:
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
    with FileStore(tmp_path) as store, store._room.partial() as (_, living):
        dead = tmp_path / ".holdfast" / "partial" / "1-dead"
        dead.write_bytes(b"half")
        assert keys(store) == []
        store.put("one", b"1")
        assert not dead.exists()
        assert os.path.exists(living)


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
            self.calls.append((name, str(about) if isinstance(about, Path) else about))
            return call(*given, **named)

        return noting

    def at(self, name: str, about: object) -> int:
        """The place of the last such call."""
        return max(number for number, call in enumerate(self.calls) if call == (name, about))


@both
def test_a_put_that_returned_survives_a_power_cut(
    tmp_path: Path, attributes: bool | None, monkeypatch: pytest.MonkeyPatch
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
        if attributes is False:
            path = store._sidecars._path("a/b/c.bin")
            first = told.calls.index(("rename", str(path)))
            assert first < told.calls.index(("fsync", path.parent.stat().st_ino)) < renamed
            assert ("fsync", inode) in told.calls[:first]
            assert [call for call, _ in told.calls[:first]].count("fsync") >= 2
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


# -- addresses and the seed's backend ---------------------------------------------------------------------------


def test_a_store_has_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for address in ("file:./data", f"file:{tmp_path}/data", f"file://{tmp_path}/data"):
        with open_store(address) as store:
            store.put("one", address.encode())
            assert store.name == f"file:{tmp_path}/data"
    monkeypatch.chdir("/")
    with open_store(f"file:{tmp_path}/data", attributes=False) as store:
        assert store.read("one").endswith(b"/data")
    for address in ("file:", "file://host/data", "file:a\0b"):
        with pytest.raises(StorageRefused):
            open_store(address)
    with pytest.raises(StorageRefused, match="nonsense"):
        open_store(f"file:{tmp_path}/data", nonsense=1)


def test_the_seed_s_file_backend(tmp_path: Path) -> None:
    async def use() -> None:
        async with FileStorageBackend(base_path=str(tmp_path)) as backend:
            assert isinstance(backend, StorageBackend)
            await backend.write("path/to/file.json", {"role": "CEO", "n": [1, 2.5, None]})
            assert await backend.read("path/to/file.json") == {"role": "CEO", "n": [1, 2.5, None]}
            assert (tmp_path / "path/to/file.json").is_file()
            for path, value in (("path/to/log.txt", "grüße"), ("path/to/model.pkl", b"\x80\x04"), ("path/x", [1])):
                await backend.write(path, value)
                assert await backend.read(path) == value
            listed = await backend.list_files(prefix="path/to/")
            assert listed == ["path/to/file.json", "path/to/log.txt", "path/to/model.pkl"]
            (tmp_path / "dropped.json").write_text('{"a": 1}')
            (tmp_path / "dropped.txt").write_text("text")
            assert await backend.read("dropped.json") == {"a": 1}
            assert await backend.read("dropped.txt") == "text"
            assert await backend.delete("path/to/file.json") is True
            assert await backend.delete("path/to/file.json") is False
            with pytest.raises(ObjectNotFound):
                await backend.read("path/to/file.json")
            for path in ("../out", "/etc/passwd", "a//b", ""):
                with pytest.raises(StorageRefused):
                    await backend.write(path, b"x")

    asyncio.run(use())


@both
def test_a_path_may_be_a_directory_of_others(tmp_path: Path, attributes: bool | None) -> None:
    with FileStore(tmp_path, names="plain", attributes=attributes) as store:
        first = store.put("a", b"file first", metadata={"m": "1"})
        store.put("a/b", b"below")
        store.put("c/d", b"directory first")
        store.put("c", b"then the file", expect=ABSENT)
        assert tree(tmp_path) == ["a%", "a/b", "c%", "c/d"]
        assert keys(store) == ["a", "a/b", "c", "c/d"]
        assert (store.read("a"), store.head("a").etag, store.head("a").metadata) == (
            b"file first",
            first.etag,
            {"m": "1"},
        )
        store.put("a", b"again", expect=first.etag)
        store.delete("a/b")
        assert (store.read("a"), keys(store, "a")) == (b"again", ["a"])
        store.delete("a")
        store.put("a", b"alone")
        assert tree(tmp_path) == ["a", "c%", "c/d"]


def test_both_ways_to_name_files_see_one_tree_and_lock_it_together(tmp_path: Path) -> None:
    with FileStore(tmp_path) as typed, FileStore(tmp_path, names="plain") as plain:
        plain.put("a/b.json", b"0", content_type=JSON)
        assert typed.head("a/b").etag == plain.head("a/b.json").etag

        def work(number: int) -> None:
            store, key = (typed, "a/b") if number % 2 else (plain, "a/b.json")
            for _ in range(25):
                while True:
                    with store.get(key) as content:
                        have, etag = int(content.read()), content.info.etag
                    try:
                        store.put(key, b"%d" % (have + 1), content_type=JSON, expect=etag)
                        break
                    except ObjectConflict:
                        continue

        at_once(4, work)
        assert typed.read("a/b") == b"100"

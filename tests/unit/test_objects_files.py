"""What is peculiar to objects in files: the tree that people see, what they drop in it, and the seed's backend."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.errors import (
    ObjectConflict,
    ObjectNotFound,
    StorageError,
    StorageRefused,
)
from holdfast.objects import ABSENT, FileStorageBackend, FileStore, StorageBackend, open_store
from holdfast.objects.raw import LARGE_BYTES
from holdfast.testing.objects import keys
from holdfast.testing.objects_many import at_once

both = pytest.mark.parametrize("attributes", [True, False], ids=["attributes", "sidecars"])
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
def test_nobody_else_can_read_it(tmp_path: Path, attributes: bool) -> None:
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
def test_directories_come_and_go_under_many_hands(tmp_path: Path, attributes: bool) -> None:
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
def test_a_dropped_file_is_an_object(tmp_path: Path, attributes: bool) -> None:
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
def test_a_tree_copied_without_descriptions_is_still_there(tmp_path: Path, attributes: bool) -> None:
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
def test_a_dropped_file_makes_room_for_a_directory(tmp_path: Path, attributes: bool) -> None:
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


def test_a_directory_replaced_by_hand_is_made_again(store: FileStore) -> None:
    store.put("a/b/c", b"1")
    shutil.rmtree(store.root / "a")
    (store.root / "a").write_bytes(b"a file now")
    store.put("a/b/c", b"2")
    assert (store.read("a"), store.read("a/b/c")) == (b"a file now", b"2")
    with pytest.raises(StorageError):
        FileStore(store.root / "a.bin")


def test_a_link_to_elsewhere_is_no_part_of_the_store(store: FileStore, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (store.root / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="no directory"):
        store.put("out/a", b"1")
    assert [*(tmp_path / "elsewhere").iterdir()] == []


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
def test_a_path_may_be_a_directory_of_others(tmp_path: Path, attributes: bool) -> None:
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


@pytest.mark.parametrize("room", [True, False], ids=["a thread beside", "no more threads"])
def test_a_large_body_has_its_digest_whether_a_thread_can_be_had_or_not(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    if not room:
        monkeypatch.setattr(threading.Thread, "start", none_left)
    body = random.Random(7).randbytes(LARGE_BYTES)
    store.put("large", iter([body, b"in the middle", body]))
    assert store.read("large") == body + b"in the middle" + body, "as its digest says, or it would not be read"

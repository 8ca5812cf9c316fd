"""SQLite keeps the laws of object stores."""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import random
import resource
import signal
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.errors import (
    ObjectCorrupt,
    ObjectNotFound,
    StorageError,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
)
from holdfast.objects import AsyncObjectStore, SqliteStore, open_store
from holdfast.objects.database import Database
from holdfast.objects.port import DURABLE
from holdfast.objects.sqlite import CHUNK_BYTES
from holdfast.testing.objects import Basic, Conditions, Listing, Names, Ranges
from holdfast.testing.objects_many import Forks, Races, at_once


class Sqlite:
    """How it is made."""

    def make(self, directory: Path) -> SqliteStore:
        return SqliteStore(directory / "objects.db")


class TestSqliteBasic(Sqlite, Basic): ...


class TestSqliteRanges(Sqlite, Ranges): ...


class TestSqliteNames(Sqlite, Names): ...


class TestSqliteListing(Sqlite, Listing): ...


class TestSqliteConditions(Sqlite, Conditions): ...


class TestSqliteRaces(Sqlite, Races): ...


class TestSqliteForks(Sqlite, Forks): ...


LARGE = 6 << 20


def large(number: int) -> bytes:
    """A body of many chunks that says whose it is in every byte."""
    return bytes([number]) * LARGE


def in_child(work: Callable[[], None]) -> int:
    """Runs it in a forked child; 0 if it raised nothing."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_killed_writer_leaves_the_old_object_or_the_new_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "objects.db"
    with SqliteStore(path) as store:
        store.put("one", large(0), metadata={"n": "0"})
    for turn in range(6):
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                writer = SqliteStore(path)
                for number in range(256):
                    os.write(tell, b".")
                    pieces = (large(number)[:: LARGE // 7] * 200_000 for _ in range(4))  # through a file beside it
                    data = large(number) if number % 2 else pieces
                    writer.put("one", data, metadata={"n": str(number)})
            finally:
                os._exit(1)
        os.close(tell)
        for _ in range(turn % 4 + 1):
            assert os.read(told, 1)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(told)
        with SqliteStore(path) as store:
            info = store.head("one")
            body = store.read("one")
            assert (len(body), set(body)) == (info.size, {int(info.metadata["n"])})
        assert rows(path) == -(-info.size // CHUNK_BYTES), "chunks that belong to no object"
        assert os.listdir(tmp_path) == ["objects.db"]


def rows(path: Path) -> int:
    """How many chunks are in the file."""
    database = Database(path, "objects", ("",))
    try:
        return int(database.one("SELECT count(*) FROM holdfast_chunk")[0])
    finally:
        database.close()


def test_a_reader_goes_on_with_the_object_that_it_began(tmp_path: Path) -> None:
    with SqliteStore(tmp_path / "objects.db") as store, SqliteStore(tmp_path / "objects.db") as other:
        store.put("one", large(1))
        with store.get("one") as begun, store.get("one", start=LARGE - 10) as tail:
            first = next(iter(begun))
            other.put("one", large(2))
            other.delete("one")
            other.put("one", large(3))
            assert first + begun.read() == large(1)
            assert tail.read() == large(1)[-10:]
        assert store.read("one") == large(3)
    assert rows(tmp_path / "objects.db") == LARGE // CHUNK_BYTES


def test_a_fork_ends_no_reader_but_one_whose_object_was_replaced_since(tmp_path: Path) -> None:
    with SqliteStore(tmp_path / "objects.db") as store:
        store.put("kept", large(1))
        store.put("replaced", large(2))
        kept, replaced = iter(store.get("kept")), iter(store.get("replaced"))
        begun = [next(kept), next(replaced)]
        assert in_child(lambda: store.put("replaced", large(3)) and None) == 0
        assert begun[0] + b"".join(kept) == large(1)
        with pytest.raises(StorageUnavailable, match="replaced while it was read"):
            list(replaced)
        assert store.read("replaced") == large(3)


def test_parent_and_children_lose_nothing_while_threads_write_read_and_stream(tmp_path: Path) -> None:
    with SqliteStore(tmp_path / "objects.db", durable=False) as store:
        store.put("large", large(1))
        done = threading.Event()
        written: list[str] = []

        def work(number: int) -> None:
            if number == 0:
                try:
                    results = [in_child(functools.partial(child, which)) for which in range(6)]
                finally:
                    done.set()
                assert results == [0] * 6
            while not done.is_set():
                if number == 1:
                    store.put(f"parent/{len(written):06}", b"x" * 500)
                    written.append("")
                elif number == 2:
                    assert b"".join(store.get("large")) == large(1)
                else:
                    assert store.head("large").size == LARGE

        def child(number: int) -> None:
            for turn in range(30):
                store.put(f"child/{number}/{turn}", b"y" * 500)

        at_once(4, work)
        assert sum(1 for _ in store.list("child/")) == 180
        assert sum(1 for _ in store.list("parent/")) == len(written)


def test_a_flipped_bit_is_never_data(tmp_path: Path) -> None:
    path = tmp_path / "objects.db"
    bodies = {f"small/{number}": bytes([number]) * 3000 for number in range(20)} | {"large": large(7)[: 3 << 19]}
    with SqliteStore(path) as store:
        for key, body in bodies.items():
            store.put(key, body)
    whole = path.read_bytes()
    chance = random.Random(4)
    found = 0
    for at in [*range(16, 100, 5), *(chance.randrange(4096, len(whole)) for _ in range(60))]:
        damaged = bytearray(whole)
        damaged[at] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        try:
            with SqliteStore(path) as store:
                for key, body in bodies.items():
                    assert store.read(key) == body
        except ObjectCorrupt:
            found += 1
        except StorageError:
            assert at < 100  # the header says what the file is
    assert found >= 50


def test_a_file_is_its_owners_alone_and_no_other_programs(tmp_path: Path) -> None:
    with SqliteStore(tmp_path / "new" / "objects.db") as store:
        store.put("one", b"1")
        assert {path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()} == {0o600}
    (tmp_path / "text.db").write_bytes(b"dear diary, " * 400)
    with pytest.raises(ObjectCorrupt):
        SqliteStore(tmp_path / "text.db")
    theirs = Database(tmp_path / "theirs.db", "others", ("CREATE TABLE diary (day TEXT) STRICT",))
    with theirs.write() as execute:
        execute("DROP TABLE holdfast_part")
    theirs.close()
    with pytest.raises(StorageRefused, match="another program's"):
        SqliteStore(tmp_path / "theirs.db")
    newer = Database(tmp_path / "new" / "objects.db", "objects", ("", "CREATE TABLE later (x ANY) STRICT"))
    newer.close()
    with pytest.raises(StorageRefused, match="newer Holdfast"):
        SqliteStore(tmp_path / "new" / "objects.db")
    (tmp_path / "directory.db").mkdir()
    with pytest.raises(StorageError):
        SqliteStore(tmp_path / "directory.db")
    for address in ("sqlite:", "sqlite::memory:", "sqlite://host/a.db", "sqlite:a/"):
        with pytest.raises(StorageRefused):
            open_store(address)


def test_a_full_disk_says_so_and_leaves_what_was_there(tmp_path: Path) -> None:
    with SqliteStore(tmp_path / "objects.db") as store:
        store.put("one", b"before")

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        with SqliteStore(tmp_path / "objects.db") as store:
            for body in (large(1), iter([large(1)])):
                with pytest.raises((StorageFull, OSError)):
                    store.put("one", body)
            with pytest.raises(StorageFull):
                store.put("two", large(1))
            assert store.read("one") == b"before"

    assert in_child(fill) == 0
    with SqliteStore(tmp_path / "objects.db") as store:
        assert [info.key for info in store.list()] == ["one"]


def test_threads_that_write_at_once_share_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a put promises is there in the file's WAL before it returns: synced by itself, or by another's sync."""
    syncs: list[int] = []
    real = os.fdatasync

    with SqliteStore(tmp_path / "objects.db") as store, SqliteStore(tmp_path / "objects.db") as other:

        def sync(fd: int) -> None:
            syncs.append(fd)
            while len(syncs) == 1 and sum(1 for _ in other.list()) < 16:
                pass  # the first lasts until all others have written
            real(fd)

        monkeypatch.setattr("os.fdatasync", sync)
        at_once(16, lambda number: store.put(f"key/{number}", b"x") and None)
        assert 2 <= len(syncs) < 16
        before = len(syncs)
        store.put("one more", b"x")
        assert len(syncs) == before + 1
        with SqliteStore(tmp_path / "fast.db", durable=False) as fast:
            fast.put("one", b"x")
        assert len(syncs) == before + 1
        assert (store.lacks, fast.lacks) == (frozenset(), {DURABLE})


def test_after_a_failed_sync_nothing_is_promised_until_it_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "the disk is gone")

    with SqliteStore(tmp_path / "objects.db") as store:
        store.put("one", b"1")
        with monkeypatch.context() as patched:
            patched.setattr("os.fdatasync", fail)
            with pytest.raises(StorageUnavailable, match="could not sync"):
                store.put("two", b"2")
        with pytest.raises(StorageUnavailable, match="could not sync"):
            store.put("three", b"3")
    with SqliteStore(tmp_path / "objects.db") as store:
        store.put("three", b"3")
        assert store.read("one") == b"1"


def test_asyncio_reads_small_objects_without_a_thread(tmp_path: Path) -> None:
    async def use() -> None:
        async with AsyncObjectStore(open_store(f"sqlite:{tmp_path / 'objects.db'}")) as store:
            await store.put("small", b"abc")
            await store.put("large", large(1))
            assert store.store.read_now("small", start=1) == b"bc"
            assert store.store.read_now("large") is None
            assert (await store.read("small"), await store.read("large")) == (b"abc", large(1))
            with pytest.raises(ObjectNotFound):
                await store.read("nobody")

    asyncio.run(use())


def test_asyncio_writes_small_objects_without_a_thread_where_nothing_must_be_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "objects.db"
    body = b"x" * 1000

    def puts(store: SqliteStore, count: int) -> int:
        """How many of them would have waited."""
        late = 0
        for number in range(count):
            if store.put_now(f"k{number}", body, content_type="text/plain", metadata={"n": "1"}) is None:
                late += 1
                store.put(f"k{number}", body)
        return late

    with SqliteStore(path) as durable:
        assert durable.put_now("k", body) is None, "a sync is waited for"
    with SqliteStore(path, durable=False) as store, SqliteStore(path, durable=False) as other:
        late = puts(store, 3000)
        assert 0 < late < 60, "one that checkpoints and one that begins the WAL anew, each thousand pages"
        assert os.stat(f"{path}-wal").st_size < 3 * 1000 * 4200, "the WAL is checkpointed"
        found = store.head("k2999")
        assert (found.content_type, found.metadata, found.size) == ("text/plain", {"n": "1"}, 1000)
        assert store.put_now("big", bytes(1 << 20)) is None
        with pytest.raises(StorageRefused):
            store.put_now("../up", body)
        with other._database.write() as execute:
            execute("DELETE FROM holdfast_object WHERE key = 'k0'")
            assert store.put_now("k1", b"new") is None, "another connection writes"
            assert store.read("k1") == body
        assert other.put_now("k1", b"new") is not None
        assert store.read("k1") == b"new"

    async def in_place() -> None:
        before = threading.active_count()
        async with AsyncObjectStore(SqliteStore(path, durable=False)) as store:
            info = await store.put("a", b"1")
            assert await store.read("a") == b"1"
            assert threading.active_count() == before
            with SqliteStore(path) as other:
                with other._database.write():
                    waiting = asyncio.create_task(store.put("a", b"2"))
                    await asyncio.sleep(0)
                    assert (await store.read("a"), waiting.done()) == (b"1", False), "the loop goes on"
                await waiting
            assert (await store.head("a")).etag != info.etag

    asyncio.run(in_place())

"""`StorageManager` on a store and on a backend of the user's: values, errors, batches, versions, conditions."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import (
    ObjectConflict,
    ObjectCorrupt,
    ObjectNotFound,
    StorageError,
    StorageRefused,
    StorageUnavailable,
    StoreClosed,
)
from holdfast.objects import (
    ABSENT,
    AsyncObjectStore,
    MemoryStore,
    StorageBackend,
    StorageConfig,
    StorageManager,
    StoreBackend,
)
from holdfast.objects.port import CREATE, SWAP, TYPE


class Shelf(StorageBackend):
    """As short as a user's own backend gets, and as careless."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.fails: Exception | None = None

    async def save(self, key: str, data: Any, content_type: str = TYPE) -> None:
        await self._tick()
        self.held[key] = data

    async def load(self, key: str) -> bytes:
        await self._tick()
        return self.held[key]

    async def list_keys(self, prefix: str = "") -> list[str]:
        await self._tick()
        return list(self.held)

    async def delete(self, key: str) -> None:
        del self.held[key]

    async def exists(self, key: str) -> bool:
        await self._tick()
        return key in self.held

    async def _tick(self) -> None:
        await asyncio.sleep(0)
        if self.fails:
            raise self.fails


class Loud(StoreBackend):
    """One of ours with a call of its own."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.heard: list[str] = []

    async def save(self, key: str, data: Any, content_type: str = TYPE) -> None:
        self.heard.append(key)
        await super().save(key, data, content_type)


def manager(kind: str) -> StorageManager:
    made: dict[str, Any] = {
        "address": lambda: "memory:",
        "config": lambda: StorageConfig(storage_type="memory"),
        "store": MemoryStore,
        "async": lambda: AsyncObjectStore(MemoryStore()),
        "backend": lambda: StoreBackend(MemoryStore()),
        "subclass": lambda: Loud(MemoryStore()),
        "own": Shelf,
    }
    return StorageManager(made[kind]())


VALUES = {
    "agents/ceo": {"name": "CEO", "since": datetime(2025, 12, 25, tzinfo=UTC), "photo": b"\x00"},
    "agents/ceo/current": [1, 2.5, None],
    "agents/ceo-2": "text",
    "b/json-like": b'{"a": 1}',
    "b/like-ours": b"hf/typed/1 text/plain\nx",
    "b/plain": b"\x80\x00",
    "b/empty": b"",
    "c/number": 7,
    "c/text-of-json": '{"a": 1}',
}


@pytest.mark.parametrize("kind", ["address", "config", "store", "async", "backend", "subclass", "own"])
def test_every_storage_keeps_every_value(kind: str) -> None:
    async def use() -> None:
        async with manager(kind) as storage:
            for key, value in VALUES.items():
                await storage.save(key, value)
            await storage.save("d/given", '{"a": 1}', content_type="application/json")
            for key, value in VALUES.items():
                loaded = await storage.load(key)
                assert (loaded, type(loaded)) == (value, type(value))
            assert await storage.load("d/given") == {"a": 1}
            assert await storage.load_bytes("d/given") == b'{"a": 1}'
            assert await storage.list_keys() == sorted([*VALUES, "d/given"])
            assert await storage.list_keys("agents/ceo") == ["agents/ceo", "agents/ceo-2", "agents/ceo/current"]
            assert [await storage.exists("agents/ceo"), await storage.exists("agents")] == [True, False]
            assert [await storage.delete("agents/ceo"), await storage.delete("agents/ceo")] == [True, False]
            with pytest.raises(KeyError):
                await storage.load("agents/ceo")
            assert await storage.load("agents/ceo", None) is None
            assert (await storage.health()).ok
            for key in ("", "/a", "a//b", "../x", "a\\b"):
                with pytest.raises(StorageRefused):
                    await storage.save(key, 1)
        with pytest.raises(StoreClosed):
            await storage.load("agents/ceo-2")

    asyncio.run(use())


def test_json_and_bytes_lie_in_a_backend_of_ones_own_as_they_are() -> None:
    shelf = Shelf()
    storage = StorageManager(shelf)

    async def use() -> None:
        for key, value in VALUES.items():
            await storage.save(key, value)

    asyncio.run(use())
    assert json.loads(shelf.held["agents/ceo"])["name"] == "CEO"
    assert shelf.held["b/plain"] == b"\x80\x00"
    assert shelf.held["agents/ceo-2"] == b"hf/typed/1 text/plain; charset=utf-8\ntext"


def test_a_subclass_that_does_a_call_itself_is_asked() -> None:
    loud = Loud(MemoryStore())
    asyncio.run(StorageManager(loud).save("a", 1))
    assert loud.heard == ["a"]


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (KeyError("a"), ObjectNotFound),
        (ConnectionResetError("gone"), StorageUnavailable),
        (TimeoutError(), StorageUnavailable),
        (RuntimeError("broken"), StorageError),
        (ObjectCorrupt("rotten"), ObjectCorrupt),
    ],
)
def test_what_a_backend_raises_becomes_an_error_of_ours(raised: Exception, seen: type[StorageError]) -> None:
    shelf = Shelf()
    shelf.fails = raised
    with pytest.raises(seen) as caught:
        asyncio.run(StorageManager(shelf).load("a"))
    assert type(caught.value) is seen
    assert raised in (caught.value, caught.value.__cause__)
    assert not asyncio.run(StorageManager(shelf).health()).ok


def test_a_batch_tells_what_became_of_each() -> None:
    async def use() -> None:
        storage = StorageManager("memory:")
        items = {f"k/{number}": {"n": number} for number in range(50)}
        saved = await storage.save_many({**items, "bad//key": 1, "k/object": object(), "k/last": "x"})
        assert list(saved.done) == [*items, "k/last"]
        assert {key: type(error) for key, error in saved.failed.items()} == {
            "bad//key": StorageRefused,
            "k/object": StorageRefused,
        }
        with pytest.raises(StorageError, match="2 of 53 failed; the first is 'bad//key'"):
            saved.all()
        loaded = await storage.load_many([*items, "k/none"])
        assert loaded.done == items
        assert not loaded.ok
        with pytest.raises(KeyError):
            loaded.all()
        assert (await storage.delete_many([*items, "k/none"])).all() == {**dict.fromkeys(items, True), "k/none": False}
        with pytest.raises(StorageRefused, match="twice"):
            await storage.save_many([("k/a", 1), ("k/a", 2)])
        assert await storage.list_keys() == ["k/last"]

    asyncio.run(use())


def test_no_more_calls_are_under_way_than_were_allowed() -> None:
    class Counting(Shelf):
        now = most = 0

        async def save(self, key: str, data: Any, content_type: str = TYPE) -> None:
            self.now += 1
            self.most = max(self.most, self.now)
            await super().save(key, data)
            self.now -= 1

    backend = Counting()
    asyncio.run(StorageManager(backend, at_once=5).save_many((f"k{n}", n) for n in range(40)))
    assert (backend.most, len(backend.held)) == (5, 40)


def test_conditions_hold_writers_to_what_they_saw() -> None:
    async def use() -> None:
        storage = StorageManager("memory:")
        first = await storage.save("a", 1, expect=ABSENT)
        with pytest.raises(ObjectConflict):
            await storage.save("a", 2, expect=ABSENT)
        value, etag = await storage.load_with_etag("a")
        assert (value, etag) == (1, first)
        await storage.save("a", 2, expect=etag, metadata={"by": "ceo"})
        with pytest.raises(ObjectConflict):
            await storage.save("a", 3, expect=etag)
        with pytest.raises(ObjectConflict):
            await storage.delete("a", expect=etag)
        info = await storage.info("a")
        assert (await storage.load("a"), info.metadata, info.content_type) == (2, {"by": "ceo"}, "application/json")
        own = StorageManager(Shelf())
        for call in (own.save("a", 1, expect=ABSENT), own.save("a", 1, metadata={"by": "x"}), own.info("a")):
            with pytest.raises(StorageRefused):
                await call

    asyncio.run(use())


@pytest.mark.parametrize("kind", ["store", "own"])
def test_versions_lie_as_the_seed_has_them(kind: str) -> None:
    async def use() -> None:
        storage = manager(kind)
        assert [await storage.save_versioned("models/ceo", {"n": n}) for n in (1, 2, 3)] == [1, 2, 3]
        names = ["models/ceo/current", "models/ceo/v1", "models/ceo/v2", "models/ceo/v3"]
        assert await storage.list_keys("models/ceo") == names
        assert await storage.load("models/ceo/current") == {"version": 3}
        assert await storage.load_version("models/ceo") == {"n": 3}
        assert await storage.roll_back("models/ceo") == 2
        assert await storage.load_version("models/ceo") == {"n": 2}
        assert await storage.save_versioned("models/ceo", {"n": 4}) == 4
        assert await storage.roll_back("models/ceo", 1) == 1
        await storage.delete("models/ceo/v4")
        await storage.save("models/ceo/v1/notes", "beside")
        assert await storage.save_versioned("models/ceo", "named", version="1.2") == "1.2"
        assert await storage.list_versions("models/ceo") == [1, 2, 3, "1.2"]
        assert await storage.current_version("models/ceo") == "1.2"
        with pytest.raises(ObjectConflict):
            await storage.save_versioned("models/ceo", "other", version="3")
        assert await storage.load_version("models/ceo", 3) == {"n": 3}
        for version, error in ((9, KeyError), (0, StorageRefused), (True, StorageRefused), ("a/b", StorageRefused)):
            with pytest.raises(error):
                await storage.roll_back("models/ceo", version)
        for call in (storage.load_version("models/cfo"), storage.roll_back("models/cfo")):
            with pytest.raises(KeyError):
                await call

    asyncio.run(use())


def test_the_number_of_the_current_version_is_never_given_again() -> None:
    async def use() -> None:
        storage = StorageManager("memory:")
        for number in range(3):
            await storage.save_versioned("a", number)
        await storage.delete("a/v3")
        await storage.delete("a/v2")
        assert await storage.save_versioned("a", "new") == 4

    asyncio.run(use())


def test_an_object_of_ones_own_in_the_pointers_place_is_left_alone() -> None:
    async def use() -> None:
        storage = StorageManager("memory:")
        await storage.save("agents/ceo/current", {"name": "CEO"})
        with pytest.raises(StorageRefused, match="object of its own"):
            await storage.save_versioned("agents/ceo", {"name": "new"})
        assert await storage.list_keys() == ["agents/ceo/current"]

    asyncio.run(use())


@pytest.mark.parametrize("lacks", [frozenset(), frozenset({CREATE, SWAP})])
def test_two_who_save_at_once_get_two_versions(lacks: frozenset[str]) -> None:
    store = MemoryStore()
    store.lacks, store.quick = lacks, False  # so that its calls are made in threads, and meet
    managers = [StorageManager(store)] * 8 if lacks else [StorageManager(store) for _ in range(8)]
    got: list[Any] = []

    def work(storage: StorageManager) -> None:
        async def save() -> list[Any]:
            return await asyncio.gather(*[storage.save_versioned("a", threading.get_ident()) for _ in range(10)])

        got.extend(asyncio.run(save()))

    threads = [threading.Thread(target=work, args=(each,)) for each in managers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(1, 81))
    assert asyncio.run(managers[0].list_versions("a")) == list(range(1, 81))
    if not lacks:
        assert asyncio.run(managers[0].current_version("a")) == 80


def test_a_late_writer_does_not_take_the_pointer_back() -> None:
    class Overtaken(MemoryStore):
        def put(self, key: str, data: Any, **options: Any) -> Any:
            info = super().put(key, data, **options)
            if key == "a/v1":  # before the pointer is moved, somebody else has stored the next version
                super().put("a/v2", b"2")
                super().put("a/current", b'{"version":2}', content_type="application/json")
            return info

    async def use() -> None:
        storage = StorageManager(Overtaken())
        assert await storage.save_versioned("a", 1) == 1
        assert await storage.current_version("a") == 2

    asyncio.run(use())


def test_one_manager_serves_several_loops_and_threads_and_opens_once() -> None:
    storage = StorageManager("memory:")

    async def both(number: int) -> Any:
        await storage.save(f"k/{number}", number)
        return await storage.load(f"k/{number}")

    threads = [threading.Thread(target=lambda n=n: asyncio.run(both(n))) for n in range(8)]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asyncio.run(storage.list_keys("k/"))) == 8


def test_a_manager_opens_nothing_before_it_is_used(tmp_path: Path) -> None:
    storage = StorageManager(StorageConfig(storage_type="sqlite", base_path=tmp_path / "objects.db"))
    asyncio.run(storage.close())
    assert not list(tmp_path.iterdir())
    opened: list[str] = []

    class Late(StoreBackend):
        def __init__(self) -> None:
            self.closed = 0

        @property
        def objects(self) -> AsyncObjectStore:  # type: ignore[override]
            opened.append(threading.current_thread().name)
            return AsyncObjectStore(MemoryStore())

        async def close(self) -> None:
            self.closed += 1

    late = Late()
    storage = StorageManager(late)
    assert not opened
    asyncio.run(storage.save("a", 1))
    assert len(opened) == 1
    assert opened[0] != threading.current_thread().name
    asyncio.run(storage.close())
    assert late.closed == 1
    with pytest.raises(StorageRefused, match="not a store's address"):
        asyncio.run(StorageManager("./data").load("a"))
    with pytest.raises(StorageRefused, match="not a storage"):
        StorageManager({"storage_type": "file"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ({"storage_type": "file", "base_path": "./data"}, "file:./data"),
        ({"storage_type": "sqlite", "base_path": Path("x.db")}, "sqlite:x.db"),
        ({"storage_type": "memory"}, "memory:"),
        ({"storage_type": "PostgreSQL", "connection_string": "postgresql://u:p@h/d"}, "postgresql://u:p@h/d"),
        ({"storage_type": "redis", "connection_string": "redis://h"}, "redis://h"),
        ({"storage_type": "s3", "bucket": "b", "prefix": "p/", "endpoint": "http://h"}, "s3://b/p"),
        ({"storage_type": "azure", "connection_string": "AccountName=a;"}, "azure://holdfast"),
        ({"storage_type": "azure", "account_url": "https://a", "credential": 1, "container": "c"}, "azure://c"),
        ({"storage_type": "gcs", "bucket": "b"}, "gcs://b"),
    ],
)
def test_a_configuration_means_an_address(given: dict[str, Any], address: str) -> None:
    config = StorageConfig(**given)
    assert config.address == address
    assert "connection_string" not in repr(config)
    environ = {f"HOLDFAST_STORAGE_{name.upper()}": str(value) for name, value in given.items() if name != "credential"}
    environ["HOLDFAST_STORAGE"] = environ.pop("HOLDFAST_STORAGE_STORAGE_TYPE")
    extra = {"credential": given["credential"]} if "credential" in given else {}
    assert StorageConfig.from_env(environ, **extra).address == address


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"storage_type": "ftp"}, "no storage_type 'ftp'"),
        ({"storage_type": None}, "no storage_type None"),
        ({"storage_type": "file"}, "needs base_path"),
        ({"storage_type": "file", "base_path": ""}, "base_path is empty"),
        ({"storage_type": "file", "base_path": 7}, "base_path is text"),
        ({"storage_type": "file", "base_path": "x", "bucket": "b"}, "does not take bucket"),
        ({"storage_type": "s3"}, "needs bucket"),
        ({"storage_type": "s3", "bucket": "b", "access_key_id": "x"}, "belong together"),
        ({"storage_type": "azure", "connection_string": os.environ.get("NO_SUCH")}, "connection_string or account_url"),
        ({"storage_type": "azure", "connection_string": "x", "account_url": "y"}, "not both"),
        ({"storage_type": "azure", "connection_string": "x", "credential": 1}, "takes no credential"),
        ({"storage_type": "postgres", "connection_string": "host=secret"}, "is a URL"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_at_once(given: dict[str, Any], why: str) -> None:
    with pytest.raises(StorageRefused, match=why) as caught:
        StorageConfig(**given)
    assert "host=secret" not in str(caught.value)


def test_the_usual_variable_of_azure_is_looked_at() -> None:
    environ = {"HOLDFAST_STORAGE": "azure", "AZURE_STORAGE_CONNECTION_STRING": "AccountName=a;"}
    assert StorageConfig.from_env(environ).connection_string == "AccountName=a;"

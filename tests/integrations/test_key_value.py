"""The contract of py-key-value's stores over stores of ours: what its own store tests ask, and what they leave out."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from key_value.aio.errors import InvalidTTLError, SerializationError
from key_value.aio.protocols import AsyncKeyValue

from holdfast.errors import ObjectCorrupt, StorageError, StorageRefused
from holdfast.integrations.key_value import KeyValue
from holdfast.objects import MemoryStore
from holdfast.testing.clock import SettableClock

STORES = ["memory:", "sqlite:…", "file:…"]


@pytest.fixture(params=STORES)
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(request.param).replace("…", str(tmp_path / "store"))


def over(address: str, work: Callable[[KeyValue], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with KeyValue(address) as store:
            return await work(store)

    return asyncio.run(run())


def test_it_is_what_frameworks_ask_for(address: str) -> None:
    async def work(store: KeyValue) -> None:
        assert isinstance(store, AsyncKeyValue)

    over(address, work)


def test_values_come_back_and_go(address: str) -> None:
    values = {"a": {"n": 1, "f": 1.0, "t": "ü", "l": [None, True, {"x": []}]}, "b": {}}

    async def work(store: KeyValue) -> None:
        assert await store.get("a", collection="c") is None
        assert await store.ttl("a", collection="c") == (None, None)
        await store.put_many(list(values), list(values.values()), collection="c")
        assert await store.get_many(["b", "nobody", "a"], collection="c") == [values["b"], None, values["a"]]
        assert await store.ttl("a", collection="c") == (values["a"], None)
        assert await store.get("a") is None  # another collection
        await store.put("a", {"new": 1}, collection="c")
        assert await store.get("a", collection="c") == {"new": 1}
        assert await store.delete("a", collection="c") is True
        assert await store.delete("a", collection="c") is False
        assert await store.delete_many(["a", "b"], collection="c") == 1
        assert await store.keys("c") == []

    over(address, work)


def test_any_text_is_a_key_and_a_collection(address: str) -> None:
    names = [
        "",
        ".",
        "..",
        "/",
        "a/b",
        "a%2Fb",
        "a" * 1500,
        "a" * 1501,
        "ü\x00\n",
        "test_key!@#$%^&*()",
        "%-",
        "%=",
        "A",
        "a",
    ]

    async def work(store: KeyValue) -> None:
        for number, name in enumerate(names):
            await store.put(name, {"n": number}, collection="c")
            await store.put("k", {"n": number}, collection=name or None)
        assert await store.get_many(names, collection="c") == [{"n": number} for number in range(len(names))]
        assert sorted(await store.keys("c")) == sorted(names)
        assert len(await store.keys("c", limit=3)) == 3
        for number, name in enumerate(names):
            assert await store.get("k", collection=name or None) == {"n": number}
        found = [name or "default_collection" for name in names]
        assert sorted(await store.collections()) == sorted([*found, "c"])
        assert len(await store.collections(limit=2)) == 2
        assert await store.destroy_collection("c") is True
        assert await store.destroy_collection("c") is False
        assert sorted(await store.collections()) == sorted(found)
        assert await store.destroy() is True
        assert await store.collections() == []

    over(address, work)


def test_what_is_expired_is_gone_at_its_instant() -> None:
    clock, inner = SettableClock(), MemoryStore()

    async def work() -> None:
        store = KeyValue(inner, wall=clock)
        await store.put("short", {"n": 1}, ttl=2)
        await store.put("long", {"n": 2}, ttl=100)
        await store.put("ever", {"n": 3})
        clock.advance(1.999)
        assert await store.ttl("short") == ({"n": 1}, pytest.approx(0.001))
        clock.advance(0.001)
        assert await store.ttl_many(["short", "long", "ever"]) == [(None, None), ({"n": 2}, 98.0), ({"n": 3}, None)]
        assert await store.get("short") is None
        assert await store.delete("short") is False
        await store.put("short", {"n": 4}, ttl=2)
        clock.advance(2)
        assert await store.keys() == ["ever", "long"]
        assert len(list(inner.list())) == 3
        await store.cull()
        assert len(list(inner.list())) == 2

    asyncio.run(work())


def test_cull_leaves_what_was_written_while_it_looked() -> None:
    clock = SettableClock()

    class Slow(MemoryStore):
        def delete(self, key: str, *, expect: str | None = None) -> bool:
            self.put(key, self.read(key))  # somebody else's, just before
            return super().delete(key, expect=expect)

    inner = Slow()

    async def work() -> None:
        store = KeyValue(inner, wall=clock)
        await store.put("one", {"n": 1}, ttl=1)
        clock.advance(1)
        await store.cull()
        assert len(list(inner.list())) == 1

    asyncio.run(work())


def test_what_cannot_be_is_refused_and_nothing_of_a_batch_written(address: str) -> None:
    now = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
    bad: list[Any] = [{"a": now}, {"a": now.date()}, {"a": float("nan")}, {"a": b"x"}, {"a": {1: 2}}, {"a": {1}}]

    async def work(store: KeyValue) -> None:
        for value in bad:
            with pytest.raises(SerializationError):
                await store.put("one", value)
            with pytest.raises(SerializationError):
                await store.put_many(["one", "two"], [{"good": 1}, value])
        for ttl in (0, -100, float("nan"), float("inf"), True, "soon"):
            with pytest.raises(InvalidTTLError):
                await store.put("one", {}, ttl=ttl)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await store.put("one", [1])  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await store.put(1, {})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="2 keys for 1 values"):
            await store.put_many(["one", "two"], [{}])
        assert await store.keys() == []

    over(address, work)


def test_many_at_once(address: str) -> None:
    async def worker(store: KeyValue, number: int) -> None:
        for turn in range(5):
            key = f"{number}/{turn}"
            assert await store.get(key) is None
            await store.put(key, {"n": turn})
            await store.put(key, {"n": turn + 1})
            assert await store.get(key) == {"n": turn + 1}
            assert await store.delete(key)

    async def work(store: KeyValue) -> None:
        await asyncio.gather(*[worker(store, number) for number in range(8)])
        assert await store.keys() == []

    over(address, work)


def test_what_is_no_value_of_ours_is_said_to_be_so_and_a_store_that_is_given_stays_open() -> None:
    inner = MemoryStore()

    async def work() -> None:
        async with KeyValue(inner) as store:
            await store.put("one", {})
            inner.put(next(iter(inner.list())).key, b"{}")
            with pytest.raises(ObjectCorrupt, match="no value"):
                await store.get("one")
        assert inner.health().ok

    asyncio.run(work())
    with pytest.raises(StorageRefused):
        KeyValue("nowhere:")
    assert issubclass(StorageRefused, StorageError)

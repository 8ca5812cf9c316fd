"""The contract of py-key-value's stores over stores of ours: what its own store tests ask, and what they leave out."""

from __future__ import annotations

import asyncio
import datetime as dt
import tempfile
import warnings
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from key_value.aio.errors import InvalidTTLError, SerializationError
from key_value.aio.protocols import AsyncKeyValue
from key_value.aio.stores.simple import SimpleStore

from holdfast import Store
from holdfast.errors import ObjectCorrupt, StorageError, StorageRefused, UsageError
from holdfast.integrations.key_value import KeyValue
from holdfast.objects import MemoryStore
from holdfast.testing.clock import SettableClock
from tests.flow.hubs import HubProcess
from tests.integrations.places import KINDS, LIMITS, at, fresh
from tests.integrations.places import hub as hub
from tests.integrations.places import machines as machines

STORES = ["memory:", "sqlite:…", "file:…"]


@pytest.fixture(params=[*STORES, *KINDS])
def kept(request: pytest.FixtureRequest, tmp_path: Path, hub: HubProcess) -> Iterator[dict[str, Any]]:
    """Where values may be kept: each object store by its address, and each place; each time where nothing is yet."""
    if request.param in STORES:
        yield {"where": str(request.param).replace("…", str(tmp_path / "store"))}
        return
    with at(request.param, tmp_path / "node", hub, f"laptop-{fresh()}") as place:
        yield {**place, "collection": fresh()}


def over(kept: dict[str, Any], work: Callable[[KeyValue], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with KeyValue(**kept) as store:
            return await work(store)

    return asyncio.run(run())


def test_it_is_what_frameworks_ask_for(kept: dict[str, Any]) -> None:
    async def work(store: KeyValue) -> None:
        assert isinstance(store, AsyncKeyValue)

    over(kept, work)


def test_values_come_back_and_go(kept: dict[str, Any]) -> None:
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

    over(kept, work)


def test_any_text_is_a_key_and_a_collection(kept: dict[str, Any]) -> None:
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

    over(kept, work)


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


def test_what_cannot_be_is_refused_and_nothing_of_a_batch_written(kept: dict[str, Any]) -> None:
    now = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
    bad: list[Any] = [{"a": now}, {"a": now.date()}, {"a": float("nan")}, {"a": b"x"}, {"a": {1: 2}}, {"a": {1}}]

    async def work(store: KeyValue) -> None:
        for value in bad:
            with pytest.raises(SerializationError):
                await store.put("one", value)
            with pytest.raises(SerializationError):
                await store.put_many(["one", "two"], [{"good": 1}, value])
        for ttl in (0, -100, float("nan"), float("inf"), True, "soon", 1e12, 1e300):
            with pytest.raises(InvalidTTLError):
                await store.put("one", {}, ttl=ttl)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await store.put("one", [1])  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await store.put(1, {})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="2 keys for 1 values"):
            await store.put_many(["one", "two"], [{}])
        assert await store.keys() == []

    over(kept, work)


NAMES = st.sampled_from(["a", "a/b", "ü", ".", "", "A"])
ROOMS = st.sampled_from([None, "c", "c/d"])
VALUES = st.dictionaries(
    st.sampled_from("xyz"),
    st.sampled_from([1, 1.5, "t", None, True, [1, {"n": []}], "2025-01-01T00:00:00"]),
    max_size=2,
)
KV_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), NAMES, VALUES, ROOMS, st.sampled_from([None, 3600, 0])),
        st.tuples(st.just("put_many"), st.lists(NAMES, max_size=3, unique=True), VALUES, ROOMS, st.none()),
        st.tuples(st.just("delete"), NAMES, st.none(), ROOMS, st.none()),
        st.tuples(st.just("delete_many"), st.lists(NAMES, max_size=3), st.none(), ROOMS, st.none()),
        st.tuples(st.just("destroy_collection"), st.none(), st.none(), st.sampled_from(["c", "c/d"]), st.none()),
    ),
    max_size=12,
)


async def do(store: Any, step: tuple[str, Any, Any, Any, Any]) -> Any:
    what, key, value, room, ttl = step
    try:
        if what == "put":
            return await store.put(key, value, collection=room, ttl=ttl)
        if what == "put_many":
            return await store.put_many(key, [value] * len(key), collection=room)
        if what == "destroy_collection":
            for each in await store.keys(room):
                await store.delete(each, collection=room)
            return None
        return await getattr(store, what)(key, collection=room)
    except InvalidTTLError:
        return "refused"


async def seen(store: Any) -> Any:
    rows = []
    for room in (None, "c", "c/d"):
        names = ["a", "a/b", "ü", ".", "", "A"]
        found = await store.ttl_many(names, collection=room)
        assert [value for value, _ in found] == await store.get_many(names, collection=room)
        rows.append([(value, None if ttl is None else 3590 < ttl <= 3600) for value, ttl in found])
    return rows


@pytest.mark.parametrize("on", ["records", "objects"])
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(steps=KV_STEPS)
def test_it_is_what_py_key_values_own_is(on: str, steps: list[tuple[str, Any, Any, Any, Any]]) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as directory, Store(directory, "ada", hub=[], limits=LIMITS) as store:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # theirs says of itself that it may change
                theirs = SimpleStore()
            ours = KeyValue(store if on == "records" else MemoryStore())
            for step in steps:
                assert await do(ours, step) == await do(theirs, step), step
                assert await seen(ours) == await seen(theirs), step

    asyncio.run(run())


def test_values_of_one_machine_are_there_on_the_other(machines: tuple[Store, Store]) -> None:
    laptop, desk = machines
    name = fresh()

    async def work() -> None:
        there, here = (KeyValue(each, shared=True, collection=name) for each in machines)
        await there.put("session", {"step": 1}, collection="mcp", ttl=3600)
        assert await here.get("session", collection="mcp") == {"step": 1}
        await here.put("session", {"step": 2}, collection="mcp")
        assert await there.ttl("session", collection="mcp") == ({"step": 2}, None)
        assert [value for value, _ in await there.history("session", collection="mcp")] == [{"step": 2}, {"step": 1}]
        assert await there.delete("session", collection="mcp")
        assert not await here.delete("session", collection="mcp")

        mine, other = (KeyValue(each, collection=name) for each in machines)
        await mine.put("alone", {"n": 1})
        assert laptop.flush(30)
        assert await other.get("alone") is None
        assert desk.get("default_collection/alone", collection=name, agent=laptop.agent)["value"] == {"n": 1}

    asyncio.run(work())


def test_many_at_once(kept: dict[str, Any]) -> None:
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

    over(kept, work)


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
    with pytest.raises(UsageError, match="nobody's"):
        KeyValue("memory:", agent="ada")
    with pytest.raises(UsageError, match="not what was"):
        asyncio.run(KeyValue(inner).history("one"))
    assert issubclass(StorageRefused, StorageError)

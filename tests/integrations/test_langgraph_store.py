"""LangGraph's long-term store and its cache on Holdfast, against LangGraph's own in memory."""

from __future__ import annotations

import asyncio
import importlib.util
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

import pytest

if importlib.util.find_spec("langgraph") is None:
    pytest.skip("LangGraph is not installed: make test-integrations", allow_module_level=True)

from langgraph.cache.memory import InMemoryCache
from langgraph.graph import START, StateGraph
from langgraph.store.base import GetOp, ListNamespacesOp, MatchCondition, PutOp, SearchOp
from langgraph.store.memory import InMemoryStore
from langgraph.types import CachePolicy

from holdfast import AsyncStore, Hub, NotFound, Store, UsageError
from holdfast.corpus.search import numbers
from holdfast.integrations.langgraph import HoldfastCache, HoldfastStore, vectors
from holdfast.testing.clock import SettableClock
from tests.flow.hubs import HubProcess
from tests.integrations.langgraph_places import LIMIT_S, opened

pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours


@pytest.fixture(params=["node", "hub"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store | Hub]:
    with opened(request.param, tmp_path) as found:
        yield found


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "node", "graph", hub=[]) as store:
        yield store


def letters(texts: list[str]) -> list[list[float]]:
    """How often each letter is in a text: near enough to a meaning."""
    return [[float(text.lower().count(chr(97 + number))) for number in range(26)] for text in texts]


INDEX: dict[str, Any] = {"dims": 26, "embed": letters}


def shown(item: Any) -> Any:
    """An item without its times."""
    if item is None:
        return None
    score = getattr(item, "score", None)
    return item.namespace, item.key, item.value, None if score is None else round(score, 4)


def test_it_does_what_their_store_does(place: Store | Hub) -> None:
    """Random operations on both, the same answers; what is unscored is compared without its order."""
    ours, theirs = HoldfastStore(place, index=INDEX), InMemoryStore(index=INDEX)
    dice = random.Random(5)
    names = [("a",), ("a", "b"), ("ab",), ("A",), ("a", "b", "c"), ("x/y", "%"), ("ü" * 90,), ("=", "k")]
    keys = ["k", "k/t", "=k", "ü", "K" * 300, "k~"]
    indexed: dict[str, Any] = dict(zip(keys, [None, ["text"], False] * 2, strict=True))  # theirs keeps old vectors
    words = ["apple", "banana", "cherry pie", "date", "elder"]
    for _ in range(150 if isinstance(place, Store) else 60):
        space, key = dice.choice(names), dice.choice(keys)
        kind = dice.randrange(6)
        ops: list[Any]
        if kind < 3:
            value = {"text": dice.choice(words), "n": dice.randrange(5), "deep": {"x": [dice.randrange(2)]}}
            ops = [PutOp(space, key, value, index=indexed[key])]
        elif kind == 3:
            ops = [
                PutOp(space, key, None),
                GetOp(space, key),
                PutOp(space, "k", {"text": "last", "n": 9}),
            ]
        elif kind == 4:
            wanted = dice.choice([None, {"n": dice.randrange(5)}, {"n": {"$gte": 2, "$lt": 4}}, {"deep": {"x": [1]}}])
            ops = [SearchOp(space[: dice.randrange(3)], wanted, limit=100), GetOp(space, key)]
        else:
            match = dice.choice(["prefix", "suffix"])
            path = dice.choice([("a",), ("*", "b"), ("b",), ("A",)])
            ops = [ListNamespacesOp((MatchCondition(match, path),), dice.choice([None, 1, 2]), limit=100)]
            ops.append(ListNamespacesOp(None, None, limit=2, offset=dice.randrange(3)))
        for mine, other in zip(ours.batch(ops), theirs.batch(ops), strict=True):
            if isinstance(other, list) and other and not isinstance(other[0], tuple):
                assert sorted(map(shown, mine), key=repr) == sorted(map(shown, other), key=repr)
            elif isinstance(other, list):
                emptied = {each for each in other if not theirs._data.get(each)}  # it lists what is empty again, too
                assert [each for each in mine if each not in emptied] == mine
            else:
                assert shown(mine) == shown(other)
    for word in words:
        mine, other = (store.search((), query=word, limit=200) for store in (ours, theirs))
        assert sorted(map(shown, mine), key=repr) == sorted(map(shown, other), key=repr)
        scored = [each.score for each in mine if each.score is not None]
        assert scored == sorted(scored, reverse=True)


def test_meaning_is_found_without_numpy_as_with_it(node: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(3)
    query = [dice.random() for _ in range(26)]
    made = [vectors.from_text(vectors.to_text([dice.random() for _ in range(26)], 26)) for _ in range(50)]
    made += [b"", bytes(26 * 4)]
    fast = vectors.scores(query, made)
    monkeypatch.setattr(numbers, "engine", lambda: None)
    slow = vectors.scores(query, made)
    assert all(math.isclose(one, other, abs_tol=1e-5) for one, other in zip(fast, slow, strict=True))
    store = HoldfastStore(node, index=INDEX)
    store.put(("docs",), "a", {"text": "zebra"})
    store.put(("docs",), "b", {"text": "apple"})
    assert store.search(("docs",), query="appel")[0].key == "b"
    with pytest.raises(UsageError, match="embedding function gave 3 numbers"):
        HoldfastStore(node, index={"dims": 26, "embed": lambda texts: [[1.0] * 3 for _ in texts]}).put(
            ("d",), "x", {"t": "y"}
        )
    assert store.get(("d",), "x") is None


def test_items_end_and_live_on_when_they_are_read(tmp_path: Path) -> None:
    with Store(tmp_path / "node", "graph", hub=[]) as node:
        clock = node._directory.wall = SettableClock(1_700_000_000_000)
        store = HoldfastStore(node, ttl={"default_ttl": 10, "refresh_on_read": True})
        minute = 60
        store.put(("a",), "read", {"x": 1})
        store.put(("a",), "left", {"x": 2})
        store.put(("b",), "ever", {"x": 3}, ttl=None)
        clock.advance(8 * minute)
        assert store.get(("a",), "read") is not None
        assert store.get(("a",), "left", refresh_ttl=False) is not None
        clock.advance(8 * minute)
        assert store.get(("a",), "read", refresh_ttl=False) is not None
        assert store.get(("a",), "left") is None
        assert [each.key for each in store.search(("a",), refresh_ttl=False)] == ["read"]
        assert store.sweep_ttl() == 1
        store.put(("a",), "read", {"x": 1}, ttl=1)  # a new one, with a time of its own
        clock.advance(2 * minute)
        assert store.get(("a",), "read") is None
        assert store.list_namespaces() == [("b",)]
        assert store.sweep_ttl() == 1
        assert node.keys(collection="langgraph-store") == ["b/=ever"]
        with pytest.raises(UsageError, match="ttl"):
            store.put(("a",), "x", {}, ttl=-1)
        done = store.start_ttl_sweeper(0.0001)
        store.put(("a",), "swept", {"x": 1})
        clock.advance(20 * minute)
        while "a/=swept" in node.keys(collection="langgraph-store"):
            pass
        assert store.stop_ttl_sweeper(timeout=10)
        assert done.result(timeout=10) is None


def test_what_one_machine_keeps_another_finds(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path / "hub")
    try:
        with Store(tmp_path / "1", "g1", hub=hub.url) as one, Store(tmp_path / "2", "g2", hub=hub.url) as two:
            here, there = HoldfastStore(one, index=INDEX), HoldfastStore(two, index=INDEX)
            here.put(("u", "ada"), "likes", {"text": "tea"})
            assert one.flush(LIMIT_S)
            assert there.search(("u",), query="teas")[0].value == {"text": "tea"}
            there.put(("u", "ada"), "likes", {"text": "coffee"})
            assert two.flush(LIMIT_S)
            assert here.get(("u", "ada"), "likes").value == {"text": "coffee"}
            assert here.get(("u", "ada"), "likes").created_at < here.get(("u", "ada"), "likes").updated_at
            here.delete(("u", "ada"), "likes")
            assert one.flush(LIMIT_S)
            assert there.get(("u", "ada"), "likes") is None
            assert there.list_namespaces() == []
    finally:
        hub.kill()


def test_versions_of_an_item_are_told_and_brought_back(place: Store | Hub) -> None:
    store = HoldfastStore(place)
    for number in range(3):
        store.put(("a",), "k", {"n": number})
    assert [each.value["value"]["n"] for each in store.history(("a",), "k")] == [2, 1, 0]
    store.rollback(("a",), "k", 1)
    assert store.get(("a",), "k").value == {"n": 0}
    with pytest.raises(NotFound):
        store.rollback(("a",), "k", 99)


def test_everything_awaited_is_the_same(tmp_path: Path) -> None:
    async def run() -> None:
        async with AsyncStore(tmp_path / "node", "graph", hub=[]) as node:
            store = HoldfastStore(node, index=INDEX)
            await asyncio.gather(*(store.aput(("a", str(n)), "k", {"text": "tea" * n}) for n in range(5)))
            assert (await store.aget(("a", "3"), "k")).value == {"text": "teateatea"}
            assert len(await store.asearch(("a",), query="tea")) == 5
            assert await store.alist_namespaces(prefix=("a",), limit=2) == [("a", "0"), ("a", "1")]

    asyncio.run(run())


def test_bad_input_is_refused_and_nothing_is_written(node: Store) -> None:
    store = HoldfastStore(node)
    with pytest.raises(UsageError, match="cannot store"):
        store.batch([PutOp(("a",), "ok", {"x": 1}), PutOp(("a",), "bad", {"x": object()})])
    assert store.search(()) == []
    with pytest.raises(UsageError, match="namespace and key"):
        store.put(("n" * 200,) * 6, "k", {"x": 1})
    store.put(("a",), "k", {"x": 1})
    with pytest.raises(ValueError, match="operator"):
        store.search(("a",), filter={"x": {"$near": 1}})
    assert store.search(("a",), filter={"y": {"$gt": 1}}) == []


def test_the_cache_keeps_and_forgets(place: Store | Hub) -> None:
    clock = SettableClock(1_700_000_000_000)
    cache = HoldfastCache(place, wall=clock)
    one, two, three = (("a",), "1"), (("a",), "2"), (("a", "b"), "1")
    cache.set({one: ({"x": {1, 2}}, None), two: ("tea", 5), three: (b"\xff", 3600)})
    assert cache.get([one, two, three, (("a",), "3")]) == {one: {"x": {1, 2}}, two: "tea", three: b"\xff"}
    clock.advance(6)
    assert asyncio.run(cache.aget([one, two])) == {one: {"x": {1, 2}}}
    cache.clear([("a",)])
    assert cache.get([one, three]) == {three: b"\xff"}
    cache.clear()
    assert HoldfastCache(place).get([three]) == {}
    cache.close()


def test_a_cache_is_what_theirs_is(place: Store | Hub) -> None:
    """Random operations on both, with times that are over at once, never, and in an hour."""
    ours, theirs = HoldfastCache(place), InMemoryCache()
    dice = random.Random(11)
    names = [(), ("a",), ("a", "b"), ("x/y", "%"), ("ü" * 90,)]
    every = [(name, key) for name in names for key in ["k", "k/t", "=k", "K" * 300]]
    values = ["tea", b"\xff", {"n": [1, 2.5, None]}, {"s": {1, 2}}, ("a", 1), None]
    for _ in range(60 if isinstance(place, Store) else 25):
        if dice.random() < 0.8:
            pairs = {dice.choice(every): (dice.choice(values), dice.choice([None, 0, 3600])) for _ in range(3)}
            for each in (ours, theirs):
                each.set(pairs)
        else:
            spaces = dice.choice([None, [dice.choice(names)], dice.sample(names, 2)])
            for each in (ours, theirs):
                asyncio.run(each.aclear(spaces))
        assert ours.get(every) == theirs.get(every)
    ours.close()


def test_what_a_node_gave_on_one_machine_another_does_not_ask_for_again(tmp_path: Path) -> None:
    class Sum(TypedDict):
        n: int

    asked: list[int] = []

    def double(state: Sum) -> Sum:
        asked.append(state["n"])
        return {"n": state["n"] * 2}

    hub = HubProcess(tmp_path / "hub")
    try:
        with Store(tmp_path / "1", "g1", hub=hub.url), Store(tmp_path / "2", "g2", hub=hub.url):
            for number in (21, 21, 4):
                builder = StateGraph(Sum).add_node("double", double, cache_policy=CachePolicy(ttl=60))
                cache = HoldfastCache(hub.url)  # of each machine its own
                graph = builder.add_edge(START, "double").compile(cache=cache)
                assert graph.invoke({"n": number}) == {"n": number * 2}
                cache.close()
    finally:
        hub.kill()
    assert asked == [21, 4]

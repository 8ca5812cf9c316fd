"""Search through a hub that runs: two machines, fillers on any of them, and what a crash in between leaves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import Denied, HoldfastError, HubUnavailable, NotFound, UsageError
from holdfast.hub.tokens import SqliteTokens, Wish, create
from holdfast.log.hits import Hits, IndexStatus
from holdfast.node.aio_hub import AsyncHub
from holdfast.node.hub import Hub
from holdfast.node.store import Store
from holdfast.query import where
from tests.embedders import embed, embed_async, embed_letters, failing, poisoned
from tests.flow.hubs import HubProcess, until

MODEL = "meanings"
MEMORIES = {
    "tea": "She likes black tea",
    "car": "He drives a red car to the office",
    "cup": "A cup of oolong each morning",
    "roses": "The roses want water",
}
OnNode = Callable[..., Store]


@pytest.fixture
def reader(hub: HubProcess) -> Iterator[Hub]:
    """A hub's client."""
    with Hub(hub.url) as opened:
        yield opened


def remember(store: Store, **more: str) -> None:
    """Writes memories and has them at the hub."""
    for key, text in {**MEMORIES, **more}.items():
        store.put(key, {"text": text, "by": store.agent}, collection="memory")
    assert store.flush()


def status(place: Any) -> IndexStatus:
    """How the one index stands."""
    (found,) = place.indexes()
    assert isinstance(found, IndexStatus)
    return found


def whole(place: Any, vectors: int) -> Callable[[], bool]:
    """Whether the one index holds everything."""

    def met() -> bool:
        found = status(place)
        return found.complete and not found.pending and not found.building and found.vectors == vectors

    return met


def keys(found: Hits) -> list[str]:
    """What was found."""
    return [each.key for each in found]


def test_what_one_machine_knows_another_finds_by_words_and_by_meaning(on_node: OnNode, reader: Hub) -> None:
    laptop, desk = on_node("laptop", "ada"), on_node("desk", "bob")
    remember(laptop)
    found = desk.search("likes tea", collection="memory")
    assert (found.mode, keys(found)[0], found[0].score, found[0].agent) == ("text", "tea", 1.0, "ada")
    assert keys(desk.search("which tea does she like", filter=where("by") == "ada"))[0] == "tea"
    assert keys(desk.search("tea", filter={"by": {"ne": "ada"}})) == []
    # The hub knows no model: this process fills its index, and asks with the same function.
    made = reader.add_index("memory", fields=("text",), embed=embed, model=MODEL)
    assert (made.name, made.model) == ("memory", MODEL)
    until(whole(reader, 4), "the index is whole")
    near = reader.search("beverage", collection="memory")
    assert (near.mode, set(keys(near)[:2]), near.pending) == ("hybrid", {"tea", "cup"}, 0)
    told = reader.search("beverage", collection="memory", mode="vector", limit=1, explain=True)
    assert told[0].parts is not None
    assert near[0].value["by"] == "ada"
    # A store asks its hub with the vectors of its own index, if that is of the same identity.
    desk.put("mine", {"text": "an invoice"}, collection="memory")
    desk.add_index("memory", fields=("text",), embed=embed, model=MODEL)
    assert desk.flush()
    until(whole(reader, 5), "what came later is there too")
    far = desk.search("price", collection="memory")
    assert (far.mode, keys(far)[0]) == ("hybrid", "mine")
    until(whole(desk, 1), "its own index is whole")
    own = desk.search("price", collection="memory", agent="bob")
    assert (own.mode, keys(own)) == ("hybrid", ["mine"])
    # What was replaced or deleted is found no more.
    laptop.put("tea", {"text": "nothing at all"}, collection="memory")
    laptop.delete("cup", collection="memory")
    assert laptop.flush()
    assert not {"tea", "cup"} & set(keys(reader.search("beverage", collection="memory", mode="vector", limit=2)))
    until(whole(reader, 4), "vectors of what is gone are gone")
    with pytest.raises(UsageError, match="no index"):
        reader.search("x", collection="state", mode="hybrid")


def test_a_hub_killed_in_between_loses_and_doubles_nothing(on_node: OnNode, hub: HubProcess, reader: Hub) -> None:
    many = 300
    laptop = on_node("laptop", "ada")
    with laptop.batch() as batch:
        for number in range(many):
            batch.put(f"k{number}", {"text": f"tea number {number}"}, collection="memory")
    assert laptop.flush()
    going, killed = threading.Event(), threading.Event()
    calls: list[int] = []

    def slow(texts: list[str]) -> Any:
        calls.append(len(texts))
        if len(calls) == 2:
            going.set()
            killed.wait(30)
        return embed(texts)

    reader.add_index("memory", fields=("text",), embed=slow, model=MODEL)
    assert going.wait(30)
    hub.kill()
    killed.set()
    with pytest.raises(HubUnavailable):
        reader.search("tea", collection="memory", mode="text")
    hub.start()
    until(whole(reader, many), "the index is whole, each text once")
    assert max(calls) <= 64
    found = reader.search("beverage", collection="memory", mode="vector", limit=1000)
    assert sorted(keys(found)) == sorted(f"k{number}" for number in range(many))


def test_several_fillers_share_the_work(on_node: OnNode, hub: HubProcess, reader: Hub) -> None:
    laptop = on_node("laptop", "ada")
    with laptop.batch() as batch:
        for number in range(400):
            batch.put(f"k{number}", {"text": f"tea number {number}"}, collection="memory")
    assert laptop.flush()
    seen: list[str] = []

    def counted(texts: list[str]) -> Any:
        seen.extend(texts)
        return embed(texts)

    with Hub(hub.url) as other, Hub(hub.url) as third:
        for each, function in ((reader, counted), (other, counted), (third, embed_async)):
            each.add_index("memory", fields=("text",), embed=function, model=MODEL)
        until(whole(reader, 400), "the index is whole")
    assert len(seen) == len(set(seen)) <= 400, "no text was embedded twice"


def test_functions_that_fail_lose_no_write_and_are_tried_again(on_node: OnNode, hub: HubProcess, reader: Hub) -> None:
    laptop = on_node("laptop", "ada")
    remember(laptop, bad="poison in the well")
    with Hub(hub.url) as other:
        other.add_index("memory", fields=("text",), embed=failing, model=MODEL)
        until(lambda: "the model is away" in status(reader).last_error, "the hub was told")
        laptop.put("later", {"text": "oolong"}, collection="memory")
        assert laptop.flush()
        assert keys(other.search("oolong", collection="memory"))[0] == "later"
        with pytest.raises(HoldfastError, match="the model is away"):
            other.search("oolong", collection="memory", mode="vector")
    reader.add_index("memory", fields=("text",), embed=poisoned, model=MODEL)
    until(lambda: status(reader).failed == 1 and status(reader).vectors == 5, "all but one are there")
    stands = status(reader)
    assert (stands.last_error, stands.complete) == ("ValueError: no such token", True)
    assert any("could not be embedded" in each for each in reader.health()["warnings"])
    assert keys(reader.search("poison", collection="memory"))[0] == "bad", "it is found by its words"
    laptop.put("bad", {"text": "clear water in the well"}, collection="memory")
    assert laptop.flush()
    until(lambda: status(reader).failed == 0 and whole(reader, 6)(), "what replaced it is there")


def test_another_model_is_built_beside_and_takes_its_place(on_node: OnNode, hub: HubProcess, reader: Hub) -> None:
    remember(on_node("laptop", "ada"))
    first = reader.add_index("memory", fields=("text",), embed=embed, model=MODEL)
    until(whole(reader, 4), "the first is whole")
    hold = threading.Event()

    def later(texts: list[str]) -> Any:
        assert hold.wait(30)
        return embed_letters(texts)

    asked = {"collection": "memory", "mode": "vector", "limit": 2}
    assert set(keys(reader.search("beverage", **asked))) == {"tea", "cup"}  # type: ignore[arg-type]
    reader.add_index("memory", fields=("text",), embed=later, model="letters")
    stands = status(reader)
    assert (stands.identity, stands.complete, stands.vectors) == (first.identity, True, 4)
    assert stands.building not in (None, first.identity)
    with Hub(hub.url) as other:  # it has the old function alone: it asks by that, until there is nothing to ask
        other.asking.knows("memory", _declared(MODEL), embed)
        assert set(keys(other.search("beverage", **asked))) == {"tea", "cup"}  # type: ignore[arg-type]
        hold.set()
        until(lambda: status(reader).model == "letters" and whole(reader, 4)(), "the new one took its place")
        assert status(reader).dims == 26
        assert other.search("beverage", collection="memory").mode == "text"
        with pytest.raises(UsageError, match="letters"):
            other.search("beverage", **asked)  # type: ignore[arg-type]
    assert keys(reader.search("She likes black tea", **asked))[0] == "tea"  # type: ignore[arg-type]
    assert reader.drop_index("memory")
    assert not reader.drop_index("memory")
    assert reader.indexes() == []
    assert reader.search("tea", collection="memory").mode == "text"


def _declared(model: str) -> Any:
    from holdfast.corpus.search.indexes import declared

    return declared(model, fields=("text",))


async def _awaited(url: str) -> None:
    hub = AsyncHub(url)
    async with hub:
        made = await hub.add_index("memory", fields=("text",), embed=embed_async, model=MODEL)
        assert made.vectors in range(5)
        while not (await hub.indexes())[0].complete:  # noqa: ASYNC110 - another process fills, and tells nobody
            await asyncio.sleep(0.005)
        found = await hub.search("beverage", collection="memory", mode="vector", limit=2)
        assert set(keys(found)) == {"tea", "cup"}
        assert await hub.drop_index("memory")


def test_all_of_it_awaited(on_node: OnNode, hub: HubProcess) -> None:
    remember(on_node("laptop", "ada"))
    asyncio.run(_awaited(hub.url))


def test_a_hub_with_a_function_of_its_own_fills_and_asks_by_itself(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path / "hub", embed="tests.embedders:embed", embed_model=MODEL)
    try:
        with Store(tmp_path / "laptop", "ada", hub=hub.url) as laptop, Hub(hub.url) as reader:
            reader.add_index("memory", fields=("text",), model=MODEL)
            reader.add_index("other", fields=("text",), model="somebody else's")
            remember(laptop)

            def stands() -> dict[str, IndexStatus]:
                return {each.name: each for each in reader.indexes()}

            until(lambda: stands()["memory"].vectors == 4 and stands()["memory"].complete, "it filled it")
            assert not stands()["other"].complete
            # Nobody here has a function, neither the store nor this client.
            for place in (laptop, reader):
                found = place.search("beverage", collection="memory")
                assert (found.mode, set(keys(found)[:2])) == ("hybrid", {"tea", "cup"})
            hub.kill()
            hub.start()
            laptop.put("mug", {"text": "another cup"}, collection="memory")
            assert laptop.flush()
            until(lambda: stands()["memory"].vectors == 5, "it goes on after a restart")
    finally:
        hub.kill()
    with pytest.raises(AssertionError):
        HubProcess(tmp_path / "wrong", embed="tests.embedders:nothing")


def test_a_token_that_may_only_read_asks_with_its_function_and_fills_nothing(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path / "hub", "an operator's")
    tokens = SqliteTokens(hub.directory)
    wishes = [
        Wish(kind="service", name="w", agents=("*",), scopes=("records:read", "records:write")),
        Wish(kind="service", name="r", scopes=("records:read",)),
    ]
    writing, reading = (create(tokens, wish)[1] for wish in wishes)
    tokens.close()
    try:
        with Hub(hub.url, writing) as writer, Hub(hub.url, reading) as reader:
            for key, text in MEMORIES.items():
                writer.collection("memory", agent="ada").put(key, {"text": text})
            with pytest.raises(NotFound):
                reader.add_index("memory", fields=("text",), embed=embed, model=MODEL)
            writer.add_index("memory", fields=("text",), embed=embed, model=MODEL)
            until(whole(writer, 4), "the index is whole")
            assert reader.add_index("memory", fields=("text",), embed=embed, model=MODEL).vectors == 4
            found = reader.search("beverage", collection="memory", mode="vector", limit=2)
            assert set(keys(found)) == {"tea", "cup"}
            with pytest.raises(Denied):
                reader.add_index("memory", fields=("text",), embed=embed_letters, model="letters")
            with pytest.raises(Denied):
                reader.drop_index("memory")
    finally:
        hub.kill()


def test_each_of_several_hubs_is_filled_and_the_next_one_answers(tmp_path: Path) -> None:
    hubs = [HubProcess(tmp_path / f"hub{number}") for number in range(2)]
    urls = [hub.url for hub in hubs]
    try:
        with Store(tmp_path / "laptop", "ada", hub=urls) as laptop, Hub(urls) as reader:
            remember(laptop)
            reader.add_index("memory", fields=("text",), embed=embed, model=MODEL)
            for url in urls:
                with Hub(url) as one:
                    until(lambda one=one: one.indexes() != [] and whole(one, 4)(), "it is whole there")  # type: ignore[misc]
            hubs[0].kill()
            found = reader.search("beverage", collection="memory", mode="vector", limit=2)
            assert set(keys(found)) == {"tea", "cup"}
            laptop.put("mug", {"text": "another cup"}, collection="memory")
            assert laptop.flush()
            until(whole(reader, 5), "the one that is there goes on")
            hubs[0].start()
            with Hub(urls[0]) as first:
                until(whole(first, 5), "the other catches up when it is back")
            assert reader.drop_index("memory")
    finally:
        for hub in hubs:
            hub.kill()

"""Collections of several nodes at one hub: programs of three versions at once, rights, and what the hub decides."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast import AsyncHub, Conflict, Hub, HubUnavailable, NotFound, Schema, Store, UsageError, where
from holdfast.collections.typed import SCHEMAS
from holdfast.hub.directory import HubDirectory
from holdfast.hub.tokens import SqliteTokens, Wish, create
from holdfast.testing.collections import NEW, OLD, PEOPLE, Person, Worker, in_months
from tests.flow.hubs import HubProcess
from tests.services import shared_postgres


@dataclasses.dataclass
class Middle:
    """A person of the second version: months for years."""

    name: str
    months: int = 0
    skills: list[str] = dataclasses.field(default_factory=list)


MIDDLE: Schema[Middle] = Schema(Middle, index=("months",), version=2, migrations={1: in_months})


both = pytest.mark.parametrize("hub", ["directory", "database"], indirect=True)


@pytest.fixture
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A hub, running; where the test says so, one in a database."""
    kind = getattr(request, "param", "directory")
    options = {"database": shared_postgres().corpus()} if kind == "database" else {}
    process = HubProcess(tmp_path / "hub", **options)
    yield process
    process.kill()


@both
def test_programs_of_three_versions_share_a_collection(hub: HubProcess, on_node: Callable[..., Store]) -> None:
    stores = [on_node(f"node-{version}", f"v{version}") for version in (1, 2, 3)]
    old = stores[0].collection("people", OLD)
    middle = stores[1].collection("people", MIDDLE)
    new = stores[2].collection("people", NEW)
    for key, person in PEOPLE.items():
        old.put(key, person)
    middle.put("ada", Middle("Ada Byron", 72, ["Python"]))
    new.put("ada", Worker("Ada", "Byron", 84, ["Python"]))
    assert all(store.flush() for store in stores)

    with Hub(hub.url) as client:
        everybody = client.collection("people", NEW)
        rows = everybody.find(where("last") == "Byron", order="-months").found
        assert [(row.agent, row.value.months) for row in rows] == [("v3", 84), ("v2", 72), ("v1", 60)]
        assert (everybody.count(), everybody.aggregate("months")[0].sum) == (6, 84 + 72 + 20 * 12)
        pages, after = [], ""
        while True:
            page = everybody.find(where("months") >= 36, order="months", limit=2, after=after)
            pages.append([(row.agent, row.key) for row in page.found])
            after = page.cursor
            if not after:
                break
        assert [len(page) for page in pages] == [2, 2, 2]
        assert pages[0] == [("v1", "bob"), ("v1", "dan")]
        # A program of the second version sees the older values as its own, and is told which it cannot read.
        page = client.collection("people", MIDDLE).find(order="-months")
        assert [(row.agent, row.value.months) for row in page.found if row.key == "ada"] == [("v2", 72), ("v1", 60)]
        assert [(row.agent, row.key) for row in page.unfit] == [("v3", "ada")]
        with pytest.raises(UsageError, match="people/ada version 1 does not fit version 1"):
            client.collection("people", OLD).get("ada", agent="v3")
        # Nor does an older program of the same agent take away what it does not know of, here or there.
        for place in (stores[2].collection("people", OLD), client.collection("people", OLD, agent="v3")):
            with pytest.raises(UsageError, match="version 3"):
                place.put("ada", PEOPLE["ada"])
        answer = client.client.ask(
            "PUT",
            "/v1/collections/people/items/ada?agent=v3",
            body=b'{"value":{"name":"Ada"},"schema":1}',
            headers={"Content-Type": "application/json"},
        )
        assert (answer.status, answer.json()["error"]["context"]["version"]) == (400, 3)
        (known,) = client.client.want("GET", "/v1/collections").json()["collections"]
        assert (known["version"], known["agents"], known["count"]) == (3, {"v1": 1, "v2": 2, "v3": 3}, 6)
        assert known["index"] == ["skills", "years", "months"] or set(known["index"]) == {"skills", "years", "months"}
        # Whoever reads writes nothing; whoever migrates writes his own.
        assert stores[0].collection("people", NEW).migrate() == 4
        assert stores[0].flush()
        assert client.get("bob", agent="v1", collection="people")["$v"] == 3
        assert everybody.count(where("months") >= 36) == 6


def test_a_store_finds_what_others_have(hub: HubProcess, on_node: Callable[..., Store]) -> None:
    ada, bob = on_node("a", "ada"), on_node("b", "bob")
    mine = ada.collection("people", OLD)
    for store in (ada, bob):
        store.collection("people", OLD).put(store.agent, PEOPLE[store.agent])
        assert store.flush()
    assert [row.agent for row in mine.everybody().find(order="name").found] == ["ada", "bob"]
    assert mine.find().items == [("ada", PEOPLE["ada"])]
    assert mine.find(agent="bob").items == [("bob", PEOPLE["bob"])]
    assert (mine.get("bob", agent="bob"), mine.count(agent="bob")) == (PEOPLE["bob"], 1)
    assert mine.item("bob", agent="bob").etag == bob.collection("people", OLD).item("bob").etag
    with pytest.raises(UsageError, match="whose people"):
        mine.everybody().get("bob")
    with pytest.raises(UsageError, match="in whose name"):
        mine.everybody().add(PEOPLE["bob"])

    async def work() -> None:
        hub_ = AsyncHub(hub.url)
        people = hub_.collection("people", OLD)
        assert [key async for key, _ in people.items(order="-name")] == ["bob", "ada"]
        cid = hub_.collection("people", Person, agent="cid")
        assert (await cid.put("cid", PEOPLE["cid"])).author == "cid"
        assert await people.count() == 3
        await hub_.close()

    asyncio.run(work())
    hub.kill()
    assert mine.find().items == [("ada", PEOPLE["ada"])]
    with pytest.raises(HubUnavailable):
        mine.everybody().find()
    hub.start()  # what collections are stands in the records, so a hub that starts knows it
    with Hub(hub.url) as client:
        (known,) = client.client.want("GET", "/v1/collections").json()["collections"]
        assert (known["name"], known["count"], sorted(known["agents"])) == ("people", 3, ["ada", "bob", "cid"])
        bob.delete("people", collection=SCHEMAS)
        ada.delete("pe", prefix=True, collection=SCHEMAS)
        client.collection("people", OLD, agent="cid").delete("cid")
        assert ada.flush()
        assert bob.flush()
        (known,) = client.client.want("GET", "/v1/collections").json()["collections"]
        assert (known["count"], sorted(known["agents"])) == (2, ["cid"])


@both
def test_the_hub_decides_where_it_is_to(hub: HubProcess, on_node: Callable[..., Store]) -> None:
    schema: Schema[Any] = Schema(None, index=("by",), conflict="cas", ttl_s=1000)
    claims = [on_node(f"node-{n}", f"agent-{n}").collection("claims", schema) for n in range(4)]
    won: list[str] = []

    def claim(number: int) -> None:
        for task in range(5):
            try:
                claims[number].put(f"t-{task}", {"by": f"agent-{number}"}, expect=0)
                won.append(f"t-{task}")
            except Conflict:
                continue

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [f"t-{task}" for task in range(5)]
    assert claims[0].count() == 5
    assert sum(each.count for each in claims[1].aggregate(by="by")) == 5
    claims[2].update("t-0", {"by": "agent-2"})
    assert claims[3].get("t-0")["by"] == "agent-2"
    with Hub(hub.url) as client:
        plain = client.collection("claims", schema, agent="eve")
        with pytest.raises(Conflict):
            plain.put("t-0", {"by": "eve"}, expect=0)
        assert plain.put("t-9", {"by": "eve"}, expect=0).agent == "hub"
    assert claims[0].find(by="eve").found[0].key == "t-9"
    claims[0].delete("t-9")
    assert claims[1].get("t-9", default=None) is None


def test_what_is_sealed_or_local_is_not_found_at_a_hub(hub: HubProcess, on_node: Callable[..., Store]) -> None:
    store = on_node("a", "ada")
    store.collection("secrets", Schema(Person, index=("years",), sealed=True)).put("ada", PEOPLE["ada"])
    store.collection("notes", Schema(Person, index=("years",), local=True)).put("ada", PEOPLE["ada"])
    store.put("plan", 1)
    assert store.flush()
    assert store.outbox_depth == 0
    with Hub(hub.url) as client:
        headers = {"Content-Type": "application/json"}
        for name in ("secrets", "notes"):
            path = f"/v1/collections/{name}"
            assert client.client.want("POST", f"{path}/find", body=b"{}", headers=headers).json()["items"] == []
        assert [each["agent"] for each in client.agents()] == ["ada"]
        (known,) = client.client.want("GET", "/v1/collections").json()["collections"]
        assert (known["name"], known["sealed"], known["count"]) == ("secrets", True, None)
        with pytest.raises(UsageError, match="a hub cannot read"):
            client.collection("secrets", Schema(Person, sealed=True))


def test_who_may_write_a_collection_may_say_what_it_is(tmp_path: Path, on_node: Callable[..., Store]) -> None:
    home = HubDirectory(tmp_path / "closed")
    tokens = SqliteTokens(home.path)
    narrow = create(tokens, Wish(kind="node", name="n", agents=("ada",), collections=("people",)))[1]
    other = create(tokens, Wish(kind="service", name="s", agents=("eve",), collections=("plans",)))[1]
    tokens.close()
    home.close()
    process = HubProcess(tmp_path / "closed", "root")
    try:
        store = on_node("a", "ada", hub=process.url, token=narrow)
        store.collection("people", OLD).put("ada", PEOPLE["ada"])
        assert store.flush()
        assert store.collection("people", OLD).everybody().count(years=5) == 1
        with Hub(process.url, other) as stranger:
            for ask in (
                lambda: stranger.collection("people", OLD).find(),
                lambda: stranger.collection("people", OLD).count(),
                lambda: stranger.collection("people", OLD, agent="eve").put("eve", PEOPLE["ada"]),
                lambda: stranger.collection("plans", None, agent="ada").put("x", {}),
            ):
                with pytest.raises(PermissionError):
                    ask()
            assert stranger.client.want("GET", "/v1/collections").json() == {"collections": []}
            with pytest.raises(NotFound):
                stranger.client.want("GET", "/v1/collections/plans/schema")
    finally:
        process.kill()


def test_a_page_ends_where_its_bytes_do(hub: HubProcess, on_node: Callable[..., Store]) -> None:
    store = on_node("a", "ada")
    people = store.collection("people", OLD)
    for number in range(5):
        people.put(f"{number}", Person("x" * 3_000_000, [str(number)]))
    assert store.flush(60)
    with Hub(hub.url) as client:
        everybody = client.collection("people", OLD)
        page = everybody.find(order="skills")
        assert (len(page), bool(page.cursor)) == (2, True)
        assert [value.skills for _, value in everybody.items(order="skills")] == [[str(n)] for n in range(5)]
        raw = client.client.want(
            "POST",
            "/v1/collections/people/find",
            body=json.dumps({"condition": {"field": "skills", "op": "eq", "value": "3"}}).encode(),
            headers={"Content-Type": "application/json"},
        ).json()
        assert [each["key"] for each in raw["items"]] == ["3"]

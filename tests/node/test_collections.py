"""Collections in an agent's own log: in batches, sealed, local, decided by a hub, and swept by whoever writes next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast import AsyncStore, Conflict, HubUnavailable, NotFound, Schema, Store, UsageError, where
from holdfast.collections.typed import SCHEMAS
from holdfast.node.directory import Limits
from holdfast.testing.clock import SettableClock
from holdfast.testing.collections import NEW, OLD, PEOPLE, Person, Worker, in_months


def test_a_batch_writes_all_of_it_or_nothing(store: Store) -> None:
    people = store.collection("people", OLD)
    with store.batch() as batch:
        people.into(batch).put("ada", PEOPLE["ada"], expect=0)
        made = people.into(batch).add(PEOPLE["bob"])
        batch.put("plan", 1)
    assert people.find(order="years").items == [(made, PEOPLE["bob"]), ("ada", PEOPLE["ada"])]

    def delete_and_put(key: str, value: Any, expect: int | None = None) -> None:
        with store.batch() as batch:
            people.into(batch).delete("ada")
            people.into(batch).put(key, value, expect=expect)

    with pytest.raises(Conflict):
        delete_and_put(made, PEOPLE["cid"], 7)
    with pytest.raises(UsageError, match=r"\$\.years"):
        delete_and_put("bob", {"name": "Bob", "years": "3"})
    assert people.count() == 2
    workers = store.collection("people", NEW)
    workers.update("ada", {"months": 61})
    with pytest.raises(UsageError, match="version 3"), store.batch() as batch:
        people.into(batch).put("ada", PEOPLE["ada"])


def test_a_sealed_collection_is_found_by_who_can_read_it_and_indexed_by_nobody(
    open_store: Callable[..., Store], tmp_path: Path
) -> None:
    store = open_store()
    people = store.collection("people", Schema(Person, index=("years",), sealed=True))
    for key, person in PEOPLE.items():
        people.put(key, person)
    assert people.get("bob") == PEOPLE["bob"]
    assert [key for key, _ in people.find(where("skills").has("Python"), order="-years")] == ["cid", "ada"]
    assert [key for key, _ in people.find(order=("years", "name"), limit=3)] == ["bob", "dan", "ada"]
    assert (people.count(years=3), people.aggregate("years")[0].sum) == (2, 20)
    people.update("bob", {"years": 4})
    with pytest.raises(Conflict):
        people.put("bob", PEOPLE["bob"], expect=1)
    assert [each.value.years for each in people.history("bob")] == [4, 3]
    with pytest.raises(UsageError, match="sealed"):
        people.search("python")
    assert [key for key, _ in people.find(where("bio").text("python"))] == ["ada"]
    with pytest.raises(UsageError, match="sealed"):
        store.collection("people", Schema(Person, conflict="cas"))
    corpus = store._log.corpus
    assert not corpus.query("SELECT 1 FROM item")
    assert not corpus.query("SELECT 1 FROM field")
    store.close()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"Byron" in path.read_bytes()]


def test_a_local_collection_is_in_a_log_of_its_own(open_store: Callable[..., Store], tmp_path: Path) -> None:
    store = open_store()
    notes = store.collection("notes", Schema(Person, index=("years",), local=True))
    notes.put("ada", PEOPLE["ada"])
    assert notes.find(years=5).found[0].agent == "ada"
    assert notes.get("ada", agent="ada") == PEOPLE["ada"]
    assert store.keys(collection="notes") == []
    assert store.get("notes", collection=SCHEMAS, default=None) is None
    with pytest.raises(UsageError, match="local"), store.batch() as batch:
        notes.into(batch).put("bob", PEOPLE["bob"])
    store.close()
    assert open_store().collection("notes", Schema(Person, local=True)).get("ada") == PEOPLE["ada"]
    with pytest.raises(UsageError, match="never shipped"):
        Store(tmp_path / "node", "ada~local", hub="http://127.0.0.1:9")


def test_agents_of_one_directory_find_each_others_values_without_a_hub(open_store: Callable[..., Store]) -> None:
    mine = open_store().collection("people", OLD)
    open_store("bob").collection("people", OLD).put("bob", PEOPLE["bob"])
    assert (mine.find().items, mine.get("bob", agent="bob")) == ([], PEOPLE["bob"])
    assert [(row.agent, row.key) for row in mine.find(years=3, agent="bob").found] == [("bob", "bob")]
    assert (mine.count(agent="bob"), mine.search("rust", agent="bob")) == (1, [("bob", PEOPLE["bob"])])
    with pytest.raises(HubUnavailable):
        mine.find(agent="cid")


def test_what_a_hub_decides_is_not_decided_without_one(store: Store) -> None:
    claims = store.collection("claims", Schema(None, conflict="cas"))
    for ask in (lambda: claims.put("t-1", {"by": "ada"}), lambda: claims.get("t-1"), lambda: claims.find(by="ada")):
        with pytest.raises(HubUnavailable):
            ask()
    with pytest.raises(UsageError), store.batch() as batch:
        claims.into(batch).put("t-1", {"by": "ada"})


def test_the_next_write_deletes_what_has_ended(store: Store) -> None:
    clock = SettableClock()
    store._directory.wall = clock
    visits = store.collection("visits", Schema(None, ttl_s=600))
    visits.put("a", {"n": 1})
    visits.put("b", {"n": 1}, ttl_s=60_000)
    for ttl_s in (0, float("nan"), float("inf"), 1e12, 1e308, True, "60"):
        with pytest.raises(UsageError, match="ttl_s="):
            visits.put("b", {"n": 2}, ttl_s=ttl_s)  # type: ignore[arg-type]
    clock.advance(601)
    assert store.keys(collection="visits") == ["a", "b"]  # what is not a collection's reader still sees it
    assert store.get("a", collection="visits")["n"] == 1
    visits.put("c", {"n": 1})
    assert store.keys(collection="visits") == ["b", "c"]
    assert store.history("a", collection="visits")[0].value == {"reason": "expired"}
    page = visits.find(limit=1)
    clock.advance(60_000)
    assert visits.find(limit=1, after=page.cursor).items == []  # ended between two pages


def test_what_a_collection_is_stands_in_a_record_that_is_written_once(store: Store) -> None:
    schema = Schema(Person, index=("years",), text=("bio",), ttl_s=60, keep_versions=3)
    store.collection("people", schema).put("ada", PEOPLE["ada"])
    seq = store.collection("people", schema).put("ada", PEOPLE["ada"]).seq
    assert seq == 3  # the schema, and two values
    told = store.get("people", collection=SCHEMAS)
    assert (told["version"], told["index"], told["text"], told["keep_versions"]) == (1, ["years"], ["bio"], 3)
    assert told["schema"]["$defs"]["Person"]["required"] == ["name"]
    store.collection("people", NEW)
    assert store.get("people", collection=SCHEMAS)["version"] == 3
    store.collection("people", schema)  # an older program does not take it back
    assert store.get("people", collection=SCHEMAS)["version"] == 3


def test_a_migration_can_be_tried_alone(store: Store) -> None:
    stored = {"name": "Ada Byron", "years": 2}
    assert NEW.upgrade(stored, 1) == {"first": "Ada", "last": "Byron", "months": 24}
    assert stored == {"name": "Ada Byron", "years": 2}
    assert NEW.upgrade({"first": "Ada"}, 3) == {"first": "Ada"}
    for version in (0, 4):
        with pytest.raises(UsageError, match=f"version {version}"):
            NEW.upgrade(stored, version)
    broken = Schema(None, version=2, migrations={1: lambda value: value["no"]})
    with pytest.raises(UsageError, match="from version 1 failed: KeyError"):
        broken.upgrade(stored, 1)
    store.collection("people", OLD).put("ada", PEOPLE["ada"])
    page = store.collection("people", broken).find()
    assert (page.items, page.unfit[0].key) == ([], "ada")
    with pytest.raises(UsageError, match="people/ada version 1"):
        store.collection("people", broken).get("ada")
    assert store.get("ada", collection="people", at=1)["name"] == "Ada Byron"


class Wrong(msgspec.Struct, array_like=True):
    """No names."""

    n: int


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Schema(int), "not a type of values"),
        (lambda: Schema(Wrong), "array_like"),
        (lambda: Schema(Person, version=3, migrations={1: in_months}), "missing: 2"),
        (lambda: Schema(Person, migrations={1: in_months}), "too many: 1"),
        (lambda: Schema(Person, ttl_s=0), "ttl_s=0"),
        (lambda: Schema(Person, conflict="shared"), "private or cas"),  # type: ignore[arg-type]
        (lambda: Schema(Person, sealed=True, conflict="cas"), "neither sealed nor local"),
        (lambda: Schema(Person, index=("name.first",)), "name.first"),
    ],
)
def test_a_schema_that_cannot_be_is_refused(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        make()
    assert says in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize("name", ["", "messages", "schemas", "table/x", "a/b", "a\nb"])
def test_a_name_that_is_taken_is_refused(store: Store, name: str) -> None:
    with pytest.raises(UsageError):
        store.collection(name)


def test_the_same_awaited(tmp_path: Path) -> None:
    async def work() -> None:
        limits = Limits(floor_bytes=0, ballast_bytes=0)
        async with AsyncStore(tmp_path / "node", "ada", hub=[], limits=limits) as store:
            people = store.collection("people", Person, index=("years",))
            await asyncio.gather(*(people.put(key, person) for key, person in PEOPLE.items()))
            assert [key async for key, _ in people.items(order=("years", "name"))] == ["bob", "dan", "ada", "cid"]
            assert (await people.find(years=3, order="name")).items == [("bob", PEOPLE["bob"]), ("dan", PEOPLE["dan"])]
            assert (await people.update("ada", {"years": 6})).value.years == 6
            async with store.batch() as batch:
                people.into(batch).delete("dan")
            assert (await people.count(), (await people.aggregate("years"))[0].sum) == (3, 18)
            assert await people.first(years=6) == ("ada", Person("Ada Byron", ["Python", "SQL"], 6, PEOPLE["ada"].bio))
            with pytest.raises(NotFound):
                await people.get("dan")
            assert [each.version for each in await people.history("ada")] == [2, 1]
            assert (await people.item("bob")).version == 1
            with pytest.raises(Conflict):
                await people.put("bob", PEOPLE["bob"], expect=0)
            with pytest.raises(UsageError, match=r"\$\.years"):
                await people.put("bob", {"name": "Bob", "years": "3"})
            key = await people.add(Person("Eve"))
            await people.delete(key)
            assert await people.search("rust") == [("bob", PEOPLE["bob"])]
            workers = store.collection("people", NEW)
            assert await workers.get("bob") == Worker("Bob", "Ross", 36, ["Rust"])
            await workers.put("ada", Worker("Ada", "Byron", 1))
            with pytest.raises(UsageError, match="version 3"):
                await people.put("ada", PEOPLE["ada"])
            assert (await workers.migrate(), await workers.sweep()) == (2, 0)
            assert await workers.get("ada", at=2) == Worker("Ada", "Byron", 72, ["Python", "SQL"])

    asyncio.run(work())

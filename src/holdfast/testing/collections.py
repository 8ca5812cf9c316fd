"""What a collection promises, as tests, for every place that holds one: a node's log, a hub over HTTP.

    class TestMine(CollectionContract):
        def make(self, directory):
            return MyGround(directory)

A ground gives the same values whenever it is asked for a collection of the same name, whatever the schema. pytest
collects the class.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec

from holdfast.collections.typed import Collection, Schema
from holdfast.errors import Conflict, NotFound, UsageError
from holdfast.query import where
from holdfast.testing.objects import refuses


@dataclasses.dataclass
class Person:
    """A value of the first version."""

    name: str
    skills: list[str] = dataclasses.field(default_factory=list)
    years: int = 0
    bio: str = ""


class Firm(msgspec.Struct, frozen=True, rename="camel"):
    """A value with another in it, and what JSON has no word for."""

    full_name: str
    boss: Person | None = None
    founded: datetime | None = None
    staff: tuple[Person, ...] = ()
    marks: dict[str, int] = {}


@dataclasses.dataclass
class Worker:
    """A `Person` of the third version: two names, months for years."""

    first: str
    last: str
    months: int
    skills: list[str] = dataclasses.field(default_factory=list)


def in_months(value: dict[str, Any]) -> dict[str, Any]:
    """From the first version to the second."""
    value["months"] = value.pop("years", 0) * 12
    return value


def two_names(value: dict[str, Any]) -> dict[str, Any]:
    """From the second to the third."""
    first, _, last = value.pop("name").partition(" ")
    return {**value, "first": first, "last": last}


OLD: Schema[Person] = Schema(Person, index=("skills", "years"))
NEW: Schema[Worker] = Schema(Worker, index=("skills", "months"), version=3, migrations={1: in_months, 2: two_names})
PEOPLE = {
    "ada": Person("Ada Byron", ["Python", "SQL"], 5, "Writes engines in Python."),
    "bob": Person("Bob Ross", ["Rust"], 3, "Paints in oil."),
    "cid": Person("Cid", ["Python"], 9, "A knight."),
    "dan": Person("Dan Brown", [], 3),
}


class Ground(Protocol):
    """Where a collection is."""

    ttl_s: float
    """How long a value is there that is to end in this test."""

    def collection(self, name: str, schema: Schema[Any]) -> Collection[Any]:
        """One agent's collection, to read and to write."""
        ...

    def let_end(self) -> None:
        """Returns when what was put with `ttl_s` has ended."""
        ...


class CollectionContract:
    """All promises; a ground's class gives `make`."""

    def make(self, directory: Path) -> AbstractContextManager[Ground]:
        """The ground, for the length of a block."""
        raise NotImplementedError

    @contextlib.contextmanager
    def opened(self, directory: Path, schema: Schema[Any]) -> Iterator[tuple[Ground, str, Collection[Any]]]:
        """The ground, a name that nobody has used, and the collection of that name."""
        with self.make(directory) as ground:
            name = f"c-{secrets.token_hex(6)}"
            yield ground, name, ground.collection(name, schema)

    def test_a_value_comes_back_as_what_it_was(self, tmp_path: Path) -> None:
        """Types, nested values and times are what they were, and are found by what is in them."""
        with self.opened(tmp_path, Schema(Firm, index=("boss.name", "staff.skills"))) as (_, _, firms):
            founded = datetime(1999, 12, 31, 23, 59, tzinfo=UTC)
            acme = Firm("ACME", PEOPLE["ada"], founded, (PEOPLE["bob"], PEOPLE["cid"]), {"a": 1})
            version = firms.put("a/c me", acme)
            assert (version.version, version.value, version.key) == (1, acme, "a/c me")
            assert firms.get("a/c me") == acme
            assert firms.item("a/c me").etag == version.etag
            assert firms.find(where("boss.name") == "Ada Byron").items == [("a/c me", acme)]
            assert firms.find(where("staff.skills").has_all(["Rust", "Python"])).items == [("a/c me", acme)]
            assert firms.find(where("founded").starts("1999-12-31")).items == [("a/c me", acme)]
            key = firms.add({"fullName": "Other"})
            assert firms.get(key) == Firm("Other")
            assert firms.count(fullName="Other") == 1

    def test_versions_are_kept_and_a_deletion_takes_the_value_alone(self, tmp_path: Path) -> None:
        """The past of a key stays, deletions included."""
        with self.opened(tmp_path, OLD) as (_, _, people):
            people.put("ada", PEOPLE["ada"], expect=0)
            people.update("ada", {"years": 6})
            people.delete("ada", reason="gone")
            with refuses(NotFound):
                people.get("ada")
            with refuses(NotFound):
                people.update("ada", {"years": 7})
            with refuses(NotFound):
                people.delete("ada")
            assert people.get("ada", default=None) is None
            assert people.get("ada", at=1) == PEOPLE["ada"]
            assert [each.gone for each in people.history("ada")] == [True, False, False]
            assert [each.value.years for each in people.history("ada")[1:]] == [6, 5]
            assert people.find().items == []

    def test_what_does_not_fit_is_refused_by_the_name_of_its_field(self, tmp_path: Path) -> None:
        """The error names the place; nothing is written."""
        with self.opened(tmp_path, OLD) as (_, _, people):
            people.put("ada", PEOPLE["ada"])
            wrong: list[tuple[Any, str]] = [
                (Person("X", ["a", 3]), "$.skills[1]"),  # type: ignore[list-item]
                (Person(None), "$.name"),  # type: ignore[arg-type]
                ({"skills": []}, "$.name"),
                ({"name": "X", "years": 1.5}, "$.years"),
                ({"name": "X", "$v": 7}, "$.$v"),
                ("X", "$"),
                (Firm("X"), "$"),
            ]
            for value, field in wrong:
                with refuses(UsageError) as caught:
                    people.put("ada", value)
                assert getattr(caught[0], "context", {}).get("field") == field, caught
                assert field in str(caught[0])
            with refuses(UsageError):
                people.update("ada", {"years": "many"})
            assert people.item("ada").version == 1

    def test_fields_that_are_not_there_are_refused_and_the_near_one_is_named(self, tmp_path: Path) -> None:
        """In conditions, orders, sums and indexes."""
        with self.opened(tmp_path, OLD) as (_, _, people):
            for ask in (
                lambda: people.find(where("skill").has("Python")),
                lambda: people.find(skill="Python"),
                lambda: people.find(~((where("name") == "A") | (where("skill") == "B"))),
                lambda: people.find(order="-skill"),
                lambda: people.count(skill=1),
                lambda: people.aggregate("skill"),
                lambda: people.aggregate(by="skill"),
                lambda: Schema(Person, index=("skill",)),
                lambda: Schema(Person, text=("skill",)),
            ):
                with refuses(UsageError) as caught:
                    ask()
                assert getattr(caught[0], "hint", "") == "did you mean 'skills'?"

    def test_of_those_who_write_at_once_none_is_lost(self, tmp_path: Path) -> None:
        """`update` and `expect` decide between them."""
        with self.opened(tmp_path, OLD) as (_, _, people):

            def older(person: Person) -> None:
                person.years += 1

            def work() -> None:
                for _ in range(10):
                    people.update("ada", older, default=Person("Ada"))

            threads = [threading.Thread(target=work) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert people.get("ada").years == 30
            with refuses(Conflict) as caught:
                people.put("ada", PEOPLE["ada"], expect=29)
            assert getattr(caught[0], "context", {})["current_version"] == 30
            with refuses(Conflict):
                people.put("ada", PEOPLE["ada"], expect=0)
            people.put("ada", PEOPLE["ada"], expect=people.item("ada").etag)

    def test_values_are_found_ordered_counted_and_added_up(self, tmp_path: Path) -> None:
        """What is found is what Python would find."""
        with self.opened(tmp_path, OLD) as (_, _, people):
            for key, person in PEOPLE.items():
                people.put(key, person)

            def keys(*args: Any, **more: Any) -> list[str]:
                return [key for key, _ in people.items(*args, **more)]

            assert keys() == list(PEOPLE)
            assert keys(where("skills").has("Python") & (where("years") >= 6)) == ["cid"]
            assert keys(~where("skills").exists()) == ["dan"]
            assert keys(years=3) == ["bob", "dan"]
            assert keys(where("skills").has("Rust"), years=5) == []
            assert keys(order="name") == ["ada", "bob", "cid", "dan"]
            assert keys(order=("-years", "name")) == ["cid", "ada", "bob", "dan"]
            assert people.first(order="-years") == ("cid", PEOPLE["cid"])
            assert people.first(years=1) is None
            page = people.find(order=("years", "name"), limit=3)
            assert [key for key, _ in page] == ["bob", "dan", "ada"]
            rest = people.find(order=("years", "name"), limit=3, after=page.cursor)
            assert ([key for key, _ in rest], rest.cursor) == (["cid"], "")
            assert people.count() == 4
            assert people.count(where("years") < 5) == 2
            (whole,) = people.aggregate("years")
            assert (whole.count, whole.sum, whole.avg, whole.min, whole.max) == (4, 20, 5, 3, 9)
            by_skill = people.aggregate("years", by="skills", condition=where("years") > 2)
            assert [(each.by, each.count, each.sum) for each in by_skill] == [
                (None, 1, 3),
                ("Python", 2, 14),
                ("Rust", 1, 3),
                ("SQL", 1, 5),
            ]

    def test_words_are_looked_for_in_the_fields_that_are_named_for_it(self, tmp_path: Path) -> None:
        """Both by condition and by search, the newest first."""
        with self.opened(tmp_path, Schema(Person, text=("bio",))) as (_, _, people):
            for key, person in PEOPLE.items():
                people.put(key, person)
            people.put("eve", Person("Python Engines"))
            assert [key for key, _ in people.find(where("bio").text("PYTHON engines"))] == ["ada"]
            assert [key for key, _ in people.search("engin* python")] == ["ada"]
            assert people.search("nobody") == []
            people.put("bob", Person("Bob", bio="Learnt python"))
            assert [key for key, _ in people.search("python")] == ["bob", "ada"]  # the newest first
            people.delete("ada")
            assert [key for key, _ in people.search("python", limit=1)] == ["bob"]

    def test_what_has_ended_is_gone_and_may_be_written_anew(self, tmp_path: Path) -> None:
        """For every reader at once, whether or not anybody has deleted it."""
        with self.opened(tmp_path, Schema(Person, index=("years",), expires=True)) as (ground, _, people):
            for key in ("ada", "bob", "dan"):
                people.put(key, PEOPLE[key], ttl_s=ground.ttl_s)
            people.put("cid", PEOPLE["cid"])
            ground.let_end()
            assert people.get("ada", default=None) is None
            with refuses(NotFound):
                people.item("bob")
            with refuses(NotFound):
                people.update("bob", {"years": 4})
            assert people.find().items == [("cid", PEOPLE["cid"])]
            assert (people.count(), people.aggregate("years")[0].sum) == (1, 9)
            assert people.get("ada", at=1) == PEOPLE["ada"]
            people.put("ada", PEOPLE["ada"], expect=0)
            assert people.count() == 2
            people.sweep()  # unless a write has done so already
            assert people.sweep() == 0
            assert [(each.gone, each.version) for each in people.history("dan")] == [(True, 2), (False, 1)]

    def test_a_change_leaves_a_value_its_end(self, tmp_path: Path) -> None:
        """Unless it says otherwise; and only where values may end."""
        with self.opened(tmp_path, Schema(Person, expires=True)) as (ground, _, people):
            people.put("ada", PEOPLE["ada"], ttl_s=ground.ttl_s)
            people.put("bob", PEOPLE["bob"], ttl_s=ground.ttl_s)
            people.update("ada", {"years": 6})
            people.update("bob", {"years": 6}, ttl_s=1e6)
            ground.let_end()
            assert [key for key, _ in people.items()] == ["bob"]
        with self.opened(tmp_path / "more", OLD) as (_, _, people), refuses(UsageError) as caught:
            people.put("ada", PEOPLE["ada"], ttl_s=5)
        assert "do not expire" in str(caught[0])

    def test_older_values_are_read_found_and_ordered_as_newer_ones(self, tmp_path: Path) -> None:
        """Whatever the page's size; writing brings them up to date."""
        with self.opened(tmp_path, OLD) as (ground, name, people):
            for key, person in PEOPLE.items():
                people.put(key, person)
            workers = ground.collection(name, NEW)
            workers.put("eve", Worker("Eve", "Adams", 40, ["Python"]))
            assert workers.get("ada") == Worker("Ada", "Byron", 60, ["Python", "SQL"])

            def keys(*args: Any, **more: Any) -> list[str]:
                return [key for key, _ in workers.items(*args, **more)]

            assert keys(order="months") == ["bob", "dan", "eve", "ada", "cid"]
            assert keys(where("skills").has("Python") & (where("months") > 50), order="-months") == ["cid", "ada"]
            assert keys(where("last") == "Ross") == ["bob"]
            assert (workers.count(months=36), workers.aggregate("months")[0].sum) == (2, 280)
            for limit in (1, 2, 3, 4, 5):
                paged, after = list[str](), ""
                while True:
                    page = workers.find(order="-months", limit=limit, after=after)
                    paged += [key for key, _ in page]
                    after = page.cursor
                    if not after:
                        break
                assert paged == ["cid", "ada", "eve", "bob", "dan"], limit
            workers.update("bob", {"last": "Cut"})
            assert workers.migrate() == 3
            assert workers.migrate() == 0
            assert keys(order="months") == ["bob", "dan", "eve", "ada", "cid"]
            assert workers.get("bob", at=1) == Worker("Bob", "Ross", 36, ["Rust"])

    def test_what_a_newer_version_wrote_is_never_written_over_by_an_older(self, tmp_path: Path) -> None:
        """It is read as far as it fits; what does not fit is named."""
        with self.opened(tmp_path, OLD) as (ground, name, people):
            more: Schema[Any] = Schema(None, version=2, migrations={1: None})
            loose = ground.collection(name, more)
            loose.put("ada", {"name": "Ada", "years": 5, "mail": "ada@example"})
            assert people.get("ada") == Person("Ada", [], 5)
            for write in (
                lambda: people.put("ada", PEOPLE["ada"]),
                lambda: people.update("ada", {"years": 6}),
            ):
                with refuses(UsageError) as caught:
                    write()  # type: ignore[no-untyped-call]
                assert "version 2" in str(caught[0])
                assert "version 1" in str(caught[0])
            assert loose.get("ada")["mail"] == "ada@example"
            loose.put("bob", {"nickname": "Bob"})
            with refuses(UsageError) as caught:
                people.get("bob")
            context = getattr(caught[0], "context", {})
            assert (context["key"], context["version"], context["field"]) == ("bob", 1, "$.name")
            assert "at=1" in getattr(caught[0], "hint", "")
            page = people.find()
            assert ([key for key, _ in page], [each.key for each in page.unfit]) == (["ada"], ["bob"])
            people.delete("bob")
            people.put("bob", PEOPLE["bob"])
            assert loose.get("bob")["name"] == "Bob Ross"

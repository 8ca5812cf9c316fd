"""Fallback: what goes on while the primary is away, and that what it missed catches up, proven."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from holdfast.errors import (
    ObjectConflict,
    ObjectCorrupt,
    ObjectNotFound,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
)
from holdfast.objects import ABSENT, MemoryStore
from holdfast.objects.layers import Cached, Fallback
from holdfast.objects.layers.waiting import CONFLICTS, PENDING
from holdfast.testing.faults import AFTER, BEFORE, Faults, FaultyStore
from holdfast.testing.objects import LARGE, keys
from tests.unit.objects_tools import Calendar


class House:
    """Two stores that outlive the layers over them."""

    def __init__(self, **options: object) -> None:
        self.primary, self.fallback = FaultyStore(MemoryStore()), FaultyStore(MemoryStore())
        self.clock = Calendar()
        self.options = options
        self.open()

    def open(self) -> Fallback:
        """The layer anew, as after a crash: nothing of the one before is left but what lies in the stores."""
        self.store = Fallback(self.primary, self.fallback, clock=self.clock, **self.options)  # type: ignore[arg-type]
        return self.store

    def back(self) -> None:
        """The primary answers again, and it is time to ask it."""
        self.primary.down = False
        self.clock.passed += 60

    @property
    def there(self) -> dict[str, bytes]:
        below = self.primary.inner
        return {info.key: below.read(info.key) for info in below.list()}


def test_while_the_primary_answers_the_fallback_is_not_written() -> None:
    house = House()
    house.store.put("one", b"1")
    assert house.there == {"one": b"1"}
    assert [call for call, _ in house.fallback.calls] == ["list"]
    assert house.store.health().degraded == ""


def test_what_missed_the_primary_is_served_and_catches_up() -> None:
    house = House()
    house.store.put("kept", b"before")
    house.store.put("gone", b"before")
    house.primary.down = True
    info = house.store.put("a/b", LARGE, content_type="x/y", metadata={"a": "1"})
    house.store.put("kept", iter([b"af", b"ter"]))
    assert house.store.delete("gone") is True
    assert house.store.read("a/b") == LARGE
    assert house.store.read("a/b", start=1 << 20, stop=(1 << 20) + 5) == LARGE[1 << 20 : (1 << 20) + 5]
    assert house.store.read("a/b", start=len(LARGE) + 5) == b""
    assert house.store.head("a/b") == info
    assert (info.size, info.content_type, info.metadata) == (len(LARGE), "x/y", {"a": "1"})
    with house.store.get("kept") as content:
        assert (content.read(), content.info.size) == (b"after", 5)
    with pytest.raises(ObjectNotFound):
        house.store.read("gone")
    assert house.store.delete("gone") is False
    assert house.store.pending() == ["a/b", "gone", "kept"]
    health = house.store.health()
    assert health.ok
    assert "3 keys wait" in health.degraded
    assert house.store.catch_up().left == 3
    house.back()
    report = house.store.catch_up()
    assert (report.done, report.left, report.failed, report.conflicts) == (3, 0, {}, 0)
    assert house.there == {"a/b": LARGE, "kept": b"after"}
    assert (house.primary.inner.head("a/b").content_type, house.store.head("a/b").metadata) == ("x/y", {"a": "1"})
    assert keys(house.fallback.inner) == []
    assert house.store.health().degraded == ""


def test_a_crash_loses_nothing_that_waits() -> None:
    house = House()
    house.store.put("gone", b"1")
    house.primary.down = True
    house.store.put("one", b"first")
    house.store.put("one", b"second")
    house.store.delete("gone")
    store = house.open()
    assert store.read("one") == b"second"
    assert not store.exists("gone")
    house.back()
    assert store.catch_up().left == 0
    assert house.there == {"one": b"second"}


def test_calls_about_something_else_catch_up_in_passing_a_few_each() -> None:
    house = House(pause_s=5.0)
    house.primary.down = True
    for number in range(20):
        house.store.put(f"k{number:02}", b"x")
    house.primary.down = False
    house.store.exists("other")
    assert len(house.store.pending()) == 20  # it is not asked again so soon
    house.clock.passed += 5
    counts = []
    while house.store.pending():
        house.store.exists("other")
        counts.append(len(house.store.pending()))
    assert counts == [12, 4, 0]
    assert len(house.there) == 20


def test_a_primary_that_is_away_is_not_asked_for_each_call() -> None:
    house = House()
    house.primary.down = True
    house.store.put("one", b"1")
    asked = len(house.primary.calls)
    house.store.put("two", b"2")
    house.store.read("one")
    house.store.delete("one")
    assert len(house.primary.calls) == asked


def test_later_writes_of_a_key_wait_behind_the_first() -> None:
    house = House(pause_s=0.0)
    house.primary.down = True
    house.store.put("one", b"old")
    house.primary.down = False
    # The second put reaches the primary, and the process dies before the journal hears of it.
    house.fallback.plan = Faults(BEFORE, BEFORE, BEFORE, BEFORE, only=("delete",))
    house.primary.plan = lambda operation, key: BEFORE if house.store.pending() and operation == "put" else "ok"
    house.store.put("one", b"new")
    house.primary.plan = Faults()
    house.fallback.plan = Faults()
    store = house.open()
    assert store.read("one") == b"new"
    assert store.catch_up().left == 0
    assert house.there == {"one": b"new"}
    assert not store.conflicts()


@pytest.mark.parametrize("fault", [BEFORE, AFTER])
@pytest.mark.parametrize("operation", ["put", "get", "head"])
def test_catching_up_that_breaks_is_done_again(fault: str, operation: str) -> None:
    house = House()
    house.primary.down = True
    house.store.put("one", b"1")
    house.back()
    house.primary.plan = Faults(fault, only=(operation,))
    assert house.store.catch_up().left == 1
    assert house.store.read("one") == b"1"
    store = house.open()
    assert store.catch_up().left == 0
    assert (house.there, list(store.conflicts())) == ({"one": b"1"}, [])


def test_a_write_that_arrived_unheard_does_not_come_back() -> None:
    """The primary's clock is an hour ahead: its time alone would make the older write the winner."""

    class Ahead(MemoryStore):
        def head(self, key: str):  # type: ignore[no-untyped-def]
            found = super().head(key)
            return msgspec.structs.replace(found, modified=found.modified + timedelta(hours=1))

    house = House()
    house.primary.inner = Ahead()
    house.primary.plan = Faults(AFTER, only=("put",))
    house.store.put("one", b"first")
    assert house.there == {"one": b"first"}
    house.primary.down = True
    house.store.put("one", b"second")
    house.store.put("two", b"never")
    house.store.delete("two")
    house.back()
    report = house.open().catch_up()
    assert (report.left, report.conflicts) == (0, 0)
    assert house.there == {"one": b"second"}


def test_the_later_of_two_writes_stays_and_the_other_is_kept() -> None:
    house = House()
    house.primary.down = True
    house.store.put("one", b"ours", metadata={"who": "us"})
    house.store.delete("two")
    later = datetime.now(UTC) + timedelta(hours=1)

    class Later(MemoryStore):
        def head(self, key: str):  # type: ignore[no-untyped-def]
            return msgspec.structs.replace(super().head(key), modified=later)

    house.primary.inner = Later()
    house.primary.inner.put("one", b"theirs")
    house.primary.inner.put("two", b"theirs")
    house.back()
    report = house.store.catch_up()
    assert (report.done, report.left, report.conflicts) == (2, 0, 1)
    assert house.there == {"one": b"theirs", "two": b"theirs"}
    (kept,) = house.store.conflicts()
    assert (kept.info.key, kept.info.metadata) == ("one", {"who": "us"})
    assert house.store.read_conflict(kept.name) == b"ours"
    assert house.store.drop_conflict(kept.name) is True
    assert not house.store.conflicts()
    assert house.store.drop_conflict("one") is False


@pytest.mark.parametrize("deletes", [False, True])
def test_within_a_minute_clocks_decide_nothing_and_both_are_kept(deletes: bool) -> None:
    house = House()
    house.primary.inner.put("one", b"theirs", content_type="x/y")  # not seen by this layer
    house.primary.down = True
    if deletes:
        house.store.delete("one")
    else:
        house.store.put("one", b"ours")
    house.back()
    assert house.store.catch_up().conflicts == 1
    assert house.there == ({} if deletes else {"one": b"ours"})
    (kept,) = house.store.conflicts()
    assert (house.store.read_conflict(kept.name), kept.info.content_type) == (b"theirs", "x/y")


def test_what_this_layer_wrote_itself_is_no_conflict() -> None:
    house = House()
    house.store.put("one", b"before")
    house.primary.down = True
    house.store.put("one", b"after")
    house.back()
    assert house.store.catch_up().conflicts == 0
    assert not house.store.conflicts()


def test_one_that_the_primary_will_not_take_waits_and_blocks_no_other() -> None:
    house = House()
    house.primary.down = True
    for key in ("a", "bad", "c"):
        house.store.put(key, b"x")
    house.back()
    house.primary.plan = lambda operation, key: StorageFull("too much") if (operation, key) == ("put", "bad") else "ok"
    report = house.store.catch_up()
    assert (report.done, report.left, report.failed) == (2, 1, {"bad": "too much"})
    assert "too much" in house.store.health().degraded
    assert house.store.read("bad") == b"x"
    house.primary.plan = Faults()
    assert house.store.catch_up() == msgspec.structs.replace(report, done=1, left=0, failed={})


def test_a_primary_that_spoils_bytes_is_found_out() -> None:
    class Spoiling(MemoryStore):
        def put(self, key, data, **options):  # type: ignore[no-untyped-def]
            return super().put(key, b"".join(data).replace(b"1", b"2"), **options)

    house = House()
    house.primary.down = True
    house.store.put("one", b"1")
    house.primary.inner = Spoiling()
    house.back()
    report = house.store.catch_up()
    assert report.left == 1
    assert "other bytes" in report.failed["one"]
    assert house.there == {}
    house.primary.inner = MemoryStore()
    assert house.store.read("one") == b"1"
    assert house.store.catch_up().left == 0
    assert (house.there, list(house.store.conflicts())) == ({"one": b"1"}, [])


def test_a_journal_that_was_damaged_is_never_sent() -> None:
    house = House()
    house.primary.down = True
    house.store.put("one", b"precious")
    (info,) = house.fallback.inner.list(PENDING)
    body = house.fallback.inner.read(info.key)
    house.fallback.inner.put(info.key, body.replace(b"precious", b"precioux"))
    house.back()
    assert "not what was written" in house.store.catch_up().failed["one"]
    assert house.there == {}
    with pytest.raises(ObjectCorrupt):
        house.store.read("one")


def test_a_condition_is_the_primarys_alone() -> None:
    house = House(pause_s=0.0)
    first = house.store.put("one", b"1", expect=ABSENT)
    house.primary.down = True
    for call in (
        lambda: house.store.put("one", b"2", expect=first.etag),
        lambda: house.store.put("new", b"2", expect=ABSENT),
        lambda: house.store.delete("one", expect=first.etag),
    ):
        with pytest.raises(StorageUnavailable) as caught:
            call()
        assert caught.value.context["degraded"] is True
    waits = house.store.put("one", b"3")
    assert house.store.pending() == ["one"]
    with pytest.raises(StorageUnavailable):
        house.store.put("one", b"4", expect=waits.etag)
    house.primary.down = False
    with pytest.raises(ObjectConflict):  # what waited has arrived first
        house.store.put("one", b"4", expect=first.etag)
    assert house.there == {"one": b"3"}
    house.store.put("one", b"4", expect=house.store.head("one").etag)
    assert house.there == {"one": b"4"}


def test_what_only_the_primary_knows_is_not_guessed() -> None:
    house = House()
    house.store.put("there", b"1")
    house.fallback.inner.put("copied", b"older")
    house.primary.down = True
    for call in (
        lambda: house.store.read("there"),
        lambda: house.store.head("nobody"),
        lambda: house.store.exists("nobody"),
        lambda: keys(house.store),
    ):
        with pytest.raises(StorageUnavailable):
            call()
    assert house.store.read("copied") == b"older"
    house.back()
    with pytest.raises(ObjectNotFound):  # the primary answers: what it has not is not there
        house.store.read("copied")


def test_a_replica_answers_for_the_primary() -> None:
    house = House(replica=True)
    for store in (house.primary.inner, house.fallback.inner):
        store.put("a", b"1")
        store.put("c", b"3")
    house.primary.down = True
    house.store.put("b", b"2")
    house.store.delete("c")
    assert keys(house.store) == ["a", "b"]
    assert house.store.read("a") == b"1"
    assert not house.store.exists("nobody")


def test_a_listing_is_of_both() -> None:
    house = House()
    for key in ("a", "c", "e", "g"):
        house.store.put(key, b"1")
    house.primary.down = True
    for key in ("b", "c", "f"):
        house.store.put(key, b"22")
    house.store.delete("e")
    house.primary.down = False  # and it is not yet time to catch up
    assert keys(house.store) == ["a", "b", "c", "f", "g"]
    assert keys(house.store, after="b", limit=2) == ["c", "f"]
    assert keys(house.store, limit=0) == []
    assert [info.size for info in house.store.list()] == [1, 2, 2, 2, 1]
    assert len(house.store.pending()) == 4


def test_the_journals_keys_are_nobodys() -> None:
    house = House(replica=True)
    house.primary.down = True
    house.store.put("one", b"1")
    assert keys(house.store) == ["one"]
    for call in (house.store.read, house.store.head, house.store.delete, lambda key: house.store.put(key, b"")):
        for place in (PENDING, CONFLICTS):
            with pytest.raises(StorageRefused):
                call(place + "x")


def test_with_both_away_the_write_fails_and_a_broken_source_leaves_nothing() -> None:
    house = House(pause_s=0.0)
    house.store.exists("x")
    house.primary.down = house.fallback.down = True
    with pytest.raises(StorageUnavailable):
        house.store.put("one", b"1")
    assert not house.store.health().ok
    house.fallback.down = False

    def broken():  # type: ignore[no-untyped-def]
        yield b"half"
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        house.store.put("one", broken())
    assert house.store.pending() == []


def test_a_body_that_can_be_read_once_reaches_whichever_store_takes_it() -> None:
    source = MemoryStore()
    source.put("one", LARGE * 2)
    house = House(pause_s=0.0)
    house.primary.plan = Faults(AFTER, only=("put",))
    house.store.put("copy", source.get("one"))
    assert house.store.read("copy") == LARGE * 2
    house.store.catch_up()
    assert house.there == {"copy": LARGE * 2}


def test_a_journal_of_its_own(tmp_path: Path) -> None:
    journal = MemoryStore()
    house = House(journal=journal)
    source = tmp_path / "body"
    source.write_bytes(LARGE)
    house.primary.down = True
    house.store.put("one", source)
    assert keys(house.fallback.inner) == []
    assert len(keys(journal)) == 1
    assert house.store.read("one") == LARGE
    house.back()
    house.store.catch_up()
    assert house.there == {"one": LARGE}


def test_an_order_that_would_prove_itself_is_refused() -> None:
    with pytest.raises(StorageRefused):
        Fallback(Cached(MemoryStore()), MemoryStore())
    with pytest.raises(StorageRefused, match="journal"):
        Fallback(MemoryStore(), Fallback(MemoryStore(), MemoryStore()))

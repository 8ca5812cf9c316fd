"""Mirrored: every write twice, what the mirror missed caught up and proven, and damage repaired from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from holdfast.errors import ObjectConflict, ObjectCorrupt, StorageFull, StorageRefused, StorageUnavailable
from holdfast.objects import ABSENT, MemoryStore
from holdfast.objects.layers import Fallback, Mirrored
from holdfast.objects.layers.layer import Layer
from holdfast.objects.layers.notes import NOTES
from holdfast.objects.port import Content, ObjectInfo
from holdfast.testing.faults import AFTER, BEFORE, Faults, FaultyStore
from holdfast.testing.objects import LARGE, keys
from tests.unit.objects_tools import Calendar


class Rotting(Layer):
    """A store that finds out where its bytes have rotted, at the end of a body or at once."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.rotten: dict[str, bytes] = {}

    def put(self, key: str, data: Any, **options: Any) -> ObjectInfo:
        info = super().put(key, data, **options)
        self.rotten.pop(key, None)
        return info

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
        content = super().get(key, start=start, stop=stop)
        if key not in self.rotten:
            return content

        def pieces() -> Iterator[bytes]:
            if begun := self.rotten[key][start:stop]:
                yield begun
            raise ObjectCorrupt(f"{key} has rotted", key=key)

        return Content(content.info, pieces())


class House:
    """Two stores that outlive the layers over them."""

    def __init__(self, **options: object) -> None:
        self.first, self.mirror = Rotting(), Rotting()
        self.near, self.far = FaultyStore(self.first), FaultyStore(self.mirror)
        self.clock = Calendar()
        self.options = options
        self.open()

    def open(self) -> Mirrored:
        """The layer anew, as after a crash."""
        self.store = Mirrored(self.near, self.far, clock=self.clock, **self.options)  # type: ignore[arg-type]
        return self.store

    def back(self) -> None:
        self.near.down = self.far.down = False
        self.clock.passed += 60

    def held(self, store: Rotting) -> dict[str, tuple[bytes, str, dict[str, str]]]:
        found = {}
        for info in store.list():
            if not info.key.startswith(NOTES):
                found[info.key] = store.read(info.key), info.content_type, info.metadata
        return found

    def same(self) -> bool:
        return self.held(self.first) == self.held(self.mirror)


@pytest.mark.parametrize("ahead", [False, True])
def test_every_write_is_in_both(ahead: bool) -> None:
    house = House(ahead=ahead)
    house.store.put("bytes", b"1", content_type="x/y", metadata={"a": "1"})
    house.store.put("pieces", iter([b"1", b"2"]), content_type="x/z")
    house.store.put("large", LARGE)
    house.store.put("gone", b"1")
    house.store.delete("gone")
    etag = house.store.put("once", b"1", expect=ABSENT).etag
    with pytest.raises(ObjectConflict):
        house.store.put("once", b"2", expect=ABSENT)
    house.store.put("once", b"3", expect=etag)
    assert sorted(house.held(house.first)) == ["bytes", "large", "once", "pieces"]
    assert house.same()
    house.store.catch_up()
    assert keys(house.first, NOTES) == []
    assert house.store.verify().ok


def test_what_the_mirror_missed_survives_a_crash_and_catches_up() -> None:
    house = House()
    house.store.put("gone", b"1")
    house.store.put("kept", b"1")
    house.far.down = True
    house.store.put("one", b"first")
    house.store.put("one", LARGE, content_type="x/y")
    house.store.put("kept", b"2", metadata={"a": "1"})
    house.store.delete("gone")
    assert keys(house.store) == ["kept", "one"]
    assert house.store.read("one") == LARGE
    store = house.open()
    assert list(store.pending()) == ["gone", "kept", "one"]
    assert "3 keys wait" in store.health().degraded
    assert store.health().ok
    house.back()
    report = store.catch_up()
    assert (report.done, report.left, report.failed) == (3, 0, {})
    assert house.same()
    assert keys(house.first, NOTES) == []
    assert store.health().degraded == ""


@pytest.mark.parametrize("fault", [BEFORE, AFTER])
@pytest.mark.parametrize("operation", ["put", "get", "delete"])
def test_catching_up_that_breaks_is_done_again(fault: str, operation: str) -> None:
    house = House()
    house.store.put("gone", b"1")
    house.far.down = True
    house.store.put("one", b"1")
    house.store.delete("gone")
    house.back()
    house.far.plan = Faults(fault, only=(operation,))
    assert house.store.catch_up().left >= 1
    house.back()
    assert house.open().catch_up().left == 0
    assert house.same()


def test_calls_about_something_else_catch_up_in_passing() -> None:
    house = House()
    house.far.down = True
    for number in range(20):
        house.store.put(f"k{number:02}", b"x")
    house.back()
    for _ in range(3):
        house.store.exists("other")
    assert house.store.pending() == []
    assert house.same()


def test_a_first_store_without_an_answer_leaves_no_difference_unnoted() -> None:
    journal = MemoryStore()
    house = House(journal=journal)
    house.near.plan = Faults(AFTER, only=("put",))
    with pytest.raises(StorageUnavailable):
        house.store.put("one", b"1")
    assert list(house.open().pending()) == ["one"]
    assert house.store.catch_up().left == 0
    assert house.same()


def test_noted_ahead_a_crash_in_the_middle_is_found_without_looking_at_everything() -> None:
    class Crash(BaseException):
        pass

    def crash(operation: str, key: str) -> str:
        raise Crash

    for ahead in (True, False):
        house = House(ahead=ahead)
        house.far.plan = crash
        with pytest.raises(Crash):
            house.store.put("one", b"1")
        house.far.plan = Faults()
        store = house.open()
        assert list(store.pending()) == (["one"] if ahead else [])
        store.catch_up()
        assert house.same() is ahead
        assert store.verify().missing == ([] if ahead else ["one"])
        assert house.same()


def test_a_miss_that_cannot_be_noted_is_told() -> None:
    journal = FaultyStore(MemoryStore())
    house = House(journal=journal)
    house.store.exists("x")
    house.far.down = journal.down = True
    with pytest.raises(StorageUnavailable, match="mirror missed it"):
        house.store.put("one", b"1")
    journal.down = False
    house.back()
    assert list(house.store.pending()) == ["one"]
    house.store.catch_up()
    assert house.same()


def test_one_that_the_mirror_will_not_take_blocks_no_other() -> None:
    house = House()
    house.far.plan = lambda operation, key: StorageFull("too much") if (operation, key) == ("put", "bad") else "ok"
    house.store.put("bad", b"1")
    house.back()
    house.store.put("good", b"1")
    house.back()
    report = house.store.catch_up()
    assert (report.left, report.failed) == (1, {"bad": "too much"})
    assert "too much" in house.store.health().degraded
    assert sorted(house.held(house.mirror)) == ["good"]


def test_a_writer_in_another_process_is_not_overtaken() -> None:
    house = House()
    other = Mirrored(house.near, house.far)

    def meanwhile(operation: str, key: str) -> str:
        if operation == "put":  # ours is in the first store, and on its way to the mirror
            house.far.plan = Faults()
            other.put("one", b"theirs")
        return "ok"

    house.far.plan = meanwhile
    house.store.put("one", b"ours")
    assert house.held(house.first)["one"][0] == b"theirs"
    assert house.same()


def test_damage_is_repaired_from_the_mirror_and_read_on() -> None:
    for rotten in (b"", b"good be", b"rotten!"):
        house = House()
        house.store.put("one", b"good beginning, good end", content_type="x/y", metadata={"a": "1"})
        house.first.rotten["one"] = rotten
        assert house.store.read("one") == b"good beginning, good end"
        assert house.same()
        assert house.first.rotten == {}
        house.first.rotten["one"] = rotten
        content = house.store.get("one", start=5)
        if b"good beginning".startswith(rotten):
            assert content.read() == b"beginning, good end"
        else:  # what was handed out was wrong: that is told, and the next read is right
            with pytest.raises(ObjectCorrupt):
                content.read()
        assert house.store.read("one") == b"good beginning, good end"
        assert house.first.rotten == {}


def test_an_older_mirror_repairs_nothing() -> None:
    house = House()
    house.store.put("one", b"old")
    house.far.down = True
    house.store.put("one", b"new")
    house.first.rotten["one"] = b""
    house.far.down = False
    for store in (house.store, house.open()):
        with pytest.raises(ObjectCorrupt):
            store.read("one")
    assert house.mirror.read("one") == b"old"
    house.first.rotten.clear()
    house.first.put("one", b"other size")  # behind the layer's back
    house.store.catch_up()
    house.mirror.put("one", b"x")
    house.first.rotten["one"] = b""
    with pytest.raises(ObjectCorrupt):
        house.store.read("one")


def test_verify_finds_every_difference_and_mends_what_is_certain() -> None:
    house = House()
    for key in ("bytes", "type", "lost", "rotten", "mirror-rotten", "both-rotten", "fine"):
        house.store.put(key, b"12345", content_type="x/y")
    house.mirror.put("bytes", b"54321", content_type="x/y")
    house.mirror.put("type", b"12345", content_type="x/z")
    house.mirror.delete("lost")
    house.mirror.put("alone", b"?")
    house.mirror.put("zalone", b"?")
    house.first.rotten |= {"rotten": b"", "both-rotten": b""}
    house.mirror.rotten |= {"mirror-rotten": b"", "both-rotten": b""}
    shallow = house.store.verify(deep=False, repair=False)
    assert (shallow.missing, shallow.different, shallow.extra) == (["lost"], ["type"], ["alone", "zalone"])
    seen = house.store.verify(repair=False)
    assert seen.repaired == 0
    report = house.store.verify()
    for each in (seen, report):
        assert each.checked == 7
        assert each.missing == ["lost"]
        assert each.different == ["bytes", "mirror-rotten", "type"]
        assert each.damaged == ["both-rotten", "rotten"]
        assert each.extra == ["alone", "zalone"]
        assert not each.ok
    assert report.repaired == 5
    assert list(report.failed) == ["both-rotten"]
    house.mirror.delete("alone")
    house.mirror.delete("zalone")
    house.store.put("both-rotten", b"new")
    assert house.store.verify().ok
    assert house.same()


def test_the_notes_keys_are_nobodys() -> None:
    house = House()
    house.far.down = True
    house.store.put("one", b"1")
    assert keys(house.store) == ["one"]
    assert keys(house.store, limit=1) == ["one"]
    assert keys(house.first, NOTES) != []
    for call in (house.store.read, house.store.head, house.store.delete, lambda key: house.store.put(key, b"")):
        with pytest.raises(StorageRefused):
            call(NOTES + "x")


def test_three_stores_are_two_mirrors_with_journals_of_their_own() -> None:
    with pytest.raises(StorageRefused, match="journal"):
        Mirrored(Mirrored(MemoryStore(), MemoryStore()), MemoryStore())
    last = FaultyStore(MemoryStore())
    store = Mirrored(Mirrored(MemoryStore(), MemoryStore()), last, journal=MemoryStore(), pause_s=0.0)
    last.down = True
    store.put("one", b"1")
    last.down = False
    assert store.catch_up().left == 0
    assert last.inner.read("one") == b"1"


def test_a_mirror_that_is_a_fallback_too_answers_for_the_first() -> None:
    house = House(pause_s=0.0)
    both = Fallback(house.store, house.far, replica=True, pause_s=0.0)
    both.put("one", b"1")
    both.put("two", b"1")
    house.near.down = True
    assert keys(both) == ["one", "two"]
    both.put("one", b"2")
    both.delete("two")
    assert keys(both) == ["one"]
    house.near.down = False
    assert house.store.verify().ok  # what waits is nothing that the first store has lost
    assert both.catch_up().left == 0
    assert sorted(house.held(house.first)) == ["one"]
    assert house.same()

"""Quotas: which and how much, for any number of threads, and nothing is written past them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest

from holdfast.errors import (
    ObjectConflict,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
)
from holdfast.objects import MemoryStore
from holdfast.objects.layers import Limited, Quotas
from holdfast.objects.layers.limited import Used
from holdfast.objects.port import ABSENT
from tests.unit.objects_below import Below, lost


def test_a_quota_says_which_and_how_much_and_nothing_is_written() -> None:
    below = MemoryStore()
    store = Limited(below, Quotas(objects_max=3, bytes_max=100, object_bytes_max=60))
    store.put("a", bytes(50))
    with pytest.raises(StorageFull, match=r"61 bytes.*60 are allowed") as caught:
        store.put("b", bytes(61))
    assert caught.value.context["quota"] == "object_bytes_max"
    with pytest.raises(StorageFull, match=r"50 bytes.*100 are allowed.*needs 51 more") as caught:
        store.put("b", bytes(51))
    assert (caught.value.context["used"], caught.value.context["limit"]) == (50, 100)
    store.put("b", b"1")
    store.put("c", b"1")
    with pytest.raises(StorageFull, match=r"3 objects.*3 are allowed"):
        store.put("d", b"")
    assert [info.key for info in below.list()] == ["a", "b", "c"]
    store.put("a", bytes(60))  # in the place of one that is there: ten more
    assert store.used() == Used(objects=3, bytes=62)
    store.delete("a")
    store.put("d", bytes(60))
    assert store.used() == store.refresh() == Used(objects=3, bytes=62)


def test_a_stream_is_cut_off_where_the_quota_ends() -> None:
    below = MemoryStore()
    store = Limited(below, Quotas(bytes_max=1000, object_bytes_max=700))
    store.put("old", bytes(400))
    read = itertools.count()
    for key, pieces in (("new", 7), ("old", 11), ("huge", 10_000)):
        with pytest.raises(StorageFull):
            store.put(key, (bytes(100) for _ in itertools.islice(read, pieces)))
    assert next(read) <= 7 + 11 + 10
    assert {info.key: info.size for info in below.list()} == {"old": 400}
    assert store.used() == Used(objects=1, bytes=400)
    store.put("old", iter([bytes(100)] * 7))
    assert store.used() == Used(objects=1, bytes=700)


def test_only_what_lies_below_the_prefix_counts() -> None:
    store = Limited(MemoryStore(), Quotas(objects_max=1, prefix="a/"))
    for number in range(3):
        store.put(f"b/{number}", b"1")
    store.put("a/1", b"1")
    with pytest.raises(StorageFull, match="'a/'"):
        store.put("a/2", b"1")
    for wrong in (Quotas(objects_max=-1), Quotas(prefix="/")):
        with pytest.raises(StorageRefused):
            Limited(MemoryStore(), wrong)


def test_what_others_wrote_is_learnt() -> None:
    now = [0.0]
    below = MemoryStore()
    below.put("old", bytes(60))
    store = Limited(below, Quotas(bytes_max=100), refresh_s=10, clock=lambda: now[0])
    with pytest.raises(StorageFull):
        store.put("new", bytes(50))
    below.delete("old")
    with pytest.raises(StorageFull):
        store.put("new", bytes(50))
    now[0] = 10.0
    store.put("new", bytes(50))
    below.put("other", bytes(50))
    assert store.refresh() == Used(objects=2, bytes=100)


def test_a_write_with_an_unknown_end_is_looked_at() -> None:
    below = Below(MemoryStore())
    store = Limited(below, Quotas(bytes_max=100))
    below.after["put"] = lost
    with pytest.raises(StorageUnavailable):
        store.put("one", bytes(60))  # it is there
    assert store.used().bytes == 60
    below.after["put"] = below.after["head"] = lost
    with pytest.raises(StorageUnavailable):
        store.put("two", bytes(40))  # it is there, and not even head answers: listed before the next write
    with pytest.raises(StorageFull):
        store.put("three", bytes(1))
    with pytest.raises(RuntimeError):
        store.put("one", _breaks())
    assert store.used() == Used(objects=2, bytes=100)
    below.after["delete"] = lost
    with pytest.raises(StorageUnavailable):
        store.delete("one")
    assert store.used() == Used(objects=1, bytes=40)


def test_a_write_that_was_lost_does_not_take_room_for_ever() -> None:
    below = Below(MemoryStore())
    store = Limited(below, Quotas(bytes_max=100))
    below.before["put"] = below.after["head"] = lost
    below.inner.put("one", b"")
    with pytest.raises(StorageUnavailable):
        store.put("one", bytes(90))  # it did not come there, and nobody can tell
    store.put("two", bytes(90))
    assert store.used() == Used(objects=2, bytes=90)


def test_of_two_writes_at_a_time_what_is_there_counts() -> None:
    below = Below(MemoryStore())
    store = Limited(below, Quotas(bytes_max=1000))
    within: list[Used] = []
    below.after["put"] = lambda: store.put("one", bytes(30))
    store.put("one", bytes(50))
    assert store.used() == Used(objects=1, bytes=30)

    def loses() -> None:
        with pytest.raises(ObjectConflict):
            store.put("two", bytes(90), expect=ABSENT)
        within.append(store.used())

    below.after["put"] = loses
    store.put("two", bytes(50))
    assert within == [store.used()] == [Used(objects=2, bytes=80)]


def test_what_is_written_while_it_lists_counts() -> None:
    below = Below(MemoryStore())
    store = Limited(below, Quotas(bytes_max=1000))
    store.put("old", bytes(50))
    below.after["list"] = lambda: (store.put("new", bytes(30)), store.delete("old"))
    assert store.refresh() == Used(objects=1, bytes=30)


def test_nobody_writes_before_it_is_known_what_is_there() -> None:
    below = Below(MemoryStore())
    below.inner.put("old", bytes(60))
    store = Limited(below, Quotas(bytes_max=100))
    refused: list[StorageFull] = []

    def write() -> None:
        try:
            store.put("new", bytes(60))
        except StorageFull as error:
            refused.append(error)

    other = threading.Thread(target=write)

    def while_it_lists() -> None:
        other.start()
        other.join(0.05)  # time to go wrong; nothing depends on it when all is well

    below.after["list"] = while_it_lists
    assert store.used() == Used(objects=1, bytes=60)
    other.join()
    assert len(refused) == 1
    assert not store.exists("new")


def _breaks() -> Iterator[bytes]:
    yield b"x"
    raise RuntimeError("the source broke")


def test_many_threads_cannot_pass_a_quota() -> None:
    below = MemoryStore()
    store = Limited(below, Quotas(bytes_max=700, objects_max=5))
    won: list[int] = []
    gate = threading.Barrier(16)

    def work(number: int) -> None:
        gate.wait(60)
        for turn in range(40):
            try:
                store.put(f"own/{number}", iter([bytes(50), bytes(50)]))
                won.append(number)
            except StorageFull:
                pass
            if sum(info.size for info in below.list()) > 700 or len(list(below.list())) > 5:
                won.append(-1)
            try:
                store.put("shared", bytes(20 + turn))
                store.delete("shared")
            except StorageFull:
                pass

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert -1 not in won
    assert 1 <= len(set(won)) <= 5
    assert store.used() == store.refresh()

"""The cache: what is known is not asked for again, and never old after a write."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from holdfast.errors import (
    ObjectConflict,
    ObjectNotFound,
    StorageRefused,
    StorageUnavailable,
)
from holdfast.objects import MemoryStore
from holdfast.objects.layers import Cached
from holdfast.objects.port import ABSENT
from tests.unit.objects_below import Below, lost


def test_what_is_known_is_not_asked_for_again() -> None:
    below = Below(MemoryStore())
    store = Cached(below)
    store.put("one", b"0123456789", metadata={"a": "1"}, content_type="x/y")
    for _ in range(3):
        assert store.read("one") == b"0123456789"
        assert store.read("one", start=2, stop=4) == b"23"
        with store.get("one", start=8) as content:
            assert (content.info.size, content.info.content_type, content.read()) == (10, "x/y", b"89")
        store.head("one").metadata["a"] = "changed by a careless caller"
        assert store.head("one").metadata == {"a": "1"}
    assert below.asked == ["put"]
    below.put("two", b"2")
    assert [store.head("two").size, store.head("two").size, store.read("two"), store.read("two")] == [1, 1, b"2", b"2"]
    assert below.asked == ["put", "put", "head", "get"]
    stats = store.stats()
    assert (stats.hits, stats.misses, stats.entries, stats.evictions) == (17, 2, 2, 0)


def test_a_head_that_was_asked_for_meanwhile_does_not_push_out_the_body() -> None:
    below = Below(MemoryStore())
    store = Cached(below)
    below.inner.put("one", b"1")
    below.after["head"] = lambda: store.read("one")
    assert store.head("one").size == 1
    assert store.read("one") == b"1"
    assert below.asked == ["head", "get"]


def test_what_is_not_there_is_asked_for_every_time() -> None:
    inner = MemoryStore()
    store = Cached(inner)
    for call in (store.read, store.head):
        with pytest.raises(ObjectNotFound):
            call("one")
    inner.put("one", b"of another process")
    assert store.read("one") == b"of another process"


def test_an_answer_is_good_for_its_time() -> None:
    now = [100.0]
    inner = MemoryStore()
    store = Cached(inner, ttl_s=10, clock=lambda: now[0])
    store.put("one", b"1")
    inner.put("one", b"of another process")
    now[0] = 109.9
    assert store.read("one") == b"1"
    now[0] = 110.0
    assert store.read("one") == b"of another process"
    assert store.head("one").size == 18
    never = Cached(inner, ttl_s=0, clock=lambda: now[0])
    assert never.read("one") == b"of another process"
    inner.put("one", b"newer")
    assert never.read("one") == b"newer"
    with pytest.raises(StorageRefused):
        Cached(inner, ttl_s=-1)


def test_a_checked_answer_is_never_old() -> None:
    below = Below(MemoryStore())
    store = Cached(below, check=True)
    store.put("one", b"1")
    assert [store.read("one"), store.read("one")] == [b"1", b"1"]
    assert below.asked == ["put", "head", "head"]
    below.inner.put("one", b"2")
    assert (store.read("one"), store.head("one").etag) == (b"2", below.inner.head("one").etag)
    below.inner.delete("one")
    with pytest.raises(ObjectNotFound):
        store.read("one")


@pytest.mark.parametrize("call", ["get", "head"])
@pytest.mark.parametrize("write", ["put", "delete", "lost"])
def test_a_slow_read_does_not_bring_back_what_a_write_replaced(call: str, write: str) -> None:
    below = Below(MemoryStore())
    store = Cached(below)
    below.inner.put("one", b"old")

    def meanwhile() -> None:
        if write == "lost":
            below.after["put"] = lost
            with pytest.raises(StorageUnavailable):
                store.put("one", b"newer")
        elif write == "put":
            store.put("one", b"newer")
        else:
            store.delete("one")

    below.after[call] = meanwhile
    slow = store.read("one") if call == "get" else store.head("one").size
    assert slow in (b"old", 3)
    for _ in range(2):
        if write == "delete":
            assert not store.exists("one")
        else:
            assert (store.read("one"), store.head("one").size) == (b"newer", 5)


def test_a_read_in_the_middle_of_a_write_is_not_kept() -> None:
    below = Below(MemoryStore())
    store = Cached(below)
    store.put("one", b"old")

    inner = below.inner

    def source() -> Iterator[bytes]:
        assert store.read("one") == b"old"  # the write has begun, and is not yet there
        yield b"new"

    # Between its effect and its answer, whoever asks sees the new one: nobody may go back to the old one then.
    below.after["put"] = lambda: seen.append(store.read("one"))
    seen: list[bytes] = []
    store.put("one", source())
    assert seen == [b"new"]
    assert store.read("one") == inner.read("one") == b"new"


@pytest.mark.parametrize("error", ["lost", "conflict"])
def test_a_write_that_failed_leaves_nothing_in_the_cache(error: str) -> None:
    below = Below(MemoryStore())
    store = Cached(below)
    store.put("one", b"old")
    if error == "lost":
        below.after["put"] = lost
        with pytest.raises(StorageUnavailable):
            store.put("one", b"new")
        assert store.read("one") == b"new"
        below.after["delete"] = lost
        with pytest.raises(StorageUnavailable):
            store.delete("one")
        assert not store.exists("one")
    else:
        below.inner.put("one", b"of another process")
        with pytest.raises(ObjectConflict):
            store.put("one", b"mine", expect=ABSENT)
        assert store.read("one") == b"of another process"


def test_of_two_writes_at_a_time_neither_is_kept() -> None:
    below = Below(MemoryStore())
    store = Cached(below)
    # The second one begins and ends between the first one's effect and its answer: the first must not be kept.
    below.after["put"] = lambda: store.put("one", b"second")
    store.put("one", b"first")
    assert store.read("one") == b"second"


@pytest.mark.parametrize("options", [{"ttl_s": -1}, {"ttl_s": float("nan")}, {"bytes_max": -1}])
def test_no_budget_and_no_time_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(StorageRefused, match="not a budget or a time"):
        Cached(MemoryStore(), **options)  # type: ignore[arg-type]


def test_the_budget_holds_and_the_least_used_go() -> None:
    store = Cached(MemoryStore(), bytes_max=40_000)
    for number in range(20):
        store.put(f"n/{number:02}", bytes(3_000))
        store.read("n/00")
        assert store.stats().bytes <= 40_000
    assert store.stats().evictions == 20 - store.stats().entries > 5
    before = store.stats().misses
    store.read("n/00")
    assert store.stats().misses == before
    store.put("large", bytes(6_000))
    store.read("large")
    assert store.stats().misses == before + 1, "more than an eighth of the budget"
    store.put("stream", iter([b"x"]))
    store.forget()
    assert (store.stats().bytes, store.stats().entries) == (0, 0)
    store.put("one", b"1")
    store.forked()
    assert store.stats().entries == 0
    assert store.read("one") == b"1"


def test_readers_never_go_back_while_others_write() -> None:
    store = Cached(MemoryStore())
    store.put("one", b"0")
    done = threading.Event()
    failed: list[str] = []

    def write() -> None:
        for number in range(1, 1500):
            store.put("one", str(number).encode())
            if store.read("one") != str(number).encode():
                failed.append(f"{number} was put, {store.read('one')!r} is read")
        done.set()

    def read() -> None:
        last = 0
        while not done.is_set():
            now = int(store.read("one"))
            if now < last:
                failed.append(f"{now} after {last}")
            last = now

    threads = [threading.Thread(target=work) for work in (write, read, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []

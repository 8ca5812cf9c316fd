"""Retrying: what is repeated, how long it waits, and that its own success is nobody else's."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tenacity

from holdfast.errors import (
    ObjectConflict,
    ObjectCorrupt,
    ObjectNotFound,
    StorageDenied,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
)
from holdfast.objects import ABSENT, MemoryStore
from holdfast.objects.layers import Fallback, Retrying
from holdfast.objects.layers.retrying import SPOOL_BYTES, WRITE_ID
from holdfast.objects.port import ObjectStore
from holdfast.testing.faults import AFTER, BEFORE, MIDWAY, OK, Faults, FaultyStore
from holdfast.testing.objects_many import at_once
from tests.unit.objects_tools import Instant


def made(*faults: str | Exception, only: tuple[str, ...] = (), **options: Any) -> tuple[Retrying, FaultyStore]:
    below = FaultyStore(MemoryStore(), Faults(*faults, only=only))
    store = Retrying(below, **options)
    store.pace = Instant()
    return store, below


def waits(store: Retrying) -> list[float]:
    assert isinstance(store.pace, Instant)
    return store.pace.slept


def test_every_call_is_answered_in_the_end() -> None:
    calls: list[Callable[[ObjectStore], object]] = [
        lambda store: store.put("new", b"body").size,
        lambda store: store.read("one"),
        lambda store: store.get("one").read(),
        lambda store: store.head("one").size,
        lambda store: [info.key for info in store.list()],
        lambda store: store.delete("one"),
    ]
    for call, fault in itertools.product(calls, (BEFORE, AFTER)):
        store, below = made()
        store.put("one", b"once")
        wanted = call(store)
        again, below = made()
        again.put("one", b"once")
        below.plan = Faults(fault, fault)
        assert call(again) == wanted
        assert len(waits(again)) == 2


def test_waits_are_random_below_a_ceiling_that_doubles() -> None:
    store, below = made(tries=9, first_s=0.5, most_s=4.0)
    below.down = True
    with pytest.raises(StorageUnavailable):
        store.head("one")
    ceilings = [0.5, 1, 2, 4, 4, 4, 4, 4]
    assert len(waits(store)) == 8
    assert all(0 <= wait <= ceiling for wait, ceiling in zip(waits(store), ceilings, strict=True))
    assert len(set(waits(store))) == 8


def test_the_deadline_ends_it_before_the_tries_do() -> None:
    store, below = made(tries=1000, deadline_s=20.0, first_s=1.0, most_s=3.0)
    below.down = True
    with pytest.raises(StorageUnavailable):
        store.head("one")
    assert 10 < sum(waits(store)) <= 20


@pytest.mark.parametrize("asked", [7, "7", 7.0])
def test_what_the_store_asks_for_is_waited_at_least(asked: object) -> None:
    store, _ = made(StorageUnavailable("slow down", retry_after=asked))
    store.put("one", b"1")
    assert 7 <= waits(store)[0] <= 7 * 1.2


def test_a_wait_that_ends_after_the_deadline_is_not_begun() -> None:
    store, _ = made(StorageUnavailable("slow down", retry_after=100), deadline_s=30.0)
    with pytest.raises(StorageUnavailable):
        store.put("one", b"1")
    assert waits(store) == []


@pytest.mark.parametrize(
    "error", [StorageDenied("no"), StorageFull("no room"), ObjectCorrupt("bad"), StorageRefused("never")]
)
def test_what_waiting_does_not_mend_is_raised_at_once(error: Exception) -> None:
    store, below = made(error)
    with pytest.raises(type(error)):
        store.put("one", b"1")
    assert len(below.calls) == 1


def test_a_creation_whose_answer_was_lost_is_a_success() -> None:
    store, below = made(AFTER, AFTER, BEFORE, only=("put",))
    info = store.put("lock", b"mine", expect=ABSENT, metadata={"a": "1"})
    assert info.metadata == {"a": "1"}
    assert store.head("lock") == info
    assert WRITE_ID in below.inner.head("lock").metadata
    assert [each.metadata for each in store.list()] == [{"a": "1"}]
    with store.get("lock") as content:
        assert content.info == info
    with pytest.raises(ObjectConflict):
        store.put("lock", b"mine", expect=ABSENT, metadata={"a": "1"})


def test_the_same_bytes_of_another_writer_are_not_ones_own() -> None:
    store, below = made(BEFORE, only=("put",))
    rival = Retrying(below.inner)
    below.plan = once_then(lambda: rival.put("lock", b"same", expect=ABSENT))
    with pytest.raises(ObjectConflict):
        store.put("lock", b"same", expect=ABSENT)


def test_a_swap_whose_answer_was_lost_is_counted_once() -> None:
    store, below = made()
    etag = store.put("count", b"0").etag
    below.plan = Faults(AFTER, only=("put",))
    etag = store.put("count", b"1", expect=etag).etag
    assert store.put("count", b"2", expect=etag).size == 1
    assert store.read("count") == b"2"


def test_a_swap_that_lost_from_the_same_state_is_a_conflict_and_else_unknown() -> None:
    store, below = made()
    first = store.put("count", b"0").etag
    rival = Retrying(below.inner)
    below.plan = once_then(lambda: rival.put("count", b"theirs", expect=first))
    with pytest.raises(ObjectConflict):
        store.put("count", b"ours", expect=first)
    # Ours takes effect, its answer is lost, and another writer goes on from it: to say "conflict" would count twice.
    second = store.head("count").etag
    below.plan = once_then(
        lambda: (
            below.inner.put("count", b"ours", expect=second),
            rival.put("count", b"theirs", expect=rival.head("count").etag),
        )
    )
    with pytest.raises(StorageUnavailable) as caught:
        store.put("count", b"ours", expect=second)
    assert caught.value.context["outcome"] == "unknown"
    assert store.read("count") == b"theirs"


def test_of_many_who_race_over_a_bad_line_each_is_told_the_truth() -> None:
    chance, guard = random.Random(5), threading.Lock()

    def plan(operation: str, key: str) -> str:
        with guard:
            return chance.choice([OK, BEFORE, AFTER])

    below = FaultyStore(MemoryStore(), plan)
    below.inner.put("count", b"0")
    won, added, unknown = [0] * 20, [0], [0]

    def work(number: int) -> None:
        store = Retrying(below, tries=100, deadline_s=1e9)
        store.pace = Instant()
        for turn in range(20):
            with contextlib.suppress(ObjectConflict, StorageUnavailable):
                store.put(f"lock/{turn}", b"the same bytes", expect=ABSENT)
                with guard:
                    won[turn] += 1
            info = store.head("count")
            try:
                have = int(store.read("count"))
                store.put("count", str(have + 1).encode(), expect=info.etag)
            except ObjectConflict:
                continue
            except StorageUnavailable as error:
                with guard:
                    unknown[0] += error.context.get("outcome") == "unknown"
            else:
                with guard:
                    added[0] += 1

    at_once(6, work)
    assert max(won) == 1
    for turn, winners in enumerate(won):
        assert winners == 1 or below.inner.exists(f"lock/{turn}")
    assert added[0] > 20
    assert added[0] <= int(below.inner.read("count")) <= added[0] + unknown[0]


def once_then(meanwhile: Callable[[], object]) -> Callable[[str, str], str | Exception]:
    """The first put fails without an answer, and somebody else does something before the next."""
    done: list[bool] = []

    def plan(operation: str, key: str) -> str | Exception:
        if operation == "put" and not done:
            done.append(True)
            meanwhile()
            return BEFORE
        return OK

    return plan


def test_a_deletion_says_what_was_there_when_it_began() -> None:
    for fault in (BEFORE, AFTER):
        store, below = made()
        etag = store.put("one", b"1").etag
        below.plan = Faults(fault, only=("delete",))
        assert store.delete("one") is True
        assert store.delete("one") is False
        store.put("one", b"1")
        below.plan = Faults(BEFORE, only=("delete",))
        assert store.delete("one", expect=store.head("one").etag) is True
        with pytest.raises(ObjectConflict):
            store.delete("one", expect=etag)


def test_a_deletion_under_a_condition_that_may_have_been_another_ones_is_not_claimed() -> None:
    store, below = made()
    etag = store.put("one", b"1").etag
    below.plan = Faults(AFTER, only=("delete",))
    with pytest.raises(StorageUnavailable) as caught:
        store.delete("one", expect=etag)
    assert caught.value.context["outcome"] == "unknown"


def test_a_body_goes_on_where_it_broke_off() -> None:
    body = bytes(range(256)) * 100
    store, below = made()
    store.put("one", body)
    for start, stop in ((0, None), (100, 20_000), (5, 6)):
        below.plan = Faults(MIDWAY, MIDWAY, BEFORE, MIDWAY, only=("get",))
        with store.get("one", start=start, stop=stop) as content:
            assert b"".join(content) == body[start:stop]


def test_a_body_that_changed_meanwhile_is_not_pieced_together() -> None:
    for meanwhile in (lambda below: below.inner.put("one", b"y" * 100), lambda below: below.inner.delete("one")):
        store, below = made()
        store.put("one", b"x" * 100)
        below.plan = Faults(MIDWAY, only=("get",))
        content = store.get("one")
        assert next(iter(content)) == b"x" * 50
        meanwhile(below)
        with pytest.raises(StorageUnavailable, match="while it was read"):
            next(iter(content))


def test_a_listing_goes_on_after_the_last_key() -> None:
    store, below = made()
    for number in range(40):
        store.put(f"k{number:02}", b"")
    below.plan = Faults(MIDWAY, BEFORE, MIDWAY, AFTER, MIDWAY, only=("list",))
    assert [info.key for info in store.list(limit=31)] == [f"k{number:02}" for number in range(31)]


def test_a_body_that_can_be_read_once_is_kept_if_it_is_small() -> None:
    store, _ = made(BEFORE, AFTER)
    assert store.put("small", iter([b"ab", b"c"])).size == 3
    assert store.read("small") == b"abc"
    pieces = SPOOL_BYTES // (1 << 20) + 2

    def large() -> Iterator[bytes]:
        for _ in range(pieces):
            yield bytes(1 << 20)

    store, below = made(BEFORE)
    with pytest.raises(StorageUnavailable):
        store.put("large", large())
    assert [call for call, _ in below.calls] == ["put"]
    store.put("large", large())
    assert store.head("large").size == pieces << 20


def test_the_content_of_another_store_is_never_sent_empty_the_second_time() -> None:
    source = MemoryStore()
    source.put("one", b"precious")
    store, _ = made(BEFORE, AFTER, BEFORE)
    store.put("copy", source.get("one"))
    assert store.read("copy") == b"precious"


@pytest.mark.parametrize("reraise", [True, False])
def test_tenacity_takes_over(reraise: bool) -> None:
    retry = tenacity.retry(
        stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_none(), sleep=lambda seconds: None, reraise=reraise
    )
    store, below = made(BEFORE, AFTER, only=("put",), retry=retry)
    store.put("one", b"1", expect=ABSENT)
    assert store.read("one") == b"1"
    asked = len(below.calls)
    with pytest.raises(ObjectNotFound):  # an answer is no failure: it is not asked for three times
        store.head("nobody")
    assert len(below.calls) == asked + 1
    with pytest.raises(ObjectConflict):
        store.put("one", b"2", expect=ABSENT)
    below.down = True
    with pytest.raises(StorageUnavailable):
        store.read("one")
    assert [call for call, _ in below.calls].count("get") == 4
    assert waits(store) == []


def test_any_decorator_will_do() -> None:
    def twice(call: Callable[[], Any]) -> Callable[[], Any]:
        def wrapped() -> Any:
            try:
                return call()
            except StorageUnavailable:
                return call()

        return wrapped

    store, _ = made(BEFORE, retry=twice)
    assert store.put("one", b"1").size == 1


def test_wrong_numbers_and_wrong_orders_are_refused() -> None:
    for wrong in ({"tries": 0}, {"deadline_s": 0}, {"first_s": 3, "most_s": 2}, {"first_s": -1}):
        with pytest.raises(StorageRefused):
            Retrying(MemoryStore(), **wrong)
    with pytest.raises(StorageRefused):
        Retrying(Retrying(MemoryStore()))
    with pytest.raises(StorageRefused):
        Retrying(Fallback(MemoryStore(), MemoryStore()))
    with pytest.raises(StorageRefused, match=WRITE_ID):
        Retrying(MemoryStore()).put("one", b"1", metadata={WRITE_ID: "x"})

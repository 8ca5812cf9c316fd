"""A store that ignores conditions keeps every law once another one arbitrates for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import ObjectConflict, StorageRefused, StorageUnavailable
from holdfast.objects import ABSENT, Arbitrated, MemoryStore, ObjectInfo, ObjectStore, open_store
from holdfast.objects.cloud.arbitrated import BODIES
from holdfast.objects.port import CREATE, SWAP, SWAP_DELETE, Content
from holdfast.testing.objects import Basic, Conditions, Listing, Names, Ranges
from holdfast.testing.objects_many import Races
from tests.services_cloud import Rclone, shared_rclone


class OverRclone:
    """How it is made: bodies on a server that ignores preconditions, keys in memory."""

    SHARED = False

    def make(self, directory: Path) -> ObjectStore:
        rclone = shared_rclone()
        large = open_store(f"s3://{rclone.bucket()}", **rclone.options)
        assert {CREATE, SWAP} <= large.lacks
        store = Arbitrated(large, by=MemoryStore())
        assert not {CREATE, SWAP, SWAP_DELETE} & store.lacks
        return store


class TestArbitratedBasic(OverRclone, Basic): ...


class TestArbitratedRanges(OverRclone, Ranges): ...


class TestArbitratedNames(OverRclone, Names): ...


class TestArbitratedListing(OverRclone, Listing): ...


class TestArbitratedConditions(OverRclone, Conditions): ...


class TestArbitratedRaces(OverRclone, Races):
    ROUNDS = 6


class Ending(MemoryStore):
    """An arbiter whose caller dies before, or after, it has decided."""

    when = ""

    def put(self, key: str, data: Any, **options: Any) -> ObjectInfo:
        if self.when == "before":
            raise SystemExit
        info = super().put(key, data, **options)
        if self.when == "after":
            raise StorageUnavailable("the answer was lost")
        return info


@contextlib.contextmanager
def both() -> Iterator[tuple[MemoryStore, Ending, Arbitrated]]:
    """The two stores, and the one over them."""
    large, small = MemoryStore(), Ending()
    with Arbitrated(large, by=small) as store:
        yield large, small, store


def test_a_lost_answer_of_the_arbiter_loses_no_body() -> None:
    with both() as (large, small, store):
        small.when = "after"
        with pytest.raises(StorageUnavailable):
            store.put("one", b"1", expect=ABSENT)
        small.when = ""
        assert store.sweep(older_s=0) == 0
        assert store.read("one") == b"1"
        with pytest.raises(ObjectConflict):
            store.put("one", b"2", expect=ABSENT)
        assert len(list(large.list(BODIES))) == 1


def test_what_a_dead_writer_left_is_swept_and_nothing_else() -> None:
    with both() as (large, small, store):
        store.put("one", b"1")
        large.put(f"{BODIES}left", b"by a writer who died between his two steps")
        assert store.sweep() == 0  # he may be alive: it is not a day old
        assert store.sweep(older_s=0) == 1
        assert store.read("one") == b"1"
        small.when = "before"
        with pytest.raises(SystemExit):
            store.put("one", b"2")
        assert store.read("one") == b"1"


def test_an_arbiter_must_have_what_it_gives(rclone: Rclone) -> None:
    with open_store(f"s3://{rclone.bucket()}", **rclone.options) as plain, pytest.raises(StorageRefused, match="lacks"):
        Arbitrated(MemoryStore(), by=plain)


def test_a_body_that_nobody_began_to_read_is_closed_too() -> None:
    """What closes it must not wait for the first piece: a generator that never began has no end."""
    closed: list[str] = []

    class Noting(MemoryStore):
        def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
            content = super().get(key, start=start, stop=stop)
            content.close = lambda: closed.append(key)  # type: ignore[method-assign]
            return content

    with Arbitrated(Noting(), by=MemoryStore()) as store:
        store.put("k", b"1")
        store.get("k").close()
        with store.get("k") as content:
            assert content.read() == b"1"
    assert len(closed) == 2

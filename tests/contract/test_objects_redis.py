"""Redis, a real one, keeps the laws of object stores."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.errors import ObjectCorrupt, StorageDenied, StorageFull, StorageRefused, StorageUnavailable
from holdfast.objects import ABSENT, RedisStore, open_store
from holdfast.objects.port import DURABLE
from holdfast.testing.objects import Basic, Conditions, Listing, Names, Ranges
from holdfast.testing.objects_many import Forks, Races
from tests.services import Redis as Server
from tests.services import shared_redis


class Redis:
    """How it is made."""

    def make(self, directory: Path) -> RedisStore:
        return RedisStore(shared_redis().address, prefix=f"{directory}:")


class TestRedisBasic(Redis, Basic): ...


class TestRedisRanges(Redis, Ranges): ...


class TestRedisNames(Redis, Names): ...


class TestRedisListing(Redis, Listing): ...


class TestRedisConditions(Redis, Conditions): ...


class TestRedisRaces(Redis, Races): ...


class TestRedisForks(Redis, Forks): ...


LARGE = 6 << 20


def large(number: int) -> bytes:
    """A body of many chunks that says whose it is in every byte."""
    return bytes([number]) * LARGE


@pytest.fixture
def own() -> Iterator[Server]:
    """A server that keeps what it is told, to stop and to start."""
    server = Server("--appendonly", "yes", "--appendfsync", "always")
    yield server
    server.close()


def test_a_reader_goes_on_with_the_object_that_it_began(own: Server) -> None:
    import redis

    with (
        RedisStore(own.address) as store,
        RedisStore(own.address) as other,
        redis.Redis.from_url(own.address) as direct,
    ):
        store.put("one", large(1))
        with store.get("one") as begun, store.get("one", start=LARGE - 10) as tail:
            first = next(iter(begun))
            other.put("one", large(2))
            other.delete("one")
            other.put("one", large(3))
            assert first + begun.read() == large(1)
            assert tail.read() == large(1)[-10:]
        assert store.read("one") == large(3)
        bodies = direct.keys("holdfast:objects:c:*")
        kept = [name for name in bodies if direct.ttl(name) < 0]
        assert (len(bodies), len(kept)) == (3, 1), "what was replaced expires, what is named does not"
        stream = iter(store.get("one"))
        next(stream)
        direct.delete(kept[0])
        with pytest.raises(ObjectCorrupt):
            list(stream)
        stream = iter(store.get("one"))
        store.put("one", b"small")
        with pytest.raises(StorageUnavailable, match="replaced while it was read"):
            list(stream)


def test_a_source_that_breaks_leaves_nothing_behind(own: Server) -> None:
    import redis

    def broken() -> Iterator[bytes]:
        yield large(1)
        raise RuntimeError("the source broke")

    with RedisStore(own.address) as store, redis.Redis.from_url(own.address) as direct:
        with pytest.raises(RuntimeError):
            store.put("one", broken())
        assert direct.keys("*") == []
        store.put("one", large(1))
        store.delete("one")
        assert [direct.ttl(name) > 0 for name in direct.keys("*")] == [True], "only a body that expires"


def test_it_works_again_when_the_server_does(own: Server) -> None:
    with RedisStore(own.address) as store:
        store.put("one", large(1))
        own.stop()
        for call in (lambda: store.put("two", b"2"), lambda: store.read("one"), lambda: list(store.list())):
            with pytest.raises(StorageUnavailable):
                call()
        assert not store.health().ok
        own.start()
        store.put("two", b"2")
        own.stop(signal.SIGKILL)
        own.start()
        store.put("three", b"3", expect=ABSENT)
        assert (store.read("one"), store.read("two"), store.read("three")) == (large(1), b"2", b"3")
        assert (store.health().ok, store.lacks) == (True, frozenset())
        assert "appendfsync always" in store.health().note


def test_how_safe_a_put_is_is_said_and_not_guessed(own: Server) -> None:
    import redis

    with redis.Redis.from_url(own.address) as direct:
        direct.config_set("appendfsync", "everysec")
        with RedisStore(own.address) as store:
            assert store.lacks == {DURABLE}
            assert "everysec" in store.health().note
        direct.config_set("appendfsync", "always")
        direct.config_set("maxmemory", "1gb")
        direct.config_set("maxmemory-policy", "allkeys-lru")
        with RedisStore(own.address) as store:
            assert store.lacks == {DURABLE}
            assert "throws objects away" in store.health().note
        direct.execute_command("ACL", "SETUSER", "ada", "on", ">right-one", "~*", "+@all", "-config")
    with RedisStore(own.address.replace("unix://", "unix://ada:right-one@")) as store:
        assert store.lacks == {DURABLE}
        assert "not known" in store.health().note
        assert "right-one" not in f"{store!r} {store.health()}"


def test_who_may_not_is_denied_and_no_password_is_shown(own: Server) -> None:
    import redis

    with redis.Redis.from_url(own.address) as direct:
        direct.execute_command("ACL", "SETUSER", "ada", "on", ">right-one", "~*", "+@read", "+@connection", "+ping")
    for user, password in (("ada", "wrong-one"), ("nobody", "wrong-one")):
        with pytest.raises(StorageDenied) as denied:
            RedisStore(own.address.replace("unix://", f"unix://{user}:{password}@"))
        assert password not in f"{denied.value} {denied.value.hint}"
    with RedisStore(own.address.replace("unix://", "unix://ada:right-one@")) as store:
        assert list(store.list()) == []
        with pytest.raises(StorageDenied):
            store.put("one", b"1")
    for wrong in ("redis://:se@cret@host:x/", "http://cret/", "redis://h:1/0?decode_responses=True"):
        with pytest.raises(StorageRefused) as refused:
            RedisStore(wrong)
        assert "cret" not in f"{refused.value} {refused.value.hint}"
    for nobody in ("redis://127.0.0.1:1/0", "rediss://127.0.0.1:1/0"):
        with pytest.raises(StorageUnavailable):
            open_store(nobody)


def test_a_full_server_says_so_and_keeps_what_was_there(own: Server) -> None:
    import redis

    with RedisStore(own.address) as store, redis.Redis.from_url(own.address) as direct:
        store.put("one", b"before")
        used = int(direct.info("memory")["used_memory"])
        direct.config_set("maxmemory", used + (2 << 20))
        with pytest.raises(StorageFull):
            store.put("one", large(1))
        direct.config_set("maxmemory", 1)
        with pytest.raises(StorageFull):
            store.put("one", b"after")
        assert store.read("one") == b"before"
        assert store.delete("one") is True

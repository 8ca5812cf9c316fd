"""Redis, a real one, keeps the laws of object stores."""

from __future__ import annotations

from pathlib import Path

from holdfast.objects import RedisStore
from holdfast.testing.objects import Basic, Conditions, Listing, Names, Ranges
from holdfast.testing.objects_many import Forks, Races
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

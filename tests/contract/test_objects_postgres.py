"""PostgreSQL, a real one, keeps the laws of object stores."""

from __future__ import annotations

import functools
from pathlib import Path

from holdfast.objects import PostgresStore
from holdfast.testing.objects import Basic, Conditions, Listing, Names, Ranges
from holdfast.testing.objects_many import Forks, Races
from tests.services import shared_postgres


@functools.cache
def address(directory: Path) -> str:
    """The database that belongs to a directory."""
    return shared_postgres().database()


class Postgres:
    """How it is made."""

    def make(self, directory: Path) -> PostgresStore:
        return PostgresStore(address(directory))


class TestPostgresBasic(Postgres, Basic): ...


class TestPostgresRanges(Postgres, Ranges): ...


class TestPostgresNames(Postgres, Names): ...


class TestPostgresListing(Postgres, Listing): ...


class TestPostgresConditions(Postgres, Conditions): ...


class TestPostgresRaces(Postgres, Races): ...


class TestPostgresForks(Postgres, Forks): ...

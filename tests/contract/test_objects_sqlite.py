"""SQLite keeps the laws of object stores."""

from __future__ import annotations

from pathlib import Path

from holdfast.objects import SqliteStore
from holdfast.testing.objects import Basic, Conditions, Listing, Names, Ranges
from holdfast.testing.objects_many import Forks, Races


class Sqlite:
    """How it is made."""

    def make(self, directory: Path) -> SqliteStore:
        return SqliteStore(directory / "objects.db")


class TestSqliteBasic(Sqlite, Basic): ...


class TestSqliteRanges(Sqlite, Ranges): ...


class TestSqliteNames(Sqlite, Names): ...


class TestSqliteListing(Sqlite, Listing): ...


class TestSqliteConditions(Sqlite, Conditions): ...


class TestSqliteRaces(Sqlite, Races): ...


class TestSqliteForks(Sqlite, Forks): ...

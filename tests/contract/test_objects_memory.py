"""Memory keeps the laws of object stores."""

from __future__ import annotations

from pathlib import Path

from holdfast.objects import MemoryStore
from holdfast.testing.objects import Basic, Conditions, Listing, Names, Ranges
from holdfast.testing.objects_many import Races


class Memory:
    """How it is made."""

    SHARED = False

    def make(self, directory: Path) -> MemoryStore:
        return MemoryStore()


class TestMemoryBasic(Memory, Basic): ...


class TestMemoryRanges(Memory, Ranges): ...


class TestMemoryNames(Memory, Names): ...


class TestMemoryListing(Memory, Listing): ...


class TestMemoryConditions(Memory, Conditions): ...


class TestMemoryRaces(Memory, Races): ...

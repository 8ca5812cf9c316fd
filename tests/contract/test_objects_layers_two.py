"""The layers that repeat, watch or keep a second store are object stores: each keeps every law."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import ClassVar

import pytest

from holdfast.objects import AuditFile, MemoryStore, open_store, opening
from holdfast.objects.layers import Audited, Fallback, Logged, Metered, Mirrored, Retrying
from holdfast.objects.port import ObjectStore
from holdfast.testing.faults import AFTER, BEFORE, MIDWAY, OK, FaultyStore
from holdfast.testing.objects import Basic, Conditions, Listing, Names, Ranges
from holdfast.testing.objects_many import Forks, Races
from tests.unit.objects_tools import Instant


class Most(Basic, Ranges, Names, Listing, Conditions, Races):
    """All aspects that a store in memory can be held to."""

    SHARED: ClassVar[bool] = False
    THREADS: ClassVar[int] = 8
    ROUNDS: ClassVar[int] = 12


def failing(*spared: str) -> ObjectStore:
    """Over a store of which every third call fails, in turn before its effect, after it and midway."""
    turn = 0

    def plan(operation: str, key: str) -> str:
        nonlocal turn
        turn += 1
        if turn % 3 or operation in spared:
            return OK
        # The reader's race counts on bytes that come as one piece; what breaks midway has tests of its own.
        return (BEFORE, AFTER, MIDWAY if operation == "list" else BEFORE)[turn // 3 % 3]

    store = Retrying(FaultyStore(MemoryStore(), plan), tries=50, deadline_s=1e9)
    store.pace = Instant()
    return store


class TestRetrying(Basic, Ranges, Names, Listing):
    SHARED: ClassVar[bool] = False

    def make(self, directory: Path) -> ObjectStore:
        return failing()


class TestRetryingUnderConditions(Conditions, Races):
    """Puts are spared: with them the layer may have to say that nobody knows, which has tests of its own."""

    SHARED: ClassVar[bool] = False
    THREADS: ClassVar[int] = 8
    ROUNDS: ClassVar[int] = 12

    def make(self, directory: Path) -> ObjectStore:
        return failing("put")


class TestFallback(Most):
    def make(self, directory: Path) -> ObjectStore:
        return Fallback(MemoryStore(), MemoryStore())


class TestMirrored(Most):
    def make(self, directory: Path) -> ObjectStore:
        return Mirrored(MemoryStore(), MemoryStore())


class TestMirroredAhead(Most):
    def make(self, directory: Path) -> ObjectStore:
        return Mirrored(MemoryStore(), MemoryStore(), ahead=True)


class TestMirroredWithoutAMirror(Most):
    """The mirror never answers: every write is noted, and all laws hold."""

    def make(self, directory: Path) -> ObjectStore:
        mirror = FaultyStore(MemoryStore())
        mirror.down = True
        return Mirrored(MemoryStore(), mirror, pause_s=0.0)


class TestAudited(Most):
    def make(self, directory: Path) -> ObjectStore:
        return Audited(MemoryStore(), lambda event: None, reads=True)


class TestMetered(Most):
    def make(self, directory: Path) -> ObjectStore:
        return Metered(MemoryStore())


class TestLogged(Most):
    def make(self, directory: Path) -> ObjectStore:
        return Logged(MemoryStore(), logging.getLogger("holdfast.tests.objects"))


class OnDisk(Basic, Ranges, Names, Listing, Conditions, Forks):
    """Over a store that processes share and that is there after opening again."""

    ADDRESS: ClassVar[str]

    def below(self, directory: Path, name: str) -> ObjectStore:
        if self.ADDRESS.partition(":")[0] not in opening._OPENERS:
            pytest.skip(f"no store is addressed by {self.ADDRESS} yet")
        directory.mkdir(parents=True, exist_ok=True)
        return open_store(self.ADDRESS.format(directory / name))

    def make(self, directory: Path) -> ObjectStore:
        pair = Mirrored(Retrying(self.below(directory, "first")), self.below(directory, "mirror"))
        store = Fallback(pair, self.below(directory, "fallback"))
        return Audited(Metered(Logged(store)), AuditFile(directory / "audit.jsonl"))


class TestAllOfThemOnFiles(OnDisk):
    ADDRESS = "file:{}"


class TestAllOfThemInSQLite(OnDisk):
    ADDRESS = "sqlite:{}.db"


class TestAllOfThem(Basic, Conditions):
    SHARED: ClassVar[bool] = False

    def make(self, directory: Path) -> ObjectStore:
        pair = Fallback(Mirrored(Retrying(MemoryStore()), MemoryStore()), MemoryStore())
        return Audited(Metered(Logged(pair)), AuditFile(directory / "audit.jsonl"))

"""Every layer keeps the laws of object stores, alone and with others, over stores that know more or less."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from holdfast.objects import MemoryStore, open_store, opening
from holdfast.objects.layers import Cached, Compressed, Layer, Limited, Sealed
from holdfast.objects.layers.limited import Quotas
from holdfast.objects.port import TYPE, ObjectInfo, ObjectStore
from holdfast.seal import KeyRing
from holdfast.testing.objects import Basic, Conditions, Listing, Names, Ranges
from holdfast.testing.objects_many import Forks, Races

RING = KeyRing({"k1": bytes(range(32))})
AMPLE = Quotas(objects_max=10_000, bytes_max=1 << 30, object_bytes_max=1 << 28)


class Dim(Layer):
    """A store whose listings know no types and no metadata, as those of the clouds."""

    lists_all = False  # type: ignore[assignment]

    def list(self, prefix: str = "", *, after: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        for info in self.inner.list(prefix, after=after, limit=limit):
            yield msgspec.structs.replace(info, content_type=TYPE, metadata={})


class Most(Basic, Ranges, Names, Listing, Conditions, Races):
    """All aspects that a store in memory can be held to."""

    SHARED: ClassVar[bool] = False
    THREADS: ClassVar[int] = 8
    ROUNDS: ClassVar[int] = 12


class TestLayer(Most):
    def make(self, directory: Path) -> ObjectStore:
        return Layer(MemoryStore())


class TestSealed(Most):
    def make(self, directory: Path) -> ObjectStore:
        return Sealed(MemoryStore(), RING, context="mine")


class TestCompressed(Most):
    def make(self, directory: Path) -> ObjectStore:
        return Compressed(MemoryStore(), least=1, saves=0)


class TestCompressedOverWhatListsLess(Most):
    def make(self, directory: Path) -> ObjectStore:
        return Compressed(Dim(MemoryStore()))


class TestCompressedReadingGzip(Most):
    def make(self, directory: Path) -> ObjectStore:
        return Compressed(MemoryStore(), gzip=True)


class TestCached(Most):
    def make(self, directory: Path) -> ObjectStore:
        return Cached(MemoryStore())


class TestCachedAndChecked(Most):
    def make(self, directory: Path) -> ObjectStore:
        return Cached(MemoryStore(), check=True, bytes_max=100_000)


class TestLimited(Most):
    def make(self, directory: Path) -> ObjectStore:
        return Limited(MemoryStore(), AMPLE)


class TestAllOfThem(Most):
    def make(self, directory: Path) -> ObjectStore:
        return Limited(Cached(Compressed(Sealed(Dim(MemoryStore()), RING))), AMPLE)


class OnDisk(Basic, Ranges, Names, Listing, Conditions, Races, Forks):
    """All aspects, over a store that processes share and that is there after opening again."""

    ADDRESS: ClassVar[str]
    THREADS: ClassVar[int] = 8
    ROUNDS: ClassVar[int] = 8

    def below(self, directory: Path) -> ObjectStore:
        if self.ADDRESS.partition(":")[0] not in opening._OPENERS:
            pytest.skip(f"no store is addressed by {self.ADDRESS} yet")
        directory.mkdir(parents=True, exist_ok=True)
        return open_store(self.ADDRESS.format(directory))

    def make(self, directory: Path) -> ObjectStore:
        # What two processes cache, each of them may see late: it is checked here.
        return Limited(Cached(Compressed(Sealed(self.below(directory), RING)), check=True), AMPLE)


class TestAllOfThemOnFiles(OnDisk):
    ADDRESS = "file:{}/objects"


class TestAllOfThemInSQLite(OnDisk):
    ADDRESS = "sqlite:{}/objects.db"

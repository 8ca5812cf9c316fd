"""Files keep the laws of object stores, with extended attributes and without, and whatever the names are like."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from holdfast.objects.files.store import FileStore
from holdfast.testing.objects import Basic, Conditions, Listing, Names, Ranges
from holdfast.testing.objects_many import Forks, Races


class Files:
    """How it is made; beside `directory`, for the contract keeps files of its own there."""

    OPTIONS: ClassVar[dict[str, Any]] = {}

    def make(self, directory: Path) -> FileStore:
        return FileStore(directory / "objects", **self.OPTIONS)


class Sidecars(Files):
    OPTIONS: ClassVar[dict[str, Any]] = {"attributes": False}


class Plain(Files):
    OPTIONS: ClassVar[dict[str, Any]] = {"names": "plain"}


class Folded(Files):
    OPTIONS: ClassVar[dict[str, Any]] = {"folding": True}


class TestFileBasic(Files, Basic): ...


class TestFileRanges(Files, Ranges): ...


class TestFileNames(Files, Names): ...


class TestFileListing(Files, Listing): ...


class TestFileConditions(Files, Conditions): ...


class TestFileRaces(Files, Races): ...


class TestFileForks(Files, Forks): ...


class TestSidecarBasic(Sidecars, Basic): ...


class TestSidecarRanges(Sidecars, Ranges): ...


class TestSidecarNames(Sidecars, Names): ...


class TestSidecarListing(Sidecars, Listing): ...


class TestSidecarConditions(Sidecars, Conditions): ...


class TestSidecarRaces(Sidecars, Races): ...


class TestSidecarForks(Sidecars, Forks): ...


class TestPlainBasic(Plain, Basic): ...


class TestPlainNames(Plain, Names): ...


class TestPlainListing(Plain, Listing): ...


class TestPlainConditions(Plain, Conditions): ...


class TestFoldedNames(Folded, Names): ...


class TestFoldedListing(Folded, Listing): ...

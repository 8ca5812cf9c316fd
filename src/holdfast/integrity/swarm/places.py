"""The directory of a storage: which type it has, and how its log is opened."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.disk import sync_directory
from holdfast.errors import UsageError
from holdfast.integrity.swarm.logged import LogShelf
from holdfast.integrity.swarm.shelf import Blobs
from holdfast.integrity.swarm.words import StorageType
from holdfast.log import level
from holdfast.objects.blobs.files import BlobFiles
from holdfast.objects.blobs.stored import StoredBlobs
from holdfast.objects.sqlite import SqliteStore

LOG: Final = "log"
_ABOUT: Final = "storage.json"


class _About(msgspec.Struct):
    format: int
    storage_type: str


class DatabaseBlobs(StoredBlobs):
    """Large values in SQLite: each is proven in a directory beside it, then brought over before `put` returns."""

    def put(self, source: Any, *, expect: bytes | None = None) -> tuple[bytes, int]:
        """Stores a blob; when it returns, the blob is in the database. Its digest and size."""
        found = super().put(source, expect=expect)
        self.move()
        return found

    def close(self) -> None:
        """Closes the database."""
        self.store.close()


def opened_log(path: Path, home: str, kind: StorageType, name: str) -> LogShelf:
    """The log of a storage that has one.

    Args:
        path: the storage's directory.
        home: the log's name there.
        kind: DATABASE or HYBRID.
        name: the level's.
    """
    blobs: Blobs = BlobFiles(path / "blobs")
    if kind is StorageType.DATABASE:
        (path / "large").mkdir(mode=0o700, exist_ok=True)
        blobs = DatabaseBlobs(SqliteStore(path / "large" / "large.db"), BlobFiles(path / "large" / "in"))
    if (path / f"{home}.new").exists() and not (path / home).exists():
        os.rename(path / f"{home}.new", path / home)  # a rebuilding was cut off between its two last steps
    return LogShelf(path / home, blobs, level(name))


def settled(path: Path, asked: StorageType | None) -> StorageType:
    """The storage type of a directory, which is written down when it is made.

    Raises:
        UsageError: it holds another type, or what is written there says none.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    about = path / _ABOUT
    try:
        found = msgspec.json.decode(about.read_bytes(), type=_About)
        there = StorageType(found.storage_type)
    except FileNotFoundError:
        there = asked or StorageType.HYBRID
        partial = path / f".{_ABOUT}.{os.getpid()}"
        partial.write_bytes(msgspec.json.encode(_About(1, there.value)) + b"\n")
        os.replace(partial, about)
        sync_directory(path)
    except (msgspec.DecodeError, ValueError) as error:
        raise UsageError(f"{about} says nothing of a storage: {error}", hint="such as " + _EXAMPLE) from error
    if asked not in (None, there):
        raise UsageError(
            f"{path} holds a storage of type {there.value}", hint="give another one a directory of its own"
        )
    return there


_EXAMPLE: Final = '{"format":1,"storage_type":"hybrid"}'

"""Stores of named bytes on this machine's disk, and the floors below them."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.harness import Missing
from bench.neighbours.local import Contestant

FOLDER = "objects"
"""The beginning of every key: one directory, where keys are paths."""


class Objects(Contestant):
    """Puts, gets and lists bytes by key."""

    @abstractmethod
    def put(self, key: str, body: bytes) -> Any:
        """Stores an object."""

    @abstractmethod
    def get(self, key: str) -> Any:
        """An object's bytes."""

    def list(self) -> Any:
        """All keys below `FOLDER`, with what the same answer says of them."""
        raise NotImplementedError

    def listed(self, found: Any) -> list[str]:
        """The keys of a listing, sorted."""
        return sorted(found)


class Files(Objects):
    """``open().write()``, ``open().read()`` and ``scandir``: the least that can be done."""

    def __init__(self, folder: Path) -> None:
        self._root = str(folder / "files")
        os.makedirs(f"{self._root}/{FOLDER}")

    def put(self, key: str, body: bytes) -> None:
        """In place."""
        with open(f"{self._root}/{key}", "wb", buffering=0) as file:
            file.write(body)

    def get(self, key: str) -> bytes:
        """All of it."""
        with open(f"{self._root}/{key}", "rb", buffering=0) as file:
            return file.read()

    def list(self) -> list[tuple[str, int]]:
        """Names and sizes, in order."""
        with os.scandir(f"{self._root}/{FOLDER}") as entries:
            return sorted((entry.name, entry.stat().st_size) for entry in entries)

    def listed(self, found: Any) -> list[str]:
        """Names are below the directory."""
        return [f"{FOLDER}/{name}" for name, _ in found]

    def close(self) -> None:
        """Nothing is held."""


class SyncedFiles(Files):
    """The least that leaves an object whole after a power cut: two syncs."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._unfinished = f"{self._root}/unfinished"

    def put(self, key: str, body: bytes) -> None:
        """A file beside it, fsync, rename, fsync of the directory."""
        path = f"{self._root}/{key}"
        fd = os.open(self._unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            view = memoryview(body)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(self._unfinished, path)
        fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


class Inserts(Objects):
    """A bare INSERT, as DiskStore's durability has it: WAL, synchronous=NORMAL. The floor of stores on SQLite."""

    def __init__(self, folder: Path) -> None:
        import apsw

        self._connection = apsw.Connection(str(folder / "inserts.db"))
        for setting in ("journal_mode=WAL", "synchronous=NORMAL"):
            self._connection.execute("PRAGMA " + setting).fetchall()
        self._connection.execute("CREATE TABLE object (key TEXT NOT NULL UNIQUE, body BLOB NOT NULL)")

    def put(self, key: str, body: bytes) -> None:
        """In place of what is there."""
        sql = "INSERT INTO object VALUES (?, ?) ON CONFLICT DO UPDATE SET body = excluded.body"
        self._connection.execute(sql, (key, body))

    def get(self, key: str) -> bytes:
        """One SELECT."""
        found: bytes = self._connection.execute("SELECT body FROM object WHERE key = ?", (key,)).get
        return found

    def list(self) -> list[tuple[str, int]]:
        """Keys and sizes, in order."""
        return self._connection.execute("SELECT key, length(body) FROM object ORDER BY key").fetchall()

    def listed(self, found: Any) -> list[str]:
        """In order."""
        return [key for key, _ in found]

    def close(self) -> None:
        """Ends it."""
        self._connection.close()


class Ours(Objects):
    """An object store of ours."""

    def __init__(self, address: str, **options: Any) -> None:
        from holdfast.errors import MissingExtra
        from holdfast.objects import open_store

        try:
            self._store = open_store(address, **options)
        except MissingExtra as absent:
            raise Missing(str(absent)) from absent

    def put(self, key: str, body: bytes) -> None:
        """Whatever is there."""
        self._store.put(key, body)

    def get(self, key: str) -> bytes:
        """All of it."""
        return self._store.read(key)

    def list(self) -> list[Any]:
        """In order."""
        return list(self._store.list(f"{FOLDER}/"))

    def listed(self, found: Any) -> list[str]:
        """They come in order, or it is no listing."""
        return [info.key for info in found]

    def close(self) -> None:
        """Ends it."""
        self._store.close()


def ours_on_files(folder: Path) -> Ours:
    """Files that people can read."""
    return Ours(f"file:{folder / 'tree'}")


def ours_on_sqlite(folder: Path) -> Ours:
    """One SQLite file, synced before a put returns."""
    return Ours(f"sqlite:{folder / 'objects.db'}")


def ours_on_sqlite_unsynced(folder: Path) -> Ours:
    """One SQLite file, synced now and then."""
    return Ours(f"sqlite:{folder / 'objects.db'}", durable=False)


class ObstoreObjects(Objects):
    """A store of obstore's."""

    def __init__(self, store: Any) -> None:
        import obstore

        self._driver, self._store = obstore, store

    def put(self, key: str, body: bytes) -> None:
        """Whatever is there."""
        self._driver.put(self._store, key, body)

    def get(self, key: str) -> bytes:
        """All of it."""
        return bytes(self._driver.get(self._store, key).bytes())

    def list(self) -> list[Any]:
        """In the order of the system below."""
        return [meta for page in self._driver.list(self._store, f"{FOLDER}/") for meta in page]

    def listed(self, found: Any) -> list[str]:
        """By path."""
        return sorted(meta["path"] for meta in found)

    def close(self) -> None:
        """Nothing to end."""


class ObstoreFiles(ObstoreObjects):
    """obstore's LocalStore: a rename, and no sync at all."""

    def __init__(self, folder: Path) -> None:
        from obstore.store import LocalStore

        super().__init__(LocalStore(folder / "obstore", mkdir=True))


class FsspecFiles(Objects):
    """fsspec's LocalFileSystem."""

    def __init__(self, folder: Path) -> None:
        import fsspec

        self._files = fsspec.filesystem("file", auto_mkdir=True)
        self._root = str(folder / "fsspec")

    def put(self, key: str, body: bytes) -> None:
        """In place."""
        self._files.pipe_file(f"{self._root}/{key}", body)

    def get(self, key: str) -> bytes:
        """All of it."""
        found: bytes = self._files.cat_file(f"{self._root}/{key}")
        return found

    def list(self) -> list[str]:
        """With sizes and times, as the others."""
        return list(self._files.find(f"{self._root}/{FOLDER}", detail=True))

    def listed(self, found: Any) -> list[str]:
        """Whole paths."""
        return sorted(path[len(self._root) + 1 :] for path in found)

    def close(self) -> None:
        """Nothing to end."""


OBSTORE, FSSPEC = "obstore LocalStore", "fsspec file"
SYNCED, FILES = "files: temp, write, fsync, rename, fsync", "files: open().write()"
INSERTS = "bare INSERT, WAL, synchronous=NORMAL"
OURS, OURS_SQLITE, OURS_UNSYNCED = "holdfast file", "holdfast sqlite", "holdfast sqlite, durable=False"
# Who is compared stands side by side: a disk that lets only so much through is as slow for one as for the other.
STORES: dict[str, Callable[[Path], Objects]] = {
    SYNCED: SyncedFiles,
    OURS: ours_on_files,
    OURS_SQLITE: ours_on_sqlite,
    OURS_UNSYNCED: ours_on_sqlite_unsynced,
    FILES: Files,
    INSERTS: Inserts,
    OBSTORE: ObstoreFiles,
    FSSPEC: FsspecFiles,
}
SURVIVES = {
    SYNCED: "a power cut",
    FILES: "nothing: half of it may be there",
    INSERTS: "the process's end",
    OURS: "a power cut; proven when read",
    OURS_SQLITE: "a power cut; pages proven when read",
    OURS_UNSYNCED: "the process's end",
    OBSTORE: "the process's end",
    FSSPEC: "nothing: half of it may be there",
}

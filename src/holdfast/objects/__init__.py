"""Named bytes, on files, in SQLite, PostgreSQL, Redis, S3, Azure or memory, behind one port.

`ObjectStore` is the port, `open_store` the way in. A blob is an object named by its SHA-256; a node's and a hub's own
lie in `BlobFiles`. Names are looked up when first used: a node needs the blobs, and nothing of the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.objects.blobs import BlobFiles
from holdfast.objects.reading import BlobReader

if TYPE_CHECKING:
    from holdfast.errors import ObjectConflict, ObjectCorrupt, ObjectNotFound, StorageError
    from holdfast.objects.aio import AsyncObjectStore
    from holdfast.objects.backend import StorageBackend, StoreBackend
    from holdfast.objects.memory import MemoryStore
    from holdfast.objects.opening import open_store
    from holdfast.objects.port import ABSENT, Content, Health, ObjectInfo, ObjectStore
    from holdfast.objects.postgres_store import PostgresStore
    from holdfast.objects.redis import RedisStore
    from holdfast.objects.sqlite import SqliteStore

__all__ = [
    "ABSENT",
    "AsyncObjectStore",
    "BlobFiles",
    "BlobReader",
    "Content",
    "Health",
    "MemoryStore",
    "ObjectConflict",
    "ObjectCorrupt",
    "ObjectInfo",
    "ObjectNotFound",
    "ObjectStore",
    "PostgresStore",
    "RedisStore",
    "SqliteStore",
    "StorageBackend",
    "StorageError",
    "StoreBackend",
    "open_store",
]

# One line a module, so that two people who add to it do not meet.
_WHERE = {
    "holdfast.errors": ("ObjectConflict", "ObjectCorrupt", "ObjectNotFound", "StorageError"),
    "holdfast.objects.aio": ("AsyncObjectStore",),
    "holdfast.objects.backend": ("StorageBackend", "StoreBackend"),
    "holdfast.objects.memory": ("MemoryStore",),
    "holdfast.objects.opening": ("open_store",),
    "holdfast.objects.port": ("ABSENT", "Content", "Health", "ObjectInfo", "ObjectStore"),
    "holdfast.objects.postgres_store": ("PostgresStore",),
    "holdfast.objects.redis": ("RedisStore",),
    "holdfast.objects.sqlite": ("SqliteStore",),
}


def __getattr__(name: str) -> Any:
    where = next((module for module, names in _WHERE.items() if name in names), None)
    if where is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = getattr(import_module(where), name)
    globals()[name] = found
    return found

"""Named bytes, on files, in SQLite, PostgreSQL, Redis, S3, Azure or memory, behind one port.

`ObjectStore` is the port, `open_store` the way in. A blob is an object named by its SHA-256; a node's and a hub's own
lie in `BlobFiles`. Names are looked up when first used: a node needs the blobs, and nothing of the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.objects.blobs.files import BlobFiles
from holdfast.objects.blobs.reading import BlobReader

if TYPE_CHECKING:
    from holdfast.errors import ObjectConflict, ObjectCorrupt, ObjectNotFound, StorageError
    from holdfast.objects.aio import AsyncObjectStore
    from holdfast.objects.audit import AuditEvent, AuditFile, audit_log, audit_to, set_audit_sink
    from holdfast.objects.azure_door import AzureAccount
    from holdfast.objects.cloud.arbitrated import Arbitrated
    from holdfast.objects.cloud.store import CloudStore
    from holdfast.objects.faces.azure_backend import AzureStorageBackend
    from holdfast.objects.faces.backend import StorageBackend, StoreBackend
    from holdfast.objects.faces.batches import Batch
    from holdfast.objects.faces.config import StorageConfig
    from holdfast.objects.faces.embedded_backend import EmbeddedStorageBackend
    from holdfast.objects.faces.file_backend import FileStorageBackend
    from holdfast.objects.faces.s3_backend import S3StorageBackend
    from holdfast.objects.files.store import FileStore
    from holdfast.objects.manager import StorageManager
    from holdfast.objects.memory import MemoryStore
    from holdfast.objects.metrics import MetricsCollector
    from holdfast.objects.opening import open_store
    from holdfast.objects.port import ABSENT, Content, Health, ObjectInfo, ObjectStore
    from holdfast.objects.postgres_store import PostgresStore
    from holdfast.objects.queues.azure import AzureQueues
    from holdfast.objects.queues.port import QueueMessage, QueueStore
    from holdfast.objects.queues.sqlite import SqliteQueues
    from holdfast.objects.redis import RedisStore
    from holdfast.objects.sqlite import SqliteStore
    from holdfast.objects.tables.azure import AzureTables
    from holdfast.objects.tables.port import TableStore
    from holdfast.objects.tables.sqlite import SqliteTables
    from holdfast.objects.values.pickles import read_pickle
    from holdfast.objects.values.types import Types, register

__all__ = [
    "ABSENT",
    "Arbitrated",
    "AsyncObjectStore",
    "AuditEvent",
    "AuditFile",
    "AzureAccount",
    "AzureQueues",
    "AzureStorageBackend",
    "AzureTables",
    "Batch",
    "BlobFiles",
    "BlobReader",
    "CloudStore",
    "Content",
    "EmbeddedStorageBackend",
    "FileStorageBackend",
    "FileStore",
    "Health",
    "MemoryStore",
    "MetricsCollector",
    "ObjectConflict",
    "ObjectCorrupt",
    "ObjectInfo",
    "ObjectNotFound",
    "ObjectStore",
    "PostgresStore",
    "QueueMessage",
    "QueueStore",
    "RedisStore",
    "S3StorageBackend",
    "SqliteQueues",
    "SqliteStore",
    "SqliteTables",
    "StorageBackend",
    "StorageConfig",
    "StorageError",
    "StorageManager",
    "StoreBackend",
    "TableStore",
    "Types",
    "audit_log",
    "audit_to",
    "open_store",
    "read_pickle",
    "register",
    "set_audit_sink",
]

# One line a module, so that two people who add to it do not meet.
_WHERE = {
    "holdfast.objects.faces.azure_backend": ("AzureStorageBackend",),
    "holdfast.objects.azure_door": ("AzureAccount",),
    "holdfast.objects.faces.embedded_backend": ("EmbeddedStorageBackend",),
    "holdfast.objects.queues.azure": ("AzureQueues",),
    "holdfast.objects.queues.port": ("QueueMessage", "QueueStore"),
    "holdfast.objects.queues.sqlite": ("SqliteQueues",),
    "holdfast.objects.tables.azure": ("AzureTables",),
    "holdfast.objects.tables.port": ("TableStore",),
    "holdfast.objects.tables.sqlite": ("SqliteTables",),
    "holdfast.errors": ("ObjectConflict", "ObjectCorrupt", "ObjectNotFound", "StorageError"),
    "holdfast.objects.aio": ("AsyncObjectStore",),
    "holdfast.objects.faces.backend": ("StorageBackend", "StoreBackend"),
    "holdfast.objects.faces.batches": ("Batch",),
    "holdfast.objects.faces.config": ("StorageConfig",),
    "holdfast.objects.manager": ("StorageManager",),
    "holdfast.objects.files.store": ("FileStore",),
    "holdfast.objects.faces.file_backend": ("FileStorageBackend",),
    "holdfast.objects.audit": ("AuditEvent", "AuditFile", "audit_log", "audit_to", "set_audit_sink"),
    "holdfast.objects.cloud.arbitrated": ("Arbitrated",),
    "holdfast.objects.cloud.store": ("CloudStore",),
    "holdfast.objects.memory": ("MemoryStore",),
    "holdfast.objects.metrics": ("MetricsCollector",),
    "holdfast.objects.opening": ("open_store",),
    "holdfast.objects.port": ("ABSENT", "Content", "Health", "ObjectInfo", "ObjectStore"),
    "holdfast.objects.postgres_store": ("PostgresStore",),
    "holdfast.objects.redis": ("RedisStore",),
    "holdfast.objects.sqlite": ("SqliteStore",),
    "holdfast.objects.values.pickles": ("read_pickle",),
    "holdfast.objects.faces.s3_backend": ("S3StorageBackend",),
    "holdfast.objects.values.types": ("Types", "register"),
}


def __getattr__(name: str) -> Any:
    where = next((module for module, names in _WHERE.items() if name in names), None)
    if where is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = getattr(import_module(where), name)
    globals()[name] = found
    return found

"""From a stored record to what was put: checked, inflated, fetched."""

from __future__ import annotations

from typing import Any, Protocol

from holdfast import codec
from holdfast.corpus import Stored
from holdfast.errors import NotCached
from holdfast.records import BLOB, read_blob_reference


class BlobReader(Protocol):
    """Where blobs are read from."""

    def has(self, digest: bytes) -> bool:
        """Whether it is here."""
        ...

    def read(self, digest: bytes) -> bytes:
        """All bytes, proven to have this digest."""
        ...


class BlobStore(BlobReader, Protocol):
    """Where blobs are kept."""

    def put(self, source: bytes) -> tuple[bytes, int]:
        """Stores a blob that survives a power cut when this returns; its digest and size."""
        ...


def load(stored: Stored, blobs: BlobReader | None) -> Any:
    """The value that a record holds, proven to be what was recorded.

    Raises:
        IntegrityError: the bytes are not what was recorded, or are gone for good.
        NotCached: they are not on this machine.
    """
    payload = stored.payload()
    if stored.record.flags & BLOB:
        digest, size = read_blob_reference(payload)
        if blobs is None or not blobs.has(digest):
            raise NotCached(
                f"blob {digest.hex()} ({size} bytes) is not on this machine",
                hint="reach the hub and ask again",
                digest=digest.hex(),
            )
        payload = blobs.read(digest)
    return codec.deserialise(stored.record.fmt, payload)

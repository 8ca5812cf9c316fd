"""From a stored record to what was put: checked, inflated, fetched."""

from __future__ import annotations

from typing import Any, Protocol

from holdfast import codec
from holdfast.corpus import Stored
from holdfast.errors import NotCached, Sealed
from holdfast.records import BLOB, SEALED, read_blob_reference


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
        Erased: it was erased.
        IntegrityError: the bytes are not what was recorded.
        NotCached: they are not on this machine.
        Sealed: only who has its key can read it (`holdfast.log.sealing`).
    """
    record = stored.record
    if record.flags & SEALED and stored.body is not None:
        raise Sealed(
            f"{record.collection}/{record.key} seq {record.seq} of {stored.agent} is sealed with the key"
            f" {record.kid.hex()}",
            hint="read it with a store that has the key: holdfast keys import",
            kid=record.kid.hex(),
        )
    return codec.deserialise(record.fmt, bytes_of(stored, blobs))


def bytes_of(stored: Stored, blobs: BlobReader | None) -> bytes:
    """The serialised value, or the ciphertext of a sealed one, proven to be what was recorded.

    Raises:
        Erased: it was erased.
        IntegrityError: the bytes are not what was recorded.
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
    return payload

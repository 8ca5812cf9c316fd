"""A proven record as one that lies in a corpus, with its blob at the hub."""

from __future__ import annotations

from holdfast.corpus import Stored
from holdfast.node.proof import Proven
from holdfast.records import read_blob_reference
from holdfast.transport.blobs import fetch
from holdfast.transport.client import HubClient


class HubBlobs:
    """The blobs of one record, straight from the hub."""

    def __init__(self, client: HubClient, found: Proven) -> None:
        self._client = client
        self._found = found

    def has(self, digest: bytes) -> bool:
        """Whether it can be asked for."""
        return True

    def read(self, digest: bytes) -> bytes:
        """Its bytes, proven."""
        _, size = read_blob_reference(as_stored(self._found).payload())
        return fetch(self._client, digest, size)


def as_stored(found: Proven) -> Stored:
    """A proven record as one that lies in a corpus."""
    item = found.item
    return Stored(0, 0, found.agent, 0, found.record, item.salt, item.codec, item.body, item.why)

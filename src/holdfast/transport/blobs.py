"""Blobs to a hub and back, resumed where they broke off: at most a piece is sent twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from holdfast.errors import BlobCorrupt, HubUnavailable
from holdfast.objects import BlobFiles
from holdfast.transport.client import Answer, HubClient

PIECE_BYTES: Final = 4 << 20
CORRECTIONS_MAX: Final = 3


def upload(client: HubClient, blobs: BlobFiles, digest: bytes, stopping: Callable[[], bool]) -> Answer:
    """Brings a blob to the hub; returns its last answer, which is `ok` when the hub has the whole of it.

    Args:
        client: the hub.
        blobs: where it lies here.
        digest: its SHA-256.
        stopping: asked before each piece.

    Raises:
        NotFound: it is not here.
        BlobCorrupt: what is here does not have its digest.
        HubUnavailable: no answer, or `stopping` said so.
    """
    path, size = f"/v1/blobs/{digest.hex()}", blobs.size(digest)
    answer = client.ask("HEAD", path)
    if not answer.ok and (answer.status != 404 or not answer.gen):
        return answer
    at = min(int(answer.headers.get("Upload-Offset") or 0), size)
    if answer.ok and at >= size:  # else it is here and about to be removed: what refers to it wants it sent anew
        return answer
    corrections = 0
    while True:
        if stopping():
            raise HubUnavailable("the store is closing", kind="network")
        piece = blobs.read(digest, at, PIECE_BYTES, verify=False)
        headers = {"Content-Range": f"bytes {at}-{at + len(piece) - 1}/{size}", "Content-Encoding": "identity"}
        answer = client.ask("PUT", path, body=piece, headers=headers)
        if answer.status == 409 and answer.gen and corrections < CORRECTIONS_MAX:
            # Somebody else sends it too, or the hub kept less of it than we thought.
            corrections += 1
            at = min(int(answer.json()["error"]["context"]["offset"]), size)
            continue
        if answer.status == 422 and answer.gen and not blobs.verify(digest):
            raise BlobCorrupt(f"blob {digest.hex()} is not what it was", hint="holdfast verify", digest=digest.hex())
        if answer.status != 202 or not answer.ok:
            return answer
        at += len(piece)


def download(client: HubClient, blobs: BlobFiles, digest: bytes, size: int) -> None:
    """Fetches a blob into `blobs`, from where an earlier try broke off; proven before it counts.

    Raises:
        NotFound: the hub does not have it.
        BlobCorrupt: what it sent does not have the digest.
        HubUnavailable: no answer; what came is kept for the next try.
    """
    at = blobs.resume(digest)
    while at < size:
        piece = client.get_blob(digest, at, PIECE_BYTES)
        if not piece:
            raise BlobCorrupt(f"the hub's blob {digest.hex()} ends at {at} of {size} bytes", digest=digest.hex())
        at = blobs.append(digest, at, piece)
    blobs.finish(digest)


def fetch(client: HubClient, digest: bytes, size: int) -> bytes:
    """A blob's bytes, proven, for a reader who keeps nothing.

    Raises:
        NotFound: the hub does not have it.
        BlobCorrupt: what it sent does not have the digest.
        HubUnavailable: no answer.
    """
    parts, at = [], 0
    while at < size:
        piece = client.get_blob(digest, at, PIECE_BYTES)
        if not piece:
            break
        parts.append(piece)
        at += len(piece)
    data = b"".join(parts)
    if len(data) != size or hashlib.sha256(data).digest() != digest:
        raise BlobCorrupt(f"what the hub sent as blob {digest.hex()} is something else", digest=digest.hex())
    return data

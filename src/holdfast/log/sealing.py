"""Sealed payloads: from a draft to a sealed draft, and from a stored record to what was put.

    payload = nonce(12) ‖ AES-256-GCM(plain) ‖ tag(16)
    plain   = fmt u8 ‖ codec u8 ‖ length u64 ‖ key u16+ ‖ the packed value
    bound   = "hf/seal/1\\0" ‖ stream(16) ‖ kid(16) ‖ collection u16+ ‖ key of the header u16+

The header of a sealed record says format 0 and, for the key, an HMAC of it: neither the hub nor a search index can take
the payload for a value. What is bound are the fields that stay when a record is taken over from another branch: its
place in the log is proven by the chain, which covers the hash of the ciphertext (ADR 0034).
"""

from __future__ import annotations

import struct
from typing import Any, Final, Protocol

import msgspec

from holdfast import codec
from holdfast.corpus import Stored
from holdfast.errors import IntegrityError, Sealed
from holdfast.log.drafts import Draft
from holdfast.log.reading import BlobReader, bytes_of, load
from holdfast.records import INLINE_BYTES_MAX, SEALED

_BOUND: Final = b"hf/seal/1\0"
_HEAD: Final = struct.Struct(">BBQH")
PLAIN_MAX: Final = 256 << 20
"""A value that is sealed is held in memory as a whole."""


class Box(Protocol):
    """One data key; `holdfast.seal.box.Box` is the one."""

    @property
    def kid(self) -> bytes:
        """The 16 bytes that name it."""
        ...

    def seal(self, plain: bytes, bound: bytes) -> bytes:
        """Sealed bytes."""
        ...

    def open(self, sealed: bytes, bound: bytes) -> bytes:
        """What was sealed, or an IntegrityError."""
        ...


class Keys(Protocol):
    """Where data keys are found."""

    def box(self, kid: bytes) -> Box:
        """The key of this name.

        Raises:
            Sealed: it is not here.
        """
        ...


class Opened(msgspec.Struct, frozen=True):
    """What a sealed record holds: the name of its key, and the value as `codec` serialised it."""

    key: str
    fmt: int
    payload: bytes

    @property
    def value(self) -> Any:
        """What was put."""
        return codec.deserialise(self.fmt, self.payload)


def sealed(draft: Draft, box: Box, stream: bytes, name: str) -> Draft:
    """The draft with its payload sealed, under the name that its key has in the header."""
    key, payload = draft.key.encode(), draft.payload
    # Before the sealing, since nothing packs afterwards; a blob-sized value is kept as it is, as blobs are.
    packed = codec.pack(payload) if len(payload) <= INLINE_BYTES_MAX else (codec.RAW, payload)
    plain = _HEAD.pack(draft.fmt, packed[0], len(payload), len(key)) + key + packed[1]
    return msgspec.structs.replace(
        draft,
        key=name,
        fmt=codec.FMT_BYTES,
        payload=box.seal(plain, _bound(stream, box.kid, draft.collection, name)),
        flags=draft.flags | SEALED,
        kid=box.kid,
    )


def open_sealed(stored: Stored, blobs: BlobReader | None, keys: Keys | None) -> Opened:
    """What a sealed record holds.

    Raises:
        Sealed: its key is not here.
        Erased: the payload was erased.
        IntegrityError: the payload is not what was sealed here.
        NotCached: the payload is not on this machine.
    """
    record = stored.record
    where = f"{record.collection}/{record.key} seq {record.seq} of {stored.agent}"
    payload = bytes_of(stored, blobs)
    if keys is None:
        raise no_key(where, record.kid)
    box = keys.box(record.kid)
    plain = box.open(payload, _bound(record.stream, record.kid, record.collection, record.key))
    try:
        fmt, packing, size, width = _HEAD.unpack_from(plain)
        key = plain[_HEAD.size : _HEAD.size + width].decode()
    except (struct.error, UnicodeDecodeError) as error:
        raise IntegrityError(f"what is sealed in {where} has no known form: {error}", seq=record.seq) from error
    if size > PLAIN_MAX and packing != codec.RAW:
        raise IntegrityError(f"what is sealed in {where} claims {size} bytes", seq=record.seq)
    return Opened(key, fmt, codec.unpack(packing, plain[_HEAD.size + width :], size))


def value_in(stored: Stored, blobs: BlobReader | None, keys: Keys) -> Any:
    """The value that a record holds, sealed or not.

    Raises:
        Sealed, Erased, IntegrityError, NotCached: as `open_sealed` and `load` say.
    """
    return open_sealed(stored, blobs, keys).value if stored.record.flags & SEALED else load(stored, blobs)


def no_key(where: str, kid: bytes) -> Sealed:
    """The error of a record whose key is not here."""
    return Sealed(
        f"{where} is sealed with the key {kid.hex()}, which is not on this machine",
        hint="ask who has it for `holdfast keys export`, and `holdfast keys import` it here",
        kid=kid.hex(),
    )


def _bound(stream: bytes, kid: bytes, collection: str, name: str) -> bytes:
    out = [_BOUND, stream, kid]
    for text in (collection.encode(), name.encode()):
        out += [len(text).to_bytes(2, "big"), text]
    return b"".join(out)

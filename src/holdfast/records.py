"""The record, version 1: one immutable entry of one agent's log, and the chain that ties it to its past.

Pure. Frozen: docs/record-v1.md is the one-page specification, tests/unit/golden_v1.json the vectors. Nothing here
knows files, networks or keys.

    header = "hf/rec/1\\0" ‖ stream(16) ‖ fmt u8 ‖ flags u8 ‖ seq u64 ‖ hlc u64 ‖ base(32) ‖ key_version u64
             ‖ payload_len u64 ‖ kind u8+ ‖ author u16+ ‖ collection u16+ ‖ key u16+ ‖ kid(16) ‖ payload_hash(32)
    payload_hash = SHA256("hf/pay/1\\0" ‖ salt ‖ payload)
    link         = SHA256("hf/link/1\\0" ‖ prev_link ‖ SHA256(header))

Numbers are big-endian, text is UTF-8 behind its length. No JSON is hashed, so nothing needs canonical JSON. The link
covers the payload only through its hash: a body can be evicted, quarantined or erased and the chain still verifies.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from typing import Final

import msgspec

from holdfast.errors import ChainBroken, IntegrityError, UsageError

MAGIC: Final = b"hf/rec/1\0"
PAYLOAD_PREFIX: Final = b"hf/pay/1\0"
LINK_PREFIX: Final = b"hf/link/1\0"
_STREAM: Final = b"hf/stream/1\0"
_GENESIS: Final = b"hf/genesis/1\0"
_HEAD: Final = b"hf/head/1\0"

ZERO16: Final = bytes(16)
ZERO32: Final = bytes(32)

VALUE: Final = 1
"""Sets the value of its key."""
BLOB: Final = 2
"""The payload is a reference (digest, size) to bytes kept outside the log; `fmt` is theirs."""
SEALED: Final = 4
TOMBSTONE: Final = 8
"""The key has no value from here on; with kind `delete-prefix` every key that starts with `key`."""
MORE: Final = 16
"""The batch continues: never cut behind this record."""

# Kinds with a meaning of their own; every other kind is the user's.
PUT: Final = "put"
DELETE: Final = "delete"
DELETE_PREFIX: Final = "delete-prefix"
MERGE: Final = "merge"
PRUNE: Final = "prune"
ROTATE: Final = "rotate"
REDACT: Final = "redact"
MESSAGE: Final = "message"
REPORT: Final = "report"

KIND_BYTES_MAX: Final = 64
NAME_BYTES_MAX: Final = 255
KEY_BYTES_MAX: Final = 1024
INLINE_BYTES_MAX: Final = 64 << 10
"""A payload longer than this becomes a blob (before compression, so that the answer does not depend on it)."""
BLOB_BYTES_MAX: Final = 5 << 30
SALT_BYTES: Final = 16

_FIXED = struct.Struct(">9s16sBBQQ32sQQ")
_TAIL = struct.Struct(">16s32s")
_REF = struct.Struct(">32sQ")
numbers_in_header: Final = struct.Struct(">BBQQ32sQQ").pack
"""fmt, flags, seq, hlc, base, key_version and payload_len as they lie in a header behind its magic and stream: for whom
what he has is no record yet."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """One header, taken apart; `link` is its place in the chain.

    `stream`, `base`, `kid`, `payload_hash` and `link` are raw bytes (16, 32, 16, 32, 32); `hlc` is a stamp of
    `holdfast.clock`; `payload_len` counts bytes before compression.
    """

    stream: bytes
    fmt: int
    flags: int
    seq: int
    hlc: int
    base: bytes
    key_version: int
    payload_len: int
    kind: str
    author: str
    collection: str
    key: str
    kid: bytes
    payload_hash: bytes
    link: bytes = ZERO32

    @property
    def is_value(self) -> bool:
        """Whether it says what its key's value is (a tombstone says: none)."""
        return bool(self.flags & (VALUE | TOMBSTONE))


def stream_id(public_key: bytes, agent: str) -> bytes:
    """The 16-byte name of an agent's log under a key: nobody without that key can write under it."""
    return hashlib.sha256(_STREAM + public_key + agent.encode()).digest()[:16]


def genesis(stream: bytes) -> bytes:
    """The link before the first record: fixed by the stream, so a first record cannot be moved to another."""
    return hashlib.sha256(_GENESIS + stream).digest()


def payload_hash(salt: bytes, payload: bytes) -> bytes:
    """What a header says of its payload."""
    return hashlib.sha256(PAYLOAD_PREFIX + salt + payload).digest()


def next_link(prev: bytes, header: bytes) -> bytes:
    """The link of the record with this header behind the one with link `prev`."""
    return hashlib.sha256(LINK_PREFIX + prev + hashlib.sha256(header).digest()).digest()


def link_of_digest(prev: bytes, header_digest: bytes) -> bytes:
    """`next_link` for a reader who has only the header's SHA-256 (a proof's trail)."""
    return hashlib.sha256(LINK_PREFIX + prev + header_digest).digest()


def head_message(stream: bytes, seq: int, link: bytes) -> bytes:
    """The bytes that a node signs to say: my log stands here."""
    return _HEAD + stream + seq.to_bytes(8, "big") + link


def encode_header(record: Record) -> bytes:
    """The header's bytes; `link` is not part of them.

    Raises:
        UsageError: a name is too long for its field.
    """
    key = record.key.encode()
    short = len(record.author) + len(record.collection) <= 2 * NAME_BYTES_MAX  # whoever sent more: not remembered
    names = names_in_header if short else names_in_header.__wrapped__
    if len(key) > 65535:
        raise UsageError("a name is too long for the header")
    return b"".join(
        (
            _FIXED.pack(
                MAGIC,
                record.stream,
                record.fmt,
                record.flags,
                record.seq,
                record.hlc,
                record.base,
                record.key_version,
                record.payload_len,
            ),
            names(record.kind, record.author, record.collection),
            len(key).to_bytes(2, "big"),
            key,
            record.kid,
            record.payload_hash,
        )
    )


@functools.lru_cache(maxsize=1024)
def names_in_header(kind: str, author: str, collection: str) -> bytes:
    """The kind, author and collection of a header, as they lie in it one after the other.

    Raises:
        UsageError: one of them is too long for its field.
    """
    # The same few names over and over.
    out = []
    for width, name in ((1, kind.encode()), (2, author.encode()), (2, collection.encode())):
        if len(name) >= 1 << 8 * width:
            raise UsageError("a name is too long for the header")
        out += [len(name).to_bytes(width, "big"), name]
    return b"".join(out)


def decode_header(header: bytes, link: bytes = ZERO32) -> Record:
    """The record with these header bytes; the exact inverse of `encode_header`.

    Raises:
        IntegrityError: not a version 1 header, cut short, too long, or not UTF-8.
    """
    try:
        magic, stream, fmt, flags, seq, hlc, base, key_version, size = _FIXED.unpack_from(header)
        if magic != MAGIC:
            raise IntegrityError("not a version 1 record header")
        at = _FIXED.size
        names = []
        for width in (1, 2, 2, 2):
            end = at + width
            length = int.from_bytes(header[at:end], "big")
            at = end + length
            names.append(header[end:at].decode())
        kid, digest = _TAIL.unpack_from(header, at)
    except (struct.error, UnicodeDecodeError) as error:
        raise IntegrityError(f"damaged record header: {error}") from error
    if at + _TAIL.size != len(header):
        raise IntegrityError("damaged record header: bytes behind its end")
    kind, author, collection, key = names
    return Record(
        stream, fmt, flags, seq, hlc, base, key_version, size, kind, author, collection, key, kid, digest, link
    )


def check_names(kind: str, collection: str, key: str, author: str = "") -> None:
    """Refuses names that no file, URL or header could carry safely.

    Raises:
        UsageError: with the rule that the name breaks.
    """
    try:
        _check_three(kind, collection, author)
    except TypeError:  # unhashable, so not text; without the cache the right complaint comes out
        _check_three.__wrapped__(kind, collection, author)
    if not (type(key) is str and key.isascii() and key.isprintable() and len(key) <= KEY_BYTES_MAX):
        _check_name("key", key, KEY_BYTES_MAX)


@functools.lru_cache(maxsize=1024)
def _check_three(kind: str, collection: str, author: str) -> None:
    # The same few names over and over; only what passed is remembered.
    _check_name("kind", kind, KIND_BYTES_MAX)
    _check_name("collection", collection, NAME_BYTES_MAX)
    _check_name("author", author, NAME_BYTES_MAX)


def _check_name(what: str, name: object, most: int) -> None:
    if not isinstance(name, str):
        raise UsageError(f"{what} must be text, got {type(name).__name__}")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise UsageError(f"{what} holds half a surrogate pair") from None
    if size > most:
        raise UsageError(f"{what} is {size} bytes long, the most is {most}", hint="put it in the value")
    if any(ord(c) < 32 or ord(c) == 127 for c in name):
        raise UsageError(f"{what} holds a control character: {name!r}")


def verify_payload(record: Record, salt: bytes, payload: bytes) -> None:
    """Returns only if `payload` is what the header recorded.

    Raises:
        IntegrityError: another length or another hash.
    """
    if len(payload) != record.payload_len or payload_hash(salt, payload) != record.payload_hash:
        where = f"{record.collection}/{record.key} seq {record.seq}"
        raise IntegrityError(f"the payload of {where} is not what was recorded", seq=record.seq)


def verify_link(prev: bytes, header: bytes, link: bytes, seq: int) -> None:
    """Returns only if `link` follows from its neighbour and the header.

    Raises:
        ChainBroken: it does not.
    """
    if next_link(prev, header) != link:
        raise ChainBroken(f"the chain breaks at seq {seq}", seq=seq)


def blob_reference(digest: bytes, size: int) -> bytes:
    """The payload of a record whose bytes are a blob: 40 bytes."""
    return _REF.pack(digest, size)


def read_blob_reference(payload: bytes) -> tuple[bytes, int]:
    """The blob's SHA-256 and its size in bytes.

    Raises:
        IntegrityError: not a reference.
    """
    if len(payload) != _REF.size:
        raise IntegrityError(f"a blob reference has {_REF.size} bytes, this has {len(payload)}")
    digest, size = _REF.unpack(payload)
    return digest, size

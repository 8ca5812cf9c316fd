"""The sealed form of an object, version 1, frozen by ADR 0028 and a golden vector.

    header   160 bytes
      0   8  "hfseal" 00 01
      8   4  00 00 00 12: the chunk is 2^18 bytes
     12  32  the id of the ring's key, filled with zeros
     44  16  the id of the data key
     60  12  the nonce under which the data key is wrapped
     72  48  the data key, wrapped: AES-256-GCM, with bytes 0 to 60 as additional data
    120  32  the object's salt
    152   8  the beginning of the SHA-256 of bytes 0 to 152: tells rot from a key that is not in the ring
    chunks   of 262,144 plain bytes, the last one shorter (empty only in an empty object), each with its 16-byte tag

A data key seals many objects; each of them has a key of its own, HKDF-SHA256(data key, salt, "hf/seal/1" 00): 32 bytes
for AES-256-GCM and 7 that begin its nonces, to which a chunk adds its number (4 bytes) and whether it is the last one
(1 byte): the STREAM construction, so chunks cannot be left out, moved, added or cut off. Additional data of every chunk
is SHA-256("hf/seal/aad/1" 00, header, and for each word of the binding its length in 4 bytes and itself), so an object
cannot be passed off as another one. All numbers are big-endian.

A rewrapped data key is `Wrap`: bytes 0 to 120 of a header, with another ring key, and a check of 8 bytes.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from holdfast.errors import ObjectCorrupt, StorageDenied
from holdfast.seal.keys import KEY_BYTES, KEY_ID_MAX, KeyRing

MAGIC: Final = b"hfseal\x00\x01"
CHUNK: Final = 1 << 18
TAG: Final = 16
FULL: Final = CHUNK + TAG
"""A sealed chunk."""
SALT: Final = 32
_START: Final = MAGIC + (18).to_bytes(4)
_WRAP_AAD: Final = 60
_WRAP: Final = 120
_CHECK: Final = 8
WRAP_BYTES: Final = _WRAP + _CHECK
HEADER: Final = _WRAP + SALT + _CHECK
_LAST: Final = b"\x01"
_MORE: Final = b"\x00"


class DataKey(msgspec.Struct, frozen=True):
    """A key that objects' keys are derived from, and the id by which it is known."""

    id: bytes
    key: bytes

    def __repr__(self) -> str:
        return f"<DataKey {self.id.hex()}>"


class Wrap(msgspec.Struct, frozen=True):
    """A data key, wrapped by a key of the ring: the beginning of every header, and of the file of a rotated key."""

    raw: bytes
    """120 bytes, without the check."""

    @property
    def key_id(self) -> str:
        """The id of the ring's key."""
        return self.raw[12 : 12 + KEY_ID_MAX].rstrip(b"\x00").decode("ascii", "replace")

    @property
    def data_id(self) -> bytes:
        """The id of the data key."""
        return self.raw[44:_WRAP_AAD]

    def open(self, ring: KeyRing) -> DataKey:
        """The data key.

        Raises:
            StorageDenied: the ring has not the key, or another one under its id.
        """
        key = ring.key(self.key_id)
        try:
            plain = _aesgcm(key).decrypt(self.raw[60:72], self.raw[72:_WRAP], self.raw[:_WRAP_AAD])
        except _invalid_tag():
            # The check of the header was right, so its bytes are what was written.
            raise StorageDenied(
                f"sealed with another key than the one that the ring has as {self.key_id!r}",
                hint="an id stands for one key for ever",
                key_id=self.key_id,
            ) from None
        return DataKey(self.data_id, plain)

    def to_bytes(self) -> bytes:
        """As it is stored by itself."""
        return self.raw + _check(self.raw)

    @classmethod
    def from_bytes(cls, data: bytes) -> Wrap:
        """What `to_bytes` gave.

        Raises:
            ObjectCorrupt: it is not that any more.
        """
        if len(data) != WRAP_BYTES or data[: len(_START)] != _START or data[_WRAP:] != _check(data[:_WRAP]):
            raise ObjectCorrupt("a rewrapped data key is damaged")
        return cls(data[:_WRAP])


class Header(msgspec.Struct, frozen=True):
    """The first 160 bytes of a sealed object."""

    raw: bytes

    @property
    def wrap(self) -> Wrap:
        """The data key, as it was wrapped when the object was written."""
        return Wrap(self.raw[:_WRAP])

    @classmethod
    def parse(cls, data: bytes) -> Header:
        """The header that these bytes begin with.

        Raises:
            ObjectCorrupt: it is damaged, or this is no sealed object.
        """
        raw = data[:HEADER]
        if raw[:6] != MAGIC[:6]:
            raise ObjectCorrupt("not a sealed object: it does not begin like one")
        if len(raw) < HEADER or raw[-_CHECK:] != _check(raw[:-_CHECK]):
            raise ObjectCorrupt("the header of a sealed object is damaged or cut off")
        if raw[: len(_START)] != _START:
            raise ObjectCorrupt("a sealed object of a form that this version does not know", hint="update Holdfast")
        return cls(raw)


def new_data_key() -> DataKey:
    """A data key from the system's randomness."""
    return DataKey(os.urandom(16), os.urandom(KEY_BYTES))


def wrap(data: DataKey, ring: KeyRing, *, nonce: bytes | None = None) -> Wrap:
    """The data key, wrapped by the ring's primary key."""
    start = _START + ring.primary.encode().ljust(KEY_ID_MAX, b"\x00") + data.id
    nonce = nonce or os.urandom(12)
    return Wrap(start + nonce + _aesgcm(ring.key(ring.primary)).encrypt(nonce, data.key, start))


def new_header(wrapped: Wrap, *, salt: bytes | None = None) -> Header:
    """The header of one object; the salt makes its key its own."""
    raw = wrapped.raw + (salt or os.urandom(SALT))
    return Header(raw + _check(raw))


def sealed_size(plain: int) -> int:
    """How many bytes an object of so many plain ones has."""
    return HEADER + plain + TAG * max(1, -(-plain // CHUNK))


def plain_size(sealed: int) -> int | None:
    """How many plain bytes a sealed object holds; None: no sealed object has this size."""
    body = sealed - HEADER
    if body < TAG:
        return None
    chunks = -(-body // FULL)
    plain = body - TAG * chunks
    # A last chunk that is only a tag is that of an empty object.
    return plain if sealed_size(plain) == sealed else None


class Sealer:
    """Seals and opens the chunks of one object.

    Args:
        data: the data key of its header.
        header: its header.
        binding: the words that it is bound to: its store, key, type and metadata.
    """

    def __init__(self, data: DataKey, header: Header, binding: Sequence[str]) -> None:
        derived = _hkdf(data.key, header.raw[_WRAP : _WRAP + SALT], b"hf/seal/1\x00", KEY_BYTES + 7)
        self._cipher = _aesgcm(derived[:KEY_BYTES])
        self._prefix = derived[KEY_BYTES:]
        self._header = header
        bound = hashlib.sha256(b"hf/seal/aad/1\x00" + header.raw)
        for word in binding:
            raw = word.encode()
            bound.update(len(raw).to_bytes(4) + raw)
        self._aad = bound.digest()

    def seal(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The sealed object, piece by piece."""
        yield self._header.raw
        number, ready = 0, None
        for chunk in _cut(pieces, CHUNK):
            # A chunk is sealed when more comes: only then is it known not to be the last.
            if ready is not None:
                yield self._cipher.encrypt(self._nonce(number, _MORE), ready, self._aad)
                number += 1
            ready = chunk
        yield self._cipher.encrypt(self._nonce(number, _LAST), ready or b"", self._aad)

    def open(self, pieces: Iterable[bytes], first: int, count: int, chunks: int) -> Iterator[bytes]:
        """The plain bytes of some chunks, one at a time, each proven before it is given.

        Args:
            pieces: the sealed chunks.
            first: the number of the first of them.
            count: how many they are.
            chunks: how many the object has.

        Raises:
            ObjectCorrupt: a chunk is not what was sealed here, is missing, or more came.
        """
        number, end = first, first + count
        for chunk in _cut(pieces, FULL):
            if number == end:
                raise ObjectCorrupt(f"a sealed object has bytes behind its {chunks} chunks")
            yield self._opened(chunk, number, chunks)
            number += 1
        if number != end:
            raise ObjectCorrupt(f"a sealed object is cut off: it ends before chunk {number} of {chunks}")

    def _opened(self, sealed: bytes | memoryview, number: int, chunks: int) -> bytes:
        nonce = self._nonce(number, _LAST if number == chunks - 1 else _MORE)
        try:
            plain: bytes = self._cipher.decrypt(nonce, sealed, self._aad)
        except (_invalid_tag(), ValueError):  # ValueError: shorter than a tag
            raise ObjectCorrupt(
                f"chunk {number} of {chunks} is not what was sealed here: damaged, or of another object",
                hint="its key, type and metadata are bound to it as well",
            ) from None
        return plain

    def _nonce(self, number: int, last: bytes) -> bytes:
        return self._prefix + number.to_bytes(4) + last


def _cut(pieces: Iterable[bytes], size: int) -> Iterator[bytes | memoryview]:
    """The same bytes in parts of this size, the last one shorter; copied only where a part is of several pieces."""
    held = bytearray()
    for piece in pieces:
        view = memoryview(piece)
        while view:
            if not held and len(view) >= size:
                yield view[:size]
                view = view[size:]
                continue
            part = view[: size - len(held)]
            held += part
            view = view[len(part) :]
            if len(held) == size:
                yield bytes(held)
                held.clear()
    if held:
        yield bytes(held)


def _check(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()[:_CHECK]


def _hkdf(key: bytes, salt: bytes, info: bytes, size: int) -> bytes:
    """RFC 5869 with SHA-256."""
    middle = hmac.digest(salt, key, "sha256")
    out, block = b"", b""
    while len(out) < size:
        block = hmac.digest(middle, block + info + bytes([len(out) // 32 + 1]), "sha256")
        out += block
    return out[:size]


def _aesgcm(key: bytes) -> Any:
    # Lazy: 30 ms of every command that opens nothing sealed.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _invalid_tag() -> type[Exception]:
    from cryptography.exceptions import InvalidTag

    return InvalidTag

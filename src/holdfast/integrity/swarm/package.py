"""A value with what is known of it, as one JSON document that people can read: a file on the shelf, or in a backup.

    {"metadata": {"data_id": …, "checksum": …, …}, "previous": …, "link": …, "data": …}

The link covers what is known of the value and the link of the version before, so a version cannot be changed, left out
or put elsewhere without breaking the one behind it. A large value lies beside as a blob, named by the checksum.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any, Final

import msgspec

from holdfast import codec
from holdfast.errors import HoldfastError, IntegrityError

GENESIS: Final = "0" * 64
"""The link before the first version."""
FORMATS: Final = {codec.FMT_BYTES: "bytes", codec.FMT_TEXT: "text", codec.FMT_JSON: "json"}
_NUMBERS: Final = {name: number for number, name in FORMATS.items()}
_encode = msgspec.json.Encoder(order="deterministic").encode


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one version of a value.

    Attributes:
        data_id, data_type: whose it is.
        version: its number, from 1.
        timestamp: when it was stored, in seconds since 1970.
        checksum: SHA-256 of the serialised value, in hex.
        size: bytes of that.
        integrity_level: the level's name.
        format: json, text or bytes.
        blob: whether the value lies beside, as a blob.
        deleted: whether this version says that there is no value.
    """

    data_id: str
    data_type: str
    version: int
    timestamp: float
    checksum: str
    size: int
    integrity_level: str
    format: str = "json"
    blob: bool = False
    deleted: bool = False

    @property
    def digest(self) -> bytes:
        """The name of its blob."""
        return bytes.fromhex(self.checksum)

    def value(self, payload: bytes) -> Any:
        """The value that the serialised form stands for."""
        return codec.deserialise(_NUMBERS[self.format], payload)

    @property
    def fmt(self) -> int:
        """The format's number in `holdfast.codec`."""
        return _NUMBERS[self.format]


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """A version as it lies in a file."""

    metadata: Kept
    previous: str = GENESIS
    link: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")

    def payload(self) -> bytes:
        """The serialised value as it is here, proven or not.

        Raises:
            IntegrityError: what is here is no such value.
        """
        try:
            found = msgspec.json.decode(self.data)
            if self.metadata.format == "bytes":
                return base64.b64decode(found, validate=True)
            return codec.serialise(found)[1]
        except (HoldfastError, msgspec.DecodeError, binascii.Error, TypeError, ValueError) as error:
            raise IntegrityError(f"{self.metadata.data_id}: what is stored is no {self.metadata.format}") from error


def link_of(previous: str, kept: Kept) -> str:
    """The link of a version behind another one's."""
    return hashlib.sha256(b"hf/swarm/1\0" + bytes.fromhex(previous) + _encode(kept)).hexdigest()


def packed(kept: Kept, payload: bytes | None, previous: str = GENESIS) -> bytes:
    """The document of a version; `payload` is None where it lies beside, or is no more."""
    data: Any = None
    if payload is not None:
        value = codec.deserialise(kept.fmt, payload)
        data = base64.b64encode(value).decode() if kept.format == "bytes" else value
    made = Package(
        metadata=kept, previous=previous, link=link_of(previous, kept), data=msgspec.Raw(msgspec.json.encode(data))
    )
    return msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n"


def unpacked(data: bytes, where: str) -> Package:
    """The version in a document; whether it is whole is for the checks.

    Raises:
        IntegrityError: it is no such document.
    """
    try:
        found = msgspec.json.decode(data, type=codec.ready(Package))
        bytes.fromhex(found.previous + found.link + found.metadata.checksum)
        if found.metadata.format not in _NUMBERS:
            raise ValueError(f"unknown format {found.metadata.format!r:.40}")
    except (msgspec.DecodeError, ValueError) as error:
        raise IntegrityError(f"{where} is no package of a value: {error}", hint="recover it") from error
    return found


def proven(kept: Kept, payload: bytes) -> bytes:
    """The payload itself.

    Raises:
        IntegrityError: it is not what was stored.
    """
    if hashlib.sha256(payload).hexdigest() != kept.checksum:
        raise IntegrityError(
            f"{kept.data_id} version {kept.version}: its bytes are not what was stored",
            hint=f"holdfast-integrity --check {kept.data_id}",
        )
    return payload

"""What a backup is: a signed list of segments. Pure; backup format v1, docs/backup-v1.md.

    signed object = magic ‖ public key (32) ‖ signature (64) ‖ zstd(JSON)
    the signature is Ed25519 over magic ‖ SHA-256(zstd(JSON))
    magic = "hf/bak/1" 00 for a backup, "hf/dri/1" 00 for a drill
    name  = <ms since 1970, 13 digits>-<first 24 hex digits of the SHA-256 of the signed object>

A manifest holds no name and no text of anybody's: whoever has no key of a sealed repository can still verify all of it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

from holdfast import codec, seal
from holdfast.errors import HoldfastError, IntegrityError

BACKUP: Final = b"hf/bak/1\0"
DRILL: Final = b"hf/dri/1\0"
FORMAT: Final = 1
JSON_MAX: Final = 256 << 20
_SIGNED: Final = len(BACKUP) + 32 + 64
NAME: Final = re.compile(r"\d{13}-[0-9a-f]{24}")

T = TypeVar("T")


class BlobEntry(msgspec.Struct, array_like=True, frozen=True):
    """A payload above 64 KiB: its digest, the object that holds it, and that object's SHA-256 and size."""

    digest: str
    name: str
    stored: str
    size: int


class SegmentEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A segment of one part.

    Attributes:
        id: the SHA-256 of the stored object, which is its name.
        size: the bytes of the stored object.
        first, last: the positions that it speaks for.
        records: how many records are in it.
        ends: where each branch of it stands behind it: [branch, seq, link].
        blobs: the blobs that its records refer to.
    """

    id: str
    size: int
    first: int
    last: int
    records: int
    ends: list[tuple[int, int, str]]
    blobs: list[BlobEntry] = []


class Packed(msgspec.Struct, frozen=True):
    """An object that is named by its SHA-256: its id and size."""

    id: str
    size: int


class PartEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One file of records: an agent's log, or a hub's corpus.

    Attributes:
        kind: ``agent`` or ``hub``.
        segments: in the order of their positions.
        tables: what stands beside the records: names, streams, branches, and what was erased.
        pos: the newest position.
        heads: where each branch stands: [branch, seq, link].
        records: how many records there are.
    """

    kind: str
    segments: list[SegmentEntry]
    tables: Packed
    pos: int
    heads: list[tuple[int, int, str]]
    records: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One backup.

    Attributes:
        format: 1.
        repository: the id of the repository that it was made for.
        made_ms: when it was begun.
        previous: the name of the backup that it builds on; empty for none.
        parts: what it holds, a file each.
        documents: what is no record: configuration, tokens' hashes, keys where asked for.
        looked_ms: when all records were last searched for erased ones.
    """

    format: int
    repository: str
    made_ms: int
    previous: str
    parts: list[PartEntry]
    documents: Packed
    looked_ms: int = 0

    @property
    def records(self) -> int:
        """How many records all parts have."""
        return sum(part.records for part in self.parts)

    def objects(self) -> dict[str, int]:
        """Every object that it refers to but for blobs: id -> size."""
        found = {self.documents.id: self.documents.size}
        for part in self.parts:
            found[part.tables.id] = part.tables.size
            found |= {segment.id: segment.size for segment in part.segments}
        return found

    def blobs(self) -> dict[str, BlobEntry]:
        """Every object of a blob that it refers to, by its name."""
        return {blob.name: blob for part in self.parts for segment in part.segments for blob in segment.blobs}


class Drilled(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one backup in a drill."""

    backup: str
    ok: bool
    records: int = 0
    seconds: float = 0.0
    error: str = ""


class Drill(msgspec.Struct, frozen=True, kw_only=True):
    """A drill: backups that were restored, verified and asked, and how that went."""

    format: int
    repository: str
    made_ms: int
    backups: list[Drilled]

    @property
    def ok(self) -> bool:
        """Whether all of them came back."""
        return bool(self.backups) and all(each.ok for each in self.backups)


def sign(what: Manifest | Drill, signer: seal.Signer) -> tuple[str, bytes]:
    """The name and the bytes of the signed object."""
    magic = BACKUP if isinstance(what, Manifest) else DRILL
    plain = msgspec.json.encode(what, order="deterministic")
    body = b"".join(codec.squeezed([plain], size=len(plain)))
    signature = signer.sign(magic + hashlib.sha256(body).digest())
    data = magic + signer.public_key + signature + body
    return f"{what.made_ms:013d}-{hashlib.sha256(data).hexdigest()[:24]}", data


def read(kind: type[T], name: str, data: bytes, keys: Sequence[bytes]) -> T:
    """What `sign` was given.

    Args:
        kind: `Manifest` or `Drill`.
        name: the object's name.
        data: its bytes.
        keys: who may have signed it.

    Raises:
        IntegrityError: damaged, signed by somebody else, or of a newer format.
    """
    magic, what = (BACKUP, "backup") if kind is Manifest else (DRILL, "drill")
    if not NAME.fullmatch(name) or hashlib.sha256(data).hexdigest()[:24] != name[14:]:
        raise IntegrityError(f"the {what} {name:.60} is damaged: its bytes are not those that it is named by")
    if data[: len(magic)] != magic or len(data) < _SIGNED:
        raise IntegrityError(f"the {what} {name} is of a form that this version does not know", hint="update holdfast")
    key, signature, body = data[9:41], data[41:105], data[105:]
    if key not in keys:
        raise IntegrityError(
            f"the {what} {name} is signed by {key.hex()}, which is not the repository's key",
            hint="somebody else wrote into this repository: trust nothing that came after it",
        )
    if not seal.verify(key, magic + hashlib.sha256(body).digest(), signature):
        raise IntegrityError(f"the {what} {name} was not signed by the key that it names")
    try:
        found = msgspec.json.decode(codec.inflate("zstd", body, JSON_MAX), type=codec.ready(kind))
    except (msgspec.MsgspecError, HoldfastError) as error:
        raise IntegrityError(f"the {what} {name} cannot be read: {error}", hint="update holdfast") from error
    if getattr(found, "format", 0) != FORMAT or f"{getattr(found, 'made_ms', 0):013d}" != name[:13]:
        raise IntegrityError(f"the {what} {name} is of another format or time than it says", hint="update holdfast")
    return found

"""What users see of a record: a version of a key, with its value. One shape in Python, HTTP, the feed and `--json`."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from holdfast import clock, codec
from holdfast.corpus import Stored
from holdfast.errors import Erased, Sealed, UsageError
from holdfast.log.reading import BlobReader, load
from holdfast.log.sealing import Keys, open_sealed
from holdfast.records import SEALED, read_blob_reference

NO_VALUE = ("redacted", "sealed")
"""Why a version may have no value though nothing is wrong."""


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One version of one key, as it was written.

    Attributes:
        agent: whose log it is in.
        collection, key: what it is a version of.
        version: 1, 2, 3… per key.
        seq: its number in the agent's log.
        time: seconds since 1970, by the writer's clock.
        kind: put, delete, message, report, merge…
        author: who wrote it, where a hub wrote it for a client; else empty.
        etag: its link in hex: changes with any bit of it or of its past; good for ``expect=``.
        gone: True when this version takes the value away (then `value` says why, as ``{"reason": …}``).
        value: what was put; None where it is not to be had.
        missing: why there is no value: ``redacted`` (erased for good), ``sealed`` (its key is not here); else empty.
        pos: its position in the corpus it was read from.
        stream: the 16-byte id of the log, in hex.
    """

    agent: str
    collection: str
    key: str
    version: int
    seq: int
    time: float
    kind: str
    etag: str
    value: Any
    pos: int = 0
    stream: str = ""
    author: str = ""
    gone: bool = False
    missing: str = ""

    def to_json(self) -> dict[str, Any]:
        """The JSON form, with the time as RFC 3339 text; bytes come as base64 text, and ``encoding`` says so."""
        out = {name: getattr(self, name) for name in self.__struct_fields__}
        out["time"] = clock.iso(round(self.time * 1000))
        if isinstance(self.value, bytes):
            out["value"], out["encoding"] = base64.b64encode(self.value).decode(), "base64"
        if not self.missing:
            del out["missing"]
        return out


def version_of(stored: Stored, blobs: BlobReader | None, value: Any = msgspec.UNSET) -> Version:
    """The version that a stored record is; reads and proves its value unless it is handed in.

    Raises:
        IntegrityError: the bytes are not what was recorded.
        NotCached: they are not on this machine.
    """
    record = stored.record
    return Version(
        agent=stored.agent,
        collection=record.collection,
        key=record.key,
        version=record.key_version,
        seq=record.seq,
        time=clock.millis(record.hlc) / 1000,
        kind=record.kind,
        etag=record.link.hex(),
        value=load(stored, blobs) if value is msgspec.UNSET else value,
        pos=stored.pos,
        stream=record.stream.hex(),
        author=record.author,
        gone=stored.gone,
    )


def told(stored: Stored, blobs: BlobReader | None, keys: Keys | None) -> Version:
    """The version that a stored record is, for a list: what was erased or cannot be opened is there without its value.

    Raises:
        IntegrityError: the bytes are not what was recorded.
        NotCached: they are not on this machine.
    """
    try:
        if not stored.record.flags & SEALED:
            return version_of(stored, blobs)
        found = open_sealed(stored, blobs, keys)
    except Erased:
        return msgspec.structs.replace(version_of(stored, None, None), missing=NO_VALUE[0])
    except Sealed:
        return msgspec.structs.replace(version_of(stored, None, None), missing=NO_VALUE[1])
    return msgspec.structs.replace(version_of(stored, None, found.value), key=found.key)


class _Frame(msgspec.Struct):
    pos: int
    agent: str
    stream: str
    seq: int
    time: str
    kind: str
    collection: str
    key: str
    version: int
    etag: str
    author: str
    gone: bool
    value: Any


_encode = msgspec.json.Encoder().encode


def frame(stored: Stored, blobs: BlobReader | None) -> bytes:
    """The version's JSON, without decoding a JSON payload only to encode it again.

    A body that is not here (evicted, erased, a blob above the inline limit when `blobs` is None) leaves ``value`` null
    and says so in ``missing``; a blob's ``digest`` and ``size`` say where to get it.
    """
    record = stored.record
    value: Any = None
    missing = ""
    if stored.body is None:
        missing = ("", "evicted", "quarantined", "redacted")[stored.why] or "lost"
    elif record.flags & SEALED:
        missing = "sealed"
    elif stored.is_blob and blobs is None:
        missing = "blob"
    elif record.fmt == codec.FMT_JSON and not stored.is_blob:
        value = msgspec.Raw(stored.payload())
    else:
        value = load(stored, blobs)
    made = _Frame(
        stored.pos,
        stored.agent,
        record.stream.hex(),
        record.seq,
        clock.to_iso(record.hlc),
        record.kind,
        record.collection,
        record.key,
        record.key_version,
        record.link.hex(),
        record.author,
        stored.gone,
        value,
    )
    data = _encode(made)
    if not missing:
        return data[:-1] + b',"encoding":"base64"}' if record.fmt == codec.FMT_BYTES else data
    where = ""
    if missing == "blob":
        digest, size = read_blob_reference(stored.payload())
        where = f',"digest":"{digest.hex()}","size":{size},"fmt":{record.fmt}'
    return data[:-1] + f',"missing":"{missing}"{where}}}'.encode()


class Shown(_Frame):
    """A `frame` as a reader gets it; what stands behind `value` says where to find one that is not in it."""

    value: Any = None
    encoding: str = ""
    missing: str = ""
    digest: str = ""
    size: int = 0
    fmt: int = 0

    def to_version(self, value: Any = msgspec.UNSET) -> Version:
        """The version that it shows, with the value from elsewhere if that is handed in."""
        if value is msgspec.UNSET:
            value = base64.b64decode(self.value) if self.encoding == "base64" else self.value
        return Version(
            agent=self.agent,
            collection=self.collection,
            key=self.key,
            version=self.version,
            seq=self.seq,
            time=clock.parse_time(self.time) / 1000,
            kind=self.kind,
            etag=self.etag,
            value=value,
            pos=self.pos,
            stream=self.stream,
            author=self.author,
            gone=self.gone,
            missing=self.missing if self.missing in NO_VALUE else "",
        )


_read = msgspec.json.Decoder(Shown).decode


def shown(data: dict[str, Any] | bytes) -> Shown:
    """What a `frame` says, or a `to_json` dict.

    Raises:
        UsageError: it is neither.
    """
    try:
        return _read(data) if isinstance(data, bytes) else msgspec.convert(data, Shown)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"this shows no version: {error}") from error

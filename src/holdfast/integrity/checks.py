"""The five checks of a chain of records. Pure: records go in, findings come out; nothing is ever repaired here.

Each sees what the others cannot (tests/damage/matrix_*.txt, measured): `checksum` a changed payload, `chain` a changed
header or a forged row, `time` a stamp that runs backwards, `size` bytes that are missing or of another length,
`version` a hole or a replayed version. None sees a tail that was cut off or a file that was put back: that takes the
anchor and the hub. Each function does the whole of its check's job over an iterator of records, alone; a scan
(`scan.py`) runs them side by side in one pass, and names one break once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from holdfast import codec, wire
from holdfast.clock import AHEAD_MS_MAX, iso, millis, to_iso
from holdfast.corpus import Stored
from holdfast.errors import HoldfastError, NotFound
from holdfast.records import (
    BLOB,
    DELETE_PREFIX,
    INLINE_BYTES_MAX,
    MERGE,
    SEALED,
    TOMBSTONE,
    VALUE,
    Record,
    encode_header,
    next_link,
    payload_hash,
    read_blob_reference,
)

CHECKSUM: Final = "checksum"
CHAIN: Final = "chain"
TIME: Final = "time"
SIZE: Final = "size"
VERSION: Final = "version"

SEALED_SLACK: Final = 1024
"""A sealed payload may be longer than the inline limit by its envelope."""
_REFETCH: Final = "the hub holds it as it was: holdfast repair --plan"
_CLOCK: Final = "was a clock set back? let the machine keep time by NTP; the order of the records stands all the same"

ANCHOR: Final = "anchor"
BLOB_SCRUB: Final = "blob"
HUB: Final = "hub"
INDEX: Final = "index"
PAGE: Final = "page"
SIGNATURE: Final = "signature"
STATE: Final = "state"
WAL: Final = "wal"

ABOUT: Final[Mapping[str, str]] = {
    CHECKSUM: "each payload and blob is what its header recorded",
    CHAIN: "each link follows from the record and the link before it, from the genesis to the head",
    TIME: "stamps only grow, and none is more than 60 s ahead of the clock",
    SIZE: "each body and blob is there, or its absence explained, and of the recorded length; so is the file",
    VERSION: "numbers have no gap, versions of a key follow one another, and the newest is the one that is shown",
    PAGE: "each page of the file has its checksum, those that no query reads included",
    INDEX: "indexes hold what the tables hold, and the search index each record and all its words",
    SIGNATURE: "signed heads are those of these records, by the key in force",
    ANCHOR: "the log reaches as far as the anchor file saw it, and says the same there",
    HUB: "the log reaches as far as each hub acknowledged it, and says the same there",
    BLOB_SCRUB: "each blob is there and sound; files that nothing refers to are named",
    STATE: "what is derived anew from the log (newest versions, tags, rows of sessions and metrics) is what is kept",
    WAL: "the write-ahead log was whole before SQLite opened it",
}
"""Every check by its name, with what holds when it finds nothing; in the order in which they are shown."""
CHECKS: Final = tuple(ABOUT)
SEED_CHECKS: Final[Mapping[str, str]] = {
    "CHECKSUM": CHECKSUM,
    "HASH_CHAIN": CHAIN,
    "TIMESTAMP": TIME,
    "SIZE_VERIFICATION": SIZE,
    "VERSION_CONTROL": VERSION,
}
"""The members of the seed's `IntegrityCheckType`, and the checks that do their jobs."""


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it was written.

    Attributes:
        check: which check found it.
        agent: whose log it is in; empty for the file as a whole.
        seq: the record's number there; 0 for the log or file as a whole.
        what: what is wrong, in lower case.
        hint: what can be done.
        expected: what should be there, where one value can say it; digests in hex.
        actual: what is there.
    """

    check: str
    agent: str
    seq: int
    what: str
    hint: str = ""
    expected: str = ""
    actual: str = ""

    def __str__(self) -> str:
        where = f"{self.agent} seq {self.seq}: " if self.seq else f"{self.agent}: " if self.agent else ""
        return f"[{self.check}] {where}{self.what}"


class Sizes(Protocol):
    """Where blobs are, as far as their sizes go."""

    def has(self, digest: bytes) -> bool:
        """Whether it is here, by its name."""
        ...

    def size(self, digest: bytes) -> int:
        """Its bytes."""
        ...


class Blobs(Sizes, Protocol):
    """Where blobs are."""

    def verify(self, digest: bytes) -> bool:
        """Whether it is here and its bytes have this digest."""
        ...


def _found(
    check: str, stored: Stored, what: str, hint: str = "", expected: object = "", actual: object = ""
) -> Finding:
    return Finding(check, stored.agent, stored.record.seq, what, hint, str(expected), str(actual))


def _runs_back(record: Record, last: int) -> bool:
    # What a merge takes over from another branch keeps the stamp that it has there (protocol/merge.py).
    return record.hlc <= last and not (record.kind == MERGE and record.collection)


def check_payload(stored: Stored) -> Finding | None:
    """The finding if the body that is here is not what the header recorded."""
    if stored.body is None:
        return None
    try:
        payload = stored.payload()
        if stored.record.flags & BLOB:
            read_blob_reference(payload)
    except HoldfastError as error:
        return _found(CHECKSUM, stored, error.message, _REFETCH, stored.record.payload_hash.hex(), _hash_of(stored))
    return None


def _hash_of(stored: Stored) -> str:
    try:
        payload = codec.unpack(stored.codec, stored.body or b"", stored.record.payload_len)
    except HoldfastError:
        return "bytes that cannot be decompressed"
    return payload_hash(stored.salt, payload).hex()


def check_size(stored: Stored) -> Finding | None:
    """The finding if a body is missing without a reason, or cannot be of the recorded length; hashes nothing."""
    record, body = stored.record, stored.body
    if body is None:
        if stored.why in (wire.EVICTED, wire.QUARANTINED, wire.REDACTED):
            return None
        what = "the body is missing, and nothing says why"
        return _found(SIZE, stored, what, _REFETCH, f"{record.payload_len} bytes", "none")
    if stored.why != wire.HERE:
        return _found(SIZE, stored, f"the body is here, though the row says why it is not ({stored.why})")
    size = record.payload_len
    if (len(body) != size) if stored.codec == codec.RAW else (len(body) >= size):
        what = f"{len(body)} bytes are stored for a payload of {size}"
        return _found(SIZE, stored, what, _REFETCH, f"{size} bytes", f"{len(body)} bytes")
    if size > INLINE_BYTES_MAX + (SEALED_SLACK if record.flags & SEALED else 0):
        return _found(SIZE, stored, f"a payload of {size} bytes lies in the log; above {INLINE_BYTES_MAX} it is a blob")
    return None


def blob_of(stored: Stored) -> tuple[bytes, int] | None:
    """The digest and size of the blob that a record refers to; None without one, or if it cannot be read."""
    if stored.body is None or not stored.is_blob:
        return None
    try:
        return read_blob_reference(codec.unpack(stored.codec, stored.body, stored.record.payload_len))
    except HoldfastError:
        return None  # the payload's own checks say so


def check_blob_size(stored: Stored, blobs: Sizes, check: str = SIZE) -> Finding | None:
    """The finding if the blob of a record is missing, or of another size; hashes nothing."""
    found = blob_of(stored)
    if found is None:
        return None
    digest, size = found
    try:
        actual = blobs.size(digest)
    except NotFound:
        return _found(check, stored, f"the blob {digest.hex()} is not here", _REFETCH, f"{size} bytes", "none")
    if actual == size:
        return None
    what = f"the blob {digest.hex()} has {actual} bytes instead of {size}"
    return _found(check, stored, what, _REFETCH, f"{size} bytes", f"{actual} bytes")


def check_blob(stored: Stored, blobs: Blobs, check: str = CHECKSUM) -> Finding | None:
    """The finding if the blob of a record is here and its bytes are not those that were stored."""
    found = blob_of(stored)
    if found is None or not blobs.has(found[0]) or blobs.verify(found[0]):
        return None
    digest = found[0].hex()
    return _found(check, stored, f"the bytes of the blob {digest} are not what was stored", _REFETCH, digest)


class Line:
    """One chain, record by record: where it stands, and what does not follow.

    Args:
        stream: whose records these must be.
        seq: the number before the first record.
        link: the link there.
    """

    def __init__(self, stream: bytes, seq: int, link: bytes) -> None:
        self.stream, self.seq, self.link = stream, seq, link
        self.hlc = 0

    def see(self, stored: Stored) -> Sequence[Finding]:
        """What is wrong with the next record; one break is found once, and the line goes on behind it."""
        record = stored.record
        before, link, last, self.link = self.seq, self.link, self.hlc, record.link
        self.seq = record.seq
        if record.hlc > last:
            self.hlc = record.hlc
            follows = record.seq == before + 1 and record.stream == self.stream
            if follows and next_link(link, encode_header(record)) == record.link:
                return ()
        return list(self._wrong(stored, before, link, last))

    def _wrong(self, stored: Stored, before: int, link: bytes, last: int) -> Iterator[Finding]:
        record, seq = stored.record, stored.record.seq
        if seq != before + 1:
            gap = f"{seq - before - 1} records are missing" if seq > before else "the log repeats itself"
            yield _found(VERSION, stored, f"follows seq {before}: {gap}", _REFETCH, before + 1, seq)
        right = next_link(link, encode_header(record))
        if record.stream != self.stream:
            what = "the record belongs to another stream"
            yield _found(CHAIN, stored, what, "", self.stream.hex(), record.stream.hex())
        elif right != record.link:
            what = "the link does not follow from the record and its neighbour"
            yield _found(CHAIN, stored, what, _REFETCH, right.hex(), record.link.hex())
        if _runs_back(record, last):
            yield _backwards(stored, last)


def _backwards(stored: Stored, last: int) -> Finding:
    what = "the stamp is not later than the one before it"
    return _found(TIME, stored, what, _CLOCK, f"later than {to_iso(last)}", to_iso(stored.record.hlc))


def check_ahead(stored: Stored, now_ms: int) -> Finding | None:
    """The finding if a stamp lies more than 60 s ahead of the wall clock (ms since 1970)."""
    ahead = millis(stored.record.hlc) - now_ms - AHEAD_MS_MAX
    if ahead <= 0:
        return None
    what = f"the stamp is {ahead / 1000 + AHEAD_MS_MAX / 1000:.0f} s ahead of the clock"
    limit = f"at most {iso(now_ms + AHEAD_MS_MAX)}"
    return _found(TIME, stored, what, _CLOCK, limit, to_iso(stored.record.hlc))


def check_version(stored: Stored, pos: int, version: int, begin: int = 0) -> Finding | None:
    """The finding if a record is not the version of its key that comes next.

    Args:
        stored: the record.
        pos: where the newest version before it lies; 0: there was none.
        version: that one's number.
        begin: the newest number that may have been pruned; versions up to there are not known.
    """
    record = stored.record
    if begin and stored.prior <= begin and pos <= begin:
        return None  # its predecessor may be among what was pruned
    if stored.prior != pos:
        what = f"replaces the version at {stored.prior}; the newest was at {pos}"
        return _found(VERSION, stored, what, _REFETCH, pos, stored.prior)
    if record.key_version != version + 1:
        what = f"version {record.key_version} of {record.collection}/{record.key} follows version {version}"
        return _found(VERSION, stored, what, _REFETCH, version + 1, record.key_version)
    return None


class Versions:
    """The versions of one chain's keys, record by record.

    Args:
        begin: the newest number that may have been pruned; versions up to there are not known.
    """

    def __init__(self, begin: int = 0) -> None:
        self._begin = begin
        self._keys: dict[tuple[str, str], tuple[int, int]] = {}

    def see(self, stored: Stored) -> Finding | None:
        """The finding if this is not the version of its key that comes next."""
        record = stored.record
        if not record.flags & (VALUE | TOMBSTONE) or not record.collection:
            return None
        at = (record.collection, record.key)
        pos, version = self._keys.get(at, (0, 0))
        if record.kind != DELETE_PREFIX:
            self._keys[at] = (stored.pos, record.key_version)
        return check_version(stored, pos, version, self._begin)


def checksum(records: Iterable[Stored], blobs: Blobs | None = None) -> Iterator[Finding]:
    """Records whose payload, or blob if it is here, is not what was recorded; each judged alone, in any order."""
    for stored in records:
        finding = check_payload(stored) or (None if blobs is None else check_blob(stored, blobs))
        if finding is not None:
            yield finding


def size(records: Iterable[Stored], blobs: Sizes | None = None) -> Iterator[Finding]:
    """Records whose bytes (or blob) are missing without a reason, or of another length; hashes nothing."""
    for stored in records:
        finding = check_size(stored) or (None if blobs is None else check_blob_size(stored, blobs))
        if finding is not None:
            yield finding


def chain(records: Iterable[Stored], stream: bytes, seq: int, link: bytes) -> Iterator[Finding]:
    """Where the chain behind (seq, link) breaks: a changed header, a forged or foreign row."""
    return (finding for finding in _line(records, stream, seq, link) if finding.check == CHAIN)


def time(records: Iterable[Stored], *, now_ms: int | None = None) -> Iterator[Finding]:
    """Where a stamp is not later than the one before it or, given the wall clock, lies more than 60 s ahead of it."""
    last = 0
    for stored in records:
        if _runs_back(stored.record, last):
            yield _backwards(stored, last)
        if now_ms is not None and (finding := check_ahead(stored, now_ms)) is not None:
            yield finding
        last = max(last, stored.record.hlc)


def version(records: Iterable[Stored], seq: int = 0, *, begin: int = 0) -> Iterator[Finding]:
    """Holes in the numbering behind `seq`, and versions of a key that do not follow from one another."""
    keys = Versions(begin)
    for stored in records:
        if stored.record.seq != seq + 1:
            yield _found(VERSION, stored, f"follows seq {seq}", _REFETCH, seq + 1, stored.record.seq)
        seq = stored.record.seq
        finding = keys.see(stored)
        if finding is not None:
            yield finding


def _line(records: Iterable[Stored], stream: bytes, seq: int, link: bytes) -> Iterator[Finding]:
    line = Line(stream, seq, link)
    for stored in records:
        yield from line.see(stored)

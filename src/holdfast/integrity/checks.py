"""The five checks of a chain of records. Pure: records go in, findings come out; nothing is ever repaired here.

Each sees what the others cannot (research/integrity.md's matrix): `checksum` a changed payload, `chain` a changed
header or a forged row, `time` a stamp that runs backwards, `size` bytes that are missing or of another length,
`version` a hole or a replayed version. None sees a tail that was cut off or a file that was put back: that takes the
anchor and the hub.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from holdfast import codec, wire
from holdfast.clock import AHEAD_MS_MAX, millis
from holdfast.corpus import Stored
from holdfast.errors import HoldfastError
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
    read_blob_reference,
)

CHECKSUM: Final = "checksum"
CHAIN: Final = "chain"
TIME: Final = "time"
SIZE: Final = "size"
VERSION: Final = "version"

SEALED_SLACK: Final = 1024
"""A sealed payload may be longer than the inline limit by its envelope."""
_REFETCH: Final = "the hub holds it: holdfast recover"


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it was written.

    Attributes:
        check: which check found it.
        agent: whose log it is in; empty for the file as a whole.
        seq: the record's number there; 0 for the log or file as a whole.
        what: what is wrong, in lower case.
        hint: what can be done.
    """

    check: str
    agent: str
    seq: int
    what: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.agent} seq {self.seq}: " if self.seq else f"{self.agent}: " if self.agent else ""
        return f"[{self.check}] {where}{self.what}"


def _found(check: str, stored: Stored, what: str, hint: str = "") -> Finding:
    return Finding(check, stored.agent, stored.record.seq, what, hint)


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
        return _found(CHECKSUM, stored, error.message, _REFETCH)
    return None


def check_size(stored: Stored) -> Finding | None:
    """The finding if a body is missing without a reason, or cannot be of the recorded length; hashes nothing."""
    record, body = stored.record, stored.body
    if body is None:
        if stored.why in (wire.EVICTED, wire.QUARANTINED, wire.REDACTED):
            return None
        return _found(SIZE, stored, "the body is missing, and nothing says why", _REFETCH)
    if stored.why != wire.HERE:
        return _found(SIZE, stored, f"the body is here, though the row says why it is not ({stored.why})")
    size = record.payload_len
    if (len(body) != size) if stored.codec == codec.RAW else (len(body) >= size):
        return _found(SIZE, stored, f"{len(body)} bytes are stored for a payload of {size}", _REFETCH)
    if size > INLINE_BYTES_MAX + (SEALED_SLACK if record.flags & SEALED else 0):
        return _found(SIZE, stored, f"a payload of {size} bytes lies in the log; above {INLINE_BYTES_MAX} it is a blob")
    return None


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
            yield _found(VERSION, stored, f"follows seq {before}: {gap}", _REFETCH)
        elif record.stream != self.stream:
            yield _found(CHAIN, stored, "the record belongs to another stream")
        elif next_link(link, encode_header(record)) != record.link:
            yield _found(CHAIN, stored, "the link does not follow from the record and its neighbour", _REFETCH)
        if _runs_back(record, last):
            yield _found(TIME, stored, "the stamp is not later than the one before it")


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
        if stored.prior <= self._begin and pos <= self._begin and self._begin:
            return None  # its predecessor may be among what was pruned
        if stored.prior != pos:
            return _found(VERSION, stored, f"replaces the version at {stored.prior}; the newest was at {pos}")
        if record.key_version != version + 1:
            what = f"version {record.key_version} of {record.collection}/{record.key} follows version {version}"
            return _found(VERSION, stored, what)
        return None


def checksum(records: Iterable[Stored]) -> Iterator[Finding]:
    """Records whose payload is not what was recorded; each is judged alone, in any order."""
    return (finding for stored in records if (finding := check_payload(stored)) is not None)


def size(records: Iterable[Stored]) -> Iterator[Finding]:
    """Records whose bytes are missing without a reason, or of a length that cannot be; hashes nothing."""
    return (finding for stored in records if (finding := check_size(stored)) is not None)


def chain(records: Iterable[Stored], stream: bytes, seq: int, link: bytes) -> Iterator[Finding]:
    """Where the chain behind (seq, link) breaks: a changed header, a forged or foreign row."""
    return (finding for finding in _line(records, stream, seq, link) if finding.check == CHAIN)


def time(records: Iterable[Stored], *, now_ms: int | None = None) -> Iterator[Finding]:
    """Where a stamp is not later than the one before it or, given the wall clock, lies more than 60 s ahead of it."""
    last = 0
    for stored in records:
        stamp = stored.record.hlc
        if _runs_back(stored.record, last):
            yield _found(TIME, stored, "the stamp is not later than the one before it")
        if now_ms is not None and millis(stamp) > now_ms + AHEAD_MS_MAX:
            ahead = (millis(stamp) - now_ms) / 1000
            yield _found(TIME, stored, f"the stamp is {ahead:.0f} s ahead of the clock", "was a clock set back?")
        last = max(last, stamp)


def version(records: Iterable[Stored], seq: int = 0, *, begin: int = 0) -> Iterator[Finding]:
    """Holes in the numbering behind `seq`, and versions of a key that do not follow from one another."""
    keys = Versions(begin)
    for stored in records:
        if stored.record.seq != seq + 1:
            yield _found(VERSION, stored, f"follows seq {seq}")
        seq = stored.record.seq
        finding = keys.see(stored)
        if finding is not None:
            yield finding


def _line(records: Iterable[Stored], stream: bytes, seq: int, link: bytes) -> Iterator[Finding]:
    line = Line(stream, seq, link)
    for stored in records:
        yield from line.see(stored)

"""A log segment, backup format v1: a run of a corpus's records, without what a reader computes again. Pure.

Frozen: docs/backup-v1.md is the specification, tests/unit/golden_backup_v1.json the vectors.

    content = "hf/seg/1" 00 ‖ zstd(msgpack [salt, first, last, starts, rows, beside])
    starts  = [[branch, stream, agent, seq, link], …]        where each branch stood before the segment
    rows    = [[pos, branch, seq, hlc, author, kind, collection, key, fmt, flags, version, prior, base, kid, len, hash,
                salt, payload, why, link], …]
    beside  = {table: [[column, …], …], …}                   rows of other tables that came with the records

Left out (nil) is: `seq` and `link` where the record follows the one before it in its branch; `base` where it is the
link of `prior` in the same segment, or zeros if that is not in it; `kid` of zeros; `len` and `hash` where the payload
is here. `pos` and `hlc` are differences to the row before. The salt makes every segment's name its own: a name is never
used twice, so that what prune deletes late is never what somebody has just written.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

import msgspec

from holdfast import codec, wire
from holdfast.corpus import Stored
from holdfast.corpus.sql import TAGS
from holdfast.corpus.tags import ROW_FIRST
from holdfast.errors import HoldfastError, IntegrityError
from holdfast.log.drafts import tags_of
from holdfast.records import (
    LINK_PREFIX,
    PAYLOAD_PREFIX,
    ZERO16,
    ZERO32,
    Record,
    encode_header,
    names_in_header,
    next_link,
    numbers_in_header,
    payload_hash,
)
from holdfast.records import MAGIC as HEADER
from holdfast.wire import Mark

MAGIC: Final = b"hf/seg/1\0"
RECORDS_MAX: Final = 10_000
BYTES_MAX: Final = 8 << 20
QUOTES: Final = (TAGS["to"], TAGS["task"], TAGS["thread"], TAGS["label"])
"""Tags that repeat what a payload says; the others are names, which stay taken."""
PLAIN_MAX: Final = 128 << 20
"""What a segment may inflate to: 8 MiB, one batch behind them, and what stands beside."""

Beside = dict[str, list[list[Any]]]


class Start(msgspec.Struct, array_like=True, frozen=True):
    """Where a branch stood before the segment: its number in the file, its stream and agent, its head."""

    branch: int
    stream: bytes
    agent: str
    seq: int
    link: bytes


Row = tuple[
    int, int, int | None, int, str, str, str, str, int, int, int, int, bytes | None, bytes | None,
    int | None, bytes | None, bytes, bytes | None, int, bytes | None,
]  # fmt: skip
"""A record as it lies here, without what follows from its neighbours; the columns are those of the head of the module.

A tuple, since a restore takes millions of them apart: to ask an object for twenty attributes costs it a twentieth.
"""

Proven = tuple[
    int, int, int, int, str, str, str, str, int, int, int, int, bytes, bytes | None,
    int, bytes, bytes, bytes | None, int, bytes,
]  # fmt: skip
"""The same with nothing left out: position and stamp themselves, and what its neighbours and its payload say."""


class _Content(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    salt: bytes
    first: int
    last: int
    starts: list[Start]
    rows: list[Row]
    beside: Beside


class Segment(msgspec.Struct, kw_only=True, dict=True):
    """A segment, taken apart and proven to be a chain from its starts to its ends.

    Attributes:
        first, last: the positions that it speaks for.
        starts: where each branch stood before it.
        ends: where each of them stands behind it.
        rows: the records as they lie in it, with what was computed anew.
        beside: rows of other tables.
    """

    first: int
    last: int
    starts: dict[int, Start]
    ends: dict[int, Mark]
    rows: list[Proven]
    beside: Beside

    @functools.cached_property
    def records(self) -> list[Stored]:
        """The records; each body is the payload itself, not compressed."""
        return [_stored(proven, self.starts[proven[1]]) for proven in self.rows]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Content).decode


def encode(
    records: Sequence[Stored], span: tuple[int, int], starts: Mapping[int, Start], beside: Beside, salt: bytes
) -> bytes:
    """The content of a segment.

    Args:
        records: in the order of their positions; bodies as any corpus stores them.
        span: the first and last position that it speaks for.
        starts: where each branch of these records stood before.
        beside: rows of other tables.
        salt: 16 bytes that no other segment has.

    Raises:
        IntegrityError: a body is not of the recorded length.
    """
    ends = {branch: Mark(start.seq, start.link) for branch, start in starts.items()}
    links: dict[int, bytes] = {}
    rows = []
    pos = hlc = 0
    for stored in records:
        rows.append(_row(stored, pos, hlc, ends[stored.branch], links))
        pos, hlc = stored.pos, stored.record.hlc
        ends[stored.branch] = Mark(stored.record.seq, stored.record.link)
        links[stored.pos] = stored.record.link
    plain = _encode(_Content(salt, *span, list(starts.values()), rows, beside))
    return MAGIC + b"".join(codec.squeezed([plain], size=len(plain)))


def _row(stored: Stored, pos: int, hlc: int, before: Mark, links: Mapping[int, bytes]) -> Row:
    record = stored.record
    payload = None if stored.body is None else codec.unpack(stored.codec, stored.body, record.payload_len)
    # Not taken for granted: a row whose payload was damaged would come back with a hash that fits the damage.
    whole = payload is not None and payload_hash(stored.salt, payload) == record.payload_hash
    if payload is not None and not whole:
        where = f"{record.collection}/{record.key} seq {record.seq} of {stored.agent}"
        raise IntegrityError(f"the payload of {where} is not what was recorded", hint="holdfast verify, then repair")
    follows = record.seq == before.seq + 1 and next_link(before.link, encode_header(record)) == record.link
    return (
        stored.pos - pos,
        stored.branch,
        None if follows else record.seq,
        record.hlc - hlc,
        record.author,
        record.kind,
        record.collection,
        record.key,
        record.fmt,
        record.flags,
        record.key_version,
        stored.prior,
        None if record.base == links.get(stored.prior, ZERO32) else record.base,
        None if record.kid == ZERO16 else record.kid,
        None if whole else record.payload_len,
        None if whole else record.payload_hash,
        stored.salt,
        payload,
        stored.why,
        None if follows else record.link,
    )


def decode(content: bytes) -> Segment:
    """What `encode` was given, its chain computed anew.

    Raises:
        IntegrityError: it is no segment, or damaged.
    """
    if content[: len(MAGIC)] != MAGIC:
        raise IntegrityError("not a segment of version 1", hint="written by a newer Holdfast? update")
    try:
        found = _decode(codec.inflate("zstd", content[len(MAGIC) :], PLAIN_MAX))
        return _whole(found)
    except (msgspec.MsgspecError, ValueError, OverflowError, struct.error) as error:
        if isinstance(error, HoldfastError):
            raise IntegrityError(f"a damaged segment: {error.message}") from error
        raise IntegrityError(f"a damaged segment: {error}") from error


def _whole(found: _Content) -> Segment:
    starts = {start.branch: start for start in found.starts}
    if any(len(start.stream) != 16 or len(start.link) != 32 for start in found.starts):
        raise IntegrityError("a damaged segment: a stream or a link of another length")
    marks = {start.branch: (start.seq, start.link) for start in found.starts}
    rows = list(_proven(found.rows, starts, marks))
    ends = {branch: Mark(*mark) for branch, mark in marks.items()}
    if rows and not found.first <= rows[0][0] <= rows[-1][0] <= found.last:
        raise IntegrityError("a damaged segment: rows beyond the positions that it speaks for")
    return Segment(first=found.first, last=found.last, starts=starts, ends=ends, rows=rows, beside=found.beside)


def _proven(rows: Iterable[Row], starts: Mapping[int, Start], marks: dict[int, tuple[int, bytes]]) -> Iterator[Proven]:
    """The rows, each with what it leaves out; `marks` says where each branch stands, and goes along with them."""
    links: dict[int, bytes] = {}
    pos = hlc = 0
    for row in rows:
        # fmt: off
        (step, branch, own_seq, later, author, kind, collection, key, fmt, flags, version, prior,
         base, kid, size, digest, salt, payload, why, link) = row
        # fmt: on
        start = starts.get(branch)
        if start is None or step < 1:
            raise IntegrityError("a damaged segment: a row of no branch, or out of order")
        if (
            (base is not None and len(base) != 32)
            or (kid is not None and len(kid) != 16)
            or (link is not None and len(link) != 32)
            or (digest is not None and len(digest) != 32)
        ):  # the header would pad it, or cut it off
            raise IntegrityError("a damaged segment: a hash or a link of another length")
        if payload is not None:
            size, digest = len(payload), sha256(b"".join((PAYLOAD_PREFIX, salt, payload))).digest()
        elif size is None or digest is None:
            raise IntegrityError("a damaged segment: a row without a payload says nothing of it")
        pos, hlc, (seq, before) = pos + step, hlc + later, marks[branch]
        seq = seq + 1 if own_seq is None else own_seq
        if base is None:
            base = links.get(prior, ZERO32)
        if link is None:
            name = key.encode()
            numbers = numbers_in_header(fmt, flags, seq, hlc, base, version, size)
            names = names_in_header(kind, author, collection)
            head = (HEADER, start.stream, numbers, names, len(name).to_bytes(2, "big"), name, kid or ZERO16, digest)
            link = sha256(b"".join((LINK_PREFIX, before, sha256(b"".join(head)).digest()))).digest()
        links[pos] = link
        marks[branch] = seq, link
        # fmt: off
        yield (pos, branch, seq, hlc, author, kind, collection, key, fmt, flags, version, prior,
               base, kid, size, digest, salt, payload, why, link)
        # fmt: on


def _stored(proven: Proven, start: Start) -> Stored:
    # fmt: off
    (pos, branch, seq, hlc, author, kind, collection, key, fmt, flags, version, prior,
     base, kid, size, digest, salt, payload, why, link) = proven
    record = Record(start.stream, fmt, flags, seq, hlc, base, version, size, kind, author, collection, key,
                    kid or ZERO16, digest, link)
    # fmt: on
    return Stored(pos, branch, start.agent, prior, record, salt, codec.RAW, payload, why)


def without(
    segment: Segment, erased: Iterable[bytes], own: Container[int] | None = None
) -> tuple[list[Stored], Beside, int]:
    """Its records, and what stands beside, without the payloads of some; how many of them it held.

    Args:
        segment: as it was stored.
        erased: the links of the records.
        own: of a hub: the branches whose tags stand beside anyway; None: of an agent's log.
    """
    gone = set(erased)
    records, tags = [], []
    where: set[int] = set()
    for stored in segment.records:
        if stored.record.link in gone and (stored.body is not None or stored.salt):
            where.add(stored.pos)
            if own is not None and stored.branch not in own:
                # What does not quote the payload stays, and from here on it cannot be derived from it.
                tags += [[*tag, stored.pos] for tag in _derived(stored) if tag[0] < ROW_FIRST and tag[0] not in QUOTES]
            stored = msgspec.structs.replace(stored, body=None, salt=b"", codec=codec.RAW, why=wire.REDACTED)
        records.append(stored)
    if not where:
        return records, segment.beside, 0
    beside = {name: [row for row in rows if not _quotes(name, row, where)] for name, rows in segment.beside.items()}
    if tags:
        beside["tag"] = [*beside.get("tag", ()), *tags]
    return records, beside, len(where)


def _derived(stored: Stored) -> Sequence[tuple[int, str]]:
    try:
        return tags_of(stored.record, stored.payload()) if stored.body is not None else ()
    except HoldfastError:
        return ()


def _quotes(table: str, row: Sequence[Any], where: Container[int]) -> bool:
    """Whether a row beside holds what stood in the payload of one of the records at these positions."""
    if table == "tag":
        return row[2] in where and row[0] in QUOTES
    return table in ("session", "sample") and row[0] in where

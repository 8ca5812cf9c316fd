"""The short way through records that are in order: what a scan asks of each, asked of the row as it lies in its table.

Nearly every row is as it should be, and to take it apart into a record first costs more than to prove it. So a row is
held against the checks as it comes: its payload has the length and the hash that the header says, the header behind
the link before it gives its link, number, position and stamp follow, and it replaces the newest version of its key. A
row of which any of this cannot be said, for whatever reason, and each with a part of its own to play (erasures,
rotations, deletions by prefix, prunes, merges, blobs, the first of a chain, signed heads) goes the long way
(`Walk.see`), which alone makes findings. What is proven is the same on both; tests hold one against the other over
every fault they know.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.codec import RAW, ZSTD, unpack
from holdfast.corpus import Stored
from holdfast.corpus.rows import ARCHIVED
from holdfast.errors import HoldfastError
from holdfast.records import (
    BLOB,
    DELETE_PREFIX,
    INLINE_BYTES_MAX,
    KEY_BYTES_MAX,
    LINK_PREFIX,
    MAGIC,
    MERGE,
    PAYLOAD_PREFIX,
    PRUNE,
    REDACT,
    ROTATE,
    TOMBSTONE,
    VALUE,
    ZERO16,
    ZERO32,
    names_in_header,
    numbers_in_header,
)
from holdfast.wire import EVICTED, HERE, QUARANTINED

if TYPE_CHECKING:
    from holdfast.integrity.walk import Walk

_SPECIAL: Final = frozenset((REDACT, ROTATE, DELETE_PREFIX, PRUNE, MERGE))
_AWAY: Final = frozenset((EVICTED, QUARANTINED, ARCHIVED))
"""Why a body may be missing without a record that says so."""
_SAYS: Final = VALUE | TOMBSTONE
_MESSAGES: Final = 1  # the number of their collection's name in every file
_WIDTHS: Final = tuple(size.to_bytes(2, "big") for size in range(KEY_BYTES_MAX + 1))
_UNFIT: Final = (HoldfastError, TypeError, ValueError, LookupError, AttributeError, struct.error)
"""What is raised where a row is not what the short way takes it for."""


class Key(msgspec.Struct, gc=False):
    """What the log says of a key: its newest version and its number, what hides it, and the stamps of both."""

    pos: int
    version: int
    hlc: int
    gone: int
    gone_hlc: int


class Quick:
    """The short way of one walk, for one that makes all checks of records.

    Args:
        walk: whose long way it spares.
    """

    def __init__(self, walk: Walk) -> None:
        self._walk = walk
        self._places: dict[Any, Any] = {}  # by the numbers of branch and names: what these stand for
        self._signed: dict[int, set[int]] = {}
        for number, seq in walk.signed:
            self._signed.setdefault(number, set()).add(seq)
        self._newest = 0  # the newest message, of an agent's file

    def take(self, rows: Sequence[Any]) -> None:
        """Proves rows as `Snapshot.rows` gives them, in their order."""
        walk, places, latest, tips, passed = (
            self._walk,
            self._places,
            self._walk.latest,
            self._walk.tips,
            self._walk.passed,
        )
        hub, begin, newest, size = walk.corpus.hub, walk.begin, self._newest, 0
        for row in rows:
            # fmt: off
            (pos, branch, seq, hlc, agent, author, kind, coll, key, fmt, flags, version, prior,
             base, kid, plen, phash, salt, link, packing, why, body, back) = row
            # fmt: on
            try:
                line, number, start, names, keys, signed, listed = places[branch, agent, author, kind, coll]
                known, name = keys.get(key), key.encode()
                numbers = numbers_in_header(fmt, flags, seq, hlc, base or ZERO32, version, plen)
                header = b"".join((start, numbers, names, _WIDTHS[len(name)], name, kid or ZERO16, phash))
                if body is None:
                    fits = why in _AWAY
                elif packing == RAW:
                    fits = sha256(b"".join((PAYLOAD_PREFIX, salt, body))).digest() == phash
                    fits = fits and why == HERE and len(body) == plen <= INLINE_BYTES_MAX
                else:
                    payload = unpack(packing, body, plen)  # of that length, or it raises
                    fits = sha256(b"".join((PAYLOAD_PREFIX, salt, payload))).digest() == phash
                    fits = fits and why == HERE and packing == ZSTD and len(body) < plen <= INLINE_BYTES_MAX
                fits = (
                    fits
                    and sha256(b"".join((LINK_PREFIX, line.link, sha256(header).digest()))).digest() == link
                    and seq == line.seq + 1
                    and pos == (walk.pos + 1 if hub else seq)
                    and hlc > line.hlc
                    and seq > begin
                    and not flags & BLOB
                    and seq not in signed
                    and type(prior) is type(packing) is int
                )
                if fits and not hub and flags & _SAYS:
                    before = (0, 0) if known is None else (known.pos, known.version)
                    fits = before == (prior, version - 1)
            except _UNFIT:
                fits = False
            if fits:
                line.seq, line.link, line.hlc, walk.pos, latest[number], tips[branch] = seq, link, hlc, pos, row, row
                size += plen
                if body is None:
                    walk.scan.missing += 1
                if flags & _SAYS and not (hub and known is not None and _outlives(known, prior, hlc)):
                    gone = (pos, hlc) if flags & TOMBSTONE else (0, 0)
                    keys[key] = Key(pos, version, hlc, *gone)
                if listed:
                    walk.found_by.see(walk.stored(row))
            else:
                self._learn(row, walk.see(walk.stored(row)))
            if back < newest:
                passed.append((newest, pos))
            if coll == _MESSAGES and not hub:
                newest = pos
        self._newest = newest
        walk.bytes += size

    def _learn(self, row: Any, stored: Stored) -> None:
        """Keeps what the numbers in a row stand for, unless only the long way can judge such rows."""
        walk, record = self._walk, stored.record
        number = stored.branch if walk.single is None else walk.single
        line = walk.lines.get(number)
        if line is None or stored.branch not in walk.branches or line.stream != record.stream:
            return
        if record.kind in _SPECIAL or not record.collection:
            return
        keys = walk.state.setdefault((stored.agent, record.collection), {})
        names = names_in_header(record.kind, record.author, record.collection)
        start, signed = MAGIC + record.stream, self._signed.get(number, set())
        listed = walk.found_by.wants(stored.branch, record.collection)
        place = line, number, start, names, keys, signed, listed
        self._places[row[1], row[4], row[5], row[6], row[7]] = place


def _outlives(known: Key, prior: int, hlc: int) -> bool:
    """Whether another branch's value of a key is newer than one that does not replace it."""
    return known.pos != prior and max(known.hlc, known.gone_hlc) > hlc

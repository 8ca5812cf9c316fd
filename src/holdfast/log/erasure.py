"""Erasing payloads for good: a signed redact record names them, and wins over them in any order of arrival.

A redact record (kind ``redact``, no collection, no key, no flags; docs/record-v1.md) lies in the stream whose records it
erases, so nobody but that stream's agent can make one; it is signed as every record is, by the head above it. It names
what it erases by the names of the data keys (`kids`) that sealed them, or by their links. The records stay, without body
and salt and with ``why`` 3, and the chain still proves itself, since it covers payloads only through their hashes.

**For whoever puts old data back (backups, restores).** A restored file holds what was erased since. So:

* `erasures(corpus)` is the list of all erasures in a corpus. A backup's manifest carries it, in `to_wire` form (JSON
  values; it grows by one entry of about 200 bytes for an erased subject, and holds no name of anybody).
* `reapply(corpus, blobs, erasures)` erases again, in a corpus that was just put back, whatever a list names, whether or
  not the redact record itself was put back with it; several lists may be joined. To be called before the restored file
  is shown to anybody, and before it is verified: the scan says of each such record that it was redacted. It may be
  called again at any time; what is erased already costs one look.
* `redacted(erasures, record)` says of one record whether its body must not be written at all, for a restore that
  rebuilds rows from segments. Such a row is written with ``body=None``, ``salt=b""``, ``codec=0``, ``why=3``.
* Segments and blobs that hold erased bodies expire with their backups; those of sealed collections are noise at once,
  since the key is gone. keys.db is in no data backup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

import msgspec

from holdfast import codec, wire
from holdfast.corpus import SqlCorpus, Stored
from holdfast.corpus.rows import COLUMNS
from holdfast.corpus.transaction import SqlTransaction
from holdfast.errors import HoldfastError, UsageError
from holdfast.log.drafts import Draft
from holdfast.records import BLOB, REDACT, ZERO16, Record

NAMED_MAX: Final = 400
"""Links in one redact record: it stays well below the inline limit."""
LOT: Final = 200
"""Bodies taken away in one transaction: some milliseconds that a writer may have to wait."""


class Erasure(msgspec.Struct, frozen=True):
    """What one redact record erases: records of one stream, by the keys that sealed them or by their links.

    Attributes:
        stream: the 16-byte stream.
        kids: names of data keys, 16 bytes each.
        links: links of records, 32 bytes each.
        reason: what was said for it; never who it was about.
    """

    stream: bytes
    kids: frozenset[bytes] = frozenset()
    links: frozenset[bytes] = frozenset()
    reason: str = ""

    def names(self, record: Record) -> bool:
        """Whether it erases this record."""
        return record.stream == self.stream and (record.kid in self.kids or record.link in self.links)

    def to_wire(self) -> dict[str, Any]:
        """JSON values, for a manifest."""
        return {
            "stream": self.stream.hex(),
            "kids": sorted(kid.hex() for kid in self.kids),
            "links": sorted(link.hex() for link in self.links),
            "reason": self.reason,
        }

    @classmethod
    def from_wire(cls, told: Any) -> Erasure:
        """The inverse of `to_wire`.

        Raises:
            UsageError: it is none.
        """
        try:
            found = msgspec.convert(told, _Told)
            return _read(bytes.fromhex(found.stream), found)
        except (msgspec.ValidationError, ValueError) as error:
            raise UsageError(f"this names no erasure: {error}") from error


class _Told(msgspec.Struct):
    kids: list[str] = []
    links: list[str] = []
    reason: str = ""
    stream: str = ""


class Blobs(Protocol):
    """Where blobs are removed from."""

    def delete(self, digest: bytes) -> bool:
        """Removes a blob; False if there was none."""
        ...


class Erased(msgspec.Struct):
    """What an erasure did: how many bodies it took away, and which blobs they referred to."""

    records: int = 0
    digests: set[bytes] = msgspec.field(default_factory=set)

    def __iadd__(self, other: Erased) -> Erased:
        self.records += other.records
        self.digests |= other.digests
        return self


# -- what a redact record says --------------------------------------------------------------------------------------


def drafts_of(kids: Iterable[bytes], links: Sequence[bytes], reason: str = "") -> list[Draft]:
    """Redact records for the stream that they are appended to: as many as the names need."""
    said = [_Told([kid.hex() for kid in sorted(kids)], [], reason)] if kids else []
    for first in range(0, len(links), NAMED_MAX):
        said.append(_Told([], [link.hex() for link in links[first : first + NAMED_MAX]], reason))
    out = []
    for each in said:
        told = {"kids": each.kids, "links": each.links, "reason": each.reason}
        out.append(Draft(REDACT, "", "", *codec.serialise(told), flags=0))
    return out


def is_redact(record: Record) -> bool:
    """Whether this is a redact record, and not somebody's value of that kind."""
    return record.kind == REDACT and not record.collection and not record.flags & ~wire_more()


def erasure_of(record: Record, payload: bytes) -> Erasure:
    """What a redact record erases.

    Raises:
        UsageError: its payload says nothing that this version knows.
    """
    try:
        return _read(record.stream, msgspec.json.decode(payload, type=_Told))
    except (msgspec.DecodeError, ValueError) as error:
        raise UsageError(f"the redact record at seq {record.seq} cannot be read: {error}", seq=record.seq) from error


def wire_more() -> int:
    """The only flag that a redact record may have: it may stand in a batch."""
    from holdfast.records import MORE

    return MORE


def _read(stream: bytes, told: _Told) -> Erasure:
    kids, links = (frozenset(map(bytes.fromhex, names)) for names in (told.kids, told.links))
    if any(len(kid) != 16 or kid == ZERO16 for kid in kids) or any(len(link) != 32 for link in links):
        raise ValueError("a kid has 16 bytes, not all of them zero, and a link 32")
    return Erasure(stream, kids, links, told.reason)


def erasures(corpus: SqlCorpus) -> list[Erasure]:
    """Every erasure that a corpus holds, oldest first; a redact record whose payload is not here says nothing."""
    return list(_erasures(corpus.query, corpus.stored))


def _erasures(query: Callable[..., Any], stored: Callable[[Any], Stored]) -> Iterator[Erasure]:
    sql = (
        f"SELECT {COLUMNS} FROM rec r WHERE r.coll=(SELECT id FROM name WHERE s='')"
        " AND r.kind=(SELECT id FROM name WHERE s=?) ORDER BY r.pos"
    )
    for row in query(sql, (REDACT,)):
        found = stored(row)
        if is_redact(found.record) and found.body is not None:
            yield erasure_of(found.record, found.payload())


def redacted(known: Iterable[Erasure], record: Record) -> bool:
    """Whether any of these erasures names a record."""
    return any(each.names(record) for each in known)

"""Makes a backup: the records that came since the last one, as new segments, and a signed list of all of them.

A part that does not go on where its last backup stood (it was put back, or is another one) is backed up anew. Many
small segments become one now and then, read from the repository and not from the source, which may have let go of
bodies since. Segments with a payload that was erased are written anew without it; the old ones go with the last backup
that names them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeAlias

import msgspec

from holdfast.clock import SYSTEM, Clock
from holdfast.corpus import Stored
from holdfast.errors import Conflict, HoldfastError, IntegrityError
from holdfast.integrity.backup import segment as segments
from holdfast.integrity.backup import source as reading
from holdfast.integrity.backup.manifest import FORMAT, BlobEntry, Manifest, Packed, PartEntry, SegmentEntry
from holdfast.integrity.backup.repository import Repository, pieces_of
from holdfast.integrity.backup.segment import Beside, Start
from holdfast.integrity.backup.source import Part, Source, Tables
from holdfast.records import MORE, read_blob_reference
from holdfast.wire import Mark

SMALL_MAX: Final = 32
"""So many small segments at the end of a part become one."""
LOOK_EVERY_MS: Final = 24 * 3_600_000
"""How often all records are searched for erased ones, when no new record says that there are any."""
COMMIT_S_MAX: Final = 24 * 3600.0
"""Half the time after which prune deletes what nothing refers to: a backup that took longer is not made."""

ANEW: Final = "holdfast backup create --anew stores all of it again"

Told: TypeAlias = Callable[[str, int, int], None]


class Created(msgspec.Struct, kw_only=True):
    """What a backup holds, and what it took.

    Attributes:
        backup: its name.
        records, new_records: how many it holds; how many of them no backup had before.
        segments, new_segments: the same of segments.
        blobs: how many blobs were stored.
        bytes: what was written to the store.
        erased: payloads that older segments held, and the new ones do not.
        missing: bodies and blobs that are not here to be backed up (evicted, quarantined).
        seconds: how long it took.
    """

    backup: str = ""
    records: int = 0
    new_records: int = 0
    segments: int = 0
    new_segments: int = 0
    blobs: int = 0
    bytes: int = 0
    erased: int = 0
    missing: int = 0
    seconds: float = 0.0


def create(
    repository: Repository,
    source: Source,
    *,
    anew: bool = False,
    wall: Clock = SYSTEM,
    told: Told = lambda *_: None,
) -> Created:
    """Backs up a node or a hub while it works; the backup is made when this returns.

    Args:
        repository: where to.
        source: what; only read.
        anew: build on no earlier backup: all of it is read and stored again, where what is there is damaged.
        wall: the clock.
        told: hears how far it is.

    Raises:
        Conflict: the repository is another node's or hub's.
        IntegrityError: a record of the source, or what the last backup built on, is damaged; no backup was made.
        StorageError: the store failed; no backup was made.
    """
    begun = time.monotonic()
    repository.begin(source.public_key)
    signer = source.signer(repository.keys[0])
    if signer is None:
        raise Conflict(
            f"the backups in {repository.store.name} are signed by a key that {source.name} does not have",
            hint="they are another node's or hub's: give each an address of its own",
        )
    names = repository.names()
    previous = _previous(repository, names[-1]) if names and not anew else None
    made = Created()
    now = max(wall.now_ms(), int(names[-1][:13]) + 1 if names else 0)
    looks = previous is None or not 0 <= now - previous.looked_ms < LOOK_EVERY_MS
    before = _parts(repository, previous)
    parts = []
    for part in source.parts:
        parts.append(_Writer(repository, part, before.get(part.place), made, told).run(looks))
    documents = _documents(repository, previous, source.documents)
    if time.monotonic() - begun > COMMIT_S_MAX:
        raise IntegrityError("the backup took too long: what it builds on may be gone", hint="run it again")
    manifest = Manifest(
        format=FORMAT,
        repository=repository.about.id,
        made_ms=now,
        previous=names[-1] if names else "",
        parts=parts,
        documents=documents,
        looked_ms=now if looks or previous is None else previous.looked_ms,
    )
    made.backup = repository.add(manifest, signer)
    made.records, made.segments = manifest.records, sum(len(part.segments) for part in parts)
    made.seconds = time.monotonic() - begun
    return made


def _previous(repository: Repository, name: str) -> Manifest:
    try:
        return repository.backup(name)
    except IntegrityError as error:
        raise IntegrityError(f"the last backup, {name}, cannot be built on: {error.message}", hint=ANEW) from error


def _parts(repository: Repository, previous: Manifest | None) -> dict[str, tuple[PartEntry, Tables]]:
    if previous is None:
        return {}
    found = [(entry, repository.document(entry.tables, Tables)) for entry in previous.parts]
    return {tables.place: (entry, tables) for entry, tables in found}


def _documents(repository: Repository, previous: Manifest | None, documents: dict[str, bytes]) -> Any:
    if previous is not None and repository.document(previous.documents, dict[str, bytes]) == documents:
        return previous.documents
    return repository.put_document(documents)


class _Writer:
    """Backs up one part."""

    def __init__(
        self,
        repository: Repository,
        part: Part,
        before: tuple[PartEntry, Tables] | None,
        made: Created,
        told: Told,
    ) -> None:
        self.repository, self.part, self.made, self.told = repository, part, made, told
        self.entry: PartEntry | None = None
        self.old: Tables | None = None
        if before is not None:
            self.entry, self.old = before
        self.ends: dict[int, Mark] = {}
        self.blobs: dict[str, BlobEntry] = {}

    def run(self, looks: bool) -> PartEntry:
        """The entry of the part in the new backup."""
        tables = reading.moment(self.part)
        entries = self.kept(tables)
        after = entries[-1].last if entries else 0
        fresh = not entries
        self.ends = {branch: Mark(seq, bytes.fromhex(link)) for e in entries for branch, seq, link in e.ends}
        self.blobs = {blob.digest: blob for each in entries for blob in each.blobs}
        redacted = False

        def watched() -> Iterator[Stored]:
            nonlocal redacted
            for stored in reading.records(self.part, after, tables.pos):
                redacted = redacted or stored.record.kind == reading.REDACT
                yield stored

        entries = entries + list(self.write(watched(), (after, tables.pos), tables))
        tables.erased = self.old.erased if self.old is not None else []
        if looks or redacted or fresh:
            found = {*tables.erased, *reading.erased(self.part, tables.pos)}
            new = found.difference(tables.erased)
            tables.erased = sorted(found)
            if new:
                entries = [self.erase(each, new, tables) for each in entries]
        entries = self.merge(entries, tables)
        heads = {branch: (branch, seq, link) for each in entries for branch, seq, link in each.ends}
        packed = self.repository.put_document(tables)
        self.made.bytes += packed.size
        return PartEntry(
            kind=self.part.kind,
            segments=entries,
            tables=packed,
            pos=tables.pos,
            heads=sorted(heads.values()),
            records=sum(each.records for each in entries),
        )

    def kept(self, tables: Tables) -> list[SegmentEntry]:
        """The segments of the last backup, if this part goes on where that stood."""
        if self.entry is None or self.old is None or not self.entry.segments:
            return []
        last = self.entry.segments[-1]
        if last.last > tables.pos or last.last != self.entry.pos or self.old.kind != self.part.kind:
            return []
        link = reading.link_at(self.part, last.last).hex()
        return list(self.entry.segments) if any(link == end[2] for end in last.ends) else []

    def write(self, found: Iterable[Stored], span: tuple[int, int], tables: Tables) -> Iterator[SegmentEntry]:
        """New segments of records that are read from the source; `span` is (behind this position, up to this)."""
        after, upto = span
        bases = {row[0]: row for row in tables.rows["branch"]}
        agents = {row[0]: row for row in tables.rows["stream"]}
        names = {row[0]: row[1] for row in tables.rows["name"]}
        own = tables.own
        for lot, more in _lots(found):
            last = lot[-1].pos if more else upto
            starts = {}
            for branch in dict.fromkeys(stored.branch for stored in lot):
                row = bases[branch]
                stream = agents[row[1]]
                at = self.ends.get(branch) or Mark(row[4], row[5])
                starts[branch] = Start(branch, stream[1], names[stream[2]], at.seq, at.link)
            ends = {stored.branch: Mark(stored.record.seq, stored.record.link) for stored in lot}
            told = {stored.pos for stored in lot if reading.explicit(stored, own, self.part.kind)}
            before = {branch: Mark(start.seq, start.link) for branch, start in starts.items()}
            beside = reading.beside(self.part, (after + 1, last), told, before, ends)
            self.made.new_records += len(lot)
            self.made.missing += sum(stored.body is None for stored in lot)
            yield self.store(lot, (after + 1, last), starts, beside)
            self.ends |= ends
            after = last
            self.told("back up records", self.made.new_records, 0)

    def store(self, lot: list[Stored], span: tuple[int, int], starts: dict[int, Start], beside: Beside) -> SegmentEntry:
        """Stores one segment, and the blobs that it refers to and that are not stored yet."""
        content = segments.encode(lot, span, starts, beside, os.urandom(16))
        blobs = [entry for entry in map(self.blob, _digests(lot)) if entry is not None]
        packed = self.repository.put(content, "segment")
        self.made.bytes += packed.size
        self.made.new_segments += 1
        ends = {stored.branch: (stored.branch, stored.record.seq, stored.record.link.hex()) for stored in lot}
        return SegmentEntry(
            id=packed.id,
            size=packed.size,
            first=span[0],
            last=span[1],
            records=len(lot),
            ends=list(ends.values()),
            blobs=blobs,
        )

    def blob(self, digest: bytes) -> BlobEntry | None:
        """The entry of a blob, stored if it is not yet; None if it is not here."""
        known = self.blobs.get(digest.hex())
        if known is None:
            if not self.part.blobs.has(digest):
                self.made.missing += 1
                return None
            with self.part.blobs.open(digest) as reader:
                known = self.blobs[digest.hex()] = self.repository.put_blob(digest, pieces_of(reader))
            self.made.blobs += 1
            self.made.bytes += known.size
        return known

    # -- segments that are there already -------------------------------------------------------------------------

    def erase(self, entry: SegmentEntry, links: set[bytes], tables: Tables) -> SegmentEntry:
        """The same segment without the payloads of these records."""
        found = self.read(entry)
        own = tables.own if self.part.kind == reading.HUB else None
        records, beside, number = segments.without(found, links, own)
        if not number:
            return entry
        self.made.erased += number
        return self.store(records, (entry.first, entry.last), found.starts, beside)

    def merge(self, entries: list[SegmentEntry], tables: Tables) -> list[SegmentEntry]:
        """The segments, with many small ones at the end made one."""
        at = len(entries)
        while at and entries[at - 1].records < segments.RECORDS_MAX // 2:
            if entries[at - 1].size > segments.BYTES_MAX // 4:
                break
            at -= 1
        if len(entries) - at < SMALL_MAX:
            return entries
        out = entries[:at]
        group: list[SegmentEntry] = []
        for entry in entries[at:]:
            size = sum(each.size for each in group) + entry.size
            if group and (sum(e.records for e in group) + entry.records > segments.RECORDS_MAX
                          or size > segments.BYTES_MAX // 2):  # fmt: skip
                out.append(self.join(group))
                group = []
            group.append(entry)
        return [*out, self.join(group)]

    def join(self, entries: list[SegmentEntry]) -> SegmentEntry:
        """One segment of several that follow each other."""
        if len(entries) == 1:
            return entries[0]
        starts: dict[int, Start] = {}
        records: list[Stored] = []
        beside: Beside = {}
        for entry in entries:
            found = self.read(entry)
            starts = found.starts | starts
            records += found.records
            for table, rows in found.beside.items():
                beside.setdefault(table, []).extend(rows)
        return self.store(records, (entries[0].first, entries[-1].last), starts, beside)

    def read(self, entry: SegmentEntry) -> segments.Segment:
        """A stored segment, proven to be the one that its entry describes."""
        return read_segment(self.repository, entry)


def read_segment(repository: Repository, entry: SegmentEntry, content: bytes | None = None) -> segments.Segment:
    """A segment, proven to be the one that its entry describes.

    Args:
        repository: where it is.
        entry: what the signed manifest says of it.
        content: its plain bytes, if they were read already.

    Raises:
        IntegrityError: missing, damaged, or another one.
    """
    if content is None:
        content = repository.get(Packed(entry.id, entry.size), "segment")
    found = segments.decode(content)
    ends = sorted((branch, mark.seq, mark.link.hex()) for branch, mark in found.ends.items())
    said = (entry.first, entry.last, entry.records, sorted(entry.ends))
    if (found.first, found.last, len(found.rows), ends) != said:
        raise IntegrityError(f"the segment {entry.id} does not hold what its backup says")
    return found


def _lots(found: Iterable[Stored]) -> Iterator[tuple[list[Stored], bool]]:
    """The records in lots of one segment each, never cut inside a batch; and whether more come."""
    lot: list[Stored] = []
    size = 0
    for stored in found:
        full = len(lot) >= segments.RECORDS_MAX or size >= segments.BYTES_MAX
        if full and not lot[-1].record.flags & MORE:
            yield lot, True
            lot, size = [], 0
        lot.append(stored)
        size += stored.record.payload_len + 100
    if lot:
        yield lot, False


def _digests(lot: Iterable[Stored]) -> list[bytes]:
    """The blobs that these records refer to, each once."""
    found: dict[bytes, None] = {}
    for stored in lot:
        if stored.is_blob and stored.body is not None:
            try:
                found[read_blob_reference(stored.payload())[0]] = None
            except HoldfastError as error:
                raise IntegrityError(f"a reference to a blob is damaged: {error.message}") from error
    return list(found)

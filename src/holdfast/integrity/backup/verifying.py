"""Reads all of a backup again, and says what of it is not as it was written; changes nothing.

Without the keys of a sealed repository it proves every object by its SHA-256, and the manifests by their signatures;
with them, or unsealed, also that every segment is the chain that the manifest says.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from holdfast.errors import HoldfastError, IntegrityError
from holdfast.integrity.backup.making import Told, read_segment
from holdfast.integrity.backup.manifest import Manifest, Packed, SegmentEntry
from holdfast.integrity.backup.repository import Repository
from holdfast.integrity.backup.source import Tables
from holdfast.wire import Mark


class Verified(msgspec.Struct, kw_only=True):
    """What was looked at, and what is wrong.

    Attributes:
        backups: their names.
        findings: what is wrong, in words; empty when all is proven.
        objects, blobs: how many were read.
        bytes: what was read.
        records: how many records were taken apart (0 of a sealed repository without its keys).
        seconds: how long it took.
    """

    backups: list[str] = []
    findings: list[str] = []
    objects: int = 0
    blobs: int = 0
    bytes: int = 0
    records: int = 0
    seconds: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def verify(repository: Repository, names: Sequence[str] = (), *, told: Told = lambda *_: None) -> Verified:
    """Reads backups, each object once, and says what is not as it was written.

    Args:
        repository: where they are.
        names: which; empty: all.
        told: hears how far it is.

    Returns:
        What was found. Damage never raises.

    Raises:
        NotFound: there is no such backup, or none at all.
        StorageUnavailable: the store does not answer.
    """
    begun = time.monotonic()
    found = Verified()
    seen: set[str] = set()
    repository.keys  # noqa: B018 - raises where there are no backups
    for name in names or repository.names():
        found.backups.append(name)
        try:
            manifest = repository.backup(name)
        except IntegrityError as error:
            found.findings.append(error.message)
            continue
        _Reader(repository, manifest, found, seen).run(told)
    found.seconds = time.monotonic() - begun
    return found


class _Reader:
    """Reads one backup."""

    def __init__(self, repository: Repository, manifest: Manifest, found: Verified, seen: set[str]) -> None:
        self.repository, self.manifest, self.found, self.seen = repository, manifest, found, seen
        self.opens = not repository.about.sealed or repository.ring is not None

    def run(self, told: Told) -> None:
        """Reads every object of it that was not read yet."""
        manifest, found = self.manifest, self.found
        total = len(manifest.objects())
        self.document(manifest.documents, dict[str, bytes])
        for part in manifest.parts:
            self.document(part.tables, Tables)
            ends: dict[int, tuple[int, int, str]] = {}
            after = 0
            for entry in part.segments:
                if entry.first != after + 1:
                    self.say(f"the segments of a part do not follow each other at position {after}")
                after = entry.last
                if entry.id not in self.seen:
                    self.seen.add(entry.id)
                    stood = {end[0]: Mark(end[1], bytes.fromhex(end[2])) for end in ends.values()}
                    self.segment(Packed(entry.id, entry.size), entry, stood)
                ends |= {end[0]: end for end in entry.ends}
                told("read objects", found.objects, total)
            if sorted(ends.values()) != sorted(part.heads) or (part.segments and after != part.pos):
                self.say("a part does not end where its backup says")
        for blob in manifest.blobs().values():
            if blob.name not in self.seen:
                self.seen.add(blob.name)
                found.blobs += 1
                found.bytes += blob.size
                try:
                    self.repository.check_blob(blob)
                except IntegrityError as error:
                    self.say(error.message)

    def segment(self, packed: Packed, entry: SegmentEntry, ends: dict[int, Mark]) -> None:
        """Reads one segment: its bytes, its chain, and that it begins where those before it ended."""
        try:
            data = self.read(packed)
            if not self.opens:
                return
            found = read_segment(self.repository, entry, self.repository.opened(data, "segment"))
            self.found.records += len(found.rows)
            for branch, start in found.starts.items():
                if branch in ends and Mark(start.seq, start.link) != ends[branch]:
                    self.say(f"the segment {packed.id} does not go on where the one before it ended")
        except IntegrityError as error:
            self.say(error.message)

    def document(self, packed: Packed, kind: type) -> None:
        """Reads a document."""
        if packed.id in self.seen:
            return
        self.seen.add(packed.id)
        try:
            self.read(packed)
            if self.opens:
                self.repository.document(packed, kind)
        except HoldfastError as error:
            if not isinstance(error, IntegrityError):
                raise
            self.say(error.message)

    def read(self, packed: Packed) -> bytes:
        """The stored bytes of an object, proven by its name."""
        self.found.objects += 1
        self.found.bytes += packed.size
        return self.repository.stored(packed)

    def say(self, what: str) -> None:
        """Keeps a finding."""
        self.found.findings.append(what)

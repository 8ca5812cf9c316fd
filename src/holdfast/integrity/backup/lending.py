"""A repository of backups as a place that recovery takes lost records and blobs from (`holdfast.integrity.source`).

A node's own repository, or that of its hub: both hold its chains. Backups that a drill has verified are asked first,
the newest of them before the others; of one that cannot be read the next is tried. What any of them calls erased is
given without its payload, from whichever it comes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from holdfast import wire
from holdfast.corpus import Stored
from holdfast.errors import HoldfastError, IntegrityError, NotFound
from holdfast.integrity.backup.making import read_segment
from holdfast.integrity.backup.manifest import BlobEntry, Manifest, PartEntry, SegmentEntry
from holdfast.integrity.backup.repository import Repository
from holdfast.integrity.backup.source import HUB, Tables
from holdfast.integrity.source import BACKUP, Held, Kind
from holdfast.records import encode_header
from holdfast.wire import Item, Mark

BACKUPS_MAX: Final = 8
"""So many backups are looked into: segments are shared, so an older one seldom has what the newest has not."""
_UNPROVEN: Final = bytes(64)
"""A signature that none of the node's keys made."""


class _Row(msgspec.Struct, frozen=True):
    """A branch as a backup knows it."""

    id: int
    inc: bytes
    parent: int | None
    base: int
    head: Mark
    signature: bytes


class _Part(msgspec.Struct, frozen=True):
    """One file in one backup: its entry, what stands beside it, and the branches of the stream asked for."""

    entry: PartEntry
    tables: Tables
    branches: dict[int, _Row]
    public_key: bytes


class BackupSource:
    """One repository. Used by one thread at a time.

    Args:
        repository: the backups; its owner closes its store.
        keys: the node's public keys: where one of them signs the repository, its heads need no other signature.
    """

    def __init__(self, repository: Repository, keys: Sequence[bytes] = ()) -> None:
        self._repository, self._keys = repository, list(keys)
        self._order: list[str] = []
        self._found: dict[bytes, _Part] = {}
        self._erased: set[bytes] | None = None
        self._blobs: dict[str, BlobEntry] | None = None
        self._segment: tuple[str, list[Stored]] = ("", [])

    @property
    def name(self) -> str:
        """The repository."""
        return f"backup {self._repository.store.name}"

    @property
    def kind(self) -> Kind:
        """A backup."""
        return BACKUP

    def held(self, stream: bytes, agent: str) -> list[Held]:
        """The chains in the newest backup that has any of the stream.

        Raises:
            NotFound: there are no backups.
            IntegrityError: none of them can be read.
        """
        trouble: HoldfastError | None = None
        for name in self._names():
            try:
                part = self._part(self._repository.backup(name), stream)
            except (IntegrityError, NotFound) as error:
                trouble = error
                continue
            if part is not None:
                self._found[stream] = part
                return list(self._chains(part, stream, agent))
        if trouble is not None:
            raise trouble
        return []

    def fetch(self, stream: bytes, branch: bytes, first: int, last: int) -> Iterator[Item]:
        """The records of a chain, payloads as they were written; it ends where the backup begins later, or has a hole.

        Raises:
            IntegrityError: a segment is missing, or damaged.
        """
        part = self._found[stream]
        row = next((each for each in part.branches.values() if each.inc == branch), None)
        if row is None:
            return
        own = part.entry.kind != HUB
        ways = [(None, 0, row.head.seq)] if own else list(_ancestry(part.branches, row))
        erased, wanted = self._gone(), first
        for number, low, high in reversed(ways):
            for entry in part.entry.segments:
                if wanted > min(last, high):
                    break
                if (own and entry.last < wanted) or (not own and not _reaches(entry, number, wanted)):
                    continue
                for stored in self._records(entry):
                    seq = stored.record.seq
                    if number not in (None, stored.branch) or not max(low + 1, wanted) <= seq <= high:
                        continue
                    if seq != wanted or seq > last:
                        return
                    yield _item(stored, stored.record.link in erased)
                    wanted += 1

    def blob(self, digest: bytes, size: int) -> Iterator[bytes] | None:
        """The bytes of a blob in pieces, or None; whoever takes them checks the digest."""
        if self._blobs is None:
            self._blobs = {}
            for name in reversed(self._names()):
                try:
                    self._blobs |= {each.digest: each for each in self._repository.backup(name).blobs().values()}
                except IntegrityError:
                    continue
        entry = self._blobs.get(digest.hex())
        return None if entry is None else self._repository.blob(entry)

    # -- inside --------------------------------------------------------------------------------------------------

    def _names(self) -> list[str]:
        """The backups in the order in which they are asked."""
        if not self._order:
            names = self._repository.names()[::-1]
            if not names:
                raise NotFound(f"there are no backups in {self._repository.store.name}", hint="holdfast backup create")
            verified = self._repository.verified()
            self._order = sorted(names, key=lambda name: name not in verified)[:BACKUPS_MAX]
        return self._order

    def _gone(self) -> set[bytes]:
        """The links of the records that were erased, as far as any of the backups that can be read knows.

        Raises:
            IntegrityError: the newest cannot be read: nobody can say what was erased since the others.
        """
        if self._erased is None:
            newest = self._repository.names()[-1]
            found = self._links(newest)
            for name in self._names():
                with contextlib.suppress(IntegrityError):
                    found |= self._links(name) if name != newest else set()
            self._erased = found
        return self._erased

    def _links(self, name: str) -> set[bytes]:
        parts = self._repository.backup(name).parts
        return {link for part in parts for link in self._repository.document(part.tables, Tables).erased}

    def _part(self, manifest: Manifest, stream: bytes) -> _Part | None:
        for entry in manifest.parts:
            tables = self._repository.document(entry.tables, Tables)
            row = next((row for row in tables.rows["stream"] if bytes(row[1]) == stream), None)
            if row is None:
                continue
            heads = {branch: Mark(seq, bytes.fromhex(link)) for branch, seq, link in entry.heads}
            branches = {}
            for each in tables.rows["branch"]:
                if each[1] == row[0]:
                    head = heads.get(each[0], Mark(each[4], bytes(each[5])))
                    signed = bytes(each[8] or b"") if head.seq == each[6] else b""
                    branches[each[0]] = _Row(each[0], bytes(each[2]), each[3], each[4], head, signed)
            if branches:
                return _Part(entry, tables, branches, bytes(row[3]))
        return None

    def _chains(self, part: _Part, stream: bytes, agent: str) -> Iterator[Held]:
        ours = self._repository.keys[0] in self._keys
        found = list(part.branches.values())
        if part.entry.kind != HUB:  # an agent's file holds one chain, whatever incarnations it went through
            newest = max(found, key=lambda each: each.head.seq)
            found = [msgspec.structs.replace(found[-1], head=newest.head)]
            part.branches[found[0].id] = found[0]
        for each in found:
            signature = b"" if ours else each.signature or _UNPROVEN
            yield Held(agent, stream, part.public_key, each.inc, each.head, signature)

    def _records(self, entry: SegmentEntry) -> list[Stored]:
        if self._segment[0] != entry.id:
            self._segment = (entry.id, read_segment(self._repository, entry).records)
        return self._segment[1]


def _ancestry(branches: dict[int, _Row], row: _Row) -> Iterator[tuple[int, int, int]]:
    """The branches that a chain leads through, newest first: which, behind which number, up to which."""
    high, seen = row.head.seq, set[int]()
    while row.id not in seen:
        seen.add(row.id)
        yield row.id, row.base, high
        high = min(high, row.base)
        if row.parent is None or row.parent not in branches:
            return
        row = branches[row.parent]


def _reaches(entry: SegmentEntry, branch: int | None, seq: int) -> bool:
    """Whether a segment of a hub's file may hold this record of a branch."""
    return any(number == branch and end >= seq for number, end, _ in entry.ends)


def _item(stored: Stored, erased: bool) -> Item:
    if erased or stored.why == wire.REDACTED:
        return Item(encode_header(stored.record), b"", 0, None, wire.REDACTED)
    return stored.item()

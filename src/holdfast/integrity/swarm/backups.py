"""Copies of the newest version of each value, in a place of their own: each version once, by its digest.

A backup is a list, proven by its own digest, of versions and where they lie; making one writes only what no backup has
yet, and leaves alone what has not changed. Nothing here is ever changed; what no list names any more is taken away by
`sweep`. These are the storage's own, for one value at a time; whole logs are backed up by `holdfast.integrity.backup`
where that is at hand.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from holdfast import codec
from holdfast.errors import IntegrityError, NotFound, ObjectCorrupt, ObjectNotFound
from holdfast.integrity.swarm.package import Kept, packed, proven, unpacked
from holdfast.integrity.swarm.shelf import Blobs, Shelf
from holdfast.objects.port import ObjectStore
from holdfast.objects.raw import PIECE_BYTES

LISTS: Final = "lists/"
PACKAGES: Final = "packages/"
BLOBS: Final = "blobs/"


class Entry(msgspec.Struct, frozen=True):
    """A version in a backup: what is known of it, and the digest of its package (empty: it says "deleted")."""

    kept: Kept
    package: str = ""


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A backup: when it was made, of which log up to which number, and what is in it by name."""

    made: float
    log: str = ""
    seq: int = 0
    entries: dict[str, Entry] = {}


class BackupResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup did.

    Attributes:
        backup_id: its name.
        values: how many it holds.
        written: how many of them no backup had yet.
        written_bytes: the bytes of these.
        failed: what could not be read here, by name, and why; an older copy of it is kept where there is one.
    """

    backup_id: str
    values: int
    written: int
    written_bytes: int
    failed: dict[str, str] = {}


class Backups:
    """The backups of one storage.

    Args:
        store: where they lie.
        lock: a file that whoever writes here holds.
    """

    def __init__(self, store: ObjectStore, lock: Path) -> None:
        self.store = store
        self._lock_path = lock
        self._known: dict[str, Listed] = {}
        self._thread = threading.Lock()

    def names(self) -> list[str]:
        """The backups, oldest first."""
        return [info.key.removeprefix(LISTS) for info in self.store.list(LISTS)]

    def listed(self, name: str) -> Listed:
        """What a backup holds, proven by its name.

        Raises:
            IntegrityError: it is not what was written.
            NotFound: there is no such backup.
        """
        found = self._known.get(name)
        if found is None:
            data = self.store.read(LISTS + name)
            if hashlib.sha256(data).hexdigest()[:32] != name.rpartition("-")[2]:
                raise IntegrityError(f"the list of backup {name} is not what was written", hint="an older one may be")
            found = self._known[name] = msgspec.json.decode(data, type=codec.ready(Listed))
        return found

    def newest_first(self) -> Iterator[tuple[str, Listed]]:
        """The backups whose lists are whole."""
        for name in reversed(self.names()):
            with contextlib.suppress(IntegrityError, NotFound):
                yield name, self.listed(name)

    def holding(self, data_id: str) -> list[tuple[str, float, Entry]]:
        """The backups that hold a value: name, when made, and which version; newest first."""
        return [
            (name, each.made, each.entries[data_id]) for name, each in self.newest_first() if data_id in each.entries
        ]

    # -- making -------------------------------------------------------------------------------------------------

    def make(self, shelf: Shelf, now: float) -> BackupResult:
        """Backs up the newest version of every value; writes only what no backup has yet.

        Raises:
            StorageError: the place of the backups failed; the backups that were there are as they were.
        """
        with self._alone():
            last = next(self.newest_first(), None)
            before = last[1].entries if last else {}
            there = {info.key for prefix in (PACKAGES, BLOBS) for info in self.store.list(prefix)}
            log, seq = shelf.head()  # before anything is read: what is written meanwhile belongs to the next one
            entries: dict[str, Entry] = {}
            failed: dict[str, str] = {}
            written = size = 0
            names = dict.fromkeys(before)
            try:
                names |= dict.fromkeys(shelf.ids())
            except IntegrityError as error:
                failed[""] = error.message
            for data_id in names:
                try:
                    entry, new = self._entry(shelf, data_id, before.get(data_id), there)
                    entries[data_id] = entry
                    written, size = written + (new > 0), size + new
                except (IntegrityError, NotFound) as error:
                    failed[data_id] = error.message
                    if data_id in before:
                        entries[data_id] = before[data_id]
            made = Listed(made=now, log=log, seq=seq, entries=entries)
            data = msgspec.json.encode(made)
            stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%S%fZ")  # names sort by time
            name = f"{stamp}-{hashlib.sha256(data).hexdigest()[:32]}"
            self.store.put(LISTS + name, data, content_type="application/json")
        return BackupResult(backup_id=name, values=len(entries), written=written, written_bytes=size, failed=failed)

    def _entry(self, shelf: Shelf, data_id: str, before: Entry | None, there: set[str]) -> tuple[Entry, int]:
        """The entry of a value, and the bytes that had to be written for it."""
        found = shelf.newest(data_id)
        if found is None:
            raise IntegrityError(f"{data_id} is in the backup before this and nowhere else", hint="recover it")
        kept = found.kept
        if before is not None and before.kept.version > kept.version:
            what = f"{data_id}: the backup before this has version {before.kept.version}, here is {kept.version}"
            raise IntegrityError(what, hint="recover it")
        if kept.deleted:
            return Entry(kept), 0
        if before is not None and before.kept == kept and self._has(before, there):
            return before, 0
        payload = None if kept.blob else shelf.payload(found)
        size = 0
        if kept.blob and (key := BLOBS + kept.checksum) not in there:
            with shelf.blobs.open(kept.digest) as reader:
                size += self.store.put(key, iter(lambda: reader.read(PIECE_BYTES), b"")).size
        data = packed(kept, payload)
        digest = hashlib.sha256(data).hexdigest()
        if PACKAGES + digest not in there:
            size += self.store.put(PACKAGES + digest, data, content_type="application/json").size
        return Entry(kept, digest), size

    def _has(self, entry: Entry, there: set[str]) -> bool:
        blob = not entry.kept.blob or BLOBS + entry.kept.checksum in there
        return blob and PACKAGES + entry.package in there

    # -- reading ------------------------------------------------------------------------------------------------

    def read(self, entry: Entry) -> bytes | None:
        """The serialised value of a version, proven; of a blob None, after it was proven.

        Raises:
            IntegrityError: the copy is damaged, or not there.
        """
        try:
            data = self.store.read(PACKAGES + entry.package)
            if hashlib.sha256(data).hexdigest() != entry.package:
                raise IntegrityError(f"the backup's copy of {entry.kept.data_id} is not what was written")
            package = unpacked(data, entry.package)
            if not entry.kept.blob:
                return proven(entry.kept, package.payload())
            digest = hashlib.sha256()
            with self.store.get(BLOBS + entry.kept.checksum) as content:
                for piece in content:
                    digest.update(piece)
            if digest.hexdigest() != entry.kept.checksum:
                raise IntegrityError(f"the backup's copy of {entry.kept.data_id} is not what was written")
        except (ObjectNotFound, ObjectCorrupt) as error:
            raise IntegrityError(f"the backup's copy of {entry.kept.data_id}: {error}") from error
        return None

    def bring_blob(self, entry: Entry, blobs: Blobs) -> None:
        """Puts a blob that `read` has proven in the place of a damaged or missing one."""
        blobs.delete(entry.kept.digest)
        with self.store.get(BLOBS + entry.kept.checksum) as content:
            blobs.put(content, expect=entry.kept.digest)

    def with_checksum(self, checksum: str) -> Entry | None:
        """A version with these very bytes, of whatever name and in whatever backup."""
        for _, listed in self.newest_first():
            for entry in listed.entries.values():
                if entry.kept.checksum == checksum and entry.package:
                    return entry
        return None

    # -- keeping ------------------------------------------------------------------------------------------------

    def expire(self, before: float) -> tuple[int, int]:
        """Takes away backups made before a time, but never the newest, and what no other one names.

        Returns:
            How many backups, and how many copies.
        """
        with self._alone():
            gone, kept = 0, dict(self.newest_first())
            if not kept:
                return 0, 0  # nothing whole: what there is may be all that is left
            newest = next(iter(kept))
            for name in [name for name, each in kept.items() if each.made < before and name != newest]:
                self.store.delete(LISTS + name)
                del kept[name]
                self._known.pop(name, None)
                gone += 1
            if len(kept) < len(self.names()):
                return gone, 0  # a list that cannot be read may name anything
            entries = [entry for each in kept.values() for entry in each.entries.values()]
            named = {PACKAGES + entry.package for entry in entries} | {BLOBS + e.kept.checksum for e in entries}
            keys = [info.key for prefix in (PACKAGES, BLOBS) for info in self.store.list(prefix)]
            swept = sum(self.store.delete(key) for key in keys if key not in named)
        return gone, swept

    def close(self) -> None:
        """Lets go of the store."""
        self.store.close()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One who makes or sweeps at a time: a list must not name what is being swept."""
        with self._thread:
            fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                yield
            finally:
                os.close(fd)

"""Backups put to the test, and a storage whose log cannot be opened at all brought back from one."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from holdfast.errors import HoldfastError, IntegrityError, NoStore, NotFound, UsageError
from holdfast.integrity.swarm.backups import Backups, Entry
from holdfast.integrity.swarm.places import LOG, opened_log, settled
from holdfast.integrity.swarm.rebuilding import put_aside
from holdfast.integrity.swarm.shelf import Shelf
from holdfast.integrity.swarm.storage import PersistentDataStorage
from holdfast.integrity.swarm.words import StorageType
from holdfast.objects.files.store import FileStore
from holdfast.objects.opening import open_store

if TYPE_CHECKING:
    import os


class Drilled(msgspec.Struct, frozen=True, kw_only=True):
    """What a drill found: how many values a backup holds, how many were restored and proven, and what failed."""

    backup_id: str
    values: int
    proven: int
    failed: dict[str, str]
    seconds: float

    @property
    def sound(self) -> bool:
        """Whether everything that the backup holds can be had from it."""
        return not self.failed and self.proven == self.values


def drill(storage: PersistentDataStorage) -> Drilled:
    """Restores the newest backup into an empty storage beside this one, checks every value there, and removes it.

    Raises:
        NotFound: there is no backup.
    """
    begun = time.perf_counter()
    name, listed = next(storage.backups.newest_first(), (None, None))
    if name is None or listed is None:
        raise NotFound("there is no backup to try", hint="holdfast-storage --backup")
    failed: dict[str, str] = {}
    home = tempfile.mkdtemp(prefix="drill-", dir=storage.path)
    try:
        with PersistentDataStorage(home, storage.storage_type, "basic", backup_interval_s=None) as trial:
            for data_id, entry in listed.entries.items():
                try:
                    _bring(storage.backups, entry, trial.shelf)
                    found = trial.problems(data_id)
                    if any(found.values()):
                        failed[data_id] = "; ".join(text for each in found.values() for text in each)
                except HoldfastError as error:
                    failed[data_id] = error.message
            if wrong := trial.whole():
                failed[""] = wrong[0]
    finally:
        shutil.rmtree(home, ignore_errors=True)
    proven = len(listed.entries) - len([data_id for data_id in failed if data_id])
    took = time.perf_counter() - begun
    return Drilled(backup_id=name, values=len(listed.entries), proven=proven, failed=failed, seconds=took)


def rescue(base_path: str | os.PathLike[str], *, backup_to: str | None = None) -> str:
    """Gives a storage whose log cannot be opened a new one, from the newest backup; how it went, in words.

    What was written since that backup is lost to the new log; the old one is kept in ``quarantine``.

    Args:
        base_path: the storage's directory.
        backup_to: where its backups lie, if not in the directory.

    Raises:
        IntegrityError: the backup holds something that cannot be proven; nothing was changed.
        NotFound: there is no backup.
        NoStore: there is no storage.
        UsageError: the log can be opened: then nothing need be lost.
    """
    path = Path(base_path).absolute()
    if not (path / "storage.json").exists():
        raise NoStore(f"no storage at {path}", hint="give its directory")
    kind = settled(path, None)
    if kind is StorageType.FILE_BASED:
        raise UsageError("a FILE_BASED storage has no log", hint="holdfast-integrity --scan recovers its values")
    if _opens(path, kind):
        raise UsageError("the log can be opened", hint="holdfast-integrity --scan recovers what is damaged")
    store = open_store(backup_to) if backup_to else FileStore(path / "backups")
    with store:
        backups = Backups(store, path / "backups.lock")
        listed = next((each for _, each in backups.newest_first()), None)
        if listed is None:
            raise NotFound("there is no backup", hint="a person may get values out of the old log")
        shutil.rmtree(path / f"{LOG}.new", ignore_errors=True)
        new = opened_log(path, f"{LOG}.new", kind, "advanced")
        try:
            for entry in listed.entries.values():
                _bring(backups, entry, new)
            wrong = new.whole()
        finally:
            new.close()
        if wrong:
            raise IntegrityError(f"the new log does not prove itself: {wrong[0]}")
        target = put_aside(path)
    return f"{len(listed.entries)} values are in a new log, as of their newest backup; the old one is in {target}"


def _bring(backups: Backups, entry: Entry, shelf: Shelf) -> None:
    payload = None if entry.kept.deleted else backups.read(entry)
    if entry.kept.blob and not shelf.blobs.verify(entry.kept.digest):
        backups.bring_blob(entry, shelf.blobs)
    shelf.write(entry.kept, payload)


def _opens(path: Path, kind: StorageType) -> bool:
    try:
        opened_log(path, LOG, kind, "advanced").close()
    except IntegrityError:
        return False
    return True

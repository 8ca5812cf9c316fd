"""Bringing a damaged value back, one strategy after another; what cannot be proven is not put back unasked.

`CHECKSUM_MATCH` finds the very bytes elsewhere and `BACKUP_RESTORE` a backup that holds the newest version: both are
proven, and run by themselves. The two rollbacks lose what came after, so they want a person, or a policy; they add a
version and change none. `MANUAL_RECOVERY` collects what is known for somebody to look at. Before anything is written,
what is there is copied to ``quarantine``, and every attempt is a line in ``recovery.jsonl``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast import clock
from holdfast.disk import sync_directory
from holdfast.errors import HoldfastError, IntegrityError, NotFound, UsageError
from holdfast.integrity.swarm.backups import Entry
from holdfast.integrity.swarm.files import FileShelf, copy_of
from holdfast.integrity.swarm.logged import LogShelf
from holdfast.integrity.swarm.package import Kept
from holdfast.integrity.swarm.shelf import Found
from holdfast.integrity.swarm.words import RecoveryStrategy

if TYPE_CHECKING:
    from holdfast.integrity.swarm.storage import PersistentDataStorage

PROVEN: Final = (RecoveryStrategy.CHECKSUM_MATCH, RecoveryStrategy.BACKUP_RESTORE)
"""What runs by itself, in this order."""
_LOG: Final = "recovery.jsonl"


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt.

    Attributes:
        data_id: whose value.
        strategy: what was tried.
        successful: whether all five checks pass since.
        lossy: whether something newer than what is there now may be lost.
        what: how it went, in words.
        evidence: where the damaged bytes, or what is known for a person, were put.
    """

    data_id: str
    strategy: RecoveryStrategy
    successful: bool
    lossy: bool = False
    what: str = ""
    evidence: str = ""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """How a recovery is to go about it: a version, or a time in seconds since 1970, to go back to; losses allowed."""

    version: int | None = None
    at: float | None = None
    allow_loss: bool = False


def recover(
    storage: PersistentDataStorage, data_id: str, strategy: RecoveryStrategy | None = None, wanted: Wanted | None = None
) -> list[Recovered]:
    """Tries strategies until one of them brings the value back; what was tried, the last one last.

    Args:
        storage: whose.
        data_id: the value.
        strategy: this one, and losses are allowed; None: those that are proven, and the rollback to the version before
            where losses are allowed.
        wanted: where to go back to.

    Raises:
        NotFound: the value is known neither here nor in a backup.
        UsageError: a rollback to a time without the time.
    """
    wanted = wanted or Wanted()
    if strategy is None:
        order = [*PROVEN, RecoveryStrategy.VERSION_ROLLBACK] if wanted.allow_loss else [*PROVEN]
    else:
        order, wanted = [strategy], msgspec.structs.replace(wanted, allow_loss=True)
    if strategy is RecoveryStrategy.TIMESTAMP_ROLLBACK and wanted.at is None:
        raise UsageError("a rollback to which time?", hint="at=, in seconds since 1970")
    attempt = _Attempt(storage, data_id, wanted)
    tried = []
    for each in order:
        tried.append(attempt.run(each))
        if tried[-1].successful:
            break
    return tried


class _Attempt:
    """One value's recovery."""

    def __init__(self, storage: PersistentDataStorage, data_id: str, wanted: Wanted) -> None:
        self.storage, self.data_id, self.wanted = storage, data_id, wanted
        self.shelf = storage.shelf
        self.evidence = ""
        self.lossy = False

    def run(self, strategy: RecoveryStrategy) -> Recovered:
        """One strategy, proven afterwards and written down."""
        self.lossy = False
        self.shelf = self.storage.usable()
        done, what = False, ""
        try:
            self._keep_evidence()
            what = {
                RecoveryStrategy.CHECKSUM_MATCH: self._match,
                RecoveryStrategy.BACKUP_RESTORE: self._restore,
                RecoveryStrategy.VERSION_ROLLBACK: self._roll_back,
                RecoveryStrategy.TIMESTAMP_ROLLBACK: self._roll_back,
                RecoveryStrategy.MANUAL_RECOVERY: self._bundle,
            }[strategy]()
            left = self.storage.problems(self.data_id)
            done = strategy is not RecoveryStrategy.MANUAL_RECOVERY and not any(left.values())
            if not done and strategy is not RecoveryStrategy.MANUAL_RECOVERY:
                what += "; but the checks still find: " + "; ".join(text for found in left.values() for text in found)
        except NotFound as error:
            if not self.storage.backups.holding(self.data_id) and self.shelf.newest(self.data_id) is None:
                raise
            what = error.message
        except HoldfastError as error:
            what = error.message
        made = Recovered(
            data_id=self.data_id,
            strategy=strategy,
            successful=done,
            lossy=self.lossy,
            what=what,
            evidence=self.evidence,
        )
        write_down(self.storage.path, made)
        return made

    # -- strategies ---------------------------------------------------------------------------------------------

    def _match(self) -> str:
        """The very bytes that the newest version had, from wherever they lie."""
        if isinstance(self.shelf, LogShelf):
            self.shelf.rederive(self.data_id)
            if not any(self.storage.problems(self.data_id).values()):
                return "the newest version was derived from the log again"
        found = self._believed()
        if found is None:
            raise IntegrityError("nothing here says what the newest version was")
        kept = found.kept
        if kept.deleted:
            self.shelf.put_back(found, None)
            return f"version {kept.version}, a deletion, was put back"
        if kept.blob:
            where = self._bring_blob(kept)
            if isinstance(self.shelf, FileShelf):
                self.shelf.put_back(found, None)
            return where
        for each in [found, *self.shelf.versions(self.data_id)]:
            if each.kept.checksum == kept.checksum:
                with contextlib.suppress(HoldfastError):
                    payload = self.shelf.payload(each)
                    self.shelf.put_back(found, payload)
                    return f"version {kept.version} was put back from {each.at}"
        entry = self.storage.backups.with_checksum(kept.checksum)
        if entry is None:
            raise IntegrityError(f"no copy with the checksum {kept.checksum} was found")
        self.shelf.put_back(found, self.storage.backups.read(entry))
        return f"version {kept.version} was put back from a backup's copy of {entry.kept.data_id}"

    def _restore(self) -> str:
        """The newest version that a backup holds; by itself only where nothing newer is known."""
        entry, name = self._backed_up(None)
        payload = None if entry.kept.deleted else self.storage.backups.read(entry)
        if self._page_is_gone():
            self.shelf = self.storage.usable()
            return self._rebuild()
        kept, number = entry.kept, self._number()
        self.lossy = kept.version < number
        if self.lossy and not self.wanted.allow_loss:
            raise IntegrityError(
                f"the newest backup has version {kept.version}, but version {number} was stored since",
                hint="a rollback to it loses that: allow losses, or name the strategy",
            )
        if kept.blob:
            self.storage.backups.bring_blob(entry, self.shelf.blobs)
        at = self._place_of(kept)
        if kept.version == number and at is not None:
            with contextlib.suppress(IntegrityError):
                self.shelf.put_back(Found(kept, at), payload)
                if not any(self.storage.problems(self.data_id).values()):
                    return f"version {kept.version} was put back from backup {name}"
        if isinstance(self.shelf, LogShelf) and kept.version >= number:
            with contextlib.suppress(IntegrityError):
                return self._rebuild()  # the record itself is damaged, not only what it holds
        wrote = self.shelf.write(kept, payload)
        return f"version {kept.version} of backup {name} is version {wrote.version} now"

    def _rebuild(self) -> str:
        from holdfast.integrity.swarm.rebuilding import rebuild

        self.storage.usable()
        self.lossy = self.wanted.allow_loss
        told = rebuild(self.storage, allow_loss=self.wanted.allow_loss)
        self.shelf = self.storage.shelf
        return told

    def _roll_back(self) -> str:
        """The newest whole version before the damage, or up to a time, as a new version."""
        newest, wanted = self._number(), self.wanted
        for kept, payload in self._whole():
            if wanted.version not in (None, kept.version) or (wanted.at is not None and kept.timestamp > wanted.at):
                continue
            if kept.version == newest and wanted.version is None and wanted.at is None:
                continue
            self.lossy = kept.version < newest
            again = msgspec.structs.replace(kept, version=0, timestamp=0.0)
            wrote = self.shelf.write(again, payload)
            return f"version {kept.version} is version {wrote.version} now"
        raise IntegrityError("no whole version was found that fits")

    def _bundle(self) -> str:
        """Everything that is known, for a person."""
        report: dict[str, Any] = {
            "data_id": self.data_id,
            "checks": {kind.value: found for kind, found in self.storage.problems(self.data_id).items()},
            "versions": [msgspec.to_builtins(each.kept) for each in self.shelf.versions(self.data_id)],
            "backups": [
                {"backup": name, "made": made, **msgspec.to_builtins(entry.kept)}
                for name, made, entry in self.storage.backups.holding(self.data_id)
            ],
        }
        _write(Path(self.evidence) / "report.json", msgspec.json.format(msgspec.json.encode(report), indent=2))
        return f"what is known lies in {self.evidence}"

    # -- what is known ------------------------------------------------------------------------------------------

    def _believed(self) -> Found | None:
        """The newest version as far as its description is whole."""
        if isinstance(self.shelf, FileShelf):
            return self.shelf.believed(self.data_id)
        return self.shelf.newest(self.data_id)

    def _number(self) -> int:
        """The highest version that is known to have been stored here."""
        if isinstance(self.shelf, FileShelf):
            return self.shelf.number(self.data_id)
        found = self.shelf.newest(self.data_id)
        return found.kept.version if found else 0

    def _place_of(self, kept: Kept) -> Any:
        if isinstance(self.shelf, FileShelf):
            return copy_of(kept)
        found = self.shelf.newest(self.data_id)
        return found.at if found and found.kept == kept else None

    def _page_is_gone(self) -> bool:
        """Whether the log's own pages are damaged where this value is."""
        if not isinstance(self.shelf, LogShelf):
            return False
        try:
            self.shelf.touch(self.data_id)
        except IntegrityError:
            return True
        return False

    def _backed_up(self, at: float | None) -> tuple[Entry, str]:
        why = f"no backup holds {self.data_id}"
        for name, _, entry in self.storage.backups.holding(self.data_id):
            if at is not None and entry.kept.timestamp > at:
                continue
            try:
                if not entry.kept.deleted:
                    self.storage.backups.read(entry)
            except IntegrityError as error:
                why = error.message
                continue
            return entry, name
        raise IntegrityError(why)

    def _whole(self) -> Iterator[tuple[Kept, bytes | None]]:
        """Versions of the value that prove themselves, from here and from the backups, newest first."""
        here = {each.kept.version: each for each in self.shelf.versions(self.data_id)}
        there = {entry.kept.version: entry for _, _, entry in self.storage.backups.holding(self.data_id)}
        for number in sorted({*here, *there}, reverse=True):
            with contextlib.suppress(HoldfastError):
                if number in here and not here[number].kept.deleted:
                    kept = here[number].kept
                    if kept.blob and self.shelf.blobs.verify(kept.digest):
                        yield kept, None
                        continue
                    if not kept.blob:
                        yield kept, self.shelf.payload(here[number])
                        continue
            with contextlib.suppress(HoldfastError):
                if number in there and there[number].package:
                    payload = self.storage.backups.read(there[number])
                    if payload is None:
                        self.storage.backups.bring_blob(there[number], self.shelf.blobs)
                    yield there[number].kept, payload

    def _bring_blob(self, kept: Kept) -> str:
        if self.shelf.blobs.verify(kept.digest):
            return "its bytes are whole"
        entry = self.storage.backups.with_checksum(kept.checksum)
        if entry is None:
            raise IntegrityError(f"no copy with the checksum {kept.checksum} was found")
        self.storage.backups.read(entry)
        self.storage.backups.bring_blob(entry, self.shelf.blobs)
        return f"the bytes of version {kept.version} were put back from a backup"

    def _keep_evidence(self) -> None:
        """Copies what is there, once, before anything is written."""
        if self.evidence:
            return
        target = incident(self.storage.path)
        if isinstance(self.shelf, FileShelf):
            for path in self.shelf.paths(self.data_id):
                with contextlib.suppress(OSError):
                    _write(target / path.name, path.read_bytes())
        else:
            said = {}
            with contextlib.suppress(HoldfastError):
                said = {"newest": repr(self.shelf.newest(self.data_id))}
            _write(target / "found.json", msgspec.json.encode({"data_id": self.data_id, **said}))
        self.evidence = str(target)


def incident(path: Path) -> Path:
    """A new directory for what was found damaged."""
    stamp = clock.iso(clock.SYSTEM.now_ms()).replace("-", "").replace(":", "")
    target = path / "quarantine" / f"{stamp}-{os.urandom(4).hex()}"
    target.mkdir(mode=0o700, parents=True)
    return target


def write_down(path: Path, made: Recovered) -> None:
    """Adds an attempt to the storage's history of them."""
    line = msgspec.json.encode({"time": clock.iso(clock.SYSTEM.now_ms()), **msgspec.to_builtins(made)})
    fd = os.open(path / _LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, line + b"\n")
        os.fsync(fd)
    finally:
        os.close(fd)


def attempts(path: Path) -> list[dict[str, Any]]:
    """Every attempt that was made on a storage, oldest first."""
    with contextlib.suppress(FileNotFoundError):
        return [msgspec.json.decode(line) for line in (path / _LOG).read_bytes().splitlines() if line]
    return []


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    sync_directory(path.parent)

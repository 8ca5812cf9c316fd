"""`PersistentDataStorage`: named values of a swarm of agents, in files, in a database or in both; with their copies."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from holdfast import codec
from holdfast.clock import SYSTEM, Clock
from holdfast.corpus.space import FLOOR_BYTES, Reserve
from holdfast.errors import HoldfastError, NotFound, StoreClosed, UsageError
from holdfast.integrity.swarm.backups import BackupResult, Backups
from holdfast.integrity.swarm.files import FileShelf
from holdfast.integrity.swarm.logged import LogShelf
from holdfast.integrity.swarm.package import FORMATS, Kept
from holdfast.integrity.swarm.places import LOG, opened_log, settled
from holdfast.integrity.swarm.shelf import Found, Problems, Shelf
from holdfast.integrity.swarm.words import DATA_TYPES, DataIntegrityLevel, StorageMetadata, StorageType, member
from holdfast.objects.blobs.files import BlobFiles
from holdfast.objects.files.store import FileStore
from holdfast.objects.keys import check_key
from holdfast.objects.opening import open_store
from holdfast.objects.raw import PIECE_BYTES
from holdfast.records import INLINE_BYTES_MAX

HOUR_S: Final = 3600.0
RETENTION_S: Final = 24 * HOUR_S
CRITICAL_PAUSE_S: Final = 5.0
"""Between the backups that writes at level critical bring about."""
FILE_BYTES_MAX: Final = 1 << 20
"""What is larger is no file to read, and lies beside as a blob."""
_PARTIAL_S: Final = 24 * HOUR_S


class PersistentDataStorage:
    """Values by name. Threads may share one, and processes a directory. What is read is proven, at every level.

    Args:
        base_path: the directory; made, with one for each data type, if it is not there.
        storage_type: where values lie; None: as they lie there already, in a new one HYBRID.
        integrity_level: what a write that returned survives; None: ADVANCED. A single write may ask for more.
        backup_interval_s: seconds between backups in the background, and a write at level CRITICAL is followed by one
            at once; None: only `backup` makes them.
        backup_retention_s: how long backups are kept, in seconds; the newest always is.
        backup_to: where they lie, an address for `holdfast.objects.open_store`; None: in ``backups`` below the
            directory, which a lost disk takes with it.

    Raises:
        UsageError: the directory holds another storage type.
        IntegrityError: the log cannot be opened (see `rescue`); or, at level CRITICAL, it has lost commits.
    """

    wall: Clock = SYSTEM
    """What tells the time."""

    def __init__(
        self,
        base_path: str | os.PathLike[str],
        storage_type: StorageType | str | None = None,
        integrity_level: DataIntegrityLevel | str | None = None,
        *,
        backup_interval_s: float | None = HOUR_S,
        backup_retention_s: float = RETENTION_S,
        backup_to: str | None = None,
    ) -> None:
        self.path = Path(os.path.abspath(base_path))
        self.storage_type = settled(self.path, None if storage_type is None else member(StorageType, storage_type))
        self.integrity_level = member(DataIntegrityLevel, integrity_level or DataIntegrityLevel.ADVANCED)
        self.backup_interval_s = backup_interval_s
        self.backup_retention_s = backup_retention_s
        self.trouble: str = ""
        """What the background work last failed with, if it did."""
        for kind in DATA_TYPES:
            (self.path / kind).mkdir(mode=0o700, exist_ok=True)
        self._room = Reserve(self.path, ballast_bytes=0, floor_bytes=FLOOR_BYTES)
        self.shelf = self.open_shelf()
        try:
            place = open_store(backup_to) if backup_to else FileStore(self.path / "backups")
            self.backups = Backups(place, self.path / "backups.lock")
        except BaseException:
            self.shelf.close()
            raise
        self._lock = threading.Lock()  # guards _worker
        self._worker: threading.Thread | None = None
        self._wake, self._stop = threading.Event(), threading.Event()
        self._changed = False
        self._closed = False

    # -- values -------------------------------------------------------------------------------------------------

    def store(
        self,
        data_id: str,
        data: Any,
        data_type: str | None = None,
        *,
        integrity_level: DataIntegrityLevel | str | None = None,
        expect: int | None = None,
    ) -> StorageMetadata:
        """Stores a value, in place of the one of this name; when it returns, it survives what the level says.

        Args:
            data_id: its name, such as ``agent-1/plan``.
            data: what JSON can say, text, or bytes; of a `Path` the file's bytes, and of an open file or an iterator of
                bytes what comes, piece by piece, however much.
            data_type: messages, tasks, status, config or logs; None: as before, of a new name messages.
            integrity_level: more, or less, than the storage's.
            expect: the version that must be the newest; 0: there must never have been one.

        Raises:
            Conflict: another version is the newest; nothing was written.
            IntegrityError: what is there is damaged: recover it first, or it would be buried.
            NodeFull: no room; nothing was written. A FILE_BASED storage may say StorageFull, which is one too.
            UsageError: a name, type or value that cannot be.
        """
        self._open()
        check_key(f"versions/{DATA_TYPES[0]}/{data_id}/00000000")
        found = self.shelf.newest(data_id)
        kind = data_type or (found.kept.data_type if found else DATA_TYPES[0])
        if kind not in DATA_TYPES:
            raise UsageError(f"no data type {kind!r:.80}", hint=f"one of {', '.join(DATA_TYPES)}")
        if found and kind != found.kept.data_type:
            raise UsageError(f"{data_id} is one of the {found.kept.data_type}", hint="give it another name")
        asked = member(DataIntegrityLevel, integrity_level or self.integrity_level)
        fmt, payload, digest, size = self._taken(data)
        kept = Kept(
            data_id=data_id,
            data_type=kind,
            version=0,
            timestamp=0.0,  # the shelf knows when its turn is
            checksum=digest.hex(),
            size=size,
            integrity_level=asked.value,
            format=FORMATS[fmt],
            blob=payload is None,
        )
        kept = self.shelf.write(kept, payload, expect)
        self._written(asked)
        return self._told(kept)

    def update(self, data_id: str, data: Any, *, expect: int | None = None) -> StorageMetadata:
        """Stores a new version of a value that there is.

        Raises:
            NotFound: there is none.
            HoldfastError: as `store` says.
        """
        self._need(data_id)
        return self.store(data_id, data, expect=expect)

    def retrieve(self, data_id: str, version: int | None = None) -> Any:
        """The value of a name, proven to be what was stored.

        Args:
            data_id: its name.
            version: an earlier one.

        Raises:
            NotFound: there is none.
            IntegrityError: its bytes are not what was stored; they are never returned.
        """
        found = self._need(data_id, version)
        return found.kept.value(b"".join(self._pieces(found)))

    def stream(self, data_id: str) -> Iterator[bytes]:
        """The bytes of a value piece by piece, however many; the last piece comes only if all are what was stored.

        Raises:
            NotFound: there is none.
            IntegrityError: they are not what was stored.
        """
        return self._pieces(self._need(data_id))

    def delete(self, data_id: str) -> bool:
        """Takes a value away; False if there is none. Its versions stay, and `retrieve` with a number finds them."""
        self._open()
        found = self.shelf.newest(data_id)
        if found is None or found.kept.deleted:
            return False
        nothing = hashlib.sha256(b"").hexdigest()
        gone = msgspec.structs.replace(
            found.kept, version=0, timestamp=0.0, checksum=nothing, size=0, blob=False, deleted=True
        )
        self.shelf.write(gone, None)
        self._written(DataIntegrityLevel(gone.integrity_level))
        return True

    def metadata(self, data_id: str, version: int | None = None) -> StorageMetadata:
        """What is known of a value.

        Raises:
            NotFound: there is none.
        """
        return self._told(self._need(data_id, version).kept)

    def versions(self, data_id: str) -> list[int]:
        """The numbers of the versions that can be read and are no deletions, newest first."""
        self._open()
        return [found.kept.version for found in self.shelf.versions(data_id) if not found.kept.deleted]

    def ids(self, data_type: str | None = None) -> list[str]:
        """The names that have a value, in order; damaged ones are among them.

        Args:
            data_type: of these only.
        """
        return [data_id for data_id, kind in self._named() if data_type in (None, kind) or not kind]

    # -- the whole ----------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """How things stand: values by type, the backups, the disk, and what is wrong."""
        self._open()
        values = dict.fromkeys(DATA_TYPES, 0)
        damaged = []
        for data_id, kind in self._named():
            if kind:
                values[kind] += 1
            else:
                damaged.append(data_id)
        backups = list(self.backups.newest_first())
        space = self._room.state()
        incidents = self.shelf.opened.incidents if isinstance(self.shelf, LogShelf) else []
        return {
            "path": str(self.path),
            "storage_type": self.storage_type.value,
            "integrity_level": self.integrity_level.value,
            "values": values,
            "total": sum(values.values()),
            "damaged": damaged,
            "backups": len(backups),
            "last_backup": backups[0][1].made if backups else None,
            "backup_retention_s": self.backup_retention_s,
            "incidents": [f"{each.what}: {each.detail}" for each in incidents],
            "trouble": self.trouble,
            "free_bytes": space.free,
            "writable": space.writable,
        }

    def backup(self) -> BackupResult:
        """Backs up the newest version of every value; what has not changed since the last one costs nothing.

        Raises:
            StorageError: the place of the backups failed.
        """
        self._open()
        self._changed = False
        return self.backups.make(self.shelf, self.now())

    def cleanup(self, older_than_s: float | None = None) -> dict[str, int]:
        """Takes away backups past their time, never the newest, and what was begun a day ago and never finished.

        Args:
            older_than_s: in place of the storage's retention.

        Returns:
            How many `backups`, `copies` in them that none needs any more, and `partials` went.
        """
        self._open()
        keep = self.backup_retention_s if older_than_s is None else older_than_s
        gone, swept = self.backups.expire(self.now() - keep)
        partials = self.shelf.blobs.sweep(_PARTIAL_S)
        return {"backups": gone, "copies": swept, "partials": partials}

    def close(self) -> None:
        """Ends the background work and lets go of files; a second close is fine."""
        if self._closed:
            return
        self._closed = True
        self._stop.set()
        self._wake.set()
        with self._lock:
            worker = self._worker
        if worker is not None:
            worker.join()
        self.shelf.close()
        self.backups.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- for whoever watches and recovers -------------------------------------------------------------------------

    def now(self) -> float:
        """Seconds since 1970."""
        return self.wall.now_ms() / 1000

    def problems(self, data_id: str) -> Problems:
        """What the five checks find of a value now.

        Raises:
            NotFound: it is known neither here nor in a backup.
        """
        from holdfast.integrity.swarm.checking import problems

        self._open()
        return problems(self, data_id)

    def usable(self) -> Shelf:
        """The place where values lie; opened anew if the disk has failed it.

        Raises:
            StoreClosed: the storage was closed.
        """
        self._open()
        return self.shelf

    def whole(self) -> list[str]:
        """What is wrong with the place of the values as a whole, in words; damage never raises."""
        try:
            return self.usable().whole()
        except HoldfastError as error:
            return [error.message]

    def open_shelf(self) -> Shelf:
        """The place where values lie, opened anew."""
        shelf: Shelf
        if self.storage_type is StorageType.FILE_BASED:
            shelf = FileShelf(self.path, BlobFiles(self.path / "blobs"))
        else:
            shelf = opened_log(self.path, LOG, self.storage_type, self.integrity_level.value)
        shelf.now = self.now
        return shelf

    # -- inside -------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._closed:
            raise StoreClosed("this storage was closed")
        if self.shelf.unusable:
            with self._lock:
                # After a failed read or sync in its transaction, only a file that is opened anew can be trusted.
                if self.shelf.unusable:
                    with contextlib.suppress(HoldfastError):
                        self.shelf.close()
                    self.shelf = self.open_shelf()

    def _need(self, data_id: str, version: int | None = None) -> Found:
        self._open()
        if version is None:
            found = self.shelf.newest(data_id)
        else:
            found = next((each for each in self.shelf.versions(data_id) if each.kept.version == version), None)
        if found is None or found.kept.deleted:
            what = data_id if version is None else f"{data_id} version {version}"
            raise NotFound(f"nothing is stored as {what!r:.200}", hint="holdfast-storage --status counts what there is")
        return found

    def _pieces(self, found: Found) -> Iterator[bytes]:
        if not found.kept.blob:
            return iter((self.shelf.payload(found),))
        return _read_out(self.shelf.blobs.open(found.kept.digest))

    def _taken(self, data: Any) -> tuple[int, bytes | None, bytes, int]:
        """The format, the bytes unless they are a blob now, their digest and their number."""
        pieces = _streamed(data)
        if pieces is not None:
            self._room.check()
            return (codec.FMT_BYTES, None, *self.shelf.blobs.put(pieces))
        fmt, payload = codec.serialise(data)
        self._room.check(len(payload))
        most = FILE_BYTES_MAX if self.storage_type is StorageType.FILE_BASED else INLINE_BYTES_MAX
        if len(payload) > most:
            return (fmt, None, *self.shelf.blobs.put(payload))
        return fmt, payload, hashlib.sha256(payload).digest(), len(payload)

    def _told(self, kept: Kept) -> StorageMetadata:
        holding = self.backups.holding(kept.data_id)
        return StorageMetadata(
            data_id=kept.data_id,
            timestamp=kept.timestamp,
            checksum=kept.checksum,
            size=kept.size,
            version=kept.version,
            integrity_level=DataIntegrityLevel(kept.integrity_level),
            backup_count=len(holding),
            last_backup=holding[0][1] if holding else None,
        )

    def _named(self) -> Iterator[tuple[str, str]]:
        """Every name that has a value, with its type; an empty type says that it cannot be read."""
        self._open()
        for data_id in sorted(self.shelf.ids()):
            try:
                found = self.shelf.newest(data_id)
            except HoldfastError:
                yield data_id, ""
            else:
                if found is not None and not found.kept.deleted:
                    yield data_id, found.kept.data_type

    # -- backups in the background --------------------------------------------------------------------------------

    def _written(self, asked: DataIntegrityLevel) -> None:
        self._changed = True
        if self.backup_interval_s is None:
            return
        if asked is DataIntegrityLevel.CRITICAL:
            self._wake.set()
        if self._worker is None:
            with self._lock:
                if self._worker is None:
                    self._worker = threading.Thread(target=self._work, name="holdfast-backup", daemon=True)
                    self._worker.start()

    def _work(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(self.backup_interval_s)
            if self._stop.is_set():
                return
            self._wake.clear()
            try:
                if self._changed:
                    self.backup()
                self.cleanup()
                self.trouble = ""
            except (HoldfastError, OSError) as error:
                if not self._stop.is_set():
                    self.trouble = f"{type(error).__name__}: {error}"
            self._stop.wait(min(CRITICAL_PAUSE_S, self.backup_interval_s or CRITICAL_PAUSE_S))


def _streamed(data: Any) -> Any:
    """What a value that comes in pieces is to a blob store; None if it is here as a whole."""
    if isinstance(data, Path):
        return data
    if callable(getattr(data, "read", None)):
        return iter(lambda: data.read(PIECE_BYTES), b"")
    return data if isinstance(data, Iterator) else None


def _read_out(reader: Any) -> Iterator[bytes]:
    with contextlib.closing(reader):
        while piece := reader.read(PIECE_BYTES):
            yield piece

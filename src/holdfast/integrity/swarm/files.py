"""Values as JSON files that people can read: ``messages/<id>.json`` is the newest version, and each has a copy of its
own under ``versions/``. So the newest lies there twice, and what one file loses the other one has.

The copy is written first, and what counts is the copies' numbers: a newest file that is older than the highest copy was
put back, or a write was cut off by a crash before it returned; either way the copy is the truth.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from holdfast.errors import Conflict, HoldfastError, IntegrityError, NotFound, ObjectCorrupt, ObjectNotFound
from holdfast.integrity.swarm.package import GENESIS, Kept, Package, link_of, packed, proven, unpacked
from holdfast.integrity.swarm.shelf import Blobs, Found, Problems, check_blob, check_stamp, nothing
from holdfast.integrity.swarm.words import DATA_TYPES, IntegrityCheckType
from holdfast.objects.files.store import FileStore

_JSON: Final = "application/json"


class _Between(Exception):
    """The newest file is not that of the newest version: for a moment, or for good."""


class FileShelf:
    """The shelf of `StorageType.FILE_BASED`. Threads and processes may share it.

    Args:
        root: the directory.
        blobs: where large values lie.
    """

    def __init__(self, root: Path, blobs: Blobs) -> None:
        self.root = root
        self.blobs = blobs
        self.store = FileStore(root)
        self._thread = threading.Lock()
        self.now: Callable[[], float] = time.time

    unusable = False

    # -- reading ------------------------------------------------------------------------------------------------

    def newest(self, data_id: str) -> Found | None:
        """The newest version, also one that says that the value was deleted; None if there never was one."""
        kind = self._kind(data_id)
        if kind is None:
            return None
        try:
            return self._shown(kind, data_id)
        except _Between:
            with self._alone():  # perhaps a writer was between the copy and the file
                try:
                    return self._shown(kind, data_id)
                except _Between as still:
                    raise _lost(data_id, str(still)) from None

    def _shown(self, kind: str, data_id: str) -> Found:
        number = max(self._numbers(kind, data_id), default=0)
        try:
            package = self._read(f"{kind}/{data_id}")
        except ObjectNotFound:
            found = self._version(kind, data_id, number)
            if found.kept.deleted:
                return found
            raise _Between("its file is lost") from None
        if package.metadata.version < number:
            raise _Between(f"its file holds version {package.metadata.version}, the newest is {number}")
        return Found(package.metadata, f"{kind}/{data_id}")

    def payload(self, found: Found) -> bytes:
        """The serialised value of a version that is no blob, proven."""
        return proven(found.kept, self._read(found.at).payload())

    def versions(self, data_id: str) -> Iterator[Found]:
        """The versions that can be read, newest first."""
        kind = self._kind(data_id)
        if kind is None:
            return
        for number in sorted(self._numbers(kind, data_id), reverse=True):
            with contextlib.suppress(HoldfastError):
                yield self._version(kind, data_id, number)

    def ids(self) -> Iterable[str]:
        """Every name that is known here, also of what was deleted."""
        seen = dict.fromkeys(key.partition("/")[2] for kind in DATA_TYPES for key in self._keys(f"{kind}/"))
        for kind in DATA_TYPES:
            place = f"versions/{kind}/"
            seen |= dict.fromkeys(key.removeprefix(place).rpartition("/")[0] for key in self._keys(place))
        return seen

    def head(self) -> tuple[str, int]:
        """Nothing: files have no common log."""
        return "", 0

    def number(self, data_id: str) -> int:
        """The highest version that is known to have been stored."""
        kind = self._kind(data_id)
        if kind is None:
            return 0
        shown = 0
        with contextlib.suppress(HoldfastError):
            shown = self._read(f"{kind}/{data_id}").metadata.version
        return max([shown, *self._numbers(kind, data_id)])

    def believed(self, data_id: str) -> Found | None:
        """The newest version whose description proves itself by its link; None if that of the highest does not."""
        kind, number = self._kind(data_id), self.number(data_id)
        for key in (_copy_of(kind or "", data_id, number), f"{kind}/{data_id}"):
            with contextlib.suppress(HoldfastError):
                package = self._read(key)
                if package.metadata.version == number and link_of(package.previous, package.metadata) == package.link:
                    return Found(package.metadata, key)
        return None

    def paths(self, data_id: str) -> Iterator[Path]:
        """The files of a value's newest version: the one that people read, and the copy."""
        kind = self._kind(data_id)
        if kind is not None:
            for key in (f"{kind}/{data_id}", _copy_of(kind, data_id, self.number(data_id))):
                path = self.root / f"{key}.json"
                if path.exists():
                    yield path

    # -- writing ------------------------------------------------------------------------------------------------

    def write(self, kept: Kept, payload: bytes | None, expect: int | None = None) -> Kept:
        """Adds a version and returns it with its number: the next one, or its own if that is higher."""
        kind, data_id = kept.data_type, kept.data_id
        with self._alone():
            number = max(self._numbers(kind, data_id), default=0)
            if expect is not None and number != expect:
                raise Conflict(f"{data_id} is at version {number}, you expected {expect}", current_version=number)
            previous = self._link(kind, data_id, number)
            # Stamped here, where nobody else writes: of two versions the later one has the later time.
            stamp = kept.timestamp or self.now()
            kept = msgspec.structs.replace(kept, version=max(number + 1, kept.version), timestamp=stamp)
            self._put(copy_of(kept), kept, payload, previous)
            self._show(kept, payload, previous)
        return kept

    def put_back(self, found: Found, payload: bytes | None) -> None:
        """Puts the proven bytes of a version in the place of damaged ones; the number stays."""
        kept = found.kept
        with self._alone():
            previous = self._before(kept)
            self._put(copy_of(kept), kept, payload, previous)
            self._show(kept, payload, previous)

    def _show(self, kept: Kept, payload: bytes | None, previous: str) -> None:
        key = f"{kept.data_type}/{kept.data_id}"
        if not kept.deleted:
            return self._put(key, kept, payload, previous)
        self.store.delete(key)
        # The store takes empty directories away; these stay.
        (self.root / kept.data_type).mkdir(mode=0o700, exist_ok=True)

    def _put(self, key: str, kept: Kept, payload: bytes | None, previous: str) -> None:
        self.store.put(key, packed(kept, payload, previous), content_type=_JSON)

    # -- proving ------------------------------------------------------------------------------------------------

    def check(self, data_id: str, now: float) -> Problems:
        """What the five checks find of a value."""
        problems = nothing()
        kind = self._kind(data_id)
        if kind is None:
            raise NotFound(f"nothing is known of {data_id}")
        with self._alone():  # or a writer between the copy and the file would be a finding
            numbers = sorted(self._numbers(kind, data_id))
            package = self._look(kind, data_id, numbers, problems)
        versions = problems[IntegrityCheckType.VERSION_CONTROL]
        if not numbers:
            versions.append("no version has a copy")
        if package is None:
            return problems
        number = numbers[-1] if numbers else 0
        kept = package.metadata
        if kept.version != number and number:
            versions.append(f"its file holds version {kept.version}, the newest is {number}")
        self._check_bytes(package, problems)
        self._check_chain(package, number, problems)
        return self._check_before(kept, now, problems)

    def _look(self, kind: str, data_id: str, numbers: list[int], problems: Problems) -> Package | None:
        """The newest file, if it can be read and there should be one."""
        try:
            return self._read(f"{kind}/{data_id}")
        except ObjectNotFound:
            deleted = False
            try:
                deleted = bool(numbers) and self._version(kind, data_id, numbers[-1]).kept.deleted
            except HoldfastError as error:
                problems[IntegrityCheckType.CHECKSUM].append(str(error))
            if not deleted:
                problems[IntegrityCheckType.SIZE_VERIFICATION].append("its file is lost")
        except IntegrityError as error:
            problems[IntegrityCheckType.CHECKSUM].append(error.message)
        return None

    def _check_bytes(self, package: Package, problems: Problems) -> None:
        kept = package.metadata
        if kept.blob:
            return check_blob(self.blobs, kept, problems)
        try:
            payload = package.payload()
            if len(payload) != kept.size:
                what = f"{len(payload)} bytes are here, {kept.size} were stored"
                problems[IntegrityCheckType.SIZE_VERIFICATION].append(what)
            proven(kept, payload)
        except IntegrityError as error:
            problems[IntegrityCheckType.CHECKSUM].append(error.message)

    def _check_chain(self, package: Package, number: int, problems: Problems) -> None:
        kept, chain = package.metadata, problems[IntegrityCheckType.HASH_CHAIN]
        if link_of(package.previous, kept) != package.link:
            chain.append("its link does not follow from what its file says of it")
        if not number:
            return
        try:
            copy = self._read(copy_of(kept))
        except HoldfastError as error:
            problems[IntegrityCheckType.CHECKSUM].append(f"the copy of version {kept.version}: {error}")
        else:
            if copy.link != package.link or link_of(copy.previous, copy.metadata) != copy.link:
                chain.append("its file and the copy of this version have different links")
            with contextlib.suppress(IntegrityError):
                if not kept.blob and copy.payload() != package.payload() and not problems[IntegrityCheckType.CHECKSUM]:
                    problems[IntegrityCheckType.CHECKSUM].append("the copy of this version holds other bytes")
        before = self._before(kept)
        if before != GENESIS and before != package.previous:
            chain.append("it does not follow the version before it: that was changed, or one between them is lost")

    def _check_before(self, kept: Kept, now: float, problems: Problems) -> Problems:
        before: Kept | None = None
        with contextlib.suppress(HoldfastError):
            lower = (number for number in self._numbers(kept.data_type, kept.data_id) if number < kept.version)
            before = self._version(kept.data_type, kept.data_id, max(lower, default=0)).kept
        check_stamp(kept, before, now, problems)
        return problems

    def whole(self) -> list[str]:
        """What is wrong with the shelf as a whole: nothing that its values do not say."""
        return []

    def close(self) -> None:
        """Lets go of files."""
        self.store.close()

    # -- inside -------------------------------------------------------------------------------------------------

    def _kind(self, data_id: str) -> str | None:
        for kind in DATA_TYPES:
            if self._there(f"{kind}/{data_id}") or self._numbers(kind, data_id):
                return kind
        return None

    def _there(self, key: str) -> bool:
        try:
            return self.store.exists(key)
        except ObjectCorrupt:
            return True

    def _numbers(self, kind: str, data_id: str) -> list[int]:
        place = f"versions/{kind}/{data_id}/"
        names = (key.removeprefix(place) for key in self._keys(place))
        return [int(name) for name in names if name.isdigit()]  # another id may begin with this one and a slash

    def _keys(self, prefix: str) -> Iterator[str]:
        return (info.key for info in self.store.list(prefix))

    def _version(self, kind: str, data_id: str, number: int) -> Found:
        key = _copy_of(kind, data_id, number)
        return Found(self._read(key).metadata, key)

    def _read(self, key: str) -> Package:
        return unpacked(self.store.read(key), key)

    def _before(self, kept: Kept) -> str:
        """The link of the version before this one; a value brought back from a backup may have skipped numbers."""
        lower = [number for number in self._numbers(kept.data_type, kept.data_id) if number < kept.version]
        return self._link(kept.data_type, kept.data_id, max(lower, default=0))

    def _link(self, kind: str, data_id: str, number: int) -> str:
        """The link of a version; the genesis where there is none that can be read."""
        if number > 0:
            with contextlib.suppress(HoldfastError):
                return self._read(_copy_of(kind, data_id, number)).link
        return GENESIS

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One writer at a time, among processes too: a number is looked for and then taken."""
        with self._thread:
            fd = os.open(self.root / "writing.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                yield
            finally:
                os.close(fd)


def copy_of(kept: Kept) -> str:
    """The key of a version's own copy."""
    return _copy_of(kept.data_type, kept.data_id, kept.version)


def _copy_of(kind: str, data_id: str, number: int) -> str:
    return f"versions/{kind}/{data_id}/{number:08}"


def _lost(data_id: str, what: str) -> IntegrityError:
    return IntegrityError(f"{data_id}: {what}", hint=f"holdfast-integrity --check {data_id}")

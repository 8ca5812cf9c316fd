"""The file of a database before it is open: how it is made, what is wrong with its WAL, why it cannot be opened."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from holdfast.disk import sync_directory
from holdfast.errors import (
    NodeFull,
    ObjectCorrupt,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
)
from holdfast.sqlite.alone import Alone
from holdfast.sqlite.doctor import Diagnosis, examine
from holdfast.sqlite.quarantine import Read, incidents, quarantine
from holdfast.sqlite.standing import Standing, judge

NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def create_file(path: Path) -> None:
    """Makes an empty file that only its owner may read, if there is none."""
    if path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Made elsewhere and linked: to close the file itself would drop the locks of somebody who has opened it by now.
    fd, made = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(fd)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(made, path)
    finally:
        os.unlink(made)
    sync_directory(path.parent)


def refused(path: Path, error: OSError) -> StorageError:
    """The error of our tree that the system's means."""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageDenied(f"cannot open {path}: {error.strerror}", hint="whose is the file, and its directory?")
    if error.errno in NO_ROOM:
        return StorageFull(f"no room to make {path}", hint="free space on this disk")
    if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP):
        return StorageRefused(f"cannot be a file: {path}: {error.strerror}")
    return StorageUnavailable(f"cannot open {path}: {error.strerror}")


@contextlib.contextmanager
def looked_at(path: Path, wait: Callable[[int], bool]) -> Iterator[Diagnosis | None]:
    """Has the WAL looked at if nobody has the file open; open it in the block.

    Args:
        path: the file; it is there.
        wait: see `Alone`.

    Yields:
        What the WAL was found to be; None if there is none, or somebody has the file open.

    Raises:
        ObjectCorrupt: the WAL is damaged, and what SQLite would make of it is no state that ever was.
        StorageFull: it is damaged, and there is no room for copies; nothing was touched.
    """
    alone = Alone(path, wait)
    try:
        found = _look(path, alone) if alone.enter() else None
        alone.admit()
        yield found
    finally:
        alone.leave()


def _look(path: Path, alone: Alone) -> Diagnosis:
    database: Read = alone.read
    size = int.from_bytes(database(18, 0)[16:18], "big")
    found = examine(path, size)
    # What one turned bit explains is no torn tail to us: no anchor and no hub will tell it from one later. After a
    # power cut that is wrong once in a thousand times, and then costs a copy.
    if not found.damaged and not found.flipped:
        return found
    standing = judge(path, found, database)
    where = f"{path}-wal is damaged" + ("" if found.first_bad is None else f" at frame {found.first_bad}")
    if standing == "mixed":
        raise ObjectCorrupt(
            f"{where}, and the file may have a part of what lies behind: together they are no state that ever was",
            hint="nothing was touched; put a copy of the file back, without its -wal and -shm",
        )
    said = f"{where}: {_lost(found, standing)}"
    try:
        note = {"said": said, "standing": standing, "diagnosis": msgspec.to_builtins(found)}
        kept = quarantine(path, kept_in(path), note=note, database=database)
    except NodeFull as error:
        raise StorageFull(f"{said}; {error.message}", hint=error.hint) from error
    if standing == "whole":
        alone.sync()  # whoever moved the WAL into the file may have been killed before he synced it
        os.unlink(f"{path}-wal")
        sync_directory(path.parent)
    import logging  # only here: it would cost every command 5 ms

    logging.getLogger(__name__).error("%s; copies are in %s", said, kept)
    return found


def _lost(found: Diagnosis, standing: Standing) -> str:
    if standing == "whole":
        return "the file had all of it already, nothing is lost"
    if found.commits_behind:
        return f"the last writes were undone, at least {found.commits_behind} of them"
    return "the last writes were undone" if found.state == "header-damaged" else "the last write was undone"


def torn(diagnosis: Diagnosis | None) -> str | None:
    """What should be known of a WAL that ended in the middle of a write, as a kill or a power cut leaves it."""
    if diagnosis is None or diagnosis.state != "torn-tail" or diagnosis.flipped:
        return None
    return "whoever wrote last was stopped in the middle of a write: that write is not there"


def kept_in(path: Path) -> Path:
    """Where copies of a file lie that was damaged when it was to be opened."""
    return Path(f"{path}-quarantine")


def trouble(path: Path) -> str:
    """What was found damaged whenever the file was opened, as long as the copies are there; or nothing."""
    told = incidents(kept_in(path))
    if not told:
        return ""
    last = told[-1]
    more = f", and {len(told) - 1} times before" if len(told) > 1 else ""
    said = last.get("note", {}).get("said", "damaged")
    return f"on {last.get('time')}{more}: {said}; remove {kept_in(path)} when you have seen to it"

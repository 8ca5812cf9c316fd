"""Keeps a database as it was found, before anything opens it and changes what could be recovered."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

import msgspec

from holdfast.clock import SYSTEM, iso
from holdfast.disk import sync_directory
from holdfast.errors import NodeFull

Read: TypeAlias = Callable[[int, int], bytes]
"""Bytes of the database file, ``(size, offset)``, fewer at its end, by somebody who may read it beside SQLite."""
_COPY_BYTES: Final = 1 << 20
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def quarantine(
    path: Path,
    into: Path,
    *,
    also: tuple[Path, ...] = (),
    note: Mapping[str, Any] | None = None,
    database: Read | None = None,
) -> Path:
    """Copies a database as it is, before anything opens it, and writes down the incident.

    Copies the file, its ``-wal`` and ``-shm``, whichever exist, each synced; a directory of copies gets its
    final name only once it is whole. Then one line is appended to ``incidents.jsonl`` in `into`, and synced.
    Call it under the first opener's exclusive lock, while this process has no connection to the database.

    Args:
        path: the database file.
        into: the directory that collects incidents; made if missing.
        also: further files to copy, whichever exist.
        note: JSON values to keep with the incident.
        database: reads the database file, where to close the file itself would drop the lock that is held.

    Returns:
        The directory of the copies, ``<into>/<incident>``.

    Raises:
        NodeFull: no room; nothing is left behind, and the database should not be opened.
    """
    now = iso(SYSTEM.now_ms())
    incident = f"{now.replace('-', '').replace(':', '')}-{os.urandom(4).hex()}"
    target, making = into / incident, into / f".{incident}"
    beside = dict.fromkeys((path, Path(f"{path}-wal"), Path(f"{path}-shm"), *also))
    try:
        making.mkdir(mode=0o700, parents=True)
        files = [_copy(f, making / f.name, database if f == path else None) for f in beside if f.is_file()]
        sync_directory(making)
        making.rename(target)
        sync_directory(into)
        line = {"incident": incident, "time": now, "database": str(path), "files": files}
        _append(into / "incidents.jsonl", msgspec.json.encode({**line, "note": dict(note or {})}))
        sync_directory(into.parent)
    except OSError as error:
        import shutil  # only here: it would cost every command 3 ms

        for leftover in (making, target):
            shutil.rmtree(leftover, ignore_errors=True)
        if error.errno not in _NO_ROOM:
            raise
        raise NodeFull(
            f"no room to copy the damaged {path.name} before it is opened",
            hint="free space on this disk, then open the store again",
        ) from error
    return target


def incidents(into: Path) -> list[dict[str, Any]]:
    """What was written down there, oldest first; a line that a crash cut short is left out."""
    try:
        lines = (into / "incidents.jsonl").read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        with contextlib.suppress(msgspec.DecodeError):
            found.append(msgspec.json.decode(line, type=dict[str, Any]))
    return found


def _copy(source: Path, target: Path, read: Read | None) -> dict[str, Any]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(target, flags, 0o600), "wb") as out:
        if read is not None:
            size, digest = _pour(read, out)
        else:
            with open(source, "rb", buffering=0) as file:
                size, digest = _pour(lambda most, _: file.read(most), out)
        out.flush()
        os.fsync(out.fileno())
    return {"name": source.name, "size": size, "sha256": digest}


def _pour(read: Read, out: BinaryIO) -> tuple[int, str]:
    digest = hashlib.sha256()
    size = 0
    while piece := read(_COPY_BYTES, size):
        digest.update(piece)
        size += out.write(piece)
    return size, digest.hexdigest()


def _append(path: Path, line: bytes) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        end = os.fstat(fd).st_size
        torn = end > 0 and os.pread(fd, 1, end - 1) != b"\n"
        entry = b"\n" * torn + line + b"\n"
        if os.write(fd, entry) != len(entry):
            os.ftruncate(fd, end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(fd)
    finally:
        os.close(fd)

"""What a file system must be told before a name in it is safe."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def sync_directory(path: Path) -> None:
    """Returns once the names in a directory (made, removed, renamed) survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def is_stream(path: Path) -> bool:
    """Whether a path is no file of its own but a pipe, a device, or what a process has open: /dev/null, /dev/stdout.

    Such a thing is written into. Replaced or removed it would be gone, for every program of the machine.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(mode):
        return not stat.S_ISDIR(mode)
    while path.is_symlink():
        path = path.parent / os.readlink(path)
        if path.is_relative_to("/proc"):
            return True
    return False


@contextlib.contextmanager
def replacing(path: Path, mode: int | None = None) -> Iterator[BinaryIO]:
    """A file for the new bytes of `path`, which then has all of them, or what it had before.

    A link stays one: what it leads to is replaced. A pipe or a device is written into.

    Args:
        path: its directory is there; it need not be.
        mode: who may read it; None: as the process's umask has it.
    """
    if is_stream(path):
        with path.open("ab") as file:
            yield file
        return
    path = Path(os.path.realpath(path))
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")  # another that writes this file has its own
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        partial.replace(path)
        sync_directory(path.parent)
    finally:
        partial.unlink(missing_ok=True)

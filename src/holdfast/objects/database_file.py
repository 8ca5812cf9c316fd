"""The file of a database as the system sees it: how it is made, and what it means that it cannot be opened."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path
from typing import Final

from holdfast.disk import sync_directory
from holdfast.errors import StorageDenied, StorageError, StorageFull, StorageRefused, StorageUnavailable

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

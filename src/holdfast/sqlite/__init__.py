"""SQLite as this process has it: the version, checked once, and the VFS whose pages carry checksums.

Beside it, for whoever opens files: `alone`, `doctor`, `standing`, `quarantine`, the look at a WAL before SQLite does.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

import apsw

SQLITE_MIN: Final = (3, 51, 3)
"""Older ones corrupt a WAL that is reset while another connection writes."""
_VFS: Final = "cksmvfs"

apsw_version = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
if apsw_version < SQLITE_MIN:  # pragma: no cover - the lock file forbids it
    raise ImportError(
        f"SQLite {apsw.sqlite_lib_version()} can corrupt a WAL; install apsw >= 3.51.3",
    )

_lock = threading.Lock()
_ready = False


def checksums() -> str:
    """The name of the VFS that checks every page; loads it once a process."""
    global _ready
    with _lock:
        if not _ready:
            usual = apsw.vfs_names()[0]
            connection = apsw.Connection(":memory:")
            connection.enable_load_extension(True)
            connection.load_extension(_extension())
            connection.close()
            apsw.set_default_vfs(usual)  # loading takes the default: other people's databases are none of our business
            _ready = True
    return _VFS


def _extension() -> str:
    # Where the wheel has it. `apsw.sqlite_extra` finds it anywhere, but costs every command 10 ms.
    usual = Path(apsw.__file__).parent / "sqlite_extra_binaries" / "cksumvfs.so"
    if usual.exists():
        return str(usual)
    from apsw import sqlite_extra

    return str(sqlite_extra.path("cksumvfs"))

"""Gives back to the disk what a file no longer holds: a copy without free pages takes its place, or nothing changes.

SQLite's own VACUUM in place writes the whole file through the WAL; a copy beside it takes half the room, and is looked
at before it counts. Nobody else may have the file open: who wants to open it waits at its door. Killed anywhere, the
old file is there or the new one, each whole; what a kill leaves beside it is removed by the next try.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec

from holdfast.corpus.engine import Engine
from holdfast.corpus.trouble import as_ours
from holdfast.disk import sync_directory
from holdfast.errors import IntegrityError, Locked, NodeFull
from holdfast.sqlite import checksums

_COPY: Final = ".compact"
_MERGE: Final = "INSERT INTO fts(fts, rank) VALUES('merge', -500)"
_ROOM: Final = 16 << 20


class Compacted(msgspec.Struct, frozen=True):
    """A file's size in bytes, with its WAL, before and after."""

    path: Path
    before: int
    after: int


class _Gone:
    """In place of a gate that is held elsewhere."""

    def leave(self) -> None:
        """Does nothing."""


class Sole(Engine):
    """An engine whose process alone has the file open, and stays alone until it closes; `sole` says whether it is."""

    sole = False

    def _look_first(self) -> None:
        super()._look_first()
        self.sole = True

    def _let_in(self) -> None:
        if not self.sole:
            super()._let_in()


def compact(path: Path, roles: Sequence[str] = ("", "agent")) -> Compacted:
    """Makes one file as small as what it holds.

    Args:
        path: the file.
        roles: what it is, as `Engine` is told.

    Raises:
        Locked: somebody has it open.
        NodeFull: no room for the copy; nothing was changed.
        IntegrityError: a page is not what was written; nothing was changed.
    """
    before = _size(path)
    copy = path.with_name(path.name + _COPY)
    copy.unlink(missing_ok=True)
    engine = Sole(path, roles=roles)
    if not engine.sole:
        engine.close()
        raise Locked(f"{path} is open elsewhere", hint="end what uses this store, or compact it later")
    gate, engine._gate = engine._gate, _Gone()  # type: ignore[assignment]
    try:
        try:
            _copy(engine, path, copy)
        finally:
            emptied = engine.scour()
            engine.close()
        if not emptied:
            raise Locked(f"the write-ahead log of {path.name} could not be emptied", hint="try again")
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)  # they are empty, and not the new file's
        os.replace(copy, path)
        sync_directory(path.parent)
    finally:
        copy.unlink(missing_ok=True)
        gate.leave()
    return Compacted(path, before, _size(path))


def _copy(engine: Engine, path: Path, copy: Path) -> None:
    disk = os.statvfs(path.parent)
    if disk.f_bavail * disk.f_frsize < _size(path) + _ROOM:
        raise NodeFull(f"no room for a copy of {path.name}", hint=f"free {_size(path) + _ROOM:,} bytes on this disk")
    with as_ours(path):
        execute = engine.writer_execute
        if execute("SELECT 1 FROM sqlite_schema WHERE name='fts'").fetchall():
            changes, last = -1, -2
            while changes - last > 1:  # one change is that of the command itself
                last = execute("SELECT total_changes()").fetchone()[0]
                execute(_MERGE)
                changes = execute("SELECT total_changes()").fetchone()[0]
        execute("VACUUM INTO ?", (str(copy),))
        os.chmod(copy, 0o600)
        mine = _facts(execute)
        connection = apsw.Connection(str(copy), flags=apsw.SQLITE_OPEN_READONLY, vfs=checksums())
        try:
            wrong = [row[0] for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
            reserved = connection.reserve_bytes()
            theirs = _facts(connection.execute)
        finally:
            connection.close()
    if wrong or mine != theirs or reserved != 8:
        raise IntegrityError(f"the copy of {path.name} is not what it was made of", hint="holdfast verify")
    with contextlib.closing(_Descriptor(copy)) as file:
        os.fsync(file.fd)


class _Descriptor:
    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def close(self) -> None:
        """Closes it."""
        os.close(self.fd)


def _facts(execute: Any) -> list[Any]:
    """What must be the same in both: every table's length, and what the file says of its format."""
    # (What a virtual table keeps is in its shadow tables, which are among them.)
    names = (
        "SELECT name FROM sqlite_schema WHERE type='table' AND name<>'fts' AND name NOT LIKE 'sqlite_%' ORDER BY name"
    )
    tables = [row[0] for row in execute(names).fetchall()]
    counts = [(name, execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]) for name in tables]
    return [execute("PRAGMA user_version").fetchone()[0], *counts]


def _size(path: Path) -> int:
    return sum(os.stat(p).st_size for p in (path, Path(f"{path}-wal")) if p.exists())

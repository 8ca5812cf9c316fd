"""The WAL that somebody who was killed left beside a file: proven, and kept if damaged, before SQLite opens the file.

Opening replays what lies before the first frame that does not fit, and resets the WAL: what lies behind is gone. And
where a checkpoint had gone past the damage, that replay puts older pages over newer ones, which no page checksum sees.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from holdfast.disk import sync_directory
from holdfast.errors import IntegrityError
from holdfast.sqlite.doctor import Diagnosis, examine
from holdfast.sqlite.quarantine import Read, incidents, quarantine
from holdfast.sqlite.standing import Standing, judge


class Leftover(NamedTuple):
    """What was found. Nothing is lost if `standing` is ``whole``; `kept` is where the copies of damaged files are."""

    diagnosis: Diagnosis
    standing: Standing | None = None
    kept: Path | None = None


def look(path: Path) -> Leftover:
    """Proves the WAL of a file that is about to be opened; afterwards SQLite may replay what there is.

    Call it under the first opener's exclusive lock, while this process has no connection to the file.

    Args:
        path: the database file.

    Raises:
        IntegrityError: the WAL is damaged, and a checkpoint had gone past the damage; nothing was changed.
        NodeFull: it is damaged, and there is no room for copies; nothing was changed.
    """
    diagnosis = examine(path)
    # One bit in the last commit looks like a commit that a power cut tore. That was never moved into the file, since
    # a checkpoint syncs the WAL first: where it was moved, it is damage.
    if not diagnosis.damaged and not diagnosis.flipped:
        return Leftover(diagnosis)
    with _reading(path) as database:
        standing = judge(path, diagnosis, database)
    if standing == "earlier" and not diagnosis.damaged:
        return Leftover(diagnosis)
    kept = _keep(path, diagnosis, standing)
    if standing == "mixed":
        where = "" if diagnosis.first_bad is None else f" at frame {diagnosis.first_bad}"
        raise IntegrityError(
            f"{path.name}-wal is damaged{where}, and {path.name} may have a part of what lies behind: together they"
            " are no state that ever was",
            hint=f"nothing was changed, copies are in {kept}; holdfast repair takes a node's log from its hub or from a"
            " backup, a hub's file comes from a backup or its standby",
        )
    if standing == "whole":
        _drop(path)
    return Leftover(diagnosis, standing, kept)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[Read]:
    if not path.exists():
        yield lambda size, offset: b""
        return
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield lambda size, offset: os.pread(fd, size, offset)
    finally:
        os.close(fd)


def _keep(path: Path, diagnosis: Diagnosis, standing: Standing) -> Path:
    """Copies of the files; those of an earlier incident, if it is the same: who is refused tries again and again."""
    into = path.parent / "quarantine"
    for told in reversed(incidents(into) if standing == "mixed" else []):
        if _same(path, into, told):
            return into / str(told["incident"])
    note = {"diagnosis": msgspec.to_builtins(diagnosis), "standing": standing}
    anchors = path.with_suffix(".anchor"), path.parent / "anchor"
    return quarantine(path, into, also=anchors, note=note)


def _same(path: Path, into: Path, told: dict[str, Any]) -> bool:
    kept = {each["name"]: each["sha256"] for each in told["files"]}
    return (into / told["incident"]).is_dir() and all(
        kept.get(name) == _digest(path.with_name(name)) for name in (path.name, f"{path.name}-wal", f"{path.name}-shm")
    )


def _digest(path: Path) -> str | None:
    try:
        with open(path, "rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _drop(path: Path) -> None:
    """Removes the WAL of a file that has all of it, when the file is safe: a checkpoint may not have come to that."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise IntegrityError(
            f"the disk could not sync {path.name}: {error}", hint="nothing was changed; is the disk failing?"
        ) from error
    # The WAL last: without the -shm the next opener judges as we did; a WAL's index must not outlive the WAL.
    Path(f"{path}-shm").unlink(missing_ok=True)
    os.unlink(f"{path}-wal")
    sync_directory(path.parent)

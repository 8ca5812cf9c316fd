"""Evidence: copies of damaged files, and an append-only account of everything that was tried with them.

Below an agent's folder (or the node's, for blobs and the node's own files) lies ``quarantine/<incident>/`` with the
files as they were, and ``quarantine/incidents.jsonl`` with a line for each incident and for each attempt to recover
from it, every line synced. Nothing here is ever rewritten; what a person releases is noted too.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.clock import Clock, iso
from holdfast.disk import sync_directory
from holdfast.errors import NodeFull, NotFound, UsageError
from holdfast.log.opening import FROZEN
from holdfast.sqlite import apsw_version
from holdfast.sqlite.quarantine import quarantine

FOLDER: Final = "quarantine"
ACCOUNT: Final = "incidents.jsonl"
_NAME: Final = re.compile(r"\d{8}T[0-9.]+Z-[0-9a-f]{8}")
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """One incident: when, what was kept, and what was tried.

    Attributes:
        incident: its name.
        where: whose it is: an agent, or empty for the node.
        time: RFC 3339.
        path: the directory of the copies.
        here: whether the copies are still there.
        bytes: what they take.
        files: their names, sizes and digests.
        attempts: what recovery did, oldest first.
        note: what was known when it was frozen.
    """

    incident: str
    where: str
    time: str
    path: str
    here: bool
    bytes: int = 0
    files: list[dict[str, Any]] = []
    attempts: list[dict[str, Any]] = []
    note: dict[str, Any] = {}


def freeze(path: Path, note: dict[str, Any], also: Sequence[Path] = ()) -> Path:
    """Copies a database, its WAL, index and anchor aside before anything opens them; returns where the copies are.

    Raises:
        NodeFull: no room; then nothing may be repaired.
    """
    return quarantine(path, path.parent / FOLDER, also=(path.with_suffix(".anchor"), *also), note=note)


def record(folder: Path, line: dict[str, Any], clock: Clock) -> None:
    """Adds a line to the account below `folder`, and syncs it; a torn line before it is closed off.

    Raises:
        NodeFull: no room for the line.
    """
    into = folder / FOLDER
    into.mkdir(mode=0o700, parents=True, exist_ok=True)
    data = msgspec.json.encode({**line, "time": iso(clock.now_ms())}) + b"\n"
    fd = os.open(into / ACCOUNT, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        end = os.fstat(fd).st_size
        if end and os.pread(fd, 1, end - 1) != b"\n":
            data = b"\n" + data
        if os.write(fd, data) != len(data):
            os.ftruncate(fd, end)
            raise NodeFull(f"no room to note an incident in {into}", hint="free space on this disk")
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise NodeFull(f"no room to note an incident in {into}", hint="free space on this disk") from error
    finally:
        os.close(fd)
    sync_directory(into)


def tool() -> dict[str, str]:
    """What did it: versions of Holdfast, SQLite and the system."""
    from holdfast import __version__

    return {"holdfast": __version__, "sqlite": ".".join(map(str, apsw_version)), "system": sys.platform}


def kept(folder: Path, where: str) -> list[Kept]:
    """Every incident below `folder`, oldest first; lines that cannot be read are passed over."""
    into = folder / FOLDER
    begun: dict[str, dict[str, Any]] = {}
    attempts: dict[str, list[dict[str, Any]]] = {}
    for line in _lines(into / ACCOUNT):
        name = str(line.get("incident") or "")
        if "files" in line:
            begun[name] = line
        elif name:
            attempts.setdefault(name, []).append(line)
    names = {*begun, *attempts, *_directories(into)}
    out = []
    for name in sorted(names):
        path, line = into / name, begun.get(name, {})
        time = str(line.get("time") or next((str(a.get("time")) for a in attempts.get(name, ())), ""))
        out.append(
            Kept(
                incident=name,
                where=where,
                time=time,
                path=str(path),
                here=path.is_dir(),
                bytes=sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else 0,
                files=list(line.get("files") or ()),
                attempts=attempts.get(name, []),
                note=dict(line.get("note") or {}),
            )
        )
    return out


def release(folder: Path, incident: str, clock: Clock) -> None:
    """Removes the copies of an incident, thaws the log that it froze, and notes that somebody did so.

    Raises:
        NotFound: there is no such incident below `folder`.
        UsageError: not the name of an incident.
    """
    if not _NAME.fullmatch(incident):
        raise UsageError(f"not the name of an incident: {incident!r:.80}", hint="holdfast quarantine ls")
    path = folder / FOLDER / incident
    if not path.is_dir():
        raise NotFound(f"no incident {incident} is kept here", hint="holdfast quarantine ls")
    record(folder, {"incident": incident, "released": True}, clock)  # first: what is gone must have been noted
    if frozen(folder) == incident:
        (folder / FROZEN).unlink()
    shutil.rmtree(path)
    sync_directory(path.parent)


def put_on_ice(folder: Path, incident: str) -> None:
    """Makes the log in `folder` read-only until the incident is released."""
    with open(folder / FROZEN, "w", encoding="utf-8") as file:
        file.write(incident)
        file.flush()
        os.fsync(file.fileno())
    sync_directory(folder)


def thaw(folder: Path) -> None:
    """Ends that, for a log that was put right."""
    (folder / FROZEN).unlink(missing_ok=True)


def frozen(folder: Path) -> str:
    """The incident that froze the log in `folder`, or nothing."""
    try:
        return (folder / FROZEN).read_text("utf-8").strip()
    except FileNotFoundError:
        return ""


def copies(folder: Path) -> list[Path]:
    """The directories of copies below `folder`, the newest first."""
    return [folder / FOLDER / name for name in reversed(_directories(folder / FOLDER))]


def _directories(into: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(into) if _NAME.fullmatch(name) and (into / name).is_dir())
    except FileNotFoundError:
        return []


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    out = []
    for line in data.splitlines():
        try:
            found = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        if isinstance(found, dict):
            out.append(found)
    return out

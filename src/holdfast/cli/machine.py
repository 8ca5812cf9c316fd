"""What `doctor` looks at of the machine itself. Each check is a function of what was measured, and says what to do."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from holdfast.cli.show import count_text, size_text
from holdfast.corpus.space import FLOOR_BYTES, Space
from holdfast.sqlite import SQLITE_MIN

NETWORK: Final = re.compile(
    r"^(nfs|nfs4|cifs|smb\d?|smbfs|afs|ceph|glusterfs|lustre|gpfs|beegfs|ncpfs|davfs|9p"
    r"|fuse\.(sshfs|glusterfs|s3fs|rclone|davfs|gcsfuse|goofys|juicefs|cephfs|curlftpfs))$"
)
"""Kinds of file systems whose locks or fsync another machine keeps: SQLite's WAL needs shared memory on one machine."""
DOUBTFUL: Final = re.compile(r"^(fuse(\..*|blk)?|virtiofs|vboxsf|prl_fs|drvfs|ecryptfs)$")
"""Kinds that pass on to something else, which may keep locks and fsync, or may not."""
PASSING: Final = ("tmpfs", "ramfs")
_SYNCED: Final = (
    ".stfolder",
    ".dropbox",
    ".dropbox.cache",
    ".owncloudsync.log",
    ".nextcloudsync.log",
    ".tmp.drivedownload",
)
_SYNC_NAMES: Final = re.compile(
    r"^(Dropbox( \(.+\))?|OneDrive( - .+)?|Google ?Drive|My Drive|iCloud ?Drive|com~apple~CloudDocs|Mobile Documents"
    r"|Nextcloud|ownCloud|pCloudDrive|MEGA|Box|Sync|Syncthing|Resilio Sync)$",
    re.IGNORECASE,
)
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")
FILES_FEW: Final = 256
INODES_FEW: Final = 10_000
SECRET_FILES: Final = ("keys.db", "sealing.keys", "node.db")


class Check(msgspec.Struct, frozen=True):
    """One thing looked at: its name, how it is, in words, and what to do."""

    name: str
    state: Literal["ok", "warn", "fail"]
    text: str
    fix: str = ""


def sqlite(have: Sequence[int]) -> Check:
    """Whether this SQLite keeps what it is given.

    Args:
        have: its version.
    """
    shown, want = (".".join(map(str, version)) for version in (have, SQLITE_MIN))
    if tuple(have) < SQLITE_MIN:
        return Check("sqlite", "fail", f"{shown} can corrupt a WAL", f"install apsw >= {want}")
    return Check("sqlite", "ok", shown)


def permissions(path: Path) -> Check:
    """Whether this user may write to a store, and others may not look into it."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if not os.access(path, os.W_OK | os.X_OK):
        fix = "make its owner the user who runs the agents"
        return Check("permissions", "fail", f"this user may not write to {path}", fix)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        return Check("permissions", "warn", f"others may look into {path} (mode {mode:o})", f"chmod 700 {path}")
    return Check("permissions", "ok", "private to this user")


def keys(files: Iterable[Path]) -> Check:
    """Whether files that hold keys are their owner's alone; those that are not there are fine."""
    count = 0
    for path in files:
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except OSError:
            continue
        count += 1
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            return Check("keys", "fail", f"others may read {path} (mode {mode:o})", f"chmod 600 {path}")
    return Check("keys", "ok", f"{count_text(count, 'file')} private to this user")


def file_system(path: Path, mounts: Path = Path("/proc/mounts")) -> Check:
    """Whether the store lies where locks and fsync mean something.

    Args:
        path: the store.
        mounts: the system's table of mounts.
    """
    real = path.resolve()
    for folder in (real, *real.parents):
        if _SYNC_NAMES.match(folder.name) or any((folder / mark).exists() for mark in _SYNCED):
            what = f"{folder} is kept in step by a file synchroniser, which tears databases apart"
            return Check("file system", "warn", what, "move the store; holdfast's hub does the synchronising")
    try:
        table = mounts.read_text(errors="replace")
    except OSError:
        return Check("file system", "ok", "unknown: this system has no table of mounts")
    return _on(path, kind_of(str(real), table))


def kind_of(path: str, table: str) -> str:
    """The kind of file system that a path lies on, by a table of mounts in the form of /proc/mounts; empty: unknown."""
    best, kind = "", ""
    for line in table.splitlines():
        _, place, found, *_ = [*line.split(" "), "", "", ""]
        place = _ESCAPED.sub(lambda each: chr(int(each[1], 8)), place)
        inside = path == place or path.startswith(place.rstrip("/") + "/")
        if inside and len(place) >= len(best):  # of two at one place the later lies over the earlier
            best, kind = place, found
    return kind


def _on(path: Path, kind: str) -> Check:
    if NETWORK.match(kind):
        fix = "move the store to a local disk, and give it a hub"
        return Check("file system", "fail", f"{path} is on {kind}: locks and fsync are not to be trusted there", fix)
    if DOUBTFUL.match(kind):
        fix = "move the store to a local disk, unless you know that this one keeps locks and fsync"
        return Check("file system", "warn", f"{path} is on {kind}, which passes everything on to something else", fix)
    if kind in PASSING:
        return Check("file system", "warn", f"{path} is on {kind}: a restart empties it", "move the store to a disk")
    return Check("file system", "ok", kind or "unknown")


def disk(space: Space) -> list[Check]:
    """Whether there is room to write, and the reserve for the way out of a full disk."""
    free = f"{size_text(space.free)} of {size_text(space.total)} free"
    if not space.writable:
        found = Check("disk", "fail", f"{free}: writes are refused below {size_text(space.floor)}", "free some space")
    elif space.free < max(8 * FLOOR_BYTES, 2 * space.floor):
        found = Check("disk", "warn", free, "free some space")
    else:
        found = Check("disk", "ok", free)
    if space.ballast < space.ballast_wanted:
        ballast = Check("ballast", "warn", "gone: it was given back to a full disk", "comes back once there is room")
    else:
        ballast = Check("ballast", "ok", size_text(space.ballast))
    return [found, ballast]


def inodes(free: int, total: int) -> Check:
    """Whether the disk has room for more files; some file systems do not count them.

    Args:
        free: how many more this user may make.
        total: all that there can be; 0: not counted.
    """
    if not total:
        return Check("inodes", "ok", "not counted here")
    text = f"{free:,} of {total:,} free"
    if free < 100:
        return Check("inodes", "fail", f"{text}: no more files can be made", "delete files, of whatever size")
    few = free < INODES_FEW
    return Check("inodes", "warn" if few else "ok", text, "delete files, of whatever size" if few else "")


def open_files(limit: int) -> Check:
    """Whether a process may open enough files: each agent's log takes about five, each connection one.

    Args:
        limit: how many it may open; below 0: as many as it likes.
    """
    if limit < 0:
        return Check("open files", "ok", "no limit")
    if limit < FILES_FEW:
        return Check(
            "open files", "warn", f"a process may open {limit:,}", "ulimit -n 4096, or LimitNOFILE= of its unit"
        )
    return Check("open files", "ok", f"a process may open {limit:,}")

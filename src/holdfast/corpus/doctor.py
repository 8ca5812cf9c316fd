"""Looks at a write-ahead log before SQLite does: tells honest loss of power from damage to what was acknowledged.

SQLite ends its replay at the first frame that does not fit and resets the file: behind one flipped bit every
commit is gone, without an error. Here every frame is judged by itself, from the checksum stored in its
predecessor, so that frames behind a bad one still count: whole commits behind a bad frame were not torn off by
a power cut (unsynced writes vanish at the end), they were written and synced, and then something rotted.

Rule: damaged when at least two valid commit frames lie behind the first bad frame. One is not enough: a power
cut in a WAL whose last commit was not yet synced may keep its later sectors and lose its earlier ones. Where
commits do not sync one by one (levels BASIC and ADVANCED) a power cut may rarely look like damage; the anchor
and the hub decide then, and a needless quarantine costs only a copy.

Everything here reads and writes files beside SQLite, so call it only while nobody has the database open, under
the first opener's exclusive lock: closing a file drops the POSIX locks which SQLite holds on it.

Source: sqlite.org/fileformat2.html section 4; Alagappan et al., "Protocol-Aware Recovery" (2018).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

State = Literal["absent", "empty", "clean", "torn-tail", "damaged", "header-damaged"]
"""What the WAL is: not there; holding no frame; whole; cut short by a crash; or losing acknowledged commits."""


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """What a WAL holds, and whether SQLite would lose some of it silently.

    `frames` and `commits` are those that SQLite would replay; `first_bad` is the number (from 0) of the frame
    at which it would stop though frames of the same run follow or were begun, or None; `frames_behind` and
    `commits_behind` are valid ones that it would throw away.
    """

    state: State
    size: int = 0
    page_size: int = 0
    frames: int = 0
    commits: int = 0
    first_bad: int | None = None
    frames_behind: int = 0
    commits_behind: int = 0

    @property
    def damaged(self) -> bool:
        """Whether opening the database now would throw away what had been acknowledged."""
        return self.state in ("damaged", "header-damaged")


def examine(path: Path) -> Diagnosis:
    """Says what SQLite would make of ``<path>-wal``, and changes nothing.

    Args:
        path: the database file (not the WAL).

    Returns:
        The diagnosis. Reads the WAL once; a tail of zeros or of an older run is skipped over.

    Raises:
        OSError: the file cannot be read.
    """
    raise NotImplementedError


def prefill(path: Path, size: int) -> int:
    """Gives the WAL its size beforehand, in zeros behind what it holds, so that later syncs write no metadata.

    Call it when the database is open but nobody writes yet, under the first opener's exclusive lock. Opening and
    closing the WAL beside SQLite is safe (SQLite locks the database and the -shm, never the WAL).

    Args:
        path: the database file.
        size: bytes that the WAL shall have.

    Returns:
        The WAL's size afterwards: as before when there was no room or no WAL (it only saves time).
    """
    raise NotImplementedError


def quarantine(
    path: Path, into: Path, *, also: tuple[Path, ...] = (), note: Mapping[str, Any] | None = None
) -> Path:
    """Copies a database as it is, before anything opens it, and writes down the incident.

    Copies the file, its ``-wal`` and ``-shm``, and the anchor beside it, whichever exist, each synced; a
    directory of copies has its final name only once it is whole. Then one line is appended to
    ``incidents.jsonl`` in `into`, and synced.

    Args:
        path: the database file.
        into: the directory that collects incidents; made if missing.
        also: further files to copy.
        note: JSON values to keep with the incident.

    Returns:
        The directory of the copies, ``<into>/<incident>``.

    Raises:
        NodeFull: no room; nothing is left behind, and the database should not be opened.
    """
    raise NotImplementedError

"""Loss of power, full disks and I/O errors, on demand: two VFSs, and what a machine may find after a power cut.

`kill -9` proves nothing about syncs, since the kernel keeps what was written. Here a VFS records every write,
sync, truncation and deletion, and `crash_state` makes from any prefix of them a directory as a machine may find
it: what was synced is there, of what was not any part may be.

    recorder = Recorder()
    with recording(recorder) as vfs:            # or recording(recorder, checksums=True)
        connection = apsw.Connection(path, vfs=vfs)
        ...
        acknowledged.append(recorder.mark())
    files = crash_state(recorder.ops, k, random.Random(seed), "torn")

Model: data are durable up to the file's last sync; of later writes any subset survives, whole or torn at 512
bytes; creations and deletions survive as a prefix (journalled metadata), forced by a sync of the directory or of
a file created since. Writes outside SQLite are told by `Recorder.wrote` and `Recorder.synced`.

Source: SQLite's src/test6.c; Pillai et al., "All File Systems Are Not Created Equal" (2014).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

Mode = Literal["subset", "torn", "drop", "garbage"]
"""What becomes of unsynced writes: any subset; every one torn; none survives; sectors hold random bytes."""
MODES: tuple[Mode, ...] = ("subset", "torn", "drop", "garbage")


class Op(NamedTuple):
    """One change of a file: `kind` is write, sync, truncate or delete; `offset` is the size for truncate and 1
    for a delete that syncs its directory."""

    kind: str
    name: str
    offset: int = 0
    data: bytes = b""


class Recorder:
    """Everything that was done to files, in order.

    Args:
        root: names are relative to it; without it, the last part of the path.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.ops: list[Op] = []

    def mark(self) -> int:
        """How many operations there were so far: the `k` of a power cut right now."""
        raise NotImplementedError

    def synced(self, name: str | Path) -> None:
        """Says that a file was synced by somebody else than SQLite (an own fdatasync of the -wal)."""
        raise NotImplementedError

    def wrote(self, name: str | Path, offset: int, data: bytes) -> None:
        """Says that a file was written by somebody else than SQLite."""
        raise NotImplementedError


@contextmanager
def recording(recorder: Recorder, *, checksums: bool = False) -> Iterator[str]:
    """Registers a recording VFS for the block and gives its name, for ``apsw.Connection(path, vfs=name)``.

    Args:
        recorder: what it records into.
        checksums: put the page-checksum VFS on top; the name is then that one's, ``cksmvfs``.
    """
    raise NotImplementedError
    yield ""


def crash_state(ops: Sequence[Op], k: int, rng: random.Random, mode: Mode) -> dict[str, bytes]:
    """The files that a machine may find after it lost power just behind the first `k` operations.

    Args:
        ops: what was recorded.
        k: how many of them had happened.
        rng: decides what survives.
        mode: see `Mode`.

    Returns:
        Content by name; files of shared memory are left out, as no machine keeps them.
    """
    raise NotImplementedError


def write_state(files: dict[str, bytes], directory: Path) -> None:
    """Puts a crash state on the disk, under `directory`."""
    raise NotImplementedError


class Faults:
    """When and how the fault VFS fails; set it between two tries.

    Args:
        calls: which calls count: write, sync, truncate, delete, open.
    """

    def __init__(self, calls: frozenset[str] = frozenset({"write", "sync", "truncate", "delete", "open"})) -> None:
        self.seen = 0
        self.hits = 0

    def arm(self, at: int, error: Literal["ioerr", "fsync", "full"], *, sticky: bool, torn: bool) -> None:
        """Makes the `at`-th call from now fail.

        Args:
            at: number of the call, from 1.
            error: what it fails with.
            sticky: every later call fails too.
            torn: half of a failing write reaches the file.
        """
        raise NotImplementedError

    def disarm(self) -> None:
        """Lets every call through again."""
        raise NotImplementedError


@contextmanager
def faulty(faults: Faults, *, checksums: bool = False) -> Iterator[str]:
    """Registers a failing VFS for the block and gives its name.

    Args:
        faults: when it fails.
        checksums: put the page-checksum VFS on top; the name is then that one's, ``cksmvfs``.
    """
    raise NotImplementedError
    yield ""

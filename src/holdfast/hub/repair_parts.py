"""What a repair of a hub works with and reckons in: its tools, the backup that it builds on, what must not be gone."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from holdfast.clock import SYSTEM, Clock
from holdfast.corpus import SqlCorpus
from holdfast.errors import HoldfastError
from holdfast.hub.repair_standby import Standby
from holdfast.integrity.backup import BackupSource, Repository
from holdfast.integrity.recovery import Step
from holdfast.seal import KeyRing
from holdfast.wire import Mark

FILE = "hub.db"


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """What a repair works with.

    Attributes:
        backups: addresses of repositories of this hub's backups.
        ring: the keys of those that are sealed.
        signer: whose backups they must be (a public key in hex); empty: this hub's.
        clock: the time.
        standby: a hub that followed this one, and holds what it held.
        free: how many bytes the disk of a path has left.
    """

    backups: Sequence[str] = ()
    ring: KeyRing | None = None
    signer: str = ""
    standby: Standby | None = None
    clock: Clock = SYSTEM
    free: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free


class Owed(msgspec.Struct, frozen=True):
    """Where a branch of the hub's own ended, by what its damaged file says: something that must not be gone."""

    stream: bytes
    inc: bytes
    mark: Mark


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """The backup that is built on: its repository, its name, up to which position it reaches, and its heads."""

    repository: Repository
    name: str
    pos: int
    records: int
    heads: dict[int, Mark]


def is_on_course(file: Sequence[tuple[str, int]], backup: Sequence[tuple[str, int]], pos: int) -> bool:
    """Whether a backup up to a position is a part of a file's own past, or goes on from all of it.

    Args:
        file: the generations of the file, each with the position that it began behind; empty: nobody can tell.
        backup: those of the backup.
        pos: how far the backup reaches.
    """
    if not file or not backup:
        return True
    names = [gen for gen, _ in file]
    if backup[-1][0] not in names:
        return names[-1] in [gen for gen, _ in backup]  # the file is older than the backup
    following = names.index(backup[-1][0]) + 1
    return following == len(file) or file[following][1] >= pos


def step(check: str, strategy: str, first: int, last: int, source: str, records: int) -> Step:
    """A step about the file of records."""
    return Step(
        agent="", part=FILE, check=check, strategy=strategy, first=first, last=last, source=source, records=records
    )


def holder(sources: Sequence[BackupSource | Standby], digest: bytes, size: int) -> BackupSource | Standby | None:
    """The first of these that has a blob."""
    for source in sources:
        with contextlib.suppress(HoldfastError, OSError):
            if source.blob(digest, size) is not None:
                return source
    return None


def referred_blobs(corpus: SqlCorpus) -> Iterator[tuple[bytes, int]]:
    """The blobs that records refer to, with their sizes."""
    from holdfast.integrity.backup.restoring import referred

    yield from referred(corpus).items()

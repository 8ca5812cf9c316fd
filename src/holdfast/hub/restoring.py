"""A served hub goes back to one of its backups: made ready beside it while it serves, put in its place while it pauses.

Before anything is replaced, what the hub holds is backed up once more, and its files are copied into quarantine: there
is a way back from each restore. Its key and its tokens stay: what was revoked since does not come to life again. It
begins a generation, so nodes bring what they have beyond the backup, and what was erased since stays erased.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any, Final

from holdfast.clock import SYSTEM
from holdfast.corpus import SqliteCorpus
from holdfast.disk import sync_directory
from holdfast.errors import Conflict, HoldfastError, IntegrityError
from holdfast.hub import acts
from holdfast.hub.acts import Act, Actor
from holdfast.hub.backup import hub_source
from holdfast.hub.directory import take
from holdfast.hub.repair import CLEAN, FILE
from holdfast.hub.tokens import SqliteTokens
from holdfast.integrity import incidents, rebuild
from holdfast.integrity.backup import Moment, Repository, create, restore
from holdfast.integrity.backup.making import Told
from holdfast.log.erasure import Erasure, erasures, reapply
from holdfast.objects import BlobFiles

READY: Final = ".restored"


def make_ready(
    home: Path, repository: Repository, name: str, *, blobs: str = "", told: Told = lambda *_: None
) -> dict[str, Any]:
    """Backs the hub up as it is, and restores another backup beside it, proven; the hub goes on serving.

    Args:
        home: the hub's directory.
        repository: its backups.
        name: the backup that is wanted.
        blobs: where its blobs are, if they are elsewhere.
        told: hears how far it is.

    Raises:
        IntegrityError: the backup is damaged; nothing has changed.
        NotFound: there is no such backup.
    """
    repository.backup(name)
    snapshot = _snapshot(home, repository, blobs, told)
    shutil.rmtree(home / READY, ignore_errors=True)
    try:
        made = restore(repository, home / READY, Moment(backup=name), finish=lambda *_: None, told=told)
    except (HoldfastError, OSError):
        shutil.rmtree(home / READY, ignore_errors=True)  # room on the hub's own disk
        raise
    return {"snapshot": snapshot, "backup": made.backup, "records": made.records, "erased": made.erased}


def put_back(
    home: Path, repository: Repository, name: str, *, blobs: str = "", by: Actor | None = None
) -> dict[str, Any]:
    """Puts what was made ready in the place of the hub's file, while nobody serves it.

    Args:
        home: the hub's directory.
        repository: its backups.
        name: the backup that was made ready.
        blobs: where its blobs are, if they are elsewhere.
        by: who wants it, for the audit trail.

    Raises:
        Conflict: nothing was made ready.
        Locked: somebody serves it.
        NodeFull: no room for copies of its files; nothing has changed.
    """
    ready = home / READY
    if not (ready / FILE).exists():
        raise Conflict("no backup was made ready to take the hub's place", hint="ask for it again")
    fd = take(home)
    try:
        # What came since it was made ready, too: before its file is locked, as both open it.
        snapshot = _snapshot(home, repository, blobs, lambda *_: None)
        _erase_again(ready, _erased(home))
        with rebuild.alone(home / FILE, make=True):
            incident = incidents.freeze(home / FILE, {"restore": name, "snapshot": snapshot}, [home / CLEAN])
            _take_blobs(ready, home)
            for end in ("-shm", "-wal"):
                (home / f"{FILE}{end}").unlink(missing_ok=True)
            (home / CLEAN).unlink(missing_ok=True)
            sync_directory(home)
            os.replace(ready / FILE, home / FILE)
            sync_directory(home)
        shutil.rmtree(ready, ignore_errors=True)
        line = {"incident": incident.name, "part": FILE, "outcome": "restored", "backup": name, "snapshot": snapshot}
        incidents.record(home, {**line, "tool": incidents.tool()}, SYSTEM)
    finally:
        os.close(fd)
    _tell(home, {"backup": name, "snapshot": snapshot, "incident": incident.name}, by)
    return {"backup": name, "snapshot": snapshot, "incident": incident.name, "done": True}


def _snapshot(home: Path, repository: Repository, blobs: str, told: Told) -> str:
    """A backup of the hub as it is; empty where damage forbids one: then the copies in quarantine are the way back."""
    try:
        with hub_source(str(home), blobs=blobs) as source:
            return create(repository, source, told=told).backup
    except IntegrityError:
        return ""


def _erased(home: Path) -> list[Erasure]:
    """What was erased here; of a damaged file nothing: the newest backup has told what it knew."""
    with contextlib.suppress(HoldfastError):
        corpus = SqliteCorpus(home / FILE, hub=True)
        try:
            return erasures(corpus)
        finally:
            corpus.close()
    return []


def _erase_again(ready: Path, known: list[Erasure]) -> None:
    """What was erased between the two stays erased."""
    made = SqliteCorpus(ready / FILE, hub=True)
    try:
        reapply(made, BlobFiles(ready / "blobs"), known)
        made.sync()
        made.checkpoint()
    finally:
        made.close()
    with open(ready / FILE, "rb") as file:
        os.fsync(file.fileno())


def _take_blobs(ready: Path, home: Path) -> None:
    here, there = BlobFiles(home / "blobs"), BlobFiles(ready / "blobs")
    for digest in there.iter():
        if not here.verify(digest):
            here.put(there.path(digest), expect=digest)


def _tell(home: Path, detail: dict[str, str], by: Actor | None) -> None:
    act = Act(
        by=by or acts.by_machine(), what=acts.RESTORE, about="the hub", detail={k: v for k, v in detail.items() if v}
    )
    with contextlib.suppress(HoldfastError), contextlib.closing(SqliteTokens(home)) as store:
        acts.try_to_tell(store.acts, act)

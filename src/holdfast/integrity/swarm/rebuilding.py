"""A log whose pages are damaged, made anew: the newest backup, and on it what was written since.

A backup says up to which record of which log it goes. If everything behind that record can still be read, then what
was not written since is newest in the backup, and what was written since is newest here: nothing is guessed, and no
damaged page is needed. The old log is kept aside; its history begins anew, for a backup holds newest versions only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.disk import sync_directory
from holdfast.errors import HoldfastError, IntegrityError, Locked, NotFound
from holdfast.integrity.swarm.backups import Listed
from holdfast.integrity.swarm.logged import LogShelf
from holdfast.integrity.swarm.package import Kept
from holdfast.integrity.swarm.places import LOG
from holdfast.integrity.swarm.shelf import Found

if TYPE_CHECKING:
    from holdfast.integrity.swarm.storage import PersistentDataStorage


def rebuild(storage: PersistentDataStorage, *, allow_loss: bool = False) -> str:
    """Makes the log anew from the newest backup and its own readable tail; how it went, in words.

    Raises:
        IntegrityError: it cannot be proven that nothing is lost, and losses are not allowed; nothing was changed.
        Locked: another process has the log open.
    """
    old = storage.shelf
    assert isinstance(old, LogShelf)
    listed = next((each for _, each in storage.backups.newest_first()), None)
    if listed is None and not allow_loss:
        raise IntegrityError("there is no backup to build the log anew from")
    tail, whole = _tail(old, listed)
    if not whole and not allow_loss:
        raise IntegrityError(
            "what was written since the newest backup cannot be read: it cannot be proven that nothing is lost",
            hint="allow losses to go on without it",
        )
    making = storage.path / f"{LOG}.new"
    shutil.rmtree(making, ignore_errors=True)
    new = LogShelf(making, old.blobs, old.opened.level)
    lost: list[str] = []
    count = 0
    try:
        names = {*(listed.entries if listed else ()), *tail}
        if not whole:
            with contextlib.suppress(IntegrityError):
                names |= {*old.ids()}
        for data_id in sorted(names):
            try:
                kept, payload = _best(storage, old, listed, tail, data_id)
                new.write(kept, payload)
                count += 1
            except (IntegrityError, NotFound) as error:
                if not allow_loss:
                    raise
                lost.append(f"{data_id}: {error.message}")
        wrong = new.whole()
    finally:
        new.opened.close()
    if wrong:
        raise IntegrityError(f"the new log does not prove itself: {wrong[0]}")
    target = swap(storage, old)
    text = f"{count} values are in a new log, {len(tail)} of them written since the backup; the old one is in {target}"
    return text + (f"; lost: {'; '.join(lost)}" if lost else "")


def swap(storage: PersistentDataStorage, old: LogShelf) -> Path:
    """Puts the old log aside and the new one in its place.

    Raises:
        Locked: another process has the log open; nothing was changed.
    """
    with contextlib.suppress(HoldfastError):
        old.close()
    try:
        return put_aside(storage.path)
    finally:
        storage.shelf = storage.open_shelf()


def put_aside(path: Path) -> Path:
    """Moves a closed log to the quarantine, and the new one into its place; where the old one is then.

    Raises:
        Locked: another process has the log open; nothing was changed.
    """
    from holdfast.integrity.swarm.recovering import incident

    fd = os.open(path / LOG / "log.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        target = incident(path)
        os.rename(path / LOG, target / LOG)
        os.rename(path / f"{LOG}.new", path / LOG)
        sync_directory(path)
    except BlockingIOError as error:
        raise Locked("another process has the log open", hint="end it, and try again") from error
    finally:
        os.close(fd)
    return target


def _tail(old: LogShelf, listed: Listed | None) -> tuple[dict[str, Found], bool]:
    """The newest version of everything that was written behind the backup, and whether all of that could be read."""
    stream, _ = _where(old)
    found: dict[str, Found] = {}
    if listed is None or listed.log != stream:
        return found, False
    try:
        for each in old.written_since(listed.seq):
            found[each.kept.data_id] = each
    except IntegrityError:
        return found, False
    return found, True


def _where(old: LogShelf) -> tuple[str, int]:
    try:
        return old.head()
    except IntegrityError:
        return old.stream, 0


def _best(
    storage: PersistentDataStorage, old: LogShelf, listed: Listed | None, tail: dict[str, Found], data_id: str
) -> tuple[Kept, bytes | None]:
    """The newest version that can be proven, and its bytes unless they are a blob."""
    found = tail.get(data_id)
    if found is None and (listed is None or data_id not in listed.entries):
        found = old.newest(data_id)
        if found is None:
            raise NotFound(f"{data_id} is nowhere")
    if found is not None:
        kept = found.kept
        if kept.deleted:
            return kept, None
        if not kept.blob:
            return kept, old.payload(found)
        if not old.blobs.verify(kept.digest):
            raise IntegrityError(f"the bytes of {data_id} are damaged")
        return kept, None
    assert listed is not None
    entry = listed.entries[data_id]
    if entry.kept.deleted:
        return entry.kept, None
    payload = storage.backups.read(entry)
    if entry.kept.blob and not old.blobs.verify(entry.kept.digest):
        storage.backups.bring_blob(entry, old.blobs)
    return entry.kept, payload

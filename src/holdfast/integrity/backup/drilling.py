"""A drill restores backups for a trial: the newest and one older, each as a disaster would have it restored.

Only what came back whole, proved itself, stands where the signed manifest says and answered some questions is called
verified; a signed object in the repository says so.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from holdfast import seal
from holdfast.clock import SYSTEM, Clock
from holdfast.corpus import Filter, SqliteCorpus
from holdfast.errors import HoldfastError, IntegrityError, StorageUnavailable
from holdfast.integrity.backup.making import Told
from holdfast.integrity.backup.manifest import FORMAT, Drill, Drilled, Manifest
from holdfast.integrity.backup.repository import Repository
from holdfast.integrity.backup.restoring import Moment, restore
from holdfast.integrity.backup.source import HUB, Tables

ASKED: Final = 20
"""Keys of each part that are read back."""


def drill(
    repository: Repository,
    signer: seal.Signer,
    names: Sequence[str] = (),
    *,
    room: Path | None = None,
    wall: Clock = SYSTEM,
    told: Told = lambda *_: None,
) -> Drill:
    """Restores backups to a place of their own, proves them, and writes down how it went.

    Args:
        repository: where they are.
        signer: the key of the repository.
        names: which; empty: the newest, and one older at random.
        room: where there is room for them; None: the system's place for temporary files.
        wall: the clock.
        told: hears how far it is.

    Returns:
        The drill, which is in the repository by then; a backup that did not come back never raises.

    Raises:
        Conflict: it is another's key.
        NotFound: there are no backups.
        StorageUnavailable: the store does not answer: that says nothing about the backups.
    """
    repository.keys  # noqa: B018 - raises where there are no backups
    chosen = list(names) or _chosen(repository.names())
    done = [_one(repository, name, room, told) for name in chosen]
    made = Drill(format=FORMAT, repository=repository.about.id, made_ms=wall.now_ms(), backups=done)
    repository.add(made, signer)
    return made


def _chosen(names: list[str]) -> list[str]:
    return names[-1:] + ([random.choice(names[:-1])] if len(names) > 1 else [])


def _one(repository: Repository, name: str, room: Path | None, told: Told) -> Drilled:
    begun = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="holdfast-drill-", dir=room) as folder:
            target = Path(folder) / "restored"
            restored = restore(repository, target, Moment(backup=name), finish=lambda *_: None, told=told)
            _ask(repository, repository.backup(name), target)
    except StorageUnavailable:
        raise
    except (HoldfastError, OSError) as error:
        return Drilled(backup=name, ok=False, seconds=time.monotonic() - begun, error=str(error))
    return Drilled(backup=name, ok=True, records=restored.records, seconds=time.monotonic() - begun)


def _ask(repository: Repository, manifest: Manifest, target: Path) -> None:
    """Asks what was restored what anybody would ask it.

    Raises:
        IntegrityError: an answer is not what it should be.
    """
    for entry in manifest.parts:
        tables = repository.document(entry.tables, Tables)
        corpus = SqliteCorpus(target / tables.place, hub=tables.kind == HUB)
        try:
            if corpus.last() != entry.pos:
                raise IntegrityError(f"{tables.place} ends at {corpus.last()} and not at {entry.pos}")
            for stored in corpus.page(Filter(current=True, limit=ASKED)):
                record = stored.record
                found = corpus.newest(stored.agent, record.collection, record.key)
                if found is None or found.pos != stored.pos:
                    raise IntegrityError(f"{tables.place} does not find {record.collection}/{record.key}")
                if found.body is not None:
                    found.payload()
                if next(corpus.versions(stored.agent, record.collection, record.key)).pos != stored.pos:
                    raise IntegrityError(f"the history of {record.collection}/{record.key} does not begin with it")
        finally:
            corpus.close()


def settled_heads(repository: Repository) -> list[tuple[bytes, bytes, int, bytes, int, bytes]]:
    """What both of the two newest verified backups of a hub hold.

    Returns:
        Of each branch: its stream, incarnation, base (number and link), and the newest record there (number and link);
        empty without two verified backups.
    """
    verified = repository.verified()
    names = [name for name in repository.names() if name in verified][-2:]
    if len(names) < 2:
        return []
    older, newer = (_heads(repository, name) for name in names)
    out = []
    for at, (seq, link) in older.items():
        if at in newer:
            out.append((*at, *min((seq, link), newer[at])))
    return out


def _heads(repository: Repository, name: str) -> dict[tuple[bytes, bytes, int, bytes], tuple[int, bytes]]:
    found = {}
    for entry in repository.backup(name).parts:
        tables = repository.document(entry.tables, Tables)
        if tables.kind != HUB:
            continue
        streams = {row[0]: row[1] for row in tables.rows["stream"]}
        branches = {row[0]: (streams[row[1]], row[2], row[4], row[5]) for row in tables.rows["branch"]}
        found.update({branches[branch]: (seq, bytes.fromhex(link)) for branch, seq, link in entry.heads})
    return found

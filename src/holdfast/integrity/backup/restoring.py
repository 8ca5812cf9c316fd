"""Brings a backup back, to a new place, as it was at its moment or at any moment before.

The directory is made beside its place, proven (every record, chain, signature, blob, and the heads that the signed
manifest names), synced, and only then put in its place by one rename. Killed, the same call goes on where it stood.
What was erased since stays erased: the newest backup says what that is.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import re
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from holdfast import codec
from holdfast.clock import millis
from holdfast.corpus import SqlCorpus, SqliteCorpus
from holdfast.disk import sync_directory
from holdfast.errors import Conflict, IntegrityError, Locked, NotFound
from holdfast.integrity.backup.making import Told, read_segment
from holdfast.integrity.backup.manifest import BlobEntry, Manifest, Packed, PartEntry, SegmentEntry
from holdfast.integrity.backup.replay import Replay, ends_batch
from holdfast.integrity.backup.repository import Repository
from holdfast.integrity.backup.source import HUB, Tables
from holdfast.integrity.scan import verify_corpus
from holdfast.objects import BlobFiles

_PLACE: Final = re.compile(r"hub\.db|agents/[^/\0]{1,255}/log\.db")
_PLAN: Final = "restoring.json"
FINDINGS_SHOWN: Final = 5
WAL_PAGES: Final = 16_384
"""64 MiB of write-ahead log before they are moved into the file: what is written again and again is moved once."""
CACHE_KIB: Final = 32_768
READER_CACHE_KIB: Final = 4_096  # what proves it reads everything once
AHEAD: Final = 2
"""Segments that are fetched before they are needed: a few MB."""

Finish = Callable[[Path, dict[str, bytes]], None]
"""Makes a restored directory one that works: writes what the documents say into it."""


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """Which state is wanted.

    Attributes:
        backup: of this backup; empty: of the newest that can be.
        at_ms: as it was then, in ms since 1970; of a hub: what had arrived by then.
        seq: up to this record, where the backup has one file; of a hub: up to this position.
        agent: only this agent's log.
    """

    backup: str = ""
    at_ms: int | None = None
    seq: int | None = None
    agent: str = ""


class Restored(msgspec.Struct, kw_only=True):
    """What was brought back.

    Attributes:
        backup: from which backup.
        target: where it is now.
        parts: files of records.
        records, blobs: how many there are.
        signatures: signed heads that were checked.
        erased: payloads that the backup still held, and that were left out.
        missing: bodies and blobs that the backup does not hold either (evicted, quarantined, erased before).
        resumed: whether it went on with one that was broken off.
        whole: whether it is all of the backup, and not an earlier moment.
        seconds: how long it took.
    """

    backup: str = ""
    target: str = ""
    parts: int = 0
    records: int = 0
    blobs: int = 0
    signatures: int = 0
    erased: int = 0
    missing: int = 0
    resumed: bool = False
    whole: bool = True
    seconds: float = 0.0


class _Plan(msgspec.Struct, frozen=True):
    """What a half-made directory is to become."""

    repository: str
    backup: str
    newest: str
    moment: Moment


def restore(
    repository: Repository,
    target: Path,
    moment: Moment = Moment(),  # noqa: B008 - frozen
    *,
    finish: Finish,
    unknown_erasures: bool = False,
    told: Told = lambda *_: None,
) -> Restored:
    """Makes a directory of a backup, verified before it is there.

    Args:
        repository: where the backups are.
        target: the directory; it must not be there, or be empty.
        moment: which state.
        finish: completes the directory with what is no record.
        unknown_erasures: go on although the newest backups, which know what was erased last, cannot be read.
        told: hears how far it is.

    Raises:
        Conflict: the target is not empty, or a restore of something else was broken off beside it.
        Denied: it is sealed, and the key is not there.
        IntegrityError: the backup is damaged, or what came back does not prove; the target is not there.
        Locked: somebody is restoring to it.
        NotFound: there is no such backup.
    """
    begun = time.monotonic()
    target = Path(os.path.abspath(target))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise Conflict(f"{target} is not empty", hint="a backup is restored to a new place: give another one")
    name, manifest = choose(repository, moment)
    newest, unread = _newest(repository, name)
    if unread and not unknown_erasures:
        raise IntegrityError(
            f"{len(unread)} newer backups cannot be read, such as {unread[-1]}: what was erased since {newest} is not"
            " known",
            hint="what was restored could hold it again; if that may be: --unknown-erasures",
        )
    plan = _Plan(repository.about.id, name, newest, moment)
    work = target.parent / f".{target.name}.restoring"
    made = Restored(backup=name, target=str(target))
    work.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(work):
        made.resumed = _claim(work, plan)
        erased = _erased(repository, newest)
        for entry in manifest.parts:
            tables = repository.document(entry.tables, Tables)
            if _wanted(tables, moment):
                _Part(repository, entry, tables, erased, made).run(work, moment, told)
        if moment.agent and not made.parts:
            raise NotFound(f"the backup {name} holds no agent {moment.agent!r}", hint="holdfast backup ls --json")
        finish(work, repository.document(manifest.documents, dict[str, bytes]))
        (work / _PLAN).unlink()
        _sync_tree(work)
        if target.exists():
            target.rmdir()
        os.rename(work, target)
        sync_directory(target.parent)
    made.seconds = time.monotonic() - begun
    return made


def choose(repository: Repository, moment: Moment) -> tuple[str, Manifest]:
    """The backup to restore from: the one named, else the first that knows all of the moment, else the newest."""
    names = repository.names()
    if not names:
        raise NotFound(f"there are no backups in {repository.store.name}", hint="holdfast backup create")
    if moment.backup:
        found = [name for name in names if name.startswith(moment.backup)]
        if len(found) != 1:
            raise NotFound(f"no backup {moment.backup!r:.60} in {repository.store.name}", hint="holdfast backup ls")
        return found[0], repository.backup(found[0])
    at = moment.at_ms
    later = [name for name in names if at is not None and int(name[:13]) >= at]
    name = later[0] if later else names[-1]
    try:
        return name, repository.backup(name)
    except IntegrityError as error:
        error.hint = f"an older one may be whole: holdfast backup verify {repository.store.name}, then --backup NAME"
        raise


def _newest(repository: Repository, chosen: str) -> tuple[str, list[str]]:
    """The newest backup that can be read, and those behind it that cannot; the one that was chosen can."""
    unread: list[str] = []
    for name in reversed(repository.names()):
        if name > chosen:
            try:
                repository.backup(name)
            except IntegrityError:
                unread.insert(0, name)
                continue
        return name, unread
    return chosen, unread


def _wanted(tables: Tables, moment: Moment) -> bool:
    if not moment.agent:
        return True
    streams = {row[2] for row in tables.rows["stream"]}
    names = {row[1] for row in tables.rows["name"] if row[0] in streams}
    return tables.kind != HUB and moment.agent in names


def _erased(repository: Repository, newest: str) -> set[bytes]:
    """What must not come back, whatever backup it is restored from."""
    manifest = repository.backup(newest)
    return {link for part in manifest.parts for link in repository.document(part.tables, Tables).erased}


class _Part:
    """One file of records on its way back."""

    def __init__(
        self, repository: Repository, entry: PartEntry, tables: Tables, erased: set[bytes], made: Restored
    ) -> None:
        self.repository, self.entry, self.tables, self.erased, self.made = repository, entry, tables, erased, made

    def run(self, work: Path, moment: Moment, told: Told) -> None:
        tables, made = self.tables, self.made
        if not _PLACE.fullmatch(tables.place) or ".." in tables.place.split("/"):
            raise IntegrityError(f"not a place in a directory: {tables.place!r:.100}")
        stop = self.stop(moment)
        made.whole = made.whole and stop is None
        path = work / tables.place
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        blobs = BlobFiles(work / "blobs")
        corpus = SqliteCorpus(path, hub=tables.kind == HUB, cache_kib=CACHE_KIB)
        try:
            corpus.engine.watch_wal(WAL_PAGES)
            corpus.engine.reader_cache_kib = READER_CACHE_KIB
            replay = Replay(corpus, tables, self.erased, stop)
            if corpus.meta(_DONE) is None:
                after = replay.begin()
                wanted = [each for each in self.entry.segments if each.last > after and each.first <= replay.stop]
                for segment, content in fetched(self.repository, wanted):
                    replay.add(read_segment(self.repository, segment, content))
                    told("restore records", min(segment.last, replay.stop), replay.stop)
                replay.finish(_DONE)
                corpus.checkpoint()  # so that the proof reads the file's own pages
            self.bring_blobs(corpus, blobs, told)
            told(f"verify {tables.place}", 0, 0)
            self.prove(corpus, blobs, stop is None)
            corpus.write(lambda tx: tx.execute("DELETE FROM meta WHERE k=?", (_DONE,)))
            corpus.sync()
            corpus.checkpoint()
        finally:
            corpus.close()
        made.parts += 1

    # -- where to stop ---------------------------------------------------------------------------------------------

    def stop(self, moment: Moment) -> int | None:
        """The last position that is wanted; None: all of it."""
        pos = self.tables.pos
        if moment.seq is not None and moment.seq < pos:
            return self.whole(moment.seq)
        if moment.at_ms is not None:
            found = self.arrived(moment.at_ms) if self.tables.kind == HUB else self.written(0, moment.at_ms, pos)
            return None if found >= pos else self.whole(found)
        return None

    def written(self, after: int, at_ms: int, upto: int) -> int:
        """The last position up to which everything behind `after` is stamped at that time or before."""
        last = after
        for entry in self.entry.segments:
            if entry.last <= after or entry.first > upto:
                continue
            for stored in read_segment(self.repository, entry).records:
                if after < stored.pos <= upto:
                    if millis(stored.record.hlc) > at_ms:
                        return last
                    last = stored.pos
        return last

    def arrived(self, at_ms: int) -> int:
        """The last position that had arrived at the hub by then.

        Between two times that the hub noted, the stamps of the records decide.
        """
        low, high = 0, self.tables.pos
        for entry in self.entry.segments:
            for noted, pos in read_segment(self.repository, entry).beside.get("arrival", ()):
                if noted <= at_ms:
                    low = max(low, pos)
                else:
                    high = min(high, pos)
        return self.written(low, at_ms, max(low, high))

    def whole(self, pos: int) -> int:
        """The last position up to there that does not stand in the middle of a batch."""
        for entry in reversed(self.entry.segments):
            if entry.first <= pos:
                for stored in reversed(read_segment(self.repository, entry).records):
                    if stored.pos <= pos and ends_batch(stored):
                        return stored.pos
        return 0

    # -- blobs and proof -------------------------------------------------------------------------------------------

    def bring_blobs(self, corpus: SqliteCorpus, blobs: BlobFiles, told: Told) -> None:
        """Fetches the blobs that the records here refer to."""
        there: dict[str, BlobEntry] = {blob.digest: blob for each in self.entry.segments for blob in each.blobs}
        if not there:
            return  # else every record is looked at
        wanted = [digest for digest in referred(corpus) if digest.hex() in there]
        for number, digest in enumerate(wanted, 1):
            if not blobs.has(digest):
                blobs.put(self.repository.blob(there[digest.hex()]), expect=digest)
            told("restore blobs", number, len(wanted))
        self.made.blobs += len(wanted)

    def prove(self, corpus: SqliteCorpus, blobs: BlobFiles, whole: bool) -> None:
        """Returns if what is here is what was backed up.

        Raises:
            IntegrityError: it is not.
        """
        there = {blob.digest for each in self.entry.segments for blob in each.blobs}
        scan = verify_corpus(corpus, _Known(blobs, there, corpus))
        if not scan.sound:
            shown = "; ".join(str(finding) for finding in scan.findings[:FINDINGS_SHOWN])
            raise IntegrityError(f"what came back of {self.tables.place} does not prove: {shown}")
        if whole:
            said = {branch: (seq, link) for branch, seq, link in self.entry.heads}
            if scan.ends != said or scan.records != self.entry.records:
                raise IntegrityError(f"what came back of {self.tables.place} does not end where the backup says")
        self.made.records += scan.records
        self.made.signatures += scan.signatures
        self.made.missing += scan.missing
        links = list(self.erased)
        for first in range(0, len(links), 500):
            some = links[first : first + 500]
            marks = ",".join("?" * len(some))
            self.made.erased += corpus.one(f"SELECT count(*) FROM rec WHERE link IN ({marks})", some)[0]


_DONE: Final = "restored"


class _Known:
    """The blobs of a file, where those that were not backed up are nobody's fault now: create has said so."""

    def __init__(self, blobs: BlobFiles, there: set[str], corpus: SqliteCorpus) -> None:
        self._blobs, self._there, self._corpus = blobs, there, corpus

    @functools.cached_property
    def _sizes(self) -> dict[bytes, int]:
        return referred(self._corpus)  # a look at every record, and seldom needed: most backups have all blobs

    def has(self, digest: bytes) -> bool:
        return digest.hex() not in self._there or self._blobs.has(digest)

    def size(self, digest: bytes) -> int:
        return self._blobs.size(digest) if digest.hex() in self._there else self._sizes[digest]

    def verify(self, digest: bytes) -> bool:
        return digest.hex() not in self._there or self._blobs.verify(digest)


def fetched(repository: Repository, wanted: Sequence[SegmentEntry]) -> Iterator[tuple[SegmentEntry, bytes]]:
    """Segments with their plain bytes; the next ones are on their way while one is worked on.

    Raises:
        IntegrityError: one is missing, or damaged.
    """
    coming: deque[tuple[SegmentEntry, Future[bytes]]] = deque()
    with ThreadPoolExecutor(1, "holdfast-fetch") as pool:
        try:
            for entry in wanted:
                coming.append((entry, pool.submit(repository.get, Packed(entry.id, entry.size), "segment")))
                if len(coming) > AHEAD:
                    yield _arrived(coming)
            while coming:
                yield _arrived(coming)
        finally:
            for _, left in coming:
                left.cancel()


def _arrived(coming: deque[tuple[SegmentEntry, Future[bytes]]]) -> tuple[SegmentEntry, bytes]:
    entry, content = coming.popleft()
    return entry, content.result()


def referred(corpus: SqlCorpus) -> dict[bytes, int]:
    """The blobs that records refer to, with their sizes in bytes."""
    from holdfast.corpus.rows import COLUMNS
    from holdfast.records import BLOB, read_blob_reference

    found: dict[bytes, int] = {}
    for stored in corpus.read(f"SELECT {COLUMNS} FROM rec r WHERE r.flags & {BLOB} <> 0 AND r.body IS NOT NULL"):
        digest, size = read_blob_reference(stored.payload())
        found[digest] = size
    return found


@contextlib.contextmanager
def _alone(work: Path) -> Iterator[None]:
    fd = os.open(work, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Locked(f"somebody is restoring to {work} already", hint="wait, or give another target") from None
        yield
    finally:
        os.close(fd)


def _claim(work: Path, plan: _Plan) -> bool:
    """Whether the half-made directory is of this very restore; it is this one's from now on.

    Raises:
        Conflict: it is of another one.
    """
    path = work / _PLAN
    mine = msgspec.json.encode(plan)
    if path.exists():
        if path.read_bytes() == mine:
            return True
        found = msgspec.json.decode(path.read_bytes(), type=codec.ready(_Plan))
        if (found.repository, found.backup, found.moment) != (plan.repository, plan.backup, plan.moment):
            raise Conflict(
                f"{work} is a restore of {found.backup} that was broken off", hint="remove it, or give another target"
            )
        # A backup was made since, and may say that more was erased.
        for child in work.iterdir():
            shutil.rmtree(child) if child.is_dir() else child.unlink()
    partial = work / f"{_PLAN}.partial"
    if not path.exists() and any(child != partial for child in work.iterdir()):
        raise Conflict(f"{work} is not empty, and no restore", hint="remove it, or give another target")
    partial.write_bytes(mine)
    os.replace(partial, path)
    sync_directory(work)
    return False


def _sync_tree(root: Path) -> None:
    for folder, _, files in os.walk(root):
        for name in files:
            fd = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        sync_directory(Path(folder))

"""Writes a log anew from proven records, proves the whole of it, and puts it in the old one's place.

The old files are never changed: they lie in quarantine, copied before anything was opened. What is derived (newest
values, tags, scopes, names) is derived again by the same code that wrote it first; the search index fills itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec

from holdfast import codec
from holdfast.corpus import Branch, SqliteCorpus
from holdfast.disk import sync_directory
from holdfast.errors import HoldfastError, IntegrityError, Locked, UsageError
from holdfast.integrity.pieces import Piece
from holdfast.integrity.scan import verify_corpus
from holdfast.log.anchor import Anchor
from holdfast.log.anchor import Mark as Stand
from holdfast.log.drafts import MESSAGES, tags_of
from holdfast.records import BLOB, ROTATE, Record, decode_header
from holdfast.wire import REDACTED, Mark

LOT: Final = 500
ANCHOR: Final = "log.anchor"
LOG: Final = "log.db"
BESIDE: Final = ("", "-wal", "-shm")


@contextlib.contextmanager
def alone(path: Path, *, make: bool) -> Iterator[None]:
    """Nobody else has the file open, or opens it, until the block ends.

    Args:
        path: the database file.
        make: make the lock if it is missing; else nobody has it open who could be kept out.

    Raises:
        Locked: a live process has it open.
    """
    lock = path.with_suffix(".lock")
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if make else 0), 0o600)
    except FileNotFoundError:
        yield
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Locked(f"a live process has {path} open", hint="stop the agents of this store, then repair") from None
        yield
    finally:
        os.close(fd)


def build(
    folder: Path,
    branches: list[Branch],
    meta: dict[str, Any],
    pieces: Iterable[Piece],
    expected: Mark,
    kept: Mapping[int, Sequence[tuple[int, str]]] = MappingProxyType({}),
) -> Path:
    """Writes a log into a folder of its own and proves it; returns its file, closed and synced.

    Args:
        folder: the folder; it must not be there yet.
        branches: the incarnations, oldest first, all of one stream.
        meta: values kept beside the records.
        pieces: the records in order, links included.
        expected: where the log must end.
        kept: by number, the tags of records from which they cannot be derived again: the body is not here.

    Raises:
        IntegrityError: what came out does not prove itself; the folder is removed again.
        NodeFull: no room; the folder is removed again.
        UsageError: the folder is there.
    """
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        raise UsageError(f"{folder} is there already", hint="nothing is written over: remove it first") from None
    try:
        path = folder / LOG
        corpus = SqliteCorpus(path)
        try:
            begun = corpus.write(lambda tx: _begin(tx, branches, meta))
            source = iter(pieces)
            while lot := list(itertools.islice(source, LOT)):
                corpus.write(functools.partial(_add, begun, lot, kept))
            corpus.sync()
            _prove(corpus, branches[-1].stream, expected)
        finally:
            corpus.close()
        for end in BESIDE[1:]:
            beside = Path(f"{path}{end}")
            if beside.exists() and end == "-wal" and beside.stat().st_size:
                raise IntegrityError(f"{path} could not be closed", hint="is there room on the disk?")
            beside.unlink(missing_ok=True)
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return path


def swap(home: Path, made: Path, head: Stand) -> None:
    """Puts a log that was built in the place of the one in `home`, and its anchor where it ends.

    Call under `alone`, when the old files are in quarantine. A crash in between leaves no log, or the old one without
    its WAL; the quarantine has all of it, and repairing again finds it there.

    Args:
        home: the agent's folder.
        made: the new file.
        head: where it ends.
    """
    target = home / LOG
    for end in ("-shm", "-wal"):  # a WAL beside another file would be replayed into it
        Path(f"{target}{end}").unlink(missing_ok=True)
    sync_directory(home)
    os.replace(made, target)
    (home / ANCHOR).unlink(missing_ok=True)
    anchor = Anchor(home / ANCHOR)
    try:
        if head.seq:
            anchor.write(head)
            anchor.sync()
    finally:
        anchor.close()
    sync_directory(home)
    shutil.rmtree(made.parent, ignore_errors=True)


def _begin(tx: Any, branches: list[Branch], meta: dict[str, Any]) -> dict[int, Branch]:
    begun = {}
    for branch in branches:
        begun[branch.id] = tx.open_branch(branch)
    for name, content in meta.items():
        tx.set_meta(name, content)
    return begun


def _add(begun: dict[int, Branch], lot: list[Piece], kept: Mapping[int, Sequence[tuple[int, str]]], tx: Any) -> None:
    newest = begun[max(begun)]
    for piece in lot:
        branch = begun.get(piece.branch, newest)
        record = decode_header(piece.header, piece.link)
        prior = tx.prior(branch.agent, record.collection, record.key) if record.collection else None
        tags = () if piece.why == REDACTED else _tags(record, piece) or kept.get(piece.seq, ())
        tx.insert(branch, record, piece, prior.pos if prior else 0, tags)
        if record.kind == ROTATE and piece.body is not None:
            tx.rekey(branch.stream, codec.unpack(piece.codec, piece.body, record.payload_len))


def _tags(record: Record, piece: Piece) -> tuple[tuple[int, str], ...]:
    if piece.body is None or record.flags & BLOB or record.collection != MESSAGES:
        return ()  # a node's file has no tables for what the storage service finds its records by
    try:
        return tags_of(record, codec.unpack(piece.codec, piece.body, record.payload_len))
    except HoldfastError:
        return ()


def _prove(corpus: SqliteCorpus, stream: bytes, expected: Mark) -> None:
    anchor = Stand(stream, expected.seq, expected.link, 0) if expected.seq else None
    found = verify_corpus(corpus, anchor=anchor)
    if not found.sound:
        raise IntegrityError(
            f"what was put together does not prove itself: {found.findings[0]}", hint="nothing was changed"
        )
    if corpus.last() > expected.seq:
        raise IntegrityError(f"the new log ends at {corpus.last()}, not at {expected.seq}", hint="nothing was changed")


def copy_of(path: Path, into: Path) -> Path:
    """A working copy of a database and its WAL, in a folder made for it; call only while nobody has it open."""
    into.mkdir(mode=0o700, parents=True)
    copy: Callable[[Path, Path], object] = shutil.copyfile
    for end in BESIDE[:2]:  # without the -shm: SQLite makes it again from the WAL
        beside = Path(f"{path}{end}")
        if beside.exists():
            copy(beside, into / f"{LOG}{end}")
    return into / LOG


def heads(branches: list[Branch]) -> list[Branch]:
    """The branches as they stand when nothing has been written behind their bases."""
    return [msgspec.structs.replace(each, seq=each.base_seq, link=each.base_link) for each in branches]

"""A hub's directory: its corpus, keys, blobs and reserve, one server at a time, and a generation for each life.

    hub.db       the corpus of all streams          keys.db    the hub's Ed25519 key
    blobs/       payloads above 64 KiB              auth.db    who may ask, as hashes of tokens
    ballast      room to get out of a full disk
    serve.lock   held by the server                 hub.clean  written by a clean stop, removed by the next start

A generation ends whenever a position that a reader has seen may have been lost: after an unclean stop, a reboot, and
whenever hub.db is not the very file that the last clean stop left behind (a restored copy has another inode or change
time). Beginning one too many costs readers a repeat; one too few would cost them a record.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast import seal
from holdfast.clock import SYSTEM, Clock
from holdfast.corpus import SqliteCorpus
from holdfast.corpus.engine import Engine
from holdfast.corpus.space import Reserve
from holdfast.disk import sync_directory
from holdfast.errors import HoldfastError, Locked, NodeFull, UsageError
from holdfast.hub.home import Generation, Home, SqlRoom, begin_generation, generations
from holdfast.hub.options import Settle
from holdfast.hub.sqlroom import Workers
from holdfast.hub.tokens import SqliteTokens
from holdfast.integrity.shelf import shelve
from holdfast.objects import BlobFiles

logger = logging.getLogger(__name__)

CACHE_KIB: Final = 2048
READER_CACHE_KIB: Final = 512
"""Page cache of the writer, and of each reader; there are five or so, and the whole hub stays below 50 MB."""
WAL_PAGES_INLINE: Final = 16_000
WAL_PAGES_BESIDE: Final = 4_000
PARTIAL_BLOB_S: Final = 86_400.0
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class _Clean(msgspec.Struct):
    """What a clean stop left behind: if all of it is still so, nothing happened in between."""

    gen: str
    boot: str
    file: tuple[int, int, int, int]


class HubDirectory(Home):
    """An open hub directory; held by this process alone until `close`.

    Args:
        path: the directory; made if missing.
        settle: ``acked``: what this hub has acknowledged counts as settled, and nodes may evict it; ``backups``: only
            what its backups hold too.
        reserve: guards the disk; made here unless handed in.
        wall: the clock.
        options: for the corpus's engine (cache_kib, datasync).

    Raises:
        Locked: another server has it open.
        UsageError: it is a node's directory.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        settle: Settle = "backups",
        reserve: Reserve | None = None,
        wall: Clock = SYSTEM,
        **options: Any,
    ) -> None:
        self.path = Path(path)
        self.settle = settle
        self.wall = wall
        if (self.path / "config.json").exists():
            raise UsageError(f"{self.path} is a node's directory", hint="give the hub a directory of its own")
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._tokens: SqliteTokens | None = None
        self._lock = take(self.path)
        self.blobs = BlobFiles(self.path / "blobs")
        self.reserve: Reserve = reserve or Reserve(self.path, clock=wall)
        self.damage = ""
        corpus = None
        try:
            clean = self._last_stop()
            corpus = SqliteCorpus(self.path / "hub.db", hub=True, **{"cache_kib": CACHE_KIB, **options})
            corpus.engine.reader_cache_kib = READER_CACHE_KIB
            corpus.engine.watch_wal(WAL_PAGES_INLINE)
            self._keep(corpus)
            self._shelf = shelve(corpus)
            engine = corpus.engine
            if engine.quarantined is not None:
                lost = ", nothing is lost" if engine.standing == "whole" else ""
                self.damage = f"the WAL was damaged when the hub started{lost}: {engine.diagnosis}"
                logger.error(self.damage, extra={"quarantined": str(engine.quarantined)})
            self.signer = self._key()
            self.lineage = self._generation(clean)
        except BaseException:
            if corpus is not None:
                corpus.close()
            os.close(self._lock)
            raise
        self.gen = self.lineage[-1][0]
        self._remember()
        self.hub_id = hashlib.sha256(self.signer.public_key).hexdigest()[:16]
        with contextlib.suppress(NodeFull, OSError):
            self.reserve.ensure()
            self.blobs.sweep(PARTIAL_BLOB_S)

    def open_tokens(self) -> SqliteTokens:
        """The tokens in ``auth.db``, open until this closes at the latest."""
        self._tokens = SqliteTokens(self.path)
        return self._tokens

    def sql_room(self, seconds_max: float) -> SqlRoom:
        file = str((self.path / "hub.db").absolute())
        return Workers("holdfast.corpus.sqlworker", lambda: file, seconds_max)

    def make_room(self) -> None:
        """After a write met a full disk: gives the ballast back, so that the WAL can go where it belongs."""
        self.reserve.release()
        with contextlib.suppress(HoldfastError):
            self.corpus.checkpoint()

    def close(self, *, clean: bool = True) -> None:
        """Closes everything; if `clean`, says so to the next start, which then keeps this generation."""
        healthy = not self.corpus.unusable
        if self._tokens is not None:
            self._tokens.close()
        self.corpus.close()
        self._shelf.close()
        if clean and healthy:
            with contextlib.suppress(OSError):
                mark = _Clean(self.gen, _boot(), _fingerprint(self.path / "hub.db"))
                _write(self.path / "hub.clean", msgspec.json.encode(mark))
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # -- opening ------------------------------------------------------------------------------------------------

    def _last_stop(self) -> str:
        """The generation that may go on; empty if it must not. The mark is gone, durably, when this returns."""
        mark = self.path / "hub.clean"
        try:
            found = msgspec.json.decode(mark.read_bytes(), type=_Clean)
            same = (found.boot, found.file) == (_boot(), _fingerprint(self.path / "hub.db"))
        except (OSError, msgspec.MsgspecError):
            found, same = None, False
        mark.unlink(missing_ok=True)
        sync_directory(self.path)
        return found.gen if found is not None and same else ""

    def _generation(self, clean: str) -> list[tuple[str, int]]:
        now = self.wall.now_ms()

        def job(tx: Any) -> list[Generation]:
            rows = generations(tx)
            if not clean or not rows or rows[-1][0] != clean:
                begin_generation(tx, rows, now)
            return rows

        rows = self.corpus.write(job)
        self.began_ms = rows[-1][2]
        lineage = [(gen, first) for gen, first, _ in rows]
        # Before anybody sees a position of this generation, the generation itself must be there to stay.
        self.corpus.sync()
        sync_directory(self.path)
        return lineage

    def _key(self) -> seal.Signer:
        engine = open_keys(self.path)
        now = self.wall.now_ms()

        def job(_: Any) -> bytes:
            row = engine.writer_execute("SELECT private FROM key WHERE state='current'").fetchone()
            if row:
                return bytes(row[0])
            private = seal.generate()
            values = (seal.Signer(private).public_key, private, now)
            sql = "INSERT INTO key(public, private, state, made_ms) VALUES(?,?,'current',?)"
            engine.writer_execute(sql, values)
            return private

        try:
            return seal.Signer(engine.commits.run(job))
        finally:
            engine.close()


def take(path: Path) -> int:
    """The open lock of whoever uses a hub's directory: it ends with the file descriptor.

    Raises:
        Locked: another process has it.
    """
    fd = os.open(path / "serve.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(fd, 32).decode(errors="replace").strip()
        os.close(fd)
        raise Locked(
            f"{path} is already served by process {owner or 'unknown'}",
            hint="one hub process per directory: stop the other, or give this one a directory of its own",
        ) from None
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode())
    return fd


def open_keys(path: Path) -> Engine:
    """The file of the hub's keys in its directory."""
    return Engine(path / "keys.db", roles=("keys",), full=True, cache_kib=256)


def _boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


def _fingerprint(path: Path) -> tuple[int, int, int, int]:
    """Changes whenever the file was written, copied, restored or moved to another disk."""
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_size


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    sync_directory(path.parent)

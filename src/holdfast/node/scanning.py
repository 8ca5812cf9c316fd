"""A node scans its agents' logs in the background: one thread a process, one process a directory, all of it in a day.

Of the processes that share a directory the one that holds ``scan.lock`` makes a turn; the others find that one was made
and rest. What was found lies in node.db, for `holdfast status` and the metrics, whichever process asks.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from holdfast.errors import HoldfastError, StoreClosed
from holdfast.node.locks import alone
from holdfast.node.telling import logger

if TYPE_CHECKING:
    from holdfast.integrity.checks import Finding
    from holdfast.integrity.scanner import Progress
    from holdfast.log import OpenLog
    from holdfast.node.directory import Directory

LOCK = "scan.lock"
STOP_S = 10.0


def start(directory: Directory, every_s: float) -> None:
    """Sees to it that this process scans a directory every so many seconds, or stands by to; returns at once."""
    with directory.lock:
        if directory.scanner is None and every_s > 0:
            directory.scanner = Scanning(directory, every_s)


class Scanning:
    """This process's part in scanning one directory.

    Args:
        directory: the node's; stopped before it closes.
        every_s: seconds between two turns.
    """

    def __init__(self, directory: Directory, every_s: float) -> None:
        self._directory = directory
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="holdfast-scan", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends it, between two slices."""
        self._stop.set()
        self._thread.join(STOP_S)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                turns(self._directory, every_s=self._every_s, stop=self._stop)
            except StoreClosed:
                return
            except Exception:
                # A scan that ended for good would be a node that nobody looks at; it is told and tried again.
                logger(__name__).exception("the scan of %s failed", self._directory.path)


def turns(
    directory: Directory, *, every_s: float = 0.0, whole: bool = False, stop: threading.Event | None = None
) -> dict[str, Progress]:
    """Makes a turn over each agent's log, unless another process is at it; returns how far each is.

    Args:
        directory: the node's.
        every_s: agents whose last turn is not so many seconds ago are left alone.
        whole: a whole round instead of a share.
        stop: ends it early.
    """
    done: dict[str, Progress] = {}
    with alone(directory.path, LOCK) as mine:
        for agent in directory.agents() if mine else ():
            if stop is not None and stop.is_set():
                break
            if every_s and directory.wall.now_ms() - progress(directory, agent).at_ms < every_s * 900:
                continue
            try:
                opened = directory.open_log(agent, None)
            except HoldfastError as error:
                logger(__name__).warning("cannot scan the log of %s", agent, exc_info=error)
                continue
            try:
                done[agent] = _turn(directory, opened, whole, stop)
            finally:
                directory.release_log(opened)
    return done


def _turn(directory: Directory, opened: OpenLog, whole: bool, stop: threading.Event | None) -> Progress:
    from holdfast.integrity.scanner import Scanner

    scanner = Scanner(
        opened.corpus,
        Kept(directory, opened.agent),
        blobs=directory.blobs,
        wall=directory.wall,
        stop=stop,
        outside=lambda: _outside(directory, opened),
    )
    before = set(scanner.progress.findings)
    done = scanner.turn(whole=whole)
    for finding in done.findings:
        if finding not in before:
            logger(__name__).error("scan: %s: %s", opened.agent, finding)
    return done


def _outside(directory: Directory, opened: OpenLog) -> list[Finding]:
    from holdfast.integrity.checks import ANCHOR, HUB, WAL
    from holdfast.integrity.scan import Outside, verify_corpus
    from holdfast.log.anchor import read_mark
    from holdfast.node.proving import acknowledged

    mark = read_mark(opened.corpus.engine.path.with_name("log.anchor"))
    acked = [each for each in acknowledged(directory.node) if each.stream == opened.log.branch.stream]
    outside = Outside(acked=acked, wal=opened.corpus.engine.diagnosis)
    return verify_corpus(opened.corpus, anchor=mark, outside=outside, checks=(ANCHOR, HUB, WAL)).findings


class Kept:
    """The progress of one agent's scan, in node.db."""

    def __init__(self, directory: Directory, agent: str) -> None:
        self._node, self._key = directory.node, f"scan {agent}"

    def load(self) -> bytes | None:
        """What was saved last."""
        row = self._node.one("SELECT v FROM meta WHERE k=?", (self._key,))
        return bytes(row[0]) if row else None

    def save(self, data: bytes) -> None:
        """Keeps it in place of what was there."""
        node = self._node
        sql = "INSERT INTO meta VALUES(?,?) ON CONFLICT(k) DO UPDATE SET v=excluded.v"
        node.commits.run(lambda _: node.writer_execute(sql, (self._key, data)))


def progress(directory: Directory, agent: str) -> Progress:
    """How far the scan of an agent's log is, whoever makes it."""
    from holdfast.integrity.scanner import read_progress

    return read_progress(Kept(directory, agent).load())

"""What a log does on its own while it is open: sync the WAL, move the anchor, keep the WAL small, fill the indexes.

One thread a log. Level-triggered: a commit sets a flag (if it is not set yet: that is all a write pays), the thread
waits a little so that commits share the sync, clears it, and then looks at what is there. The shipper syncs too: what
it has just done is not done again.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from holdfast.corpus import Head, SqliteCorpus, index, search
from holdfast.errors import HoldfastError, IntegrityError
from holdfast.log.anchor import Anchor, Mark
from holdfast.log.levels import Level

RESERVE_SHARE = 0.2
"""The part of the level's promise kept for the sync itself (more where syncs take long); the rest gathers commits."""
LOOK_S = 0.05
"""Between looks at a log whose level needs no sync: woken for each commit, the thread would halve their rate."""
INDEX_PAUSE_S = 0.2
"""While somebody writes, one lot is indexed so often: filling commits too, and at critical that syncs."""
INDEX_LOTS = 20
"""While nobody writes, up to so many lots at once."""
IDLE_S = 30.0
UNKNOWN = Head(0, b"", 0)
"""Nothing is known to have been synced."""


class Duties:
    """Background work on one log.

    Args:
        corpus: the agent's file.
        branch: its branch there.
        anchor: where durable heads go.
        level: how soon they must be durable.
        synced: where the log stood when it was last synced, as far as is known.
        load: gives values that do not lie in their record, for the index.
    """

    def __init__(
        self,
        corpus: SqliteCorpus,
        branch: int,
        anchor: Anchor,
        level: Level,
        *,
        synced: Head = UNKNOWN,
        load: index.Load | None = None,
    ) -> None:
        self._corpus = corpus
        self._branch = branch
        self._anchor = anchor
        self._level = level
        self._load = load
        self._lock = threading.Lock()  # guards _anchor and _synced
        self._synced = synced
        self._synced_at = float("-inf")
        self._took = 0.0
        self._dirty = threading.Event()
        self._stop = threading.Event()
        self.error: BaseException | None = None
        corpus.engine.on_commit = self._committed
        self._thread = threading.Thread(
            target=self._run, name=f"holdfast-{corpus.engine.path.parent.name}", daemon=True
        )
        self._started = False

    def sync(self, head: Head | None = None) -> Head:
        """Makes what is committed survive a power cut, and returns how far that is.

        Args:
            head: where the log stood a moment ago, for a caller who knows.

        Raises:
            IntegrityError: the disk refused.
        """
        head = head or self._corpus.head(self._branch)
        with self._lock:
            if head.seq < self._synced.seq or head.link == self._synced.link:
                return head
        began = time.monotonic()
        self._corpus.sync()
        self._synced_at, self._took = began, time.monotonic() - began
        self._anchored(head)
        return head

    def settle(self) -> None:
        """Syncs what commits left to the background at this level: the WAL or, where they sync it, the anchor.

        Raises:
            IntegrityError: the disk refused.
        """
        if not self._level.anchor_each:
            self.sync()
            return
        self._synced_at = began = time.monotonic()
        try:
            self._anchor.sync()  # without the lock: a writer moves the anchor meanwhile, and waits for nothing
        except OSError as error:
            self._corpus.engine.fail(error)
            raise IntegrityError(f"the disk could not sync the anchor: {error}", hint="open the store again") from error
        self._took = time.monotonic() - began

    def stop(self) -> None:
        """Ends the thread; what is committed is synced by the corpus's own close."""
        self._stop.set()
        self._dirty.set()
        if self._started:
            self._thread.join()

    def _committed(self) -> None:
        # In the leader, behind COMMIT and before any caller returns.
        if self._level.anchor_each:
            head = self._corpus.tx.newest
            if head is None:  # a job wrote rows by itself; the file's head may be another process's, and not synced
                self.sync()
            else:
                self._anchored(head)
        if not self._dirty.is_set():
            self._dirty.set()
            if not self._started:
                self._started = True
                self._thread.start()

    def _anchored(self, head: Head) -> None:
        with self._lock:
            if head.seq > self._synced.seq:
                self._synced = head
                self._anchor.write(Mark(self._corpus.stream_of(self._branch), head.seq, head.link, head.hlc))

    def _run(self) -> None:
        behind, indexed_at, seen = True, float("-inf"), -1
        while not self._stop.is_set():
            woken = self._dirty.wait(INDEX_PAUSE_S if behind else IDLE_S)
            try:
                if woken:
                    self._gather()
                    self._dirty.clear()
                    if self._level.sync_s:
                        self.settle()
                    self._corpus.engine.checkpoint()
                head = self._corpus.head(self._branch).seq
                quiet, seen = head == seen, head
                if quiet or time.monotonic() - indexed_at >= INDEX_PAUSE_S:
                    behind = self._index(head, INDEX_LOTS if quiet else 1)
                    indexed_at = time.monotonic()
                else:
                    behind = True
            except HoldfastError as error:
                if not self._stop.is_set():
                    self.error = error
                    _log(error, self._corpus.engine.path)
                    self._stop.wait(1.0)

    def _gather(self) -> None:
        """Waits for more commits, so that they share a sync; a sync of the shipper's puts ours off."""
        if not self._level.sync_s:
            self._stop.wait(LOOK_S)
            return
        within, now = self._level.sync_s, time.monotonic()
        latest = now + INDEX_PAUSE_S  # there is other work than syncing
        while True:
            pause = within - max(within * RESERVE_SHARE, 2 * self._took)
            left = min(self._synced_at + pause, latest) - now
            if left <= 0 or self._stop.wait(left):
                return
            now = time.monotonic()

    def _index(self, head: int, lots: int) -> bool:
        """Fills the indexes while nobody writes; whether there is more to do."""
        for _ in range(lots):
            if not search.fill(self._corpus) + index.fill(self._corpus, self._load, search.LOT):
                return False
            if self._stop.is_set() or self._corpus.head(self._branch).seq != head:
                break
        return True


def _log(error: BaseException, path: Path) -> None:
    import logging  # only here: it would cost every command 5 ms

    logging.getLogger(__name__).error("background work failed", extra={"log": str(path)}, exc_info=error)

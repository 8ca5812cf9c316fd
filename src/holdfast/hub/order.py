"""What several hub processes commit on one database, shown by each of them in commit order, without gap or repeat.

A commit of this process is shown at once where it follows what was shown last. Where another's lies before it, that is
read from the corpus first, and then this one has its turn: it need not be read again.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Final

from holdfast.corpus import Stored
from holdfast.corpus.postgres import PostgresCorpus
from holdfast.corpus.postgres.news import News
from holdfast.errors import IntegrityError
from holdfast.hub.feed import NOTHING, Feed

PAGE: Final = 500
PAGE_BYTES: Final = 4 << 20
WAITING_MAX: Final = 1_000
"""Commits of our own that wait for their turn; beyond, they are read back like everybody's."""


class CommonOrder:
    """Puts our commits and those of others into one order.

    Args:
        corpus: where they all lie.
        feed: shows them.
    """

    def __init__(self, corpus: PostgresCorpus, feed: Feed) -> None:
        self._corpus = corpus
        self._feed = feed
        self._lock = threading.Lock()  # guards _shown and _waiting, and makes what is published come in order
        self._shown = feed.head
        self._waiting: dict[int, tuple[Sequence[Stored], Mapping[bytes, bytes]]] = {}
        self._news = News(corpus.engine, self._heard)

    def start(self) -> None:
        """Begins to listen."""
        self._news.start()

    def stop(self) -> None:
        """Returns when nothing is published any more."""
        self._news.stop()

    @property
    def trouble(self) -> str:
        """Why commits of others are not seen; empty while they are."""
        return self._news.trouble

    def publish(self, stored: Sequence[Stored], proven: Mapping[bytes, bytes] = NOTHING) -> None:
        """Shows a commit of this process, now or when those before it have been shown."""
        with self._lock:
            if stored[0].pos == self._shown + 1:
                self._show(stored, proven)
            elif stored[0].pos > self._shown and len(self._waiting) < WAITING_MAX:
                self._waiting[stored[0].pos] = (stored, proven)

    def _show(self, stored: Sequence[Stored], proven: Mapping[bytes, bytes]) -> None:
        self._shown = stored[-1].pos
        self._feed.publish(stored, proven)

    def _heard(self, newest: int | None) -> None:
        """Shows everything up to the newest commit; in the listening thread."""
        if newest is None or newest > self._shown:
            newest = self._corpus.last()
        while self._shown < newest:
            with self._lock:
                mine = self._waiting.pop(self._shown + 1, None)
                if mine is not None:
                    self._show(*mine)
                    continue
                after = self._shown
            self._read(after, newest)

    def _read(self, after: int, newest: int) -> None:
        if not self._feed.listeners:
            # Nobody to read it for. Whoever subscribes from here on reads the corpus first, and it is there.
            with self._lock:
                if self._shown == after:
                    self._shown = newest
                    self._waiting = {first: mine for first, mine in self._waiting.items() if first > newest}
                    self._feed.pass_over(newest)
            return
        found = self._corpus.feed(after, PAGE, PAGE_BYTES)
        with self._lock:
            if self._shown != after:
                return  # our own commit was shown meanwhile, and it was this one
            following = min(self._waiting, default=0)
            if following == after + 1:
                return  # its own bytes are at hand
            if following:
                found = [stored for stored in found if stored.pos < following]
            if not found or found[0].pos != after + 1:
                raise IntegrityError(f"position {after + 1} is missing in the database", hint="holdfast verify")
            self._show(found, NOTHING)

"""What only one of a hub's processes is to do at a time: whoever does it has a claim in the corpus, and keeps it up.

Writes to a hub's corpus take turns over all its processes, so of two that ask within the same millisecond one is the
first. A claim that is not kept up has ended with its process. A directory is served by one process, which needs none.
"""

from __future__ import annotations

import logging
import threading
from typing import Any, Final

import msgspec

from holdfast.clock import Clock
from holdfast.corpus import SqlCorpus
from holdfast.errors import HoldfastError

logger = logging.getLogger(__name__)

STALE_MS: Final = 30_000
"""What was not heard of for so long has ended with its process."""
BEAT_S: Final = 5.0
_META: Final = "claims"


class _Claim(msgspec.Struct, frozen=True):
    """Whose it is, and when he was last heard of (ms since 1970)."""

    process: str
    beat_ms: int


class Claims:
    """The claims of one process. Its methods write to the corpus, so they are for threads.

    Args:
        corpus: the hub's.
        wall: the clock.
        process: this process's own name.
    """

    def __init__(self, corpus: SqlCorpus, wall: Clock, process: str) -> None:
        self._corpus, self._wall, self.process = corpus, wall, process

    def take(self, what: str) -> Held | None:
        """The claim on something, until it is released; None: another process has it.

        Args:
            what: a name that all processes of this hub know it by.
        """
        if not self._corpus.inline and not self._change(what, keep=True):
            return None
        return Held(self, what, beats=not self._corpus.inline)

    def keep(self, what: str) -> bool:
        """Says that it still goes on; False: it was given up for lost, and is another's now."""
        return self._change(what, keep=True)

    def give_back(self, what: str) -> None:
        """Ends a claim of this process."""
        self._change(what, keep=False)

    def _change(self, what: str, *, keep: bool) -> bool:
        now = self._wall.now_ms()

        def job(tx: Any) -> bool:
            stored = tx.meta(_META)
            known = msgspec.msgpack.decode(stored, type=dict[str, _Claim]) if stored else {}
            other = known.get(what)
            if other is not None and other.process != self.process and now - other.beat_ms <= STALE_MS:
                return False
            if keep:
                known[what] = _Claim(self.process, now)
            else:
                known.pop(what, None)
            tx.set_meta(_META, msgspec.msgpack.encode(known))
            return True

        return self._corpus.write(job)


class Held:
    """A claim that this process has; a thread keeps it up until `release`.

    Args:
        claims: of this process.
        what: which.
        beats: whether it has to be kept up.
    """

    def __init__(self, claims: Claims, what: str, *, beats: bool) -> None:
        self._claims, self._what, self._beats = claims, what, beats
        self._over = threading.Event()
        if beats:
            threading.Thread(target=self._beat, name=f"holdfast-claim-{what}", daemon=True).start()

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            try:
                if not self._claims.keep(self._what):
                    logger.warning("another process has taken over the claim on a %s", self._what)
                    return
            except HoldfastError as error:
                logger.warning("could not keep up the claim on a %s", self._what, exc_info=error)

    def release(self) -> None:
        """Ends it; others may have it now. What cannot be given back ends by itself."""
        if self._over.is_set():
            return
        self._over.set()
        if self._beats:
            try:
                self._claims.give_back(self._what)
            except HoldfastError as error:
                logger.warning("could not give back the claim on a %s", self._what, exc_info=error)

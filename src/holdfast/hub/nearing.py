"""What keeps a database able to find near vectors by itself, behind the commits, while a hub serves it."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from holdfast.corpus.postgres.near import Near

logger = logging.getLogger(__name__)

IDLE_S: Final = 30.0
"""How long it rests at most: another process of this hub may have kept vectors, or ended in the middle of this work."""
AFTER_S: Final = 5.0
"""And so long where it failed."""


class Nearing:
    """A thread of its own, as a graph of many vectors is minutes' work.

    Args:
        near: what finds them in the database.
    """

    def __init__(self, near: Near) -> None:
        self._near = near
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="holdfast-near", daemon=True)
        self.trouble = ""
        """Why it cannot work, if so; searches compare vectors in memory, or without a graph."""

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def wake(self) -> None:
        """There may be vectors that it has not seen."""
        self._woken.set()

    def stop(self) -> None:
        """Ends, also in the middle of a graph: that is begun anew by whoever comes next."""
        self._stopping.set()
        self._woken.set()
        while self._thread.is_alive():
            self._near.cancel()
            self._thread.join(0.2)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._woken.clear()
            try:
                more = self._near.tend()
                self.trouble = ""
            except HoldfastError as error:
                if self._stopping.is_set():
                    break
                more = False
                if not self.trouble:
                    logger.warning("the database cannot be kept able to find near vectors: %s", error)
                self.trouble = str(error)
                self._stopping.wait(AFTER_S)
            if not more:
                self._woken.wait(IDLE_S)
        self._near.leave()

"""How a database's writer waits for others, and when it does what takes long."""

from __future__ import annotations

import contextlib
import time
from random import uniform
from typing import Any, Final

BUSY_S: Final = 30.0
"""How long a writer waits for another process's."""
WAL_PAGES: Final = 1000
"""So many, and the WAL is checkpointed: SQLite's own number."""


class Patience:
    """A connection's busy handler: a second writer waits its turn, in short random steps; SQLite's own reach 100 ms.

    Attributes:
        hasty: whether it must not wait now.
        costly: whether the next commit had better be made by one who may wait.
    """

    def __init__(self) -> None:
        self.hasty = self.costly = False
        self._since = 0.0

    def __call__(self, tries: int) -> bool:
        if self.hasty:
            return False
        if tries == 0:
            self._since = time.monotonic()
        time.sleep(uniform(0.0001, min(0.0002 * (tries + 1), 0.005)))
        return time.monotonic() - self._since < BUSY_S

    def committed(self, writer: Any, name: str, pages: int) -> int:
        """SQLite's hook after a commit, told the length of the WAL; its own would checkpoint there and then."""
        # Costly until one who may wait has begun the WAL anew, too: that takes a sync as a checkpoint does.
        self.costly = pages >= WAL_PAGES
        if self.costly and not self.hasty:
            with contextlib.suppress(Exception):  # SQLite's own takes no notice either: the next commit tries again
                writer.wal_checkpoint(name)
        return 0

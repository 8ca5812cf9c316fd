"""What is counted of all records as somebody looks, and gone on with at the next look.

A hub that nobody looks at counts nothing. The first look at a large hub does not wait for the whole: it shows what was
counted so far and says so, while the rest is counted in lots between the hub's own work.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from holdfast.hub.core import Core

logger = logging.getLogger(__name__)

LOT: Final = 20_000
PATIENCE_S: Final = 0.03
"""How long a page waits for the count."""
PAUSE_S: Final = 0.02


class Count:
    """A count over the records of one hub, in commit order; the loop's own.

    Args:
        core: the hub.
    """

    failed = "could not count; the next look goes on"
    """What the log says when a lot could not be read."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.pos = 0
        self._counting: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    async def take(self, after: int, until: int) -> None:
        """Takes in the records behind one position, up to another."""
        raise NotImplementedError

    @property
    def done(self) -> float:
        """The part of all records that was counted, 0 to 1."""
        head = self._core.feed.head
        return min(1.0, self.pos / head) if head else 1.0

    async def look(self) -> None:
        """Counts on, for a moment; what is left then goes on by itself."""
        until = time.monotonic() + PATIENCE_S
        while await self._lot():
            if time.monotonic() >= until:
                if self._counting is None or self._counting.done():
                    self._counting = asyncio.create_task(self._rest())
                return

    async def _rest(self) -> None:
        try:
            while await self._lot():  # noqa: ASYNC110 - nothing is waited for: it gives way
                await asyncio.sleep(PAUSE_S)
        except HoldfastError as error:
            logger.warning(self.failed, exc_info=error)

    async def _lot(self) -> bool:
        """Takes in the next lot; whether there is more."""
        async with self._turn:
            until = min(self._core.feed.head, self.pos + LOT)
            if until <= self.pos:
                return False
            await self.take(self.pos, until)
            self.pos = until
            return until < self._core.feed.head

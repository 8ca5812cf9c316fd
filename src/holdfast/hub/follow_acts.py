"""A standby takes the audit trail of the hub that it follows along: acts are in no log, so they do not come with it.

Theory of operation. Every so often the followed hub is asked for what was done since the newest act that came from it,
and a minute before: an act may be written down late, and be told better a moment later. What is here already is not
taken again, whichever way it came, so hubs may follow each other. What the trail there has from the log is left out:
this hub tells that from its own.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.clock import iso
from holdfast.errors import HoldfastError, HubError, NotFound
from holdfast.hub.acts import LOG

if TYPE_CHECKING:
    from holdfast.hub.copying import Line
    from holdfast.hub.core import Core
    from holdfast.hub.routes_audit import ActsPage

logger = logging.getLogger(__name__)

EVERY_S: Final = 10.0
OVERLAP_MS: Final = 60_000
PAGE: Final = 500
PATIENCE_S: Final = 30.0
MARK: Final = "audit of "
"""In `meta`, with an address: the generation there, and when the newest act was done that came from there."""


class _Mark(msgspec.Struct, array_like=True, frozen=True):
    gen: str = ""
    at_ms: int = 0


class ActsFollower:
    """Takes one hub's audit trail along; the loop's own.

    Args:
        core: the hub that it comes to.
        line: to the hub that has it.
        url: that hub's address.
    """

    def __init__(self, core: Core, line: Line, url: str) -> None:
        self._core, self._line, self._key = core, line, MARK + url
        stored = core.corpus.meta(self._key)
        self._mark = msgspec.msgpack.decode(stored, type=_Mark) if stored else _Mark()
        self._again = 0.0
        self.trouble = ""
        """Why it did not come last time."""

    async def follow(self, gen: str) -> None:
        """Takes up what was done there since, if it is time to ask.

        Args:
            gen: the generation of that hub: one that was restored may tell of other acts, and is asked for all.
        """
        now = asyncio.get_running_loop().time()
        if now < self._again:
            return
        self._again = now + EVERY_S
        try:
            await self._take(gen)
            self.trouble = ""
        except NotFound:
            pass  # an older hub, which tells nobody
        except (HoldfastError, OSError) as error:
            if not self.trouble:
                logger.warning("the audit trail of the followed hub does not come: %s", error)
            self.trouble = str(error)

    async def _take(self, gen: str) -> None:
        from holdfast.hub.routes_audit import act_of

        since = max(0, self._mark.at_ms - OVERLAP_MS) if gen == self._mark.gen else 0
        query: dict[str, Any] = {"since": iso(since), "limit": PAGE}
        newest = since
        while True:
            found = await self._line.run(lambda asked=dict(query): self._ask(asked))  # type: ignore[misc]
            acts = [act for each in found.acts if (act := act_of(each)).by.via != LOG]
            newest = max([newest, *(act.at_ms for act in acts)])
            if acts:
                await self._core.read(lambda taken=acts: self._core.audit.store.take(taken))  # type: ignore[misc]
            if found.next is None:
                break
            query["before"] = found.next
        await self._note(_Mark(gen, newest))

    def _ask(self, query: dict[str, Any]) -> ActsPage:
        from holdfast.hub.routes_audit import ActsPage

        answer = self._line.client.want("GET", "/v1/audit", query=query, timeout=PATIENCE_S)
        try:
            return msgspec.convert(answer.json(), ActsPage)
        except msgspec.ValidationError as error:
            raise HubError(f"its answer is no page of acts: {error}") from error

    async def _note(self, mark: _Mark) -> None:
        # Behind what it speaks of: what breaks off in between is asked for again.
        if mark != self._mark:
            data = msgspec.msgpack.encode(mark)
            await self._core.read(lambda: self._core.corpus.write(lambda tx: tx.set_meta(self._key, data)))
            self._mark = mark

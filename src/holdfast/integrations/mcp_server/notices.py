"""Who wants to hear of changes, and who tells: a thread follows the feed from the first subscription on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Any, Final

from holdfast.errors import HoldfastError, HubUnavailable
from holdfast.integrations.mcp_server.desk import Desks
from holdfast.integrations.mcp_server.door import (
    InMemorySubscriptionBus,
    ListenHandler,
    ResourcesListChanged,
    ResourceUpdated,
)
from holdfast.integrations.mcp_server.resources import touched
from holdfast.integrations.place import settled

if TYPE_CHECKING:
    from holdfast.node.changes import Changes

logger = logging.getLogger(__name__)

RETRY_S: Final = 5.0


class Notices:
    """Tells subscribers of one server that a resource has changed, whoever changed it. The loop's own.

    With a hub it hears of what all machines write; without one, of what this agent writes, in whatever process.

    Args:
        desks: whose changes.
    """

    def __init__(self, desks: Desks) -> None:
        self._desks = desks
        self._bus = InMemorySubscriptionBus()
        self.listening = ListenHandler(self._bus)
        self._wanted: dict[str, dict[Any, Any]] = {}  # address -> connection -> a session that reaches it
        self._stop = threading.Event()
        self._beginning = asyncio.Lock()
        self._changes: Changes | None = None
        self._thread: threading.Thread | None = None

    async def follow(self) -> None:
        """Begins to follow the changes, unless that was begun; from when this returns on none is missed."""
        async with self._beginning:
            if self._thread is not None:
                return
            with contextlib.suppress(HubUnavailable):  # then from when it answers
                self._changes = await settled(self._open, "now")
            loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._run, args=(loop,), name="holdfast-mcp-notices", daemon=True)
            self._thread.start()

    async def subscribe(self, uri: str, session: Any) -> None:
        """A client of the older protocol wants to hear of a resource, for as long as its connection lasts."""
        await self.follow()
        connection = getattr(session, "_connection", session)
        if not any(connection in sessions for sessions in self._wanted.values()):
            stack = getattr(connection, "exit_stack", None)
            if stack is not None:
                stack.callback(self._forget, connection)
        self._wanted.setdefault(uri, {})[connection] = session

    def unsubscribe(self, uri: str, session: Any) -> None:
        """It does not any more."""
        self._wanted.get(uri, {}).pop(getattr(session, "_connection", session), None)

    async def tell(self, uri: str, listing: bool = False) -> None:
        """Tells everybody who wants to hear of it.

        Args:
            uri: of what has changed.
            listing: whether there may be another resource now, or one less.
        """
        await self._bus.publish(ResourceUpdated(uri))
        for session in list(self._wanted.get(uri, {}).values()):
            with contextlib.suppress(Exception):  # its connection ends: nobody is left to be told
                await session.send_resource_updated(uri)
        if listing:
            await self._bus.publish(ResourcesListChanged())
            every = {id(s): s for sessions in self._wanted.values() for s in sessions.values()}
            for session in every.values():
                with contextlib.suppress(Exception):
                    await session.send_resource_list_changed()

    def stop(self) -> None:
        """Ends it; a second time is fine."""
        self._stop.set()
        self.listening.close()
        if self._changes is not None:
            self._changes.close()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _forget(self, connection: Any) -> None:
        for sessions in self._wanted.values():
            sessions.pop(connection, None)

    def _open(self, since: str) -> Changes:
        return self._desks.desk().store.changes(since)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Follows the feed; what cannot be asked now is asked again."""
        since = "now"
        while not self._stop.is_set():
            try:
                changes = self._changes = self._changes or self._open(since)
                for version in changes:
                    since = changes.cursor
                    uri, listing = touched(version)
                    if uri is not None:
                        asyncio.run_coroutine_threadsafe(self.tell(uri, listing), loop)
            except HubUnavailable as error:
                logger.info("changes of others are not told: %s", error)
            except (HoldfastError, RuntimeError) as error:  # RuntimeError: the loop has just ended
                if not self._stop.is_set():
                    logger.warning("changes are not told any more: %s", error)
                return
            self._changes = None
            self._stop.wait(RETRY_S)

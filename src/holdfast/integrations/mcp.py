"""The MCP SDK's `EventStore`: clients that lost their connection get what they missed, from any server.

    events = HoldfastEventStore("http://hub:8084", agent="server-1")
    manager = StreamableHTTPSessionManager(app, event_store=events)

The one door to the SDK.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote, unquote

from holdfast.errors import Conflict, MissingExtra, UsageError
from holdfast.integrations.conversation import Conversations
from holdfast.integrations.place import Place, Where, settled

try:
    from mcp.server.streamable_http import EventCallback, EventId, EventMessage, EventStore, StreamId
    from mcp.types import JSONRPCMessage
    from pydantic import TypeAdapter
except ImportError as error:  # pragma: no cover - tests/house has a bare install
    raise MissingExtra("the MCP SDK is not installed", hint="pip install 'holdfast[mcp]'") from error

COLLECTION: Final = "mcp-events"
KEEP: Final = 1000
_DROPPED: Final = "dropped"


class HoldfastEventStore(EventStore):
    """The events of each stream in order, of which the newest are kept.

    Args:
        where: a node directory, a hub's address, or a store or hub that is open.
        agent: who writes; needed for a directory and a hub's address.
        shared: one set of streams for all servers, decided by the hub; None: so at a hub, and not on a node.
        collection: the name under which they are kept.
        keep: so many events of a stream can be replayed at least; at most twice as many are.
    """

    def __init__(
        self,
        where: Where,
        *,
        agent: str | None = None,
        shared: bool | None = None,
        collection: str = COLLECTION,
        keep: int = KEEP,
    ) -> None:
        if keep < 1:
            raise UsageError(f"keep={keep}", hint="1 or more events of each stream")
        self.conversations = Conversations(Place(where, agent=agent, shared=shared), collection)
        self._keep = keep

    async def store_event(self, stream_id: StreamId, message: JSONRPCMessage | None) -> EventId:
        """Adds an event to a stream; its id names the stream and its place in it. None: an event without a message."""
        entry = None if message is None else _plain(message)
        return await settled(self._add, stream_id, entry)

    async def replay_events_after(self, last_event_id: EventId, send_callback: EventCallback) -> StreamId | None:
        """Sends what came behind an event in its stream, in order; None if it is of no stream, or dropped by now."""
        found = await settled(self._behind, last_event_id)
        if found is None:
            return None
        stream, first, entries = found
        for number, entry in enumerate(entries, first):
            if entry is not None:
                await send_callback(EventMessage(_message(entry), _event_id(stream, number)))
        return stream

    def close(self) -> None:
        """Closes the place, if it was opened here."""
        self.conversations.place.close()

    def _add(self, stream: str, entry: Any) -> EventId:
        made = self.conversations.append((stream,), [entry])
        number = made.state.get(_DROPPED, 0) + made.count
        if made.count >= 2 * self._keep:
            self._drop(stream, made.revision)
        return _event_id(stream, number)

    def _drop(self, stream: str, revision: int) -> None:
        before = self.conversations.get((stream,), at=revision)
        rest = self.conversations.load((stream,), limit=self._keep, at=revision)
        if before is None or rest is None:
            return
        dropped = before.state.get(_DROPPED, 0) + before.count - len(rest)
        try:
            self.conversations.replace(
                (stream,), rest, expect=revision, forget=True, change=lambda _, __: {_DROPPED: dropped}
            )
        except Conflict:
            return  # there is a newer event; whoever adds the next one drops

    def _behind(self, event: str) -> tuple[StreamId, int, list[Any]] | None:
        quoted, _, digits = event.rpartition("_")
        if not quoted or not digits.isascii() or not digits.isdecimal():
            return None
        stream, number = unquote(quoted), int(digits)
        while True:
            found = self.conversations.get((stream,))
            if found is None:
                return None
            dropped = found.state.get(_DROPPED, 0)
            if not dropped <= number <= dropped + found.count or number == 0:
                return None
            entries = self.conversations.load((stream,), limit=dropped + found.count - number, at=found.revision)
            if entries is not None:
                return stream, number + 1, entries


def _event_id(stream: str, number: int) -> EventId:
    return f"{quote(stream, safe='')}_{number}"


_MESSAGES: Final[Any] = TypeAdapter(JSONRPCMessage)


def _plain(message: Any) -> Any:
    return _MESSAGES.dump_python(message, mode="json", by_alias=True, exclude_unset=True)


def _message(entry: Any) -> Any:
    return _MESSAGES.validate_python(entry)

"""The express lane: POST /v1/append read, queued and answered without a task, a scope or a router.

A node's small append is most of what a hub does, and three quarters of its time went into layers that this request
needs nothing of. So uvicorn's protocol looks at what arrives between two requests: an append in the form in which
nodes send it is served here; anything else, and anything that is wrong with it, is left to uvicorn untouched, which
reads the same bytes and answers as it always does. There is no second set of rules to keep.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import MutableMapping
from functools import partial
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from holdfast import codec, wire
from holdfast.errors import HoldfastError
from holdfast.hub.app import Door, Hub
from holdfast.hub.core import Core
from holdfast.hub.exchange import MEDIA, answer, answer_error, as_hubs
from holdfast.hub.routes_node import check

logger = logging.getLogger(__name__)

_LINE: Final = b"POST /v1/append HTTP/1.1\r\n"
BYTES_MAX: Final = 256 << 10
"""A longer request is uvicorn's: what it costs besides its records does not matter there."""
PIECES_MAX: Final = 64
"""So often the rest of a request is waited for; what comes in smaller pieces, uvicorn gathers."""
_PLAIN: Final = frozenset(
    b"host accept accept-encoding user-agent authorization connection content-type content-length"
    b" content-encoding".split()
)
"""What a request on the express lane may say: nothing that changes where it ends, or what follows on it."""


def head_of(data: bytes) -> tuple[int, int, list[tuple[bytes, bytes]]] | None:
    """Where the body of a request begins and ends, and its headers; None if it is not for the express lane.

    The end is -1 while the blank line behind the headers has not come yet.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return 0, -1, []
    headers: list[tuple[bytes, bytes]] = []
    length = -1
    for line in data[len(_LINE) : end].split(b"\r\n"):
        name, colon, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if not colon or name not in _PLAIN or b"\n" in line or b"\r" in line or b"\0" in line:
            return None
        if name == b"connection" and value.lower() != b"keep-alive":
            return None
        if name == b"content-length":
            if length >= 0 or not value.isdigit() or len(value) > 9:
                return None
            length = int(value)
        headers.append((name, value))
    return (end + 4, end + 4 + length, headers) if 0 <= length <= BYTES_MAX else None


class _Packed:
    """uvicorn's transport for one answer, whose head goes out with the first piece of its body."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._head: bytes | None = None
        self._open = False

    def write(self, data: bytes) -> None:
        """Writes it, or keeps it for the next if it is the head."""
        if self._open:
            self._transport.write(data)
        elif self._head is not None:
            self._open = True
            self._transport.write(self._head + data)
        elif data.startswith(b"HTTP/1.1 100 "):
            self._transport.write(data)
        else:
            self._head = data

    def close(self) -> None:
        """Writes what is left, and closes."""
        if self._head is not None and not self._open:
            self._transport.write(self._head)
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Lane(HttpToolsProtocol):
    """One connection: uvicorn's, with an express lane. `protocol_class` names the hub that it leads to."""

    core: Core
    door: Door

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._between = True  # no request has begun that uvicorn has not read to its end
        self._held = b""  # what has come of a request that may be ours
        self._pieces = 0
        self._under_way = False
        self._closing = False

    def on_message_begin(self) -> None:
        self._between = False
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self._between = True
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        if self._under_way:  # it did not wait for its answer: what it says next has to
            self._held += data
            self.flow.pause_reading()
            return
        if self._held:
            data, self._held = self._held + data, b""
        free = self._between and (self.cycle is None or self.cycle.response_complete)
        if not free or not data.startswith(_LINE) or not self._take(data):
            super().data_received(data)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if cycle.scope["method"] != "HEAD":  # that has no body, and writes none
            cycle.transport = _Packed(cycle.transport)
        super()._start_asgi_task(cycle, app)

    def shutdown(self) -> None:
        if self._under_way:
            self._closing = True
        else:
            super().shutdown()

    def _take(self, data: bytes) -> bool:
        """Whether the request is served, or held until the rest of it is here."""
        found = head_of(data)
        if found is None or len(data) > BYTES_MAX:
            return False
        begin, end, headers = found
        if end < 0 or len(data) < end:
            self._pieces += 1
            if self._pieces > PIECES_MAX:
                return False
            self._held = data
            return True
        self._pieces = 0
        try:
            message = _read(self.door, headers, data[begin:end])
            future = self.core.writer.enter(message)
        except HoldfastError:
            return False  # uvicorn's way meets the same error, and tells it
        self._under_way = True
        self._held = data[end:]
        if self._held:
            self.flow.pause_reading()  # until the answer is out: `on_response_complete` goes on
        self._unset_keepalive_if_required()
        future.add_done_callback(partial(self._answer, message))
        return True

    def _answer(self, message: wire.Append, future: asyncio.Future[Any]) -> None:
        try:
            found = self.core.writer.outcome_of(future)
            self.core.saw(message.node)
            writing = answer(self._send, wire.encode(found), kind=MEDIA)
        except HoldfastError as error:
            writing = answer_error(self._send, as_hubs(error, broken=self.core.corpus.engine.unusable))
        except Exception as error:
            writing = answer_error(self._send, self.door.unknown(error, "/v1/append"))
        self._parts: list[bytes] = []
        with contextlib.suppress(StopIteration):
            writing.send(None)  # never waits: what it sends to does not
        self._under_way = False
        if self.transport.is_closing():
            return
        self.transport.write(b"".join(self._parts))
        self.on_response_complete()
        if self._closing:
            self.transport.close()
        elif self._held:
            self.data_received(b"")

    async def _send(self, said: MutableMapping[str, Any]) -> None:
        if said["type"] == "http.response.start":
            self._parts.append(_STATUS.get(said["status"]) or b"HTTP/1.1 %d \r\n" % said["status"])
            for name, value in (*self.server_state.default_headers, *said["headers"], self.door.mark):
                self._parts += (name, b": ", value, b"\r\n")
            self._parts.append(b"\r\n")
        else:
            self._parts.append(said["body"])


def protocol_class(app: Hub) -> type[Lane]:
    """The protocol of all connections to a hub."""
    return type("Protocol", (Lane,), {"core": app.state.core, "door": app.hot["POST", "/v1/append"]})


_STATUS: Final = {200: b"HTTP/1.1 200 OK\r\n"}


def _read(door: Door, headers: list[tuple[bytes, bytes]], body: bytes) -> wire.Append:
    door.admit({"type": "http", "path": "/v1/append", "headers": headers})
    coding = next((value for name, value in headers if name == b"content-encoding"), b"")
    return check(wire.decode(wire.Append, codec.inflate(coding.decode("latin-1").lower(), body, wire.BODY_BYTES_MAX)))

"""GET /ui/events: a page's live part, sent anew whenever what it shows has changed.

What is sent is the whole part as it is now, with the feed's cursor as its id. Whoever comes back after a break, with
whatever cursor, is sent the part again: nothing is missing from it and nothing is in it twice.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any, Final

from holdfast.hub.api import Parameters
from holdfast.hub.exchange import VISIT, Query, Receive, Scope, Send, encode_json
from holdfast.hub.ui.routes import Ask, no_page

if TYPE_CHECKING:
    from holdfast.hub.ui.routes import Front

STREAMS_MAX: Final = 4
"""Of one visitor: a browser has six connections to a host, and the pages themselves need some."""
LOOK_S: Final = 5.0
"""How often is looked at what changes without a record, such as how long a node has been silent."""
PAUSE_S: Final = 0.5
"""Between two looks while much is written; the first look after a silence does not wait."""
ALIVE_S: Final = 15.0
POLL_MS: Final = 10_000
RETRY_MS: Final = 500
LIVE: Final = {"overview": False, "nodes": False, "integrity": True, "backups": True}
"""The pages that follow what happens, and whether only those may from whom nothing is hidden."""
_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)


class Events:
    """The streams of one hub's pages; the loop's own.

    Args:
        front: what the pages share.
        parameters: reads the query.
    """

    def __init__(self, front: Front, parameters: Parameters) -> None:
        self._front = front
        self._parameters = parameters
        self._open: dict[Any, int] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        ask = Ask(self._front, scope, self._parameters.read(Query(scope)), {})
        if ask.query.page not in LIVE:
            raise no_page(f"live/{ask.query.page}")
        if LIVE[ask.query.page]:
            ask.principal.need_everything()
        visit = scope.get(VISIT)
        if visit is not None and visit.principal is not ask.principal:
            visit.principal = ask.principal  # so that the gate ends it with the session
        whose = ask.session.digest if ask.session else (ask.principal.id, (scope.get("client") or ("",))[0])
        many = self._open.get(whose, 0)
        if many >= STREAMS_MAX:
            # One event and a good-bye: the browser comes back every ten seconds, and takes no connection in between.
            await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
            _, event = await self._event(ask, b"", POLL_MS)
            await send({"type": "http.response.body", "body": event})
            return
        self._open[whose] = many + 1
        gone = asyncio.ensure_future(_left(receive))
        bell = asyncio.Event()
        gone.add_done_callback(lambda _: bell.set())
        feed = self._front.core.feed
        feed.bells.add(bell)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
            await self._stream(ask, bell, gone, send)
            await send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()
            feed.bells.discard(bell)
            self._open[whose] -= 1
            if not self._open[whose]:
                del self._open[whose]

    async def _stream(self, ask: Ask, bell: asyncio.Event, gone: asyncio.Future[None], send: Send) -> None:
        feed, loop = self._front.core.feed, asyncio.get_running_loop()
        mark, spoke = b"", loop.time()
        while not feed.ended and not gone.done():
            bell.clear()
            mark, event = await self._event(ask, mark, RETRY_MS)
            if event or loop.time() - spoke > ALIVE_S:
                await send({"type": "http.response.body", "body": event or b": alive\n\n", "more_body": True})
                spoke = loop.time()
            await asyncio.sleep(PAUSE_S if event else 0)
            if not (feed.ended or gone.done()):
                try:
                    async with asyncio.timeout(LOOK_S):
                        await bell.wait()
                except TimeoutError:
                    pass

    async def _event(self, ask: Ask, mark: bytes, retry_ms: int) -> tuple[bytes, bytes]:
        """A mark of what the part shows, and the event that sends it; empty if that is the mark it had before."""
        from holdfast.hub.ui import backups, integrity, nodes, overview
        from holdfast.hub.ui.frame import environment
        from holdfast.hub.ui.standing import nodes_for, notices

        data: Any
        if ask.query.page == "overview":
            data = await overview.found(ask)
            badge = len(data.needs_you)
        elif ask.query.page == "nodes":
            data = await nodes.found(ask)
            badge = len(await notices(ask, data.nodes))
            data.hub.uptime_s = 0  # changes by itself, and is no news
        else:
            data = await (integrity if ask.query.page == "integrity" else backups).found(ask)
            badge = len(await notices(ask, await nodes_for(ask)))
            data.cursor = ""  # what is written changes nothing here
        found = hashlib.sha256(encode_json(data)).digest()
        if found == mark:
            return mark, b""
        now = self._front.core.home.wall.now_ms()

        def render() -> str:
            made: str = (
                environment()
                .get_template(f"{ask.query.page}_live.html")
                .render(d=data, now_ms=now, badge=badge, out_of_band=True)
            )
            return made

        page = await self._front.core.read(render)
        lines = "".join(f"data: {line}\n" for line in page.splitlines() if line.strip())
        at = data.cursor or self._front.core.feed.cursor(self._front.core.feed.head)
        return found, f"id: {at}\nretry: {retry_ms}\n{lines}\n".encode("utf-8", "replace")


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

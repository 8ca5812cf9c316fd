"""GET /ui/events: a page's live part, sent anew whenever what it shows has changed.

What is sent is the whole part as it is now, with the feed's cursor as its id. Whoever comes back after a break, with
whatever cursor, is sent the part again: nothing is missing from it and nothing is in it twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import TYPE_CHECKING, Any, Final

from holdfast.errors import HoldfastError
from holdfast.hub.api import Parameters
from holdfast.hub.exchange import VISIT, Query, Receive, Scope, Send, encode_json
from holdfast.hub.principal import READ
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
PAGES: Final = ("overview", "nodes", "integrity", "backups", "messages", "letter", "badge")
"""Pages with a live part; of a page without one the badge lives."""
WHOLE: Final = ("integrity", "backups")
"""Those that only people may see from whom nothing is hidden."""
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
        if ask.query.page not in PAGES:
            raise no_page(f"live/{ask.query.page}")
        if ask.query.page in WHOLE:
            ask.principal.need_everything()
        elif ask.query.page in ("overview", "nodes"):
            ask.principal.need(READ)
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
            await asyncio.sleep(PAUSE_S)  # also where nothing came of it: what others write is no work for all pages
            if not (feed.ended or gone.done()):
                try:
                    async with asyncio.timeout(LOOK_S):
                        await bell.wait()
                except TimeoutError:
                    pass

    async def _event(self, ask: Ask, mark: bytes, retry_ms: int) -> tuple[bytes, bytes]:
        """A mark of what the part shows, and the event that sends it; empty if that is the mark it had before."""
        from holdfast.hub.ui.frame import rendered
        from holdfast.hub.ui.unread import unread
        from holdfast.hub.ui.zones import zone_of

        feed = self._front.core.feed
        cursor = feed.cursor(feed.head)  # before the look: what comes meanwhile is looked at again
        parts = await _parts(ask)
        mail = None if "mail_badge.html" in parts else await unread(ask)
        if mail is not None:
            parts["mail_badge.html"] = {"unread": mail}
        found = hashlib.sha256(encode_json(list(parts.values()))).digest()
        if found == mark:
            return mark, b""
        around = {"now_ms": self._front.core.home.wall.now_ms(), "out_of_band": True, "zone": zone_of(ask)}

        def render() -> str:
            return "\n".join(rendered(template, {**values, **around}) for template, values in parts.items())

        page = await self._front.core.read(render)
        lines = "".join(f"data: {line}\n" for line in page.splitlines() if line.strip())
        return found, f"id: {cursor}\nretry: {retry_ms}\n{lines}\n".encode("utf-8", "replace")


async def _parts(ask: Ask) -> dict[str, dict[str, Any]]:
    """The templates of a page's live part, and what each is given."""
    from holdfast.hub.ui import backups, integrity, letter, messages, nodes, overview
    from holdfast.hub.ui.standing import nodes_for, notices

    if ask.query.page == "overview":
        shown = await overview.found(ask)
        mail = {} if shown.unread is None else {"mail_badge.html": {"unread": shown.unread}}
        return {"overview_live.html": {"d": shown, "badge": len(shown.needs_you)}, **mail}
    if ask.query.page == "nodes":
        standing = await nodes.found(ask)
        standing.hub.uptime_s = 0  # changes by itself, and is no news
        return {"nodes_live.html": {"d": standing, "badge": len(await notices(ask, standing.nodes))}}
    if ask.query.page in WHOLE:
        care: Any = await (integrity if ask.query.page == "integrity" else backups).found(ask)
        care.cursor = ""  # what is written changes nothing here
        return {f"{ask.query.page}_live.html": {"d": care, "badge": len(await notices(ask, await nodes_for(ask)))}}
    if ask.query.page == "messages":
        news = await messages.news(ask, ask.query.view)
        if news is not None:
            return {"messages_news.html": {"mark": messages.mark_of(news), "rows": [row.pos for row in news.rows]}}
    if ask.query.page == "letter":
        with contextlib.suppress(HoldfastError):  # it was erased, or is not for him any more
            return {"letter_live.html": {"d": await letter.live(ask)}}
    return {}


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

"""GET /v1/feed: what was committed, as it is committed: server-sent events, long-poll, or one page of JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from holdfast.corpus import pages
from holdfast.corpus.pages import Wanted
from holdfast.errors import HubUnavailable
from holdfast.hub.api import Operation, parameters_of
from holdfast.hub.core import Core
from holdfast.hub.exchange import Query, Receive, Rest, Scope, Send, answer, header
from holdfast.hub.feed import Chunk, Subscription, shown
from holdfast.hub.principal import READ, principal_of
from holdfast.hub.shapes import Agents, Collections, Kinds, Prefix, Version
from holdfast.wire import RECORDS_MAX, SEGMENT_BYTES_MAX, Cursor

CATCH_UP_RECORDS: Final = 200
CATCH_UP_BYTES: Final = 256 << 10
"""A page of what a live reader missed: many may catch up at once, and each page lies in memory three times."""
KEEP_ALIVE_S: Final = 10.0
WAIT_S_MAX: Final = 60.0
LISTENERS_MAX: Final = 2_000
CURSOR: Final = "^([0-9]{1,18}(\\.[0-9A-Za-z]+@[0-9]{1,18})*|now)$"
LastEvent = Annotated[
    str,
    Meta(description="a cursor; wins over `after`", extra_json_schema={"pattern": CURSOR.replace("now", "")}),
]
_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # a proxy that gathers events would undo what they are for
)


def operations(core: Core) -> Iterator[Operation]:
    """The feed."""
    yield Operation(
        method="GET",
        path="/v1/feed",
        endpoint=FeedRoute(core),
        needs=READ,
        summary="What was committed, as it is committed",
        tag="reading",
        query=Followed,
        headers={"Last-Event-ID": LastEvent},
        answer=FeedPage,
        or_gives=("text/event-stream",),
        hot=True,
        lasting=True,
    )


class Followed(msgspec.Struct, frozen=True):
    """From where on, and what of it; how it is to come."""

    agent: Agents = ()
    collection: Collections = ()
    kind: Kinds = ()
    prefix: Prefix = ""
    to: Annotated[
        str, Meta(max_length=255, description="only messages to this recipient, and those above 64 KiB to anybody")
    ] = ""
    after: Annotated[
        str,
        Meta(
            description="a cursor, exclusive: 0 from the start, now from here on",
            extra_json_schema={"pattern": CURSOR},
        ),
    ] = "0"
    limit: Annotated[int, Meta(ge=1, le=RECORDS_MAX, description="records of a page, at most")] = RECORDS_MAX
    wait: Annotated[float, Meta(ge=0, description="seconds to wait for a first record; above 60 is 60")] = 0
    format: Annotated[
        Literal["json", "sse"], Meta(description="sse: server-sent events, as with Accept: text/event-stream")
    ] = "json"


class FeedPage(msgspec.Struct):
    """Records in commit order, and the cursor behind them; `reset` when the hub lost what the reader had seen."""

    records: list[Version]
    cursor: str
    caught_up: bool
    reset: bool | UnsetType = UNSET


class Scanned(msgspec.Struct, frozen=True):
    """A page read from the corpus: its records encoded, the last of their positions, and how far was looked."""

    data: list[bytes]
    shown: int
    pos: int
    done: bool


class FeedRoute:
    """Answers every form of the feed; resumes exactly where the reader's cursor says.

    Args:
        core: the hub.
        keep_alive: seconds of silence after which a live feed says that it lives.
    """

    def __init__(self, core: Core, *, keep_alive: float = KEEP_ALIVE_S) -> None:
        self._core = core
        self._keep_alive = keep_alive
        self._parameters = parameters_of(Followed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        asked: Followed = self._parameters.read(Query(scope))
        principal = principal_of(scope)
        for collection in asked.collection:
            principal.check_read(collection)
        wanted = Wanted(asked.agent, asked.collection, asked.kind, asked.prefix, principal.readable, asked.to)
        given = header(scope, b"last-event-id").decode("latin-1") or asked.after or "0"
        feed = self._core.feed
        cursor = Cursor.parse(feed.cursor(feed.head) if given == "now" else given)
        head = await self._core.read(self._core.corpus.last)
        start = self._core.home.resume(cursor, head)
        rewound = start != cursor.pos
        if feed.listeners >= LISTENERS_MAX:
            raise HubUnavailable(f"{feed.listeners} readers listen already", hint="try again later, or another hub")
        if b"text/event-stream" in header(scope, b"accept") or asked.format == "sse":
            await self._stream(_Reader(wanted, start, rewound), receive, send)
            return
        wait = min(asked.wait, WAIT_S_MAX)
        await self._page(_Reader(wanted, start, rewound), asked.limit, wait, receive, send)

    # -- one page -----------------------------------------------------------------------------------------------

    async def _page(self, reader: _Reader, limit: int, wait: float, receive: Receive, send: Send) -> None:
        subscription = self._core.feed.subscribe(reader.wanted) if wait else None
        gone = asyncio.ensure_future(_left(receive))
        try:
            found = await self._scan(reader, limit)
            loop = asyncio.get_running_loop()
            until = loop.time() + wait
            while subscription and not found.data and not gone.done() and not subscription.ended:
                if found.done:
                    left = until - loop.time()
                    if left <= 0:
                        break
                    taking = asyncio.ensure_future(subscription.take(left))
                    await asyncio.wait((taking, gone), return_when=asyncio.FIRST_COMPLETED)
                    taking.cancel()
                reader.pos, subscription.behind = found.pos, False
                found = await self._scan(reader, limit)
        finally:
            gone.cancel()
            if subscription is not None:
                self._core.feed.unsubscribe(subscription)
        more = b',"reset":true' if reader.rewound else b""
        cursor = self._core.feed.cursor(found.pos).encode()
        done = b"true" if found.done else b"false"
        body = b'{"records":[%b],"cursor":"%b","caught_up":%b%b}' % (b",".join(found.data), cursor, done, more)
        await answer(send, body, extra=((b"cache-control", b"no-store"),))

    async def _scan(self, reader: _Reader, limit: int, *, events: bool = False) -> Scanned:
        wanted, encode = reader.wanted, self._core.feed.event if events else shown

        def look() -> Scanned:
            most = CATCH_UP_BYTES if events else SEGMENT_BYTES_MAX
            page = pages.feed(self._core.corpus, reader.pos, wanted, limit=limit, bytes_max=most)
            last = page.records[-1].pos if page.records else 0
            return Scanned([encode(each) for each in page.records], last, page.pos, page.done)

        return await self._core.read(look)

    # -- server-sent events -------------------------------------------------------------------------------------

    async def _stream(self, reader: _Reader, receive: Receive, send: Send) -> None:
        feed = self._core.feed
        subscription = feed.subscribe(reader.wanted)
        gone = asyncio.ensure_future(_left(receive))
        # Whoever watches the line wakes whoever writes to it, who otherwise may wait for a commit for hours.
        gone.add_done_callback(lambda _: subscription.end())
        try:
            await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
            greeting = b"retry: 1000\n\n" + (feed.notice("reset", reader.pos) if reader.rewound else b"")
            await send({"type": "http.response.body", "body": greeting, "more_body": True})
            reader.sent = reader.pos
            told = False
            while not subscription.ended:
                await self._catch_up(reader, subscription, send)
                if not told and not subscription.ended:
                    told = True
                    await _write(send, feed.notice("caught_up", reader.pos))
                await self._live(reader, subscription, send)
            await send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()
            feed.unsubscribe(subscription)

    async def _catch_up(self, reader: _Reader, subscription: Subscription, send: Send) -> None:
        """Reads the corpus from where the reader stands until nothing is left that no chunk will bring."""
        subscription.behind = False
        while not subscription.ended:
            found = await self._scan(reader, CATCH_UP_RECORDS, events=True)
            reader.pos = found.pos
            if found.data:
                reader.sent = found.shown
                await _write(send, b"".join(found.data))
            if found.done:
                break
            if not found.data:
                await _write(send, self._progress(reader))
        if reader.pos > reader.sent and not subscription.ended:
            await _write(send, self._progress(reader))

    async def _live(self, reader: _Reader, subscription: Subscription, send: Send) -> None:
        """Passes chunks on for as long as each begins where the reader stands."""
        rest: list[Rest] = []

        def direct(chunk: Chunk) -> bool:
            # Written by whoever spreads it: to wake a task for each reader and commit costs more than the writing.
            if chunk.after != reader.pos:
                return False
            if chunk.chosen:
                writing = _write(send, chunk.data())
                try:
                    rest.append(Rest(writing, writing.send(None)))
                    subscription.wake()  # the line is full: the task waits for it
                except StopIteration:
                    pass
                except Exception:
                    return False  # the task will meet it, too
                reader.sent = chunk.shown
            reader.pos = chunk.last
            return True

        while not subscription.ended:
            subscription.direct = direct
            chunks = await subscription.take(self._keep_alive)
            subscription.direct = None
            if rest:
                await rest.pop()
                if not chunks:
                    continue
            if subscription.behind:
                self._core.feed.overflows += 1
                return
            data, whole = self._fitting(reader, chunks)
            if data:
                await _write(send, data)
            if not whole:
                return
            if not chunks or not data:
                await _write(send, self._progress(reader) if reader.pos > reader.sent else b": alive\n\n")

    @staticmethod
    def _fitting(reader: _Reader, chunks: list[Chunk]) -> tuple[bytes, bool]:
        """The bytes of the chunks that follow on from the reader's place; whether all of them did."""
        out: list[bytes] = []
        for chunk in chunks:
            if chunk.last <= reader.pos:
                continue
            if chunk.after != reader.pos:
                return b"".join(out), False
            reader.pos = chunk.last
            if chunk.chosen:
                reader.sent = chunk.shown
                out.append(chunk.data())
        return (out[0] if len(out) == 1 else b"".join(out)), True

    def _progress(self, reader: _Reader) -> bytes:
        reader.sent = reader.pos
        return self._core.feed.notice("progress", reader.pos)


class _Reader:
    """Where one reader stands: `pos` has been looked at, `sent` is the newest cursor that he was given."""

    def __init__(self, wanted: Wanted, pos: int, rewound: bool) -> None:
        self.wanted = wanted
        self.pos = self.sent = pos
        self.rewound = rewound


async def _write(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

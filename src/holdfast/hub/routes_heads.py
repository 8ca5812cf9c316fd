"""GET /v1/heads: what this hub holds, told to a hub that follows it; with the proof of who tells it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from holdfast import wire
from holdfast.corpus import heads
from holdfast.errors import UsageError
from holdfast.hub.api import Call, Operation, Reply, typed
from holdfast.hub.core import Core
from holdfast.hub.principal import READ
from holdfast.hub.routes_feed import CURSOR
from holdfast.hub.shapes import Number
from holdfast.wire import Cursor

WAIT_S_MAX: Final = 60.0
NONCE_BYTES: Final = 16


class Asked(msgspec.Struct, frozen=True):
    """Which streams: all, page by page, or those that changed behind a cursor of the feed."""

    nonce: Annotated[
        str,
        Meta(
            description="32 hex digits of chance, which the answer signs",
            extra_json_schema={"pattern": "^[0-9a-fA-F]{32}$"},
        ),
    ]
    after: Annotated[Number, Meta(description="`next` of the page before")] = 0
    since: Annotated[
        str,
        Meta(
            description="a cursor: only what changed behind it",
            extra_json_schema={"pattern": CURSOR.replace("|now", "")},
        ),
    ] = ""
    wait: Annotated[float, Meta(ge=0, description="seconds to wait for a change; above 60 is 60")] = 0


def operations(core: Core) -> Iterator[Operation]:
    """What followers ask."""
    yield Operation(
        method="GET",
        path="/v1/heads",
        endpoint=typed(Teller(core).tell, query=Asked),
        needs=READ,
        summary="Where every stream stands, or those that have changed",
        tag="nodes",
        query=Asked,
        answer=bytes,
        gives=wire.MEDIA,
    )


class Teller:
    """GET /v1/heads: every stream, page by page (`after`), or those that changed behind a cursor (`since`, `wait`)."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def tell(self, call: Call) -> Reply:
        """Where streams stand, for a hub that follows, with the proof of who tells it: a `wire.Heads`."""
        asked: Asked = call.query
        call.principal.need_everything()
        nonce = _nonce(asked.nonce)
        if not asked.since:
            found = await self._core.read(lambda: self._all(asked.after, nonce))
        else:
            cursor, wait = Cursor.parse(asked.since), min(asked.wait, WAIT_S_MAX)
            found = await self._core.read(lambda: self._changed(cursor, nonce))
            if wait and not found.streams and not self._core.feed.ended:
                await self._bell(Cursor.parse(found.cursor).pos, wait)
                found = await self._core.read(lambda: self._changed(cursor, nonce))
        return Reply(wire.encode(found), kind=wire.MEDIA, headers=(("cache-control", "no-store"),))

    async def _bell(self, pos: int, wait: float) -> None:
        """Returns when something was committed behind `pos`, or after `wait` seconds."""
        feed, bell = self._core.feed, asyncio.Event()
        feed.bells.add(bell)
        try:
            if feed.head <= pos and not feed.ended:
                async with asyncio.timeout(wait):
                    await bell.wait()
        except TimeoutError:
            pass
        finally:
            feed.bells.discard(bell)

    def _all(self, after: int, nonce: bytes) -> wire.Heads:
        with self._core.home.snapshot() as chains:
            pos = heads.last(chains)
            streams, following = heads.listed(chains, after)
        return self._heads(nonce, pos, pos, streams, following)

    def _changed(self, cursor: Cursor, nonce: bytes) -> wire.Heads:
        home = self._core.home
        with home.snapshot() as chains:
            pos = heads.last(chains)
            start = wire.resume(cursor, home.lineage, pos)
            end = min(pos, start + heads.WINDOW)
            streams = heads.changed(chains, start, end) if end > start else []
        return self._heads(nonce, pos, end, streams, None)

    def _heads(
        self, nonce: bytes, pos: int, covered: int, streams: list[wire.StreamHeads], following: int | None
    ) -> wire.Heads:
        home = self._core.home
        return wire.Heads(
            gen=home.gen,
            nonce=nonce,
            public_key=home.signer.public_key,
            signature=home.signer.sign(wire.challenge(nonce, home.gen)),
            keys=sorted(home.hub_keys.items()),
            pos=pos,
            cursor=self._core.feed.cursor(covered),
            streams=streams,
            next=following,
        )


def _nonce(text: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != NONCE_BYTES:
        raise UsageError(
            f"nonce must be {2 * NONCE_BYTES} hex digits, got {text!r:.80}", hint="chance, a new one for each question"
        )
    return found

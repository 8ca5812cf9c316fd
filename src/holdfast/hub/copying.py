"""Takes from a followed hub what is lacking of one stream: pulled in stretches, judged and written like a node's own.

Nothing is taken on trust: each stretch ends at a head that its writer signed, and goes through `Writer.append` with all
its verdicts. Blobs come first. What is refused is asked for again, and then taken as an envelope, so that one bad
payload never keeps the rest away; it is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

from msgspec.structs import replace

from holdfast import wire
from holdfast.corpus.tags import TAG_BYTES_MAX
from holdfast.errors import Conflict, HoldfastError, HubFull, HubUnavailable, NodeFull, NotFound
from holdfast.hub.judge import Brought
from holdfast.protocol import follow
from holdfast.protocol.follow import Lack
from holdfast.protocol.lanes import blob_of, envelope
from holdfast.records import ROTATE, decode_header, next_link
from holdfast.transport.blobs import download
from holdfast.transport.client import HubClient
from holdfast.wire import Item, Mark, Pulled, Segment, StreamHeads

if TYPE_CHECKING:
    from holdfast.hub.core import Core

STRIKES: Final = 3
"""So often is a payload that is refused asked for before its envelope is taken."""
PULL_S: Final = 30.0
BUSY_S: Final = 0.2

T = TypeVar("T")


class Line:
    """The line to the followed hub: requests in threads of its own kind.

    Args:
        client: the hub.
        threads: how many requests at once.
    """

    def __init__(self, client: HubClient, threads: int) -> None:
        self.client = client
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="holdfast-follow")

    async def run(self, work: Callable[[], T]) -> T:
        """What a function that asks the hub returns."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def get(self, path: str, kind: type[T], query: dict[str, Any], timeout: float) -> T:  # noqa: ASYNC109
        """The hub's answer.

        Raises:
            HubUnavailable: there is none.
            HoldfastError: the hub's own error.
        """

        def ask() -> Any:
            headers = {"Accept": wire.MEDIA}
            return self.client.want("GET", path, query=query, headers=headers, timeout=timeout).decode(kind)

        found: T = await self.run(ask)
        return found

    def close(self) -> None:
        """Ends every request that is under way."""
        self.client.hang_up()
        # Not waited for: one that connects to a machine that is off has seconds to go, and writes nothing any more.
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.client.close()


class Lane:
    """One chain on its way here: what is lacking of it, and how far it has come."""

    def __init__(self, lack: Lack) -> None:
        self.lack = lack
        self.after = lack.after
        self.piece: Pulled | None = None
        self.state = "under way"
        """… or done, rotates (only behind all others), denied, failed."""
        self.why = ""
        self.moved_on = False  # it has been renamed or begun anew; once is enough
        self.strikes = 0

    def begin_anew(self, lack: Lack) -> bool:
        """Asks for it in another way; False if that was tried before."""
        if self.moved_on:
            return False
        self.moved_on = True
        self.lack, self.after, self.piece = lack, lack.after, None
        return True

    def fail(self, why: str) -> None:
        """Gives it up until the next comparison."""
        self.state, self.why = "failed", why


class Copy:
    """One stream on its way here.

    Args:
        core: the hub that it comes to.
        line: to the hub that has it.
        theirs: the stream as that hub told it.
        their_key: that hub's public key.
    """

    def __init__(self, core: Core, line: Line, theirs: StreamHeads, their_key: bytes) -> None:
        self._core, self._line = core, line
        self._theirs, self._their_key = theirs, their_key
        self.heads: dict[bytes, Mark] = {at.inc: at.head for at in theirs.heads}
        """Their heads, as far as they are known by now."""
        self.records = 0
        self.refused: dict[int, str] = {}
        """The records taken as envelopes, and why."""

    async def run(self, lacks: list[Lack]) -> dict[bytes, str]:
        """Takes all of it; returns what could not be taken, and why, by incarnation.

        A `rotate` record goes behind everything else, because what other branches signed with the key that it retires
        was taken there before it, and could not be proven here after it.

        Raises:
            HubUnavailable: the other hub does not answer any more.
            HubFull: no room here.
        """
        lanes = [Lane(lack) for lack in lacks]
        while True:
            moved = False
            for lane in lanes:
                if lane.state not in ("done", "failed"):
                    moved = await self._advance(lane) or moved
            if moved:
                continue
            turning = next((lane for lane in lanes if lane.state == "rotates"), None)
            if turning is None or not await self._advance(turning, rotates=True):
                break
        return {lane.lack.inc: lane.why for lane in lanes if lane.state != "done"}

    async def _advance(self, lane: Lane, *, rotates: bool = False) -> bool:
        """Takes stretch after stretch of a lane until it is done or has to wait; whether any was taken."""
        moved = False
        lane.state = "under way"
        while lane.state == "under way":
            piece = lane.piece or await self._pull(lane)
            if piece is None:
                break
            lane.piece = piece
            if not rotates and _kind(piece.items[-1]) == ROTATE:
                lane.state = "rotates"
                break
            if await self._append(lane, piece):
                moved = True
                if rotates:
                    break
        return moved

    async def _pull(self, lane: Lane) -> Pulled | None:
        """The next stretch, or None when the lane's state says why there is none."""
        lack = lane.lack
        query = {"stream": lack.stream.hex(), "inc": lack.inc.hex(), "after": lane.after, "signed": 1}
        try:
            found = await self._line.get("/v1/pull", Pulled, query, PULL_S)
        except NotFound as error:
            if not lane.begin_anew(await self._other_name(lack)):
                lane.fail(error.message)
            return None
        if lane.after == lack.after and lack.link and found.prev != lack.link:
            if not lane.begin_anew(await self._other_name(lack)):
                lane.fail("its records do not follow from those that are here")
            return None
        if (found.stream, found.inc, found.first) != (lack.stream, lack.inc, lane.after + 1):
            raise HubUnavailable("the followed hub answered something else than it was asked for", kind="echo")
        if not found.items:
            if lane.after >= lack.head.seq:
                lane.state = "done"
            else:
                lane.fail(f"it has no signed head behind record {lane.after}")
            return None
        return found

    async def _append(self, lane: Lane, piece: Pulled) -> bool:
        """Has a stretch judged and written; whether it was taken. What its verdict asks for is done."""
        lack = lane.lack
        items = [envelope(item) if piece.first + n in self.refused else item for n, item in enumerate(piece.items)]
        segment = Segment(
            lack.stream, lack.name, lack.agent, lack.public_key, piece.first, piece.prev, items, piece.signature
        )
        message = Brought(self._core.home.gen, 0, [segment], requests=_requests(piece))
        answer = await self._core.writer.append(message)
        verdict = answer.verdicts[0]
        if verdict.state == "ack":
            self.records += len(items)
            lane.after, lane.piece, lane.strikes = piece.head.seq, None, 0
            known = self.heads.get(lack.inc)
            if known is None or known.seq < piece.head.seq:
                self.heads[lack.inc] = piece.head
            if lane.after >= lack.head.seq:
                lane.state = "done"
            return True
        if verdict.state == "blobs":
            for digest in verdict.blobs:
                await self._blob(lane, piece, digest)
        elif verdict.state == "rejected":
            self._strike(lane, {each.seq: each.reason for each in verdict.rejected})
        elif verdict.state == "denied":
            lane.state, lane.why = "denied", verdict.reason
        elif verdict.state == "fork":
            if not lane.begin_anew(await self._other_name(lack)):
                lane.fail("it is another chain than the one that this hub knows by its name")
        else:
            whole = replace(lack, after=lack.start, link=b"")
            if not lane.begin_anew(whole):
                lane.fail(f"this hub lacks what comes before record {piece.first}")
        return False

    def _strike(self, lane: Lane, reasons: dict[int, str]) -> None:
        lane.piece = None  # perhaps it was damaged on its way: asked for again
        lane.strikes += 1
        if lane.strikes >= STRIKES:
            if reasons.keys() <= self.refused.keys():
                lane.fail("this hub refuses even the envelope of a record")
            self.refused |= reasons

    async def _blob(self, lane: Lane, piece: Pulled, digest: bytes) -> None:
        home, client = self._core.home, self._line.client

        def fetch() -> None:
            size = client.blob_size(digest)
            if size is None:
                raise NotFound("the followed hub does not have it either")
            try:
                home.reserve.check(size)
            except NodeFull as error:
                raise HubFull(error.message, hint="free space on this hub", **error.context) from error
            download(client, home.blobs, digest, size)

        try:
            await self._line.run(fetch)
        except (HubUnavailable, HubFull):
            raise
        except Conflict:
            await asyncio.sleep(BUSY_S)  # a node brings it at this moment
        except HoldfastError as error:
            needs = [piece.first + n for n, item in enumerate(piece.items) if blob_of(item) == digest]
            self._strike(lane, {seq: f"blob {digest.hex()}: {error.message}" for seq in needs})

    async def _other_name(self, lack: Lack) -> Lack:
        """The same chain, to be kept here under another name."""

        def look() -> Lack:
            with self._core.home.snapshot() as chains:
                facts = chains.streams([lack.stream]).get(lack.stream)
                held = chains.held(follow.spans(self._theirs)) if facts else {}
            return follow.renamed(lack, self._theirs, facts, held, self._their_key)

        return await self._core.read(look)


def _kind(item: Item) -> str:
    return decode_header(item.header, bytes(32)).kind


def _requests(piece: Pulled) -> dict[bytes, str]:
    """The ids of requests that came with a stretch, by the links of the records that they wrote."""
    asked = {seq: text for seq, text in piece.requests if 0 < len(text.encode()) <= TAG_BYTES_MAX and "\0" not in text}
    found, link = {}, piece.prev
    for seq, item in enumerate(piece.items if asked else (), piece.first):
        link = next_link(link, item.header)
        if seq in asked:
            found[link] = asked[seq]
    return found

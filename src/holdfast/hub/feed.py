"""The feed: everything that is committed, to everybody who listens, in commit order, without gap or repeat.

A commit is encoded once, in the thread that committed it, and the same bytes go to every subscriber who wants all.
Exactness rests on one rule: a subscriber takes a chunk only if it begins where he stands. Whatever else happens (his
queue overflowed, a commit was not encoded because nobody listened, he came while it was under way), the rule fails,
and he reads on from the corpus until he stands where the live chunks begin.

Positions are shown at COMMIT, before the sync: should the machine lose power in between, the next start begins a new
generation, and `wire.resume` takes each reader back to where histories part.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec

from holdfast.corpus import Stored
from holdfast.corpus.pages import Wanted
from holdfast.errors import HoldfastError
from holdfast.log.versions import frame
from holdfast.wire import Cursor

logger = logging.getLogger(__name__)

QUEUE_BYTES_MAX: Final = 512 << 10
QUEUE_CHUNKS_MAX: Final = 256


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """What one commit means to one subscriber: positions after … last are covered by `data` (None: not encoded)."""

    after: int
    last: int
    shown: int
    """The position of the last record in `data`; 0 if it holds none."""
    data: bytes | None


class Subscription:
    """One listener's bounded queue. The loop's own; not for other threads."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.behind = False
        self.ended = False
        self._queue: deque[Chunk] = deque()
        self._size = 0
        self._wake = asyncio.Event()

    def offer(self, chunk: Chunk) -> None:
        """Queues a chunk; when there are too many, drops them all: the listener will read from the corpus."""
        size = len(chunk.data or b"")
        if self._size + size > QUEUE_BYTES_MAX or len(self._queue) >= QUEUE_CHUNKS_MAX:
            self._queue.clear()
            self._size, self.behind = 0, True
        elif not size and chunk.data is not None:
            before = self._queue[-1] if self._queue else None
            if before is not None and before.last == chunk.after and before.data is not None:
                # Nothing for him in it: the chunk before it just covers more.
                self._queue[-1] = Chunk(before.after, chunk.last, before.shown, before.data)
            else:
                self._queue.append(chunk)
            return  # no need to wake him
        else:
            self._queue.append(chunk)
            self._size += size
        self._wake.set()

    def end(self) -> None:
        """Tells the listener that the hub stops."""
        self.ended = True
        self._wake.set()

    async def take(self, seconds: float) -> list[Chunk]:
        """What was queued since, at once or after at most `seconds`; perhaps nothing."""
        if not self._wake.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                pass
        self._wake.clear()
        out = list(self._queue)
        self._queue.clear()
        self._size = 0
        return out


class Feed:
    """Everybody who listens, and what they get.

    Args:
        lineage: the hub's generations; cursors carry them.
        head: the newest position at the start.
    """

    def __init__(self, lineage: Sequence[tuple[str, int]], head: int) -> None:
        self._suffix = str(Cursor(0, tuple(lineage)))[1:]
        self._suffix_bytes = self._suffix.encode()
        self._subscribers: set[Subscription] = set()
        self._listening = False  # read by the committing thread: whether encoding is worth it
        self._loop: asyncio.AbstractEventLoop | None = None
        self.head = head
        self.ended = False
        self.overflows = 0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """From here on commits may be published, from any one thread at a time."""
        self._loop = loop

    def cursor(self, pos: int) -> str:
        """What a reader at this position is to remember."""
        return f"{pos}{self._suffix}"

    def publish(self, stored: Sequence[Stored]) -> None:
        """Shows a commit to everybody; called in the committing thread, in commit order."""
        after, last = stored[0].pos - 1, stored[-1].pos
        events = [self.event(each) for each in stored] if self._listening else None
        chunk = Chunk(after, last, last, None if events is None else b"".join(events))
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._spread, stored, events or (), chunk)

    def subscribe(self, wanted: Wanted) -> Subscription:
        """A new listener; gets chunks from now on, so he must read the corpus up to them himself."""
        subscription = Subscription(wanted)
        subscription.ended = self.ended
        self._subscribers.add(subscription)
        self._listening = True
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forgets a listener; again is fine."""
        self._subscribers.discard(subscription)
        self._listening = bool(self._subscribers)

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return len(self._subscribers)

    def end(self) -> None:
        """The hub stops: everybody who listens is told, and whoever comes is sent away at once."""
        self.ended = True
        for subscription in self._subscribers:
            subscription.end()

    def event(self, stored: Stored) -> bytes:
        """A record as one server-sent event."""
        return b"event: record\nid: %d%b\ndata: %b\n\n" % (stored.pos, self._suffix_bytes, shown(stored))

    def notice(self, event: str, pos: int) -> bytes:
        """A server-sent event that only moves the reader's cursor."""
        cursor = self.cursor(pos).encode()
        return b'event: %b\nid: %b\ndata: {"cursor":"%b"}\n\n' % (event.encode(), cursor, cursor)

    def _spread(self, stored: Sequence[Stored], events: Sequence[bytes], chunk: Chunk) -> None:
        self.head = max(self.head, chunk.last)
        cut: dict[Wanted, Chunk] = {}
        for subscription in self._subscribers:
            wanted = subscription.wanted
            if wanted.everything or chunk.data is None:
                subscription.offer(chunk)
                continue
            mine = cut.get(wanted)
            if mine is None:
                mine = cut[wanted] = self._cut(wanted, stored, events, chunk)
            subscription.offer(mine)

    @staticmethod
    def _cut(wanted: Wanted, stored: Sequence[Stored], events: Sequence[bytes], chunk: Chunk) -> Chunk:
        chosen = [(each.pos, event) for each, event in zip(stored, events, strict=True) if wanted.wants(each)]
        data = b"".join(event for _, event in chosen)
        return Chunk(chunk.after, chunk.last, chosen[-1][0] if chosen else 0, data)


def shown(stored: Stored) -> bytes:
    """A record's JSON as the feed and lists show it: a blob as a reference, damage as missing, never an error."""
    try:
        return frame(stored, None)
    except HoldfastError as error:
        where = {"stream": stored.record.stream.hex(), "seq": stored.record.seq, "pos": stored.pos}
        logger.error("a record cannot be shown: %s", error, extra=where)
        return frame(msgspec.structs.replace(stored, body=None, why=0), None)

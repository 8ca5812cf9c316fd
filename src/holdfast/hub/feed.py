"""The feed: everything that is committed, to everybody who listens, in commit order, without gap or repeat.

A record is encoded at most once, and the same bytes go to all subscribers; a commit that nobody is near enough to take
is not encoded. Exactness rests on one rule: a subscriber takes a chunk
only if it begins where he stands. Whatever else happens (his queue overflowed, he came while a commit was under way),
the rule fails, and he reads on from the corpus until he stands where the live chunks begin.

Positions are shown at COMMIT, before the sync: should the machine lose power in between, the next start begins a new
generation, and `wire.resume` takes each reader back to where histories part.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from holdfast.codec import RAW
from holdfast.corpus import Stored
from holdfast.corpus.pages import Wanted
from holdfast.errors import HoldfastError
from holdfast.log.versions import frame
from holdfast.wire import Cursor

logger = logging.getLogger(__name__)

NOTHING: Final[Mapping[bytes, bytes]] = {}
QUEUE_BYTES_MAX: Final = 512 << 10
CHUNK_BYTES_MAX: Final = 1 << 20
"""One commit may be larger than a queue, for a reader who keeps up: reading it again costs him more."""
QUEUE_CHUNKS_MAX: Final = 256
EVENT_BYTES: Final = 400
"""What an event takes besides its value, about."""
LOOP_EVENTS_MAX: Final = 32
"""From more events on, the thread that commits them encodes them; the loop would be away too long (15 µs each)."""


class _Proven(Stored, frozen=True, gc=False):
    """A record whose body is its payload, checked a moment ago."""

    def payload(self) -> bytes:
        assert self.body is not None
        return self.body


class Commit:
    """The records of one commit, and the event of each, encoded when somebody first needs it and never again."""

    __slots__ = ("_encode", "_events", "_proven", "stored")

    def __init__(
        self, stored: Sequence[Stored], encode: Callable[[Stored], bytes], proven: Mapping[bytes, bytes] = NOTHING
    ) -> None:
        self.stored = stored
        self._encode = encode
        self._proven = proven
        self._events: list[bytes] = [b""] * len(stored)

    def whole(self) -> bytes:
        """The events of all its records."""
        if b"" in self._events:
            pairs = zip(self._events, self.stored, strict=True)
            self._events = [have or self._encode(self._ready(each)) for have, each in pairs]
        return b"".join(self._events)

    def _ready(self, stored: Stored) -> Stored:
        """The record with its payload as ingest has just unpacked and proven it, where it is at hand."""
        payload = self._proven.get(stored.record.link)
        if payload is None:
            return stored
        return _Proven(stored.pos, stored.branch, stored.agent, stored.prior, stored.record, b"", RAW, payload)

    def event(self, number: int) -> bytes:
        """The event of one of its records."""
        found = self._events[number]
        if not found:
            found = self._events[number] = self._encode(self._ready(self.stored[number]))
        return found


class Chunk:
    """What one commit means to one kind of subscriber: positions after … last are covered by the chosen records.

    Whoever takes it first has it encoded, unless it was already; all the others share the bytes.

    Args:
        after, last: positions.
        commit: the records.
        chosen: which of them; empty when there is nothing for him in it.
    """

    __slots__ = ("_data", "after", "chosen", "commit", "last", "size")

    def __init__(self, after: int, last: int, commit: Commit, chosen: Sequence[int]) -> None:
        self.after, self.last = after, last
        self.commit, self.chosen = commit, chosen
        self._data: bytes | None = None
        whole = len(chosen) == len(commit.stored)
        stored = commit.stored if whole else [commit.stored[number] for number in chosen]
        self.size = sum([each.record.payload_len for each in stored]) + EVENT_BYTES * len(stored)

    @property
    def shown(self) -> int:
        """The position of the last record in it; 0 if it holds none."""
        return self.commit.stored[self.chosen[-1]].pos if self.chosen else 0

    def data(self) -> bytes:
        """Its events."""
        if self._data is None:
            whole = len(self.chosen) == len(self.commit.stored)
            self._data = self.commit.whole() if whole else b"".join([self.commit.event(n) for n in self.chosen])
        return self._data

    def until(self, last: int) -> Chunk:
        """The same, covering more positions with nothing in them."""
        longer = Chunk(self.after, last, self.commit, self.chosen)
        longer._data = self._data
        return longer


class Subscription:
    """One listener's bounded queue. The loop's own; not for other threads."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.behind = False
        self.ended = False
        self._queue: deque[Chunk] = deque()
        self._size = 0
        self._woken = False
        self._waiter: asyncio.Future[None] | None = None
        self.direct: Callable[[Chunk], bool] | None = None
        """Takes a chunk at once, while the listener waits for one; False where that is impossible."""

    def offer(self, chunk: Chunk) -> None:
        """Hands a chunk over or queues it; drops all of them when there are too many: the corpus has them."""
        queue = self._queue
        if self.direct is not None and not queue and not self._woken and self.direct(chunk):
            return
        if not chunk.size and queue and queue[-1].last == chunk.after:
            # Nothing for him in it: the chunk before it just covers more.
            queue[-1] = queue[-1].until(chunk.last)
            return
        room = CHUNK_BYTES_MAX if not queue else QUEUE_BYTES_MAX - self._size
        if chunk.size > room or len(queue) >= QUEUE_CHUNKS_MAX:
            queue.clear()
            self._size, self.behind = 0, True
        else:
            queue.append(chunk)
            self._size += chunk.size
            if not chunk.size:
                return  # no need to wake him
        self.wake()

    def wake(self) -> None:
        """Has `take` return."""
        self._woken = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self) -> None:
        """Tells the listener that the hub stops."""
        self.ended = True
        self.wake()

    async def take(self, seconds: float) -> list[Chunk]:
        """What was queued since, at once or after at most `seconds`; perhaps nothing."""
        if not self._woken:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(seconds, self.wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        self._woken = False
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
        self._fresh: deque[Commit] = deque()  # committed, and not yet spread
        self._near = False  # whether anybody took the newest commit; the loop's own, read by the committing thread
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self.bells: set[asyncio.Event] = set()  # rung at each commit, for whoever asks only whether there was one
        self.head = head
        self.ended = False
        self.overflows = 0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """From here on commits may be published, by whoever commits."""
        self._loop, self._loop_thread = loop, threading.get_ident()

    def cursor(self, pos: int) -> str:
        """What a reader at this position is to remember."""
        return f"{pos}{self._suffix}"

    def publish(self, stored: Sequence[Stored], proven: Mapping[bytes, bytes] = NOTHING) -> None:
        """Shows a commit to everybody; called by whoever committed, in commit order.

        Args:
            stored: its records.
            proven: payloads that have been unpacked and checked already, by the links of their records.
        """
        commit = Commit(stored, self.event, proven)
        if self._near and len(stored) > LOOP_EVENTS_MAX:
            commit.whole()  # by the writer and not by whoever takes it: two threads would only share the interpreter
        self._fresh.append(commit)
        if threading.get_ident() == self._loop_thread:
            self._spread()
        elif self._loop is not None:
            self._loop.call_soon_threadsafe(self._spread)

    def pass_over(self, pos: int) -> None:
        """Says that there are commits up to here which nobody listened for."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._move, pos)

    def _move(self, pos: int) -> None:
        self.head = max(self.head, pos)
        self._ring()

    def subscribe(self, wanted: Wanted) -> Subscription:
        """A new listener; gets chunks from now on, so he must read the corpus up to them himself."""
        subscription = Subscription(wanted)
        subscription.ended = self.ended
        self._subscribers.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forgets a listener; again is fine."""
        self._subscribers.discard(subscription)

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return len(self._subscribers)

    def end(self) -> None:
        """The hub stops: everybody who listens is told, and whoever comes is sent away at once."""
        self.ended = True
        for subscription in self._subscribers:
            subscription.end()
        self._ring()

    def event(self, stored: Stored) -> bytes:
        """A record as one server-sent event."""
        return b"event: record\nid: %d%b\ndata: %b\n\n" % (stored.pos, self._suffix_bytes, shown(stored))

    def notice(self, event: str, pos: int) -> bytes:
        """A server-sent event that only moves the reader's cursor."""
        cursor = self.cursor(pos).encode()
        return b'event: %b\nid: %b\ndata: {"cursor":"%b"}\n\n' % (event.encode(), cursor, cursor)

    def _spread(self) -> None:
        # Through one queue, so that a commit of the loop's own cannot overtake one that a thread made before it.
        while self._fresh:
            commit = self._fresh.popleft()
            stored = commit.stored
            after, self.head = stored[0].pos - 1, max(self.head, stored[-1].pos)
            cut: dict[Wanted, Chunk] = {}
            self._near = False
            for subscription in self._subscribers:
                if subscription.behind:
                    continue  # he reads from the corpus, and this is there
                self._near = True
                wanted = subscription.wanted
                mine = cut.get(wanted)
                if mine is None:
                    chosen: Sequence[int] = range(len(stored))
                    if not wanted.everything:
                        chosen = [number for number, each in enumerate(stored) if wanted.wants(each)]
                    mine = cut[wanted] = Chunk(after, stored[-1].pos, commit, chosen)
                subscription.offer(mine)
        self._ring()

    def _ring(self) -> None:
        for bell in self.bells:
            bell.set()


def shown(stored: Stored) -> bytes:
    """A record's JSON as the feed and lists show it: a blob as a reference, damage as missing, never an error."""
    try:
        return frame(stored, None)
    except HoldfastError as error:
        where = {"stream": stored.record.stream.hex(), "seq": stored.record.seq, "pos": stored.pos}
        logger.error("a record cannot be shown: %s", error, extra=where)
        return frame(msgspec.structs.replace(stored, body=None, why=0), None)

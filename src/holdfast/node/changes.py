"""What was written behind a cursor, page by page: from a hub's feed (live, through its restarts) or from one's own log.

The hub's feed is at least once: after a restore it goes back to where its history and the reader's part, and sends
again. `Changes` drops what it has given before (by stream, seq and link), so that within one iterator each record
comes once, also when it goes on with another hub because the one that it had does not answer any more.
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from http.client import HTTPException, HTTPResponse
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import msgspec

from holdfast.clock import SYSTEM, Clock
from holdfast.errors import HubError, HubUnavailable, UsageError
from holdfast.log import Log
from holdfast.log.sealing import Keys
from holdfast.log.versions import Version, told
from holdfast.node.seen import Seen
from holdfast.protocol.retry import Backoff
from holdfast.records import SEALED
from holdfast.wire import Cursor

if TYPE_CHECKING:
    from holdfast.node.hub import Hub

PAGE: Final = 500
POLL_S: Final = 0.05
WAIT_S: Final = 20
QUICK_S: Final = 1.0
QUICK_MAX: Final = 3
NOW: Final = "now"
_LOG: Final = "log."
_CHUNK: Final = 64 << 10
_RECORD: Final = b"event: record\nid: "
_DATA: Final = b"\ndata: "


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which records of the feed are wanted; every field narrows it."""

    agent: str | None = None
    collection: str | None = None
    kind: str | None = None
    prefix: str = ""
    to: str | None = None

    def query(self) -> dict[str, str]:
        """As the hub's feed takes it."""
        given = {"agent": self.agent, "collection": self.collection, "kind": self.kind, "prefix": self.prefix or None}
        given["to"] = self.to
        return {name: text for name, text in given.items() if text is not None}


Page = list[tuple[str, Version]]


class Source(Protocol):
    """Where pages come from; `pull` blocks until there is something, and gives None at the end."""

    @property
    def cursor(self) -> str:
        """Where to go on when everything pulled has been given."""
        ...

    def pull(self) -> Page | None:
        """The next records with their cursors; empty when only the cursor moved."""
        ...

    def close(self) -> None:
        """Ends a `pull` that waits, in whatever thread."""
        ...


class Changes:
    """An iterator over versions, oldest first. `cursor` is where to go on behind the last one given; `close` ends it.

    Not to be shared among threads, but for `close`.
    """

    def __init__(self, source: Source) -> None:
        self.cursor = source.cursor
        self._source = source
        self._page: Page = []
        self._seen = Seen()

    @classmethod
    def of_hub(cls, hub: Hub, wanted: Wanted, since: str | None, *, live: bool) -> Changes:
        """Everybody's, in the order in which the hub committed them."""
        return cls(HubFeed(hub, wanted, since, live))

    @classmethod
    def of_log(cls, log: Log, wanted: Wanted, since: str | None, *, live: bool, keys: Keys | None = None) -> Changes:
        """One agent's own, in the order of its log."""
        return cls(_Own(log, wanted, since, live, keys))

    def next_cursors(self) -> Page:
        """Several at once with their cursors, for callers who hop threads; empty: the end."""
        while not self._page:
            if not self._fill():
                return []
        page, self._page = self._page, []
        self.cursor = page[-1][0]
        return page

    def close(self) -> None:
        """Ends the iteration, also one that waits in another thread; a second close is fine."""
        self._source.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Version:
        while not self._page:
            if not self._fill():
                raise StopIteration
        self.cursor, version = self._page.pop(0)
        return version

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _fill(self) -> bool:
        found = self._source.pull()
        if found is None:
            self.cursor = self._source.cursor
            return False
        for cursor, version in found:
            if self._seen.add(version.stream, version.seq, version.etag):
                self._page.append((cursor, version))
        if not self._page:
            self.cursor = self._source.cursor
        return True


class _Own:
    """One's own log; a commit of another process is found within 50 ms."""

    def __init__(self, log: Log, wanted: Wanted, since: str | None, live: bool, keys: Keys | None) -> None:
        self._keys = keys
        self._log, self._wanted, self._live = log, wanted, live
        self._stop = threading.Event()
        after = str(log.corpus.last()) if since == NOW else (since or "0").removeprefix(_LOG)
        if since is not None and since not in (NOW, "0") and not since.startswith(_LOG):
            Cursor.parse(since)  # or it is nobody's
            raise UsageError(
                f"the cursor {since!r} is a hub's", hint="open the store with that hub, or begin without a cursor"
            )
        if not after.isdigit():
            raise UsageError(f"not a cursor: {since!r}", hint="pass what an iterator's `cursor` gave, or None")
        self._after = int(after)

    @property
    def cursor(self) -> str:
        return f"{_LOG}{self._after}"

    def pull(self) -> Page | None:
        while not self._stop.is_set():
            rows = self._log.corpus.feed(self._after, PAGE)
            if rows:
                self._after = rows[-1].pos
                page = [(f"{_LOG}{each.pos}", each) for each in rows if self._fits(each.agent, each.record)]
                blobs = self._log.blobs
                shown = [(cursor, told(each, blobs, self._keys)) for cursor, each in page]
                return [each for each in shown if each[1].key.startswith(self._wanted.prefix)]
            if not self._live:
                return None
            self._stop.wait(POLL_S)
        return None

    def close(self) -> None:
        self._stop.set()

    def _fits(self, agent: str, record: Any) -> bool:
        wanted = self._wanted
        return bool(
            record.collection
            and wanted.agent in (None, agent)
            and wanted.collection in (None, record.collection)
            and wanted.kind in (None, record.kind)
            and (record.flags & SEALED or record.key.startswith(wanted.prefix))
        )


class HubFeed:
    """A hub's feed: server-sent events while they work, long polls behind a proxy that swallows them.

    Of several hubs it follows one for as long as that answers, and then the next. Each has a cursor of its own; a hub
    that was not followed before gets the last one of another, and knows it if it follows that hub itself.
    """

    def __init__(self, hub: Hub, wanted: Wanted, since: str | None, live: bool, clock: Clock = SYSTEM) -> None:
        if since is not None and since.startswith(_LOG):
            raise UsageError(f"the cursor {since!r} is a log's own", hint="begin without one: the hub has all of it")
        self._hubs, self._at, self._failed = hub.each, 0, 0
        self._cursors: dict[int, str] = {}
        self.cursor = self._now(hub) if since == NOW else since or "0"
        self._wanted, self._live, self._clock = wanted, live, clock
        self._stop = threading.Event()
        self._backoff = Backoff(random.SystemRandom())
        self._quick = 0
        self._caught_up = False
        self._line: _Events | None = None
        self._pulling = threading.Lock()  # held while a thread pulls; guards _line

    def pull(self) -> Page | None:
        """The next records with their cursors; empty when only the cursor moved, None at the end."""
        with self._pulling:
            try:
                while not self._stop.is_set():
                    try:
                        found = self._look()
                        self._failed = 0
                        return found
                    except HubError as error:
                        self._drop()
                        self._failed += 1
                        none_left = self._failed % len(self._hubs) == 0
                        if not error.retryable or (none_left and not self._live):
                            raise
                        self._move_on()
                        if none_left and (meanwhile := self._away(self._backoff.delay())):
                            return meanwhile
                return None
            finally:
                if self._stop.is_set():
                    self._drop()

    def close(self) -> None:
        """Ends a `pull` that waits, in whatever thread."""
        self._stop.set()
        line = self._line
        if line is not None:
            line.hang_up()
        if self._pulling.acquire(timeout=QUICK_S):  # else whoever pulls drops the line when he is done
            self._drop()
            self._pulling.release()

    def _away(self, seconds: float) -> Page:
        """Waits before the hubs are asked again; whatever else was found meanwhile."""
        self._stop.wait(seconds)
        return []

    def _now(self, hub: Hub) -> str:
        self._at, cursor = hub.ask(lambda one: (self._hubs.index(one), one.cursor()))
        return cursor

    def _move_on(self) -> None:
        if len(self._hubs) > 1:
            self._cursors[self._at] = self.cursor
            self._at = (self._at + 1) % len(self._hubs)
            self.cursor = self._cursors.get(self._at, self.cursor)
            self._quick, self._caught_up = 0, False

    def _look(self) -> Page | None:
        if not self._live:
            return self._poll(0) or (None if self._caught_up else [])
        if self._quick >= QUICK_MAX:
            return self._poll(WAIT_S)
        return self._listen()

    def _poll(self, wait: int) -> Page:
        found = self._hubs[self._at].feed(self.cursor, self._wanted, wait=wait, limit=PAGE)
        self._backoff.reset()
        lineage = Cursor.parse(str(found["cursor"])).lineage
        page = [(str(Cursor(each["pos"], lineage)), self._hubs[self._at].version_of(each)) for each in found["records"]]
        self.cursor, self._caught_up = str(found["cursor"]), bool(found.get("caught_up", not found["records"]))
        return page

    def _listen(self) -> Page:
        if self._line is None:
            self._line = _Events(self._hubs[self._at].events(self.cursor, self._wanted), self._clock.monotonic())
            if self._stop.is_set():
                self._line.hang_up()
        try:
            events = self._line.read()
        except (OSError, HTTPException, ValueError) as error:
            if self._stop.is_set():
                return []
            raise HubUnavailable(f"the feed broke off: {error}", hint="it is taken up again by itself") from error
        if not events and self._line.ended:
            # A server ends a feed in good order every ten minutes; one that ends at once, again and again, has a
            # proxy before it that does not let events through.
            short = self._clock.monotonic() - self._line.since < QUICK_S and not self._line.heard
            self._quick = self._quick + 1 if short else 0
            self._drop()
            return []
        self._backoff.reset()
        at, page = self.cursor, []
        for name, mark, data in events:
            at = mark or at
            if name == "record":
                page.append((at, self._hubs[self._at].version_of(data)))
        self.cursor = at  # only now: a blob that could not be fetched must not take its page with it
        return page

    def _drop(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()


class _Events:
    """Server-sent events out of an open answer: as many at a time as have arrived."""

    def __init__(self, opened: tuple[HTTPResponse, socket.socket], since: float) -> None:
        self.since = since
        self.ended = False
        self.heard = False
        self._response, self._socket = opened
        self._rest = b""

    def read(self) -> list[tuple[str, str, bytes]]:
        """(event, id, data) of each event that has arrived; blocks for the first. Empty: only a comment, or the end."""
        chunk = self._response.read1(_CHUNK)
        if not chunk:
            self.ended = True
            return []
        *blocks, self._rest = (self._rest + chunk).replace(b"\r\n", b"\n").split(b"\n\n")
        self.heard = self.heard or bool(blocks)
        return [event for event in map(_event, blocks) if event is not None]

    def hang_up(self) -> None:
        """Ends a `read` that waits in another thread."""
        with contextlib.suppress(OSError):  # it has ended by itself
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes the line."""
        self._response.close()
        self._socket.close()


def _event(block: bytes) -> tuple[str, str, bytes] | None:
    if block.startswith(_RECORD):  # as our hub writes nearly all of them: three lines in this order
        mark, found, rest = block[len(_RECORD) :].partition(_DATA)
        if found and b"\n" not in rest and b"\n" not in mark:
            return "record", mark.decode(), rest
    name, mark, data = "message", b"", []
    for line in block.split(b"\n"):
        field, _, text = line.partition(b":")
        text = text.removeprefix(b" ")
        if field == b"event":
            name = text.decode()
        elif field == b"id":
            mark = text
        elif field == b"data":
            data.append(text)
    return (name, mark.decode(), b"\n".join(data)) if data or mark else None

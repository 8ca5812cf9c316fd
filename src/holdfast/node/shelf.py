"""What adapters of frameworks keep their things on: JSON objects by key, read in key order.

A shelf stands on a node's own log, or at a hub. Where a node has a hub, its shelf shows what everybody put there too:
so a conversation that was begun on one machine is gone on with on another. Nobody writes into another's log; who
replaces or removes what somebody else has put says so in a row of his own (`over`), by version and not by time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, Protocol

import msgspec

from holdfast import clock
from holdfast.collections.typed import SCHEMAS, Schema, declared
from holdfast.corpus.search import WORDS
from holdfast.errors import Conflict, HubUnavailable, NodeFull, NotFound, UsageError
from holdfast.log import drafts
from holdfast.node.aio import AsyncStore
from holdfast.node.aio_hub import AsyncHub
from holdfast.node.hub import Hub
from holdfast.node.store import LIST_MAX, Store
from holdfast.query import EVERYTHING, Condition, where
from holdfast.wire import RECORDS_MAX, SEGMENT_BYTES_MAX

logger = logging.getLogger(__name__)

PATH: Final = "path"
"""The field of every row that holds its key, so that a hub's index knows it."""
GONE: Final = "gone"
OVER: Final = "over"
LOT: Final = 400
"""Rows written, or asked of a hub, at once."""
FEW: Final = 16
"""So many rows a hub is asked for at least: what several agents put under one key comes together."""
LOT_BYTES: Final = SEGMENT_BYTES_MAX // 2


class Row:
    """What lies under a key, and of what others put there what it does not replace (`rivals`, oldest first).

    Args:
        key, agent, version, time: of which key it is which version, in whose log, written when (ms since 1970).
        load: gives what it holds, when that is first asked for.
    """

    __slots__ = ("_load", "_raw", "agent", "key", "rivals", "time", "version")

    def __init__(self, key: str, agent: str, version: int, time: float, load: Callable[[], dict[str, Any]]) -> None:
        self.key, self.agent, self.version, self.time = key, agent, version, time
        self.rivals: list[Row] = []
        self._load = load
        self._raw: dict[str, Any] | None = None

    @property
    def raw(self) -> dict[str, Any]:
        """What it holds."""
        if self._raw is None:
            self._raw = self._load()
        return self._raw


class Span(msgspec.Struct):
    """Some rows in key order; `after` is where the next ones begin, empty at the end."""

    rows: list[Row]
    after: str


class Shelf(Protocol):
    """Rows of one collection."""

    agent: str
    here: bool
    """Whether all of it is on this machine: then reading and writing is quick."""

    def scan(self, prefix: str, after: str = "", limit: int = LOT) -> Span:
        """Rows whose keys begin so, behind `after`; fewer than `limit` does not mean that there are no more."""
        ...

    def put(self, key: str, raw: dict[str, Any], expect: int | None = None) -> None:
        """Sets a row of one's own.

        Raises:
            Conflict: `expect` is not the version of one's own row there.
        """
        ...

    async def aput(self, key: str, raw: dict[str, Any], expect: int | None = None) -> None:
        """The same, awaited."""
        ...

    def put_many(self, rows: Iterable[tuple[str, dict[str, Any]]]) -> None:
        """Sets many, in few commits where that can be."""
        ...

    def drop(self, rows: Iterable[Row]) -> None:
        """Takes rows away, whoever put them there; one that has changed since it was read stays as it is now."""
        ...

    def drop_all(self, prefix: str) -> None:
        """Takes all rows away whose keys begin so."""
        ...

    def now_ms(self) -> int:
        """The time, by the clock that the rows are written with."""
        ...


class NodeShelf:
    """A shelf on a node.

    Args:
        store: the agent's.
        collection: its name.
        share: show what others put there, as its hub knows it; where no hub answers, one's own alone.
        subject: whom the row of a key is about, for where the collection is sealed: an erasure takes all of it.
    """

    def __init__(
        self, store: Store, collection: str, share: bool = True, subject: Callable[[str], str] | None = None
    ) -> None:
        self.agent = store.agent
        self.store = store
        self.collection = collection
        self._awaited = awaited(store)
        self._subject = subject if collection in store._sealed else None
        shared = share and bool(store.hubs) and collection not in store._sealed
        self.here = not shared
        # Only where others' rows are, or once were, shown can there be rows that say of them that they are gone.
        self._marked = not shared and store.get(collection, collection=SCHEMAS, default=None) is not None
        self._others: _Everybody | None = None
        if shared:
            schema: Schema[Any] = Schema(None, index=(PATH,))
            self._declare(schema)
            self._others = _Everybody(store._reader().hub, collection, schema, without=store.agent)

    def scan(self, prefix: str, after: str = "", limit: int = LOT) -> Span:
        """See `Shelf.scan`."""
        own = self._own(prefix, after, limit)
        if self._others is None:
            return own
        try:
            return merged([own, self._others.scan(prefix, after, limit)])
        except HubUnavailable as error:
            logger.info("%s: only what is on this machine is shown: %s", self.collection, error)
            return merged([own])

    def put(self, key: str, raw: dict[str, Any], expect: int | None = None) -> None:
        """See `Shelf.put`."""
        subject = self._subject and self._subject(key)
        self.store.put(key, {PATH: key, **raw}, collection=self.collection, expect=expect, subject=subject)

    async def aput(self, key: str, raw: dict[str, Any], expect: int | None = None) -> None:
        """See `Shelf.aput`."""
        subject = self._subject and self._subject(key)
        await self._awaited.put(key, {PATH: key, **raw}, collection=self.collection, expect=expect, subject=subject)

    def put_many(self, rows: Iterable[tuple[str, dict[str, Any]]]) -> None:
        """See `Shelf.put_many`."""
        lot: list[drafts.Draft] = []
        size = 0
        for key, raw in rows:
            draft = drafts.value(self.collection, key, {PATH: key, **raw})
            if lot and (len(lot) == min(LOT, RECORDS_MAX) or size + len(draft.payload) > LOT_BYTES):
                self._write(lot)
                lot, size = [], 0
            lot.append(draft)
            size += len(draft.payload)
        if lot:
            self._write(lot)

    def drop(self, rows: Iterable[Row]) -> None:
        """See `Shelf.drop`."""
        marks: list[tuple[str, dict[str, Any]]] = []
        mine: list[Row] = []
        for row in rows:
            over = others_under(row, self.agent)
            if over:
                marks.append((row.key, {GONE: True, OVER: over, WORDS: ""}))
            else:
                mine.append(row)
        self.put_many(marks)
        for row in mine:
            try:
                self.store.delete(row.key, collection=self.collection, expect=row.version)
            except (Conflict, NotFound):
                continue

    def drop_all(self, prefix: str) -> None:
        """See `Shelf.drop_all`; of one's own it is one record."""
        if self._others is not None:
            theirs = [row for row in every(self, prefix) if others_under(row, self.agent)]
            self.drop(theirs)
            marked = {row.key for row in theirs}
            self.drop([row for row in every(self, prefix) if row.key not in marked])
        elif self.collection in self.store._sealed:
            self.drop(list(every(self, prefix)))
        elif first(self, prefix) is not None:
            self.store.delete(prefix, prefix=True, collection=self.collection)

    def now_ms(self) -> int:
        """See `Shelf.now_ms`."""
        return self.store._directory.wall.now_ms()

    def _own(self, prefix: str, after: str, limit: int) -> Span:
        store, name = self.store, self.collection
        if name in store._sealed:
            keys = store.keys(prefix, collection=name, after=after, limit=limit)
            found = [(key, store._sealing.find(name, key, None)) for key in keys]
        else:
            stored = store._log.corpus.keys(self.agent, name, prefix, after, limit)
            found = [(each.record.key, each) for each in stored]
        rows = [
            Row(key, self.agent, each.record.key_version, clock.millis(each.record.hlc), partial(store._load, each))
            for key, each in found
        ]
        end = rows[-1].key if len(rows) == limit else ""
        return Span([row for row in rows if GONE not in row.raw] if self._marked else rows, end)

    def _write(self, lot: Sequence[drafts.Draft]) -> None:
        if self.collection in self.store._sealed:
            lot = [self.store._sealing.seal(each, self._subject and self._subject(each.key)) for each in lot]
        self.store._append(lot, False)

    def _declare(self, schema: Schema[Any]) -> None:
        """Tells hubs what rows are found by. No index is kept here: a log finds keys by itself."""
        told = msgspec.to_builtins(declared(schema))
        if self.store.get(self.collection, collection=SCHEMAS, default=None) != told:
            try:
                self.store._append((drafts.value(SCHEMAS, self.collection, told),), False)
            except NodeFull as error:
                logger.warning("what %s is could not be written down: %s", self.collection, error)


class HubShelf:
    """A shelf at a hub: everybody's rows, and one's own in the hub's log of an agent.

    Args:
        hub: it, or several.
        collection: its name.
        agent: in whose name it is written.
    """

    here = False

    def __init__(self, hub: Hub, collection: str, agent: str) -> None:
        self.agent = agent
        self.hub = hub
        self.collection = collection
        schema: Schema[Any] = Schema(None, index=(PATH,))
        self._mine = hub.collection(collection, schema, agent=agent)
        self._everybody = _Everybody(hub, collection, schema)

    def scan(self, prefix: str, after: str = "", limit: int = LOT) -> Span:
        """See `Shelf.scan`."""
        return merged([self._everybody.scan(prefix, after, limit)])

    def put(self, key: str, raw: dict[str, Any], expect: int | None = None) -> None:
        """See `Shelf.put`."""
        self._mine.put(key, {PATH: key, **raw}, expect=expect)

    async def aput(self, key: str, raw: dict[str, Any], expect: int | None = None) -> None:
        """See `Shelf.aput`."""
        await asyncio.to_thread(self.put, key, raw, expect)

    def put_many(self, rows: Iterable[tuple[str, dict[str, Any]]]) -> None:
        """See `Shelf.put_many`; a hub takes them one by one."""
        for key, raw in rows:
            self.put(key, raw)

    def drop(self, rows: Iterable[Row]) -> None:
        """See `Shelf.drop`."""
        for row in rows:
            over = others_under(row, self.agent)
            if over:
                self.put(row.key, {GONE: True, OVER: over, WORDS: ""})
                continue
            try:
                self._mine.delete(row.key, expect=row.version)
            except (Conflict, NotFound):
                continue

    def drop_all(self, prefix: str) -> None:
        """See `Shelf.drop_all`."""
        self.drop(list(every(self, prefix)))

    def now_ms(self) -> int:
        """See `Shelf.now_ms`."""
        return self._mine._backing.now_ms()


class _Everybody:
    """What a hub knows of a collection."""

    def __init__(self, hub: Hub, collection: str, schema: Schema[Any], without: str = "") -> None:
        self._found = hub.collection(collection, schema)
        self._without = without

    def scan(self, prefix: str, after: str, limit: int) -> Span:
        condition: Condition = where(PATH).starts(prefix) if prefix else EVERYTHING
        if after:
            condition = (where(PATH) > after) & condition
        limit = max(limit, FEW)
        while True:
            page = self._found.find(condition, order=PATH, limit=limit)
            rows = [
                Row(each.key, each.agent, each.version, each.time * 1000, partial(_same, each.value))
                for each in page.found
            ]
            end = ""
            if page.cursor and rows:
                # Several may have put something under the last key: the next page shows all of them together.
                whole = [row for row in rows if row.key != rows[-1].key]
                if not whole and limit < LIST_MAX:
                    limit = LIST_MAX
                    continue
                rows = whole or rows
                end = rows[-1].key
            return Span([row for row in rows if row.agent != self._without], end)


def every(shelf: Shelf, prefix: str, after: str = "", limit: int = LOT) -> Iterable[Row]:
    """All rows whose keys begin so, a lot at a time; what is written meanwhile may be among them."""
    while True:
        span = shelf.scan(prefix, after, limit)
        yield from span.rows
        after, limit = span.after, min(LOT, limit * 4)
        if not after:
            return


def first(shelf: Shelf, prefix: str, after: str = "") -> Row | None:
    """The first row whose key begins so, behind `after`."""
    return next(iter(every(shelf, prefix, after, 1)), None)


def merged(spans: Sequence[Span]) -> Span:
    """Several spans of the same keys as one: of each key what nothing else replaces or removes, the newest of it."""
    ends = [span.after for span in spans if span.after]
    end = min(ends) if ends else ""
    groups: dict[str, list[Row]] = {}
    for span in spans:
        for row in span.rows:
            if not end or row.key <= end:
                groups.setdefault(row.key, []).append(row)
    found = [_winner(groups[key]) for key in sorted(groups)]
    return Span([row for row in found if row is not None], end)


def others_under(row: Row, agent: str) -> dict[str, int]:
    """Which versions of other agents a row stands for: what one's own says of them."""
    out: dict[str, int] = {}
    for each in (row, *row.rivals):
        for name, version in ({each.agent: each.version} | each.raw.get(OVER, {})).items():
            if name != agent:
                out[name] = max(version, out.get(name, 0))
    return out


def _winner(rows: list[Row]) -> Row | None:
    over: dict[str, int] = {}
    for row in rows:
        for name, version in row.raw.get(OVER, {}).items():
            over[name] = max(version, over.get(name, 0))
    left = [row for row in rows if over.get(row.agent, 0) < row.version and not row.raw.get(GONE)]
    if not left:
        return None
    left.sort(key=lambda row: (row.time, row.agent))
    winner = left.pop()
    winner.rivals = left
    return winner


def awaited(store: Store) -> AsyncStore:
    """A store that is open, for asyncio; it ends with the store."""
    made = AsyncStore.__new__(AsyncStore)
    made._store, made.agent, made.hubs = store, store.agent, store.hubs
    return made


def _same(raw: dict[str, Any]) -> dict[str, Any]:
    return raw


class Place(msgspec.Struct):
    """Where an adapter keeps its things: a store or a hub, and whether it was opened for it."""

    store: Store | None
    hub: Hub | None
    agent: str
    owned: bool = False

    def shelf(self, collection: str, share: bool, subject: Callable[[str], str]) -> Shelf:
        """A shelf there; see `NodeShelf`."""
        if self.store is not None:
            return NodeShelf(self.store, collection, share, subject)
        assert self.hub is not None
        return HubShelf(self.hub, collection, self.agent)

    def close(self) -> None:
        """Closes what was opened for it; a second close is fine."""
        if self.owned:
            for each in (self.store, self.hub):
                if each is not None:
                    each.close()


def place_of(where_: Any, agent: str) -> Place:
    """What a user names as a place.

    Args:
        where_: a directory, the address of a hub, or a Store, AsyncStore, Hub or AsyncHub that is open.
        agent: who writes, where that does not say so.

    Raises:
        UsageError: none of these.
    """
    if isinstance(where_, AsyncStore):
        where_ = where_._store
    if isinstance(where_, AsyncHub):
        where_ = where_._hub
    if isinstance(where_, Store):
        return Place(where_, None, where_.agent)
    if isinstance(where_, Hub):
        return Place(None, where_, agent)
    if isinstance(where_, str) and where_.startswith(("http://", "https://")):
        return Place(None, Hub(where_), agent, owned=True)
    if isinstance(where_, str) or hasattr(where_, "__fspath__"):
        return Place(Store(where_, agent), None, agent, owned=True)
    raise UsageError(
        f"a place is a directory, a hub's address, a Store or a Hub, not {type(where_).__name__}: {where_!r:.80}",
        hint='such as "./node" or "http://hub:8084"',
    )

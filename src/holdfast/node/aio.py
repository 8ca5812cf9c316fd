"""`Store`, awaited: the same names and parameters, nothing that blocks the loop.

Writes go to the log's writer thread and wake the loop once a batch, however many tasks wait. Single-key reads run in
place (they take less than a hop to a thread would). Scans, blobs and everything that asks a hub run in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

from holdfast.collections import Message
from holdfast.corpus import Stored
from holdfast.errors import NodeFull
from holdfast.log import Draft, drafts
from holdfast.log.versions import Version, version_of
from holdfast.node.aio_mail import AsyncMailCalls
from holdfast.node.aio_searching import AsyncSearching
from holdfast.node.batch import STATE, Batch, Redact
from holdfast.node.changes import Changes
from holdfast.node.collecting import AsyncCollecting
from holdfast.node.directory import DEFAULT_LIMITS, Limits
from holdfast.node.looking import When
from holdfast.node.opening import FromConfig
from holdfast.node.store import LIST_MAX, MISSING, Store
from holdfast.records import INLINE_BYTES_MAX

if TYPE_CHECKING:
    from holdfast.integrity.scan import Scan
    from holdfast.transport.client import Token


class AsyncStore(AsyncCollecting, AsyncSearching, AsyncMailCalls, FromConfig):
    """One agent's storage on this machine, for asyncio; see `Store`, whose arguments it takes.

    Opening happens in the constructor (a few milliseconds, once). Use it on one event loop.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str],
        agent: str,
        *,
        hub: str | Iterable[str] | None = None,
        token: Token = None,
        level: str = "advanced",
        cas: Iterable[str] = (),
        limits: Limits = DEFAULT_LIMITS,
        sealed: Iterable[str] = (),
        redact: Redact | None = None,
    ) -> None:
        more: dict[str, Any] = {"sealed": sealed, "redact": redact}
        self._store = Store(data_dir, agent, hub=hub, token=token, level=level, cas=cas, limits=limits, **more)
        self._searched = self._store
        self.agent = agent
        self.hubs = self._store.hubs

    # -- writing ------------------------------------------------------------------------------------------------

    async def put(
        self,
        key: str,
        value: Any,
        *,
        collection: str = STATE,
        expect: int | str | None = None,
        durable: bool = False,
        subject: str | None = None,
    ) -> Version:
        """Sets a key; see `Store.put`."""
        store = self._store
        if subject is not None or collection in store._cas or collection in store._sealed:
            more: dict[str, Any] = {"expect": expect, "durable": durable, "subject": subject}
            return await asyncio.to_thread(store.put, key, value, collection=collection, **more)
        if store._redact is not None:
            value = store._redact(collection, key, value)
        draft = drafts.value(collection, key, value, expect=expect)
        return version_of((await self._append((draft,), durable))[0], None, value)

    async def delete(
        self,
        key: str,
        *,
        reason: str = "",
        prefix: bool = False,
        collection: str = STATE,
        expect: int | str | None = None,
        durable: bool = False,
    ) -> Version:
        """Takes a key's value away; see `Store.delete`."""
        store = self._store
        if collection in store._cas or collection in store._sealed:
            more: dict[str, Any] = {"collection": collection, "expect": expect, "durable": durable}
            return await asyncio.to_thread(store.delete, key, reason=reason, prefix=prefix, **more)
        store._check_there(collection, key, prefix, expect)
        draft = drafts.remove(collection, key, reason=reason, prefix=prefix, expect=expect)
        return version_of((await self._append((draft,), durable))[0], None)

    async def rollback(self, key: str, version: int, *, collection: str = STATE) -> Version:
        """Makes an earlier version's value the newest again; see `Store.rollback`."""
        return await asyncio.to_thread(self._store.rollback, key, version, collection=collection)

    @contextlib.asynccontextmanager
    async def batch(self, *, durable: bool = False) -> AsyncIterator[Batch]:
        """A block whose writes happen all or none; see `Store.batch`. Collecting needs no await, the end does."""
        store = self._store
        made = Batch(store._cas, store._sealing, store._redact)
        yield made
        if made.drafts:
            stored = await self._append(made.drafts, durable)
            made.versions = [store._version(each) for each in stored]

    # -- reading ------------------------------------------------------------------------------------------------

    async def get(
        self,
        key: str,
        *,
        agent: str | None = None,
        at: When | None = None,
        default: Any = MISSING,
        collection: str = STATE,
    ) -> Any:
        """The value of a key; see `Store.get`. One's own newest value is read in place."""
        store = self._store
        special = collection in store._cas or collection in store._sealed
        if at is None and not special and (agent is None or agent == self.agent):
            stored = store._log.newest(collection, key)
            if stored is None or not (stored.is_blob or stored.body is None):
                return store.get(key, default=default, collection=collection)
        return await asyncio.to_thread(store.get, key, agent=agent, at=at, default=default, collection=collection)

    async def history(
        self, key: str, *, agent: str | None = None, collection: str = STATE, limit: int = LIST_MAX
    ) -> list[Version]:
        """Every version of a key, newest first; see `Store.history`."""
        return await asyncio.to_thread(self._store.history, key, agent=agent, collection=collection, limit=limit)

    async def keys(
        self,
        prefix: str = "",
        *,
        agent: str | None = None,
        collection: str = STATE,
        after: str = "",
        limit: int = LIST_MAX,
    ) -> list[str]:
        """The keys that begin with `prefix`; see `Store.keys`."""
        call = self._store.keys
        return await asyncio.to_thread(call, prefix, agent=agent, collection=collection, after=after, limit=limit)

    async def messages(
        self,
        *,
        to: str | None = None,
        task: str | None = None,
        thread: str | None = None,
        kind: str | None = None,
        agent: str | None = None,
        since: When | None = None,
        limit: int = 100,
    ) -> list[Message]:
        """The newest messages that match; see `Store.messages`."""
        wanted = {"to": to, "task": task, "thread": thread, "kind": kind, "agent": agent}
        return await asyncio.to_thread(lambda: self._store.messages(**wanted, since=since, limit=limit))

    def changes(
        self,
        since: str | None = None,
        *,
        live: bool = True,
        agent: str | None = None,
        collection: str | None = None,
        kind: str | None = None,
        prefix: str = "",
    ) -> AsyncChanges:
        """What was written behind a cursor; see `Store.changes`. Nothing is asked before the first step."""
        store = self._store
        return AsyncChanges(
            lambda: store.changes(since, live=live, agent=agent, collection=collection, kind=kind, prefix=prefix), since
        )

    # -- the outbox and the house ---------------------------------------------------------------------------------

    @property
    def outbox_depth(self) -> int:
        """How many of this agent's records the slowest hub has not acknowledged; 0 without a hub."""
        return self._store.outbox_depth

    async def flush(self, timeout: float = 10.0) -> bool:  # noqa: ASYNC109 - the same signature as Store's
        """Waits until what was written so far is safe on the hubs; see `Store.flush`."""
        return await asyncio.to_thread(self._store.flush, timeout)

    async def health(self) -> dict[str, Any]:
        """How this node stands; see `Store.health`."""
        return await asyncio.to_thread(self._store.health)

    async def metrics(self, *, seed_names: bool = True) -> str:
        """The figures of this node, for Prometheus; see `Store.metrics`."""
        return await asyncio.to_thread(self._store.metrics, seed_names=seed_names)

    async def verify(self) -> Scan:
        """Proves this agent's whole log; see `Store.verify`."""
        return await asyncio.to_thread(self._store.verify)

    async def pin(self, key: str, *, collection: str = STATE) -> None:
        """Has a key's current value stay on this machine; see `Store.pin`."""
        await asyncio.to_thread(self._store.pin, key, collection=collection)

    async def unpin(self, key: str, *, collection: str = STATE) -> None:
        """Lets a pinned value leave again; see `Store.unpin`."""
        await asyncio.to_thread(self._store.unpin, key, collection=collection)

    async def rotate(self) -> str:
        """Puts a new signing key in force; see `Store.rotate`."""
        return await asyncio.to_thread(self._store.rotate)

    async def close(self) -> None:
        """Syncs and closes; a second close is fine."""
        await asyncio.to_thread(self._store.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # -- inside -------------------------------------------------------------------------------------------------

    async def _append(self, made: Sequence[Draft], durable: bool) -> list[Stored]:
        store = self._store
        if durable or any(len(draft.payload) > INLINE_BYTES_MAX for draft in made):
            return await asyncio.to_thread(store._append, made, durable)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Stored]] = loop.create_future()
        try:
            store._reserve.check(len(made[0].payload))
            if store._room is not None and not store._room.passes(made):
                await asyncio.to_thread(store._room.enter, made)
            # One sink a loop, so that a batch of many tasks' writes wakes the loop once.
            store._log.submit(made, _sink(loop), future)
            stored = await future
        except NodeFull:
            await asyncio.to_thread(store._directory.make_room)
            raise
        store._poke()
        return stored


class AsyncChanges:
    """`Changes`, awaited: an async iterator with the same `cursor`; `close` ends it."""

    def __init__(self, begin: Callable[[], Changes], since: str | None) -> None:
        self.cursor = since or "0"
        self._begin = begin
        self._changes: Changes | None = None
        self._page: list[tuple[str, Version]] = []

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Version:
        changes = self._changes
        if changes is None:
            changes = self._changes = await asyncio.to_thread(self._begin)
        while not self._page:
            try:
                page = await asyncio.to_thread(changes.next_cursors)
            except asyncio.CancelledError:
                self.close()
                raise
            if not page:
                self.cursor = changes.cursor
                raise StopAsyncIteration
            self._page = page[::-1]
        self.cursor, version = self._page.pop()
        return version

    def close(self) -> None:
        """Ends the iteration, also one that waits; a second close is fine."""
        if self._changes is not None:
            self._changes.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()


_sinks: dict[asyncio.AbstractEventLoop, Any] = {}


def _sink(loop: asyncio.AbstractEventLoop) -> Any:
    """The loop's one sink: called in the committing thread with all outcomes of a batch."""
    found = _sinks.get(loop)
    if found is None:
        for gone in [each for each in _sinks if each.is_closed()]:
            del _sinks[gone]

        def sink(outcomes: list[tuple[Any, Any, BaseException | None]]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
                loop.call_soon_threadsafe(_resolve, outcomes)

        found = _sinks[loop] = sink
    return found


def _resolve(outcomes: list[tuple[asyncio.Future[Any], Any, BaseException | None]]) -> None:
    for future, result, error in outcomes:
        if future.done():
            continue  # cancelled; the write happened or not, as with any commit that nobody waited for
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

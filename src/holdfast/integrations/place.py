"""Where an adapter keeps what a framework gives it: an agent's log on this machine, or a hub. One form for both.

    Place("./node", agent="laptop")  # this machine's own, at its speed; a hub gets a copy, if it has one
    Place(Store("./node", "laptop", hub=URL), shared=True)  # everybody's: the hub decides each write
    Place("http://hub:8084", agent="laptop")  # the same values as those, without a log

What is *shared* is one thing on all machines, and needs its hub for every call. What is not belongs to the agent: it is
written and read without a network, and other machines read it through the hub by the agent's name.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath
from typing import Any, Final, ParamSpec, Self, TypeAlias, TypeVar
from urllib.parse import quote

from holdfast.collections.typed import Collection, Item, Schema
from holdfast.errors import Conflict, IntegrityError, NotFound, UsageError
from holdfast.node.aio import AsyncStore
from holdfast.node.aio_hub import AsyncHub
from holdfast.node.batch import CAS_AGENT
from holdfast.node.hub import Hub
from holdfast.node.store import Store
from holdfast.query import EVERYTHING, Condition
from holdfast.records import check_names

T = TypeVar("T")
P = ParamSpec("P")
Where: TypeAlias = "str | os.PathLike[str] | Store | AsyncStore | Hub | AsyncHub"

SHARED: Final = "-shared"
"""Ends the names of collections that are shared, so that an agent's own of the same name is not mistaken for them."""
_SAFE: Final = " !#$&'()+,;=@[]^{}~"
_SEGMENT_MAX: Final = 180
PAGE: Final = 200
HISTORY: Final = 1000
_URLS: Final = ("http://", "https://")


class Closing:
    """What ends with its ``with``, or its ``async with``."""

    def close(self) -> None:
        """Ends it; a second close is fine."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.to_thread(self.close)


class Place(Closing):
    """A store or a hub as adapters use it. Safe to share among threads and tasks.

    Args:
        where: a node directory, a hub's address, or a `Store`, `AsyncStore`, `Hub` or `AsyncHub` that is open.
        agent: who writes; needed for a directory and a hub.
        shared: one set of values for all machines, decided by the hub; None: so at a hub, and not on a node.

    Raises:
        UsageError: nobody's name, another than the store's, or an agent's own values at a hub.
    """

    def __init__(self, where: Where, *, agent: str | None = None, shared: bool | None = None) -> None:
        self._owned = isinstance(where, str | os.PathLike)
        inner: Store | Hub
        if isinstance(where, AsyncStore):
            inner = where._store
        elif isinstance(where, AsyncHub):
            inner = where._hub
        elif isinstance(where, Store | Hub):
            inner = where
        else:
            inner = _opened(where, agent)
        if isinstance(inner, Store):
            if agent not in (None, inner.agent):
                raise UsageError(f"the store is {inner.agent}'s, and not {agent!r:.80}'s", hint="leave agent= away")
            self.store: Store | None = inner
            self.agent = inner.agent
        else:
            if not agent:
                raise UsageError("in whose name is written?", hint="agent='laptop', say: a name for this machine")
            check_names("put", "collection", agent)
            if shared is False:
                raise UsageError(
                    "what an agent has at a hub alone is everybody's to find", hint="a Store keeps what is one's own"
                )
            self.store = None
            self.agent = agent
        self._inner = inner
        self.shared = shared if shared is not None else self.store is None

    @property
    def whose(self) -> str:
        """The agent whose keys they are: one's own, or where the hub decides, the hub's."""
        return CAS_AGENT if self.shared else self.agent

    def collection(self, name: str, what: type[T], *, index: Sequence[str] = ()) -> Collection[T]:
        """Typed values; see `Store.collection`. Nothing is asked of a hub before the first call."""
        schema = Schema(what, index=tuple(index), conflict="cas" if self.shared else "private")
        if isinstance(self._inner, Store):
            return self._inner.collection(self.named(name), schema)
        return self._inner.collection(self.named(name), schema, agent=self.agent)

    def of(self, agent: str, name: str, what: type[T], *, index: Sequence[str] = ()) -> Collection[T]:
        """What another agent has of its own under a name, to be read: beside one's own, else through the hub."""
        schema = Schema(what, index=tuple(index))
        if isinstance(self._inner, Store):
            return self._inner.collection(name, schema)
        return self._inner.collection(name, schema, agent=agent)

    def named(self, name: str) -> str:
        """The name that a collection has here."""
        return f"{name}{SHARED}" if self.shared else name

    def at_once(self, *collections: Collection[Any]) -> Store | None:
        """The store, if it can write to all of these in one commit."""
        store = self.store
        if store is None or self.shared or any(each.name in store._sealed for each in collections):
            return None
        return store

    def every(
        self, collection: Collection[T], condition: Condition = EVERYTHING, agent: str | None = None
    ) -> Iterator[Item[T]]:
        """All values that meet a condition, page by page, each with its key and version.

        Args:
            collection: one of this place.
            condition: see `where`.
            agent: another agent's own; None: of this place.

        Raises:
            IntegrityError: one is there and cannot be read: a list without it would be a lie.
        """
        after = ""
        whose = self.whose if agent is None else agent
        while True:
            page = collection.find(condition, limit=PAGE, after=after, agent=whose)
            if page.unfit:
                raise IntegrityError(f"{collection.name}/{page.unfit[0].key}: {page.unfit[0].why}")
            yield from page.found
            after = page.cursor
            if not after:
                return

    def past(self, collection: Collection[T], key: str, limit: int = HISTORY) -> Iterator[tuple[T, int]]:
        """The values that a key has had, newest first, each with its version; what is no value is left out.

        Args:
            collection: one of this place.
            key: which.
            limit: the most versions that are looked at.
        """
        kind = collection.schema.type
        try:
            found = collection.history(key, limit=limit, agent=self.whose if self.shared else None)
        except NotFound as error:
            if error.code != NotFound.code:
                raise
            return  # a hub has no past of what never was
        for version in found:
            if kind is not None and isinstance(version.value, kind):
                yield version.value, version.version

    def take(self, collection: Collection[T], key: str, expect: int | None = None) -> bool:
        """Takes a value away; False if there is none, or one of another version than was expected."""
        try:
            if self.shared:
                collection.item(key)  # a hub deletes what is not there without a word
            collection.delete(key, expect=expect)
        except (Conflict, NotFound):
            return False
        return True

    def close(self) -> None:
        """Closes the store or the hub, if it was opened here; a second close is fine."""
        if self._owned:
            self._inner.close()


def _opened(where: str | os.PathLike[str], agent: str | None) -> Store | Hub:
    if isinstance(where, str) and where.startswith(_URLS):
        return Hub(where)
    if not isinstance(where, str | PurePath | os.PathLike) or not os.fspath(where):
        raise UsageError(f"no place to keep anything: {where!r:.80}", hint="a directory, a hub's address, or a Store")
    if not agent:
        raise UsageError(f"whose log in {os.fspath(where)}?", hint="agent='laptop', say: a name for this machine")
    return Store(where, agent)


def segment(name: str) -> str:
    """A text as a part of a key, one to one; a long one by its digest.

    Raises:
        UsageError: it is no text.
    """
    if not isinstance(name, str):
        raise UsageError(f"a name is text, not {type(name).__name__}: {name!r:.80}")
    encoded = name.encode("utf-8", "surrogatepass")
    quoted = quote(encoded, safe=_SAFE) if name else "%-"
    if len(quoted) > _SEGMENT_MAX:
        return f"%={hashlib.sha256(encoded).hexdigest()}"
    return quoted


async def settled(work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """Runs it in a thread. Who is cancelled meanwhile hears so when it is over: what has begun is done or not, and
    nothing goes on behind the caller's back.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # trio, which some frameworks run on through anyio; its threads settle by themselves
        from anyio import to_thread

        return await to_thread.run_sync(functools.partial(work, *args, **options))
    task = asyncio.ensure_future(asyncio.to_thread(work, *args, **options))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))  # which leaves the task alone when it is cancelled
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # looked at: nobody else will
        raise cancelled
    return task.result()

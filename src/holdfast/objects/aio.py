"""Any object store for asyncio: the same calls, awaited. The work is done by the store itself, in threads.

A store's own asyncio client was tried and rejected: it costs two to three times the processor's time per call, and
every layer would exist twice. A `quick` store is called in place: handing 16 µs of work to a thread takes 60.
Others are asked first whether a call is as short as that just now (`read_now`, `put_now`).
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final, Generic, ParamSpec, Self, TypeVar

from holdfast.objects.port import TYPE, Expect, Health, ObjectInfo, ObjectStore, Source

THREADS: Final = 32
"""Calls to one store under way at once; others wait their turn."""
PAGE: Final = 200
P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """Runs calls in threads of its own, made when they are first needed and again in a forked child."""

    def __init__(self, most: int = THREADS) -> None:
        self._most = most
        self._pool: ThreadPoolExecutor | None = None
        self._pid = 0

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the call returns or raises."""
        if self._pool is None or self._pid != os.getpid():
            self._pool, self._pid = ThreadPoolExecutor(self._most, thread_name_prefix="holdfast-objects"), os.getpid()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, functools.partial(call, *args, **kwargs))

    def close(self) -> None:
        """Waits for no one: what is under way ends by itself."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)
            self._pool = None


class AsyncObjectStore:
    """A store's calls as coroutines; arguments, returns and errors are those of `ObjectStore`.

    Args:
        store: closed with this one.
        threads: the most calls under way at once.
    """

    def __init__(self, store: ObjectStore, *, threads: int = THREADS) -> None:
        self.store = store
        self._threads = Threads(threads)

    @property
    def name(self) -> str:
        """Which store this is, as an address without secrets."""
        return self.store.name

    @property
    def lacks(self) -> frozenset[str]:
        """What the store cannot do."""
        return self.store.lacks

    async def put(
        self,
        key: str,
        data: Source,
        *,
        content_type: str = TYPE,
        metadata: Mapping[str, str] | None = None,
        expect: Expect = None,
    ) -> ObjectInfo:
        """Stores an object, in place of the one under this key; when it returns, it is there."""
        if expect is None and isinstance(data, bytes):
            info = self.store.put_now(key, data, content_type=content_type, metadata=metadata)
            if info is not None:
                return info
        return await self._do(self.store.put, key, data, content_type=content_type, metadata=metadata, expect=expect)

    async def read(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes of an object, or a range of them."""
        if (found := self.store.read_now(key, start=start, stop=stop)) is not None:
            return found
        return await self._do(self.store.read, key, start=start, stop=stop)

    async def content(self, key: str, *, start: int = 0, stop: int | None = None) -> tuple[ObjectInfo, bytes]:
        """What is known of an object, and its bytes or a range of them, of the same write."""
        return await self._do(_whole, self.store, key, start, stop)

    async def pieces(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """The bytes of an object, or a range of them, piece by piece."""
        content = await self._do(self.store.get, key, start=start, stop=stop)
        steps = _Steps(functools.partial(next, iter(content), None), content.close)
        try:
            while (piece := await self._do(steps.take)) is not None:
                if piece:
                    yield piece
        finally:
            if steps.given_up():
                await self._do(steps.end)

    async def head(self, key: str) -> ObjectInfo:
        """What is known of an object."""
        return await self._do(self.store.head, key)

    async def list(self, prefix: str = "", *, after: str = "", limit: int | None = None) -> AsyncIterator[ObjectInfo]:
        """The objects whose keys begin with `prefix`, in order of their keys, fetched page by page."""
        # One listing, a page at a time: a directory asked anew for each page would be looked through as often.
        found = await self._do(self.store.list, prefix, after=after, limit=limit)
        steps = _Steps(functools.partial(_some, found), getattr(found, "close", _nothing))
        try:
            while page := await self._do(steps.take):
                for info in page:
                    yield info
        finally:
            if steps.given_up():
                await self._do(steps.end)

    async def delete(self, key: str, *, expect: str | None = None) -> bool:
        """Removes an object; False if there was none."""
        return await self._do(self.store.delete, key, expect=expect)

    async def exists(self, key: str) -> bool:
        """Whether there is an object under this key."""
        return await self._do(self.store.exists, key)

    async def health(self) -> Health:
        """Whether the store answers now."""
        return await self._do(self.store.health)

    async def close(self) -> None:
        """Lets go of the store, and of the threads."""
        await self._do(self.store.close)
        self._threads.close()

    async def _do(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self.store.quick:
            return call(*args, **kwargs)
        return await self._threads.run(call, *args, **kwargs)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class _Steps(Generic[T]):
    """What a store gives piece by piece, taken in threads. Whoever is cancelled leaves his thread in the middle of a
    step: what it reads from must not be closed under its hands, so then that thread closes it.

    Args:
        step: takes the next.
        close: gives back what it is taken from; more than once is no error.
    """

    def __init__(self, step: Callable[[], T], close: Callable[[], None]) -> None:
        self._step, self._close = step, close
        self._turn = threading.Lock()
        self._over = False

    def take(self) -> T:
        """The next."""
        try:
            with self._turn:
                return self._step()
        finally:
            if self._over:
                self.end()

    def given_up(self) -> bool:
        """Says that nobody wants more; whether it is the caller who has to call `end`."""
        self._over = True
        free = self._turn.acquire(blocking=False)
        if free:
            self._turn.release()
        return free

    def end(self) -> None:
        """Gives back what it is taken from."""
        with self._turn:
            self._close()


def _whole(store: ObjectStore, key: str, start: int, stop: int | None) -> tuple[ObjectInfo, bytes]:
    with store.get(key, start=start, stop=stop) as content:
        return content.info, content.read()


def _some(found: Iterator[ObjectInfo]) -> Sequence[ObjectInfo]:
    return list(itertools.islice(found, PAGE))


def _nothing() -> None:
    pass

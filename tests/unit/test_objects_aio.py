"""Asyncio over any store: what is cancelled is cancelled, and nothing is closed under a thread that reads from it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from holdfast.objects import AsyncObjectStore, MemoryStore
from holdfast.objects.port import Content, ObjectInfo


class Slow(MemoryStore):
    """A store that reads and lists piece by piece, and waits before the second piece."""

    quick = False

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go_on, self.ended = threading.Event(), threading.Event(), threading.Event()

    def _waiting(self, pieces: list[bytes]) -> Iterator[bytes]:
        try:
            yield pieces[0]
            self.reached.set()
            assert self.go_on.wait(30)
            yield from pieces[1:]
        finally:
            self.ended.set()

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
        return Content(super().head(key), self._waiting([b"one", b"", b"two"]))

    def list(self, prefix: str = "", *, after: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        infos = [*super().list(prefix, after=after, limit=limit)]
        return (infos[number] for number, _ in enumerate(self._waiting([b"1", b"2"])))


async def read(store: AsyncObjectStore) -> list[bytes]:
    return [piece async for piece in store.pieces("a")]


async def listed(store: AsyncObjectStore) -> list[bytes]:
    return [info.key.encode() async for info in store.list()]


@pytest.mark.parametrize("call", [read, listed])
def test_a_stream_that_is_cancelled_in_the_middle_is_cancelled_and_closed(call: Callable[..., object]) -> None:
    """A generator that runs in a thread cannot be closed by another: that was a ValueError in place of the timeout."""

    async def attempt() -> None:
        slow = Slow()
        slow.put("a", b"onetwo")
        slow.put("b", b"")
        store = AsyncObjectStore(slow)
        reading = asyncio.ensure_future(call(store))  # type: ignore[arg-type]
        assert await asyncio.to_thread(slow.reached.wait, 30)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert not slow.ended.is_set()  # a thread is in the middle of it
        slow.go_on.set()
        assert await asyncio.to_thread(slow.ended.wait, 30)
        await store.close()

    asyncio.run(attempt())


def test_an_empty_piece_is_not_the_end() -> None:
    async def attempt() -> None:
        slow = Slow()
        slow.go_on.set()
        slow.put("a", b"onetwo")
        store = AsyncObjectStore(slow)
        assert await read(store) == [b"one", b"two"]
        async for _ in store.pieces("a"):
            break
        assert await asyncio.to_thread(slow.ended.wait, 30)
        await store.close()

    asyncio.run(attempt())

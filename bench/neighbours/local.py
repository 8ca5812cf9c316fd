"""What every local store does in a contest, so that all of them do the same work."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench import material
from bench.harness import Figures, same, spread
from bench.processes import scratch

KEYS = 200
PAGE = 100
WARM = 50
DURABILITY: Mapping[str, str] = {
    "basic": "a process crash (WAL, synchronous=NORMAL)",
    "advanced": "a power cut but for the last 50 ms (WAL, NORMAL, fdatasync every 50 ms)",
    "critical": "a power cut (WAL, synchronous=FULL)",
}


class Contestant(ABC):
    """Something in this process whose calls are clocked.

    Attributes:
        runner: set where the calls are coroutines: they are then awaited in turn inside one loop.
    """

    runner: asyncio.Runner | None = None

    def shown(self, found: Any) -> Any:
        """What was read as it was written, for the comparison after the clock has stopped."""
        return found

    @abstractmethod
    def close(self) -> None:
        """Ends it."""


class LocalStore(Contestant):
    """Writes and reads in this process. What a store has no notion of, it need not have."""

    def prepare(self, values: list[dict[str, Any]]) -> None:
        """Is told what will be written, before the clock starts."""

    def append(self, number: int, session: str, message: dict[str, Any]) -> Any:
        """Writes a message behind the others of its session."""
        raise NotImplementedError

    def message(self, number: int) -> Any:
        """The message with this number."""
        raise NotImplementedError

    def last(self, session: str) -> Any:
        """The newest 100 messages of a session, oldest first."""
        raise NotImplementedError

    def put(self, number: int, key: str, value: dict[str, Any]) -> Any:
        """Sets a key."""
        raise NotImplementedError

    def get(self, key: str) -> Any:
        """The newest value of a key."""
        raise NotImplementedError


Opening = Callable[[Path, str], LocalStore]


def contest(opening: Opening, durability: str, writes: int, reads: int) -> Figures:
    """One turn: a new store, messages appended, values put, both read back and compared with what was written.

    Args:
        opening: makes the store in a directory at a durability.
        durability: basic, advanced or critical.
        writes: how many messages and how many values.
        reads: how many single reads; a tenth as many pages.
    """
    figures: Figures = {}
    with scratch() as folder:
        store = opening(folder, durability)
        try:
            gc.collect()
            gc.disable()
            if type(store).append is not LocalStore.append:
                figures |= _messages(store, writes, reads)
            if type(store).put is not LocalStore.put:
                figures |= _values(store, writes, reads)
        finally:
            gc.enable()
            store.close()
    return figures


def clocked(store: Contestant, work: Callable[[int], Any], count: int, first: int = 0) -> tuple[list[float], list[Any]]:
    """How long each call took, and what it gave."""
    took, given, clock = [], [], time.perf_counter
    if store.runner is None:
        for number in range(first, first + count):
            before = clock()
            result = work(number)
            took.append(clock() - before)
            given.append(result)
        return took, given

    async def all_of_them() -> None:
        for number in range(first, first + count):
            before = clock()
            result = await work(number)
            took.append(clock() - before)
            given.append(result)

    store.runner.run(all_of_them())
    return took, given


def _messages(store: LocalStore, writes: int, reads: int) -> Figures:
    made = [material.message(number) for number in range(WARM + writes)]

    def append(number: int) -> Any:
        return store.append(number, material.session(number), made[number])

    store.prepare(made)
    clocked(store, append, WARM)
    figures = spread("append", clocked(store, append, writes, WARM)[0])
    if type(store).message is not LocalStore.message:
        took, got = clocked(store, lambda n: store.message(n * 7 % len(made)), reads)
        figures |= spread("message", took)
        for number, found in enumerate(got):
            same(store.shown(found), made[number * 7 % len(made)], "a message")
    took, pages = clocked(store, lambda n: store.last(material.session(n)), max(10, reads // 10))
    figures |= spread("last", took)
    for number, page in enumerate(pages):
        mine = [made[n] for n in range(len(made)) if material.session(n) == material.session(number)]
        same(store.shown(page), mine[-PAGE:], "the last messages of a session")
    return figures


def _values(store: LocalStore, writes: int, reads: int) -> Figures:
    made = [material.state(number) for number in range(WARM + writes)]
    rng = random.Random(5)
    keys = [f"key-{rng.randrange(KEYS)}" for _ in made]

    def put(number: int) -> Any:
        return store.put(number, keys[number], made[number])

    store.prepare(made)
    clocked(store, put, WARM)
    figures = spread("put", clocked(store, put, writes, WARM)[0])
    newest = dict(zip(keys, made, strict=True))
    asked = [rng.choice(list(newest)) for _ in range(reads)]
    took, got = clocked(store, lambda n: store.get(asked[n]), reads)
    for key, found in zip(asked, got, strict=True):
        same(store.shown(found), newest[key], key)
    return figures | spread("get", took)

"""Many calls at once, so many at a time; what happened to each is told, whatever happened to the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Generic, TypeVar

import msgspec

from holdfast.errors import StorageError

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - an item


class Batch(msgspec.Struct, Generic[T]):
    """What became of the items of one call, by key, in the order in which they were given."""

    done: dict[str, T]
    """What each that succeeded gave: of a save the etag, of a load the value."""
    failed: dict[str, Exception]
    """Why each of the others failed."""

    @property
    def ok(self) -> bool:
        """Whether none failed."""
        return not self.failed

    def all(self) -> dict[str, T]:
        """What they gave, if none failed.

        Raises:
            StorageError: some failed: the one error, or one that counts them; the first is its cause.
        """
        if not self.failed:
            return self.done
        key, error = next(iter(self.failed.items()))
        if len(self.failed) == 1:
            raise error
        count = len(self.failed)
        total = count + len(self.done)
        raise StorageError(
            f"{count} of {total} failed; the first is {key!r:.200}: {error}", failed=list(self.failed)[:100]
        ) from error


async def each(call: Callable[[I], Awaitable[T]], items: Iterable[tuple[str, I]], at_once: int) -> Batch[T]:
    """Makes a call for every item, so many at a time.

    Args:
        call: takes an item.
        items: key and item; taken when their turn comes.
        at_once: the most calls under way.
    """
    done: dict[str, T] = {}
    failed: dict[str, Exception] = {}
    order: dict[str, None] = {}
    rest = iter(items)

    async def work() -> None:
        for key, item in rest:
            order[key] = None
            try:
                done[key] = await call(item)
            except Exception as error:
                failed[key] = error

    async with asyncio.TaskGroup() as group:
        for _ in range(max(at_once, 1)):
            group.create_task(work())
    return Batch(_in(order, done), _in(order, failed))


def _in(order: Iterable[str], found: dict[str, Any]) -> dict[str, Any]:
    return {key: found[key] for key in order if key in found}

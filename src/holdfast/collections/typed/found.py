"""What a collection's `find` gives: values with their versions, and a page of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


class Item(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A value that was found, and what it is a version of.

    Attributes:
        agent: whose it is.
        key, value: as it was put.
        version, etag: of its key; good for ``expect=``.
        time: when it was written, in seconds since 1970 by its writer's clock.
    """

    agent: str
    key: str
    value: T
    version: int
    etag: str = ""
    time: float = 0.0


class Unfit(msgspec.Struct, frozen=True, kw_only=True):
    """A stored value that does not fit the schema, and why; `Store.get` (or `Hub.get`) reads it as it is."""

    agent: str
    key: str
    version: int
    why: str


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Some of what was found, in order; as an iterator, its (key, value) pairs.

    Attributes:
        found: each value with its version, and whose it is.
        cursor: goes into ``after=`` for the next page; empty at the end.
        unfit: what met the condition and is left out, because it does not fit the schema.
    """

    found: list[Item[T]]
    cursor: str = ""
    unfit: list[Unfit] = []

    @property
    def items(self) -> list[tuple[str, T]]:
        """The (key, value) pairs."""
        return [(each.key, each.value) for each in self.found]

    def __iter__(self) -> Iterator[tuple[str, T]]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.found)

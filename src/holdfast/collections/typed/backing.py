"""What a collection stands on: a log on a node, or a hub. The collection says what is meant, this does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec

from holdfast.collections.typed.asking import Row, Rows
from holdfast.collections.typed.sums import Sums
from holdfast.errors import Conflict, UsageError
from holdfast.log.versions import Version
from holdfast.query import Condition

When = Any
"""A version number, or a time."""


UNKNOWN: Final = 1 << 62


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One question: values of a collection that meet a condition, in an order, behind a cursor.

    `agent` says whose: None for those that this backing is about. `ended` asks for what has ended, which is otherwise
    left out.
    """

    condition: Condition
    order: tuple[str, ...] = ()
    after: str = ""
    limit: int = 100
    agent: str | None = None
    ended: bool = False


class Finding(Protocol):
    """What finds the values of a collection. They are raw here: JSON objects as they are stored."""

    def now_ms(self) -> int:
        """The time, in ms since 1970."""
        ...

    def find(self, asked: Asked) -> Rows:
        """A page of what was asked for."""
        ...

    def count(self, asked: Asked) -> int:
        """How many values there are of it."""
        ...

    def sums(self, asked: Asked, by: str | None, of: str | None) -> list[Sums]:
        """What they add up to, by what one field holds."""
        ...

    def search(self, words: str, fields: Sequence[str], limit: int, agent: str | None) -> Rows:
        """The newest values with all these words, in these fields; in any if none is named."""
        ...


class Backing(Finding, Protocol):
    """The work below a collection that is written, too."""

    def put(self, key: str, raw: Any, expect: int | str | None, durable: bool) -> Version:
        """Writes a value; see `Store.put`."""
        ...

    def replace(self, values: Sequence[tuple[str, Any, int]]) -> int:
        """Writes some values (key, value, the version that must be current), each if nobody was faster; how many."""
        ...

    def delete(self, key: str, reason: str, expect: int | str | None) -> Version:
        """Takes it away; see `Store.delete`."""
        ...

    def row(self, key: str, at: When | None, agent: str | None) -> Row:
        """What a key holds, now or then.

        Raises:
            NotFound: it has no value.
        """
        ...

    def newest_version(self) -> int:
        """The newest version of the schema that may have written here; `UNKNOWN` if each value must be asked."""
        ...

    def history(self, key: str, limit: int, agent: str | None) -> list[Version]:
        """Every version of a key, newest first."""
        ...


def one_by_one(backing: Backing, values: Sequence[tuple[str, Any, int]]) -> int:
    """`Backing.replace`, a write for each."""
    count = 0
    for key, raw, version in values:
        try:
            backing.put(key, raw, version, False)
        except Conflict:
            continue  # whoever was faster wrote it, or took it away
        count += 1
    return count


def check_limit(limit: int) -> int:
    """The limit itself, if it is one.

    Raises:
        UsageError: less than 1, or more than a page may hold.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= 1000:
        raise UsageError(f"limit={limit!r:.80}", hint="1 to 1000; the next page begins after `page.cursor`")
    return limit

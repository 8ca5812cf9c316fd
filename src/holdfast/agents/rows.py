"""The rows of an agent's tables: JSON objects under their ids, changed only if nobody was faster, found by conditions.

A table is a collection (`Store.collection`) of any objects, so that what is written here everybody finds at the hub,
from Python and over HTTP. One of an agent's own is decided on this machine, inside its log's transaction; about a
shared one, ``shared_<table>``, the hub decides each write, for all machines.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.collections.typed import Item, Schema, Sums
from holdfast.collections.typed.schema import is_ours
from holdfast.errors import HubUnavailable, NotCached, NotFound, UsageError
from holdfast.query import EVERYTHING, Condition

if TYPE_CHECKING:
    from holdfast.node.store import Store
    from holdfast.node.typed import StoreCollection

Order = str | tuple[str, ...]
LIMIT: Final = 1000
"""Rows that a find returns where nobody says how many, and at most."""
_AWAY: Final = "what machines share the hub decides: try again when it answers; nothing is claimed twice meanwhile"


class Row(msgspec.Struct, frozen=True):
    """A row as it is now: its id, its fields, and the version to name as `expect` when it is changed."""

    id: str
    value: dict[str, Any]
    version: int
    agent: str = ""


class Found(msgspec.Struct, frozen=True):
    """A page of rows; `cursor` is what the next page begins behind, None when there is no next one."""

    rows: list[Row]
    cursor: str | None


class Rows:
    """One table of an agent. Safe to share among threads.

    Args:
        store: the agent's.
        table: its name.
        index: fields that it is found by quickly; lists by their members.
        words: fields whose words are looked for.
        shared: whether the hub decides, for all machines.

    Raises:
        UsageError: a name that no table can have.
    """

    def __init__(
        self, store: Store, table: str, index: Sequence[str] = (), words: Sequence[str] = (), *, shared: bool = False
    ) -> None:
        self.name = collection_of(f"shared_{table}" if shared else table)
        self._store = store
        self._schema: Schema[Any] = Schema(
            index=tuple(index), text=tuple(words), conflict="cas" if shared else "private"
        )
        self._shared = shared

    @functools.cached_property
    def _collection(self) -> StoreCollection[Any]:
        # Not before somebody needs it: what a collection is, is a record of its own.
        return self._store.collection(self.name, self._schema)

    def get(self, id: str) -> Row | None:
        """The row, or None.

        Raises:
            HubUnavailable: the hub decides, and it is away.
        """
        try:
            with self._asking() as collection:
                if not self._shared:
                    return _row(collection.item(id))
                # Never what this machine remembers of it: who decides by that says of a lease that it is lost.
                (newest,) = self._store.history(id, collection=self.name, limit=1)
                return None if newest.gone else Row(id, newest.value, newest.version, newest.agent)
        except NotCached:
            raise  # it exists
        except NotFound:
            return None

    def put(self, id: str, value: dict[str, Any], expect: int | None = None) -> Row:
        """Sets a row, and returns it.

        Args:
            id: its key.
            value: all its fields.
            expect: the version that must be current; 0: there must be none; None: whatever is there.

        Raises:
            Conflict: somebody was faster.
            HubUnavailable: the hub decides, and it is away; nothing was written.
        """
        with self._asking():
            made = self._store.put(id, value, collection=self.name, expect=expect)
        return Row(id, value, made.version)

    def delete(self, id: str, expect: int | None = None) -> bool:
        """Takes a row away; False if there is none.

        Raises:
            Conflict: somebody was faster.
        """
        try:
            with self._asking():
                self._store.delete(id, collection=self.name, expect=expect)
        except NotFound:
            return False
        return True

    def find(
        self, condition: Condition = EVERYTHING, *, order: Order = (), limit: int = LIMIT, after: str | None = None
    ) -> Found:
        """The rows that meet a condition.

        Args:
            condition: such as ``where("skills").has("Python")``.
            order: the field to sort by, or several; with a minus sign the greatest first. None, and where they are
                equal: as they were first written.
            limit: the most, up to 1,000.
            after: the `cursor` of the page before.

        Raises:
            UsageError: what is no condition, or no cursor of this question.
        """
        with self._asking() as collection:
            page = collection.find(condition, order=order, limit=limit, after=after or "")
        return Found([_row(each) for each in page.found], page.cursor or None)

    def each(self, condition: Condition = EVERYTHING) -> Iterator[Row]:
        """Every row that meets a condition; what is written meanwhile may be among them."""
        after = None
        while True:
            found = self.find(condition, after=after)
            yield from found.rows
            after = found.cursor
            if after is None:
                return

    def sums(
        self, by: str | None = None, *, of: str | None = None, condition: Condition = EVERYTHING
    ) -> dict[Any, Sums]:
        """How many rows there are, and what a field of theirs adds up to, by what is in another one.

        Args:
            by: the field that groups them, lists by their members; None: one group, under None.
            of: the field whose numbers are added up.
            condition: which rows.
        """
        with self._asking() as collection:
            return {each.by: each for each in collection.aggregate(of, by=by, condition=condition)}

    def count(self, condition: Condition = EVERYTHING) -> int:
        """How many rows meet a condition."""
        with self._asking() as collection:
            return collection.count(condition)

    def everywhere(
        self, condition: Condition = EVERYTHING, *, order: Order = (), limit: int = LIMIT, after: str | None = None
    ) -> Found:
        """The rows of all agents that have such a table, as the hub has them; see `find`.

        Raises:
            HubUnavailable: there is no hub, or it does not answer.
        """
        page = self._collection.everybody().find(condition, order=order, limit=limit, after=after or "")
        return Found([_row(each) for each in page.found], page.cursor or None)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[StoreCollection[Any]]:
        """The collection, declared; where the hub decides and is away, its error says what that means."""
        try:
            yield self._collection
        except HubUnavailable as error:
            if self._shared:
                error.hint = _AWAY
            raise


def collection_of(table: str) -> str:
    """The collection that a table lies in: of its own name, or of another where that is Holdfast's.

    Raises:
        UsageError: it is no name, or has a slash in it.
    """
    if not isinstance(table, str) or not table or "/" in table:
        raise UsageError(f"a table needs a name without a slash, got {table!r:.80}", hint="such as 'candidates'")
    return f"{table}_table" if is_ours(table) else table


def _row(item: Item[Any]) -> Row:
    return Row(item.key, item.value, item.version, item.agent)

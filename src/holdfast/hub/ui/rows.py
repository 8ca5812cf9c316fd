"""Values of a collection that meet a condition: by its indexes where there are some, else by looking at some of them.

No request looks at a whole collection: where no index helps, so many values are looked at, and the answer says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.corpus import Stored, index
from holdfast.errors import HoldfastError
from holdfast.hub.typed import Known
from holdfast.log import load
from holdfast.query import EVERYTHING, Condition, matches, tests_in
from holdfast.records import SEALED

if TYPE_CHECKING:
    from holdfast.hub.core import Core

LOOK_MAX: Final = 500
INLINE_MAX: Final = 64 << 10
"""A larger value is not read for a list."""


class Seen(msgspec.Struct):
    """A value that was found: whose it is, and where."""

    agent: str
    key: str
    value: Any


class Met(msgspec.Struct):
    """What was found: `whole`: all that there is was looked at."""

    found: list[Seen]
    whole: bool


def readable(core: Core, stored: Stored) -> Any:
    """The value of a record that is small and here; None if it is not."""
    if stored.gone or stored.is_blob or stored.body is None or stored.record.flags & SEALED:
        return None
    if stored.record.payload_len > INLINE_MAX:
        return None
    try:
        return load(stored, core.home.blobs)
    except HoldfastError:
        return None


def values(core: Core, agent: str, collection: str, *, after: str = "", most: int = LOOK_MAX) -> Iterator[Seen]:
    """The first values of an agent's collection in the order of their keys, as far as they can be read here."""
    for stored in core.corpus.keys(agent, collection, "", after, most):
        value = readable(core, stored)
        if value is not None:
            yield Seen(stored.agent, stored.record.key, value)


def indexed(known: Known | None, condition: Condition, order: tuple[str, ...] = ()) -> bool:
    """Whether the hub has an index for each field of a condition and an order."""
    if known is None or known.newest.sealed:
        return False
    fields = {test.field for test in tests_in(condition)} | {each.lstrip("-") for each in order}
    return bool(fields) and fields <= set(known.index)


def found(
    core: Core, agent: str | None, collection: str, condition: Condition = EVERYTHING, *,
    order: tuple[str, ...] = (), limit: int = 10,
) -> Met:  # fmt: skip
    """Values of one agent, or with an index of all, that meet a condition, in an order.

    Args:
        core: the hub.
        agent: whose; None: everybody's, which are found by an index or not at all.
        collection: where.
        condition: what they must meet.
        order: fields to sort by, with a minus the greatest first; where no index has them, of those looked at.
        limit: how many.
    """
    known = core.schemas.of(collection)
    if known is not None and indexed(known, condition, order):
        query = index.Query(
            collection=collection,
            agents=() if agent is None else (agent,),
            condition=condition,
            order=order,
            limit=limit,
        )
        page = index.find(core.corpus, query, lambda stored: load(stored, core.home.blobs))
        return Met([Seen(each.agent, each.record.key, readable(core, each)) for each in page.found], True)
    if agent is None:
        return Met([], known is None)
    looked = list(values(core, agent, collection, most=LOOK_MAX + 1))
    met = [each for each in looked[:LOOK_MAX] if isinstance(each.value, dict) and matches(condition, each.value)]
    for name in reversed(order):
        met.sort(key=_by(name.lstrip("-")), reverse=name.startswith("-"))
    return Met(met[:limit], len(looked) <= LOOK_MAX)


def _by(name: str) -> Callable[[Seen], str]:
    return lambda each: str(each.value.get(name) or "")

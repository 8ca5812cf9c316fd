"""Looking things up in a log that is here: a value as it is or as it was, and the messages that are still there."""

from __future__ import annotations

import itertools
from datetime import datetime

import msgspec

from holdfast import clock
from holdfast.corpus import Filter, Stored
from holdfast.errors import NotFound
from holdfast.log import Log

When = int | float | str | datetime
"""A version number, or a time: seconds since 1970 as a float, ISO 8601 text, a datetime."""


def newest(log: Log, collection: str, key: str) -> Stored:
    """The key's value in a log.

    Raises:
        NotFound: it has none.
    """
    stored = log.newest(collection, key)
    if stored is None:
        raise NotFound(f"{log.branch.agent} has nothing at {collection}/{key}", hint="holdfast ls shows what there is")
    return stored


def as_of(log: Log, collection: str, key: str, at: When) -> Stored:
    """The version that a number, or a time, names.

    Raises:
        NotFound: there is none, or it was deleted then.
    """
    if isinstance(at, int) and not isinstance(at, bool):
        return log.as_of(collection, key, version=at)
    return log.as_of(collection, key, stamp=clock.pack(clock.parse_time(at), clock.COUNTER_MAX))


def messages_in(log: Log, which: Filter) -> list[Stored]:
    """The records of the messages that a filter names and that are still there, in its order."""
    return log.corpus.page(msgspec.structs.replace(which, current=True))


def unshipped(log: Log, which: Filter, depth: int) -> list[Stored]:
    """Those of a log's newest messages that not every hub can have, newest first; `depth` records are to be shipped."""
    acked = log.corpus.head(log.branch.id).seq - depth
    mine = messages_in(log, msgspec.structs.replace(which, agents=(log.branch.agent,)))
    return list(itertools.takewhile(lambda stored: stored.record.seq > acked, mine))

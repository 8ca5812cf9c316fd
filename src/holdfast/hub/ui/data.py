"""The data browser: which collections there are, now or then; what is in one, and in a key of it, is next door."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from holdfast import clock
from holdfast.clock import iso
from holdfast.corpus.tally import began
from holdfast.errors import UsageError
from holdfast.hub.ui.pages import ROWS, DataAt
from holdfast.hub.ui.routes import Ask, View, no_page
from holdfast.hub.ui.usage import Pair, total

_FORM_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?")


class CollectionRow(msgspec.Struct):
    """A collection, or one agent's part of it; `keys` have a value now (null: not counted here)."""

    name: str
    agents: int
    records: int
    size: int
    day_records: int
    last_write: str | None
    keys: int | None = None
    more: bool = False


class Collections(msgspec.Struct):
    """Collections by name, those that had begun at a time if one is asked for; `next` goes into `after`."""

    collections: list[CollectionRow]
    next: str | None
    counted: float
    at: str | None = None


async def data(ask: Ask) -> View:
    """GET /data/…: collections, the keys of one, or one key, by how much the address names."""
    from holdfast.hub.ui import collection as one
    from holdfast.hub.ui import record

    asked: DataAt = ask.query
    parts = ask.parts
    if len(parts) > 2 or (len(parts) == 2 and asked.key is not None):
        raise no_page(ask.scope["path"])
    collection = parts[0] if parts else asked.collection
    key = parts[1] if len(parts) == 2 else asked.key
    await ask.front.usage().look()
    if collection is None:
        if key is not None:
            raise UsageError("a key without a collection", hint="name both")
        return await _collections(ask)
    ask.principal.check_read(collection)
    if asked.version and asked.at:
        raise UsageError("a version and a time at once", hint="give one of them")
    return await (one.shown(ask, asked, collection) if key is None else record.shown(ask, asked, collection, key))


async def _collections(ask: Ask) -> View:
    usage, now, most = ask.front.usage(), ask.core.home.wall.now_ms(), ROWS * ask.scale
    at = time_of(ask.query.at)
    groups: dict[str, list[Pair]] = {}
    for (_, collection), pair in usage.readable(ask.principal).items():
        groups.setdefault(collection, []).append(pair)
    names = sorted(name for name in groups if not ask.query.after or name > ask.query.after)
    following = names[most - 1] if len(names) > most else None
    names = names[:most]
    if at is not None:
        stamp = clock.pack(at, clock.COUNTER_MAX)
        corpus = ask.core.corpus
        names = await ask.core.read(lambda: [name for name in names if 0 < began(corpus, name) <= stamp])
    rows = [summed(name, groups[name], now) for name in names]
    shown = Collections(rows, following, round(usage.done, 3), iso(at) if at is not None else None)
    return View(template="data.html", title="Data", data=shown, rows="collections")


def summed(name: str, pairs: list[Pair], now: int) -> CollectionRow:
    """What was written, at a look."""
    whole = total(pairs, now)
    last = iso(whole.last_write) if whole.last_write else None
    return CollectionRow(name, len(pairs), whole.records, whole.size, whole.day_records, last)


def time_of(text: str) -> int | None:
    """The ms since 1970 that an address names; None: it names none.

    Raises:
        UsageError: it is no time.
    """
    if not text:
        return None
    # As it comes out of a form's field, in UTC unless it says another zone; a plus in an address is a space.
    if _FORM_TIME.fullmatch(text):
        text = (text if text.count(":") > 1 else f"{text}:00") + "Z"
    elif "T" in text:
        text = text.replace(" ", "+")
    return clock.parse_time(text)

"""One collection: its keys by their parts, as they are or as they were, and those whose values meet a condition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from holdfast import clock
from holdfast.clock import iso
from holdfast.corpus import Stored, index
from holdfast.corpus.tally import keys_within, live_keys, names
from holdfast.errors import NotFound, UsageError
from holdfast.hub.core import Core
from holdfast.hub.exchange import encode_json
from holdfast.hub.indexes import every
from holdfast.hub.ui.data import CollectionRow, summed, time_of
from holdfast.hub.ui.pages import ROWS, DataAt
from holdfast.hub.ui.routes import Ask, View
from holdfast.hub.ui.rows import LOOK_MAX, indexed, readable
from holdfast.hub.ui.usage import Pair
from holdfast.hub.ui.values import begins, note_of, size_of, value_of
from holdfast.log import load
from holdfast.log.hits import IndexStatus
from holdfast.query import Condition, matches, where

KEYS_MAX: Final = 10_000
FOLDER_MAX: Final = 1_000
AGENTS_SHOWN: Final = 200
FACET_LOOK: Final = 200
FACETS_MAX: Final = 6
FACET_VALUES: Final = 6
DISTINCT_MAX: Final = 40
"""A field with more values than these tells records apart, and does not sort them."""
PAST_STEPS: Final = 1_000
_LAST: Final = "\U0010ffff"
_SPLIT: Final = "\0"
"""Between an agent and a key in the cursor of a file; no name holds one."""
OPS: Final = {"eq": "is", "ge": "is at least", "le": "is at most", "starts": "starts with", "has": "has the member",
              "text": "has the words"}  # fmt: skip


class KeyRow(msgspec.Struct):
    """A key that has a value, and how the value begins."""

    key: str
    version: int
    time: str
    kind: str
    size: int
    note: str
    text: str
    agent: str


class Folder(msgspec.Struct):
    """Keys that begin alike, up to a slash: how many have a value, at least so many where `more`."""

    prefix: str
    keys: int
    more: bool


class Facet(msgspec.Struct):
    """What a field holds, in the values that were looked at: each as JSON, and how often."""

    field: str
    values: list[tuple[str, int]]


class Keys(msgspec.Struct, kw_only=True):
    """A collection: the agents that wrote into it, and the keys of one of them; `next` goes into `after`.

    `looked` says of how many values the facets were made; `field`, `op` and `value` are the condition that is asked
    for, `index` the fields that the hub finds quickly; `partial`: no index helped, so some of the keys behind `after`
    were looked at, and `next` goes on with the others. `vectors`: how its index stands, if it is found by meaning too.
    """

    collection: str
    agents: list[CollectionRow]
    agent: str
    prefix: str
    folders: list[Folder]
    keys: list[KeyRow]
    next: str | None
    counted: float
    at: str | None = None
    facets: list[Facet] = []
    looked: int = 0
    index: list[str] = []
    field: str = ""
    op: str = ""
    value: str = ""
    partial: bool = False
    vectors: IndexStatus | None = None


class Exported(msgspec.Struct):
    """A value as a file has it; `missing` says why there is none."""

    agent: str
    key: str
    version: int
    time: str
    kind: str
    author: str
    value: Any
    missing: str


class File(msgspec.Struct):
    """Some of the values of a collection, for a file."""

    values: list[Exported]
    next: str | None


class Part(msgspec.Struct):
    """What of a list was found, and behind what it goes on."""

    rows: list[Stored]
    next: str | None
    folders: list[Folder] = []
    partial: bool = False


async def shown(ask: Ask, asked: DataAt, collection: str) -> View:
    """The keys of a collection, or a file of its values."""
    usage, core, now = ask.front.usage(), ask.core, ask.core.home.wall.now_ms()
    mine: dict[str, Pair] = {a: pair for (a, each), pair in usage.readable(ask.principal).items() if each == collection}
    agent = asked.agent or (next(iter(mine)) if len(mine) == 1 else "")
    condition = _condition(asked)
    if asked.format:
        file = await core.read(lambda: _file(ask, asked, collection, [agent] if agent else sorted(mine), condition))
        return View(title=collection or "data", data=file, rows="values")
    at = time_of(asked.at)

    def look() -> Keys:
        rows = []
        for name in sorted(mine)[:AGENTS_SHOWN]:
            keys = live_keys(core.corpus, name, collection, KEYS_MAX + 1)
            row = summed(name, [mine[name]], now)
            rows.append(msgspec.structs.replace(row, keys=min(keys, KEYS_MAX), more=keys > KEYS_MAX))
        known = core.schemas.of(collection)
        found = _part(core, asked, collection, agent, condition, at, ROWS)
        facets, looked = _facets(core, agent, collection, asked.prefix) if agent and at is None else ([], 0)
        return Keys(
            collection=collection,
            agents=rows,
            agent=agent,
            prefix=asked.prefix,
            folders=found.folders,
            keys=[_row(core, each) for each in found.rows],
            next=found.next,
            counted=round(usage.done, 3),
            at=iso(at) if at is not None else None,
            facets=facets,
            looked=looked,
            index=[] if known is None else [each for each in known.index if not each.startswith("$")],
            field=asked.field,
            op=asked.op if asked.field else "",
            value=asked.value,
            partial=found.partial,
            vectors=next(iter(every(core, collection)), None) if at is None else None,
        )

    page = await core.read(look)
    if not page.agents and not page.keys and usage.done >= 1:
        raise NotFound(f"there is no collection {collection!r:.80}", hint="Data shows those that there are")
    extra = {"flat": asked.flat == "1", "ops": OPS}
    return View(template="collection.html", title=collection or "(no collection)", data=page, rows="keys", extra=extra)


def _part(
    core: Core, asked: DataAt, collection: str, agent: str, condition: Condition | None, at: int | None, most: int,
) -> Part:  # fmt: skip
    """What a page lists, by what its address asks for."""
    if condition is not None:
        if at is not None:
            raise UsageError("a condition and a time at once", hint="conditions are about values as they are now")
        if indexed(core.schemas.of(collection), condition):
            return _by_index(core, asked, collection, agent, condition, most)
        if not agent:
            raise UsageError(f"no index has the field {asked.field!r:.80}", hint="choose an agent first")
        return _by_looking(core, asked, collection, agent, condition, most)
    if not agent:
        return Part([], None)
    if at is not None:
        return _then(core, asked, collection, agent, at, most)
    if asked.flat == "1":
        found = core.corpus.keys(agent, collection, asked.prefix, asked.after, most + 1)
        return Part(found[:most], found[most - 1].record.key if len(found) > most else None)
    return _by_parts(core, asked, collection, agent, most)


# -- ways of listing ------------------------------------------------------------------------------------------------


def _by_parts(core: Core, asked: DataAt, collection: str, agent: str, most: int) -> Part:
    """The keys that go on behind the prefix without another slash, and of the others their beginnings."""
    prefix, at = asked.prefix, asked.after
    begin = prefix.rpartition("/")[0] + "/" if "/" in prefix else ""
    keys: list[str] = []
    folders: list[Folder] = []
    while len(keys) + len(folders) <= most:
        lot = names(core.corpus, agent, collection, (prefix, at), most + 1)
        for key in lot:
            rest = key[len(begin):]  # fmt: skip
            part, slash, _ = rest.partition("/")
            if slash and rest != "/":
                whole = f"{begin}{part}/"
                many = keys_within(core.corpus, agent, collection, whole, FOLDER_MAX + 1)
                if many > 1:  # to open it for one key would be a step for nothing
                    folders.append(Folder(whole, min(many, FOLDER_MAX), many > FOLDER_MAX))
                    at = whole + _LAST  # behind all that begin so
                    break
            keys.append(key)
            at = key
            if len(keys) + len(folders) > most:
                break
        else:
            if len(lot) <= most:
                return Part(_newest(core, agent, collection, keys), None, folders)
    # One too many was found: the page ends before it.
    if keys and keys[-1] == at:
        keys.pop()
    else:
        folders.pop()
    ends = sorted([*keys, *(f"{each.prefix}{_LAST}" for each in folders)])
    return Part(_newest(core, agent, collection, keys), ends[-1] if ends else None, folders)


def _newest(core: Core, agent: str, collection: str, keys: Sequence[str]) -> list[Stored]:
    return [found for key in keys if (found := core.corpus.newest(agent, collection, key)) is not None]


def _then(core: Core, asked: DataAt, collection: str, agent: str, at: int, most: int) -> Part:
    """The keys that had a value at a time, each in the version of then."""
    stamp = clock.pack(at, clock.COUNTER_MAX)
    rows: list[Stored] = []
    looked, after = 0, asked.after
    while True:
        lot = names(core.corpus, agent, collection, (asked.prefix, after), most + 1, gone=True)
        for number, key in enumerate(lot):
            if len(rows) == most or looked >= PAST_STEPS:
                return Part(rows, after, partial=len(rows) < most)
            for stored in core.corpus.versions(agent, collection, key):
                looked += 1
                if stored.record.hlc <= stamp:
                    if not stored.gone:
                        rows.append(stored)
                    break
                if looked >= PAST_STEPS and number:
                    return Part(rows, after, partial=True)
            after = key
        if len(lot) <= most:
            return Part(rows, None)


def _by_index(core: Core, asked: DataAt, collection: str, agent: str, condition: Condition, most: int) -> Part:
    query = index.Query(
        collection=collection,
        agents=(agent,) if agent else (),
        condition=condition,
        after=asked.after or None,
        limit=most,
    )
    found = index.find(core.corpus, query, lambda stored: load(stored, core.home.blobs))
    return Part(list(found.found), found.cursor or None)


def _by_looking(core: Core, asked: DataAt, collection: str, agent: str, condition: Condition, most: int) -> Part:
    found = core.corpus.keys(agent, collection, asked.prefix, asked.after, LOOK_MAX + 1)
    rows: list[Stored] = []
    for stored in found[:LOOK_MAX]:
        if len(rows) == most:
            return Part(rows, rows[-1].record.key)
        value = readable(core, stored)
        if isinstance(value, dict) and matches(condition, value):
            rows.append(stored)
    if len(found) > LOOK_MAX:
        return Part(rows, found[LOOK_MAX - 1].record.key, partial=True)
    return Part(rows, None)


def _condition(asked: DataAt) -> Condition | None:
    """What the address asks of the values; None: nothing.

    Raises:
        UsageError: it cannot be asked so.
    """
    if not asked.field:
        return None
    try:
        value = msgspec.json.decode(asked.value)
    except msgspec.DecodeError:
        value = asked.value
    if not isinstance(value, str | int | float | bool | None):
        raise UsageError(f"a field cannot be compared with {asked.value!r:.80}", hint="with a text, a number, true")
    field = where(asked.field)
    if asked.op in ("starts", "text"):
        return field.starts(asked.value) if asked.op == "starts" else field.text(asked.value)
    if asked.op in ("eq", "has"):
        return field.has(value) if value is not None else ~field.exists()
    if asked.op in ("ge", "le") and not isinstance(value, bool | None):
        return field >= value if asked.op == "ge" else field <= value
    raise UsageError(f"cannot ask whether a field {asked.op!r:.20} {asked.value!r:.80}", hint=", ".join(OPS))


# -- rows, facets, files --------------------------------------------------------------------------------------------


def _row(core: Core, stored: Stored) -> KeyRow:
    record = stored.record
    return KeyRow(
        key=record.key,
        version=record.key_version,
        time=clock.to_iso(record.hlc),
        kind=record.kind,
        size=size_of(stored),
        note=note_of(stored),
        text=begins(core, stored),
        agent=stored.agent,
    )


def _facets(core: Core, agent: str, collection: str, prefix: str) -> tuple[list[Facet], int]:
    """What the top-level fields of the first values hold, and how many values were looked at."""
    counts: dict[str, dict[str, int]] = {}
    looked = 0
    for stored in core.corpus.keys(agent, collection, prefix, "", FACET_LOOK):
        value = readable(core, stored)
        if not isinstance(value, dict):
            continue
        looked += 1
        for name, each in value.items():
            # A dot in a name would be asked for as a path.
            if isinstance(each, str | int | float | bool) and "." not in name and not name.startswith("$"):
                text = encode_json(each).decode("utf-8", "replace")
                if len(text) <= 80 and len(found := counts.setdefault(name, {})) <= DISTINCT_MAX:
                    found[text] = found.get(text, 0) + 1
    telling = {name: found for name, found in counts.items() if 1 <= len(found) <= DISTINCT_MAX}
    # Fields that part the values come first; one that is different everywhere parts nothing.
    kept = [name for name, found in telling.items() if len(found) < sum(found.values())]
    kept.sort(key=lambda name: (-sum(telling[name].values()), len(telling[name]), name))
    facets = [
        Facet(name, sorted(telling[name].items(), key=lambda each: (-each[1], each[0]))[:FACET_VALUES])
        for name in kept[:FACETS_MAX]
        if not _unaskable(name)
    ]
    return facets, looked


def _unaskable(name: str) -> bool:
    try:
        where(name)
    except UsageError:
        return True
    return False


def _file(ask: Ask, asked: DataAt, collection: str, agents: list[str], condition: Condition | None) -> File:
    """The next values of a collection, of one agent after the other."""
    core, at = ask.core, time_of(asked.at)
    agent, split, after = asked.after.partition(_SPLIT)
    if not split:  # the address begins it, perhaps behind a key
        agent, after = agents[0] if agents else "", asked.after
    if condition is not None and indexed(core.schemas.of(collection), condition):
        agents = [agents[0] if len(agents) == 1 else ""]
        agent = agents[0]
    wanted = msgspec.structs.replace(asked, after=after, flat="1")
    part = _part(core, wanted, collection, agent, condition, at, ROWS * ask.scale)
    following = None
    if part.next is not None:
        following = f"{agent}{_SPLIT}{part.next}"
    elif agent in agents and agents.index(agent) + 1 < len(agents):
        following = f"{agents[agents.index(agent) + 1]}{_SPLIT}"
    return File([exported(core, each, each.record.key) for each in part.rows], following)


def exported(core: Core, stored: Stored, key: str) -> Exported:
    """A version of a key as a file has it."""
    record, shown = stored.record, value_of(stored, core.home.blobs)
    value = {"base64": shown.value} if shown.encoding else shown.value
    time = clock.to_iso(record.hlc)
    author = record.author
    return Exported(stored.agent, key, record.key_version, time, record.kind, author, value, shown.missing)

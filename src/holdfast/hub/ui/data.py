"""The data browser: collections, their keys, and a key with its value, its past, and what changed in between."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import msgspec

from holdfast import clock
from holdfast.clock import iso
from holdfast.corpus import Stored
from holdfast.corpus.tally import live_keys
from holdfast.errors import Erased, HoldfastError, NotCached, NotFound, Sealed, UsageError
from holdfast.hub.judge import HUB_AGENT
from holdfast.hub.principal import WRITE, Principal
from holdfast.hub.routes_relay import PREFIX
from holdfast.hub.ui.differences import Difference, differences
from holdfast.hub.ui.pages import ROWS, DataAt
from holdfast.hub.ui.routes import Ask, View, no_page
from holdfast.hub.ui.usage import Pair, total
from holdfast.log import load
from holdfast.records import SEALED, read_blob_reference, stream_id

KEYS_MAX: Final = 10_000
VALUE_BYTES_MAX: Final = 256 << 10
VERSIONS_STEPS: Final = 20_000
AGENTS_SHOWN: Final = 200
_DIFF: Final = re.compile(r"(\d{1,18})\.\.(\d{1,18})")


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
    """Collections by name; `next` goes into `after`."""

    collections: list[CollectionRow]
    next: str | None
    counted: float


class KeyRow(msgspec.Struct):
    """A key that has a value."""

    key: str
    version: int
    time: str
    kind: str
    size: int
    note: str


class Keys(msgspec.Struct):
    """A collection: the agents that wrote into it, and the keys of one of them; `next` goes into `after`."""

    collection: str
    agents: list[CollectionRow]
    agent: str
    prefix: str
    keys: list[KeyRow]
    next: str | None
    counted: float


class Value(msgspec.Struct):
    """A value, or why it is not shown (`missing`: erased, sealed, evicted, quarantined, damaged, large, deleted)."""

    value: Any = None
    encoding: str = ""
    missing: str = ""
    says: str = ""
    digest: str = ""


class VersionRow(msgspec.Struct):
    """One version of a key; `current` is the newest."""

    version: int
    pos: int
    time: str
    kind: str
    author: str
    gone: bool
    etag: str
    size: int
    note: str
    reason: str
    current: bool


class Key(msgspec.Struct):
    """A key: the version that is shown with its value, the versions behind it, and what changed between two."""

    agent: str
    collection: str
    key: str
    shown: VersionRow | None
    shown_value: Value
    at: str | None
    versions: list[VersionRow]
    next: int | None
    diff: list[Difference] | None
    diff_more: bool
    diff_of: list[int]
    may_change: bool
    why_not: str


class Choice(msgspec.Struct):
    """A key that several agents have."""

    collection: str
    key: str
    agents: list[str]


async def data(ask: Ask) -> View:
    """GET /data/…: collections, the keys of one, or one key, by how much the address names."""
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
    return await (_keys(ask, collection) if key is None else _key(ask, collection, key))


# -- collections --------------------------------------------------------------------------------------------------


async def _collections(ask: Ask) -> View:
    usage, now = ask.front.usage(), ask.core.home.wall.now_ms()
    groups: dict[str, list[Pair]] = {}
    for (_, collection), pair in usage.readable(ask.principal).items():
        groups.setdefault(collection, []).append(pair)
    names = sorted(name for name in groups if not ask.query.after or name > ask.query.after)
    rows = [_summed(name, groups[name], now) for name in names[:ROWS]]
    following = names[ROWS - 1] if len(names) > ROWS else None
    shown = Collections(rows, following, round(usage.done, 3))
    return View(template="data.html", title="Data", data=shown)


def _summed(name: str, pairs: list[Pair], now: int) -> CollectionRow:
    whole = total(pairs, now)
    last = iso(whole.last_write) if whole.last_write else None
    return CollectionRow(name, len(pairs), whole.records, whole.size, whole.day_records, last)


async def _keys(ask: Ask, collection: str) -> View:
    asked: DataAt = ask.query
    usage, core, now = ask.front.usage(), ask.core, ask.core.home.wall.now_ms()
    mine = {agent: pair for (agent, each), pair in usage.readable(ask.principal).items() if each == collection}
    agent = asked.agent or (next(iter(mine)) if len(mine) == 1 else "")

    def look() -> tuple[list[CollectionRow], list[Stored]]:
        rows = []
        for name in sorted(mine)[:AGENTS_SHOWN]:
            row = _summed(name, [mine[name]], now)
            keys = live_keys(core.corpus, name, collection, KEYS_MAX + 1)
            rows.append(msgspec.structs.replace(row, keys=min(keys, KEYS_MAX), more=keys > KEYS_MAX))
        found = core.corpus.keys(agent, collection, asked.prefix, asked.after, ROWS + 1) if agent else []
        return rows, found

    rows, found = await core.read(look)
    if not rows and not found and usage.done >= 1:
        raise NotFound(f"there is no collection {collection!r:.80}", hint="Data shows those that there are")
    keys = [_key_row(each) for each in found[:ROWS]]
    following = keys[-1].key if len(found) > ROWS else None
    shown = Keys(collection, rows, agent, asked.prefix, keys, following, round(usage.done, 3))
    return View(template="collection.html", title=collection or "(no collection)", data=shown)


def _key_row(stored: Stored) -> KeyRow:
    record = stored.record
    return KeyRow(record.key, record.key_version, clock.to_iso(record.hlc), record.kind, _size(stored), note_of(stored))


def _size(stored: Stored) -> int:
    try:
        return read_blob_reference(stored.payload())[1] if stored.is_blob and stored.body else stored.record.payload_len
    except HoldfastError:
        return stored.record.payload_len


def note_of(stored: Stored) -> str:
    """What is special about how a value is kept; empty: nothing."""
    if stored.body is None:
        return ("lost", "evicted", "quarantined", "erased")[stored.why]
    if stored.record.flags & SEALED:
        return "sealed"
    return "blob" if stored.is_blob else ""


# -- one key ------------------------------------------------------------------------------------------------------


async def _key(ask: Ask, collection: str, key: str) -> View:
    core, asked = ask.core, ask.query
    agent = asked.agent
    if not agent:
        mine = [a for a, each in ask.front.usage().readable(ask.principal) if each == collection][:AGENTS_SHOWN]
        have = await core.read(lambda: [a for a in sorted(mine) if any(core.corpus.versions(a, collection, key))])
        if not have:
            raise NotFound(f"nobody has anything at {collection}/{key}", hint="Data shows what there is")
        if len(have) > 1:
            return View(template="choice.html", title=key, data=Choice(collection, key, have))
        agent = have[0]
    if asked.version and asked.at:
        raise UsageError("a version and a time at once", hint="give one of them")
    at = clock.parse_time(_as_time(asked.at)) if asked.at else None
    shown = await core.read(lambda: _look(ask, agent, collection, key, at))
    return View(template="key.html", title=key or "(the empty key)", data=shown, extra={"done": asked.done})


def _as_time(text: str) -> str:
    """A time as it comes out of a form's field (`2026-01-06T12:00`), in UTC unless it says another zone."""
    if re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?", text):
        return (text if text.count(":") > 1 else f"{text}:00") + "Z"
    return text.replace(" ", "+") if "T" in text else text


def _look(ask: Ask, agent: str, collection: str, key: str, at: int | None) -> Key:
    core, asked = ask.core, ask.query

    def past() -> Iterator[Stored]:
        return islice(core.corpus.versions(agent, collection, key), VERSIONS_STEPS)

    newest = next(past(), None)
    if newest is None:
        raise NotFound(f"{agent} never had anything at {collection}/{key}", hint="Data shows what there is")
    shown: Stored | None = newest
    if asked.version:
        shown = next((each for each in past() if _is(each, key, asked.version)), None)
        if shown is None:
            raise NotFound(
                f"{collection}/{key} has no version {asked.version}", hint="its versions are listed below it"
            )
    elif at is not None:
        stamp = clock.pack(at, clock.COUNTER_MAX)
        shown = next((each for each in past() if each.record.hlc <= stamp), None)
    listed = past()
    if asked.before:
        listed = (each for each in past() if each.pos < asked.before)
    rows = [_version_row(each, newest, core.home.blobs) for each in islice(listed, ROWS + 1)]
    diff, more, of = _diff(asked.diff, list(past()) if asked.diff else [], key, core.home.blobs)
    why_not = unchangeable(ask.principal, core, newest)
    return Key(
        agent=agent,
        collection=collection,
        key=key,
        shown=_version_row(shown, newest, core.home.blobs) if shown is not None else None,
        shown_value=value_of(shown, core.home.blobs) if shown is not None else Value(missing="deleted"),
        at=iso(at) if at is not None else None,
        versions=rows[:ROWS],
        next=rows[ROWS - 1].pos if len(rows) > ROWS else None,
        diff=diff,
        diff_more=more,
        diff_of=of,
        may_change=not why_not,
        why_not=why_not,
    )


def _is(stored: Stored, key: str, version: int) -> bool:
    return stored.record.key_version == version and stored.record.key == key


def _version_row(stored: Stored, newest: Stored, blobs: Any) -> VersionRow:
    record, reason = stored.record, ""
    if stored.gone:
        said = value_of(stored, blobs, gone=True).value
        reason = str(said.get("reason", "")) if isinstance(said, dict) else ""
    return VersionRow(
        version=record.key_version,
        pos=stored.pos,
        time=clock.to_iso(record.hlc),
        kind=record.kind,
        author=record.author,
        gone=stored.gone,
        etag=record.link.hex(),
        size=_size(stored),
        note=note_of(stored),
        reason=reason,
        current=stored.pos == newest.pos,
    )


def value_of(stored: Stored, blobs: Any, *, gone: bool = False) -> Value:
    """A record's value as a page can show it; never an error.

    Args:
        stored: the record.
        blobs: where large values are.
        gone: whether to show what a deletion holds (its reason).
    """
    if stored.gone and not gone:
        return Value(missing="deleted", says="it was deleted")
    try:
        if stored.is_blob and stored.body is not None and not stored.record.flags & SEALED:
            digest, size = read_blob_reference(stored.payload())
            if size > VALUE_BYTES_MAX:
                return Value(missing="large", says=f"{size:,} bytes, too many for a page", digest=digest.hex())
        found = load(stored, blobs)
    except Sealed as error:
        return Value(missing="sealed", says=error.hint)
    except Erased as error:
        return Value(missing="erased", says=error.hint)
    except NotCached as error:
        return Value(missing="evicted", says=error.message)
    except HoldfastError as error:
        return Value(missing="damaged" if stored.why == 0 else note_of(stored), says=error.message)
    if isinstance(found, bytes):
        return Value(value=base64.b64encode(found).decode(), encoding="base64")
    return Value(value=found)


def _diff(text: str, versions: list[Stored], key: str, blobs: Any) -> tuple[list[Difference] | None, bool, list[int]]:
    if not text:
        return None, False, []
    told = _DIFF.fullmatch(text)
    if told is None:
        raise UsageError(f"diff must be two versions, got {text!r:.80}", hint="such as ?diff=3..5")
    both = [int(told[1]), int(told[2])]
    values = []
    for version in both:
        stored = next((each for each in versions if _is(each, key, version)), None)
        if stored is None:
            raise NotFound(f"there is no version {version} of {key!r:.80}", hint="its versions are listed below it")
        shown = value_of(stored, blobs)
        values.append({"(not shown)": shown.missing} if shown.missing else shown.value)
    found = differences(*values)
    return found.places, found.more, both


def unchangeable(principal: Principal, core: Any, newest: Stored) -> str:
    """Why a key cannot be changed here by somebody; empty: it can.

    A key of a node's agent belongs to its log: written here as well it would have two pasts. What the hub wrote for
    plain clients (rows of tables, decided keys) is the hub's to change.
    """
    agent, collection = newest.agent, newest.record.collection
    if not principal.may(WRITE):
        return f"{principal} may not write: it needs the scope {WRITE}"
    own = newest.record.stream == stream_id(core.home.signer.public_key, agent)
    if not own or not (agent == HUB_AGENT or collection.startswith(PREFIX)):
        if own:
            return "it belongs to the storage service, which changes it by its own requests"
        return "it belongs to a node's log: change it there, with holdfast put, rm or rollback"
    try:
        principal.check_write(None if agent == HUB_AGENT else agent, collection)
    except HoldfastError as error:
        return error.message
    if newest.record.flags & SEALED:
        return "it is sealed"
    return ""

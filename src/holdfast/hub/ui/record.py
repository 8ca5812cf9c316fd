"""One key: its value, where it comes from, its past, and what changed in between."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import msgspec

from holdfast import clock
from holdfast.clock import iso
from holdfast.collections.typed.schema import ENDS
from holdfast.corpus import Stored
from holdfast.errors import HoldfastError, NotFound, UsageError
from holdfast.hub.judge import HUB_AGENT, check_decides
from holdfast.hub.principal import WRITE, Principal
from holdfast.hub.routes_relay import PREFIX
from holdfast.hub.ui.collection import AGENTS_SHOWN, Exported, exported
from holdfast.hub.ui.data import time_of
from holdfast.hub.ui.differences import Difference, differences
from holdfast.hub.ui.frame import pretty
from holdfast.hub.ui.pages import ROWS, DataAt
from holdfast.hub.ui.routes import Ask, View
from holdfast.hub.ui.rows import readable
from holdfast.hub.ui.values import Value, note_of, size_of, value_of
from holdfast.records import SEALED, ZERO32, stream_id

VERSIONS_STEPS: Final = 20_000
LINES_MAX: Final = 2_000
LINES_SHOWN: Final = 400
EXPIRY: Final = "expiry"
"""Where `holdfast.agents` keeps when a value of `state` is to go."""
STATE: Final = "state"
_DIFF: Final = re.compile(r"(\d{1,18})\.\.(\d{1,18})")
_WHAT: Final = {"+": "added", "-": "removed", "@": "place"}


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


class Line(msgspec.Struct):
    """A line of a comparison as text: `what` is same, added, removed, or the place where it goes on."""

    what: str
    text: str


class Provenance(msgspec.Struct):
    """Where a version comes from, and what it can be proven by: all of it stands in the signed chain of its log."""

    stream: str
    seq: int
    incarnation: str
    replaces: str
    payload_hash: str
    sealed_by: str
    through_hub: bool
    nodes: list[str]


class Key(msgspec.Struct):
    """A key: the version that is shown with its value, the versions behind it, and what changed between two."""

    agent: str
    collection: str
    key: str
    shown: VersionRow | None
    shown_value: Value
    provenance: Provenance | None
    ends: str | None
    at: str | None
    versions: list[VersionRow]
    next: int | None
    diff: list[Difference] | None
    diff_more: bool
    diff_of: list[int]
    lines: list[Line]
    may_change: bool
    why_not: str


class Choice(msgspec.Struct):
    """A key that several agents have."""

    collection: str
    key: str
    agents: list[str]


class Versions(msgspec.Struct):
    """The versions of a key, for a file."""

    versions: list[Exported]
    next: int | None


async def shown(ask: Ask, asked: DataAt, collection: str, key: str) -> View:
    """GET /data/{collection}/{key}: one agent's key, or whose there are; or a file of its versions."""
    core = ask.core
    agent = asked.agent
    if not agent:
        mine = [a for a, each in ask.front.usage().readable(ask.principal) if each == collection][:AGENTS_SHOWN]
        have = await core.read(lambda: [a for a in sorted(mine) if any(core.corpus.versions(a, collection, key))])
        if not have:
            raise NotFound(f"nobody has anything at {collection}/{key}", hint="Data shows what there is")
        if len(have) > 1:
            return View(template="choice.html", title=key, data=Choice(collection, key, have))
        agent = have[0]
    if asked.format:
        file = await core.read(lambda: _file(ask, asked, agent, collection, key))
        return View(title=key or "key", data=file, rows="versions")
    return await of(ask, asked, agent, collection, key)


async def of(ask: Ask, asked: DataAt, agent: str, collection: str, key: str) -> View:
    """The page of one agent's key."""
    at = time_of(asked.at)
    data = await ask.core.read(lambda: _look(ask, asked, (agent, collection, key), at))
    extra = {"done": asked.done, "tree": asked.view == "tree", "typed": None, "problem": None}
    return View(template="key.html", title=key or "(the empty key)", data=data, extra=extra)


def _look(ask: Ask, asked: DataAt, place: tuple[str, str, str], at: int | None) -> Key:
    core, blobs, (agent, collection, key) = ask.core, ask.core.home.blobs, place

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
    rows = [_version_row(each, newest, blobs) for each in islice(listed, ROWS + 1)]
    diff, more, of, lines = _diff(asked.diff, list(past()) if asked.diff else [], key, blobs)
    why_not = unchangeable(ask.principal, core, newest)
    return Key(
        agent=agent,
        collection=collection,
        key=key,
        shown=_version_row(shown, newest, blobs) if shown is not None else None,
        shown_value=value_of(shown, blobs) if shown is not None else Value(missing="deleted"),
        provenance=_provenance(core, shown, ask.principal) if shown is not None else None,
        ends=_ends(core, shown) if shown is not None and shown is newest else None,
        at=iso(at) if at is not None else None,
        versions=rows[:ROWS],
        next=rows[ROWS - 1].pos if len(rows) > ROWS else None,
        diff=diff,
        diff_more=more,
        diff_of=of,
        lines=lines,
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
        size=size_of(stored),
        note=note_of(stored),
        reason=reason,
        current=stored.pos == newest.pos,
    )


def _provenance(core: Any, stored: Stored, principal: Principal) -> Provenance:
    record = stored.record
    branch = core.corpus.branch(stored.branch)
    own = record.stream == stream_id(core.home.signer.public_key, stored.agent)
    nodes: list[str] = []
    if principal.reads_everything:
        nodes = [seen.node for seen in core.nodes.copy().values() if record.stream in seen.streams.values()]
    return Provenance(
        stream=record.stream.hex(),
        seq=record.seq,
        incarnation=branch.inc.hex() if branch is not None else "",
        replaces="" if record.base == ZERO32 else record.base.hex(),
        payload_hash=record.payload_hash.hex(),
        sealed_by=record.kid.hex() if record.flags & SEALED else "",
        through_hub=own,
        nodes=sorted(nodes),
    )


def _ends(core: Any, stored: Stored) -> str | None:
    """When a value is to go by itself, if it is."""
    value = readable(core, stored)
    ends = value.get(ENDS) if isinstance(value, dict) else None
    if ends is None and stored.record.collection == STATE:
        told = core.corpus.newest(stored.agent, EXPIRY, stored.record.key)
        said = readable(core, told) if told is not None else None
        if isinstance(said, dict) and said.get("version") == stored.record.key_version:
            ends = said.get("at")
    if isinstance(ends, bool) or not isinstance(ends, int | float):
        return None
    try:
        return iso(round(ends))
    except (HoldfastError, ValueError, OverflowError, OSError):
        return None  # a number, and no time


def _diff(
    text: str, versions: list[Stored], key: str, blobs: Any
) -> tuple[list[Difference] | None, bool, list[int], list[Line]]:
    if not text:
        return None, False, [], []
    told = _DIFF.fullmatch(text)
    if told is None:
        raise UsageError(f"diff must be two versions, got {text!r:.80}", hint="such as ?diff=3..5")
    both = [int(told[1]), int(told[2])]
    values: list[Any] = []
    for version in both:
        stored = next((each for each in versions if _is(each, key, version)), None)
        if stored is None:
            raise NotFound(f"there is no version {version} of {key!r:.80}", hint="its versions are listed below it")
        shown = value_of(stored, blobs)
        values.append({"(not shown)": shown.missing} if shown.missing else shown.value)
    found = differences(*values)
    return found.places, found.more, both, _lines(*values)


def _lines(before: Any, after: Any) -> list[Line]:
    """The same as text, line by line; nothing where that would be too long."""
    texts = [(each if isinstance(each, str) else pretty(each)).split("\n") for each in (before, after)]
    if max(map(len, texts)) > LINES_MAX:
        return []
    told = list(islice(difflib.unified_diff(texts[0], texts[1], lineterm="", n=2), 2, LINES_SHOWN + 3))
    lines = [Line(_WHAT.get(each[:1], "same"), each if each[:1] == "@" else each[1:]) for each in told[:LINES_SHOWN]]
    if len(told) > LINES_SHOWN:
        lines.append(Line("place", "…"))
    return lines


def _file(ask: Ask, asked: DataAt, agent: str, collection: str, key: str) -> Versions:
    """The next versions of a key, the newest first."""
    core, most = ask.core, ROWS * ask.scale
    behind = int(asked.after or 0)
    listed = islice(core.corpus.versions(agent, collection, key), VERSIONS_STEPS)
    found = list(islice((each for each in listed if not behind or each.pos < behind), most + 1))
    out = [exported(core, each, key) for each in found[:most]]
    return Versions(out, found[most - 1].pos if len(found) > most else None)


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
        if agent == HUB_AGENT:
            check_decides(principal, collection)
    except HoldfastError as error:
        return error.message
    if newest.record.flags & SEALED:
        return "it is sealed"
    return ""

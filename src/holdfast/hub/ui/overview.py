"""The Overview: what wants a person, how the nodes stand, whether the data is sound, safe, and how much there is."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from holdfast import clock
from holdfast.corpus import Filter, Stored
from holdfast.hub.figures import on_disk
from holdfast.hub.ui.routes import Ask, View
from holdfast.hub.ui.standing import NodeShown, Notice, nodes_for, notices
from holdfast.hub.ui.unread import unread_and_needing
from holdfast.hub.ui.usage import Pair, hourly, total
from holdfast.hub.ui.words import iso_if

TOP: Final = 8
LATEST: Final = 8


class Nodes(msgspec.Struct):
    """How many nodes stand how; `at_risk` are the records that only their disks hold."""

    total: int
    in_sync: int
    catching_up: int
    behind: int
    unreachable: int
    paused: int
    at_risk: int


class Scan(msgspec.Struct):
    """What the scan in the background has found; times are null where it never came so far."""

    on: bool
    last_turn: str | None
    last_round: str | None
    findings: int
    first: str


class Backup(msgspec.Struct):
    """How the backups stand."""

    made_here: bool
    verified: int
    newest_verified: str | None
    last_drill: str | None
    trouble: str


class Share(msgspec.Struct):
    """What an agent wrote, or what was written into a collection: since ever, and in the last 24 hours and 7 days."""

    name: str
    records: int
    size: int
    day_records: int
    day_size: int
    week_size: int


class Storage(msgspec.Struct):
    """How much there is: values before compression, without blobs; `counted` is the part that was looked at so far."""

    counted: float
    records: int
    size: int
    day_records: int
    day_size: int
    week_size: int
    on_disk: int | None
    disk_free: int | None
    disk_total: int | None
    agents: int
    collections: int
    by_agent: list[Share]
    by_collection: list[Share]


class Written(msgspec.Struct):
    """A record, without its value."""

    pos: int
    time: str
    agent: str
    collection: str
    key: str
    version: int
    kind: str
    gone: bool


class Overview(msgspec.Struct):
    """The whole page; `hours` are the records of each of the last 24 hours, the oldest first.

    `waiting` are messages that need a person, `unread` those that nobody has read (null to whom none come), both
    counted up to 1000; `whole`: whether he who asks sees all of the hub.
    """

    needs_you: list[Notice]
    waiting: int
    unread: int | None
    whole: bool
    nodes: Nodes
    scan: Scan
    backup: Backup
    storage: Storage
    hours: list[int]
    latest: list[Written]
    cursor: str


async def overview(ask: Ask) -> View:
    """GET /: everything at one look."""
    data = await found(ask)
    extra = {"badge": len(data.needs_you), "unread": data.unread}
    return View(template="overview.html", title="Overview", data=data, live="overview", extra=extra)


async def found(ask: Ask) -> Overview:
    """What the page shows."""
    core, principal = ask.core, ask.principal
    nodes = await nodes_for(ask)  # counts the records, too
    usage = ask.front.usage()
    pairs = usage.readable(principal)
    now = core.home.wall.now_ms()
    cursor = core.feed.cursor(core.feed.head)
    which = Filter(readable=principal.readable, limit=LATEST)
    latest = await core.read(lambda: core.corpus.page(which))
    space = await core.read(core.home.reserve.state)
    taken = await core.read(lambda: on_disk(core.home))
    unread, waiting = await unread_and_needing(ask)
    return Overview(
        needs_you=await notices(ask, nodes),
        waiting=waiting,
        unread=unread,
        whole=principal.reads_everything,
        nodes=summed(nodes),
        scan=_scan(core, principal.reads_everything),
        backup=_backup(core),
        storage=_storage(pairs, now, usage.done, (taken, space.free, space.total)),
        hours=hourly(list(pairs.values()), now),
        latest=[written(each) for each in latest],
        cursor=cursor,
    )


def summed(nodes: list[NodeShown]) -> Nodes:
    """How many stand how."""
    states = [node.state for node in nodes]
    return Nodes(
        total=len(nodes),
        in_sync=states.count("in-sync"),
        catching_up=states.count("catching-up"),
        behind=states.count("behind") + states.count("mismatch"),
        unreachable=states.count("unreachable") + states.count("inactive"),
        paused=states.count("paused"),
        at_risk=sum(node.at_risk for node in nodes),
    )


def written(stored: Stored) -> Written:
    """A record without its value."""
    record = stored.record
    return Written(
        pos=stored.pos,
        time=clock.to_iso(record.hlc),
        agent=stored.agent,
        collection=record.collection,
        key=record.key,
        version=record.key_version,
        kind=record.kind,
        gone=stored.gone,
    )


def _scan(core: Any, whole: bool) -> Scan:
    progress = core.scanning.progress
    findings = progress.findings if whole else []  # they name agents, and count what is hidden from some
    return Scan(
        on=core.options.scan_s > 0,
        last_turn=iso_if(progress.at_ms),
        last_round=iso_if(progress.round_ms),
        findings=len(findings) + (progress.left_out if whole else 0),
        first=str(findings[0]) if findings else "",
    )


def _backup(core: Any) -> Backup:
    made = core.backups
    if made is None:
        return Backup(False, 0, None, None, "")
    return Backup(True, made.verified, iso_if(made.newest_ms), iso_if(made.drilled_ms), made.trouble)


def _storage(
    pairs: dict[tuple[str, str], Pair], now: int, counted: float, disk: tuple[int | None, int, int]
) -> Storage:
    whole = total(list(pairs.values()), now)
    return Storage(
        counted=round(counted, 3),
        records=whole.records,
        size=whole.size,
        day_records=whole.day_records,
        day_size=whole.day_size,
        week_size=whole.week_size,
        on_disk=disk[0],
        disk_free=disk[1] if disk[2] else None,
        disk_total=disk[2] or None,
        agents=len({agent for agent, _ in pairs}),
        collections=len({collection for _, collection in pairs}),
        by_agent=shares(pairs, now, 0)[:TOP],
        by_collection=shares(pairs, now, 1)[:TOP],
    )


def shares(pairs: dict[tuple[str, str], Pair], now: int, by: int) -> list[Share]:
    """What falls to each agent (`by` 0) or collection (1), the largest first."""
    groups: dict[str, list[Pair]] = {}
    for at, pair in pairs.items():
        groups.setdefault(at[by], []).append(pair)
    out = []
    for name, each in groups.items():
        whole = total(each, now)
        out.append(Share(name, whole.records, whole.size, whole.day_records, whole.day_size, whole.week_size))
    return sorted(out, key=lambda share: (-share.size, share.name))

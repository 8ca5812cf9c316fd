"""Nodes and agents: how each stands, and what it wrote."""

from __future__ import annotations

import time

import msgspec

from holdfast.clock import iso
from holdfast.corpus import Filter, pages
from holdfast.corpus.tally import live_keys
from holdfast.hub.routes_health import hub_version
from holdfast.hub.ui.overview import Written, written
from holdfast.hub.ui.pages import ROWS
from holdfast.hub.ui.routes import Ask, View, no_page
from holdfast.hub.ui.standing import NodeShown, nodes_for
from holdfast.hub.ui.usage import total

LATEST = 20
KEYS_MAX = 10_000
PAIRS_SHOWN = 100


class HubShown(msgspec.Struct):
    """The hub itself: how much comes in, who listens, and its disk in bytes."""

    hub: str
    version: str
    generation: str
    pos: int
    uptime_s: float
    ingest_bytes_s: float
    commits: int
    listeners: int
    wal_pages: int
    disk_free: int | None
    disk_total: int | None


class NodesPage(msgspec.Struct):
    """The nodes, the worst first, and the hub."""

    nodes: list[NodeShown]
    hub: HubShown
    cursor: str


class Stream(msgspec.Struct):
    """An agent's log on a node: the number that it had reached by the node's last word, and how far it is here."""

    agent: str
    reached: int
    here: int
    behind: int


class NodePage(msgspec.Struct):
    """One node."""

    node: NodeShown
    streams: list[Stream]


class AgentRow(msgspec.Struct):
    """An agent: what it wrote, and the nodes that speak for it."""

    agent: str
    records: int
    size: int
    day_records: int
    last_write: str | None
    nodes: list[str]
    through_hub: bool


class AgentsPage(msgspec.Struct):
    """Agents by name; `next` goes into `after`."""

    agents: list[AgentRow]
    next: str | None
    counted: float


class Kept(msgspec.Struct):
    """A collection of an agent: its keys that have a value (at least so many where `more`), and what was written."""

    collection: str
    keys: int
    more: bool
    records: int
    size: int
    day_records: int
    last_write: str | None


class AgentPage(msgspec.Struct):
    """One agent."""

    agent: AgentRow
    streams: list[dict[str, object]]
    collections: list[Kept]
    latest: list[Written]


async def nodes(ask: Ask) -> View:
    """GET /nodes: every node, and what would be lost if its disk died now."""
    data = await found(ask)
    return View(template="nodes.html", title="Nodes", data=data, live="nodes")


async def found(ask: Ask) -> NodesPage:
    """What the page of nodes shows."""
    core = ask.core
    cursor = core.feed.cursor(core.feed.head)
    space = await core.read(core.home.reserve.state)
    hub = HubShown(
        hub=core.home.hub_id,
        version=hub_version(),
        generation=core.home.gen,
        pos=core.feed.head,
        uptime_s=round(time.monotonic() - core.started),
        ingest_bytes_s=round(core.meters.intake.rate(time.monotonic())),
        commits=core.writer.commits,
        listeners=core.feed.listeners,
        wal_pages=core.corpus.wal_pages,
        disk_free=space.free if space.total else None,
        disk_total=space.total or None,
    )
    return NodesPage(await nodes_for(ask), hub, cursor)


async def node(ask: Ask) -> View:
    """GET /nodes/{node}: one of them, with its agents."""
    name = _name(ask)
    for shown in await nodes_for(ask):
        if shown.node == name:
            break
    else:
        raise no_page(f"/nodes/{name}")
    seen = ask.core.nodes[name]
    behind = ask.core.heads.standing(seen).behind
    streams = []
    for agent in shown.agents:
        reached, lacking = seen.agents.get(agent, 0), behind.get(agent, 0)
        streams.append(Stream(agent, reached, reached - lacking, lacking))
    streams.sort(key=lambda stream: (-stream.behind, stream.agent))
    return View(template="node.html", title=name, data=NodePage(shown, streams))


async def agents(ask: Ask) -> View:
    """GET /agents: who writes here."""
    core, principal, after = ask.core, ask.principal, ask.query.after
    speaks = await _speakers(ask)

    def look() -> list[tuple[str, bool]]:
        if principal.readable:
            return [(name, False) for name in pages.writers(core.corpus, principal.readable, after, ROWS + 1)]
        own: dict[str, bool] = {}
        for row in pages.streams(core.corpus, after, ROWS + 1):
            own[row[0]] = own.get(row[0], False) or row[2]
        return list(own.items())

    names = await core.read(look)
    rows = [_row(ask, name, speaks, own) for name, own in names[:ROWS]]
    following = names[ROWS - 1][0] if len(names) > ROWS else None
    return View(
        template="agents.html", title="Agents", data=AgentsPage(rows, following, round(ask.front.usage().done, 3))
    )


async def agent(ask: Ask) -> View:
    """GET /agents/{agent}: what one of them wrote, and where."""
    core, principal, name = ask.core, ask.principal, _name(ask)
    speaks = await _speakers(ask)
    pairs = {at: pair for at, pair in ask.front.usage().readable(principal).items() if at[0] == name}
    largest = sorted(pairs, key=lambda at: -pairs[at].size)[:PAIRS_SHOWN]
    now = core.home.wall.now_ms()

    def look() -> tuple[list[dict[str, object]], list[Kept], list[Written]]:
        branches = core.corpus.branches(name)
        latest = core.corpus.page(Filter(agents=(name,), readable=principal.readable, limit=LATEST))
        if not branches or (principal.readable and not latest):
            raise no_page(f"/agents/{name}")
        kept = []
        for at in largest:
            keys, whole = live_keys(core.corpus, at[0], at[1], KEYS_MAX + 1), total([pairs[at]], now)
            last = iso(whole.last_write) if whole.last_write else None
            kept.append(
                Kept(at[1], min(keys, KEYS_MAX), keys > KEYS_MAX, whole.records, whole.size, whole.day_records, last)
            )
        streams: dict[bytes, dict[str, object]] = {}
        for each in branches if principal.reads_everything else ():
            streams[each.stream] = {"stream": each.stream.hex(), "through_hub": each.own}
        return list(streams.values()), kept, [written(each) for each in latest]

    streams, kept, latest = await core.read(look)
    row = _row(ask, name, speaks, any(stream["through_hub"] for stream in streams))
    return View(template="agent.html", title=name, data=AgentPage(row, streams, kept, latest))


async def _speakers(ask: Ask) -> dict[str, list[str]]:
    """Agent -> the nodes that speak for it."""
    found: dict[str, list[str]] = {}
    for shown in await nodes_for(ask):
        for name in shown.agents:
            found.setdefault(name, []).append(shown.node)
    return found


def _row(ask: Ask, name: str, speaks: dict[str, list[str]], own: bool) -> AgentRow:
    pairs = [pair for at, pair in ask.front.usage().readable(ask.principal).items() if at[0] == name]
    whole = total(pairs, ask.core.home.wall.now_ms())
    last = iso(whole.last_write) if whole.last_write else None
    return AgentRow(name, whole.records, whole.size, whole.day_records, last, speaks.get(name, []), own)


def _name(ask: Ask) -> str:
    if ask.query.name:
        return str(ask.query.name)
    if len(ask.parts) != 1:
        raise no_page(ask.scope["path"])
    return ask.parts[0]

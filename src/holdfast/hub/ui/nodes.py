"""Nodes: how each stands, what would be lost with it, and what can be asked of it."""

from __future__ import annotations

import time

import msgspec

from holdfast.clock import iso
from holdfast.hub.principal import ADMIN
from holdfast.hub.routes_health import hub_version
from holdfast.hub.ui.routes import Ask, View, no_page
from holdfast.hub.ui.standing import CacheShown, NodeShown, nodes_for

DONE = {
    "asked": "Asked. It tries again with its next word to this hub: within a minute, and at once while it ships.",
    "paused": "It pauses from its next word on, within a minute: it says hello, and ships nothing.",
    "resumed": "It goes on from its next word on, within a minute.",
    "forgotten": "Forgotten. What it shipped is still here; should it speak again, it is seen again.",
}


class HubShown(msgspec.Struct):
    """The hub itself: how much comes in, who listens, and its disk in bytes; `disk_full`: it takes no writes."""

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
    disk_full: bool


class Unseen(msgspec.Struct):
    """A node for which a token was made, and which never came."""

    name: str
    token: str
    made: str


class NodesPage(msgspec.Struct):
    """The nodes, the worst first, those that never came, and the hub."""

    nodes: list[NodeShown]
    unseen: list[Unseen]
    hub: HubShown
    cursor: str


class Stream(msgspec.Struct):
    """An agent's log on a node: the number that it had reached by the node's last word, and how far it is here."""

    agent: str
    reached: int
    here: int
    behind: int
    cache: CacheShown | None
    denied: str


class Refused(msgspec.Struct):
    """A payload that is on the node alone."""

    agent: str
    seq: int
    code: str
    reason: str


class NodePage(msgspec.Struct):
    """One node; `may_ask`: whoever looks may ask something of it."""

    node: NodeShown
    streams: list[Stream]
    refused: list[Refused]
    may_ask: bool


async def nodes(ask: Ask) -> View:
    """GET /nodes: every node, and what would be lost if its disk died now."""
    data = await found(ask)
    done = DONE.get(ask.query.done, "")
    return View(template="nodes.html", title="Nodes", data=data, live="nodes", rows="nodes", extra={"done": done})


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
        disk_full=not space.writable,
    )
    return NodesPage(await nodes_for(ask), await _unseen(ask), hub, cursor)


async def _unseen(ask: Ask) -> list[Unseen]:
    """Whoever may see tokens sees which of them no node has shown yet."""
    if not ask.principal.may(ADMIN):
        return []
    made = await ask.core.read(ask.core.gate.tokens.unused_by_nodes)
    return [Unseen(token.name, token.id, iso(token.made_ms)) for token in made]


async def node(ask: Ask) -> View:
    """GET /nodes/{node}: one of them, with its agents."""
    name = name_of(ask)
    shown = next((each for each in await nodes_for(ask) if each.node == name), None)
    seen = ask.core.nodes.get(name)
    if shown is None or seen is None:
        raise no_page(f"/nodes/{name}")
    heads = ask.core.heads
    behind, caches = heads.standing(seen).behind, {each.agent: each for each in shown.caches}
    streams = []
    for agent in shown.agents:
        reached, lacking = seen.agents.get(agent, 0), behind.get(agent, 0)
        denied = heads.denied.get(seen.streams.get(agent, b""), "")
        streams.append(Stream(agent, reached, reached - lacking, lacking, caches.get(agent), denied))
    streams.sort(key=lambda stream: (-stream.behind, stream.agent))
    told = seen.report.refused if seen.report is not None else []
    refused = [Refused(each.agent, each.seq, each.code, each.reason) for each in told if each.agent in shown.agents]
    data = NodePage(shown, streams, refused, ask.principal.may(ADMIN))
    return View(template="node.html", title=name, data=data, extra={"done": DONE.get(ask.query.done, "")})


def name_of(ask: Ask) -> str:
    """Whose page it is.

    Raises:
        NotFound: the path names nobody.
    """
    if ask.query.name:
        return str(ask.query.name)
    if len(ask.parts) != 1:
        raise no_page(ask.scope["path"])
    return ask.parts[0]

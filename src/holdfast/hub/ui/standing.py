"""How the nodes stand, in words; and what of the hub wants a person."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from holdfast.clock import iso
from holdfast.errors import IntegrityError
from holdfast.hub.options import Options
from holdfast.hub.principal import ADMIN
from holdfast.hub.routes_health import look
from holdfast.hub.seen import SeenNode, Standing
from holdfast.hub.ui.words import many, named_url, size_text, span_text
from holdfast.hub.wishes import NOTHING, Wanted
from holdfast.wire import Report

if TYPE_CHECKING:
    from holdfast.hub.ui.routes import Ask

FORKED_S: Final = 86_400.0
"""So long a page still says that a log went two ways, though both are kept and it goes on."""
PACE_MIN: Final = 0.05

State = Literal["in-sync", "catching-up", "behind", "mismatch", "paused", "unreachable", "inactive"]
WORDS: Final = {
    "in-sync": ("●", "In sync", "good"),
    "catching-up": ("▲", "Catching up", "warn"),
    "behind": ("■", "Behind", "bad"),
    "mismatch": ("⛔", "Chain mismatch", "bad"),
    "paused": ("⏸", "Paused", "quiet"),
    "unreachable": ("○", "Unreachable, nothing pending", "quiet"),
    "inactive": ("○", "Inactive", "quiet"),
    "never": ("?", "Never seen", "quiet"),
}
"""Shape, text and colour of each state: any one of them would be enough."""
ORDER: Final = ("behind", "mismatch", "catching-up", "paused", "unreachable", "in-sync", "inactive")


class CacheShown(msgspec.Struct):
    """What an agent's log takes on a node, in bytes, of how many it may (0: as many as it likes)."""

    agent: str
    used: int
    limit: int
    full: bool


class NodeShown(msgspec.Struct, kw_only=True):
    """A node as the pages show it.

    `at_risk` are records that would be lost with its disk, by its own last word, and `at_risk_bytes` about what they
    take; `rate` is in records a second, `eta_s` when it will have caught up at that rate. `as_of` is when a silent node
    last spoke: every figure of it is as of then. A `wish` is what somebody asked of it, `heard` whether it knows.
    Bytes that it does not tell are null.
    """

    node: str
    host: str = ""
    version: str = ""
    state: State
    says: str
    last_contact: str
    agents: list[str]
    at_risk: int
    at_risk_bytes: int | None = None
    lag_s: float
    rate: float = 0.0
    eta_s: float | None = None
    skew_s: float | None
    clock_off: bool
    last_write: str | None = None
    as_of: str | None = None
    cache_used: int | None = None
    cache_limit: int | None = None
    caches: list[CacheShown] = []
    disk_free: int | None = None
    disk_total: int | None = None
    disk_full: bool = False
    paused: bool = False
    wish: str = ""
    heard: bool = True
    forked: list[str] = []
    forked_at: str | None = None
    refusals: int = 0

    @property
    def name(self) -> str:
        """What people call it."""
        return self.host or self.node


class Notice(msgspec.Struct):
    """Something that wants a person: what, and where to look."""

    what: str
    where: str
    grave: bool = True


async def nodes_for(ask: Ask) -> list[NodeShown]:
    """The nodes that somebody may know of, the worst first; of agents, those that he may know of."""
    core, principal = ask.core, ask.principal
    now = core.home.wall.now_ms() / 1000
    standings = core.standings()
    visible: set[str] | None = None
    usage = ask.front.usage()
    with contextlib.suppress(IntegrityError):  # it stays as far as it came: pages have to say what is damaged
        await usage.look()
    if not principal.reads_everything:
        visible = {agent for agent, _ in usage.readable(principal)}
    wishes = await core.read(core.wishes.every) if standings else {}
    found = []
    for each in standings:
        behind = {a: n for a, n in each.behind.items() if visible is None or a in visible}
        seen = core.nodes.get(each.node)
        if seen is None or (visible is not None and not behind):
            continue
        shown = _shown(ask, each, seen, behind, wishes.get(each.node, NOTHING))
        stamp = max((usage.streams.get(s, 0) for s in seen.streams.values()), default=0) if visible is None else 0
        shown.last_write = iso(stamp >> 16) if stamp else None
        shown.as_of = shown.last_contact if now - each.seen_s > core.options.node_silent_s else None
        found.append(shown)
    return sorted(found, key=lambda node: (ORDER.index(node.state), node.node))


def _shown(ask: Ask, each: Standing, seen: SeenNode, behind: dict[str, int], wish: Wanted) -> NodeShown:
    core = ask.core
    now = core.home.wall.now_ms() / 1000
    pending, lag = sum(behind.values()), each.lag_s(now)
    heard, whole = seen.report_ms >= wish.at_ms, ask.principal.reads_everything
    forked = [agent for agent in seen.forks if agent in behind]
    denied = {a: core.heads.denied[s] for a, s in seen.streams.items() if a in behind and s in core.heads.denied}
    silent, limits = now - each.seen_s, core.options
    fresh = silent <= limits.node_silent_s
    state: State
    if wish.paused:
        by = f" by {wish.by}" if wish.by else ""
        state, says = "paused", f"paused{by} {span_text(now - wish.at_ms / 1000)} ago"
        says += f", with {many(pending, 'record')} that are nowhere else" if pending else ""
    elif forked and fresh:
        state, says = "mismatch", f"the log of {forked[0]} went another way than what is here; both ways are kept"
    elif denied and pending and fresh:
        agent, why = next(iter(denied.items()))
        state, says = "behind", f"this hub takes no records of {agent}: {why}"
    else:
        state, says = state_of(silent, pending, lag, limits)
    told: Report = seen.report or Report()
    caches = [
        CacheShown(agent, cache.used, cache.limit, cache.full)
        for agent, cache in sorted(told.caches.items())
        if agent in behind
    ]
    # What the node measured was all that it owed then; what is left of it is less by what has come since.
    rate = core.meters.intake.pace(each.node, time.monotonic())
    rate = round(rate, 1) if pending and rate >= PACE_MIN and state == "catching-up" else 0.0
    skew = each.skew_s
    return NodeShown(
        node=each.node,
        host=told.host,
        version=told.version,
        state=state,
        says=says,
        last_contact=iso(round(each.seen_s * 1000)),
        agents=sorted(behind),
        at_risk=pending,
        at_risk_bytes=told.owed_bytes if pending and told.owed_bytes and whole else None,
        lag_s=round(lag, 1),
        rate=rate,
        eta_s=round(pending / rate, 1) if rate else None,
        skew_s=skew,
        clock_off=skew is not None and abs(skew) > limits.node_skew_s,
        cache_used=sum(cache.used for cache in caches) if caches else None,
        cache_limit=sum(cache.limit for cache in caches) if caches and all(cache.limit for cache in caches) else None,
        caches=caches,
        disk_free=told.disk_free if told.disk_total else None,
        disk_total=told.disk_total or None,
        disk_full=told.disk_full,
        paused=wish.paused,
        wish=_wish(wish, heard),
        heard=heard,
        forked=forked,
        forked_at=iso(seen.forked_ms) if whole and now - seen.forked_ms / 1000 < FORKED_S else None,
        refusals=told.refusals if whole else 0,
    )


def _wish(wish: Wanted, heard: bool) -> str:
    """What a node was asked and has not heard of yet, in words."""
    if heard or not wish.at_ms:
        return ""
    return "it is to pause" if wish.paused else "it is to go on, and to try again"


def state_of(silent_s: float, pending: int, lag_s: float, limits: Options) -> tuple[State, str]:
    """A node's state, and what that means.

    Args:
        silent_s: since it last spoke to this hub.
        pending: records that it said it has and this hub has not.
        lag_s: the age of the oldest of them.
        limits: from when on it is silent, late, behind, inactive.
    """
    if silent_s > limits.node_silent_s:
        if pending:
            return "behind", f"silent for {span_text(silent_s)}, with {many(pending, 'record')} that are nowhere else"
        return (
            "inactive" if silent_s > limits.node_inactive_s else "unreachable"
        ), f"last seen {span_text(silent_s)} ago"
    if lag_s > limits.node_behind_s:
        return "behind", f"{many(pending, 'record')} behind, the oldest for {span_text(lag_s)}"
    if pending and lag_s > limits.node_lag_s:
        return "catching-up", f"{many(pending, 'record')} to come"
    return "in-sync", "everything that it wrote is here"


async def notices(ask: Ask, nodes: list[NodeShown]) -> list[Notice]:
    """What wants a person now, the gravest first."""
    checks, warnings = await look(ask.core)
    found = []
    for name, says in checks.items():
        if says != "ok":
            what = "Hub storage critical" if name == "disk" else f"the check of {name} fails"
            found.append(Notice(f"{what}: {says}", "/nodes" if name == "disk" else "/overview"))
    for node in nodes:
        where = named_url("nodes", node.node)
        if node.state == "behind":
            found.append(Notice(f"Sync lag: {node.name} is behind: {node.says}", where))
        elif node.state == "mismatch":
            found.append(Notice(f"Chain mismatch on {node.name}: {node.says}", where))
        found += [
            Notice(
                f"Cache full: {each.agent} on {node.name} takes {size_text(each.used)} of {size_text(each.limit)},"
                " and what it writes is refused",
                where,
            )
            for each in node.caches
            if each.full
        ]
        if node.disk_full:
            found.append(Notice(f"Disk full: {node.name} has {size_text(node.disk_free or 0)} left", where))
    for node in nodes:
        if node.clock_off:
            skew = node.skew_s or 0.0
            what = f"Clock off: {node.name} is {span_text(abs(skew))} {'ahead' if skew > 0 else 'behind'}"
            found.append(Notice(what, named_url("nodes", node.node), grave=False))
    if ask.principal.reads_everything:  # a warning may name what is hidden from others
        untold = ask.core.notifying.problems()
        for warning in warnings:
            where = "/settings" if warning in untold and ask.principal.may(ADMIN) else _where(warning)
            found.append(Notice(warning, where, grave=False))
    return found


def _where(warning: str) -> str:
    """The page that says more of a warning."""
    if warning.startswith("the scan found"):
        return "/integrity"
    return "/backups" if warning.startswith(("the last backup", "nothing settles")) else "/overview"

"""How the nodes stand, in words; and what of the hub wants a person."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from holdfast.clock import iso
from holdfast.errors import IntegrityError
from holdfast.hub.principal import ADMIN
from holdfast.hub.routes_health import look
from holdfast.hub.ui.words import many, named_url, span_text

if TYPE_CHECKING:
    from holdfast.hub.ui.routes import Ask

FRESH_S: Final = 150.0
"""An idle node says hello once a minute; two that are missing are a silence."""
LAG_S: Final = 5.0
BEHIND_S: Final = 300.0
INACTIVE_S: Final = 7 * 86_400.0
SKEW_S: Final = 2.0

State = Literal["in-sync", "catching-up", "behind", "unreachable", "inactive"]
WORDS: Final = {
    "in-sync": ("●", "In sync", "good"),
    "catching-up": ("▲", "Catching up", "warn"),
    "behind": ("■", "Behind", "bad"),
    "unreachable": ("○", "Unreachable, nothing pending", "quiet"),
    "inactive": ("○", "Inactive", "quiet"),
}
"""Shape, text and colour of each state: any one of them would be enough."""
ORDER: Final = ("behind", "catching-up", "unreachable", "in-sync", "inactive")


class NodeShown(msgspec.Struct):
    """A node as the pages show it; `at_risk` are records that would be lost with its disk, by its own last word."""

    node: str
    state: State
    says: str
    last_contact: str
    agents: list[str]
    at_risk: int
    lag_s: float
    skew_s: float | None
    clock_off: bool
    last_write: str | None = None


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
    found = []
    for each in standings:
        behind = {a: n for a, n in each.behind.items() if visible is None or a in visible}
        if visible is not None and not behind:
            continue
        silent, pending, lag = now - each.seen_s, sum(behind.values()), each.lag_s(now)
        state, says = state_of(silent, pending, lag)
        streams = core.nodes[each.node].streams if visible is None else {}
        stamp = max((usage.streams.get(stream, 0) for stream in streams.values()), default=0)
        skew = each.skew_s
        found.append(
            NodeShown(
                node=each.node,
                state=state,
                says=says,
                last_contact=iso(round(each.seen_s * 1000)),
                agents=sorted(behind),
                at_risk=pending,
                lag_s=round(lag, 1),
                skew_s=skew,
                clock_off=skew is not None and abs(skew) > SKEW_S,
                last_write=iso(stamp >> 16) if stamp else None,
            )
        )
    return sorted(found, key=lambda node: (ORDER.index(node.state), node.node))


def state_of(silent_s: float, pending: int, lag_s: float) -> tuple[State, str]:
    """A node's state, and what that means.

    Args:
        silent_s: since it last spoke to this hub.
        pending: records that it said it has and this hub has not.
        lag_s: the age of the oldest of them.
    """
    if silent_s > FRESH_S:
        if pending:
            return "behind", f"silent for {span_text(silent_s)}, with {many(pending, 'record')} that are nowhere else"
        return ("inactive" if silent_s > INACTIVE_S else "unreachable"), f"last seen {span_text(silent_s)} ago"
    if lag_s > BEHIND_S:
        return "behind", f"{many(pending, 'record')} behind, the oldest for {span_text(lag_s)}"
    if pending and lag_s > LAG_S:
        return "catching-up", f"{many(pending, 'record')} to come"
    return "in-sync", "everything that it wrote is here"


async def notices(ask: Ask, nodes: list[NodeShown]) -> list[Notice]:
    """What wants a person now, the gravest first."""
    checks, warnings = await look(ask.core)
    found = [Notice(f"the check of {name} fails: {says}", "/overview") for name, says in checks.items() if says != "ok"]
    for node in nodes:
        if node.state == "behind":
            found.append(Notice(f"{node.node} is behind: {node.says}", named_url("nodes", node.node)))
    for node in nodes:
        if node.clock_off:
            what = f"the clock of {node.node} is {span_text(abs(node.skew_s or 0))} off"
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

"""What a list of messages is narrowed by: the fields of its form, and the tokens among the words that are searched."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode

import msgspec

from holdfast import clock
from holdfast.collections.delivery import TABS
from holdfast.collections.mail_lists import PARTS_MAX, Sought, tabs_named
from holdfast.collections.messages import PEOPLE
from holdfast.errors import Denied, HoldfastError, NotFound, UsageError
from holdfast.hub.principal import INBOX, READ, Principal
from holdfast.hub.routes_mail import check_box, check_reader, own_box, reads_all
from holdfast.log.drafts import PRIORITIES

if TYPE_CHECKING:
    from holdfast.hub.core import Core
    from holdfast.hub.ui.pages import MessagesAt

EVERYBODY: Final = "*"
"""Where a box is named: all of them."""
LISTS: Final = {
    "needs": ("Needs you", ("unread", "read"), (1,)),
    "feed": ("Feed", ("unread", "read", "acknowledged", "done"), (0, 1)),
    "snoozed": ("Snoozed", ("snoozed",), (0, 1)),
    "done": ("Done", ("acknowledged", "done"), (0, 1)),
    "archived": ("Archived", ("archived",), (0, 1)),
}
"""The tabs of the page: what each is called, the states that it shows, and whether what wants nobody is among them."""
SPANS: Final = {"15m": 900, "1h": 3_600, "24h": 86_400, "7d": 604_800}
PRESSED: Final = "high+"
"""As a priority: high, and whatever is above it."""
STATES: Final = (*TABS, "open")
TOKENS: Final = {
    "from": "sender",
    "role": "role",
    "node": "node",
    "kind": "kind",
    "is": "state",
    "has": "has",
    "after": "since",
    "before": "until",
    "to": "to",
    "task": "task",
    "priority": "priority",
}
_TOKEN: Final = re.compile(r'(?<!\S)([a-z]+):("[^"]*"|\S+)')
_LOCAL: Final = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?)?")
_PASSING: Final = ("after", "as_of", "format", "done", "n", "undo")
"""Parameters that say where in the list somebody is, and not which list it is."""


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """What a list is narrowed by: fields and tokens together; `words` are what is left to be searched."""

    tab: str
    words: str
    to: str
    sender: str
    role: str
    node: str
    kind: str
    priority: str
    task: str
    time: str
    since: str
    until: str
    state: str
    has: str
    group: str


def filters_of(asked: MessagesAt) -> Filters:
    """The filters in an address: what a token says counts before the field of the same name.

    Raises:
        UsageError: a value that nothing can have.
    """
    fields = {name: getattr(asked, name).strip() for name in Filters.__struct_fields__ if name != "words"}
    fields["tab"] = fields["tab"] or "needs"

    def token(found: re.Match[str]) -> str:
        name = TOKENS.get(found[1])
        if name is None:
            return found[0]
        fields[name] = found[2].strip('"')
        return " "

    words = " ".join(_TOKEN.sub(token, asked.q).split())
    if fields["since"] or fields["until"]:
        fields["time"] = ""
    for name, known in (
        ("tab", tuple(LISTS)),
        ("state", ("", *STATES)),
        ("priority", ("", PRESSED, *PRIORITIES)),
        ("time", ("", "custom", *SPANS)),
        ("has", ("", "artifact")),
    ):
        if fields[name] not in known:
            said = {"state": "is"}.get(name, name)
            raise UsageError(
                f"{said} cannot be {fields[name]!r:.40}", hint=f"one of {', '.join(each for each in known if each)}"
            )
    return Filters(words=words, **fields)


def boxes_of(principal: Principal, to: str) -> tuple[str, ...] | None:
    """The inboxes that somebody looks into; None: everybody's.

    Args:
        principal: who looks.
        to: whose he asks for; empty: his own, that of people, and what is addressed to nobody.

    Raises:
        Denied: they are not for him.
    """
    if to == EVERYBODY:
        if not reads_all(principal):
            raise Denied(f"{principal} may not read everybody's mail", hint="each reads what is addressed to him")
        return None
    if to:
        check_box(principal, to)
        return (to,)
    found = mine(principal)
    if not found:
        raise Denied(f"{principal} has no inbox here", hint="sign in as a person, or with a token that reads messages")
    return found


def mine(principal: Principal) -> tuple[str, ...]:
    """The inboxes that are somebody's own; empty: there is none, or he may not look."""
    if not (principal.may(READ) or principal.may(INBOX)):
        return ()
    found = ["", PEOPLE] if reads_all(principal) else [PEOPLE] if own_box(principal, PEOPLE) else []
    if principal.name not in found and own_box(principal, principal.name):
        found.append(principal.name)
    return tuple(found)


def reader_of(principal: Principal, to: str) -> str:
    """In whose name somebody acts in the inbox that he looks into."""
    himself = principal.name or PEOPLE
    return to if to not in ("", EVERYBODY, PEOPLE, himself) else himself


def may_act(principal: Principal, to: str) -> bool:
    """Whether somebody may say how far he is with what lies in an inbox."""
    try:
        check_reader(principal, reader_of(principal, to))
    except HoldfastError:
        return False
    return True


def sought_of(core: Core, principal: Principal, filters: Filters, *, folded: bool = True) -> Sought:
    """What the corpus is asked for.

    Args:
        core: the hub.
        principal: who asks.
        filters: what he asks for.
        folded: whether repeats are one row.

    Raises:
        Denied: an inbox that is not for him.
        NotFound: a node that has not spoken to this hub.
        UsageError: a time that is none.
    """
    _, tabs, needs = LISTS[filters.tab]
    if filters.state:
        tabs = ("unread", "read") if filters.state == "open" else (filters.state,)
    senders: tuple[str, ...] = (filters.sender,) if filters.sender else ()
    if filters.node:
        there = _agents_of(core, principal, filters.node)
        # No agent has an empty name: of a node without the sender nothing is found.
        senders = there if not senders else senders if filters.sender in there else ("",)
    priorities: tuple[int, ...] = ()
    if filters.priority:
        first = PRIORITIES.index(filters.priority.removesuffix("+"))
        priorities = tuple(range(first, len(PRIORITIES))) if filters.priority == PRESSED else (first,)
    since, until = _span(core, filters)
    return Sought(
        boxes=boxes_of(principal, filters.to),
        tabs=tabs_named(tabs),
        needs=needs,
        senders=senders,
        kinds=(filters.kind,) if filters.kind else (),
        roles=(filters.role,) if filters.role else (),
        tasks=(filters.task,) if filters.task else (),
        priorities=priorities,
        artifact=filters.has == "artifact",
        dedupe=filters.group or None,
        since=since,
        until=until,
        folded=folded and not filters.group,
    )


def _agents_of(core: Core, principal: Principal, node: str) -> tuple[str, ...]:
    seen = core.nodes.get(node) if principal.reads_everything else None
    if seen is None:
        raise NotFound(f"no node {node!r:.80} has spoken to this hub", hint="Nodes shows those that have")
    agents = tuple(sorted(seen.agents))[: 10 * PARTS_MAX]
    return agents or ("",)


def _span(core: Core, filters: Filters) -> tuple[int, int]:
    """The positions of what came to the hub in the time asked for: a list is in the order of arrival, as is this."""
    since = until = None
    if filters.time in SPANS:
        since = core.home.wall.now_ms() - SPANS[filters.time] * 1000
    if filters.since:
        since = moment_ms(filters.since)
    if filters.until:
        until = moment_ms(filters.until)
    # What had arrived by when is noted every five seconds of writing: so much more than was asked for may be shown.
    one, by = core.corpus.one, "SELECT pos FROM arrival WHERE at_ms"
    first = one(f"{by}<=? ORDER BY at_ms DESC LIMIT 1", (since,)) if since is not None else None
    last = one(f"{by}>? ORDER BY at_ms LIMIT 1", (until,)) if until is not None else None
    return (first[0] if first else 0), (last[0] if last else 1 << 62)


def moment_ms(text: str) -> int:
    """A time as a field or a token has it, in ms since 1970: in UTC unless it says another zone.

    Raises:
        UsageError: it is none.
    """
    if _LOCAL.fullmatch(text):
        day, _, hour = text.partition("T")
        hour = hour or "00:00"
        text = f"{day}T{hour if hour.count(':') > 1 else hour + ':00'}Z"
    return clock.parse_time(text)


def query_of(asked: MessagesAt, **changes: Any) -> str:
    """The query of the same list, with some parameters changed; without its place."""
    found = {}
    for name, said in zip(asked.__struct_fields__, asked.__struct_encode_fields__, strict=True):
        if name not in _PASSING:
            found[said] = getattr(asked, name)
    found |= changes
    return urlencode({name: value for name, value in found.items() if value not in ("", 0, None)})


def asked_in(query: str) -> MessagesAt:
    """The list that a query names.

    Raises:
        UsageError: it names none.
    """
    from holdfast.hub.ui.pages import MessagesAt

    names = MessagesAt.__struct_encode_fields__
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=50)
        return msgspec.convert({n: v for n, v in pairs if n in names and v}, MessagesAt, strict=False)
    except (ValueError, msgspec.ValidationError) as error:
        raise UsageError(f"this is no list of messages: {error}", hint="begin at /messages") from error

"""Messages: what agents report and ask, in tabs, narrowed, the newest first."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.collections import mail_lists
from holdfast.collections.mail_lists import Listed
from holdfast.errors import HoldfastError, NotFound, UsageError
from holdfast.hub.exchange import encode_json
from holdfast.hub.routes_mail import reads_all, ready
from holdfast.hub.ui.messages_act import SAID, SNOOZES
from holdfast.hub.ui.messages_filters import (
    EVERYBODY,
    LISTS,
    PRESSED,
    SPANS,
    Filters,
    asked_in,
    boxes_of,
    filters_of,
    may_act,
    mine,
    query_of,
    reader_of,
    sought_of,
)
from holdfast.hub.ui.messages_filters import STATES as STATE_NAMES
from holdfast.hub.ui.messages_rows import STATES, Row, message_url, rows_of, to_says
from holdfast.hub.ui.routes import Ask, View
from holdfast.hub.ui.views import EVERYBODYS, PRESETS, SavedView, saved
from holdfast.log.drafts import PRIORITIES

if TYPE_CHECKING:
    from holdfast.hub.core import Core
    from holdfast.hub.ui.pages import MessagesAt

ROWS: Final = 20
"""What one page shows: with more, the first page of all would be above 100 kB."""
NAMES_S: Final = 10
"""How long the names that filters offer are kept."""
COUNTED: Final = {
    **mail_lists.NEEDS,
    "snoozed": [(4, 0), (4, 1)],
    "done": [(2, 0), (2, 1), (3, 0), (3, 1)],
    "archived": [(5, 0), (5, 1)],
    **mail_lists.UNREAD,
}
"""The tabs that are counted, as (tab, needs) of `mailbox`, and what is unread in all of them."""


class MessagesPage(msgspec.Struct):
    """A page of messages, the newest first.

    `next` goes into `after`, null is the end; with `cut` the hub has looked that far and there may be more. `as_of` is
    the newest position that was looked at. `counts` are at most 1000. `problem` says why there are no rows.
    """

    tab: str
    counts: dict[str, int]
    rows: list[Row]
    next: int | None
    cut: bool
    partial: bool
    as_of: int
    cursor: str
    filters: Filters | None
    problem: str
    reader: str
    may_act: bool
    views: list[SavedView]


class Offered(msgspec.Struct):
    """Names that the filters offer."""

    kinds: list[str] = []
    roles: list[str] = []
    agents: list[str] = []
    nodes: list[str] = []


async def messages(ask: Ask) -> View:
    """GET /messages: a tab of an inbox, or an export of all that it holds."""
    asked: MessagesAt = ask.query
    if asked.format:
        from holdfast.hub.ui.messages_export import export

        return await export(ask)
    status = 200
    try:
        data = await found(ask, asked)
    except (UsageError, NotFound) as error:  # what was typed stays, and so do the tabs
        data, status = await _nothing(ask, asked, f"{error.message}: {error.hint}"), error.status
    return View(
        template="messages.html",
        title="Messages",
        data=data,
        live="messages" if status == 200 else "",
        status=status,
        extra=await _around(ask, asked, data),
    )


async def found(ask: Ask, asked: MessagesAt) -> MessagesPage:
    """What the page shows.

    Raises:
        Denied: an inbox that is not for him.
        NotFound: a node that has not spoken to this hub.
        UsageError: a filter that nothing can pass.
    """
    core, principal = ask.core, ask.principal
    filters = filters_of(asked)
    boxes = boxes_of(principal, filters.to)
    partial = not await ready(core, boxes or mine(principal), core.home.wall.now_ms())

    def look() -> MessagesPage:
        as_of = core.corpus.last()
        page, sought = listed(core, ask, asked, filters, ROWS)
        keys = list({mail.dedupe for mail, _ in page.rows if mail.dedupe}) if sought.folded else []
        rows = rows_of(core, principal, page.rows, mail_lists.repeats(core.corpus, sought, keys))
        return MessagesPage(
            tab=filters.tab,
            counts=mail_lists.counts(core.corpus, boxes, COUNTED),
            rows=rows,
            next=page.next,
            cut=page.cut,
            partial=partial or page.partial,
            as_of=min(as_of, asked.as_of) if asked.as_of else as_of,
            cursor=core.feed.cursor(as_of),
            filters=filters,
            problem="",
            reader=reader_of(principal, filters.to),
            may_act=filters.to != EVERYBODY and may_act(principal, filters.to),
            views=saved(core, principal),
        )

    return await core.read(look)


def listed(core: Core, ask: Ask, asked: MessagesAt, filters: Filters, limit: int) -> tuple[Listed, mail_lists.Sought]:
    """A page of what was asked for, and what that was; for threads.

    Args:
        core: the hub.
        ask: who asks.
        asked: for which page.
        filters: of the list.
        limit: rows at most.
    """
    sought = sought_of(core, ask.principal, filters)
    if asked.as_of:
        sought = msgspec.structs.replace(sought, until=min(sought.until, asked.as_of))
    below = asked.after or 1 << 62
    if filters.words:
        return mail_lists.searched(core.corpus, sought, filters.words, below, limit), sought
    return mail_lists.listed(core.corpus, sought, below, limit), sought


async def _nothing(ask: Ask, asked: MessagesAt, problem: str) -> MessagesPage:
    core, boxes = ask.core, mine(ask.principal)

    def look() -> MessagesPage:
        last = core.corpus.last()
        counted = mail_lists.counts(core.corpus, boxes, COUNTED) if boxes else {}
        return MessagesPage(
            tab=asked.tab if asked.tab in LISTS else "needs",
            counts=counted,
            rows=[],
            next=None,
            cut=False,
            partial=False,
            as_of=last,
            cursor=core.feed.cursor(last),
            filters=None,
            problem=problem,
            reader="",
            may_act=False,
            views=saved(core, ask.principal),
        )

    return await core.read(look)


async def _around(ask: Ask, asked: MessagesAt, data: MessagesPage) -> dict[str, Any]:
    """What the template is given beside the page's data."""
    principal = ask.principal
    everything = reads_all(principal)
    query = query_of(asked)
    narrowed = [name for name in ("q", "sender", "role", "node", "kind", "priority", "task", "time", "since", "until")]
    narrowed = [name for name in (*narrowed, "state", "has", "group") if getattr(asked, name)]
    return {
        "asked": asked,
        "query": query,
        "script": "messages.js",
        "lists": LISTS,
        "looks": STATES,
        "states_known": STATE_NAMES,
        "priorities": (PRESSED, *reversed(PRIORITIES)),
        "spans": SPANS,
        "snoozes": SNOOZES,
        "everybody": EVERYBODY,
        "dones": ["undone", *(done for _, done in SAID.values())],
        "everything": everything,
        "presets": (*PRESETS, EVERYBODYS) if everything else PRESETS,
        "offered": await _offered(ask) if everything else Offered(),
        "nodes_shown": principal.reads_everything,
        "narrowed": narrowed,
        "unread": data.counts.get("unread", 0) if not asked.to else None,
        "mark": mark_of(data),
        "live_view": query,
        "query_with": lambda **changes: query_of(asked, **changes),
        "message_url": message_url,
        "to_says": to_says,
        "after": asked.after,
    }


def mark_of(data: MessagesPage) -> str:
    """What changes whenever a page shows anything else."""
    return hashlib.sha256(encode_json((data.rows, data.counts))).hexdigest()[:16]


async def _offered(ask: Ask) -> Offered:
    kept, core = ask.front.kept, ask.core
    found: tuple[int, Offered] = kept.get("messages.offered", (0, Offered()))
    until, offered = found
    now = core.home.wall.now_ms()
    if not now < until <= now + NAMES_S * 1000:

        def look() -> Offered:
            kinds, roles, agents = (mail_lists.names(core.corpus, column) for column in mail_lists.FACETS)
            return Offered(kinds, roles, agents, sorted(core.nodes)[: mail_lists.NAMES_MAX])

        offered = await core.read(look)
        kept["messages.offered"] = (now + NAMES_S * 1000, offered)
    return offered


async def news(ask: Ask, view: str) -> MessagesPage | None:
    """The first page of the list that somebody looks at; None where there is no such list any more."""
    try:
        return await found(ask, asked_in(view))
    except HoldfastError:
        return None

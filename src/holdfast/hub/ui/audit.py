"""The audit trail: who did what to this hub, when, by which way; filtered, and taken along as a file."""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.hub.acts import WAYS, WHATS
from holdfast.hub.routes_audit import ActShown, page, shown
from holdfast.hub.ui.exports import attached, written
from holdfast.hub.ui.pages import ROWS
from holdfast.hub.ui.routes import Ask, View
from holdfast.hub.ui.words import with_query

EXPORTED: Final = 10_000
"""Acts in one file; it says where the next begins."""


class AuditPage(msgspec.Struct):
    """Acts, the newest first; `next` goes into `before`."""

    acts: list[ActShown]
    who: str
    done: str
    since: str
    until: str
    next: str | None


async def audit(ask: Ask) -> View:
    """GET /audit: what was done, by whom."""
    ask.principal.need_everything()
    query = ask.query
    found, following = await page(ask.core, query, ROWS)
    data = AuditPage(
        acts=[shown(each) for each in found],
        who=query.who,
        done=query.what,
        since=query.since,
        until=query.until,
        next=following,
    )
    return View(template="audit.html", title="Audit", data=data, extra={"whats": WHATS, "ways": WAYS})


async def export(ask: Ask) -> View:
    """GET /audit/export: the acts that a filter leaves, as a file; `Link` says where the next one begins."""
    ask.principal.need_everything()
    query = ask.query
    made = written(query.form, ActShown.__struct_fields__)
    found, following = await page(ask.core, query, EXPORTED)
    data = await ask.core.read(lambda: made.lines([shown(each) for each in found]))
    onwards = ""
    if following is not None:
        asked = {name: getattr(query, name) for name in ("form", "who", "what", "since", "until")}
        onwards = with_query("/audit/export", **asked, before=following)
    return attached("audit", query.form, data, onwards)

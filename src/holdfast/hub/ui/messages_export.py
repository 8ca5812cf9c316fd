"""A list of messages as a file: CSV for tables, JSON lines with all that was said."""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.collections import mail_lists
from holdfast.hub.routes_mail import ready
from holdfast.hub.ui.exports import attached, written
from holdfast.hub.ui.messages_filters import boxes_of, filters_of, mine, query_of, sought_of
from holdfast.hub.ui.messages_rows import rows_of
from holdfast.hub.ui.routes import Ask, View

MOST: Final = 10_000
LOT: Final = 200
BYTES_MAX: Final = 32 << 20
_COLUMNS: Final = (
    *("id", "time", "sender", "to", "kind", "priority", "state", "needs"),
    *("task", "role", "node", "content"),
)


async def export(ask: Ask) -> View:
    """GET /messages?format=csv or jsonl: what the list holds, the newest first; a Link header leads to what is left.

    Raises:
        UsageError: another format, or a filter that nothing can pass.
    """
    asked, core = ask.query, ask.core
    made = written(asked.format, _COLUMNS)
    filters = filters_of(asked)
    boxes = boxes_of(ask.principal, filters.to)
    await ready(core, boxes or mine(ask.principal), core.home.wall.now_ms())

    def look(below: int) -> tuple[int | None, bytes, int]:
        sought = sought_of(core, ask.principal, filters, folded=False)
        if asked.as_of:
            sought = msgspec.structs.replace(sought, until=min(sought.until, asked.as_of))
        if filters.words:
            page = mail_lists.searched(core.corpus, sought, filters.words, below, LOT)
        else:
            page = mail_lists.listed(core.corpus, sought, below, LOT)
        rows = rows_of(core, ask.principal, page.rows, {}, whole=True)
        return page.next, made.lines(rows), len(page.rows)

    following: int | None = asked.after or 1 << 62
    out, count = bytearray(), 0
    while following is not None and count < MOST and len(out) < BYTES_MAX:
        following, lines, more = await core.read(lambda at=following: look(at))  # type: ignore[misc]
        out += lines
        count += more
    onwards = ""
    if following is not None:
        onwards = f"/messages?{query_of(asked, after=following, format=asked.format)}"
    return attached("messages", asked.format, bytes(out), onwards)

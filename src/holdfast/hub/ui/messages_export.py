"""A list of messages as a file: CSV for tables, JSON lines with all that was said."""

from __future__ import annotations

import csv
import io
import json
from typing import Final

import msgspec

from holdfast.collections import mail_lists
from holdfast.errors import UsageError
from holdfast.hub.routes_mail import ready
from holdfast.hub.ui.exports import KINDS, cell
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
    if asked.format not in KINDS:
        raise UsageError(f"no export as {asked.format!r:.20}", hint="csv or jsonl")
    filters = filters_of(asked)
    boxes = boxes_of(ask.principal, filters.to)
    await ready(core, boxes or mine(ask.principal), core.home.wall.now_ms())
    out = io.StringIO(newline="")
    table = csv.writer(out)
    if asked.format == "csv":
        table.writerow(_COLUMNS)
    below, count = asked.after or 1 << 62, 0

    def look(below: int) -> tuple[int | None, int]:
        sought = sought_of(core, ask.principal, filters, folded=False)
        if asked.as_of:
            sought = msgspec.structs.replace(sought, until=min(sought.until, asked.as_of))
        if filters.words:
            page = mail_lists.searched(core.corpus, sought, filters.words, below, LOT)
        else:
            page = mail_lists.listed(core.corpus, sought, below, LOT)
        for row in rows_of(core, ask.principal, page.rows, {}, whole=True):
            if asked.format == "csv":
                table.writerow([cell(getattr(row, name)) for name in _COLUMNS])
            else:
                out.write(json.dumps(msgspec.to_builtins(row), ensure_ascii=False) + "\n")
        return page.next, len(page.rows)

    following: int | None = below
    while following is not None and count < MOST and out.tell() < BYTES_MAX:
        following, more = await core.read(lambda at=following: look(at))  # type: ignore[misc]
        count += more
    headers: tuple[tuple[str, str], ...] = (
        ("content-disposition", f'attachment; filename="messages.{asked.format}"'),
        ("content-security-policy", "default-src 'none'; sandbox"),
    )
    if following is not None:
        place = f"/messages?{query_of(asked, after=following, format=asked.format)}"
        headers = (*headers, ("link", f'<{place}>; rel="next"'))
    return View(data=out.getvalue().encode("utf-8", "replace"), kind=KINDS[asked.format], headers=headers)

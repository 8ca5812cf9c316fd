"""The audit trail: who did what to this hub, when, by which way; filtered, and taken along as a file."""

from __future__ import annotations

import csv
import io
from typing import Any, Final

import msgspec

from holdfast.clock import iso, parse_time
from holdfast.errors import UsageError
from holdfast.hub.acts import WAYS, WHATS, Act, Wanted
from holdfast.hub.exchange import encode_json
from holdfast.hub.ui.exports import KINDS, cell
from holdfast.hub.ui.pages import ROWS
from holdfast.hub.ui.routes import Ask, View
from holdfast.hub.ui.words import with_query

EXPORTED: Final = 10_000
"""Acts in one file; it says where the next begins."""
_COLUMNS: Final = ("time", "kind", "who", "token", "way", "done", "target", "details", "record")


class ActShown(msgspec.Struct):
    """Something that was done: when, by whom, by which way, to what; `record` is the link of the one that says it."""

    time: str
    kind: str
    who: str
    token: str
    way: str
    done: str
    target: str
    details: dict[str, str]
    record: str


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
    query, store = ask.query, ask.core.audit.store
    which = _wanted(query, ROWS + 1)
    found = await ask.core.read(lambda: store.page(which))
    data = AuditPage(
        acts=[_shown(each) for each in found[:ROWS]],
        who=query.who,
        done=query.what,
        since=query.since,
        until=query.until,
        next=_place(found[ROWS - 1]) if len(found) > ROWS else None,
    )
    return View(template="audit.html", title="Audit", data=data, extra={"whats": WHATS, "ways": WAYS})


async def export(ask: Ask) -> View:
    """GET /audit/export: the acts that a filter leaves, as a file; `Link` says where the next one begins."""
    ask.principal.need_everything()
    query, store = ask.query, ask.core.audit.store
    if query.form not in KINDS:
        raise UsageError(f"no such form: {query.form!r:.40}", hint="csv or jsonl")
    which = _wanted(query, EXPORTED + 1)
    found = await ask.core.read(lambda: store.page(which))
    rows = [_shown(each) for each in found[:EXPORTED]]
    data = await ask.core.read(lambda: _csv(rows) if query.form == "csv" else _lines(rows))
    headers = [("content-disposition", f'attachment; filename="audit.{query.form}"')]
    if len(found) > EXPORTED:
        asked = {name: getattr(query, name) for name in ("form", "who", "what", "since", "until")}
        url = with_query("/audit/export", **asked, before=_place(found[EXPORTED - 1]))
        headers.append(("link", f'<{url}>; rel="next"'))
    return View(data=data, kind=KINDS[query.form], headers=tuple(headers))


def _wanted(query: Any, limit: int) -> Wanted:
    before = None
    if query.before:
        at_ms, _, number = query.before.partition(".")
        if not (at_ms.isdigit() and number.isdigit() and len(query.before) < 40):
            raise UsageError(f"not a place in the list: {query.before!r:.80}", hint="begin at /audit")
        before = int(at_ms), int(number)
    return Wanted(
        who=query.who,
        what=query.what,
        since_ms=parse_time(query.since) if query.since else 0,
        until_ms=parse_time(query.until) if query.until else 0,
        before=before,
        limit=limit,
    )


def _place(act: Act) -> str:
    return f"{act.at_ms}.{act.id}"


def _shown(act: Act) -> ActShown:
    return ActShown(
        time=iso(act.at_ms),
        kind=act.by.kind,
        who=act.by.who,
        token=act.by.token,
        way=act.by.via,
        done=act.what,
        target=act.about,
        details=act.detail,
        record=act.ref.hex() if act.ref else "",
    )


def _csv(rows: list[ActShown]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(_COLUMNS)
    for row in rows:
        told = [row.time, row.kind, row.who, row.token, row.way, row.done, row.target]
        details = "; ".join(f"{name}: {text}" for name, text in row.details.items())
        writer.writerow([cell(text) for text in (*told, details, row.record)])
    return out.getvalue().encode("utf-8", "replace")


def _lines(rows: list[ActShown]) -> bytes:
    return b"".join(encode_json(row) + b"\n" for row in rows)

"""A list as a file: every row of it, page after page, as CSV that a spreadsheet may open or as JSON Lines."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.errors import UsageError
from holdfast.hub.exchange import Send, encode_json
from holdfast.hub.ui.routes import SAFE, View

if TYPE_CHECKING:
    from holdfast.hub.ui.routes import Ask, Maker

KINDS: Final = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}
_COMMANDS: Final = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would carry out."""


async def lots(ask: Ask, maker: Maker, view: View) -> AsyncIterator[Sequence[Any]]:
    """The rows of a list, from its first page, which is made already, to its end."""
    while True:
        yield getattr(view.data, view.rows)
        following = getattr(view.data, "next", None)
        if following is None:
            return
        ask.query = msgspec.structs.replace(ask.query, after=str(following))
        view = await maker(ask)


async def export(ask: Ask, maker: Maker, view: View, send: Send) -> None:
    """Answers with a list as a file.

    Args:
        ask: the request.
        maker: makes its pages.
        view: the first of them.
        send: where it goes.

    Raises:
        UsageError: no such format, or no list.
    """
    kind = ask.query.format
    made = written(kind)
    if not view.rows:
        raise UsageError("this page is no list: it has no rows to be exported", hint="its JSON is behind .json")
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in view.title)[:80] or "list"
    told = {**dict(SAFE), "content-type": KINDS[kind], "content-disposition": f'attachment; filename="{name}.{kind}"'}
    start = [(field.encode(), value.encode("latin-1")) for field, value in told.items()]
    await send({"type": "http.response.start", "status": 200, "headers": start})
    async for rows in lots(ask, maker, view):
        await send({"type": "http.response.body", "body": made.lines(rows), "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def written(kind: str, fields: Sequence[str] = ()) -> Lines:
    """What writes rows in a format.

    Args:
        kind: csv or jsonl.
        fields: the columns of CSV, named also where there are no rows; empty: those of the first row.

    Raises:
        UsageError: no such format.
    """
    if kind not in KINDS:
        raise UsageError(f"cannot write a list as {kind!r:.40}", hint="csv or jsonl")
    return _Csv(fields) if kind == "csv" else Lines()


def attached(name: str, kind: str, data: bytes, onwards: str) -> View:
    """A part of a list as a file; `onwards` is where the next part is, empty: there is none."""
    headers = [
        ("content-disposition", f'attachment; filename="{name}.{kind}"'),
        ("content-security-policy", "default-src 'none'; sandbox"),
    ]
    if onwards:
        headers.append(("link", f'<{onwards}>; rel="next"'))
    return View(data=data, kind=KINDS[kind], headers=tuple(headers))


class Lines:
    """Rows as JSON, one a line."""

    def lines(self, rows: Sequence[Any]) -> bytes:
        """These rows, behind those before."""
        return b"".join(encode_json(row) + b"\n" for row in rows)


class _Csv(Lines):
    """Rows as CSV; the first has the names of the fields."""

    def __init__(self, fields: Sequence[str]) -> None:
        self._fields, self._begun = list(fields), False

    def lines(self, rows: Sequence[Any]) -> bytes:
        out = io.StringIO()
        write = csv.writer(out, lineterminator="\r\n").writerow
        found = [msgspec.to_builtins(each) for each in rows]
        self._fields = self._fields or list(found[0] if found else ())
        if self._fields and not self._begun:
            self._begun = True
            write([cell(name) for name in self._fields])
        for row in found:
            write([cell(row.get(name)) for name in self._fields])
        return out.getvalue().encode("utf-8", "replace")


def cell(value: Any) -> str:
    """A value as one cell: text that a spreadsheet would carry out is marked as text; lists and objects as JSON."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    text = value if isinstance(value, str) else encode_json(value).decode("utf-8", "replace")
    return f"'{text}" if text.startswith(_COMMANDS) else text

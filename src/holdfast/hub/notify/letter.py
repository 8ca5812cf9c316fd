"""What is sent: the JSON of a webhook with its signature, or a line for a telephone."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Sequence
from email.header import Header
from typing import Any, Final
from urllib.parse import quote

import msgspec

from holdfast.clock import iso
from holdfast.hub.notify.rules import Rule
from holdfast.hub.notify.vault import Target

BODY_CHARS_MAX: Final = 4_000
TEXT_CHARS_MAX: Final = 3_000
"""ntfy makes a file of what has more than 4,096 bytes."""
_LEVELS: Final = {"low": "2", "normal": "3", "high": "4", "hot": "5"}


class Told(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message as a notification tells of it; what was written is there only if the rule says so."""

    id: str
    sender: str
    to: str
    kind: str
    priority: str
    time: str
    thread: str | None = None
    task: str | None = None
    link: str | None = None
    body: Any = None
    cut: bool = False


class Letter(msgspec.Struct, frozen=True):
    """One request's headers and body."""

    headers: dict[str, str]
    body: bytes


class Sheet(msgspec.Struct, frozen=True, kw_only=True):
    """What a notification says: its id, its rule, which hub it is, how many messages and the first of them."""

    id: str
    name: str
    rule: Rule
    hub: str
    many: int
    told: Sequence[Told] = ()
    test: bool = False


def written(sheet: Sheet, target: Target, now_ms: int) -> Letter:
    """The request for a notification.

    Args:
        sheet: what it says.
        target: where it goes.
        now_ms: now.
    """
    made = _webhook(sheet, target, now_ms) if sheet.rule.form == "webhook" else _ntfy(sheet)
    if target.token:
        made.headers["Authorization"] = f"Bearer {target.token}"
    return made


def _webhook(sheet: Sheet, target: Target, now_ms: int) -> Letter:
    value = {
        "type": "test" if sheet.test else "messages",
        "id": sheet.id,
        "hub": sheet.hub,
        "rule": sheet.name,
        "time": iso(now_ms),
        "count": sheet.many,
        "messages": [msgspec.to_builtins(each) for each in sheet.told],
    }
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    stamp = str(now_ms // 1000)
    return Letter(
        {
            "Content-Type": "application/json",
            "webhook-id": sheet.id,
            "webhook-timestamp": stamp,
            "webhook-signature": signature(target.secret, sheet.id, stamp, body),
        },
        body,
    )


def signature(secret: bytes, id_: str, stamp: str, body: bytes) -> str:
    """The signature of a webhook, as the Standard Webhooks specification has it: ``v1,`` and base64.

    Args:
        secret: the key.
        id_, stamp: of the request: its id, and the seconds since 1970 at which it was sent.
        body: of the request.
    """
    signed = hmac.digest(secret, f"{id_}.{stamp}.".encode() + body, "sha256")
    return "v1," + base64.b64encode(signed).decode()


def _ntfy(sheet: Sheet) -> Letter:
    lines = [_line(each) for each in sheet.told]
    if sheet.test:
        title, text = "Test", f"The rule {sheet.name} of this hub reaches you."
    elif len(sheet.told) == 1 and sheet.many == 1:
        title, text = _title(sheet.told[0]), _said(sheet.told[0]) or "See the inbox."
    else:
        title = f"{sheet.many} messages"
        if sheet.many > len(lines):
            lines.append(f"and {sheet.many - len(lines)} more")
        text = "\n".join(lines) or "See the inbox."
    ranks = [_LEVELS.get(each.priority, "3") for each in sheet.told]
    headers = {
        "Content-Type": "text/plain; charset=utf-8",
        "Title": _header(title),
        "Priority": max(ranks, default="3"),
        "X-Holdfast-Id": sheet.id,
    }
    if sheet.rule.link:
        headers["Click"] = (
            sheet.told[0].link or "" if len(sheet.told) == 1 else f"{sheet.rule.link.rstrip('/')}/messages"
        )
    return Letter(headers, _shortened(text, TEXT_CHARS_MAX).encode("utf-8", "replace"))


def _title(told: Told) -> str:
    high = f" ({told.priority})" if told.priority in ("high", "hot") else ""
    return f"{told.kind} from {told.sender}{high}"


def _line(told: Told) -> str:
    said = _said(told).replace("\n", " ")
    return _shortened(f"{_title(told)}: {said}" if said else _title(told), 200)


def _said(told: Told) -> str:
    if told.body is None:
        return ""
    return told.body if isinstance(told.body, str) else json.dumps(told.body, ensure_ascii=False)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _header(text: str) -> str:
    """A text as a header: what is not plain ASCII in words of RFC 2047, which ntfy reads."""
    plain = "".join(each if each.isprintable() else " " for each in text)[:200]
    return plain if plain.isascii() else Header(plain, "utf-8", maxlinelen=10_000).encode().replace("\n", "")


def body_told(body: Any) -> tuple[Any, bool]:
    """What was written, as far as it fits, and whether it was cut."""
    if isinstance(body, str):
        return _shortened(body, BODY_CHARS_MAX), len(body) > BODY_CHARS_MAX
    text = json.dumps(body, ensure_ascii=False, default=str)
    return (body, False) if len(text) <= BODY_CHARS_MAX else (_shortened(text, BODY_CHARS_MAX), True)


def link_to(rule: Rule, message: str) -> str | None:
    """Where a message is shown; None if the rule knows no address of the pages."""
    return f"{rule.link.rstrip('/')}/messages/{quote(message, safe='')}" if rule.link else None

"""Messages: records from one agent to people, to another agent, or to whoever looks. A report is one for people."""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast import clock
from holdfast.corpus import Stored
from holdfast.errors import UsageError
from holdfast.log.drafts import PRIORITIES
from holdfast.log.versions import Version


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message, as it was posted.

    Attributes:
        id: unique for ever; posting it again changes nothing.
        agent: who posted it.
        kind: message, report, or the poster's own word.
        body: whatever was said: text or JSON.
        to: an agent's name, ``people``, or None for whoever looks.
        priority: low, normal, high or hot.
        task, thread: what it belongs to.
        role: user, assistant, system or tool, in conversations.
        time: seconds since 1970, by the poster's clock.
        seq: its number in the poster's log.
        pos: its position in the corpus it was read from.
    """

    id: str
    agent: str
    kind: str
    body: Any
    to: str | None = None
    priority: str = "normal"
    task: str | None = None
    thread: str | None = None
    role: str | None = None
    time: float = 0.0
    seq: int = 0
    pos: int = 0
    extra: dict[str, Any] = {}


_FIELDS = ("to", "priority", "task", "thread", "role")
_KNOWN = {*_FIELDS, "body"}


def envelope(
    body: Any,
    *,
    to: str | None = None,
    priority: str = "normal",
    task: str | None = None,
    thread: str | None = None,
    role: str | None = None,
) -> dict[str, Any]:
    """What is stored of a message besides who, when and what kind.

    Raises:
        UsageError: a priority that is none of ours.
    """
    if priority not in PRIORITIES:
        raise UsageError(f"unknown priority {priority!r}", hint=f"one of {', '.join(PRIORITIES)}")
    out: dict[str, Any] = {"body": body}
    for name, text in (("to", to), ("task", task), ("thread", thread), ("role", role)):
        if text is not None:
            out[name] = text
    if priority != "normal":
        out["priority"] = priority
    return out


def message_of(version: Version) -> Message:
    """The message in a version of the messages collection."""
    said, extra = _said(version.value)
    return Message(
        id=version.key,
        agent=version.author or version.agent,
        kind=version.kind,
        time=version.time,
        seq=version.seq,
        pos=version.pos,
        extra=extra,
        **said,
    )


def message_in(stored: Stored, value: Any) -> Message:
    """The message in a record whose value is at hand: `message_of` its version, without making that first."""
    record = stored.record
    said, extra = _said(value)
    return Message(
        id=record.key,
        agent=record.author or stored.agent,
        kind=record.kind,
        time=clock.millis(record.hlc) / 1000,
        seq=record.seq,
        pos=stored.pos,
        extra=extra,
        **said,
    )


def _said(value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What an envelope says in the fields of a message, and what else it says."""
    if not isinstance(value, dict):
        return {"body": value}, {}
    if value.keys() <= _KNOWN and "body" in value and None not in value.values():
        return value, {}
    said = {name: text for name, text in value.items() if text is not None and name in _KNOWN}
    said.setdefault("body")
    return said, {k: v for k, v in value.items() if k not in _KNOWN}

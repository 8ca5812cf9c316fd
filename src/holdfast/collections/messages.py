"""Messages: records from one agent to people, to another agent, or to whoever looks. A report is one for people."""

from __future__ import annotations

from typing import Any

import msgspec

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
    given = {"to": to, "task": task, "thread": thread, "role": role}
    out |= {name: text for name, text in given.items() if text is not None}
    if priority != "normal":
        out["priority"] = priority
    return out


def message_of(version: Version) -> Message:
    """The message in a version of the messages collection."""
    stored = version.value if isinstance(version.value, dict) else {"body": version.value}
    known = {name: stored[name] for name in _FIELDS if stored.get(name) is not None}
    return Message(
        id=version.key,
        agent=version.author or version.agent,
        kind=version.kind,
        body=stored.get("body"),
        time=version.time,
        seq=version.seq,
        pos=version.pos,
        extra={k: v for k, v in stored.items() if k not in _FIELDS and k != "body"},
        **known,
    )

"""Messages: records from one agent to people, to another agent, or to whoever looks. A report is one for people."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from typing import Any, Final

import msgspec

from holdfast import clock
from holdfast.corpus import Stored
from holdfast.errors import UsageError
from holdfast.log.drafts import PRIORITIES
from holdfast.log.versions import Version
from holdfast.records import KEY_BYTES_MAX

PEOPLE: Final = "people"
"""To whom messages go that any person may answer."""
QUESTION: Final = "question"
ANSWER: Final = "answer"
NEEDING: Final = (QUESTION, "approval", "alert")
"""Kinds that want a person."""
PRESSING: Final = ("high", "hot")
OPTIONS_MAX: Final = 50
ATTACHED: Final = ("artifact", "artifacts", "artifact_id", "file", "files", "file_id", "attachments")
"""Fields in which messages name what goes with them."""
_NUMBER: Final = re.compile(r"[-_ .]?\d+$")


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
        in_reply_to: the id of the message that it answers.
        dedupe: its sender's own name for what it says; of one sender and name there is one message.
        expires_at: seconds since 1970, after which nobody needs it; None: never.
        options: of a question: the answers that it takes; None: any.
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
    in_reply_to: str | None = None
    dedupe: str | None = None
    expires_at: float | None = None
    options: list[Any] | None = None
    time: float = 0.0
    seq: int = 0
    pos: int = 0
    extra: dict[str, Any] = {}

    @property
    def conversation(self) -> str:
        """What a reply to it is filed under: its thread, or itself."""
        return self.thread or self.id

    def expired(self, now_ms: int) -> bool:
        """Whether nobody needs it any more."""
        ends = expiry_ms(self.expires_at)
        return ends is not None and ends <= now_ms


_TEXTS = ("to", "task", "thread", "role", "in_reply_to", "dedupe")
_FIELDS = (*_TEXTS, "priority", "expires_at", "options")
_KNOWN = {*_FIELDS, "body"}


def envelope(body: Any, *, priority: str = "normal", **fields: Any) -> dict[str, Any]:
    """What is stored of a message besides who, when and what kind.

    Args:
        body: text or JSON values.
        priority: low, normal, high or hot.
        fields: to, task, thread, role, in_reply_to, dedupe, expires_at, options; None is as if it were not given.

    Raises:
        UsageError: a field that a message has not, or a value that it cannot have.
    """
    if priority not in PRIORITIES:
        raise UsageError(f"unknown priority {priority!r}", hint=f"one of {', '.join(PRIORITIES)}")
    if not fields.keys() <= _KNOWN:
        unknown = min(fields.keys() - _KNOWN)
        raise UsageError(f"a message has no field {unknown!r}", hint=f"known are: {', '.join(_FIELDS)}")
    out: dict[str, Any] = {"body": body}
    for name, given in fields.items():
        if given is not None:
            out[name] = _CHECKED[name](name, given) if name in _CHECKED else given
    if priority != "normal":
        out["priority"] = priority
    return out


def _id(name: str, given: Any) -> str:
    if not isinstance(given, str) or not 0 < len(given.encode("utf-8", "surrogatepass")) <= KEY_BYTES_MAX:
        raise UsageError(f"{name} must be text of 1 to {KEY_BYTES_MAX} bytes, got {given!r:.80}")
    if any("\ud800" <= sign <= "\udfff" for sign in given):
        raise UsageError(f"{name} holds half a surrogate pair: {given!r:.80}")
    return given


def _moment(_: str, given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float | str | datetime):
        raise UsageError(f"expires_at is no time: {given!r:.80}", hint="seconds since 1970, ISO 8601, a datetime")
    return clock.parse_time(given) / 1000


def _choices(_: str, given: Any) -> list[Any]:
    if not isinstance(given, list | tuple) or not 0 < len(given) <= OPTIONS_MAX:
        raise UsageError(f"options is a list of 1 to {OPTIONS_MAX} answers, got {given!r:.80}")
    return list(given)


_CHECKED: Final = {"in_reply_to": _id, "dedupe": _id, "expires_at": _moment, "options": _choices}


def id_of(sender: str, dedupe: str) -> str:
    """The id of the one message that a sender posts under a dedupe key."""
    # The length parts the two, so that no other sender and key make the same.
    text = b"hf/dedupe/1\0%d\0%b%b" % (len(sender.encode()), sender.encode(), dedupe.encode())
    return f"msg_{hashlib.sha256(text).hexdigest()[:40]}"


def expiry_ms(expires_at: Any) -> int | None:
    """When a message expires, in ms since 1970; None for never, and for what is no time."""
    if isinstance(expires_at, bool) or not isinstance(expires_at, int | float):
        return None
    return round(expires_at * 1000) if 0 <= expires_at < clock.MILLIS_MAX / 1000 else None


def needs_you(kind: str, priority: Any) -> bool:
    """Whether it wants a person: a question, an approval or an alert, or at least of high priority."""
    return kind in NEEDING or priority in PRESSING


def rank_of(priority: Any) -> int:
    """The place of a priority among all of them, from 0; what is none of them counts as normal."""
    return PRIORITIES.index(priority if priority in PRIORITIES else "normal")


def role_of(said: dict[str, Any], sender: str) -> str:
    """The role of who wrote a message: what it says, else its writer's name without the number at its end."""
    told = said.get("role")
    if isinstance(told, str) and told:
        return told
    return _NUMBER.sub("", sender) or sender


def has_artifact(said: dict[str, Any]) -> bool:
    """Whether a message names files or artifacts, beside what it says or in it."""
    body = said.get("body")
    return any(each.get(name) for each in (said, body) if isinstance(each, dict) for name in ATTACHED)


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

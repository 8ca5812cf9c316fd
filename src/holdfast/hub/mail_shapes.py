"""What the routes of mail take and answer."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType, field

from holdfast.collections import mailbox
from holdfast.collections.delivery import PLACES, STATES, TABS, WORDS
from holdfast.hub.shapes import Agent, Hex, Limit, Number, Time, Told, Writer
from holdfast.records import KEY_BYTES_MAX

UNDO: Final = "undo"
SENDER = Annotated[Agent, Meta(description="who sent it; needed only where two senders used one id")]
ID = Annotated[str, Meta(min_length=1, max_length=KEY_BYTES_MAX, description="the id of a message", examples=["plan"])]


class InboxOf(msgspec.Struct, frozen=True, kw_only=True):
    """Which page of which inbox."""

    box: Annotated[str, Meta(max_length=255, description="whose: an agent, or people; yours unless said")] = field(
        default="", name="for"
    )
    state: Annotated[
        Literal[mailbox.VIEWS],  # type: ignore[valid-type]
        Meta(description="one tab; or open (unread and read), needs (of those, what wants a person), all"),
    ] = "unread"
    order: Annotated[Literal["newest", "oldest"], Meta(description="in the order of arrival")] = "newest"
    after: Annotated[
        str,
        Meta(description="`next` of the page before; or with order=oldest any cursor of the feed"),
    ] = ""
    limit: Limit = 100
    counts: Annotated[bool, Meta(description="whether to count every tab, each up to 1000")] = False


class OneOf(msgspec.Struct, frozen=True, kw_only=True):
    """Which of several messages with one id."""

    sender: SENDER | None = None


class Says(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far a reader is with a message, or where he puts it."""

    state: Annotated[
        Literal[(*WORDS, UNDO)],  # type: ignore[valid-type]
        Meta(description="inbox: back from snoozed or archived; unread: whatever was said; undo: the last word"),
    ]
    reader: Annotated[Writer, Meta(description="who says so; whoever asks, unless said")] | None = None
    sender: SENDER | None = None
    until: (
        Annotated[Told | Time, Meta(description="of snoozed: when it comes back; never by itself, unless said")] | None
    ) = None
    result: Annotated[Any, Meta(description="of done: what came of it")] = None


class MailShown(msgspec.Struct, kw_only=True):
    """A message with the tab that it lies in; `until` is when it moves by itself. `missing` where it cannot be read."""

    msg_id: str
    timestamp: Annotated[float, Meta(description="seconds since 1970, by its sender")]
    sender: str
    recipient: str | None
    kind: str
    priority: Any
    content: Any
    task: Any
    thread: Any
    role: Any
    in_reply_to: Any
    dedupe: Any
    expires_at: Any
    options: Any
    extra: dict[str, Any]
    state: Literal[TABS]  # type: ignore[valid-type]
    needs: Annotated[bool, Meta(description="whether it wants a person")]
    until: float | None
    pos: Number
    cursor: Annotated[str, Meta(description="the place behind it, for `after` and for the feed")]
    stream: Hex
    seq: int
    etag: Hex
    missing: Literal["blob", "evicted", "quarantined", "redacted", "sealed", "lost"] | UnsetType = UNSET
    digest: Hex | UnsetType = UNSET
    size: int | UnsetType = UNSET
    fmt: int | UnsetType = UNSET


class InboxPage(msgspec.Struct):
    """A page of an inbox. `next` goes into `after`, null is the end; from `cursor` the feed brings what comes later."""

    mail: list[MailShown]
    next: str | None
    cursor: str
    partial: Annotated[bool, Meta(description="whether what came last may be missing: the hub's disk is full")]
    counts: dict[str, int] | UnsetType = UNSET


class ReaderShown(msgspec.Struct):
    """How one reader stands to a message."""

    state: Literal[STATES]  # type: ignore[valid-type]
    place: Literal[PLACES]  # type: ignore[valid-type]
    until: float | None
    times: Annotated[dict[str, float], Meta(description="when each state was reached, in seconds since 1970")]
    result: Any


class DeliveryShown(msgspec.Struct):
    """What became of a message: the furthest that anybody is with it, and each reader who said anything."""

    msg_id: str
    sender: str
    recipient: str | None
    state: Literal[(*STATES, "expired", "withdrawn")]  # type: ignore[valid-type]
    readers: dict[str, ReaderShown]
    pos: Number

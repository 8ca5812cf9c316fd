"""What the storage service is asked with: bodies and parameters, each with its bounds. Answers are `collections`'."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from holdfast.collections.sessions import Content, Message, Role, Session, Status
from holdfast.hub.shapes import Iso, Limit, Time
from holdfast.wire import PAGE_MAX

OFFSET_MAX: Final = 10_000
POS_MAX: Final = (1 << 63) - 1
TTL_MAX: Final = 10 * 366 * 86_400
METRICS_MAX: Final = 1_000
_ID: Final = "[A-Za-z0-9_.\\-]{1,100}$"
_PRINTED: Final = "^[^\\x00-\\x1f\\x7f]+$"

Name = Annotated[str, Meta(min_length=1, max_length=255, pattern=_PRINTED)]
Agent = Annotated[Name, Meta(description="whose session it is; its log holds it", examples=["research_orchestrator"])]
SessionId = Annotated[str, Meta(pattern=f"^session_{_ID}", description="of a session", examples=["session_1"])]
MessageId = Annotated[
    str, Meta(pattern=f"^msg_{_ID}", description="of a message, within its session", examples=["msg_1"])
]
ArtifactId = Annotated[str, Meta(pattern=f"^artifact_{_ID}", description="of an artifact", examples=["artifact_1"])]
MetricId = Annotated[str, Meta(pattern=f"^metric_{_ID}", description="of a metric")]
Label = Annotated[
    str,
    Meta(pattern="^[^=]+=", max_length=255, description="name=text; several must all fit", examples=["model=small"]),
]
Offset = Annotated[int, Meta(ge=0, le=OFFSET_MAX, description="how many to leave out; deeper pages go by `after`")]
At = Annotated[Time, Meta(min_length=1)]
CursorOfSessions = Annotated[
    str, Meta(pattern=f"^[0-9]{{1,15}}:session_{_ID}", description="the X-Next-Cursor of the page before")
]
CursorOfMetrics = Annotated[
    str, Meta(pattern="^[0-9]{1,15}:[0-9]{1,18}$", description="the X-Next-Cursor of the page before")
]
CursorPos = Annotated[int, Meta(ge=0, le=POS_MAX, description="the X-Next-Cursor of the page before")]
Order = Annotated[Literal["asc", "desc"], Meta(description="oldest or newest first")]
Version = Annotated[
    str,
    Meta(
        description="an ETag, or several, or *",
        examples=['"0"'],
        extra_json_schema={"pattern": '^([*]|(W/)?"[!#-~]*"(, ?(W/)?"[!#-~]*")*)?$'},
    ),
]
CacheKey = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=512,
        pattern="^[^/\\x00-\\x1f\\x7f]+$",
        description="1 to 512 printable letters, no slash",
    ),
]
Flag = Annotated[Literal["true", "false"], Meta(description="true or false")]
Seconds = Annotated[int, Meta(ge=1, le=TTL_MAX, description="seconds to live; without it, for ever")]


class NewSession(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A session to begin. With an `id` of its own, the same request again makes no second one."""

    agent_name: Agent
    user_id: Name | None = None
    status: Status = "active"
    metadata: dict[str, Any] | None = None
    id: SessionId | None = None


class SessionChange(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is to change of a session: the fields that are there, each as a whole."""

    status: Status | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType | None = UNSET
    user_id: Name | UnsetType | None = UNSET
    agent_name: Agent | UnsetType = UNSET


class SessionsAsked(msgspec.Struct, kw_only=True):
    """Which sessions; those that were deleted are shown with ``deleted=true``, and no others then."""

    agent_name: Annotated[Name, Meta(description="whose sessions")] | None = None
    user_id: Annotated[Name, Meta(description="with whom")] | None = None
    status: Annotated[Status, Meta(description="only these")] | None = None
    since: Annotated[At, Meta(description="created at this time or later")] | None = None
    until: Annotated[At, Meta(description="created before this time")] | None = None
    deleted: Flag = "false"
    order: Order = "desc"
    limit: Limit = 100
    offset: Offset = 0
    after: CursorOfSessions | None = None


class SessionAsked(msgspec.Struct, kw_only=True):
    """``deleted=true`` shows a session also when it was deleted."""

    deleted: Flag = "false"


class Fork(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Where to part: after this message (without one: now), under this id, with other metadata."""

    message_id: MessageId | None = None
    id: SessionId | None = None
    metadata: dict[str, Any] | None = None


class RestoreAsked(msgspec.Struct, kw_only=True):
    """What is to come back: the whole session as its deletion hid it, or the messages that were cleared last."""

    part: Annotated[Literal["session", "history"], Meta(description="all of it, or only its messages")] = "session"


class Restored(msgspec.Struct, kw_only=True):
    """What came back: how many records; `lost` of them could not, as their bytes are gone."""

    session: Session
    restored: int
    lost: int


class NewMessage(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A message of a session. With an `id` of its own, the same request again adds none."""

    session_id: SessionId
    role: Role
    content: Content
    metadata: dict[str, Any] | None = None
    timestamp: At | None = None
    id: MessageId | None = None


class HistoryAsked(msgspec.Struct, kw_only=True):
    """Which messages of a session, in the order in which they were written."""

    session_id: Annotated[str, Meta(description="of which session", examples=["session_1"])]
    role: Annotated[Role, Meta(description="only what it said")] | None = None
    order: Order = "asc"
    limit: Limit = PAGE_MAX
    offset: Offset = 0
    after: CursorPos | None = None


class SearchAsked(msgspec.Struct, kw_only=True):
    """What to look for: words; in double quotes a phrase, with a trailing ``*`` a beginning."""

    session_id: Annotated[str, Meta(description="of which session", examples=["session_1"])]
    q: Annotated[str, Meta(min_length=1, max_length=1000, description="words; a phrase in quotes; a beginning with *")]
    limit: Limit = 50


class SearchFound(msgspec.Struct):
    """Messages that hold every word, newest first; `partial` when the newest ones were not all looked at."""

    messages: list[Message]
    partial: bool


class OfSession(msgspec.Struct, kw_only=True):
    """Of which session."""

    session_id: Annotated[str, Meta(description="of which session", examples=["session_1"])]


class NewState(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What an agent is to remember: any JSON."""

    data: Any


class Deleted(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What was deleted; `deleted` counts the messages, where they were cleared."""

    status: Literal["deleted", "cleared"]
    id: str = ""
    session_id: str = ""
    deleted: int | None = None


class NewArtifact(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Something that a session made: `path` is a file or an S3 key; bytes may be uploaded afterwards."""

    session_id: SessionId
    name: Name
    type: Name
    path: Annotated[str, Meta(max_length=4096)] = ""
    size: Annotated[int, Meta(ge=0, le=1 << 53)] = 0
    metadata: dict[str, Any] | None = None
    id: ArtifactId | None = None


class ArtifactsAsked(msgspec.Struct, kw_only=True):
    """Which artifacts of a session, by their ids."""

    session_id: Annotated[str, Meta(description="of which session", examples=["session_1"])]
    type: Annotated[Name, Meta(description="only these")] | None = None
    limit: Limit = PAGE_MAX
    offset: Offset = 0
    after: Annotated[ArtifactId, Meta(description="the X-Next-Cursor of the page before")] | None = None


class NewMetric(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A figure about something. With an `id` of its own, the same request again adds none."""

    entity_type: Name
    entity_name: Name
    metric_name: Name
    value: float
    session_id: SessionId | None = None
    timestamp: At | None = None
    labels: Annotated[dict[str, Any], Meta(max_length=32)] | None = None
    id: MetricId | None = None


class NewMetrics(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Figures that came together."""

    metrics: Annotated[list[NewMetric], Meta(min_length=1, max_length=METRICS_MAX)]


class MetricsAsked(msgspec.Struct, kw_only=True):
    """Which metrics."""

    entity_type: Annotated[Name, Meta(description="of what kind of thing")] | None = None
    entity_name: Annotated[Name, Meta(description="of which one")] | None = None
    metric_name: Annotated[Name, Meta(description="which figure")] | None = None
    session_id: Annotated[str, Meta(description="of which session")] | None = None
    since: Annotated[At, Meta(description="at this time or later")] | None = None
    until: Annotated[At, Meta(description="before this time")] | None = None
    label: Annotated[tuple[Label, ...], Meta(description="labels as name=text; all must fit")] = ()
    order: Order = "desc"
    limit: Limit = PAGE_MAX
    offset: Offset = 0
    after: CursorOfMetrics | None = None


class SumsAsked(msgspec.Struct, kw_only=True):
    """Which metrics, in which groups: `by` fields or ``label:<name>``, `bucket` seconds, `percentile` from 0 to 100."""

    entity_type: Annotated[Name, Meta(description="of what kind of thing")] | None = None
    entity_name: Annotated[Name, Meta(description="of which one")] | None = None
    metric_name: Annotated[Name, Meta(description="which figure")] | None = None
    session_id: Annotated[str, Meta(description="of which session")] | None = None
    since: Annotated[At, Meta(description="at this time or later")] | None = None
    until: Annotated[At, Meta(description="before this time")] | None = None
    label: Annotated[tuple[Label, ...], Meta(description="labels as name=text; all must fit")] = ()
    by: Annotated[
        tuple[
            Annotated[
                str, Meta(pattern="^(entity_type|entity_name|metric_name|session_id|label:[A-Za-z0-9_.-]{1,64})$")
            ],
            ...,
        ],
        Meta(max_length=4, description="fields, or label:<name>, that make groups"),
    ] = ()
    bucket: Annotated[int, Meta(ge=1, le=366 * 86_400, description="seconds")] | None = None
    percentile: Annotated[
        tuple[Annotated[float, Meta(ge=0, le=100)], ...], Meta(max_length=10, description="from 0 to 100")
    ] = ()


class NewEntry(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What to keep, and for how many seconds."""

    value: Any
    ttl: Seconds | None = None


class EntryShown(msgspec.Struct, kw_only=True):
    """A value of the cache."""

    key: str
    value: Any
    ttl: int | None
    created_at: Iso
    accessed_at: Iso
    expires_at: Iso | None


class Removed(msgspec.Struct, kw_only=True):
    """How many entries went."""

    removed: int

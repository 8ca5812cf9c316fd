"""What requests and answers are made of: parameters with their meaning and bounds, and the shapes of answers.

An annotated type decodes and describes at once. What only describes is in `extra_json_schema`: patterns that the code
behind checks anyhow, with a better message. Answers on hot paths are put together by hand; their structs describe them,
and the tests hold both together.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from holdfast import clock
from holdfast.records import KEY_BYTES_MAX, NAME_BYTES_MAX
from holdfast.wire import PAGE_MAX

INT64_MAX: Final = (1 << 63) - 1
PRINTED: Final = "^[^\\u0000-\\u001f\\u007f]*$"
"""Text without control characters."""
_DAY: Final = "(19[7-9][0-9]|2[0-4][0-9][0-9])-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"
_HOUR: Final = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{3})?(Z|[+-](0[0-9]|1[0-3]):[0-5][0-9])"
ISO_TIME: Final = f"^{_DAY.replace('19[7-9][0-9]', '19[89][0-9]')}T{_HOUR}$"
SECONDS: Final = "^[0-9]{1,10}(\\.[0-9]{1,6})?$"

Agent = Annotated[str, Meta(max_length=NAME_BYTES_MAX, description="the name of an agent", examples=["recruiter-1"])]
Writer = Annotated[
    Agent,
    Meta(
        description="the agent in whose name it is written",
        extra_json_schema={"minLength": 1, "pattern": PRINTED, "not": {"const": "hub"}},
    ),
]
Agents = Annotated[
    tuple[str, ...], Meta(description="only these agents' records; repeat it for several", examples=[["recruiter-1"]])
]
Collection = Annotated[str, Meta(description="the name of a collection", examples=["messages"])]
Collections = Annotated[tuple[str, ...], Meta(description="only these collections; repeat it for several")]
Kinds = Annotated[
    tuple[str, ...],
    Meta(description="only these kinds of records, such as message or report; repeat it for several"),
]
Key = Annotated[str, Meta(description="a key of the collection; it may be empty", examples=["plan"])]
Prefix = Annotated[str, Meta(description="only keys that begin so")]
Limit = Annotated[int, Meta(ge=1, le=PAGE_MAX, description="how many at most")]
AfterPos = Annotated[int, Meta(ge=0, le=INT64_MAX, description="`next` of the page before; 0: the first page")]
AfterName = Annotated[str, Meta(description="`next` of the page before; empty: the first page")]
Number = Annotated[int, Meta(ge=0, le=INT64_MAX)]
Time = Annotated[
    str,
    Meta(
        description="seconds since 1970, or ISO 8601",
        examples=["2026-01-06T12:00:00Z"],
        extra_json_schema={"anyOf": [{"pattern": ISO_TIME}, {"pattern": SECONDS}]},
    ),
]
_SECONDS = Meta(description="seconds since 1970", extra_json_schema={"minimum": 0, "maximum": clock.MILLIS_MAX // 1000})
Told = Annotated[int, _SECONDS] | Annotated[float, _SECONDS]
When = Annotated[
    str,
    Meta(
        description="seconds since 1970, or ISO 8601",
        examples=["2026-01-06T12:00:00Z"],
        extra_json_schema={"anyOf": [{"pattern": ISO_TIME}, {"pattern": SECONDS}, {"maxLength": 0}]},
    ),
]
"""A `Time` in a query, where it may be empty: then it is not there."""
Hex = Annotated[str, Meta(extra_json_schema={"pattern": "^([0-9a-f]{2})*$"})]
Iso = Annotated[str, Meta(description="RFC 3339, in UTC", extra_json_schema={"format": "date-time"})]
Text = Annotated[str, Meta(max_length=255)]
MessageId = Annotated[
    str,
    Meta(
        max_length=KEY_BYTES_MAX - 64,
        description="names one message, for ever; made here if there is none",
        extra_json_schema={"pattern": PRINTED},
    ),
]


def time_ms(text: str | None) -> int | None:
    """A `When` as ms since 1970; None if it was not given.

    Raises:
        UsageError: it is no time.
    """
    # A plus sign in a query is a blank: of a time zone, it is meant as a plus.
    return clock.parse_time(text.replace(" ", "+") if "T" in text else text) if text else None


class Problem(msgspec.Struct):
    """What went wrong. `exit` is what the command line would return."""

    code: Annotated[str, Meta(description="for programs, such as not_found or conflict")]
    exit: int
    message: Annotated[str, Meta(description="what failed, with the value")]
    hint: Annotated[str, Meta(description="what can be done about it")]
    context: dict[str, Any] | UnsetType = UNSET


class ErrorAnswer(msgspec.Struct):
    """Every error has this form."""

    error: Problem


class Version(msgspec.Struct):
    """One record, as everybody sees it. Bytes come in base64, with `encoding`; where a value is not here, `missing`."""

    pos: Annotated[int, Meta(description="the hub's commit order")]
    agent: str
    stream: Hex
    seq: Annotated[int, Meta(description="its number in the agent's log")]
    time: Iso
    kind: str
    collection: str
    key: str
    version: Annotated[int, Meta(description="1, 2, 3… per key")]
    etag: Annotated[str, Meta(description="its link in the chain, in hex")]
    author: Annotated[str, Meta(description="who wrote it, where the hub wrote it for a client")]
    gone: Annotated[bool, Meta(description="whether it takes the value away")]
    value: Any
    encoding: Literal["base64"] | UnsetType = UNSET
    missing: Literal["blob", "evicted", "quarantined", "redacted", "sealed", "lost"] | UnsetType = UNSET
    digest: Hex | UnsetType = UNSET
    size: int | UnsetType = UNSET
    fmt: int | UnsetType = UNSET


class Records(msgspec.Struct):
    """A page of records; `next` goes into `after`, null is the end."""

    records: list[Version]
    next: int | None


class Found(msgspec.Struct):
    """What a search found; `partial` when it stopped before it had looked at everything."""

    records: list[Version]
    partial: bool


class KeyShown(msgspec.Struct):
    """A key that has a value."""

    key: str
    version: int
    etag: str
    time: Iso
    kind: str
    bytes: int


class Keys(msgspec.Struct):
    """A page of keys in their order; `next` goes into `after`, null is the end."""

    keys: list[KeyShown]
    next: str | None


class StreamShown(msgspec.Struct):
    """A log of an agent: where it stands, and whether it is the hub's own."""

    stream: Hex
    seq: int
    link: Hex
    incarnations: int
    hub: bool


class AgentShown(msgspec.Struct):
    """An agent with its logs."""

    agent: str
    streams: list[StreamShown]


class AgentsPage(msgspec.Struct):
    """A page of agents by name; `next` goes into `after`, null is the end."""

    agents: list[AgentShown]
    next: str | None


class NodeShown(msgspec.Struct):
    """A node that said hello, and the agents that it spoke for."""

    node: str
    last_seen: Iso
    agents: list[str]


class NodesPage(msgspec.Struct):
    """The nodes, the latest seen first."""

    nodes: list[NodeShown]
    total: int

"""What a search and an index of vectors are asked with over HTTP, and the shapes of what they answer."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from holdfast import query
from holdfast.hub.routes_feed import CURSOR
from holdfast.hub.shapes import INT64_MAX, ISO_TIME, PRINTED, Agent, Collection, Hex, Iso, Told, Version
from holdfast.records import NAME_BYTES_MAX
from holdfast.wire import PAGE_MAX

DIMS_MAX: Final = 16_384
LOT_MAX: Final = 64
"""So many texts, or vectors, one request of a filler is about."""
QUERY_CHARS_MAX: Final = 10_000
HOLD_S_MAX: Final = 600

Identity = Annotated[str, Meta(max_length=64, description="of an index: what makes vectors comparable, as a hash")]
Numbers = Annotated[
    list[float] | str,
    Meta(
        description="its numbers: a list, or base64 of 32-bit floats, little-endian",
        examples=[[0.6, 0.8]],
    ),
]
IndexName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=NAME_BYTES_MAX,
        description="the collection that it is of",
        examples=["memory"],
        extra_json_schema={"pattern": "^[^/\\u0000-\\u001f\\u007f]+$"},
    ),
]
Field = Annotated[str, Meta(min_length=1, max_length=query.FIELD_CHARS_MAX, examples=["text"])]
Filler = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=128,
        description="whoever fills, by a name that no other process has",
        extra_json_schema={"pattern": PRINTED},
    ),
]
Pos = Annotated[int, Meta(ge=1, le=INT64_MAX, description="the record's position")]
At = Annotated[
    str,
    Meta(
        description="a time (seconds since 1970, or ISO 8601) or a cursor of the feed",
        examples=["2026-01-06T12:00:00Z"],
        extra_json_schema={"anyOf": [{"pattern": ISO_TIME}, {"pattern": CURSOR}]},
    ),
]


class Search(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is looked for, where, and how."""

    q: Annotated[
        str,
        Meta(
            max_length=QUERY_CHARS_MAX,
            description="words; in double quotes a phrase, with a trailing * a beginning",
            examples=["which tea does she like"],
        ),
    ]
    agent: Annotated[Agent, Meta(description="only what this agent wrote")] | None = None
    collection: Collection | None = None
    kind: Annotated[str, Meta(description="only records of this kind", examples=["message"])] | None = None
    filter: (
        Annotated[
            dict[str, Any],
            Meta(
                description="a condition as /v1/collections takes it, or"
                ' `{"tags": {"in": ["a"]}, "n": {"gte": 3}, "OR": […]}`',
                examples=[{"sure": {"gte": 0.5}}],
            ),
        ]
        | None
    ) = None
    mode: Annotated[
        Literal["auto", "text", "vector", "hybrid"],
        Meta(description="by words, by vectors, by both; auto: both where both are to be had"),
    ] = "auto"
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX, description="the best so many")] = 50
    at: At | Told | None = None
    min_score: Annotated[float, Meta(ge=0, le=1, description="nothing that scores less")] | None = None
    explain: Annotated[bool, Meta(description="say what each score is made of")] = False
    vector: Numbers | None = None
    identity: Annotated[Identity, Meta(description="of the index whose function made the vector")] | None = None


class Hit(Version, kw_only=True):
    """A record that was found: a version with its score, the best has 1. `parts` say what it is made of, if asked."""

    score: float
    parts: dict[str, Any] | None


class Hits(msgspec.Struct):
    """What was found, the best first.

    `mode` is how it was looked for in the end; `partial`: something may be missing, as an index is behind; `pending`
    records wait to be embedded, and are found by their words alone.
    """

    hits: list[Hit]
    mode: Literal["text", "vector", "hybrid"]
    partial: bool
    pending: int

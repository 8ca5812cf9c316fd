"""What a search and an index of vectors are asked with over HTTP, and the shapes of what they answer."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from holdfast import query
from holdfast.hub.shapes import INT64_MAX, ISO_TIME, PRINTED, SECONDS, Agent, Collection, Version
from holdfast.log.hits import IndexStatus
from holdfast.records import NAME_BYTES_MAX
from holdfast.wire import PAGE_MAX

DIMS_MAX: Final = 16_384
LOT_MAX: Final = 64
"""So many texts, or vectors, one request of a filler is about."""
QUERY_CHARS_MAX: Final = 10_000
HOLD_S_MAX: Final = 600
_CURSOR: Final = "^[0-9]{1,18}(\\.[0-9A-Za-z]+@[0-9]{1,18})+$"

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
        extra_json_schema={"pattern": PRINTED},
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
        extra_json_schema={"anyOf": [{"pattern": ISO_TIME}, {"pattern": SECONDS}, {"pattern": _CURSOR}]},
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
    at: At | Annotated[int, Meta(ge=0, le=INT64_MAX, description="or a position")] | None = None
    at_stamp: Annotated[int, Meta(ge=0, le=1 << 60, description="or a time as logs have it")] | None = None
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
    records wait to be embedded, and are found by their words alone. `identity` is that of the index which is searched.
    """

    hits: list[Hit]
    mode: Literal["text", "vector", "hybrid"]
    partial: bool
    pending: int
    identity: str | None


# -- indexes of vectors -----------------------------------------------------------------------------------------------


class NewIndex(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How vectors are to be made of a collection's values: all of it is part of the index's identity."""

    model: Annotated[
        str,
        Meta(min_length=1, max_length=200, description="the name of the model", extra_json_schema={"pattern": "\\S"}),
    ]
    fields: Annotated[
        tuple[Field, ...], Meta(max_length=32, description="what of a value is embedded; none: all its texts")
    ] = ()
    dims: (
        Annotated[int, Meta(ge=1, le=DIMS_MAX, description="numbers of a vector; as they come, unless said")] | None
    ) = None
    chunk: Annotated[int, Meta(ge=0, le=1 << 20, description="letters of a piece of text; 0: never cut")] | None = None


class IndexesShown(msgspec.Struct, frozen=True):
    """The indexes of vectors, by name."""

    indexes: list[IndexStatus]


class Dropped(msgspec.Struct, frozen=True):
    """Whether there was one."""

    dropped: bool


class Wanting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who wants to fill an index, and for how long he wants it for himself."""

    identity: Identity
    filler: Filler
    hold_s: Annotated[float, Meta(gt=0, le=HOLD_S_MAX, description="nobody else is given texts for so long")] = 60.0
    most: Annotated[int, Meta(ge=1, le=LOT_MAX, description="how many records")] = LOT_MAX


class Texts(msgspec.Struct, frozen=True, kw_only=True):
    """A record, and the pieces of its text: each wants a vector."""

    pos: int
    pieces: list[str]


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be embedded next, for whoever holds the index: nobody else is given it for a while.

    `after` and `upto` go back with the vectors, and `failed` (what of it could not even be read) with what failed then.
    Without records there is nothing to do: `held` is false while another filler has the index, and `wait_s` says for
    how long, or for how long the function is to be left alone because it failed; 0: nothing waits.
    """

    held: bool
    wait_s: float
    after: int
    upto: int
    records: list[Texts]
    failed: list[Failure]


class Vectors(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The vectors of one record, one for each piece of its text."""

    pos: Pos
    vectors: Annotated[list[Numbers], Meta(max_length=1024)]


class Failure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the function said of one record."""

    pos: Pos
    error: Annotated[str, Meta(max_length=10_000)]


class Filled(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What became of the texts of a lot; or, with `error`, that the function fails whatever it is given."""

    identity: Identity
    filler: Filler
    after: Annotated[int, Meta(ge=-1, le=INT64_MAX, description="as it came with the texts")] = -1
    upto: Annotated[int, Meta(ge=-1, le=INT64_MAX, description="as it came with the texts")] = -1
    records: Annotated[list[Vectors], Meta(max_length=LOT_MAX)] = []
    failed: Annotated[list[Failure], Meta(max_length=LOT_MAX)] = []
    error: Annotated[str, Meta(max_length=10_000, description="then nothing else is looked at")] = ""
    leave: Annotated[bool, Meta(description="the filler ends: others need not wait for him")] = False


class Kept(msgspec.Struct, frozen=True):
    """Whether it was kept; not, if another filler was faster."""

    kept: bool

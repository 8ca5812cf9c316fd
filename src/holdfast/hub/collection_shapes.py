"""What collections are asked with over HTTP, and the shapes of what they answer."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from holdfast import query
from holdfast.collections.typed.schema import Declared
from holdfast.collections.typed.sums import Sums
from holdfast.hub.shapes import INT64_MAX, PRINTED, Agent, Iso, Writer
from holdfast.records import KEY_BYTES_MAX, NAME_BYTES_MAX
from holdfast.wire import PAGE_MAX

Name = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=NAME_BYTES_MAX,
        description="the collection's",
        examples=["candidates"],
        extra_json_schema={"pattern": "^[^/\\u0000-\\u001f\\u007f]+$"},
    ),
]
ItemKey = Annotated[
    str,
    Meta(
        max_length=KEY_BYTES_MAX, description="of the value", examples=["ada"], extra_json_schema={"pattern": PRINTED}
    ),
]
Field = Annotated[str, Meta(min_length=1, max_length=query.FIELD_CHARS_MAX, examples=["experience_years"])]
Said = Annotated[
    dict[str, Any],
    Meta(
        description='`{"field", "op", "value"}`, where op is one of eq in lt le gt ge starts exists text; or'
        ' `{"all": […]}`, `{"any": […]}`, `{"not": …}` of such; none: every value',
        examples=[{"field": "skills", "op": "eq", "value": "Python"}],
    ),
]
Whose = Annotated[Agent, Meta(description="only this agent's values")]


class Asking(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which values are wanted."""

    condition: Said | None = None
    order: Annotated[tuple[Field, ...], Meta(max_length=4, description="fields; with a minus the largest first")] = ()
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX, description="how many at most")] = 100
    after: Annotated[str, Meta(max_length=4096, description="`next` of the page before")] = ""
    agent: Whose | None = None
    ended: Annotated[bool, Meta(description="what has ended and was not deleted yet, in place of what is there")] = (
        False
    )


class Counting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which values are counted."""

    condition: Said | None = None
    agent: Whose | None = None


class Adding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which values are added up, and what of them."""

    condition: Said | None = None
    of: Annotated[Field, Meta(description="the field that is added up")] | None = None
    by: Annotated[Field, Meta(description="the field that groups them")] | None = None
    agent: Whose | None = None


class Searching(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Words that are looked for."""

    words: Annotated[str, Meta(min_length=1, description="as /v1/search takes them", examples=["python engines"])]
    fields: Annotated[tuple[Field, ...], Meta(max_length=32, description="where; none: where the schema says")] = ()
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX, description="how many at most")] = 50
    agent: Whose | None = None


class NewItem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A value to set."""

    value: dict[str, Any]
    schema: (
        Annotated[int, Meta(ge=1, le=INT64_MAX, description="the version that it fits; none: the newest")] | None
    ) = None
    ttl_s: Annotated[float, Meta(gt=0, le=1e10, description="seconds after which it is gone")] | None = None


class OfAgent(msgspec.Struct, frozen=True, kw_only=True):
    """Whose value."""

    agent: Agent


class AsAgent(msgspec.Struct, frozen=True, kw_only=True):
    """In whose name."""

    agent: Writer


class ItemShown(msgspec.Struct, frozen=True, kw_only=True):
    """A value of a collection, as it is stored."""

    agent: str
    key: str
    value: Any
    version: int
    etag: str
    time: Iso


class Items(msgspec.Struct, frozen=True, kw_only=True):
    """A page of values in the order asked for; `next` goes into `after`, null is the end."""

    items: list[ItemShown]
    next: str | None


class Counted(msgspec.Struct, frozen=True):
    """How many values there are."""

    count: int


class Groups(msgspec.Struct, frozen=True):
    """What the groups add up to, in the order of what they have in common; `truncated` when there are more."""

    groups: list[Sums]
    truncated: bool


class CollectionShown(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a collection, and how many values it has."""

    name: str
    version: int
    index: list[str]
    text: list[str]
    conflict: str
    expires: bool
    sealed: bool
    agents: dict[str, int]
    count: int | None


class CollectionsShown(msgspec.Struct, frozen=True):
    """The collections that agents have declared, by name."""

    collections: list[CollectionShown]


class SchemaShown(msgspec.Struct, frozen=True, kw_only=True):
    """The newest version of a schema, which version each agent goes by, and the JSON Schema of each version."""

    name: str
    declared: Declared
    agents: dict[str, int]
    versions: dict[str, dict[str, Any] | None]

"""A JSON Schema as msgspec makes it refuses what msgspec refuses, and names the same place."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta

from holdfast.collections.typed.fields import Fields, is_quick
from holdfast.errors import UsageError


class Cat(msgspec.Struct, tag=True):
    """One of two."""

    lives: Annotated[int, Meta(ge=1, lt=10)]


class Dog(msgspec.Struct, tag=True, forbid_unknown_fields=True):
    """The other."""

    name: Annotated[str, Meta(min_length=1, max_length=3, pattern="^[a-z]+$")]


@dataclasses.dataclass
class Owner:
    """Something of each kind."""

    name: str
    pet: Cat | Dog | None = None
    size: Literal["s", "m", 3] = "s"
    marks: Annotated[list[int], Meta(max_length=2)] = dataclasses.field(default_factory=list)
    pair: tuple[str, int] | None = None
    more: dict[str, float] = dataclasses.field(default_factory=dict)
    friends: list[Owner] = dataclasses.field(default_factory=list)
    flag: bool | None = None
    half: Annotated[float, Meta(multiple_of=0.5, gt=-1)] = 0.5
    what: Any = None


SCALARS = st.sampled_from([None, True, 0, 1, 3, 10, -1, 0.5, 0.3, "", "a", "abcd", "B", "s", "Cat", "Dog"])
PETS = st.fixed_dictionaries(
    {"type": st.sampled_from(["Cat", "Dog", "Cow"])}, optional={"lives": SCALARS, "name": SCALARS}
)
LISTS = st.lists(SCALARS, max_size=3)


def owners(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Values that are nearly owners."""
    return st.fixed_dictionaries(
        {},
        optional={
            "name": st.just("Ada") | SCALARS,
            "pet": PETS | SCALARS,
            "size": SCALARS,
            "marks": st.lists(st.integers(0, 3), max_size=3) | LISTS,
            "pair": st.just(["a", 1]) | LISTS,
            "more": st.dictionaries(st.just("k"), SCALARS, max_size=1),
            "friends": st.lists(inner, max_size=2),
            "flag": SCALARS,
            "half": SCALARS,
            "what": SCALARS,
            "other": SCALARS,
        },
    )


@given(st.recursive(owners(SCALARS), owners, max_leaves=3))
@settings(max_examples=300, deadline=None)
def test_the_schema_refuses_what_the_type_refuses(value: Any) -> None:
    fields = Fields(msgspec.json.schema(Owner))
    try:
        msgspec.convert(value, Owner)
    except msgspec.ValidationError:
        assert fields.fault(value) is not None, value
    else:
        assert fields.fault(value) is None, value


@pytest.mark.parametrize(
    ("value", "place", "says"),
    [
        ({"name": "A", "friends": [{"name": "B"}, {"name": 5}]}, "$.friends[1].name", "expected string, got integer"),
        ({"name": "A", "pet": {"type": "Dog", "name": "abcd"}}, "$.pet.name", "expected at most 3 characters, got 4"),
        ({"name": "A", "pet": {"type": "Dog", "name": "X"}}, "$.pet.name", "expected a text like '^[a-z]+$', got 'X'"),
        ({"name": "A", "pair": ["a", "b"]}, "$.pair[1]", "expected integer, got string"),
        ({"name": "A", "marks": [1, 2, 3]}, "$.marks", "expected at most 2 items, got 3"),
        ({"name": "A", "flag": 1}, "$.flag", "expected boolean or null, got integer"),
        ({"name": "A", "half": 0.3}, "$.half", "expected a number that is a multiple of 0.5, got 0.3"),
        ({}, "$.name", "missing"),
        ([], "$", "expected object, got array"),
    ],
)
def test_the_place_is_named(value: Any, place: str, says: str) -> None:
    assert Fields(msgspec.json.schema(Owner)).fault(value) == (place, says)


def test_paths_are_known_by_the_schema() -> None:
    fields = Fields(msgspec.json.schema(Owner))
    for path in ("name", "pet.lives", "pet.name", "friends.friends.friends.pet", "more.anything", "what.so.ever"):
        assert fields.has(path), path
    for path in ("nam", "name.x", "pet.age", "friends.nam", "more.k.x", "size.x"):
        assert not fields.has(path), path
    with pytest.raises(UsageError) as caught:
        fields.check(["friends.nam"], "the order")
    assert caught.value.hint == "did you mean 'friends.name'?"
    assert Fields(None).has("any.thing")


@pytest.mark.parametrize(
    ("pattern", "quick"),
    [
        (r"^[^@ ]+@[^@ ]+\.[a-z]+$", True),
        (r"^\d{4}-\d{2}$", True),
        ("^[a-z_-]+$", True),
        ("(a+)+$", False),
        ("(a|aa)+$", False),
        ("^(a|b){2,}", False),
        ("a*a*a*b", False),
        (r"(?:x+)\1", False),
    ],
)
def test_only_what_cannot_take_long_is_tried(pattern: str, quick: bool) -> None:
    assert is_quick(pattern) is quick
    assert (Fields({"type": "string", "pattern": pattern}).fault("a" * 60 + "!") is not None) is quick


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}},
        {"anyOf": [{"$ref": "#"}, {"$ref": "#"}, {"$ref": "#"}]},
        {"properties": {"a": {"$ref": "#"}}, "anyOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]},
        {"type": "string", "pattern": "["},
        {"properties": {"a": {"properties": {"b": False}}}, "required": ["c"]},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/gone"}}},
    ],
)
def test_whatever_a_stranger_declares_it_ends(schema: dict[str, Any]) -> None:
    fields = Fields(schema)
    fields.fault({"a": {"b": 1}})
    fields.fault("text")
    fields.fault([[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]])
    assert fields.known() is not None
    fields.has("a.b.c")

"""What a condition means, and the bytes by which an index orders what it keeps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import query
from holdfast.errors import UsageError
from holdfast.query import AllOf, from_json, matches, members, sort_key, to_json, where

ADA = {
    "name": "Ada",
    "skills": ["Python", "SQL"],
    "years": 5,
    "address": {"city": "London"},
    "past": [{"firm": "A"}, {"firm": "B", "left": None}],
    "active": True,
    "bio": "Writes engines, in Python and C.",
}


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (where("name") == "Ada", True),
        (where("name") != "Ada", False),
        (where("skills").has("SQL"), True),
        (where("skills").has_all(["SQL", "Python"]), True),
        (where("skills").has_all(["SQL", "Rust"]), False),
        (where("skills").is_in(["Rust", "SQL"]), True),
        (where("years") >= 5, True),
        (where("years") == 5.0, True),
        (where("years") < 5, False),
        (where("years") > "4", False),
        (where("active") == True, True),  # noqa: E712
        (where("active") == 1, False),
        (where("address.city") == "London", True),
        (where("past.firm") == "B", True),
        (where("past.left").exists(), False),
        (where("nothing") == None, True),  # noqa: E711
        (where("nothing") != "x", True),
        (where("nothing") < 3, False),
        (where("name").starts("A"), True),
        (where("bio").text("python ENGINES"), True),
        (where("bio").text("python java"), False),
        ((where("years") > 9) | (where("name") == "Ada") & ~(where("active") == False), True),  # noqa: E712
        (AllOf(), True),
        (query.AnyOf(), False),
    ],
)
def test_a_condition_holds_or_not_and_the_same_after_a_way_as_json(condition: query.Condition, holds: bool) -> None:
    assert matches(condition, ADA) is holds
    assert matches(from_json(to_json(condition)), ADA) is holds


def test_a_path_spreads_over_the_lists_on_its_way() -> None:
    assert members(ADA, "past.firm") == ["A", "B"]
    assert members([1, [2, None]], "x") == []
    assert members("text", "x") == []


@pytest.mark.parametrize(
    "said",
    [
        None,
        {},
        {"field": "a", "op": "eq"},
        {"field": "", "op": "eq", "value": 1},
        {"field": "a..b", "op": "eq", "value": 1},
        {"field": "a", "op": "near", "value": 1},
        {"field": "a", "op": "lt", "value": None},
        {"field": "a", "op": "lt", "value": True},
        {"field": "a", "op": "in", "value": "text"},
        {"field": "a", "op": "in", "value": [[]]},
        {"field": "a", "op": "eq", "value": {"b": 1}},
        {"field": "a", "op": "eq", "value": float("nan")},
        {"field": "a", "op": "text", "value": "  "},
        {"field": 3, "op": "eq", "value": 1},
        {"field": "a", "op": [], "value": 1},
        {"all": {"field": "a", "op": "eq", "value": 1}},
        {"all": [], "any": []},
        {"all": [{"field": "a", "op": "eq", "value": 1}] * 101},
    ],
)
def test_what_is_no_condition_is_refused(said: Any) -> None:
    with pytest.raises(UsageError):
        from_json(said)


def test_a_condition_that_nests_without_end_is_refused() -> None:
    said: Any = {"field": "a", "op": "eq", "value": 1}
    for _ in range(100_000):
        said = {"not": said}
    with pytest.raises(UsageError):
        from_json(said)


def test_conditions_are_not_joined_by_and_or_not() -> None:
    """Python would take the second alone, and find what nobody asked for."""
    one, other = where("name") == "Ada", where("years") > 9
    for joined in (
        lambda: one and other,
        lambda: one or other,
        lambda: not one,
        lambda: 3 <= where("years") <= 5,  # type: ignore[operator]
        lambda: [key for key in ADA if where("name") == key],
    ):
        with pytest.raises(UsageError, match="neither true nor false") as caught:
            joined()
        assert "&" in caught.value.hint
    assert one == (where("name") == "Ada").__class__(field="name", op="eq", value="Ada")


_numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False)
_texts = st.text(max_size=30)


@given(_numbers, _numbers)
def test_numbers_sort_by_their_bytes(one: float, other: float) -> None:
    assert (one < other, one == other) == (sort_key(one) < sort_key(other), sort_key(one) == sort_key(other))  # type: ignore[operator]


@given(_texts, _texts)
def test_texts_sort_by_their_bytes(one: str, other: str) -> None:
    assert (one < other) == (sort_key(one) < sort_key(other))  # type: ignore[operator]


def test_kinds_sort_apart_and_a_long_text_is_known_to_be_cut() -> None:
    keys = [sort_key(each) for each in (None, False, True, -(10**400), 3, 10**400, "", "a")]
    assert keys == sorted(keys, key=lambda key: key or b"")
    assert len(set(keys)) == len(keys)
    assert query.told_apart("a" * 199)
    assert not query.told_apart("a" * 200)
    assert not query.told_apart(2**53 + 1)
    assert query.sort_keys(ADA, "skills") == [b"\x30Python", b"\x30SQL"]
    assert query.sort_keys(ADA, "nothing") == [query.ABSENT]
    assert sort_key({}) is None

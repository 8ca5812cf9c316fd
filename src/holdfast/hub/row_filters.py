"""The filters of /relay/query: which rows of a table pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from holdfast.errors import UsageError

FILTERS: Final = {
    "additionalProperties": {
        "anyOf": [
            {"type": ["string", "number", "boolean", "null", "array"]},
            {
                "type": "object",
                "properties": {"in": {"type": "array"}, "exists": {"type": "boolean"}}
                | {name: {} for name in ("eq", "ne", "gt", "gte", "lt", "lte", "contains")},
                "additionalProperties": False,
            },
        ]
    }
}
"""What a filter may be, as JSON Schema."""

Test = Callable[[dict[str, Any]], bool]


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def test(have: Any, want: Any) -> bool:
        try:
            return have is not None and compare(have, want)
        except TypeError:
            return False  # a text is neither more nor less than a number

    return test


_TESTS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "eq": lambda have, want: bool(have == want),
    "ne": lambda have, want: bool(have != want),
    "gt": _ordered(lambda have, want: have > want),
    "gte": _ordered(lambda have, want: have >= want),
    "lt": _ordered(lambda have, want: have < want),
    "lte": _ordered(lambda have, want: have <= want),
    "in": lambda have, want: have in want,
    "contains": lambda have, want: isinstance(have, str | list | dict) and _contains(have, want),
    "exists": lambda have, want: (have is not None) == want,
}


def _contains(have: Any, want: Any) -> bool:
    if isinstance(have, str):
        return isinstance(want, str) and want in have
    return all(each in have for each in want) if isinstance(want, list) else want in have


def filters(asked: Any) -> list[Test]:
    """The tests that a row must pass.

    Raises:
        UsageError: an operator that is none of ours, or a value it cannot compare with.
    """
    if not isinstance(asked, dict):
        raise UsageError("filters are an object", hint='{"status": "open", "age": {"gte": 3}}')
    tests: list[Test] = []
    for field, given in asked.items():
        wanted = given if isinstance(given, dict) and given else {"eq": given}
        for name, value in wanted.items():
            if name not in _TESTS:
                raise UsageError(f"unknown operator {name!r:.80} on {field!r:.80}", hint=f"one of {', '.join(_TESTS)}")
            if name == "in" and not isinstance(value, list):
                raise UsageError(f"'in' on {field!r:.80} needs a list", hint='{"in": ["a", "b"]}')
            if name == "exists" and not isinstance(value, bool):
                raise UsageError(f"'exists' on {field!r:.80} needs true or false", hint='{"exists": true}')
            tests.append(_test(field, _TESTS[name], value))
    return tests


def _test(field: str, compare: Callable[[Any, Any], bool], want: Any) -> Test:
    def test(row: dict[str, Any]) -> bool:
        have: Any = row.get(field)
        if have is None and "." in field:
            have = row
            for part in field.split("."):
                have = have.get(part) if isinstance(have, dict) else None
        return compare(have, want)

    return test

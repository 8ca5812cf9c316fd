"""What is asked of a collection: conditions on the fields of its values, how they are ordered, and where a page begins.

    where("skills").has("Python") & (where("experience_years") >= 3)

Pure: what a condition means is said here once (`matches`), whichever index or engine answers it. A field is a path
(``address.city``); where it leads through lists it stands for all their members, and a condition holds if it holds
for one of them. Values of two kinds (a text and a number) are never equal, and neither is more or less than the other.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec

from holdfast.errors import UsageError

Op: TypeAlias = Literal["eq", "in", "lt", "le", "gt", "ge", "starts", "exists", "text"]
OPS: Final = get_args(Op)
PARTS_MAX: Final = 100
"""So many tests one condition may hold."""
DEPTH_MAX: Final = 16
VALUES_MAX: Final = 1000
"""So many values one `in` may name."""
FIELD_CHARS_MAX: Final = 200
SORTED_BYTES_MAX: Final = 200
"""So much of a text an index keeps: longer ones are told apart by looking at the value."""
ABSENT: Final = b"\x00"
"""Stands in an index for a value that has nothing, or only null, at a field."""
_FALSE: Final = b"\x10"
_TRUE: Final = b"\x11"
_NUMBER: Final = b"\x20"
_TEXT: Final = b"\x30"
_EXACT: Final = 1 << 53
_WORD: Final = re.compile(r"\w+")
Scalar: TypeAlias = str | int | float | bool | None


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """What conditions have in common: ``&``, ``|`` and ``~`` make one of them."""

    def __and__(self, other: Condition) -> AllOf:
        return AllOf(all=(self, other))

    def __or__(self, other: Condition) -> AnyOf:
        return AnyOf(any=(self, other))

    def __invert__(self) -> Not:
        return Not(no=self)

    def __bool__(self) -> bool:
        # `where(…) and where(…)` would be the second alone, and find what was not asked for.
        raise UsageError(
            "a condition is neither true nor false",
            hint="join conditions by & | ~, not by and, or, not; 3 <= x <= 5 is (x >= 3) & (x <= 5)",
        )


class Test(Joined, frozen=True, kw_only=True):
    """One field held against a value.

    `in` takes a list, `exists` true or false, `starts` and `text` (all of these words, in any order) a text.
    """

    __test__ = False  # no test class of pytest's
    field: str
    op: Op
    value: Any


class AllOf(Joined, frozen=True, kw_only=True):
    """Every part holds; of none, always."""

    all: tuple[Any, ...] = ()


class AnyOf(Joined, frozen=True, kw_only=True):
    """One part at least holds; of none, never."""

    any: tuple[Any, ...] = ()


class Not(Joined, frozen=True, kw_only=True):
    """The part does not hold."""

    no: Any = msgspec.field(name="not")


Condition: TypeAlias = Test | AllOf | AnyOf | Not
EVERYTHING: Final = AllOf()


class where:
    """The beginning of a condition: a field, to be compared.

    Args:
        field: a name, or a path of names with dots between them.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, field: str) -> None:
        self._field = check_field(field)

    def _test(self, op: Op, value: Any) -> Test:
        return checked(Test(field=self._field, op=op, value=value))  # type: ignore[return-value]

    def __eq__(self, value: object) -> Test:  # type: ignore[override]
        return self._test("eq", value)

    def __ne__(self, value: object) -> Not:  # type: ignore[override]
        return Not(no=self._test("eq", value))

    def __lt__(self, value: str | float) -> Test:
        return self._test("lt", value)

    def __le__(self, value: str | float) -> Test:
        return self._test("le", value)

    def __gt__(self, value: str | float) -> Test:
        return self._test("gt", value)

    def __ge__(self, value: str | float) -> Test:
        return self._test("ge", value)

    def has(self, value: Scalar) -> Test:
        """A member of the list is this value."""
        return self._test("eq", value)

    def has_all(self, values: Sequence[Scalar]) -> AllOf:
        """Each of these values is a member of the list."""
        return AllOf(all=tuple(self._test("eq", value) for value in values))

    def is_in(self, values: Sequence[Scalar]) -> Test:
        """It, or a member of it, is one of these values."""
        return self._test("in", tuple(values))

    def starts(self, prefix: str) -> Test:
        """The text begins so."""
        return self._test("starts", prefix)

    def exists(self, there: bool = True) -> Test:
        """It is there, and not null."""
        return self._test("exists", there)

    def text(self, words: str) -> Test:
        """The text holds each of these words, whatever their case and order."""
        return self._test("text", words)


def matches(condition: Condition, value: Any) -> bool:
    """Whether a JSON value meets a condition: what every engine must agree with.

    Args:
        condition: as `checked` passed it.
        value: the value; one that is no object has no fields.
    """
    if isinstance(condition, Test):
        return _TESTS[condition.op](members(value, condition.field), condition.value)
    if isinstance(condition, AllOf):
        return all(matches(part, value) for part in condition.all)
    if isinstance(condition, AnyOf):
        return any(matches(part, value) for part in condition.any)
    return not matches(condition.no, value)


def members(value: Any, field: str) -> list[Any]:
    """What a value holds at a field: each member where lists are on the way or at its end; nulls are left out."""
    found = [value]
    for name in field.split("."):
        found = [each[name] for each in _spread(found) if isinstance(each, dict) and name in each]
    return [each for each in _spread(found) if each is not None]


def _spread(values: Sequence[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _spread(value)
        else:
            yield value


def sort_key(value: Any) -> bytes | None:
    """The bytes by which an index orders a member of a field, the same on every engine; None for what has no order.

    False, true, numbers, texts: in this order. A text keeps its first 200 bytes, and a whole number above 2⁵³ its
    nearest float: whoever finds one of these by its bytes looks at the value too (`told_apart`).
    """
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return _TRUE if value else _FALSE
    if isinstance(value, int | float):
        return _NUMBER + _ordered(value)
    if isinstance(value, str):
        return _TEXT + value.encode("utf-8", "surrogatepass")[:SORTED_BYTES_MAX]
    return None


def sort_keys(value: Any, field: str) -> list[bytes]:
    """What an index keeps of a value at a field, each once and in order: never nothing, `ABSENT` if there is none."""
    found = {key for each in members(value, field) if (key := sort_key(each)) is not None}
    return sorted(found) or [ABSENT]


def told_apart(value: Any) -> bool:
    """Whether the bytes of `sort_key` are this value's alone."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass")) < SORTED_BYTES_MAX
    return isinstance(value, bool) or value is None or (isinstance(value, int | float) and abs(value) <= _EXACT)


def _ordered(value: float) -> bytes:
    try:
        number = float(value)
    except OverflowError:
        number = float("inf") if value > 0 else float("-inf")
    (bits,) = struct.unpack(">Q", struct.pack(">d", number + 0.0))  # -0.0 + 0.0 is 0.0
    return struct.pack(">Q", bits ^ (0xFFFFFFFFFFFFFFFF if bits >> 63 else 1 << 63))


def tests_in(condition: Condition) -> Iterator[Test]:
    """Every test that a condition is made of."""
    if isinstance(condition, Test):
        yield condition
        return
    for part in (condition.no,) if isinstance(condition, Not) else _parts(condition):
        yield from tests_in(part)


def checked(condition: Condition, _depth: int = 0) -> Condition:
    """The condition itself, if every part of it can be answered.

    Raises:
        UsageError: an operator with a value that it cannot take, or too many parts.
    """
    if _depth > DEPTH_MAX:
        raise UsageError(f"a condition nests more than {DEPTH_MAX} deep", hint="say it with fewer brackets")
    if isinstance(condition, Test):
        _check(condition)
    elif isinstance(condition, AllOf | AnyOf | Not):
        for part in (condition.no,) if isinstance(condition, Not) else _parts(condition):
            checked(part, _depth + 1)
        if not _depth and sum(1 for _ in tests_in(condition)) > PARTS_MAX:
            raise UsageError(f"a condition has more than {PARTS_MAX} tests", hint="`in` takes many values at once")
    else:
        raise UsageError(f"no condition: {condition!r:.80}", hint='such as where("skills").has("Python")')
    return condition


def check_field(field: str) -> str:
    """The field itself, if it can be one.

    Raises:
        UsageError: it is empty, or holds an empty name, or is no text.
    """
    if not isinstance(field, str) or not all(field.split(".")) or len(field) > FIELD_CHARS_MAX or "\0" in field:
        raise UsageError(f"no field: {field!r:.80}", hint="a name, or names with dots between them: address.city")
    return field


def to_json(condition: Condition) -> Any:
    """A condition as JSON values: ``{"field", "op", "value"}``, ``{"all": […]}``, ``{"any": […]}``, ``{"not": …}``."""
    return msgspec.to_builtins(condition)


def from_json(said: Any) -> Condition:
    """The condition that JSON values stand for.

    Raises:
        UsageError: they stand for none.
    """
    return checked(_read(said, 0))


def read_condition(said: Any) -> Condition:
    """The condition that is meant: one already, its JSON, or the dictionary form of `from_filters`.

    Raises:
        UsageError: it is none of these.
    """
    if isinstance(said, Joined):
        return checked(said)  # type: ignore[arg-type]
    if isinstance(said, dict) and said.keys() in ({"field", "op", "value"}, {"all"}, {"any"}, {"not"}):
        return from_json(said)
    return checked(from_filters(said))


def from_filters(said: Any, _depth: int = 0) -> Condition:
    """The condition that a dictionary of filters means, as vector stores take it.

    ``{"tags": {"in": ["a"]}, "n": {"gte": 3}, "OR": [{…}, {…}]}``: all of its entries must hold. A field is compared
    with a value, with a list of values (one of them), or by operators: eq ne in nin gt gte lt lte contains exists, each
    also with a ``$`` before it, as AND, OR and NOT (``$and``). ``contains`` holds for a list with this member and for a
    text with these words; NOT of several: for whatever meets none.

    Raises:
        UsageError: an operator that is none, or one with a value that it cannot take.
    """
    if _depth > DEPTH_MAX:
        raise UsageError(f"a filter nests more than {DEPTH_MAX} deep", hint="say it with fewer brackets")
    if not isinstance(said, dict):
        hint = 'such as {"tags": {"in": ["tea"]}}, or where("tags").has("tea")'
        raise UsageError(f"a filter is an object, not {type(said).__name__}", hint=hint)
    parts: list[Condition] = []
    for name, value in said.items():
        joint = _joint(name)
        if joint is None:
            parts += _compared(name, value)
            continue
        inner = tuple(
            from_filters(each, _depth + 1) for each in (value if isinstance(value, list | tuple) else [value])
        )
        some = AllOf(all=inner) if joint == "AND" else AnyOf(any=inner)
        parts.append(Not(no=some) if joint == "NOT" else some)
    return parts[0] if len(parts) == 1 else AllOf(all=tuple(parts))


def _joint(name: Any) -> str | None:
    """AND, OR or NOT, if that is what a name of a filter says; None for a field."""
    if not isinstance(name, str):
        raise UsageError(f"no field: {name!r:.80}", hint="a name, or names with dots between them: address.city")
    if name in _JOINTS:
        return name
    if not name.startswith("$"):
        return None
    if name[1:].upper() not in _JOINTS:
        raise _unknown(name, [f"${each.lower()}" for each in _JOINTS])
    return name[1:].upper()


def _compared(field: str, value: Any) -> list[Condition]:
    if isinstance(value, list | tuple):
        value = {"in": value}
    if not isinstance(value, dict):
        return [checked(Test(field=field, op="eq", value=value))]
    if not value:
        raise UsageError(f"{field}: no operator", hint=f"one of {', '.join(_FILTERS)}")
    found: list[Condition] = []
    for op, want in value.items():
        plain = op.removeprefix("$") if isinstance(op, str) else op
        if plain not in _FILTERS:
            raise _unknown(op, _FILTERS, hint=f'a field within another is written "{field}.{op}"')
        found.append(checked(_FILTERS[plain](field, tuple(want) if isinstance(want, list) else want)))
    return found


def _unknown(op: Any, known: Iterable[str], hint: str = "") -> UsageError:
    from difflib import get_close_matches

    near = get_close_matches(str(op).lower(), [*known], n=1, cutoff=0.5)
    meant = f"did you mean {near[0]!r}? " if near else ""
    return UsageError(
        f"unknown filter operator {op!r:.80}",
        hint=f"{meant}There are {', '.join(known)}" + (f"; {hint:.200}" if hint and not near else ""),
    )


def _contains(field: str, value: Any) -> Condition:
    member = Test(field=field, op="eq", value=value)
    if isinstance(value, str) and words_of(value):
        return AnyOf(any=(member, Test(field=field, op="text", value=value)))
    return member


_JOINTS: Final = ("AND", "OR", "NOT")
_FILTERS: Final[dict[str, Callable[[str, Any], Condition]]] = {
    "eq": lambda field, value: Test(field=field, op="eq", value=value),
    "ne": lambda field, value: Not(no=Test(field=field, op="eq", value=value)),
    "in": lambda field, value: Test(field=field, op="in", value=value),
    "nin": lambda field, value: Not(no=Test(field=field, op="in", value=value)),
    "gt": lambda field, value: Test(field=field, op="gt", value=value),
    "gte": lambda field, value: Test(field=field, op="ge", value=value),
    "lt": lambda field, value: Test(field=field, op="lt", value=value),
    "lte": lambda field, value: Test(field=field, op="le", value=value),
    "contains": _contains,
    "exists": lambda field, value: Test(field=field, op="exists", value=value),
}


def _read(said: Any, depth: int) -> Condition:
    if depth > DEPTH_MAX:
        raise UsageError(f"a condition nests more than {DEPTH_MAX} deep", hint="say it with fewer brackets")
    if not isinstance(said, dict):
        hint = 'such as {"field": "skills", "op": "eq", "value": "Python"}'
        raise UsageError(f"a condition is an object, not {type(said).__name__}", hint=hint)
    if said.keys() == {"not"}:
        return Not(no=_read(said["not"], depth + 1))
    for name, kind in (("all", AllOf), ("any", AnyOf)):
        if said.keys() == {name} and isinstance(said[name], list | tuple):
            parts = tuple(_read(part, depth + 1) for part in said[name])
            return kind(**{name: parts})
    if said.keys() != {"field", "op", "value"}:
        hint = "field, op and value; or one of all, any, not"
        raise UsageError(f"no condition: it has {', '.join(map(str, said)) or 'nothing'}", hint=hint)
    value = tuple(said["value"]) if isinstance(said["value"], list) else said["value"]
    return Test(field=said["field"], op=said["op"], value=value)


def _parts(condition: Condition) -> tuple[Any, ...]:
    return condition.all if isinstance(condition, AllOf) else condition.any  # type: ignore[union-attr]


def _check(test: Test) -> None:
    check_field(test.field)
    op, value = test.op, test.value
    if op not in OPS:
        raise UsageError(f"unknown operator {op!r:.80}", hint=f"one of {', '.join(OPS)}")
    if op == "in":
        fits = isinstance(value, list | tuple) and len(value) <= VALUES_MAX and all(map(_scalar, value))
        wants = f"a list of at most {VALUES_MAX} texts, numbers, true, false or null"
    elif op == "exists":
        fits, wants = isinstance(value, bool), "true or false"
    elif op == "eq":
        fits, wants = _scalar(value), "a text, a number, true, false or null"
    elif op in ("starts", "text"):
        fits, wants = isinstance(value, str) and bool(op == "starts" or words_of(value)), "a text"
    else:
        fits, wants = _scalar(value) and not isinstance(value, bool | None), "a text or a number"
    if not fits:
        raise UsageError(f"{test.field} {op} {value!r:.80}: cannot be answered", hint=f"{op} takes {wants}")


def _scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and value == value)


def words_of(text: str) -> list[str]:
    """The words of a text, as `text` compares them."""
    return _WORD.findall(text.casefold())


def _same(have: Any, want: Any) -> bool:
    return (type(have) is type(want) and have == want) or (_number(have) and _number(want) and bool(have == want))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equal(found: list[Any], want: Any) -> bool:
    return not found if want is None else any(_same(each, want) for each in found)


def _ordering(holds: Callable[[Any, Any], bool]) -> Callable[[list[Any], Any], bool]:
    def test(found: list[Any], want: Any) -> bool:
        if isinstance(want, str):
            return any(isinstance(each, str) and holds(each, want) for each in found)
        return any(_number(each) and holds(each, want) for each in found)

    return test


def _worded(found: list[Any], want: str) -> bool:
    wanted = set(words_of(want))
    return any(isinstance(each, str) and wanted <= set(words_of(each)) for each in found)


_TESTS: Final[dict[str, Callable[[list[Any], Any], bool]]] = {
    "eq": _equal,
    "in": lambda found, want: any(_equal(found, each) for each in want),
    "lt": _ordering(lambda have, want: have < want),
    "le": _ordering(lambda have, want: have <= want),
    "gt": _ordering(lambda have, want: have > want),
    "ge": _ordering(lambda have, want: have >= want),
    "starts": lambda found, want: any(isinstance(each, str) and each.startswith(want) for each in found),
    "exists": lambda found, want: bool(found) == want,
    "text": _worded,
}

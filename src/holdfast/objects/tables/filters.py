"""Filters of tables: the part of OData that Azure Table Storage has, read once, for SQL and for Azure.

    PartitionKey eq 'agent_ceo' and (priority ge 3 or not (state eq 'done'))

``eq ne gt ge lt le`` between a property and a literal, ``and or not``, parentheses. Literals: ``'it''s'``, ``5``,
``5L``, ``5.0``, ``true``, ``datetime'2026-01-06T12:00:00Z'``, ``guid'…'`` and ``X'00ff'``. Azure compares values of
one type only, and it has two types of integers: ``5`` and ``5L`` both stand for either here. ``5.0`` is for floats.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, TypeAlias
from uuid import UUID

import msgspec

from holdfast.errors import StorageRefused
from holdfast.objects.tables.keys import LAST, ordered, write_key
from holdfast.objects.tables.limits import INT_MAX, KEYS, Value

COMPARISONS_MAX: Final = 15
"""Azure's limit; one with an integer that fits 32 bits is two for it, which has two types of them; with ``ne`` four."""
LENGTH_MAX: Final = 32_000
_DEPTH_MAX: Final = 50
_SIGNS: Final = {"eq": "=", "ne": "<>", "gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_COMPARE: Final = {name: getattr(operator, name) for name in _SIGNS}
_UNORDERED: Final = (bool, bytes, UUID)
_TOKEN: Final = re.compile(
    r"""\s*(?:
      (?P<paren>[()])
    | (?P<typed>datetime|guid|binary|X)'(?P<inner>[^']*)'
    | '(?P<text>(?:[^']|'')*)'
    | (?P<number>[+-]?\d+(?:(?P<long>L)\b|(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.]))
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<end>\Z)
    )""",
    re.VERBOSE | re.IGNORECASE,
)


class Comparison(msgspec.Struct, frozen=True):
    """A property held against a literal; `sign` is one of ``eq ne gt ge lt le``."""

    name: str
    sign: str
    literal: Value


class Both(msgspec.Struct, frozen=True):
    """Two conditions, both of which must hold."""

    left: Node
    right: Node


class Either(msgspec.Struct, frozen=True):
    """Two conditions, one of which must hold."""

    left: Node
    right: Node


class Not(msgspec.Struct, frozen=True):
    """A condition that must not hold."""

    node: Node


Node: TypeAlias = Comparison | Both | Either | Not


def parse(text: str) -> Node | None:
    """The filter as a tree; None for an empty one, which all entities pass.

    Raises:
        StorageRefused: not a filter, or one that Azure would refuse; the place is named.
    """
    if not isinstance(text, str):
        raise StorageRefused(f"a filter is text, not {type(text).__name__}: {text!r:.80}")
    if len(text) > LENGTH_MAX:
        raise StorageRefused(f"a filter of {len(text)} characters, {LENGTH_MAX} are allowed")
    if not text.strip():
        return None
    return _Parser(text).whole()


def quote(value: Value) -> str:
    """A value as a literal of a filter: never put text between quotes by hand.

    Raises:
        StorageRefused: there is no literal for it.
    """
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and -INT_MAX - 1 <= value <= INT_MAX:
        return str(value) if _short(value) else f"{value}L"
    if isinstance(value, float) and value - value == 0:
        number = format(Decimal(repr(value)), "f")
        return number if "." in number else number + ".0"
    if isinstance(value, bytes):
        return f"X'{value.hex()}'"
    if isinstance(value, datetime) and value.tzinfo is not None:
        return f"datetime'{value.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z'"
    if isinstance(value, UUID):
        return f"guid'{value}'"
    raise StorageRefused(f"no filter can hold {value!r:.80}")


def starts_with(name: str, prefix: str) -> str:
    """The filter of texts that begin so: a range, since there is nothing else for it.

    Args:
        name: ``RowKey``, ``PartitionKey`` or a property that holds text.
        prefix: not empty.
    """
    if not prefix:
        raise StorageRefused("an empty prefix begins every text", hint="leave the condition out")
    last = ord(prefix[-1])
    # In UTF-16 what does not fit 16 bits is written in D800 to DFFF, and so comes before U+E000.
    after = {0xD7FF: 0x10000, 0x10FFFF: 0xE000}.get(last, last + 1)
    return f"{name} ge {quote(prefix)} and {name} lt {quote(prefix[:-1] + chr(after))}"


def to_azure(node: Node | None) -> str | None:
    """The filter in Azure's words; None for none."""
    if node is None:
        return None
    if isinstance(node, Not):
        return f"(not {to_azure(node.node)})"
    if isinstance(node, Both):
        return f"({to_azure(node.left)} and {to_azure(node.right)})"
    if isinstance(node, Either):
        return f"({to_azure(node.left)} or {to_azure(node.right)})"
    literal = node.literal
    head = f"{node.name} {node.sign}"
    if node.name in KEYS:
        return f"({head} {quote(write_key(str(literal)))})"
    if isinstance(literal, int) and not isinstance(literal, bool):
        # Others may have stored it as a 32-bit integer; we store all as 64 bits, and Azure compares like with like. Not
        # `ne`: a value of the other type might pass for one that differs.
        literals = [f"{literal}L", str(literal)] if _short(literal) else [f"{literal}L"]
        signs = ("lt", "gt") if node.sign == "ne" else (node.sign,)
        return f"({' or '.join(f'{node.name} {sign} {one}' for one in reversed(literals) for sign in signs)})"
    return f"({head} {quote(literal)})"


def to_sql(node: Node | None, arguments: list[Any]) -> str:
    """The filter as a condition in SQL on the columns ``pk``, ``rk``, ``written`` and ``body``; see `sqlite`."""
    if node is None:
        return "TRUE"
    if isinstance(node, Not):
        return f"(NOT {to_sql(node.node, arguments)})"
    if isinstance(node, Both):
        return f"({to_sql(node.left, arguments)} AND {to_sql(node.right, arguments)})"
    if isinstance(node, Either):
        return f"({to_sql(node.left, arguments)} OR {to_sql(node.right, arguments)})"
    sign = _SIGNS[node.sign]
    if node.name in KEYS:
        arguments.append(ordered(str(node.literal)))
        return f"({'pk' if node.name == 'PartitionKey' else 'rk'} {sign} ?)"
    kind, value = to_json(node.literal)
    if node.name == "Timestamp":
        if kind != "t":
            return "FALSE"
        arguments.append(value)
        return f"(written {sign} ?)"
    path = f"$.{node.name}"
    arguments += [f"{path}[0]", kind, f"{path}[1]", value]
    found = f"(coalesce(json_extract(body, ?) = ? AND json_extract(body, ?) {sign} ?, FALSE))"
    if kind == "d" and node.sign != "eq":
        # JSON has no infinities: they are a kind of their own.
        wanted = {"gt": ("Infinity",), "ge": ("Infinity",), "lt": ("-Infinity",), "le": ("-Infinity",)}
        names = wanted.get(node.sign, ("Infinity", "-Infinity"))
        arguments += [f"{path}[0]", f"{path}[1]"]
        listed = ", ".join(f"'{name}'" for name in names)
        found = f"({found} OR coalesce(json_extract(body, ?) = 'x' AND json_extract(body, ?) IN ({listed}), FALSE))"
    return found


def holds(node: Node | None, entity: Mapping[str, Value]) -> bool:
    """Whether an entity passes the filter: what a filter means, for stores in memory and for tests."""
    if node is None:
        return True
    if isinstance(node, Not):
        return not holds(node.node, entity)
    if isinstance(node, Both):
        return holds(node.left, entity) and holds(node.right, entity)
    if isinstance(node, Either):
        return holds(node.left, entity) or holds(node.right, entity)
    value: Any = entity.get(node.name)
    literal: Any = node.literal
    if type(value) is not type(literal) or value != value:
        return False
    if node.name in KEYS:
        value, literal = ordered(value), ordered(literal)
    return bool(_COMPARE[node.sign](value, literal))


def to_json(value: Value) -> tuple[str, str | bool | int | float]:
    """The value's kind in one letter, and what stands for it in JSON, in the value's order."""
    if isinstance(value, str):
        return "s", value
    if isinstance(value, bool):
        return "o", value
    if isinstance(value, int):
        return "i", value
    if isinstance(value, float):
        if value - value == 0:
            return "d", value
        return "x", "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bytes):
        return "b", value.hex()
    if isinstance(value, datetime):
        return "t", micros(value)
    return "g", str(value)


def micros(moment: datetime) -> int:
    """Microseconds since 1970, exactly."""
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _short(literal: Value) -> bool:
    """Whether it is an integer that others may have stored in 32 bits."""
    return isinstance(literal, int) and not isinstance(literal, bool) and -(1 << 31) <= literal < 1 << 31


def _cost(sign: str, literal: Value) -> int:
    """How many comparisons it is for Azure: see `to_azure`."""
    if isinstance(literal, bool) or not isinstance(literal, int):
        return 1
    return (2 if _short(literal) else 1) * (2 if sign == "ne" else 1)


class _Parser:
    """By recursive descent: ``or`` binds least, then ``and``, then ``not``."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._comparisons = 0
        self._found: re.Match[str] = self._look()

    def whole(self) -> Node:
        """The tree of the whole text."""
        node = self._either()
        if self._found["end"] is None:
            raise self._wrong("and, or, or the end")
        return node

    def _look(self) -> re.Match[str]:
        found = _TOKEN.match(self._text, self._at)
        if found is None:
            raise StorageRefused(
                f"cannot read the filter from character {self._at} on: {self._text[self._at :]!r:.80}",
                hint="such as RowKey eq 'it''s' and n ge 5",
            )
        return found

    def _next(self) -> re.Match[str]:
        found, self._at = self._found, self._found.end()
        self._found = self._look()
        return found

    def _word(self, *words: str) -> str:
        word = (self._found["word"] or "").lower()
        if word not in words:
            return ""
        self._next()
        return word

    def _wrong(self, wanted: str) -> StorageRefused:
        found = self._found[0].strip() or "the end"
        return StorageRefused(
            f"a filter has {found!r:.60} at character {self._at}, where {wanted} should be: {self._text!r:.120}",
            hint="such as RowKey eq 'it''s' and n ge 5",
        )

    def _either(self) -> Node:
        node = self._both()
        while self._word("or"):
            node = Either(node, self._both())
        return node

    def _both(self) -> Node:
        node = self._one()
        while self._word("and"):
            node = Both(node, self._one())
        return node

    def _one(self) -> Node:
        self._depth += 1
        if self._depth > _DEPTH_MAX:
            raise StorageRefused(f"a filter may be {_DEPTH_MAX} parentheses deep: {self._text!r:.80}")
        try:
            if self._word("not"):
                return Not(self._one())
            if self._found["paren"] == "(":
                self._next()
                node = self._either()
                if self._found["paren"] != ")":
                    raise self._wrong("a closing parenthesis")
                self._next()
                return node
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> Comparison:
        name = self._found["word"]
        if name is None or name.lower() in (*_SIGNS, "and", "or", "not", "true", "false"):
            raise self._wrong("a property")
        self._next()
        sign = self._word(*_SIGNS)
        if not sign:
            raise self._wrong("eq, ne, gt, ge, lt or le")
        literal = self._literal()
        if name in KEYS:
            # What Azure would make of these in a key is another sign.
            if not isinstance(literal, str) or LAST in literal:
                raise StorageRefused(f"{name} is text: {literal!r:.80} can be no key")
        elif name == "Timestamp" and not isinstance(literal, datetime):
            raise StorageRefused(f"Timestamp is a time: {literal!r:.80}", hint="datetime'2026-01-06T12:00:00Z'")
        if isinstance(literal, _UNORDERED) and sign not in ("eq", "ne"):
            raise StorageRefused(
                f"{name} {sign} {quote(literal):.80}: truth values, bytes and UUIDs have no order that stores share",
                hint="eq and ne compare them",
            )
        # Counted here, before a tree grows too deep to walk.
        self._comparisons += _cost(sign, literal)
        if self._comparisons > COMPARISONS_MAX:
            raise StorageRefused(
                f"a filter may have {COMPARISONS_MAX} comparisons: {self._text!r:.80}",
                hint="one with an integer is two (ne: four); filter by the keys, and look at the rest as it comes",
            )
        return Comparison(name, sign, literal)

    def _literal(self) -> Value:
        found = self._found
        if found["text"] is not None:
            value: Value = found["text"].replace("''", "'")
        elif found["number"] is not None:
            value = self._number(found["number"], long=found["long"] is not None)
        elif found["typed"] is not None:
            value = self._typed(found["typed"].lower(), found["inner"])
        elif (word := (found["word"] or "").lower()) in ("true", "false"):
            value = word == "true"
        else:
            raise self._wrong("a literal")
        self._next()
        return value

    def _number(self, text: str, *, long: bool) -> int | float:
        digits = text[:-1] if long else text
        if not long and any(letter in digits for letter in ".eE"):
            value = float(digits)
            if value - value != 0:
                raise StorageRefused(f"{text:.80} is too large for a float")
            return value
        if len(digits) > 40 or not -INT_MAX - 1 <= int(digits) <= INT_MAX:
            raise StorageRefused(f"{text:.80} has more than 64 bits")
        return int(digits)

    def _typed(self, kind: str, inner: str) -> Value:
        try:
            if kind == "guid":
                return UUID(inner)
            if kind == "datetime":
                moment = datetime.fromisoformat(inner)
                return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
            return bytes.fromhex(inner)
        except (ValueError, OverflowError) as error:
            raise StorageRefused(f"{kind}'{inner:.60}' is none: {error}") from None

"""What the values of a collection may hold, as the JSON Schema says that msgspec makes of a type: its fields by their
paths, and whether a value fits. Pure; the same on a node, which has the type, and on a hub, which has the schema only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from holdfast.errors import UsageError
from holdfast.query import Condition, tests_in

DEPTH_MAX: Final = 64
STEPS_MIN: Final = 5_000
STEPS_EACH: Final = 20
"""So many steps a look may take for each thing in a value: a schema may ask the same again and again."""
SHOWN_DEPTH: Final = 4
SHOWN_MAX: Final = 200
PATTERN_TEXT_MAX: Final = 256
_DEFS: Final = "#/$defs/"
_ANYTHING: Final[Mapping[str, Any]] = {}
_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list, tuple),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_BOUNDS: Final = {
    "minimum": ">=",
    "maximum": "<=",
    "exclusiveMinimum": ">",
    "exclusiveMaximum": "<",
    "multipleOf": "that is a multiple of",
}
_NAMES: Final = {dict: "object", list: "array", tuple: "array", str: "string", bool: "boolean", type(None): "null"}
_ATOMS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]")
_REPEATS = re.compile(r"[*+]|\{\d*,?\d*\}")


class Fields:
    """The fields that values of a JSON Schema have.

    Args:
        schema: as msgspec makes it; None: any object.
    """

    def __init__(self, schema: Mapping[str, Any] | None) -> None:
        self.schema = schema
        self._root = schema or _ANYTHING
        self._defs = self._root.get("$defs", {})

    # -- names ----------------------------------------------------------------------------------------------------

    def has(self, path: str) -> bool:
        """Whether a value may hold something at a path of names with dots between them."""
        here = list(self._choices(self._root))
        for name in path.split("."):
            here = [each for node in here for step in self._under(node, name) for each in self._choices(step)]
            if not here:
                return False
        return True

    def check(self, paths: Iterable[str], what: str) -> None:
        """Returns only if each of these fields can be there.

        Args:
            paths: names, or paths of names.
            what: what they are for, in the message.

        Raises:
            UsageError: one cannot; the hint says which one may have been meant.
        """
        for path in paths:
            if not self.has(path):
                known = self.known()
                from difflib import get_close_matches  # only for a mistake

                near = get_close_matches(path, known, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(known[:20])}"
                raise UsageError(f"{what} names the field {path!r}, which no value has", hint=hint, field=path)

    def check_condition(self, condition: Condition) -> None:
        """The same for the fields of a condition."""
        self.check((test.field for test in tests_in(condition)), "the condition")

    def known(self) -> list[str]:
        """The paths of all fields, outer ones first; of schemas that nest without end, the first few levels."""
        found: list[str] = []
        level = [("", node) for node in self._choices(self._root)]
        for _ in range(SHOWN_DEPTH):
            below = []
            for prefix, node in level:
                for name, child in node.get("properties", {}).items():
                    path = f"{prefix}{name}"
                    if path not in found:
                        found.append(path)
                    below += [(f"{path}.", each) for each in self._choices(child)]
            if len(found) > SHOWN_MAX:
                break
            level = below
        return found[:SHOWN_MAX]

    def _choices(self, node: Any, depth: int = 0, seen: set[str] | None = None) -> Iterator[Mapping[str, Any]]:
        """What a node may stand for: itself without references, its alternatives, and the members of a list."""
        seen = set() if seen is None else seen
        if depth > DEPTH_MAX or not isinstance(node, Mapping):
            return
        ref = node.get("$ref")
        if ref is not None:
            if ref not in seen:
                seen.add(ref)
                yield from self._choices(self.at(ref), depth + 1, seen)
            return
        inner = node.get("anyOf") or node.get("oneOf")
        if not inner and node.get("type") == "array":
            inner = [*node.get("prefixItems", ()), node.get("items", _ANYTHING)]
        if not inner:
            yield node
            return
        for each in inner:
            yield from self._choices(each, depth + 1, seen)

    @staticmethod
    def _under(node: Mapping[str, Any], name: str) -> Iterator[Any]:
        """What an object of a node may hold under a name."""
        if node.get("type", "object") != "object" or "enum" in node or "const" in node:
            return
        properties = node.get("properties", {})
        if name in properties:
            yield properties[name]
            return
        more = node.get("additionalProperties", not properties)
        if more is True:
            yield _ANYTHING
        elif isinstance(more, Mapping):
            yield more

    def at(self, ref: str) -> Any:
        """What a reference refers to."""
        return self._root if ref == "#" else self._defs.get(str(ref).removeprefix(_DEFS), _ANYTHING)

    # -- values ---------------------------------------------------------------------------------------------------

    def fault(self, value: Any) -> tuple[str, str] | None:
        """The first place where a JSON value does not fit, such as ``$.skills[1]``, and why; None: it fits.

        A pattern that may take long is not tried (`is_quick`): who declares a schema is not always who runs it.
        """
        return _Look(self, STEPS_MIN + STEPS_EACH * _things(value)).fault(self._root, value, "$", 0)


class _Look:
    """One look at one value; it ends, whatever the schema is."""

    def __init__(self, fields: Fields, steps: int) -> None:
        self._at = fields.at
        self._left = steps

    def fault(self, node: Any, value: Any, at: str, depth: int) -> tuple[str, str] | None:
        """The first place where a value does not fit a node, and why."""
        self._left -= 1
        if self._left < 0:
            return at, "the schema asks too much of it to be checked"
        if node is True or not node:
            return None if node is not False else (at, "nothing may be here")
        if depth > DEPTH_MAX or not isinstance(node, Mapping):
            return at, "nested too deep"
        if "$ref" in node:
            return self.fault(self._at(node["$ref"]), value, at, depth + 1)
        alternatives = node.get("anyOf") or node.get("oneOf")
        if alternatives:
            told = node.get("discriminator") if isinstance(value, dict) else None
            if isinstance(told, Mapping):
                named = told.get("mapping", _ANYTHING).get(value.get(told.get("propertyName")))
                if named is not None:
                    return self.fault(self._at(named), value, at, depth + 1)
            return self._none_of(alternatives, value, at, depth)
        kind = node.get("type")
        if kind is not None and not _is(value, kind):
            return at, f"expected {kind}, got {name_of(value)}"
        if "enum" in node and not any(_same(value, each) for each in node["enum"]):
            return at, f"expected one of {', '.join(map(repr, node['enum'][:10]))}, got {value!r:.80}"
        if "const" in node and not _same(value, node["const"]):
            return at, f"expected {node['const']!r:.80}, got {value!r:.80}"
        if isinstance(value, str):
            return _text_fault(node, value, at)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _number_fault(node, value, at)
        if isinstance(value, list | tuple):
            return self._list_fault(node, value, at, depth)
        return self._object_fault(node, value, at, depth) if isinstance(value, dict) else None

    def _none_of(self, nodes: Any, value: Any, at: str, depth: int) -> tuple[str, str] | None:
        faults = []
        for node in nodes:
            found = self.fault(node, value, at, depth + 1)
            if found is None:
                return None
            faults.append(found)
        # The one that came deepest is the one that was meant.
        deepest = max(faults, key=lambda fault: len(fault[0]))
        if deepest[0] != at:
            return deepest
        kinds = [fault[1].partition(", got")[0].removeprefix("expected ") for fault in faults]
        return at, f"expected {' or '.join(dict.fromkeys(kinds))}, got {name_of(value)}"

    def _list_fault(self, node: Mapping[str, Any], value: Any, at: str, depth: int) -> tuple[str, str] | None:
        if found := _size_fault(node, len(value), "Items", at):
            return found
        first = node.get("prefixItems", ())
        for number, each in enumerate(value):
            inner = first[number] if number < len(first) else node.get("items", True)
            if inner is False:
                return f"{at}[{number}]", f"expected at most {len(first)} items"
            if found := self.fault(inner, each, f"{at}[{number}]", depth + 1):
                return found
        return None

    def _object_fault(self, node: Mapping[str, Any], value: Any, at: str, depth: int) -> tuple[str, str] | None:
        if found := _size_fault(node, len(value), "Properties", at):
            return found
        for name in node.get("required", ()):
            if name not in value:
                return f"{at}.{name}", "missing"
        properties, more = node.get("properties", {}), node.get("additionalProperties", True)
        for name, each in value.items():
            if name not in properties and more is False:
                return f"{at}.{name}", "unknown field"
            if found := self.fault(properties.get(name, more), each, f"{at}.{name}", depth + 1):
                return found
        return None


def is_quick(pattern: str) -> bool:
    """Whether a regular expression surely takes a short time on a short text: few repeats, and none of a group."""
    bare = _ATOMS.sub("x", pattern)
    if re.search(r"\)\s*[*+{]", bare) or "(?" in bare:
        return False
    return len(_REPEATS.findall(bare)) <= (3 if bare.startswith("^") else 2)


def _things(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(_things, value.values()))
    return 1 + sum(map(_things, value)) if isinstance(value, list | tuple) else 1


def name_of(value: Any) -> str:
    """What JSON calls a value."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "integer" if isinstance(value, int) else "number"
    return _NAMES.get(type(value), type(value).__name__)


def _is(value: Any, kind: Any) -> bool:
    kinds = [kind] if isinstance(kind, str) else kind
    for each in kinds:
        if isinstance(value, bool) and each in ("integer", "number"):
            continue
        if isinstance(value, _KINDS.get(each, (object,))):
            return True
        if each == "integer" and isinstance(value, float) and value.is_integer():
            return True
    return False


def _same(one: Any, other: Any) -> bool:
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _size_fault(node: Mapping[str, Any], size: int, what: str, at: str) -> tuple[str, str] | None:
    least, most = node.get(f"min{what}"), node.get(f"max{what}")
    if least is not None and size < least:
        return at, f"expected at least {least} {what.lower()}, got {size}"
    if most is not None and size > most:
        return at, f"expected at most {most} {what.lower()}, got {size}"
    return None


def _text_fault(node: Mapping[str, Any], value: str, at: str) -> tuple[str, str] | None:
    if found := _size_fault(node, len(value), "Length", at):
        return at, found[1].replace("length", "characters")
    pattern = node.get("pattern")
    if pattern is None or len(value) > PATTERN_TEXT_MAX or not is_quick(pattern):
        return None
    try:
        return None if re.search(pattern, value) else (at, f"expected a text like {pattern!r:.80}, got {value!r:.80}")
    except re.error:
        return None


def _number_fault(node: Mapping[str, Any], value: float, at: str) -> tuple[str, str] | None:
    for name, sign in _BOUNDS.items():
        bound = node.get(name)
        if isinstance(bound, int | float) and not _within(name, value, bound):
            return at, f"expected a number {sign} {bound}, got {value}"
    return None


def _within(name: str, value: float, bound: float) -> bool:
    if name == "multipleOf":
        return not bound or value % bound == 0
    if name.endswith("inimum"):
        return value > bound if name.startswith("ex") else value >= bound
    return value < bound if name.startswith("ex") else value <= bound

"""What differs between two JSON values, place by place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal

import msgspec

MOST: Final = 500
DEPTH: Final = 40
TEXT_SHOWN: Final = 2_000


class Difference(msgspec.Struct):
    """One place where two values differ; `before` or `after` is null where nothing was, as `what` says."""

    path: str
    what: Literal["added", "removed", "changed"]
    before: Any = None
    after: Any = None


class Differences(msgspec.Struct):
    """All places, up to `MOST`; `more` when there are others."""

    places: list[Difference]
    more: bool


def differences(before: Any, after: Any) -> Differences:
    """Where two JSON values differ; objects by their names, lists by their numbers."""
    found: list[Difference] = []
    for each in _walk(before, after, "", 0):
        if len(found) == MOST:
            return Differences(found, True)
        found.append(each)
    return Differences(found, False)


def _walk(before: Any, after: Any, path: str, depth: int) -> Iterator[Difference]:
    if isinstance(before, dict) and isinstance(after, dict) and depth < DEPTH:
        for name in dict.fromkeys([*before, *after]):
            where = f"{path}.{name}" if path else str(name)
            if name not in after:
                yield Difference(where, "removed", before=_short(before[name]))
            elif name not in before:
                yield Difference(where, "added", after=_short(after[name]))
            else:
                yield from _walk(before[name], after[name], where, depth + 1)
    elif isinstance(before, list) and isinstance(after, list) and depth < DEPTH:
        for number in range(max(len(before), len(after))):
            where = f"{path}[{number}]"
            if number >= len(after):
                yield Difference(where, "removed", before=_short(before[number]))
            elif number >= len(before):
                yield Difference(where, "added", after=_short(after[number]))
            else:
                yield from _walk(before[number], after[number], where, depth + 1)
    # A number and a boolean are equal to Python, and not in JSON.
    elif before != after or isinstance(before, bool) is not isinstance(after, bool):
        yield Difference(path or "the value", "changed", before=_short(before), after=_short(after))


def _short(value: Any) -> Any:
    """The value, or as much of it as is worth reading here."""
    if isinstance(value, str):
        return value if len(value) <= TEXT_SHOWN else value[:TEXT_SHOWN] + "…"
    text = msgspec.json.encode(value)
    return value if len(text) <= TEXT_SHOWN else text[:TEXT_SHOWN].decode("utf-8", "ignore") + "…"

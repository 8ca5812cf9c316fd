"""Items of LangGraph's store as rows of a shelf: where they lie, until when, and what a filter says of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from holdfast.corpus.search import WORDS
from holdfast.errors import UsageError
from holdfast.integrations.langgraph import paths
from holdfast.node.shelf import Row, Shelf, every, first
from holdfast.records import KEY_BYTES_MAX

_MARK: Final = "="
"""Before the last segment of an item's key; no segment of a namespace can begin so."""
_REFRESHED: Final = "/t"
"""Behind the key of an item: the row that says it lives on because it was read."""


class Kept(msgspec.Struct):
    """An item that is there, and when its time is over (ms since 1970)."""

    row: Row
    ends: float | None

    @property
    def raw(self) -> dict[str, Any]:
        """Its row."""
        return self.row.raw

    @property
    def namespace(self) -> tuple[str, ...]:
        """Where it lies."""
        told = self.raw.get("ns")
        return tuple(told if told is not None else map(_text, self.row.key.split("/")[:-1]))

    @property
    def key(self) -> str:
        """Its key in there."""
        told = self.raw.get("key")
        return told if told is not None else _text(self.row.key.rpartition("/")[2].removeprefix(_MARK))


def prefix_of(namespace: tuple[str, ...]) -> str:
    """What the keys of a namespace, and of those within it, begin with."""
    return "".join(f"{paths.segment(part)}/" for part in namespace)


def key_of(namespace: tuple[str, ...], key: str) -> str:
    """The key of an item's row.

    Raises:
        UsageError: it would be too long.
    """
    found = f"{prefix_of(namespace)}{_MARK}{paths.segment(key)}"
    if len(found) > KEY_BYTES_MAX - len(_REFRESHED):
        raise UsageError(
            f"namespace and key of {len(found)} bytes; the most is {KEY_BYTES_MAX - len(_REFRESHED)}",
            hint="fewer or shorter parts",
        )
    return found


def named(namespace: tuple[str, ...], key: str) -> dict[str, Any]:
    """What the row must say because its key does not."""
    out: dict[str, Any] = {}
    if any(paths.told(part=part) for part in namespace):
        out["ns"] = list(namespace)
    return out | paths.told(key=key)


def one(shelf: Shelf, namespace: tuple[str, ...], key: str) -> Kept | None:
    """An item, if it is there and its time is not over."""
    path = key_of(namespace, key)
    row = _exactly(shelf, path)
    return None if row is None else _looked_at(shelf, row)


def under(shelf: Shelf, prefix: str) -> list[Kept]:
    """All items below a prefix of keys whose time is not over."""
    rows: list[Row] = []
    marks: dict[str, Row] = {}
    for row in every(shelf, prefix):
        if row.key.endswith(_REFRESHED):
            marks[row.key.removesuffix(_REFRESHED)] = row
        else:
            rows.append(row)
    return [kept for row in rows if (kept := _live(shelf, row, marks.get(row.key))) is not None]


def namespaces(shelf: Shelf, prefix: str = "") -> Iterator[tuple[str, ...]]:
    """Every namespace that holds an item, each once; the items in between are passed over."""
    after = ""
    while (row := first(shelf, prefix, after)) is not None:
        after = row.key
        if row.key.endswith(_REFRESHED):
            continue
        kept = _looked_at(shelf, row)
        if kept is not None:
            yield kept.namespace
            after = row.key.rpartition("/")[0] + "/>" if "/" in row.key else ">"  # > is the sign behind =


def ended(shelf: Shelf, rows: Iterator[Row]) -> list[Row]:
    """Of these rows the items whose time is over, and what was written about them."""
    items: dict[str, Row] = {}
    marks: dict[str, Row] = {}
    for row in rows:
        name = row.key.removesuffix(_REFRESHED)
        (items if name == row.key else marks)[name] = row
    gone = [key for key, row in items.items() if _live(shelf, row, marks.get(key)) is None]
    return [items[key] for key in gone] + [row for key, row in marks.items() if key not in items or key in set(gone)]


def refresh(shelf: Shelf, kept: Kept) -> None:
    """Gives an item that was read its whole time again, unless nearly all of it is left."""
    ttl = kept.raw.get("ttl")
    if ttl is None or kept.ends is None:
        return
    ends = shelf.now_ms() + ttl * 60_000
    if ends - kept.ends > ttl * 60_000 / 64:
        shelf.put(kept.row.key + _REFRESHED, {"ends": ends, WORDS: "", "of": [kept.row.agent, kept.row.version]})


def until(shelf: Shelf, minutes: float | None) -> dict[str, float]:
    """What the row of an item says of its time.

    Raises:
        UsageError: no number of minutes.
    """
    if minutes is None:
        return {}
    if not minutes > 0:
        raise UsageError(f"a ttl of {minutes!r:.40}", hint="minutes, more than 0; None: for ever")
    return {"ttl": float(minutes), "ends": shelf.now_ms() + float(minutes) * 60_000}


def time_of(text: str) -> datetime:
    """A time in a row."""
    return datetime.fromisoformat(text).astimezone(UTC)


def _live(shelf: Shelf, row: Row, mark: Row | None) -> Kept | None:
    ends = row.raw.get("ends")
    if ends is not None and mark is not None and mark.raw.get("of") == [row.agent, row.version]:
        ends = max(ends, mark.raw["ends"])
    return Kept(row, ends) if ends is None or ends > shelf.now_ms() else None


def _looked_at(shelf: Shelf, row: Row) -> Kept | None:
    mark = None if row.raw.get("ends") is None else _exactly(shelf, row.key + _REFRESHED)
    return _live(shelf, row, mark)


def _exactly(shelf: Shelf, path: str) -> Row | None:
    row = first(shelf, path)
    return row if row is not None and row.key == path else None


def _text(part: str) -> str:
    return paths.text_of(part, {}, "")


# -- filters ----------------------------------------------------------------------------------------------------------


def fits(value: Mapping[str, Any], wanted: Mapping[str, Any] | None) -> bool:
    """Whether a value is as a filter says: equal, or by ``$eq $ne $gt $gte $lt $lte``."""
    return not wanted or all(_as(value.get(name), each) for name, each in wanted.items())


def _as(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        if any(str(name).startswith("$") for name in wanted):
            return all(_compared(found, name, each) for name, each in wanted.items())
        return isinstance(found, Mapping) and all(_as(found.get(name), each) for name, each in wanted.items())
    if isinstance(wanted, list | tuple):
        if not isinstance(found, list | tuple) or len(found) != len(wanted):
            return False
        return all(map(_as, found, wanted))
    return bool(found == wanted)


def _compared(found: Any, operator: str, wanted: Any) -> bool:
    if operator == "$eq":
        return bool(found == wanted)
    if operator == "$ne":
        return bool(found != wanted)
    if operator not in ("$gt", "$gte", "$lt", "$lte"):
        # A ValueError, as every store of LangGraph's raises.
        raise UsageError(f"no operator {operator!r:.40}", hint="$eq $ne $gt $gte $lt $lte")
    try:
        one, other = (found, wanted) if isinstance(found, str) and isinstance(wanted, str) else _numbers(found, wanted)
    except (TypeError, ValueError):
        return False  # nothing that is more or less than that
    return {"$gt": one > other, "$gte": one >= other, "$lt": one < other, "$lte": one <= other}[operator]


def _numbers(found: Any, wanted: Any) -> tuple[Any, Any]:
    return float(found), float(wanted)


def matches(namespace: tuple[str, ...], kind: str, path: tuple[str, ...]) -> bool:
    """Whether a namespace begins (``prefix``) or ends (``suffix``) with a path, in which ``*`` is any part.

    Raises:
        UsageError: another kind.
    """
    if kind not in ("prefix", "suffix"):
        raise UsageError(f"no match {kind!r:.40}", hint="prefix or suffix")
    if len(namespace) < len(path):
        return False
    part = namespace[: len(path)] if kind == "prefix" else namespace[len(namespace) - len(path) :]
    return all(wanted in ("*", each) for each, wanted in zip(part, path, strict=True))

"""What rows of checkpoints look like on the shelf: what `threads` tells of them, said shortly.

There are five rows in a turn of a chat, and all of them are kept for ever, so what most of them say has a place and no
name:

    "up": "…"                        "parent"
    "is": [v, ts, …, metadata]       "head" and "meta"; `ts` in millionths of a second since 1970
    [of, crc, w, count]              a list that is the one below (or 1: in the parent)
    [of, crc, w, count, n, text]     a list that has `n` more members than the one below
    "text"                           a value, or what a task wrote, as LangGraph's serialiser makes it
    ["text", [place], …]             the same, in pieces (`sharing`), which any other text here may be as well
    null                             nothing: {"j": null}
    [name, channel, crc]             what a task wrote and was given: a part of a value of its checkpoint
    "pull": "…"                      "task_path": of a task that a channel set off

What does not fit is said in full, and read so; so is all that was written before there was this form.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from holdfast.node.shelf import LOT, Row, Shelf, Span

MSGPACK: Final = "msgpack"
_HEAD: Final = ("v", "ts", "channel_versions", "versions_seen", "updated_channels")
_HEAD_NAMES: Final = frozenset(_HEAD)
_INPUT: Final = "__input__"
_PARENTS: Final = "parents"
_PULL: Final = "~__pregel_pull, "
_LIST: Final = frozenset(("l", "of", "crc", "w"))
_SAME: Final = _LIST | {"same"}
_TEXT: Final = frozenset(("s", "t"))
_NOTHING: Final = {"j": None}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO: Final = timedelta(microseconds=1)


class Rows:
    """A shelf whose rows are said shortly; see `Shelf`."""

    def __init__(self, shelf: Shelf) -> None:
        self.inner = shelf
        self.agent = shelf.agent
        self.here = shelf.here
        self.drop = shelf.drop
        self.drop_all = shelf.drop_all
        self.now_ms = shelf.now_ms

    def scan(self, prefix: str, after: str = "", limit: int = LOT) -> Span:
        """See `Shelf.scan`."""
        span = self.inner.scan(prefix, after, limit)
        return Span([_row(each) for each in span.rows], span.after)

    def near(self, prefix: str, after: str, limit: int) -> list[Row]:
        """The same rows, as they lie there: see `held`."""
        return self.inner.scan(prefix, after, limit).rows

    def put(self, key: str, raw: dict[str, Any], expect: int | None = None) -> None:
        """See `Shelf.put`."""
        self.inner.put(key, short(raw), expect)

    async def aput(self, key: str, raw: dict[str, Any], expect: int | None = None) -> None:
        """See `Shelf.aput`."""
        await self.inner.aput(key, short(raw), expect)

    def put_many(self, rows: Iterable[tuple[str, dict[str, Any]]]) -> None:
        """See `Shelf.put_many`."""
        self.inner.put_many((key, short(raw)) for key, raw in rows)


def _row(row: Row) -> Row:
    out = Row(row.key, row.agent, row.version, row.time, partial(_load, row))
    out.rivals = [_row(each) for each in row.rivals]
    return out


def _load(row: Row) -> dict[str, Any]:
    return full(row.raw)


def short(raw: dict[str, Any]) -> dict[str, Any]:
    """A row as it is put."""
    if "writes" in raw:
        return _short_writes(raw)
    if "values" not in raw:
        return raw
    out = dict(raw)
    parent = out.get("parent")
    if parent is not None:
        out["up"] = out.pop("parent")
    told = _told(raw["head"].get("j"), raw["meta"].get("j"))
    if told:
        del out["head"], out["meta"]
        out["is"] = told
    out["values"] = {name: _short_entry(entry, parent) for name, entry in raw["values"].items()}
    return out


def full(raw: dict[str, Any]) -> dict[str, Any]:
    """What `short` was given."""
    if "writes" in raw:
        return _full_writes(raw)
    if "values" not in raw:
        return raw
    out = dict(raw)
    out.pop("up", None)
    if "is" in out:
        version, micros, versions, seen, updated, meta = out.pop("is")
        head = (version, _time(micros), versions, {_INPUT: {}, **seen}, updated)
        out["head"] = {"j": dict(zip(_HEAD, head, strict=True))}
        out["meta"] = {"j": {_PARENTS: {}, **meta}}
    return out | held(raw)


def held(raw: dict[str, Any]) -> dict[str, Any]:
    """Of a checkpoint's row as it lies there what others build on: its values, and what it is built on itself."""
    parent = raw.get("up")
    out = {"values": {name: _full_entry(entry, parent) for name, entry in raw["values"].items()}}
    return out if parent is None else {"parent": parent, **out}


def _told(head: Any, meta: Any) -> list[Any] | None:
    """All of a checkpoint but its values, by its places; None: it holds something else than most do."""
    if type(meta) is not dict or type(head) is not dict or head.keys() != _HEAD_NAMES:
        return None
    micros = _micros(head["ts"])
    if micros is None or head["versions_seen"].get(_INPUT) != {} or meta.get(_PARENTS) != {}:
        return None
    seen, about = dict(head["versions_seen"]), dict(meta)
    del seen[_INPUT], about[_PARENTS]
    return [head["v"], micros, head["channel_versions"], seen, head["updated_channels"], about]


def _micros(text: Any) -> int | None:
    try:
        found = (datetime.fromisoformat(text) - _EPOCH) // _MICRO
        return found if _time(found) == text else None
    except (TypeError, ValueError, OverflowError):
        return None


def _time(micros: int) -> str:
    return (_EPOCH + micros * _MICRO).isoformat()


def _short_entry(entry: dict[str, Any], parent: str | None) -> Any:
    if "l" not in entry:
        return {"at": 1} if parent is not None and entry.get("at") == parent else _short_value(entry)
    same, steps = entry.get("same", False), entry["l"]
    if not steps or entry.keys() != (_SAME if same else _LIST) or type(steps[0]) is not list or steps[0][0] != 0:
        return entry  # as a list that holds nothing any more
    out = [1 if entry["of"] == parent else entry["of"], entry["crc"], entry["w"], steps[0][1]]
    if len(steps) != (1 if same else 2):
        return entry
    if same:
        return out
    return [*out, steps[1]["n"], steps[1]["s"]] if type(steps[1]) is dict and "s" in steps[1] else entry


def _full_entry(entry: Any, parent: str | None) -> dict[str, Any]:
    if type(entry) is not list or type(entry[1:] and entry[1]) is not int:
        return {"at": parent} if type(entry) is dict and entry.get("at") == 1 else _full_value(entry)
    below, crc, written, count, *new = entry
    steps: list[Any] = [[0, count]]
    out = {"l": steps, "of": parent if below == 1 else below, "crc": crc, "w": written}
    if new:
        steps.append({"n": new[0], "s": new[1]})
    else:
        out["same"] = True
    return out


def _short_writes(raw: dict[str, Any]) -> dict[str, Any]:
    out = {**raw, "writes": [[number, name, _short_value(entry)] for number, name, entry in raw["writes"]]}
    if raw["task_path"].startswith(_PULL):
        out["pull"] = out.pop("task_path").removeprefix(_PULL)
    return out


def _full_writes(raw: dict[str, Any]) -> dict[str, Any]:
    out = {**raw, "writes": [[number, name, _full_value(entry)] for number, name, entry in raw["writes"]]}
    if "pull" in out:
        out["task_path"] = _PULL + out.pop("pull")
    return out


def _short_value(entry: dict[str, Any]) -> Any:
    if entry.get("t") == MSGPACK and entry.keys() == _TEXT:
        return entry["s"]
    if "in" in entry:
        return [*entry["in"], entry["crc"]]
    return None if entry == _NOTHING else entry


def _full_value(entry: Any) -> dict[str, Any]:
    if entry is None:
        return {"j": None}
    if type(entry) is str:
        return {"t": MSGPACK, "s": entry}
    if type(entry) is list:
        return {"in": entry[:-1], "crc": entry[-1]} if type(entry[-1]) is int else {"t": MSGPACK, "s": entry}
    out: dict[str, Any] = entry
    return out

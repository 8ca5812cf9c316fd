"""What is in a checkpoint as a row, and back: values, lists, metadata, and what tasks wrote."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec

from holdfast.integrations.langgraph import messages, paths
from holdfast.integrations.langgraph.door import WRITES_IDX_MAP
from holdfast.integrations.langgraph.lists import Body, Lost, body_of, steps_of
from holdfast.integrations.langgraph.packing import list_body, packed, text_of, unpacked
from holdfast.integrations.langgraph.sharing import Below, Source, apart, said
from holdfast.integrations.langgraph.threads import Around, Found, Threads
from holdfast.node.shelf import Row

MSGPACK: Final = "msgpack"
SMALL: Final = 64
"""A value of so many bytes is said again rather than named."""
SLACK: Final = 4096
_bytes: Final = msgspec.json.Encoder(order="sorted").encode  # a log does not keep the order of names


class Made(msgspec.Struct):
    """A row to be written, the lists in it, and the checkpoint that it is written on top of."""

    key: str
    raw: dict[str, Any]
    bodies: dict[str, Body]
    base: Below | None


def below(threads: Threads, serde: Any, thread: str, namespace: str, checkpoint_id: str | None) -> Below | None:
    """The checkpoint that another one names as its parent, if it is there."""
    if not checkpoint_id:
        return None
    raw = threads.record(thread, namespace, checkpoint_id)
    if raw is None:
        return None
    versions = unpacked(raw["head"], serde).get("channel_versions") or {}
    return Below(paths.turned(checkpoint_id), paths.checkpoint_key(thread, namespace, checkpoint_id), raw, versions)


def values_of(
    threads: Threads, serde: Any, checkpoint: Mapping[str, Any], new: Mapping[str, Any], base: Below | None
) -> tuple[dict[str, Any], dict[str, Body]]:
    """The ``values`` of a checkpoint's row, and its lists.

    Args:
        threads: the rows that it may build on.
        serde: LangGraph's serialiser.
        checkpoint: what is to be kept.
        new: the channels that have changed since `base`, with their versions.
        base: what it is written on top of.
    """
    values: dict[str, Any] = {}
    bodies: dict[str, Body] = {}
    versions = checkpoint.get("channel_versions") or {}
    for channel, value in checkpoint["channel_values"].items():
        old = base.raw["values"].get(channel) if base else None
        if base is None or old is None:
            values[channel], body = _entry(threads, serde, value, channel, None)
        elif channel not in new and channel in versions and base.versions.get(channel) == versions[channel]:
            values[channel], body = _same(threads, base, channel), None
        else:
            values[channel], body = _entry(threads, serde, value, channel, base)
        if body is not None:
            bodies[channel] = body
    return values, bodies


def _same(threads: Threads, base: Below, channel: str) -> dict[str, Any]:
    """What stands for a value that is the one below."""
    old: dict[str, Any] = base.raw["values"][channel]
    if "l" in old:
        count = sum(step[1] if isinstance(step, list) else step["n"] for step in old["l"])
        return _same_list(base, old, count, threads.body(base.key, base.raw, channel).crc)
    small = "j" in old and (not isinstance(old["j"], str | dict | list) or len(str(old["j"])) < SMALL)
    return old if "at" in old or small else {"at": base.name}


def _same_list(base: Below, old: dict[str, Any], count: int, crc: int) -> dict[str, Any]:
    if "same" in old or not count:
        return old
    return {"l": [[0, count]], "of": base.name, "crc": crc, "same": True, "w": old.get("w", 0)}


def _entry(
    threads: Threads, serde: Any, value: Any, channel: str, base: Below | None
) -> tuple[dict[str, Any], Body | None]:
    old = base.raw["values"][channel] if base else {}
    if type(value) is not list:
        entry = packed(value, serde)
        if base is None or "l" in old or not _large(entry):
            return entry, None
        # As bytes: to Python 1, 1.0 and True are the same.
        same = _bytes(threads.entry(base.key, base.raw, channel)) == _bytes(entry)
        return (entry if not same else old if "at" in old else {"at": base.name}), None
    image = None if base is None else threads.image(base.key, channel, serde)
    found: tuple[int, bytes] | None
    if (known := messages.dumped(serde, value, image)) is not None:
        found = len(value), known
    else:
        kind, data = serde.dumps_typed(value)
        found = list_body(data) if kind == MSGPACK else None
        if found is None:
            return {"t": kind, **text_of(data)}, None
    if base is None or "l" not in old:
        body = body_of(*found)
        return {"l": steps_of(None, body)[0]}, body
    before = threads.body(base.key, base.raw, channel)
    body = body_of(*found, before)
    threads.keep_image(base.key, channel, serde, messages.seen(serde, body, image))
    if before == body:
        return _same_list(base, old, body.count, body.crc), body
    steps, fresh = steps_of(before, body)
    written = old.get("w", 0) + fresh
    if written > 2 * len(body.data) + SLACK:
        # So much was added and taken away again since it was last written as a whole that it is cheaper to begin anew.
        return {"l": steps_of(None, body)[0]}, body
    return {"l": steps, "of": old["of"] if "same" in old else base.name, "crc": before.crc, "w": written}, body


def _large(entry: dict[str, Any]) -> bool:
    return len(entry.get("s") or entry.get("b") or str(entry.get("j", ""))) >= SMALL


def values_in(threads: Threads, serde: Any, row: Row, only: Collection[str] | None = None) -> dict[str, Any]:
    """The values of channels (or of these) in a checkpoint's row."""
    out: dict[str, Any] = {}
    around = Around(threads, row.key, row.raw)
    for channel, entry in row.raw["values"].items():
        if only is not None and channel not in only:
            continue
        if "l" in entry:
            body = threads.body(row.key, row.raw, channel, around)
            image = threads.image(row.key, channel, serde)
            out[channel], image = messages.loaded(serde, body, image)
            threads.keep_image(row.key, channel, serde, image)
        else:
            out[channel] = unpacked(threads.entry(row.key, row.raw, channel, around), serde)
    return out


# -- what tasks wrote --------------------------------------------------------------------------------------------------


def writes_row(serde: Any, writes: Any, task_path: str) -> dict[str, Any]:
    """What a task wrote, as a row: ``[index, channel, value]`` of each.

    Args:
        serde: LangGraph's serialiser.
        writes: channels and values.
        task_path: where the task stands in its graph.
    """
    told = [
        [WRITES_IDX_MAP.get(channel, number), channel, packed(value, serde)]
        for number, (channel, value) in enumerate(writes)
    ]
    return {"task_path": task_path, "writes": told}


def within(raw: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The row of what a task wrote, without what its checkpoint says: the first task hands on what a graph is given."""
    sources = [Source((name,), text) for name, held in values.items() if (text := said(held))]
    out = []
    for number, channel, entry in raw["writes"]:
        if "s" in entry and sources and len(entry["s"]) >= SMALL:
            found = apart(entry["s"], sources)
            entry = entry if found is None else {**entry, "s": found[0]}
        elif "j" in entry and _large(entry):
            entry = _given(values, channel, entry) or entry
        out.append([number, channel, entry])
    return {**raw, "writes": out}


def _given(values: Mapping[str, Any], channel: str, entry: dict[str, Any]) -> dict[str, Any] | None:
    """What stands for a value that a value of the checkpoint holds for its channel; None: none does."""
    wanted = _bytes(entry["j"])
    for name, held in values.items():
        if type(held.get("j")) is dict and channel in held["j"] and wanted == _bytes(held["j"][channel]):
            return {"in": [name, channel], "crc": zlib.crc32(wanted)}
    return None


def out_of(around: Around, serde: Any, found: Found, entry: dict[str, Any]) -> dict[str, Any]:
    """What `within` made shorter, again.

    Args:
        around: rows near it.
        serde: LangGraph's serialiser.
        found: its checkpoint.
        entry: what a task wrote there.

    Raises:
        Lost: the checkpoint is another one than it was.
    """
    key, raw = found.row.key, found.row.raw
    if "in" not in entry:
        made: dict[str, Any] = around.full(key, raw, entry, task=True)
        return made
    name, channel = entry["in"]
    there = raw["values"].get(name)
    held = None if there is None or not there.keys() & {"j", "t"} else unpacked(around.full(key, raw, there), serde)
    if type(held) is dict and zlib.crc32(_bytes(held.get(channel))) == entry["crc"]:
        return {"j": held[channel]}
    raise Lost(f"what a task wrote is a part of {name!r:.80} in its checkpoint, which is another one than it was")


def joined(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any] | None:
    """Both of what a task wrote: what has an index that is there stays out, unless it is special; None: nothing new."""
    kept = {each[0]: each for each in old["writes"]}
    only_special = all(channel in WRITES_IDX_MAP for _, channel, _ in new["writes"])
    changed = False
    for each in new["writes"]:
        if each[0] not in kept or (only_special and kept[each[0]] != each):
            kept[each[0]] = each
            changed = True
    if not changed:
        return None
    return {"task_path": old["task_path"] or new["task_path"], "writes": [kept[index] for index in sorted(kept)]}


def pending(threads: Threads, serde: Any, found: Found) -> list[tuple[str, str, Any]]:
    """What tasks wrote at a checkpoint, in the order in which a run would apply it."""
    out = []
    for row in found.writes:
        raw = all_of(row)
        task = paths.text_of(row.key.split("/", 3)[3], row.raw, "task")
        for index, channel, value in raw["writes"]:
            out.append(((raw["task_path"], task, index), channel, value))
    if not out:
        return []
    out.sort(key=lambda each: each[0])
    around = Around(threads, found.row.key, found.row.raw)
    return [(where[1], channel, unpacked(out_of(around, serde, found, entry), serde)) for where, channel, entry in out]


def all_of(row: Row) -> dict[str, Any]:
    """What a task wrote, and what its rivals did beside that."""
    raw = row.raw
    for rival in reversed(row.rivals):
        raw = joined(rival.raw, raw) or rival.raw
    return raw

"""What is done to threads as a whole: copied, pruned, rid of runs, swept; nothing that stays builds on what goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from holdfast.errors import Conflict
from holdfast.integrations.langgraph import paths
from holdfast.integrations.langgraph.contents import all_of, out_of, pending, values_in
from holdfast.integrations.langgraph.lists import Body, steps_of
from holdfast.integrations.langgraph.packing import unpacked
from holdfast.integrations.langgraph.threads import Around, Found, Threads, refers_to
from holdfast.node.shelf import OVER, PATH, Row, first, others_under

_bytes: Final = msgspec.json.Encoder(order="sorted").encode
COUNTERS: Final = "counters_since_delta_snapshot"
"""Metadata that names the delta channels of a graph."""


def replace(threads: Threads, serde: Any, key: str, raw: dict[str, Any]) -> None:
    """Puts a checkpoint in the place of the one with its id; what builds on the old one is made whole before."""
    there = next(threads.walk(key, few=1), None)
    if there is not None and _bytes(_bare(_literal(threads, there))) == _bytes(_bare(raw)):
        return
    if there is not None:
        name = paths.name_of(key)
        prefix = key[: key.rindex("/") + 1]
        above = [found for found in threads.walk(prefix) if found.row.key != key]
        threads.shelf.put_many(whole(threads, above, lambda below: below == name))
        threads.shelf.put_many(_said(threads, serde, there))
        over = others_under(there.row, threads.shelf.agent)
        raw = {**raw, OVER: over} if over else raw
    threads.shelf.put(key, raw)
    threads.forget()


def whole(
    threads: Threads, founds: Sequence[Found], gone: Callable[[str], bool]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of checkpoints that build on what will be gone, so that they do not; of one namespace, newest first.

    What several of them need is said once, in the oldest.
    """
    last: dict[str, tuple[str, Body]] = {}
    for found in reversed(founds):
        row = found.row
        name = paths.name_of(row.key)
        needed = [channel for channel, ids in refers_to(row.raw, name).items() if any(map(gone, ids))]
        if not needed:
            continue
        values = dict(row.raw["values"])
        for channel in needed:
            if "l" not in values[channel]:
                values[channel] = threads.entry(row.key, row.raw, channel)
                continue
            body = threads.body(row.key, row.raw, channel)
            below, base = last.get(channel, ("", None))
            values[channel] = {
                "l": steps_of(base, body)[0],
                **({"of": below, "crc": base.crc} if base is not None else {}),
            }
            last[channel] = name, body
        yield row.key, {**_bare(row.raw), "values": values, **_over(threads, row)}


def copy(threads: Threads, source: str, target: str, *, until: str | None = None, new: bool = False) -> None:
    """Copies a thread, all of it or what is no newer than a checkpoint.

    Raises:
        Conflict: the target is to be new, and there is one.
    """
    prefix = paths.thread_prefix(target)
    if source == target and not new:
        return
    if new and first(threads.shelf, prefix) is not None:
        raise Conflict(f"there is a thread {target!r:.80} already", hint="another name, or delete_thread")
    settled = {} if threads.shelf.here else _settled(threads, paths.thread_prefix(source))

    def rows() -> Iterator[tuple[str, dict[str, Any]]]:
        for found in threads.walk(paths.thread_prefix(source)):
            if until is not None and paths.parts(found.row.key, found.row.raw)[2] > until:
                continue
            told = [(found.row.key, settled.get(found.row.key, found.row.raw))]
            for key, raw in told + [(row.key, {**row.raw, **all_of(row)}) for row in found.writes]:
                raw = {name: each for name, each in _bare(raw).items() if name != "thread"}
                yield paths.moved(key, target), {**raw, **paths.told(thread=target)}

    threads.shelf.put_many(rows())
    threads.forget()


def _settled(threads: Threads, thread_prefix: str) -> dict[str, dict[str, Any]]:
    """The rows of checkpoints that build on one at which several agents wrote for the same task, so that they do not:
    a copy has only one of these.
    """
    out: dict[str, dict[str, Any]] = {}
    for prefix, _ in threads.names(thread_prefix):
        founds = list(threads.walk(prefix))
        several = {paths.name_of(found.row.key) for found in founds if any(row.rivals for row in found.writes)}
        if several:
            out |= whole(threads, founds, several.__contains__)
    return out


def prune(threads: Threads, serde: Any, thread: str) -> None:
    """Takes away all but the newest checkpoint of each namespace, and what its delta channels need."""
    for prefix, _ in threads.names(paths.thread_prefix(thread)):
        founds = list(threads.walk(prefix))
        if founds:
            kept = _needed(serde, founds)
            _take(threads, founds, {found.row.key for found in founds} - kept)
    threads.forget()


def delete_runs(threads: Threads, serde: Any, runs: frozenset[str]) -> None:
    """Takes away the checkpoints that runs made, in all threads."""
    if not runs:
        return
    for thread_prefix, _ in list(threads.names()):
        for prefix, _ in list(threads.names(thread_prefix)):
            founds = list(threads.walk(prefix))
            gone = {found.row.key for found in founds if unpacked(found.row.raw["meta"], serde).get("run_id") in runs}
            _take(threads, founds, gone)
    threads.forget()


def sweep(threads: Threads) -> int:
    """Takes away the threads that are past their end."""
    count = 0
    for prefix, _ in list(threads.names()):
        if threads.ended(prefix):
            threads.shelf.drop_all(prefix)
            count += 1
    threads.forget()
    return count


def delta_history(
    threads: Threads, serde: Any, target: tuple[str, str, str], channels: Sequence[str]
) -> Mapping[str, Any]:
    """Of each channel the writes on the way to a checkpoint, back to where its value was last kept, and that value."""
    thread, namespace, at = target
    found = threads.at(thread, namespace, at)
    writes: dict[str, list[Any]] = {channel: [] for channel in channels}
    seeds: dict[str, Any] = {}
    open_ = set(channels)
    while found is not None and open_:
        parent = found.row.raw.get("parent")
        found = threads.at(thread, namespace, paths.id_of(parent)) if parent else None
        if found is None:
            break
        for write in reversed(pending(threads, serde, found)):
            if write[1] in open_:
                writes[write[1]].append(write)
        held = open_ & found.row.raw["values"].keys()
        if held:
            seeds |= values_in(threads, serde, found.row, only=held)
            open_ -= held
    return {
        channel: {"writes": each[::-1], **({"seed": seeds[channel]} if channel in seeds else {})}
        for channel, each in writes.items()
    }


# -- inside -----------------------------------------------------------------------------------------------------------


def _needed(serde: Any, founds: list[Found]) -> set[str]:
    """The newest checkpoint, and those before it up to where each of its delta channels was last kept."""
    by_name = {paths.name_of(found.row.key): found for found in founds}
    found: Found | None = founds[0]
    assert found is not None
    kept = {found.row.key}
    open_ = set(unpacked(found.row.raw["meta"], serde).get(COUNTERS) or ()) - found.row.raw["values"].keys()
    while open_ and found is not None:
        found = by_name.get(found.row.raw.get("parent", ""))
        if found is not None:
            kept.add(found.row.key)
            open_ -= found.row.raw["values"].keys()
    return kept


def _take(threads: Threads, founds: list[Found], gone: set[str]) -> None:
    """Takes checkpoints of one namespace away, once what stays does not build on them."""
    if not gone:
        return
    names = {paths.name_of(key) for key in gone}
    stays = [found for found in founds if found.row.key not in gone]
    threads.shelf.put_many(whole(threads, stays, names.__contains__))
    threads.shelf.drop([row for found in founds if found.row.key in gone for row in (found.row, *found.writes)])


def _bare(raw: dict[str, Any]) -> dict[str, Any]:
    """A row without what says where it lies and what it replaces."""
    return {name: each for name, each in raw.items() if name not in (PATH, OVER)}


def _over(threads: Threads, row: Row) -> dict[str, Any]:
    over = others_under(row, threads.shelf.agent)
    return {OVER: over} if over else {}


def _said(threads: Threads, serde: Any, found: Found) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of what tasks wrote that is a part of their checkpoint's values, so that it is not."""
    around = Around(threads, found.row.key, found.row.raw)
    for row in found.writes:
        raw = all_of(row)
        writes = [[number, name, out_of(around, serde, found, entry)] for number, name, entry in raw["writes"]]
        if writes != row.raw["writes"]:
            yield row.key, {**_bare(row.raw), **raw, "writes": writes, **_over(threads, row)}


def _literal(threads: Threads, found: Found) -> dict[str, Any]:
    """The row of a checkpoint with all texts in it."""
    row = found.row
    around = Around(threads, row.key, row.raw)
    values: dict[str, Any] = {}
    for channel, entry in row.raw["values"].items():
        values[channel] = around.full(row.key, row.raw, entry)
        if "l" in entry:
            values[channel] = {**entry, "l": [around.full(row.key, row.raw, step) for step in entry["l"]]}
    return {**row.raw, "values": values}

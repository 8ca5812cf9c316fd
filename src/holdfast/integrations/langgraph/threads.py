"""Checkpoints as rows of a shelf: found newest first, and the lists in them put together from what they build on.

A row of a checkpoint holds ``head`` (all of it but its values), ``meta``, ``parent``, and for each channel in
``values`` one of:

    {"j": …}, {"t": …, "s": …}   the value itself
    {"l": [steps], "of": id}     a list, as steps from the one in that checkpoint; without `of`, all of it
    {"at": id}                   the same as in that checkpoint

where checkpoints are named by their part of the key (`paths.turned`). What one builds on is older, of the same thread
and namespace, and so is what it takes texts from (`sharing`). Rows of writes lie behind their checkpoint's.
On the shelf all of it is said shortly (`rows`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from holdfast.integrations.langgraph import paths
from holdfast.integrations.langgraph.lists import Body, Lost, walked
from holdfast.integrations.langgraph.messages import Image
from holdfast.integrations.langgraph.recent import Recent
from holdfast.integrations.langgraph.rows import Rows, full, held
from holdfast.integrations.langgraph.sharing import TASK_PLACE, Lately, places, said, together
from holdfast.node.shelf import LOT, Row, every, first

BODIES_BYTES: Final = 32 << 20
ROWS_BYTES: Final = 8 << 20
IMAGES_BYTES: Final = 16 << 20
_decode: Final = msgspec.json.Decoder().decode
DEPTH_MAX: Final = 4
"""So often a text may be taken from one that is itself taken from another."""
FIRST: Final = 3
"""So many rows hold the newest checkpoint, mostly."""


class Found(msgspec.Struct):
    """A checkpoint's row, and those of what tasks wrote at it."""

    row: Row
    writes: list[Row]


class Threads:
    """The rows of all threads. Safe to share among threads of a program.

    Args:
        shelf: where they lie.
    """

    def __init__(self, shelf: Rows) -> None:
        self.shelf = shelf
        self._bodies: Recent[tuple[dict[str, Any], Body]] = Recent(BODIES_BYTES)
        self._rows: Recent[bytes] = Recent(ROWS_BYTES)
        self._images: Recent[tuple[Any, Image]] = Recent(IMAGES_BYTES)
        self.lately = Lately(self.kept)

    # -- finding ----------------------------------------------------------------------------------------------------

    def newest(self, thread: str, namespace: str) -> Found | None:
        """The newest checkpoint, if its thread has not come to its end."""
        found = self._first(paths.namespace_prefix(thread, namespace))
        return found if found is None or self._alive(found.row.raw, thread, namespace) else None

    def at(self, thread: str, namespace: str, checkpoint_id: str) -> Found | None:
        """One checkpoint."""
        key = paths.checkpoint_key(thread, namespace, checkpoint_id)
        found = self._first(key)
        if found is None or found.row.key != key:
            return None
        ended = not self._alive(found.row.raw, thread, namespace)
        return None if ended and self.newest(thread, namespace) is None else found

    def walk(self, prefix: str, after: str = "", few: int = LOT) -> Iterator[Found]:
        """All checkpoints whose keys begin so, in key order: of one namespace the newest first."""
        current: Found | None = None
        for row in every(self.shelf, prefix, after, few):
            if paths.is_checkpoint(row.key):
                if current is not None:
                    yield current
                current = Found(row, [])
            elif current is not None and paths.whose(row.key) == current.row.key:
                current.writes.append(row)
        if current is not None:
            yield current

    def names(self, prefix: str = "") -> Iterator[tuple[str, Row]]:
        """The beginnings of keys up to the next slash, each with the first row of it."""
        after = ""
        while (row := first(self.shelf, prefix, after)) is not None:
            name = row.key[len(prefix) :].split("/", 1)[0]
            yield f"{prefix}{name}/", row
            after = f"{prefix}{name}0"  # 0 is the sign behind the slash

    def ended(self, thread_prefix: str) -> bool:
        """Whether the newest checkpoint of each namespace of a thread is past its end."""
        now = self.shelf.now_ms()
        heads = [self._first(prefix) for prefix, _ in self.names(thread_prefix)]
        return all(head is None or head.row.raw.get("ends", now + 1) <= now for head in heads)

    # -- what they hold ---------------------------------------------------------------------------------------------

    def record(self, thread: str, namespace: str, checkpoint_id: str) -> dict[str, Any] | None:
        """The row of a checkpoint that others build on; None if it is not there."""
        key = paths.checkpoint_key(thread, namespace, checkpoint_id)
        kept = self.kept(key)
        if kept is None:
            found = self._first(key)
            if found is None or found.row.key != key:
                return None
            kept = found.row.raw
            self._remember(key, kept)
        return kept

    def kept(self, key: str) -> dict[str, Any] | None:
        """The row, if it is remembered."""
        data = self._rows.get(key)
        return None if data is None else _decode(data)

    def keep(self, key: str, raw: dict[str, Any], bodies: dict[str, Body]) -> None:
        """Remembers what was just written, for whoever builds on it."""
        self._remember(key, raw)
        for channel, body in bodies.items():
            self._keep_body(key, channel, raw["values"][channel], body)

    def met(self, row: Row) -> None:
        """Remembers a row that is not as this program may have written it: others build on what it says now."""
        if row.version > 1 or row.agent != self.shelf.agent:
            self._remember(row.key, row.raw)

    def forget(self) -> None:
        """Forgets what is remembered: it may have changed."""
        self._rows.clear()
        self._bodies.clear()
        self._images.clear()
        self.lately.forget()

    def entry(self, key: str, raw: dict[str, Any], channel: str, around: Around | None = None) -> dict[str, Any]:
        """What stands for a channel's value, in the checkpoint that really holds it."""
        around = around or Around(self, key, raw)
        entry: dict[str, Any] = raw["values"][channel]
        if "at" in entry:
            key, raw = around.key(entry["at"]), self._below(around, entry["at"], channel)
            entry = raw["values"][channel]
        made: dict[str, Any] = around.full(key, raw, entry)
        return made

    def body(self, key: str, raw: dict[str, Any], channel: str, around: Around | None = None) -> Body:
        """A list of a checkpoint, put together.

        Raises:
            Lost: what it builds on is not there.
        """
        entry = raw["values"][channel]
        found = self._body(key, channel)
        if found is not None and found[0] == entry:
            return found[1]
        around = around or Around(self, key, raw)
        top, name, base, lots = entry, key, None, list[tuple[list[Any], int | None]]()
        while True:
            lots.append(([around.full(name, raw, step) for step in entry["l"]], entry.get("crc")))
            below = entry.get("of")
            if below is None:
                break
            name = around.key(below)
            kept = self._body(name, channel)
            if kept is not None and kept[1].crc == entry.get("crc"):
                base = kept[1]
                break
            raw = self._below(around, below, channel, like=True)
            entry = raw["values"][channel]
        made = walked(base, lots[::-1])
        self._keep_body(key, channel, top, made)
        return made

    def image(self, key: str, channel: str, serde: Any) -> Image | None:
        """What is known of the lists that a channel held lately, in the namespace of a checkpoint."""
        found = self._images.get(f"{key[: key.rindex('/')]}\0{channel}")
        return found[1] if found is not None and found[0] is serde else None

    def keep_image(self, key: str, channel: str, serde: Any, image: Image | None) -> None:
        """Remembers an image, by whom it was read: another serialiser may make something else of the same bytes."""
        if image is not None:
            self._images.put(f"{key[: key.rindex('/')]}\0{channel}", (serde, image), image.size + 256)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _body(self, key: str, channel: str) -> tuple[dict[str, Any], Body] | None:
        return self._bodies.get(f"{key}\0{channel}")

    def _keep_body(self, key: str, channel: str, entry: dict[str, Any], body: Body) -> None:
        self._bodies.put(f"{key}\0{channel}", (entry, body), len(body.data) + 256)

    def _remember(self, key: str, raw: dict[str, Any]) -> None:
        # As bytes: what is in the row may be the caller's own, who goes on changing it.
        data = msgspec.json.encode(raw)
        self._rows.put(key, data, len(data) + 64)

    def _below(self, around: Around, name: str, channel: str, like: bool = False) -> dict[str, Any]:
        raw = around.raw(name)
        entry: dict[str, Any] | None = None if raw is None else raw["values"].get(channel)
        if raw is None or entry is None or "at" in entry or (like and "l" not in entry):
            raise Lost(
                f"a checkpoint of {around.name} builds on {channel!r:.80} in {paths.id_of(name)}, which is not there",
                hint="was that one deleted while this one was written? holdfast history shows it",
            )
        return raw

    def _first(self, prefix: str) -> Found | None:
        return next(self.walk(prefix, few=FIRST), None)

    def _alive(self, raw: dict[str, Any], thread: str, namespace: str) -> bool:
        """Whether it has no end, or a later one; a subgraph's lasts as long as what it is a part of."""
        ends = raw.get("ends")
        if ends is None or ends > self.shelf.now_ms():
            return True
        return bool(namespace) and self.newest(thread, "") is not None


class Around:
    """Rows near one that is put together, read a lot at a time: what it builds on was written before it, in order."""

    def __init__(self, threads: Threads, key: str, raw: dict[str, Any]) -> None:
        self._threads = threads
        self._prefix = key[: key.rindex("/") + 1]
        self.name = self._prefix
        self._seen: dict[str, Row | dict[str, Any]] = {key: raw}
        self._limit = 1

    def key(self, name: str) -> str:
        """The key of a checkpoint beside it."""
        return f"{self._prefix}{name}~"

    def raw(self, name: str) -> dict[str, Any] | None:
        """The row of a checkpoint that it builds on; None if it is not there."""
        return self._raw(self.key(name))

    def full(self, key: str, raw: dict[str, Any], entry: Any, task: bool = False, depth: int = 0) -> Any:
        """A value, or a step of a list, with all of its text in it.

        Args:
            key: of the row that holds it; of what a task wrote: of its checkpoint's row.
            raw: that row.
            entry: what stands in it.
            task: whether it is what a task wrote.
            depth: of how many others it is already a part.

        Raises:
            Lost: what it takes its text from is not there.
        """
        if type(entry) is not dict or type(entry.get("s")) is not list:
            return entry
        return {**entry, "s": together(entry["s"], lambda where: self._held(key, raw, where, task, depth))}

    def _held(self, key: str, raw: dict[str, Any], where: list[Any], task: bool, depth: int) -> Iterator[str]:
        """The texts that a place may mean."""
        name, *number = where
        own = number[0] < 0 if number else task
        at = key if own else self.key(raw["parent"]) if "parent" in raw else ""
        if not at or depth == DEPTH_MAX:
            return
        if number:
            index = ~number[0] if own else number[0]
            row = self._row(f"{at}/{name}")
            told = () if row is None else (row, *row.rivals)
            entries = [each[2] for one in told for each in full(one.raw)["writes"] if each[0] == index]
        else:
            there = raw if own else self._raw(at)
            entries = [] if there is None else [there["values"].get(name, {})]
        for entry in entries:
            if type(entry.get("s")) is list:
                there = raw if own else self._raw(at)
                entry = {} if there is None else self.full(at, there, entry, bool(number), depth + 1)
            yield said(entry)

    def _raw(self, key: str) -> dict[str, Any] | None:
        found = self._seen.get(key) or self._threads.kept(key)
        if found is None:
            self._look(key)
            found = self._seen.get(key)
        if isinstance(found, Row):
            found = self._seen[key] = held(found.raw)
        return found

    def _row(self, key: str) -> Row | None:
        """What a task wrote."""
        if key not in self._seen:
            self._look(paths.whose(key))  # its checkpoint is asked for next, mostly
        if key not in self._seen:
            self._look(key)
        found = self._seen.get(key)
        return found if isinstance(found, Row) else None

    def _look(self, key: str) -> None:
        self._limit = min(LOT, self._limit * 8)
        for row in self._threads.shelf.near(self._prefix, key[:-1], self._limit):
            self._seen.setdefault(row.key, row)


def refers_to(raw: dict[str, Any], own: str) -> dict[str, set[str]]:
    """The channels whose values build on other checkpoints, or take texts from what was written at one, and on which.

    Args:
        raw: the row of a checkpoint.
        own: its own name.
    """
    out: dict[str, set[str]] = {}
    for channel, entry in raw["values"].items():
        below = entry.get("at") or entry.get("of")
        ids = set() if below is None else {below}
        for each in entry.get("l", (entry,)):
            for place in places(each):
                ids.add(own if len(place) == TASK_PLACE and place[1] < 0 else raw["parent"])
        if ids:
            out[channel] = ids
    return out

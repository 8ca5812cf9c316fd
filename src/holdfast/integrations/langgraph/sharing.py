"""Texts that stand in several rows and are said in one.

What a graph is given is handed on by its first task, and what a task wrote is in the next checkpoint. The row that was
written first says it, and a later one takes it from there: its text is then a list of pieces, each of them a string, or
a place:

    [channel, at, length, crc]         in a value of the checkpoint below (of its own one, for what a task wrote)
    [task, number, at, length, crc]    in what a task wrote at the checkpoint below (by segment of its key, and index)
    [task, ~number, at, length, crc]   the same, written at the checkpoint itself, before that was put

A place has the checksum of what is there, so nothing else is ever taken for it. A row takes only from rows that the
same program has seen written: where it is, they are, on every machine.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from holdfast.integrations.langgraph import paths
from holdfast.integrations.langgraph.lists import Lost
from holdfast.integrations.langgraph.packing import text_of
from holdfast.integrations.langgraph.recent import Recent

MSGPACK: Final = "msgpack"
SHARED_MIN: Final = 64
"""What is shorter is said again: to name it would cost as much."""
SHARED_MAX: Final = 4 << 20
"""Nothing is taken from a longer text: it is not remembered."""
LATELY_BYTES: Final = 8 << 20
BELOW_MIN: Final = 2048
"""So long is what a checkpoint takes from what a task wrote at the one below, unless that one took it as well: less
is said again, for who reads a list for the first time would read another row for each of its members."""
TASK_PLACE: Final = 5
"""So many members has a place in what a task wrote."""
_PROBE: Final = 32
"""What is shared is found by so many signs of it."""
_LOOKED_MAX: Final = 4 << 20
"""So many signs are gone through to find what is shared: some milliseconds."""
_ASKED: Final = 256
"""What a source costs beside its signs."""


class Below(msgspec.Struct):
    """The checkpoint that another one is written on top of."""

    name: str
    key: str
    raw: dict[str, Any]
    versions: Mapping[str, Any]


class Source(msgspec.Struct):
    """A text that others may be taken from: where it stands, and while its row is being written, what tells the end.

    `least`: no less is taken of it; `awaited`: it is written by asyncio, so nobody may block a thread for it.
    """

    where: tuple[Any, ...]
    text: str
    least: int = SHARED_MIN
    written: Future[bool] | None = None
    awaited: bool = False


class Coming(msgspec.Struct):
    """A row that is being put, if all is written that it takes from, and what tells whether it is."""

    raw: dict[str, Any]
    waits: list[Future[bool]]


class Lately:
    """What rows of this program said lately, for those that say it as well. Safe to share among threads.

    Args:
        kept: gives the row of a checkpoint, if it is remembered.
    """

    def __init__(self, kept: Callable[[str], dict[str, Any] | None]) -> None:
        self._kept = kept
        self._lock = threading.Lock()
        self._told: Recent[list[Source]] = Recent(LATELY_BYTES)
        self._coming: dict[str, dict[str, Any]] = {}

    @contextmanager
    def writing(
        self, key: str, raw: dict[str, Any], short: Callable[..., dict[str, Any]], awaited: bool = False
    ) -> Iterator[dict[str, Any]]:
        """A row of writes, while it is put; what its checkpoint says, if that came before it, is not said again.

        A checkpoint on its way is enough: nobody sees what a task wrote without it.

        Args:
            key: of the row.
            raw: what tasks wrote.
            short: makes the row of it, and of the values of its checkpoint.
            awaited: whether asyncio goes on with it.
        """
        at, task = paths.whose(key), key.rsplit("/", 1)[1]
        written: Future[bool] = Future()
        with self._lock:
            there = self._coming.get(at) or self._kept(at)
            if there is not None:
                raw = short(raw, there["values"])
            mine = [
                Source((task, number), text, written=written, awaited=awaited)
                for number, _, entry in raw["writes"]
                if number >= 0 and (text := said(entry))  # those below 0 may be replaced
            ]
            self._tell(at, [*self._of(at), *mine])
        good = False
        try:
            yield raw
            good = True
        finally:
            if not good:
                with self._lock:
                    self._tell(at, [each for each in self._of(at) if each not in mine])
            written.set_result(good)

    @contextmanager
    def putting(
        self, key: str, raw: dict[str, Any], below: Below | None, serde: Any, awaited: bool = False
    ) -> Iterator[Coming]:
        """A row of a checkpoint, while it is put.

        Args:
            key: of the row.
            raw: it.
            below: the checkpoint that it is written on top of.
            serde: LangGraph's serialiser.
            awaited: whether asyncio goes on with it.
        """
        with self._lock:
            coming = _shared(raw, lambda: self._sources(key, below, awaited), serde)
            self._coming[key] = coming.raw
        try:
            yield coming
        finally:
            self._coming.pop(key, None)

    def forget(self) -> None:
        """Takes nothing any more from what was said before: it may be gone."""
        with self._lock:
            self._told.clear()

    def _sources(self, key: str, below: Below | None, awaited: bool) -> list[Source]:
        found = [replace(each, where=(each.where[0], ~each.where[1])) for each in self._of(key)]
        if below is not None:
            given = set[tuple[Any, ...]]()
            for name, entry in below.raw["values"].items():
                given |= {(place[0], ~place[1]) for place in places(entry) if len(place) == TASK_PLACE and place[1] < 0}
                if text := said(entry):
                    found.append(Source((name,), text))
            for each in self._of(below.key):
                if each.where in given or len(each.text) >= BELOW_MIN:
                    found.append(each if each.where in given else replace(each, least=BELOW_MIN))
        return [each for each in found if awaited or not each.awaited or each.written is None or each.written.done()]

    def _of(self, key: str) -> list[Source]:
        return self._told.get(key) or []

    def _tell(self, key: str, sources: list[Source]) -> None:
        self._told.put(key, sources, sum(len(each.text) + 256 for each in sources))


def said(entry: Mapping[str, Any]) -> str:
    """The text of a value that others may be taken from: all texts in it, one after another, a sign a byte."""
    text: str = ""
    if type(entry.get("s")) is str:
        text = entry["s"]
    elif "j" in entry:
        text = "".join(_strings(entry["j"])).encode().decode("latin-1")
    return text if SHARED_MIN <= len(text) <= SHARED_MAX else ""


def places(entry: Any) -> list[Any]:
    """Where else the text of a value, or of a step of a list, stands."""
    text = entry.get("s") if type(entry) is dict else None
    return [piece for piece in text if type(piece) is list] if type(text) is list else []


def _strings(value: Any) -> Iterator[str]:
    if type(value) is str:
        yield value
    elif type(value) is list:
        for each in value:
            yield from _strings(each)
    elif type(value) is dict:
        for name in sorted(value):  # a log does not keep them in order
            yield from _strings(value[name])


def _shared(raw: dict[str, Any], sources: Callable[[], list[Source]], serde: Any) -> Coming:
    """A checkpoint's row with what it shares taken from where it was said."""
    values: dict[str, Any] = {}
    waits: list[Future[bool]] = []
    known: list[Source] | None = None
    for channel, entry in raw["values"].items():
        holds = [each for each in entry.get("l", (entry,)) if type(each) is dict]
        texts = [_text(each, channel, serde) for each in holds]
        if any(texts) and known is None:
            known = sources()
        made: dict[int, dict[str, Any]] = {}
        for each, text in zip(holds, texts, strict=True):
            found = apart(text, known) if text and known else None
            if found is not None:
                made[id(each)] = ({"n": each["n"]} if "l" in entry else {"t": each.get("t", MSGPACK)}) | {"s": found[0]}
                waits += [use.written for use in found[1] if use.written is not None and not use.written.done()]
        if made:
            entry = (
                {**entry, "l": [made.get(id(each), each) for each in entry["l"]]} if "l" in entry else made[id(entry)]
            )
            values[channel] = entry
    return Coming({**raw, "values": {**raw["values"], **values}} if values else raw, waits)


def _text(entry: dict[str, Any], channel: str, serde: Any) -> str:
    """A text that may be taken apart; JSON may be where nobody reads it but LangGraph: SQL sees what channels hold."""
    if "j" in entry and channel.startswith("__") and said(entry):
        kind, data = serde.dumps_typed(entry["j"])
        entry = text_of(data) if kind == MSGPACK else {}
    text: str = entry.get("s", "")
    return text if len(text) >= SHARED_MIN else ""


# -- texts and pieces -------------------------------------------------------------------------------------------------


def apart(text: str, sources: Sequence[Source]) -> tuple[list[Any], list[Source]] | None:
    """A text as pieces, and from which sources some of them are; None: it shares nothing with any of them."""
    if not sources:
        return None
    cost = sum(len(source.text) + _ASKED for source in sources)
    stride = max(_PROBE, len(text) * cost // _LOOKED_MAX)
    left = _LOOKED_MAX
    pieces: list[Any] = []
    used: list[Source] = []
    at = done = 0
    while at + _PROBE <= len(text) and left > 0:
        left -= cost
        found = _longest(text, at, done, sources)
        if found is None:
            at += stride
            continue
        source, begin, start, length = found
        if begin > done:
            pieces.append(text[done:begin])
        pieces.append([*source.where, start, length, checksum(text[begin : begin + length])])
        used.append(source)
        at = done = begin + length
    if not used:
        return None
    if done < len(text):
        pieces.append(text[done:])
    return pieces, used


def _longest(text: str, at: int, low: int, sources: Sequence[Source]) -> tuple[Source, int, int, int] | None:
    """Where what a text holds at a place stands longest: the source, its begin in the text and in that, how long."""
    probe = text[at : at + _PROBE]
    best = None
    for source in sources:
        start = source.text.find(probe)
        if start < 0:
            continue
        back = 0
        while back < min(at - low, start) and text[at - back - 1] == source.text[start - back - 1]:
            back += 1
        length = back + _alike(text, at, source.text, start)
        if length >= source.least and (best is None or length > best[3]):
            best = source, at - back, start - back, length
    return best


def _alike(one: str, at: int, other: str, start: int) -> int:
    """How many signs two texts have in common from a place in each; one at least."""
    low, high = 1, min(len(one) - at, len(other) - start) + 1
    if one[at : at + high - 1] == other[start : start + high - 1]:
        return high - 1
    while high - low > 1:
        middle = (low + high) // 2
        if one[at + low : at + middle] == other[start + low : start + middle]:
            low = middle
        else:
            high = middle
    return low


def together(pieces: Iterable[Any], held: Callable[[list[Any]], Iterable[str]]) -> str:
    """The text again.

    Args:
        pieces: of `apart`.
        held: gives the texts that a place may mean: several agents may have written there.

    Raises:
        Lost: what a place names is not there.
    """
    out: list[str] = []
    for piece in pieces:
        if type(piece) is str:
            out.append(piece)
            continue
        *where, at, length, crc = piece
        parts = (text[at : at + length] for text in held(where))
        found = next((part for part in parts if checksum(part) == crc), None)
        if found is None:
            raise Lost(f"a text stands in {where!r:.80} as well, which is another one than it was, or gone")
        out.append(found)
    return "".join(out)


def checksum(text: str) -> int:
    """Of a text."""
    return zlib.crc32(text.encode())

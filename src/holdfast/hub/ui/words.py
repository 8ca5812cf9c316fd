"""How figures and times are said on pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, urlencode

from holdfast import clock

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_SPANS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
SPARK_WIDTH: Final = 240
SPARK_HEIGHT: Final = 36


def size_text(size: float) -> str:
    """Bytes, as people say them: ``3.4 MiB``."""
    number = float(size)
    for unit in _UNITS[:-1]:
        if abs(number) < 1024:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} {_UNITS[-1]}"


def count_text(count: int) -> str:
    """``12,345``."""
    return f"{count:,}"


def many(count: int, word: str, plural: str = "") -> str:
    """``1 node``, ``2 nodes``."""
    return f"{count:,} {word if count == 1 else plural or word + 's'}"


def span_text(seconds: float) -> str:
    """A span in its two largest units, such as ``2 h 5 min``."""
    left, out = int(max(0.0, seconds)), []
    for size, unit in _SPANS:
        if left >= size:
            out.append(f"{left // size} {unit}")
            left %= size
        elif out:
            break
    return " ".join(out[:2]) or "0 s"


def ago(iso: str, now_ms: int) -> str:
    """How long ago a time was."""
    seconds = (now_ms - clock.parse_time(iso)) / 1000
    if seconds < 2:
        return "just now"
    return f"{span_text(seconds if seconds < 60 else seconds - seconds % 60)} ago"


def iso_if(ms: int) -> str | None:
    """A time in ms since 1970 as an answer has it; None where there was none (0)."""
    return clock.iso(ms) if ms else None


def sparkline(values: Sequence[int]) -> str:
    """The points of a polyline for these values, in a box of `SPARK_WIDTH` by `SPARK_HEIGHT`."""
    top = max(values, default=0) or 1
    step = SPARK_WIDTH / max(1, len(values) - 1)
    return " ".join(
        f"{n * step:.1f},{SPARK_HEIGHT - 2 - (SPARK_HEIGHT - 4) * v / top:.1f}" for n, v in enumerate(values)
    )


def part(text: str) -> str:
    """A text as one part of a path."""
    return quote(text, safe="")


def with_query(path: str, **query: object) -> str:
    """A path with those parameters that are anything."""
    kept = {name: value for name, value in query.items() if value not in (None, "", 0)}
    return path + ("?" + urlencode(kept) if kept else "")


def can_be_part(name: str) -> bool:
    """Whether a browser leaves this name as it is as the last part of a path, and no twin is named so."""
    return name not in (".", "..") and not name.endswith(".json")


def collection_url(collection: str, **query: object) -> str:
    """Where a collection is shown."""
    if collection and can_be_part(collection):
        return with_query(f"/data/{part(collection)}", **query)
    return with_query("/data", collection=collection, **query)


def key_url(agent: str, collection: str, key: str, **query: object) -> str:
    """Where a key is shown."""
    if key and collection not in ("", ".", "..") and can_be_part(key):
        return with_query(f"/data/{part(collection)}/{part(key)}", agent=agent, **query)
    place = with_query("/data", collection=collection, agent=agent, **query)
    return f"{place}{'&' if '?' in place else '?'}key={part(key)}"


def named_url(what: str, name: str) -> str:
    """Where an agent, a node or a session is shown."""
    # A dot and two are directories to a browser, also when they are encoded.
    return f"/{what}/{part(name)}" if can_be_part(name) else with_query(f"/{what}/-", name=name)

"""Sizes and lengths of time as people write them: "2 GB", "2GiB", "500 ms", "1h 30m", "30 days"."""

from __future__ import annotations

import re
from typing import Final

_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
SIZES: Final = {f"{power}{tail}": 1 << 10 * n for power, n in _POWERS.items() for tail in ("", "b", "ib")} | {"": 1}
del SIZES["ib"]
"""Powers of 1024 whatever they are called: the files of the earlier system mean that by GB, and so do PostgreSQL's."""
_SECOND: Final = {
    **dict.fromkeys(("ms", "millisecond", "milliseconds"), 0.001),
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3_600.0),
    **dict.fromkeys(("d", "day", "days"), 86_400.0),
    **dict.fromkeys(("w", "week", "weeks"), 604_800.0),
}
_NUMBER: Final = r"(?:\d{1,3}(?:_\d{3})+|\d{1,18})(?:\.\d{1,9})?"
_SIZE: Final = re.compile(rf"({_NUMBER})\s*([a-z]*)", re.IGNORECASE)
_SPAN: Final = re.compile(rf"({_NUMBER})\s*([a-z]*)\s*", re.IGNORECASE)
SIZE_HINT: Final = "such as 512 MB, 2 GiB, or a number of bytes"
SPAN_HINT: Final = "such as 500ms, 5s, 30m, 24h, 30 days, or a number of seconds"


def size_in(text: str) -> int:
    """The bytes that a text means; GB is GiB, 2^30 bytes.

    Raises:
        ValueError: it means none; the message says why.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError("not a size")
    number, unit = found[1].replace("_", ""), found[2].lower()
    if unit not in SIZES:
        raise ValueError(f"no unit of size: {found[2]!r}")
    if SIZES[unit] == 1 and "." in number:
        raise ValueError("a part of a byte")
    return int(number) if SIZES[unit] == 1 else round(float(number) * SIZES[unit])


def span_in(text: str, bare_s: float = 1.0) -> float:
    """The seconds that a text means, also in several parts ("1h 30m").

    Args:
        text: as it was written.
        bare_s: what one is worth where no unit stands, in seconds: 86,400 under a name that ends with ``_days``.

    Raises:
        ValueError: it means none; the message says why.
    """
    text = text.strip()
    total, at, parts = 0.0, 0, 0
    while found := _SPAN.match(text, at):
        number, unit = float(found[1].replace("_", "")), found[2].lower()
        if not unit and (parts or found.end() != len(text)):
            break
        if unit and unit not in _SECOND:
            raise ValueError(f"no unit of time: {found[2]!r}")
        total += number * (_SECOND[unit] if unit else bare_s)
        at, parts = found.end(), parts + 1
    if not parts or at != len(text):
        raise ValueError("not a length of time")
    return total


def size_said(size: int) -> str:
    """A size that `size_in` reads back as the same number: 2 GiB, 64 MiB, 1234567 B."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        worth = SIZES[unit.lower()]
        if size and size % worth == 0:
            return f"{size // worth} {unit}"
    return f"{size} B"


def span_said(seconds: float) -> str:
    """A length of time that `span_in` reads back as the same number: 5s, 30m, 24h, 30d."""
    if not seconds:
        return "0s"
    for unit in ("w", "d", "h", "m", "s"):
        if seconds % _SECOND[unit] == 0:
            return f"{int(seconds / _SECOND[unit])}{unit}"
    return f"{seconds:.9f}".rstrip("0") + "s"

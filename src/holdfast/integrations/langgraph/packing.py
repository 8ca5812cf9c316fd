"""Values as JSON: as they are where JSON says exactly the same, else as the bytes that LangGraph's serialiser makes.

Such bytes are kept as text, a sign a byte, so that what was said in a conversation can be read and found in the log; or
as base64 where that is shorter. What LangChain says of every message, and is no word of anybody's, is one sign.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from typing import Any, Final

from holdfast.errors import IntegrityError
from holdfast.integrations.langgraph import phrases
from holdfast.integrations.langgraph.door import JsonPlusSerializer
from holdfast.integrations.langgraph.serde import StrictSerializer

STANDARD: Final = (StrictSerializer, JsonPlusSerializer)
"""Serialisers that hide nothing."""
_INT64: Final = 1 << 63
_DEPTH_MAX: Final = 40
_BETWEEN: Final = "\uffff"
"""Stands in no text of ours."""


def is_plain(value: Any, depth: int = 0) -> bool:
    """Whether JSON says exactly this value, and reading it gives it back."""
    kind = type(value)
    if kind is str:
        return _sayable(value)
    if value is None or kind is bool:
        return True
    if kind is int:
        return bool(-_INT64 <= value < _INT64)
    if kind is float:
        return math.isfinite(value)
    if depth == _DEPTH_MAX:
        return False
    if kind is dict:
        return all(type(key) is str and is_plain(key) and is_plain(each, depth + 1) for key, each in value.items())
    return kind is list and all(is_plain(each, depth + 1) for each in value)


def _sayable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False  # half a surrogate pair
    return True


def packed(value: Any, serde: Any) -> dict[str, Any]:
    """A value for a row: ``{"j": …}`` plain, else the bytes of the serialiser and their type.

    Plain is only what the standard serialiser would not hide: another one may encrypt, and gets everything.
    """
    if type(serde) in STANDARD and is_plain(value):
        return {"j": value}
    kind, data = serde.dumps_typed(value)
    return {"t": kind} | text_of(data)


def unpacked(row: dict[str, Any], serde: Any) -> Any:
    """The value in a row."""
    return row["j"] if "j" in row else serde.loads_typed((row["t"], bytes_of(row)))


def text_of(data: bytes) -> dict[str, str]:
    """Bytes as ``{"s": …}``, a sign a byte, or ``{"b": …}``, base64, where that is shorter."""
    text = phrases.shortened(data.decode("latin-1"))
    cost = len(text) if text.isascii() else len(text.encode())
    if cost <= len(data) * 4 // 3 + 64:
        return {"s": text}
    return {"b": base64.b64encode(data).decode()}


def bytes_of(row: dict[str, Any]) -> bytes:
    """The bytes that `text_of` made text.

    Raises:
        IntegrityError: it is something else.
    """
    try:
        return phrases.whole(row["s"]).encode("latin-1") if "s" in row else base64.b64decode(row["b"], validate=True)
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise IntegrityError(f"a value that is none of this adapter's: {row!r:.200}") from error


def all_bytes(rows: Sequence[dict[str, Any]]) -> list[bytes]:
    """`bytes_of` of many, at once: what it costs to begin is the most of what it costs."""
    try:
        texts = [row["s"] for row in rows]
        made = phrases.whole(_BETWEEN.join(texts)).split(_BETWEEN)
        if len(made) == len(rows):
            return [text.encode("latin-1") for text in made]
    except (KeyError, TypeError, ValueError):
        pass  # some are said otherwise, or none of ours: one by one
    return [bytes_of(row) for row in rows]


# -- lists in msgpack -------------------------------------------------------------------------------------------------


def list_body(data: bytes) -> tuple[int, bytes] | None:
    """How many members a list has in msgpack, and their bytes one after another; None if it is no list."""
    first = data[0] if data else 0
    if 0x90 <= first <= 0x9F:
        return first & 0x0F, data[1:]
    if first == 0xDC:
        return int(struct.unpack_from(">H", data, 1)[0]), data[3:]
    if first == 0xDD:
        return int(struct.unpack_from(">I", data, 1)[0]), data[5:]
    return None


def list_data(count: int, body: bytes) -> bytes:
    """The list again."""
    if count < 16:
        return bytes((0x90 | count,)) + body
    head = struct.pack(">BH", 0xDC, count) if count < 1 << 16 else struct.pack(">BI", 0xDD, count)
    return head + body


def members(count: int, body: bytes) -> list[bytes]:
    """The bytes of each member.

    Raises:
        IntegrityError: there are not so many.
    """
    out: list[bytes] = []
    at = 0
    try:
        for _ in range(count):
            end = _end(body, at)
            out.append(body[at:end])
            at = end
    except (IndexError, struct.error):
        at = -1
    if at != len(body):
        raise IntegrityError(f"a list of {count} members that is none of this adapter's")
    return out


# By first byte: how many bytes a value of a fixed size has.
_FIXED: Final = (
    {code: 1 for code in (0xC0, 0xC2, 0xC3)}
    | {0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9, 0xCA: 5, 0xCB: 9}
    | {0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18}
)
# And for those that say their length: as which number, and how many bytes (the type of an extension) follow it.
_LONG: Final = {
    0xC4: (">B", 1, 0),
    0xC5: (">H", 2, 0),
    0xC6: (">I", 4, 0),
    0xC7: (">B", 1, 1),
    0xC8: (">H", 2, 1),
    0xC9: (">I", 4, 1),
    0xD9: (">B", 1, 0),
    0xDA: (">H", 2, 0),
    0xDB: (">I", 4, 0),
}
_NESTED: Final = {0xDC: (">H", 2, 1), 0xDD: (">I", 4, 1), 0xDE: (">H", 2, 2), 0xDF: (">I", 4, 2)}


def _end(data: bytes, at: int) -> int:
    """Where the value that begins at a place ends."""
    waiting = 1
    while waiting:
        waiting -= 1
        first = data[at]
        if first < 0x80 or first >= 0xE0:
            at += 1
        elif first < 0x90:
            at, waiting = at + 1, waiting + 2 * (first & 0x0F)
        elif first < 0xA0:
            at, waiting = at + 1, waiting + (first & 0x0F)
        elif first < 0xC0:
            at += 1 + (first & 0x1F)
        elif first in _FIXED:
            at += _FIXED[first]
        elif first in _LONG:
            form, width, kind = _LONG[first]
            at += 1 + width + kind + struct.unpack_from(form, data, at + 1)[0]
        else:
            form, width, times = _NESTED.get(first, (">B", -1, 0))
            if width < 0:
                raise IndexError(first)
            waiting += times * struct.unpack_from(form, data, at + 1)[0]
            at += 1 + width
    return at

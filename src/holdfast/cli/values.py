"""What people type becomes a value; a value becomes what people read."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.errors import UsageError

_SPAN = re.compile(r"(\d{1,6})([smhdwy])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}


def moment(text: str) -> float:
    """A time to come, in seconds since 1970: so long from now, or a date.

    Raises:
        UsageError: it is neither.
    """
    from holdfast.clock import SYSTEM, parse_time

    found = _SPAN.fullmatch(text)
    if found:
        return SYSTEM.now_ms() / 1000 + int(found[1]) * _UNITS[found[2]]
    try:
        return parse_time(text) / 1000
    except UsageError as error:
        raise UsageError(f"not a time: {text!r:.80}", hint="90d, 12h, 2w, 1y, or a date such as 2027-06-30") from error


def said(text: str) -> Any:
    """What a message says: text, or JSON when it is an object or a list; `-` and `@FILE` as in `given`."""
    plain = given(text, as_text=True)
    if text == "-" or plain.lstrip()[:1] not in ("{", "["):
        return plain
    return given(text)


def given(text: str, *, as_text: bool = False, as_bytes: bool = False) -> Any:
    """The value that an argument stands for: JSON when it parses, else text.

    Args:
        text: ``-`` for standard input, ``@path`` for a file, ``@@…`` for text that begins with an @, else itself.
        as_text: never JSON.
        as_bytes: the bytes as they are.

    Raises:
        UsageError: both at once, or text that is not UTF-8.
    """
    if as_text and as_bytes:
        raise UsageError("--text and --bytes exclude each other", hint="choose one")
    data = _read(text)
    if as_bytes:
        return data
    if not as_text:
        try:
            return msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"not UTF-8 text: {error.reason} at byte {error.start}", hint="--bytes stores it") from error


def _read(text: str) -> bytes:
    if text == "-":
        return sys.stdin.buffer.read()
    if text.startswith("@@"):
        return text[1:].encode(errors="surrogateescape")
    if text.startswith("@"):
        return Path(text[1:]).expanduser().read_bytes()
    return text.encode(errors="surrogateescape")


def expected(text: str | None) -> int | str | None:
    """What `--if-version` means: a version number, or an etag."""
    if text is None:
        return None
    return int(text) if text.isascii() and text.isdigit() else text


def pretty(value: Any) -> str:
    """A value over as many lines as it needs."""
    if isinstance(value, str):
        return value
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def raw(value: Any) -> bytes:
    """A value's own bytes: text as UTF-8, JSON compact."""
    if isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else msgspec.json.encode(value)

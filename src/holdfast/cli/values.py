"""What people type becomes a value; a value becomes what people read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from holdfast.errors import UsageError


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

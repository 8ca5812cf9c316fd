"""What was written becomes the value of a key, or a sentence that says why it cannot."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from typing import Any, Final

from holdfast.settings.keys import Key
from holdfast.settings.units import SIZE_HINT, SPAN_HINT, size_in, size_said, span_in, span_said

TEXT_CHARS_MAX: Final = 4_096
WORDS_MAX: Final = 256
SHOWN_CHARS_MAX: Final = 60
_YES: Final = ("true", "yes", "on", "1")
_NO: Final = ("false", "no", "off", "0")
_WHOLE: Final = re.compile(r"([+-]?\d{1,18}|[+-]?\d{1,3}(?:_\d{3})+)([kM]?)")
_NUMBER: Final = re.compile(r"[+-]?\d{1,18}(?:\.\d{1,18})?")
_URL: Final = re.compile(r"https?://[^/\s?#]+(?:/[^\s?#]*)?")
_THOUSANDS: Final = {"": 1, "k": 1_000, "M": 1_000_000}
_LISTS: Final = ("urls", "words", "command")
_DAYS: Final = ("days", "days_by_name")
_FOLDERS: Final = ("file:", "sqlite:")
"""Addresses that may name a place by a relative path."""
PASSWORD: Final = re.compile(r"(?<=://)([^\s/:@]*):([^\s/@]+)(?=@)")
_SECRET_QUERY: Final = re.compile(r"([?&][^=&\s]*(?:secret|password|token|key|sig|credential)[^=&\s]*=)[^&\s]+", re.I)


class Wrong(ValueError):
    """What was written is no value of the key; the message says why."""


def value_in(key: Key, raw: str | list[str], folder: str = "") -> Any:
    """The value that was written.

    Kinds: text · choice · flag (true, false) · whole (128000, 128k) · number · size (bytes) · span (seconds) · days
    (seconds; bare numbers are days) · days_by_name (in one text: ``log-*=7 messages=30``) · path · address (of an
    object store or a database) · url · urls and words (a list, or one text) · command (a list; one text is split as a
    shell would) · secret.

    Args:
        key: whose.
        raw: the text, or the texts of a list.
        folder: what relative paths are relative to; empty: they stay as they are.

    Raises:
        Wrong: it is none.
    """
    if isinstance(raw, list):
        if key.kind not in _LISTS:
            raise Wrong("one value is wanted, and this is a list")
        return _listed(key, raw)
    if any(ord(each) < 32 or ord(each) == 127 for each in raw) or len(raw) > TEXT_CHARS_MAX:
        raise Wrong(f"text of one line is wanted, at most {TEXT_CHARS_MAX:,} characters")
    if key.kind in _LISTS:
        return _listed(key, _split(key, raw))
    if key.kind == "days_by_name":
        return {name: days_of(key, each) for name, each in _parts(raw)}
    value = _MAKERS[key.kind](key, raw, folder)
    _check_bounds(key, value, raw)
    return value


def _split(key: Key, raw: str) -> list[str]:
    if key.kind != "command":
        return raw.split() if key.kind == "urls" else [each for each in re.split(r"[\s,]+", raw) if each]
    try:
        return shlex.split(raw)
    except ValueError as error:
        raise Wrong(f"not a command: {error}".lower()) from None


def _listed(key: Key, raw: list[str]) -> tuple[str, ...]:
    if len(raw) > WORDS_MAX:
        raise Wrong(f"{len(raw)} members, the most is {WORDS_MAX}")
    if any(not each for each in raw):
        raise Wrong("a member is empty")
    if key.kind == "command":
        if not raw:
            raise Wrong("an empty command; a list is wanted, such as [pass, show, holdfast]")
        return tuple(raw)
    return tuple(dict.fromkeys(_url(key, each, "") for each in raw) if key.kind == "urls" else dict.fromkeys(raw))


def _parts(raw: str) -> list[tuple[str, str]]:
    found = [each.partition("=") for each in raw.split()]
    if not all(name and days for name, _, days in found):
        raise Wrong(f"names and days are wanted, such as log-*=7 messages=30, got {shown(raw)}")
    return [(name, days) for name, _, days in found]


def days_of(key: Key, raw: str) -> float:
    """The seconds that one member of ``days_by_name`` means.

    Raises:
        Wrong: it means none.
    """
    value = _span(key, raw, "")
    _check_bounds(key, value, raw)
    return value


def _text(_: Key, raw: str, __: str) -> str:
    if not raw.strip():
        raise Wrong("it is empty")
    return raw


def _choice(key: Key, raw: str, _: str) -> str:
    if raw not in key.choices:
        near = nearest(raw, key.choices)
        meant = f"; did you mean {near!r}" if near else ""
        raise Wrong(f"one of {', '.join(key.choices)} is wanted, got {shown(raw)}{meant}")
    return raw


def _flag(_: Key, raw: str, __: str) -> bool:
    if raw.lower() not in _YES + _NO:
        raise Wrong(f"true or false is wanted, got {shown(raw)}")
    return raw.lower() in _YES


def _whole(_: Key, raw: str, __: str) -> int:
    found = _WHOLE.fullmatch(raw.strip())
    if found is None:
        raise Wrong(f"a whole number is wanted, got {shown(raw)}")
    digits = found[1].replace("_", "")
    if len(digits.lstrip("+-")) > 1 and digits.lstrip("+-").startswith("0"):
        raise Wrong(
            f"a whole number without a leading 0 is wanted, got {shown(raw)}"
        )  # octal to YAML, decimal to people
    return int(digits) * _THOUSANDS[found[2]]


def _number(_: Key, raw: str, __: str) -> float:
    if not _NUMBER.fullmatch(raw.strip()):
        raise Wrong(f"a number is wanted, got {shown(raw)}")
    return float(raw)


def _size(_: Key, raw: str, __: str) -> int:
    try:
        return size_in(raw)
    except ValueError as error:
        raise Wrong(f"{error}, got {shown(raw)}; {SIZE_HINT}") from None


def _span(key: Key, raw: str, _: str) -> float:
    try:
        return span_in(raw, 86_400.0 if key.kind in _DAYS else 1.0)
    except ValueError as error:
        hint = SPAN_HINT.replace("seconds", "days") if key.kind in _DAYS else SPAN_HINT
        raise Wrong(f"{error}, got {shown(raw)}; {hint}") from None


def _path(key: Key, raw: str, folder: str) -> str:
    _text(key, raw, folder)
    if not folder or raw.startswith(("/", "~")):
        return raw
    return f"{folder}/{raw.removeprefix('./')}"


def _address(key: Key, raw: str, folder: str) -> str:
    scheme = next((each for each in _FOLDERS if raw.startswith(each)), "")
    rest = raw.removeprefix(scheme)
    if not scheme or rest.startswith("//") or not rest:
        return _text(key, raw, folder) if raw else raw
    return scheme + _path(key, rest, folder)


def _url(_: Key, raw: str, __: str) -> str:
    if raw and not _URL.fullmatch(raw):
        raise Wrong(f"an address is wanted, such as http://10.0.0.42:8084, got {shown(raw)}")
    return raw.rstrip("/")


_MAKERS: Final = {
    **{"text": _text, "choice": _choice, "flag": _flag, "whole": _whole, "number": _number, "size": _size},
    **{"span": _span, "days": _span, "path": _path, "address": _address, "url": _url, "secret": _text},
}


def _check_bounds(key: Key, value: Any, raw: str) -> None:
    if key.least is None or key.most is None:
        return
    worth = 86_400.0 if key.kind in _DAYS else 1
    least, most = key.least * worth, key.most * worth
    if not least <= value <= most:
        raise Wrong(f"must be between {_bound(key, least)} and {_bound(key, most)}, got {shown(raw)}")


def _bound(key: Key, value: float) -> str:
    if key.kind == "size":
        return size_said(int(value))
    return span_said(value) if key.kind in ("span", *_DAYS) else f"{int(value) if value == int(value) else value}"


def shown(raw: str) -> str:
    """Something that was written, short enough for a message, and without a password."""
    text = repr(hidden(raw))
    return text if len(text) <= SHOWN_CHARS_MAX else text[: SHOWN_CHARS_MAX - 2] + "…'"


def hidden(text: str) -> str:
    """An address without the passwords that may stand in it."""
    return _SECRET_QUERY.sub(r"\1***", PASSWORD.sub(r"\1:***", text))


def nearest(word: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """The known word that was probably meant; empty if none comes so near."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, sorted(known), 1, likeness)), "")

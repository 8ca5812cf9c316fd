"""What may be the key of an object, the same on every store, and why: so that data can move to any of them.

A key is text of segments with ``/`` between them, such as ``agent_configs/ceo/current``. It may be the beginning of
another key. Keys are told apart by code points: no store folds case or accents, and none changes a key.
"""

from __future__ import annotations

import re
from typing import Final

from holdfast.errors import StorageRefused

KEY_BYTES_MAX: Final = 1000
"""S3 and Azure take 1,024; the rest is room for a prefix of the store's own."""
SEGMENT_BYTES_MAX: Final = 200
"""A file's name has at most 255 bytes, and the signs that it cannot have are longer there."""
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def check_key(key: str) -> str:
    """The key itself, if it can be one on every store.

    Raises:
        StorageRefused: it cannot, and why.
    """
    if not isinstance(key, str):
        raise StorageRefused(f"a key is text, not {type(key).__name__}: {key!r:.80}")
    if why := _wrong(key):
        raise StorageRefused(f"not a key: {key!r:.120}: {why}", hint="such as agent_configs/ceo/current", key=key[:200])
    return key


def check_prefix(prefix: str) -> str:
    """The prefix itself, if keys can begin so. Any beginning of a key is one: it need not end with a segment.

    Raises:
        StorageRefused: no key begins like that, and why.
    """
    if not isinstance(prefix, str):
        raise StorageRefused(f"a prefix is text, not {type(prefix).__name__}: {prefix!r:.80}")
    probe = prefix + "x" if prefix.endswith(("/", "/.", "/..")) or prefix in ("", ".", "..") else prefix
    if why := _wrong(probe):
        raise StorageRefused(f"no key begins with {prefix!r:.120}: {why}", hint="such as agent_configs/")
    return prefix


def _wrong(key: str) -> str:
    if not key:
        return "it is empty"
    if _SURROGATE.search(key):
        return "half of a surrogate pair is no character"
    if _CONTROL.search(key):
        return "control characters cannot be in a file's name nor in a URL"
    if "\\" in key:
        return "a backslash is a slash on Windows and in Azure: write /"
    if key[0] == "/" or key[-1] == "/":
        return "a slash stands between two segments, not at the end or the beginning"
    if len(encoded := key.encode()) > KEY_BYTES_MAX:
        return f"{len(encoded)} bytes, {KEY_BYTES_MAX} are allowed"
    for segment in key.split("/"):
        if not segment:
            return "an empty segment is lost on files and in Azure"
        if segment in (".", ".."):
            return f"the segment {segment!r} means another place on files and in URLs"
        if len(segment.encode()) > SEGMENT_BYTES_MAX:
            return f"a segment of {len(segment.encode())} bytes, {SEGMENT_BYTES_MAX} are allowed"
    return ""


def check_after(after: str) -> str:
    """The key itself after which a listing is to go on; it need not be one, but stores must be able to compare it.

    Raises:
        StorageRefused: they cannot.
    """
    if not isinstance(after, str) or _SURROGATE.search(after) or "\x00" in after:
        raise StorageRefused(f"no listing goes on after {after!r:.80}", hint="the last key of the page before")
    return after


def check_limit(limit: int | None) -> None:
    """Whether a listing can be so long.

    Raises:
        StorageRefused: it is no number of objects.
    """
    if limit is not None and (not isinstance(limit, int) or limit < 0):
        raise StorageRefused(f"no number of objects: limit={limit!r:.80}", hint="0 or more; None: all")


def past_prefix(prefix: str) -> str:
    """The first text behind all those that begin with `prefix`, by code points; empty if there is none."""
    for end in range(len(prefix), 0, -1):
        last = ord(prefix[end - 1])
        if last < 0x10FFFF:
            return prefix[: end - 1] + chr(0xE000 if last == 0xD7FF else last + 1)  # no text has half a pair
    return ""

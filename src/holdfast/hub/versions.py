"""Which version of something a client expects or has: ETags, in `If-Match` and `If-None-Match`."""

from __future__ import annotations

import re

import msgspec

from holdfast.corpus import Stored
from holdfast.errors import Conflict, UsageError

_ETAG = re.compile(r'(?:W/)?"([!#-~]*)"')
_ETAGS = re.compile(rf"{_ETAG.pattern}(?:\s*,\s*{_ETAG.pattern})*")


class Wanted(msgspec.Struct, frozen=True):
    """Which version a write expects, as its headers say: etags or version numbers, ``*`` for any; empty: no matter."""

    match: tuple[str, ...] = ()
    none_match: tuple[str, ...] = ()

    def check(self, current: Stored | None, what: str) -> None:
        """Returns only if the current version is what was expected.

        Raises:
            Conflict: it is not; the context has the `current_version` (0: there is none) and its `etag`.
        """
        have = names_of(current)
        if self.match and not (current is not None and "*" in self.match) and not have.intersection(self.match):
            raise self._conflict(current, f"{what} is not at the version that you expected")
        if current is not None and ("*" in self.none_match or have.intersection(self.none_match)):
            raise self._conflict(current, f"{what} is there already")

    @staticmethod
    def _conflict(current: Stored | None, message: str) -> Conflict:
        version = current.record.key_version if current is not None else 0
        etag = current.record.link.hex() if current is not None else ""
        hint = "read it again, and send its ETag as If-Match"
        return Conflict(f"{message}: current is {version}", hint=hint, current_version=version, etag=etag)


def names_of(stored: Stored | None) -> set[str]:
    """What a version can be expected by: its etag, and its number."""
    return set() if stored is None else {stored.record.link.hex(), str(stored.record.key_version)}


def etags(text: str) -> tuple[str, ...]:
    """The etags in a header; ``*`` stands for itself.

    Raises:
        UsageError: it holds something else.
    """
    text = text.strip()
    if text in ("", "*"):
        return (text,) if text else ()
    if not _ETAGS.fullmatch(text):
        raise UsageError(f"not an ETag: {text!r:.80}", hint='in double quotes, as it was answered: "…"; or *')
    return tuple(_ETAG.findall(text))

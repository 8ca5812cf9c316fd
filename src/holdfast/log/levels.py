"""What a returned write survives: one level a store."""

from __future__ import annotations

import msgspec

from holdfast.errors import UsageError


class Level(msgspec.Struct, frozen=True):
    """How durable a write is when it returns.

    Attributes:
        name: basic, advanced or critical.
        full: an fsync inside each commit (SQLite ``synchronous=FULL``).
        sync_s: the longest that what a commit leaves to the background waits to be synced (the WAL; where that is
            synced by the commit, the anchor), in seconds; 0 never syncs on its own.
        anchor_each: whether the anchor is moved with each commit, before the write returns.
    """

    name: str
    full: bool
    sync_s: float
    anchor_each: bool


BASIC = Level("basic", full=False, sync_s=0.0, anchor_each=False)
"""Survives a crash of the process."""
ADVANCED = Level("advanced", full=False, sync_s=0.050, anchor_each=False)
"""Survives a power cut too, but for at most the last 50 ms of writes that no hub has yet. The default."""
CRITICAL = Level("critical", full=True, sync_s=0.050, anchor_each=True)
"""Survives a power cut, always."""

_LEVELS = {level.name: level for level in (BASIC, ADVANCED, CRITICAL)}


def level(name: str) -> Level:
    """The level with this name.

    Raises:
        UsageError: there is none.
    """
    try:
        return _LEVELS[name.lower()]
    except (KeyError, AttributeError):
        raise UsageError(f"unknown level {name!r}", hint=f"one of {', '.join(_LEVELS)}") from None

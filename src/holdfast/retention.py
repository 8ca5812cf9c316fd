"""How much a node keeps of what an agent wrote, and for how long: budgets by role, days, what is kept longest.

    Retention.of("recruiter", context_tokens=32_000)     # 2 GB and 2 MB for each 1,000 tokens
    Retention(max_bytes=512 * MB, days=30)

Pure: what a budget is worth is said here once; who keeps to it is `holdfast.node`. A budget never costs data: only
bodies leave that a hub and its two newest verified backups hold (or the hub alone, under ``--settle=acked``).

MB and GB are binary here (1,048,576 bytes and 1,073,741,824): that is what the earlier system's files mean by them
(``max_bytes: 2147483648  # 2 GB``), and its table adds up with them alone (1 GB + 96 MB is "~1.09 GB").
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from holdfast.errors import UsageError

KB: Final = 1 << 10
MB: Final = 1 << 20
GB: Final = 1 << 30
LEAST_BYTES: Final = 4 * MB
"""A smaller budget could not hold a log's own tables, its WAL and one batch."""
WAIT_S: Final = 2.0


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent of a kind needs at hand.

    Attributes:
        base_bytes: whatever its model is.
        scale_bytes: for each 1,000 tokens of its model's context window.
        context_tokens: that window, if nothing else is said.
        keep: collections that it works with, whose current values leave last.
    """

    base_bytes: int
    scale_bytes: int
    context_tokens: int
    keep: tuple[str, ...] = ()

    def budget(self, context_tokens: int | None = None) -> int:
        """Bytes for a context window: ``base + tokens / 1000 × scale``."""
        tokens = self.context_tokens if context_tokens is None else context_tokens
        return self.base_bytes + math.ceil(tokens * self.scale_bytes / 1000)


ROLES: Final[Mapping[str, Role]] = {
    "commander": Role(
        base_bytes=100 * MB,
        scale_bytes=512 * KB,
        context_tokens=32_000,
        keep=("tasks", "agents", "decisions", "goals"),
    ),
    "recruiter": Role(
        base_bytes=2 * GB, scale_bytes=2 * MB, context_tokens=32_000, keep=("candidates", "requisitions", "interviews")
    ),
    "reasoner": Role(base_bytes=500 * MB, scale_bytes=MB, context_tokens=128_000),
    "coder": Role(base_bytes=GB, scale_bytes=1536 * KB, context_tokens=64_000),
    "synthesizer": Role(base_bytes=300 * MB, scale_bytes=768 * KB, context_tokens=32_000),
}
"""The five roles of the earlier system's table; their budgets are its totals."""


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """What one agent's log may take on this machine, and for how long bodies stay. Nothing said: everything, for ever.

    Attributes:
        max_bytes: the budget of the log, its WAL and its blobs together; 0: no budget.
        days: bodies that are older, and settled, leave this machine; 0: they stay.
        collection_days: the same for collections by name or glob (``log-*``); the first that fits counts, 0: they stay.
        keep: collections (names or globs) whose current values leave last.
        wait_s: seconds that a write waits at the budget while a hub is taking what would make room; then, or at once
            where no hub answers, it is refused (`NodeFull`).
        keep_fetched: whether a body that was fetched back is kept again while there is room.
    """

    max_bytes: int = 0
    days: float = 0.0
    collection_days: dict[str, float] = {}
    keep: tuple[str, ...] = ()
    wait_s: float = WAIT_S
    keep_fetched: bool = True

    def __post_init__(self) -> None:
        if self.max_bytes and self.max_bytes < LEAST_BYTES:
            raise UsageError(
                f"a budget of {self.max_bytes} bytes is too small", hint=f"at least {LEAST_BYTES} (4 MB), or 0 for none"
            )
        if not (math.isfinite(self.wait_s) and self.wait_s >= 0):
            raise UsageError(f"wait_s is a number of seconds, got {self.wait_s!r}", hint="such as 2.0")
        for name, days in (("days", self.days), *self.collection_days.items()):
            if not (math.isfinite(days) and days >= 0):
                raise UsageError(f"{name} is a number of days, got {days!r}", hint="such as 30, or 0 for ever")

    @classmethod
    def of(cls, role: str, *, context_tokens: int | None = None, max_bytes: int = 0, days: float = 0.0) -> Retention:
        """The retention of a role.

        Args:
            role: one of `ROLES`, in any case.
            context_tokens: the window of the agent's model; None: the role's usual one.
            max_bytes: overrides what the role and the window come to.
            days: as `Retention.days`.

        Raises:
            UsageError: no such role, or a window below zero.
        """
        found = ROLES.get(role.strip().lower())
        if found is None:
            raise UsageError(f"no role {role!r} is known", hint=f"one of {', '.join(ROLES)}; or give max_bytes")
        if context_tokens is not None and context_tokens < 0:
            raise UsageError(f"a context window of {context_tokens} tokens", hint="such as 32000")
        return cls(max_bytes=max_bytes or found.budget(context_tokens), days=days, keep=found.keep)

    @property
    def limits(self) -> bool:
        """Whether anything ever has to leave."""
        return bool(self.max_bytes or self.days or any(self.collection_days.values()))

    def days_of(self, collection: str) -> float:
        """For how many days bodies of a collection stay; 0: for ever."""
        for glob, days in self.collection_days.items():
            if fnmatchcase(collection, glob):
                return days
        return self.days

    def keeps(self, collection: str) -> bool:
        """Whether current values of a collection leave last."""
        return any(fnmatchcase(collection, glob) for glob in self.keep)

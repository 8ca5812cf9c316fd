"""What a node remembers of each hub in node.db: how it stood, how often it was asked, and how often in vain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast import clock

if TYPE_CHECKING:
    from holdfast.node.directory import Directory

REASONS: Final = ("unreachable", "timeout", "auth", "conflict", "full", "protocol")
_BY_STATUS: Final = {401: "auth", 403: "auth", 409: "conflict", 507: "full"}


def hub_status(directory: Directory, url: str) -> dict[str, Any]:
    """How a hub stood when somebody last shipped to it: `state` is unknown when nobody has."""
    row = directory.node.one("SELECT at_ms, status FROM hub WHERE url=?", (url,))
    if row is None:
        return {"url": url, "state": "unknown", "at": None, "alert": "", "failures": 0}
    return {"url": url, "at": clock.iso(row[0]), **msgspec.json.decode(row[1])}


class Tally:
    """Counts one hub's requests from the day the node was made; processes go on where the last one stood.

    Args:
        told: what an earlier process left behind, as `to_json` gave it; or anything else, which counts as nothing.
    """

    def __init__(self, told: Any = None) -> None:
        known = told if isinstance(told, Mapping) else {}
        failures = known.get("failures")
        failures = failures if isinstance(failures, Mapping) else {}
        self.attempts = _count(known.get("attempts"))
        self.failures = {reason: _count(failures.get(reason)) for reason in REASONS}

    def failed(self, kind: str, status: int | None = None) -> None:
        """Counts a request that did not do what it was for.

        Args:
            kind: network, timeout, echo (an answer to something else) or status.
            status: of the hub's answer, if there was one.
        """
        if kind == "status" and status is not None:
            away = status >= 500 or status in (408, 429)
            reason = _BY_STATUS.get(status) or ("unreachable" if away else "protocol")
        else:
            reason = {"timeout": "timeout", "echo": "protocol"}.get(kind, "unreachable")
        self.failures[reason] += 1

    def to_json(self) -> dict[str, Any]:
        """What the next process is to be told."""
        return {"attempts": self.attempts, "failures": dict(self.failures)}


def _count(found: Any) -> int:
    return found if isinstance(found, int) and found > 0 else 0

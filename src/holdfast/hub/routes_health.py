"""Whether the hub lives, is ready, and how it is: for probes, for people, and for `holdfast status`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from holdfast import __version__, clock, wire
from holdfast.corpus.space import Space
from holdfast.errors import HoldfastError
from holdfast.hub.api import Operation
from holdfast.hub.core import Core
from holdfast.hub.exchange import Receive, Scope, Send, answer_json
from holdfast.hub.indexes import problems
from holdfast.hub.options import Settle
from holdfast.hub.shapes import Iso


def operations(core: Core) -> Iterator[Operation]:
    """The probes: open to all, as a load balancer has no token."""
    tag = "health"

    def probe(path: str, endpoint: Any, summary: str, gives: Any, **more: Any) -> Operation:
        return Operation(
            method="GET", path=path, endpoint=endpoint, needs="", tag=tag, summary=summary, answer=gives, **more
        )

    yield probe("/livez", Livez(), "Whether the process lives", Alive)
    yield probe("/readyz", Readyz(core), "Whether writes are taken", Ready, also={503: Ready})
    yield probe("/health", Health(core), "How the hub is, in figures", Figures)
    yield probe("/version", Version(), "Which Holdfast this is", About)


class Alive(msgspec.Struct):
    """It lives."""

    status: Literal["ok"]


class Follows(msgspec.Struct):
    """How a standby stands with the hub that it follows."""

    url: str
    key: str | None
    state: Literal["connecting", "comparing", "behind", "level", "offline", "denied", "refused", "full"]
    lag_records: int | None
    lag_s: float | None
    last_contact: str | None
    records: int
    handover: int | None
    problems: list[str]


class Ready(msgspec.Struct):
    """Whether writes are taken: what each check found, and what is degraded though they are."""

    ready: bool
    checks: dict[str, str]
    warnings: list[str]
    follows: Follows | UnsetType = UNSET


class About(msgspec.Struct):
    """Which Holdfast this is, and the versions of what it speaks and writes."""

    name: str
    version: str
    protocol: int
    record: int


class Figures(msgspec.Struct):
    """How the hub is: who it is, where its feed stands, what it has done since it started, and its disk in bytes."""

    status: Literal["ok", "degraded", "failing"]
    service: Literal["storage_service"]
    timestamp: Iso
    version: str
    hub: str
    key: str
    generation: str
    settle: Settle
    pos: int
    cursor: str
    uptime_s: float
    nodes: int
    listeners: int
    overflows: int
    commits: int
    syncs: int
    records: int
    wal_pages: int
    disk: Space
    checks: dict[str, str]
    warnings: list[str]
    follows: Follows | UnsetType = UNSET


class Livez:
    """GET /livez: 200 for as long as the event loop turns."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        await answer_json(send, {"status": "ok"})


class Version:
    """GET /version: which Holdfast this is, and what it speaks."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        await answer_json(send, {"name": "holdfast", "version": hub_version(), "protocol": wire.PROTOCOL, "record": 1})


class Readyz:
    """GET /readyz: 200 while writes are taken, else 503; what is degraded stands in `warnings` either way."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        checks, warnings = await look(self._core)
        ready = all(found == "ok" for found in checks.values())
        body: dict[str, Any] = {"ready": ready, "checks": checks, "warnings": warnings}
        if self._core.follower is not None:
            body["follows"] = self._core.follower.status()
        await answer_json(send, body, status=200 if ready else 503)


class Health:
    """GET /health: how the hub is, in figures."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        core = self._core
        checks, warnings = await look(core)
        space = await core.read(core.home.reserve.state)
        good = all(found == "ok" for found in checks.values())
        await answer_json(
            send,
            {
                "status": "ok" if good and not warnings else "degraded" if good else "failing",
                "service": "storage_service",
                "timestamp": clock.iso(core.home.wall.now_ms()),
                "version": hub_version(),
                "hub": core.home.hub_id,
                "key": core.home.signer.public_key.hex(),
                "generation": core.home.gen,
                "settle": core.home.settle,
                "pos": core.feed.head,
                "cursor": core.feed.cursor(core.feed.head),
                "uptime_s": round(time.monotonic() - core.started, 1),
                "nodes": len(core.nodes),
                "listeners": core.feed.listeners,
                "overflows": core.feed.overflows,
                "commits": core.writer.commits,
                "syncs": core.writer.syncs,
                "records": core.writer.records,
                "wal_pages": core.corpus.wal_pages,
                "disk": msgspec.to_builtins(space),
                **({"follows": core.follower.status()} if core.follower is not None else {}),
                **({"backups": core.backups.status()} if core.backups is not None else {}),
                "checks": checks,
                "warnings": warnings,
            },
        )


async def look(core: Core) -> tuple[dict[str, str], list[str]]:
    """What must be well for writes to be taken, and what else is not as it should be."""
    checks = {"corpus": "ok", "disk": "ok", "writer": "ok"}
    if core.feed.ended:
        checks["writer"] = "stopping"
    if core.writer.failure is not None:
        checks["writer"] = f"failed: {core.writer.failure}"
    try:
        await core.read(core.corpus.last)
    except HoldfastError as error:
        checks["corpus"] = f"failed: {error}"
    if core.order is not None and core.order.trouble:
        checks["news"] = f"failed: {core.order.trouble}"
    space = await core.read(core.home.reserve.state)
    if not space.writable:
        checks["disk"] = f"full: {space.free >> 20} MiB free, {space.floor >> 20} MiB must stay free"
    warnings = []
    if core.backups is not None:
        warnings += core.backups.problems()
    elif core.home.settle == "backups":
        warnings.append("nothing settles: this hub has no backups, so nodes keep every body (or: --settle=acked)")
    if space.ballast < space.ballast_wanted:
        warnings.append("the ballast file is not there: the way out of a full disk is not kept free")
    warnings += core.home.warnings()
    warnings += core.scanning.warnings()
    warnings += core.audit.problems()
    warnings += core.notifying.problems()
    if core.indexing_failed:
        warnings.append(f"the search index cannot be filled: {core.indexing_failed}")
    if checks["corpus"] == "ok":
        warnings += await core.read(lambda: problems(core))
    if core.follower is not None:
        warnings += core.follower.problems()
    return checks, warnings


def hub_version() -> str:
    """Which Holdfast this is."""
    return __version__

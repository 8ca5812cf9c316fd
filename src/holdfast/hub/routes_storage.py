"""The storage service: sessions, history, state, artifacts, metrics, the cache, and what stands at the hub's root."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from holdfast.hub import routes_artifacts, routes_cache, routes_history, routes_metrics, routes_sessions
from holdfast.hub.api import Call, Operation, typed
from holdfast.hub.core import Core
from holdfast.hub.routes_health import hub_version
from holdfast.hub.sessions import Sessions


class ServiceInfo(msgspec.Struct, kw_only=True):
    """What this is, and where to go on."""

    service: str
    name: str
    version: str
    status: str
    docs: str
    openapi: str
    health: str


def operations(core: Core) -> Iterator[Operation]:
    """Everything of the storage service."""
    sessions = Sessions(core)
    yield Operation(
        method="GET",
        path="/",
        endpoint=typed(about),
        needs="",
        summary="What this service is",
        tag="health",
        answer=ServiceInfo,
    )
    for room in (routes_sessions, routes_history, routes_artifacts, routes_metrics):
        yield from room.operations(sessions)
    yield from routes_cache.operations(core)


async def about(call: Call) -> ServiceInfo:
    """What this service is, which Holdfast, and where its documentation, its API and its health are."""
    return ServiceInfo(
        service="storage_service",
        name="holdfast",
        version=hub_version(),
        status="running",
        docs="/docs",
        openapi="/openapi.json",
        health="/health",
    )

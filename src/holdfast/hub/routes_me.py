"""GET /v1/me: who asks, as this hub knows him, and what he may do; `holdfast doctor` shows it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from holdfast.clock import iso
from holdfast.hub.api import Call, Operation, typed
from holdfast.hub.core import Core
from holdfast.hub.principal import APPEND, FOR_EVER, READ, Kind
from holdfast.hub.routes_health import hub_version
from holdfast.hub.shapes import Iso


class Me(msgspec.Struct):
    """Who asks: his token's kind, name and id (none where no token is wanted), its scopes and globs, and its end."""

    kind: Kind
    name: str
    id: str
    scopes: list[str]
    agents: list[str]
    collections: list[str]
    ends: Iso | None
    version: str


def operations(core: Core) -> Iterator[Operation]:
    """The one question."""
    yield Operation(
        method="GET",
        path="/v1/me",
        endpoint=typed(me),
        needs=READ,
        or_needs=APPEND,
        summary="Who asks, and what he may do",
        tag="nodes",
        answer=Me,
    )


async def me(call: Call) -> Me:
    """Who this hub takes the asker for: nothing of his token is repeated but its id."""
    who = call.principal
    return Me(
        kind=who.kind,
        name=who.name,
        id=who.id,
        scopes=sorted(who.scopes),
        agents=list(who.agents),
        collections=list(who.collections),
        ends=None if who.ends_ms >= FOR_EVER else iso(who.ends_ms),
        version=hub_version(),
    )

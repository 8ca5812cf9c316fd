"""GET /v1/audit: who did what to this hub. People read it as a page; a hub that follows this one takes it along."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from holdfast.clock import iso, parse_time
from holdfast.errors import UsageError
from holdfast.hub.acts import Act, Actor, Wanted
from holdfast.hub.api import Call, Operation, typed
from holdfast.hub.core import Core
from holdfast.hub.principal import READ
from holdfast.hub.shapes import Limit, Time

LINK_BYTES: Final = 32
"""Of a record's link; what is shorter marks an act that came from another hub (`acts.TAKEN_BYTES`)."""


class AuditAsked(msgspec.Struct, frozen=True, kw_only=True):
    """Which acts; the newest come first."""

    who: Annotated[str, Meta(max_length=255, description="only his")] = ""
    what: Annotated[str, Meta(max_length=64, description="only of this kind, such as sign-in")] = ""
    since: Annotated[Time | None, Meta(description="from then on")] = None
    until: Annotated[Time | None, Meta(description="before then")] = None
    before: Annotated[
        str,
        Meta(
            max_length=39,
            description="`next` of the page before; empty: the newest",
            extra_json_schema={"pattern": "^([0-9]{1,15}\\.[0-9]{1,15})?$"},
        ),
    ] = ""
    limit: Limit = 100


class ActShown(msgspec.Struct):
    """Something that was done: when, by whom, by which way, to what; `record` is the link of the one that says it."""

    time: str
    kind: str
    who: str
    token: str
    way: str
    done: str
    target: str
    details: dict[str, str]
    record: str


class ActsPage(msgspec.Struct):
    """Acts, the newest first; `next` goes into `before`."""

    acts: list[ActShown]
    next: str | None


def operations(core: Core) -> Iterator[Operation]:
    """The audit trail."""
    yield Operation(
        method="GET",
        path="/v1/audit",
        endpoint=typed(Teller(core).tell),
        needs=READ,
        summary="Who did what to this hub",
        tag="audit",
        query=AuditAsked,
        answer=ActsPage,
    )


class Teller:
    """Reads the trail of one hub.

    Args:
        core: the hub.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    async def tell(self, call: Call) -> ActsPage:
        """Acts, the newest first, to whoever may read everything."""
        call.principal.need_everything()
        for told in (call.query.since, call.query.until):
            if told == "":  # on a page that is a field left free; here somebody lost his time on the way
                raise UsageError("an empty text is no time", hint="leave the parameter out")
        found, following = await page(self._core, call.query, call.query.limit)
        return ActsPage([shown(each) for each in found], following)


async def page(core: Core, asked: Any, limit: int) -> tuple[list[Act], str | None]:
    """A page of the trail, and what goes into `before` for the next one.

    Args:
        core: the hub.
        asked: who, what, since, until and before, as texts.
        limit: how many at most.

    Raises:
        UsageError: a time, or a place in the list, that is none.
    """
    before = None
    if asked.before:
        at_ms, _, number = asked.before.partition(".")
        if not (at_ms.isdecimal() and number.isdecimal() and len(at_ms) < 16 and len(number) < 16):
            raise UsageError(f"not a place in the list: {asked.before!r:.80}", hint="`next` of the page before")
        before = int(at_ms), int(number)
    which = Wanted(
        who=asked.who,
        what=asked.what,
        since_ms=parse_time(asked.since) if asked.since else 0,
        until_ms=parse_time(asked.until) if asked.until else 0,
        before=before,
        limit=limit + 1,
    )
    found = await core.read(lambda: core.audit.store.page(which))
    following = f"{found[limit - 1].at_ms}.{found[limit - 1].id}" if len(found) > limit else None
    return found[:limit], following


def shown(act: Act) -> ActShown:
    """An act, for people and for other hubs."""
    return ActShown(
        time=iso(act.at_ms),
        kind=act.by.kind,
        who=act.by.who,
        token=act.by.token,
        way=act.by.via,
        done=act.what,
        target=act.about,
        details=act.detail,
        record=act.ref.hex() if act.ref and len(act.ref) == LINK_BYTES else "",
    )


def act_of(told: ActShown) -> Act:
    """The act that another hub told.

    Raises:
        UsageError: its time is none.
    """
    record = bytes.fromhex(told.record) if len(told.record) == 2 * LINK_BYTES else b""
    return Act(
        by=Actor(kind=told.kind, who=told.who, token=told.token, via=told.way),
        what=told.done,
        about=told.target,
        detail=told.details,
        at_ms=parse_time(told.time),
        ref=record or None,
    )

"""Notifications over HTTP: the rules, a test of one, and what was given up. An administrator's alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from holdfast.collections.messages import PEOPLE
from holdfast.hub.api import Call, Operation, Reply, typed
from holdfast.hub.core import Core
from holdfast.hub.notify.rules import ADDRESS_MAX, FORMS, GLOB_MAX, GLOBS_MAX, RATE, RATE_MAX, Rule
from holdfast.hub.notify.shapes import NotifyShown, RuleMade, Tried
from holdfast.hub.principal import ADMIN, Principal
from holdfast.log.drafts import PRIORITIES

if TYPE_CHECKING:
    from holdfast.hub.notify.desk import Wish

NAME = Annotated[str, Meta(max_length=64, description="the name of a rule", examples=["phone"])]
Globs = Annotated[tuple[Annotated[str, Meta(max_length=GLOB_MAX)], ...], Meta(max_length=GLOBS_MAX)]


class NewRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rule, whole: what is left out is as it is unless said. Of one that is there, address and token stay as they are
    when they are left out."""

    address: Annotated[str, Meta(max_length=ADDRESS_MAX, description="of the webhook, or of the ntfy topic")] = ""
    token: Annotated[str, Meta(max_length=2_000, description="shown there as a bearer's")] | None = None
    new_secret: Annotated[bool, Meta(description="whether its signatures get another key")] = False
    form: Literal[FORMS] = "webhook"  # type: ignore[valid-type]
    kinds: Globs = ()
    priority: Annotated[Literal[("", *PRIORITIES)], Meta(description="the least")] = ""  # type: ignore[valid-type]
    senders: Globs = ("*",)
    to: Globs = (PEOPLE,)
    body: Annotated[bool, Meta(description="whether what was written goes out, too")] = False
    quiet: Annotated[str, Meta(max_length=11, description="hours, such as 22:00-07:00")] = ""
    zone: Annotated[str, Meta(max_length=64, description="the time zone of these hours")] = "UTC"
    rate: Annotated[int, Meta(ge=1, le=RATE_MAX, description="notifications an hour, at most")] = RATE
    link: Annotated[str, Meta(max_length=ADDRESS_MAX, description="the address of this hub's pages, for links")] = ""
    on: bool = True

    @property
    def wish(self) -> Wish:
        """What it asks for."""
        from holdfast.hub.notify.desk import Wish

        given = {name: getattr(self, name) for name in Rule.__struct_fields__ if name not in ("where", "sealed")}
        return Wish(rule=Rule(**given), address=self.address, token=self.token, new_secret=self.new_secret)


class NotifyAsked(msgspec.Struct, frozen=True, kw_only=True):
    """Which page of what was given up."""

    after: Annotated[str, Meta(max_length=64, description="`next` of the page before")] = ""
    limit: Annotated[int, Meta(ge=1, le=1_000, description="how many of what was given up, at most")] = 50


class Letters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to become of notifications that were given up."""

    what: Annotated[Literal["retry", "drop"], Meta(description="try them again, or forget them")]
    ids: Annotated[
        tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=1_000, description="none: all")
    ] = ()


class Done(msgspec.Struct):
    """How many these were."""

    count: int


def operations(core: Core) -> Iterator[Operation]:
    """Everything about notifications."""
    work = Work(core)
    one: dict[str, Any] = {"path": "/v1/notify/{name}", "where": {"name": NAME}, "needs": ADMIN, "tag": "notifications"}
    yield Operation(
        method="GET",
        path="/v1/notify",
        endpoint=typed(work.every),
        needs=ADMIN,
        summary="Rules of notifications, and what was given up",
        tag="notifications",
        query=NotifyAsked,
        answer=NotifyShown,
    )
    yield Operation(
        method="PUT",
        endpoint=typed(work.put),
        summary="Make or change a rule",
        body=NewRule,
        answer=RuleMade,
        status=200,
        also={201: RuleMade},
        errors=(409,),
        **one,
    )
    yield Operation(
        method="DELETE", endpoint=typed(work.remove), summary="Remove a rule", answer=Done, errors=(404,), **one
    )
    yield Operation(
        method="POST",
        path="/v1/notify/{name}/test",
        where={"name": NAME},
        endpoint=typed(work.test),
        needs=ADMIN,
        summary="Send a test",
        tag="notifications",
        answer=Tried,
        errors=(404,),
    )
    yield Operation(
        method="POST",
        path="/v1/letters",
        endpoint=typed(work.letters),
        needs=ADMIN,
        summary="Retry or forget what was given up",
        tag="notifications",
        body=Letters,
        answer=Done,
    )


def author_of(principal: Principal) -> str:
    """Who is named as the author of a change."""
    return principal.name or "operator"


class Work:
    """What each operation does.

    Args:
        core: the hub.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    async def every(self, call: Call) -> NotifyShown:
        """The rules by name, each with how it stands; addresses and secrets are not shown."""
        return await self._core.notifying.rules.every(call.query.after, call.query.limit)

    async def put(self, call: Call) -> Reply:
        """Makes or changes a rule. The key of its signatures is told when it is made, and not again."""
        made = await self._core.notifying.rules.put(call.path["name"], call.body.wish, author_of(call.principal))
        return Reply(made, status=201 if made.made else 200)

    async def remove(self, call: Call) -> Done:
        """Removes a rule, with what it still had to tell; its history stays."""
        await self._core.notifying.rules.remove(call.path["name"], author_of(call.principal))
        return Done(1)

    async def test(self, call: Call) -> Tried:
        """Sends a test at once, whatever hours or rate the rule has, and answers what became of it."""
        return await self._core.notifying.rules.test(call.path["name"])

    async def letters(self, call: Call) -> Done:
        """Has notifications that were given up tried again, under the ids that they had, or forgets them."""
        return Done(await self._core.notifying.rules.letters(call.body.what, call.body.ids))

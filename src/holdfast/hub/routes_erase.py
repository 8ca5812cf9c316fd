"""POST /v1/erase: what plain clients wrote is erased for good, where it lies: in the hub's own streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Meta

from holdfast.hub.api import Call, Operation, typed
from holdfast.hub.core import Core
from holdfast.hub.own_erasing import OwnErasing, Report, Wanted
from holdfast.hub.principal import ADMIN
from holdfast.hub.shapes import PRINTED
from holdfast.records import KEY_BYTES_MAX, NAME_BYTES_MAX

_Text = Annotated[str, Meta(max_length=NAME_BYTES_MAX, extra_json_schema={"pattern": PRINTED})]
REASON_MAX = 1_000


class Erase(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be erased: exactly one of `subject`, `session` and `agent`."""

    subject: Annotated[_Text, Meta(description="whom sessions name as their `user_id`: all of these sessions")] = ""
    session: Annotated[_Text, Meta(description="the id of one session")] = ""
    agent: Annotated[_Text, Meta(description="all that plain clients wrote in this agent's name")] = ""
    collection: Annotated[_Text, Meta(description="of the agent's records only those of this collection")] = ""
    key: (
        Annotated[
            str,
            Meta(max_length=KEY_BYTES_MAX, description="of that only this key", extra_json_schema={"pattern": PRINTED}),
        ]
        | None
    ) = None
    reason: Annotated[
        str, Meta(max_length=REASON_MAX, description="stays readable for ever: why, and not about whom")
    ] = ""


def operations(core: Core) -> Iterator[Operation]:
    """Erasing."""
    yield Operation(
        method="POST",
        path="/v1/erase",
        endpoint=typed(EraseWork(OwnErasing(core))),
        needs=ADMIN,
        summary="Erase what plain clients wrote",
        tag="deciding",
        body=Erase,
        answer=Report,
        errors=(404,),
    )


class EraseWork:
    """POST /v1/erase: takes bodies away for good, with a signed record that says so; history goes on proving itself.

    What nodes have shipped only they can erase (`holdfast erase` there); `left` says how much of that there is, and
    what else is not reached. Asked again, it goes on where it was cut off.
    """

    def __init__(self, erasing: OwnErasing) -> None:
        self._erasing = erasing

    async def __call__(self, call: Call) -> Report:
        """The answer to one request."""
        asked: Erase = call.body
        wanted = Wanted(
            subject=asked.subject,
            session=asked.session,
            agent=asked.agent,
            collection=asked.collection,
            key=asked.key,
        )
        return await self._erasing.erase(wanted, asked.reason)

"""POST /v1/decide: keys that several agents write at once, decided by the hub in one stream of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta

from holdfast import wire
from holdfast.corpus import Stored
from holdfast.corpus.sqlite import TAGS
from holdfast.errors import Conflict, UsageError
from holdfast.hub.api import JSON, Call, Operation, typed
from holdfast.hub.core import Core
from holdfast.hub.judge import HUB_AGENT, check_decides
from holdfast.hub.own import QUICK_BYTES, Desk, check_agent
from holdfast.hub.principal import WRITE
from holdfast.hub.shapes import INT64_MAX, PRINTED, Collection, Key, Version, Writer
from holdfast.log import drafts
from holdfast.log.versions import frame
from holdfast.records import KEY_BYTES_MAX, NAME_BYTES_MAX

ONE_OF_BOTH: Final = {
    "anyOf": [
        {"required": ["value"], "properties": {"delete": {"const": False}}},
        {"required": ["delete"], "properties": {"delete": {"const": True}, "value": {"type": "null"}}},
    ]
}


class Wish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A value to put, or to delete, if the version that is there is the expected one."""

    agent: Writer
    collection: Annotated[
        Collection, Meta(max_length=NAME_BYTES_MAX, min_length=1, extra_json_schema={"pattern": PRINTED})
    ]
    key: Annotated[Key, Meta(max_length=KEY_BYTES_MAX, extra_json_schema={"pattern": PRINTED})]
    value: Any = UNSET
    delete: bool = False
    reason: Annotated[str, Meta(description="why it is deleted")] | None = None
    expect: (
        Annotated[int, Meta(ge=0, le=INT64_MAX, description="a version, or 0: no value yet")]
        | Annotated[str, Meta(description="an etag")]
        | None
    ) = None
    id: Annotated[str, Meta(min_length=1, max_length=200, description="one that no other request has")] | None = None


def operations(core: Core) -> Iterator[Operation]:
    """Decisions."""
    yield Operation(
        method="POST",
        path="/v1/decide",
        endpoint=typed(Decide(core)),
        needs=WRITE,
        summary="Compare and set",
        tag="deciding",
        body=Annotated[Wish, Meta(extra_json_schema=ONE_OF_BOTH)],
        takes=(JSON, wire.MEDIA),
        answer=Version,
        errors=(409,),
    )


class Decide:
    """POST /v1/decide: puts or deletes a key of a `cas` collection if its version is the expected one.

    The hub decides in one stream of its own, so of two requests that expect the same version one wins and the other
    gets 409 with the current version. A request is known by its `id`: sent again, it gets its first answer.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, call: Call) -> bytes:
        """The answer to one request."""
        call.principal.check_write(call.body.agent, call.body.collection)
        check_decides(call.principal, call.body.collection)
        stored = await self._decide(call.body, call.size)
        return await self._core.read(lambda: frame(stored, self._core.home.blobs))

    async def _decide(self, asked: Wish, size: int) -> Stored:
        agent, collection, key = check_agent(asked.agent, hub=False), asked.collection, asked.key
        nothing, given = asked.value is UNSET, asked.value not in (UNSET, None)
        if (given and asked.delete) or (nothing and not asked.delete):
            raise UsageError("neither a value nor delete: true, or both", hint="give one of them")
        expect, request = asked.expect, asked.id
        if asked.delete:
            draft = drafts.remove(collection, key, reason=asked.reason or "", expect=expect, author=agent)
        else:
            draft = drafts.value(collection, key, asked.value, expect=expect, author=agent)
        tag = f"decide:{request}" if request else ""
        if tag:
            draft = msgspec.structs.replace(draft, tags=((TAGS["request"], tag),))
        log = await self._core.own.log_of(HUB_AGENT)
        quick = len(draft.payload) <= QUICK_BYTES
        ready = (
            self._core.own.ready(log, draft)
            if quick
            else await self._core.read(lambda: self._core.own.ready(log, draft))
        )

        def work(desk: Desk) -> Stored | Conflict:
            before = desk.request(tag) if tag else None
            if before is not None:
                same = (before.record.collection, before.record.key, before.record.author) == (collection, key, agent)
                return (
                    before
                    if same
                    else Conflict(f"the id {request!r} was used for another decision", hint="make a new one")
                )
            try:
                return desk.append(ready)
            except Conflict as error:
                return error

        found = await self._core.own.write(HUB_AGENT, work, size=size, quick=quick)
        if isinstance(found, Conflict):
            raise found
        return found  # type: ignore[no-any-return]

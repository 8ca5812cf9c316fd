"""What an administrator asks of nodes: to try again now, to pause, to go on; and which are to be forgotten.

A node has no port: it hears of it with its next word to this hub (`wishes`), so an answer says what was noted, and
whether the node knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from holdfast.clock import iso
from holdfast.errors import NotFound
from holdfast.hub.api import Call, Operation, typed
from holdfast.hub.core import Core
from holdfast.hub.principal import ADMIN
from holdfast.hub.shapes import PRINTED
from holdfast.hub.wishes import Wanted

NODE: Final = Annotated[
    str,
    Meta(
        max_length=255,
        description="the name of a node, as GET /v1/nodes tells it",
        examples=["laptop"],
        extra_json_schema={"minLength": 1, "pattern": PRINTED},
    ),
]
What = Literal["sync", "pause", "resume"]


class NodeAsk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a node is to do."""

    what: Annotated[What, Meta(description="sync: try again now what was put off; pause: ship nothing; resume: go on")]


class NodeAsked(msgspec.Struct, kw_only=True):
    """What stands to be told to a node, who wished it and when; `heard`: whether it was told."""

    node: str
    paused: bool
    by: str
    at: str
    heard: bool


class Forgotten(msgspec.Struct):
    """The node that is forgotten; what it shipped stays, and when it speaks again it is seen again."""

    node: str


def operations(core: Core) -> Iterator[Operation]:
    """What can be asked of a node."""
    work = Work(core)
    one: dict[str, Any] = {"path": "/v1/nodes/{node}", "where": {"node": NODE}, "needs": ADMIN, "tag": "nodes"}
    yield Operation(
        method="POST",
        endpoint=typed(work.ask),
        summary="Ask a node to try again, to pause, or to go on",
        body=NodeAsk,
        answer=NodeAsked,
        errors=(404,),
        **one,
    )
    yield Operation(
        method="DELETE", endpoint=typed(work.forget), summary="Forget a node", answer=Forgotten, errors=(404,), **one
    )


class Work:
    """What each operation does.

    Args:
        core: the hub.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    async def ask(self, call: Call) -> NodeAsked:
        """Notes what a node is asked to do; it hears of it within a minute, and at once while it ships."""
        core, node, what = self._core, call.path["node"], call.body.what
        call.tells(what=what, node=node)
        wanted = await ask(core, node, what, call.principal.name)
        heard = core.nodes[node].report_ms >= wanted.at_ms
        return NodeAsked(node=node, paused=wanted.paused, by=wanted.by, at=iso(wanted.at_ms), heard=heard)

    async def forget(self, call: Call) -> Forgotten:
        """Forgets a node, in every process of this hub. What it shipped stays; should it speak again, it is new."""
        node = call.path["node"]
        call.tells(node=node)
        await forget(self._core, node)
        return Forgotten(node)


async def ask(core: Core, node: str, what: What, by: str) -> Wanted:
    """Notes what somebody asks of a node.

    Args:
        core: the hub.
        node: which.
        what: sync, pause or resume.
        by: who.

    Raises:
        NotFound: no such node has spoken to this hub.
    """
    _known(core, node)
    wishes = core.wishes
    if what == "sync":
        return await core.read(lambda: wishes.hurry(node, by))
    return await core.read(lambda: wishes.pause(node, what == "pause", by))


async def forget(core: Core, node: str) -> None:
    """Forgets a node.

    Raises:
        NotFound: no such node has spoken to this hub.
    """
    _known(core, node)
    await core.read(lambda: core.forget(node))


def _known(core: Core, node: str) -> None:
    if node not in core.nodes:
        raise NotFound(
            f"there is no node {node!r:.80}", hint="holdfast nodes ls shows those that have spoken to this hub"
        )

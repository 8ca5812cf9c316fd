"""What is written through a hub by whoever has no log of his own: messages, and decisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from holdfast import codec
from holdfast.collections import envelope
from holdfast.errors import HubUnavailable, UsageError
from holdfast.log.drafts import new_id
from holdfast.node.parts import JSON

if TYPE_CHECKING:
    from holdfast.node.hub import Hub


def posted(hub: Hub, message: dict[str, Any], fields: Mapping[str, Any]) -> str:
    """The id of a message that a hub has taken; see `Hub.post`.

    Args:
        hub: one, or several.
        message: as ``POST /sync/message`` takes it.
        fields: priority, task, thread, role, dedupe, expires_at, in_reply_to, options.
    """
    words = envelope(message["content"], to=message["recipient"], **fields)
    dedupe = words.get("dedupe")
    name = message["msg_id"] or (None if dedupe is not None else new_id("msg"))
    message = {**message, "msg_id": name, "task_id": words.get("task"), "dedupe_key": dedupe}
    more = ("thread", "role", "priority", "in_reply_to", "expires_at", "options")
    message |= {name: words[name] for name in more if name in words}
    body = msgspec.json.encode({name: each for name, each in message.items() if each is not None})

    def send(hub: Hub) -> str:
        # Under one id, whoever takes it: a hub that follows the one that has it already adds nothing.
        return str(hub.client.want("POST", "/sync/message", body=body, headers=JSON).json()["msg_id"])

    return hub.ask(send)


def decided(hub: Hub, asked: Mapping[str, Any]) -> bytes:
    """A hub's answer to a decision, which is a version; see `Hub.decide`."""
    value = asked.get("value")
    if isinstance(value, bytes | bytearray | memoryview):
        raise UsageError("a cas collection takes JSON values and text", hint="keep bytes in another collection")
    codec.serialise(value)
    body = msgspec.json.encode({**asked, "id": new_id("cas")})
    try:
        answer = hub.client.want("POST", "/v1/decide", body=body, headers=JSON)
    except HubUnavailable as error:
        if error.context.get("kind") != "timeout":
            if len(hub.each) > 1:
                error.hint = f"only the first hub decides, and {hub.url} is away; nothing was written"
            raise
        # It may have been written: the same id asks for the same decision, and writes nothing twice.
        answer = hub.client.want("POST", "/v1/decide", body=body, headers=JSON)
    return answer.body

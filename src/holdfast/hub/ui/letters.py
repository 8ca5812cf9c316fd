"""What a message says, for people: its text, and the JSON beside it; and who may answer it in whose name."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from holdfast.collections.delivery import DELIVERY
from holdfast.collections.messages import PEOPLE, Message, message_in
from holdfast.corpus import Stored
from holdfast.corpus.sql import MESSAGES
from holdfast.errors import Denied, HoldfastError
from holdfast.hub.own import check_agent
from holdfast.hub.principal import INBOX, WRITE, Principal
from holdfast.hub.routes_mail import own_box
from holdfast.hub.ui.words import can_be_part, part, with_query
from holdfast.log import load
from holdfast.records import SEALED, read_blob_reference

TEXT_SHOWN: Final = 20_000
"""Letters of a text, or of JSON, that a page shows; all of it is in the raw record."""
BLOB_READ_MAX: Final = 256 << 10
"""Of a larger message lists show that it is there."""
_TEXTS: Final = ("text", "markdown", "message", "question", "summary", "content")
"""Fields of a body in which its text may stand."""


class Body(msgspec.Struct):
    """What a message says: its text, and what of it is JSON, each as far as a page shows it."""

    text: str
    text_more: bool
    payload: str
    payload_more: bool
    fields: str


def body_of(content: Any, extra: dict[str, Any], most: int = TEXT_SHOWN) -> Body:
    """What a message says, cut to what a page shows.

    Args:
        content: what it says.
        extra: its fields beside those that every message has.
        most: letters of each part.
    """
    text, payload = "", content
    if isinstance(content, str):
        text, payload = content, None
    elif isinstance(content, dict):
        name = next((each for each in _TEXTS if isinstance(content.get(each), str)), None)
        if name is not None:
            text = content[name]
            payload = {key: value for key, value in content.items() if key not in (name, "actions")} or None
    others = {key: value for key, value in extra.items() if key != "actions"}
    told, more = _json(payload, most) if payload is not None else ("", False)
    fields = _json(others, most)[0] if others else ""
    return Body(text[:most], len(text) > most, told, more, fields)


def _json(value: Any, most: int) -> tuple[str, bool]:
    """A value as a text of at most so many letters; and whether there is more of it."""
    try:
        plain = msgspec.json.encode(value)
        if len(plain) <= most:
            found = json.dumps(value, indent=2, ensure_ascii=False)
            return seen(found if len(found) <= most * 4 else plain.decode()), False
    except RecursionError:
        return "", True
    return seen(plain[:most].decode("utf-8", "ignore")), True  # in lines it would be longer still


def seen(text: str) -> str:
    """A text in which what cannot be seen is written out."""
    return "".join(each if each == "\n" or each.isprintable() else json.dumps(each)[1:-1] for each in text)


def read(core: Any, stored: Stored) -> Message | None:
    """The message in a record, without what it says where that is large; None where it cannot be read.

    Args:
        core: the hub.
        stored: the record; read from its files, so for threads.
    """
    try:
        here = stored.is_blob and stored.body is not None and not stored.record.flags & SEALED
        if here and read_blob_reference(stored.payload())[1] > BLOB_READ_MAX:
            return message_in(stored, {"body": None})
        return message_in(stored, load(stored, core.home.blobs))
    except HoldfastError:
        return None


# -- who may ------------------------------------------------------------------------------------------------------


def speaker(principal: Principal) -> str:
    """In whose name somebody speaks of messages; without a name, as people do."""
    return principal.name or PEOPLE


def may_answer(principal: Principal, box: str | None) -> bool:
    """Whether somebody may answer a message, and have done what it offers, in his own name.

    Who may write messages may; and a person whom it was sent to: a question that he cannot answer is not asked.
    """
    himself = speaker(principal)
    if principal.may(WRITE) and principal.may_write(himself, MESSAGES) and principal.may_write(himself, DELIVERY):
        return True
    return principal.kind == "person" and principal.may(INBOX) and own_box(principal, box or "")


def check_answer(principal: Principal, box: str | None) -> str:
    """The name in which somebody answers a message.

    Raises:
        Denied: he may not.
    """
    if not may_answer(principal, box):
        raise Denied(f"{principal} may not answer this message", hint="it takes a token that may write messages")
    return check_agent(speaker(principal), hub=False)


def letter_url(msg: str, *below: str, **query: object) -> str:
    """Where a message is shown, or something below it."""
    if not can_be_part(msg):
        return with_query("/".join(("/messages/-", *below)), id=msg, **query)
    return with_query("/".join((f"/messages/{part(msg)}", *below)), **query)


def thread_url(thread: str, **query: object) -> str:
    """Where a conversation is shown."""
    if not can_be_part(thread):
        return with_query("/threads/-", id=thread, **query)
    return with_query(f"/threads/{part(thread)}", **query)


def error_of(error: HoldfastError) -> str:
    """An error in one line."""
    return f"{error.message}: {error.hint}" if error.hint else error.message

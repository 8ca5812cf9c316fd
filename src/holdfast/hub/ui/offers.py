"""What a message offers to do: its actions with their arguments, each of which becomes one task and not two.

A message names them in its field ``actions``, beside what it says or in it: a list of objects with a `name`, and where
wanted with `id`, `title`, `args`, `to`, `destructive` and `editable`. Pure.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from holdfast.errors import HoldfastError, UsageError
from holdfast.hub.own import check_agent

TASK: Final = "task"
"""The kind of the message that a follow-up task is."""
OFFERS_MAX: Final = 20
ARGS_BYTES_MAX: Final = 16 << 10
"""More nobody looks through before he says yes."""
Name = Annotated[str, Meta(min_length=1, max_length=200)]


class Offer(msgspec.Struct):
    """An action that a message offers.

    Attributes:
        id: by which it is carried out at most once.
        name: what whoever gets the task is told to do.
        title: what a person is told.
        args: with what.
        to: who gets the task.
        destructive: whether a person is asked once more.
        editable: whether he may change the arguments.
        task: the id of the task that comes of it.
    """

    id: str
    name: str
    title: str
    args: dict[str, Any]
    to: str
    destructive: bool
    editable: bool
    task: str


class _Given(msgspec.Struct):
    name: Name
    id: Name | None = None
    title: Annotated[str, Meta(max_length=500)] = ""
    args: dict[str, Any] = {}
    to: str | None = None
    destructive: bool = False
    editable: bool = True


def offers_of(msg: str, sender: str, content: Any, extra: dict[str, Any]) -> tuple[list[Offer], int]:
    """What a message offers, in its order; and how many more that cannot be understood, or are too many.

    Args:
        msg: its id.
        sender: who sent it, and gets the tasks of those actions that name nobody.
        content: what it says.
        extra: its fields beside those that every message has.
    """
    given = list[Any]()
    for place in (extra, content):
        named = place.get("actions") if isinstance(place, dict) else None
        given += named if isinstance(named, list) else [named] if named is not None else []
    found: dict[str, Offer] = {}
    for each in given[:OFFERS_MAX]:
        offer = _offer(msg, sender, each)
        if offer is not None:
            found.setdefault(offer.id, offer)
    return list(found.values()), len(given) - len(found)


def _offer(msg: str, sender: str, given: Any) -> Offer | None:
    try:
        told = msgspec.convert(given, _Given)
        to = check_agent(sender if told.to is None else told.to, hub=False)
    except (msgspec.ValidationError, HoldfastError):
        return None
    if len(msgspec.json.encode(told.args)) > ARGS_BYTES_MAX:
        return None
    known = told.id or told.name
    return Offer(
        id=known,
        name=told.name,
        title=told.title.strip() or told.name,
        args=told.args,
        to=to,
        destructive=told.destructive,
        editable=told.editable,
        task=task_id(msg, sender, known),
    )


def task_id(msg: str, sender: str, action: str) -> str:
    """The id of the one task that comes of an action of a message."""
    # The lengths part the three, so that no others make the same.
    parts = [each.encode("utf-8", "replace") for each in (sender, msg, action)]
    text = b"hf/execute/1\0" + b"".join(b"%d\0%b" % (len(part), part) for part in parts)
    return f"task_{hashlib.sha256(text).hexdigest()[:40]}"


def args_in(text: str) -> dict[str, Any]:
    """The arguments that somebody typed.

    Raises:
        UsageError: they are no JSON object, or too large.
    """
    if len(text.encode("utf-8", "replace")) > ARGS_BYTES_MAX:
        raise UsageError(f"the arguments are {len(text):,} letters", hint=f"at most {ARGS_BYTES_MAX:,} bytes")
    try:
        found = msgspec.json.decode(text.encode() or b"{}")
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise UsageError(f"the arguments are not JSON: {error}", hint='an object, such as {"build": 17}') from error
    if not isinstance(found, dict):
        raise UsageError(f"the arguments are no object: {text!r:.80}", hint='such as {"build": 17}')
    return found

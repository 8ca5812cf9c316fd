"""A conversation: the messages of a thread in the order in which they came, day by day."""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast import clock
from holdfast.collections import mailbox
from holdfast.corpus import Filter, Stored
from holdfast.corpus.sql import MESSAGES
from holdfast.errors import NotFound
from holdfast.hub.routes_mail import ready
from holdfast.hub.ui.letter import named, visible
from holdfast.hub.ui.letters import Body, body_of, read
from holdfast.hub.ui.messages_rows import subject_of
from holdfast.hub.ui.pages import ROWS, ThreadAt
from holdfast.hub.ui.routes import Ask, View, no_page
from holdfast.records import NAME_BYTES_MAX

TEXT_SHOWN: Final = 4_000
"""Letters of a message in a conversation; its own page shows more."""


class Said(msgspec.Struct):
    """A message of a conversation; `missing` if its text cannot be shown here."""

    id: str
    sender: str
    to: str
    kind: str
    role: str
    time: str
    in_reply_to: str
    body: Body
    missing: bool


class Thread(msgspec.Struct):
    """A page of a conversation; `next` goes into `after`."""

    thread: str
    subject: str
    said: list[Said]
    first: bool
    next: int | None


async def thread(ask: Ask) -> View:
    """GET /threads/{id}: a conversation, the oldest message first."""
    asked: ThreadAt = ask.query
    name, below = named(ask)
    if below:
        raise no_page(ask.scope["path"])
    # The message that began it is found by its id, among those that were taken up.
    await ready(ask.core, ("",), ask.core.home.wall.now_ms())
    data = await ask.core.read(lambda: _look(ask, name, asked.after))
    if not data.said and not asked.after:
        raise NotFound(f"there is no conversation {name!r:.80}", hint="a message's page leads to its own")
    return View(template="thread.html", title=data.subject, data=data)


def _look(ask: Ask, name: str, after: int) -> Thread:
    corpus = ask.core.corpus
    records = list[Stored]()
    if len(name.encode("utf-8", "replace")) <= NAME_BYTES_MAX:  # no longer name is on any message
        which = Filter(collection=MESSAGES, thread=name, current=True, newest_first=False, limit=ROWS + 1)
        records = corpus.page(msgspec.structs.replace(which, after=after or None))
    following = records[ROWS - 1].pos if len(records) > ROWS else None
    shown = records[:ROWS]
    begun = [stored for _, stored in mailbox.with_records(corpus, mailbox.named(corpus, name)[:1])]
    if not after:  # the message that the conversation is about need not say that it belongs to it
        shown = [each for each in begun if each.pos not in {one.pos for one in shown}] + shown
    said = [one for each in shown if (one := _said(ask, each)) is not None]
    first = next((one for each in begun if (one := _said(ask, each)) is not None), said[0] if said else None)
    subject = name if first is None else subject_of(first.body.text or first.body.payload or first.kind)
    return Thread(name, subject, said, not after, following)


def _said(ask: Ask, stored: Stored) -> Said | None:
    message = read(ask.core, stored)
    if message is None or not visible(ask.principal, message.to, message.agent):
        return None
    return Said(
        id=message.id,
        sender=message.agent,
        to=message.to if isinstance(message.to, str) else "",
        kind=message.kind,
        role=message.role if isinstance(message.role, str) else "",
        time=clock.to_iso(stored.record.hlc),
        in_reply_to=message.in_reply_to if isinstance(message.in_reply_to, str) else "",
        body=body_of(message.body, message.extra, TEXT_SHOWN),
        missing=message.body is None,
    )

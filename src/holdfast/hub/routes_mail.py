"""Inboxes: what waits for a person or an agent, what became of a message, and what its readers say of it.

A reader's word is a record in the hub's own log of that reader, in the collection `delivery`: a message never changes.
Whoever is written to reads it and says how far he is, whatever else his token lets him see.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from holdfast import clock
from holdfast.collections import mailbox
from holdfast.collections.delivery import (
    DELIVERED,
    DELIVERY,
    TABS,
    Act,
    Events,
    reader_of,
    state_of,
    tab_at,
)
from holdfast.collections.delivery import act as act_for
from holdfast.collections.mailbox import Mail, Said, Wanted
from holdfast.collections.messages import PEOPLE, expiry_ms, message_in
from holdfast.corpus import Stored
from holdfast.corpus.sql import MESSAGES
from holdfast.errors import (
    CapacityError,
    Conflict,
    Denied,
    HoldfastError,
    HubUnavailable,
    NotCached,
    NotFound,
    UsageError,
)
from holdfast.hub.api import Call, Operation, typed
from holdfast.hub.core import Core
from holdfast.hub.mail_shapes import ID, UNDO, DeliveryShown, InboxOf, InboxPage, MailShown, OneOf, Says
from holdfast.hub.own import QUICK_BYTES, Desk, check_agent
from holdfast.hub.principal import INBOX, READ, WRITE, Principal
from holdfast.log import Draft, drafts, load
from holdfast.records import read_blob_reference
from holdfast.wire import RECORDS_MAX, Cursor

INLINE_BLOB_MAX: Final = 1 << 20
ANSWER_BYTES_MAX: Final = 8 << 20


def operations(core: Core) -> Iterator[Operation]:
    """Inboxes, and what is said of messages."""
    message = {"where": {"id": ID}, "errors": (404, 409), "tag": "mail", "needs": READ, "or_needs": INBOX}
    yield Operation(
        method="GET",
        path="/v1/inbox",
        endpoint=typed(Inbox(core)),
        needs=READ,
        or_needs=INBOX,
        summary="What waits for a person or an agent",
        tag="mail",
        query=InboxOf,
        answer=InboxPage,
    )
    yield Operation(
        method="GET",
        path="/v1/messages/{id}",
        endpoint=typed(One(core)),
        summary="One message",
        query=OneOf,
        answer=MailShown,
        **message,  # type: ignore[arg-type]
    )
    yield Operation(
        method="GET",
        path="/v1/messages/{id}/delivery",
        endpoint=typed(Delivery(core)),
        summary="What became of a message",
        query=OneOf,
        answer=DeliveryShown,
        **message,  # type: ignore[arg-type]
    )
    yield Operation(
        method="POST",
        path="/v1/messages/{id}/state",
        endpoint=typed(Speak(core)),
        summary="Say how far you are with a message",
        body=Says,
        answer=DeliveryShown,
        **{**message, "needs": INBOX, "or_needs": WRITE},  # type: ignore[arg-type]
    )


# -- who may ------------------------------------------------------------------------------------------------------


def own_box(principal: Principal, box: str) -> bool:
    """Whether what comes to this inbox is addressed to whoever asks."""
    if principal.kind == "person" and box == PEOPLE:
        return True
    return principal.kind in ("agent", "person") and bool(box) and box == principal.name


def reads_all(principal: Principal) -> bool:
    """Whether all messages are shown to whoever asks."""
    return principal.may(READ) and principal.may_read(MESSAGES)


def check_box(principal: Principal, box: str) -> None:
    """Returns only if whoever asks may read this inbox.

    Raises:
        Denied: he may not.
    """
    if not reads_all(principal) and not own_box(principal, box):
        raise Denied(f"{principal} may not read the inbox of {box!r:.80}", hint="each reads what is addressed to him")


def sees(principal: Principal, mail: Mail) -> bool:
    """Whether whoever asks may know of this message."""
    return reads_all(principal) or own_box(principal, mail.box) or own_box(principal, mail.sender)


def check_reader(principal: Principal, reader: str) -> None:
    """Returns only if whoever asks may speak for this reader.

    Raises:
        Denied: he may not.
    """
    himself = principal.kind in ("agent", "person") and principal.name == reader
    if principal.may(WRITE) and principal.may_write(reader, DELIVERY):
        return
    if not (principal.may(INBOX) and himself):
        raise Denied(f"{principal} may not say what {reader!r:.80} has read", hint="each reader speaks for himself")


# -- the endpoints ------------------------------------------------------------------------------------------------


class Inbox:
    """GET /v1/inbox: the messages to somebody that lie in a tab, with counts for a badge if asked for.

    Of an agent's inbox its own word alone counts. People share one: what one of them has acknowledged, archived or
    snoozed is so for all.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, call: Call) -> dict[str, Any]:
        """The answer to one request."""
        core, asked = self._core, call.query
        box = asked.box or (call.principal.name if call.principal.kind == "agent" else PEOPLE)
        check_box(call.principal, box)
        head = await core.read(core.corpus.last)
        newest = asked.order == "newest"
        after = None
        if asked.after:
            cursor = Cursor.parse(asked.after)
            after = cursor.pos if newest else core.home.resume(cursor, head)
        now = core.home.wall.now_ms()
        partial = not await ready(core, (box,), now)
        wanted = Wanted(box=box, view=asked.state, after=after, newest_first=newest, limit=asked.limit + 1)

        def look() -> dict[str, Any]:
            found = mailbox.page(core.corpus, wanted)
            shown, room = list[dict[str, Any]](), ANSWER_BYTES_MAX
            for mail, stored in found[: asked.limit]:
                shape, size = _shape(core, mail, stored, now)
                room -= size
                if shown and room < 0:
                    break
                shown.append(shape)
            more = len(shown) < len(found)
            body: dict[str, Any] = {
                "mail": shown,
                "next": shown[-1]["cursor"] if more and shown else None,
                "cursor": core.feed.cursor(head),
                "partial": partial,
            }
            if asked.counts:
                body["counts"] = mailbox.counts(core.corpus, box)
            return body

        return await core.read(look)


class One:
    """GET /v1/messages/{id}: a message, and the tab of its recipient's inbox that it lies in."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, call: Call) -> dict[str, Any]:
        """The answer to one request."""
        core = self._core
        mail = await _find(core, call, call.query.sender)
        now = core.home.wall.now_ms()

        def look() -> dict[str, Any]:
            for one, stored in mailbox.with_records(core.corpus, [mail]):
                return _shape(core, one, stored, now)[0]
            raise _absent(call)

        return await core.read(look)


class Delivery:
    """GET /v1/messages/{id}/delivery: how far each of its readers is, for its sender and whoever may read it."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, call: Call) -> dict[str, Any]:
        """The answer to one request."""
        core = self._core
        mail = await _find(core, call, call.query.sender)
        return await core.read(lambda: delivery_of(core, mail))


class Speak:
    """POST /v1/messages/{id}/state: a reader says how far he is, or puts the message away; answers what came of it.

    Sent again it changes nothing but the time. `undo` takes back the last word; `withdrawn` and `asked` are its
    sender's.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, call: Call) -> dict[str, Any]:
        """The answer to one request."""
        core, asked = self._core, call.body
        reader = (call.principal.name or PEOPLE) if asked.reader is None else asked.reader
        check_agent(reader, hub=False)
        check_reader(call.principal, reader)
        mail = await _find(core, call, asked.sender)
        if asked.state in ("withdrawn", "asked") and reader != mail.sender:
            raise Denied(f"{reader} did not send this message", hint=f"only {mail.sender} can withdraw it")
        if asked.state == UNDO:
            if asked.until is not None or asked.result is not None:
                raise UsageError("undo takes neither until nor a result", hint="say undo alone")
            said = await core.read(lambda: undoing(core, reader, mail.msg, mail.sender))
        else:
            until = None if asked.until is None else clock.parse_time(asked.until) / 1000
            said = act_for(asked.state, mail.sender, until=until, result=asked.result)
        await say(core, reader, [(mail.msg, said)], call.size)
        await ready(core, (mail.box,), core.home.wall.now_ms())
        return await core.read(lambda: delivery_of(core, mail))


# -- what they share ----------------------------------------------------------------------------------------------


async def ready(core: Core, boxes: Sequence[str], now_ms: int) -> bool:
    """Takes up what came, and moves what is due in these inboxes; False where the disk has no room for that.

    Raises:
        HubUnavailable: too much is left, as after an upgrade.
    """
    corpus = core.corpus
    try:
        if not await core.read(lambda: mailbox.catch_up(corpus, core.home.blobs)):
            raise HubUnavailable("this hub is putting its mail in order", hint="ask again in a moment")
    except CapacityError:
        return False
    for box in boxes:
        await _move(core, box, now_ms)
    return True


async def _move(core: Core, box: str, now_ms: int) -> None:
    if await core.read(lambda: mailbox.is_due(core.corpus, box, now_ms)):
        with contextlib.suppress(CapacityError):  # what cannot be moved now is shown where it belongs all the same
            while await core.writer.run(lambda tx: (mailbox.stir(tx, box, now_ms), [])):
                pass


async def say(core: Core, reader: str, acts: Sequence[tuple[str, Act]], size: int = 0) -> list[tuple[int, int]]:
    """Writes what a reader says of messages; between which positions these records lie, by transaction.

    Args:
        core: the hub.
        reader: who says so; `check_reader` him first.
        acts: the id of each message, and what is said of it; no id twice.
        size: about how many bytes these are.
    """
    log, own = await core.own.log_of(reader), core.own
    spans = []
    for first in range(0, len(acts), RECORDS_MAX):
        made = [drafts.value(DELIVERY, msg, said.value(), author=reader) for msg, said in acts[first:][:RECORDS_MAX]]

        def prepare(made: list[Draft] = made) -> list[Any]:
            return [own.ready(log, each) for each in made]

        quick = len(made) == 1 and len(made[0].payload) <= QUICK_BYTES
        written = prepare() if quick else await core.read(prepare)

        def work(desk: Desk, written: list[Any] = written) -> tuple[int, int]:
            stored = [desk.append(each) for each in written]
            return stored[0].pos, stored[-1].pos

        spans.append(await own.write(reader, work, size=size, quick=quick))
    return spans


def undoing(core: Core, reader: str, msg: str, sender: str) -> Act:
    """What takes a reader's last word on a message back.

    Raises:
        UsageError: he said nothing.
    """
    versions, blobs = core.corpus.versions(reader, DELIVERY, msg), core.home.blobs
    return Events(mailbox.acts_in(versions, sender, lambda each: load(each, blobs))).undo(sender)


def lies_now(core: Core, mail: Mail, now_ms: int) -> str:
    """The tab that a message lies in at a time, whether what moves by itself was moved or not."""
    said = mailbox.said_of(core.corpus, mail.msg, mail.sender) if mail.due_ms is not None else {}
    if not said and (mail.due_ms is None or mail.due_ms > now_ms):
        return TABS[mail.tab]
    by_sender = said.get(mail.sender)
    withdrawn = by_sender is not None and by_sender.reading.is_withdrawn
    readings = {reader: each.reading for reader, each in said.items()}
    return tab_at(mailbox.in_box(mail.box, readings), withdrawn, mail.expires_ms, now_ms)


async def _find(core: Core, call: Call, sender: str | None) -> Mail:
    """The message that a path names, if whoever asks may know of it.

    Raises:
        NotFound: there is none, or not for him.
        Conflict: several senders used its id.
    """
    msg = call.path["id"]
    await ready(core, ("",), core.home.wall.now_ms())
    found = await core.read(lambda: mailbox.named(core.corpus, msg, sender))
    found = [mail for mail in found if sees(call.principal, mail)]
    if not found:
        raise _absent(call)
    if len(found) > 1:
        raise Conflict(
            f"{len(found)} senders have a message with the id {msg!r:.80}",
            hint="say which: sender=",
            senders=[mail.sender for mail in found],
        )
    return found[0]


def _absent(call: Call) -> NotFound:
    return NotFound(f"there is no message {call.path['id']!r:.80}", hint="see /v1/inbox")


def delivery_of(core: Core, mail: Mail) -> dict[str, Any]:
    """How far each reader of a message is, in the form of `DeliveryShown`; read from the corpus, so for threads."""
    said = mailbox.said_of(core.corpus, mail.msg, mail.sender)
    ended = mail.expires_ms is not None and mail.expires_ms <= core.home.wall.now_ms()
    readings = {name: each.reading for name, each in said.items()}
    # Its sender is no reader by taking it back.
    shown = {name: _reader(core, each) for name, each in said.items() if each.reading.rank or each.reading.place[0]}
    return {
        "msg_id": mail.msg,
        "sender": mail.sender,
        "recipient": mail.box or None,
        "state": state_of(readings, mail.sender, DELIVERED, ended),
        "readers": shown,
        "pos": mail.pos,
    }


def _reader(core: Core, said: Said) -> dict[str, Any]:
    result = mailbox.result_at(core.corpus, core.home.blobs, said.done_pos)
    found: dict[str, Any] = msgspec.to_builtins(reader_of(said.reading, result))
    return found


def _shape(core: Core, mail: Mail, stored: Stored, now_ms: int) -> tuple[dict[str, Any], int]:
    """A message as it is shown, and about how many bytes that takes."""
    record = stored.record
    tab = lies_now(core, mail, now_ms)
    shape: dict[str, Any] = {
        "msg_id": mail.msg,
        "sender": mail.sender,
        "recipient": mail.box or None,
        "kind": record.kind,
        "state": tab,
        "needs": bool(mail.needs),
        "until": mail.due_ms / 1000 if mail.due_ms is not None and tab == "snoozed" else None,
        "pos": mail.pos,
        "cursor": core.feed.cursor(mail.pos),
        "stream": record.stream.hex(),
        "seq": record.seq,
        "etag": record.link.hex(),
    }
    value, missing, size = value_of(core, stored)
    message = message_in(stored, {"body": None} if missing else value)
    told = message.extra.get("timestamp")
    shape |= missing
    shape |= {
        "timestamp": _seconds(told, message.time),
        "content": message.body,
        **{name: getattr(message, name) for name in ("priority", "task", "thread", "role", "in_reply_to", "dedupe")},
        "expires_at": None if expiry_ms(message.expires_at) is None else message.expires_at,
        "options": message.options,
        "extra": message.extra,
    }
    return shape, size + 512


def _seconds(told: Any, otherwise: float) -> float:
    if told is None or isinstance(told, bool) or not isinstance(told, int | float | str):
        return otherwise
    try:
        return clock.parse_time(told) / 1000
    except HoldfastError:
        return otherwise


def value_of(core: Core, stored: Stored) -> tuple[Any, dict[str, Any], int]:
    """A record's value; else what is missing of it. And its bytes."""
    size = stored.record.payload_len
    try:
        if stored.is_blob and stored.body is not None:
            digest, size = read_blob_reference(stored.payload())
            if size > INLINE_BLOB_MAX:
                return None, {"missing": "blob", "digest": digest.hex(), "size": size, "fmt": stored.record.fmt}, 0
        return load(stored, core.home.blobs), {}, size
    except NotCached as error:
        return None, {"missing": "blob", **error.context}, 0
    except HoldfastError:
        why = ("", "evicted", "quarantined", "redacted")[stored.why] if stored.body is None else ""
        return None, {"missing": why or "lost"}, 0

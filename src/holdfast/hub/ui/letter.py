"""One message: what it says, what became of it, what it offers to do, and what came of that."""

from __future__ import annotations

import secrets
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec
from msgspec import UNSET

from holdfast import clock
from holdfast.collections import mailbox
from holdfast.collections.messages import PEOPLE, QUESTION
from holdfast.corpus import Filter, Stored
from holdfast.corpus.sql import MESSAGES
from holdfast.errors import Conflict, NotFound
from holdfast.hub.api import Call
from holdfast.hub.mail_shapes import DeliveryShown, MailShown, OneOf
from holdfast.hub.principal import Principal
from holdfast.hub.routes_mail import Delivery, One, delivery_of, own_box, reads_all
from holdfast.hub.ui import attachments
from holdfast.hub.ui.attachments import Attachment
from holdfast.hub.ui.letters import Body, body_of, may_answer, read, seen, speaker
from holdfast.hub.ui.messages_act import SNOOZES
from holdfast.hub.ui.messages_filters import may_act, query_of, reader_of
from holdfast.hub.ui.messages_rows import below_title, message_url, missing_says, subject_of, to_says
from holdfast.hub.ui.neighbours import Neighbours, neighbours, of_list
from holdfast.hub.ui.offers import TASK, Offer, offers_of
from holdfast.hub.ui.pages import LetterAt
from holdfast.hub.ui.routes import Ask, View, no_page
from holdfast.hub.ui.trail import Step, trail_of
from holdfast.records import BLOB, NAME_BYTES_MAX, SEALED

BRIEFS_MAX: Final = 10
TASKS_MAX: Final = 20
RESULT_SHOWN: Final = 4_000


class Brief(msgspec.Struct):
    """A message in one line."""

    id: str
    sender: str
    kind: str
    subject: str
    time: str


class Outcome(msgspec.Struct):
    """What a reader says that came of a message; `letter` is the id of the message that it names, if it names one."""

    who: str
    result: str
    more: bool
    letter: str = ""


class TaskShown(msgspec.Struct):
    """A task that came of a message: who gave it to whom, how far it is, and what came of it."""

    id: str
    sender: str
    to: str
    action: str
    state: str
    time: str
    results: list[Outcome]


class Standing(msgspec.Struct):
    """What of a message changes: where it lies, what its readers did, the tasks that came of it."""

    tab: str
    state: str
    needs: bool
    until: str | None
    trail: list[Step]
    results: list[Outcome]
    tasks: list[TaskShown]


class LetterLive(msgspec.Struct):
    """The live part of the page; the page itself has both of these, too."""

    standing: Standing
    you: str


class Raw(msgspec.Struct):
    """The record that a message is: where it lies, and what proves it."""

    agent: str
    key: str
    version: int
    author: str
    pos: int
    seq: int
    stream: str
    written: str
    size: int
    kept: str
    payload_hash: str
    link: str


class Letter(msgspec.Struct):
    """A message with everything around it.

    `you` is the name in which whoever looks answers; `says_as` the one in which he says how far the message is, empty
    where he may not.
    """

    message: MailShown
    subject: str
    sent: str
    node: str
    body: Body
    standing: Standing
    offers: list[Offer]
    unread_offers: int
    artifacts: list[Attachment]
    thread: str
    in_thread: list[Brief]
    in_task: list[Brief]
    record: Raw
    says_as: str
    may_answer: bool
    reads_all: bool
    you: str
    next_to: Neighbours


class Choice(msgspec.Struct):
    """Messages of several senders with one id."""

    id: str
    senders: list[str]


class Found(msgspec.Struct):
    """A message that whoever asks may see, as the API shows it, and where it lies."""

    shown: MailShown
    mail: mailbox.Mail
    stored: Stored


async def letter(ask: Ask) -> View:
    """GET /messages/{id}: the message; or below it, its record (`raw`) or what goes with it (`artifacts/{number}`)."""
    asked: LetterAt = ask.query
    msg, below = named(ask)
    try:
        found = await find(ask, msg, asked.of)
    except Conflict as error:
        choice = Choice(msg, list(error.context.get("senders", ())))
        return View(template="letter_choice.html", title=msg, data=choice)
    if below == ["raw"]:
        return await ask.core.read(lambda: attachments.record(ask, found.stored))
    if len(below) == 2 and below[0] == "artifacts":
        return await attachments.attachment(ask, found.shown.content, found.shown.extra, below[1])
    if below:
        raise no_page(ask.scope["path"])
    return await page(ask, found)


def named(ask: Ask) -> tuple[str, list[str]]:
    """Which message, or conversation, an address names, and what of it lies behind that."""
    if not ask.parts or not ask.parts[0]:
        raise no_page(ask.scope["path"])
    return ask.query.id or ask.parts[0], ask.parts[1:]


async def find(ask: Ask, msg: str, sender: str) -> Found:
    """A message, if whoever asks may know of it.

    Raises:
        NotFound: there is none, or not for him.
        Conflict: several senders used its id.
    """
    call = _call(ask, msg, sender)
    shown = msgspec.convert(await One(ask.core)(call), MailShown)
    core = ask.core

    def look() -> Found | None:
        mine = mailbox.named(core.corpus, msg, shown.sender)
        records = mailbox.with_records(core.corpus, mine[:1])
        return Found(shown, *records[0]) if records else None

    found = await core.read(look)
    if found is None:  # erased in between
        raise NotFound(f"there is no message {msg!r:.80}", hint="see /messages")
    return found


def _call(ask: Ask, msg: str, sender: str) -> Call:
    return Call({**ask.scope, "path_params": {"id": msg}}, OneOf(sender=sender or None), None, 0)


async def page(ask: Ask, found: Found, *, problem: str = "", typed: dict[str, str] | None = None) -> View:
    """The page of a message.

    Args:
        ask: the request.
        found: which message.
        problem: what was wrong with a form that was sent; empty: nothing.
        typed: what was typed into it, so that nothing of it is lost.
    """
    shown = found.shown
    # Of a form the address is its own: the list that somebody came from is in the one that he goes back to.
    asked = ask.query if isinstance(ask.query, LetterAt) else asked_at(ask.form.get("back", ""))
    data = await _letter(ask, found, asked)
    query = query_of(of_list(asked))
    extra: dict[str, Any] = {
        "problem": problem,
        "typed": typed or {},
        "asked": asked,
        "fresh": secrets.token_hex(16),
        "place": message_url(shown.msg_id, shown.sender, query, named_twice=bool(asked.of)),
        "snoozes": SNOOZES,
        "to_says": to_says,
        "text": below_title(data.body.text, data.subject),
        "script": "letter.js",
        "live_view": urlencode({"id": shown.msg_id, "sender": shown.sender}),
    }
    if problem:  # nobody can load the address of a form again
        extra |= {"back": extra["place"], "twin": ""}
    return View(template="letter.html", title=data.subject, data=data, live="letter", extra=extra)


def asked_at(place: str) -> LetterAt:
    """What the address of a message asks for; nothing of a list where it is none."""
    names = LetterAt.__struct_encode_fields__
    try:
        pairs = parse_qsl(urlsplit(place).query, keep_blank_values=True, errors="strict", max_num_fields=50)
        return msgspec.convert({name: text for name, text in pairs if name in names and text}, LetterAt, strict=False)
    except (ValueError, msgspec.ValidationError):
        return LetterAt()


async def live(ask: Ask) -> LetterLive:
    """What the page's live part shows now.

    Raises:
        NotFound: the message is gone.
    """
    asked = asked_at(f"?{ask.query.view}")
    found = await find(ask, asked.id, asked.of)
    standing = await _standing(ask, found, offers(found.shown)[0])
    return LetterLive(standing, speaker(ask.principal))


def offers(shown: MailShown) -> tuple[list[Offer], int]:
    """What a message offers to do, and how many more that cannot be understood."""
    return offers_of(shown.msg_id, shown.sender, shown.content, shown.extra)


async def _letter(ask: Ask, found: Found, asked: LetterAt) -> Letter:
    core, shown, principal = ask.core, found.shown, ask.principal
    offered, unread = offers(shown)
    thread = conversation(shown)
    named_here = attachments.named_by(shown.content, shown.extra)
    standing = await _standing(ask, found, offered)
    in_thread, in_task = await core.read(lambda: _around(ask, shown, thread))
    next_to = await core.read(lambda: neighbours(ask, of_list(asked), shown.pos))
    return Letter(
        message=shown,
        subject=subject_of(shown.content) if shown.missing is UNSET else missing_says(shown.missing),
        sent=clock.to_iso(found.stored.record.hlc),
        node=_node(ask, found.stored),
        body=body_of(shown.content, shown.extra),
        standing=standing,
        offers=offered,
        unread_offers=unread,
        artifacts=await attachments.looked_up(ask, shown.msg_id, shown.sender, named_here),
        thread=thread,
        in_thread=in_thread,
        in_task=in_task,
        record=_raw(found.stored),
        says_as=_says_as(principal, asked.to, shown.recipient or ""),
        may_answer=may_answer(principal, shown.recipient),
        reads_all=reads_all(principal),
        you=speaker(principal),
        next_to=next_to,
    )


def _says_as(principal: Principal, looked_into: str, box: str) -> str:
    """In whose name somebody says what becomes of a message; empty: nobody would listen, or he may not.

    Args:
        principal: who looks.
        looked_into: the inbox that he came from.
        box: the inbox that the message lies in.
    """
    to = box if looked_into == box else ""
    reader = reader_of(principal, to)
    counts = ("", PEOPLE, reader) if reader == speaker(principal) else (reader,)
    return reader if box in counts and may_act(principal, to) else ""


def conversation(shown: MailShown) -> str:
    """What a reply to a message is filed under: its thread, or itself; empty where no record can be found by that."""
    found = shown.thread if isinstance(shown.thread, str) and shown.thread else shown.msg_id
    return found if len(found.encode("utf-8", "replace")) <= NAME_BYTES_MAX else ""


def _node(ask: Ask, stored: Stored) -> str:
    """The node that wrote a record, as far as is known and whoever asks may know."""
    if not reads_all(ask.principal):
        return ""
    for seen_node in ask.core.nodes.values():
        if seen_node.streams.get(stored.agent) == stored.record.stream:
            return seen_node.node
    return ""


async def _standing(ask: Ask, found: Found, offered: list[Offer]) -> Standing:
    core, shown = ask.core, found.shown
    told = msgspec.convert(await Delivery(core)(_call(ask, shown.msg_id, shown.sender)), DeliveryShown)
    node = _node(ask, found.stored)

    def look() -> Standing:
        return Standing(
            tab=shown.state,
            state=told.state,
            needs=shown.needs,
            until=clock.iso(round(shown.until * 1000)) if shown.until is not None else None,
            trail=trail_of(core, found.mail, found.stored, node),
            results=_results(core, told, shown.kind == QUESTION),
            tasks=_tasks(ask, shown, offered),
        )

    return await core.read(look)


def _results(core: Any, told: DeliveryShown, answered: bool) -> list[Outcome]:
    out = []
    for name, reader in told.readers.items():
        if reader.result is None:
            continue
        if isinstance(reader.result, str):
            text = reader.result
        else:
            text = seen(msgspec.json.encode(reader.result)[: RESULT_SHOWN * 2].decode("utf-8", "ignore"))
        # Who answers a question by a message says which one.
        is_letter = answered and isinstance(reader.result, str) and bool(mailbox.named(core.corpus, text, name))
        more = len(text) > RESULT_SHOWN
        out.append(Outcome(name, text[:RESULT_SHOWN], more, text if is_letter else ""))
    return out


def _tasks(ask: Ask, shown: MailShown, offered: list[Offer]) -> list[TaskShown]:
    """The tasks that came of a message, in the order in which they were given."""
    corpus = ask.core.corpus
    found: dict[tuple[str, str], tuple[mailbox.Mail, Stored]] = {}
    ids = [each.task for each in offered]
    thread = conversation(shown)
    if thread:
        which = Filter(collection=MESSAGES, thread=thread, kinds=(TASK,), current=True, limit=TASKS_MAX * 5)
        ids += [each.record.key for each in corpus.page(which)]
    for task in dict.fromkeys(ids):
        mine = [mail for mail in mailbox.named(corpus, task) if _sees(ask.principal, mail)]
        found.update({(mail.msg, mail.sender): (mail, stored) for mail, stored in mailbox.with_records(corpus, mine)})
    out = list[TaskShown]()
    for mail, stored in sorted(found.values(), key=lambda each: each[0].pos):
        if len(out) < TASKS_MAX and (one := _task(ask.core, shown, mail, stored)) is not None:
            out.append(one)
    return out


def _task(core: Any, shown: MailShown, mail: mailbox.Mail, stored: Stored) -> TaskShown | None:
    message = read(core, stored)
    if message is None:
        return None
    about = message.extra.get("action")
    if message.in_reply_to != shown.msg_id or stored.record.kind != TASK or not isinstance(about, dict):
        return None
    if about.get("sender") != shown.sender:
        return None
    told = msgspec.convert(delivery_of(core, mail), DeliveryShown)
    return TaskShown(
        id=mail.msg,
        sender=mail.sender,
        to=mail.box,
        action=str(about.get("title") or about.get("id") or "")[:500],
        state=told.state,
        time=clock.to_iso(stored.record.hlc),
        results=_results(core, told, False),
    )


def _sees(principal: Principal, mail: mailbox.Mail) -> bool:
    return reads_all(principal) or own_box(principal, mail.box) or own_box(principal, mail.sender)


def _around(ask: Ask, shown: MailShown, thread: str) -> tuple[list[Brief], list[Brief]]:
    """The newest messages of the conversation, and those of the task, in the order in which they came."""
    task = shown.task if isinstance(shown.task, str) else ""
    both = []
    for which in (Filter(thread=thread) if thread else None, Filter(task=task) if task else None):
        rows = list[Brief]()
        if which is not None:
            which = msgspec.structs.replace(which, collection=MESSAGES, current=True, limit=BRIEFS_MAX + 1)
            rows = [brief for each in ask.core.corpus.page(which) if (brief := brief_of(ask, each)) is not None]
        rows = [each for each in rows if (each.id, each.sender) != (shown.msg_id, shown.sender)]
        both.append(rows[:BRIEFS_MAX][::-1])
    if thread and thread != shown.msg_id:
        mine = [mail for mail in mailbox.named(ask.core.corpus, thread) if _sees(ask.principal, mail)]
        first = [brief_of(ask, stored) for _, stored in mailbox.with_records(ask.core.corpus, mine[:1])]
        begun = [each for each in first if each is not None]
        both[0] = begun + [each for each in both[0] if each not in begun]
    return both[0], both[1]


def brief_of(ask: Ask, stored: Stored) -> Brief | None:
    """A message in one line; None where it cannot be read, or not by whoever asks."""
    message = read(ask.core, stored)
    if message is None or not visible(ask.principal, message.to, message.agent):
        return None
    return Brief(
        id=message.id,
        sender=message.agent,
        kind=message.kind,
        subject=subject_of(message.body),
        time=clock.to_iso(stored.record.hlc),
    )


def visible(principal: Principal, to: Any, sender: str) -> bool:
    """Whether somebody may know of a message from one to another."""
    box = to if isinstance(to, str) else ""
    return reads_all(principal) or own_box(principal, box) or own_box(principal, sender)


def _raw(stored: Stored) -> Raw:
    record = stored.record
    kept = "sealed" if record.flags & SEALED else "as a blob" if record.flags & BLOB else "in its record"
    return Raw(
        agent=stored.agent,
        key=record.key,
        version=record.key_version,
        author=record.author,
        pos=stored.pos,
        seq=record.seq,
        stream=record.stream.hex(),
        written=clock.to_iso(record.hlc),
        size=record.payload_len,
        kept=kept,
        payload_hash=record.payload_hash.hex(),
        link=record.link.hex(),
    )

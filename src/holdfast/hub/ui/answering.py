"""What forms of a message's page send: a reply, or that what it offers be done.

Either is a message in the name of whoever sends the form, written together with his word on the message in one
transaction, by the same code as `POST /sync/message`. Its id is known beforehand, so a form that is sent twice, or by
two people at once, says one thing once.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import msgspec

from holdfast.collections.delivery import DELIVERY, Act, act
from holdfast.collections.messages import ANSWER, PEOPLE, PRESSING, QUESTION
from holdfast.corpus.sql import MESSAGES
from holdfast.errors import Conflict, HoldfastError, NotFound, UsageError
from holdfast.hub.exchange import encode_json
from holdfast.hub.mail_shapes import MailShown
from holdfast.hub.own import QUICK_BYTES, Desk, check_agent
from holdfast.hub.routes_mail import delivery_of
from holdfast.hub.routes_sync import Post, compare
from holdfast.hub.routes_sync import read as read_post
from holdfast.hub.ui.frame import pretty
from holdfast.hub.ui.letter import Found, conversation, find, offers, page
from holdfast.hub.ui.letters import check_answer, error_of, speaker
from holdfast.hub.ui.messages_act import back_of
from holdfast.hub.ui.messages_filters import may_act
from holdfast.hub.ui.messages_rows import message_url, subject_of
from holdfast.hub.ui.offers import TASK, Offer, args_in, task_id
from holdfast.hub.ui.routes import Ask, View
from holdfast.log import drafts

REPLY_MAX: Final = 5_000
"""Letters, which a browser sends as up to twelve bytes each."""
KEPT: Final = ("text", "option", "action", "args", "name", "to")
"""What somebody typed, and finds again where something was wrong with it."""
TOLD: Final = ("done", "n", "undo")
"""Parameters that say what was just done."""
_FRESH: Final = re.compile(r"[0-9a-f]{32}")


class Confirm(msgspec.Struct):
    """What is about to be done, for whoever is asked once more."""

    message: str
    sender: str
    subject: str
    offer: Offer
    args: str


async def reply(ask: Ask) -> View:
    """POST /messages/reply: a message to the sender of another, in its thread; of a question, the answer."""
    found = await _found(ask)
    try:
        author = check_answer(ask.principal, found.shown.recipient)
        post = _reply(ask, found.shown, author)
        question = found.shown.kind == QUESTION
        told = await ask.core.read(lambda: delivery_of(ask.core, found.mail))
        if question and told["state"] == "withdrawn":
            raise Conflict(f"{found.shown.sender} has withdrawn this question", hint="nobody waits for the answer")
        said = act("done", found.shown.sender, result=post.msg_id) if question else None
        await _post(ask, found.shown, post, said)
    except (UsageError, Conflict) as error:
        return await _again(ask, found, error)
    return _back(ask, found.shown, "replied")


async def execute(ask: Ask) -> View:
    """POST /messages/execute: the task that an action of a message asks for, or another one that follows from it."""
    found = await _found(ask)
    try:
        author = check_answer(ask.principal, found.shown.recipient)
        offer, args = _chosen(ask, found.shown)
        if offer.destructive and ask.form.get("confirm") != _seal(offer, args):
            return _asked_once_more(ask, found, offer, args)
        done = await _execute(ask, found.shown, offer, args, author)
    except (UsageError, Conflict) as error:
        return await _again(ask, found, error)
    return _back(ask, found.shown, done)


# -- a reply ------------------------------------------------------------------------------------------------------


def _reply(ask: Ask, shown: MailShown, author: str) -> Post:
    form, body = ask.form, None
    if shown.kind == QUESTION and isinstance(shown.options, list) and shown.options:
        number = form.get("option", "")
        if not number.isdecimal() or len(number) > 3 or int(number) >= len(shown.options):
            raise UsageError("this question takes one of its own answers", hint="choose one of them")
        body = shown.options[int(number)]
    else:
        body = str(form.get("text", "")).replace("\r\n", "\n").strip()
        if not body:
            raise UsageError("a reply needs words", hint="nothing was sent")
        if len(body) > REPLY_MAX:
            raise UsageError(f"the reply has {len(body):,} letters", hint=f"at most {REPLY_MAX:,}; nothing was sent")
    kind = ANSWER if shown.kind == QUESTION else "message"
    return _message(shown, author, f"reply_{_fresh(ask)}", shown.sender, kind, body)


def _fresh(ask: Ask) -> str:
    """What names this one sending of the form, made with the page."""
    found = str(ask.form.get("fresh", ""))
    if not _FRESH.fullmatch(found):
        raise UsageError("this form has no number of its own", hint="load the page again, and send it from there")
    return found


# -- a task -------------------------------------------------------------------------------------------------------


def _chosen(ask: Ask, shown: MailShown) -> tuple[Offer, dict[str, Any]]:
    """The action that a form names, and the arguments that it is to be carried out with."""
    form = ask.form
    if "action" not in form:
        return _another(ask, shown)
    for offer in offers(shown)[0]:
        if offer.id == form["action"]:
            if "args" not in form:
                return offer, offer.args
            args = args_in(form["args"])
            if not offer.editable and args != offer.args:
                raise UsageError(f"the arguments of {offer.title!r:.80} cannot be changed", hint="execute it as it is")
            return offer, args
    raise NotFound(f"the message offers no action {form['action']!r:.80}", hint="its page lists them")


def _another(ask: Ask, shown: MailShown) -> tuple[Offer, dict[str, Any]]:
    """A task of one's own words that follows from a message."""
    name, to = ask.form.get("name", "").strip(), ask.form.get("to", "").strip() or shown.sender
    if not name or len(name) > 200:
        raise UsageError("a task needs a name, of at most 200 letters", hint="say what is to be done")
    known = f"own/{_fresh(ask)}"
    task = task_id(shown.msg_id, shown.sender, known)
    offer = Offer(known, name, name, {}, check_agent(to, hub=False), False, True, task)
    return offer, args_in(ask.form.get("args", ""))


async def _execute(ask: Ask, shown: MailShown, offer: Offer, args: dict[str, Any], author: str) -> str:
    about: dict[str, Any] = {"id": offer.id, "title": offer.title, "message": shown.msg_id, "sender": shown.sender}
    if args != offer.args and "action" in ask.form:
        about["edited"] = True
    body = {"action": offer.name, "args": args}
    post = _message(shown, author, offer.task, offer.to, TASK, body, action=about)
    try:
        return "executed" if await _post(ask, shown, post, None) == "stored" else "already"
    except Conflict:
        try:
            before = (await find(ask, offer.task, "")).shown
        except HoldfastError:  # not for him to see; but it was done
            raise Conflict(f"{offer.title!r:.80} was carried out before", hint="nothing was done now") from None
        if before.content == body:
            return "already"
        says = f"{offer.title!r:.80} was carried out before, by {before.sender}, with other arguments"
        raise Conflict(says, hint="nothing was done now; the task is linked below") from None


def _seal(offer: Offer, args: dict[str, Any]) -> str:
    """What a confirmation is of: this action with these arguments for this agent."""
    return hashlib.sha256(msgspec.json.encode([offer.task, offer.to, offer.name, args], order="sorted")).hexdigest()


def _asked_once_more(ask: Ask, found: Found, offer: Offer, args: dict[str, Any]) -> View:
    shown = found.shown
    data = Confirm(shown.msg_id, shown.sender, subject_of(shown.content), offer, pretty(args))
    place = back_of(ask.form)
    more = {"back": place, "place": place, "twin": "", "seal": _seal(offer, args), "sent": encode_json(args).decode()}
    return View(template="confirm.html", title=f"Execute {offer.title}", data=data, extra=more)


# -- what they share ----------------------------------------------------------------------------------------------


async def _found(ask: Ask) -> Found:
    msg = ask.form.get("id", "")
    if not msg:
        raise UsageError("this form names no message", hint="load the page again, and send it from there")
    return await find(ask, msg, ask.form.get("sender", ""))


def _message(shown: MailShown, author: str, msg_id: str, to: str, kind: str, body: Any, **more: Any) -> Post:
    """A message that follows from another: in its thread, of its task."""
    fields = {
        "msg_id": msg_id,
        "sender": author,
        "recipient": to,
        "kind": kind,
        "content": body,
        "thread": conversation(shown) or None,
        "task_id": shown.task if isinstance(shown.task, str) else None,
        "in_reply_to": shown.msg_id,
        "priority": shown.priority if kind == TASK and shown.priority in PRESSING else None,
        **more,
    }
    return read_post(encode_json({name: each for name, each in fields.items() if each is not None}))


async def _post(ask: Ask, shown: MailShown, post: Post, said: Act | None) -> str:
    """Writes a message, and with it what its author says of the one that it follows from; `stored` or `duplicate`.

    Raises:
        Conflict: another message has its id.
    """
    core, author = ask.core, post.sender
    log = await core.own.log_of(author)
    parts = [post.draft]
    if shown.recipient in (None, PEOPLE, speaker(ask.principal)) and may_act(ask.principal, ""):
        word = said or act("acknowledged", shown.sender)
        parts.append(drafts.value(DELIVERY, shown.msg_id, word.value(), author=author))
    size = sum(len(each.payload) for each in parts)

    def prepare() -> list[Any]:
        return [core.own.ready(log, each) for each in parts]

    quick = size <= QUICK_BYTES
    ready = prepare() if quick else await core.read(prepare)

    def work(desk: Desk) -> str | HoldfastError:
        before = desk.first("msg_id", post.msg_id) or desk.newest(MESSAGES, post.msg_id)
        if before is not None:
            if before.is_blob:
                desk.open_files()
            return compare(core, before, post)
        for each in ready:
            desk.append(each)
        return "stored"

    outcome: str | HoldfastError = await core.own.write(author, work, size=size, quick=quick)
    if isinstance(outcome, HoldfastError):
        raise outcome
    return outcome


async def _again(ask: Ask, found: Found, error: HoldfastError) -> View:
    """The page of the message, with what was wrong and all that was typed."""
    typed = {name: ask.form[name] for name in KEPT if name in ask.form}
    view = await page(ask, found, problem=error_of(error), typed=typed)
    view.status = error.status
    return view


def _back(ask: Ask, shown: MailShown, done: str) -> View:
    place = back_of(ask.form) if ask.form.get("back") else message_url(shown.msg_id, shown.sender, "")
    path, _, query = place.partition("?")
    kept = [(name, value) for name, value in parse_qsl(query, keep_blank_values=True) if name not in TOLD]
    return View(status=303, headers=(("location", f"{path}?{urlencode([*kept, ('done', done)])}"),))

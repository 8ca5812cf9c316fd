"""What a `Store` can do with messages: post them, read what comes, ask and answer, and see what became of each."""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from holdfast.collections import Message, envelope, message_in
from holdfast.collections.messages import PEOPLE, QUESTION, id_of
from holdfast.errors import Conflict, HubError, NotFound, UsageError
from holdfast.log import Draft, drafts
from holdfast.log.drafts import MESSAGES, new_id

if TYPE_CHECKING:
    from holdfast.collections.delivery import Delivery
    from holdfast.node.inbox import Inbox, Mail
    from holdfast.node.store import Store


class Posting:
    """A message that is to be posted: its id, what is stored of it, and its draft.

    Args:
        store: whose message it is.
        body: text or JSON values.
        kind: message, report, question, answer, or a word of one's own.
        msg_id: unique for ever; made of the dedupe key, or here, if empty.
        priority: low, normal, high or hot.
        fields: the others of `collections.envelope`; of a question without a thread, the thread is made here.

    Raises:
        UsageError: a field that cannot be so.
    """

    def __init__(self, store: Store, body: Any, kind: str, msg_id: str, priority: str, fields: dict[str, Any]) -> None:
        dedupe = fields.get("dedupe")
        if dedupe is not None and msg_id:
            raise UsageError("a msg_id and a dedupe key at once", hint="give one: each names one message, for ever")
        if store._redact is not None:
            body = store._redact(MESSAGES, msg_id, body)
        self.words = envelope(body, priority=priority, **fields)
        self.id = id_of(store.agent, dedupe) if dedupe is not None else msg_id
        if kind == QUESTION:
            self.id = self.id or new_id("msg")
            self.words.setdefault("thread", self.id)
        self.draft = drafts.message(self.words, msg_id=self.id, kind=kind)
        self.id = self.draft.key

    def message(self, store: Store) -> Message:
        """The message that was posted under this id before."""
        stored = store._log.newest(MESSAGES, self.draft.key)
        if stored is not None:
            return message_in(stored, store._load(stored))
        raise Conflict(f"message {self.draft.key} was deleted", hint="post it under another msg_id")


def posted(store: Store, made: Posting, *more: Draft) -> Message:
    """The message, once it is durable here together with what else is to be written; or the one that was there before.

    What else there is is written in any case.
    """
    try:
        return message_in(store._append((made.draft, *more), False)[0], made.words)
    except Conflict:
        if more:
            store._append(more, False)
        return made.message(store)


class MailCalls:
    """The part of `Store` that deals in messages."""

    def post(
        self,
        body: Any,
        *,
        to: str | None = None,
        kind: str = "message",
        priority: str = "normal",
        task: str | None = None,
        thread: str | None = None,
        role: str | None = None,
        msg_id: str = "",
        dedupe: str | None = None,
        expires_at: float | str | datetime | None = None,
        in_reply_to: str | None = None,
    ) -> Message:
        """Posts a message, and returns it once it is durable here; posting its `msg_id` again changes nothing.

        Args:
            body: text or JSON values.
            to: an agent, ``people``, or None for whoever looks.
            kind: message, report (for people), or a word of your own.
            priority: low, normal, high or hot.
            task, thread: what it belongs to.
            role: user, assistant, system or tool, in conversations.
            msg_id: unique for ever; made here if empty.
            dedupe: in place of a `msg_id`: of what this agent posts under one key, the first is the message.
            expires_at: when nobody needs it any more: seconds since 1970, ISO 8601 text, a datetime.
            in_reply_to: the id of the message that it answers.
        """
        store = _store(self)
        fields: dict[str, Any] = {"to": to, "task": task, "thread": thread, "role": role, "dedupe": dedupe}
        fields |= {"expires_at": expires_at, "in_reply_to": in_reply_to}
        return posted(store, Posting(store, body, kind, msg_id, priority, fields))

    def inbox(
        self,
        *,
        unread: bool = True,
        since: str | None = None,
        limit: int | None = None,
        live: bool = False,
        to: str | None = None,
        peek: bool = False,
    ) -> Inbox:
        """This agent's mail from everybody, in the order in which it came: each until it is read, taken on or done.

        What was handed out to a process that was then killed comes again: handle mail by its `id`. Without a hub it is
        the mail of this directory's agents; while a hub is away, what was fetched before, and theirs.

        Args:
            unread: only what waits: neither read, acknowledged nor done, not put away, not expired; else all of it.
            since: an inbox's `cursor`: only what came behind it.
            limit: how many at most.
            live: go on waiting for more, through hubs that go away and come back.
            to: another inbox than this agent's, such as ``people``.
            peek: say nothing to the senders; else they see that it was delivered.

        Raises:
            Denied: the hub does not let this agent read that inbox (when it is read).
        """
        from holdfast.node.inbox import Inbox

        store = _store(self)
        box = store.agent if to is None else to
        return Inbox(store, box, since, unread=unread, live=live, peek=peek).limited(limit)

    def mail(self, msg_id: str, *, sender: str | None = None) -> Mail:
        """One message by its id, to say something of it or to reply.

        Args:
            msg_id: its id.
            sender: who sent it; needed only where two senders used one id.

        Raises:
            NotFound: nobody sent it, or it was not fetched before and no hub answers.
            Conflict: several senders used the id.
        """
        from holdfast.node.tracing import found

        return found(_store(self), msg_id, sender)

    def delivery(self, msg_id: str, *, sender: str | None = None) -> Delivery:
        """What became of a message: stored here, delivered, read, acknowledged or done, and by whom.

        Args:
            msg_id: its id.
            sender: who sent it; None: this agent, or whoever did.

        Raises:
            NotFound: there is no such message.
        """
        from holdfast.node.tracing import delivery

        return delivery(_store(self), msg_id, sender)

    def ask(
        self,
        body: Any,
        to: str = PEOPLE,
        *,
        timeout: float | None = None,
        options: list[Any] | None = None,
        dedupe: str | None = None,
        **fields: Any,
    ) -> Message:
        """Asks people or an agent, and waits for the answer, which is a message; its `body` is what was said.

        A question is a message of the kind ``question``: it waits for its reader however long that is away. Asked again
        with the same `dedupe` (or `msg_id`), also by another process, it is the same question, and an answer that came
        meanwhile is there at once. Interrupted, it is withdrawn.

        Args:
            body: the question: text or JSON values.
            to: ``people``, or an agent.
            timeout: how many seconds to wait; None: for ever.
            options: the answers that it takes; None: any.
            dedupe: a key that names the question.
            fields: of `post`: msg_id, priority, task, thread, expires_at.

        Raises:
            Unanswered: nobody has answered in time; the question stays open, its id is in the context.
        """
        from holdfast.node.asking import Asking

        asking = Asking(_store(self), body, to, options, dedupe, fields)
        try:
            return asking.wait(timeout)
        except KeyboardInterrupt:
            asking.withdraw()
            raise

    def answer(self, question: Mail | Message | str, body: Any) -> Message:
        """Answers a question: posts the answer to whoever asked, and the question is done.

        Args:
            question: it, or its id.
            body: text or JSON values; where the question has options, one of them.

        Raises:
            NotFound: there is no message with this id.
            Conflict: it was withdrawn: nobody waits for the answer.
            UsageError: an answer that is none of its options.
        """
        from holdfast.node.inbox import Mail
        from holdfast.node.tracing import found

        store = _store(self)
        if isinstance(question, Message):
            question = Mail(store, question)
        mail = question if isinstance(question, Mail) else found(store, question, None)
        state = ""
        with contextlib.suppress(HubError, NotFound):  # nobody here knows: then it is answered
            state = self.delivery(mail.id, sender=mail.sender).state
        if state == "withdrawn":
            raise Conflict(f"{mail.sender} has withdrawn the question {mail.id}", hint="nobody waits for the answer")
        return mail.reply(body, kind="answer")

    def withdraw(self, msg_id: str) -> None:
        """Takes a message of this agent's back: whoever has not taken it on does not get it any more.

        Raises:
            NotFound: this agent has posted no such message.
        """
        from holdfast.collections.delivery import DELIVERY, act

        store = _store(self)
        if store._log.newest(MESSAGES, msg_id) is None:
            raise NotFound(f"{store.agent} has posted no message {msg_id!r:.80}", hint="holdfast sent lists them")
        store._append((drafts.value(DELIVERY, msg_id, act("withdrawn", store.agent).value()),), False)


def _store(self: MailCalls) -> Store:
    return cast("Store", self)

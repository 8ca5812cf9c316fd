"""inbox, send and mark: messages between agents, on whatever machine, and to people."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from holdfast import clock
from holdfast.collections import Message
from holdfast.errors import Denied, UsageError
from holdfast.hub.principal import INBOX
from holdfast.integrations.mcp_server.desk import Desk
from holdfast.integrations.mcp_server.tools import Answer, Tool
from holdfast.log.drafts import MESSAGES
from holdfast.node.tracing import _listed_beside, listed

THEME: Final = "mail"
State = Literal["open", "unread", "needs", "all", "read", "acknowledged", "done", "snoozed", "archived"]
Act = Literal["read", "ack", "done", "archive", "unread"]


class Inbox(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments."""

    to: Annotated[str, Meta(description="Whose inbox: an agent's name, or people. Without it your own")] = ""
    state: Annotated[State, Meta(description="Which messages; open are those that still wait")] = "open"
    thread: Annotated[str, Meta(description="One conversation instead, oldest first, to whomever")] = ""
    limit: Annotated[int, Meta(ge=1, le=200, description="The newest so many")] = 20


class Letter(msgspec.Struct, kw_only=True):
    """A message in an answer."""

    id: str
    sender: str
    time: str
    kind: str
    body: Annotated[Any, Meta(description="Text, or JSON")]
    to: str | None = None
    priority: str = "normal"
    task: str | None = None
    thread: str | None = None
    in_reply_to: str | None = None
    role: str | None = None
    options: list[Any] | None = None
    state: str = ""


class Letters(msgspec.Struct):
    """Answer."""

    messages: list[Letter]


class Send(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments."""

    body: Annotated[Any, Meta(description="What to say: text, or a JSON object")]
    to: Annotated[str, Meta(description="An agent's name, or people; not with reply_to, which goes to the sender")] = ""
    kind: Annotated[str, Meta(description="message, report (for people), question, alert, or a word of your own")] = (
        "message"
    )
    priority: Annotated[Literal["low", "normal", "high", "hot"], Meta(description="How urgent it is")] = "normal"
    task: Annotated[str, Meta(description="The task that it belongs to")] = ""
    thread: Annotated[str, Meta(description="The conversation that it belongs to")] = ""
    reply_to: Annotated[str, Meta(description="The id of the message that it answers")] = ""
    dedupe: Annotated[
        str, Meta(description="Your own name for this message: sent again under it, it is not sent twice")
    ] = ""


class Sent(msgspec.Struct):
    """Answer."""

    id: str
    to: str | None
    waiting: Annotated[int, Meta(description="How many of your records are still on their way to the hub")]


class Mark(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments."""

    id: Annotated[str, Meta(min_length=1, description="The message's id")]
    as_: Annotated[
        Act, Meta(description="read: seen; ack: taken on; done: finished; archive: put away; unread: as if new")
    ] = msgspec.field(name="as")
    result: Annotated[Any, Meta(description="With done: what came of it, for the sender")] = None
    sender: Annotated[str, Meta(description="Who sent it, where two agents used one id")] = ""


class Marked(msgspec.Struct):
    """Answer."""

    id: str
    message: str


def inbox(desk: Desk, given: Inbox) -> Answer:
    """See its description."""
    if given.thread:
        found = [(each, "") for each in conversation(desk, given.thread, given.limit)]
    else:
        found = waiting(desk, given.to or desk.agent, given.state, given.limit)
    return Answer({"messages": [letter(message, state) for message, state in found]})


def waiting(desk: Desk, box: str, state: str, limit: int) -> list[tuple[Message, str]]:
    """The newest messages of an inbox in a state, oldest of them first, each with where it lies."""
    store = desk.store
    return desk.line.ask(lambda: listed(store, box, state, limit), lambda: _listed_beside(store, box, state, limit))


def conversation(desk: Desk, thread: str | None, limit: int) -> list[Message]:
    """The newest messages, or those of a thread, oldest of them first."""
    store = desk.store

    def beside() -> list[Message]:
        places = (store, *desk.line.neighbours())
        found = [each for place in places for each in place.messages(agent=place.agent, thread=thread, limit=limit)]
        return sorted(found, key=lambda each: (each.time, each.agent, each.seq))[-limit:]

    return desk.line.ask(lambda: store.messages(thread=thread, limit=limit), beside)


def send(desk: Desk, given: Send) -> Answer:
    """See its description."""
    store = desk.store
    if given.reply_to:
        if given.to or given.thread or given.task:
            raise UsageError(
                "a reply with a receiver, a thread or a task of its own", hint="leave to, thread, task away"
            )
        kind = "" if given.kind == "message" else given.kind
        mail = store.mail(given.reply_to)
        made = mail.reply(given.body, kind=kind, priority=given.priority, dedupe=given.dedupe or None)
    else:
        if not given.to:
            raise UsageError("a message to nobody", hint="to: an agent's name, or people")
        more: dict[str, Any] = {"task": given.task or None, "thread": given.thread or None}
        made = store.post(
            given.body,
            to=given.to,
            kind=given.kind or "message",
            priority=given.priority,
            dedupe=given.dedupe or None,
            **more,
        )
    told = {"id": made.id, "to": made.to, "waiting": store.outbox_depth}
    return Answer(told, f"sent {made.id} to {made.to}")


def mark(desk: Desk, given: Mark) -> Answer:
    """See its description."""
    mail = desk.store.mail(given.id, sender=given.sender or None)
    if mail.message.to not in (None, desk.agent) and not desk.who.may(INBOX):
        raise Denied(
            f"{given.id!r:.80} is in the inbox of {mail.message.to}",
            hint="mark your own mail, or use a token for inboxes",
        )
    if given.result is not None and given.as_ != "done":
        raise UsageError(f"a result with {given.as_!r}", hint="as: done")
    if given.as_ == "done":
        mail.done(given.result)
    else:
        {"read": mail.read, "ack": mail.ack, "archive": mail.archive, "unread": mail.unread}[given.as_]()
    return Answer({"id": given.id, "message": f"{given.id} is marked: {given.as_}"})


def letter(message: Message, state: str = "") -> dict[str, Any]:
    """A message as JSON values."""
    made = Letter(
        id=message.id,
        sender=message.agent,
        time=clock.iso(round(message.time * 1000)),
        kind=message.kind,
        body=message.body,
        to=message.to,
        priority=message.priority,
        task=message.task,
        thread=message.thread,
        in_reply_to=message.in_reply_to,
        role=message.role,
        options=message.options,
        state=state,
    )
    plain = msgspec.to_builtins(made)
    return {name: value for name, value in plain.items() if value not in (None, "") or name == "body"}


TOOLS: Final = (
    Tool(
        name="inbox",
        title="Inbox",
        description="Read messages that agents on this or any other machine, or people, have sent you; or an inbox"
        " of others, such as people; or one conversation. Reading does not mark them: use mark.",
        theme=THEME,
        arguments=Inbox,
        result=Letters,
        run=inbox,
        collections=(MESSAGES,),
    ),
    Tool(
        name="send",
        title="Send a message",
        description="Send a message to another agent, on whatever machine, or to people; or answer one. It is safe here"
        " at once, also without a network, and goes out when the hub can be reached.",
        theme=THEME,
        arguments=Send,
        result=Sent,
        run=send,
        writes=True,
        again=False,
        collections=(MESSAGES,),
    ),
    Tool(
        name="mark",
        title="Mark a message",
        description="Say what became of a message in your inbox: read, taken on (ack), done with a result, put away"
        " (archive), or unread again. Its sender sees it.",
        theme=THEME,
        arguments=Mark,
        result=Marked,
        run=mark,
        writes=True,
        collections=(MESSAGES,),
    ),
)

"""Commands for what is done with mail: ack, done, reply, snooze, archive, reopen, ask, answer, sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from holdfast.cli import lasting, shell, values
from holdfast.cli.data import SHIP_S
from holdfast.cli.settings import Settings
from holdfast.cli.show import clock_text, count_text, value_text
from holdfast.cli.talk import PRIORITIES, message_json
from holdfast.errors import HoldfastError, Unanswered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.collections.delivery import Delivery
    from holdfast.node.inbox import Mail
    from holdfast.node.store import Store

FROM = click.option("--from", "sender", metavar="AGENT", help="who sent it, where two agents used one id")


@shell.command("ack")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@FROM
@click.pass_obj
def ack_command(settings: Settings, ids: Sequence[str], sender: str | None) -> int | None:
    """Take messages on: nobody else needs to, and their senders see it.

    \b
      holdfast ack msg_01a2
      holdfast inbox --json | jq -r '.messages[].id' | xargs holdfast ack
    """
    return _each(settings, ids, sender, "acknowledged", lambda mail: mail.ack())


@shell.command("done")
@click.argument("id_", metavar="ID")
@click.argument("result", required=False)
@FROM
@click.pass_obj
def done_command(settings: Settings, id_: str, result: str | None, sender: str | None) -> int | None:
    """Say that a message is done. RESULT, text or JSON, is what its sender sees came of it; `@FILE` and `-` work too.

    \b
      holdfast done msg_01a2 '{"rows": 3}'
    """
    found = None if result is None else values.given(result)
    return _each(settings, [id_], sender, "done", lambda mail: mail.done(found))


@shell.command("snooze")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--until", metavar="TIME", help="when they come back: 2h, 3d, or a date; else when you reopen them")
@FROM
@click.pass_obj
def snooze_command(settings: Settings, ids: Sequence[str], until: str | None, sender: str | None) -> int | None:
    """Have messages come back later.

    \b
      holdfast snooze msg_01a2 --until 2h
    """
    at = None if until is None else values.moment(until)
    return _each(settings, ids, sender, "snoozed", lambda mail: mail.snooze(at))


@shell.command("archive")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@FROM
@click.pass_obj
def archive_command(settings: Settings, ids: Sequence[str], sender: str | None) -> int | None:
    """Put messages away. They stay findable: `holdfast inbox --state archived`."""
    return _each(settings, ids, sender, "archived", lambda mail: mail.archive())


@shell.command("reopen")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@FROM
@click.pass_obj
def reopen_command(settings: Settings, ids: Sequence[str], sender: str | None) -> int | None:
    """Take back whatever was said of messages: they are unread again, neither snoozed nor archived."""
    return _each(settings, ids, sender, "reopened", lambda mail: mail.unread())


@shell.command("reply")
@click.argument("id_", metavar="ID")
@click.argument("body")
@click.option("--priority", type=click.Choice(PRIORITIES), default="normal", show_default=True)
@click.option("--dedupe", metavar="KEY", help="what you send under one key is one message")
@FROM
@click.pass_obj
def reply_command(
    settings: Settings, id_: str, body: str, priority: str, dedupe: str | None, sender: str | None
) -> None:
    """Answer a message, in its thread. It is acknowledged with that, and a question done."""
    with settings.open_store() as store:
        sent = store.mail(id_, sender=sender).reply(values.said(body), priority=priority, dedupe=dedupe)
        settings.show.result(f"sent {sent.id} to {sent.to}{_shipped(store)}", message_json(sent))


@shell.command("answer")
@click.argument("id_", metavar="ID")
@click.argument("body")
@click.pass_obj
def answer_command(settings: Settings, id_: str, body: str) -> None:
    """Answer the question ID. Where it has options, BODY is one of them."""
    with settings.open_store() as store:
        sent = store.answer(id_, values.said(body))
        settings.show.result(f"sent {sent.id} to {sent.to}{_shipped(store)}", message_json(sent))


@shell.command("ask")
@click.argument("body")
@click.option("--to", default="people", show_default=True, help="an agent, or people")
@click.option("--option", "options", multiple=True, help="an answer that it takes; repeat it for several")
@click.option("--timeout", type=float, metavar="S", help="seconds to wait; for ever unless said")
@click.option("--priority", type=click.Choice(PRIORITIES), default="normal", show_default=True)
@click.option("--task", help="the task it belongs to")
@click.option("--thread", help="the conversation it belongs to")
@click.option("--id", "msg_id", default="", help="names the question: asked again, it goes on waiting for the answer")
@click.pass_obj
def ask_command(
    settings: Settings, /, body: str, to: str, options: Sequence[str], timeout: float | None, **more: Any
) -> None:
    """Ask people, or an agent, and print the answer when it comes. Ctrl-C withdraws the question.

    \b
      holdfast ask "Deploy build 17?" --option yes --option no --timeout 600
      holdfast ask "Which branch?" --to recruiter-1
    """
    lasting()
    with settings.open_store() as store:
        choices = list(options) or None
        try:
            found = store.ask(values.said(body), to, timeout=timeout, options=choices, **more)
        except Unanswered as error:
            error.hint = f"it stays open: holdfast ask BODY --id {error.context['question']} goes on waiting"
            raise
        settings.show.result(settings.show.steady(values.pretty(found.body)), message_json(found))


@shell.command("sent")
@click.option("--to", help="only to this agent, or people")
@click.option("--thread", help="only of this conversation")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="the newest so many")
@click.pass_obj
def sent_command(settings: Settings, to: str | None, thread: str | None, limit: int) -> None:
    """List what you sent, the newest last, and what became of it: who has read it, taken it on, done it."""
    with settings.open_store() as store:
        found = store.messages(to=to, thread=thread, agent=store.agent, limit=limit)
        told = [(each, store.delivery(each.id, sender=store.agent)) for each in found]
    if settings.as_json:
        settings.show.document({"messages": [message_json(each) | {"delivery": _delivery(d)} for each, d in told]})
        return
    rows = [(clock_text(m.time), m.id, m.to or "everyone", d.state, _who(d), value_text(m.body, 60)) for m, d in told]
    settings.show.table(("TIME", "ID", "TO", "STATE", "BY", "BODY"), rows)


# -- what they share ----------------------------------------------------------------------------------------------


def _each(
    settings: Settings, ids: Sequence[str], sender: str | None, word: str, say: Callable[[Mail], None]
) -> int | None:
    """Says the same of each; those that cannot be found are named, and the others are done."""
    done, failed = [], []
    with settings.open_store() as store:
        for each in ids:
            try:
                say(store.mail(each, sender=sender))
                done.append(each)
            except HoldfastError as error:
                if len(ids) == 1:
                    raise
                failed.append({"id": each, **error.to_wire()})
                settings.show.complain(f"{each}: {error.message}")
        text = f"{word} {count_text(len(done), 'message')}{_shipped(store)}"
        settings.show.result(text, {"state": word, "done": done, "failed": failed})
    return shell.PARTIAL if failed else None


def _shipped(store: Store) -> str:
    if not store.hubs:
        return ""
    return (
        "; at the hub" if store.flush(SHIP_S) else f"; not at the hub yet: {count_text(store.outbox_depth, 'record')}"
    )


def _who(delivery: Delivery) -> str:
    return ", ".join(f"{name}: {each.state}" for name, each in delivery.readers.items())


def _delivery(delivery: Delivery) -> dict[str, Any]:
    import msgspec

    found: dict[str, Any] = msgspec.to_builtins(delivery)
    return found

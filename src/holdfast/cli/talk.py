"""Commands for what is said and what happens: send, inbox, watch (what is done with mail: `cli/mail.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from holdfast.cli import lasting, shell, values
from holdfast.cli.data import SHIP_S
from holdfast.cli.settings import Settings
from holdfast.cli.show import clock_text, count_text, safe, value_text
from holdfast.errors import UsageError

if TYPE_CHECKING:
    from holdfast.collections import Message

PRIORITIES = ("low", "normal", "high", "hot")
VIEWS = (
    *("unread", "open", "needs", "all", "read", "acknowledged", "done", "snoozed", "archived", "expired", "withdrawn"),
)
_MARKS = {"hot": "red", "high": "yellow"}


@shell.command("send")
@click.argument("to")
@click.argument("body")
@click.option("--kind", default="message", show_default=True, help="message, report, or a word of your own")
@click.option("--priority", type=click.Choice(PRIORITIES), default="normal", show_default=True)
@click.option("--task", help="the task it belongs to")
@click.option("--thread", help="the conversation it belongs to")
@click.option("--id", "msg_id", default="", help="unique for ever: sending it again changes nothing")
@click.option("--dedupe", metavar="KEY", help="in place of an id: what you send under one key is one message")
@click.option("--expires", metavar="TIME", help="when nobody needs it any more: 2h, 7d, or a date")
@click.pass_obj
def send_command(
    settings: Settings,
    to: str,
    body: str,
    kind: str,
    priority: str,
    task: str | None,
    thread: str | None,
    msg_id: str,
    dedupe: str | None,
    expires: str | None,
) -> None:
    """Post BODY to an agent, or to `people`. Text, or JSON when it is an object or a list; `@FILE` and `-` work too.

    \b
      holdfast send people "The import is done" --kind report
      holdfast send recruiter-1 '{"look at": "inventory/a.py"}' --task 42
    """
    text = values.given(body, as_text=True)
    content = values.given(body) if text.lstrip()[:1] in ("{", "[") and body != "-" else text
    ends = None if expires is None else values.moment(expires)
    more: dict[str, Any] = {"task": task, "thread": thread, "msg_id": msg_id, "dedupe": dedupe, "expires_at": ends}
    with settings.open_store() as store:
        sent = store.post(content, to=to, kind=kind, priority=priority, **more)
        told = f"sent {sent.id} to {to}"
        document = message_json(sent)
        if store.hubs:
            shipped = store.flush(SHIP_S)
            depth = document["outbox"] = store.outbox_depth
            told += "; at the hub" if shipped else f"; not at the hub yet: {count_text(depth, 'record')}"
        settings.show.result(told, document)


@shell.command("inbox")
@click.option("--to", default="people", show_default=True, help="whose messages")
@click.option("--all", "everyone", is_flag=True, help="to whomever")
@click.option("--from", "sender", metavar="AGENT", help="only this agent's")
@click.option("--task", help="only of this task")
@click.option("--thread", help="only of this conversation, oldest first")
@click.option("--kind", help="only of this kind")
@click.option("--since", metavar="TIME", help="only later ones: ISO 8601, or seconds since 1970")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="the newest so many")
@click.option("--state", type=click.Choice(VIEWS), help="only these; open (what waits) unless an option narrows it")
@click.option("--local", is_flag=True, help="only what agents of this machine wrote; asks no hub")
@click.pass_obj
def inbox_command(
    settings: Settings,
    to: str,
    everyone: bool,
    sender: str | None,
    task: str | None,
    thread: str | None,
    kind: str | None,
    since: str | None,
    limit: int,
    state: str | None,
    local: bool,
) -> None:
    """Read messages, the newest last. With a hub those of every machine, without one those of this machine.

    What is acknowledged, done, snoozed or archived is left out, unless you say which messages you want.

    \b
      holdfast inbox
      holdfast inbox --state snoozed
      holdfast inbox --to recruiter-1 --since 2026-01-06T12:00:00Z
      holdfast inbox --all --thread conversations-0-0 --limit 200
    """
    which: dict[str, Any] = {"task": task, "thread": thread, "kind": kind, "since": since, "limit": limit}
    which["to"] = None if everyone or thread is not None else to
    narrowed = everyone or any((sender, task, thread, kind, since))
    if state is not None or not narrowed:
        if narrowed:
            raise UsageError("--state goes with --to, --limit and --local alone", hint="leave one of them out")
        _print_inbox(settings, to, state, limit, local)
        return
    if settings.hub_url is not None and not local:
        with settings.open_store(agent=settings.me) as store:
            found = store.messages(agent=sender, **which)
    else:
        found = _of_this_machine(settings, sender, which)
    if settings.as_json:
        settings.show.document({"messages": [message_json(each) for each in found]})
        return
    for each in found:
        _print(settings, each)
    if not found:
        settings.show.note("no messages")


def _print_inbox(settings: Settings, to: str, state: str | None, limit: int, local: bool) -> None:
    from holdfast.node.tracing import listed

    hub = settings.hub_url is not None and not local
    with settings.open_store(agent=settings.me, hub=hub) as store:
        found = listed(store, to, state or "open", limit)
    if settings.as_json:
        more = [{} if state is None else {"state": tab} for _, tab in found]
        told = [message_json(each) | extra for (each, _), extra in zip(found, more, strict=True)]
        settings.show.document({"messages": told})
        return
    for each, tab in found:
        _print(settings, each, "" if state == tab else tab)
    if not found:
        settings.show.note("no messages")


def _of_this_machine(settings: Settings, sender: str | None, which: dict[str, Any]) -> list[Message]:
    from holdfast.node.directory import Directory

    agents = [sender] if sender else Directory(settings.need_store()).agents()
    found: list[Message] = []
    for agent in agents:
        with settings.open_store(agent=agent, hub=False) as store:
            found += store.messages(**which)
    found.sort(key=lambda message: (message.time, message.agent, message.seq))
    return found[-which["limit"] :]


def message_json(message: Message) -> dict[str, Any]:
    """A message as a JSON document."""
    from holdfast.clock import iso

    out = {name: getattr(message, name) for name in message.__struct_fields__}
    out["time"] = iso(round(message.time * 1000))
    return out


def _print(settings: Settings, message: Message, tab: str = "") -> None:
    show = settings.show
    about = [
        *([tab] if tab and tab != "unread" else []),
        message.kind,
        *(f"{n} {v}" for n, v in (("task", message.task), ("thread", message.thread)) if v),
    ]
    mark = (
        "" if message.priority == "normal" else show.paint(message.priority, _MARKS.get(message.priority, "dim")) + " "
    )
    who = f"{message.agent} → {message.to or 'everyone'}" + (f" ({message.role})" if message.role else "")
    about += [f"id {message.id}"]
    show.line(f"{clock_text(message.time)}  {show.paint(safe(who), 'bold')}  {mark}{safe(', '.join(about))}")
    body = message.body if isinstance(message.body, str) else value_text(message.body, 1000)
    for line in body.splitlines() or [""]:
        show.line(f"    {safe(line)}")
    if message.options:
        show.line(f"    one of: {safe(', '.join(value_text(each) for each in message.options))}")


@shell.command("watch")
@click.option("--since", metavar="CURSOR", default="now", show_default=True, help="now, start, or a cursor")
@click.option("--from", "sender", metavar="AGENT", help="only this agent's")
@click.option("--collection", "-c", help="only in this collection")
@click.option("--kind", help="only of this kind")
@click.option("--prefix", default="", help="only keys that begin so")
@click.option("--once", is_flag=True, help="end at the newest instead of waiting for more")
@click.option("--limit", type=click.IntRange(1), help="end after so many")
@click.pass_obj
def watch_command(
    settings: Settings,
    since: str,
    sender: str | None,
    collection: str | None,
    kind: str | None,
    prefix: str,
    once: bool,
    limit: int | None,
) -> None:
    """Follow what is written, everyone's through the hub, else one's own. With --json one document a line.

    Each JSON line carries a `cursor`: given to --since later, it goes on exactly behind that line.

    \b
      holdfast watch
      holdfast watch --collection messages --json
      holdfast watch --since start --once --json > everything.jsonl
    """
    lasting()
    start = None if since == "start" else since
    with settings.open_store() as store:
        changes = store.changes(start, live=not once, agent=sender, collection=collection, kind=kind, prefix=prefix)
        try:
            for seen, version in enumerate(changes, start=1):
                if settings.as_json:
                    settings.show.document(version.to_json() | {"cursor": str(changes.cursor)})
                else:
                    value = f"removed {value_text(version.value)}" if version.gone else value_text(version.value)
                    where = f"{version.author or version.agent}  {version.collection}/{version.key} v{version.version}"
                    settings.show.line(f"{clock_text(version.time)}  {safe(where)}  {safe(value)}")
                    settings.show.flush()
                if seen == limit:
                    break
        finally:
            changes.close()

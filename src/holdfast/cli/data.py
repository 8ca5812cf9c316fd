"""Commands for keys as they are: put, get, ls, rm."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from holdfast.cli import shell, values
from holdfast.cli.settings import Settings
from holdfast.cli.show import clock_text, count_text, safe, size_text, version_text
from holdfast.errors import Erased, NotFound, Sealed, UsageError

if TYPE_CHECKING:
    from holdfast.log.versions import Version
    from holdfast.node.store import Store

COLLECTION = click.option("--collection", "-c", default="state", show_default=True, help="a name space of keys")
IF_VERSION = click.option("--if-version", metavar="N", help="only if this version (or etag) is current; 0: only if new")
SHIP_S = 1.0
"""How long a command that wrote waits for the hub: a write is safe here already, so it is only to tell."""


@shell.command("put")
@click.argument("key")
@click.argument("value")
@click.option("--text", "as_text", is_flag=True, help="store text even where it is JSON")
@click.option("--bytes", "as_bytes", is_flag=True, help="store the bytes as they are")
@IF_VERSION
@COLLECTION
@click.option("--durable", is_flag=True, help="survive a power cut before returning")
@click.option("--subject", metavar="S", help="in a sealed collection, who it is about")
@click.pass_obj
def put_command(
    settings: Settings,
    key: str,
    value: str,
    as_text: bool,
    as_bytes: bool,
    if_version: str | None,
    collection: str,
    durable: bool,
    subject: str | None,
) -> None:
    """Set KEY to VALUE: JSON when it parses, else text. `@FILE` reads a file, `-` reads standard input.

    \b
      holdfast put plan '{"step": 1}'
      holdfast put plan @plan.md --if-version 6
      git diff | holdfast put patch - --text
    """
    content = values.given(value, as_text=as_text, as_bytes=as_bytes)
    with settings.open_store() as store:
        expect = values.expected(if_version)
        made = store.put(key, content, collection=collection, expect=expect, durable=durable, subject=subject)
        tell_written(settings, store, made, f"stored {collection}/{key} v{made.version}")


@shell.command("rm")
@click.argument("key")
@click.option("--reason", default="", help="kept with the deletion")
@click.option("--prefix", is_flag=True, help="every key that begins with KEY")
@IF_VERSION
@COLLECTION
@click.pass_obj
def rm_command(
    settings: Settings, key: str, reason: str, prefix: bool, if_version: str | None, collection: str
) -> None:
    """Take KEY's value away. Its history stays, and `rollback` brings it back.

    \b
      holdfast rm plan --reason "done"
      holdfast rm tmp/ --prefix
    """
    with settings.open_store() as store:
        expect = values.expected(if_version)
        made = store.delete(key, reason=reason, prefix=prefix, collection=collection, expect=expect)
        text = f"removed {collection}/{key}{'*' if prefix else ''}"
        if made.version > 1 and not prefix:
            text += f"; undo with `holdfast rollback {key} {made.version - 1}`"
        tell_written(settings, store, made, text)


def tell_written(settings: Settings, store: Store, made: Version, text: str) -> None:
    """Says what was written, and whether the hub has it; that it has not is no failure."""
    document = made.to_json()
    if store.hubs:
        shipped = store.flush(SHIP_S)
        depth = store.outbox_depth
        document["outbox"] = depth
        text += "; at the hub" if shipped else f"; not at the hub yet: {count_text(depth, 'record')}"
    settings.show.result(text, document)


@shell.command("get")
@click.argument("key")
@click.option("--at", metavar="TIME", help="the value that was current then: ISO 8601, or seconds since 1970")
@click.option("--version", "number", type=click.IntRange(1), help="this version of it")
@click.option("--raw", is_flag=True, help="exactly the stored bytes, without a newline behind them")
@COLLECTION
@click.pass_obj
def get_command(settings: Settings, key: str, at: str | None, number: int | None, raw: bool, collection: str) -> None:
    """Print KEY's value; with --json, the whole version. Another agent's is asked of the hub and proven.

    \b
      holdfast get plan
      holdfast get plan --at 2026-01-06T12:00:00Z
      holdfast get report --agent recruiter-1 --json
    """
    if at is not None and number is not None:
        raise UsageError("--at and --version exclude each other", hint="choose one")
    if settings.as_json:
        found = settings.read(
            lambda store, agent: version_at(store, agent, key, collection, number=number, at=at), f"{collection}/{key}"
        )
        settings.show.document(found.to_json())
        return
    when = number if number is not None else at
    value = settings.read(
        lambda store, agent: store.get(key, agent=agent, at=when, collection=collection), f"{collection}/{key}"
    )
    if raw:
        settings.show.raw(values.raw(value))
    elif isinstance(value, bytes):
        if sys.stdout.isatty():
            raise UsageError(f"{key} holds {size_text(len(value))} of bytes", hint="--raw, or pipe it somewhere")
        settings.show.raw(value)
    else:
        settings.show.line(settings.show.steady(values.pretty(value)))


def version_at(
    store: Store, agent: str | None, key: str, collection: str, *, number: int | None = None, at: str | None = None
) -> Version:
    """The version of a key that a number or a time names, else the newest.

    Raises:
        NotFound: there is none, or it is a deletion, or (Erased) it was erased.
        Sealed: its key is not here.
    """
    from holdfast.clock import parse_time

    if number is None and at is None:
        found = store.history(key, agent=agent, collection=collection, limit=1)
    else:
        found = store.history(key, agent=agent, collection=collection)
    before = None if at is None else parse_time(_time(at)) / 1000
    for version in found:
        if number is not None and version.version != number:
            continue
        if before is not None and version.time > before:
            continue
        if version.gone:
            break
        if version.missing:
            which, error = ("was erased", Erased) if version.missing == "redacted" else ("is sealed", Sealed)
            raise error(f"{collection}/{key} v{version.version} of {version.agent} {which}")
        return version
    which = f" v{number}" if number is not None else f" at {at}" if at is not None else ""
    hint = f"holdfast history {key}" + ("" if collection == "state" else f" --collection {collection}")
    hint = hint if which else "holdfast ls shows what there is"
    raise NotFound(f"{agent or store.agent} has nothing at {collection}/{key}{which}", hint=hint)


def _time(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


@shell.command("ls")
@click.argument("prefix", default="")
@COLLECTION
@click.option("--collections", is_flag=True, help="list the collections instead")
@click.option("--agents", is_flag=True, help="list the agents on this machine instead")
@click.option("--names", is_flag=True, help="only the names, one a line")
@click.option("--limit", default=1000, show_default=True, type=click.IntRange(1), help="at most so many")
@click.option("--after", default="", metavar="KEY", help="go on behind this key")
@click.pass_obj
def ls_command(
    settings: Settings,
    prefix: str,
    collection: str,
    collections: bool,
    agents: bool,
    names: bool,
    limit: int,
    after: str,
) -> None:
    """List the keys that begin with PREFIX.

    \b
      holdfast ls
      holdfast ls inventory/ --agent surveyor
      holdfast ls --collections
    """
    if agents or collections:
        _list_places(settings, agents=agents)
        return

    def job(store: Store, agent: str | None) -> list[Version]:
        found = store.keys(prefix, agent=agent, collection=collection, after=after, limit=limit)
        if names and not settings.as_json:
            for key in found:
                settings.show.line(safe(key))
            return []
        newest = [store.history(key, agent=agent, collection=collection, limit=1) for key in found]
        return [versions[0] for versions in newest if versions]

    found = settings.read(job)
    if others := settings.others():
        settings.show.note(f"only {settings.me}'s; on this machine there are also {', '.join(others)} (--agent)")
    if settings.as_json:
        keys = [{k: v for k, v in each.to_json().items() if k != "value"} for each in found]
        settings.show.document({"keys": keys, "next": found[-1].key if len(found) == limit else None})
    elif not names:
        rows = [
            (
                each.key,
                f"v{each.version}",
                clock_text(each.time),
                version_text(each),
            )
            for each in found
        ]
        settings.show.table(("KEY", "VERSION", "CHANGED", "VALUE"), rows)
        if len(found) == limit:
            settings.show.note(f"that is the first {limit:,}; go on with --after {found[-1].key}")


def _list_places(settings: Settings, *, agents: bool) -> None:
    rows: list[dict[str, Any]] = []
    with settings.directory() as directory:
        others = bool(settings.others())
        every = directory.agents()
        wanted = every if agents or others else [settings.who] if settings.who in every else []
        for agent in wanted:
            with settings.open_log(agent) as opened:
                corpus = opened.corpus
                if agents:
                    keys = sum(count for _, count in corpus.collections(agent))
                    rows.append({"agent": agent, "records": corpus.last(), "keys": keys, "bytes": corpus.size_bytes()})
                else:
                    whose = {"agent": agent} if others else {}
                    rows += [{**whose, "collection": c, "keys": n} for c, n in corpus.collections(agent)]
    if settings.as_json:
        settings.show.document({"agents" if agents else "collections": rows})
    elif agents:
        table = [(r["agent"], f"{r['records']:,}", f"{r['keys']:,}", size_text(r["bytes"])) for r in rows]
        settings.show.table(("AGENT", "RECORDS", "KEYS", "SIZE"), table)
    else:
        table = [(*((r["agent"],) if others else ()), r["collection"], f"{r['keys']:,}") for r in rows]
        settings.show.table((*(("AGENT",) if others else ()), "COLLECTION", "KEYS"), table)

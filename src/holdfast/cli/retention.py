"""Commands about how much stays on this machine: retention (show, set, apply, pin, unpin) and compact."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from holdfast.cli import shell
from holdfast.cli.settings import Settings
from holdfast.cli.show import count_text
from holdfast.errors import Locked, UsageError

if TYPE_CHECKING:
    from holdfast.node.evicting import Report

_SIZE: Final = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*([kmgt]?)i?b?", re.IGNORECASE)
_UNITS: Final = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


@shell.room("retention")
def retention_command() -> None:
    """How much of each agent's log stays on this machine, and for how long. The hub keeps all of it."""


@retention_command.command("show")
@click.pass_obj
def show_command(settings: Settings) -> None:
    """Show each agent's budget, what its log takes, and what may not leave yet.

    UNSETTLED is what a hub or its two newest verified backups lack: nothing of that ever leaves. EVICTED counts the
    bodies that have left so far; they are read through the hub.
    """
    from holdfast.node.room import cache, retention_of

    rows = []
    with settings.directory() as directory:
        for agent in [settings.agent] if settings.agent else directory.agents():
            with settings.open_log(agent) as opened:
                rows.append({"agent": agent, **cache(directory, opened), **_plain(retention_of(directory, agent))})
    if settings.as_json:
        settings.show.document({"agents": rows})
        return
    table = []
    for row in rows:
        days = f"{row['days']:g}" if row["days"] else "-"
        state = "full" if row["full"] else row["trouble"] or "ok"
        sizes = [binary_text(row[name]) if row.get(name) else "-" for name in ("max_bytes", "used", "unsettled")]
        table.append((row["agent"], *sizes, f"{row.get('evicted', 0):,}", days, state))
    settings.show.table(("AGENT", "BUDGET", "USED", "UNSETTLED", "EVICTED", "DAYS", "STATE"), table)


@retention_command.command("set")
@click.option("--role", help="commander, recruiter, reasoner, coder or synthesizer: its usual budget")
@click.option("--context", "context_tokens", type=int, metavar="TOKENS", help="the model's window; with --role")
@click.option("--max-bytes", metavar="SIZE", help="the budget: 512MB, 2GB, or 0 for none (1 MB is 1,048,576 bytes)")
@click.option("--days", type=float, help="bodies that are older, and settled, leave; 0: they stay")
@click.option("--keep", multiple=True, metavar="COLLECTION", help="its current values leave last; repeatable")
@click.pass_obj
def set_command(
    settings: Settings,
    /,
    **given: Any,
) -> None:
    """Set the budget and the days of the agent (--agent), for every process that opens the store from now on.

    What is not given stays as it was, unless --role is: that begins anew.

    \b
      holdfast retention set --role recruiter --context 32000
      holdfast retention set --agent ada --max-bytes 512MB --days 30 --keep tasks
    """
    from holdfast.node.room import retention_of, write_retention
    from holdfast.retention import Retention

    size = None if given["max_bytes"] is None else size_of(given["max_bytes"])
    if given["context_tokens"] is not None and not given["role"]:
        raise UsageError("--context scales a role's budget", hint="give --role too, or --max-bytes alone")
    with settings.directory() as directory:
        found = retention_of(directory, settings.who)
        if given["role"]:
            found = Retention.of(given["role"], context_tokens=given["context_tokens"])
        more: dict[str, Any] = {}
        if size is not None:
            more["max_bytes"] = size
        if given["days"] is not None:
            more["days"] = given["days"]
        if given["keep"]:
            more["keep"] = given["keep"]
        # Made anew and not replaced, so that what cannot be meant is refused.
        made = Retention(**{**{name: getattr(found, name) for name in found.__struct_fields__}, **more})
        write_retention(directory, settings.who, made)
    budget = binary_text(made.max_bytes) if made.max_bytes else "no budget"
    days = f"{made.days:g} days" if made.days else "for ever"
    settings.show.result(f"{settings.who}: {budget}, {days}", {"agent": settings.who, **_plain(made)})


@retention_command.command("apply")
@click.option("--dry-run", is_flag=True, help="only say what would leave")
@click.pass_obj
def apply_command(settings: Settings, dry_run: bool) -> int:
    """Let leave now what the budgets and days want gone, as far as the hubs and their backups hold it.

    A process that runs with a store open does so by itself. It asks every hub first; without an answer nothing leaves.
    """
    from holdfast.node.evicting import LOCK, Asking, asked, round_of
    from holdfast.node.locks import alone
    from holdfast.transport.client import HubClient

    settings.need_hub()
    token = settings.token_path if settings.token else None
    clients = [HubClient(url, token) for url in settings.hub_urls]
    with settings.directory() as directory, alone(directory.path, LOCK) as mine:
        if not mine and not dry_run:
            raise Locked("another process makes room in this store", hint="it does so by itself; --dry-run looks")
        store = Asking(directory)
        try:
            spare = asked(clients, store, directory.node_id)
            agents = [settings.agent] if settings.agent else directory.agents()
            reports = [round_of(directory, agent, spare, dry_run=dry_run) for agent in agents]
        finally:
            store.close()
            for client in clients:
                client.close()
    if settings.as_json:
        settings.show.document({"dry_run": dry_run, "agents": [_document(report) for report in reports]})
    else:
        word = "would leave" if dry_run else "left"
        for report in reports:
            what = f"{count_text(report.bodies, 'body', 'bodies')} ({binary_text(report.bytes)}) {word}"
            settings.show.line(f"{report.agent}: {what}; {binary_text(report.standing.held)} may not leave yet")
    for report in reports:
        if report.standing.trouble:
            settings.show.warn(f"{report.agent}: {report.standing.trouble}", hint="raise the budget")
    return shell.PARTIAL if any(report.standing.trouble for report in reports) else 0


@retention_command.command("pin")
@click.argument("key")
@click.option("--collection", "-c", default="state", help="of this one")
@click.pass_obj
def pin_command(settings: Settings, key: str, collection: str) -> None:
    """Have the current value of KEY stay on this machine whatever the budget; it is fetched if it had left."""
    with settings.open_store() as store:
        store.pin(key, collection=collection)
    settings.show.result(f"{collection}/{key} stays", {"pinned": key, "collection": collection})


@retention_command.command("unpin")
@click.argument("key")
@click.option("--collection", "-c", default="state", help="of this one")
@click.pass_obj
def unpin_command(settings: Settings, key: str, collection: str) -> None:
    """Let the value of KEY leave again as any other."""
    with settings.open_store(hub=False) as store:
        store.unpin(key, collection=collection)
    settings.show.result(f"{collection}/{key} may leave", {"unpinned": key, "collection": collection})


@shell.command("compact")
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), help="a hub's directory instead")
@click.pass_obj
def compact_command(settings: Settings, data: Path | None) -> int:
    """Give back to the disk what the files no longer hold, after erasures, retention or a smaller budget.

    Each file is written anew without its free pages, looked at, and put in its place; nobody may have it open
    meanwhile, so it is for when the agents (or the hub) are stopped. Killed at any moment, the old file or the new one
    is there. The exit code is 3 when some were in use and stay as they are.
    """
    from holdfast.corpus.compacting import compact
    from holdfast.node.directory import agents_in, folder_of

    if data is not None:
        settings.tell_outranked("serve.database", "--data")
        if not (data / "hub.db").exists():
            raise UsageError(f"there is no hub in {data}", hint="give the directory that serve --data was given")
        files: list[tuple[Path, tuple[str, ...]]] = [(data / "hub.db", ("", "hub"))]
    else:
        home = settings.need_store()
        agents = [settings.agent] if settings.agent else agents_in(home)
        files = [(home / "agents" / folder_of(agent) / "log.db", ("", "agent")) for agent in agents]
        if (home / "cache.db").exists() and not settings.agent:
            files.append((home / "cache.db", ("cache",)))
    done, busy = [], []
    for path, roles in files:
        try:
            done.append(compact(path, roles))
        except Locked as error:
            busy.append(str(path))
            settings.show.warn(error.message, hint=error.hint)
    before, after = sum(each.before for each in done), sum(each.after for each in done)
    if settings.as_json:
        settings.show.document(
            {
                "before": before,
                "after": after,
                "files": [msgspec.structs.asdict(each) | {"path": str(each.path)} for each in done],
                "busy": busy,
            }
        )
    else:
        for each in done:
            settings.show.line(f"{each.path}: {binary_text(each.before)} before, {binary_text(each.after)} after")
        settings.show.line(f"{binary_text(before - after)} given back")
    return shell.PARTIAL if busy else 0


def _plain(retention: Any) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(retention)
    return found


def _document(report: Report) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(report)
    return found


def size_of(text: str) -> int:
    """Bytes: a number, or one with KB, MB, GB or TB, which are binary here.

    Raises:
        UsageError: it is none.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{text!r} is no size", hint="such as 512MB, 2GB or 0")
    return int(float(found[1]) * (1 << _UNITS[found[2].lower()]))


def binary_text(size: float) -> str:
    """Bytes as budgets count them: 116 MB, 2.06 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or abs(size) >= 100 else f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TB"

"""The command that follows coding agents: `holdfast follow`."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from holdfast.cli import lasting, shell
from holdfast.cli.settings import Settings
from holdfast.cli.show import count_text, safe, size_text
from holdfast.errors import UsageError

if TYPE_CHECKING:
    from holdfast.cli.following.follower import Follower
    from holdfast.cli.following.ledger import Head
    from holdfast.cli.following.reading import Tally
    from holdfast.cli.transcripts.tools import Tool
    from holdfast.node.store import Store

SHIP_S: Final = 2.0
"""How long it waits at its end for the hub to take another record before it says what waits here."""
WALK_S: Final = 5.0
"""Every so often it looks for files that are new; those that it knows to be at work it looks at more often."""
AT_WORK_S: Final = 600.0


@shell.command("follow")
@click.argument("tool", required=False)
@click.argument("folder", required=False, metavar="[DIR]", type=click.Path(path_type=Path))
@click.option("--all", "everything", is_flag=True, help="every tool that is known and has a folder here")
@click.option("--once", is_flag=True, help="read what there is, and end")
@click.option(
    "--interval", default=1.0, show_default=True, type=click.FloatRange(0.01), metavar="S", help="look so often"
)
@click.option(
    "--redact", is_flag=True, help="take API keys, tokens, private keys and passwords out before anything is kept"
)
@click.option("--list", "listed", is_flag=True, help="what is followed, how far, and what is wrong with it")
@click.pass_obj
def follow_command(
    settings: Settings,
    tool: str | None,
    folder: Path | None,
    everything: bool,
    once: bool,
    interval: float,
    redact: bool,
    listed: bool,
) -> int:
    """Keep the transcripts of coding agents as they grow, and tell them as sessions that every machine can read.

    TOOL is claude-code, codex, gemini-cli, opencode or pi; it is looked for where it keeps its files, or in DIR. Every
    line is kept as it is, so that `holdfast sessions export` gives back the tool's own files. It may run always, now
    and then (--once), or twice: nothing is there twice, and nothing is missing. A line that cannot be read is
    reported, kept, and told no further; with --once the exit code is then 3.

    \b
      holdfast follow claude-code
      holdfast follow --all --once
      holdfast follow codex /mnt/old-laptop/.codex --once --agent old-laptop
      holdfast follow --list
    """
    settings.need_store()
    if listed:
        return _list(settings, tool)
    wanted = _wanted(tool, folder, everything)
    from holdfast.node.secrets import redact_secrets

    tell = _teller(settings)
    with settings.open_store() as store:
        hook = store._redact or (redact_secrets if redact else None)
        followers = [_follower(each)(store, each, home, tell, redact=hook) for each, home in wanted]
        if once:
            for follower in followers:
                follower.walk()
                follower.once()
        else:
            lasting()
            for each, home in wanted:
                settings.show.note(f"following {each.name} in {home}; Ctrl-C ends it")
            sys.stderr.flush()
            with _until_told() as ended:
                _go_on(followers, interval, ended)
        waiting = _ship(store)
    return _report(settings, [follower.tally for follower in followers], waiting, once=once)


def _follower(tool: Tool) -> Any:
    if tool.stored:
        from holdfast.cli.following.stored import StoredFollower

        return StoredFollower
    from holdfast.cli.following.follower import Follower

    return Follower


def _wanted(tool: str | None, folder: Path | None, everything: bool) -> list[tuple[Tool, Path]]:
    """The tools to follow, and their folders.

    Raises:
        UsageError: nothing was said, or too much; or a folder is not there.
    """
    from holdfast.cli.following.files import home_of
    from holdfast.cli.transcripts.tools import TOOLS, tool_named

    names = ", ".join(TOOLS)
    if everything:
        if tool is not None:
            raise UsageError("--all follows every tool", hint="name one, or say --all")
        found = [(each, home_of(each, None)) for each in TOOLS.values()]
        there = [(each, home) for each, home in found if home.is_dir()]
        if not there:
            raise UsageError("no folder of any tool is here", hint=f"it knows {names}")
        return there
    if tool is None:
        raise UsageError("which tool?", hint=f"one of {names}; or --all")
    chosen = tool_named(tool)
    home = home_of(chosen, folder)
    if not home.is_dir():
        hint = f"holdfast follow {chosen.name} DIR, or set {chosen.variable}"
        raise UsageError(f"{chosen.name} has no folder here: {home} is not there", hint=hint)
    return [(chosen, home)]


def _teller(settings: Settings) -> Any:
    def tell(place: str, why: str) -> None:
        settings.show.complain(f"{place}: {why}")
        sys.stderr.flush()

    return tell


@contextlib.contextmanager
def _until_told() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that what is being written is finished first."""
    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _go_on(followers: list[Follower], interval: float, ended: threading.Event) -> None:
    walk_at = 0.0
    while not ended.is_set():
        now = time.monotonic()
        if now >= walk_at:
            walk_at = now + max(WALK_S if interval >= 1 else interval, interval)
            for follower in followers:
                follower.walk()
                follower.once(ended.is_set)
        else:
            since = time.time_ns() - int(AT_WORK_S * 1e9)
            for follower in followers:
                follower.recent(since, ended.is_set)
        ended.wait(interval)


def _ship(store: Store) -> int:
    """Waits for the hub as long as it takes records; how many are left here."""
    left = store.outbox_depth if store.hubs else 0
    while left and not store.flush(SHIP_S):
        before, left = left, store.outbox_depth
        if left >= before:
            return left
    return 0


def _report(settings: Settings, tallies: list[Tally], waiting: int, *, once: bool) -> int:
    fields = ("files", "lines", "said", "copied", "bad", "anew", "failed")
    total = {name: sum(getattr(tally, name) for tally in tallies) for name in fields}
    conversations = len(set[str]().union(*(tally.conversations for tally in tallies)))
    text = f"{count_text(total['lines'], 'line')} read, {count_text(total['said'], 'new message')}"
    if conversations:
        text += f" of {count_text(conversations, 'session')}"
    more = [count_text(total["files"], "new file")] if total["files"] else []
    more += [count_text(total["anew"], "file written anew", "files written anew")] if total["anew"] else []
    text = "; ".join([text, *more])
    settings.show.result(text, total | {"sessions": conversations, "outbox": waiting})
    if waiting:
        settings.show.note(f"not at the hub yet: {count_text(waiting, 'record')}")
    for number, one, many in (
        (total["bad"], "line could not be read", "lines could not be read"),
        (total["failed"], "file or folder could not be read", "files or folders could not be read"),
    ):
        if number:
            settings.show.warn(count_text(number, one, many), hint="each is named above; holdfast follow --list")
    return shell.PARTIAL if once and (total["bad"] or total["failed"]) else 0


def _list(settings: Settings, tool: str | None) -> int:
    from holdfast.cli.following.ledger import Ledger

    found: list[tuple[str, Head]] = []
    with settings.directory() as directory:
        agents = [settings.agent] if settings.agent else directory.agents()
        for agent in agents:
            with settings.open_store(agent=agent, hub=False) as store:
                ledger = Ledger(store)
                heads = (ledger.head(fid) for fid in ledger.files())
                found += [(agent, head[0]) for head in heads if head and tool in (None, head[0].tool)]
    found.sort(key=lambda each: (each[1].last, each[1].path))
    documents = [_document(agent, head) for agent, head in found]
    if settings.as_json:
        settings.show.document({"files": documents})
        return 0
    if not documents:
        settings.show.note("nothing is followed yet")
        return 0
    rows = []
    for each in documents:
        state = each["state"] if not each["behind"] else f"{size_text(each['behind'])} behind"
        rows.append((each["agent"], each["tool"], each["last"], each["lines"], each["bad"] or "", state, each["path"]))
    settings.show.table(("agent", "tool", "last", "lines", "bad", "state", "path"), rows)
    for each in documents:
        for line, why in each["why"]:
            settings.show.complain(safe(f"{each['path']}:{line}: {why}"))
    return 0


def _document(agent: str, head: Head) -> dict[str, Any]:
    """A followed file as `--list` shows it, with what its file is like now."""
    from holdfast.cli.transcripts.tools import ROWS

    path = Path(head.root) / head.path
    names = ("tool", "path", "session", "conversation", "title", "lines", "said", "copied", "bad", "first", "last")
    told = {"agent": agent, **{name: getattr(head, name) for name in names}, "bytes": head.end}
    if head.kind == ROWS:
        there = not head.gone and path.parent.exists()
        state = "gone" if not there else "read" if head.mark else "at work"
        return {**told, "state": state, "behind": 0, "why": head.why}
    if not path.parent.is_dir():
        path = Path(head.root) / head.path.partition("/")[2]  # a folder that stands for the tool's own
    state, behind = "gone", 0
    packed = Path(f"{path}.zst")
    if path.exists():
        status = path.stat()
        behind = max(0, status.st_size - head.end)
        state = "read" if status.st_size == head.end else "shorter" if status.st_size < head.end else "behind"
    elif packed.exists():
        state = "packed"
    return {**told, "state": state, "behind": behind, "why": head.why}

"""Commands for sessions: which there are, what was said in one, and its tool's own files back."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from holdfast.cli import shell
from holdfast.cli.settings import Settings
from holdfast.cli.show import count_text, safe, size_text, value_text
from holdfast.disk import is_stream
from holdfast.errors import HubUnavailable, NotFound, UsageError

if TYPE_CHECKING:
    from holdfast.cli.following.ledger import Ledger

FOUND_MAX: Final = 10_000
"""So many of the hub's sessions are looked through for one that is named by its tool's id."""
PAGE: Final = 500
SHOWN_CHARS: Final = 4_000
_SHORTEST: Final = 6
"""Letters of an id that are enough to name a session by its beginning."""

Session = dict[str, Any]
"""A session as it is told: id, agent, status, its times, metadata; `here` if its log is on this machine."""


@shell.room("sessions")
def sessions_command() -> None:
    """Sessions: conversations that `holdfast follow` keeps, or that the hub's storage service holds.

    With a hub those of every machine, without one those that are followed on this machine.
    """


@sessions_command.command("ls")
@click.option("--tool", help="only this one's: claude-code, codex, gemini-cli, opencode, pi")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="the newest so many")
@click.option("--local", is_flag=True, help="only what is followed on this machine; asks no hub")
@click.pass_obj
def ls_command(settings: Settings, tool: str | None, limit: int, local: bool) -> None:
    """List sessions, the one that was written last at the end.

    \b
      holdfast sessions ls
      holdfast sessions ls --tool codex --agent desk
    """
    found = [each for each in _all(settings, local) if tool in (None, each["metadata"].get("tool"))]
    found = sorted(found, key=lambda each: (each["updated_at"], each["id"]))[-limit:]
    if settings.as_json:
        settings.show.document({"sessions": found})
        return
    if not found:
        settings.show.note("no sessions")
        return
    rows = []
    for each in found:
        about = each["metadata"]
        name = about.get("session") or each["id"]
        rows.append((each["updated_at"][:19], each["agent"], about.get("tool", ""), name, about.get("title", "")))
    settings.show.table(("last", "agent", "tool", "session", "title"), rows)


@sessions_command.command("show")
@click.argument("session")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="the newest so many messages")
@click.option("--local", is_flag=True, help="asks no hub")
@click.pass_obj
def show_command(settings: Settings, session: str, limit: int, local: bool) -> None:
    """Read SESSION: its id, or the tool's own id of it, or how that begins. The newest messages, oldest first.

    \b
      holdfast sessions show 0b2f7c1e
      holdfast sessions show 0b2f7c1e --limit 500 --json
    """
    chosen = _named(settings, session, local)
    messages = list(_messages(settings, chosen, limit))
    if settings.as_json:
        settings.show.document({"session": chosen, "messages": messages})
        return
    show = settings.show
    about = chosen["metadata"]
    title = about.get("title") or about.get("session") or chosen["id"]
    show.line(show.paint(safe(f"{title}  ({chosen['agent']}, {chosen['id']})"), "bold"))
    if about.get("continues"):
        show.line(safe(f"goes on from {about['continues']}, which holds what was said before"))
    for each in messages:
        metadata = each["metadata"] if isinstance(each["metadata"], dict) else {}
        kind = metadata.get("kind")
        who = f"{each['role'] or 'unknown'}" + (f", {kind}" if kind else "")
        show.line(f"{each['timestamp'][:19]}  {show.paint(safe(who), 'bold')}")
        content = each["content"]
        text = content if isinstance(content, str) else value_text(content, SHOWN_CHARS)
        for line in text[:SHOWN_CHARS].splitlines() or [""]:
            show.line(f"    {safe(line)}")


@sessions_command.command("export")
@click.argument("session")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="a file for the transcript; else standard output"
)
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    help="the tool's folder, such as ~/.claude: every file goes to its place",
)
@click.option("--project", metavar="DIR", help="with --into: the folder that the agent is to work in here")
@click.option("--at", metavar="TIME", help="as it was then: ISO 8601, or seconds since 1970")
@click.option("--force", is_flag=True, help="replace files that hold something else")
@click.option("--local", is_flag=True, help="asks no hub")
@click.pass_obj
def export_command(
    settings: Settings,
    session: str,
    out: Path | None,
    into: Path | None,
    project: str | None,
    at: str | None,
    force: bool,
    local: bool,
) -> None:
    """Write the tool's own files of SESSION, byte for byte as the tool wrote them, so that it can go on with them.

    With --into all files of the session are put where the tool keeps them, those of its subagents too; else its
    transcript alone is written, or of opencode, which has a database, what its own `import` takes. A file that is
    there already and holds the same, or the same and more, is left alone.

    \b
      holdfast sessions export 0b2f7c1e --into ~/.claude --project ~/src/shop && claude --resume 0b2f7c1e-…
      holdfast sessions export 0b2f7c1e --out session.jsonl
      holdfast sessions export ses_1f2c --out session.json && opencode import session.json
    """
    from holdfast.cli.following.giving import files_of, give, pour, target

    if into is not None and out is not None:
        raise UsageError("--into and --out exclude each other", hint="--into puts every file in its place")
    if project is not None and into is None:
        raise UsageError(
            "--project is for --into", hint="holdfast sessions export SESSION --into ~/.claude --project DIR"
        )
    chosen = _named(settings, session, local)
    about = chosen["metadata"]
    if not about.get("tool") or not about.get("group"):
        raise UsageError(
            f"{chosen['id']} is no tool's session", hint="hub.sessions.export writes what the hub holds of it"
        )
    with _ledger(settings, chosen) as ledger:
        files = files_of(ledger, about["group"], at)
        if into is None:
            # A session's own name may be that of one of its subagents.
            fid, head = next((each for each in files if each[0] == about["file"]), files[0])
            if out is None:
                sys.stdout.flush()
                pour(ledger, fid, head, sys.stdout.buffer, at)
                return
            if is_stream(out):
                with out.open("ab") as stream:
                    pour(ledger, fid, head, stream)
                return
            wanted = [(fid, head, out)]
        else:
            place = None if project is None else str(Path(project).expanduser().absolute())
            folder = into.expanduser().absolute()
            wanted = [(fid, head, target(head, folder, place)) for fid, head in files]
        given = give(ledger, wanted, force=force, at=at)
    size = sum(each.size for each in given)
    text = f"{count_text(len(given), 'file')}, {size_text(size)}, of {about['tool']}'s session {about['session']}"
    told = [{"path": str(each.path), "size": each.size, "there": each.there, "newer": each.newer} for each in given]
    settings.show.result(f"wrote {text}", {"files": told, "session": about["session"], "agent": chosen["agent"]})
    for each in given:
        if each.newer and not force:
            settings.show.note(f"{each.path} goes on behind what was kept: left as it is")


def _all(settings: Settings, local: bool) -> Iterator[Session]:
    """Every session that can be asked for: first those of this machine's agents."""
    seen: set[str] = set()
    for each in _here(settings):
        seen.add(each["id"])
        yield each
    if local or settings.hub_url is None:
        return
    from holdfast.node.hub import Hub

    try:
        with Hub(settings.hub_urls, settings.token_path if settings.token else None) as hub:
            for found in hub.sessions.find(agent=settings.agent, limit=FOUND_MAX):
                if found.id not in seen:
                    yield {
                        "id": found.id,
                        "agent": found.agent_name,
                        "status": found.status,
                        "created_at": found.created_at,
                        "updated_at": found.updated_at,
                        "metadata": found.metadata,
                        "here": False,
                    }
    except HubUnavailable as error:
        settings.show.warn("the hub does not answer: only what this machine has", hint=error.hint)


def _here(settings: Settings) -> Iterator[Session]:
    from holdfast.cli.following.ledger import Ledger
    from holdfast.cli.following.spoken import about_session

    with settings.directory() as directory:
        agents = directory.agents()
    for agent in agents if settings.agent is None else [a for a in agents if a == settings.agent]:
        with settings.open_store(agent=agent, hub=False) as store:
            ledger = Ledger(store)
            for fid in ledger.files():
                found = ledger.head(fid)
                if found is None or not found[0].conversation or not found[0].said + found[0].copied:
                    continue
                told = about_session(found[0], fid, agent)
                told["agent"] = told.pop("agent_name")
                yield {"id": found[0].conversation, **told, "here": True}


def _named(settings: Settings, name: str, local: bool) -> Session:
    """The session of a name: of several copies of one, that which was written last.

    Raises:
        NotFound: there is none.
        UsageError: the name is the beginning of several.
    """
    exact: list[Session] = []
    begun: list[Session] = []
    for each in _all(settings, local):
        known = (each["id"], str(each["metadata"].get("session", "")))
        if each["id"] == name:
            return each
        # Its subagents have the session's id too: the transcript itself has no parent of that name.
        own = each["metadata"].get("parent") != known[1]
        if known[1] == name and own:
            exact.append(each)
        elif len(name) >= _SHORTEST and own and any(part.startswith(name) for part in known):
            begun.append(each)
    found = exact or begun
    if not found:
        raise NotFound(f"there is no session {name!r:.140}", hint="holdfast sessions ls shows what there is")
    if len({(each["metadata"].get("tool"), each["metadata"].get("session") or each["id"]) for each in found}) > 1:
        names = ", ".join(sorted(str(each["metadata"].get("session") or each["id"]) for each in found)[:5])
        raise UsageError(f"several sessions begin with {name!r}: {names}", hint="say more of the id")
    return max(found, key=lambda each: (each["metadata"].get("bytes", 0), each["updated_at"]))


@contextlib.contextmanager
def _ledger(settings: Settings, chosen: Session) -> Iterator[Ledger]:
    from holdfast.cli.following.ledger import Ledger
    from holdfast.node.hub import Hub

    agent = chosen["agent"]
    if not chosen["here"] and agent == settings.me:
        # Another machine's agent of the same name: to a store that would be its own.
        with Hub(settings.hub_urls, settings.token_path if settings.token else None) as hub:
            yield Ledger(hub, agent)
        return
    with settings.open_store(agent=agent if chosen["here"] else settings.me) as store:
        yield Ledger(store, agent)


def _messages(settings: Settings, chosen: Session, limit: int) -> Iterator[dict[str, Any]]:
    """The newest messages of a session, oldest first."""
    from holdfast.clock import iso
    from holdfast.collections import sessions as parts
    from holdfast.log.marks import SESSIONS

    if not chosen["here"]:
        from holdfast.node.hub import Hub

        with Hub(settings.hub_urls, settings.token_path if settings.token else None) as hub:
            for said in reversed(hub.sessions.messages(chosen["id"], newest_first=True, limit=limit)):
                yield _told(said)
        return
    prefix, after = parts.key_of(chosen["id"], parts.MESSAGE), ""
    newest: list[tuple[int, dict[str, Any]]] = []
    with settings.open_store(agent=chosen["agent"]) as store:
        while keys := store.keys(prefix, collection=SESSIONS, after=after, limit=PAGE):
            after = keys[-1]
            for key in keys:
                (version,) = store.history(key, collection=SESSIONS, limit=1)
                told = version.value if isinstance(version.value, dict) else {}
                message: dict[str, Any] = {"id": parts.id_of(key), "session_id": chosen["id"], "role": None}
                message |= {"content": None, "timestamp": iso(round(version.time * 1000)), "metadata": {}}
                newest.append((version.seq, message | told))
            newest = sorted(newest, key=lambda each: each[0])[-limit:]
    yield from (told for _, told in newest)


def _told(message: Any) -> dict[str, Any]:
    import msgspec

    told: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(message))
    return told

"""Commands about who may ask a hub. They work on its directory or its database, also while it runs."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from holdfast.cli import shell, values
from holdfast.cli.settings import Settings, configured
from holdfast.cli.show import clock_text, count_text
from holdfast.clock import SYSTEM, iso
from holdfast.errors import NoStore, UsageError

if TYPE_CHECKING:
    from holdfast.hub.tokens import Token, TokenStore

_SCOPES: Final = "records:read, records:write, records:append, sql:read, inbox:act, metrics:read, admin"
_OPTIONS: Final = (
    click.option("--data", type=click.Path(path_type=Path), default=configured("serve.data", unless="database"),
                 help="its directory (hub, unless there is a database)"),
    click.option("--database", metavar="URL", default=configured("serve.database", unless="data"),
                 help="its PostgreSQL database (or HOLDFAST_DATABASE)"),
)  # fmt: skip


def where(command: Any) -> Any:
    """Lets a command be told whose tokens it is about."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@shell.room("token")
def token_command() -> None:
    """Who may ask a hub. A hub for which a token was ever made wants one from everybody, on loopback too.

    The commands work on the hub's directory or database, also while it runs: it follows within a second.
    """


@token_command.command("create")
@where
@click.option("--kind", required=True, type=click.Choice(["node", "agent", "service", "person"]), help="what shows it")
@click.option("--name", required=True, help="whose it is; an agent's token writes as this agent, and as no other")
@click.option("--scope", "scopes", multiple=True, help=f"what it may do; repeat for several: {_SCOPES}")
@click.option("--agent", "agents", multiple=True, metavar="GLOB", help="agents that it may write as")
@click.option(
    "--collection", "collections", multiple=True, metavar="GLOB", help="collections that it may see and write"
)
@click.option("--expires", metavar="TIME", help="when it ends: 90d, 12h, or a date; never unless said")
@click.option("--note", default="", help="what for")
@click.pass_obj
def create_command(
    settings: Settings, /, data: Path | None, database: str | None, expires: str | None, **wish: Any
) -> None:
    """Make a token and print it, this once: only its hash is kept.

    Without --scope, nodes and agents may read, write and append, services read, people read and act on the inbox.

    \b
      holdfast token create --kind agent --name recruiter-1 > recruiter-1.token
      holdfast token create --kind node --name laptop --agent 'recruiter-*' --expires 90d > laptop.token
      holdfast token create --kind service --name dashboard --collection 'public/*'
    """
    from holdfast.hub import tokens

    ends_ms = None if expires is None else round(values.moment(expires) * 1000)
    wish["collections"] = wish["collections"] or ("*",)
    if settings.agent:
        raise UsageError("--agent before the command's name is another option", hint="token create … --agent GLOB")
    with store_of(data, database, make=True) as store:
        made, text = tokens.create(store, tokens.Wish(ends_ms=ends_ms, **wish))
    if settings.as_json:
        settings.show.document({**_shown(made), "token": text})
    else:
        settings.show.line(text)
    ends = f"until {clock_text(made.ends_ms / 1000)}" if made.ends_ms else "until it is revoked"
    settings.show.note(f"token {made.id} of {made.kind} {made.name}: {', '.join(made.scopes)}; {ends}")
    _look_at(settings)


@token_command.command("ls")
@where
@click.option("--all", "every", is_flag=True, help="also what has expired or was revoked")
@click.pass_obj
def ls_command(settings: Settings, data: Path | None, database: str | None, every: bool) -> None:
    """List a hub's tokens: whose they are and what they may do. Secrets are not there to be listed."""
    with store_of(data, database) as store:
        found = [token for token in store.every() if every or token.state(SYSTEM.now_ms()) == "valid"]
    if settings.as_json:
        settings.show.document({"tokens": [_shown(token) for token in found]})
        return
    rows = [
        (
            token.id,
            token.kind,
            token.name,
            token.state(SYSTEM.now_ms()),
            clock_text(token.ends_ms / 1000) if token.ends_ms else "never",
            clock_text(token.used_ms / 1000) if token.used_ms else "never",
            ",".join(token.scopes),
            ",".join(token.agents) or "-",
            ",".join(token.collections),
        )
        for token in found
    ]
    settings.show.table(("ID", "KIND", "NAME", "STATE", "ENDS", "USED", "SCOPES", "WRITES AS", "COLLECTIONS"), rows)


@token_command.command("revoke")
@where
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.pass_obj
def revoke_command(settings: Settings, data: Path | None, database: str | None, ids: tuple[str, ...]) -> None:
    """End tokens for good, by their ids: a running hub refuses them within a second, and ends their feeds."""
    from holdfast.hub import tokens

    with store_of(data, database) as store:
        for token_id in ids:
            found, done = tokens.revoke(store, token_id)
            said = "revoked" if done else "was revoked before"
            settings.show.result(f"{said}: token {found.id} of {found.kind} {found.name}", _shown(found))


@token_command.command("export")
@where
@click.pass_obj
def export_command(settings: Settings, data: Path | None, database: str | None) -> None:
    """Write all tokens as JSON Lines, for a standby: hashes and rights, and no secrets.

    \b
      holdfast token export --data /srv/holdfast | ssh standby holdfast token import --data /srv/holdfast -
    """
    import msgspec

    with store_of(data, database) as store:
        for token in store.every():
            settings.show.raw(msgspec.json.encode(token) + b"\n")


@token_command.command("import")
@where
@click.argument("file", type=click.File("rb"))
@click.pass_obj
def import_command(settings: Settings, data: Path | None, database: str | None, file: Any) -> None:
    """Take over another hub's tokens, so that nodes which fail over are known here too; revocations as well."""
    import msgspec

    from holdfast.hub import tokens

    try:
        found = msgspec.json.Decoder(tokens.Token).decode_lines(file.read())
    except msgspec.MsgspecError as error:
        raise UsageError(f"not what export writes: {error}", hint="holdfast token export") from error
    with store_of(data, database, make=True) as store:
        new, ended = tokens.adopt(store, found)
    told = {"tokens": len(found), "new": new, "revoked": ended}
    settings.show.result(f"{count_text(new, 'new token')}, {ended} revoked, of {len(found)}", told)


@contextlib.contextmanager
def store_of(data: Path | None, database: str | None, *, make: bool = False) -> Iterator[TokenStore]:
    """The tokens of the hub in a directory or a database, for as long as the block lasts.

    Args:
        data: its directory; None: the usual one.
        database: its address in place of that.
        make: whether there may be none yet.

    Raises:
        NoStore: there are none.
        UsageError: both were given, or the directory is a node's.
    """
    from holdfast.hub.tokens import SqliteTokens

    if database is not None:
        if data is not None:
            raise UsageError("a directory and a database for this hub", hint="give one of them")
        from holdfast.hub.tokens_database import tokens_of

        with tokens_of(database, make=make) as shared:
            yield shared
        return
    data = (data or Path("hub")).expanduser()
    if (data / "config.json").exists():
        raise UsageError(f"{data} is a node's directory", hint="--data DIR names the hub's")
    if not make and not (data / "auth.db").exists():
        raise NoStore(f"no tokens at {data}", hint="--data DIR names the hub's directory, as for holdfast serve")
    if not data.exists():
        data.mkdir(mode=0o700, parents=True)
    store = SqliteTokens(data)
    try:
        yield store
    finally:
        store.close()


def _shown(token: Token) -> dict[str, Any]:
    """A token as programs get it: everything but its hash."""

    def time(ms: int | None) -> str | None:
        return None if ms is None else iso(ms)

    return {
        "id": token.id,
        "kind": token.kind,
        "name": token.name,
        "state": token.state(SYSTEM.now_ms()),
        "scopes": token.scopes,
        "agents": token.agents,
        "collections": token.collections,
        "note": token.note,
        "made": time(token.made_ms),
        "ends": time(token.ends_ms),
        "revoked": time(token.revoked_ms),
        "used": time(token.used_ms),
    }


def _look_at(settings: Settings) -> None:
    """Warns when the secret has just been written where others can read it."""
    with contextlib.suppress(OSError, ValueError):
        mode = os.fstat(sys.stdout.fileno()).st_mode
        if stat.S_ISREG(mode) and mode & (stat.S_IRWXG | stat.S_IRWXO):
            settings.show.warn(
                "others may read the file that this token went to", hint="chmod 600, or umask 077 before"
            )

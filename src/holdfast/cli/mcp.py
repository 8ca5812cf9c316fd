"""`holdfast mcp`: memory for assistants that speak MCP, started by them or served to several."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from holdfast.cli import lasting, shell
from holdfast.cli.settings import Settings
from holdfast.cli.setup import made_store
from holdfast.cli.shell import PARTIAL
from holdfast.cli.show import count_text
from holdfast.disk import replacing
from holdfast.errors import UsageError

if TYPE_CHECKING:
    from holdfast.integrations.mcp_server.desk import Desks
    from holdfast.node.store import Store

TOKENS: Final = "mcp"
"""The folder of a store where the tokens of its server are."""
_HTTP_ONLY: Final = ("host", "port", "tokens", "ready_file", "tls_cert", "tls_key", "tls_terminated", "plain_http",
                     "hosts", "rate")  # fmt: skip
SHIP_S: Final = 10.0


@shell.command("mcp")
@click.option(
    "--http", is_flag=True, help="serve several clients over HTTP, instead of one at standard input and output"
)
@click.option("--host", default="127.0.0.1", show_default=True, help="beyond loopback it needs tokens and TLS")
@click.option("--port", default=8085, show_default=True, type=click.IntRange(0, 65535), help="0 picks a free one")
@click.option("--tokens", type=click.Path(path_type=Path), metavar="DIR",
              help="whose tokens it knows: the hub's directory, or one of its own (mcp, in the store)")  # fmt: skip
@click.option("--tls-cert", type=click.Path(), help="its certificate chain, in PEM")
@click.option("--tls-key", type=click.Path(), help="the certificate's private key, if not in the same file")
@click.option("--tls-terminated", is_flag=True, help="a proxy before it ends TLS")
@click.option("--plain-http", is_flag=True, help="no TLS, in a network where every machine is trusted")
@click.option("--host-name", "hosts", multiple=True, metavar="NAME", help="a name it is asked by; repeat for several")
@click.option("--rate", type=click.FloatRange(0), default=0.0, help="requests a second that each token may make")
@click.option("--ready-file", type=click.Path(path_type=Path), help="written with the address once it listens")
@click.option("--tools", "themes", multiple=True, metavar="THEME",
              help="only these: memory, graph, mail, artifacts; repeat for several")  # fmt: skip
@click.option("--read-only", is_flag=True, help="only tools that change nothing")
@click.option("--import-memory", type=click.File("rb"), metavar="FILE",
              help="read the file of the reference memory server into the graph, and end")  # fmt: skip
@click.option("--export-memory", type=click.Path(path_type=Path), metavar="FILE",
              help="write the graph as such a file (- for standard output), and end")  # fmt: skip
@click.pass_context
def mcp_command(context: click.Context, /, **given: Any) -> int | None:
    """Run an MCP server: memory for Claude, Cursor, VS Code, Codex and any other assistant, the same on all machines.

    Assistants start it by themselves, at standard input and output; docs/mcp.md has what goes into their settings. It
    makes the store, if there is none. Without a hub it works on this machine; with one it shares what is remembered.
    It has the nine tools of the reference memory server, and remember, recall, search, history, inbox, send and
    artifact tools.

    \b
      holdfast mcp
      holdfast mcp --hub http://10.0.0.42:8084 --agent claude-laptop
      holdfast mcp --import-memory ~/memory.jsonl
      holdfast mcp --http --port 8085
      holdfast token create --data ~/.local/share/holdfast/mcp --kind agent --name cursor
    """
    settings: Settings = context.obj
    if given["import_memory"] is not None and given["export_memory"] is not None:
        raise UsageError("an import and an export at once", hint="one after the other")
    if given["import_memory"] is not None:
        return _take(settings, given["import_memory"].read())
    if given["export_memory"] is not None:
        _give(settings, given["export_memory"])
        return None
    if not given["http"] and (named := _said(context, _HTTP_ONLY)):
        raise UsageError(f"{named} is for a server over HTTP", hint="holdfast mcp --http")
    return _serve(settings, given)


def _serve(settings: Settings, given: dict[str, Any]) -> int | None:
    from holdfast import __version__
    from holdfast.integrations.mcp_server.server import TOOLS, Protocol
    from holdfast.integrations.mcp_server.tools import chosen

    lasting()
    level = logging.INFO if settings.verbose else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    tools = chosen(TOOLS, given["themes"], read_only=given["read_only"])
    with _desks(settings) as desks:
        protocol = Protocol(desks, tools, __version__)
        if not given["http"]:
            from holdfast.integrations.mcp_server import stdio

            desks.desk()  # what is wrong with the store is told before a client waits for an answer
            stdio.serve(protocol, desks)
            return None
        from holdfast.hub.options import Options
        from holdfast.integrations.mcp_server import http

        same = ("tls_cert", "tls_key", "tls_terminated", "plain_http", "hosts", "rate")
        where = http.Listening(
            host=given["host"],
            port=given["port"],
            tokens=(given["tokens"] or settings.path / TOKENS).expanduser(),
            options=Options(**{name: given[name] for name in same}),
            ready_file=given["ready_file"],
        )
        http.serve(protocol, desks, where, lambda url: settings.show.note(f"holdfast mcp at {url}, as {desks.agent}"))
    return None


def _take(settings: Settings, data: bytes) -> int:
    from holdfast.integrations.mcp_server.jsonl import take

    with _desks(settings) as desks:
        desk = desks.desk()
        taken = take(desk.graph, data)
        shipped = desk.store.flush(SHIP_S)
    new = f"{taken.entities} new entities, {taken.relations} new relations, {taken.observations} new observations"
    told = {
        "entities": taken.entities,
        "relations": taken.relations,
        "observations": taken.observations,
        "already": taken.already,
        "bad_lines": taken.bad,
    }
    settings.show.result(f"{new}; {taken.already} were there{'' if shipped else '; not at the hub yet'}", told)
    if taken.bad:
        lines = ", ".join(map(str, taken.bad[:10])) + (" …" if len(taken.bad) > 10 else "")
        settings.show.warn(f"{count_text(len(taken.bad), 'line')} of the file could not be read: {lines}")
        return PARTIAL
    return 0


def _give(settings: Settings, path: Path) -> None:
    from holdfast.integrations.mcp_server.jsonl import lines
    from holdfast.integrations.mcp_server.reach import noting

    with _desks(settings) as desks:
        with noting() as missed:
            found = list(lines(desks.desk().graph))
        if missed:
            settings.show.warn(f"only what this machine knows: {missed[0]}", hint="again when the hub answers")
    if str(path) == "-":
        settings.show.raw(b"".join(found))
        return
    with replacing(path) as file:
        file.writelines(found)
    settings.show.result(f"{count_text(len(found), 'line')} in {path}", {"lines": len(found), "file": str(path)})


@contextmanager
def _desks(settings: Settings) -> Iterator[Desks]:
    """A desk for each agent of the store, which is made if it is missing."""
    from holdfast.cli.settings import CONFIG
    from holdfast.integrations.mcp_server.desk import Desks

    if not (settings.path / CONFIG).is_file():
        # The machine's own commands are not the assistant that happens to start first.
        named, settings.agent = settings.agent, None
        made_store(settings, None)
        settings.agent = named
        settings.show.note(f"made the store at {settings.path}, agent {settings.me}")

    def opened(agent: str) -> Store:
        return settings.open_store(agent=agent)

    desks = Desks(opened, settings.who)
    try:
        yield desks
    finally:
        desks.close()


def _said(context: click.Context, names: tuple[str, ...]) -> str:
    """The first of these options that the command line names; empty: none."""
    from click.core import ParameterSource

    for param in context.command.params:
        if param.name in names and context.get_parameter_source(param.name) is ParameterSource.COMMANDLINE:
            return param.opts[0]
    return ""

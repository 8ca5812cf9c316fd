"""Commands that set things up: init, serve, version, completion."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import click

from holdfast.cli import lasting, shell
from holdfast.cli.settings import Settings
from holdfast.errors import UsageError


@shell.command("init")
@click.argument("path", required=False)
@click.option("--level", type=click.Choice(["basic", "advanced", "critical"]), help="what a returned write survives")
@click.pass_obj
def init_command(settings: Settings, path: str | None, level: str | None) -> None:
    """Make a store on this machine, or change what an existing one remembers.

    A store is one directory: the node's keys, each agent's log, and which hub to ship to. Running init again keeps
    everything and changes only what you name.

    \b
      holdfast init
      holdfast init --agent recruiter-1 --hub http://10.0.0.42:8084 --token-file ~/.holdfast-token
      holdfast init --hub http://10.0.0.42:8084 --hub http://10.0.0.43:8084
    """
    from holdfast.node.directory import Directory, check_agent, write_config

    if path is not None:
        settings.store = path
    if settings.agent is not None:
        check_agent(settings.agent)
    for url in settings.hub:
        _check_url(url)
    home = settings.path
    made = Directory.init(home, level=level or "advanced")
    config = dict(settings.config)
    changes: dict[str, Any] = {}
    if settings.agent or "agent" not in config:
        changes["agent"] = settings.agent or agent_named_after(platform.node())
    if settings.hub:
        changes["hubs"] = list(dict.fromkeys(settings.hub))
    if settings.token_file:
        changes["token_file"] = str(Path(settings.token_file).expanduser().absolute())
    if level:
        changes["level"] = level
    config |= changes
    write_config(home, config)
    hubs = config.get("hubs") or []
    if settings.as_json:
        told = {"store": str(home), "made": made, "agent": config["agent"], "hubs": hubs, "level": config["level"]}
        settings.show.document(told)
        return
    settings.show.line(f"{'made' if made else 'kept'} the store at {home}")
    where = f"{'hub' if len(hubs) == 1 else 'hubs'} {', '.join(hubs)}" if hubs else "no hub"
    settings.show.line(f"agent {config['agent']}, level {config['level']}, {where}")


def agent_named_after(machine: str) -> str:
    """A name for the agent of a machine: keys are an agent's own, so two machines should not both be "main"."""
    from holdfast.node.batch import CAS_AGENT

    name = re.sub(r"[^a-z0-9-]+", "-", machine.lower().partition(".")[0]).strip("-") or "main"
    return f"{name}-1" if name == CAS_AGENT else name


def _check_url(url: str) -> None:
    if not re.match(r"https?://[^/\s]+", url):
        raise UsageError(f"not a hub's address: {url!r}", hint="such as http://10.0.0.42:8084")


@shell.command("serve")
@click.option("--data", type=click.Path(path_type=Path), help="its directory (hub, unless there is a database)")
@click.option("--database", envvar="HOLDFAST_DATABASE", metavar="URL",
              help="a PostgreSQL database in place of a directory (or HOLDFAST_DATABASE)")  # fmt: skip
@click.option("--host", default="127.0.0.1", show_default=True, help="beyond loopback it needs tokens and TLS")
@click.option("--port", default=8084, show_default=True, type=click.IntRange(0, 65535), help="0 picks a free one")
@click.option("--ready-file", type=click.Path(path_type=Path), help="written with the address once it listens")
@click.option("--settle", type=click.Choice(["acked", "backups"]), default="backups", show_default=True,
              help="when nodes may drop what they shipped")  # fmt: skip
@click.option("--follow", metavar="URL", default="", help="the hub whose records this one is to hold as well")
@click.option("--follow-token-file", "follow_token", type=click.Path(path_type=Path),
              help="what that hub knows this one by")  # fmt: skip
@click.option("--follow-key", metavar="HEX", default="", help="that hub's key; unsaid: the first that it shows")
@click.option("--cache", default="", metavar="URL", help="a Redis for the TTL cache, in place of the hub's file")
@click.option("--blobs", default="", metavar="ADDRESS",
              help="an object store for payloads above 64 KiB: s3://bucket, azure://container, file:DIR")  # fmt: skip
@click.option("--backup", envvar="HOLDFAST_BACKUP", default="", metavar="ADDRESS",
              help="an object store for its backups, which it makes and drills by itself")  # fmt: skip
@click.option("--backup-every", default="1h", show_default=True, metavar="TIME",
              help="how often; 0: others make them, and it only lets nodes evict what they hold")  # fmt: skip
@click.option("--backup-key", default="", metavar="FILE", help="the keys that seal its backups")
@click.option("--metric-names", type=click.Choice(["all", "own"]), default="all", show_default=True,
              help="own: /metrics without the names of the earlier systems")  # fmt: skip
@click.option("--log-format", type=click.Choice(["json", "text"]), help="else text on a terminal, and JSON elsewhere")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]),
              help="else warning, with -v info; debug has a line for each request")  # fmt: skip
@click.option("--print-unit", is_flag=True, help="print the unit for systemd that would run it so, and end")
@click.option("--tls-cert", type=click.Path(), help="its certificate chain, in PEM; SIGHUP reads it again")
@click.option("--tls-key", type=click.Path(), help="the certificate's private key, if not in the same file")
@click.option("--tls-terminated", is_flag=True, help="a proxy before it ends TLS")
@click.option("--plain-http", is_flag=True, help="no TLS, in a network where every machine is trusted")
@click.option("--host-name", "hosts", multiple=True, metavar="NAME", help="a name it is asked by; repeat for several")
@click.option("--rate", type=click.FloatRange(0), default=0.0, help="requests a second that each token may make")
@click.pass_context
def serve_command(
    context: click.Context,
    /,
    data: Path | None,
    host: str,
    port: int,
    ready_file: Path | None,
    metric_names: str,
    log_format: Literal["json", "text"] | None,
    log_level: str | None,
    print_unit: bool,
    **how: Any,
) -> None:
    """Run a hub: the place where every machine's records meet.

    It ends within three seconds of SIGTERM or Ctrl-C. Killed outright, it loses nothing that it acknowledged. Any
    number of processes may serve one database; keep its password in HOLDFAST_DATABASE or ~/.pgpass.

    \b
      holdfast serve --data /srv/holdfast
      holdfast token create --data /srv/holdfast --kind person --name me --scope admin > me.token
      holdfast serve --data /srv/holdfast --host 0.0.0.0 --tls-cert hub.pem --tls-key hub.key
      holdfast serve --data /srv/standby --follow http://10.0.0.42:8084 --follow-token-file /etc/holdfast/token
      holdfast serve --print-unit > /etc/systemd/system/holdfast-hub.service
      holdfast serve --database postgresql://holdfast@db.local/holdfast
    """
    settings: Settings = context.obj
    if print_unit:
        from holdfast.hub.systemd import program_here, unit

        settings.show.raw(unit(_for_unit(context), program=program_here()).encode())
        return
    if how["follow"]:
        _check_url(how["follow"])
    elif how["follow_token"] or how["follow_key"]:
        raise UsageError("no hub to follow was named", hint="--follow URL")
    if data is None and how["database"] is None:
        data = Path("hub")
    from holdfast.hub.logs import configure
    from holdfast.hub.options import Options
    from holdfast.hub.serve import serve

    lasting()
    configure(log_format, log_level or ("info" if settings.verbose else "warning"))
    # Not the one that init wrote down: that is how a store on this machine asks its hub, and no operator's.
    told = settings.token_file or os.environ.get("HOLDFAST_TOKEN_FILE")
    how["backup_every"] = _seconds(how["backup_every"])
    options = Options(token=settings.token if told else None, seed_metrics=metric_names == "all", **how)
    serve(data, host, port, options=options, ready_file=ready_file)


def _seconds(text: str) -> float:
    from holdfast.cli.backup import milliseconds

    return 0.0 if text == "0" else milliseconds(text) / 1000


def _for_unit(context: click.Context) -> list[str]:
    """The options of this command line that a unit for systemd is to repeat.

    It listens to all unless one says where, and then without TLS unless one says how.
    """
    from click.core import ParameterSource

    words: list[str] = []
    for param in context.command.params:
        name = param.name or ""
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name in context.params and name not in ("data", "print_unit", "ready_file", "log_format"):
            value = context.params[name]
            for each in value if isinstance(value, tuple) else (value,):
                words += [param.opts[0]] if each is True else [param.opts[0], str(each)]
    if context.get_parameter_source("host") is ParameterSource.COMMANDLINE:
        return words
    safe = {"--tls-cert", "--tls-terminated", "--plain-http"}.intersection(words)
    return ["--host", "0.0.0.0", *([] if safe else ["--plain-http"]), *words]


@shell.command("version")
@click.pass_obj
def version_command(settings: Settings) -> None:
    """Show the versions of holdfast and of what it stands on."""
    from holdfast import __version__
    from holdfast.sqlite import apsw_version
    from holdfast.wire import PROTOCOL

    told: dict[str, Any] = {
        "holdfast": __version__,
        "protocol": PROTOCOL,
        "python": platform.python_version(),
        "sqlite": ".".join(map(str, apsw_version)),
    }
    told |= _installed(("click", "cryptography", "msgspec", "zstandard", "starlette", "uvicorn"))
    if settings.as_json:
        settings.show.document(told)
        return
    for name, number in told.items():
        settings.show.line(f"{name} {number}")


def _installed(names: Sequence[str]) -> dict[str, str]:
    """The versions of the packages that are installed, by the names of their folders (importlib.metadata: 35 ms)."""
    found: dict[str, str] = {}
    for folder in sys.path:
        with contextlib.suppress(OSError):
            for entry in os.listdir(folder or "."):
                name, dash, number = entry.removesuffix(".dist-info").partition("-")
                if dash and entry.endswith(".dist-info"):
                    found.setdefault(name, number)
    return {name: found[name] for name in names if name in found}


@shell.command("completion")
@click.argument("name", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_obj
def completion_command(settings: Settings, name: str) -> None:
    """Print the script that teaches a shell to complete holdfast's commands and options.

    \b
      holdfast completion bash > ~/.local/share/bash-completion/completions/holdfast
    """
    from click.shell_completion import get_completion_class

    from holdfast.cli.commands import COMMANDS

    made = get_completion_class(name)
    assert made is not None
    settings.show.line(made(COMMANDS, {}, "holdfast", "_HOLDFAST_COMPLETE").source())

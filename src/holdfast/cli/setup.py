"""Commands that set things up: init, version, completion."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from holdfast.cli import shell
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
    if path is not None:
        settings.store = path
    made, config = made_store(settings, level)
    home = settings.path
    hubs = config.get("hubs") or []
    level = level or config.get("level") or settings.level
    if settings.as_json:
        told = {"store": str(home), "made": made, "agent": config["agent"], "hubs": hubs, "level": level}
        settings.show.document(told)
        return
    settings.show.line(f"{'made' if made else 'kept'} the store at {home}")
    where = f"{'hub' if len(hubs) == 1 else 'hubs'} {', '.join(hubs)}" if hubs else "no hub"
    settings.show.line(f"agent {config['agent']}, level {level}, {where}")


def made_store(settings: Settings, level: str | None) -> tuple[bool, dict[str, Any]]:
    """Makes the store, or changes what an existing one remembers; whether it is new, and what it remembers now.

    Args:
        settings: of the command line; what it names is remembered.
        level: what a returned write survives; None: as it is.

    Raises:
        UsageError: an impossible name or address, or something else lies there.
    """
    from holdfast.node.configured import stored
    from holdfast.node.directory import Directory, check_agent, write_config

    if settings.agent is not None:
        check_agent(settings.agent)
    for url in settings.hub:
        check_url(url)
    home = settings.path
    made = Directory.init(home, level=level)
    config = stored(home)
    changes: dict[str, Any] = {}
    if settings.agent or "agent" not in config:
        known = settings.configuration.get("agent.id")
        changes["agent"] = settings.agent or known or agent_named_after(platform.node())
    if settings.hub:
        changes["hubs"] = list(dict.fromkeys(settings.hub))
    if settings.token_file:
        changes["token_file"] = str(Path(settings.token_file).expanduser().absolute())
    if level:
        changes["level"] = level
    config |= changes
    write_config(home, config)
    settings.read_configuration(anew=True)
    return made, config


def agent_named_after(machine: str) -> str:
    """A name for the agent of a machine: keys are an agent's own, so two machines should not both be "main"."""
    from holdfast.node.batch import CAS_AGENT

    name = re.sub(r"[^a-z0-9-]+", "-", machine.lower().partition(".")[0]).strip("-") or "main"
    return f"{name}-1" if name == CAS_AGENT else name


def check_url(url: str) -> None:
    """Refuses what is no hub's address.

    Raises:
        UsageError: with an example.
    """
    if not re.match(r"https?://[^/\s]+", url):
        raise UsageError(f"not a hub's address: {url!r}", hint="such as http://10.0.0.42:8084")


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

"""`holdfast nodes`: how the nodes of a hub stand, and what is asked of them."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

import click

from holdfast.cli import shell
from holdfast.cli.settings import Settings

_TOLD: Final = {
    "sync": "is to say how it stands, and to try again what was put off",
    "pause": "is to ship nothing; its agents go on writing there",
    "resume": "is to go on",
}


@shell.room("nodes")
def nodes_command() -> None:
    """How the nodes of a hub stand, and what is asked of them. Whoever asks something of them is an administrator."""


@nodes_command.command("ls")
@click.pass_obj
def ls_command(settings: Settings) -> None:
    """List the nodes that have spoken to this hub, the worst first, with what would be lost with each one's disk."""
    found = settings.ask_hub("GET", "/nodes.json")
    if settings.as_json:
        settings.show.document({"nodes": found["nodes"]})
        return
    rows = [
        (
            each["node"],
            each["state"],
            each["last_contact"].partition(".")[0].replace("T", " ") + " UTC",
            f"{each['at_risk']:,}",
            each["version"] or "-",
            each["says"] + (f"; {each['wish']}, when it next speaks" if each["wish"] else ""),
        )
        for each in found["nodes"]
    ]
    settings.show.table(("NODE", "STATE", "LAST CONTACT", "AT RISK", "VERSION", "HOW IT STANDS"), rows)


def _asking(what: str, line: str) -> None:
    """Makes the command that asks one thing of nodes."""

    @nodes_command.command(what, help=f"{line} They hear of it with their next word: within a minute.")
    @click.argument("names", nargs=-1, required=True, metavar="NAME...")
    @click.pass_obj
    def command(settings: Settings, names: tuple[str, ...]) -> None:
        for name in names:
            told: dict[str, Any] = settings.ask_hub("POST", _place(name), {"what": what})
            settings.show.result(f"{name} {_TOLD[what]}", told)


_asking("sync", "Have nodes say how they stand, and try again now what was denied or put off.")
_asking("pause", "Have nodes ship nothing; their agents go on writing there.")
_asking("resume", "Have nodes that pause go on, and try again.")


@nodes_command.command("forget")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.pass_obj
def forget_command(settings: Settings, names: tuple[str, ...]) -> None:
    """Forget nodes that are gone. What they shipped stays; one that speaks again is seen again."""
    for name in names:
        told = settings.ask_hub("DELETE", _place(name))
        settings.show.result(f"{name} is forgotten", told)


def _place(name: str) -> str:
    return f"/v1/nodes/{quote(name, safe='')}"

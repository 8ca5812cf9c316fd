"""`holdfast notify`: whom a hub tells of messages. It asks the hub, as an administrator."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from holdfast.cli import shell
from holdfast.cli.settings import Settings
from holdfast.cli.show import count_text
from holdfast.errors import HoldfastError, UsageError


@shell.room("notify")
def notify_command() -> None:
    """Whom a hub tells of messages, by webhook or ntfy. Without a rule it tells nobody anything.

    These commands ask the hub, and need a token with the scope admin where it wants tokens.
    """


@notify_command.command("ls")
@click.pass_obj
def ls_command(settings: Settings) -> None:
    """List the rules and how each stands, and what was given up. Addresses and secrets are not shown."""
    found = settings.ask_hub("GET", "/v1/notify?limit=1000")
    if settings.as_json:
        settings.show.document(found)
        return
    rows = [
        (
            each["name"],
            each["form"],
            each["where"],
            _which(each),
            "fails" if each["trouble"] else "at work" if each["on"] else "silent",
            f"{each['waiting']:,}",
            f"{each['sent']:,}",
            f"{each['given_up']:,}",
        )
        for each in found["rules"]
    ]
    settings.show.table(("NAME", "KIND", "WHERE", "TELLS OF", "STATE", "WAITING", "SENT", "GIVEN UP"), rows)
    for each in found["rules"]:
        if each["trouble"]:
            settings.show.warn(f"{each['name']}: {each['trouble']}")
    for each in found["given_up"]:
        settings.show.note(f"given up: {each['id']} of {each['rule']}, {each['made']}: {each['why']}")


def _which(rule: dict[str, Any]) -> str:
    if not rule["kinds"] and not rule["priority"]:
        return "what needs a person"
    kinds = ",".join(rule["kinds"]) or "*"
    return f"{kinds} {rule['priority']}+" if rule["priority"] else kinds


@notify_command.command("add")
@click.argument("name")
@click.argument("address", required=False)
@click.option("--form", type=click.Choice(["webhook", "ntfy"]), help="JSON with a signature, or a line for a telephone")
@click.option(
    "--kind", "kinds", multiple=True, metavar="GLOB", help="kinds of messages; '*' is all; repeat for several"
)
@click.option("--priority", type=click.Choice(["low", "normal", "high", "hot"]), help="the least")
@click.option("--needs", is_flag=True, help="only what needs a person, whatever was said before")
@click.option("--from", "senders", multiple=True, metavar="GLOB", help="who wrote them; anybody unless said")
@click.option("--to", multiple=True, metavar="GLOB", help="whom to; people unless said")
@click.option("--body/--no-body", default=None, help="send what was written, too; not unless said")
@click.option("--quiet-hours", "quiet", metavar="HOURS", help="such as 22:00-07:00; '' for none")
@click.option("--zone", metavar="NAME", help="the time zone of these hours, such as Europe/Berlin")
@click.option("--rate", type=click.IntRange(1, 3600), help="notifications an hour, at most; 20 unless said")
@click.option("--link", metavar="URL", help="the address of the hub's pages, for links to messages")
@click.option("--bearer-file", type=click.File(), help="a file with the token that the service wants")
@click.option("--new-secret", is_flag=True, help="another key for its signatures")
@click.option("--on/--off", default=None, help="whether it is at work")
@click.pass_obj
def add_command(
    settings: Settings, /, name: str, address: str | None, bearer_file: Any, needs: bool, **given: Any
) -> None:
    """Make a rule, or change the one of that name: what is not said stays as it is.

    Without --kind and --priority it tells of what needs a person: questions, approvals, alerts, and what is at least
    high. A webhook's key is printed when it is made, this once.

    \b
      holdfast notify add phone https://ntfy.example/topic --form ntfy --quiet-hours 22:00-07:00 --zone Europe/Berlin
      holdfast notify add ops https://ops.example/hook --kind alert --priority high --rate 6 > ops.key
    """
    found = settings.ask_hub("GET", "/v1/notify?limit=1")
    known = next((each for each in found["rules"] if each["name"] == name), None)
    if known is None and address is None:
        raise UsageError(
            f"there is no rule {name} yet, so it needs an address", hint="holdfast notify add NAME ADDRESS"
        )
    fields = ("form", "kinds", "priority", "senders", "to", "body", "quiet", "zone", "rate", "link", "on")
    wish = {field: known[field] for field in fields} if known else {}
    # A flag that was not given is None; of a list that was not given nothing is changed.
    wish |= {field: value for field, value in given.items() if value not in (None, ())}
    if needs:
        wish |= {"kinds": (), "priority": ""}
    if address is not None:
        wish["address"] = address
    if bearer_file is not None:
        wish["token"] = bearer_file.read().strip()
    made = settings.ask_hub("PUT", f"/v1/notify/{quote(name, safe='')}", wish)
    if settings.as_json:
        settings.show.document(made)
        return
    if made["secret"]:
        settings.show.line(made["secret"])
    what = "made" if made["made"] else "changed"
    where = f"{made['rule']['form']} to {made['rule']['where']}"
    settings.show.note(f"rule {name} {what}: {where}; try it: holdfast notify test {name}")


@notify_command.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.pass_obj
def rm_command(settings: Settings, names: tuple[str, ...]) -> None:
    """Remove rules, with what they still had to tell."""
    for name in names:
        told = settings.ask_hub("DELETE", f"/v1/notify/{quote(name, safe='')}")
        settings.show.result(f"removed: rule {name}", {"name": name, **told})


@notify_command.command("test")
@click.argument("name")
@click.pass_obj
def test_command(settings: Settings, name: str) -> int:
    """Send a test by a rule now, whatever its hours and its rate, and say what became of it."""
    found = settings.ask_hub("POST", f"/v1/notify/{quote(name, safe='')}/test", timeout=60.0)
    if found["ok"]:
        settings.show.result(f"{name}: taken, with status {found['status']}", found)
        return 0
    if settings.as_json:
        settings.show.document(found)
    settings.show.complain(f"{name}: {found['said']}")
    return HoldfastError.exit_code


@notify_command.command("retry")
@click.argument("ids", nargs=-1, metavar="[ID...]")
@click.option("--drop", is_flag=True, help="forget them instead")
@click.pass_obj
def retry_command(settings: Settings, ids: tuple[str, ...], drop: bool) -> None:
    """Try again what was given up, under the ids that they had: these, or all. `holdfast notify ls` shows them."""
    found = settings.ask_hub("POST", "/v1/letters", {"what": "drop" if drop else "retry", "ids": ids})
    done = "forgotten" if drop else "tried again"
    settings.show.result(f"{count_text(found['count'], 'notification')} {done}", found)

"""`holdfast config`: what holds and who said so, what is wrong, where files are looked for, the schema for editors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from holdfast.cli import shell
from holdfast.cli.settings import Settings
from holdfast.cli.show import count_text
from holdfast.errors import UsageError

if TYPE_CHECKING:
    from holdfast.settings.layers import Configuration
    from holdfast.settings.said import Ignored, Problem


@shell.room("config")
def config_command() -> None:
    """What is configured, by whom, and what is wrong with it.

    Heard first: options, then variables (HOLDFAST_SECTION_KEY), then the nearest holdfast.yaml in this directory or
    above (or what --config or HOLDFAST_CONFIG names), then what init wrote down, then the user's file, then the
    system's.
    """


@config_command.command("show")
@click.option("--origin", is_flag=True, help="who said it: a file with its line, a variable, an option")
@click.option("--said", is_flag=True, help="only what somebody said")
@click.pass_obj
def show_command(settings: Settings, origin: bool, said: bool) -> int:
    """Show what holds, key by key. Secrets are told to be set, and never shown.

    \b
      holdfast config show --origin
      holdfast config show --said --config config/agents/recruiter-001.yaml
    """
    from holdfast.node.configured import store_path
    from holdfast.settings.keys import KEYS

    found = _whole(settings)
    home = str(store_path(found))
    paths = [path for path, key in KEYS.items() if found.has(path) or not (said or key.ignored)]
    if settings.as_json:
        keys = {path: _told(found, path) for path in paths}
        if "store.path" in keys:
            keys["store.path"]["value"] = home
        lists = {"ignored": list(map(_line, found.ignored)), "problems": list(map(_line, found.problems))}
        settings.show.document({"keys": keys, "files": found.files, **lists})
        return _code(found.problems)
    head = ("KEY", "VALUE", *(("ORIGIN",) if origin else ()))
    rows = [
        (
            path,
            home if path == "store.path" else found.text(path),
            *((str(found.place(path) or "default"),) if origin else ()),
        )
        for path in paths
    ]
    settings.show.table(head, rows)
    for each in found.ignored:
        settings.show.note(str(each))
    for problem in found.problems:
        settings.show.complain(str(problem))
    return _code(found.problems)


@config_command.command("check")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.pass_obj
def check_command(settings: Settings, files: tuple[Path, ...]) -> int:
    """Find everything that is wrong, in these files, or in all that holds here: each with file, line and column.

    Exit code 2 if anything is. What has no effect here (keys of earlier systems) is listed, with the reason.

    \b
      holdfast config check
      holdfast config check config/agents/*.yaml config/relay.yaml
    """
    from holdfast.node.configured import read_file
    from holdfast.settings.layers import strangers

    odd: list[Problem] = []
    if files:
        read = [read_file(path) for path in files]
        problems = [each for source in read for each in source.problems]
        ignored = [each for source in read for each in source.ignored]
        names = [str(path) for path in files]
    else:
        found = _whole(settings)
        problems, ignored, names = found.problems, found.ignored, found.files
        odd = list(strangers(os.environ))
    if settings.as_json:
        told = {"problems": list(map(_line, problems)), "unread": list(map(_line, odd))}
        told["ignored"] = list(map(_line, ignored))
        settings.show.document({"ok": not problems, "files": names, **told})
        return _code(problems)
    for problem in problems:
        settings.show.complain(str(problem))
    for each in (*ignored, *odd):
        settings.show.note(str(each))
    what = count_text(len(names), "file") if names else "no file"
    if not problems:
        settings.show.result(f"{what}: in order", None)
    else:
        settings.show.complain(f"{what}: {count_text(len(problems), 'problem')}")
    return _code(problems)


@config_command.command("path")
@click.pass_obj
def path_command(settings: Settings) -> None:
    """Where files are looked for, the first to be heard first, and which of them are there."""
    from holdfast.node.configured import NAMED, STORED, places

    named = settings.config_file or os.environ.get(NAMED)
    rows: list[tuple[str, str, str]] = []
    if named:
        rows.append(("named", named, "read" if Path(named).expanduser().exists() else "not there"))
    for level, path, there in places():
        if level == "user":
            try:
                store = settings.path / STORED
            except UsageError:
                store = Path(STORED)  # which store, the wrong configuration does not tell
            rows.append(("store", str(store), "read" if store.is_file() else "not there"))
        passed = bool(named) and level == "project"
        rows.append((level, str(path), "passed over" if passed else "read" if there else "not there"))
    if settings.as_json:
        told = [{"level": level, "path": path, "state": state} for level, path, state in rows]
        settings.show.document({"places": told})
    else:
        settings.show.table(("LEVEL", "PATH", "STATE"), rows)


@config_command.command("schema")
@click.pass_obj
def schema_command(settings: Settings) -> None:
    """Print the JSON Schema of configuration files, for editors.

    \b
      holdfast config schema > holdfast.schema.json
      # and as the first line of holdfast.yaml: # yaml-language-server: $schema=holdfast.schema.json
    """
    from holdfast.settings.schema import schema

    settings.show.raw(msgspec.json.format(msgspec.json.encode(schema()), indent=2) + b"\n")


def _whole(settings: Settings) -> Configuration:
    """What is configured, with `--agent` for the agent."""
    if settings.agent:
        settings.more = {**settings.more, "agent.id": settings.agent}
    return settings.read_configuration()


def _told(found: Configuration, path: str) -> dict[str, Any]:
    place = found.place(path)
    return {"value": found.shown(path), "level": found.level(path), "origin": None if place is None else str(place)}


def _line(each: Problem | Ignored) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(each)
    place = told.pop("place")
    return {**place, **told}


def _code(problems: list[Problem]) -> int:
    return UsageError.exit_code if problems else 0

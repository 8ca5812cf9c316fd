"""Commands for keys as they were: history, diff, rollback."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import click

from holdfast.cli import shell, values
from holdfast.cli.data import COLLECTION, tell_written, version_at
from holdfast.cli.settings import Settings
from holdfast.cli.show import clock_text, safe, version_text
from holdfast.errors import NotFound

if TYPE_CHECKING:
    from holdfast.log.versions import Version
    from holdfast.node.store import Store


@shell.command("history")
@click.argument("key")
@COLLECTION
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1), help="the newest so many")
@click.pass_obj
def history_command(settings: Settings, key: str, collection: str, limit: int) -> None:
    """Every version of KEY, newest first, deletions included."""

    def job(store: Store, agent: str | None) -> list[Version]:
        found = store.history(key, agent=agent, collection=collection, limit=limit)
        if not found:
            who = agent or store.agent
            raise NotFound(f"{who} never had {collection}/{key}", hint="holdfast ls shows what there is")
        return found

    found = settings.read(job, f"{collection}/{key}")
    if settings.as_json:
        settings.show.document({"key": key, "collection": collection, "versions": [v.to_json() for v in found]})
        return
    rows = [(f"v{v.version}", clock_text(v.time), v.kind, v.etag[:12], version_text(v)) for v in found]
    settings.show.table(("VERSION", "WRITTEN", "KIND", "ETAG", "VALUE"), rows)


@shell.command("diff")
@click.argument("key")
@click.argument("old", type=click.IntRange(1))
@click.argument("new", type=click.IntRange(1), required=False)
@COLLECTION
@click.pass_obj
def diff_command(settings: Settings, key: str, old: int, new: int | None, collection: str) -> None:
    """What changed in KEY from version OLD to version NEW, or to what it is now.

    \b
      holdfast diff plan 6 7
    """
    left, right = settings.read(
        lambda store, agent: (
            version_at(store, agent, key, collection, number=old),
            version_at(store, agent, key, collection, number=new),
        ),
        f"{collection}/{key}",
    )
    before, after = (_lines(version.value) for version in (left, right))
    found = list(difflib.unified_diff(before, after, f"{key} v{left.version}", f"{key} v{right.version}", lineterm=""))
    if settings.as_json:
        told = {"key": key, "collection": collection, "from": left.to_json(), "to": right.to_json()}
        settings.show.document(told | {"same": left.value == right.value, "diff": found})
        return
    for line in found:
        color = {"+": "green", "-": "red", "@": "blue"}.get(line[:1], "")
        settings.show.line(settings.show.paint(safe(line), color) if color else safe(line))


def _lines(value: object) -> list[str]:
    if isinstance(value, bytes):
        return [value[at : at + 32].hex(" ") for at in range(0, len(value), 32)]
    return values.pretty(value).splitlines()


@shell.command("rollback")
@click.argument("key")
@click.argument("version", type=click.IntRange(1))
@COLLECTION
@click.pass_obj
def rollback_command(settings: Settings, key: str, version: int, collection: str) -> None:
    """Make an earlier VERSION of KEY the newest again, as a new version: nothing is lost by it.

    \b
      holdfast rollback plan 6
    """
    with settings.open_store() as store:
        made = store.rollback(key, version, collection=collection)
        tell_written(settings, store, made, f"{collection}/{key} v{made.version} is v{version} again")

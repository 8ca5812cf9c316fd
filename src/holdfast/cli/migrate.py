"""Commands that take a hub, or objects, from one kind of place to another."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import click

from holdfast.cli import lasting, shell
from holdfast.cli.settings import Settings
from holdfast.cli.show import Progress, count_text, seconds_text, size_text

if TYPE_CHECKING:
    from holdfast.hub.migrate import Moved

SAY_EVERY_S: Final = 10.0
"""How often a log, where there is no terminal, is told how far it is."""


@shell.room("migrate")
def migrate_command() -> None:
    """Take a whole hub, or the objects of a store, to another kind of place, or back."""


@migrate_command.command("corpus")
@click.argument("source")
@click.argument("target")
@click.option("--dry-run", is_flag=True, help="only look: what would be copied, and whether the target takes it")
@click.pass_obj
def corpus_command(settings: Settings, source: str, target: str, dry_run: bool) -> None:
    """Copy everything that a hub is to another place, and prove that all of it arrived.

    SOURCE and TARGET are sqlite:DIR (what serve --data takes) or a PostgreSQL address. Stop the hub first. The source
    stays as it is. The target must be empty; broken off, the same command goes on where it stood, and until all is
    proven nobody can serve it. Readers' cursors, nodes and plain clients go on at the target as if nothing had been.

    \b
      holdfast migrate corpus sqlite:/srv/holdfast postgresql://holdfast@db.local/holdfast --dry-run
      holdfast migrate corpus sqlite:/srv/holdfast postgresql://holdfast@db.local/holdfast
      holdfast migrate corpus postgresql://holdfast@db.local/holdfast sqlite:/srv/holdfast-again
    """
    from holdfast.hub.migrate import migrate

    lasting()
    with Line(settings) as line:
        moved = migrate(source, target, dry_run=dry_run, told=line.told)
    if moved.tags_left:
        settings.show.warn(
            f"{count_text(moved.tags_left, 'tag')} left out: in a database no record is found by a task, thread,"
            " recipient or label of more than 2,000 bytes"
        )
    settings.show.result(_told(moved, dry_run), _document(moved, dry_run))
    if not dry_run:
        settings.show.note(f"serve {moved.target} from now on, and {moved.source} never again: both are the same hub")


@migrate_command.command("objects")
@click.argument("source")
@click.argument("target", default="")
@click.option("--dry-run", is_flag=True, help="only look: what would be copied, by names and sizes")
@click.option("--parallel", default=8, show_default=True, help="objects under way at once")
@click.option(
    "--journal", metavar="FILE", help="what is remembered between runs; one a migration  [default: made here]"
)
@click.option("--overwrite", is_flag=True, help="what the target has under a key gives way; cannot be taken back")
@click.option("--hold", is_flag=True, help="of a switch: copy, and do not switch yet")
@click.option("--rollback", is_flag=True, help="take the copies out of TARGET again; of a switch: go back")
@click.option("--finish", is_flag=True, help="of a switch: end the migration, with no way back")
@click.pass_obj
def objects_command(settings: Settings, /, source: str, target: str, **options: Any) -> int:
    """Copy every object of a store to another one, and prove each by its digest.

    SOURCE and TARGET are addresses: file:DIR, sqlite:FILE, s3://BUCKET, azure://CONTAINER and others. Broken off, the
    same command goes on where it stood; run again later, it copies what is new. What TARGET has of its own stays as it
    is. Of a switch (switch:FILE) the objects may be written all the while; it points at TARGET when all is there.

    \b
      holdfast migrate objects file:./data azure://agents --dry-run
      holdfast migrate objects file:./data azure://agents
      holdfast migrate objects switch:app.switch s3://agents
      holdfast migrate objects switch:app.switch --rollback
    """
    from holdfast.cli import objects

    lasting()
    with Line(settings) as line:
        return objects.migrate(settings, source, target, options, line.told)


def _told(moved: Moved, dry_run: bool) -> str:
    what = (
        f"{count_text(moved.records, 'record')} of {count_text(moved.streams, 'stream')},"
        f" {count_text(moved.keys, 'key')}, {count_text(moved.blobs, 'blob')},"
        f" {size_text(moved.payload_bytes + moved.blob_bytes)}"
    )
    if dry_run:
        return f"would copy {what} from {moved.source} to {moved.target}"
    again = f"; went on with one that was broken off, {moved.copied:,} copied now" if moved.resumed else ""
    proven = f"verified: every record and {count_text(moved.signatures, 'signature')}"
    return f"migrated {what} in {seconds_text(moved.seconds)}{again}\n{proven}; generation {moved.generation} begins"


def _document(moved: Moved, dry_run: bool) -> dict[str, object]:
    import msgspec

    told: dict[str, object] = {"ok": True, "dry_run": dry_run, **msgspec.to_builtins(moved)}
    return told


class Line:
    """How far it is: a bar on a terminal, a line now and then in a log. Use it by ``with``."""

    def __init__(self, settings: Settings) -> None:
        self._show, self._what, self._said = settings.show, "", time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(*error)

    def told(self, what: str, done: int, total: int) -> None:
        """Shows it, as often as it can be read."""
        if what != self._what:
            self.__exit__(None, None, None)
            self._what, self._bar = what, Progress(self._show, what, total)
        assert self._bar is not None
        text = f"{done:,} of {total:,}" if total else f"{done:,}" if done else "…"
        self._bar.at(done, text)
        now = time.monotonic()
        if not Progress.drawn and not self._show.as_json and now - self._said >= SAY_EVERY_S:
            self._said = now
            self._show.note(f"{what}: {text}")

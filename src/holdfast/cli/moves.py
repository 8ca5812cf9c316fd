"""Commands that move much at once: export and import."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from holdfast.cli import shell
from holdfast.cli.settings import Settings
from holdfast.cli.show import Progress, count_text
from holdfast.disk import replacing
from holdfast.errors import NotCached, NotFound, UsageError

if TYPE_CHECKING:
    from holdfast.cli.intake import Intake, Restore, Source, Tally
    from holdfast.corpus import Stored
    from holdfast.node.store import Store
    from holdfast.objects import BlobFiles

SHIP_S = 2.0
"""How long an import waits for the hub to take another record before it says what waits here."""


@shell.command("export")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="a file; else standard output")
@click.option("--collection", "-c", help="only this one")
@click.pass_obj
def export_command(settings: Settings, out: Path | None, collection: str | None) -> None:
    """Write every version of every key as JSON Lines: of all agents on this machine, or of --agent.

    `holdfast import` reads it back, here or on another machine. A file appears only once it is whole.

    \b
      holdfast export --out everything.jsonl
      holdfast export --agent recruiter-1 -c messages | gzip > messages.jsonl.gz
    """
    from holdfast.cli import exports

    with settings.directory() as directory:
        agents = [settings.agent] if settings.agent else directory.agents()
        for agent in agents:
            if not directory.has_agent(agent):
                raise NotFound(f"no agent {agent} on this machine", hint="holdfast ls --agents")
        with _written(out) as file:
            file.write(exports.header(agents, collection))
            count = 0
            for agent in agents:
                with settings.open_log(agent) as opened, contextlib.ExitStack() as more:
                    value_of = _reader(settings, agent, directory.blobs, more)
                    for line in exports.lines(opened, value_of, collection):
                        file.write(line)
                        count += 1
            file.write(exports.end(count))
            file.flush()
    settings.show.note(f"exported {count_text(count, 'version')} of {count_text(len(agents), 'agent')}")


def _reader(settings: Settings, agent: str, blobs: BlobFiles, more: contextlib.ExitStack) -> Callable[[Stored], Any]:
    """What reads a record's value, from here or, where it is not here any more, through the hub."""
    from holdfast.log import load

    stores: list[Store] = []

    def value_of(stored: Stored) -> Any:
        try:
            return load(stored, blobs)
        except NotCached:
            if settings.hub_url is None:
                raise
        if not stores:
            stores.append(more.enter_context(settings.open_store(agent=agent)))
        record = stored.record
        return stores[0].get(record.key, collection=record.collection, at=record.key_version)

    return value_of


@contextlib.contextmanager
def _written(out: Path | None) -> Iterator[BinaryIO]:
    if out is None:
        sys.stdout.flush()
        yield sys.stdout.buffer
        return
    with replacing(out) as file:
        yield file


@shell.command("import")
@click.argument("paths", nargs=-1, required=True, metavar="FILE|DIR...")
@click.option("--dry-run", is_flag=True, help="read and report, write nothing")
@click.option("--redact", is_flag=True, help="take API keys, tokens, private keys and passwords out of what was said")
@click.pass_obj
def import_command(settings: Settings, paths: tuple[str, ...], dry_run: bool, redact: bool) -> int:
    """Read conversations, or our own export, into the store.

    It knows OpenAI-style chats (JSON or JSON Lines), folders of Claude Code and Codex sessions, and `holdfast export`,
    by what stands in a file. Running it again adds only what is new. A bad line is reported and skipped; then the
    exit code is 3.

    \b
      holdfast import conversations.json
      holdfast import ~/.claude/projects ~/.codex/sessions --agent archive
      holdfast import everything.jsonl
    """
    from holdfast.cli.intake import Source, Tally, sources

    if not all(paths):  # a Path of "" would be this directory, and all that is below it
        raise UsageError("a file or folder to import has an empty name", hint="this directory is .")
    settings.need_store()
    tally = Tally()
    files: list[Source] = []
    for found in sources([Path(path) for path in paths]):
        if isinstance(found, Source):
            files.append(found)
        else:
            tally.skipped += 1
            settings.show.note(f"{found}: no conversation, skipped")
    work = _Import(settings, tally, dry_run=dry_run, redact=redact)
    with work, Progress(settings.show, "importing", sum(file.path.stat().st_size for file in files)) as progress:
        for file in files:
            work.file(file, progress)
    _report(settings, tally, work.waiting, dry_run=dry_run)
    return shell.PARTIAL if tally.bad else 0


class _Import:
    """The stores that an import writes to, opened as their agents turn up."""

    def __init__(self, settings: Settings, tally: Tally, *, dry_run: bool, redact: bool) -> None:
        self.waiting = 0
        self._redact = redact
        self._settings = settings
        self._tally = tally
        self._dry_run = dry_run
        self._open = contextlib.ExitStack()
        self._stores: dict[str, tuple[Store, Intake, Restore]] = {}
        self._read = 0

    def __enter__(self) -> _Import:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._open:
            if kind is None:
                for store, intake, _restore in self._stores.values():
                    intake.flush()
                    self.waiting += _ship(store)

    def file(self, source: Source, progress: Progress) -> None:
        """Reads one file to its end."""
        from holdfast.cli.transcripts import Bad

        data = source.path.read_bytes()
        lines = data.count(b"\n") + 1
        for found in self._conversation(source, data) if source.reader else self._export(data):
            if isinstance(found, Bad):
                self._tally.bad += 1
                self._settings.show.complain(f"{source.path}:{found.line}: {found.why}")
            else:
                tally = self._tally
                text = f"{tally.new:,} new, {tally.already:,} there already"
                progress.at(self._read + len(data) * found // lines, text)
        self._tally.files += 1
        self._read += len(data)

    def _conversation(self, source: Source, data: bytes) -> Iterator[Any]:
        from holdfast.cli.intake import conversation

        intake = self._store(self._settings.who)[1]
        return conversation(source, data, intake, self._tally)

    def _export(self, data: bytes) -> Iterator[Any]:
        from holdfast.cli.exports import Entry, read

        for found in read(data):
            if isinstance(found, Entry):
                _, _, restore = self._store(self._settings.agent or found.agent)
                yield restore.take(found) or found.line
            else:
                yield found

    def _store(self, agent: str) -> tuple[Store, Intake, Restore]:
        if agent not in self._stores:
            from holdfast.cli.intake import Intake, Restore

            store = self._open.enter_context(self._settings.open_store(agent=agent, hub=not self._dry_run))
            opened = self._open.enter_context(self._settings.open_log(agent))
            intake = Intake(store, self._tally, dry_run=self._dry_run, redact=self._redact)
            self._stores[agent] = (store, intake, Restore(store, opened.corpus, intake, self._tally))
        return self._stores[agent]


def _ship(store: Store) -> int:
    """Waits for the hub as long as it takes records; how many are left here."""
    if not store.hubs:
        return 0
    left = store.outbox_depth
    while left and not store.flush(SHIP_S):
        before, left = left, store.outbox_depth
        if left >= before:
            return left
    return 0


def _report(settings: Settings, tally: Tally, waiting: int, *, dry_run: bool) -> None:
    if settings.as_json:
        told = {name: getattr(tally, name) for name in tally.__struct_fields__}
        settings.show.document(told | {"threads": len(tally.threads), "outbox": waiting, "dry_run": dry_run})
        return
    would = "would import" if dry_run else "imported"
    text = f"{would} {count_text(tally.new, 'record')} of {count_text(tally.files, 'file')}"
    if tally.threads:
        text += f", {count_text(len(tally.threads), 'conversation')}"
    settings.show.result(f"{text}; {tally.already:,} were there already", None)
    if waiting:
        settings.show.note(f"not at the hub yet: {count_text(waiting, 'record')}")
    if tally.bad:
        settings.show.warn(f"{count_text(tally.bad, 'bad line')} left out", hint="each is named above")

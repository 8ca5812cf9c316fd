"""Commands about archives: old records in compressed files that describe themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
import msgspec

from holdfast.cli import lasting, shell
from holdfast.cli.backup import milliseconds, opened_source
from holdfast.cli.migrate import Line as Bar
from holdfast.cli.settings import Settings
from holdfast.cli.show import count_text, size_text
from holdfast.errors import IntegrityError, UsageError

if TYPE_CHECKING:
    from holdfast.integrity.archive import Archive, Line
    from holdfast.integrity.backup import Part
    from holdfast.objects import ObjectStore

_address = click.argument("address", envvar="HOLDFAST_ARCHIVE")


@shell.room("archives")
def archives_command() -> None:
    """Old records in compressed files on any object store, which anybody can read: JSON lines in zstd.

    ADDRESS is a file:DIR, s3://BUCKET/PREFIX, azure://CONTAINER or another, with nothing else in it.
    """


@archives_command.command("run")
@_address
@click.option("--from", "source", metavar="PLACE", default="", envvar="HOLDFAST_ARCHIVE_FROM",
              help="a node's or hub's directory, or a hub's database  [default: the store]")  # fmt: skip
@click.option(
    "--older-than", default="90d", metavar="TIME", help="written so long ago: 90d, 12w, 36h; 0: all  [default: 90d]"
)
@click.option("--blobs", metavar="ADDRESS", default="", help="where a hub's blobs are, if it was told: as of serve")
@click.option("--drop", is_flag=True, help="a hub's: let the archived bodies go, and read them from there")
@click.pass_obj
def run_command(settings: Settings, address: str, source: str, older_than: str, blobs: str, drop: bool) -> None:
    """Archive what is older and not there yet, prove it, and take out of the archive what was erased since.

    Nobody has to stop writing. With --drop a hub lets go of the bodies that the archive was just proven to hold: lists,
    search and proofs stay, and what is read comes from the archive, held against the record's hash. Payloads above
    64 KiB are archived, and stay with the hub too. `holdfast compact --data` then gives the room back to the disk.

    \b
      holdfast archives run file:/mnt/archive --from /srv/holdfast --older-than 90d --drop
      holdfast archives run s3://archive/hub --from postgresql://holdfast@db.local/holdfast
    """
    from holdfast.clock import SYSTEM
    from holdfast.integrity.archive import Archive, Made
    from holdfast.integrity.backup import HUB

    lasting()
    # A clock of ours may be up to a minute ahead of the wall.
    before = SYSTEM.now_ms() + 61_000 if older_than == "0" else SYSTEM.now_ms() - milliseconds(older_than)
    if drop and "@" in address:
        raise UsageError("the hub would keep this address, and a secret in it", hint="leave user and password out")
    total = Made()
    how: dict[str, Any] = {"source": source, "blobs": blobs, "key_file": None}
    with _opened(address) as store, opened_source(settings, how) as found, Bar(settings) as line:
        for part in found.parts:
            prefix = "" if part.kind == HUB else part.place.removesuffix("log.db")
            archive = Archive(store, prefix)
            made = archive.run(part.corpus, part.blobs, before_ms=before, told=lambda n: line.told("archived", n, n))
            if drop:
                _read_up(part)
                made.dropped = archive.drop(part.corpus, address, before_ms=before)
            for name in made.__struct_fields__:
                setattr(total, name, getattr(total, name) + getattr(made, name))
    text = f"{count_text(total.records, 'record')} in {count_text(total.files, 'file')} ({size_text(total.bytes)})"
    if total.rewritten:
        text += f"; {count_text(total.rewritten, 'file')} written anew without what was erased"
    if drop:
        text += f"; {count_text(total.dropped, 'body', 'bodies')} let go"
    settings.show.result(text, msgspec.to_builtins(total))


def _read_up(part: Part) -> None:
    """Has everything that is found by its words, its fields or its recipient read before its body goes."""
    from holdfast.collections import mailbox
    from holdfast.corpus import index, search
    from holdfast.log.reading import load

    corpus, blobs = part.corpus, part.blobs
    while search.fill(corpus) or index.fill(corpus, lambda stored: load(stored, blobs)) or mailbox.fill(corpus, blobs):
        pass


@archives_command.command("ls")
@_address
@click.pass_obj
def ls_command(settings: Settings, address: str) -> None:
    """List the files of an archive: which positions, of when, of whom, how large."""
    with _opened(address) as store:
        found = [(prefix, entry) for prefix, archive in _archives(store) for entry in archive.manifest()[0].files]
    if settings.as_json:
        settings.show.document({"files": [{**msgspec.to_builtins(e), "name": prefix + e.name} for prefix, e in found]})
        return
    rows = [
        (prefix + each.name, f"{each.records:,}", size_text(each.bytes), each.oldest[:10], each.newest[:10])
        for prefix, each in found
    ]
    settings.show.table(("FILE", "RECORDS", "BYTES", "FROM", "TO"), rows)


@archives_command.command("verify")
@_address
@click.pass_obj
def verify_command(settings: Settings, address: str) -> int:
    """Read every file of an archive, and prove each value by the hash in its record's header."""
    records, wrong = 0, []
    with _opened(address) as store:
        for prefix, archive in _archives(store):
            for entry in archive.manifest()[0].files:
                try:
                    records += archive.verify(entry)
                except IntegrityError as error:
                    wrong.append(f"{prefix}{entry.name}: {error.message}")
    for what in wrong:
        settings.show.complain(what)
    settings.show.result(f"{count_text(records, 'record')} proven", {"records": records, "findings": wrong})
    return IntegrityError.exit_code if wrong else 0


@archives_command.command("cat")
@_address
@click.option("--of", "agent", help="only this agent's")
@click.option("--collection", "-c", help="only of this one")
@click.option("--key", help="only of this key")
@click.option("--grep", metavar="TEXT", help="only lines that hold this text, whatever its case")
@click.pass_obj
def cat_command(settings: Settings, /, address: str, **given: str | None) -> None:
    """Print the records of an archive as JSON lines, oldest first: to search in them, or for another program."""
    text = (given["grep"] or "").casefold()

    def wanted(line: Line) -> bool:
        return (
            given["agent"] in (None, line.agent)
            and given["collection"] in (None, line.collection)
            and given["key"] in (None, line.key)
        )

    from holdfast.integrity.archive import select

    with _opened(address) as store:
        for _, archive in _archives(store):
            for row in select(archive, wanted):
                if text in row.decode().casefold():
                    settings.show.raw(row + b"\n")


@contextlib.contextmanager
def _opened(address: str) -> Iterator[ObjectStore]:
    from holdfast.node.objects import open_store

    with open_store(address) as store:
        yield store


def _archives(store: ObjectStore) -> Iterator[tuple[str, Archive]]:
    """The archives at an address: a hub's own, and those of a node's agents."""
    from holdfast.integrity.archive import MANIFEST, Archive

    found = False
    for prefix in ("", *_agents(store)):
        if store.exists(prefix + MANIFEST):
            found = True
            yield prefix, Archive(store, prefix)
    if not found:
        raise UsageError("there is no archive", hint="holdfast archives run ADDRESS makes one")


def _agents(store: ObjectStore) -> Iterator[str]:
    from holdfast.integrity.archive import MANIFEST

    for info in store.list("agents/"):
        if info.key.endswith("/" + MANIFEST):
            yield info.key.removesuffix(MANIFEST)

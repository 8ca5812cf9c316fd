"""Commands about what only this machine can read, and what nobody is to read any more: erase, keys."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import msgspec

from holdfast.cli import shell
from holdfast.cli.data import SHIP_S
from holdfast.cli.settings import Settings
from holdfast.cli.show import clock_text, count_text
from holdfast.clock import iso
from holdfast.errors import Denied, HubUnavailable, NoStore, NotFound, UsageError


@shell.command("erase")
@click.option("--subject", metavar="S", help="all that was sealed for it here, and at the hub its users' sessions")
@click.option("--session", metavar="ID", help="at the hub: this session, with all that belongs to it")
@click.option("--key", metavar="KEY", help="every version of this key of the agent, sealed or not")
@click.option("--collection", "-c", help="only in this one, and here; with --key: its collection, state unless said")
@click.option("--reason", default="", metavar="TEXT", help="kept in the history for ever; it must not say who")
@click.pass_obj
def erase_command(
    settings: Settings, subject: str | None, session: str | None, key: str | None, collection: str | None, reason: str
) -> int:
    """Erase payloads for good: from the log, the search index, blobs, caches, hubs and every later restore.

    A subject's data key is destroyed, so that copies which nobody can reach are noise. The history stays and proves
    itself; it says that something was erased, when and why. There is no way back. What plain clients wrote through a
    hub the hub erases, if the token has the scope admin.

    \b
      holdfast erase --subject p-17 --reason "asked to, ticket 4711"
      holdfast erase --key notes/draft
    """
    from holdfast.node.erase import check_reason

    if sum(each is not None for each in (subject, session, key)) != 1:
        raise UsageError("erase wants --subject, --session or --key", hint="one of them, and not two")
    check_reason(reason, subject or session or "")
    document: dict[str, Any] = {}
    said: list[str] = []
    left: list[str] = []
    nothing: NotFound | None = None
    if session is None:
        try:
            left += _erase_here(settings, subject, key, collection, reason, said, document)
        except (NotFound, NoStore) as error:
            if subject is None or collection is not None or not settings.hub_urls:
                raise
            nothing = error if isinstance(error, NotFound) else NotFound(error.message, hint=error.hint)
    if key is None and collection is None:
        reached = _erase_there(settings, subject or "", session or "", reason, said, document)
        if reached is None and nothing is not None:
            raise nothing
        left += reached or []
    settings.show.result("; ".join(said), {**document, "left": left})
    for what in left:
        settings.show.warn(f"not reached: {what}")
    return shell.PARTIAL if left else 0


def _erase_here(
    settings: Settings,
    subject: str | None,
    key: str | None,
    collection: str | None,
    reason: str,
    said: list[str],
    document: dict[str, Any],
) -> tuple[str, ...]:
    """Erases in the logs of this machine, tells in `said` and `document` what that did; what is not reached."""
    from holdfast.node.erase import erase_key, erase_subject

    with settings.open_store() as store, settings.directory() as directory:
        if subject is not None:
            report = erase_subject(directory, subject, collection=collection, reason=reason)
        else:
            where = collection or "state"
            report = erase_key(directory, settings.who, key or "", collection=where, reason=reason)
        document |= msgspec.to_builtins(report)
        said.append(f"erased {count_text(report.records, 'record')} and {count_text(report.blobs, 'blob')}")
        if report.keys:
            said.append(f"destroyed {count_text(report.keys, 'key')}")
        if store.hubs:
            document["at_hub"] = at_hub = store.flush(SHIP_S)
            said.append("the hub knows" if at_hub else "the hub does not know yet: it will when it is reached")
    return report.left


def _erase_there(
    settings: Settings, subject: str, session: str, reason: str, said: list[str], document: dict[str, Any]
) -> list[str] | None:
    """Has the hubs erase what plain clients wrote of it; what is not reached, None where they have nothing of it."""
    from holdfast.node.erase import erase_at_hub
    from holdfast.node.hub import Hub

    if not settings.hub_urls:
        if session:
            settings.need_hub()
        return []
    with Hub(settings.hub_urls, settings.token) as hub:
        try:
            found = erase_at_hub(hub, subject=subject, session=session, reason=reason)
        except NotFound:
            if session:
                raise
            return None
        except (Denied, HubUnavailable) as error:
            if session:
                raise
            return [f"what plain clients wrote of it through the hub: {error.message}"]
    document["hub"] = msgspec.to_builtins(found)
    said.append(
        f"the hub erased {count_text(found.records, 'record')} and {count_text(found.blobs, 'blob')} of its own"
    )
    return found.left


@shell.room("keys")
def keys_command() -> None:
    """The keys of sealed collections: which there are, handing them to another machine, and wrapping them anew."""


@keys_command.command("seal")
@click.argument("collections", nargs=-1, required=True, metavar="COLLECTION...")
@click.pass_obj
def seal_command(settings: Settings, collections: tuple[str, ...]) -> None:
    """Seal collections from now on: what is written to them only this machine can read.

    What they hold already stays as it is. With HOLDFAST_PASSPHRASE set, the keys are wrapped by that passphrase.
    """
    from holdfast.node.sealing import check_sealable

    with settings.directory() as directory:
        check_sealable(collections)
        directory.vault.declare(collections)
    settings.show.result(f"sealed from now on: {', '.join(collections)}", {"sealed": list(collections)})


@keys_command.command("ls")
@click.pass_obj
def ls_command(settings: Settings) -> None:
    """List the data keys: collection, subject, name, and when they were made or erased. Never a key itself."""
    with settings.directory() as directory:
        found = directory.vault.listed()
    if settings.as_json:
        names = ("collection", "subject", "kid", "made", "erased")
        rows = [(c, s, kid.hex(), iso(made), iso(gone) if gone else None) for c, s, kid, made, gone in found]
        settings.show.document({"keys": [dict(zip(names, row, strict=True)) for row in rows]})
        return
    table = [
        (c, s or "-", kid.hex(), clock_text(made / 1000), clock_text(gone / 1000) if gone else "-")
        for c, s, kid, made, gone in found
    ]
    settings.show.table(("COLLECTION", "SUBJECT", "KEY", "MADE", "ERASED"), table)


@keys_command.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--collection", "-c", required=True, help="of this one")
@click.option("--subject", metavar="S", help="only this subject's")
@click.pass_obj
def export_command(settings: Settings, file: Path, collection: str, subject: str | None) -> None:
    """Write the keys of a collection to a new FILE, for `holdfast keys import` on another machine.

    Whoever has the file reads what they sealed: carry it as you would carry the data, and remove it afterwards.
    """
    with settings.directory() as directory:
        bundle = directory.vault.export(collection, subject)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as out:
            out.write(bundle.to_json())
            out.flush()
            os.fsync(out.fileno())
    except BaseException:
        file.unlink(missing_ok=True)  # half of the keys would look like all of them
        raise
    settings.show.result(f"wrote {count_text(len(bundle.keys), 'key')} to {file}", {"keys": len(bundle.keys)})


@keys_command.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.pass_obj
def import_command(settings: Settings, file: Path) -> None:
    """Take the keys in FILE, so that this machine reads what they sealed. Keys that were erased here stay so."""
    from holdfast.node.vault import Bundle

    with settings.directory() as directory:
        fresh = directory.vault.take(Bundle.from_json(file.read_bytes()))
    settings.show.result(f"took {count_text(fresh, 'new key')}", {"keys": fresh})


@keys_command.command("rotate")
@click.option("--passphrase", "with_words", is_flag=True, help="wrap with $HOLDFAST_NEW_PASSPHRASE, not a key file")
@click.option("--keyring", is_flag=True, help="keep the new key in the operating system's keyring, not in a file")
@click.option("--passphrase-file", metavar="FILE", type=click.Path(path_type=Path),
              help="wrap with the passphrase in FILE, not a key file")  # fmt: skip
@click.pass_obj
def rotate_command(settings: Settings, with_words: bool, keyring: bool, passphrase_file: Path | None) -> None:
    """Wrap all keys anew under another key-encryption key. No record is touched."""
    from holdfast.node.configured import reveal

    words = os.environ.get("HOLDFAST_NEW_PASSPHRASE") if with_words else reveal(passphrase_file, "passphrase")
    if keyring and (with_words or passphrase_file):
        raise UsageError("a passphrase, or the keyring?", hint="one of them")
    if with_words and (not words or passphrase_file):
        hint = "set HOLDFAST_NEW_PASSPHRASE, or give --passphrase-file FILE alone"
        raise UsageError("no new passphrase, or two", hint=hint)
    with settings.directory() as directory:
        count = directory.vault.rotate(passphrase=words, keyring=keyring)
    settings.show.result(f"wrapped {count_text(count, 'key')} anew", {"keys": count})

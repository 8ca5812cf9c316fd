"""Backups: made, listed, read again, restored for a trial and for good, and let go of."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from holdfast.cli import lasting, shell
from holdfast.cli.migrate import Line
from holdfast.cli.settings import Settings, configured
from holdfast.cli.show import clock_text, count_text, seconds_text, size_text
from holdfast.errors import Conflict, UsageError

if TYPE_CHECKING:
    from holdfast.integrity.backup import Policy, Repository, Source

_UNITS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
NAME_SHOWN: Final = 22

_address = click.argument("address", default=configured("backup.address"), required=True)
_key = click.option("--key", "key_file", metavar="FILE", type=click.Path(path_type=Path),
                    default=configured("backup.key_file"),
                    help="the keys of a sealed repository (KeyRing.save)")  # fmt: skip
_from = click.option("--from", "source", metavar="PLACE", default=configured("backup.source"),
                     help="a node's or hub's directory, or a hub's database  [default: the store]")  # fmt: skip
_signer = click.option("--signer", metavar="HEX", default="", help="the public key that must have signed (ls --json)")
_blobs = click.option(
    "--blobs", metavar="ADDRESS", default="", help="where a hub's blobs are, if it was told: as of serve"
)


@shell.room("backup")
def backup_command() -> None:
    """Back up a node or a hub, prove it, and bring it back.

    ADDRESS is any object store: file:DIR, s3://BUCKET/PREFIX, azure://CONTAINER and others; one for each node or hub.
    """


@backup_command.command("create")
@_address
@_from
@_key
@_blobs
@click.option("--with-keys", is_flag=True, help="also the private keys; only in a sealed repository")
@click.option("--anew", is_flag=True, help="build on no earlier backup: where what is there is damaged")
@click.pass_obj
def create_command(settings: Settings, /, address: str, **how: Any) -> None:
    """Back up what came since the last backup; nobody has to stop writing.

    The first one is whole; each is a complete backup. Keys are not in it: copy keys.db to a safe place once, or use
    --key and --with-keys. A backup is verified once a drill has brought it back.

    \b
      holdfast backup create file:/mnt/backups/laptop
      holdfast backup create s3://backups/hub --from /srv/holdfast --key backup.key
      holdfast backup create file:/mnt/backups/hub --from postgresql://holdfast@db.local/holdfast
    """
    from holdfast.integrity.backup import create

    with (
        _opened(address, how["key_file"]) as repository,
        opened_source(settings, how) as source,
        Line(settings) as line,
    ):
        made = create(repository, source, anew=how["anew"], told=line.told)
    if made.missing:
        what = count_text(made.missing, "body", "bodies")
        settings.show.warn(
            f"{what} not here to be backed up: evicted, quarantined or erased; the hub has its own backups"
        )
    text = (
        f"backup {made.backup}: {count_text(made.records, 'record')}, {made.new_records:,} new,"
        f" {size_text(made.bytes)} in {seconds_text(made.seconds)}"
    )
    settings.show.result(text, _document(made))


@backup_command.command("ls")
@_address
@click.pass_obj
def ls_command(settings: Settings, address: str) -> None:
    """List the backups, oldest first, and which of them a drill has verified."""
    from holdfast import clock

    with _opened(address, None) as repository:
        about, verified = repository.about, repository.verified()
        found, damaged = repository.readable()
        rows = []
        for name, manifest in found:
            size = sum(manifest.objects().values()) + sum(blob.size for blob in manifest.blobs().values())
            rows.append((name, manifest, size))
    for name in damaged:
        settings.show.warn(f"{name} is not what was signed", hint="holdfast backup verify says more")
    if settings.as_json:
        told = [
            {
                "backup": name,
                "at": clock.iso(manifest.made_ms),
                "records": manifest.records,
                "bytes": size,
                "verified": name in verified,
            }
            for name, manifest, size in rows
        ]
        settings.show.document({"repository": about.id, "key": about.signer, "sealed": about.sealed, "backups": told,
                                "damaged": damaged})  # fmt: skip
        return
    settings.show.table(
        ("BACKUP", "MADE", "RECORDS", "BYTES", "VERIFIED"),
        [
            (
                name[:NAME_SHOWN],
                clock_text(manifest.made_ms / 1000),
                f"{manifest.records:,}",
                size_text(size),
                "yes" if name in verified else "no",
            )
            for name, manifest, size in rows
        ],
    )


@backup_command.command("verify")
@_address
@click.argument("names", nargs=-1, metavar="[BACKUP]...")
@_key
@_signer
@click.pass_obj
def verify_command(settings: Settings, address: str, names: tuple[str, ...], key_file: Path | None, signer: str) -> int:
    """Read all backups again, and say what of them is not as it was written. Changes nothing.

    Without the keys of a sealed repository it proves the bytes and the signatures; with them also every chain.
    """
    from holdfast.integrity.backup import verify

    with _opened(address, key_file, signer) as repository, Line(settings) as line:
        chosen = [_named(repository, name) for name in names]
        found = verify(repository, chosen, told=line.told)
    for what in found.findings:
        settings.show.complain(what)
    text = (
        f"{count_text(len(found.backups), 'backup')}: {count_text(found.objects, 'object')},"
        f" {count_text(found.blobs, 'blob')}, {size_text(found.bytes)} read in {seconds_text(found.seconds)};"
        f" {'sound' if found.sound else count_text(len(found.findings), 'finding')}"
    )
    settings.show.result(text, {"ok": found.sound, **_document(found)})
    return 0 if found.sound else 9


@backup_command.command("drill")
@_address
@click.argument("names", nargs=-1, metavar="[BACKUP]...")
@_from
@_key
@click.option("--room", type=click.Path(path_type=Path, exists=True, file_okay=False),
              help="where there is room to restore to  [default: the system's temporary files]")  # fmt: skip
@click.pass_obj
def drill_command(settings: Settings, /, address: str, names: tuple[str, ...], **how: Any) -> int:
    """Restore the newest backup, and one older, for a trial; that alone makes a backup verified.

    It is signed with the key of --from (the store's own). The exit code is 9 when one did not come back.
    """
    from holdfast.integrity.backup import drill

    with (
        _opened(address, how["key_file"]) as repository,
        opened_source(settings, how) as source,
        Line(settings) as line,
    ):
        chosen = [_named(repository, name) for name in names]
        signer = source.signer(repository.keys[0])
        if signer is None:
            raise UsageError(f"{source.name} does not have the key of these backups", hint="--from PLACE")
        found = drill(repository, signer, chosen, room=how["room"], told=line.told)
    for each in found.backups:
        if not each.ok:
            settings.show.complain(f"{each.backup} did not come back: {each.error}")
    good = sum(each.ok for each in found.backups)
    text = f"{good} of {count_text(len(found.backups), 'backup')} came back and proved themselves"
    settings.show.result(text, {"ok": found.ok, **_document(found)})
    return 0 if found.ok else 9


@backup_command.command("restore")
@_address
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--backup", "name", default="", metavar="BACKUP", help="this one, by the beginning of its name")
@click.option("--at", default="", metavar="TIME", help="as it was then; of a hub: what had arrived by then")
@click.option("--seq", type=click.IntRange(0), help="up to this record of the one log, or this position of a hub")
@click.option("--only", "agent", default="", metavar="AGENT", help="this agent's log alone")
@click.option("--keys", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR",
              help="a directory that has the keys.db to go on with")  # fmt: skip
@click.option(
    "--unknown-erasures", is_flag=True, help="although newer backups, which know what was erased, are damaged"
)
@_key
@_signer
@click.pass_obj
def restore_command(settings: Settings, /, address: str, target: Path, name: str, at: str, **how: Any) -> None:
    """Bring a backup back to TARGET, which must be empty; nothing is there until all of it is proven.

    Broken off, the same command goes on where it stood. What was erased since the backup was made stays erased. A node
    that is put back takes what its hub has beyond it; a hub is refilled by its nodes.

    \b
      holdfast backup restore file:/mnt/backups/laptop ./restored --keys ~/.local/share/holdfast
      holdfast backup restore s3://backups/hub /srv/holdfast-restored --at 2026-11-20T12:00Z --keys /etc/holdfast/keys
    """
    from holdfast.clock import parse_time
    from holdfast.integrity.backup import Moment, restore

    has_keys = True

    def finish(work: Path, documents: dict[str, bytes]) -> None:
        nonlocal has_keys
        if documents.get("kind") == b"hub":
            from holdfast.hub.backup import finish_hub as finishing
        else:
            from holdfast.node.backup import finish_node as finishing
        has_keys = finishing(work, documents, how["keys"])

    lasting()
    at_ms = parse_time(at) if at else None
    moment = Moment(backup=name, at_ms=at_ms, seq=how["seq"], agent=how["agent"])
    with _opened(address, how["key_file"], how["signer"]) as repository, Line(settings) as line:
        unknown = how["unknown_erasures"]
        made = restore(repository, target, moment, finish=finish, unknown_erasures=unknown, told=line.told)
    again = "; went on with one that was broken off" if made.resumed else ""
    text = (
        f"restored {count_text(made.records, 'record')} and {count_text(made.blobs, 'blob')} of {made.backup} to"
        f" {made.target} in {seconds_text(made.seconds)}{again}\n"
        f"verified: every record, chain and {count_text(made.signatures, 'signature')}"
    )
    if made.erased:
        text += f"; {count_text(made.erased, 'payload')} that {'was' if made.erased == 1 else 'were'} erased stayed so"
    settings.show.result(text, {"ok": True, "keys": has_keys, **_document(made)})
    if not has_keys:
        settings.show.warn(
            "the private keys are not in the backup", hint=f"copy your keys.db to {target} before it is opened"
        )


@backup_command.command("prune")
@_address
@click.option("--preset", type=click.Choice(["usual", "day"]),
              help="usual: 2 days, 48 hourly, 14 daily, 8 weekly, 12 monthly; day: 24 hours")  # fmt: skip
@click.option("--keep-last", "last", default=0, type=click.IntRange(0), help="the newest, so many")
@click.option("--keep-hourly", "hourly", default=0, type=click.IntRange(0), help="one of each of so many hours")
@click.option("--keep-daily", "daily", default=0, type=click.IntRange(0), help="one of each of so many days")
@click.option("--keep-weekly", "weekly", default=0, type=click.IntRange(0), help="one of each of so many weeks")
@click.option("--keep-monthly", "monthly", default=0, type=click.IntRange(0), help="one of each of so many months")
@click.option("--keep-within", "within", default="", metavar="TIME", help="all that are not older: 36h, 2d, 1w")
@click.option("--interval", default="1d", show_default=True, metavar="TIME", help="how often backups are drilled")
@click.option("--many", is_flag=True, help="that there are many new backups is as it should be")
@click.option(
    "--damaged", is_flag=True, help="first let go of those whose manifests are damaged: nobody can restore them"
)
@click.option("--dry-run", is_flag=True, help="only look")
@click.pass_obj
def prune_command(settings: Settings, /, address: str, **how: Any) -> None:
    """Let go of old backups, and of what only they referred to.

    Whatever one rule keeps, stays; so do the newest verified backup and all after it. It refuses when the last drill
    failed, when nothing was verified for two intervals, and when far more backups were made than usual. What nothing
    refers to any more is deleted two days later, by the next prune.

    \b
      holdfast backup prune file:/mnt/backups/laptop --preset usual --dry-run
      holdfast backup prune file:/mnt/backups/laptop --keep-within 2d --keep-daily 14
    """
    from holdfast.integrity.backup import prune

    policy, dry = _policy(how), how["dry_run"]
    with _opened(address, None) as repository:
        for name in repository.readable()[1] if how["damaged"] else ():
            settings.show.note(f"{'would let' if dry else 'let'} go of {name}, which is damaged")
            if not dry:
                repository.forget(name)
        done = prune(repository, policy, dry_run=dry, interval_ms=milliseconds(how["interval"]), many=how["many"])
    for name in done.removed if dry else ():
        settings.show.note(f"would let go of {name}")
    text = (
        f"{'would keep' if dry else 'kept'} {count_text(len(done.kept), 'backup')}, let go of {len(done.removed)};"
        f" {count_text(done.deleted, 'object')} ({size_text(done.deleted_bytes)}) deleted,"
        f" {done.marked + done.waiting:,} to be deleted once two days are over"
    )
    settings.show.result(text, {"ok": True, "dry_run": dry, **_document(done)})


@backup_command.command("run")
@_address
@_from
@_key
@_blobs
@click.option("--drill-every", default=configured("backup.drill_every", suffix="s"), show_default="1d", metavar="TIME",
              help="how often to drill")  # fmt: skip
@click.option("--preset", type=click.Choice(["usual", "day", "none"]), default=configured("backup.preset"),
              show_default="usual",
              help="what prune keeps afterwards")  # fmt: skip
@click.option("--with-keys", is_flag=True, help="also the private keys; only in a sealed repository")
@click.pass_obj
def run_command(settings: Settings, /, address: str, **how: Any) -> int:
    """Create, drill when one is due, and prune: all that a timer has to call. `serve --backup` calls it by itself.

    \b
      holdfast backup run file:/mnt/backups/laptop
      0 * * * *  holdfast backup run s3://backups/laptop --key /etc/holdfast/backup.key
    """
    from holdfast.clock import SYSTEM
    from holdfast.integrity.backup import PRESETS, create, drill, prune

    every = milliseconds(how["drill_every"])
    with _opened(address, how["key_file"]) as repository, opened_source(settings, how) as source:
        made = create(repository, source)
        drills = repository.drills()
        drilled = pruned = None
        refused = ""
        verified = repository.verified().intersection(repository.names())
        due = not drills or not drills[-1].ok or SYSTEM.now_ms() - drills[-1].made_ms >= every
        # Until there are two, nothing settles.
        if due or (len(verified) < 2 and len(repository.names()) > len(verified)):
            signer = source.signer(repository.keys[0])
            assert signer is not None  # create has signed with it
            drilled = drill(repository, signer)
        if how["preset"] != "none" and (drilled is None or drilled.ok):
            try:
                pruned = prune(repository, PRESETS[how["preset"]], interval_ms=every)
            except Conflict as error:
                refused = error.message
                settings.show.warn(refused, hint=error.hint)
    ok = drilled is None or drilled.ok
    text = f"backup {made.backup}: {made.new_records:,} new records, {size_text(made.bytes)}"
    if drilled is not None:
        text += "; drilled" if ok else "; THE DRILL FAILED: " + "; ".join(e.error for e in drilled.backups if e.error)
    if pruned is not None and pruned.removed:
        text += f"; let go of {len(pruned.removed)}"
    told = {"ok": ok, "created": _document(made)}
    told |= {"drill": drilled and _document(drilled), "pruned": pruned and _document(pruned), "refused": refused}
    settings.show.result(text, told)
    return (shell.PARTIAL if refused else 0) if ok else 9


def milliseconds(text: str) -> int:
    """A length of time: a number and s, m, h, d or w.

    Raises:
        UsageError: it is none.
    """
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if found is None or int(found[1]) == 0:
        raise UsageError(f"not a length of time: {text!r:.40}", hint="such as 30m, 36h, 2d or 1w")
    return int(found[1]) * _UNITS[found[2]]


def _policy(how: dict[str, Any]) -> Policy:
    from holdfast.integrity.backup import PRESETS, Policy

    rules = {name: how[name] for name in ("last", "hourly", "daily", "weekly", "monthly")}
    if how["preset"]:
        if how["within"] or any(rules.values()):
            raise UsageError("--preset and --keep-… exclude each other", hint="choose one")
        return PRESETS[how["preset"]]
    return Policy(**rules, within_ms=milliseconds(how["within"]) if how["within"] else 0)


@contextlib.contextmanager
def _opened(address: str, key_file: Path | None, signer: str = "") -> Iterator[Repository]:
    from holdfast.integrity.backup import Repository
    from holdfast.node.objects import open_store

    ring = None
    if key_file is not None:
        from holdfast.seal import KeyRing

        ring = KeyRing.load(key_file)
    with open_store(address) as store:
        yield Repository(store, ring, signer=signer)


@contextlib.contextmanager
def opened_source(settings: Settings, how: dict[str, Any]) -> Iterator[Source]:
    """What `--from` names, open to be read: a hub in either engine, or a node; the store if it names nothing."""
    place, with_keys = how["source"] or "", how.get("with_keys", False)
    if with_keys and how["key_file"] is None:
        raise UsageError("private keys go only into a sealed repository", hint="--key FILE")
    lasting()
    if place.startswith(("postgres:", "postgresql:")) or (
        place and (Path(place.removeprefix("sqlite:")).expanduser() / "hub.db").exists()
    ):
        from holdfast.hub.backup import hub_source

        with hub_source(place, blobs=how.get("blobs", ""), with_keys=with_keys) as source:
            yield source
        return
    from holdfast.node.backup import node_source
    from holdfast.node.directory import attach, detach

    directory = attach(Path(place).expanduser() if place else settings.need_store(), make=False)
    try:
        with node_source(directory, with_keys=with_keys) as source:
            yield source
    finally:
        detach(directory)


def _named(repository: Repository, name: str) -> str:
    from holdfast.integrity.backup.restoring import Moment, choose

    return choose(repository, Moment(backup=name))[0]


def _document(what: Any) -> dict[str, Any]:
    import msgspec

    found: dict[str, Any] = msgspec.to_builtins(what)
    return found

"""Commands that put right what was damaged: repair, and quarantine, which keeps what was."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from holdfast.cli import shell
from holdfast.cli.settings import Settings
from holdfast.cli.show import count_text, size_text
from holdfast.errors import IntegrityError, NotFound, UsageError

if TYPE_CHECKING:
    from holdfast.integrity.incidents import Kept
    from holdfast.integrity.recovery import Outcome, Plan, Policy
    from holdfast.node.repair import Tools

LINES_MAX: Final = 40


@shell.command("repair")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--plan", "only_plan", is_flag=True, help="say what is needed and what it would lose; write nothing")
@click.option(
    "--from",
    "copies",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="a copy of this store to take lost bytes from; repeat for several",
)
@click.option(
    "--backup",
    "backups",
    multiple=True,
    metavar="ADDRESS",
    help="a repository of backups of this node or its hub, to take lost bytes from  [env: HOLDFAST_BACKUP]",
)
@click.option("--key", "key_file", metavar="FILE", type=click.Path(path_type=Path), help="the keys of sealed backups")
@click.option("--signer", metavar="HEX", default="", help="the public key that must have signed the backups")
@click.option("--standby", metavar="URL", help="of a hub: another one that followed it, to take lost records from")
@click.option("--database", metavar="ADDRESS", help="repair the hub in this database (postgresql://…)")
@click.option("--rollback", is_flag=True, help="give up what nobody has: keys go back to their last intact version")
@click.option("--lost-tail", is_flag=True, help="go on behind the last record that is left")
@click.option("--mass-damage", is_flag=True, help="the disk was looked at: repair many records, or logs, at once")
@click.option("--to-time", metavar="TIME", help="have the values of that moment again; shows them, writes with --yes")
@click.option("--yes", is_flag=True, help="write what --to-time shows")
@click.pass_obj
def repair_command(
    settings: Settings, /, file: Path | None, only_plan: bool, copies: tuple[Path, ...], to_time: str | None,
    yes: bool, backups: tuple[str, ...], key_file: Path | None, signer: str, standby: str | None, database: str | None,
    **policy: bool,
) -> int:  # fmt: skip
    """Put right what is damaged in this store, as far as it can be proven; say why where it cannot.

    Nobody may have the store open. Damaged files are copied into quarantine first, and every attempt is noted there,
    in the log, and through it at the hub. Lost bytes come from hubs, this machine, copies and backups.

    Of a hub's directory (--store DIR) the file comes back from its newest backup (--backup) and from what it proves
    that, and from its standby (--standby); its nodes bring the rest.

    With --plan, FILE is where the plan goes; without, it is the plan to keep to: what has changed since is left alone.
    The exit code is 9 when something is damaged still.

    \b
      holdfast repair --plan
      holdfast repair --plan today.json && holdfast repair today.json
      holdfast repair --from /mnt/copy/store --backup file:/mnt/backups/laptop
      holdfast repair --to-time 2026-11-20T12:00:00Z
    """
    given = backups or tuple(filter(None, [os.environ.get("HOLDFAST_BACKUP")]))
    ring = None
    if key_file is not None:
        from holdfast.seal import KeyRing

        ring = KeyRing.load(key_file)
    if database and settings.store:
        raise UsageError("a directory and a database for this hub", hint="give --store or --database")
    if database or _is_hub(settings.path):
        if not database:
            settings.tell_outranked("serve.database", "the directory")
        whose = (ring, signer, standby)
        return _hub(settings, only_plan, (file, copies, to_time, yes), given, whose, policy, database)
    if standby:
        raise UsageError("--standby is for a hub's directory or database", hint="a node asks its hubs by itself")
    path = settings.need_store()
    if to_time is not None:
        return _to_time(settings, path, to_time, yes)
    if yes:
        raise UsageError("--yes is for --to-time alone", hint="proven steps need no word, others their own option")
    from holdfast.integrity.recovery import Policy
    from holdfast.node import repair
    from holdfast.node.refetch import StoreSource

    token = settings.token_path if settings.hub_urls and settings.token else None
    with contextlib.ExitStack() as stack:
        sources = [stack.enter_context(contextlib.closing(StoreSource(copy))) for copy in copies]
        tools = repair.Tools(hubs=settings.hub_urls, token=token, sources=sources)
        tools = msgspec.structs.replace(tools, backups=given or None, ring=ring, signer=signer)
        return _run(settings, tools, Policy(**policy), file, only_plan=only_plan)


def _run(settings: Settings, tools: Tools, policy: Policy, file: Path | None, *, only_plan: bool) -> int:
    from holdfast.integrity.recovery import plan_json
    from holdfast.node import repair

    path = settings.path
    if only_plan:
        plan = repair.plan(path, tools, policy)
        if file is not None:
            _write(file, msgspec.json.format(msgspec.json.encode(plan_json(plan)), indent=1))
        if settings.as_json:
            settings.show.document(plan_json(plan))
        else:
            _print_plan(settings, plan)
        return 0 if plan.sound else IntegrityError.exit_code
    return _told(settings, repair.repair(path, tools, policy, only=None if file is None else _read(file)))


def _told(settings: Settings, outcome: Outcome) -> int:
    from holdfast.integrity.recovery import plan_json

    if settings.as_json:
        told = {"repaired": outcome.repaired, "blobs": outcome.blobs, "attempts": outcome.attempts}
        settings.show.document({**plan_json(outcome.plan), **told, "done": outcome.done})
    else:
        _print_plan(settings, outcome.plan, done=True)
        for agent in outcome.repaired:
            settings.show.line(f"repaired  {agent}")
        if outcome.blobs:
            settings.show.line(f"repaired  {count_text(outcome.blobs, 'blob')}")
    return 0 if outcome.done else IntegrityError.exit_code


def _is_hub(path: Path) -> bool:
    """Whether a directory is a hub's; its file may be what was lost."""
    return (path / "hub.db").is_file() or ((path / "keys.db").is_file() and not (path / "config.json").is_file())


def _hub(
    settings: Settings, only_plan: bool, others: tuple[Any, ...], backups: tuple[str, ...],
    whose: tuple[Any, str, str | None], policy: dict[str, bool], database: str | None,
) -> int:  # fmt: skip
    from holdfast.hub import repair
    from holdfast.hub.repair_database import plan_database, repair_database
    from holdfast.integrity.recovery import Policy, plan_json

    rollback, said = policy.pop("rollback"), Policy(**policy)
    if any(others) or rollback:
        raise UsageError(
            f"{settings.path} is a hub's directory: FILE, --from, --rollback and --to-time are for nodes",
            hint="--backup, --standby, --lost-tail and --mass-damage are for hubs: docs/recovery.md",
        )
    tools = repair.Tools(backups=backups, ring=whose[0], signer=whose[1])
    if whose[2]:
        from holdfast.hub.repair_standby import Standby

        tools = msgspec.structs.replace(tools, standby=Standby(whose[2], settings.token))
    if only_plan:
        plan = plan_database(database, tools, said) if database else repair.plan(settings.path, tools, said)
        if settings.as_json:
            settings.show.document(plan_json(plan))
        else:
            _print_plan(settings, plan)
        return 0 if plan.sound else IntegrityError.exit_code
    return _told(
        settings, repair_database(database, tools, said) if database else repair.repair(settings.path, tools, said)
    )


def _print_plan(settings: Settings, plan: Plan, *, done: bool = False) -> None:
    show = settings.show
    if plan.sound:
        show.line(f"nothing to repair: {count_text(plan.logs, 'log')} looked at")
        return
    for step in plan.steps[:LINES_MAX]:
        sign = show.paint("proven", "green") if step.proven else show.paint("lossy ", "yellow")
        show.line(f"{sign}  {step}")
    if len(plan.steps) > LINES_MAX:
        show.line(f"and {len(plan.steps) - LINES_MAX} more: --json shows all")
    for name, why in plan.away.items():
        show.warn(f"{name} could not help: {why}")
    for refusal in plan.refusals:
        show.warn(f"{'left alone' if done else 'would be left alone'}: {refusal}", hint=refusal.hint)


def _to_time(settings: Settings, path: Path, text: str, yes: bool) -> int:
    from holdfast import clock
    from holdfast.node import repair

    moment = clock.pack(clock.parse_time(text), clock.COUNTER_MAX)
    found = repair.to_moment(path, settings.who, moment, confirmed=yes)
    if settings.as_json:
        settings.show.document({"agent": settings.who, "written": yes, "changes": [each.to_json() for each in found]})
        return 0
    rows = [(each.collection, each.key, _version(each.now), _version(each.then)) for each in found]
    settings.show.table(("COLLECTION", "KEY", "NOW", "THEN"), rows)
    said = f"{count_text(len(found), 'key')} {'taken back' if yes else 'would be taken back'} to {text}"
    settings.show.line(said if yes or not found else f"{said}; --yes does it")
    return 0


def _version(number: int) -> str:
    return str(number) if number else "-"


def _write(file: Path, data: bytes) -> None:
    try:
        with open(file, "xb") as out:
            out.write(data)
    except FileExistsError:
        raise UsageError(f"{file} is there already", hint="give the plan a name of its own") from None


def _read(file: Path) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(file.read_bytes())
    except FileNotFoundError:
        raise NotFound(f"there is no plan {file}", hint="holdfast repair --plan FILE makes one") from None
    except msgspec.DecodeError as error:
        raise UsageError(f"{file} is no plan: {error}", hint="holdfast repair --plan FILE makes one") from error
    if not isinstance(found, dict):
        raise UsageError(f"{file} is no plan", hint="holdfast repair --plan FILE makes one")
    return found


@shell.room("quarantine")
def quarantine_command() -> None:
    """What was damaged, kept as it was found, and what was tried with it."""


@quarantine_command.command("ls")
@click.pass_obj
def ls_command(settings: Settings) -> None:
    """List the incidents of this store, oldest first."""
    found = _incidents(settings)
    if settings.as_json:
        settings.show.document({"incidents": [msgspec.structs.asdict(each) for each in found]})
        return
    rows = [
        (each.incident, each.where or "node", size_text(each.bytes) if each.here else "released", _last(each))
        for each in found
    ]
    settings.show.table(("INCIDENT", "LOG", "KEPT", "OUTCOME"), rows)


@quarantine_command.command("show")
@click.argument("incident")
@click.pass_obj
def show_command(settings: Settings, incident: str) -> None:
    """Show one incident: the files that are kept, and every attempt to recover from it."""
    found = next((each for each in _incidents(settings) if each.incident == incident), None)
    if found is None:
        raise NotFound(f"no incident {incident} here", hint="holdfast quarantine ls")
    if settings.as_json:
        settings.show.document(msgspec.structs.asdict(found))
        return
    show = settings.show
    show.line(f"{found.incident}  {found.where or 'node'}  {found.time}  {found.path if found.here else 'released'}")
    for finding in found.note.get("findings") or ():
        show.line(f"  found     {finding}")
    for file in found.files:
        show.line(f"  kept      {file.get('name')}  {size_text(int(file.get('size') or 0))}  {file.get('sha256')}")
    for each in found.attempts:
        show.line(f"  {each.get('time')}  {each.get('outcome') or ('released' if each.get('released') else 'noted')}")
        for why in each.get("refusals") or ():
            show.line(f"            {why}")


@quarantine_command.command("release")
@click.argument("incident")
@click.option("--yes", is_flag=True, help="the copies are not needed any more")
@click.pass_obj
def release_command(settings: Settings, incident: str, yes: bool) -> None:
    """Remove the copies of an incident, and let its log be written again if that had been stopped."""
    from holdfast.clock import SYSTEM
    from holdfast.integrity import incidents

    found = next((each for each in _incidents(settings) if each.incident == incident and each.here), None)
    if found is None:
        raise NotFound(f"no incident {incident} is kept here", hint="holdfast quarantine ls")
    if not yes:
        raise UsageError(
            f"{size_text(found.bytes)} of evidence would be gone for good", hint="look with quarantine show; then --yes"
        )
    incidents.release(Path(found.path).parents[1], incident, SYSTEM)
    if _is_hub(settings.path):
        _tell_hub(settings.path, incident)
    settings.show.result(f"released {incident}", {"incident": incident, "bytes": found.bytes})


def _tell_hub(path: Path, incident: str) -> None:
    from holdfast.hub import acts
    from holdfast.hub.tokens import SqliteTokens

    with contextlib.closing(SqliteTokens(path)) as store:
        acts.tell(store.acts(), acts.Act(by=acts.by_machine(), what=acts.RELEASE, about=incident))


def _incidents(settings: Settings) -> list[Kept]:
    from holdfast.node.repair import all_incidents

    return all_incidents(settings.path if _is_hub(settings.path) else settings.need_store())


def _last(kept: Kept) -> str:
    said = [str(each["outcome"]) for each in kept.attempts if each.get("outcome")]
    return said[-1] if said else "frozen"

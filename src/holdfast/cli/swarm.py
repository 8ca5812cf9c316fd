"""`holdfast-storage` and `holdfast-integrity`: the swarm's storage from the shell, with the flags of its report."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from holdfast.cli import shell
from holdfast.cli.settings import Settings
from holdfast.cli.show import clock_text, count_text, safe, seconds_text, size_text
from holdfast.cli.values import given, pretty, raw
from holdfast.errors import IntegrityError, NoStore, UsageError

if TYPE_CHECKING:
    from holdfast.integrity import DataIntegrityManager, IntegrityCheck, PersistentDataStorage

DIRECTORY: Final = "HOLDFAST_DATA"
_DIR = click.option(
    "--dir", "path", metavar="PATH", help="the storage [$HOLDFAST_DATA, else $XDG_DATA_HOME/holdfast-data]"
)
_PLACE = click.option("--backup-to", metavar="ADDRESS", help="where backups lie, such as s3://… [below the storage]")
_TYPES = ("messages", "tasks", "status", "config", "logs")


@shell.lone("holdfast-storage", no_args_is_help=True)
@click.option("--store", metavar="ID", help="store --data, or --file, under this name")
@click.option("--data", metavar="JSON", help="JSON, else text; - is standard input")
@click.option(
    "--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="a file's bytes, however many"
)
@click.option("--type", "data_type", type=click.Choice(_TYPES), help="of a new name [messages]")
@click.option("--level", type=click.Choice(["basic", "advanced", "critical"]), help="what a write survives [advanced]")
@click.option("--kind", type=click.Choice(["file_based", "database", "hybrid"]), help="of a new storage [hybrid]")
@click.option("--retrieve", metavar="ID", help="print a value")
@click.option("--version", type=click.IntRange(1), help="an earlier one")
@click.option("--delete", metavar="ID", help="take a value away; its versions stay")
@click.option("--status", is_flag=True, help="what there is")
@click.option("--backup", is_flag=True, help="back up what has changed")
@click.option("--cleanup", is_flag=True, help="take away backups older than a day, but for the newest")
@_DIR
@_PLACE
@click.pass_obj
def storage_program(settings: Settings, /, path: str | None, backup_to: str | None, **asked: Any) -> int:
    """Store and retrieve values of a swarm of agents, each checked by its SHA-256 whenever it is read.

    \b
      holdfast-storage --store agent-1/plan --data '{"goal": "map the reef"}' --type tasks
      holdfast-storage --retrieve agent-1/plan
      holdfast-storage --backup
    """
    from holdfast.integrity import PersistentDataStorage

    action = _only(asked, "store", "retrieve", "delete", "status", "backup", "cleanup")
    _fits(asked, action)
    home = _home(path, must_be=action != "store")
    level = asked["level"]
    with PersistentDataStorage(home, asked["kind"], level, backup_interval_s=None, backup_to=backup_to) as storage:
        return _STORAGE[action](settings, storage, asked)


def _store(settings: Settings, storage: PersistentDataStorage, asked: dict[str, Any]) -> int:
    data = asked["file"] if asked["file"] is not None else given(asked["data"])
    meta = storage.store(asked["store"], data, asked["data_type"])
    settings.show.result(f"{meta.data_id} version {meta.version}, {size_text(meta.size)}", _document(meta))
    return 0


def _retrieve(settings: Settings, storage: PersistentDataStorage, asked: dict[str, Any]) -> int:
    data_id, version = asked["retrieve"], asked["version"]
    value = storage.retrieve(data_id, version)
    if settings.as_json:
        meta = _document(storage.metadata(data_id, version))
        encoded = {"encoding": "base64"} if isinstance(value, bytes) else {}
        settings.show.document({**meta, "value": value, **encoded})
    elif isinstance(value, bytes):
        settings.show.raw(raw(value))
    else:
        settings.show.line(pretty(value))
    return 0


def _delete(settings: Settings, storage: PersistentDataStorage, asked: dict[str, Any]) -> int:
    gone = storage.delete(asked["delete"])
    text = f"{asked['delete']} is deleted" if gone else f"there is no {asked['delete']}"
    settings.show.result(text, {"data_id": asked["delete"], "deleted": gone})
    return 0


def _status(settings: Settings, storage: PersistentDataStorage, _: dict[str, Any]) -> int:
    found = storage.status()
    wrong = [*(f"{safe(name)} cannot be read" for name in found["damaged"]), *found["incidents"]]
    wrong += [] if found["writable"] else [f"the disk is full: {size_text(found['free_bytes'])} free"]
    if settings.as_json:
        settings.show.document({**found, "ok": not wrong})
    else:
        show = settings.show
        show.line(f"storage  {found['path']}   {found['storage_type']}   level {found['integrity_level']}")
        show.line("values   " + ", ".join(f"{count:,} {kind}" for kind, count in found["values"].items()))
        last = clock_text(found["last_backup"]) if found["last_backup"] else "never"
        show.line(f"backups  {found['backups']:,}, the newest {last}")
        for text in wrong:
            show.warn(text, hint="holdfast-integrity --scan")
    return 1 if wrong else 0


def _backup(settings: Settings, storage: PersistentDataStorage, _: dict[str, Any]) -> int:
    made = storage.backup()
    for data_id, why in made.failed.items():
        settings.show.warn(f"{safe(data_id)}: {safe(why)}", hint="holdfast-integrity --scan")
    text = f"backup {made.backup_id}: {count_text(made.values, 'value')}, {made.written:,} of them new"
    settings.show.result(f"{text} ({size_text(made.written_bytes)})", msgspec.to_builtins(made))
    return shell.PARTIAL if made.failed else 0


def _cleanup(settings: Settings, storage: PersistentDataStorage, _: dict[str, Any]) -> int:
    gone = storage.cleanup()
    told = f"{count_text(gone['backups'], 'backup')} and {count_text(gone['copies'], 'copy', 'copies')} taken away"
    settings.show.result(told, gone)
    return 0


Action = Callable[[Settings, Any, dict[str, Any]], int]
_STORAGE: Final[dict[str, Action]] = {
    "store": _store,
    "retrieve": _retrieve,
    "delete": _delete,
    "status": _status,
    "backup": _backup,
    "cleanup": _cleanup,
}


@shell.lone("holdfast-integrity", no_args_is_help=True)
@click.option("--start", is_flag=True, help="scan every five minutes, until Ctrl-C")
@click.option("--interval", type=click.FloatRange(0.01), default=300.0, show_default=True, help="seconds between scans")
@click.option("--check", metavar="ID", help="the five checks of a value")
@click.option("--status", is_flag=True, help="what was recovered so far, and whether anything is damaged")
@click.option("--scan", is_flag=True, help="check every value, and the log as a whole")
@click.option("--drill", is_flag=True, help="restore the newest backup elsewhere, and check all of it")
@click.option("--recover", metavar="ID", help="bring a value back by --strategy")
@click.option("--strategy", metavar="NAME", help="such as version_rollback; it may lose what is newer")
@click.option("--version", type=click.IntRange(1), help="the version to roll back to")
@click.option("--at", type=float, help="the time to roll back to, in seconds since 1970")
@click.option("--rescue", is_flag=True, help="a new log from the newest backup, where the log cannot be opened")
@click.option("--no-recover", is_flag=True, help="only look: --check and --scan write nothing")
@click.option("--allow-loss", is_flag=True, help="go back to an older version where the newest is gone")
@_DIR
@_PLACE
@click.pass_obj
def integrity_program(settings: Settings, /, path: str | None, backup_to: str | None, **asked: Any) -> int:
    """Check a storage, and bring back what is damaged where that can be proven. The exit code is 9 where it cannot.

    \b
      holdfast-integrity --scan
      holdfast-integrity --check agent-1/plan
      holdfast-integrity --recover agent-1/plan --strategy version_rollback
    """
    from holdfast.integrity import DataIntegrityManager, PersistentDataStorage

    action = _only(asked, "start", "check", "status", "scan", "drill", "recover", "rescue")
    home = _home(path, must_be=True)
    if action == "rescue":
        from holdfast.integrity.swarm.restoring import rescue

        told = rescue(home, backup_to=backup_to)
        settings.show.result(told, {"ok": True, "what": told})
        return 0
    with PersistentDataStorage(home, backup_interval_s=None, backup_to=backup_to) as storage:
        manager = DataIntegrityManager(
            storage,
            scan_interval_s=asked["interval"],
            auto_recover=not asked["no_recover"],
            allow_loss=asked["allow_loss"],
        )
        with manager:
            return _INTEGRITY[action](settings, manager, asked)


def _start(settings: Settings, manager: DataIntegrityManager, _: dict[str, Any]) -> int:
    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        manager.start()
        every = seconds_text(manager.scan_interval_s)
        settings.show.note(f"scanning {manager.storage.path} every {every}; Ctrl-C ends it")
        sys.stderr.flush()
        ended.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        manager.stop()
    return _say_status(settings, manager)


def _check(settings: Settings, manager: DataIntegrityManager, asked: dict[str, Any]) -> int:
    return _say(settings, manager.check(asked["check"]), [])


def _scan(settings: Settings, manager: DataIntegrityManager, _: dict[str, Any]) -> int:
    failed = manager.scan()
    status = manager.status()
    code = _say(settings, failed, status["whole"], status["checks"])
    return code


def _say(settings: Settings, checks: list[IntegrityCheck], whole: list[str], count: int = 0) -> int:
    """Prints what the checks found; 9 unless all of it was recovered."""
    left = [check for check in checks if not check.passed and not check.recovery_successful]
    bad = bool(left or whole)
    if settings.as_json:
        found = [_document(check) for check in checks]
        settings.show.document({"ok": not bad, "checks": found, "whole": whole, "count": count or len(checks)})
        return IntegrityError.exit_code if bad else 0
    for check in checks:
        sign, color = ("ok  ", "green") if check.passed else ("fail", "red")
        if check.recovery_successful:
            sign, color = "back", "yellow"
        text = "; ".join(check.details.get("problems", ()))
        name = check.check_type.name
        settings.show.line(
            f"{settings.show.paint(sign, color)}  {name:17}  {safe(check.data_id)}  {safe(text)}".rstrip()
        )
    for each in whole:
        settings.show.line(f"{settings.show.paint('fail', 'red')}  the log            {safe(each)}")
    recovered = {check.data_id for check in checks if check.recovery_successful}
    lost = {check.data_id for check in left}
    settings.show.line(
        f"{count_text(count or len(checks), 'check')}; {len(recovered):,} recovered, {len(lost):,} damaged"
    )
    return IntegrityError.exit_code if bad else 0


def _say_status(settings: Settings, manager: DataIntegrityManager, _: dict[str, Any] | None = None) -> int:
    status = manager.status()
    damaged = {*manager.storage.status()["damaged"], *status["damaged"]}
    status = {**status, "damaged": sorted(damaged), "ok": not damaged}
    tried = f"{count_text(status['attempts'], 'attempt')} to recover, {status['attempts_successful']:,} successful"
    text = f"{count_text(status['scans'], 'scan')}; {tried}; {len(damaged):,} damaged"
    settings.show.result(text, status)
    return IntegrityError.exit_code if damaged else 0


def _drill(settings: Settings, manager: DataIntegrityManager, _: dict[str, Any]) -> int:
    from holdfast.integrity.swarm.restoring import drill

    found = drill(manager.storage)
    for data_id, why in found.failed.items():
        settings.show.warn(f"{safe(data_id)}: {safe(why)}")
    text = f"backup {found.backup_id}: {found.proven:,} of {count_text(found.values, 'value')} restored and proven"
    settings.show.result(text, {"ok": found.sound, **msgspec.to_builtins(found)})
    return 0 if found.sound else IntegrityError.exit_code


def _recover(settings: Settings, manager: DataIntegrityManager, asked: dict[str, Any]) -> int:
    tried = manager.recover(asked["recover"], asked["strategy"], version=asked["version"], at=asked["at"])
    done = tried[-1].successful
    lines = [f"{each.strategy.name}: {'' if each.successful else 'not done: '}{safe(each.what)}" for each in tried]
    settings.show.result("\n".join(lines), {"ok": done, "attempts": msgspec.to_builtins(tried)})
    return 0 if done else IntegrityError.exit_code


_INTEGRITY: Final[dict[str, Action]] = {
    "start": _start,
    "check": _check,
    "status": _say_status,
    "scan": _scan,
    "drill": _drill,
    "recover": _recover,
}


def storage(args: list[str] | None = None) -> None:
    """The program `holdfast-storage`."""
    sys.exit(shell.carry_out(storage_program, sys.argv[1:] if args is None else args, "holdfast-storage"))


def integrity(args: list[str] | None = None) -> None:
    """The program `holdfast-integrity`."""
    sys.exit(shell.carry_out(integrity_program, sys.argv[1:] if args is None else args, "holdfast-integrity"))


def _only(asked: dict[str, Any], *actions: str) -> str:
    """The one thing that is asked for."""
    chosen = [name for name in actions if asked[name] not in (None, False)]
    if len(chosen) != 1:
        what = "nothing to do" if not chosen else f"--{chosen[0]} and --{chosen[1]} at once"
        raise UsageError(what, hint="one of " + ", ".join(f"--{name}" for name in actions))
    return chosen[0]


def _fits(asked: dict[str, Any], action: str) -> None:
    given_data = [name for name in ("data", "file") if asked[name] is not None]
    if (action == "store") != (len(given_data) == 1):
        hint = "holdfast-storage --store ID --data JSON"
        raise UsageError("--store needs --data or --file, and nothing else does", hint=hint)


def _home(given_path: str | None, *, must_be: bool) -> Path:
    """The storage's directory.

    Raises:
        NoStore: there is none, and there should be.
    """
    text = given_path or os.environ.get(DIRECTORY)
    if not text:
        text = str(Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share") / "holdfast-data")
    home = Path(text).expanduser()
    if must_be and not (home / "storage.json").exists():
        raise NoStore(f"no storage at {home}", hint=f"--dir or ${DIRECTORY}; holdfast-storage --store makes one")
    return home


def _document(found: Any) -> dict[str, Any]:
    """A dataclass with its enumerations by name, as JSON has it."""
    return {name: getattr(value, "name", value) for name, value in dataclasses.asdict(found).items()}

"""How `holdfast migrate objects` is carried out and told."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from holdfast.cli.settings import Settings
from holdfast.cli.shell import PARTIAL
from holdfast.cli.show import count_text, safe, seconds_text, size_text
from holdfast.errors import UsageError
from holdfast.node.objects import open_store
from holdfast.objects.moving.journal import Journal
from holdfast.objects.moving.migrate import Moved, Mover, roll_back
from holdfast.objects.moving.switch import SwitchStore

SHOWN: int = 10
Told = Callable[[str, int, int], None]


def migrate(settings: Settings, source: str, target: str, options: dict[str, Any], told: Told) -> int:
    """Does what the command line says; the exit code.

    Raises:
        UsageError: options that do not go together.
        StorageError: a store failed.
    """

    def told_copied(objects: int, _: int) -> None:
        told("objects", objects, 0)

    if source.startswith("switch:"):
        return _switch(settings, source, target, options, told_copied)
    for name in ("hold", "finish"):
        if options[name]:
            raise UsageError(f"--{name} is about a switch", hint="SOURCE is then switch:FILE")
    if not target:
        raise UsageError("where to? TARGET is missing", hint="such as sqlite:objects.db")
    path = options["journal"] or _journal(source, target)
    with contextlib.ExitStack() as stack:
        here = stack.enter_context(open_store(source))
        there = stack.enter_context(open_store(target))
        if options["rollback"] and not Path(path).exists():
            raise UsageError(
                f"there is no journal {path}: nothing was copied from here", hint="--journal names another"
            )
        journal = Journal(path)
        stack.callback(journal.close)
        journal.bind(source, target)
        if options["rollback"]:
            moved = roll_back(there, journal)
            return _rolled_back(settings, moved, target)
        mover = Mover(
            here,
            there,
            journal,
            parallel=options["parallel"],
            overwrite=options["overwrite"],
            told=told_copied,
        )
        moved = mover.look() if options["dry_run"] else mover.run()
    code = _say(settings, moved, dry_run=options["dry_run"])
    if not options["dry_run"]:
        settings.show.note(f"the journal is {path}: keep it to go on, or to take the copies back with --rollback")
    return code


def _switch(
    settings: Settings, source: str, target: str, options: dict[str, Any], told: Callable[[int, int], None]
) -> int:
    path = source.partition(":")[2]
    if options["dry_run"] or options["overwrite"] or options["journal"]:
        raise UsageError(
            "a switch keeps its own journal, and copies what it has to", hint="--hold copies without switching"
        )
    if options["rollback"] and options["finish"]:
        raise UsageError("--rollback and --finish exclude each other", hint="choose one")
    if not path or (not target and not (options["rollback"] or options["finish"])):
        raise UsageError("where to? TARGET is missing", hint="such as s3://agents; or --rollback, or --finish")
    made = not Path(path).exists() and target
    with SwitchStore(path, store=target if made else "", opener=open_store) as switch:
        if options["rollback"]:
            count = switch.roll_back()
            text = f"back at {switch.state[1]}; {count_text(count, 'key')} written since copied back"
            settings.show.result(text, {"ok": True, "at": switch.state[1], "copied_back": count})
            return 0
        if options["finish"]:
            switch.finish()
            settings.show.result(f"at {switch.state[1]} for good", {"ok": True, "at": switch.state[1]})
            return 0
        if made:
            text = f"made {path}: it points at {target}; open {source} in place of {target}"
            settings.show.result(text, {"ok": True, "at": target, "made": path})
            return 0
        moved = switch.move(target, parallel=options["parallel"], hold=options["hold"], told=told)
        code = _say(settings, moved, dry_run=False)
        phase, here, there = switch.state
    if phase == "switched":
        settings.show.note(f"{source} points at {here} now; --rollback goes back to {there}, --finish ends it")
    else:
        settings.show.note(f"{source} points at {here} as before; the same command goes on")
    return code


def _say(settings: Settings, moved: Moved, *, dry_run: bool) -> int:
    for what, keys in (("is something else in the target", moved.conflicts), ("failed", list(moved.failed))):
        for key in keys[:SHOWN]:
            why = moved.failed.get(key, "")
            settings.show.warn(f"{safe(key)}: {what}{': ' if why else ''}{safe(why)}")
        if len(keys) > SHOWN:
            settings.show.warn(f"and {count_text(len(keys) - SHOWN, 'more such key')}")
    parts = [f"{count_text(moved.copied, 'object')}, {size_text(moved.copied_bytes)}"]
    parts += [f"{moved.known:,} copied before"] if moved.known else []
    parts += [f"{moved.same:,} there already"] if moved.same else []
    parts += [f"{moved.removed:,} no longer in the source taken away"] if moved.removed else []
    if dry_run:
        text = f"would copy {'; '.join(parts)}: from {moved.source} to {moved.target}"
    else:
        text = f"copied {'; '.join(parts)} in {seconds_text(moved.seconds)}: from {moved.source} to {moved.target}"
        text += "\nverified: each copy was read back and has the digest of its original" if moved.complete else ""
    settings.show.result(text, {"ok": moved.complete, "dry_run": dry_run, **msgspec.to_builtins(moved)})
    return 0 if moved.complete else PARTIAL


def _rolled_back(settings: Settings, moved: Moved, target: str) -> int:
    for key in moved.conflicts[:SHOWN]:
        settings.show.warn(f"{safe(key)}: was changed in the target since; it stays")
    text = f"took {count_text(moved.removed, 'copy', 'copies')} out of {target} again"
    settings.show.result(text, {"ok": moved.complete, **msgspec.to_builtins(moved)})
    return 0 if moved.complete else PARTIAL


def _journal(source: str, target: str) -> str:
    """The file that this very migration has here, whoever calls it again."""
    names = f"{source}\n{target}".encode()
    return f"holdfast-move-{hashlib.sha256(names).hexdigest()[:8]}.db"

"""Backups: where they go, how they stand, what there is; back up, verify, drill, prune, and go back to one."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from holdfast.clock import iso
from holdfast.errors import Conflict, NotFound, UsageError
from holdfast.hub import acts, audit
from holdfast.hub.care import Run
from holdfast.hub.ui.pages import ROWS
from holdfast.hub.ui.routes import Ask, View
from holdfast.hub.ui.running import RunShown, actor, may_act, result_of, shown
from holdfast.hub.ui.words import iso_if, many, size_text, span_text

NAME_SHOWN: Final = 22
"""Letters of a backup's name that say which it is, as `holdfast backup ls` shows them."""
PRESETS: Final = {
    "usual": "everything of 2 days; then one of each of 48 hours, 14 days, 8 weeks and 12 months",
    "day": "everything of 24 hours, and always the newest",
    "none": "everything: nothing is pruned by itself",
}
_KINDS: Final = ("backup", "verify", "drill", "prune", "restore")
_SECRET: Final = re.compile(r"^([a-z][a-z0-9+.-]*:(?://)?)[^/@]*@")


class SnapshotShown(msgspec.Struct):
    """One backup; `short` is enough of its name to say which."""

    name: str
    short: str
    made: str
    records: int
    size: int
    verified: bool
    damaged: bool


class PruneShown(msgspec.Struct):
    """What a dry run of prune would let go of."""

    made: str
    kept: int
    removed: list[str]
    deleted: int
    deleted_bytes: int


class RestoreShown(msgspec.Struct):
    """What it takes to go back to a backup: by this page, or by commands."""

    name: str
    short: str
    made: str
    verified: bool
    why_not: str
    commands: list[str]


class BackupsPage(msgspec.Struct):
    """The whole page; `next` goes into `after`. Without a target only `target` says so."""

    target: str
    sealed: bool
    every_s: float
    drill_every_s: float
    preset: str
    retention: str
    last: str | None
    last_verified: str | None
    last_drill: str | None
    verified: int
    total: int
    size: int
    key: str
    trouble: str
    drill_failed: str
    settles: str
    looked: str | None
    runs: list[RunShown]
    snapshots: list[SnapshotShown]
    next: int | None
    prune: PruneShown | None
    restore: RestoreShown | None
    cursor: str


async def backups(ask: Ask) -> View:
    """GET /backups: how safe the hub is if its disk dies now."""
    data = await found(ask)
    extra = {"may_act": may_act(ask), "asked": ask.query.done}
    return View(template="backups.html", title="Backups", data=data, live="backups", extra=extra)


async def found(ask: Ask) -> BackupsPage:
    """What the page shows.

    Raises:
        Denied: to whom some records are hidden: a backup's figures count them all.
        NotFound: the backup that was asked for is not there.
    """
    ask.principal.need_everything()
    core, made = ask.core, ask.core.backups
    options, runs = core.options, await core.care.runs()
    after, wanted = getattr(ask.query, "after", 0), getattr(ask.query, "restore", "")
    shelf = made.shelf if made is not None else []
    every = [
        SnapshotShown(s.name, s.name[:NAME_SHOWN], iso(s.made_ms), s.records, s.size, s.verified, s.damaged)
        for s in shelf
    ]
    chosen = next((each for each in every if wanted and each.name == wanted), None)
    if wanted and chosen is None:
        raise NotFound(f"there is no backup {wanted!r:.60}", hint="the list says which there are")
    return BackupsPage(
        target=shown_address(options.backup),
        sealed=bool(options.backup_key),
        every_s=options.backup_every,
        drill_every_s=options.backup_drill_every,
        preset=options.backup_preset,
        retention=PRESETS[options.backup_preset],
        last=iso_if(made.newest_any_ms if made else 0),
        last_verified=iso_if(made.newest_ms if made else 0),
        last_drill=iso_if(made.drilled_ms if made else 0),
        verified=made.verified if made else 0,
        total=len(shelf),
        size=made.size if made else 0,
        key=made.key if made else "",
        trouble=made.trouble if made else "",
        drill_failed=made.drill_failed if made else "",
        settles=core.home.settle,
        looked=iso_if(made.looked_ms if made else 0),
        runs=[shown(runs[kind], _said(runs[kind])) for kind in _KINDS if kind in runs],
        snapshots=every[after : after + ROWS],
        next=after + ROWS if len(every) > after + ROWS else None,
        prune=_prune(runs),
        restore=None if chosen is None else _restore(core, chosen),
        cursor=core.feed.cursor(core.feed.head),
    )


def shown_address(address: str) -> str:
    """An object store's address without what may be secret in it: users, passwords, options."""
    return _SECRET.sub(r"\1…@", address.partition("?")[0])


async def act(ask: Ask) -> View:
    """POST /backups/act: begins a backup, a verification, a drill, a prune, or the way back to a backup."""
    care, what = ask.core.care, ask.form.get("what", "")
    if ask.core.backups is None:
        raise UsageError("this hub makes no backups", hint="holdfast serve --backup ADDRESS")
    how: dict[str, Any] = {}
    if what == "prune":
        how = await _pruning(ask)
    elif what == "restore":
        how = _restoring(ask)
    elif what not in ("backup", "verify", "drill"):
        raise UsageError(f"cannot do {what!r:.40} here", hint="use the forms of this page")
    about = f"restore of {how['name'][:NAME_SHOWN]}" if what == "restore" else what
    dry = ", a dry run" if how.get("dry_run") else ""
    audit.done(ask.scope, what=acts.RUN, about=f"{about}{dry}: begun")
    kind: Any = what
    await care.begin(kind, actor(ask), **how)
    return View(status=303, headers=(("location", f"/backups?done={what}"),))


async def _pruning(ask: Ask) -> dict[str, Any]:
    """A dry run, or what somebody was shown by one."""
    if ask.core.options.backup_preset == "none":
        raise UsageError("this hub keeps all of its backups", hint="backup.preset says which stay; see docs/backup.md")
    if ask.form.get("sure") != "yes":
        return {"dry_run": True}
    seen = _prune(await ask.core.care.runs())
    if seen is None or not seen.removed or ask.form.get("made") != seen.made:
        raise Conflict("what would go has changed since the page was made", hint="look again, and decide anew")
    return {"expected": tuple(seen.removed)}


def _restoring(ask: Ask) -> dict[str, Any]:
    """Which backup, if its name was typed."""
    name = ask.form.get("backup", "")
    if why := ask.core.care.why_no_pause:
        raise UsageError(f"this hub cannot put itself back: {why}", hint="the page says which commands do it")
    made = ask.core.backups
    if made is None or not any(each.name == name and not each.damaged for each in made.shelf):
        raise NotFound(f"there is no whole backup {name!r:.60}", hint="the list says which there are")
    typed = ask.form.get("typed", "").strip()
    if typed not in (name, name[:NAME_SHOWN]):
        raise UsageError(f"the name that was typed is {typed!r:.60}", hint=f"type {name[:NAME_SHOWN]}, or go back")
    return {"name": name}


def _restore(core: Any, chosen: SnapshotShown) -> RestoreShown:
    path, address = getattr(core.home, "path", None), shown_address(core.options.backup)
    key = " --key FILE" if core.options.backup_key else ""
    if path is None:
        commands = [
            f"holdfast backup restore {address} ./restored --backup {chosen.short}{key}",
            "holdfast migrate corpus sqlite:./restored postgresql://…/an_empty_database",
            "holdfast serve --database postgresql://…/an_empty_database",
        ]
    else:
        commands = [
            f"holdfast backup create {address} --from {path}{key}",
            f"holdfast backup restore {address} {path}.restored --backup {chosen.short} --keys {path}{key}",
            f"mv {path} {path}.before",
            f"mv {path}.restored {path}",
            f"cp {path}.before/auth.db {path}/",
        ]
    why = core.care.why_no_pause or ("its list cannot be read" if chosen.damaged else "")
    return RestoreShown(chosen.name, chosen.short, chosen.made, chosen.verified, why, commands)


def _prune(runs: dict[str, Run]) -> PruneShown | None:
    """The last dry run, unless something was let go of since."""
    told, run = result_of(runs, "prune"), runs.get("prune")
    if not told or run is None or not told.get("dry_run"):
        return None
    return PruneShown(iso(run.ended_ms), len(told["kept"]), told["removed"], told["deleted"], told["deleted_bytes"])


def _said(run: Run) -> str:
    """What came of a run, in words."""
    told = run.result
    if run.state != "done":
        return ""
    if run.kind == "backup":
        return f"{told.get('backup', '')[:NAME_SHOWN]}; {told.get('verified', 0)} verified"
    if run.kind == "verify":
        read = f"{many(told['objects'] + told['blobs'], 'object')}, {size_text(told['bytes'])} read"
        return f"sound: {read}" if told["sound"] else "; ".join(told["findings"][:5])
    if run.kind == "drill":
        wrong = [f"{each['backup'][:NAME_SHOWN]} did not come back: {each['error']}" for each in told["backups"]
                 if not each["ok"]]  # fmt: skip
        good = many(sum(each["ok"] for each in told["backups"]), "backup")
        spent = span_text(sum(each["seconds"] for each in told["backups"]))
        return "; ".join(wrong) or f"{good} came back and proved themselves, in {spent}"
    if run.kind == "prune":
        would = "would let go of" if told["dry_run"] else "let go of"
        return f"{would} {many(len(told['removed']), 'backup')}, {len(told['kept'])} stay"
    said = f"went back to {told.get('backup', '')[:NAME_SHOWN]}"
    way = f"; before it: {told['snapshot'][:NAME_SHOWN]}" if told.get("snapshot") else ""
    return said + way + (f", and the files in quarantine as {told['incident']}" if told.get("incident") else "")

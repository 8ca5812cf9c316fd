"""Integrity: what each check found last, what is damaged, how it is put right, and what was kept of the damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.clock import iso
from holdfast.errors import NotFound, UsageError
from holdfast.hub import acts, audit
from holdfast.hub.care import Run
from holdfast.hub.ui.pages import ROWS
from holdfast.hub.ui.routes import Ask, View
from holdfast.hub.ui.running import RunShown, actor, may_act, result_of, shown
from holdfast.hub.ui.words import iso_if, many
from holdfast.integrity import incidents
from holdfast.integrity.checks import ABOUT, ANCHOR, BLOB_SCRUB, HUB, INDEX, PAGE, STATE, TIME, WAL, Finding
from holdfast.integrity.recovery import BACKUP_RESTORE, CHECKSUM_MATCH, MANUAL, REDERIVE

INCIDENTS: Final = 50
STEPS: Final = 50
LOWERS: Final = "lowers the head"
MASS: Final = "mass damage"
_KINDS: Final = ("scan", "plan", "repair")


class CheckShown(msgspec.Struct):
    """A check: what holds when it finds nothing, and how it stood last."""

    check: str
    holds: str
    state: str
    says: str
    findings: int
    last: str | None


class FindingShown(msgspec.Struct):
    """Something that is not as it was written, and what a repair would begin with."""

    check: str
    agent: str
    seq: int
    found: str
    hint: str
    expected: str
    actual: str
    strategy: str


class StepShown(msgspec.Struct):
    """One step of a repair, and what it would lose."""

    strategy: str
    part: str
    first: int
    last: int
    source: str
    records: int
    lost: str
    proven: bool


class RefusalShown(msgspec.Struct):
    """Why a repair would leave something alone: the rule, and what it met."""

    rule: str
    met: str
    hint: str


class PlanShown(msgspec.Struct):
    """What a dry run of the repair found; `keep`: up to this position it gives up nothing."""

    made: str
    sound: bool
    steps: list[StepShown]
    more_steps: int
    refusals: list[RefusalShown]
    away: dict[str, str]
    keep: int
    lossy: str


class Attempt(msgspec.Struct):
    """What was tried with an incident."""

    time: str
    outcome: str
    strategy: str
    source: str
    records: int
    refusals: list[str]


class Incident(msgspec.Struct):
    """Damaged files as they were found, and what was tried with them."""

    incident: str
    where: str
    time: str
    kept: bool
    size: int
    files: int
    findings: list[str]
    attempts: list[Attempt]


class IntegrityPage(msgspec.Struct):
    """The whole page; `next` goes into `after`."""

    on: bool
    last_turn: str | None
    last_round: str | None
    records: int
    findings_total: int
    findings: list[FindingShown]
    next: int | None
    checks: list[CheckShown]
    runs: list[RunShown]
    plan: PlanShown | None
    incidents: list[Incident]
    command: str
    why_no_pause: str
    cursor: str


async def integrity(ask: Ask) -> View:
    """GET /integrity: whether everything is as it was written."""
    data = await found(ask)
    extra = {"may_act": may_act(ask), "asked": ask.query.done}
    return View(template="integrity.html", title="Integrity", data=data, live="integrity", extra=extra)


async def found(ask: Ask) -> IntegrityPage:
    """What the page shows.

    Raises:
        Denied: to whom some records are hidden: findings may name any.
    """
    ask.principal.need_everything()
    core = ask.core
    progress, runs = core.scanning.progress, await core.care.runs()
    after = getattr(ask.query, "after", 0)
    every = progress.findings
    backups = bool(core.options.backup)
    kept = await core.read(lambda: _incidents(core.home))
    path = getattr(core.home, "path", None)
    return IntegrityPage(
        on=core.options.scan_s > 0,
        last_turn=iso_if(progress.at_ms),
        last_round=iso_if(progress.round_ms),
        records=progress.records,
        findings_total=len(every) + progress.left_out,
        findings=[_finding(each, backups) for each in every[after : after + ROWS]],
        next=after + ROWS if len(every) > after + ROWS else None,
        checks=_checks(core, every),
        runs=[shown(runs[kind], _said(runs[kind])) for kind in _KINDS if kind in runs],
        plan=_plan(runs),
        incidents=kept,
        command=command(str(path), core.options.backup != "") if path is not None else "",
        why_no_pause=core.care.why_no_pause,
        cursor=core.feed.cursor(core.feed.head),
    )


def command(path: str, backups: bool) -> str:
    """What does the same on the hub's machine, once it was stopped."""
    return f"holdfast repair --store {path}" + (" --backup ADDRESS" if backups else "")


async def act(ask: Ask) -> View:
    """POST /integrity/act: begins a scan, a dry run or a repair, or lets go of what was kept."""
    form, care = ask.form, ask.core.care
    what, by = form.get("what", ""), actor(ask)
    if what in ("scan", "plan"):
        if what == "plan" and ask.core.options.database:
            raise UsageError("a hub in a database is the database's to repair", hint="see docs/recovery.md")
        audit.done(ask.scope, what=acts.RUN, about=f"{what}: begun")
        await care.begin("scan" if what == "scan" else "plan", by)
    elif what == "repair":
        await _repair(ask)
    elif what == "release":
        await _release(ask)
    else:
        raise UsageError(f"cannot do {what!r:.40} here", hint="use the forms of this page")
    return View(status=303, headers=(("location", f"/integrity?done={what}"),))


async def _repair(ask: Ask) -> None:
    """Has the hub pause and put itself right, by the way that was chosen."""
    form, care = ask.form, ask.core.care
    strategy, keep = form.get("strategy", ""), form.get("keep", "")
    if strategy not in ("proven", "own", "lost_tail") or not keep.isdigit():
        raise UsageError("it was not said how to repair", hint="make a plan, and choose one of the ways that it shows")
    plan = _plan(await care.runs())
    if plan is None or plan.sound:
        raise UsageError("there is no plan that is still good", hint="make one: it changes nothing")
    how: dict[str, Any] = {
        "lost_tail": strategy == "lost_tail",
        "mass_damage": form.get("mass") == "yes",
        "keep": plan.keep,
    }
    if strategy == "own":
        how["backup"] = ""
    audit.done(ask.scope, what=acts.RUN, about=f"repair ({strategy.replace('_', ' ')}): begun")
    await care.pause("repair", actor(ask), care.errand("repair", actor(ask), **how))


async def _release(ask: Ask) -> None:
    name, home, wall = ask.form.get("incident", ""), ask.core.home, ask.core.home.wall
    if ask.form.get("sure") != "yes":
        raise UsageError("the copies would be gone for good", hint="say so beside the button")

    def release() -> None:
        for folder in _folders(home):
            if any(each.incident == name and each.here for each in incidents.kept(folder, "")):
                incidents.release(folder, name, wall)
                return
        raise NotFound(f"no incident {name!r:.80} is kept here", hint="the list says which there are")

    await ask.core.files(release)
    audit.done(ask.scope, what=acts.RELEASE, about=name)


def _folders(home: Any) -> list[Path]:
    path = getattr(home, "path", None)
    return [] if path is None else [Path(path), Path(path) / "blobs"]


def _incidents(home: Any) -> list[Incident]:
    out = []
    for folder in _folders(home):
        for each in incidents.kept(folder, "blobs" if folder.name == "blobs" else "the hub's file"):
            tried = [_attempt(line) for line in each.attempts]
            said = [str(text) for text in (each.note.get("findings") or [])[:5]]
            out.append(
                Incident(each.incident, each.where, each.time, each.here, each.bytes, len(each.files), said, tried)
            )
    return sorted(out, key=lambda each: each.time, reverse=True)[:INCIDENTS]


def _attempt(line: dict[str, Any]) -> Attempt:
    steps = line.get("steps") or [{}]
    return Attempt(
        time=str(line.get("time", "")),
        outcome="released" if line.get("released") else str(line.get("outcome", "noted")),
        strategy=str(line.get("strategy") or ", ".join(str(s.get("strategy", "")) for s in steps if s)),
        source=str(line.get("source") or line.get("backup") or ""),
        records=int(line.get("records") or 0) if isinstance(line.get("records"), int) else 0,
        refusals=[str(each) for each in line.get("refusals") or ()],
    )


def _checks(core: Any, every: list[Finding]) -> list[CheckShown]:
    progress, database = core.scanning.progress, bool(core.options.database)
    last = iso_if(progress.round_ms)
    out = []
    for check, holds in ABOUT.items():
        many_found = sum(each.check == check for each in every)
        state, says, when = "quiet", "not looked at yet", last
        if many_found:
            state, says = "bad", many(many_found, "finding")
        elif check in (ANCHOR, HUB):
            says, when = "a node's own: holdfast verify there", None
        elif check in (PAGE, INDEX, WAL) and database:
            says, when = "the database's own", None
        elif check == WAL:
            state, says = ("warn", core.home.damage) if core.home.damage else ("good", "whole when the hub was opened")
            when = None
        elif progress.round_ms:
            state, says = "good", "nothing found"
        elif progress.at_ms:
            says = "nothing found so far; the first round goes on"
        out.append(CheckShown(check, holds, state, says, many_found, when))
    return out


def _finding(each: Finding, backups: bool) -> FindingShown:
    hint = each.hint
    if hint.startswith("the hub holds it"):  # this is the hub
        hint = "a backup, or the node that wrote it, may hold it as it was: make a plan"
    strategy = proposed(each.check, backups)
    return FindingShown(each.check, each.agent, each.seq, each.what, hint, each.expected, each.actual, strategy)


def proposed(check: str, backups: bool) -> str:
    """The rung of the ladder that a repair of this hub begins with; the plan says it exactly."""
    if check in (STATE, INDEX):
        return REDERIVE
    if check == TIME:
        return MANUAL
    if check == BLOB_SCRUB:
        return BACKUP_RESTORE if backups else MANUAL
    return BACKUP_RESTORE if backups else CHECKSUM_MATCH


def _plan(runs: dict[str, Run]) -> PlanShown | None:
    """The plan that was made last, unless something was repaired since."""
    told, run, mended = result_of(runs, "plan"), runs.get("plan"), runs.get("repair")
    if not told or run is None:
        return None
    if mended is not None and mended.begun_ms >= run.ended_ms and mended.result.get("done"):
        return None
    steps = [
        StepShown(
            step["strategy"], step["part"], step["first"], step["last"], step["source"], step["records"],
            step["lost"], step["proven"],
        )
        for step in told["steps"]
    ]  # fmt: skip
    refusals = [RefusalShown(each["rule"], each["what"], each["hint"]) for each in told["refusals"]]
    given_up = [step for step in steps if step.strategy == MANUAL and step.part != "blob"]
    return PlanShown(
        made=iso(run.ended_ms),
        sound=told["sound"],
        steps=steps[:STEPS],
        more_steps=max(0, len(steps) - STEPS),
        refusals=refusals,
        away=told["away"],
        keep=given_up[0].first - 1 if given_up else 0,
        lossy=given_up[0].lost if given_up else "",
    )


def _said(run: Run) -> str:
    """What came of a run, in words."""
    told = run.result
    if run.state != "done":
        return ""
    if run.kind == "scan":
        return many(told.get("findings", 0), "finding")
    if run.kind == "plan":
        return "nothing to repair" if told.get("sound") else many(len(told.get("steps", ())), "step")
    left = [str(each.get("what", "")) for each in told.get("refusals", ())]
    if told.get("done"):
        return "nothing to repair" if told.get("sound") else "everything that was planned was done"
    return "left alone: " + "; ".join(left)

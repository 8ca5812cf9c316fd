"""Runs of a hub's care as pages show them: what goes on, how far it is, what came of the last."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from holdfast.clock import iso
from holdfast.hub import acts
from holdfast.hub.acts import Actor
from holdfast.hub.care import Run
from holdfast.hub.ui.routes import Ask

WORDS: Final = {
    "running": ("▶", "goes on", "warn"),
    "done": ("●", "done", "good"),
    "failed": ("■", "failed", "bad"),
    "broken off": ("○", "broken off", "quiet"),
}
"""Shape, text and colour of each state."""
NAMES: Final = {
    "scan": "Scan of everything",
    "plan": "Plan of a repair",
    "repair": "Repair",
    "backup": "Backup",
    "verify": "Verification of all backups",
    "drill": "Drill",
    "prune": "Pruning",
    "restore": "Restore",
}


class RunShown(msgspec.Struct):
    """A run; `total` is 0 where nobody knows how much there is to do."""

    kind: str
    name: str
    who: str
    state: str
    begun: str
    ended: str | None
    step: str
    done: int
    total: int
    said: str


def shown(run: Run, said: str = "") -> RunShown:
    """A run for a page, with what came of it in words."""
    return RunShown(
        kind=run.kind,
        name=NAMES[run.kind],
        who=run.who,
        state=run.state,
        begun=iso(run.begun_ms),
        ended=iso(run.ended_ms) if run.ended_ms else None,
        step=run.step,
        done=run.done,
        total=run.total,
        said=run.said or said,
    )


def actor(ask: Ask) -> Actor:
    """Whoever asks, as the audit trail names him."""
    return acts.by_principal(ask.principal, acts.PAGE)


def may_act(ask: Ask) -> bool:
    """Whether whoever asks may do what these pages can do."""
    return ask.principal.may("admin")


def result_of(runs: dict[str, Run], kind: str) -> dict[str, Any]:
    """What came of the newest run of a kind that went well; empty if there is none."""
    run = runs.get(kind)
    return run.result if run is not None and run.state == "done" else {}

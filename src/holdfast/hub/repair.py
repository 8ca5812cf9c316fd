"""Repairs a hub's directory: its newest backup, then what its damaged file still proves behind that, then its nodes.

`plan` looks and never writes. `repair` freezes the damaged files, builds a file anew beside them, proves the whole of
it, and puts it in the old one's place. That begins a generation: every node hears so at its next hello, and ships
again what the hub no longer has. What plain HTTP clients wrote behind the last proven record is in nobody's log but the
hub's: it is given up only on somebody's word. Nobody may serve the directory meanwhile.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from holdfast.errors import HoldfastError
from holdfast.hub import acts
from holdfast.hub.acts import Act, Actor
from holdfast.hub.repair_parts import FILE as FILE
from holdfast.hub.repair_parts import Tools as Tools
from holdfast.hub.repair_parts import is_on_course as is_on_course
from holdfast.hub.repairing import CLEAN as CLEAN
from holdfast.hub.repairing import Bench
from holdfast.hub.tokens import SqliteTokens
from holdfast.integrity.recovery import Outcome, Plan, Policy


def plan(
    home: Path,
    tools: Tools = Tools(),  # noqa: B008 - both are frozen
    policy: Policy = Policy(),  # noqa: B008
    *,
    served: bool = False,
) -> Plan:
    """What a hub's directory needs, and what would be lost by it; writes nothing in it but the lock.

    Args:
        home: the directory.
        tools: what it works with.
        policy: what is allowed beyond what is proven.
        served: another process serves it, and goes on: the file is read as it is at this moment, beside that process;
            what its write-ahead log was like before it was opened cannot be told then.

    Raises:
        Locked: it is served.
        UsageError: it is none.
    """
    with Bench(home, tools, policy, make=False, served=served) as bench:
        return bench.look()


def repair(
    home: Path,
    tools: Tools = Tools(),  # noqa: B008 - both are frozen
    policy: Policy = Policy(),  # noqa: B008
    *,
    keep: int = 0,
    by: Actor | None = None,
) -> Outcome:
    """Puts right what is proven, and what `policy` allows; leaves the rest as it is, frozen, with a report.

    Args:
        home: the directory.
        tools: what it works with.
        policy: what is allowed beyond what is proven.
        keep: up to this position nothing may be given up, whatever `policy` says: what somebody was shown.
        by: who wants it, for the audit trail; None: the account that this runs under.

    Raises:
        Locked: it is served.
        UsageError: it is none.
    """
    with Bench(home, tools, policy, make=True, keep=keep) as bench:
        outcome = bench.work(bench.look())
    if not outcome.plan.sound:
        _tell(home, outcome, by)
    return outcome


def _tell(home: Path, outcome: Outcome, by: Actor | None) -> None:
    said = {"repaired": ", ".join(outcome.repaired), "blobs": str(outcome.blobs)}
    said["refused"] = "; ".join(str(each) for each in outcome.plan.refusals)
    said["incident"] = next((str(each["incident"]) for each in outcome.attempts if each.get("incident")), "")
    detail = {name: text for name, text in said.items() if text and text != "0"}
    act = Act(by=by or acts.by_machine(), what=acts.REPAIR, about="the hub's files", detail=detail)
    with contextlib.suppress(HoldfastError), contextlib.closing(SqliteTokens(home)) as store:
        acts.try_to_tell(store.acts, act)

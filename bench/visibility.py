"""From before `put` on node A until the body is in the hands of a reader in another process on node B."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path

import msgspec

from bench.harness import Effort, Figures, Goal, Report, Scenario, Table, Wrong, ms, number, spread, take_turns, times
from bench.neighbours.served import Plan, Server
from bench.processes import SLOW_SYNC_MS, child, scratch, slow_disk

OURS, REDIS, POSTGRES = "holdfast", "Redis Streams, AOF always", "PostgreSQL, in order, NOTIFY"
HUBS = {OURS: "holdfast_hub", REDIS: "redis_streams", POSTGRES: "postgres"}
SECONDS = 4.0
WARM_PART = 0.1
"""The first tenth is not counted, for nobody: connections open, caches fill."""


def server(hub: str, folder: Path, env: Mapping[str, str]) -> Server:
    """The contestant's server, started."""
    made: Server = import_module(f"bench.neighbours.{hub}").Server(folder, env)
    return made


def turn(hub: str, plan: Plan, slow: bool = False) -> Figures:
    """One turn: a new server, a reader, a writer."""
    env = slow_disk() if slow else {}
    with scratch() as folder, server(hub, folder, env) as running:
        given = {"hub": hub, "address": running.address}
        with (
            child("read", folder, **given, folder=str(folder / "b"), each=True) as reader,
            child("write", folder, **given, folder=str(folder / "a"), plan=msgspec.to_builtins(plan)) as writer,
        ):
            reader.answer()
            reader.tell()
            writer.answer()
            before = running.process.cpu()
            writer.tell()
            told = writer.answer(plan.seconds * 4 + 60)
            seen = reader.answer()
            cpu = running.process.cpu() - before
            memory = running.process.memory()
    late = [each / 1e9 for each in seen["late_ns"]]
    if len(late) != told["written"]:
        raise Wrong(f"{hub}: {told['written']} written, {len(late)} seen")
    late = late[int(len(late) * WARM_PART) :]
    figures = spread("visible", late)
    figures |= {"written": told["written"] / plan.count, "cpu": cpu / max(1, told["written"]), "memory": memory}
    return figures


MODES: dict[str, tuple[Plan, bool]] = {
    "100/s, ten agents": (Plan(rate=100, seconds=SECONDS), False),
    "1,000/s, one agent": (Plan(rate=1000, seconds=SECONDS, agents=1), False),
    "1,000/s, ten agents": (Plan(rate=1000, seconds=SECONDS), False),
    f"1,000/s, one agent, hub's syncs {SLOW_SYNC_MS} ms slower": (Plan(rate=1000, seconds=SECONDS, agents=1), True),
    f"1,000/s, ten agents, hub's syncs {SLOW_SYNC_MS} ms slower": (Plan(rate=1000, seconds=SECONDS), True),
}
ROUNDS = 3


def run(effort: Effort) -> Report:
    """Measures it."""
    report = Report()
    for mode, (plan, slow) in MODES.items():
        shorter = msgspec.structs.replace(plan, seconds=max(0.5, plan.seconds * min(1.0, effort.scale * 4)))
        contestants = {name: partial(turn, hub, shorter, slow) for name, hub in HUBS.items()}
        turns = take_turns(contestants, effort, effort.turns(ROUNDS))
        report.notes += turns.notes()
        columns = ("p50: × holdfast", "p99: × holdfast", "p50 ms", "p99 ms", "server CPU µs/record", "server MiB")
        table = Table(mode, ("hub", *columns, "of the load taken"))
        for name in contestants:
            if not turns.has(name):
                continue
            ratios = [times(turns.ratio(name, f"visible_{part}", OURS)) for part in ("p50", "p99")]
            figures = [ms(turns.median(name, f"visible_{part}")) for part in ("p50", "p99")]
            cpu, memory = turns.median(name, "cpu"), turns.median(name, "memory")
            costs = [number(cpu and cpu * 1e6), number(memory, 1), f"{turns.median(name, 'written') or 0:.0%}"]
            table.rows.append((name, *ratios, *figures, *costs))
        report.tables.append(table)
        reason = turns.missing.get(OURS, "")
        p50, p99 = (_ms(turns.median(OURS, f"visible_{part}")) for part in ("p50", "p99"))
        if slow:
            report.goals.append(Goal(f"visible p50, {mode}", p50, 10.0, " ms", reason=reason))
        elif plan.rate == 1000:
            report.goals.append(Goal(f"visible p50, {mode}", p50, 2.0, " ms", reason=reason))
            report.goals.append(Goal(f"visible p99, {mode}", p99, 10.0, " ms", reason=reason))
            for part in ("p50", "p99"):
                ratio = turns.ratio(OURS, f"visible_{part}", REDIS)
                why = reason or turns.missing.get(REDIS, "")
                report.goals.append(Goal(f"visible {part} over Redis AOF-always, {mode}", ratio, 1.0, "×", reason=why))
        report.figures[mode] = turns.given
    report.notes.append(
        "All agents on one node. One clock (CLOCK_MONOTONIC) in both processes, from when a body was due to be "
        "written (before `put`; who lags behind his plan is late from then on) until it is decoded in the reader's "
        "hands; each body is compared. A Holdfast agent's write is on its own disk first, and "
        "is shipped only when synced there; the others' agents write to the server directly and have nothing while it "
        "is away. Every hub syncs before it acknowledges. The first tenth of a turn is not counted."
    )
    return report


def _ms(value: float | None) -> float | None:
    return None if value is None else value * 1e3


SCENARIO = Scenario("visibility", "Written here, visible there", run)

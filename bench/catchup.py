"""The hub was away and comes back: how fast what has waited on a node is acknowledged and visible elsewhere."""

from __future__ import annotations

from functools import partial

from bench.harness import Effort, Figures, Goal, Report, Scenario, Table, Wrong, number, take_turns, times
from bench.processes import child, scratch
from bench.visibility import HUBS, OURS, REDIS, server

COUNT = 100_000
ROUNDS = 3
PATIENCE_S = 180.0
RATE_LEAST = 20_000
RATIO_LEAST = 1.5


def turn(hub: str, count: int) -> Figures:
    """One turn: bodies wait in a local log; a server is started, a reader listens; then they are shipped."""
    with scratch() as folder, server(hub, folder, {}) as running:
        given = {"hub": hub, "address": running.address, "count": count}
        with (
            child("catch_up", folder, **given, folder=str(folder / "a")) as writer,
            child("read", folder, **given, folder=str(folder / "b")) as reader,
        ):
            writer.answer(PATIENCE_S)
            reader.answer()
            reader.tell()
            before = running.process.cpu()
            writer.tell()
            told = writer.answer(PATIENCE_S)
            seen = reader.answer(PATIENCE_S)
            cpu = running.process.cpu() - before
            memory = running.process.memory(peak=True)
    if seen["seen"] != count:
        raise Wrong(f"{hub}: {count} written, {seen['seen']} seen")
    acked = (told["acked_ns"] - told["began_ns"]) / 1e9
    visible = (seen["last_ns"] - told["began_ns"]) / 1e9
    return {
        "rate": count / max(acked, visible),
        "acked_rate": count / acked,
        "cpu": cpu / count,
        "peak": memory,
    }


def run(effort: Effort) -> Report:
    """Measures it."""
    report = Report()
    count = effort.count(COUNT, 1000)
    turns = take_turns({name: partial(turn, hub, count) for name, hub in HUBS.items()}, effort, effort.turns(ROUNDS))
    report.notes += turns.notes()
    columns = ("rate: × holdfast", "records/s acked and visible", "records/s acked", "server CPU µs/record")
    table = Table(f"{count:,} records", ("hub", *columns, "server MiB at most"))
    for name in HUBS:
        if turns.has(name):
            cpu = turns.median(name, "cpu")
            table.rows.append(
                (
                    name,
                    times(turns.ratio(name, "rate", OURS)),
                    number(turns.median(name, "rate")),
                    number(turns.median(name, "acked_rate")),
                    number(cpu and cpu * 1e6, 1),
                    number(turns.median(name, "peak"), 1),
                )
            )
    report.tables.append(table)
    reason = turns.missing.get(OURS, "")
    rate = turns.median(OURS, "rate")
    report.goals.append(Goal("catch-up, records/s", rate, RATE_LEAST, "/s", at_least=True, reason=reason))
    ratio, why = turns.ratio(OURS, "rate", REDIS), reason or turns.missing.get(REDIS, "")
    report.goals.append(Goal("catch-up over Redis AOF-always", ratio, RATIO_LEAST, "×", at_least=True, reason=why))
    report.goals.append(
        Goal("hub's memory while a node catches up", turns.median(OURS, "peak"), 50.0, " MiB", reason=reason)
    )
    report.notes.append(
        "The records lie on the node's disk (the others': rows in SQLite), shipped in lots of up to 500 by one "
        "connection; server, node and reader share the machine, and the reader compares every body. Memory is the "
        "peak of the server's processes; PostgreSQL's counts shared buffers in each."
    )
    report.figures = turns.given
    return report


SCENARIO = Scenario("catchup", "Catching up after the hub was away", run)

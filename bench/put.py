"""What a local write and read cost over a bare INSERT at the same durability."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.harness import Effort, Figures, Goal, Report, Scenario, Table, take_turns, times, us
from bench.neighbours.floor import Floor
from bench.neighbours.local import DURABILITY, contest

WRITES = {"basic": 2000, "advanced": 2000, "critical": 400}
READS = 400
WORK = {
    "append": "message, written",
    "put": "value, written",
    "message": "message, read",
    "get": "value, read",
    "last": "last 100, read",
}
RATIO_MOST = 2.0


def run(effort: Effort) -> Report:
    """Measures it."""
    from bench.neighbours.node import Node

    report = Report()
    contestants: dict[str, Callable[[], Figures]] = {}
    for durability in DURABILITY:
        writes, reads = effort.count(WRITES[durability], 60), effort.count(READS, 40)
        for name, kind in (("floor", Floor), ("holdfast", Node)):
            opening: Callable[[Path, str], Floor | Node] = kind
            contestants[f"{name} {durability}"] = partial(contest, opening, durability, writes, reads)
    turns = take_turns(contestants, effort)
    report.notes += turns.notes()
    for durability, meaning in DURABILITY.items():
        table = Table(
            f"{durability}: survives {meaning}",
            ("work", "ratio to the floor", "holdfast p50 µs", "p99", "floor p50 µs", "p99"),
        )
        for figure, work in WORK.items():
            cells = [
                us(turns.median(f"{name} {durability}", f"{figure}_{part}"))
                for name in ("holdfast", "floor")
                for part in ("p50", "p99")
            ]
            ratio = turns.ratio(f"holdfast {durability}", f"{figure}_p50", f"floor {durability}")
            table.rows.append((work, times(ratio), *cells))
            if figure in {"append", "put"}:
                what = f"{'post' if figure == 'append' else 'put'} over the floor, {durability}"
                report.goals.append(Goal(what, ratio, RATIO_MOST, "×"))
        report.tables.append(table)
    report.notes.append(
        "The floor is one INSERT of bytes serialised before the clock started, three indexes, no hash, no chain, no "
        "versions, no full text; Holdfast is `Store.put` and `Store.post` with nothing switched off. The floor's reads "
        "give undecoded bytes."
    )
    report.figures = turns.given
    return report


SCENARIO = Scenario("put", "A local write over a bare INSERT", run)

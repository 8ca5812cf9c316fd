"""`python -m bench [scenario…] [--quick] [--rounds N] [--json FILE] [--no-page]`."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from bench import material, page
from bench.harness import Effort, Goal, Report, Scenario, goals_table, load, machine, plain

SCENARIOS = (
    "put",
    "peers",
    "visibility",
    "catchup",
    "hub",
    "scale",
    "search",
    "seed",
    "startup",
    "objects",
    "integrity",
    "agents",
    "pages",
    "graphs",
)
QUICK = 0.08
PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"


def scenario(name: str) -> Scenario:
    """The scenario with this name."""
    found: Scenario = import_module(f"bench.{name}").SCENARIO
    return found


def show(found: Scenario, report: Report) -> None:
    """Prints what a scenario found."""
    print(f"\n== {found.name}: {found.title}")
    for table in [*report.tables, goals_table(report.goals)]:
        if table.rows:
            print(plain(table) + "\n")
    for note in report.notes:
        print(f"  * {note}")
    sys.stdout.flush()


def main(words: Sequence[str] | None = None) -> int:
    """Runs the scenarios, prints their tables, and writes them into the page. 1: a goal was not met."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("scenario", nargs="*", help=", ".join(SCENARIOS) + " (all)")
    parser.add_argument("--quick", action="store_true", help="small counts, one round; never written into the page")
    parser.add_argument("--rounds", type=int, help="turns of each contestant (5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures of every turn")
    parser.add_argument("--no-page", action="store_true", help=f"leave docs/{PAGE.name} as it is")
    given = parser.parse_args(words)
    names = given.scenario or list(SCENARIOS)
    if unknown := [name for name in names if name not in SCENARIOS]:
        parser.error(f"no scenario is called {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    effort = Effort(
        rounds=given.rounds or (1 if given.quick else 5),
        scale=QUICK if given.quick else 1.0,
        say=lambda text: print(f"  . {text}", file=sys.stderr, flush=True),
    )
    print(f"{machine()}; load {load()}\n{material.origin()}")
    figures, missed = {}, list[Goal]()
    given_words = sys.argv[1:] if words is None else words
    eager = ["nice", "-n", str(os.nice(0))] if hasattr(os, "nice") and os.nice(0) else []
    command = shlex.join([*eager, "python", "-m", "bench", *given_words])
    for name in names:
        began = time.monotonic()
        found = scenario(name)
        report = found.run(effort)
        show(found, report)
        print(f"  ({time.monotonic() - began:.0f} s)")
        figures[name] = report.figures
        missed += [goal for goal in report.goals if goal.met is False]
        if not (given.quick or given.no_page):
            page.write(PAGE, found, report, command)
    if given.json:
        given.json.write_text(json.dumps({"machine": machine(), "command": command, "figures": figures}, indent=1))
    print(f"\n{len(missed)} goals not met")
    if missed:
        print(plain(goals_table(missed)))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

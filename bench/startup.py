"""What starting costs: `import holdfast` and each local command, over a Python that does nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench.harness import Effort, Figures, Goal, Report, Scenario, Table, Wrong, ms, take_turns
from bench.processes import scratch

ROUNDS = 11
IMPORT_MOST_MS, COMMAND_MOST_MS = 60.0, 150.0
BARE = "python -I -c pass"
IMPORT = "import holdfast"
SAID = "hello"
COMMANDS: dict[str, tuple[Sequence[str], str]] = {
    "version": (["version"], "holdfast"),
    "--help": (["--help"], "holdfast"),
    "init": (["init"], ""),
    "put": (["put", "plan", '"hello"'], ""),
    "get": (["get", "plan"], SAID),
    "ls": (["ls"], "plan"),
    "history": (["history", "plan"], ""),
    "diff": (["diff", "plan", "1", "2"], ""),
    "rollback": (["rollback", "plan", "1"], ""),
    "rm": (["rm", "gone"], ""),
    "send": (["send", "people", "hello"], ""),
    "inbox": (["inbox"], SAID),
    "export": (["export"], SAID),
    "status": (["status"], ""),
    "doctor": (["doctor"], ""),
    "verify": (["verify"], ""),
    "completion": (["completion", "bash"], "holdfast"),
}
"""Command -> its words, and what its output must hold."""


def start(command: Sequence[str], environment: dict[str, str], said: str = "") -> Figures:
    """One fresh process, from start to end."""
    before = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    took = time.perf_counter() - before
    if done.returncode or said not in done.stdout:
        raise Wrong(f"{' '.join(command[-3:])} ended with {done.returncode}: {(done.stderr or done.stdout)[-300:]}")
    return {"took": took}


def run(effort: Effort) -> Report:
    """Measures it."""
    report = Report()
    script = Path(sys.executable).with_name("holdfast")
    program = [str(script)] if script.exists() else [sys.executable, "-c", "from holdfast.cli import main; main()"]
    with scratch() as folder:
        # Compiled once and kept, as in any installation; some machines that build switch that off.
        dropped = ("HOLDFAST_", "PYTHONDONTWRITEBYTECODE")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
        environment |= {"HOLDFAST_STORE": str(folder / "store"), "HOME": str(folder), "HOLDFAST_AGENT": "main"}
        for words in (["init"], ["put", "plan", '"hello"'], ["put", "plan", '"hello again"']):
            start([*program, *words], environment)
        contestants: dict[str, Callable[[], Figures]] = {
            BARE: partial(start, [sys.executable, "-I", "-c", "pass"], environment),
            IMPORT: partial(start, [sys.executable, "-c", "import holdfast"], environment),
        }
        for name, (words, said) in COMMANDS.items():
            contestants[f"holdfast {name}"] = partial(_command, [*program, *words], environment, said)
        turns = take_turns(contestants, effort, effort.rounds if effort.scale < 1 else max(ROUNDS, effort.rounds))
    report.notes += turns.notes()
    table = Table("", ("process", "ms over bare Python", "ms in all"))
    for name in contestants:
        if turns.has(name):
            extra = _extra(turns.given[name], turns.given[BARE])
            table.rows.append((name, ms(extra, 1), ms(turns.median(name, "took"), 1)))
    report.tables.append(table)
    for name in contestants:
        if name == BARE:
            continue
        extra = _extra(turns.given[name], turns.given[BARE]) if turns.has(name) else None
        limit = IMPORT_MOST_MS if name == IMPORT else COMMAND_MOST_MS
        reason = turns.missing.get(name, "")
        report.goals.append(Goal(f"`{name}` over bare Python", extra and extra * 1e3, limit, " ms", reason=reason))
    report.figures = turns.given
    return report


def _command(command: Sequence[str], environment: dict[str, str], said: str) -> Figures:
    if command[-2:] == ["rm", "gone"]:  # there must be something to remove, off the clock
        start([*command[:-2], "put", "gone", "1"], environment)
    return start(command, environment, said)


def _extra(mine: list[Figures], bare: list[Figures]) -> float:
    """The median of the differences within a round."""
    differences = sorted(one["took"] - other["took"] for one, other in zip(mine, bare, strict=False))
    return differences[len(differences) // 2]


SCENARIO = Scenario("startup", "What starting costs", run)

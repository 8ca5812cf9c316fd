"""docs/benchmarks.md: each scenario owns what stands between its marks, and the page sums up the goals."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

from bench import material
from bench.harness import Report, Scenario, goals_table, load, machine, markdown

BEGIN, END = "<!-- bench:{} -->", "<!-- /bench:{} -->"
SUMMARY = "goals"
HEAD = """# Benchmarks

What `make bench` measured. The contestants of a scenario take turns in one run on the same messages; figures are
medians over the rounds. Read the ratios: they were made on one machine at one time, and travel; the milliseconds do
not. A figure counts only if the bodies that were read are those that were written. What a scenario does is said in
`bench/`, one module each.

## The goals

"""
_ROW = re.compile(r"^\|.*\| (?:met|\*\*NOT met\*\*.*|not measured.*) \|$")


def write(path: Path, scenario: Scenario, report: Report, command: str) -> None:
    """Puts a scenario's report between its marks, and the goals of all scenarios at the top."""
    text = path.read_text("utf-8") if path.exists() else HEAD + _section(SUMMARY, "")
    text = _replace(text, scenario.name, _body(scenario, report, command))
    path.parent.mkdir(exist_ok=True)
    path.write_text(_replace(text, SUMMARY, _summary(text)), "utf-8")


def _section(name: str, body: str) -> str:
    return f"{BEGIN.format(name)}\n{body}{END.format(name)}\n"


def _replace(text: str, name: str, body: str) -> str:
    begin, end = BEGIN.format(name), END.format(name)
    if begin not in text:
        return text.rstrip("\n") + "\n\n" + _section(name, body)
    before, _, rest = text.partition(begin)
    return before + _section(name, body).rstrip("\n") + rest.partition(end)[2]


def _body(scenario: Scenario, report: Report, command: str) -> str:
    day = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    parts = [
        f"## {scenario.title}",
        f"`{command}` · {day} · {machine()} · load {load()} · {material.origin()}",
        *(markdown(table) for table in report.tables if table.rows),
    ]
    if report.notes:
        parts.append("\n".join(f"* {note}" for note in dict.fromkeys(report.notes)))
    if report.goals:
        parts.append(markdown(goals_table(report.goals)))
    return "\n" + "\n\n".join(parts) + "\n\n"


def _summary(text: str) -> str:
    """Every row of every scenario's goals."""
    _, _, below = text.partition(END.format(SUMMARY))
    rows = [line for line in below.splitlines() if _ROW.match(line)]
    return "\n".join(["", "| goal | limit | measured | verdict |", "| --- | --- | --- | --- |", *rows]) + "\n\n"

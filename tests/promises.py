"""What the tests that damage things on purpose did, counted by themselves; `python -m tests.promises` writes it down.

A test says what it did (`count("a bit turned in the WAL", tried=400, found=312, harmless=88)`). The counts travel as
properties of its report, so they are in a JUnit file too. With ``HOLDFAST_COUNTS=path`` in the environment a run
writes the sums over all tests that passed there as JSON; this module then puts them as a table into docs/promises.md.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PATH = os.environ.get("HOLDFAST_COUNTS", "")
PREFIX = "counted: "
BEGIN, END = "<!-- counts: python -m tests.promises -->", "<!-- end of counts -->"
Counts = dict[str, dict[str, int]]
Count = Callable[..., None]


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Count:
    """Says what a test did: what was broken, and how often which came of it."""

    def say(what: str, **numbers: int) -> None:
        for name, number in numbers.items():
            request.node.user_properties.append((f"{PREFIX}{what}: {name}", number))

    return say


class Sums:
    """A pytest plugin that adds up what passing tests counted, on whichever worker they ran."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: Counts = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes the counts of one test."""
        if report.when == "call" and report.passed:
            add(self.counts, report.user_properties)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Writes the sums, where the reports of all workers end up."""
        if not hasattr(session.config, "workerinput"):
            self.path.write_text(json.dumps(self.counts, indent=1) + "\n", "utf-8")


def add(counts: Counts, properties: list[tuple[str, Any]]) -> None:
    """Adds one test's properties."""
    for key, number in properties:
        if key.startswith(PREFIX):
            what, name = key.removeprefix(PREFIX).rsplit(": ", 1)
            of = counts.setdefault(what, {})
            of[name] = of.get(name, 0) + number


def table(counts: Counts) -> str:
    """The counts as a table of Markdown."""
    lines = ["| what was broken | how often | what came of it |", "| --- | ---: | --- |"]
    for what in sorted(counts):
        numbers = dict(counts[what])
        tried = numbers.pop("tried", 0)
        came = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in numbers.items())
        lines.append(f"| {what} | {tried:,} | {came} |")
    return "\n".join(lines)


def put(page: str, counts: Counts) -> str:
    """The page with this table between its markers."""
    head, _, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not end:
        raise SystemExit(f"the page has no place for counts: {BEGIN} … {END}")
    return f"{head}{BEGIN}\n\n{table(counts)}\n\n{END}{tail}"


def main() -> None:
    """Puts the counts of a run (a path; else ``HOLDFAST_COUNTS``) into docs/promises.md."""
    source = sys.argv[1] if len(sys.argv) > 1 else PATH
    if not source:
        raise SystemExit("usage: python -m tests.promises COUNTS.json")
    page = Path(__file__).parents[1] / "docs" / "promises.md"
    page.write_text(put(page.read_text("utf-8"), json.loads(Path(source).read_text("utf-8"))), "utf-8")


if __name__ == "__main__":
    main()

"""How a figure is made: contestants take turns in one run, medians over rounds, ratios first."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Figures = dict[str, float]
"""What one turn of one contestant gave: seconds unless the name says otherwise."""

MARK = "—"
FAILED = "FAILED"
"""How the reason begins when a contestant is there and does not do what it must."""


class Missing(Exception):
    """A contestant cannot take part here; the text says why."""


class Wrong(Exception):
    """What was read is not what was written: there is no figure then."""


@dataclass(frozen=True)
class Goal:
    """One thing that must hold: `value` must be at most (or at least) `limit`.

    `value` is None when nothing could be measured; `reason` then says why.
    """

    what: str
    value: float | None
    limit: float
    unit: str = ""
    at_least: bool = False
    reason: str = ""

    @property
    def met(self) -> bool | None:
        """Whether it holds; None: not measured, because somebody is missing."""
        if self.value is None:
            return False if self.reason.startswith(FAILED) else None
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def verdict(self) -> str:
        """The last cell of its row."""
        reason = " ".join(self.reason.replace("|", "/").split())[:120]
        missed = "**NOT met**" if self.value is not None else f"**NOT met** ({reason})"
        return {True: "met", False: missed, None: f"not measured: {reason}"}[self.met]


@dataclass
class Table:
    """One table of the page."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)


@dataclass
class Report:
    """What a scenario found."""

    tables: list[Table] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Effort:
    """How much of everything a run does.

    Attributes:
        rounds: turns that each contestant takes.
        scale: 1.0 for the full run; counts are multiplied by it.
        say: tells people how far it is.
    """

    rounds: int = 5
    scale: float = 1.0
    say: Callable[[str], None] = lambda _: None

    def count(self, full: int, least: int = 1) -> int:
        """How many of what a full run does `full` times."""
        return max(least, round(full * self.scale))

    def turns(self, most: int) -> int:
        """The rounds of a scenario whose turns are long."""
        return min(self.rounds, most)


@dataclass(frozen=True)
class Scenario:
    """One table of the page: `run` measures it."""

    name: str
    title: str
    run: Callable[[Effort], Report]


class Turns:
    """What each contestant gave in each round."""

    def __init__(self) -> None:
        self.given: dict[str, list[Figures]] = {}
        self.missing: dict[str, str] = {}

    def has(self, name: str) -> bool:
        """Whether the contestant took part."""
        return bool(self.given.get(name))

    def median(self, name: str, figure: str) -> float | None:
        """The median of one figure, or None."""
        values = [each[figure] for each in self.given.get(name, ()) if figure in each]
        return statistics.median(values) if values else None

    def ratio(self, name: str, figure: str, to: str) -> float | None:
        """The median over the rounds of the contestant's figure over another's in the same round."""
        pairs = zip(self.given.get(name, ()), self.given.get(to, ()), strict=False)
        values = [mine[figure] / theirs[figure] for mine, theirs in pairs if theirs.get(figure) and figure in mine]
        return statistics.median(values) if values else None

    def notes(self) -> list[str]:
        """Who did not take part, and why."""
        return [f"{name}: not measured ({' '.join(reason.split())[:300]})" for name, reason in self.missing.items()]


def take_turns(contestants: Mapping[str, Callable[[], Figures]], effort: Effort, rounds: int | None = None) -> Turns:
    """A B C A B C …, so that a disturbance of the machine strikes all alike. Who is missing is noted and left out."""
    turns = Turns()
    rounds = effort.rounds if rounds is None else rounds
    for number in range(rounds):
        for name, turn in contestants.items():
            if name in turns.missing:
                continue
            began = time.monotonic()
            try:
                figures = turn()
            except (Missing, Wrong, ImportError) as absent:
                why = f"{FAILED}: " * isinstance(absent, Wrong) + str(absent)
                turns.missing[name] = why
                turns.given.pop(name, None)
                effort.say(f"{name}: {why}")
                continue
            turns.given.setdefault(name, []).append(figures)
            shown = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
            effort.say(f"round {number + 1}/{rounds} {name} [{time.monotonic() - began:.1f} s]: {shown}")
    return turns


def quantile(values: Sequence[float], part: float) -> float:
    """The value that `part` of them do not exceed."""
    if not values:
        raise Wrong("nothing was measured")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def spread(prefix: str, values: Sequence[float]) -> Figures:
    """p50 and p99 under a name."""
    return {f"{prefix}_p50": quantile(values, 0.50), f"{prefix}_p99": quantile(values, 0.99)}


def same(read: Any, written: Any, where: str) -> None:
    """Raises Wrong unless what was read is what was written."""
    if read != written:
        raise Wrong(f"{where}: read {str(read)[:200]!r}, written was {str(written)[:200]!r}")


def us(value: float | None, digits: int = 1) -> str:
    """Seconds as microseconds."""
    return MARK if value is None else f"{value * 1e6:,.{digits}f}"


def ms(value: float | None, digits: int = 2) -> str:
    """Seconds as milliseconds."""
    return MARK if value is None else f"{value * 1e3:,.{digits}f}"


def times(value: float | None) -> str:
    """A ratio."""
    return MARK if value is None else f"{value:.2f}×" if value < 10 else f"{value:.0f}×"


def number(value: float | None, digits: int = 0) -> str:
    """A plain number."""
    return MARK if value is None else f"{value:,.{digits}f}"


def machine() -> str:
    """The machine in one line."""
    model = platform.processor() or platform.machine()
    memory = ""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as info:
            models = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
        model = models[0] if models else model
        with open("/proc/meminfo", encoding="ascii") as info:
            memory = f", {int(info.readline().split()[1]) / 2**20:.0f} GiB"
    except OSError:
        pass
    system = f"{platform.system()} {platform.release()}"
    return f"{os.cpu_count()} cores {model}{memory}, {system}, Python {platform.python_version()}"


def load() -> str:
    """How busy the machine is, for whoever reads absolute figures."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def markdown(table: Table) -> str:
    """The table in Markdown."""
    lines = [f"**{table.title}**", ""] if table.title else []
    lines.append("| " + " | ".join(table.columns) + " |")
    lines.append("|" + " --- |" * len(table.columns))
    lines += ["| " + " | ".join(row) + " |" for row in table.rows]
    return "\n".join(lines)


def goals_table(goals: Iterable[Goal]) -> Table:
    """The goals with what was measured."""
    table = Table("Goals", ("goal", "limit", "measured", "verdict"))
    for goal in goals:
        sign = "≥" if goal.at_least else "≤"
        value = MARK if goal.value is None else f"{goal.value:,.3g}{goal.unit}"
        table.rows.append((goal.what, f"{sign} {goal.limit:,g}{goal.unit}", value, goal.verdict))
    return table


def plain(table: Table) -> str:
    """The table for a terminal."""
    rows = [list(table.columns), *(list(row) for row in table.rows)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(table.columns))]
    lines = [table.title] if table.title else []
    for row in rows:
        cells = [cell.ljust(widths[n]) if n == 0 else cell.rjust(widths[n]) for n, cell in enumerate(row)]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)

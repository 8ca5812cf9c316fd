"""The charts: what the hub took in and how it stood, over an hour or a quarter; each with its table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from holdfast.clock import iso
from holdfast.hub.figures import DAY_S, Stretch, history, quantile
from holdfast.hub.principal import METRICS
from holdfast.hub.ui.routes import Ask, View

HOUR_S: Final = 3_600
RANGES: Final = {
    "1h": (HOUR_S, 120, "1 hour"),
    "24h": (DAY_S, 2_400, "24 hours"),
    "7d": (7 * DAY_S, 4 * HOUR_S, "7 days"),
    "30d": (30 * DAY_S, 18 * HOUR_S, "30 days"),
    "90d": (90 * DAY_S, 54 * HOUR_S, "90 days"),
}
"""What can be looked at: its length, and that of each point, in seconds. Some 40 points each, so a page stays small."""
NODES: Final = 5

Value = float | int | None


class Line(msgspec.Struct):
    """A line of a chart: a value for each point, null where the hub was not there."""

    name: str
    values: list[Value]


class Chart(msgspec.Struct):
    """A chart; `unit` is what its values are in: /s, ms, records, %, bytes or requests."""

    id: str
    title: str
    unit: str
    says: str
    lines: list[Line]


class ChartsPage(msgspec.Struct):
    """The charts of a range; point n is of the `width_s` seconds that begin at `since` + n × `width_s`."""

    range: str
    since: str
    width_s: int
    points: int
    charts: list[Chart]
    empty: bool


async def charts(ask: Ask) -> View:
    """GET /charts: the hub's own figures over time."""
    if not ask.principal.may(METRICS):
        ask.principal.need_everything()  # they are of everything together
    name = ask.query.range
    length, width, _ = RANGES[name]
    core = ask.core
    now = core.home.wall.now_ms() // 1000
    until = (now // width + 1) * width
    since = until - length
    stretches = await core.read(lambda: history(core.corpus, since, until, width, now))
    data = ChartsPage(
        range=name,
        since=iso(since * 1000),
        width_s=width,
        points=len(stretches),
        charts=_charts(stretches),
        empty=not any(stretches),
    )
    times = [iso((since + n * width) * 1000) for n in range(len(stretches))]
    extra = {"ranges": RANGES, "times": times, "since_s": since, "told": _told}
    return View(template="charts.html", title="Charts", data=data, extra=extra)


def _charts(stretches: list[Stretch | None]) -> list[Chart]:
    def values(of: Callable[[Stretch], Value]) -> list[Value]:
        return [None if each is None else of(each) for each in stretches]

    def rate(what: str) -> list[Value]:
        return values(lambda each: _round(getattr(each.figure, what) / each.seconds) if each.seconds else None)

    def took(part: float) -> list[Value]:
        def of(each: Stretch) -> Value:
            found = quantile(each.figure.buckets, part)
            return None if found is None else _round(found * 1000)

        return values(of)

    def hits(each: Stretch) -> Value:
        asked = each.figure.hits + each.figure.misses
        return _round(100 * each.figure.hits / asked) if asked else None

    found = [
        Chart("writes", "Writes", "/s", "Records taken in, by the second.", [Line("records", rate("records"))]),
        Chart(
            "latency",
            "Latency",
            "ms",
            "Half of the requests took at most p50, 95 of 100 at most p95.",
            [Line("p50", took(0.5)), Line("p95", took(0.95))],
        ),
        Chart("outbox", "Outbox by node", "records", _OUTBOX, _outbox(stretches)),
        Chart(
            "cache",
            "TTL cache",
            "%",
            "Of the keys that were asked for, how many were there.",
            [Line("hits", values(hits))],
        ),
        Chart(
            *("disk", "Disk", "bytes", "What is free on the hub's disk."),
            [Line("free", values(lambda each: each.figure.disk_free))],
        ),
        Chart(
            *("file", "File", "bytes", "The hub's file, with its log."),
            [Line("size", values(lambda each: each.figure.on_disk))],
        ),
        Chart(
            "errors",
            "Errors",
            "requests",
            "Requests that failed (5xx), and that were refused (4xx).",
            [
                Line("failed", values(lambda each: each.figure.failed)),
                Line("refused", values(lambda each: each.figure.refused)),
            ],
        ),
    ]
    return [
        each
        for each in found
        if any(value is not None for line in each.lines for value in line.values) or each.id == "writes"
    ]


_OUTBOX: Final = "Records that nodes said they have, and this hub had not got yet: the most within each point."


def _outbox(stretches: list[Stretch | None]) -> list[Line]:
    worst: dict[str, int] = {}
    for each in stretches:
        for node, count in each.figure.behind.items() if each else ():
            worst[node] = max(worst.get(node, 0), count)
    names = sorted(worst, key=lambda node: (-worst[node], node))
    shown = names[:NODES]
    lines = [
        Line(node, [None if each is None else each.figure.behind.get(node, 0) for each in stretches]) for node in shown
    ]
    if rest := names[NODES:]:
        from holdfast.hub.ui.words import many

        others: list[Value] = [
            None if each is None else sum(each.figure.behind.get(node, 0) for node in rest) for each in stretches
        ]
        lines.append(Line(many(len(rest), "other"), others))
    return lines


def _round(value: float) -> float:
    return round(value, 3 if value < 10 else 1)


def _told(value: Value, unit: str) -> str:
    """A value as the table says it."""
    if value is None:
        return "–"
    if unit == "bytes":
        from holdfast.hub.ui.words import size_text

        return size_text(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}".rstrip("0").rstrip(".")

"""Counters, times and gauges by name and tags, in little memory, and as text that Prometheus reads.

Times go into a histogram whose buckets grow by 2 %: a percentile is within 1 % of a time that was measured, between a
microsecond and a day, in at most 1,300 numbers a series. A call costs about a microsecond and takes one lock.
"""

from __future__ import annotations

import math
import os
import re
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias, TypeVar

import msgspec

from holdfast.errors import StorageRefused

ERROR: Final = 0.01
"""A percentile's greatest error, as a part of it."""
SERIES_MAX: Final = 1000
"""Of one name; more tags than that are counted together, under the tag ``other``: a key is no tag."""
OTHER: Final = (("other", "true"),)
QUICK_MAX: Final = 10_000
QUANTILES: Final = (0.5, 0.95, 0.99)
_GROWTH: Final = math.log((1 + ERROR) / (1 - ERROR))
LOW_MS: Final = 1e-3
HIGH_MS: Final = 86_400_000.0
_LOW: Final = math.floor(math.log(LOW_MS) / _GROWTH)
_HIGH: Final = math.ceil(math.log(HIGH_MS) / _GROWTH)
_NAME: Final = re.compile("[^a-zA-Z0-9_]")
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

Tags: TypeAlias = Mapping[str, str]
_Labels: TypeAlias = tuple[tuple[str, str], ...]
_At: TypeAlias = tuple[str, _Labels]
_T = TypeVar("_T")


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of times, in milliseconds."""

    count: int
    total: float
    low: float
    high: float
    p50: float
    p95: float
    p99: float


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One series as it stands."""

    name: str
    kind: str
    """counter, timing or gauge."""
    tags: dict[str, str]
    value: float
    """A counter's or a gauge's; of a timing the number of times."""
    timing: Timing | None = None


class _Number:
    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


class _Times:
    __slots__ = ("buckets", "count", "high", "low", "total")

    def __init__(self) -> None:
        self.buckets: dict[int, int] = {}
        self.count = 0
        self.total = 0.0
        self.low = math.inf
        self.high = 0.0

    def add(self, ms: float) -> None:
        if ms <= LOW_MS:
            at = _LOW
        elif ms >= HIGH_MS:
            at = _HIGH
        else:
            at = math.ceil(math.log(ms) / _GROWTH)
        self.buckets[at] = self.buckets.get(at, 0) + 1
        self.count += 1
        self.total += ms
        if ms < self.low:
            self.low = ms
        if ms > self.high:
            self.high = ms

    def quantiles(self, wanted: Sequence[float]) -> list[float]:
        found: list[float] = []
        places, seen, value = sorted(self.buckets.items()), 0, 0.0
        steps = iter(places)
        for part in wanted:
            rank = max(1, math.ceil(part * self.count))
            while seen < rank:
                at, number = next(steps)
                seen += number
                # The middle of a bucket is at most 1 % from both its ends.
                value = 2 * math.exp(at * _GROWTH) / (1 + math.exp(_GROWTH))
            found.append(min(self.high, max(self.low, value)))
        return found

    def shown(self) -> Timing:
        p50, p95, p99 = self.quantiles(QUANTILES)
        return Timing(count=self.count, total=self.total, low=self.low, high=self.high, p50=p50, p95=p95, p99=p99)


_collectors: weakref.WeakSet[MetricsCollector] = weakref.WeakSet()


def _forked() -> None:
    for each in list(_collectors):
        each._lock = threading.Lock()  # nobody is left here who would open the parent's


os.register_at_fork(after_in_child=_forked)


class MetricsCollector:
    """Counts in this process; any thread may use it.

    metrics = MetricsCollector()
    metrics.increment("storage.operations.total", tags={"operation": "write"})
    metrics.timing("storage.latency", 12.5, tags={"operation": "read"})
    metrics.gauge("storage.size.bytes", 1024)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kinds: dict[str, str] = {}
        self._shown: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._numbers: dict[_At, _Number] = {}
        self._times: dict[_At, _Times] = {}
        # The same series by their tags in the order in which callers write them.
        self._counters: dict[_At, _Number] = {}
        self._gauges: dict[_At, _Number] = {}
        self._timings: dict[_At, _Times] = {}
        _collectors.add(self)

    def increment(self, name: str, value: float = 1, tags: Tags | None = None) -> None:
        """Adds to a counter.

        Args:
            name: with dots or underscores; its kind is that of its first call.
            value: 0 or more.
            tags: few, with few values each.

        Raises:
            StorageRefused: less than 0, no number, or a name of another kind.
        """
        if not 0 <= value < math.inf:
            raise StorageRefused(f"a counter only grows: {name!r:.80} by {value!r:.40}", hint="use gauge")
        at = (name, tuple(tags.items()) if tags else ())
        with self._lock:
            (self._counters.get(at) or self._number("counter", self._counters, at)).value += value

    def timing(self, name: str, ms: float, tags: Tags | None = None) -> None:
        """Notes how long something took.

        Args:
            name: see `increment`.
            ms: milliseconds.
            tags: see `increment`.

        Raises:
            StorageRefused: less than 0, no number, or a name of another kind.
        """
        if not 0 <= ms < math.inf:
            raise StorageRefused(f"not a time: {name!r:.80} took {ms!r:.40} ms")
        at = (name, tuple(tags.items()) if tags else ())
        with self._lock:
            series = self._timings.get(at)
            if series is None:
                series = self._times.setdefault(self._admitted("timing", *_sorted(at)), _Times())
                _remember(self._timings, at, series)
            series.add(ms)

    def gauge(self, name: str, value: float, tags: Tags | None = None) -> None:
        """Says what something is now.

        Raises:
            StorageRefused: a name of another kind, or no number.
        """
        if not isinstance(value, int | float):
            raise StorageRefused(f"not a number: {name!r:.80} = {value!r:.40}")
        at = (name, tuple(tags.items()) if tags else ())
        with self._lock:
            (self._gauges.get(at) or self._number("gauge", self._gauges, at)).value = value

    def snapshot(self) -> list[Metric]:
        """Every series as of now, by name and tags."""
        with self._lock:
            found = [
                Metric(name=name, kind=self._kinds[name], tags=dict(labels), value=series.value)
                for (name, labels), series in self._numbers.items()
            ]
            for (name, labels), times in self._times.items():
                shown = times.shown()
                found.append(Metric(name=name, kind="timing", tags=dict(labels), value=shown.count, timing=shown))
        return sorted(found, key=lambda each: (each.name, sorted(each.tags.items())))

    def value(self, name: str, tags: Tags | None = None) -> float:
        """A counter's or a gauge's value; 0 of one that was never touched."""
        with self._lock:
            series = self._numbers.get(_sorted((name, tuple((tags or {}).items()))))
            return series.value if series is not None else 0.0

    def prometheus(self) -> str:
        """Everything in Prometheus' text form: dots become underscores, times are summaries in seconds."""
        lines: list[str] = []
        last = ""
        for metric in self.snapshot():
            name = shown_name(metric.name, metric.kind)
            if name != last:
                kind = "summary" if metric.timing is not None else metric.kind
                lines += [f"# HELP {name} As {metric.name}".translate(_ESCAPES), f"# TYPE {name} {kind}"]
                last = name
            lines += _lines(name, metric)
        return "\n".join(lines) + "\n" if lines else ""

    def reset(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._kinds.clear()
            self._shown.clear()
            self._counts.clear()
            for each in (self._numbers, self._times, self._counters, self._gauges, self._timings):
                each.clear()

    def _number(self, kind: str, quick: dict[_At, _Number], at: _At) -> _Number:
        series = self._numbers.setdefault(self._admitted(kind, *_sorted(at)), _Number())
        _remember(quick, at, series)
        return series

    def _admitted(self, kind: str, name: str, labels: _Labels) -> tuple[str, _Labels]:
        """The series that this one is counted in, which is another if there are too many."""
        if not isinstance(name, str) or not name or not name.isprintable():
            raise StorageRefused(f"not a metric's name: {name!r:.80}", hint="such as storage.operations.total")
        known = self._kinds.get(name, kind)
        if known != kind:
            raise StorageRefused(f"{name!r:.80} is a {known}, not a {kind}", hint="give it a name of its own")
        first = self._shown.get(shown_name(name, kind), name)
        if first != name:
            raise StorageRefused(f"{name!r:.80} and {first!r:.80} are one name to Prometheus", hint="rename one")
        if (name, labels) in self._numbers or (name, labels) in self._times:
            return name, labels
        count = self._counts.get(name, 0)
        if count >= SERIES_MAX:
            return name, OTHER
        self._kinds[name] = kind
        self._shown[shown_name(name, kind)] = name
        self._counts[name] = count + 1
        return name, labels


def _sorted(at: _At) -> _At:
    return at[0], tuple(sorted(at[1]))


def _remember(quick: dict[_At, _T], at: _At, series: _T) -> None:
    """So that the next call finds it without sorting its tags."""
    if len(quick) >= QUICK_MAX:
        quick.clear()
    quick[at] = series


def shown_name(name: str, kind: str) -> str:
    """How Prometheus calls a metric."""
    shown = _NAME.sub("_", name)
    shown = "_" + shown if shown[0].isdigit() else shown
    if kind == "counter" and not shown.endswith("_total"):
        return shown + "_total"
    return shown + "_seconds" if kind == "timing" else shown


def _lines(name: str, metric: Metric) -> Iterator[str]:
    tags = {_NAME.sub("_", str(tag)): str(value) for tag, value in sorted(metric.tags.items())}
    if metric.timing is None:
        yield f"{name}{_inside(tags)} {_shown(metric.value)}"
        return
    times = metric.timing
    for part, ms in zip(QUANTILES, (times.p50, times.p95, times.p99), strict=True):
        yield f"{name}{_inside({**tags, 'quantile': str(part)})} {_shown(ms / 1000)}"
    yield f"{name}_sum{_inside(tags)} {_shown(times.total / 1000)}"
    yield f"{name}_count{_inside(tags)} {times.count}"


def _inside(tags: Mapping[str, str]) -> str:
    if not tags:
        return ""
    return "{" + ",".join(f'{tag}="{value.translate(_ESCAPES)}"' for tag, value in tags.items()) + "}"


def _shown(value: float) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else f"{value:.9g}"

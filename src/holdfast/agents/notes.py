"""What a note must be, how notes are asked for, and what figures add up to. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from holdfast import clock as clocks
from holdfast.errors import UsageError
from holdfast.node.looking import When
from holdfast.query import AllOf, AnyOf, Condition, where, words_of

DECISIONS: Final = "decisions"
METRICS: Final = "metrics"
COMMUNICATIONS: Final = "communications"
PERCENTILES: Final = (50, 95, 99)
Name = Annotated[str, Meta(min_length=1)]
Share = Annotated[float, Meta(ge=0, le=1)]
SEARCHED: Final = ("reasoning", "decision_type", "chosen_option", "outcome")
_WORDS_MAX: Final = 12


class Decision(msgspec.Struct, kw_only=True):
    """Something that was decided, and why; confidence and quality go from 0 to 1."""

    id: str | int
    decision_type: Name
    context: Any = None
    options_considered: list[Any] = []
    chosen_option: Any = None
    reasoning: str | None = None
    confidence_score: Share | None = None
    outcome: str | None = None
    outcome_quality: Share | None = None
    related_task_id: str | int | None = None
    created_at: str | None = None
    updated_at: str | None = None


class Figure(msgspec.Struct, kw_only=True):
    """A figure, and when it was so."""

    id: str | int
    metric_type: Name
    metric_name: Name
    value: int | float
    unit: str | None = None
    tags: dict[str, Any] = {}
    timestamp: str | None = None


class Communication(msgspec.Struct, kw_only=True):
    """What one agent said to another."""

    id: str | int
    from_agent: Name
    to_agent: Name
    message_type: Name = "message"
    content: Any = None
    related_task_id: str | int | None = None
    timestamp: str | None = None


KINDS: Final[dict[str, type[msgspec.Struct]]] = {
    DECISIONS: Decision,
    METRICS: Figure,
    COMMUNICATIONS: Communication,
}
STAMPED: Final = {DECISIONS: "created_at", METRICS: "timestamp", COMMUNICATIONS: "timestamp"}
"""The field that says when a row was."""


def asked(table: str, fields: Mapping[str, Any], since: When | None, until: When | None) -> AllOf:
    """The condition for rows with these fields (None: any), since a time and before another.

    Raises:
        UsageError: what is no time.
    """
    tests: list[Condition] = [where(name) == value for name, value in fields.items() if value is not None]
    if since is not None:
        tests.append(where(STAMPED[table]) >= clocks.iso(clocks.parse_time(since)))
    if until is not None:
        tests.append(where(STAMPED[table]) < clocks.iso(clocks.parse_time(until)))
    return AllOf(all=tuple(tests))


def worded(text: str) -> AllOf:
    """The condition for decisions in which each of these words stands somewhere.

    Raises:
        UsageError: no words, or too many.
    """
    words = words_of(text) if isinstance(text, str) else []
    if not words or len(words) > _WORDS_MAX:
        raise UsageError(f"nothing to look for: {text!r:.80}", hint=f"one to {_WORDS_MAX} words")
    return AllOf(all=tuple(AnyOf(any=tuple(where(name).text(word) for name in SEARCHED)) for word in words))


def tagged(tags: Mapping[str, Any] | None) -> dict[str, Any]:
    """The fields of a figure that its tags are."""
    return {f"tags.{name}": value for name, value in (tags or {}).items()}


def sums(figures: Iterable[Mapping[str, Any]], by: str | None) -> list[dict[str, Any]]:
    """What figures add up to, for each value of a field or tag; without `by`, one sum of all.

    Args:
        figures: rows of the metrics.
        by: metric_name, metric_type, unit, or the name of a tag.
    """
    groups: dict[Any, list[float]] = {}
    for each in figures:
        name = None if by is None else each.get(by, each["tags"].get(by))
        groups.setdefault(name if isinstance(name, str | int | float | bool | None) else str(name), []).append(
            each["value"]
        )
    return [{"by": name, **_sum(sorted(values))} for name, values in sorted(groups.items(), key=lambda g: str(g[0]))]


def _sum(values: list[float]) -> dict[str, Any]:
    return {
        "count": len(values),
        "sum": sum(values),
        "min": values[0],
        "max": values[-1],
        "avg": sum(values) / len(values),
        **{f"p{each}": _percentile(values, each / 100) for each in PERCENTILES},
    }


def _percentile(values: list[float], fraction: float) -> float:
    """The value at a fraction of sorted ones, between two where it falls between."""
    at = fraction * (len(values) - 1)
    low, part = int(at), at - int(at)
    return values[low] if not part else values[low] + part * (values[low + 1] - values[low])

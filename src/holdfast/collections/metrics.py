"""Metrics: figures about agents, tools and whatever else runs, as records that are summed where they lie."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from holdfast import codec
from holdfast.corpus import Stored
from holdfast.errors import HoldfastError, UsageError
from holdfast.log.drafts import Draft
from holdfast.log.marks import METRICS, marks_of
from holdfast.log.reading import BlobReader, load
from holdfast.records import INLINE_BYTES_MAX, VALUE, ZERO32, check_names

METRIC: Final = "metric"


class MetricBody(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is kept of a metric."""

    entity_type: str
    entity_name: str
    metric_name: str
    value: float
    timestamp: str
    session_id: str | None = None
    labels: dict[str, Any] = {}


class Metric(msgspec.Struct, kw_only=True):
    """A figure about something, at a time."""

    id: str
    entity_type: str
    entity_name: str
    session_id: str | None
    metric_name: str
    value: float
    timestamp: str
    labels: dict[str, Any]


class MetricSums(msgspec.Struct, kw_only=True):
    """What a group of metrics adds up to. `bucket` is when its stretch of time begins; percentiles lie between values
    (linear interpolation, as PostgreSQL's ``percentile_cont``).
    """

    by: dict[str, str | None]
    bucket: str | None
    count: int
    sum: float
    min: float
    max: float
    avg: float
    percentiles: dict[str, float]


def draft(metric: str, body: MetricBody, *, author: str = "", fresh: bool = False) -> Draft:
    """A draft of a metric.

    Raises:
        UsageError: labels that JSON cannot say, or too large ones (status 413).
    """
    check_names(METRIC, METRICS, metric, author)
    fmt, payload = codec.serialise(msgspec.to_builtins(body))
    if len(payload) > INLINE_BYTES_MAX:
        error = UsageError(f"a metric of {len(payload)} bytes, the most is {INLINE_BYTES_MAX}", hint="fewer labels")
        error.status = 413
        raise error
    marks = marks_of(METRICS, METRIC, metric, payload)
    return Draft(METRIC, METRICS, metric, fmt, payload, VALUE, author, None, marks, ZERO32, fresh)


def metric_in(stored: Stored, blobs: BlobReader | None = None) -> Metric | None:
    """The metric in its record; None if that is none, or its bytes are gone."""
    try:
        body = msgspec.convert(load(stored, blobs), MetricBody)
    except (HoldfastError, msgspec.ValidationError):
        return None
    return Metric(
        id=stored.record.key,
        entity_type=body.entity_type,
        entity_name=body.entity_name,
        session_id=body.session_id,
        metric_name=body.metric_name,
        value=body.value,
        timestamp=body.timestamp,
        labels=body.labels,
    )


def percentile(fraction: float, count: int, low: float | None, high: float | None) -> float:
    """The value at a fraction of so many sorted ones, from those on both sides of it."""
    at = fraction * (count - 1)
    part = at - int(at)
    if low is None:
        return 0.0
    return low if high is None or not part else low + part * (high - low)

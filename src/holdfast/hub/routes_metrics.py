"""Metrics over HTTP: record one or many, list them, and add them up where they lie.

A metric is written into the log of its session's agent; without one, of the agent that it is about
(``entity_type=agent``), else of the agent that records it, and where nobody is named, of `NOBODYS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from holdfast import clock
from holdfast.collections import metrics as figures
from holdfast.collections.metrics import Metric, MetricBody, MetricSums
from holdfast.corpus import Stored, storage
from holdfast.errors import Conflict, Denied, NotFound
from holdfast.hub import storage_shapes as shapes
from holdfast.hub.api import Call, Operation, Reply
from holdfast.hub.own import Desk, check_agent
from holdfast.hub.principal import READ, Principal
from holdfast.hub.routes_sessions import declare, next_page
from holdfast.hub.sessions import Sessions, author_of
from holdfast.hub.shapes import time_ms
from holdfast.log import Draft
from holdfast.log.drafts import new_id
from holdfast.log.marks import METRICS, SESSIONS

PATH: Final = "/storage/metrics"
NOBODYS: Final = "metrics"
"""The agent in whose log metrics lie that belong to no other."""
LOT: Final = 250


class Recorded(msgspec.Struct):
    """The ids of metrics that came together, in their order."""

    count: int
    ids: list[str]


class SumsFound(msgspec.Struct):
    """What the groups add up to; `truncated` when there are more of them than are shown."""

    groups: list[MetricSums]
    truncated: bool


def operations(sessions: Sessions) -> Iterator[Operation]:
    """Everything about metrics."""
    work = MetricWork(sessions)
    yield declare(
        *("POST", "metrics", "Record a metric", work.record),
        body=shapes.NewMetric,
        answer=Metric,
        status=201,
        also={200: Metric},
        errors=(409,),
    )
    yield declare(
        *("POST", "metrics/batch", "Record many metrics", work.batch),
        body=shapes.NewMetrics,
        answer=Recorded,
        status=201,
        errors=(409,),
    )
    yield declare(
        *("GET", "metrics", "Metrics, the newest first", work.find), query=shapes.MetricsAsked, answer=list[Metric]
    )
    yield declare(
        *("GET", "metrics/aggregate", "What metrics add up to", work.sums), query=shapes.SumsAsked, answer=SumsFound
    )


class MetricWork:
    """What each operation does.

    Args:
        sessions: of this hub.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._core = sessions.core

    async def record(self, call: Call) -> Reply:
        """Records a metric. With an `id` that a client gives, a repeat of the request answers 200 and adds nothing."""
        agent, draft = await self._draft(call.principal, call.body)
        ((stored, made),) = await self._store(agent, [(draft, call.body)])
        found = figures.metric_in(stored, self._core.home.blobs)
        if found is None:
            raise Conflict(f"{draft.key} has lost its body", hint="record it under another id")
        return Reply(found, status=201 if made else 200)

    async def batch(self, call: Call) -> Recorded:
        """Records up to 1,000 metrics; one that is wrong refuses them all. More than 250 are several transactions."""
        asked: list[shapes.NewMetric] = call.body.metrics
        of: dict[str, list[tuple[Draft, shapes.NewMetric]]] = {}
        ids = []
        for each in asked:
            agent, draft = await self._draft(call.principal, each)
            of.setdefault(agent, []).append((draft, each))
            ids.append(draft.key)
        for agent, made in of.items():
            for first in range(0, len(made), LOT):
                await self._store(agent, made[first : first + LOT])
        return Recorded(len(ids), ids)

    async def find(self, call: Call) -> Reply:
        """Metrics by their time, as a list; the next page's cursor is in `X-Next-Cursor` and `Link`."""
        call.principal.check_read(METRICS)
        asked: shapes.MetricsAsked = call.query
        which = msgspec.structs.replace(
            _filter(asked),
            after=_after(asked.after),
            newest_first=asked.order == "desc",
            offset=asked.offset,
            limit=asked.limit + 1,
        )

        def look() -> tuple[list[Metric], str]:
            found = storage.samples(self._core.corpus, which)
            shown = [figures.metric_in(each, self._core.home.blobs) for _, each in found[: asked.limit]]
            more = len(found) > asked.limit
            at_ms, last = found[asked.limit - 1] if more else (0, None)
            return [each for each in shown if each is not None], f"{at_ms}:{last.pos}" if last is not None else ""

        shown, following = await self._core.read(look)
        return Reply(shown, headers=next_page(PATH, asked, following))

    async def sums(self, call: Call) -> SumsFound:
        """Count, sum, min, max, avg and percentiles of metrics, by groups and stretches of time."""
        call.principal.check_read(METRICS)
        asked: shapes.SumsAsked = call.query
        fractions = [each / 100 for each in asked.percentile]
        bucket_ms = asked.bucket * 1000 if asked.bucket else None

        def look() -> SumsFound:
            found = storage.sums(
                self._core.corpus, _filter(asked), by=asked.by, bucket_ms=bucket_ms, fractions=fractions
            )
            groups = [_shown(each, asked, fractions) for each in found[: storage.GROUPS_MAX]]
            return SumsFound(groups, len(found) > storage.GROUPS_MAX)

        return await self._core.read(look)

    async def _draft(self, principal: Principal, asked: shapes.NewMetric) -> tuple[str, Draft]:
        agent = await self._agent(principal, asked)
        principal.check_write(agent, METRICS)
        told = time_ms(asked.timestamp)
        body = MetricBody(
            entity_type=asked.entity_type,
            entity_name=asked.entity_name,
            metric_name=asked.metric_name,
            value=asked.value,
            timestamp=self._sessions.now() if told is None else clock.iso(told),
            session_id=asked.session_id,
            labels=asked.labels or {},
        )
        metric = asked.id or new_id("metric")
        return agent, figures.draft(metric, body, author=author_of(principal, agent), fresh=asked.id is None)

    async def _agent(self, principal: Principal, asked: shapes.NewMetric) -> str:
        if asked.session_id is not None:
            seen = principal.may(READ) and principal.may_read(SESSIONS)
            try:
                agent = await self._sessions.agent_of(asked.session_id)
            except NotFound:
                agent = None  # a metric may outlive its session, or come from elsewhere
            if not seen and (agent is None or not principal.may_write(agent, METRICS)):
                # The same of what is there and of what is not, or it would learn which sessions there are, and whose.
                raise Denied(
                    f"{principal} may not write of the session {asked.session_id!r:.140}",
                    hint="a token that may not read sessions names those of its agents alone",
                )
            if agent is not None:
                return agent
        if asked.entity_type == "agent":
            return check_agent(asked.entity_name, hub=False)
        if principal.name and principal.may_write(principal.name, METRICS):
            return check_agent(principal.name, hub=False)
        return NOBODYS

    async def _store(self, agent: str, made: Sequence[tuple[Draft, shapes.NewMetric]]) -> list[tuple[Stored, bool]]:
        log = await self._core.own.log_of(agent)
        size = sum(len(draft.payload) for draft, _ in made)
        if len(made) == 1:
            ready = [self._core.own.ready(log, made[0][0])]
        else:
            ready = await self._core.read(lambda: [self._core.own.ready(log, draft) for draft, _ in made])

        def work(desk: Desk) -> list[tuple[Stored, bool]]:
            out = []
            for (draft, asked), write in zip(made, ready, strict=True):
                before = desk.newest(METRICS, draft.key) if asked.id else None
                if before is None:
                    out.append((desk.append(write), True))
                    continue
                _check_same(before, asked)
                out.append((before, False))
            return out

        found: list[tuple[Stored, bool]] = await self._core.own.write(agent, work, size=size, quick=len(made) == 1)
        return found


def _check_same(before: Stored, asked: shapes.NewMetric) -> None:
    found = figures.metric_in(before)
    told = time_ms(asked.timestamp)
    same = found is not None and (
        (found.entity_type, found.entity_name, found.metric_name, found.value, found.session_id, found.labels)
        == (asked.entity_type, asked.entity_name, asked.metric_name, asked.value, asked.session_id, asked.labels or {})
        and (told is None or found.timestamp == clock.iso(told))
    )
    if not same:
        raise Conflict(f"another metric has the id {asked.id}", hint="an id names one metric, for ever")


def _filter(asked: shapes.MetricsAsked | shapes.SumsAsked) -> storage.SampleFilter:
    return storage.SampleFilter(
        entity_type=asked.entity_type,
        entity_name=asked.entity_name,
        metric_name=asked.metric_name,
        session_id=asked.session_id,
        since=time_ms(asked.since),
        until=time_ms(asked.until),
        labels=asked.label,
    )


def _shown(found: storage.Sums, asked: shapes.SumsAsked, fractions: Sequence[float]) -> MetricSums:
    sides = zip(asked.percentile, fractions, found.low, found.high, strict=True)
    return MetricSums(
        by=dict(zip(asked.by, found.by, strict=True)),
        bucket=None if found.bucket_ms is None else clock.iso(found.bucket_ms),
        count=found.count,
        sum=found.sum,
        min=found.min,
        max=found.max,
        avg=found.avg,
        percentiles={
            f"p{percent:g}": figures.percentile(fraction, found.count, low, high)
            for percent, fraction, low, high in sides
        },
    )


def _after(cursor: str | None) -> tuple[int, int] | None:
    ms, _, pos = (cursor or "").partition(":")
    return (int(ms), int(pos)) if cursor else None

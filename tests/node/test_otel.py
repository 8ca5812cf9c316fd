"""OpenTelemetry: what an agent does with its memory is seen, and what it says is not, unless somebody asks for it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from holdfast.errors import Conflict, NotFound
from holdfast.node.aio import AsyncStore
from holdfast.node.directory import Limits
from holdfast.node.store import Store
from holdfast.otel import CONTENT, instrument, uninstrument

SECRET = "the combination is 7-21-33"
NO_LIMITS = Limits(floor_bytes=0, ballast_bytes=0)


class Watch:
    """A program's own OpenTelemetry, in memory."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._metrics = InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meters = MeterProvider(metric_readers=[self._metrics])

    def on(self, store: Any) -> Any:
        """The store, watched."""
        return instrument(store, tracer_provider=self.tracers, meter_provider=self.meters)

    def spans(self) -> list[ReadableSpan]:
        """All spans that ended."""
        return list(self._spans.get_finished_spans())

    def facts(self) -> list[tuple[str, dict[str, Any]]]:
        """Their names and attributes."""
        return [(span.name, dict(span.attributes or {})) for span in self.spans()]

    def durations(self) -> dict[tuple[str, str], int]:
        """(operation, type of its error) -> how often."""
        data = self._metrics.get_metrics_data()
        assert data is not None
        (metric,) = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics]
        assert (metric.name, metric.unit) == ("db.client.operation.duration", "s")
        points: list[Any] = list(metric.data.data_points)
        assert points[0].explicit_bounds == (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
        counts: Counter[tuple[str, str]] = Counter()
        for point in points:
            counts[point.attributes["db.operation.name"], point.attributes.get("error.type", "")] += point.count
        return counts

    def everything(self) -> str:
        """All that a backend would get to see."""
        measures: Any = self._metrics.get_metrics_data()
        return "".join(span.to_json() for span in self.spans()) + str(measures.to_json())


@pytest.fixture
def watch() -> Iterator[Watch]:
    made = Watch()
    yield made
    made.tracers.shutdown()
    made.meters.shutdown()


@pytest.fixture
def store(tmp_path: Path, watch: Watch) -> Iterator[Store]:
    with Store(tmp_path / "n", "ada", limits=NO_LIMITS) as opened:
        yield watch.on(opened)


def test_each_operation_is_one_span_by_its_convention(store: Store, watch: Watch) -> None:
    store.put("plan", 1, expect=0)
    store.put("plan", 2, collection="work")
    store.get("plan")
    store.rollback("plan", 1)
    posted = store.post("hello", thread="t-1")
    store.messages()
    store.delete("plan")
    with store.batch() as batch:
        batch.put("a", 1)
        batch.put("b", 2)
    names = [name for name, _ in watch.facts()]
    assert names == [
        *("create_memory", "upsert_memory", "search_memory", "update_memory", "create_memory"),
        *("search_memory", "delete_memory", "upsert_memory"),
    ]
    first, second = (facts for _, facts in watch.facts()[:2])
    assert first == {
        "db.system.name": "holdfast",
        "db.operation.name": "put",
        "db.collection.name": "state",
        "gen_ai.operation.name": "create_memory",
        "gen_ai.agent.id": "ada",
        "gen_ai.memory.store.id": "ada/state",
        "gen_ai.memory.record.id": "plan",
    }
    assert second["gen_ai.memory.store.id"] == "ada/work"
    message = watch.facts()[4][1]
    assert (message["gen_ai.memory.record.id"], message["gen_ai.conversation.id"]) == (posted.id, "t-1")
    assert [facts.get("gen_ai.memory.record.count") for _, facts in watch.facts()][5::2] == [1, 2]
    assert watch.durations() == {
        ("put", ""): 2,
        **{(name, ""): 1 for name in ("get", "rollback", "post", "messages", "delete", "batch")},
    }


def test_content_is_seen_only_by_who_asks_for_it(store: Store, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        store.put("note", SECRET)
        store.get("note")
        store.post(SECRET)
        store.messages()
        store.search("combination")
        with pytest.raises(Conflict):
            store.put("note", SECRET, expect=7)

    work()
    assert "combination" not in watch.everything()
    monkeypatch.setenv(CONTENT, "true")
    work()
    seen = [facts for _, facts in watch.facts() if "gen_ai.memory.records" in facts]
    assert [facts["db.operation.name"] for facts in seen] == ["put", "get", "post", "messages", "search", "put"]
    assert [SECRET in json.loads(facts["gen_ai.memory.records"]) for facts in seen] == [True] * 6
    assert seen[4]["gen_ai.memory.query.text"] == "combination"


def test_a_failure_has_its_type_and_not_its_text(store: Store, watch: Watch) -> None:
    with pytest.raises(NotFound):
        store.get("nothing here")
    ((_, facts),) = watch.facts()
    (span,) = watch.spans()
    assert facts["error.type"] == "not_found"
    assert (span.status.is_ok, span.status.description, list(span.events)) == (False, None, [])
    assert watch.durations() == {("get", "not_found"): 1}


def test_a_failed_batch_is_a_failed_span(store: Store, watch: Watch) -> None:
    def work() -> None:
        with store.batch() as batch:
            batch.put("a", 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert watch.durations() == {("batch", "ZeroDivisionError"): 1}


def test_an_awaited_store_is_seen_alike(tmp_path: Path, watch: Watch) -> None:
    async def work() -> None:
        async with watch.on(AsyncStore(tmp_path / "n", "bob", limits=NO_LIMITS)) as store:
            await store.put("plan", 1)
            assert await store.get("plan") == 1
            await asyncio.gather(*(store.post(str(n)) for n in range(3)))
            async with store.batch() as batch:
                batch.put("a", 1)

    asyncio.run(work())
    counts = {("put", ""): 1, ("get", ""): 1, ("post", ""): 3, ("batch", ""): 1}
    assert watch.durations() == counts


def test_it_can_be_put_on_twice_and_taken_off(store: Store, watch: Watch) -> None:
    watch.on(store).put("a", 1)
    assert len(watch.spans()) == 1
    uninstrument(store).put("a", 2)
    assert len(watch.spans()) == 1
    assert not {"put", "batch"} & set(vars(store))

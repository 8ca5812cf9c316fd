"""Metrics: what is counted, how exact percentiles are, and what Prometheus and the program's log are told."""

from __future__ import annotations

import logging
import random
import threading

import pytest

from holdfast.errors import ObjectNotFound, StorageRefused, StorageUnavailable
from holdfast.objects import MemoryStore, MetricsCollector
from holdfast.objects.layers import Cached, Logged, Metered
from holdfast.objects.metrics import SERIES_MAX
from holdfast.testing.faults import BEFORE, MIDWAY, Faults, FaultyStore


def test_the_seeds_calls_are_counted() -> None:
    metrics = MetricsCollector()
    for _ in range(3):
        metrics.increment("storage.operations.total", tags={"operation": "write"})
    metrics.increment("storage.operations.total", 2, tags={"operation": "read"})
    metrics.timing("storage.latency", 12.5, tags={"operation": "read"})
    metrics.gauge("storage.size.bytes", 10)
    metrics.gauge("storage.size.bytes", 7)
    assert metrics.value("storage.operations.total", {"operation": "write"}) == 3
    assert metrics.value("storage.size.bytes") == 7
    assert [(each.name, each.kind, each.tags, each.value) for each in metrics.snapshot()] == [
        ("storage.latency", "timing", {"operation": "read"}, 1),
        ("storage.operations.total", "counter", {"operation": "read"}, 2),
        ("storage.operations.total", "counter", {"operation": "write"}, 3),
        ("storage.size.bytes", "gauge", {}, 7),
    ]
    assert metrics.prometheus().splitlines() == [
        "# HELP storage_latency_seconds As storage.latency",
        "# TYPE storage_latency_seconds summary",
        'storage_latency_seconds{operation="read",quantile="0.5"} 0.0125',
        'storage_latency_seconds{operation="read",quantile="0.95"} 0.0125',
        'storage_latency_seconds{operation="read",quantile="0.99"} 0.0125',
        'storage_latency_seconds_sum{operation="read"} 0.0125',
        'storage_latency_seconds_count{operation="read"} 1',
        "# HELP storage_operations_total As storage.operations.total",
        "# TYPE storage_operations_total counter",
        'storage_operations_total{operation="read"} 2',
        'storage_operations_total{operation="write"} 3',
        "# HELP storage_size_bytes As storage.size.bytes",
        "# TYPE storage_size_bytes gauge",
        "storage_size_bytes 7",
    ]
    metrics.reset()
    assert metrics.snapshot() == []
    assert metrics.prometheus() == ""


def test_the_order_of_tags_does_not_matter() -> None:
    metrics = MetricsCollector()
    for tags in ({"a": "1", "b": "2"}, {"b": "2", "a": "1"}):
        metrics.increment("n", tags=tags)
        metrics.timing("t", 1, tags=tags)
    assert [each.value for each in metrics.snapshot()] == [2, 2]


def test_prometheus_own_reader_understands_it() -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    metrics = MetricsCollector()
    odd = 'a"b\\c\nd'
    metrics.increment("hits", tags={"who": odd, "b.c": "1"})
    metrics.timing("1st.time", 1500)
    families = {family.name: family for family in parser.text_string_to_metric_families(metrics.prometheus())}
    assert families["hits"].samples[0].labels == {"who": odd, "b_c": "1"}
    assert {sample.name: sample.value for sample in families["_1st_time_seconds"].samples}[
        "_1st_time_seconds_sum"
    ] == 1.5


def test_percentiles_are_within_one_percent() -> None:
    chance = random.Random(3)
    for draw in (lambda: chance.lognormvariate(0, 3), lambda: chance.uniform(0.001, 1000), lambda: 5.0):
        metrics = MetricsCollector()
        times = sorted(min(8e7, max(1e-3, draw())) for _ in range(5000))
        for ms in chance.sample(times, len(times)):
            metrics.timing("t", ms)
        timing = metrics.snapshot()[0].timing
        assert timing is not None
        for part, shown in ((0.5, timing.p50), (0.95, timing.p95), (0.99, timing.p99)):
            exact = times[max(0, -(-int(part * 5000) // 1) - 1)]
            assert abs(shown - exact) <= 0.0101 * exact
        assert (timing.low, timing.high, timing.count) == (times[0], times[-1], 5000)
        assert timing.total == pytest.approx(sum(times))


def test_memory_is_bounded() -> None:
    metrics = MetricsCollector()
    for number in range(SERIES_MAX + 500):
        metrics.increment("many", tags={"key": str(number)})
    shown = metrics.snapshot()
    assert len(shown) == SERIES_MAX + 1
    assert sum(each.value for each in shown) == SERIES_MAX + 500
    for exponent in range(-200, 200):
        metrics.timing("wide", 10.0**exponent if exponent < 300 else 1)
    assert len(metrics._times[("wide", ())].buckets) <= 1400


def test_what_makes_no_sense_is_refused() -> None:
    metrics = MetricsCollector()
    metrics.increment("a.b")
    for call in (
        lambda: metrics.increment("a.b", -1),
        lambda: metrics.increment("a.b", float("nan")),
        lambda: metrics.timing("t", -1),
        lambda: metrics.gauge("a.b", 1),
        lambda: metrics.timing("a.b", 1),
        lambda: metrics.increment("a_b"),
        lambda: metrics.increment(""),
        lambda: metrics.gauge("g", "1"),  # type: ignore[arg-type]
    ):
        with pytest.raises(StorageRefused):
            call()
    assert len(metrics.snapshot()) == 1


def test_threads_lose_no_count() -> None:
    metrics = MetricsCollector()

    def work() -> None:
        for _ in range(2000):
            metrics.increment("n", tags={"a": "1"})
            metrics.timing("t", 1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.value for each in metrics.snapshot()] == [8000, 8000]


def test_a_store_is_metered() -> None:
    below = FaultyStore(MemoryStore())
    store = Metered(Cached(below))
    store.put("a", b"x" * 10)
    store.put("b", b"y" * 5)
    assert store.read("a") == b"x" * 10
    assert store.get("b").read() == b"y" * 5
    with pytest.raises(ObjectNotFound):
        store.read("nobody")
    assert store.stats().availability == 1.0
    store.delete("b")
    list(store.list())
    store.measure()
    below.down = True
    with pytest.raises(StorageUnavailable):
        store.put("c", b"")
    stats = store.stats()
    assert stats.operations == {"write": 3, "read": 3, "delete": 1, "list": 1, "head": 0}
    assert (stats.bytes_in, stats.bytes_out, stats.size_bytes, stats.objects) == (15, 15, 10, 1)
    assert stats.errors == {"read": {"object_not_found": 1}, "write": {"storage_unavailable": 1}}
    assert stats.availability == 1 - 1 / 8
    assert stats.cache_hit_rate is not None
    assert 0 < stats.cache_hit_rate <= 1
    assert stats.latency["write"].count == 3
    assert stats.latency["read"].p50 <= stats.latency["read"].p99
    text = store.metrics.prometheus()
    for line in ('storage_operations_total{operation="write"', "storage_cache_hit_rate", 'error="storage_unavailable"'):
        assert line in text
    below.down = False
    store.put("c", b"z" * 990)
    assert store.measure() == 1000
    assert (store.stats().growth_bytes_s or 0) > 0
    assert store.health().ok
    assert store.metrics.value("storage.available", {"store": store.name}) == 1


def test_what_breaks_midway_is_an_error_and_counts_what_came() -> None:
    store = Metered(FaultyStore(MemoryStore(), Faults(MIDWAY, MIDWAY, only=("get", "list"))))
    store.put("a", b"x" * 10)
    with pytest.raises(StorageUnavailable):
        store.get("a").read()
    with pytest.raises(StorageUnavailable):
        list(store.list())
    stats = store.stats()
    assert stats.bytes_out == 5
    assert stats.errors == {"read": {"storage_unavailable": 1}, "list": {"storage_unavailable": 1}}


def test_the_log_has_the_seeds_fields(caplog: pytest.LogCaptureFixture) -> None:
    below = FaultyStore(MemoryStore())
    store = Logged(below)
    with caplog.at_level(logging.INFO, "AOS.Storage"):
        store.put("agents/ceo", b"top secret", metadata={"token": "also secret"})
        store.read("agents/ceo")
        store.get("agents/ceo").close()
        with pytest.raises(ObjectNotFound):
            store.head("nobody")
        list(store.list("agents/"))
        below.plan = Faults(BEFORE)
        with pytest.raises(StorageUnavailable):
            store.delete("agents/ceo")
    told = [
        (each.levelname, each.getMessage(), each.operation, each.key, each.size_bytes, each.backend)  # type: ignore[attr-defined]
        for each in caplog.records
    ]
    done = "Storage operation completed"
    assert told == [
        ("INFO", done, "write", "agents/ceo", 10, "faulty"),
        ("INFO", done, "read", "agents/ceo", 10, "faulty"),
        ("INFO", done, "read", "agents/ceo", 0, "faulty"),
        ("INFO", done, "head", "nobody", 0, "faulty"),
        ("INFO", done, "list", "agents/", 0, "faulty"),
        ("WARNING", "Storage operation failed", "delete", "agents/ceo", 0, "faulty"),
    ]
    assert all(each.name == "AOS.Storage" and each.duration_ms >= 0 for each in caplog.records)  # type: ignore[attr-defined]
    assert "StorageUnavailable" in caplog.records[-1].error  # type: ignore[attr-defined]
    assert "secret" not in " ".join(str(each.__dict__) for each in caplog.records)


def test_the_level_and_the_logger_are_the_programs() -> None:
    told: list[logging.LogRecord] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record)

    logger = logging.Logger("mine", logging.DEBUG)
    logger.addHandler(Kept())
    store = Logged(FaultyStore(MemoryStore(), Faults(BEFORE)), logger, level=logging.DEBUG, failure=logging.ERROR)
    with pytest.raises(StorageUnavailable):
        store.put("one", b"1")
    store.put("one", b"1")
    assert [each.levelno for each in told] == [logging.ERROR, logging.DEBUG]

"""What a node tells Prometheus, without a library: the outbox, its age, and how often a hub was asked in vain."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import Queue

import pytest
from prometheus_client.parser import text_string_to_metric_families

from holdfast import wire
from holdfast.node import metrics
from holdfast.node.directory import Limits
from holdfast.node.store import Store
from holdfast.node.tally import REASONS, Tally
from tests.flow.hubs import until

NO_LIMITS = Limits(floor_bytes=0, ballast_bytes=0)


def parsed(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Name -> labels but for the node, in the order of their names -> value."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            assert sample.labels.pop("node")
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            assert labels not in found.setdefault(sample.name, {})
            found[sample.name][labels] = sample.value
    return found


@pytest.fixture
def nowhere() -> Iterator[str]:
    """The address of a hub that is not there, and that nobody else gets meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_what_waits_for_a_hub_is_told_with_its_age(tmp_path: Path, nowhere: str) -> None:
    with Store(tmp_path, "ada", hub=nowhere, limits=NO_LIMITS) as store:
        assert parsed(store.metrics())["holdfast_sync_lag_seconds"] == {(): 0}
        first = store.put("a", "x" * 100)
        store.put("b", "y")
        until(lambda: parsed(store.metrics())["sync_failures_total"][()] > 0, "a failure is told")
        found = parsed(store.metrics())
    assert found["holdfast_outbox_records"] == {("ada",): 2}
    assert found["holdfast_outbox_bytes"][("ada",)] > 0
    oldest = found["holdfast_outbox_oldest_record_timestamp_seconds"][("ada",)]
    assert oldest == pytest.approx(first.time, abs=0.002)
    written = found["holdfast_node_metrics_timestamp_seconds"][()]
    assert found["holdfast_sync_lag_seconds"][()] == pytest.approx(written - oldest, abs=0.002)
    failures = found["holdfast_sync_failures_total"]
    assert set(failures) == {(nowhere, reason) for reason in REASONS}
    assert failures[nowhere, "unreachable"] == sum(failures.values()) > 0
    assert found["holdfast_sync_attempts_total"][(nowhere,)] >= failures[nowhere, "unreachable"]
    assert found["holdfast_sync_last_success_timestamp_seconds"] == {(nowhere,): 0}


def test_a_hello_tells_the_nodes_time_and_the_age_of_what_it_owes(tmp_path: Path) -> None:
    bodies: Queue[bytes] = Queue()

    class Busy(BaseHTTPRequestHandler):
        """A hub that hears everything and takes nothing."""

        def do_POST(self) -> None:
            bodies.put(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with Store(tmp_path, "ada", hub=[], limits=NO_LIMITS) as store:
        first = store.put("a", 1)
        store.put("b", 2)
    with HTTPServer(("127.0.0.1", 0), Busy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with Store(tmp_path, "ada", hub=f"http://127.0.0.1:{server.server_port}", limits=NO_LIMITS):
                hello = wire.decode(wire.Hello, bodies.get(timeout=30))
        finally:
            server.shutdown()
            thread.join()
    assert hello.oldest_ms == round(first.time * 1000)
    assert hello.now_ms >= hello.oldest_ms


def test_the_names_of_the_seed_hold_the_same_figures(tmp_path: Path, nowhere: str) -> None:
    with Store(tmp_path, "ada", hub=nowhere, limits=NO_LIMITS) as store:
        store.put("a", 1)
        found, own = parsed(store.metrics()), parsed(store.metrics(seed_names=False))
    assert found["outbox_queue_depth"] == found["holdfast_outbox_records"] == {("ada",): 1}
    assert found["cache_bytes_used"] == found["holdfast_cache_used_bytes"]
    assert found["sync_lag_seconds"] == found["holdfast_sync_lag_seconds"]
    assert set(found) - set(own) == {
        "outbox_queue_depth",
        "cache_bytes_used",
        "sync_lag_seconds",
        "sync_failures_total",
    }


def test_every_agent_is_told_whoever_asks_and_strange_names_are_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ['a "quoted" \\ name', "bob", "carol"]
    for name in names:
        with Store(tmp_path, name, hub=[], limits=NO_LIMITS) as store:
            store.put("k", name)
    with Store(tmp_path, "bob", hub=[], limits=NO_LIMITS) as store:
        assert set(parsed(store.metrics())["holdfast_log_records"]) == {(name,) for name in names}
        monkeypatch.setattr(metrics, "AGENTS_MAX", 1)
        assert parsed(store.metrics())["holdfast_log_records"] == {(names[0],): 1, ("other",): 2}


def test_an_unreadable_log_is_told_and_hides_no_other(tmp_path: Path) -> None:
    for name in ("ada", "bob"):
        with Store(tmp_path, name, hub=[], limits=NO_LIMITS) as store:
            store.put("k", 1)
    (tmp_path / "agents" / "ada" / "log.db").write_bytes(b"no database" * 1000)
    with Store(tmp_path, "bob", hub=[], limits=NO_LIMITS) as store:
        found = parsed(store.metrics())
    assert found["holdfast_log_unreadable"] == {("ada",): 1, ("bob",): 0}
    assert found["holdfast_log_records"][("bob",)] == 1


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (("network",), "unreachable"),
        (("timeout",), "timeout"),
        (("echo",), "protocol"),
        (("status", 401), "auth"),
        (("status", 403), "auth"),
        (("status", 409), "conflict"),
        (("status", 507), "full"),
        (("status", 503), "unreachable"),
        (("status", 429), "unreachable"),
        (("status", 400), "protocol"),
    ],
)
def test_a_failure_counts_under_its_reason(failure: tuple[str, int], reason: str) -> None:
    tally = Tally()
    tally.failed(*failure)
    assert [name for name, count in tally.failures.items() if count] == [reason]


def test_counts_go_on_in_the_next_process_and_begin_anew_from_nonsense() -> None:
    tally = Tally()
    tally.attempts = 5
    tally.failed("timeout")
    after = Tally(tally.to_json())
    after.failed("timeout")
    assert (after.attempts, after.failures["timeout"]) == (5, 2)
    for nonsense in (None, [], {"attempts": "many", "failures": {"timeout": -1}}, {"failures": 3}):
        assert Tally(nonsense).to_json() == Tally().to_json()

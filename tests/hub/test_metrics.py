"""What a hub tells Prometheus: counted exactly, by names that are kept, with nobody's words in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from holdfast import wire
from holdfast.corpus.space import Reserve
from holdfast.hub import meters
from holdfast.hub.app import create_app
from holdfast.hub.directory import HubDirectory
from holdfast.hub.home import Home
from holdfast.hub.meters import Intake
from holdfast.hub.seen import SeenNode
from tests.hub.conftest import Room
from tests.hub.pens import Pen

SEED = {"sync_lag_seconds", "htpc_write_throughput_bytes"}


class Scraped:
    """One scrape, parsed; the parser refuses what Prometheus would."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.values = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """One sample."""
        return self.values[f"holdfast_{name}", tuple(sorted(labels.items()))]


def scrape(room: Room) -> Scraped:
    """What a hub tells now."""
    answer = room.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Scraped(answer.text)


def test_requests_are_counted_by_route_and_outcome(room: Room, home: Home) -> None:
    backend = "sqlite" if isinstance(home, HubDirectory) else "postgresql"
    for _ in range(3):
        room.client.post("/sync/message", json={"content": "x"})
    room.client.post("/sync/message", content=b"{")
    room.client.get("/v1/latest", params={"agent": "nobody", "key": "k"})
    found = scrape(room)

    def count(operation: str, outcome: str) -> float:
        return found.value("operations_total", operation=operation, outcome=outcome, backend=backend)

    assert [count("POST /sync/message", outcome) for outcome in ("ok", "refused", "failed", "gone")] == [3, 1, 0, 0]
    assert count("GET /v1/latest", "refused") == 1
    where = {"operation": "POST /sync/message", "backend": backend}
    assert found.value("operation_duration_seconds_count", **where) == 4
    assert found.value("operation_duration_seconds_bucket", le="+Inf", **where) == 4
    assert found.value("operation_duration_seconds_sum", **where) > 0
    bounds = [f"{bound}" for bound in meters.BOUNDS]
    counts = [found.value("operation_duration_seconds_bucket", le=bound, **where) for bound in bounds]
    assert counts == sorted(counts)


def test_what_fails_is_counted_as_failed(room: Room, home: HubDirectory) -> None:
    home.corpus.engine.fail(OSError("the disk is gone"))
    assert room.client.post("/sync/message", json={"content": "x"}).status_code == 503
    (meter,) = [each for each in room.core.meters.operations() if each.name == "POST /sync/message"]
    assert meter.counts == [0, 0, 1, 0]
    answer = room.client.get("/metrics")
    assert answer.status_code == 200, "a hub in trouble is the one that must be seen"
    assert Scraped(answer.text).value("hub_ready") == 0


def test_records_are_counted_by_who_sent_them(room: Room, pen: Pen) -> None:
    pen.put("a", "x" * 100)
    pen.put("b", "y" * 100)
    room.append(pen.segment(1))
    for key in "cde":
        pen.put(key, "z" * 100)
    room.append(pen.segment(5))  # a gap: nothing of it is taken
    room.client.post("/sync/message", json={"content": "x"})
    found = scrape(room)
    assert found.value("hub_ingest_records_total", node="node-1") == 2
    assert found.value("hub_ingest_bytes_total", node="node-1") == sum(len(item.body or b"") for item in pen.items[:2])
    assert found.value("hub_ingest_records_total", node="hub") == 1
    assert found.value("hub_position") == 3
    assert found.value("hub_commits_total") == 2
    assert found.value("storage_bytes", kind="wal") > 0
    assert found.value("index_pending_records", index="search") in range(4)
    assert found.value("hub_disk_free_bytes") > 0


def test_a_hub_tells_of_its_disk_only_where_it_has_one(room: Room, home: Home) -> None:
    room.client.post("/sync/message", json={"content": "x"})
    found = scrape(room)
    here = isinstance(home, HubDirectory)
    for name in ("holdfast_wal_bytes", "holdfast_hub_disk_free_bytes", "holdfast_hub_disk_floor_bytes"):
        assert (name in found.families) == here, name
    assert found.value("hub_ready") == 1
    assert found.value("hub_position") == 1
    assert found.value("index_pending_records", index="search") in (0, 1)


def test_a_nodes_lag_is_the_age_of_its_oldest_record_until_that_is_here(room: Room, pen: Pen) -> None:
    for number in range(3):
        pen.put("k", number)
    now = room.core.home.wall.now_ms()
    hello = msgspec.structs.replace(pen.hello(), now_ms=now + 5_000, oldest_ms=now - 3_600_000)
    room.hello(hello)
    found = scrape(room)
    node = hello.node
    assert found.value("node_behind_records", node=node, agent="ada") == 3
    assert found.value("node_sync_lag_seconds", node=node) >= 3600
    assert found.values["sync_lag_seconds", (("node", node),)] >= 3600
    assert found.value("clock_skew_seconds", node=node) <= 5
    assert found.value("node_last_contact_timestamp_seconds", node=node) >= now / 1000
    room.append(pen.segment(1, 2))
    assert scrape(room).value("node_behind_records", node=node, agent="ada") == 1
    assert scrape(room).value("node_sync_lag_seconds", node=node) >= 3600
    room.append(pen.segment(3))
    assert scrape(room).value("node_behind_records", node=node, agent="ada") == 0
    assert scrape(room).value("node_sync_lag_seconds", node=node) == 0


def test_a_node_that_is_away_still_owes_after_a_restart(room: Room, pen: Pen, tmp_path: Path) -> None:
    pen.put("k", 1)
    pen.put("k", 2)
    room.append(pen.segment(1, 1))
    hello = msgspec.structs.replace(pen.hello(), oldest_ms=room.core.home.wall.now_ms() - 3_600_000)
    room.hello(hello)
    room.client.__exit__()
    again = HubDirectory(tmp_path / "hub", reserve=Reserve(tmp_path, floor_bytes=0, ballast_bytes=0))
    with TestClient(create_app(again)) as client:
        found = Scraped(client.get("/metrics").text)
    assert found.value("node_behind_records", node=hello.node, agent="ada") == 1
    assert found.value("node_sync_lag_seconds", node=hello.node) >= 3600


def test_nodes_of_the_version_before_are_understood_and_understand(room: Room, pen: Pen) -> None:
    class Before(msgspec.Struct):
        node: str
        nonce: bytes
        streams: list[wire.HelloStream]
        version: int = 1

    pen.put("k", 1)
    new = msgspec.structs.replace(pen.hello(), now_ms=7, oldest_ms=7)
    old = msgspec.msgpack.decode(wire.encode(new), type=Before)  # as a hub of then reads it
    assert room.client.post("/v1/hello", content=msgspec.msgpack.encode(old)).status_code == 200
    found = scrape(room)
    assert found.value("node_sync_lag_seconds", node=new.node) == 0
    assert ("holdfast_clock_skew_seconds", (("node", new.node),)) not in found.values
    kept = msgspec.msgpack.encode({"node": "n", "seen_ms": 1, "agents": {"ada": 3}})  # as a hub of then kept it
    assert msgspec.msgpack.decode(kept, type=SeenNode).skew_ms is None


def test_the_names_of_the_seed_can_be_left_out(room: Room, home: HubDirectory, tmp_path: Path) -> None:
    assert set(scrape(room).families) >= SEED
    reserve = Reserve(tmp_path, floor_bytes=0, ballast_bytes=0)
    other = HubDirectory(tmp_path / "other", reserve=reserve)
    with TestClient(create_app(other, seed_metrics=False)) as client:
        names = set(Scraped(client.get("/metrics").text).families)
    assert names
    assert all(name.startswith("holdfast_") for name in names)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[TestClient]:
    """A hub that wants a token."""
    home = HubDirectory(tmp_path / "guarded", reserve=Reserve(tmp_path, floor_bytes=0, ballast_bytes=0))
    with TestClient(create_app(home, token="open sesame")) as client:
        yield client


def test_metrics_are_for_who_has_the_token(guarded: TestClient) -> None:
    assert guarded.get("/metrics").status_code == 401
    assert guarded.get("/metrics", headers={"Authorization": "Bearer open sesame"}).status_code == 200


def test_labels_do_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "NODES_MAX", 3)
    intake = Intake()
    intake.note("n" * 256, 1, 10)
    for number in range(10):
        intake.note(f"node-{number}", 1, 10)
    assert intake.records == {"hub": 0, "other": 10, "node-0": 1}
    assert sum(intake.bytes.values()) == 110


def test_what_no_node_is_called_is_not_kept(room: Room) -> None:
    pen = Pen("a" * 1000)
    pen.put("k", 1)
    room.hello(msgspec.structs.replace(pen.hello(), node="n"))  # hello only looks: it takes what append would refuse
    assert room.core.nodes["n"].streams == room.core.nodes["n"].agents == {}


def test_the_rate_is_that_of_the_last_minute() -> None:
    intake = Intake()
    begin = intake._samples[0][0]
    intake.note("n", 1, 600)
    assert intake.rate(begin + 10) == 60
    intake.note("n", 1, 600)
    assert intake.rate(begin + 60) == 20
    assert intake.rate(begin + 70) == pytest.approx(10), "since the look at 10 s"
    assert intake.rate(begin + 500) == 0

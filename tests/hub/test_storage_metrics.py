"""Metrics: what is recorded is found by what it is, and adds up as Python adds it up."""

from __future__ import annotations

import random
import statistics
from collections import defaultdict
from typing import Any

import pytest

from tests.hub.conftest import Room
from tests.hub.pens import Pen
from tests.hub.test_storage_sessions import begin, pages

START = 1_767_700_000
LATENCY = {"entity_type": "tool", "entity_name": "search", "metric_name": "latency_ms", "value": 12.5}


def stamp(seconds: int) -> str:
    from holdfast.clock import iso

    return iso((START + seconds) * 1000)


def record(room: Room, **fields: Any) -> Any:
    answer = room.client.post("/storage/metrics", json={**LATENCY, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


@pytest.fixture
def many(room: Room) -> list[dict[str, Any]]:
    """Three hundred metrics of two tools and three models over an hour, recorded in two batches."""
    rng = random.Random(7)
    made = [
        {
            "entity_type": "tool",
            "entity_name": rng.choice(["search", "browse"]),
            "metric_name": "latency_ms",
            "value": round(rng.lognormvariate(3, 1), 3),
            "timestamp": stamp(rng.randrange(3600)),
            "labels": {"model": rng.choice(["small", "large", "huge"]), "cached": rng.random() < 0.5, "deep": [1]},
        }
        for _ in range(300)
    ]
    for part in (made[:280], made[280:]):
        answer = room.client.post("/storage/metrics/batch", json={"metrics": part})
        assert (answer.status_code, answer.json()["count"], len(answer.json()["ids"])) == (201, len(part), len(part))
    return made


def reference(values: list[float], percent: float) -> float:
    """The percentile between the two closest ranks, from the sorted values."""
    ordered = sorted(values)
    at = percent / 100 * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def sums(room: Room, **query: Any) -> list[Any]:
    found = room.get("/storage/metrics/aggregate", **query)
    assert found["truncated"] is False
    return found["groups"]  # type: ignore[no-any-return]


def check(group: Any, values: list[float], percents: tuple[float, ...] = ()) -> None:
    assert group["count"] == len(values)
    assert (group["min"], group["max"]) == (min(values), max(values))
    assert group["sum"] == pytest.approx(sum(values))
    assert group["avg"] == pytest.approx(statistics.fmean(values))
    assert group["percentiles"] == {f"p{p:g}": pytest.approx(reference(values, p)) for p in percents}


def test_a_metric_comes_back_as_it_was_recorded(room: Room) -> None:
    made = record(room, labels={"model": "small"}, timestamp=stamp(5))
    assert made["id"].startswith("metric_")
    assert made == {
        **LATENCY,
        "id": made["id"],
        "session_id": None,
        "timestamp": stamp(5),
        "labels": {"model": "small"},
    }
    assert room.get("/storage/metrics") == [made]


def test_a_metric_lies_in_the_log_of_whom_it_concerns(room: Room) -> None:
    session = begin(room)["id"]
    record(room, session_id=session)
    record(room, entity_type="agent", entity_name="ada")
    record(room)
    record(room, session_id="session_elsewhere")
    agents = [each["agent"] for each in room.records() if each["collection"] == "metrics"]
    assert agents == ["researcher", "ada", "metrics", "metrics"]
    assert [each["session_id"] for each in room.get("/storage/metrics", session_id=session)] == [session]
    room.client.delete(f"/storage/sessions/{session}")
    assert len(room.get("/storage/metrics", session_id=session)) == 1  # figures outlive what they are about


def test_everything_adds_up_and_so_do_the_percentiles(room: Room, many: list[dict[str, Any]]) -> None:
    percents = (0, 12.5, 50, 95, 99, 100)
    (group,) = sums(room, percentile=percents)
    assert (group["by"], group["bucket"]) == ({}, None)
    check(group, [each["value"] for each in many], percents)


def test_large_figures_are_reckoned_with_as_far_as_there_are_numbers(room: Room) -> None:
    for value in (1e300, 3e300):
        record(room, value=value)
    (group,) = sums(room)
    assert (group["sum"], group["avg"], group["max"]) == (4e300, 2e300, 3e300)
    record(room, value=1.7e308)
    record(room, value=1.7e308)
    answer = room.client.get("/storage/metrics/aggregate")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "usage")


@pytest.mark.parametrize(
    ("by", "key"),
    [
        (["entity_name"], lambda each: (each["entity_name"],)),
        (["label:model"], lambda each: (each["labels"]["model"],)),
        (["label:model", "entity_name"], lambda each: (each["labels"]["model"], each["entity_name"])),
        (
            ["label:cached", "label:model"],
            lambda each: (str(each["labels"]["cached"]).lower(), each["labels"]["model"]),
        ),
    ],
)
def test_groups_add_up_by_field_and_by_label(room: Room, many: list[dict[str, Any]], by: list[str], key: Any) -> None:
    expected = defaultdict(list)
    for each in many:
        expected[key(each)].append(each["value"])
    groups = sums(room, by=by, percentile=[90])
    assert [tuple(group["by"].values()) for group in groups] == sorted(expected)
    assert [list(group["by"]) for group in groups] == [by] * len(groups)
    for group in groups:
        check(group, expected[tuple(group["by"].values())], (90,))


def test_stretches_of_time_begin_where_they_should(room: Room, many: list[dict[str, Any]]) -> None:
    expected = defaultdict(list)
    for each in many:
        second = int(__import__("datetime").datetime.fromisoformat(each["timestamp"]).timestamp())
        expected[(each["entity_name"], stamp(second // 600 * 600 - START))].append(each["value"])
    groups = sums(room, by="entity_name", bucket=600, percentile=[50])
    assert [(group["by"]["entity_name"], group["bucket"]) for group in groups] == sorted(expected)
    for group in groups:
        check(group, expected[group["by"]["entity_name"], group["bucket"]], (50,))


def test_filters_narrow_lists_and_sums_alike(room: Room, many: list[dict[str, Any]]) -> None:
    record(room, entity_type="agent", entity_name="ada", metric_name="tokens", timestamp=stamp(10))
    wanted = {
        "entity_name": "search",
        "label": ["model=small", "cached=true"],
        "since": stamp(600),
        "until": stamp(3000),
        "metric_name": "latency_ms",
    }
    kept = [
        each
        for each in many
        if each["entity_name"] == "search"
        and (each["labels"]["model"], each["labels"]["cached"]) == ("small", True)
        and stamp(600) <= each["timestamp"] < stamp(3000)
    ]
    assert kept
    found = room.get("/storage/metrics", **wanted)
    assert sorted(each["value"] for each in found) == sorted(each["value"] for each in kept)
    check(sums(room, **wanted)[0], [each["value"] for each in kept])
    assert sums(room, entity_name="nobody") == []
    assert [each["metric_name"] for each in room.get("/storage/metrics", entity_type="agent")] == ["tokens"]


def test_pages_show_each_metric_once_in_order_of_time(room: Room, many: list[dict[str, Any]]) -> None:
    every = room.get("/storage/metrics")
    assert len(every) == 300
    times = [each["timestamp"] for each in every]
    assert times == sorted(times, reverse=True)
    assert [each for page in pages(room, "/storage/metrics", limit=71) for each in page] == every
    assert [each for page in pages(room, "/storage/metrics", limit=71, order="asc") for each in page] == every[::-1]
    assert room.get("/storage/metrics", limit=10, offset=20) == every[20:30]


def test_a_metric_with_an_id_counts_once(room: Room) -> None:
    body = {**LATENCY, "id": "metric_1", "timestamp": stamp(0)}
    assert [room.client.post("/storage/metrics", json=body).status_code for _ in range(2)] == [201, 200]
    assert room.client.post("/storage/metrics/batch", json={"metrics": [body, body]}).status_code == 201
    assert room.client.post("/storage/metrics", json={**body, "value": 1}).status_code == 409
    assert sums(room)[0]["count"] == 1


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ({"by": "colour"}, None),
        ({"percentile": 101}, None),
        ({"bucket": 0}, None),
        ({"label": "model"}, None),
        ({"since": "yesterday"}, None),
        (None, {**LATENCY, "value": "fast"}),
        (None, {**LATENCY, "value": True}),
        (None, {**LATENCY, "metric_name": ""}),
        (None, {"metrics": []}),
    ],
)
def test_wrong_questions_and_figures_are_refused(room: Room, query: Any, body: Any) -> None:
    if body is None:
        answer = room.client.get("/storage/metrics/aggregate", params=query)
    else:
        answer = room.client.post("/storage/metrics" + ("/batch" if "metrics" in body else ""), json=body)
    assert answer.status_code == 400, answer.text
    assert room.records() == []


def test_figures_that_a_node_replaced_or_deleted_do_not_count(room: Room) -> None:
    record(room, value=1)
    pen = Pen("ada")
    body = {**LATENCY, "timestamp": stamp(0)}
    pen.put("metric_a", {**body, "value": 10}, collection="metrics", kind="metric")
    pen.put("metric_b", {**body, "value": 100}, collection="metrics", kind="metric")
    pen.put("metric_bad", {**body, "value": "x"}, collection="metrics", kind="metric")
    room.append(pen.segment())
    assert sums(room)[0]["sum"] == 111
    pen.put("metric_a", {**body, "value": 20}, collection="metrics", kind="metric")
    room.append(pen.segment(4))
    assert sums(room)[0]["sum"] == 121
    pen.put("metric_b", {}, collection="metrics", kind="delete", flags=8)
    room.append(pen.segment(5))
    assert sums(room)[0]["sum"] == 21
    assert [each["value"] for each in room.get("/storage/metrics", order="asc")] == [20, 1]

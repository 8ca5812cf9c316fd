"""The benchmarks run, and a figure comes only from bodies that were read as they were written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, NoReturn

import pytest

from bench import hub, objects, page, put, seed, startup, visibility
from bench.catchup import turn as catch_up
from bench.child import Witness
from bench.harness import Effort, Goal, Missing, Report, Scenario, Table, Turns, Wrong, take_turns
from bench.neighbours import key_values
from bench.neighbours.clouds import SERVICES
from bench.neighbours.floor import Floor
from bench.neighbours.local import contest
from bench.neighbours.object_stores import Files
from bench.neighbours.served import Plan
from bench.processes import program
from bench.visibility import turn as visible

TINY = Effort(rounds=1, scale=0.01)
PLAN = Plan(rate=40, seconds=0.5, agents=2)


def unmet_is_fine(report: Report) -> None:
    """A tiny run proves nothing about speed; but every goal must have been measured."""
    assert report.goals
    assert [goal.what for goal in report.goals if goal.value is None] == []


def without(absent: Missing) -> NoReturn:
    """On a machine that lacks a service the test skips and says why; CI must have it."""
    if os.environ.get("CI"):
        pytest.fail(str(absent))
    pytest.skip(str(absent))


@pytest.mark.parametrize("scenario", [put, seed, startup], ids=["put", "seed", "startup"])
def test_a_scenario_measures_every_goal(scenario: Any) -> None:
    report = scenario.run(TINY)
    unmet_is_fine(report)
    assert all(table.rows for table in report.tables)


def test_what_is_written_here_is_seen_there() -> None:
    figures = visible("holdfast_hub", PLAN)
    assert figures["written"] == 1.0
    assert 0 < figures["visible_p50"] <= figures["visible_p99"]


def test_what_has_waited_arrives() -> None:
    figures = catch_up("holdfast_hub", 700)
    assert figures["rate"] > 0


def test_subscribers_are_all_sent_the_same() -> None:
    try:
        figures = hub.crowd(PLAN, subscribers=3)
    except Missing as absent:
        without(absent)
    assert figures["written"] == 1.0


@pytest.mark.parametrize("name", ["redis_streams", "postgres"])
def test_a_peer_takes_part(name: str) -> None:
    try:
        assert visible(name, PLAN)["written"] == 1.0
        assert catch_up(name, 700)["rate"] > 0
    except Missing as absent:
        without(absent)


def test_a_missing_peer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(Missing, match="redis-server is not installed"):
        program("redis-server")
    with pytest.raises(Missing, match="initdb is not installed"):
        visible("postgres", PLAN)


def test_objects_are_measured_here_and_a_peer_who_is_not_installed_is_named() -> None:
    report = Report()
    objects.here(TINY, report, {"1 KB": objects.SIZES["1 KB"], "100 KB": objects.SIZES["100 KB"]})
    peers = (key_values.DISK, key_values.TREE)
    absent = [peer for peer in peers if any(note.startswith(f"{peer}: not measured") for note in report.notes)]
    assert {goal.what for goal in report.goals if goal.value is None} == {
        goal.what for goal in report.goals if any(peer in goal.what for peer in absent)
    }
    assert len(report.tables) == 4
    listed = [row[0] for row in report.tables[-1].rows]
    assert {"holdfast file", "holdfast sqlite", "obstore LocalStore"} <= set(listed)


@pytest.mark.parametrize("service", SERVICES)
def test_objects_are_measured_over_the_network(service: str) -> None:
    report = Report()
    objects.away(service, TINY, report, {"1 KB": objects.SIZES["1 KB"]})
    if "is not installed" in (why := "; ".join(goal.reason for goal in report.goals)):
        without(Missing(why))
    unmet_is_fine(report)
    assert len(report.goals) == 4
    assert all({"floor", "holdfast"} <= {row[0] for row in table.rows} for table in report.tables[:1])


class Overwriting(Files):
    """Has but one object."""

    def put(self, key: str, body: bytes) -> None:
        super().put("objects/00000", body)

    def get(self, key: str) -> bytes:
        return super().get("objects/00000")


class Unsure(Files):
    """Leaves one out of its listings."""

    def list(self) -> list[tuple[str, int]]:
        return super().list()[1:]


@pytest.mark.parametrize("liar", [Overwriting, Unsure])
def test_objects_that_are_not_what_was_put_have_no_figure(liar: type[Files]) -> None:
    assert objects.local(Files, 1 << 10, 5)["list_p50"] > 0
    with pytest.raises(Wrong, match="written was"):
        objects.local(liar, 1 << 10, 5)


class Forgetful(Floor):
    """Gives back another key's value."""

    def get(self, key: str) -> bytes:
        return super().get("key-1" if key.startswith("key-") else key)


class Shuffled(Floor):
    """Gives back a page in another order."""

    def last(self, session: str) -> list[bytes]:
        return super().last(session)[::-1]


@pytest.mark.parametrize("liar", [Forgetful, Shuffled])
def test_a_store_that_gives_back_something_else_has_no_figure(liar: type[Floor]) -> None:
    assert contest(Floor, "basic", 60, 40)["put_p50"] > 0
    with pytest.raises(Wrong, match="written was"):
        contest(liar, "basic", 60, 40)


def test_a_reader_takes_nothing_changed_and_nothing_twice() -> None:
    from bench.neighbours.served import body, last_body

    witness = Witness(None)
    assert not witness.see(body(0), 1 << 62)
    with pytest.raises(ValueError, match="twice"):
        witness.see(body(0), 1 << 62)
    with pytest.raises(ValueError, match="changed"):
        witness.see(body(1) | {"role": "somebody"}, 1 << 62)
    assert not witness.see(last_body(2), 1 << 62)
    assert witness.see(body(1), 1 << 62)


def test_contestants_take_turns_and_who_fails_is_not_met() -> None:
    calls: list[str] = []

    def one() -> dict[str, float]:
        calls.append("a")
        return {"p50": float(len(calls))}

    def wrong() -> dict[str, float]:
        calls.append("b")
        raise Wrong("read 1, written was 2")

    def absent() -> dict[str, float]:
        raise Missing("no server")

    turns = take_turns({"a": one, "b": wrong, "c": absent, "d": one}, Effort(rounds=3))
    assert "".join(calls) == "ab" + "a" * 5
    assert turns.missing == {"b": "FAILED: read 1, written was 2", "c": "no server"}
    assert Goal("b", None, 1.0, reason=turns.missing["b"]).met is False
    assert Goal("c", None, 1.0, reason=turns.missing["c"]).met is None


def test_ratios_are_made_within_a_round() -> None:
    turns = Turns()
    turns.given = {
        "us": [{"p50": 1.0}, {"p50": 10.0}, {"p50": 3.0}],
        "floor": [{"p50": 1.0}, {"p50": 5.0}, {"p50": 2.0}],
    }
    assert turns.ratio("us", "p50", "floor") == 1.5
    assert turns.median("us", "p50") == 3.0


@pytest.fixture
def scenarios() -> tuple[Scenario, Scenario]:
    """Two that are never run."""
    return Scenario("one", "First", lambda _: Report()), Scenario("two", "Second", lambda _: Report())


def test_the_page_keeps_what_others_wrote(tmp_path: Path, scenarios: tuple[Scenario, Scenario]) -> None:
    first, second = scenarios
    path = tmp_path / "docs" / "page.md"
    page.write(path, first, Report(goals=[Goal("speed", 3.0, 2.0, "×")]), "bench one")
    page.write(path, second, Report(tables=[Table("", ("a",), [("b",)])], goals=[Goal("size", 1.0, 2.0)]), "bench two")
    before = path.read_text()
    page.write(path, first, Report(goals=[Goal("speed", 1.0, 2.0, "×")]), "bench one")
    after = path.read_text()
    assert before.count("| speed | ≤ 2× | 3× | **NOT met** |") == 2, "in its section and at the top"
    assert after.count("| speed | ≤ 2× | 1× | met |") == 2
    assert after.count("| size | ≤ 2 | 1 | met |") == 2
    assert after.index("## The goals") < after.index("## First") < after.index("## Second")


def test_every_scenario_is_asked_for_by_its_name() -> None:
    from bench.__main__ import SCENARIOS, scenario

    assert [scenario(name).name for name in SCENARIOS] == list(SCENARIOS)
    assert visibility.SCENARIO in map(scenario, SCENARIOS)


@pytest.mark.parametrize("make", ["Mine", "Floor"])
def test_a_backup_that_is_measured_comes_back(make: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tool's turn ends with a proof of what it brought back; here of one increment."""
    from bench import integrity

    monkeypatch.setattr(integrity, "TIMES", 1)
    monkeypatch.setattr(integrity, "MORE", 20)
    integrity.fill(tmp_path / "node", 0, 30)
    figures = integrity.backed_up(getattr(integrity, make), tmp_path / "node", 30)
    assert set(figures) == {"first", "first_bytes", "more", "more_bytes", "verify", "restore"}
    with pytest.raises(Wrong):
        integrity.backed_up(getattr(integrity, make), tmp_path / "node", 31)
    assert integrity.proven(tmp_path / "node", 30)["a_second"] > 0

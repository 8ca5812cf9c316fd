"""`RecruiterAgentStorage`: candidates by skill and experience, interviews, positions, interactions, figures."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from holdfast.agents import RecruiterAgentStorage
from holdfast.errors import Conflict, NotFound, UsageError
from holdfast.testing.clock import SettableClock


def run(call: Any) -> Any:
    return asyncio.run(call)


PEOPLE = (
    ("Alice Johnson", ["Python", "Django", "C++"], 6, "Seattle, WA"),
    ("Bob Smith", ["python", "Flask"], 4, "Portland, OR"),
    ("Charlie Davis", [" Machine  Learning ", "PYTHON", "django"], 8.5, "San Francisco, CA"),
    ("Dora Ávila", ["Java"], 9, "Oslo"),
)


@pytest.fixture
def people(recruiter: RecruiterAgentStorage) -> dict[str, str]:
    found = {}
    for name, skills, years, location in PEOPLE:
        row = {"name": name, "email": f"{name.split()[0].lower()}@example.com", "skills": skills}
        found[name.split()[0]] = run(
            recruiter.add_candidate({**row, "experience_years": years, "location": location, "github": "own field"})
        )
    return found


def names(found: Any) -> list[str]:
    return [each["name"].split()[0] for each in found]


def test_a_candidate_is_added_changed_and_taken_away(
    recruiter: RecruiterAgentStorage, people: dict[str, str], clock: SettableClock
) -> None:
    alice = run(recruiter.get_candidate(people["Alice"]))
    assert (alice["name"], alice["skills"], alice["status"]) == ("Alice Johnson", ["Python", "Django", "C++"], "active")
    assert (alice["phone"], alice["github"]) == (None, "own field")
    clock.advance(60)
    run(recruiter.update_candidate(people["Alice"], {"skills": ["Rust"], "phone": "+1-555-0101"}))
    changed = run(recruiter.get_candidate(people["Alice"]))
    assert (changed["skills"], changed["phone"], changed["email"]) == (["Rust"], "+1-555-0101", "alice@example.com")
    assert changed["created_at"] == alice["created_at"] < changed["updated_at"]
    assert names(run(recruiter.search_candidates(["rust"]))) == ["Alice"]
    assert names(run(recruiter.search_candidates(["c++"]))) == []
    assert run(recruiter.delete_candidate(people["Alice"]))
    assert not run(recruiter.delete_candidate(people["Alice"]))
    assert run(recruiter.get_candidate(people["Alice"])) is None
    with pytest.raises(NotFound):
        run(recruiter.update_candidate(people["Alice"], {"phone": "1"}))
    assert run(recruiter.add_candidate({"id": "c-7", "name": "Eve"})) == "c-7"
    with pytest.raises(Conflict):
        run(recruiter.add_candidate({"id": "c-7", "name": "Mallory"}))
    assert run(recruiter.get_candidate("c-7"))["name"] == "Eve"


SEARCHES: tuple[tuple[dict[str, Any], list[str]], ...] = (
    ({}, ["Dora", "Charlie", "Alice", "Bob"]),
    ({"skills": ["Python"]}, ["Charlie", "Alice", "Bob"]),
    ({"skills": ["pYTHON ", "DJANGO"]}, ["Charlie", "Alice"]),
    ({"skills": ["machine learning"]}, ["Charlie"]),
    ({"skills": ["c++"]}, ["Alice"]),
    ({"skills": ["C"]}, []),
    ({"skills": ["Java", "Flask"], "match": "any"}, ["Dora", "Bob"]),
    ({"skills": ["Java", "Flask"]}, []),
    ({"min_experience": 8}, ["Dora", "Charlie"]),
    ({"skills": ["Python"], "min_experience": 6}, ["Charlie", "Alice"]),
    ({"text": "seattle johnson"}, ["Alice"]),
    ({"text": "example com", "skills": ["flask"]}, ["Bob"]),
    ({"text": "ÁVILA"}, ["Dora"]),
    ({"status": "hired"}, []),
    ({"status": None, "limit": 2}, ["Dora", "Charlie"]),
)


def test_search(recruiter: RecruiterAgentStorage, people: dict[str, str]) -> None:
    for asked, found in SEARCHES:
        assert names(run(recruiter.search_candidates(**asked))) == found, asked


def test_search_goes_on_where_a_page_ended(recruiter: RecruiterAgentStorage, people: dict[str, str]) -> None:
    seen, cursor = [], None
    while True:
        page = run(recruiter.search_candidates(["python"], limit=1, cursor=cursor))
        seen += names(page)
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == ["Charlie", "Alice", "Bob"]
    run(recruiter.update_candidate(people["Bob"], {"status": "hired"}))
    assert names(run(recruiter.search_candidates(["python"]))) == ["Charlie", "Alice"]
    assert names(run(recruiter.search_candidates(["python"], status="hired"))) == ["Bob"]


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x", "experience_years": "five"}, "experience_years"),
        ({"name": "x", "experience_years": -1}, "experience_years"),
        ({"name": "x", "skills": "Python"}, "skills"),
        ({"name": "x", "skills": ["Python", 7]}, r"skills\[1\]|skills"),
        ({"name": "x", "photo": object()}, "object"),
    ],
)
def test_a_wrong_field_is_named_and_nothing_is_written(
    recruiter: RecruiterAgentStorage, row: dict[str, Any], named: str
) -> None:
    with pytest.raises(UsageError, match=named):
        run(recruiter.add_candidate(row))
    assert run(recruiter.search_candidates(status=None)) == []


def test_wrong_questions_are_refused(recruiter: RecruiterAgentStorage) -> None:
    for asked in (
        {"skills": "Python"},
        {"skills": ["Python"], "match": "some"},
        {"min_experience": "five"},
        {"text": " "},
        {"cursor": "none of ours"},
    ):
        with pytest.raises(UsageError):
            run(recruiter.search_candidates(**asked))


def test_interviews_and_how_they_went(
    recruiter: RecruiterAgentStorage, people: dict[str, str], clock: SettableClock
) -> None:
    alice = people["Alice"]
    when = datetime(2026, 1, 15, 14, tzinfo=UTC)
    first = run(recruiter.schedule_interview(alice, when, interview_type="technical", interviewer_agent="tech-1"))
    clock.advance(1)
    second = run(recruiter.add_interview({"candidate_id": alice, "scheduled_date": "2026-01-14 09:00:00"}))
    assert [each["id"] for each in run(recruiter.get_candidate_interviews(alice))] == [second, first]
    assert [each["id"] for each in run(recruiter.get_interviews(outcome="pending"))] == [second, first]
    assert run(recruiter.get_interview(first))["scheduled_date"].startswith("2026-01-15T14:00:00")
    run(recruiter.record_interview_outcome(first, "passed", score=9, notes="strong"))
    done = run(recruiter.get_interview(first))
    assert (done["outcome"], done["score"], done["notes"], done["interview_type"]) == (
        "passed",
        9,
        "strong",
        "technical",
    )
    assert done["actual_date"] is not None
    assert [each["id"] for each in run(recruiter.get_interviews(interviewer_agent="tech-1"))] == [first]
    with pytest.raises(NotFound, match="no candidate"):
        run(recruiter.add_interview({"candidate_id": "nobody"}))
    with pytest.raises(UsageError, match="score"):
        run(recruiter.record_interview_outcome(second, "passed", score=11))
    with pytest.raises(NotFound):
        run(recruiter.record_interview_outcome("nothing", "passed"))


def test_positions_the_most_urgent_first_and_who_fits(recruiter: RecruiterAgentStorage, people: dict[str, str]) -> None:
    low = run(recruiter.add_job_requisition({"title": "Tester", "priority": 2}))
    top = run(
        recruiter.add_job_requisition(
            {"title": "Senior", "required_skills": ["Python", "Django"], "experience_required": 6, "priority": 8}
        )
    )
    assert [job["id"] for job in run(recruiter.get_open_jobs())] == [top, low]
    assert [job["id"] for job in run(recruiter.get_job_requisitions(min_priority=5))] == [top]
    assert names(run(recruiter.match_candidates(top))) == ["Charlie", "Alice"]
    run(recruiter.update_job_requisition(top, {"status": "filled"}))
    assert [job["id"] for job in run(recruiter.get_open_jobs())] == [low]
    assert run(recruiter.get_job_requisition(top))["required_skills"] == ["Python", "Django"]
    with pytest.raises(UsageError, match="priority"):
        run(recruiter.update_job_requisition(low, {"priority": 0}))
    with pytest.raises(NotFound):
        run(recruiter.match_candidates("nothing"))


def test_the_pipeline_in_figures(recruiter: RecruiterAgentStorage, people: dict[str, str]) -> None:
    assert run(recruiter.log_agent_interaction("tech-1", "recommendation", {"candidate_id": people["Alice"]}))
    assert run(recruiter.get_agent_interactions("tech-1"))[0]["context"] == {"candidate_id": people["Alice"]}
    assert run(recruiter.get_agent_interactions("tech-2")) == []
    for name, outcome in (("Alice", "passed"), ("Bob", "failed"), ("Charlie", "passed"), ("Dora", "pending")):
        interview = run(recruiter.add_interview({"candidate_id": people[name]}))
        run(recruiter.record_interview_outcome(interview, outcome, score=None if outcome == "pending" else 6))
    run(recruiter.update_candidate(people["Charlie"], {"status": "hired"}))
    run(recruiter.add_job_requisition({"title": "Tester", "priority": 7}))
    stats = run(recruiter.pipeline_stats())
    assert stats["candidates"]["by_status"] == {"active": 3, "hired": 1}
    assert stats["candidates"]["average_experience_years"] == 6.88
    assert stats["candidates"]["top_skills"]["python"] == 3
    assert stats["interviews"] == {
        "total": 4,
        "by_outcome": {"passed": 2, "failed": 1, "pending": 1},
        "pass_rate": 0.6667,
        "average_score": 6.0,
    }
    assert stats["job_requisitions"] == {"total": 1, "by_status": {"open": 1}, "open_by_priority": {"7": 1}}
    assert stats["agent_interactions"] == 1

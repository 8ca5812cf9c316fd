"""`RecruiterAgentStorage`: candidates, interviews, job requisitions and who was spoken to about them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal, Unpack

import msgspec
from msgspec import Meta

from holdfast import clock as clocks
from holdfast.agents.place import Options
from holdfast.agents.rows import LIMIT
from holdfast.agents.shapes import blank, folded_all, shaped
from holdfast.agents.storage import BaseStorage, Page
from holdfast.collections.typed import Sums
from holdfast.errors import NotFound, UsageError
from holdfast.log.drafts import new_id
from holdfast.query import AllOf, AnyOf, Condition, where, words_of

Name = Annotated[str, Meta(min_length=1)]
Years = Annotated[int, Meta(ge=0)] | Annotated[float, Meta(ge=0)]
Scale = Annotated[int, Meta(ge=1, le=10)]
CANDIDATES: Final = "candidates"
INTERVIEWS: Final = "interviews"
JOBS: Final = "job_requisitions"
INTERACTIONS: Final = "agent_interactions"
FOLDED: Final = "skills_folded"
_SEARCHED: Final = ("name", "email", "skills", "location", "education", "notes")
_WORDS_MAX: Final = 12


class Candidate(msgspec.Struct, kw_only=True):
    """Somebody who may be hired."""

    id: str | int
    name: Name
    email: str | None = None
    phone: str | None = None
    skills: list[str] = []
    experience_years: Years = 0
    education: str | None = None
    location: str | None = None
    status: Name = "active"
    source: str | None = None
    notes: str | None = None
    created_at: str | None = None
    updated_at: str | None = None


class Interview(msgspec.Struct, kw_only=True):
    """A conversation with a candidate, and how it went; the score is 1 to 10."""

    id: str | int
    candidate_id: str | int
    job_id: str | int | None = None
    interviewer_agent: str | None = None
    scheduled_date: str | None = None
    actual_date: str | None = None
    interview_type: str | None = None
    notes: str | None = None
    score: Scale | None = None
    outcome: Name = "pending"
    created_at: str | None = None
    updated_at: str | None = None


class JobRequisition(msgspec.Struct, kw_only=True):
    """A position to be filled; the priority is 1 to 10."""

    id: str | int
    title: Name
    department: str | None = None
    required_skills: list[str] = []
    preferred_skills: list[str] = []
    experience_required: Years = 0
    location: str | None = None
    status: Name = "open"
    priority: Scale = 5
    description: str | None = None
    created_at: str | None = None
    updated_at: str | None = None


class Interaction(msgspec.Struct, kw_only=True):
    """What one agent had to do with another."""

    id: str | int
    source_agent: Name
    target_agent: Name
    interaction_type: Name
    context: Any = None
    created_at: str | None = None
    updated_at: str | None = None


KINDS: Final[dict[str, type[msgspec.Struct]]] = {
    CANDIDATES: Candidate,
    INTERVIEWS: Interview,
    JOBS: JobRequisition,
    INTERACTIONS: Interaction,
}


class RecruiterAgentStorage(BaseStorage):
    """What a recruiter knows, found by skill and experience, at local speed and with no hub needed.

    Rows are dicts: the fields of the four tables are checked, and fields of your own are kept beside them.

    Args:
        data_dir, htpc_url, enable_htpc, options: see `BaseStorage`.
        agent_id: who writes.
    """

    agent: ClassVar[str] = "recruiter"
    indexes: ClassVar[Mapping[str, Sequence[str]]] = {
        CANDIDATES: (FOLDED, "experience_years", "status"),
        INTERVIEWS: ("candidate_id", "outcome", "interviewer_agent", "job_id", "scheduled_date", "created_at", "score"),
        JOBS: ("status", "priority"),
        INTERACTIONS: ("target_agent", "interaction_type", "created_at"),
    }
    words: ClassVar[Mapping[str, Sequence[str]]] = {CANDIDATES: _SEARCHED}

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        htpc_url: str | Iterable[str] | None = None,
        enable_htpc: bool = True,
        *,
        agent_id: str = agent,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(agent_id, data_dir, htpc_url, enable_htpc, **options)

    def _write_local(self, table: str, data: dict[str, Any], operation: str) -> dict[str, Any]:
        kind = KINDS.get(table)
        if kind is None:
            raise UsageError(f"a recruiter has no table {table!r:.80}", hint=f"one of {', '.join(KINDS)}")
        if operation == "delete":
            return data
        now = clocks.iso(self.clock.now_ms())
        row = shaped(table, kind, {"created_at": now, **data, "updated_at": now})
        if table == CANDIDATES:
            row[FOLDED] = folded_all(row["skills"])
        return row

    # -- candidates -----------------------------------------------------------------------------------------------

    async def add_candidate(self, candidate: Mapping[str, Any]) -> str:
        """Adds a candidate, and returns the id once all of it is durable here.

        Args:
            candidate: `name`, and what is known of email, phone, skills, experience_years, education, location, status,
                source, notes; an `id` of your own, if there is one.

        Raises:
            UsageError: a field is not of its kind; the message names it.
            Conflict: the id is another candidate's.
        """
        return await self._add(CANDIDATES, "candidate", candidate)

    async def get_candidate(self, candidate_id: str) -> dict[str, Any] | None:
        """A candidate, with None in the fields of which nothing is known; None if there is no such candidate."""
        return await self._get(CANDIDATES, candidate_id)

    async def update_candidate(self, candidate_id: str, updates: Mapping[str, Any]) -> bool:
        """Changes the given fields of a candidate, and no others; what somebody else changes meanwhile stays.

        Raises:
            NotFound: there is no such candidate.
            UsageError: a field is not of its kind.
        """
        return await self.write_data(CANDIDATES, {**updates, "id": candidate_id}, "update")

    async def delete_candidate(self, candidate_id: str) -> bool:
        """Takes a candidate away, and leaves the interviews; False if there was none."""
        return await self._delete(CANDIDATES, candidate_id)

    async def search_candidates(
        self,
        skills: Sequence[str] | None = None,
        min_experience: float | None = None,
        text: str | None = None,
        *,
        status: str | None = "active",
        match: Literal["all", "any"] = "all",
        limit: int = LIMIT,
        cursor: str | None = None,
    ) -> Page:
        """The candidates who meet every criterion, most experienced first.

        Args:
            skills: compared without regard to case and spaces.
            min_experience: years, at least.
            text: words, each of which is somewhere in name, email, skills, location, education or notes.
            status: None: any.
            match: whether all of the skills are needed, or any.
            limit: the most; the list's `cursor` leads to the next page.
            cursor: the `cursor` of the page before.

        Raises:
            UsageError: a criterion that cannot be.
        """
        tests: list[Condition] = []
        if skills:
            wanted = folded_all(skills)
            if match not in ("all", "any"):
                raise UsageError(f"match is all or any, got {match!r:.80}", hint='match="any"')
            tests.append(where(FOLDED).has_all(wanted) if match == "all" else where(FOLDED).is_in(wanted))
        if min_experience is not None:
            if isinstance(min_experience, bool) or not isinstance(min_experience, int | float):
                raise UsageError(f"min_experience is a number of years, got {min_experience!r:.80}", hint="3")
            tests.append(where("experience_years") >= min_experience)
        if text is not None:
            tests += [AnyOf(any=tuple(where(name).text(word) for name in _SEARCHED)) for word in _words(text)]
        if status is not None:
            tests.append(where("status") == status)
        return await self._page(CANDIDATES, AllOf(all=tuple(tests)), "-experience_years", limit, cursor)

    # -- interviews -----------------------------------------------------------------------------------------------

    async def add_interview(self, interview: Mapping[str, Any]) -> str:
        """Adds an interview, one that was or one that is to be, and returns its id.

        Args:
            interview: `candidate_id`, and what is known of job_id, interviewer_agent, scheduled_date, actual_date,
                interview_type, notes, score (1 to 10), outcome ("pending" if not said). Dates may be datetimes.

        Raises:
            NotFound: there is no such candidate.
            UsageError: a field is not of its kind.
        """
        candidate = interview.get("candidate_id") if isinstance(interview, Mapping) else None
        if candidate is not None and await self.get_row(CANDIDATES, candidate) is None:
            raise NotFound(f"there is no candidate {candidate!r:.80}", hint="add_candidate returns the id")
        return await self._add(INTERVIEWS, "interview", interview)

    async def schedule_interview(self, candidate_id: str, scheduled_date: Any, **fields: Any) -> str:
        """Adds an interview that is to be; see `add_interview`."""
        return await self.add_interview({**fields, "candidate_id": candidate_id, "scheduled_date": scheduled_date})

    async def record_interview_outcome(
        self, interview_id: str, outcome: str, *, score: int | None = None, notes: str | None = None
    ) -> bool:
        """Says how an interview went; when it was is now, unless that is known.

        Args:
            interview_id: which.
            outcome: passed, failed, or a word of your own.
            score: 1 to 10.
            notes: in place of what is noted.

        Raises:
            NotFound: there is no such interview.
        """
        now = clocks.iso(self.clock.now_ms())
        row = await self.get_row(INTERVIEWS, interview_id) or {}
        said = {"score": score, "notes": notes, "actual_date": None if "actual_date" in row else now}
        updates = {name: value for name, value in said.items() if value is not None}
        return await self.write_data(INTERVIEWS, {**updates, "id": interview_id, "outcome": outcome}, "update")

    async def get_interview(self, interview_id: str) -> dict[str, Any] | None:
        """An interview, or None."""
        return await self._get(INTERVIEWS, interview_id)

    async def get_candidate_interviews(self, candidate_id: str) -> Page:
        """All interviews of a candidate, newest first."""
        return await self._page(INTERVIEWS, where("candidate_id") == candidate_id, "-created_at", LIMIT, None)

    async def get_interviews(
        self,
        *,
        outcome: str | None = None,
        interviewer_agent: str | None = None,
        job_id: str | None = None,
        limit: int = LIMIT,
        cursor: str | None = None,
    ) -> Page:
        """The interviews that match, by the date they are scheduled for.

        Args:
            outcome, interviewer_agent, job_id: narrow it; None: any.
            limit, cursor: a page; see `search_candidates`.
        """
        asked = {"outcome": outcome, "interviewer_agent": interviewer_agent, "job_id": job_id}
        return await self._page(INTERVIEWS, _equal(asked), "scheduled_date", limit, cursor)

    # -- job requisitions -----------------------------------------------------------------------------------------

    async def add_job_requisition(self, job: Mapping[str, Any]) -> str:
        """Adds a position to be filled, and returns its id.

        Args:
            job: `title`, and what is known of department, required_skills, preferred_skills, experience_required,
                location, status ("open" if not said), priority (1 to 10, 5 if not said), description.

        Raises:
            UsageError: a field is not of its kind.
        """
        return await self._add(JOBS, "job", job)

    async def get_job_requisition(self, job_id: str) -> dict[str, Any] | None:
        """A position, or None."""
        return await self._get(JOBS, job_id)

    async def update_job_requisition(self, job_id: str, updates: Mapping[str, Any]) -> bool:
        """Changes the given fields of a position: its status to "filled", its priority; see `update_candidate`."""
        return await self.write_data(JOBS, {**updates, "id": job_id}, "update")

    async def get_job_requisitions(
        self,
        *,
        status: str | None = None,
        min_priority: int | None = None,
        limit: int = LIMIT,
        cursor: str | None = None,
    ) -> Page:
        """Positions, the most urgent first.

        Args:
            status: open, filled, closed; None: any.
            min_priority: at least so urgent.
            limit, cursor: a page; see `search_candidates`.
        """
        tests = _equal({"status": status})
        if min_priority is not None:
            tests = AllOf(all=(*tests.all, where("priority") >= min_priority))
        return await self._page(JOBS, tests, "-priority", limit, cursor)

    async def get_open_jobs(self) -> Page:
        """The positions that are open, the most urgent first."""
        return await self.get_job_requisitions(status="open")

    async def match_candidates(self, job_id: str, *, limit: int = LIMIT) -> Page:
        """The active candidates who have all skills and the experience that a position requires.

        Args:
            job_id: the position.
            limit: the most.

        Raises:
            NotFound: there is no such position.
        """
        job = await self.get_row(JOBS, job_id)
        if job is None:
            raise NotFound(f"there is no job requisition {job_id!r:.80}", hint="add_job_requisition returns the id")
        return await self.search_candidates(job["required_skills"], job["experience_required"], limit=limit)

    # -- interactions and figures ---------------------------------------------------------------------------------

    async def log_agent_interaction(self, target_agent: str, interaction_type: str, context: Any = None) -> str:
        """Notes what this agent had to do with another, and returns the note's id.

        Args:
            target_agent: the other.
            interaction_type: query, recommendation, feedback, or a word of your own.
            context: JSON values.
        """
        row = {"target_agent": target_agent, "interaction_type": interaction_type, "context": context}
        return await self._add(INTERACTIONS, "interaction", {**row, "source_agent": self.agent_id})

    async def get_agent_interactions(
        self,
        target_agent: str | None = None,
        interaction_type: str | None = None,
        *,
        limit: int = LIMIT,
        cursor: str | None = None,
    ) -> Page:
        """The notes about other agents, newest first; see `log_agent_interaction`."""
        asked = {"target_agent": target_agent, "interaction_type": interaction_type}
        return await self._page(INTERACTIONS, _equal(asked), "-created_at", limit, cursor)

    async def pipeline_stats(self) -> dict[str, Any]:
        """How many candidates, interviews and positions there are in each state, as JSON values."""
        return await self.in_thread(self._stats)

    # -- inside ---------------------------------------------------------------------------------------------------

    async def _add(self, table: str, prefix: str, row: Mapping[str, Any]) -> str:
        if not isinstance(row, Mapping):
            raise UsageError(f"a row of {table} is a dict, got {row!r:.80}", hint="its fields by name")
        return await self.insert(table, {**row, "id": row.get("id") or new_id(prefix)})

    async def _get(self, table: str, id: str) -> dict[str, Any] | None:
        row = await self.get_row(table, id)
        return None if row is None else _shown(table, row)

    async def _delete(self, table: str, id: str) -> bool:
        try:
            return await self.write_data(table, {"id": id}, "delete")
        except NotFound:
            return False

    async def _page(self, table: str, condition: Condition, order: str, limit: int, cursor: str | None) -> Page:
        found = await self.find(table, condition, order=order, limit=limit, after=cursor)
        return Page((_shown(table, row) for row in found), found.cursor)

    def _stats(self) -> dict[str, Any]:
        candidates, interviews, jobs = self.table(CANDIDATES), self.table(INTERVIEWS), self.table(JOBS)
        states, outcomes, positions = (
            _counts(rows.sums(by)) for rows, by in ((candidates, "status"), (interviews, "outcome"), (jobs, "status"))
        )
        skills = Counter(_counts(candidates.sums(FOLDED)))
        years = candidates.sums(of="experience_years").get(None)
        score = interviews.sums(of="score").get(None)
        waiting = _counts(jobs.sums("priority", condition=where("status") == "open"))
        decided = sum(outcomes.values()) - outcomes.get("pending", 0)
        return {
            "candidates": {
                "total": sum(states.values()),
                "by_status": states,
                "average_experience_years": _rounded(years),
                "top_skills": dict(skills.most_common(10)),
            },
            "interviews": {
                "total": sum(outcomes.values()),
                "by_outcome": outcomes,
                "pass_rate": round(outcomes.get("passed", 0) / decided, 4) if decided else None,
                "average_score": _rounded(score),
            },
            "job_requisitions": {
                "total": sum(positions.values()),
                "by_status": positions,
                "open_by_priority": {str(level): count for level, count in sorted(waiting.items())},
            },
            "agent_interactions": self.table(INTERACTIONS).count(),
        }


def _counts(groups: Mapping[Any, Sums]) -> dict[Any, int]:
    return {name: group.count for name, group in groups.items() if name is not None}


def _rounded(group: Sums | None) -> float | None:
    return None if group is None or group.avg is None else round(group.avg, 2)


def _equal(asked: Mapping[str, Any]) -> AllOf:
    return AllOf(all=tuple(where(name) == value for name, value in asked.items() if value is not None))


def _shown(table: str, row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in (_BLANK[table] | dict(row)).items() if name != FOLDED}


def _words(text: str) -> list[str]:
    words = words_of(text) if isinstance(text, str) else []
    if not words or len(words) > _WORDS_MAX:
        raise UsageError(f"nothing to look for: {text!r:.80}", hint=f"one to {_WORDS_MAX} words")
    return words


_BLANK: Final = {table: blank(kind) for table, kind in KINDS.items()}

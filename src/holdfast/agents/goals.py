"""What a commander wants to reach: goals, their parts, and how far each is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from holdfast import clock as clocks
from holdfast.agents.rows import Row, Rows
from holdfast.agents.shapes import blank, shaped
from holdfast.errors import Conflict, NotFound, UsageError
from holdfast.log.drafts import new_id
from holdfast.query import where

GOALS: Final = "goals"
Name = Annotated[str, Meta(min_length=1)]


class Goal(msgspec.Struct, kw_only=True):
    """Something to be reached; `progress` goes from 0 to 1."""

    id: str | int
    title: Name
    description: str | None = None
    goal_type: Name = "operational"
    priority: Annotated[int, Meta(ge=1, le=10)] = 5
    status: Literal["active", "completed", "abandoned"] = "active"
    success_criteria: list[Any] = []
    progress: Annotated[float, Meta(ge=0, le=1)] = 0.0
    parent_goal_id: str | None = None
    deadline: str | None = None
    created_at: str | None = None
    completed_at: str | None = None
    updated_at: str | None = None


class Goals:
    """Goals, each of which may be a part of another one. Safe to share among threads and processes.

    Args:
        rows: where they lie.
        now_ms: the time.
    """

    def __init__(self, rows: Rows, now_ms: Callable[[], int]) -> None:
        self._rows = rows
        self._now_ms = now_ms

    def create(self, goal: Mapping[str, Any]) -> str:
        """Adds a goal, and returns its id.

        Raises:
            NotFound: the goal that it is a part of is not there.
            UsageError: a field is not of its kind.
            Conflict: the id is another goal's.
        """
        if not isinstance(goal, Mapping):
            raise UsageError(f"a goal is a dict, got {goal!r:.80}", hint='such as {"title": "Ten leads a day"}')
        id = str(goal.get("id") or new_id("goal"))
        if goal.get("parent_goal_id") == id:
            raise UsageError(f"goal {id} would be a part of itself", hint="leave parent_goal_id out")
        if goal.get("parent_goal_id") is not None:
            self._there(str(goal["parent_goal_id"]))
        self._rows.put(id, self._shaped({"created_at": self._now(), **goal, "id": id}), 0)
        return id

    def change(self, id: str, updates: Mapping[str, Any]) -> dict[str, Any]:
        """Changes the given fields; a progress of 1 completes it, and what is completed has a progress of 1.

        Raises:
            NotFound: there is no such goal.
            UsageError: a field is not of its kind, or says what the goal is a part of.
        """
        if "parent_goal_id" in updates:
            raise UsageError("a goal stays a part of what it was made for", hint="make a new one there")
        while True:
            row = self._there(id)
            made = self._shaped({**row.value, **updates, "id": row.value["id"]})
            if updates.get("progress") == 1 and "status" not in updates:
                made["status"] = "completed"
            if made["status"] == "completed":
                made |= {"progress": 1.0, "completed_at": made.get("completed_at") or self._now()}
            else:
                made["completed_at"] = None
            try:
                self._rows.put(row.id, self._shaped(made), row.version)
            except Conflict:
                continue
            return self._told(self._there(id))

    def get(self, id: str) -> dict[str, Any] | None:
        """A goal with its parts; None if there is none. One with parts is as far as they are on average."""
        row = self._rows.get(str(id))
        return None if row is None else self._told(row)

    def page(
        self, status: str | None, parent: str | None, limit: int, cursor: str | None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Goals in a state, or parts of one, the most important first, and where the next page begins."""
        tests = [
            where(name) == is_ for name, is_ in (("status", status), ("parent_goal_id", parent)) if is_ is not None
        ]
        condition = tests[0] & tests[1] if len(tests) == 2 else tests[0] if tests else where("id").exists()
        found = self._rows.find(condition, order=("-priority", "created_at"), limit=limit, after=cursor)
        return [self._told(row) for row in found.rows], found.cursor

    def _told(self, row: Row, above: frozenset[str] = frozenset()) -> dict[str, Any]:
        found: dict[str, Any] = {**_BLANK, **row.value, "sub_goals": []}
        for part in self._rows.each(where("parent_goal_id") == row.id):
            if part.id not in above:
                found["sub_goals"].append(self._told(part, above | {row.id}))
        counted = [each["progress"] for each in found["sub_goals"] if each["status"] != "abandoned"]
        if counted and found["status"] == "active":
            found["progress"] = round(sum(counted) / len(counted), 4)
        return found

    def _there(self, id: str) -> Row:
        row = self._rows.get(str(id))
        if row is None:
            raise NotFound(f"there is no goal {id!r:.80}", hint="create_goal returns the id")
        return row

    def _shaped(self, goal: Mapping[str, Any]) -> dict[str, Any]:
        return shaped(GOALS, Goal, {**goal, "updated_at": self._now()})

    def _now(self) -> str:
        return clocks.iso(self._now_ms())


_BLANK: Final = blank(Goal)

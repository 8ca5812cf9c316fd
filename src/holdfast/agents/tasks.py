"""What a task is, and what becomes of one: begun, ended, failed, given back. Pure: times are handed in.

A task is one row. Whoever begins it holds a lease and its token, a number that grows with each claim.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from holdfast import clock as clocks
from holdfast.agents.shapes import blank, shaped
from holdfast.errors import UsageError

Name = Annotated[str, Meta(min_length=1)]
Scale = Annotated[int, Meta(ge=1, le=10)]
Status = Literal["pending", "assigned", "in_progress", "completed", "failed", "cancelled"]
TASKS: Final = "tasks"
WAITING: Final = ("pending", "assigned")
ACTIVE: Final = ("pending", "assigned", "in_progress")
RETRY_MAX_S: Final = 3600.0
HISTORY_MAX: Final = 20


class Lease(msgspec.Struct, kw_only=True):
    """Who works on a task, until when, and the token that proves it."""

    agent: Name
    token: int
    until: str
    seconds: float


class Task(msgspec.Struct, kw_only=True):
    """Something to be done.

    `waits_for` are those of `depends_on` that are not known to be completed. `queue` is there only while it could be
    begun: whose queue it stands in, and where, as a text that sorts.
    """

    id: str | int
    title: Name
    description: str | None = None
    priority: Scale = 5
    status: Status = "pending"
    assigned_agent: str | None = None
    reserved_for: str | None = None
    created_by: str | None = None
    parent_task_id: str | int | None = None
    complexity: Scale = 5
    estimated_duration: float | int | None = None
    depends_on: list[str] = []
    waits_for: list[str] = []
    queue: str | None = None
    capabilities: list[str] = []
    payload: Any = None
    max_attempts: Annotated[int, Meta(ge=1)] = 3
    retry_delay_s: Annotated[float, Meta(ge=0)] = 1.0
    not_before: str | None = None
    attempts: int = 0
    token: int = 0
    lease: Lease | None = None
    history: list[dict[str, Any]] = []
    failed_by: list[str] = []
    result: Any = None
    error: str | None = None
    created_at: str | None = None
    assigned_at: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    updated_at: str | None = None
    duration_s: float | None = None


GIVEN: Final = frozenset(
    {
        *("id", "title", "description", "priority", "status", "assigned_agent", "created_by", "parent_task_id"),
        *("complexity", "estimated_duration", "depends_on", "capabilities", "payload", "max_attempts"),
        *("retry_delay_s", "not_before"),
    }
)
"""What whoever creates a task may say; the rest is decided by calls of its own."""
CHANGED: Final = GIVEN - {"id", "status", "assigned_agent", "depends_on"}
"""What may be said anew."""
_CHANGED_BY: Final = {
    "status": "assign_task, complete_task, fail_task, cancel_task",
    "assigned_agent": "assign_task",
    "depends_on": "add_dependency",
    "result": "complete_task",
    "error": "fail_task",
}


def checked_task(task: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
    """The task as it is kept: every field of its kind.

    Raises:
        UsageError: one is not; the message names it.
    """
    row = shaped(TASKS, Task, {**task, "queue": None, "updated_at": clocks.iso(now_ms)})
    if "not_before" in row:
        row["not_before"] = clocks.iso(clocks.parse_time(row["not_before"]))  # one form, so that texts sort by time
    if row["status"] in WAITING and not row["waits_for"]:
        row["queue"] = f"{queue_of(row.get('reserved_for'))}{10 - row['priority']} {row['created_at']}"
    return row


def queue_of(agent: str | None) -> str:
    """How the places of a queue begin: of what is kept for an agent, or (None) of what is for everybody."""
    return "*/" if agent is None else f"@{agent}/"


def shown(task: Mapping[str, Any]) -> dict[str, Any]:
    """The task with None in the fields that have no value."""
    return {**_BLANK, **task}


def refuse_managed(given: Mapping[str, Any], allowed: frozenset[str]) -> None:
    """Returns only if nobody sets what is decided otherwise; fields of one's own are free.

    Raises:
        UsageError: a field that has a call of its own.
    """
    names = sorted(name for name in given if name in _BLANK and name not in allowed)
    if names:
        calls = [_CHANGED_BY[name] for name in names if name in _CHANGED_BY]
        hint = f"{', '.join(calls)} does" if calls else "the board keeps it"
        raise UsageError(f"a task's {', '.join(names)} cannot be set", hint=hint)


def is_over(task: Mapping[str, Any], now_ms: int) -> bool:
    """Whether the lease on a task in work is over."""
    return bool(task["lease"]["until"] <= clocks.iso(now_ms))


def begun(task: dict[str, Any], agent: str, seconds: float, now_ms: int) -> dict[str, Any]:
    """The task as this agent's from now on; if too many have died over it, as failed."""
    if task["status"] == "in_progress":
        task = after_failure(task, "lost", f"{task['lease']['agent']} did not renew its lease", now_ms)
        if task["status"] == "failed":
            return task
    now, token = clocks.iso(now_ms), task["token"] + 1
    return {
        **task,
        "status": "in_progress",
        "assigned_agent": agent,
        "assigned_at": task.get("assigned_at") or now,
        "started_at": now,
        "not_before": None,
        "attempts": task["attempts"] + 1,
        "token": token,
        "lease": {"agent": agent, "token": token, "until": _later(now_ms, seconds), "seconds": seconds},
    }


def renewed(task: dict[str, Any], seconds: float, now_ms: int) -> dict[str, Any]:
    """The task with a lease that ends so many seconds from now."""
    return {**task, "lease": {**task["lease"], "until": _later(now_ms, seconds), "seconds": seconds}}


def after_failure(task: dict[str, Any], outcome: str, error: str, now_ms: int, *, retry: bool = True) -> dict[str, Any]:
    """The task after an attempt that came to nothing: back on the board after a while, or failed."""
    done = {**ended(task, outcome, now_ms, error), "error": error}
    if not retry or task["attempts"] >= task["max_attempts"]:
        return {**done, "status": "failed", "completed_at": clocks.iso(now_ms)}
    delay = min(task["retry_delay_s"] * 2 ** min(task["attempts"] - 1, 30), RETRY_MAX_S)
    return {**put_back(done), "not_before": _later(now_ms, delay)}


def put_back(task: dict[str, Any]) -> dict[str, Any]:
    """The task as it waits: for everybody, or for the agent that it is kept for."""
    kept = task.get("reserved_for")
    return {**task, "status": "assigned" if kept else "pending", "assigned_agent": kept}


def ended(task: dict[str, Any], outcome: str, now_ms: int, error: str | None = None) -> dict[str, Any]:
    """The task without its lease, and with this attempt among those that have ended."""
    lease = task["lease"]
    took = max(0.0, (now_ms - clocks.parse_time(task["started_at"])) / 1000)
    entry = {
        "agent": lease["agent"],
        "token": lease["token"],
        "outcome": outcome,
        "started_at": task["started_at"],
        "ended_at": clocks.iso(now_ms),
        "duration_s": took,
    }
    if error is not None:
        entry["error"] = error
    failed = {*task["failed_by"], lease["agent"]} if outcome in ("failed", "lost") else task["failed_by"]
    return {
        **task,
        "lease": None,
        "history": [*task["history"], entry][-HISTORY_MAX:],
        "failed_by": sorted(failed),
        "duration_s": took,
    }


def _later(now_ms: int, seconds: float) -> str:
    return clocks.iso(now_ms + round(seconds * 1000))


_BLANK: Final = blank(Task)

"""The agents that a commander knows: what each can do, when it was last heard of, and how its work went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from holdfast import clock as clocks
from holdfast.agents.board import Board, Record
from holdfast.agents.rows import Row, Rows
from holdfast.agents.shapes import blank, folded_all, shaped
from holdfast.errors import Conflict, NotFound, UsageError
from holdfast.query import EVERYTHING, where

Name = Annotated[str, Meta(min_length=1)]
AGENTS: Final = "agents"
STALE_S: Final = 300.0
FREE: Final = ("idle", "available")


class Agent(msgspec.Struct, kw_only=True):
    """An agent as it registered, and as it last said it was."""

    id: Name
    name: Name
    role: Name = "worker"
    node_id: str | None = None
    status: Name = "idle"
    capabilities: list[str] = []
    endpoint: str | None = None
    performance_score: Annotated[float, Meta(ge=0, le=10)] | None = None
    last_heartbeat: str | None = None
    created_at: str | None = None
    updated_at: str | None = None


class Crew:
    """The registry of agents. What they have done is read off the tasks, and nowhere counted twice.

    Args:
        rows: where they lie.
        board: what they work on.
        now_ms: the time that heartbeats are measured by.
    """

    def __init__(self, rows: Rows, board: Board, now_ms: Callable[[], int]) -> None:
        self._rows = rows
        self._board = board
        self._now_ms = now_ms

    def register(self, agent: Mapping[str, Any]) -> str:
        """Registers an agent, or says anew what is known of it; returns its id.

        Raises:
            UsageError: no id, or a field that is not of its kind.
        """
        if not isinstance(agent, Mapping):
            raise UsageError(f"an agent is a dict, got {agent!r:.80}", hint='such as {"id": "worker-1"}')
        id = agent.get("id") or agent.get("agent_id")
        if not isinstance(id, str):
            raise UsageError(
                f"an agent needs an id, got {id!r:.80}", hint='such as {"id": "worker-1", "role": "coder"}'
            )
        given = {name: value for name, value in agent.items() if name not in ("id", "agent_id")}
        self._change(id, lambda before: {"name": id, "created_at": self._now(), **before, **given})
        return id

    def heartbeat(self, id: str, status: str | None, fields: Mapping[str, Any]) -> None:
        """Notes that an agent lives.

        Raises:
            NotFound: it is not registered.
        """

        def beat(before: dict[str, Any]) -> dict[str, Any]:
            if not before:
                raise NotFound(f"agent {id!r:.80} is not registered", hint="register_agent first")
            return {**before, **fields} | ({} if status is None else {"status": status})

        self._change(id, beat)

    def unregister(self, id: str) -> bool:
        """Forgets an agent; False if it was not known. Its tasks go to others when its leases are over."""
        return self._rows.delete(id)

    def info(self, id: str) -> dict[str, Any] | None:
        """What is known of an agent, with how its work went; None if it is not registered."""
        row = self._rows.get(id)
        if row is None:
            return None
        working = self._board.in_work().get(id, [])
        return self._told(row, working) | told(self._board.records(id).get(id, NOTHING), row.value)

    def listed(self, role: str | None, status: str | None) -> list[dict[str, Any]]:
        """The agents of a role, or in a state, by id."""
        condition = EVERYTHING if role is None else where("role") == role
        working = self._board.in_work()
        found = [self._told(row, working.get(row.id, [])) for row in self._rows.each(condition)]
        return [each for each in found if status is None or each["status"] == status]

    def available(self, role: str | None, capabilities: Any, stale_after_s: float) -> list[dict[str, Any]]:
        """The agents that could begin something now, the best first."""
        able = set(folded_all(capabilities or ()))
        records = self._board.records()
        found = [
            each | told(records.get(each["id"], NOTHING), each)
            for each in self.listed(role, None)
            if each["status"] in FREE
            and each["silent_s"] <= stale_after_s
            and able.issubset(folded_all(each["capabilities"]))
        ]
        return sorted(found, key=lambda each: (-each["performance_score"], each["id"]))

    def stale(self, after_s: float) -> list[dict[str, Any]]:
        """The agents that were not heard of for so long, the longest first."""
        found = [each for each in self.listed(None, None) if each["silent_s"] > after_s]
        return sorted(found, key=lambda each: -each["silent_s"])

    def summary(self, stale_after_s: float) -> dict[str, Any]:
        """How all agents stand, and how their work went."""
        listed = self.listed(None, None)
        records = self._board.records()
        known = {each["id"]: each for each in listed}
        done = {id: told(records.get(id, NOTHING), known.get(id, {})) for id in sorted(known | records)}
        scores = [done[id]["performance_score"] for id in known]
        gone = sum(each["silent_s"] > stale_after_s for each in listed)
        states = Counter(each["status"] for each in listed if each["silent_s"] <= stale_after_s)
        return {
            "total_agents": len(listed),
            "idle_agents": sum(states[each] for each in FREE),
            "busy_agents": states["busy"],
            "stale_agents": gone,
            "average_performance": round(sum(scores) / len(scores), 2) if scores else None,
            "total_tasks_completed": sum(each["tasks_completed"] for each in done.values()),
            "total_tasks_failed": sum(each["tasks_failed"] for each in done.values()),
            "by_agent": done,
        }

    def capabilities(self, id: str) -> list[str]:
        """What an agent can do, as it registered; nothing, if it did not."""
        row = self._rows.get(id)
        return [] if row is None else row.value["capabilities"]

    # -- inside -------------------------------------------------------------------------------------------------

    def _now(self) -> str:
        return clocks.iso(self._now_ms())

    def _change(self, id: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        while True:
            row = self._rows.get(id)
            now = self._now()
            made = {**change(dict(row.value) if row else {}), "id": id, "last_heartbeat": now, "updated_at": now}
            kept = shaped(AGENTS, Agent, made)
            try:
                self._rows.put(id, kept, row.version if row else 0)
            except Conflict:
                continue
            return

    def _told(self, row: Row, working: list[str]) -> dict[str, Any]:
        """An agent, busy if it holds a lease, and how many seconds ago it was heard of."""
        silent = max(0.0, (self._now_ms() - clocks.parse_time(row.value["last_heartbeat"])) / 1000)
        found = {**_BLANK, **row.value, "silent_s": silent, "current_task_ids": working}
        found["current_task_id"] = working[0] if working else None
        if working and found["status"] in FREE:
            found["status"] = "busy"
        return found


def told(record: Record, agent: Mapping[str, Any]) -> dict[str, Any]:
    """How an agent's work went, and its score: what somebody said of it; else 5 to begin with, nearer to 10 with each
    task completed and nearer to 0 with each that it failed or lost.
    """
    rate = 10 * (record.completed + 1) / (record.completed + record.failed + 2)
    given = agent.get("performance_score")
    return {
        "tasks_completed": record.completed,
        "tasks_failed": record.failed,
        "average_task_duration_s": None if record.average_s is None else round(record.average_s, 3),
        "performance_score": round(rate, 2) if given is None else given,
    }


NOTHING: Final = Record()
_BLANK: Final = blank(Agent)

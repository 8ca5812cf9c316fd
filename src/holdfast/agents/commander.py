"""`CommanderStorage`: tasks, agents, decisions, figures, goals and messages of whoever directs others."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final, Unpack

from holdfast.agents.board import Board
from holdfast.agents.crew import AGENTS, STALE_S, Crew
from holdfast.agents.goals import GOALS, Goals
from holdfast.agents.hubtime import HubTime
from holdfast.agents.journal import JournalStorage
from holdfast.agents.notes import KINDS
from holdfast.agents.place import Options
from holdfast.agents.rows import LIMIT
from holdfast.agents.storage import Page
from holdfast.agents.tasks import ACTIVE, TASKS
from holdfast.errors import Conflict, HubUnavailable, UsageError
from holdfast.query import AllOf, where

LEASE_S: Final = 60.0
_TABLES: Final = (TASKS, AGENTS, GOALS, *KINDS)


class CommanderStorage(JournalStorage):
    """Who does what, and why: no two agents ever hold one task, on one machine or, with `shared`, on many.

    On one machine any number of processes open the same `data_dir` and `agent_id`, and each claim is decided inside the
    log's own transaction. Among machines each opens its own directory with ``shared=True``: tasks, agents and goals are
    then the hub's to decide, and without it they raise `HubUnavailable` and nothing is claimed twice; what is noted
    down (decisions, figures, messages) goes on.

    Args:
        data_dir, htpc_url, enable_htpc, options: see `BaseStorage`.
        agent_id: who writes.
        shared: whether the hub decides about tasks, agents and goals, for all machines.

    Raises:
        UsageError: `shared` without a hub.
    """

    agent: ClassVar[str] = "commander"
    indexes: ClassVar[Mapping[str, Sequence[str]]] = {
        **JournalStorage.indexes,
        TASKS: (
            *("queue", "lease.until", "waits_for", "depends_on"),
            *("status", "priority", "created_at", "assigned_agent", "parent_task_id", "failed_by", "duration_s"),
        ),
        AGENTS: ("role",),
        GOALS: ("status", "priority", "created_at", "parent_goal_id"),
    }

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        htpc_url: str | Iterable[str] | None = None,
        enable_htpc: bool = True,
        *,
        agent_id: str = agent,
        shared: bool = False,
        **options: Unpack[Options],
    ) -> None:
        self.shared = frozenset({TASKS, AGENTS, GOALS} if shared else ())
        super().__init__(agent_id, data_dir, htpc_url, enable_htpc, **options)
        if shared and not self.enable_htpc:
            self._close()
            raise UsageError("several machines share what a hub decides", hint="htpc_url='http://hub:8084'")
        now_ms = HubTime(self.clock, self._reader).now_ms if shared else self.clock.now_ms
        self._board = Board(self.table(TASKS), now_ms)
        self._crew = Crew(self.table(AGENTS), self._board, now_ms)
        self._goals = Goals(self.table(GOALS), now_ms)

    def change(self, table: str, data: Mapping[str, Any], operation: str) -> str:
        """`write_data`, waited for in this thread: what is decided about is not written over, but done by its call."""
        if not isinstance(data, Mapping):
            raise UsageError(f"a row is a dict, got {data!r:.80}", hint="its fields by name")
        if table in KINDS:
            return super().change(table, data, operation)
        id = str(data.get("id") or data.get("agent_id") or "")
        calls: dict[tuple[str, str], Any] = {
            (TASKS, "insert"): lambda: self._board.create(data, self.agent_id),
            (TASKS, "update"): lambda: self._board.update(id, data),
            (TASKS, "delete"): lambda: self._board.delete(id),
            (AGENTS, "insert"): lambda: self._crew.register(data),
            (AGENTS, "upsert"): lambda: self._crew.register(data),
            (AGENTS, "update"): lambda: self._crew.heartbeat(id, None, data),
            (AGENTS, "delete"): lambda: self._crew.unregister(id),
            (GOALS, "insert"): lambda: self._goals.create(data),
            (GOALS, "update"): lambda: self._goals.change(id, {n: v for n, v in data.items() if n != "id"}),
        }
        call = calls.get((table, operation))
        if call is None:
            raise UsageError(f"{operation!r:.40} of {table!r:.40} is no call", hint=f"tables: {', '.join(_TABLES)}")
        made = call()
        return made if isinstance(made, str) else id

    # -- tasks ----------------------------------------------------------------------------------------------------

    async def create_task(self, task: Mapping[str, Any]) -> str:
        """Puts a task on the board, and returns its id.

        Args:
            task: `title`, and as it is wanted description, priority (1 to 10, the greatest first), depends_on (ids of
                tasks that must be completed before), capabilities (which an agent must have), payload (JSON values),
                max_attempts, retry_delay_s (doubled with each attempt), not_before, parent_task_id, complexity,
                estimated_duration, id; assigned_agent together with status "assigned".

        Raises:
            NotFound: it depends on a task that is not there.
            UsageError: a field is not of its kind; the message names it.
            Conflict: the id is another task's.
        """
        return await self.in_thread(self._board.create, task, self.agent_id)

    async def update_task(self, task_id: str, updates: Mapping[str, Any]) -> dict[str, Any]:
        """Changes what its creator said of a task: title, priority, payload…; returns it.

        Raises:
            UsageError: a field that is decided by a call of its own, such as status.
            NotFound: there is no such task.
        """
        return await self.in_thread(self._board.update, task_id, updates)

    async def add_dependency(self, task_id: str, depends_on: str) -> dict[str, Any]:
        """Has a task wait for another one; returns it.

        Raises:
            UsageError: the other one waits for this one, in however many steps.
            Conflict: it has begun.
        """
        return await self.in_thread(self._board.add_dependency, task_id, depends_on)

    async def assign_task(self, task_id: str, agent_id: str) -> bool:
        """Keeps a task for one agent, who claims it as any other.

        Raises:
            Conflict: somebody works on it, or it has ended.
        """
        await self.in_thread(self._board.assign, task_id, agent_id)
        return True

    async def claim_task(
        self, agent_id: str, lease_s: float = LEASE_S, *, capabilities: Sequence[str] | None = None
    ) -> dict[str, Any] | None:
        """The most urgent task that can be begun, this agent's alone until its lease is over; None: there is none.

        A task can be begun when all that it depends on is completed, its time has come, nobody else holds it, and the
        agent has the capabilities that it needs. One whose lease is over is given on; the attempt counts as lost.

        Args:
            agent_id: who will work on it.
            lease_s: seconds within which it is to be completed, or renewed.
            capabilities: what the agent can do; None: as it is registered.

        Raises:
            HubUnavailable: the hub decides, and it is away; nobody else gets the task from elsewhere either.
        """

        def claim() -> dict[str, Any] | None:
            able = self._crew.capabilities(agent_id) if capabilities is None else capabilities
            return self._board.claim(agent_id, lease_s, able)

        return await self.in_thread(claim)

    async def renew_lease(self, task: Mapping[str, Any], lease_s: float | None = None) -> dict[str, Any]:
        """Has the lease on a claimed task end later, and returns the task with it.

        Args:
            task: what `claim_task` returned.
            lease_s: seconds from now; None: as many as before.

        Raises:
            Conflict: the lease is lost; whatever was done for it is to be dropped.
        """
        return await self.in_thread(self._board.renew, task, lease_s)

    @contextlib.asynccontextmanager
    async def working_on(self, task: Mapping[str, Any]) -> AsyncIterator[None]:
        """A block during which the lease is renewed, each time a third of it is over.

        A lease that is lost all the same is told by `complete_task` at the end; a hub that is away is asked again.

        Args:
            task: what `claim_task` returned.
        """

        async def renew() -> None:
            with contextlib.suppress(Conflict):
                while True:
                    await asyncio.sleep(task["lease"]["seconds"] / 3)
                    with contextlib.suppress(HubUnavailable):
                        await self.renew_lease(task)

        renewing = asyncio.create_task(renew())
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.wait((renewing,))  # not itself: its being cancelled must not hide that we are, too
            if not renewing.cancelled():
                renewing.result()

    async def complete_task(self, task: Mapping[str, Any] | str, result: Any = None) -> dict[str, Any]:
        """Says that a task is done, and keeps its result.

        Args:
            task: what `claim_task` returned; its id alone only if nobody claimed it.
            result: JSON values.

        Raises:
            Conflict: the lease is lost: somebody else has the task, or has completed it. Nothing was changed.
        """
        return await self.in_thread(self._board.complete, task, result)

    async def fail_task(self, task: Mapping[str, Any], error: str, *, retry: bool = True) -> dict[str, Any]:
        """Says that an attempt failed: the task is tried again after a while, until its attempts are used up.

        Args:
            task: what `claim_task` returned.
            error: why.
            retry: False: it is not tried again.

        Raises:
            Conflict: the lease is lost.
        """
        return await self.in_thread(self._board.fail, task, error, retry)

    async def release_task(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Gives a claimed task back to the board, as if it had not been claimed.

        Raises:
            Conflict: the lease is lost.
        """
        return await self.in_thread(self._board.release, task)

    async def cancel_task(self, task_id: str, reason: str = "") -> dict[str, Any]:
        """Takes a task off the board; who works on it finds the lease lost.

        Raises:
            Conflict: it is completed, or has failed.
        """
        return await self.in_thread(self._board.cancel, task_id, reason)

    async def retry_task(self, task_id: str) -> dict[str, Any]:
        """Puts a task that failed or was cancelled back on the board, with all its attempts before it."""
        return await self.in_thread(self._board.retry, task_id)

    async def delete_task(self, task_id: str) -> bool:
        """Takes a task that has ended away; False if there is none.

        Raises:
            Conflict: it has not ended, or another one waits for it.
        """
        return await self.in_thread(self._board.delete, task_id)

    async def get_task(self, task_id: str) -> dict[str, Any] | None:
        """A task with its attempts and its result, and with `waits_for`: what is to be completed first. Or None."""
        return await self.in_thread(self._board.get, task_id)

    async def get_tasks(
        self,
        *,
        status: str | None = None,
        agent_id: str | None = None,
        parent_task_id: str | None = None,
        limit: int = LIMIT,
        cursor: str | None = None,
    ) -> Page:
        """Tasks, the most urgent first.

        Args:
            status: pending, assigned, in_progress, completed, failed or cancelled; None: any.
            agent_id: whose they are; None: anybody's.
            parent_task_id: of which they are a part.
            limit, cursor: a page; the list's `cursor` leads to the next one.
        """
        given = {"status": status, "assigned_agent": agent_id, "parent_task_id": parent_task_id}
        condition = AllOf(all=tuple(where(name) == value for name, value in given.items() if value is not None))
        return Page(*await self.in_thread(self._board.page, condition, limit, cursor))

    async def get_active_tasks(self, *, limit: int = LIMIT, cursor: str | None = None) -> Page:
        """The tasks that have not ended, the most urgent first."""
        return Page(*await self.in_thread(self._board.page, where("status").is_in(ACTIVE), limit, cursor))

    async def task_counts(self) -> dict[str, int]:
        """How many tasks there are in each state, and how many leases are over."""
        return await self.in_thread(self._board.counts)

    # -- agents ---------------------------------------------------------------------------------------------------

    async def register_agent(self, agent_data: Mapping[str, Any]) -> str:
        """Registers an agent, or says anew what is known of it; returns its id.

        Args:
            agent_data: `id` (or `agent_id`), and as it is known name, role, node_id, status, capabilities, endpoint,
                performance_score (0 to 10; without it, it is reckoned from the agent's work).
        """
        return await self.in_thread(self._crew.register, agent_data)

    async def heartbeat(self, agent_id: str, status: str | None = None, **fields: Any) -> bool:
        """Notes that an agent lives, and how it is: idle, busy, offline, error, or a word of its own.

        Raises:
            NotFound: it is not registered.
        """
        await self.in_thread(self._crew.heartbeat, agent_id, status, fields)
        return True

    async def unregister_agent(self, agent_id: str) -> bool:
        """Forgets an agent; False if it was not known. Its tasks go on to others when its leases are over."""
        return await self.in_thread(self._crew.unregister, agent_id)

    async def get_agent_info(self, agent_id: str) -> dict[str, Any] | None:
        """What is known of an agent: as it registered, when it was last heard of, and how its work went. Or None."""
        return await self.in_thread(self._crew.info, agent_id)

    async def get_agents(self, role: str | None = None, status: str | None = None) -> list[dict[str, Any]]:
        """The registered agents, by id; one that holds a lease is busy."""
        return await self.in_thread(self._crew.listed, role, status)

    async def get_available_agents(
        self, role: str | None = None, capabilities: Sequence[str] | None = None, *, stale_after_s: float = STALE_S
    ) -> list[dict[str, Any]]:
        """The agents that could begin something now, the best first.

        Args:
            role: of this role; None: of any.
            capabilities: which they must have.
            stale_after_s: seconds of silence after which one is not counted upon.
        """
        return await self.in_thread(self._crew.available, role, capabilities, stale_after_s)

    async def get_stale_agents(self, after_s: float = STALE_S) -> list[dict[str, Any]]:
        """The agents that were not heard of for so many seconds, the longest first."""
        return await self.in_thread(self._crew.stale, after_s)

    async def get_agent_performance_summary(self, *, stale_after_s: float = STALE_S) -> dict[str, Any]:
        """How all agents stand and how their work went: how many are idle, busy, silent; tasks done and failed."""
        return await self.in_thread(self._crew.summary, stale_after_s)

    # -- goals ----------------------------------------------------------------------------------------------------

    async def create_goal(self, goal: Mapping[str, Any]) -> str:
        """Adds a goal, and returns its id.

        Args:
            goal: `title`, and as it is wanted description, goal_type, priority (1 to 10), success_criteria, deadline,
                progress (0 to 1), parent_goal_id: what it is a part of.
        """
        return await self.in_thread(self._goals.create, goal)

    async def update_goal(self, goal_id: str, updates: Mapping[str, Any]) -> dict[str, Any]:
        """Changes fields of a goal, and returns it; ``{"status": "abandoned"}`` gives it up."""
        return await self.in_thread(self._goals.change, goal_id, updates)

    async def update_goal_progress(self, goal_id: str, progress: float) -> dict[str, Any]:
        """Says how far a goal is, from 0 to 1, which completes it; returns it."""
        return await self.in_thread(self._goals.change, goal_id, {"progress": progress})

    async def get_goal(self, goal_id: str) -> dict[str, Any] | None:
        """A goal with its `sub_goals`; while it is active and has some, its progress is their average. Or None."""
        return await self.in_thread(self._goals.get, goal_id)

    async def get_goals(
        self,
        status: str | None = "active",
        *,
        parent_goal_id: str | None = None,
        limit: int = LIMIT,
        cursor: str | None = None,
    ) -> Page:
        """Goals in a state (None: any), or parts of one, the most important first."""
        return Page(*await self.in_thread(self._goals.page, status, parent_goal_id, limit, cursor))

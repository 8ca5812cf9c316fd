"""The board that a commander's tasks stand on: who waits for what, who works on what, and that no two do.

Everything that decides about a task happens by compare-and-set on its row: of two agents that want the same task one
gets it. A lease that was not renewed in time goes to the next who asks, and from then on the old token ends nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, get_args

import msgspec

from holdfast import clock as clocks
from holdfast.agents.rows import Row, Rows
from holdfast.agents.shapes import folded_all
from holdfast.agents.tasks import (
    ACTIVE,
    CHANGED,
    GIVEN,
    WAITING,
    Status,
    after_failure,
    begun,
    checked_task,
    ended,
    is_over,
    put_back,
    queue_of,
    refuse_managed,
    renewed,
    shown,
)
from holdfast.errors import Conflict, NotFound, UsageError
from holdfast.log.drafts import new_id
from holdfast.query import AllOf, AnyOf, Condition, where

PAGE: Final = 16
MEND_MS: Final = 1000
"""So seldom somebody who finds nothing to do looks for tasks that wait for what is completed."""
_ORDER: Final = ("-priority", "created_at")
Task = dict[str, Any]
Change = Callable[[Task, int], Task]
"""What a change makes of a task, at a time in ms since 1970."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """How an agent's work went: tasks that it completed, and in how many seconds on average; that it failed or lost."""

    completed: int = 0
    failed: int = 0
    average_s: float | None = None


class Board:
    """The board that tasks stand on. Safe to share among threads and processes, and with shared rows among machines.

    Args:
        rows: where they lie.
        now_ms: the time that leases are measured by.
    """

    def __init__(self, rows: Rows, now_ms: Callable[[], int]) -> None:
        self._rows = rows
        self._now_ms = now_ms
        self._mended_ms = -MEND_MS

    # -- making -------------------------------------------------------------------------------------------------

    def create(self, task: Mapping[str, Any], by: str) -> str:
        """Puts a task on the board, and returns its id.

        Raises:
            NotFound: it depends on a task that is not there.
            UsageError: a field is not of its kind, or nothing that its creator says.
            Conflict: the id is another task's.
        """
        if not isinstance(task, Mapping):
            raise UsageError(f"a task is a dict, got {task!r:.80}", hint='such as {"title": "Find leads"}')
        refuse_managed(task, GIVEN)
        id, now_ms = str(task.get("id") or new_id("task")), self._now_ms()
        now = clocks.iso(now_ms)
        row = checked_task({"created_by": by, "created_at": now, **task, "id": id}, now_ms)
        if row["status"] not in WAITING or (row["status"] == "assigned") != ("assigned_agent" in row):
            hint = 'status "pending"; or "assigned", with assigned_agent'
            raise UsageError(f"a new task cannot be {row['status']} like this", hint=hint)
        if "assigned_agent" in row:
            row |= {"reserved_for": row["assigned_agent"], "assigned_at": now}
        for needed in row["depends_on"]:
            if needed == id:
                raise UsageError(f"task {id} would wait for itself", hint="leave it out of depends_on")
            self._there(needed)
        self._rows.put(id, checked_task({**row, "waits_for": self._open(row)}, now_ms), 0)
        self._look_again(id)
        return id

    def update(self, id: str, updates: Mapping[str, Any]) -> Task:
        """Changes what a task's creator said of it; what is decided otherwise cannot be set.

        Raises:
            NotFound: there is no such task.
            UsageError: a field that has a call of its own.
        """
        changed = {name: value for name, value in updates.items() if name != "id"}
        refuse_managed(changed, CHANGED)
        return self._change(id, lambda task, _: {**task, **changed})

    def add_dependency(self, id: str, needed: str) -> Task:
        """Has a task wait for another one.

        Raises:
            UsageError: the other one waits for this one already; nothing was changed.
            Conflict: it has begun.
            NotFound: one of them is not there.
        """
        self._there(needed)
        self._refuse_cycle(id, needed)

        def wait(task: Task, _: int) -> Task:
            if task["status"] not in WAITING:
                raise Conflict(f"task {id} is {task['status']}: it waits for nothing any more", hint="make a new one")
            more = {**task, "depends_on": list(dict.fromkeys([*task["depends_on"], needed]))}
            return {**more, "waits_for": self._open(more)}

        def unwait(task: Task, _: int) -> Task:
            less = {**task, "depends_on": [each for each in task["depends_on"] if each != needed]}
            return {**less, "waits_for": self._open(less)}

        made = self._change(id, wait)
        try:
            self._refuse_cycle(id, needed)  # somebody may have closed the circle at its other end meanwhile
        except UsageError:
            self._change(id, unwait)
            raise
        self._look_again(id)
        return made

    def assign(self, id: str, agent: str) -> Task:
        """Keeps a task for one agent: nobody else can claim it.

        Raises:
            Conflict: somebody works on it, or it has ended.
        """
        _check_agent(agent)

        def keep(task: Task, now_ms: int) -> Task:
            if task["status"] == "in_progress" and not is_over(task, now_ms):
                raise Conflict(f"task {id} is being worked on by {task['assigned_agent']}", hint="wait, or cancel_task")
            if task["status"] not in ACTIVE:
                raise Conflict(f"task {id} is {task['status']}", hint="retry_task puts it back on the board")
            done = ended(task, "lost", now_ms) if task["status"] == "in_progress" else task
            return {**put_back({**done, "reserved_for": agent}), "assigned_at": clocks.iso(now_ms)}

        return self._change(id, keep)

    def cancel(self, id: str, reason: str) -> Task:
        """Takes a task off the board; whoever works on it finds its lease lost."""

        def off(task: Task, now_ms: int) -> Task:
            if task["status"] in ("completed", "failed"):
                raise Conflict(f"task {id} is {task['status']} already", hint="nothing was changed")
            done = ended(task, "cancelled", now_ms) if task["status"] == "in_progress" else task
            return {**done, "status": "cancelled", "error": reason or None, "completed_at": clocks.iso(now_ms)}

        return self._change(id, off)

    def retry(self, id: str) -> Task:
        """Puts a task that failed or was cancelled back on the board, with all its attempts before it."""

        def back(task: Task, _: int) -> Task:
            if task["status"] not in ("failed", "cancelled"):
                raise Conflict(f"task {id} is {task['status']}", hint="only failed and cancelled ones are retried")
            return {**put_back(task), "attempts": 0, "error": None, "completed_at": None, "not_before": None}

        return self._change(id, back)

    def delete(self, id: str) -> bool:
        """Takes a task that has ended off the board for good; False if there is none.

        Raises:
            Conflict: it has not ended, or another one waits for it.
        """
        row = self._rows.get(str(id))
        if row is None:
            return False
        waits = self._rows.find(AllOf(all=(where("depends_on") == id, where("status").is_in(WAITING))), limit=1).rows
        if row.value["status"] in ACTIVE or waits:
            why = f"{waits[0].id} waits for it" if waits else f"it is {row.value['status']}"
            raise Conflict(f"task {id} cannot go: {why}", hint="cancel_task first")
        return self._rows.delete(row.id, row.version)

    # -- working ------------------------------------------------------------------------------------------------

    def claim(self, agent: str, lease_s: float, capabilities: Any = None) -> Task | None:
        """The most urgent task that can be begun, from now on this agent's; None if there is none.

        Args:
            agent: who will work on it.
            lease_s: seconds within which it is to be completed or renewed.
            capabilities: what the agent can do; tasks that need more are not given to it.
        """
        _check_agent(agent)
        seconds = _seconds(lease_s)
        able = set(folded_all(capabilities or ()))
        while True:
            beaten = False
            done: dict[str, bool] = {}
            for row in self._claimable(agent):
                if row.value.get("reserved_for") not in (None, agent):
                    continue  # the queue of "a/b" begins as that of "a" does
                if not able.issuperset(folded_all(row.value["capabilities"])):
                    continue
                if not all(self._is_done(needed, done) for needed in row.value["depends_on"]):
                    continue
                now_ms = self._now_ms()
                taken = checked_task(begun(row.value, agent, seconds, now_ms), now_ms)
                try:
                    self._rows.put(row.id, taken, row.version)
                except Conflict:
                    beaten = True
                    continue
                if taken["status"] == "in_progress":
                    return shown(taken)
            if not beaten and not self._mend():
                return None

    def renew(self, task: Mapping[str, Any], lease_s: float | None) -> Task:
        """Has a lease end later.

        Raises:
            Conflict: it is lost.
        """
        seconds = None if lease_s is None else _seconds(lease_s)

        def longer(found: Task, now_ms: int) -> Task:
            return renewed(found, found["lease"]["seconds"] if seconds is None else seconds, now_ms)

        return self._held(task, longer)

    def complete(self, task: Mapping[str, Any] | str, result: Any) -> Task:
        """Says that a task is done.

        Args:
            task: what `claim` returned; the id alone where nobody has claimed it.
            result: JSON values.

        Raises:
            Conflict: the lease is lost, somebody else works on it, or it has ended otherwise.
        """

        def done(found: Task, now_ms: int) -> Task:
            kept = ended(found, "completed", now_ms) if found["status"] == "in_progress" else found
            return {**kept, "status": "completed", "result": result, "error": None, "completed_at": clocks.iso(now_ms)}

        if isinstance(task, str):
            made = self._change(task, lambda found, now_ms: done(_unclaimed(found), now_ms))
        else:
            made = self._held(task, done, outcome="completed")
        self._free(str(made["id"]))
        return made

    def fail(self, task: Mapping[str, Any], error: str, retry: bool) -> Task:
        """Says that an attempt failed: the task waits a while and is tried again, until its attempts are used up.

        Args:
            task: what `claim` returned.
            error: why.
            retry: False: it is not tried again.

        Raises:
            Conflict: the lease is lost.
        """

        def failed(found: Task, now_ms: int) -> Task:
            return after_failure(found, "failed", str(error), now_ms, retry=retry)

        return self._held(task, failed, outcome="failed")

    def release(self, task: Mapping[str, Any]) -> Task:
        """Gives a task back as if it had not been claimed.

        Raises:
            Conflict: the lease is lost.
        """

        def back(found: Task, now_ms: int) -> Task:
            return {**put_back(ended(found, "released", now_ms)), "attempts": found["attempts"] - 1}

        return self._held(task, back)

    # -- looking ------------------------------------------------------------------------------------------------

    def get(self, id: str) -> Task | None:
        """A task, with None in fields without a value, and `waits_for`: tasks that must be completed before it."""
        row = self._rows.get(str(id))
        if row is None:
            return None
        return {**shown(row.value), "waits_for": self._open(row.value)}

    def page(self, condition: Condition, limit: int, cursor: str | None) -> tuple[list[Task], str | None]:
        """Tasks, the most urgent first, and where the next page begins."""
        found = self._rows.find(condition, order=_ORDER, limit=limit, after=cursor)
        return [shown(row.value) for row in found.rows], found.cursor

    def counts(self) -> dict[str, int]:
        """How many tasks there are in each state, and of those in work how many with a lease that is over."""
        found = dict.fromkeys(get_args(Status), 0)
        found |= {state: group.count for state, group in self._rows.sums("status").items() if state is not None}
        return found | {"lease_over": self._rows.count(where("lease.until") <= clocks.iso(self._now_ms()))}

    def in_work(self) -> dict[str, list[str]]:
        """By agent the ids of the tasks that it works on, under leases that are not over."""
        found: dict[str, list[str]] = {}
        for row in self._rows.each(where("lease.until") > clocks.iso(self._now_ms())):
            found.setdefault(row.value["lease"]["agent"], []).append(row.id)
        return found

    def records(self, agent: str | None = None) -> dict[str, Record]:
        """By agent how its work went: of one, or of all that have ended an attempt."""
        tests = [where("status") == "completed"] + ([] if agent is None else [where("assigned_agent") == agent])
        done = AllOf(all=tuple(tests))
        failed = where("failed_by").exists() if agent is None else where("failed_by") == agent
        ended = self._rows.sums("assigned_agent", of="duration_s", condition=done)
        broken = self._rows.sums("failed_by", condition=failed)
        return {
            each: Record(
                completed=ended[each].count if each in ended else 0,
                failed=broken[each].count if each in broken else 0,
                average_s=ended[each].avg if each in ended else None,
            )
            for each in ended | broken
            if each is not None and agent in (None, each)
        }

    # -- inside -------------------------------------------------------------------------------------------------

    def _there(self, id: str) -> Row:
        row = self._rows.get(str(id))
        if row is None:
            raise NotFound(f"there is no task {id!r:.80}", hint="create_task returns the id")
        return row

    def _change(self, id: str, change: Change) -> Task:
        while True:
            row, now_ms = self._there(id), self._now_ms()
            made = checked_task(change(row.value, now_ms), now_ms)
            try:
                self._rows.put(row.id, made, row.version)
            except Conflict:
                continue  # somebody was faster: the change is made to what he left
            return shown(made)

    def _held(self, task: Mapping[str, Any], change: Change, *, outcome: str = "") -> Task:
        """Changes a task that is claimed, if the claim still holds; what it has ended so before stays as it is."""
        if not isinstance(task, Mapping) or not isinstance(task.get("lease"), Mapping):
            raise UsageError(f"this shows no claim: {task!r:.80}", hint="give what claim_task returned")
        id, agent, token = str(task["id"]), task["lease"].get("agent"), task["lease"].get("token")

        def change_held(found: Task, now_ms: int) -> Task:
            lease = found.get("lease") or {}
            if (lease.get("agent"), lease.get("token")) == (agent, token):
                return change(found, now_ms)
            last = found["history"][-1] if found["history"] else {}
            if outcome and (last.get("agent"), last.get("token"), last.get("outcome")) == (agent, token, outcome):
                raise _Done(found)  # asked twice, since the first answer was lost on its way
            holder = lease.get("agent")
            raise Conflict(
                f"{agent} has lost its lease on task {id}: it is {found['status']}"
                + (f", by {holder}" if holder else ""),
                hint="drop what was done for it; whoever holds it now does it again",
                status=found["status"],
            )

        try:
            return self._change(id, change_held)
        except _Done as done:
            return shown(done.task)

    def _claimable(self, agent: str) -> Iterator[Row]:
        """Tasks that could be begun, or whose lease is over, the most urgent first."""
        now = clocks.iso(self._now_ms())
        ripe = AnyOf(any=(where("not_before") == None, where("not_before") <= now))  # noqa: E711 - a condition
        queues = [where("queue").starts(queue_of(whose)) & ripe for whose in (None, agent)]
        mine = AnyOf(any=(where("reserved_for") == None, where("reserved_for") == agent))  # noqa: E711
        over = sorted(self._pages((where("lease.until") <= now) & mine, "lease.until"), key=_urgency)
        return heapq.merge(over, *(self._pages(queue, "queue") for queue in queues), key=_urgency)

    def _pages(self, condition: Condition, order: str) -> Iterator[Row]:
        cursor = None
        while True:
            found = self._rows.find(condition, order=order, limit=PAGE, after=cursor)
            yield from found.rows
            cursor = found.cursor
            if cursor is None:
                return

    # Whoever completes a task frees what waited for it, and whoever has made one wait looks again behind its write:
    # one of both sees the other. What a crash leaves between the two is found by who has nothing else to do.

    def _free(self, done: str) -> None:
        """Puts those in the queue that waited for this last."""
        for row in self._rows.each(where("waits_for") == done):
            self._look_again(row.id)

    def _look_again(self, id: str) -> None:
        row = self._rows.get(id)
        if row is not None and self._open(row.value, "waits_for") != row.value["waits_for"]:
            self._change(id, lambda task, _: {**task, "waits_for": self._open(task, "waits_for")})

    def _mend(self) -> bool:
        """Whether something was waiting for what is completed already."""
        now_ms = self._now_ms()
        if 0 <= now_ms - self._mended_ms < MEND_MS:
            return False
        self._mended_ms = now_ms
        waited_for = self._rows.sums("waits_for", condition=where("waits_for").exists())
        late = [each for each in waited_for if self._is_done(str(each), {})]
        for each in late:
            self._free(str(each))
        return bool(late)

    def _open(self, task: Task, field: str = "depends_on") -> list[str]:
        """What of that is not completed."""
        return [each for each in task[field] if not self._is_done(each, {})]

    def _is_done(self, id: str, known: dict[str, bool]) -> bool:
        if id not in known:
            row = self._rows.get(id)
            known[id] = row is not None and row.value["status"] == "completed"
        return known[id]

    def _refuse_cycle(self, id: str, needed: str) -> None:
        seen, open_ends = {needed}, [needed]
        while open_ends:
            each = open_ends.pop()
            if each == str(id):
                raise UsageError(
                    f"task {needed} waits for {id}, so {id} cannot wait for {needed}", hint="nothing would ever begin"
                )
            row = self._rows.get(each)
            for further in row.value["depends_on"] if row is not None else ():
                if further not in seen:
                    seen.add(further)
                    open_ends.append(further)


class _Done(Exception):
    """The same claim has ended the task so before."""

    def __init__(self, task: Task) -> None:
        self.task = task


def _unclaimed(task: Task) -> Task:
    if task["status"] in WAITING:
        return task
    if task["status"] == "in_progress":
        raise Conflict(
            f"task {task['id']} is {task['lease']['agent']}'s, under a lease", hint="give what claim_task returned"
        )
    raise Conflict(f"task {task['id']} is {task['status']} already", hint="nothing was changed")


def _urgency(row: Row) -> tuple[int, str]:
    return -row.value["priority"], row.value["created_at"]


def _check_agent(agent: str) -> None:
    if not isinstance(agent, str) or not agent:
        raise UsageError(f"an agent needs a name, got {agent!r:.80}", hint="such as 'worker-1'")


def _seconds(given: float) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given <= clocks.LASTS_S_MAX:
        raise UsageError(f"no lease: {given!r:.80}", hint=f"seconds, more than 0, at most {clocks.LASTS_S_MAX:,}")
    return float(given)

"""`CommanderStorage`: its board, decided on one machine and by a hub; who does what, and what is noted down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from holdfast.agents import CommanderStorage
from holdfast.clock import iso
from holdfast.errors import Conflict, NotFound, UsageError
from holdfast.testing.clock import SettableClock

Two = tuple[CommanderStorage, CommanderStorage]


def run(call: Any) -> Any:
    return asyncio.run(call)


def created(storage: CommanderStorage, title: str, **fields: Any) -> str:
    made: str = run(storage.create_task({"title": title, **fields}))
    return made


def claimed(storage: CommanderStorage, agent: str, lease_s: float = 10, **options: Any) -> Any:
    return run(storage.claim_task(agent, lease_s, **options))


# -- the board ----------------------------------------------------------------------------------------------------


def test_the_most_urgent_comes_first_and_what_waits_comes_later(commanders: Two) -> None:
    one, other = commanders
    base = created(one, "base", priority=2)
    top = created(other, "top", priority=9, depends_on=[base])
    last = created(one, "last", priority=9, depends_on=[base, top])
    first = claimed(other, "w1")
    assert (first["id"], first["status"], first["assigned_agent"]) == (base, "in_progress", "w1")
    assert claimed(one, "w2") is None
    assert run(one.get_task(top))["waits_for"] == [base]
    run(one.complete_task(first, {"found": 3}))
    second = claimed(one, "w2")
    assert second["id"] == top
    assert claimed(other, "w3") is None
    run(other.complete_task(second))
    assert claimed(other, "w3")["id"] == last
    done = run(other.get_task(base))
    assert (done["status"], done["result"], done["lease"], done["waits_for"]) == ("completed", {"found": 3}, None, [])
    assert [task["id"] for task in run(one.get_active_tasks())] == [last]
    assert [task["id"] for task in run(one.get_tasks(status="completed"))] == [top, base]
    assert run(one.task_counts()) | {"completed": 2, "in_progress": 1} == run(one.task_counts())


def test_a_lease_that_is_over_goes_to_the_next_and_the_old_one_ends_nothing(
    commanders: Two, clock: SettableClock
) -> None:
    one, other = commanders
    id = created(one, "once", payload={"n": 1})
    stale = claimed(one, "w1", 10)
    clock.advance(6)
    stale = run(one.renew_lease(stale))
    clock.advance(6)
    assert claimed(other, "w2") is None
    clock.advance(6)
    fresh = claimed(other, "w2", 100)
    assert (fresh["id"], fresh["attempts"], fresh["payload"]) == (id, 2, {"n": 1})
    assert fresh["lease"]["token"] > stale["lease"]["token"]
    for late in (
        one.complete_task(stale, "late"),
        one.fail_task(stale, "late"),
        one.renew_lease(stale),
        one.release_task(stale),
        one.complete_task(id, "late"),
    ):
        with pytest.raises(Conflict):
            run(late)
    assert run(one.get_task(id))["lease"] == fresh["lease"]
    done = run(other.complete_task(fresh, "right"))
    assert run(other.complete_task(fresh, "right")) == done  # asked again, since the answer was lost
    with pytest.raises(Conflict, match="w1 has lost its lease"):
        run(one.complete_task(stale, "late"))
    found = run(one.get_task(id))
    assert (found["status"], found["result"]) == ("completed", "right")
    assert [(each["agent"], each["outcome"]) for each in found["history"]] == [("w1", "lost"), ("w2", "completed")]


def test_what_fails_is_tried_again_later_until_it_has_failed(commanders: Two, clock: SettableClock) -> None:
    one, other = commanders
    id = created(one, "fragile", max_attempts=3, retry_delay_s=10)
    for attempt, delay in ((1, 10), (2, 20)):
        task = claimed(one, "w1")
        assert task["attempts"] == attempt
        assert run(other.fail_task(task, f"broke {attempt}"))["status"] == "pending"
        clock.advance(delay - 1)
        assert claimed(one, "w1") is None
        clock.advance(3)
    run(one.fail_task(claimed(one, "w2"), "broke 3"))
    found = run(one.get_task(id))
    assert (found["status"], found["error"], claimed(one, "w1")) == ("failed", "broke 3", None)
    run(other.retry_task(id))
    given_up = run(one.fail_task(claimed(one, "w1"), "hopeless", retry=False))
    assert (given_up["status"], given_up["attempts"], len(given_up["history"])) == ("failed", 1, 4)


def test_a_task_that_kills_its_workers_fails_in_the_end(commanders: Two, clock: SettableClock) -> None:
    one, other = commanders
    id = created(one, "poison", max_attempts=2)
    for agent in ("w1", "w2"):
        assert claimed(one, agent, 5)["id"] == id
        clock.advance(7)
    assert run(one.task_counts())["lease_over"] == 1
    assert claimed(other, "w3") is None
    found = run(one.get_task(id))
    assert (found["status"], found["error"]) == ("failed", "w2 did not renew its lease")


def test_who_has_nothing_to_do_finds_what_a_crash_left_waiting(commanders: Two) -> None:
    """Whoever completes a task frees what waits for it; if he dies in between, somebody else does."""
    one, other = commanders
    needed = created(one, "needed")
    waits = created(one, "waits", depends_on=[needed])
    rows = one.table("tasks")
    row = rows.get(needed)
    assert row is not None
    rows.put(needed, {**row.value, "status": "completed", "queue": None}, row.version)
    assert claimed(other, "w1")["id"] == waits


def test_a_lease_is_renewed_while_somebody_works(opened: Callable[..., Any], clock: SettableClock) -> None:
    one, other = opened(CommanderStorage), opened(CommanderStorage)
    id = created(one, "long")

    async def until() -> str:
        found = await one.get_task(id)
        assert found is not None
        end: str = found["lease"]["until"]
        return end

    async def work() -> None:
        task = await one.claim_task("w1", 0.06)
        assert task is not None
        async with one.working_on(task):
            for _ in range(3):
                clock.advance(0.05)
                async with asyncio.timeout(30):
                    while await until() != iso(clock.now_ms() + 60):
                        pass
                assert await other.claim_task("w2") is None
        clock.advance(0.07)
        taken = await other.claim_task("w2", 60)
        assert taken is not None
        async with one.working_on(task):  # is lost, and what is done for it is refused at the end
            assert await until() > iso(clock.now_ms() + 59_000)
        with pytest.raises(Conflict):
            await one.complete_task(task)
        assert await other.complete_task(taken)

    run(work())


def test_no_circle_of_waiting_is_made(commanders: Two) -> None:
    one, other = commanders
    a, b, c = (created(one, name) for name in "abc")
    run(one.add_dependency(b, a))
    run(other.add_dependency(c, b))
    for task, needed in ((a, c), (a, b), (a, a)):
        with pytest.raises(UsageError, match="waits for"):
            run(other.add_dependency(task, needed))
    assert run(one.get_task(a))["depends_on"] == []
    with pytest.raises(UsageError, match="wait for itself"):
        created(one, "x", id="x", depends_on=["x"])
    with pytest.raises(NotFound):
        created(one, "x", depends_on=["nothing"])
    assert claimed(one, "w")["id"] == a
    with pytest.raises(Conflict, match="waits for nothing any more"):
        run(one.add_dependency(a, created(one, "late")))


def test_two_who_close_one_circle_at_both_ends_do_not(opened: Callable[..., Any]) -> None:
    """Whoever looks after both edges are there takes his own away: never both stay."""
    one, other = opened(CommanderStorage), opened(CommanderStorage)
    for _ in range(10):
        a, b = created(one, "a"), created(one, "b")

        async def both(a: str = a, b: str = b) -> None:
            await asyncio.gather(one.add_dependency(a, b), other.add_dependency(b, a), return_exceptions=True)

        run(both())
        edges = [run(one.get_task(a))["depends_on"], run(one.get_task(b))["depends_on"]]
        assert edges != [[b], [a]]


def test_a_task_may_be_kept_for_one_agent_and_need_what_not_everybody_can(
    commanders: Two, clock: SettableClock
) -> None:
    one, other = commanders
    kept, hard = created(one, "kept", priority=3), created(one, "hard", capabilities=["Search ", "E-Mail"])
    run(other.assign_task(kept, "w2"))
    assert claimed(one, "w1") is None
    run(one.register_agent({"agent_id": "w1", "name": "W", "role": "coder", "capabilities": ["search", "e-mail"]}))
    assert claimed(one, "w1")["id"] == hard
    task = claimed(other, "w2", 5, capabilities=["search"])
    assert task["id"] == kept
    with pytest.raises(Conflict, match="worked on by w2"):
        run(one.assign_task(kept, "w1"))
    assert run(one.release_task(task))["status"] == "assigned"
    assert claimed(one, "w1") is None
    claimed(other, "w2", 5)
    clock.advance(7)
    assert claimed(one, "w3") is None  # it is w2's, also when w2 is gone
    run(one.assign_task(kept, "w3"))
    assert claimed(one, "w3")["id"] == kept


def test_whose_name_begins_as_anothers_does_not_get_what_is_kept_for_that(commanders: Two) -> None:
    """A queue is found by how its places begin, and those of a/b begin as those of a do."""
    one, other = commanders
    kept, free = created(one, "kept", priority=9), created(one, "free", priority=1)
    run(one.assign_task(kept, "worker/blue"))
    assert claimed(other, "worker")["id"] == free
    assert claimed(one, "worker") is None
    assert claimed(other, "worker/blue")["id"] == kept


def test_who_is_cancelled_at_the_end_of_a_block_of_work_hears_of_it(
    opened: Callable[..., Any], clock: SettableClock
) -> None:
    """The block ends its own renewing by cancelling it; that must not swallow what was meant for whoever works."""
    one = opened(CommanderStorage)
    created(one, "long")

    async def work(done: asyncio.Event) -> None:
        task = await one.claim_task("w1", 60)
        assert task is not None
        async with one.working_on(task):
            done.set()
        while True:  # noqa: ASYNC110 - a worker that goes on with the next, until it is cancelled
            await asyncio.sleep(3600)

    async def cancelled_in_time() -> bool:
        done = asyncio.Event()
        worker = asyncio.ensure_future(work(done))
        await done.wait()  # the worker waits now for its renewing to end
        worker.cancel()
        await asyncio.wait((worker,), timeout=5)
        told = worker.cancelled()
        worker.cancel()
        await asyncio.wait((worker,))
        return told

    assert run(cancelled_in_time())


def test_who_works_on_what_is_cancelled_finds_out(commanders: Two) -> None:
    one, other = commanders
    id, next_one = created(one, "off"), created(one, "next", priority=1)
    run(other.add_dependency(next_one, id))
    task = claimed(one, "w1")
    run(other.cancel_task(id, "no longer wanted"))
    with pytest.raises(Conflict, match="cancelled"):
        run(one.complete_task(task))
    with pytest.raises(Conflict, match="waits for it"):
        run(one.delete_task(id))
    run(one.retry_task(id))
    run(one.complete_task(id, "by hand"))
    with pytest.raises(Conflict, match="completed already"):
        run(other.complete_task(id, "twice"))
    run(one.complete_task(claimed(other, "w1")))
    assert run(one.delete_task(id))
    assert not run(other.delete_task(id))
    assert run(other.get_task(id)) is None


def test_what_a_task_cannot_be_is_refused(commanders: Two) -> None:
    one, _ = commanders
    id = created(one, "plain", priority=5, mine={"kept": True})
    for task, named in (
        ({}, "title"),
        ({"title": ""}, "title"),
        ({"title": "x", "priority": 11}, "priority"),
        ({"title": "x", "priority": "high"}, "priority"),
        ({"title": "x", "depends_on": "t-1"}, "depends_on"),
        ({"title": "x", "lease": {"agent": "me"}}, "lease"),
        ({"title": "x", "attempts": 3}, "attempts"),
        ({"title": "x", "status": "completed"}, "completed"),
        ({"title": "x", "status": "assigned"}, "assigned"),
        ({"title": "x", "max_attempts": 0}, "max_attempts"),
    ):
        with pytest.raises(UsageError, match=named):
            run(one.create_task(task))
    with pytest.raises(Conflict):
        created(one, "again", id=id)
    with pytest.raises(UsageError) as caught:
        run(one.update_task(id, {"status": "completed"}))
    assert "complete_task" in caught.value.hint
    for lease_s in (0, -1, float("nan"), float("inf"), 1e12, 1e300):
        with pytest.raises(UsageError, match="no lease"):
            claimed(one, "w", lease_s)
    for no_claim in ({"id": id}, {"id": id, "lease": None}, None):
        with pytest.raises(UsageError, match="shows no claim"):
            run(one.complete_task(no_claim))  # type: ignore[arg-type]
    run(one.update_task(id, {"priority": 8, "title": "Plain"}))
    found = run(one.get_task(id))
    assert (found["priority"], found["title"], found["mine"], found["created_by"]) == (
        *(8, "Plain", {"kept": True}),
        "commander",
    )


def test_the_tables_calls_do_the_same(commanders: Two) -> None:
    """`write_data`, which the seed's stores are written through: what is decided about goes by its call."""
    one, _ = commanders
    assert run(one.write_data("tasks", {"id": "t-1", "title": "T"}))
    assert run(one.write_data("tasks", {"id": "t-1", "priority": 9}, "update"))
    assert run(one.get_task("t-1"))["priority"] == 9
    with pytest.raises(UsageError):
        run(one.write_data("tasks", {"id": "t-1", "status": "completed"}, "update"))
    run(one.write_data("agents", {"agent_id": "a-1", "role": "r"}))
    run(one.write_data("goals", {"id": "g-1", "title": "G"}))
    run(one.write_data("goals", {"id": "g-1", "progress": 0.5}, "update"))
    assert run(one.get_goal("g-1"))["progress"] == 0.5
    run(one.write_data("decisions", {"id": "d-1", "decision_type": "x"}))
    with pytest.raises(UsageError, match="no call"):
        run(one.write_data("poems", {"id": 1}))


# -- agents -------------------------------------------------------------------------------------------------------


def test_agents_register_live_work_and_fall_silent(commanders: Two, clock: SettableClock) -> None:
    one, other = commanders
    run(
        one.register_agent(
            {"agent_id": "r-1", "name": "Recruiter Alpha", "role": "recruiter", "capabilities": ["search"]}
        )
    )
    run(one.register_agent({"id": "c-1", "role": "coder", "endpoint": "http://10.0.0.50:8000"}))
    assert run(other.get_agent_info("nobody")) is None
    assert [agent["id"] for agent in run(other.get_available_agents())] == ["c-1", "r-1"]
    for number in range(2):
        created(one, f"t{number}")
        task = claimed(one, "r-1")
        clock.advance(4)
        run(one.complete_task(task))
    created(one, "t2")
    task = claimed(other, "c-1")
    assert [agent["id"] for agent in run(one.get_available_agents())] == ["r-1"]
    assert run(one.get_agents(status="busy"))[0]["current_task_id"] == task["id"]
    clock.advance(1)
    run(other.fail_task(task, "broke", retry=False))
    info = run(one.get_agent_info("r-1"))
    assert (info["name"], info["tasks_completed"], info["tasks_failed"]) == ("Recruiter Alpha", 2, 0)
    assert info["average_task_duration_s"] == pytest.approx(4, abs=0.5)
    assert run(one.get_agent_info("c-1"))["tasks_failed"] == 1
    assert [agent["id"] for agent in run(one.get_available_agents())] == ["r-1", "c-1"]  # the better one first
    assert [agent["id"] for agent in run(one.get_available_agents("coder"))] == ["c-1"]
    assert [agent["id"] for agent in run(one.get_available_agents(capabilities=["SEARCH"]))] == ["r-1"]
    clock.advance(400)
    run(one.heartbeat("c-1", "idle", node_id="n-7"))
    assert [agent["id"] for agent in run(one.get_available_agents())] == ["c-1"]
    assert [agent["id"] for agent in run(other.get_stale_agents())] == ["r-1"]
    summary = run(one.get_agent_performance_summary())
    assert {name: summary[name] for name in ("total_agents", "idle_agents", "stale_agents")} == {
        "total_agents": 2,
        "idle_agents": 1,
        "stale_agents": 1,
    }
    assert (summary["total_tasks_completed"], summary["total_tasks_failed"]) == (2, 1)
    assert run(one.unregister_agent("r-1"))
    with pytest.raises(NotFound):
        run(one.heartbeat("r-1"))


# -- goals --------------------------------------------------------------------------------------------------------


def test_goals_are_as_far_as_their_parts(commanders: Two) -> None:
    one, other = commanders
    top = run(one.create_goal({"title": "Ten leads a day", "priority": 9, "success_criteria": ["10 a day"]}))
    parts = [run(one.create_goal({"title": f"part {n}", "parent_goal_id": top})) for n in range(3)]
    run(other.update_goal_progress(parts[0], 1))
    run(other.update_goal_progress(parts[1], 0.5))
    assert run(one.get_goal(top))["progress"] == 0.5
    run(one.update_goal(parts[2], {"status": "abandoned"}))
    found = run(other.get_goal(top))
    assert (found["progress"], found["status"]) == (0.75, "active")
    assert [each["status"] for each in found["sub_goals"]] == ["completed", "active", "abandoned"]
    assert [goal["id"] for goal in run(one.get_goals())] == [top, parts[1]]
    assert len(run(one.get_goals(None, parent_goal_id=top))) == 3
    assert run(one.update_goal(top, {"status": "completed"}))["progress"] == 1.0
    for wrong in ({"progress": 1.5}, {"status": "lost"}, {"parent_goal_id": parts[0]}):
        with pytest.raises(UsageError):
            run(one.update_goal(top, wrong))
    with pytest.raises(NotFound):
        run(one.create_goal({"title": "x", "parent_goal_id": "nothing"}))


# -- what is noted down ---------------------------------------------------------------------------------------------


def test_decisions_are_found_by_kind_task_time_and_words(opened: Callable[..., Any], clock: SettableClock) -> None:
    commander = opened(CommanderStorage)
    first = run(
        commander.log_decision(
            {
                "decision_type": "task_delegation",
                "reasoning": "Highest performance score for this kind of task",
                "confidence_score": 0.92,
                "related_task_id": "t-1",
            }
        )
    )
    clock.advance(60)
    second = run(
        commander.log_decision({"decision_type": "scale-up", "reasoning": "High task load", "context": {"load": 0.95}})
    )
    assert [each["id"] for each in run(commander.get_decisions())] == [second, first]
    assert [each["id"] for each in run(commander.get_decisions("scale-up"))] == [second]
    assert [each["id"] for each in run(commander.get_decisions(related_task_id="t-1"))] == [first]
    assert [each["id"] for each in run(commander.get_decisions(since=clock.now_ms() / 1000))] == [second]
    assert [each["id"] for each in run(commander.search_decisions("TASK load"))] == [second]
    assert len(run(commander.search_decisions("task"))) == 2
    run(commander.record_decision_outcome(first, "success", outcome_quality=0.8))
    assert [each["id"] for each in run(commander.search_decisions("success"))] == [first]
    with pytest.raises(UsageError, match="confidence_score"):
        run(commander.log_decision({"decision_type": "x", "confidence_score": 7}))
    page = run(commander.get_decisions(limit=1))
    assert [each["id"] for each in run(commander.get_decisions(limit=1, cursor=page.cursor))] == [first]


def test_figures_add_up(opened: Callable[..., Any], clock: SettableClock) -> None:
    commander = opened(CommanderStorage)
    for number in range(101):
        run(commander.record_metric("latency", "claim", number, "ms", {"host": "a" if number % 2 else "b"}))
        clock.advance(1)
    (whole,) = run(commander.aggregate_metrics("claim"))
    assert (whole["count"], whole["min"], whole["max"], whole["avg"]) == (101, 0, 100, 50)
    assert (whole["p50"], whole["p95"], whole["p99"]) == (50, 95, 99)
    by_host = {each["by"]: each["count"] for each in run(commander.aggregate_metrics("claim", by="host"))}
    assert by_host == {"a": 50, "b": 51}
    late = clock.now_ms() / 1000 - 10
    assert len(run(commander.query_metrics("claim", since=late))) == 10
    assert len(run(commander.query_metrics("claim", until=late, tags={"host": "a"}))) == 45
    assert run(commander.aggregate_metrics("nothing")) == []
    with pytest.raises(UsageError, match="value"):
        run(commander.record_metric("latency", "claim", "fast"))


def test_messages_are_sent_and_communications_noted(opened: Callable[..., Any]) -> None:
    commander = opened(CommanderStorage)
    sent = run(commander.send_message("recruiter-1", {"action": "pause"}, "directive", task_id="t-1", priority="high"))
    (found,) = run(commander.get_inbox("recruiter-1"))
    assert (found["id"], found["from_agent"], found["message_type"]) == (sent, "commander", "directive")
    assert (found["content"], found["task_id"], found["priority"]) == ({"action": "pause"}, "t-1", "high")
    assert run(commander.get_inbox()) == []
    run(commander.record_comm({"from_agent": "a", "to_agent": "b", "message_type": "request", "content": "?"}))
    run(commander.record_comm({"from_agent": "b", "to_agent": "a", "message_type": "response", "content": "!"}))
    assert [each["content"] for each in run(commander.get_comms())] == ["!", "?"]
    assert [each["content"] for each in run(commander.get_comms(from_agent="a"))] == ["?"]


def test_shared_needs_a_hub(opened: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="a hub decides"):
        opened(CommanderStorage, shared=True)

"""Sixteen workers, threads and processes, on one board: every task is done once; what a killed one held goes on."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdfast.agents import CommanderStorage
from holdfast.clock import SYSTEM
from tests.agents import worker
from tests.flow.hubs import HubProcess, until
from tests.forks import Fork


def started(*words: Any) -> Fork:
    return Fork(worker.__file__, *map(str, words))


def all_work(journal: Path, processes: list[Fork]) -> list[list[str]]:
    """Lets them begin together, and waits until nothing is left; what they did."""

    def ready() -> bool:
        waiting = sum(what == "ready" for what, _, _ in worker.lines(journal))
        return waiting == len(processes) or any(process.poll() is not None for process in processes)

    until(ready, "all are ready")
    journal.with_suffix(".go").touch()
    assert [process.wait(120) for process in processes] == [0] * len(processes)
    return [line for line in worker.lines(journal) if line[0] != "ready"]


def run(call: Any) -> Any:
    return asyncio.run(call)


def test_sixteen_workers_do_every_task_once_though_one_is_killed(opened: Callable[..., Any], tmp_path: Path) -> None:
    commander: CommanderStorage = opened(CommanderStorage, clock=SYSTEM)
    journal = tmp_path / "journal"
    first = run(commander.create_task({"title": "the victim's", "priority": 10, "max_attempts": 2}))
    tasks = [first]
    for number in range(100):
        needs = [tasks[-1]] if number % 10 == 0 else []
        made = {"title": f"task {number}", "priority": 1 + number % 9, "depends_on": needs}
        tasks.append(run(commander.create_task(made)))
    victim = started("hold", tmp_path / "node", "victim", journal, 0.5)
    until(lambda: worker.lines(journal) or victim.poll() is not None, "the victim holds a task")
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    processes = [started("work", tmp_path / "node", f"p{number}", journal, 4) for number in range(4)]
    done = all_work(journal, processes)
    assert done[0] == ["held", first, "victim"]
    ran = Counter(task for what, task, _ in done if what == "ran")
    assert set(ran) == set(tasks)
    assert set(ran.values()) == {1}
    assert len({who for _, _, who in done}) > 4, "hardly anybody else had anything to do"
    found = run(commander.get_tasks())
    assert {task["status"] for task in found} == {"completed"}
    assert {task["id"]: task["result"] for task in found} == {task: who for what, task, who in done if what == "ran"}
    taken_over = next(task for task in found if task["id"] == first)
    assert [each["outcome"] for each in taken_over["history"]] == ["lost", "completed"]


def test_of_workers_on_two_machines_one_gets_each_task(
    opened: Callable[..., Any], one_hub: HubProcess, tmp_path: Path
) -> None:
    commander: CommanderStorage = opened(
        CommanderStorage, clock=SYSTEM, data_dir=tmp_path / "third", htpc_url=one_hub.url, shared=True
    )
    for row in list(commander.table("tasks").each()):
        commander.table("tasks").delete(row.id)
    tasks = {run(commander.create_task({"title": f"task {number}"})) for number in range(30)}
    journal = tmp_path / "journal"
    processes = [started("work", tmp_path / name, name, journal, 3, one_hub.url) for name in ("one", "other")]
    done = all_work(journal, processes)
    ran = Counter(task for _, task, _ in done)
    assert set(ran) == tasks
    assert set(ran.values()) == {1}
    assert len({who.split("-")[0] for _, _, who in done}) == 2

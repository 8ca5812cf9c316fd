"""The same work in other agents' stores, each at the same durability as ours."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from bench import material
from bench.harness import (
    Effort,
    Figures,
    Goal,
    Missing,
    Report,
    Scenario,
    Table,
    number,
    same,
    spread,
    take_turns,
    times,
    us,
)
from bench.neighbours.floor import Floor
from bench.neighbours.local import contest
from bench.processes import scratch

OURS, FLOOR = "holdfast", "floor"
PEERS = {
    "LangGraph SqliteSaver": ("langgraph", "Saver"),
    "LangGraph SqliteStore": ("langgraph", "Values"),
    "OpenAI Agents SQLiteSession": ("openai_agents", "Session"),
}
WRITES = {"basic": 1000, "critical": 300}
READS = 300
AGENTS, EACH = 64, 12
WORK = {"append": "append", "put": "put", "get": "get", "last": "last 100"}

Write = Callable[[int, int, dict[str, Any]], Awaitable[None]]
Plan = list[list[dict[str, Any]]]


def _opening(module: str, name: str) -> Callable[[Path, str], Any]:
    def opening(folder: Path, durability: str) -> Any:
        try:
            found = import_module(f"bench.neighbours.{module}")
        except ImportError as absent:
            raise Missing(f"not installed: {absent.name}") from absent
        return getattr(found, name)(folder, durability)

    return opening


async def crowd(plan: Plan, write: Write) -> tuple[float, list[float]]:
    """Many agents at once, each writing its messages one after the other: seconds in all, and of each write."""
    each: list[float] = []
    clock = time.perf_counter

    async def agent(me: int) -> None:
        for place, message in enumerate(plan[me]):
            before = clock()
            await write(me, place, message)
            each.append(clock() - before)

    before = clock()
    await asyncio.gather(*(agent(me) for me in range(len(plan))))
    return clock() - before, each


async def _one_log(folder: Path, durability: str, plan: Plan) -> tuple[float, list[float], Any]:
    """64 tasks of one agent: one log, a thread each."""
    from holdfast import AsyncStore

    async with AsyncStore(folder / "node", "agent", hub=[], level=durability) as store:

        async def write(agent: int, place: int, message: dict[str, Any]) -> None:
            await store.post(message, thread=f"agent-{agent}")

        took, each = await crowd(plan, write)
        read = [
            await store.messages(thread=f"agent-{agent}", agent="agent", limit=len(rows))
            for agent, rows in enumerate(plan)
        ]
    return took, each, [[message.body for message in rows] for rows in read]


async def _own_logs(folder: Path, durability: str, plan: Plan) -> tuple[float, list[float], Any]:
    """64 agents, a log each."""
    from holdfast import AsyncStore

    stores = [AsyncStore(folder / "node", f"agent-{agent}", hub=[], level=durability) for agent in range(len(plan))]
    for store in stores:
        await store.__aenter__()

    async def write(agent: int, place: int, message: dict[str, Any]) -> None:
        await stores[agent].post(message)

    took, each = await crowd(plan, write)
    read = [await store.messages(agent=store.agent, limit=len(plan[0])) for store in stores]
    for store in stores:
        await store.__aexit__(None, None, None)
    return took, each, [[message.body for message in rows] for rows in read]


async def _langgraph(folder: Path, durability: str, plan: Plan) -> tuple[float, list[float], Any]:
    try:
        from bench.neighbours.langgraph import agents
    except ImportError as absent:
        raise Missing(f"not installed: {absent.name}") from absent
    return await agents(folder, durability, plan)


CROWDS: dict[str, Callable[[Path, str, Plan], Any]] = {
    "holdfast, one log": _one_log,
    "holdfast, a log for each agent": _own_logs,
    "LangGraph AsyncSqliteSaver": _langgraph,
}


def _crowded(name: str, durability: str, each: int) -> Figures:
    plan = [[material.message(agent * each + place) for place in range(each)] for agent in range(AGENTS)]
    gc.collect()
    with scratch() as folder:
        took, one, read = asyncio.run(CROWDS[name](folder, durability, plan))
    same(read, plan, name)
    return {"rate": AGENTS * each / took} | spread("write", one)


def run(effort: Effort) -> Report:
    """Measures it."""
    report = Report()
    for durability in WRITES:
        _alone(durability, effort, report)
    for durability in WRITES:
        _together(durability, effort, report)
    report.notes.append(
        "Equal durability: basic is synchronous=NORMAL for everybody, critical is FULL, which is what LangGraph and "
        "the OpenAI SDK run with unless told otherwise. LangGraph's append is one checkpoint holding one message. "
        "What a store has no notion of is a dash."
    )
    return report


def _alone(durability: str, effort: Effort, report: Report) -> None:
    writes, reads = effort.count(WRITES[durability], 30), effort.count(READS, 20)
    openings = {FLOOR: Floor, OURS: _opening("node", "Node")} | {name: _opening(*at) for name, at in PEERS.items()}
    contestants = {name: partial(contest, opening, durability, writes, reads) for name, opening in openings.items()}
    turns = take_turns(contestants, effort)
    report.notes += turns.notes()
    table = Table(
        f"One caller, {durability}",
        ("store", *(f"{work}: × holdfast" for work in WORK.values()), *(f"{work} p50 µs" for work in WORK.values())),
    )
    for name in contestants:
        if turns.has(name):
            ratios = [times(turns.ratio(name, f"{figure}_p50", OURS)) for figure in WORK]
            table.rows.append((name, *ratios, *(us(turns.median(name, f"{figure}_p50")) for figure in WORK)))
    report.tables.append(table)
    for name in PEERS:
        for figure in ("append", "put"):
            if not turns.has(name):
                report.goals.append(Goal(f"{name}, {durability}", None, 1.0, "×", reason=turns.missing.get(name, "")))
                break
            ratio = turns.ratio(OURS, f"{figure}_p50", name)
            if ratio is not None:
                report.goals.append(Goal(f"{figure} over {name}'s, {durability}", ratio, 1.0, "×"))
    report.figures[f"alone {durability}"] = turns.given


def _together(durability: str, effort: Effort, report: Report) -> None:
    each = effort.count(EACH, 2)
    turns = take_turns({name: partial(_crowded, name, durability, each) for name in CROWDS}, effort)
    report.notes += turns.notes()
    table = Table(
        f"{AGENTS} asyncio agents in one process, {durability}",
        ("store", "rate: × LangGraph", "writes/s", "write p50 µs", "p99"),
    )
    for name in CROWDS:
        if turns.has(name):
            table.rows.append(
                (
                    name,
                    times(turns.ratio(name, "rate", "LangGraph AsyncSqliteSaver")),
                    number(turns.median(name, "rate")),
                    us(turns.median(name, "write_p50"), 0),
                    us(turns.median(name, "write_p99"), 0),
                )
            )
    report.tables.append(table)
    ratio = turns.ratio("holdfast, one log", "rate", "LangGraph AsyncSqliteSaver")
    reason = "; ".join(turns.missing.values())
    report.goals.append(
        Goal(
            f"{AGENTS} asyncio agents over AsyncSqliteSaver, {durability}",
            ratio,
            1.0,
            "×",
            at_least=True,
            reason=reason,
        )
    )
    report.figures[f"together {durability}"] = turns.given


SCENARIO = Scenario("peers", "The same work in other agents' stores", run)

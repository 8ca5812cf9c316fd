"""A chat through LangGraph: what a step costs to keep, the newest state to read, and a conversation on the disk."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bench.harness import Effort, Figures, Goal, Report, Scenario, Table, Wrong, ms, number, quantile, take_turns
from bench.neighbours.local import DURABILITY
from bench.processes import scratch

TURNS = 200
READS = 200
COLD = 15
SIZE_MOST_MB = 1.0
GROWTH_MOST = 2.5
THREAD: Any = {"configurable": {"thread_id": "t"}}
OURS = "Holdfast"
THEIRS = "LangGraph SqliteSaver"


@contextmanager
def ours(folder: Path, durability: str) -> Iterator[tuple[Any, Path]]:
    """Our saver on a node, and the file that it writes."""
    from holdfast import Store
    from holdfast.integrations.langgraph import HoldfastSaver

    with Store(folder / "node", "graph", hub=[], level=durability) as store:
        yield HoldfastSaver(store), folder / "node" / "agents" / "graph" / "log.db"


@contextmanager
def theirs(folder: Path, durability: str) -> Iterator[tuple[Any, Path]]:
    """Theirs, at the same durability."""
    from langgraph.checkpoint.sqlite import SqliteSaver

    connection = sqlite3.connect(folder / "saver.db", check_same_thread=False)
    saver = SqliteSaver(connection)
    saver.setup()
    connection.execute("PRAGMA synchronous=" + ("FULL" if durability == "critical" else "NORMAL"))
    yield saver, folder / "saver.db"
    connection.close()


def chat(saver: Any) -> Any:
    """A graph of one node that answers."""
    from typing import Annotated, TypedDict

    from langchain_core.messages import AIMessage
    from langgraph.graph import END, START, StateGraph
    from langgraph.graph.message import add_messages

    state = TypedDict("Chat", {"messages": Annotated[list, add_messages]})  # noqa: UP013 - names of this function

    def answer(given: Any) -> Any:
        return {"messages": [AIMessage(f"answer {said(len(given['messages']))}")]}

    graph = StateGraph(state)
    graph.add_node("n", answer)
    graph.add_edge(START, "n")
    graph.add_edge("n", END)
    return graph.compile(checkpointer=saver)


def said(turn: int) -> str:
    """Half a kilobyte."""
    return "".join(hashlib.sha256(f"{turn} {part}".encode()).hexdigest() for part in range(8))


def converse(place: Any, durability: str, turns: int) -> Figures:
    """One conversation: every `put` of it is clocked, then the newest state is read, as a program that goes on does it
    and as one that has just started does.
    """
    puts: list[float] = []
    with scratch() as folder:
        with place(folder, durability) as (saver, file):
            inner = saver.put

            def clocked(*given: Any) -> Any:
                at = time.perf_counter()
                found = inner(*given)
                puts.append(time.perf_counter() - at)
                return found

            saver.put = clocked
            app = chat(saver)
            for turn in range(turns):
                app.invoke({"messages": [("user", f"question {said(-turn)}")]}, THREAD)
            reads = _clock(lambda: saver.get_tuple(THREAD), READS, 2 * turns)
        cold = []
        for _ in range(COLD):
            with place(folder, durability) as (saver, file):
                cold += _clock(partial(saver.get_tuple, THREAD), 1, 2 * turns)
        size = file.stat().st_size
    return {
        "put_p50": quantile(puts, 0.5),
        "put_p99": quantile(puts, 0.99),
        "read_p50": quantile(reads, 0.5),
        "cold_p50": quantile(cold, 0.5),
        "bytes": float(size),
    }


def _clock(call: Any, times: int, count: int) -> list[float]:
    out = []
    for _ in range(times):
        at = time.perf_counter()
        found = call()
        out.append(time.perf_counter() - at)
        if len(found.checkpoint["channel_values"]["messages"]) != count:
            raise Wrong("not the whole conversation came back")
    return out


def run(effort: Effort) -> Report:
    """Measures it."""
    report = Report()
    turns = effort.count(TURNS, 8)
    figures = {}
    for durability in ("basic", "critical"):
        contest = {
            name: partial(converse, place, durability, turns) for name, place in ((OURS, ours), (THEIRS, theirs))
        }
        found = take_turns(contest, effort)
        figures[durability] = found.given
        report.notes += found.notes()
        columns = ("put, p50 ms", "put, p99 ms", "newest state, p50 ms", "the same, just started, p50 ms", "MB")
        table = Table(f"A conversation of {turns} turns that survives {DURABILITY[durability]}", ("", *columns))
        for name in contest:
            late = [ms(found.median(name, each), 3) for each in ("put_p50", "put_p99", "read_p50", "cold_p50")]
            size = found.median(name, "bytes")
            table.rows.append((name, *late, number(size and size / 1e6, 2)))
        report.tables.append(table)
        reason = found.missing.get(OURS, "") or found.missing.get(THEIRS, "")
        for figure, what in (("put_p50", "put"), ("read_p50", "newest state")):
            ratio = found.ratio(OURS, figure, THEIRS)
            report.goals.append(Goal(f"{what}, {durability}: our time to theirs", ratio, 1.0, reason=reason))
    parts = {str(part): partial(converse, ours, "basic", part) for part in (turns // 4, turns // 2, turns)}
    grown = take_turns(parts, effort, 1)
    quarter, half, whole = (grown.median(part, "bytes") for part in parts)
    reason = next(iter(grown.missing.values()), "")
    size = whole and whole / 1e6
    report.goals.append(Goal(f"{turns} turns on the disk", size, SIZE_MOST_MB, " MB", reason=reason))
    growth = (whole - half) / max(1.0, half - quarter) if quarter and half and whole else None
    what = "bytes of the second half to those of the second quarter"
    report.goals.append(Goal(what, growth, GROWTH_MOST, reason=reason))
    report.notes += grown.notes()
    report.figures = figures
    return report


SCENARIO = Scenario("graphs", "LangGraph's checkpoints", run)

"""What a hub costs: memory and CPU when idle, under usual and busy agents, and with many subscribers."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from bench import material
from bench.harness import Effort, Figures, Goal, Report, Scenario, Table, Wrong, ms, number, quantile, same, take_turns
from bench.neighbours.holdfast_hub import Server
from bench.neighbours.served import Plan
from bench.processes import Process, child, compiled, scratch

SECONDS = 10.0
ROUNDS = 3
AGENTS = 10
SUBSCRIBERS = 100
MEMORY_MOST, CPU_MOST, LATE_MOST = 50.0, 5.0, 15.0
IDLE = "idle, 2 subscribers"
USUAL = "10 agents × 2 messages/s"
BUSY = "10 agents × 20 messages/s"
CROWD = f"1,000 messages/s to {SUBSCRIBERS} subscribers"
CROWDS = {f"{CROWD}, one agent": 1, f"{CROWD}, ten agents": AGENTS}


def idle(seconds: float) -> Figures:
    """Nobody writes; two follow."""
    with scratch() as folder, Server(folder, {}) as hub, ExitStack() as stack:
        for number_ in range(2):
            _follow(stack, folder, hub, f"idle-{number_}")
        time.sleep(0.5)
        before = hub.process.cpu()
        time.sleep(seconds)
        return _costs(hub, before, seconds)


def working(rate: float, seconds: float) -> Figures:
    """Ten agents, each on a machine of its own; two follow, somebody looks at a page every second."""
    plan = Plan(rate=rate, seconds=seconds, agents=AGENTS, nodes=AGENTS)
    with scratch() as folder, Server(folder, {}) as hub, ExitStack() as stack:
        reader = _follow(stack, folder, hub, "reader", each=True)
        _follow(stack, folder, hub, "second")
        writer = _writer(stack, folder, hub, plan)
        before, began = hub.process.cpu(), time.monotonic()
        writer.tell()
        pages = _look(hub.address, seconds)
        told = writer.answer(seconds * 3 + 60)
        figures = _costs(hub, before, time.monotonic() - began)
        late = [each / 1e9 for each in reader.answer()["late_ns"]]
    if len(late) != told["written"] or not pages:
        raise Wrong(f"{told['written']} written, {len(late)} seen, {pages} pages")
    return figures | {"p50": quantile(late, 0.5), "p99": quantile(late, 0.99), "written": told["written"] / plan.count}


def crowd(plan: Plan, subscribers: int = SUBSCRIBERS) -> Figures:
    """Many follow everything; each is sent every body."""
    sink = compiled("sink")
    with scratch() as folder, Server(folder, {}) as hub, ExitStack() as stack:
        copy = folder / "copy"
        words = [str(urlsplit(hub.address).port), str(subscribers), str(plan.count), str(copy)]
        followers = stack.enter_context(Process([sink, *words], folder, log="sink.log"))
        if followers.line() != "ready":
            raise Wrong("the subscribers were not answered")
        writer = _writer(stack, folder, hub, plan)
        before, began = hub.process.cpu(), time.monotonic()
        writer.tell()
        told = writer.answer(plan.seconds * 3 + 60)
        figures = _costs(hub, before, time.monotonic() - began)
        seen = followers.answer(60)
        _compare(copy, plan.count)
    if seen["differing"] or seen["doubled"] or seen["deliveries"] != subscribers * plan.count:
        raise Wrong(f"{told['written']} written to {subscribers}: {seen}")
    return figures | {"p50": seen["p50_us"] / 1e6, "p99": seen["p99_us"] / 1e6, "written": told["written"] / plan.count}


def _compare(copy: Path, count: int) -> None:
    """One subscriber's bodies against what was written; that the others were sent the same bytes is known by then."""
    found = [json.loads(line)["value"] for line in copy.read_text("utf-8").splitlines()]
    same(len(found), count, "bodies that a subscriber was sent")
    for value in found:
        value.pop("t0")
        same(value, material.message(value["n"]), "a body in the feed")


def _follow(stack: ExitStack, folder: Path, hub: Server, name: str, each: bool = False) -> Process:
    given = {"hub": "holdfast_hub", "address": hub.address, "folder": str(folder / name), "each": each}
    reader = stack.enter_context(child("read", folder, **given))
    reader.answer()
    reader.tell()
    return reader


def _writer(stack: ExitStack, folder: Path, hub: Server, plan: Plan) -> Process:
    given = {"hub": "holdfast_hub", "address": hub.address, "folder": str(folder / "writer")}
    writer = stack.enter_context(child("write", folder, **given, plan=msgspec.to_builtins(plan)))
    writer.answer()
    return writer


def _look(address: str, seconds: float) -> int:
    """Reads a page every second, as somebody who watches does."""
    connection = HTTPConnection(urlsplit(address).netloc)
    end, pages = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        connection.request("GET", "/v1/records?limit=100&order=desc")
        answer = connection.getresponse()
        answer.read()
        pages += answer.status == 200
        time.sleep(min(1.0, max(0.0, end - time.monotonic())))
    connection.close()
    return pages


def _costs(hub: Server, before: float, seconds: float) -> Figures:
    process = hub.process
    cpu = (process.cpu() - before) / seconds * 100
    return {"cpu": cpu, "memory": process.resident(), "peak": process.memory(peak=True)}


def run(effort: Effort) -> Report:
    """Measures it."""
    report = Report()
    seconds = max(1.0, SECONDS * min(1.0, effort.scale * 2))
    modes = {
        IDLE: partial(idle, seconds / 2),
        USUAL: partial(working, 2.0 * AGENTS, seconds),
        BUSY: partial(working, 20.0 * AGENTS, seconds),
    }
    for name, agents in CROWDS.items():
        modes[name] = partial(crowd, Plan(rate=1000, seconds=max(1.0, seconds * 0.4), agents=agents))
    turns = take_turns(modes, effort, effort.turns(ROUNDS))
    report.notes += turns.notes()
    columns = ("CPU, % of one core", "MiB resident", "MiB at most", "visible p50 ms", "p99 ms")
    table = Table("", ("mode", *columns))
    for mode in modes:
        if turns.has(mode):
            costs = [number(turns.median(mode, figure), 1) for figure in ("cpu", "memory", "peak")]
            table.rows.append((mode, *costs, *(ms(turns.median(mode, figure)) for figure in ("p50", "p99"))))
        reason = turns.missing.get(mode, "")
        report.goals.append(
            Goal(f"hub's memory, {mode}", turns.median(mode, "peak"), MEMORY_MOST, " MiB", reason=reason)
        )
    report.tables.append(table)
    reason = turns.missing.get(USUAL, "")
    report.goals.append(
        Goal(f"hub's CPU of one core, {USUAL}", turns.median(USUAL, "cpu"), CPU_MOST, " %", reason=reason)
    )
    for name in CROWDS:
        late, reason = turns.median(name, "p99"), turns.missing.get(name, "")
        report.goals.append(Goal(f"visible p99, {name}", late and late * 1e3, LATE_MOST, " ms", reason=reason))
    report.notes.append(
        "The agents write with `Store.put`, each on a node of its own (in the last two rows: all on one node); two "
        "readers on further nodes follow the feed, and somebody reads a page of 100 records every second. The 100 "
        "subscribers are one small C program; each is sent every body, all must be sent the same bytes, and one's are "
        "compared with what was written. Memory while a node catches up is in the scenario of that name."
    )
    report.figures = turns.given
    return report


SCENARIO = Scenario("hub", "What a hub costs", run)

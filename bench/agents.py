"""Ten agents' processes on one node at a thousand calls a second each, and a search among a million candidates."""

from __future__ import annotations

import asyncio
import random
import time
from functools import partial
from typing import Any

from bench.child import begin, say
from bench.harness import Effort, Figures, Goal, Report, Scenario, Table, Wrong, ms, number, quantile, take_turns
from bench.processes import child, scratch

AGENTS = 10
RATE = 1_000
SECONDS = 60
KEYS = 500
SETS = 0.5
PATIENCE_S = 120.0

CANDIDATES = 1_000_000
LOT = 500
ASKED = 300
LIMIT = 50
LATE_MOST = 50.0
SKILLS = ("Python", "SQL", "Rust", "Go", "Java", "C++", "Django", "React", "Kubernetes", "Terraform", "Spark", "Kafka")
RARE = tuple(f"niche-{n}" for n in range(2_000))


# -- ten agents ------------------------------------------------------------------------------------------------------


def play(plan: dict[str, Any]) -> None:
    """One agent: sets and gets keys at its rate, and says what became of it. A role of `bench.child`."""
    from holdfast.agents import AgentStorage

    name, rate, seconds = plan["name"], plan["rate"], plan["seconds"]
    rng = random.Random(plan["seed"])
    setting: list[float] = []
    getting: list[float] = []
    last: dict[str, int] = {}
    errors = behind = 0
    with AgentStorage(name, plan["folder"], enable_htpc=False) as storage:
        begin()
        first = time.perf_counter()
        for turn in range(rate * seconds):
            due = first + turn / rate
            wait = due - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            elif wait < -1.0:
                behind += 1
            key = f"key-{rng.randrange(KEYS)}"
            at = time.perf_counter()
            try:
                if rng.random() < SETS or key not in last:
                    storage.set(key, {"turn": turn, "note": "x" * 100})
                    setting.append(time.perf_counter() - at)
                    last[key] = turn
                elif storage.get(key)["turn"] != last[key]:
                    raise Wrong(f"{name}: {key} is not what was set last")
                else:
                    getting.append(time.perf_counter() - at)
            except OSError:
                errors += 1
        took = time.perf_counter() - first
        lost = sum(storage.get(key, {}).get("turn") != turn for key, turn in last.items())
        lost += len(setting) - sum(storage.store.history(key, limit=1)[0].version for key in last)
    say(
        set_p50=quantile(setting, 0.5),
        set_p99=quantile(setting, 0.99),
        get_p99=quantile(getting, 0.99),
        rate=(len(setting) + len(getting)) / took,
        errors=errors,
        lost=lost,
        behind=behind,
    )


def crowd(seconds: int) -> Figures:
    """Ten of them at once, in processes of their own, on one node directory."""
    with scratch() as folder:
        plans = [
            {"name": f"agent-{n}", "seed": n, "folder": str(folder / "node"), "rate": RATE, "seconds": seconds}
            for n in range(AGENTS)
        ]
        agents = []
        try:
            for n, plan in enumerate(plans):
                logs = folder / str(n)
                logs.mkdir()
                agents.append(child("play", logs, **plan))
            for each in agents:
                each.line(PATIENCE_S)
            for each in agents:
                each.tell()
            told = [each.answer(seconds * 3 + PATIENCE_S) for each in agents]
        finally:
            for each in agents:
                each.stop()
    worst = {name: max(each[name] for each in told) for name in ("set_p50", "set_p99", "get_p99")}
    return worst | {
        "rate": min(each["rate"] for each in told),
        "errors": sum(each["errors"] for each in told),
        "lost": sum(each["lost"] for each in told),
        "behind": sum(each["behind"] for each in told),
    }


# -- a million candidates ----------------------------------------------------------------------------------------------


def candidate(n: int) -> dict[str, Any]:
    """The candidate with this number."""
    rng = random.Random(n)
    skills = rng.sample(SKILLS, rng.randrange(1, 5))
    if rng.random() < 0.02:
        skills.append(rng.choice(RARE))
    return {
        "id": f"c-{n:07d}",
        "name": f"Candidate {n}",
        "email": f"c{n}@example.com",
        "skills": skills,
        "experience_years": rng.randrange(0, 31),
        "location": rng.choice(("Oslo", "Lima", "Pune", "Kyiv")),
    }


QUESTIONS = {
    "one common skill": lambda rng: ([rng.choice(SKILLS)], rng.randrange(0, 15)),
    "two common skills": lambda rng: (rng.sample(SKILLS, 2), rng.randrange(0, 15)),
    "a rare skill": lambda rng: ([rng.choice(RARE)], rng.randrange(0, 15)),
    "a rare and a common one": lambda rng: ([rng.choice(RARE), rng.choice(SKILLS)], rng.randrange(0, 15)),
    "five years, no skill": lambda rng: (None, rng.randrange(5, 25)),
}


def search(count: int, asked: int) -> Figures:
    """Fills a recruiter's store, and searches it."""
    return asyncio.run(_search(count, asked))


async def _search(count: int, asked: int) -> Figures:
    from holdfast.agents import RecruiterAgentStorage

    figures: Figures = {}
    with scratch() as folder:
        storage = RecruiterAgentStorage(folder / "node", enable_htpc=False, level="basic")
        try:
            await storage.search_candidates(["Python"])  # says what is indexed
            began = time.perf_counter()
            for first in range(0, count, LOT):
                lot = range(first, min(count, first + LOT))
                await storage.batch_write([{"table": "candidates", "data": candidate(n)} for n in lot])
            figures["fill_rate"] = count / (time.perf_counter() - began)
            began = time.perf_counter()
            await storage.search_candidates(["Python"])
            figures["first"] = time.perf_counter() - began
            rng = random.Random(7)
            for name, ask in QUESTIONS.items():
                late = []
                for _ in range(asked):
                    skills, years = ask(rng)
                    at = time.perf_counter()
                    found = await storage.search_candidates(skills, min_experience=years, limit=LIMIT)
                    late.append(time.perf_counter() - at)
                    for each in found:
                        if each["experience_years"] < years or not {*(skills or ())} <= {*each["skills"]}:
                            raise Wrong(f"{skills} and {years} years: {each}")
                figures |= {f"{name}_p50": quantile(late, 0.5), f"{name}_p99": quantile(late, 0.99)}
        finally:
            await storage.close()
    return figures


# -- the page ----------------------------------------------------------------------------------------------------------


def run(effort: Effort) -> Report:
    """Measures it."""
    report = Report()
    seconds = effort.count(SECONDS, 5)
    count, asked = effort.count(CANDIDATES, 5_000), effort.count(ASKED, 30)
    crowded = take_turns({"ten agents": partial(crowd, seconds)}, effort, 1)
    searched = take_turns({"recruiter": partial(search, count, asked)}, effort, 1)
    report.notes += [*crowded.notes(), *searched.notes()]
    if crowded.has("ten agents"):
        figure = partial(crowded.median, "ten agents")
        table = Table(
            f"{AGENTS} processes on one node, {RATE:,} calls a second each for {seconds} s (the slowest of them)",
            ("calls a second", "set, p50 ms", "set, p99 ms", "get, p99 ms", "errors", "lost", "calls a second late"),
        )
        late = [ms(figure(f"{name}"), 3) for name in ("set_p50", "set_p99", "get_p99")]
        counts = [number(figure(name)) for name in ("errors", "lost", "behind")]
        table.rows.append((number(figure("rate")), *late, *counts))
        report.tables.append(table)
    for name, limit in (("errors", 0.0), ("lost", 0.0)):
        reason = crowded.missing.get("ten agents", "")
        report.goals.append(Goal(f"ten agents: {name}", crowded.median("ten agents", name), limit, reason=reason))
    rate = crowded.median("ten agents", "rate")
    share = rate and rate / RATE
    reason = crowded.missing.get("ten agents", "")
    report.goals.append(Goal("ten agents: of the rate that was asked for", share, 0.99, at_least=True, reason=reason))
    table = Table(f"Search among {count:,} candidates on a node", ("question", "p50 ms", "p99 ms"))
    for name in QUESTIONS:
        figures = [searched.median("recruiter", f"{name}_{part}") for part in ("p50", "p99")]
        table.rows.append((name, *map(ms, figures)))
        reason = searched.missing.get("recruiter", "")
        late_ms = figures[1] and figures[1] * 1e3
        report.goals.append(Goal(f"p99 among {count:,}: {name}", late_ms, LATE_MOST, " ms", reason=reason))
    report.tables.append(table)
    if searched.has("recruiter"):
        fill, first = (searched.median("recruiter", name) for name in ("fill_rate", "first"))
        report.notes.append(
            f"Added in batches of {LOT} at {number(fill)} candidates a second; the first search, which waits for the "
            f"index, took {number(first, 1)} s."
        )
    report.figures = {"crowd": crowded.given, "search": searched.given}
    return report


SCENARIO = Scenario("agents", "Agents' stores", run)

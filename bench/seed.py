"""The figures that the systems before this one promised, each to be beaten by ten."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from bench import material
from bench.harness import Effort, Figures, Goal, Report, Scenario, Table, Wrong, ms, same, spread, take_turns, times
from bench.neighbours.holdfast_hub import Server
from bench.neighbours.local import LocalStore, clocked
from bench.processes import PATIENCE_S, scratch

PROMISED_S = {
    "local read": 1e-3,
    "local write": 10e-3,
    "hub insert": 5e-3,
    "dual write": 200e-3,
    "network query": 100e-3,
}
MEANS = {
    "local read": "`Store.get`",
    "local write": "`Store.put`",
    "hub insert": "`POST /relay/immediate`, the round trip included, synced",
    "dual write": "`Store.put` and `Store.flush`: here and in the hub, synced in both",
    "network query": "`GET /query/messages`, the agent's newest 100",
}
TIMES_LEAST = 10.0
COUNT = 300
PAGE = 100


class _Plain(LocalStore):
    def close(self) -> None:
        """Nothing to end."""


class Seed:
    """A node and a hub, and the seeds' calls."""

    def __init__(self, folder: Path, address: str) -> None:
        from holdfast import Store

        self._store = Store(folder / "node", "seed-agent", hub=address)
        self._connection = HTTPConnection(urlsplit(address).netloc, timeout=PATIENCE_S)
        self._wrote = 0
        self._asked: list[Any] = []

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One request on a connection that stays open."""
        data = None if body is None else json.dumps(body)
        self._connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise Wrong(f"{method} {path}: {answer.status} {text[:200]!r}")
        return json.loads(text)

    def calls(self) -> dict[str, Callable[[int], Any]]:
        """What is measured, by name."""
        query = urlencode({"agent": "plain-agent", "limit": PAGE})

        def relay(number: int) -> Any:
            data = {"id": f"{self._wrote}-{number}", **material.state(number)}
            words = {"agent_id": "plain-agent", "table": "steps", "operation": "insert", "data": data}
            return self.ask("POST", "/relay/immediate", words)

        def dual(number: int) -> Any:
            self._store.put(f"dual-{number % 100}", material.state(number))
            if not self._store.flush(PATIENCE_S):
                raise Wrong("the hub did not acknowledge a write")

        return {
            "local write": lambda number: self._store.put(f"key-{number % 100}", material.state(number)),
            "local read": lambda number: self._store.get(f"key-{number % 100}"),
            "hub insert": relay,
            "dual write": dual,
            "network query": lambda _: self.ask("GET", f"/query/messages?{query}"),
        }

    def prepare(self) -> None:
        """The messages that are asked for."""
        words = [
            {"msg_id": f"seed-{number}", "sender": "plain-agent", "content": material.message(number)}
            for number in range(PAGE)
        ]
        self.ask("POST", "/sync/messages", {"messages": words})
        self._asked = [each["content"] for each in reversed(words)]
        if not self._store.flush(PATIENCE_S):
            raise Wrong("the hub takes nothing")

    def turn(self, count: int) -> Figures:
        """Each call `count` times; then what they read is compared."""
        figures: Figures = {}
        plain = _Plain()
        self._wrote += 1
        got: dict[str, list[Any]] = {}
        for name, call in self.calls().items():
            clocked(plain, call, max(3, count // 20))
            took, got[name] = clocked(plain, call, count)
            figures |= spread(name, took)
        newest = {number % 100: material.state(number) for number in range(count)}
        for number, value in enumerate(got["local read"]):
            same(value, newest[number % 100], "a value read here")
        for answer in got["network query"]:
            same([each["content"] for each in answer["messages"]], self._asked, "messages in a query")
        return figures

    def close(self) -> None:
        """Ends it."""
        self._connection.close()
        self._store.close()


def run(effort: Effort) -> Report:
    """Measures it."""
    report = Report()
    count = effort.count(COUNT, 20)
    with scratch() as folder, Server(folder, {}) as hub:
        seed = Seed(folder, hub.address)
        try:
            seed.prepare()
            turns = take_turns({"holdfast": lambda: seed.turn(count)}, effort, effort.turns(5))
        finally:
            seed.close()
    report.notes += turns.notes()
    table = Table("", ("figure", "promised ms", "beaten by, at p50", "at p99", "p50 ms", "p99 ms", "what it is"))
    for name, promised in PROMISED_S.items():
        p50, p99 = (turns.median("holdfast", f"{name}_{part}") for part in ("p50", "p99"))
        factors = [value and promised / value for value in (p50, p99)]
        row = (name, ms(promised, 0), times(factors[0]), times(factors[1]), ms(p50, 3), ms(p99, 3), MEANS[name])
        table.rows.append(row)
        reason = turns.missing.get("holdfast", "")
        report.goals.append(Goal(f"{name}: beats the seed's figure by", factors[0], TIMES_LEAST, "×", True, reason))
    report.tables.append(table)
    report.figures = turns.given
    return report


SCENARIO = Scenario("seed", "The seeds' figures", run)

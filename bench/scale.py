"""A hub with a million messages, on SQLite and on PostgreSQL: how fast it takes them, how fast it answers."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote, urlsplit

import msgspec

from bench import material
from bench.harness import Effort, Figures, Goal, Report, Scenario, Table, Wrong, ms, number, quantile, take_turns
from bench.neighbours import holdfast_hub, postgres
from bench.processes import held, scratch

COUNT = 1_000_000
AGENTS = 10
LOT = 500
TASKS = 20_000
FOR_PEOPLE = 50
ASKED = 300
SYNC_S = 900.0
BATCHES = (1, 10, 100, 500)
POSTED = {1: 1_000, 10: 4_000, 100: 20_000, 500: 40_000}
LATE_MOST = 50.0
DEEP_MOST = 1.5

SEARCH = "/v1/search?q=the&limit=1"

Ask = Callable[[random.Random, int], str]


class OnSqlite(holdfast_hub.Server):
    """The hub with its own file."""

    def rest(self) -> None:
        """Nothing is left to be done once its index is filled."""


class OnPostgres(holdfast_hub.Server):
    """The hub on a database server of its own, with the settings that PostgreSQL comes with."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.database = postgres.Cluster(folder, env)
        try:
            url = f"postgresql://{postgres.USER}@127.0.0.1:{self.database.port}/postgres"
            super().__init__(folder, {**env, "HOLDFAST_DATABASE": url})
        except BaseException:
            self.database.process.stop()
            raise

    def rest(self) -> None:
        """Waits for what the filling left to the server: it stalls reads for up to a second, on a slow disk."""
        self.database.rest()

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        self.database.process.stop()


HUBS: dict[str, type[OnSqlite] | type[OnPostgres]] = {"SQLite": OnSqlite, "PostgreSQL": OnPostgres}


class Asker:
    """One connection to a hub."""

    def __init__(self, address: str) -> None:
        self._connection = HTTPConnection(urlsplit(address).netloc)

    def get(self, path: str) -> bytes:
        """What is answered; anything but 200 is wrong."""
        return self._ask("GET", path, None)

    def ready(self, path: str) -> bool:
        """Whether this is answered yet."""
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        answer.read()
        if answer.status not in (200, 503):
            raise Wrong(f"GET {path}: {answer.status}")
        return answer.status == 200

    def post(self, path: str, value: object) -> bytes:
        """The same, for a JSON body."""
        return self._ask("POST", path, msgspec.json.encode(value))

    def _ask(self, method: str, path: str, body: bytes | None) -> bytes:
        self._connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = self._connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise Wrong(f"{method} {path}: {answer.status} {data[:300]!r}")
        return data

    def close(self) -> None:
        """Hangs up."""
        self._connection.close()


# -- taking ----------------------------------------------------------------------------------------------------------


def take(hub: type[OnSqlite] | type[OnPostgres], scale: float) -> Figures:
    """Messages a second from one plain client, by how many it posts at once, each batch answered from the disk."""
    figures: Figures = {}
    with scratch() as folder, hub(folder, {}) as running:
        asker = Asker(running.address)
        for size in BATCHES:
            lots = list(_lots(size, max(size, int(POSTED[size] * scale))))
            began = time.perf_counter()
            for lot in lots:
                asker.post("/sync/messages", {"messages": lot, "node_id": "bench"})
            figures[f"rate_{size}"] = sum(map(len, lots)) / (time.perf_counter() - began)
        asker.close()
    return figures


def _lots(size: int, count: int) -> Iterator[list[dict[str, object]]]:
    for first in range(0, count, size):
        yield [
            {
                "msg_id": f"b{size}-{n}",
                "sender": "bench",
                "task_id": f"task-{n % TASKS}",
                "content": material.message(n),
            }
            for n in range(first, min(count, first + size))
        ]


# -- answering -------------------------------------------------------------------------------------------------------


def answer(hub: type[OnSqlite] | type[OnPostgres], count: int, asked: int) -> Figures:
    """Fills a hub from a node, lets it come to rest, then asks it many times each way."""
    with scratch() as folder, hub(folder, {}) as running, ExitStack() as stack:
        began = time.perf_counter()
        times = _fill(running.address, folder / "node", count)
        figures: Figures = {"fill_rate": count / (time.perf_counter() - began)}
        asker = Asker(running.address)
        stack.callback(asker.close)
        wait_for_index(asker)
        running.rest()
        stack.enter_context(held(folder))
        rng = random.Random(11)
        for name, ask in _questions(count, times).items():
            late = []
            for number_ in range(asked):
                path = ask(rng, number_)
                at = time.perf_counter()
                data = asker.get(path)
                late.append(time.perf_counter() - at)
                _look(name, data)
            figures |= {f"{name}_p50": quantile(late, 0.5), f"{name}_p99": quantile(late, 0.99)}
        figures["peak"] = running.process.memory(peak=True)
    return figures


def _fill(address: str, folder: Path, count: int) -> tuple[int, int]:
    """Ten agents' messages, written while the hub is not known and shipped at once; when the first and last were."""
    from holdfast import Store

    share = count // AGENTS
    first = time.time_ns() // 1_000_000
    for agent in range(AGENTS):
        with Store(folder, f"agent-{agent}", hub=[], level="basic") as store:
            for lot in range(agent * share, (agent + 1) * share, LOT):
                with store.batch() as batch:
                    for n in range(lot, min(lot + LOT, (agent + 1) * share)):
                        batch.post(
                            material.message(n),
                            task=f"task-{n // 50 % TASKS}",
                            to="people" if n % FOR_PEOPLE == 0 else None,
                        )
    last = time.time_ns() // 1_000_000
    stores = [Store(folder, f"agent-{agent}", hub=address, level="basic") for agent in range(AGENTS)]
    for store in stores:
        if not store.flush(SYNC_S):
            raise Wrong("the hub did not take everything in time")
    for store in stores:
        store.close()
    return first, last


def wait_for_index(asker: Asker) -> None:
    end = time.monotonic() + SYNC_S

    def filled() -> bool:
        return asker.ready("/v1/inbox?for=people&limit=1") and not json.loads(asker.get(SEARCH))["partial"]

    while not filled():
        if time.monotonic() > end:
            raise Wrong("the search index and the inboxes were not filled in time")
        time.sleep(0.2)


def _questions(count: int, times: tuple[int, int]) -> dict[str, Ask]:
    """Name -> the path of a question, another one each time."""
    words = sorted({word for n in range(400) for word in _words(n)})
    first, last = times

    def window(rng: random.Random, _: int) -> str:
        begin = rng.randrange(first, last)
        span = max(1, (last - first) // 100)
        agent = rng.randrange(AGENTS)
        since, until = begin / 1000, (begin + span) / 1000
        return f"/v1/records?agent=agent-{agent}&since={since}&until={until}&limit=100"

    def search(rng: random.Random, _: int) -> str:
        return f"/v1/search?q={quote(rng.choice(words))}&agent=agent-{rng.randrange(AGENTS)}&limit=50"

    return {
        "newest page": lambda rng, _: "/v1/records?collection=messages&limit=100",
        "page deep down": lambda rng, _: (
            f"/v1/records?collection=messages&limit=100&after={rng.randrange(200, count // 5)}"
        ),
        "agent and time": window,
        "task": lambda rng, _: f"/v1/records?task=task-{rng.randrange(min(TASKS, count // 50))}&limit=100",
        "full text, one agent's": search,
        "unread": lambda rng, _: f"/v1/count?to=people&after={rng.randrange(count)}",
        "who writes": lambda rng, _: "/v1/agents",
    }


def _words(n: int) -> list[str]:
    content = material.message(n).get("content")
    return [word for word in str(content).split() if word.isalpha() and len(word) > 3][:5]


def _look(name: str, data: bytes) -> None:
    """An answer that holds nothing proves nothing, but for those that may be empty by chance."""
    if name in ("newest page", "page deep down") and data.count(b'"seq"') < 100:
        raise Wrong(f"{name}: {data[:200]!r}")


# -- the page --------------------------------------------------------------------------------------------------------


def run(effort: Effort) -> Report:
    """Measures it."""
    report = Report()
    count = effort.count(COUNT, 5_000)
    asked = effort.count(ASKED, 20)
    taking = take_turns({name: partial(take, hub, effort.scale) for name, hub in HUBS.items()}, effort, effort.turns(2))
    asking = take_turns({name: partial(answer, hub, count, asked) for name, hub in HUBS.items()}, effort, 1)
    report.notes += [*taking.notes(), *asking.notes()]
    rates = Table("Messages a second from one plain client", ("corpus", *(f"{size} at once" for size in BATCHES)))
    for name in HUBS:
        if taking.has(name):
            rates.rows.append((name, *(number(taking.median(name, f"rate_{size}")) for size in BATCHES)))
    report.tables.append(rates)
    present = [name for name in HUBS if asking.has(name)]
    columns = [f"{name}, {what}" for name in present for what in ("p50 ms", "p99 ms")]
    late = Table(f"Answers of a hub with {count:,} messages", ("question", *columns))
    for question in _questions(count, (0, 1)):
        cells = [ms(asking.median(name, f"{question}_{part}")) for name in present for part in ("p50", "p99")]
        late.rows.append((question, *cells))
        for name in HUBS:
            found, reason = asking.median(name, f"{question}_p99"), asking.missing.get(name, "")
            report.goals.append(
                Goal(f"p99 at {count:,}: {question}, {name}", found and found * 1e3, LATE_MOST, " ms", reason=reason)
            )
    report.tables.append(late)
    for name in HUBS:
        deep, top = (asking.median(name, f"{question}_p50") for question in ("page deep down", "newest page"))
        ratio = deep / top if deep and top else None
        what = f"deep page over the newest, {name}"
        report.goals.append(Goal(what, ratio, DEEP_MOST, "×", reason=asking.missing.get(name, "")))
    report.notes += [
        f"{name}: filled by one node at {number(asking.median(name, 'fill_rate'))} messages a second (writing them "
        f"included); the hub's memory at most {number(asking.median(name, 'peak'), 1)} MiB."
        for name in present
    ]
    report.notes.append(
        "The files were held in memory while anything was asked: of a cold disk these figures say nothing."
    )
    report.figures = {"take": taking.given, "answer": asking.given}
    return report


SCENARIO = Scenario("scale", "A million messages", run)

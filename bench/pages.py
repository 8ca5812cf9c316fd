"""The pages of a hub with half a million messages: how soon and how large they are, how soon they show what came."""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from bench import material
from bench.harness import Effort, Figures, Goal, Report, Scenario, Table, Wrong, ms, number, quantile, take_turns
from bench.processes import held, scratch
from bench.scale import HUBS, SYNC_S, Asker, OnPostgres, OnSqlite, wait_for_index

COUNT = 500_000
AGENTS = 10
LOT = 500
TASKS = 20_000
ASKED = 100
CAME = 60
KINDS = ("report", "report", "report", "question", "alert")
SERVER_MOST = 20.0
VISIBLE_MOST = 100.0
BYTES_MOST = 100.0
REQUESTS_MOST = 8
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
HTML = {"Accept": "text/html", "Accept-Encoding": "gzip"}
PAUSE_S = 0.7
"""Between two messages: after a silence a page looks at once, and that is what somebody waits for."""

_PART = re.compile(r'(?:src|href)="(/ui/static/[^"]+)"')


class Visitor(Asker):
    """A browser as far as the hub can tell."""

    def page(self, path: str) -> bytes:
        """What is answered; anything but 200 is wrong."""
        return self.sent(path)[1]

    def sent(self, path: str) -> tuple[int, bytes]:
        """The same, with the number of bytes that came for it, compressed or not."""
        self._connection.request("GET", path, None, HTML)
        answer = self._connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise Wrong(f"GET {path}: {answer.status} {data[:300]!r}")
        return len(data), gzip.decompress(data) if answer.getheader("Content-Encoding") == "gzip" else data


def filled(address: str, folder: Path, count: int) -> None:
    """Ten agents' messages, all of them to people, one in ten with a priority, shipped from one node."""
    from holdfast import Store

    share = count // AGENTS
    for agent in range(AGENTS):
        with Store(folder, f"agent-{agent}", hub=[], level="basic") as store:
            for lot in range(agent * share, (agent + 1) * share, LOT):
                with store.batch() as batch:
                    for n in range(lot, min(lot + LOT, (agent + 1) * share)):
                        batch.post(
                            material.message(n),
                            to="people",
                            kind=KINDS[n % len(KINDS)],
                            task=f"task-{n % TASKS}",
                            priority="high" if n % 10 == 0 else "normal",
                        )
    stores = [Store(folder, f"agent-{agent}", hub=address, level="basic") for agent in range(AGENTS)]
    for store in stores:
        if not store.flush(SYNC_S):
            raise Wrong("the hub did not take everything in time")
        store.close()


def places(asker: Visitor, count: int) -> dict[str, list[str]]:
    """Page -> the addresses that it is asked by, each another one where it has any."""
    rng = random.Random(5)
    rows = json.loads(asker.get("/v1/inbox?for=people&limit=50"))["mail"]
    ids = [row["msg_id"] for row in rows]
    deep = [rng.randrange(1_000, count) for _ in range(20)]
    words = [word for n in range(200) for word in str(material.message(n).get("content")).split() if word.isalpha()]
    return {
        "/": ["/"],
        "/messages": ["/messages"],
        "/messages, feed": ["/messages?tab=feed"],
        "/messages, deep down": [f"/messages?tab=feed&after={pos}" for pos in deep],
        "/messages, of one agent": [f"/messages?tab=feed&from=agent-{n}" for n in range(AGENTS)],
        "/messages, of one task": [f"/messages?tab=feed&task=task-{n}" for n in range(20)],
        "/messages, words": [f"/messages?tab=feed&q={word}" for word in rng.sample(words, 20)],
        "/messages/…": [f"/messages/{each}" for each in ids],
        "/nodes": ["/nodes"],
        "/agents": ["/agents"],
        "/data": ["/data"],
    }


def looked_at(hub: type[OnSqlite] | type[OnPostgres], count: int, asked: int) -> Figures:
    """Fills a hub, and looks at its pages one after the other."""
    with scratch() as folder, hub(folder, {}) as running, ExitStack() as stack:
        filled(running.address, folder / "node", count)
        asker = Visitor(running.address)
        stack.callback(asker.close)
        wait_for_index(asker)
        running.rest()
        stack.enter_context(held(folder))
        while json.loads(asker.get("/overview.json"))["storage"]["counted"] < 1:
            time.sleep(PAUSE_S)  # what a hub counts when it is looked at first is no matter of every visit
        figures: Figures = {}
        for name, addresses in places(asker, count).items():
            for path in addresses[:3]:
                asker.page(path)  # what a hub finds out when it is looked at first is no matter of every visit
            late = []
            for n in range(asked):
                at = time.perf_counter()
                asker.page(addresses[n % len(addresses)])
                late.append(time.perf_counter() - at)
            figures |= {f"{name}_p50": quantile(late, 0.5), f"{name}_p95": quantile(late, 0.95)}
        figures |= weight(asker, "/messages")
        figures["heard"] = quantile(list(heard(running.address, asker, max(5, asked // 5))), 0.95)
        figures["peak"] = running.process.memory(peak=True)
        with_browser = list(seen(running.address, asker, max(5, asked * CAME // ASKED)))
        if with_browser:
            figures["seen"] = quantile(with_browser, 0.95)
    return figures


def weight(asker: Visitor, path: str) -> Figures:
    """What a browser, which takes gzip, loads on a first visit: its requests, its bytes, and how many they become."""
    first = asker.sent(path)
    parts = [first, *(asker.sent(part) for part in sorted(set(_PART.findall(first[1].decode()))))]
    return {
        "requests": float(len(parts)),
        "bytes": sum(size for size, _ in parts) / 1000,
        "unpacked": sum(len(data) for _, data in parts) / 1000,
    }


def _say(asker: Visitor, n: int) -> None:
    content = f"what came {n}"
    asker.post("/sync/message", {"msg_id": f"came-{n}", "sender": "bench", "recipient": "people", "content": content})


def heard(address: str, asker: Visitor, count: int) -> Iterator[float]:
    """Seconds from the moment that a message is posted until the stream of the page of messages tells of it."""
    connection = HTTPConnection(urlsplit(address).netloc)
    connection.request("GET", "/ui/events?page=messages&view=tab%3Dfeed")  # what comes needs nobody
    stream = connection.getresponse()
    came = threading.Semaphore(0)
    times: list[float] = []

    def listen() -> None:
        with contextlib.suppress(AttributeError, HTTPException, OSError, ValueError):  # closed under it, at the end
            while line := stream.readline():
                if line.startswith(b"id:"):
                    times.append(time.perf_counter())
                    came.release()

    threading.Thread(target=listen, daemon=True).start()
    _told(came)  # the page as it is
    for n in range(count):
        time.sleep(PAUSE_S)
        while came.acquire(blocking=False):
            pass  # told twice of the one before: of its line, and of its place in the inbox
        at = time.perf_counter()
        _say(asker, n)
        _told(came)
        yield times[-1] - at
    connection.close()


def _told(came: threading.Semaphore) -> None:
    if not came.acquire(timeout=60):
        raise Wrong("the stream of the page did not tell of a message")


def seen(address: str, asker: Visitor, count: int) -> Iterator[float]:
    """Seconds until a browser shows it; nothing where there is no browser."""
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return
    if path is None:
        return
    watch = """() => { window.at = {}; new MutationObserver(() => {
      for (const found of document.body.innerText.matchAll(/what came (\\d+)/g)) window.at[found[1]] ??= Date.now();
    }).observe(document.body, { childList: true, subtree: true, characterData: true }); }"""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(address + "/messages?tab=feed")
        page.evaluate(watch)
        time.sleep(PAUSE_S)
        for n in range(10_000, 10_000 + count):
            at = time.time()
            _say(asker, n)
            page.wait_for_function(f"() => window.at[{n}]", polling=10)
            yield page.evaluate(f"() => window.at[{n}]") / 1000 - at
            time.sleep(PAUSE_S)
        browser.close()


def run(effort: Effort) -> Report:
    """Measures it."""
    report = Report()
    count, asked = effort.count(COUNT, 5_000), effort.count(ASKED, 20)
    turns = take_turns({name: partial(looked_at, hub, count, asked) for name, hub in HUBS.items()}, effort, 1)
    report.notes += turns.notes()
    present = [name for name in HUBS if turns.has(name)]
    if not present:
        return report
    columns = [f"{name}, {what}" for name in present for what in ("p50 ms", "p95 ms")]
    table = Table(f"Pages of a hub with {count:,} messages, the server's time and loopback's", ("page", *columns))
    for name in [key.removesuffix("_p50") for key in turns.given[present[0]][0] if key.endswith("_p50")]:
        cells = [ms(turns.median(hub, f"{name}_{part}")) for hub in present for part in ("p50", "p95")]
        table.rows.append((name, *cells))
        for hub in present:
            found = turns.median(hub, f"{name}_p95")
            report.goals.append(Goal(f"p95, {hub}: {name}", found and found * 1e3, SERVER_MOST, " ms"))
    report.tables.append(table)
    for hub in present:
        report.goals += _light(partial(turns.median, hub), hub)
        report.notes.append(
            f"{hub}: the stream tells of a message within {ms(turns.median(hub, 'heard'))} ms (p95); a first visit to"
            f" the messages loads {number(turns.median(hub, 'bytes'))} kB, {number(turns.median(hub, 'unpacked'))} kB"
            f" unpacked; the hub's memory at most {number(turns.median(hub, 'peak'), 1)} MiB."
        )
    report.figures = {"pages": turns.given}
    return report


def _light(figure: partial[float | None], hub: str) -> Iterator[Goal]:
    yield Goal(f"a first visit, {hub}: kB", figure("bytes"), BYTES_MOST)
    yield Goal(f"a first visit, {hub}: requests", figure("requests"), REQUESTS_MOST)
    found = figure("seen")
    reason = "" if found else "no browser, or no playwright"
    yield Goal(f"from posted to seen, p95, {hub}", found and found * 1e3, VISIBLE_MOST, " ms", reason=reason)


SCENARIO = Scenario("pages", "The pages of a hub", run)

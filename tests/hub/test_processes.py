"""Several hub processes on one database are one hub: one order, one history, and each may die."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import select
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from holdfast.hub.app import create_app
from holdfast.hub.database import HubDatabase
from tests.flow.hubs import HubProcess, until
from tests.hub.lines import Events, Line
from tests.hub.pens import Pen
from tests.services import Postgres, shared_postgres

LOT = 50


@pytest.fixture
def hubs(tmp_path: Path, database: str) -> Iterator[list[HubProcess]]:
    """Two processes of one hub."""
    started = [HubProcess(tmp_path / f"hub{number}", database=database) for number in range(2)]
    yield started
    for hub in started:
        hub.kill()


class Reader(threading.Thread):
    """Reads a feed to the end of what is expected, and remembers what came in which order."""

    def __init__(self, url: str, count: int) -> None:
        super().__init__(daemon=True)
        self.events = Events(url, "after=0", timeout=60)
        self.count = count
        self.seen: list[int] = []
        self.start()

    def run(self) -> None:
        with closing(self.events):
            for event, _, record in self.events:
                if event == "record":
                    self.seen.append(record["pos"])
                    if len(self.seen) == self.count:
                        return

    def whole(self) -> list[int]:
        """What it has read, once that is all that is expected, or nothing more has come for a minute."""
        self.join(60)
        with contextlib.suppress(OSError):  # so that a failed test leaves no thread behind that reads for ever
            self.events.socket.shutdown(socket.SHUT_RDWR)
        self.join()
        return self.seen


def write(pen: Pen, count: int, url: Callable[[int], str]) -> None:
    """Ships so many records of one agent in lots; each lot is sent until somebody acknowledges it."""
    for first in range(1, count + 1, LOT):
        last = min(first + LOT - 1, count)
        for number in range(first, last + 1):
            pen.put(f"k{number % 100}", {"n": number, "who": pen.agent})
        segment, tries = pen.segment(first, last), 0
        while True:
            answer = None
            with contextlib.suppress(OSError, http.client.HTTPException), closing(Line(url(tries), timeout=60)) as line:
                answer = line.append(segment)
            if answer is not None:
                assert [each.state for each in answer.verdicts] == ["ack"], answer
                break
            tries += 1


def run_writers(hubs: list[HubProcess], each: int) -> None:
    """Six writers through two processes, beside a reader of each: nothing is skipped, repeated or out of order."""
    total = 6 * each
    readers = [Reader(hub.url, total) for hub in hubs]
    pens = [Pen(f"agent-{number}") for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        jobs = [
            pool.submit(write, pen, each, lambda _, n=number: hubs[n % 2].url)  # type: ignore[misc]
            for number, pen in enumerate(pens)
        ]
        failures = [job.exception() for job in jobs]
    seen = [reader.whole() for reader in readers]
    assert failures == [None] * 6
    for each_seen in seen:
        assert each_seen == list(range(1, total + 1))


def test_six_writers_through_two_processes_are_read_gapless_and_in_order(hubs: list[HubProcess]) -> None:
    run_writers(hubs, 840)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_six_writers_and_100_000_records(hubs: list[HubProcess]) -> None:
    run_writers(hubs, 16_700)


def test_a_process_that_is_killed_loses_nothing_and_clients_move_over(hubs: list[HubProcess]) -> None:
    one, other = hubs
    each, pens = 1_000, [Pen(f"agent-{number}") for number in range(4)]
    reader = Reader(other.url, 4 * each)
    urls = [one.url, other.url]

    def where(tries: int) -> str:
        return urls[tries % 2]

    with closing(Line(other.url)) as line, ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(write, pen, each, where) for pen in pens]
        until(lambda: line.json("GET", "/health")["pos"] > each // 2, "the load is on")
        one.kill()
        for job in jobs:
            job.result()
        assert reader.whole() == list(range(1, 4 * each + 1)), "what was in doubt was sent again, and recognised"
        for pen in pens:
            assert line.hello(pen.hello()).streams[0].state == "ok"
        one.start()
        with closing(Line(one.url)) as again:
            assert again.gen() == line.gen(), "a process that died began no new generation"
            assert again.json("GET", "/health")["pos"] == 4 * each


def test_plain_clients_meet_one_hub_whichever_process_they_ask(hubs: list[HubProcess]) -> None:
    with ExitStack() as stack:
        one, other = (stack.enter_context(closing(Line(hub.url))) for hub in hubs)
        ask_both(hubs, one, other)


def ask_both(hubs: list[HubProcess], one: Line, other: Line) -> None:
    """Everything that a plain client may ask of either."""
    message = {"msg_id": "m1", "sender": "ada", "content": "hello", "recipient": "bob"}
    assert one.json("POST", "/sync/message", message)["status"] == "stored"
    assert other.json("POST", "/sync/message", message)["status"] == "stored"
    status, _, _ = other.ask("POST", "/sync/message", {**message, "content": "something else"})
    assert status == 409
    asked = {"agent": "ada", "collection": "locks", "key": "k", "expect": 0}
    with ThreadPoolExecutor(8) as pool:

        def decide(number: int) -> int:
            with closing(Line(hubs[number % 2].url)) as line:
                return line.ask("POST", "/v1/decide", {**asked, "value": number, "id": f"r{number}"})[0]

        assert sorted(pool.map(decide, range(8))) == [200] + [409] * 7
    # The processes' own streams are the same streams: one chain each, gapless.
    for number in range(6):
        line = (one, other)[number % 2]
        assert line.json("POST", "/sync/message", {**message, "msg_id": f"n{number}"})["status"] == "stored"
    (ada,) = [agent for agent in other.json("GET", "/v1/agents")["agents"] if agent["agent"] == "ada"]
    assert [(stream["seq"], stream["incarnations"]) for stream in ada["streams"]] == [(7, 1)]
    assert other.json("GET", "/query/messages?agent=bob")["total"] == 7
    data = b"x" * 300_000
    digest = hashlib.sha256(data).hexdigest()
    assert one.ask("PUT", f"/v1/blobs/{digest}", data)[0] == 201
    assert other.ask("GET", f"/v1/blobs/{digest}", None, Range="bytes=299990-")[2] == data[-10:]


def test_while_the_database_is_away_clients_are_told_so_and_then_all_goes_on(
    tmp_path: Path, postgres: Postgres
) -> None:
    hub = HubProcess(tmp_path / "hub", database=postgres.database())
    pen = Pen()
    with ExitStack() as stack:
        stack.callback(hub.kill)
        line = stack.enter_context(closing(Line(hub.url)))
        events = stack.enter_context(closing(Events(hub.url, "after=0")))
        pen.put("a", 1)
        line.append(pen.segment())
        assert events.records(1)[0]["key"] == "a"
        ready = line.json("GET", "/readyz")
        assert ready["ready"]
        assert any("fsync=off" in warning for warning in ready["warnings"])
        postgres.stop()
        pen.put("b", 2)

        def told(path: str, body: Any = None) -> Any:
            status, _, data = line.ask("POST" if body else "GET", path, body)
            return status, json.loads(data)

        message = {"msg_id": "m1", "content": "x"}
        status, body = told("/sync/message", message)
        assert (status, body["error"]["code"]) == (503, "hub_unavailable")
        assert told("/v1/keys?agent=ada")[0] == 503
        status, body = told("/readyz")
        assert (status, body["ready"]) == (503, False)
        assert "cannot be reached" in body["checks"]["corpus"] or "does not answer" in body["checks"]["corpus"]
        assert told("/livez")[0] == 200
        postgres.start()
        until(lambda: told("/readyz")[0] == 200, "the hub finds its database again")
        until(lambda: told("/sync/message", message)[0] == 200, "it takes writes again")
        line.append(pen.segment(2))
        assert sorted(record["key"] for record in events.records(2)) == ["b", "m1"]


def test_a_process_whose_database_took_another_course_ends_and_the_next_begins_a_generation(
    tmp_path: Path, postgres: Postgres
) -> None:
    hub = HubProcess(tmp_path / "hub", database=postgres.database())
    pen = Pen()
    pen.put("a", 1)
    try:
        with closing(Line(hub.url)) as line:
            first = line.gen()
            line.append(pen.segment())
        postgres.stop()
        (postgres.data / "recovery.signal").touch()  # a recovery that ends begins a new timeline, as a promotion does
        postgres.settings.append("restore_command=false")
        postgres.start()
        assert hub.ended() != 0
        hub.start()
        with closing(Line(hub.url)) as line:
            answer = line.hello(pen.hello())
            assert [gen for gen, _ in answer.lineage] == [first, line.gen()]
            assert answer.streams[0].state == "ok"
    finally:
        hub.kill()


class Cut(threading.Thread):
    """Passes everything between a hub and its database, until it swallows the answer to a COMMIT and hangs up."""

    def __init__(self, directory: Path, server: Path) -> None:
        super().__init__(daemon=True)
        self.server = server / ".s.PGSQL.5432"
        self.armed = threading.Event()
        self.swallowed = threading.Event()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(directory / ".s.PGSQL.5432"))
        self.listener.listen()
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                ours, _ = self.listener.accept()
                threading.Thread(target=self.carry, args=(ours,), daemon=True).start()

    def carry(self, ours: socket.socket) -> None:
        theirs = socket.socket(socket.AF_UNIX)
        with ours, theirs, contextlib.suppress(OSError):
            theirs.connect(str(self.server))
            while True:
                for ready in select.select([ours, theirs], [], [])[0]:
                    data = ready.recv(1 << 16)
                    # Of records, and not of the index: those are announced before they are committed.
                    if ready is theirs and b"SELECT 1\0" in data and b"COMMIT\0" in data and self.armed.is_set():
                        self.armed.clear()
                        self.swallowed.set()
                        return
                    if not data:
                        return
                    (theirs if ready is ours else ours).sendall(data)

    def close(self) -> None:
        """Takes nobody any more."""
        self.listener.close()


def test_a_commit_whose_answer_was_lost_is_sent_again_and_recognised() -> None:
    server = shared_postgres()
    address = server.database()
    with tempfile.TemporaryDirectory(prefix="hf-cut-") as directory, ExitStack() as stack:
        cut = stack.enter_context(closing(Cut(Path(directory), server.directory)))
        home = HubDatabase(address.replace(str(server.directory), directory), settle="acked")
        client = stack.enter_context(TestClient(create_app(home), raise_server_exceptions=False))
        for path, body in (
            ("/sync/message", {"msg_id": "m1", "sender": "ada", "content": "once"}),
            ("/relay/immediate", {"agent_id": "ada", "table": "t", "data": {"id": 1}, "msg_id": "r1"}),
        ):
            cut.swallowed.clear()
            cut.armed.set()
            before = client.get("/health").json()["pos"]
            answer = client.post(path, json=body)
            assert cut.swallowed.is_set()
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "hub_unavailable"), "not acknowledged"
            assert client.post(path, json=body).status_code == 200
            assert home.corpus.last() == before + 1, "it had been kept, and was not written twice"
            until(lambda: client.get("/health").json()["pos"] == before + 1, "readers are shown it")  # noqa: B023

"""A node's request is answered at the commit; what the disk has is said when the disk has it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from holdfast import wire
from holdfast.corpus.space import Reserve
from holdfast.hub import create_app
from holdfast.hub.directory import HubDirectory
from holdfast.hub.ingest import HERE_RECORDS_MAX
from tests.hub.pens import Pen


class Disk:
    """A disk whose syncs wait to be let through."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.waiting = threading.Event()

    def datasync(self, fd: int) -> None:
        self.waiting.set()
        assert self.open.wait(30)
        os.fdatasync(fd)


@pytest.fixture
def disk() -> Iterator[Disk]:
    made = Disk()
    yield made
    made.open.set()


@pytest.fixture
def client(tmp_path: Path, disk: Disk) -> Iterator[TestClient]:
    reserve = Reserve(tmp_path, floor_bytes=0, ballast_bytes=0)
    with TestClient(create_app(HubDirectory(tmp_path / "hub", reserve=reserve, datasync=disk.datasync))) as made:
        yield made


def ask(client: TestClient, req: int, *segments: wire.Segment, line: bytes = b"line") -> wire.AppendAnswer:
    gen = client.app.state.core.home.gen  # type: ignore[attr-defined]
    body = wire.encode(wire.Append(gen, req, list(segments), line=line))
    return wire.decode(wire.AppendAnswer, client.post("/v1/append", content=body).content)


def stop_the_index(client: TestClient) -> None:
    core = client.app.state.core  # type: ignore[attr-defined]
    core._stop_trail.set()
    core.writer.committed.set()
    core._trailer.join()


def test_a_request_is_taken_while_the_disk_is_slow_and_safe_when_it_is_done(
    client: TestClient, disk: Disk, pen: Pen
) -> None:
    disk.open.clear()
    disk.waiting.clear()
    pen.put("k", 1)
    first = ask(client, 7, pen.segment())
    assert (first.verdicts[0].state, first.verdicts[0].at.seq, first.safe) == ("ack", 1, 0)
    assert client.get("/v1/latest", params={"agent": pen.agent, "collection": "state", "key": "k"}).json()["value"] == 1
    assert disk.waiting.wait(30)
    with ThreadPoolExecutor(1) as pool:
        question = pool.submit(ask, client, 8)
        second = ask(client, 9, pen.segment(1), line=b"another line")
        assert second.safe == 0
        assert not question.done()
        disk.open.set()
        assert question.result(30).safe == 8
    assert ask(client, 10, pen.segment(1)).safe >= 8


def test_one_line_learns_nothing_from_anothers_requests(client: TestClient, pen: Pen) -> None:
    pen.put("k", 1)
    ask(client, 1_000, pen.segment(), line=b"one")
    assert ask(client, 1_001, line=b"one").safe == 1_001
    assert ask(client, 5, pen.segment(1), line=b"two").safe == 0


def test_a_question_of_another_generation_is_sent_to_hello(client: TestClient) -> None:
    answer = client.post("/v1/append", content=wire.encode(wire.Append("elsewhere", 3, [], line=b"line")))
    found = wire.decode(wire.AppendAnswer, answer.content)
    assert (found.regen, found.safe) == (True, 0)


def test_what_is_small_is_committed_by_the_loop_and_what_is_large_is_not(client: TestClient, pen: Pen) -> None:
    writer = client.app.state.core.writer  # type: ignore[attr-defined]
    stop_the_index(client)
    on_loop: list[bool] = []
    client.app.state.core.corpus.engine.on_commit = lambda: on_loop.append(writer.on_loop)  # type: ignore[attr-defined]
    pen.put("k", 1)
    ask(client, 1, pen.segment())
    for number in range(HERE_RECORDS_MAX + 1):
        pen.put(f"k{number}", number)
    ask(client, 2, pen.segment(2))
    pen.put("k", 3)
    ask(client, 3, pen.segment(pen.head.seq))
    writer.wal_ended(client.app.state.core.corpus.engine.wal_pages)  # type: ignore[attr-defined]
    pen.put("k", 4)
    assert ask(client, 4, pen.segment(pen.head.seq)).verdicts[0].state == "ack"
    assert on_loop == [True, False, True, False]


def test_a_job_that_needs_a_file_is_undone_on_the_loop_and_done_by_the_thread(client: TestClient) -> None:
    def upsert(**data: Any) -> Any:
        words = {"agent_id": "ada", "table": "t", "operation": "update" if "n" in data else "upsert", "data": data}
        answer = client.post("/relay/immediate", json=words)
        assert answer.status_code == 200, answer.text
        return answer.json()["version"]

    assert upsert(id="1", text="x" * 100_000) == 1
    assert upsert(id="1", n=5) == 2, "small, but what it changes is a blob"
    (row,) = client.post("/relay/query", json={"table": "t"}).json()["rows"]
    assert (row["n"], len(row["text"])) == (5, 100_000)
    assert len(client.get("/v1/records", params={"agent": "ada"}).json()["records"]) == 2


def test_what_was_learnt_in_a_transaction_that_was_undone_is_forgotten(client: TestClient, pen: Pen) -> None:
    core = client.app.state.core  # type: ignore[attr-defined]
    pen.put("k", 1)
    ask(client, 1, pen.segment())
    pen.put("k", 2)
    message = wire.Append(core.home.gen, 2, [pen.segment(2)], line=b"line")

    def job(tx: Any) -> None:
        core.writer.decide(tx, [message])
        raise RuntimeError("struck after it was written")

    with pytest.raises(RuntimeError, match="struck"):
        core.corpus.write(job)
    answer = ask(client, 3, pen.segment(2))
    assert (answer.verdicts[0].state, answer.verdicts[0].at.seq, core.corpus.last()) == ("ack", 2, 2)


def test_a_question_costs_no_sync_when_the_disk_has_everything(client: TestClient, pen: Pen) -> None:
    writer = client.app.state.core.writer  # type: ignore[attr-defined]
    pen.put("k", 1)
    ask(client, 1, pen.segment())
    assert ask(client, 2).safe == 2
    before = writer.syncs
    assert ask(client, 3).safe == 3
    assert writer.syncs == before

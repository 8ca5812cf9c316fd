"""A node's request is answered at the commit; what the disk has is said when the disk has it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from holdfast import wire
from holdfast.corpus.space import Reserve
from holdfast.hub import create_app
from holdfast.hub.directory import HubDirectory
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

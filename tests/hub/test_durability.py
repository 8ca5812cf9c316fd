"""Shown at COMMIT, acknowledged after the sync, one sync for all who wait; and a WAL that stays small."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from holdfast.corpus.space import Reserve
from holdfast.hub import core as core_room
from holdfast.hub import directory as directory_room
from holdfast.hub.app import create_app
from holdfast.hub.directory import HubDirectory
from tests.flow.hubs import until
from tests.hub.conftest import Room
from tests.hub.pens import Pen


class Gate:
    """A disk that syncs only while the gate is open."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.waiting = 0

    def __call__(self, fd: int) -> None:
        self.waiting += 1
        assert self.open.wait(30)
        self.waiting -= 1
        os.fdatasync(fd)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def gated(tmp_path: Path, gate: Gate) -> Iterator[Room]:
    """A hub on that disk."""
    reserve = Reserve(tmp_path, floor_bytes=0, ballast_bytes=0)
    app = create_app(HubDirectory(tmp_path / "hub", settle="acked", reserve=reserve, datasync=gate))
    with TestClient(app) as client:
        yield Room(client, app.state.core)
        gate.open.set()


def post(room: Room, sender: str, number: int, done: list[int]) -> threading.Thread:
    """Posts a message from a thread of its own; `done` gets its number once it is answered."""

    def run() -> None:
        body = {"msg_id": f"{sender}-{number}", "sender": sender, "content": number}
        assert room.client.post("/sync/message", json=body).status_code == 200
        done.append(number)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_message_is_shown_before_it_is_answered_and_answered_after_the_sync(gated: Room, gate: Gate) -> None:
    done: list[int] = []
    post(gated, "ada", 1, done).join(20)
    gate.open.clear()
    posting = post(gated, "ada", 2, done)
    until(lambda: gate.waiting == 1, "the sync is asked for")
    assert [each["value"]["body"] for each in gated.records()] == [1, 2]
    assert done == [1]
    gate.open.set()
    posting.join(20)
    assert done == [1, 2]


def test_hello_does_not_speak_of_what_could_still_be_lost(gated: Room, gate: Gate) -> None:
    pen = Pen()
    pen.put("k", 1)
    gate.open.clear()
    threads = [threading.Thread(target=lambda: gated.append(pen.segment()))]
    threads[0].start()
    until(lambda: gate.waiting == 1, "the sync is asked for")
    answers: list[object] = []
    threads.append(threading.Thread(target=lambda: answers.append(gated.hello(pen.hello()).streams[0].at)))
    threads[1].start()
    until(lambda: gated.core.corpus.last() == 1, "the record is committed")
    assert answers == []
    gate.open.set()
    for thread in threads:
        thread.join(20)
    assert answers == [pen.head]


def test_writes_that_wait_together_share_a_sync(gated: Room, gate: Gate) -> None:
    writer, senders = gated.core.writer, [f"agent-{n}" for n in range(12)]
    done: list[int] = []
    for sender in senders:
        post(gated, sender, 0, done).join(20)
    before = writer.syncs
    gate.open.clear()
    threads = [post(gated, senders[0], 1, done)]
    until(lambda: gate.waiting == 1, "the first sync is under way")
    threads += [post(gated, sender, 1, done) for sender in senders[1:]]
    until(lambda: gated.core.corpus.last() == 24, "all are committed")
    until(lambda: len(writer._unsynced) == 11, "all wait for the next sync")
    assert len(done) == 12
    gate.open.set()
    for thread in threads:
        thread.join(20)
    assert (len(done), writer.syncs) == (24, before + 2)


def test_the_writer_keeps_the_wal_small_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_room, "WAL_PAGES_INLINE", 300)
    monkeypatch.setattr(core_room, "WAL_PAGES_BESIDE", 1 << 40)
    reserve = Reserve(tmp_path, floor_bytes=0, ballast_bytes=0)
    app = create_app(HubDirectory(tmp_path / "hub", reserve=reserve))
    with TestClient(app) as client:
        room, pen = Room(client, app.state.core), Pen()
        for number in range(1, 1001):
            pen.put(f"k{number}", os.urandom(100).hex())
            room.append(pen.segment(number))
        pages = (tmp_path / "hub" / "hub.db-wal").stat().st_size // 4096
        assert pages < 1_000


def test_the_wal_is_moved_behind_the_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_room, "WAL_PAGES_BESIDE", 50)
    monkeypatch.setattr(core_room, "WAL_STEP", 20)
    reserve = Reserve(tmp_path, floor_bytes=0, ballast_bytes=0)
    app = create_app(HubDirectory(tmp_path / "hub", reserve=reserve))
    with TestClient(app) as client:
        room, pen = Room(client, app.state.core), Pen()
        for number in range(1, 400):
            pen.put(f"k{number}", os.urandom(200).hex())
        room.append(pen.segment())
        database = tmp_path / "hub" / "hub.db"
        until(lambda: database.stat().st_size > 100_000, "the WAL is moved into the file")


def test_the_index_stands_back_from_a_flow_and_catches_up_when_it_ends(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core_room, "TRAIL_FLOW_RECORDS", 1)
    monkeypatch.setattr(core_room, "TRAIL_FLOW_S", 1e9)
    pen = Pen()
    for number in range(2_000):
        pen.message(f"m{number}", f"needle {number}")
    for first in range(1, 2_000, 50):
        room.append(pen.segment(first, first + 49))
        found = room.get("/v1/search", q="needle", limit=1)
        assert found["records"] or found["partial"], "what is not indexed is looked through, or said to be missing"
    corpus = room.core.corpus
    until(lambda: corpus.meta("fts_pos") == corpus.last(), "everything is indexed")
    assert not room.get("/v1/search", q="needle", limit=1)["partial"]

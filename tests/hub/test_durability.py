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


def test_a_record_is_shown_before_it_is_acknowledged_and_acknowledged_after_the_sync(gated: Room, gate: Gate) -> None:
    pen = Pen()
    pen.put("k", 1)
    gate.open.clear()
    states: list[str] = []
    posting = threading.Thread(target=lambda: states.append(gated.append(pen.segment()).verdicts[0].state))
    posting.start()
    until(lambda: gate.waiting == 1, "the sync is asked for")
    assert [each["key"] for each in gated.records()] == ["k"]
    assert states == []
    gate.open.set()
    posting.join(20)
    assert states == ["ack"]


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


def test_requests_that_wait_together_share_a_commit_and_a_sync(gated: Room, gate: Gate) -> None:
    writer, pens = gated.core.writer, [Pen(f"agent-{n}") for n in range(12)]
    for pen in pens:
        pen.put("k", 1)
    gate.open.clear()
    threads = [threading.Thread(target=lambda pen=pen: gated.append(pen.segment())) for pen in pens]
    threads[0].start()
    until(lambda: gate.waiting == 1, "the first sync is under way")
    for thread in threads[1:]:
        thread.start()
    until(lambda: gated.core.corpus.last() == 12, "all are committed")
    until(lambda: len(writer._unsynced) == 11, "all wait for the next sync")
    gate.open.set()
    for thread in threads:
        thread.join(20)
    assert writer.syncs == 2
    assert writer.records == 12


def test_the_writer_keeps_the_wal_small_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_room, "WAL_PAGES_INLINE", 300)
    monkeypatch.setattr(core_room, "WAL_PAGES_BESIDE", 1 << 40)
    reserve = Reserve(tmp_path, floor_bytes=0, ballast_bytes=0)
    app = create_app(HubDirectory(tmp_path / "hub", reserve=reserve))
    with TestClient(app) as client:
        room, pen = Room(client, app.state.core), Pen()
        for first in range(1, 4001, 200):
            for number in range(200):
                pen.put(f"k{first + number}", os.urandom(100).hex())
            room.append(pen.segment(first))
        assert (tmp_path / "hub" / "hub.db-wal").stat().st_size < 2_000 * 4096


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
        until(lambda: app.state.core._moved > 50, "the WAL was moved")
        assert (tmp_path / "hub" / "hub.db").stat().st_size > 100_000

"""What one process of a hub is to do is done by one, however close upon each other several are asked."""

from __future__ import annotations

import re
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from holdfast.corpus.postgres import PostgresCorpus
from holdfast.hub import claims
from holdfast.hub.claims import Claims
from holdfast.hub.home import Home
from holdfast.hub.scanning import Scanning
from holdfast.testing.clock import SettableClock
from tests.flow.hubs import HubProcess, until
from tests.hub.lines import Line


@pytest.fixture
def hubs(tmp_path: Path, database: str) -> Iterator[list[HubProcess]]:
    """Two processes of one hub, which makes backups."""
    place = f"file:{tmp_path / 'backups'}"
    started = [HubProcess(tmp_path / f"hub{n}", database=database, backup=place, scan_s=0.0) for n in range(2)]
    yield started
    for hub in started:
        hub.kill()


def ask(hub: HubProcess, path: str) -> Any:
    """What a hub answers."""
    with closing(Line(hub.url)) as line:
        return line.json("GET", path)


def ask_for(hub: HubProcess, path: str, what: str, barrier: threading.Barrier) -> None:
    """Asks for a run by the form of a page, as soon as everybody is ready to."""
    with urllib.request.urlopen(urllib.request.Request(hub.url + path, headers={"Accept": "text/html"})) as answer:
        (token,) = set(re.findall(r'name="form_token" value="(\w+)"', answer.read().decode()))
    form = urlencode({"form_token": token, "what": what}).encode()
    request = urllib.request.Request(f"{hub.url}{path}/act", form, {"Accept": "text/html"})
    barrier.wait(30)
    urllib.request.urlopen(request).close()


def ended(hub: HubProcess, path: str, kind: str) -> bool:
    """Whether the newest run of a kind is done, in the eyes of a process."""
    states = [each["state"] for each in ask(hub, path)["runs"] if each["kind"] == kind]
    assert "failed" not in states
    return states == ["done"]


def test_two_processes_that_are_asked_at_once_do_a_thing_once(hubs: list[HubProcess]) -> None:
    until(lambda: all(ask(hub, "/backups.json")["looked"] for hub in hubs), "both have looked")
    until(lambda: ask(hubs[0], "/backups.json")["total"] == 1, "the first backup is there")
    barrier = threading.Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(ask_for, hubs[n % 2], "/backups", "backup", barrier) for n in range(4)]
        for job in jobs:
            job.result(60)
    until(lambda: all(ended(hub, "/backups.json", "backup") for hub in hubs), "it has ended")

    def done() -> list[str]:
        told = [act["target"] for act in ask(hubs[0], "/v1/audit?what=run")["acts"]]
        return [each for each in told if each != "backup: begun"]  # everybody who asked is told of

    until(done, "the trail tells of it")
    names = {each["name"] for each in ask(hubs[1], "/backups.json")["snapshots"]}
    assert len(names) == 2, "one that was made at the start by one of both, and the one that was asked for"
    assert done() == ["backup: done"]


def test_a_claim_is_one_processs_until_it_is_given_back_or_not_kept_up(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "BEAT_S", 3600.0)
    wall, corpora = SettableClock(), [PostgresCorpus(database) for _ in range(2)]
    try:
        first, second = (Claims(corpus, wall, f"p{n}") for n, corpus in enumerate(corpora))
        barrier = threading.Barrier(2)

        def take(mine: Claims) -> Any:
            barrier.wait(30)
            return mine.take("scan")

        with ThreadPoolExecutor(2) as pool:
            for _ in range(20):
                held = [each for each in pool.map(take, (first, second)) if each is not None]
                assert len(held) == 1
                held[0].release()
        held_now = first.take("scan")
        assert held_now is not None
        assert second.take("scan") is None
        other = second.take("backup")
        assert other is not None, "another thing is another's to take"
        other.release()
        wall.advance(claims.STALE_MS / 1000 - 1)
        assert first.keep("scan")
        wall.advance(claims.STALE_MS / 1000 - 1)
        assert second.take("scan") is None, "it was kept up"
        wall.advance(2)
        taken_over = second.take("scan")
        assert taken_over is not None, "its process is gone"
        assert not first.keep("scan")
        held_now.release()
        assert first.take("scan") is None, "who was given up for lost gives nothing back"
        taken_over.release()
    finally:
        for corpus in corpora:
            corpus.close()


def test_a_scheduled_scan_stands_by_for_another_process(home: Home) -> None:
    try:
        scanning = Scanning(home, 0.001, Claims(home.corpus, home.wall, "one"))
        theirs = Claims(home.corpus, home.wall, "two").take("scan")
        assert theirs is not None
        scanning.turn_if_due()
        assert bool(scanning.progress.at_ms) == home.corpus.inline, (
            "a directory is served by one process, and claims nothing"
        )
        theirs.release()
        scanning.turn_if_due()
        assert scanning.progress.at_ms
    finally:
        home.close()

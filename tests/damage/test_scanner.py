"""The scan in the background: what it finds of the matrix, that a round takes a day, and who is told."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from holdfast.corpus import SqliteCorpus
from holdfast.errors import HoldfastError
from holdfast.integrity.checks import ANCHOR, HUB, WAL, Finding
from holdfast.integrity.scan import Outside, verify_corpus
from holdfast.integrity.scanner import EVERY_S, SLICE, Progress, Scanner
from holdfast.log import value
from holdfast.node.directory import Limits
from holdfast.node.proving import prove
from holdfast.node.scanning import progress, turns
from holdfast.node.store import Store
from holdfast.testing.clock import SettableClock
from tests.damage.matrix import HUB_FAULTS, NODE_FAULTS, NOW_MS, Place, build, copy, flip, log_in
from tests.flow.hubs import until

NO_SCAN = Limits(floor_bytes=0, ballast_bytes=0, scan_s=0)
QUICK = Limits(floor_bytes=0, ballast_bytes=0, scan_s=0.02)


class Memory:
    """Progress that is kept for as long as the test runs."""

    def __init__(self) -> None:
        self.data: bytes | None = None

    def load(self) -> bytes | None:
        return self.data

    def save(self, data: bytes) -> None:
        self.data = data


def scanned(place: Place) -> Progress:
    """A whole round over a place, with what others know of it; a file that cannot be opened is found too."""
    try:
        corpus = SqliteCorpus(place.db, hub=place.hub, read_only=True)
    except HoldfastError as error:
        return Progress(kept=[Finding("page", "", 0, error.message)])

    def outside() -> list[Finding]:
        known = Outside(acked=place.known["acked"], wal=corpus.engine.diagnosis)
        return verify_corpus(corpus, anchor=place.known["anchor"], outside=known, checks=(ANCHOR, HUB, WAL)).findings

    try:
        clock = SettableClock(NOW_MS)
        return Scanner(corpus, Memory(), blobs=place.blobs, wall=clock, outside=outside).turn(whole=True)
    finally:
        corpus.close()


@pytest.mark.parametrize("shape", ["node", "hub"])
def test_a_round_misses_only_what_needs_the_whole_log_at_once(shape: str, tmp_path: Path) -> None:
    sound = build(tmp_path / "sound", hub=shape == "hub")
    missed = set()
    for number, (fault, inject) in enumerate((HUB_FAULTS if sound.hub else NODE_FAULTS).items()):
        damaged = copy(sound, tmp_path / str(number))
        inject(damaged)
        if not scanned(damaged).findings:
            missed.add(fault)
    whole = "old value replayed in state table" if sound.hub else "walk back from message to message"
    assert missed == {"(healthy)", "blob orphaned", whole}


def test_everything_is_looked_at_within_a_day_in_small_shares(tmp_path: Path) -> None:
    corpus = SqliteCorpus(tmp_path / "log.db")
    log = log_in(corpus, tmp_path, NOW_MS - 10_000_000)
    for _ in range(12):
        log.append([value("state", f"k{n}", "x" * 200) for n in range(250)])
    kept, clock = Memory(), SettableClock(NOW_MS)

    def turn() -> Progress:
        clock.advance(EVERY_S)
        return Scanner(corpus, kept, blobs=None, wall=clock).turn()

    done = turn()
    assert done.tip == corpus.last() == 3000, "what is new is looked at at once"
    seen, count = done.records, 1
    while not done.round_ms:
        done, count = turn(), count + 1
        assert done.records - seen <= SLICE, "and everything else by turns"
        seen = done.records
    assert count <= 86_400 / EVERY_S
    assert seen == 6000
    assert done.pages == corpus.engine.pages
    assert done.findings == []
    # A process that slept for days takes a whole round at once, and not a share.
    clock.advance(3 * 86_400)
    assert Scanner(corpus, kept, blobs=None, wall=clock).turn().round_ms == clock.now_ms()

    corpus.write(lambda tx: tx.execute("UPDATE rec SET body=x'00' WHERE pos=1500"))
    while not (found := turn()).findings:
        pass
    assert found.findings[0].seq == 1500
    begun = found.round_ms
    while (found := turn()).round_ms == begun:
        assert found.findings, "it stays told"
    assert found.findings
    corpus.write(lambda tx: tx.drop_body(1500, 1))
    begun = found.round_ms
    while (found := turn()).round_ms == begun:
        pass
    assert found.findings == [], "until a round no longer finds it"
    corpus.close()


def test_a_store_that_stays_open_scans_by_itself_and_everybody_is_told(tmp_path: Path) -> None:
    with Store(tmp_path / "node", "ada", hub=[], limits=QUICK) as store:
        for number in range(20):
            store.put(f"k{number}", f"value {number}")
        directory = store._directory
        until(lambda: progress(directory, "ada").tip == 20, "the scan came by")
        assert store.health()["scan"]["findings"] == []
        store._opened.corpus.write(lambda tx: tx.execute("UPDATE rec SET body=x'00' WHERE pos=7"))
        until(lambda: bool(progress(directory, "ada").findings), "the damage is found")
        assert "seq 7" in store.health()["scan"]["findings"][0]
        assert any("the scan found 1" in problem for problem in store.health()["problems"])
        assert 'holdfast_scan_findings{node="' in store.metrics()
        figures = [line for line in store.metrics().splitlines() if line.startswith("holdfast_scan_findings{")]
        assert [line.rpartition(" ")[2] for line in figures] == ["1"]


def test_two_processes_of_one_directory_do_not_scan_at_once(tmp_path: Path) -> None:
    import fcntl
    import os

    with Store(tmp_path / "node", "ada", hub=[], limits=NO_SCAN) as store:
        store.put("k", 1)
        fd = os.open(tmp_path / "node" / "scan.lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(fd, fcntl.LOCK_EX)
        assert turns(store._directory) == {}
        os.close(fd)
        assert turns(store._directory)["ada"].tip == 1
        assert turns(store._directory, every_s=300) == {}, "a turn was made just now"


def contents(home: Path) -> dict[str, str]:
    """Every file but SQLite's shared memory and the locks, which hold nothing."""
    files = [path for path in sorted(home.rglob("*")) if path.is_file()]
    kept = [path for path in files if not path.name.endswith(("-shm", ".lock", ".door"))]
    return {str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


@pytest.mark.parametrize("damage", ["none", "wal", "page", "blob"])
def test_verify_changes_no_byte(damage: str, tmp_path: Path) -> None:
    with Store(tmp_path / "live", "ada", hub=[], limits=NO_SCAN) as store:
        store.put("big", "x" * 100_000)
        for number in range(60):
            store.put(f"k{number}", "value" * 100)
        # As a power cut leaves it: nothing closed, and the WAL full of what was acknowledged.
        shutil.copytree(tmp_path / "live", tmp_path / "node")
    if damage == "page":  # of the file itself: what the WAL has a newer copy of is nobody's loss
        shutil.rmtree(tmp_path / "node")
        shutil.copytree(tmp_path / "live", tmp_path / "node")
    home = tmp_path / "node"
    log = home / "agents" / "ada" / "log.db"
    if damage == "wal":
        flip(log.with_name("log.db-wal"), 32 + 9 * (4096 + 24) + 300)
    if damage == "page":
        flip(log, 4096 + 4000)
    if damage == "blob":
        flip(next(path for path in (home / "blobs").rglob("*") if path.is_file()), 70_000)
    before = contents(home)
    found = {finding.check for finding in prove(home, "ada").findings}
    assert contents(home) == before
    assert (found == set()) if damage == "none" else (damage in found)


def test_a_finding_says_what_was_expected_and_what_is_there(tmp_path: Path) -> None:
    with Store(tmp_path / "node", "ada", hub=[], limits=NO_SCAN) as store:
        store.put("k", "value")
        corpus: Any = store._opened.corpus
        corpus.write(lambda tx: tx.execute("UPDATE rec SET body=CAST('valuf' AS BLOB)"))
        (finding,) = store.verify().findings
    assert (finding.check, finding.agent, finding.seq) == ("checksum", "ada", 1)
    assert len(finding.expected) == len(finding.actual) == 64
    assert finding.expected != finding.actual
    assert finding.hint

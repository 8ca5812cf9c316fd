"""A log after a power cut: what each level promised is there, nothing is there by half, and the anchor is honest.

Every state that a machine may find is made from what was written and synced, at any moment and in four ways of
losing what was not. `subset` and `torn` are how disks behave; `drop` and `garbage` are the ends of the scale.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from holdfast.corpus import SqliteCorpus
from holdfast.integrity import verify_corpus
from holdfast.log import ADVANCED, BASIC, CRITICAL, Level, Log, remove, value
from holdfast.log.anchor import Anchor, Mark
from holdfast.records import MORE
from holdfast.testing.corpus import log_of
from holdfast.testing.power import MODES, Recorder, crash_state, recording, write_state

STATES = 120
SLOT = 4096


class Told(NamedTuple):
    """What the writer knew at a moment: how far it had been answered, and how far it had synced."""

    at: int
    answered: int
    synced: int


class Machine:
    """Writes a log and records all that reaches the disk, the anchor's writes and the background sync too."""

    def __init__(self, directory: Path, level: Level) -> None:
        self.directory, self.level = directory, level
        self.recorder = Recorder(directory)
        self.told: list[Told] = [Told(0, 0, 0)]
        self.links: list[bytes] = []

    def run(self, turns: int, checkpoints: bool) -> None:
        path = self.directory / "log.db"
        with recording(self.recorder, checksums=True) as vfs:
            datasync = self.recorder.datasync(f"{path}-wal")
            corpus = SqliteCorpus(path, full=self.level.full, vfs=vfs, datasync=datasync)
            log, anchor = log_of(corpus, self.directory), Anchor(self.directory / "log.anchor")
            rng = random.Random(turns)
            for turn in range(turns):
                self.step(log, rng)
                if self.level.anchor_each or (self.level.sync_s and turn % 4 == 3):
                    self.anchored(corpus, log, anchor)
                if self.level.anchor_each and turn % 5 == 4:  # in the background, within 50 ms
                    anchor.sync()
                    self.recorder.synced(self.directory / "log.anchor")
                if checkpoints and turn % 9 == 8:
                    corpus.engine.checkpoint(most_pages=0)
            corpus.close()
            anchor.close()

    def step(self, log: Log, rng: random.Random) -> None:
        """One write, alone or a batch."""
        size = rng.choice((1, 1, 3, 20))
        drafts = [value("state", f"k{rng.randrange(9)}", "x" * rng.choice((5, 400, 5000))) for _ in range(size)]
        if rng.random() < 0.2:
            drafts[-1] = remove("state", "k1", prefix=True)
        written = log.append(drafts)
        self.links += [stored.record.link for stored in written]
        synced = written[-1].record.seq if self.level.full else self.told[-1].synced
        self.told.append(Told(self.recorder.mark(), written[-1].record.seq, synced))

    def anchored(self, corpus: SqliteCorpus, log: Log, anchor: Anchor) -> None:
        """What the level does behind a commit: sync, then move the anchor."""
        head = corpus.head(log.branch.id)
        if not self.level.full:
            corpus.sync()
        file = self.directory / "log.anchor"
        before = file.read_bytes()
        anchor.write(Mark(log.branch.stream, head.seq, head.link, head.hlc))
        after = file.read_bytes()
        for at in range(0, len(after), SLOT):
            if after[at : at + SLOT] != before[at : at + SLOT]:
                self.recorder.wrote(file, at, after[at : at + SLOT])
        self.told.append(Told(self.recorder.mark(), self.told[-1].answered, head.seq))


@pytest.fixture(scope="module", params=[BASIC, ADVANCED, CRITICAL], ids=lambda level: str(level.name))
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    made = Machine(tmp_path_factory.mktemp(request.param.name), request.param)
    made.run(60, checkpoints=True)
    return made


def judged(machine: Machine, cut: int, directory: Path) -> int:
    """Opens what a power cut left and holds it to the promises; how many records there are."""
    told = [each for each in machine.told if each.at <= cut][-1]
    anchor = Anchor(directory / "log.anchor")
    mark = anchor.read()
    anchor.close()
    corpus = SqliteCorpus(directory / "log.db", full=machine.level.full)
    try:
        found = corpus.feed(0, 10_000, 1 << 30)
        assert [stored.record.link for stored in found] == machine.links[: len(found)], (
            "not a prefix of what was written"
        )
        assert not found or not found[-1].record.flags & MORE, "half a batch"
        assert len(found) >= told.synced, "what was synced is lost"
        if machine.level.full:
            assert len(found) >= told.answered, "what was answered is lost"
        if found:
            scan = verify_corpus(corpus, anchor=mark)
            assert scan.findings == [], [str(finding) for finding in scan.findings]
        else:
            assert mark is None
        return len(found)
    finally:
        corpus.close()


@pytest.mark.parametrize("mode", MODES)
def test_a_power_cut_at_any_moment_costs_no_more_than_the_level_says(
    machine: Machine, mode: str, tmp_path: Path
) -> None:
    ops, left = machine.recorder.ops, []
    for seed in range(STATES // 4):
        rng = random.Random(f"{mode}{seed}")
        cut = rng.randrange(len(ops) + 1)
        directory = tmp_path / "found"
        write_state(crash_state(ops, cut, rng, mode), directory)  # type: ignore[arg-type]
        left.append(judged(machine, cut, directory))
        shutil.rmtree(directory)
    assert len(set(left)) > 3, "the cuts were not at different moments"


def test_after_an_orderly_end_everything_is_there(machine: Machine, tmp_path: Path) -> None:
    ops = machine.recorder.ops
    for mode in MODES:
        write_state(crash_state(ops, len(ops), random.Random(1), mode), tmp_path / mode)
        assert judged(machine, len(ops), tmp_path / mode) == len(machine.links)


def test_a_write_that_was_asked_to_be_durable_survives_at_every_level(tmp_path: Path) -> None:
    for level in (BASIC, ADVANCED, CRITICAL):
        (tmp_path / level.name).mkdir()
        machine = Machine(tmp_path / level.name, level)
        path = machine.directory / "log.db"
        with recording(machine.recorder, checksums=True) as vfs:
            datasync = machine.recorder.datasync(f"{path}-wal")
            corpus = SqliteCorpus(path, full=level.full, vfs=vfs, datasync=datasync)
            log = log_of(corpus, machine.directory)
            for number in range(5):
                log.append([value("state", f"{number}", "x" * 500)])
            machine.links = [each.record.link for each in corpus.feed(0, 500, 1 << 30)]
            machine.links.append(log.append([value("state", "durable", 1)], durable=True)[0].record.link)
            cut = machine.recorder.mark()
            corpus.close()
        machine.told.append(Told(cut, 6, 6))
        for seed in range(5):
            found = tmp_path / f"{level.name}{seed}"
            write_state(crash_state(machine.recorder.ops, cut, random.Random(seed), "drop"), found)
            assert judged(machine, cut, found) == 6


def test_without_its_syncs_a_log_is_caught_losing(tmp_path: Path) -> None:
    """The harness can fail: BASIC, held to the promise of CRITICAL, loses what it answered."""
    machine = Machine(tmp_path / "basic", BASIC)
    machine.directory.mkdir()
    machine.run(20, checkpoints=False)
    middle = machine.told[10]
    write_state(crash_state(machine.recorder.ops, middle.at, random.Random(1), "drop"), tmp_path / "found")
    assert judged(machine, middle.at, tmp_path / "found") < middle.answered

"""A log after a power cut: what each level promised is there, nothing is there by half, and the anchor is honest.

Every state that a machine may find is made from what was written and synced, at any moment and in four ways of
losing what was not. `subset` and `torn` are how disks behave; `drop` and `garbage` are the ends of the scale.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from holdfast import records, seal
from holdfast.corpus import Branch, SqliteCorpus, Stored, engine
from holdfast.errors import HoldfastError
from holdfast.integrity import verify_corpus
from holdfast.log import ADVANCED, BASIC, CRITICAL, Level, Log, remove, value
from holdfast.log.anchor import Anchor, Mark
from holdfast.log.prune import prune
from holdfast.objects import BlobFiles
from holdfast.records import MORE
from holdfast.testing.clock import SettableClock
from holdfast.testing.power import (
    MODES,
    Mode,
    Op,
    PowerCut,
    Recorder,
    crash_state,
    recording,
    recording_calls,
    write_state,
)
from tests.damage.recovered import recovered
from tests.promises import Count

STATES = 10_000
"""Of each level in `make test`; a million in `make test-long`."""
AGAIN = 20
"""Of the states that SQLite must read like one that was looked at, one in so many is looked at all the same."""
WAL_BYTES = 256 << 10
"""What a WAL is filled with zeros to; 4 MiB would be most of the work of each state."""
SIGNER = seal.Signer(bytes(range(32)))


class Told(NamedTuple):
    """What the writer knew at a moment: how far it had been answered, and how far it had synced."""

    at: int
    answered: int
    synced: int


class Found(NamedTuple):
    """What is left of a log: how many records, and the anchor's mark."""

    records: int
    mark: Mark | None


class Machine:
    """Writes a log with blobs, checkpoints and prunes it, and records all that reaches the disk."""

    def __init__(self, directory: Path, level: Level) -> None:
        self.directory, self.level = directory, level
        self.recorder = Recorder(directory)
        self.told: list[Told] = [Told(0, 0, 0)]
        self.links: list[bytes] = []
        self.read: dict[bytes, Found] = {}
        self.states = 0

    def run(self, turns: int, *, upkeep: bool) -> None:
        path = self.directory / "log.db"
        with (
            pytest.MonkeyPatch.context() as patch,
            recording(self.recorder, checksums=True) as vfs,
            recording_calls(self.recorder),
        ):
            patch.setattr(engine, "WAL_BYTES", WAL_BYTES)
            datasync = self.recorder.datasync(f"{path}-wal")
            corpus = SqliteCorpus(path, full=self.level.full, vfs=vfs, datasync=datasync)
            log, anchor = begun(corpus, self.directory), Anchor(self.directory / "log.anchor")
            rng = random.Random(turns)
            for turn in range(turns):
                self.step(log, rng)
                if self.level.anchor_each or (self.level.sync_s and turn % 4 == 3):
                    self.anchored(corpus, log, anchor)
                if self.level.anchor_each and turn % 5 == 4:  # in the background, within 50 ms
                    anchor.sync()
                if upkeep and turn % 9 == 8:
                    corpus.engine.checkpoint(most_pages=0)
                if upkeep and turn % 13 == 12:
                    self.prune(log)
            corpus.close()
            anchor.close()

    def step(self, log: Log, rng: random.Random) -> None:
        """One write, alone or a batch; now and then a value that is kept as a blob."""
        size = rng.choice((1, 1, 3, 12))
        drafts = [value("state", f"k{rng.randrange(9)}", "x" * rng.choice((5, 400, 5000))) for _ in range(size)]
        if rng.random() < 0.2:
            drafts[-1] = remove("state", "k1", prefix=True)
        elif rng.random() < 0.1:
            drafts[0] = value("state", "large", rng.randbytes(65_600))
        self.written(log.append(drafts))

    def prune(self, log: Log) -> None:
        """Lets go of what every hub has: all of it, so that much goes."""
        settled = log.corpus.head(log.branch.id)
        prune(log, SIGNER.sign, settled=settled.seq)
        self.written([stored for stored in log.corpus.feed(0, 10_000, 1 << 30) if stored.record.seq > settled.seq])
        # The record that explains the gap was synced before the gap was made.
        self.told.append(Told(self.recorder.mark(), len(self.links), len(self.links)))

    def written(self, records: list[Stored]) -> None:
        """Keeps what has just been answered."""
        self.links += [stored.record.link for stored in records]
        seq = records[-1].record.seq
        assert seq == len(self.links)
        self.told.append(Told(self.recorder.mark(), seq, seq if self.level.full else self.told[-1].synced))

    def anchored(self, corpus: SqliteCorpus, log: Log, anchor: Anchor) -> None:
        """What the level does behind a commit: sync, then move the anchor."""
        head = corpus.head(log.branch.id)
        if not self.level.full:
            corpus.sync()
        anchor.write(Mark(log.branch.stream, head.seq, head.link, head.hlc))
        self.told.append(Told(self.recorder.mark(), self.told[-1].answered, head.seq))


def begun(corpus: SqliteCorpus, directory: Path) -> Log:
    """A log that its key can prune."""
    key = SIGNER.public_key
    stream = records.stream_id(key, "ada")
    start = records.genesis(stream)
    new = Branch(0, stream, bytes(16), "ada", key, key, True, 0, start, 0, start)
    branch = corpus.write(lambda tx: (tx.branches(stream) or [tx.open_branch(new)])[0])
    return Log(corpus, branch, blobs=BlobFiles(directory / "blobs"), wall=SettableClock())


@pytest.fixture(scope="module", params=[BASIC, ADVANCED, CRITICAL], ids=lambda level: str(level.name))
def machine(request: pytest.FixtureRequest, quick: Path) -> Machine:
    (quick / request.param.name).mkdir()
    made = Machine(quick / request.param.name, request.param)
    made.run(40, upkeep=True)
    return made


def judged(machine: Machine, cut: int, files: dict[str, bytes], directory: Path) -> int:
    """Opens what a power cut left and holds it to the promises; how many records there are."""
    told = [each for each in machine.told if each.at <= cut][-1]
    like = recovered(files)  # different cuts may leave what SQLite reads alike
    machine.states += 1
    found = machine.read.get(like)
    if found is None or machine.states % AGAIN == 0:
        write_state(files, directory)
        saw = looked(machine, directory)
        shutil.rmtree(directory)
        assert found in (None, saw), "SQLite reads what `recovered` takes for the same in another way"
        found = machine.read[like] = saw
    assert found.records >= told.synced, "what was synced is lost"
    if machine.level.full:
        assert found.records >= told.answered, "what was answered is lost"
    return found.records


def looked(machine: Machine, directory: Path) -> Found:
    """What there is, proven to be a prefix of what was written and whole."""
    directory.mkdir(exist_ok=True)
    anchor = Anchor(directory / "log.anchor")
    mark = anchor.read()
    anchor.close()
    # Not at the level that wrote it: that would only fill a WAL with zeros at each opening.
    corpus = SqliteCorpus(directory / "log.db")
    try:
        found = corpus.feed(0, 10_000, 1 << 30)
        assert all(machine.links[stored.record.seq - 1] == stored.record.link for stored in found), (
            "not what was written"
        )
        assert not found or not found[-1].record.flags & MORE, "half a batch"
        if found:
            scan = verify_corpus(corpus, BlobFiles(directory / "blobs"), anchor=mark)
            assert scan.findings == [], [str(finding) for finding in scan.findings]
        else:
            assert mark is None
        return Found(found[-1].record.seq if found else 0, mark)
    finally:
        corpus.close()


LONG = [pytest.param(mode, 250_000, marks=pytest.mark.long) for mode in MODES]


@pytest.mark.parametrize(("mode", "states"), [*((mode, STATES // 4) for mode in MODES), *LONG])
def test_a_power_cut_at_any_moment_costs_no_more_than_the_level_says(
    machine: Machine, mode: Mode, states: int, quick: Path, count: Count
) -> None:
    ops, left, lost = machine.recorder.ops, set[int](), 0
    rng = random.Random(f"{mode}{states}")
    cuts = Counter(rng.randrange(len(ops) + 1) for _ in range(states))
    for cut, times in sorted(cuts.items()):
        power = PowerCut(ops, cut)
        answered = [each for each in machine.told if each.at <= cut][-1].answered
        for _ in range(times):
            kept = judged(machine, cut, power.files(rng, mode), quick / "found")
            lost += kept < answered
            left.add(kept)
    assert len(left) > 3, "the cuts were not at different moments"
    name = machine.level.name
    if machine.level.full:
        count(f"power cut at level {name}", tried=states, nothing_answered_lost=states - lost)
    else:
        count(f"power cut at level {name}", tried=states, whole=states - lost, without_the_newest_writes=lost)


def test_after_an_orderly_end_everything_is_there(machine: Machine, quick: Path) -> None:
    ops = machine.recorder.ops
    for mode in MODES:
        files = crash_state(ops, len(ops), random.Random(1), mode)
        assert judged(machine, len(ops), files, quick / "ended") == len(machine.links)


def test_a_write_that_was_asked_to_be_durable_survives_at_every_level(tmp_path: Path) -> None:
    for level in (BASIC, ADVANCED, CRITICAL):
        (tmp_path / level.name).mkdir()
        machine = Machine(tmp_path / level.name, level)
        path = machine.directory / "log.db"
        with recording(machine.recorder, checksums=True) as vfs:
            datasync = machine.recorder.datasync(f"{path}-wal")
            corpus = SqliteCorpus(path, full=level.full, vfs=vfs, datasync=datasync)
            log = begun(corpus, machine.directory)
            for number in range(5):
                log.append([value("state", f"{number}", "x" * 500)])
            machine.links = [each.record.link for each in corpus.feed(0, 500, 1 << 30)]
            machine.links.append(log.append([value("state", "durable", 1)], durable=True)[0].record.link)
            cut = machine.recorder.mark()
            corpus.close()
        machine.told.append(Told(cut, 6, 6))
        for seed in range(5):
            files = crash_state(machine.recorder.ops, cut, random.Random(seed), "drop")
            assert judged(machine, cut, files, tmp_path / "found") == 6


def test_without_its_syncs_a_log_is_caught_losing(quick: Path) -> None:
    """The harness can fail: BASIC, held to the promise of CRITICAL, loses what it answered."""
    machine = Machine(quick / "losing", BASIC)
    machine.directory.mkdir()
    machine.run(20, upkeep=False)
    middle = machine.told[10]
    files = crash_state(machine.recorder.ops, middle.at, random.Random(1), "drop")
    assert judged(machine, middle.at, files, quick / "found") < middle.answered


def test_without_any_sync_a_log_is_caught_broken(quick: Path, count: Count) -> None:
    """The harness can fail: without syncs a checkpoint leaves a file that is no prefix of anything."""
    machine = Machine(quick / "off", BASIC)
    machine.directory.mkdir()
    machine.run(45, upkeep=True)
    # As with synchronous=OFF on each of its connections: a sync that covers nothing.
    files = ("log.db", "log.db-wal")
    ops = [Op("sync", op.name) if op.kind == "sync" and op.name in files else op for op in machine.recorder.ops]
    broken = 0
    for seed in range(100):
        rng = random.Random(seed)
        cut = rng.randrange(len(ops) // 2, len(ops) + 1)
        directory = quick / f"off{seed}"
        try:
            judged(machine, cut, crash_state(ops, cut, rng, MODES[seed % 4]), directory)
        except (AssertionError, HoldfastError):
            broken += 1
    assert broken > 20
    count("power cut with SQLite's syncs switched off, to try the harness", tried=100, caught=broken)

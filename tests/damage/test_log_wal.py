"""A log that a killed process left, with a bit of its WAL turned: found, and never a state that it was not in."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.corpus import SqliteCorpus
from holdfast.errors import IntegrityError
from holdfast.integrity import verify_corpus
from holdfast.log import CRITICAL, OpenLog
from holdfast.objects import BlobFiles
from holdfast.records import MORE
from holdfast.sqlite.quarantine import incidents
from holdfast.testing.corpus import KEY, log_of, put
from tests import forks

FIRST = 200
COMMITS = 40
FRAME = 4120
FLIPS = 16
ENDS = ("", "-wal", "-shm")

_WRITER = """
import os, sys
from pathlib import Path
from holdfast.corpus import SqliteCorpus
from holdfast.log import value
from holdfast.testing.corpus import log_of
directory, first, commits, moved, pinned = Path(sys.argv[1]), *map(int, sys.argv[2:])
corpus = SqliteCorpus(directory / "log.db")
log_of(corpus, directory).append([value("state", f"k{i:03}" + "-" * 80, i) for i in range(first)])
corpus.close()
corpus = SqliteCorpus(directory / "log.db")
log = log_of(corpus, directory)
for i in range(commits):
    if i == pinned:
        moment = corpus.engine.moment()
        moment.__enter__()("SELECT * FROM rec").fetchone()
    body = os.urandom((100, 900, 3000)[i % 3]).hex()
    log.append([value("state", f"k{i * 37 % first:03}" + "-" * 80, body), value("notes", f"n{i}", i)])
    if i == moved:
        corpus.engine.checkpoint(most_pages=0)
os._exit(9)
"""


class Left:
    """What a killed process left, put into a folder again and again, each time with another bit turned."""

    def __init__(self, folder: Path, *, moved: int = -1, pinned: int = -1) -> None:
        folder.mkdir()
        assert forks.run("-c", _WRITER, str(folder), *map(str, (FIRST, COMMITS, moved, pinned))).returncode == 9
        self.folder, self.path = folder / "opened", folder / "log.db"
        self.files = {end: Path(f"{self.path}{end}").read_bytes() for end in ENDS}
        self.path = self.folder / "log.db"
        self.truth: list[Any] = []
        corpus = SqliteCorpus(self.again())
        self.truth = [(each.record, each.payload()) for each in corpus.feed(0, 10_000, 1 << 30)]
        corpus.close()
        assert len(self.truth) == FIRST + 2 * COMMITS

    def again(self, change: Callable[[bytearray], None] = lambda wal: None) -> Path:
        """The files as they were left, but for a change of the WAL."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        wal = bytearray(self.files["-wal"])
        change(wal)
        for end, data in {**self.files, "-wal": bytes(wal)}.items():
            Path(f"{self.path}{end}").write_bytes(data)
        return self.path

    def as_it_is(self) -> dict[str, bytes]:
        return {end: Path(f"{self.path}{end}").read_bytes() for end in ENDS if Path(f"{self.path}{end}").exists()}


def places(files: dict[str, bytes], count: int = FLIPS) -> list[tuple[int, int]]:
    """Where to turn which bit: in the header, in headers of frames, in pages, in the last frames."""
    rng = random.Random(5)
    salts, wal = files["-wal"][16:24], files["-wal"]
    used = [at for at in range(32, len(wal) - FRAME + 1, FRAME) if wal[at + 8 : at + 16] == salts]
    found = [rng.randrange(32), rng.randrange(32)]
    found += [rng.choice(used) + rng.randrange(24) for _ in range(count // 4)]
    found += [rng.choice(used[-5:]) + rng.randrange(FRAME) for _ in range(count // 4)]
    found += [rng.choice(used) + rng.randrange(FRAME) for _ in range(count - len(found))]
    return [(at, 1 << rng.randrange(8)) for at in found]


def turn(at: int, mask: int) -> Callable[[bytearray], None]:
    """What turns bits of one byte."""

    def change(wal: bytearray) -> None:
        wal[at] ^= mask

    return change


def held_to_the_truth(corpus: SqliteCorpus, truth: list[Any]) -> int:
    """How many records are there; they are the first that were written, and everything else agrees with them."""
    found = [(each.record, each.payload()) for each in corpus.feed(0, 10_000, 1 << 30)]
    assert found == truth[: len(found)], "not a beginning of what was written"
    assert not found[-1][0].flags & MORE, "half a batch"
    newest = {(record.collection, record.key): payload for record, payload in found}
    said = {
        (collection, stored.record.key): stored.payload()
        for collection, _ in corpus.collections("ada")
        for stored in corpus.keys("ada", collection, "", "", 1000)
    }
    assert said == newest, "wrong values"
    scan = verify_corpus(corpus)
    assert scan.findings == [], [str(finding) for finding in scan.findings]
    return len(found)


def judge(left: Left) -> str:
    """Opens what was left: refused with nothing changed, or held to the truth."""
    before = left.as_it_is()
    try:
        corpus = SqliteCorpus(left.path)
    except IntegrityError as error:
        said = error.message
        told = incidents(left.folder / "quarantine")
    else:
        return judge_opened(left, corpus)
    assert "no state that ever was" in said
    assert left.as_it_is() == before
    assert [each["note"]["standing"] for each in told] == ["mixed"]
    kept = left.folder / "quarantine" / told[0]["incident"]
    assert {end: (kept / f"log.db{end}").read_bytes() for end in before} == before
    return "refused"


def judge_opened(left: Left, corpus: SqliteCorpus) -> str:
    """Holds it to the truth, writes to it, and does so again."""
    try:
        diagnosis, standing = corpus.engine.diagnosis, corpus.engine.standing
        assert diagnosis is not None
        assert diagnosis.damaged or diagnosis.flipped, "lost unseen"
        count = held_to_the_truth(corpus, left.truth)
        assert (corpus.engine.quarantined is not None) == (diagnosis.damaged or standing == "whole")
        put(log_of(corpus, left.folder), "later", 1)
    finally:
        corpus.close()
    corpus = SqliteCorpus(left.path)
    assert corpus.last() == count + 1
    assert verify_corpus(corpus).findings == []
    corpus.close()
    if standing == "whole":
        assert count == len(left.truth), "the file was said to have everything"
        return "nothing lost"
    assert diagnosis.damaged or count >= len(left.truth) - 2, "only the last commit may look torn"
    return "told"


def outcomes(left: Left, count: int = FLIPS) -> Counter[str]:
    seen: Counter[str] = Counter()
    for at, mask in places(left.files, count):
        left.again(turn(at, mask))
        seen[judge(left)] += 1
    return seen


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Left:
    return Left(tmp_path_factory.mktemp("plain") / "log")


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Left:
    """A checkpoint moved what no reader needed: pages of some commits, and newer ones of others not at all."""
    return Left(tmp_path_factory.mktemp("part") / "log", moved=30, pinned=18)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Left:
    return Left(tmp_path_factory.mktemp("whole") / "log", moved=COMMITS - 1)


@pytest.fixture(params=[True, False], ids=["shm", "no-shm"])
def shm(request: pytest.FixtureRequest) -> bool:
    """Whether the -shm is there, which a power cut or whoever copies the files leaves out."""
    return bool(request.param)


def test_what_no_checkpoint_touched_opens_as_it_was_before_the_damage(
    plain: Left, shm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shm:
        monkeypatch.delitem(plain.files, "-shm")
    assert outcomes(plain) == {"told": FLIPS}


def test_where_the_file_has_all_of_it_nothing_is_lost(whole: Left, shm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shm:
        monkeypatch.delitem(whole.files, "-shm")
    assert outcomes(whole) == {"nothing lost": FLIPS}


def test_older_pages_never_come_over_newer_ones(part: Left, shm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shm:
        monkeypatch.delitem(part.files, "-shm")
    seen = outcomes(part)
    assert seen["refused"] > 3
    assert seen["told"] > 3
    assert set(seen) == {"refused", "told"}


def test_a_checkpoint_that_was_killed_half_way_is_found_out(
    plain: Left, shm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages are moved in their order; how many were, nothing says."""
    corpus = SqliteCorpus(plain.again())
    corpus.close()
    after, before = plain.path.read_bytes(), plain.files[""]
    index = bytearray(plain.files["-shm"])
    index[128:132] = index[16:20]  # begun to be moved: all
    monkeypatch.setitem(plain.files, "-shm", bytes(index))
    if not shm:
        monkeypatch.delitem(plain.files, "-shm")
    seen: Counter[str] = Counter()
    for pages in range(1, len(after) // 4096, len(after) // 4096 // 4):
        monkeypatch.setitem(plain.files, "", after[: pages * 4096] + before[pages * 4096 :])
        seen += outcomes(plain, 7)
    assert seen["refused"] > 10
    monkeypatch.setitem(plain.files, "", after)
    assert outcomes(plain, 8) == {"nothing lost": 8}


def test_who_is_refused_again_makes_no_more_copies(part: Left) -> None:
    for at, mask in places(part.files):
        part.again(turn(at, mask))
        if judge(part) == "refused":
            break
    assert judge(part) == "refused", "and `judge` wants one incident, not two"


def test_critical_is_refused_what_was_lost_and_only_told_where_nothing_was(plain: Left, whole: Left) -> None:
    def opened(left: Left) -> OpenLog:
        left.again(turn(5 * FRAME, 8))
        return OpenLog(left.folder, "ada", public_key=KEY, blobs=BlobFiles(left.folder / "blobs"), level=CRITICAL)

    log = opened(whole)
    assert [each.what for each in log.incidents] == ["wal-damaged"]
    assert "nothing is lost" in log.incidents[0].detail
    log.close()
    with pytest.raises(IntegrityError, match="lost commits"):
        opened(plain)

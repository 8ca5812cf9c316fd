"""What disks do beside turning bits: a write lands elsewhere, an old one comes back, a file ends too soon or is gone.

The pages that such a disk returns were written by us, so their checksums are right, and until a scan a read may be
answered from one that belongs elsewhere. What is proven here: nothing of it stays unseen by opening, reading and one
scan, and nothing of it ends in anything but a finding or an error of ours.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from holdfast.corpus import SqliteCorpus
from holdfast.integrity import verify_corpus
from tests.damage.witness import FILES, PAGE, Files, Witness, named
from tests.promises import Count

MIB = 1 << 20
FAULTS = 100
KINDS = ("copied", "stale", "cut")


@pytest.fixture(scope="module")
def small(quick: Path) -> Witness:
    (quick / "small").mkdir()
    return Witness(quick / "small")


@pytest.fixture(scope="module")
def large(quick: Path) -> Witness:
    """Several MiB, in few records."""
    (quick / "large").mkdir()
    return Witness(quick / "large", records=60, sizes=(60_000, 65_000))


def spoilt(witness: Witness, kind: str, size: int, rng: random.Random) -> tuple[Files, str]:
    """The files after one fault of a disk that works in chunks of so many bytes, and where it struck."""
    base = rng.choice((witness.closed, witness.killed, witness.killed))
    name = "log.db" if base is witness.closed else rng.choice(("log.db", "log.db-wal"))
    data = base[name]
    while True:
        chunks = -(-len(data) // size)
        at = rng.randrange(chunks) * size
        if kind == "copied":
            other = rng.randrange(chunks) * size
            new = data[:at] + data[other : other + size] + data[at + size :]
        elif kind == "stale":
            new = data[:at] + witness.old[name][at : at + size] + data[at + size :]
        else:
            new = data[: rng.choice((at, rng.randrange(len(data))))]
        if new != data:
            return {**base, name: new}, f"{name} {kind} at {at} of {len(data)}"


def cases(many: int) -> list[tuple[str, int, int]]:
    """So many faults of a kind, over the sizes of chunks."""
    return [(kind, size, many * share // 10) for kind in KINDS for size, share in ((512, 5), (PAGE, 10), (MIB, 2))]


LONG = [pytest.param(*case, marks=pytest.mark.long) for case in cases(40 * FAULTS)]


@pytest.mark.parametrize(("kind", "size", "many"), [*cases(FAULTS), *LONG])
def test_no_fault_of_a_disk_stays_unseen(
    small: Witness, large: Witness, count: Count, kind: str, size: int, many: int
) -> None:
    witness, found = large if size == MIB else small, Counter[str]()
    misled = 0
    for seed in range(many):
        files, where = spoilt(witness, kind, size, random.Random(f"{kind}{size}{seed}"))
        verdict = witness.judge(files, scan=True)
        assert verdict.found or not verdict.wrong, (seed, where, verdict)
        found[verdict.found or "harmless"] += 1
        misled += bool(verdict.wrong) and verdict.found != "open"
    what = {"copied": "a write landed elsewhere", "stale": "an old write came back", "cut": "a file was cut short"}
    count(what[kind], tried=many, **named(found), with_wrong_answers_before_that=misled)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_gone_is_missed_unless_nothing_is_lost_with_it(small: Witness, name: str) -> None:
    for base in (small.closed, small.killed):
        verdict = small.judge({each: data for each, data in base.items() if each != name}, scan=True)
        assert verdict.found == "open" or not verdict.wrong
    assert bool(verdict.found) is (name != "log.anchor"), "killed, its last commits are in the WAL"


def test_a_page_in_anothers_place_does_not_lead_a_scan_in_a_circle(small: Witness, quick: Path) -> None:
    """Each leaf of the table of records in each other's place, and each of its interior pages: rows in a circle."""
    data = small.closed["log.db"]
    home, ended = quick / "circle", 0
    pages = [n for n in range(1, len(data) // PAGE) if data[n * PAGE] in (5, 13)]
    rng = random.Random(3)
    for one, other in [(one, rng.choice(pages)) for one in pages if data[one * PAGE] == 5 for _ in range(12)]:
        home.mkdir()
        moved = data[: one * PAGE] + data[other * PAGE : (other + 1) * PAGE] + data[(one + 1) * PAGE :]
        (home / "log.db").write_bytes(moved)
        corpus = SqliteCorpus(home / "log.db")
        ended += one != other and not verify_corpus(corpus).sound
        corpus.close()
        shutil.rmtree(home)
    assert ended

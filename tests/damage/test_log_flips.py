"""One turned bit anywhere in a log is found when it is read or by a scan, and never returned as a value."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from holdfast.corpus import Filter, SqliteCorpus
from holdfast.errors import HoldfastError
from holdfast.integrity import verify_corpus
from holdfast.log import remove, value
from holdfast.testing.corpus import log_of, put

PAGE = 4096
FLIPS = {"header": 100, "interior": 50, "leaf": 100, "free": 40, "checksum": 20}


class Made(NamedTuple):
    """A closed log, and everything that was in it."""

    directory: Path
    truth: dict[str, Any]


def all_that_it_says(corpus: SqliteCorpus) -> dict[str, Any]:
    """Everything that a log says of itself, read every way there is."""
    said: dict[str, Any] = {"last": corpus.last(), "collections": corpus.collections("ada")}
    for stored in corpus.feed(0, 500, 1 << 30):
        said[f"at {stored.pos}"] = (corpus.at(stored.pos), stored.payload())
    for collection, _ in said["collections"]:
        for stored in corpus.keys("ada", collection, "", "", 1000):
            key = stored.record.key
            said[f"{collection}/{key}"] = (corpus.newest("ada", collection, key), stored.payload())
            said[f"{collection}/{key} versions"] = list(corpus.versions("ada", collection, key))
    said["page"] = corpus.page(Filter(collection="notes"))
    return said


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    directory = tmp_path_factory.mktemp("made")
    rng = random.Random(7)
    corpus = SqliteCorpus(directory / "log.db")
    log = log_of(corpus, directory)
    for number in range(120):
        put(log, f"k{number % 40}", rng.randbytes(rng.choice((10, 300, 900, 6000))), ("state", "notes")[number % 2])
    log.append([remove("state", "k1", prefix=True), value("state", "k10", "back")])

    def fill(tx: Any) -> None:
        for number in range(40):
            tx.execute("INSERT INTO tag VALUES(99,?,?)", ("r" * 3000, number))

    corpus.write(fill)
    corpus.write(lambda tx: tx.execute("DELETE FROM tag WHERE k=99"))  # pages that nothing uses any more
    truth = all_that_it_says(corpus)
    assert verify_corpus(corpus).sound
    corpus.close()
    return Made(directory, truth)


def kinds_of_pages(data: bytes) -> dict[str, list[int]]:
    """The pages of a file by what they hold, as sqlite.org/fileformat2.html says."""
    kinds: dict[str, list[int]] = {"header": [0], "interior": [], "leaf": [], "free": []}
    free: set[int] = set()
    trunk = int.from_bytes(data[32:36], "big")
    while trunk:
        at = (trunk - 1) * PAGE
        count = int.from_bytes(data[at + 4 : at + 8], "big")
        free |= {trunk} | {int.from_bytes(data[at + 8 + 4 * n : at + 12 + 4 * n], "big") for n in range(count)}
        trunk = int.from_bytes(data[at : at + 4], "big")
    for number in range(1, len(data) // PAGE):
        kind = data[number * PAGE]
        if number + 1 in free:
            kinds["free"].append(number)
        elif kind in (2, 5):
            kinds["interior"].append(number)
        else:
            kinds["leaf"].append(number)  # leaves, and the overflow of large bodies
    return kinds


def places(data: bytes) -> Iterator[tuple[str, int]]:
    """Where to turn a bit: some of each kind."""
    rng = random.Random(11)
    kinds = kinds_of_pages(data)
    assert all(kinds.values()), {kind: len(pages) for kind, pages in kinds.items()}
    for kind, count in FLIPS.items():
        for number in range(count):
            if kind == "header":
                at = number  # the 100 bytes that say what the file is
            elif kind == "checksum":
                at = rng.choice(kinds["leaf"] + kinds["interior"]) * PAGE + PAGE - 8 + number % 8
            else:
                at = rng.choice(kinds[kind]) * PAGE + rng.randrange(PAGE - 8)
            yield kind, at * 8 + rng.randrange(8)


def judge(directory: Path, truth: dict[str, Any]) -> str:
    """How the damage was found; fails when a wrong value was returned."""
    try:
        corpus = SqliteCorpus(directory / "log.db")
    except HoldfastError:
        return "open"
    try:
        found = ""
        try:
            assert all_that_it_says(corpus) == truth, "a wrong value was returned"
        except HoldfastError:
            found = "read"
        if not corpus.engine.unusable and not verify_corpus(corpus).sound:
            found = found or "scan"
        return found
    finally:
        corpus.close()


def test_every_flip_is_found_and_none_is_returned(made: Made, tmp_path: Path) -> None:
    data = (made.directory / "log.db").read_bytes()
    found: Counter[tuple[str, str]] = Counter()
    missed = []
    target = tmp_path / "log"
    for kind, bit in places(data):
        target.mkdir()
        bad = bytearray(data)
        bad[bit // 8] ^= 1 << bit % 8
        (target / "log.db").write_bytes(bad)
        how = judge(target, made.truth)
        found[kind, how] += 1
        if not how:
            missed.append((kind, bit // 8, bit % 8))
        shutil.rmtree(target)
    assert not missed, missed
    assert sum(found.values()) == sum(FLIPS.values())
    assert found["leaf", "read"] + found["leaf", "open"] > 50, found


@pytest.mark.parametrize("cut", [1, 100, PAGE, 3 * PAGE, 10 * PAGE, -PAGE, -100])
def test_a_file_cut_short_is_found(made: Made, tmp_path: Path, cut: int) -> None:
    """Negative: so much is left of it."""
    data = (made.directory / "log.db").read_bytes()
    (tmp_path / "log.db").write_bytes(data[:-cut])
    assert judge(tmp_path, made.truth)


def test_a_page_in_anothers_place_is_found(made: Made, tmp_path: Path) -> None:
    """A misdirected write: the checksum of each page is right, and it is the wrong page."""
    data = (made.directory / "log.db").read_bytes()
    leaves = [n for n in kinds_of_pages(data)["leaf"] if data[n * PAGE] == 13]
    one, other = leaves[1], leaves[-2]
    swapped = bytearray(data)
    swapped[one * PAGE : (one + 1) * PAGE] = data[other * PAGE : (other + 1) * PAGE]
    (tmp_path / "log.db").write_bytes(swapped)
    corpus = SqliteCorpus(tmp_path / "log.db")
    assert not verify_corpus(corpus).sound
    corpus.close()


def test_the_untouched_file_is_sound(made: Made, tmp_path: Path) -> None:
    shutil.copy(made.directory / "log.db", tmp_path / "log.db")
    assert judge(tmp_path, made.truth) == ""

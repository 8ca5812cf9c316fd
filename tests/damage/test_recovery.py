"""Damage of every kind to a live store, and what recovery makes of it: all of it back, or a refusal with its evidence.

Each case damages a copy of one store as a kill left it, repairs it with what the case allows, and holds the result
against the model: every record's link and every value as before, proven by a scan.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.integrity.recovery import plan_json
from holdfast.node import repair
from tests.damage.recovering import World, corpus_of, everything, flip, flip_in, is_as_before, log_at

PAGE = 4096
FLIPS = 30


def flip_link(home: Path) -> None:
    """Turns a bit of a link that lies beside its record."""
    with corpus_of(home) as corpus:
        stored = corpus.at(40)
        assert stored is not None
        link = stored.record.link
    flip(log_at(home), log_at(home).read_bytes().index(link))


def flip_tree(home: Path) -> None:
    """Turns a bit in a page that leads to others."""
    data = log_at(home).read_bytes()
    page = next(at for at in range(PAGE, len(data), PAGE) if data[at] == 5)
    flip(log_at(home), page + 14)


def lose_trees(home: Path) -> None:
    """Puts the newest records' page over every page that leads to others: the rest cannot be reached, and is whole."""
    data = log_at(home).read_bytes()
    leaves = [at for at in range(PAGE, len(data), PAGE) if data[at] == 13 and b"value" in data[at : at + PAGE]]
    with open(log_at(home), "r+b") as file:
        for page in range(PAGE, len(data), PAGE):
            if data[page] == 5:
                file.seek(page)
                file.write(data[leaves[-1] : leaves[-1] + PAGE])


def flip_keys(home: Path) -> None:
    """Turns a bit among the newest versions of the keys."""
    data = log_at(home).read_bytes()
    page = next(at for at in range(PAGE, len(data), PAGE) if data[at] == 10 and b"k11" in data[at : at + PAGE])
    flip(log_at(home), page + data[page : page + PAGE].index(b"k11"))


def flip_unused(home: Path) -> None:
    """Turns a bit between the cells of a page."""
    data = log_at(home).read_bytes()
    page = next(at for at in range(PAGE, len(data), PAGE) if data[at] == 13)
    cells = int.from_bytes(data[page + 3 : page + 5], "big")
    flip(log_at(home), page + 8 + 2 * cells + 1)


def flip_wal(share: float) -> Callable[[Path], None]:
    """Turns a bit of the WAL, so far into what it holds."""

    def fault(home: Path) -> None:
        frames = used_frames(log_at(home, "-wal"))
        flip(log_at(home, "-wal"), 32 + int(frames * share) * (PAGE + 24) + 700)

    return fault


def used_frames(wal: Path) -> int:
    """How many frames a WAL really holds: it is filled up with zeros."""
    data = wal.read_bytes()
    return sum(any(data[at : at + 4]) for at in range(32, len(data), PAGE + 24))


def cut_wal(home: Path) -> None:
    """Takes the last third of the WAL away."""
    os.truncate(log_at(home, "-wal"), 32 + used_frames(log_at(home, "-wal")) * 2 // 3 * (PAGE + 24))


def cut(share: float, odd: int = 0) -> Callable[[Path], None]:
    """Cuts the file off."""

    def fault(home: Path) -> None:
        size = log_at(home).stat().st_size
        os.truncate(log_at(home), int(size * share) // PAGE * PAGE - odd)

    return fault


def lose(*ends: str) -> Callable[[Path], None]:
    """Takes files of the log away."""

    def fault(home: Path) -> None:
        for end in ends:
            log_at(home, end).unlink(missing_ok=True)

    return fault


def put_back(home: Path) -> None:
    """Puts an earlier file in the log's place; the anchor stays."""
    for end in ("", "-wal", "-shm"):
        log_at(home, end).unlink(missing_ok=True)
        shutil.copyfile(log_at(EARLIER[0], end), log_at(home, end))


EARLIER: list[Path] = []


def put_back_all(home: Path) -> None:
    """Puts the whole folder of the agent back to what it was, anchor and all."""
    put_back(home)
    shutil.copyfile(EARLIER[0] / "agents/a/log.anchor", home / "agents/a/log.anchor")


def rows(sql: str) -> Callable[[Path], None]:
    """Changes rows through SQLite, page checksums and all."""

    def fault(home: Path) -> None:
        with corpus_of(home) as corpus:
            corpus.write(lambda tx: tx.execute(sql))

    return fault


def blob_file(home: Path) -> Path:
    """One of the blobs."""
    return min(each for each in (home / "blobs").rglob("*") if each.is_file() and len(each.name) == 64)


def garbage_pages(home: Path) -> None:
    """Overwrites two whole pages of records with noise."""
    data = log_at(home).read_bytes()
    leaves = [at for at in range(PAGE, len(data), PAGE) if data[at] == 13 and b"value" in data[at : at + PAGE]]
    with open(log_at(home), "r+b") as file:
        for page in leaves[2:4]:
            file.seek(page)
            file.write(random.Random(page).randbytes(PAGE))


def stale_page(home: Path) -> None:
    """Puts one page where another belongs: a write that went astray."""
    data = log_at(home).read_bytes()
    leaves = [at for at in range(PAGE, len(data), PAGE) if data[at] == 13 and b"value" in data[at : at + PAGE]]
    with open(log_at(home), "r+b") as file:
        file.seek(leaves[3])
        file.write(data[leaves[1] : leaves[1] + PAGE])


def several_at_once(home: Path) -> None:
    """A payload, a link, the keys and a blob, all in one store."""
    flip_in(b"value 61 ", 3)(home)
    flip_link(home)
    flip_keys(home)
    blob_file(home).unlink()


OK = "repaired"
VALUE, HOLE, HEAD, RECEIPT = "loses a value", "not provable", "lowers the head", "contradicts a receipt"

FAULTS: dict[str, tuple[str, Callable[[Path], None], str]] = {
    # name: (which copy, what is done to it, what becomes of it with neither hub nor copy)
    "a bit of a payload": ("closed", flip_in(b"value 61 ", 3), VALUE),
    "a bit of the first value": ("closed", flip_in(b"value 1 ", 2), VALUE),
    "a bit of a wide payload": ("closed", lambda home: flip(log_at(home), wide_page(home) + 900), VALUE),
    "a bit of a link": ("closed", flip_link, OK),
    "a bit of a tree": ("closed", flip_tree, OK),
    "every tree lost": ("closed", lose_trees, OK),
    "a bit among the keys": ("closed", flip_keys, OK),
    "a bit that nothing uses": ("closed", flip_unused, OK),
    "a bit of the file's header": ("closed", lambda home: flip(log_at(home), 30), OK),
    "a bit of the schema": ("closed", flip_in(b"CREATE TABLE rec", 3), OK),
    "a bit of the WAL, early": ("killed", flip_wal(0.2), OK),
    "a bit of the WAL, in the middle": ("killed", flip_wal(0.5), OK),
    "a bit of the WAL, late": ("killed", flip_wal(0.9), OK),
    "a bit of the WAL's header": ("killed", lambda home: flip(log_at(home, "-wal"), 17), OK),
    "the WAL cut off": ("killed", cut_wal, HEAD),
    "the WAL lost": ("killed", lose("-wal", "-shm"), HEAD),
    "the file lost": ("closed", lose("", "-wal", "-shm"), HEAD),
    "the file lost, the WAL left": ("killed", lose("", "-shm"), OK),
    "the file cut to half": ("closed", cut(0.5), HEAD),
    "the file cut in a page": ("closed", cut(0.8, odd=100), HEAD),
    "the file emptied": ("closed", cut(0), HEAD),
    "an earlier file put back": ("closed", put_back, HEAD),
    "an earlier folder put back": ("closed", put_back_all, RECEIPT),
    "two pages of noise": ("closed", garbage_pages, HOLE),
    "a page in another's place": ("closed", stale_page, HOLE),
    "a body removed": ("closed", rows("UPDATE rec SET body=NULL WHERE pos=50"), VALUE),
    "a row deleted": ("closed", rows("DELETE FROM rec WHERE pos=50"), HOLE),
    "a key changed": ("closed", rows("UPDATE rec SET key='k0' WHERE pos=50"), HOLE),
    "an old version said to be the newest": ("closed", rows("UPDATE state SET pos=3 WHERE key='k5'"), OK),
    "the newest versions forgotten": ("closed", rows("DELETE FROM state"), OK),
    "a tail deleted": ("closed", rows("DELETE FROM rec WHERE pos>190"), HEAD),
    "a bit of a blob": ("closed", lambda home: flip(blob_file(home), 77), VALUE),
    "a blob lost": ("closed", lambda home: blob_file(home).unlink(), VALUE),
    "a blob cut off": ("closed", lambda home: os.truncate(blob_file(home), 1000), VALUE),
    "several at once": ("closed", several_at_once, VALUE),
    "node.db overwritten": ("closed", lambda home: (home / "node.db").write_bytes(b"x" * 9000) and None, OK),
}


def wide_page(home: Path) -> int:
    """Where a page begins that holds nothing but the rest of a payload."""
    data = log_at(home).read_bytes()
    needle = random.Random(0).randbytes(9000)[5000:5100]
    return data.index(needle) // PAGE * PAGE


CASES = [(fault, source) for fault in FAULTS for source in ("hub", "alone")]
CASES += [(fault, "copy") for fault in ("a bit of a payload", "a blob lost", "the file lost", "two pages of noise")]


@pytest.mark.parametrize(("fault", "source"), CASES)
def test_damage_is_repaired_or_refused(fault: str, source: str, world: World, memory_path: Path) -> None:
    which, damage, alone = FAULTS[fault]
    EARLIER[:] = [world.root / "earlier"]
    home = shutil.copytree(world.root / which, memory_path / "home")
    damage(home)
    tools = world.tools(source)
    outcome = repair.repair(home, tools)
    expected = alone if source == "alone" else OK
    assert ([each.rule for each in outcome.plan.refusals] or [OK])[0] == expected, plan_json(outcome.plan)
    assert outcome.attempts
    if expected == OK:
        is_as_before(home, world)
        return
    again = repair.repair(home, world.tools("hub"))  # nothing was made worse: whoever has it still can
    assert again.done, plan_json(again.plan)
    is_as_before(home, world)


def test_every_random_flip_over_live_data_is_undone_without_a_person(world: World, memory_path: Path) -> None:
    """With the hub every one; each is a bit of the file, or of the WAL that a kill left, wherever it falls."""
    chance = random.Random(5)
    repaired = sound = 0
    for number in range(FLIPS):
        which, end = ("closed", "") if number % 2 else ("killed", "-wal")
        home = shutil.copytree(world.root / which, memory_path / str(number))
        size = log_at(home).stat().st_size if not end else 32 + used_frames(log_at(home, end)) * (PAGE + 24)
        flip(log_at(home, end), chance.randrange(size), chance.randrange(8))
        outcome = repair.repair(home, world.tools("hub"))
        sound += outcome.plan.sound
        repaired += bool(outcome.repaired) and outcome.done
        with corpus_of(home) as corpus:
            links = [each.record.link for each in everything(corpus)]
        assert links[: len(world.links)] == world.links, number
        shutil.rmtree(home)
    assert repaired + sound == FLIPS  # sound: a bit of the WAL that was checkpointed, or overwritten, since
    assert repaired > FLIPS * 0.8

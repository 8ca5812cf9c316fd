"""Damage of every kind to a live store, and what recovery makes of it: all of it back, or a refusal with its evidence.

Each case damages a copy of one store as a kill left it, repairs it with what the case allows, and holds the result
against the model: every record's link and every value as before, proven by a scan.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.corpus import SqliteCorpus, Stored
from holdfast.integrity import verify_corpus
from holdfast.integrity.recovery import plan_json
from holdfast.log.anchor import Anchor
from holdfast.node import repair
from holdfast.node.directory import Limits
from holdfast.node.refetch import StoreSource
from holdfast.node.repair import Tools
from holdfast.node.store import Store
from holdfast.objects import BlobFiles
from tests.flow.hubs import HubProcess

NO_LIMITS = Limits(floor_bytes=0, ballast_bytes=0)
PAGE = 4096
AWAY: dict[str, Any] = {"hubs": ()}


class World:
    """Copies of one store, all of it at the hub: as a kill left it, closed in good order, and from earlier."""

    def __init__(self, root: Path, hub: HubProcess) -> None:
        self.root, self.hub, live = root, hub, root / "live"
        with Store(live, "a", hub=self.hub.url, limits=NO_LIMITS) as store:
            write(store, 0, 120)
            assert store.flush(30)
            shutil.copytree(live, root / "earlier", ignore=shutil.ignore_patterns("*sock*"))
            write(store, 120, 200)
            assert store.flush(30)
            shutil.copytree(live, root / "killed", ignore=shutil.ignore_patterns("*sock*"))
            self.values, self.messages = content(store)
        shutil.copytree(live, root / "closed")
        with Store(live, "b", hub=self.hub.url, limits=NO_LIMITS) as store:
            write(store, 0, 30)
            assert store.flush(30)
        shutil.copytree(live, root / "two")
        with corpus_of(root / "closed") as corpus:
            self.links = [each.record.link for each in everything(corpus)]

    def tools(self, source: str) -> Tools:
        """What a repair has: the hub, a whole copy of the store, or nothing but this machine."""
        if source == "copy":
            return Tools(hubs=(), sources=[StoreSource(self.root / "closed")])
        return Tools(hubs=(self.hub.url,) if source == "hub" else ())


def write(store: Store, first: int, last: int) -> None:
    """Some of everything: values, batches, deletions, messages, blobs, and a payload that takes several pages."""
    for n in range(first, last):
        store.put(f"k{n % 30}", {"n": n, "text": f"value {n} " * (n % 20)})
        if n % 25 == 0:
            with store.batch() as batch:
                batch.put("left", n)
                batch.put("right", n)
        if n % 40 == 7:
            store.delete(f"k{n % 30}")
        if n % 50 == 11:
            store.post(f"message {n}", to="b")
    store.put(f"big{first}", bytes(range(256)) * 400)
    store.put(f"wide{first}", random.Random(first).randbytes(9000).hex())


def content(store: Store) -> tuple[dict[str, Any], list[Any]]:
    """Every value and every message of an agent."""
    names = store.keys(limit=1000)
    return {key: store.get(key) for key in names}, [each.body for each in store.messages()]


@contextlib.contextmanager
def corpus_of(home: Path, agent: str = "a") -> Iterator[SqliteCorpus]:
    """An agent's log, opened beside the house."""
    corpus = SqliteCorpus(home / "agents" / agent / "log.db")
    try:
        yield corpus
    finally:
        corpus.close()


def everything(corpus: SqliteCorpus) -> list[Stored]:
    """All records."""
    found: list[Stored] = []
    while page := corpus.feed(found[-1].pos if found else 0):
        found += page
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The store, its copies and its hub; the hub runs until the module ends."""
    root = tmp_path_factory.mktemp("world")
    hub = HubProcess(root / "hub")
    try:
        yield World(root, hub)
    finally:
        hub.kill()


def is_as_before(home: Path, world: World) -> None:
    """Every link and value is what it was, a scan proves it, and nothing is left to repair."""
    with corpus_of(home) as corpus:
        anchor = Anchor(home / "agents/a/log.anchor")
        mark = anchor.read()
        anchor.close()
        found = verify_corpus(corpus, BlobFiles(home / "blobs"), anchor=mark)
        assert found.findings == []
        assert [each.record.link for each in everything(corpus)][: len(world.links)] == world.links
    with Store(home, "a", hub=(), limits=NO_LIMITS) as store:
        assert content(store) == (world.values, world.messages)
    assert repair.plan(home, Tools(hubs=())).sound


# -- faults ---------------------------------------------------------------------------------------------------------


def flip(path: Path, at: int, bit: int = 2) -> None:
    """Turns one bit of a file."""
    with open(path, "r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


def log_at(home: Path, end: str = "") -> Path:
    """The log's file, or what lies beside it."""
    return home / "agents" / "a" / f"log.db{end}"


def flip_in(needle: bytes, skip: int = 0) -> Callable[[Path], None]:
    """Turns a bit inside a text that the file holds once or more, behind `skip` bytes of it."""

    def fault(home: Path) -> None:
        at = log_at(home).read_bytes().index(needle)
        flip(log_at(home), at + skip)

    return fault


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
    needle = random.Random(0).randbytes(9000).hex().encode()[5000:5100]
    return data.index(needle) // PAGE * PAGE


@pytest.mark.parametrize("source", ["hub", "copy", "alone"])
@pytest.mark.parametrize("fault", FAULTS)
def test_damage_is_repaired_or_refused(fault: str, source: str, world: World, tmp_path: Path) -> None:
    which, damage, alone = FAULTS[fault]
    EARLIER[:] = [world.root / "earlier"]
    home = shutil.copytree(world.root / which, tmp_path / "home")
    damage(home)
    tools = world.tools(source)
    planned = repair.plan(home, tools)
    assert not planned.sound
    outcome = repair.repair(home, tools)
    expected = alone if source == "alone" else OK
    assert ([each.rule for each in outcome.plan.refusals] or [OK])[0] == expected, plan_json(outcome.plan)
    assert [each.rule for each in planned.refusals] == [each.rule for each in outcome.plan.refusals]
    assert outcome.attempts
    if expected == OK:
        is_as_before(home, world)
        return
    again = repair.repair(home, world.tools("hub"))  # nothing was made worse: whoever has it still can
    assert again.done, plan_json(again.plan)
    is_as_before(home, world)

"""A store to be damaged, its copies and its hub; and the word on whether it is as it was."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from holdfast.corpus import SqliteCorpus, Stored
from holdfast.integrity import verify_corpus
from holdfast.log.anchor import Anchor
from holdfast.node import repair
from holdfast.node.directory import Limits
from holdfast.node.refetch import StoreSource
from holdfast.node.repair import Tools
from holdfast.node.store import Store
from holdfast.objects import BlobFiles
from tests.flow.hubs import HubProcess

NO_LIMITS = Limits(floor_bytes=0, ballast_bytes=0)


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
    store.put(f"wide{first}", random.Random(first).randbytes(9000))


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

"""A log that remembers everything it was told, and judges what a damaged copy of its files says."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from holdfast.corpus import Filter, SqliteCorpus, Stored
from holdfast.corpus.search import fill, search
from holdfast.errors import HoldfastError
from holdfast.integrity import verify_corpus
from holdfast.log import ADVANCED, Log, OpenLog, remove, value
from holdfast.log.anchor import Anchor, Mark
from holdfast.log.drafts import message
from holdfast.objects import BlobFiles
from holdfast.testing.corpus import KEY, log_of

PAGE: Final = 4096
AGENT: Final = "ada"
FILES: Final = ("log.db", "log.db-wal", "log.anchor")
WORDS: Final = ("kelp", "rock", "storm", "root", "tide")

Files = dict[str, bytes]
Ask = Callable[[SqliteCorpus], Any]


class Verdict(NamedTuple):
    """How damage came to light: at "open", on a "read", by a "scan", or "" if it did not; and what was said wrongly."""

    found: str
    wrong: list[str]
    findings: list[str]


def named(found: Counter[str]) -> dict[str, int]:
    """How often what came of damage, in words."""
    words = {
        "open": "found_on_opening",
        "read": "found_on_reading",
        "scan": "found_by_a_scan",
        "harmless": "harmless",
    }
    return {word: found[how] for how, word in words.items() if found[how]}


class Witness:
    """A log, and its files at three moments: half-way, when its process was killed in the end, and closed instead.

    Args:
        home: an empty directory.
        records: how many values are written, to a third as many keys.
        sizes: a value has one of these many bytes.
    """

    def __init__(self, home: Path, records: int = 60, sizes: tuple[int, ...] = (10, 300, 900, 6000)) -> None:
        self.home = home
        self.blobs = BlobFiles(home / "blobs")
        self._rng, self._sizes, self._keys = random.Random(7), sizes, max(1, records // 3)
        made = home / "made"
        made.mkdir()
        # Not opened as a log: its background work would write while the files are copied.
        corpus = SqliteCorpus(made / "log.db")
        log, anchor = log_of(corpus, home, AGENT), Anchor(made / "log.anchor")
        self._write(log, 0, records // 2)
        self._settle(log, anchor)
        corpus.engine.checkpoint(most_pages=0)
        self.old = self._copy()
        self._write(log, records // 2, records)
        log.append([remove("state", "k1", prefix=True), value("state", "k10", "back")])
        _leave_pages_free(corpus)
        corpus.engine.checkpoint(most_pages=0)
        for number in range(records // 3):
            log.append([value("state", f"k{number}", f"late {number} kelp")])
            if number == records // 4:
                fill(corpus)
        self._settle(log, anchor)
        self.killed = self._copy()
        self.questions = dict(_questions(corpus, self._keys))
        self.truth = {name: ask(corpus) for name, ask in self.questions.items()}
        scan = verify_corpus(corpus, self.blobs, anchor=anchor.read())
        assert scan.sound, scan.findings
        corpus.close()
        anchor.close()
        self.closed = self._copy()

    def judge(self, files: Mapping[str, bytes], *, scan: bool = False) -> Verdict:
        """What comes of opening these files at level advanced, asking the log everything, and scanning it.

        Args:
            files: by name.
            scan: scan it also when the damage has come to light before.
        """
        directory = self.home / "tried"
        directory.mkdir()
        try:
            for name, data in files.items():
                (directory / name).write_bytes(data)
            return self._judge(directory, scan)
        finally:
            shutil.rmtree(directory)

    def _judge(self, directory: Path, scan: bool) -> Verdict:
        try:
            opened = OpenLog(directory, AGENT, public_key=KEY, blobs=self.blobs, level=ADVANCED)
        except HoldfastError as error:
            return Verdict("open", [], [str(error)])
        try:
            found = "open" if opened.incidents else ""
            findings = [each.detail for each in opened.incidents]
            wrong = []
            for name, ask in self.questions.items():
                try:
                    said = ask(opened.corpus)
                except HoldfastError as error:
                    found = found or "read"
                    findings.append(f"{name}: {error}")
                else:
                    if said != self.truth[name]:
                        wrong.append(name)
            if scan or not found:
                anchor = Anchor(directory / "log.anchor")
                mark = anchor.read()
                anchor.close()
                told = verify_corpus(opened.corpus, self.blobs, anchor=mark).findings
                findings += map(str, told)
                found = found or ("scan" if told else "")
            return Verdict(found, wrong, findings)
        finally:
            with contextlib.suppress(HoldfastError):  # of a file too damaged to say where it ends
                opened.close()

    def _write(self, log: Log, first: int, last: int) -> None:
        for number in range(first, last):
            body = self._rng.randbytes(self._rng.choice(self._sizes))
            log.append([value(("state", "notes")[number % 2], f"k{number % self._keys}", body)])
            if number % 5 == 0:
                text = f"{WORDS[number % 4]} {number}"
                log.append([message({"body": text, "to": "bob", "task": f"t{number % 3}"}, msg_id=f"m{number}")])
        while fill(log.corpus):
            pass

    @staticmethod
    def _settle(log: Log, anchor: Anchor) -> None:
        """What has happened 50 ms behind the last write: it is synced, and the anchor knows."""
        log.corpus.sync()
        head = log.corpus.head(log.branch.id)
        anchor.write(Mark(log.branch.stream, head.seq, head.link, head.hlc))

    def _copy(self) -> Files:
        """The files as a killed process leaves them."""
        # By another process: to open and close them in this one would drop SQLite's locks on them.
        made, copy = self.home / "made", self.home / "copy"
        copy.mkdir()
        there = [str(made / name) for name in FILES if (made / name).exists()]
        subprocess.run(["cp", *there, str(copy)], check=True)
        files = {path.name: path.read_bytes() for path in copy.iterdir()}
        shutil.rmtree(copy)
        return files


def _leave_pages_free(corpus: SqliteCorpus) -> None:
    def job(tx: Any) -> None:
        for number in range(12):
            tx.execute("INSERT INTO tag VALUES(99,?,?)", ("r" * 3000, number))

    corpus.write(job)
    corpus.write(lambda tx: tx.execute("DELETE FROM tag WHERE k=99"))


def _questions(corpus: SqliteCorpus, keys: int) -> Iterator[tuple[str, Ask]]:
    """Every way there is to ask a log, each by itself: one that fails does not hide what another says wrongly."""
    yield "last", lambda c: c.last()
    yield "head", lambda c: c.head(1)
    yield "branches", lambda c: c.branches()
    yield "collections", lambda c: c.collections(AGENT)
    yield "feed", lambda c: [(stored, stored.payload()) for stored in c.feed(0, 10_000, 1 << 30)]
    for pos in range(1, corpus.last() + 1, 9):
        yield f"at {pos}", lambda c, pos=pos: c.at(pos)
    for collection in ("state", "notes", "messages"):
        yield f"keys of {collection}", lambda c, name=collection: c.keys(AGENT, name, "", "", 1000)
        yield f"page of {collection}", lambda c, name=collection: c.page(Filter(collection=name))
        yield f"count of {collection}", lambda c, name=collection: c.count(Filter(collection=name))
    for number in range(keys):
        for collection in ("state", "notes"):
            at = (AGENT, collection, f"k{number}")
            yield f"newest {at}", lambda c, at=at: _payload(c.newest(*at))
        yield f"versions {at}", lambda c, at=at: list(c.versions(*at))
    for task in ("t0", "t1", "t2"):
        yield f"task {task}", lambda c, task=task: c.page(Filter(task=task, newest_first=True))
    for word in WORDS:
        yield f"search {word}", lambda c, word=word: search(c, word)


def _payload(stored: Stored | None) -> tuple[Stored, bytes] | None:
    return stored and (stored, stored.payload())

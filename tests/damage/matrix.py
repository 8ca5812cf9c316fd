"""A store of two shapes, and every fault of the matrix: as an intruder, a disk or a crash would make it."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from holdfast import records, seal
from holdfast.corpus import Branch, SqliteCorpus
from holdfast.integrity.checks import CHECKS, PAGE
from holdfast.integrity.scan import Acked, Outside, Scan, verify_corpus
from holdfast.log import Log, value
from holdfast.log.anchor import Mark
from holdfast.objects import BlobFiles
from holdfast.testing.clock import SettableClock

SIGNER = seal.Signer(bytes(range(32)))
STRANGER = seal.Signer(bytes(range(1, 33)))
LAST = 240
EARLIER = 160
"""Where the old copy ends."""
ANCHORED = 230
"""An anchor is as good as it is fresh: this one was not, so a cut of the last five is not its to see."""
SIGN_EVERY = 40
MIDDLE = 121
DAY = 86_400_000 << 16
STREAM = records.stream_id(SIGNER.public_key, "ada")
NOW_MS = 1_800_000_000_000


class Place(NamedTuple):
    """A directory with one store, its shape, and what others know of it."""

    path: Path
    hub: bool
    old: Path
    known: dict[str, Any]
    """``anchor`` and ``acked``, for a fault to change: an honest writer's hub and anchor know what he wrote."""

    @property
    def db(self) -> Path:
        return self.path / "log.db"

    @property
    def blobs(self) -> BlobFiles:
        return BlobFiles(self.path / "blobs")

    @contextlib.contextmanager
    def corpus(self, **options: Any) -> Iterator[SqliteCorpus]:
        corpus = SqliteCorpus(self.db, hub=self.hub, **options)
        try:
            yield corpus
        finally:
            corpus.close()

    def sql(self, *statements: str) -> None:
        """Changes rows with right page checksums."""
        with self.corpus() as corpus:
            corpus.write(lambda tx: [tx.execute(text) for text in statements])


def log_in(corpus: SqliteCorpus, path: Path, start_ms: int) -> Log:
    found = corpus.branches()
    start = records.genesis(STREAM)
    key = SIGNER.public_key
    new = Branch(0, STREAM, bytes(16), "ada", key, key, True, 0, start, 0, start)
    branch = found[0] if found else corpus.write(lambda tx: tx.open_branch(new))
    return Log(corpus, branch, blobs=BlobFiles(path / "blobs"), wall=SettableClock(start_ms))


def write(log: Log, count: int, word: str = "payload") -> None:
    """Values of one size under 20 keys and two that are used once; a blob now and then; on a hub, signed heads."""
    corpus, branch = log.corpus, log.branch.id
    first = corpus.last() + 1
    for number in range(first, first + count):
        key = f"once-{number}" if number in (MIDDLE, 9) else f"k{number % 20}"
        body = f"{word} {number:04}" if number % 80 != 7 else random.Random(number).randbytes(40_000).hex()
        log.append([value("messages" if number % 30 == 15 else "state", key, body)])
        if corpus.hub:
            head = corpus.at(number)
            assert head is not None
            signature = None
            if number % SIGN_EVERY == 0:
                signature = SIGNER.sign(records.head_message(STREAM, number, head.record.link))
                args = (branch, number, signature)
                corpus.write(lambda tx, args=args: tx.execute("INSERT INTO signed VALUES(?,?,?,0)", args))
            corpus.write(lambda tx, h=head, s=signature: tx.advance(branch, h.record.seq, h.record.link, s))


def build(path: Path, *, hub: bool) -> Place:
    """A sound store, and beside it the copy that somebody took earlier."""
    path.mkdir()
    old = path.with_name(path.name + "-old")
    corpus = SqliteCorpus(path / "log.db", hub=hub)
    log = log_in(corpus, path, NOW_MS - 1_000_000)
    write(log, EARLIER)
    corpus.close()
    shutil.copytree(path, old)
    corpus = SqliteCorpus(path / "log.db", hub=hub)
    write(log_in(corpus, path, NOW_MS - 500_000), LAST - EARLIER)
    known = knowledge(corpus)
    corpus.close()
    return Place(path, hub, old, known)


def knowledge(corpus: SqliteCorpus) -> dict[str, Any]:
    """What the anchor (a little behind) and the hub know of a log."""
    branch = corpus.branches()[0].id
    link, last = corpus.link_at(branch, ANCHORED), corpus.last()
    newest = corpus.link_at(branch, last)
    assert link is not None
    assert newest is not None
    return {"anchor": Mark(STREAM, ANCHORED, link, 0), "acked": (Acked("hub", STREAM, last, newest),)}


def flip(path: Path, at: int) -> None:
    """Turns one bit over."""
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 4]))


def row(place: Place, pos: int) -> Any:
    """The record at a position."""
    with place.corpus(read_only=True) as corpus:
        stored = corpus.at(pos)
    assert stored is not None
    return stored


def relink(corpus: SqliteCorpus, first: int, last: int = LAST) -> None:
    """Makes the links from one record to another anew, and on a hub its branch's head; signs nothing."""
    branch = corpus.branches()[0].id
    link = corpus.link_at(branch, first - 1)
    assert link is not None
    for stored in corpus.feed(first - 1, 500, 1 << 30):
        if stored.pos > last:
            return
        link = records.next_link(link, records.encode_header(stored.record))
        at = (link, stored.pos)
        corpus.write(lambda tx, at=at: tx.execute("UPDATE rec SET link=? WHERE pos=?", at))
    if corpus.hub:
        corpus.write(lambda tx: tx.execute("UPDATE branch SET link=?", (link,)))


def sign_again(corpus: SqliteCorpus) -> None:
    """What the writer himself would have signed."""
    if not corpus.hub:
        return
    branch = corpus.branches()[0].id
    for number in range(SIGN_EVERY, corpus.last() + 1, SIGN_EVERY):
        link = corpus.link_at(branch, number)
        assert link is not None
        args = (SIGNER.sign(records.head_message(STREAM, number, link)), number)
        corpus.write(lambda tx, args=args: tx.execute("UPDATE signed SET signature=? WHERE seq=?", args))
        corpus.write(lambda tx, args=args: tx.execute("UPDATE branch SET signature=? WHERE seq=?", args))


# -- the faults ---------------------------------------------------------------------------------------------------


def flip_payload(place: Place) -> None:
    body = row(place, MIDDLE).body
    flip(place.db, place.db.read_bytes().index(body) + 3)


def flip_key(place: Place) -> None:
    record, raw = row(place, MIDDLE).record, place.db.read_bytes()
    flip(place.db, raw.rindex(record.key.encode(), 0, raw.index(record.payload_hash)) + 2)


def flip_link(place: Place) -> None:
    flip(place.db, place.db.read_bytes().index(row(place, MIDDLE).record.link) + 7)


def flip_unused(place: Place) -> None:
    flip(place.db, place.db.read_bytes().index(bytes(64), 4096 * 5) + 30)


def cut_file(size: int) -> Callable[[Place], None]:
    return lambda place: os.truncate(place.db, place.db.stat().st_size - size)


def cut_tail(place: Place) -> None:
    """Takes the last five away, and everything in the file that tells of them."""
    last = LAST - 5
    place.sql(f"DELETE FROM rec WHERE pos>{last}", *STATE_ANEW)
    if place.hub:
        place.sql(
            f"DELETE FROM signed WHERE seq>{last}",
            f"UPDATE branch SET seq={last}, link=(SELECT link FROM rec WHERE pos={last}), signature=NULL",
        )


STATE_ANEW = (
    "DELETE FROM state",
    "INSERT INTO state SELECT agent, coll, key, max(pos), 0 FROM rec GROUP BY agent, coll, key",
)
BODY = "salt, codec, body"
WHOLE = "hlc, kind, coll, key, fmt, flags, version, prior, base, plen, phash, salt, link, codec, body"


def take_over(columns: str, one: int, other: int, *, both: bool) -> Callable[[Place], None]:
    """Gives a row (or both) what the other has."""

    def job(tx: Any) -> None:
        have = {pos: tx.execute(f"SELECT {columns} FROM rec WHERE pos=?", (pos,))[0] for pos in (one, other)}
        marks = ", ".join(f"{name}=?" for name in columns.split(", "))
        for pos, content in ((one, have[other]), (other, have[one]))[: 2 if both else 1]:
            tx.execute(f"UPDATE rec SET {marks} WHERE pos=?", (*content, pos))

    def fault(place: Place) -> None:
        with place.corpus() as corpus:
            corpus.write(job)

    return fault


def roll_back(place: Place) -> None:
    os.remove(place.db)
    shutil.copy(place.old / "log.db", place.db)


def set_clock_back(place: Place) -> None:
    """By the writer himself: chain and signatures are right, and the hub and the anchor know them so."""
    with place.corpus() as corpus:
        corpus.write(lambda tx: tx.execute("UPDATE rec SET hlc=hlc-? WHERE pos>200", (DAY,)))
        relink(corpus, 201)
        sign_again(corpus)
        place.known.update(knowledge(corpus))


def forge(last: int, *, unsigned: bool = False) -> Callable[[Place], None]:
    """Another payload with all its own hashes right, and the links up to `last`."""

    def fault(place: Place) -> None:
        payload = b"forged 0000"
        args = (payload, len(payload), records.payload_hash(b"", payload), MIDDLE)
        sql = "UPDATE rec SET body=?, codec=0, salt=x'', plen=?, phash=? WHERE pos=?"
        with place.corpus() as corpus:
            corpus.write(lambda tx: tx.execute(sql, args))
            relink(corpus, MIDDLE, last)
        if unsigned and place.hub:
            place.sql(f"DELETE FROM signed WHERE seq>={MIDDLE}", "UPDATE branch SET signature=NULL")

    return fault


def fork(place: Place) -> None:
    """The clone of a disk goes on by itself, with the right key."""
    roll_back(place)
    with place.corpus() as corpus:
        write(log_in(corpus, place.path, NOW_MS - 400_000), LAST - EARLIER, "another")


def a_blob(place: Place) -> Path:
    return place.blobs.path(next(place.blobs.iter()))


def flip_blob(place: Place) -> None:
    flip(a_blob(place), 1000)


def miss_rows(place: Place) -> None:
    """An index that does not hold what its table holds, and says that it does."""
    with place.corpus() as corpus:
        connection = corpus.engine._writer
        connection.execute("CREATE INDEX extra ON rec(key) WHERE pos<100")
        connection.execute("PRAGMA writable_schema=1")
        connection.execute("UPDATE sqlite_schema SET sql='CREATE INDEX extra ON rec(key)' WHERE name='extra'")


def sign_as_stranger(place: Place) -> None:
    with place.corpus() as corpus:
        link = corpus.link_at(corpus.branches()[0].id, 80)
        assert link is not None
        signature = STRANGER.sign(records.head_message(STREAM, 80, link))
        corpus.write(lambda tx: tx.execute("UPDATE signed SET signature=? WHERE seq=80", (signature,)))


def flip_wal(place: Place) -> None:
    """Of commits that were acknowledged and synced, in a WAL that a killed process left behind."""
    live = place.path.with_name("live")
    shutil.rmtree(live, ignore_errors=True)
    shutil.move(place.path, live)
    corpus = SqliteCorpus(live / "log.db", hub=place.hub)
    write(log_in(corpus, live, NOW_MS - 300_000), 20, "in the wal")
    branch = corpus.branches()[0].id
    link = corpus.link_at(branch, LAST + 20)
    assert link is not None
    place.known.update(anchor=Mark(STREAM, LAST + 20, link, 0), acked=(Acked("hub", STREAM, LAST + 20, link),))
    shutil.copytree(live, place.path, ignore=shutil.ignore_patterns("*-shm"))
    corpus.close()
    flip(place.path / "log.db-wal", 32 + 6 * (4096 + 24) + 500)


FAULTS: dict[str, Callable[[Place], Any]] = {
    "(healthy)": lambda place: None,
    "bit flip in payload": flip_payload,
    "bit flip in header text (key)": flip_key,
    "bit flip in stored hash": flip_link,
    "bit flip in unused bytes": flip_unused,
    "file truncated by 3 pages": cut_file(3 * 4096),
    "file truncated by 100 B": cut_file(100),
    "row deleted (middle)": lambda place: place.sql(f"DELETE FROM rec WHERE pos={MIDDLE + 1}"),
    "payload deleted only": lambda place: place.sql(f"UPDATE rec SET body=NULL WHERE pos={MIDDLE}"),
    "tail rows deleted (last 5)": cut_tail,
    "two payloads swapped": take_over(BODY, 101, 102, both=True),
    "two whole rows swapped": take_over(WHOLE, 101, 102, both=True),
    "old value replayed into newest row": take_over(f"{BODY}, phash, plen", LAST, LAST - 20, both=False),
    "old value replayed in state table": lambda place: place.sql("UPDATE state SET pos=pos-20 WHERE key='k3'"),
    "database file rolled back (80 rec)": roll_back,
    "clock set back 1 day (honest writer)": set_clock_back,
    "forged row, own link redone": forge(MIDDLE),
    "forged row, whole chain recomputed": forge(LAST),
    "  + later signatures deleted": forge(LAST, unsigned=True),
    "forked stream (cloned disk, valid key)": fork,
    "blob missing": lambda place: a_blob(place).unlink(),
    "blob orphaned": lambda place: place.blobs.put(b"nobody's" * 10_000),
    "blob bit flip": flip_blob,
    "blob cut short": lambda place: os.truncate(a_blob(place), 1000),
    "index misses rows": miss_rows,
    "state row gone": lambda place: place.sql("DELETE FROM state WHERE key='k9'"),
    "predecessor of a version changed": lambda place: place.sql("UPDATE rec SET prior=1 WHERE pos=100"),
    "bit flip in the -wal (acked frames)": flip_wal,
}
NODE_FAULTS = {
    **FAULTS,
    "walk back from message to message": lambda place: place.sql("UPDATE rec SET back=0 WHERE pos=100"),
}
HUB_FAULTS = {**FAULTS, "signed head by another key": sign_as_stranger}


# -- the checks ---------------------------------------------------------------------------------------------------


class Looker:
    """Runs checks over a place, as `holdfast verify` does, with the pages' own checksums left to their check."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._corpus: SqliteCorpus | None = None

    def __enter__(self) -> Looker:
        corpus = self._corpus = SqliteCorpus(self._place.db, hub=self._place.hub, read_only=True)
        with corpus.engine.reader() as one, corpus.engine.reader() as two, corpus.engine.reader() as three:
            for connection in (one, two, three):
                connection.execute("PRAGMA checksum_verification=0").fetchall()
        return self

    def __exit__(self, *_: object) -> None:
        if self._corpus is not None:
            self._corpus.close()

    def scan(self, checks: Any) -> Scan:
        """What these checks find."""
        corpus = self._corpus
        assert corpus is not None
        outside = Outside(
            acked=self._place.known["acked"],
            now_ms=NOW_MS,
            referred=(),
            grace_s=-3600,
            wal=corpus.engine.diagnosis,
        )
        return verify_corpus(
            corpus, self._place.blobs, anchor=self._place.known["anchor"], outside=outside, checks=checks
        )

    def sign(self, check: str) -> str:
        """``X``: it finds something. ``err``: it cannot read the file. ``.``: nothing."""
        scan = self.scan((check,))
        if any(finding.check not in (check, PAGE) for finding in [*scan.findings, *scan.notes]):
            raise AssertionError(f"{check} answers for another: {scan.findings}")
        if any(finding.check == check for finding in [*scan.findings, *scan.notes]):
            return "X"
        return "err" if scan.findings else "."


def copy(place: Place, to: Path) -> Place:
    """The same store again, to be damaged."""
    shutil.copytree(place.path, to)
    return Place(to, place.hub, place.old, dict(place.known))


def line(fault: str, signs: dict[str, str]) -> str:
    """A row of the table."""
    return f"{fault:40} " + " ".join(f"{signs[check]:9}" for check in CHECKS).rstrip()


def head() -> str:
    """The table's first row."""
    return f"{'failure':40} " + " ".join(f"{check:9}" for check in CHECKS).rstrip()

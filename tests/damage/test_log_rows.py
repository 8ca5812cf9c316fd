"""Rows changed behind our back, through SQL and with right page checksums: each is found by the check that sees it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from holdfast import records, seal, wire
from holdfast.corpus import Branch, SqliteCorpus
from holdfast.errors import IntegrityError
from holdfast.integrity import verify_corpus
from holdfast.integrity.checks import chain, checksum, size, time, version
from holdfast.log import Draft, Log, remove, value
from holdfast.log.anchor import Mark
from holdfast.log.prune import prune
from holdfast.objects import BlobFiles
from holdfast.testing.clock import SettableClock
from holdfast.testing.corpus import log_of

SIGNER = seal.Signer(bytes(range(32)))
NEXT = seal.Signer(bytes(range(1, 33)))


class Bench(NamedTuple):
    """A log of 60 records, its blobs, and where it stood."""

    corpus: SqliteCorpus
    log: Log
    blobs: BlobFiles
    mark: Mark

    def sql(self, text: str, *args: Any) -> None:
        """Changes rows as an intruder with the file would."""
        self.corpus.write(lambda tx: tx.execute(text, args))

    def checks(self, **options: Any) -> set[str]:
        """Which checks find something."""
        return {finding.check for finding in verify_corpus(self.corpus, self.blobs, **options).findings}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    corpus = SqliteCorpus(tmp_path / "log.db")
    log = log_of(corpus, tmp_path)
    for number in range(18):
        # The same sizes, so that nothing but the hash tells two payloads apart.
        log.append([value("state", f"k{number % 6}", f"payload {number:02}")])
        log.append([value("state", f"b{n}", f"batch {number:02}") for n in range(2)])
    log.append([value("files", "big", b"x" * 70_000)])
    log.append([remove("state", "b", prefix=True), value("state", "b1", "back")])
    log.append([remove("state", "k5")])
    head = corpus.head(log.branch.id)
    blobs = BlobFiles(tmp_path / "blobs")
    mark = Mark(log.branch.stream, head.seq, head.link, head.hlc)
    assert verify_corpus(corpus, blobs, anchor=mark).findings == []
    yield Bench(corpus, log, blobs, mark)
    corpus.close()


def swap(bench: Bench, columns: str, one: int, other: int) -> None:
    def job(tx: Any) -> None:
        rows = {pos: tx.execute(f"SELECT {columns} FROM rec WHERE pos=?", (pos,))[0] for pos in (one, other)}
        marks = ", ".join(f"{name}=?" for name in columns.split(", "))
        for pos, content in ((one, rows[other]), (other, rows[one])):
            tx.execute(f"UPDATE rec SET {marks} WHERE pos=?", (*content, pos))

    bench.corpus.write(job)


def forge(bench: Bench, pos: int, *, links: bool) -> None:
    """Another payload with all its hashes right; with `links`, every later link too."""
    payload = b"forged 0000"

    def job(tx: Any) -> None:
        digest = records.payload_hash(b"", payload)
        tx.execute("UPDATE rec SET body=?, codec=0, salt=x'', plen=?, phash=? WHERE pos=?", (payload, 11, digest, pos))

    bench.corpus.write(job)
    link = bench.corpus.link_at(bench.log.branch.id, pos - 1)
    assert link is not None
    for stored in bench.corpus.feed(pos - 1, 500, 1 << 30)[: None if links else 1]:
        link = records.next_link(link, records.encode_header(stored.record))
        bench.sql("UPDATE rec SET link=? WHERE pos=?", link, stored.pos)


BODY = "salt, codec, body"
WHOLE = "hlc, kind, coll, key, fmt, flags, version, prior, base, plen, phash, salt, link, codec, body"

TAMPER: dict[str, tuple[Callable[[Bench], Any], set[str]]] = {
    "two payloads swapped": (lambda b: swap(b, BODY, 7, 10), {"checksum"}),
    "a payload changed": (
        lambda b: b.sql("UPDATE rec SET body=CAST(x'00' || substr(body, 2) AS BLOB) WHERE pos=7"),
        {"checksum"},
    ),
    "a salt changed": (lambda b: b.sql("UPDATE rec SET salt=zeroblob(16) WHERE pos=7"), {"checksum"}),
    "a body removed": (lambda b: b.sql("UPDATE rec SET body=NULL WHERE pos=7"), {"size"}),
    "a body removed with a reason that is none": (
        lambda b: b.sql("UPDATE rec SET body=NULL, why=9 WHERE pos=7"),
        {"size"},
    ),
    "a reason beside a body": (lambda b: b.sql("UPDATE rec SET why=1 WHERE pos=7"), {"size"}),
    "a body of another length": (
        lambda b: b.sql("UPDATE rec SET body=CAST(body || x'00' AS BLOB) WHERE pos=7"),
        {"size"},
    ),
    "two whole rows swapped": (lambda b: swap(b, WHOLE, 7, 10), {"chain", "time", "version"}),
    "a key changed": (lambda b: b.sql("UPDATE rec SET key='k9' WHERE pos=7"), {"chain", "state", "version"}),
    "a kind changed": (lambda b: b.sql("UPDATE rec SET kind=kind+1 WHERE pos=7"), {"chain"}),
    "a stamp changed": (lambda b: b.sql("UPDATE rec SET hlc=hlc+1 WHERE pos=58"), {"chain"}),
    "a stamp moved back": (lambda b: b.sql("UPDATE rec SET hlc=1 WHERE pos=7"), {"chain", "time"}),
    "a link changed": (lambda b: b.sql("UPDATE rec SET link=zeroblob(32) WHERE pos=7"), {"chain"}),
    "a version changed": (lambda b: b.sql("UPDATE rec SET version=9 WHERE pos=7"), {"chain", "version"}),
    "a predecessor changed": (lambda b: b.sql("UPDATE rec SET prior=1 WHERE pos=20"), {"version"}),
    "a row deleted": (lambda b: b.sql("DELETE FROM rec WHERE pos=8"), {"version"}),
    "the first row deleted": (lambda b: b.sql("DELETE FROM rec WHERE pos=1"), {"version"}),
    "a row forged, its own hashes right": (lambda b: forge(b, 7, links=False), {"chain"}),
    "a collection renamed": (lambda b: b.sql("UPDATE name SET s='other' WHERE s='state'"), {"chain"}),
    "an agent renamed": (lambda b: b.sql("UPDATE name SET s='bob' WHERE s='ada'"), {"signature"}),
    "an old value in the state": (lambda b: b.sql("UPDATE state SET pos=1 WHERE key='k0'"), {"state"}),
    "a hidden key shown": (lambda b: b.sql("UPDATE state SET gone=0 WHERE key='b0'"), {"state"}),
    "a key hidden": (lambda b: b.sql("UPDATE state SET gone=3 WHERE key='k0'"), {"state"}),
    "a key lost from the state": (lambda b: b.sql("DELETE FROM state WHERE key='k0'"), {"state"}),
    "a key that never was": (
        lambda b: b.sql("INSERT INTO state SELECT agent,coll,'x',1,0 FROM state LIMIT 1"),
        {"state"},
    ),
    "another key's stream": (lambda b: b.sql("UPDATE stream SET public_key=zeroblob(32)"), {"signature"}),
    "the stream replaced": (lambda b: b.sql("UPDATE stream SET stream=zeroblob(16)"), {"chain", "signature", "anchor"}),
    "a record of no branch": (lambda b: b.sql("UPDATE branch SET id=77"), {"page"}),
    "an interned name lost": (lambda b: b.sql("DELETE FROM name WHERE s='state'"), {"page"}),
    "the tail cut": (lambda b: cut(b, 5), {"anchor"}),
    "a row forged, the whole chain made anew": (lambda b: forge(b, 7, links=True), {"anchor"}),
}


def cut(bench: Bench, many: int) -> None:
    """Takes the newest records away, and everything that tells of them inside the file."""
    last = bench.corpus.last() - many
    gone = [stored.record.key for stored in bench.corpus.feed(last, 500, 1 << 30)]
    for text in ("DELETE FROM rec WHERE pos>?", "DELETE FROM scope WHERE pos>?", "DELETE FROM state WHERE pos>?"):
        bench.sql(text, last)
    bench.sql("UPDATE state SET gone=0 WHERE gone>?", last)
    for key in gone:
        bench.sql(
            "INSERT OR IGNORE INTO state SELECT agent, coll, key, max(pos), 0 FROM rec WHERE key=? AND kind<>"
            "(SELECT id FROM name WHERE s='delete-prefix') GROUP BY agent, coll, key HAVING max(pos)",
            key,
        )


@pytest.mark.parametrize("case", TAMPER)
def test_a_changed_row_is_found_by_the_check_that_sees_it(bench: Bench, case: str) -> None:
    tamper, expected = TAMPER[case]
    tamper(bench)
    again = SqliteCorpus(bench.corpus.engine.path)  # nothing cached from before
    try:
        found = verify_corpus(again, bench.blobs, anchor=bench.mark)
        assert {finding.check for finding in found.findings} == expected, [str(f) for f in found.findings]
    finally:
        again.close()


@pytest.mark.parametrize("case", ["two payloads swapped", "a payload changed", "a salt changed", "a body removed"])
def test_a_changed_payload_is_never_returned(bench: Bench, case: str) -> None:
    TAMPER[case][0](bench)
    with pytest.raises(IntegrityError):
        bench.corpus.at(7).payload()  # type: ignore[union-attr]


def test_only_the_anchor_sees_a_cut_tail_and_a_remade_chain(bench: Bench) -> None:
    cut(bench, 5)
    assert bench.checks() == set(), "a shorter log is a log"
    assert bench.checks(anchor=bench.mark) == {"anchor"}


def test_a_file_put_back_from_an_old_copy_is_found_by_the_anchor(bench: Bench, tmp_path: Path) -> None:
    bench.corpus.close()
    old = tmp_path / "old"
    old.mkdir()
    shutil.copy(tmp_path / "log.db", old / "log.db")
    corpus = SqliteCorpus(tmp_path / "log.db")
    log = log_of(corpus, tmp_path)
    log.append([value("state", "k", "newer")])
    head = corpus.head(log.branch.id)
    corpus.close()
    corpus = SqliteCorpus(old / "log.db")
    found = verify_corpus(corpus, anchor=Mark(log.branch.stream, head.seq, head.link, head.hlc)).findings
    assert [finding.check for finding in found] == ["anchor"]
    assert f"stood at {head.seq}" in found[0].what
    corpus.close()


def test_a_blob_that_is_missing_or_rotten_is_found(bench: Bench, tmp_path: Path) -> None:
    path = next(path for path in (tmp_path / "blobs").rglob("*") if path.is_file())
    data = path.read_bytes()
    path.unlink()
    assert bench.checks() == bench.checks(full=False) == {"blob"}
    path.write_bytes(data[:-1] + b"y")
    assert bench.checks() == {"blob"}
    assert bench.checks(full=False) == set(), "a quick scan looks at names only"
    path.write_bytes(data)
    assert bench.checks() == set()


def test_a_body_that_calls_itself_erased_though_nobody_erased_it_is_a_hole(bench: Bench) -> None:
    bench.corpus.write(lambda tx: tx.drop_body(7, wire.REDACTED))
    scan = verify_corpus(bench.corpus, bench.blobs, anchor=bench.mark)
    assert [(found.check, found.seq) for found in scan.findings] == [("size", 7)]
    assert "no redact record" in scan.findings[0].what


@pytest.mark.parametrize("why", [wire.EVICTED, wire.QUARANTINED])
def test_a_body_that_is_missing_for_a_reason_is_counted_and_not_found(bench: Bench, why: int) -> None:
    bench.corpus.write(lambda tx: tx.drop_body(7, why))
    scan = verify_corpus(bench.corpus, bench.blobs, anchor=bench.mark)
    assert (scan.findings, scan.missing, scan.records) == ([], 1, bench.corpus.last())


def test_a_scan_counts_what_it_looked_at(bench: Bench) -> None:
    scan = verify_corpus(bench.corpus, bench.blobs)
    stored = bench.corpus.feed(0, 500, 1 << 30)
    assert scan.records == len(stored)
    assert scan.payload_bytes == sum(each.record.payload_len for each in stored)
    assert (scan.branches, scan.keys, scan.blobs, scan.sound, scan.left_out) == (1, 9, 1, True, 0)
    assert scan.seconds > 0


def test_each_check_alone_says_what_it_sees(bench: Bench) -> None:
    stream, start = bench.log.branch.stream, records.genesis(bench.log.branch.stream)

    def alone() -> dict[str, int]:
        stored = bench.corpus.feed(0, 500, 1 << 30)
        return {
            "checksum": len(list(checksum(stored))),
            "size": len(list(size(stored))),
            "chain": len(list(chain(stored, stream, 0, start))),
            "time": len(list(time(stored))),
            "version": len(list(version(stored))),
        }

    assert set(alone().values()) == {0}
    swap(bench, BODY, 7, 10)
    assert alone() == {"checksum": 2, "size": 0, "chain": 0, "time": 0, "version": 0}
    bench.sql("UPDATE rec SET hlc=1 WHERE pos=20")
    assert alone() == {"checksum": 2, "size": 0, "chain": 1, "time": 1, "version": 0}
    bench.sql("DELETE FROM rec WHERE pos=30")
    assert alone()["version"] >= 1
    late = list(time(bench.corpus.feed(0, 500, 1 << 30), now_ms=1000))
    assert all("ahead of the clock" in finding.what for finding in late[1:3])


# ---- signed heads: a file with many branches keeps them


@pytest.fixture
def signed(tmp_path: Path) -> Iterator[Bench]:
    corpus = SqliteCorpus(tmp_path / "hub.db", hub=True)
    stream = records.stream_id(SIGNER.public_key, "ada")
    start, key = records.genesis(stream), SIGNER.public_key
    new = Branch(0, stream, bytes(16), "ada", key, key, True, 0, start, 0, start)
    branch = corpus.write(lambda tx: tx.open_branch(new))
    log = Log(corpus, branch, blobs=BlobFiles(tmp_path / "blobs"), wall=SettableClock())
    for number in range(5):
        log.append([value("state", f"k{number}", "payload 00")])
    yield Bench(corpus, log, log.blobs, Mark(stream, 0, start, 0))
    corpus.close()


def sign(bench: Bench, signer: seal.Signer) -> None:
    head = bench.corpus.head(bench.log.branch.id)
    message = records.head_message(bench.log.branch.stream, head.seq, head.link)
    number, signature = bench.log.branch.id, signer.sign(message)
    bench.corpus.write(lambda tx: tx.advance(number, head.seq, head.link, signature))


def test_a_head_signed_by_the_streams_key_is_checked(signed: Bench) -> None:
    sign(signed, SIGNER)
    scan = verify_corpus(signed.corpus)
    assert (scan.findings, scan.signatures) == ([], 1)


def test_a_head_signed_by_another_key_is_found(signed: Bench) -> None:
    sign(signed, NEXT)
    assert signed.checks() == {"signature"}


def test_a_chain_made_anew_does_not_have_the_signature(signed: Bench) -> None:
    sign(signed, SIGNER)
    forge(signed, 2, links=True)
    link = signed.corpus.link_at(signed.log.branch.id, 5)
    signed.sql("UPDATE branch SET link=?", link)
    assert signed.checks() == {"signature"}


def test_after_a_rotation_the_new_key_signs_and_the_old_one_no_more(signed: Bench) -> None:
    rotate = Draft(records.ROTATE, "", "", 0, NEXT.public_key, flags=0)
    signed.log.append([rotate])
    sign(signed, SIGNER)  # the rotation itself is signed by the key that it retires
    assert signed.checks() == set()
    sign(signed, NEXT)
    assert signed.checks() == {"signature"}
    signed.log.append([value("state", "k", 1)])
    sign(signed, NEXT)
    assert signed.checks() == set()
    sign(signed, SIGNER)
    assert signed.checks() == {"signature"}


def test_a_lost_tail_on_a_hub_is_found_by_the_branch(signed: Bench) -> None:
    signed.sql("DELETE FROM state WHERE pos=5")
    signed.sql("DELETE FROM rec WHERE pos=5")
    assert signed.checks() == {"version"}


# ---- pruned logs begin at a signed record


@pytest.fixture
def pruned(tmp_path: Path) -> Iterator[Bench]:
    corpus = SqliteCorpus(tmp_path / "log.db")
    stream = records.stream_id(SIGNER.public_key, "ada")
    start, key = records.genesis(stream), SIGNER.public_key
    new = Branch(0, stream, bytes(16), "ada", key, key, True, 0, start, 0, start)
    branch = corpus.write(lambda tx: tx.open_branch(new))
    log = Log(corpus, branch, blobs=BlobFiles(tmp_path / "blobs"), wall=SettableClock())
    for number in range(30):
        log.append([value("state", f"k{number % 4}", number)])
    assert prune(log, SIGNER.sign, settled=30) == 26
    for number in range(5):
        log.append([value("state", f"k{number % 2}", number)])
    yield Bench(corpus, log, log.blobs, Mark(stream, 0, start, 0))
    corpus.close()


def test_a_pruned_log_is_proven_from_its_signed_beginning(pruned: Bench) -> None:
    scan = verify_corpus(pruned.corpus)
    assert (scan.findings, scan.records, scan.signatures) == ([], 10, 1)


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("DELETE FROM rec WHERE pos=31", "chain"),
        ("DELETE FROM rec WHERE pos=33", "version"),
        ("UPDATE rec SET link=zeroblob(32) WHERE pos=31", "chain"),
        ("UPDATE meta SET v=20 WHERE k='begin_seq'", "version"),
        ("UPDATE stream SET current_key=zeroblob(32)", "signature"),
    ],
)
def test_damage_to_the_beginning_of_a_pruned_log_is_found(pruned: Bench, text: str, check: str) -> None:
    pruned.sql(text)
    assert check in pruned.checks()

"""What records are found by (tags, rows of sessions and metrics, words): each loss is seen, and made good again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from holdfast.collections import metrics, sessions
from holdfast.corpus import Filter, SqliteCorpus
from holdfast.corpus.search import fill
from holdfast.integrity import verify_corpus
from holdfast.integrity.checks import Finding
from holdfast.integrity.scanner import Scanner
from holdfast.log import value
from holdfast.log.drafts import message
from holdfast.log.erasure import erase, mark_of
from holdfast.node import repair
from holdfast.node.directory import attach, detach
from holdfast.node.erase import erase_key
from holdfast.node.proving import prove
from holdfast.node.repair import Tools
from holdfast.node.store import Store
from holdfast.objects import BlobFiles
from holdfast.testing.clock import SettableClock
from holdfast.testing.corpus import log_of
from tests.damage.recovering import NO_LIMITS, corpus_of
from tests.damage.test_scanner import Memory

LARGE = "x" * 70_000
TAG = "INSERT INTO tag SELECT 2, 'other', pos FROM tag LIMIT 1"
NODE = {
    "a tag is gone": ("state", "DELETE FROM tag WHERE k=2 AND v='t1' AND pos=(SELECT min(pos) FROM tag WHERE v='t1')"),
    "a tag says something else": ("state", "UPDATE tag SET v='carol' WHERE pos=(SELECT min(pos) FROM tag) AND k=1"),
    "a tag of no record": ("state", "INSERT INTO tag VALUES(1, 'bob', 999)"),
    "a tag of a record that is no message": ("state", "INSERT INTO tag VALUES(1, 'bob', 1)"),
    "a record is not in the index": ("index", "DELETE FROM fts WHERE rowid=7"),
    "a record twice in the index": ("index", "INSERT INTO fts(rowid, t, a, k) VALUES(999, 'kelp', 'a', 'put')"),
    "the words of the index are gone": ("index", "DELETE FROM fts_data WHERE id>10"),
}
"""What somebody did to the file, and the check that says so."""


@pytest.fixture(scope="module")
def sound(quick: Path) -> Path:
    """A node with messages of every kind: large ones, evicted ones, an erased one."""
    home = quick / "sound"
    with Store(home, "a", hub=(), limits=NO_LIMITS) as store:
        for n in range(12):
            store.put(f"k{n}", f"kelp {n}")
            store.post(f"message {n}" if n != 5 else LARGE, to="bob", task=f"t{n % 3}", msg_id=f"m{n}")
    directory = attach(home)
    opened = directory.open_log("a", None)
    opened.log.append([value("messages", "put-there", {"to": "bob", "body": "no message"})])
    erase_key(directory, "a", "m3", collection="messages")
    directory.release_log(opened)
    detach(directory)
    with corpus_of(home) as corpus:
        gone = corpus.newest("a", "messages", "m4")
        assert gone is not None
        corpus.write(lambda tx: tx.drop_body(gone.pos, 1))
        while fill(corpus):
            pass
    assert prove(home, "a").findings == []
    return home


def listed(home: Path) -> list[list[str]]:
    """The messages of each task, and those to bob."""
    with corpus_of(home) as corpus:
        found = [corpus.page(Filter(task=f"t{n}")) for n in range(3)]
        pages = [*found, corpus.page(Filter(to="bob"))]
        return [[each.record.key for each in page if each.record.kind == "message"] for page in pages]


def scanned(home: Path) -> list[Finding]:
    """What a round of the scan in the background finds."""
    with corpus_of(home) as corpus:
        return Scanner(corpus, Memory(), blobs=None, wall=SettableClock(1 << 41)).turn(whole=True).findings


@pytest.mark.parametrize("fault", NODE)
def test_a_list_that_does_not_say_what_its_records_say_is_found_and_made_again(
    fault: str, sound: Path, memory_path: Path
) -> None:
    home, (check, sql) = shutil.copytree(sound, memory_path / "home"), NODE[fault]
    right = listed(sound)
    with corpus_of(home) as corpus:
        corpus.write(lambda tx: tx.execute(sql))
    found = prove(home, "a").findings
    assert {each.check for each in found} == {check}, found
    assert found[0].expected
    assert found[0].actual
    assert "repair" in found[0].hint
    of_no_record = "a tag" in fault and "gone" not in fault
    assert bool(scanned(home)) is not of_no_record or fault == "a tag says something else"
    outcome = repair.repair(home, Tools(hubs=()))
    assert outcome.repaired == ["a"], outcome.plan
    assert [step.strategy for step in outcome.plan.steps] == ["rederive"]
    assert prove(home, "a").findings == []
    assert listed(home) == right
    with Store(home, "a", hub=(), limits=NO_LIMITS) as store:
        assert len(store.search("kelp", limit=50)) == 12


HUB = {
    "a session's row is gone": "DELETE FROM session",
    "a session's row says something else": "UPDATE session SET status='ended'",
    "a sample is another number": "UPDATE sample SET value=value+1 WHERE pos=(SELECT min(pos) FROM sample)",
    "a sample of no record": "INSERT INTO sample SELECT 999, entity_type, entity, metric, session, at_ms, value"
    " FROM sample LIMIT 1",
    "a label is gone": "DELETE FROM tag WHERE k=6",
    "the name of a session is gone": "DELETE FROM tag WHERE k=5",
    "an erased text is quoted": "INSERT INTO tag SELECT 3, 'thread', pos FROM rec WHERE why=3",
}


@pytest.mark.parametrize("fault", HUB)
def test_the_rows_of_sessions_and_metrics_are_held_against_their_records(fault: str, tmp_path: Path) -> None:
    corpus = SqliteCorpus(tmp_path / "hub.db", hub=True)
    log = log_of(corpus, tmp_path)
    about = {"agent_name": "ada", "status": "active", "created_at": "2026-11-20T12:00:00Z"}
    log.append([sessions.draft("session", "session_1/session", about)])
    for n in range(3):
        sample = metrics.MetricBody(
            entity_type="agent", entity_name="ada", metric_name="speed", value=n, timestamp="2026-11-20T12:00:00Z",
            session_id=None, labels={"unit": "m/s"},
        )  # fmt: skip
        log.append([metrics.draft(f"metric_{n}", sample)])
    for n in range(2):
        log.append([message({"body": "hello", "thread": "thread", "to": "bob"}, msg_id=f"m{n}")])
    erase(log, [], [mark_of(corpus.newest("ada", "messages", "m1").record)])  # type: ignore[union-attr]
    while fill(corpus):
        pass
    blobs = BlobFiles(tmp_path / "blobs")
    assert verify_corpus(corpus, blobs).findings == []
    corpus.write(lambda tx: tx.execute(HUB[fault]))
    found = verify_corpus(corpus, blobs).findings
    assert found
    assert {each.check for each in found} == {"state"}
    told = Scanner(corpus, Memory(), blobs=None, wall=SettableClock(1 << 41)).turn(whole=True).findings
    assert bool(told) is ("gone" in fault or "session" in fault or "another" in fault)
    corpus.close()

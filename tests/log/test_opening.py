"""What opening notices: another key, a log that was copied back, damage before SQLite resets the evidence."""

from __future__ import annotations

import os
import shutil
import threading

import pytest

from holdfast.corpus import SqliteCorpus
from holdfast.corpus.engine import Engine
from holdfast.errors import IntegrityError
from holdfast.log import ADVANCED, BASIC, CRITICAL, OpenLog, level, load, value
from holdfast.log.anchor import Anchor, Mark
from holdfast.log.duty import Duties
from holdfast.log.opening import new_incarnation
from holdfast.objects import BlobFiles
from holdfast.seal import Signer
from holdfast.testing.corpus import log_of


@pytest.mark.parametrize("name", ["basic", "advanced", "critical"])
def test_what_was_written_is_there_after_opening_again_at_each_level(open_log, name):
    first = open_log(level=level(name))
    for n in range(50):
        first.log.append([value("state", f"k{n}", n)])
    first.close()
    again = open_log(level=level(name))
    assert [load(again.log.newest("state", f"k{n}"), None) for n in range(50)] == list(range(50))
    assert again.incidents == []


def test_a_log_that_was_only_read_leaves_its_anchor_alone(open_log, tmp_path):
    opened = open_log()
    opened.log.append([value("state", "a", 1)])
    opened.close()
    anchor = (tmp_path / "ada" / "log.anchor").read_bytes()
    opened = open_log()
    head = opened.sync()
    opened.close()
    assert head.seq == 1
    assert (tmp_path / "ada" / "log.anchor").read_bytes() == anchor


def test_who_only_read_syncs_nothing_and_who_wrote_syncs_at_the_end(tmp_path):
    synced = []

    def datasync(fd: int) -> None:
        synced.append(fd)
        os.fdatasync(fd)

    for expected in (1, 1, 0):  # made, written to, read
        synced.clear()
        engine = Engine(tmp_path / "a.db", roles=("node",), datasync=datasync)
        if expected:
            engine.commits.run(
                lambda _, engine=engine: engine.writer_execute("INSERT OR REPLACE INTO meta VALUES('a', 1)")
            )
        assert engine.one("SELECT v FROM meta WHERE k='a'") == (1,)
        engine.close()
        assert len(synced) == expected


def test_the_incarnation_outlives_the_process(open_log):
    first = open_log()
    branch = first.log.branch
    first.close()
    assert open_log().log.branch == branch


def test_a_log_of_another_key_is_refused(open_log, tmp_path):
    open_log().close()
    stranger = Signer(bytes(32)).public_key
    with pytest.raises(IntegrityError, match="another key"):
        OpenLog(tmp_path / "ada", "ada", public_key=stranger, blobs=BlobFiles(tmp_path / "blobs"))


def test_a_log_copied_back_is_noticed_by_its_anchor(open_log, tmp_path):
    opened = open_log()
    opened.log.append([value("state", "a", 1)])
    opened.close()
    shutil.copy(tmp_path / "ada" / "log.db", tmp_path / "old.db")
    opened = open_log()
    for n in range(9):
        opened.log.append([value("state", "a", n)])
    opened.close()
    shutil.copy(tmp_path / "old.db", tmp_path / "ada" / "log.db")
    found = open_log().incidents
    assert [each.what for each in found] == ["rolled-back"]
    assert "seq 10" in found[0].detail


def test_critical_refuses_a_log_that_has_lost_commits(open_log, tmp_path):
    opened = open_log(level=CRITICAL)
    opened.log.append([value("state", "a", 1)])
    opened.close()
    shutil.copy(tmp_path / "ada" / "log.db", tmp_path / "old.db")
    opened = open_log(level=CRITICAL)
    opened.log.append([value("state", "a", 2)])
    opened.close()
    shutil.copy(tmp_path / "old.db", tmp_path / "ada" / "log.db")
    with pytest.raises(IntegrityError, match="lost commits"):
        open_log(level=CRITICAL)
    assert [each.what for each in open_log(level=ADVANCED).incidents] == ["rolled-back"]


def test_critical_moves_its_anchor_before_the_write_returns(open_log, tmp_path):
    opened = open_log(level=CRITICAL)
    for n in range(3):
        opened.log.append([value("state", "a", n)])
        assert Anchor(tmp_path / "ada" / "log.anchor").read().seq == n + 1


class Watched(Anchor):
    """An anchor that knows who synced it."""

    def __init__(self, path):
        super().__init__(path)
        self.synced_by = []
        self.synced = threading.Event()

    def sync(self):
        super().sync()
        self.synced_by.append(threading.current_thread())
        self.synced.set()


def test_at_critical_no_writer_waits_for_the_anchor_to_be_synced(tmp_path):
    corpus = SqliteCorpus(tmp_path / "log.db", full=True)
    log, anchor = log_of(corpus, tmp_path), Watched(tmp_path / "log.anchor")
    duties = Duties(corpus, log.branch.id, anchor, CRITICAL)
    for n in range(20):
        log.append([value("state", "a", n)])
        assert anchor.read().seq == n + 1
    assert anchor.synced.wait(30), "nobody syncs it"
    duties.stop()
    assert threading.current_thread() not in anchor.synced_by
    corpus.close()
    anchor.close()


def test_at_critical_what_another_process_did_not_sync_is_synced_before_the_anchor_knows_it(tmp_path):
    marks = []

    def datasync(fd):
        os.fdatasync(fd)
        marks.append(anchor.read().seq)

    corpus = SqliteCorpus(tmp_path / "log.db", full=True, datasync=datasync)
    other = SqliteCorpus(tmp_path / "log.db")
    log, anchor = log_of(corpus, tmp_path), Anchor(tmp_path / "log.anchor")
    duties = Duties(corpus, log.branch.id, anchor, CRITICAL)
    log.append([value("state", "a", 1)])
    log_of(other, tmp_path).append([value("state", "a", 2)])
    corpus.write(lambda tx: tx.set_meta("x", 1))
    assert (anchor.read().seq, marks) == (2, [1])
    log.append([value("state", "a", 3)])
    assert (anchor.read().seq, marks) == (3, [1])
    duties.stop()
    for each in (corpus, other, anchor):
        each.close()


def test_sync_says_how_far_it_reached_and_the_anchor_follows_it(open_log, tmp_path):
    opened = open_log(level=BASIC)
    opened.log.append([value("state", "a", 1)])
    assert Anchor(tmp_path / "ada" / "log.anchor").read() is None
    head = opened.sync()
    mark = Anchor(tmp_path / "ada" / "log.anchor").read()
    assert mark == Mark(opened.log.branch.stream, 1, head.link, head.hlc)


def test_an_unknown_level_names_the_known_ones():
    with pytest.raises(ValueError, match="unknown level") as caught:
        level("paranoid")
    assert "critical" in caught.value.hint


def test_a_life_is_named_behind_those_before_it_and_a_stream_goes_on_behind_any_name() -> None:
    later = (1 << 47).to_bytes(6, "big") + bytes(10)
    assert new_incarnation(later) > later
    made = [new_incarnation(above) for above in (b"\xff" * 16, b"\xff" * 6 + bytes(10))]
    assert [len(each) for each in made] == [16, 16], "what a stranger named can end no stream"

"""What a writer remembers of its file between writes is never older than the file, whoever else writes to it."""

from __future__ import annotations

import random

import pytest

from holdfast.errors import Conflict
from holdfast.integrity import verify_corpus
from holdfast.log import BASIC, message, remove, value
from holdfast.log.prune import prune


def test_writers_that_take_turns_at_the_same_keys_make_one_chain(open_log):
    writers = [open_log(level=BASIC) for _ in range(3)]
    rng, versions = random.Random(3), dict.fromkeys("abcd", 0)
    for turn in range(400):
        log = rng.choice(writers).log
        key = rng.choice("abcd")
        if turn % 61 == 60:
            log.append([remove("state", "", prefix=True)])
            continue
        stored = log.append([value("state", key, turn)])[-1]
        versions[key] += 1
        assert (stored.record.key_version, stored.record.seq) == (versions[key], turn + 1)
    assert verify_corpus(writers[0].corpus).findings == []


def test_a_write_that_failed_leaves_nothing_behind_in_memory(open_log):
    log = open_log(level=BASIC).log
    for n in range(3):
        log.append([value("state", "a", n)])
    with pytest.raises(Conflict):
        log.append([value("state", "a", 3), value("state", "b", 3), value("state", "a", 4, expect=1)])
    stored = log.append([value("state", "a", 5, expect=3)])[0]
    assert (stored.record.seq, stored.record.key_version) == (4, 4)
    assert verify_corpus(log.corpus).findings == []


def test_an_interrupt_in_the_middle_of_a_transaction_leaves_nothing_behind_in_memory(open_log, monkeypatch):
    log = open_log(level=BASIC).log
    for n in range(3):
        log.append([value("state", "a", n)])

    def struck(tx):
        log.job([value("state", "a", 9)])(tx)
        # Ctrl-C in the job, and another one in the very first line of tidying up.
        monkeypatch.setattr(log.corpus.engine, "on_rollback", lambda: _interrupted())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        log.corpus.write(struck)
    monkeypatch.undo()
    log.corpus.engine.writer_execute("ROLLBACK")  # which the second one kept from happening
    stored = log.append([value("state", "a", 5)])[0]
    assert (stored.record.seq, stored.record.key_version) == (4, 4)
    assert verify_corpus(log.corpus).findings == []


def _interrupted():
    raise KeyboardInterrupt


def test_history_let_go_of_is_not_remembered(open_log):
    log = open_log(level=BASIC).log
    for n in range(9):
        log.append([value("state", "ab"[n % 2], n)])
    prune(log, lambda _: bytes(64), settled=9)
    stored = log.append([value("state", "a", 9)])[0]
    assert (stored.record.seq, stored.record.key_version) == (11, 6)
    assert log.newest("state", "b").record.key_version == 4


def test_a_message_whose_id_was_made_up_is_not_written_twice(open_log):
    log = open_log(level=BASIC).log
    said = message({"body": "hello", "thread": "t"})
    log.append([said])
    with pytest.raises(Conflict):
        log.append([said])
    assert [stored.record.seq for stored in log.corpus.feed(0)] == [1]
    assert verify_corpus(log.corpus).findings == []

"""The way back from message to message in an agent's file passes none over, whoever wrote and whatever was pruned."""

from __future__ import annotations

import random

import pytest

from holdfast.corpus import Filter
from holdfast.integrity import verify_corpus
from holdfast.log import BASIC, message, remove, value
from holdfast.log.drafts import MESSAGES
from holdfast.log.prune import prune


def write(writers, turns):
    """Messages among values, batches and deletions, by all of them."""
    rng = random.Random(turns)
    for turn in range(turns):
        log, kind = rng.choice(writers).log, rng.choice(["put", "put", "post", "post", "batch", "unsay"])
        if kind == "put":
            log.append([value("state", f"k{turn % 7}", turn)])
        elif kind == "post":
            log.append([message({"body": turn}, msg_id=f"m{turns}.{turn}", kind=rng.choice(["message", "report"]))])
        elif kind == "batch":
            log.append([message({"body": turn}), value("state", "k1", turn), message({"body": turn, "thread": "t"})])
        else:
            log.append([remove(MESSAGES, f"m{turns}.{rng.randrange(turn + 1)}")])


def scanned(corpus, **wanted):
    """The same by looking at every record."""
    return [each.pos for each in corpus.page(Filter(collection=MESSAGES, newest_first=False, limit=10_000, **wanted))]


def walked(corpus, **wanted):
    found, after = [], None
    while page := corpus.page(Filter(collection=MESSAGES, limit=7, after=after, **wanted)):
        found += [each.pos for each in page]
        after = found[-1]
    return found


@pytest.mark.parametrize("wanted", [{}, {"kinds": ("report",)}, {"current": True}, {"agents": ("ada",)}])
def test_a_walk_finds_what_looking_at_everything_finds(open_log, wanted):
    writers = [open_log(level=BASIC) for _ in range(2)]
    write(writers, 150)
    for each in writers:
        found = walked(each.corpus, **wanted)
        assert len(found) > 20
        assert found == scanned(each.corpus, **wanted)[::-1]
    assert verify_corpus(writers[0].corpus).findings == []


def test_where_a_message_was_pruned_the_walk_goes_on(open_log):
    opened = open_log(level=BASIC)
    write([opened], 200)
    before = walked(opened.corpus, current=True)
    assert prune(opened.log, lambda _: bytes(64), settled=opened.corpus.last()) > 20
    write([opened], 100)
    found = walked(opened.corpus, current=True)
    assert found == scanned(opened.corpus, current=True)[::-1]
    assert len(set(before) & set(found)) > 20
    assert walked(opened.corpus) == scanned(opened.corpus)[::-1]


def test_a_log_without_messages_has_none(open_log):
    opened = open_log(level=BASIC)
    assert walked(opened.corpus) == []
    opened.log.append([value("state", "k", 1)])
    assert walked(opened.corpus) == []


@pytest.mark.parametrize("harm", ["back=0", "back=pos", "back=pos+5", "back=-1"])
def test_a_way_that_leads_nowhere_ends_and_one_that_passes_over_a_message_is_found(open_log, harm):
    opened = open_log(level=BASIC)
    write([opened], 60)
    last = opened.corpus.last()
    opened.corpus.write(lambda tx: tx.execute(f"UPDATE rec SET {harm} WHERE pos>?", (last - 30,)))
    assert walked(opened.corpus) == sorted(walked(opened.corpus), reverse=True)
    found = {finding.check for finding in verify_corpus(opened.corpus).findings}
    assert found == (set() if "pos" in harm else {"state"})

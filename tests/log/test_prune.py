"""A pruned log begins at a signed record and still proves itself."""

from __future__ import annotations

import pytest

from holdfast import records, seal
from holdfast.errors import UsageError
from holdfast.log import load, value
from holdfast.log.prune import begin, prune


def test_only_what_is_settled_and_not_current_may_go(open_log, signer):
    opened = open_log()
    for n in range(100):
        opened.log.append([value("state", f"k{n % 5}", n)])
    with pytest.raises(UsageError, match="not settled"):
        prune(opened.log, signer.sign, settled=99)
    assert opened.corpus.last() == 100
    assert prune(opened.log, signer.sign, settled=100) == 95
    assert [load(opened.log.newest("state", f"k{n}"), None) for n in range(5)] == [95, 96, 97, 98, 99]
    assert opened.corpus.engine.scrub() == []


def test_the_rest_of_the_chain_follows_from_the_signed_beginning(open_log, signer):
    opened = open_log()
    stream = opened.log.branch.stream
    for n in range(10):
        opened.log.append([value("state", "k", n)])
    prune(opened.log, signer.sign, settled=10)
    opened.log.append([value("state", "k", "after")])
    mark = begin(opened.corpus, stream)
    assert mark.seq == 10
    rest = [each for each in opened.corpus.feed(mark.seq) if each.record.seq > mark.seq]
    said = load(rest[0], None)
    assert rest[0].record.kind == records.PRUNE
    message = records.head_message(stream, said["seq"], bytes.fromhex(said["link"]))
    assert seal.verify(signer.public_key, message, bytes.fromhex(said["signature"]))
    link = mark.link
    for each in rest:
        records.verify_link(link, records.encode_header(each.record), each.record.link, each.record.seq)
        link = each.record.link
    assert [load(each, None) for each in opened.log.versions("state", "k")] == ["after", 9]


def test_pruning_twice_moves_the_beginning(open_log, signer):
    opened = open_log()
    stream = opened.log.branch.stream
    for settled in (5, 11):
        for n in range(5):
            opened.log.append([value("state", "k", n)])
        prune(opened.log, signer.sign, settled=settled)
        assert begin(opened.corpus, stream).seq == settled
    assert opened.corpus.last() == 12

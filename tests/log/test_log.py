"""Drafts become records: versions, expectations, batches, messages, blobs."""

from __future__ import annotations

import os

import pytest

from holdfast import records
from holdfast.corpus import Filter
from holdfast.errors import Conflict, NotFound, StoreClosed, UsageError
from holdfast.log import load, message, remove, value
from holdfast.log.drafts import tags_of


def test_each_put_is_a_version_that_names_the_one_it_replaces(open_log):
    log = open_log().log
    first = log.append([value("state", "plan", "a")])[0].record
    second = log.append([value("state", "plan", "b")])[0].record
    assert (first.key_version, second.key_version) == (1, 2)
    assert first.base == records.ZERO32
    assert second.base == first.link
    assert [load(each, None) for each in log.versions("state", "plan")] == ["b", "a"]


def test_the_chain_of_what_was_appended_verifies_from_its_genesis(open_log):
    log = open_log().log
    stored = [each for n in range(20) for each in log.append([value("state", f"k{n % 3}", {"n": n})])]
    link = records.genesis(log.branch.stream)
    for number, each in enumerate(stored, 1):
        assert each.record.seq == number
        records.verify_link(link, records.encode_header(each.record), each.record.link, number)
        link = each.record.link


def test_an_expectation_that_is_met_writes_and_one_that_is_not_writes_nothing(open_log):
    opened = open_log()
    log = opened.log
    made = log.append([value("state", "plan", 1, expect=0)])[0].record
    with pytest.raises(Conflict) as caught:
        log.append([value("state", "plan", 2, expect=0)])
    assert caught.value.context["current_version"] == 1
    log.append([value("state", "plan", 3, expect=made.link.hex())])
    log.append([value("state", "plan", 4, expect=2)])
    assert opened.corpus.last() == 3


def test_after_a_delete_the_key_has_no_version_to_expect(open_log):
    log = open_log().log
    log.append([value("state", "plan", 1), remove("state", "plan", reason="done")])
    with pytest.raises(Conflict):
        log.append([value("state", "plan", 2, expect=2)])
    assert log.append([value("state", "plan", 2, expect=0)])[0].record.key_version == 3


def test_one_conflict_in_a_batch_undoes_the_whole_batch(open_log):
    opened = open_log()
    log = opened.log
    log.append([value("state", "a", 1)])
    with pytest.raises(Conflict):
        log.append([value("state", "b", 1), value("state", "a", 2, expect=7), value("state", "c", 1)])
    assert opened.corpus.last() == 1
    assert log.newest("state", "b") is None


def test_a_batch_is_marked_so_that_nobody_cuts_it(open_log):
    stored = open_log().log.append([value("state", f"k{n}", n) for n in range(3)])
    assert [bool(each.record.flags & records.MORE) for each in stored] == [True, True, False]


def test_a_batch_beyond_its_limits_is_refused_whole(open_log):
    opened = open_log()
    for drafts in (
        [],
        [value("state", f"k{n}", n) for n in range(501)],
        [value("state", f"k{n}", os.urandom(60_000)) for n in range(20)],
    ):
        with pytest.raises(UsageError):
            opened.log.append(drafts)
    assert opened.corpus.last() == 0


def test_deleting_a_prefix_is_one_record_and_shows_in_the_history_of_each_key(open_log):
    opened = open_log()
    log = opened.log
    for key in ("s/1", "s/2", "t/1"):
        log.append([value("state", key, key)])
    log.append([remove("state", "s/", prefix=True)])
    assert opened.corpus.last() == 4
    assert [each.record.key for each in opened.corpus.keys("ada", "state")] == ["t/1"]
    assert [each.record.kind for each in log.versions("state", "s/2")] == ["delete-prefix", "put"]
    log.append([value("state", "s/2", "again")])
    assert load(log.newest("state", "s/2"), None) == "again"
    assert [each.record.kind for each in log.versions("state", "s/2")] == ["put", "delete-prefix", "put"]
    assert [each.record.kind for each in log.versions("state", "t/1")] == ["put"]


def test_time_travel_by_version_and_by_time(open_log):
    log = open_log().log
    stamps = [log.append([value("state", "plan", n)])[0].record.hlc for n in range(1, 4)]
    assert load(log.as_of("state", "plan", version=2), None) == 2
    assert load(log.as_of("state", "plan", stamp=stamps[1]), None) == 2
    log.append([remove("state", "plan")])
    for wrong in ({"version": 4}, {"version": 9}, {"stamp": stamps[0] - 1}, {"stamp": 1 << 60}):
        with pytest.raises(NotFound):
            log.as_of("state", "plan", **wrong)


@pytest.mark.parametrize("size", [records.INLINE_BYTES_MAX - 1, records.INLINE_BYTES_MAX, records.INLINE_BYTES_MAX + 1])
def test_a_payload_above_64_kib_is_a_blob_and_comes_back_the_same(open_log, size):
    log = open_log().log
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    stored = log.append([value("state", "file", content)])[0]
    assert stored.is_blob is (size > records.INLINE_BYTES_MAX)
    assert load(log.newest("state", "file"), log.blobs) == content


def test_messages_are_found_by_whom_task_and_thread(open_log):
    opened = open_log()
    opened.log.append([message({"body": "hi", "to": "bob", "task": "t1"}, msg_id="m1")])
    opened.log.append([message({"body": "yo", "to": "eve", "thread": "x"}, kind="report")])
    found = opened.corpus.page(Filter(to="bob"))
    assert [each.record.key for each in found] == ["m1"]
    assert opened.corpus.count(Filter(task="t1")) == 1
    assert opened.corpus.count(Filter(thread="x", to="bob")) == 0
    assert [each.record.kind for each in opened.corpus.page(Filter(kinds=("report",)))] == ["report"]
    stored = found[0]
    assert len(tags_of(stored.record, stored.payload())) == 2


def test_a_message_id_is_taken_once(open_log):
    log = open_log().log
    log.append([message({"body": "hi"}, msg_id="m1")])
    with pytest.raises(Conflict):
        log.append([message({"body": "other"}, msg_id="m1")])


@pytest.mark.parametrize(
    "make",
    [
        lambda: value("state", "k" * 1025, 1),
        lambda: value("state", "a\nb", 1),
        lambda: value("state", 7, 1),
        lambda: value(["state"], "k", 1),
        lambda: value("", "k", 1),
        lambda: value("state", "k", float("nan")),
        lambda: value("state", "k", {1: 2}),
        lambda: value("state", "\ud800", 1),
        lambda: message({"body": 1, "to": 7}),
        lambda: message({"body": 1, "task": "t" * 300}),
        lambda: message({"body": 1}, kind=""),
    ],
)
def test_what_no_header_or_json_can_carry_is_refused_before_anything_is_written(make):
    with pytest.raises(UsageError) as caught:
        make()
    assert caught.value.message


def test_the_clock_of_a_stream_never_goes_back_and_follows_others_only_a_minute(open_log):
    log = open_log().log
    first = log.append([value("state", "a", 1)])[0].record.hlc
    log.observe(1 << 59)  # somebody's clock is decades ahead
    second = log.append([value("state", "a", 2)])[0].record.hlc
    assert first < second
    assert (second >> 16) - (first >> 16) <= 61_000


def test_a_closed_log_says_so(open_log):
    opened = open_log()
    opened.close()
    opened.close()
    with pytest.raises(StoreClosed):
        opened.log.append([value("state", "a", 1)])
    with pytest.raises(StoreClosed):
        opened.log.newest("state", "a")


def test_a_page_can_leave_out_what_was_replaced_or_deleted_since(open_log):
    opened = open_log()
    opened.log.append([message({"body": 1}, msg_id="m1"), message({"body": 2}, msg_id="m2")])
    opened.log.append([message({"body": 3}, msg_id="m3")])
    opened.log.append([remove("messages", "m2"), value("state", "plan", 1), value("state", "plan", 2)])
    current = opened.corpus.page(Filter(collection="messages", current=True))
    assert [each.record.key for each in current] == ["m3", "m1"]
    assert [load(each, None) for each in opened.corpus.page(Filter(collection="state", current=True))] == [2]
    opened.log.append([remove("messages", "m", prefix=True)])
    assert opened.corpus.page(Filter(collection="messages", current=True)) == []

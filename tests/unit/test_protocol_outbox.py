"""What a node sends next, and what it makes of each answer."""

from __future__ import annotations

from hashlib import sha256

import msgspec
import pytest

from holdfast import records
from holdfast.protocol.actions import Pull, Refresh, SendAppend, SendBlob, SendHello, Wait
from holdfast.testing.sim_hub import POISON
from holdfast.wire import EVICTED, QUARANTINED, AppendAnswer, Mark
from tests.unit.protocol_room import Room


def test_the_first_thing_said_is_hello_and_then_all_that_waits_goes_in_one_request() -> None:
    room = Room()
    for k in range(5):
        room.write(f"k{k}")
    assert isinstance(room.step(), SendHello)
    append = room.step()
    assert isinstance(append, SendAppend)
    assert len(append.message.segments[0].items) == 5
    assert isinstance(room.step(), Wait)
    assert room.outbox.status().state == "in_sync"


def test_one_request_is_in_flight_at_a_time() -> None:
    room = Room()
    room.write()
    room.outbox.next()
    assert room.outbox.next() == Wait(None)


def test_only_the_answer_to_the_latest_hello_moves_a_cursor() -> None:
    room = Room()
    room.write()
    first = room.outbox.next()
    assert isinstance(first, SendHello)
    stale = room.hub.hello(first.message, 0)
    room.outbox.failed("timeout")
    room.time += 60
    assert isinstance(room.outbox.next(), SendHello)
    assert not room.outbox.on_hello(stale)
    assert room.outbox.next() == Wait(None)


def test_an_ack_of_another_generation_or_another_request_is_not_believed() -> None:
    room = Room()
    room.write()
    room.step()
    append = room.outbox.next()
    assert isinstance(append, SendAppend)
    (answer,) = room.hub.append([append.message])
    assert not room.outbox.on_append(msgspec.structs.replace(answer, req=append.message.req - 1))
    assert room.outbox.on_append(msgspec.structs.replace(answer, gen="another"))
    assert room.outbox.status().depth[room.stream] == 1
    assert isinstance(room.outbox.next(), SendHello)


def test_an_ack_with_a_link_that_is_not_mine_leads_to_hello() -> None:
    room = Room()
    room.write()
    room.step()
    append = room.outbox.next()
    assert isinstance(append, SendAppend)
    (answer,) = room.hub.append([append.message])
    wrong = msgspec.structs.replace(answer.verdicts[0], at=Mark(1, bytes(32)))
    assert room.outbox.on_append(AppendAnswer(answer.gen, answer.req, [wrong]))
    assert room.outbox.status().depth[room.stream] == 1
    assert isinstance(room.outbox.next(), SendHello)


def test_nothing_is_shipped_that_a_power_cut_could_still_take() -> None:
    room = Room()
    room.write()
    room.settle()
    assert room.log.synced == 1


def test_a_hub_put_back_to_an_older_state_is_filled_again() -> None:
    room = Room()
    for _ in range(2):
        room.write()
        room.settle()
        room.hub.take_backup()
    room.write()
    room.settle()
    room.hub.restore(0)
    assert len(room.hub.corpus.rows) == 1
    room.write()
    room.settle()
    assert [seq for seq, _ in room.values_on_hub()] == [1, 2, 3, 4]
    assert room.outbox.forks == 0


def test_a_node_put_back_takes_its_lost_records_back_under_the_same_incarnation() -> None:
    room = Room()
    room.write("a")
    old = room.disk.copy()
    room.write("b")
    room.settle()
    again = room.restored(old)
    inc = again.log.inc
    again.settle()
    assert again.events == ["fast_forward"]
    assert (len(again.log.entries), again.log.inc) == (2, inc)


def test_a_node_that_lost_even_its_first_record_takes_all_back() -> None:
    room = Room()
    old = room.disk.copy()
    room.write()
    room.settle()
    again = room.restored(old)
    again.settle()
    assert again.log.head == room.log.head


def test_a_node_put_back_that_wrote_since_keeps_both_branches_and_no_value_vanishes() -> None:
    room = Room()
    room.write("both", b"first")
    old = room.disk.copy()
    room.write("theirs", b"abandoned")
    room.write("both", b"abandoned")
    room.settle()
    again = room.restored(old)
    again.write("mine", b"kept")
    again.write("both", b"kept")
    again.settle()
    assert again.outbox.forks == 1
    assert again.log.base == Mark(1, room.log.entries[0].record.link)
    assert (again.value("theirs"), again.value("mine"), again.value("both")) == (b"abandoned", b"kept", b"kept")
    assert len(again.hub.corpus.labels[again.stream]) == 2
    assert {key for _, key in again.values_on_hub()} == {"both", "theirs", "mine", ""}
    assert again.settle() == []


def test_a_tampered_pull_changes_nothing() -> None:
    room = Room()
    room.write("a")
    old = room.disk.copy()
    room.write("b", b"true")
    room.settle()
    again = room.restored(old)
    again.step()
    pull = again.outbox.next()
    assert isinstance(pull, Pull)
    page = room.hub.pull(pull.stream, pull.inc, pull.first)
    assert page is not None
    forged = msgspec.structs.replace(page.items[0], body=b"false")
    assert again.outbox.on_pulled(msgspec.structs.replace(page, items=[forged]))
    assert len(again.log.entries) == 1
    assert "cannot use" in again.outbox.status().alert


def test_a_pull_that_the_stream_key_did_not_sign_changes_nothing() -> None:
    room = Room()
    room.write("a")
    old = room.disk.copy()
    room.write("b")
    room.settle()
    again = room.restored(old)
    again.step()
    pull = again.outbox.next()
    assert isinstance(pull, Pull)
    page = room.hub.pull(pull.stream, pull.inc, pull.first)
    assert page is not None
    assert again.outbox.on_pulled(msgspec.structs.replace(page, signature=b"nobody"))
    assert len(again.log.entries) == 1


def test_a_refused_record_goes_as_an_envelope_and_does_not_hold_up_the_rest() -> None:
    room = Room()
    room.write("a")
    room.write("", b"venom", kind=POISON, flags=0)
    room.write("b")
    room.settle()
    rows = [row.item for row, _ in room.hub.corpus.rows]
    assert [item.body for item in rows] == [b"v", None, b"v"]
    assert rows[1].why == QUARANTINED
    assert room.log.entries[1].item.body == b"venom"
    assert room.outbox.status().quarantined == 1
    assert room.outbox.kept(room.stream) == {2}


def test_a_body_that_the_hub_holds_only_as_an_envelope_is_never_evictable_even_if_this_node_forgot_why() -> None:
    room = Room()
    room.write("", b"venom", kind=POISON, flags=0)
    room.write("a")
    old = room.disk.copy()
    room.settle()
    for _ in range(2):
        room.hub.take_backup()
    again = room.restored(old)
    again.settle()
    assert again.outbox.evictable(again.stream) == 2
    assert again.outbox.kept(again.stream) == {1}


def test_nothing_is_evictable_before_two_backups_have_it() -> None:
    room = Room()
    room.write()
    room.settle()
    room.hub.take_backup()
    room.outbox.say_hello()
    room.settle()
    assert room.outbox.evictable(room.stream) == 0
    room.hub.take_backup()
    room.outbox.say_hello()
    room.settle()
    assert room.outbox.evictable(room.stream) == 1


def test_evicted_bodies_are_sent_as_envelopes_to_a_hub_that_lost_them() -> None:
    room = Room()
    room.write()
    entry = room.log.entries[0]
    gone = msgspec.structs.replace(entry.item, body=None, why=EVICTED)
    room.log.entries[0] = msgspec.structs.replace(entry, item=gone)
    room.settle()
    assert room.hub.corpus.rows[0][0].item.why == EVICTED


def test_a_batch_is_never_cut() -> None:
    room = Room()
    room.write("a")
    for k in range(4):
        room.write(f"b{k}", flags=records.VALUE | (records.MORE if k < 3 else 0))
    room.outbox._cap = 3
    sent = [len(s.items) for a in room.settle() if isinstance(a, SendAppend) for s in a.message.segments]
    assert sent == [1, 4]


def test_blobs_go_before_the_records_that_need_them() -> None:
    room = Room()
    digest = sha256(b"large").digest()
    room.disk.blobs[digest] = b"large"
    room.write("a", records.blob_reference(digest, 5), flags=records.VALUE | records.BLOB)
    kinds = [type(action) for action in room.settle()]
    assert kinds == [SendHello, SendAppend, SendBlob, SendAppend]
    assert room.hub.corpus.stored[digest] == b"large"


def test_a_blob_that_is_not_readable_here_does_not_hold_up_the_rest() -> None:
    room = Room()
    room.write("a", records.blob_reference(bytes(32), 5), flags=records.VALUE | records.BLOB)
    room.write("b")
    room.step()
    room.step()
    assert isinstance(room.outbox.next(), SendBlob)
    assert room.outbox.on_blob(bytes(32), False)
    room.settle()
    assert [row.item.body for row, _ in room.hub.corpus.rows] == [None, b"v"]


def test_a_request_that_the_hub_cannot_take_is_halved_and_a_single_record_is_left_out_the_third_time() -> None:
    room = Room()
    for k in range(4):
        room.write(f"k{k}")
    room.step()
    sizes = []
    for _ in range(30):
        room.time += 1
        room.outbox.poke()
        action = room.outbox.next()
        if not isinstance(action, SendAppend):
            break
        items = action.message.segments[0].items
        sizes.append(len(items))
        if any(item.body for item in items):
            room.outbox.failed("status", 413, None, True)
        else:
            (answer,) = room.hub.append([action.message])
            room.outbox.on_append(msgspec.structs.replace(answer, safe=answer.req))
    assert sizes[:5] == [4, 2, 1, 1, 1]
    assert len(room.hub.corpus.rows) == 4
    assert room.outbox.status().quarantined == 4


@pytest.mark.parametrize(
    ("status", "state"), [(507, "hub_full"), (503, "offline"), (404, "mismatch"), (426, "mismatch"), (401, "denied")]
)
def test_each_failure_has_its_state_and_none_ends_the_trying(status: int, state: str) -> None:
    room = Room()
    room.write()
    for _ in range(50):
        room.time += 301
        action = room.outbox.next()
        if isinstance(action, Refresh):
            action = room.outbox.next()
        assert isinstance(action, SendHello)
        room.outbox.failed("status", status, None, True)
        assert room.outbox.status().state == state
    room.time += 301
    room.settle()
    room.settle()
    assert room.outbox.status().state == "in_sync"


def test_a_denied_credential_is_read_again_at_once_and_then_every_minute() -> None:
    room = Room()
    room.write()
    room.outbox.next()
    room.outbox.failed("status", 401, None, True)
    assert isinstance(room.outbox.next(), Refresh)
    assert isinstance(room.outbox.next(), SendHello)
    room.outbox.failed("status", 401, None, True)
    assert isinstance(room.outbox.next(), Refresh)
    assert room.outbox.next() == Wait(room.time + 60)


def test_a_hub_that_always_disagrees_is_asked_ever_more_slowly() -> None:
    room = Room()
    room.write()
    count = 0
    for _ in range(200):
        action = room.outbox.next()
        if isinstance(action, SendHello):
            room.outbox.on_hello(room.hub.hello(action.message, 0))
        elif isinstance(action, SendAppend):
            count += 1
            room.outbox.on_append(AppendAnswer("other", action.message.req, [], regen=True))
        elif isinstance(action, Wait):
            assert action.until is not None
            room.time = action.until
    assert room.time > 600
    assert count < 120


def test_a_stream_that_the_hub_denies_is_tried_again_after_a_minute() -> None:
    room = Room()
    room.write()
    room.step()
    append = room.outbox.next()
    assert isinstance(append, SendAppend)
    (answer,) = room.hub.append([append.message])
    denied = msgspec.structs.replace(answer.verdicts[0], state="denied", reason="no")
    room.outbox.on_append(msgspec.structs.replace(answer, verdicts=[denied]))
    assert isinstance(room.outbox.next(), Refresh), "a wider token may be there by now"
    action = room.outbox.next()
    assert isinstance(action, Wait)
    assert action.until is not None
    assert action.until <= room.time + 60
    assert room.outbox.status().alert.endswith(": no")
    assert "denies" in room.outbox.status().alert
    room.time += 61
    room.settle()
    assert room.outbox.status().alert == ""
    assert room.outbox.status().depth[room.stream] == 0


def test_the_cursor_is_void_when_its_link_is_not_in_the_log() -> None:
    room = Room()
    room.write("a")
    old = room.disk.copy()
    room.write("b")
    room.settle()
    for _ in range(2):
        room.hub.take_backup()
    room.outbox.say_hello()
    room.settle()
    old.positions = room.disk.positions
    again = room.restored(old)
    assert again.outbox.evictable(again.stream) == 0


def test_a_pull_that_the_hub_refuses_ends_in_hello() -> None:
    room = Room()
    room.write("a")
    old = room.disk.copy()
    room.write("b")
    room.settle()
    again = room.restored(old)
    again.step()
    assert isinstance(again.outbox.next(), Pull)
    again.outbox.failed("status", 404, None, True)
    again.time += 1
    assert isinstance(again.outbox.next(), SendHello)

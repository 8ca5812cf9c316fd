"""What a hub answers and writes: duplicates, forks, gaps, signatures, payloads, several requests in one commit."""

from __future__ import annotations

from random import Random

import msgspec

from holdfast import codec, records
from holdfast.protocol.ingest import Ingest
from holdfast.protocol.ports import NewStream
from holdfast.records import MORE, VALUE
from holdfast.testing.sim_hub import Hub
from holdfast.testing.sim_node import Disk, sign, verify
from holdfast.wire import EVICTED, Append, Item, Mark, Segment, Verdict
from tests.unit.protocol_room import Room


def segment(room: Room, first: int, last: int, inc: bytes | None = None) -> Segment:
    log = room.log
    prev = log.link(first - 1)
    link = log.link(last)
    assert prev is not None
    assert link is not None
    items = [entry.item for entry in log.entries[first - 1 : last]]
    signature = sign(log.key, records.head_message(log.stream, last, link))
    return Segment(log.stream, inc or log.inc, log.agent, log.key, first, prev, items, signature)


def send(hub: Hub, *segments: Segment, gen: str | None = None) -> list[Verdict]:
    (answer,) = hub.append([Append(gen or hub.gen, 1, list(segments))])
    return answer.verdicts


def written(count: int, **flags: int) -> Room:
    room = Room()
    for k in range(count):
        room.write(f"k{k}", **flags)
    return room


def test_what_is_repeated_is_acknowledged_and_logged_once() -> None:
    room = written(5)
    assert send(room.hub, segment(room, 1, 3))[0].state == "ack"
    for first, last in ((1, 3), (2, 5), (1, 5), (4, 4)):
        (verdict,) = send(room.hub, segment(room, first, last))
        assert verdict.state == "ack"
    assert [seq for seq, _ in room.values_on_hub()] == [1, 2, 3, 4, 5]
    assert verdict.at == room.log.head


def test_a_gap_says_where_the_hub_stands() -> None:
    room = written(5)
    send(room.hub, segment(room, 1, 2))
    (verdict,) = send(room.hub, segment(room, 4, 5))
    assert (verdict.state, verdict.at) == ("gap", Mark(2, room.log.entries[1].record.link))


def test_another_record_at_the_same_place_is_a_fork_and_nothing_of_it_is_stored() -> None:
    room = written(2)
    old = room.disk.copy()
    room.write("mine")
    send(room.hub, segment(room, 1, 3))
    other = room.restored(old)
    other.write("other")
    other.write("more")
    assert send(room.hub, segment(other, 3, 4))[0].state == "fork"
    assert len(room.hub.corpus.rows) == 3
    assert send(room.hub, segment(other, 3, 4, inc=b"\xff" * 16))[0].state == "ack"
    assert len(room.hub.corpus.rows) == 5


def test_the_same_record_under_another_incarnation_is_not_logged_again() -> None:
    room = written(4)
    send(room.hub, segment(room, 1, 4))
    (verdict,) = send(room.hub, segment(room, 1, 4, inc=b"\xff" * 16))
    assert (verdict.state, verdict.at.seq) == ("ack", 4)
    assert len(room.hub.corpus.rows) == 4


def test_a_request_of_another_generation_stores_nothing() -> None:
    room = written(1)
    (answer,) = room.hub.append([Append("another", 7, [segment(room, 1, 1)])])
    assert (answer.regen, answer.verdicts, answer.req) == (True, [], 7)
    assert room.hub.corpus.rows == []


def test_two_segments_of_one_stream_and_a_repeated_request_fit_in_one_commit() -> None:
    room = written(4)
    hub = room.hub
    first = Append(hub.gen, 1, [segment(room, 1, 2), segment(room, 3, 4)])
    answers = hub.append([first, first, Append(hub.gen, 2, [segment(room, 2, 3)])])
    assert {v.state for a in answers for v in a.verdicts} == {"ack"}
    assert [seq for seq, _ in room.values_on_hub()] == [1, 2, 3, 4]


def test_nobody_writes_under_a_stream_without_its_key() -> None:
    room = written(1)
    true = segment(room, 1, 1)
    forged = msgspec.structs.replace(true, signature=b"\0" * 16)
    stolen = msgspec.structs.replace(true, public_key=bytes(32))
    renamed = msgspec.structs.replace(true, agent="other")
    assert [send(room.hub, s)[0].state for s in (forged, stolen, renamed)] == ["denied"] * 3
    assert room.hub.corpus.rows == []


def test_a_changed_header_is_denied_because_its_link_is_no_longer_the_signed_one() -> None:
    room = written(2)
    true = segment(room, 1, 2)
    changed = msgspec.structs.replace(room.log.entries[0].record, key="x")
    items = [msgspec.structs.replace(true.items[0], header=records.encode_header(changed)), true.items[1]]
    assert send(room.hub, msgspec.structs.replace(true, items=items))[0].state == "denied"


def test_a_damaged_payload_is_rejected_by_record_and_its_envelope_taken() -> None:
    room = written(3)
    true = segment(room, 1, 3)
    damaged = [true.items[0], msgspec.structs.replace(true.items[1], body=b"w"), true.items[2]]
    (verdict,) = send(room.hub, msgspec.structs.replace(true, items=damaged))
    assert (verdict.state, [r.seq for r in verdict.rejected]) == ("rejected", [2])
    assert room.hub.corpus.rows == []
    damaged[1] = Item(true.items[1].header, b"", 0, None, EVICTED)
    assert send(room.hub, msgspec.structs.replace(true, items=damaged))[0].state == "ack"


def test_a_frame_that_declares_gigabytes_is_rejected_unread() -> None:
    room = Room()
    room.write("bomb", bytes(60_000))
    entry = room.log.entries[0]
    size, body = codec.pack(bytes(60_000))
    record = msgspec.structs.replace(entry.record, payload_len=1 << 40)
    header = records.encode_header(record)
    link = records.next_link(room.log.genesis.link, header)
    signature = sign(room.log.key, records.head_message(room.stream, 1, link))
    item = Item(header, b"", size, body)
    true = segment(room, 1, 1)
    (verdict,) = send(room.hub, msgspec.structs.replace(true, items=[item], signature=signature))
    assert (verdict.state, verdict.rejected[0].code) == ("rejected", "too_big")


def test_a_segment_is_never_taken_that_ends_within_a_batch() -> None:
    room = Room()
    room.write("a", flags=VALUE | MORE)
    room.write("b")
    assert send(room.hub, segment(room, 1, 1))[0].state == "denied"
    assert send(room.hub, segment(room, 1, 2))[0].state == "ack"


def test_a_body_missing_without_a_reason_is_rejected() -> None:
    room = written(1)
    true = segment(room, 1, 1)
    bare = msgspec.structs.replace(true.items[0], body=None)
    (verdict,) = send(room.hub, msgspec.structs.replace(true, items=[bare]))
    assert verdict.rejected[0].code == "no_body"


def test_after_a_rotation_only_the_new_key_counts_and_late_repeats_of_the_past_still_do() -> None:
    room = written(1)
    old, new = room.log.key, bytes(reversed(range(32)))
    room.write("", new, kind=records.ROTATE, flags=0)
    room.write("after")
    before = segment(room, 1, 2)
    assert send(room.hub, segment(room, 1, 3))[0].state == "denied"
    ingest = Ingest(room.hub.corpus, gen=room.hub.gen, verify=verify)
    after = segment(room, 3, 3)
    link = room.log.link(3)
    assert link is not None
    good = msgspec.structs.replace(after, signature=sign(new, records.head_message(room.stream, 3, link)))
    (answer,) = ingest.append([Append(room.hub.gen, 1, [before, after, good, before])])
    assert [v.state for v in answer.verdicts] == ["ack", "denied", "ack", "ack"]
    assert ingest.plan.keys == {room.stream: new}
    assert ingest.plan.streams == [NewStream(room.stream, "scout", old)]


def test_a_stream_may_begin_at_a_prune_record_and_at_no_other() -> None:
    room = written(2)
    room.write("", b"", kind=records.PRUNE, flags=0)
    room.write("after")
    assert send(room.hub, segment(room, 2, 4))[0].state == "gap"
    assert send(room.hub, segment(room, 3, 4))[0].state == "ack"
    assert [seq for seq, _ in room.values_on_hub()] == [3, 4]


def test_what_a_hub_will_not_let_write_is_denied_with_the_reason() -> None:
    class Strict(Ingest):
        def refuse(self, request: Append, segment: Segment) -> str:
            return "read only"

    room = written(1)
    (answer,) = Strict(room.hub.corpus, gen="g", verify=verify).append([Append("g", 1, [segment(room, 1, 1)])])
    assert (answer.verdicts[0].state, answer.verdicts[0].reason) == ("denied", "read only")


def test_settled_is_what_both_newest_backups_hold_of_this_very_chain() -> None:
    room = written(3)
    room.settle()
    room.hub.take_backup()
    room.write("later")
    room.settle()
    room.hub.take_backup()
    room.outbox.say_hello()
    room.settle()
    assert room.outbox.evictable(room.stream) == 3
    room.hub.restore(0)
    room.outbox.say_hello()
    room.settle()
    assert room.outbox.evictable(room.stream) == 3


def test_the_branches_of_a_history_with_many_restores_pull_whole() -> None:
    hub = Hub("hub0")
    rng, room = Random(5), Room(hub=hub)
    copies: list[Disk] = []
    for life in range(12):
        for k in range(rng.randrange(1, 6)):
            room.write(f"k{k}")
        copies.append(room.disk.copy())
        room.write("end")
        room.settle()
        room = room.restored(rng.choice(copies).copy(), seed=life)
        room.write("begin")
        room.settle()
    labels = hub.corpus.labels[room.stream]
    assert len(labels) > 3
    for inc, label in labels.items():
        seqs, first = [], 1
        while first <= label.head.seq:
            page = hub.pull(room.stream, inc, first)
            assert page is not None
            link = page.prev
            for item in page.items:
                link = records.next_link(link, item.header)
                seqs.append(records.decode_header(item.header).seq)
            first += len(page.items)
        assert seqs == list(range(1, label.head.seq + 1))
        assert link == label.head.link

"""The outbox's view of a node directory obeys the laws of its port."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from holdfast import seal
from holdfast.node.outbox_store import LogsOutbox, depth
from holdfast.node.store import Store
from holdfast.protocol.merge import linked
from holdfast.protocol.ports import Position
from holdfast.records import ROTATE, genesis, head_message
from holdfast.wire import Item, Mark, Rejected

Open = Callable[..., Store]


@pytest.fixture
def ada(open_store: Open) -> Store:
    """A log of five records."""
    store = open_store()
    for number in range(5):
        store.put(f"k/{number}", "x" * 100)
    return store


@pytest.fixture
def outbox(ada: Store) -> LogsOutbox:
    """The port over her directory."""
    return LogsOutbox(ada._directory)


def test_every_log_is_a_stream_also_those_that_appear_later(open_store: Open, outbox: LogsOutbox) -> None:
    assert [each.agent for each in outbox.streams()] == ["ada"]
    open_store("bob").put("k", 1)
    outbox._again = float("-inf")
    assert [(each.agent, each.head.seq) for each in outbox.streams()] == [("ada", 5), ("bob", 1)]


def test_what_is_read_is_a_chain_within_its_bounds(outbox: LogsOutbox) -> None:
    (info,) = outbox.streams()
    items = outbox.read(info.stream, 1, 5, 500, 1 << 20)
    found = linked(Mark(0, genesis(info.stream)), items)
    assert [record.seq for record, _ in found] == [1, 2, 3, 4, 5]
    assert Mark(found[-1][0].seq, found[-1][0].link) == info.head == outbox.sync([info.stream])[info.stream]
    links = outbox.links(info.stream, [0, 2, 5, 9])
    assert links == {0: genesis(info.stream), 2: found[1][0].link, 5: info.head.link}
    assert len(outbox.read(info.stream, 2, 4, 500, 1 << 20)) == 3
    assert len(outbox.read(info.stream, 1, 5, 2, 1 << 20)) == 2
    assert len(outbox.read(info.stream, 1, 5, 500, 1)) == 1


def test_each_head_is_signed_by_the_key_that_was_in_force(ada: Store, outbox: LogsOutbox) -> None:
    (info,) = outbox.streams()
    keys = [info.public_key]
    for _ in range(2):
        keys.append(bytes.fromhex(ada.rotate()))
        ada.put("more", 1)
    (info,) = outbox.streams()
    assert (info.public_key, info.key) == (keys[0], keys[2])
    signers = [0, 0, 0, 0, 0, 0, 1, 1, 2]  # five puts; rotate, put; rotate, put
    for seq, signer in enumerate(signers, 1):
        mark = Mark(seq, outbox.links(info.stream, [seq])[seq])
        signature = outbox.sign(info.stream, mark)
        assert seal.verify(keys[signer], head_message(info.stream, *mark_of(mark)), signature), seq
    kinds = [
        record.kind for record, _ in linked(Mark(0, genesis(info.stream)), outbox.read(info.stream, 1, 9, 99, 9999))
    ]
    assert [seq for seq, kind in enumerate(kinds, 1) if kind == ROTATE] == [6, 8]


def test_the_oldest_that_a_hub_lacks_is_the_first_behind_its_mark_of_any_log(ada: Store, outbox: LogsOutbox) -> None:
    (info,) = outbox.streams()
    written = {version.seq: round(version.time * 1000) for n in range(5) for version in ada.history(f"k/{n}")}

    def acked(seq: int, link: bytes) -> int:
        outbox.keep("hub", {info.stream: Position(info.inc, Mark(seq, link), Mark(0, b""))})
        return outbox.oldest_ms("hub")

    links = outbox.links(info.stream, [2, 5])
    assert outbox.oldest_ms("hub") == written[1], "it has told nothing yet"
    assert acked(2, links[2]) == written[3]
    assert acked(2, b"another link") == written[1], "a mark that is not in the log is void"
    assert acked(5, links[5]) == 0
    assert outbox.oldest_ms("another hub") == written[1]


def mark_of(mark: Mark) -> tuple[int, bytes]:
    """As arguments."""
    return mark.seq, mark.link


def test_positions_are_kept_for_each_hub_and_void_when_the_link_is_not_in_the_log(
    ada: Store, outbox: LogsOutbox
) -> None:
    (info,) = outbox.streams()
    third = Mark(3, outbox.links(info.stream, [3])[3])
    position = Position(info.inc, third, Mark(0, b""))
    outbox.keep("one", {info.stream: position})
    outbox.keep("two", {info.stream: Position(info.inc, Mark(3, bytes(32)), Mark(0, b""))})
    assert outbox.positions("one") == {info.stream: position}
    assert outbox.positions("three") == {}
    assert [depth(ada._directory, ada._opened, hub) for hub in ("one", "two", "three")] == [2, 5, 5]


def test_what_a_hub_refused_is_remembered_as_long_as_the_log_has_it(ada: Store, outbox: LogsOutbox) -> None:
    (info,) = outbox.streams()
    outbox.quarantine("one", info.stream, [Rejected(2, "too_big", "why"), Rejected(99, "hash", "not there")])
    assert outbox.quarantined("one") == {info.stream: [2]}
    assert outbox.quarantined("two") == {}
    assert ada.health()["refused"] == [{"hub": "one", "seq": 2, "code": "too_big", "reason": "why"}]
    ada._directory.node.commits.run(
        lambda _: ada._directory.node.writer_execute("UPDATE refused SET link=?", (bytes(32),))
    )
    assert outbox.quarantined("one") == {}


def test_an_incarnation_is_newer_than_all_before(outbox: LogsOutbox) -> None:
    (info,) = outbox.streams()
    far = (1 << 48).to_bytes(7, "big")[1:] + bytes(10)
    made = [info.inc]
    for above in (b"", b"\xff" * 5 + bytes(11), far):
        made.append(outbox.mint(info.stream, info.base, above))
        (now,) = outbox.streams()
        assert now.inc == made[-1] > above
    assert made == sorted(made)


def test_records_are_taken_back_only_behind_the_very_head(open_store: Open, ada: Store, outbox: LogsOutbox) -> None:
    (info,) = outbox.streams()
    before = Mark(4, outbox.links(info.stream, [4])[4])
    items = outbox.read(info.stream, 5, 5, 1, 1 << 20)
    assert not outbox.fast_forward(info.stream, before, items, info.inc)
    assert outbox.streams()[0].head == info.head


def test_a_newer_value_of_another_branch_is_taken_and_an_older_is_not(ada: Store, outbox: LogsOutbox) -> None:
    (info,) = outbox.streams()
    genesis_mark = Mark(0, genesis(info.stream))
    first = outbox.read(info.stream, 1, 2, 2, 1 << 20)
    ada.put("k/0", "newer here")
    inc = b"\x01" * 16
    assert outbox.merge(info.stream, inc, genesis_mark, first) == 0
    second = Mark(2, outbox.links(info.stream, [2])[2])
    assert outbox.weighed(info.stream) == [(inc, second)]
    assert ada.get("k/0") == "newer here"
    theirs = [a_later_put(outbox, info.stream, ada)]
    assert outbox.merge(info.stream, inc, second, theirs) == 2
    assert ada.get("k/0") == "theirs"
    assert [each.kind for each in ada.history("k/0")] == ["merge", "put", "put"]
    assert [seen for seen, _ in outbox.weighed(info.stream)] == [inc]
    assert ada.verify().findings == []


def a_later_put(outbox: LogsOutbox, stream: bytes, ada: Store) -> Item:
    """A put of k/0 behind record 2 of another branch, later than everything here."""
    import msgspec

    from holdfast import codec
    from holdfast.clock import pack
    from holdfast.records import decode_header, encode_header, payload_hash

    (item,) = outbox.read(stream, 3, 3, 1, 1 << 20)
    fmt, payload = codec.serialise("theirs")
    stamp = pack(ada._directory.wall.now_ms() + 5000)
    record = msgspec.structs.replace(
        decode_header(item.header),
        hlc=stamp,
        key="k/0",
        fmt=fmt,
        payload_len=len(payload),
        payload_hash=payload_hash(b"", payload),
    )
    return Item(encode_header(record), b"", codec.RAW, payload)

"""Which values another branch has that win here."""

from __future__ import annotations

from holdfast import records
from holdfast.protocol import merge
from holdfast.records import MORE, TOMBSTONE, VALUE
from holdfast.wire import EVICTED, Item, Mark
from tests.unit.protocol_room import Room


def branches() -> tuple[Room, Room]:
    """Two lives that share one record."""
    one = Room()
    one.write("shared", b"old")
    two = one.restored(one.disk.copy())
    two.time = one.time
    return one, two


def weigh(mine: Room, theirs: Room) -> dict[str, bytes | None]:
    pairs = [(e.record, e.item) for e in theirs.log.entries[1:]]
    won = merge.weigh(pairs, mine.log.newest, mine.log.under)
    return {t.key: None if t.source.flags & TOMBSTONE else t.item.body for t in won if not t.only_stamp}


def test_a_key_changed_only_there_is_taken_and_one_changed_later_here_is_not() -> None:
    one, two = branches()
    one.write("theirs", b"1")
    one.write("both", b"1")
    two.time += 5
    two.write("both", b"2")
    assert weigh(two, one) == {"theirs": b"1"}


def test_of_two_changes_the_later_wins_on_both_sides() -> None:
    one, two = branches()
    one.write("both", b"1")
    two.time += 5
    two.write("both", b"2")
    assert weigh(one, two) == {"both": b"2"}
    assert weigh(two, one) == {}


def test_only_the_newest_of_a_key_is_taken_and_messages_never() -> None:
    one, two = branches()
    one.write("k", b"1")
    one.write("k", b"2")
    one.write("", b"hello", kind=records.MESSAGE, flags=0)
    assert weigh(two, one) == {"k": b"2"}


def test_a_deletion_there_deletes_what_is_older_here() -> None:
    one, two = branches()
    one.write("shared", b"", kind=records.DELETE, flags=TOMBSTONE)
    assert weigh(two, one) == {"shared": None}


def test_a_deletion_by_prefix_there_takes_each_older_key_here_and_spares_the_newer() -> None:
    one, two = branches()
    two.write("p/old")
    one.time += 5
    one.write("p/", b"", kind=records.DELETE_PREFIX, flags=TOMBSTONE)
    two.time += 9
    two.write("p/new")
    assert weigh(two, one) == {"p/old": None}


def test_what_is_written_after_a_deletion_by_prefix_is_known_is_younger_whatever_the_clocks_say() -> None:
    one, two = branches()
    one.write("k")
    one.settle()
    one.time += 3000
    one.write("p/", b"", kind=records.DELETE_PREFIX, flags=TOMBSTONE)
    two.write("l")
    two.settle()
    one.settle()
    two.outbox.say_hello()
    two.settle()
    assert two.write("p/new").hlc > one.log.entries[-1].record.hlc


def test_an_older_value_that_comes_after_a_deletion_by_prefix_comes_deleted() -> None:
    one, two = branches()
    three = one.restored(one.disk.copy())
    three.time = one.time
    three.write("p/a")
    one.time += 5
    one.write("p/", b"", kind=records.DELETE_PREFIX, flags=TOMBSTONE)
    hidden = merge.scopes((e.record, e.item) for e in one.log.entries)
    theirs = [(e.record, e.item) for e in three.log.entries[1:]]
    (gone,) = merge.weigh(theirs, two.log.newest, two.log.under, hidden)
    assert (gone.key, gone.source.hlc) == ("p/a", hidden[0].hlc)
    assert gone.source.flags == TOMBSTONE


def test_a_take_over_keeps_stamp_salt_and_missing_body_and_its_batch_ends_with_a_fresh_stamp() -> None:
    one, two = branches()
    source = one.write("k", b"1")
    gone = Item(b"", b"s" * 16, 0, None, EVICTED)
    won = merge.weigh([(source, gone)], two.log.newest, two.log.under)
    of = (b"i" * 16, Mark(source.seq, source.link))
    (taken, item), (closing, _) = merge.appendix(won, two.log.head, 1 << 60, of, lambda _c, _k: 7)
    assert (taken.kind, taken.hlc, taken.base, taken.key_version) == (records.MERGE, source.hlc, source.link, 7)
    assert taken.flags == VALUE | MORE
    assert (item.salt, item.body, item.why) == (gone.salt, None, EVICTED)
    assert (closing.seq, closing.hlc, closing.flags, closing.key) == (taken.seq + 1, 1 << 60, 0, "")


def test_many_take_overs_are_cut_into_batches_that_each_fit_a_request() -> None:
    one, two = branches()
    for k in range(1200):
        one.write(f"k{k}", b"x" * 10)
    pairs = [(e.record, e.item) for e in one.log.entries[1:]]
    won = merge.weigh(pairs, two.log.newest, two.log.under)
    made = merge.appendix(won, two.log.head, 1 << 60, (b"i" * 16, one.log.head), lambda _c, _k: 0)
    sizes, size = [], 0
    for record, _ in made:
        size += 1
        if not record.flags & MORE:
            sizes.append(size)
            size = 0
    assert size == 0
    assert max(sizes) <= 500
    assert sum(sizes) == 1200 + len(sizes)
    assert [r.seq for r, _ in made] == list(range(2, 2 + len(made)))


def test_copies_that_run_on_agree_and_then_stop_answering_each_other() -> None:
    one = Room()
    one.write("k", b"0")
    two = one.restored(one.disk.copy())
    two.time = one.time
    one.write("k", b"1")
    two.write("k", b"2")
    two.write("l", b"2")
    for _ in range(6):
        for room in (one, two):
            room.outbox.say_hello()
            room.settle()
    assert one.value("k") == two.value("k")
    assert one.value("l") == two.value("l") == b"2"
    before = len(one.hub.corpus.rows)
    for room in (one, two):
        room.outbox.say_hello()
        room.settle()
    assert len(one.hub.corpus.rows) == before

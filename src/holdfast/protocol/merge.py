"""Which keyed values of another branch win over this chain's, and the records that take them over. Pure.

Among the versions of a key within a stream the one with the highest `order` is its value, whatever its branch: the
hub's rule and every node's. Stamps grow along a chain, so a key changed on the other branch alone wins by itself,
and a key changed on both goes to the later change. A take-over keeps the stamp of what it takes: with a new one an
old value would look young again, and live copies of a node would hand their values around for ever (simulated).
Nothing is lost either way: both branches stay on the hub.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from holdfast import records
from holdfast.records import Record
from holdfast.wire import RECORDS_MAX, SEGMENT_BYTES_MAX, Item, Mark

Newest = Callable[[str, str], "Record | None"]
"""(collection, key) -> the newest record here that says what the key's value is, tombstones and deletions by
prefix included; None if there never was one."""
Under = Callable[[str, str], Iterable[str]]
"""(collection, prefix) -> the keys here that start with it and have a value."""


class Takeover(msgspec.Struct, frozen=True, gc=False):
    """This key takes the other branch's value, or its absence.

    `only_stamp`: nothing is taken, but our next stamp must be above the source's: a deletion by prefix deletes what
    is older, and what we write after we know of it is not.
    """

    collection: str
    key: str
    source: Record
    item: Item
    only_stamp: bool = False


class Scope(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A deletion by prefix on another branch: remembered, because an older value may yet come from a third one."""

    collection: str
    prefix: str
    hlc: int

    def hides(self, collection: str, key: str, record: Record) -> bool:
        """Whether it deleted what this record says of this key."""
        return collection == self.collection and key.startswith(self.prefix) and record.hlc < self.hlc


def scopes(theirs: Iterable[tuple[Record, Item]]) -> list[Scope]:
    """The deletions by prefix among another branch's records."""
    return [Scope(r.collection, r.key, r.hlc) for r, _ in theirs if r.kind == records.DELETE_PREFIX]


def linked(before: Mark, items: Iterable[Item]) -> list[tuple[Record, Item]]:
    """The records in items, with the links that follow from the mark before them."""
    found, link = [], before.link
    for item in items:
        link = records.next_link(link, item.header)
        found.append((records.decode_header(item.header, link), item))
    return found


def order(record: Record) -> tuple[int, bool, bytes]:
    """The order among versions of a key; the same for a record and for whatever took it over."""
    gone = bool(record.flags & records.TOMBSTONE)
    return (record.hlc, gone, b"" if gone else record.payload_hash)


def weigh(
    theirs: Sequence[tuple[Record, Item]], newest: Newest, under: Under, hidden: Sequence[Scope] = ()
) -> list[Takeover]:
    """The keys whose value is the other branch's, by age.

    Args:
        theirs: the other branch's records, oldest first, with links.
        newest: what this chain says of a key.
        under: which keys of this chain start with a prefix.
        hidden: the `scopes` of the branches that were weighed before.
    """
    keys: dict[tuple[str, str], tuple[Record, Item]] = {}
    won: list[Takeover] = []

    def note(at: tuple[str, str], record: Record, item: Item) -> None:
        if at not in keys or order(keys[at][0]) < order(record):
            keys[at] = (record, item)

    for record, item in theirs:
        if record.kind == records.DELETE_PREFIX:
            covered = [at[1] for at in keys if at[0] == record.collection and at[1].startswith(record.key)]
            won.append(Takeover(record.collection, record.key, record, item, only_stamp=True))
            for key in {*covered, *under(record.collection, record.key)}:
                note((record.collection, key), record, item)
        elif record.is_value:
            note((record.collection, record.key), record, item)
    for (collection, key), (record, item) in keys.items():
        mine = newest(collection, key)
        for scope in hidden:
            if scope.hides(collection, key, record):
                # Said for this key by itself: a hub that has never seen the deletion must come to know of it.
                record = msgspec.structs.replace(
                    record, kind=records.DELETE_PREFIX, flags=records.TOMBSTONE, hlc=scope.hlc
                )
        if mine is None or order(mine) < order(record):
            won.append(Takeover(collection, key, record, item))
    return sorted(won, key=lambda t: (order(t.source), t.collection, t.key))


def appendix(
    won: Sequence[Takeover], at: Mark, hlc: int, of: tuple[bytes, Mark], key_version: Callable[[str, str], int]
) -> list[tuple[Record, Item]]:
    """The records to append for what `weigh` found: batches, each closed by a record that names the other branch.

    The closing record bears a fresh stamp, so that the newest record of a log is also its youngest. Links and
    headers are the log's to make.

    Args:
        won: at least one.
        at: the log's head.
        hlc: a fresh stamp, above every stamp in the log and in `won`.
        of: the other branch's incarnation, and up to where it was weighed.
        key_version: the version number that a key's next record gets.
    """
    made: list[tuple[Record, Item]] = []
    batch, size = 0, 0
    for takeover in won:
        if takeover.only_stamp:
            continue
        seq, item = at.seq + len(made) + 1, takeover.item
        body = len(item.body or b"")
        if batch and (batch >= RECORDS_MAX - 1 or size + body > SEGMENT_BYTES_MAX - 1024):
            made.append(_closing(takeover.source, seq, hlc, of))
            hlc += 1
            batch, size, seq = 0, 0, seq + 1
        made.append(_taken(takeover, seq, key_version(takeover.collection, takeover.key)))
        batch, size = batch + 1, size + body
    made.append(_closing(won[-1].source, at.seq + len(made) + 1, hlc, of))
    return made


def _taken(takeover: Takeover, seq: int, key_version: int) -> tuple[Record, Item]:
    source, item = takeover.source, takeover.item
    flags = source.flags & ~records.MORE
    if source.kind == records.DELETE_PREFIX:
        # Its own payload and key speak of a prefix; what it did to this key is to delete it.
        empty, item = records.payload_hash(b"", b""), Item(b"", b"", 0, b"")
        source = msgspec.structs.replace(source, fmt=0, payload_len=0, kid=records.ZERO16, payload_hash=empty)
    record = msgspec.structs.replace(
        source,
        flags=flags | records.MORE,
        seq=seq,
        base=source.link,
        key_version=key_version,
        kind=records.MERGE,
        key=takeover.key,
        link=records.ZERO32,
    )
    return record, item


def _closing(source: Record, seq: int, hlc: int, of: tuple[bytes, Mark]) -> tuple[Record, Item]:
    inc, head = of
    payload = inc + head.seq.to_bytes(8, "big") + head.link
    record = Record(
        stream=source.stream,
        fmt=0,
        flags=0,
        seq=seq,
        hlc=hlc,
        base=head.link,
        key_version=0,
        payload_len=len(payload),
        kind=records.MERGE,
        author="",
        collection="",
        key="",
        kid=records.ZERO16,
        payload_hash=records.payload_hash(b"", payload),
    )
    return record, Item(b"", b"", 0, payload)

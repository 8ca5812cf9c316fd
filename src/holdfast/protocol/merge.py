"""Which keyed values of another branch win over this chain's: pure, and the same rule as the hub's.

Among the versions of a key within a stream the highest (hlc, seq, link) is its value. A chain's hlc only grows, so
a key changed on the other branch alone wins there by itself, and a key changed on both goes to the later change:
whatever the branch, every node and the hub then agree. Nothing is lost either way: both branches stay on the hub.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from holdfast import records
from holdfast.records import Record
from holdfast.wire import Item, Mark

Newest = Callable[[str, str], "Record | None"]
"""(collection, key) -> the newest record here that says what the key's value is, tombstones and deletions by
prefix included; None if there never was one."""
Under = Callable[[str, str], Iterable[str]]
"""(collection, prefix) -> the keys here that start with it and have a value."""


class Takeover(msgspec.Struct, frozen=True, gc=False):
    """One `merge` record to append: this key takes the other branch's value (or its absence)."""

    collection: str
    key: str
    source: Record
    item: Item

    def record(self, stream: bytes, seq: int, hlc: int, key_version: int) -> Record:
        """The record without its link; `hlc` must be above the source's and the log's."""
        source = self.source
        if source.kind == records.DELETE_PREFIX:
            empty = records.payload_hash(b"", b"")
            source = msgspec.structs.replace(source, fmt=0, payload_len=0, kid=records.ZERO16, payload_hash=empty)
        return msgspec.structs.replace(
            source,
            stream=stream,
            flags=source.flags & ~records.MORE,
            seq=seq,
            hlc=hlc,
            base=self.source.link,
            key_version=key_version,
            kind=records.MERGE,
            key=self.key,
            link=records.ZERO32,
        )

    def body(self) -> Item:
        """Salt, codec, body and why of the record to append (its header is another)."""
        if self.source.kind == records.DELETE_PREFIX:
            return Item(b"", b"", 0, b"")
        return self.item


def linked(before: Mark, items: Iterable[Item]) -> list[tuple[Record, Item]]:
    """The records in items, with the links that follow from the mark before them."""
    found, link = [], before.link
    for item in items:
        link = records.next_link(link, item.header)
        found.append((records.decode_header(item.header, link), item))
    return found


def order(record: Record) -> tuple[int, int, bytes]:
    """The order among versions of a key."""
    return (record.hlc, record.seq, record.link)


def weigh(theirs: Sequence[tuple[Record, Item]], newest: Newest, under: Under) -> list[Takeover]:
    """The keys whose value is the other branch's, in its order.

    Args:
        theirs: the other branch's records, oldest first, with links.
        newest: what this chain says of a key.
        under: which keys of this chain start with a prefix.
    """
    keys: dict[tuple[str, str], tuple[Record, Item]] = {}
    for record, item in theirs:
        if record.kind == records.DELETE_PREFIX:
            gone = [at for at in keys if at[0] == record.collection and at[1].startswith(record.key)]
            for at in (*gone, *((record.collection, key) for key in under(record.collection, record.key))):
                keys[at] = (record, item)
        elif record.is_value:
            keys[(record.collection, record.key)] = (record, item)
    won = []
    for (collection, key), (record, item) in keys.items():
        mine = newest(collection, key)
        if mine is not None and (order(mine) > order(record) or _same(mine, record)):
            continue
        if mine is None and record.flags & records.TOMBSTONE:
            continue
        won.append(Takeover(collection, key, record, item))
    return sorted(won, key=lambda t: order(t.source))


def _same(mine: Record, theirs: Record) -> bool:
    """Whether both say the same, so that two live copies do not answer each other for ever."""
    if mine.flags & records.TOMBSTONE or theirs.flags & records.TOMBSTONE:
        return bool(mine.flags & theirs.flags & records.TOMBSTONE)
    return (mine.payload_hash, mine.fmt, mine.kid) == (theirs.payload_hash, theirs.fmt, theirs.kid)

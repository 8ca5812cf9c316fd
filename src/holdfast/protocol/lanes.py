"""What an outbox remembers of one stream, and how records are cut and pulled records checked. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from holdfast import codec, records
from holdfast.errors import HoldfastError
from holdfast.protocol.ports import OutboxStore, StreamInfo, Verify
from holdfast.wire import QUARANTINED, Append, HelloStream, Item, Mark, Other, Pulled, Segment, Verdict

DENSE: Final = 16
"""So many numbers behind the head are probed one by one: recent forks are found to the record."""

# Where a version 1 header keeps its flags and its kind: reading two fields of every record on its way out must not
# cost decoding them all.
_FLAGS: Final = 26
_KIND: Final = 91
_ROTATE: Final = bytes((len(records.ROTATE),)) + records.ROTATE.encode()


class Lane:
    """One stream toward one hub: `sent` is where the next request goes on, `acked` what the hub would not lose to a
    power cut; they part for as long as its disk takes.

    `ready`: the latest hello covers this incarnation; `told`: some hello of this process did; `bare`: what the hub
    holds as envelopes; `denied`: why it takes nothing of this stream. `is_behind`: the hub has records behind our head
    that we are pulling; what is written meanwhile becomes a fork, so nothing is sent before that is known.
    """

    def __init__(self, inc: bytes, acked: Mark, settled: Mark) -> None:
        self.inc, self.sent, self.acked, self.settled = inc, acked, acked, settled
        self.ready = self.told = False
        self.bare: frozenset[int] = frozenset()
        self.silent_until = 0.0
        self.denied = ""
        self.best = 0
        self.wants: list[Want] = []
        self.blobs: list[bytes] = []
        self.blob_users: dict[bytes, int] = {}
        self.strikes: dict[int, int] = {}

    def take_over(self, old: Lane | None) -> None:
        """Goes on where the lane before it was, if there was one: what the hub said does not end with it."""
        if old is not None:
            self.silent_until, self.denied, self.strikes, self.best = (
                old.silent_until,
                old.denied,
                old.strikes,
                old.best,
            )

    @property
    def is_behind(self) -> bool:
        """Whether records of our own are still to be taken back."""
        return any(want.ahead for want in self.wants)


class Taken:
    """What a hub has taken and not yet acknowledged: each request, and the marks that it reached."""

    def __init__(self) -> None:
        self._owed: deque[tuple[int, dict[bytes, tuple[bytes, Mark]]]] = deque()

    def __bool__(self) -> bool:
        return bool(self._owed)

    def note(self, req: int, segments: Sequence[Segment], verdicts: Sequence[Verdict]) -> None:
        """The hub has taken these segments, as far as its verdicts say so."""
        marks = {s.stream: (s.inc, v.at) for s, v in zip(segments, verdicts, strict=True) if v.state == "ack"}
        if marks:
            self._owed.append((req, marks))

    def acknowledge(self, safe: int, lanes: Mapping[bytes, Lane]) -> set[bytes]:
        """Moves the lanes up to what the hub's disk has: every request up to `safe`. Returns the streams that moved."""
        moved = set()
        while self._owed and self._owed[0][0] <= safe:
            for stream, (inc, mark) in self._owed.popleft()[1].items():
                lane = lanes.get(stream)
                if lane is not None and lane.ready and lane.inc == inc and lane.acked.seq < mark.seq <= lane.sent.seq:
                    lane.acked = mark
                    moved.add(stream)
        return moved

    def clear(self) -> None:
        """Of a hub that is no more: what it took may be lost, and hello says what is left."""
        self._owed.clear()


def denials(infos: Sequence[StreamInfo], lanes: Mapping[bytes, Lane]) -> str:
    """Which agents' records a hub does not take, and why; empty where it takes all."""
    pairs = [(info, lane) for info in infos if (lane := lanes.get(info.stream)) and lane.denied]
    denied = [f"{info.agent}: {lane.denied}" for info, lane in pairs if lane.sent.seq < info.head.seq]
    return f"the hub denies the records of {'; '.join(denied)}" if denied else ""


def evictable(lane: Lane | None, links: Callable[[Sequence[int]], Mapping[int, bytes]]) -> int:
    """Up to which number a hub and its backups hold every body of a stream for sure, but those that it named."""
    if lane is None or not lane.told:
        return 0
    mine = links([lane.acked.seq, lane.settled.seq])
    if any(mine.get(mark.seq) != mark.link for mark in (lane.acked, lane.settled)):
        return 0
    return min(lane.acked.seq, lane.settled.seq)


def introduce(store: OutboxStore, info: StreamInfo) -> HelloStream:
    """What hello says of a stream, with the marks by which a fork is found."""
    wanted = probe_seqs(info.head.seq, info.begin.seq)
    links = store.links(info.stream, wanted)
    probes = [Mark(seq, links[seq]) for seq in wanted if seq in links]
    return HelloStream(info.stream, info.inc, info.agent, info.public_key, info.head, probes)


def mark_at(links: Mapping[int, bytes], seq: int) -> Mark:
    """The mark at a number of my own chain; void where I cannot name it."""
    return Mark(seq, links[seq]) if seq in links else Mark(0, b"")


def blob_users(segment: Segment) -> dict[bytes, int]:
    """The blobs that a segment refers to, and by which record."""
    return {digest: segment.first + k for k, item in enumerate(segment.items) if (digest := blob_of(item))}


def units(message: Append) -> int:
    """How many whole batches a request holds: what it can be halved into."""
    return sum(is_unit_end(item) for segment in message.segments for item in segment.items)


class Want:
    """A branch being pulled: whole pages come in, and nothing of it counts before its signed head.

    Args:
        inc: the incarnation on the hub.
        first: the first number wanted.
        before: the link that must come before it; None: the signed head vouches for it alone.
        restart: where to begin again should it not come before it.
        ahead: these continue our own head (else they are another branch's, to be weighed).
    """

    def __init__(
        self, inc: bytes, first: int, before: bytes | None = None, *, ahead: bool = False, restart: int = 0
    ) -> None:
        self.inc, self.start, self.ahead = inc, first, ahead
        self.origin = Mark(first - 1, before or b"")
        self.items: list[Item] = []
        self.head = Mark(0, b"")
        self.is_whole = False
        self._link = before
        self._restart = restart

    @property
    def next(self) -> int:
        """The number to ask for."""
        return self.start + len(self.items)

    def add(self, pulled: Pulled) -> str:
        """Take one page; says what is wrong with it, or nothing."""
        if self._link is not None and pulled.prev != self._link:
            if self._restart and not self.items:
                self.start, self._restart, self._link = self._restart, 0, None
                return ""
            return "it does not continue what is here"
        if not self.items:
            self.origin = Mark(self.start - 1, pulled.prev)
        link = pulled.prev
        for seq, item in enumerate(pulled.items, pulled.first):
            link = records.next_link(link, item.header)
            try:
                record = records.decode_header(item.header, link)
                if record.stream != pulled.stream or record.seq != seq:
                    return f"record {seq} is another's"
                if item.body is not None:
                    payload = codec.unpack(item.codec, item.body, record.payload_len)
                    records.verify_payload(record, item.salt, payload)
            except HoldfastError as error:
                return error.message
        self._link = link
        self.items += pulled.items
        self.head = pulled.head
        if pulled.more and pulled.items:
            return ""
        self.is_whole = True
        return "" if (self.next - 1, link) == (pulled.head.seq, pulled.head.link) else "its end is not its signed head"

    def unsigned(self, stream: bytes, keys: Sequence[bytes], signature: bytes, verify: Verify) -> str:
        """What is wrong with the signature of its head, by any of these keys; empty: nothing."""
        message = records.head_message(stream, self.head.seq, self.head.link)
        good = any(verify(key, message, signature) for key in dict.fromkeys(keys))
        return "" if good else "its signed head is not signed by this stream's key"


def want_of(other: Other, weighed: Sequence[Mark]) -> Want | None:
    """What to pull of another branch: nothing, what came since it was weighed, or all behind the common point."""
    if other.head in weighed:
        return None
    since = max((m for m in weighed if other.common < m.seq < other.head.seq), key=lambda m: m.seq, default=None)
    if since is None:
        return Want(other.inc, other.common + 1)
    return Want(other.inc, since.seq + 1, since.link, restart=other.common + 1)


def probe_seqs(head: int, begin: int) -> list[int]:
    """The numbers to probe behind `head`: dense at first, then ever wider apart, down to the log's beginning."""
    seqs, step = list(range(head - 1, max(begin, head - DENSE) - 1, -1)), 2
    at = head - DENSE - step
    while at > begin:
        seqs.append(at)
        step *= 2
        at -= step
    return [*seqs, begin] if begin and begin not in seqs else [s for s in seqs if s > 0]


def is_unit_end(item: Item) -> bool:
    """Whether a segment may be cut behind this record."""
    return not item.header[_FLAGS] & records.MORE


def whole_units(items: Sequence[Item], *, only_first: bool = False) -> list[Item]:
    """The items up to the last place where a segment may be cut, and never past a rotate record."""
    end = 0
    for k, item in enumerate(items, 1):
        if is_unit_end(item):
            end = k
            if only_first or item.header.startswith(_ROTATE, _KIND):
                break
    return list(items[:end])


def envelope(item: Item) -> Item:
    """The record without its payload: what a hub always takes."""
    return msgspec.structs.replace(item, salt=b"", codec=codec.RAW, body=None, why=item.why or QUARANTINED)


def blob_of(item: Item) -> bytes | None:
    """The digest of the blob that a record refers to, if it does."""
    refers = item.header[_FLAGS] & records.BLOB and item.body
    return item.body[:32] if refers and item.body else None

"""What the protocol needs from the rooms around it: the node's log, the hub's corpus, chance and signatures.

Each port's laws are in its docstring; the simulator's in-memory stores obey them, crashes included. Nothing here
does any I/O; the methods of the ports are the only I/O that the decisions in this room ever cause.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

import msgspec

from holdfast.records import Record
from holdfast.wire import Item, Mark, Rejected

Verify: TypeAlias = Callable[[bytes, bytes, bytes], bool]
"""(public key, message, signature) -> whether the key made that signature; never raises."""


class Rng(Protocol):
    """Chance, handed in; `random.Random` and `random.SystemRandom` are ones."""

    def random(self) -> float:
        """A number from 0 up to 1."""
        ...

    def randbytes(self, n: int) -> bytes:
        """So many bytes."""
        ...


# ---- the node's side


class StreamInfo(msgspec.Struct, frozen=True, gc=False):
    """One agent's log as it stands now.

    `public_key` is the key that the stream's name was made of, `key` the one in force (after rotations); `inc` the
    current incarnation and `base` where it left its parent; `begin` the mark before the first record kept (seq 0 and
    the genesis, unless pruned: then the first record kept is a prune record); `head` the newest committed record.
    """

    stream: bytes
    agent: str
    public_key: bytes
    key: bytes
    inc: bytes
    base: Mark
    begin: Mark
    head: Mark


class Position(msgspec.Struct, frozen=True, gc=False):
    """How far one hub has one stream: `acked` it holds, `settled` its backups hold too.

    Both are marks and not numbers: one whose link is not in the log is void (a file was copied back).
    """

    inc: bytes
    acked: Mark
    settled: Mark


class OutboxStore(Protocol):
    """A node directory as the outbox sees it: several streams, each one chain, and how far each hub has them.

    Laws:

    * A stream's log is one chain: record n+1's link follows from record n's; `streams` and `links` show committed
      records only. The answers change at any time because agents write; they change at the tail only.
    * `sync(streams)` makes what is committed survive a power cut, and returns for each a mark for which that is true,
      at or behind what `streams` last showed; opening a log does it once, for what a killed process left. `read` is
      never asked for more.
    * `read(stream, first, last, records, size)` returns items first, first+1, … up to `last`: at most `records`, and
      no more than `size` bytes of bodies, but always one. A body that is gone comes as None with `why`; a body that
      was quarantined is returned (the outbox leaves it out).
    * `sign(stream, mark)` signs `records.head_message` with the key in force at that record: a retired key is kept
      for what it has to sign again, and a `rotate` record is signed by the key that it retires.
    * `mint` begins a new incarnation at `base` without touching a record: 16 bytes of which the first 6 are
      milliseconds (UUIDv7), greater than `above` and than every incarnation before. Durable when it returns.
    * `fast_forward` appends the items, already verified, if and only if the head is still `expected`, and goes on
      under incarnation `inc`; in one transaction, keyed values included, durable when it returns True. False: an
      agent wrote meanwhile, nothing was changed.
    * `merge` weighs another branch's records (`merge.linked`, `merge.weigh`) and appends what `merge.appendix`
      says, in one transaction (header, link and signature as for any append; salt, codec, body and why as they
      came). A take-over keeps the stamp of what it takes; the log's next stamp is above all of them. It remembers
      (inc, the last item's mark) as weighed, with its own head at that moment and the branch's `merge.scopes` (all
      of them are handed to the next `weigh`), in place of what it remembered of (inc, `before`) if it went on from
      there; `weighed` shows only those whose own mark is still in the log. Returns how many records it appended.
    * `quarantine` names records by seq; the store keeps their links too, and `quarantined` shows only those still in
      the log.
    * `quarantine` may be lost by a power cut, `keep` by a kill too (they are told again); never half written.
    """

    def streams(self) -> Sequence[StreamInfo]:
        """Every stream of this directory, in a steady order."""
        ...

    def sync(self, streams: Sequence[bytes]) -> Mapping[bytes, Mark]:
        """Make what is committed in these logs survive a power cut; how far that is."""
        ...

    def links(self, stream: bytes, seqs: Sequence[int]) -> Mapping[int, bytes]:
        """The links at these numbers, as far as the log has them; number 0 is the genesis."""
        ...

    def read(self, stream: bytes, first: int, last: int, records: int, size: int) -> Sequence[Item]:
        """The records from `first` on, as they travel."""
        ...

    def sign(self, stream: bytes, mark: Mark) -> bytes:
        """The signature over the head message of this mark."""
        ...

    def positions(self, hub: str) -> Mapping[bytes, Position]:
        """What `keep` kept for this hub."""
        ...

    def keep(self, hub: str, positions: Mapping[bytes, Position]) -> None:
        """Remember how far this hub has these streams (others stay as they were)."""
        ...

    def quarantined(self, hub: str) -> Mapping[bytes, Sequence[int]]:
        """The records whose bodies this hub refused, by stream."""
        ...

    def quarantine(self, hub: str, stream: bytes, refused: Sequence[Rejected]) -> None:
        """Keep these bodies here, never to be sent to this hub again unless a person says so."""
        ...

    def mint(self, stream: bytes, base: Mark, above: bytes) -> bytes:
        """Begin a new incarnation; its name."""
        ...

    def fast_forward(self, stream: bytes, expected: Mark, items: Sequence[Item], inc: bytes) -> bool:
        """Take back records that this node had lost; False if an agent wrote meanwhile."""
        ...

    def weighed(self, stream: bytes) -> Sequence[tuple[bytes, Mark]]:
        """The other branches that were merged already, and up to where (hubs may differ: several for one)."""
        ...

    def merge(self, stream: bytes, inc: bytes, before: Mark, items: Sequence[Item]) -> int:
        """Take over the keyed values that are newer on another branch (its records behind `before`); how many."""
        ...


# ---- the hub's side


class Branch(msgspec.Struct, frozen=True, gc=False):
    """A run of records in the hub's log: behind `base` (of branch `parent`, None at the genesis or a prune), to `tip`.

    Its rows are numbered base.seq+1 … tip.seq without a gap; only incarnation `inc` appends to it. Parent and base
    never change. `settled`: the newest of its rows that both newest verified backups hold (0: none; anything from
    `tip.seq` up with settle=acked, such as 2**62). A plan gives new branches ids below 0.
    """

    id: int
    stream: bytes
    inc: bytes
    parent: int | None
    base: Mark
    tip: Mark
    settled: int = 0


class Label(msgspec.Struct, frozen=True, gc=False):
    """Where an incarnation stands on the hub: its head, the branch whose row that is, and the head's signature."""

    inc: bytes
    branch: int
    head: Mark
    signature: bytes


class StreamFacts(msgspec.Struct, frozen=True, gc=False):
    """All that the hub knows of one stream but its rows; `key` is the public key in force (after rotations)."""

    stream: bytes
    agent: str
    public_key: bytes
    key: bytes
    branches: Mapping[int, Branch]
    labels: Mapping[bytes, Label]


class Span(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Numbers `first` … `last` of a stream (or, from `spans`, of the branch `branch`)."""

    stream: bytes
    first: int
    last: int
    branch: int = 0


class Row(msgspec.Struct, frozen=True, gc=False):
    """One record for the hub's log; positions are given by the store, in the order of the rows."""

    branch: int
    record: Record
    item: Item


class IngestStore(Protocol):
    """The hub's corpus as ingest sees it, inside the transaction of one group commit.

    Laws: `streams` locks what it returns until the transaction ends (PostgreSQL: FOR UPDATE in the order of the
    ids), leaves out streams that it has never seen, and is asked once per group; `held`, `blobs` and `envelopes` at
    most once each. A blob counts as held only when its bytes are fsynced. The plan is written in the same
    transaction: streams, branches (new ones have ids below 0, parents before children), rows in their order,
    labels, keys. An ack, and an answer to hello, leaves the hub after the fsync of what it speaks of; the feed may
    show rows before it. The value of a private key is its stream's version with the highest `merge.order`, whatever
    its branch: merge records make every node agree with that.
    """

    def streams(self, ids: Sequence[bytes]) -> Mapping[bytes, StreamFacts]:
        """What the hub knows of these streams."""
        ...

    def held(self, spans: Sequence[Span]) -> Mapping[tuple[bytes, int, bytes], int]:
        """Every row in these spans of whatever branch: (stream, seq, link) -> its branch."""
        ...

    def blobs(self, digests: Sequence[bytes]) -> set[bytes]:
        """Which of these blobs the hub holds."""
        ...

    def envelopes(self, ids: Sequence[bytes]) -> Mapping[bytes, Sequence[tuple[int, int]]]:
        """The rows of these streams held without a body though not redacted: (branch, seq); few, indexed."""
        ...


class NewStream(msgspec.Struct, frozen=True, gc=False):
    """A stream that the hub sees for the first time."""

    stream: bytes
    agent: str
    public_key: bytes


class End(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Where a segment's new rows, behind number `before` of a branch, end: the signed head that authorised them."""

    branch: int
    before: int
    head: Mark
    signature: bytes
    rotates: bool


class Plan(msgspec.Struct):
    """What one group commit writes; empty lists when it only repeats what is there."""

    streams: list[NewStream] = []
    branches: dict[int, Branch] = {}
    """New ones (ids below 0), parents first, with their tips after the rows."""
    rows: list[Row] = []
    """In log order; a branch's tip is its last row."""
    ends: list[End] = []
    """Every signed head that came with new rows, in log order: the last of a branch is its tip."""
    labels: dict[tuple[bytes, bytes], Label] = {}
    """(stream, incarnation) -> where it stands now; new, or moved."""
    keys: dict[bytes, bytes] = {}
    """Streams whose public key was rotated."""

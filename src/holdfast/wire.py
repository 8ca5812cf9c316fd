"""What nodes and hubs say to each other: messages, limits, cursors. Pure; the I/O is in node/ and hub/.

Bodies are msgpack (optionally zstd) with the Content-Type below; the same structures serve every transport.
A record travels as its header's bytes, so that both sides hash exactly what was recorded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, TypeVar

import msgspec

from holdfast import codec
from holdfast.errors import UsageError

PROTOCOL: Final = 1
MEDIA: Final = "application/vnd.holdfast+msgpack"
HUB_HEADER: Final = "Holdfast-Hub"
"""Each answer of a hub carries its generation here: an answer without it came from a proxy or a captive portal."""

RECORDS_MAX: Final = 500
"""Records in a segment, a batch or a feed page (2,000 push the hub past 50 MB; 100 lose a third of the rate)."""
SEGMENT_BYTES_MAX: Final = 1 << 20
"""Stored body bytes in a segment or batch; one record may exceed it alone by at most its own inline limit."""
BODY_BYTES_MAX: Final = 8 << 20
"""Decoded bytes of one request."""
PAGE_MAX: Final = 1000
PROBES_MAX: Final = 64
OTHERS_MAX: Final = 64
ENVELOPES_MAX: Final = 1000
STREAMS_MAX: Final = 500
"""Streams in one hello; a node with more says it again for the rest."""
LINEAGE_MAX: Final = 8
"""Generations that a cursor carries; an older reader re-reads from the start, and dedupes."""

HERE: Final = 0
EVICTED: Final = 1
QUARANTINED: Final = 2
REDACTED: Final = 3
"""Why a body is missing; anything else without a body is a finding."""

_POS_END: Final = 1 << 63  # what a database counts to

T = TypeVar("T")


class Item(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One record as it travels.

    `body` is the stored (perhaps compressed) payload in `codec`, or None with `why` it is missing.
    """

    header: bytes
    salt: bytes
    codec: int
    body: bytes | None
    why: int = HERE


class Mark(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A place in a chain: the record number and its link; number 0 is the genesis."""

    seq: int
    link: bytes


class Segment(msgspec.Struct, frozen=True, gc=False):
    """Consecutive records of one stream, with the signed head that authorises them.

    `prev` is the link before the first item; `signature` is over `records.head_message` of the last item, by the
    stream's key in force there; `public_key` is the key that the stream's name was made of. Never cut behind
    `MORE`, and always behind a `rotate` record.
    """

    stream: bytes
    inc: bytes
    agent: str
    public_key: bytes
    first: int
    prev: bytes
    items: list[Item]
    signature: bytes


class HelloStream(msgspec.Struct, frozen=True, gc=False):
    """Where a node believes a stream stands; `probes` (newest first, ever wider apart) find a fork at once."""

    stream: bytes
    inc: bytes
    agent: str
    public_key: bytes
    head: Mark
    probes: list[Mark]


class Cached(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What an agent's log takes on its node, in bytes; `limit` 0: it has no budget. `full` while writes are refused."""

    used: int
    limit: int = 0
    full: bool = False


class Refusal(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A payload that the hub did not take: it is kept on the node alone, and the hub has its envelope."""

    agent: str
    seq: int
    code: str
    reason: str


class Report(msgspec.Struct, frozen=True, gc=False):
    """How a node is, for people who watch; nothing is decided by it.

    `caches` are by agent; `owed_bytes` is about what the bodies take that the hub has not acknowledged; `refused` the
    newest of `refusals` in all; the disk's figures are 0 where they cannot be told.
    """

    host: str = ""
    version: str = ""
    caches: dict[str, Cached] = {}
    disk_free: int = 0
    disk_total: int = 0
    disk_full: bool = False
    owed_bytes: int = 0
    refusals: int = 0
    refused: list[Refusal] = []


class Wish(msgspec.Struct, frozen=True, gc=False):
    """What people at a hub ask of a node.

    `paused`: it is to say hello and ship nothing; `asked` changes when somebody wants it to try again now whatever it
    would wait for.
    """

    paused: bool = False
    asked: int = 0


class Hello(msgspec.Struct, frozen=True, gc=False):
    """The first thing a node says, and again after any surprise; only the answer to the latest nonce counts.

    `now_ms` is the node's time, and `oldest_ms` when the oldest of its records was made that this hub has not
    acknowledged (0: it has all of them); `report` is how it is: all three are for people who watch, and a node need not
    tell them.
    """

    node: str
    nonce: bytes
    streams: list[HelloStream]
    version: int = PROTOCOL
    now_ms: int = 0
    oldest_ms: int = 0
    report: Report | None = None


class Other(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A branch of the same stream with records that the node's own chain does not have, behind number `common`."""

    inc: bytes
    head: Mark
    common: int


class StreamState(msgspec.Struct, frozen=True, gc=False):
    """Where the hub knows a stream to stand.

    ok: `at` is the hub's head of this incarnation, to be found in the node's chain · unknown: the hub has never
    seen this incarnation, send from behind `at` · ahead: it holds records behind the node's head, up to `at` on the
    branch `along` · fork: its head of this incarnation, `at`, is not in the node's chain.
    `common` is always the newest mark of the node's that the hub holds (seq 0: none); `others` the branches that
    go another way, newest incarnation first, at most `OTHERS_MAX`; `settled` the newest number that the hub's two
    newest verified backups hold as well; `envelopes` every number up to it that the hub holds without its body
    (at most `ENVELOPES_MAX`; `settled` ends before the next), because its body must stay with the node.
    """

    stream: bytes
    inc: bytes
    state: Literal["ok", "unknown", "ahead", "fork"]
    at: Mark
    common: Mark
    along: bytes = b""
    others: list[Other] = []
    settled: int = 0
    envelopes: list[int] = []


class Limits(msgspec.Struct, frozen=True, gc=False):
    """What one request to this hub may hold."""

    records: int = RECORDS_MAX
    segment_bytes: int = SEGMENT_BYTES_MAX
    body_bytes: int = BODY_BYTES_MAX


class HelloAnswer(msgspec.Struct, frozen=True, gc=False):
    """The hub's truth about each stream, its generation and lineage (`[(generation, first position)]`).

    `wish` is what people there ask of the node; None: nothing, and an older hub knows of none.
    """

    hub: str
    gen: str
    lineage: list[tuple[str, int]]
    nonce: bytes
    now_ms: int
    streams: list[StreamState]
    limits: Limits = Limits()
    version: int = PROTOCOL
    wish: Wish | None = None


class Append(msgspec.Struct, frozen=True, gc=False):
    """Everything that waited while the last request was under way.

    `line` names the sender for as long as it lives, `req` counts its requests. One without segments asks for nothing
    but to be answered when everything that this line sent before would survive a power cut.
    """

    gen: str
    req: int
    segments: list[Segment]
    node: str = ""
    line: bytes = b""


class Rejected(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A record whose payload the hub will not take; its envelope (without payload) it always will."""

    seq: int
    code: str
    reason: str


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What became of one segment.

    ack: the hub has taken everything up to `at` (see `AppendAnswer.safe`) · gap: send from behind `at` · fork: say
    hello · blobs: send these blobs first, nothing of the segment was stored · rejected: re-send these records as
    envelopes, nothing of the segment was stored · denied: the signature or the token does not cover this stream.
    """

    stream: bytes
    inc: bytes
    state: Literal["ack", "gap", "fork", "blobs", "rejected", "denied"]
    at: Mark
    rejected: list[Rejected] = []
    blobs: list[bytes] = []
    reason: str = ""


class AppendAnswer(msgspec.Struct, frozen=True, gc=False):
    """One verdict a segment, in their order; `regen` means: not your generation, say hello, nothing was stored.

    A verdict says what the hub has taken: it is answered at the commit, so that the next request need not wait for the
    disk. `safe` says what it acknowledges: the newest request of this line that would survive a power cut of the hub,
    with all before it (0: none yet, or none since the hub started). `ask`: say hello soon, there is a wish.
    """

    gen: str
    req: int
    verdicts: list[Verdict]
    regen: bool = False
    safe: int = 0
    ask: bool = False


class Pulled(msgspec.Struct, frozen=True, gc=False):
    """Consecutive records of a branch that the hub holds, for a node that lost them; asked by (stream, inc, first)."""

    stream: bytes
    inc: bytes
    first: int
    prev: bytes
    items: list[Item]
    more: bool
    public_key: bytes
    signature: bytes = b""
    """The hub's newest signed head of this branch, over `head`; asked for with ``signed=1``: of the last item."""
    head: Mark = Mark(0, b"")
    requests: list[tuple[int, str]] = []
    """Asked for with ``signed=1``: the ids of the requests that wrote these records, by their numbers."""


class HeadAt(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Where an incarnation stands on a hub: its head, and where the stretches of its chain begin, the newest first."""

    inc: bytes
    head: Mark
    steps: list[Mark]


class StreamHeads(msgspec.Struct, frozen=True, gc=False):
    """A stream that a hub holds, with the head of each incarnation; those that others went on from come first."""

    stream: bytes
    agent: str
    public_key: bytes
    heads: list[HeadAt]


class Heads(msgspec.Struct, frozen=True, gc=False):
    """What a hub holds, for one that follows it, and the proof of who it is.

    `signature` is over `challenge(nonce, gen)` by `public_key`; `keys` are those of all hubs whose own streams it
    holds, each with what that hub alone can sign of it (`certificate`). `pos` is its newest position; `cursor` how far
    the streams told here cover its feed; `next` goes into ``after`` for the next page of a full listing, None is its
    end.
    """

    gen: str
    nonce: bytes
    public_key: bytes
    signature: bytes
    keys: list[tuple[bytes, bytes]]
    pos: int
    cursor: str
    streams: list[StreamHeads]
    next: int | None = None
    version: int = PROTOCOL


class Rotation(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A `rotate` record with what proves it by itself: the link before it, and the head that the old key signed."""

    item: Item
    prev: bytes
    signature: bytes


class Proof(msgspec.Struct, frozen=True, gc=False):
    """One record, and what proves it to a reader who has nothing else of its stream.

    `prev` is the link before it; `trail` the SHA-256 of each header behind it, up to a head that `signature` signs
    (`records.head_message`) with the key in force there: `public_key`, which the stream is named by, unless
    `rotations` (oldest first) hand over to another.
    """

    item: Item
    agent: str
    public_key: bytes
    prev: bytes
    trail: list[bytes]
    signature: bytes
    rotations: list[Rotation] = []


class Cursor(msgspec.Struct, frozen=True):
    """A reader's place in a hub's feed: the last position it has seen, exclusive, and under which generations.

    Its text is opaque to readers: ``<pos>.<generation>@<first position>`` and further generations, newest first.
    """

    pos: int
    lineage: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        marks = (f"{gen}@{first}" for gen, first in reversed(self.lineage[-LINEAGE_MAX:]))
        return ".".join((str(self.pos), *marks))

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """The cursor with this text.

        Raises:
            UsageError: not a cursor of ours.
        """
        head, *rest = text.split(".")
        try:
            pairs = [(gen, int(first)) for gen, _, first in (mark.partition("@") for mark in rest)]
            pos = int(head)
            if not 0 <= pos < _POS_END or any(first < 0 or not gen.isalnum() for gen, first in pairs):
                raise ValueError
        except ValueError:
            raise UsageError(f"not a cursor: {text!r}", hint="pass what the last page gave, or 0") from None
        return cls(pos, tuple(reversed(pairs)))


def resume(
    cursor: Cursor, lineage: list[tuple[str, int]], head: int, marks: Iterable[tuple[str, int, int]] = ()
) -> int:
    """The position to read on from: the reader's own, or where its history and the hub's part.

    A position means something only within a generation: after a restore or an unclean start the hub may give the
    same numbers to other records. Reading again is harmless (readers dedupe by stream, seq and link); skipping is
    not, so whatever cannot be placed starts at 0.

    Args:
        cursor: the reader's.
        lineage: the hub's generations, oldest first, each with the last position before it began.
        head: the hub's newest position.
        marks: of a hub that follows another: (generation, position there, position here), where all that is here up to
            the second was there up to the first.
    """
    if not cursor.lineage:
        return 0 if cursor.pos == 0 or not lineage else min(cursor.pos, lineage[-1][1], head)
    if not lineage:
        return 0
    ends_here = _ends(lineage, head)
    ends_there = _ends(list(cursor.lineage), cursor.pos)
    common = [min(end, ends_there[gen]) for gen, end in ends_here.items() if gen in ends_there]
    followed = [here for gen, there, here in marks if there <= ends_there.get(gen, -1)]
    return min(head, max(min(cursor.pos, max(common, default=0)), max(followed, default=0)))


def _ends(lineage: list[tuple[str, int]], last: int) -> dict[str, int]:
    following = [first for _, first in lineage[1:]] + [last]
    return {gen: end for (gen, _), end in zip(lineage, following, strict=True)}


def challenge(nonce: bytes, gen: str) -> bytes:
    """What a hub signs to show that it is itself, now."""
    return b"hf/hub/1\0" + nonce + gen.encode()


def certificate(public_key: bytes) -> bytes:
    """What a hub signs to say that this key is a hub's: a node's key signs heads of streams only, and never this."""
    return b"hf/hub-key/1\0" + public_key


_packer = msgspec.msgpack.Encoder()


def encode(message: msgspec.Struct) -> bytes:
    """The message's bytes."""
    return _packer.encode(message)


def decode(kind: type[T], data: bytes) -> T:
    """The message in `data`.

    Raises:
        UsageError: not a message of this kind; says which field.
    """
    try:
        return msgspec.msgpack.decode(data, type=codec.ready(kind))
    except (msgspec.MsgspecError, RecursionError) as error:
        raise UsageError(f"not a {kind.__name__}: {error}") from error

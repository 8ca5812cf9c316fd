"""What the hub answers to hello and append, and what it writes: pure decisions over facts asked for in bulk.

One `Ingest` serves one group commit: it asks the store three questions, decides about every segment of every
request in order (later ones see what earlier ones added), and leaves a `Plan` to be written in the same
transaction. Identity is the hash: a record that the hub holds on any branch is never logged twice, another record
at the same place is a fork, and both are kept. Nothing is ever refused for its time.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from holdfast import codec, records, wire
from holdfast.errors import HoldfastError, IntegrityError
from holdfast.protocol import branches as tree
from holdfast.protocol.ports import (
    Branch,
    End,
    IngestStore,
    Label,
    NewStream,
    Plan,
    Row,
    Span,
    StreamFacts,
    Verify,
)
from holdfast.records import Record
from holdfast.wire import Append, AppendAnswer, Hello, HelloStream, Mark, Rejected, Segment, Verdict

SEALED_SLACK = 1024
"""A sealed payload may be longer than an open one by its envelope."""

Held = dict[tuple[bytes, int, bytes], int]


class _Stream:
    """A stream's facts, growing with the plan."""

    def __init__(self, facts: StreamFacts) -> None:
        self.stream, self.key = facts.stream, facts.key
        self.branches = dict(facts.branches)
        self.labels = dict(facts.labels)


class Parcel(msgspec.Struct):
    """A segment taken apart: its records with their links, or why that was impossible."""

    segment: Segment
    records: list[Record] = []
    damage: str = ""

    @property
    def last(self) -> Mark:
        return Mark(self.records[-1].seq, self.records[-1].link)


class Place(msgspec.Struct):
    """Where a segment's records go: the first `known` of them are held already."""

    known: int
    parent: int | None
    base: Mark


class Ingest:
    """Decides one group of append requests; `plan` is what to write.

    Hubs refine it by overriding `refuse` (may this request write this stream?), `disown` (may these records lie in
    it?) and `reject` (will we keep this payload?).

    Args:
        store: the corpus, inside the transaction of this group.
        gen: the hub's generation.
        verify: checks a signature.
    """

    def __init__(self, store: IngestStore, *, gen: str, verify: Verify) -> None:
        self.plan = Plan()
        self._store, self._gen, self._verify = store, gen, verify
        self._streams: dict[bytes, _Stream] = {}
        self._held: Held = {}
        self._blobs: set[bytes] = set()

    # ---- for hubs to refine

    def refuse(self, request: Append, segment: Segment) -> str:
        """Why this request may not write this stream; empty if it may."""
        return ""

    def disown(self, request: Append, segment: Segment, found: Sequence[Record]) -> str:
        """Why these records cannot lie in this stream; empty if they can."""
        return ""

    def reject(self, record: Record, payload: bytes) -> tuple[str, str] | None:
        """(code, reason) if the hub will not keep this payload; its envelope it always keeps."""
        return None

    # ---- append

    def append(self, requests: Sequence[Append]) -> list[AppendAnswer]:
        """One answer a request, in order. Release them after the plan is fsynced. To be called once."""
        parcels = [[_open(s) for s in r.segments] if self.is_current(r.gen) else [] for r in requests]
        self._ask([p for group in parcels for p in group if not p.damage])
        answers = []
        for request, group in zip(requests, parcels, strict=True):
            regen = not self.is_current(request.gen)
            verdicts = [self._decide(request, parcel) for parcel in group]
            answers.append(AppendAnswer(self._gen, request.req, verdicts, regen))
        return answers

    def is_current(self, gen: str) -> bool:
        """Whether a request of this generation is for us."""
        return gen == self._gen

    def _ask(self, parcels: list[Parcel]) -> None:
        if not parcels:
            return
        ids = sorted({p.segment.stream for p in parcels})
        self._streams = {s: _Stream(f) for s, f in self._store.streams(ids).items()}
        spans, tips = [], {}
        for stream, known in self._streams.items():
            for branch in known.branches.values():
                if branch.tip.seq > branch.base.seq:  # else the row there is another branch's
                    tips[(stream, branch.tip.seq, branch.tip.link)] = branch.id
        for parcel in parcels:
            known = self._streams.get(parcel.segment.stream)  # type: ignore[assignment]
            newest = max((b.tip.seq for b in known.branches.values()), default=0) if known else 0
            first, last = parcel.segment.first - 1, min(parcel.last.seq, newest)
            # Who goes on from a tip repeats nothing: what stands at the newest number is known without asking.
            if first < newest and first <= last:
                spans.append(Span(parcel.segment.stream, first, last))
        self._held = {**tips, **self._store.held(spans)} if spans else tips
        digests = {d for p in parcels for d in map(_digest, p.records, p.segment.items) if d}
        self._blobs = self._store.blobs(sorted(digests)) if digests else set()

    def _decide(self, request: Append, parcel: Parcel) -> Verdict:
        segment = parcel.segment
        reason = parcel.damage or self.refuse(request, segment) or self.disown(request, segment, parcel.records)
        if reason:
            return self._verdict(segment, "denied", reason=reason)
        place = self.place(parcel)
        if not isinstance(place, Place):
            return self._verdict(segment, place)
        fresh = parcel.records[place.known :]
        if fresh:
            # What is held already proved itself when it came; a late repeat may bear a key since retired.
            known = self._streams.get(segment.stream)
            key = known.key if known else segment.public_key
            message = records.head_message(segment.stream, parcel.last.seq, parcel.last.link)
            if not self._verify(key, message, segment.signature):
                return self._verdict(segment, "denied", reason="the signed head does not match these records")
            items = segment.items[place.known :]
            rejected = [r for r in map(self._judge, fresh, items) if r]
            if rejected:
                return self._verdict(segment, "rejected", rejected=rejected)
            wanted = [d for d in map(_digest, fresh, items) if d and d not in self._blobs]
            if wanted:
                return self._verdict(segment, "blobs", blobs=list(dict.fromkeys(wanted)))
        self._write(parcel, place)
        return self._verdict(segment, "ack")

    def _verdict(
        self,
        segment: Segment,
        state: str,
        *,
        reason: str = "",
        rejected: Sequence[Rejected] = (),
        blobs: Sequence[bytes] = (),
    ) -> Verdict:
        known = self._streams.get(segment.stream)
        label = known.labels.get(segment.inc) if known else None
        at = label.head if label else Mark(0, records.genesis(segment.stream))
        return Verdict(
            stream=segment.stream,
            inc=segment.inc,
            state=state,  # type: ignore[arg-type]
            at=at,
            rejected=list(rejected),
            blobs=list(blobs),
            reason=reason,
        )

    def label(self, parcel: Parcel) -> Label | None:
        """Where the segment's incarnation stands on the hub, as of now in this group."""
        known = self._streams.get(parcel.segment.stream)
        return known.labels.get(parcel.segment.inc) if known else None

    def place(self, parcel: Parcel) -> Place | str:
        """Where the records belong in the tree, or the verdict (``gap``, ``fork``) that says why they do not."""
        segment, stream = parcel.segment, parcel.segment.stream
        known, label = self._streams.get(stream), self.label(parcel)
        base = Mark(segment.first - 1, segment.prev)
        parent = self._held.get((stream, base.seq, base.link))
        if base == Mark(0, records.genesis(stream)):
            pass
        elif parent is None:
            behind = label.head.seq if label else -1
            if parcel.records[0].kind == records.PRUNE and behind < base.seq:
                return Place(0, None, base)
            return "fork" if base.seq <= behind or base.seq == 0 else "gap"
        if known and label and not self._follows(known, label, parcel, parent):
            return "fork"
        count = 0
        for record in parcel.records:
            holder = self._held.get((stream, record.seq, record.link))
            if holder is None:
                break
            parent, base, count = holder, Mark(record.seq, record.link), count + 1
        return Place(count, parent, base)

    def _follows(self, known: _Stream, label: Label, parcel: Parcel, parent: int | None) -> bool:
        """Whether the incarnation's head and the segment lie on one chain."""
        head, first, last = label.head, parcel.segment.first, parcel.last
        if head.seq >= first:
            if head.seq <= last.seq:
                return parcel.records[head.seq - first].link == head.link
            holder = self._held.get((parcel.segment.stream, last.seq, last.link))
            tip = (label.branch, head.seq)
            return holder is not None and tree.contains(known.branches, tip, (holder, last.seq))
        return tree.contains(known.branches, (parent, first - 1), (label.branch, head.seq))

    def _judge(self, record: Record, item: wire.Item) -> Rejected | None:
        if item.body is None:
            named = wire.EVICTED <= item.why <= wire.REDACTED
            return None if named else Rejected(record.seq, "no_body", "the body is missing without a reason")
        if record.payload_len > records.INLINE_BYTES_MAX + SEALED_SLACK:
            return Rejected(record.seq, "too_big", f"{record.payload_len} bytes inline; send a blob")
        try:
            payload = codec.unpack(item.codec, item.body, record.payload_len)
            records.verify_payload(record, item.salt, payload)
            if record.flags & records.BLOB:
                records.read_blob_reference(payload)
            if record.kind == records.ROTATE and len(payload) != 32:
                raise IntegrityError("a rotate record holds a public key of 32 bytes")
        except HoldfastError as error:
            return Rejected(record.seq, error.code, error.message)
        refused = self.reject(record, payload)
        return Rejected(record.seq, *refused) if refused else None

    def _write(self, parcel: Parcel, place: Place) -> None:
        segment, stream = parcel.segment, parcel.segment.stream
        known = self._streams.get(stream)
        if known is None:
            facts = StreamFacts(stream, segment.agent, segment.public_key, segment.public_key, {}, {})
            known = self._streams[stream] = _Stream(facts)
            self.plan.streams.append(NewStream(stream, segment.agent, segment.public_key))
        fresh = parcel.records[place.known :]
        holder = self._extend(known, segment.inc, place, parcel.last) if fresh else place.parent
        assert holder is not None
        for record, item in zip(fresh, segment.items[place.known :], strict=True):
            self.plan.rows.append(Row(holder, record, item))
            self._held[(stream, record.seq, record.link)] = holder
            if record.kind == records.ROTATE and item.body is not None:
                known.key = codec.unpack(item.codec, item.body, record.payload_len)
                self.plan.keys[stream] = known.key
        if fresh:
            rotates = parcel.records[-1].kind == records.ROTATE
            self.plan.ends.append(End(holder, place.base.seq, parcel.last, segment.signature, rotates))
        label = known.labels.get(segment.inc)
        if label is None or label.head.seq < parcel.last.seq:
            label = Label(segment.inc, holder, parcel.last, segment.signature)
            known.labels[segment.inc] = self.plan.labels[(stream, segment.inc)] = label

    def _extend(self, known: _Stream, inc: bytes, place: Place, tip: Mark) -> int:
        """The branch that takes the rows: the one they follow if it is this incarnation's and ends there, or new."""
        branch = known.branches.get(place.parent) if place.parent is not None else None
        if branch is None or branch.inc != inc or branch.tip != place.base:
            number = -1 - len(self.plan.branches)
            branch = Branch(number, known.stream, inc, place.parent, place.base, tip)
        branch = msgspec.structs.replace(branch, tip=tip)
        known.branches[branch.id] = branch
        if branch.id < 0:
            self.plan.branches[branch.id] = branch
        return branch.id


def _open(segment: Segment) -> Parcel:
    """The records with their links recomputed from the headers, or why they cannot be."""
    if records.stream_id(segment.public_key, segment.agent) != segment.stream:
        return Parcel(segment, damage="the stream is not that of this key and agent")
    if not segment.items or segment.first < 1:
        return Parcel(segment, damage="an empty segment")
    found, link = [], segment.prev
    for seq, item in enumerate(segment.items, segment.first):
        link = records.next_link(link, item.header)
        try:
            record = records.decode_header(item.header, link)
        except IntegrityError as error:
            return Parcel(segment, damage=error.message)
        if record.stream != segment.stream or record.seq != seq:
            return Parcel(segment, damage=f"the header at {seq} is another record's")
        found.append(record)
    if found[-1].flags & records.MORE:
        return Parcel(segment, damage="cut within a batch")
    if any(record.kind == records.ROTATE for record in found[:-1]):
        return Parcel(segment, damage="a rotate record must end its segment")
    return Parcel(segment, found)


def _digest(record: Record, item: wire.Item) -> bytes | None:
    """The blob that a record needs, if it says so readably."""
    if not record.flags & records.BLOB or item.body is None:
        return None
    return item.body[:32] if item.codec == codec.RAW and len(item.body) == 40 else None


# ---- hello


class Identity(msgspec.Struct, frozen=True):
    """Who a hub is now."""

    hub: str
    gen: str
    lineage: list[tuple[str, int]]
    limits: wire.Limits = wire.Limits()


def hello(store: IngestStore, me: Identity, message: Hello, now_ms: int) -> wire.HelloAnswer:
    """Where the hub knows each of the node's streams to stand; reads only."""
    asked = message.streams[: wire.STREAMS_MAX]
    facts = store.streams(sorted({s.stream for s in asked}))
    marks = {
        (ask.stream, mark.seq)
        for ask in asked
        if ask.stream in facts
        for mark in (ask.head, *ask.probes[: wire.PROBES_MAX])
        if mark.seq
    }
    held = store.held([Span(stream, seq, seq) for stream, seq in sorted(marks)]) if marks else {}
    bare = store.envelopes(sorted(facts)) if facts else {}
    states = [_state(facts.get(ask.stream), ask, dict(held), bare.get(ask.stream, ())) for ask in asked]
    return wire.HelloAnswer(me.hub, me.gen, me.lineage, message.nonce, now_ms, states, me.limits)


def _state(
    facts: StreamFacts | None, ask: HelloStream, held: Held, bare: Sequence[tuple[int, int]]
) -> wire.StreamState:
    nothing = Mark(0, records.genesis(ask.stream))
    if facts is None:
        return wire.StreamState(ask.stream, ask.inc, "unknown", nothing, nothing)
    marks = (ask.head, *ask.probes[: wire.PROBES_MAX])
    common = next((m for m in marks if (ask.stream, m.seq, m.link) in held), nothing)
    spot = (held.get((ask.stream, common.seq, common.link)), common.seq)
    state, at, along = _standing(facts, ask, common, spot)
    mine = along if state == "ahead" else ask.inc if state == "ok" else b""
    top = facts.labels.get(mine)
    tip = (top.branch, top.head.seq) if top and top.head.seq > common.seq else spot
    others: list[wire.Other] = []
    for inc in sorted(facts.labels, reverse=True):
        other = facts.labels[inc]
        where = tree.meet(facts.branches, tip, (other.branch, other.head.seq))
        if where < other.head.seq and len(others) < wire.OTHERS_MAX:
            others.append(wire.Other(inc, other.head, min(where, common.seq)))
    tip = tip if state == "ok" else spot
    settled = tree.settled(facts.branches, tip)
    kept = sorted(seq for branch, seq in bare if seq <= settled and tree.contains(facts.branches, tip, (branch, seq)))
    if len(kept) > wire.ENVELOPES_MAX:
        settled, kept = kept[wire.ENVELOPES_MAX] - 1, kept[: wire.ENVELOPES_MAX]
    return wire.StreamState(ask.stream, ask.inc, state, at, common, along, others, settled, kept)  # type: ignore[arg-type]


def _goes_on(facts: StreamFacts, tip: tuple[int, int], spot: tuple[int | None, int]) -> bool:
    """Whether the chain that ends at `tip` contains the spot (the genesis is in all)."""
    return spot[0] is None or tree.contains(facts.branches, tip, (spot[0], spot[1]))


def _standing(
    facts: StreamFacts, ask: HelloStream, common: Mark, spot: tuple[int | None, int]
) -> tuple[str, Mark, bytes]:
    label = facts.labels.get(ask.inc)
    if common == ask.head:
        longer = [
            inc
            for inc, other in facts.labels.items()
            if other.head.seq > common.seq and _goes_on(facts, (other.branch, other.head.seq), spot)
        ]
        if longer:
            # The newest life that goes on from here: incarnations sort by when they were minted.
            return "ahead", facts.labels[max(longer)].head, max(longer)
    if label is None:
        return "unknown", common, b""
    shared = tree.meet(facts.branches, spot, (label.branch, label.head.seq))
    if shared == label.head.seq:
        return "ok", common, b""
    if shared == common.seq and label.head.seq <= ask.head.seq:
        return "ok", label.head, b""
    return "fork", label.head, b""

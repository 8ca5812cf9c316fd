"""A node's side toward one hub: what to send next, for all its streams; what each answer means. Pure decisions.

Level-triggered: `next` looks at the log's heads each time, so no wake-up can be lost. One request is in flight; the
next append carries everything that waits. The hub's heads are the truth, the cursor here is only what the latest
answer said; numbers are never trusted without their links. Every request that could go wrong is answered, in the
end, by saying hello again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from holdfast import wire
from holdfast.clock import Clock
from holdfast.protocol.actions import Action, Pull, Refresh, SendAppend, SendBlob, SendHello, Status, Wait
from holdfast.protocol.lanes import (
    Lane,
    Taken,
    Want,
    blob_users,
    denials,
    envelope,
    evictable,
    introduce,
    mark_at,
    units,
    want_of,
    whole_units,
)
from holdfast.protocol.patience import Patience
from holdfast.protocol.ports import OutboxStore, Position, Rng, StreamInfo, Verify
from holdfast.protocol.retry import SLOW, Reaction, mismatch, reaction, retry_after
from holdfast.wire import Append, AppendAnswer, Hello, HelloAnswer, HelloStream, Mark, Pulled, Rejected, Segment

HELLO_EVERY: Final = 60.0
"""Heads, settled marks and other branches are looked at again this often, traffic or not."""
STRIKES: Final = 3
NONCE_BYTES: Final = 16


class Outbox:
    """Everything a node owes one hub, and what to do about it next.

    One caller at a time. Every `on_…` returns False for what is not the answer to the request in flight, and then
    changes nothing: a transport that has one answer for each request calls ``failed("echo")`` for it.

    Args:
        hub: the hub's name in this node's memory (its address).
        store: the node's logs and cursors.
        clock: monotonic for waiting, wall only for `Retry-After` dates.
        rng: for jitter and nonces.
        verify: checks the signature under what is pulled.
        node: this node's name, for the hub's log.
    """

    hello_every: float = HELLO_EVERY

    def __init__(self, hub: str, store: OutboxStore, *, clock: Clock, rng: Rng, verify: Verify, node: str = "") -> None:
        self.hub, self.node = hub, node
        self.forks = 0
        self.gen = ""
        self._store, self._clock, self._rng, self._verify = store, clock, rng, verify
        self._patience = Patience(rng)
        self._limits = wire.Limits()
        self._cap = wire.RECORDS_MAX
        self._lanes: dict[bytes, Lane] = {}
        self._refused = {s: set(seqs) for s, seqs in store.quarantined(hub).items()}
        self._hello_due = 0.0
        self._flight: Action | None = None
        # Not from 0: a late answer to the request of an earlier process must not look like one to ours.
        self._req = int.from_bytes(rng.randbytes(4), "big")
        self._line = rng.randbytes(8)
        self._taken = Taken()
        self._turn = 0
        self._may_pull = True
        for stream, position in store.positions(hub).items():
            self._lanes[stream] = Lane(position.inc, position.acked, position.settled)

    # ---- what to do next

    def next(self) -> Action:
        """The one thing to do now; call it again after every answer, failure, wait or write."""
        now = self._clock.monotonic()
        if self._flight is not None:
            return Wait(None)
        if self._patience.take_refresh():
            return Refresh()
        if now < self._patience.until:
            return Wait(self._patience.until)
        action = self._choose(now)
        if isinstance(action, Wait):
            return action
        self._flight = action
        return action

    def _choose(self, now: float) -> Action:
        infos = self._store.streams()
        if now >= self._hello_due and not (self._hello_due and any(x.wants for x in self._lanes.values())):
            # (A routine look waits for pulls under way: a long one must not begin again every minute.)
            for lane in self._lanes.values():
                lane.ready = False
            self._hello_due = now + self.hello_every
        strangers = [i for i in infos if self._is_strange(i)]
        if strangers or not self.gen:
            return self._hello(strangers)
        if self._patience.paused:
            return Wait(self._hello_due)
        blob = next((SendBlob(s, lane.blobs[0]) for s, lane in self._lanes.items() if lane.blobs), None)
        if blob:
            return blob
        pull = self._pull()
        if pull and self._may_pull:
            self._may_pull = False
            return pull
        self._may_pull = True
        append = self._append(infos, now)
        if append:
            return SendAppend(append)
        if pull:
            return pull
        return Wait(min([self._hello_due, *(x.silent_until for x in self._lanes.values() if x.silent_until > now)]))

    def _is_strange(self, info: StreamInfo) -> bool:
        lane = self._lanes.get(info.stream)
        return lane is None or not lane.ready or lane.inc != info.inc

    def _hello(self, infos: Sequence[StreamInfo]) -> SendHello:
        asked = [introduce(self._store, info) for info in infos[: wire.STREAMS_MAX]]
        return SendHello(Hello(self.node, self._rng.randbytes(NONCE_BYTES), asked))

    def _pull(self) -> Pull | None:
        for stream, lane in self._lanes.items():
            if lane.wants and lane.ready:
                want = lane.wants[0]
                return Pull(stream, want.inc, want.next)
        return None

    def _append(self, infos: Sequence[StreamInfo], now: float) -> Append | None:
        segments: list[Segment] = []
        count, size = min(self._limits.records, self._cap), self._limits.segment_bytes
        self._turn += 1
        waiting = [i for i in infos if self._waits(i, now)]
        synced = self.sync([i.stream for i in waiting]) if waiting else {}
        for k in range(len(waiting)):
            info = waiting[(k + self._turn) % len(waiting)]
            lane = self._lanes[info.stream]
            items = self._take(info, lane, synced[info.stream].seq, (count, size), not segments)
            if not items:
                continue
            segment = self._segment(info, lane, items)
            if segment is None:
                lane.ready = False
                continue
            segments.append(segment)
            count -= len(items)
            size -= sum(len(i.body or b"") for i in items)
            if count <= 0 or size <= 0:
                break
        if not segments and not self._taken:
            return None  # nothing to send, and nothing whose safety is worth asking for
        self._req += 1
        return Append(self.gen, self._req, segments, self.node, self._line)

    def _waits(self, info: StreamInfo, now: float) -> bool:
        lane = self._lanes[info.stream]
        return lane.sent.seq < info.head.seq and now >= lane.silent_until and not lane.is_behind

    def _take(self, info: StreamInfo, lane: Lane, last: int, room: tuple[int, int], alone: bool) -> list[wire.Item]:
        """What waits, in whole batches: as much as fits, or (first in the request) at least one batch."""
        first = max(lane.sent.seq, info.begin.seq) + 1
        if last < first:
            return []
        items = whole_units(self._store.read(info.stream, first, last, *room))
        if not items and alone:
            room = self._limits.records, self._limits.segment_bytes
            items = whole_units(self._store.read(info.stream, first, last, *room), only_first=True)
        refused = self._refused.get(info.stream)
        if refused:
            items = [envelope(i) if first + k in refused else i for k, i in enumerate(items)]
        return items

    def sync(self, streams: Sequence[bytes]) -> Mapping[bytes, Mark]:
        """Nothing leaves before it would survive a power cut here: else a cut would look like a fork there."""
        return self._store.sync(streams)

    def _segment(self, info: StreamInfo, lane: Lane, items: list[wire.Item]) -> Segment | None:
        before = max(lane.sent, info.begin, key=lambda m: m.seq)
        last = before.seq + len(items)
        links = self._store.links(info.stream, [before.seq, last])
        if not self.is_same(links.get(before.seq), before.link) or last not in links:
            return None
        signature = self._store.sign(info.stream, Mark(last, links[last]))
        prev = links.get(before.seq, before.link)
        return Segment(info.stream, lane.inc, info.agent, info.public_key, before.seq + 1, prev, items, signature)

    def is_same(self, mine: bytes | None, theirs: bytes) -> bool:
        """Whether my link is the hub's: numbers alone prove nothing."""
        return mine == theirs

    # ---- answers

    def on_hello(self, answer: HelloAnswer) -> bool:
        """The hub's truth: move every cursor to it, forwards or backwards. False: not the answer to my latest."""
        flight = self._flight
        if not isinstance(flight, SendHello) or answer.nonce != flight.message.nonce:
            return False
        asked = {s.stream: s for s in flight.message.streams}
        if {s.stream for s in answer.streams} != set(asked):
            return False
        self._flight = None
        if answer.version != wire.PROTOCOL:
            problem = f"the hub speaks protocol {answer.version}, this node {wire.PROTOCOL}"
            self._patience.slow(self._clock.monotonic(), "mismatch", problem)
            self.say_hello()
            return True
        if answer.gen != self.gen:
            self._taken.clear()  # of a hub that is no more: what it took may be lost, and hello has said what is left
        self.gen, self._limits = answer.gen, answer.limits
        if self._patience.obey(answer.wish):  # a person asks: what was put off is tried again now
            for lane in self._lanes.values():
                lane.silent_until = 0.0
        self._patience.worked(self._clock.monotonic())
        infos = {i.stream: i for i in self._store.streams()}
        for state in answer.streams:
            info = infos.get(state.stream)
            if info is not None and info.inc == asked[state.stream].inc == state.inc:
                self.settle(info, asked[state.stream], state)
        self._remember(asked)
        if asked and not any(self._lanes[s].ready for s in asked if s in self._lanes):
            self._patience.surprised(self._clock.monotonic())
        return True

    def settle(self, info: StreamInfo, asked: HelloStream, state: wire.StreamState) -> None:
        """Move one stream's cursor to where the hub stands, and see what there is to pull."""
        stream = info.stream
        marks = (state.at, state.common, *(o.head for o in state.others))
        links = self._store.links(stream, sorted({m.seq for m in marks} | {state.settled}))
        at = state.common if state.state == "ahead" else state.at
        if state.state == "fork" or not self.is_same(links.get(at.seq), at.link):
            # What the hub holds under my name is not mine: leave the name to it, take a new one for my tail.
            if self.is_same(links.get(state.common.seq), state.common.link) or state.common.seq == 0:
                self._fork(info, state)
            return
        old = self._lanes.get(stream)
        lane = self._lanes[stream] = Lane(info.inc, at, mark_at(links, min(at.seq, state.settled)))
        lane.take_over(old)
        lane.ready = lane.told = True
        lane.bare = frozenset(state.envelopes)
        if state.state == "ahead":
            if info.head != asked.head:
                lane.ready = False
                return
            lane.wants.append(Want(state.along, info.head.seq + 1, info.head.link, ahead=True))
        weighed = self._store.weighed(stream)
        for other in reversed(state.others):
            if other.head.seq in links and links[other.head.seq] == other.head.link:
                continue
            want = want_of(other, [mark for inc, mark in weighed if inc == other.inc])
            if want:
                lane.wants.append(want)

    def _fork(self, info: StreamInfo, state: wire.StreamState) -> None:
        self.forks += 1
        above = max([state.inc, info.inc, state.along, *(o.inc for o in state.others)])
        self._store.mint(info.stream, state.common, above)
        lane = self._lanes.get(info.stream)
        if lane:
            lane.ready = False

    def on_append(self, answer: AppendAnswer) -> bool:
        """What became of each segment. False: not the answer to my request."""
        flight = self._flight
        if not isinstance(flight, SendAppend) or answer.req != flight.message.req:
            return False
        sent = flight.message.segments
        if not answer.regen and [(v.stream, v.inc) for v in answer.verdicts] != [(s.stream, s.inc) for s in sent]:
            return False
        self._flight = None
        if answer.regen or not self.is_my_gen(answer.gen):
            self.say_hello()
            self._patience.surprised(self._clock.monotonic())
            return True
        self._patience.worked(self._clock.monotonic())
        self._cap = min(self._cap * 2, wire.RECORDS_MAX)
        if answer.ask:
            self.say_hello()
        for segment, verdict in zip(sent, answer.verdicts, strict=True):
            self._on_verdict(segment, verdict)
        self._taken.note(answer.req, sent, answer.verdicts)
        acknowledged = self._taken.acknowledge(answer.safe, self._lanes)
        if any(not self._lanes[s.stream].ready for s in sent):
            self._patience.surprised(self._clock.monotonic())
        self._remember(acknowledged)
        return True

    def is_my_gen(self, gen: str) -> bool:
        """Whether an ack comes from the hub that my cursors are about, and not from what it was restored to."""
        return gen == self.gen

    def _on_verdict(self, segment: Segment, verdict: wire.Verdict) -> None:
        stream, lane = segment.stream, self._lanes[segment.stream]
        if verdict.state == "ack":
            self._on_ack(stream, lane, verdict)
        elif verdict.state == "rejected" and verdict.rejected:
            sent = range(segment.first, segment.first + len(segment.items))
            self._quarantine(stream, [r for r in verdict.rejected if r.seq in sent], lane)
        elif verdict.state == "blobs" and verdict.blobs:
            lane.blobs = list(verdict.blobs)
            lane.blob_users = blob_users(segment)
        elif verdict.state == "denied":
            # Of this stream alone: the node's others go on. A wider token may lie in the file by now.
            lane.silent_until, lane.denied = self._clock.monotonic() + SLOW, verdict.reason or "no reason given"
            self._patience.reread()
        else:
            lane.ready = False

    def _on_ack(self, stream: bytes, lane: Lane, verdict: wire.Verdict) -> None:
        links = self._store.links(stream, [verdict.at.seq])
        if not self.is_same(links.get(verdict.at.seq), verdict.at.link):
            lane.ready = False
            return
        lane.sent, lane.denied = verdict.at, ""
        if verdict.at.seq > lane.best:
            # Only what no ack of this process has reached before is a sign that we agree again.
            lane.best, self._patience.surprises = verdict.at.seq, 0
        lane.strikes.clear()

    def on_pulled(self, pulled: Pulled) -> bool:
        """Records that I lost, or that another branch of mine has; applied once they are whole and verified."""
        flight = self._flight
        if not isinstance(flight, Pull) or (pulled.stream, pulled.inc, pulled.first) != (
            flight.stream,
            flight.inc,
            flight.first,
        ):
            return False
        self._flight = None
        self._patience.worked(self._clock.monotonic())
        lane = self._lanes.get(flight.stream)
        if lane is None or not lane.wants or lane.wants[0].inc != flight.inc:
            return True
        want = lane.wants[0]
        info = next((i for i in self._store.streams() if i.stream == flight.stream), None)
        problem = want.add(pulled) if info else "the stream is gone"
        if info and not problem and want.is_whole:
            problem = want.unsigned(info.stream, (info.key, info.public_key), pulled.signature, self._verify)
        if problem or info is None:
            # Not applied, and asked for again with the next hello; meanwhile nothing else waits for it.
            self._patience.alert = f"cannot use what the hub has of stream {flight.stream.hex()}: {problem}"
            lane.wants.pop(0)
        elif want.is_whole:
            lane.wants.pop(0)
            self._apply(info, lane, want)
        return True

    def _apply(self, info: StreamInfo, lane: Lane, want: Want) -> None:
        if not want.ahead:
            if want.items:
                self._store.merge(info.stream, want.inc, want.origin, want.items)
            return
        if want.items and self._store.fast_forward(info.stream, want.origin, want.items, want.inc):
            lane.inc, lane.sent, lane.acked = want.inc, want.head, want.head
            self._remember([info.stream])
        else:
            lane.ready = False

    def on_blob(self, digest: bytes, ok: bool) -> bool:
        """The hub has the blob; or not ok: it is not readable here, so its record goes as an envelope."""
        flight = self._flight
        if not isinstance(flight, SendBlob) or digest != flight.digest:
            return False
        self._flight = None
        lane = self._lanes[flight.stream]
        lane.blobs = [d for d in lane.blobs if d != digest]
        if ok:
            self._patience.worked(self._clock.monotonic())
        else:
            self._without_blob(flight, "the blob is not readable on the node")
        return True

    def _without_blob(self, flight: SendBlob, reason: str) -> None:
        lane = self._lanes[flight.stream]
        lane.blobs = [d for d in lane.blobs if d != flight.digest]
        if flight.digest in lane.blob_users:
            self._quarantine(flight.stream, [Rejected(lane.blob_users[flight.digest], "blob", reason)], lane)

    def _quarantine(self, stream: bytes, refused: Sequence[Rejected], lane: Lane) -> None:
        known = self._refused.setdefault(stream, set())
        fresh = [r for r in refused if r.seq not in known]
        if not fresh:
            # Nothing left to leave out: the hub refuses even the envelope: no hurry, but never for good.
            lane.silent_until = self._clock.monotonic() + SLOW
            self._patience.alert = f"the hub refuses the envelope of a record of {stream.hex()}"
            return
        known.update(r.seq for r in fresh)
        self._store.quarantine(self.hub, stream, fresh)

    def _remember(self, streams: Iterable[bytes]) -> None:
        lanes = {s: self._lanes[s] for s in streams if s in self._lanes}
        self._store.keep(self.hub, {s: Position(x.inc, x.acked, x.settled) for s, x in lanes.items() if x.ready})

    # ---- failures

    def failed(
        self, kind: str, status: int | None = None, retry_after_header: str | None = None, hub_header: bool = False
    ) -> None:
        """The request in flight brought no answer of ours: wait as its cause deserves, and try for ever.

        Args:
            kind: ``network``, ``timeout``, ``echo`` (an answer to something else) or ``status``.
            status: of the HTTP answer, if there was one.
            retry_after_header: as it was sent.
            hub_header: whether the answer bore a hub's header.
        """
        flight, self._flight = self._flight, None
        what = reaction(status if kind == "status" else None, hub_header)
        now = self._clock.monotonic()
        refused = hub_header and status is not None and 400 <= status < 500
        if isinstance(flight, Pull) and refused and what is not Reaction.DENIED:
            # The branch is not there any more (the hub was put back): what is, hello will tell.
            self._patience.heard(now)
            self._patience.retry(now)
            self._lanes[flight.stream].ready = False
        elif what is Reaction.SMALLER and isinstance(flight, SendAppend):
            self._patience.heard(now)
            if not self._smaller(flight.message):
                self._patience.retry(now)
        elif what is Reaction.SMALLER and isinstance(flight, SendBlob):
            self._patience.heard(now)
            self._without_blob(flight, "the hub refuses its blob")
        elif what in (Reaction.SMALLER, Reaction.MISMATCH):
            self._patience.slow(now, "mismatch", f"the hub answered {status}: {mismatch(status)}")
            self.say_hello()
        elif what is Reaction.DENIED:
            self._patience.deny(now, f"the hub answered {status}: this node's credential is not accepted")
        else:
            after = retry_after(retry_after_header, self._clock.now_ms())
            self._patience.away(now, after, full=what is Reaction.FULL)

    def _smaller(self, message: Append) -> bool:
        """Half as much next time; a single batch refused three times goes as envelopes. True: no need to wait."""
        sent = sum(len(s.items) for s in message.segments)
        if not sent:
            return False  # it only asked whether the disk has it
        if units(message) > 1:
            self._cap = max(1, sent // 2)
            return True
        segment = message.segments[0]
        self._cap = 1
        lane = self._lanes[segment.stream]
        strikes = lane.strikes[segment.first] = lane.strikes.get(segment.first, 0) + 1
        if strikes >= STRIKES:
            lane.strikes.clear()
            seqs = [segment.first + k for k, i in enumerate(segment.items)]
            refused = [Rejected(seq, "refused", "the hub refused the request that carried it") for seq in seqs]
            self._quarantine(segment.stream, refused, lane)
        return False

    # ---- for the rooms around

    def poke(self) -> None:
        """The hub was just heard (its feed connected, a person asks): do not sit out the back-off."""
        self._patience.forget()

    def say_hello(self) -> None:
        """Ask where everything stands before sending more."""
        self._hello_due = 0.0

    def evictable(self, stream: bytes) -> int:
        """Up to which number this hub and its backups hold every body for sure, but those that `kept` names.

        Only hello moves it, because hello names those in the same breath. A body may go when every hub of the node
        says so: the smallest of their numbers counts, and nothing that any of them names.
        """
        return evictable(self._lanes.get(stream), lambda seqs: self._store.links(stream, seqs))

    def kept(self, stream: bytes) -> frozenset[int]:
        """The numbers whose bodies must stay here because this hub took, or will take, only their envelopes."""
        lane = self._lanes.get(stream)
        return (lane.bare if lane else frozenset()) | self._refused.get(stream, set())

    def status(self) -> Status:
        """A snapshot for health, metrics and people."""
        infos, acked = self._store.streams(), {stream: lane.acked.seq for stream, lane in self._lanes.items()}
        depth = {i.stream: max(0, i.head.seq - acked.get(i.stream, 0)) for i in infos}
        waiting = any(depth.values()) or any(x.wants for x in self._lanes.values())
        patience = self._patience
        return Status(
            hub=self.hub,
            state=patience.standing(waiting),
            gen=self.gen,
            last_contact=patience.last_contact,
            failures=patience.failures,
            depth=depth,
            forks=self.forks,
            quarantined=sum(map(len, self._refused.values())),
            alert=patience.alert or denials(infos, self._lanes),
        )

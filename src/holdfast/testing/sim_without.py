"""The protocol with one protection taken out, to show what each is for. Nowhere else can they be switched off."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from holdfast import records, wire
from holdfast.protocol.ingest import Parcel, Place
from holdfast.protocol.outbox import Outbox
from holdfast.protocol.ports import StreamInfo
from holdfast.testing.sim_hub import Hub, SimIngest
from holdfast.testing.sim_node import SplitStore
from holdfast.testing.sim_process import Parts
from holdfast.wire import Append, AppendAnswer, Cursor, Hello, HelloAnswer, Mark, StreamState


class NumbersIngest(SimIngest):
    """Without the hash check: a number at or below the head is a duplicate, and that is that."""

    def place(self, parcel: Parcel) -> Place | str:
        """By numbers alone."""
        label, segment = self.label(parcel), parcel.segment
        if label is None:
            return Place(0, None, Mark(segment.first - 1, segment.prev))
        if segment.first > label.head.seq + 1:
            return "gap"
        return Place(min(len(parcel.records), label.head.seq - segment.first + 1), label.branch, label.head)


class NumbersHub(Hub):
    """Answers hello by numbers alone."""

    ingest = NumbersIngest

    def hello(self, message: Hello, now_ms: int) -> HelloAnswer:
        """As far as the numbers go."""
        answer = super().hello(message, now_ms)
        states = []
        for ask, state in zip(message.streams, answer.streams, strict=True):
            label = self.corpus.labels.get(ask.stream, {}).get(ask.inc)
            at = Mark(min(label.head.seq, ask.head.seq), b"") if label else Mark(0, b"")
            states.append(StreamState(ask.stream, ask.inc, "ok", at, at, settled=state.settled))
        return msgspec.structs.replace(answer, streams=states)


class NumbersOutbox(Outbox):
    """Believes numbers."""

    def is_same(self, mine: bytes | None, theirs: bytes) -> bool:
        """As long as there is such a number."""
        return mine is not None


class CursorOutbox(Outbox):
    """Without hello: the node's own cursor is the truth."""

    def settle(self, info: StreamInfo, asked: wire.HelloStream, state: StreamState) -> None:
        """Whatever the hub says, go on from my cursor."""
        kept = self._store.positions(self.hub).get(info.stream)
        at = kept.acked if kept else Mark(0, records.genesis(info.stream))
        super().settle(info, asked, msgspec.structs.replace(state, state="ok", at=at, common=at, others=[]))


class EagerOutbox(Outbox):
    """Without sync-before-ship: what is committed leaves at once."""

    def sync(self, streams: Sequence[bytes]) -> Mapping[bytes, Mark]:
        """The heads, synced or not."""
        return {i.stream: i.head for i in self._store.streams() if i.stream in streams}


class NoGenerationHub(Hub):
    """Without generations: after a restart or a restore it is the same hub as before."""

    def begin(self) -> None:
        """Nothing changes."""

    def start(self, cursor: Cursor) -> int:
        """Where the reader says."""
        return min(cursor.pos, self.head)


class RacyHub(Hub):
    """Without commit order: positions are taken before the commit, and some commits are late."""

    def append(self, requests: list[Append]) -> list[AppendAnswer]:  # type: ignore[override]
        """Some rows stay invisible until the next commit."""
        before = self.head
        answers = super().append(requests)
        self.hidden = {at for at in range(before + 1, self.head + 1) if at % 3 == 0}
        return answers

    def page(self, text: str) -> tuple[list[object], str]:  # type: ignore[override]
        """What is visible; the cursor goes past the rest."""
        rows, after = super().page(text)
        return list(rows), after


WITHOUT: dict[str, Callable[[Parts], Parts]] = {
    "hash-check": lambda p: msgspec.structs.replace(p, hub=NumbersHub, outbox=NumbersOutbox),
    "hello": lambda p: msgspec.structs.replace(p, outbox=CursorOutbox),
    "settled": lambda p: msgspec.structs.replace(p, evict_acked=True),
    "generation": lambda p: msgspec.structs.replace(p, hub=NoGenerationHub),
    "atomic-outbox": lambda p: msgspec.structs.replace(p, store=SplitStore),
    "commit-order": lambda p: msgspec.structs.replace(p, hub=RacyHub),
    "sync-before-ship": lambda p: msgspec.structs.replace(p, outbox=EagerOutbox),
}


def parts(without: frozenset[str]) -> Parts:
    """What a world without these protections is made of."""
    made = Parts()
    for name in sorted(without):
        made = WITHOUT[name](made)
    return made

"""The nodes that spoke to a hub: when last, how far their logs had come by their own word, and what of it is here."""

from __future__ import annotations

import threading
from typing import Final

import msgspec

from holdfast.wire import Append, AppendAnswer, Hello, HelloAnswer, Report

STREAMS_MAX: Final = 10_000
AGENTS_MAX: Final = 2_000
NAME_MAX: Final = 255
STREAM_BYTES: Final = 16
"""What is longer is no name and no stream of ours, and is not kept in memory."""
REFUSED_MAX: Final = 20
TEXT_MAX: Final = 300


class SeenNode(msgspec.Struct):
    """A node as it last showed itself."""

    node: str
    seen_ms: int
    agents: dict[str, int] = {}
    """Agent -> the number that its log had reached."""
    streams: dict[str, bytes] = {}
    """Agent -> its stream."""
    here: dict[str, int] = {}
    """Agent -> how far this hub had its stream; written down for the next start, see `Heads`."""
    oldest_ms: int = 0
    """When the oldest record was made that this hub had not acknowledged; 0: it had all, or the node does not tell."""
    skew_ms: int | None = None
    """How far the node's clock was ahead of the hub's; None: the node does not tell its time."""
    report: Report | None = None
    """How it said that it is; None: an older one does not."""
    report_ms: int = 0
    forks: list[str] = []
    """The agents whose logs, by the newest hello, went another way than what is here: another branch begins."""
    ways: dict[str, int] = {}
    """Agent -> how many branches of its log, at most, went another way than the one that it went on with."""
    forked_ms: int = 0
    """When that was last so; 0: never."""


class Standing(msgspec.Struct, frozen=True):
    """How a node stands, for metrics; `behind` is by agent."""

    node: str
    seen_s: float
    behind: dict[str, int]
    oldest_s: float
    skew_s: float | None

    def lag_s(self, now: float) -> float:
        """The age of its oldest record that is not here, in seconds; 0 if all are, as far as the node has told.

        Args:
            now: seconds since 1970.
        """
        return max(0.0, now - self.oldest_s) if self.oldest_s and any(self.behind.values()) else 0.0


class Heads:
    """How far this hub has each node's streams, as it last told the nodes; for metrics."""

    def __init__(self) -> None:
        self._heads: dict[bytes, int] = {}
        self.denied: dict[bytes, str] = {}
        """Stream -> why the newest records of it were not taken; the loop's own."""
        self._lock = threading.Lock()  # guards _heads: other processes' words are read back by a thread

    def told(self, answer: HelloAnswer) -> None:
        """Notes what a hello was answered."""
        for state in answer.streams:
            self._note(state.stream, state.at.seq)

    def took(self, message: Append, answer: AppendAnswer) -> None:
        """Notes what an append was answered."""
        for verdict in answer.verdicts:
            if verdict.state == "ack":
                self._note(verdict.stream, verdict.at.seq)
                if self.denied:
                    self.denied.pop(verdict.stream, None)
            elif verdict.state == "denied" and (len(self.denied) < STREAMS_MAX or verdict.stream in self.denied):
                self.denied[verdict.stream] = verdict.reason[:TEXT_MAX]

    def write_down(self, seen: SeenNode) -> None:
        """Puts into a node's entry what the next start of the hub is to know of its streams."""
        heads = self._heads.copy()  # a thread writes down what the loop goes on with
        seen.here = {agent: heads[stream] for agent, stream in seen.streams.items() if stream in heads}

    def read_back(self, seen: SeenNode) -> None:
        """Takes in what `write_down` put there: a node that is away still owes what it owed before the restart."""
        for agent, seq in seen.here.items():
            if agent in seen.streams:
                self._note(seen.streams[agent], seq)

    def standing(self, seen: SeenNode) -> Standing:
        """How a node stands now."""
        behind = {}
        for agent, stream in seen.streams.items():
            have = self._heads.get(stream)
            behind[agent] = 0 if have is None else max(0, seen.agents.get(agent, 0) - have)
        skew = None if seen.skew_ms is None else seen.skew_ms / 1000
        return Standing(seen.node, seen.seen_ms / 1000, behind, seen.oldest_ms / 1000, skew)

    def _note(self, stream: bytes, seq: int) -> None:
        if len(stream) != STREAM_BYTES:
            return
        with self._lock:
            if stream not in self._heads and len(self._heads) >= STREAMS_MAX:
                del self._heads[next(iter(self._heads))]
            self._heads[stream] = seq


def update(seen: SeenNode, hello: Hello, now_ms: int) -> None:
    """Takes in what a node says of itself.

    Args:
        seen: what was known of it.
        hello: its newest.
        now_ms: the hub's time.
    """
    if len(seen.agents) > AGENTS_MAX:
        seen.agents, seen.streams, seen.ways = {}, {}, {}
    # Added to what is known: a node says hello for some of its streams at a time.
    # In new dicts, as a thread may be writing the old ones down.
    told = [each for each in hello.streams if len(each.agent) <= NAME_MAX and len(each.stream) == STREAM_BYTES]
    seen.agents = seen.agents | {stream.agent: stream.head.seq for stream in told}
    seen.streams = seen.streams | {stream.agent: stream.stream for stream in told}
    seen.oldest_ms = hello.oldest_ms
    seen.skew_ms = hello.now_ms - now_ms if hello.now_ms else None
    if hello.report is not None:  # who only asks for its body budget says hello without one
        seen.report, seen.report_ms = cut(hello.report), now_ms


def cut(report: Report) -> Report:
    """A report with no more in it than is worth keeping, whoever sent it."""
    caches = {agent: each for agent, each in report.caches.items() if len(agent) <= NAME_MAX}
    refused = [
        msgspec.structs.replace(
            each, agent=each.agent[:NAME_MAX], code=each.code[:NAME_MAX], reason=each.reason[:TEXT_MAX]
        )
        for each in report.refused[:REFUSED_MAX]
    ]
    return msgspec.structs.replace(
        report,
        host=report.host[:NAME_MAX],
        version=report.version[:NAME_MAX],
        caches=dict(list(caches.items())[:AGENTS_MAX]),
        refused=refused,
    )


def parted(seen: SeenNode, answer: HelloAnswer, now_ms: int) -> None:
    """Notes which of a node's logs a hello found to go another way than what is here, now or since the last one."""
    names = {stream: agent for agent, stream in seen.streams.items()}
    told = {names[state.stream]: state for state in answer.streams if state.stream in names}
    forks = [agent for agent, state in told.items() if state.state == "fork"]
    # A node that finds out by itself goes on under another name; that there is one more way is what is left to see.
    more = any(len(state.others) > seen.ways.get(agent, len(state.others)) for agent, state in told.items())
    seen.forks = [agent for agent in seen.forks if agent not in told] + forks
    seen.ways = seen.ways | {a: max(len(state.others), seen.ways.get(a, 0)) for a, state in told.items()}
    if forks or more:
        seen.forked_ms = now_ms

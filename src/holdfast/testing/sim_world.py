"""The simulated world: time, the network, and everything that can go wrong.

One heap of events, one seeded source of chance: the same seed is the same history, to the byte. The product's own
`Outbox`, `Ingest` and `resume` make every decision; nothing here knows the protocol's rules.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgspec

from holdfast.protocol.actions import Pull, SendAppend, SendBlob, SendHello
from holdfast.records import decode_header
from holdfast.testing.sim_node import Disk, Entry, Log, MemoryStore, new_inc
from holdfast.testing.sim_process import (
    LOSS_MAX,
    POISON_HTTP,
    START_MS,
    BlobStored,
    Failure,
    Node,
    Page,
    Parts,
    Then,
)
from holdfast.wire import Append, Hello


class World:
    """Everything there is, and the clock that moves it.

    Args:
        seed: of all chance.
        parts: what the nodes and hubs are made of.
    """

    def __init__(self, seed: int, parts: Parts) -> None:
        self.rng = Random(seed)
        self.parts = parts
        self.time = 0.0
        self.clean = False
        self.requests = self.uids = 0
        self.faults: Counter[str] = Counter()
        self.problems: list[str] = []
        self.tainted: set[bytes] = set()
        self.written: dict[tuple[bytes, int, bytes], Entry] = {}
        self.parents: dict[tuple[bytes, int, bytes], bytes] = {}
        self.cut_off: dict[tuple[str, str], float] = {}
        self.hubs = {name: parts.hub(name) for name in ("hub0", "hub1")}
        self.queues: dict[str, list[tuple[Append, Callable[[object], None]]]] = {name: [] for name in self.hubs}
        self.parked: dict[str, list[Callable[[], bool]]] = {name: [] for name in self.hubs}
        self.epochs = dict.fromkeys(self.hubs, 0)
        self.nodes: list[Node] = []
        self._heap: list[tuple[float, int, Then]] = []
        self._count = 0
        for k in range(3):
            disk = Disk(list(self.hubs))
            for agent in ("scout", "scribe")[: 2 if k == 0 else 1]:
                log = Log(agent, self.rng.randbytes(32), new_inc(START_MS, self.rng, bytes(16)))
                disk.logs[log.stream] = log
            disk.sync()
            self.join(Node(self, f"node{k}", disk))

    def join(self, node: Node) -> None:
        """One more node runs."""
        self.nodes.append(node)
        node.start()

    def after(self, delay: float, then: Then) -> None:
        """Let something happen later."""
        self._count += 1
        heapq.heappush(self._heap, (self.time + delay, self._count, then))

    def run(self, until: float) -> None:
        """Let time pass."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.time, _, then = heapq.heappop(heap)
            then()
        self.time = until

    # ---- the network

    def send(self, node: Node, hub: str, then: Then) -> None:
        """Carry a message between a node and a hub, either way: late, twice, or not at all."""
        if self.clean:
            self.after(0.001, then)
            return
        if self.cut_off.get((node.name, hub), 0.0) > self.time:
            self.faults["message_cut_off"] += 1
            return
        chance = self.rng.random()
        if chance < 0.08:
            self.faults["message_lost"] += 1
            return
        copies = 1
        if chance < 0.14:
            self.faults["message_twice"] += 1
            copies = 2
        for _ in range(copies):
            chance, delay = self.rng.random(), 0.001 + 0.004 * self.rng.random()
            if chance < 0.10:
                self.faults["message_late"] += 1
                delay = self.rng.random() * (5.0 if chance < 0.02 else 0.4)
            self.after(delay, then)

    def request(self, node: Node, hub: str, what: tuple[Any, bytes], token: int) -> None:
        """A request of an outbox, and its answer's way back."""

        def back(answer: object) -> None:
            # To whichever process runs there when it arrives.
            self.send(node, hub, lambda: node.answered(hub, token, answer) if node.up else None)

        self.send(node, hub, lambda: self._serve(hub, what, back))

    def _serve(self, name: str, what: tuple[Any, bytes], back: Callable[[object], None]) -> None:
        hub, (action, content) = self.hubs[name], what
        if not hub.up:
            back(Failure("network"))
        elif not self.clean and self.rng.random() < 0.03:
            self.faults["http_error"] += 1
            back(self.rng.choice(HTTP_ERRORS))
        elif isinstance(action, SendHello):
            message: Hello = action.message
            # Answered when everything it may speak of is on the disk.
            self._later(name, 0.02, lambda: back(hub.hello(message, START_MS)))
        elif isinstance(action, SendAppend):
            if any(map(_is_poison, (i for s in action.message.segments for i in s.items))):
                back(Failure("status", 422, None, True))
                return
            self.queues[name].append((action.message, back))
            if len(self.queues[name]) == 1:
                self._later(name, 0.002, lambda: self._commit(name))
        elif isinstance(action, Pull):
            page = hub.pull(action.stream, action.inc, action.first)
            back(page if page is not None else Failure("status", 409, None, True))
        elif isinstance(action, SendBlob):
            hub.corpus.stored[action.digest] = content
            back(BlobStored(action.digest))

    def _later(self, name: str, delay: float, then: Then) -> None:
        epoch = self.epochs[name]
        self.after(delay, lambda: then() if self.epochs[name] == epoch else None)

    def _commit(self, name: str) -> None:
        hub, group = self.hubs[name], self.queues[name]
        self.queues[name] = []
        answers = hub.append([message for message, _ in group])
        count = len(hub.journal)
        self.feed(name)

        for answer, (message, back) in zip(answers, group, strict=True):
            if message.segments:  # taken: answered at the commit
                back(msgspec.structs.replace(answer, safe=hub.safe.get(message.line, 0)))

        def synced() -> None:
            hub.synced = max(hub.synced, count)
            for answer, (message, back) in zip(answers, group, strict=True):
                if not answer.regen:
                    hub.safe[message.line] = max(answer.req, hub.safe.get(message.line, 0))
                    hub.promise(answer)
                if not message.segments:
                    back(msgspec.structs.replace(answer, safe=hub.safe.get(message.line, 0)))

        self._later(name, 0.001 + 0.014 * self.rng.random(), synced)

    def poll(self, node: Node, name: str, cursor: str, number: int) -> None:
        """A reader's long poll: answered at once if there is something, else when there is."""
        alive = node.alive

        def arrived() -> None:
            if self.hubs[name].up and not answer():
                self.parked[name].append(answer)

        def answer() -> bool:
            rows, after = self.hubs[name].page(cursor)
            if after == cursor:
                return False
            page = Page(cursor, rows, after)
            self.send(node, name, alive(lambda: node.read(name, page)))
            return True

        self.send(node, name, arrived)

    def feed(self, name: str) -> None:
        """Something is new: answer those who wait."""
        waiting, self.parked[name] = self.parked[name], []
        self.parked[name] += [answer for answer in waiting if not answer()]

    def find_blob(self, node: Node, digest: bytes) -> bytes | None:
        """A blob from the node's own directory, or from whichever hub has it."""
        return next((b[digest] for b in self.all_blobs(node) if digest in b), None)

    def all_blobs(self, node: Node) -> Sequence[dict[bytes, bytes]]:
        """Where a node may find a blob."""
        return [node.disk.blobs, *(hub.corpus.stored for hub in self.hubs.values())]

    # ---- what goes wrong

    def interrupt(self, name: str) -> None:
        """What a hub was doing is over."""
        self.epochs[name] += 1
        self.queues[name], self.parked[name] = [], []

    def stop_hub(self, name: str, power: bool) -> None:
        """Kill a hub's process, or its power; it comes back by itself."""
        hub = self.hubs[name]
        if not hub.up:
            return
        self.interrupt(name)
        hub.cut() if power else hub.kill()
        self.faults["hub_power_loss" if power else "hub_kill"] += 1
        self.after(0.05 + self.rng.random(), lambda: hub.restart() if not hub.up else None)

    def restore_hub(self, name: str, times: int) -> None:
        """Put a hub back to one of its two newest backups, perhaps twice in a row."""
        hub = self.hubs[name]
        if not hub.up or len(hub.backups) < 2:
            return
        for _ in range(times):
            self.interrupt(name)
            hub.restore(self.rng.randrange(2))
        self.faults["hub_restore" if times == 1 else "hub_restore_twice"] += 1

    def stop_node(self, node: Node, power: bool) -> None:
        """Kill a node's process, or its power; it comes back by itself."""
        if not node.up:
            return
        node.stop()
        self.faults["node_power_loss" if power else "node_kill"] += 1
        for log in node.disk.logs.values():
            if self.parts.store is not MemoryStore and log.entries and self.rng.random() < 0.5:
                log.unlisted.add(len(log.entries))
        if power:
            worst = max((self.time - e.at for e in node.disk.cut()), default=0.0)
            if worst > LOSS_MAX:
                self.problems.append(f"a power cut took a record {worst * 1000:.0f} ms old")
        self.after(0.05 + self.rng.random(), lambda: node.start() if not node.up else None)

    def restore_node(self, node: Node) -> None:
        """Put an old copy of the directory back, unnoticed."""
        if node.up and node.backups:
            node.stop()
            node.disk = self.rng.choice(node.backups).copy()
            self.tainted |= set(node.disk.logs)
            self.faults["node_restore"] += 1
            node.start()

    def clone_node(self, node: Node) -> None:
        """Start a copy of a directory on another machine; both run."""
        if len(self.nodes) < 5 and node.up:
            source = self.rng.choice([node.disk, *node.backups])
            self.tainted |= set(source.logs)
            self.faults["node_clone"] += 1
            self.join(Node(self, f"{node.name}c{len(self.nodes)}", source.copy()))

    def check_settled(self, log: Log, upto: int) -> None:
        """What is about to be evicted must be in every hub and in each of its two newest backups."""
        for entry in log.entries[:upto]:
            if entry.item.body:
                name = (entry.record.stream, entry.record.seq, entry.record.link)
                for hub in self.hubs.values():
                    kept = len(hub.backups) == 2 and all(name in b.rows for b in hub.backups)
                    if name not in hub.corpus.where or not kept:
                        self.problems.append(f"evicted before {hub.name} and its backups have it")
                        return


HTTP_ERRORS = (
    Failure("status", 503, "1", True),
    Failure("status", 503, "-5", False),
    Failure("status", 429, "not a date", True),
    Failure("status", 500, None, True),
    Failure("status", 507, None, True),
    Failure("status", 401, None, True),
    Failure("status", 403, None, False),
    Failure("status", 413, None, False),
    Failure("echo", 200, None, False),
)


def _is_poison(item: Any) -> bool:
    return bool(item.body) and POISON_HTTP.encode() in item.header and decode_header(item.header).kind == POISON_HTTP

"""The simulated world: time, the network, the processes, and everything that can go wrong with them.

One heap of events, one seeded source of chance: the same seed is the same history, to the byte. The product's own
`Outbox`, `Ingest` and `resume` make every decision; nothing here knows the protocol's rules.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import sha256
from random import Random
from typing import Any, TypeAlias

import msgspec

from holdfast import records
from holdfast.protocol.actions import Pull, Refresh, SendAppend, SendBlob, SendHello, Wait
from holdfast.protocol.outbox import Outbox
from holdfast.protocol.ports import Row
from holdfast.records import MORE, TOMBSTONE, VALUE, decode_header
from holdfast.testing.sim_hub import POISON, Hub
from holdfast.testing.sim_node import Disk, Entry, Log, MemoryStore, draft, evict, new_inc, verify
from holdfast.wire import Append, AppendAnswer, Hello, HelloAnswer, Pulled

START_MS = 1_767_000_000_000
SYNC_EVERY = 0.045
"""The background sync of level ADVANCED: what is older has survived every power cut."""
LOSS_MAX = 0.05
TIMEOUT = 1.5
POISON_HTTP = "poison-http"
"""A record whose whole request the hub refuses with a status, as long as its body is in it."""

Then: TypeAlias = Callable[[], None]


class Failure(msgspec.Struct, frozen=True):
    """An HTTP answer that is none of ours."""

    kind: str
    status: int | None = None
    retry_after: str | None = None
    hub_header: bool = False


class BlobStored(msgspec.Struct, frozen=True):
    """The hub has a blob now."""

    digest: bytes


class Page(msgspec.Struct, frozen=True):
    """A feed page, with the cursor it was asked for."""

    asked: str
    rows: list[Row]
    cursor: str


class Parts(msgspec.Struct, frozen=True):
    """What the world is built of: the product's parts, or ones with a protection taken out."""

    hub: type[Hub] = Hub
    outbox: type[Outbox] = Outbox
    store: type[MemoryStore] = MemoryStore
    evict_acked: bool = False


class Node:
    """A node directory and the process that runs on it."""

    def __init__(self, world: World, name: str, disk: Disk) -> None:
        self.world, self.name, self.disk = world, name, disk
        self.up = False
        self.epoch = 0
        self.offset_ms = 0
        self.backups: list[Disk] = []
        self.syncing = False
        self.rng = Random(world.rng.random())
        self.store: MemoryStore
        self.outboxes: dict[str, Outbox] = {}
        self.flights: dict[str, int] = {}
        self.asks: dict[str, int] = {}
        self.wakes: dict[str, float] = {}

    # ---- clock and watcher: what the product is handed

    def now_ms(self) -> int:
        """The wall clock, wrong as it may be."""
        return START_MS + int(self.world.time * 1000) + self.offset_ms

    def monotonic(self) -> float:
        """Simulated seconds."""
        return self.world.time

    def now(self) -> float:
        """Simulated seconds."""
        return self.world.time

    def wrote(self, entry: Entry) -> None:
        """A record came to be."""
        r = entry.record
        self.world.written[(r.stream, r.seq, r.link)] = entry
        before = self.disk.logs[r.stream].link(r.seq - 1)
        assert before is not None
        self.world.parents[(r.stream, r.seq, r.link)] = before
        if not self.syncing:
            self.syncing = True
            self.world.after(SYNC_EVERY, self.alive(self._sync))

    def forked(self, stream: bytes, how: str) -> None:
        """A log differs from what a hub has: only a restored or cloned directory may cause it."""
        self.world.faults[how] += 1
        if stream not in self.world.tainted:
            self.world.problems.append(f"{how} of a stream that was never restored or cloned")

    def _sync(self) -> None:
        self.syncing = False
        self.disk.sync()

    # ---- the process

    def alive(self, then: Then) -> Then:
        """Runs only while this process lives."""
        epoch = self.epoch

        def go() -> None:
            if self.up and self.epoch == epoch:
                then()

        return go

    def start(self) -> None:
        """The process begins, knowing only what is on disk."""
        parts = self.world.parts
        self.up, self.syncing, self.epoch = True, False, self.epoch + 1
        # Opening syncs what a killed process left: nobody else would before the next write.
        self.disk.sync()
        self.store = parts.store(self.disk, self.now_ms, self.rng, self)
        self.wakes.clear()
        for hub in self.world.hubs:
            outbox = parts.outbox(hub, self.store, clock=self, rng=self.rng, verify=verify, node=self.name)
            outbox.hello_every = 5.0
            self.outboxes[hub] = outbox
            self.pump(hub)
            self.ask(hub)
        self.world.after(self.rng.expovariate(4), self.alive(self._write_on))
        self.world.after(1.0, self.alive(self._evict_on))

    def stop(self) -> None:
        """The process is killed."""
        self.up = False
        self.epoch += 1

    # ---- writing

    def _write_on(self) -> None:
        if self.world.clean:
            return
        self.write()
        self.world.after(self.rng.expovariate(3.4), self.alive(self._write_on))

    def write(self) -> None:
        """One act of an agent: a value, a deletion, a message, a batch, a blob, or poison."""
        rng, log = self.rng, self.rng.choice(list(self.disk.logs.values()))
        chance = rng.random()
        if chance < 0.50:
            self._put(log)
        elif chance < 0.58:
            self._add(log, records.DELETE, ("m", self._key()), b"", TOMBSTONE)
        elif chance < 0.60:
            self._add(log, records.DELETE_PREFIX, ("m", "k" + str(rng.randrange(2))), b"", TOMBSTONE)
        elif chance < 0.80:
            self._add(log, records.MESSAGE, ("chat", ""), self._payload(), 0)
        elif chance < 0.88:
            self.world.faults["batch"] += 1
            for k in range(rng.randint(2, 5), 0, -1):
                self._put(log, MORE if k > 1 else 0)
        elif chance < 0.94:
            self.world.faults["blob"] += 1
            content = self._payload()
            digest = sha256(content).digest()
            self.disk.blobs[digest] = content
            reference = records.blob_reference(digest, len(content))
            self._add(log, records.PUT, ("m", self._key()), reference, VALUE | records.BLOB)
        else:
            self.world.faults["poison"] += 1
            self._add(log, POISON if chance < 0.98 else POISON_HTTP, ("chat", ""), self._payload(), 0)
        for hub in self.world.hubs:
            self.wake(hub, 0.0005)

    def _key(self) -> str:
        return f"k{self.rng.randrange(24):02d}"

    def _payload(self) -> bytes:
        self.world.uids += 1
        return b"%d:" % self.world.uids + b"x" * (self.rng.randrange(40) if self.rng.random() < 0.95 else 900)

    def _put(self, log: Log, more: int = 0) -> None:
        self._add(log, records.PUT, ("m", self._key()), self._payload(), VALUE | more)

    def _add(self, log: Log, kind: str, name: tuple[str, str], payload: bytes, flags: int) -> None:
        record, item = draft(log, kind, name, payload, flags)
        record = msgspec.structs.replace(record, hlc=log.next_hlc(self.now_ms()))
        log.add(record, item, self.world.time)
        self.wrote(log.entries[-1])

    def _evict_on(self) -> None:
        for stream, log in self.disk.logs.items():
            limits = [
                min(o.evictable(stream), len(log.entries)) if not self.world.parts.evict_acked else self.acked(o, log)
                for o in self.outboxes.values()
            ]
            upto = min(limits)
            self.world.check_settled(log, upto)
            kept = frozenset[int]().union(*(o.kept(stream) for o in self.outboxes.values()))
            self.world.faults["eviction"] += evict(log, upto, kept)
        self.world.after(1.0, self.alive(self._evict_on))

    def acked(self, outbox: Outbox, log: Log) -> int:
        """What a cache would evict that looks at acks only."""
        return len(log.entries) - outbox.status().depth[log.stream]

    # ---- shipping

    def wake(self, hub: str, delay: float) -> None:
        """Look at the outbox after a while."""
        at = self.world.time + delay
        if not self.world.time <= self.wakes.get(hub, -1.0) <= at:
            self.wakes[hub] = at
            self.world.after(delay, self.alive(lambda: self._woken(hub)))

    def _woken(self, hub: str) -> None:
        self.wakes.pop(hub, None)
        self.pump(hub)

    def pump(self, hub: str) -> None:
        """Do what the outbox wants."""
        outbox = self.outboxes[hub]
        action = outbox.next()
        while isinstance(action, Refresh):
            action = outbox.next()
        if isinstance(action, Wait):
            if action.until is not None:
                self.wake(hub, max(0.001, min(action.until - self.world.time, 60.0)))
            return
        self.world.requests += 1
        token = self.flights[hub] = self.world.requests
        if isinstance(action, SendBlob):
            content = self.world.find_blob(self, action.digest)
            if content is None:
                outbox.on_blob(action.digest, False)
                self.wake(hub, 0.0)
                return
            self.world.request(self, hub, (action, content), token)
        else:
            self.world.request(self, hub, (action, b""), token)
        self.world.after(TIMEOUT, self.alive(lambda: self._timed_out(hub, token)))

    def _timed_out(self, hub: str, token: int) -> None:
        if self.flights.get(hub) == token:
            self.flights[hub] = 0
            self.world.faults["timeout"] += 1
            self.outboxes[hub].failed("timeout")
            self.pump(hub)

    def answered(self, hub: str, token: int, answer: object) -> None:
        """An answer came in, perhaps late, twice, or for an earlier process."""
        outbox = self.outboxes[hub]
        if isinstance(answer, Failure):
            if self.flights.get(hub) != token:
                return
            outbox.failed(answer.kind, answer.status, answer.retry_after, answer.hub_header)
        elif not self._taken(outbox, answer):
            self.world.faults["stale_answer"] += 1
            return
        self.flights[hub] = 0
        self.pump(hub)

    def _taken(self, outbox: Outbox, answer: object) -> bool:
        if isinstance(answer, HelloAnswer):
            return outbox.on_hello(answer)
        if isinstance(answer, AppendAnswer):
            return outbox.on_append(answer)
        if isinstance(answer, Pulled):
            return outbox.on_pulled(answer)
        assert isinstance(answer, BlobStored)
        return outbox.on_blob(answer.digest, True)

    # ---- reading

    def ask(self, hub: str) -> None:
        """Long-poll the feed."""
        self.world.requests += 1
        number = self.asks[hub] = self.world.requests
        cursor = self.disk.readers[hub].cursor
        self.world.poll(self, hub, cursor, number)
        self.world.after(3.0, self.alive(lambda: self.ask(hub) if self.asks[hub] == number else None))

    def read(self, hub: str, page: Page) -> None:
        """Apply a page and move the cursor, in one transaction; a page from elsewhere is not for us."""
        reader = self.disk.readers[hub]
        if page.asked != reader.cursor:
            self.world.faults["stale_page"] += 1
            return
        for row in page.rows:
            name = (row.record.stream, row.record.seq, row.record.link)
            if name not in reader.seen:
                reader.seen.add(name)
                reader.applied.append(name)
        reader.cursor = page.cursor
        if not self.syncing:
            self.syncing = True
            self.world.after(SYNC_EVERY, self.alive(self._sync))
        self.ask(hub)


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

        def synced() -> None:
            hub.synced = max(hub.synced, count)
            for answer, (_, back) in zip(answers, group, strict=True):
                hub.promise(answer)
                back(answer)

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

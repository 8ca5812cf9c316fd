"""The simulator's node process: it writes, ships, evicts and reads, with the product's `Outbox` deciding."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from random import Random
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from holdfast import records
from holdfast.protocol.actions import Refresh, SendBlob, Wait
from holdfast.protocol.outbox import Outbox
from holdfast.protocol.ports import Row
from holdfast.records import MORE, TOMBSTONE, VALUE
from holdfast.testing.sim_hub import POISON, Hub
from holdfast.testing.sim_node import Disk, Entry, Log, MemoryStore, draft, evict, verify
from holdfast.wire import AppendAnswer, HelloAnswer, Pulled

if TYPE_CHECKING:
    from holdfast.testing.sim_world import World

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

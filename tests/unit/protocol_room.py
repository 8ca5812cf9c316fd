"""One node, its hubs and a perfect wire between them, in memory: for tests that look at one decision at a time."""

from __future__ import annotations

from random import Random

import msgspec

from holdfast import records
from holdfast.protocol.actions import Pull, Refresh, SendAppend, SendBlob, SendHello, Wait
from holdfast.protocol.outbox import Outbox
from holdfast.records import Record
from holdfast.testing.sim_hub import Hub
from holdfast.testing.sim_node import Disk, Entry, Log, MemoryStore, draft, new_inc, verify

NOW_MS = 1_767_000_000_000


class Room:
    """A node directory with one agent, and the outbox toward one hub."""

    def __init__(self, disk: Disk | None = None, hub: Hub | None = None, seed: int = 1) -> None:
        self.rng = Random(seed)
        self.time = 100.0
        self.hub = hub or Hub("hub0")
        self.disk = disk or Disk([self.hub.name])
        self.events: list[str] = []
        if not self.disk.logs:
            log = Log("scout", bytes(range(32)), new_inc(NOW_MS, self.rng, bytes(16)))
            self.disk.logs[log.stream] = log
        self.store = MemoryStore(self.disk, self.now_ms, self.rng, self)
        self.outbox = Outbox(self.hub.name, self.store, clock=self, rng=self.rng, verify=verify, node="node0")

    @property
    def log(self) -> Log:
        return next(iter(self.disk.logs.values()))

    @property
    def stream(self) -> bytes:
        return self.log.stream

    # ---- clock and watcher

    def now_ms(self) -> int:
        return NOW_MS + int(self.time * 1000)

    def monotonic(self) -> float:
        return self.time

    def now(self) -> float:
        return self.time

    def wrote(self, entry: Entry) -> None:
        self.events.append("merged")

    def forked(self, stream: bytes, how: str) -> None:
        self.events.append(how)

    # ---- what a test does

    def write(
        self,
        key: str = "k",
        value: bytes = b"v",
        *,
        kind: str = records.PUT,
        flags: int = records.VALUE,
        collection: str = "m",
    ) -> Record:
        self.time += 0.01
        record, item = draft(self.log, kind, (collection, key), value, flags)
        record = msgspec.structs.replace(record, hlc=self.log.next_hlc(self.now_ms()))
        return self.log.add(record, item, self.time)

    def restored(self, disk: Disk, seed: int = 2) -> Room:
        """The same hub, and a node that begins from this directory."""
        room = Room(disk, self.hub, seed)
        room.time = self.time + 10
        return room

    def step(self) -> object:
        """One action, carried out at once and faultlessly; the action."""
        action = self.outbox.next()
        hub = self.hub
        if isinstance(action, SendHello):
            assert self.outbox.on_hello(hub.hello(action.message, self.now_ms()))
        elif isinstance(action, SendAppend):
            (answer,) = hub.append([action.message])
            hub.fsync()
            assert self.outbox.on_append(msgspec.structs.replace(answer, safe=0 if answer.regen else answer.req))
        elif isinstance(action, Pull):
            page = hub.pull(action.stream, action.inc, action.first)
            assert page is not None
            assert self.outbox.on_pulled(page)
        elif isinstance(action, SendBlob):
            hub.corpus.stored[action.digest] = self.disk.blobs[action.digest]
            assert self.outbox.on_blob(action.digest, True)
        return action

    def settle(self) -> list[object]:
        """Step until there is nothing to do; the actions."""
        done: list[object] = []
        while not isinstance(action := self.step(), Wait | Refresh):
            done.append(action)
            assert len(done) < 100, "the outbox and the hub never come to rest"
        return done

    def values_on_hub(self) -> list[tuple[int, str]]:
        return [(row.record.seq, row.record.key) for row, _ in self.hub.corpus.rows]

    def value(self, key: str) -> bytes | None:
        found = self.log.newest("m", key)
        return None if found is None else self.log.entries[found.seq - 1].item.body

"""The simulator's node: a directory with real crash semantics, the process that writes, ships and reads.

What a process kill leaves and what a power cut leaves are different things, and both are exact here: a log keeps
what was committed, and how much of that was synced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from random import Random
from typing import Protocol

import msgspec

from holdfast import records
from holdfast.clock import tick
from holdfast.protocol import merge as merging
from holdfast.protocol.ports import Position, StreamInfo
from holdfast.records import ZERO16, ZERO32, Record
from holdfast.wire import EVICTED, HERE, Item, Mark, Rejected


def sign(key: bytes, message: bytes) -> bytes:
    """A cheap stand-in for Ed25519: in here the public key is the key."""
    return blake2b(message, key=key, digest_size=16).digest()


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `sign` made it."""
    return sign(public_key, message) == signature


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One committed record: what it says, how it travels, when it was written."""

    record: Record
    item: Item
    at: float


class Log:
    """One agent's file: a chain, the newest value of each key, and how much of it would survive a power cut."""

    def __init__(self, agent: str, key: bytes, inc: bytes) -> None:
        self.agent, self.key, self.inc = agent, key, inc
        self.stream = records.stream_id(key, agent)
        self.base = self.genesis = Mark(0, records.genesis(self.stream))
        self.entries: list[Entry] = []
        self.synced = 0
        self.values: dict[tuple[str, str], Record] = {}
        self.scopes: list[Record] = []
        self.unlisted: set[int] = set()
        """Only without the atomic outbox: records whose outbox row was lost."""

    def copy(self) -> Log:
        """The file as a backup would have it."""
        twin = Log(self.agent, self.key, self.inc)
        twin.base, twin.entries = self.base, list(self.entries)
        twin.synced = len(twin.entries)
        twin.values, twin.scopes = dict(self.values), list(self.scopes)
        twin.unlisted = set(self.unlisted)
        return twin

    @property
    def head(self) -> Mark:
        """The newest committed record."""
        if not self.entries:
            return self.genesis
        last = self.entries[-1].record
        return Mark(last.seq, last.link)

    def link(self, seq: int) -> bytes | None:
        """The link at a number."""
        if seq == 0:
            return self.genesis.link
        return self.entries[seq - 1].record.link if seq <= len(self.entries) else None

    def next_hlc(self, now_ms: int, *others: int) -> int:
        """A stamp above the log's own and these."""
        return tick(max([self.entries[-1].record.hlc if self.entries else 0, *others]), now_ms)

    def add(self, record: Record, item: Item, at: float) -> Record:
        """Append a record: its number, link and header follow from the log."""
        header = records.encode_header(record)
        record = msgspec.structs.replace(record, link=records.next_link(self.head.link, header))
        self.take(record, msgspec.structs.replace(item, header=header), at)
        return record

    def take(self, record: Record, item: Item, at: float) -> None:
        """Append a record that is complete."""
        self.entries.append(Entry(record, item, at))
        self._note(record)

    def _note(self, record: Record) -> None:
        if record.kind == records.DELETE_PREFIX:
            self.scopes.append(record)
        elif record.is_value:
            self.values[(record.collection, record.key)] = record

    def newest(self, collection: str, key: str) -> Record | None:
        """What this chain says of a key."""
        found = self.values.get((collection, key))
        for scope in self.scopes:
            covers = scope.collection == collection and key.startswith(scope.key)
            if covers and (found is None or merging.order(scope) > merging.order(found)):
                found = scope
        return found

    def under(self, collection: str, prefix: str) -> Iterable[str]:
        """The keys that start so and have a value."""
        for at in [a for a in self.values if a[0] == collection and a[1].startswith(prefix)]:
            newest = self.newest(*at)
            if newest and not newest.flags & records.TOMBSTONE:
                yield at[1]

    def cut(self) -> list[Entry]:
        """The power goes: what was not synced is gone; returns it."""
        lost = self.entries[self.synced :]
        if lost:
            del self.entries[self.synced :]
            self.values, self.scopes = {}, []
            for entry in self.entries:
                self._note(entry.record)
        self.unlisted = {seq for seq in self.unlisted if seq <= len(self.entries)}
        return lost


class Reader:
    """A subscriber's file on one hub: its cursor and what it applied, always in one transaction."""

    def __init__(self) -> None:
        self.cursor = "0"
        self.applied: list[tuple[bytes, int, bytes]] = []
        self.seen: set[tuple[bytes, int, bytes]] = set()
        self.synced = ("0", 0)

    def copy(self) -> Reader:
        """The file as a backup would have it."""
        twin = Reader()
        twin.cursor, twin.applied, twin.seen = self.cursor, list(self.applied), set(self.seen)
        twin.sync()
        return twin

    def sync(self) -> None:
        """Let it survive a power cut."""
        self.synced = (self.cursor, len(self.applied))

    def cut(self) -> None:
        """The power goes."""
        self.cursor, count = self.synced
        del self.applied[count:]
        self.seen = set(self.applied)


class Disk:
    """A node directory."""

    def __init__(self, hubs: Sequence[str]) -> None:
        self.logs: dict[bytes, Log] = {}
        self.positions: dict[str, dict[bytes, Position]] = {hub: {} for hub in hubs}
        self.refused: dict[str, dict[bytes, dict[int, bytes]]] = {hub: {} for hub in hubs}
        self.weighed: dict[bytes, dict[tuple[bytes, Mark], tuple[Mark, list[merging.Scope]]]] = {}
        self.blobs: dict[bytes, bytes] = {}
        self.readers = {hub: Reader() for hub in hubs}
        self.sync()

    def copy(self) -> Disk:
        """The directory as a backup would have it."""
        twin = Disk(list(self.readers))
        twin.logs = {s: log.copy() for s, log in self.logs.items()}
        twin.positions, twin.refused = self._cursors()
        twin.weighed = {s: dict(w) for s, w in self.weighed.items()}
        twin.blobs = dict(self.blobs)
        twin.readers = {hub: reader.copy() for hub, reader in self.readers.items()}
        twin.sync()
        return twin

    def _cursors(self) -> tuple[dict[str, dict[bytes, Position]], dict[str, dict[bytes, dict[int, bytes]]]]:
        return (
            {hub: dict(p) for hub, p in self.positions.items()},
            {hub: {s: dict(m) for s, m in r.items()} for hub, r in self.refused.items()},
        )

    def sync(self) -> None:
        """Let everything survive a power cut."""
        for log in self.logs.values():
            log.synced = len(log.entries)
        for reader in self.readers.values():
            reader.sync()
        self._saved = self._cursors()

    def cut(self) -> list[Entry]:
        """The power goes; returns the records that went with it."""
        self.positions, self.refused = self._saved
        self._saved = self._cursors()
        for reader in self.readers.values():
            reader.cut()
        return [entry for log in self.logs.values() for entry in log.cut()]


class Watcher(Protocol):
    """Who wants to know what happens to logs."""

    def wrote(self, entry: Entry) -> None:
        """A record was appended that did not exist before."""
        ...

    def forked(self, stream: bytes, how: str) -> None:
        """A log was found to differ from what a hub has."""
        ...

    def now(self) -> float:
        """Simulated seconds."""
        ...


class MemoryStore:
    """An `OutboxStore` over a `Disk`.

    Args:
        disk: the directory.
        now_ms: the node's wall clock.
        rng: for incarnation names.
        watcher: hears of appends and forks.
    """

    def __init__(self, disk: Disk, now_ms: Callable[[], int], rng: Random, watcher: Watcher) -> None:
        self.disk, self._now_ms, self._rng, self._watcher = disk, now_ms, rng, watcher

    def streams(self) -> Sequence[StreamInfo]:
        """Every stream of this directory."""
        return [
            StreamInfo(log.stream, log.agent, log.key, log.key, log.inc, log.base, log.genesis, log.head)
            for log in self.disk.logs.values()
        ]

    def sync(self, streams: Sequence[bytes]) -> Mapping[bytes, Mark]:
        """Make what is committed survive a power cut."""
        for stream in streams:
            log = self.disk.logs[stream]
            log.synced = len(log.entries)
        return {stream: self.disk.logs[stream].head for stream in streams}

    def links(self, stream: bytes, seqs: Sequence[int]) -> Mapping[int, bytes]:
        """The links at these numbers."""
        log = self.disk.logs[stream]
        return {seq: link for seq in seqs if (link := log.link(seq)) is not None}

    def read(self, stream: bytes, first: int, last: int, records: int, size: int) -> Sequence[Item]:
        """The records from `first` on."""
        found: list[Item] = []
        for entry in self.disk.logs[stream].entries[first - 1 : min(last, first - 1 + records)]:
            size -= len(entry.item.body or b"")
            if found and size < 0:
                break
            found.append(entry.item)
        return found

    def sign(self, stream: bytes, mark: Mark) -> bytes:
        """The signature over the head message of this mark."""
        return sign(self.disk.logs[stream].key, records.head_message(stream, mark.seq, mark.link))

    def positions(self, hub: str) -> Mapping[bytes, Position]:
        """What `keep` kept."""
        return self.disk.positions[hub]

    def keep(self, hub: str, positions: Mapping[bytes, Position]) -> None:
        """Remember how far this hub has these streams."""
        self.disk.positions[hub].update(positions)

    def quarantined(self, hub: str) -> Mapping[bytes, Sequence[int]]:
        """The records whose bodies this hub refused, as far as they are in the log."""
        logs = self.disk.logs
        refused = self.disk.refused[hub].items()
        return {s: [seq for seq, link in marks.items() if logs[s].link(seq) == link] for s, marks in refused}

    def quarantine(self, hub: str, stream: bytes, refused: Sequence[Rejected]) -> None:
        """Keep these bodies here."""
        log = self.disk.logs[stream]
        marks = self.disk.refused[hub].setdefault(stream, {})
        marks.update({r.seq: link for r in refused if (link := log.link(r.seq))})

    def mint(self, stream: bytes, base: Mark, above: bytes) -> bytes:
        """Begin a new incarnation."""
        log = self.disk.logs[stream]
        log.inc, log.base = new_inc(self._now_ms(), self._rng, max(above, log.inc)), base
        self._watcher.forked(stream, "fork")
        return log.inc

    def fast_forward(self, stream: bytes, expected: Mark, items: Sequence[Item], inc: bytes) -> bool:
        """Take back records that this node had lost."""
        log = self.disk.logs[stream]
        if log.head != expected:
            return False
        for record, item in merging.linked(expected, items):
            log.take(record, item, self._watcher.now())
        log.inc, log.synced = inc, len(log.entries)
        self._watcher.forked(stream, "fast_forward")
        return True

    def weighed(self, stream: bytes) -> Sequence[tuple[bytes, Mark]]:
        """The other branches that were merged already."""
        log = self.disk.logs[stream]
        done = self.disk.weighed.get(stream, {}).items()
        return [theirs for theirs, (mine, _) in done if log.link(mine.seq) == mine.link]

    def merge(self, stream: bytes, inc: bytes, before: Mark, items: Sequence[Item]) -> int:
        """Take over the keyed values that are newer on another branch."""
        log = self.disk.logs[stream]
        theirs = merging.linked(before, items)
        head = Mark(theirs[-1][0].seq, theirs[-1][0].link)
        known = self.disk.weighed.setdefault(stream, {})
        valid = [s for mine, s in known.values() if log.link(mine.seq) == mine.link]
        won = merging.weigh(theirs, log.newest, log.under, [scope for scopes in valid for scope in scopes])
        if won:
            self._watcher.forked(stream, "merge")
            hlc = log.next_hlc(self._now_ms(), won[-1].source.hlc)
            for record, item in merging.appendix(won, log.head, hlc, (inc, head), lambda _c, _k: 0):
                self._watcher.wrote(self._added(log, record, item))
        past = known.pop((inc, before))[1] if (inc, before) in self.weighed(stream) else []
        known[(inc, head)] = (log.head, [*past, *merging.scopes(theirs)])
        return len(won)

    def _added(self, log: Log, record: Record, item: Item) -> Entry:
        log.add(record, item, self._watcher.now())
        return log.entries[-1]


class SplitStore(MemoryStore):
    """Without the atomic outbox: what is to be sent stands in a second file, which a crash may leave behind."""

    def read(self, stream: bytes, first: int, last: int, records: int, size: int) -> Sequence[Item]:
        """The records from `first` on that the outbox file lists."""
        unlisted = self.disk.logs[stream].unlisted
        found = super().read(stream, first, last, records, size)
        return [item for seq, item in enumerate(found, first) if seq not in unlisted]


def new_inc(now_ms: int, rng: Random, above: bytes) -> bytes:
    """A fresh incarnation: by time, and above this one whatever the clock says."""
    millis = max(now_ms, int.from_bytes(above[:6], "big") + 1)
    return millis.to_bytes(6, "big") + rng.randbytes(10)


def draft(log: Log, kind: str, name: tuple[str, str], payload: bytes, flags: int) -> tuple[Record, Item]:
    """A record to append to a log (its number and stamp are set there)."""
    before = log.newest(*name) if name[1] else None
    record = Record(
        stream=log.stream,
        fmt=0,
        flags=flags,
        seq=log.head.seq + 1,
        hlc=0,
        base=before.link if before else ZERO32,
        key_version=0,
        payload_len=len(payload),
        kind=kind,
        author="",
        collection=name[0],
        key=name[1],
        kid=ZERO16,
        payload_hash=records.payload_hash(b"", payload),
    )
    return record, Item(b"", b"", 0, payload, HERE)


def evict(log: Log, upto: int, kept: frozenset[int]) -> int:
    """Let bodies go up to a number, but these; how many went."""
    count = 0
    for at in range(min(upto, len(log.entries))):
        entry = log.entries[at]
        if entry.item.body and at + 1 not in kept:
            item = msgspec.structs.replace(entry.item, body=None, why=EVICTED)
            log.entries[at] = Entry(entry.record, item, entry.at)
            count += 1
    return count

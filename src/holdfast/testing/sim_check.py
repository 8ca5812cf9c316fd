"""The simulator's checker: what must be true of every history, after the faults have stopped and all is quiet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from holdfast import records
from holdfast.protocol import merge as merging
from holdfast.records import Record
from holdfast.testing.sim_hub import Hub, Where
from holdfast.testing.sim_node import Log
from holdfast.testing.sim_process import Node
from holdfast.testing.sim_world import World
from holdfast.wire import QUARANTINED, Cursor


class Findings:
    """What is wrong, counted by kind, each with a sentence."""

    def __init__(self) -> None:
        self.lost = self.duplicated = self.disordered = self.stuck = self.missed = self.vanished = 0
        self.sentences: list[str] = []

    def say(self, sentence: str) -> int:
        """Note it; 1."""
        if len(self.sentences) < 20:
            self.sentences.append(sentence)
        return 1


def check(world: World) -> Findings:
    """Look at everything there is."""
    found = Findings()
    for node in world.nodes:
        for log in node.disk.logs.values():
            _chain(found, f"{node.name}'s log", log.genesis.link, (e.record for e in log.entries))
        _stuck(found, node)
    for hub in world.hubs.values():
        _branches(found, hub)
        _once(found, world, hub)
        _kept(found, world, hub)
        for node in world.nodes:
            _read(found, world, node, hub)
            for log in node.disk.logs.values():
                _values(found, log, hub)
    _bodies(found, world)
    for problem in world.problems:
        found.say(problem)
    return found


def _chain(found: Findings, where: str, link: bytes, chain: Iterable[Record]) -> None:
    for record in chain:
        link = records.next_link(link, records.encode_header(record))
        if link != record.link:
            found.disordered += found.say(f"{where} breaks at {record.seq}")
            return


def _stuck(found: Findings, node: Node) -> None:
    for name, outbox in node.outboxes.items():
        status = outbox.status()
        if any(status.depth.values()) or status.state != "in_sync":
            found.stuck += found.say(f"{node.name} to {name}: {status.state}, {sum(status.depth.values())} waiting")


def _branches(found: Findings, hub: Hub) -> None:
    """Every branch is gapless and its chain follows from its parent's; positions never name two generations."""
    corpus = hub.corpus
    for runs in corpus.branches.values():
        for branch in runs.values():
            rows = [corpus.index.get((branch.id, seq)) for seq in range(branch.base.seq + 1, branch.tip.seq + 1)]
            if not all(rows):
                found.disordered += found.say(f"{hub.name}: a branch has a gap")
                continue
            _chain(found, hub.name, branch.base.link, (row.record for row in rows if row))
    if any(row.record.seq > 1 and row.record.seq not in corpus.at[row.record.stream] for row, _ in corpus.rows):
        found.disordered += found.say(f"{hub.name}: a row is not indexed")
    firsts = [first for _, first in hub.lineage]
    if firsts != sorted(firsts) or firsts[-1] > hub.head:
        found.disordered += found.say(f"{hub.name}: the lineage runs backwards")


def _names(hub: Hub) -> Iterator[Where]:
    for row, _ in hub.corpus.rows:
        yield row.record.stream, row.record.seq, row.record.link


def _once(found: Findings, world: World, hub: Hub) -> None:
    names = list(_names(hub))
    if len(names) != len(set(names)):
        found.duplicated += len(names) - len(set(names))
        found.say(f"{hub.name}: {len(names) - len(set(names))} records are in the log twice")
    strange = sum(name not in world.written for name in set(names))
    if strange:
        found.disordered += found.say(f"{hub.name}: {strange} records that nobody wrote")


def _kept(found: Findings, world: World, hub: Hub) -> None:
    """What lives on a node, and what was acknowledged and not rolled back, is in the hub's log."""
    names = set(_names(hub))
    for node in world.nodes:
        for log in node.disk.logs.values():
            lost = [e.record.seq for e in log.entries if (log.stream, e.record.seq, e.record.link) not in names]
            if lost:
                found.lost += len(lost)
                found.say(f"{hub.name} lacks {len(lost)} records of {node.name}, the first is {lost[0]}")
    broken = len(hub.promised - names)
    if broken:
        found.lost += broken
        found.say(f"{hub.name} lacks {broken} records that it acknowledged")


def _read(found: Findings, world: World, node: Node, hub: Hub) -> None:
    reader = node.disk.readers[hub.name]
    missed = len(set(_names(hub)) - reader.seen)
    if missed:
        found.missed += missed
        found.say(f"{node.name} missed {missed} records of {hub.name}'s feed")
    if len(reader.applied) != len(reader.seen):
        found.duplicated += found.say(f"{node.name} applied a record twice")
    if Cursor.parse(reader.cursor).pos != hub.head:
        found.stuck += found.say(f"{node.name} reads {hub.name} at {reader.cursor}, the head is {hub.head}")
    done: set[Where] = set()
    for stream, seq, link in reader.applied:
        entry = world.written.get((stream, seq, link))
        if entry and seq > 1:
            before = world.parents.get((stream, seq, link))
            if before is not None and (stream, seq - 1, before) not in done:
                found.disordered += found.say(f"{node.name} read record {seq} of {hub.name} before its predecessor")
                return
        done.add((stream, seq, link))


def _values(found: Findings, log: Log, hub: Hub) -> None:
    """The newest value of every key is the same here and on the hub, whatever branches there were."""
    newest: dict[tuple[str, str], Record] = {}
    scopes: list[Record] = []
    for row, _ in hub.corpus.rows:
        record = row.record
        if record.stream != log.stream or not record.is_value:
            continue
        if record.kind == records.DELETE_PREFIX:
            scopes.append(record)
            continue
        at = (record.collection, record.key)
        if at not in newest or merging.order(record) > merging.order(newest[at]):
            newest[at] = record
    for at, record in newest.items():
        for scope in scopes:
            if scope.collection == at[0] and at[1].startswith(scope.key):
                record = max(record, scope, key=merging.order)
        here = log.newest(*at)
        gone = record.flags & records.TOMBSTONE
        if here is None or here.flags & records.TOMBSTONE != gone:
            found.vanished += (
                0 if here is None and gone else found.say(f"{at} differs from {hub.name}: gone on one side")
            )
        elif not gone and here.payload_hash != record.payload_hash:
            found.vanished += found.say(f"{at} differs from {hub.name}: {here.seq} here, {record.seq} there")


def _bodies(found: Findings, world: World) -> None:
    """A body that is missing is somewhere: evicted ones in a hub, quarantined ones on a node."""
    bodies = {
        (r.record.stream, r.record.seq, r.record.link)
        for hub in world.hubs.values()
        for r, _ in hub.corpus.rows
        if r.item.body is not None
    }
    for node in world.nodes:
        for log in node.disk.logs.values():
            for entry in log.entries:
                name = (log.stream, entry.record.seq, entry.record.link)
                missing = entry.item.body is None and entry.item.why != QUARANTINED
                if missing and name not in bodies:
                    found.lost += found.say(f"the body of {node.name}'s record {entry.record.seq} is nowhere")

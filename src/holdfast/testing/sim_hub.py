"""The simulator's hub: a corpus with real crash semantics behind `holdfast.protocol.ingest`.

It does what the real one must: commit without waiting for the disk, show rows in the feed at once, fsync the group,
then release the answers; and begin a new generation after every unclean start and every restore.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

from holdfast import records
from holdfast.protocol import branches as tree
from holdfast.protocol.ingest import Held, Identity, Ingest, hello
from holdfast.protocol.ports import Branch, Label, NewStream, Plan, Row, Span, StreamFacts
from holdfast.records import Record
from holdfast.testing.sim_node import verify
from holdfast.wire import (
    REDACTED,
    Append,
    AppendAnswer,
    Cursor,
    Hello,
    HelloAnswer,
    Mark,
    Pulled,
    resume,
)

PAGE = 60
POISON = "poison"

Where: TypeAlias = tuple[bytes, int, bytes]
"""(stream, seq, link): the name of a record everywhere."""
Lineage: TypeAlias = list[tuple[str, int]]


class Backup(msgspec.Struct, frozen=True):
    """A verified backup: everything that was written up to a moment."""

    journal: list[Plan]
    lineage: Lineage
    blobs: dict[bytes, bytes]
    rows: frozenset[Where]


class SimIngest(Ingest):
    """The product's ingest, on a hub that will not keep some payloads."""

    def reject(self, record: Record, payload: bytes) -> tuple[str, str] | None:
        """Poison is refused by its content."""
        return ("policy", "this hub keeps no poison") if record.kind == POISON else None


class Corpus:
    """An `IngestStore` in memory, rebuilt from a journal of plans."""

    def __init__(self) -> None:
        self.names: dict[bytes, NewStream] = {}
        self.branches: dict[bytes, dict[int, Branch]] = {}
        self.labels: dict[bytes, dict[bytes, Label]] = {}
        self.rows: list[tuple[Row, int]] = []
        """In commit order, each with the real id of its branch."""
        self.where: Held = {}
        self.at: dict[bytes, dict[int, list[tuple[bytes, int]]]] = {}
        self.index: dict[tuple[int, int], Row] = {}
        self.stored: dict[bytes, bytes] = {}
        self.bare: dict[bytes, list[tuple[int, int]]] = {}
        self._ids = 0

    def apply(self, plan: Plan) -> None:
        """Write what one group commit decided."""
        for new in plan.streams:
            self.names[new.stream] = new
            self.branches[new.stream], self.labels[new.stream], self.at[new.stream] = {}, {}, {}
        real: dict[int, int] = {}
        for branch in plan.branches.values():
            self._ids += 1
            real[branch.id] = self._ids
            parent = real.get(branch.parent, branch.parent) if branch.parent is not None else None
            born = msgspec.structs.replace(branch, id=self._ids, parent=parent, tip=branch.base)
            self.branches[branch.stream][self._ids] = born
        for row in plan.rows:
            r, number = row.record, real.get(row.branch, row.branch)
            self.rows.append((row, number))
            self.where[(r.stream, r.seq, r.link)] = number
            self.at[r.stream].setdefault(r.seq, []).append((r.link, number))
            self.index[(number, r.seq)] = row
            if row.item.body is None and row.item.why != REDACTED:
                self.bare.setdefault(r.stream, []).append((number, r.seq))
            branch = self.branches[r.stream][number]
            self.branches[r.stream][number] = msgspec.structs.replace(branch, tip=Mark(r.seq, r.link))
        for (stream, inc), label in plan.labels.items():
            number = real.get(label.branch, label.branch)
            self.labels[stream][inc] = msgspec.structs.replace(label, branch=number)

    def settle(self, backups: Sequence[frozenset[Where]]) -> None:
        """Recompute what the newest backups hold of every branch."""
        for stream, runs in self.branches.items():
            for branch in runs.values():
                seq = branch.tip.seq
                while seq > branch.base.seq:
                    row = self.index[(branch.id, seq)]
                    if len(backups) >= 2 and all((stream, seq, row.record.link) in b for b in backups):
                        break
                    seq -= 1
                value = seq if seq > branch.base.seq else 0
                runs[branch.id] = msgspec.structs.replace(branch, settled=value)

    # ---- IngestStore

    def streams(self, ids: Sequence[bytes]) -> Mapping[bytes, StreamFacts]:
        """What the hub knows of these streams."""
        return {s: self.facts(s) for s in ids if s in self.names}

    def facts(self, stream: bytes) -> StreamFacts:
        """What the hub knows of one stream."""
        name = self.names[stream]
        key = name.public_key
        return StreamFacts(stream, name.agent, key, key, self.branches[stream], self.labels[stream])

    def held(self, spans: Sequence[Span]) -> Held:
        """Every row in these spans."""
        found: Held = {}
        for stream, first, last, _ in ((s.stream, s.first, s.last, 0) for s in spans):
            numbers = self.at.get(stream, {})
            for seq in range(first, last + 1):
                for link, branch in numbers.get(seq, ()):
                    found[(stream, seq, link)] = branch
        return found

    def blobs(self, digests: Sequence[bytes]) -> set[bytes]:
        """Which of these blobs are here."""
        return {d for d in digests if d in self.stored}

    def envelopes(self, ids: Sequence[bytes]) -> Mapping[bytes, Sequence[tuple[int, int]]]:
        """The rows of these streams held without a body."""
        return {s: self.bare[s] for s in ids if s in self.bare}


class Hub:
    """One hub: what is on its disk (and how much of it is synced), and what it would say.

    Args:
        name: the hub's name.
    """

    ingest: type[Ingest] = SimIngest

    def __init__(self, name: str) -> None:
        self.name = name
        self.up = True
        self.journal: list[Plan] = []
        self.synced = 0
        self.corpus = Corpus()
        self.lineage: Lineage = [(f"{name}x0", 0)]
        self.births = 0
        self.backups: list[Backup] = []
        self.promised: set[Where] = set()
        self.safe: dict[bytes, int] = {}
        """The newest request of each line that the disk has; a process's memory."""
        self.hidden: set[int] = set()
        """Only without commit order: positions taken by transactions that are not committed yet."""

    @property
    def gen(self) -> str:
        """The generation now."""
        return self.lineage[-1][0]

    @property
    def head(self) -> int:
        """The newest position."""
        return len(self.corpus.rows)

    # ---- what it says

    def append(self, requests: Sequence[Append]) -> list[AppendAnswer]:
        """Commit one group; the answers are to be released after `fsync`."""
        ingest = self.ingest(self.corpus, gen=self.gen, verify=verify)
        answers = ingest.append(requests)
        if ingest.plan != Plan():
            self.journal.append(ingest.plan)
            self.corpus.apply(ingest.plan)
        return answers

    def fsync(self) -> None:
        """What is committed survives a power cut from here on."""
        self.synced = len(self.journal)

    def promise(self, answer: AppendAnswer) -> None:
        """An ack leaves: what it names must never be missing again (but for a restore)."""
        for verdict in answer.verdicts:
            if verdict.state == "ack":
                self.promised.add((verdict.stream, verdict.at.seq, verdict.at.link))

    def hello(self, message: Hello, now_ms: int) -> HelloAnswer:
        """Where everything stands."""
        return hello(self.corpus, Identity(self.name, self.gen, list(self.lineage)), message, now_ms)

    def pull(self, stream: bytes, inc: bytes, first: int) -> Pulled | None:
        """A page of a branch; None: no such branch (any more)."""
        label = self.corpus.labels.get(stream, {}).get(inc)
        if label is None or not 0 < first <= label.head.seq:
            return None
        found = []
        for span in tree.spans(self.corpus.facts(stream), inc, first):
            found += [self.corpus.index[(span.branch, seq)] for seq in range(span.first, span.last + 1)]
        page = found[:PAGE]
        before = self._before(stream, label, first)
        items = [row.item for row in page]
        return Pulled(stream, inc, first, before, items, len(found) > PAGE, b"", label.signature, label.head)

    def _before(self, stream: bytes, label: Label, first: int) -> bytes:
        if first == 1:
            return records.genesis(stream)
        for run, last in tree.runs(self.corpus.branches[stream], label.branch, label.head.seq):
            if run.base.seq < first - 1 <= last:
                return self.corpus.index[(run.id, first - 1)].record.link
        raise AssertionError("a chain with a hole")

    def page(self, text: str) -> tuple[list[Row], str]:
        """What the feed has behind a cursor, and the cursor behind that."""
        after = self.start(Cursor.parse(text))
        seen = [(at, row) for at, (row, _) in enumerate(self.corpus.rows[after : after + PAGE], after + 1)]
        seen = [(at, row) for at, row in seen if at not in self.hidden]
        last = seen[-1][0] if seen else after
        return [row for _, row in seen], str(Cursor(last, tuple(self.lineage)))

    def start(self, cursor: Cursor) -> int:
        """The position to read on from."""
        return resume(cursor, self.lineage, self.head)

    # ---- what happens to it

    def take_backup(self) -> None:
        """A verified backup of what is synced."""
        count = sum(len(plan.rows) for plan in self.journal[: self.synced])
        records = (row.record for row, _ in self.corpus.rows[:count])
        names = frozenset((r.stream, r.seq, r.link) for r in records)
        self.backups.append(Backup(self.journal[: self.synced], list(self.lineage), dict(self.corpus.stored), names))
        del self.backups[:-2]
        self._resettle()

    def _resettle(self) -> None:
        self.corpus.settle([b.rows for b in self.backups])

    def kill(self) -> None:
        """The process dies; the disk keeps what was committed."""
        self.up = False

    def cut(self) -> None:
        """The power goes; what was not synced is gone."""
        self.up = False
        self._reset(self.journal[: self.synced], self.corpus.stored)

    def restart(self) -> None:
        """Up again, uncleanly: positions that were shown may be gone, so they must never be used again unseen."""
        self.up = True
        self.safe = {}
        self.hidden.clear()
        self.synced = len(self.journal)
        self.begin()

    def begin(self) -> None:
        """A new generation begins behind the newest position."""
        self.births += 1
        self.lineage.append((f"{self.name}x{self.births}", self.head))

    def restore(self, which: int) -> None:
        """Back to one of the two newest backups (0: the older)."""
        backup = self.backups[which]
        self.lineage = list(backup.lineage)
        self._reset(list(backup.journal), dict(backup.blobs))
        self.promised &= set(self.corpus.where)
        self.restart()

    def _reset(self, journal: list[Plan], blobs: dict[bytes, bytes]) -> None:
        self.journal = journal
        self.corpus = replay(journal, blobs)
        self._resettle()


def replay(journal: Sequence[Plan], blobs: dict[bytes, bytes]) -> Corpus:
    """The corpus that these plans make."""
    corpus = Corpus()
    corpus.stored = blobs
    for plan in journal:
        corpus.apply(plan)
    return corpus

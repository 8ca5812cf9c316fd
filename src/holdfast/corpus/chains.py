"""Streams, branches and labels in a hub's file: what ingest asks and writes, and the chains that readers prove by.

Everything works over one open transaction (`Chains.write` too) or one read snapshot; nothing here decides. The tree of
branches is `holdfast.protocol.branches`' business, the verdicts are `holdfast.protocol.ingest`'s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from msgspec.structs import replace

from holdfast.corpus.rows import COLUMNS, Stored, unbind
from holdfast.corpus.scribe import Scribe, Tags
from holdfast.corpus.transaction import SqlTransaction
from holdfast.errors import NotFound
from holdfast.protocol import branches as tree
from holdfast.protocol.ports import Branch, Label, Plan, Span, StreamFacts
from holdfast.records import MORE, encode_header, genesis
from holdfast.wire import RECORDS_MAX, SEGMENT_BYTES_MAX, Item, Mark, Proof, Pulled, Rotation

Execute = Callable[..., Any]
"""Runs one statement inside the transaction or snapshot: ``execute(sql, values)`` gives a cursor."""
Memo = dict[bytes, tuple[int, StreamFacts]]
"""A stream -> its number in the file, and what is known of it."""

MEMO_MAX: Final = 1_000
MEMO_LABELS_MAX: Final = 16
SIGNED_EVERY: Final = 32
"""A signed head is kept for each so many records of a branch: the length of an old record's proof."""
ROWS_STEP: Final = 256
STREAMS_STEP: Final = 100
ALL: Final = 1 << 62

_STREAM: Final = (
    "SELECT id, stream, (SELECT s FROM name WHERE name.id=agent), public_key, current_key, own FROM stream WHERE stream"
)
_BRANCHES: Final = "SELECT stream, id, inc, parent, base_seq, base_link, seq, link, settled FROM branch WHERE stream"
_LABELS: Final = "SELECT stream, inc, branch, seq, link, signature FROM label WHERE stream"


class Blobs(Protocol):
    """Where payloads above the inline limit are."""

    def missing(self, digests: Iterable[bytes]) -> list[bytes]:
        """Those that are not here."""
        ...


class Chains:
    """The hub's tree of branches, as `protocol.ports.IngestStore` asks for it.

    Args:
        execute: of the open transaction, or of a connection inside ``BEGIN``.
        blobs: says which digests' bytes are not here and fsynced.
        settle_acked: whether the hub alone settles what it has acknowledged (there are no backups to wait for).
        memo: what earlier transactions of the only writer learnt; its owner empties it when one is undone.
        own_key: the hub's: streams under it are its own, also when another hub brings them back.
    """

    def __init__(
        self,
        execute: Execute,
        *,
        blobs: Blobs,
        settle_acked: bool = False,
        memo: Memo | None = None,
        own_key: bytes = b"",
    ) -> None:
        self._execute = self.execute = execute
        self._blobs = blobs
        self._settle_acked = settle_acked
        self._own_key = own_key
        self._memo: Memo = {} if memo is None else memo
        self._numbers: dict[bytes, int] = {}
        self._agents: dict[bytes, str] = {}
        self._names: dict[int, str] = {}
        self._owners: dict[int, bytes] = {}

    # -- what ingest asks -----------------------------------------------------------------------------------------

    def streams(self, ids: Sequence[bytes]) -> Mapping[bytes, StreamFacts]:
        """What the hub knows of these streams."""
        found, cold = {}, []
        for stream in ids:
            known = self._memo.get(stream)
            if known is None:
                cold.append(stream)
                continue
            self._numbers[stream], found[stream] = known
            self._agents[stream] = known[1].agent
        for first in range(0, len(cold), STREAMS_STEP):
            found |= self._look_up(cold[first : first + STREAMS_STEP])
        return found

    def _look_up(self, ids: Sequence[bytes]) -> dict[bytes, StreamFacts]:
        """The same from the tables, in three questions however many they are."""
        rows = self._execute(f"{_STREAM} IN ({_marks(ids)})", ids).fetchall()
        numbers = [row[0] for row in rows]
        branches: dict[int, dict[int, Branch]] = {number: {} for number in numbers}
        labels: dict[int, dict[bytes, Label]] = {number: {} for number in numbers}
        streams = {row[0]: row[1] for row in rows}
        if rows:
            for number, i, inc, parent, base, base_link, seq, link, settled in self._execute(
                f"{_BRANCHES} IN ({_marks(numbers)})", numbers
            ):
                upto = ALL if self._settle_acked else settled
                tip = Mark(seq, link)
                branches[number][i] = Branch(i, streams[number], inc, parent, Mark(base, base_link), tip, upto)
            for number, inc, branch, seq, link, signature in self._execute(
                f"{_LABELS} IN ({_marks(numbers)})", numbers
            ):
                labels[number][inc] = Label(inc, branch, Mark(seq, link), signature)
        found = {}
        for number, stream, agent, public_key, key, own in rows:
            self._numbers[stream], self._agents[stream] = number, agent
            found[stream] = StreamFacts(stream, agent, public_key, key, branches[number], labels[number])
            if not own and len(labels[number]) <= MEMO_LABELS_MAX:  # the hub's own streams are written past this
                if len(self._memo) >= MEMO_MAX:
                    self._memo.clear()
                self._memo[stream] = number, found[stream]
        return found

    def held(self, spans: Sequence[Span]) -> Mapping[tuple[bytes, int, bytes], int]:
        """Every row in these spans of whatever branch: (stream, seq, link) -> its branch."""
        out = {}
        sql = (
            "SELECT seq, link, branch FROM rec WHERE branch IN (SELECT id FROM branch WHERE stream="
            "(SELECT id FROM stream WHERE stream=?)) AND seq BETWEEN ? AND ?"
        )
        for span in spans:
            for seq, link, branch in self._execute(sql, (span.stream, span.first, span.last)):
                out[(span.stream, seq, link)] = branch
        return out

    def blobs(self, digests: Sequence[bytes]) -> set[bytes]:
        """Which of these blobs the hub holds."""
        return {*digests}.difference(self._blobs.missing(digests))

    def envelopes(self, ids: Sequence[bytes]) -> Mapping[bytes, Sequence[tuple[int, int]]]:
        """The rows of these streams held without a body though not redacted: (branch, seq)."""
        sql = (
            "SELECT branch, seq FROM rec WHERE body IS NULL AND why<>3 AND why<>4 AND branch IN"
            " (SELECT id FROM branch WHERE stream=(SELECT id FROM stream WHERE stream=?))"
        )
        found = {stream: [(b, seq) for b, seq in self._execute(sql, (stream,))] for stream in ids}
        return {stream: rows for stream, rows in found.items() if rows}

    # -- what ingest decided --------------------------------------------------------------------------------------

    def write(self, tx: SqlTransaction, plan: Plan, tags: Tags) -> list[Stored]:
        """Writes a plan in the same transaction that `streams` was asked in, and returns its records with their pos."""
        for new in plan.streams:
            sql = "INSERT INTO stream(stream, agent, public_key, current_key, own) VALUES(?,?,?,?,?) RETURNING id"
            own = int(new.public_key == self._own_key)
            values = (new.stream, tx.name(new.agent), new.public_key, new.public_key, own)
            self._numbers[new.stream] = self._execute(sql, values).fetchone()[0]
            self._agents[new.stream] = new.agent
        real = self._new_branches(plan)
        stored: list[Stored] = (tx.scribe or Scribe)(tx, self._agents).write(plan.rows, real, tags)
        for end in plan.ends:
            self.sign(real.get(end.branch, end.branch), end.before, end.head, end.signature, end.rotates)
        for (stream, _), label in plan.labels.items():
            self.put_label(self._numbers[stream], label, real.get(label.branch, label.branch))
        for stream, key in plan.keys.items():
            self._execute("UPDATE stream SET current_key=? WHERE id=?", (key, self._numbers[stream]))
        self._remember(plan, stored)
        return stored

    def _remember(self, plan: Plan, stored: list[Stored]) -> None:
        """Keeps the memo true: heads that moved are moved in it, what changed otherwise is asked for again."""
        memo = self._memo
        for stream in {*plan.keys, *(branch.stream for branch in plan.branches.values())}:
            memo.pop(stream, None)
        tips = {each.branch: each.record for each in stored}
        for stream in {record.stream for record in tips.values()} | {stream for stream, _ in plan.labels}:
            if (known := memo.get(stream)) is None:
                continue
            number, facts = known
            branches = {
                id_: replace(branch, tip=Mark(tips[id_].seq, tips[id_].link)) if id_ in tips else branch
                for id_, branch in facts.branches.items()
            }
            moved = {inc: label for (which, inc), label in plan.labels.items() if which == stream}
            memo[stream] = number, replace(facts, branches=branches, labels={**facts.labels, **moved})

    def put_label(self, number: int, label: Label, branch: int) -> None:
        """Moves an incarnation's label, or makes it; `number` is the stream's in this file."""
        self._execute(
            "INSERT INTO label(stream, inc, branch, seq, link, signature) VALUES(?,?,?,?,?,?)"
            " ON CONFLICT(stream, inc) DO UPDATE SET branch=excluded.branch, seq=excluded.seq, link=excluded.link,"
            " signature=excluded.signature",
            (number, label.inc, branch, label.head.seq, label.head.link, label.signature),
        )

    def sign(self, branch: int, before: int, tip: Mark, signature: bytes, rotates: bool = False) -> None:
        """Moves a branch's head from number `before` to `tip`, and keeps its signature where a proof will need it."""
        self._execute(
            "UPDATE branch SET seq=?, link=?, signature=? WHERE id=?", (tip.seq, tip.link, signature or None, branch)
        )
        if signature and (rotates or before // SIGNED_EVERY != tip.seq // SIGNED_EVERY):
            sql = "INSERT INTO signed(branch, seq, signature, rotates) VALUES(?,?,?,?) ON CONFLICT DO NOTHING"
            self._execute(sql, (branch, tip.seq, signature, int(rotates)))

    def _new_branches(self, plan: Plan) -> dict[int, int]:
        """The plan's provisional branch numbers -> those of the file."""
        real: dict[int, int] = {}
        for branch in plan.branches.values():
            parent = real.get(branch.parent, branch.parent) if branch.parent is not None else None
            row = self._execute(
                "INSERT INTO branch(stream, inc, parent, base_seq, base_link, seq, link) VALUES(?,?,?,?,?,?,?)"
                " RETURNING id",
                (self._numbers[branch.stream], branch.inc, parent, *_flat(branch.base), *_flat(branch.base)),
            ).fetchone()
            real[branch.id] = row[0]
        return real

    # -- what readers ask -----------------------------------------------------------------------------------------

    def rows(self, branch: int, first: int, last: int) -> Iterator[Stored]:
        """The records of one branch with these numbers, oldest first."""
        sql = f"SELECT {COLUMNS} FROM rec r WHERE r.branch=? AND r.seq BETWEEN ? AND ? ORDER BY r.seq"
        # In steps: whoever asks seldom wants all, and an engine far away sends all that it is asked for.
        for low in range(first, last + 1, ROWS_STEP):
            for row in self._execute(sql, (branch, low, min(last, low + ROWS_STEP - 1))):
                yield unbind(row, self.name, self.stream)

    def name(self, number: int) -> str:
        """The text of an interned name, also one of this transaction."""
        text = self._names.get(number)
        if text is None:
            text = self._names[number] = self._execute("SELECT s FROM name WHERE id=?", (number,)).fetchone()[0]
        return text

    def stream(self, branch: int) -> bytes:
        """The stream of a branch, also one of this transaction."""
        stream = self._owners.get(branch)
        if stream is None:
            sql = "SELECT stream FROM stream WHERE id=(SELECT stream FROM branch WHERE id=?)"
            stream = self._owners[branch] = self._execute(sql, (branch,)).fetchone()[0]
        return stream

    def number(self, stream: bytes) -> int:
        """The file's number for a stream that `streams` was asked for, or that was just opened."""
        number = self._numbers.get(stream)
        if number is None:
            row = self._execute("SELECT id FROM stream WHERE stream=?", (stream,)).fetchone()
            number = self._numbers[stream] = row[0]
        return number

    def at(self, pos: int) -> Stored | None:
        """The record at a pos, also one of this transaction."""
        row = self._execute(f"SELECT {COLUMNS} FROM rec r WHERE r.pos=?", (pos,)).fetchone()
        return unbind(row, self.name, self.stream) if row else None

    def pull(
        self,
        stream: bytes,
        inc: bytes,
        after: int,
        *,
        limit: int = RECORDS_MAX,
        bytes_max: int = SEGMENT_BYTES_MAX,
    ) -> Pulled:
        """Consecutive records of an incarnation's chain behind number `after`; never cut inside a batch.

        Raises:
            NotFound: the hub does not know the incarnation, or its chain begins later.
        """
        facts = self.streams([stream]).get(stream)
        label = facts.labels.get(inc) if facts else None
        if facts is None or label is None:
            raise unknown_branch(stream, inc)
        prev = self.link(facts, (label.branch, label.head.seq), after)
        if prev is None:
            raise NotFound(f"this hub does not hold record {after} of that chain", hint="say hello")
        items: list[Item] = []
        size, more, cut_inside = 0, False, False
        for stored in self.along(tree.spans(facts, inc, after + 1)):
            # Batches are at most RECORDS_MAX long, so a cut is never far.
            if items and (len(items) >= limit or size >= bytes_max) and not cut_inside:
                more = True
                break
            items.append(stored.item())
            size += len(stored.body or b"")
            cut_inside = bool(stored.record.flags & MORE)
        return Pulled(
            stream, inc, after + 1, prev, items, more, facts.public_key, signature=label.signature, head=label.head
        )

    def proof(self, stored: Stored) -> Proof:
        """What proves a record to somebody who has nothing else of its stream.

        Raises:
            NotFound: no signed head lies on its chain behind it.
        """
        record = stored.record
        facts = self.streams([record.stream])[record.stream]
        at = (stored.branch, record.seq)
        seq, signature, tip = self._signed_behind(facts, at)
        trail = []
        if seq > record.seq:
            runs = [(run, last) for run, last in tree.runs(facts.branches, *tip) if last > record.seq]
            spans = [Span(record.stream, max(record.seq, run.base.seq) + 1, last, run.id) for run, last in runs]
            trail = [hashlib.sha256(encode_header(s.record)).digest() for s in self.along(spans[::-1])]
        prev = self.link(facts, at, record.seq - 1)
        if prev is None:
            raise NotFound(f"the link before record {record.seq} is not here")
        rotations = self._rotations(facts, tip, seq) if facts.key != facts.public_key else []
        return Proof(stored.item(), stored.agent, facts.public_key, prev, trail, signature, rotations)

    def _signed_behind(self, facts: StreamFacts, at: tuple[int, int]) -> tuple[int, bytes, tuple[int, int]]:
        branch, seq = at
        row = self._execute(
            "SELECT seq, signature FROM signed WHERE branch=? AND seq>=? ORDER BY seq LIMIT 1", (branch, seq)
        ).fetchone()
        if row:
            return row[0], row[1], (branch, row[0])
        tip = self._execute("SELECT seq, signature FROM branch WHERE id=?", (branch,)).fetchone()
        if tip[1]:
            return tip[0], tip[1], (branch, tip[0])
        heads = [
            (label.head.seq, label.signature, (label.branch, label.head.seq))
            for label in facts.labels.values()
            if label.signature
            and label.head.seq >= seq
            and tree.contains(facts.branches, (label.branch, label.head.seq), at)
        ]
        if not heads:
            raise NotFound(f"record {seq} has no signed head behind it", hint="ask again once its node has shipped")
        return min(heads)

    def _rotations(self, facts: StreamFacts, tip: tuple[int, int], last: int) -> list[Rotation]:
        out = []
        for run, end in reversed(list(tree.runs(facts.branches, *tip))):
            sql = "SELECT seq, signature FROM signed WHERE branch=? AND rotates=1 AND seq<? AND seq<=? ORDER BY seq"
            for seq, signature in self._execute(sql, (run.id, last, end)).fetchall():
                stored = next(self.rows(run.id, seq, seq))
                prev = self.link(facts, (run.id, seq), seq - 1)
                out.append(Rotation(stored.item(), prev or b"", signature))
        return out

    def along(self, spans: Iterable[Span]) -> Iterator[Stored]:
        """The records of these spans, one after the other."""
        for span in spans:
            yield from self.rows(span.branch, span.first, span.last)

    def link(self, facts: StreamFacts, tip: tuple[int, int], seq: int) -> bytes | None:
        """The link of record `seq` of the chain that ends at `tip`; None if the hub does not hold it."""
        for run, last in tree.runs(facts.branches, *tip):
            if run.base.seq < seq <= last:
                row = self._execute("SELECT link FROM rec WHERE branch=? AND seq=?", (run.id, seq)).fetchone()
                return row[0] if row else None
            if run.base.seq == seq:
                return run.base.link
        return genesis(facts.stream) if seq == 0 else None


def _flat(mark: Mark) -> tuple[int, bytes]:
    return mark.seq, mark.link


def unknown_branch(stream: bytes, inc: bytes) -> NotFound:
    """The error of a branch that is not here."""
    return NotFound(f"this hub has no incarnation {inc.hex()} of stream {stream.hex()}", hint="say hello")


def _marks(values: Sequence[Any]) -> str:
    return ",".join("?" * len(values))

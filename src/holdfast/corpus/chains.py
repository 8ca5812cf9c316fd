"""Streams, branches and labels in a hub's file: what ingest asks and writes, and the chains that readers prove by.

Everything works over one open transaction (`Chains.write` too) or one read snapshot; nothing here decides. The tree of
branches is `holdfast.protocol.branches`' business, the verdicts are `holdfast.protocol.ingest`'s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace

from holdfast.corpus.port import Branch as FileBranch
from holdfast.corpus.rows import COLUMNS, INSERT, Stored, bind, unbind
from holdfast.corpus.sqlite import SqliteTransaction
from holdfast.errors import NotFound
from holdfast.protocol import branches as tree
from holdfast.protocol.merge import order
from holdfast.protocol.ports import Branch, Label, Plan, Row, Span, StreamFacts
from holdfast.records import DELETE_PREFIX, MORE, ROTATE, TOMBSTONE, Record, encode_header, genesis
from holdfast.wire import RECORDS_MAX, SEGMENT_BYTES_MAX, Item, Mark, Proof, Pulled, Rotation

Execute = Callable[..., Any]
"""Runs one statement inside the transaction or snapshot: ``execute(sql, values)`` gives a cursor."""
Tags = Mapping[bytes, Sequence[tuple[int, str]]]
"""A record's link -> its tags, for the records that have any."""

Memo = dict[bytes, tuple[int, StreamFacts]]
"""A stream -> its number in the file, and what is known of it."""

MEMO_MAX: Final = 1_000
MEMO_LABELS_MAX: Final = 16
SIGNED_EVERY: Final = 32
"""A signed head is kept for each so many records of a branch: the length of an old record's proof."""
SPLICE_STEPS_MAX: Final = 64
"""How far down a key's history a late version looks for its place; beyond, its place is approximate."""
ALL: Final = 1 << 62

_STREAM: Final = (
    "SELECT id, (SELECT s FROM name WHERE name.id=agent), public_key, current_key, own FROM stream WHERE stream=?"
)
_BRANCHES: Final = "SELECT id, inc, parent, base_seq, base_link, seq, link, settled FROM branch WHERE stream=?"
_LABELS: Final = "SELECT inc, branch, seq, link, signature FROM label WHERE stream=?"
_CURRENT: Final = (
    "SELECT r.pos, r.link, r.prior, r.hlc, r.flags, r.phash FROM rec r"
    " WHERE r.pos=(SELECT pos FROM state WHERE agent=? AND coll=? AND key=?)"
)
_FIRST: Final = "INSERT INTO state(agent,coll,key,pos,gone) VALUES(?,?,?,?,?) ON CONFLICT DO NOTHING RETURNING 1"
_MOVE: Final = "UPDATE state SET pos=?, gone=? WHERE agent=? AND coll=? AND key=?"
_COVER: Final = (
    "SELECT s.pos FROM scope s WHERE s.agent=? AND s.coll=? AND substr(?,1,length(s.prefix))=s.prefix"
    " AND (SELECT hlc FROM rec WHERE rec.pos=s.pos)>? ORDER BY s.pos DESC LIMIT 1"
)


class Chains:
    """The hub's tree of branches, as `protocol.ports.IngestStore` asks for it.

    Args:
        execute: of the open transaction, or of a connection inside ``BEGIN``.
        has_blob: whether the bytes of a digest are here and fsynced.
        settle_acked: whether the hub alone settles what it has acknowledged (there are no backups to wait for).
        memo: what earlier transactions of the only writer learnt; its owner empties it when one is undone.
    """

    def __init__(
        self,
        execute: Execute,
        *,
        has_blob: Callable[[bytes], bool],
        settle_acked: bool = False,
        memo: Memo | None = None,
    ) -> None:
        self._execute = execute
        self._has_blob = has_blob
        self._settle_acked = settle_acked
        self._memo: Memo = {} if memo is None else memo
        self._numbers: dict[bytes, int] = {}
        self._agents: dict[bytes, str] = {}
        self._names: dict[int, str] = {}
        self._owners: dict[int, bytes] = {}

    # -- what ingest asks -----------------------------------------------------------------------------------------

    def streams(self, ids: Sequence[bytes]) -> Mapping[bytes, StreamFacts]:
        """What the hub knows of these streams."""
        found = {}
        for stream in ids:
            known = self._memo.get(stream)
            if known is not None:
                self._numbers[stream], found[stream] = known
                self._agents[stream] = known[1].agent
                continue
            row = self._execute(_STREAM, (stream,)).fetchone()
            if row is None:
                continue
            number, agent, public_key, key, own = row
            self._numbers[stream], self._agents[stream] = number, agent
            branches = {
                i: Branch(
                    i,
                    stream,
                    inc,
                    parent,
                    Mark(base, base_link),
                    Mark(seq, link),
                    ALL if self._settle_acked else settled,
                )
                for i, inc, parent, base, base_link, seq, link, settled in self._execute(_BRANCHES, (number,))
            }
            labels = {
                inc: Label(inc, branch, Mark(seq, link), signature)
                for inc, branch, seq, link, signature in self._execute(_LABELS, (number,))
            }
            found[stream] = StreamFacts(stream, agent, public_key, key, branches, labels)
            if not own and len(labels) <= MEMO_LABELS_MAX:  # the hub's own streams are written past this
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
        return {digest for digest in digests if self._has_blob(digest)}

    def envelopes(self, ids: Sequence[bytes]) -> Mapping[bytes, Sequence[tuple[int, int]]]:
        """The rows of these streams held without a body though not redacted: (branch, seq)."""
        sql = (
            "SELECT branch, seq FROM rec WHERE body IS NULL AND why<>3 AND branch IN"
            " (SELECT id FROM branch WHERE stream=(SELECT id FROM stream WHERE stream=?))"
        )
        found = {stream: [(b, seq) for b, seq in self._execute(sql, (stream,))] for stream in ids}
        return {stream: rows for stream, rows in found.items() if rows}

    # -- what ingest decided --------------------------------------------------------------------------------------

    def write(self, tx: SqliteTransaction, plan: Plan, tags: Tags) -> list[Stored]:
        """Writes a plan in the same transaction that `streams` was asked in, and returns its records with their pos."""
        for new in plan.streams:
            sql = "INSERT INTO stream(stream, agent, public_key, current_key) VALUES(?,?,?,?) RETURNING id"
            values = (new.stream, tx.name(new.agent), new.public_key, new.public_key)
            self._numbers[new.stream] = self._execute(sql, values).fetchone()[0]
            self._agents[new.stream] = new.agent
        real = self._new_branches(plan)
        scribe = _Scribe(tx, self._execute, self._agents)
        stored = [scribe.write(row, real.get(row.branch, row.branch), tags) for row in plan.rows]
        self._advance(plan, stored)
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
            "INSERT INTO label(stream, inc, branch, seq, link, signature) VALUES(?,?,?,?,?,?) ON CONFLICT DO UPDATE SET"
            " branch=excluded.branch, seq=excluded.seq, link=excluded.link, signature=excluded.signature",
            (number, label.inc, branch, label.head.seq, label.head.link, label.signature),
        )

    def sign(self, branch: int, before: int, tip: Mark, signature: bytes, rotates: bool = False) -> None:
        """Moves a branch's head from number `before` to `tip`, and keeps its signature where a proof will need it."""
        self._execute(
            "UPDATE branch SET seq=?, link=?, signature=? WHERE id=?", (tip.seq, tip.link, signature or None, branch)
        )
        if signature and (rotates or before // SIGNED_EVERY != tip.seq // SIGNED_EVERY):
            sql = "INSERT OR IGNORE INTO signed(branch, seq, signature, rotates) VALUES(?,?,?,?)"
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

    def _advance(self, plan: Plan, stored: list[Stored]) -> None:
        heads = {(key[0], label.head.seq, label.head.link): label for key, label in plan.labels.items()}
        first: dict[int, int] = {}
        last: dict[int, Stored] = {}
        for each in stored:
            first.setdefault(each.branch, each.record.seq)
            last[each.branch] = each
        for branch, each in last.items():
            record = each.record
            label = heads.get((record.stream, record.seq, record.link))
            signature = label.signature if label else b""
            self.sign(branch, first[branch] - 1, Mark(record.seq, record.link), signature, record.kind == ROTATE)

    # -- what readers ask -----------------------------------------------------------------------------------------

    def rows(self, branch: int, first: int, last: int) -> Iterator[Stored]:
        """The records of one branch with these numbers, oldest first."""
        sql = f"SELECT {COLUMNS} FROM rec r WHERE r.branch=? AND r.seq BETWEEN ? AND ? ORDER BY r.seq"
        for row in self._execute(sql, (branch, first, last)):
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

    def by_tag(self, number: int, value: str) -> Stored | None:
        """The first record that carries a tag with this value, also one of this transaction."""
        row = self._execute("SELECT min(pos) FROM tag WHERE k=? AND v=?", (number, value)).fetchone()
        return self.at(row[0]) if row and row[0] is not None else None

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
            raise NotFound(f"this hub has no incarnation {inc.hex()} of stream {stream.hex()}", hint="say hello")
        prev = self._link(facts, (label.branch, label.head.seq), after)
        if prev is None:
            raise NotFound(f"this hub does not hold record {after} of that chain", hint="say hello")
        items: list[Item] = []
        size, more, cut_inside = 0, False, False
        for stored in self._along(tree.spans(facts, inc, after + 1)):
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
            trail = [hashlib.sha256(encode_header(s.record)).digest() for s in self._along(spans[::-1])]
        prev = self._link(facts, at, record.seq - 1)
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
                prev = self._link(facts, (run.id, seq), seq - 1)
                out.append(Rotation(stored.item(), prev or b"", signature))
        return out

    def _along(self, spans: Iterable[Span]) -> Iterator[Stored]:
        for span in spans:
            yield from self.rows(span.branch, span.first, span.last)

    def _link(self, facts: StreamFacts, tip: tuple[int, int], seq: int) -> bytes | None:
        """The link of record `seq` of the chain that ends at `tip`; None if the hub does not hold it."""
        for run, last in tree.runs(facts.branches, *tip):
            if run.base.seq < seq <= last:
                row = self._execute("SELECT link FROM rec WHERE branch=? AND seq=?", (run.id, seq)).fetchone()
                return row[0] if row else None
            if run.base.seq == seq:
                return run.base.link
        return genesis(facts.stream) if seq == 0 else None


class _Scribe:
    """Writes the rows of one plan: each gets the next pos, its place in its key's history, and its tags."""

    def __init__(self, tx: SqliteTransaction, execute: Execute, agents: Mapping[bytes, str]) -> None:
        self._tx, self._execute, self._agents = tx, execute, agents
        self._pos = tx.last()
        self._ids: dict[str, int] = {}
        self._scoped: dict[tuple[int, int], bool] = {}

    def write(self, row: Row, branch: int, tags: Tags) -> Stored:
        record, item = row.record, row.item
        agent_name = self._agents[record.stream]
        agent, author, kind, coll = map(self._id, (agent_name, record.author, record.kind, record.collection))
        mine = tags.get(record.link, ())
        self._pos = pos = self._pos + 1
        prior = 0
        if record.kind == DELETE_PREFIX and record.flags & TOMBSTONE:
            where = FileBranch(branch, record.stream, b"", agent_name, b"", b"", False, 0, b"", 0, b"")
            self._tx.insert(where, record, item, 0, mine)
            self._scoped[agent, coll] = True
        else:
            if record.is_value:
                prior = self._place(agent, coll, record, pos)
            self._execute(INSERT, bind(pos, branch, prior, (agent, author, kind, coll), record, item))
            for number, value in mine:
                self._execute("INSERT OR IGNORE INTO tag VALUES(?,?,?)", (number, value, pos))
        return Stored(pos, branch, agent_name, prior, record, item.salt, item.codec, item.body, item.why)

    def _id(self, text: str) -> int:
        number = self._ids.get(text)
        if number is None:
            number = self._ids[text] = self._tx.name(text)
        return number

    def _place(self, agent: int, coll: int, record: Record, pos: int) -> int:
        """Puts the record among the versions of its key, the highest `merge.order` first; the pos it stands on."""
        gone = pos if record.flags & TOMBSTONE else self._cover(agent, coll, record)
        at = (agent, coll, record.key)
        if record.key_version == 1 and self._execute(_FIRST, (*at, pos, gone)).fetchone():
            return 0
        row = self._execute(_CURRENT, at).fetchone()
        if row is None:
            self._execute(_FIRST, (*at, pos, gone)).fetchone()
            return 0
        mine = order(record)
        current, link, prior = row[:3]
        if record.base == link or mine > _order(*row[3:]):
            self._execute(_MOVE, (pos, gone, *at))
            return int(current)
        for _ in range(SPLICE_STEPS_MAX):
            below = self._execute("SELECT prior, hlc, flags, phash FROM rec WHERE pos=?", (prior,)).fetchone()
            if below is None or mine > _order(*below[1:]):
                break
            current, prior = prior, below[0]
        # `prior` is no part of a record: it is where its key's history goes on in this file.
        self._execute("UPDATE rec SET prior=? WHERE pos=?", (pos, current))
        return int(prior)

    def _cover(self, agent: int, coll: int, record: Record) -> int:
        """The pos of a newer deletion by prefix that came first from elsewhere; 0 for none."""
        scoped = self._scoped.get((agent, coll))
        if scoped is None:
            sql = "SELECT 1 FROM scope WHERE agent=? AND coll=? LIMIT 1"
            scoped = self._scoped[agent, coll] = self._execute(sql, (agent, coll)).fetchone() is not None
        if not scoped:
            return 0
        row = self._execute(_COVER, (agent, coll, record.key, record.hlc)).fetchone()
        return int(row[0]) if row else 0


def _order(hlc: int, flags: int, phash: bytes) -> tuple[int, bool, bytes]:
    """`merge.order` of a record as it lies in a row."""
    gone = bool(flags & TOMBSTONE)
    return (hlc, gone, b"" if gone else phash)


def _flat(mark: Mark) -> tuple[int, bytes]:
    return mark.seq, mark.link

"""Writes the records of a backup into a new file, one after another, as they were written the first time.

What the source derived is derived again: the newest of each key, its history and what records are found by. So the file
may end anywhere, at any record that is not in the middle of a batch.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from holdfast import wire
from holdfast.corpus import Branch, SqliteCorpus, Stored, moving
from holdfast.corpus.scribe import Scribe
from holdfast.errors import HoldfastError, IntegrityError
from holdfast.integrity.backup import segment as segments
from holdfast.integrity.backup import source as reading
from holdfast.integrity.backup.ownlog import OwnLog
from holdfast.integrity.backup.segment import Beside, Segment
from holdfast.integrity.backup.source import HUB, Tables
from holdfast.log.drafts import tags_of
from holdfast.log.prune import BEGIN_LINK, BEGIN_SEQ
from holdfast.protocol.ports import Row
from holdfast.records import MORE, ROTATE
from holdfast.wire import Mark

REAPPLIED: Final = "reapplied"
"""In `meta`: erasures that a restore applied again: a list of {stream, kids, records (number and link), reason}."""
LOT: Final = 2_000
"""Records of a hub in one transaction; of an agent's log it is a segment."""


class Replay:
    """One file that is being made of a part's segments.

    Args:
        corpus: the file; nobody else has it.
        tables: what stands beside the records.
        erased: links of the records whose payloads must not come back.
        stop: the last position to be written; None: all.
    """

    def __init__(self, corpus: SqliteCorpus, tables: Tables, erased: set[bytes], stop: int | None) -> None:
        self.corpus, self.tables, self.erased = corpus, tables, erased
        self.stop = tables.pos if stop is None else min(stop, tables.pos)
        self.cut = self.stop < tables.pos
        self.hub = tables.kind == HUB
        self.own = tables.own
        self._log = None if self.hub else OwnLog(corpus, erased)
        names = {row[0]: row[1] for row in tables.rows["name"]}
        streams = {row[0]: row for row in tables.rows["stream"]}
        self.agents = {row[1]: names[row[2]] for row in streams.values()}
        self.branches = {}
        for row in tables.rows["branch"]:
            stream = streams[row[1]]
            name = names[stream[2]]
            # id, stream, inc, agent, public_key, current_key, own, base_seq, base_link, seq, link
            self.branches[row[0]] = Branch(
                row[0], stream[1], row[2], name, stream[3], stream[4], bool(stream[5]), row[4], row[5], row[6], row[7]
            )

    def begin(self) -> int:
        """Makes the file ready; returns the position behind which to go on."""
        if self.corpus.meta(moving.UNFINISHED) is not None:
            if self._log is not None:
                self.corpus.write(self._log.recall)
            return self.corpus.last()

        def job(tx: Any) -> None:
            tx.set_meta(moving.UNFINISHED, b"")
            preset = {row[0] for row in tx.execute("SELECT id FROM name")}
            self._fill(tx, "name", [row for row in self.tables.rows["name"] if row[0] not in preset])
            self._fill(tx, "stream", self.tables.rows["stream"])
            # Heads grow with what is written: a branch stands at its base until then.
            rows = [[*row[:6], row[4], row[5], None, 0] for row in self.tables.rows["branch"]]
            self._fill(tx, "branch", rows)

        self.corpus.write(job)
        return 0

    def add(self, segment: Segment) -> None:
        """Writes the records of a segment up to the last position, in a few transactions; twice does no harm."""
        after = self.corpus.last()
        if segment.last <= after:
            return
        if self._log is not None:
            self.corpus.write(functools.partial(self._log.write, segment=segment, after=after, stop=self.stop))
            return
        found, beside, _ = segments.without(segment, self.erased, self.own)
        records = [each for each in found if after < each.pos <= self.stop]
        beside = self._wanted(beside)
        for lot in _lots(records):

            def job(tx: Any, lot: list[Stored] = lot) -> None:
                self._write(tx, lot)
                span = (lot[0].pos, lot[-1].pos)
                for table in ("tag", "told", "session", "sample"):
                    self._fill(tx, table, [row for row in beside.get(table, ()) if _within(table, row, span)])
                if lot[-1] is records[-1]:
                    for table in ("arrival", "signed"):
                        self._fill(tx, table, beside.get(table, ()))

            self.corpus.write(job)

    def finish(self, done: str = "") -> None:
        """Sets right what stands beside the records, once all of them are there.

        Args:
            done: what `meta` is to say in the same transaction: whoever is killed behind it does not begin again.
        """

        def job(tx: Any) -> None:
            if self._log is not None:
                self._log.finish(tx)
            heads = {row[0]: Mark(row[1], row[2]) for row in self._heads(tx)} if self._log is None else self._log.heads
            self._set_branches(tx, heads)
            if self.hub:
                self._set_labels(tx, heads)
                kept = [row for row in self.tables.rows["lineage"] if row[1] <= self.stop]
                self._fill(tx, "lineage", kept)
            self._set_meta(tx)
            moving.release(tx)
            if done:
                tx.set_meta(done, 1)

        self.corpus.write(job)
        self.corpus.sync()

    # -- records -------------------------------------------------------------------------------------------------

    def _write(self, tx: Any, lot: Sequence[Stored]) -> None:
        run: list[Stored] = []
        for stored in lot:
            stored = self._taken(stored)
            if stored.branch not in self.own:
                run.append(stored)
                continue
            self._scribe(tx, run)
            run = []
            self._insert(tx, stored)
        self._scribe(tx, run)

    def _taken(self, stored: Stored) -> Stored:
        """The record as it is stored here."""
        if stored.body is None:
            return stored
        packed, body = self.corpus.pack(stored.body)
        return msgspec.structs.replace(stored, codec=packed, body=body)

    def _scribe(self, tx: Any, run: Sequence[Stored]) -> None:
        """Writes what nodes have shipped to a hub, by the hand that wrote it there."""
        if not run:
            return
        if run[0].pos != tx.last() + 1:
            raise IntegrityError(f"the backup of a hub lacks the records before position {run[0].pos}")
        rows = [Row(each.branch, each.record, each.item()) for each in run]
        tags = {each.record.link: self._tags(each) for each in run}
        Scribe(tx, self.agents).write(rows, {}, tags)

    def _insert(self, tx: Any, stored: Stored) -> None:
        """Writes what was written where the file is: a hub's own streams."""
        record = stored.record  # a late version of another branch may have come between since
        found = tx.prior(stored.agent, record.collection, record.key) if record.collection else None
        prior = found.pos if found else 0
        pos = tx.insert(self.branches[stored.branch], record, stored, prior, self._tags(stored))
        if pos != stored.pos:
            raise IntegrityError(f"the backup lacks the records between positions {pos} and {stored.pos}")

    def _tags(self, stored: Stored) -> Sequence[tuple[int, str]]:
        if reading.explicit(stored, self.own, self.tables.kind):
            return ()
        try:
            return tags_of(stored.record, stored.payload())
        except HoldfastError:
            return ()

    def _wanted(self, beside: Beside) -> Beside:
        out = dict(beside)
        out["arrival"] = [row for row in beside.get("arrival", ()) if row[1] <= self.stop]
        return out

    # -- what stands beside --------------------------------------------------------------------------------------

    def _fill(self, tx: Any, table: str, rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            tx.fill(table, reading.columns(table), [tuple(row) for row in rows])
            tx.forget()

    def _heads(self, tx: Any) -> list[Any]:
        sql = (
            "SELECT r.branch, r.seq, r.link FROM rec r JOIN"
            " (SELECT branch AS b, max(seq) AS s FROM rec GROUP BY branch) m ON r.branch=m.b AND r.seq=m.s"
        )
        found: list[Any] = tx.execute(sql)
        return found

    def _set_branches(self, tx: Any, heads: dict[int, Mark]) -> None:
        """Puts branches where their records end; those that began later than the file ends are not there yet."""
        rows = {row[0]: row for row in self.tables.rows["branch"]}
        kept = set(rows)
        if self.cut:
            kept = {number for number in rows if number in heads}
            for number in list(kept):
                parent = rows[number][3]
                while parent is not None and parent not in kept:
                    kept.add(parent)
                    parent = rows[parent][3]
            if not self.hub:  # an agent's file that has a branch has a log, if an empty one
                kept = kept or {min(rows, default=0)} & set(rows)
        for number, row in rows.items():
            if number not in kept:
                tx.execute("DELETE FROM signed WHERE branch=?", (number,)) if self.hub else None
                tx.execute("DELETE FROM branch WHERE id=?", (number,))
                continue
            head = heads.get(number)
            if not self.hub:
                tx.execute("UPDATE branch SET seq=?, link=?, signature=? WHERE id=?", (row[6], row[7], None, number))
                continue
            seq, link = (head.seq, head.link) if head else (row[4], row[5])
            signature = row[8] if (seq, link) == (row[6], row[7]) else None
            tx.execute(
                "UPDATE branch SET seq=?, link=?, signature=?, settled=? WHERE id=?",
                (seq, link, signature, min(row[9], seq), number),
            )
            tx.execute("DELETE FROM signed WHERE branch=? AND seq>?", (number, seq))
        if self.cut:
            tx.execute("DELETE FROM stream WHERE id NOT IN (SELECT stream FROM branch)")
            self._set_keys(tx)

    def _set_keys(self, tx: Any) -> None:
        """Streams whose key was rotated later than the file ends are still under the key before."""
        sql = (
            "SELECT b.stream, r.body FROM rec r JOIN branch b ON b.id=r.branch"
            " WHERE r.kind=(SELECT id FROM name WHERE s=?) ORDER BY r.pos"
        )
        keys = {row[0]: bytes(row[1]) for row in tx.execute(sql, (ROTATE,)) if row[1] is not None}
        pruned = not self.hub and tx.execute("SELECT min(seq) FROM rec")[0][0] not in (None, 1)
        for number, public_key in tx.execute("SELECT id, public_key FROM stream"):
            if number in keys or not pruned:
                tx.execute("UPDATE stream SET current_key=? WHERE id=?", (keys.get(number, public_key), number))

    def _set_labels(self, tx: Any, heads: dict[int, Mark]) -> None:
        """Labels of incarnations that stand at a record that is here; of others, the newest signed head that is."""
        branches = {row[0] for row in tx.execute("SELECT id FROM branch")}
        for row in self.tables.rows["label"]:
            head = heads.get(row[2])
            if row[2] not in branches or head is None:
                continue
            if row[3] > head.seq:
                sql = (
                    "SELECT s.seq, r.link, s.signature FROM signed s JOIN rec r ON r.branch=s.branch AND r.seq=s.seq"
                    " WHERE s.branch=? ORDER BY s.seq DESC LIMIT 1"
                )
                found = tx.execute(sql, (row[2],))
                if not found:
                    continue
                row = [*row[:3], *found[0]]
            self._fill(tx, "label", [row])

    def _set_meta(self, tx: Any) -> None:
        meta = dict(self.tables.meta)
        if not self.hub and BEGIN_SEQ in meta:
            count, first, last = tx.execute("SELECT count(*), min(seq), max(seq) FROM rec")[0]
            if count and first == 1 and last == count:
                # Backups that were made before the log was pruned hold what it let go of: here it is whole again.
                meta.pop(BEGIN_SEQ)
                meta.pop(BEGIN_LINK, None)
            elif meta[BEGIN_SEQ] > self.stop:
                raise IntegrityError("the log was pruned before its first backup, behind the moment asked for")
        meta.pop(REAPPLIED, None)
        if said := self._reapplied(tx):
            meta[REAPPLIED] = said
        if self.cut:
            meta.pop("marks", None)  # places in a followed hub's feed that lie behind the end
        for name, value in meta.items():
            tx.set_meta(name, value)

    def _reapplied(self, tx: Any) -> bytes | None:
        """Which payloads are missing for an erasure, as `REAPPLIED` says it: the record that says so may lie beyond."""
        if self._log is not None and not self.erased and not self.tables.erased:
            return None  # to ask would be to read every record
        sql = (
            "SELECT s.stream, r.seq, r.link FROM rec r JOIN branch b ON b.id=r.branch JOIN stream s ON s.id=b.stream"
            " WHERE r.why=? ORDER BY r.pos"
        )
        marks: dict[bytes, list[str]] = {}
        for stream, seq, link in tx.execute(sql, (wire.REDACTED,)):
            marks.setdefault(bytes(stream), []).append(seq.to_bytes(8).hex() + bytes(link).hex())
        said = [{"stream": stream.hex(), "kids": [], "records": each, "reason": ""} for stream, each in marks.items()]
        return msgspec.msgpack.encode(said) if said else None


def _lots(records: Sequence[Stored]) -> Iterator[list[Stored]]:
    for first in range(0, len(records), LOT):
        yield list(records[first : first + LOT])


def _within(table: str, row: Sequence[Any], span: tuple[int, int]) -> bool:
    return bool(span[0] <= (row[2] if table == "tag" else row[0]) <= span[1])


def ends_batch(stored: Stored) -> bool:
    """Whether a file may end behind this record."""
    return not stored.record.flags & MORE

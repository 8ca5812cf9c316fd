"""Fills the index behind its watermark, in lots that a kill between any two of them does not harm.

The rule for each record of an indexed collection, in the order of positions: what `state` says of its key now is what
is kept of the key from here on. So it is the same for a value, a tombstone, a fork that lost and a merge that won.
What a lot holds is read before its transaction begins, which then only has to see that nobody else was faster.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from holdfast import codec, wire
from holdfast.corpus.index.fields import (
    MARK,
    WHOLE,
    Field,
    Kept,
    Mark,
    read_kept,
    read_mark,
    reset,
    set_mark,
    take_out,
)
from holdfast.corpus.index.question import Load
from holdfast.corpus.rows import COLUMNS, Stored, within
from holdfast.corpus.sql import SqlCorpus
from holdfast.corpus.transaction import SqlTransaction
from holdfast.errors import HoldfastError
from holdfast.records import DELETE_PREFIX, SEALED, TOMBSTONE, VALUE

LOT: Final = 200
"""Records, or values, in one transaction: some 10 ms that a writer may have to wait."""
WINDOW: Final = 20_000
"""Positions that are looked through for them."""
NOTHING: Final = -1
"""What `bare` says of an item: its value is no object, or was erased; it has entries; it was not here; it is looked at
each time."""
HERE: Final = 0
AWAY: Final = 1
LOOKED_AT: Final = 2
_CHANGES: Final = (
    "SELECT r.pos, r.agent, r.coll, r.key, r.flags, r.kind=(SELECT id FROM name WHERE s=?), st.pos, st.gone,"
    " i.id, i.pos, i.bare FROM rec r"
    " LEFT JOIN state st ON st.agent=r.agent AND st.coll=r.coll AND st.key=r.key"
    " LEFT JOIN item i ON i.coll=r.coll AND i.agent=r.agent AND i.key=r.key"
    " WHERE r.pos>? AND r.pos<=? AND +r.coll IN ({}) AND (r.flags & ?)<>0 ORDER BY r.pos LIMIT ?"
)
_COVERED: Final = (
    "SELECT i.id FROM item i WHERE i.coll=? AND i.agent=? AND {} AND i.id<? AND NOT EXISTS (SELECT 1 FROM state st"
    " WHERE st.agent=i.agent AND st.coll=i.coll AND st.key=i.key AND st.gone=0 AND st.pos<?) LIMIT ?"
)
UNREAD: Final = object()


class _Touch(msgspec.Struct):
    """One key that a lot is about: what `state` and the index say of it, and what the lot holds of it."""

    agent: int
    coll: int
    key: str
    pos: int | None
    gone: int | None
    item: int | None
    of: int | None
    bare: int | None
    tombstone: int = 0
    begun: int = 0  # the lot's first value of it
    again: int = 0  # and the first behind the tombstone

    def see(self, pos: int, flags: int) -> None:
        """Takes in the next of its records."""
        if flags & TOMBSTONE:
            self.tombstone, self.again = pos, 0
        else:
            self.begun, self.again = self.begun or pos, self.again or pos

    @property
    def id(self) -> int | None:
        """The id that its item is to have; None if there is to be none."""
        if self.pos is None or self.gone:
            return None
        if self.tombstone and self.pos > self.tombstone:
            return self.again or None  # begun anew: behind the lot, if not in it
        return self.item or self.begun or self.pos

    @property
    def settled(self) -> bool:
        """Whether the index says what it is to say."""
        return self.id == self.item and (self.item is None or self.of == self.pos)


class _Lot(msgspec.Struct):
    """What one transaction is to change."""

    items: list[tuple[int, int, int, str, int, int]] = []  # coll, id, agent, key, pos, bare
    entries: list[tuple[int, bytes, int]] = []  # field, v, item
    moved: dict[int, list[int]] = {}  # items whose rows alone are made anew
    gone: dict[int, list[int]] = {}  # items that go, with their entries
    many: set[int] = set()

    def write(self, tx: SqlTransaction) -> None:
        """Changes it."""
        take_out(tx, self.gone)
        for coll, ids in self.moved.items():
            tx.sql(f"DELETE FROM item WHERE coll=? AND id IN ({','.join('?' * len(ids))})", (coll, *ids))
        if self.items:
            tx.fill("item", "coll, id, agent, key, pos, bare", self.items)
        if self.entries:
            tx.fill("entry", "field, v, item", sorted(self.entries))
        for field in sorted(self.many):
            tx.sql("UPDATE field SET many=1 WHERE id=? AND many=0", (field,))

    def add(self, item: int, entries: Sequence[tuple[int, bytes]], kept: Iterable[Field]) -> None:
        """Adds the entries of one item."""
        self.entries += [(field, key, item) for field, key in entries]
        fields = [field for field, _ in entries]
        if len(fields) > len(set(fields)):
            self.many |= {each.id for each in kept if not each.many and fields.count(each.id) > 1}


def fill(corpus: SqlCorpus, load: Load | None = None, lot: int = LOT) -> int:
    """Indexes the next lot and returns how many records or values it covered; 0 when nothing is left to do.

    Args:
        corpus: where.
        load: gives values that do not lie in their record; without it, and where it raises, they are left to a `find`
            that can load them.
        lot: how many at most.
    """
    filler = Filler(corpus, load, lot)
    return filler.step() or next((covered for kept in filler.kept.values() if (covered := filler.build(kept))), 0)


class Filler:
    """The next steps of filling one corpus' index.

    Args:
        corpus: where.
        load: gives values that do not lie in their record, see `fill`.
        lot: records or values of one step, at most.
    """

    def __init__(self, corpus: SqlCorpus, load: Load | None = None, lot: int = LOT) -> None:
        self._corpus, self._load, self._lot = corpus, load, lot
        self.look()

    def look(self) -> None:
        """Reads how far the index is."""
        self.kept = read_kept(self._corpus.query)
        self.mark = read_mark(self._corpus.meta(MARK)) if self.kept else Mark(0)
        self._newest = max((field.id for kept in self.kept.values() for field in (kept.own, *kept.fields)), default=0)

    def until(self, last: int, collection: str, paths: Iterable[str]) -> None:
        """Returns when a collection's values, and these fields of theirs, are indexed up to a position."""
        wanted = set(paths)
        (row,) = self._corpus.query("SELECT id FROM name WHERE s=?", (collection,)) or [(0,)]
        while (kept := self.kept.get(row[0])) is not None:
            if self.mark is None or self.mark.pos < last:
                self.step()
            elif not self.build(
                msgspec.structs.replace(kept, fields=tuple(f for f in kept.fields if f.path in wanted))
            ):
                return
            self.look()

    def step(self) -> int:
        """Takes whole collections further; how many records that covered, 0 when there were none."""
        if not self.kept:
            return 0
        last = self._corpus.last()
        if self.mark is None or self.mark.pos > last:
            self._corpus.write(reset)
            return 1
        whole = {coll: kept for coll, kept in self.kept.items() if kept.whole}
        if self.mark.pos >= last:
            return 0
        if not whole:
            return self._change(None, _Lot(), last, last - self.mark.pos)
        return self._walk(whole, None, self.mark.pos, last)

    def build(self, kept: Kept) -> int:
        """Takes a collection further, or fields of it, that was declared when it had values already."""
        assert self.mark is not None
        if not kept.whole:
            # With all fields that there are: those that come later walk along the items.
            coll = kept.own.coll
            return self._walk({coll: self.kept[coll]}, kept.own, kept.own.built, self.mark.pos)
        unbuilt = [field for field in kept.fields if field.built != WHOLE]
        return self._extend(kept, unbuilt[0]) if unbuilt else 0

    # -- along the records --------------------------------------------------------------------------------------

    def _walk(self, kept: dict[int, Kept], own: Field | None, after: int, last: int) -> int:
        end = min(last, after + WINDOW)
        sql = _CHANGES.format(",".join(map(str, sorted(kept))))
        args = (DELETE_PREFIX, after, end, VALUE | TOMBSTONE, self._lot)
        rows = self._corpus.query(sql, args)
        if len(rows) == self._lot:
            end = rows[-1][0]
        for number, row in enumerate(rows):
            if row[4] & TOMBSTONE and row[5]:
                if not number:
                    return self._uncover(own, row)
                rows, end = rows[:number], row[0] - 1
                break
        touched: dict[tuple[int, int, str], _Touch] = {}
        for pos, agent, coll, key, flags, _, *known in rows:
            touch = touched.get((agent, coll, key))
            if touch is None:
                touch = touched[agent, coll, key] = _Touch(agent, coll, key, *known)
            touch.see(pos, flags)
        changes = self._lot_of([each for each in touched.values() if not each.settled], kept)
        return self._change(own, changes, end, max(1, len(rows)), last)

    def _lot_of(self, touched: Sequence[_Touch], kept: dict[int, Kept]) -> _Lot:
        made = _Lot()
        records = self._records([each.pos for each in touched if each.id and each.pos])
        old = self._entries([each.item for each in touched if each.item and each.item == each.id])
        for each in touched:
            number = each.id
            stored = records.get(each.pos or 0) if number else None
            if stored is None or number is None:
                if each.item is not None:
                    made.gone.setdefault(each.coll, []).append(each.item)
                continue
            entries, bare = self._read(stored, kept[each.coll])
            if each.item == number and sorted(entries) == old.get(number, []):
                made.moved.setdefault(each.coll, []).append(number)
            else:
                if each.item is not None:
                    made.gone.setdefault(each.coll, []).append(each.item)
                made.add(number, entries, kept[each.coll].fields)
            made.items.append((each.coll, number, each.agent, each.key, stored.pos, bare))
        return made

    def _records(self, positions: Iterable[int | None]) -> dict[int, Stored]:
        wanted = [pos for pos in positions if pos]
        found: dict[int, Stored] = {}
        for first in range(0, len(wanted), LOT):
            lot = wanted[first : first + LOT]
            sql = f"SELECT {COLUMNS} FROM rec r WHERE r.pos IN ({','.join('?' * len(lot))})"
            found |= {stored.pos: stored for stored in self._corpus.rows(sql, lot)}
        return found

    def _entries(self, items: Iterable[int | None]) -> dict[int, list[tuple[int, bytes]]]:
        wanted = [item for item in items if item]
        found: dict[int, list[tuple[int, bytes]]] = {}
        if wanted:
            sql = f"SELECT item, field, v FROM entry WHERE item IN ({','.join('?' * len(wanted))}) ORDER BY field, v"
            for item, field, key in self._corpus.query(sql, wanted):
                found.setdefault(item, []).append((field, key))
        return found

    def _read(self, stored: Stored, kept: Kept) -> tuple[list[tuple[int, bytes]], int]:
        """The entries of a record's value, and what is said of its item."""
        record = stored.record
        if stored.body is None and stored.why in (wire.REDACTED, wire.QUARANTINED):
            return [], NOTHING
        if record.flags & SEALED:
            return [], LOOKED_AT  # what is sealed must not lie open beside itself
        if record.fmt != codec.FMT_JSON:
            return [], NOTHING
        value = value_here(stored, self._load)
        if value is UNREAD:
            return [], AWAY
        if not isinstance(value, dict):
            return [], NOTHING
        entries = kept.entries(value)
        return ([], LOOKED_AT) if entries is None else (entries, HERE)

    def _change(self, own: Field | None, changes: _Lot, end: int, covered: int, last: int = 0) -> int:
        """Writes a lot and moves the mark; 1 if somebody else was faster, for then there may be more to do."""

        def job(tx: SqlTransaction) -> bool:
            if not self._unchanged(tx, own):
                return False
            changes.write(tx)
            self._move(tx, own, end, last)
            return True

        return covered if self._corpus.write(job) else 1

    def _unchanged(self, tx: SqlTransaction, own: Field | None) -> bool:
        if read_mark(tx.meta(MARK)) != self.mark:
            return False
        if tx.sql("SELECT coalesce(max(id), 0) FROM field").fetchone()[0] != self._newest:
            return False
        return own is None or tx.sql("SELECT built FROM field WHERE id=?", (own.id,)).fetchone() == (own.built,)

    def _move(self, tx: SqlTransaction, own: Field | None, end: int, last: int) -> None:
        assert self.mark is not None
        if own is None:
            set_mark(tx, Mark(end, self.mark.drops))
        else:
            tx.sql("UPDATE field SET built=? WHERE id=?", (WHOLE if end >= last else end, own.id))

    def _uncover(self, own: Field | None, row: Any) -> int:
        """Takes out what a deletion by prefix hides: a lot at a time, and the mark moves with the last of it."""
        pos, agent, coll, prefix = row[:4]
        span, ends = within("i.key", prefix)

        def job(tx: SqlTransaction) -> bool:
            if not self._unchanged(tx, own):
                return False
            found = tx.sql(_COVERED.format(span), (coll, agent, *ends, pos, pos, self._lot)).fetchall()
            take_out(tx, {coll: [each[0] for each in found]})
            if len(found) < self._lot:
                self._move(tx, own, pos, 1 << 62)
            return True

        self._corpus.write(job)
        return 1

    # -- along the items ----------------------------------------------------------------------------------------

    def _extend(self, kept: Kept, field: Field) -> int:
        """Adds a field to items that were there before it was declared."""
        sql = "SELECT id, pos FROM item WHERE coll=? AND id>? AND bare=0 ORDER BY id LIMIT ?"
        rows = self._corpus.query(sql, (field.coll, field.built, self._lot))
        records = self._records([pos for _, pos in rows])
        made: dict[int, tuple[int, list[tuple[int, bytes]], int]] = {}
        for number, pos in rows:
            stored = records.get(pos)
            entries, bare = ([], AWAY) if stored is None else self._read(stored, Kept(kept.own, (field,)))
            made[number] = (pos, entries, bare)
        end = rows[-1][0] if len(rows) == self._lot else WHOLE

        def job(tx: SqlTransaction) -> None:
            if not self._unchanged(tx, field):
                return
            add_entries(tx, field.coll, made, (field,), only=field)
            tx.sql("UPDATE field SET built=? WHERE id=?", (end, field.id))

        self._corpus.write(job)
        return max(1, len(rows))


def add_entries(
    tx: SqlTransaction,
    coll: int,
    made: dict[int, tuple[int, list[tuple[int, bytes]], int]],
    fields: Sequence[Field],
    *,
    only: Field | None = None,
) -> None:
    """Gives items their entries (of one field only), unless their keys have other values by now.

    Args:
        tx: the open transaction.
        coll: their collection.
        made: item -> the pos of its record, the entries of it, and what the item is from here on.
        fields: the fields these are of.
        only: entries of other fields stay.
    """
    if not made:
        return
    marks = ",".join("?" * len(made))
    rows = tx.sql(f"SELECT id, pos, agent, key FROM item WHERE coll=? AND id IN ({marks})", (coll, *made)).fetchall()
    changes, same = _Lot(), []
    for number, pos, agent, key in rows:
        if made[number][0] != pos:
            continue
        _, entries, bare = made[number]
        if only is not None and bare == HERE:
            same.append(number)
        else:
            changes.gone.setdefault(coll, []).append(number)
            changes.items.append((coll, number, agent, key, pos, bare))
        changes.add(number, entries, fields)
    if same and only is not None:
        tx.sql(f"DELETE FROM entry WHERE item IN ({','.join('?' * len(same))}) AND field=?", (*same, only.id))
    changes.write(tx)


def value_here(stored: Stored, load: Load | None) -> Any:
    """The value of a record that is not sealed; `UNREAD` where it is not here, or cannot be read."""
    try:
        if stored.body is not None and not stored.is_blob:
            return codec.deserialise(stored.record.fmt, stored.payload())
        if load is not None and stored.body is not None:
            return load(stored)
    except (HoldfastError, OSError):
        pass  # what is damaged is `verify`'s to report, and what is away a `find` fetches
    return UNREAD

"""Holds the index against what it is derived from: keys, their newest versions, and the values of these."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from holdfast import codec, wire
from holdfast.corpus.index.fields import MARK, WHOLE, Kept, Mark, read_kept, read_mark
from holdfast.corpus.index.filling import HERE, LOOKED_AT, NOTHING, UNREAD, value_here
from holdfast.corpus.index.planning import Execute
from holdfast.corpus.rows import COLUMNS, Stored
from holdfast.corpus.sql import SqlCorpus
from holdfast.records import SEALED

FOUND_MAX: Final = 100
"""So many of one kind are named."""
_STEP: Final = 500


def differences(corpus: SqlCorpus, execute: Execute) -> Iterator[tuple[str, str]]:
    """Whose, and in words what of the index is not as it follows from the log up to its watermark, in one moment.

    An index without a watermark, or with one behind the newest record, is worth nothing to anybody, and is not looked
    at; neither are entries of values that are not here.
    """
    mark = read_mark(corpus.unfold(execute("SELECT v FROM meta WHERE k=?", (MARK,)).fetchone()))
    if mark is None or mark.pos > (execute("SELECT max(pos) FROM rec").fetchone()[0] or 0):
        return
    kept = read_kept(lambda sql, args: execute(sql, args).fetchall())
    for each in kept.values():
        if each.whole:
            (collection,) = execute("SELECT s FROM name WHERE id=?", (each.own.coll,)).fetchone() or ("",)
            yield from _Proof(corpus, execute, each, mark, collection).items()
    sql = (
        "SELECT e.item FROM entry e LEFT JOIN field f ON f.id=e.field LEFT JOIN item i ON i.coll=f.coll AND i.id=e.item"
        f" WHERE i.id IS NULL LIMIT {FOUND_MAX}"
    )
    for number in dict.fromkeys(row[0] for row in execute(sql).fetchall()):
        yield "", f"the index has entries of an item {number} that is not there"


class _Proof:
    """The proof of one collection."""

    def __init__(self, corpus: SqlCorpus, execute: Execute, kept: Kept, mark: Mark, collection: str) -> None:
        self._corpus, self._execute, self._mark, self._collection = corpus, execute, mark, collection
        built = tuple(field for field in kept.fields if field.built == WHOLE)
        self._kept = Kept(kept.own, built)
        self._unbuilt = len(built) < len(kept.fields)

    def items(self) -> Iterator[tuple[str, str]]:
        """What is wrong with its items and their entries."""
        coll, after = self._kept.own.coll, 0
        while True:
            sql = (
                "SELECT i.id, i.pos, i.bare, i.key, n.s, st.pos, st.gone FROM item i LEFT JOIN state st"
                " ON st.agent=i.agent AND st.coll=i.coll AND st.key=i.key LEFT JOIN name n ON n.id=i.agent"
                f" WHERE i.coll=? AND i.id>? ORDER BY i.id LIMIT {_STEP}"
            )
            rows = self._execute(sql, (coll, after)).fetchall()
            yield from self._lot(rows)
            if len(rows) < _STEP:
                break
            after = rows[-1][0]
        sql = (
            "SELECT st.key, n.s FROM state st LEFT JOIN name n ON n.id=st.agent WHERE st.coll=? AND st.gone=0"
            " AND st.pos<=? AND NOT EXISTS (SELECT 1 FROM item i WHERE i.coll=st.coll AND i.agent=st.agent AND"
            f" i.key=st.key) LIMIT {FOUND_MAX}"
        )
        for key, agent in self._execute(sql, (coll, self._mark.pos)).fetchall():
            yield agent or "", f"{self._collection}/{key} has a value and is not in the index"

    def _lot(self, rows: list[Any]) -> Iterator[tuple[str, str]]:
        if not rows:
            return
        marks = ",".join("?" * len(rows))
        sql = f"SELECT {COLUMNS} FROM rec r WHERE r.pos IN ({marks})"
        found = self._execute(sql, [row[1] for row in rows]).fetchall()
        records = {row[0]: self._corpus.stored(row) for row in found}
        entries: dict[int, list[tuple[int, bytes]]] = {}
        sql = f"SELECT e.item, e.field, e.v FROM entry e WHERE e.item IN ({marks}) ORDER BY e.field, e.v"
        for item, field, key in self._execute(sql, [row[0] for row in rows]).fetchall():
            entries.setdefault(item, []).append((field, bytes(key)))
        for number, pos, bare, key, agent, newest, gone in rows:
            name = f"{self._collection}/{key}"
            if newest is None or (gone and gone <= self._mark.pos):
                yield agent or "", f"the index has {name}, which has no value"
            elif newest <= self._mark.pos and newest != pos:
                yield agent or "", f"the index has {name} as it was at {pos}; its value is at {newest}"
            elif newest == pos and pos in records and not self._right(records[pos], bare, entries.get(number, [])):
                yield agent or "", f"the index does not have of {name} what it holds"

    def _right(self, stored: Stored, bare: int, entries: list[tuple[int, bytes]]) -> bool:
        mine = {field.id for field in self._kept.fields}
        have = [each for each in entries if each[0] in mine or not self._unbuilt]
        sealed = bool(stored.record.flags & SEALED)
        if bare != HERE or sealed:
            if have or (sealed and bare not in (LOOKED_AT, NOTHING)):
                return False
            value = UNREAD if sealed or bare != NOTHING or stored.why == wire.REDACTED else self._value(stored)
            return not isinstance(value, dict)
        if stored.why == wire.REDACTED:
            return False
        value = self._value(stored)
        if value is UNREAD:
            return True
        wanted = self._kept.entries(value) if isinstance(value, dict) else None
        return wanted is not None and sorted(wanted) == have

    def _value(self, stored: Stored) -> Any:
        return value_here(stored, None) if stored.record.fmt == codec.FMT_JSON else None

"""Which fields of which collections are indexed, how far the index is, and how what it holds is taken out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from holdfast.corpus.index.question import keys_of, words_of
from holdfast.corpus.sql import SqlCorpus
from holdfast.corpus.transaction import SqlTransaction
from holdfast.query import check_field

MARK: Final = "index_pos"
"""In `meta`: a `Mark`. Whoever finds none, or one behind the newest record, fills the index from the start."""
WHOLE: Final = -1
KEYS_MAX: Final = 4_000
"""A value with more members or words in its fields together is not indexed but looked at with each question."""
_LOT: Final = 500
_FIELDS: Final = "SELECT id, coll, path, words, built, many FROM field"


class Mark(msgspec.Struct, array_like=True, frozen=True):
    """Up to which position whole collections are indexed; `drops` counts what was taken out by others than the filler,
    who thus learns that what he has read meanwhile may have to be forgotten.
    """

    pos: int
    drops: int = 0


class Field(msgspec.Struct, frozen=True):
    """A row of the table `field`: what is kept of a path, or with `words` of the words there.

    `built` says how far what was there before the declaration has been gone through (`WHOLE`: all of it), `many`
    whether some value has several members there.
    """

    id: int
    coll: int
    path: str
    words: int
    built: int
    many: int

    def keys(self, value: Any) -> list[bytes]:
        """What is kept of a value."""
        return words_of(value, self.path) if self.words else keys_of(value, self.path)


class Kept(msgspec.Struct, frozen=True):
    """What is indexed of one collection: the collection's own row, and its fields."""

    own: Field
    fields: tuple[Field, ...]

    @property
    def whole(self) -> bool:
        """Whether its items are kept up to the mark."""
        return self.own.built == WHOLE

    def entries(self, value: Any) -> list[tuple[int, bytes]] | None:
        """The field and bytes of each entry of a value; None if they are too many."""
        found: list[tuple[int, bytes]] = []
        for field in self.fields:
            found += [(field.id, key) for key in field.keys(value)]
            if len(found) > KEYS_MAX:
                return None
        return found

    def find(self, path: str, *, words: bool = False) -> Field | None:
        """The field of this path."""
        return next((each for each in self.fields if each.path == path and bool(each.words) is words), None)


def read_kept(rows: Callable[..., Any], collection: str | None = None) -> dict[int, Kept]:
    """What is indexed, by the number of the collection; of one collection alone where it is named.

    Args:
        rows: gives all rows of a query.
        collection: its name.
    """
    where, args = ("", ()) if collection is None else (" WHERE coll=(SELECT id FROM name WHERE s=?)", (collection,))
    found: dict[int, list[Field]] = {}
    for row in rows(f"{_FIELDS}{where} ORDER BY id", args):
        found.setdefault(row[1], []).append(Field(*row))
    return {
        coll: Kept(own, tuple(each for each in fields if each.path))
        for coll, fields in found.items()
        for own in fields
        if not own.path
    }


def read_mark(meta: Any) -> Mark | None:
    """The mark in a value of `meta`; None where there is none that could be read."""
    try:
        return msgspec.msgpack.decode(meta, type=Mark) if meta else None
    except (msgspec.MsgspecError, TypeError):
        return None


def set_mark(tx: SqlTransaction, mark: Mark) -> None:
    """Keeps the mark, in the open transaction."""
    tx.set_meta(MARK, msgspec.msgpack.encode(mark))


def declare(corpus: SqlCorpus, collection: str, fields: Iterable[str] = (), *, words: Iterable[str] = ()) -> None:
    """Has a collection indexed by these fields, beside those that it is indexed by already; again is free.

    Values that are there already are indexed by the background filler, or by the first `find` that needs the field.
    A collection without fields is indexed too: its values are found in the order in which they were first written.

    Args:
        corpus: where the collection is, or will be.
        collection: its name.
        fields: fields to compare and to order by.
        words: fields whose words are looked for (`text`).

    Raises:
        UsageError: a field that is none.
    """
    wanted = {(check_field(field), 0) for field in fields} | {(check_field(field), 1) for field in words} | {("", 0)}
    sql = "SELECT path, words FROM field WHERE coll=(SELECT id FROM name WHERE s=?)"
    if wanted <= {tuple(row) for row in corpus.query(sql, (collection,))}:
        return

    def job(tx: SqlTransaction) -> None:
        new = not tx.sql("SELECT 1 FROM name WHERE s=?", (collection,)).fetchone()
        coll = tx.name(collection)
        if read_mark(tx.meta(MARK)) is None:  # the first that is declared, or what there was is worth nothing
            reset(tx)
        there = {tuple(row) for row in tx.sql("SELECT path, words FROM field WHERE coll=?", (coll,)).fetchall()}
        bare = not tx.sql("SELECT 1 FROM item WHERE coll=? LIMIT 1", (coll,)).fetchone()
        (newest,) = tx.sql("SELECT coalesce(max(id), 0) FROM field").fetchone()
        sql = "INSERT INTO field(id, coll, path, words, built, many) VALUES(?,?,?,?,?,0)"
        for number, (path, kind) in enumerate(sorted(wanted - there), newest + 1):
            tx.sql(sql, (number, coll, path, kind, WHOLE if (bare if path else new) else 0))

    corpus.write(job)


def declared(corpus: SqlCorpus, collection: str) -> tuple[list[str], list[str]]:
    """The fields that a collection is indexed by, and those whose words are."""
    found = read_kept(corpus.query, collection)
    fields = sorted((each.path, each.words) for kept in found.values() for each in kept.fields)
    return [path for path, words in fields if not words], [path for path, words in fields if words]


def filled(corpus: SqlCorpus) -> int:
    """The position up to which every value has been read for what is indexed; the newest where nothing is."""
    kept = read_kept(corpus.query)
    if not kept:
        return corpus.last()
    if any(each.own.built != WHOLE for each in kept.values()):
        return 0  # what was there before the declaration is still being gone through
    mark = read_mark(corpus.meta(MARK))
    return mark.pos if mark is not None else 0


def reset(tx: SqlTransaction) -> None:
    """Empties the index, so that it is filled anew; what is declared stays."""
    before = read_mark(tx.meta(MARK)) or Mark(0)
    tx.sql("DELETE FROM entry")
    tx.sql("DELETE FROM item")
    tx.sql("UPDATE field SET built=CASE WHEN path='' THEN 0 ELSE -1 END, many=0")
    set_mark(tx, Mark(tx.last(), before.drops + 1))


def drop(tx: SqlTransaction, records: Sequence[tuple[int, int, int, str]]) -> None:
    """Takes out what was kept of records whose bodies were taken away in this transaction.

    Args:
        tx: the open transaction.
        records: the pos, and the numbers of the agent and the collection, and the key of each.
    """
    kept = {row[0] for row in tx.sql("SELECT coll FROM field WHERE path=''").fetchall()}
    ours = [each for each in records if each[2] in kept]
    if not ours:
        return
    for pos, agent, coll, key in ours:
        sql = "SELECT id FROM item WHERE coll=? AND agent=? AND key=? AND pos=?"
        row = tx.sql(sql, (coll, agent, key, pos)).fetchone()
        if row:  # its place stays taken: what the key holds next is not a new one
            tx.sql("DELETE FROM entry WHERE item=?", (row[0],))
            tx.sql("UPDATE item SET bare=-1 WHERE coll=? AND id=?", (coll, row[0]))
    before = read_mark(tx.meta(MARK))
    if before is not None:  # a filler may have read these bodies, and not yet written what it made of them
        set_mark(tx, Mark(before.pos, before.drops + 1))


def take_out(tx: SqlTransaction, items: dict[int, list[int]]) -> None:
    """Takes items and their entries out, by the numbers of their collections."""
    for coll, ids in items.items():
        for first in range(0, len(ids), _LOT):
            lot = ids[first : first + _LOT]
            marks = ",".join("?" * len(lot))
            tx.sql(f"DELETE FROM entry WHERE item IN ({marks})", lot)
            tx.sql(f"DELETE FROM item WHERE coll=? AND id IN ({marks})", (coll, *lot))

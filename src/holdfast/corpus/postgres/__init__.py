"""The corpus on PostgreSQL: a hub's, shared by as many hub processes as there are.

psycopg is imported when a database is opened, and only in `door`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from holdfast import codec
from holdfast.corpus.postgres.door import Database
from holdfast.corpus.postgres.engine import PostgresEngine
from holdfast.corpus.postgres.transaction import TAG_BYTES_MAX, PostgresTransaction, whose
from holdfast.corpus.rows import COLUMNS, Stored
from holdfast.corpus.search import WORD_CHARS_MAX
from holdfast.corpus.sql import SqlCorpus

__all__ = ["Database", "PostgresCorpus", "PostgresEngine"]

WINDOW: Final = 2_000
"""Positions that a search looks through without the index of words: some 5 ms."""
_NEAR: Final = "SELECT pos FROM fts WHERE t @@ ?::tsquery AND pos<? AND pos>=? ORDER BY pos DESC LIMIT ?"
_FAR: Final = "SELECT pos FROM fts WHERE t @@ ?::tsquery AND pos<? ORDER BY pos DESC LIMIT ?"


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
        words = []
        for term, prefix in terms:
            words += [f"'{word[:WORD_CHARS_MAX]}'" for word in term]
            words[-1] += ":*" if prefix else ""
        query = " & ".join(words)
        if agents:
            query += f" & ({' | '.join(map(whose, agents))})"
        with self.moment() as execute:
            # A common word is among the newest. For others there is the index of words, which knows no order: so it is
            # the one that is asked with a bitmap, and everything that it finds is sorted.
            found = execute(_NEAR, (query, below, below - WINDOW, limit)).fetchall()
            if len(found) < limit:
                execute("SET LOCAL enable_bitmapscan=on")
                execute("SET LOCAL enable_indexscan=off")
                found = execute(_FAR, (query, below, limit)).fetchall()
        marks = ",".join("?" * len(found))
        sql = f"SELECT {COLUMNS} FROM rec r WHERE r.pos IN ({marks}) ORDER BY r.pos DESC"
        return self.rows(sql, [row[0] for row in found]) if found else []

    def known_name(self, text: str) -> int | None:
        """The number of a name, if it is remembered."""
        return self._ids.get(text)

    def learn_name(self, text: str, number: int) -> None:
        """Remembers the number of a name; a rollback forgets it."""
        self._ids[text] = number

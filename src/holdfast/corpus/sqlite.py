"""The corpus on SQLite: an agent's log (pos = seq, one branch) or a hub's (many branches), by one set of tables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from holdfast.corpus.beholder import Beholder
from holdfast.corpus.engine import Engine
from holdfast.corpus.port import Filter, Head
from holdfast.corpus.rows import COLUMNS, Stored
from holdfast.corpus.search import words_of
from holdfast.corpus.sql import MESSAGES as MESSAGES
from holdfast.corpus.sql import TAGS as TAGS
from holdfast.corpus.sql import SqlCorpus
from holdfast.corpus.transaction import HEAD_AGENT
from holdfast.corpus.transaction import SqliteTransaction as SqliteTransaction
from holdfast.errors import IntegrityError
from holdfast.records import genesis
from holdfast.wire import RECORDS_MAX

# From message to message, newest first. Where one was pruned, the record before it knows the way.
_WAY: Final = (
    "WITH RECURSIVE way(pos, back) AS (SELECT pos, back FROM rec WHERE pos=(SELECT max(pos) FROM rec WHERE pos<?)"
    " UNION ALL SELECT n.pos, n.back FROM way w CROSS JOIN rec n"
    " ON n.pos=(SELECT max(pos) FROM rec WHERE pos<=min(w.back, w.pos-1)))"
)
_PLACES: Final = "SELECT rowid AS pos FROM fts WHERE fts MATCH ? AND rowid<? ORDER BY rowid DESC LIMIT ?"
_MATCH: Final = f"SELECT {COLUMNS} FROM ({_PLACES}) f CROSS JOIN rec r ON r.pos=f.pos ORDER BY r.pos DESC"
PURGE_PAGES: Final = 500
"""Pages of the index that are merged in one transaction: some ten milliseconds."""
_ON_WAY: Final = " ON r.pos=w.pos WHERE "


class SqliteCorpus(SqlCorpus):
    """All records of one file. Safe to share among threads and processes.

    Args:
        path: the database file; its directory exists.
        hub: whether many streams share it (then several branches of each may).
        full: commit with an fsync each (level CRITICAL).
        options: passed to `Engine`; with ``read_only=True`` it is a `Beholder`, which changes nothing.
    """

    engine: Engine
    tx: SqliteTransaction

    def __init__(self, path: Path, *, hub: bool = False, full: bool = False, **options: Any) -> None:
        super().__init__(hub=hub)
        kind = Beholder if options.pop("read_only", False) else Engine
        self.engine = kind(path, roles=("", "hub" if hub else "agent"), full=full, **options)
        self.engine.on_rollback = self._undone
        self.tx = self.engine.hands = SqliteTransaction(self)
        self.engine.on_change = self.tx.forget

    def matching(
        self, terms: Sequence[tuple[list[str], bool]], below: int, limit: int, agents: Sequence[str] = ()
    ) -> list[Stored]:
        """Records below a pos that the index has for all these terms (words in a row; the last a beginning)."""
        return self.rows(_MATCH, (_asked(terms, agents), below, limit))

    def places(
        self, terms: Sequence[tuple[list[str], bool]], below: int, limit: int, agents: Sequence[str] = ()
    ) -> list[int]:
        """The positions of the same, without the records."""
        return [row[0] for row in self.query(_PLACES, (_asked(terms, agents), below, limit))]

    def places_of_each(
        self, some: Sequence[Sequence[tuple[list[str], bool]]], below: int, limit: int, agents: Sequence[str] = ()
    ) -> list[list[int]]:
        """The same for each of several searches."""
        return [self.places(terms, below, limit, agents) for terms in some]

    def sort_words(self) -> None:
        """Nothing: this index notes nothing that it does not sort in."""

    def scour(self, *, index: bool) -> bool:
        """Lets go of what is still kept of rows as they were, with `index` of their words; False while one is read."""
        if index:
            self.merge_index(PURGE_PAGES)
        return self.engine.scour()  # what SQLite frees in the file itself it overwrites (``secure_delete``)

    def merge_index(self, pages: int) -> None:
        """Drops the words of records that are gone, so many pages a transaction: writers come in between."""
        # An index without texts cannot look up which words a record had: it only notes that the record is gone, and
        # drops its words when segments are merged.
        step = f"INSERT INTO fts(fts, rank) VALUES('merge', {-pages})"

        def job(tx: SqliteTransaction) -> int:
            before = tx.sql("SELECT total_changes()").fetchone()[0]
            tx.sql(step)
            return int(tx.sql("SELECT total_changes()").fetchone()[0]) - int(before)

        while self.write(job) > 1:  # one change is that of the command itself: nothing was left to merge
            self.engine.checkpoint()

    def size_bytes(self) -> int:
        """What the file and its WAL take on disk."""
        return sum(os.stat(p).st_size for p in (self.engine.path, f"{self.engine.path}-wal") if os.path.exists(p))

    # -- where an agent's own file differs: one branch, and pos is seq -------------------------------------------

    def head(self, branch: int) -> Head:
        """Where a branch stands."""
        if self.hub:
            return super().head(branch)
        row = self.engine.one(HEAD_AGENT)
        row = row or self.engine.one("SELECT base_seq, base_link, 0 FROM branch WHERE id=?", (branch,))
        if row is None or type(row[0]) is not int or type(row[1]) is not bytes or type(row[2]) is not int:
            raise IntegrityError(f"what {self.engine.path.name} ends with is not a record", hint="holdfast verify")
        return Head(*row)

    def page(self, which: Filter) -> list[Stored]:
        """Records in commit order, or newest first."""
        if self.hub or which.collection != MESSAGES or not which.newest_first:
            return super().page(which)
        where, args = self._where(which)
        if where.startswith("tag t"):
            return super().page(which)
        before = (1 << 62) if which.after is None else which.after
        sql = f"{_WAY} SELECT {COLUMNS} FROM way w CROSS JOIN {where.replace(' WHERE ', _ON_WAY, 1)} LIMIT ?"
        return [self.stored(row) for row in self.engine.query(sql, (before, *args, which.limit))]

    def chain(self, branch: int, after: int, limit: int = RECORDS_MAX, bytes_max: int = 1 << 20) -> list[Stored]:
        """Records of one branch's chain behind a seq, its ancestors' included; never cut inside a batch."""
        return (super().chain if self.hub else self._only)(branch, after, limit, bytes_max)

    def _only(self, _: int, after: int, limit: int, bytes_max: int) -> list[Stored]:
        return self.feed(after, limit, bytes_max)

    def link_at(self, branch: int, seq: int) -> bytes | None:
        """The link of a record of a branch's chain, also below its base; None if the file does not hold it."""
        if self.hub:
            return super().link_at(branch, seq)
        if seq == 0:
            found = self.branch(branch)
            return genesis(found.stream) if found else None
        row = self.engine.one("SELECT link FROM rec WHERE pos=?", (seq,))
        return bytes(row[0]) if row else None


def _asked(terms: Sequence[tuple[list[str], bool]], agents: Sequence[str]) -> str:
    """Terms, and whose records are meant, in the words of the index."""
    each = ['"' + " ".join(words) + '"' + ("*" if prefix else "") for words, prefix in terms]
    query = f"t:({' AND '.join(each)})"
    names = [words_of(agent) for agent in agents]
    if names and all(names):  # a name without a word in it is not in the index
        query += " AND a:(" + " OR ".join(['"' + " ".join(words) + '"' for words in names]) + ")"
    return query

"""Everything in a file as it stands at one moment, for those who verify it: one read transaction over all tables."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import apsw
import msgspec

from holdfast.corpus.index.proving import differences
from holdfast.corpus.rows import COLUMNS, Stored
from holdfast.corpus.search import INDEXED, UNINDEXED
from holdfast.corpus.sql import SqlCorpus
from holdfast.corpus.tags import TABLES as tag_tables
from holdfast.errors import IntegrityError
from holdfast.records import BLOB, DELETE_PREFIX, SEALED, TOMBSTONE, VALUE
from holdfast.wire import REDACTED

STEP: Final = 500
"""Rows asked for at once: an engine far away sends all that it is asked for."""
_SEARCHED: Final = f"(r.flags & {TOMBSTONE | SEALED})=0"


def references(corpus: SqlCorpus) -> Iterator[bytes]:
    """The digests of all blobs whose payload some record still has, of every version and branch."""
    # A body that was evicted, redacted or quarantined is NULL, and refers to nothing any more.
    sql = "SELECT DISTINCT substr(body, 1, 32) FROM rec WHERE flags & ? <> 0 AND body IS NOT NULL"
    for (digest,) in corpus.engine.read(sql, (BLOB,)):
        yield bytes(digest)


_INDEXABLE: Final = (
    f"{_SEARCHED} AND r.body IS NOT NULL AND r.key<>'' AND r.coll<>coalesce((SELECT id FROM name WHERE s=''), 0)"
)
"""What is in the index for certain: of the others some are, by when it was filled."""


class Signed(msgspec.Struct, frozen=True):
    """A head that somebody signed: of a branch, at a number; `link` None where the record's own is meant."""

    branch: int
    seq: int
    link: bytes | None
    signature: bytes


class Snapshot:
    """What a file holds, read in one transaction; made by `snapshot`."""

    def __init__(self, corpus: SqlCorpus, query: Callable[..., Any]) -> None:
        self._corpus = corpus
        self._query = query

    def records(self, after: int = 0, until: int = 1 << 62) -> Iterator[Stored]:
        """Every record (behind one position, up to another), in commit order."""
        stored = self._corpus.bare  # what an archive holds, the archive's own proof is for
        for rows in self._lots(COLUMNS, after, until):
            yield from map(stored, rows)

    def rows(self) -> Iterator[list[Any]]:
        """Every record as its row of `COLUMNS` lies there, some hundred at a time; behind them where in an agent's file
        the message before it is.
        """
        return self._lots(f"{COLUMNS}, {0 if self._corpus.hub else 'r.back'}", 0, 1 << 62)

    def _lots(self, columns: str, after: int, until: int) -> Iterator[list[Any]]:
        sql = f"SELECT {columns} FROM rec r WHERE r.pos>? AND r.pos<=? ORDER BY r.pos LIMIT ?"
        while rows := self._query(sql, (after, until, STEP)).fetchall():
            yield rows
            after = _further(after, rows[-1][0])

    def state(self) -> Iterator[tuple[str | None, str | None, str, int, int]]:
        """What the newest version of each key is said to be: agent, collection, key, pos, pos of what hides it."""
        sql = (
            "SELECT st.agent, st.coll, st.key, st.pos, st.gone FROM state st WHERE (st.agent, st.coll, st.key)>(?,?,?)"
            " ORDER BY st.agent, st.coll, st.key LIMIT ?"
        )
        name = functools.cache(self._name)
        after: tuple[Any, ...] = (-1, -1, "")
        while rows := self._query(sql, (*after, STEP)).fetchall():
            for agent, collection, key, pos, gone in rows:
                yield name(agent), name(collection), key, pos, gone
            after = _further(after, tuple(rows[-1][:3]))

    def _name(self, number: int) -> str | None:
        row = self._query("SELECT s FROM name WHERE id=?", (number,)).fetchone()
        return row[0] if row is not None else None

    def parents(self) -> dict[int, int | None]:
        """Which branch each branch grows from."""
        rows: list[Any] = self._query("SELECT id, parent FROM branch").fetchall()
        return dict(rows)

    def signed(self) -> list[Signed]:
        """Every signed head that the file keeps."""
        rows: list[Any] = self._query(
            "SELECT id, seq, link, signature FROM branch WHERE signature IS NOT NULL"
        ).fetchall()
        if self._corpus.hub:
            rows += self._query("SELECT branch, seq, link, signature FROM label").fetchall()
            rows += self._query("SELECT branch, seq, NULL, signature FROM signed").fetchall()
        return [Signed(*row) for row in rows if row[3]]

    def passed_over(self) -> list[tuple[int, int]]:
        """Messages of an agent's file that a walk back from the newest would miss: where it is, and who forgets it."""
        before = "max(iif(coll=1, pos, 0)) OVER (ORDER BY pos ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
        sql = f"SELECT before, pos FROM (SELECT pos, back, {before} AS before FROM rec) WHERE back<before"
        rows: list[Any] = [] if self._corpus.hub else self._query(sql).fetchall()
        return rows

    def signed_in(self, after: int, until: int) -> list[tuple[Signed, bytes]]:
        """The signed heads kept for records behind one position up to another, each with its record's link."""
        if not self._corpus.hub:
            return []
        sql = (
            "SELECT s.branch, s.seq, s.signature, r.link FROM rec r JOIN signed s ON s.branch=r.branch AND s.seq=r.seq"
            " WHERE r.pos>? AND r.pos<=?"
        )
        rows: list[Any] = self._query(sql, (after, until)).fetchall()
        return [(Signed(row[0], row[1], None, bytes(row[2])), bytes(row[3])) for row in rows]

    def unstated(self, after: int, until: int) -> list[tuple[int, str, int, int | None]]:
        """Records whose key has no newest version, or in an agent's file an older one: pos, agent, seq, that pos."""
        older = "st.pos IS NULL" if self._corpus.hub else "st.pos IS NULL OR st.pos<r.pos"
        sql = (
            "SELECT r.pos, n.s, r.seq, st.pos FROM rec r LEFT JOIN state st ON st.agent=r.agent AND st.coll=r.coll AND"
            " st.key=r.key LEFT JOIN name n ON n.id=r.agent WHERE r.pos>? AND r.pos<=? AND (r.flags & ?)<>0 AND NOT"
            f" (r.kind=(SELECT id FROM name WHERE s=?) AND (r.flags & ?)<>0) AND ({older}) ORDER BY r.pos LIMIT 1000"
        )
        args = (after, until, VALUE | TOMBSTONE, DELETE_PREFIX, TOMBSTONE)
        rows: list[Any] = self._query(sql, args).fetchall()
        return rows

    def strayed(self, after: int = 0, until: int = 1 << 62) -> list[tuple[int, str, int, int]]:
        """Records that name another key's version, or nothing, as their predecessor: pos, agent, seq, that pos.

        It may lie at a later position: of two branches the second may bring what the first had replaced.
        """
        lost = "p.pos IS NULL" if self._corpus.hub else "1=0"  # a node may have pruned it
        sql = (
            "SELECT r.pos, n.s, r.seq, r.prior FROM rec r LEFT JOIN rec p ON p.pos=r.prior LEFT JOIN name n"
            " ON n.id=r.agent WHERE r.prior<>0 AND r.pos>? AND r.pos<=?"
            f" AND ({lost} OR p.key<>r.key OR p.coll<>r.coll OR p.agent<>r.agent) ORDER BY r.pos LIMIT 1000"
        )
        rows: list[Any] = self._query(sql, (after, until)).fetchall()
        return rows

    def tags(self) -> Iterator[tuple[int, str, int]]:
        """Every tag: its number, value and position, in that order."""
        sql = "SELECT k, v, pos FROM tag WHERE (k, v, pos)>(?,?,?) ORDER BY k, v, pos LIMIT ?"
        after: tuple[Any, ...] = (-1, "", 0)
        while rows := self._query(sql, (*after, STEP)).fetchall():
            yield from rows
            after = _further(after, tuple(rows[-1]))

    def tag_rows(self) -> Iterator[tuple[Any, ...]]:
        """Every row that a record brought with it: the number of its tag, its position, its columns."""
        for number, (table, columns) in tag_tables.items():
            sql, after = f"SELECT {number}, pos, {columns} FROM {table} WHERE pos>? ORDER BY pos LIMIT ?", -1 << 62
            while rows := self._query(sql, (after, STEP)).fetchall():
                yield from map(tuple, rows)
                after = _further(after, rows[-1][1])

    def has_tag(self, row: Sequence[Any]) -> bool:
        """Whether a tag is there: (number, value, position); or a row, as `tag_rows` gives it."""
        if row[0] not in tag_tables:
            return self._query("SELECT 1 FROM tag WHERE k=? AND v=? AND pos=?", row).fetchone() is not None
        table, columns = tag_tables[row[0]]
        found = self._query(f"SELECT {row[0]}, pos, {columns} FROM {table} WHERE pos=?", (row[1],)).fetchone()
        return found is not None and tuple(found) == tuple(row)

    def index_is_even(self, after: int, until: int) -> bool:
        """Whether the search index, as far as it is filled, holds these positions: by sums, which cost next to nothing.

        False does not mean that it does not: `unindexed` and `overindexed` say which.
        """
        until = min(until, self._indexed())
        if after >= until:
            return True
        sums = "count(*), sum({0} % 1000003), sum(({0} % 1000003) * ({0} % 997) % 999983)"
        rows = f"SELECT {sums.format('r.pos')} FROM rec r WHERE r.pos>? AND r.pos<=? AND {_INDEXABLE}"
        held = f"SELECT {sums.format('d.id')} FROM fts_docsize d WHERE d.id>? AND d.id<=?"
        if until == self._indexed():
            held = held.removesuffix(" AND d.id<=?") + " AND ?>0"  # beyond it there must be none
        args = (after, until)
        return bool(self._query(rows, args).fetchone() == self._query(held, args).fetchone())

    def unindexed(self, after: int, until: int, limit: int) -> list[tuple[int, str, int]]:
        """Records that the search index should hold by now, and lacks: pos, agent, seq.

        Where words were let go with their bodies, a body may have come back alone.
        """
        after = max(after, self.meta(UNINDEXED) or 0)
        sql = (
            f"SELECT r.pos, (SELECT n.s FROM name n WHERE n.id=r.agent), r.seq FROM rec r WHERE r.pos>? AND r.pos<=?"
            f" AND {_INDEXABLE}"
            " AND NOT EXISTS (SELECT 1 FROM fts_docsize d WHERE d.id=r.pos) ORDER BY r.pos LIMIT ?"
        )
        until = min(until, self._indexed())
        rows: list[Any] = self._query(sql, (after, until, limit)).fetchall() if after < until else []
        return rows

    def overindexed(self, after: int, until: int, limit: int) -> list[int]:
        """Positions that the search index holds, where there is nothing to be searched."""
        sql = (
            "SELECT d.id FROM fts_docsize d WHERE d.id>? AND d.id<=? AND (d.id>? OR NOT EXISTS (SELECT 1 FROM rec r"
            f" WHERE r.pos=d.id AND {_SEARCHED})) ORDER BY d.id LIMIT ?"
        )
        mark = self._indexed()
        until = until if until < mark else 1 << 62
        rows: list[Any] = self._query(sql, (after, until, mark, limit)).fetchall() if mark >= 0 else []
        return [row[0] for row in rows]

    def overvectored(self, after: int, until: int, limit: int) -> list[int]:
        """Positions that indexes of vectors hold, where there is nothing to be searched."""
        sql = (
            "SELECT DISTINCT v.pos FROM vec v WHERE v.pos>? AND v.pos<=? AND NOT EXISTS (SELECT 1 FROM rec r"
            f" WHERE r.pos=v.pos AND {_SEARCHED} AND r.why<>{REDACTED}) ORDER BY v.pos LIMIT ?"
        )
        rows: list[Any] = self._query(sql, (after, until, limit)).fetchall()
        return [row[0] for row in rows]

    def words(self) -> tuple[int, int]:
        """How many words were put into the search index, and how many it holds; -1: that cannot be read."""
        if self._indexed() < 0:
            return 0, 0
        self._query("CREATE VIRTUAL TABLE IF NOT EXISTS temp.fts_words USING fts5vocab('main', 'fts', 'row')")
        try:
            there = self._query("SELECT coalesce(sum(cnt), 0) FROM temp.fts_words").fetchone()[0]
        except apsw.CorruptError:  # the index leads nowhere; the records are none of its business
            there = -1
        row = self._query("SELECT block FROM fts_data WHERE id=1").fetchone()
        rows, *columns = _varints(row[0]) if row is not None and row[0] else [0]
        if rows != self._query("SELECT count(*) FROM fts_docsize").fetchone()[0]:
            return -1, there
        return sum(columns), there

    def _indexed(self) -> int:
        """Up to where the search index is filled; -1 where the engine looks after it by itself."""
        return (self.meta(INDEXED) or 0) if self._corpus.index_is_exact else -1

    def index(self) -> Iterator[tuple[str, str]]:
        """What of the index does not follow from the records: whose, and what, in words."""
        return differences(self._corpus, self._query)

    def meta(self, key: str) -> Any:
        """A value kept beside the records, or None."""
        return self._corpus.unfold(self._query("SELECT v FROM meta WHERE k=?", (key,)).fetchone())


def _further(after: Any, last: Any) -> Any:
    """Where to read on. A page in another's place may lead a walk back to where it was: for ever, if it were followed.

    Raises:
        IntegrityError: the rows are not in order.
    """
    try:
        if last > after:
            return last
    except TypeError:  # rows of another table
        pass
    raise IntegrityError("the rows of a table run in a circle", hint="restore the file, or refetch it from the hub")


def _varints(block: bytes) -> list[int]:
    """The numbers in a record of FTS5: seven bits a byte, the highest first."""
    found, number = [], 0
    for byte in bytes(block):
        number = number << 7 | byte & 0x7F
        if byte < 0x80:
            found.append(number)
            number = 0
    return found


@contextlib.contextmanager
def snapshot(corpus: SqlCorpus) -> Iterator[Snapshot]:
    """The file as it stands when the block begins; writers go on, and the WAL grows until it ends.

    Raises:
        IntegrityError: a damaged page was met.
    """
    with corpus.moment() as query:
        yield Snapshot(corpus, query)

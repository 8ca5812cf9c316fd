"""The vectors nearest to another as the database itself finds them, where it has pgvector.

The table `near` holds the vectors of `vec` once more, in halves and in pgvector's type, with a graph (HNSW) over those
of each index that has many. It is no second truth:

1. `vec` is the source. A row of `near` refers to its row there and goes with it in the same transaction, whoever
   deletes that, also a process that has never heard of `near`.
2. Of each index it holds the oldest rows, without a gap: they are copied in the order of their numbers, and `vec` is
   added to at its end alone. What lies behind is compared exactly; where that is much, the database is not asked.
3. No writer waits for it. Rows are copied and graphs are grown behind the commits, on a connection of their own that
   takes no turn, by one process at a time; where a row is just being deleted, the copying stands back.
4. What a graph finds is compared exactly before it is answered, and a graph that finds too few is not believed.

Without the extension, or without `near`, the caller compares vectors in memory, as on SQLite.
"""

from __future__ import annotations

import contextlib
import logging
import struct
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from holdfast.errors import HoldfastError, HubUnavailable

if TYPE_CHECKING:
    from holdfast.corpus.postgres import PostgresCorpus
    from holdfast.corpus.search.indexes import Index

logger = logging.getLogger(__name__)

LEAST: Final = (0, 8)
"""The oldest pgvector: from it on a graph goes on looking until it has found as many as were asked for."""
DIMS_MAX: Final = 4_000
"""The longest vector that a graph takes, in halves."""
TAIL_MAX: Final = 2_000
"""So many vectors that are not copied yet are compared here, some 5 ms; with more of them the database is not asked."""
GRAPH_FROM: Final = 5_000
"""From so many vectors on an index gets a graph; fewer are compared exactly by the database as fast."""
LOT: Final = 200
"""Rows copied at once: growing the graph by one takes 2 ms, and who erases one of them waits for the lot."""
EF: Final = 200
EF_MAX: Final = 1_000
"""How wide a graph looks, at least and at most (pgvector's own limit)."""
MORE: Final = 500
"""So many are asked for beyond what is wanted, or as many again, so that comparing exactly can put them in order."""
ASK_EVERY_S: Final = 300.0
"""How often a database that has no pgvector is asked again."""
BUILD_MEMORY: Final = "256MB"
"""For a graph that is being made: of 200,000 vectors of 384 numbers; a larger one is made more slowly."""
_KEEPING: Final = 71_660
_GRAPH: Final = "near_graph_"
_LOOK: Final = (
    "SELECT n.nspname::text, x.extversion, to_regclass('near') IS NOT NULL, coalesce((SELECT true FROM pg_attribute a"
    " JOIN pg_type t ON t.oid=a.atttypid WHERE a.attrelid=to_regclass('near') AND a.attname='e' AND NOT a.attisdropped"
    " AND t.typname='halfvec' AND t.typnamespace=n.oid), false)"
    " FROM pg_extension x JOIN pg_namespace n ON n.oid=x.extnamespace WHERE x.extname='vector'"
)
_GRAPHS: Final = (
    "SELECT c.relname::text, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid=i.indexrelid"
    f" WHERE i.indrelid='near'::regclass AND starts_with(c.relname::text, '{_GRAPH}')"
)
_OWN_SETTINGS: Final = {
    "lock_timeout": "0",  # a graph that is made waits for whoever reads since before; nobody waits for it
    "maintenance_work_mem": BUILD_MEMORY,
    "max_parallel_maintenance_workers": "0",  # they share memory that containers have little of
    "synchronous_commit": "off",  # what a crash takes is copied again
}
_COPY_HEAD: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_END: Final = b"\xff\xff"


class Near:
    """What finds near vectors in a database, and what keeps it able to. Safe to share among threads.

    Args:
        corpus: the open database.
    """

    def __init__(self, corpus: PostgresCorpus) -> None:
        self._corpus, self._engine = corpus, corpus.engine
        self._types = ""  # the schema of pgvector's types, while `near` is there
        self._looked = False  # whether we know that
        self._not_before = 0.0  # when the database is asked again whether it has pgvector
        self._hand: Any = None  # the connection of whoever keeps it
        self._mine = False  # whether that is us, of all processes
        self._lock = threading.Lock()  # guards _hand
        self.graph_from = GRAPH_FROM

    # -- finding ------------------------------------------------------------------------------------------------

    def near(self, index: Index, query: bytes, most: int) -> list[tuple[int, float]] | None:
        """The positions of the nearest vectors of an index and their cosines, the nearest first; pieces of one record
        all count. None where the database cannot tell.

        Args:
            index: which.
            query: the packed vector.
            most: how many.

        Raises:
            HubUnavailable: the database does not answer.
        """
        if not self._fits(index) or len(query) != 4 * index.dims:
            return None
        try:
            rows = self._found(index, query, most)
        except HubUnavailable:
            raise
        except HoldfastError as error:
            self._lost(error)
            return None
        if rows is None:
            return None
        from holdfast.corpus.search import numbers

        rows.sort(key=lambda row: row[0])  # of equals the later first, as in memory
        exactly = numbers.Rows(index.dims)
        exactly.add([row[2] for row in rows])
        return [(rows[number][1], score) for number, score in exactly.near(query, most)]

    def answers(self, index: Index) -> bool:
        """Whether the database would answer a question about an index now."""
        if not self._fits(index):
            return False
        try:
            behind = self._engine.one(f"SELECT {_behind(index)}", (TAIL_MAX + 1,))[0]
        except HubUnavailable:
            return False
        except HoldfastError as error:
            self._lost(error)
            return False
        return bool(behind <= TAIL_MAX)

    def _fits(self, index: Index) -> bool:
        if not 0 < index.dims <= DIMS_MAX:
            return False
        if not self._looked:
            with contextlib.suppress(HoldfastError), self._engine.reader() as connection:
                self._look(connection)
        return bool(self._types)

    def _found(self, index: Index, query: bytes, most: int) -> list[Any] | None:
        """Rows of `vec` among which the nearest are, all of one moment; None where too many are not copied yet."""
        types, span = self._types, _span(index)
        wanted = most + min(MORE, most)
        ahead = (
            "SELECT set_config('hnsw.ef_search', ?, true), set_config('hnsw.iterative_scan', 'relaxed_order', true),"
            " set_config('plan_cache_mode', 'force_custom_plan', true),"
            f" (SELECT count(*) FROM (SELECT 1 FROM near WHERE {span} LIMIT ?) q), {_behind(index)}"
        )
        order = f"e::{types}.halfvec({index.dims}) OPERATOR({types}.<=>) ?::{types}.halfvec"
        nearest = (
            f"WITH q AS MATERIALIZED (SELECT id FROM near WHERE {span} ORDER BY {{}} LIMIT ?)"
            " SELECT v.id, v.pos, v.v FROM q JOIN vec v ON v.id=q.id"
        )
        asked = _text(query, index.dims), wanted
        with self._engine.moment() as execute:
            *_, there, behind = execute(ahead, (str(min(EF_MAX, max(EF, wanted))), wanted, TAIL_MAX + 1)).fetchone()
            if behind > TAIL_MAX:
                return None
            rows: list[Any] = execute(nearest.format(order), asked).fetchall() if there else []
            if len(rows) < there:  # the graph gave up, or holds no vectors of zeros: no graph has this order
                rows = execute(nearest.format(f"({order}) + 0"), asked).fetchall()
            if behind:
                tail = f"SELECT id, pos, v FROM vec WHERE id>{_mark(index)} AND id<{index.end_row}"
                rows += execute(tail).fetchall()
        return rows

    def _lost(self, error: BaseException) -> None:
        """What was there is there no more: somebody took the extension away, or its files."""
        if self._types:
            logger.warning("pgvector answers no more, vectors are compared in memory: %s", error)
        self._types, self._not_before = "", time.monotonic() + ASK_EVERY_S
        self._engine.drop_readers()  # they have prepared statements about types that will not come back

    # -- keeping ------------------------------------------------------------------------------------------------

    def tend(self) -> bool:
        """Goes one step on: copies a lot of vectors, or makes or removes a graph; whether there is more to do at once.

        Raises:
            HubUnavailable: the database does not answer, or this was called off.
            HoldfastError: what the database said.
        """
        if self._engine.one("SELECT 1 FROM vindex LIMIT 1") is None and not self._types:
            return False  # nothing of it is made where nobody has vectors
        if not self._types and time.monotonic() < self._not_before:
            return False
        driver = self._engine.database.driver
        try:
            return self._step(self._open())
        except driver.Error as error:
            if getattr(error, "sqlstate", "") == "55P03":  # somebody is deleting what was to be copied
                return False
            if error.sqlstate and error.sqlstate[:2] in ("42", "58"):
                self._lost(error)
            raise self._engine.database.ours(error) from error

    def cancel(self) -> None:
        """Has a step that is under way end now, from another thread."""
        with self._lock, contextlib.suppress(Exception):  # it may be over, and the connection with it
            if self._hand is not None:
                self._hand.cancel()

    def leave(self) -> None:
        """Hangs up; another process may keep it from here on."""
        with self._lock:
            if self._hand is not None:
                self._hand.close()
            self._hand, self._mine = None, False

    def ask_again(self) -> None:
        """Has the database asked at the next step whether it has pgvector, which is otherwise done now and then."""
        self._not_before = 0.0

    def _open(self) -> Any:
        with self._lock:
            if self._hand is None or self._hand.closed:
                self._hand, self._mine = self._engine.connect(), False
                for name, value in _OWN_SETTINGS.items():
                    self._hand.execute(f"SET {name} = '{value}'")
            return self._hand

    def _step(self, hand: Any) -> bool:
        if not self._mine:
            asked = f"SELECT pg_try_advisory_lock({_KEEPING}, hashtext($1))"
            self._mine = bool(hand.execute(asked, (self._engine.database.schema,)).fetchone()[0])
        if not self._types and not self._look(hand) and not (self._mine and self._make(hand)):
            self._not_before = time.monotonic() + ASK_EVERY_S
            return False
        if not self._mine:
            return False
        from holdfast.corpus.search.indexes import indexes

        there = indexes(self._corpus)
        graphs = dict(hand.execute(_GRAPHS).fetchall())
        for index in there:
            if 0 < index.dims <= DIMS_MAX and self._copy(hand, index):
                return True
        return self._tend_graphs(hand, there, graphs)

    def _look(self, connection: Any) -> bool:
        """Whether the database has pgvector and `near`."""
        row = connection.execute(_LOOK).fetchone()
        self._looked = True
        self._types = _quoted(row[0]) if row is not None and _version(row[1]) >= LEAST and row[3] else ""
        return bool(self._types)

    def _make(self, hand: Any) -> bool:
        """Makes `near`, and the extension where that is allowed; False where it is not to be had."""
        row = hand.execute(_LOOK).fetchone()
        if row is None:
            if hand.execute("SELECT 1 FROM pg_available_extensions WHERE name='vector'").fetchone() is None:
                return False
            try:
                hand.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
            except self._engine.database.driver.Error as error:
                logger.info("the database has pgvector, and this user may not CREATE EXTENSION vector: %s", error)
                return False
            row = hand.execute(_LOOK).fetchone()
        if row is None or _version(row[1]) < LEAST:
            return False
        column = f"{_quoted(row[0])}.halfvec NOT NULL"
        with hand.transaction():
            # It refers to vec: writers of that wait for us if we wait for one of them, but not for long.
            hand.execute("SET LOCAL lock_timeout = '2s'")
            if not row[2]:
                hand.execute(
                    f"CREATE TABLE near(id bigint PRIMARY KEY REFERENCES vec(id) ON DELETE CASCADE, e {column})"
                )
            elif not row[3]:  # the extension went, with its column, and came back
                hand.execute("TRUNCATE near")
                hand.execute("ALTER TABLE near DROP COLUMN IF EXISTS e")
                hand.execute(f"ALTER TABLE near ADD COLUMN e {column}")
        return self._look(hand)

    def _copy(self, hand: Any, index: Index) -> int:
        """Copies the next lot of an index; how many that were."""
        sql = (
            f"SELECT id, v FROM vec WHERE id>{_mark(index)} AND id<{index.end_row} ORDER BY id LIMIT {LOT}"
            # What is copied here cannot be deleted meanwhile; and what is just being deleted is not waited for, as
            # whoever deletes it might wait for us.
            " FOR KEY SHARE NOWAIT"
        )
        with hand.transaction():
            rows = hand.cursor(binary=True).execute(sql).fetchall()
            if rows:
                with hand.cursor().copy("COPY near(id, e) FROM STDIN (FORMAT BINARY)") as copy:
                    copy.write(_COPY_HEAD + b"".join([_row(number, v) for number, v in rows]) + _COPY_END)
        return len(rows)

    def _tend_graphs(self, hand: Any, there: list[Index], graphs: dict[str, bool]) -> bool:
        """Removes a graph of what has ended, or one that was not finished; makes one that is wanted."""
        named = {f"{_GRAPH}{index.id}": index for index in there}
        for name, valid in graphs.items():
            if not valid or name not in named:
                hand.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
                return True
        for name, index in named.items():
            fits = 0 < index.dims <= DIMS_MAX and index.complete and index.held >= self.graph_from
            if fits and name not in graphs:
                types = self._types
                began = time.monotonic()
                hand.execute(
                    f"CREATE INDEX CONCURRENTLY {name} ON near USING hnsw"
                    f" ((e::{types}.halfvec({index.dims})) {types}.halfvec_cosine_ops) WHERE {_span(index)}"
                )
                hand.execute("ANALYZE near")  # else the planner knows of it in a minute, or, without autovacuum, never
                said = "a graph of %s vectors of %s was made in %.1f s"
                logger.info(said, index.held, index.collection, time.monotonic() - began)
                return True
        return False

    # -- what erasing leaves ------------------------------------------------------------------------------------

    def scour(self, connection: Any) -> bool:
        """Has PostgreSQL let go of rows as they were; False while a graph is made, which reads them."""
        if connection.execute("SELECT to_regclass('near')").fetchone()[0] is None:
            return True
        busy = "SELECT 1 FROM pg_stat_progress_create_index WHERE relid=to_regclass('near')"
        if connection.execute(busy).fetchone() is not None:
            return False
        connection.execute("VACUUM near")
        return True


def _span(index: Index) -> str:
    """The rows of an index, in numbers and not as values: only so the planner knows which graph is theirs."""
    return f"id>={index.first_row} AND id<{index.end_row}"


def _mark(index: Index) -> str:
    """The newest row that is copied."""
    return f"(SELECT coalesce(max(id), {index.first_row}) FROM near WHERE {_span(index)})"


def _behind(index: Index) -> str:
    """How many rows are not copied yet, up to a number that is given."""
    return f"(SELECT count(*) FROM (SELECT 1 FROM vec WHERE id>{_mark(index)} AND id<{index.end_row} LIMIT ?) t)"


def _text(query: bytes, dims: int) -> str:
    return f"[{','.join(map(repr, struct.unpack(f'<{dims}f', query)))}]"


def _row(number: int, packed: bytes) -> bytes:
    """A row of `near` as COPY takes it: its number, and the vector in halves."""
    dims = len(packed) // 4
    halves = struct.pack(f">{dims}e", *struct.unpack(f"<{dims}f", packed))
    return struct.pack(">hiqihh", 2, 8, number, 4 + len(halves), dims, 0) + halves


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'

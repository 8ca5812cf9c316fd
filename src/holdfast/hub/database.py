"""A hub whose everything lies in a PostgreSQL database, so that any number of processes can be that hub.

They share one key, one lineage, the hub's own streams and the blobs, and hold nothing themselves: one that dies leaves
nothing behind. A generation ends when the database's history may have taken another course: it was promoted, recovered
to a point in time, or restored from a dump. A process that starts ends none: what was acknowledged is committed.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from typing import Any, Final

from holdfast import seal
from holdfast.clock import SYSTEM, Clock
from holdfast.corpus.moving import HISTORY
from holdfast.corpus.postgres import Database, PostgresCorpus, sqlviews
from holdfast.corpus.postgres.blobs import BlobTable
from holdfast.corpus.space import Space
from holdfast.errors import HoldfastError
from holdfast.hub.feed import Feed
from holdfast.hub.home import Home, SqlRoom, begin_generation, generations
from holdfast.hub.options import Settle
from holdfast.hub.order import CommonOrder
from holdfast.hub.sqlroom import Workers
from holdfast.hub.tokens_database import DatabaseTokens
from holdfast.integrity.shelf import shelve

logger = logging.getLogger(__name__)

PARTIAL_BLOB_S: Final = 86_400.0


class Unmeasured:
    """The guard of a disk that is another machine's: it says itself when it is full."""

    def ensure(self) -> bool:
        """Always."""
        return True

    def check(self, size: int = 0) -> None:
        """Always returns."""

    def state(self) -> Space:
        """Nothing is known, so nothing stands in the way."""
        return Space(free=0, total=0, floor=0, ballast=0, ballast_wanted=0)

    def set_floor(self, floor_bytes: int) -> None:
        """Changes nothing."""


class HubDatabase(Home):
    """A hub in a database.

    Args:
        database: its address, or how to reach it.
        settle: as for `HubDirectory`.
        wall: the clock.
        options: for the corpus's engine.

    Raises:
        HubUnavailable: the database cannot be reached.
        MissingExtra: psycopg is not installed.
        UsageError: not an address, or a database that cannot hold a hub.
    """

    corpus: PostgresCorpus

    def __init__(
        self, database: str | Database, *, settle: Settle = "backups", wall: Clock = SYSTEM, **options: Any
    ) -> None:
        self.settle = settle
        self.wall = wall
        self.damage = ""
        self.reserve = Unmeasured()
        corpus = PostgresCorpus(database, **options)
        try:
            self._keep(corpus)
            self._shelf = shelve(corpus)
            self.blobs = BlobTable(corpus.engine)
            self.signer, self.lineage = corpus.write(self._begin)
            self.gen = self.lineage[-1][0]
            self.hub_id = hashlib.sha256(self.signer.public_key).hexdigest()[:16]
            self._remember()
        except BaseException:
            corpus.close()
            raise
        with contextlib.suppress(HoldfastError):
            self.blobs.sweep(PARTIAL_BLOB_S)

    def _begin(self, tx: Any) -> tuple[seal.Signer, list[tuple[str, int]]]:
        """The hub's key and its generations, both made by whichever process comes first."""
        now = self.wall.now_ms()
        found = tx.execute("SELECT private FROM hub_key WHERE state='current'")
        private = bytes(found[0][0]) if found else seal.generate()
        signer = seal.Signer(private)
        if not found:
            values = (signer.public_key, private, now)
            tx.execute("INSERT INTO hub_key(public, private, state, made_ms) VALUES(?,?,'current',?)", values)
        rows = generations(tx)
        mark = self.corpus.engine.facts.mark
        if not rows or tx.meta(HISTORY) != mark:
            begin_generation(tx, rows, now)
            tx.set_meta(HISTORY, mark)
        self.began_ms = rows[-1][2]
        return signer, [(gen, first) for gen, first, _ in rows]

    def open_tokens(self) -> DatabaseTokens:
        """The tokens of this hub, which all its processes share."""
        return DatabaseTokens(self.corpus.engine)

    def sql_room(self, seconds_max: float) -> SqlRoom:
        def opening() -> dict[str, Any]:
            with self.corpus.engine.reader() as connection:
                return sqlviews.prepare(connection, self.corpus.database, self.signer)

        return Workers("holdfast.corpus.postgres.sqlworker", opening, seconds_max)

    def common_order(self, feed: Feed) -> CommonOrder:
        """What shows the commits of all processes of this hub."""
        return CommonOrder(self.corpus, feed)

    def refresh(self) -> None:
        """Takes up what other processes of this hub have noted since: the keys of hubs, and marks of a followed one."""
        self._remember()

    def warnings(self) -> list[str]:
        """What is not as it should be where everything lies."""
        facts, found = self.corpus.engine.facts, super().warnings()
        if facts.fsync != "on":
            found.append("the database runs with fsync=off: a crash of its machine loses what was acknowledged")
        if facts.full_page_writes != "on":
            found.append("the database runs with full_page_writes=off: a crash of its machine may tear pages")
        return found

    def close(self, *, clean: bool = True) -> None:
        """Closes the connections."""
        self.corpus.close()
        self._shelf.close()

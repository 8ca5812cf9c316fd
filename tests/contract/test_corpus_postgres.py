"""PostgreSQL keeps the laws of a corpus, as a hub's file does."""

from __future__ import annotations

from pathlib import Path

from holdfast.corpus.postgres import PostgresCorpus
from holdfast.testing import corpus as laws
from holdfast.testing import corpus_index as indexes
from holdfast.testing import corpus_many as many
from holdfast.testing import corpus_search as searches
from tests.services import shared_postgres


class Database:
    """Everybody's logs in one database; the directory remembers which, for the processes that open it, too."""

    def make(self, directory: Path) -> PostgresCorpus:
        where = directory / "database"
        if not where.exists():
            where.write_text(shared_postgres().corpus())
        return PostgresCorpus(where.read_text())


class TestBasic(Database, laws.Basic): ...


class TestHistory(Database, laws.History): ...


class TestPaging(Database, laws.Paging): ...


class TestFeed(Database, laws.Feed): ...


class TestBatches(Database, laws.Batches): ...


class TestNames(Database, laws.Names): ...


class TestScopes(Database, laws.Scopes): ...


class TestConcurrency(Database, many.Concurrency): ...


class TestTransactions(Database, many.Transactions): ...


class TestIndexes(Database, indexes.Indexes): ...


class TestSearching(Database, searches.Searching): ...

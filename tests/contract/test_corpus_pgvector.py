"""Vectors that the database finds itself: the laws of search hold as with numpy, and its copies follow the vectors."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from holdfast.corpus.postgres import PostgresCorpus, near
from holdfast.corpus.search import nearest, numbers, vectors
from holdfast.corpus.search.answering import answer
from holdfast.corpus.search.nearest import CACHE, engine_of
from holdfast.corpus.search.question import Question
from holdfast.corpus.search.vectors import Index, Made
from holdfast.log import Log, load, remove, value
from holdfast.log.erasure import erase, mark_of
from holdfast.log.hits import statuses
from holdfast.query import read_condition
from holdfast.testing import corpus as laws
from holdfast.testing import corpus_many as many
from holdfast.testing import corpus_search as searches
from holdfast.testing.corpus import log_of, put
from holdfast.testing.corpus_search import MEMORY, Filler, keys_of
from tests.flow.hubs import until
from tests.services import shared_pgvector

DIMS = 48


class Database:
    """Everybody's logs in one database of a server that has pgvector, which is also a newer PostgreSQL."""

    def make(self, directory: Path) -> PostgresCorpus:
        where = directory / "database"
        if not where.exists():
            where.write_text(shared_pgvector().corpus())
        return PostgresCorpus(where.read_text())


class TestBasic(Database, laws.Basic): ...


class TestTransactions(Database, many.Transactions): ...


class TestSearching(Database, searches.Searching):
    """By a graph, however few there are; and nothing is compared in memory."""

    def make(self, directory: Path) -> PostgresCorpus:
        corpus = super().make(directory)
        corpus.near.graph_from = 1
        return corpus

    @pytest.fixture(autouse=True)
    def by_the_database(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused(corpus: Any, index: Index, query: bytes, most: int) -> list[Any]:
            assert not index.held, "the database was to find it"
            return []

        monkeypatch.setattr(nearest.CACHE, "near", refused)


# -- what it finds ----------------------------------------------------------------------------------------------------


def directions(count: int, seed: int, dims: int = DIMS) -> list[bytes]:
    """So many vectors, the same each time: as those of texts they lie in heaps, and not everywhere alike."""
    rng = random.Random(seed)
    heaps = [[rng.gauss(0, 1) for _ in range(dims)] for _ in range(40)]
    return [numbers.pack([each + rng.gauss(0, 0.6) for each in rng.choice(heaps)]) for _ in range(count)]


def known(log: Log, count: int, dims: int = DIMS) -> Index:
    """An index of so many values, filled at once."""
    for first in range(0, count, 500):
        log.append([value(MEMORY, f"k{n:05}", {"n": n}) for n in range(first, min(first + 500, count))])
    said = vectors.declared("directions", dims=dims)
    index = vectors.declare(log.corpus, MEMORY, said)
    places = [row[0] for row in log.corpus.query("SELECT pos FROM rec WHERE (flags & 1)<>0 ORDER BY pos")]
    made = {pos: [each] for pos, each in zip(places, directions(count, 1, dims), strict=True)}
    assert vectors.keep(log.corpus, index, Made(after=0, upto=log.corpus.last(), vectors=made))
    return searched(log)


def searched(log: Log) -> Index:
    found = vectors.searched(log.corpus, MEMORY)
    assert found is not None
    return found


def near_of(log: Log) -> near.Near:
    assert isinstance(log.corpus, PostgresCorpus)
    return log.corpus.near


def tend(log: Log) -> None:
    """Has the database have everything that it is to have."""
    while near_of(log).tend():
        pass


def tended(log: Log) -> Index:
    """The index, behind that."""
    tend(log)
    return searched(log)


def graphs(log: Log) -> dict[str, bool]:
    return dict(
        log.corpus.query(
            "SELECT indexrelid::regclass::text, indisvalid FROM pg_index WHERE indrelid=to_regclass('near')"
            " AND NOT indisprimary"
        )
    )


def copied(log: Log) -> list[int]:
    """The positions whose vectors `near` holds."""
    return [row[0] for row in log.corpus.query("SELECT v.pos FROM near e JOIN vec v ON v.id=e.id ORDER BY v.pos")]


def held(log: Log) -> list[int]:
    return [row[0] for row in log.corpus.query("SELECT pos FROM vec ORDER BY pos")]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """A log in a database, with nothing in it."""
    nearest.CACHE.forget()
    corpus = Database().make(tmp_path)
    yield log_of(corpus, tmp_path)
    corpus.close()


def other(log: Log) -> psycopg.Connection[Any]:
    """Somebody else in the same database."""
    assert isinstance(log.corpus, PostgresCorpus)
    given = {**log.corpus.database.given, "options": "-c search_path=holdfast,public"}
    return psycopg.connect("", autocommit=True, **given)


def by_numpy(log: Log, question: Question, readable: Sequence[str] = ()) -> Any:
    """The answer as it is without the database's help."""
    corpus, mine = log.corpus, log.corpus.near
    corpus.near = None
    try:
        return by_database(log, question, readable)
    finally:
        corpus.near = mine


def by_database(log: Log, question: Question, readable: Sequence[str] = ()) -> Any:
    found = answer(log.corpus, question, now_ms=0, load=lambda each: load(each, log.blobs), readable=tuple(readable))
    return [(each.stored.record.key, round(each.score, 5)) for each in found.found]


def test_without_a_graph_it_is_exact_and_with_one_nearly_so_whatever_is_filtered(log: Log) -> None:
    index = known(log, 2_000)
    log.append([value("other", f"o{n}", {"n": n}) for n in range(5)])
    assert engine_of(log.corpus, index) == "numpy", "nothing is copied yet"
    near_of(log).graph_from = 10_000
    index = tended(log)
    assert (engine_of(log.corpus, index), graphs(log)) == ("pgvector", {})
    assert [each.engine for each in statuses(log.corpus, 0)] == ["pgvector"]
    vectors_asked = directions(20, 2)

    def ask(number: int, **how: Any) -> Question:
        vector = (index.identity, vectors_asked[number])
        return Question(**{"q": "x", "mode": "vector", "collection": MEMORY, "limit": 10, "vector": vector, **how})

    some, few = read_condition({"n": {"lt": 500}}), read_condition({"n": {"lt": 20}})
    questions = [ask(n, limit=(10, 40)[n % 2], filter=(None, some)[n // 2 % 2]) for n in range(20)]
    questions += [ask(0, filter=few), ask(1, min_score=0.3)]
    exactly = [by_numpy(log, each) for each in questions]
    assert [by_database(log, each) for each in questions] == exactly
    near_of(log).graph_from = 1_000
    index = tended(log)
    assert list(graphs(log).values()) == [True]
    # So few are compared sooner than a graph is walked, as the planner knows; but one must be able to answer.
    (database,) = log.corpus.one("SELECT current_database()::text")
    with log.corpus.engine.reader() as connection:
        connection.execute(f"ALTER DATABASE {database} SET enable_sort=off")
    log.corpus.engine.drop_readers()
    found = [by_database(log, each) for each in questions]
    assert [len(each) for each in found] == [len(each) for each in exactly]
    assert all(each == sorted(each, key=lambda hit: -hit[1]) for each in found)
    right = sum(len({*each} & {*true}) for each, true in zip(found, exactly, strict=True))
    wanted = sum(map(len, exactly))
    assert by_database(log, ask(0), ["public/*"]) == [], "whoever may not read it finds nothing"
    assert right / wanted >= 0.95
    log.corpus.query("SELECT pg_stat_force_next_flush()::text")
    scans = "SELECT sum(idx_scan)::int8 FROM pg_stat_user_indexes WHERE indexrelname LIKE 'near_graph%'"
    assert log.corpus.one(scans)[0] >= len(questions), "the graph was asked"


def test_what_is_not_copied_yet_is_found_too_and_much_of_it_by_comparing_all(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    filler = Filler(log, dims=searches.DIMS)
    put(log, "tea", {"text": "She likes black tea"}, MEMORY)
    assert keys_of(filler.run().ask("black teas", mode="vector")) == ["tea"]
    put(log, "coffee", {"text": "He likes black coffee"}, MEMORY)
    put(log, "tea", {"text": "She likes nothing"}, MEMORY)
    filler.run()
    index = filler.index
    assert copied(log) != held(log)
    assert engine_of(log.corpus, index) == "pgvector"
    query = filler.embedder.query("black coffees")
    assert query is not None
    found = near_of(log).near(index, query, 10)
    assert found is not None
    assert [log.corpus.at(pos).record.key for pos, _ in found] == ["coffee", "tea"]  # type: ignore[union-attr]
    assert dict(found) == pytest.approx(dict(CACHE.near(log.corpus, index, query, 10)))
    monkeypatch.setattr(near, "TAIL_MAX", 1)
    assert engine_of(log.corpus, index) == "numpy"
    assert near_of(log).near(index, query, 10) is None
    tend(log)
    assert copied(log) == held(log)
    assert engine_of(log.corpus, index) == "pgvector"


def test_vectors_too_long_for_a_graph_and_vectors_of_nothing_are_compared_all_the_same(log: Log) -> None:
    index = known(log, 3, near.DIMS_MAX + 1)
    tend(log)
    assert (engine_of(log.corpus, index), log.corpus.query("SELECT to_regclass('near')::text")[0][0]) == (
        "numpy",
        "near",
    )
    assert copied(log) == []
    put(log, "none", {"n": 0}, "none")
    index = vectors.declare(log.corpus, "none", vectors.declared("zeros"))
    pos = log.corpus.last()
    made = {pos: [bytes(4 * DIMS)], pos - 1: [bytes(4 * DIMS)]}
    assert vectors.keep(log.corpus, index, Made(after=0, upto=pos, vectors=made))
    near_of(log).graph_from = 1
    tend(log)
    found = vectors.searched(log.corpus, "none")
    assert found is not None
    for query in (bytes(4 * DIMS), directions(1, 3)[0]):
        assert near_of(log).near(found, query, 5) == [(pos, 0.0), (pos - 1, 0.0)]


# -- what it keeps ----------------------------------------------------------------------------------------------------


def test_what_is_erased_replaced_or_ended_leaves_no_row_in_the_transaction_that_takes_its_vector(log: Log) -> None:
    filler = Filler(log)
    for key, text in searches.TEAS.items():
        put(log, key, {"text": text}, MEMORY)
    filler.run()
    near_of(log).graph_from = 1
    tend(log)
    assert copied(log) == held(log) != []
    stored = log.newest(MEMORY, "tea")
    assert stored is not None
    erase(log, (), [mark_of(stored.record)])
    assert stored.pos not in copied(log)
    put(log, "coffee", {"text": "He likes tea now"}, MEMORY)
    log.append([remove(MEMORY, "car")])
    filler.run()  # the filler takes them out, and nothing is tended meanwhile
    assert {*copied(log)} < {*held(log)}
    tend(log)
    assert copied(log) == held(log)
    assert len(held(log)) == 2
    with other(log) as somebody:
        somebody.execute("DELETE FROM vec WHERE pos=%s", (held(log)[0],))
    assert copied(log) == held(log), "whoever deletes them"
    # Another model: its vectors never meet the old ones, and what the old index had goes with it.
    new = Filler(log, "letters-2").run()
    tend(log)
    number = new.index.id
    while vectors.sweep(log.corpus):
        pass
    assert {row[0] >> 40 for row in log.corpus.query("SELECT id FROM near")} == {number}
    tend(log)
    assert [*graphs(log)] == [f"near_graph_{number}"]
    vectors.drop(log.corpus, MEMORY)
    while vectors.sweep(log.corpus):
        pass
    tend(log)
    assert (copied(log), graphs(log)) == ([], {})
    assert log.corpus.scour(index=True)


def test_nobody_waits_for_the_copying_and_it_waits_for_nobody(log: Log) -> None:
    known(log, 5)
    first, *rest = held(log)
    with other(log) as somebody, other(log) as third:
        somebody.execute("BEGIN")
        near_of(log).tend()
        assert copied(log) == [first, *rest]
        third.execute("DELETE FROM near")
        somebody.execute("DELETE FROM vec WHERE pos=%s", (first,))
        assert not near_of(log).tend(), "one of them is just being deleted"
        assert copied(log) == [], "nor is anything left out"
        somebody.execute("COMMIT")
    tend(log)
    assert copied(log) == rest
    # Of two processes one does it, and the other when that has ended.
    assert isinstance(log.corpus, PostgresCorpus)
    beside = PostgresCorpus(log.corpus.database)
    with other(log) as third:
        third.execute("DELETE FROM near")
    assert not beside.near.tend()
    assert copied(log) == []
    near_of(log).leave()
    assert beside.near.tend()
    assert copied(log) == rest
    beside.close()


def test_a_graph_that_is_called_off_is_begun_anew_and_nothing_counts_as_scoured_meanwhile(log: Log) -> None:
    known(log, 20)
    tend(log)
    near_of(log).graph_from = 10
    failed: list[BaseException] = []

    def make() -> None:
        try:
            near_of(log).tend()
        except BaseException as error:
            failed.append(error)

    with other(log) as somebody:
        somebody.execute("BEGIN")
        somebody.execute("DELETE FROM near WHERE id=(SELECT max(id) FROM near)")
        making = threading.Thread(target=make)
        making.start()  # waits for whoever writes since before
        until(lambda: graphs(log), "the graph is begun")
        until(lambda: log.corpus.query("SELECT 1 FROM pg_stat_progress_create_index"), "it is being made")
        assert not log.corpus.scour(index=False)
        assert engine_of(log.corpus, searched(log)) == "pgvector", "exactly, until it is there"
        near_of(log).cancel()
        making.join(30)
        assert len(failed) == 1
        somebody.execute("ROLLBACK")
    assert [*graphs(log).values()] == [False]
    tend(log)
    assert [*graphs(log).values()] == [True]
    assert log.corpus.scour(index=False)


# -- where there is no pgvector ---------------------------------------------------------------------------------------


def test_an_extension_that_goes_and_comes_changes_who_answers_and_not_what(log: Log) -> None:
    index = known(log, 400)
    near_of(log).graph_from = 100
    query = directions(1, 2)[0]
    exactly = CACHE.near(log.corpus, index, query, 400)

    def answers(engine: str) -> None:
        found = nearest.near(log.corpus, searched(log), query, 400)
        assert dict(found) == pytest.approx(dict(exactly))
        assert engine_of(log.corpus, searched(log)) == engine

    tend(log)
    answers("pgvector")
    with other(log) as somebody:
        somebody.execute("DROP EXTENSION vector CASCADE")
        answers("numpy")
        assert not near_of(log).tend(), "it is not asked at each turn"
        near_of(log).ask_again()
        tend(log)  # this user may have it back
        answers("pgvector")
        assert [*graphs(log).values()] == [True]
        # As a dump that was restored without it: neither the table nor the type is there.
        somebody.execute("DROP TABLE near")
        somebody.execute("DROP EXTENSION vector")
        answers("numpy")
        # An administrator puts it where he likes.
        somebody.execute('CREATE SCHEMA "Other Types"')
        somebody.execute('CREATE EXTENSION vector SCHEMA "Other Types"')
        near_of(log).ask_again()
        tend(log)
        answers("pgvector")
        # Emptied by somebody, it is filled again.
        somebody.execute("TRUNCATE near")
        assert near_of(log).near(searched(log), query, 10) is not None, "400 are compared"
        tend(log)
        assert copied(log) == held(log)
        answers("pgvector")


def test_a_user_who_may_not_have_it_and_a_server_too_old_for_it_do_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = shared_pgvector()
    address = server.database()
    with psycopg.connect(address, autocommit=True) as root:
        name = root.info.dbname
        root.execute(f"CREATE ROLE plain_{name} LOGIN")
        root.execute(f"GRANT CREATE ON DATABASE {name} TO plain_{name}")
        corpus = PostgresCorpus(address.replace("holdfast@", f"plain_{name}@"))
        log = log_of(corpus, tmp_path)
        index = known(log, 50)
        tend(log)
        assert engine_of(corpus, index) == "numpy"
        assert corpus.one("SELECT to_regclass('near')::text")[0] is None
        assert len(nearest.near(corpus, index, directions(1, 2)[0], 10)) == 10
        assert corpus.scour(index=False)
        root.execute("CREATE EXTENSION vector")
        monkeypatch.setattr(near, "LEAST", (0, 99))
        corpus.near.ask_again()
        tend(log)
        assert engine_of(corpus, index) == "numpy"
        monkeypatch.undo()
        corpus.near.ask_again()
        tend(log)
        assert engine_of(corpus, index) == "pgvector", "somebody else has made it for him"
        found = corpus.near.near(index, directions(1, 2)[0], 10)
        assert found is not None
        assert dict(found) == pytest.approx(dict(CACHE.near(corpus, index, directions(1, 2)[0], 10)))
        corpus.close()

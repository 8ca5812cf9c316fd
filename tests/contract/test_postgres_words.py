"""The index of words on PostgreSQL: asked by blocks of positions, and the same as if everything were read."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from holdfast.corpus import postgres, search
from holdfast.corpus.postgres import PostgresCorpus, words
from holdfast.corpus.postgres.words import MOST, SHIFTS, Course, Look
from holdfast.log import value
from holdfast.testing.corpus import log_of, names
from tests.services import shared_postgres

LAST = 9 << SHIFTS[-1]
DENSE = range(3 << SHIFTS[-1], (3 << SHIFTS[-1]) + 2 * MOST)
"""More of a word than is sorted at once, with emptiness around it."""
EVERYTHING = "SELECT pos FROM fts WHERE t @@ ?::tsquery AND pos<? ORDER BY pos DESC LIMIT ?"


def rows() -> Iterator[tuple[int, str]]:
    rng = random.Random(4)
    ends = {LAST - 1, *(edge + side for shift in SHIFTS for edge in (1 << shift, 5 << shift) for side in (-1, 0, 1))}
    for pos in sorted({*rng.sample(range(1, LAST), 3_000), *range(1, 2_000), *DENSE, *ends}):
        found = ["often"] * (rng.random() < 0.5) + ["seldom"] * (rng.random() < 0.02) + ["once"] * (pos == 777)
        found += ["topic"] * (pos in DENSE) + [f"@{rng.choice('ab') if pos > 99 else 'early'}"]
        yield pos, " ".join(f"'{word}'" for word in found)


@pytest.fixture(scope="module")
def filled() -> Iterator[PostgresCorpus]:
    """An index of positions so far apart that every size of blocks is asked for."""
    address = shared_postgres().database()
    corpus = PostgresCorpus(address)
    with psycopg.connect(address, options="-c search_path=holdfast") as other:
        other.cursor().executemany("INSERT INTO fts VALUES(%s, %s::tsvector)", list(rows()))
    yield corpus
    corpus.close()


def look(corpus: PostgresCorpus, query: str, whose: str, below: int, limit: int) -> tuple[list[int], int]:
    """What is found, and in how many questions."""
    asked: list[str] = []

    def counted(course: Course) -> Course:
        rows: Any = None
        while True:
            try:
                question = course.send(rows)
            except StopIteration as end:
                return list(end.value)
            asked.append(question[0])
            rows = yield question

    found = Look(query, whose, limit)
    course = found.beginning(below, "") if "*" in query else found.newest(below)
    (positions,) = corpus.engine.side_by_side([counted(course)])
    return positions, sum("fts" in sql for sql in asked)


@pytest.mark.parametrize(
    "query",
    ["'often'", "'seldom'", "'once'", "'topic'", "'nothing'", "'often' & 'seldom'", "'top':*", "'o':* & 'seldom'"],
)
@pytest.mark.parametrize("whose", ["", "'@a'", "'@early'", "'@a' | '@early'", "'@nobody'"])
def test_blocks_give_what_reading_everything_gives(filled: PostgresCorpus, query: str, whose: str) -> None:
    both = f"{query} & ({whose})" if whose else query
    rng = random.Random(both)
    edges = [LAST, LAST + 5, DENSE[-1], DENSE[0] + 1, 1 << SHIFTS[0], 1, 778]
    for below in [*edges, *(rng.randrange(1, LAST) for _ in range(5))]:
        limit = rng.choice([1, 7, 50, 500])
        everything = [row[0] for row in filled.query(EVERYTHING, (both, below, limit))]
        assert look(filled, query, whose, below, limit)[0] == everything, (below, limit)
    pages, below = [], LAST
    while page := look(filled, query, whose, below, 397)[0]:
        pages += page
        below = page[-1]
    assert pages == [row[0] for row in filled.query(EVERYTHING, (both, LAST, 1 << 20))]


def test_a_search_asks_no_more_than_it_must(filled: PostgresCorpus) -> None:
    top = DENSE[-1] + 1
    assert look(filled, "'topic'", "", top, 50) == (list(range(top - 1, top - 51, -1)), 1)
    # From far above: the large blocks hold too much, and are left for smaller ones, each size once and a bit.
    far, questions = look(filled, "'topic'", "", LAST, 50)
    assert far == list(range(top - 1, top - 51, -1))
    assert questions <= 9 + 8 * len(SHIFTS)
    # What is rare is one question for each two million positions, and the smaller ones that come first.
    assert look(filled, "'once'", "", LAST, 50)[1] <= len(SHIFTS) + (LAST >> SHIFTS[-1])


def test_the_index_is_asked_for_words_and_blocks_alike(filled: PostgresCorpus) -> None:
    """Whatever the planner knows: were the blocks but a filter, every search would read a word's whole part."""
    with filled.moment() as execute:
        execute(words._BITMAPS)
        values = ("{8,12}", "'often'", "'@a'", LAST, 50)
        plan = [row[0].strip() for row in execute("EXPLAIN " + words.ASKED.format(words._OF), values)]
    (at,) = [number for number, line in enumerate(plan) if "Bitmap Index Scan on fts_words" in line]
    assert plan[at + 1].startswith("Index Cond:")
    assert (plan[at + 1].count("&&"), plan[at + 1].count("@@")) == (1, 2)


def test_searches_side_by_side_find_what_each_alone_finds(filled: PostgresCorpus) -> None:
    some = [[(["often"], False)], [(["seldom"], False)], [(["once"], False)], [(["nothing"], False)]]
    some += [[(["often"], False), (["seldom"], False)]]
    for agents in ((), ("a",)):
        together = filled.places_of_each(some, LAST, 200, agents)
        assert together == [filled.places(terms, LAST, 200, agents) for terms in some]
    begun = [*some, [(["top"], True)]]
    assert filled.places_of_each(begun, LAST, 200) == [filled.places(terms, LAST, 200) for terms in begun]
    assert [len(found) > 0 for found in filled.places_of_each(some, LAST, 200)] == [True, True, True, False, True]


def test_words_that_are_only_begun_are_found_behind_an_agents_newest_records(database: str, tmp_path: Path) -> None:
    corpus = PostgresCorpus(database)
    log = log_of(corpus, tmp_path)
    count = words.OWN + 200
    for first in range(0, count, 400):
        log.append([value("notes", f"k{n}", "brown fox" if n < 3 else "grey owl") for n in range(first, first + 400)])
    while search.fill(corpus, 500):
        pass
    agents = (log.branch.agent,)
    assert names(search.search(corpus, "bro*", agents=agents).found) == ["k2", "k1", "k0"]
    newest = [f"k{n}" for n in range(count - 1, count - 6, -1)]
    assert names(search.search(corpus, "ow*", agents=agents, limit=5).found) == newest
    assert search.search(corpus, "bro*", agents=("nobody",)).found == []
    assert names(search.search(corpus, "bro*", agents=(*agents, "nobody")).found) == ["k2", "k1", "k0"]
    corpus.close()


def test_an_index_from_before_blocks_is_made_anew_over_the_same_rows(database: str, tmp_path: Path) -> None:
    corpus = PostgresCorpus(database)
    log = log_of(corpus, tmp_path)
    log.append([value("notes", f"k{n}", f"word{n} shared") for n in range(300)])
    while search.fill(corpus):
        pass
    corpus.close()
    with psycopg.connect(database, options="-c search_path=holdfast", autocommit=True) as other:
        before = other.execute("SELECT pos, t FROM fts ORDER BY pos").fetchall()
        other.execute("DROP INDEX fts_words")  # from here on it is what 0003 left
        other.execute("CREATE INDEX fts_t ON fts USING gin(t)")
        later = [
            path for path in sorted((Path(postgres.__file__).parent / "migrations").iterdir()) if path.name > "0005"
        ]
        made = re.findall(r"CREATE TABLE (\w+)", "".join(path.read_text() for path in later))
        for table in dict.fromkeys(made):  # a script may make one anew
            other.execute(f"DROP TABLE {table} CASCADE")
        other.execute("DELETE FROM format WHERE version>3")
        again = PostgresCorpus(database)
        assert other.execute("SELECT pos, t FROM fts ORDER BY pos").fetchall() == before
        indexes = other.execute("SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid='fts'::regclass")
        assert {row[0] for row in indexes} == {"fts_pkey", "fts_words"}
    assert search.pending(again) == 0
    assert names(search.search(again, "word7").found) == ["k7"]
    assert names(search.search(again, "shared", limit=300).found) == [f"k{n}" for n in range(299, -1, -1)]
    again.close()

"""What leaves an agent's log takes its vectors along, in the transaction that takes its words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast import wire
from holdfast.corpus import SqliteCorpus, eviction, search
from holdfast.corpus.search import vectors
from holdfast.log import Log, value
from holdfast.log.prune import prune
from holdfast.testing.corpus import log_of
from holdfast.testing.corpus_search import MEMORY, Filler, keys_of


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """A log with sixty memories, each of a word of its own."""
    corpus = SqliteCorpus(tmp_path / "log.db")
    made = log_of(corpus, tmp_path)
    made.append([value(MEMORY, f"k{n:02}", {"text": f"zeppelin{n:02}"}) for n in range(60)])
    yield made
    corpus.close()


def words_at(log: Log) -> set[int]:
    """The records that the index of words holds."""
    return {row[0] for row in log.corpus.query("SELECT id FROM fts_docsize")}


def test_what_is_pruned_leaves_neither_word_nor_vector(log: Log) -> None:
    filler = Filler(log).run()
    old = set(filler.places())
    # Replaced, and not yet seen by whoever fills: the vectors of the old ones are still there when they are pruned.
    log.append([value(MEMORY, f"k{n:02}", {"text": f"hangar{n:02}"}) for n in range(50)])
    while search.fill(log.corpus):
        pass
    assert old <= set(filler.places())
    drops = filler.index.drops
    assert prune(log, lambda _: bytes(64), settled=log.corpus.last()) == 50
    left = {row[0] for row in log.corpus.query("SELECT pos FROM rec")}
    assert set(filler.places()) == old & left
    assert len(filler.places()) == 10 == filler.index.held
    assert not words_at(log) & (old - left)
    assert filler.index.drops > drops, "whoever keeps a copy in memory is told"
    filler.run()
    assert len(filler.places()) == 60 == filler.index.held
    assert keys_of(filler.ask("hangar07", mode="vector", min_score=0.9)) == ["k07"]


def test_what_is_evicted_loses_its_vectors_with_its_words(log: Log) -> None:
    filler = Filler(log)
    filler.fails = lambda text: "zeppelin59" in text
    filler.run()
    while search.fill(log.corpus):
        pass
    places = [stored.pos for stored in log.corpus.feed(0, 500) if stored.record.collection == MEMORY]
    gone = places[:55] + places[-1:]
    log.corpus.write(lambda tx: [tx.drop_body(pos, wire.EVICTED) for pos in gone])
    assert set(filler.places()) == set(places[:-1]), "a body alone may come back"
    assert isinstance(log.corpus, SqliteCorpus)
    assert eviction.unindex(log.corpus, share=1.0) == len(gone)
    assert not words_at(log) & set(gone)
    assert set(filler.places()) == set(places) - set(gone)
    assert filler.index.held == len(places) - len(gone)
    assert vectors.failed(log.corpus, filler.index) == (0, ""), "nor is anything said of one that failed"

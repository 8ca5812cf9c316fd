"""Which bodies of a log may leave, seen from the log alone."""

from __future__ import annotations

from pathlib import Path

from holdfast.corpus import SqliteCorpus, eviction, index, search
from holdfast.log import load, value
from holdfast.testing.corpus import log_of

ALL = eviction.Wanted(
    settled=1 << 40,
    kept=(),
    inline=1 << 30,
    beside=0,
    before=lambda _: 0,
    keeps=lambda _: False,
    now_ms=1 << 50,
)


def test_nothing_leaves_that_an_index_has_yet_to_read(tmp_path: Path) -> None:
    """Behind each watermark a body is read once more: for its words, and for what its collection is found by."""
    corpus = SqliteCorpus(tmp_path / "log.db")
    log = log_of(corpus, tmp_path)

    def leaving() -> list[int]:
        return sorted(body.pos for body in eviction.look(corpus, ALL).first)

    people = [value("people", f"k{n}", {"skills": ["Python"], "pad": "x" * 100}) for n in range(3)]
    log.append(people)
    assert leaving() == []
    while search.fill(corpus):
        pass
    assert leaving() == [1, 2, 3]
    index.declare(corpus, "people", ["skills"])
    assert leaving() == []
    while index.fill(corpus, lambda stored: load(stored, log.blobs)):
        pass
    assert leaving() == [1, 2, 3]
    log.append(people)
    while search.fill(corpus):
        pass
    assert max(leaving()) == 3
    corpus.close()

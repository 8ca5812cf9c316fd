"""Search finds what is current, whether the index has it yet or not."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from holdfast.corpus import SqliteCorpus, search
from holdfast.corpus.search import words
from holdfast.corpus.snapshot import snapshot
from holdfast.errors import UsageError
from holdfast.integrity import derived
from holdfast.log import Log, load, message, remove, value
from holdfast.log.erasure import erase, mark_of
from holdfast.testing.corpus import log_of


class Still(NamedTuple):
    """A log whose index nobody fills behind a test's back."""

    log: Log
    corpus: SqliteCorpus


@pytest.fixture
def still(tmp_path):
    corpus = SqliteCorpus(tmp_path / "log.db")
    yield Still(log_of(corpus, tmp_path), corpus)
    corpus.close()


@pytest.fixture(params=["tail", "index", "both"])
def corpus(request, still):
    """The same records, found in the unindexed tail, in the index, or half in each."""
    log = still.log
    log.append([value("state", "plan", {"goal": "Reserve a flight to Zürich", "steps": ["search", "book_now"]})])
    log.append([value("state", "old", "flight of the bumblebee")])
    if request.param != "tail":
        _fill(still.corpus)
    log.append([value("state", "old", "nothing of the kind"), message({"body": "flight delayed", "to": "bob"})])
    log.append([value("notes", "n", "flights"), value("notes", "raw", b"flight")])
    log.append([remove("notes", "gone"), value("notes", "gone", "flight"), remove("notes", "gone")])
    if request.param == "index":
        _fill(still.corpus)
    return still.corpus


def _fill(corpus):
    while search.fill(corpus):
        pass


def test_what_is_erased_while_it_is_read_for_the_index_is_not_indexed(still, monkeypatch):
    log, corpus = still.log, still.corpus
    log.append([value("state", "kept", "axolotl stays")])
    erased = log.append([value("state", "gone", "quagga goes")])[0].record
    read = words.text_of

    def text_of(stored):
        if stored.record.key == "gone":
            erase(log, [], [mark_of(erased)])
        return read(stored)

    monkeypatch.setattr(words, "text_of", text_of)
    _fill(corpus)
    assert corpus.query("SELECT rowid FROM fts WHERE fts MATCH ?", ("axolotl",)) == [(1,)]
    assert corpus.query("SELECT rowid FROM fts WHERE fts MATCH ?", ("quagga",)) == []


def _keys(corpus, text, **narrow):
    return [each.record.collection for each in search.search(corpus, text, **narrow).found]


def test_current_values_and_messages_are_found_newest_first(corpus):
    assert _keys(corpus, "flight") == ["messages", "state"]
    assert _keys(corpus, "FLIGHT zürich") == ["state"]
    assert _keys(corpus, "flight*") == ["notes", "messages", "state"]


def test_a_phrase_needs_its_words_in_order(corpus):
    assert _keys(corpus, '"to Zürich"') == ["state"]
    assert _keys(corpus, '"Zürich to"') == []


def test_words_within_identifiers_are_words(corpus):
    assert _keys(corpus, "book") == ["state"]
    assert _keys(corpus, "book_now") == ["state"]


def test_results_can_be_narrowed(corpus):
    assert _keys(corpus, "flight*", collection="notes") == ["notes"]
    assert _keys(corpus, "flight", kinds=("message",)) == ["messages"]
    assert _keys(corpus, "flight", agents=("nobody",)) == []
    assert _keys(corpus, "flight*", limit=1) == ["notes"]


@pytest.mark.parametrize("text", ["", "  ", '""', "***", "a " * 40])
def test_a_search_for_nothing_or_everything_is_refused(corpus, text):
    with pytest.raises(UsageError):
        search.search(corpus, text)


@pytest.mark.parametrize("text", ['" OR t', "a AND", "NEAR(a b)", "t:flight", "(a)", "flight)", "^flight", "-flight"])
def test_query_syntax_is_only_words(corpus, text):
    search.search(corpus, text)


def test_a_long_unindexed_tail_is_scanned_in_part_and_says_so(still):
    for start in range(0, 600, 100):
        still.log.append([value("state", f"k{n}", "needle") for n in range(start, start + 100)])
    corpus = still.corpus
    hits = search.search(corpus, "needle", limit=1000)
    assert (len(hits.found), hits.partial) == (search.TAIL_MAX, True)
    _fill(corpus)
    hits = search.search(corpus, "needle", limit=1000)
    assert (len(hits.found), hits.partial) == (600, False)
    assert load(hits.found[0], None) == "needle"


def test_a_record_that_is_indexed_during_the_search_is_found_once(still, monkeypatch):
    still.log.append([value("state", "k", "needle")])
    read = type(still.corpus).feed

    def feed_then_fill(corpus, after, *limits):
        tail = read(corpus, after, *limits)
        monkeypatch.undo()
        _fill(corpus)
        return tail

    monkeypatch.setattr(type(still.corpus), "feed", feed_then_fill)
    assert len(search.search(still.corpus, "needle").found) == 1


@pytest.mark.parametrize("indexed", [False, True])
def test_a_value_may_say_by_which_words_it_is_found(still, indexed):
    still.log.append([value("rows", "key-of-it", {search.WORDS: "what was said", "how": "kept so"})])
    still.log.append([value("rows", "other", {search.WORDS: "", "how": "kept so"})])
    if indexed:
        _fill(still.corpus)
    assert _keys(still.corpus, "was said") == ["rows"]
    assert _keys(still.corpus, "kept") == _keys(still.corpus, "key") == _keys(still.corpus, "other") == []
    with snapshot(still.corpus) as view:
        assert [*derived.words(view), *derived.count_words(view)] == [], "what is found by nothing is no finding"

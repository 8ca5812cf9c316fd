"""The laws of search over a corpus: what is found, what never is, and what becomes of an index whatever happens to it.

See `holdfast.testing.corpus`. The embedding function here is made of letters alone: near are texts that share many.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from holdfast.corpus import search
from holdfast.corpus.search import filling, nearest, numbers, vectors
from holdfast.corpus.search.answering import answer
from holdfast.corpus.search.embedding import HARMLESS, Embedder
from holdfast.corpus.search.filling import Filled
from holdfast.corpus.search.question import Answer, Question
from holdfast.errors import NotFound, UsageError
from holdfast.integrity import verify_corpus
from holdfast.log import Log, load, remove, value
from holdfast.log.erasure import erase, mark_of
from holdfast.query import read_condition
from holdfast.testing.clock import SettableClock
from holdfast.testing.corpus import CorpusContract, put, refused

DIMS: Final = 128
MEMORY: Final = "memory"
TEAS: Final = {
    "tea": "She likes black tea",
    "coffee": "He likes black coffee",
    "ticket": "The ticket ERR_4711 was closed on Monday",
    "car": "Her car is a green Volvo",
}


def hashed(texts: Sequence[str]) -> list[list[float]]:
    """A vector for each text: how often runs of three letters stand in it, thrown into `DIMS` heaps."""
    out = []
    for text in texts:
        vector = [0.0] * DIMS
        for word in search.words_of(text):
            padded = f" {word} "
            for at in range(len(padded) - 2):
                vector[zlib.crc32(padded[at : at + 3].encode()) % DIMS] += 1.0
        out.append(vector)
    return out


def keys_of(found: Answer) -> list[str]:
    """The keys of what was found, the best first."""
    return [each.stored.record.key for each in found.found]


class Filler:
    """An index of a log, filled by hand; its function may be made to fail."""

    def __init__(self, log: Log, model: str = "letters-1", collection: str = MEMORY, **how: Any) -> None:
        self.log, self.corpus, self.collection = log, log.corpus, collection
        self.declared = vectors.declared(model, **how)
        vectors.declare(self.corpus, collection, self.declared)
        self.clock = SettableClock()
        self.calls: list[list[str]] = []
        self.fails: Callable[[str], bool] = lambda text: False
        self.embedder = Embedder(self._embed, self.declared)
        self.filled = self.another()

    def another(self) -> Filled:
        """Somebody else who fills the same index."""
        return Filled(
            self.corpus,
            self.collection,
            self.declared,
            load=lambda stored: load(stored, self.log.blobs),
            now_ms=self.clock.now_ms,
            uniform=lambda low, high: high,
        )

    def _embed(self, texts: list[str]) -> list[list[float]]:
        self.calls.append(texts)
        for text in texts:
            if self.fails(text):
                raise RuntimeError(f"cannot take {text!r}")
        return hashed(texts)

    def run(self) -> Filler:
        """Fills until there is nothing left to do now."""
        for _ in range(1_000):
            if not filling.step(self.filled, self.embedder):
                return self
        raise AssertionError("there is always something left to do")

    @property
    def index(self) -> vectors.Index:
        """Its row."""
        return self.filled.index()

    def places(self) -> list[int]:
        """The records that it holds vectors of."""
        sql = "SELECT DISTINCT pos FROM vec WHERE id>? AND id<? ORDER BY pos"
        return [row[0] for row in self.corpus.query(sql, (self.index.first_row, self.index.end_row))]

    def ask(self, q: str, **how: Any) -> Answer:
        """What a question finds, with this function at hand."""
        return asked(self.log, q, self, **{"collection": self.collection, **how})


def asked(log: Log, q: str, *fillers: Filler, **how: Any) -> Answer:
    """What a question finds in a log, with the functions of these at hand."""

    def ask(identity: str) -> bytes | None:
        return next((each.embedder.query(q) for each in fillers if each.declared.identity == identity), None)

    now = how.pop("now_ms", 0)
    if "filter" in how:
        how["filter"] = read_condition(how["filter"])
    while search.fill(log.corpus):
        pass
    while log.corpus.near is not None and log.corpus.near.tend():
        pass
    read: Callable[..., Any] = lambda stored: load(stored, log.blobs)  # noqa: E731
    return answer(log.corpus, Question(q=q, **how), now_ms=now, ask=ask, load=read)


class Searching(CorpusContract):
    """Questions find what stands, the best first; an index holds what stands, and loses nothing."""

    @contextlib.contextmanager
    def log(self, directory: Path) -> Iterator[Log]:
        """A log with a few memories in it."""
        with self.one_log(directory) as log:
            nearest.CACHE.forget()
            log.append([value(MEMORY, key, {"text": text}) for key, text in TEAS.items()])
            yield log

    # -- by words ---------------------------------------------------------------------------------------------------

    def test_what_holds_every_word_comes_first_and_then_what_holds_most_of_their_weight(self, tmp_path: Path) -> None:
        with self.log(tmp_path) as log:
            for number in range(30):
                put(log, f"noise{number}", {"text": "which does she like to note"}, "notes")
            found = asked(log, "which tea does she like", collection=MEMORY, explain=True)
            assert found.mode == "text"
            assert keys_of(found)[0] == "tea"
            first = found.found[0]
            assert 0 < first.score < 0.25
            assert first.parts is not None
            assert first.parts["words"] == ["tea", "she"]
            assert keys_of(asked(log, "black likes")) == ["coffee", "tea"], "the newest first"
            assert [each.score for each in asked(log, "black likes").found] == [1.0, 1.0]
            mixed = asked(log, "black tea")
            assert [(each.stored.record.key, each.score == 1.0) for each in mixed.found] == [
                ("tea", True),
                ("coffee", False),
            ]
            assert keys_of(asked(log, "black tea", min_score=1.0)) == ["tea"]
            assert keys_of(asked(log, "ERR_4711")) == ["ticket"]
            assert keys_of(asked(log, "did ERR_4711 close ever?"))[0] == "ticket"
            assert keys_of(asked(log, "tick* nonesuch")) == ["ticket"]
            assert keys_of(asked(log, "nonesuch")) == []

    def test_a_phrase_is_required_and_the_rest_of_the_question_is_not(self, tmp_path: Path) -> None:
        with self.log(tmp_path) as log:
            assert keys_of(asked(log, '"black tea" nonesuch')) == ["tea"]
            assert keys_of(asked(log, '"tea black" she')) == []
            assert keys_of(asked(log, '"black" nonesuch')) == ["coffee", "tea"]

    def test_an_old_record_is_found_by_its_words_together_among_many_that_hold_one(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            put(log, "wanted", {"text": "amber beacon"}, MEMORY)
            for first in range(0, 900, 300):
                texts = [("amber", "beacon")[n % 2] + f" filler{n}" for n in range(first, first + 300)]
                texts += ["quiet words only"] * 100 * 2
                log.append([value(MEMORY, f"k{first + n:04}", {"text": text}) for n, text in enumerate(texts)])
            found = asked(log, "amber beacon nonesuch", limit=10)
            assert keys_of(found)[0] == "wanted"
            assert len(found.found) == 10
            assert found.found[0].score > found.found[1].score

    def test_what_is_not_indexed_yet_is_found_too(self, tmp_path: Path) -> None:
        with self.log(tmp_path) as log:
            for text, wanted in (("black tea", ["tea", "coffee"]), ("volvo nonesuch", ["car"])):
                found = answer(log.corpus, Question(q=text), now_ms=0)
                assert (keys_of(found), found.partial) == (wanted, False)

    def test_filters_and_narrowing_hold_in_every_mode(self, tmp_path: Path) -> None:
        with self.log(tmp_path) as log:
            for number in range(6):
                said = {"text": f"black tea number {number}", "n": number, "tags": ["even", "odd"][number % 2 : 2]}
                put(log, f"n{number}", said, MEMORY)
            put(log, "elsewhere", {"text": "black tea", "n": 5}, "other")
            filler = Filler(log).run()
            for mode in ("text", "vector", "hybrid"):
                found = filler.ask("black tea", mode=mode, filter={"n": {"gte": 3}, "tags": {"in": ["even"]}})
                assert keys_of(found) == ["n4"], mode
                assert "elsewhere" not in keys_of(filler.ask("black tea", mode=mode)), mode
                assert keys_of(filler.ask("black tea", mode=mode, kind="message")) == [], mode
                assert keys_of(filler.ask("black tea", mode=mode, agent="nobody")) == [], mode
                assert len(filler.ask("black tea", mode=mode, limit=2).found) == 2, mode

    def test_the_past_is_searched_by_its_words(self, tmp_path: Path) -> None:
        with self.log(tmp_path) as log:
            then = log.corpus.last()
            put(log, "tea", {"text": "She likes green tea"}, MEMORY)
            log.append([remove(MEMORY, "car")])
            filler = Filler(log).run()
            assert keys_of(filler.ask("black tea", mode="text", min_score=1.0)) == []
            assert keys_of(filler.ask("black tea", at=then)) == ["tea"]
            assert keys_of(filler.ask("green tea", at=then)) == []
            assert keys_of(filler.ask("volvo", at=then)) == ["car"]
            assert filler.ask("volvo", at=then).mode == "text"
            with refused(UsageError):
                filler.ask("volvo", at=then, mode="hybrid")

    # -- what never comes back --------------------------------------------------------------------------------------

    def test_what_was_replaced_deleted_erased_or_has_ended_is_found_in_no_mode(self, tmp_path: Path) -> None:
        with self.log(tmp_path) as log:
            put(log, "secret", {"text": "the password is swordfish"}, MEMORY)
            put(log, "soon", {"text": "swordfish for a while", "$ends": 1_000}, MEMORY)
            put(log, "old/1", {"text": "swordfish of old"}, MEMORY)
            put(log, "old/2", {"text": "swordfish of old"}, MEMORY)
            put(log, "gone", {"text": "swordfish at sea"}, MEMORY)
            filler = Filler(log).run()
            for mode in ("text", "vector", "hybrid"):
                there = keys_of(filler.ask("swordfish", mode=mode, now_ms=999))
                assert {"secret", "soon", "old/1", "gone"} <= set(there), mode
            before = len(filler.places())
            secret = log.newest(MEMORY, "secret")
            assert secret is not None
            # Before the filler comes by, ...
            erase(log, (), [mark_of(secret.record)])
            assert secret.pos not in filler.places(), "erased with its words, in one transaction"
            put(log, "tea", {"text": "She likes green tea"}, MEMORY)
            log.append([remove(MEMORY, "gone"), remove(MEMORY, "old/", prefix=True)])
            for _ in range(2):
                for mode in ("text", "vector", "hybrid"):
                    there = keys_of(filler.ask("swordfish black", mode=mode, now_ms=1_000))
                    assert not {"secret", "soon", "old/1", "old/2", "gone"} & set(there), mode
                assert keys_of(filler.ask("black tea", mode="text", min_score=1.0)) == []
                filler.run()  # ... and behind it
            assert len(filler.places()) == before - 4
            assert filler.index.held == len(filler.places())
            standing = {stored.pos for stored in log.corpus.keys("ada", MEMORY)} - {secret.pos}
            assert set(filler.places()) == standing
            assert verify_corpus(log.corpus, full=True).sound

    def test_a_body_erased_while_its_text_is_embedded_leaves_no_vector(self, tmp_path: Path) -> None:
        with self.log(tmp_path) as log:
            filler = Filler(log)
            task = filler.filled.next()
            assert task is not None
            stored = log.newest(MEMORY, "tea")
            assert stored is not None
            assert stored.pos in task.texts
            erase(log, (), [mark_of(stored.record)])
            made = {pos: [numbers.pack(hashed(pieces)[0])] for pos, pieces in task.texts.items()}
            assert filler.filled.done(task, made, {})
            assert stored.pos not in filler.places()
            assert len(filler.places()) == len(TEAS) - 1

    def test_what_a_failed_record_said_goes_with_it(self, tmp_path: Path) -> None:
        with self.log(tmp_path) as log:
            filler = Filler(log)
            filler.fails = lambda text: "Volvo" in text
            filler.run()
            assert "Volvo" in vectors.failed(log.corpus, filler.index)[1]
            stored = log.newest(MEMORY, "car")
            assert stored is not None
            erase(log, (), [mark_of(stored.record)])
            assert vectors.failed(log.corpus, filler.index) == (0, "")

    def test_a_vector_where_nothing_is_to_be_searched_is_found_by_the_scan(self, tmp_path: Path) -> None:
        with self.log(tmp_path) as log:
            filler = Filler(log).run()
            log.append([remove(MEMORY, "car")])
            row = (filler.index.first_row + 900, log.corpus.last(), 0, b"\0" * 4 * DIMS)
            log.corpus.write(lambda tx: tx.keep_vectors([row]))
            found = verify_corpus(log.corpus, full=True).findings
            assert any("an index of vectors holds position" in each.what for each in found)

    # -- by vectors -------------------------------------------------------------------------------------------------

    def test_what_is_near_is_found_and_both_together_are_no_worse(self, tmp_path: Path) -> None:
        with self.log(tmp_path) as log:
            filler = Filler(log).run()
            assert (filler.index.complete, filler.index.held, filler.index.dims) == (True, 4, DIMS)
            near = filler.ask("blackish teas", mode="vector", explain=True)
            assert keys_of(near)[0] == "tea"
            assert 0 < near.found[0].score <= 1
            assert filler.ask("blackish teas", mode="text").found == []
            both = filler.ask("ERR_4711")
            assert both.mode == "hybrid"
            assert keys_of(both)[0] == "ticket"
            assert both.found[0].score <= 1.0
            explained = filler.ask("black tea", explain=True).found[0].parts
            assert explained is not None
            assert {"text", "text_rank", "vector", "vector_rank"} <= explained.keys()
            assert keys_of(filler.ask("???", mode="hybrid")) != ["nothing raised"]
            assert asked(log, "black tea").mode == "text", "no collection, no index"
            with refused(UsageError):
                asked(log, "tea", mode="vector")
            with refused(UsageError):
                asked(log, "tea", mode="vector", collection="other")
            with refused(UsageError):
                asked(log, "tea", mode="vector", collection=MEMORY)  # nobody has the function

    def test_a_long_text_is_found_by_its_best_piece_and_shown_once(self, tmp_path: Path) -> None:
        with self.log(tmp_path) as log:
            filler = ("nothing of interest stands in this sentence. " * 40).strip()
            put(log, "long", {"text": f"{filler} The zeppelin hangar burned. {filler}"}, MEMORY)
            put(log, "large", {"text": "gyroscope " * 9_000}, MEMORY)  # its value lies outside the log
            index = Filler(log, chunk=200).run()
            assert index.index.held > 10
            found = keys_of(index.ask("zeppelin hangar burned", mode="vector"))
            assert (found[0], found.count("long")) == ("long", 1)
            assert keys_of(index.ask("gyroscope", mode="vector"))[0] == "large"

    def test_fields_say_what_is_embedded(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            said = {"messages": [{"content": "zeppelin", "by": "ada"}, {"content": "hangar"}], "note": "gyroscope"}
            put(log, "a", said, MEMORY)
            put(log, "b", {"note": "nothing there"}, MEMORY)
            filler = Filler(log, fields=("messages[*].content",)).run()
            assert filler.calls == [["zeppelin\nhangar"]]
            assert len(filler.places()) == 1
            assert filler.index.complete

    def test_another_model_is_built_beside_and_takes_over_at_once(self, tmp_path: Path) -> None:
        with self.log(tmp_path) as log:
            old = Filler(log, "letters-1").run()
            put(log, "new", {"text": "a zeppelin"}, MEMORY)
            new = Filler(log, "letters-2")
            old.run()
            assert [each.identity for each in vectors.indexes(log.corpus, MEMORY)] == [
                old.declared.identity,
                new.declared.identity,
            ]
            assert keys_of(asked(log, "zeppelin", old, new, collection=MEMORY, mode="vector"))[0] == "new"
            assert asked(log, "zeppelin", new, collection=MEMORY).mode == "text", "the old is searched, by its function"
            assert new.calls == [["zeppelin"]] or new.calls == []
            number = new.index.id
            new.run()
            assert [each.identity for each in vectors.indexes(log.corpus, MEMORY)] == [new.declared.identity]
            with refused(NotFound):
                old.filled.next()
            assert asked(log, "zeppelin", new, collection=MEMORY).mode == "hybrid"
            while vectors.sweep(log.corpus, 2):
                pass
            rows = log.corpus.query("SELECT id FROM vec")
            assert {row[0] >> 40 for row in rows} == {number}
            assert len(rows) == len(TEAS) + 1
            vectors.drop(log.corpus, MEMORY)
            assert vectors.declare(log.corpus, MEMORY, old.declared).id > number, "no number is given twice"

    def test_vectors_of_two_lengths_are_never_mixed(self, tmp_path: Path) -> None:
        with self.log(tmp_path) as log:
            filler = Filler(log).run()
            short = Embedder(lambda texts: [[1.0, 2.0] for _ in texts], filler.declared)
            put(log, "new", {"text": "a zeppelin"}, MEMORY)
            filling.step(filler.filled, short)
            assert filler.index.tries == 1
            assert str(DIMS) in filler.index.error
            assert len(filler.places()) == len(TEAS)
            filler.clock.advance(10)
            filler.run()
            assert (filler.index.tries, filler.index.error, len(filler.places())) == (0, "", len(TEAS) + 1)

    # -- what goes wrong --------------------------------------------------------------------------------------------

    def test_a_text_that_cannot_be_taken_holds_nothing_up_and_is_tried_again(self, tmp_path: Path) -> None:
        with self.log(tmp_path) as log:
            filler = Filler(log)
            filler.fails = lambda text: "coffee" in text
            filler.run()
            assert filler.index.complete
            assert len(filler.places()) == len(TEAS) - 1
            many, said = vectors.failed(log.corpus, filler.index)
            assert (many, "cannot take" in said) == (1, True)
            assert keys_of(filler.ask("black coffee"))[0] == "coffee", "it is found by its words"
            before = len(filler.calls)
            filler.run()
            assert len(filler.calls) == before, "not before its time"
            filler.clock.advance(2.001)
            filler.run()
            assert len(filler.calls) > before
            filler.clock.advance(2.001)
            before = len(filler.calls)
            filler.run()
            assert len(filler.calls) == before, "ever more rarely"
            filler.fails = lambda text: False
            vectors.again(log.corpus, filler.index)
            filler.run()
            assert vectors.failed(log.corpus, filler.index) == (0, "")
            assert len(filler.places()) == len(TEAS)

    def test_a_function_that_always_fails_is_left_alone_and_blames_no_text(self, tmp_path: Path) -> None:
        with self.log(tmp_path) as log:
            filler = Filler(log)
            filler.fails = lambda text: True
            filler.run()
            assert [HARMLESS] in filler.calls
            assert len(filler.calls) == 2
            assert (filler.index.pos, filler.index.tries, vectors.failed(log.corpus, filler.index)[0]) == (0, 1, 0)
            assert vectors.pending(log.corpus, filler.index) == len(TEAS)
            filler.run()
            assert len(filler.calls) == 2
            assert keys_of(asked(log, "black tea", collection=MEMORY))[0] == "tea"
            assert filler.ask("black tea").mode == "text", "a question that cannot be embedded is asked by words"
            filler.fails = lambda text: False
            filler.clock.advance(2.001)
            filler.run()
            assert (filler.index.tries, filler.index.complete, len(filler.places())) == (0, True, len(TEAS))

    def test_two_fillers_and_a_crash_between_lots_lose_and_double_nothing(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            for first in range(0, 200, 100):
                log.append([value(MEMORY, f"k{first + n:03}", {"text": f"word{first + n}"}) for n in range(100)])
            filler = Filler(log)
            other = filler.another()
            mine, theirs = filler.filled.next(), other.next()
            assert mine is not None
            assert mine == theirs
            made = {pos: [numbers.pack(hashed(pieces)[0])] for pos, pieces in mine.texts.items()}
            assert filler.filled.done(mine, made, {})
            assert not other.done(mine, made, {}), "another was faster"
            halfway = filler.index.pos
            filler.filled = filler.another()  # the first died; whoever comes next knows the table alone
            filler.run()
            assert 0 < halfway < filler.index.pos
            assert filler.places() == [stored.pos for stored in log.corpus.feed(0, 500) if stored.record.is_value]
            rows = log.corpus.query("SELECT pos FROM vec")
            assert len(rows) == len({row[0] for row in rows}) == 200 == filler.index.held

    def test_memory_follows_what_is_added_and_what_is_taken_out(self, tmp_path: Path) -> None:
        with self.log(tmp_path) as log:
            filler = Filler(log).run()
            assert keys_of(filler.ask("zeppelin", mode="vector", min_score=0.5)) == []
            put(log, "new", {"text": "zeppelin"}, MEMORY)
            filler.run()
            assert keys_of(filler.ask("zeppelin", mode="vector", min_score=0.5)) == ["new"]
            stored = log.newest(MEMORY, "new")
            assert stored is not None
            erase(log, (), [mark_of(stored.record)])
            put(log, "newer", {"text": "zeppelins"}, MEMORY)
            filler.run()
            assert keys_of(filler.ask("zeppelin", mode="vector", min_score=0.5)) == ["newer"]

    def test_an_index_is_had_by_one_at_a_time(self, tmp_path: Path) -> None:
        with self.log(tmp_path) as log:
            index = Filler(log).index
            assert vectors.hold(log.corpus, index, "one", 1_000, 2_000)
            assert vectors.hold(log.corpus, index, "one", 1_500, 2_500)
            assert not vectors.hold(log.corpus, index, "two", 2_000, 3_000)
            assert vectors.hold(log.corpus, index, "two", 2_500, 3_000)

    def test_sealed_values_and_values_that_are_no_text_are_not_embedded(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            log.append(
                [value(MEMORY, "bytes", b"\0\1"), value(MEMORY, "none", None), value(MEMORY, "flag", {"a": True})]
            )
            filler = Filler(log).run()
            assert (filler.calls, filler.places(), filler.index.complete) == ([], [], True)

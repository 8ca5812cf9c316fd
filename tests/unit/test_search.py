"""Ranking, pieces of texts, filters as dictionaries, and questions as JSON: what needs no corpus."""

from __future__ import annotations

import base64
import math
import random
import struct
import sys
from typing import Any

import pytest

from holdfast.corpus.search import numbers
from holdfast.corpus.search.chunks import cut, text_in
from holdfast.corpus.search.embedding import HARMLESS, Embedder
from holdfast.corpus.search.question import Question, checked, vector_in
from holdfast.corpus.search.ranking import PARTLY, covered, frequency, fuse, share, text_score, weight
from holdfast.corpus.search.vectors import Declared, declared
from holdfast.errors import HoldfastError, UsageError
from holdfast.log.hits import Hit, Hits
from holdfast.log.versions import Version
from holdfast.query import matches, read_condition, where


def test_rare_words_weigh_more_and_what_everything_holds_weighs_nothing() -> None:
    assert weight(1, 1_000) > weight(10, 1_000) > weight(900, 1_000) > weight(1_000, 1_000)
    assert weight(1_000, 1_000) < 0.001
    assert weight(5_000, 1_000) >= 0, "an estimate may be too large"


def test_how_many_hold_a_word_is_told_by_how_wide_the_newest_spread() -> None:
    assert frequency([9, 5, 1], 10, 1_000_000) == 3
    assert frequency(list(range(1_000, 800, -1)), 200, 1_000) == pytest.approx(1_000, rel=0.01)
    assert frequency(list(range(1_000_000, 0, -5_000)), 200, 1_000_000) == pytest.approx(200, rel=0.01)


def test_a_record_without_a_word_scores_a_quarter_of_the_weight_that_it_holds() -> None:
    weights = [3.0, 1.0]
    assert text_score(share(weights, [True, True])) == 1.0
    assert text_score(share(weights, [True, False])) == PARTLY * 0.75
    assert [covered(text_score(part)) for part in (0.0, 0.5, 1.0)] == [0.0, 0.5, 1.0]
    assert share(weights, [False, False]) == 0
    assert share([1.0, 0.0], [True, False]) < 1.0, "a word that weighs nothing is missing all the same"
    assert share([0.0, 0.0], [True, False]) == 0.5


def test_two_lists_are_one_and_a_common_word_does_not_outvote_a_near_vector() -> None:
    assert fuse({"exact": 1.0}, {"exact": 1.0}) == {"exact": 1.0}
    assert fuse({}, {"one": 0.8}) == {"one": 0.4}
    mixed = fuse({"common": 0.1}, {"near": 0.9, "common": 0.7, "far": 0.6})
    assert mixed["near"] > mixed["common"] > mixed["far"] == 0
    exact = fuse({"id": 1.0}, {"near": 0.99, "id": 0.2})
    assert exact["id"] > exact["near"]
    wide = fuse({"common": 0.2}, {"near": 0.9, "common": 0.0})
    narrow = fuse({"common": 0.2}, {"near": 0.85, "common": 0.75})
    assert wide["near"] > wide["common"], wide
    assert narrow["near"] > narrow["common"], "whatever a function calls near"
    assert all(
        0 <= score <= 1 for score in (*mixed.values(), *exact.values(), *fuse({}, {"a": 0.5, "b": 0.5}).values())
    )


def test_a_text_is_cut_at_sentences_or_words_and_loses_nothing() -> None:
    assert cut("short", 100) == ["short"]
    assert cut("  \n", 100) == []
    assert cut("x" * 1_000, 0) == ["x" * 1_000]
    text = " ".join(f"Sentence number {n} says something." for n in range(200))
    pieces = cut(text, 300)
    assert all(len(piece) <= 300 for piece in pieces)
    assert all(piece.endswith(".") for piece in pieces)
    assert {f"number {n} says" for n in range(200)} <= {
        f"number {n} says" for n in range(200) if any(f"number {n} says" in piece for piece in pieces)
    }
    assert "".join(cut("y" * 1_000, 300)).count("y") >= 1_000
    dice = random.Random(1)
    for _ in range(200):
        size = dice.randint(100, 400)
        said = "".join(dice.choices("ab .\n!", k=dice.randint(0, 3_000)))
        assert set(said.split()) <= {word for piece in cut(said, size) for word in piece.split()} | {
            word for word in said.split() if len(word) > size // 8
        }


def test_fields_name_what_is_embedded() -> None:
    value = {
        "text": "one",
        "messages": [{"content": "two"}, {"content": ["three", 4]}],
        "$ends": 12,
        "n": 5,
        "ok": True,
    }
    assert text_in(value, ("messages[*].content", "text")) == "two\nthree\n4\none"
    assert text_in(value, ()) == "one\ntwo\nthree\n4\n5"
    assert text_in({"$words": "as it says", "text": "no"}, ()) == "as it says"
    assert text_in("plain", ()) == "plain"
    assert text_in("plain", ("text",)) == ""


@pytest.mark.parametrize(
    ("said", "same"),
    [
        ({"n": 3}, where("n") == 3),
        ({"n": {"gte": 3, "lt": 9}}, (where("n") >= 3) & (where("n") < 9)),
        ({"n": {"$gt": 3}}, where("n") > 3),
        ({"n": {"lte": 3}}, where("n") <= 3),
        ({"n": {"ne": 3}}, where("n") != 3),
        ({"tags": ["a", "b"]}, where("tags").is_in(["a", "b"])),
        ({"tags": {"in": ["a"]}}, where("tags").is_in(["a"])),
        ({"tags": {"nin": ["a"]}}, ~where("tags").is_in(["a"])),
        ({"tags": {"contains": "a"}}, where("tags").has("a") | where("tags").text("a")),
        ({"bio": {"contains": "black tea"}}, where("bio").text("black tea")),
        ({"n": {"exists": False}}, where("n").exists(False)),
        ({"n": None}, where("n").exists(False)),
        ({"OR": [{"n": 3}, {"tags": "b"}]}, (where("n") == 3) | where("tags").has("b")),
        (
            {"$or": [{"n": 3}, {"tags": "b"}], "n": {"lt": 4}},
            ((where("n") == 3) | where("tags").has("b")) & (where("n") < 4),
        ),
        ({"$AND": [{"n": 3}, {"tags": "b"}]}, (where("n") == 3) & where("tags").has("b")),
        ({"NOT": {"n": 3}}, where("n") != 3),
        ({"NOT": [{"n": 3}, {"n": 5}]}, (where("n") != 3) & (where("n") != 5)),
        ({"a.b": "x"}, where("a.b") == "x"),
        ({"field": "n", "op": "ge", "value": 3}, where("n") >= 3),
        (where("n") > 3, where("n") > 3),
        ({}, where("n").exists() | where("n").exists(False)),
    ],
)
def test_a_dictionary_of_filters_means_what_the_condition_means(said: Any, same: Any) -> None:
    shapes: list[Any] = [([], "black and tea", "x"), (["a"], "tea", "y"), (["a", "b"], "tea, black", 1)]
    whole = (None, 1, 3, 4, 5, 9)
    values = [{"n": n, "tags": tags, "bio": bio, "a": {"b": b}} for n in whole for tags, bio, b in shapes]
    values.append({})
    condition = read_condition(said)
    assert [matches(condition, value) for value in values] == [matches(same, value) for value in values]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"n": {"gtee": 3}}, "did you mean 'gte'"),
        ({"n": {"$regex": "x"}}, "unknown filter operator '$regex'"),
        ({"$nor": []}, "did you mean '$or'"),
        ({"a": {"city": "X"}}, "a.city"),
        ({"n": {}}, "no operator"),
        ({"n": {"in": "abc"}}, "takes a list"),
        ({3: 1}, "no field"),
        ([{"n": 3}], "a filter is an object"),
        ({"n": {"gt": None}}, "a text or a number"),
    ],
)
def test_a_filter_that_is_none_says_what_and_how(said: Any, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_condition(said)
    assert told in f"{caught.value} {caught.value.hint}"


def test_a_vector_comes_as_numbers_or_as_their_bytes() -> None:
    listed = vector_in([3, 4])
    assert struct.unpack("<2f", listed) == pytest.approx((0.6, 0.8))
    assert vector_in(base64.b64encode(struct.pack("<2f", 3, 4)).decode()) == listed
    for wrong in ([], None, "???", base64.b64encode(b"abc").decode(), [1.0] * 20_000, ["x"]):
        with pytest.raises(UsageError):
            vector_in(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "how",
    [
        {"mode": "fuzzy"},
        {"limit": 0},
        {"limit": 1_001},
        {"min_score": 1.5},
        {"mode": "vector"},
        {"mode": "hybrid", "collection": "m", "at": 3},
        {"mode": "vector", "collection": "m", "at_stamp": 3},
        {"q": 5},
        {"q": "x" * 10_001},
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(how: Any) -> None:
    with pytest.raises(UsageError):
        checked(Question(**{"q": "x", **how}))
    assert checked(Question(q="x", collection="m", mode="hybrid")).q == "x"


def test_identity_is_all_that_makes_vectors_comparable() -> None:
    one = declared("m", fields=("text",))
    assert one.identity == declared("m", fields=["text"]).identity
    others = [
        declared("m2", fields=("text",)),
        declared("m", fields=("text", "more")),
        declared("m", fields=("text",), dims=3),
        declared("m", fields=("text",), chunk=500),
        Declared(model="m", fields=("text",), chunker="another"),
        Declared(model="m", fields=("text",), norm="another"),
    ]
    assert len({one.identity, *(each.identity for each in others)}) == 7


@pytest.mark.parametrize(
    "how",
    [
        {"model": ""},
        {"model": "m", "fields": "text"},
        {"model": "m", "fields": ("a..b",)},
        {"model": "m", "dims": 0},
        {"model": "m", "chunk": 5},
    ],
)
def test_an_impossible_declaration_is_refused(how: Any) -> None:
    with pytest.raises(UsageError):
        declared(**how)


@pytest.mark.parametrize("plain", [False, True])
def test_the_nearest_are_the_nearest_with_numpy_and_without(plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if plain:
        monkeypatch.setattr(numbers, "engine", lambda: None)
    monkeypatch.setattr(numbers, "BLOCK_BYTES", 16 * 4 * 5)  # several blocks
    dice = random.Random(2)
    vectors = [[dice.gauss(0, 1) for _ in range(5)] for _ in range(100)]
    rows = numbers.Rows(5)
    rows.add([numbers.pack(each) for each in vectors[:37]])
    rows.add([numbers.pack(each) for each in vectors[37:]])
    query = [dice.gauss(0, 1) for _ in range(5)]
    exact = numbers.scores(query, [numbers.pack(each) for each in vectors])
    order = sorted(range(100), key=lambda number: -exact[number])
    for most in (1, 7, 100, 500):
        found = rows.near(numbers.pack(query), most)
        assert [number for number, _ in found] == order[:most]
        assert all(math.isclose(score, exact[number], abs_tol=1e-5) for number, score in found)
    assert numbers.Rows(5).near(numbers.pack(query), 3) == []


@pytest.mark.parametrize("vector", [[float("nan")], [float("inf"), 1.0], ["x"], 5])
def test_what_is_no_vector_is_refused(vector: Any) -> None:
    with pytest.raises(UsageError):
        numbers.pack(vector)


def test_a_vector_of_nothing_is_near_to_nothing() -> None:
    assert numbers.pack([0.0, 0.0]) == bytes(8)
    length = sum(each * each for each in struct.unpack("<3f", numbers.pack([1e30, 2e30, -3e30])))
    assert length == pytest.approx(1.0)


def embedder(fn: Any, **how: Any) -> Embedder:
    """A function, to be called."""
    return Embedder(fn, declared("m", **how))


def test_what_a_function_fails_on_is_isolated_and_the_rest_is_kept() -> None:
    calls: list[list[str]] = []

    def fn(texts: list[str]) -> list[list[float]]:
        calls.append(texts)
        if any("bad" in text for text in texts):
            raise ValueError("no")
        return [[float(len(text)), 1.0] for text in texts]

    texts = [f"text {n}" for n in range(150)]
    texts[3] = texts[77] = "bad"
    made = embedder(fn).texts(texts)
    assert not made.down
    assert made.errors == {3: "ValueError: no", 77: "ValueError: no"}
    assert [number for number, vector in enumerate(made.vectors) if vector is None] == [3, 77]
    assert max(map(len, calls)) <= 64
    assert len(calls) < 40


@pytest.mark.parametrize(
    "answer",
    [[[1.0], [2.0], [3.0]], [[1.0], [1.0, 2.0]], [[], []], [[1.0], ["x"]], None, [[float("nan")], [1.0]]],
)
def test_an_answer_that_is_none_is_a_failure_of_the_function(answer: Any) -> None:
    made = embedder(lambda texts: answer).texts(["a", "b"])
    assert made.down
    assert made.vectors == [None, None]


def test_an_async_function_is_awaited_on_one_loop() -> None:
    import asyncio

    loops = set()

    async def fn(texts: list[str]) -> list[list[float]]:
        loops.add(asyncio.get_running_loop())
        await asyncio.sleep(0)
        return [[float(len(text))] for text in texts]

    one = embedder(fn)
    assert len(one.texts(["a", "bb"]).vectors) == 2

    async def within() -> bytes:
        return await asyncio.to_thread(one.query, "abc")

    assert asyncio.run(within()) == numbers.pack([3.0])
    assert len(loops) == 1
    one.close()
    one.close()


def test_a_query_that_cannot_be_embedded_says_why() -> None:
    def fn(texts: list[str]) -> Any:
        raise ConnectionError("refused")

    with pytest.raises(HoldfastError, match="ConnectionError: refused"):
        embedder(fn).query("tea")
    with pytest.raises(UsageError, match="no function"):
        embedder("not callable")
    assert HARMLESS


def test_a_hit_is_a_version_with_a_score() -> None:
    fields: dict[str, Any] = {"agent": "a", "collection": "c", "key": "k", "version": 1, "seq": 1, "time": 0.0}
    hit = Hit(**fields, kind="put", etag="", value=1, score=0.5, parts={"text": 0.5})
    assert isinstance(hit, Version)
    assert hit.to_json()["score"] == 0.5
    hits = Hits([hit], mode="hybrid", partial=True, pending=3)
    assert (hits[0], len(hits), hits.mode, hits.partial, hits.pending) == (hit, 1, "hybrid", True, 3)
    assert isinstance(hits, list)


def test_nothing_but_vectors_loads_numpy() -> None:
    import subprocess

    code = "import sys; import holdfast.node.embedding; sys.exit('numpy' in sys.modules or 'asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

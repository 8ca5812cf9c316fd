"""LangChain's in-memory classes as the oracles; every place; two machines. Its suites: `suites/langchain_stores.py`."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast import Store
from holdfast.errors import UsageError
from tests.integrations.places import LIMITS, MISSING, fresh
from tests.integrations.places import hub as hub
from tests.integrations.places import kept as kept
from tests.integrations.places import machines as machines

pytest.importorskip("langchain_core", reason=MISSING)

from langchain_core.caches import InMemoryCache
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.stores import InMemoryByteStore
from langchain_core.vectorstores import InMemoryVectorStore

from holdfast.integrations.langchain import (
    HoldfastByteStore,
    HoldfastCache,
    HoldfastChatMessageHistory,
    HoldfastVectorStore,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path, "ada", hub=[], limits=LIMITS) as opened:
        yield opened


MESSAGES: st.SearchStrategy[BaseMessage] = st.one_of(
    st.builds(HumanMessage, st.text(max_size=5)),
    st.builds(
        lambda text, number: HumanMessage([{"type": "text", "text": text, "n": number}]),
        st.text(),
        st.floats(0, allow_infinity=False),
    ),
    st.builds(
        lambda text: AIMessage(text, tool_calls=[{"name": "f", "args": {"x": 1}, "id": "1"}]), st.text(max_size=5)
    ),
    st.builds(lambda text: ToolMessage(text, tool_call_id="1"), st.text(max_size=5)),
    st.builds(SystemMessage, st.text(max_size=5)),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add_messages"), st.lists(MESSAGES, max_size=3)), st.tuples(st.just("clear"), st.none())
    ),
    max_size=8,
)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # theirs is to go in 2.0
@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_a_history_is_what_langchains_is(steps: list[tuple[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as directory, Store(directory, "ada", hub=[], limits=LIMITS) as store:
        ours, theirs = HoldfastChatMessageHistory("s", store), InMemoryChatMessageHistory()
        for what, given_ in steps:
            for each in (ours, theirs):
                getattr(each, what)(*([] if given_ is None else [given_]))
            assert ours.messages == theirs.messages


KEYS = st.sampled_from(["a", "a/b", "b", "ü"])
BYTE_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("mset"), st.lists(st.tuples(KEYS, st.binary(max_size=4)), max_size=3)),
        st.tuples(st.just("mdelete"), st.lists(KEYS, max_size=2)),
    ),
    max_size=8,
)


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(steps=BYTE_STEPS)
def test_bytes_are_what_langchains_are(steps: list[tuple[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as directory, Store(directory, "ada", hub=[], limits=LIMITS) as store:
        ours, theirs = HoldfastByteStore(store), InMemoryByteStore()
        for what, given_ in steps:
            for each in (ours, theirs):
                getattr(each, what)(given_)
            keys = ["a", "a/b", "b", "none", "ü"]
            assert ours.mget(keys) == theirs.mget(keys)
            for prefix in (None, "a", "a/", "none"):
                assert sorted(ours.yield_keys(prefix=prefix)) == sorted(theirs.yield_keys(prefix=prefix))


ANSWERS: Any = [[Generation(text="x", generation_info={"n": 1})], [ChatGeneration(message=AIMessage("y"))], []]


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=st.lists(
        st.tuples(st.sampled_from("pq"), st.sampled_from("mn"), st.sampled_from([0, 1, 2, "clear"])), max_size=8
    )
)
def test_a_cache_is_what_langchains_is(steps: list[tuple[str, str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as directory, Store(directory, "ada", hub=[], limits=LIMITS) as store:
        ours, theirs = HoldfastCache(store), InMemoryCache()
        for prompt, model, what in steps:
            for each in (ours, theirs):
                each.clear() if what == "clear" else each.update(prompt, model, ANSWERS[what])
            for asked in [(one, other) for one in "pq" for other in "mn"]:
                assert ours.lookup(*asked) == theirs.lookup(*asked)


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["add", "add", "delete"]), st.integers(0, 5), st.sampled_from("xyz")), max_size=12
    ),
    alike=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_vectors_are_what_langchains_are(steps: list[tuple[str, int, str]], alike: float) -> None:
    embedding = DeterministicFakeEmbedding(size=6)
    with tempfile.TemporaryDirectory() as directory, Store(directory, "ada", hub=[], limits=LIMITS) as store:
        both: list[Any] = [HoldfastVectorStore(embedding, store), InMemoryVectorStore(embedding)]
        for what, number, text in steps:
            document = Document(f"{text}{number}", id=str(number), metadata={"n": number})
            for each in both:
                each.add_documents([document]) if what == "add" else each.delete([str(number), "none"])

        def even(document: Document) -> bool:
            return bool(document.metadata["n"] % 2 == 0)

        found = [
            (
                [(each, round(score, 5)) for each, score in vectors.similarity_search_with_score("x", 4)],
                vectors.similarity_search("y", 9, filter=even),
                vectors.similarity_search_by_vector(embedding.embed_query("z"), 2),
                vectors.max_marginal_relevance_search("x", 3, 5, alike),
                sorted(each.page_content for each in vectors.get_by_ids(["0", "1", "none"])),
            )
            for vectors in both
        ]
        assert found[0] == found[1]


def test_everything_is_the_same_at_every_place(kept: dict[str, Any]) -> None:
    history = HoldfastChatMessageHistory("s", **kept)

    async def awaited() -> list[BaseMessage]:
        await history.aadd_messages([HumanMessage("hi"), AIMessage("you")])
        found = await history.aget_messages()
        await history.aclear()
        return found

    assert asyncio.run(awaited()) == [HumanMessage("hi"), AIMessage("you")]
    assert history.messages == []

    bodies = HoldfastByteStore(**{**kept, "collection": fresh()})
    bodies.mset([("a/b", b"1"), ("a", b"2"), ("c", b"3")])
    assert (bodies.mget(["c", "none", "a/b"]), list(bodies.yield_keys(prefix="a"))) == (
        [b"3", None, b"1"],
        ["a", "a/b"],
    )
    bodies.mdelete(["a", "none"])
    assert list(bodies.yield_keys()) == ["a/b", "c"]

    cache = HoldfastCache(**{**kept, "collection": fresh()})
    answer = [Generation(text="x", generation_info={"n": 1}), ChatGeneration(message=AIMessage("y"))]
    cache.update("p", "m", answer)
    assert (cache.lookup("p", "m"), cache.lookup("p", "other")) == (answer, None)
    with pytest.raises(UsageError):
        cache.clear(only="this")
    cache.clear()
    assert cache.lookup("p", "m") is None

    vectors = HoldfastVectorStore(DeterministicFakeEmbedding(size=8), **{**kept, "collection": fresh()})
    vectors.add_documents([Document("one", id="1"), Document("two", id="2", metadata={"n": 2})])
    ((nearest, score),) = vectors.similarity_search_with_score("two", 1)
    assert (nearest, round(score, 6)) == (Document("two", id="2", metadata={"n": 2}), 1.0)
    assert vectors.similarity_search("two", 2, filter=lambda each: not each.metadata) == [Document("one", id="1")]
    vectors.add_documents([Document("anew", id="2")])
    vectors.delete()
    assert vectors.similarity_search("two") == []
    assert [each.page_content for each in vectors.history("2")] == ["anew", "two"]


def test_vectors_of_another_model_are_refused(store: Store) -> None:
    HoldfastVectorStore(DeterministicFakeEmbedding(size=8), store).add_texts(["one"])
    with pytest.raises(UsageError, match="a vector of 8 numbers, the query one of 4"):
        HoldfastVectorStore(DeterministicFakeEmbedding(size=4), store).similarity_search("one")


def test_a_chat_begun_on_one_machine_goes_on_on_the_other(machines: tuple[Store, Store]) -> None:
    name = fresh()
    there, here = (HoldfastChatMessageHistory("s", each, shared=True, collection=name) for each in machines)
    there.add_messages([HumanMessage("hi")])
    here.add_messages([AIMessage("you")])
    assert there.messages == here.messages == [HumanMessage("hi"), AIMessage("you")]

    pages, same = (HoldfastByteStore(each, shared=True, collection=f"{name}-b") for each in machines)
    pages.mset([("page", b"from there")])
    assert same.mget(["page"]) == [b"from there"]
    asked, known = (HoldfastCache(each, shared=True, collection=f"{name}-c") for each in machines)
    asked.update("p", "m", ANSWERS[0])
    assert known.lookup("p", "m") == ANSWERS[0]
    embedding = DeterministicFakeEmbedding(size=4)
    put, found = (HoldfastVectorStore(embedding, each, shared=True, collection=f"{name}-v") for each in machines)
    put.add_texts(["one"], ids=["1"])
    found.add_texts(["two"], ids=["2"])
    assert put.similarity_search("two", 1) == [Document("two", id="2")]

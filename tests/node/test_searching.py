"""A store is searched by words, by vectors and by both; its indexes fill themselves, and hold no write up."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast import AsyncStore, Hits, Store, UsageError, where
from holdfast.corpus.search import numbers
from holdfast.errors import HoldfastError, MissingExtra
from holdfast.node.erase import erase_key
from tests.node.conftest import ROOMY
from tests.node.questions import EXACT, KNOWN, QUESTIONS, letters, reciprocal

Open = Callable[..., Store]
MEMORY = "memory"
DATA = Path(os.environ.get("HOLDFAST_DATA") or Path(__file__).parents[2].parent / "shared" / "data")
FILE = DATA / "conversations.json"
LIMIT_S = 30.0


def until(ready: Callable[[], Any]) -> None:
    """Returns when something is so."""
    ends = time.monotonic() + LIMIT_S
    while not ready():
        assert time.monotonic() < ends, "it never became so"
        threading.Event().wait(0.01)


def settled(store: Store, collection: str = MEMORY) -> None:
    """Returns when an index holds everything."""

    def ready() -> bool:
        found = next(each for each in store.indexes() if each.name == collection)
        return found.complete and not found.pending and found.building is None

    until(ready)


def known(store: Store, **how: Any) -> None:
    """Puts what is known, and has it found by its letters."""
    with store.batch() as batch:
        for key, text in KNOWN.items():
            batch.put(key, {"text": text}, collection=MEMORY)
    store.add_index(MEMORY, **{"fields": ("text",), "embed": letters, "model": "letters", **how})
    settled(store)


def ranks(store: Store, questions: dict[str, str], mode: Any) -> list[int | None]:
    """At which place each question finds what it is about."""
    out: list[int | None] = []
    for question, key in questions.items():
        keys = [hit.key for hit in store.search(question, collection=MEMORY, mode=mode, limit=10)]
        out.append(keys.index(key) + 1 if key in keys else None)
    return out


def test_a_question_finds_what_holds_its_words_and_says_how(store: Store) -> None:
    store.put("tea", {"text": "She likes black tea", "sure": 0.9}, collection=MEMORY)
    store.put("coffee", {"text": "He likes black coffee", "sure": 0.2}, collection=MEMORY)
    hits = store.search("which tea does she like", collection=MEMORY, explain=True)
    assert isinstance(hits, Hits)
    assert (hits.mode, hits.partial, hits.pending) == ("text", False, 0)
    assert [(hit.key, hit.value["sure"]) for hit in hits] == [("tea", 0.9)]
    assert hits[0].parts is not None
    assert hits[0].to_json()["score"] == hits[0].score < 0.25
    assert [hit.key for hit in store.search("black", filter=where("sure") >= 0.5)] == ["tea"]
    assert [hit.key for hit in store.search("black", filter={"sure": {"lt": 0.5}})] == ["coffee"]
    assert [hit.key for hit in store.search("black tea", min_score=1.0)] == ["tea"]
    with pytest.raises(UsageError, match="unknown filter operator 'gtee'"):
        store.search("black", filter={"sure": {"gtee": 1}})
    with pytest.raises(UsageError, match="has no index of vectors"):
        store.search("black", collection=MEMORY, mode="vector")
    with pytest.raises(UsageError, match="nothing to search for"):
        store.search("?!")
    with pytest.raises(UsageError, match="unknown search mode"):
        store.search("tea", mode="fuzzy")  # type: ignore[arg-type]


def test_the_past_is_searched_by_time_and_by_cursor(store: Store) -> None:
    first = store.put("tea", {"text": "black tea"}, collection=MEMORY)
    with store.changes(live=False) as changes:
        list(changes)
        cursor = changes.cursor
    store.put("tea", {"text": "green tea"}, collection=MEMORY)
    assert [hit.value["text"] for hit in store.search("tea")] == ["green tea"]
    assert [hit.value["text"] for hit in store.search("tea", at=cursor)] == ["black tea"]
    assert [hit.value["text"] for hit in store.search("tea", at="2100-01-01T00:00:00Z")] == ["green tea"]
    assert store.search("tea", at=first.time - 60) == []
    for wrong in (3, True, "12.abc@0", "yesterday"):
        with pytest.raises(UsageError):
            store.search("tea", at=wrong)


def test_exact_names_come_first_and_both_lists_together_are_no_worse_than_either(store: Store) -> None:
    known(store)
    exact = {name: next(key for key, text in KNOWN.items() if name in text) for name in EXACT}
    assert ranks(store, exact, "text") == [1] * len(exact)
    assert ranks(store, exact, "hybrid") == [1] * len(exact)
    by = {mode: reciprocal(ranks(store, QUESTIONS, mode)) for mode in ("text", "vector", "hybrid")}
    assert by["hybrid"] >= max(by["text"], by["vector"]), by
    assert by["hybrid"] > 0.9, by
    assert store.search("peanut allergies", collection=MEMORY).mode == "hybrid"


needs_data = pytest.mark.skipif(
    not FILE.is_file(), reason="needs conversations.json, which is not part of the project: HOLDFAST_DATA=<its folder>"
)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, dict[str, str], dict[str, str]]]:
    """Conversations in a store; questions (what a customer was told to want) and names, and where each is answered."""
    tasks: dict[int, Any] = {}
    for each in json.loads(FILE.read_bytes()):
        tasks.setdefault(each["task_id"], each)
    questions: dict[str, str] = {}
    named: dict[str, set[str]] = {}
    with Store(tmp_path_factory.mktemp("real") / "node", "ada", hub=[], limits=ROOMY) as store:
        with store.batch() as batch:
            for number, each in tasks.items():
                said = [m["content"] for m in each["traj"] if m["role"] in ("user", "assistant") and m.get("content")]
                batch.put(str(number), {"text": "\n".join(said)}, collection=MEMORY)
                wish = re.findall(r"\w+", each["info"]["task"]["instruction"])[:24]
                questions[" ".join(wish)] = str(number)
                for user in re.findall(r"\b[a-z]+_[a-z]+_\d{4}\b", "\n".join(said)):
                    named.setdefault(user, set()).add(str(number))
        store.add_index(MEMORY, fields=("text",), embed=letters, model="letters")
        settled(store)
        yield store, questions, {name: next(iter(keys)) for name, keys in named.items() if len(keys) == 1}


@needs_data
def test_exact_names_come_first_among_real_conversations(real: Any) -> None:
    store, _, named = real
    assert len(named) >= 5
    for mode in ("text", "hybrid"):
        assert ranks(store, named, mode) == [1] * len(named), mode


@pytest.fixture(scope="module")
def by(real: Any) -> dict[str, float]:
    """How well each mode answers the questions (mean reciprocal rank)."""
    store, questions, _ = real
    return {mode: reciprocal(ranks(store, questions, mode)) for mode in ("text", "vector", "hybrid")}


@needs_data
def test_both_lists_together_are_no_worse_than_either_among_real_conversations(by: dict[str, float]) -> None:
    assert by["hybrid"] >= max(by["text"], by["vector"]), by


def test_without_numpy_words_are_found_and_few_vectors_too(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "engine", lambda: None)
    known(store)
    assert store.search("HF-4711", collection=MEMORY, mode="text")[0].key == "error"
    assert store.search("peanut allergies", collection=MEMORY, mode="vector")[0].key == "allergy"
    monkeypatch.setattr(numbers, "PLAIN_MAX", 3)
    with pytest.raises(MissingExtra, match="numpy") as caught:
        store.search("peanut allergies", collection=MEMORY, mode="vector")
    assert "holdfast[vector]" in (caught.value.hint or "")
    assert store.search("HF-4711", collection=MEMORY)[0].key == "error", "auto goes on by words"


def test_a_function_that_always_raises_loses_no_write_and_is_seen_everywhere(store: Store) -> None:
    def broken(texts: list[str]) -> Any:
        raise ConnectionError("no route to the model")

    store.add_index(MEMORY, embed=broken, model="broken")
    with store.batch() as batch:
        for number in range(200):
            batch.put(f"k{number:03}", {"text": f"word{number} and more"}, collection=MEMORY)
    assert len(store.keys(collection=MEMORY)) == 200
    until(lambda: store.indexes()[0].next_try)
    (status,) = store.indexes()
    assert (status.vectors, status.failed, status.pending) == (0, 0, 200)
    assert "no route to the model" in status.last_error
    hits = store.search("word150", collection=MEMORY)
    assert (hits.mode, [hit.key for hit in hits]) == ("text", ["k150"])
    with pytest.raises(HoldfastError, match="no route to the model"):
        store.search("word150", collection=MEMORY, mode="vector")
    health = store.health()
    assert any("no route to the model" in problem for problem in health["problems"])
    assert health["indexes"][0]["name"] == MEMORY
    assert re.search(r'holdfast_index_pending_records\{.*index="memory"\} 200', store.metrics())
    # The function is put right: the next who opens the store with it fills what waits.
    store.add_index(MEMORY, embed=letters, model="letters")
    settled(store)
    assert store.search("word150", collection=MEMORY, mode="vector")[0].key == "k150"
    assert store.health()["problems"] == []


def test_a_new_model_takes_over_while_the_old_one_is_searched(store: Store) -> None:
    known(store, model="letters-1")
    old = store.indexes()[0].identity
    gate, started = threading.Event(), threading.Event()

    def slow(texts: list[str]) -> list[list[float]]:
        started.set()
        if len(texts) > 1:
            gate.wait(LIMIT_S)
        return [vector[::-1] for vector in letters(texts)]

    status = store.add_index(MEMORY, fields=("text",), embed=slow, model="letters-2")
    assert (status.identity, status.building is not None) == (old, True)
    assert started.wait(LIMIT_S)
    hits = store.search("peanut allergies", collection=MEMORY)
    assert (hits.mode, hits[0].key) == ("hybrid", "allergy")
    gate.set()
    settled(store)
    (status,) = store.indexes()
    assert (status.identity != old, status.model, status.building) == (True, "letters-2", None)
    assert store.search("peanut allergies", collection=MEMORY, mode="vector")[0].key == "allergy"
    corpus = store._log.corpus
    until(lambda: corpus.one("SELECT count(*) FROM vec")[0] == len(KNOWN))
    assert store.drop_index(MEMORY)
    assert not store.drop_index(MEMORY)
    assert corpus.one("SELECT count(*) FROM vec")[0] == 0
    assert store.search("peanut allergies", collection=MEMORY).mode == "text"


def test_a_kill_between_two_lots_loses_and_doubles_nothing(tmp_path: Path, open_store: Open) -> None:
    child = textwrap.dedent("""
        import os, sys
        from holdfast import Store
        from tests.node.questions import letters
        calls = []
        def fn(texts):
            calls.append(texts)
            if len(calls) == 3:
                print("third", flush=True)
                os.kill(os.getpid(), 9)
            return letters(texts)
        store = Store(sys.argv[1], "ada", hub=[])
        with store.batch() as batch:
            for n in range(300):
                batch.put(f"k{n:03}", {"text": f"word{n}"}, collection="memory")
        store.add_index("memory", fields=("text",), embed=fn, model="letters")
        import time; time.sleep(60)
    """)
    ran = subprocess.run(
        [sys.executable, "-c", child, str(tmp_path / "node")], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE
    )
    assert (ran.returncode, ran.stdout) == (-9, b"third\n")
    store = open_store()
    (status,) = store.indexes()
    assert status.vectors == 128, "two lots were kept, the third was not"
    seen: list[str] = []

    def fn(texts: list[str]) -> list[list[float]]:
        seen.extend(texts)
        return letters(texts)

    store.add_index(MEMORY, fields=("text",), embed=fn, model="letters")
    settled(store)
    assert sorted(seen) == sorted(f"word{n}" for n in range(128, 300))
    places = [row[0] for row in store._log.corpus.query("SELECT pos FROM vec")]
    assert len(places) == len(set(places)) == 300 == store.indexes()[0].vectors


def test_what_is_erased_redacted_replaced_or_deleted_leaves_no_vector(tmp_path: Path, open_store: Open) -> None:
    def hide(collection: str, key: str, value: Any) -> Any:
        return json.loads(json.dumps(value).replace("swordfish", "[secret]"))

    seen: list[str] = []

    def fn(texts: list[str]) -> list[list[float]]:
        seen.extend(texts)
        return letters(texts)

    store = open_store(redact=hide)
    store.put("a", {"text": "the password is swordfish"}, collection=MEMORY)
    store.put("b", {"text": "a zeppelin"}, collection=MEMORY)
    store.put("c", {"text": "a hangar"}, collection=MEMORY)
    known(store, embed=fn)
    assert not any("swordfish" in text for text in seen)
    corpus = store._log.corpus

    def places() -> set[int]:
        return {row[0] for row in corpus.query("SELECT pos FROM vec")}

    b = store._log.newest(MEMORY, "b")
    assert b is not None
    assert b.pos in places()
    erase_key(store._directory, "ada", "b", collection=MEMORY)
    assert b.pos not in places()
    c = store._log.newest(MEMORY, "c")
    assert c is not None
    store.put("c", {"text": "another hangar"}, collection=MEMORY)
    settled(store)
    until(lambda: c.pos not in places())
    store.delete("tea", collection=MEMORY)
    until(lambda: len(places()) == len(KNOWN) + 1)
    for mode in ("text", "vector", "hybrid"):
        found = {hit.key for hit in store.search("zeppelin black tea", collection=MEMORY, mode=mode)}
        assert not {"b", "tea"} & found
    assert store.verify().sound


def test_what_cannot_be_indexed_is_refused_before_anything_is_written(open_store: Open) -> None:
    store = open_store(sealed=["diary"], cas=["plans"])
    for name, hint in (("diary", "sealed"), ("plans", "the hub")):
        with pytest.raises(UsageError, match=hint):
            store.add_index(name, embed=letters, model="m")
    with pytest.raises(UsageError, match="no function"):
        store.add_index(MEMORY, embed=5, model="m")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="name of a model"):
        store.add_index(MEMORY, embed=letters, model=" ")
    assert store.indexes() == []
    store.put("d", {"text": "sealed zeppelin"}, collection="diary")
    assert store.search("zeppelin") == []


def test_values_that_have_ended_are_found_no_more(store: Store) -> None:
    from holdfast.testing.clock import SettableClock

    clock = SettableClock(store._directory.wall.now_ms())
    store._directory.wall = clock
    store.put("soon", {"text": "a zeppelin", "$ends": clock.now_ms() + 1_000}, collection=MEMORY)
    known(store)
    for mode in ("text", "vector", "hybrid"):
        assert store.search("zeppelin", collection=MEMORY, mode=mode)[0].key == "soon", mode
    clock.advance(1.0)
    for mode in ("text", "vector", "hybrid"):
        assert "soon" not in [hit.key for hit in store.search("zeppelin", collection=MEMORY, mode=mode)], mode


def test_two_stores_of_one_agent_fill_one_index_once(open_store: Open) -> None:
    one, two = open_store(), open_store()
    seen: list[str] = []
    lock = threading.Lock()

    def fn(texts: list[str]) -> list[list[float]]:
        with lock:
            seen.extend(texts)
        return letters(texts)

    with one.batch() as batch:
        for n in range(200):
            batch.put(f"k{n:03}", {"text": f"word{n}"}, collection=MEMORY)
    for each in (one, two):
        each.add_index(MEMORY, fields=("text",), embed=fn, model="letters")
    settled(two)
    assert sorted(seen) == sorted(f"word{n}" for n in range(200))


def test_an_async_store_says_the_same(tmp_path: Path) -> None:
    async def fn(texts: list[str]) -> list[list[float]]:
        await asyncio.sleep(0)
        return letters(texts)

    async def work() -> None:
        async with AsyncStore(tmp_path / "node", "ada", hub=[], limits=ROOMY) as store:
            for key, text in KNOWN.items():
                await store.put(key, {"text": text}, collection=MEMORY)
            await store.add_index(MEMORY, fields=("text",), embed=fn, model="letters")
            await asyncio.to_thread(settled, store._store)
            hits = await store.search("peanut allergies", collection=MEMORY, limit=3)
            assert (hits.mode, hits[0].key) == ("hybrid", "allergy")
            assert (await store.indexes())[0].vectors == len(KNOWN)
            assert await store.drop_index(MEMORY)

    asyncio.run(work())
    for name in ("search", "add_index", "indexes", "drop_index"):
        one, other = inspect.signature(getattr(Store, name)), inspect.signature(getattr(AsyncStore, name))
        assert one == other, name

"""Search over a million records and a hundred thousand vectors: on a node, and on a hub with either corpus.

The texts are the beginnings of real messages with three words of ours behind them: one that three records hold, one
that a thousand hold, one that a fifth of all hold. So each kind of question has an answer that is known, and a hit that
should not be there, or is missing, ends the contest.
"""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench import material
from bench.harness import (
    Effort,
    Figures,
    Goal,
    Missing,
    Report,
    Scenario,
    Table,
    Wrong,
    ms,
    number,
    quantile,
    take_turns,
)
from bench.processes import held, scratch
from bench.scale import HUBS, OnPostgres, OnSqlite

COUNT = 1_000_000
VECTORS = 100_000
DIMS = 384
AGENTS = 10
LOT = 500
ASKED = 200
LIMIT = 10
TEXT_CHARS = 200
FILL_S = 1_800.0
LATE_MOST = 50.0
HOLD_RARE = 3
MIDDLES = 1_000
COMMON = ("alpha", "beta", "gamma", "delta", "epsilon")
MEMORY = "memory"
NOTES = "notes"
TEXT_KINDS = ("a rare word", "a middling word", "a common word", "all three, never together", "a whole question")
VECTOR_KINDS = ("by vectors", "by both")

Question = Callable[[random.Random], tuple[str, dict[str, Any], str]]
"""What is asked, with which options, and a word or a key that the first hit must hold; empty: any hit will do."""


def rare(n: int) -> str:
    """A word that this record shares with two others."""
    return f"order{n // HOLD_RARE}"


def middle(n: int) -> str:
    """A word that one record in a thousand holds."""
    return f"project{n * 2654435761 % (1 << 32) % MIDDLES}"


def common(n: int) -> str:
    """A word that a fifth of all hold."""
    return COMMON[n * 40503 % (1 << 16) % len(COMMON)]


def text(n: int) -> str:
    """What record n says."""
    said = str(material.message(n).get("content") or "")[:TEXT_CHARS]
    return f"{said} {ours(n)}"


def ours(n: int) -> str:
    """The words of ours behind it: no other record has all three."""
    return f"{rare(n)} {middle(n)} {common(n)}"


def embed(texts: list[str]) -> list[Any]:
    """A direction for each three words of ours: what a model would take its time for costs nothing here."""
    import numpy

    return [
        numpy.random.default_rng(zlib.crc32(" ".join(each.split()[-3:]).encode())).standard_normal(DIMS, dtype="f4")
        for each in texts
    ]


# -- filling ---------------------------------------------------------------------------------------------------------


def place_of(n: int, vectors: int) -> str:
    """The collection that record n lies in: the first ones are those that have vectors."""
    return MEMORY if n < vectors else NOTES


def write(folder: Path, agent: str, numbers: range, vectors: int) -> None:
    """One agent's records, in its log on this machine."""
    from holdfast import Store

    with Store(folder, agent, hub=[], level="basic") as store:
        for first in range(numbers.start, numbers.stop, LOT):
            with store.batch() as batch:
                for n in range(first, min(first + LOT, numbers.stop)):
                    batch.put(f"k{n}", {"text": text(n)}, collection=place_of(n, vectors))


def wait(done: Callable[[], object], what: str) -> None:
    """Returns when it is done.

    Raises:
        Wrong: it took too long.
    """
    end = time.monotonic() + FILL_S
    while not done():
        if time.monotonic() > end:
            raise Wrong(f"waited in vain until {what}")
        time.sleep(0.2)


def check_numpy() -> None:
    """Returns where so many vectors can be compared.

    Raises:
        Missing: numpy is not installed.
    """
    if find_spec("numpy") is None:
        raise Missing("numpy is not installed, and so many vectors are not compared without it")


def with_index(place: Any) -> float:
    """Declares the index of the memories and waits until it is whole; how many records a second that were."""
    began = time.perf_counter()
    place.add_index(MEMORY, fields=("text",), embed=embed, model="bench", dims=DIMS)

    def whole() -> bool:
        (found,) = place.indexes()
        if found.failed or found.next_try:
            raise Wrong(f"the index cannot be filled: {found.last_error}")
        return bool(found.complete and not found.pending)

    wait(whole, "the index of vectors is whole")
    (found,) = place.indexes()
    return float(found.vectors) / (time.perf_counter() - began)


# -- asking ----------------------------------------------------------------------------------------------------------


def questions(count: int, vectors: int) -> Mapping[str, Question]:
    """Each kind of question, another one each time."""

    def one(kind: Callable[[int], str]) -> Question:
        def ask(rng: random.Random) -> tuple[str, dict[str, Any], str]:
            word = kind(rng.randrange(count))
            return word, {"mode": "text"}, word

        return ask

    def apart(rng: random.Random) -> tuple[str, dict[str, Any], str]:
        first = rng.randrange(count)
        word = rare(first)
        return f"{word} {middle(first + HOLD_RARE + 1)} {common(first + 7)}", {"mode": "text"}, word

    def sentence(rng: random.Random) -> tuple[str, dict[str, Any], str]:
        first = rng.randrange(count)
        words = f"what did you say about {middle(first)} and the {rare(first + 60)} that {common(first)} wanted"
        return words, {"mode": "text"}, ""  # who holds most of it varies

    def near(mode: str) -> Question:
        def ask(rng: random.Random) -> tuple[str, dict[str, Any], str]:
            n = rng.randrange(vectors)
            return ours(n), {"mode": mode, "collection": MEMORY}, f"k{n}"

        return ask

    kinds = [one(rare), one(middle), one(common), apart, sentence, near("vector"), near("hybrid")]
    return dict(zip((*TEXT_KINDS, *VECTOR_KINDS), kinds, strict=True))


def ask(place: Any, count: int, vectors: int, asked: int) -> Figures:
    """How long each kind of question takes, once each has been asked before."""
    rng = random.Random(11)
    figures: Figures = {}
    for kind, question in questions(count, vectors).items():
        late = []
        for turn in range(asked + 3):
            q, options, wanted = question(rng)
            at = time.perf_counter()
            hits = place.search(q, limit=LIMIT, **options)
            if turn >= 3:  # the first ones find caches empty that stay full from then on
                late.append(time.perf_counter() - at)
            _look(kind, q, hits, wanted)
        figures |= {f"{kind}_p50": quantile(late, 0.5), f"{kind}_p99": quantile(late, 0.99)}
    return figures


def _look(kind: str, q: str, hits: Any, wanted: str) -> None:
    if not hits or hits.partial:
        raise Wrong(f"{kind}: {q!r} found {len(hits)}, partial {hits.partial}")
    best = hits[0]
    if kind in VECTOR_KINDS:
        there = best.key == wanted
    else:  # of a small store a middling and a common word together are rarer than a rare one
        there = not wanted or any(wanted in hit.value["text"].split() for hit in hits)
    if not there:
        raise Wrong(f"{kind}: {q!r} should find {wanted}, and found {best.key}: {best.value!r:.300}")


# -- the places ------------------------------------------------------------------------------------------------------


def on_node(count: int, vectors: int, asked: int) -> Figures:
    """One agent's log on this machine, with all of it."""
    from holdfast import Store

    check_numpy()
    with scratch() as folder:
        began = time.perf_counter()
        write(folder / "node", "agent-0", range(count), vectors)
        figures: Figures = {"fill_rate": count / (time.perf_counter() - began)}
        with Store(folder / "node", "agent-0", hub=[], level="basic") as store:
            store.put("begin", 0)  # what follows the writes fills the index of words
            wait(lambda: not store.search(rare(0), limit=1).partial, "the index of words is whole")
            figures["index_rate"] = with_index(store)
            with held(folder):
                return figures | ask(store, count, vectors, asked)


def on_hub(kind: type[OnSqlite] | type[OnPostgres], count: int, vectors: int, asked: int) -> Figures:
    """Ten agents' records shipped to a hub, whose index of vectors this process fills over HTTP."""
    from holdfast import Hub

    check_numpy()
    with scratch() as folder, kind(folder, {}) as running, ExitStack() as stack:
        began = time.perf_counter()
        _ship(running.address, folder / "node", count, vectors)
        figures: Figures = {"fill_rate": count / (time.perf_counter() - began)}
        hub = stack.enter_context(Hub(running.address))
        wait(lambda: not hub.search(rare(0), limit=1).partial, "the index of words is whole")
        before = running.process.memory(peak=True)
        figures["index_rate"] = with_index(hub)
        running.rest()
        stack.enter_context(held(folder))
        figures |= ask(hub, count, vectors, asked)
        return figures | {"peak_words": before, "peak": running.process.memory(peak=True)}


def _ship(address: str, folder: Path, count: int, vectors: int) -> None:
    from holdfast import Store

    share = count // AGENTS
    for agent in range(AGENTS):
        last = count if agent == AGENTS - 1 else (agent + 1) * share
        write(folder, f"agent-{agent}", range(agent * share, last), vectors)
    stores = [Store(folder, f"agent-{agent}", hub=address, level="basic") for agent in range(AGENTS)]
    for store in stores:
        if not store.flush(FILL_S):
            raise Wrong("the hub did not take everything in time")
    for store in stores:
        store.close()


# -- the page --------------------------------------------------------------------------------------------------------


def contestants(count: int, vectors: int, asked: int) -> Iterator[tuple[str, Callable[[], Figures]]]:
    """Each place by its name."""
    yield "node", partial(on_node, count, vectors, asked)
    for name, kind in HUBS.items():
        yield f"hub on {name}", partial(on_hub, kind, count, vectors, asked)


def run(effort: Effort) -> Report:
    """Measures it."""
    report = Report()
    count, vectors = effort.count(COUNT, 2_000), effort.count(VECTORS, 500)
    places = dict(contestants(count, vectors, effort.count(ASKED, 5)))
    turns = take_turns(places, effort, 1)
    report.notes += turns.notes()
    present = [name for name in places if turns.has(name)]
    columns = [f"{name}, {what}" for name in present for what in ("p50 ms", "p99 ms")]
    table = Table(f"{LIMIT} hits among {count:,} records, of which {vectors:,} have vectors", ("question", *columns))
    for kind in (*TEXT_KINDS, *VECTOR_KINDS):
        cells = [ms(turns.median(name, f"{kind}_{part}")) for name in present for part in ("p50", "p99")]
        table.rows.append((kind, *cells))
        for name in places:
            found, reason = turns.median(name, f"{kind}_p99"), turns.missing.get(name, "")
            what = f"search p99 at {vectors if kind in VECTOR_KINDS else count:,}: {kind}, {name}"
            report.goals.append(Goal(what, found and found * 1e3, LATE_MOST, " ms", reason=reason))
    report.tables.append(table)
    for name in present:
        peak, words = turns.median(name, "peak"), turns.median(name, "peak_words")
        memory = f"; its memory at most {number(peak)} MiB, {number(words)} before there were vectors" if peak else ""
        rate = number(turns.median(name, "index_rate"))
        report.notes.append(f"{name}: {rate} records a second got their vectors ({DIMS} numbers each){memory}.")
    report.notes.append(
        "The embedding function is no model: it takes 20 µs a text, and what a model takes comes on top. The files were"
        " held in memory while anything was asked."
    )
    report.figures = {"search": turns.given}
    return report


SCENARIO = Scenario("search", "Search over a million records", run)

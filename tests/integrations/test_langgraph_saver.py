"""LangGraph's checkpointer on Holdfast: LangGraph's own conformance suite, what it leaves out, and what it costs."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import operator
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest

if importlib.util.find_spec("langgraph") is None:
    pytest.skip("LangGraph is not installed: make test-integrations", allow_module_level=True)

from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, interrupt
from pydantic import BaseModel

from holdfast import AsyncStore, Conflict, Hub, NotFound, Store, UsageError
from holdfast.integrations.langgraph import HoldfastSaver
from holdfast.integrations.langgraph.rows import full
from holdfast.node.erase import erase_subject
from holdfast.node.shelf import every
from tests.flow.hubs import HubProcess
from tests.integrations.langgraph_places import LIMIT_S, PLACES, opened

pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours


class Chat(TypedDict):
    messages: Annotated[list[Any], add_messages]


@dataclass
class Order:
    """A type of the user's own."""

    item: str
    count: int


class Offer(BaseModel):
    """Another one, of pydantic's."""

    item: str
    count: int


def said(what: str) -> str:
    """Half a kilobyte that no compression finds twice in."""
    return f"{what} " + "".join(hashlib.sha256(f"{what} {part}".encode()).hexdigest() for part in range(8))


def answer(state: Chat) -> dict[str, Any]:
    return {"messages": [AIMessage(said(f"answer {len(state['messages'])}"))]}


def chat(saver: Any, node: Any = answer, state: Any = Chat) -> Any:
    graph = StateGraph(state)
    graph.add_node("n", node)
    graph.add_edge(START, "n")
    graph.add_edge("n", END)
    return graph.compile(checkpointer=saver)


def ask(app: Any, number: int, config: dict[str, Any]) -> None:
    app.invoke({"messages": [("user", said(f"question {number}"))]}, config)


def thread(name: str = "t", **more: Any) -> dict[str, Any]:
    return {"configurable": {"thread_id": name, **more}}


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store | Hub]:
    with opened(request.param, tmp_path) as found:
        yield found


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "node", "graph", hub=[]) as store:
        yield store


# -- their suite ------------------------------------------------------------------------------------------------------


def test_the_conformance_suite_passes_with_every_capability(place: Store | Hub) -> None:
    @checkpointer_test(name="HoldfastSaver")
    async def ours() -> AsyncIterator[HoldfastSaver]:
        yield HoldfastSaver(place)

    told = asyncio.run(validate(ours)).to_dict()["results"]
    assert [name for name, each in told.items() if not each["detected"]] == []
    assert {name: each["failures"] for name, each in told.items() if each["tests_failed"]} == {}
    assert sum(each["tests_passed"] for each in told.values()) >= 81


# -- what it costs ----------------------------------------------------------------------------------------------------


def size(directory: Path) -> int:
    """The bytes of an agent's log, its write-ahead log taken in."""
    with Store(directory, "graph", hub=[]):
        pass
    return (directory / "agents" / "graph" / "log.db").stat().st_size


def test_a_conversation_costs_what_it_says(tmp_path: Path) -> None:
    sizes = {}
    for turns in (50, 100, 200):
        with Store(tmp_path / str(turns), "graph", hub=[]) as store:
            app = chat(HoldfastSaver(store))
            for number in range(turns):
                ask(app, number, thread())
            assert len(app.get_state(thread()).values["messages"]) == 2 * turns
        sizes[turns] = size(tmp_path / str(turns))
    assert sizes[200] <= 970_000, sizes
    growth = (sizes[200] - sizes[100]) / (sizes[100] - sizes[50])
    assert growth < 2.5, sizes  # twice as many turns, twice as many bytes


def test_a_window_that_moves_along_costs_what_comes_in(store: Store) -> None:
    """The beginning is cut off with each turn; each member is stored once or twice, not once a turn."""

    def windowed(state: Chat) -> dict[str, Any]:
        old = [RemoveMessage(each.id) for each in state["messages"][:-20]]
        return {"messages": [*old, AIMessage(random.Random(len(written)).randbytes(300).hex())]}

    written: list[int] = []
    saver = HoldfastSaver(store)
    app = chat(saver, windowed)
    for number in range(60):
        written.append(number)
        app.invoke({"messages": [HumanMessage(random.Random(f"q{number}").randbytes(300).hex())]}, thread())
    assert len(app.get_state(thread()).values["messages"]) <= 23
    rows = [full(store.get(key, collection="langgraph-checkpoints")) for key in keys(store) if key.endswith("~")]
    new = sum(len(step["s"]) for row in rows for step in row["values"].get("messages", {}).get("l", ()) if "s" in step)
    assert new < 3 * 120 * 800
    again = chat(HoldfastSaver(store), windowed)
    assert again.get_state(thread()).values == app.get_state(thread()).values


def keys(store: Store) -> list[str]:
    found: list[str] = []
    while page := store.keys(collection="langgraph-checkpoints", after=found[-1] if found else ""):
        found += page
    return found


def test_what_did_not_change_is_not_said_again(store: Store) -> None:
    class State(TypedDict):
        book: str
        steps: Annotated[list[int], operator.add]

    app = chat(HoldfastSaver(store), lambda state: {"steps": [len(state["steps"])]}, State)
    app.invoke({"book": "x" * 5000, "steps": []}, thread())
    for _ in range(5):
        app.invoke({"steps": []}, thread())
    rows = [store.get(key, collection="langgraph-checkpoints") for key in keys(store) if key.endswith("~")]
    assert sum("x" * 5000 in str(row["values"].get("book")) for row in rows) == 1
    assert chat(HoldfastSaver(store), lambda state: {}, State).get_state(thread()).values == {
        "book": "x" * 5000,
        "steps": [0, 1, 2, 3, 4, 5],
    }


# -- what it keeps ----------------------------------------------------------------------------------------------------


def test_what_anybody_else_remembers_is_never_believed_over_what_is_there(store: Store) -> None:
    """Two savers of one store, as two processes would be: each sees what the other writes, replaces and takes away."""
    one, two = HoldfastSaver(store), HoldfastSaver(store)
    app, other = chat(one), chat(two)
    for number in range(6):
        ask(app if number % 2 else other, number, thread())
    assert app.get_state(thread()).values == other.get_state(thread()).values
    assert len(app.get_state(thread()).values["messages"]) == 12
    one.prune(["t"])
    ask(other, 7, thread())
    assert len(app.get_state(thread()).values["messages"]) == 14
    two.delete_thread("t")
    assert one.get_tuple(thread()) is None


def test_a_replaced_checkpoint_does_not_change_what_was_built_on_it(place: Store | Hub) -> None:
    saver, fresh = HoldfastSaver(place), HoldfastSaver(place)
    first, second = checkpoint(["a", "b" * 100]), checkpoint(["a", "b" * 100, "c"])
    at = saver.put(thread(checkpoint_ns=""), first, {"step": 0}, {"l": 1})
    top = saver.put(at, second, {"step": 1}, {"l": 2})
    assert fresh.get_tuple(at).checkpoint["channel_values"] == {"l": ["a", "b" * 100]}
    saver.put(thread(checkpoint_ns=""), first | {"channel_values": {"l": ["z"]}}, {"step": 0}, {"l": 1})
    for each in (saver, fresh, HoldfastSaver(place)):
        assert each.get_tuple(top).checkpoint["channel_values"] == {"l": ["a", "b" * 100, "c"]}
        assert each.get_tuple(at).checkpoint["channel_values"] == {"l": ["z"]}


def test_what_a_graph_is_given_is_said_once_and_stays_when_its_checkpoint_is_replaced(place: Store | Hub) -> None:
    saver = HoldfastSaver(place)
    given = {"l": [HumanMessage("Was it a cat I saw? " * 9)], "d": {"said": ["Never odd or even. " * 9]}}
    first = checkpoint([]) | {"channel_values": {"__start__": given, "plain": {"d": given["d"]}}}
    at = saver.put(thread(checkpoint_ns=""), first, {"step": 0}, {"l": 1})
    saver.put_writes(at, [*given.items(), ("other", "x" * 99)], "task")
    (row,) = [each for each in rows_of(saver) if "writes" in each]
    assert [word in str(row) for word in ("cat", "odd", "x" * 99)] == [False, False, True]
    expected = [("task", name, value) for name, value in [*given.items(), ("other", "x" * 99)]]
    for each in (saver, HoldfastSaver(place)):
        assert each.get_tuple(at).pending_writes == expected
    saver.put(thread(checkpoint_ns=""), first | {"channel_values": {"l": ["z"]}}, {"step": 0}, {"l": 1})
    for each in (saver, HoldfastSaver(place)):
        found = each.get_tuple(at)
        assert found.checkpoint["channel_values"] == {"l": ["z"]}
        assert found.pending_writes == expected


def rows_of(saver: HoldfastSaver) -> list[dict[str, Any]]:
    """The rows as they lie on the shelf."""
    return [row.raw for row in every(saver._threads.shelf.inner, "")]


def added(old: list[str], new: list[list[str]]) -> list[str]:
    return [*old, *(each for lot in new for each in lot)]


def checkpoint(values: list[Any], version: int = 1, number: int = -1) -> Any:
    made = empty_checkpoint()
    return made | {
        "id": str(uuid6(clock_seq=number)),
        "channel_values": {"l": values},
        "channel_versions": {"l": version},
    }


def test_what_is_taken_away_takes_nothing_else_along(place: Store | Hub) -> None:
    saver = HoldfastSaver(place)
    at, configs = thread(checkpoint_ns=""), []
    for number in range(6):
        values = [f"member {each} " * 20 for each in range(number + 1)]
        at = saver.put(at, checkpoint(values, number + 1), {"step": number, "run_id": f"run-{number // 2}"}, {"l": 1})
        configs.append(at)
    saver.copy_thread("t", "copy")
    saver.delete_for_runs(["run-1"])
    saver.delete_thread("copy2")
    left = [each.metadata["step"] for each in HoldfastSaver(place).list(thread())]
    assert left == [5, 4, 1, 0]
    assert [len(each.checkpoint["channel_values"]["l"]) for each in HoldfastSaver(place).list(thread())] == [6, 5, 2, 1]
    assert saver.get_tuple(configs[2]) is None
    saver.prune(["t"])
    (last,) = HoldfastSaver(place).list(thread())
    assert last.checkpoint["channel_values"]["l"] == [f"member {each} " * 20 for each in range(6)]
    copied = list(HoldfastSaver(place).list(thread("copy")))
    assert [len(each.checkpoint["channel_values"]["l"]) for each in copied] == [6, 5, 2, 1]
    assert list(saver.threads()) == ["copy", "t"]


def test_delta_channels_survive_pruning(store: Store) -> None:
    class State(TypedDict):
        log: Annotated[list[str], DeltaChannel(added, snapshot_frequency=4)]

    saver = HoldfastSaver(store)
    app = chat(saver, lambda state: {"log": [f"did {len(state['log'])}"]}, State)
    for number in range(7):
        app.invoke({"log": [f"asked {number}"]}, thread())
    before = app.get_state(thread()).values
    count = len(list(saver.list(thread())))
    saver.prune(["t"])
    assert 1 < len(list(saver.list(thread()))) < count
    again = chat(HoldfastSaver(store), lambda state: {"log": ["more"]}, State)
    assert again.get_state(thread()).values == before
    again.invoke({"log": ["last"]}, thread())
    assert again.get_state(thread()).values["log"][-2:] == ["last", "more"]


def test_threads_end(tmp_path: Path) -> None:
    from holdfast.testing.clock import SettableClock

    with Store(tmp_path / "node", "graph", hub=[]) as store:
        clock = store._directory.wall = SettableClock(1_700_000_000_000)
        saver = HoldfastSaver(store, ttl_s=60)
        app = chat(saver)
        ask(app, 1, thread())
        clock.advance(59)
        ask(app, 2, thread("other"))
        assert saver.sweep() == 0
        clock.advance(2)
        assert saver.get_tuple(thread()) is None
        assert list(saver.list(thread())) == []
        assert {each.config["configurable"]["thread_id"] for each in saver.list(None)} == {"other"}
        ask(app, 3, thread("other"))  # goes on living as a whole
        clock.advance(59)
        assert len(app.get_state(thread("other")).values["messages"]) == 4
        assert saver.sweep() == 1
        assert list(saver.threads()) == ["other"]


@pytest.mark.parametrize("kind", [Order, Offer])
def test_types_of_ones_own_are_made_only_if_they_are_allowed(store: Store, kind: Any) -> None:
    class State(TypedDict):
        orders: Any

    orders = [kind(item="tea", count=number) for number in range(3)]
    data = [{"item": "tea", "count": number} for number in range(3)]
    strict, lenient = HoldfastSaver(store), HoldfastSaver(store, allow=[kind])
    later = strict.with_allowlist({(kind.__module__, kind.__name__)})  # as LangGraph does it for a graph's own types
    chat(strict, lambda state: {}, State).invoke({"orders": orders}, thread())
    for _ in range(2):
        for saver, expected in ((strict, data), (lenient, orders), (later, orders)):
            found = chat(saver, lambda state: {}, State).get_state(thread()).values["orders"]
            assert found == expected
            assert {type(each) for each in found} == {type(expected[0])}
    with pytest.raises(UsageError, match="allow"):
        HoldfastSaver(store, allow=[kind], serde=InMemorySaver().serde)


def test_an_interrupted_run_is_gone_on_with_by_another_program(store: Store) -> None:
    def node(state: Chat) -> dict[str, Any]:
        return {"messages": [AIMessage(f"you said {interrupt('what?')}")]}

    chat(HoldfastSaver(store), node).invoke({"messages": [("user", "go")]}, thread())
    app = chat(HoldfastSaver(store), node)
    assert app.get_state(thread()).next == ("n",)
    app.invoke(Command(resume="yes"), thread())
    assert app.get_state(thread()).values["messages"][-1].content == "you said yes"


def test_a_sealed_thread_is_erased_for_good(tmp_path: Path) -> None:
    sealed = ["langgraph-checkpoints"]
    with Store(tmp_path / "node", "graph", hub=[], sealed=sealed) as store:
        app = chat(HoldfastSaver(store))
        for name in ("ada", "bob"):
            app.invoke({"messages": [("user", "My name is Zanzibar.")]}, thread(name))
            app.invoke({"messages": [("user", "And again")]}, thread(name))
        asyncio.run(app.ainvoke({"messages": [("user", "x")]}, thread("ada")))
        assert store.search("Zanzibar") == []
        report = erase_subject(store._directory, "ada", collection=sealed[0])
        assert report.records > 0
        fresh = chat(HoldfastSaver(store))
        assert fresh.get_state(thread("ada")).values == {}
        assert list(HoldfastSaver(store).threads()) == ["bob"]
        assert len(fresh.get_state(thread("bob")).values["messages"]) == 4


def test_what_was_said_is_found_once(store: Store) -> None:
    app = chat(HoldfastSaver(store), lambda state: {"messages": [AIMessage("The narwhal is a whale.")]})
    app.invoke({"messages": [("user", "What is an axolotl?")]}, thread())
    app.invoke({"messages": [("user", "And a quagga?")]}, thread())
    for word in ("axolotl", "quagga"):
        assert len(store.search(word)) == 1
    assert len(store.search('"narwhal is a whale"')) == 2
    assert store.search("langchain_core") == store.search("HumanMessage") == []


# -- on several machines ----------------------------------------------------------------------------------------------


def test_a_session_begun_on_one_machine_is_resumed_on_another(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path / "hub")
    try:
        with (
            Store(tmp_path / "one", "graph-1", hub=hub.url) as one,
            Store(tmp_path / "two", "graph-2", hub=hub.url) as two,
        ):
            here, there = HoldfastSaver(one), HoldfastSaver(two)
            ask(chat(here), 1, thread())
            assert one.flush(LIMIT_S)
            ask(chat(there), 2, thread())  # finds the first turn, and builds on it
            assert two.flush(LIMIT_S)
            ask(chat(here), 3, thread())
            assert one.flush(LIMIT_S)
            said = [each.content[:10] for each in chat(there).get_state(thread()).values["messages"]]
            assert [each for each in said if each.startswith("question")] == ["question 1", "question 2", "question 3"]
            with Hub(hub.url) as plain:  # who has no log of his own sees it too, and can go on
                ask(chat(HoldfastSaver(plain)), 4, thread())
            assert len(chat(here).get_state(thread()).values["messages"]) == 8
            there.prune(["t"])  # of rows that are in three logs
            assert two.flush(LIMIT_S)
            assert len(list(here.list(thread()))) == 1
            assert len(chat(here).get_state(thread()).values["messages"]) == 8
            there.delete_thread("t")
            assert two.flush(LIMIT_S)
            assert here.get_tuple(thread()) is None
            ask(chat(here), 5, thread())  # a new one of that name
            assert len(chat(here).get_state(thread()).values["messages"]) == 2
            hub.kill()
            ask(chat(here), 6, thread())  # the network is no business of a writer's
            assert len(chat(here).get_state(thread()).values["messages"]) == 4
    finally:
        hub.kill()


# -- what Holdfast has besides ----------------------------------------------------------------------------------------


def test_threads_are_forked_looked_back_at_and_told_of(place: Store | Hub) -> None:
    saver = HoldfastSaver(place)
    app = chat(saver)
    for number in range(3):
        ask(app, number, thread())
    states = list(app.get_state_history(thread()))
    middle = next(each for each in states if len(each.values["messages"]) == 4)
    forked = saver.fork(middle.config, "fork")
    ask(app, 9, thread("fork"))
    assert [len(app.get_state(thread(name)).values["messages"]) for name in ("t", "fork")] == [6, 6]
    assert app.get_state(forked).values == middle.values
    with pytest.raises(Conflict):
        saver.fork(middle.config, "t")
    with pytest.raises(NotFound):
        saver.fork(thread("nobody"), "f2")
    assert app.get_state(saver.as_of(thread(), "2100-01-01T00:00:00Z")).values == states[0].values
    with pytest.raises(NotFound):
        saver.as_of(thread(), "2001-01-01T00:00:00Z")
    (version,) = saver.history(middle.config)
    assert not version.gone
    saver.delete_thread("t")
    assert saver.history(middle.config)[-1].etag == version.etag  # what was is not forgotten


def test_everything_awaited_is_the_same(tmp_path: Path) -> None:
    async def run() -> None:
        async with AsyncStore(tmp_path / "node", "graph", hub=[]) as store:
            saver = HoldfastSaver(store)
            app = chat(saver)
            await asyncio.gather(*(app.ainvoke({"messages": [("user", "x")]}, thread(str(n))) for n in range(10)))
            for number in range(10):
                assert len((await app.aget_state(thread(str(number)))).values["messages"]) == 2
            assert len([each async for each in saver.alist(None)]) == 30
            forked = await saver.afork(thread("3"), "f")
            assert (await app.aget_state(forked)).values == (await app.aget_state(thread("3"))).values
            await saver.aput_writes(forked, [("c", 1)], "task")
            await saver.aput_writes(forked, [("c", 2), ("d", 3)], "task")  # what is there stays, what is new is added
            assert (await saver.aget_tuple(forked)).pending_writes == [("task", "c", 1), ("task", "d", 3)]
            assert await saver.asweep() == 0

    asyncio.run(run())


@pytest.mark.parametrize("name", ["", "a/b", "ä\x00~", "%=x", "t" * 2000, "../x", "=a"])
def test_any_text_names_a_thread_and_a_namespace(store: Store, name: str) -> None:
    saver = HoldfastSaver(store)
    put = saver.put(thread(name, checkpoint_ns=name), checkpoint([name]), {"step": 0}, {"l": 1})
    saver.put_writes(put, [("c", name)], name)
    (found,) = saver.list(None)
    assert found.config == put
    assert found.pending_writes == [(name, "c", name)]
    assert list(saver.threads()) == [name]
    saver.copy_thread(name, "copy")
    assert saver.get_tuple(thread("copy", checkpoint_ns=name)).checkpoint == found.checkpoint


def test_bad_input_is_refused(store: Store) -> None:
    saver = HoldfastSaver(store)
    with pytest.raises(UsageError, match="no id of a checkpoint"):
        saver.get_tuple(thread(checkpoint_id="a b"))
    with pytest.raises(UsageError, match="strategy"):
        saver.prune(["t"], strategy="some")
    with pytest.raises(UsageError, match="place"):
        HoldfastSaver(7)
    with pytest.raises(UsageError, match="ttl_s"):
        HoldfastSaver(store, ttl_s=0)
    with pytest.raises(UsageError, match="thread"):
        saver.put({"configurable": {}}, checkpoint([]), {}, {})


def test_the_scenario_that_measures_it_measures_every_goal() -> None:
    from bench import graphs
    from bench.harness import Effort

    report = graphs.run(Effort(rounds=1, scale=0.05))
    assert [goal.what for goal in report.goals if goal.value is None] == []
    assert all(len(table.rows) == 2 for table in report.tables)

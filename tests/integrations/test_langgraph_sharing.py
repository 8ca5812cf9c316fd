"""What stands in several rows of LangGraph's checkpoints is said in one, in whatever order they come, and stays."""

from __future__ import annotations

import contextlib
import importlib.util
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("langgraph") is None:
    pytest.skip("LangGraph is not installed: make test-integrations", allow_module_level=True)

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.memory import InMemorySaver

from holdfast import Store
from holdfast.integrations.langgraph import HoldfastSaver
from holdfast.integrations.langgraph.lists import Lost
from holdfast.integrations.langgraph.sharing import Lately, Source, apart, checksum, together
from holdfast.node.shelf import every
from tests.flow.hubs import HubProcess
from tests.integrations.langgraph_places import LIMIT_S
from tests.integrations.test_langgraph_saver import ask, chat, said, size, thread

pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours
TURNS = 200


class Recorder(InMemorySaver):
    """Remembers what it is told: checkpoints in their order, and what tasks wrote at each."""

    def __init__(self) -> None:
        super().__init__()
        self.puts: list[tuple[Any, ...]] = []
        self.told: dict[str, list[tuple[Any, ...]]] = {}

    def put(self, *given: Any) -> Any:
        self.puts.append(given)
        return super().put(*given)

    def put_writes(self, config: Any, *given: Any) -> None:
        self.told.setdefault(config["configurable"]["checkpoint_id"], []).append((config, *given))
        super().put_writes(config, *given)

    def get_next_version(self, current: Any, channel: Any) -> Any:
        return 1 if current is None else current + 1

    def check(self, found: Any) -> None:
        """That a checkpoint is the one that it was told."""
        (given,) = [given for given in self.puts if given[1]["id"] == found.checkpoint["id"]]
        assert found.checkpoint["channel_values"] == self._read(given[1]["channel_values"])
        told = self.told.get(found.checkpoint["id"], [])
        assert found.pending_writes == [
            (task, name, self._read(each)) for _, lot, task, *_ in told for name, each in lot
        ]

    def _read(self, value: Any) -> Any:
        return self.serde.loads_typed(self.serde.dumps_typed(value))  # which makes lists of tuples


@pytest.fixture(scope="module")
def recorded() -> Recorder:
    """A chat."""
    recorder = Recorder()
    app = chat(recorder)
    for number in range(TURNS):
        ask(app, number, thread())
    return recorder


def long(word: str) -> str:
    return " ".join(said(f"{word} {part}") for part in range(5))


def play(recorder: Recorder, saver: Any, order: str) -> None:
    """The chat again: what tasks wrote comes before its checkpoint, behind it, or behind the next one, too."""
    late: list[tuple[Any, ...]] = []
    for given in recorder.puts:
        writes = recorder.told.get(given[1]["id"], [])
        if order == "before":
            for each in writes:
                saver.put_writes(*each)
        saver.put(*given)
        for each in {"before": [], "behind": writes, "late": late}[order]:
            saver.put_writes(*each)
        late = writes


@pytest.mark.parametrize("order", ["before", "behind", "late"])
def test_two_hundred_turns_are_less_than_a_megabyte_in_any_order(
    recorded: Recorder, tmp_path: Path, order: str
) -> None:
    with Store(tmp_path / "node", "graph", hub=[]) as store:
        play(recorded, HoldfastSaver(store), order)
    assert size(tmp_path / "node") <= 970_000
    with Store(tmp_path / "node", "graph", hub=[]) as store:
        for each in (HoldfastSaver(store).get_tuple(thread()), *list(HoldfastSaver(store).list(thread(), limit=7))):
            recorded.check(each)


@pytest.mark.parametrize("order", ["before", "behind"])
def test_what_is_handed_on_is_said_once(tmp_path: Path, order: str) -> None:
    """In what a graph is given, in what its first task writes, in the state, and in what the next task is given."""
    recorder = Recorder()

    def node(state: Any) -> Any:
        return {"messages": [AIMessage(long("answer")), ToolMessage(long("found"), tool_call_id="x")]}

    app = chat(recorder, node)
    app.invoke({"messages": [{"role": "user", "content": long("question")}]}, thread())
    with Store(tmp_path / "node", "graph", hub=[]) as store:
        saver = HoldfastSaver(store)
        play(recorder, saver, order)
        rows = str([row.raw for row in every(saver._threads.shelf.inner, "")])
        times = {word: rows.count(long(word)[-999:]) for word in ("question", "answer", "found")}
        assert times == dict.fromkeys(times, 1)
        for reader in (saver, HoldfastSaver(store)):
            for each in reader.list(thread()):
                recorder.check(each)


def test_texts_are_put_together_as_they_were() -> None:
    dice = random.Random(11)
    words = [dice.randbytes(dice.randrange(1, 200)).hex() for _ in range(30)]
    shared = 0
    for _ in range(300):
        sources = [Source((f"c{number}",), "".join(dice.choices(words, k=9))) for number in range(dice.randrange(1, 4))]
        text = "".join(dice.choices([*words, *(each.text for each in sources), "a" * 99, "\u0141"], k=6))
        found = apart(text, sources)
        if found is not None:
            held = {each.where: each.text for each in sources}
            assert together(found[0], lambda where, held=held: ["x" * 9999, held[tuple(where)]]) == text
            shared += len(text) - sum(len(piece) for piece in found[0] if type(piece) is str)
            with pytest.raises(Lost):
                together(found[0], lambda where, held=held: [held[tuple(where)][1:]])
    assert shared > 100_000
    assert apart("x" * 500, []) is None
    assert apart("x" * 63 + "y", [Source(("c",), "x" * 63)]) is None


def test_nothing_is_taken_from_a_row_that_was_not_written() -> None:
    """A checkpoint waits for what is being written, and goes without it where that fails; it never waits for itself."""
    text = "s" * 100
    lately = Lately(lambda key: None)
    row = {"values": {"c": {"t": "msgpack", "s": text}}}
    writes = {"task_path": "", "writes": [[0, "c", {"t": "msgpack", "s": text}]]}
    with (
        lately.writing("t//c~/*1", writes, lambda raw, values: raw),
        lately.putting("t//c~", row, None, None) as coming,
    ):
        (waits,) = coming.waits
        assert coming.raw["values"]["c"]["s"] == [["*1", -1, 0, 100, checksum(text)]]
        assert not waits.done()
    assert waits.result()
    with lately.putting("t//c~", row, None, None) as coming:
        assert (coming.waits, type(coming.raw["values"]["c"]["s"])) == ([], list)
    with contextlib.suppress(KeyError), lately.writing("t//d~/*1", writes, lambda raw, values: raw, awaited=True):
        with lately.putting("t//d~", row, None, None, awaited=True) as coming:
            (waits,) = coming.waits
        with lately.putting("t//d~", row, None, None) as blocking:
            assert (blocking.waits, blocking.raw) == ([], row)  # to wait would keep the loop from writing it
        raise KeyError
    assert not waits.result()
    with lately.putting("t//d~", row, None, None, awaited=True) as coming:
        assert (coming.waits, coming.raw) == ([], row)


# -- whatever is taken away -------------------------------------------------------------------------------------------


class Model:
    """What there should be: by thread and id, the values, what tasks wrote, the run, and the parent."""

    def __init__(self) -> None:
        self.there: dict[str, dict[str, dict[str, Any]]] = {}

    def check(self, saver: HoldfastSaver) -> None:
        for name, checkpoints in self.there.items():
            found = {each.checkpoint["id"]: each for each in saver.list(thread(name))}
            assert found.keys() == checkpoints.keys()
            for each, told in checkpoints.items():
                assert found[each].checkpoint["channel_values"] == told["values"]
                assert sorted(found[each].pending_writes, key=repr) == sorted(told["writes"], key=repr)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_taken_away_the_rest_reads_as_it_was(tmp_path: Path, seed: int) -> None:
    """Two programs go on with threads, write before and behind checkpoints, replace, prune, and delete."""
    dice = random.Random(seed)
    model, number = Model(), 0
    with Store(tmp_path / "node", "graph", hub=[]) as store:
        savers = [HoldfastSaver(store), HoldfastSaver(store)]
        for turn in range(120):
            saver, name = dice.choice(savers), dice.choice("ab")
            there = model.there.setdefault(name, {})
            act = dice.random()
            if act < 0.75:
                number += 1
                newest = max(there, default=None)
                parent = dice.choice([newest, newest, newest, *there]) if there else None
                old = there[parent] if parent else {"values": {}, "writes": []}
                made = _next(dice, old, number)
                checkpoint = empty_checkpoint() | {
                    "id": str(uuid6(clock_seq=number % 1000)),
                    "channel_values": made,
                    "channel_versions": dict.fromkeys(made, number),
                }
                config = thread(name, checkpoint_ns="", checkpoint_id=parent)
                if parent:
                    saver.get_tuple(config)  # as LangGraph does before it goes on
                at = thread(name, checkpoint_ns="", checkpoint_id=checkpoint["id"])
                lots = [(f"task {each}", _writes(dice, made, number + each / 10)) for each in range(dice.randrange(3))]
                cut = dice.randrange(len(lots) + 1)
                for task, lot in lots[:cut]:
                    dice.choice(savers).put_writes(at, lot, task)
                saver.put(config, checkpoint, {"run_id": str(turn // 5)}, dict.fromkeys(made, number))
                for task, lot in lots[cut:]:
                    dice.choice(savers).put_writes(at, lot, task)
                told = [(task, *each) for task, lot in lots for each in lot]
                there[checkpoint["id"]] = {
                    "values": made,
                    "writes": told,
                    "run": str(turn // 5),
                    "parent": parent,
                    "given": checkpoint,
                }
            elif act < 0.83 and there:
                which = dice.choice(list(there))
                made = _next(dice, {"values": {}, "writes": []}, number)
                given = there[which]["given"] | {"channel_values": made}
                config = thread(name, checkpoint_ns="", checkpoint_id=there[which]["parent"])
                saver.put(config, given, {"run_id": there[which]["run"]}, dict.fromkeys(made, 1))
                there[which] |= {"values": made, "given": given}
            elif act < 0.91:
                run = str(dice.randrange(turn // 5 + 1))
                saver.delete_for_runs([run])
                for checkpoints in model.there.values():
                    for each in [each for each, told in checkpoints.items() if told["run"] == run]:
                        del checkpoints[each]
            elif act < 0.95:
                saver.prune([name])
                for each in sorted(there)[:-1]:
                    del there[each]
            elif act < 0.98 and there:
                saver.delete_thread("copy")
                saver.copy_thread(name, "copy")
                model.there["copy"] = {each: dict(told) for each, told in there.items()}
            else:
                saver.delete_thread(name)
                there.clear()
            if turn % 8 == 0:
                model.check(HoldfastSaver(store))
        for saver in (*savers, HoldfastSaver(store)):
            model.check(saver)


def _next(dice: random.Random, old: dict[str, Any], number: int) -> dict[str, Any]:
    """Values such as a graph makes: of those before, of what tasks wrote at these, and of new ones."""
    values = dict(old["values"])
    wrote = [value for _, _, value in old["writes"]]
    held = list(values.get("messages", []))
    for value in wrote:
        held += value if type(value) is list else []
    change = dice.random()
    if change < 0.1:
        held = held[len(held) // 2 :]
    elif change < 0.5:
        held.append(HumanMessage(said(f"question {number}"), id=str(number)))
    values["messages"] = held
    texts = [value for value in wrote if type(value) is str]
    values["draft"] = dice.choice([values.get("draft"), *texts, said(f"draft {number}")])
    values["__start__"] = dice.choice([None, {"messages": held[-1:]}, {"draft": values["draft"], "n": [number] * 40}])
    return values


def _writes(dice: random.Random, values: dict[str, Any], number: float) -> list[tuple[str, Any]]:
    given = values["__start__"] or {}
    out: list[tuple[str, Any]] = [*given.items()] if dice.random() < 0.5 else []
    if dice.random() < 0.7:
        out.append(("messages", [AIMessage(said(f"answer {number}"), id=f"a{number}")]))
    if dice.random() < 0.5:
        out.append(("draft", said(f"written {number}")))
    return out


def test_what_another_program_has_pruned_is_not_built_upon(tmp_path: Path) -> None:
    """A state that the last node left as it was is that of an older checkpoint, which the other program took away."""
    with Store(tmp_path / "node", "graph", hub=[]) as store:
        one, two = HoldfastSaver(store), HoldfastSaver(store)
        silent = chat(one, lambda state: {})
        for number in range(3):
            ask(silent, number, thread())
        two.prune(["t"])
        ask(silent, 3, thread())
        expected = silent.get_state(thread()).values
        assert len(expected["messages"]) == 4
        assert chat(HoldfastSaver(store)).get_state(thread()).values == expected


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    process = HubProcess(tmp_path / "hub")
    yield process
    process.kill()


def test_two_machines_write_for_one_task_and_both_are_read(hub: HubProcess, tmp_path: Path) -> None:
    """Each goes on from what it wrote itself; a third reads, copies and prunes both."""
    with (
        Store(tmp_path / "one", "graph-1", hub=hub.url) as one,
        Store(tmp_path / "two", "graph-2", hub=hub.url) as two,
        Store(tmp_path / "three", "graph-3", hub=hub.url) as three,
    ):
        first = empty_checkpoint() | {"id": str(uuid6(clock_seq=1)), "channel_values": {"l": [said("begun")]}}
        at = HoldfastSaver(one).put(thread(checkpoint_ns=""), first, {}, {"l": 1})
        assert one.flush(LIMIT_S)
        expected = {first["id"]: [said("begun")]}
        for number, store in enumerate((one, two)):
            saver = HoldfastSaver(store)
            assert saver.get_tuple(at) is not None
            saver.put_writes(at, [("l", [HumanMessage(said(f"machine {number}"), id="1")])], "task")
            values = [said("begun"), HumanMessage(said(f"machine {number}"), id="1")]
            made = empty_checkpoint() | {"id": str(uuid6(clock_seq=2 + number)), "channel_values": {"l": values}}
            saver.put(at, made, {"run_id": str(number)}, {"l": 2 + number})
            expected[made["id"]] = values
        assert one.flush(LIMIT_S)
        assert two.flush(LIMIT_S)

        def read(name: str) -> dict[str, Any]:
            found = HoldfastSaver(three).list(thread(name))
            return {each.checkpoint["id"]: each.checkpoint["channel_values"]["l"] for each in found}

        assert read("t") == expected
        HoldfastSaver(three).copy_thread("t", "copy")
        assert read("copy") == expected
        HoldfastSaver(three).prune(["t", "copy"])
        newest = max(expected)
        assert read("t") == read("copy") == {newest: expected[newest]}

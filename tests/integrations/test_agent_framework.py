"""The Agent Framework's in-memory storage as the oracle; a whole workflow; classes that nobody named; two machines."""

from __future__ import annotations

import asyncio
import tempfile
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast import Store
from tests.integrations.places import LIMITS, MISSING, fresh
from tests.integrations.places import hub as hub
from tests.integrations.places import kept as kept
from tests.integrations.places import machines as machines

pytest.importorskip("agent_framework", reason=MISSING)

from agent_framework import (
    Executor,
    InMemoryCheckpointStorage,
    Message,
    WorkflowBuilder,
    WorkflowCheckpoint,
    WorkflowContext,
    handler,
)
from agent_framework._workflows._runner_context import WorkflowMessage
from agent_framework.exceptions import WorkflowCheckpointException

from holdfast.integrations.agent_framework import HoldfastCheckpointStorage


class Color(Enum):
    RED = "red"


@dataclass
class Plan:
    """A class of a user's."""

    steps: tuple[int, ...] = ()
    more: dict[Any, Any] = field(default_factory=dict)
    color: Color = Color.RED


VALUES = st.recursive(
    st.sampled_from(
        [None, 1, 1.5, "x", True, b"\x00", datetime(2026, 1, 1, tzinfo=UTC), UUID(int=1), Color.RED, {"$is": "tuple"}]
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.tuples(inner, inner),
        st.dictionaries(st.sampled_from(["a", 1, (1, 2)]), inner, max_size=2),
        st.builds(Plan, st.just((1, 2)), st.dictionaries(st.sampled_from(["a", 2]), inner, max_size=1)),
    ),
    max_leaves=5,
)
CHECKPOINTS = st.builds(
    lambda number, name, second, state: WorkflowCheckpoint(
        workflow_name=name,
        graph_signature_hash="g",
        checkpoint_id=f"c/{number}",
        timestamp=datetime(2026, 1, 1, second=second, tzinfo=UTC).isoformat(),
        messages={"a": [WorkflowMessage(data=state, source_id="a", target_id="b")]},
        state={"shared": state},
        metadata={"n": number},
    ),
    st.integers(0, 3),
    st.sampled_from(["w", "v"]),
    st.integers(0, 59),
    VALUES,
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("save"), CHECKPOINTS),
        st.tuples(st.just("load"), st.sampled_from(["c/0", "c/1", "c/9"])),
        st.tuples(st.just("delete"), st.sampled_from(["c/0", "c/1", "c/9"])),
    ),
    max_size=8,
)


def by_id(checkpoint: WorkflowCheckpoint) -> str:
    return checkpoint.checkpoint_id


async def play(storage: Any, steps: list[tuple[str, Any]]) -> None:
    oracle: Any = InMemoryCheckpointStorage()
    for what, given_ in steps:
        found = []
        for each in (storage, oracle):
            try:
                found.append(await getattr(each, what)(given_))
            except WorkflowCheckpointException:
                found.append("nothing")
        assert found[0] == found[1]
        for name in ("w", "v", "none"):
            one, other = [await each.list_checkpoints(workflow_name=name) for each in (storage, oracle)]
            assert sorted(one, key=lambda each: each.checkpoint_id) == sorted(
                other, key=lambda each: each.checkpoint_id
            )
            ids = [await each.list_checkpoint_ids(workflow_name=name) for each in (storage, oracle)]
            assert sorted(ids[0]) == sorted(ids[1])
            latest = [await each.get_latest(workflow_name=name) for each in (storage, oracle)]
            times = [each and each.timestamp for each in latest]
            assert times[0] == times[1]


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_it_is_what_the_frameworks_own_is(steps: list[tuple[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as directory, Store(directory, "ada", hub=[], limits=LIMITS) as store:
        asyncio.run(play(HoldfastCheckpointStorage(store, types=(Plan, Color)), steps))


def test_it_is_the_same_at_every_place(kept: dict[str, Any]) -> None:
    one = WorkflowCheckpoint(workflow_name="w", graph_signature_hash="g", checkpoint_id="c/0", state={"p": Plan((1,))})
    steps: list[tuple[str, Any]] = [("save", one), ("save", one), ("load", "c/0"), ("delete", "c/0"), ("delete", "c/0")]

    async def run() -> None:
        storage = HoldfastCheckpointStorage(**kept, types=(Plan, Color))
        await play(storage, steps)
        assert await storage.history("c/0") == [one, one]
        assert await storage.history("none") == []

    asyncio.run(run())


@pytest.mark.parametrize("bad", [Plan(), Color.RED, OrderedDict(), object(), float("nan"), asyncio.sleep])
def test_a_class_that_nobody_named_is_never_stored_and_never_made(bad: Any) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as directory, Store(directory, "ada", hub=[], limits=LIMITS) as store:
            storage = HoldfastCheckpointStorage(store)
            with pytest.raises(WorkflowCheckpointException):
                await storage.save(WorkflowCheckpoint(workflow_name="w", graph_signature_hash="g", state={"x": bad}))
            assert await storage.list_checkpoint_ids(workflow_name="w") == []
            for name in (
                "subprocess:Popen",
                "agent_framework:Executor.__init__",
                "agent_framework._workflows._events:sys",
            ):
                with pytest.raises(WorkflowCheckpointException):
                    storage._forms.value({"$is": name, "$of": {"args": ["true"]}})

    asyncio.run(run())


class Counter(Executor):
    """Counts, and sends itself the next number until it is enough."""

    @handler
    async def count(self, number: int, context: WorkflowContext[int, int]) -> None:
        self.seen = [*getattr(self, "seen", []), Message(role="user", contents=[f"{number}"])]
        if number < 3:
            await context.send_message(number + 1)
        else:
            await context.yield_output(number)

    async def on_checkpoint_save(self) -> dict[str, Any]:
        return {"seen": getattr(self, "seen", [])}

    async def on_checkpoint_restore(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


def test_a_workflow_begun_on_one_machine_goes_on_on_the_other(machines: tuple[Store, Store]) -> None:
    name = fresh()

    async def run() -> None:
        there, here = (HoldfastCheckpointStorage(each, shared=True, collection=name) for each in machines)

        def build(storage: Any) -> tuple[Any, Counter]:
            counter = Counter(id="counter")
            builder = WorkflowBuilder(start_executor=counter, name="w", checkpoint_storage=storage)
            return builder.add_edge(counter, counter).build(), counter

        begun, _ = build(there)
        await begun.run(1)
        found = sorted(await here.list_checkpoints(workflow_name="w"), key=lambda each: each.iteration_count)
        middle = next(each for each in found if each.iteration_count == 1)
        resumed, counter = build(here)
        result = await resumed.run(checkpoint_id=middle.checkpoint_id)
        assert result.get_outputs() == [3]
        assert [each.text for each in counter.seen] == ["1", "2", "3"]

    asyncio.run(run())

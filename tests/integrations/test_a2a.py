"""A2A's in-memory task store as the oracle; every place, and two servers."""

from __future__ import annotations

import asyncio
import tempfile
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast import Store
from tests.integrations.places import LIMITS, MISSING, fresh
from tests.integrations.places import hub as hub
from tests.integrations.places import kept as kept
from tests.integrations.places import machines as machines

pytest.importorskip("a2a", reason=MISSING)

from a2a.server.context import ServerCallContext
from a2a.server.tasks.inmemory_task_store import InMemoryTaskStore
from a2a.types.a2a_pb2 import Artifact, ListTasksRequest, Message, Part, Task, TaskStatus
from a2a.utils.errors import InvalidParamsError

from holdfast.integrations.a2a import HoldfastTaskStore

IDS = st.sampled_from(["t-1", "t-2", "t/3", "ü"])


@st.composite
def tasks(draw: st.DrawFn) -> Task:
    """Tasks of a few ids and times, with what a task may hold."""
    task = Task(id=draw(IDS), context_id=draw(st.sampled_from(["", "c-1", "c-2"])))
    if draw(st.booleans()):
        task.status.CopyFrom(TaskStatus(state=draw(st.integers(0, 4))))
        if draw(st.booleans()):
            task.status.timestamp.FromSeconds(draw(st.integers(1, 4)))
    if draw(st.booleans()):
        task.metadata.update({"n": draw(st.sampled_from([1, 1.5, None, "x"])), "list": [True, {}]})
    if draw(st.booleans()):
        parts = [Part(text=draw(st.text(max_size=3))), Part(raw=draw(st.binary(max_size=3)))]
        task.history.append(Message(message_id="m", role=1, parts=parts))
        task.artifacts.append(Artifact(artifact_id="a", parts=parts))
    return task


REQUESTS = st.builds(
    lambda context, status, size: ListTasksRequest(context_id=context, status=status, page_size=size),
    st.sampled_from(["", "c-1"]),
    st.integers(0, 2),
    st.sampled_from([0, 1, 2]),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("save"), tasks()),
        st.tuples(st.just("get"), IDS),
        st.tuples(st.just("delete"), IDS),
        st.tuples(st.just("list"), REQUESTS),
        st.tuples(st.just("since"), st.integers(1, 4)),
    ),
    max_size=15,
)


async def do(store: Any, what: str, given_: Any) -> Any:
    if what == "since":
        given_ = ListTasksRequest()
        given_.status_timestamp_after.FromSeconds(2)
        return await store.list(given_, ServerCallContext())
    if what != "list":
        return await getattr(store, what)(given_, ServerCallContext())
    pages = []
    request = ListTasksRequest()
    request.CopyFrom(given_)
    while True:
        pages.append(await store.list(request, ServerCallContext()))
        request.page_token = pages[-1].next_page_token
        if not request.page_token:
            return pages


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_it_is_what_the_sdks_own_is(steps: list[tuple[str, Any]]) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as directory, Store(directory, "ada", hub=[], limits=LIMITS) as store:
            ours, theirs = HoldfastTaskStore(store), InMemoryTaskStore()
            for what, given_ in steps:
                copy = type(given_)() if hasattr(given_, "CopyFrom") else given_
                if hasattr(copy, "CopyFrom"):
                    copy.CopyFrom(given_)
                assert await do(ours, what, given_) == await do(theirs, what, copy), (what, given_)

    asyncio.run(run())


def test_owners_history_and_pages_at_every_place(kept: dict[str, Any]) -> None:
    async def run() -> None:
        store = HoldfastTaskStore(**kept, owner_resolver=lambda context: str(context))
        ada: Any = "ada"
        bob: Any = "bob"
        await store.save(Task(id="t", context_id="1"), ada)
        await store.save(Task(id="t", context_id="2"), ada)
        assert (await store.get("t", bob), (await store.list(ListTasksRequest(), bob)).total_size) == (None, 0)
        assert [task.context_id for task in await store.history("t", ada)] == ["2", "1"]
        await store.delete("t", bob)
        assert await store.get("t", ada) == Task(id="t", context_id="2")
        with pytest.raises(InvalidParamsError):
            await store.list(ListTasksRequest(page_token="bm9ib2R5"), ada)

    asyncio.run(run())


def test_a_task_begun_at_one_server_is_found_at_the_other(machines: tuple[Store, Store]) -> None:
    name, somebody = fresh(), ServerCallContext()

    async def run() -> None:
        one, other = (HoldfastTaskStore(each, shared=True, collection=name) for each in machines)
        await one.save(Task(id="t", context_id="1"), somebody)
        found = await other.get("t", somebody)
        assert found == Task(id="t", context_id="1")
        assert found is not None
        found.status.state = 3
        await other.save(found, somebody)
        assert await one.get("t", somebody) == found

    asyncio.run(run())

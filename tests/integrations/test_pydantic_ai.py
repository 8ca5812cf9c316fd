"""Pydantic AI's in-memory store as the oracle; the same at every place; two machines."""

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

pytest.importorskip("pydantic_ai", reason=MISSING)

from pydantic_ai import DeferredToolRequests
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import ConversationConflict, ConversationStore, InMemoryConversationStore
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import (
    BinaryContent,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    UserPromptPart,
)
from pydantic_ai.usage import RunUsage

from holdfast.integrations.pydantic_ai import HoldfastConversationStore

NAMES = st.sampled_from(["a", "b/c", "ü"])
SCOPES = st.sampled_from([None, "ada", "bob"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), NAMES, st.integers(0, 3), SCOPES),
        st.tuples(st.just("rewrite"), NAMES, st.integers(0, 3), SCOPES),
        st.tuples(st.just("stale"), NAMES, st.integers(0, 1), SCOPES),
        st.tuples(st.just("branch"), NAMES, st.integers(0, 4), SCOPES),
        st.tuples(st.just("back"), NAMES, st.integers(0, 2), SCOPES),
        st.tuples(st.just("fork"), NAMES, st.integers(0, 3), NAMES),
        st.tuples(st.just("delete"), NAMES, st.just(0), SCOPES),
    ),
    max_size=10,
)


def said(number: int) -> ModelMessage:
    if number % 3 == 0:
        return ModelResponse(parts=[TextPart(f"{number}"), ToolCallPart("f", {"n": number}, tool_call_id=f"{number}")])
    picture = BinaryContent(b"\x00\xff", media_type="application/pdf")
    return ModelRequest(parts=[UserPromptPart([f"{number}", picture] if number % 2 else f"{number}")])


class Player:
    """Plays steps on one store; what it sees has nothing of ids and times in it, which no two stores share."""

    def __init__(self, store: ConversationStore) -> None:
        self.store = store
        self.count = 0

    async def step(self, what: str, name: str, number: int, more: Any) -> Any:
        try:
            return await getattr(self, what)(name, number, more)
        except ConversationConflict:
            return "conflict"
        except UserError:
            return "refused"

    async def say(self, name: str, number: int, scope: str | None) -> Any:
        chat = await self.store.load(name, limit=number or None) or Conversation(conversation_id=name)
        chat.messages.extend(self.new(number))
        chat.usage = RunUsage(requests=chat.usage.requests + 1, input_tokens=number)
        if number == 2:
            chat.deferred_tool_requests = DeferredToolRequests(calls=[ToolCallPart("g", {"x": 1}, tool_call_id="c")])
        return len(await self.store.save(chat, scope=scope))

    async def rewrite(self, name: str, number: int, scope: str | None) -> Any:
        old = await self.store.load(name)
        chat = Conversation(conversation_id=name, revision=old.revision if old else None)
        chat.messages = [*(old.messages[:number] if old else []), *self.new(1)]
        return len(await self.store.save(chat, scope=scope))

    async def stale(self, name: str, number: int, scope: str | None) -> Any:
        chat = await self.store.load(name)
        if chat is None:
            return None
        chat.revision = "another" if number else None
        chat.messages.extend(self.new(1))
        return len(await self.store.save(chat, scope=scope))

    async def branch(self, name: str, number: int, scope: str | None) -> Any:
        chat = await self.store.load(name)
        revision = (chat and chat.revision) or ""
        return (await self.store.branch(name, at=number, expected_revision=revision, scope=scope)).messages

    async def back(self, name: str, number: int, scope: str | None) -> Any:
        record = await self.store.read_record(name)
        if record is None or not record.branches:
            return None
        tip = record.branches[number % len(record.branches)]
        return (await self.store.branch(name, from_entry=tip, expected_revision=record.revision, scope=scope)).messages

    async def fork(self, name: str, number: int, target: str) -> Any:
        return (await self.store.fork(name, at=number or None, new_conversation_id=target)).messages

    async def delete(self, name: str, number: int, scope: str | None) -> None:
        await self.store.delete(name, scope=scope)

    def new(self, count: int) -> list[ModelMessage]:
        self.count += count
        return [said(self.count - each) for each in range(count)]

    async def seen(self) -> Any:
        rows = []
        for record in await self.store.list_conversations():
            whole = await self.store.load_entries(record.conversation_id) or []
            last = await self.store.load(record.conversation_id, limit=2)
            assert last is not None
            fixed = record.conversation_id, record.scope, record.usage, record.forked_from, len(record.branches)
            rows.append(
                (*fixed, record.deferred_tool_requests, plain(each.message for each in whole), plain(last.messages))
            )
        mine = [each.conversation_id for each in await self.store.list_conversations(scope="ada", limit=1)]
        return rows, mine


def plain(messages: Any) -> list[Any]:
    return [[(type(part).__name__, getattr(part, "content", part)) for part in each.parts] for each in messages]


async def play(store: ConversationStore, steps: list[tuple[Any, ...]]) -> None:
    ours, theirs = Player(store), Player(InMemoryConversationStore())
    for step in steps:
        one, other = await ours.step(*step), await theirs.step(*step)
        assert (plain(one) if isinstance(one, list) else one) == (plain(other) if isinstance(other, list) else other), (
            step
        )
        assert await ours.seen() == await theirs.seen(), step


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_it_is_what_pydantic_ais_own_is(steps: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as directory, Store(directory, "ada", hub=[], limits=LIMITS) as store:
        asyncio.run(play(HoldfastConversationStore(store), steps))


FIXED: list[tuple[Any, ...]] = [
    ("say", "a", 3, "ada"),
    ("say", "a", 2, None),
    ("stale", "a", 1, None),
    ("rewrite", "a", 2, None),
    ("branch", "a", 1, "ada"),
    ("back", "a", 1, None),
    ("fork", "a", 2, "b/c"),
    ("fork", "a", 2, "b/c"),
    ("delete", "a", 0, "bob"),
    ("delete", "a", 0, "ada"),
    ("say", "b/c", 1, None),
    ("say", "a", 1, None),
]


def test_it_is_the_same_at_every_place(kept: dict[str, Any]) -> None:
    async def run() -> None:
        store = HoldfastConversationStore(**kept)
        await play(store, FIXED)
        assert len(await store.history("a")) == 6

    asyncio.run(run())


def test_a_conversation_begun_on_one_machine_goes_on_on_the_other(machines: tuple[Store, Store]) -> None:
    name = fresh()

    async def run() -> None:
        there, here = (HoldfastConversationStore(each, shared=True, collection=name) for each in machines)
        await there.save(Conversation(conversation_id="c", messages=[said(1)]))
        late, chat = await there.load("c"), await here.load("c")
        assert chat is not None
        assert late is not None
        chat.messages.append(said(3))
        await here.save(chat)
        late.messages.append(said(6))
        with pytest.raises(ConversationConflict):
            await there.save(late)
        found = await there.load("c")
        assert found is not None
        assert plain(found.messages) == plain([said(1), said(3)])

    asyncio.run(run())

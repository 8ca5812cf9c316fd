"""The OpenAI Agents SDK's own session as the oracle, at every place; branches, the past, and two machines."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast import Store
from holdfast.errors import Conflict, NotFound, UsageError
from tests.integrations.places import LIMITS, MISSING, fresh
from tests.integrations.places import hub as hub
from tests.integrations.places import kept as kept
from tests.integrations.places import machines as machines

pytest.importorskip("agents", reason=MISSING)

from agents import SQLiteSession
from agents.memory.session import Session
from agents.memory.session_settings import SessionSettings

from holdfast.integrations.openai import HoldfastSession

ITEMS = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text(max_size=5)}), max_size=3
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add_items"), ITEMS),
        st.tuples(st.just("get_items"), st.sampled_from([None, 0, 1, 2, 50, -1])),
        st.tuples(st.just("pop_item"), st.none()),
        st.tuples(st.just("clear_session"), st.none()),
    ),
    max_size=15,
)


async def both(session: Any, oracle: Any, steps: list[tuple[str, Any]]) -> None:
    for what, given_ in steps:
        arguments = [] if what in ("pop_item", "clear_session") else [given_]
        assert await getattr(session, what)(*arguments) == await getattr(oracle, what)(*arguments), (what, given_)
        assert await session.get_items() == await oracle.get_items()


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, limit=st.sampled_from([None, None, 1, 2]))
def test_it_is_what_the_sdks_session_is(steps: list[tuple[str, Any]], limit: int | None) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as directory, Store(directory, "ada", hub=[], limits=LIMITS) as store:
            how = SessionSettings(limit=limit)
            session, oracle = (
                HoldfastSession("s", store, session_settings=how),
                SQLiteSession("s", session_settings=how),
            )
            assert isinstance(session, Session)
            await both(session, oracle, steps)
            oracle.close()

    asyncio.run(run())


def said(*words: str) -> list[Any]:
    return [{"role": "user" if number % 2 == 0 else "assistant", "content": each} for number, each in enumerate(words)]


def test_branches_and_the_past_at_every_place(kept: dict[str, Any]) -> None:
    async def run() -> None:
        session = HoldfastSession("s", **kept)
        await both(session, SQLiteSession("s"), [("add_items", said("a", "b")), ("pop_item", None), ("get_items", 1)])
        await session.clear_session()
        await session.add_items(said("one", "two", "three", "four"))
        whole = (await session.history())[0]
        assert await session.create_branch_from_turn(2) == "branch-1"
        assert await session.get_items() == said("one", "two")
        await session.add_items(said("other"))
        with pytest.raises(Conflict):
            await session.create_branch_from_turn(1, "main")
        assert await session.create_branch_from_turn(1, "empty") == "empty"
        assert await session.get_items() == []
        assert await session.list_branches() == ["main", "branch-1", "empty"]
        for no_turn in (0, 1, 9):
            with pytest.raises(UsageError, match="no turn"):
                await session.create_branch_from_turn(no_turn)
        with pytest.raises(UsageError, match="in use"):
            await session.delete_branch("empty")
        await session.switch_to_branch("main")
        assert await session.get_items() == said("one", "two", "three", "four")
        await session.delete_branch("empty")
        for gone in (session.delete_branch, session.switch_to_branch):
            with pytest.raises(NotFound):
                await gone("empty")
        await session.pop_item()
        assert await session.items_at(whole.revision) == said("one", "two", "three", "four")
        await session.switch_to_branch("branch-1")
        await session.clear_session()
        assert (session.branch, await session.list_branches(), await session.get_items()) == ("main", ["main"], [])

    asyncio.run(run())


def test_a_cancelled_write_has_settled(tmp_path: Path) -> None:
    async def run() -> None:
        with Store(tmp_path, "ada", hub=[], limits=LIMITS) as store:
            session = HoldfastSession("s", store)
            for number in range(20):
                task = asyncio.ensure_future(session.add_items(said(str(number))))
                for _ in range(number % 4):
                    await asyncio.sleep(0)
                begun = task.cancel() and number % 4
                with pytest.raises(asyncio.CancelledError):
                    await task
                contents = [item["content"] for item in await session.get_items()]
                assert (str(number) in contents) == bool(begun)
                await asyncio.sleep(0)
                assert [item["content"] for item in await session.get_items()] == contents

    asyncio.run(run())


def test_a_compaction_replaces_the_newest_items_or_nothing(kept: dict[str, Any]) -> None:
    async def run() -> None:
        session = HoldfastSession("s", **kept)
        await session.add_items(said("old", "expired", "one", "two"))
        snapshot = await session._get_compaction_snapshot(2, prune_prefix=lambda item: item["content"] == "old")
        assert (snapshot.items, snapshot.complete) == (said("old", "expired", "one", "two")[2:], False)
        await session.add_items(said("late"))
        assert not await snapshot.replace_suffix(0, said("short"))
        await session.pop_item()
        fresh_one = await session._get_compaction_snapshot(2, prune_prefix=lambda item: item["content"] == "old")
        assert await fresh_one.replace_suffix(1, said("short"))
        assert [item["content"] for item in await session.get_items()] == ["expired", "one", "short"]
        assert (await HoldfastSession("none", **kept)._get_compaction_snapshot(9)).items == []

    asyncio.run(run())


def test_a_session_begun_on_one_machine_is_resumed_on_the_other(machines: tuple[Store, Store]) -> None:
    laptop, desk = machines
    name = fresh()

    async def run() -> None:
        there, here = (HoldfastSession("s", each, shared=True, collection=name) for each in (laptop, desk))
        await there.add_items(said("one", "two"))
        await asyncio.gather(*(each.add_items(said(f"{n}")) for n, each in enumerate([there, here] * 4)))
        items = await here.get_items()
        assert items == await there.get_items()
        assert items[:2] == said("one", "two")
        assert sorted(str(item["content"]) for item in items[2:]) == [str(n) for n in range(8)]

        mine, other = (HoldfastSession("s", each, collection=name) for each in (laptop, desk))
        await mine.add_items(said("alone"))
        assert laptop.flush(30)
        assert await other.get_items() == []
        await other.continue_from(laptop.agent)
        await other.add_items(said("together"))
        assert await other.get_items() == said("alone") + said("together")

    asyncio.run(run())

"""The Claude Agent SDK's own contract for session stores, at every place; and what it does not ask."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest

from holdfast import Hub, Store
from tests.integrations.places import KINDS, LIMITS, MISSING, at, fresh
from tests.integrations.places import hub as hub
from tests.integrations.places import machines as machines

pytest.importorskip("claude_agent_sdk", reason=MISSING)

from claude_agent_sdk.testing import run_session_store_conformance

from holdfast.integrations.claude import HoldfastSessionStore
from tests.flow.hubs import HubProcess

KEY: Any = {"project_key": "/home/ada/app", "session_id": "s-1"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_sdks_fourteen_contracts(kind: str, tmp_path: Path, hub: HubProcess) -> None:
    built = itertools.count()
    with at(kind, tmp_path, hub, f"claude-{kind}") as kept:

        def make() -> HoldfastSessionStore:
            next(built)
            return HoldfastSessionStore(**kept, collection=fresh())

        asyncio.run(run_session_store_conformance(make))
    assert next(built) >= 14, "a contract was skipped"


def test_a_batch_that_is_sent_twice_is_stored_once(tmp_path: Path) -> None:
    entries: list[Any] = [
        {"type": "user", "uuid": "u-1", "timestamp": "2026-01-01T00:00:00Z", "message": {"content": "hello there"}},
        {"type": "summary", "summary": "no id"},
    ]

    async def run() -> None:
        with Store(tmp_path, "laptop", hub=[], limits=LIMITS) as store:
            sessions = HoldfastSessionStore(store)
            await sessions.append(KEY, entries)
            await sessions.append(KEY, entries)
            assert await sessions.load(KEY) == [*entries, entries[1]]
            (listed,) = await sessions.list_sessions(KEY["project_key"])
            (summary,) = await sessions.list_session_summaries(KEY["project_key"])
            assert (listed["mtime"], listed["session_id"]) == (summary["mtime"], summary["session_id"])
            assert "hello there" in str(summary["data"])

    asyncio.run(run())


def test_a_session_begun_on_one_machine_is_resumed_on_the_other(machines: tuple[Store, Store], hub: HubProcess) -> None:
    laptop, desk = machines
    name = fresh()

    async def run() -> None:
        there, here = (HoldfastSessionStore(each, shared=True, collection=name) for each in (laptop, desk))
        await there.append(KEY, [{"type": "user", "uuid": "u-1"}])
        await here.append(KEY, [{"type": "assistant", "uuid": "u-2"}])
        await there.append({**KEY, "subpath": "agents/a"}, [{"type": "user", "uuid": "u-3"}])
        with Hub(hub.url) as third:
            from_the_hub = HoldfastSessionStore(third, agent="visitor", collection=name)
            for each in (there, here, from_the_hub):
                assert [entry["uuid"] for entry in await each.load(KEY) or []] == ["u-1", "u-2"]
                assert await each.list_subkeys(KEY) == ["agents/a"]
            await from_the_hub.delete(KEY)
        assert await there.load(KEY) is None

        mine, others = HoldfastSessionStore(laptop, collection=name), HoldfastSessionStore(desk, collection=name)
        await mine.append(KEY, [{"type": "user", "uuid": "u-9"}])  # without asking the hub
        assert laptop.flush(30)
        session = (KEY["project_key"], KEY["session_id"])
        others.conversations.fork(session, session, agent=laptop.agent)
        await others.append(KEY, [{"type": "assistant", "uuid": "u-10"}])
        assert [entry["uuid"] for entry in await others.load(KEY) or []] == ["u-9", "u-10"]

    asyncio.run(run())

"""The storage service that agents knew: its sixteen tests and its usage example, against a hub in its own process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast import Hub
from tests import forks
from tests.flow import seed_storage_service
from tests.flow.hubs import HubProcess
from tests.services import shared_postgres

USAGE = """
import httpx

async def example():
    async with httpx.AsyncClient() as client:
        # Create session
        session = await client.post("http://localhost:8084/storage/sessions", json={
            "agent_name": "research_orchestrator",
            "user_id": "user_123"
        })
        session_id = session.json()["id"]
        
        # Add message
        await client.post("http://localhost:8084/storage/history", json={
            "session_id": session_id,
            "role": "user",
            "content": "What is quantum computing?"
        })
        
        # Update state
        await client.put(f"http://localhost:8084/storage/state/{session_id}", json={
            "data": {"context": "quantum computing", "depth": 3}
        })
        
        # Get conversation
        history = await client.get(f"http://localhost:8084/storage/history?session_id={session_id}")
        messages = history.json()
        
        # End session
        await client.delete(f"http://localhost:8084/storage/sessions/{session_id}")
"""


@pytest.fixture(params=["directory", "database"])
def hub(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[HubProcess]:
    """A hub, running, in a directory or in a database."""
    where = {"database": shared_postgres().corpus()} if request.param == "database" else {}
    process = HubProcess(tmp_path / "hub", **where)
    yield process
    process.kill()


TELLS = "\n        assert [each['content'] for each in messages] == ['What is quantum computing?']\n"


def test_its_sixteen_tests_pass(hub: HubProcess) -> None:
    done = forks.run(seed_storage_service.__file__, hub.url, env={**os.environ, "NO_PROXY": "127.0.0.1"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == seed_storage_service.TESTS


def test_its_usage_example_runs_with_only_the_url_changed(hub: HubProcess) -> None:
    names: dict[str, object] = {}
    code = (USAGE + TELLS).replace("http://localhost:8084", hub.url)
    exec(compile(code, str(Path(__file__)), "exec"), names)
    asyncio.run(names["example"]())  # type: ignore[operator]
    with Hub(hub.url) as reader:
        kinds = [each.kind for each in reader.changes("0", live=False, agent="research_orchestrator")]
    assert kinds == ["session", "message", "state", "delete-prefix"]


def test_everything_is_there_after_the_hub_was_killed(hub: HubProcess) -> None:
    async def write() -> str:
        import httpx

        async with httpx.AsyncClient(base_url=hub.url) as http:
            client = seed_storage_service.Client(http)
            made = await client.ask("POST", "/storage/sessions", 201, json={"agent_name": "a"})
            body = {"session_id": made["id"], "role": "user", "content": "kept"}
            await client.ask("POST", "/storage/history", 201, json=body)
            await client.ask("PUT", f"/storage/state/{made['id']}", json={"data": 1})
            return str(made["id"])

    async def read(session: str) -> tuple[object, ...]:
        import httpx

        async with httpx.AsyncClient(base_url=hub.url) as http:
            client = seed_storage_service.Client(http)
            history = await client.ask("GET", "/storage/history", params={"session_id": session})
            state = await client.ask("GET", f"/storage/state/{session}")
            return history[0]["content"], state["data"]

    session = asyncio.run(write())
    hub.kill()
    hub.start()
    assert asyncio.run(read(session)) == ("kept", 1)

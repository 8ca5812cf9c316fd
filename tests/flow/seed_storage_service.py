"""The storage service's first client: its sixteen tests, as a script. ``python seed_storage_service.py URL``"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import httpx

TESTS = 16


class Client:
    """Asks one service, and counts what went well."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self.passed = 0

    async def ask(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        """The JSON of an answer with this status."""
        answer = await self.http.request(method, path, **options)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def ok(self, name: str) -> None:
        """One more."""
        self.passed += 1
        print(f"{self.passed}. {name}")


async def run(url: str) -> int:
    """Runs all of them in order; how many passed."""
    async with httpx.AsyncClient(base_url=url) as http:
        client = Client(http)
        session = await _sessions_and_history(client)
        await _state_and_artifacts(client, session)
        await _metrics_and_cache(client, session)
        await _ending(client, session)
        return client.passed


async def _sessions_and_history(client: Client) -> str:
    health = await client.ask("GET", "/health")
    assert health["status"] in ("ok", "healthy", "degraded")
    assert health["service"] == "storage_service"
    assert (await client.ask("GET", "/"))["service"] == "storage_service"
    client.ok("Health check")

    body = {"agent_name": "test_agent", "user_id": "user_123", "metadata": {"test": True}}
    made = await client.ask("POST", "/storage/sessions", 201, json=body)
    session: str = made["id"]
    assert session.startswith("session_")
    assert made["status"] == "active"
    client.ok("Create session")

    found = await client.ask("GET", f"/storage/sessions/{session}")
    assert {name: found[name] for name in body} == body
    assert set(found) >= {"id", "agent_name", "user_id", "status", "created_at", "updated_at", "metadata"}
    client.ok("Get session")

    said = [("user", "Hello"), ("assistant", "Hi, how can I help?"), ("user", "What is quantum computing?")]
    for role, content in said:
        message = {"session_id": session, "role": role, "content": content}
        assert (await client.ask("POST", "/storage/history", 201, json=message))["id"].startswith("msg_")
    client.ok("Add messages")

    history = await client.ask("GET", "/storage/history", params={"session_id": session})
    assert [(each["role"], each["content"]) for each in history] == said
    assert set(history[0]) >= {"id", "session_id", "role", "content", "timestamp", "metadata"}
    client.ok("Get conversation history")
    return session


async def _state_and_artifacts(client: Client, session: str) -> None:
    data = {"context": "quantum computing", "depth": 3, "seen": ["a", None]}
    await client.ask("PUT", f"/storage/state/{session}", json={"data": data})
    client.ok("Update agent state")

    state = await client.ask("GET", f"/storage/state/{session}")
    assert (state["session_id"], state["data"]) == (session, data)
    assert state["updated_at"]
    client.ok("Get agent state")

    body = {"session_id": session, "name": "report.pdf", "type": "pdf", "path": "/data/report.pdf", "size": 1024}
    made = await client.ask("POST", "/storage/artifacts", 201, json=body)
    assert made["id"].startswith("artifact_")
    assert await client.ask("GET", f"/storage/artifacts/{made['id']}") == made
    client.ok("Create artifact")

    (listed,) = await client.ask("GET", "/storage/artifacts", params={"session_id": session})
    assert {name: listed[name] for name in body} == body
    client.ok("List artifacts")


async def _metrics_and_cache(client: Client, session: str) -> None:
    about = {"entity_type": "agent", "entity_name": "test_agent", "session_id": session}
    for name, value in (("execution_time", 1.5), ("tokens", 150)):
        body = {**about, "metric_name": name, "value": value, "labels": {"model": "small"}}
        assert (await client.ask("POST", "/storage/metrics", 201, json=body))["id"].startswith("metric_")
    client.ok("Record metrics")

    metrics = await client.ask("GET", "/storage/metrics", params=about)
    assert {(each["metric_name"], each["value"]) for each in metrics} == {("execution_time", 1.5), ("tokens", 150)}
    client.ok("Query metrics")

    value = {"result": [1, 2, 3]}
    await client.ask("PUT", "/storage/cache/test_key", json={"value": value, "ttl": 60})
    client.ok("Set cache with TTL")

    entry = await client.ask("GET", "/storage/cache/test_key")
    assert (entry["value"], entry["ttl"]) == (value, 60)
    assert entry["accessed_at"] >= entry["created_at"]
    assert "removed" in await client.ask("POST", "/storage/cache/cleanup")
    await client.ask("DELETE", "/storage/cache/test_key")
    await client.ask("GET", "/storage/cache/test_key", 404)
    client.ok("Get cache")


async def _ending(client: Client, session: str) -> None:
    query = {"agent_name": "test_agent", "status": "active", "user_id": "user_123"}
    assert session in [each["id"] for each in await client.ask("GET", "/storage/sessions", params=query)]
    client.ok("List sessions with filters")

    changed = await client.ask("PUT", f"/storage/sessions/{session}", json={"status": "ended"})
    assert (changed["status"], changed["metadata"]) == ("ended", {"test": True})
    assert session not in [each["id"] for each in await client.ask("GET", "/storage/sessions", params=query)]
    client.ok("Update session status")

    await client.ask("DELETE", f"/storage/sessions/{session}")
    for path in (f"/storage/sessions/{session}", f"/storage/state/{session}"):
        await client.ask("GET", path, 404)
    for path in ("/storage/history", "/storage/artifacts"):
        await client.ask("GET", path, 404, params={"session_id": session})
    client.ok("Delete session (cascade cleanup)")


if __name__ == "__main__":
    assert asyncio.run(run(sys.argv[1])) == TESTS

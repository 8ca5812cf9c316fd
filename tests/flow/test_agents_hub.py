"""Agents' stores and a real hub: seen from everywhere, at work without it, and caught up when it is back.

The first two rows of the seed's table of failures are here under their names; the full disks are in `tests/chaos`.
"""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.agents import AgentStorage, BaseStorage, CommanderStorage, RecruiterAgentStorage
from holdfast.clock import SYSTEM
from holdfast.errors import HubUnavailable
from holdfast.node.directory import Limits
from holdfast.node.hub import Hub
from holdfast.query import where
from holdfast.testing.clock import SettableClock
from tests.flow.hubs import HubProcess, until

JOHN = {"name": "John Doe", "email": "john@example.com", "skills": ["Python", "Django"], "experience_years": 5}


def run(call: Any) -> Any:
    return asyncio.run(call)


@pytest.fixture
def opened(tmp_path: Path, hub: HubProcess) -> Iterator[Callable[..., Any]]:
    made: list[BaseStorage] = []

    def make(kind: Callable[..., Any], node: str, *args: Any, **options: Any) -> Any:
        limits = Limits(floor_bytes=0, ballast_bytes=0)
        made.append(kind(*args, data_dir=tmp_path / node, htpc_url=hub.url, limits=limits, **options))
        return made[-1]

    yield make
    for storage in reversed(made):
        storage.__exit__()


def synced(storage: BaseStorage) -> None:
    assert run(storage.flush(30))
    assert storage.get_sync_queue_size() == 0
    assert storage.sync_queue["state"] == "synced"


def test_what_one_node_writes_every_other_finds(opened: Callable[..., Any], hub: HubProcess) -> None:
    keyed = opened(AgentStorage, "laptop", "my-agent")
    keyed.set("config", {"setting": "value"})
    keyed.set("brief", 1, ttl=3600)
    recruiter = opened(RecruiterAgentStorage, "laptop")
    john = run(recruiter.add_candidate(JOHN))
    commander = opened(CommanderStorage, "main")
    run(commander.create_task({"title": "Call John"}))
    sent = run(commander.send_message("recruiter", "call him", "directive"))
    for each in (keyed, recruiter, commander):
        synced(each)
    until(lambda: keyed.health_check()["htpc_state"] == "in_sync", "how the hub stands is written down")
    health = keyed.health_check()
    assert (health["status"], health["htpc_state"], health["sync_queue_size"]) == ("ok", "in_sync", 0)

    other = opened(AgentStorage, "deck", "looker")
    assert other.get("config", agent="my-agent") == {"setting": "value"}
    assert (other.get("brief", agent="my-agent"), other.get("none", 7, agent="my-agent")) == (1, 7)
    later = SettableClock(SYSTEM.now_ms() + 3_601_000)
    assert opened(AgentStorage, "deck", "late", clock=later).get("brief", "gone", agent="my-agent") == "gone"
    found = run(other.find_network("candidates", where("skills_folded").has("python")))
    assert [(row["agent_id"], row["id"], row["name"]) for row in found] == [("recruiter", john, "John Doe")]
    assert run(other.find("candidates")) == []  # its own
    statement = "SELECT agent, value ->> '$.title' AS title FROM latest WHERE collection = ?"
    assert run(other.query_network(statement, ["tasks"])) == [{"agent": "commander", "title": "Call John"}]
    assert [each["id"] for each in run(recruiter_inbox(opened))] == [sent]

    asked = {"condition": {"field": "experience_years", "op": "ge", "value": 3}}
    request = urllib.request.Request(
        f"{hub.url}/v1/collections/candidates/find",
        json.dumps(asked).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        assert [item["key"] for item in json.load(answer)["items"]] == [john]


def recruiter_inbox(opened: Callable[..., Any]) -> Any:
    return opened(CommanderStorage, "deck", agent_id="second").get_inbox("recruiter")


def test_network_partition(opened: Callable[..., Any], hub: HubProcess) -> None:
    """The cache grows, the queue accumulates; when the hub answers again the backlog is synced, and nothing was lost.

    The hub stands still (SIGSTOP): connections are taken and nobody answers, as behind a cut line.
    """
    storage = opened(AgentStorage, "laptop", "my-agent")
    storage.set("before", 0)
    synced(storage)
    hub.signal(signal.SIGSTOP)
    for number in range(200):
        storage.set(f"k{number}", number)
    assert len(storage.keys("k")) == 200
    assert storage.sync_queue["pending"] >= 200

    async def caught_up() -> int:
        waiting = asyncio.create_task(storage.process_sync_queue())
        await asyncio.sleep(0)  # it counts what waits before anybody can take any of it
        hub.signal(signal.SIGCONT)
        return await waiting

    assert run(caught_up()) >= 200
    synced(storage)
    with Hub(hub.url) as reader:
        assert len(reader.keys("k", agent="my-agent")) == 200
        assert reader.get("k199", agent="my-agent") == 199


def test_htpc_unavailable(opened: Callable[..., Any], hub: HubProcess) -> None:
    """Agents stay fully operational, the lag is told, and what waits catches up by itself."""
    recruiter, commander = opened(RecruiterAgentStorage, "laptop"), opened(CommanderStorage, "laptop")
    keyed = opened(AgentStorage, "laptop", "my-agent")
    hub.kill()
    keyed.set("config", 1)
    assert keyed.increment("n") == 1
    john = run(recruiter.add_candidate(JOHN))
    assert [each["id"] for each in run(recruiter.search_candidates(["python"], 3))] == [john]
    id = run(commander.create_task({"title": "Call John"}))
    task = run(commander.claim_task("worker"))
    run(commander.complete_task(task, "called"))
    run(commander.send_message("worker", "thank you"))
    assert [each["content"] for each in run(commander.get_inbox("worker"))] == ["thank you"]
    until(lambda: keyed.health_check()["htpc_state"] == "offline", "the hub is known to be away")
    health = keyed.health_check()
    assert (health["status"], health["local_db"], health["sync_queue_size"] > 0) == ("degraded", True, True)
    assert "does not answer" in health["problems"][0]
    for away in (keyed.find_network("candidates"), keyed.query_network("SELECT 1")):
        with pytest.raises(HubUnavailable):
            run(away)
    hub.start()
    until(lambda: not any(each.get_sync_queue_size() for each in (keyed, recruiter, commander)), "all has caught up")
    with Hub(hub.url) as reader:
        assert reader.get(john, agent="recruiter", collection="candidates")["name"] == "John Doe"
        assert reader.get(id, agent="commander", collection="tasks")["result"] == "called"
    until(lambda: keyed.health_check()["status"] == "ok", "it is well again")


def test_what_machines_share_stands_still_without_the_hub(opened: Callable[..., Any], hub: HubProcess) -> None:
    one, other = (opened(CommanderStorage, node, shared=True) for node in ("laptop", "main"))
    id = run(one.create_task({"title": "once"}))
    task = run(one.claim_task("w1"))
    hub.kill()
    for refused in (
        other.claim_task("w2"),
        one.create_task({"title": "x"}),
        one.complete_task(task, "done"),
        one.register_agent({"id": "w1"}),
    ):
        with pytest.raises(HubUnavailable) as caught:
            run(refused)
        assert "the hub decides" in caught.value.hint
    noted = run(one.log_decision({"decision_type": "wait", "reasoning": "the hub is away"}))
    assert [each["id"] for each in run(one.search_decisions("away"))] == [noted]
    hub.start()
    until(lambda: claims_nothing(other), "the hub decides again")
    assert run(one.complete_task(task, "done"))["status"] == "completed"
    assert run(other.get_task(id))["result"] == "done"


def claims_nothing(storage: CommanderStorage) -> bool:
    """Whether the hub says that there is nothing to claim; False while it does not answer."""
    try:
        return run(storage.claim_task("w2")) is None
    except HubUnavailable:
        return False


def test_messages_reach_an_agent_on_another_machine(opened: Callable[..., Any]) -> None:
    one, other = opened(CommanderStorage, "main"), opened(CommanderStorage, "deck", agent_id="deputy")
    run(one.send_message("deputy", {"take": "over"}, "directive"))
    synced(one)
    (found,) = run(other.get_inbox())
    assert (found["from_agent"], found["content"]) == ("commander", {"take": "over"})

"""Every code block of the two Commander OS documents that is code, in their order.

The blocks stand as the documents have them: what differs is import lines, addresses and directories. What a block
promises in the prose around it is asserted behind it.

The implementation report has: the tree of its files (no code); "Basic Agent Storage", "Recruiter Agent Storage" (here);
four shell blocks that install, serve, run the example and test, of which serving has a counterpart (here, `holdfast
serve`); "Environment Variables" (here), "Update Agent Launch Script" and "Add Health Check" (here). The architecture
has: a picture; the formula of the cache's size; two tables in SQL, which are this project's log (DESIGN: no second
table is kept of what is to be sent), so their columns are looked for in what is shown instead (here); and two YAML
files, which `tests/unit/test_settings*` load. Its endpoints are in `tests/hub/test_sync_endpoints.py` and
`test_files.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.agents import AgentStorage, CommanderStorage, RecruiterAgentStorage
from holdfast.node.hub import Hub
from tests.flow.hubs import HubProcess, until

NOBODY = "http://127.0.0.1:9"
"""In place of the documents' http://10.0.0.42:8001, which is some machine in their house."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("COMMANDER_STORAGE_DIR", "COMMANDER_DB_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture(params=["hub", "nobody"])
def htpc(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The HTPC's address, with a hub there or without: the blocks do the same."""
    if request.param == "nobody":
        yield NOBODY
        return
    # What a storage that closes gives a hub that answers: a second is enough for people, and not for every machine.
    monkeypatch.setattr("holdfast.node.ship.LINGER_S", 30.0)
    hub = HubProcess(tmp_path / "hub")
    yield hub.url
    hub.kill()


# -- the implementation report ------------------------------------------------------------------------------------


def test_basic_agent_storage(htpc: str) -> None:
    async def block() -> Any:
        storage = AgentStorage(
            agent_id="my-agent",
            data_dir=Path("./data/agents/my-agent"),
            htpc_url=htpc,
            enable_htpc=True,
        )

        storage.set("config", {"setting": "value"})
        config = storage.get("config")
        await storage.close()
        return config

    began = time.monotonic()
    assert asyncio.run(block()) == {"setting": "value"}
    assert time.monotonic() - began < 60, "it waited for a hub that is not there"
    with AgentStorage("my-agent", Path("./data/agents/my-agent"), enable_htpc=False) as again:
        assert again.get("config") == {"setting": "value"}
    if htpc != NOBODY:
        with Hub(htpc) as hub:
            assert hub.get("config", agent="my-agent") == {"setting": "value"}


def test_recruiter_agent_storage(htpc: str) -> None:
    seen: dict[str, Any] = {}

    async def main() -> None:
        storage = RecruiterAgentStorage(
            data_dir=Path("./data/agents/recruiter"),
            htpc_url=htpc,
            enable_htpc=True,
        )

        # Add candidate
        candidate_id = await storage.add_candidate(
            {
                "name": "John Doe",
                "email": "john@example.com",
                "skills": ["Python", "Django"],
                "experience_years": 5,
            }
        )

        # Search candidates
        matches = await storage.search_candidates(skills=["Python"], min_experience=3)

        await storage.close()
        seen.update(candidate_id=candidate_id, matches=matches)

    asyncio.run(main())
    (found,) = seen["matches"]
    assert (found["id"], found["name"], found["email"]) == (seen["candidate_id"], "John Doe", "john@example.com")
    assert (found["skills"], found["experience_years"]) == (["Python", "Django"], 5)
    if htpc != NOBODY:
        with Hub(htpc) as hub:
            assert hub.get(seen["candidate_id"], agent="recruiter", collection="candidates")["name"] == "John Doe"


def test_start_htpc_relay(here: Path) -> None:
    """``python commander_os/network/relay.py`` is ``holdfast serve``; the storage endpoints are there."""
    ready = here / "ready"
    serve = "import sys; from holdfast.cli import main; sys.argv = ['holdfast', *sys.argv[1:]]; main()"
    words = ["serve", "--data", str(here / "hub"), "--port", "0", "--ready-file", str(ready)]
    process = subprocess.Popen([sys.executable, "-c", serve, *words], stdout=subprocess.DEVNULL)
    try:
        until(lambda: ready.exists() or process.poll() is not None, "the hub listens")
        with Hub(json.loads(ready.read_text())["url"]) as hub:
            hub.tables.put("candidates", {"id": "c-1", "name": "Ada"}, agent="recruiter")  # POST /relay/immediate
            hub.tables.batch([{"table": "candidates", "row": {"id": "c-2", "name": "Bob"}, "agent": "recruiter"}])
            assert [row["name"] for row in hub.tables.find("candidates")] == ["Ada", "Bob"]  # POST /relay/query
    finally:
        process.kill()
        process.wait()


def test_environment_variables(here: Path) -> None:
    """``export`` in a shell, then a program that says nothing of directories."""
    program = (
        "from holdfast.agents import CommanderStorage\n"
        "with CommanderStorage() as storage:\n"
        "    print(storage.data_dir, storage.write_data and storage.health_check()['status'])\n"
    )
    exports = {
        "COMMANDER_STORAGE_DIR": str(here / "AI_storage" / "agent_storage"),
        "COMMANDER_DB_URL": "sqlite:///commander_memory.db",
    }
    for given, directory in (
        (exports, here / "AI_storage" / "agent_storage"),
        ({"COMMANDER_DB_URL": "sqlite:///commander_memory.db"}, Path("commander_memory")),
    ):
        said = subprocess.run(
            [sys.executable, "-c", program], env=os.environ | given, capture_output=True, text=True, check=True
        )
        assert said.stdout.split() == [str(directory), "ok"]
        assert (directory / "agents" / "commander" / "log.db").exists()


class Recruiter:
    """An agent, as the report has it launched and asked for its health."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.agent_id = "recruiter"
        # In agent initialization
        self.storage = RecruiterAgentStorage(
            data_dir=Path(config.get("storage", {}).get("local_data_dir")),
            htpc_url=config.get("storage", {}).get("htpc_url"),
            enable_htpc=config.get("storage", {}).get("enable_htpc", True),
        )

    async def agent_health_check(self) -> dict[str, Any]:
        return {
            "agent": self.agent_id,
            "storage": self.storage.health_check(),
        }


@pytest.mark.parametrize("storage", [{"htpc_url": NOBODY}, {"enable_htpc": False}, {"htpc_url": None}])
def test_launch_script_and_health_check(storage: dict[str, Any]) -> None:
    agent = Recruiter({"storage": {"local_data_dir": "data/agents/recruiter", **storage}})
    health = asyncio.run(agent.agent_health_check())
    assert json.loads(json.dumps(health)) == health
    assert health["agent"] == "recruiter"
    found = health["storage"]
    assert (found["agent_id"], found["local_db"]) == ("recruiter", True)
    assert found["htpc_enabled"] is (storage.get("htpc_url") is not None)
    assert found["sync_queue_size"] == 0
    asyncio.run(agent.storage.close())


def test_what_the_report_lists(here: Path) -> None:
    """What stands in "What Was Implemented" without an example: each of it is there."""

    async def all_of_it() -> None:
        async with CommanderStorage(here / "commander") as commander:
            task = await commander.create_task({"title": "Hiring Campaign", "priority": 8})
            await commander.register_agent({"agent_id": "recruiter-1", "name": "Alpha", "role": "recruiter"})
            assert (await commander.claim_task("recruiter-1") or {})["id"] == task
            assert (await commander.get_agent_performance_summary())["busy_agents"] == 1
            await commander.log_decision({"decision_type": "scale-up", "reasoning": "High task load"})
            await commander.record_metric("latency", "write", 0.4, "ms")
            goal = await commander.create_goal({"title": "Five developers"})
            assert (await commander.update_goal_progress(goal, 0.2))["progress"] == 0.2
            await commander.record_comm({"from_agent": "commander", "to_agent": "recruiter-1", "content": {}})
        async with RecruiterAgentStorage(here / "recruiter") as recruiter:
            candidate = await recruiter.add_candidate({"name": "Ada", "skills": ["Python"]})
            interview = await recruiter.add_interview({"candidate_id": candidate, "interview_type": "technical"})
            await recruiter.record_interview_outcome(interview, "passed")
            await recruiter.add_job_requisition({"title": "Senior", "required_skills": ["Python"], "priority": 8})
            await recruiter.log_agent_interaction("tech-1", "recommendation", {"candidate": candidate})
            assert (await recruiter.pipeline_stats())["interviews"]["pass_rate"] == 1.0

    asyncio.run(all_of_it())


# -- the architecture ---------------------------------------------------------------------------------------------


def test_the_tables_columns_are_found_in_what_is_shown(here: Path) -> None:
    """`messages` and `outbox` of the architecture: one log, from which each column is derived."""
    with CommanderStorage(here / "node", htpc_url=NOBODY) as storage:
        sent = storage.store.post({"lead": "ACME"}, to="people", task="t-1", role="assistant")
        assert (sent.id, sent.seq, sent.time > 0, sent.task, sent.agent) == (sent.id, 1, True, "t-1", "commander")
        assert (sent.to, sent.role, sent.body) == ("people", "assistant", {"lead": "ACME"})
        queue = storage.sync_queue  # synced, status, retry_count, last_attempt of what waits
        until(lambda: storage.sync_queue["state"] == "offline", "the hub was tried")
        (hub,) = storage.sync_queue["hubs"]
        assert (queue["pending"], hub["depth"], hub["failures"] >= 1) == (1, 1, True)
        assert hub["at"] is not None

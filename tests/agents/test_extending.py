"""`BaseStorage`: what a subclass of one's own has, how it is configured, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from holdfast.agents import AgentStorage, BaseStorage, CommanderStorage, RecruiterAgentStorage
from holdfast.errors import Conflict, NotFound, UsageError
from holdfast.node.directory import Limits
from holdfast.query import where

ROOMY = Limits(floor_bytes=0, ballast_bytes=0)


class LeadStorage(BaseStorage):
    """Leads, each with a company."""

    indexes: ClassVar = {"leads": ("heat",)}

    def _write_local(self, table: str, data: dict[str, Any], operation: str) -> dict[str, Any] | None:
        if table != "leads":
            return None
        if not data.get("company"):
            raise UsageError("a lead needs a company")
        return {**data, "company": data["company"].strip()}


@pytest.fixture
def leads(opened: Callable[..., Any]) -> LeadStorage:
    found: LeadStorage = opened(LeadStorage, "scout")
    return found


def run(call: Any) -> Any:
    return asyncio.run(call)


def test_rows_are_written_changed_and_found(leads: LeadStorage) -> None:
    assert run(leads.write_data("leads", {"id": "l-1", "company": " ACME ", "heat": 9})) is True
    second = run(leads.insert("leads", {"company": "Birch", "heat": 4}))
    run(leads.write_data("leads", {"id": second, "heat": 8}, "update"))
    found = run(leads.find("leads", where("heat") >= 8, order="-heat"))
    assert [(row["company"], row["heat"]) for row in found] == [("ACME", 9), ("Birch", 8)]
    first = run(leads.find("leads", order="-heat", limit=1))
    assert [row["heat"] for row in first] == [9]
    rest = run(leads.find("leads", order="-heat", limit=1, after=first.cursor))
    assert ([row["heat"] for row in rest], rest.cursor) == ([8], None)
    run(leads.write_data("leads", {"id": second}, "delete"))
    assert run(leads.get_row("leads", second)) is None
    assert run(leads.get_row("leads", "l-1")) == {"id": "l-1", "company": "ACME", "heat": 9}
    run(leads.write_data("messages", {"id": 7, "text": "a name that Holdfast has for itself"}))
    assert run(leads.get_row("messages", 7))["text"].startswith("a name")


def test_what_cannot_be_is_refused_and_nothing_is_written(leads: LeadStorage) -> None:
    run(leads.write_data("leads", {"id": "l-1", "company": "ACME"}))
    run(leads.write_data("leads", {"id": "l-1", "company": "ACME"}))  # the same once more is no conflict
    before = leads.store.health()["head"]["seq"]
    refusals: tuple[tuple[type[Exception], Callable[[], Any]], ...] = (
        (Conflict, lambda: leads.write_data("leads", {"id": "l-1", "company": "Other"})),
        (UsageError, lambda: leads.write_data("leads", {"id": "l-2"})),
        (NotFound, lambda: leads.write_data("leads", {"id": "l-2", "company": "x"}, "update")),
        (NotFound, lambda: leads.write_data("leads", {"id": "l-2"}, "delete")),
        (UsageError, lambda: leads.write_data("leads", {"company": "x"}, "update")),
        (UsageError, lambda: leads.write_data("leads", {"id": True, "company": "x"})),
        (UsageError, lambda: leads.write_data("a/b", {"id": "x"})),
        (UsageError, lambda: leads.batch_write([{"table": "leads", "data": {"id": 1, "company": "x"}}] * 2)),
        (UsageError, lambda: leads.batch_write(["leads"])),  # type: ignore[list-item]
        (UsageError, lambda: leads.batch_write({"table": "leads", "data": {}})),  # type: ignore[arg-type]
        (UsageError, lambda: leads.batch_write([{"table": ["leads"], "data": {"id": 1}}])),
        (UsageError, lambda: leads.batch_write(None)),  # type: ignore[arg-type]
    )
    for refused, call in refusals:
        with pytest.raises(refused):
            run(call())
    with pytest.raises(UsageError) as caught:
        run(leads.write_data("leads", {"id": "l-1"}, "updat"))
    assert caught.value.hint == "did you mean update?"
    with pytest.raises(TypeError, match="abstract"):
        BaseStorage("nobody")  # type: ignore[abstract]
    assert leads.store.health()["head"]["seq"] == before


def test_a_batch_is_all_or_none(leads: LeadStorage) -> None:
    run(leads.write_data("leads", {"id": "l-1", "company": "ACME"}))
    changes = [
        {"table": "leads", "data": {"id": "l-2", "company": "Birch"}},
        {"table": "notes", "data": {"id": "n-1"}, "operation": "upsert"},
        {"table": "leads", "data": {"id": "l-1"}, "operation": "delete"},
    ]
    for wrong in (
        {"table": "leads", "data": {"id": "l-3"}},
        {"table": "leads", "data": {"id": "x"}, "operation": "delete"},
    ):
        with pytest.raises((UsageError, NotFound)):
            run(leads.batch_write([*changes, wrong]))
    assert [row["id"] for row in run(leads.find("leads"))] == ["l-1"]
    assert run(leads.batch_write(changes)) == 3
    assert [row["id"] for row in run(leads.find("leads"))] == ["l-2"]
    assert run(leads.get_row("notes", "n-1")) == {"id": "n-1"}


def test_two_who_change_one_row_both_do(leads: LeadStorage) -> None:
    run(leads.write_data("leads", {"id": "l-1", "company": "ACME"}))

    def change(name: str) -> None:
        for number in range(20):
            leads.change("leads", {"id": "l-1", name: number}, "update")

    threads = [threading.Thread(target=change, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run(leads.get_row("leads", "l-1")) == {"id": "l-1", "company": "ACME", "a": 19, "b": 19, "c": 19}


def test_health_tells_how_it_is_also_when_closed(leads: LeadStorage) -> None:
    health = leads.health_check()
    assert health["agent_id"] == "scout"
    assert (health["status"], health["local_db"], health["htpc_state"], health["problems"]) == ("ok", True, "off", [])
    assert leads.sync_queue == {"pending": 0, "state": "off", "hubs": []}
    assert run(leads.process_sync_queue()) == 0
    run(leads.close())
    run(leads.close())
    health = leads.health_check()
    assert (health["status"], health["local_db"]) == ("failing", False)
    assert health["problems"]
    json.dumps(health)


def test_it_is_a_context_manager_of_both_kinds(opened: Callable[..., Any]) -> None:
    with opened(AgentStorage, "one") as storage:
        storage.set("k", 1)
    assert storage.health_check()["status"] == "failing"

    async def both() -> None:
        async with opened(AgentStorage, "one") as again:
            assert again.get("k") == 1
        assert again.health_check()["status"] == "failing"

    run(both())


@pytest.mark.parametrize("silent", [False, True], ids=["nobody listens", "nobody answers"])
def test_without_a_hub_all_works_and_it_closes_soon(tmp_path: Path, silent: bool) -> None:
    """An address that answers nobody: the process has everything, keeps it, and ends well before any time-out."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if not silent:
            server.close()
        write = (
            "import sys; from holdfast.agents import AgentStorage\n"
            "with AgentStorage('my-agent', sys.argv[1], htpc_url=sys.argv[2]) as storage:\n"
            "    for n in range(50): storage.set(f'k{n}', n)\n"
            "    assert storage.get('k7') == 7 and storage.get_sync_queue_size() == 50\n"
            "    assert storage.sync_queue['pending'] == 50\n"
        )
        command = [sys.executable, "-c", write, str(tmp_path / "node"), f"http://127.0.0.1:{port}"]
        subprocess.run(command, check=True, timeout=30)  # a request alone would be waited for by 10 s
    with AgentStorage("my-agent", tmp_path / "node", enable_htpc=False, limits=ROOMY) as storage:
        assert len(storage.keys()) == 50


def test_the_seeds_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {
        "agent_id": "recruiter-001",
        "storage": {
            "local_data_dir": str(tmp_path / "node"),
            "htpc_url": "http://127.0.0.1:9",
            "enable_htpc": False,
            "sync": {"interval": 5},
            "retry_max": 10,
        },
    }
    for kind in (AgentStorage, RecruiterAgentStorage, CommanderStorage):
        with kind.from_config(config, limits=ROOMY) as storage:
            assert storage.agent_id == "recruiter-001"
            assert storage.data_dir == tmp_path / "node"
            assert not storage.enable_htpc
            assert storage.health_check()["ignored"] == ["storage.sync", "storage.retry_max"]
    options: Any = {"sync_interval": 5, "batch_size": 500, "retry_max": 10, "retry_backoff_base": 2, "timeout": 3}
    with AgentStorage("a", tmp_path / "node", limits=ROOMY, **options) as storage:
        assert storage.ignored == ["sync_interval", "batch_size", "retry_max", "retry_backoff_base"]
        assert storage.timeout == 3
    wrongs: tuple[dict[str, Any], ...] = (
        {"storage": []},
        {"storage": {"local_data_dir": 7}},
        {"storage": {"local_data_dir": "x", "enable_htpc": "no"}},
        {"storage": {"local_data_dir": "x", "htpc_url": 7}},
    )
    for wrong in wrongs:
        with pytest.raises(UsageError, match="storage"):
            AgentStorage.from_config(wrong, agent_id="a")
    with pytest.raises(UsageError, match="whose storage"):
        AgentStorage.from_config({"storage": {"local_data_dir": str(tmp_path)}})
    with pytest.raises(UsageError) as caught:
        AgentStorage("a", tmp_path, tokn="x")  # type: ignore[call-arg]
    assert caught.value.hint == "did you mean token?"


def test_where_the_data_lies_if_nobody_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COMMANDER_STORAGE_DIR", raising=False)
    monkeypatch.delenv("COMMANDER_DB_URL", raising=False)

    def lies() -> Path:
        with CommanderStorage(limits=ROOMY) as storage:
            return storage.data_dir.resolve()

    with pytest.raises(UsageError, match="no data_dir"):
        lies()
    monkeypatch.setenv("COMMANDER_DB_URL", "sqlite:///commander_memory.db")
    assert lies() == tmp_path.resolve() / "commander_memory"
    monkeypatch.setenv("COMMANDER_DB_URL", f"sqlite:///{tmp_path}/deep/memory")
    assert lies() == tmp_path.resolve() / "deep" / "memory"
    monkeypatch.setenv("COMMANDER_STORAGE_DIR", str(tmp_path / "pool"))
    assert lies() == tmp_path.resolve() / "pool"
    monkeypatch.setenv("COMMANDER_DB_URL", "postgresql://me:secret@db/agents")
    with pytest.raises(UsageError) as caught:
        lies()
    assert "hub" in caught.value.hint
    assert "secret" not in caught.value.message
    with CommanderStorage(tmp_path / "given", limits=ROOMY) as storage:
        assert storage.data_dir == tmp_path / "given"
    for nothing in ("sqlite:///", "sqlite:///:memory:"):
        monkeypatch.delenv("COMMANDER_STORAGE_DIR", raising=False)
        monkeypatch.setenv("COMMANDER_DB_URL", nothing)
        with pytest.raises(UsageError, match="names no file"):
            lies()
    assert not os.path.exists("config.json")

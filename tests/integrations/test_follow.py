"""What `holdfast sessions export` gives back is what the vendor's own code finds and reads."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from holdfast import Store
from holdfast.cli.following.follower import Follower
from holdfast.cli.following.giving import files_of, give, target
from holdfast.cli.following.ledger import Ledger
from holdfast.cli.transcripts.tools import TOOLS
from tests.integrations.places import LIMITS, MISSING

sdk = pytest.importorskip("claude_agent_sdk", reason=MISSING)

SESSION = "0b2f7c1e-5d3a-4c1b-9f57-3f1d2c4b5a69"


def test_claudes_sdk_finds_a_session_that_was_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under another project's folder on another machine; and moves it into our store for sessions."""
    from holdfast.integrations.claude import HoldfastSessionStore

    events: list[dict[str, Any]] = [
        {
            "type": "user" if number % 2 == 0 else "assistant",
            "sessionId": SESSION,
            "uuid": f"00000000-0000-4000-8000-{number:012}",
            "parentUuid": f"00000000-0000-4000-8000-{number - 1:012}" if number else None,
            "timestamp": f"2026-01-06T12:00:{number:02}.000Z",
            "cwd": "/src/shop",
            "message": {"role": "user" if number % 2 == 0 else "assistant", "content": f"said {number}"},
        }
        for number in range(6)
    ]
    home = tmp_path / "one"
    path = home / "projects" / "-src-shop" / f"{SESSION}.jsonl"
    side = path.with_suffix("") / "subagents" / "agent-a1.jsonl"
    side.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    side.write_text(json.dumps(events[0] | {"isSidechain": True, "agentId": "a1"}) + "\n")
    place = tmp_path / "my project.d"
    place.mkdir()
    with Store(tmp_path / "node", "laptop", hub=[], limits=LIMITS) as store:
        follower = Follower(store, TOOLS["claude-code"], home, lambda *_: None)
        follower.walk()
        follower.once()
        ledger = Ledger(store)
        files = files_of(ledger, ledger.group("claude-code", SESSION))
        give(ledger, [(fid, head, target(head, tmp_path / "other", str(place.resolve()))) for fid, head in files])
        monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path / "other"))
        (listed,) = sdk.list_sessions(directory=str(place))
        assert listed.session_id == SESSION
        assert len(sdk.get_session_messages(SESSION, directory=str(place))) == len(events)

        async def run() -> None:
            sessions = HoldfastSessionStore(store)
            await sdk.import_session_to_store(SESSION, sessions, directory=str(place))
            (project,) = (tmp_path / "other" / "projects").iterdir()
            key: Any = {"project_key": project.name, "session_id": SESSION}
            assert await sessions.load(key) == events
            assert await sessions.list_subkeys(key) == ["subagents/agent-a1"]

        asyncio.run(run())

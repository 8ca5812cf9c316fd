"""A session that is followed on one machine is found, read, given back and gone on with on another."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.following.follower import Follower
from holdfast.cli.following.giving import files_of
from holdfast.cli.following.ledger import Ledger
from holdfast.cli.transcripts.tools import TOOLS
from holdfast.node.directory import Limits
from holdfast.node.hub import Hub
from holdfast.node.store import Store
from tests.flow.hubs import HubProcess, until

DATA = Path(os.environ.get("HOLDFAST_DATA") or Path(__file__).parents[2].parent / "shared" / "data")
CONVERSATIONS = DATA / "conversations.json"
COMMAND = "import sys; from holdfast.cli import main; sys.argv[0] = 'holdfast'; main()"
SESSION = "0b2f7c1e-5d3a-4c1b-9f57-3f1d2c4b5a69"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """One hub for all."""
    process = HubProcess(tmp_path_factory.mktemp("hub") / "hub")
    yield process
    process.stop()


class Machine:
    """A machine with a home of its own, at a hub."""

    def __init__(self, home: Path, name: str, url: str) -> None:
        self.home, self.name = home, name
        home.mkdir()
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HOLDFAST_", "XDG_"))}
        for tool in TOOLS.values():
            kept.pop(tool.variable, None)
        self.environment = kept | {"HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)}
        self.say("init", "--agent", name, "--hub", url)

    def start(self, *words: str | Path) -> subprocess.Popen[bytes]:
        """A command that runs."""
        command = [sys.executable, "-c", COMMAND, *map(str, words)]
        return subprocess.Popen(
            command, env=self.environment, cwd=self.home, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def follow(self) -> subprocess.Popen[bytes]:
        """A follower that runs."""
        process = self.start("follow", "claude-code", "--interval", "0.02")
        assert process.stderr is not None
        assert b"following claude-code" in process.stderr.readline()
        return process

    def say(self, *words: str | Path, code: int = 0) -> bytes:
        """What a command says."""
        process = self.start(*words)
        out, err = process.communicate(timeout=100)
        assert process.returncode == code, err.decode()
        return out


def said(number: int) -> bytes:
    """A line of Claude Code."""
    at = f"2026-01-06T12:{number // 60 % 60:02}:{number % 60:02}.000Z"
    role = "assistant" if number % 2 else "user"
    event: dict[str, Any] = {
        "type": role,
        "uuid": f"u{number}",
        "sessionId": SESSION,
        "timestamp": at,
        "cwd": "/src/shop",
    }
    event["message"] = {"role": role, "content": f"word{number} and ünï — {'x' * (number % 90)}"}
    return json.dumps(event, ensure_ascii=False).encode() + b"\n"


def test_two_machines(hub: HubProcess, tmp_path: Path) -> None:
    """One is killed over and over while its tool writes, and another helps; the other machine lacks no byte."""
    here, there = Machine(tmp_path / "here", "laptop", hub.url), Machine(tmp_path / "there", "desk", hub.url)
    folder = here.home / ".claude" / "projects" / "-src-shop"
    folder.mkdir(parents=True)
    path = folder / f"{SESSION}.jsonl"
    beside = folder / SESSION / "subagents" / "agent-a1.jsonl"
    beside.parent.mkdir(parents=True)
    beside.write_bytes(said(500))
    count = 0

    def messages(agent: str) -> int:
        with Hub(hub.url) as asked:
            found = [each for each in asked.sessions.find(agent=agent) if each.metadata["session"] == SESSION]
            main = [each for each in found if "parent" not in each.metadata]
            return len(asked.sessions.messages(main[0].id)) if main else 0

    luck = random.Random(8)
    running = [here.follow(), here.follow()]
    with path.open("ab", buffering=0) as raw:
        for _ in range(2):
            for _ in range(25):
                line = said(count)
                cut = luck.randrange(len(line))
                raw.write(line[:cut])
                raw.write(line[cut:])
                count += 1
            until(lambda seen=count: messages("laptop") >= seen - luck.randrange(25), "the hub has most of it")  # type: ignore[misc]
            killed = running.pop(0)
            killed.kill()
            killed.communicate()
            running.append(here.follow())
    until(lambda: messages("laptop") == count, "the hub has all of it")
    for process in running:
        process.terminate()
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, (out, err)
    here.say("follow", "claude-code", "--once")

    assert b"word7 and" in there.say("sessions", "show", SESSION[:8], "--limit", "200")
    (listed,) = [
        each
        for each in json.loads(there.say("sessions", "ls", "--json"))["sessions"]
        if "parent" not in each["metadata"]
    ]
    assert (listed["agent"], listed["here"], listed["metadata"]["lines"]) == ("laptop", False, count)
    with Store(there.home / ".local/share/holdfast", "desk") as store:
        (found,) = store.search("word33")
        assert (found.agent, found.value["metadata"]["line"]) == ("laptop", 34)
    there.say("sessions", "export", SESSION, "--into", there.home / ".claude", "--project", "/home/ada/shop")
    given = there.home / ".claude" / "projects" / "-home-ada-shop"
    assert (given / path.name).read_bytes() == path.read_bytes()
    assert (given / SESSION / "subagents" / beside.name).read_bytes() == beside.read_bytes()

    with (given / path.name).open("ab") as file:
        file.write(said(count))  # resumed there
    told = json.loads(there.say("follow", "claude-code", "--once", "--json"))
    assert (told["said"], told["outbox"]) == (count + 2, 0)
    assert here.say("sessions", "export", SESSION) == (given / path.name).read_bytes(), "the longer one is given back"
    here.say("sessions", "export", SESSION, "--into", here.home / ".claude", "--project", "/src/shop")
    assert path.read_bytes() == (given / path.name).read_bytes()
    assert json.loads(here.say("follow", "claude-code", "--once", "--json"))["said"] == 1


@pytest.mark.skipif(
    not CONVERSATIONS.is_file(),
    reason="needs conversations.json, which is not part of the project: HOLDFAST_DATA=<folder>",
)
def test_real_conversations_come_back_to_the_byte(tmp_path: Path) -> None:
    """200 conversations of a real agent in Codex' and Claude Code's forms: kept, told in order, given back."""
    chats = [each["traj"] for each in json.loads(CONVERSATIONS.read_bytes())]
    files: dict[str, dict[Path, bytes]] = {"claude-code": {}, "codex": {}}
    for number, chat in enumerate(chats):
        tool = "codex" if number % 2 else "claude-code"
        session = f"00000000-0000-4000-8000-{number:012}"
        place = f"sessions/2026/01/06/rollout-2026-01-06T12-00-00-{session}.jsonl"
        path = Path(place if number % 2 else f"projects/-p{number % 7}/{session}.jsonl")
        files[tool][path] = b"".join(_line(tool, session, at, each) for at, each in enumerate(chat))
    with Store(tmp_path / "node", "ada", hub=[], limits=Limits(0, 0)) as store:
        for tool, there in files.items():
            home = tmp_path / tool
            for path, data in there.items():
                (home / path).parent.mkdir(parents=True, exist_ok=True)
                (home / path).write_bytes(data)
            wrong: list[str] = []
            follower = Follower(store, TOOLS[tool], home, lambda place, why, wrong=wrong: wrong.append(place + why))  # type: ignore[misc]
            follower.walk()
            follower.once()
            assert wrong == []
            assert follower.tally.said == sum(data.count(b"\n") for data in there.values())
        ledger = Ledger(store)
        for tool, there in files.items():
            for path, data in there.items():
                ((fid, head),) = files_of(ledger, ledger.group(tool, path.stem[-36:]))
                assert (head.path, b"".join(ledger.content(fid, head))) == (str(path), data)
        kept = [each for each in store.search("reservation cancel", collection="sessions", limit=20)]
        assert len(kept) == 20


def _line(tool: str, session: str, at: int, message: dict[str, Any]) -> bytes:
    time = f"2026-01-06T12:{int(session[-4:]) // 60:02}:{int(session[-4:]) % 60:02}.{at:03}Z"
    role, content = message["role"], message.get("content") or json.dumps(message.get("tool_calls"))
    event: dict[str, Any]
    if tool == "codex":
        payload = {"type": "message", "role": role, "content": [{"type": "input_text", "text": content}]}
        event = {"timestamp": time, "type": "response_item", "payload": payload}
    else:
        kind = role if role in ("user", "assistant") else "user"
        event = {"type": kind, "uuid": f"{session}-{at}", "sessionId": session, "timestamp": time, "message": message}
        event["message"] = {"role": role, "content": content}
    return json.dumps(event).encode() + b"\n"

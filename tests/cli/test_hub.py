"""Commands and a hub that really runs: serve, two machines, tokens, and a hub that goes away and comes back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from holdfast.node.store import Store
from tests.cli.conftest import Run, wait_for
from tests.cli.test_transcripts import SHARED

Spawn = Callable[..., "subprocess.Popen[bytes]"]


@dataclass
class Server:
    """A `holdfast serve` of a test."""

    spawn: Spawn
    home: Path
    url: str = ""
    process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> Server:
        """Starts it, at the address that it had; returns once it listens."""
        ready = self.home / "ready"
        ready.unlink(missing_ok=True)
        port = self.url.rpartition(":")[2] or "0"
        words = ("serve", "--data", self.home / "hub", "--port", port, "--ready-file", ready, *options)
        self.process = self.spawn(*words)
        told = json.loads(wait_for(lambda: ready.exists() and ready.read_text()))
        self.url = told["url"]
        assert told["pid"] == self.process.pid
        return self

    def end(self, number: int = signal.SIGTERM) -> int:
        """Ends it; its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def server(spawn: Spawn, tmp_path: Path) -> Server:
    """A hub that is not started yet."""
    home = tmp_path / "server"
    home.mkdir()
    return Server(spawn, home)


@pytest.fixture
def two(empty: Run, server: Server, home: Path, patient: Callable[[float], None]) -> Callable[[str], tuple[str, ...]]:
    """Two machines that share a hub: gives the options that make a command run on one of them."""
    patient(30.0)
    server.start()
    for name in ("laptop", "desk"):
        assert empty("init", home / name, "--agent", name, "--hub", server.url).code == 0
    return lambda name: ("--store", str(home / name))


def test_serve_says_where_it_listens_and_ends_in_order(server: Server) -> None:
    server.start()
    assert server.process is not None
    assert server.process.stdout is not None
    assert server.process.stdout.readline().decode().split()[-1] == server.url
    assert server.end() == 0
    assert not (server.home / "ready").exists()


def test_ctrl_c_ends_it_in_order_too(server: Server) -> None:
    assert server.start().end(signal.SIGINT) == 0


def test_a_directory_is_served_by_one(server: Server, spawn: Spawn) -> None:
    server.start()
    second = spawn("serve", "--data", server.home / "hub", "--port", "0", "--json")
    _, err = second.communicate(timeout=30)
    assert second.returncode == 11
    assert json.loads(err.splitlines()[-1])["error"]["code"] == "locked"


def test_a_hub_for_all_the_world_needs_a_token(empty: Run) -> None:
    result = empty("serve", "--data", "hub", "--host", "0.0.0.0", "--port", "0")
    assert result.code == 2
    assert "holdfast token create" in result.err
    (Path.cwd() / "token").write_text("x")
    result = empty("serve", "--data", "hub", "--host", "0.0.0.0", "--port", "0", "--token-file", "token")
    assert result.code == 2
    assert "--plain-http" in result.err


def test_a_write_on_one_machine_is_read_on_the_other(empty: Run, two: Callable[[str], tuple[str, ...]]) -> None:
    assert empty("put", "plan", '{"step": 1}', *two("laptop")).text == "stored state/plan v1; at the hub\n"
    assert empty("put", "plan", '{"step": 2}', *two("laptop")).code == 0
    there = (*two("desk"), "--agent", "laptop")
    assert json.loads(empty("get", "plan", *there).text) == {"step": 2}
    assert json.loads(empty("get", "plan", "--version", "1", *there).text) == {"step": 1}
    assert empty("get", "plan", "--json", *there).json["value"] == {"step": 2}
    assert [v["version"] for v in empty("history", "plan", "--json", *there).json["versions"]] == [2, 1]
    assert empty("ls", "--names", *there).text == "plan\n"
    missing = empty("get", "other", *there)
    assert (missing.code, "holdfast ls --agent laptop" in missing.err) == (5, True)
    assert '+  "step": 2' in empty("diff", "plan", "1", *there).text


def test_what_the_hub_decided_is_read_under_its_name(
    empty: Run, home: Path, two: Callable[[str], tuple[str, ...]]
) -> None:
    with Store(home / "laptop", "laptop", cas=["locks"]) as store:
        store.put("door", "mine", collection="locks", expect=0)
    assert empty("get", "door", "-c", "locks", "--agent", "hub", *two("desk")).text == "mine\n"


def test_messages_reach_people_on_every_machine(empty: Run, two: Callable[[str], tuple[str, ...]]) -> None:
    empty("send", "people", "from the laptop", "--kind", "report", *two("laptop"))
    empty("send", "people", "from the desk", *two("desk"))
    found = empty("inbox", "--json", *two("desk")).json["messages"]
    assert [(m["agent"], m["body"]) for m in found] == [("laptop", "from the laptop"), ("desk", "from the desk")]
    found = empty("inbox", "--from", "laptop", "--json", *two("desk")).json["messages"]
    assert [m["body"] for m in found] == ["from the laptop"]
    found = empty("inbox", "--local", "--json", *two("desk")).json["messages"]
    assert [m["body"] for m in found] == ["from the desk"]


def test_watch_goes_on_through_a_restart_of_the_hub(
    empty: Run,
    two: Callable[[str], tuple[str, ...]],
    server: Server,
    spawn: Spawn,
    patient: Callable[[float], None],
) -> None:
    empty("put", "k", "1", *two("laptop"))
    watch = spawn("watch", "--since", "start", "--json", "--limit", "2", *two("desk"))
    assert watch.stdout is not None
    assert json.loads(watch.stdout.readline())["value"] == 1
    assert server.end(signal.SIGKILL) == -signal.SIGKILL
    patient(0.5)
    assert empty("put", "k", "2", *two("laptop")).text == "stored state/k v2; not at the hub yet: 1 record\n"
    server.start()
    wait_for(lambda: empty("put", "other", "3", *two("laptop"), "--json").json["outbox"] == 0)
    assert json.loads(watch.stdout.readline())["value"] == 2
    assert watch.wait(30) == 0


def test_status_tells_how_far_the_hub_is(empty: Run, two: Callable[[str], tuple[str, ...]], server: Server) -> None:
    empty("put", "k", "1", *two("laptop"))
    told = empty("status", "--json", *two("laptop")).json
    assert (told["hubs"][0]["reachable"], told["agents"][0]["outbox"], told["ok"]) == (True, 0, True)
    doctor = empty("doctor", "--json", *two("laptop")).json
    assert {c["name"]: c["state"] for c in doctor["checks"] if c["name"] in ("hub", "clock")} == {
        "hub": "ok",
        "clock": "ok",
    }


def test_a_token_opens_the_hub_and_nothing_else_does(
    empty: Run, server: Server, home: Path, patient: Callable[[float], None]
) -> None:
    for name, text in (("right", "open sesame"), ("wrong", "open barley")):
        (home / name).write_text(text)
        os.chmod(home / name, 0o600)
    server.start("--token-file", str(home / "right"))
    assert empty("init", "--agent", "me", "--hub", server.url, "--token-file", home / "right").code == 0
    patient(30.0)
    assert empty("put", "k", "1").text == "stored state/k v1; at the hub\n"
    assert empty("inbox").code == 0
    refused = empty("inbox", "--token-file", home / "wrong", "--json")
    assert refused.code == 4
    assert refused.error["exit"] == 4
    doctor = empty("doctor", "--token-file", home / "wrong", "--json")
    assert doctor.code == 1
    assert [check["state"] for check in doctor.json["checks"] if check["name"] == "hub"] == ["fail"]
    patient(1.0)
    assert empty("put", "k", "2", "--token-file", home / "wrong").code == 0, "the write is safe here all the same"
    status = empty("status")
    assert (status.code, f"warning: {server.url}, when last asked: the hub answered 401" in status.err) == (1, True)
    patient(30.0)
    assert empty("put", "k", "3").text == "stored state/k v3; at the hub\n"
    assert empty("status").code == 0


@pytest.mark.skipif(not SHARED.exists(), reason="needs the shared conversations")
def test_an_import_on_one_machine_is_exported_whole_from_the_other(
    empty: Run, two: Callable[[str], tuple[str, ...]]
) -> None:
    told = empty("import", SHARED, "--json", *two("laptop")).json
    assert (told["new"], told["outbox"]) == (5308, 0)
    lines = empty("watch", "--since", "start", "--once", "--json", *two("desk")).text.splitlines()
    found = [json.loads(line)["value"] for line in lines]
    originals = [message for each in json.loads(SHARED.read_bytes()) for message in each["traj"]]
    assert [{"role": m["role"], "content": m["body"], **m.get("rest", {})} for m in found] == originals


def test_a_store_with_two_hubs_goes_on_with_the_one_that_follows(
    empty: Run, server: Server, spawn: Spawn, home: Path, patient: Callable[[float], None], tmp_path: Path
) -> None:
    patient(30.0)
    server.start()
    (tmp_path / "second").mkdir()
    standby = Server(spawn, tmp_path / "second").start("--follow", server.url)
    hubs = ("--hub", server.url, "--hub", standby.url)
    for name in ("laptop", "desk"):
        made = empty("init", home / name, "--agent", name, *hubs, "--json").json
        assert made["hubs"] == [server.url, standby.url]
    laptop, desk = ("--store", str(home / "laptop")), ("--store", str(home / "desk"))
    assert empty("put", "plan", "1", *laptop).text == "stored state/plan v1; at the hub\n"
    assert server.end(signal.SIGKILL) != 0
    assert empty("put", "plan", "2", *laptop).text == "stored state/plan v2; at the hub\n"
    assert empty("get", "plan", *desk, "--agent", "laptop").text == "2\n"
    told = empty("status", "--json", *laptop).json
    assert [(each["url"], each["reachable"]) for each in told["hubs"]] == [(server.url, False), (standby.url, True)]
    checks = [check["state"] for check in empty("doctor", "--json", *laptop).json["checks"] if check["name"] == "hub"]
    assert checks == ["fail", "ok"]
    assert empty("serve", "--data", "x", "--follow-key", "ab").code == 2
    assert empty("serve", "--data", "x", "--follow", "10.0.0.1").code == 2
    assert standby.end() == 0

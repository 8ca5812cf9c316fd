"""Configuration is found, read, trusted or not, and takes effect in the stores that are opened by it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.errors import HoldfastError, Sealed, UsageError
from holdfast.node.aio import AsyncStore
from holdfast.node.configured import (
    Command,
    attached,
    load,
    retention_of,
    reveal,
    secret,
    store_arguments,
    stored,
)
from holdfast.node.store import Store
from holdfast.retention import Retention
from holdfast.transport.client import Credential

AGENT = 'agent_id: "recruiter-001"\nrole: recruiter\nenabled: true\nsync: {retry_max: 10}\n'
RELAY = "nodes: [{id: htpc, host: 10.0.0.42, port: 8001, role: storage}]\n"
STORAGE = "storage: {local_data_dir: ./data, htpc_url: 'http://10.0.0.7:8001', enable_htpc: false}\n"

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a file below an empty home, which is the working directory too."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "COMMANDER_STORAGE_DIR"):
        monkeypatch.delenv(name, raising=False)

    def made(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return made


def test_each_place_is_looked_at_in_its_turn(write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def name() -> tuple[object, str]:
        found = load(directory=tmp_path / "work/deep")
        assert found.problems == []
        return found.get("agent.id"), found.level("agent.id")

    (tmp_path / "work/deep").mkdir(parents=True)
    system = write("system.yaml", "agent: {id: system}")
    monkeypatch.setattr("holdfast.node.configured.SYSTEM", str(system))
    assert name() == ("system", "system")
    write(".config/holdfast/config.yaml", "agent: {id: user}")
    assert name() == ("user", "user")
    write(".local/share/holdfast/config.json", '{"format": 1, "agent": "init"}')
    assert name() == ("init", "store")
    write("holdfast.yaml", "agent: {id: above}")
    assert name() == ("above", "project")
    write("work/holdfast.yaml", "agent: {id: nearer}")
    assert name() == ("nearer", "project")
    other = write("other.yaml", "agent: {id: named}")
    monkeypatch.setenv("HOLDFAST_CONFIG", str(other))
    assert name() == ("named", "project")
    monkeypatch.setenv("HOLDFAST_AGENT", "environment")
    assert name() == ("environment", "environment")
    found = load(other, flags={"agent.id": "flag"})
    assert (found.get("agent.id"), str(found.place("agent.id"))) == ("flag", "--agent")
    monkeypatch.setenv("HOLDFAST_CONFIG", os.devnull)
    assert load().files == [str(tmp_path / ".local/share/holdfast/config.json")]


def test_a_store_that_another_file_names_brings_its_own_config_json(write: Write, tmp_path: Path) -> None:
    write("else/config.json", '{"format": 1, "agent": "there", "hubs": ["http://127.0.0.1:9"]}')
    write("holdfast.yaml", "store: {path: ./else}")
    found = load()
    assert (found.get("agent.id"), found.hubs) == ("there", ("http://127.0.0.1:9",))
    assert str(found.place("agent.id")) == str(tmp_path / "else/config.json")


def test_what_another_user_could_have_put_there_is_not_obeyed(write: Write) -> None:
    path = write("holdfast.yaml", "agent: {id: x}\nhub: {token_command: [id]}")
    (problem,) = load().problems
    assert problem.what.startswith("a command is not taken from a file that was only found")
    assert load(path).problems == [], "named, it is trusted"
    path.write_text("agent: {id: x}")
    path.chmod(0o666)
    found = load()
    assert "everybody may write to it" in found.problems[0].what
    assert not found.has("agent.id")
    path.chmod(0o644)
    if os.geteuid() == 0:
        os.chown(path, 12345, 12345)
        assert "another user's" in load().problems[0].what


def test_what_cannot_be_read_is_a_problem_and_no_traceback(write: Write, tmp_path: Path) -> None:
    (problem,) = load("none.yaml").problems
    assert str(problem) == "none.yaml: cannot be read: No such file or directory"
    (tmp_path / "empty").mkdir()
    (problem,) = load("empty").problems
    assert problem.what.startswith("a folder without holdfast.yaml")
    write(".local/share/holdfast/config.json", "{")
    with pytest.raises(UsageError, match=r"config\.json is not JSON"):
        load()


# -- the files of Commander OS ----------------------------------------------------------------------------------------


def test_an_agents_file_brings_the_two_beside_it(write: Write, tmp_path: Path) -> None:
    agent = write("config/agents/recruiter-001.yaml", AGENT)
    write("config/relay.yaml", RELAY)
    found = load(agent)
    assert (found.get("agent.id"), found.hubs) == ("recruiter-001", ("http://10.0.0.42:8001",))
    write("config/storage_config.yaml", STORAGE)
    assert load(agent).hubs == (), "storage_config.yaml is heard before relay.yaml, and switches its own off"
    with Store.from_config(agent) as store:
        store.put("plan", 1)
        assert (store.agent, store.hubs, store.get("plan")) == ("recruiter-001", (), 1)
    assert (tmp_path / "data/agents/recruiter-001/log.db").exists()


def test_of_a_folder_the_agents_own_file_is_read(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("config/agents/a.yaml", "agent_id: a\nrole: coder\n")
    assert load("config").get("agent.role") == "coder", "the only one"
    write("config/agents/b.yaml", "agent_id: b\nrole: reasoner\n")
    write("config/storage_config.yaml", STORAGE)
    assert load("config").get("agent.role") is None
    assert load("config", agent="b").get("agent.role") == "reasoner"
    monkeypatch.setenv("HOLDFAST_CONFIG", "config")
    monkeypatch.setenv("HOLDFAST_AGENT", "a")
    assert load().get("agent.role") == "coder"
    with Store.from_config(agent="b") as store:
        assert store.agent == "b"


def test_commanders_variable_says_where_the_store_is(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    agent = write("recruiter.yaml", AGENT)
    monkeypatch.setenv("COMMANDER_STORAGE_DIR", str(tmp_path / "zfs"))
    with Store.from_config(agent) as store:
        store.put("k", 1)
    assert (tmp_path / "zfs/agents/recruiter-001/log.db").exists()


def test_an_agent_that_is_switched_off_is_not_opened(write: Write) -> None:
    path = write("off.yaml", "agent_id: x\nenabled: false\n")
    with pytest.raises(UsageError, match=r"agent x is switched off \(.*off.yaml:2:10\)"):
        Store.from_config(path)
    with pytest.raises(UsageError, match="no agent is named"):
        Store.from_config(write("empty.yaml", "store: {path: ./s}"))


# -- what takes effect ------------------------------------------------------------------------------------------------


def test_a_store_is_opened_as_its_file_says(write: Write, tmp_path: Path) -> None:
    path = write(
        "conf/holdfast.yaml",
        "store: {path: ./node, level: critical, cas: [locks], sealed: [notes], redact: true,"
        " key_file: ../keys/ring, passphrase_file:}\nagent: {id: ada}\n"
        "limits: {floor: 1 MB, ballast: 0}\nscan: {every: 0}\n",
    )
    (tmp_path / "keys").mkdir()
    with Store.from_config(path) as store:
        health = store.health()
        assert (health["directory"], health["level"]) == (str(tmp_path / "conf/node"), "critical")
        assert (health["disk"]["floor"], health["disk"]["ballast_wanted"]) == (1 << 20, 0)
        store.put("k", {"api_key": "sk-abcdefghijklmnopqrstuvwx"})
        assert "redacted" in store.get("k")["api_key"]
        store.put("n", "mine", collection="notes")
        assert (tmp_path / "keys/ring").exists(), "the key of sealed collections lies where the file says"
        with pytest.raises(HoldfastError, match="hub"):
            store.put("door", 1, collection="locks")
        assert store._directory.scanner is None
    with Store.from_config(path) as again:
        assert again.get("n", collection="notes") == "mine"


def test_the_awaited_store_has_the_same_door(write: Write) -> None:
    path = write("holdfast.yaml", "store: {path: ./node}\nagent: {id: ada}\n")

    async def work() -> None:
        async with AsyncStore.from_config(path, agent="bob") as store:
            await store.put("k", 1)
            assert (store.agent, await store.get("k")) == ("bob", 1)

    asyncio.run(work())


def test_a_sealed_store_opens_with_a_passphrase_from_a_file_or_a_command(write: Write) -> None:
    write("words", "right words\n")
    plain = "store: {path: ./node, sealed: [notes], %s}\nagent: {id: ada}\n"
    with Store.from_config(write("a.yaml", plain % "passphrase_file: ./words")) as store:
        store.put("n", 1, collection="notes")
    command = f"passphrase_command: ['{sys.executable}', -c, 'print(\"right words\")']"
    with Store.from_config(write("b.yaml", plain % command)) as store:
        assert store.get("n", collection="notes") == 1
    write("words", "other words\n")
    with (
        Store.from_config(write("c.yaml", plain % "passphrase_file: ./words")) as store,
        pytest.raises(Sealed, match="not the key that the sealing keys were wrapped with"),
    ):
        store.get("n", collection="notes")


def test_every_problem_is_told_before_anything_is_made(write: Write, tmp_path: Path) -> None:
    path = write("bad.yaml", "store: {path: ./node, level: best}\nagent: {id: a}\nlimits: {flor: 1}\n")
    with pytest.raises(UsageError) as caught:
        Store.from_config(path)
    assert len(caught.value.context["problems"]) == 2
    assert caught.value.exit_code == 2
    assert not (tmp_path / "node").exists()


# -- secrets ----------------------------------------------------------------------------------------------------------


def counting(tmp_path: Path) -> tuple[str, ...]:
    """A command that prints how often it was run."""
    count = tmp_path / "count"
    code = f"import pathlib; p=pathlib.Path({str(count)!r}); p.open('a').write('x'); print('token', len(p.read_text()))"
    return sys.executable, "-c", code


def test_a_command_is_run_once_and_again_when_it_was_refused(write: Write, tmp_path: Path) -> None:
    command = Command(counting(tmp_path), "hub.token_command")
    assert (command(), command()) == ("token 1", "token 1")
    held = Credential(command)
    assert held.headers() == {"Authorization": "Bearer token 1"}
    held.refresh()
    assert held.headers() == {"Authorization": "Bearer token 2"}


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import sys; print('hunter2', file=sys.stderr); sys.exit(3)", "ended with 3"),
        ("pass", "did not print one line of text"),
        ("print('a\\nb')", "did not print one line of text"),
        ("import sys; sys.stdout.buffer.write(b'\\xff')", "did not print one line of text"),
    ],
)
def test_a_command_that_fails_says_so_and_nothing_else(code: str, why: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        Command((sys.executable, "-c", code), "hub.token_command")()
    assert "hunter2" not in str(caught.value)
    assert code not in str(caught.value), "arguments may hold a secret"
    assert capfd.readouterr().err == ""


def test_a_command_that_is_not_there_or_takes_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="cannot run /none/such: No such file"):
        Command(("/none/such",), "x")()
    monkeypatch.setattr("holdfast.node.configured.COMMAND_S", 0.05)
    with pytest.raises(UsageError, match="took more than"):
        Command((sys.executable, "-c", "import time; time.sleep(60)"), "x")()


def test_a_command_sees_no_shell(write: Write, tmp_path: Path) -> None:
    path = write("f.yaml", "hub: {urls: 'http://127.0.0.1:9', token_command: [echo, $HOME; touch pwned]}")
    found = secret(load(path), "hub", "token")
    assert reveal(found, "token") == "$HOME; touch pwned"
    assert not (tmp_path / "pwned").exists()


def test_a_token_from_the_environment_is_itself(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_TOKEN", "t0")
    assert reveal(secret(load(), "hub", "token"), "token") == "t0"
    monkeypatch.setenv("HOLDFAST_TOKEN_FILE", "x")
    assert "not both" in load().problems[0].what


# -- budgets ----------------------------------------------------------------------------------------------------------

MB = 1 << 20


@pytest.mark.parametrize(
    ("role", "total_mb"),
    [("commander", 116), ("recruiter", 2112), ("reasoner", 628), ("coder", 1120), ("synthesizer", 324)],
)
def test_a_role_has_the_seeds_budget(write: Write, role: str, total_mb: int) -> None:
    found = retention_of(load(write("a.yaml", f"agent_id: a\nrole: {role.title()}\n")))
    assert found is not None
    assert found.max_bytes == total_mb * MB


def test_what_is_said_of_a_cache_overrides_the_role(write: Write) -> None:
    text = "agent_id: a\nrole: coder\n%s"
    found = retention_of(load(write("a.yaml", text % "context_window: 128k")))
    assert found is not None
    assert found.max_bytes == 1024 * MB + 128 * 3 * MB // 2
    found = retention_of(load(write("b.yaml", text % "cache_max_bytes: 2147483648\ncache: {retention_days: 30}")))
    assert found is not None
    assert (found.max_bytes, found.days) == (2 << 30, 30.0)
    more = "cache: {max_bytes: 0, collection_days: {'log-*': 7}, keep: [tasks], wait: 500ms, keep_fetched: false}"
    assert retention_of(load(write("c.yaml", text % more))) == Retention(
        collection_days={"log-*": 7.0}, keep=("tasks",), wait_s=0.5, keep_fetched=False
    )
    assert retention_of(load(write("d.yaml", "agent_id: a\nrole: gardener"))) is None
    (ignored,) = load("d.yaml").ignored
    assert (ignored.path, ignored.place.line) == ("agent.role", 2)
    with pytest.raises(UsageError, match=r"e.yaml:3:20: cache.max_bytes: must be 0 \(no budget\), or at least \d MiB"):
        Store.from_config(write("e.yaml", "store: {path: ./n}\nagent: {id: a}\ncache: {max_bytes: 1 MB}"))


def test_a_store_keeps_to_the_budget_of_its_file_and_no_other_agent_does(write: Write) -> None:
    path = write("holdfast.yaml", "store: {path: ./node}\nagent: {id: ada, role: commander}\n")
    with Store.from_config(path) as store:
        store.put("k", 1)
    written = stored(Path("node"))["retention"]
    assert written["ada"]["max_bytes"] == 116 * MB
    with attached(load(path), make=False):
        bob = store_arguments(load(path), agent=False)
        assert bob["limits"].retention is None

"""`holdfast config`, and that every command goes by what is configured."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema_rs
import pytest

from holdfast.hub.backups import Backups
from holdfast.hub.options import Options
from holdfast.hub.tokens import has_tokens
from tests.cli.conftest import Run, wait_for
from tests.cli.test_hub import Server, server

__all__ = ["server"]


@pytest.fixture
def project(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's file, which nobody has written yet."""
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return home / "holdfast.yaml"


def test_show_tells_what_holds_and_who_said_so(hf: Run, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write_text("store:\n  level: critical\nhub:\n  token_command: [pass, hunter2]\n")
    project.rename(project.parent / "c.yaml")
    monkeypatch.setenv("HOLDFAST_LIMITS_FLOOR", "1 GB")
    result = hf("config", "show", "--origin", "--config", "c.yaml", "--agent", "ada")
    rows = {row.split()[0]: row.split()[1:] for row in result.text.splitlines()}
    assert result.code == 0
    assert rows["store.level"] == ["critical", "c.yaml:2:10"]
    assert rows["limits.floor"] == ["1", "GiB", "$HOLDFAST_LIMITS_FLOOR"]
    assert rows["agent.id"] == ["ada", "--agent"]
    assert rows["serve.port"] == ["8084", "default"]
    assert rows["hub.token_command"][0] == "set"
    assert "hunter2" not in result.text
    told = hf("config", "show", "--said", "--config", "c.yaml", "--json").json
    assert told["keys"]["limits.floor"] == {
        "value": 1 << 30, "level": "environment", "origin": "$HOLDFAST_LIMITS_FLOOR",
    }  # fmt: skip
    assert set(told["keys"]) == {"store.level", "limits.floor", "agent.id", "hub.token_command"}
    assert [Path(name).name for name in told["files"]] == ["c.yaml", "config.json"]


def test_check_lists_every_mistake_and_what_has_no_effect(empty: Run, project: Path) -> None:
    project.write_text("hubs: 1\nserve:\n  port: x\nsync: {retry_max: 10}\n")
    result = empty("config", "check")
    lines = result.err.splitlines()
    assert result.code == 2
    assert lines[:2] == [
        f"{project}:1:1: hubs: unknown key; did you mean 'hub'?",
        f"{project}:3:9: serve.port: a whole number is wanted, got 'x'",
    ]
    assert lines[2] == f"{project}:4:19: sync.retry_max: ignored: no record is ever given up"
    told = empty("config", "check", "--json")
    assert (told.code, told.json["ok"], told.json["files"]) == (2, False, [str(project)])
    assert told.json["problems"][0] == {
        **{"source": str(project), "line": 1, "column": 1, "path": "hubs"},
        **{"what": "unknown key", "meant": "hub"},
    }
    assert [each["path"] for each in told.json["ignored"]] == ["sync.retry_max"]
    project.unlink()
    assert empty("config", "check").code == 0


def test_check_looks_at_files_that_are_named_and_at_nothing_else(
    empty: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write_text("broken: [")
    good, bad = project.parent / "good.yaml", project.parent / "bad.yaml"
    good.write_text("agent_id: a\n")
    bad.write_text("agent_id: [a]\n")
    assert empty("config", "check", good).code == 0
    assert empty("config", "check", good, bad, "none.yaml").err.splitlines()[:2] == [
        f"{bad}:1:11: agent_id: one value is wanted, and this is a list",
        "none.yaml: cannot be read: No such file or directory",
    ]
    monkeypatch.setenv("HOLDFAST_SERV_PORT", "1")
    project.unlink()
    result = empty("config", "check")
    assert (result.code, "did you mean 'HOLDFAST_SERVE_PORT'?" in result.err) == (0, True)


def test_a_mistake_ends_every_command_that_goes_by_it_with_2_and_changes_nothing(hf: Run, project: Path) -> None:
    project.write_text("limits: {flor: 1}\nscan: {every: soon}\n")
    for words in (("put", "k", "1"), ("get", "k"), ("status",), ("serve", "--data", "h"), ("init",), ("token", "ls")):
        result = hf(*words)
        assert result.code == 2, words
        assert f"{project}:1:10: limits.flor: unknown key; did you mean 'floor'?" in result.err
        assert "scan.every" in result.err
        assert result.err.endswith("hint: holdfast config check\n")
    problems = hf("ls", "--json").error["context"]["problems"]
    assert [each["path"] for each in problems] == ["limits.flor", "scan.every"]
    for words in (("version",), ("config", "path"), ("config", "schema"), ("completion", "bash")):
        assert hf(*words).code == 0, words
    project.unlink()
    assert hf("ls", "--names").text == ""


def test_path_shows_the_places_in_their_order(hf: Run, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write_text("agent: {id: x}")
    told = hf("config", "path", "--json").json["places"]
    assert [(each["level"], each["state"]) for each in told] == [
        ("project", "read"), ("store", "read"), ("user", "not there"), ("system", "not there"),
    ]  # fmt: skip
    monkeypatch.setenv("HOLDFAST_CONFIG", "other.yaml")
    rows = [row.split(None, 2) for row in hf("config", "path").text.splitlines()[1:]]
    assert rows[0] == ["named", "other.yaml", "not there"]
    assert rows[1][2] == "passed over"


def test_schema_is_a_schema(empty: Run) -> None:
    made = json.loads(empty("config", "schema").text)
    assert jsonschema_rs.meta.is_valid(made)
    assert not jsonschema_rs.is_valid(made, {"limits": {"flor": 1}})


# -- what takes effect ------------------------------------------------------------------------------------------------


def test_commands_go_by_the_project(empty: Run, project: Path) -> None:
    project.write_text(
        "store: {path: ./here, level: critical}\nagent: {id: ada}\n"
        "hub: {urls: 'http://127.0.0.1:9', enabled: false}\nlimits: {floor: 1 MB, ballast: 0}\n"
    )
    assert empty("init").text.splitlines()[1] == "agent ada, level critical, no hub"
    assert json.loads((project.parent / "here/config.json").read_text()) == {"format": 1, "hubs": [], "agent": "ada"}
    assert empty("put", "k", "1", "--json").json["agent"] == "ada"
    told = empty("status", "--json").json
    assert (told["level"], told["hubs"], told["disk"]["floor"]) == ("critical", [], 1 << 20)
    assert empty("status", "--json", "--hub", "http://127.0.0.1:9").json["hubs"][0]["url"] == "http://127.0.0.1:9"
    project.write_text("store: {path: ./here}\nagent: {enabled: false}\nlimits: {floor: 900 TiB}\n")
    full = empty("put", "k", "2")
    assert (full.code, "is switched off (" in full.err) == (8, True)


def test_a_hub_goes_by_its_file_and_options_are_heard_first(
    server: Server, empty: Run, home: Path, patient: Callable[[float], None]
) -> None:
    (home / "operator").write_text("open sesame")
    (home / "operator").chmod(0o600)
    config = server.home / "hub.yaml"
    config.write_text(
        f"serve:\n  data: ./data\n  port: 1\n  token_file: {home}/operator\n  metric_names: own\n"
        "hub: {token_file: /nobody/reads/this}\n"
    )
    ready = server.home / "ready"
    server.process = server.spawn("serve", "--config", config, "--port", "0", "--ready-file", ready)
    url = json.loads(wait_for(lambda: ready.exists() and ready.read_text()))["url"]
    assert (server.home / "data/hub.db").exists()
    assert empty("inbox", "--hub", url, "--store", "none").code == 10
    assert empty("init", "--agent", "me", "--hub", url, "--token-file", home / "operator").code == 0
    patient(30.0)
    assert empty("put", "k", "1").text == "stored state/k v1; at the hub\n"
    assert empty("doctor", "--json").code == 0
    made = empty("token", "create", "--config", config, "--kind", "person", "--name", "me")
    assert made.code == 0
    assert has_tokens(server.home / "data"), "a command about a hub finds the hub that the file is about"
    assert server.end() == 0


def test_a_hang_up_takes_up_what_it_can_and_a_bad_file_changes_nothing(
    server: Server, empty: Run, home: Path, patient: Callable[[float], None]
) -> None:
    config, log = server.home / "hub.yaml", server.home / "log"
    config.write_text("serve: {log_format: json, log_level: warning, rate: 0}\n")
    ready = server.home / "ready"
    words = ("serve", "--config", config, "--data", server.home / "hub", "--port", "0", "--ready-file", ready)
    with log.open("wb") as out:
        server.process = server.spawn(*words, stderr=out)
    url = json.loads(wait_for(lambda: ready.exists() and ready.read_text()))["url"]
    assert empty("init", "--agent", "me", "--hub", url).code == 0

    def hang_up(text: str, said: str) -> list[str]:
        assert server.process is not None
        before = len(log.read_text())
        config.write_text(text)
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: said in log.read_text()[before:])
        return [json.loads(line)["event"] for line in log.read_text()[before:].splitlines()]

    def refused() -> bool:
        return empty("inbox", "--json").code != 0

    (told,) = hang_up("serve: {rate: many}\nlimits: {floor: 900 TiB}\n", "stays as it was")
    assert told.startswith("the configuration stays as it was: the configuration has a problem | ")
    assert "hub.yaml:1:15: serve.rate: a number is wanted, got 'many'" in told
    patient(30.0)
    assert empty("put", "k", "1").text == "stored state/k v1; at the hub\n", "the floor of the bad file does not hold"
    assert hang_up("limits: {floor: 900 TiB}\n", "read")[1] == "read the configuration again: floor_bytes"
    patient(1.0)
    assert empty("put", "k", "1").text == "stored state/k v2; not at the hub yet: 1 record\n", "the hub is full now"
    found = hang_up("serve: {rate: 0.5, settle: acked, host: '::1'}\nlimits: {floor: 900 TiB}\n", "start: settle")
    assert found == [
        "waits for the next start: serve.host, serve.log_format",
        "read the configuration again: rate",
        "waits for the next start: settle",
    ]
    assert [refused() for _ in range(4)].count(True) > 0, "more than two at once are too many now"
    hang_up("serve: {rate: 0}\n", "read the configuration again")
    patient(30.0)
    assert empty("put", "k", "2").text == "stored state/k v3; at the hub\n"
    assert not any(refused() for _ in range(4))
    found = hang_up("serve: {log_level: debug}\n", "read the configuration again")
    empty("inbox")
    wait_for(lambda: '"route"' in log.read_text())
    assert server.end() == 0


def test_an_agents_file_is_enough_for_a_command(empty: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "config/agents").mkdir(parents=True)
    for name in ("a", "b"):
        (home / f"config/agents/{name}.yaml").write_text(f"agent_id: {name}\nsync: {{batch_size: 500}}\n")
    (home / "config/storage_config.yaml").write_text("storage: {local_data_dir: ./data, enable_htpc: false}\n")
    monkeypatch.setenv("HOLDFAST_CONFIG", "config")
    assert empty("init", "--agent", "a").code == 0
    assert empty("put", "k", "1", "--agent", "a", "--json").json["agent"] == "a"
    assert empty("put", "k", "2", "--agent", "b", "--json").json["agent"] == "b"
    assert sorted(os.listdir(home / "data/agents")) == ["a", "b"]


def test_backups_go_where_the_file_says(hf: Run, project: Path) -> None:
    hf("put", "k", "1")
    project.write_text("backup: {address: 'file:./kept', preset: none}\n")
    assert hf("backup", "create").code == 0
    assert hf("backup", "ls", "--json").json["backups"][0]["records"] == 1
    assert hf("backup", "run", "--json").json["pruned"] is None
    assert (project.parent / "kept").is_dir()
    project.unlink()
    assert hf("backup", "ls").code == 2


def test_a_pause_between_backups_ends_by_the_schedule_as_it_is_then() -> None:
    async def work() -> None:
        core: Any = SimpleNamespace(corpus=SimpleNamespace(inline=True))  # a hub that is the only process on its data
        backups = Backups(core, Options(backup="file:x", backup_every=3600.0))
        backups.verified = 2
        pause = asyncio.create_task(backups._rest())
        await asyncio.sleep(0)
        backups.retune(Options(backup="file:x", backup_every=7200.0))
        await asyncio.sleep(0)
        assert not pause.done()
        backups.retune(Options(backup="file:x", backup_every=0.001))
        await asyncio.wait_for(pause, 30)

    asyncio.run(work())


def test_a_config_json_that_somebody_broke_is_named(hf: Run, home: Path) -> None:
    path = home / ".local/share/holdfast/config.json"
    whole = json.loads(path.read_text())
    for name, value in (("hubs", 5), ("hubs", "http://127.0.0.1:9"), ("hubs", [7]), ("agent", ["me"]), ("level", 1)):
        path.write_text(json.dumps(whole | {name: value}))
        result = hf("ls")
        assert (result.code, name in result.err) == (2, True), (name, value)
        assert str(path) in result.err

"""`holdfast-storage`, `holdfast-integrity` and `holdfast demo integrity`, as a shell sees them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from holdfast.cli import shell
from holdfast.cli.demo import integrity as demo
from holdfast.cli.swarm import integrity_program, storage_program
from tests.cli.conftest import Result, Run

ROOT = Path(__file__).parents[2]
Program = Callable[..., Result]


@pytest.fixture
def data(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that the programs find in the environment."""
    monkeypatch.setenv("HOLDFAST_DATA", str(home / "data"))
    return home / "data"


@pytest.fixture
def hs(data: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Program:
    """Runs `holdfast-storage`."""
    return _runner(storage_program, "holdfast-storage", capfdbinary)


@pytest.fixture
def hi(data: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Program:
    """Runs `holdfast-integrity`."""
    return _runner(integrity_program, "holdfast-integrity", capfdbinary)


def _runner(program: object, name: str, capfdbinary: pytest.CaptureFixture[bytes]) -> Program:
    def run(*words: str | Path) -> Result:
        capfdbinary.readouterr()
        code = shell.carry_out(program, [str(word) for word in words], name)  # type: ignore[arg-type]
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return Result(code, out, err.decode())

    return run


def test_the_programs_are_declared_and_there() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for name in ("holdfast-storage", "holdfast-integrity"):
        module, _, function = scripts[name].partition(":")
        assert callable(getattr(import_module(module), function))


def test_values_are_stored_and_retrieved(hs: Program, data: Path, tmp_path: Path) -> None:
    assert hs("--status").code == 10, "nothing is made by looking"
    assert not data.exists()
    stored = hs("--store", "agent-1/plan", "--data", '{"goal": 1}', "--type", "tasks", "--json")
    assert (stored.code, stored.json["version"], stored.json["integrity_level"]) == (0, 1, "ADVANCED")
    assert json.loads(hs("--retrieve", "agent-1/plan").text) == {"goal": 1}
    assert hs("--retrieve", "agent-1/plan", "--json").json["value"] == {"goal": 1}
    hs("--store", "agent-1/plan", "--data", "plain words")
    assert hs("--retrieve", "agent-1/plan").text == "plain words\n"
    assert json.loads(hs("--retrieve", "agent-1/plan", "--version", "1").text) == {"goal": 1}
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 1000)
    assert hs("--store", "raw", "--file", source).code == 0
    assert hs("--retrieve", "raw").out == source.read_bytes()
    status = hs("--status", "--json")
    assert (status.code, status.json["values"]["tasks"], status.json["total"]) == (0, 1, 2)
    assert hs("--delete", "raw").code == 0
    assert hs("--retrieve", "raw").code == 5


def test_backups_are_made_and_cleaned_up(hs: Program, hi: Program) -> None:
    hs("--store", "v", "--data", "1", "--kind", "file_based")
    assert hs("--backup", "--json").json["written"] == 1
    assert "0 of them new" in hs("--backup").text
    assert hs("--cleanup", "--json").json == {"backups": 0, "copies": 0, "partials": 0}
    drilled = hi("--drill", "--json")
    assert (drilled.code, drilled.json["ok"], drilled.json["proven"]) == (0, True, 1)


@pytest.mark.parametrize(
    "words",
    [
        ("--store", "v"),
        ("--data", "1"),
        ("--status", "--backup"),
        ("--retrieve", "v", "--data", "1"),
        ("--store", "v", "--data", "1", "--type", "poems"),
        ("--store", "../v", "--data", "1"),
    ],
)
def test_a_mistake_on_the_line_is_told(hs: Program, data: Path, words: tuple[str, ...]) -> None:
    hs("--store", "v", "--data", "0")
    wrong = hs(*words, "--json")
    assert wrong.code == 2
    assert wrong.error["hint"]
    assert json.loads(hs("--retrieve", "v").text) == 0


def test_checks_recover_or_say_that_they_cannot(hs: Program, hi: Program, data: Path) -> None:
    for text in ("one", "two"):
        hs("--store", "v", "--data", text, "--kind", "file_based")
    hs("--backup")
    well = hi("--check", "v", "--json")
    assert (well.code, len(well.json["checks"]), well.json["ok"]) == (0, 5, True)
    files = [data / "messages" / "v.json", data / "versions" / "messages" / "v" / "00000002.json"]
    for path in files:
        path.write_bytes(path.read_bytes()[:-30])
    looked = hi("--scan", "--no-recover", "--json")
    assert looked.code == 9
    assert {check["check_type"] for check in looked.json["checks"]} == {"CHECKSUM"}
    assert hs("--retrieve", "v").code == 9
    assert hs("--status").code == 1
    assert hi("--status").code == 9
    scanned = hi("--scan")
    assert (scanned.code, "1 recovered, 0 damaged" in scanned.text) == (0, True)
    assert hs("--retrieve", "v").text == "two\n"
    assert hi("--status", "--json").json["attempts_successful"] == 1
    back = hi("--recover", "v", "--strategy", "version_rollback", "--json")
    assert (back.code, back.json["attempts"][0]["lossy"]) == (0, True)
    assert hs("--retrieve", "v").text == "one\n"
    assert hi("--recover", "v", "--strategy", "prayer").code == 2
    assert hi("--check", "never").code == 5


def test_a_log_that_cannot_be_opened_is_rescued(hs: Program, hi: Program, data: Path) -> None:
    hs("--store", "v", "--data", "kept")
    hs("--backup")
    log = data / "log" / "log.db"
    content = bytearray(log.read_bytes())
    content[110] ^= 1
    log.write_bytes(content)
    assert hi("--scan").code == 9
    assert hi("--rescue").code == 0
    assert hs("--retrieve", "v").text == "kept\n"


def test_start_scans_until_it_is_told_to_end(hs: Program, data: Path) -> None:
    hs("--store", "v", "--data", "1")
    words = [sys.executable, "-c", "from holdfast.cli.swarm import integrity; integrity()"]
    with subprocess.Popen(
        [*words, "--start", "--interval", "0.05", "--json"],
        env=os.environ | {"HOLDFAST_DATA": str(data)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert "every" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        out = process.stdout.read()
        assert process.wait() == 0
    assert json.loads(out)["damaged"] == []


def test_the_demo_plays_every_scenario(empty: Run) -> None:
    played = empty("demo", "integrity", "--json")
    assert [(each["name"], each["ok"]) for each in played.json["scenarios"]] == [
        (name, True) for name in demo.SCENARIOS
    ], played.json
    assert played.code == 0


def test_a_scenario_that_does_not_hold_fails_the_demo(empty: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the damage left out, the scenarios that do it notice."""
    wanted = {
        name: demo.SCENARIOS[name] for name in ("bit flip", "bit flip, from the hub", "version rollback", "drill")
    }
    monkeypatch.setattr(demo, "SCENARIOS", wanted)
    monkeypatch.setattr(demo, "_flip", lambda path, at: None)
    played = empty("demo", "integrity", "--json")
    assert played.code == 9
    assert [each["ok"] for each in played.json["scenarios"]] == [False] * 4

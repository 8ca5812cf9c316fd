"""The demo really runs, counts what is there, and says so when something is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.demo import audit, work
from holdfast.cli.demo.audit import Ledger
from holdfast.cli.demo.command import Play
from holdfast.cli.demo.stage import Stage
from holdfast.cli.settings import Settings
from holdfast.corpus import SqliteCorpus
from holdfast.errors import HoldfastError
from tests.cli.conftest import Run, ended, wait_for

Spawn = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Something for the agents to read."""
    root = tmp_path / "project"
    (root / "deep" / ".hidden").mkdir(parents=True)
    long = "def long():\n" + "    x = 1\n" * 60
    (root / "a.py").write_text(f'"""A."""\n# TO{"DO"}: more\n{long}')
    (root / "deep" / "b.py").write_text("class B:\n    def f(self):\n        return 1\n")
    (root / "deep" / "c.py").write_text("class B:\n    def f(self):\n        return 1\n")
    (root / "deep" / "broken.py").write_text("def (")
    (root / "deep" / ".hidden" / "x.py").write_text("")
    (root / "image").write_bytes(bytes(range(256)))
    return root


def test_the_agents_work_is_real(project: Path) -> None:
    assert work.files(project) == ["a.py", "image", "deep/b.py", "deep/broken.py", "deep/c.py"]
    a = work.read(project, "a.py")
    assert work.inventory(a, "a.py")["lines"] == 63
    assert [f["what"] for f in work.findings(a, "a.py")] == ["wish", "long function", "no docstring"]
    assert list(work.findings(work.read(project, "image"), "image")) == []
    assert work.symbols(work.read(project, "deep/broken.py"), "deep/broken.py") == []
    assert [s["name"] for s in work.symbols(work.read(project, "deep/b.py"), "b.py")] == ["B", "f"]
    assert work.files(project / "a.py") == ["a.py"]
    assert work.read(project / "a.py", "a.py") == a


@pytest.fixture(autouse=True)
def own_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a demo leaves is looked for where no demo of another worker leaves anything."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", str(place))


def left_over() -> set[str]:
    """What a demo would leave in the system's temporary directory."""
    return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith("holdfast-demo-")}


def test_the_demo_loses_nothing_when_its_hub_is_killed(empty: Run, project: Path, tmp_path: Path) -> None:
    before = left_over()
    result = empty("demo", project, "--records", "240", "--rate", "60", "--json")
    assert result.code == 0, result.err
    told = result.json
    assert told["records"] >= 240
    assert (told["agents"], told["nodes"]) == (3, 2)
    assert (told["lost"], told["duplicated"], told["findings"]) == (0, 0, [])
    assert told["chains"] == told["chains_verified"] >= 6
    assert told["sound"] is True
    assert told["waited"] > 0, "the hub was away and nobody noticed"
    assert told["outbox_peak"] > 0
    assert 0 < told["visible_p50"] <= told["visible_p99"]
    assert left_over() == before


def drop_newest(corpus: SqliteCorpus) -> None:
    """A record is gone; what is left is a whole chain."""
    corpus.write(lambda tx: tx.execute("DELETE FROM rec WHERE pos=(SELECT max(pos) FROM rec)"))


def drop_middle(corpus: SqliteCorpus) -> None:
    """A record is gone from the middle of a chain."""
    corpus.write(lambda tx: tx.execute("DELETE FROM rec WHERE pos=(SELECT max(pos) / 2 FROM rec)"))


def change(corpus: SqliteCorpus) -> None:
    """A record holds something else than was written."""
    corpus.write(
        lambda tx: tx.execute(
            "UPDATE rec SET body=?, codec=0, plen=1 WHERE pos=(SELECT max(pos) / 2 FROM rec)", (b"0",)
        )
    )


def test_damage_before_the_count_is_counted(project: Path, tmp_path: Path) -> None:
    """One run; then each kind of damage to a copy of its hub, and a count of each."""
    ledgers: dict[str, Ledger] = {}

    def sabotage(stage: Stage) -> None:
        whole = stage.home / "whole"
        stage.hub_directory.rename(whole)
        site = audit.Site(stage.hub_directory, stage.nodes, stage.written, stage.seen)
        for damage in (drop_newest, drop_middle, change):
            subprocess.run(["cp", "-r", whole, stage.hub_directory], check=True)
            corpus = SqliteCorpus(stage.hub_directory / "hub.db", hub=True)
            damage(corpus)
            corpus.close()
            ledgers[damage.__name__] = audit.audit(site, audit.Times())
            stage.hub_directory.rename(stage.home / damage.__name__)
        journal = stage.seen["server"]
        text = journal.read_bytes()
        whole.rename(stage.hub_directory)
        journal.write_bytes(text + text.splitlines(keepends=True)[-1])
        ledgers["twice"] = audit.audit(site, audit.Times())
        journal.write_bytes(b"".join(text.splitlines(keepends=True)[:-1]))
        ledgers["unseen"] = audit.audit(site, audit.Times())
        journal.write_bytes(text)
        (_, wrote), *_ = stage.written
        text = wrote.read_bytes()
        lines = text.splitlines(keepends=True)
        wrote.write_bytes(b"".join(line for line in lines if line != next(x for x in lines if b'"wrote"' in x)))
        ledgers["stranger"] = audit.audit(site, audit.Times())
        wrote.write_bytes(text)

    home = tmp_path / "home"
    home.mkdir()
    play = Play(Settings(as_json=True), home, project, rate=100, before_count=sabotage)
    assert play.run(60, records=90).sound
    found = {name: (ledger.lost, ledger.duplicated, ledger.sound) for name, ledger in ledgers.items()}
    assert found == {
        "drop_newest": (1, 0, False),
        "drop_middle": (1, 0, False),
        "change": (1, 0, False),
        "twice": (0, 1, False),
        "unseen": (1, 0, False),
        "stranger": (0, 0, False),
    }
    broken = {name for name, ledger in ledgers.items() if ledger.chains_verified < ledger.chains}
    assert broken >= {"drop_middle", "change"}
    assert any(line == "lost              1" for line in ledgers["drop_newest"].lines())


def test_an_unsound_ledger_is_an_integrity_finding(project: Path, tmp_path: Path) -> None:
    facts: dict[str, Any] = dict.fromkeys(Ledger.__struct_fields__, 0) | {"findings": []}
    assert Ledger(**facts).sound
    for wrong in ({"lost": 1}, {"duplicated": 1}, {"chains": 1}, {"findings": ["x"]}):
        assert not Ledger(**(facts | wrong)).sound


def test_agents_that_stand_still_end_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.cli.demo.stage.STILL_S", 0.0)
    with pytest.raises(HoldfastError, match="stand still at 0 records"):
        Stage(tmp_path, tmp_path, rate=1).rest(lambda: False)


def test_ctrl_c_leaves_nothing_behind(project: Path, spawn: Spawn) -> None:
    before = left_over()
    process = spawn("demo", project, "--seconds", "100", "--json", "--keep")
    (new,) = wait_for(lambda: left_over() - before)
    home = Path(tempfile.gettempdir(), new)
    wait_for(lambda: (home / "written-by-editor.jsonl").exists())  # the last to be started
    pid = json.loads((home / "ready").read_text())["pid"]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, b"")
    assert left_over() == before
    assert ended(pid)


def test_children_end_with_a_driver_that_was_killed(project: Path, spawn: Spawn) -> None:
    before = left_over()
    process = spawn("demo", project, "--seconds", "100", "--json")
    (new,) = wait_for(lambda: left_over() - before)
    home = Path(tempfile.gettempdir(), new)
    wait_for(lambda: (home / "written-by-editor.jsonl").exists())  # the last to be started
    pid = json.loads((home / "ready").read_text())["pid"]
    process.kill()
    process.wait()
    wait_for(lambda: ended(pid))
    # The others have no pid to be asked for; while one still writes, its directory cannot be removed.
    wait_for(lambda: subprocess.run(["rm", "-rf", home], capture_output=True).returncode == 0 and not home.exists())


def test_there_must_be_something_to_read(empty: Run, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    assert empty("demo", tmp_path / "nothing").code == 2
    assert empty("demo", tmp_path / "nowhere").code == 2

"""SIGKILL at any moment of a put into files: whole objects, nothing but objects, and nothing lost that returned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("file_actors.py")
SEED = os.environ.get("CHAOS_SEED", "20261121")
both = pytest.mark.parametrize("attributes", ["yes", "no"], ids=["attributes", "sidecars"])


def run(what: str, root: Path, *options: str) -> Any:
    """What the script found; its failed assertion is the test's."""
    command = [sys.executable, str(SCRIPT), what, str(root), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"seed {SEED}: {done.stderr[-3000:]}"
    return json.loads(done.stdout)


def strike(root: Path, attributes: str, kills: int) -> None:
    """Kills so many, and looks after each whether what is left is what must be."""
    found = run("kill", root, "--attributes", attributes, "--kills", str(kills), "--seed", SEED)
    print(found)
    assert found["kills"] == kills
    # Had none been struck in the middle of a put, nothing would have been tested.
    assert found["leftovers"] > kills // 20
    assert found["finished"] > kills


@both
def test_a_few_kills_leave_whole_objects(tmp_path: Path, attributes: str) -> None:
    strike(tmp_path, attributes, 25)


@pytest.mark.long
@both
def test_a_thousand_kills_leave_whole_objects(tmp_path: Path, attributes: str) -> None:
    strike(tmp_path, attributes, 1000)


@both
def test_processes_race_and_one_wins(tmp_path: Path, attributes: str) -> None:
    rounds, processes = 40, 6
    found = run("race", tmp_path, "--attributes", attributes, "--rounds", str(rounds), "--processes", str(processes))
    assert found["codes"] == [0] * processes
    assert len(found["wins"]) == rounds
    assert dict(found["wins"]) == found["held"]
    assert found["count"] == rounds * processes
    assert found["names"] == sorted(["count", *found["held"]])
    assert not (tmp_path / "gone").exists()

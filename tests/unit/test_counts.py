"""Counts of what tests broke: summed over passing tests, written where asked, and put into a page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.promises import BEGIN, END, put

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest
from tests.promises import count, Sums

@pytest.mark.parametrize("n", [1, 2])
def test_passes(count, n):
    count("a thing", tried=n, found_early=n)

def test_fails(count):
    count("a thing", tried=100)
    assert False
"""


@pytest.mark.parametrize("workers", ["2"])
def test_counts_of_passing_tests_are_summed_on_all_workers(tmp_path: Path, workers: str) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    environ = {**os.environ, "HOLDFAST_COUNTS": str(tmp_path / "c.json"), "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    command = [sys.executable, "-m", "pytest", "-q", "-n", workers, "-p", "no:cacheprovider", "."]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert json.loads((tmp_path / "c.json").read_text()) == {"a thing": {"tried": 3, "found_early": 3}}


def test_counts_replace_those_of_the_run_before() -> None:
    page = f"above\n{BEGIN}\nold\n{END}\nbelow\n"
    once = put(page, {"a thing": {"tried": 1200, "found_early": 1199, "harmless": 1}})
    assert "| a thing | 1,200 | 1,199 found early, 1 harmless |" in once
    assert once.startswith("above\n")
    assert once.endswith("below\n")
    assert "old" not in once
    assert put(once, {"a thing": {"tried": 1200, "found_early": 1199, "harmless": 1}}) == once
    with pytest.raises(SystemExit, match="no place"):
        put("nothing", {})

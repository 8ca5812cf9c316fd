"""A test that fails once has a second chance and is named; what fails twice, or in numbers, fails the run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUITE = """
from pathlib import Path

import pytest

BEEN = Path(__file__).with_name("been")


@pytest.fixture
def taken_down_badly():
    yield
    assert BEEN.with_name("down").exists(), BEEN.with_name("down").touch()


def test_good():
    assert not BEEN.with_name("alone").exists(), "what passed is not run again"


def test_once():
    assert BEEN.exists(), BEEN.touch()


def test_in_the_end(taken_down_badly):
    pass


def test_always(request):
    BEEN.with_name("alone").touch()
    assert not request.config.option.numprocesses, "in company"
    assert False, "alone, too"


@pytest.mark.parametrize("number", range(11))
def test_many(number):
    assert number < 0
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A small suite in a place of its own."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_small.py").write_text(SUITE)
    return tmp_path


def run(suite: Path, *arguments: str) -> tuple[int, str]:
    """The exit code of a run, and what it says."""
    # Without the plugins that are installed here it begins in half the time.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment["PYTEST_ADDOPTS"] = "-p xdist.plugin"
    command = [sys.executable, "-m", "tests.again", "-q", *arguments]
    done = subprocess.run(command, cwd=suite, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_what_fails_once_passes_and_is_named(suite: Path) -> None:
    code, said = run(suite, "-n", "2", "-k", "good or once or end")
    told = said.partition("failed in company, passed alone: to be looked into:\n")[2]
    assert code == 0, said
    assert {each.strip() for each in told.splitlines()} == {
        "test_small.py::test_once",
        "test_small.py::test_in_the_end",
    }
    assert "failed twice" not in said


def test_what_fails_twice_fails_the_run_and_nothing_else_is_run_again(suite: Path) -> None:
    run(suite, "-n", "0", "-k", "many and 7")  # on another day, and pytest remembers
    code, said = run(suite, "-n", "1", "-k", "good or once or always")
    assert code == 1, said
    assert "to be looked into:\n    test_small.py::test_once\n\nfailed twice:\n    test_small.py::test_always\n" in said
    assert "in company" in said
    assert "alone, too" in said
    assert "what passed is not run again" not in said


def test_many_failures_and_files_that_cannot_be_read_are_no_race(suite: Path) -> None:
    code, said = run(suite, "-n", "0", "-k", "many")
    assert (code, said.count("11 failed")) == (1, 1), said
    assert "11 tests failed: more than 10 are no race, so none is run again" in said
    (suite / "test_broken.py").write_text("import nothing_of_this_name\n")
    for workers in ("0", "1"):
        code, said = run(suite, "-n", workers, "-k", "once")
        assert code not in (0, 5), said
        assert "alone" not in said.partition("nothing_of_this_name")[2], said

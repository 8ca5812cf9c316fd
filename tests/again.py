"""Runs pytest, and what failed once more, alone: python -m tests.again ARGUMENTS OF PYTEST (make test).

Hundreds of our tests talk to processes of their own, on machines that have other things to do. A race in one of them,
met once in a hundred runs, would refuse work that is good; so what failed has a second chance, as CPython's own tests
have (`regrtest --rerun`). It is given loudly: a test that needed it is named as one to be looked into. What fails twice
fails the run. Where more than a few failed, or a file could not even be read, that is no race: there is no second run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

MOST = 10
"""As many as may have failed for a second run."""
ALONE = "--alone"


class Seen:
    """A plugin of pytest that remembers how each test went, on whichever worker it ran."""

    def __init__(self, only: list[str] | None = None) -> None:
        self.passed: list[str] = []
        self.failed: list[str] = []
        self.unread = False
        self._only = only

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leaves what is to be run again, and nothing that failed on another day."""
        if self._only is not None:
            items[:] = [item for item in items if item.nodeid in self._only]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Notes that a file could not be read."""
        self.unread |= report.failed

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notes how a test went; one may pass and then fail as it is taken down."""
        if report.failed and report.nodeid not in self.failed:
            self.failed.append(report.nodeid)
        elif report.passed and report.when == "call":
            self.passed.append(report.nodeid)


def again(arguments: list[str], failed: list[str]) -> list[str]:
    """Runs these tests once more, one after the other in a new process; the ones that then passed."""
    with tempfile.TemporaryDirectory() as place:
        said = Path(place) / "run.json"
        said.write_text(json.dumps(failed), "utf-8")
        # pytest's own memory of what failed spares it the reading of all other files.
        options = ["--last-failed", "--last-failed-no-failures", "none", "-n", "0"]
        environment = {name: text for name, text in os.environ.items() if name != "HOLDFAST_COUNTS"}  # those are of all
        subprocess.call([sys.executable, "-m", "tests.again", ALONE, str(said), *arguments, *options], env=environment)
        passed: list[str] = json.loads(said.read_text("utf-8"))
    return [each for each in failed if each in passed]


def alone(said: Path, arguments: list[str]) -> int:
    """The second run: reads in a file what is to be run, and writes into it what passed."""
    seen = Seen(json.loads(said.read_text("utf-8")))
    said.write_text("[]", "utf-8")  # in case it does not come to an end
    code = pytest.main(arguments, plugins=[seen])
    said.write_text(json.dumps([each for each in seen.passed if each not in seen.failed]), "utf-8")
    return int(code)


def tell(what: str, tests: list[str]) -> None:
    """Says something of tests so that it is seen at the end of a long run."""
    if tests:
        print(f"\n{what}", *tests, sep="\n    ", flush=True)


def main(arguments: list[str]) -> int:
    """Both runs; the exit code of pytest, or 0 if all that failed passed alone."""
    if arguments[:1] == [ALONE]:
        return alone(Path(arguments[1]), arguments[2:])
    seen = Seen()
    code = int(pytest.main(arguments, plugins=[seen]))
    if code != pytest.ExitCode.TESTS_FAILED or seen.unread or not seen.failed:
        return code
    if len(seen.failed) > MOST:
        print(f"\n{len(seen.failed)} tests failed: more than {MOST} are no race, so none is run again", flush=True)
        return code
    tell("failed, and run once more, alone:", seen.failed)
    passed = again(arguments, seen.failed)
    twice = [each for each in seen.failed if each not in passed]
    tell("failed in company, passed alone: to be looked into:", passed)
    tell("failed twice:", twice)
    return code if twice else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

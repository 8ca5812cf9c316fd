"""A command line in this process: what a shell would see of it, without the cost of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli import main

PROGRAM = (
    # A shell that runs the tests in the background has told its children to ignore Ctrl-C.
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    " from holdfast.cli import main; sys.argv[0] = 'holdfast'; main()"
)


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it said."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """What went to standard output."""
        return self.out.decode()

    @property
    def json(self) -> Any:
        """The one document on standard output."""
        (line,) = self.text.splitlines()
        return json.loads(line)

    @property
    def error(self) -> Any:
        """The error on standard error, in its wire form."""
        return json.loads(self.err.splitlines()[-1])["error"]


Run = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, which is the working directory too."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def empty(home: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Runs a command line where there is no store yet."""

    def run(*words: str | Path) -> Result:
        capfdbinary.readouterr()
        code = main([str(word) for word in words], standalone_mode=False)
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return Result(code, out, err.decode())

    return run


@pytest.fixture
def hf(empty: Run) -> Run:
    """Runs a command line where a store was made."""
    assert empty("init", "--agent", "me").code == 0
    return empty


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets how many seconds a command waits for a hub before it says that what it wrote is not there yet.

    One is enough for people; on a machine that has other things to do a hub may need more.
    """

    def wait(seconds: float) -> None:
        for room in ("data", "mail", "talk"):
            monkeypatch.setattr(f"holdfast.cli.{room}.SHIP_S", seconds)

    return wait


def wait_for(goal: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What `goal` returns once that is true; a test that waits in vain fails."""
    until = time.monotonic() + seconds
    while not (found := goal()):
        assert time.monotonic() < until, "waited in vain"
        threading.Event().wait(0.02)
    return found


def ended(pid: int) -> bool:
    """Whether a process has ended, also if nobody has asked yet how."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z"


def start(*words: str | Path, **options: Any) -> subprocess.Popen[bytes]:
    """A command line as a process of its own."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"} | options.pop("env", {})
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen([sys.executable, "-c", PROGRAM, *map(str, words)], env=environment, **pipes)


@pytest.fixture
def spawn(home: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts command lines as processes, and sees to it that none outlives the test."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*words: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        started.append(start(*words, **options))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()

"""Processes that the tests start, strike and stop; every one of them has ended when its test has, however it ended."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import actors
from tests.forks import Fork

SCRIPT = str(Path(actors.__file__))
PATIENCE_S = 60.0


def until(true: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> Any:
    """What `true` returns once that is something; level-triggered, so nothing can be missed.

    Raises:
        AssertionError: it was not within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.005)
    return found


def free_port() -> int:
    """A port that listens to nobody now; not one of those that outgoing connections are given."""
    low = 32768
    with contextlib.suppress(OSError, ValueError):
        low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(max(2048, low // 2), max(4096, low))
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


class Actor:
    """One process, and what it said on standard error."""

    def __init__(self, errors: Path, *words: str | Path, fresh: bool = False) -> None:
        self.errors = errors
        self._file = errors.open("ab")
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": self._file}
        self.process: Fork | subprocess.Popen[str]
        if fresh:
            self.process = subprocess.Popen([sys.executable, SCRIPT, *map(str, words)], text=True, **pipes)
        else:
            self.process = Fork(SCRIPT, *words, **pipes)

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def order(self, word: str) -> None:
        """Tells it something; one that is dead hears nothing."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{word}\n")
            self.process.stdin.flush()
        except OSError:
            pass

    def signal(self, number: int) -> None:
        """Sends a signal to this very process."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and waits until it is gone; a dead one stays dead."""
        self.process.kill()
        self.wait()

    def wait(self, seconds: float = PATIENCE_S) -> int:
        """How it ended."""
        code = self.process.wait(seconds)
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
        self._file.close()
        return code

    def said(self) -> str:
        """What it said on standard error."""
        return self.errors.read_text(errors="replace")


class Writer(Actor):
    """An agent's process, with its journal."""

    def __init__(self, home: Path, node: Path, agent: str, who: str, *words: str | Path) -> None:
        self.journal = home / f"{who}.journal"
        self.node, self.agent, self.who = node, agent, who
        super().__init__(home / f"{who}.err", "write", node, agent, self.journal, "--who", who, *words)

    def entries(self, what: str | None = None) -> list[dict[str, Any]]:
        """What its journal says, of one kind where given."""
        return [e for e in actors.entries(self.journal) if what in (None, e["what"])]

    def lines(self) -> int:
        """How long its journal is, in bytes: cheap, and it grows with every write."""
        try:
            return self.journal.stat().st_size
        except FileNotFoundError:
            return 0

    def until(self, what: str, count: int = 1, seconds: float = PATIENCE_S) -> list[dict[str, Any]]:
        """Its journal's entries of a kind, once there are so many."""

        def there() -> list[dict[str, Any]] | None:
            found = self.entries(what)
            assert len(found) >= count or self.alive, f"{self.who} ended early:\n{self.said()}"
            return found if len(found) >= count else None

        return until(there, f"{count} × {what} from {self.who}", seconds)

    def stop(self, seconds: float = PATIENCE_S) -> list[dict[str, Any]]:
        """Lets it finish in good order; its journal."""
        self.order("stop")
        code = self.wait(seconds)
        assert code == 0, f"{self.who} ended with {code}:\n{self.said()}"
        return self.entries()


class Served:
    """A hub's directory, served by one process after another at one address."""

    def __init__(self, home: Path, name: str, keep: Callable[[Actor], None], *words: str | Path) -> None:
        self.path = home / name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._ready = home / f"{name}.ready"
        self._errors = home / f"{name}.err"
        self._words = words
        self._keep = keep
        self.actor: Actor | None = None

    def launch(self) -> None:
        """Starts it, and does not wait until it listens."""
        self._ready.unlink(missing_ok=True)
        words = ["hub", self.path, "--port", str(self.port), "--ready-file", self._ready, *self._words]
        # One that takes its disk for another one does so before it loads what looks at it.
        self.actor = Actor(self._errors, *words, fresh="--free-file" in self._words)
        self._keep(self.actor)

    def start(self) -> Served:
        """Starts it; it listens when this returns."""
        self.launch()
        return self.ready()

    def ready(self) -> Served:
        """Waits until it listens."""

        def listens() -> bool:
            assert self.process.alive, f"the hub ended:\n{self.process.said()}"
            return self._ready.exists()

        until(listens, "the hub listens")
        return self

    @property
    def process(self) -> Actor:
        """The newest process."""
        assert self.actor is not None
        return self.actor

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def stop(self) -> None:
        """SIGTERM, and a clean end."""
        self.process.signal(signal.SIGTERM)
        code = self.process.wait()
        assert code == 0, f"the hub ended with {code}:\n{self.process.said()}"


class Cast:
    """Everybody who plays in one test."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.actors: list[Actor] = []

    def writer(self, node: str | Path, agent: str, who: str, *words: str | Path) -> Writer:
        """Starts an agent's process on a node directory below the test's."""
        made = Writer(self.home, self.home / node, agent, who, *words)
        self.actors.append(made)
        return made

    def hub(self, name: str = "hub", *words: str | Path) -> Served:
        """A hub, not started yet."""
        return Served(self.home, name, self.actors.append, *words)

    def journals(self) -> list[Path]:
        """Every journal that was ever begun."""
        return sorted(self.home.glob("*.journal"))

    def end(self) -> None:
        """Nobody is left, also not a stopped one (SIGKILL ends those too)."""
        for actor in self.actors:
            if actor.alive:
                actor.kill()


@pytest.fixture
def cast(tmp_path: Path) -> Iterator[Cast]:
    """Starts processes; all of them have ended when the test has."""
    made = Cast(tmp_path)
    yield made
    made.end()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's proxy, if it has one, is not to be asked for this machine itself."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)

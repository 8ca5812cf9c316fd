"""Starts the demo's processes, kills the hub, brings it back, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from holdfast.cli.demo.child import GO, STOP
from holdfast.errors import HoldfastError

START_S: Final = 30.0
END_S: Final = 40.0
SEEN_S: Final = 15.0
STILL_S: Final = 30.0
TICK_S: Final = 0.02


class Child:
    """One child process: what it told last, by name; its orders; its end.

    Args:
        module: which program, below `holdfast.cli.demo`.
        arguments: for it.
        log: where its messages go, to be shown if it fails.
    """

    def __init__(self, module: str, arguments: list[str], log: Path) -> None:
        self.name = module
        self.facts: dict[str, Any] = {}
        self._log = log
        self._changed = threading.Condition()
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"holdfast.cli.demo.{module}", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # Ctrl-C is for the driver, which then ends them in order
            )
        self._thread = threading.Thread(target=self._listen, name=f"child-{module}", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                told = json.loads(line)
            except ValueError:
                continue
            if isinstance(told, dict):
                with self._changed:
                    self.facts |= told
                    self._changed.notify_all()
        with self._changed:
            self.facts["ended"] = True
            self._changed.notify_all()

    def until(self, fact: str, seconds: float) -> Any:
        """What the child tells under this name, once it does.

        Raises:
            HoldfastError: it ended before, or took too long; the message shows its last words.
        """
        with self._changed:
            self._changed.wait_for(lambda: fact in self.facts or "ended" in self.facts, seconds)
            if fact not in self.facts:
                how = "ended" if "ended" in self.facts else f"did not get to {fact!r} within {seconds:.0f} s"
                raise HoldfastError(f"the demo's {self.name} {how}: {self.last_words()}", hint="holdfast doctor")
            return self.facts[fact]

    def order(self, word: str) -> None:
        """Tells it to begin, or to stop; it does when it is between two writes."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended already; whoever waits for it is told so
            self._process.stdin.write(word + "\n")
            self._process.stdin.flush()

    def terminate(self, seconds: float = 10.0) -> int:
        """Asks it to end with SIGTERM, and returns its code.

        Raises:
            HoldfastError: it did not.
        """
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise HoldfastError(f"the demo's {self.name} does not end: {self.last_words()}") from None

    def end(self, seconds: float = 10.0) -> None:
        """Waits until it has ended by itself; ends it if it does not."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        self.kill()

    def kill(self) -> None:
        """Ends it with SIGKILL, wherever it is; fine if it has ended."""
        self._process.kill()
        self._process.wait()
        self._thread.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def last_words(self) -> str:
        """The last line of its messages."""
        words = self._log.read_text("utf-8", "replace").strip().splitlines()
        return words[-1] if words else "it said nothing"


class Stage:
    """Everything of one demo below one directory; `clear` ends every process.

    Args:
        home: the directory, empty.
        root: what the agents read.
        rate: writes a second of each agent.
    """

    def __init__(self, home: Path, root: Path, rate: float) -> None:
        self.home = home
        self.hub_directory = home / "hub"
        self.nodes = {"laptop": home / "laptop", "server": home / "server"}
        self.written: list[tuple[str, Path]] = []
        self.seen: dict[str, Path] = {}
        self.url = ""
        self.agents: list[Child] = []
        self.readers: list[Child] = []
        self._hub: Child | None = None
        self._root = root
        self._rate = rate
        self._ready = home / "ready"

    def start_hub(self) -> None:
        """Starts the hub, at the address that it had before if there was one; returns once it listens."""
        self._ready.unlink(missing_ok=True)
        port = self.url.rpartition(":")[2].strip("/") or "0"
        arguments = ["--data", str(self.hub_directory), "--port", port, "--ready-file", str(self._ready)]
        self._hub = Child("hub", [*arguments, "--settle", "acked"], self.home / "hub.log")
        deadline = time.monotonic() + START_S
        while not (told := _read(self._ready)):
            if time.monotonic() > deadline or "ended" in self._hub.facts:
                self._hub.until("ready", 0)
            time.sleep(TICK_S)
        self.url = _address(told)

    def kill_hub(self) -> None:
        """SIGKILL: the hub gets no chance to put anything in order."""
        assert self._hub is not None
        self._hub.kill()
        self._hub = None

    def end_hub(self) -> None:
        """SIGTERM: the hub ends in good order."""
        assert self._hub is not None
        self._hub.terminate()
        self._hub.kill()
        self._hub = None

    def start_nodes(self) -> None:
        """Starts the readers and the agents of both nodes; returns once all are at work."""
        for node, path in self.nodes.items():
            journal = self.seen[node] = self.home / f"seen-on-{node}.jsonl"
            self.readers.append(self._child("reader", f"reader-{node}", path, journal))
        for role, node in (("surveyor", "laptop"), ("critic", "laptop"), ("editor", "server")):
            journal = self.home / f"written-by-{role}.jsonl"
            self.written.append((node, journal))
            self.agents.append(self._child("agent", role, self.nodes[node], journal))
        for child in (*self.readers, *self.agents):
            child.until("ready", START_S)
        for agent in self.agents:
            agent.order(GO)

    def _child(self, module: str, role: str, store: Path, journal: Path) -> Child:
        given = {"role": role, "store": str(store), "hub": self.url, "journal": str(journal)}
        given |= {"root": str(self._root), "rate": self._rate}  # type: ignore[dict-item]
        journal.touch()
        return Child(module, [json.dumps(given)], self.home / f"{role}.log")

    @property
    def records(self) -> int:
        """How many records the agents have written at least; they tell it in steps, and have written more meanwhile."""
        return sum(int(child.facts.get("count", 0)) for child in self.agents)

    def rest(self, goal: Callable[[], bool]) -> None:
        """Waits until the goal is reached.

        Raises:
            HoldfastError: an agent or a reader has failed meanwhile, or the agents stand still.
        """
        seen, since = -1, 0.0
        while not goal():
            if self.records != seen:
                seen, since = self.records, time.monotonic()
            elif time.monotonic() - since > STILL_S:
                raise HoldfastError(f"the demo's agents stand still at {seen:,} records", hint="holdfast doctor")
            for child in (*self.agents, *self.readers):
                if "ended" in child.facts or "failed" in child.facts:
                    raise HoldfastError(f"the demo's {child.name} ended early: {child.last_words()}")
            time.sleep(TICK_S)

    def finish(self) -> None:
        """Stops the agents, and gives the hub and both readers time to get everything; the audit says if they did."""
        for agent in self.agents:
            agent.order(STOP)
        for agent in self.agents:
            agent.until("flushed", END_S)
        written = sum(path.read_bytes().count(b'"what":"wrote"') for _, path in self.written)
        deadline = time.monotonic() + SEEN_S
        while min(reader.facts.get("count", 0) for reader in self.readers) < written and time.monotonic() < deadline:
            time.sleep(TICK_S)

    def end_nodes(self) -> None:
        """Ends the readers and agents in good order."""
        for reader in self.readers:
            reader.order(STOP)
        for child in (*self.readers, *self.agents):
            child.until("done", END_S)
            child.end()

    def clear(self) -> None:
        """Ends every process, however it stands."""
        for child in (*self.agents, *self.readers, *([self._hub] if self._hub else [])):
            child.kill()


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""


def _address(told: str) -> str:
    try:
        found = json.loads(told)
    except ValueError:
        return told
    return str(found["url"]) if isinstance(found, dict) else told

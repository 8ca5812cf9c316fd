"""Holdfast: `holdfast serve`, a node that writes with `Store.put`, another node that follows with `Store.changes`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.harness import Missing, Wrong
from bench.neighbours import served
from bench.neighbours.served import Begin, Body, Plan
from bench.processes import PATIENCE_S, Process

BATCH = 100
FLUSH_S = 120.0
COMMAND = [sys.executable, "-c", "import sys; from holdfast.cli import main; main()"]


class Server(served.Server):
    """The hub on a port that it picks, synced to disk as it always is."""

    def __init__(self, folder: Path, env: Mapping[str, str], port: int = 0) -> None:
        try:
            import holdfast.hub  # noqa: F401
        except ImportError as absent:
            raise Missing(f"the hub needs {absent.name}") from absent
        ready = folder / "ready"
        ready.unlink(missing_ok=True)
        where = [] if "HOLDFAST_DATABASE" in env else ["--data", folder / "hub"]
        words = ["serve", *where, "--port", port, "--ready-file", ready]
        self.process = Process([*COMMAND, *map(str, words)], folder, env=env)
        self.address = self._address(ready)

    def _address(self, ready: Path) -> str:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and self.process.popen.poll() is None:
            text = ready.read_text("utf-8") if ready.exists() else ""
            if text.endswith("\n"):
                return str(json.loads(text)["url"])
            time.sleep(0.005)
        self.process.stop()
        raise Wrong(f"the hub does not listen:\n{self.process.said()}")


class Client(served.Client):
    """Nodes with the usual settings."""

    def follow(self) -> Iterator[Body | None]:
        """The hub's feed, on a node of its own."""
        from holdfast import Store

        with Store(self.folder / "reader", "reader", hub=self.address) as store:
            changes = store.changes("now")
            yield None
            for version in changes:
                yield version.value

    def write(self, plan: Plan, begin: Begin) -> int:
        """`put`: durable here at once, shipped behind the writer's back."""
        from holdfast import Store

        places = [self.folder / f"writer-{number % plan.nodes}" for number in range(plan.agents)]
        stores = [Store(place, f"agent-{number}", hub=self.address) for number, place in enumerate(places)]
        for store in stores:
            store.put("hello", 0, collection="warm")
            if not store.flush(PATIENCE_S):
                raise Wrong("the hub takes nothing")
        begin()
        written = served.paced(plan, lambda agent, made: stores[agent].put(f"key-{made['n']}", made))
        self._flush(stores)
        stores[0].put("last", served.last_body(written))
        self._flush(stores)
        for store in stores:
            store.close()
        return written

    def catch_up(self, count: int, begin: Begin) -> None:
        """Written while there is no hub; then the same directory is opened with one."""
        from holdfast import Store

        names = [f"agent-{number}" for number in range(10)]
        place, share = self.folder / "writer", count // len(names)
        for number, name in enumerate(names):
            with Store(place, name, hub=[]) as store:
                first = number * share
                until = count if number == len(names) - 1 else first + share
                for lot in range(first, until, BATCH):
                    with store.batch() as batch:
                        for each in range(lot, min(lot + BATCH, until)):
                            batch.put(f"key-{each}", served.body(each))
        begin()
        stores = [Store(place, name, hub=self.address) for name in names]
        self._flush(stores)
        for store in stores:
            store.close()

    def _flush(self, stores: list) -> None:  # type: ignore[type-arg]
        for store in stores:
            if not store.flush(FLUSH_S):
                raise Wrong("the hub did not acknowledge everything in time")

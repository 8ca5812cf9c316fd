"""The demo's agents: one process each. They know files and one another, and nothing of the hub's health.

surveyor   walks the files: an inventory, and what stands in them; tells the critic where to look
critic     reads what it was pointed to: findings; tells the editor, and people when it is bad
editor     on another node: puts together what the others found, and reports to people
"""

from __future__ import annotations

import itertools
import json
import queue
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from holdfast.cli.demo import work
from holdfast.cli.demo.child import Journal, Orders, tell
from holdfast.errors import HoldfastError
from holdfast.node.store import Store

DEPTH_EVERY_S = 0.05
FLUSH_S = 30.0


class Stopped(Exception):
    """The driver said stop: ends whatever the agent is in the middle of, between two writes."""


class Agent:
    """One agent at work: writes with a pace, journals what returned, and hears what others write."""

    def __init__(self, role: str, store: Store, journal: Journal, orders: Orders, *, root: Path, rate: float) -> None:
        self.role = role
        self.root = root
        self.heard: queue.Queue[Any] = queue.Queue()
        self.names = work.files(root)
        self._store = store
        self._journal = journal
        self._orders = orders
        self._step = 1 / rate
        self._next = time.monotonic()
        self._looked = 0.0

    def put(self, collection: str, key: str, value: Any) -> None:
        """Sets a key, and journals that it returned."""
        self._pace()
        begun = time.monotonic_ns()
        self._journal.wrote(begun, self._store.put(key, value, collection=collection))

    def post(self, body: Any, **fields: Any) -> None:
        """Posts a message, and journals that it returned."""
        self._pace()
        begun = time.monotonic_ns()
        with self._store.batch() as batch:
            batch.post(body, **fields)
        self._journal.wrote(begun, batch.versions[0])

    def listen(self, **which: Any) -> None:
        """Hears what others write from here on, in a thread of its own; `heard` has it."""
        changes = self._store.changes(None, **which)

        def run() -> None:
            for version in changes:
                self.heard.put(version)

        threading.Thread(target=run, name="listen", daemon=True).start()

    def read(self, name: str) -> bytes:
        """A file's bytes."""
        return work.read(self.root, name)

    def _pace(self) -> None:
        now = time.monotonic()
        if now - self._looked >= DEPTH_EVERY_S:
            self._looked = now
            self._journal.note(what="depth", at=time.monotonic_ns(), depth=self._store.outbox_depth)
            tell(count=self._journal.records)
        self._next = max(self._next + self._step, now - 1.0)
        if self._orders.stopped.wait(max(0.0, self._next - now)):
            raise Stopped

    def finish(self) -> None:
        """Waits until the hub has everything, and says how that went."""
        flushed = self._store.flush(FLUSH_S)
        self._journal.note(what="depth", at=time.monotonic_ns(), depth=self._store.outbox_depth)
        tell(done=True, flushed=flushed)


def surveyor(agent: Agent) -> None:
    """Walks the files again and again: each is an inventory entry, each function in it a symbol."""
    for survey in itertools.count(1):
        types: Counter[str] = Counter()
        lines = 0
        for at, name in enumerate(agent.names):
            data = agent.read(name)
            entry = work.inventory(data, name)
            agent.put("inventory", name, entry)
            types[entry["type"]] += 1
            lines += entry["lines"]
            if at % 5 == 0:
                agent.post({"look at": agent.names[at : at + 5]}, to="critic", task=f"survey-{survey}")
            for symbol in work.symbols(data, name):
                agent.put("symbols", f"{name}:{symbol['line']}:{symbol['name']}", symbol)
        text = f"survey {survey}: {len(agent.names)} files, {lines:,} lines; {_most(types)}"
        agent.post(text, to="people", kind="report", task=f"survey-{survey}")


def critic(agent: Agent) -> None:
    """Reads what the surveyor points to; when nothing comes (no hub, or all read), goes through the files by itself."""
    agent.listen(agent="surveyor", collection="messages")
    own = itertools.cycle(agent.names)
    kinds: Counter[str] = Counter()
    for seen, name in enumerate(_pointed_to(agent, own), start=1):
        data = agent.read(name)
        found = list(work.findings(data, name))
        kinds.update(finding["what"] for finding in found)
        agent.put("findings", name, found)
        long = [finding["text"] for finding in found if finding["what"] == "long function"]
        agent.post({"file": name, "findings": len(found)}, to="editor", task=name)
        if long:
            agent.post(f"{name}: {'; '.join(long[:3])}", to="people", kind="report", priority="high", task=name)
        if seen % 20 == 0:
            agent.post(f"{seen} files read: {_most(kinds)}", to="people", kind="report")


def _pointed_to(agent: Agent, own: Iterator[str]) -> Iterator[str]:
    while True:
        try:
            message = agent.heard.get_nowait()
        except queue.Empty:
            yield next(own)
            continue
        names = message.value["body"].get("look at", ()) if isinstance(message.value.get("body"), dict) else ()
        yield from names


def editor(agent: Agent) -> None:
    """Puts together what the surveyor found: totals by type, and files that are the same; indexes words meanwhile."""
    agent.listen(agent="surveyor", collection="inventory")
    own = itertools.cycle(agent.names)
    known: dict[str, dict[str, Any]] = {}
    same: dict[str, set[str]] = defaultdict(set)
    for turn in itertools.count(1):
        while not agent.heard.empty():
            entry = agent.heard.get()
            known[entry.key] = entry.value
            names = same[entry.value["sha256"]]
            names.add(entry.key)
            if len(names) == 2:
                agent.post({"the same": sorted(names)}, to="people", kind="report", task=entry.key)
        name = next(own)
        words = Counter(word for word in agent.read(name).decode("utf-8", "replace").split() if word.isidentifier())
        agent.put("words", name, dict(words.most_common(20)))
        if turn % 10 == 0:
            for kind in sorted({entry["type"] for entry in known.values()}):
                mine = [entry for entry in known.values() if entry["type"] == kind]
                total = {"files": len(mine), "lines": sum(entry["lines"] for entry in mine)}
                agent.put("totals", kind, total)
        if turn % 50 == 0:
            twice = sum(len(names) > 1 for names in same.values())
            text = f"{len(known)} files known from the surveyor, {twice} of them more than once"
            agent.post(text, to="people", kind="report")


def _most(counted: Counter[str]) -> str:
    return ", ".join(f"{number} {what}" for what, number in counted.most_common(4)) or "nothing"


ROLES: dict[str, Callable[[Agent], None]] = {"surveyor": surveyor, "critic": critic, "editor": editor}


def main(given: dict[str, Any]) -> None:
    """Runs one agent until the driver says stop."""
    orders = Orders()
    journal = Journal(Path(given["journal"]))
    role = given["role"]
    with Store(given["store"], agent=role, hub=given["hub"]) as store:
        agent = Agent(role, store, journal, orders, root=Path(given["root"]), rate=given["rate"])
        tell(ready=True)
        orders.begun.wait()
        try:
            ROLES[role](agent)
        except Stopped:
            pass
        except HoldfastError as error:
            journal.note(what="failed", error=error.message)
            tell(failed=error.message)
        agent.finish()
        journal.close()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

"""Processes that work on a commander's board, to be run as a script; what they did is in a journal.

worker.py work DIR NAME JOURNAL THREADS [HUB]    claims and completes until no task is left
worker.py hold DIR NAME JOURNAL LEASE_S          claims one task, and then does nothing, for ever
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path
from typing import Any

LEASE_S = 60.0
PAUSE_S = 0.005


def note(journal: Path, *words: str) -> None:
    """Appends a line, whole, whoever else does."""
    with journal.open("ab", buffering=0) as file:
        file.write(" ".join(words).encode() + b"\n")


def lines(journal: Path) -> list[list[str]]:
    """What the journal says so far."""
    return [line.split() for line in journal.read_text().splitlines()] if journal.exists() else []


async def work(storage: Any, name: str, journal: Path) -> None:
    """Claims and completes until nothing is left to be done."""
    while True:
        task = await storage.claim_task(name, LEASE_S)
        if task is not None:
            note(journal, "ran", task["id"], name)
            await storage.complete_task(task, name)
        elif not await storage.get_active_tasks(limit=1):
            return
        else:
            await asyncio.sleep(PAUSE_S)


def main(what: str, directory: str, name: str, journal: Path, number: str, hub: str = "") -> None:
    """What the arguments say."""
    from holdfast.agents import CommanderStorage
    from holdfast.node.directory import Limits

    where: dict[str, Any] = {"htpc_url": hub, "shared": True} if hub else {}
    with CommanderStorage(directory, limits=Limits(floor_bytes=0, ballast_bytes=0), **where) as storage:
        if what == "hold":
            task = asyncio.run(storage.claim_task(name, float(number)))
            assert task is not None
            note(journal, "held", task["id"], name)
            threading.Event().wait()
        each = [
            threading.Thread(target=lambda who: asyncio.run(work(storage, who, journal)), args=(f"{name}-{n}",))
            for n in range(int(number))
        ]
        note(journal, "ready", "-", name)
        while not journal.with_suffix(".go").exists():
            time.sleep(PAUSE_S)
        for thread in each:
            thread.start()
        for thread in each:
            thread.join()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4]), *sys.argv[5:])

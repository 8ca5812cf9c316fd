"""The other side of `processes.child`: `python -m bench.child ROLE PLAN`, one JSON object on the last line."""

from __future__ import annotations

import gc
import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from bench import material
from bench.neighbours.served import LAST, Body, Client, Plan


def say(**words: Any) -> None:
    """One line to the parent."""
    print(json.dumps(words), flush=True)


def client(plan: dict[str, Any]) -> Client:
    """The contestant's client."""
    found = import_module(f"bench.neighbours.{plan['hub']}")
    made: Client = found.Client(plan["address"], Path(plan["folder"]))
    return made


def begin() -> None:
    """Says that all is ready and waits to be told."""
    gc.collect()
    say(ready=True)
    sys.stdin.readline()


class Witness:
    """Compares what comes with what was written, and remembers when it came."""

    def __init__(self, count: int | None) -> None:
        self._due = count
        self._seen: set[int] = set()
        self.late_ns: dict[int, int] = {}
        self.last_ns = 0

    def see(self, body: Body, now: int) -> bool:
        """Takes a body; True when all of them have come.

        Raises:
            ValueError: it is not what was written, or it came twice.
        """
        number, began = body.get("n"), body.pop("t0", None)
        if number == LAST:
            self._due = body["written"]
        elif number is not None and began is not None:
            if body != material.message(number) or number in self._seen:
                raise ValueError(f"body {number} came {'twice' if number in self._seen else 'changed'}: {body!r:.300}")
            self._seen.add(number)
            self.late_ns[number] = now - began
            self.last_ns = now
        return self._due is not None and len(self._seen) >= self._due


def read(plan: dict[str, Any]) -> None:
    """Follows a hub until everything has come: when the last one did, and how late each was."""
    witness, clock = Witness(plan.get("count")), time.monotonic_ns
    for body in client(plan).follow():
        if body is None:
            begin()
        elif isinstance(body, dict) and witness.see(body, clock()):
            break
    late = [witness.late_ns[number] for number in sorted(witness.late_ns)]
    say(last_ns=witness.last_ns, late_ns=late if plan.get("each") else [], seen=len(late))


def write(plan: dict[str, Any]) -> None:
    """Writes at a rate."""
    before = 0.0

    def go() -> None:
        nonlocal before
        begin()
        before = time.process_time()

    written = client(plan).write(msgspec.convert(plan["plan"], Plan), go)
    say(written=written, cpu=time.process_time() - before)


def catch_up(plan: dict[str, Any]) -> None:
    """Ships what has waited."""
    began = 0

    def go() -> None:
        nonlocal began
        begin()
        began = time.monotonic_ns()

    client(plan).catch_up(plan["count"], go)
    say(began_ns=began, acked_ns=time.monotonic_ns())


def play(plan: dict[str, Any]) -> None:
    """Is one agent among ten; see `bench.agents`."""
    import_module("bench.agents").play(plan)


ROLES = {"read": read, "write": write, "catch_up": catch_up, "play": play}

if __name__ == "__main__":
    ROLES[sys.argv[1]](json.loads(sys.argv[2]))

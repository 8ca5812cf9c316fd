"""What the demo's child processes have in common: orders from the driver, a journal for the audit, a pace.

A child lives no longer than its driver: when its standard input ends, so does it.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from holdfast import codec
from holdfast.log.versions import Version

GO = "go"
STOP = "stop"


class Orders:
    """Listens to the driver on standard input; `begun` and `stopped` are set when it says so."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.stopped = threading.Event()
        threading.Thread(target=self._listen, name="orders", daemon=True).start()

    def _listen(self) -> None:
        for line in sys.stdin:
            if line.strip() == GO:
                self.begun.set()
            elif line.strip() == STOP:
                self.begun.set()
                self.stopped.set()
        # The driver is gone: whatever we would still do, nobody would count. No clean-up can be owed to anybody.
        if not self.stopped.is_set():
            os._exit(1)


def tell(**facts: Any) -> None:
    """Tells the driver something."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


class Journal:
    """A child's own record of what happened to it: the evidence that the audit holds against the hub."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._lock = threading.Lock()
        self.records = 0  # of which a line tells; other lines tell how deep the outbox is

    def note(self, **facts: Any) -> None:
        """Writes one line; it is with the system when this returns."""
        line = msgspec.json.encode(facts) + b"\n"
        with self._lock:
            self._file.write(line)
            self.records += "seq" in facts

    def wrote(self, begun: int, made: Version) -> None:
        """A write that returned: which record it became, and the digest of what was given."""
        done = time.monotonic_ns()
        self.note(
            what="wrote",
            begun=begun,
            done=done,
            agent=made.agent,
            stream=made.stream,
            seq=made.seq,
            link=made.etag,
            digest=digest(made.value),
        )

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def digest(value: Any) -> str:
    """The SHA-256 of what a value is stored as."""
    fmt, payload = codec.serialise(value)
    return hashlib.sha256(bytes([fmt]) + payload).hexdigest()


def entries(path: Path) -> list[dict[str, Any]]:
    """What a journal says; a last line that was cut off says nothing."""
    found = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        found.append(msgspec.json.decode(line))
    return found

"""A hub in a process of its own, to be killed and started again at the same address; and waits that end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.forks import Fork

DEADLINE_S = 30.0
SERVE = (
    "import json, sys; from holdfast.hub.serve import serve; how = json.loads(sys.argv[4]);"
    " serve(None if 'database' in how else sys.argv[1], port=int(sys.argv[2]), ready_file=sys.argv[3], **how)"
)


def until(met: Callable[[], object], what: str, seconds: float = DEADLINE_S) -> None:
    """Returns when `met()` is true; fails when it is not within the deadline."""
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, f"waited {seconds:.0f} s in vain until {what}"
        time.sleep(0.005)


class HubProcess:
    """`holdfast serve` of one directory (none, with a `database`).

    Args:
        directory: the hub's.
        token: its operator's; empty: it asks for none.
        fresh: start it as a user does, in a new interpreter, not as a fork: where the start or the memory is looked at.
        options: as `serve` takes them.
    """

    def __init__(self, directory: Path, token: str = "", *, fresh: bool = False, **options: Any) -> None:
        self.directory = directory
        self.options = {"settle": "acked", "token": token or None, **options}
        self.port = 0
        self._ready = directory.with_suffix(".ready")
        self._fresh = fresh
        self._process: Fork | subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Its address; the same for every start."""
        return f"{'https' if self.options.get('tls_cert') else 'http'}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its process id, while it runs."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Starts it and waits until it listens."""
        self._ready.unlink(missing_ok=True)
        words = ["-c", SERVE, str(self.directory), str(self.port), str(self._ready), json.dumps(self.options)]
        process: Fork | subprocess.Popen[bytes]
        if self._fresh:
            process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)
        else:
            process = Fork(*words, stdout=subprocess.DEVNULL)
        self._process = process
        until(lambda: self._ready.exists() or process.poll() is not None, "the hub listens")
        assert process.poll() is None, "the hub did not start"
        self.port = json.loads(self._ready.read_text())["port"]

    def signal(self, number: int) -> None:
        """Sends it a signal."""
        assert self._process is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """Ends it without a word (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def ended(self) -> int:
        """Waits until it ends by itself; its exit code."""
        assert self._process is not None
        code = self._process.wait(DEADLINE_S)
        self._process = None
        return code

    def stop(self) -> None:
        """Ends it in good order."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(20)
            self._process = None

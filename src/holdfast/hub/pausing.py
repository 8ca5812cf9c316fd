"""A hub that pauses: its files are closed, an errand is done with them by another process, and it is opened again.

Meanwhile the listening socket stays: who asks waits, and is answered when the hub is back.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Final

import msgspec

from holdfast.hub import errands
from holdfast.hub.errands import Errand, Said
from holdfast.hub.systemd import notify

logger = logging.getLogger(__name__)

ALIVE_S: Final = 5.0
"""How often the service manager is told that this process lives, as no loop turns meanwhile."""


def carry_out(errand: Errand) -> Said | None:
    """Does an errand while nobody serves the hub; what came of it, or None: this process is to end.

    A signal to end breaks the errand off. Each of them may be broken off at any moment: what was there stays, or what
    was to come is there, and to ask for it again finishes it.
    """
    logger.warning("the hub pauses: %s", errand.kind)
    child = subprocess.Popen([sys.executable, "-c", errands.RUN], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with _ending(child) as ended:
        given: bytes | None = msgspec.json.encode(errand)
        while True:
            try:
                out, _ = child.communicate(given, timeout=ALIVE_S)
                break
            except subprocess.TimeoutExpired:
                given = None  # it has been sent; what was read so far is kept
                notify("WATCHDOG=1")
    if ended.is_set():
        return None
    last = Said(error=f"it ended with code {child.returncode}; the hub's log says more")
    for line in out.splitlines():
        with contextlib.suppress(msgspec.MsgspecError):
            said = msgspec.json.decode(line, type=Said)
            if said.result is not None or said.error:
                last = said
    logger.warning("the hub goes on: %s", last.error or "done")
    return last


@contextlib.contextmanager
def _ending(child: subprocess.Popen[bytes]) -> Iterator[threading.Event]:
    """Ends the child, and says so, when this process is told to end."""
    ended = threading.Event()

    def end(*_: object) -> None:
        ended.set()
        child.terminate()

    if threading.current_thread() is not threading.main_thread():  # nobody else gets signals
        yield ended
        return
    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

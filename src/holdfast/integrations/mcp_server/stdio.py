"""One client at standard input and output, as assistants start a server. Only the protocol goes to the output."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from typing import Final

from holdfast.integrations.mcp_server.desk import Desks
from holdfast.integrations.mcp_server.door import stdio_server
from holdfast.integrations.mcp_server.server import Protocol

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def serve(protocol: Protocol, desks: Desks) -> None:
    """Serves until the client closes its end, or a signal comes.

    Args:
        protocol: what is answered.
        desks: closed when a signal comes; else whoever opened them does that.
    """
    asyncio.run(_run(protocol, desks))


async def _run(protocol: Protocol, desks: Desks) -> None:
    loop = asyncio.get_running_loop()

    def leave() -> None:
        # The thread that reads the input would go on waiting for its next line: nobody can wake it.
        threading.Thread(target=_end, args=(desks,)).start()

    for number in _SIGNALS:
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # not in a main thread, or no POSIX
            loop.add_signal_handler(number, leave)
    async with stdio_server() as (incoming, outgoing):
        try:
            await protocol.server.run(incoming, outgoing, protocol.options())
        finally:
            protocol.notices.stop()


def _end(desks: Desks) -> None:
    try:
        desks.close()
    finally:
        os._exit(0)

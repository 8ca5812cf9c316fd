"""How a process that writes tells the process that ships: a datagram to a socket in the node's directory."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from pathlib import Path
from typing import Final

_PATH_MAX: Final = 100


class Address:
    """Where the shipping process of a directory hears knocks: a socket in the directory, private like it.

    Args:
        home: the directory.
    """

    def __init__(self, home: Path) -> None:
        self._path = str(home / "ship.sock")
        self._fd = -1
        if len(self._path.encode()) > _PATH_MAX:
            # The address of a unix socket is at most 107 bytes; Linux can be told a shorter way there.
            self._fd = os.open(home, os.O_RDONLY | os.O_CLOEXEC) if sys.platform == "linux" else -1
            self._path = f"/proc/self/fd/{self._fd}/ship.sock" if self._fd >= 0 else ""

    def listen(self, ear: socket.socket) -> None:
        """Has the socket hear knocks from now on."""
        if self._path:
            with contextlib.suppress(OSError):  # then others' writes are found by looking, within 200 ms
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path)
                ear.bind(self._path)

    def knock(self, ear: socket.socket) -> None:
        """Tells the process that ships that there is something to ship."""
        if self._path:
            with contextlib.suppress(OSError):
                ear.sendto(b"!", self._path)

    def leave(self, listening: bool) -> None:
        """Forgets the address; whoever listened there takes it away."""
        if listening and self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

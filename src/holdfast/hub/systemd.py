"""What systemd is told by a hub: the unit that runs it, that it is ready, that it lives, that it stops."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

PROGRAM: Final = "/opt/holdfast/bin/holdfast"
"""Where docs/operations.md installs it."""
_UNIT: Final = """\
# The hub as a service of systemd: `holdfast serve --print-unit` prints this file.
# The token lies in /etc/holdfast/token, readable by root alone; systemd hands it over.
[Unit]
Description=Holdfast hub
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
DynamicUser=yes
StateDirectory=holdfast
StateDirectoryMode=0700
LoadCredential=token:/etc/holdfast/token
Restart=on-failure
RestartSec=1
TimeoutStopSec=15
WatchdogSec=30
LimitNOFILE=65536
UMask=0077

NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
PrivateDevices=yes
PrivateTmp=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
CapabilityBoundingSet=
SystemCallArchitectures=native
SystemCallFilter=@system-service

[Install]
WantedBy=multi-user.target
"""


def unit(options: Sequence[str] = (), *, program: str = PROGRAM) -> str:
    """The text of a unit that serves what lies in systemd's state directory, or in a database if the options name one.

    Args:
        options: of `holdfast serve`, besides the data directory, the token and the log's form.
        program: the absolute path of `holdfast`.
    """
    data = [] if "--database" in options else ["--data", "%S/holdfast"]
    token = ["--token-file", "${CREDENTIALS_DIRECTORY}/token"]
    words = [program, "serve", *data, *token, "--log-format", "json"]
    return _UNIT.format(command=" ".join([*words, *(shlex.quote(each).replace("%", "%%") for each in options)]))


def program_here() -> str:
    """The path of the `holdfast` that runs; of a usual installation where it was started otherwise."""
    path = Path(sys.argv[0])
    return str(path.absolute()) if path.name == "holdfast" and path.is_file() else PROGRAM


def notify(state: str) -> None:
    """Tells the service manager, if one started us: ``READY=1``, ``WATCHDOG=1``, ``STOPPING=1``."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
        line.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
        line.sendall(state.encode())


async def watch() -> None:
    """Says that the event loop turns, twice as often as the service manager wants to hear it; for ever, or not at all
    where nobody asked."""
    wanted, for_whom = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not wanted.isdigit() or not int(wanted) or for_whom not in ("", str(os.getpid())):
        return
    import asyncio

    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(int(wanted) / 2_000_000)

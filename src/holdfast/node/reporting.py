"""What a node says of itself with each hello, for people who watch: caches, disk, what it owes, what was refused."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from typing import Any, Final

from holdfast import wire
from holdfast.errors import HoldfastError
from holdfast.log import OpenLog
from holdfast.node.directory import Directory
from holdfast.node.outbox_store import depth
from holdfast.node.room import taken, told

REFUSED_MAX: Final = 20
SAMPLE: Final = 1_000
"""Of what waits for a hub, so many bodies are measured; the others are taken to be like them."""
REASON_MAX: Final = 300


def report(directory: Directory, logs: Iterable[OpenLog], hub: str) -> wire.Report:
    """How a node is; what cannot be read now is left out, as shipping must not wait for it.

    Args:
        directory: the node's.
        logs: those that it ships.
        hub: the address of the one that is told.
    """
    from holdfast import __version__

    caches: dict[str, wire.Cached] = {}
    owed = 0
    config: dict[str, Any] = {}
    with contextlib.suppress(HoldfastError, OSError):
        config = directory.config
    for opened in logs:
        with contextlib.suppress(HoldfastError, OSError):
            caches[opened.agent] = wire.Cached(*taken(directory, opened, told(config, opened.agent)))
            owed += owed_bytes(directory, opened, hub)
    refusals, refused = 0, list[wire.Refusal]()
    with contextlib.suppress(HoldfastError, OSError):
        refusals, refused = _refused(directory, hub)
    try:
        space = directory.reserve.state()
        disk = (space.free, space.total, not space.writable)
    except OSError:
        disk = (0, 0, False)
    return wire.Report(
        host=socket.gethostname(),
        version=__version__,
        caches=caches,
        disk_free=disk[0],
        disk_total=disk[1],
        disk_full=disk[2],
        owed_bytes=owed,
        refusals=refusals,
        refused=refused,
    )


def owed_bytes(directory: Directory, opened: OpenLog, hub: str) -> int:
    """About how many bytes the bodies take, as they are stored, that a hub has not acknowledged of one log."""
    lacking = depth(directory, opened, hub)
    if not lacking:
        return 0
    corpus = opened.corpus
    acked = corpus.head(opened.log.branch.id).seq - lacking
    # An agent's file holds its current branch only: a pos is a number.
    sql = (
        "SELECT count(*), coalesce(sum(n), 0) FROM (SELECT length(body) AS n FROM rec WHERE pos>? ORDER BY pos LIMIT ?)"
    )
    count, size = corpus.engine.one(sql, (acked, SAMPLE))
    return round(size * lacking / count) if count else 0


def _refused(directory: Directory, hub: str) -> tuple[int, list[wire.Refusal]]:
    """How many payloads a hub refused, and the newest of them; agents by the streams that are here."""
    node = directory.node
    count = node.one("SELECT count(*) FROM refused WHERE hub=?", (hub,))[0]
    if not count:
        return 0, []
    names = {opened.log.branch.stream: agent for agent, opened in directory.opened().items()}
    sql = "SELECT stream, seq, code, reason FROM refused WHERE hub=? ORDER BY seq DESC LIMIT ?"
    rows = node.query(sql, (hub, REFUSED_MAX))
    return count, [wire.Refusal(names.get(row[0], ""), row[1], row[2], row[3][:REASON_MAX]) for row in rows]

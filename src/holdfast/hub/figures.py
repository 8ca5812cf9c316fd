"""A hub's own figures over time: what it took in, how long it took, what failed, how its nodes and its disk stood.

Every minute each process adds what it counted since to three rows: of this minute, of these ten, of this hour. Each
kind of row is kept for its time, so the table stays small for ever. It survives a restart, and is in no backup.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.errors import HoldfastError
from holdfast.hub.meters import BOUNDS, FAILED, OK, REFUSED

if TYPE_CHECKING:
    from holdfast.corpus import SqlCorpus
    from holdfast.hub.core import Core

logger = logging.getLogger(__name__)

EVERY_S: Final = 60.0
DAY_S: Final = 86_400
STEPS: Final = ((60, DAY_S), (600, 7 * DAY_S), (3_600, 90 * DAY_S))
"""Seconds that a row speaks for, and for how long it is kept."""
LAST_WORD_S: Final = 10.0
"""A process that ends writes down what it counted, if that was of so long."""
NODES_MAX: Final = 20
WAL_PAGES: Final = 500
_CACHED: Final = "GET /storage/cache/"


class Figure(msgspec.Struct, omit_defaults=True):
    """What one process counted in a stretch of time, and how things stood at its end.

    Attributes:
        seconds: how much of the stretch it speaks for.
        records, bytes: taken in.
        requests, refused, failed: all of them, and those answered with 4xx and 5xx.
        buckets: of their durations, by `meters.BOUNDS`.
        hits, misses: of the TTL cache.
        behind: records that nodes still had to ship, by node, at the worst; of many the worst.
        disk_free, disk_total, on_disk: bytes; None where they are not ours to see.
        findings: of the scan.
    """

    seconds: float = 0.0
    records: int = 0
    bytes: int = 0
    requests: int = 0
    refused: int = 0
    failed: int = 0
    buckets: list[int] = []
    hits: int = 0
    misses: int = 0
    behind: dict[str, int] = {}
    disk_free: int | None = None
    disk_total: int | None = None
    on_disk: int | None = None
    findings: int = 0

    def add(self, later: Figure) -> None:
        """Takes in what was counted later, or by another process."""
        for name in ("seconds", "records", "bytes", "requests", "refused", "failed", "hits", "misses"):
            setattr(self, name, getattr(self, name) + getattr(later, name))
        mine, other = self.buckets or [0] * (len(BOUNDS) + 1), later.buckets or [0] * (len(BOUNDS) + 1)
        self.buckets = [a + b for a, b in zip(mine, other, strict=True)]
        names = {**self.behind, **later.behind}
        worst = {name: max(self.behind.get(name, 0), later.behind.get(name, 0)) for name in names}
        self.behind = dict(sorted(worst.items(), key=lambda each: (-each[1], each[0]))[:NODES_MAX])
        for name in ("disk_free", "disk_total", "on_disk"):
            if getattr(later, name) is not None:
                setattr(self, name, getattr(later, name))
        self.findings = later.findings


def quantile(buckets: Sequence[int], part: float) -> float | None:
    """The duration that this part of all requests took at most, in seconds; None where there were none.

    Args:
        buckets: how many took up to each of `meters.BOUNDS`, and longer.
        part: from 0 to 1.
    """
    total = sum(buckets)
    if not total:
        return None
    wanted, seen, below = part * total, 0, 0.0
    for bound, count in zip(BOUNDS, buckets, strict=False):
        if count and seen + count >= wanted:
            return below + (bound - below) * (wanted - seen) / count
        seen, below = seen + count, bound
    return BOUNDS[-1]


class Figures:
    """Writes a hub's figures down; the loop's own.

    Args:
        core: the hub.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._task: asyncio.Task[None] | None = None
        self._who = "" if core.corpus.inline else secrets.token_hex(4)
        self._before = Figure()
        self._mono = 0.0

    def start(self) -> None:
        """Begins, on the running loop."""
        self._mono = asyncio.get_running_loop().time()
        self._before = self._totals()
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Ends, and writes down what was counted last."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if asyncio.get_running_loop().time() - self._mono >= LAST_WORD_S and not self._core.corpus.unusable:
            with contextlib.suppress(HoldfastError, OSError):
                await self.note()

    async def _work(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.note()
            except (HoldfastError, OSError) as error:
                logger.warning("could not write down the hub's figures", exc_info=error)

    async def note(self) -> None:
        """Writes down what was counted since the last time."""
        core = self._core
        now, mono = core.home.wall.now_ms() // 1000, asyncio.get_running_loop().time()
        totals = self._totals()
        found = Figure(seconds=round(mono - self._mono, 3))
        for name in ("records", "bytes", "requests", "refused", "failed", "hits", "misses"):
            setattr(found, name, getattr(totals, name) - getattr(self._before, name))
        found.buckets = [a - b for a, b in zip(totals.buckets, self._before.buckets, strict=True)]
        lacking = {each.node: sum(each.behind.values()) for each in core.standings()}
        worst = sorted(((n, node) for node, n in lacking.items()), reverse=True)[:NODES_MAX]
        found.behind = {node: n for n, node in worst}
        found.findings = len(core.scanning.progress.findings)
        self._before, self._mono = totals, mono
        await core.read(lambda: self._write(found, now))
        if core.corpus.inline and core.corpus.wal_pages > WAL_PAGES:
            core.writer.committed.set()  # an idle hub's WAL is moved by whoever follows the commits

    def _write(self, found: Figure, now: int) -> None:
        core = self._core
        space = core.home.reserve.state()
        if space.total:
            found.disk_free, found.disk_total = space.free, space.total
        found.on_disk = on_disk(core.home)

        def job(tx: Any) -> None:
            for step, kept in STEPS:
                at = now // step * step
                whole, where = Figure(), (step, at, self._who)
                row = tx.sql("SELECT data FROM figure WHERE step=? AND at=? AND who=?", where).fetchone()
                if row is not None:
                    with contextlib.suppress(msgspec.MsgspecError):
                        whole = msgspec.json.decode(row[0], type=Figure)
                whole.add(found)
                sql = "INSERT INTO figure VALUES(?,?,?,?) ON CONFLICT(step,at,who) DO UPDATE SET data=excluded.data"
                tx.sql(sql, (*where, msgspec.json.encode(whole).decode()))
                tx.sql("DELETE FROM figure WHERE step=? AND at<?", (step, now - kept))

        core.corpus.write(job)

    def _totals(self) -> Figure:
        meters = self._core.meters
        found = Figure(buckets=[0] * (len(BOUNDS) + 1))
        found.records, found.bytes = sum(meters.intake.records.values()), sum(meters.intake.bytes.values())
        for meter in meters.operations():
            found.requests += sum(meter.counts)
            found.refused += meter.counts[REFUSED]
            found.failed += meter.counts[FAILED]
            if not meter.lasting:
                found.buckets = [a + b for a, b in zip(found.buckets, meter.buckets, strict=True)]
            if meter.name.startswith(_CACHED):
                found.hits += meter.counts[OK]
                found.misses += meter.counts[REFUSED]
        return found


def on_disk(home: Any) -> int | None:
    """Bytes of the hub's file with its log; None where a database server has them."""
    path = getattr(home, "path", None)
    if path is None:
        return None
    size = 0
    for name in ("hub.db", "hub.db-wal"):
        with contextlib.suppress(OSError):
            size += os.stat(path / name).st_size
    return size


class Stretch(msgspec.Struct):
    """What all processes of a hub counted in a stretch of time that begins at `at`, in seconds since 1970."""

    at: int
    figure: Figure
    seconds: float
    """For how long there was a process at all."""


def history(corpus: SqlCorpus, since: int, until: int, width: int, now: int) -> list[Stretch | None]:
    """The stretches of `width` seconds from one moment to another, the oldest first; None where there was no hub.

    Args:
        corpus: of the hub.
        since, until: in seconds since 1970; the first is a multiple of `width`.
        width: of each, in seconds: a multiple of one of `STEPS`.
        now: in seconds since 1970; the last stretch may have only begun.
    """
    step = max(step for step, kept in STEPS if width % step == 0 and (kept >= until - since or step == STEPS[-1][0]))
    sql = "SELECT at, data FROM figure WHERE step=? AND at>=? AND at<? ORDER BY at, who"
    found: list[Stretch | None] = [None] * -(-(until - since) // width)
    ran: dict[int, float] = {}
    for at, figure in _figures(corpus.query(sql, (step, since, until))):
        place = (at - since) // width
        stretch = found[place]
        if stretch is None:
            stretch = found[place] = Stretch(since + place * width, Figure(), 0.0)
        stretch.figure.add(figure)
        ran[at] = ran.get(at, 0.0) + figure.seconds
    for at, seconds in ran.items():
        stretch = found[(at - since) // width]
        if stretch is not None:
            # Of processes that ran at the same time the records add up, and the seconds do not.
            stretch.seconds += min(seconds, step, max(1, now - at))
    return found


def _figures(rows: Iterable[Any]) -> Iterable[tuple[int, Figure]]:
    for at, data in rows:
        with contextlib.suppress(msgspec.MsgspecError):  # a row that was damaged is a gap
            yield int(at), msgspec.json.decode(data, type=Figure)

"""Who has written how much, into which collection and when: a `Count`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.clock import millis
from holdfast.corpus import SqlCorpus
from holdfast.corpus.tally import HOUR_MS, Sum, tally
from holdfast.hub.principal import Principal
from holdfast.hub.ui.counting import Count

if TYPE_CHECKING:
    from holdfast.hub.core import Core

HOURS: Final = 24
HOURS_KEPT: Final = 168
PAIRS_MAX: Final = 50_000


class Pair(msgspec.Struct):
    """What one agent wrote into one collection; `hours` by hours since 1970, for a week."""

    records: int = 0
    size: int = 0
    newest: int = 0
    hours: dict[int, tuple[int, int]] = {}

    def add(self, found: Sum, since: int) -> None:
        """Takes in a part."""
        self.records += found.records
        self.size += found.size
        self.newest = max(self.newest, found.newest)
        if found.hour >= since:
            records, size = self.hours.get(found.hour, (0, 0))
            self.hours[found.hour] = records + found.records, size + found.size
            if len(self.hours) > 2 * HOURS_KEPT:
                self.hours = {hour: each for hour, each in self.hours.items() if hour >= since}


class Usage(Count):
    """The count of one hub; the loop's own.

    Args:
        core: the hub.
    """

    failed = "could not count the records; the next look goes on"

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self.pairs: dict[tuple[str, str], Pair] = {}
        self.streams: dict[bytes, int] = {}
        """Stream -> the stamp of its newest record."""

    def readable(self, principal: Principal) -> dict[tuple[str, str], Pair]:
        """What somebody may know of."""
        if principal.reads_everything:
            return self.pairs
        return {at: pair for at, pair in self.pairs.items() if principal.may_read(at[1])}

    async def take(self, after: int, until: int) -> None:
        """Counts the records behind one position, up to another."""
        core = self._core
        found, streams = await core.read(lambda: _lot(core.corpus, after, until))
        since = core.home.wall.now_ms() // HOUR_MS - HOURS_KEPT
        for each in found:
            at = (each.agent, each.collection)
            pair = self.pairs.get(at)
            if pair is None:
                if len(self.pairs) >= PAIRS_MAX:
                    at = ("(others)", "(others)")
                pair = self.pairs.setdefault(at, Pair())
            pair.add(each, since)
            stream = streams[each.branch]
            self.streams[stream] = max(self.streams.get(stream, 0), each.newest)


def _lot(corpus: SqlCorpus, after: int, until: int) -> tuple[list[Sum], dict[int, bytes]]:
    found = tally(corpus, after, until)
    return found, {branch: corpus.stream_of(branch) for branch in {each.branch for each in found}}


class Total(msgspec.Struct):
    """A sum over pairs: since ever, in the last 24 hours, in the last week; `last_write` in ms since 1970, 0: never."""

    records: int = 0
    size: int = 0
    day_records: int = 0
    day_size: int = 0
    week_size: int = 0
    newest: int = 0

    @property
    def last_write(self) -> int:
        """When its newest record was made."""
        return millis(self.newest) if self.newest else 0


def total(pairs: list[Pair], now_ms: int) -> Total:
    """What these pairs are together."""
    hour = now_ms // HOUR_MS
    found = Total()
    for pair in pairs:
        found.records += pair.records
        found.size += pair.size
        found.newest = max(found.newest, pair.newest)
        for at, (records, size) in pair.hours.items():
            if at > hour - HOURS:
                found.day_records += records
                found.day_size += size
            if at > hour - HOURS_KEPT:
                found.week_size += size
    return found


def hourly(pairs: list[Pair], now_ms: int) -> list[int]:
    """Records written in each of the last 24 hours, the oldest first."""
    hour = now_ms // HOUR_MS
    out = [0] * HOURS
    for pair in pairs:
        for at, (records, _) in pair.hours.items():
            if hour - HOURS < at <= hour:
                out[at - hour + HOURS - 1] += records
    return out

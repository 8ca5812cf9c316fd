"""Follows the files of one tool on this machine into a log, from wherever the log stands.

A file is looked at when its size, its time or itself is another than before: everything else costs one `stat`. What is
then read is held against what the log holds of it, by digests, and goes on where both agree. So it makes no difference
whether the follower ran meanwhile, was killed, or is one of two.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from holdfast.cli.following import files
from holdfast.cli.following.files import Found
from holdfast.cli.following.ledger import Chunk, Head, Ledger
from holdfast.cli.following.reading import Complain, Desk, Reading, Redact, Stop, Tally
from holdfast.cli.transcripts.tools import PACKED, Tool
from holdfast.errors import Conflict, HoldfastError, NodeFull
from holdfast.node.store import Store

WAIT_NS: Final = 60_000_000_000
"""So long a last line without an end waits for the rest; and then a file at rest is held against the log once more."""
SURE_NS: Final = 2_000_000_000
"""A file that was written within the grain of its disk's clock may be written again without a sign."""
ATTEMPTS: Final = 20
_NEVER: Final = 1 << 62


class Followed:
    """One file, as this process last saw it. `seen` is (size, mtime_ns, inode); `due` when to look anyway (ns)."""

    def __init__(self, found: Found, fid: str) -> None:
        self.found = found
        self.fid = fid
        self.seen: tuple[int, int, int] | None = None
        self.due = 0
        self.head: Head | None = None
        self.version = 0
        self.last: Chunk | None = None

    def forget(self) -> None:
        """Has the next look begin with what the log holds."""
        self.seen = self.head = self.last = None

    def rest(self) -> None:
        """Keeps no more of it than that it has not changed."""
        self.head = self.last = None
        self.due = _NEVER


class Follower:
    """Follows one tool.

    Args:
        store: whose log it goes into.
        tool: which tool.
        home: its folder.
        tell: told of a place, such as ``file:line``, and what is wrong there, once.
        redact: what takes secrets out before anything is written; None: everything is kept as it is.
        now_ns: the time.
    """

    def __init__(
        self,
        store: Store,
        tool: Tool,
        home: Path,
        tell: Complain,
        *,
        redact: Redact | None = None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.tally = Tally()
        self._home = home
        self._desk = Desk(Ledger(store), tool, str(home), self.tally, tell, redact)
        self._now_ns = now_ns
        self._known: dict[str, Followed] = {}

    def walk(self) -> None:
        """Looks for files that are new, or moved; those that are gone stay in the log."""
        tool, ledger = self._desk.tool, self._desk.ledger
        found: dict[str, Found] = {}
        for each in files.find(tool, self._home, self._desk.complain):
            fid = ledger.fid(tool.name, tool.known_by(each.rel))
            there = found.get(fid)
            # While a tool packs or unpacks a file both are there, and the packed one is whole only afterwards.
            if there is None or there.path.endswith(PACKED):
                found[fid] = each
        for fid, each in found.items():
            known = self._known.get(fid)
            if known is None:
                self._known[fid] = Followed(each, fid)
            elif known.found != each:
                known.found = each
                known.forget()
        for fid in self._known.keys() - found.keys():
            del self._known[fid]

    def once(self, stop: Stop = bool) -> bool:
        """Looks at every file; whether anything was written.

        Args:
            stop: asked between commits whether to end.
        """
        return self._each(list(self._known.values()), stop)

    def recent(self, since_ns: int, stop: Stop = bool) -> bool:
        """The same with the files that were written since a time, and those that are to be looked at again."""
        known = self._known.values()
        some = [each for each in known if each.seen is None or each.seen[1] >= since_ns or each.due < _NEVER]
        return self._each(some, stop)

    # -- inside -------------------------------------------------------------------------------------------------

    def _each(self, some: list[Followed], stop: Stop) -> bool:
        wrote = False
        for each in some:
            if stop():
                break
            wrote |= self._look(each, stop)
        return wrote

    def _look(self, each: Followed, stop: Stop) -> bool:
        """Looks at one file; whether anything was written. What is wrong with it is told.

        Raises:
            NodeFull: this machine's disk, or the budget, is full.
        """
        for _ in range(ATTEMPTS):
            try:
                return self._read(each, stop)
            except Conflict:
                each.forget()  # somebody else follows it too: go on from what they wrote
                continue
            except FileNotFoundError:
                why = ""  # the next walk misses it
            except OSError as error:
                why = error.strerror or str(error)
            except NodeFull:
                raise
            except HoldfastError as error:
                why = error.message
            each.forget()
            if why:
                self._desk.complain(each.found.path, why)
            return False
        self._desk.complain(each.found.path, "somebody else keeps writing what is known of it")
        return False

    def _read(self, each: Followed, stop: Stop) -> bool:
        status, now = os.stat(each.found.path), self._now_ns()
        seen = (status.st_size, status.st_mtime_ns, status.st_ino)
        if seen == each.seen and now < each.due:
            return False
        if each.head is None:
            each.head, each.version = self._desk.ledger.head(each.fid) or (None, 0)
        if each.head is not None and each.seen is None and (each.head.size, each.head.mtime_ns) == seen[:2]:
            each.seen = seen
            each.rest()
            return False
        with files.opened(each.found.path) as (file, status, size):
            seen = (status.st_size, status.st_mtime_ns, status.st_ino)
            age = now - status.st_mtime_ns
            grown = each.seen is not None and each.seen[2] == seen[2] and each.seen[0] < seen[0]
            quick = grown and age < WAIT_NS and not each.found.path.endswith(PACKED)
            reading = Reading(self._desk, each, file, size, status.st_mtime_ns)
            wrote = reading.run(quick=quick, rested=age >= WAIT_NS, stop=stop)
            if stop():
                return wrote
            if not quick:
                wrote |= reading.settle(seen[:2] if age > SURE_NS and reading.whole else None)
        each.seen, each.due = seen, status.st_mtime_ns + WAIT_NS
        if age >= WAIT_NS:
            each.rest()
        return wrote

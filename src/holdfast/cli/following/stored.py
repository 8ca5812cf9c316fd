"""Follows a tool that keeps its sessions in a database: each message is kept as it is, and told as others are.

A message is kept once the tool is through with it, or has left it alone for a minute; what is changed later becomes its
next version. Where nothing was written nothing is read; a session whose shape is as it was is not read either. How far
that goes is known from the log alone, so a follower that begins goes on where the last one stood.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.cli.following import opencode
from holdfast.cli.following.follower import ATTEMPTS
from holdfast.cli.following.ledger import TRANSCRIPTS, Ledger, head_draft
from holdfast.cli.following.looking import AT_WORK_MS, WAIT_MS, Followed, Looking
from holdfast.cli.following.opencode import Source
from holdfast.cli.following.reading import Complain, Desk, Redact, Stop, Tally
from holdfast.cli.transcripts.tools import Tool
from holdfast.errors import Conflict, HoldfastError, NodeFull
from holdfast.log import value
from holdfast.node.store import Store

_MS: Final = 1_000_000


class StoredFollower:
    """Follows one tool that keeps its sessions in a database; see `holdfast.cli.following.follower.Follower`.

    Args:
        store: whose log it goes into.
        tool: which tool.
        home: its folder.
        tell: told of a place, such as ``file:session:message``, and what is wrong there, once.
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
        self._desk = Desk(Ledger(store), tool, str(home), self.tally, tell, redact)
        self._home = home
        self._now_ns = now_ns
        self._sources: dict[str, Source] = {}
        self._stamps: dict[str, tuple[int, ...]] = {}  # of each place, when its sessions were listed last
        self._whole: dict[str, tuple[int, ...]] = {}  # the same, when all of it was held against the log
        self._hints: dict[str, Hashable] = {}
        self._known: dict[str, Followed] = {}

    def walk(self) -> None:
        """Looks for places that are new, and for what is new in them."""
        found = {each.path: each for each in opencode.sources(self._home)}
        self._sources = {path: self._sources.get(path, each) for path, each in found.items()}
        for fid in [fid for fid, each in self._known.items() if each.source.path not in found]:
            del self._known[fid]  # a place that is not there says nothing of its sessions
        for source in self._sources.values():
            self._survey(source)

    def once(self, stop: Stop = bool) -> bool:
        """Looks at what was written, and at all of a place once that has rested for a minute; whether it wrote.

        Args:
            stop: asked between commits whether to end.
        """
        wrote = False
        for source in self._sources.values():
            mine = [each for each in self._known.values() if each.source is source]
            due = self._is_due(source)
            wrote |= self._each(mine if due else filter(self._is_changed, mine), stop)
            if due and not stop():
                self._at_rest(source, mine)
        return wrote

    def recent(self, since_ns: int, stop: Stop = bool) -> bool:
        """The same with what was written since the last look, and with what waits."""
        for source in self._sources.values():
            self._survey(source)
        return self._each([each for each in self._known.values() if self._is_changed(each)], stop)

    # -- what there is ----------------------------------------------------------------------------------------------

    def _survey(self, source: Source) -> None:
        """Brings the list of a place's sessions up to date, if anything was written there."""
        path = source.path
        try:
            stamp = source.stamp()
            if stamp and stamp == self._stamps.get(path):
                return
            listed = source.sessions()
        except (OSError, HoldfastError) as error:
            self._desk.complain(path, _why(error))
            return
        first = path not in self._stamps
        self._stamps[path] = stamp
        at_rest = first and bool(stamp) and list(stamp) == self._kept_stamp(source)
        if at_rest:
            self._whole[path] = stamp
        ledger, tool = self._desk.ledger, self._desk.tool
        for session, hint in listed.items():
            fid = ledger.fid(tool.name, f"{source.known_by}/{session}" if source.known_by else session)
            each = self._known.get(fid)
            if each is None or each.source is not source:
                each = self._known[fid] = Followed(source, session, fid)
                each.hint = hint if at_rest else None
            self._hints[fid] = hint
        if not at_rest:
            self._miss(source, listed, first)

    def _miss(self, source: Source, listed: Mapping[str, Hashable], first: bool) -> None:
        """Notes which sessions the tool has deleted; what was kept of them stays."""
        ledger = self._desk.ledger
        lost = [fid for fid, each in self._known.items() if each.source is source and each.session not in listed]
        place = Path(source.path)
        for fid in ledger.files() if first else lost:
            found = ledger.head(fid)
            if found is None or (head := found[0]).tool != self._desk.tool.name or head.gone:
                continue
            if head.session in listed or (head.root, Path(head.path).parts[0]) != (str(place.parent), place.name):
                continue
            try:
                ledger.write([], last=[head_draft(fid, msgspec.structs.replace(head, gone=True), found[1])])
            except Conflict:
                continue  # somebody else has seen it too
        for fid in lost:
            del self._known[fid]

    def _is_changed(self, each: Followed) -> bool:
        path = each.source.path
        if each.hint is None or each.waiting or each.hint != self._hints.get(each.fid):
            return True
        # A message that is written anew in its place shows only in the shape.
        at_work = each.at_ms > self._now_ns() // _MS - AT_WORK_MS
        return at_work and self._stamps.get(path) != self._whole.get(path, (0,))

    def _is_due(self, source: Source) -> bool:
        """Whether all of a place is to be held against the log: it was written, and has rested for a minute since."""
        stamp, whole, now = self._stamps.get(source.path), self._whole.get(source.path), self._now_ns()
        if stamp is None:
            return False
        if not stamp:  # nothing tells whether it was written: now and then
            return whole is None or now - whole[0] > WAIT_MS * _MS
        return stamp != whole and now - max(stamp[1], *stamp[4::2]) >= WAIT_MS * _MS

    def _at_rest(self, source: Source, mine: Sequence[Followed]) -> None:
        """Remembers that all of a place is kept as it stands, if it is."""
        stamp = self._stamps.get(source.path)
        if stamp is None or any(each.hint is None or each.waiting for each in mine):
            return
        self._whole[source.path] = stamp or (self._now_ns(),)
        if stamp and list(stamp) != self._kept_stamp(source):
            self._desk.ledger.write([], last=[value(TRANSCRIPTS, self._stamp_key(source), list(stamp))])

    def _kept_stamp(self, source: Source) -> Any:
        found = self._desk.ledger.store.history(self._stamp_key(source), collection=TRANSCRIPTS, limit=1)
        return found[0].value if found else None

    def _stamp_key(self, source: Source) -> str:
        return f"rest/{self._desk.ledger.fid(self._desk.tool.name, source.path)}"

    # -- looking ----------------------------------------------------------------------------------------------------

    def _each(self, some: Any, stop: Stop) -> bool:
        wrote = False
        for each in some:
            if stop():
                break
            wrote |= self._look(each, stop)
        return wrote

    def _look(self, each: Followed, stop: Stop) -> bool:
        """Looks at one session; whether anything was written. What is wrong with it is told.

        Raises:
            NodeFull: this machine's disk, or the budget, is full.
        """
        hint = self._hints.get(each.fid)
        for _ in range(ATTEMPTS):
            try:
                wrote = Looking(self._desk, each, self._now_ns() // _MS).run(stop)
            except Conflict:
                each.forget()  # somebody else follows it too: go on from what they wrote
                continue
            except NodeFull:
                raise
            except (OSError, HoldfastError) as error:
                each.forget()
                self._desk.complain(each.place, _why(error))
                return False
            if not stop():
                each.hint = hint
            return wrote
        self._desk.complain(each.place, "somebody else keeps writing what is known of it")
        return False


def _why(error: OSError | HoldfastError) -> str:
    return error.message if isinstance(error, HoldfastError) else error.strerror or str(error)

"""Opening one agent's log: the doctor's word, the anchor's word, and then the log and its duties."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final, Protocol

import msgspec

from holdfast import clock
from holdfast.clock import SYSTEM, Clock
from holdfast.corpus import Branch, Head, SqliteCorpus
from holdfast.errors import IntegrityError
from holdfast.log.anchor import Anchor
from holdfast.log.duty import UNKNOWN, Duties
from holdfast.log.levels import ADVANCED, Level
from holdfast.log.log import FrozenLog, Log
from holdfast.log.reading import load
from holdfast.objects import BlobFiles
from holdfast.records import genesis, stream_id

FROZEN: Final = "log.frozen"
"""Beside a damaged log that recovery could not put right: it names the incident, and stops all writing."""


class Incident(msgspec.Struct, frozen=True):
    """Something found wrong while opening; nothing was repaired, and what was there is kept aside."""

    what: str
    detail: str
    at: str
    quarantine: str = ""


class Keys(Protocol):
    """The public half of what signs this log."""

    @property
    def public_key(self) -> bytes:
        """32 bytes."""
        ...


class OpenLog:
    """An agent's log, open: `log` to write and read, `sync` for the shipper, `incidents` for health.

    Args:
        directory: the agent's own; made if missing.
        agent: its name.
        public_key: the node's key in force.
        blobs: where large payloads go.
        level: what a returned write survives.
        wall: the clock.

    Raises:
        IntegrityError: the log is another key's; or, at level critical, it is damaged or was rolled back.
    """

    def __init__(
        self,
        directory: Path,
        agent: str,
        *,
        public_key: bytes,
        blobs: BlobFiles,
        level: Level = ADVANCED,
        wall: Clock = SYSTEM,
    ) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.agent = agent
        self.level = level
        self.incidents: list[Incident] = []
        self.corpus = SqliteCorpus(directory / "log.db", full=level.full)
        self._anchor = Anchor(directory / "log.anchor")
        try:
            branch = self._branch(agent, public_key)
            anchored = self._look(branch, wall)
        except BaseException:
            self._anchor.close()
            self.corpus.close()
            raise
        frozen = directory / FROZEN
        if frozen.exists():
            at = clock.iso(wall.now_ms())
            self.incidents.append(Incident("frozen", f"nothing is written until {frozen.read_text()} is released", at))
        self.log = (FrozenLog if frozen.exists() else Log)(self.corpus, branch, blobs=blobs, wall=wall)
        self._duties = Duties(
            self.corpus, branch.id, self._anchor, level, synced=anchored, load=lambda stored: load(stored, blobs)
        )

    def sync(self, head: Head | None = None) -> Head:
        """Makes everything committed survive a power cut; returns how far that is. Only that much may be shipped.

        Args:
            head: where the log stood a moment ago, for a caller who knows.
        """
        return self._duties.sync(head)

    def trouble(self) -> BaseException | None:
        """What the background work last failed with, if it did."""
        return self._duties.error

    def close(self) -> None:
        """Syncs, moves the anchor, closes; a second close is fine.

        Raises:
            IntegrityError: it could not be synced, or is damaged; it is closed all the same.
        """
        self._duties.stop()
        try:
            if self.level.sync_s and not self.corpus.engine.unusable:
                self._duties.settle()
        finally:  # also of a file too damaged to say where it ends
            self.corpus.close()
            self._anchor.close()

    def _branch(self, agent: str, public_key: bytes) -> Branch:
        found = self.corpus.branches()
        if not found:
            if self.corpus.last():
                # A page that lies elsewhere now, most likely: a second chain begun here would hide the first.
                raise IntegrityError(f"nothing in the log of {agent} says whose it is", hint="holdfast verify")
            stream = stream_id(public_key, agent)
            start = genesis(stream)
            new = Branch(0, stream, new_incarnation(), agent, public_key, public_key, True, 0, start, 0, start)
            begun: Branch = self.corpus.write(lambda tx: (tx.branches(stream) or [tx.open_branch(new)])[0])
            return begun
        branch = found[-1]
        if branch.current_key != public_key:
            raise IntegrityError(
                f"the log of {agent} is signed by another key than this node's",
                hint="put the node's own keys.db back; a copied log is read with `holdfast import`",
            )
        return branch

    def _look(self, branch: Branch, wall: Clock) -> Head:
        """Notes what went wrong here; returns how far the anchor proves that the log has been synced."""
        engine, at = self.corpus.engine, clock.iso(wall.now_ms())
        whole = engine.standing == "whole"
        if engine.quarantined is not None:
            said = "nothing is lost, the file had all of it: " if whole else ""
            self.incidents.append(Incident("wal-damaged", f"{said}{engine.diagnosis}", at, str(engine.quarantined)))
        mark = self._anchor.read()
        synced = UNKNOWN
        if mark is None or mark.stream != branch.stream:
            pass  # it knows nothing of this log
        elif self.corpus.link_at(branch.id, mark.seq) == mark.link:
            synced = Head(mark.seq, mark.link, mark.hlc)
        else:
            head = self.corpus.head(branch.id)
            detail = f"the anchor saw seq {mark.seq}, the log ends at {head.seq}"
            self.incidents.append(Incident("rolled-back", detail, at))
        lost = self.incidents[whole:]
        if lost and self.level.full:
            raise IntegrityError(
                f"the log of {branch.agent} has lost commits: {lost[0].detail}",
                hint="open it once at level advanced: it takes back what the hub has, and says what is missing",
            )
        return synced


def new_incarnation(above: bytes = b"") -> bytes:
    """16 bytes that sort by time (as RFC 9562's version 7), greater than `above` if anything can be."""
    made = (time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(10)
    after = int.from_bytes(above[:6], "big") + 1
    if made > above or after >> 48:
        # Nothing sorts behind the end of time, which a stranger may have named: a stream must go on all the same.
        return made
    return after.to_bytes(6, "big") + os.urandom(10)

"""Recovers one agent's log: what is known of it as a `Case`, and the building of it anew from what is proven.

`casework.examine` never writes to the log's folder; `mend` does what it planned. Both run while nobody has the log
open.
"""

from __future__ import annotations

import heapq
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from holdfast.clock import SYSTEM, Clock
from holdfast.corpus import Branch
from holdfast.errors import HoldfastError, IntegrityError
from holdfast.integrity import incidents, pieces, rebuild
from holdfast.integrity.checks import Finding
from holdfast.integrity.pieces import Piece
from holdfast.integrity.recovery import Facts, Plan, Policy, Step, refusals
from holdfast.integrity.remains import Remains
from holdfast.integrity.source import Source
from holdfast.log.anchor import Mark as Stand
from holdfast.log.erasure import REAPPLIED, Erasure, kept_erasures, redacted
from holdfast.wire import QUARANTINED, REDACTED, Mark


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """What a node hands in for recovery.

    Attributes:
        keys: the node's public keys, newest first.
        sources: where lost bytes may be, hubs before backups.
        acked: by hub, how far it has acknowledged each stream.
        erased: erasures that no log may undo, though its own redact records do not name them.
        kids: names of data keys that were destroyed here: what they sealed was erased.
        clock: the time.
        free: how many bytes the disk of a path has left.
    """

    keys: Sequence[bytes]
    sources: Sequence[Source] = ()
    acked: dict[str, dict[bytes, Mark]] = {}
    erased: Sequence[Erasure] = ()
    kids: frozenset[bytes] = frozenset()
    clock: Clock = SYSTEM
    free: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free


class Case(msgspec.Struct, kw_only=True):
    """One log, looked at: what the scan found, what can be put back, and how.

    Attributes:
        folder, agent: the log.
        print: a digest of its files as they were looked at.
        findings: what is wrong.
        needed: whether anything is.
        facts: what was found out.
        steps: what would be done.
        stream, head: the chain, and where it would end.
        last_own: the newest number that the file itself reads.
        fixed: what takes the place of the file's own rows.
        bare: records of which nobody has the body.
        erased: what must not come back, whoever has it: as proven redact records say, and as the node knows.
        blobs: the blobs that sound records refer to: their size, and which records.
        branches: the incarnations, oldest first.
        remains: the open copy.
    """

    folder: Path
    agent: str
    print: str
    findings: list[Finding] = []
    needed: bool = False
    facts: Facts
    steps: list[Step] = []
    stream: bytes = b""
    head: Mark = Mark(0, b"")
    last_own: int = 0
    fixed: dict[int, Piece] = {}
    bare: dict[int, Piece] = {}
    erased: list[Erasure] = []
    blobs: dict[bytes, tuple[int, list[int]]] = {}
    branches: list[Branch] = []
    remains: Remains | None = None

    def plan(self, policy: Policy) -> Plan:
        """The case as a plan."""
        if not self.needed:
            return Plan(logs=1)
        return Plan(
            steps=list(self.steps),
            refusals=refusals(self.facts, policy),
            findings=self.findings,
            prints={self.agent: self.print},
            logs=1,
            damaged=[self.agent],
            away=dict(self.facts.away),
        )

    def close(self) -> None:
        """Closes the copy; a second close is fine."""
        if self.remains is not None:
            self.remains.close()


def mend(case: Case, policy: Policy, ground: Ground, incident: Path) -> list[Piece]:
    """Builds the log anew and swaps it in; returns the records whose bodies were given up.

    Call under `rebuild.alone`, with the old files frozen.

    Args:
        case: as `examine` made it, with its copy still open.
        policy: what is allowed.
        ground: as for `examine`.
        incident: the directory of the frozen copies.

    Raises:
        IntegrityError: it is refused, or what came out does not prove itself; nothing was changed.
    """
    against = refusals(case.facts, policy)
    if against:
        raise IntegrityError(str(against[0]), hint=against[0].hint)
    assert case.remains is not None
    newest = [case.facts.newest_hlc]
    folder = case.folder / f".repair-{incident.name}"
    records, kept = _whole(case, ground, newest), case.remains.tags()
    made = rebuild.build(folder, case.branches, _meta(case, ground), records, case.head, kept)
    case.close()
    rebuild.swap(case.folder, made, Stand(case.stream, case.head.seq, case.head.link, newest[0]))
    incidents.thaw(case.folder)
    return [case.bare[seq] for seq in sorted(case.bare)]


def sweep(folder: Path) -> None:
    """Removes what an attempt that was killed left behind; call under `rebuild.alone`."""
    for entry in folder.glob(".repair-*"):
        shutil.rmtree(entry, ignore_errors=True)


def _whole(case: Case, ground: Ground, newest: list[int]) -> Iterator[Piece]:
    """Every record of the new log in order: the file's own, unless something else was proven in its place."""
    assert case.remains is not None
    given_up = {seq: msgspec.structs.replace(p, body=None, why=QUARANTINED) for seq, p in case.bare.items()}
    instead = case.fixed | given_up
    own: Iterator[Piece] = iter(())
    if case.remains.corpus is not None:
        own = case.remains.rows(case.stream, min(case.last_own, case.head.seq))
    placed = (instead[seq] for seq in sorted(instead))
    for piece in heapq.merge((p for p in own if p.seq not in instead), placed, key=lambda p: p.seq):
        record = pieces.record_of(piece)
        newest[0] = max(newest[0], record.hlc if record else 0)
        if record is not None and piece.body is not None and redacted(case.erased, record):
            piece = blanked(piece)  # whoever had a copy: erased stays erased
        yield piece


def blanked(piece: Piece) -> Piece:
    """A record without what was erased of it."""
    return msgspec.structs.replace(piece, body=None, salt=b"", codec=0, why=REDACTED)


def _meta(case: Case, ground: Ground) -> dict[str, Any]:
    """What stands beside the records; also the erasures that no redact record in this log explains."""
    assert case.remains is not None
    meta = case.remains.meta
    more = [*ground.erased, *([Erasure(case.stream, ground.kids)] if ground.kids else ())]
    if not more:
        return meta
    every = dict.fromkeys([*reapplied(meta), *(each for each in more if each.stream == case.stream)])
    return meta | {REAPPLIED: msgspec.msgpack.encode([each.to_wire() for each in every])}


def reapplied(meta: dict[str, Any]) -> list[Erasure]:
    """The erasures that a restore applied again to a log, as far as that can be read."""
    try:
        return kept_erasures(meta.get(REAPPLIED))
    except (HoldfastError, msgspec.MsgspecError, TypeError):
        return []


def attempt(case: Case, steps: Sequence[Step], begun: float, **said: Any) -> dict[str, Any]:
    """The evidence of one attempt, for the account, the log itself and the hub."""
    return {
        "agent": case.agent,
        "stream": case.stream.hex(),
        "detector": "scan",
        "findings": [str(finding) for finding in case.findings[:20]],
        "steps": [msgspec.structs.asdict(step) for step in steps[:50]],
        "recovered": sum(step.records for step in steps if step.proven) if said.get("outcome") == "repaired" else 0,
        "unrecovered": case.facts.bodies[:1000],
        "head_before": case.last_own,
        "head_after": case.head.seq,
        "head_link": case.head.link.hex(),
        "seconds": round(time.perf_counter() - begun, 3),
        "operator": os.environ.get("USER") or str(os.getuid()),
        "away": case.facts.away,
        "tool": incidents.tool(),
        **said,
    }

"""What recovery may do, and what it must refuse. Pure: it decides from facts, and touches nothing.

The ladder, in the order of what a step can lose (research: integrity study, section 2):

    freeze              the damaged files are copied before anything opens them; always
    rederive            indexes, newest values, search: made again from records that are all there
    refetch             a hub or its standby has the record, and it hashes into the chain that is here
    checksum_match      the bytes lie elsewhere on this machine: WAL frames, stray pages, quarantine, another store
    backup_restore      a backup has them; what is newer comes from here and from the hub
    version_rollback    a key's last intact version is written again as its newest; needs a policy
    timestamp_rollback  the state of an earlier moment is written again; needs a person
    manual              a bundle for people; the log is read-only until they release it

All above `version_rollback` is proven by hashes and loses nothing, so it runs by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from holdfast.clock import AHEAD_MS_MAX, millis, to_iso
from holdfast.integrity.checks import Finding
from holdfast.integrity.source import BACKUP, HUB

REDERIVE: Final = "rederive"
REFETCH: Final = "refetch"
CHECKSUM_MATCH: Final = "checksum_match"
BACKUP_RESTORE: Final = "backup_restore"
VERSION_ROLLBACK: Final = "version_rollback"
TIMESTAMP_ROLLBACK: Final = "timestamp_rollback"
MANUAL: Final = "manual"
PROVEN: Final = frozenset({REDERIVE, REFETCH, CHECKSUM_MATCH, BACKUP_RESTORE})

MASS_SHARE: Final = 0.05
MASS_MIN: Final = 100
"""Fewer rotten records than this are a page or two, whatever share of a small log that is."""
ROOM_FACTOR: Final = 2


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody allowed beyond what is proven.

    Attributes:
        rollback: give up bodies that nobody has: their keys go back to the last intact version.
        lost_tail: go on behind the last record that is left, though the anchor saw a later one that nobody has.
        mass_damage: the disk was looked at: repair more than 5 % of a log, or several logs, at once.
    """

    rollback: bool = False
    lost_tail: bool = False
    mass_damage: bool = False


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to be put right, how, and what that loses.

    Attributes:
        agent: whose log; empty for a file of the node.
        part: ``log``, ``blob`` or the name of a file of the node.
        check: the check that found it.
        first, last: record numbers; 0 where it is no record's business.
        strategy: see the module.
        source: where the bytes come from.
        records: how many records (or blobs) it concerns.
        expected, actual: hashes or counts, in words.
        lost: what is lost by it; empty for proven steps.
    """

    agent: str
    part: str
    check: str
    strategy: str
    first: int = 0
    last: int = 0
    source: str = ""
    records: int = 0
    expected: str = ""
    actual: str = ""
    lost: str = ""

    @property
    def proven(self) -> bool:
        """Whether it may run by itself."""
        return self.strategy in PROVEN

    def __str__(self) -> str:
        where = f"{self.agent or 'node'} {self.part}"
        span = f" {self.first}-{self.last}" if self.last > self.first else f" {self.first}" if self.first else ""
        by = f" from {self.source}" if self.source else ""
        return f"{where}{span}: {self.strategy}{by}" + (f"; loses {self.lost}" if self.lost else "")


class Refusal(msgspec.Struct, frozen=True):
    """Why something is not done: the rule, in words what it met, and what a person can do."""

    rule: str
    what: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.what} ({self.rule})"


class Facts(msgspec.Struct, kw_only=True):
    """What is known of one damaged log when it is decided what to do.

    Attributes:
        agent: whose.
        head: the newest record that can be put back, by number.
        known: numbers that must not be gone below: who remembers it, by name.
        forks: sources whose chain goes another way.
        records: how many records there were.
        rotten: how many of them no reader on this machine can give back whole.
        newest_hlc: the newest stamp that is known.
        now_ms: the clock.
        store_bytes, free_bytes: what the log takes, and what the disk has left.
        lost: numbers of records of which nobody has the header, in runs.
        bodies: numbers of records of which nobody has the body.
        away: sources that did not answer, with what they said.
    """

    agent: str
    head: int = 0
    known: dict[str, int] = {}
    forks: list[str] = []
    records: int = 0
    rotten: int = 0
    newest_hlc: int = 0
    now_ms: int = 0
    store_bytes: int = 0
    free_bytes: int = 0
    lost: list[tuple[int, int]] = []
    bodies: list[int] = []
    away: dict[str, str] = {}


class Plan(msgspec.Struct, kw_only=True):
    """What a store needs: steps, and what stands against them.

    Attributes:
        steps: what would be done, in order.
        refusals: why it (or part of it) is not.
        findings: what the scan said.
        prints: of each log that is to be changed, a digest of its files: a plan is for what it was made from.
        logs: how many logs were looked at.
        damaged: the agents whose logs need something.
        away: sources that did not answer, with what they said.
    """

    steps: list[Step] = []
    refusals: list[Refusal] = []
    findings: list[Finding] = []
    prints: dict[str, str] = {}
    logs: int = 0
    damaged: list[str] = []
    away: dict[str, str] = {}

    @property
    def sound(self) -> bool:
        """Whether nothing needs to be done."""
        return not (self.steps or self.refusals)

    def add(self, other: Plan) -> None:
        """Takes over what another plan says."""
        self.steps += other.steps
        self.refusals += other.refusals
        self.findings += other.findings
        self.prints |= other.prints
        self.away |= other.away


class Outcome(msgspec.Struct, kw_only=True):
    """What a repair did.

    Attributes:
        plan: what it found, and what stood against it.
        attempts: the evidence of each attempt, as it was noted.
        repaired: agents whose logs are whole again; of a hub ``hub``.
        blobs: how many blobs were brought back.
    """

    plan: Plan
    attempts: list[dict[str, Any]] = []
    repaired: list[str] = []
    blobs: int = 0

    @property
    def done(self) -> bool:
        """Whether nothing is left to be repaired."""
        return not self.plan.refusals


def strategy_for(kind: str) -> str:
    """The rung of the ladder that takes from a source of this kind."""
    return {HUB: REFETCH, BACKUP: BACKUP_RESTORE}.get(kind, CHECKSUM_MATCH)


def refusals(facts: Facts, policy: Policy) -> list[Refusal]:
    """Everything that stands against a repair of one log; empty when it may run."""
    return [refusal for rule in _RULES if (refusal := rule(facts, policy)) is not None]


def several(damaged: Sequence[str], policy: Policy) -> Refusal | None:
    """The refusal if more than one log of a directory is damaged at once."""
    if len(damaged) < 2 or policy.mass_damage:
        return None
    what = f"{len(damaged)} logs are damaged at once: {', '.join(damaged[:5])}"
    return Refusal("mass damage", what, "look at the disk and the memory first; then holdfast repair --mass-damage")


def _fork(facts: Facts, _: Policy) -> Refusal | None:
    if not facts.forks:
        return None
    what = f"the log of {facts.agent} and that of {facts.forks[0]} go different ways"
    return Refusal("fork", what, "open the store and let it ship: both branches are kept; then repair")


def _below_known(facts: Facts, policy: Policy) -> Refusal | None:
    who, seq = max(facts.known.items(), key=lambda each: each[1], default=("", 0))
    if seq <= facts.head or (who == "anchor" and policy.lost_tail and not _acked(facts)):
        return None
    what = f"the log of {facts.agent} would end at {facts.head}; {who} saw {seq}"
    if who == "anchor":
        hint = "no hub or backup has the rest; if it is to be given up: holdfast repair --lost-tail"
        if facts.away:
            hint = f"{next(iter(facts.away))} did not answer: try again when it does"
        return Refusal("lowers the head", what, hint)
    return Refusal("contradicts a receipt", what, "that hub acknowledged it and holds it: reach it, then repair")


def _acked(facts: Facts) -> bool:
    return any(seq > facts.head for who, seq in facts.known.items() if who != "anchor")


def _hole(facts: Facts, _: Policy) -> Refusal | None:
    if not facts.lost:
        return None
    runs = ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in facts.lost[:5])
    what = f"nobody has the records {runs} of {facts.agent}: the chain cannot be put together again"
    return Refusal("not provable", what, "connect the hub that has them, or name a backup; nothing was changed")


def _bodies(facts: Facts, policy: Policy) -> Refusal | None:
    if not facts.bodies or policy.rollback:
        return None
    shown = ", ".join(map(str, facts.bodies[:5]))
    what = f"nobody has what {len(facts.bodies)} records of {facts.agent} hold (seq {shown})"
    return Refusal("loses a value", what, "holdfast repair --rollback puts their keys back to the last intact version")


def _mass(facts: Facts, policy: Policy) -> Refusal | None:
    if policy.mass_damage or facts.rotten <= max(MASS_MIN, MASS_SHARE * facts.records):
        return None
    what = f"{facts.rotten} of {facts.records} records of {facts.agent} are rotten"
    return Refusal("mass damage", what, "look at the disk and the memory first; then holdfast repair --mass-damage")


def _room(facts: Facts, _: Policy) -> Refusal | None:
    want = ROOM_FACTOR * facts.store_bytes
    if facts.free_bytes >= want:
        return None
    what = f"{facts.free_bytes} bytes are free; a copy of the log of {facts.agent} and a new one take {want}"
    return Refusal("no room", what, "free space on this disk")


def _clock(facts: Facts, _: Policy) -> Refusal | None:
    if not facts.newest_hlc or facts.now_ms + AHEAD_MS_MAX >= millis(facts.newest_hlc):
        return None
    what = f"the clock is behind what {facts.agent} wrote at {to_iso(facts.newest_hlc)}"
    return Refusal("clock", what, "set the clock right first")


_RULES: Final = (_fork, _hole, _below_known, _mass, _bodies, _room, _clock)


def plan_json(plan: Plan) -> dict[str, Any]:
    """The plan as JSON values, for people, programs and plan files."""
    steps = [{**msgspec.structs.asdict(step), "proven": step.proven} for step in plan.steps]
    return {
        "format": 1,
        "sound": plan.sound,
        "logs": plan.logs,
        "damaged": plan.damaged,
        "steps": steps,
        "refusals": [msgspec.structs.asdict(each) for each in plan.refusals],
        "findings": [str(each) for each in plan.findings],
        "prints": plan.prints,
        "away": plan.away,
    }

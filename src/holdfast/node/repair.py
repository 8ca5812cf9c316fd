"""Repairs a node directory: every agent's log, the blobs they refer to, and the node's own files.

`plan` looks and never writes. `repair` freezes what is damaged, does what is proven, and leaves evidence of every
attempt: beside the files, in the log itself, and through it at the hub. Nobody else may have the store open.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from holdfast.clock import SYSTEM, Clock
from holdfast.corpus.engine import Engine
from holdfast.errors import HoldfastError, IntegrityError, NodeFull, NoStore, NotFound, UsageError
from holdfast.integrity import incidents, moments, rebuild
from holdfast.integrity.casework import examine
from holdfast.integrity.checks import Finding
from holdfast.integrity.mending import blob_steps, bring_blobs, note_recovery
from holdfast.integrity.moments import Change
from holdfast.integrity.recovery import (
    MANUAL,
    REDERIVE,
    TIMESTAMP_ROLLBACK,
    Outcome,
    Plan,
    Policy,
    Refusal,
    Step,
    several,
)
from holdfast.integrity.recovery_log import Case, Ground, attempt, mend, sweep
from holdfast.integrity.source import Source
from holdfast.log.erasure import Erasure
from holdfast.node.directory import attach, detach, read_config
from holdfast.node.keys import Keyring
from holdfast.node.refetch import HubSource
from holdfast.objects import BlobFiles
from holdfast.seal import KeyRing
from holdfast.transport.client import Token
from holdfast.wire import Mark

KEYS: Final = "keys.db"
FILES: Final = {"node.db": "node", "cache.db": "cache"}
"""Files of the node that are made again from nothing: what they hold is asked of the hubs anew."""
ICE: Final = ("not provable", "mass damage", "lowers the head")
"""Refusals behind which nothing is written to the log until a person decides."""


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """What a repair works with.

    Attributes:
        hubs: addresses; None: as the directory is configured.
        token: what they know this node by, or the file that holds it.
        sources: further places, such as copies.
        backups: addresses of repositories of backups (`holdfast backup`); None: as the directory is configured.
        ring: the keys of those that are sealed.
        signer: whose backups they must be (a public key in hex); empty: whose each repository says.
        clock: the time.
        free: how many bytes the disk of a path has left.
        erased: erasures that must hold beside those that the logs and keys.db know.
    """

    hubs: Sequence[str] | None = None
    token: Token = None
    sources: Sequence[Source] = ()
    backups: Sequence[str] | None = None
    ring: KeyRing | None = None
    signer: str = ""
    clock: Clock = SYSTEM
    free: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free
    erased: Sequence[Erasure] = ()


def plan(home: Path, tools: Tools = Tools(), policy: Policy = Policy()) -> Plan:  # noqa: B008 - both are frozen
    """What a store needs, and what would be lost by it; writes nothing below `home`.

    Raises:
        Locked: a live process has the store open.
        NoStore: there is none.
    """
    with _Bench(home, tools, policy, make=False) as bench:
        return bench.look()


def repair(
    home: Path,
    tools: Tools = Tools(),  # noqa: B008 - frozen
    policy: Policy = Policy(),  # noqa: B008 - frozen
    only: dict[str, Any] | None = None,
) -> Outcome:
    """Does what is proven, and what `policy` allows; leaves the rest as it is, frozen, with a report.

    Args:
        home: the node directory.
        tools: what it works with.
        policy: what is allowed beyond what is proven.
        only: a plan (`recovery.plan_json`): files that have changed since it was made are left alone.

    Raises:
        Locked: a live process has the store open.
        NoStore: there is none.
        UsageError: `only` is no plan of this version.
    """
    with _Bench(home, tools, policy, make=True) as bench:
        found = bench.look()
        if only is not None:
            bench.hold_to(only, found)
        outcome = bench.work(found)
    _say(home, tools, policy, bench, outcome)
    return outcome


def folders(home: Path) -> Iterator[tuple[str, Path]]:
    """Every agent's folder, also one whose log is gone, by the agent's name."""
    agents = home / "agents"
    for folder in sorted(agents.iterdir()) if agents.is_dir() else ():
        if any((folder / name).exists() for name in (rebuild.LOG, f"{rebuild.LOG}-wal", rebuild.ANCHOR)):
            yield unquote(folder.name), folder


class _Bench:
    """A store with nobody at it, and room for copies."""

    def __init__(self, home: Path, tools: Tools, policy: Policy, *, make: bool) -> None:
        self.home, self.tools, self.policy, self.make = home, tools, policy, make
        self.cases: list[Case] = []
        self.kids: frozenset[bytes] = frozenset()
        self.damaged_files: dict[str, list[str]] = {}
        self.wrong_blobs: dict[bytes, tuple[int, list[tuple[str, int]]]] = {}
        self.incidents: dict[str, Path] = {}
        self.lost: dict[str, list[Any]] = {}
        self.blobs_gone: dict[bytes, list[tuple[str, int]]] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> _Bench:
        read_config(self.home)
        with contextlib.ExitStack() as stack:
            for name in (KEYS, *FILES):
                stack.enter_context(rebuild.alone(self.home / name, make=self.make))
            for _, folder in folders(self.home):
                stack.enter_context(rebuild.alone(folder / rebuild.LOG, make=self.make))
            if self.make:
                sweep(self.home)
            # A plan writes nothing below the store; a repair's copies lie where there must be room for them anyway.
            where = str(self.home) if self.make else None
            made = stack.enter_context(tempfile.TemporaryDirectory(prefix=".repair-", dir=where))
            self.scratch = Path(made)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for case in self.cases:
            case.close()
        self._stack.close()

    # -- looking ------------------------------------------------------------------------------------------------

    def look(self) -> Plan:
        found = Plan()
        keys = self._keys(found)
        acked = self._acked(found)
        self._file("cache.db", found)
        hubs = self.tools.hubs
        urls = list(read_config(self.home).get("hubs") or ()) if hubs is None else list(hubs)
        asked = [HubSource(url, self.tools.token, keys) for url in urls]
        for hub in asked:
            self._stack.callback(hub.close)
        self.sources: list[Source] = [*asked, *self.tools.sources, *self._backups(keys, found)]
        tools = self.tools
        self.ground = Ground(
            keys=keys,
            sources=self.sources,
            acked=acked,
            erased=tools.erased,
            kids=self.kids,
            clock=tools.clock,
            free=tools.free,
        )
        for number, (agent, folder) in enumerate(folders(self.home)):
            case = examine(folder, agent, self.ground, self.scratch / str(number))
            self.cases.append(case)
            found.logs += 1
            found.add(case.plan(self.policy))
        found.damaged = [case.agent for case in self.cases if case.needed]
        against = several(found.damaged, self.policy)
        if against is not None:
            found.refusals.append(against)
        self._look_at_blobs(found)
        return found

    def _backups(self, keys: Sequence[bytes], found: Plan) -> Iterator[Source]:
        """The repositories of backups; one that cannot be reached is told like a hub that does not answer."""
        tools = self.tools
        known = list(read_config(self.home).get("backups") or ()) if tools.backups is None else tools.backups
        if known:
            from holdfast.integrity.backup import BackupSource, Repository
            from holdfast.node.objects import open_store
        for address in known:
            try:
                store = self._stack.enter_context(open_store(address))
            except (HoldfastError, OSError) as error:
                found.away[f"backup {address.partition('?')[0].rpartition('@')[2]}"] = str(error)
                continue
            yield BackupSource(Repository(store, tools.ring, signer=tools.signer), keys)

    def _look_at_blobs(self, found: Plan) -> None:
        refers: dict[bytes, tuple[int, list[tuple[str, int]]]] = {}
        for case in self.cases:
            for digest, (size, seqs) in case.blobs.items():
                refers.setdefault(digest, (size, []))[1].extend((case.agent, seq) for seq in seqs)
        files = BlobFiles(self.home / "blobs")
        self.wrong_blobs = {digest: who for digest, who in refers.items() if not files.verify(digest)}
        if self.wrong_blobs:
            blob_steps(self.wrong_blobs, self.ground, files, self.policy, found)

    def _copy(self, name: str) -> Path:
        into = self.scratch / name
        copy = rebuild.copy_of(self.home / name, into)
        renamed = into / name
        for end in rebuild.BESIDE[:2]:
            if Path(f"{copy}{end}").exists():
                Path(f"{copy}{end}").rename(f"{renamed}{end}")
        return renamed

    def _keys(self, found: Plan) -> list[bytes]:
        hint = "put the node's own keys.db back from a backup: without it nobody can write to these logs"
        try:
            if not (self.home / KEYS).exists():
                raise IntegrityError("keys.db is not there")
            keyring = Keyring(self._copy(KEYS), self.tools.clock)
            try:
                keys = keyring.public_keys()
                self.kids = frozenset(keyring.destroyed())
                wrong = keyring.scrub()
            finally:
                keyring.close()
            if wrong:
                raise IntegrityError(f"keys.db: {wrong[0]}")
        except HoldfastError as error:
            found.findings.append(Finding("page", "", 0, error.message, hint))
            found.steps.append(Step(agent="", part=KEYS, check="page", strategy=MANUAL, actual=error.message))
            found.refusals.append(Refusal("not provable", error.message, hint))
            return []
        return keys

    def _acked(self, found: Plan) -> dict[str, dict[bytes, Mark]]:
        acked: dict[str, dict[bytes, Mark]] = {}
        rows = self._file("node.db", found, "SELECT hub, stream, acked_seq, acked_link FROM position")
        for hub, stream, seq, link in rows:
            if seq:
                acked.setdefault(hub, {})[bytes(stream)] = Mark(seq, bytes(link))
        return acked

    def _file(self, name: str, found: Plan, query: str = "") -> list[Any]:
        """Whether a file that may be made again is sound; the rows of a question to it."""
        if not (self.home / name).exists():
            return []
        rows: list[Any] = []
        try:
            engine = Engine(self._copy(name), roles=(FILES[name],))
            try:
                wrong = [str(engine.diagnosis)] if engine.diagnosis and engine.diagnosis.damaged else engine.scrub()
                rows = engine.query(query) if query else []
            finally:
                engine.close()
        except HoldfastError as error:
            wrong = [error.message]
        if wrong:
            self.damaged_files[name] = wrong
            found.findings.append(Finding("page", "", 0, f"{name}: {wrong[0]}"))
            found.steps.append(
                Step(agent="", part=name, check="page", strategy=REDERIVE, source="the hubs", actual=wrong[0])
            )
        return rows

    # -- doing --------------------------------------------------------------------------------------------------

    def hold_to(self, only: dict[str, Any], found: Plan) -> None:
        """Refuses what the given plan was not made for."""
        prints = only.get("prints")
        if only.get("format") != 1 or not isinstance(prints, dict):
            raise UsageError("this is no plan of holdfast repair --plan", hint="make one: holdfast repair --plan FILE")
        for case in self.cases:
            if case.needed and prints.get(case.agent) != case.print:
                what = f"the log of {case.agent} is not as it was when the plan was made"
                found.refusals.append(Refusal("another plan", what, "look again: holdfast repair --plan FILE"))

    def work(self, found: Plan) -> Outcome:
        outcome = Outcome(plan=found)
        stopped = any(each.rule in ("mass damage", "another plan") for each in found.refusals)
        for name in self.damaged_files:
            self._remake(name, outcome)
        for case in self.cases:
            sweep(case.folder)
            if case.needed:
                self._one(case, outcome, stopped)
        if self.wrong_blobs and not stopped:
            self._blobs(outcome)
        return outcome

    def _remake(self, name: str, outcome: Outcome) -> None:
        path = self.home / name
        begun = time.perf_counter()
        try:
            incident = incidents.freeze(path, {"findings": self.damaged_files[name]})
        except (NodeFull, OSError) as error:
            outcome.plan.refusals.append(Refusal("no quarantine copy", str(error), "free space on this disk"))
            return
        for end in ("-shm", "-wal", ""):
            Path(f"{path}{end}").unlink(missing_ok=True)
        line = {"incident": incident.name, "part": name, "outcome": "made again", "strategy": REDERIVE}
        self._note(self.home, {**line, "seconds": round(time.perf_counter() - begun, 3)}, outcome)

    def _one(self, case: Case, outcome: Outcome, stopped: bool) -> None:
        begun = time.perf_counter()
        against = case.plan(self.policy).refusals
        refused = bool(against) or stopped
        try:
            incident = self._freeze(case)
        except (NodeFull, OSError) as error:
            outcome.plan.refusals.append(Refusal("no quarantine copy", str(error), "free space on this disk"))
            return
        self.incidents[case.agent] = incident
        said: dict[str, Any] = {"outcome": "refused", "refusals": [str(each) for each in outcome.plan.refusals]}
        if not refused:
            try:
                self.lost[case.agent] = mend(case, self.policy, self.ground, incident)
                said = {"outcome": "repaired"}
                outcome.repaired.append(case.agent)
            except (HoldfastError, OSError) as error:
                said = {"outcome": "failed", "error": str(error)}
                outcome.plan.refusals.append(Refusal("not provable", str(error), "the old files are as they were"))
                refused = True
        evidence = attempt(case, case.steps, begun, incident=incident.name, **said)
        self._note(case.folder, evidence, outcome)
        if refused:
            report = msgspec.json.format(msgspec.json.encode(evidence), indent=1)
            (incident / "report.json").write_bytes(report)
            if any(each.rule in ICE for each in outcome.plan.refusals):
                incidents.put_on_ice(case.folder, incident.name)

    def _freeze(self, case: Case) -> Path:
        """The copies of this very state: those of an earlier attempt, or new ones."""
        for each in reversed(incidents.kept(case.folder, case.agent)):
            if each.here and each.note.get("print") == case.print:
                return Path(each.path)
        found = [str(finding) for finding in case.findings[:20]]
        return incidents.freeze(case.folder / rebuild.LOG, {"print": case.print, "findings": found})

    def _blobs(self, outcome: Outcome) -> None:
        files = BlobFiles(self.home / "blobs")
        lines, self.blobs_gone = bring_blobs(self.wrong_blobs, self.ground, files, self.home)
        outcome.blobs = len(self.wrong_blobs) - len(self.blobs_gone)
        for line in lines:
            self._note(self.home, line, outcome)

    def _note(self, folder: Path, line: dict[str, Any], outcome: Outcome) -> None:
        incidents.record(folder, line, self.tools.clock)
        outcome.attempts.append(line)


def _say(home: Path, tools: Tools, policy: Policy, bench: _Bench, outcome: Outcome) -> None:
    """Leaves the evidence in the logs themselves, from where it reaches the hub; puts back values that were lost."""
    gone: dict[str, list[int]] = {}
    if policy.rollback:
        for who in bench.blobs_gone.values():
            for agent, seq in who:
                gone.setdefault(agent, []).append(seq)
    agents = sorted({*outcome.repaired, *gone})
    if not agents:
        return
    directory = attach(home, make=False)
    try:
        for agent in agents:
            evidence = next((a for a in outcome.attempts if a.get("agent") == agent), {"agent": agent})
            opened = directory.open_log(agent, None)
            try:
                lost = [piece.seq for piece in bench.lost.get(agent, ())]
                made = note_recovery(opened.log, evidence, lost, gone.get(agent, ()))
            finally:
                directory.release_log(opened)
            if lost or gone.get(agent):
                line = {"incident": evidence.get("incident", ""), "agent": agent, "rolled_back": made}
                folder = next(folder for name, folder in folders(home) if name == agent)
                incidents.record(folder, line, tools.clock)
                outcome.attempts.append(line)
    finally:
        detach(directory)


def all_incidents(home: Path) -> list[incidents.Kept]:
    """Every incident of a node directory, oldest first.

    Raises:
        NoStore: there is none at this path.
    """
    if not home.is_dir():
        raise NoStore(f"no store at {home}", hint="holdfast init")
    found = incidents.kept(home, "")
    for agent, folder in folders(home):
        found += incidents.kept(folder, agent)
    return sorted(found, key=lambda each: (each.time, each.incident))


def to_moment(home: Path, agent: str, moment: int, *, confirmed: bool, clock: Clock = SYSTEM) -> list[Change]:
    """What it takes to have an agent's values of an earlier moment again; with `confirmed` it is written.

    Args:
        home: the node directory.
        agent: whose.
        moment: a stamp.
        confirmed: somebody has seen the changes and wants them; the log is copied into quarantine first.
        clock: the time.

    Raises:
        IntegrityError: the log is not sound.
        Locked: a live process has the store open.
        NotFound: there is no such agent here.
    """
    folder = dict(folders(home)).get(agent)
    if folder is None:
        raise NotFound(f"no agent {agent} on this machine", hint="holdfast ls --agents")
    incident: Path | None = None
    with rebuild.alone(folder / rebuild.LOG, make=True):
        if confirmed:
            incident = incidents.freeze(folder / rebuild.LOG, {"strategy": TIMESTAMP_ROLLBACK})
    directory = attach(home, make=False)
    try:
        opened = directory.open_log(agent, None)
        try:
            found = moments.changes(opened.log, moment)
            if incident is not None:
                (incident / "changes.jsonl").write_bytes(moments.side_state(found))
                line = {"incident": incident.name, "agent": agent, "strategy": TIMESTAMP_ROLLBACK, "keys": len(found)}
                incidents.record(folder, line, clock)
                moments.take_back(opened.log, moment, found, {"incident": incident.name, "tool": incidents.tool()})
        finally:
            directory.release_log(opened)
    finally:
        detach(directory)
    return found

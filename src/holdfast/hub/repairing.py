"""The bench on which a hub's file is put right: what is damaged, what proves that, and what may be done about it.

Each step is a method that another kind of place may do its own way: a hub's directory is repaired here, a database
of a hub in `repair_database`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.clock import AHEAD_MS_MAX, millis, to_iso
from holdfast.corpus import SqlCorpus, SqliteCorpus
from holdfast.disk import sync_directory
from holdfast.errors import HoldfastError, IntegrityError, NodeFull, UsageError
from holdfast.hub.directory import take
from holdfast.hub.repair_parts import FILE, Base, Owed, Tools, holder, is_on_course, referred_blobs, step
from holdfast.hub.repair_standby import Standby, read_own_keys, refill
from holdfast.integrity import incidents, rebuild
from holdfast.integrity.backup import HUB, BackupSource, Moment, Part, Repository, restore
from holdfast.integrity.backup import tail as tails
from holdfast.integrity.backup.manifest import PartEntry
from holdfast.integrity.backup.source import Tables
from holdfast.integrity.checks import BLOB_SCRUB, Finding
from holdfast.integrity.recovery import (
    BACKUP_RESTORE,
    CHECKSUM_MATCH,
    MANUAL,
    MASS_MIN,
    MASS_SHARE,
    REFETCH,
    ROOM_FACTOR,
    Outcome,
    Plan,
    Policy,
    Refusal,
    Step,
    strategy_for,
)
from holdfast.integrity.scan import FINDINGS_MAX, Scan, verify_corpus
from holdfast.log.erasure import erasures, reapply
from holdfast.objects import BlobFiles
from holdfast.objects.opening import open_store
from holdfast.wire import Mark

CLEAN: Final = "hub.clean"


class Bench:
    """A hub's directory that nobody serves, and room for copies."""

    def __init__(
        self, home: Path, tools: Tools, policy: Policy, *, make: bool, served: bool = False, keep: int = 0
    ) -> None:
        self.home, self.tools, self.policy, self.make = home, tools, policy, make
        self.served, self.keep = served, keep
        self.file = home / FILE
        self.blobs: Any = BlobFiles(home / "blobs")
        self.base: Base | None = None
        self.tail = tails.Tail(after=0, upto=0)
        self.part: Part | None = None
        self.sources: list[BackupSource | Standby] = []
        self.standby: Standby | None = None  # reached
        self.owed: list[Owed] | None = None
        self.wrong_blobs: dict[bytes, int] = {}
        self.rebuilds = self.refills = False
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Bench:
        if not (self.home / "keys.db").exists() and not self.file.exists():
            raise UsageError(f"{self.home} is no hub's directory", hint="the directory that serve --data was given")
        with contextlib.ExitStack() as stack:
            if not self.served:
                stack.callback(os.close, take(self.home))
                stack.enter_context(rebuild.alone(self.file, make=self.make))
            if self.make:
                for left in self.home.glob(".repair-*"):
                    shutil.rmtree(left, ignore_errors=True)
            where = str(self.home) if self.make else None
            self.scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".repair-", dir=where)))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        if self.tools.standby is not None:
            self.tools.standby.close()
        if self.part is not None:
            self.part.corpus.close()
        self._stack.close()

    # -- looking ------------------------------------------------------------------------------------------------

    def look(self) -> Plan:
        """What is damaged, what can be done, and what stands against it."""
        found = Plan(logs=1)
        scan = self.scan(found)
        self.rebuilds = self.part is None or any(each.check != BLOB_SCRUB for each in found.findings)
        self._reach(found)
        self._reach_standby(found)
        if self.rebuilds:
            found.damaged = ["hub"]
            self._plan_file(found, scan)
        self._plan_blobs(found)
        return found

    def scan(self, found: Plan) -> Scan:
        """Proves a copy of the file; what cannot be opened is found, too."""
        from holdfast.sqlite import doctor

        diagnosis = None if self.served else doctor.examine(self.file)
        if diagnosis is not None and diagnosis.damaged:
            what = f"the WAL is {diagnosis.state}: {diagnosis.commits_behind} commits lie behind its damage"
            found.findings.append(Finding("wal", "", 0, what))
        scan = Scan()
        try:
            if not self.file.exists():
                raise IntegrityError(f"{FILE} is not there")
            copy = self.file if self.served else rebuild.copy_of(self.file, self.scratch / "copy")
            corpus = SqliteCorpus(copy, hub=True)
            self.part = Part(HUB, FILE, corpus, self.blobs)
            scan = verify_corpus(corpus, self.blobs)
            found.findings += scan.findings
            if (self.home / "keys.db").exists() and not corpus.one("SELECT count(*) FROM lineage")[0]:
                what = f"{FILE} knows of no generation, and this hub was served: it was emptied, or is another file"
                found.findings.append(Finding("version", "", 0, what))
            self.note_blobs(corpus)
        except HoldfastError as error:
            found.findings.append(Finding("page", "", 0, f"{FILE} cannot be read: {error.message}"))
        return scan

    def note_blobs(self, corpus: SqlCorpus) -> None:
        """Remembers the blobs that records refer to and that are not here, or are rotten."""
        with contextlib.suppress(HoldfastError):
            for digest, size in referred_blobs(corpus):
                if not self.blobs.verify(digest):
                    self.wrong_blobs[digest] = size

    def _reach(self, found: Plan) -> None:
        """Finds the newest backup of this hub."""
        keys = self._keys()
        for address in self.tools.backups:
            name = f"backup {address.partition('?')[0].rpartition('@')[2]}"
            try:
                store = self._stack.enter_context(open_store(address))
                repository = Repository(store, self.tools.ring, signer=self.tools.signer)
                if not self.tools.signer and repository.keys[0] not in keys:
                    raise UsageError("its backups are not signed by this hub's key", hint="--signer HEX")
                names, verified = repository.names(), repository.verified()
                newest, part = self._on_course(repository, sorted(names, key=lambda each: (each in verified, each)))
                heads = {branch: Mark(seq, bytes.fromhex(link)) for branch, seq, link in part.heads}
                base = Base(repository=repository, name=newest, pos=part.pos, records=part.records, heads=heads)
            except (HoldfastError, OSError, ValueError, IndexError) as error:
                found.away[name] = str(error)
                continue
            self.sources.append(BackupSource(repository, keys))
            if self.base is None or base.pos > self.base.pos:
                self.base = base

    def _reach_standby(self, found: Plan) -> None:
        """Asks the standby, if there is one, how far it holds each stream."""
        standby = self.tools.standby
        if standby is None:
            return
        try:
            standby.reach(self._keys())
        except (HoldfastError, OSError, ValueError) as error:
            found.away[standby.name] = str(error)
            return
        self.standby = standby
        self.sources.append(standby)

    def _find_owed(self, whole: int) -> list[Owed] | None:
        """How far the file says that the hub's own streams went, where that is behind what is proven; None: unknown."""
        tables, part = self.tail.tables, self.part
        if tables is None or part is None:
            return None
        streams = {row[0]: bytes(row[1]) for row in tables.rows["stream"]}
        owed = []
        for row in tables.rows["branch"]:
            if row[0] not in tables.own or row[6] <= row[4]:
                continue
            proven = None
            with contextlib.suppress(HoldfastError):
                proven = part.corpus.one("SELECT max(seq) FROM rec WHERE branch=? AND pos<=?", (row[0], whole))[0]
            if (proven or 0) < row[6]:
                owed.append(Owed(streams[row[1]], bytes(row[2]), Mark(row[6], bytes(row[7]))))
        return owed

    def _is_brought(self, owed: list[Owed] | None, found: Plan) -> bool:
        """Whether the standby has all that plain clients wrote behind what is proven here."""
        if owed is None or self.standby is None:
            return False
        try:
            return all(self.standby.holds(each.stream, each.inc, each.mark) for each in owed)
        except HoldfastError as error:
            found.away[self.standby.name] = str(error)
            return False

    def _on_course(self, repository: Repository, names: list[str]) -> tuple[str, PartEntry]:
        """The last of these backups whose positions are those of this file: one that it was put back from is none.

        Raises:
            UsageError: none is.
        """
        lineage: list[tuple[str, int]] = []
        if self.part is not None:
            with contextlib.suppress(HoldfastError):
                lineage = self.part.corpus.query("SELECT gen, first FROM lineage ORDER BY ord")
        for name in reversed(names):
            part = repository.backup(name).parts[0]
            rows = sorted(repository.document(part.tables, Tables).rows["lineage"], key=lambda row: row[3])
            if is_on_course(lineage, [(row[0], row[1]) for row in rows], part.pos):
                return name, part
        raise UsageError("none of its backups is of what this hub is now", hint="it was put back since they were made")

    def _keys(self) -> list[bytes]:
        return [bytes(row[0]) for row in self.key_rows()]

    def key_rows(self) -> list[Any]:
        """The hub's keys, as rows; none where they cannot be read."""
        try:
            return read_own_keys(self.home)
        except HoldfastError:
            return []

    def _plan_file(self, found: Plan, scan: Scan) -> None:
        base = self.base
        if self.part is not None:
            self.tail = tails.look(self.part, base.pos if base else 0, base.heads if base else {})
        tail = self.tail
        check = found.findings[0].check if found.findings else "page"
        if base is not None:
            source = f"backup {base.repository.store.name} {base.name}"
            found.steps.append(step(check, BACKUP_RESTORE, 1, base.pos, source, base.records))
        if tail.upto > tail.after:
            own = "its own records"
            found.steps.append(step(check, CHECKSUM_MATCH, tail.after + 1, tail.upto, own, tail.upto - tail.after))
        self._refuse(found, scan)

    def _refuse(self, found: Plan, scan: Scan) -> None:
        tail, policy = self.tail, self.policy
        whole = max(tail.upto, self.base.pos if self.base else 0)
        if not whole or tail.last > whole or not tail.last:
            self.refills, self.owed = self.standby is not None, self._find_owed(whole)
            if self._is_brought(self.owed, found) and self.standby is not None:
                count = tail.last - whole
                found.steps.append(step("page", REFETCH, whole + 1, tail.last, self.standby.name, count))
            else:
                self._give_up(found, whole)
        bad = len(scan.findings) + scan.left_out
        if not policy.mass_damage and (bad >= FINDINGS_MAX or bad > max(MASS_MIN, MASS_SHARE * scan.records)):
            what = f"{bad} findings in {scan.records} records"
            hint = "look at the disk and the memory first; then holdfast repair --mass-damage"
            found.refusals.append(Refusal("mass damage", what, hint))
        files = [Path(f"{self.file}{end}") for end in ("", "-wal")]
        size = sum(each.stat().st_size for each in files if each.exists())
        free = self.tools.free(self.home)
        if free < ROOM_FACTOR * size:
            what = f"{free} bytes are free; a copy of {FILE} and a new one take {ROOM_FACTOR * size}"
            found.refusals.append(Refusal("no room", what, "free space on this disk"))
        newest = self._newest_hlc()
        if newest and self.tools.clock.now_ms() + AHEAD_MS_MAX < millis(newest):
            what = f"the clock is behind what was written at {to_iso(newest)}"
            found.refusals.append(Refusal("clock", what, "set the clock right first"))

    def _give_up(self, found: Plan, whole: int) -> None:
        """What is behind the last proven position is lost, unless nodes have it: only if somebody said so."""
        tail = self.tail
        beyond = f"the {tail.last - whole} records behind position {whole}" if tail.last else "how many there were"
        what = f"{beyond} cannot be proven ({tail.why or 'the file does not say'})"
        lost = "what plain clients wrote there; nodes bring theirs again"
        if self.standby is not None:
            lost = f"what plain clients wrote there and {self.standby.name} has not; nodes bring theirs again"
        found.steps.append(
            Step(agent="", part=FILE, check="page", strategy=MANUAL, first=whole + 1, last=tail.last, lost=lost)
        )
        if not self.policy.lost_tail:
            hint = "name a newer backup: --backup ADDRESS, or the standby: --standby URL; or give them up: --lost-tail"
            found.refusals.append(Refusal("lowers the head", what, hint))
        elif whole < self.keep:
            what = f"all behind position {whole} would be given up, and not behind {self.keep} as was shown"
            found.refusals.append(Refusal("lowers the head", what, "look at the plan again, and decide anew"))

    def _newest_hlc(self) -> int:
        with contextlib.suppress(HoldfastError):
            if self.part is not None and self.tail.upto:
                found = self.part.corpus.at(self.tail.upto)
                return found.record.hlc if found else 0
        return 0

    def _plan_blobs(self, found: Plan) -> None:
        bare = 0
        for digest, size in self.wrong_blobs.items():
            source = holder(self.sources, digest, size)
            bare += source is None
            found.steps.append(
                Step(
                    agent="",
                    part="blob",
                    check=BLOB_SCRUB,
                    strategy=strategy_for(source.kind) if source else MANUAL,
                    source=source.name if source else "",
                    records=1,
                    expected=digest.hex(),
                    actual="its bytes are others" if self.blobs.has(digest) else "not there",
                    lost="" if source else f"{size} bytes, until a node that has them ships them again",
                )
            )
        if bare:
            what = f"nobody here has {bare} of the blobs that records refer to"
            found.refusals.append(Refusal("loses a value", what, "--backup ADDRESS; its nodes may have them"))

    # -- doing --------------------------------------------------------------------------------------------------

    def work(self, found: Plan) -> Outcome:
        """Does what a plan says, as far as nothing stands against it."""
        outcome = Outcome(plan=found)
        if found.sound:
            return outcome
        if self.rebuilds:
            self._rebuild(found, outcome)
        stopped = any(each.rule == "mass damage" for each in found.refusals)
        for digest, size in self.wrong_blobs.items() if not stopped else ():
            self._bring(digest, size, outcome)
        return outcome

    def _rebuild(self, found: Plan, outcome: Outcome) -> None:
        begun = time.perf_counter()
        said = [str(each) for each in found.findings[:20]]
        try:
            incident = self.freeze(said)
        except (NodeFull, OSError) as error:
            found.refusals.append(Refusal("no quarantine copy", str(error), "free space on this disk"))
            return
        against = [each for each in found.refusals if each.rule != "loses a value"]
        line: dict[str, Any] = {"incident": incident, "part": FILE, "findings": said}
        line |= {"steps": [msgspec.structs.asdict(each) for each in found.steps[:50]], "tool": incidents.tool()}
        if against:
            line |= {"outcome": "refused", "refusals": [str(each) for each in against]}
            self.report(incident, line)
        else:
            try:
                line |= {"outcome": "repaired", **self._mend()}
                outcome.repaired.append("hub")
            except (HoldfastError, OSError) as error:
                line |= {"outcome": "failed", "error": str(error)}
                found.refusals.append(Refusal("not provable", str(error), "the old files are as they were"))
        self.note({**line, "seconds": round(time.perf_counter() - begun, 3)}, outcome)

    def _mend(self) -> dict[str, Any]:
        """Builds the file anew, proves it, and puts it in the old one's place; what it holds, for the evidence."""
        made, base = self.scratch / "made", self.base
        if base is not None:
            restore(base.repository, made, Moment(backup=base.name), finish=lambda *_: None)
        else:
            made.mkdir(mode=0o700)
        with contextlib.closing(SqliteCorpus(made / FILE, hub=True)) as corpus:
            own = tails.extend(corpus, self.part, self.tail) if self.part is not None else 0
        told: dict[str, Any] = {"own_records": own, "backup": base.name if base else ""}
        if self.refills and self.standby is not None:
            told |= {"refetched": refill(made, self.key_rows(), self.standby), "source": self.standby.name}
        with contextlib.closing(SqliteCorpus(made / FILE, hub=True)) as corpus:
            self._take_blobs(corpus, BlobFiles(made / "blobs"))
            reapply(corpus, self.blobs, erasures(corpus))  # what came behind the backup erases in it, too
            scan = verify_corpus(corpus)
            if not scan.sound:
                raise IntegrityError(f"what was put together does not prove itself: {scan.findings[0]}")
            self._check_owed(corpus)
            told |= {"records": scan.records, "position": corpus.last()}
            corpus.sync()
            corpus.checkpoint()
        with open(made / FILE, "rb") as file:
            os.fsync(file.fileno())
        self.put(made)
        return told

    def _take_blobs(self, corpus: SqliteCorpus, restored: BlobFiles) -> None:
        for digest, size in referred_blobs(corpus):
            if not self.blobs.verify(digest):
                if restored.has(digest):
                    self.blobs.put(iter((restored.read(digest),)), expect=digest)
                    self.wrong_blobs.pop(digest, None)
                else:
                    self.wrong_blobs.setdefault(digest, size)

    def _check_owed(self, corpus: SqliteCorpus) -> None:
        """Whether the standby brought what it holds of this hub's own streams, unless that may be given up.

        Raises:
            IntegrityError: it did not.
        """
        sql = (
            "SELECT r.link FROM rec r JOIN branch b ON b.id=r.branch JOIN stream s ON s.id=b.stream"
            " WHERE s.stream=? AND b.inc=? AND r.seq=?"
        )
        for each in self.owed or () if self.standby is not None and not self.policy.lost_tail else ():
            row = corpus.one(sql, (each.stream, each.inc, each.mark.seq))
            if row is None or bytes(row[0]) != each.mark.link:
                raise IntegrityError(f"{self.standby.name if self.standby else ''} did not bring all that it holds")

    def put(self, made: Path) -> None:
        """Puts what was made in the place of what was damaged."""
        for name in (f"{FILE}-shm", f"{FILE}-wal", CLEAN):
            (self.home / name).unlink(missing_ok=True)
        sync_directory(self.home)
        os.replace(made / FILE, self.file)
        sync_directory(self.home)

    def _bring(self, digest: bytes, size: int, outcome: Outcome) -> None:
        line: dict[str, Any] = {"part": "blob", "expected": digest.hex(), "size": size, "tool": incidents.tool()}
        try:
            if self.blobs.has(digest):
                line["incident"] = self.set_aside(digest)
            source = holder(self.sources, digest, size)
            pieces = source.blob(digest, size) if source is not None else None
            if source is None or pieces is None:
                line["outcome"] = "nobody has it"
            else:
                self.blobs.put(pieces, expect=digest)
                outcome.blobs += 1
                line |= {"outcome": "repaired", "strategy": strategy_for(source.kind), "source": source.name}
        except (HoldfastError, OSError) as error:
            line |= {"outcome": "failed", "error": str(error)}
            outcome.plan.refusals.append(Refusal("not provable", str(error), "the old file is as it was"))
        self.note(line, outcome)

    # -- evidence -----------------------------------------------------------------------------------------------

    def freeze(self, said: list[str]) -> str:
        """Copies what is damaged aside, before anything is changed; the name of the incident."""
        return incidents.freeze(self.file, {"findings": said}, [self.home / CLEAN]).name

    def report(self, incident: str, line: dict[str, Any]) -> None:
        """Keeps beside the copies why nothing was done."""
        path = self.home / incidents.FOLDER / incident / "report.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(line), indent=1))

    def set_aside(self, digest: bytes) -> str:
        """Copies a rotten blob aside; the name of the incident."""
        return incidents.freeze(self.home / "blobs", {"blob": digest.hex()}, [self.blobs.path(digest)]).name

    def note(self, line: dict[str, Any], outcome: Outcome) -> None:
        """Notes what was tried."""
        incidents.record(self.home, line, self.tools.clock)
        outcome.attempts.append(line)

"""What integrity costs: the levels, proving a log, one entry of the swarm's storage, backups beside other tools."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import zstandard

from bench.harness import (
    Effort,
    Figures,
    Goal,
    Report,
    Scenario,
    Table,
    Turns,
    Wrong,
    ms,
    number,
    quantile,
    same,
    take_turns,
    times,
    us,
)
from bench.processes import program, scratch
from holdfast import Store
from holdfast.integrity import DataIntegrityManager, PersistentDataStorage, StorageType
from holdfast.integrity.backup import Repository, create, restore, verify
from holdfast.node.backup import finish_node, node_source
from holdfast.node.directory import attach, detach
from holdfast.node.proving import prove
from holdfast.objects.files.store import FileStore

LEVELS = ("basic", "advanced", "critical")
LEVEL_MOST = 1.1
VERIFY_LEAST = 100_000
MORE = 1_000
TIMES = 9
"""So many incremental backups in a turn."""
MORE_MOST_MS = 100.0
RESTORE_MOST_S = 20.0
ENTRY_MOST_MS = {"write": 5.0, "read": 3.0, "check": 2.0}
"""A tenth of what the seed allows."""
MINE = "Holdfast"
FLOOR = "tar, zstd and SHA-256 (floor)"
SECRET = {"RESTIC_PASSWORD": "bench", "BORG_PASSPHRASE": "", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}


def values(first: int, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """What agents keep: some 250 bytes each, a third as many keys."""
    for n in range(first, first + count):
        text = hashlib.sha256(str(n).encode()).hexdigest()
        yield f"task-{n % max(1, count // 3)}", {"n": n, "state": "done", "result": text * 2, "by": "agent-1"}


def fill(home: Path, first: int, count: int) -> None:
    """Puts so many records into a node's store."""
    with Store(home, "ada", hub=(), level="basic") as store:
        found = list(values(first, count))
        for at in range(0, count, 500):
            with store.batch() as batch:
                for key, value in found[at : at + 500]:
                    batch.put(key, value)


def size_of(folder: Path) -> int:
    """Bytes of all files below a directory."""
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())


def clocked(job: Callable[[], Any]) -> tuple[float, Any]:
    """How long it took, in seconds, and what came of it."""
    began = time.perf_counter()
    done = job()
    return time.perf_counter() - began, done


# -- the levels, and proving ----------------------------------------------------------------------------------------


def put_at(level: str, count: int) -> Figures:
    """Seconds of one put at a level, on the average of many: what it costs in the background is in it."""
    with scratch() as home:
        found = list(values(0, count))
        with Store(home / "node", "ada", hub=(), level=level) as store:
            took, _ = clocked(lambda: [store.put(key, value) for key, value in found])
            same(store.get(found[-1][0]), found[-1][1], level)
    return {"put": took / count}


def proven(home: Path, count: int) -> Figures:
    """How many records a second `holdfast verify` proves, by the clock and by what it burns."""
    burnt = time.process_time()
    took, scan = clocked(lambda: prove(home, "ada"))
    burnt = time.process_time() - burnt
    if not scan.sound or scan.records < count:
        raise Wrong(f"{scan.records} of {count} records proven: {scan.findings[:1]}")
    return {"a_second": scan.records / took, "a_cpu_second": scan.records / burnt}


def entries(count: int) -> Figures:
    """The seed's three: one entry written, read and checked, at the 99th of a hundred."""
    took: dict[str, list[float]] = {name: [] for name in ENTRY_MOST_MS}
    with scratch() as home, PersistentDataStorage(home, StorageType.HYBRID, backup_interval_s=None) as storage:
        manager = DataIntegrityManager(storage)
        for name, value in values(0, count):
            took["write"].append(clocked(partial(storage.store, name, value))[0])
            spent, read = clocked(partial(storage.retrieve, name))
            same(read, value, name)
            took["read"].append(spent)
            spent, checks = clocked(partial(manager.check, name))
            if not all(check.passed for check in checks):
                raise Wrong(f"{name}: {checks}")
            took["check"].append(spent)
    return {f"{name}_p99": quantile(each, 0.99) for name, each in took.items()}


# -- backups --------------------------------------------------------------------------------------------------------


class Mine:
    """Holdfast's own."""

    def __init__(self, root: Path) -> None:
        self.repository = root / "repository"

    def back_up(self, home: Path) -> None:
        directory = attach(home, make=False)
        try:
            with node_source(directory) as source, FileStore(self.repository) as store:
                create(Repository(store), source)
        finally:
            detach(directory)

    def check(self) -> None:
        with FileStore(self.repository) as store:
            found = verify(Repository(store))
        if not found.sound:
            raise Wrong(str(found.findings[:1]))

    def bring_back(self, target: Path) -> Path:
        with FileStore(self.repository) as store:
            restore(Repository(store), target, finish=_finish)
        return target


def _finish(work: Path, documents: dict[str, bytes]) -> None:
    finish_node(work, documents)


class Floor:
    """All of it in one compressed archive with its digest beside it: no proof, no increments, no older state."""

    def __init__(self, root: Path) -> None:
        self.repository = root / "repository"
        self.repository.mkdir()

    def back_up(self, home: Path) -> None:
        path = self.repository / f"{len(list(self.repository.iterdir())):08}.tar.zst"
        with (
            open(path, "wb") as raw,
            zstandard.ZstdCompressor(level=3).stream_writer(raw) as out,
            tarfile.open(fileobj=out, mode="w|") as tar,
        ):
            tar.add(home, "home")
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        path.rename(path.with_name(f"{path.name}.{digest}"))

    def check(self) -> None:
        for path in self.repository.iterdir():
            with open(path, "rb") as file:
                same(hashlib.file_digest(file, "sha256").hexdigest(), path.suffix[1:], path.name)

    def bring_back(self, target: Path) -> Path:
        newest = max(self.repository.iterdir())
        with (
            open(newest, "rb") as raw,
            zstandard.ZstdDecompressor().stream_reader(raw) as out,
            tarfile.open(fileobj=out, mode="r|") as tar,
        ):
            tar.extractall(target, filter="data")
        return target / "home"


class Program:
    """Somebody else's, as a process each time.

    Args:
        root: where its repository and its caches go.
        words: its commands: begin, back_up, check, bring_back; ``{repository}`` and such are filled in.
    """

    def __init__(self, root: Path, words: dict[str, Sequence[str]]) -> None:
        self.repository, self._words = root / "repository", words
        self._environment = os.environ | SECRET | {"HOME": str(root), "XDG_CACHE_HOME": str(root / "cache")}
        self._count = 0
        self._home = Path()
        self._run("begin")

    def back_up(self, home: Path) -> None:
        self._home, self._count = home, self._count + 1
        self._run("back_up", home=str(home))

    def check(self) -> None:
        self._run("check")

    def bring_back(self, target: Path) -> Path:
        target.mkdir()
        self._run("bring_back", target=str(target))
        return next(path for path in target.rglob(self._home.name) if path.is_dir())

    def _run(self, what: str, home: str = "", target: str = "") -> None:
        filled = {"repository": str(self.repository), "home": home, "target": target, "count": str(self._count)}
        command = [word.format(**filled) for word in self._words[what]]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, cwd=target or None)
        if done.returncode:
            raise Wrong(f"{' '.join(command[:3])} ended with {done.returncode}: {done.stderr[-300:]}")


def restic(root: Path) -> Program:
    """restic, over a directory."""
    name = [program("restic"), "-r", "{repository}", "-q"]
    words: dict[str, Sequence[str]] = {
        "begin": [*name, "init"],
        "back_up": [*name, "backup", "{home}"],
        "check": [*name, "check", "--read-data"],
        "bring_back": [*name, "restore", "latest", "--target", "{target}"],
    }
    return Program(root, words)


def borg(root: Path) -> Program:
    """BorgBackup, without encryption, as Holdfast's repository here."""
    name = program("borg")
    words: dict[str, Sequence[str]] = {
        "begin": [name, "init", "-e", "none", "{repository}"],
        "back_up": [name, "create", "{repository}::{count}", "{home}"],
        "check": [name, "check", "--verify-data", "{repository}"],
        "bring_back": [name, "extract", "{repository}::" + str(TIMES + 1)],
    }
    return Program(root, words)


def backed_up(make: Callable[[Path], Any], made: Path, count: int) -> Figures:
    """One turn: a first backup, several of 1,000 more records each, all read again, and all brought back."""
    with scratch() as root:
        tool, home = make(root), root / "node"
        shutil.copytree(made, home)
        first, _ = clocked(lambda: tool.back_up(home))
        first_bytes = size_of(tool.repository)
        spent, grown = [], []
        for step in range(TIMES):
            fill(home, count + step * MORE, MORE)
            before = size_of(tool.repository)
            spent.append(clocked(lambda: tool.back_up(home))[0])
            grown.append(size_of(tool.repository) - before)
        checked, _ = clocked(tool.check)
        back, place = clocked(lambda: tool.bring_back(root / "back"))
        scan = prove(place, "ada")
        if not scan.sound or scan.records != count + TIMES * MORE:
            raise Wrong(f"{scan.records} records came back, {scan.findings[:1]}")
    return {
        "first": first,
        "first_bytes": float(first_bytes),
        "more": quantile(spent, 0.5),
        "more_bytes": quantile([float(each) for each in grown], 0.5),
        "verify": checked,
        "restore": back,
    }


def brought_back(count: int) -> Figures:
    """Seconds of a whole restore, proven, of so many records."""
    with scratch() as root:
        fill(root / "node", 0, count)
        tool = Mine(root)
        tool.back_up(root / "node")
        took, place = clocked(lambda: tool.bring_back(root / "back"))
        same(size_of(place) > 0, True, "the restored node")
    return {"restore": took, "a_million": took * 1_000_000 / count}


# -- the report -----------------------------------------------------------------------------------------------------


def run(effort: Effort) -> Report:
    """Measures it."""
    report = Report()
    count = effort.count(200_000, 2_000)
    puts = take_turns({level: partial(put_at, level, effort.count(20_000, 500)) for level in LEVELS}, effort)
    seed = take_turns({"an entry": partial(entries, effort.count(500, 100))}, effort, effort.turns(3))
    with scratch() as place:
        fill(place / "node", 0, count)
        log = take_turns({"verify": partial(proven, place / "node", count)}, effort, effort.turns(3))
        tools: dict[str, Callable[[Path], Any]] = {MINE: Mine, "restic": restic, "BorgBackup": borg, FLOOR: Floor}
        found = {name: partial(backed_up, make, place / "node", count) for name, make in tools.items()}
        backups = take_turns(found, effort, effort.turns(3))
    whole = take_turns({"restore": partial(brought_back, effort.count(1_000_000, 10_000))}, effort, effort.turns(1))
    for turns in (puts, seed, log, backups, whole):
        report.notes += turns.notes()
        report.figures |= json.loads(json.dumps(turns.given))
    report.tables += [_levels(puts), _proofs(seed, log), _backups(backups, list(tools))]
    report.notes.append(
        f"{count:,} records of some 250 bytes in one node; incremental: {MORE:,} more, p50 of {TIMES}. The others start"
        " a process each time and back up closed files; Holdfast is called in this process, and may do so while agents"
        " write. What came back of each is proven record by record, off the clock; of Holdfast also on it."
    )
    _goals(report, puts, log, backups, whole)
    for name, limit in ENTRY_MOST_MS.items():
        value = seed.median("an entry", f"{name}_p99")
        report.goals.append(Goal(f"one entry: {name}, p99", value and value * 1e3, limit, " ms", reason=_why(seed)))
    return report


def _goals(report: Report, puts: Turns, log: Turns, backups: Turns, whole: Turns) -> None:
    more = backups.median(MINE, "more")
    saved = backups.ratio(MINE, "more_bytes", "restic")
    level = puts.ratio("advanced", "put", "basic")
    restored, proof = whole.median("restore", "a_million"), log.median("verify", "a_cpu_second")
    report.goals += [
        Goal("a put at ADVANCED over BASIC", level, LEVEL_MOST, "×", reason=_why(puts)),
        Goal("verify", proof, VERIFY_LEAST, " records/s", at_least=True, reason=_why(log)),
        Goal("incremental backup of 1,000 records", more and more * 1e3, MORE_MOST_MS, " ms", reason=_why(backups)),
        Goal("its bytes over restic's", saved, 0.1, "×", reason=_why(backups, "restic")),
        Goal("restore of 1,000,000 records", restored, RESTORE_MOST_S, " s", reason=_why(whole)),
    ]


def _why(turns: Turns, name: str = "") -> str:
    return turns.missing.get(name) or next(iter(turns.missing.values()), "")


def _levels(turns: Turns) -> Table:
    table = Table("One put at each level", ("level", "µs", "over BASIC"))
    for level in LEVELS:
        if turns.has(level):
            ratio = turns.ratio(level, "put", "basic")
            table.rows.append((level.upper(), us(turns.median(level, "put")), times(ratio)))
    return table


def _proofs(seed: Turns, log: Turns) -> Table:
    table = Table("Proving", ("what", "measured"))
    table.rows.append(("`verify`, records/s", number(log.median("verify", "a_second"))))
    table.rows.append(("`verify`, records per second of CPU", number(log.median("verify", "a_cpu_second"))))
    for name in ENTRY_MOST_MS:
        value = seed.median("an entry", f"{name}_p99")
        table.rows.append((f"the swarm's storage, one entry: {name}, p99, ms", ms(value)))
    return table


def _backups(turns: Turns, names: Sequence[str]) -> Table:
    columns = ("tool", "first, s", "first, MB", "1,000 more, ms", "1,000 more, KB", "verify, s", "restore, s")
    table = Table("Backups", columns)
    for name in names:
        if turns.has(name):
            cells = {figure: turns.median(name, figure) or 0.0 for figure in turns.given[name][0]}
            sizes = number(cells["first_bytes"] / 2**20, 1), number(cells["more_bytes"] / 2**10, 0)
            first, more = number(cells["first"], 2), ms(cells["more"], 0)
            last = number(cells["verify"], 2), number(cells["restore"], 2)
            table.rows.append((name, first, sizes[0], more, sizes[1], *last))
    return table


SCENARIO = Scenario("integrity", "What integrity costs", run)

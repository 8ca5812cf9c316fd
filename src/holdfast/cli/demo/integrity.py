"""`holdfast demo integrity`: damage done on purpose to the swarm's storage, each found, and brought back or refused.

Every scenario is a function that does its damage with plain files or in a process that dies, and returns what it saw
in words; an assertion that fails is told, and the exit code is 9.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.cli.demo.stage import Child
from holdfast.cli.settings import Settings
from holdfast.cli.show import count_text, seconds_text, size_text
from holdfast.clock import SYSTEM
from holdfast.corpus import SqliteCorpus
from holdfast.errors import CapacityError, HoldfastError, IntegrityError
from holdfast.integrity import (
    DataIntegrityManager,
    IntegrityCheckType,
    PersistentDataStorage,
    RecoveryStrategy,
    StorageType,
)
from holdfast.integrity.backup import Repository, create
from holdfast.integrity.swarm.package import Kept, link_of
from holdfast.integrity.swarm.restoring import drill
from holdfast.node import repair
from holdfast.node.backup import node_source
from holdfast.node.directory import attach, detach
from holdfast.node.erase import erase_key, erase_subject
from holdfast.node.objects import open_store
from holdfast.node.store import Store
from holdfast.testing.clock import SettableClock

COUNT: Final = 50
COMMITS: Final = 200
LARGE: Final = 2 << 20
FULL_BYTES: Final = 1 << 20
CHILD_S: Final = 60.0
WAIT_S: Final = 30.0


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """How a scenario went."""

    name: str
    ok: bool
    what: str
    seconds: float


class Unmet(Exception):
    """Something was not as it must be."""


def run(settings: Settings) -> int:
    """Plays every scenario in a directory of its own; 9 when one of them was not as it must be."""
    told = []
    with tempfile.TemporaryDirectory(prefix="holdfast-demo-") as home:
        for number, (name, scenario) in enumerate(SCENARIOS.items(), 1):
            told.append(_played(name, scenario, Path(home) / str(number)))
            if not settings.as_json:
                each = told[-1]
                sign = settings.show.paint("ok  ", "green") if each.ok else settings.show.paint("FAIL", "red")
                settings.show.line(f"{sign}  {each.name}: {each.what}  ({seconds_text(each.seconds)})")
    failed = sum(not each.ok for each in told)
    if settings.as_json:
        settings.show.document({"ok": not failed, "scenarios": msgspec.to_builtins(told)})
    else:
        settings.show.line(f"{count_text(len(told), 'scenario')}, {failed} failed")
    return IntegrityError.exit_code if failed else 0


def _played(name: str, scenario: Callable[[Path], str], home: Path) -> Told:
    begun = time.perf_counter()
    home.mkdir()
    try:
        ok, what = True, scenario(home)
    except (Unmet, HoldfastError, OSError, subprocess.SubprocessError) as error:
        ok, what = False, f"{type(error).__name__}: {error}"
    return Told(name=name, ok=ok, what=what, seconds=time.perf_counter() - begun)


def must(held: object, what: str) -> None:
    """Goes on if something holds.

    Raises:
        Unmet: it does not.
    """
    if not held:
        raise Unmet(what)


# -- the scenarios --------------------------------------------------------------------------------------------------


def three_modes(home: Path) -> str:
    """Store and read, small and large, in the three modes; and again after the storage was closed."""
    large = random.Random(1).randbytes(LARGE)
    values: dict[str, Any] = {f"agent-{n}/note": {"note": n, "text": "x" * n} for n in range(COUNT)}
    values |= {"readme": "text", "raw": b"\0\1\2", "dataset": large}
    for kind in StorageType:
        with _storage(home / kind.value, kind) as storage:
            for name, value in values.items():
                storage.store(name, value)
        with _storage(home / kind.value, kind) as storage:
            for name, value in values.items():
                must(storage.retrieve(name) == value, f"{kind.name}: {name} is not what was stored")
    return f"{len(values)} values, one of {size_text(LARGE)}, in each of {len(StorageType)} modes"


def five_checks(home: Path) -> str:
    """A fault for each of the five checks that it finds; four of them no other check sees."""
    with _storage(home, StorageType.FILE_BASED) as storage:
        day_ahead = SettableClock(storage.wall.now_ms() + 86_400_000)
        for kind in IntegrityCheckType:
            storage.store(kind.value, "old")
            if kind is IntegrityCheckType.TIMESTAMP:
                storage.wall = day_ahead
            storage.store(kind.value, "new")
            storage.wall = SYSTEM
        faults: dict[IntegrityCheckType, Callable[[Path], None]] = {
            IntegrityCheckType.CHECKSUM: lambda path: _edit(path, lambda p: p.update(data="NEW")),
            IntegrityCheckType.HASH_CHAIN: lambda path: _edit(
                path, lambda p: p["metadata"].update(integrity_level="basic"), relink=False
            ),
            IntegrityCheckType.SIZE_VERIFICATION: lambda path: path.unlink(),
            IntegrityCheckType.VERSION_CONTROL: lambda path: _replace(path, _copy(path, 1).read_bytes()),
        }
        for kind, harm in faults.items():
            harm(storage.path / "messages" / f"{kind.value}.json")
        for kind in IntegrityCheckType:
            found = {each for each, texts in storage.problems(kind.value).items() if texts}
            must(found == {kind}, f"the fault for {kind.name} was found by {[each.name for each in found]}")
        manager = DataIntegrityManager(storage)
        failed = manager.scan()
        healed = {check.data_id for check in failed if check.recovery_successful}
        must(healed == {kind.value for kind in faults}, f"recovered: {sorted(healed)}")
        for kind in faults:
            must(storage.retrieve(kind.value) == "new", f"{kind.name}: another value came back")
    return f"5 faults, each found by its check; {len(healed)} put back, a clock set ahead is told and left"


def bit_flip(home: Path) -> str:
    """One bit of the log's file, in a page that holds values: found, and all of it brought back from the backup."""
    values = {f"v{n:03}": random.Random(n).randbytes(400) for n in range(COUNT)}
    with _storage(home, StorageType.HYBRID) as storage:
        for name, value in values.items():
            storage.store(name, value)
        storage.backup()
        values["since"] = b"written after the backup"
        storage.store("since", values["since"])
    log = home / "log" / "log.db"
    data = log.read_bytes()
    at = data.index(values["v025"][:64]) + 7
    _flip(log, at)
    with _storage(home) as storage:
        refused = 0
        for name, value in values.items():
            try:
                must(storage.retrieve(name) == value, f"{name}: a wrong value was returned")
            except IntegrityError:
                refused += 1
        must(refused, "no value was refused")
        manager = DataIntegrityManager(storage)
        manager.scan()
        must(not manager.status()["damaged"], f"still damaged: {manager.status()['damaged']}")
        for name, value in values.items():
            must(storage.retrieve(name) == value, f"{name} did not come back")
        must(storage.whole() == [], "the new log does not prove itself")
    return (
        f"byte {at}: {count_text(refused, 'value')} refused, 0 wrong; all {len(values)} back from backup and own tail"
    )


def from_the_hub(home: Path) -> str:
    """One bit of a node's log: the value is refused, and what was damaged is fetched from the hub that holds it."""
    values = {f"v{n:03}": random.Random(n).randbytes(400) for n in range(COUNT)}
    node = home / "node"
    with _hub(home) as url:
        with Store(node, "scout", hub=url) as store:
            for name, value in values.items():
                store.put(name, value)
            must(store.flush(WAIT_S), "the hub did not take it all")
        log = node / "agents" / "scout" / "log.db"
        at = log.read_bytes().index(values["v025"][:64]) + 7
        _flip(log, at)
        refused = 0
        with Store(node, "scout", hub=()) as store:
            for name, value in values.items():
                try:
                    must(store.get(name) == value, f"{name}: a wrong value was returned")
                except IntegrityError:
                    refused += 1
        must(refused, "no value was refused")
        outcome = repair.repair(node, repair.Tools(hubs=(url,)))
        must(outcome.done, f"not repaired: {outcome.plan.refusals}")
        fetched = sum(step.records for step in outcome.plan.steps if step.source.startswith("hub "))
        must(fetched, f"nothing came from the hub: {outcome.plan.steps}")
    with Store(node, "scout", hub=()) as store:
        must(all(store.get(name) == value for name, value in values.items()), "a value did not come back")
        must(store.verify().sound, "the new log does not prove itself")
    return f"byte {at}: {count_text(refused, 'value')} refused, 0 wrong; {count_text(fetched, 'record')} from the hub"


def erasure(home: Path) -> str:
    """A subject and a key are erased: no file of node or hub holds them, and no old backup brings them back."""
    canary, node = os.urandom(16).hex(), home / "node"
    with _hub(home) as url:
        with Store(node, "clinic", hub=url, sealed=["patients"]) as store:
            store.put("p-17/plan", {"note": canary}, collection="patients", subject="p-17")
            store.put("draft", {"note": canary})
            store.put("other", "stays")
            must(store.flush(WAIT_S), "the hub did not take it all")
        directory = attach(node, make=False)
        try:
            with open_store(f"file:{home / 'backups'}") as place, node_source(directory) as source:
                create(Repository(place), source)
            erased = erase_subject(directory, "p-17").records
            erased += erase_key(directory, "clinic", "draft", collection="state").records
        finally:
            detach(directory)
        with Store(node, "clinic", hub=url) as store:
            must(store.flush(WAIT_S), "the hub did not hear of it")
            until = time.monotonic() + WAIT_S
            while (found := _holding(home, canary)) and time.monotonic() < until:
                time.sleep(0.05)
            must(not found, f"the erased text is in {found}")
        log = SqliteCorpus(node / "agents" / "clinic" / "log.db")
        log.write(lambda tx: tx.execute("UPDATE rec SET why=0, hlc=hlc+1 WHERE pos=2"))  # it no longer says so itself
        log.close()
        outcome = repair.repair(node, repair.Tools(hubs=(), backups=[f"file:{home / 'backups'}"]))
        must(outcome.done, f"not repaired: {outcome.plan.refusals}")
    with Store(node, "clinic", hub=()) as store:
        (draft,) = store.history("draft")
        must((draft.value, draft.missing) == (None, "redacted"), "an erased value came back")
        must(store.get("other") == "stays", "another value is gone")
        must(store.verify().sound, "the log does not prove itself")
    must(not _holding(home, canary), "the old backup brought the erased text back")
    return f"{count_text(erased, 'value')} in no file of node and hub; a repair from an older backup brought none back"


def lost_file(home: Path) -> str:
    """A value's files are deleted; the backup has it."""
    with _storage(home, StorageType.FILE_BASED) as storage:
        storage.store("plan", {"goal": "map the reef"}, "tasks")
        storage.store("other", 1)
        storage.backup()
        gone = [*(home / "tasks").rglob("plan*.json"), *(home / "versions" / "tasks").rglob("*.json")]
        for path in gone:
            path.unlink()
        checks = DataIntegrityManager(storage).check("plan")
        must(any(check.recovery_successful for check in checks), "it was not recovered")
        must(storage.retrieve("plan") == {"goal": "map the reef"}, "another value came back")
        must(storage.metadata("plan").version == 1, "the version is another one")
    return f"{len(gone)} files deleted; back from the backup, as version 1"


def version_rollback(home: Path) -> str:
    """The newest version and its copy are damaged, and no backup has it: a rollback, but only when it is asked for."""
    with _storage(home, StorageType.FILE_BASED) as storage:
        for number in (1, 2, 3):
            storage.store("v", f"value {number}")
        for path in (home / "messages" / "v.json", _copy(home / "messages" / "v.json", 3)):
            _flip(path, 30)
        checks = DataIntegrityManager(storage).check("v")
        must(not all(check.passed for check in checks), "the damage was not found")
        must(not any(check.recovery_successful for check in checks), "something was lost unasked")
        (done,) = DataIntegrityManager(storage).recover("v", RecoveryStrategy.VERSION_ROLLBACK)
        must(done.successful and done.lossy, done.what)
        must(storage.retrieve("v") == "value 2", "another value came back")
    return f"refused by itself; when asked, {done.what}"


def time_rollback(home: Path) -> str:
    """Every mode goes back to what it was an hour ago, by adding a version."""
    for kind in StorageType:
        with _storage(home / kind.value, kind) as storage:
            clock = SettableClock(storage.wall.now_ms() - 7_200_000)
            storage.wall = clock
            storage.store("v", "two hours ago")
            clock.advance(5400)
            storage.store("v", "half an hour ago")
            storage.wall = SYSTEM
            at = storage.now() - 3600
            (done,) = DataIntegrityManager(storage).recover("v", RecoveryStrategy.TIMESTAMP_ROLLBACK, at=at)
            must(done.successful, done.what)
            must(storage.retrieve("v") == "two hours ago", "another value came back")
            must(storage.retrieve("v", 2) == "half an hour ago", "the later version is gone")
    return f"{len(StorageType)} modes went back an hour; the later version stays readable"


def wal_damage(home: Path) -> str:
    """A bit of the WAL that a killed process left: SQLite would drop what follows without a word."""
    _die(home, COMMITS)
    wal = home / "log" / "log.db-wal"
    size = wal.stat().st_size
    _flip(wal, size // 3)
    with _storage(home, level="advanced") as storage:
        incidents = storage.status()["incidents"]
        must(any("wal-damaged" in each for each in incidents), f"the doctor said {incidents}")
        gone = COMMITS + 1 - len(storage.ids())
        must(gone > 0, "nothing was gone: the flip hit nothing")
        kept = [path for path in (home / "log" / "quarantine").rglob("log.db-wal") if path.stat().st_size == size]
        must(kept, "the damaged WAL was not kept")
        DataIntegrityManager(storage).scan()
        backed_up = [f"v{n:04}" for n in range(COMMITS // 2)]
        for name in backed_up:
            must(storage.retrieve(name) == name * 20, f"{name} did not come back from the backup")
    return f"found before SQLite opened it; {gone} commits cut off, the {len(backed_up)} backed-up values are all there"


def full_disk(home: Path) -> str:
    """No file may grow beyond a limit, in a process of its own: writes are refused, what was acknowledged stays."""
    told = []
    for kind in StorageType:
        answer = json.loads(_child(_FULL, home / kind.value, kind.value, FULL_BYTES))
        must(answer["refused"], f"{kind.name}: the disk was never full")
        must(answer["readable"] == answer["acked"], f"{kind.name}: {answer}")
        with _storage(home / kind.value) as storage:
            must(len(storage.ids()) == answer["acked"], f"{kind.name}: {answer['acked']} were acknowledged")
            storage.store("after", "there is room again")
            failed = [check for check in DataIntegrityManager(storage).scan() if not check.recovery_successful]
            must(not failed, f"{kind.name}: {failed[:1]}")
        told.append(f"{kind.name} {answer['acked']}")
    return f"refused as {CapacityError.__name__}; acknowledged before, and all there: {', '.join(told)}"


def drilled(home: Path) -> str:
    """The newest backup is restored elsewhere and every value checked; a backup with a flipped bit does not pass."""
    with _storage(home, StorageType.HYBRID) as storage:
        for number in range(COUNT):
            storage.store(f"v{number}", {"number": number})
        storage.store("large", os.urandom(LARGE))
        storage.backup()
        found = drill(storage)
        must(found.sound and found.values == COUNT + 1, f"{found}")
        victim = next((home / "backups" / "packages").rglob("*.json"))
        _flip(victim, 20)
        again = drill(storage)
        must(not again.sound and len(again.failed) == 1, f"a flipped bit in the backup passed: {again}")
    return f"{found.proven} of {found.values} values restored and proven; with one bit flipped {again.proven}"


SCENARIOS: Final[dict[str, Callable[[Path], str]]] = {
    "store and read in the three modes": three_modes,
    "the five checks": five_checks,
    "bit flip": bit_flip,
    "bit flip, from the hub": from_the_hub,
    "lost file": lost_file,
    "version rollback": version_rollback,
    "time rollback": time_rollback,
    "WAL damage": wal_damage,
    "full disk": full_disk,
    "erasure": erasure,
    "drill": drilled,
}


# -- a hub ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _hub(home: Path) -> Iterator[str]:
    """A hub in a process of its own; its address."""
    ready = home / "ready"
    words = ["--data", str(home / "hub"), "--port", "0", "--ready-file", str(ready), "--settle", "acked"]
    hub = Child("hub", words, home / "hub.log")
    try:
        end = time.monotonic() + WAIT_S
        while not ready.exists() and "ended" not in hub.facts and time.monotonic() < end:
            time.sleep(0.02)
        must(ready.exists(), f"the hub did not start: {hub.last_words()}")
        yield str(json.loads(ready.read_bytes())["url"])
    finally:
        hub.kill()


def _holding(home: Path, text: str) -> list[str]:
    """The files of a node and a hub that hold a text, as it is; what was put aside is not theirs any more."""
    files = [path for name in ("node", "hub") for path in (home / name).rglob("*") if path.is_file()]
    return [str(path) for path in files if "quarantine" not in path.parts and text.encode() in path.read_bytes()]


# -- damage ---------------------------------------------------------------------------------------------------------


def _storage(path: Path, kind: StorageType | None = None, level: str = "advanced") -> PersistentDataStorage:
    return PersistentDataStorage(path, kind, level, backup_interval_s=None)


def _copy(path: Path, number: int) -> Path:
    """A version's own copy of a value's file."""
    return path.parents[1] / "versions" / path.parent.name / path.stem / f"{number:08}.json"


def _flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def _replace(path: Path, data: bytes) -> None:
    """As an editor saves: another file takes the name."""
    other = path.with_suffix(".new")
    other.write_bytes(data)
    other.replace(path)


def _edit(path: Path, change: Callable[[dict[str, Any]], None], *, relink: bool = True) -> None:
    package = json.loads(path.read_bytes())
    change(package)
    if relink:
        package["link"] = link_of(package["previous"], Kept(**package["metadata"]))
    _replace(path, json.dumps(package).encode())


_WRITE: Final = """
import os, sys
from pathlib import Path
from holdfast.integrity import PersistentDataStorage
storage = PersistentDataStorage(sys.argv[1], "hybrid", "basic", backup_interval_s=None)
count = int(sys.argv[2])
for number in range(count):
    if number == count // 2:
        storage.backup()
    storage.store(f"v{number:04}", f"v{number:04}" * 20)
storage.store("last", 1)
os._exit(0)
"""
_FULL: Final = """
import json, os, resource, sys
from holdfast.errors import CapacityError
from holdfast.integrity import PersistentDataStorage
storage = PersistentDataStorage(sys.argv[1], sys.argv[2], backup_interval_s=None)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
acked, refused = {}, 0
for number in range(100):
    value = os.urandom(10_000 if number % 10 else 1_000_000).hex()
    try:
        storage.store(f"v{number}", value)
        acked[f"v{number}"] = value
    except CapacityError:
        refused += 1
        if refused > 12:
            break
readable = sum(storage.retrieve(name) == value for name, value in acked.items())
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(json.dumps({"acked": len(acked), "refused": refused, "readable": readable}))
storage.close()
"""


def _die(home: Path, commits: int) -> None:
    """Commits in a process that ends without closing anything."""
    _child(_WRITE, home, commits)


def _child(program: str, *words: Any) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    command = [sys.executable, "-c", program, *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=CHILD_S)
    must(done.returncode == 0, f"a process of the scenario ended with {done.returncode}: {done.stderr[-500:]}")
    return done.stdout

"""A node directory: who this node is, its keys, its agents' logs, its blobs and its room on the disk.

    config.json          hubs, level and retention; its presence makes the directory a node's
    node.db  keys.db     how far each hub is · the Ed25519 keys
    cache.db             other agents' records, fetched and verified; may be deleted
    agents/<agent>/      log.db, log.anchor: one agent's log
    blobs/  ballast      payloads above 64 KiB · room to get out of a full disk
    ship.lock  scan.lock evict.lock    whoever holds it ships, scans or makes room, for everybody

In one process all stores of a directory share one `Directory` (`attach`), and so its open logs. It refuses to know
the network: shipping takes a Directory and is started by the store.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

import msgspec

from holdfast.clock import SYSTEM, Clock
from holdfast.corpus.engine import Engine
from holdfast.corpus.space import BALLAST_BYTES, FLOOR_BYTES, Reserve
from holdfast.disk import sync_directory
from holdfast.errors import HoldfastError, IntegrityError, NodeFull, NoStore, UsageError
from holdfast.log import ADVANCED, Level, OpenLog
from holdfast.node.batch import CAS_AGENT
from holdfast.node.keys import Keyring
from holdfast.node.locks import locked
from holdfast.objects import BlobFiles
from holdfast.records import NAME_BYTES_MAX, check_names
from holdfast.retention import Retention

if TYPE_CHECKING:
    from holdfast.node.positions import Positions
    from holdfast.node.vault import Unsealing, Vault

_CONFIG: Final = "config.json"
_CACHE_KIB: Final = 256
_FILE_NAME_MAX: Final = 255

LOCAL: Final = "~local"
"""Ends the name of the log of an agent's local collections: it is scanned and backed up, and never shipped."""

_attached: dict[str, Directory] = {}
_attached_lock = threading.Lock()  # guards _attached and every Directory._users


class Limits(msgspec.Struct, frozen=True):
    """How a node treats its disk; the defaults suit a laptop.

    Attributes:
        floor_bytes: free bytes on the disk below which nothing new is written.
        ballast_bytes: kept aside, to be given back when the disk is full; 0 for none.
        scan_s: seconds between two turns of the scan in the background, which reads all of it in a day; 0 for none.
        retention: how much of the agent's log stays here, and for how long; it is written down for whoever opens the
            node next. None: as it was written down, or everything.
    """

    floor_bytes: int = FLOOR_BYTES
    ballast_bytes: int = BALLAST_BYTES
    scan_s: float = 300.0
    retention: Retention | None = None


DEFAULT_LIMITS: Final = Limits()


class Directory:
    """One node directory, open. Safe to share among threads; other processes may have it open too.

    Args:
        path: the directory, which has been made (`Directory.init`, `attach`).
        limits: how it treats its disk.
        wall: the clock.

    Raises:
        NoStore: there is no node directory at this path.
    """

    def __init__(self, path: Path, *, limits: Limits = DEFAULT_LIMITS, wall: Clock = SYSTEM) -> None:
        if not (path / _CONFIG).is_file():
            raise NoStore(f"no node directory at {path}", hint=f"holdfast init {path}")
        self.path = path
        self.wall = wall
        self.pid = os.getpid()
        self.blobs = BlobFiles(path / "blobs")
        self.reserve = Reserve(path, ballast_bytes=limits.ballast_bytes, floor_bytes=limits.floor_bytes, clock=wall)
        self.shipper: Any = None  # the process's one Shipper, once a store with a hub was opened
        self.scanner: Any = None  # the process's one Scanning, once a store was opened
        self.unsealing: Unsealing | None = None  # where the key of sealed collections is; None: as the environment says
        self.evictor: Any = None  # the process's one Evictor, once a store with a budget and a hub was opened
        self.rooms: dict[tuple[str, str], Any] = {}  # the guards of budgets, by agent and level
        self.news = 0  # grows with what hubs are to be told of soon; a race loses one of many
        self.lock = threading.RLock()  # guards what follows, and the three above
        self._keyring: Keyring | None = None
        self._vault: Vault | None = None
        self._node: Engine | None = None
        self._positions: Any = None
        self._logs: dict[tuple[str, str], tuple[OpenLog, int]] = {}
        self._users = 0
        with contextlib.suppress(NodeFull, OSError):
            self.reserve.ensure()

    @classmethod
    def init(
        cls, path: str | os.PathLike[str], *, hubs: Sequence[str] = (), level: str | None = None, wall: Clock = SYSTEM
    ) -> bool:
        """Makes a node directory with a key of its own; returns False if there is one already, unchanged.

        Any number of processes may do so at once: one makes it, the others find it made.

        Args:
            path: the directory; made if missing, private to this user.
            hubs: addresses that stores opened without ``hub=`` ship to.
            level: what tools open it with, whatever they are configured to; None: as they are.
            wall: the clock.

        Raises:
            UsageError: something else lies there.
        """
        home = Path(path)
        try:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
        except FileExistsError:
            raise UsageError(f"{home} is not a directory", hint="give a directory of its own") from None
        with locked(home):
            if (home / _CONFIG).is_file():
                return False
            if (home / "hub.db").exists():
                raise UsageError(f"{home} is a hub's directory", hint="give the node a directory of its own")
            os.chmod(home, 0o700)
            (home / "agents").mkdir(mode=0o700, exist_ok=True)
            keyring = Keyring(home / "keys.db", wall)
            try:
                keyring.make_first()
            finally:
                keyring.close()
            write_config(home, {"format": 1, "hubs": list(hubs)} | ({"level": level} if level else {}))
        return True

    # -- who this node is ----------------------------------------------------------------------------------------

    @property
    def config(self) -> dict[str, Any]:
        """What init (or a tool since) wrote down: hubs, level."""
        return read_config(self.path)

    @property
    def keyring(self) -> Keyring:
        """The node's keys; opened when first needed."""
        with self.lock:
            if self._keyring is None:
                self._keyring = Keyring(self.path / "keys.db", self.wall)
            return self._keyring

    @property
    def vault(self) -> Vault:
        """The keys of sealed collections, which lie in the same file."""
        with self.lock:
            if self._vault is None:
                from holdfast.node.vault import Vault, from_environment

                def unsealing() -> Unsealing:
                    return self.unsealing or from_environment()

                self._vault = Vault(self.keyring.engine, self.path, self.wall, unsealing)
            return self._vault

    @property
    def node(self) -> Engine:
        """node.db; opened when first needed."""
        with self.lock:
            if self._node is None:
                self._node = Engine(self.path / "node.db", roles=("node",), cache_kib=_CACHE_KIB)
            return self._node

    @property
    def positions(self) -> Positions:
        """How far each hub has each log."""
        if self._positions is None:
            from holdfast.node.positions import Positions

            with self.lock:
                self._positions = self._positions or Positions(self, self.wall)
        found: Positions = self._positions
        return found

    @property
    def node_id(self) -> str:
        """This node's name for hubs: made once, kept with the directory, copied with it."""
        engine = self.node
        row = engine.one("SELECT v FROM meta WHERE k='node'")
        if row is None:
            made = f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"

            def job(_: Any) -> None:
                engine.writer_execute("INSERT INTO meta VALUES('node', ?) ON CONFLICT DO NOTHING", (made,))

            engine.commits.run(job)
            row = engine.one("SELECT v FROM meta WHERE k='node'")
        return str(row[0])

    # -- its agents ----------------------------------------------------------------------------------------------

    def agents(self) -> list[str]:
        """Every agent that has a log here, whichever process made it."""
        return agents_in(self.path)

    def has_agent(self, agent: str) -> bool:
        """Whether this agent has a log here."""
        return (self.path / "agents" / folder_of(agent) / "log.db").exists()

    def open_log(self, agent: str, level: Level | None) -> OpenLog:
        """An agent's log, shared with whoever has it open in this process; give it back with `release_log`.

        Args:
            agent: whose.
            level: what a returned write survives; None: as it is open already.

        Raises:
            IntegrityError: it was written under a key that is not this node's.
        """
        with self.lock:
            if level is None:
                level = next((opened.level for (name, _), (opened, _) in self._logs.items() if name == agent), ADVANCED)
            found = self._logs.get((agent, level.name))
            if found is not None and found[0].corpus.engine.unusable:
                # After a failed sync only a file that was opened anew can be trusted; whoever holds the old one gets
                # its error at each call.
                with contextlib.suppress(HoldfastError):
                    found[0].close()
                found = None
            if found is None:
                found = (self._open(agent, level), 0)
            self._logs[agent, level.name] = (found[0], found[1] + 1)
            return found[0]

    def release_log(self, opened: OpenLog) -> None:
        """Gives back what `open_log` gave; the last to do so closes it."""
        with self.lock:
            at = (opened.agent, opened.level.name)
            found = self._logs.get(at)
            if found is None or found[0] is not opened:
                return
            if found[1] > 1:
                self._logs[at] = (opened, found[1] - 1)
                return
            del self._logs[at]
        opened.close()

    def opened(self) -> dict[str, OpenLog]:
        """The logs that this process has open, by agent."""
        with self.lock:
            return {agent: opened for (agent, _), (opened, _) in self._logs.items()}

    def _open(self, agent: str, level: Level) -> OpenLog:
        home = self.path / "agents" / folder_of(agent)
        keyring = self.keyring
        # The key in force first; a rotation that a crash cut short leaves logs that stand at another of ours.
        keys = [keyring.current()]
        keys += [key for key in keyring.public_keys() if key not in keys]
        for number, key in enumerate(keys, 1):
            try:
                return OpenLog(home, agent, public_key=key, blobs=self.blobs, level=level, wall=self.wall)
            except IntegrityError:
                if number == len(keys):
                    raise
        raise AssertionError("unreachable")

    # -- room ----------------------------------------------------------------------------------------------------

    def make_room(self) -> None:
        """After a write met a full disk: gives the ballast back, and lets the WALs go where they belong."""
        self.reserve.release()
        for opened in self.opened().values():
            with contextlib.suppress(NodeFull, IntegrityError):
                opened.corpus.engine.checkpoint(most_pages=0)

    # -- ending --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stops shipping and closes every file; a second close is fine."""
        for each in (self.scanner, self.evictor):
            if each is not None:
                each.stop()
        if self.shipper is not None:
            self.shipper.stop()
        with self.lock:
            self.shipper = None
            logs = [opened for opened, _ in self._logs.values()]
            self._logs.clear()
            self.rooms.clear()
            engines: list[Any] = [each for each in (self._keyring, self._node) if each is not None]
            self._keyring = self._node = self._vault = None
        for other in (*logs, *engines):
            other.close()


def attach(path: str | os.PathLike[str], *, limits: Limits = DEFAULT_LIMITS, make: bool = True) -> Directory:
    """This process's one `Directory` for a path; give it back with `detach`.

    Args:
        path: the node directory.
        limits: for the first who attaches.
        make: make it if there is none.

    Raises:
        NoStore: there is none, and it should not be made.
    """
    if make:
        Directory.init(path)
    real = os.path.realpath(path)
    with _attached_lock:
        found = _attached.get(real)
        if found is None:
            found = _attached[real] = Directory(Path(real), limits=limits)
        found._users += 1
        return found


def detach(directory: Directory) -> None:
    """Gives a `Directory` back; the last to do so closes it."""
    with _attached_lock:
        directory._users -= 1
        if directory._users:
            return
        _attached.pop(str(directory.path), None)
    directory.close()


def agents_in(home: Path) -> list[str]:
    """Every agent that has a log in a node directory."""
    try:
        with os.scandir(home / "agents") as entries:
            return sorted(unquote(e.name) for e in entries if os.path.exists(os.path.join(e.path, "log.db")))
    except FileNotFoundError:
        return []


def folder_of(agent: str) -> str:
    """The name of an agent's folder: its name, percent-encoded where a file system might mind.

    Raises:
        UsageError: no header, or no file system, could carry this name.
    """
    check_agent(agent)
    name = quote(agent, safe="")
    return f"%2E{name[1:]}" if name.startswith(".") else name


def is_local(agent: str) -> bool:
    """Whether a log of this name stays on this machine."""
    return agent.endswith(LOCAL)


def check_agent(agent: str) -> None:
    """Refuses a name that no agent can have.

    Raises:
        UsageError: with the rule that the name breaks.
    """
    if not isinstance(agent, str) or not agent:
        raise UsageError(f"an agent needs a name, got {agent!r}", hint="such as agent='recruiter-1'")
    check_names("put", "", "", agent)
    if agent == CAS_AGENT:
        raise UsageError(
            "the name 'hub' is the hub's own", hint="take another: under it a hub writes what it decides by itself"
        )
    if len(quote(agent, safe="")) > _FILE_NAME_MAX:
        raise UsageError(
            f"the agent's name is too long for a folder: {agent!r:.60}", hint=f"at most {NAME_BYTES_MAX // 3} letters"
        )


def read_config(home: Path) -> dict[str, Any]:
    """What config.json says.

    Raises:
        NoStore: it is not there.
        UsageError: it is not JSON, or of a newer format.
    """
    try:
        found = msgspec.json.decode((home / _CONFIG).read_bytes())
    except FileNotFoundError:
        raise NoStore(f"no node directory at {home}", hint=f"holdfast init {home}") from None
    except msgspec.DecodeError as error:
        raise UsageError(
            f"{home / _CONFIG} is not JSON: {error}", hint="""put it right; the least that it needs is {"format": 1}"""
        ) from error
    if not isinstance(found, dict) or found.get("format") != 1:
        raise UsageError(f"{home / _CONFIG} has a format that this version does not know", hint="update holdfast")
    return found


def write_config(home: Path, config: dict[str, Any]) -> None:
    """Replaces config.json as a whole: a reader sees the old one or the new one."""
    partial = home / f".{_CONFIG}.{os.getpid()}"
    with open(partial, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(config), indent=1))
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, home / _CONFIG)
    sync_directory(home)


def change_config(home: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes config.json as a whole; of two who do so at once, one comes after the other.

    Args:
        home: the node directory.
        change: changes what the file says, in place.
    """
    with locked(home):
        config = read_config(home)
        change(config)
        write_config(home, config)


def _after_fork() -> None:
    # The child has the parent's files but none of its threads: it starts with nothing attached, and closes nothing.
    global _attached_lock
    _attached_lock = threading.Lock()
    _inherited.extend(_attached.values())
    _attached.clear()


_inherited: list[Directory] = []
"""In a forked child: the parent's directories, kept for ever so that nothing finalises (and so closes) them."""

os.register_at_fork(after_in_child=_after_fork)

"""A store that can be moved while it is used: ``switch:app.switch`` is whichever store its file says.

Phases. *plain*: the objects are here. *copying*: they are here, and go there; every write is noted before it is done.
*switched*: they are where they went, and every write is still noted, so that going back loses nothing. A write passes
with a shared lock, a change of phase has an exclusive one: nobody writes into a store that has just been left.

All who use it are on one machine, or on a file system whose locks hold between machines. Writes past it are not noted.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from holdfast.errors import Locked, StorageRefused
from holdfast.objects.moving.journal import Journal
from holdfast.objects.moving.migrate import PARALLEL, Moved, Mover, Told
from holdfast.objects.opening import open_store
from holdfast.objects.port import TYPE, Content, Expect, ObjectInfo, ObjectStore, Source

FEW: Final = 50
"""Keys left to copy, at which it switches: writers wait for no more than these."""
Opener = Callable[[str], ObjectStore]


class SwitchStore(ObjectStore):
    """The store that a file points to; every process that uses the file follows it.

    Args:
        path: the file; made, pointing at `store`, if it is not there.
        store: the address of the store where the objects are now; needed when the file is made.
        opener: opens addresses.

    Raises:
        StorageRefused: there is no such file and no `store`, or they differ.
    """

    def __init__(self, path: str | os.PathLike[str], *, store: str = "", opener: Opener = open_store) -> None:
        super().__init__()
        store = absolute(store)
        if not store and not os.path.exists(path):
            raise StorageRefused(
                f"there is no switch {os.fspath(path)!r:.200}", hint="say store=<where the objects are>"
            )
        self._opener = opener
        self._opened: dict[str, ObjectStore] = {}
        self._lock = threading.Lock()
        self._journal = Journal(path)
        self._gate = Path(f"{self._journal.path}.lock")
        self._turn = Path(f"{self._journal.path}.turn")
        try:
            with self._alone():
                _, here, _ = self._journal.state()
                if not here:
                    self._store(store)  # it must open before anybody is sent there
                    self._journal.turn_over("plain", store, "")
                elif store and store != here:
                    raise StorageRefused(f"the switch {self._journal.path.name} points at {here}, not at {store}")
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        return f"switch:{self._journal.path.name} at {self._here().name}"

    @property
    def lacks(self) -> frozenset[str]:  # type: ignore[override]
        """What the store that it points to lacks."""
        return self._here().lacks

    @property
    def state(self) -> tuple[str, str, str]:
        """The phase (plain, copying, switched), the store's address, and that of the other one."""
        return self._journal.state()

    def put(
        self,
        key: str,
        data: Source,
        *,
        content_type: str = TYPE,
        metadata: Mapping[str, str] | None = None,
        expect: Expect = None,
    ) -> ObjectInfo:
        with self._writing(key) as store:
            return store.put(key, data, content_type=content_type, metadata=metadata, expect=expect)

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
        return self._here().get(key, start=start, stop=stop)

    def head(self, key: str) -> ObjectInfo:
        return self._here().head(key)

    def list(self, prefix: str = "", *, after: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        return self._here().list(prefix, after=after, limit=limit)

    def delete(self, key: str, *, expect: str | None = None) -> bool:
        with self._writing(key) as store:
            return store.delete(key, expect=expect)

    def _look(self) -> None:
        health = self._here().health()
        if not health.ok:
            raise OSError(health.error)

    def _trouble(self) -> str:
        return self._here().health().degraded

    def close(self) -> None:
        super().close()
        for store in self._opened.values():
            store.close()
        self._journal.close()

    # -- moving --------------------------------------------------------------------------------------------------

    def move(self, target: str, *, parallel: int = PARALLEL, hold: bool = False, told: Told | None = None) -> Moved:
        """Copies everything to another store while writes go on, then switches to it.

        Broken off, the same call goes on where it stood.

        Args:
            target: its address. It is this migration's own: what it has under a key of ours gives way.
            parallel: objects under way at once.
            hold: copy, and do not switch.
            told: is told how many objects and bytes are done.

        Raises:
            StorageRefused: it moves somewhere else already, or has switched and was not finished.
            Locked: another process is moving it.
            StorageError: a store failed; the phase is as before, and everything goes on.
        """
        target = absolute(target)
        with self._mover():
            with self._alone():
                phase, here, there = self._journal.state()
                if target == here or phase == "switched" or (phase == "copying" and there != target):
                    where = f"moves to {there}" if phase == "copying" else f"points at {here} ({phase})"
                    raise StorageRefused(f"cannot move to {target}: the switch {where}", hint="--rollback or --finish")
                other = self._store(target)
                if phase == "plain":
                    self._journal.turn_over("copying", here, target)
            mover = Mover(self._store(here), other, self._journal, parallel=parallel, overwrite=True, told=told)
            moved = mover.run(passes=1)  # what is written meanwhile is noted
            self._catch_up(mover)
            if moved.complete and not hold:
                with self._alone():
                    self._drain(mover)
                    self._journal.turn_over("switched", target, here)
        return moved

    def roll_back(self) -> int:
        """Goes back to the store that was left; what was written since is copied back. How many keys that were.

        Raises:
            StorageRefused: there is nothing to go back from.
        """
        with self._mover(), self._alone():
            phase, here, there = self._journal.state()
            if phase == "plain":
                raise StorageRefused(f"the switch points at {here}: there is nothing to go back from")
            if phase == "copying":
                self._journal.turn_over("plain", here, "")
                return 0
            count = self._drain(Mover(self._store(here), self._store(there), self._journal, overwrite=True))
            self._journal.turn_over("plain", there, "")
            return count

    def finish(self) -> None:
        """Ends the migration: there is no way back any more, and writes are no longer noted.

        Raises:
            StorageRefused: it has not switched.
        """
        with self._mover(), self._alone():
            phase, here, _ = self._journal.state()
            if phase != "switched":
                raise StorageRefused(f"the switch has not switched: it points at {here} ({phase})")
            self._journal.turn_over("plain", here, "")

    # -- inside --------------------------------------------------------------------------------------------------

    def _catch_up(self, mover: Mover) -> None:
        left, before = self._journal.count_dirty(), 1 << 62
        while FEW < left < before:  # when writers are as fast, the rest has to be copied while they wait
            for key, turn in self._journal.dirty():
                mover.copy(key)
                self._journal.clean(key, turn)
            left, before = self._journal.count_dirty(), left

    def _drain(self, mover: Mover) -> int:
        """Copies all that was written, while nobody writes."""
        count = 0
        while keys := self._journal.dirty(busy=True):
            for key, turn in keys:
                mover.copy(key)
                self._journal.clean(key, turn, busy=True)
                count += 1
        return count

    @contextlib.contextmanager
    def _writing(self, key: str) -> Iterator[ObjectStore]:
        self._open()
        with self._passing():
            phase, here, _ = self._journal.state()
            store = self._store(here)
            if phase == "plain":
                yield store
                return
            self._journal.begin_write(key)
            try:
                yield store
            finally:
                self._journal.end_write(key)

    @contextlib.contextmanager
    def _passing(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            with self._locked(self._turn, fcntl.LOCK_SH):  # held up here when somebody wants to be alone
                stack.enter_context(self._locked(self._gate, fcntl.LOCK_SH))
            yield

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        # Shared locks that overlap would keep out an exclusive one for ever: so nobody new passes the turn meanwhile.
        with self._locked(self._turn, fcntl.LOCK_EX), self._locked(self._gate, fcntl.LOCK_EX):
            yield

    @contextlib.contextmanager
    def _mover(self) -> Iterator[None]:
        self._open()
        path = Path(f"{self._journal.path}.mover")
        try:
            with self._locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB):
                yield
        except BlockingIOError:
            raise Locked(f"another process is moving {self._journal.path.name}", hint="wait for it") from None

    @contextlib.contextmanager
    def _locked(self, path: Path, how: int) -> Iterator[None]:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, how)
            yield
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)  # said, not only closed: a child forked meanwhile has it too
            os.close(fd)

    def _here(self) -> ObjectStore:
        self._open()
        return self._store(self._journal.state()[1])

    def _store(self, address: str) -> ObjectStore:
        with self._lock:
            if address not in self._opened:
                self._opened[address] = self._opener(address)
            return self._opened[address]

    def forked(self) -> None:
        self._lock = threading.Lock()


def absolute(address: str) -> str:
    """The address as any process would have to write it, whatever directory it works in."""
    scheme, _, path = address.partition(":")
    if scheme not in ("file", "sqlite", "holdfast", "switch") or not path:
        return address
    name, mark, options = path.partition("?")
    return f"{scheme}:{os.path.abspath(name)}{mark}{options}"


def open_switch(address: str, *, store: str = "", opener: Any = open_store) -> SwitchStore:
    """The opener of ``switch:``."""
    path = address.partition(":")[2]
    if not path:
        raise StorageRefused("a switch's address names its file", hint="switch:app.switch")
    return SwitchStore(path, store=store, opener=opener)

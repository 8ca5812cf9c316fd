"""A hub's own backups: made and drilled in a process of their own, every so often; what two verified ones hold settles.

The other process keeps the hub's memory small and its loop free: a drill restores a whole hub. Here the repository is
only read, for what nodes may evict.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.errors import HoldfastError, IntegrityError, NotFound

if TYPE_CHECKING:
    from holdfast.hub.core import Core
    from holdfast.hub.options import Options
    from holdfast.integrity.backup.repository import Repository

logger = logging.getLogger(__name__)

WATCH_EVERY_S: Final = 60.0
RETRY_S: Final = 300.0
FIRST_S: Final = 1.0
"""A moment after the start, so that a hub that is started again and again does nothing else."""
CLAIM_S: Final = 0.5
"""Between two looks whether another process has ended its backup."""
SAID_MAX: Final = 500
PARTIAL: Final = 3
"""How `backup run` ends when the backup was made, and prune refused."""
_RUN: Final = "import sys; from holdfast.cli import main; sys.argv[0] = 'holdfast'; main()"


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One backup: its name, when it was made, and how much it refers to; `damaged`: its list cannot be read."""

    name: str
    made_ms: int
    records: int = 0
    size: int = 0
    verified: bool = False
    damaged: bool = False


class Backups:
    """Makes a hub's backups while it is served, and settles what they hold; the loop's own.

    Args:
        core: the hub.
        options: which places, and how often.
    """

    def __init__(self, core: Core, options: Options) -> None:
        self._core, self._options = core, options
        self._task: asyncio.Task[None] | None = None
        self._child: asyncio.subprocess.Process | None = None
        self.trouble = ""
        """Why the last one was not made, or did not come back."""
        self.verified = 0
        """Verified backups, as of the newest look."""
        self.newest_ms = self.drilled_ms = 0
        """When the newest of them was made, and when a drill last succeeded; ms since 1970, 0: never."""
        self.newest_any_ms = 0
        """When the newest backup was made, verified or not."""
        self.drill_failed = ""
        """Why the newest drill failed; empty: it did not, or there was none."""
        self.shelf: list[Snapshot] = []
        """All backups as of the newest look, the newest first."""
        self.size = 0
        """Bytes of all that is in the store."""
        self.key = ""
        """The public key that signs them, in hex."""
        self.looked_ms = 0
        """When that look was; ms since 1970, 0: none yet."""
        self._known: dict[str, Snapshot] = {}
        self._unread = ""  # why the newest look failed
        self._making = asyncio.Lock()
        self.made = 0
        """Backups that this process had made."""
        self._changed = asyncio.Event()
        self.settled = 0
        """Branches that went on settling."""

    def start(self) -> None:
        """Begins, on the running loop."""
        self._task = asyncio.create_task(self._work())

    def retune(self, options: Options) -> None:
        """Goes on by another schedule: a pause that has begun ends by the new one."""
        self._options = options
        self._changed.set()

    async def stop(self) -> None:
        """Ends; a backup that is being made is given up, and the next one begins where the last stood."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._child is not None and self._child.returncode is None:
            self._child.kill()
            await self._child.wait()

    async def now(self) -> None:
        """Makes a backup, or waits for the one that is being made; `trouble` says how it went."""
        if self._making.locked():
            async with self._making:
                return
        while not await self._make():  # noqa: ASYNC110 - another process makes one, from before what this is to hold
            await asyncio.sleep(CLAIM_S)
        await self.look()

    async def look(self) -> None:
        """Looks what there is now."""
        try:
            await self._core.files(self._settle)
        except NotFound:
            self.verified, self.shelf = 0, []  # somebody else is to make the first
        except (HoldfastError, OSError) as error:
            self._unread = str(error)
            self.trouble = self.trouble or self._unread
            logger.warning("could not read the backups", exc_info=error)
        else:
            if self.trouble == self._unread:
                self.trouble = ""  # it was the store, which answers again
            self._unread = ""

    def problems(self) -> list[str]:
        """What is not as it should be."""
        found = []
        if self.trouble:
            found.append(f"the last backup failed: {self.trouble}")
        if self.verified < 2 and self._core.home.settle == "backups":
            found.append(f"nothing settles yet: {self.verified} verified backups, and it takes two")
        return found

    def status(self) -> dict[str, Any]:
        """How it stands, as JSON values."""
        return {"verified": self.verified, "made": self.made, "trouble": self.trouble}

    async def _work(self) -> None:
        await asyncio.sleep(min(FIRST_S, self._options.backup_every or FIRST_S))
        while True:
            if self._options.backup_every and self._is_due():
                await self._make(due=True)
            await self.look()
            await self._rest()

    async def _rest(self) -> None:
        """Waits until it is time for the next one, by the schedule as it is then."""
        now = asyncio.get_running_loop().time
        begun = now()
        while (left := begun + self._rest_s() - now()) > 0:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._changed.wait()

    def _rest_s(self) -> float:
        # Of several processes one makes the next one, and the others are to know of it soon.
        return self._pause_s() if self._core.corpus.inline else min(self._pause_s(), WATCH_EVERY_S)

    def _pause_s(self) -> float:
        pause = self._options.backup_every or WATCH_EVERY_S
        # Until two are verified nothing settles: the second soon follows the first.
        return min(pause, RETRY_S) if self.verified < 2 or self.trouble else pause

    async def _make(self, *, due: bool = False) -> bool:
        """One backup, in a process of its own; False: another process of this hub makes one just now.

        Args:
            due: only if none has been made in this time, by whichever process.
        """
        async with self._making:
            try:
                held = await self._core.read(lambda: self._core.claims.take("backup"))
            except HoldfastError as error:
                self.trouble = str(error)
                return True
            if held is None:
                return False
            try:
                if due and not self._core.corpus.inline:
                    await self.look()  # another process may have made it while this one waited for its turn
                if not due or self._is_due():
                    await self._run()
            finally:
                await asyncio.shield(self._core.read(held.release))
            return True

    def _is_due(self) -> bool:
        """Whether it is this process that makes the next one; a directory is served by one process, which makes all."""
        if self._core.corpus.inline:
            return True
        return self._core.home.wall.now_ms() - self.newest_any_ms >= self._pause_s() * 900

    async def _run(self) -> None:
        options = self._options
        words = ["backup", "run", "--json", "--preset", options.backup_preset]
        words += ["--drill-every", f"{max(1, round(options.backup_drill_every))}s"]
        if options.backup_key:
            words += ["--key", options.backup_key]
        if options.blobs:
            words += ["--blobs", options.blobs]
        place = options.database or str(getattr(self._core.home, "path", ""))
        # By the environment: addresses may hold passwords, and everybody can read a command line.
        # No file is read again: what this hub was told when it started is what its backups are made by.
        environment = {**os.environ, "HOLDFAST_CONFIG": os.devnull}
        environment |= {"HOLDFAST_BACKUP": options.backup, "HOLDFAST_BACKUP_FROM": place}
        try:
            self._child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                _RUN,
                *words,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
            _, said = await self._child.communicate()
        except OSError as error:
            self.trouble = str(error)
            return
        code = self._child.returncode
        self.trouble = "" if code == 0 else said.decode(errors="replace").strip()[-SAID_MAX:] or f"exit code {code}"
        if code in (0, PARTIAL):
            self.made += 1
        if code != 0:
            logger.error("a backup failed: %s", self.trouble)

    def _settle(self) -> None:
        from holdfast.hub.backup import settle
        from holdfast.integrity.backup.repository import Repository
        from holdfast.objects.opening import open_store

        ring = None
        if self._options.backup_key:
            from holdfast.seal import KeyRing

            ring = KeyRing.load(self._options.backup_key)
        with open_store(self._options.backup) as store:
            repository = Repository(store, ring)
            verified = repository.verified().intersection(repository.names())
            self.verified, self.newest_ms = len(verified), int(max(verified, default="0")[:13])
            self.drilled_ms = max((drill.made_ms for drill in repository.drills() if drill.ok), default=0)
            self._list(repository, verified)
            if self._core.home.settle == "backups":
                self.settled += settle(self._core.home, repository)

    def _list(self, repository: Repository, verified: set[str]) -> None:
        """Takes down what there is; a list that was read once is not read again, as none ever changes."""
        names, before = repository.names(), set(self._known)
        for name in names:
            if name in self._known:
                continue
            try:
                manifest = repository.backup(name)
            except IntegrityError:
                self._known[name] = Snapshot(name=name, made_ms=int(name[:13]), damaged=True)
                continue
            size = sum(manifest.objects().values()) + sum(blob.size for blob in manifest.blobs().values())
            self._known[name] = Snapshot(name=name, made_ms=manifest.made_ms, records=manifest.records, size=size)
        self._known = {name: self._known[name] for name in names}
        self.shelf = [msgspec.structs.replace(self._known[n], verified=n in verified) for n in reversed(names)]
        if set(names) != before:
            self.size = sum(info.size for info in repository.store.list(""))
        self.newest_any_ms = self.shelf[0].made_ms if self.shelf else 0
        self.key = repository.keys[0].hex() if self.shelf else ""
        drills = repository.drills()
        failed = [each for each in drills[-1].backups if not each.ok] if drills else []
        self.drill_failed = f"{failed[0].backup}: {failed[0].error}" if failed else ""
        self.looked_ms = self._core.home.wall.now_ms()

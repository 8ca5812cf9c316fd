"""What somebody asks a hub to do for its own good: a scan, a backup, a drill, a repair; one run of each at a time.

A run goes on whoever looks, and is told to all who do: two people who ask for the same get one. How it stands is kept
beside the records, so every process of one hub knows of it, and the next start what came of the last. What cannot be
done to files that are served (`repair`, `restore`) pauses the hub: `serve` closes it, does it, and opens it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from holdfast.errors import Conflict, HoldfastError, UsageError
from holdfast.hub import acts, errands
from holdfast.hub.acts import Act, Actor
from holdfast.hub.claims import STALE_MS
from holdfast.hub.errands import Errand, Said

if TYPE_CHECKING:
    from holdfast.hub.core import Core

logger = logging.getLogger(__name__)

Kind = Literal["scan", "plan", "repair", "backup", "verify", "drill", "prune", "restore"]
SAVE_S: Final = 2.0
"""How often a run that goes on is written down."""
LOOK_S: Final = 0.25
PAUSE_S: Final = 0.5
"""Between the order to pause and the pause, so that whoever gave it still gets his answer."""
RESULT_BYTES_MAX: Final = 200_000
_CHANGES: Final = ("backup", "verify", "drill", "prune")
"""What changes what there is of backups, or what is known of them."""
_KEY: Final = "care"


class Run(msgspec.Struct, kw_only=True):
    """One run, as people are told of it.

    Attributes:
        kind: what.
        who: who asked for it.
        process: of the hub's processes, which one does it.
        state: how it stands; ``broken off``: its process ended before it did.
        begun_ms, beat_ms, ended_ms: when it began, was last heard of, and ended; 0: not yet.
        step, done, total: how far it is; `total` 0: nobody knows how much there is.
        said: what came of it, or went wrong.
        result: what came of it, as the command of the same name tells programs.
    """

    kind: Kind
    who: str
    process: str = ""
    state: Literal["running", "done", "failed", "broken off"] = "running"
    begun_ms: int = 0
    beat_ms: int = 0
    ended_ms: int = 0
    step: str = ""
    done: int = 0
    total: int = 0
    said: str = ""
    result: dict[str, Any] = {}

    @property
    def going(self) -> bool:
        """Whether it has not ended."""
        return self.state == "running"


class Care:
    """The runs of one hub; the loop's own.

    Args:
        core: the hub.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self.process = core.claims.process
        self._runs: dict[str, Run] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._looked_ms = 0  # when the newest run ended behind which the backups were looked at
        self._children: set[asyncio.subprocess.Process] = set()
        self.on_pause: Callable[[], None] | None = None
        """Set by whoever serves the hub and can close it, do `paused_for`, and open it again."""
        self.paused_for: Errand | None = None
        self.came_back: tuple[Run, Said] | None = None
        """The run that this hub paused for, and what came of it."""

    def start(self) -> None:
        """Takes up what is known of earlier runs, on the running loop."""
        self._runs = self._read()
        for run in self._runs.values():
            if run.going and self._core.corpus.inline:
                run.state = "broken off"  # whoever did it is gone: this process alone serves the hub
        if self.came_back is not None:
            run, said = self.came_back
            self._runs[run.kind] = run
            self._end(run, said)
            self._tasks[run.kind] = asyncio.create_task(self._after_pause(run))

    async def stop(self) -> None:
        """Gives up what goes on; each can be asked for again."""
        for child in self._children:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
        for task in self._tasks.values():
            task.cancel()
        for task in self._tasks.values():
            with contextlib.suppress(asyncio.CancelledError):
                await task

    @property
    def place(self) -> str:
        """The hub's directory, or its database's address."""
        return self._core.options.database or str(getattr(self._core.home, "path", ""))

    @property
    def why_no_pause(self) -> str:
        """Why this hub cannot pause for what needs its files closed; empty: it can."""
        if self._core.options.database:
            return "its records are in a database, which has means of its own for that"
        return "" if self.on_pause is not None else "it was not started by holdfast serve"

    async def runs(self) -> dict[str, Run]:
        """The newest run of each kind."""
        if not self._core.corpus.inline:  # other processes of this hub have runs too
            now = self._core.home.wall.now_ms()
            for kind, run in (await self._core.read(self._read)).items():
                mine = self._runs.get(kind)
                if mine is not None and mine.process == self.process and mine.begun_ms >= run.begun_ms:
                    continue  # what is written down of it may be older than what is known here
                if run.going and now - run.beat_ms > STALE_MS:
                    run.state = "broken off"
                self._runs[kind] = run
            await self._look_again()
        return dict(self._runs)

    async def _look_again(self) -> None:
        """After another process's run that changed the backups: looks what there is now, once."""
        ended = max((run.ended_ms for run in self._runs.values() if run.kind in _CHANGES), default=0)
        if self._core.backups is not None and ended > max(self._looked_ms, self._core.backups.looked_ms):
            self._looked_ms = ended
            await self._core.backups.look()

    # -- asking for one -----------------------------------------------------------------------------------------

    async def begin(self, kind: Kind, by: Actor, **how: Any) -> Run:
        """The run of this kind that goes on, in whichever process, begun now unless there is one.

        Args:
            kind: what; of `repair` and `restore` see `pause` and `restore`.
            by: who asks.
            how: further fields of its errand.

        Raises:
            UsageError: this hub has no backups.
        """
        known = (await self.runs()).get(kind)
        if known is not None and known.going:
            return known
        if kind in ("backup", "verify", "drill", "prune", "restore") and self._core.backups is None:
            raise UsageError("this hub makes no backups", hint="holdfast serve --backup ADDRESS")
        now = self._core.home.wall.now_ms()
        run = Run(kind=kind, who=_name(by), process=self.process, begun_ms=now, beat_ms=now)
        self._runs[kind] = run  # before anything is waited for: whoever asks next finds it
        try:
            first = await self._core.read(lambda: self._write(run))
        except BaseException:
            run.state = "broken off"  # it was never begun
            if known is None:
                del self._runs[kind]
            else:
                self._runs[kind] = known
            raise
        if first is not run:  # another process was faster
            run.state, self._runs[kind] = "broken off", first
            return first
        self._tasks[kind] = asyncio.create_task(self._go(run, by, how))
        self._ring()
        return run

    async def pause(self, kind: Kind, by: Actor, errand: Errand) -> Run:
        """Has the hub closed, the errand done, and the hub opened again; a run that says how that goes.

        Raises:
            Conflict: something goes on that it would break off.
            UsageError: whoever serves this hub cannot do that.
        """
        if why := self.why_no_pause:
            raise UsageError(f"this hub cannot pause: {why}", hint="the page says which command does it")
        if going := [run.kind for run in self._runs.values() if run.going and run.kind != kind]:
            raise Conflict(f"a {going[0]} goes on, and the hub would break it off", hint="wait until it has ended")
        now = self._core.home.wall.now_ms()
        run = self._runs.get(kind)
        if run is None or not run.going:
            run = Run(kind=kind, who=_name(by), process=self.process, begun_ms=now, beat_ms=now)
            self._runs[kind] = run
        run.step = "the hub pauses, and is back when it is done"
        if self.paused_for is None:
            self.paused_for = errand
            assert self.on_pause is not None
            asyncio.get_running_loop().call_later(PAUSE_S, self.on_pause)
        self._ring()
        return run

    def errand(self, kind: errands.Kind, by: Actor, **how: Any) -> Errand:
        """An errand of this hub."""
        options = self._core.options
        fixed = {
            "place": self.place,
            "backup": options.backup,
            "backup_key": options.backup_key,
            "blobs": options.blobs,
            "preset": options.backup_preset,
            "interval_ms": max(1_000, round(options.backup_drill_every * 1000)),
        }
        return Errand(kind=kind, by=by, **{**fixed, **how})

    def run_of(self, errand: Errand) -> Run:
        """The run that an errand is part of."""
        return self._runs[errand.kind]

    # -- doing it -----------------------------------------------------------------------------------------------

    async def _go(self, run: Run, by: Actor, how: dict[str, Any]) -> None:
        saving = asyncio.create_task(self._save_again(run))
        try:
            said = await self._work(run, by, how)
        except asyncio.CancelledError:
            run.state = "broken off"
            raise
        except (HoldfastError, OSError) as error:
            said = Said(error=str(error))
        except Exception:
            logger.exception("a %s failed", run.kind)  # else it would go on for ever in the eyes of all
            said = Said(error="it failed", hint="the hub's log says why")
        finally:
            saving.cancel()
        if run.kind == "restore" and not said.error:
            await self._then_pause(run, by, how, said)
            return
        if run.kind in ("drill", "prune") and self._core.backups is not None:
            await self._core.backups.look()  # before it is done: whoever sees that it is sees what came of it
        self._end(run, said)
        await self._core.read(lambda: self._write(run))
        detail = {"said": run.said} if run.said else {}
        await self._core.audit.note(Act(by=by, what=acts.RUN, about=f"{run.kind}: {run.state}", detail=detail))
        self._ring()

    async def _work(self, run: Run, by: Actor, how: dict[str, Any]) -> Said:
        if run.kind == "scan":
            return await self._scan(run)
        if run.kind == "backup":
            return await self._back_up()
        kind: Any = "make ready" if run.kind == "restore" else run.kind
        return await self._run_errand(run, self.errand(kind, by, **how))

    async def _then_pause(self, run: Run, by: Actor, how: dict[str, Any], said: Said) -> None:
        """What was made ready is put in its place."""
        run.result = said.result or {}
        try:
            await self.pause("restore", by, self.errand("restore", by, **how))
        except HoldfastError as error:
            self._end(run, Said(error=error.message, hint=error.hint))
        await self._core.read(lambda: self._write(run))
        self._ring()

    async def _after_pause(self, run: Run) -> None:
        await self._core.read(lambda: self._write(run))
        by = Actor(kind="hub", who="the hub", via=acts.HUB)
        if run.state == "done" and run.kind == "repair":
            await self.begin("scan", by)  # the findings that were told are those of another file
        elif run.state == "done":
            # The newest backup is of what the hub went back from: a repair must not build on that.
            await self.begin("backup", by)

    async def _scan(self, run: Run) -> Said:
        scanning = self._core.scanning
        turning = asyncio.create_task(asyncio.to_thread(lambda: scanning.turn(whole=True)))
        while not turning.done():
            await asyncio.wait({turning}, timeout=LOOK_S)
            run.step, (run.done, run.total) = "records and pages", await self._core.read(scanning.far)
            self._ring()
        progress = await turning
        findings = len(progress.findings) + progress.left_out
        return Said(result={"records": progress.records, "findings": findings})

    async def _back_up(self) -> Said:
        backups = self._core.backups
        assert backups is not None
        await backups.now()
        if backups.trouble:
            return Said(error=backups.trouble)
        newest = backups.shelf[0].name if backups.shelf else ""
        return Said(result={"backup": newest, "verified": backups.verified})

    async def _run_errand(self, run: Run, errand: Errand) -> Said:
        """Carries an errand out in a process of its own; what it says last."""
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            errands.RUN,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=16 << 20,
        )
        self._children.add(child)
        last = Said(error="it ended without a word; the hub's log says more")
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(msgspec.json.encode(errand))
            child.stdin.close()
            async for line in child.stdout:
                with contextlib.suppress(msgspec.MsgspecError):
                    said = msgspec.json.decode(line, type=Said)
                    if said.result is not None or said.error:
                        last = said
                    else:
                        run.step, run.done, run.total = said.step, said.done, said.total
                        self._ring()
            await child.wait()
        finally:
            self._children.discard(child)
            if child.returncode is None:
                child.kill()
                await child.wait()
        return last

    # -- telling ------------------------------------------------------------------------------------------------

    def _end(self, run: Run, said: Said) -> None:
        run.ended_ms = run.beat_ms = self._core.home.wall.now_ms()
        run.state = "failed" if said.error else "done"
        run.said = f"{said.error}: {said.hint}" if said.error and said.hint else said.error
        run.result = {**run.result, **(said.result or {})}
        run.step, run.done, run.total = "", 0, 0

    def _ring(self) -> None:
        """Has everybody who looks at a page look again."""
        for bell in self._core.feed.bells:
            bell.set()

    async def _save_again(self, run: Run) -> None:
        while run.going:
            await asyncio.sleep(SAVE_S)
            run.beat_ms = self._core.home.wall.now_ms()
            try:
                await self._core.read(lambda: self._write(run))
            except HoldfastError as error:
                logger.warning("could not keep how a %s stands", run.kind, exc_info=error)

    def _read(self) -> dict[str, Run]:
        found = self._core.corpus.meta(_KEY)
        try:
            return msgspec.msgpack.decode(found, type=dict[str, Run]) if found else {}
        except msgspec.MsgspecError:
            return {}  # a later Holdfast's

    def _write(self, run: Run) -> Run:
        """Keeps how a run stands; the run of its kind that goes on, if that is another process's, which then stays.

        Writes take turns over all processes: of two that begin within the same millisecond the second finds the first.
        """
        kept = run
        if len(msgspec.msgpack.encode(run.result)) > RESULT_BYTES_MAX:
            kept = msgspec.structs.replace(run, result={})

        def job(tx: Any) -> Run:
            found = tx.meta(_KEY)
            try:
                runs = msgspec.msgpack.decode(found, type=dict[str, Run]) if found else {}
            except msgspec.MsgspecError:
                runs = {}
            other = runs.get(run.kind)
            if other is not None and self._is_anothers(other, run.beat_ms):
                return other
            runs[run.kind] = kept
            tx.set_meta(_KEY, msgspec.msgpack.encode(runs))
            return run

        return self._core.corpus.write(job)

    def _is_anothers(self, run: Run, now_ms: int) -> bool:
        """Whether a run goes on in another process of this hub; a directory has none."""
        if self._core.corpus.inline or run.process == self.process:
            return False
        return run.going and now_ms - run.beat_ms <= STALE_MS


def _name(by: Actor) -> str:
    return f"{by.kind} {by.who}".strip()

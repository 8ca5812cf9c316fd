"""The `demo` command: the play, and what it ends with."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from holdfast.cli import shell
from holdfast.cli.settings import Settings
from holdfast.cli.show import Progress, count_text, seconds_text
from holdfast.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from holdfast.cli.demo.audit import Ledger
    from holdfast.cli.demo.stage import Stage

KILL_AT: Final = 0.40
BACK_AT: Final = 0.65
SECONDS: Final = 16.0
RATE: Final = 40.0
REPORTS: Final = 5
INTEGRITY: Final = "integrity"


@shell.command("demo")
@click.argument("what", metavar="[PATH|integrity]", required=False)
@click.option(
    "--seconds", default=SECONDS, show_default=True, type=click.FloatRange(1), help="how long the agents work"
)
@click.option("--records", type=click.IntRange(30), help="instead: until they have written so many")
@click.option("--rate", default=RATE, show_default=True, type=click.FloatRange(1, 2000), help="writes/s of each agent")
@click.option("--keep", is_flag=True, help="then leave the hub running until Ctrl-C, and print its address")
@click.pass_obj
def demo_command(
    settings: Settings, what: str | None, seconds: float, records: int | None, rate: float, keep: bool
) -> int:
    """Watch a hub, two nodes and three agents at work on the files below PATH (default: holdfast's own).

    Half-way the hub is killed outright. The agents go on; the hub comes back; they catch up. Then everything is
    counted: what each agent saw return, against what the hub and both nodes really hold. The exit code is 9 when
    anything is lost, duplicated or does not prove itself. It needs no model, no service and no network, and leaves
    nothing behind.

    `holdfast demo integrity` does damage to the swarm's storage instead, and shows that it is found and mended.

    \b
      holdfast demo
      holdfast demo integrity
      holdfast demo ~/src/project --seconds 60 --keep
    """
    if what == INTEGRITY:
        from holdfast.cli.demo.integrity import run

        with _ending():
            return run(settings)
    path = Path(what) if what else Path(__file__).parents[2]
    if not path.exists():
        raise UsageError(f"path '{path}' does not exist", hint="a directory to read, or the word integrity")
    if find_spec("uvicorn") is None:
        raise MissingExtra("the demo runs a hub, and a hub needs uvicorn", hint="pip install 'holdfast[hub]'")
    root = path.resolve()
    with _place(settings) as home, _ending():
        play = Play(settings, home, root, rate=rate)
        ledger = play.run(seconds, records)
        play.tell(ledger)
        if keep:
            play.keep()
    return 0 if ledger.sound else 9


@contextlib.contextmanager
def _place(settings: Settings) -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="holdfast-demo-"))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def _ending() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does: in order, with nothing left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Play:
    """One run, from the first process to the count.

    Args:
        settings: how to print.
        home: an empty directory for everything.
        root: what the agents read.
        rate: writes a second of each agent.
        before_count: called with the stage when all is still, before the count (tests do damage here).
    """

    def __init__(
        self,
        settings: Settings,
        home: Path,
        root: Path,
        *,
        rate: float,
        before_count: Callable[[Stage], None] = lambda _: None,
    ) -> None:
        from holdfast.cli.demo.stage import Stage
        from holdfast.cli.demo.work import files

        if not files(root):
            raise UsageError(f"no files to read below {root}", hint="holdfast demo PATH")
        self.stage = Stage(home, root, rate)
        self._show = settings.show
        self._before_count = before_count
        self._begun = time.monotonic()

    def run(self, seconds: float, records: int | None = None) -> Ledger:
        """Plays it, and counts; every process has ended when this returns or raises.

        Args:
            seconds: how long the agents work.
            records: instead, until they have written so many; those that were under way are written too.
        """
        from holdfast.cli.demo.audit import Site, Times, audit

        stage, times = self.stage, Times()
        try:
            stage.start_hub()
            self._say(f"hub listening at {stage.url}")
            stage.start_nodes()
            self._say("two nodes, three agents: surveyor and critic on the laptop, editor on the server")
            times.begun = time.monotonic_ns()
            with Progress(self._show, "demo", 1000) as progress:

                def share() -> float:
                    done = stage.records / records if records else (time.monotonic_ns() - times.begun) / 1e9 / seconds
                    progress.at(round(done * 1000), f"{stage.records:,} records")
                    return done

                stage.rest(lambda: share() >= KILL_AT)
                stage.kill_hub()
                times.killed = time.monotonic_ns()
                at_kill = stage.records
                self._say(f"hub killed with SIGKILL after {count_text(at_kill, 'record')}; the agents go on")
                stage.rest(lambda: share() >= BACK_AT)
                self._say(f"{count_text(stage.records - at_kill, 'record')} written without it; the hub comes back")
                stage.start_hub()
                times.back = time.monotonic_ns()
                stage.rest(lambda: share() >= 1)
            stage.finish()
            times.stopped = time.monotonic_ns()
            stage.end_nodes()
            stage.end_hub()
            self._say("everything has stopped; counting")
            self._before_count(stage)
            return audit(Site(stage.hub_directory, stage.nodes, stage.written, stage.seen), times)
        finally:
            stage.clear()

    def tell(self, ledger: Ledger) -> None:
        """Prints the ledger, and what the agents found out for people."""
        show = self._show
        if show.as_json:
            show.document({**msgspec.structs.asdict(ledger), "sound": ledger.sound})
            return
        for line in self._reports():
            show.note(line)
        for line in ledger.lines():
            show.line(line)

    def keep(self) -> None:
        """Leaves the hub running until Ctrl-C."""
        self.stage.start_hub()
        try:
            self._show.line(f"hub               {self.stage.url}")
            self._show.note(f"read it with: holdfast inbox --store {self.stage.nodes['laptop']} --hub {self.stage.url}")
            self._show.note("Ctrl-C ends it and removes everything")
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
        finally:
            self.stage.clear()

    def _reports(self) -> Iterator[str]:
        from holdfast.node.store import Store

        reports: list[Any] = []
        for role, node in (("surveyor", "laptop"), ("critic", "laptop"), ("editor", "server")):
            with Store(self.stage.nodes[node], agent=role, hub=()) as store:
                reports += store.messages(to="people", limit=REPORTS)
        reports.sort(key=lambda message: message.time)
        yield ""
        yield "what they reported to people, lastly:"
        for message in reports[-REPORTS:]:
            yield f"  {message.agent}: {message.body}"[:100]
        yield ""

    def _say(self, text: str) -> None:
        if not self._show.as_json:
            self._show.note(f"{seconds_text(time.monotonic() - self._begun):>7}  {text}")

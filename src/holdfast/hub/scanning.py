"""A hub scans its corpus in the background, in a thread of its own; every process of one database stands by to."""

from __future__ import annotations

import logging
import threading

from holdfast.errors import HoldfastError, StoreClosed
from holdfast.hub.claims import Claims
from holdfast.hub.home import Home
from holdfast.integrity.scanner import Progress, Scanner, read_progress

logger = logging.getLogger(__name__)

STOP_S = 10.0
CLAIM_S = 0.2
"""Between two looks whether another process has ended its turn."""
_KEY = "scan"


class Scanning:
    """The scan of one hub.

    Args:
        home: where everything lies; stopped before it closes.
        every_s: seconds between two turns; 0 for none.
        claims: of this process: of several that serve one database one scans at a time.
    """

    def __init__(self, home: Home, every_s: float, claims: Claims) -> None:
        self.home, self._every_s, self._claims = home, every_s, claims
        self.progress = read_progress(self.load())
        self._turning = threading.Lock()
        self._scanner: Scanner | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="holdfast-scan", daemon=True)

    def start(self) -> None:
        """Begins."""
        if self._every_s > 0:
            self._thread.start()

    def stop(self) -> None:
        """Ends it, between two slices; again is fine."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)
        if self._turning.acquire(timeout=STOP_S):  # a turn that somebody asked for ends, too
            self._turning.release()

    def turn(self, *, whole: bool = False) -> Progress:
        """Makes a turn now, behind one that is under way in whichever process; returns how far the scan is."""
        with self._turning:
            while (held := self._claims.take(_KEY)) is None:
                if self._stop.wait(CLAIM_S):
                    return self.progress
            try:
                return self._turn(whole)
            finally:
                held.release()

    def turn_if_due(self) -> None:
        """Makes the turn that is due, unless another process makes it, or has just made it."""
        with self._turning:
            held = self._claims.take(_KEY)
            self.progress = read_progress(self.load())
            if held is None:
                return
            try:
                if self.home.wall.now_ms() - self.progress.at_ms >= self._every_s * 900:
                    self._turn(False)
            finally:
                held.release()

    def _turn(self, whole: bool) -> Progress:
        home = self.home
        self._scanner = scanner = Scanner(home.corpus, self, blobs=home.blobs, wall=home.wall, stop=self._stop)
        before = set(scanner.progress.findings)
        try:
            self.progress = scanner.turn(whole=whole)
        finally:
            self._scanner = None
        for finding in self.progress.findings:
            if finding not in before:
                logger.error("scan: %s", finding)
        return self.progress

    def far(self) -> tuple[int, int]:
        """How many records and pages the turn under way has looked at in its round, and how many there are."""
        scanner, corpus = self._scanner, self.home.corpus
        if scanner is None:
            return 0, 0
        done = scanner.progress
        return done.back + done.page, corpus.last() + corpus.engine.pages

    def load(self) -> bytes | None:
        """What was kept last, by whichever process."""
        found = self.home.corpus.meta(_KEY)
        return None if found is None else bytes(found)

    def save(self, data: bytes) -> None:
        """Keeps it beside the records."""
        self.home.corpus.write(lambda tx: tx.set_meta(_KEY, data))

    def warnings(self) -> list[str]:
        """What the scan has found, in a line."""
        findings = self.progress.findings
        if not findings:
            return []
        more = len(findings) - 1 + self.progress.left_out
        return [f"the scan found: {findings[0]}" + (f", and {more} more (holdfast scan)" if more else "")]

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self.turn_if_due()
            except StoreClosed:
                return
            except HoldfastError as error:
                logger.warning("the scan of this hub failed; it is tried again", exc_info=error)
            except Exception:
                # A scan that ended for good would be a hub that nobody looks at.
                logger.exception("the scan of this hub failed; it is tried again")

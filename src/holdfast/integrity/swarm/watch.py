"""`DataIntegrityManager`: looks at every value again and again, brings back what it can prove, and tells the rest."""

from __future__ import annotations

import os
import threading
from types import TracebackType
from typing import Any, Final, Self

from holdfast.errors import HoldfastError, NotFound
from holdfast.integrity.swarm.recovering import Recovered, Wanted, attempts, recover
from holdfast.integrity.swarm.storage import PersistentDataStorage
from holdfast.integrity.swarm.words import IntegrityCheck, IntegrityCheckType, RecoveryStrategy, member

SCAN_S: Final = 300.0
LAST_MAX: Final = 10_000
"""Results of so many values are remembered for `status`; those of damaged ones go last."""


class DataIntegrityManager:
    """Watches over a storage.

    Args:
        storage: a `PersistentDataStorage`, or the directory of one.
        scan_interval_s: seconds between scans once it was started.
        auto_recover: whether what a check finds is brought back where that can be proven.
        allow_loss: also where the newest version is lost by it.
    """

    def __init__(
        self,
        storage: PersistentDataStorage | str | os.PathLike[str],
        *,
        scan_interval_s: float = SCAN_S,
        auto_recover: bool = True,
        allow_loss: bool = False,
    ) -> None:
        self._mine = not isinstance(storage, PersistentDataStorage)
        self.storage = storage if isinstance(storage, PersistentDataStorage) else PersistentDataStorage(storage)
        self.scan_interval_s = scan_interval_s
        self.auto_recover = auto_recover
        self.allow_loss = allow_loss
        self.trouble = ""
        """What the last scan in the background failed with, if it did."""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # one scan or check at a time
        self._scans = 0
        self._scanned_at: float | None = None
        self._checks = self._failed = self._recovered = 0
        self._damaged: dict[str, list[str]] = {}
        self._whole: list[str] = []

    # -- in the background --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Scans now and then every `scan_interval_s`, in a thread, until `stop`; again is fine."""
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, name="holdfast-integrity", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends the scans; one that is under way ends first. Again is fine."""
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def close(self) -> None:
        """Stops, and closes the storage if it was opened here."""
        self.stop()
        if self._mine:
            self.storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        while True:
            try:
                self.scan()
                self.trouble = ""
            except (HoldfastError, OSError) as error:
                self.trouble = f"{type(error).__name__}: {error}"
            if self._stop.wait(self.scan_interval_s):
                return

    # -- checking -----------------------------------------------------------------------------------------------

    def check(self, data_id: str, *, recover: bool | None = None) -> list[IntegrityCheck]:
        """The five checks of a value; what they find is brought back where that can be proven.

        A check that found something stays failed in what is returned; ask again to see that it passes.

        Args:
            data_id: the value.
            recover: in place of `auto_recover`.

        Raises:
            NotFound: it is known neither here nor in a backup.
        """
        with self._lock:
            return self._check(data_id, self.auto_recover if recover is None else recover)

    def scan(self) -> list[IntegrityCheck]:
        """Checks every value that is known here or in a backup, and the log as a whole; the checks that failed."""
        with self._lock:
            failed = []
            for data_id in self._names():
                if self._stop.is_set() and threading.current_thread() is self._thread:
                    break
                failed += [check for check in self._check(data_id, self.auto_recover) if not check.passed]
            self._whole = self.storage.whole()
            self._scans += 1
            self._scanned_at = self.storage.now()
            return failed

    def recover(
        self,
        data_id: str,
        strategy: RecoveryStrategy | str | None = None,
        *,
        version: int | None = None,
        at: float | None = None,
    ) -> list[Recovered]:
        """Brings a value back, by the strategy named or by those that are proven; what was tried, the last one last.

        Args:
            data_id: the value.
            strategy: one by name, which may lose what is newer; None: those that lose nothing.
            version: the version to roll back to; None: the newest whole one before the newest.
            at: the time to roll back to, in seconds since 1970.

        Raises:
            NotFound: the value is known neither here nor in a backup.
            UsageError: no such strategy, or one that needs a time without it.
        """
        chosen = None if strategy is None else member(RecoveryStrategy, strategy)
        with self._lock:
            wanted = Wanted(version=version, at=at, allow_loss=self.allow_loss)
            tried = recover(self.storage, data_id, chosen, wanted)
            if tried[-1].successful:
                self._damaged.pop(data_id, None)
            return tried

    def status(self) -> dict[str, Any]:
        """What was found so far: scans, checks, what is damaged now, and every attempt to recover."""
        tried = attempts(self.storage.path)
        return {
            "running": self._thread is not None,
            "scan_interval_s": self.scan_interval_s,
            "scans": self._scans,
            "last_scan": self._scanned_at,
            "checks": self._checks,
            "failed": self._failed,
            "recovered": self._recovered,
            "damaged": dict(self._damaged),
            "whole": list(self._whole),
            "attempts": len(tried),
            "attempts_successful": sum(each["successful"] for each in tried),
            "trouble": self.trouble,
        }

    def _names(self) -> list[str]:
        names: dict[str, None] = {}
        for _, listed in self.storage.backups.newest_first():
            names |= dict.fromkeys(listed.entries)
            break
        try:
            names |= dict.fromkeys(self.storage.usable().ids())
        except HoldfastError as error:  # a damaged page among the names: the backups know them too
            self.trouble = error.message
        return sorted(names)

    def _check(self, data_id: str, recovers: bool) -> list[IntegrityCheck]:
        found = self.storage.problems(data_id)
        wrong = any(found.values())
        tried: list[Recovered] = []
        if wrong and recovers:
            try:
                tried = recover(self.storage, data_id, None, Wanted(allow_loss=self.allow_loss))
            except NotFound as error:
                self.trouble = error.message
        healed = bool(tried) and tried[-1].successful
        now = self.storage.now()
        checks = [
            IntegrityCheck(
                check_id=os.urandom(8).hex(),
                data_id=data_id,
                check_type=kind,
                timestamp=now,
                passed=not found[kind],
                details=_details(found[kind], tried),
                recovery_attempted=bool(found[kind] and tried),
                recovery_successful=bool(found[kind] and healed),
            )
            for kind in IntegrityCheckType
        ]
        failed = sum(not check.passed for check in checks)
        self._checks += len(checks)
        self._failed += failed
        self._recovered += healed
        self._damaged.pop(data_id, None)
        if wrong and not healed and len(self._damaged) < LAST_MAX:
            self._damaged[data_id] = [text for each in found.values() for text in each]
        return checks


def _details(problems: list[str], tried: list[Recovered]) -> dict[str, Any]:
    if not problems:
        return {}
    told = [
        {"strategy": each.strategy.name, "successful": each.successful, "what": each.what, "evidence": each.evidence}
        for each in tried
    ]
    return {"problems": list(problems), "recovery": told}

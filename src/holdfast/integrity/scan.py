"""A scan proves everything that one file holds: every record, chain, signature, key's newest version, blob and page.

It reads one snapshot, so writers may go on. What cannot be seen from inside the file, a tail that was cut off or a
file that was put back, shows only against the anchor handed in, and against the hub.

What is the database's work and none of ours (its own look at its indexes, the search index's words) is done on a second
thread meanwhile: it waits in C for most of that, and lets the walk have the interpreter.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Collection
from typing import Any, Final

from holdfast.corpus import SqlCorpus
from holdfast.corpus.snapshot import snapshot
from holdfast.errors import HoldfastError
from holdfast.integrity.checks import CHECKS, INDEX, PAGE, SIZE, WAL, Blobs, Finding
from holdfast.integrity.derived import count_words, words
from holdfast.integrity.verdict import FINDINGS_MAX as FINDINGS_MAX
from holdfast.integrity.verdict import NOTHING as NOTHING
from holdfast.integrity.verdict import ORPHAN_GRACE_S as ORPHAN_GRACE_S
from holdfast.integrity.verdict import Acked as Acked
from holdfast.integrity.verdict import Outside as Outside
from holdfast.integrity.verdict import Scan as Scan
from holdfast.integrity.walk import BLOB as BLOB
from holdfast.integrity.walk import RESTORE, Walk
from holdfast.log.anchor import Mark

_DERIVED: Final = "the records are right: holdfast repair derives the index from them again"


def verify_corpus(
    corpus: SqlCorpus,
    blobs: Blobs | None = None,
    *,
    anchor: Mark | None = None,
    full: bool = True,
    outside: Outside = NOTHING,
    checks: Collection[str] = CHECKS,
) -> Scan:
    """Proves what a file holds, or says what is not proven; changes nothing.

    Args:
        corpus: the file.
        blobs: where its blobs are; without it they are not looked for.
        anchor: where the anchor saw the head; without it a cut tail is not seen.
        full: also hash every payload and blob, and read every page; else headers, chains and signatures only.
        outside: what else is known from outside the file.
        checks: which of `holdfast.integrity.checks.CHECKS` are made. Among all of them one break is found once, by
            the check that says most of it; each alone finds whatever it can see.

    Returns:
        The scan. Damage never raises: what could not be read is a finding too.
    """
    begun = time.perf_counter()
    scan, on = Scan(), frozenset(checks)
    if WAL in on and outside.wal is not None and outside.wal.damaged:
        what = f"the write-ahead log was damaged before it was opened: {outside.wal.state}"
        actual = f"frame {outside.wal.first_bad}, {outside.wal.commits_behind} whole commits behind it"
        scan.note(Finding(WAL, "", 0, what, RESTORE, "only valid frames", actual))
    beside = _Beside(corpus) if full and INDEX in on else None
    try:
        with snapshot(corpus) as view:
            Walk(corpus, view, scan, on, full).run(anchor, blobs, outside)
            for agent, what in view.index() if beside is not None else ():
                scan.note(Finding(INDEX, agent, 0, what, _DERIVED))
    except (HoldfastError, struct.error) as error:
        scan.note(_broke_off(error))
    finally:
        if beside is not None:
            beside.join()
    found, indexes = beside.found() if beside is not None else ([], [])
    found += _below(corpus, SIZE, "size") if SIZE in on else []
    found += _below(corpus, PAGE, (1, 1 << 32)) if full and PAGE in on else []
    found = [*found, *indexes]
    told = frozenset(scan.findings)  # a page that cannot be read is met on several ways
    for finding in dict.fromkeys(found):
        if finding not in told:
            scan.note(finding)
    scan.seconds = time.perf_counter() - begun
    return scan


class _Beside(threading.Thread):
    """What SQLite looks at by itself, on a thread of its own: the words of the search index, and its own indexes."""

    def __init__(self, corpus: SqlCorpus) -> None:
        super().__init__(name="holdfast-verify", daemon=True)
        self._corpus = corpus
        self.words: list[Finding] = []
        self.indexes: list[Finding] = []
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Looks, and keeps what it finds."""
        try:
            self._look()
        except BaseException as error:  # nobody would hear of it here, and a look that ended early has found nothing
            self._error = error

    def found(self) -> tuple[list[Finding], list[Finding]]:
        """What is wrong with the words, and with the indexes, once all is looked at."""
        self.join()
        if self._error is not None:
            raise self._error
        return self.words, self.indexes

    def _look(self) -> None:
        try:
            with snapshot(self._corpus) as view:
                self.words += words(view)
                self.words += count_words(view)
        except HoldfastError as error:
            self.words.append(_broke_off(error))
        self.indexes = _below(self._corpus, INDEX, "indexes")


def _below(corpus: SqlCorpus, check: str, part: Any) -> list[Finding]:
    try:
        found = corpus.engine.scrub_part(part)
    except HoldfastError as error:
        found = [f"the file cannot be opened: {error.message}"]
    return [Finding(check, "", 0, what, RESTORE) for what in found]


def _broke_off(error: Exception) -> Finding:
    said = error.message if isinstance(error, HoldfastError) else str(error)
    return Finding(PAGE, "", 0, f"the scan broke off: {said}", getattr(error, "hint", ""))

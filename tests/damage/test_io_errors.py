"""Each call of a log to its disk fails once, or from then on: what was answered is there afterwards, and all is proven."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

from holdfast.corpus import SqliteCorpus
from holdfast.errors import HoldfastError, IntegrityError, NodeFull
from holdfast.integrity import verify_corpus
from holdfast.log import Log, value
from holdfast.testing.corpus import log_of
from holdfast.testing.power import CALLS, Faults, faulty
from tests.promises import Count

WRITES = 12


class Tried(NamedTuple):
    """What came of one run: the links that were answered, the errors told, and whether the log was usable behind them."""

    answered: list[bytes]
    errors: list[HoldfastError]
    usable: bool


def work(log: Log, faults: Faults) -> Iterator[list[bytes]]:
    """Writes of several sizes, and what goes on between them; each yields what it was answered."""
    for number in range(WRITES):
        drafts = [value("state", f"k{number % 5}", "x" * (40, 3000, 9000)[number % 3])] * (1 + 3 * (number % 4 == 3))
        yield [stored.record.link for stored in log.append(drafts)]
        if number % 4 == 1:
            log.corpus.sync()
        if number % 5 == 4:
            log.corpus.engine.checkpoint(most_pages=0)


def tried(directory: Path, faults: Faults, full: bool) -> Tried:
    """One run; nothing but our own errors may come out of it."""
    answered: list[bytes] = []
    errors: list[HoldfastError] = []
    usable = False

    def failing_sync(fd: int) -> None:
        if faults.due("sync"):
            raise OSError(5, "injected")

    with faulty(faults, checksums=True) as vfs, contextlib.ExitStack() as stack:
        try:
            corpus = SqliteCorpus(directory / "log.db", full=full, vfs=vfs, datasync=failing_sync)
            stack.callback(corpus.close)
            log = log_of(corpus, directory)
            steps = work(log, faults)
        except HoldfastError as error:
            faults.disarm()
            return Tried(answered, [error], False)
        while True:
            try:
                answered += next(steps)
            except StopIteration:
                break
            except HoldfastError as error:
                errors.append(error)
                # A generator that raised is over; what is left is tried as a program would that goes on.
                with contextlib.suppress(HoldfastError):
                    answered += [stored.record.link for stored in log.append([value("state", "after", 1)])]
                    usable = True
                break
        usable = usable or not errors
        faults.disarm()
    return Tried(answered, errors, usable)


def recovered(directory: Path) -> list[bytes]:
    """The links of what a log holds once it is opened again, proven."""
    corpus = SqliteCorpus(directory / "log.db")
    try:
        log_of(corpus, directory)
        found = corpus.feed(0, 10_000, 1 << 30)
        scan = verify_corpus(corpus)
        assert scan.sound, scan.findings
        return [stored.record.link for stored in found]
    finally:
        corpus.close()


@pytest.mark.parametrize("full", [False, True], ids=["advanced", "critical"])
@pytest.mark.parametrize("sticky", [False, True], ids=["once", "sticky"])
@pytest.mark.parametrize("error", ["ioerr", "full", "torn"])
def test_no_failing_call_costs_what_was_answered(
    quick: Path, count: Count, error: str, sticky: bool, full: bool
) -> None:
    at, told = 0, 0
    kind: Literal["ioerr", "full"] = "full" if error == "full" else "ioerr"
    while True:
        at += 1
        directory = quick / "tried"
        directory.mkdir()
        faults = Faults()
        faults.arm(at, kind, sticky=sticky, torn=error == "torn")
        answered, errors, _ = tried(directory, faults, full)
        # `disarm` has cleared the count of hits: a run in which nothing failed has answered everything.
        there = recovered(directory)
        shutil.rmtree(directory)
        lost = [link for link in answered if link not in set(there)]
        assert not lost, f"call {at}: {len(lost)} of {len(answered)} answered records are gone"
        told += bool(errors)
        if not errors and len(answered) == TOTAL and at > SEEN_MIN:
            break
        assert at < 2000
    assert told > 20
    count("a failing call of a log to its disk", tried=at - 1, told_as_an_error=told, absorbed=at - 1 - told)

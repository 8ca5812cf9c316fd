"""Each call of a log to its disk fails, once or from then on: what was answered is there afterwards, and proven."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from holdfast.corpus import SqliteCorpus
from holdfast.errors import HoldfastError, IntegrityError
from holdfast.integrity import verify_corpus
from holdfast.log import value
from holdfast.testing.corpus import log_of
from holdfast.testing.power import Faults, faulty
from tests.promises import Count

WRITES = 12


class Tried(NamedTuple):
    """What came of one run: the links answered, the errors told, whether a call failed, and how it stood in the end."""

    answered: list[bytes]
    errors: list[HoldfastError]
    hit: bool
    failed_for_good: bool


def tried(directory: Path, faults: Faults, *, full: bool) -> Tried:
    """A program that goes on whatever it is told. Nothing but errors of ours may come out of it."""
    answered: list[bytes] = []
    errors: list[HoldfastError] = []

    def datasync(fd: int) -> None:
        if faults.due("sync"):
            raise OSError(5, "injected: a failing fdatasync")

    with faulty(faults, checksums=True) as vfs:
        try:
            corpus = SqliteCorpus(directory / "log.db", full=full, vfs=vfs, datasync=datasync)
        except HoldfastError as error:
            return Tried([], [error], faults.hits > 0, True)
        try:
            log = None
            for number in range(WRITES):
                try:
                    log = log or log_of(corpus, directory)
                    size = (40, 3000, 9000)[number % 3]
                    drafts = [value("state", f"k{number % 5}", "x" * size)] * (4 if number % 4 == 3 else 1)
                    answered += [stored.record.link for stored in log.append(drafts)]
                    if number % 4 == 1:
                        corpus.sync()
                    if number % 5 == 4:
                        corpus.engine.checkpoint(most_pages=0)
                except HoldfastError as error:
                    errors.append(error)
            hit, failed = faults.hits > 0, corpus.engine.unusable
        finally:
            faults.disarm()
            corpus.close()
    return Tried(answered, errors, hit, failed)


def recovered(directory: Path) -> list[bytes]:
    """The links of what a log holds once it is opened again, proven."""
    corpus = SqliteCorpus(directory / "log.db")
    try:
        log_of(corpus, directory)
        scan = verify_corpus(corpus)
        assert scan.sound, scan.findings
        return [stored.record.link for stored in corpus.feed(0, 10_000, 1 << 30)]
    finally:
        corpus.close()


def swept(quick: Path, faults: Faults, count: Count, what: str, *, full: bool, step: int, **arm: object) -> list[Tried]:
    """One run for every `step`-th call that fails, until a run ends before its call comes."""
    runs: list[Tried] = []
    for at in itertools.count(1, step):
        directory = quick / "tried"
        directory.mkdir()
        faults.arm(at, **arm)  # type: ignore[arg-type]
        run = tried(directory, faults, full=full)
        there = set(recovered(directory))
        shutil.rmtree(directory)
        assert there.issuperset(run.answered), f"call {at}: what was answered is gone"
        if not run.hit:
            assert not run.errors
            break
        runs.append(run)
    told = sum(bool(run.errors) for run in runs)
    count(what, tried=len(runs), told_as_an_error=told, absorbed=len(runs) - told)
    return runs


@pytest.mark.parametrize("full", [False, True], ids=["advanced", "critical"])
@pytest.mark.parametrize("sticky", [False, True], ids=["once", "sticky"])
@pytest.mark.parametrize("error", ["ioerr", "full", "torn"])
@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.long)])
def test_no_failing_call_costs_what_was_answered(
    quick: Path, count: Count, error: str, sticky: bool, full: bool, step: int
) -> None:
    arm = {"error": "full" if error == "full" else "ioerr", "sticky": sticky, "torn": error == "torn"}
    runs = swept(quick, Faults(), count, "a failing call of a log to its disk", full=full, step=step, **arm)
    assert len(runs) > 20
    assert sum(bool(run.errors) for run in runs) > len(runs) // 2
    assert any(run.answered and run.errors for run in runs), "none failed in the middle"


@pytest.mark.parametrize("full", [False, True], ids=["advanced", "critical"])
def test_a_failed_sync_ends_a_log_until_it_is_opened_again(quick: Path, count: Count, full: bool) -> None:
    faults = Faults(frozenset({"sync"}))
    runs = swept(quick, faults, count, "a failing fsync of a log", full=full, step=1)
    assert len(runs) > 5
    for number, run in enumerate(runs, 1):
        assert run.failed_for_good, f"sync {number} failed, and the log went on"
        assert run.errors, f"sync {number} failed, and nobody was told"
        assert isinstance(run.errors[-1], IntegrityError)

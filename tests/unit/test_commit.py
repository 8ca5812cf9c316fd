"""Group commit: everybody is answered, in order, on every path; one bad job fails alone; nobody hangs."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from holdfast.corpus import commit
from holdfast.corpus.commit import JOBS_MAX, GroupCommit, Outcome
from holdfast.corpus.engine import Engine
from holdfast.errors import HoldfastError, NodeFull, StoreClosed

pytestmark = pytest.mark.timeout(30)

Job = Callable[[Any], Any]


class Ledger:
    """A transaction that keeps what its jobs add, all or none, and can be held up half-way."""

    def __init__(self) -> None:
        self.kept: list[Any] = []
        self.sizes: list[int] = []
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Semaphore(0)
        self.inside = 0

    def transact(self, jobs: Sequence[Job]) -> list[Any]:
        self.inside += 1
        assert self.inside == 1, "two leaders at once"
        try:
            self.entered.release()
            self.open.wait()
            draft: list[Any] = []
            results = [job(draft) for job in jobs]
            self.kept += draft
            self.sizes.append(len(jobs))
            return results
        finally:
            self.inside -= 1


def adds(value: Any) -> Job:
    def job(draft: list[Any]) -> Any:
        draft.append(value)
        return value

    return job


def raises(error: BaseException) -> Job:
    def job(draft: list[Any]) -> Any:
        draft.append("never kept")
        raise error

    return job


def queued(group: GroupCommit, many: int) -> None:
    """Returns once so many jobs wait."""
    while len(group._queue) < many:
        threading.Event().wait(0.001)


def futures_sink() -> Callable[[list[Outcome]], None]:
    def sink(outcomes: list[Outcome]) -> None:
        for future, result, error in outcomes:
            if not future.done():
                future.set_exception(error) if error is not None else future.set_result(result)

    return sink


class Held:
    """A group whose leader is held inside its transaction while jobs gather behind it."""

    def __init__(self, first: Job) -> None:
        self.ledger = Ledger()
        self.group = GroupCommit(self.ledger.transact)
        self.ledger.open.clear()
        self._pool = ThreadPoolExecutor(100)
        self.first = self._pool.submit(self.group.run, first)
        self.ledger.entered.acquire()
        self.sink = futures_sink()

    def sync(self, job: Job) -> Future[Any]:
        before = len(self.group._queue)
        future = self._pool.submit(self.group.run, job)
        queued(self.group, before + 1)
        return future

    def submit(self, job: Job) -> Future[Any]:
        future: Future[Any] = Future()
        self.group.submit(job, self.sink, future)
        return future

    def let_go(self) -> None:
        self.ledger.open.set()

    def end(self) -> None:
        self.group.stop()
        self._pool.shutdown()
        assert not self.group._busy
        assert self.group._thread is None


def test_a_lone_caller_commits_inline_and_gets_its_result() -> None:
    ledger = Ledger()
    group = GroupCommit(ledger.transact)
    assert [group.run(adds(n)) for n in range(3)] == [0, 1, 2]
    assert ledger.sizes == [1, 1, 1]
    assert group._thread is None, "a sync caller starts no thread"


def test_those_who_wait_are_committed_together_and_in_order() -> None:
    held = Held(adds("first"))
    waiting = [held.sync(adds(n)) if n % 3 else held.submit(adds(n)) for n in range(60)]
    held.let_go()
    assert held.first.result() == "first"
    assert [future.result() for future in waiting] == list(range(60))
    assert held.ledger.kept == ["first", *range(60)]
    assert held.ledger.sizes == [1, 60]
    held.end()


def test_a_transaction_takes_no_more_than_its_limit() -> None:
    held = Held(adds("first"))
    waiting = [held.submit(adds(n)) for n in range(JOBS_MAX * 2 + 5)]
    held.let_go()
    assert [future.result() for future in waiting] == list(range(JOBS_MAX * 2 + 5))
    assert max(held.ledger.sizes) <= JOBS_MAX
    assert held.ledger.kept == ["first", *range(JOBS_MAX * 2 + 5)]
    held.end()


@pytest.mark.parametrize("bad", [0, 1, 5, 9])
def test_a_job_that_fails_fails_alone(bad: int) -> None:
    held = Held(adds("first"))
    error = ValueError("bad")
    waiting = [held.sync(raises(error) if n == bad else adds(n)) for n in range(10)]
    held.let_go()
    for number, future in enumerate(waiting):
        if number == bad:
            assert future.exception() is error
        else:
            assert future.result() == number
    assert held.ledger.kept == ["first", *(n for n in range(10) if n != bad)]
    held.end()


@pytest.mark.parametrize("strikes", ["the leader's own job", "a follower's job", "the first leader"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_reaches_the_leader_and_nobody_hangs(strikes: str, error: type[BaseException]) -> None:
    held = Held(raises(error()) if strikes == "the first leader" else adds("first"))
    jobs: list[Job] = [adds(n) for n in range(20)]
    if strikes == "the leader's own job":
        jobs[0] = raises(error())
    elif strikes == "a follower's job":
        jobs[7] = raises(error())
    waiting = [held.sync(job) if n % 2 == 0 else held.submit(job) for n, job in enumerate(jobs)]
    later = []
    held.let_go()
    outcomes = [future.exception() for future in waiting]
    if strikes == "the first leader":
        assert isinstance(held.first.exception(), error)
        assert outcomes == [None] * 20
    else:
        assert isinstance(outcomes[0], error)
        told = {type(outcome) for outcome in outcomes[1:]}
        assert told == {HoldfastError}, "nobody else is told «done», nor interrupted"
        assert held.ledger.kept == ["first"]
    later = [held.group.run(adds("after")), held.submit(adds("after")).result()]
    assert later == ["after", "after"]
    held.end()


def test_an_interrupt_while_a_bad_batch_is_rerun_leaves_nobody_told_done() -> None:
    held = Held(adds("first"))
    jobs = [adds(0), raises(ValueError("bad")), adds(2), raises(KeyboardInterrupt()), adds(4), adds(5)]
    waiting = [held.sync(job) for job in jobs]
    held.let_go()
    outcomes = [future.exception() for future in waiting]
    # The first was committed before the interrupt, which belongs to it as the leader.
    assert isinstance(outcomes[0], KeyboardInterrupt)
    assert isinstance(outcomes[1], ValueError)
    assert waiting[2].result() == 2
    assert {type(outcome) for outcome in outcomes[3:]} == {HoldfastError}
    assert held.ledger.kept == ["first", 0, 2]
    held.end()


def test_a_job_that_ends_the_writer_thread_does_not_end_it() -> None:
    ledger = Ledger()
    group = GroupCommit(ledger.transact)
    sink = futures_sink()
    outcomes = []
    for job in (adds(1), raises(SystemExit()), adds(2), raises(asyncio.CancelledError()), adds(3)):
        future: Future[Any] = Future()
        group.submit(job, sink, future)
        outcomes.append(future.exception())
    assert [type(outcome) for outcome in outcomes] == [type(None), HoldfastError] * 2 + [type(None)]
    assert ledger.kept == [1, 2, 3]
    group.stop()


def test_a_sink_that_raises_hurts_nobody_else() -> None:
    held = Held(adds("first"))

    def broken(_: list[Outcome]) -> None:
        raise RuntimeError("Event loop is closed")

    held.group.submit(adds("x"), broken)
    waiting = [held.sync(adds(1)), held.submit(adds(2)), held.sync(adds(3))]
    held.let_go()
    assert [future.result() for future in waiting] == [1, 2, 3]
    held.end()


def test_a_sink_is_told_once_a_batch() -> None:
    held = Held(adds("first"))
    told: list[list[Outcome]] = []
    done = threading.Event()

    def sink(outcomes: list[Outcome]) -> None:
        told.append(outcomes)
        done.set()

    for number in range(50):
        held.group.submit(adds(number), sink, number)
    held.let_go()
    done.wait()
    assert told == [[(number, number, None) for number in range(50)]]
    held.end()


def test_stopping_waits_for_everything_that_was_queued() -> None:
    held = Held(adds("first"))
    waiting = [held.sync(adds(n)) if n % 2 else held.submit(adds(n)) for n in range(20)]
    stopping = threading.Thread(target=held.group.stop)
    stopping.start()
    held.let_go()
    stopping.join()
    assert held.ledger.kept == ["first", *range(20)]
    assert [future.result() for future in waiting] == list(range(20))
    held.end()


def test_a_job_submitted_after_the_stop_is_answered_all_the_same() -> None:
    ledger = Ledger()
    group = GroupCommit(ledger.transact)
    sink = futures_sink()
    for _ in range(3):
        group.stop()
        future: Future[Any] = Future()
        group.submit(adds(1), sink, future)
        assert future.result() == 1
    group.stop()
    group.stop()


class Interrupter:
    """Raises KeyboardInterrupt at the n-th place of commit.py where CPython would: a call begins or has returned."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.struck = False

    def __call__(self, frame: Any, event: str, _: Any) -> None:
        if event == "return" or frame.f_code.co_filename != commit.__file__:
            return
        if event == "c_call":
            return
        self.left -= 1
        if self.left == 0:
            self.struck = True
            sys.setprofile(None)
            raise KeyboardInterrupt


def test_an_interrupt_at_any_moment_of_a_submit_leaves_nobody_waiting() -> None:
    for at in range(1, 100):
        strike, ledger = Interrupter(at), Ledger()
        group = GroupCommit(ledger.transact)
        sys.setprofile(strike)
        try:
            group.submit(adds("struck"), futures_sink(), Future())
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
        later: Future[Any] = Future()
        group.submit(adds("later"), futures_sink(), later)
        assert later.result(20) == "later"
        group.stop()
        assert not group._busy
        if not strike.struck:
            return
    raise AssertionError("the sweep did not come to its end")


def strike_once(at: int, role: str) -> bool:
    """Strikes the leader at one place, with sync and async jobs behind it; whether there was such a place."""
    strike, ledger, sink = Interrupter(at), Ledger(), futures_sink()
    group = GroupCommit(ledger.transact)
    waiting: list[Future[Any]] = []
    with ThreadPoolExecutor(8) as pool:

        def gather(draft: list[Any]) -> None:
            draft.append("own")
            for number in range(3):
                before = len(group._queue)
                waiting.append(pool.submit(group.run, adds(number)))
                queued(group, before + 1)
                waiting.append(Future())
                pool.submit(group.submit, adds(number), sink, waiting[-1]).result()

        def struck(job: Job) -> Any:
            sys.setprofile(strike)
            try:
                return group.run(job)
            finally:
                sys.setprofile(None)

        if role == "alone":
            first = pool.submit(struck, gather)
        else:
            ledger.open.clear()
            head = pool.submit(group.run, adds("head"))
            ledger.entered.acquire()
            first = pool.submit(struck, gather)
            while not group._queue and not first.done():
                threading.Event().wait(0.001)
            ledger.open.set()
            assert head.result() == "head"
        error = first.exception()
        assert error is None or isinstance(error, KeyboardInterrupt), error
        for future in waiting:
            left = future.exception()
            assert left is None or isinstance(left, HoldfastError)
        assert group.run(adds("after")) == "after"
        last: Future[Any] = Future()
        group.submit(adds("last"), sink, last)
        assert last.result() == "last"
        group.stop()
    assert not group._busy
    return strike.struck


@pytest.mark.parametrize("role", ["alone", "asked to lead"])
def test_an_interrupt_at_any_moment_leaves_nobody_waiting(role: str) -> None:
    """Sweeps every place where a signal can strike the leader, until there is no further one."""
    places = 1
    while strike_once(places, role):
        places += 1
    assert places > 5


def test_64_threads_and_64_tasks_are_all_answered_rightly() -> None:
    ledger = Ledger()
    group = GroupCommit(ledger.transact)
    each = 30

    def thread(number: int) -> list[str]:
        out = []
        for turn in range(each):
            name = f"t{number}/{turn}"
            if turn % 7 == 3:
                with pytest.raises(ValueError, match=name):
                    group.run(raises(ValueError(name)))
            else:
                out.append(group.run(adds(name)))
        return out

    async def task(number: int) -> list[str]:
        loop, out = asyncio.get_running_loop(), []

        def deliver(outcomes: list[Outcome]) -> None:
            for future, result, error in outcomes:
                future.set_exception(error) if error is not None else future.set_result(result)

        for turn in range(each):
            future = loop.create_future()
            name = f"a{number}/{turn}"
            group.submit(adds(name), lambda found: loop.call_soon_threadsafe(deliver, found), future)
            out.append(await future)
        return out

    async def tasks() -> list[list[str]]:
        return await asyncio.gather(*(task(number) for number in range(64)))

    with ThreadPoolExecutor(65) as pool:
        loop = pool.submit(lambda: asyncio.run(tasks()))
        threads = list(pool.map(thread, range(64)))
        found = [*threads, *loop.result()]
    assert sorted(ledger.kept) == sorted(name for names in found for name in names)
    assert len(ledger.kept) == 64 * each + 64 * (each - len(range(3, each, 7)))
    for names in found:
        places = [ledger.kept.index(name) for name in names]
        assert places == sorted(places), "one caller's writes are in its order"
    group.stop()


# ---- over SQLite: a full file drops the whole transaction


@pytest.fixture
def engine(tmp_path: Path) -> Any:
    engine = Engine(tmp_path / "log.db", roles=())
    engine.commits.run(lambda tx: tx.writer_execute("CREATE TABLE t(n INTEGER, b BLOB)"))
    yield engine
    engine.close()


def inserts(number: int, size: int = 10) -> Job:
    return lambda tx: tx.writer_execute("INSERT INTO t VALUES(?,zeroblob(?))", (number, size)) and number


def test_a_full_file_fails_the_jobs_that_do_not_fit_and_keeps_the_others(engine: Engine) -> None:
    pages = engine.one("PRAGMA page_count")[0]
    engine.writer_execute(f"PRAGMA max_page_count={pages + 20}").fetchall()
    gate, entered = threading.Event(), threading.Event()

    def first(tx: Any) -> str:
        entered.set()
        gate.wait()
        return "first"

    with ThreadPoolExecutor(20) as pool:
        held = pool.submit(engine.commits.run, first)
        entered.wait()
        jobs = []
        for number in range(10):
            jobs.append(pool.submit(engine.commits.run, inserts(number, 1 << 20 if number in (3, 8) else 10)))
            queued(engine.commits, number + 1)
        gate.set()
        assert held.result() == "first"
        errors = {number: job.exception() for number, job in enumerate(jobs) if job.exception() is not None}
    assert {number: type(error) for number, error in errors.items()} == {3: NodeFull, 8: NodeFull}
    assert [row[0] for row in engine.query("SELECT n FROM t ORDER BY n")] == [0, 1, 2, 4, 5, 6, 7, 9]
    engine.writer_execute("PRAGMA max_page_count=1000000").fetchall()
    engine.commits.run(inserts(10, 1 << 20))
    assert engine.scrub() == []


def test_what_happens_behind_the_commit_never_has_a_batch_run_twice(engine: Engine) -> None:
    def broken() -> None:
        raise OSError("the anchor's disk is gone")

    engine.on_commit = broken
    gate, entered = threading.Event(), threading.Event()
    with ThreadPoolExecutor(10) as pool:

        def first(tx: Any) -> None:
            entered.set()
            gate.wait()

        held = pool.submit(engine.commits.run, first)
        entered.wait()
        jobs = []
        for number in range(5):
            jobs.append(pool.submit(engine.commits.run, inserts(number)))
            queued(engine.commits, number + 1)
        gate.set()
        held.result()
        outcomes = [job.exception() for job in jobs]
    # The first commit was kept and answered; it failed the engine, so what came behind was refused, and not kept.
    assert all(isinstance(outcome, HoldfastError) for outcome in outcomes)


def test_after_the_close_every_write_says_so(engine: Engine) -> None:
    engine.close()
    with pytest.raises(StoreClosed):
        engine.commits.run(inserts(1))
    future: Future[Any] = Future()
    engine.commits.submit(inserts(1), futures_sink(), future)
    assert isinstance(future.exception(), StoreClosed)

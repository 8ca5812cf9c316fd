"""Group commit: whoever finds nobody committing commits for everybody who waits. One mechanism, two colours.

Theory of operation. A *job* is a callable that gets the open transaction and returns a result. Sync callers
(`GroupCommit.run`) lead when nobody does, inline and without a hand-off; otherwise they queue, and the leader, when
it is done, *hands leadership to the first waiter* (a plain lock only ever gathers two). Async callers (`submit`)
queue and are led by one writer thread, which wakes their event loop once a batch. Either kind of leader takes
everything that queued.

Rules that tests hold it to:
1. State advances only after COMMIT: a job must keep what it learns to itself until it has returned and been committed.
2. A job that raises undoes the whole transaction; the batch is then rerun, one job a transaction, so that one bad job
   fails alone. (SQLite does the same to us on a full disk: it drops the transaction, savepoints included.)
3. Every waiter is resolved on every path, also when the leader is struck by KeyboardInterrupt. CPython raises it where
   a function begins or a call returns, so the steps that others depend on are repeatable and tried again once.
4. There is one leader: a `_turn` can be handed on once, and the writer thread leads only when it was given the turn.

Rejected: a linger timer (adds its own length to every write, gathers nothing that the commit itself does not); a
savepoint a job (2 µs each for what happens once in a million).
"""

from __future__ import annotations

import _thread
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from holdfast.errors import HoldfastError

JOBS_MAX: Final = 1000
"""Jobs in one transaction: bounds how long the first of them waits for the last."""

T = TypeVar("T")
Outcome = tuple[Any, Any, BaseException | None]
Sink = Callable[[list[Outcome]], None]


class _Job:
    __slots__ = ("error", "fn", "gate", "result", "sink", "token", "turn")

    def __init__(self, fn: Callable[[Any], Any], sink: Sink | None = None, token: Any = None) -> None:
        self.fn = fn
        self.result: Any = None
        self.error: BaseException | None = None
        self.sink = sink
        self.token = token
        self.gate = _thread.allocate_lock()  # released when resolved, or when asked to lead
        self.turn = 0  # the turn in which it was asked to lead


class GroupCommit:
    """Runs jobs in shared transactions, in the order they came.

    Args:
        transact: runs callables inside one transaction: ``transact(fns) -> results``; all or none, raising what the
            first failing one raised, and returning only when what it promises to be durable is.
        name: for the writer thread.
    """

    def __init__(self, transact: Callable[[Sequence[Callable[[Any], Any]]], list[Any]], name: str = "holdfast") -> None:
        self._transact = transact
        self._name = name
        self._lock = threading.Lock()
        self._queue: deque[_Job] = deque()  # guarded by _lock
        self._busy = False  # guarded by _lock: somebody leads, or has been asked to
        self._turn = 1  # guarded by _lock: grows whenever leadership is handed on or put down
        self._writers_turn = 0  # guarded by _lock: the turn in which the writer thread was asked to lead
        self._thread: threading.Thread | None = None  # guarded by _lock
        self._wake = threading.Semaphore(0)
        self._stopping = False  # guarded by _lock

    def run(self, fn: Callable[[Any], T]) -> T:
        """Returns the job's result once its transaction is committed.

        Raises:
            Exception: what the job or its commit raised; nothing of the job was kept.
        """
        turn, job = 0, None
        try:
            with self._lock:
                if self._busy:
                    job = _Job(fn)
                    job.gate.acquire()
                    self._queue.append(job)
                else:
                    turn = self._turn
                    self._busy = True
            if turn:  # nobody else: inline, and alone, so that a lone caller pays for no machinery
                alone: T = self._transact((fn,))[0]
                return alone
            assert job is not None
            job.gate.acquire()
            if job.turn:
                self._lead([job], job.turn)
        except BaseException:
            if job is not None:
                self._withdraw(job)
            raise
        finally:
            if turn:
                try:
                    self._hand_over(turn)
                except BaseException:
                    self._hand_over(turn)
                    raise
        if job.error is not None:
            raise job.error
        result: T = job.result
        return result

    def submit(self, fn: Callable[[Any], Any], sink: Sink, token: Any = None, *, here: bool = False) -> None:
        """Queues a job; `sink` is called once a batch, in the committing thread.

        Args:
            fn: the job.
            sink: gets ``[(token, result, error), ...]`` for all its jobs of the batch; must not block or raise, and
                bears to be told again when an interrupt struck while it was told.
            token: whatever the sink needs to know whose result this is.
            here: commit in this thread, before returning, if nobody else commits now.
        """
        with self._lock:
            self._queue.append(_Job(fn, sink, token))
            if self._busy:
                return
            self._busy, turn = True, self._turn
            if not here:
                try:
                    self._call_writer(turn)
                except BaseException:
                    self._call_writer(turn)
                    raise
                return
        try:
            self._lead([], turn)
        finally:
            self._hand_over(turn)  # of no effect, unless an interrupt struck before it led

    def stop(self) -> None:
        """Returns when everything queued is committed and the writer thread has ended."""
        with self._lock:
            self._stopping = True
            thread, busy = self._thread, self._busy
        if busy:
            with contextlib.suppress(Exception):  # a failed engine commits nothing more, and says so to its callers
                self.run(_nothing)
        if thread is not None and thread is not threading.current_thread():
            self._wake.release()
            thread.join()

    def _withdraw(self, job: _Job) -> None:
        with self._lock, contextlib.suppress(ValueError):
            self._queue.remove(job)
        if job.turn:  # asked to lead, and perhaps struck before it began: handing a turn on twice is harmless
            self._hand_over(job.turn)

    def _lead(self, own: list[_Job], turn: int) -> None:
        batch = own[:]
        try:
            with self._lock:
                while self._queue and len(batch) < JOBS_MAX:
                    batch += (self._queue[0],)  # no call, so no interrupt, before it has left the queue
                    del self._queue[0]
            self._commit(batch)
        except Exception as error:  # cannot be, but nobody may wait for ever for what cannot be
            _blame(batch, error)
        except BaseException as error:
            # An interrupt belongs to the leader; the others only lent it their jobs, and may not be told "done".
            lost = HoldfastError(
                "the thread that committed this write was interrupted: whether it was kept is not known",
                hint="read it back before you write it again",
            )
            lost.__cause__ = error
            _blame(own, error)
            _blame(batch, lost)
            raise
        finally:
            try:
                self._resolve(batch)
                self._hand_over(turn)
            except BaseException:
                self._resolve(batch)
                self._hand_over(turn)
                raise

    def _commit(self, batch: list[_Job]) -> None:
        if not batch:
            return
        try:
            results = self._transact([job.fn for job in batch])
        except Exception as error:
            if len(batch) == 1 or getattr(error, "final", False):
                # Final: whether it was committed is not known, or nothing would be; to run it again would be wrong.
                for job in batch:
                    job.error = error
                return
            for job in batch:
                self._commit([job])
            return
        for job, result in zip(batch, results, strict=True):
            job.result = result
            job.fn = _done

    def _resolve(self, batch: Sequence[_Job]) -> None:
        sinks: dict[Sink, list[Outcome]] = {}
        for job in batch:
            if job.sink is not None:
                sinks.setdefault(job.sink, []).append((job.token, job.result, job.error))
            elif job.gate.locked() and not job.turn:
                job.gate.release()
        for sink, outcomes in sinks.items():
            # Such as an event loop that has been closed: its own affair, and not that of whoever leads.
            with contextlib.suppress(Exception):
                sink(outcomes)

    def _hand_over(self, turn: int) -> None:
        # What must happen once happens behind the last call that an interrupt could strike, or in one with it.
        with self._lock:
            if turn != self._turn:
                return
            if not self._queue:
                if self._stopping:
                    self._wake.release()
                self._busy = False
                self._turn = turn + 1
            elif self._queue[0].sink is None:
                job = self._queue[0]
                del self._queue[0]
                job.turn = self._turn = turn + 1
                job.gate.release()
            else:
                self._call_writer(turn + 1)
                self._turn = turn + 1

    def _call_writer(self, turn: int) -> None:
        # Under the lock, and only by whoever has the turn to give; again is harmless.
        self._writers_turn = turn
        if self._thread is None:
            # Daemon: a program that forgets to close must still be able to end; what was submitted and not yet
            # awaited is then not promised to anybody.
            thread = threading.Thread(target=self._write, name=f"{self._name}-writer", daemon=True)
            thread.start()
            self._thread = thread
        self._wake.release()

    def _write(self) -> None:
        while True:
            self._wake.acquire()
            with self._lock:
                turn = self._writers_turn if self._writers_turn == self._turn and self._busy else 0
                self._writers_turn = 0
                if not turn and self._stopping and not self._busy:
                    self._thread = None
                    return
            if turn:
                # A job that raises SystemExit has been told; the thread that serves all the others goes on.
                with contextlib.suppress(BaseException):
                    self._lead([], turn)


def _nothing(_: Any) -> None:
    """The job that comes after all those before it."""


def _done(_: Any) -> Any:
    raise AssertionError("committed")  # pragma: no cover - marks a job as committed


def _blame(batch: Sequence[_Job], error: BaseException) -> None:
    """Gives an error to every job that has neither been committed nor failed by itself."""
    for job in batch:
        if job.fn is not _done and job.error is None:
            job.error = error

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
3. Every waiter is resolved on every path, also when the leader is struck by KeyboardInterrupt.

Rejected: a linger timer (adds its own length to every write, gathers nothing that the commit itself does not); a
savepoint a job (2 µs each for what happens once in a million).
"""

from __future__ import annotations

import _thread
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

JOBS_MAX: Final = 1000
"""Jobs in one transaction: bounds how long the first of them waits for the last."""

T = TypeVar("T")
Outcome = tuple[Any, Any, BaseException | None]
Sink = Callable[[list[Outcome]], None]


class _Job:
    __slots__ = ("error", "fn", "gate", "leads", "result", "sink", "token")

    def __init__(self, fn: Callable[[Any], Any], sink: Sink | None = None, token: Any = None) -> None:
        self.fn = fn
        self.result: Any = None
        self.error: BaseException | None = None
        self.sink = sink
        self.token = token
        self.gate = _thread.allocate_lock()  # released when resolved, or when asked to lead
        self.leads = False


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
        self._thread: threading.Thread | None = None
        self._wake = threading.Semaphore(0)
        self._stopping = False

    def run(self, fn: Callable[[Any], T]) -> T:
        """Returns the job's result once its transaction is committed.

        Raises:
            Exception: what the job or its commit raised; nothing of the job was kept.
        """
        with self._lock:
            lead = not self._busy
            if lead:
                self._busy = True
            else:
                job = _Job(fn)
                job.gate.acquire()
                self._queue.append(job)
        if lead:  # nobody else: inline, and alone, so that a lone caller pays for no machinery
            try:
                alone: T = self._transact((fn,))[0]
                return alone
            finally:
                self._hand_over()
        self._wait(job)
        if job.error is not None:
            raise job.error
        result: T = job.result
        return result

    def submit(self, fn: Callable[[Any], Any], sink: Sink, token: Any = None) -> None:
        """Queues a job; `sink` is called once a batch, in the committing thread.

        Args:
            fn: the job.
            sink: gets ``[(token, result, error), ...]`` for all its jobs of the batch; must not block or raise.
            token: whatever the sink needs to know whose result this is.
        """
        with self._lock:
            self._queue.append(_Job(fn, sink, token))
            if self._busy:
                return
            self._busy = True
        self._wake_writer()

    def stop(self) -> None:
        """Returns when everything queued is committed and the writer thread has ended."""
        self._stopping = True
        if self._thread is not None:
            self._wake.release()
            self._thread.join()

    def _wait(self, job: _Job) -> None:
        try:
            job.gate.acquire()
        except BaseException:
            with self._lock:
                waiting = job in self._queue
                if waiting:
                    self._queue.remove(job)
            if not waiting and job.leads:
                self._hand_over()
            raise
        if job.leads:
            self._lead([job])

    def _lead(self, batch: list[_Job]) -> None:
        with self._lock:
            while self._queue and len(batch) < JOBS_MAX:
                batch.append(self._queue.popleft())
        try:
            self._commit(batch)
        finally:
            self._resolve(batch)
            self._hand_over()

    def _commit(self, batch: list[_Job]) -> None:
        try:
            for job, result in zip(batch, self._transact([job.fn for job in batch]), strict=True):
                job.result = result
        except Exception as error:
            if len(batch) == 1:
                batch[0].error = error
                return
            for job in batch:
                self._commit([job])
        except BaseException as error:
            # An interrupt belongs to the leader; the others only lent it their jobs and may not be told "done".
            for job in batch:
                job.error = job.error or error
            raise

    def _resolve(self, batch: list[_Job]) -> None:
        sinks: dict[Sink, list[Outcome]] = {}
        for job in batch:
            if job.sink is not None:
                sinks.setdefault(job.sink, []).append((job.token, job.result, job.error))
            elif job.gate.locked() and not job.leads:
                job.gate.release()
        for sink, outcomes in sinks.items():
            sink(outcomes)

    def _hand_over(self) -> None:
        with self._lock:
            if not self._queue:
                self._busy = False
                return
            if self._queue[0].sink is None:
                job = self._queue.popleft()
                job.leads = True
                job.gate.release()
                return
        self._wake_writer()

    def _wake_writer(self) -> None:
        if self._thread is None:
            # Daemon: a program that forgets to close must still be able to end; what was submitted and not yet
            # awaited is then not promised to anybody.
            self._thread = threading.Thread(target=self._write, name=f"{self._name}-writer", daemon=True)
            self._thread.start()
        self._wake.release()

    def _write(self) -> None:
        while True:
            self._wake.acquire()
            with self._lock:
                batch = [self._queue.popleft()] if self._queue and self._busy else []
            if batch:
                self._lead(batch)
            elif self._stopping:
                return

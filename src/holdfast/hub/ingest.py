"""The one writer: everything that waits goes into one transaction, is shown at COMMIT, and acknowledged after a sync.

A node's request is answered at the commit as taken, so that its next one need not wait for the disk; what is safe there
is said in later answers (`AppendAnswer.safe`), and at once to a node that has nothing left to send but the question.

Three threads meet here. The event loop queues; whoever commits decides and publishes too; the syncer does one fdatasync
for all that was committed since its last, and then wakes the loop once. There is no timer: a batch is what arrived
during the commit before it, or in the same turn of the loop.

The loop itself commits what is small while nothing hints at a disk (ADR 0013): two hand-offs between threads cost more
than such a commit. Everything else is the corpus's writer thread's: large requests, jobs that may read files, and all
commits while the WAL is long enough that one of them might move it, begin it anew, or sync.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from holdfast import seal
from holdfast.corpus import Stored
from holdfast.corpus.transaction import SqlTransaction
from holdfast.errors import HoldfastError, HubFull, HubUnavailable, IntegrityError, NodeFull
from holdfast.hub.directory import WAL_PAGES_INLINE
from holdfast.hub.erasing import Erasing
from holdfast.hub.home import Home
from holdfast.hub.judge import HubIngest
from holdfast.wire import Append, AppendAnswer

logger = logging.getLogger(__name__)

RECORDS_PER_COMMIT: Final = 2_000
"""About 40 ms of work: what the last request of a burst waits for the first."""
QUEUE_MAX: Final = 4_096
HERE_RECORDS_MAX: Final = 32
HERE_BYTES_MAX: Final = 256 << 10
"""What the loop commits by itself: about 3 ms of work, most of it signatures."""
HERE_WAL_PAGES: Final = WAL_PAGES_INLINE * 3 // 4
HERE_SLOW_S: Final = 0.01
HERE_PAUSE_S: Final = 1.0
"""Two commits on the loop that took so long met a disk after all: for so long the writer thread has them all."""
ARRIVAL_EVERY_MS: Final = 5_000
LINES_MAX: Final = 4_096
_ARRIVED: Final = "INSERT INTO arrival(at_ms, pos) VALUES(?,?) ON CONFLICT(at_ms) DO UPDATE SET pos=excluded.pos"

Job = Callable[[SqlTransaction], tuple[Any, list[Stored]]]
"""Work on the hub's own streams: its result, and the records that it wrote in order."""
Publish = Callable[[Sequence[Stored], Mapping[bytes, bytes]], None]


class Writer:
    """Commits what nodes append and what the hub writes for plain clients, in the order it came.

    Args:
        home: the hub's directory.
        publish: gets the records of each commit, in order, in the committing thread, and what is at hand of their
            payloads (by link); must not block or raise.
    """

    def __init__(self, home: Home, publish: Publish) -> None:
        self._home = home
        self._publish = publish
        self._durable = not home.corpus.inline
        self.erasing = Erasing(home)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._not_here_before = 0.0  # the loop's own
        self._wal_ended = self._slow = 0  # the length of a WAL that is all moved; slow commits of late
        self._lock = threading.Lock()  # guards _waiting, _undecided, _scheduled, _left
        self._waiting: list[tuple[Append, asyncio.Future[Any]]] = []
        self._undecided = 0  # requests that no commit has answered yet
        self._scheduled = False  # a round is queued that will take what waits
        self._left = False  # the newest round took less than what waited
        self._queued = 0  # the loop's own
        self._arrival_ms = 0  # the committing thread's own
        self._turn = threading.Condition()
        self._unsynced: list[_Owed] = []  # guarded by _turn
        self._safe: dict[bytes, int] = {}  # the newest request of each line that is on the disk; written under _turn
        self._synced = 0  # how many of `commits` the disk has; guarded by _turn
        self._stopping = False
        self._crowded = False  # a commit met a full disk
        self._syncer = threading.Thread(target=self._sync, name="holdfast-syncer", daemon=True)
        self.failure: BaseException | None = None
        self.committed = threading.Event()  # for whoever works behind commits (the index)
        self.commits = self.syncs = self.records = 0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """From here on `append` and `run` may be called, on this loop."""
        self._loop, self._loop_thread = loop, threading.get_ident()
        self._syncer.start()

    def stop(self) -> None:
        """Returns when everything that was queued is committed, synced and answered."""
        self._home.corpus.commits.stop()
        with self._turn:
            self._stopping = True
            self._turn.notify()
        if self._syncer.ident is not None:
            self._syncer.join()

    # -- the loop's side ----------------------------------------------------------------------------------------

    async def append(self, message: Append) -> AppendAnswer:
        """The answer to a node's request: at the commit, or, to one without segments, after the sync.

        Raises:
            HubFull: no room; nothing was written.
            HubUnavailable: the disk failed, or too much is waiting.
        """
        self._admit(sum([len(i.body or b"") + 512 for s in message.segments for i in s.items]))
        future = self._future()
        with self._lock:
            asked = not message.segments and not self._undecided and message.gen == self._home.gen
            if not asked:
                self._waiting.append((message, future))
                self._undecided += 1
                begin, self._scheduled = not self._scheduled, True
        if asked:  # only after the disk: there is nothing to decide, nor anything undecided before it
            return await self._when_safe(message, future)
        if begin:
            assert self._loop is not None
            self._loop.call_soon(self._begin_round)  # so that what came in the same turn shares the transaction
        answer: AppendAnswer = await self._outcome(future)
        return answer

    async def _when_safe(self, message: Append, future: asyncio.Future[Any]) -> AppendAnswer:
        owed = _Owed(future, AppendAnswer(message.gen, message.req, []), message.line)
        with self._turn:
            if self._synced == self.commits:
                self._note_safe([owed])
                future.set_result(self._kept(owed))
            else:
                self._unsynced.append(owed)
                self._turn.notify()
        answer: AppendAnswer = await self._outcome(future)
        return answer

    async def run(self, job: Job, *, size: int = 0, quick: bool = False) -> Any:
        """The result of a job of the hub's own, once what it wrote would survive a power cut.

        Args:
            job: the work; it may run twice (alone, when a neighbour in its batch failed), so it must only count on
                what the transaction tells it.
            size: about how many bytes it will write.
            quick: whether the loop may do it: it writes little, and raises `Elsewhere` where it would need a file.

        Raises:
            HubFull: no room; nothing was written.
            HubUnavailable: the disk failed, or too much is waiting.
        """
        self._admit(size)
        future = self._future()
        self._commit(_Own(job, future), here=quick and size <= HERE_BYTES_MAX and self._calm())
        return await self._outcome(future)

    def _admit(self, size: int) -> None:
        if self.failure is not None or self._home.corpus.unusable:
            raise HubUnavailable(
                f"this hub cannot write: {self.failure or 'its files are closed'}",
                hint="restart it: it verifies what is really there; nodes keep everything until then",
            )
        if self._queued >= QUEUE_MAX:
            raise HubUnavailable(f"{self._queued} requests are waiting", hint="ask again in a moment")
        try:
            self._home.reserve.check(size)
        except NodeFull as error:
            raise HubFull(error.message, hint="free space on the hub; reads go on", **error.context) from error

    def _future(self) -> asyncio.Future[Any]:
        assert self._loop is not None
        self._queued += 1
        return self._loop.create_future()

    async def _outcome(self, future: asyncio.Future[Any]) -> Any:
        try:
            return await asyncio.shield(future)
        except NodeFull as error:
            raise HubFull("the hub's disk is full", hint="free space on the hub; reads go on") from error
        except IntegrityError as error:
            # Of the hub's own file: not the client's fault, and a node must not take it for a refused record.
            raise HubUnavailable(f"this hub cannot write: {error.message}", hint=error.hint) from error
        finally:
            self._queued -= 1

    def _begin_round(self) -> None:
        self._commit(_Round(self), here=self._calm() and self._is_small())

    @property
    def on_loop(self) -> bool:
        """Whether the thread that asks is the loop's, which must not wait for a file."""
        return threading.get_ident() == self._loop_thread

    def _calm(self) -> bool:
        """Whether a small commit here can be expected not to touch the disk."""
        assert self._loop is not None
        corpus = self._home.corpus
        if not corpus.inline:
            return False
        pages = corpus.wal_pages
        if self._wal_ended and pages != self._wal_ended:
            self._wal_ended = 0
        return not self._wal_ended and pages < HERE_WAL_PAGES and self._loop.time() >= self._not_here_before

    def wal_ended(self, pages: int) -> None:
        """Says that all pages of the WAL have been moved into the file: the commit that begins it anew syncs it."""
        self._wal_ended = pages

    def _is_small(self) -> bool:
        count = size = 0
        for message, _ in self._waiting:
            for segment in message.segments:
                count += len(segment.items)
                if count > HERE_RECORDS_MAX:
                    return False
                size += sum([len(item.body or b"") for item in segment.items])
        return size <= HERE_BYTES_MAX

    def _commit(self, work: _Round | _Own, *, here: bool = False) -> None:
        commits = self._home.corpus.commits
        if not here:
            commits.submit(work.run, self._committed, work)
            return
        assert self._loop is not None
        began = time.monotonic()
        commits.submit(work.run, self._committed, work, here=True)
        self._slow = self._slow + 1 if time.monotonic() - began > HERE_SLOW_S else 0
        if self._slow > 1:  # one may have been the machine's scheduler
            self._not_here_before = self._loop.time() + HERE_PAUSE_S

    # -- the committing thread's side ---------------------------------------------------------------------------

    def take(self) -> list[tuple[Append, asyncio.Future[Any]]]:
        """The requests for one transaction; what is left over has its turn in the next."""
        with self._lock:
            count = 0
            for number, (message, _) in enumerate(self._waiting, 1):  # noqa: B007 - its last value is the cut
                count += sum(len(segment.items) for segment in message.segments)
                if count >= RECORDS_PER_COMMIT:
                    break
            else:
                number = len(self._waiting)
            taken, self._waiting = self._waiting[:number], self._waiting[number:]
            self._scheduled = self._left = bool(self._waiting)
            return taken

    def decide(
        self, tx: SqlTransaction, requests: list[Append]
    ) -> tuple[list[AppendAnswer], list[Stored], dict[bytes, bytes]]:
        """Judges and writes the requests in the transaction; the last are payloads by the links of their records."""
        chains = self._home.chains()
        ingest = HubIngest(chains, gen=self._home.gen, verify=seal.verify)
        ingest.hub_keys = self._home.hub_keys
        answers = ingest.append(requests)
        fresh = self.erasing.screen(tx, ingest)
        stored = chains.write(tx, ingest.plan, ingest.tags)
        self.erasing.carry_out(tx, fresh)
        if ingest.told:
            for each in stored:
                if each.record.link in ingest.told:
                    tx.sql("INSERT INTO told(pos, ms) VALUES(?,?)", (each.pos, ingest.told[each.record.link]))
        if stored:
            self.arrived(tx, stored[0].pos)
        return answers, stored, ingest.payloads

    def arrived(self, tx: SqlTransaction, pos: int) -> None:
        """Notes, every few seconds, what had arrived by when."""
        now = self._home.wall.now_ms()
        if not 0 <= now - self._arrival_ms < ARRIVAL_EVERY_MS:
            self._arrival_ms = now
            tx.sql(_ARRIVED, (now, pos - 1))

    def _committed(self, outcomes: list[tuple[_Round | _Own, Any, BaseException | None]]) -> None:
        owed: list[_Owed] = []
        taken: list[tuple[asyncio.Future[Any], Any]] = []
        failed: list[tuple[asyncio.Future[Any], BaseException]] = []
        stored: list[Stored] = []
        proven: dict[bytes, bytes] = {}
        decided = 0
        for work, result, error in outcomes:
            if error is not None:
                if isinstance(error, Elsewhere):
                    self._commit(work)
                    continue
                if isinstance(work, _Round):
                    if self._try_singly(work, error):
                        continue
                    decided += len(work.taken)
                failed += [(future, error) for future in work.futures]
                self._crowded = self._crowded or isinstance(error, NodeFull)
                continue
            answers, wrote, payloads = result
            stored += wrote
            proven |= payloads
            if isinstance(work, _Own):
                owed.append(_Owed(work.future, answers))
                continue
            decided += len(work.taken)
            for (message, future), answer in zip(work.taken, answers, strict=True):
                if message.segments:
                    # Where a commit is on the disk when it is answered, what was taken is safe.
                    safe = answer.req if self._durable and not answer.regen else self._safe.get(message.line, 0)
                    taken.append((future, msgspec.structs.replace(answer, safe=safe)))
                waits = None if message.segments else future
                owed.append(_Owed(waits, answer, b"" if answer.regen else message.line))
        # Before the events are made, which takes a while: the node gets its next request ready.
        self._tell(taken, self._release)
        if stored:
            self.commits += 1
            self.records += len(stored)
            try:
                self._publish(stored, proven)
            except Exception:  # readers find it in the corpus; the writer must go on
                logger.exception("could not publish a commit")
            self.erasing.committed()
            self.committed.set()
        self._go_on(decided)
        self._tell(failed, self._fail)
        if owed or self._crowded:
            with self._turn:
                self._unsynced += owed
            if not self.on_loop or any([each.future for each in owed]):
                self._call_syncer()
            else:
                assert self._loop is not None
                # Nobody waits: it would only fight with the loop for the interpreter before the answers are out.
                self._loop.call_soon(self._loop.call_soon, self._call_syncer)

    def _call_syncer(self) -> None:
        with self._turn:
            self._turn.notify()

    def _try_singly(self, failed: _Round, error: BaseException) -> bool:
        """Gives each request of a failed round a transaction of its own: one that breaks us must not take others."""
        if len(failed.taken) < 2 or isinstance(error, HoldfastError):
            return False
        logger.error("a round of %d requests failed, trying them singly", len(failed.taken), exc_info=error)
        for each in failed.taken:
            self._commit(_Round(self, [each]))
        return True

    def _go_on(self, decided: int) -> None:
        with self._lock:
            self._undecided -= decided
            left, self._left = self._left, False
        if left:
            self._commit(_Round(self))

    # -- the syncer's side --------------------------------------------------------------------------------------

    def _sync(self) -> None:
        while True:
            with self._turn:
                while not self._unsynced and not self._stopping and not self._crowded:
                    self._turn.wait()
                owed, self._unsynced = self._unsynced, []
                commits = self.commits
                crowded, self._crowded = self._crowded, False
            if crowded:
                self._home.make_room()
            if not owed:
                if self._stopping:
                    return
                continue
            try:
                self._home.corpus.sync()
            except HoldfastError as error:
                self.failure = error
                logger.critical("the disk could not sync: this hub refuses writes from here on", exc_info=error)
                lost = HubUnavailable(f"this hub cannot write: {error}", hint="restart it; nodes keep everything")
                self._tell([(each.future, lost) for each in owed if each.future], self._fail)
                continue
            self.syncs += 1
            with self._turn:
                self._synced = commits
                self._note_safe(owed)
            self._tell([(each.future, self._kept(each)) for each in owed if each.future], self._release)

    def _kept(self, owed: _Owed) -> Any:
        """What to answer now that it is on the disk."""
        if not isinstance(owed.answer, AppendAnswer):
            return owed.answer
        return msgspec.structs.replace(owed.answer, safe=self._safe.get(owed.line, 0))

    def _note_safe(self, owed: Sequence[_Owed]) -> None:
        for each in owed:
            if each.line:
                # Taken out and put back: the lines that were silent longest come first, and are forgotten first.
                self._safe[each.line] = max(self._safe.pop(each.line, 0), each.answer.req)
        while len(self._safe) > LINES_MAX:
            del self._safe[next(iter(self._safe))]

    def _tell(self, pairs: Sequence[tuple[asyncio.Future[Any], Any]], how: Callable[..., None]) -> None:
        if pairs and self.on_loop:
            how(pairs)
        elif pairs and self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(how, pairs)
            except RuntimeError:  # the loop has ended: nobody waits any more
                logger.info("%d answers had nobody left to wait for them", len(pairs))

    @staticmethod
    def _release(pairs: list[tuple[asyncio.Future[Any], Any]]) -> None:
        for future, result in pairs:
            if not future.done():
                future.set_result(result)

    @staticmethod
    def _fail(pairs: list[tuple[asyncio.Future[Any], BaseException]]) -> None:
        for future, error in pairs:
            if not future.done():
                future.set_exception(error)


class Elsewhere(Exception):
    """A job that began on the loop needs a file after all: undo it, and let the writer thread do it."""


class _Own:
    """A job of the hub's own, and who waits for it."""

    def __init__(self, job: Job, future: asyncio.Future[Any]) -> None:
        self._job = job
        self.future = future
        self.futures = [future]

    def run(self, tx: SqlTransaction) -> tuple[Any, list[Stored], dict[bytes, bytes]]:
        """The job."""
        return (*self._job(tx), {})


class _Owed(msgspec.Struct, frozen=True):
    """What the disk must have: for whoever waits, and for the line that sent it."""

    future: asyncio.Future[Any] | None
    answer: Any
    line: bytes = b""


class _Round:
    """One group of append requests; run again (alone) when a neighbour in its transaction failed."""

    def __init__(self, writer: Writer, taken: list[tuple[Append, asyncio.Future[Any]]] | None = None) -> None:
        self._writer = writer
        self.taken = taken or []

    @property
    def futures(self) -> list[asyncio.Future[Any]]:
        """Who waits for the answers, in order."""
        return [future for _, future in self.taken]

    def run(self, tx: SqlTransaction) -> tuple[list[AppendAnswer], list[Stored], dict[bytes, bytes]]:
        """The job: everything that waits now."""
        if not self.taken:
            self.taken = self._writer.take()
        return self._writer.decide(tx, [message for message, _ in self.taken])

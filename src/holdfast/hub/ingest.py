"""The one writer: everything that waits goes into one transaction, is shown at COMMIT, and acknowledged after a sync.

A node's request is answered at the commit as taken, so that its next one need not wait for the disk; what is safe there
is said in later answers (`AppendAnswer.safe`), and at once to a node that has nothing left to send but the question.

Three threads meet here. The event loop queues; the corpus's writer thread decides, commits and publishes; the syncer
does one fdatasync for all that was committed since its last, and then wakes the loop once. There is no timer: a batch
is what arrived during the commit before it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from holdfast import seal
from holdfast.corpus import Stored
from holdfast.corpus.sqlite import SqliteTransaction
from holdfast.errors import HoldfastError, HubFull, HubUnavailable, IntegrityError, NodeFull
from holdfast.hub.directory import HubDirectory
from holdfast.log.drafts import tags_of
from holdfast.protocol.ingest import Ingest
from holdfast.records import BLOB, PUT, Record, check_names
from holdfast.wire import Append, AppendAnswer, Segment

logger = logging.getLogger(__name__)

HUB_AGENT: Final = "hub"
"""Whose stream holds what the hub decides: the keys of every `cas` collection are this agent's."""
RECORDS_PER_COMMIT: Final = 2_000
"""About 40 ms of work: what the last request of a burst waits for the first."""
QUEUE_MAX: Final = 4_096
ARRIVAL_EVERY_MS: Final = 5_000
LINES_MAX: Final = 4_096

Job = Callable[[SqliteTransaction], tuple[Any, list[Stored]]]
"""Work on the hub's own streams: its result, and the records that it wrote in order."""
Publish = Callable[[Sequence[Stored]], None]


class Writer:
    """Commits what nodes append and what the hub writes for plain clients, in the order it came.

    Args:
        home: the hub's directory.
        publish: gets the records of each commit, in order, in the committing thread; must not block or raise.
    """

    def __init__(self, home: HubDirectory, publish: Publish) -> None:
        self._home = home
        self._publish = publish
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()  # guards _waiting, _scheduled, _left
        self._waiting: list[tuple[Append, asyncio.Future[Any]]] = []
        self._scheduled = False  # a round is queued that will take what waits
        self._left = False  # the newest round took less than what waited
        self._queued = 0  # the loop's own
        self._arrival_ms = 0  # the committing thread's own
        self._turn = threading.Condition()
        self._unsynced: list[_Owed] = []  # guarded by _turn
        self._safe: dict[bytes, int] = {}  # the newest request of each line that is on the disk; written by the syncer
        self._stopping = False
        self._crowded = False  # a commit met a full disk
        self._syncer = threading.Thread(target=self._sync, name="holdfast-syncer", daemon=True)
        self.failure: BaseException | None = None
        self.committed = threading.Event()  # for whoever works behind commits (the index)
        self.commits = self.syncs = self.records = 0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """From here on `append` and `run` may be called, on this loop."""
        self._loop = loop
        self._syncer.start()

    def stop(self) -> None:
        """Returns when everything that was queued is committed, synced and answered."""
        self._home.corpus.engine.commits.stop()
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
        self._admit(sum(len(i.body or b"") + 512 for s in message.segments for i in s.items))
        future = self._future()
        with self._lock:
            self._waiting.append((message, future))
            begin, self._scheduled = not self._scheduled, True
        if begin:
            self._submit_round()
        answer: AppendAnswer = await self._outcome(future)
        return answer

    async def run(self, job: Job, *, size: int = 0) -> Any:
        """The result of a job of the hub's own, once what it wrote would survive a power cut.

        Args:
            job: the work; it may run twice (alone, when a neighbour in its batch failed), so it must only count on
                what the transaction tells it.
            size: about how many bytes it will write.

        Raises:
            HubFull: no room; nothing was written.
            HubUnavailable: the disk failed, or too much is waiting.
        """
        self._admit(size)
        future = self._future()
        self._home.corpus.submit(lambda tx: (*job(tx), None), self._committed, [future])
        return await self._outcome(future)

    def _admit(self, size: int) -> None:
        if self.failure is not None or self._home.corpus.engine.unusable:
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

    # -- the committing thread's side ---------------------------------------------------------------------------

    def _submit_round(self) -> None:
        round_ = _Round(self)
        self._home.corpus.submit(round_.run, self._committed, round_)

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

    def decide(self, tx: SqliteTransaction, requests: list[Append]) -> tuple[list[AppendAnswer], list[Stored]]:
        """Judges and writes the requests inside the transaction."""
        chains = self._home.chains()
        ingest = _Ingest(chains, gen=self._home.gen, verify=seal.verify)
        ingest.own_key = self._home.signer.public_key
        answers = ingest.append(requests)
        stored = chains.write(tx, ingest.plan, ingest.tags)
        if stored:
            self.arrived(tx, stored[0].pos)
        return answers, stored

    def arrived(self, tx: SqliteTransaction, pos: int) -> None:
        """Notes, every few seconds, what had arrived by when."""
        now = self._home.wall.now_ms()
        if not 0 <= now - self._arrival_ms < ARRIVAL_EVERY_MS:
            self._arrival_ms = now
            tx.execute("INSERT OR REPLACE INTO arrival(at_ms, pos) VALUES(?,?)", (now, pos - 1))

    def _committed(self, outcomes: list[tuple[Any, Any, BaseException | None]]) -> None:
        owed: list[_Owed] = []
        taken: list[tuple[asyncio.Future[Any], Any]] = []
        failed: list[tuple[asyncio.Future[Any], BaseException]] = []
        stored: list[Stored] = []
        for token, result, error in outcomes:
            futures = token.futures if isinstance(token, _Round) else token
            if error is not None:
                if isinstance(token, _Round) and self._try_singly(token, error):
                    continue
                failed += [(future, error) for future in futures]
                self._crowded = self._crowded or isinstance(error, NodeFull)
                continue
            answers, wrote, _ = result
            stored += wrote
            if not isinstance(token, _Round):
                owed.append(_Owed(futures[0], answers))
                continue
            for (message, future), answer in zip(token.taken, answers, strict=True):
                if message.segments:
                    safe = self._safe.get(message.line, 0)
                    taken.append((future, msgspec.structs.replace(answer, safe=safe)))
                waits = None if message.segments else future
                owed.append(_Owed(waits, answer, b"" if answer.regen else message.line))
        if stored:
            self.commits += 1
            self.records += len(stored)
            try:
                self._publish(stored)
            except Exception:  # readers find it in the corpus; the writer must go on
                logger.exception("could not publish a commit")
            self.committed.set()
        self._go_on()
        self._tell(failed, self._fail)
        self._tell(taken, self._release)
        if owed or self._crowded:
            with self._turn:
                self._unsynced += owed
                self._turn.notify()

    def _try_singly(self, failed: _Round, error: BaseException) -> bool:
        """Gives each request of a failed round a transaction of its own: one that breaks us must not take others."""
        if len(failed.taken) < 2 or isinstance(error, HoldfastError):
            return False
        logger.error("a round of %d requests failed, trying them singly", len(failed.taken), exc_info=error)
        for each in failed.taken:
            alone = _Round(self, [each])
            self._home.corpus.submit(alone.run, self._committed, alone)
        return True

    def _go_on(self) -> None:
        with self._lock:
            left, self._left = self._left, False
        if left:
            self._submit_round()

    # -- the syncer's side --------------------------------------------------------------------------------------

    def _sync(self) -> None:
        while True:
            with self._turn:
                while not self._unsynced and not self._stopping and not self._crowded:
                    self._turn.wait()
                owed, self._unsynced = self._unsynced, []
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
        if pairs and self._loop is not None:
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

    def run(self, tx: SqliteTransaction) -> tuple[list[AppendAnswer], list[Stored], None]:
        """The job: everything that waits now."""
        if not self.taken:
            self.taken = self._writer.take()
        answers, stored = self._writer.decide(tx, [message for message, _ in self.taken])
        return answers, stored, None


class _Ingest(Ingest):
    """Ingest that keeps, from its one look at each payload, what the record will be found by."""

    tags: dict[bytes, tuple[tuple[int, str], ...]]
    own_key = b""

    def refuse(self, request: Append, segment: Segment) -> str:
        if segment.agent == HUB_AGENT and segment.public_key != self.own_key:
            return "the name 'hub' is the hub's own: what stands under it, this hub has decided"
        try:
            check_names(PUT, "", "", segment.agent)
        except HoldfastError as error:
            return error.message
        return "" if segment.agent else "an agent needs a name"

    def append(self, requests: Sequence[Append]) -> list[AppendAnswer]:
        self.tags = {}
        return super().append(requests)

    def reject(self, record: Record, payload: bytes) -> tuple[str, str] | None:
        if not record.flags & BLOB:
            try:
                tags = tags_of(record.collection, record.fmt, payload)
            except HoldfastError as error:
                return error.code, error.message
            if tags:
                self.tags[record.link] = tags
        return None

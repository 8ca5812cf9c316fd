"""Where a hub has SQL carried out: in processes of its own, started when first asked, killed when they are late.

The hub itself never prepares a statement of a stranger. A worker is started by exec and never by a fork (the hub has
threads); it inherits no token and no file but its pipes, and ends when the hub does. What a worker cannot keep within
its limits costs that worker and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from holdfast.corpus.sandbox import PARAMS_MAX, SQL_BYTES_MAX, Answer, Question
from holdfast.corpus.sqlworker import LENGTH
from holdfast.errors import HoldfastError, HubUnavailable, UsageError

WORKERS: Final = 2
WAITING_MAX: Final = 32
"""Questions that may wait for a worker; who comes then is asked to come again."""
ROWS_MAX: Final = 10_000
ROWS_USUAL: Final = 1_000
BYTES_MAX: Final = 2 << 20
QUESTION_BYTES_MAX: Final = 256 << 10
SECONDS_USUAL: Final = 1.0
GRACE_S: Final = 1.0
"""A worker that has not answered so long after its deadline is stuck where SQLite does not look at the clock."""
START_S: Final = 60.0
_PASSED_ON: Final = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "TMPDIR", "SYSTEMROOT")
_HINTS: Final = {
    "time": "narrow it (agent, collection, key and pos have indexes), or give a longer timeout",
    "memory": "aggregate less, or read it in parts",
    "size": "no text, statement or row is longer than 1,000,000 bytes",
    "values": "one value for each ? in params, or an object for :names",
}


class Workers:
    """Has statements carried out by processes of their own, each within its limits.

    Args:
        module: what they run.
        opening: the first thing that they are told: which corpus it is about; asked for when one starts.
        seconds_max: the longest time that anybody may ask for.
    """

    def __init__(self, module: str, opening: Callable[[], Any], seconds_max: float) -> None:
        self._module = module
        self._opening = opening
        self.seconds_max = seconds_max
        self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="holdfast-sql")
        self._idle: list[Worker] = []
        self._all: set[Worker] = set()
        self._lock = threading.Lock()
        self._waiting = 0
        self._closed = False

    async def ask(self, question: Question) -> bytes:
        """The JSON of what a statement finds.

        Raises:
            HubUnavailable: too many are asking, or a worker failed.
            UsageError: it is refused, or was stopped; the context says at which limit.
        """
        if self._waiting >= WAITING_MAX + WORKERS:
            raise HubUnavailable(f"{self._waiting} statements are waiting already", hint="ask again a little later")
        self._waiting += 1
        try:
            answer = await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, question)
        finally:
            self._waiting -= 1
        if answer.reason:
            raise refusal(answer)
        return answer.data

    def close(self) -> None:
        """Ends the workers; what they were asked is answered as failed."""
        with self._lock:
            self._closed = True
            workers = list(self._all)
        for worker in workers:
            worker.end()  # and whoever waits for it learns so
        self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in workers:
            self._forget(worker)

    def workers(self) -> list[int]:
        """The process ids of the workers that run."""
        with self._lock:
            return [worker.pid for worker in self._all]

    def _ask(self, question: Question) -> Answer:
        worker = None
        with self._lock:
            if self._idle:
                worker = self._idle.pop()
        for again in (True, False):
            if worker is None:
                worker, again = self._start(), False
            try:
                answer = worker.ask(question)
            except Late:
                self._forget(worker)
                return Answer(b"", "time", f"stopped after {question.seconds:g} s: its process was ended")
            except (OSError, EOFError, msgspec.MsgspecError) as error:
                self._forget(worker)
                if not again:
                    raise HubUnavailable(f"the process that runs SQL failed: {error}", hint="ask again") from error
                worker = None  # it had died since the last question
                continue
            if answer.reason in ("memory", "failed"):
                self._forget(worker)  # the next one begins with nothing
            else:
                with self._lock:
                    self._idle.append(worker)
            return answer
        raise AssertionError("unreachable")

    def _start(self) -> Worker:
        opening = self._opening()
        with self._lock:
            if self._closed:
                raise HubUnavailable("the hub is stopping", hint="ask again when it is back")
            try:
                worker = Worker(self._module)
            except OSError as error:
                raise HubUnavailable(f"no process for SQL can be started: {error}", hint="ask again") from error
            self._all.add(worker)
        try:
            worker.greet(opening)
        except (Late, OSError, EOFError, msgspec.MsgspecError) as error:
            self._forget(worker)
            raise HubUnavailable(f"the process that runs SQL did not start: {error}", hint="ask again") from error
        return worker

    def _forget(self, worker: Worker) -> None:
        worker.kill()
        with self._lock:
            self._all.discard(worker)


class Late(Exception):
    """A worker did not answer in time."""


class Worker:
    """One process that carries out statements; used by one thread at a time."""

    def __init__(self, module: str) -> None:
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        # -P: a module that lies in the hub's working directory is not taken for one of ours.
        command = [sys.executable, "-P", "-m", module]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, env=environment, bufsize=0, start_new_session=True
        )
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Answer).decode
        self._buried = threading.Lock()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def greet(self, opening: Any) -> None:
        """Tells it what it is about; returns once it has opened that."""
        self._send(opening)
        self._read(START_S)

    def ask(self, question: Question) -> Answer:
        """Its answer.

        Raises:
            EOFError: it died.
            Late: it did not answer in time; it has to be killed.
        """
        self._send(question)
        return self._read(question.seconds + GRACE_S)

    def end(self) -> None:
        """Ends it, whatever it does; whoever reads from it meets the end."""
        with self._buried:
            if self._process.returncode is None:
                self._process.kill()

    def kill(self) -> None:
        """Ends it and lets go of what it leaves; for the thread that uses it."""
        self.end()
        with self._buried:
            if self._process.returncode is None:
                self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()

    def _send(self, message: Any) -> None:
        data = self._encode(message)
        assert self._process.stdin is not None
        self._process.stdin.write(LENGTH.pack(len(data)) + data)

    def _read(self, seconds: float) -> Answer:
        end = time.monotonic() + seconds
        (size,) = LENGTH.unpack(self._take(LENGTH.size, end))
        return self._decode(self._take(size, end))

    def _take(self, size: int, end: float) -> bytes:
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        parts: list[bytes] = []
        while size:
            left = end - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise Late
            part = os.read(fd, min(size, 1 << 16))
            if not part:
                raise EOFError("it ended")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


class Statement(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A SELECT over the views of docs/sql.md."""

    sql: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=SQL_BYTES_MAX,
            description="one statement",
            examples=["SELECT sender, count(*) AS n FROM messages GROUP BY sender"],
        ),
    ]
    params: Annotated[
        list[str | float | int | bool | None] | dict[str, str | float | int | bool | None],
        Meta(description="values for its ?, or an object for its :names: text, numbers, true, false, null"),
    ] = []
    limit: Annotated[int, Meta(ge=0, le=ROWS_MAX, description="how many rows at most")] = ROWS_USUAL
    timeout: (
        Annotated[float, Meta(gt=0, description="seconds that it may take; the hub sets how many at most")] | None
    ) = None
    shape: Annotated[Literal["arrays", "objects"], Meta(description="how each row comes")] = "arrays"


class Found(msgspec.Struct):
    """What a statement finds; `truncated` says at which limit the rows end, if they do not end by themselves."""

    columns: list[str]
    rows: list[list[Any] | dict[str, Any]]
    count: int
    truncated: bool | Literal["rows", "bytes"]


def question_of(asked: Statement, seconds_max: float) -> Question:
    """A question from what a client sent.

    Raises:
        UsageError: it is too long, or asks for too much.
    """
    if "\0" in asked.sql or len(asked.sql.encode(errors="replace")) > SQL_BYTES_MAX:
        raise UsageError(f"a statement has at most {SQL_BYTES_MAX} bytes, and no NUL", hint="give values in params")
    if len(asked.params) > PARAMS_MAX:
        raise UsageError(f"{len(asked.params)} params, the most is {PARAMS_MAX}", hint=_HINTS["values"])
    seconds = min(SECONDS_USUAL, seconds_max) if asked.timeout is None else asked.timeout
    if not 0 < seconds <= seconds_max:
        raise UsageError(f"timeout must be seconds up to {seconds_max:g}, got {seconds:g}", hint="such as 0.5")
    question = Question(asked.sql, asked.params, asked.limit, BYTES_MAX, seconds, asked.shape == "objects")
    try:
        size = len(msgspec.msgpack.encode(question))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UsageError(f"params hold what SQL does not know: {error}", hint=_HINTS["values"]) from error
    if size > QUESTION_BYTES_MAX:
        raise UsageError(f"a question of {size} bytes, the most is {QUESTION_BYTES_MAX}", hint="give smaller params")
    return question


def refusal(answer: Answer) -> HoldfastError:
    """The error that a worker's answer means: always the statement's fault, but for a failure of the file."""
    if answer.reason == "failed":
        return HubUnavailable(f"SQL cannot read the corpus: {answer.message}", hint="ask again; see /readyz")
    hint = _HINTS.get(answer.reason, "")
    if answer.views:
        hint = f"SELECT over these views: {', '.join(answer.views)}; see docs/sql.md"
    return UsageError(f"SQL: {answer.message}", hint=hint, reason=answer.reason)

"""Carries every agent's records to the hubs: a thread a hub, a shipping process a directory, for as long as it takes.

Theory of operation. What to send is decided in `protocol.outbox`; here is the I/O around it. A line (one a hub) looks
at the logs whenever it is poked, and every 200 ms anyway, so a lost wake-up costs 200 ms and nothing else. Of the
processes that share a directory the one that holds `ship.lock` ships for all; the others pass their pokes on to it.
The lock only saves work: whoever sees a tail stand still for 2 s ships it too, since repeats are harmless.

Nothing that happens here reaches an agent: it is told to `health`, and tried again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import random
import select
import socket
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from holdfast import seal, wire
from holdfast.clock import SYSTEM, Clock
from holdfast.errors import HoldfastError, HubUnavailable, NotFound, StoreClosed, UsageError
from holdfast.log import OpenLog
from holdfast.node.directory import Directory, is_local
from holdfast.node.knock import Address
from holdfast.node.outbox_store import LogsOutbox, depth
from holdfast.node.reporting import report
from holdfast.node.tally import Tally, hub_status
from holdfast.protocol.actions import Pull, Refresh, SendAppend, SendBlob, SendHello, Wait
from holdfast.protocol.outbox import Outbox
from holdfast.transport.blobs import upload
from holdfast.transport.client import Answer, HubClient, Token
from holdfast.wire import MEDIA

logger = logging.getLogger(__name__)

LOOK_S: Final = 0.2
STILL_S: Final = 2.0
STATUS_S: Final = 1.0
TROUBLE_S: Final = 1.0
LINGER_S: Final = 1.0
QUICK_S: Final = 0.5
"""A hub whose absence shows so soon (nobody listens there) may be asked again at any time; another is waited for."""
STOP_S: Final = 5.0
NEWS_S: Final = 2.0  # between two hellos that tell of trouble here, at least

_shippers: weakref.WeakSet[Shipper] = weakref.WeakSet()


def start(directory: Directory, hubs: Sequence[str], token: Token, agent: str) -> None:
    """Sees to it that this process ships to these hubs, or stands by to; returns at once.

    Raises:
        UsageError: a bad address, or an agent whose name says that its log stays here.
    """
    if is_local(agent):
        raise UsageError(f"the log of {agent!r} is never shipped: so its name says", hint="another name, or hub=[]")
    lines = [HubClient(url, token) for url in hubs]  # refuses a bad address before anything runs
    with directory.lock:
        if directory.shipper is None:
            directory.shipper = Shipper(directory)
        for client in lines:
            directory.shipper.add(client)


class Shipper:
    """This process's part in shipping one directory. Safe to share among threads.

    Args:
        directory: the node's; stopped before it closes.
        clock: monotonic for waiting.
    """

    def __init__(self, directory: Directory, clock: Clock = SYSTEM) -> None:
        self.directory = directory
        self.clock = clock
        self.outbox = LogsOutbox(directory)
        self.poked = False
        self.stopping = False
        self.progress = threading.Condition()
        """Notified when a hub has acknowledged something, or could not be reached."""
        self._lines: dict[str, Line] = {}
        self._lock = threading.Lock()  # guards _fd, _ear and _lines
        self._fd = os.open(directory.path / "ship.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._leads = False
        self.ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ear.setblocking(False)
        self._address = Address(directory.path)
        _shippers.add(self)

    def add(self, client: HubClient) -> None:
        """Begins to ship to one more hub; again with another token: uses that from now on."""
        with self._lock:
            line = self._lines.get(client.url)
            if line is not None:
                line.client.credential = client.credential
                return
            line = self._lines[client.url] = Line(self, client)
        line.start()

    def poke(self) -> None:
        """Something was written: look now."""
        self.poked = True
        for line in list(self._lines.values()):
            line.wake()

    def leads(self) -> bool:
        """Whether this process holds the lock; tries to take it."""
        if self._leads:
            return True
        with self._lock:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
            if not self._leads:
                self._address.listen(self.ear)
                self._leads = True
        return True

    def pass_on(self) -> None:
        """Tells the process that ships that there is something; nobody listening is fine."""
        self._address.knock(self.ear)

    def heard(self) -> None:
        """Takes in other processes' knocks, and wakes every line."""
        with contextlib.suppress(OSError):
            while self.ear.recv(16):
                pass
        self.poke()

    def flush(self, opened: OpenLog, hubs: Sequence[str], timeout: float) -> bool:
        """Waits until these hubs hold what is in a log now; False if `timeout` seconds were not enough.

        Hubs that do not answer are not waited for if one holds all of it; they are asked again, unless that takes
        seconds. Who owes a hub nothing asks it all the same: it may have been put back to an older copy since.
        """
        lines = [self._lines[url] for url in hubs if url in self._lines and self._leads]
        head, asked = self._head(opened), []
        for line in lines:
            lacks = self._lacks(opened, line.client.url, head)
            if not lacks or line.paused or (line.away and not line.slow):
                asked.append((line, line.doubt(now=lacks)))
        return self._wait(opened, hubs, timeout, lambda: False, lambda: all(line.is_sure(at) for line, at in asked))

    def linger(self, opened: OpenLog, hubs: Sequence[str]) -> None:
        """Gives hubs that answer a moment to take the last records of a log that is being closed."""
        self._wait(opened, hubs, LINGER_S, lambda: all(line.failing for line in self._lines.values()))

    def stop(self) -> None:
        """Ends every line, whatever it waits for, and lets another process ship; a second call is fine."""
        self.stopping = True
        for line in list(self._lines.values()):
            line.stop()
        with self._lock:
            if self._fd >= 0:
                self.outbox.close()
                self._address.leave(self._leads)
                self.ear.close()
                os.close(self._fd)
                self._fd = -1

    def disown(self) -> None:
        """In a forked child: lets go of what would keep the parent's lock alive after the parent."""
        self.stopping = True
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self.ear.close()

    def _wait(
        self,
        opened: OpenLog,
        hubs: Sequence[str],
        timeout: float,
        give_up: Callable[[], bool],
        is_sure: Callable[[], bool] = lambda: True,
    ) -> bool:
        head = self._head(opened)
        until = self.clock.monotonic() + timeout
        self.poke()
        with self.progress:
            while not is_sure() or not self._is_safe(opened, hubs, head):
                left = until - self.clock.monotonic()
                if left <= 0 or self.stopping or give_up():
                    return False
                # Another process may be the one that ships: its progress is found by looking.
                self.progress.wait(min(left, LOOK_S / 4))
        return True

    def _is_safe(self, opened: OpenLog, hubs: Sequence[str], head: int) -> bool:
        """Whether a hub holds the log up to here, and no hub that answers lacks any of it."""
        lacking = [url for url in hubs if self._lacks(opened, url, head)]
        return not lacking or (len(lacking) < len(hubs) and all(map(self._is_away, lacking)))

    def _is_away(self, url: str) -> bool:
        """Whether a hub did not answer when it was last asked, by this process or by the one that ships."""
        line = self._lines.get(url)
        if self._leads and line is not None:
            return line.away
        return bool(hub_status(self.directory, url)["state"] == "offline")

    def _lacks(self, opened: OpenLog, url: str, seq: int) -> bool:
        return depth(self.directory, opened, url) > self._head(opened) - seq

    @staticmethod
    def _head(opened: OpenLog) -> int:
        return opened.corpus.head(opened.log.branch.id).seq


class Line:
    """One hub's thread."""

    def __init__(self, shipper: Shipper, client: HubClient) -> None:
        self.client = client
        self.failing = False
        self.away = False  # nothing that is a hub answered the last request
        self.slow = False  # … and to find that out took a while
        self._hurried = False
        self._shipper = shipper
        self._directory = shipper.directory
        self._clock = shipper.clock
        self._outbox: Outbox | None = None
        self._told: tuple[Any, float] = (None, float("-inf"))
        self._tally: Tally | None = None
        self._news, self._news_due = 0, 0.0
        self._still_since = 0.0
        self._still: dict[bytes, int] = {}
        self._anyway = False
        self._doubts = self._asked = self._settled = 0  # how often it was doubted what the hub holds; asked; answered
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._poll = select.poll()
        for fd in (self._read, shipper.ear.fileno()):
            self._poll.register(fd, select.POLLIN)
        self._thread = threading.Thread(target=self._run, name=f"holdfast-ship-{client.url}", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def wake(self) -> None:
        """Ends a wait."""
        with contextlib.suppress(OSError):  # full: it will wake; closed: it has stopped
            os.write(self._write, b"!")

    @property
    def paused(self) -> bool:
        """Whether people at the hub have asked this node to ship nothing there."""
        return bool(self._told[0]) and self._told[0][0] == "paused"

    def doubt(self, *, now: bool = False) -> int:
        """Has the hub asked what it holds (`now`: even if it was to be left alone); `is_sure` says when it has been."""
        self._hurried = self._hurried or now
        self._doubts += 1
        return self._doubts

    def is_sure(self, doubt: int) -> bool:
        """Whether the hub has said what it holds since that doubt, or cannot be reached."""
        return self._settled >= doubt

    def stop(self) -> None:
        """Ends the thread, also out of a request."""
        self.wake()
        self.client.hang_up()
        if self._thread.is_alive():
            self._thread.join(STOP_S)
        if self._thread.is_alive():
            return  # it looks up a name, which nothing can end; it goes when it has, and its pipe with the process
        self.client.close()
        for fd in (self._read, self._write):
            with contextlib.suppress(OSError):
                os.close(fd)

    # -- the loop -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._shipper.stopping:
            try:
                if self._shipper.leads() or self._should_anyway():
                    self._step()
                else:
                    self._outbox = None  # whoever ships knows better by now
                    if self._sleep(LOOK_S):
                        self._shipper.pass_on()
            except StoreClosed:
                if not self._shipper.stopping:
                    self._trouble()
            except Exception as error:
                # A line that ends would be a node that silently ships nothing; whatever it was is told and tried again.
                logger.exception("shipping failed", extra={"hub": self.client.url})
                self._trouble(error)

    def _trouble(self, error: BaseException | None = None) -> None:
        self._outbox = None
        self.failing = True
        with contextlib.suppress(HoldfastError):
            self._tell({"state": "offline", "failures": 1, "alert": f"shipping failed here: {error or 'a log closed'}"})
        self._sleep(TROUBLE_S)

    def _step(self) -> None:
        outbox = self._outbox
        if outbox is None:
            outbox = self._outbox = Outbox(
                self.client.url,
                self._shipper.outbox,
                clock=self._clock,
                rng=random.SystemRandom(),
                verify=seal.verify,
                node=self._directory.node_id,
            )
        self._shipper.poked = False
        doubts = self._doubts
        if doubts > self._asked:
            outbox.say_hello()
            if self._hurried:
                self._hurried = False
                outbox.poke()
            self._asked = doubts
        if self._directory.news != self._news and self._clock.monotonic() >= self._news_due:
            self._news, self._news_due = self._directory.news, self._clock.monotonic() + NEWS_S
            outbox.say_hello()
        action = outbox.next()
        if doubts > self._settled and not isinstance(action, SendHello | Refresh):
            self._settled = doubts  # it has said what it holds, or is not to be reached now
            self._notify()
        if isinstance(action, Wait):
            self._directory.positions.save()
            self._idle(outbox, action)
        elif isinstance(action, Refresh):
            with contextlib.suppress(UsageError):
                self.client.credential.refresh()
        else:
            self._ask(outbox, action)
            self._notify()

    @property
    def tally(self) -> Tally:
        """What this hub was asked; goes on where the process before it stood."""
        if self._tally is None:
            self._tally = Tally(hub_status(self._directory, self.client.url).get("tally"))
        return self._tally

    def _notify(self) -> None:
        with self._shipper.progress:
            self._shipper.progress.notify_all()

    def _ask(self, outbox: Outbox, action: Any) -> None:
        begun = self._clock.monotonic()
        self.tally.attempts += 1
        try:
            if isinstance(action, SendBlob):
                self._send_blob(outbox, action)
                return
            answer = self._send(action)
        except HubUnavailable as error:
            kind = str(error.context.get("kind", "network"))
            self.tally.failed(kind)
            outbox.failed(kind)
            self.failing = self.away = True
            self.slow = self._clock.monotonic() - begun > QUICK_S
            return
        self.away = not answer.gen
        if not answer.ok:
            self._failed(outbox, answer)
            return
        try:
            taken = self._take(outbox, action, answer)
        except UsageError:
            taken = False  # not a message of ours at all
        if not taken:
            self.tally.failed("echo")
            outbox.failed("echo")
        self.failing = not taken

    def _send(self, action: Any) -> Answer:
        headers = {"Content-Type": MEDIA, "Accept": MEDIA}
        if isinstance(action, SendHello):
            oldest = self._shipper.outbox.oldest_ms(self.client.url)
            about = report(self._directory, self._shipper.outbox.logs(), self.client.url)
            now = self._clock.now_ms()
            hello = msgspec.structs.replace(action.message, now_ms=now, oldest_ms=oldest, report=about)
            return self.client.ask("POST", "/v1/hello", body=wire.encode(hello), headers=headers)
        if isinstance(action, SendAppend):
            self._shipper.outbox.read_ahead()
            return self.client.ask("POST", "/v1/append", body=wire.encode(action.message), headers=headers)
        assert isinstance(action, Pull)
        path = f"/v1/pull?stream={action.stream.hex()}&inc={action.inc.hex()}&after={action.first - 1}"
        return self.client.ask("GET", f"{path}&limit={wire.RECORDS_MAX}", headers=headers)

    def _take(self, outbox: Outbox, action: Any, answer: Answer) -> bool:
        if isinstance(action, SendHello):
            return outbox.on_hello(wire.decode(wire.HelloAnswer, answer.body))
        if isinstance(action, SendAppend):
            return outbox.on_append(wire.decode(wire.AppendAnswer, answer.body))
        return outbox.on_pulled(wire.decode(wire.Pulled, answer.body))

    def _send_blob(self, outbox: Outbox, action: SendBlob) -> None:
        try:
            answer = upload(self.client, self._directory.blobs, action.digest, lambda: self._shipper.stopping)
        except (NotFound, UsageError):
            outbox.on_blob(action.digest, False)
            return
        except HubUnavailable:
            raise
        except HoldfastError as error:
            logger.warning("a blob is not readable here", extra={"digest": action.digest.hex()}, exc_info=error)
            outbox.on_blob(action.digest, False)
            return
        self.away = not answer.gen
        if answer.ok:
            outbox.on_blob(action.digest, True)
            self.failing = False
        else:
            self._failed(outbox, answer)

    def _failed(self, outbox: Outbox, answer: Answer) -> None:
        self.tally.failed("status", answer.status)
        outbox.failed("status", answer.status, answer.headers.get("Retry-After"), bool(answer.gen))
        self.failing = True

    def _idle(self, outbox: Outbox, action: Wait) -> None:
        now = self._clock.monotonic()
        status = outbox.status()
        said = (status.state, status.alert, status.failures, status.forks, status.quarantined, status.gen)
        if said != self._told[0] or now - self._told[1] > STATUS_S * 10:
            self._told = (said, now)
            contact = None
            if status.last_contact is not None:
                contact = self._clock.now_ms() - round((now - status.last_contact) * 1000)
            self._tell(
                {
                    "state": status.state,
                    "gen": status.gen,
                    "failures": status.failures,
                    "forks": status.forks,
                    "quarantined": status.quarantined,
                    "alert": status.alert,
                    "contact_ms": contact,
                    "errors": self._shipper.outbox.errors,
                }
            )
        if self._anyway and not any(status.depth.values()):
            self._anyway = False
        self._sleep(LOOK_S if action.until is None else max(0.0, min(action.until - now, LOOK_S)))

    def _tell(self, status: dict[str, Any]) -> None:
        engine = self._directory.node
        row = (self.client.url, self._clock.now_ms(), json.dumps({**status, "tally": self.tally.to_json()}))

        def job(_: Any) -> None:
            engine.writer_execute("INSERT OR REPLACE INTO hub VALUES(?,?,?)", row)

        engine.commits.run(job)

    def _sleep(self, seconds: float) -> bool:
        """Waits for a poke, a knock or the time; True if it was poked."""
        ready = {fd for fd, _ in self._poll.poll(seconds * 1000)}
        if self._shipper.ear.fileno() in ready:
            self._shipper.heard()
        if self._read in ready:
            with contextlib.suppress(OSError):
                os.read(self._read, 4096)
            self._shipper.poked = False
            return True
        return False

    def _should_anyway(self) -> bool:
        """Whether a tail has stood still for so long that whoever should ship it is not to be relied upon."""
        if self._anyway:
            return True
        now = self._clock.monotonic()
        acked = self._shipper.outbox.positions(self.client.url)
        tails = {}
        for info in self._shipper.outbox.streams():
            known = acked.get(info.stream)
            if info.head.seq > (known.acked.seq if known else 0):
                tails[info.stream] = known.acked.seq if known else 0
        if tails != self._still:
            self._still, self._still_since = tails, now
        self._anyway = bool(tails) and now - self._still_since >= STILL_S
        return self._anyway


def _after_fork() -> None:
    for shipper in list(_shippers):
        shipper.disown()
    _shippers.clear()


os.register_at_fork(after_in_child=_after_fork)

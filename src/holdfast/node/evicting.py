"""Makes room on a node: lets bodies leave that every hub and its backups hold, least useful first.

One thread a process, one process a directory (``evict.lock``), beside the writers and never in their way: it reads in
short queries and commits in small lots. Before each round it asks every hub anew, by its own hello, what it and its
two newest verified backups hold; the answer is weighed by the same code that ships (`protocol.outbox`), so what may
leave is what the simulator proved. A hub that does not answer keeps everything here.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast import seal, wire
from holdfast.clock import SYSTEM
from holdfast.corpus import eviction
from holdfast.errors import HoldfastError, HubUnavailable, StoreClosed, UsageError
from holdfast.node.dropping import drop_blobs
from holdfast.node.locks import alone
from holdfast.node.outbox_store import LogsOutbox
from holdfast.node.room import Figures, Need, Room, Standing, retention_of, standing_of, write_retention, write_standing
from holdfast.node.telling import logger
from holdfast.protocol.actions import SendHello
from holdfast.protocol.outbox import Outbox
from holdfast.retention import Retention
from holdfast.wire import MEDIA, Mark

if TYPE_CHECKING:
    from holdfast.log import OpenLog
    from holdfast.node.directory import Directory
    from holdfast.transport.client import HubClient, Token

LOCK: Final = "evict.lock"
LOOK_S: Final = 0.25
STAND_BY_S: Final = 1.0
AGAIN_S: Final = 0.1
AGAIN_S_MAX: Final = 2.0
DAYS_EVERY_S: Final = 600.0
STOP_S: Final = 10.0
INDEX_SHARE: Final = 8
"""Of a budget the search index may take one part in so many; then the words of what left go too."""
_DAY_MS: Final = 86_400_000


class Spare(msgspec.Struct, frozen=True):
    """Up to where the bodies of one log may leave, but for those that some hub holds as envelopes only."""

    mark: Mark
    kept: frozenset[int]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one round did, or would do, with one agent's log: bodies, and bytes of them with their blobs.

    `standing` is how it left the log, `before` and `after` what the log took, `lacks` the room still to be made.
    """

    agent: str
    bodies: int
    bytes: int
    blobs: int
    before: Figures
    after: Figures
    standing: Standing
    lacks: Need


class Asking(LogsOutbox):
    """The outbox's port for who only asks: whatever a hello would change here is left to those who ship."""

    def keep(self, hub: str, positions: Any) -> None:
        """Leaves the cursors alone."""

    def mint(self, stream: bytes, base: Mark, above: bytes) -> bytes:
        """Begins no incarnation: a fork is for those who ship, and nothing leaves meanwhile."""
        return b""

    def close(self) -> None:
        """Gives back the logs that were opened here."""
        for agent in list(self._agents):
            self._forget(agent)


def ask(client: HubClient, store: Asking, node: str) -> dict[bytes, Spare]:
    """What one hub and its backups hold of every log here.

    Raises:
        HubUnavailable: it does not answer, or not as a hub.
    """
    outbox = Outbox(client.url, store, clock=SYSTEM, rng=random.SystemRandom(), verify=seal.verify, node=node)
    streams = [info.stream for info in store.streams()]
    for _ in range(-(-len(streams) // wire.STREAMS_MAX)):
        action = outbox.next()
        if not isinstance(action, SendHello):
            break
        hello = msgspec.structs.replace(action.message, now_ms=SYSTEM.now_ms(), oldest_ms=store.oldest_ms(client.url))
        headers = {"Content-Type": MEDIA, "Accept": MEDIA}
        answer = client.want("POST", "/v1/hello", body=wire.encode(hello), headers=headers)
        if not outbox.on_hello(answer.decode(wire.HelloAnswer)):
            raise HubUnavailable(f"{client.url} answers another question", hint="is it a hub?")
    found = {}
    for stream in streams:
        upto = outbox.evictable(stream)
        links = store.links(stream, [upto])
        if upto and upto in links:
            found[stream] = Spare(Mark(upto, links[upto]), outbox.kept(stream))
    return found


class Evictor:
    """This process's part in keeping one directory's budgets. Safe to share among threads.

    Args:
        directory: the node's; stopped before it closes.
        clients: the hubs that all must hold what leaves.
    """

    def __init__(self, directory: Directory, clients: Sequence[HubClient]) -> None:
        self._directory = directory
        self._clients = {client.url: client for client in clients}
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._freed = threading.Condition()
        self._hopeless: dict[str, str] = {}
        self._waits: dict[str, tuple[float, float]] = {}  # agent -> (not before, pause)
        self._aged = float("-inf")
        self._thread = threading.Thread(target=self._run, name="holdfast-evict", daemon=True)
        self._thread.start()

    @property
    def hubs(self) -> Sequence[str]:
        """The hubs' addresses."""
        return tuple(self._clients)

    def add(self, clients: Sequence[HubClient]) -> None:
        """More hubs that must hold what leaves."""
        self._clients = {**self._clients, **{client.url: client for client in clients}}

    def poke(self) -> None:
        """Somebody waits for room: look now."""
        self._wake.set()

    def wait(self, seconds: float) -> None:
        """Waits until something left, or the time is over."""
        with self._freed:
            self._freed.wait(seconds)

    def hopeless(self, agent: str) -> bool:
        """Whether the last round made no room and saw none coming: no hub answered, or nothing more can leave."""
        return agent in self._hopeless

    def stop(self) -> None:
        """Ends it, between two lots."""
        self._stop.set()
        self._wake.set()
        for client in self._clients.values():
            client.hang_up()
        self._thread.join(STOP_S)
        for client in self._clients.values():
            client.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            with alone(self._directory.path, LOCK) as mine:
                if mine:
                    self._lead()
            self._stop.wait(STAND_BY_S)

    def _lead(self) -> None:
        """Makes room for as long as this process runs: the others find it made."""
        store = Asking(self._directory)
        try:
            while not self._stop.is_set():
                self._wake.wait(LOOK_S)
                self._wake.clear()
                try:
                    self._turn(store)
                except StoreClosed:
                    return
                except Exception:
                    # One that ended for good would be a node that fills up unseen; it is told and tried again.
                    logger(__name__).exception("making room in %s failed", self._directory.path)
                    self._stop.wait(1.0)
        finally:
            store.close()

    def _turn(self, store: Asking) -> None:
        now = time.monotonic()
        aged = now - self._aged >= DAYS_EVERY_S
        store.streams()  # keeps every log open here: to open one for each look would cost more than the look
        due = [agent for agent in self._directory.agents() if self._is_due(agent, now, aged)]
        if aged:
            self._aged = now
        if due and not self._stop.is_set():
            self._rounds(store, due)

    def _is_due(self, agent: str, now: float, aged: bool) -> bool:
        retention = retention_of(self._directory, agent)
        if not retention.limits or now < self._waits.get(agent, (0.0, 0.0))[0]:
            return False
        if aged and (retention.days or retention.collection_days):
            return True
        opened = self._directory.open_log(agent, None)
        try:
            room = room_of(self._directory, opened, retention)
            return room.lacks(room.figures()) != Need()
        finally:
            self._directory.release_log(opened)

    def _rounds(self, store: Asking, agents: Sequence[str]) -> None:
        try:
            spare = asked(list(self._clients.values()), store, self._directory.node_id)
        except HoldfastError as error:
            for client in self._clients.values():
                with contextlib.suppress(UsageError):
                    client.credential.refresh()
            for agent in agents:
                self._again(agent, f"no room can be made: {error.message}")
            return
        for agent in agents:
            if self._stop.is_set():
                return
            done = round_of(self._directory, agent, spare, stop=self._stop, freed=self._notify)
            if done.lacks != Need() and not done.bodies:
                # Whatever a hub may still take, or its backups, is room to come; what cannot ever leave is not.
                self._again(agent, done.standing.trouble)
            else:
                self._waits.pop(agent, None)
                self._hopeless.pop(agent, None)
        self._notify()

    def _again(self, agent: str, trouble: str) -> None:
        _, pause = self._waits.get(agent, (0.0, AGAIN_S / 2))
        pause = min(pause * 2, AGAIN_S_MAX)
        self._waits[agent] = (time.monotonic() + pause, pause)
        if trouble:
            self._hopeless[agent] = trouble
        else:
            self._hopeless.pop(agent, None)
        self._notify()

    def _notify(self) -> None:
        with self._freed:
            self._freed.notify_all()


def asked(clients: Sequence[HubClient], store: Asking, node: str) -> dict[bytes, Spare]:
    """What every hub, and its backups, hold of each log: the least of what they say; nothing without a hub.

    Raises:
        HubUnavailable: one of them does not answer.
    """
    found: dict[bytes, Spare] | None = None
    for client in clients:
        said = ask(client, store, node)
        if found is None:
            found = said
            continue
        found = {
            stream: Spare(min(mine.mark, said[stream].mark, key=lambda mark: mark.seq), mine.kept | said[stream].kept)
            for stream, mine in found.items()
            if stream in said
        }
    return found or {}


def round_of(
    directory: Directory,
    agent: str,
    spare: dict[bytes, Spare],
    *,
    dry_run: bool = False,
    stop: threading.Event | None = None,
    freed: Any = lambda: None,
) -> Report:
    """Lets leave what must, of one agent's log, as far as it may; to be called by whoever is `alone`.

    Args:
        directory: the node's.
        agent: whose log.
        spare: what the hubs hold, as `asked` says.
        dry_run: only says what would leave.
        stop: ends it early.
        freed: called when something has left.
    """
    opened = directory.open_log(agent, None)
    try:
        return _round(directory, opened, spare.get(opened.log.branch.stream), dry_run, stop, freed)
    finally:
        directory.release_log(opened)


def _round(
    directory: Directory,
    opened: OpenLog,
    spare: Spare | None,
    dry_run: bool,
    stop: threading.Event | None,
    freed: Any,
) -> Report:
    retention = retention_of(directory, opened.agent)
    room = room_of(directory, opened, retention)
    corpus, lines, before = opened.corpus, room.lines, room.figures()
    now = directory.wall.now_ms()
    found = eviction.look(corpus, _wanted(retention, spare, room.lacks(before), now))
    known = standing_of(directory, opened.agent)
    count = size = blobs = 0
    if not dry_run:
        for lot in eviction.lots(found.first, max(64 << 10, min(lines.wal // 4 or 1 << 20, 1 << 20))):
            if stop is not None and stop.is_set():
                break
            assert spare is not None
            gone = eviction.evict(corpus, spare.mark, lot)
            if not gone:
                break  # another log lies here by now: the hubs are asked again
            count += gone
            size += sum(each.size for each in lot)
            blobs += drop_blobs(directory, _unreferred(found, lot))
            corpus.engine.checkpoint()
            freed()
        if retention.max_bytes and eviction.index_bytes(corpus) > retention.max_bytes // INDEX_SHARE:
            eviction.unindex(corpus, pages=max(8, lines.wal >> 14))
            freed()
    else:
        count, size = len(found.first), sum(each.size for each in found.first)
        blobs = len({each.digest for each in found.first if each.digest})
    left = found.spare - (0 if dry_run else size)
    settled = spare.mark.seq if spare is not None else 0
    standing = Standing(
        now, found.upto, found.blobs, settled, left, found.held, found.pinned, known.evicted + (0 if dry_run else count)
    )
    if not dry_run:
        write_standing(directory, opened.agent, standing)
    after = room.figures()
    lacks = room.lacks(after)
    if not dry_run and lacks != Need() and not count and not found.held:
        trouble = (
            f"all that may leave has left; {found.pinned:,} bytes are pinned, and what stays of {found.upto:,} records"
            " (headers, tags, search index) takes the rest"
        )
        standing = msgspec.structs.replace(standing, trouble=trouble)
        write_standing(directory, opened.agent, standing)
    return Report(
        agent=opened.agent,
        bodies=count,
        bytes=size,
        blobs=blobs,
        before=before,
        after=after,
        standing=standing,
        lacks=lacks,
    )


def _wanted(retention: Retention, spare: Spare | None, lacks: Need, now: int) -> eviction.Wanted:
    def before(collection: str) -> int:
        days = retention.days_of(collection)
        return int(now - days * _DAY_MS) if days else 0

    return eviction.Wanted(
        settled=spare.mark.seq if spare is not None else 0,
        kept=spare.kept if spare is not None else frozenset(),
        inline=lacks.inline,
        beside=lacks.beside,
        before=before,
        keeps=retention.keeps,
        now_ms=now,
    )


def _unreferred(found: eviction.Looked, lot: Sequence[eviction.Body]) -> list[bytes]:
    """The blobs to which no body of this log refers any more, now that these have left."""
    gone = []
    for each in lot:
        if each.digest:
            found.refs[each.digest] -= 1
            if not found.refs[each.digest]:
                found.blobs -= each.blob
                gone.append(each.digest)
    return gone


def room_of(directory: Directory, opened: OpenLog, retention: Retention) -> Room:
    """This process's one guard of a log, for as long as its retention stays what it is."""
    with directory.lock:
        at = (opened.agent, opened.level.name)
        known = directory.rooms.get(at)
        if known is None or known.retention != retention or known._opened is not opened:
            known = directory.rooms[at] = Room(directory, opened, retention).begin()
        return known


def start(
    directory: Directory, opened: OpenLog, given: Retention | None, hubs: Sequence[str], token: Token
) -> Room | None:
    """The guard of an agent's budget, with what makes room running beside it; None where everything may stay.

    Args:
        directory: the node's.
        opened: the agent's log.
        given: what the store was opened with: written down from now on; None: what was written down.
        hubs: what leaves must be at all of these.
        token: what they know us by.
    """
    kept = retention_of(directory, opened.agent)
    retention = kept if given is None else given
    if retention != kept:
        write_retention(directory, opened.agent, retention)
    if not retention.limits:
        return None
    if hubs:
        from holdfast.transport.client import HubClient

        clients = [HubClient(url, token) for url in dict.fromkeys((*hubs, *directory.config.get("hubs", ())))]
        with directory.lock:
            if directory.evictor is None:
                directory.evictor = Evictor(directory, clients)
            else:
                directory.evictor.add(clients)
    return room_of(directory, opened, retention)

"""What the routes share: the directory, the writer, the feed, the threads that read, and the nodes that were seen."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from holdfast.clock import iso
from holdfast.collections import mailbox
from holdfast.corpus import index, search
from holdfast.errors import HoldfastError
from holdfast.hub.audit import Audit
from holdfast.hub.audit import Follower as LogFollower
from holdfast.hub.cache import cache_of
from holdfast.hub.care import Care
from holdfast.hub.claims import Claims
from holdfast.hub.directory import PARTIAL_BLOB_S, WAL_PAGES_BESIDE
from holdfast.hub.feed import Feed
from holdfast.hub.figures import Figures
from holdfast.hub.gate import Gate
from holdfast.hub.home import Home
from holdfast.hub.ingest import Writer
from holdfast.hub.meters import Meters
from holdfast.hub.notify.running import Notifying
from holdfast.hub.options import LIVE, Options, retold
from holdfast.hub.own import OwnStreams
from holdfast.hub.scanning import Scanning
from holdfast.hub.seen import Heads, SeenNode, Standing, parted, update
from holdfast.hub.tokens import Tokens
from holdfast.hub.typed import Schemas
from holdfast.hub.wishes import Wishes
from holdfast.log import load
from holdfast.wire import Hello, HelloAnswer

if TYPE_CHECKING:
    from holdfast.hub.backups import Backups
    from holdfast.hub.embedding import Embedding
    from holdfast.hub.follow import Follower

logger = logging.getLogger(__name__)

READ_THREADS: Final = 2
FILE_THREADS: Final = 2
TRAIL_PAUSE_S: Final = 1.0
"""How far the trail stays behind while little comes (it costs a fifth of an idle hub's work at 0.1 s)."""
TRAIL_BUSY_S: Final = 0.1
TRAIL_BUSY_RECORDS: Final = 50
"""From so many in a pause on, the next is short: a search looks through 500 unindexed records and not more."""
TRAIL_GIVE_WAY_S: Final = 0.05
TRAIL_FLOW_RECORDS: Final = 200
TRAIL_FLOW_S: Final = 1.0
"""So many in a `TRAIL_GIVE_WAY_S` are full flow: the index (as dear as ingest) then gets one lot in so long."""
TRAIL_UNSORTED: Final = 500
"""So many records' words wait at most to be sorted in (`sort_words`); at the end of a flow none do."""
WAL_STEP: Final = 2_000
MOVES_MAX: Final = 4
"""What comes while the WAL is moved keeps it from ending; to move that too takes far less long, and so on."""
TEND_EVERY_S: Final = 30.0
WATCH_EVERY_S: Final = 1.0
NODES_MAX: Final = 10_000

T = TypeVar("T")


class Core:
    """One running hub, without its HTTP face.

    Args:
        home: its directory, open; closed by `stop`.
        options: how it is to run.
    """

    def __init__(self, home: Home, options: Options | None = None) -> None:
        self.home = home
        self.options = options or Options()
        self.corpus = home.corpus
        self.started = time.monotonic()
        self.meters = Meters()
        self.feed = Feed(home.lineage, home.corpus.last())
        self.order = home.common_order(self.feed)
        self.writer = Writer(home, (self.order or self.feed).publish)
        self.own = OwnStreams(home, self.writer, self.meters.intake)
        self.cache = cache_of(self)
        self.follower: Follower | None = None
        if self.options.follow:
            from holdfast.hub.follow import Follower

            self.follower = Follower(self, self.options)
        self.backups: Backups | None = None
        if self.options.backup:
            from holdfast.hub.backups import Backups

            self.backups = Backups(self, self.options)
        self.embedding: Embedding | None = None
        if self.options.embed:
            from holdfast.hub.embedding import Embedding

            self.embedding = Embedding(home, self.options.embed, self.options.embed_model)
        self.gate = Gate(self.options, Tokens(home.open_tokens(), home.wall), home.wall, self.read)
        self.audit = Audit(self.gate.tokens.acts(), home.wall, self.read)
        self._told = LogFollower(home.corpus, self.audit.store)
        self.claims = Claims(home.corpus, home.wall, secrets.token_hex(4))
        self.scanning = Scanning(home, self.options.scan_s, self.claims)
        self.care = Care(self)
        self.notifying = Notifying(self)
        self.figures = Figures(self)
        self.schemas = Schemas(home.corpus)
        self.sql = home.sql_room(self.options.sql_seconds)
        self.nodes: dict[str, SeenNode] = {}
        self.heads = Heads()
        self.wishes = Wishes(home.corpus, home.wall)
        self._nodes_changed = False
        self._pool = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="holdfast-read")
        self._files = ThreadPoolExecutor(FILE_THREADS, thread_name_prefix="holdfast-blobs")
        self._stop_trail = threading.Event()
        self._unsorted = 0
        self._trailer = threading.Thread(target=self._trail, name="holdfast-trail", daemon=True)
        self._moved = 0  # the WAL's length when it was last moved; the trail's own
        self._tender: asyncio.Task[None] | None = None
        self._collect_at = 0.0
        self.indexing_failed = ""
        self.lost = ""
        """Why this process cannot go on being this hub; whoever serves it is told by `on_lost`."""
        self.on_lost: Callable[[], None] = lambda: None
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to work, on the running loop."""
        loop = asyncio.get_running_loop()
        self.feed.start(loop)
        self.writer.start(loop)
        if self.order is not None:
            self.order.start()
            self._watcher = asyncio.create_task(self._watch())
        self._load_nodes()
        self._trailer.start()
        self.scanning.start()
        self.gate.start()
        self.care.start()
        self._tender = asyncio.create_task(self._tend())
        if self.follower is not None:
            self.follower.start()
        if self.backups is not None:
            self.backups.start()
        if self.embedding is not None:
            self.embedding.start()
        self.notifying.start()
        self.figures.start()

    def take_up(self, options: Options) -> None:
        """Goes on with the fields of other options that may change while a hub runs (`options.LIVE`); on the loop."""
        live = {name: getattr(options, name) for name in LIVE}
        live["told"] = retold(self.options.told, options.told)
        self.options = msgspec.structs.replace(self.options, **live)
        self.gate.retune(self.options)
        self.home.reserve.set_floor(self.options.floor_bytes)
        if self.backups is not None:
            self.backups.retune(self.options)

    def end_streams(self) -> None:
        """Sends every listener home; the first thing a stop does."""
        self.feed.end()

    async def stop(self) -> None:
        """Answers what is queued, syncs, and closes the directory with the mark of a clean stop."""
        self.end_streams()
        for task in (self._tender, self._watcher):
            if task is not None:
                task.cancel()
        await self.notifying.stop()
        await self.figures.stop()
        await self.cache.close()
        if self.follower is not None:
            await self.follower.stop()
        await asyncio.to_thread(self.scanning.stop)
        if self.backups is not None:
            await self.backups.stop()
        if self.embedding is not None:
            await self.embedding.stop()
        await self.care.stop()
        self._stop_trail.set()
        self.writer.committed.set()
        await self.gate.stop()
        await asyncio.to_thread(self._trailer.join)
        await asyncio.to_thread(self.writer.stop)
        if self.order is not None:
            await asyncio.to_thread(self.order.stop)
        self._pool.shutdown(wait=True)
        self._files.shutdown(wait=True)
        await asyncio.to_thread(self.sql.close)
        if not self.corpus.unusable:
            self._save_nodes()
        self.home.close(clean=self.writer.failure is None)

    async def read(self, work: Callable[[], T]) -> T:
        """What a reading function returns, run in a thread of its own kind so that the loop goes on."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def files(self, work: Callable[[], T]) -> T:
        """The same for work on blob files, which may wait for the disk."""
        return await asyncio.get_running_loop().run_in_executor(self._files, work)

    # -- the nodes ----------------------------------------------------------------------------------------------

    def saw(self, node: str, hello: Hello | None = None, answer: HelloAnswer | None = None) -> None:
        """Remembers that a node spoke to us, where its logs stood, and what it was answered."""
        if not node or len(node) > 255:
            return
        seen = self.nodes.get(node)
        if seen is None:
            if len(self.nodes) >= NODES_MAX:
                del self.nodes[next(iter(self.nodes))]
            seen = self.nodes[node] = SeenNode(node, 0)
        seen.seen_ms = self.home.wall.now_ms()
        if hello is not None:
            update(seen, hello, seen.seen_ms)
        if answer is not None:
            parted(seen, answer, seen.seen_ms)
        self._nodes_changed = True

    def forget(self, node: str) -> None:
        """Forgets a node in every process of this hub, and for the next start; what it shipped stays. For threads.

        When it speaks again it is seen again, as one that is not paused.
        """
        self.wishes.forget(node)
        self._nodes_changed = True
        self._save_nodes()

    def nodes_json(self) -> list[dict[str, Any]]:
        """The nodes, the latest seen first."""
        return [{"node": n.node, "last_seen": iso(n.seen_ms), "agents": sorted(n.agents)} for n in self._latest()]

    def standings(self) -> list[Standing]:
        """How the nodes stand, the latest seen first."""
        return [self.heads.standing(seen) for seen in self._latest()]

    def _latest(self) -> list[SeenNode]:
        return sorted(self.nodes.values(), key=lambda seen: -seen.seen_ms)

    def _load_nodes(self) -> None:
        self._take_nodes(self.corpus.meta("nodes"), self.wishes.forgotten())

    def _take_nodes(self, stored: bytes | None, gone: Mapping[str, int]) -> None:
        for seen in msgspec.msgpack.decode(stored, type=list[SeenNode]) if stored else ():
            known = self.nodes.get(seen.node)
            if seen.seen_ms > gone.get(seen.node, 0) and (known is None or known.seen_ms < seen.seen_ms):
                self.nodes[seen.node] = seen
                self.heads.read_back(seen)

    def _save_nodes(self) -> None:
        if not self._nodes_changed:
            return
        self._nodes_changed = False
        gone = self.wishes.forgotten()
        for node, until_ms in gone.items():
            known = self.nodes.get(node)
            if known is not None and known.seen_ms <= until_ms:
                self.nodes.pop(node, None)

        def job(tx: Any) -> None:
            if not self.corpus.inline:  # other processes of this hub have seen nodes, too
                self._take_nodes(tx.meta("nodes"), gone)
            nodes = list(self.nodes.values())
            for seen in nodes:
                self.heads.write_down(seen)
            tx.set_meta("nodes", msgspec.msgpack.encode(nodes))

        try:
            self.corpus.write(job)
        except HoldfastError as error:
            logger.warning("could not keep the list of nodes", exc_info=error)

    # -- what goes on by itself ---------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while not self.corpus.unusable:  # noqa: ASYNC110 - any thread may find it out; a second more does no harm
            await asyncio.sleep(WATCH_EVERY_S)
        try:
            self.corpus.last()
        except HoldfastError as error:
            self.lost = str(error)
            logger.critical("this hub cannot go on: %s", error)
            self.on_lost()

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(TEND_EVERY_S)
            try:
                await self.files(self.home.reserve.ensure)
                await self.files(lambda: self.home.blobs.sweep(PARTIAL_BLOB_S))
                await self._collect()
                await self.read(self._save_nodes)
                await self.cache.flush()
                await self.audit.shorten(self.options.audit_keep_s)
                if not self.corpus.inline:
                    if self.follower is None:  # who follows knows better, and has not noted all of it yet
                        await self.read(self.home.refresh)
                    self.writer.committed.set()  # a process that ended may have left records to be indexed
            except (HoldfastError, OSError) as error:
                logger.warning("could not tend the hub's directory", exc_info=error)

    async def _collect(self) -> None:
        """Now and then, removes from an object store of blobs what nothing refers to."""
        if not self.options.blobs or time.monotonic() < self._collect_at:
            return
        from holdfast.hub.garbage import COLLECT_EVERY_S, collect

        self._collect_at = time.monotonic() + COLLECT_EVERY_S
        done = await self.files(lambda: collect(self.home))
        logger.info("collected blobs", extra=msgspec.to_builtins(done))

    def _trail(self) -> None:
        """What follows the commits at a distance: the WAL goes into the file, and the indexes are filled.

        Neither is done where it would hold up an acknowledgement. While the writer is in full flow the index all but
        stands (whoever searches scans the tail, and is told that there is more); it catches up when the flow ends.
        """
        backlog, seen = True, self.writer.records
        while not self._stop_trail.is_set():
            if not backlog:
                self.writer.committed.wait()
                came, seen = self.writer.records - seen, self.writer.records
                self._stop_trail.wait(TRAIL_PAUSE_S if came < TRAIL_BUSY_RECORDS else TRAIL_BUSY_S)
            self.writer.committed.clear()
            before = self.writer.records
            try:
                self._shorten()
                self.writer.erasing.tend()
                self.schemas.tend()
                backlog = not self._stop_trail.is_set() and self._index() > 0
                if not self._stop_trail.is_set():
                    backlog = mailbox.fill(self.corpus, self.home.blobs) == mailbox.LOT or backlog
                    backlog = self._tell() or backlog
                self.indexing_failed = ""
            except HoldfastError as error:
                backlog = False
                self.indexing_failed = str(error)
                if not self._stop_trail.is_set():
                    logger.error("the indexes cannot be filled", exc_info=error)
            if backlog and self.writer.records != before:
                self._give_way()

    def _index(self) -> int:
        """Fills the next lot of both indexes, and sweeps what indexes of vectors have left; how much that was."""
        if self.embedding is not None:
            self.embedding.wake()
        words = search.fill(self.corpus)
        self._unsorted += words
        if self._unsorted >= TRAIL_UNSORTED or (self._unsorted and not words):
            self.corpus.sort_words()
            self._unsorted = 0
        return words + index.fill(self.corpus, lambda stored: load(stored, self.home.blobs)) + self._sweep()

    def _sweep(self) -> int:
        if self.corpus.one("SELECT 1 FROM vec LIMIT 1") is None:
            return 0  # most hubs have no vectors, and need nothing that knows of them
        from holdfast.corpus.search.vectors import sweep

        return sweep(self.corpus)

    def _tell(self) -> bool:
        """Tells the audit trail what the next records say; whether there are more."""
        try:
            more = self._told.follow()
            self.audit.unread = ""
            return more
        except HoldfastError as error:
            if not self._stop_trail.is_set():
                self.audit.unread = str(error)
                logger.error("the audit trail cannot be told what the log says: %s", error)
            return False

    def _give_way(self) -> None:
        """Returns soon when little comes, and after `TRAIL_FLOW_S` or the end of it when the writer is in full flow."""
        before, waited = self.writer.records, 0.0
        while not self._stop_trail.wait(TRAIL_GIVE_WAY_S):
            waited += TRAIL_GIVE_WAY_S
            came, before = self.writer.records - before, self.writer.records
            if came < TRAIL_FLOW_RECORDS or waited >= TRAIL_FLOW_S:
                return
            self._shorten()

    def _shorten(self) -> None:
        """Moves the WAL into the file when it has grown; the writer itself does so when that was not enough."""
        corpus = self.corpus
        pages = corpus.wal_pages
        if pages > WAL_PAGES_BESIDE and not self._moved <= pages < self._moved + WAL_STEP:
            self._moved = pages
            for _ in range(MOVES_MAX):
                pages = corpus.wal_pages
                corpus.checkpoint()
                more = corpus.wal_pages - pages
                if not more:
                    self.writer.wal_ended(pages)  # the next commit begins it anew
                if not 0 < more < WAL_STEP:
                    break

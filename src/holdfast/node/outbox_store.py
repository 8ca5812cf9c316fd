"""The outbox's port over a node directory: every agent's log, whoever opened it, and how far each hub has it.

There is no outbox table: what a hub lacks is the log behind its mark. Everything that a position says is checked
against the log it speaks of, so a file that was copied back makes it void and not wrong.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast import clock
from holdfast.corpus import Branch, Filter, Head, SqliteCorpus
from holdfast.corpus.sqlite import SqliteTransaction
from holdfast.errors import HoldfastError
from holdfast.log import OpenLog, new_incarnation, prune
from holdfast.log.erasure import PENDING
from holdfast.node.directory import Directory, is_local
from holdfast.node.keys import Keyring
from holdfast.node.taking import fast_forward, merge, remembered
from holdfast.protocol.ports import Position, StreamInfo
from holdfast.records import ROTATE, head_message
from holdfast.wire import RECORDS_MAX, Item, Mark, Rejected

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

_NOW: Final = (
    "SELECT seq, link, hlc, (SELECT max(id) FROM branch), (SELECT current_key FROM stream WHERE own LIMIT 1),"
    f" (SELECT v FROM meta WHERE k='{prune.BEGIN_SEQ}') FROM rec ORDER BY pos DESC LIMIT 1"
)
"""All that may have changed since the last look, at once: a look is taken before each request, at every log."""
_KEY: Final = "SELECT current_key FROM stream WHERE own LIMIT 1"
LOOK_AGAIN_S: Final = 1.0
"""A folder appears before its log does, and a log that failed may be whole again: looked at this often."""

SYNC_THREADS: Final = 4
"""So many logs are synced at once, one of them by whoever asks."""


class _Stream:
    """One agent's log as the outbox knows it: what changes rarely is remembered, and looked at again when it did."""

    def __init__(self, opened: OpenLog) -> None:
        self.opened = opened
        self.corpus: SqliteCorpus = opened.corpus
        self.branch: Branch = self.corpus.branches()[-1]
        self.head = Head(0, b"", 0)  # as of the last look
        self.keys: list[tuple[int, bytes]] = []  # (number of a rotate record, the key that it names), oldest first
        self.keys_until = 0
        self._key_seen: bytes | None = None  # in force when `keys` was filled
        self._begin = prune.begin(self.corpus, self.branch.stream)
        self._recent: dict[int, bytes] = {}  # links of records as they were read last
        self.next: tuple[int, int, int] | None = None  # what the request after this one will ask for, if that is much
        self._ahead: tuple[int, Future[list[tuple[Item, bytes]]]] | None = None  # (first number, what is being read)

    def info(self) -> StreamInfo:
        row = self.corpus.engine.one(_NOW)
        branch = self.branch
        if row is None:
            return self._info(branch, Mark(branch.base_seq, branch.base_link))
        seq, link, hlc, newest, key, begin = row
        if newest != branch.id or key != branch.current_key:
            branch = self.branch = self.corpus.branches()[-1]
            self._recent = {}
        if (begin or 0) != self._begin.seq:
            self._begin = prune.begin(self.corpus, branch.stream)
        self.head = Head(seq, link, hlc)
        return self._info(branch, Mark(seq, link))

    def _info(self, branch: Branch, head: Mark) -> StreamInfo:
        return StreamInfo(
            stream=branch.stream,
            agent=branch.agent,
            public_key=branch.public_key,
            key=branch.current_key,
            inc=branch.inc,
            base=Mark(branch.base_seq, branch.base_link),
            begin=self._begin,
            head=head,
        )

    def sync(self) -> Mark:
        head = self.opened.sync(self.head if self.head.seq else None)
        return Mark(head.seq, head.link)

    def links(self, seqs: Sequence[int]) -> dict[int, bytes]:
        # Nearly always asked of the records that are just on their way: those were read a moment ago, and a record
        # that was committed does not change.
        found, begin, recent = {}, self._begin, self._recent
        for seq in seqs:
            link = begin.link if seq == begin.seq else recent.get(seq) or self.corpus.link_at(self.branch.id, seq)
            if link is not None:
                found[seq] = link
        return found

    def read(self, first: int, last: int, records: int, size: int) -> list[Item]:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == first:
            rows = ahead[1].result()
        else:
            rows = self._fetch(first, min(records, last - first + 1), size)
        found: list[Item] = []
        recent, total = {first - 1: self._recent.get(first - 1, b"")}, 0
        for seq, (item, link) in enumerate(rows, first):
            total += len(item.body or b"")
            if seq > last or len(found) >= records or (found and total > size):
                break
            found.append(item)
            recent[seq] = link
        self._recent = recent
        behind = first + len(found)
        if len(found) == records and self.head.seq >= behind + records:
            self.next = (behind, records, size)
        return found

    def read_ahead(self, helper: Executor) -> None:
        if self.next is not None:
            (first, records, size), self.next = self.next, None
            self._ahead = (first, helper.submit(self._fetch, first, records, size))

    def _fetch(self, first: int, records: int, size: int) -> list[tuple[Item, bytes]]:
        chain = self.corpus.chain(self.branch.id, first - 1, records, size)
        return [(stored.item(), stored.record.link) for stored in chain]

    def key_at(self, seq: int, keyring: Keyring) -> bytes:
        """The public key in force at a record; a rotate record itself is signed by the key that it retires."""
        if seq > self.keys_until:
            # A rotate record and the key in force change in one transaction; to look for records at each signature
            # would cost more than to sign.
            key = self.branch.current_key if seq <= self.head.seq else self._key_now()
            if key != self._key_seen:
                self._look_for_rotations()
                self._key_seen = key
        before = b""
        for at, named in self.keys:
            if seq <= at:
                # The rotate record before this one may have been pruned; the keyring knows their order.
                return before or keyring.before(named) or self.branch.public_key
            before = named
        return before or self.branch.current_key

    def _key_now(self) -> bytes:
        row = self.corpus.engine.one(_KEY)
        return row[0] if row else b""

    def _look_for_rotations(self) -> None:
        which = Filter(collection="", kinds=(ROTATE,), after=self.keys_until, newest_first=False, limit=RECORDS_MAX)
        for stored in self.corpus.page(which):
            self.keys.append((stored.record.seq, stored.payload()))
            self.keys_until = stored.record.seq


class LogsOutbox:
    """`protocol.ports.OutboxStore` over a directory. Safe to share among threads.

    Logs that this process has open are used as they are; others' are opened beside them.

    Args:
        directory: the node's.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._lock = threading.RLock()  # guards _streams, _mine and _seen
        self._streams: dict[bytes, _Stream] = {}
        self._mine: dict[str, OpenLog] = {}  # opened here for agents of other processes
        self._agents: dict[str, bytes] = {}
        self._seen, self._again = 0, 0.0
        self._helpers: Executor | None = None
        self.errors: dict[str, str] = {}
        """Logs that could not be opened or read, by agent; they are tried again."""

    # -- what there is ------------------------------------------------------------------------------------------

    def streams(self) -> list[StreamInfo]:
        """Every stream of this directory, in a steady order."""
        with self._lock:
            self._look()
            found = []
            for agent, stream in list(self._agents.items()):
                try:
                    found.append(self._streams[stream].info())
                except HoldfastError as error:
                    self.errors[agent] = str(error)
                    self._forget(agent)
            return found

    def logs(self) -> list[OpenLog]:
        """The logs of all streams, as they are open here."""
        with self._lock:
            return [each.opened for each in self._streams.values()]

    def close(self) -> None:
        """Gives back the logs that were opened here."""
        self._directory.positions.save()
        with self._lock:
            if self._helpers is not None:
                self._helpers.shutdown()
                self._helpers = None
            for agent in list(self._agents):
                self._forget(agent)

    def _look(self) -> None:
        """Finds agents that appeared; one `stat` while none did."""
        now = self._directory.wall.monotonic()
        try:
            changed = os.stat(self._directory.path / "agents").st_mtime_ns
        except FileNotFoundError:
            return
        if changed == self._seen and now < self._again:
            return
        self._seen, self._again = changed, now + LOOK_AGAIN_S
        for agent in self._directory.agents():
            if agent in self._agents or is_local(agent):
                continue
            try:
                opened = self._mine[agent] = self._directory.open_log(agent, None)
                found = _Stream(opened)
            except HoldfastError as error:
                self.errors[agent] = str(error)
                continue
            self.errors.pop(agent, None)
            self._agents[agent] = found.branch.stream
            self._streams[found.branch.stream] = found

    def _forget(self, agent: str) -> None:
        self._streams.pop(self._agents.pop(agent, b""), None)
        opened = self._mine.pop(agent, None)
        if opened is not None:
            self._directory.release_log(opened)

    def _stream(self, stream: bytes) -> _Stream:
        with self._lock:
            return self._streams[stream]

    # -- reading ------------------------------------------------------------------------------------------------

    def sync(self, streams: Sequence[bytes]) -> dict[bytes, Mark]:
        """Make what is committed in these logs survive a power cut; how far that is."""
        known = [self._stream(stream) for stream in streams]
        # Side by side: ten files one after another take a disk 2.6 ms, together 1.2. Not one task a file: handing over
        # costs as much as a sync does.
        shares = [known[first::SYNC_THREADS] for first in range(min(SYNC_THREADS, len(known)))]
        others = [self._helper().submit(_sync, share) for share in shares[1:]]
        found = _sync(shares[0]) if shares else {}
        for each in others:
            found |= each.result()
        return found

    def _helper(self) -> Executor:
        with self._lock:
            if self._helpers is None:
                from concurrent.futures import ThreadPoolExecutor

                self._helpers = ThreadPoolExecutor(SYNC_THREADS - 1, thread_name_prefix="holdfast-ship")
            return self._helpers

    def links(self, stream: bytes, seqs: Sequence[int]) -> dict[int, bytes]:
        """The links at these numbers, as far as the log has them; number 0 is the genesis."""
        return self._stream(stream).links(seqs)

    def read(self, stream: bytes, first: int, last: int, records: int, size: int) -> list[Item]:
        """The records from `first` on, as they travel."""
        return self._stream(stream).read(first, last, records, size)

    def read_ahead(self) -> None:
        """Begins to read what the next request will carry, where there is a long way to go.

        To be called when this one is on its way: the hub works on it for as long as the reading takes.
        """
        for known in list(self._streams.values()):
            if known.next is not None:
                known.read_ahead(self._helper())

    def sign(self, stream: bytes, mark: Mark) -> bytes:
        """The signature over the head message of this mark."""
        with self._lock:
            key = self._streams[stream].key_at(mark.seq, self._directory.keyring)
        return self._directory.keyring.signer(key).sign(head_message(stream, mark.seq, mark.link))

    # -- how far a hub has it -------------------------------------------------------------------------------------

    def positions(self, hub: str) -> dict[bytes, Position]:
        """What `keep` kept for this hub."""
        return self._directory.positions.of(hub)

    def keep(self, hub: str, positions: Mapping[bytes, Position]) -> None:
        """Remember how far this hub has these streams (others stay as they were)."""
        self._directory.positions.keep(hub, positions)

    def quarantined(self, hub: str) -> dict[bytes, list[int]]:
        """The records whose bodies this hub refused, by stream."""
        self.streams()
        found: dict[bytes, list[int]] = {}
        for stream, seq, link in self._directory.node.query(
            "SELECT stream, seq, link FROM refused WHERE hub=?", (hub,)
        ):
            if stream in self._streams and self.links(stream, [seq]).get(seq) == link:
                found.setdefault(stream, []).append(seq)
        return found

    def quarantine(self, hub: str, stream: bytes, refused: Sequence[Rejected]) -> None:
        """Keep these bodies here, never to be sent to this hub again unless a person says so."""
        links = self.links(stream, [each.seq for each in refused])
        rows = [(hub, stream, r.seq, links[r.seq], r.code, r.reason[:500]) for r in refused if r.seq in links]
        engine = self._directory.node

        def job(_: Any) -> None:
            for row in rows:
                engine.writer_execute("INSERT OR REPLACE INTO refused VALUES(?,?,?,?,?,?)", row)

        engine.commits.run(job)

    # -- forks and rollbacks --------------------------------------------------------------------------------------

    def mint(self, stream: bytes, base: Mark, above: bytes) -> bytes:
        """Begin a new incarnation; its name."""
        known = self._stream(stream)
        branch = known.branch

        def job(tx: SqliteTransaction) -> bytes:
            inc = new_incarnation(max([above, *(each.inc for each in tx.branches(stream))]))
            tx.open_branch(
                msgspec.structs.replace(
                    branch, inc=inc, base_seq=base.seq, base_link=base.link, seq=base.seq, link=base.link
                )
            )
            return inc

        inc = known.corpus.write(job)
        known.corpus.sync()
        return inc

    def fast_forward(self, stream: bytes, expected: Mark, items: Sequence[Item], inc: bytes) -> bool:
        """Take back records that this node had lost; False if an agent wrote meanwhile."""
        known = self._stream(stream)
        taken = known.corpus.write(lambda tx: fast_forward(tx, known.branch, expected, items, inc))
        if taken:
            known.corpus.sync()
            self._erased(known.corpus)
        return taken

    def oldest_ms(self, hub: str) -> int:
        """When the oldest record of all logs was written that a hub has not acknowledged; 0 if it has everything.

        For people who watch: a log that cannot be read now is left out, and told of elsewhere.
        """
        positions = self.positions(hub)
        with self._lock:
            known = list(self._streams.items())
        found = []
        for stream, each in known:
            position = positions.get(stream)
            mark = position.acked if position is not None else Mark(0, b"")
            with contextlib.suppress(HoldfastError):
                acked = mark.seq if each.links([mark.seq]).get(mark.seq) == mark.link else 0
                found.append(oldest_ms(each.corpus, acked) if each.head.seq > acked else 0)
        return min((at for at in found if at), default=0)

    def weighed(self, stream: bytes) -> list[tuple[bytes, Mark]]:
        """The other branches that were merged already, and up to where (hubs may differ: several for one)."""
        known = self._stream(stream)
        found = remembered(known.corpus.engine.query, lambda seq: known.corpus.link_at(known.branch.id, seq))
        return [(each.inc, each.theirs) for each in found]

    def merge(self, stream: bytes, inc: bytes, before: Mark, items: Sequence[Item]) -> int:
        """Take over the keyed values that are newer on another branch (its records behind `before`); how many."""
        known = self._stream(stream)
        wall = self._directory.wall
        count = known.corpus.write(lambda tx: merge(tx, known.branch, inc, before, items, wall))
        known.corpus.sync()
        self._erased(known.corpus)
        return count

    def _erased(self, corpus: SqliteCorpus) -> None:
        """Finishes the erasures that came with what was taken."""
        if corpus.meta(PENDING):
            from holdfast.node.erase import finish

            finish(self._directory, corpus)


def _sync(share: Sequence[_Stream]) -> dict[bytes, Mark]:
    return {each.branch.stream: each.sync() for each in share}


class Owed(msgspec.Struct, frozen=True):
    """What a hub has not acknowledged of one log; `oldest_ms` is when the first of it was written, 0 for none."""

    records: int = 0
    bytes: int = 0
    oldest_ms: int = 0


def depth(directory: Directory, opened: OpenLog, hub: str) -> int:
    """How many records of a log a hub has not acknowledged, as far as this node knows."""
    if is_local(opened.agent):
        return 0
    head = opened.corpus.head(opened.log.branch.id)
    return max(0, head.seq - _acked(directory, opened, hub))


def owed(directory: Directory, opened: OpenLog, hub: str) -> Owed:
    """The same, and how large and how old it is; reads the lengths of all that waits."""
    if is_local(opened.agent):
        return Owed()
    corpus, acked = opened.corpus, _acked(directory, opened, hub)
    # An agent's file holds its current branch only: a pos is a number.
    count, size = corpus.engine.one("SELECT count(*), coalesce(sum(length(body)), 0) FROM rec WHERE pos>?", (acked,))
    return Owed(count, size, oldest_ms(corpus, acked))


def oldest_ms(corpus: SqliteCorpus, acked: int) -> int:
    """When the first record behind a number was written; 0 if there is none."""
    row = corpus.engine.one("SELECT hlc FROM rec WHERE pos>? ORDER BY pos LIMIT 1", (acked,))
    return clock.millis(row[0]) if row else 0


def _acked(directory: Directory, opened: OpenLog, hub: str) -> int:
    corpus, branch = opened.corpus, opened.log.branch
    acked = directory.positions.acked(hub, branch.stream)
    if acked is None or corpus.link_at(branch.id, acked.seq) != acked.link:
        return 0
    return acked.seq

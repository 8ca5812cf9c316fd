"""What an agent calls. Reads and writes are local; the network is the shipper's business, and never a writer's.

    with Store("./node", agent="recruiter-1", hub="http://hub:8084") as store:
        store.put("plan", {"step": 1})      # durable here when it returns, on its way to the hub
        store.get("plan")

A `Store` is a thin face: records are made in `log`, carried by `ship`, others' are read by `others`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from holdfast import clock
from holdfast.collections import Message
from holdfast.corpus import Filter, Stored
from holdfast.errors import NodeFull, NotCached, NotFound, UsageError
from holdfast.log import Draft, drafts
from holdfast.log import level as level_named
from holdfast.log.drafts import MESSAGES
from holdfast.log.sealing import value_in
from holdfast.log.versions import Version, told, version_of
from holdfast.node.batch import CAS_AGENT, STATE, Batch, Redact
from holdfast.node.collecting import Collecting
from holdfast.node.directory import DEFAULT_LIMITS, Directory, Limits, attach, check_agent, detach
from holdfast.node.keeping import listed, message_listed, watched
from holdfast.node.looking import When, as_of, messages_in, newest, unshipped
from holdfast.node.mailing import MailCalls
from holdfast.node.opening import FromConfig
from holdfast.node.sealing import Sealing
from holdfast.node.searching import Searching

if TYPE_CHECKING:
    from holdfast.integrity.scan import Scan
    from holdfast.node.changes import Changes
    from holdfast.node.embedding import Searches
    from holdfast.node.others import Others
    from holdfast.transport.client import Token

MISSING: Any = type("Missing", (), {"__repr__": lambda _: "<raise NotFound>"})()
"""Stands for: there is no default, raise."""
LIST_MAX = 1000


class Store(Collecting, Searching, MailCalls, FromConfig):
    """One agent's storage on this machine. Safe to share among threads; any number of processes may open it.

    Args:
        data_dir: the node directory, made if missing; many agents may share it.
        agent: who writes.
        hub: a hub's address, or several: all are shipped to, the first that answers is read from, the first alone
            decides about cas collections. None: those that `holdfast init` wrote down, if any. An empty list: none.
        token: what the hub knows this node by; a Path, or what a function gives, is read again once it is refused.
        level: what a returned write survives: basic, advanced or critical.
        cas: collections whose writes the hub decides (compare-and-set among all agents).
        limits: how the node treats its disk.
        sealed: collections whose values only this node can read (docs/erasure.md); they stay sealed from now on.
        redact: called with collection, key and value before anything is written; what it returns is written.

    Raises:
        UsageError: an impossible name or level.
        Sealed: a collection is to be sealed, and the key that keeps its keys is not to be had.
        IntegrityError: the log is another key's, or (critical) has lost commits.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str],
        agent: str,
        *,
        hub: str | Iterable[str] | None = None,
        token: Token = None,
        level: str = "advanced",
        cas: Iterable[str] = (),
        limits: Limits = DEFAULT_LIMITS,
        sealed: Iterable[str] = (),
        redact: Redact | None = None,
    ) -> None:
        check_agent(agent)
        wanted = level_named(level)
        self.agent = agent
        self._cas = frozenset(cas)
        self._closed = False
        self._others: Others | None = None
        self._searches: Searches | None = None
        self._directory: Directory = attach(data_dir, limits=limits)
        try:
            self._blobs = self._directory.blobs
            self._reserve = self._directory.reserve
            written = self._directory.config
            if hub is None and token is None and written.get("token_file"):
                token = Path(written["token_file"])
            self._token = token
            given = written.get("hubs", ()) if hub is None else [hub] if isinstance(hub, str) else hub
            self.hubs: tuple[str, ...] = tuple(url.rstrip("/") for url in given)
            if self.hubs:
                from holdfast.node.ship import start

                start(self._directory, self.hubs, token, agent)
            self._opened = self._directory.open_log(agent, wanted)
            self._log = self._opened.log
            self._redact = redact
            self._sealing = Sealing(self._directory, self._log)
            self._sealed = self._sealing.collections
            if sealed:
                self._sealing.declare(sealed, self._cas)
            self._room = watched(self._directory, self._opened, limits.retention, self.hubs, token)
            if limits.scan_s:
                from holdfast.node.scanning import start as scan

                scan(self._directory, limits.scan_s)
        except BaseException:
            detach(self._directory)
            raise

    # -- writing ------------------------------------------------------------------------------------------------

    def put(
        self,
        key: str,
        value: Any,
        *,
        collection: str = STATE,
        expect: int | str | None = None,
        durable: bool = False,
        subject: str | None = None,
    ) -> Version:
        """Sets a key, and returns the new version once it is durable at the store's level, whatever the network does.

        Args:
            key: at most 1,024 bytes.
            value: JSON values, text or bytes; above 64 KiB it is kept as a file beside the log.
            collection: a name space of keys.
            expect: the version number (0: no value) or etag that must be current.
            durable: survive a power cut before returning, whatever the level.
            subject: in a sealed collection, who it is about: `holdfast erase --subject` erases all of it. None: whose
                the key's newest version is.

        Raises:
            Conflict: somebody was faster than `expect`.
            NodeFull: this machine's disk, or the budget, is full; nothing was written, reads go on.
            UsageError: a value that JSON cannot say, an impossible name.
            HubUnavailable: only in a cas collection: the hub decides, and it is away; nothing was written.
        """
        if collection in self._cas:
            return self._reader().decide(collection, key, {"value": value}, expect)
        if self._redact is not None:
            value = self._redact(collection, key, value)
        draft = drafts.value(collection, key, value, expect=expect)
        if subject is None and collection not in self._sealed:
            return version_of(self._append((draft,), durable)[0], None, value)
        made = self._append((self._sealing.seal(draft, subject),), durable)[0]
        return msgspec.structs.replace(version_of(made, None, value), key=key)

    def delete(
        self,
        key: str,
        *,
        reason: str = "",
        prefix: bool = False,
        collection: str = STATE,
        expect: int | str | None = None,
        durable: bool = False,
    ) -> Version:
        """Takes a key's value away (its history stays), or with `prefix` that of every key that begins with `key`.

        Raises:
            NotFound: there is nothing to delete (never for a prefix).
            Conflict: somebody was faster than `expect`.
        """
        if collection in self._cas:
            if prefix:
                raise UsageError("a cas collection is deleted key by key", hint="list the keys, and delete each")
            return self._reader().decide(collection, key, {"delete": True, "reason": reason}, expect)
        self._check_there(collection, key, prefix, expect)
        draft = drafts.remove(collection, key, reason=reason, prefix=prefix, expect=expect)
        if collection in self._sealed:
            draft = self._sealing.seal(draft, None)
        return self._version(self._append((draft,), durable)[0])

    def rollback(self, key: str, version: int, *, collection: str = STATE) -> Version:
        """Makes an earlier version's value the newest again, as a new version: history only grows.

        Raises:
            NotFound: there is no such version, or it was a deletion.
        """
        old = self._load(self._sealing.find(collection, key, version))
        return self.put(key, old, collection=collection)

    @contextmanager
    def batch(self, *, durable: bool = False) -> Iterator[Batch]:
        """A block whose writes happen all or none, in one commit when it ends: at most 500 records and 1 MiB.

        Raises:
            UsageError: too much, or a cas collection (in the block).
            Conflict: one of its `expect` was not current; nothing was written.
        """
        made = Batch(self._cas, self._sealing, self._redact)
        yield made
        if made.drafts:
            made.versions = [self._version(each) for each in self._append(made.drafts, durable)]

    # -- reading ------------------------------------------------------------------------------------------------

    def get(
        self,
        key: str,
        *,
        agent: str | None = None,
        at: When | None = None,
        default: Any = MISSING,
        collection: str = STATE,
    ) -> Any:
        """The value of a key: one's own from this machine, another agent's through the hub, proven either way.

        Args:
            agent: whose; None: one's own.
            at: a version number, or a time (seconds, ISO 8601 text, datetime): the value that was current then.
            default: returned when there is no value.

        Raises:
            NotFound: there is no value, and no default.
            IntegrityError: the bytes are not what was recorded, or not the agent's.
            HubUnavailable: it is not on this machine, and no hub answers.
        """
        try:
            other = self._other(agent, collection)
            if other is not None:
                return self._reader().get(other, collection, key, at)
            if collection in self._sealed:
                return self._load(self._sealing.find(collection, key, at))
            log = self._log
            return self._load(newest(log, collection, key) if at is None else as_of(log, collection, key, at))
        except NotCached:
            raise  # it exists, so a default would be a lie
        except NotFound:
            if default is MISSING:
                raise
            return default

    def history(
        self, key: str, *, agent: str | None = None, collection: str = STATE, limit: int = LIST_MAX
    ) -> list[Version]:
        """Every version of a key, newest first, deletions included; of another agent's key through the hub."""
        other = self._other(agent, collection)
        if other is not None:
            return self._reader().history(other, collection, key, limit)
        found = self._log.versions(collection, self._sealing.name(collection, key))
        return [self._version(stored) for stored in itertools.islice(found, limit)]

    def keys(
        self,
        prefix: str = "",
        *,
        agent: str | None = None,
        collection: str = STATE,
        after: str = "",
        limit: int = LIST_MAX,
    ) -> list[str]:
        """The keys that begin with `prefix` and have a value, in order, behind `after`."""
        other = self._other(agent, collection)
        if other is not None:
            return self._reader().keys(other, collection, prefix, after, limit)
        if collection in self._sealed:
            return self._sealing.keys(self._log, collection, prefix, after, limit)
        found = self._log.corpus.keys(self.agent, collection, prefix, after, limit)
        return [stored.record.key for stored in found]

    def messages(
        self,
        *,
        to: str | None = None,
        task: str | None = None,
        thread: str | None = None,
        kind: str | None = None,
        agent: str | None = None,
        since: When | None = None,
        limit: int = 100,
    ) -> list[Message]:
        """The newest `limit` messages that match, oldest of them first: everybody's through the hub, else one's own.

        Args:
            to, task, thread, kind: narrow it.
            agent: only this one's; one's own are read here.
            since: only later than this time.

        Raises:
            HubUnavailable: a hub is configured and does not answer (``agent=`` one's own name needs none).
        """
        begin = 0 if since is None else clock.pack(clock.parse_time(since))
        narrow: dict[str, Any] = {"agents": (agent,) if agent else (), "kinds": (kind,) if kind else (), "since": begin}
        which = Filter(collection=MESSAGES, to=to, task=task, thread=thread, limit=limit, **narrow)
        if self.hubs and agent != self.agent:
            own = self._unshipped(which) if agent is None else []  # before asking, since it may be shipped meanwhile
            found = self._reader().messages(which)
            newest_known = max((each.seq for each in found if each.agent == self.agent), default=0)
            return [*found, *(each for each in own if each.seq > newest_known)][-limit:]
        return [self._message(stored) for stored in messages_in(self._log, which)][::-1]

    def changes(
        self,
        since: str | None = None,
        *,
        live: bool = True,
        agent: str | None = None,
        collection: str | None = None,
        kind: str | None = None,
        prefix: str = "",
    ) -> Changes:
        """What was written behind a cursor, mine and everyone's, in the hub's order; without a hub, mine.

        The iterator's `cursor` is where to go on: kept anywhere, it resumes exactly. Its `close` ends a wait.

        Args:
            since: a cursor; None: from the beginning; "now": only what comes.
            live: go on waiting for more, through hubs that go away and come back; else end at the newest.
            agent, collection, kind, prefix: narrow it.
        """
        from holdfast.node.changes import Changes, Wanted

        wanted = Wanted(agent=agent, collection=collection, kind=kind, prefix=prefix)
        if self.hubs:
            return Changes.of_hub(self._reader().hub, wanted, since, live=live)
        return Changes.of_log(self._log, wanted, since, live=live, keys=self._sealing.vault)

    # -- the outbox and the house ---------------------------------------------------------------------------------

    @property
    def outbox_depth(self) -> int:
        """How many of this agent's records the slowest hub has not acknowledged; 0 without a hub."""
        from holdfast.node.outbox_store import depth

        return max((depth(self._directory, self._opened, url) for url in self.hubs), default=0)

    def flush(self, timeout: float = 10.0) -> bool:
        """Waits until what this agent has written is safe on the hubs; False when `timeout` seconds were not enough.

        Safe is what a hub has on its disk, and no hub that answers lacks. So with several hubs it is True while one of
        them is away, if another has all of it; what waits for the one that is away is counted by `outbox_depth`.
        Without a hub there is nothing to wait for, and it returns True. A hub that has acknowledged everything is asked
        whether it still has it (it may have been put back to an older copy), unless it cannot be reached.
        """
        return not self.hubs or bool(self._directory.shipper.flush(self._opened, self.hubs, timeout))

    def health(self) -> dict[str, Any]:
        """How this node stands, as JSON values: level, head, hubs, disk, incidents, `problems` in words."""
        from holdfast.node.health import health

        return health(self._directory, self._opened, self.hubs)

    def metrics(self, *, seed_names: bool = True) -> str:
        """The figures of this node and all its agents, as text that Prometheus reads; docs/operations.md names them.

        Args:
            seed_names: show them under the names of the earlier systems too.
        """
        from holdfast.node.metrics import metrics

        return metrics(self._directory, self.hubs or None, seed_names=seed_names)

    def verify(self) -> Scan:
        """Reads this agent's whole log anew and proves it: every page, link, payload and blob; returns the report."""
        from holdfast.node.health import verify

        return verify(self._directory, self._opened)

    def pin(self, key: str, *, collection: str = STATE) -> None:
        """Has a key's current value stay on this machine whatever the budget; it is fetched if it had left.

        Raises:
            NotFound: it has no value.
            NodeFull, NotCached: it had left, and there is no room for it, or no hub that answers.
        """
        from holdfast.node.keeping import pin

        pin(self, collection, key)

    def unpin(self, key: str, *, collection: str = STATE) -> None:
        """Lets a pinned value leave again as any other; one that was not pinned is fine."""
        from holdfast.node.keeping import unpin

        unpin(self, collection, key)

    def rotate(self) -> str:
        """Puts a new signing key in force for the whole node directory; returns its public half in hex.

        Every log here gets a record signed by the old key that names the new one; the old key is kept.
        """
        from holdfast.node.rotation import rotate

        key = rotate(self._directory)
        self._poke()
        return key.hex()

    def close(self) -> None:
        """Syncs and closes; a second close is fine. A hub that answers gets up to a second to take the last records."""
        if self._closed or os.getpid() != self._directory.pid:  # in a forked child all of it is the parent's
            return
        self._closed = True
        if self._searches is not None:
            self._searches.close()
        if self.hubs and (shipper := self._directory.shipper) is not None:
            shipper.linger(self._opened, self.hubs)
        if self._others is not None:
            self._others.close()
        self._directory.release_log(self._opened)
        detach(self._directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- inside -------------------------------------------------------------------------------------------------

    def _append(self, made: Sequence[Draft], durable: bool) -> list[Stored]:
        try:
            self._reserve.check(len(made[0].payload))
            if self._room is not None:
                self._room.enter(made)
            stored = self._log.append(made, durable=durable)
        except NodeFull:
            self._directory.make_room()
            raise
        self._poke()
        return stored

    def _poke(self) -> None:
        shipper = self._directory.shipper
        if shipper is not None and not shipper.poked:
            shipper.poke()

    def _check_there(self, collection: str, key: str, prefix: bool, expect: int | str | None) -> None:
        if not prefix and expect is None:
            self._sealing.find(collection, key)

    def _other(self, agent: str | None, collection: str) -> str | None:
        """Whose keys are meant, if they are not this log's own: in a cas collection the hub's, whoever asks."""
        if collection in self._cas:
            return CAS_AGENT
        return None if agent is None or agent == self.agent else agent

    def _load(self, stored: Stored, *, keep: bool = False) -> Any:
        try:
            return value_in(stored, self._blobs, self._sealing.vault)
        except NotCached:
            if not self.hubs:
                raise
            return self._reader().fetch_back(stored, self._opened.corpus, self._room, keep=keep)

    def _version(self, stored: Stored) -> Version:
        try:
            return told(stored, self._blobs, self._sealing.vault)
        except NotCached:
            return listed(stored, self._load)

    def _message(self, stored: Stored) -> Message:
        return message_listed(stored, self._load)

    def _unshipped(self, which: Filter) -> list[Message]:
        """One's own messages that not every hub can know yet: whoever has posted sees it at once."""
        return [self._message(each) for each in unshipped(self._log, which, self.outbox_depth)][::-1]

    def _reader(self) -> Others:
        with self._directory.lock:
            if self._others is None:
                from holdfast.node.others import Others

                self._others = Others(self._directory, self.agent, self.hubs, self._token)
            return self._others

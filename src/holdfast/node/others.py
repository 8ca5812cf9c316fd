"""Reading what is not one's own: from another agent's log beside one's own, else from a hub, proven, and kept.

What never changes (a version by its number) is taken from the cache; what may have changed is asked of the hubs in
turn, and the cache answers only when none of them does.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from holdfast import clock
from holdfast.collections import Message
from holdfast.corpus import Filter, SqliteCorpus, Stored
from holdfast.corpus.eviction import take_back
from holdfast.errors import HubUnavailable, IntegrityError, NodeFull, NotCached, NotFound, Sealed, UsageError
from holdfast.log import Log
from holdfast.log.sealing import value_in
from holdfast.log.versions import Version, told
from holdfast.node.batch import CAS_AGENT
from holdfast.node.cache import Cache
from holdfast.node.directory import Directory
from holdfast.node.hub import Hub
from holdfast.node.looking import When, as_of, newest
from holdfast.node.proof import Proven
from holdfast.node.proven import HubBlobs, as_stored
from holdfast.node.room import ROW_BYTES, Need
from holdfast.records import BLOB, read_blob_reference
from holdfast.transport.blobs import download
from holdfast.transport.client import Token

if TYPE_CHECKING:
    from holdfast.corpus.search.embedding import Embedder
    from holdfast.log.hits import Hits
    from holdfast.node.room import Room

T = TypeVar("T")
SEALED: Final = "sealed"


class Others:
    """A store's view of everybody else. Safe to share among threads.

    Args:
        directory: the node's.
        agent: who reads.
        hubs: addresses, in the order in which they are asked.
        token: what they know us by.
    """

    def __init__(self, directory: Directory, agent: str, hubs: Sequence[str], token: Token) -> None:
        self._directory = directory
        self._agent, self._hubs = agent, hubs
        self._lock = threading.Lock()  # guards _cache
        self._cache: Cache | None = None
        self._hub = Hub(hubs, token, pins=self.cache) if hubs else None

    @property
    def cache(self) -> Cache:
        """cache.db; opened when first needed."""
        with self._lock:
            if self._cache is None:
                self._cache = Cache(self._directory.path / "cache.db", self._directory.wall)
            return self._cache

    @property
    def hub(self) -> Hub:
        """The hubs, as one to ask.

        Raises:
            HubUnavailable: there is none.
        """
        if self._hub is None:
            raise HubUnavailable("this store has no hub", hint="open it with hub='http://…'")
        return self._hub

    # -- reading ------------------------------------------------------------------------------------------------

    def get(self, agent: str, collection: str, key: str, at: When | None) -> Any:
        """Another agent's value; see `Store.get`."""
        return self.value(self.record(agent, collection, key, at))

    def record(self, agent: str, collection: str, key: str, at: When | None) -> Stored:
        """The record behind it."""
        name = self._directory.vault.name(collection, key)
        try:
            return self._record(agent, collection, name, at)
        except NotFound:
            if name == key:
                raise
            return self._record(agent, collection, key, at)  # it may be sealed here alone

    def _record(self, agent: str, collection: str, key: str, at: When | None) -> Stored:
        with self._beside(agent) as log:
            if log is not None:
                return _read(log, collection, key, at)
        if isinstance(at, int) and not isinstance(at, bool):
            kept = self.cache.version(agent, collection, key, at)
            if kept is not None:
                return kept
        try:
            found = self._ask(lambda hub: hub.prove(agent, collection, key, at))
        except HubUnavailable:
            until = 1 << 62 if at is None else clock.pack(clock.parse_time(at), clock.COUNTER_MAX)
            kept = self.cache.newest(agent, collection, key, until=until)
            if kept is None:
                raise
            return kept
        self.cache.keep(found)
        return as_stored(found)

    def history(self, agent: str, collection: str, key: str, limit: int) -> list[Version]:
        """Every version of another agent's key, newest first."""
        name, key = key, self._directory.vault.name(collection, key)
        with self._beside(agent) as log:
            if log is not None:
                here = itertools.islice(log.versions(collection, key), limit)
                return [told(each, self._directory.blobs, self._directory.vault) for each in here]
        found = self._ask(lambda hub: hub.history(key, agent=agent, collection=collection, limit=limit))
        return [self._opened(each, name) if each.missing == SEALED else each for each in found]

    def keys(self, agent: str, collection: str, prefix: str, after: str, limit: int) -> list[str]:
        """Another agent's keys.

        Raises:
            UsageError: they are sealed: their names stand nowhere but in what is sealed.
        """
        if collection in self._directory.vault.collections:
            raise UsageError(f"{collection!r} is sealed: {agent}'s keys are listed on the node that wrote them")
        with self._beside(agent) as log:
            if log is not None:
                rows = log.corpus.keys(agent, collection, prefix, after, limit)
                return [each.record.key for each in rows]
        return self._ask(lambda hub: hub.keys(prefix, agent=agent, collection=collection, after=after, limit=limit))

    def messages(self, which: Filter) -> list[Message]:
        """Everybody's messages."""
        return self._ask(lambda hub: hub.messages_of(which))

    def search(self, q: str, how: Mapping[str, Any], known: Sequence[tuple[str, Embedder]] = ()) -> Hits:
        """Everybody's values and messages; see `Store.search`.

        Args:
            q: what is looked for.
            how: the rest of the question, as `Hub.search` takes it.
            known: functions that may embed it, by collection.
        """
        hub = self.hub
        if known:
            for collection, embedder in known:
                hub.asking.knows(collection, embedder.declared, embedder.fn)
        return hub.search(q, **how)

    def fetch_back(self, stored: Stored, corpus: SqliteCorpus, room: Room | None, *, keep: bool = False) -> Any:
        """The value of a record of this log whose bytes are not on this machine, from a hub that holds them.

        Args:
            stored: the record.
            corpus: the log, which keeps the bytes again.
            room: where that must stay within a budget: without room for them they are only returned.
            keep: they must be kept: room is made for them.

        Raises:
            NodeFull: they must be kept, and do not fit.
            NotCached: no hub answers; it says where the bytes are.
            IntegrityError: what came is something else.
        """
        record = stored.record
        try:
            if stored.body is not None:
                return self.value(stored)
            found = self._ask(lambda hub: self._same(hub, stored))
            item = found.item
            back = msgspec.structs.replace(stored, codec=item.codec, body=item.body, why=item.why)
            beside = read_blob_reference(back.payload())[1] if record.flags & BLOB and item.body is not None else 0
            if keep and room is not None:
                room.claim(Need(len(item.body or b"") + ROW_BYTES, beside))
            if item.body is not None and (keep or room is None or room.has_for(len(item.body), beside)):
                value = self.value(back)  # its blob first: what the row then refers to is here
                with contextlib.suppress(NodeFull):
                    kept = take_back(corpus, stored.pos, record.link, item.codec, item.body)
                    if kept and room is not None and beside:
                        room.took_back(beside)
                return value
            return self._ask(lambda hub: value_in(back, HubBlobs(hub.client, found), self._directory.vault))
        except HubUnavailable as error:
            where = ", ".join(self._hubs)
            raise NotCached(
                f"{record.collection}/{record.key} seq {record.seq} of {stored.agent} is not on this machine but at"
                f" {where}, which does not answer",
                hint="try again when it does; what has to stay here can be pinned",
                hub=where,
                payload_hash=record.payload_hash.hex(),
            ) from error

    # -- writing ------------------------------------------------------------------------------------------------

    def decide(self, collection: str, key: str, write: dict[str, Any], expect: int | str | None) -> Version:
        """A write that the first hub decides (of several deciders none would be one)."""
        asked = {"agent": self._agent, "collection": collection, "key": key, **write}
        if expect is not None:
            asked["expect"] = expect
        return self.hub.decide(asked)

    def close(self) -> None:
        """Closes the lines and the cache; a second close is fine."""
        if self._hub is not None:
            self._hub.close()
        if self._cache is not None:
            self._cache.close()

    # -- inside -------------------------------------------------------------------------------------------------

    def _ask(self, question: Callable[[Hub], T]) -> T:
        return self.hub.ask(question)

    @contextlib.contextmanager
    def _beside(self, agent: str) -> Iterator[Log | None]:
        """The log of another agent of this very directory."""
        if agent == CAS_AGENT or not self._directory.has_agent(agent):
            yield None
            return
        opened = self._directory.open_log(agent, None)
        try:
            yield opened.log
        finally:
            self._directory.release_log(opened)

    def _same(self, hub: Hub, stored: Stored) -> Proven:
        record = stored.record
        found = hub.prove(stored.agent, record.collection, record.key, record.key_version)
        if found.record.link != record.link:
            raise IntegrityError(f"the hub's version {record.key_version} of {record.key} is another than this node's")
        return found

    def value(self, stored: Stored) -> Any:
        """What a record holds; a blob that is not on this machine is fetched."""
        if stored.record.flags & BLOB and stored.body is not None:
            digest, size = read_blob_reference(stored.payload())
            if not self._directory.blobs.has(digest):
                self._ask(lambda hub: download(hub.client, self._directory.blobs, digest, size))
        return self._open(stored)

    def _opened(self, version: Version, name: str) -> Version:
        """A version from a hub's list with its value, if the key that sealed it is here."""
        at = version.agent, version.collection, version.key, version.version
        found = self._ask(lambda hub: hub.prove(*at))
        with contextlib.suppress(Sealed):
            return msgspec.structs.replace(version, value=self.value(as_stored(found)), key=name, missing="")
        return version

    def _open(self, stored: Stored) -> Any:
        return value_in(stored, self._directory.blobs, self._directory.vault)


def _read(log: Log, collection: str, key: str, at: When | None) -> Stored:
    return newest(log, collection, key) if at is None else as_of(log, collection, key, at)

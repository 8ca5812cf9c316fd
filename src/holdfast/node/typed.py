"""`Store.collection`: typed values in an agent's own log, found by its index; and what of others' a hub finds."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from holdfast.collections.typed import SCHEMAS, Collection, Declared, Schema, declared, schema_of
from holdfast.collections.typed.asking import Row, Rows, row_of
from holdfast.collections.typed.backing import UNKNOWN, Asked, Finding, one_by_one
from holdfast.collections.typed.schema import check_declared, indexed, is_ours
from holdfast.collections.typed.sums import Sums, functions, sums_of
from holdfast.collections.typed.wording import Where, worded
from holdfast.corpus import Stored, index
from holdfast.errors import Conflict, IntegrityError, NodeFull, NotFound, UsageError
from holdfast.log import drafts
from holdfast.log.drafts import new_id
from holdfast.log.sealing import open_sealed
from holdfast.log.versions import Version
from holdfast.node.batch import CAS_AGENT
from holdfast.node.directory import LOCAL
from holdfast.node.looking import When
from holdfast.node.sealing import Sealing
from holdfast.records import SEALED, check_names

if TYPE_CHECKING:
    from holdfast.node.batch import Batch
    from holdfast.node.store import Store
    from holdfast.node.typed_hub import HubBacking

logger = logging.getLogger(__name__)

T = TypeVar("T")


def collection_of(store: Store, name: str, what: Any, fields: Sequence[str]) -> StoreCollection[Any]:
    """A collection of an agent; see `Store.collection`."""
    check_name(name)
    schema = schema_of(what, fields)
    if schema.local:
        store = beside(store, f"{store.agent}{LOCAL}")
    if schema.sealed:
        store._sealing.declare([name], store._cas)
    if schema.conflict == "cas":
        if name in store._sealed:
            raise UsageError(f"{name!r} is sealed: the hub could not decide what it cannot read", hint="choose one")
        store._cas |= {name}
    declare(store, name, schema)
    return StoreCollection(name, schema, LogBacking(store, name, schema))


def beside(store: Store, agent: str) -> Store:
    """The store over another log of its directory, without a hub; it ends with the directory."""
    made = copy.copy(store)
    made.agent, made.hubs, made._cas, made._others = agent, (), frozenset(), None
    made._searches = None
    made._opened = store._directory.open_log(agent, store._opened.level)
    made._log = made._opened.log
    made._sealing = Sealing(store._directory, made._log)
    return made


def check_name(name: str) -> None:
    """Refuses the names of collections that Holdfast itself fills.

    Raises:
        UsageError: it is one, or no name.
    """
    check_names("put", name, "")
    if is_ours(name):
        raise UsageError(f"{name!r} is no name for a collection of one's own", hint="another, without a slash")


def declare(store: Store, name: str, schema: Schema[Any]) -> None:
    """Tells hubs and other nodes what a collection is, by a record, and has the index hold its fields.

    Nothing is written where both is so already. Where nothing can be written, reads go on without.
    """
    told = declared(schema)
    check_declared(told)
    stored = store._log.newest(SCHEMAS, name)
    before = None if stored is None else _declared_in(store, stored)
    try:
        if before is None or (before != told and before.version <= told.version):
            store._append((drafts.value(SCHEMAS, name, msgspec.to_builtins(told)),), False)  # it names no secret
        if name not in store._sealed and schema.conflict == "private":
            index.declare(store._log.corpus, name, indexed(told), words=told.text)
    except (NodeFull, IntegrityError) as error:
        logger.warning("the schema of %s could not be written down: %s", name, error)


def _declared_in(store: Store, stored: Stored) -> Declared | None:
    try:
        return msgspec.convert(store._load(stored), Declared)
    except msgspec.ValidationError:
        return None  # of a newer Holdfast: ours says less, but is what this program goes by


class StoreCollection(Collection[T]):
    """A collection in an agent's own log; what of other agents' is asked for comes from a hub."""

    _backing: LogBacking

    @property
    def _in_log(self) -> bool:
        """Whether the store's own log alone holds and decides it, as it is."""
        store = self._backing._store
        return not self.schema.local and self.name not in store._cas and self.name not in store._sealed

    def everybody(self) -> Collection[T]:
        """The same collection as all agents have it at the hub, to be read.

        Raises:
            HubUnavailable: this store has no hub.
        """
        return Collection(self.name, self.schema, self._backing.at_hub(None))

    def into(self, batch: Batch) -> BatchCollection[T]:
        """Writes of this collection for a ``with store.batch() as batch`` block."""
        return BatchCollection(self, batch)


class BatchCollection(Generic[T]):
    """Writes of a collection that happen together with all else in a batch, or not at all."""

    def __init__(self, collection: StoreCollection[T], batch: Batch) -> None:
        self._collection = collection
        self._batch = batch

    def put(
        self, key: str, value: T | Mapping[str, Any], *, expect: int | str | None = None, ttl_s: float | None = None
    ) -> None:
        """Adds a put; see `Collection.put`."""
        collection = self._collection
        if collection.schema.local:
            raise UsageError(f"{collection.name!r} is local: it is in another log than the batch", hint="put it alone")
        self._batch._refuse_cas(collection.name)
        raw = collection._shape.write(value, collection._ends(ttl_s))
        if collection._backing.newest_version() > collection.schema.version:
            with contextlib.suppress(NotFound):
                collection._shape.check_not_newer(key, collection._backing.row(key, None, None).raw)
        self._batch.put(key, raw, collection=collection.name, expect=expect)

    def add(self, value: T | Mapping[str, Any], *, ttl_s: float | None = None) -> str:
        """Adds a put under a key that is made for it; see `Collection.add`."""
        key = new_id(self._collection.name)
        self.put(key, value, expect=0, ttl_s=ttl_s)
        return key

    def delete(self, key: str, *, reason: str = "", expect: int | str | None = None) -> None:
        """Adds a delete; see `Collection.delete`."""
        self._batch.delete(key, reason=reason, collection=self._collection.name, expect=expect)


class LogBacking:
    """The values of one collection in an agent's log; of other agents, and where the hub decides, those at the hub.

    Args:
        store: the agent's.
        name: the collection's.
        schema: what it is.
    """

    def __init__(self, store: Store, name: str, schema: Schema[Any]) -> None:
        self._store = store
        self._name = name
        self._schema = schema
        self._beside: dict[str, LogBacking] = {}
        self._told = b"", 0  # the link of the record that was read last, and the version that it says

    def now_ms(self) -> int:
        """The time, by the node's clock."""
        return self._store._directory.wall.now_ms()

    def put(self, key: str, raw: Any, expect: int | str | None, durable: bool) -> Version:
        """See `Store.put`."""
        return self._store.put(key, raw, collection=self._name, expect=expect, durable=durable)

    def replace(self, values: Sequence[tuple[str, Any, int]]) -> int:
        """In one commit; where that cannot be, each by itself."""
        if self._name not in self._store._cas:
            try:
                with self._store.batch() as batch:
                    for key, raw, version in values:
                        batch.put(key, raw, collection=self._name, expect=version)
                return len(values)
            except (Conflict, UsageError):  # somebody was faster with one of them, or all together are too large
                logger.debug("%s: %d values are written one by one", self._name, len(values))
        return one_by_one(self, values)

    def delete(self, key: str, reason: str, expect: int | str | None) -> Version:
        """See `Store.delete`."""
        return self._store.delete(key, reason=reason, collection=self._name, expect=expect)

    def newest_version(self) -> int:
        """Whoever writes with a schema has said so in this log before; what the hub decides, others write too."""
        if self._name in self._store._cas:
            return UNKNOWN
        stored = self._store._log.newest(SCHEMAS, self._name)
        if stored is None:
            return 0
        if stored.record.link != self._told[0]:
            told = _declared_in(self._store, stored)
            self._told = stored.record.link, UNKNOWN if told is None else told.version
        return self._told[1]

    def history(self, key: str, limit: int, agent: str | None) -> list[Version]:
        """See `Store.history`."""
        return self._store.history(key, agent=self._named(agent), collection=self._name, limit=limit)

    def row(self, key: str, at: When | None, agent: str | None) -> Row:
        """One's own from this machine, another's through the hub, proven."""
        store = self._store
        other = store._other(self._named(agent), self._name)
        if other is not None:
            stored = store._reader().record(other, self._name, key, at)
            return row_of(stored, key, store._reader().value(stored))
        stored = store._sealing.find(self._name, key, at)
        return _shown(row_of(stored, key, store._load(stored)))

    def find(self, asked: Asked) -> Rows:
        """A page, of one's own from the index here."""
        if (place := self._elsewhere(asked.agent)) is not None:
            return place.find(asked)
        page = index.find(self._store._log.corpus, self._query(asked), self._store._load)
        return Rows([self._found(stored, page) for stored in page.found], page.cursor or "")

    def count(self, asked: Asked) -> int:
        """How many."""
        if (place := self._elsewhere(asked.agent)) is not None:
            return place.count(asked)
        return index.count(self._store._log.corpus, self._query(asked), self._store._load)

    def sums(self, asked: Asked, by: str | None, of: str | None) -> list[Sums]:
        """What they add up to."""
        if (place := self._elsewhere(asked.agent)) is not None:
            return place.sums(asked, by, of)
        corpus, load = self._store._log.corpus, self._store._load
        return [sums_of(each) for each in index.aggregate(corpus, self._query(asked), load, group=by, of=functions(of))]

    def search(self, words: str, fields: Sequence[str], limit: int, agent: str | None) -> Rows:
        """The newest with these words."""
        if (place := self._elsewhere(agent)) is not None:
            return place.search(words, fields, limit, agent)
        store, name = self._store, self._name
        if name in store._sealed:
            raise UsageError(f"{name!r} is sealed: no index holds its words", hint='find(where("field").text("words"))')
        found = worded(store._log.corpus, words, fields, limit, Where(name, (store.agent,), store._load))
        return Rows([_shown(row_of(stored, stored.record.key, raw)) for stored, raw in found])

    def at_hub(self, agent: str | None) -> HubBacking:
        """The same collection as the hub has it.

        Raises:
            HubUnavailable: there is no hub.
        """
        from holdfast.node.typed_hub import HubBacking

        return HubBacking(self._store._reader().hub, self._name, self._schema, agent)

    def _elsewhere(self, agent: str | None) -> Finding | None:
        """Who finds it, if what is asked for is not in this log: without a hub, another log of this directory."""
        store, other = self._store, self._store._other(self._named(agent), self._name)
        if other is None:
            return None
        if store.hubs or other == CAS_AGENT or not store._directory.has_agent(other):
            return self.at_hub(other)
        if other not in self._beside:
            self._beside[other] = LogBacking(beside(store, other), self._name, self._schema)
        return self._beside[other]

    def _named(self, agent: str | None) -> str | None:
        """Whose values are meant; None: one's own, also under the name that their log has here."""
        return None if agent is not None and agent == self._store.agent.removesuffix(LOCAL) else agent

    def _query(self, asked: Asked) -> index.Query:
        return index.Query(
            collection=self._name,
            agents=(self._store.agent,),
            condition=asked.condition,
            order=asked.order,
            after=asked.after or None,
            limit=asked.limit,
        )

    def _found(self, stored: Stored, page: index.Page) -> Row:
        raw = page.values[stored.pos] if stored.pos in page.values else self._store._load(stored)
        key = stored.record.key
        if stored.record.flags & SEALED:
            key = open_sealed(stored, self._store._blobs, self._store._sealing.vault).key
        return _shown(row_of(stored, key, raw))


def _shown(row: Row) -> Row:
    """The row, under the agent's own name where its log has another here."""
    return msgspec.structs.replace(row, agent=row.agent.removesuffix(LOCAL)) if row.agent.endswith(LOCAL) else row

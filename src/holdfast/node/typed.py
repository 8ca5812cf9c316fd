"""`Store.collection`: typed values in an agent's own log, found by its index; and what of others' a hub finds."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from holdfast import clock
from holdfast.collections.typed import SCHEMAS, Collection, Declared, Schema, declared, schema_of
from holdfast.collections.typed.asking import Row, Rows
from holdfast.collections.typed.backing import Asked
from holdfast.collections.typed.schema import ENDS, VERSION
from holdfast.collections.typed.sums import Sums, functions, sums_of
from holdfast.collections.typed.wording import Where, worded
from holdfast.corpus import Stored, index
from holdfast.errors import NodeFull, NotFound, UsageError
from holdfast.log.drafts import new_id
from holdfast.log.sealing import open_sealed
from holdfast.log.versions import Version
from holdfast.node.directory import LOCAL
from holdfast.node.looking import When
from holdfast.node.sealing import OPEN, Sealing
from holdfast.records import SEALED, check_names

if TYPE_CHECKING:
    from holdfast.node.batch import Batch
    from holdfast.node.store import Store

logger = logging.getLogger(__name__)

T = TypeVar("T")


def collection_of(store: Store, name: str, what: Any, fields: Sequence[str]) -> StoreCollection[Any]:
    """A collection of an agent; see `Store.collection`."""
    check_name(name)
    schema = schema_of(what, fields)
    if schema.local:
        store = beside(store)
    if schema.sealed:
        store._sealing.declare([name], store._cas)
    if schema.conflict == "cas":
        if name in store._sealed:
            raise UsageError(f"{name!r} is sealed: the hub could not decide what it cannot read", hint="choose one")
        store._cas |= {name}
    declare(store, name, schema)
    if name not in store._sealed and schema.conflict == "private":
        index.declare(store._log.corpus, name, indexed(declared(schema)), words=schema.text)
    return StoreCollection(name, schema, LogBacking(store, name), store)


def beside(store: Store) -> Store:
    """The same agent's store over a log of its own that is never shipped; it ends with the directory."""
    made = copy.copy(store)
    made.agent, made.hubs, made._cas, made._others = f"{store.agent}{LOCAL}", (), frozenset(), None
    made._opened = store._directory.open_log(made.agent, store._opened.level)
    made._log = made._opened.log
    made._sealing = Sealing(store._directory, made._log)
    return made


def check_name(name: str) -> None:
    """Refuses the names of collections that Holdfast itself fills.

    Raises:
        UsageError: it is one, or no name.
    """
    check_names("put", name, "")
    if not name or name in OPEN or name == SCHEMAS or name.startswith("table/"):
        raise UsageError(f"{name!r} is a collection of Holdfast's own", hint="take a name of your own")


def declare(store: Store, name: str, schema: Schema[Any]) -> None:
    """Tells hubs and other nodes what a collection is, by a record; nothing is written where it says so already."""
    told = declared(schema)
    known = store.get(name, collection=SCHEMAS, default=None)
    try:
        before = None if known is None else msgspec.convert(known, Declared)
    except msgspec.ValidationError:
        before = None  # of a newer Holdfast: ours says less, but is what this program goes by
    if before is not None and (before == told or before.version > told.version):
        return
    try:
        store.put(name, msgspec.to_builtins(told), collection=SCHEMAS)
    except NodeFull:  # reads go on
        logger.warning("the schema of %s could not be written down: the disk is full", name)


def indexed(told: Declared) -> list[str]:
    """The fields that an index of a collection holds: those that were named, and ours."""
    ours = ([VERSION] if told.version > 1 else []) + ([ENDS] if told.expires else [])
    return [*told.index, *ours]


class StoreCollection(Collection[T]):
    """A collection in an agent's own log; what of other agents' is asked for comes from a hub."""

    def __init__(self, name: str, schema: Schema[T], backing: LogBacking, store: Store) -> None:
        super().__init__(name, schema, backing)
        self._store = store

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
        raw = collection._shape.write(value, collection._ends(ttl_s))
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
    """The values of one collection in an agent's log.

    Args:
        store: the agent's.
        name: the collection's.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name

    def now_ms(self) -> int:
        """The time, by the node's clock."""
        return self._store._directory.wall.now_ms()

    def put(self, key: str, raw: Any, expect: int | str | None, durable: bool) -> Version:
        """See `Store.put`."""
        return self._store.put(key, raw, collection=self._name, expect=expect, durable=durable)

    def delete(self, key: str, reason: str, expect: int | str | None) -> Version:
        """See `Store.delete`."""
        return self._store.delete(key, reason=reason, collection=self._name, expect=expect)

    def history(self, key: str, limit: int, agent: str | None) -> list[Version]:
        """See `Store.history`."""
        return self._store.history(key, agent=agent, collection=self._name, limit=limit)

    def row(self, key: str, at: When | None, agent: str | None) -> Row:
        """One's own from this machine, another's through the hub, proven."""
        store = self._store
        other = store._other(agent, self._name)
        if other is not None:
            stored = store._reader().record(other, self._name, key, at)
            return _row(stored, key, store._reader().value(stored))
        stored = store._sealing.find(self._name, key, at)
        return _row(stored, key, store._load(stored))

    def find(self, asked: Asked) -> Rows:
        """A page, of one's own from the index here."""
        page = index.find(self._store._log.corpus, self._query(asked), self._store._load)
        return Rows([self._found(stored, page) for stored in page.found], page.cursor or "")

    def count(self, asked: Asked) -> int:
        """How many."""
        return index.count(self._store._log.corpus, self._query(asked), self._store._load)

    def sums(self, asked: Asked, by: str | None, of: str | None) -> list[Sums]:
        """What they add up to."""
        corpus, load = self._store._log.corpus, self._store._load
        return [sums_of(each) for each in index.aggregate(corpus, self._query(asked), load, group=by, of=functions(of))]

    def search(self, words: str, fields: Sequence[str], limit: int, agent: str | None) -> Rows:
        """The newest with these words."""
        store, name = self._store, self._name
        if name in store._sealed:
            raise UsageError(f"{name!r} is sealed: no index holds its words", hint='find(where("field").text("words"))')
        found = worded(store._log.corpus, words, fields, limit, Where(name, (store.agent,), store._load))
        return Rows([_row(stored, stored.record.key, raw) for stored, raw in found])

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
        return _row(stored, key, raw)


def _row(stored: Stored, key: str, raw: Any) -> Row:
    record = stored.record
    return Row(
        agent=stored.agent,
        key=key,
        raw=raw,
        version=record.key_version,
        etag=record.link.hex(),
        time=clock.millis(record.hlc) / 1000,
    )

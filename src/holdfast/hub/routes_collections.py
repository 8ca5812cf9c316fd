"""Collections over HTTP: what is known of them, everybody's values that meet a condition, and one's own to write.

A value is shown as it is stored: beside its own fields it may hold ``$v``, the version of the schema that wrote it, and
``$ends``, when it is gone (ms since 1970). What is written here lies in the hub's own stream of the agent in whose name
it is; in a collection that the hub decides (``conflict: cas``), in the one of its decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import msgspec

from holdfast import clock, query
from holdfast.collections.typed.asking import Row, row_of
from holdfast.collections.typed.backing import Asked
from holdfast.collections.typed.schema import (
    ENDS,
    SCHEMAS,
    VERSION,
    Declared,
    check_declared,
    check_not_newer,
    ends_of,
    is_ours,
    version_of,
)
from holdfast.corpus import Stored
from holdfast.errors import HoldfastError, NotFound, UsageError
from holdfast.hub.api import Call, Operation, Reply, typed
from holdfast.hub.collection_shapes import (
    Adding,
    AsAgent,
    Asking,
    CollectionShown,
    CollectionsShown,
    Counted,
    Counting,
    Groups,
    ItemKey,
    Items,
    ItemShown,
    Name,
    NewItem,
    OfAgent,
    SchemaShown,
    Searching,
)
from holdfast.hub.core import Core
from holdfast.hub.exchange import encode_json
from holdfast.hub.judge import HUB_AGENT, check_decides
from holdfast.hub.own import QUICK_BYTES, Desk, check_agent
from holdfast.hub.principal import READ, WRITE
from holdfast.hub.routes_sessions import ONLY_IF, wanted_of
from holdfast.hub.sessions import author_of
from holdfast.hub.shapes import Version
from holdfast.hub.storage_shapes import Version as IF_MATCH
from holdfast.hub.typed import Everybody, Known, unknown
from holdfast.log import drafts, load
from holdfast.log.versions import frame
from holdfast.records import check_names

T = TypeVar("T")
ANSWER_BYTES_MAX: Final = 8 << 20
SUMS_MAX: Final = 10_000
_PATH: Final = "/v1/collections"


def operations(core: Core) -> Iterator[Operation]:
    """Everything about collections."""
    work = Collections(core)

    def each(method: str, path: str, summary: str, does: Any, **more: Any) -> Operation:
        where = {"name": Name} if "{name}" in path else {}
        if "{key}" in path:
            where["key"] = ItemKey
            more["deep"] = "key"
        finds = method == "GET" or path.endswith(("find", "count", "aggregate", "search"))
        return Operation(
            method=method,
            path=f"{_PATH}{path}",
            endpoint=typed(does),
            needs=READ if finds else WRITE,
            summary=summary,
            tag="collections",
            where=where,
            **more,
        )

    yield each("GET", "", "The collections that are known", work.known, answer=CollectionsShown)
    yield each("GET", "/{name}/schema", "What a collection is", work.schema, answer=SchemaShown, errors=(404,))
    yield each(
        *("PUT", "/{name}/schema", "Say what a collection is", work.declare),
        query=AsAgent,
        body=Declared,
        answer=Version,
        errors=(409,),
    )
    yield each("POST", "/{name}/find", "Values that meet a condition", work.find, body=Asking, answer=Items)
    yield each("POST", "/{name}/count", "How many values meet a condition", work.count, body=Counting, answer=Counted)
    yield each("POST", "/{name}/aggregate", "What values add up to", work.aggregate, body=Adding, answer=Groups)
    yield each("POST", "/{name}/search", "Values that hold words", work.search, body=Searching, answer=Items)
    item = "/{name}/items/{key}"
    yield each("GET", item, "One value", work.get, query=OfAgent, answer=ItemShown, errors=(404,))
    yield each(
        *("PUT", item, "Set a value", work.put),
        query=AsAgent,
        body=NewItem,
        headers=ONLY_IF,
        answer=Version,
        errors=(409,),
    )
    yield each(
        *("DELETE", item, "Take a value away", work.delete),
        query=AsAgent,
        headers={"If-Match": IF_MATCH},
        answer=Version,
        errors=(404, 409),
    )


class Collections:
    """What each operation does.

    Args:
        core: the hub.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    # -- what there is --------------------------------------------------------------------------------------------

    async def known(self, call: Call) -> CollectionsShown:
        """The collections that agents have declared, with their indexes and how many values everybody has in them."""

        def look() -> CollectionsShown:
            mine = [known for known in self._core.schemas.all() if call.principal.may_read(known.name)]
            return CollectionsShown([self._shown(known) for known in mine])

        return await self._core.read(look)

    async def schema(self, call: Call) -> SchemaShown:
        """What agents have declared of a collection: its newest version, and who goes by which."""
        name = _name(call)
        call.principal.check_read(name)
        known = await self._core.read(lambda: self._core.schemas.of(name))
        if known is None:
            raise NotFound(f"nobody has said what {name!r:.80} is", hint="see /v1/collections")
        return SchemaShown(
            name=name,
            declared=known.newest,
            agents=dict(known.agents),
            versions={str(version): each for version, each in sorted(known.versions.items())},
        )

    async def declare(self, call: Call) -> bytes:
        """Says, in an agent's name, what a collection is; saying the same again changes nothing. `schema` is a JSON
        Schema: type, properties, required, items, enum, anyOf, $ref into $defs, and bounds.
        """
        name, agent, told = _name(call), check_agent(call.query.agent, hub=False), call.body
        call.principal.check_write(agent, name)
        check_declared(told)
        draft = drafts.value(SCHEMAS, name, msgspec.to_builtins(told), author=author_of(call.principal, agent))

        def work(desk: Desk) -> Any:
            before = desk.newest(SCHEMAS, name)
            same = before is not None and not before.is_blob and before.body is not None
            return before if before is not None and same and before.payload() == draft.payload else desk.append(ready)

        ready = self._core.own.ready(await self._core.own.log_of(agent), draft)
        return await self._written(agent, work, call.size, len(draft.payload))

    # -- finding --------------------------------------------------------------------------------------------------

    async def find(self, call: Call) -> bytes:
        """Everybody's values that meet a condition, or one agent's, in an order, page by page. What has ended is not
        there, though its record may be.
        """
        asked: Asking = call.body
        wanted = Asked(
            condition=_condition(asked.condition),
            order=asked.order,
            after=asked.after,
            limit=asked.limit,
            agent=asked.agent,
            ended=asked.ended,
        )

        def work(place: Everybody) -> bytes:
            place.check(wanted.condition, wanted.order)
            return _page(place, wanted)

        return await self._look(call, work)

    async def count(self, call: Call) -> Counted:
        """How many of everybody's values, or of one agent's, meet a condition."""
        wanted = Asked(condition=_condition(call.body.condition), agent=call.body.agent)

        def work(place: Everybody) -> Counted:
            place.check(wanted.condition)
            return Counted(place.mixed.count(wanted))

        return await self._look(call, work)

    async def aggregate(self, call: Call) -> Groups:
        """Count, sum, average, least and most of the values that meet a condition, by what another field holds."""
        asked: Adding = call.body
        wanted = Asked(condition=_condition(asked.condition), agent=asked.agent)

        def work(place: Everybody) -> Groups:
            place.check(wanted.condition, [each for each in (asked.of, asked.by) if each is not None])
            found = place.mixed.sums(wanted, asked.by, asked.of)
            return Groups(found[:SUMS_MAX], len(found) > SUMS_MAX)

        return await self._look(call, work)

    async def search(self, call: Call) -> bytes:
        """The newest values that hold all these words, in the fields that the schema names for it (`text`) or that are
        named here.
        """
        asked: Searching = call.body

        def work(place: Everybody) -> bytes:
            fields = asked.fields or place.known.text
            found = place.search(asked.words, fields, asked.limit, asked.agent)
            rows = _fitting([row for row in found.rows if ends_of(row.raw) > place.now_ms()])
            return b'{"items":[%b],"next":null}' % b",".join(rows)

        return await self._look(call, work)

    # -- one value ------------------------------------------------------------------------------------------------

    async def get(self, call: Call) -> Reply:
        """The value of an agent's key; what has ended is not there."""
        name, key, agent = _name(call), call.path["key"], call.query.agent
        call.principal.check_read(name)

        def look() -> tuple[bytes, str]:
            known = self._known(name)
            stored = self._core.corpus.newest(_owner(None, known, agent), name, key)
            raw = None if stored is None else load(stored, self._core.home.blobs)
            if stored is None or (known.expires and ends_of(raw) <= self._core.home.wall.now_ms()):
                raise _absent(agent, name, key)
            return encode_json(_item(row_of(stored, key, raw))), stored.record.link.hex()

        data, etag = await self._core.read(look)
        return Reply(data, headers=(("etag", f'"{etag}"'),))

    async def put(self, call: Call) -> bytes:
        """Sets the value of a key in an agent's name, if it fits the schema; `If-Match` and `If-None-Match` say which
        version it is to replace. Nothing of a newer version of the schema is written over.
        """
        name, key, asked, wanted = _name(call), call.path["key"], call.body, wanted_of(call)
        agent = check_agent(call.query.agent, hub=False)
        call.principal.check_write(agent, name)
        _check_own(name)
        known = await self._core.read(lambda: self._known(name))
        version = known.version(asked.schema)
        known.check_value(asked.value, version)
        if known.newest.sealed:
            raise UsageError(f"{name!r} is sealed: only its nodes can write it", hint="write it with a Store")
        raw = dict(asked.value)
        if version > 1:
            raw[VERSION] = version
        ttl_s = known.newest.ttl_s if asked.ttl_s is None else asked.ttl_s
        if ttl_s is not None:
            if not known.expires:
                raise UsageError(f"values of {name!r} do not expire", hint="its schema would say so: expires, ttl_s")
            raw[ENDS] = self._core.home.wall.now_ms() + round(ttl_s * 1000)
        draft = drafts.value(name, key, raw, author=author_of(call.principal, agent))
        owner = _owner(call, known, agent)
        log = await self._core.own.log_of(owner)
        quick = len(draft.payload) <= QUICK_BYTES
        make = self._core.own.ready
        ready = make(log, draft) if quick else await self._core.read(lambda: make(log, draft))

        def work(desk: Desk) -> Stored:
            before = desk.newest(name, key)
            if before is not None and (known.expires or len(known.versions) > 1):
                there = self._raw(desk, before)
                check_not_newer(name, key, version_of(there), version)
                if ends_of(there) <= self._core.home.wall.now_ms() and not wanted.match:
                    before = None  # to who expects nothing there is nothing; who knows the version may go by it
            wanted.check(before, f"{name}/{key}")
            return desk.append(ready)

        return await self._written(owner, work, call.size, len(draft.payload))

    async def delete(self, call: Call) -> bytes:
        """Takes the value of a key away, in an agent's name; its history stays."""
        name, key, wanted = _name(call), call.path["key"], wanted_of(call)
        agent = check_agent(call.query.agent, hub=False)
        call.principal.check_change(agent, name, _absent(agent, name, key))
        _check_own(name)
        known = await self._core.read(lambda: self._known(name))
        draft = drafts.remove(name, key, author=author_of(call.principal, agent))
        owner = _owner(call, known, agent)
        ready = self._core.own.ready(await self._core.own.log_of(owner), draft)

        def work(desk: Desk) -> Stored:
            before = desk.newest(name, key)
            if before is None:
                raise _absent(agent, name, key)
            wanted.check(before, f"{name}/{key}")
            return desk.append(ready)

        return await self._written(owner, work, call.size, len(draft.payload))

    # -- inside ---------------------------------------------------------------------------------------------------

    def _known(self, name: str) -> Known:
        return self._core.schemas.of(name) or unknown(name)

    async def _look(self, call: Call, work: Callable[[Everybody], T]) -> T:
        name = _name(call)
        call.principal.check_read(name)
        return await self._core.read(lambda: work(Everybody(self._core.home, self._known(name))))

    async def _written(self, agent: str, work: Callable[[Desk], Any], size: int, payload: int) -> bytes:
        found = await self._core.own.write(agent, work, size=size, quick=payload <= QUICK_BYTES)
        return await self._core.read(lambda: frame(found, self._core.home.blobs))

    def _raw(self, desk: Desk, stored: Stored) -> Any:
        if stored.is_blob:
            desk.open_files()
        try:
            return load(stored, self._core.home.blobs)
        except HoldfastError:
            return None  # erased, sealed, lost: nothing that could be written over

    def _shown(self, known: Known) -> CollectionShown:
        newest = known.newest
        counted = (
            None if newest.sealed else Everybody(self._core.home, known).mixed.count(Asked(condition=query.EVERYTHING))
        )
        return CollectionShown(
            name=known.name,
            version=newest.version,
            index=[each for each in known.index if not each.startswith("$")],
            text=list(known.text),
            conflict=newest.conflict,
            expires=known.expires,
            sealed=newest.sealed,
            agents=dict(known.agents),
            count=counted,
        )


def _name(call: Call) -> str:
    name = call.path["name"]
    check_names("put", name, "")
    return name


def _check_own(name: str) -> None:
    if is_ours(name):
        raise UsageError(f"{name!r} is a collection of Holdfast's own", hint="its other endpoints write it")


def _condition(said: Any) -> query.Condition:
    return query.EVERYTHING if said is None else query.from_json(said)


def _owner(call: Call | None, known: Known, agent: str) -> str:
    """In whose log a value lies; a call that writes must be of somebody for whom it is written there."""
    if known.newest.conflict != "cas":
        return agent
    if call is not None:
        check_decides(call.principal, known.name)
    return HUB_AGENT


def _absent(agent: str, name: str, key: str) -> NotFound:
    return NotFound(f"{agent} has nothing at {name}/{key:.100}", hint=f"POST {_PATH}/{name}/find shows what there is")


def _item(row: Row) -> ItemShown:
    return ItemShown(
        agent=row.agent,
        key=row.key,
        value=row.raw,
        version=row.version,
        etag=row.etag,
        time=clock.iso(round(row.time * 1000)),
    )


def _page(place: Everybody, wanted: Asked) -> bytes:
    """The JSON of a page, cut where its bytes are too many."""
    if wanted.ended:
        over = query.where(ENDS) <= place.now_ms()
        wanted = msgspec.structs.replace(wanted, condition=wanted.condition & over)
    find = place.find if wanted.ended else place.mixed.find
    found = find(wanted)
    rows = _fitting(found.rows)
    if len(rows) < len(found.rows):
        found = find(msgspec.structs.replace(wanted, limit=len(rows)))
    return b'{"items":[%b],"next":%b}' % (b",".join(rows), encode_json(found.cursor or None))


def _fitting(rows: list[Row]) -> list[bytes]:
    """As many of these rows, each as JSON, as one answer may hold; the first in any case."""
    out: list[bytes] = []
    size = 0
    for row in rows:
        data = encode_json(_item(row))
        size += len(data)
        if out and size > ANSWER_BYTES_MAX:
            break
        out.append(data)
    return out

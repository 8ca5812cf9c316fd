"""What people and agents ask: values, their past, records by what they are, search, and who is there.

Lists come in keyset pages: `next` is what to pass as `after`, null at the end. A record is shown as everywhere else
(`log.versions.frame`); a value that is a blob is shown as a reference, except where one key was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from itertools import islice
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from holdfast import clock, wire
from holdfast.corpus import Filter, Stored, pages, search
from holdfast.corpus.sql import MESSAGES
from holdfast.errors import NotCached, NotFound, UsageError
from holdfast.hub.api import Call, Endpoint, Operation, Reply, typed
from holdfast.hub.core import Core
from holdfast.hub.feed import shown
from holdfast.hub.principal import READ
from holdfast.hub.shapes import (
    AfterName,
    AfterPos,
    Agent,
    Agents,
    AgentsPage,
    Collection,
    Found,
    Key,
    Keys,
    Kinds,
    Limit,
    NodesPage,
    Number,
    Prefix,
    Records,
    Version,
    When,
    time_ms,
)
from holdfast.log.versions import frame
from holdfast.records import read_blob_reference
from holdfast.wire import BODY_BYTES_MAX

STATE: Final = "state"
"""Where put and get go when nobody names a collection."""
ANSWER_BYTES_MAX: Final = 8 << 20
HISTORY_STEPS_MAX: Final = 20_000
COUNT_MAX: Final = 10_000
WRITERS_MAX: Final = 100_000

At = Annotated[When, Meta(description="as of this time: seconds since 1970, or ISO 8601")]
Since = Annotated[When, Meta(description="not older than this: seconds since 1970, or ISO 8601")]
Until = Annotated[When, Meta(description="older than this: seconds since 1970, or ISO 8601")]
Where = Annotated[Collection, Meta(description="the collection; state unless said")]
Work = Callable[[Core, Call], bytes]


class OneKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key, now or then."""

    agent: Agent
    key: Key
    collection: Where = STATE
    version: Annotated[Number, Meta(description="this version; 0: the newest")] = 0
    at: At | None = None


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """The versions of a key."""

    agent: Agent
    key: Key
    collection: Where = STATE
    limit: Limit = 100
    after: AfterPos = 0


class KeysOf(msgspec.Struct, frozen=True, kw_only=True):
    """Keys that have a value."""

    agent: Agent
    collection: Where = STATE
    prefix: Prefix = ""
    limit: Limit = 100
    after: Annotated[str, Meta(description="keys behind this one")] = ""


class Which(msgspec.Struct, frozen=True, kw_only=True):
    """Records by what they are; what is not given may be anything."""

    agent: Agents = ()
    collection: Collection | None = None
    kind: Kinds = ()
    key: Key | None = None
    to: Annotated[str, Meta(description="messages to this agent")] | None = None
    task: Annotated[str, Meta(description="messages of this task")] | None = None
    thread: Annotated[str, Meta(description="messages of this thread")] | None = None
    since: Since | None = None
    until: Until | None = None
    order: Annotated[
        Literal["newest", "oldest", "desc", "asc"], Meta(description="newest (desc) or oldest (asc) first")
    ] = "newest"
    limit: Limit = 100
    after: AfterPos = 0


class HowMany(msgspec.Struct, frozen=True, kw_only=True):
    """Messages behind a position; what is not given may be anything."""

    to: Annotated[str, Meta(description="messages to this agent")] | None = None
    agent: Agents = ()
    task: Annotated[str, Meta(description="messages of this task")] | None = None
    thread: Annotated[str, Meta(description="messages of this thread")] | None = None
    after: Annotated[Number, Meta(description="a position; what came before it was seen")] = 0
    most: Annotated[int, Meta(ge=1, le=COUNT_MAX, description="where to stop counting")] = 1000


class Count(msgspec.Struct, frozen=True):
    """How many there are; `capped`: at least so many."""

    count: int
    capped: bool


class Words(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked for, and where."""

    q: Annotated[
        str,
        Meta(
            description="words; in double quotes a phrase, with a trailing * a beginning",
            examples=["call"],
        ),
    ]
    agent: Agents = ()
    collection: Collection | None = None
    kind: Kinds = ()
    limit: Limit = 50


class ByName(msgspec.Struct, frozen=True):
    """A page of agents."""

    limit: Limit = 100
    after: AfterName = ""


class Few(msgspec.Struct, frozen=True):
    """How many."""

    limit: Limit = 100


def operations(core: Core) -> Iterator[Operation]:
    """Everything that reads."""

    def read(name: str, endpoint: Any, summary: str, query: type, gives: Any, **more: Any) -> Operation:
        return Operation(
            method="GET",
            path=f"/v1/{name}",
            endpoint=endpoint,
            needs=READ,
            summary=summary,
            tag="reading",
            query=query,
            answer=gives,
            **more,
        )

    yield read(
        *("latest", typed(Latest(core)), "One key's value, now or then", OneKey, Version),
        or_gives=(wire.MEDIA,),
        errors=(404,),
    )
    yield read("history", reads(core, _history), "Every version of a key", Past, Records, errors=(404,))
    yield read("keys", reads(core, _keys), "The keys of a collection", KeysOf, Keys)
    yield read("records", reads(core, _records), "Records by what they are", Which, Records)
    yield read("count", reads(core, _count), "How many messages are new", HowMany, Count)
    yield read("search", reads(core, _search), "Full-text search", Words, Found)
    yield read("agents", reads(core, _agents), "Who writes here", ByName, AgentsPage)
    yield read("nodes", typed(Nodes(core)), "The nodes that were seen", Few, NodesPage)


def reads(core: Core, work: Work) -> Endpoint:
    """The endpoint of a GET whose answer is read from the corpus in a thread.

    Args:
        core: the hub.
        work: gives the JSON for a call.
    """

    @wraps(work)
    async def read(call: Call) -> bytes:
        return await core.read(lambda: work(core, call))

    return typed(read)


class Latest:
    """GET /v1/latest: the newest version of one key, or the one that a number or a time names.

    Asked with the node's media type it answers with a `wire.Proof`; else with the version's JSON.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, call: Call) -> Reply:
        """The answer to one request."""
        core = self._core
        if wire.MEDIA in call.header("accept"):
            proof = await core.read(lambda: _proof(core, call))
            return Reply(wire.encode(proof), kind=wire.MEDIA)
        data, etag = await core.read(lambda: _latest_json(core, call))
        return Reply(data, headers=(("etag", f'"{etag}"'),))


class Nodes:
    """GET /v1/nodes: the nodes that ever said hello, the latest seen first; whoever may not read everything learns of
    those alone that spoke for agents of whom he may read something.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, call: Call) -> dict[str, Any]:
        """The answer to one request."""
        nodes = self._core.nodes_json()
        if readable := call.principal.readable:
            seen = set(await self._core.read(lambda: pages.writers(self._core.corpus, readable, "", WRITERS_MAX)))
            both = [{**node, "agents": [agent for agent in node["agents"] if agent in seen]} for node in nodes]
            nodes = [node for node in both if node["agents"]]
        return {"nodes": nodes[: call.query.limit], "total": len(nodes)}


# -- one key ----------------------------------------------------------------------------------------------------


def _find(core: Core, call: Call) -> Stored:
    asked: OneKey = call.query
    agent, collection, key = asked.agent, asked.collection or STATE, asked.key
    call.principal.check_read(collection)
    version, at = asked.version, time_ms(asked.at)
    if version and at is not None:
        raise UsageError("a version and a time at once", hint="give one of them")
    if not version and at is None:
        found = core.corpus.newest(agent, collection, key)
    else:
        stamp = clock.pack(at, clock.COUNTER_MAX) if at is not None else None
        found = _as_of(core.corpus.versions(agent, collection, key), key, version, stamp)
    if found is None:
        when = f" at version {version}" if version else f" at {clock.iso(at)}" if at is not None else ""
        raise NotFound(f"{agent} has nothing at {collection}/{key}{when}", hint="see /v1/keys and /v1/history")
    return found


def _as_of(versions: Iterator[Stored], key: str, version: int, stamp: int | None) -> Stored | None:
    for each in islice(versions, HISTORY_STEPS_MAX):
        record = each.record
        if stamp is not None and record.hlc <= stamp:
            return None if each.gone else each
        if version and record.key_version == version and record.key == key:
            return None if each.gone else each
    return None


def _latest_json(core: Core, call: Call) -> tuple[bytes, str]:
    stored = _find(core, call)
    if stored.is_blob and stored.body is not None:
        _, size = read_blob_reference(stored.payload())
        blobs = None if size > BODY_BYTES_MAX else core.home.blobs
    else:
        blobs = core.home.blobs
    try:
        return frame(stored, blobs), stored.record.link.hex()
    except NotCached as error:
        raise NotFound(error.message, hint="its node has not sent it yet", **error.context) from error


def _proof(core: Core, call: Call) -> wire.Proof:
    stored = _find(core, call)
    with core.home.snapshot() as chains:
        return chains.proof(stored)


def _history(core: Core, call: Call) -> bytes:
    """Newest first, deletions included."""
    asked: Past = call.query
    agent, collection, key = asked.agent, asked.collection or STATE, asked.key
    call.principal.check_read(collection)
    after, limit = asked.after, asked.limit
    versions = core.corpus.versions(agent, collection, key)
    if after:
        versions = islice(_behind(versions, after), HISTORY_STEPS_MAX)
    found = list(islice(versions, limit + 1))
    if not found and not after:
        raise NotFound(f"{agent} never had anything at {collection}/{key}", hint="see /v1/keys")
    return _page("records", found, limit)


def _behind(versions: Iterator[Stored], pos: int) -> Iterator[Stored]:
    for each in versions:
        if each.pos == pos:
            yield from versions


# -- many -------------------------------------------------------------------------------------------------------


def _page(name: str, found: list[Stored], limit: int) -> bytes:
    """The JSON of a page, cut at `limit` records and at its bytes; `next` is the last one's pos, or null."""
    out: list[bytes] = []
    size = 0
    for each in found[:limit]:
        data = shown(each)
        size += len(data)
        if out and size > ANSWER_BYTES_MAX:
            break
        out.append(data)
    more = len(out) < len(found)
    following = b"%d" % found[len(out) - 1].pos if more and out else b"null"
    return b'{"%b":[%b],"next":%b}' % (name.encode(), b",".join(out), following)


def _keys(core: Core, call: Call) -> bytes:
    """In their order; only those that have a value."""
    asked: KeysOf = call.query
    limit, collection = asked.limit, asked.collection or STATE
    call.principal.check_read(collection)
    found = core.corpus.keys(asked.agent, collection, asked.prefix, asked.after, limit + 1)
    keys = [
        {
            "key": each.record.key,
            "version": each.record.key_version,
            "etag": each.record.link.hex(),
            "time": clock.to_iso(each.record.hlc),
            "kind": each.record.kind,
            "bytes": read_blob_reference(each.payload())[1] if each.is_blob and each.body else each.record.payload_len,
        }
        for each in found[:limit]
    ]
    return msgspec.json.encode({"keys": keys, "next": keys[-1]["key"] if len(found) > limit else None})


def _records(core: Core, call: Call) -> bytes:
    """Each filter narrows; newest first unless said."""
    asked: Which = call.query
    if asked.collection is not None:
        call.principal.check_read(asked.collection)
    since, until = time_ms(asked.since), time_ms(asked.until)
    which = Filter(
        agents=asked.agent,
        collection=asked.collection,
        readable=call.principal.readable,
        kinds=asked.kind,
        key=asked.key,
        to=asked.to,
        task=asked.task,
        thread=asked.thread,
        since=clock.pack(since) if since is not None else 0,
        until=clock.pack(until) if until is not None else 1 << 62,
        after=asked.after or None,
        newest_first=asked.order in ("newest", "desc"),
        limit=asked.limit + 1,
    )
    return _page("records", core.corpus.page(which), asked.limit)


def _count(core: Core, call: Call) -> bytes:
    """Those that nobody deleted; counted up to `most`, so that the answer takes as long on any hub."""
    asked: HowMany = call.query
    call.principal.check_read(MESSAGES)
    which = Filter(
        agents=asked.agent,
        collection=MESSAGES,
        to=asked.to,
        task=asked.task,
        thread=asked.thread,
        current=True,
        after=asked.after,
        newest_first=False,
    )
    found = core.corpus.count(which, asked.most + 1)
    return msgspec.json.encode(Count(min(found, asked.most), found > asked.most))


def _search(core: Core, call: Call) -> bytes:
    """Current values and messages that hold every word, newest first."""
    asked: Words = call.query
    if asked.collection is not None:
        call.principal.check_read(asked.collection)
    hits = search.search(
        core.corpus,
        asked.q,
        agents=asked.agent,
        collection=asked.collection,
        kinds=asked.kind,
        readable=call.principal.readable,
        limit=asked.limit,
    )
    out = b",".join(shown(each) for each in hits.found)
    return b'{"records":[%b],"partial":%b}' % (out, b"true" if hits.partial else b"false")


def _agents(core: Core, call: Call) -> bytes:
    """By name, each with its logs; whoever may not read everything learns the names alone."""
    limit, readable = call.query.limit, call.principal.readable
    if readable:
        seen = pages.writers(core.corpus, readable, call.query.after, limit + 1)
        bare = [{"agent": name, "streams": []} for name in seen[:limit]]
        return msgspec.json.encode({"agents": bare, "next": seen[limit - 1] if len(seen) > limit else None})
    agents: dict[str, list[dict[str, Any]]] = {}
    for name, stream, own, seq, link, lives in pages.streams(core.corpus, call.query.after, limit + 1):
        agents.setdefault(name, []).append(
            {"stream": stream.hex(), "seq": seq, "link": link.hex(), "incarnations": lives, "hub": own}
        )
    names = list(agents)
    listed = [{"agent": name, "streams": agents[name]} for name in names[:limit]]
    return msgspec.json.encode({"agents": listed, "next": names[limit - 1] if len(names) > limit else None})

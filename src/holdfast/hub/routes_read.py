"""What people and agents ask: values, their past, records by what they are, search, who is there; and decisions.

Lists come in keyset pages: `next` is what to pass as `after`, null at the end. A record is shown as everywhere else
(`log.versions.frame`); a value that is a blob is shown as a reference, except where one key was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

import msgspec

from holdfast import clock, wire
from holdfast.corpus import Filter, Stored, pages, search
from holdfast.corpus.sql import TAGS
from holdfast.errors import Conflict, NotCached, NotFound, UsageError
from holdfast.hub.api import Operation
from holdfast.hub.core import Core
from holdfast.hub.exchange import MEDIA, Query, Receive, Scope, Send, answer, answer_json, body_of, header, parse
from holdfast.hub.feed import shown
from holdfast.hub.judge import HUB_AGENT
from holdfast.hub.own import QUICK_BYTES, Desk, check_agent
from holdfast.hub.principal import READ, WRITE
from holdfast.log import drafts
from holdfast.log.versions import frame
from holdfast.records import read_blob_reference
from holdfast.wire import BODY_BYTES_MAX

STATE: Final = "state"
"""Where put and get go when nobody names a collection."""
ANSWER_BYTES_MAX: Final = 8 << 20
HISTORY_STEPS_MAX: Final = 20_000

Work = Callable[[Query], bytes]


def operations(core: Core) -> Iterator[Operation]:
    """Everything that reads, and decide."""

    def read(name: str, endpoint: Any, summary: str) -> Operation:
        return Operation(
            method="GET", path=f"/v1/{name}", endpoint=endpoint, needs=READ, summary=summary, tag="reading"
        )

    yield read("latest", Latest(core), "One key's value, now or then")
    yield read("history", Read(core, _history), "Every version of a key")
    yield read("keys", Read(core, _keys), "The keys of a collection")
    yield read("records", Read(core, _records), "Records by what they are")
    yield read("search", Read(core, _search), "Full-text search")
    yield read("agents", Read(core, _agents), "Who writes here")
    yield read("nodes", Nodes(core), "The nodes that were seen")
    decide = Decide(core)
    yield Operation(
        method="POST", path="/v1/decide", endpoint=decide, needs=WRITE, summary="Compare and set", tag="deciding"
    )


class Read:
    """A GET whose answer is read from the corpus in a thread.

    Args:
        core: the hub.
        work: gives the JSON for a query.
    """

    def __init__(self, core: Core, work: Callable[[Core, Query], bytes]) -> None:
        self._core = core
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        query = Query(scope)
        await answer(send, await self._core.read(lambda: self._work(self._core, query)))


class Latest:
    """GET /v1/latest: the newest version of one key, or the one that a number or a time names.

    Asked with the node's media type it answers with a `wire.Proof`; else with the version's JSON.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        query, core = Query(scope), self._core
        if MEDIA in header(scope, b"accept"):
            proof = await core.read(lambda: _proof(core, query))
            await answer(send, wire.encode(proof), kind=MEDIA)
            return
        data, etag = await core.read(lambda: _latest_json(core, query))
        await answer(send, data, extra=((b"etag", b'"%b"' % etag.encode()),))


class Nodes:
    """GET /v1/nodes: the nodes that ever said hello, the latest seen first."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        limit = Query(scope).limit()
        nodes = self._core.nodes_json()
        await answer_json(send, {"nodes": nodes[:limit], "total": len(nodes)})


class Decide:
    """POST /v1/decide: puts or deletes a key of a `cas` collection if its version is the expected one.

    The hub decides in one stream of its own, so of two requests that expect the same version one wins and the other
    gets 409 with the current version. A request is known by its `id`: sent again, it gets its first answer.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        data = await body_of(scope, receive)
        asked = parse(scope, data)
        if not isinstance(asked, dict):
            raise UsageError(
                "a decision is asked for with an object", hint="{agent, collection, key, value, expect, id}"
            )
        known = {"agent", "collection", "key", "value", "delete", "reason", "expect", "id"}
        if unknown := sorted(set(asked) - known):
            raise UsageError(
                f"unknown fields: {', '.join(unknown)[:200]}", hint=f"known are {', '.join(sorted(known))}"
            )
        stored = await self._decide(asked, len(data))
        found = await self._core.read(lambda: frame(stored, self._core.home.blobs))
        await answer(send, found)

    async def _decide(self, asked: dict[str, Any], size: int) -> Stored:
        agent = check_agent(asked.get("agent"), hub=False)
        collection, key = (_text(asked, name) for name in ("collection", "key"))
        if (
            bool(asked.get("delete"))
            if asked.get("value") is not None
            else "value" not in asked and not asked.get("delete")
        ):
            raise UsageError("neither a value nor delete: true, or both", hint="give one of them")
        expect, request = asked.get("expect"), asked.get("id")
        if isinstance(expect, bool) or not isinstance(expect, int | str | None):
            raise UsageError(f"expect must be a version or an etag, got {expect!r:.80}", hint="0: no value yet")
        if request is not None and (not isinstance(request, str) or not 0 < len(request) <= 200):
            raise UsageError("id must be text of 1 to 200 letters", hint="one that no other request has")
        if asked.get("delete"):
            reason = str(asked.get("reason") or "")
            draft = drafts.remove(collection, key, reason=reason, expect=expect, author=agent)
        else:
            draft = drafts.value(collection, key, asked["value"], expect=expect, author=agent)
        tag = f"decide:{request}" if request else ""
        if tag:
            draft = msgspec.structs.replace(draft, tags=((TAGS["msg_id"], tag),))
        log = await self._core.own.log_of(HUB_AGENT)
        quick = len(draft.payload) <= QUICK_BYTES
        ready = (
            self._core.own.ready(log, draft)
            if quick
            else await self._core.read(lambda: self._core.own.ready(log, draft))
        )

        def work(desk: Desk) -> Stored | Conflict:
            before = desk.request(tag) if tag else None
            if before is not None:
                same = (before.record.collection, before.record.key, before.record.author) == (collection, key, agent)
                return (
                    before
                    if same
                    else Conflict(f"the id {request!r} was used for another decision", hint="make a new one")
                )
            try:
                return desk.append(ready)
            except Conflict as error:
                return error

        found = await self._core.own.write(HUB_AGENT, work, size=size, quick=quick)
        if isinstance(found, Conflict):
            raise found
        return found  # type: ignore[no-any-return]


def _text(asked: dict[str, Any], name: str) -> str:
    given = asked.get(name)
    if not isinstance(given, str):
        raise UsageError(f"{name} must be text, got {type(given).__name__}", hint="see docs/http.md")
    return given


# -- one key ----------------------------------------------------------------------------------------------------


def _where(query: Query) -> tuple[str, str, str]:
    return query.need("agent"), query.text("collection") or STATE, query.need("key")


def _find(core: Core, query: Query) -> Stored:
    agent, collection, key = _where(query)
    version = query.number("version", 0, least=0)
    at = query.time_ms("at")
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


def _latest_json(core: Core, query: Query) -> tuple[bytes, str]:
    stored = _find(core, query)
    if stored.is_blob and stored.body is not None:
        _, size = read_blob_reference(stored.payload())
        blobs = None if size > BODY_BYTES_MAX else core.home.blobs
    else:
        blobs = core.home.blobs
    try:
        return frame(stored, blobs), stored.record.link.hex()
    except NotCached as error:
        raise NotFound(error.message, hint="its node has not sent it yet", **error.context) from error


def _proof(core: Core, query: Query) -> wire.Proof:
    stored = _find(core, query)
    with core.home.snapshot() as chains:
        return chains.proof(stored)


def _history(core: Core, query: Query) -> bytes:
    agent, collection, key = _where(query)
    after, limit = query.number("after", 0), query.limit()
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


def _keys(core: Core, query: Query) -> bytes:
    agent, collection = query.need("agent"), query.text("collection") or STATE
    limit = query.limit()
    found = core.corpus.keys(agent, collection, query.text("prefix") or "", query.text("after") or "", limit + 1)
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


def _records(core: Core, query: Query) -> bytes:
    since, until = query.time_ms("since"), query.time_ms("until")
    limit = query.limit()
    which = Filter(
        agents=query.many("agent"),
        collection=query.text("collection"),
        kinds=query.many("kind"),
        key=query.text("key"),
        to=query.text("to"),
        task=query.text("task"),
        thread=query.text("thread"),
        since=clock.pack(since) if since is not None else 0,
        until=clock.pack(until) if until is not None else 1 << 62,
        after=query.number("after", 0) or None,
        newest_first=query.one_of("order", "newest", "oldest", "desc", "asc") in ("newest", "desc"),
        limit=limit + 1,
    )
    return _page("records", core.corpus.page(which), limit)


def _search(core: Core, query: Query) -> bytes:
    limit = query.limit(50)
    hits = search.search(
        core.corpus,
        query.need("q"),
        agents=query.many("agent"),
        collection=query.text("collection"),
        kinds=query.many("kind"),
        limit=limit,
    )
    out = b",".join(shown(each) for each in hits.found)
    return b'{"records":[%b],"partial":%b}' % (out, b"true" if hits.partial else b"false")


def _agents(core: Core, query: Query) -> bytes:
    limit = query.limit()
    agents: dict[str, list[dict[str, Any]]] = {}
    for name, stream, own, seq, link, lives in pages.streams(core.corpus, query.text("after") or "", limit + 1):
        agents.setdefault(name, []).append(
            {"stream": stream.hex(), "seq": seq, "link": link.hex(), "incarnations": lives, "hub": own}
        )
    names = list(agents)
    listed = [{"agent": name, "streams": agents[name]} for name in names[:limit]]
    return msgspec.json.encode({"agents": listed, "next": names[limit - 1] if len(names) > limit else None})

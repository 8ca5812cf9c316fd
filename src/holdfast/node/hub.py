"""A hub as a reader sees it: everybody's records, without a log of one's own. Single reads are proven, lists are shown.

hub = Hub("http://hub:8084")
hub.get("plan", agent="recruiter-1")
for change in hub.changes("now"): ...
"""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, Self, TypeVar

import msgspec

from holdfast import clock, codec, seal, wire
from holdfast.collections import Message, message_of
from holdfast.corpus import Filter
from holdfast.errors import HoldfastError, HubError, HubUnavailable, IntegrityError, NotCached, NotFound, UsageError
from holdfast.log import load
from holdfast.log.drafts import MESSAGES
from holdfast.log.versions import Version, shown
from holdfast.node.batch import STATE
from holdfast.node.cache import Cache, Pins, trust
from holdfast.node.collecting import HubCollecting
from holdfast.node.hub_searching import HubSearching
from holdfast.node.hubs import Hubs
from holdfast.node.looking import When
from holdfast.node.proof import Proven, prove
from holdfast.node.proven import HubBlobs, as_stored
from holdfast.node.store import LIST_MAX, MISSING
from holdfast.transport.blobs import fetch
from holdfast.transport.client import Credential, HubClient, Token

if TYPE_CHECKING:
    from holdfast.node.changes import Changes, Wanted
    from holdfast.node.files import Files
    from holdfast.node.hub_filling import Asking
    from holdfast.node.sessions import Artifacts, HubCache, Metrics, Sessions
    from holdfast.node.tables import SqlRows, Tables

WAIT_SLACK_S: Final = 10.0
AGENTS_MAX: Final = 100_000
NO_STREAM: Final = 1 << 62
"""Behind all streams of a hub: only it itself is asked about."""

T = TypeVar("T")
P = ParamSpec("P")


def _of_each(method: Callable[Concatenate[Hub, P], T]) -> Callable[Concatenate[Hub, P], T]:
    """Of a `Hub` with several addresses: the method of the first that answers."""

    @functools.wraps(method)
    def call(self: Hub, /, *args: P.args, **options: P.kwargs) -> T:
        return self.ask(lambda hub: method(hub, *args, **options))

    return call


class Hub(HubCollecting, HubSearching):
    """Reads, searches and follows what every node ships to a hub. Safe to share among threads.

    With several addresses the first hub that answers is asked; one that did not is passed over for a while. Decisions
    are the first one's alone.

    Args:
        url: such as ``http://hub:8084``, or several.
        token: what the hub knows this reader by, or the file that holds it.
        pins: where the keys of agents are remembered; in memory unless handed in.
    """

    def __init__(
        self,
        url: str | Iterable[str],
        token: Token | Credential = None,
        *,
        pins: Cache | Pins | None = None,
    ) -> None:
        urls = [url] if isinstance(url, str) else list(dict.fromkeys(url))
        if not urls:
            raise UsageError("no hub's address was given", hint="such as http://hub:8084")
        credential = token if isinstance(token, Credential) else Credential(token)
        self.client = HubClient(urls[0], credential)
        self.url = self.client.url
        self._pins = pins or Pins()
        self._several: Hubs | None = None
        self._asking: Asking | None = None
        if len(urls) > 1:
            self._several = Hubs([Hub(one, credential, pins=self._pins) for one in urls])

    @property
    def each(self) -> tuple[Hub, ...]:
        """This hub, or each of several, in their order."""
        return self._several.each if self._several is not None else (self,)

    def ask(self, question: Callable[[Hub], T]) -> T:
        """The first of several hubs' answer to a question, which is put to one hub at a time.

        Raises:
            HubUnavailable: none of them answers.
        """
        return self._several.ask(question) if self._several is not None else question(self)

    # -- the storage service --------------------------------------------------------------------------------------

    @property
    def sessions(self) -> Sessions:
        """Sessions with their messages and states, in the hub's log of their agents."""
        from holdfast.node.sessions import Sessions

        return Sessions(self)

    @property
    def artifacts(self) -> Artifacts:
        """What sessions made, and the bytes of it."""
        from holdfast.node.sessions import Artifacts

        return Artifacts(self)

    @property
    def metrics(self) -> Metrics:
        """Figures about agents, tools and whatever else runs."""
        from holdfast.node.sessions import Metrics

        return Metrics(self)

    @property
    def cache(self) -> HubCache:
        """Values that may be lost, and that expire."""
        from holdfast.node.sessions import HubCache

        return HubCache(self)

    @property
    def files(self) -> Files:
        """Bytes with a name, of an agent."""
        from holdfast.node.files import Files

        return Files(self)

    @property
    def tables(self) -> Tables:
        """Rows for those who think in tables."""
        from holdfast.node.tables import Tables

        return Tables(self)

    # -- single reads, proven -----------------------------------------------------------------------------------

    @_of_each
    def get(
        self,
        key: str,
        *,
        agent: str,
        at: When | None = None,
        default: Any = MISSING,
        collection: str = STATE,
    ) -> Any:
        """An agent's value of a key, proven to be what the agent wrote; see `Store.get`.

        Raises:
            NotFound: there is no value, and no default.
            IntegrityError: what the hub sent is not what the agent wrote, or not under its key.
            HubUnavailable: the hub does not answer.
        """
        try:
            return self.value_of(self.prove(agent, collection, key, at))
        except NotCached:
            raise
        except NotFound:
            if default is MISSING:
                raise
            return default

    @_of_each
    def prove(self, agent: str, collection: str, key: str, at: When | None = None) -> Proven:
        """The record behind a value, proven to be the agent's.

        Raises:
            NotFound: the hub has no value for it.
            IntegrityError: the proof does not hold.
        """
        query: dict[str, Any] = {"agent": agent, "collection": collection, "key": key}
        version = at if isinstance(at, int) and not isinstance(at, bool) else None
        if version is not None:
            query["version"] = version
        elif at is not None:
            query["at"] = clock.iso(clock.parse_time(at))
        answer = self.client.want("GET", "/v1/latest", query=query, headers={"Accept": wire.MEDIA})
        found = prove(answer.decode(wire.Proof), agent, seal.verify)
        record = found.record
        late = at is not None and version is None and clock.millis(record.hlc) > clock.parse_time(at)
        if (record.collection, record.key) != (collection, key) or late or version not in (None, record.key_version):
            raise IntegrityError(
                f"the hub sent another record than {agent}'s {collection}/{key}", hint="ask another hub", seq=record.seq
            )
        try:
            trust(self._pins, found)
        except IntegrityError:
            self._learn_hubs()  # perhaps both keys are hubs'
            trust(self._pins, found)
        return found

    def _learn_hubs(self) -> None:
        """Has the hub name the keys of hubs, which sign what they write for plain clients; each says so itself."""
        query = {"nonce": os.urandom(16).hex(), "after": NO_STREAM}
        try:
            answer = self.client.want("GET", "/v1/heads", query=query, headers={"Accept": wire.MEDIA})
            told = answer.decode(wire.Heads)
        except HubUnavailable:
            raise
        except HoldfastError:
            return  # it does not know the question, or does not answer it to us: then nothing is learnt
        for key, signature in told.keys:
            if seal.verify(key, wire.certificate(key), signature):
                self._pins.pin_hub(key)

    def value_of(self, found: Proven) -> Any:
        """The value in a proven record; a blob is fetched and proven too.

        Raises:
            IntegrityError: it was erased, or is not what was recorded.
        """
        return load(as_stored(found), HubBlobs(self.client, found))

    # -- lists --------------------------------------------------------------------------------------------------

    @_of_each
    def history(self, key: str, *, agent: str, collection: str = STATE, limit: int = LIST_MAX) -> list[Version]:
        """Every version of an agent's key, newest first."""
        query = {"agent": agent, "collection": collection, "key": key}
        return [self.version_of(each) for each in self._pages("/v1/history", "records", query, limit)]

    @_of_each
    def keys(
        self, prefix: str = "", *, agent: str, collection: str = STATE, after: str = "", limit: int = LIST_MAX
    ) -> list[str]:
        """The keys of an agent that begin with `prefix` and have a value, in order, behind `after`."""
        query = {"agent": agent, "collection": collection, "prefix": prefix, "after": after or None}
        return [each["key"] for each in self._pages("/v1/keys", "keys", query, limit)]

    def records(self, which: Filter) -> list[Version]:
        """A page of records, newest first or in commit order; `which.after` is the `pos` of the last one seen.

        Raises:
            HubUnavailable: no hub answers; with `after`, also when the hub whose position that is does not.
        """
        if self._several is not None:
            ask = self._several.ask if which.after is None else self._several.stay
            return ask(lambda hub: hub.records(which))
        query = {
            "agent": which.agents,
            "collection": which.collection,
            "kind": which.kinds,
            "key": which.key,
            "to": which.to,
            "task": which.task,
            "thread": which.thread,
            "since": clock.to_iso(which.since) if which.since else None,
            "until": clock.to_iso(which.until) if which.until < 1 << 62 else None,
            "order": "desc" if which.newest_first else "asc",
            "after": which.after,
        }
        return [self.version_of(each) for each in self._pages("/v1/records", "records", query, which.limit)]

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
        """The newest `limit` messages that match, oldest of them first; see `Store.messages`."""
        which = Filter(
            agents=(agent,) if agent else (),
            collection=MESSAGES,
            kinds=(kind,) if kind else (),
            to=to,
            task=task,
            thread=thread,
            since=0 if since is None else clock.pack(clock.parse_time(since)),
            limit=limit,
        )
        return self.messages_of(which)

    @_of_each
    def messages_of(self, which: Filter) -> list[Message]:
        """The newest messages that a filter names, oldest of them first; what was deleted since is left out."""
        most, found = which.limit, list[Version]()
        while len(found) < most:
            page = self.records(which)
            found += [each for each in page if not each.gone]
            if len(page) < which.limit:
                break
            which = msgspec.structs.replace(which, after=page[-1].pos)
        return [message_of(each) for each in found[:most]][::-1]

    def count(
        self,
        *,
        to: str | None = None,
        agent: str | None = None,
        task: str | None = None,
        thread: str | None = None,
        after: int = 0,
        most: int = 1000,
    ) -> int:
        """How many messages match, such as the unread: those behind the position `after`, counted up to `most`.

        Args:
            to, agent, task, thread: to whom, by whom, and of what they are; None: any.
            after, most: the `pos` of the last one seen, and where to stop counting.

        Raises:
            HubUnavailable: no hub answers; with `after`, also when the hub whose position that is does not.
        """
        query = {"to": to, "agent": agent, "task": task, "thread": thread, "after": after, "most": most}
        ask = self._several.stay if self._several is not None and after else self.ask
        return ask(lambda hub: int(hub.client.want("GET", "/v1/count", query=query).json()["count"]))

    def sql(
        self,
        statement: str,
        params: Sequence[Any] | Mapping[str, Any] = (),
        *,
        limit: int = 1000,
        timeout: float | None = None,
    ) -> SqlRows:
        """What one SELECT over the views of docs/sql.md finds.

        Args:
            statement, params: SQL, and values for its ``?``, or by name for its ``:name``.
            limit, timeout: rows, and seconds (if not the hub's one), at most.

        Raises:
            UsageError: it was refused or stopped; ``context["reason"]`` says why.
            Denied: the token may not use SQL.
            HubUnavailable: no hub answers, or too many statements wait.
        """
        from holdfast.node.tables import ask_sql

        return ask_sql(self, statement, params, limit, timeout)

    @_of_each
    def agents(self) -> list[dict[str, Any]]:
        """Every agent that the hub holds records of, as JSON values."""
        return self._pages("/v1/agents", "agents", {}, AGENTS_MAX)

    @_of_each
    def nodes(self) -> list[dict[str, Any]]:
        """Every node that was in contact with the hub, as JSON values."""
        found: list[dict[str, Any]] = self.client.want("GET", "/v1/nodes").json()["nodes"]
        return found

    @_of_each
    def health(self) -> dict[str, Any]:
        """What the hub says of itself, as JSON values."""
        found: dict[str, Any] = self.client.want("GET", "/health").json()
        return found

    # -- the feed -----------------------------------------------------------------------------------------------

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
        """What was committed behind a cursor, in the hub's order; see `Store.changes`."""
        from holdfast.node.changes import Changes, Wanted

        return Changes.of_hub(
            self, Wanted(agent=agent, collection=collection, kind=kind, prefix=prefix), since, live=live
        )

    @_of_each
    def cursor(self) -> str:
        """Where the feed stands now."""
        return str(self.client.want("GET", "/v1/feed", query={"after": "now", "limit": 1}).json()["cursor"])

    @_of_each
    def feed(self, after: str, wanted: Wanted, *, wait: int = 0, limit: int = wire.RECORDS_MAX) -> dict[str, Any]:
        """One page of the feed as the hub sends it; waits up to `wait` seconds for a first record."""
        query = {**wanted.query(), "after": after, "wait": wait or None, "limit": limit}
        found = self.client.want("GET", "/v1/feed", query=query, timeout=wait + WAIT_SLACK_S).json()
        if not isinstance(found, dict) or "cursor" not in found:
            raise HubError("the hub's feed is not one", hint="is it another version?")
        return found

    def events(self, after: str, wanted: Wanted) -> tuple[HTTPResponse, socket.socket]:
        """The live feed of this one hub, open; see `holdfast.node.changes`."""
        query = {**wanted.query(), "after": after}
        return self.client.stream("/v1/feed", query, {"Accept": "text/event-stream"})

    # -- writing without a log ------------------------------------------------------------------------------------

    def post(
        self,
        body: Any,
        *,
        agent: str,
        to: str | None = None,
        kind: str = "message",
        msg_id: str = "",
        **fields: Any,
    ) -> str:
        """Posts a message through the hub, in its log; returns its id once the hub would not lose it.

        Args:
            body: text or JSON values.
            agent: who says it.
            to, kind, msg_id: see `Store.post`; the same `msg_id` again changes nothing.
            fields: priority, task, thread, role, dedupe, expires_at, in_reply_to, options.

        Raises:
            HubUnavailable: the hub does not answer; with a `msg_id` of your own it is safe to try again.
        """
        from holdfast.node.without_log import posted

        return posted(self, {"sender": agent, "recipient": to, "kind": kind, "msg_id": msg_id, "content": body}, fields)

    def decide(self, asked: Mapping[str, Any]) -> Version:
        """The hub's decision about one write in a cas collection, once the hub would not lose it.

        Of several hubs the first decides, and if it is away nobody does: two deciders could both say yes. To have
        another one decide from now on, put it first.

        Args:
            asked: agent, collection, key, value or delete, expect.

        Raises:
            Conflict: `expect` was not current.
            HubUnavailable: no answer; nothing was written, unless the answer alone was lost.
        """
        from holdfast.node.without_log import decided

        return self.version_of(decided(self, asked))

    # -- ending -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends what fills indexes from here, and closes the lines to the hub; a second close is fine."""
        if self._asking is not None:
            self._asking.close()
        self.client.close()
        for hub in self._several.each if self._several is not None else ():
            hub.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- inside -------------------------------------------------------------------------------------------------

    def version_of(self, data: dict[str, Any] | bytes) -> Version:
        """The version in a list or the feed; a blob is fetched.

        Raises:
            HubError: it is none.
        """
        try:
            found = shown(data)
        except UsageError as error:
            raise HubError(f"the hub's answer is not as agreed: {error.message}") from error
        if found.missing == "blob" and found.digest:
            content = fetch(self.client, bytes.fromhex(found.digest), found.size)
            return found.to_version(codec.deserialise(found.fmt, content))
        return found.to_version()

    def _pages(self, path: str, name: str, query: Mapping[str, Any], limit: int) -> list[dict[str, Any]]:
        """Rows of a list, page by page until there are `limit` of them or no more."""
        rows: list[dict[str, Any]] = []
        asked = dict(query)
        while len(rows) < limit:
            asked["limit"] = min(limit - len(rows), wire.PAGE_MAX)
            found = self.client.want("GET", path, query=asked).json()
            rows += found[name]
            if found.get("next") is None:
                break
            asked["after"] = found["next"]
        return rows

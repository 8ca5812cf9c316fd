"""`Hub`, awaited: the same names and parameters, each call in a thread, so that nothing blocks the loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from holdfast.collections import Message
from holdfast.collections.files import FileInfo, Stood
from holdfast.collections.metrics import Metric, MetricSums
from holdfast.collections.sessions import Artifact, Session, State
from holdfast.collections.sessions import Message as SessionMessage
from holdfast.collections.tables import RowDone
from holdfast.corpus import Filter
from holdfast.log.versions import Version
from holdfast.node.aio import AsyncChanges
from holdfast.node.aio_searching import AsyncSearching
from holdfast.node.batch import STATE
from holdfast.node.cache import Cache, Pins
from holdfast.node.collecting import AsyncHubCollecting
from holdfast.node.files import Files, Source
from holdfast.node.hub import Hub
from holdfast.node.looking import When
from holdfast.node.sessions import Artifacts, HubCache, Metrics, Sessions
from holdfast.node.store import LIST_MAX, MISSING
from holdfast.node.tables import SqlRows, Tables, Verdict
from holdfast.transport.client import Credential, Token


class AsyncHub(AsyncHubCollecting, AsyncSearching):
    """A hub as a reader sees it, for asyncio; see `Hub`, whose arguments it takes."""

    def __init__(
        self,
        url: str | Iterable[str],
        token: Token | Credential = None,
        *,
        pins: Cache | Pins | None = None,
    ) -> None:
        self._hub = Hub(url, token, pins=pins)
        self._searched = self._hub
        self.url = self._hub.url

    @property
    def sessions(self) -> AsyncSessions:
        """Sessions with their messages and states, in the hub's log of their agents."""
        return AsyncSessions(self._hub.sessions)

    @property
    def artifacts(self) -> AsyncArtifacts:
        """What sessions made, and the bytes of it."""
        return AsyncArtifacts(self._hub.artifacts)

    @property
    def metrics(self) -> AsyncMetrics:
        """Figures about agents, tools and whatever else runs."""
        return AsyncMetrics(self._hub.metrics)

    @property
    def cache(self) -> AsyncHubCache:
        """Values that may be lost, and that expire."""
        return AsyncHubCache(self._hub.cache)

    @property
    def files(self) -> AsyncFiles:
        """Bytes with a name, of an agent."""
        return AsyncFiles(self._hub.files)

    @property
    def tables(self) -> AsyncTables:
        """Rows for those who think in tables."""
        return AsyncTables(self._hub.tables)

    def changes(
        self,
        since: str | None = None,
        *,
        live: bool = True,
        agent: str | None = None,
        collection: str | None = None,
        kind: str | None = None,
        prefix: str = "",
    ) -> AsyncChanges:
        """What was committed behind a cursor; see `Hub.changes`. Nothing is asked before the first step."""
        hub = self._hub
        return AsyncChanges(
            lambda: hub.changes(since, live=live, agent=agent, collection=collection, kind=kind, prefix=prefix), since
        )

    async def get(
        self, key: str, *, agent: str, at: When | None = None, default: Any = MISSING, collection: str = STATE
    ) -> Any:
        """See `Hub.get`."""
        return await asyncio.to_thread(self._hub.get, key, agent=agent, at=at, default=default, collection=collection)

    async def history(self, key: str, *, agent: str, collection: str = STATE, limit: int = LIST_MAX) -> list[Version]:
        """See `Hub.history`."""
        return await asyncio.to_thread(self._hub.history, key, agent=agent, collection=collection, limit=limit)

    async def keys(
        self, prefix: str = "", *, agent: str, collection: str = STATE, after: str = "", limit: int = LIST_MAX
    ) -> list[str]:
        """See `Hub.keys`."""
        return await asyncio.to_thread(
            self._hub.keys, prefix, agent=agent, collection=collection, after=after, limit=limit
        )

    async def records(self, which: Filter) -> list[Version]:
        """See `Hub.records`."""
        return await asyncio.to_thread(self._hub.records, which)

    async def messages(
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
        """See `Hub.messages`."""
        return await asyncio.to_thread(
            self._hub.messages, to=to, task=task, thread=thread, kind=kind, agent=agent, since=since, limit=limit
        )

    async def count(
        self,
        *,
        to: str | None = None,
        agent: str | None = None,
        task: str | None = None,
        thread: str | None = None,
        after: int = 0,
        most: int = 1000,
    ) -> int:
        """See `Hub.count`."""
        return await asyncio.to_thread(
            self._hub.count, to=to, agent=agent, task=task, thread=thread, after=after, most=most
        )

    async def sql(
        self,
        statement: str,
        params: Sequence[Any] | Mapping[str, Any] = (),
        *,
        limit: int = 1000,
        timeout: float | None = None,  # noqa: ASYNC109 - the hub's, as in Hub.sql
    ) -> SqlRows:
        """See `Hub.sql`."""
        return await asyncio.to_thread(self._hub.sql, statement, params, limit=limit, timeout=timeout)

    async def agents(self) -> list[dict[str, Any]]:
        """See `Hub.agents`."""
        return await asyncio.to_thread(self._hub.agents)

    async def nodes(self) -> list[dict[str, Any]]:
        """See `Hub.nodes`."""
        return await asyncio.to_thread(self._hub.nodes)

    async def health(self) -> dict[str, Any]:
        """See `Hub.health`."""
        return await asyncio.to_thread(self._hub.health)

    async def cursor(self) -> str:
        """See `Hub.cursor`."""
        return await asyncio.to_thread(self._hub.cursor)

    async def post(
        self, body: Any, *, agent: str, to: str | None = None, kind: str = "message", msg_id: str = "", **fields: Any
    ) -> str:
        """See `Hub.post`."""
        return await asyncio.to_thread(self._hub.post, body, agent=agent, to=to, kind=kind, msg_id=msg_id, **fields)

    async def decide(self, asked: Mapping[str, Any]) -> Version:
        """See `Hub.decide`."""
        return await asyncio.to_thread(self._hub.decide, asked)

    async def close(self) -> None:
        """See `Hub.close`."""
        return await asyncio.to_thread(self._hub.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class AsyncSessions:
    """`Sessions`, awaited."""

    def __init__(self, plain: Sessions) -> None:
        self._plain = plain

    async def create(
        self,
        agent: str,
        *,
        user_id: str | None = None,
        status: str = "active",
        metadata: dict[str, Any] | None = None,
        id: str = "",
    ) -> Session:
        """See `Sessions.create`."""
        return await asyncio.to_thread(
            self._plain.create, agent, user_id=user_id, status=status, metadata=metadata, id=id
        )

    async def get(self, session: str, *, deleted: bool = False) -> Session:
        """See `Sessions.get`."""
        return await asyncio.to_thread(self._plain.get, session, deleted=deleted)

    async def find(
        self,
        *,
        agent: str | None = None,
        user_id: str | None = None,
        status: str | None = None,
        deleted: bool = False,
        limit: int = 100,
    ) -> list[Session]:
        """See `Sessions.find`."""
        return await asyncio.to_thread(
            self._plain.find, agent=agent, user_id=user_id, status=status, deleted=deleted, limit=limit
        )

    async def update(self, session: str, *, expect: int | str | None = None, **fields: Any) -> Session:
        """See `Sessions.update`."""
        return await asyncio.to_thread(self._plain.update, session, expect=expect, **fields)

    async def delete(self, session: str, *, expect: int | str | None = None) -> None:
        """See `Sessions.delete`."""
        return await asyncio.to_thread(self._plain.delete, session, expect=expect)

    async def restore(self, session: str, *, part: str = "session") -> int:
        """See `Sessions.restore`."""
        return await asyncio.to_thread(self._plain.restore, session, part=part)

    async def fork(
        self, session: str, *, at: str | None = None, into: str = "", metadata: dict[str, Any] | None = None
    ) -> Session:
        """See `Sessions.fork`."""
        return await asyncio.to_thread(self._plain.fork, session, at=at, into=into, metadata=metadata)

    async def export(self, session: str, path: str | os.PathLike[str]) -> int:
        """See `Sessions.export`."""
        return await asyncio.to_thread(self._plain.export, session, path)

    async def add(
        self,
        session: str,
        role: str,
        content: Any,
        *,
        metadata: dict[str, Any] | None = None,
        timestamp: When | None = None,
        id: str = "",
    ) -> SessionMessage:
        """See `Sessions.add`."""
        return await asyncio.to_thread(
            self._plain.add, session, role, content, metadata=metadata, timestamp=timestamp, id=id
        )

    async def messages(
        self, session: str, *, role: str | None = None, newest_first: bool = False, limit: int = 10_000
    ) -> list[SessionMessage]:
        """See `Sessions.messages`."""
        return await asyncio.to_thread(self._plain.messages, session, role=role, newest_first=newest_first, limit=limit)

    async def search(self, session: str, q: str, *, limit: int = 50) -> list[SessionMessage]:
        """See `Sessions.search`."""
        return await asyncio.to_thread(self._plain.search, session, q, limit=limit)

    async def clear(self, session: str) -> int:
        """See `Sessions.clear`."""
        return await asyncio.to_thread(self._plain.clear, session)

    async def state(self, session: str) -> State:
        """See `Sessions.state`."""
        return await asyncio.to_thread(self._plain.state, session)

    async def set_state(self, session: str, data: Any, *, expect: int | str | None = None) -> State:
        """See `Sessions.set_state`."""
        return await asyncio.to_thread(self._plain.set_state, session, data, expect=expect)

    async def drop_state(self, session: str, *, expect: int | str | None = None) -> None:
        """See `Sessions.drop_state`."""
        return await asyncio.to_thread(self._plain.drop_state, session, expect=expect)


class AsyncArtifacts:
    """`Artifacts`, awaited."""

    def __init__(self, plain: Artifacts) -> None:
        self._plain = plain

    async def create(self, session: str, name: str, type: str, *, id: str = "", **fields: Any) -> Artifact:
        """See `Artifacts.create`."""
        return await asyncio.to_thread(self._plain.create, session, name, type, id=id, **fields)

    async def get(self, artifact: str) -> Artifact:
        """See `Artifacts.get`."""
        return await asyncio.to_thread(self._plain.get, artifact)

    async def find(self, session: str, *, type: str | None = None, limit: int = 10_000) -> list[Artifact]:
        """See `Artifacts.find`."""
        return await asyncio.to_thread(self._plain.find, session, type=type, limit=limit)

    async def delete(self, artifact: str) -> None:
        """See `Artifacts.delete`."""
        return await asyncio.to_thread(self._plain.delete, artifact)

    async def upload(self, artifact: str, source: bytes | str | os.PathLike[str]) -> Artifact:
        """See `Artifacts.upload`."""
        return await asyncio.to_thread(self._plain.upload, artifact, source)

    async def download(self, artifact: str, path: str | os.PathLike[str]) -> int:
        """See `Artifacts.download`."""
        return await asyncio.to_thread(self._plain.download, artifact, path)

    async def read(self, artifact: str) -> bytes:
        """See `Artifacts.read`."""
        return await asyncio.to_thread(self._plain.read, artifact)


class AsyncMetrics:
    """`Metrics`, awaited."""

    def __init__(self, plain: Metrics) -> None:
        self._plain = plain

    async def record(self, entity_type: str, entity_name: str, metric_name: str, value: float, **fields: Any) -> Metric:
        """See `Metrics.record`."""
        return await asyncio.to_thread(self._plain.record, entity_type, entity_name, metric_name, value, **fields)

    async def batch(self, metrics: Sequence[dict[str, Any]]) -> list[str]:
        """See `Metrics.batch`."""
        return await asyncio.to_thread(self._plain.batch, metrics)

    async def find(self, *, labels: dict[str, Any] | None = None, limit: int = 1000, **filters: Any) -> list[Metric]:
        """See `Metrics.find`."""
        return await asyncio.to_thread(self._plain.find, labels=labels, limit=limit, **filters)

    async def aggregate(
        self,
        *,
        by: Sequence[str] = (),
        bucket: int | None = None,
        percentiles: Sequence[float] = (),
        labels: dict[str, Any] | None = None,
        **filters: Any,
    ) -> list[MetricSums]:
        """See `Metrics.aggregate`."""
        return await asyncio.to_thread(
            self._plain.aggregate, by=by, bucket=bucket, percentiles=percentiles, labels=labels, **filters
        )


class AsyncHubCache:
    """`HubCache`, awaited."""

    def __init__(self, plain: HubCache) -> None:
        self._plain = plain

    async def get(self, key: str, *, default: Any = MISSING) -> Any:
        """See `HubCache.get`."""
        return await asyncio.to_thread(self._plain.get, key, default=default)

    async def set(self, key: str, value: Any, *, ttl: int | None = None) -> None:
        """See `HubCache.set`."""
        return await asyncio.to_thread(self._plain.set, key, value, ttl=ttl)

    async def delete(self, key: str) -> bool:
        """See `HubCache.delete`."""
        return await asyncio.to_thread(self._plain.delete, key)

    async def cleanup(self) -> int:
        """See `HubCache.cleanup`."""
        return await asyncio.to_thread(self._plain.cleanup)


class AsyncFiles:
    """`Files`, awaited."""

    def __init__(self, plain: Files) -> None:
        self._plain = plain

    async def upload(
        self,
        source: Source,
        *,
        agent: str | None = None,
        name: str = "",
        task: str | None = None,
        metadata: dict[str, Any] | None = None,
        **more: Any,
    ) -> Stood:
        """See `Files.upload`."""
        return await asyncio.to_thread(
            self._plain.upload, source, agent=agent, name=name, task=task, metadata=metadata, **more
        )

    async def get(self, file_id: str) -> FileInfo:
        """See `Files.get`."""
        return await asyncio.to_thread(self._plain.get, file_id)

    async def find(self, *, agent: str | None = None, task: str | None = None, limit: int = 1000) -> list[FileInfo]:
        """See `Files.find`."""
        return await asyncio.to_thread(self._plain.find, agent=agent, task=task, limit=limit)

    async def delete(self, file_id: str) -> None:
        """See `Files.delete`."""
        return await asyncio.to_thread(self._plain.delete, file_id)

    async def read(self, file_id: str) -> bytes:
        """See `Files.read`."""
        return await asyncio.to_thread(self._plain.read, file_id)

    async def download(self, file_id: str, path: str | os.PathLike[str]) -> FileInfo:
        """See `Files.download`."""
        return await asyncio.to_thread(self._plain.download, file_id, path)


class AsyncTables:
    """`Tables`, awaited."""

    def __init__(self, plain: Tables) -> None:
        self._plain = plain

    async def put(
        self, table: str, row: Mapping[str, Any], *, agent: str, key: str = "id", msg_id: str | None = None
    ) -> RowDone:
        """See `Tables.put`."""
        return await asyncio.to_thread(self._plain.put, table, row, agent=agent, key=key, msg_id=msg_id)

    async def insert(
        self, table: str, row: Mapping[str, Any], *, agent: str, key: str = "id", msg_id: str | None = None
    ) -> RowDone:
        """See `Tables.insert`."""
        return await asyncio.to_thread(self._plain.insert, table, row, agent=agent, key=key, msg_id=msg_id)

    async def update(
        self, table: str, row: Mapping[str, Any], *, agent: str, key: str = "id", msg_id: str | None = None
    ) -> RowDone:
        """See `Tables.update`."""
        return await asyncio.to_thread(self._plain.update, table, row, agent=agent, key=key, msg_id=msg_id)

    async def delete(
        self, table: str, id: str | int, *, agent: str, key: str = "id", msg_id: str | None = None
    ) -> RowDone:
        """See `Tables.delete`."""
        return await asyncio.to_thread(self._plain.delete, table, id, agent=agent, key=key, msg_id=msg_id)

    async def batch(self, changes: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        """See `Tables.batch`."""
        return await asyncio.to_thread(self._plain.batch, changes)

    async def find(
        self,
        table: str,
        *,
        filters: Mapping[str, Any] | None = None,
        agent: str | None = None,
        limit: int = 1000,
    ) -> list[dict[str, Any]]:
        """See `Tables.find`."""
        return await asyncio.to_thread(self._plain.find, table, filters=filters, agent=agent, limit=limit)

"""The hub's storage service from Python: sessions, artifacts, metrics and the cache, as attributes of `Hub`.

What is made gets its id here, before it is sent: a request that has to be repeated adds nothing.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from holdfast import clock
from holdfast.collections.metrics import Metric, MetricSums
from holdfast.collections.sessions import Artifact, Message, Session, State, made_id
from holdfast.errors import HubError, NotFound, UsageError
from holdfast.node.looking import When
from holdfast.node.parts import Part, decode, encode, name_in_path
from holdfast.node.store import MISSING

PIECE_BYTES: Final = 4 << 20


class Sessions(Part):
    """Conversations of agents: their messages and what the agents remember in them.

    `expect` is the version (or its etag) that must be current, 0: none; a `Conflict` says which one is.
    """

    def create(
        self,
        agent: str,
        *,
        user_id: str | None = None,
        status: str = "active",
        metadata: dict[str, Any] | None = None,
        id: str = "",
    ) -> Session:
        """Begins a session of an agent; with an `id` of one's own, again and again the same one.

        Raises:
            Conflict: the id is another session's.
        """
        body = {
            "agent_name": agent,
            "user_id": user_id,
            "status": status,
            "metadata": metadata or {},
            "id": id or made_id("session"),
        }
        return decode(self._ask("POST", "sessions", body), Session)

    def get(self, session: str, *, deleted: bool = False) -> Session:
        """A session; with `deleted` also one that was deleted.

        Raises:
            NotFound: there is none.
        """
        return decode(self._ask("GET", f"sessions/{name_in_path(session)}", deleted=_flag(deleted)), Session)

    def find(
        self,
        *,
        agent: str | None = None,
        user_id: str | None = None,
        status: str | None = None,
        deleted: bool = False,
        limit: int = 100,
    ) -> list[Session]:
        """The newest `limit` sessions that match; those that were deleted, or the others."""
        query = {"agent_name": agent, "user_id": user_id, "status": status, "deleted": _flag(deleted)}
        return self._list("sessions", Session, limit, **query)

    def update(self, session: str, *, expect: int | str | None = None, **fields: Any) -> Session:
        """Changes the fields that are given: status, metadata, user_id.

        Raises:
            Conflict: another version is current.
        """
        return decode(self._ask("PUT", f"sessions/{name_in_path(session)}", fields, expect=expect), Session)

    def delete(self, session: str, *, expect: int | str | None = None) -> None:
        """Deletes a session with all that belongs to it, by one record; `restore` brings it back."""
        self._ask("DELETE", f"sessions/{name_in_path(session)}", expect=expect)

    def restore(self, session: str, *, part: str = "session") -> int:
        """Brings back what the deletion hid, or (``history``) the messages cleared last; returns how many records."""
        answer = self._ask("POST", f"sessions/{name_in_path(session)}/restore", part=part).json()
        return int(answer["restored"])

    def fork(
        self, session: str, *, at: str | None = None, into: str = "", metadata: dict[str, Any] | None = None
    ) -> Session:
        """A new session as this one was behind the message `at`, or as it is now."""
        body = {"message_id": at, "id": into or made_id("session"), "metadata": metadata}
        return decode(self._ask("POST", f"sessions/{name_in_path(session)}/fork", body), Session)

    def export(self, session: str, path: str | os.PathLike[str]) -> int:
        """Writes everything of a session into a file of JSON Lines; returns how many lines."""
        response, line = self._client.stream(f"/storage/sessions/{name_in_path(session)}/export", {}, {})
        count = 0
        try:
            with Path(path).open("wb") as file:
                for each in response:
                    file.write(each)
                    count += 1
        finally:
            response.close()
            line.close()
        return count

    # -- messages -------------------------------------------------------------------------------------------------

    def add(
        self,
        session: str,
        role: str,
        content: Any,
        *,
        metadata: dict[str, Any] | None = None,
        timestamp: When | None = None,
        id: str = "",
    ) -> Message:
        """Adds a message; with an `id` of one's own, only once.

        Args:
            session: its id.
            role: user, assistant, system or tool.
            content: text, a list or a dict.
            metadata: JSON values.
            timestamp: when it was said, if not now.
            id: of the message, within the session.
        """
        body = {
            "session_id": session,
            "role": role,
            "content": content,
            "metadata": metadata or {},
            "timestamp": None if timestamp is None else _moment(timestamp),
            "id": id or made_id("msg"),
        }
        return decode(self._ask("POST", "history", body), Message)

    def messages(
        self, session: str, *, role: str | None = None, newest_first: bool = False, limit: int = 10_000
    ) -> list[Message]:
        """The messages of a session in the order in which they were written."""
        query = {"session_id": session, "role": role, "order": "desc" if newest_first else "asc"}
        return self._list("history", Message, limit, **query)

    def search(self, session: str, q: str, *, limit: int = 50) -> list[Message]:
        """The messages that hold every word of `q`, newest first."""
        answer = self._ask("GET", "history/search", session_id=session, q=q, limit=limit).json()
        return [msgspec.convert(each, Message) for each in answer["messages"]]

    def clear(self, session: str) -> int:
        """Clears the messages of a session; returns how many."""
        return int(self._ask("DELETE", "history", session_id=session).json()["deleted"])

    # -- the state ------------------------------------------------------------------------------------------------

    def state(self, session: str) -> State:
        """What the agent remembers in a session: its data, and its version.

        Raises:
            NotFound: nothing.
        """
        return decode(self._ask("GET", f"state/{name_in_path(session)}"), State)

    def set_state(self, session: str, data: Any, *, expect: int | str | None = None) -> State:
        """Sets it, as a whole.

        Raises:
            Conflict: another version is current.
        """
        return decode(self._ask("PUT", f"state/{name_in_path(session)}", {"data": data}, expect=expect), State)

    def drop_state(self, session: str, *, expect: int | str | None = None) -> None:
        """Takes it away."""
        self._ask("DELETE", f"state/{name_in_path(session)}", expect=expect)


class Artifacts(Part):
    """What sessions made, and the bytes of it."""

    def create(self, session: str, name: str, type: str, *, id: str = "", **fields: Any) -> Artifact:
        """Notes an artifact of a session.

        Args:
            session, name, type: what it is.
            id: of the artifact; with one of one's own, only once.
            fields: path, size, metadata.
        """
        body = {"session_id": session, "name": name, "type": type, "id": id or made_id("artifact"), **fields}
        return decode(self._ask("POST", "artifacts", body), Artifact)

    def get(self, artifact: str) -> Artifact:
        """One artifact."""
        return decode(self._ask("GET", f"artifacts/{name_in_path(artifact)}"), Artifact)

    def find(self, session: str, *, type: str | None = None, limit: int = 10_000) -> list[Artifact]:
        """The artifacts of a session, by their ids."""
        return self._list("artifacts", Artifact, limit, session_id=session, type=type)

    def delete(self, artifact: str) -> None:
        """Deletes an artifact; its history stays."""
        self._ask("DELETE", f"artifacts/{name_in_path(artifact)}")

    def upload(self, artifact: str, source: bytes | str | os.PathLike[str]) -> Artifact:
        """Uploads the bytes of an artifact, in pieces; what the hub has of them already is not sent again.

        Args:
            artifact: its id.
            source: the bytes, or the file that holds them.
        """
        with io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as file:
            digest, total = _digest(file)
            path = f"/storage/artifacts/{name_in_path(artifact)}/content"
            query = {"sha256": digest}
            if not total:
                return decode(self._client.want("PUT", path, query=query, body=b""), Artifact)
            asked = self._client.want("PUT", path, query=query, body=b"", headers=_span(f"*/{total}"))
            while asked.status == 202:
                at = int(asked.json()["offset"])
                file.seek(at)
                piece = file.read(PIECE_BYTES)
                if not piece:
                    raise UsageError(f"{source!r:.200} became shorter while it was read", hint="upload it again")
                headers = _span(f"{at}-{at + len(piece) - 1}/{total}")
                asked = self._client.want("PUT", path, query=query, body=piece, headers=headers)
            return decode(asked, Artifact)

    def download(self, artifact: str, path: str | os.PathLike[str]) -> int:
        """Writes the bytes of an artifact into a file, proven by their digest; returns how many.

        Raises:
            HubError: what came is not what the hub said.
            NotFound: they were not uploaded.
        """
        found = self.get(artifact)
        digest = hashlib.sha256()
        with Path(path).open("wb") as file:
            for piece in self._pieces(found):
                digest.update(piece)
                file.write(piece)
        if digest.hexdigest() != found.digest:
            raise HubError(f"the bytes of {artifact} are not those of its digest", hint="ask again")
        return found.size

    def read(self, artifact: str) -> bytes:
        """The bytes of an artifact, proven by their digest; for those that fit into memory."""
        found = self.get(artifact)
        data = b"".join(self._pieces(found))
        if hashlib.sha256(data).hexdigest() != found.digest:
            raise HubError(f"the bytes of {artifact} are not those of its digest", hint="ask again")
        return data

    def _pieces(self, found: Artifact) -> Iterable[bytes]:
        if found.digest is None:
            raise NotFound(
                f"the bytes of {found.id} were not uploaded", hint=f"they are said to be at {found.path!r:.200}"
            )
        for at in range(0, found.size, PIECE_BYTES):
            span = {"Range": f"bytes={at}-{min(at + PIECE_BYTES, found.size) - 1}"}
            path = f"/storage/artifacts/{name_in_path(found.id)}/content"
            yield self._hub.ask(lambda hub, span=span, path=path: hub.client.want("GET", path, headers=span)).body  # type: ignore[misc]


class Metrics(Part):
    """Figures about agents, tools and whatever else runs."""

    def record(self, entity_type: str, entity_name: str, metric_name: str, value: float, **fields: Any) -> Metric:
        """Records a figure.

        Args:
            entity_type, entity_name, metric_name, value: what of whom is how much.
            fields: session_id, timestamp, labels, id.
        """
        (body,) = _metrics([{**_about(entity_type, entity_name, metric_name), "value": value, **fields}])
        return decode(self._ask("POST", "metrics", body), Metric)

    def batch(self, metrics: Sequence[dict[str, Any]]) -> list[str]:
        """Records up to 1,000 figures at once, each a dict of what `record` takes; returns their ids."""
        answer = self._ask("POST", "metrics/batch", {"metrics": _metrics(metrics)})
        return list(answer.json()["ids"])

    def find(self, *, labels: dict[str, Any] | None = None, limit: int = 1000, **filters: Any) -> list[Metric]:
        """The newest `limit` figures that match.

        Args:
            labels: labels that they must have.
            limit: the most.
            filters: entity_type, entity_name, metric_name, session_id, since, until.
        """
        return self._list("metrics", Metric, limit, label=_labels(labels), **_filters(filters))

    def aggregate(
        self,
        *,
        by: Sequence[str] = (),
        bucket: int | None = None,
        percentiles: Sequence[float] = (),
        labels: dict[str, Any] | None = None,
        **filters: Any,
    ) -> list[MetricSums]:
        """What the figures that match add up to.

        Args:
            by: fields, or ``label:<name>``, that make groups.
            bucket: seconds that each stretch of time has.
            percentiles: from 0 to 100.
            labels, filters: see `find`.
        """
        query: dict[str, Any] = {
            "by": tuple(by),
            "bucket": bucket,
            "percentile": tuple(percentiles),
            "label": _labels(labels),
        }
        answer = self._ask("GET", "metrics/aggregate", **query, **_filters(filters)).json()
        return [msgspec.convert(each, MetricSums) for each in answer["groups"]]


class HubCache(Part):
    """Values that may be lost, and that expire."""

    def get(self, key: str, *, default: Any = MISSING) -> Any:
        """A value.

        Raises:
            NotFound: there is none, or it has expired, and there is no default.
        """
        try:
            # Each hub has a cache of its own: that of another one would be another's.
            return self._client.want("GET", f"/storage/cache/{name_in_path(key)}").json()["value"]
        except NotFound:
            if default is MISSING:
                raise
            return default

    def set(self, key: str, value: Any, *, ttl: int | None = None) -> None:
        """Sets a value, for `ttl` seconds or for ever."""
        self._ask("PUT", f"cache/{name_in_path(key)}", {"value": value, "ttl": ttl})

    def delete(self, key: str) -> bool:
        """Takes a value away; False if there was none."""
        try:
            self._ask("DELETE", f"cache/{name_in_path(key)}")
        except NotFound:
            return False
        return True

    def cleanup(self) -> int:
        """Takes away what has expired; returns how many."""
        return int(self._ask("POST", "cache/cleanup").json()["removed"])


def _moment(at: When) -> str:
    return clock.iso(clock.parse_time(at))


def _flag(value: bool) -> str | None:
    return "true" if value else None


def _span(text: str) -> dict[str, str]:
    return {"Content-Range": f"bytes {text}"}


def _digest(file: BinaryIO) -> tuple[str, int]:
    found, size = hashlib.sha256(), 0
    while piece := file.read(PIECE_BYTES):
        found.update(piece)
        size += len(piece)
    return found.hexdigest(), size


def _about(entity_type: str, entity_name: str, metric_name: str) -> dict[str, str]:
    return {"entity_type": entity_type, "entity_name": entity_name, "metric_name": metric_name}


def _metrics(metrics: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    out = []
    for each in metrics:
        made = {"id": made_id("metric"), **each}
        if made.get("timestamp") is not None:
            made["timestamp"] = _moment(made["timestamp"])
        out.append(made)
    return out


def _filters(given: dict[str, Any]) -> dict[str, Any]:
    return {name: _moment(each) if name in ("since", "until") and each else each for name, each in given.items()}


def _labels(labels: dict[str, Any] | None) -> tuple[str, ...]:
    texts = {name: each if isinstance(each, str) else encode(each).decode() for name, each in (labels or {}).items()}
    return tuple(f"{name}={text}" for name, text in texts.items())

"""What clients may attach to a conversation: the graph, the memories, sessions, files; and what a change touches."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from holdfast import clock
from holdfast.collections.sessions import is_session_id, session_of
from holdfast.errors import NotFound, UsageError
from holdfast.hub.principal import READ
from holdfast.integrations.mcp_server import artifacts, graph, memories, sessions
from holdfast.integrations.mcp_server.desk import Desk
from holdfast.integrations.mcp_server.reach import noting
from holdfast.integrations.mcp_server.tools import as_text
from holdfast.integrations.mcp_server.tools_artifacts import text_of
from holdfast.integrations.mcp_server.uris import (
    ARTIFACTS,
    GRAPH,
    MEMORIES,
    SESSIONS,
    artifact_uri,
    meant,
    session_uri,
)
from holdfast.log.drafts import MESSAGES
from holdfast.log.marks import SESSIONS as SESSIONS_KEPT
from holdfast.log.versions import Version

JSON: Final = "application/json"
PAGE: Final = 100
MEMORIES_MAX: Final = 200


class Listed(msgspec.Struct, kw_only=True):
    """A resource in a list."""

    uri: str
    name: str
    title: str
    description: str = ""
    media_type: str = JSON
    size: int | None = None
    time: str = ""


class Content(msgspec.Struct, kw_only=True):
    """What a resource holds: text, or bytes."""

    uri: str
    media_type: str
    text: str | None = None
    data: bytes = b""


TEMPLATES: Final = (
    Listed(
        uri=f"{SESSIONS}{{id}}",
        name="session",
        title="Session",
        description="The messages of a session, or of a thread, by its id",
    ),
    Listed(
        uri=f"{ARTIFACTS}{{+name}}",
        name="artifact",
        title="Artifact",
        description="A file that was kept, by its name",
        media_type="",
    ),
)
_FIXED: Final = (
    Listed(
        uri=GRAPH,
        name="knowledge-graph",
        title="Knowledge Graph",
        description="The full knowledge graph with all entities and relations",
    ),
    Listed(uri=MEMORIES, name="memories", title="Memories", description="What was remembered last, on all machines"),
)
_NEEDS: Final = {
    GRAPH: graph.COLLECTION,
    MEMORIES: memories.COLLECTION,
    SESSIONS: MESSAGES,
    ARTIFACTS: artifacts.COLLECTION,
}


def page(desk: Desk, cursor: str | None) -> tuple[list[Listed], str | None]:
    """Some resources, and where the next ones begin; None at the end.

    Raises:
        UsageError: a cursor that is none.
    """
    desk.who.need(READ)
    if cursor is not None and not (cursor.isascii() and cursor.isdecimal()):
        raise UsageError(f"not a cursor: {cursor!r:.80}", hint="what the page before gave")
    start = int(cursor or 0)
    found = [each for each in _FIXED if desk.who.may_read(_NEEDS[each.uri])]
    found += _sessions(desk)
    if desk.who.may_read(artifacts.COLLECTION):
        found += _files(desk)
    end = start + PAGE
    return found[start:end], str(end) if end < len(found) else None


def read(desk: Desk, uri: str) -> Content:
    """What a resource holds.

    Raises:
        NotFound: there is none of this address.
    """
    allowed(desk, uri)
    kind, which = meant(uri)
    with noting() as missed:
        if kind == ARTIFACTS:
            about, data = desk.artifacts.get(which)
            text = text_of(about, data)
            return Content(uri=uri, media_type=about.mediaType, text=text, data=b"" if text is not None else data)
        if kind == GRAPH:
            told: Any = desk.graph.read_graph()
        elif kind == MEMORIES:
            told = {"memories": desk.memories.recall("", limit=MEMORIES_MAX)}
        else:
            told = {"session": which, "messages": sessions.messages(desk, which)}
            if not told["messages"]:
                raise NotFound(f"there is no session {which!r:.200}", hint="the list of resources shows the newest")
    if missed and isinstance(told, dict):
        told["note"] = f"the hub does not answer, so this is only what this machine knows: {missed[0]}"
    return Content(uri=uri, media_type=JSON, text=as_text(told))


def allowed(desk: Desk, *uris: str) -> None:
    """Returns only if whoever sits at a desk may read what has these addresses, whether or not it is there.

    Raises:
        NotFound: nothing has an address like that.
        Denied: he may not.
    """
    desk.who.need(READ)
    for uri in uris:
        kind, which = meant(uri)
        desk.who.check_read(SESSIONS_KEPT if kind == SESSIONS and is_session_id(which) else _NEEDS[kind])


def touched(version: Version) -> tuple[str | None, bool]:
    """The address of the resource that a change is one of, and whether it may have changed which there are."""
    if version.collection == graph.COLLECTION:
        return GRAPH, False
    if version.collection == memories.COLLECTION:
        return MEMORIES, False
    if version.collection == artifacts.COLLECTION:
        return artifact_uri(version.key), version.version == 1 or version.gone
    if version.collection == SESSIONS_KEPT:
        return session_uri(session_of(version.key)), version.version == 1 and version.key.endswith("/session")
    if version.collection == MESSAGES and isinstance(version.value, dict):
        thread = version.value.get("thread")
        if isinstance(thread, str) and thread:
            return session_uri(thread), False
    return None, False


def _sessions(desk: Desk) -> list[Listed]:
    found = sessions.kept(desk) if desk.who.may_read(SESSIONS_KEPT) else []
    found += sessions.threads(desk) if desk.who.may_read(MESSAGES) else []
    return [
        Listed(uri=session_uri(each.id), name=each.id, title=each.title, description=each.description, time=each.time)
        for each in found
    ]


def _files(desk: Desk) -> list[Listed]:
    return [
        Listed(
            uri=artifact_uri(each.name),
            name=each.name,
            title=each.name.rpartition("/")[2],
            description=each.description,
            media_type=each.mediaType,
            size=each.size,
            time=clock.iso(round(each.time * 1000)),
        )
        for each in desk.artifacts.find()
    ]

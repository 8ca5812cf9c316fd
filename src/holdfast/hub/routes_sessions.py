"""Sessions over HTTP: begin, read, list, change, delete and restore, fork, export; and each one's state."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from msgspec import UNSET

from holdfast.collections import sessions as parts
from holdfast.collections.sessions import MESSAGE, SESSION, STATE, Session, State, key_of
from holdfast.corpus import Stored, storage
from holdfast.errors import Conflict, HoldfastError, NotFound
from holdfast.hub import storage_shapes as shapes
from holdfast.hub.api import Call, Operation, Reply, typed
from holdfast.hub.exchange import Receive, Scope, Send, encode_json
from holdfast.hub.own import Desk, check_agent
from holdfast.hub.principal import READ, WRITE, principal_of
from holdfast.hub.sessions import Sessions, author_of, live, root_draft, unknown
from holdfast.hub.shapes import time_ms
from holdfast.hub.versions import Wanted, etags, names_of
from holdfast.log import drafts
from holdfast.log.marks import SESSIONS

LINES: Final = "application/x-ndjson"
EXPORT_LINES: Final = 100
PLACES: Final = {
    "sessions": shapes.SessionId,
    "state": shapes.SessionId,
    "artifacts": shapes.ArtifactId,
    "cache": shapes.CacheKey,
}
"""What the parameter in a path is, by the path's first part."""
UNLESS: Final = {"If-None-Match": shapes.Version}
ONLY_IF: Final = {"If-Match": shapes.Version, **UNLESS}


def declare(method: str, path: str, summary: str, work: Any, **more: Any) -> Operation:
    """An operation of the storage service.

    Args:
        method, path: below ``/storage/``, whose first part is the heading that it is shown under.
        summary: one line.
        work: does it, or a bare endpoint where `more` says ``bare``.
        more: fields of the operation.
    """
    tag = path.partition("/")[0]
    where = {name: PLACES[tag] for name in re.findall(r"\{(\w+)\}", path)}
    return Operation(
        method=method,
        path=f"/storage/{path}",
        endpoint=work if more.pop("bare", False) else typed(work),
        needs=READ if method == "GET" else WRITE,
        summary=summary,
        tag=tag,
        where=where,
        **more,
    )


def operations(sessions: Sessions) -> Iterator[Operation]:
    """Everything about sessions and their states."""
    work = SessionWork(sessions)
    yield declare(
        *("POST", "sessions", "Begin a session", work.create),
        body=shapes.NewSession,
        answer=Session,
        status=201,
        also={200: Session},
        errors=(409,),
    )
    yield declare(
        *("GET", "sessions", "Sessions, the newest first", work.find), query=shapes.SessionsAsked, answer=list[Session]
    )
    yield declare(
        *("GET", "sessions/{id}", "One session", work.read),
        query=shapes.SessionAsked,
        headers=UNLESS,
        answer=Session,
        also={304: None},
        errors=(404,),
    )
    yield declare(
        *("PUT", "sessions/{id}", "Change a session", work.change),
        body=shapes.SessionChange,
        headers=ONLY_IF,
        answer=Session,
        errors=(404, 409),
    )
    yield declare(
        *("DELETE", "sessions/{id}", "Delete a session with all that belongs to it", work.delete),
        headers=ONLY_IF,
        answer=shapes.Deleted,
        errors=(404, 409),
    )
    yield declare(
        *("POST", "sessions/{id}/restore", "Bring back what a deletion hid", work.restore),
        query=shapes.RestoreAsked,
        answer=shapes.Restored,
        errors=(404, 409),
    )
    yield declare(
        *("POST", "sessions/{id}/fork", "Copy a session up to a message", work.fork),
        body=shapes.Fork,
        answer=Session,
        status=201,
        also={200: Session},
        errors=(404, 409),
    )
    yield declare(
        *("GET", "sessions/{id}/export", "A session as JSON Lines", Export(sessions)),
        bare=True,
        gives=LINES,
        answer=bytes,
        errors=(404,),
    )
    yield from _states(work)


def _states(work: SessionWork) -> Iterator[Operation]:
    yield declare(
        *("GET", "state/{session_id}", "A session's state", work.get_state),
        headers=UNLESS,
        answer=State,
        also={304: None},
        errors=(404,),
    )
    yield declare(
        *("PUT", "state/{session_id}", "Set a session's state", work.set_state),
        body=shapes.NewState,
        headers=ONLY_IF,
        answer=State,
        errors=(404, 409),
    )
    yield declare(
        *("DELETE", "state/{session_id}", "Take a session's state away", work.drop_state),
        headers=ONLY_IF,
        answer=shapes.Deleted,
        errors=(404, 409),
    )


class SessionWork:
    """What each operation does.

    Args:
        sessions: of this hub.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._core = sessions.core

    async def create(self, call: Call) -> Reply:
        """Begins a session. With an `id` that a client gives, a repeat of the request answers 200 and adds nothing."""
        asked: shapes.NewSession = call.body
        agent = check_agent(asked.agent_name, hub=False)
        call.principal.check_write(agent, SESSIONS)
        now, session = self._sessions.now(), asked.id or parts.made_id("session")
        body = parts.SessionBody(
            agent_name=agent,
            status=asked.status,
            created_at=now,
            updated_at=now,
            user_id=asked.user_id,
            metadata=asked.metadata or {},
        )
        draft = root_draft(session, body, author_of(call.principal, agent))
        ready = await self._sessions.ready(agent, draft)

        def work(desk: Desk) -> tuple[Stored, bool] | HoldfastError:
            before = desk.first("ref", session) if asked.id else None
            if before is None:
                return desk.append(ready), True
            first = parts.session_in(before) if before.agent == agent else None
            current = desk.newest(SESSIONS, draft.key)
            same = first is not None and all(
                getattr(first, name) == getattr(body, name) for name in ("user_id", "status", "metadata")
            )
            if not same or current is None:
                return Conflict(f"the id {session} is another session's", hint="an id names one session, for ever")
            return current, False

        found = await self._core.own.write(agent, work, size=call.size, quick=True)
        if isinstance(found, HoldfastError):
            raise found
        stored, made = found
        return self._reply(stored, status=201 if made else 200)

    async def find(self, call: Call) -> Reply:
        """Sessions by when they were created; the next page's cursor is in `X-Next-Cursor` and `Link`."""
        call.principal.check_read(SESSIONS)
        asked: shapes.SessionsAsked = call.query
        which = storage.SessionFilter(
            agent=asked.agent_name,
            user_id=asked.user_id,
            status=asked.status,
            since=time_ms(asked.since),
            until=time_ms(asked.until),
            deleted=asked.deleted == "true",
            after=_after(asked.after),
            newest_first=asked.order == "desc",
            offset=asked.offset,
            limit=asked.limit + 1,
        )

        def look() -> tuple[list[Session], str]:
            found = storage.sessions(self._core.corpus, which)
            out = []
            for _, stored in found[: asked.limit]:
                gone = None
                if which.deleted:
                    gone = storage.any_newest(self._core.corpus, stored.agent, SESSIONS, stored.record.key)
                out.append(self._sessions.shown(stored, gone[1] if gone else None))
            created, last = found[asked.limit - 1] if len(found) > asked.limit else (0, None)
            return out, f"{created}:{parts.session_of(last.record.key)}" if last is not None else ""

        shown, following = await self._core.read(look)
        return Reply(shown, headers=next_page("/storage/sessions", asked, following))

    async def read(self, call: Call) -> Reply:
        """One session; `ETag` names its version."""
        session = call.path["id"]
        agent = await self._sessions.readable(call.principal, session)
        found = await self._core.read(
            lambda: storage.any_newest(self._core.corpus, agent, SESSIONS, key_of(session, SESSION))
        )
        if found is None or (found[1] is not None and (call.query.deleted != "true" or found[0].gone)):
            raise unknown(session)
        return self._reply(*found, unless=etags(call.header("if-none-match")))

    async def change(self, call: Call) -> Reply:
        """Changes the fields that are given; with `If-Match`, only the version that it names."""
        asked: shapes.SessionChange = call.body
        session, wanted = call.path["id"], wanted_of(call)
        given = {name: getattr(asked, name) for name in ("status", "metadata", "user_id")}
        changes = {name: value for name, value in given.items() if value is not UNSET}
        if "metadata" in changes:
            changes["metadata"] = changes["metadata"] or {}

        def work(desk: Desk) -> Stored:
            current = live(desk, session)
            wanted.check(current, f"session {session}")
            body = parts.body_of(current, None)
            if body is None:
                raise unknown(session)
            if asked.agent_name not in (UNSET, current.agent):
                raise Conflict(f"{session} is {current.agent}'s, and stays so", hint="fork it, or begin another")
            new = msgspec.structs.replace(body, **changes)
            if new == body:
                return current
            new.updated_at = self._sessions.now()
            return self._sessions.change(desk, root_draft(session, new, author_of(call.principal, current.agent)))

        return self._reply(await self._sessions.write(call.principal, session, work, call.size))

    async def delete(self, call: Call) -> shapes.Deleted:
        """Deletes a session, its messages, state and artifacts by one record; `restore` brings all of it back."""
        session, wanted = call.path["id"], wanted_of(call)

        def work(desk: Desk) -> None:
            wanted.check(live(desk, session), f"session {session}")
            draft = drafts.remove(SESSIONS, f"{session}/", prefix=True, author=author_of(call.principal, desk.agent))
            self._sessions.change(desk, draft)

        await self._sessions.write(call.principal, session, work, 1 << 20)
        return shapes.Deleted(status="deleted", id=session)

    async def restore(self, call: Call) -> Reply:
        """Brings back everything that one deletion hid, and nothing else; asked again, it adds nothing."""
        session = call.path["id"]
        stored, restored, lost = await self._sessions.restore(call.principal, session, call.query.part)
        shown = self._sessions.shown(stored)
        return Reply(shapes.Restored(session=shown, restored=restored, lost=lost), headers=etag_of(stored))

    async def fork(self, call: Call) -> Reply:
        """Copies a session as it was behind a message: messages under their ids, state, and artifacts under new ids."""
        asked: shapes.Fork = call.body
        into = asked.id or parts.made_id("session")
        found = await self._sessions.fork(call.principal, call.path["id"], into, asked.message_id, asked.metadata)
        return self._reply(found[0], status=201 if found[1] else 200)

    # -- the state ------------------------------------------------------------------------------------------------

    async def get_state(self, call: Call) -> Reply:
        """A session's state; `ETag` names its version."""
        session = call.path["session_id"]
        agent = await self._sessions.readable(call.principal, session)

        def look() -> tuple[Stored, State]:
            self._sessions.root(agent, session)
            stored = self._core.corpus.newest(agent, SESSIONS, key_of(session, STATE))
            state = parts.state_in(stored, self._core.home.blobs) if stored is not None else None
            if stored is None or state is None:
                raise NotFound(f"{session} has no state", hint=f"PUT /storage/state/{session} sets one")
            return stored, state

        stored, state = await self._core.read(look)
        if names_of(stored).intersection(etags(call.header("if-none-match"))):
            return Reply(b"", status=304, headers=etag_of(stored))
        return Reply(state, headers=etag_of(stored))

    async def set_state(self, call: Call) -> Reply:
        """Sets a session's state; `If-Match` and `If-None-Match` say which version it is to replace."""
        session, wanted, now = call.path["session_id"], wanted_of(call), self._sessions.now()
        agent = await self._sessions.writable(call.principal, session)
        key, data = key_of(session, STATE), call.body.data
        draft = parts.draft(STATE, key, {"data": data, "updated_at": now}, author=author_of(call.principal, agent))
        ready = await self._sessions.ready(agent, draft)

        def work(desk: Desk) -> Stored:
            wanted.check(desk.newest(SESSIONS, key), f"the state of {session}")
            return desk.append(ready)

        stored = await self._sessions.write(call.principal, session, work, call.size)
        shown = State(session_id=session, data=data, updated_at=now, version=stored.record.key_version)
        return Reply(shown, headers=etag_of(stored))

    async def drop_state(self, call: Call) -> shapes.Deleted:
        """Takes a session's state away; its history stays."""
        session, wanted = call.path["session_id"], wanted_of(call)

        def work(desk: Desk) -> None:
            current = desk.newest(SESSIONS, key_of(session, STATE))
            if current is None:
                raise NotFound(f"{session} has no state", hint="there is nothing to delete")
            wanted.check(current, f"the state of {session}")
            draft = drafts.remove(SESSIONS, key_of(session, STATE), author=author_of(call.principal, desk.agent))
            self._sessions.change(desk, draft)

        await self._sessions.write(call.principal, session, work)
        return shapes.Deleted(status="deleted", session_id=session)

    def _reply(
        self, stored: Stored, tombstone: Stored | None = None, *, status: int = 0, unless: tuple[str, ...] = ()
    ) -> Reply:
        if names_of(stored).intersection(unless):
            return Reply(b"", status=304, headers=etag_of(stored))
        return Reply(self._sessions.shown(stored, tombstone), status=status, headers=etag_of(stored))


class Export:
    """GET /storage/sessions/{id}/export: each line an object with one field: session, state, message or artifact."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        session = scope["path_params"]["id"]
        agent = await self._sessions.readable(principal_of(scope), session)
        root = await self._sessions.core.read(lambda: self._sessions.root(agent, session))
        headers = [
            (b"content-type", LINES.encode()),
            (b"content-disposition", b'attachment; filename="%b.jsonl"' % session.encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for piece in self.pieces(agent, session, root):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def pieces(self, agent: str, session: str, root: Stored) -> AsyncIterator[bytes]:
        """The lines, some at a time."""
        lines = self._lines(agent, session, root)

        def some() -> bytes:
            out, size = [], 0
            for line in lines:
                out.append(line)
                size += len(line)
                if len(out) >= EXPORT_LINES or size > 1 << 20:
                    break
            return b"".join(out)

        while piece := await self._sessions.core.read(some):
            yield piece

    def _lines(self, agent: str, session: str, root: Stored) -> Iterator[bytes]:
        core, blobs = self._sessions.core, self._sessions.core.home.blobs
        yield _line(SESSION, self._sessions.shown(root))
        state = core.corpus.newest(agent, SESSIONS, key_of(session, STATE))
        if state is not None and (said := parts.state_in(state, blobs)) is not None:
            yield _line(STATE, said)
        for each in self._sessions.messages(agent, session):
            if (message := parts.message_in(each, blobs)) is not None:
                yield _line(MESSAGE, message)
        for about, content in self._sessions.artifacts(agent, session):
            if (artifact := parts.artifact_in(about, parts.reference_in(content), blobs)) is not None:
                yield _line(parts.ARTIFACT, artifact)


def _line(kind: str, value: Any) -> bytes:
    return encode_json({kind: value}) + b"\n"


def _after(cursor: str | None) -> tuple[int, str] | None:
    ms, _, last = (cursor or "").partition(":")
    return (int(ms), last) if cursor else None


def wanted_of(call: Call) -> Wanted:
    """Which version a request expects."""
    return Wanted(etags(call.header("if-match")), etags(call.header("if-none-match")))


def etag_of(stored: Stored) -> tuple[tuple[str, str], ...]:
    """The header that names a version."""
    return (("etag", f'"{stored.record.link.hex()}"'),)


def next_page(path: str, asked: msgspec.Struct, cursor: str) -> tuple[tuple[str, str], ...]:
    """The headers that say where a list goes on; none at its end."""
    if not cursor:
        return ()
    fields: list[tuple[str, Any]] = []
    for name in asked.__struct_fields__:
        value = getattr(asked, name)
        if name not in ("after", "offset") and value not in (None, ()):
            fields += [(name, each) for each in (value if isinstance(value, tuple) else (value,))]
    query = urlencode([*fields, ("after", cursor)])
    return ("link", f'<{path}?{query}>; rel="next"'), ("x-next-cursor", cursor)

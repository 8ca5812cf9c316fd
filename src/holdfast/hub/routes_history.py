"""The messages of sessions over HTTP: add, page through, search, clear."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from holdfast import clock
from holdfast.collections import sessions as parts
from holdfast.collections.sessions import MESSAGE, Message, key_of
from holdfast.corpus import Stored, search, storage
from holdfast.errors import Conflict
from holdfast.hub import storage_shapes as shapes
from holdfast.hub.api import Call, Operation, Reply
from holdfast.hub.own import QUICK_BYTES, Desk
from holdfast.hub.routes_sessions import declare, next_page
from holdfast.hub.sessions import STEPS_MAX, Sessions, author_of
from holdfast.hub.shapes import time_ms
from holdfast.log import drafts
from holdfast.log.marks import SESSIONS

PATH: Final = "/storage/history"
PAGE_BYTES_MAX: Final = 8 << 20


def operations(sessions: Sessions) -> Iterator[Operation]:
    """Everything about messages."""
    work = HistoryWork(sessions)
    yield declare(
        *("POST", "history", "Add a message to a session", work.add),
        body=shapes.NewMessage,
        answer=Message,
        status=201,
        also={200: Message},
        errors=(404, 409),
    )
    yield declare(
        *("GET", "history", "The messages of a session", work.page),
        query=shapes.HistoryAsked,
        answer=list[Message],
        errors=(404,),
    )
    yield declare(
        *("GET", "history/search", "Find messages of a session by their words", work.search),
        query=shapes.SearchAsked,
        answer=shapes.SearchFound,
        errors=(404,),
    )
    yield declare(
        *("DELETE", "history", "Clear the messages of a session", work.clear),
        query=shapes.OfSession,
        answer=shapes.Deleted,
        errors=(404,),
    )


class HistoryWork:
    """What each operation does.

    Args:
        sessions: of this hub.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._core = sessions.core

    async def add(self, call: Call) -> Reply:
        """Adds a message. With an `id` that a client gives, a repeat of the request answers 200 and adds nothing."""
        asked: shapes.NewMessage = call.body
        session = asked.session_id
        agent = await self._sessions.writable(call.principal, session)
        message = asked.id or parts.made_id("msg")
        told = time_ms(asked.timestamp)
        body: dict[str, Any] = {
            "role": asked.role,
            "content": asked.content,
            "timestamp": self._sessions.now() if told is None else clock.iso(told),
            "metadata": asked.metadata or {},
        }
        key = key_of(session, MESSAGE, message)
        draft = parts.draft(MESSAGE, key, body, author=author_of(call.principal, agent), fresh=asked.id is None)
        ready = await self._sessions.ready(agent, draft)

        def work(desk: Desk) -> tuple[Stored, bool]:
            before = desk.newest(SESSIONS, key) if asked.id else None
            if before is None:
                return desk.append(ready), True
            if before.is_blob:
                desk.open_files()
            return before, False

        stored, made = await self._sessions.write(call.principal, session, work, call.size)
        if made:
            return Reply(Message(id=message, session_id=session, **body), status=201)
        found = await self._core.read(lambda: parts.message_in(stored, self._core.home.blobs))
        if found is None or not _same(found, asked, told):
            raise Conflict(f"{session} has another message with the id {message}", hint="an id names one message")
        return Reply(found, status=200)

    async def page(self, call: Call) -> Reply:
        """The messages of a session in the order in which they were written, as a list; the next page's cursor is in
        `X-Next-Cursor` and `Link`.
        """
        asked: shapes.HistoryAsked = call.query
        agent = await self._sessions.readable(call.principal, asked.session_id)
        found, following = await self._core.read(lambda: self._page(agent, asked))
        return Reply(found, headers=next_page(PATH, asked, str(following) if following else ""))

    def _page(self, agent: str, asked: shapes.HistoryAsked) -> tuple[list[Message], int]:
        self._sessions.root(agent, asked.session_id)
        blobs = self._core.home.blobs
        out: list[Message] = []
        skip, size, last = asked.offset, 0, 0
        stream = self._sessions.messages(
            agent, asked.session_id, after=asked.after or None, newest_first=asked.order == "desc"
        )
        for steps, stored in enumerate(stream):
            if len(out) == asked.limit or steps >= STEPS_MAX:
                return out, last
            if skip and asked.role is None:
                skip, last = skip - 1, stored.pos
                continue
            reference = parts.reference_in(stored)
            weight = reference[1] if reference else stored.record.payload_len
            if out and size + weight > PAGE_BYTES_MAX:
                return out, last
            found, last = parts.message_in(stored, blobs), stored.pos
            if found is None or asked.role not in (None, found.role):
                continue
            if skip:
                skip -= 1
                continue
            out.append(found)
            size += weight
        return out, 0

    async def search(self, call: Call) -> shapes.SearchFound:
        """Messages of one session that hold every word of `q`, newest first."""
        asked: shapes.SearchAsked = call.query
        agent = await self._sessions.readable(call.principal, asked.session_id)

        def look() -> shapes.SearchFound:
            self._sessions.root(agent, asked.session_id)
            prefix = f"{asked.session_id}/msg/"
            hits = search.search_under(self._core.corpus, asked.q, agent, SESSIONS, prefix, limit=asked.limit)
            shown = [parts.message_in(each, self._core.home.blobs) for each in hits.found]
            return shapes.SearchFound(messages=[each for each in shown if each is not None], partial=hits.partial)

        return await self._core.read(look)

    async def clear(self, call: Call) -> shapes.Deleted:
        """Clears a session's messages by one record; ``restore?part=history`` brings them back."""
        session = call.query.session_id
        prefix = f"{session}/msg/"

        def work(desk: Desk) -> int:
            count = storage.count_under(desk.tx, desk.agent, SESSIONS, prefix)
            if count:
                author = author_of(call.principal, desk.agent)
                self._sessions.change(desk, drafts.remove(SESSIONS, prefix, prefix=True, author=author))
            return count

        count = await self._sessions.write(call.principal, session, work, 2 * QUICK_BYTES)
        return shapes.Deleted(status="cleared", session_id=session, deleted=count)


def _same(found: Message, asked: shapes.NewMessage, told: int | None) -> bool:
    """Whether a message that is here is the one that was sent again."""
    if found.missing is not msgspec.UNSET:
        return True  # its bytes are gone: the id alone says that it was here
    content: Any = msgspec.json.decode(msgspec.json.encode(found.content))
    metadata: Any = msgspec.json.decode(msgspec.json.encode(found.metadata))
    return (found.role, content, metadata) == (asked.role, asked.content, asked.metadata or {}) and (
        told is None or found.timestamp == clock.iso(told)
    )

"""Sessions of all machines: those of the storage service and of followed transcripts, and the threads of messages."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from holdfast import clock
from holdfast.collections import Message
from holdfast.collections import sessions as parts
from holdfast.collections.sessions import MESSAGE, SESSION, is_session_id, key_of, message_in, session_in
from holdfast.corpus import Filter
from holdfast.integrations.mcp_server.desk import Desk
from holdfast.integrations.mcp_server.tools_mail import conversation, letter
from holdfast.log.marks import SESSIONS
from holdfast.node.store import Store

LISTED_MAX: Final = 200
"""So many sessions are listed of each kind: the newest."""
LOOKED_AT: Final = 1000
"""So many of the newest messages say which threads there are."""
MESSAGES_MAX: Final = 1000
"""So many messages of a session are shown: the newest."""
_PAGE: Final = 1000


class Known(msgspec.Struct):
    """A session in a list."""

    id: str
    title: str
    description: str
    time: str


def kept(desk: Desk) -> list[Known]:
    """The sessions of the collection `sessions`, those that were changed last first."""
    store = desk.store

    def here() -> list[parts.Session]:
        return [found for place in (store, *desk.line.neighbours()) for found in _sessions_in(place)]

    def everywhere() -> list[parts.Session]:
        found = {each.id: each for each in store._reader().hub.sessions.find(limit=LISTED_MAX)}
        return list(
            ({each.id: each for each in _sessions_in(store)} | found).values()
        )  # what has not been shipped, too

    found = desk.line.ask(everywhere, here)
    found.sort(key=lambda each: each.updated_at, reverse=True)
    return [_known(each) for each in found[:LISTED_MAX]]


def threads(desk: Desk) -> list[Known]:
    """The threads of the newest messages, the newest first."""
    newest: dict[str, Message] = {}
    counts: dict[str, int] = {}
    for each in conversation(desk, None, LOOKED_AT):
        if each.thread:
            newest[each.thread] = each
            counts[each.thread] = counts.get(each.thread, 0) + 1
    out = []
    for thread, last in sorted(newest.items(), key=lambda pair: -pair[1].time):
        at = clock.iso(round(last.time * 1000))
        described = f"{counts[thread]} of the newest messages, the last by {last.agent} at {at}"
        out.append(Known(thread, thread, described, at))
    return out


def messages(desk: Desk, session: str) -> list[dict[str, Any]]:
    """The newest messages of a session, or of a thread, oldest of them first; none if there is neither."""
    found: list[parts.Message] = []
    if is_session_id(session) and desk.who.may_read(SESSIONS):
        store = desk.store

        def here() -> list[parts.Message]:
            places = (store, *desk.line.neighbours())
            return next((said for place in places if (said := _messages_in(place, session))), [])

        def everywhere() -> list[parts.Message]:
            newest = store._reader().hub.sessions.messages(session, newest_first=True, limit=MESSAGES_MAX)
            return newest[::-1] or here()

        found = desk.line.ask(everywhere, here)
    if found:
        told: list[dict[str, Any]] = [msgspec.json.decode(msgspec.json.encode(each)) for each in found]
        return told
    return [letter(each) for each in conversation(desk, session, MESSAGES_MAX)]


def _known(found: parts.Session) -> Known:
    title = str(found.metadata.get("title") or found.metadata.get("session") or found.id)
    said = [found.agent_name, str(found.metadata.get("tool") or ""), found.status, f"changed {found.updated_at}"]
    return Known(found.id, title, ", ".join(word for word in said if word), found.updated_at)


def _sessions_in(store: Store) -> list[parts.Session]:
    which = Filter(agents=(store.agent,), collection=SESSIONS, kinds=(SESSION,), current=True, limit=LISTED_MAX)
    found = (session_in(stored, None, store._blobs) for stored in store._log.corpus.page(which))
    return [each for each in found if each is not None]


def _messages_in(store: Store, session: str) -> list[parts.Message]:
    """Of a log, which has no table for them: by their keys, put in the order in which they were written."""
    newest: list[tuple[int, Any]] = []
    after, prefix = "", key_of(session, MESSAGE)
    while found := store._log.corpus.keys(store.agent, SESSIONS, prefix, after, _PAGE):
        after = found[-1].record.key
        newest = sorted([*newest, *((each.pos, each) for each in found)], key=lambda pair: pair[0])[-MESSAGES_MAX:]
    said = (message_in(stored, store._blobs) for _, stored in newest)
    return [each for each in said if each is not None]

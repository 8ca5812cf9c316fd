"""Sessions of the storage service: which there are, and what was said in one. To be read, and nothing else."""

from __future__ import annotations

from itertools import islice
from typing import Final

import msgspec

from holdfast.collections import sessions as parts
from holdfast.collections.sessions import Message, Session
from holdfast.corpus import storage
from holdfast.errors import HoldfastError, UsageError
from holdfast.hub.sessions import Sessions
from holdfast.hub.ui.pages import ROWS, SessionsAt
from holdfast.hub.ui.routes import Ask, View, no_page
from holdfast.log.marks import SESSIONS

TEXT_SHOWN: Final = 20_000


class SessionsPage(msgspec.Struct):
    """Sessions, the newest first; `next` goes into `after`."""

    sessions: list[Session]
    agent: str
    next: str | None


class SessionPage(msgspec.Struct):
    """A session and its messages in the order in which they were written; `next` goes into `after`."""

    session: Session
    messages: list[Message]
    next: str | None


async def sessions(ask: Ask) -> View:
    """GET /sessions: the newest, of all agents or of one."""
    ask.principal.check_read(SESSIONS)
    asked: SessionsAt = ask.query
    created, _, last = asked.after.partition(":")
    if asked.after and not created.isdigit():
        raise UsageError(f"not a place in the list: {asked.after!r:.80}", hint="begin at /sessions")
    which = storage.SessionFilter(
        agent=asked.agent or None,
        after=(int(created), last) if asked.after else None,
        newest_first=True,
        limit=ROWS + 1,
    )
    made = Sessions(ask.core)

    def look() -> SessionsPage:
        found = storage.sessions(ask.core.corpus, which)
        shown = []
        for _, stored in found[:ROWS]:
            try:
                shown.append(made.shown(stored))
            except HoldfastError:
                continue  # its record was damaged or erased: there is nothing to show of it
        following = None
        if len(found) > ROWS:
            at, stored = found[ROWS - 1]
            following = f"{at}:{parts.session_of(stored.record.key)}"
        return SessionsPage(shown, asked.agent, following)

    return View(template="sessions.html", title="Sessions", data=await ask.core.read(look))


async def session(ask: Ask) -> View:
    """GET /sessions/{id}: one, with its messages."""
    if len(ask.parts) != 1:
        raise no_page(ask.scope["path"])
    made, name, asked = Sessions(ask.core), ask.parts[0], ask.query
    if asked.after and not asked.after.isdigit():
        raise UsageError(f"not a place in the session: {asked.after!r:.80}", hint="begin at its start")
    agent = await made.readable(ask.principal, name)

    def look() -> SessionPage:
        shown = made.shown(made.root(agent, name))
        found = list(
            islice(made.messages(agent, name, after=int(asked.after or 0) or None, newest_first=False), ROWS + 1)
        )
        read = (parts.message_in(each, ask.core.home.blobs) for each in found[:ROWS])
        # Their parts are JSON as it came, which a page wants as values.
        messages = [msgspec.json.decode(msgspec.json.encode(each), type=Message) for each in read if each is not None]
        following = str(found[ROWS - 1].pos) if len(found) > ROWS else None
        return SessionPage(shown, messages, following)

    return View(
        template="session.html",
        title=name,
        data=await ask.core.read(look),
        extra={"most": TEXT_SHOWN},
    )

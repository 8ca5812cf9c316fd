"""Sessions of the storage service: which there are, what was said in one day by day, and how one ends or goes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import Any, Final

import msgspec
from msgspec import UNSET

from holdfast.collections import sessions as parts
from holdfast.collections.sessions import MESSAGE, STATE, Message, Session, key_of
from holdfast.corpus import storage
from holdfast.corpus.tally import keys_within
from holdfast.errors import HoldfastError, NotFound, UsageError
from holdfast.hub import storage_shapes as shapes
from holdfast.hub.api import Call
from holdfast.hub.principal import WRITE
from holdfast.hub.routes_sessions import LINES, Export, SessionWork
from holdfast.hub.sessions import Sessions
from holdfast.hub.ui.frame import pretty
from holdfast.hub.ui.pages import ROWS, SessionsAt
from holdfast.hub.ui.routes import Ask, View, no_page
from holdfast.hub.ui.words import named_url
from holdfast.hub.ui.zones import day_of, plain_time, read_in, zone_of
from holdfast.log.marks import SESSIONS

TEXT_SHOWN: Final = 20_000
COUNT_MAX: Final = 10_000
MARKDOWN: Final = "text/markdown; charset=utf-8"
STATUS: Final = ("active", "paused", "ended")
DONE: Final = {
    "ended": "Ended.",
    "reopened": "It is active again.",
    "deleted": "Deleted, with all that belongs to it.",
    "restored": "All of it is back.",
}


class SessionsPage(msgspec.Struct):
    """Sessions, the newest first; `next` goes into `after`. `deleted`: those that were, and no others."""

    sessions: list[Session]
    agent: str
    status: str
    deleted: bool
    next: str | None


class Cascade(msgspec.Struct):
    """What goes with a session: so many messages (at least, where `more`), artifacts, and whether it has a state."""

    messages: int
    more: bool
    artifacts: int
    state: bool


class Made(msgspec.Struct):
    """An artifact of a session; without a digest its bytes are not here."""

    id: str
    name: str
    type: str
    size: int
    digest: str | None


class SessionPage(msgspec.Struct):
    """A session and its messages in the order in which they were written; `next` goes into `after`."""

    session: Session
    messages: list[Message]
    artifacts: list[Made]
    cascade: Cascade
    may_change: bool
    next: str | None


async def sessions(ask: Ask) -> View:
    """GET /sessions: the newest, of all agents or of one; or those that were deleted."""
    ask.principal.check_read(SESSIONS)
    asked: SessionsAt = ask.query
    created, _, last = asked.after.partition(":")
    if asked.after and not created.isdigit():
        raise UsageError(f"not a place in the list: {asked.after!r:.80}", hint="begin at /sessions")
    if asked.status and asked.status not in STATUS:
        raise UsageError(f"no session is {asked.status!r:.40}", hint=", ".join(STATUS))
    most, deleted = ROWS * ask.scale, asked.deleted == "1"
    which = storage.SessionFilter(
        agent=asked.agent or None,
        status=asked.status or None,
        deleted=deleted,
        after=(int(created), last) if asked.after else None,
        newest_first=True,
        limit=most + 1,
    )
    made = Sessions(ask.core)

    def look() -> SessionsPage:
        found = storage.sessions(ask.core.corpus, which)
        shown = []
        for _, stored in found[:most]:
            try:
                gone = None
                if deleted:
                    gone = storage.any_newest(ask.core.corpus, stored.agent, SESSIONS, stored.record.key)
                shown.append(made.shown(stored, gone[1] if gone else None))
            except HoldfastError:
                continue  # its record was damaged or erased: there is nothing to show of it
        following = None
        if len(found) > most:
            at, stored = found[most - 1]
            following = f"{at}:{parts.session_of(stored.record.key)}"
        return SessionsPage(shown, asked.agent, asked.status, deleted, following)

    data = await ask.core.read(look)
    undo = asked.session if asked.done == "deleted" and parts.is_session_id(asked.session) else ""
    extra = {"done": DONE.get(asked.done, ""), "undo": undo, "may_write": ask.principal.may(WRITE)}
    return View(template="sessions.html", title="Sessions", data=data, rows="sessions", extra=extra)


async def session(ask: Ask) -> View:
    """GET /sessions/{id}: one, with its messages; or all of it as a file."""
    if len(ask.parts) != 1:
        raise no_page(ask.scope["path"])
    made, name, asked = Sessions(ask.core), ask.parts[0], ask.query
    if asked.after and not asked.after.isdigit():
        raise UsageError(f"not a place in the session: {asked.after!r:.80}", hint="begin at its start")
    agent = await made.readable(ask.principal, name)
    if asked.format:
        return await _file(ask, made, agent, name)

    def look() -> SessionPage:
        shown = made.shown(made.root(agent, name))
        found = list(islice(made.messages(agent, name, after=int(asked.after or 0) or None), ROWS + 1))
        read = (parts.message_in(each, ask.core.home.blobs) for each in found[:ROWS])
        # Their parts are JSON as it came, which a page wants as values.
        messages = [msgspec.json.decode(msgspec.json.encode(each), type=Message) for each in read if each is not None]
        following = str(found[ROWS - 1].pos) if len(found) > ROWS else None
        may = ask.principal.may(WRITE) and ask.principal.may_write(agent, SESSIONS)
        made_here = [] if asked.after else _made(made, agent, name)
        return SessionPage(shown, messages, made_here, _cascade(ask, agent, name), may, following)

    data = await ask.core.read(look)
    extra = {"most": TEXT_SHOWN, "days": _days(data.messages, zone_of(ask)), "done": DONE.get(asked.done, "")}
    return View(template="session.html", title=name, data=data, extra=extra)


async def change(ask: Ask) -> View:
    """POST /sessions/change: end, open again, delete, bring back, by the very work of the API."""
    form, what, name = ask.form, ask.form.get("what", ""), ask.form.get("session", "")
    work, place = SessionWork(Sessions(ask.core)), named_url("sessions", name)
    if what in ("end", "reopen"):
        body = shapes.SessionChange(status="ended" if what == "end" else "active")
        await work.change(_call(ask, name, body=body))
        return _to(f"{place}?done={'ended' if what == 'end' else 'reopened'}")
    if what == "delete":
        await work.delete(_call(ask, name, version=form.get("version", "")))
        return _to(f"/sessions?done=deleted&session={name}")
    if what == "restore":
        await work.restore(_call(ask, name, query=shapes.RestoreAsked()))
        return _to(f"{place}?done=restored")
    raise UsageError(f"cannot do {what!r:.40} with a session", hint="use the forms of its page")


def _to(place: str) -> View:
    return View(status=303, headers=(("location", place),))


def _call(ask: Ask, session: str, *, query: Any = None, body: Any = None, version: str = "") -> Call:
    """The request of the API that a form stands for; with a version, about that one alone.

    Raises:
        NotFound: that names no session.
    """
    if not parts.is_session_id(session):
        raise NotFound(f"there is no session {session!r:.140}", hint="Sessions shows what there is")
    match = [(b"if-match", b'"%d"' % int(version))] if version.isdigit() and len(version) < 19 else []
    scope = {**ask.scope, "path_params": {"id": session}, "headers": [*ask.scope["headers"], *match]}
    return Call(scope, query, body, 0)


def _made(made: Sessions, agent: str, name: str) -> list[Made]:
    out = []
    for about, content in islice(made.artifacts(agent, name), ROWS):
        found = parts.artifact_in(about, parts.reference_in(content), made.core.home.blobs)
        if found is not None:
            out.append(Made(found.id, found.name, found.type, found.size, found.digest))
    return out


def _cascade(ask: Ask, agent: str, name: str) -> Cascade:
    """What a deletion of a session would take with it."""
    corpus = ask.core.corpus
    messages = keys_within(corpus, agent, SESSIONS, key_of(name, MESSAGE), COUNT_MAX + 1)
    artifacts = sum(1 for _ in islice(Sessions(ask.core).artifacts(agent, name), COUNT_MAX // 10))
    state = corpus.newest(agent, SESSIONS, key_of(name, STATE)) is not None
    return Cascade(min(messages, COUNT_MAX), messages > COUNT_MAX, artifacts, state)


def _days(messages: list[Message], zone: str) -> list[tuple[str, list[Message]]]:
    """The messages by the days of their times in a zone, in their own order."""
    days: list[tuple[str, list[Message]]] = []
    with read_in(zone):
        for each in messages:
            day = day_of(each.timestamp)
            if not days or days[-1][0] != day:
                days.append((day, []))
            days[-1][1].append(each)
    return days


# -- as a file -----------------------------------------------------------------------------------------------------


async def _file(ask: Ask, made: Sessions, agent: str, name: str) -> View:
    kinds = {"jsonl": LINES, "md": MARKDOWN}
    kind = ask.query.format
    if kind not in kinds:
        raise UsageError(f"cannot write a session as {kind!r:.40}", hint="format=jsonl or format=md")
    root = await ask.core.read(lambda: made.root(agent, name))
    headers = (("content-disposition", f'attachment; filename="{name}.{kind}"'),)
    pieces = Export(made).pieces(agent, name, root) if kind == "jsonl" else _markdown(ask, made, agent, name)
    return View(kind=kinds[kind], headers=headers, pieces=pieces)


async def _markdown(ask: Ask, made: Sessions, agent: str, name: str) -> AsyncIterator[bytes]:
    lines = _paragraphs(ask, made, agent, name)
    while piece := await ask.core.read(lambda: "".join(islice(lines, ROWS))):
        yield piece.encode("utf-8", "replace")


def _paragraphs(ask: Ask, made: Sessions, agent: str, name: str) -> Iterator[str]:
    """A session as Markdown: what was said is quoted, so that nothing of it is taken for structure."""
    shown = made.shown(made.root(agent, name))
    told = f"{shown.status}, begun {plain_time(shown.created_at)}"
    yield f"# {name}\n\nAgent: `{agent}`. {told}.\n"
    day = ""
    for stored in made.messages(agent, name):
        each = parts.message_in(stored, ask.core.home.blobs)
        if each is None:
            continue
        if each.timestamp[:10] != day:  # a file says its times in UTC, whoever asks for it
            day = each.timestamp[:10]
            yield f"\n## {day}\n"
        content = msgspec.json.decode(msgspec.json.encode(each.content))
        missing = each.missing if each.missing is not UNSET else ""
        text = content if isinstance(content, str) else f"(no content: {missing})" if missing else pretty(content)
        quoted = "\n".join(f"> {line}".rstrip() for line in text.split("\n"))
        yield f"\n**{each.role or 'unknown'}**, {plain_time(each.timestamp)}:\n\n{quoted}\n"

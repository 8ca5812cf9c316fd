"""Google ADK's services: sessions, artifacts and memory, on a node or at a hub.

    runner = Runner(
        agent=agent, app_name="app", session_service=HoldfastSessionService("./node", agent="laptop"), …
    )

The one door to the ADK.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
import time
import unicodedata
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from holdfast.collections.typed import Collection
from holdfast.errors import Conflict, MissingExtra
from holdfast.integrations.bodies import Bodies
from holdfast.integrations.conversation import Conversations
from holdfast.integrations.entries import Conversation, Name
from holdfast.integrations.place import Place, Where, segment, settled
from holdfast.query import where

try:
    from google.adk.artifacts.base_artifact_service import ArtifactVersion, BaseArtifactService, ensure_part
    from google.adk.errors._stale_session_error import StaleSessionError
    from google.adk.errors.already_exists_error import AlreadyExistsError
    from google.adk.errors.input_validation_error import InputValidationError
    from google.adk.errors.session_not_found_error import SessionNotFoundError
    from google.adk.events.event import Event
    from google.adk.memory.base_memory_service import BaseMemoryService, SearchMemoryResponse
    from google.adk.memory.memory_entry import MemoryEntry
    from google.adk.sessions.base_session_service import BaseSessionService, GetSessionConfig, ListSessionsResponse
    from google.adk.sessions.session import Session
    from google.adk.sessions.state import State
    from google.genai import types
except ImportError as error:  # pragma: no cover - tests/house has a bare install
    raise MissingExtra("the Google ADK is not installed", hint="pip install 'holdfast[adk]'") from error

SESSIONS: Final = "adk"
ARTIFACTS: Final = "adk-artifacts"
MEMORY: Final = "adk-memory"
_MARK: Final = "_storage_update_marker"
"""What an ADK session remembers of its storage: here, the revision that it was read at."""
_WORD: Final = re.compile(r"\w+")
_WORDS_MAX: Final = 1000
_FOUND_MAX: Final = 10


class Shared(msgspec.Struct, kw_only=True):
    """The state that all sessions of an app, or of one of its users, have in common."""

    values: dict[str, Any]


class HoldfastSessionService(BaseSessionService):
    """Sessions with their events and state. Who appends to a session that has moved on hears so (`StaleSessionError`).

    An event and what it changes of its session's state are one write; what it changes of the app's and the user's state
    follows right behind it. Earlier states and forks: `conversations`, whose names are ``(app_name, user_id,
    session_id)``.

    Args:
        where, agent, shared: where they are kept; see `Place`.
        collection: the name under which they are kept.
    """

    def __init__(
        self, where: Where, *, agent: str | None = None, shared: bool | None = None, collection: str = SESSIONS
    ) -> None:
        place = Place(where, agent=agent, shared=shared)
        self.conversations = Conversations(place, collection)
        self._states: Collection[Shared] = place.collection(f"{collection}.state", Shared)

    async def create_session(
        self,
        *,
        app_name: str,
        user_id: str,
        state: dict[str, Any] | None = None,
        session_id: str | None = None,
    ) -> Session:
        """Begins a session.

        Raises:
            AlreadyExistsError: there is one of this id.
        """
        name = (app_name, user_id, (session_id or "").strip() or str(uuid.uuid4()))
        return await settled(self._create, name, dict(state or {}))

    async def get_session(
        self, *, app_name: str, user_id: str, session_id: str, config: GetSessionConfig | None = None
    ) -> Session | None:
        """A session with its events, or the newest of them; None if there is none."""
        return await settled(self._get, (app_name, user_id, session_id.strip()), config)

    async def list_sessions(self, *, app_name: str, user_id: str | None = None) -> ListSessionsResponse:
        """The sessions of an app, or of one of its users, without their events; what was changed first comes first."""
        return ListSessionsResponse(sessions=await settled(self._list, app_name, user_id))

    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Takes a session away; one that is not there is fine. The app's and the user's state stay."""
        await settled(self.conversations.delete, (app_name, user_id, session_id))

    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        """The state that all sessions of a user have in common."""
        return await settled(self._state, app_name, user_id)

    async def append_event(self, session: Session, event: Event) -> Event:
        """Adds an event to a session, and what it changes to the states.

        Raises:
            StaleSessionError: the session has moved on since it was read.
            SessionNotFoundError: it is not there any more.
        """
        if event.partial:
            return event
        self._apply_temp_state(session, event)
        event = self._trim_temp_delta_state(event)
        revision = await settled(self._append, session, event)
        session.last_update_time = event.timestamp
        _mark(session, revision)
        return self._commit_event_to_session(session, event)

    def close(self) -> None:
        """Closes the place, if it was opened here."""
        self.conversations.place.close()

    # -- inside ---------------------------------------------------------------------------------------------------

    def _create(self, name: Name, state: dict[str, Any]) -> Session:
        app, user, own = _divided(state)
        now = time.time()
        try:
            made = self.conversations.append(name, [], expect=0, change=lambda _, __: {"state": own, "time": now})
        except Conflict as error:
            raise AlreadyExistsError(f"Session with id {name[2]} already exists.") from error
        self._merge(name, app, user)
        return self._session(made, [])

    def _get(self, name: Name, config: GetSessionConfig | None) -> Session | None:
        found = self.conversations.get(name)
        if found is None:
            return None
        most = config.num_recent_events if config else None
        since = config.after_timestamp if config else None
        entries = self.conversations.load(name, at=found.revision, limit=None if since else most) or []
        events = [Event.model_validate(each) for each in entries]
        if since:
            events = [each for each in events if each.timestamp >= since]
        if most is not None:
            events = events[-most:] if most > 0 else []
        return self._session(found, events)

    def _list(self, app: str, user: str | None) -> list[Session]:
        found = self.conversations.list((app,) if user is None else (app, user), deep=user is None)
        sessions = [self._session(each, []) for each in found]
        return sorted(sessions, key=lambda each: (each.last_update_time, each.user_id, each.id))

    def _append(self, session: Session, event: Event) -> int:
        name = (session.app_name, session.user_id, session.id)
        found = self.conversations.get(name)
        if found is None:
            raise SessionNotFoundError(f"Session {session.id} not found.")
        seen = getattr(session, _MARK, None)
        stale = found.revision != int(seen) if seen else found.state["time"] > session.last_update_time
        app, user, own = _divided(event.actions.state_delta if event.actions else {})

        def change(state: dict[str, Any], _: list[Any]) -> dict[str, Any]:
            return {**state, "state": {**state["state"], **own}, "time": event.timestamp}

        try:
            if stale:
                raise Conflict(f"it was read at another revision than {found.revision}")
            entry = event.model_dump(mode="json", exclude_none=True)
            made = self.conversations.append(name, [entry], expect=found.revision, change=change)
        except Conflict as error:
            raise StaleSessionError(
                f"Session {session.id} has changed since it was read; get it again and append to that."
            ) from error
        self._merge(name, app, user)
        return made.revision

    def _merge(self, name: Name, app: Mapping[str, Any], user: Mapping[str, Any]) -> None:
        for key, delta in ((segment(name[0]), app), (f"{segment(name[0])}/{segment(name[1])}", user)):
            if delta:
                self._states.update(key, functools.partial(_merged, delta), default=Shared(values={}))

    def _state(self, app: str, user: str | None = None) -> dict[str, Any]:
        key = segment(app) if user is None else f"{segment(app)}/{segment(user)}"
        return self._states.get(key, default=Shared(values={})).values

    def _session(self, found: Conversation, events: list[Event]) -> Session:
        app, user, session = found.name
        state = dict(found.state["state"])
        state |= {f"{State.APP_PREFIX}{key}": each for key, each in self._state(app).items()}
        state |= {f"{State.USER_PREFIX}{key}": each for key, each in self._state(app, user).items()}
        made = Session(
            app_name=app, user_id=user, id=session, state=state, events=events, last_update_time=found.state["time"]
        )
        _mark(made, found.revision)
        return made


class HoldfastArtifactService(BaseArtifactService):
    """Artifacts by name, each with versions from 0 on. Names with ``user:``, or without a session, are the user's.

    Args:
        where, agent, shared: see `HoldfastSessionService`.
        collection: the name under which they are kept.
    """

    def __init__(
        self, where: Where, *, agent: str | None = None, shared: bool | None = None, collection: str = ARTIFACTS
    ) -> None:
        self.bodies = Bodies(Place(where, agent=agent, shared=shared), collection)

    async def save_artifact(
        self,
        *,
        app_name: str,
        user_id: str,
        filename: str,
        artifact: types.Part | dict[str, Any],
        session_id: str | None = None,
        custom_metadata: dict[str, Any] | None = None,
    ) -> int:
        """Stores the next version of an artifact, and returns its number.

        Raises:
            InputValidationError: an impossible name, or an artifact that holds neither bytes, text, nor a reference.
        """
        part = ensure_part(artifact)
        name = _artifact(app_name, user_id, session_id, filename)
        return await settled(self._save, name, part, dict(custom_metadata or {}))

    async def load_artifact(
        self,
        *,
        app_name: str,
        user_id: str,
        filename: str,
        session_id: str | None = None,
        version: int | None = None,
    ) -> types.Part | None:
        """A version of an artifact, or its newest; None if there is none."""
        return await settled(self._load, _artifact(app_name, user_id, session_id, filename), version)

    async def list_artifact_keys(self, *, app_name: str, user_id: str, session_id: str | None = None) -> list[str]:
        """The names of the artifacts of a session and of the user, sorted."""
        scopes = [_artifact(app_name, user_id, None, "x")[:3]]
        if session_id:
            scopes.append(_artifact(app_name, user_id, session_id, "x")[:3])
        found = set[str]()
        for scope in scopes:
            found |= {each.name[3] for each in await settled(self.bodies.conversations.list, scope, deep=True)}
        return sorted(found)

    async def delete_artifact(
        self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None
    ) -> None:
        """Takes an artifact away with all its versions; one that is not there is fine."""
        await settled(self.bodies.delete_below, _artifact(app_name, user_id, session_id, filename))

    async def list_versions(
        self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None
    ) -> list[int]:
        """The numbers of an artifact's versions."""
        found = await settled(self._versions, _artifact(app_name, user_id, session_id, filename))
        return [int(each.name[-1]) for each in found]

    async def list_artifact_versions(
        self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None
    ) -> list[ArtifactVersion]:
        """What is known of each of an artifact's versions."""
        found = await settled(self._versions, _artifact(app_name, user_id, session_id, filename))
        return [self._described(each) for each in found]

    async def get_artifact_version(
        self,
        *,
        app_name: str,
        user_id: str,
        filename: str,
        session_id: str | None = None,
        version: int | None = None,
    ) -> ArtifactVersion | None:
        """What is known of a version of an artifact, or of its newest; None if there is none."""
        found = await settled(self._versions, _artifact(app_name, user_id, session_id, filename))
        wanted = [each for each in found if version is None or int(each.name[-1]) == version]
        return self._described(wanted[-1]) if wanted else None

    def close(self) -> None:
        """Closes the place, if it was opened here."""
        self.bodies.place.close()

    # -- inside ---------------------------------------------------------------------------------------------------

    def _versions(self, name: Name) -> list[Conversation]:
        return sorted(self.bodies.conversations.list(name), key=lambda each: each.name[-1])

    def _save(self, name: Name, part: types.Part, custom: dict[str, Any]) -> int:
        about: dict[str, Any] = {"custom": custom, "made": time.time()}
        if part.inline_data is not None:
            body = part.inline_data.data or b""
            about |= {"kind": "bytes", "mime": part.inline_data.mime_type, "shown": part.inline_data.display_name}
        elif part.text is not None:
            body, about["kind"] = part.text.encode("utf-8", "surrogatepass"), "text"
        elif part.file_data is not None:
            body = b""
            about |= {"kind": "file", "uri": part.file_data.file_uri, "mime": part.file_data.mime_type}
        else:
            raise InputValidationError("Artifact must have either inline_data or text content.")
        versions = self._versions(name)
        number = int(versions[-1].name[-1]) + 1 if versions else 0
        while True:
            try:
                self.bodies.put((*name, f"{number:08}"), body, expect=0, about=about)
                return number
            except Conflict:
                number += 1

    def _load(self, name: Name, version: int | None) -> types.Part | None:
        if version is None:
            versions = self._versions(name)
            if not versions:
                return None
            version = int(versions[-1].name[-1])
        key = (*name, f"{version:08}")
        found = self.bodies.info(key)
        if found is None:
            return None
        if found.state["kind"] == "file":
            return types.Part(file_data=types.FileData(file_uri=found.state["uri"], mime_type=found.state["mime"]))
        body = self.bodies.get(key, at=found.revision) or b""
        if found.state["kind"] == "text":
            return types.Part(text=body.decode("utf-8", "surrogatepass"))
        blob = types.Blob(data=body, mime_type=found.state["mime"], display_name=found.state["shown"])
        return types.Part(inline_data=blob)

    def _described(self, found: Conversation) -> ArtifactVersion:
        address = "/".join(segment(each) for each in found.name[:-1])
        state = found.state
        return ArtifactVersion(
            version=int(found.name[-1]),
            canonical_uri=state.get("uri") or f"holdfast://{address}?version={int(found.name[-1])}",
            custom_metadata=state["custom"],
            create_time=state["made"],
            mime_type=state.get("mime") or ("text/plain" if state["kind"] == "text" else None),
        )


class Remembered(msgspec.Struct, kw_only=True):
    """Something that was said, and the words that it is found by; without words, something that was forgotten."""

    whose: str
    id: str
    words: list[str]
    entry: dict[str, Any]


class HoldfastMemoryService(BaseMemoryService):
    """What was said in sessions: of all that has a word of the query in it, the ten that have most of them.

    Args:
        where, agent, shared: see `HoldfastSessionService`.
        collection: the name under which it is kept.
    """

    def __init__(
        self, where: Where, *, agent: str | None = None, shared: bool | None = None, collection: str = MEMORY
    ) -> None:
        self._place = Place(where, agent=agent, shared=shared)
        self._said: Collection[Remembered] = self._place.collection(
            collection, Remembered, index=("whose", "words", "id")
        )

    async def add_session_to_memory(self, session: Session) -> None:
        """Remembers the events of a session; those that are there already, or were deleted, stay as they are."""
        await settled(self._add, session.app_name, session.user_id, session.id, list(session.events))

    async def add_events_to_memory(
        self,
        *,
        app_name: str,
        user_id: str,
        events: Sequence[Event],
        session_id: str | None = None,
        custom_metadata: Mapping[str, object] | None = None,
    ) -> None:
        """Remembers some events."""
        await settled(self._add, app_name, user_id, session_id or "", list(events))

    async def search_memory(self, *, app_name: str, user_id: str, query: str) -> SearchMemoryResponse:
        """What a user said, or was told, that has words of a query in it; most of them first."""
        words = sorted(_words(query))[:_WORDS_MAX]
        if not words:
            return SearchMemoryResponse()
        condition = (where("whose") == _whose(app_name, user_id)) & where("words").is_in(words)
        found = await settled(lambda: [item.value for item in self._place.every(self._said, condition)])
        found.sort(key=lambda each: -len(set(words).intersection(each.words)))
        return SearchMemoryResponse(memories=[MemoryEntry.model_validate(each.entry) for each in found[:_FOUND_MAX]])

    async def delete_memory(self, *, app_name: str, user_id: str, memory_id: str | None = None) -> None:
        """Forgets an event; it is not remembered again when its session is added once more."""
        if memory_id:
            await settled(self._forget, _whose(app_name, user_id), memory_id)

    def close(self) -> None:
        """Closes the place, if it was opened here."""
        self._place.close()

    def _add(self, app: str, user: str, session: str, events: list[Event]) -> None:
        whose = _whose(app, user)
        for event in events:
            if not event.content or not event.content.parts:
                continue
            text = " ".join(part.text for part in event.content.parts if part.text)
            when = datetime.fromtimestamp(event.timestamp).isoformat()
            entry = MemoryEntry(content=event.content, author=event.author, timestamp=when, id=event.id)
            plain = entry.model_dump(mode="json", exclude_none=True)
            kept = Remembered(whose=whose, id=event.id, words=sorted(_words(text)), entry=plain)
            with contextlib.suppress(Conflict):
                self._said.put(f"{whose}/{segment(session)}/{segment(event.id)}", kept, expect=0)

    def _forget(self, whose: str, event: str) -> None:
        condition = (where("whose") == whose) & (where("id") == event)
        for item in list(self._place.every(self._said, condition)):
            self._said.put(item.key, Remembered(whose=whose, id=event, words=[], entry={}))


def _whose(app: str, user: str) -> str:
    return f"{segment(app)}/{segment(user)}"


def _words(text: str) -> set[str]:
    """The words of a text in lower case; of one in two scripts, as Japanese with English in it, its runs too."""
    words = {word.lower() for word in _WORD.findall(unicodedata.normalize("NFC", text))}
    for word in [word for word in words if not word.isascii()]:
        words.update("".join(run) for _, run in itertools.groupby(word, _is_latin))
    return words


def _is_latin(sign: str) -> bool:
    return sign.isascii() or unicodedata.name(sign, "").startswith("LATIN")


def _merged(delta: Mapping[str, Any], old: Shared) -> Shared:
    return Shared(values={**old.values, **delta})


def _mark(session: Session, revision: int) -> None:
    with contextlib.suppress(AttributeError, ValueError):
        setattr(session, _MARK, str(revision))


def _divided(state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What of a change is the app's, the user's and the session's; what is temporary is nobody's."""
    app = {key.removeprefix(State.APP_PREFIX): each for key, each in state.items() if key.startswith(State.APP_PREFIX)}
    user = {
        key.removeprefix(State.USER_PREFIX): each for key, each in state.items() if key.startswith(State.USER_PREFIX)
    }
    ours = (State.APP_PREFIX, State.USER_PREFIX, State.TEMP_PREFIX)
    return app, user, {key: each for key, each in state.items() if not key.startswith(ours)}


def _artifact(app: str, user: str, session: str | None, filename: str) -> Name:
    """The name of an artifact.

    Raises:
        InputValidationError: one that a file system could not have, or that leads out of its scope.
    """
    for what, value in (("app_name", app), ("user_id", user), ("session_id", session)):
        if value is None and what == "session_id":
            continue
        if not value or "\0" in value or "/" in value or "\\" in value or value in (".", ".."):
            raise InputValidationError(f"{what} {value!r:.80} is empty, or has separators or steps in it")
    bare = filename.removeprefix("user:").replace("\\", "/").strip()
    if bare.startswith("/") or ".." in bare.split("/") or "\0" in bare or re.match(r"[A-Za-z]:", bare):
        raise InputValidationError(f"Artifact filename {filename!r:.200} leads out of its scope")
    mine = session is None or filename.startswith("user:")
    return (app, user, "user" if mine else f"session:{session}", filename)

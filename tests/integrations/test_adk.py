"""The ADK's in-memory services as the oracles; what they do not refuse; every place; two machines."""

from __future__ import annotations

import asyncio
import tempfile
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast import Store
from tests.integrations.places import LIMITS, MISSING, fresh
from tests.integrations.places import hub as hub
from tests.integrations.places import kept as kept
from tests.integrations.places import machines as machines

pytest.importorskip("google.adk", reason=MISSING)

from google.adk.artifacts.in_memory_artifact_service import InMemoryArtifactService
from google.adk.errors._stale_session_error import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.input_validation_error import InputValidationError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.memory.in_memory_memory_service import InMemoryMemoryService
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.sessions.in_memory_session_service import InMemorySessionService
from google.adk.sessions.session import Session
from google.genai import types

from holdfast.integrations.adk import (
    HoldfastArtifactService,
    HoldfastMemoryService,
    HoldfastSessionService,
)

USERS = st.sampled_from(["u", "ü/2"])
IDS = st.sampled_from(["1", "2", " 1 "])
DELTAS = st.dictionaries(
    st.sampled_from(["a", "b", "app:a", "user:a", "temp:a"]),
    st.sampled_from([1, 1.5, "x", None, {"n": [1]}]),
    max_size=3,
)
SESSION_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("create"), USERS, IDS, DELTAS),
        st.tuples(st.just("append"), USERS, IDS, DELTAS),
        st.tuples(
            st.just("get"), USERS, IDS, st.sampled_from([{}, {"num_recent_events": 1}, {"num_recent_events": 0}])
        ),
        st.tuples(st.just("since"), USERS, IDS, st.integers(1, 9)),
        st.tuples(st.just("delete"), USERS, IDS, st.none()),
    ),
    max_size=12,
)
ARTIFACT_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["save", "save", "load", "load_first", "keys", "versions", "described", "delete"]),
        st.sampled_from(["s1", "s2"]),
        st.sampled_from(["a", "a/b", "user:a", "../a", "ü"]),
        st.integers(0, 2),
    ),
    max_size=12,
)


class Sessions:
    """Plays steps on one service, with a clock of its own."""

    def __init__(self, service: Any) -> None:
        self.service = service
        self.clock = 0

    async def step(self, what: str, user: str, name: str, more: Any) -> Any:
        key = {"app_name": "app", "user_id": user, "session_id": name}
        self.clock += 1
        try:
            if what == "create":
                return plain(await self.service.create_session(**key, state=more))
            if what == "get":
                return plain(await self.service.get_session(**key, config=GetSessionConfig(**more)))
            if what == "since":
                return plain(await self.service.get_session(**key, config=GetSessionConfig(after_timestamp=more)))
            if what == "delete":
                return await self.service.delete_session(**{**key, "session_id": name.strip()})
            session = await self.service.get_session(**key)
            if session is None:
                return None
            event = Event(
                id=f"e{self.clock}",
                author="user",
                timestamp=float(self.clock),
                invocation_id="i",
                partial=self.clock % 5 == 0,
                actions=EventActions(state_delta=dict(more)),
                content=types.Content(role="user", parts=[types.Part(text="hi"), picture(b"\x00\xff")]),
            )
            await self.service.append_event(session, event)
            return plain(session)
        except AlreadyExistsError:
            return "exists"

    async def seen(self) -> Any:
        rows = []
        for user in (None, "u", "ü/2"):
            found = await self.service.list_sessions(app_name="app", user_id=user)
            rows.append(sorted((plain(each) for each in found.sessions), key=repr))
        return rows


def picture(data: bytes) -> types.Part:
    return types.Part(inline_data=types.Blob(data=data, mime_type="image/png"))


def plain(session: Session | None) -> Any:
    if session is None:
        return None
    events = [each.model_dump(mode="json", exclude_none=True) for each in session.events]
    return session.user_id, session.id, {k: v for k, v in session.state.items() if v is not None}, events


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(steps=SESSION_STEPS)
def test_sessions_are_what_the_adks_own_are(steps: list[tuple[Any, ...]]) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as directory, Store(directory, "ada", hub=[], limits=LIMITS) as store:
            ours, theirs = Sessions(HoldfastSessionService(store)), Sessions(InMemorySessionService())
            for step in steps:
                assert await ours.step(*step) == await theirs.step(*step), step
                assert await ours.seen() == await theirs.seen(), step

    asyncio.run(run())


async def artifact(service: Any, what: str, session: str, filename: str, number: int) -> Any:
    key = {"app_name": "app", "user_id": "u", "session_id": session}
    named = {**key, "filename": filename}
    try:
        if what == "save":
            part = [types.Part(text=f"t{number}"), picture(b"\x00" * number), types.Part(text="")][number]
            return await service.save_artifact(**named, artifact=part, custom_metadata={"n": number})
        if what == "load":
            return await service.load_artifact(**named)
        if what == "load_first":
            return await service.load_artifact(**named, version=number)
        if what == "keys":
            return await service.list_artifact_keys(**key)
        if what == "versions":
            return await service.list_versions(**named)
        if what == "described":
            found = await service.list_artifact_versions(**named)
            one = await service.get_artifact_version(**named, version=number)
            return [(each.version, each.custom_metadata) for each in found], one and one.version
        return await service.delete_artifact(**named)
    except InputValidationError:
        return "refused"


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(steps=ARTIFACT_STEPS)
def test_artifacts_are_what_the_adks_own_are(steps: list[tuple[Any, ...]]) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as directory, Store(directory, "ada", hub=[], limits=LIMITS) as store:
            ours, theirs = HoldfastArtifactService(store), InMemoryArtifactService()
            for what, session, filename, number in steps:
                if filename == "../a":  # theirs lets it through: it has no files
                    assert await artifact(ours, "save", session, filename, number) == "refused"
                    continue
                # Theirs takes an empty text for nothing at all.
                found = await artifact(ours, what, session, filename, min(number, 1))
                assert found == await artifact(theirs, what, session, filename, min(number, 1)), (what, filename)

    asyncio.run(run())


WORDS = ["red fox", "the red hen", "red red", "私はPythonを使う", "", "fox hen"]


@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(
    said=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(WORDS)), max_size=14),
    queries=st.lists(st.sampled_from(["red", "fox red", "Python", "none", ""]), max_size=3),
    gone=st.integers(0, 5),
)
def test_memory_is_what_the_adks_own_is(said: list[tuple[str, str]], queries: list[str], gone: int) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as directory, Store(directory, "ada", hub=[], limits=LIMITS) as store:
            both: list[Any] = [HoldfastMemoryService(store), InMemoryMemoryService()]
            sessions = {name: Session(app_name="app", user_id="u", id=name) for name in "ab"}
            for number, (name, text) in enumerate(sorted(said)):
                content = types.Content(role="user", parts=[types.Part(text=text)])
                sessions[name].events.append(Event(id=f"e{number}", author="user", timestamp=number, content=content))
            whose = {"app_name": "app", "user_id": "u"}
            for service in both:
                for _ in range(2):
                    for session in sessions.values():
                        await service.add_session_to_memory(session)
                    await service.delete_memory(**whose, memory_id=f"e{gone}")
            for query in queries:
                found = [(await each.search_memory(**whose, query=query)).memories for each in both]
                assert found[0] == found[1], query
            assert (await both[0].search_memory(app_name="app", user_id="other", query="red")).memories == []

    asyncio.run(run())


def test_everything_is_the_same_at_every_place(kept: dict[str, Any]) -> None:
    async def run() -> None:
        service = HoldfastSessionService(**kept)
        ours, theirs = Sessions(service), Sessions(InMemorySessionService())
        for step in [
            ("create", "u", "1", {"a": 1, "app:a": 2, "user:a": 3, "temp:a": 4}),
            ("create", "u", " 1 ", {}),
            ("append", "u", "1", {"a": {"n": 1}, "app:a": 5}),
            ("append", "u", "1", {"user:a": "x"}),
            ("get", "u", "1", {"num_recent_events": 1}),
            ("delete", "u", "1", None),
        ]:
            assert await ours.step(*step) == await theirs.step(*step), step
            assert await ours.seen() == await theirs.seen(), step
        assert await service.get_user_state(app_name="app", user_id="u") == {"a": "x"}

        one = await service.create_session(app_name="app", user_id="u", session_id="s")
        other = await service.get_session(app_name="app", user_id="u", session_id="s")
        await service.append_event(one, Event(author="user", timestamp=1))
        await service.append_event(one, Event(author="user", timestamp=1))
        assert other is not None
        with pytest.raises(StaleSessionError):
            await service.append_event(other, Event(author="user", timestamp=9))
        await service.delete_session(app_name="app", user_id="u", session_id="s")
        with pytest.raises(SessionNotFoundError):
            await service.append_event(one, Event(author="user", timestamp=2))

        artifacts = HoldfastArtifactService(**{**kept, "collection": fresh()})
        assert [await artifact(artifacts, "save", "s1", "a", n) for n in (0, 1)] == [0, 1]
        assert await artifact(artifacts, "load", "s1", "a", 0) == picture(b"\x00")
        reference = types.Part(file_data=types.FileData(file_uri="gs://b/x", mime_type="text/plain"))
        key = {"app_name": "app", "user_id": "u", "filename": "user:r"}
        await artifacts.save_artifact(**key, artifact=reference)
        assert await artifacts.load_artifact(**key) == reference
        with pytest.raises(InputValidationError):
            await artifacts.save_artifact(**key, artifact=types.Part())
        memory = HoldfastMemoryService(**{**kept, "collection": fresh()})
        event = Event(author="user", timestamp=1, content=types.Content(parts=[types.Part(text="red fox")]))
        await memory.add_events_to_memory(app_name="app", user_id="u", events=[event, event])
        found = await memory.search_memory(app_name="app", user_id="u", query="Fox?")
        assert len(found.memories) == 1

    asyncio.run(run())


def test_a_session_begun_on_one_machine_goes_on_on_the_other(machines: tuple[Store, Store]) -> None:
    name = fresh()

    async def run() -> None:
        there, here = (HoldfastSessionService(each, shared=True, collection=name) for each in machines)
        key = {"app_name": "app", "user_id": "u", "session_id": "s"}
        begun = await there.create_session(**key, state={"a": 1})
        await there.append_event(begun, Event(author="user", timestamp=1))
        session = await here.get_session(**key)
        assert session is not None
        await here.append_event(session, Event(author="model", timestamp=2, actions=EventActions(state_delta={"a": 2})))
        with pytest.raises(StaleSessionError):
            await there.append_event(begun, Event(author="user", timestamp=3))
        found = await there.get_session(**key)
        assert found is not None
        assert ([each.author for each in found.events], found.state) == (["user", "model"], {"a": 2})
        artifacts = [HoldfastArtifactService(each, shared=True, collection=f"{name}-a") for each in machines]
        assert await artifact(artifacts[0], "save", "s1", "a", 1) == 0
        assert await artifact(artifacts[1], "load", "s1", "a", 0) == picture(b"\x00")
        assert await artifact(artifacts[1], "save", "s1", "a", 0) == 1
        said, asked = (HoldfastMemoryService(each, shared=True, collection=f"{name}-m") for each in machines)
        event = Event(author="user", timestamp=1, content=types.Content(parts=[types.Part(text="red fox")]))
        await said.add_events_to_memory(app_name="app", user_id="u", events=[event])
        assert len((await asked.search_memory(app_name="app", user_id="u", query="fox")).memories) == 1

        past = there.conversations.history(("app", "u", "s"))
        here.conversations.fork(("app", "u", "s"), ("app", "u", "again"), at=past[1].revision)
        forked = await there.get_session(app_name="app", user_id="u", session_id="again")
        assert forked is not None
        assert ([each.author for each in forked.events], forked.state) == (["user"], {"a": 1})
        await there.append_event(forked, Event(author="other", timestamp=4))

    asyncio.run(run())

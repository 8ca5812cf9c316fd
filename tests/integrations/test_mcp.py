"""MCP's event store against a list of events and against FastMCP's own; every place; two servers."""

from __future__ import annotations

import asyncio
import tempfile
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast import Store
from holdfast.errors import UsageError
from tests.integrations.places import LIMITS, MISSING, fresh
from tests.integrations.places import hub as hub
from tests.integrations.places import kept as kept
from tests.integrations.places import machines as machines

pytest.importorskip("mcp", reason=MISSING)

from mcp.server.streamable_http import EventMessage

from holdfast.integrations import mcp as door
from holdfast.integrations.mcp import HoldfastEventStore

EVENTS = st.lists(
    st.tuples(st.sampled_from(["s", "GET_stream", "a_b/1"]), st.sampled_from(["notification", "answer", None])),
    max_size=25,
)


def message(kind: str | None, number: int) -> Any:
    if kind is None:
        return None
    if kind == "answer":
        return door._message({"jsonrpc": "2.0", "id": number, "result": {"n": number, "f": 1.0, "nothing": None}})
    return door._message({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"n": number}})


async def replayed(events: HoldfastEventStore, after: str) -> tuple[str | None, list[tuple[str | None, Any]]]:
    got: list[tuple[str | None, Any]] = []

    async def take(event: EventMessage) -> None:
        got.append((event.event_id, door._plain(event.message)))

    return await events.replay_events_after(after, take), got


async def play(events: HoldfastEventStore, sent: list[tuple[str, str | None]], keep: int) -> None:
    streams: dict[str, list[tuple[str, Any]]] = {}
    for number, (stream, kind) in enumerate(sent):
        one = message(kind, number)
        event = await events.store_event(stream, one)
        streams.setdefault(stream, []).append((event, one))
    every = [event for stored in streams.values() for event, _ in stored]
    assert len(set(every)) == len(every)
    for stream, stored in streams.items():
        for number, (event, _) in enumerate(stored):
            found = await replayed(events, event)
            behind = [(name, door._plain(one)) for name, one in stored[number + 1 :] if one is not None]
            if number >= len(stored) - keep:
                assert found == (stream, behind)
            else:
                assert found in ((stream, behind), (None, []))
    for nothing in ("", "nobody", "s_0", "s_99", "s_x", "other_1"):
        assert await replayed(events, nothing) == (None, [])


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(sent=EVENTS, keep=st.sampled_from([1, 2, 1000]))
def test_what_was_missed_comes_again(sent: list[tuple[str, str | None]], keep: int) -> None:
    with tempfile.TemporaryDirectory() as directory, Store(directory, "ada", hub=[], limits=LIMITS) as store:
        asyncio.run(play(HoldfastEventStore(store, keep=keep), sent, keep))


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(sent=EVENTS, keep=st.sampled_from([1, 2, 1000]))
def test_it_replays_what_fastmcps_own_replays(sent: list[tuple[str, str | None]], keep: int) -> None:
    """FastMCP's is the one store of events that comes in a package; what it has dropped, ours may still have."""
    from fastmcp.server.event_store import EventStore

    async def run() -> None:
        with tempfile.TemporaryDirectory() as directory, Store(directory, "ada", hub=[], limits=LIMITS) as store:
            both: list[Any] = [HoldfastEventStore(store, keep=keep), EventStore(max_events_per_stream=keep)]
            named: list[dict[str, int]] = [{}, {}]
            for number, (stream, kind) in enumerate(sent):
                for each, names in zip(both, named, strict=True):
                    names[await each.store_event(stream, message(kind, number))] = number
            for pair in zip(*named, strict=True):
                found = [await replayed(each, event) for each, event in zip(both, pair, strict=True)]
                mine, theirs = [
                    (stream, [(names[name or ""], said) for name, said in got])
                    for (stream, got), names in zip(found, named, strict=True)
                ]
                if theirs[0] is not None:
                    assert mine == theirs
            for each in both:
                assert await replayed(each, "nobody") == (None, [])

    asyncio.run(run())


def test_it_is_the_same_at_every_place(kept: dict[str, Any]) -> None:
    sent: list[tuple[str, str | None]] = [("s", "answer"), ("a_b/1", None), *[("s", "notification")] * 5]
    asyncio.run(play(HoldfastEventStore(**kept, keep=2), sent, 2))
    with pytest.raises(UsageError):
        HoldfastEventStore(**kept, keep=0)


def test_a_client_goes_on_at_another_server(machines: tuple[Store, Store]) -> None:
    name = fresh()

    async def run() -> None:
        one, other = (HoldfastEventStore(each, shared=True, collection=name) for each in machines)
        first = await one.store_event("s", message("answer", 1))
        second = await other.store_event("s", message("answer", 2))
        third = await one.store_event("s", message("answer", 3))
        assert [event for event, _ in (await replayed(other, first))[1]] == [second, third]

    asyncio.run(run())

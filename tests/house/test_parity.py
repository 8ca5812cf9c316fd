"""`AsyncStore` is `Store`, awaited, and `AsyncHub` is `Hub`: same names, same parameters, nothing that blocks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

IN_PLACE: dict[str, str] = {
    # "method": "why it needs no await: it touches no disk and waits for nobody",
    "changes": "it makes an async iterator, which asks nothing before its first step",
    "collection": "it opens one, as the constructor opens the store: some milliseconds, once",
    "everybody": "it names another place to ask, and asks nothing",
    "into": "it collects what a batch will write when it ends",
    "inbox": "the same",
}
DOORS = {"__enter__": "__aenter__", "__exit__": "__aexit__"}


ONLY_PLAIN = {
    # "name of Hub": "why its mirror has none",
    "prove": "a step of get, for our own rooms",
    "value_of": "a step of get, for our own rooms",
    "messages_of": "a step of messages, for our own rooms",
    "version_of": "a step of every list, for our own rooms",
    "feed": "a page of changes, for our own rooms",
    "events": "the line behind changes, for our own rooms",
    "ask": "puts one question to several hubs, for our own rooms",
    "each": "each of several hubs, for our own rooms",
    "asking": "what questions are asked through, for our own rooms",
}


def pairs() -> list[tuple[type, type]]:
    """Each plain class with its mirror."""
    from holdfast.node import aio_hub, files, sessions, tables, typed, typed_aio
    from holdfast.node.aio import AsyncStore
    from holdfast.node.aio_mail import AsyncMail
    from holdfast.node.hub import Hub
    from holdfast.node.inbox import Mail
    from holdfast.node.store import Store

    plain = [sessions.Sessions, sessions.Artifacts, sessions.Metrics, sessions.HubCache, files.Files, tables.Tables]
    groups = [(each, getattr(aio_hub, f"Async{each.__name__}")) for each in plain]
    values = [
        (typed.Collection, typed_aio.AsyncCollection),
        (typed.StoreCollection, typed_aio.AsyncStoreCollection),
    ]
    return [(Store, AsyncStore), (Mail, AsyncMail), (Hub, aio_hub.AsyncHub), *groups, *values]


each_pair = pytest.mark.parametrize(("plain", "mirror"), pairs(), ids=lambda cls: cls.__name__)


def members(cls: type) -> dict[str, Any]:
    """The public members, the inherited among them, and the two that make it a context manager."""
    named = {name: inspect.getattr_static(cls, name) for name in dir(cls)}
    doors = {*DOORS, *DOORS.values()}
    return {n: m for n, m in named.items() if n in doors or not n.startswith("_")}


def awaited(function: Callable[..., Any]) -> bool:
    """A coroutine function, an async generator, or an async context manager made of one."""
    inner = inspect.unwrap(function)
    return inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner)


def shape(function: Callable[..., Any]) -> list[tuple[str, object, str]]:
    """The parameters as a caller sees them; an Async type counts as its plain twin."""
    found = inspect.signature(function).parameters.values()
    return [(str(p.kind), p.default, str(p).replace("Async", "")) for p in found]


@each_pair
def test_both_have_the_same_names(plain: type, mirror: type) -> None:
    names = {DOORS.get(name, name) for name in members(plain)}
    assert names - set(members(mirror)) == (set(ONLY_PLAIN) if plain.__name__ == "Hub" else set())
    assert set(members(mirror)) <= names


@each_pair
def test_both_take_the_same_parameters(plain: type, mirror: type) -> None:
    twins = members(mirror)
    differ = [
        name
        for name, member in members(plain).items()
        if name in twins and inspect.isfunction(member) and name not in DOORS and shape(member) != shape(twins[name])
    ]
    assert differ == []
    if plain.__name__ in ("Store", "Hub"):  # the groups are made by these two
        assert shape(plain) == shape(mirror)


@each_pair
def test_nothing_in_the_mirror_blocks(plain: type, mirror: type) -> None:
    functions = {n: m for n, m in members(mirror).items() if inspect.isfunction(m)}
    assert {name for name, f in functions.items() if not awaited(f)} <= set(IN_PLACE)


class Plain:
    """A sample."""

    def put(self, key: str, *, durable: bool = False) -> int: ...


class Drifted:
    """A mirror that lost a parameter, and blocks."""

    def put(self, key: str) -> int: ...


def test_drift_is_caught() -> None:
    assert shape(Plain.put) != shape(Drifted.put)
    assert not awaited(Drifted.put)

"""`AsyncStore` is `Store`, awaited: same names, same parameters, nothing that blocks the loop."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

IN_PLACE: dict[str, str] = {
    # "method": "why it needs no await: it touches no disk and waits for nobody",
    "changes": "it makes an async iterator, which asks nothing before its first step",
}
DOORS = {"__enter__": "__aenter__", "__exit__": "__aexit__"}


@pytest.fixture
def store() -> type:
    """The plain one."""
    from holdfast.node.store import Store

    return Store


@pytest.fixture
def mirror() -> type:
    """Its twin."""
    from holdfast.node.aio import AsyncStore

    return AsyncStore


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


def test_both_have_the_same_names(store: type, mirror: type) -> None:
    assert {DOORS.get(name, name) for name in members(store)} == set(members(mirror))


def test_both_take_the_same_parameters(store: type, mirror: type) -> None:
    twins = members(mirror)
    differ = [
        name
        for name, member in members(store).items()
        if inspect.isfunction(member) and name not in DOORS and shape(member) != shape(twins[name])
    ]
    assert differ == []
    assert shape(store) == shape(mirror)


def test_nothing_in_the_mirror_blocks(mirror: type) -> None:
    functions = {n: m for n, m in members(mirror).items() if inspect.isfunction(m)}
    assert {name for name, f in functions.items() if not awaited(f)} == set(IN_PLACE)


class Plain:
    """A sample."""

    def put(self, key: str, *, durable: bool = False) -> int: ...


class Drifted:
    """A mirror that lost a parameter, and blocks."""

    def put(self, key: str) -> int: ...


def test_drift_is_caught() -> None:
    assert shape(Plain.put) != shape(Drifted.put)
    assert not awaited(Drifted.put)

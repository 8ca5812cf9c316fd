"""Which operation answers a path: the one declared first that has the method, with what stands in the path."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.hub.routing import Routes, by_path, live

DECLARED = (
    ("GET", "/messages"),
    ("POST", "/messages/act"),
    ("GET", "/messages/{rest:path}"),
    ("GET", "/nodes/{rest:path}"),
    ("POST", "/nodes/change"),
    ("GET", "/v1/nodes"),
    ("POST", "/v1/nodes/{node}"),
    ("DELETE", "/v1/nodes/{node}"),
    ("HEAD", "/v1/blobs/{digest}"),
    ("GET", "/v1/blobs/{digest}"),
    ("GET", "/v1/sessions/{id}/artifacts/{number}.json"),
)


def routes() -> Routes:
    return Routes(by_path([_guarded(method, path) for method, path in DECLARED]))


def _guarded(method: str, path: str) -> Any:
    return SimpleNamespace(operation=SimpleNamespace(method=method, path=path, deep=""))


@pytest.mark.parametrize(
    ("method", "path", "found", "where"),
    [
        ("GET", "/messages", "/messages", {}),
        ("HEAD", "/messages", "/messages", {}),
        ("GET", "/messages/a/b c", "/messages/{rest:path}", {"rest": "a/b c"}),
        ("GET", "/messages/act", "/messages/{rest:path}", {"rest": "act"}),
        ("POST", "/messages/act", "/messages/act", {}),
        ("POST", "/nodes/change", "/nodes/change", {}),
        ("GET", "/nodes/change", "/nodes/{rest:path}", {"rest": "change"}),
        ("POST", "/v1/nodes/laptop", "/v1/nodes/{node}", {"node": "laptop"}),
        ("DELETE", "/v1/nodes/laptop", "/v1/nodes/{node}", {"node": "laptop"}),
        ("GET", "/v1/sessions/s.1/artifacts/7.json", DECLARED[-1][1], {"id": "s.1", "number": "7"}),
    ],
)  # fmt: skip
def test_the_first_that_has_the_method_answers(method: str, path: str, found: str, where: dict[str, str]) -> None:
    methods, parameters = routes().find(method, path)
    assert methods is not None
    assert (methods.path, parameters) == (found, where)
    assert method in methods.allowed


def test_what_is_not_there_is_told_from_what_has_other_methods() -> None:
    known = routes()
    for path in ("/", "/messagesx", "/v1/nodes/", "/v1/nodes/a/b", "/v1/sessions/s/artifacts/7xjson", "/V1/nodes", ""):
        assert known.find("GET", path) == (None, {}), path
    methods, _ = known.find("PUT", "/v1/nodes/laptop")
    assert methods is not None
    assert methods.methods == {"POST", "DELETE"}
    methods, _ = known.find("PUT", "/messages/act")
    assert methods is not None
    assert methods.path == "/messages/act", "the first that fits"
    assert (known.beside("GET", "/v1/nodes/"), known.beside("GET", "/v1/nothing/")) == ("/v1/nodes", "")
    assert known.beside("GET", "/") == ""


@pytest.mark.parametrize("fails", ["", "startup", "shutdown"])
def test_it_lives_as_long_as_its_server_and_says_when_it_cannot(fails: str) -> None:
    told: list[str] = []
    came = iter(("lifespan.startup", "lifespan.shutdown"))

    @contextlib.asynccontextmanager
    async def life() -> AsyncIterator[None]:
        if fails == "startup":
            raise ValueError("no disk")
        yield
        if fails == "shutdown":
            raise ValueError("no disk")

    async def receive() -> Any:
        return {"type": next(came)}

    async def send(message: Any) -> None:
        told.append(message["type"])
        assert "no disk" in message.get("message", "no disk")

    with pytest.raises(ValueError, match="no disk") if fails else contextlib.nullcontext():
        asyncio.run(live(life, receive, send))
    begun = ["lifespan.startup.complete"] if fails != "startup" else []
    assert told == [*begun, f"lifespan.{fails}.failed" if fails else "lifespan.shutdown.complete"]

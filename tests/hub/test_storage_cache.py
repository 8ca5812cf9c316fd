"""The TTL cache: the same tests beside the records and in a real Redis, with a clock that the tests set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from holdfast.clock import iso
from holdfast.corpus.space import Reserve
from holdfast.errors import UsageError
from holdfast.hub.app import create_app
from holdfast.hub.directory import HubDirectory
from holdfast.testing.clock import SettableClock
from tests.hub.conftest import Room
from tests.services import shared_redis

Open = Callable[[], Room]


@pytest.fixture
def wall() -> SettableClock:
    """The hub's clock."""
    return SettableClock()


@pytest.fixture(params=["corpus", "redis"])
def opened(request: pytest.FixtureRequest, tmp_path: Path, wall: SettableClock) -> Iterator[Open]:
    """Opens the hub, each time anew."""
    address = ""
    if request.param == "redis":
        address = shared_redis().address
        shared_redis().flush()
    running: list[TestClient] = []

    def start() -> Room:
        for client in running:
            client.__exit__(None, None, None)
        running.clear()
        reserve = Reserve(tmp_path, floor_bytes=0, ballast_bytes=0)
        app = create_app(HubDirectory(tmp_path / "hub", reserve=reserve, wall=wall), cache=address)
        client = TestClient(app, raise_server_exceptions=False).__enter__()
        running.append(client)
        return Room(client, app.state.core)

    yield start
    for client in running:
        client.__exit__(None, None, None)


def put(room: Room, key: str, value: Any, **fields: Any) -> Any:
    answer = room.client.put(f"/storage/cache/{key}", json={"value": value, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_value_comes_back_as_it_was_until_its_time_is_over(opened: Open, wall: SettableClock) -> None:
    room = opened()
    value = {"rows": [1, 2.5, None, "ü"]}
    made = put(room, "search:what is ü?", value, ttl=60)
    now = iso(wall.now_ms())
    assert made == {
        "key": "search:what is ü",
        "value": value,
        "ttl": 60,
        "created_at": now,
        "accessed_at": now,
        "expires_at": iso(wall.now_ms() + 60_000),
    }
    wall.advance(59.9)
    found = room.get("/storage/cache/search:what is ü")
    assert found == {**made, "accessed_at": iso(wall.now_ms())}
    wall.advance(0.1)
    assert room.client.get("/storage/cache/search:what is ü").status_code == 404
    assert put(room, "search:what is ü", 0)["ttl"] is None
    wall.advance(10**6)
    assert room.get("/storage/cache/search:what is ü")["value"] == 0


def test_setting_and_taking_away(opened: Open) -> None:
    room = opened()
    for value in (1, None, [], "x" * 1_000_000):
        put(room, "k", value)
        assert room.get("/storage/cache/k")["value"] == value
    assert room.client.delete("/storage/cache/k").json() == {"status": "deleted", "id": "k"}
    assert room.client.get("/storage/cache/k").status_code == 404
    assert room.client.delete("/storage/cache/k").status_code == 404
    assert room.records() == []


def test_what_is_wrong_is_refused(opened: Open) -> None:
    room = opened()
    for body in ({}, {"value": 1, "ttl": 0}, {"value": 1, "ttl": 1.5}, {"value": 1, "for": 3}):
        assert room.client.put("/storage/cache/k", json=body).status_code == 400
    assert room.client.put("/storage/cache/k", json={"value": "x" * (1 << 20)}).status_code == 413
    assert room.client.put(f"/storage/cache/{'k' * 513}", json={"value": 1}).status_code == 400
    assert room.client.get("/storage/cache/k").status_code == 404


def test_cleanup_leaves_what_still_lives(opened: Open, wall: SettableClock, request: pytest.FixtureRequest) -> None:
    room = opened()
    for number in range(5):
        put(room, f"short-{number}", number, ttl=10)
    put(room, "long", 1, ttl=100)
    put(room, "ever", 1)
    wall.advance(10)
    removed = room.client.post("/storage/cache/cleanup").json()["removed"]
    # Redis counts by its own clock, and takes away by itself.
    assert removed == (0 if "redis" in request.node.name else 5)
    assert room.client.post("/storage/cache/cleanup").json()["removed"] == 0
    assert room.client.get("/storage/cache/short-1").status_code == 404
    assert room.get("/storage/cache/long")["value"] == room.get("/storage/cache/ever")["value"] == 1


def test_it_survives_a_restart_and_so_does_when_it_was_read(opened: Open, wall: SettableClock) -> None:
    room = opened()
    made = put(room, "k", "v", ttl=1000)
    wall.advance(5)
    room.get("/storage/cache/k")
    read_at = wall.now_ms()
    commits = room.core.writer.commits
    room = opened()
    assert commits == 0
    if not room.core.options.cache:
        assert room.core.corpus.engine.one("SELECT accessed_ms FROM cache")[0] == read_at
    assert room.get("/storage/cache/k")["created_at"] == made["created_at"]


def test_reading_writes_nothing_at_once(tmp_path: Path, room: Room) -> None:
    put(room, "k", 1)
    changes = room.core.corpus.engine.one("PRAGMA data_version")
    pages = room.core.corpus.engine.wal_pages
    for _ in range(50):
        room.get("/storage/cache/k")
    assert (room.core.corpus.engine.one("PRAGMA data_version"), room.core.corpus.engine.wal_pages) == (changes, pages)


def test_redis_lets_entries_expire_by_itself(tmp_path: Path) -> None:
    import redis as library

    redis = shared_redis().address
    shared_redis().flush()
    reserve = Reserve(tmp_path, floor_bytes=0, ballast_bytes=0)
    app = create_app(HubDirectory(tmp_path / "hub", reserve=reserve), cache=redis)
    with TestClient(app) as client, library.Redis.from_url(redis) as direct:
        room = Room(client, app.state.core)
        put(room, "k", 1, ttl=100)
        assert 0 < direct.ttl("holdfast:cache:k") <= 100
        room.get("/storage/cache/k")
        assert direct.ttl("holdfast:cache:k") > 0
        put(room, "k", 1)
        assert direct.ttl("holdfast:cache:k") == -1
        direct.delete("holdfast:cache:k")
        assert client.get("/storage/cache/k").status_code == 404
        assert direct.keys() == []  # a read brings nothing back


def test_a_cache_that_is_away_is_said_and_records_go_on(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path, floor_bytes=0, ballast_bytes=0)
    app = create_app(HubDirectory(tmp_path / "hub", reserve=reserve), cache=f"unix://{tmp_path}/none")
    with TestClient(app) as client:
        answer = client.get("/storage/cache/k")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "hub_unavailable")
        assert client.post("/storage/sessions", json={"agent_name": "a"}).status_code == 201


def test_an_address_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a cache's address"):
        create_app(tmp_path / "hub", cache="http://localhost")
    create_app(tmp_path / "hub").state.core.home.close()  # nothing was left open

"""The storage service from Python, plain and awaited, against a hub in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast import AsyncHub, Conflict, Hub, HubUnavailable, NotFound, UsageError
from tests.flow.hubs import HubProcess


@pytest.fixture
def client(hub: HubProcess) -> Iterator[Hub]:
    """A hub, as a client sees it."""
    with Hub(hub.url) as found:
        yield found


def test_a_conversation_from_its_beginning_to_its_end(client: Hub, tmp_path: Path) -> None:
    sessions = client.sessions
    made = sessions.create("ada", user_id="u", metadata={"goal": 1}, id="session_a")
    assert sessions.create("ada", user_id="u", metadata={"goal": 1}, id="session_a") == made
    assert sessions.get(made.id) == made
    for number in range(3):
        sessions.add(made.id, "user", f"word{number}", id=f"msg_{number}", timestamp=1_767_700_000 + number)
    assert [each.content for each in sessions.messages(made.id, newest_first=True, limit=2)] == ["word2", "word1"]
    assert sessions.messages(made.id)[0].timestamp == "2026-01-06T11:46:40.000Z"
    assert [each.id for each in sessions.search(made.id, "word1")] == ["msg_1"]
    first = sessions.set_state(made.id, {"step": 1}, expect=0)
    with pytest.raises(Conflict) as caught:
        sessions.set_state(made.id, {"step": 2}, expect=0)
    assert caught.value.context["current_version"] == 1
    assert sessions.set_state(made.id, {"step": 2}, expect=first.version).version == 2
    assert sessions.state(made.id).data == {"step": 2}
    forked = sessions.fork(made.id, at="msg_0")
    assert [each.content for each in sessions.messages(forked.id)] == ["word0"]
    assert sessions.export(made.id, tmp_path / "a.jsonl") == 5
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [next(iter(line)) for line in lines] == ["session", "state", "message", "message", "message"]
    assert sessions.update(made.id, status="ended", expect=1).status == "ended"
    assert [each.id for each in sessions.find(agent="ada", status="ended")] == [made.id]
    assert sessions.clear(made.id) == 3
    assert sessions.restore(made.id, part="history") == 3
    sessions.delete(made.id)
    with pytest.raises(NotFound):
        sessions.messages(made.id)
    assert sessions.get(made.id, deleted=True).deleted_at
    assert sessions.restore(made.id) == 5
    sessions.drop_state(made.id)
    with pytest.raises(NotFound):
        sessions.state(made.id)
    with pytest.raises(UsageError):
        sessions.add(made.id, "robot", "beep")


def test_long_conversations_come_whole(client: Hub) -> None:
    session = client.sessions.create("ada").id
    for number in range(30):
        client.sessions.add(session, "tool", "x" * 700_000 + str(number))
    contents = [each.content[700_000:] for each in client.sessions.messages(session)]
    assert contents == [str(number) for number in range(30)]


def test_bytes_go_up_in_pieces_and_come_down_proven(
    client: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.node.sessions.PIECE_BYTES", 100_000)
    data = os.urandom(350_000)
    (tmp_path / "up").write_bytes(data)
    session = client.sessions.create("ada").id
    artifact = client.artifacts.create(session, "a.bin", "binary", path="/a.bin", metadata={"n": 1})
    with pytest.raises(NotFound):
        client.artifacts.read(artifact.id)
    done = client.artifacts.upload(artifact.id, tmp_path / "up")
    assert (done.size, done.path) == (350_000, "/a.bin")
    assert client.artifacts.read(artifact.id) == data
    assert client.artifacts.download(artifact.id, tmp_path / "down") == len(data)
    assert (tmp_path / "down").read_bytes() == data
    other = client.artifacts.create(session, "b.bin", "other")
    assert client.artifacts.upload(other.id, data).digest == done.digest
    assert client.artifacts.upload(other.id, b"").size == 0
    assert client.artifacts.read(other.id) == b""
    assert [each.id for each in client.artifacts.find(session, type="binary")] == [artifact.id]
    client.artifacts.delete(artifact.id)
    assert len(client.artifacts.find(session)) == 1


def test_figures_and_what_they_add_up_to(client: Hub) -> None:
    about = {"entity_type": "tool", "entity_name": "search", "metric_name": "ms"}
    client.metrics.record("tool", "search", "ms", 10, labels={"model": "small"}, timestamp=1_767_700_000)
    figures = [{**about, "value": value, "labels": {"model": "large", "hot": True}} for value in (20, 40)]
    assert len(client.metrics.batch(figures)) == 2
    assert [each.value for each in client.metrics.find(labels={"hot": True}, since="2026-01-07")] == [40, 20]
    groups = client.metrics.aggregate(by=["label:model"], percentiles=[50], metric_name="ms")
    assert [(group.by, group.count, group.percentiles["p50"]) for group in groups] == [
        ({"label:model": "large"}, 2, 30),
        ({"label:model": "small"}, 1, 10),
    ]


def test_the_cache_from_python(client: Hub) -> None:
    client.cache.set("a b?&#", {"x": [1]}, ttl=100)
    assert client.cache.get("a b?&#") == {"x": [1]}
    assert client.cache.delete("a b?&#") is True
    assert client.cache.delete("a b?&#") is False
    assert client.cache.get("a b?&#", default=0) == 0
    with pytest.raises(NotFound):
        client.cache.get("a b?&#")
    assert client.cache.cleanup() == 0


def test_awaited_it_is_the_same(hub: HubProcess, tmp_path: Path) -> None:
    async def talk() -> None:
        async with AsyncHub(hub.url) as client:
            made = await client.sessions.create("ada")
            await asyncio.gather(*(client.sessions.add(made.id, "user", number) for number in ([1], [2], [3])))
            assert sorted(each.content for each in await client.sessions.messages(made.id)) == [[1], [2], [3]]
            artifact = await client.artifacts.create(made.id, "a", "t")
            await client.artifacts.upload(artifact.id, b"bytes")
            assert await client.artifacts.read(artifact.id) == b"bytes"
            await client.metrics.record("agent", "ada", "steps", 1)
            assert (await client.metrics.aggregate(entity_name="ada"))[0].count == 1
            await client.cache.set("k", 1)
            assert await client.cache.get("k") == 1
            kinds = [change.kind async for change in client.changes("0", live=False, agent="ada")]
            assert kinds == ["session", "message", "message", "message", "artifact", "content", "metric"]
            assert await client.get(f"{made.id}/session", agent="ada", collection="sessions")
            assert {each["agent"] for each in await client.agents()} == {"ada"}

    asyncio.run(talk())


def test_a_hub_that_is_away_is_said(hub: HubProcess, client: Hub) -> None:
    hub.kill()
    with pytest.raises(HubUnavailable):
        client.sessions.create("ada")

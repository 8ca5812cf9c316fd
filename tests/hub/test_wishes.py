"""What nodes say of themselves, and what people ask of them through the hub."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
from starlette.testclient import TestClient

from holdfast import seal, wire
from holdfast.clock import SYSTEM
from holdfast.corpus.space import Reserve
from holdfast.hub.app import create_app
from holdfast.hub.directory import HubDirectory
from holdfast.log import drafts
from holdfast.node.directory import Directory
from holdfast.node.outbox_store import LogsOutbox
from holdfast.node.reporting import report
from holdfast.protocol.actions import Refresh, SendAppend, SendHello, Wait
from holdfast.protocol.outbox import Outbox
from tests.hub.conftest import Room
from tests.hub.pens import Pen

NODE = "node-1"


def answered(outbox: Outbox, room: Room) -> list[str]:
    """Carries out what an outbox wants until it waits; what it sent."""
    sent: list[str] = []
    while not isinstance(action := outbox.next(), Wait):
        if isinstance(action, SendHello):
            sent.append("hello")
            outbox.on_hello(room.hello(action.message))
        elif isinstance(action, Refresh):
            continue
        else:
            assert isinstance(action, SendAppend), action
            sent.append("append")
            answer = room.client.post("/v1/append", content=wire.encode(action.message))
            outbox.on_append(wire.decode(wire.AppendAnswer, answer.content))
    return sent


def test_a_node_pauses_and_goes_on_as_people_ask(room: Room, tmp_path: Path) -> None:
    Directory.init(tmp_path / "node")
    directory = Directory(tmp_path / "node")
    log = directory.open_log("ada", None)
    store = LogsOutbox(directory)

    def put(key: str) -> None:
        log.log.append([drafts.value("state", key, 1)])

    def begun() -> Outbox:
        return Outbox("hub", store, clock=SYSTEM, rng=random.Random(1), verify=seal.verify, node=NODE)

    try:
        outbox = begun()
        put("a")
        assert answered(outbox, room)[:2] == ["hello", "append"]
        room.core.wishes.pause(NODE, True, "root")
        put("b")
        assert answered(outbox, room) == ["append", "hello"], "one that ships is asked to say hello"
        put("c")
        assert answered(outbox, room) == []
        assert outbox.status().state == "paused"
        again = begun()  # another process of this node, or the same after a restart
        assert answered(again, room) == ["hello"]
        assert again.status().depth == {log.log.branch.stream: 1}
        room.core.wishes.pause(NODE, False, "root")
        outbox.say_hello()
        assert answered(outbox, room)[:2] == ["hello", "append"]
        assert outbox.status().state == "in_sync"
        assert {each["key"] for each in room.records()} == {"a", "b", "c"}
    finally:
        store.close()
        directory.release_log(log)
        directory.close()


def test_to_try_again_ends_the_silence_about_what_was_denied(room: Room, tmp_path: Path) -> None:
    Directory.init(tmp_path / "node")
    directory = Directory(tmp_path / "node")
    log = directory.open_log("ada", None)
    store = LogsOutbox(directory)
    try:
        outbox = Outbox("hub", store, clock=SYSTEM, rng=random.Random(1), verify=seal.verify, node=NODE)
        answered(outbox, room)
        log.log.append([drafts.value("state", "a", 1)])
        action = outbox.next()
        assert isinstance(action, SendAppend)
        (segment,) = action.message.segments
        denied = wire.Verdict(segment.stream, segment.inc, "denied", segment.items and wire.Mark(0, b""), reason="no")
        outbox.on_append(wire.AppendAnswer(action.message.gen, action.message.req, [denied]))
        assert answered(outbox, room) == []
        room.core.wishes.hurry(NODE, "root")
        outbox.say_hello()
        assert answered(outbox, room)[:2] == ["hello", "append"]
        outbox.say_hello()
        assert "append" not in answered(outbox, room), "asked once"
    finally:
        store.close()
        directory.release_log(log)
        directory.close()


def test_a_node_tells_how_it_is(tmp_path: Path) -> None:
    Directory.init(tmp_path / "node")
    directory = Directory(tmp_path / "node")
    log = directory.open_log("ada", None)
    try:
        for number in range(20):
            log.log.append([drafts.value("state", f"k{number}", "x" * 100)])
        told = report(directory, [log], "http://hub")
        assert set(told.caches) == {"ada"}
        assert told.caches["ada"].used > 0
        assert (told.caches["ada"].limit, told.caches["ada"].full) == (0, False)
        assert 20 * 20 < told.owed_bytes < 20 * 200
        assert told.disk_total > told.disk_free > 0
        assert (told.host != "", told.version != "", told.refused) == (True, True, [])
        stream = log.log.branch.stream
        rows = [("http://hub", stream, seq, b"l" * 32, "too_big", "y" * 900) for seq in range(30)]
        directory.node.commits.run(
            lambda _: [directory.node.writer_execute("INSERT INTO refused VALUES(?,?,?,?,?,?)", row) for row in rows]
        )
        told = report(directory, [log], "http://hub")
        assert (told.refusals, len(told.refused), told.refused[0].seq, told.refused[0].agent) == (30, 20, 29, "ada")
        assert len(told.refused[0].reason) == 300
    finally:
        directory.release_log(log)
        directory.close()


def test_what_is_wished_outlives_the_hub_and_forgetting_does_too(room: Room, tmp_path: Path) -> None:
    pen, other = Pen("ada"), Pen("bob")
    pen.put("k", 1)
    hello = msgspec.structs.replace(pen.hello(), report=wire.Report(host="h" * 999, caches={"ada": wire.Cached(5, 9)}))
    room.hello(hello)
    room.hello(other.hello())
    assert len(room.core.nodes[hello.node].report.host) == 255  # type: ignore[union-attr]
    room.hello(pen.hello())
    assert room.core.nodes[hello.node].report is not None, "who only asks for room says hello without one"
    room.core.wishes.pause(hello.node, True, "root")
    room.core.forget(other.hello().node)
    assert other.hello().node not in room.core.nodes
    room.client.__exit__()
    home = HubDirectory(tmp_path / "hub", reserve=Reserve(tmp_path, floor_bytes=0, ballast_bytes=0))
    with TestClient(create_app(home)) as client:
        again = Room(client, client.app.state.core)  # type: ignore[attr-defined]
        assert set(again.core.nodes) == {hello.node}
        assert again.core.nodes[hello.node].report.caches == {"ada": wire.Cached(5, 9)}  # type: ignore[union-attr]
        wish = again.hello(pen.hello()).wish
        assert wish is not None
        assert wish.paused
        assert again.hello(other.hello()).wish == wire.Wish(), "who comes back is not paused"
        assert other.hello().node in again.core.nodes


def test_a_log_that_went_two_ways_is_remembered(room: Room) -> None:
    pen = Pen("ada")
    pen.put("a", 1)
    copy = pen.fork()
    copy.inc = pen.inc  # a copy of the directory that nobody knows to be one
    pen.put("b", 1)
    copy.put("b", 2)
    room.hello(pen.hello())
    room.append(pen.segment())
    room.hello(copy.hello())
    copy.inc = bytes(15) + b"\xff"  # it finds that what is here is not its own, and goes on under another name
    room.hello(copy.hello())
    seen = room.core.nodes[pen.hello().node]
    assert seen.forked_ms > 0
    room.hello(pen.hello())
    first = seen.forked_ms
    room.hello(copy.hello())
    assert seen.forked_ms == first, "told once"


def test_versions_before_understand_both_ways(room: Room) -> None:
    class OldAnswer(msgspec.Struct):
        hub: str
        gen: str
        lineage: list[tuple[str, int]]
        nonce: bytes
        now_ms: int
        streams: list[wire.StreamState]
        version: int = 1

    class OldHello(msgspec.Struct):
        node: str
        nonce: bytes
        streams: list[wire.HelloStream]
        version: int = 1
        now_ms: int = 0
        oldest_ms: int = 0

    pen = Pen("ada")
    pen.put("k", 1)
    room.core.wishes.pause(pen.hello().node, True, "root")
    new = msgspec.structs.replace(pen.hello(), report=wire.Report(host="h"))
    old = msgspec.msgpack.decode(wire.encode(new), type=OldHello)  # as a hub of then reads it
    answer = room.client.post("/v1/hello", content=msgspec.msgpack.encode(old))
    assert msgspec.msgpack.decode(answer.content, type=OldAnswer).streams, "as a node of then reads it"
    without = {k: v for k, v in msgspec.msgpack.decode(answer.content).items() if k != "wish"}
    assert wire.decode(wire.HelloAnswer, msgspec.msgpack.encode(without)).wish is None

"""The simple endpoints for messages: their documented shapes, one verdict each, and once for ever."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from holdfast import codec
from holdfast.corpus import pages
from holdfast.hub.app import create_app
from holdfast.hub.directory import HubDirectory
from tests.hub.conftest import Room
from tests.hub.pens import Pen

ENVELOPE = {
    "msg_id": "m-1",
    "timestamp": 1_767_700_000.25,
    "task_id": "task-7",
    "sender": "recruiter-1",
    "recipient": "commander",
    "role": "assistant",
    "content": {"lead": "HOT", "score": 0.97},
}


def post(room: Room, body: Any, path: str = "/sync/message") -> tuple[int, Any]:
    answer = room.client.post(path, json=body)
    return answer.status_code, answer.json()


def test_one_message_is_stored_and_read_back_as_it_was_sent(room: Room) -> None:
    assert post(room, ENVELOPE) == (200, {"status": "stored", "msg_id": "m-1"})
    assert room.get("/query/messages") == {"messages": [ENVELOPE], "total": 1, "page": 1}
    (shown,) = room.records()
    assert (shown["agent"], shown["author"], shown["kind"]) == ("recruiter-1", "recruiter-1", "message")


def test_a_message_needs_only_content(room: Room) -> None:
    status, answer = post(room, {"content": "hello"})
    assert (status, answer["status"]) == (200, "stored")
    (message,) = room.get("/query/messages")["messages"]
    assert message["msg_id"] == answer["msg_id"]
    assert (message["sender"], message["content"], message["role"]) == ("anonymous", "hello", None)


def test_fields_beyond_the_seeds_come_back_too(room: Room) -> None:
    more = {"priority": "hot", "thread": "t1", "kind": "report", "model": "local", "tokens": 12}
    post(room, {**ENVELOPE, **more})
    (message,) = room.get("/query/messages")["messages"]
    assert message == {**ENVELOPE, **more}
    assert room.get("/v1/records", thread="t1", kind="report")["records"][0]["key"] == "m-1"


@pytest.mark.parametrize("content", ["text", 7, None, True, [1, {"a": None}], {"body": "b", "to": "x"}, "é✓", ""])
def test_any_json_is_content(room: Room, content: Any) -> None:
    assert post(room, {"msg_id": "m", "content": content})[0] == 200
    assert room.get("/query/messages")["messages"][0]["content"] == content


def test_a_message_above_64_kib_comes_back_whole(room: Room) -> None:
    content = "x" * 300_000
    assert post(room, {"msg_id": "big", "sender": "a", "content": content})[0] == 200
    assert post(room, {"msg_id": "big", "sender": "a", "content": content})[0] == 200
    assert room.get("/query/messages")["messages"][0]["content"] == content
    (shown,) = room.records()
    assert (shown["missing"], shown["value"]) == ("blob", None)


def test_the_same_message_again_adds_nothing_in_this_life_or_the_next(tmp_path) -> None:
    for _ in range(2):
        with TestClient(create_app(HubDirectory(tmp_path / "hub"))) as client:
            for _ in range(2):
                answer = client.post("/sync/message", json=ENVELOPE)
                assert (answer.status_code, answer.json()) == (200, {"status": "stored", "msg_id": "m-1"})
            assert client.get("/query/messages").json()["total"] == 1
            assert len(client.get("/v1/feed").json()["records"]) == 1


def test_another_message_under_a_known_id_is_refused_and_not_dropped_in_silence(room: Room) -> None:
    post(room, ENVELOPE)
    for change in ({"content": "other"}, {"sender": "somebody-else"}):
        status, answer = post(room, {**ENVELOPE, **change})
        assert (status, answer["error"]["code"]) == (409, "conflict")
    assert room.get("/query/messages")["total"] == 1


def test_a_batch_is_acked_with_a_verdict_for_each_and_a_bad_one_harms_no_other(room: Room) -> None:
    messages = [
        {"msg_id": "a", "sender": "x", "content": 1},
        {"msg_id": "b", "sender": "x"},
        "not a message",
        {"msg_id": "c", "sender": "y", "content": 2},
        {"msg_id": "a", "sender": "x", "content": 1},
        {"msg_id": "a", "sender": "x", "content": "changed"},
        {"sender": "x", "content": "without an id"},
    ]
    status, answer = post(room, {"batch_id": "b-1", "node_id": "laptop", "messages": messages}, "/sync/messages")
    assert (status, answer["status"], answer["batch_id"]) == (200, "acked", "b-1")
    told = [(verdict["msg_id"], verdict["status"]) for verdict in answer["verdicts"]]
    assert told == [
        ("a", "stored"),
        ("b", "rejected"),
        (None, "rejected"),
        ("c", "stored"),
        ("a", "duplicate"),
        ("a", "rejected"),
        ("b-1:6", "stored"),
    ]
    assert answer["verdicts"][1]["error"]["hint"]
    assert room.get("/query/messages")["total"] == 3
    again = post(room, {"batch_id": "b-1", "node_id": "laptop", "messages": messages}, "/sync/messages")[1]
    assert [verdict["status"] for verdict in again["verdicts"]].count("duplicate") == 4
    assert len(room.records()) == 3
    assert room.get("/v1/nodes")["nodes"][0]["node"] == "laptop"


def test_more_than_500_messages_are_split_and_all_stored(room: Room) -> None:
    messages = [{"msg_id": f"m{n}", "sender": f"s{n % 2}", "content": n} for n in range(1234)]
    status, answer = post(room, {"batch_id": "b", "node_id": "n", "messages": messages}, "/sync/messages")
    assert (status, {verdict["status"] for verdict in answer["verdicts"]}) == (200, {"stored"})
    assert room.get("/query/messages")["total"] == 1234
    order = [
        each["value"]["body"] for each in room.get("/v1/records", agent="s1", order="oldest", limit=1000)["records"]
    ]
    assert order == list(range(1, 1234, 2))


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"[]",
        b'"text"',
        b'{"content": 1, "sender": 7}',
        b'{"content": 1, "sender": "hub"}',
        b'{"content": 1, "sender": "a\\u0000b"}',
        b'{"content": 1, "timestamp": "yesterday"}',
        b'{"content": 1, "timestamp": true}',
        b'{"content": 1, "timestamp": 1e300}',
        b'{"content": 1, "priority": "urgent"}',
        b'{"content": 1, "to": "x"}',
        b'{"content": 1, "msg_id": "\\ud800"}',
        b'{"msg_id": "m"}',
        b"\xff\xfe",
    ],
)
def test_a_bad_message_is_refused_with_a_hint_and_nothing_is_stored(room: Room, body: bytes) -> None:
    answer = room.client.post("/sync/message", content=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "usage"
    assert error["message"] == error["message"][:1].lower() + error["message"][1:]
    assert room.records() == []


@pytest.mark.parametrize("body", [[], {"batch_id": "b"}, {"messages": "x"}, {"messages": [], "batch_id": 7}])
def test_a_bad_batch_is_refused_as_a_whole(room: Room, body: Any) -> None:
    assert post(room, body, "/sync/messages")[0] == 400


def test_compressed_bodies_are_taken(room: Room) -> None:
    data = json.dumps({"msg_id": "z", "content": "x" * 1000}).encode()
    for coding, body in (("gzip", gzip.compress(data)), ("zstd", codec.deflate("zstd", data))):
        answer = room.client.post("/sync/message", content=body, headers={"Content-Encoding": coding})
        assert answer.status_code == 200, answer.text
    assert room.get("/query/messages")["total"] == 1


@pytest.fixture
def inbox(room: Room, pen: Pen) -> Room:
    """Five messages of two senders, and one that a node shipped."""
    for number, (sender, to, task) in enumerate(
        [("a", "b", "t1"), ("a", None, "t1"), ("b", "a", "t2"), ("b", "b", None), ("a", "c", "t2")]
    ):
        message = {"msg_id": f"m{number}", "sender": sender, "content": number, "timestamp": 1000 + number}
        post(room, {**message, "recipient": to, "task_id": task})
    pen.stamp = 1_200_000 << 16
    pen.message("n0", "shipped", to="b", task="t1", role="user")
    room.append(pen.segment())
    return room


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ({}, ["n0", "m4", "m3", "m2", "m1", "m0"]),
        ({"order": "oldest"}, ["m0", "m1", "m2", "m3", "m4", "n0"]),
        ({"agent": "b"}, ["n0", "m3", "m2", "m0"]),
        ({"agent": "a"}, ["m4", "m2", "m1", "m0"]),
        ({"agent": "ada"}, ["n0"]),
        ({"agent": "nobody"}, []),
        ({"task": "t1"}, ["n0", "m1", "m0"]),
        ({"agent": "b", "task": "t1"}, ["n0", "m0"]),
        ({"since": "1002"}, ["n0", "m4", "m3", "m2"]),
        ({"since": "1002.5"}, ["n0", "m4", "m3"]),
        ({"since": "1970-01-01T00:16:43Z"}, ["n0", "m4", "m3"]),
        ({"since": "1970-01-01T02:16:44+02:00"}, ["n0", "m4"]),
        ({"since": "1500"}, []),
        ({"agent": "b", "since": "1003"}, ["n0", "m3"]),
    ],
)
def test_messages_are_found_by_agent_task_and_time(inbox: Room, query: dict[str, str], ids: list[str]) -> None:
    found = inbox.get("/query/messages", **query)
    assert [message["msg_id"] for message in found["messages"]] == ids
    assert (found["total"], found["page"]) == (len(ids), 1)


def test_a_shipped_message_has_the_same_shape(inbox: Room) -> None:
    (message,) = inbox.get("/query/messages", agent="ada")["messages"]
    assert message == {
        "msg_id": "n0",
        "timestamp": 1200.001,
        "task_id": "t1",
        "sender": "ada",
        "recipient": "b",
        "role": "user",
        "content": "shipped",
    }


def test_pages_follow_on_each_other(inbox: Room) -> None:
    pages_of_two = [inbox.get("/query/messages", limit=2, page=page) for page in (1, 2, 3, 4)]
    ids = [[message["msg_id"] for message in page["messages"]] for page in pages_of_two]
    assert ids == [["n0", "m4"], ["m3", "m2"], ["m1", "m0"], []]
    assert [(page["total"], page["page"]) for page in pages_of_two] == [(6, n) for n in (1, 2, 3, 4)]


def test_a_total_beyond_the_cap_says_so(inbox: Room, monkeypatch) -> None:
    monkeypatch.setattr(pages, "COUNT_MAX", 4)
    found = inbox.get("/query/messages")
    assert (found["total"], found["total_capped"], len(found["messages"])) == (4, True, 6)
    assert inbox.get("/query/messages", agent="b")["total"] == 4
    assert "total_capped" not in inbox.get("/query/messages", agent="b")


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "page=0", "since=soon", "order=up", "page=99999&limit=1000", "agent=%ff"],
)
def test_a_bad_question_is_refused_with_a_hint(room: Room, query: str) -> None:
    answer = room.client.get(f"/query/messages?{query}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "usage")


def test_a_deleted_message_is_not_shown_and_its_id_stays_taken(room: Room, pen: Pen) -> None:
    pen.message("gone", "x")
    pen.write("gone", codec.FMT_JSON, b"{}", collection="messages", kind="delete", flags=8)
    room.append(pen.segment())
    assert room.get("/query/messages")["total"] == 0

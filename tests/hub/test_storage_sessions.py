"""Sessions: one log, one deletion, one way back; versions that only one of two writers replaces; copies and exports."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from holdfast.corpus import storage
from holdfast.hub.directory import HubDirectory
from holdfast.log.drafts import tags_of
from tests.hub.conftest import Room
from tests.hub.pens import Pen


def begin(room: Room, **fields: Any) -> Any:
    answer = room.client.post("/storage/sessions", json={"agent_name": "researcher", **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


def say(room: Room, session: str, content: Any, role: str = "user", **fields: Any) -> Any:
    body = {"session_id": session, "role": role, "content": content, **fields}
    answer = room.client.post("/storage/history", json=body)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


def history(room: Room, session: str, **query: Any) -> list[Any]:
    return room.get("/storage/history", session_id=session, **query)  # type: ignore[no-any-return]


def pages(room: Room, path: str, **query: Any) -> Iterator[list[Any]]:
    """Every page of a list, by the cursor that each names."""
    cursor = ""
    while True:
        answer = room.client.get(path, params={**query, **({"after": cursor} if cursor else {})})
        assert answer.status_code == 200, answer.text
        yield answer.json()
        cursor = answer.headers.get("x-next-cursor", "")
        assert bool(cursor) == ("link" in answer.headers)
        if not cursor:
            return


def status(room: Room, method: str, path: str, **options: Any) -> int:
    return room.client.request(method, path, **options).status_code


def test_a_session_is_what_was_given_and_lies_in_its_agents_log(room: Room) -> None:
    made = begin(room, user_id="u1", metadata={"goal": "ü"})
    assert made["id"].startswith("session_")
    assert (made["agent_name"], made["user_id"], made["status"]) == ("researcher", "u1", "active")
    assert made["created_at"] == made["updated_at"]
    assert made["created_at"].endswith("Z")
    assert room.get(f"/storage/sessions/{made['id']}") == made
    (record,) = room.records()
    assert (record["agent"], record["collection"], record["key"]) == ("researcher", "sessions", f"{made['id']}/session")


def test_an_update_changes_what_it_names_and_no_more(room: Room) -> None:
    made = begin(room, user_id="u1", metadata={"a": 1})
    path = f"/storage/sessions/{made['id']}"
    changed = room.client.put(path, json={"status": "paused"}).json()
    assert (changed["status"], changed["user_id"], changed["metadata"], changed["version"]) == (
        "paused",
        "u1",
        {"a": 1},
        2,
    )
    assert room.client.put(path, json={"status": "paused"}).json() == changed
    assert room.client.put(path, json={"user_id": None, "metadata": None}).json()["metadata"] == {}
    assert status(room, "PUT", path, json={"agent_name": "other"}) == 409
    assert len(room.records()) == 3


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/storage/sessions", {"agent_name": "a", "status": "open"}),
        ("POST", "/storage/sessions", {"user_id": "u"}),
        ("POST", "/storage/sessions", {"agent_name": ""}),
        ("POST", "/storage/sessions", {"agent_name": "a", "colour": 1}),
        ("POST", "/storage/sessions", {"agent_name": "a", "id": "session_a/b"}),
        ("POST", "/storage/sessions", {"agent_name": "hub"}),
        ("POST", "/storage/history", {"session_id": "{}", "role": "robot", "content": "x"}),
        ("POST", "/storage/history", {"session_id": "{}", "role": "user", "content": "x", "timestamp": "soon"}),
        ("PUT", "/storage/sessions/{}", {"status": "closed"}),
        ("PUT", "/storage/state/{}", {}),
        ("GET", "/storage/sessions?status=open", None),
        ("GET", "/storage/sessions?status=null", None),
        ("GET", "/storage/sessions?after=x:y", None),
        ("GET", "/storage/history?session_id={}&limit=0", None),
    ],
)
def test_other_values_are_refused_and_leave_nothing(room: Room, method: str, path: str, body: Any) -> None:
    session = begin(room)["id"]
    if body and "session_id" in body:
        body["session_id"] = session
    answer = room.client.request(method, path.format(session), json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["hint"]
    assert len(room.records()) == 1


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/storage/sessions/session_x", None),
        ("PUT", "/storage/sessions/session_x", {"status": "ended"}),
        ("DELETE", "/storage/sessions/session_x", None),
        ("POST", "/storage/sessions/session_x/restore", None),
        ("POST", "/storage/sessions/session_x/fork", {}),
        ("GET", "/storage/sessions/session_x/export", None),
        ("POST", "/storage/history", {"session_id": "session_x", "role": "user", "content": "?"}),
        ("GET", "/storage/history?session_id=session_x", None),
        ("GET", "/storage/history/search?session_id=session_x&q=a", None),
        ("DELETE", "/storage/history?session_id=session_x", None),
        ("GET", "/storage/state/session_x", None),
        ("PUT", "/storage/state/session_x", {"data": 1}),
        ("DELETE", "/storage/state/session_x", None),
        ("POST", "/storage/artifacts", {"session_id": "session_x", "name": "a", "type": "pdf", "path": "/a"}),
        ("GET", "/storage/artifacts?session_id=session_x", None),
        ("GET", "/storage/artifacts/artifact_x", None),
        ("DELETE", "/storage/artifacts/artifact_x", None),
        ("GET", "/storage/artifacts/artifact_x/content", None),
    ],
)
def test_what_is_unknown_is_not_found_before_and_after_it_was_there(
    room: Room, method: str, path: str, body: Any
) -> None:
    assert status(room, method, path, json=body) == 404
    begin(room, id="session_x")
    room.client.post(
        "/storage/artifacts", json={"session_id": "session_x", "name": "a", "type": "t", "id": "artifact_x"}
    )
    assert status(room, "DELETE", "/storage/sessions/session_x") == 200
    if "/restore" not in path:
        assert status(room, method, path, json=body) == 404


def test_a_client_that_names_its_ids_may_repeat_itself(room: Room) -> None:
    body = {"agent_name": "a", "id": "session_mine", "metadata": {"n": 1}}
    codes = [status(room, "POST", "/storage/sessions", json=body) for _ in range(2)]
    message = {"session_id": "session_mine", "role": "user", "content": ["x"], "id": "msg_1"}
    codes += [status(room, "POST", "/storage/history", json=message) for _ in range(2)]
    artifact = {"session_id": "session_mine", "name": "n", "type": "t", "path": "/p", "size": 3, "id": "artifact_1"}
    codes += [status(room, "POST", "/storage/artifacts", json=artifact) for _ in range(2)]
    assert codes == [201, 200] * 3
    assert len(room.records()) == 3
    assert status(room, "POST", "/storage/sessions", json={**body, "agent_name": "b"}) == 409
    assert status(room, "POST", "/storage/sessions", json={**body, "metadata": {}}) == 409
    assert status(room, "POST", "/storage/history", json={**message, "content": "y"}) == 409
    assert status(room, "POST", "/storage/artifacts", json={**artifact, "size": 4}) == 409


def test_sessions_are_found_by_what_they_are_page_by_page(room: Room) -> None:
    made = [begin(room, agent_name=f"a{n % 2}", user_id=f"u{n % 3}") for n in range(7)]
    for each in made[:3]:
        room.client.put(f"/storage/sessions/{each['id']}", json={"status": "ended"})
    every = [each["id"] for page in pages(room, "/storage/sessions", limit=2) for each in page]
    assert sorted(every) == sorted(each["id"] for each in made)
    assert every == [each["id"] for each in room.get("/storage/sessions")]
    oldest = [each["id"] for page in pages(room, "/storage/sessions", limit=3, order="asc") for each in page]
    assert oldest == every[::-1]
    assert room.get("/storage/sessions", offset=5) == room.get("/storage/sessions")[5:]
    ended = room.get("/storage/sessions", status="ended", agent_name="a0")
    assert {each["id"] for each in ended} == {made[0]["id"], made[2]["id"]}
    assert {each["id"] for each in room.get("/storage/sessions", user_id="u1")} == {made[1]["id"], made[4]["id"]}
    assert room.get("/storage/sessions", since="2100-01-01T00:00:00Z") == []
    assert len(room.get("/storage/sessions", until="2100-01-01T00:00:00Z")) == 7


def test_history_is_a_bare_list_in_the_order_it_was_written(room: Room) -> None:
    session, other = begin(room)["id"], begin(room)["id"]
    for number in range(5):
        say(room, session, f"m{number}", role=("user", "assistant")[number % 2])
        say(room, other, "elsewhere")
    assert [each["content"] for each in history(room, session)] == ["m0", "m1", "m2", "m3", "m4"]
    assert [each["content"] for each in history(room, session, order="desc", limit=2)] == ["m4", "m3"]
    assert [each["content"] for each in history(room, session, offset=3)] == ["m3", "m4"]
    assert [each["content"] for each in history(room, session, role="assistant")] == ["m1", "m3"]
    assert [each["content"] for each in history(room, session, role="user", offset=1, limit=1)] == ["m2"]
    assert [
        [each["content"] for each in page] for page in pages(room, "/storage/history", session_id=session, limit=2)
    ] == [
        ["m0", "m1"],
        ["m2", "m3"],
        ["m4"],
    ]
    told = say(
        room, session, {"parts": [1]}, role="tool", timestamp="2024-05-06T07:08:09+02:00", metadata={"k": [None]}
    )
    assert (told["timestamp"], told["metadata"]) == ("2024-05-06T05:08:09.000Z", {"k": [None]})
    assert history(room, session)[-1] == told


def test_ten_thousand_messages_come_in_pages_and_each_once(room: Room) -> None:
    many = 10_000 if isinstance(room.core.home, HubDirectory) else 2_000  # where each costs five times as much
    session = begin(room)["id"]
    pen = Pen("researcher")
    # As a node of the same agent would ship them: what they are found by is derived where they arrive.
    for number in range(many):
        body = {"role": "user", "content": f"m{number}", "timestamp": "2026-01-01T00:00:00.000Z"}
        pen.put(f"{session}/msg/msg_{number}", body, collection="sessions", kind="message")
    for first in range(0, many, 500):
        room.append(pen.segment(first + 1, first + 500))
    contents = [each["content"] for page in pages(room, "/storage/history", session_id=session) for each in page]
    assert contents == [f"m{number}" for number in range(many)]
    assert [each["content"] for each in history(room, session, order="desc", limit=1)] == [f"m{many - 1}"]
    assert [each["content"] for each in history(room, session, offset=many - 1)] == [f"m{many - 1}"]
    assert status(room, "DELETE", f"/storage/sessions/{session}") == 200
    assert room.client.post(f"/storage/sessions/{session}/restore").json()["restored"] == many + 1
    assert len([1 for page in pages(room, "/storage/history", session_id=session) for _ in page]) == many


def test_a_page_is_cut_by_its_bytes_and_large_messages_are_whole(room: Room) -> None:
    session = begin(room)["id"]
    texts = [letter * (3 << 20) for letter in "abcd"]
    for text in texts:
        say(room, session, text)
    found = list(pages(room, "/storage/history", session_id=session))
    assert [[each["content"][0] for each in page] for page in found] == [["a", "b"], ["c", "d"]]
    assert [each["content"] for page in found for each in page] == texts


# -- one deletion, one way back ---------------------------------------------------------------------------------


def filled(room: Room, session: str = "session_full") -> dict[str, Any]:
    """A session with everything that one can have; what a client sees of it."""
    begin(room, id=session, metadata={"m": 1})
    for number in range(3):
        say(room, session, f"word{number}", id=f"msg_{number}")
    say(room, session, "x" * 100_000, id="msg_large")
    room.client.put(f"/storage/state/{session}", json={"data": {"step": 1}})
    made = {"session_id": session, "name": "report.pdf", "type": "pdf", "path": "/tmp/report.pdf", "size": 9}
    for name in ("artifact_1", "artifact_2"):
        assert status(room, "POST", "/storage/artifacts", json={**made, "id": f"{name}{session}"}) == 201
    assert status(room, "PUT", f"/storage/artifacts/artifact_1{session}/content", content=b"bytes") == 200
    return seen(room, session)


def seen(room: Room, session: str) -> dict[str, Any]:
    found = {
        "session": room.get(f"/storage/sessions/{session}"),
        "history": history(room, session),
        "state": room.get(f"/storage/state/{session}"),
        "artifacts": room.get("/storage/artifacts", session_id=session),
    }
    for part in ("session", "state"):
        del found[part]["version"]
    return found


def test_a_deletion_is_one_record_and_its_undoing_brings_all_of_it_back(room: Room) -> None:
    before, other = filled(room), filled(room, "session_full2")
    assert status(room, "DELETE", "/storage/artifacts/artifact_2session_full") == 200
    assert status(room, "DELETE", "/storage/artifacts/artifact_2session_full2") == 200
    before["artifacts"], other["artifacts"] = before["artifacts"][:1], other["artifacts"][:1]
    last, blobs = room.records()[-1]["pos"], list(room.core.home.blobs.iter())
    assert status(room, "DELETE", "/storage/sessions/session_full") == 200
    (record,) = [each for each in room.records() if each["pos"] > last]
    assert (record["kind"], record["key"]) == ("delete-prefix", "session_full/")
    assert seen(room, "session_full2") == other

    gone = room.get("/storage/sessions/session_full", deleted="true")
    assert gone["deleted_at"] == record["time"]
    assert [each["id"] for each in room.get("/storage/sessions", deleted="true")] == ["session_full"]
    assert [each["id"] for each in room.get("/storage/sessions")] == ["session_full2"]
    versions = room.get("/v1/history", agent="researcher", collection="sessions", key="session_full/msg/msg_0")
    assert [each["kind"] for each in versions["records"]] == ["delete-prefix", "message"]
    assert room.get("/v1/search", q="word0", collection="sessions")["records"][0]["key"].startswith("session_full2/")

    answer = room.client.post("/storage/sessions/session_full/restore").json()
    assert (answer["restored"], answer["lost"]) == (8, 0)
    assert seen(room, "session_full") == before
    assert room.client.get(f"/storage/artifacts/{before['artifacts'][0]['id']}/content").content == b"bytes"
    assert room.client.post("/storage/sessions/session_full/restore").json()["restored"] == 0
    assert list(room.core.home.blobs.iter()) == blobs  # referenced again, not stored again


def test_a_restore_that_broke_off_goes_on(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    before = filled(room)
    room.client.delete("/storage/sessions/session_full")
    monkeypatch.setattr("holdfast.hub.sessions.LOT", 3)
    write, calls = room.core.own.write, 0

    async def breaks(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RuntimeError("the power went")
        return await write(*args, **options)

    monkeypatch.setattr(room.core.own, "write", breaks)
    assert status(room, "POST", "/storage/sessions/session_full/restore") == 500
    assert status(room, "GET", "/storage/sessions/session_full") == 404
    assert 0 < room.client.post("/storage/sessions/session_full/restore").json()["restored"] < 9
    assert seen(room, "session_full") == before


def test_cleared_messages_come_back_too(room: Room) -> None:
    before = filled(room)["history"]
    assert room.client.delete("/storage/history?session_id=session_full").json()["deleted"] == 4
    assert room.client.delete("/storage/history?session_id=session_full").json()["deleted"] == 0
    assert history(room, "session_full") == []
    answer = room.client.post("/storage/sessions/session_full/restore?part=history").json()
    assert answer["restored"] == 4
    assert history(room, "session_full") == before


def test_an_id_that_another_begins_with_is_another_session(room: Room) -> None:
    for session in ("session_a", "session_a-b", "session_ab"):
        begin(room, id=session)
        say(room, session, f"in {session}")
    room.client.delete("/storage/sessions/session_a")
    assert len(history(room, "session_ab")) == len(history(room, "session_a-b")) == 1


# -- versions ---------------------------------------------------------------------------------------------------


def test_of_two_writers_with_one_etag_one_wins(room: Room) -> None:
    session = begin(room)["id"]
    path = f"/storage/state/{session}"
    assert status(room, "PUT", path, json={"data": 0}, headers={"If-None-Match": "*"}) == 200
    assert status(room, "PUT", path, json={"data": 0}, headers={"If-None-Match": "*"}) == 409
    etag = room.client.get(path).headers["etag"]

    def write(number: int) -> Any:
        return room.client.put(path, json={"data": number}, headers={"If-Match": etag})

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(write, range(1, 9)))
    won = [each for each in answers if each.status_code == 200]
    lost = [each.json()["error"] for each in answers if each.status_code == 409]
    assert (len(won), len(lost)) == (1, 7)
    context = lost[0]["context"]
    assert (context["current_version"], f'"{context["etag"]}"') == (2, won[0].headers["etag"])
    assert room.get(path) == won[0].json()
    assert status(room, "PUT", path, json={"data": 9}, headers={"If-Match": '"2"'}) == 200
    assert status(room, "PUT", path, json={"data": 9}, headers={"If-Match": "3"}) == 400
    assert room.client.get(path, headers={"If-None-Match": '"3"'}).status_code == 304


def test_a_sessions_etag_guards_its_change_and_its_deletion(room: Room) -> None:
    path = f"/storage/sessions/{begin(room)['id']}"
    old = room.client.get(path).headers["etag"]
    new = room.client.put(path, json={"status": "paused"}, headers={"If-Match": old}).headers["etag"]
    assert status(room, "PUT", path, json={"status": "ended"}, headers={"If-Match": old}) == 409
    assert status(room, "DELETE", path, headers={"If-Match": old}) == 409
    assert room.client.get(path, headers={"If-None-Match": new}).status_code == 304
    assert status(room, "DELETE", path, headers={"If-Match": f'"nope", {new}'}) == 200
    assert status(room, "PUT", path, json={"status": "ended"}, headers={"If-Match": "*"}) == 404


def test_state_is_any_json_and_can_be_taken_away(room: Room) -> None:
    path = f"/storage/state/{begin(room)['id']}"
    for data in (None, [], {"deep": [{"x": 1.5}]}, "text", 2**53, "y" * 100_000):
        assert room.client.put(path, json={"data": data}).json()["data"] == data
        assert room.get(path)["data"] == data
    assert status(room, "DELETE", path) == 200
    assert status(room, "GET", path) == status(room, "DELETE", path) == 404


def test_metadata_that_cannot_be_found_by_is_too_large(room: Room) -> None:
    body = {"agent_name": "a", "metadata": {"x": "y" * 70_000}}
    assert status(room, "POST", "/storage/sessions", json=body) == 413


# -- copies -----------------------------------------------------------------------------------------------------


def test_a_fork_has_what_was_there_at_its_message(room: Room) -> None:
    begin(room, id="session_s", user_id="u", metadata={"m": 1})
    say(room, "session_s", "one", id="msg_1")
    room.client.put("/storage/state/session_s", json={"data": "early"})
    made = {"session_id": "session_s", "name": "a", "type": "t", "path": "/a", "id": "artifact_a"}
    room.client.post("/storage/artifacts", json=made)
    room.client.put("/storage/artifacts/artifact_a/content", content=b"first")
    say(room, "session_s", "two", id="msg_2")
    say(room, "session_s", "three", id="msg_3")
    room.client.put("/storage/state/session_s", json={"data": "late"})
    body = {"message_id": "msg_2", "id": "session_f"}
    answer = room.client.post("/storage/sessions/session_s/fork", json=body)
    assert answer.status_code == 201
    forked = answer.json()
    assert (forked["forked_from"], forked["forked_at"]) == ("session_s", "msg_2")
    assert (forked["user_id"], forked["metadata"], forked["status"]) == ("u", {"m": 1}, "active")
    assert [each["content"] for each in history(room, "session_f")] == ["one", "two"]
    assert room.get("/storage/state/session_f")["data"] == "early"
    (artifact,) = room.get("/storage/artifacts", session_id="session_f")
    assert artifact["copy_of"] == "artifact_a"
    assert room.client.get(f"/storage/artifacts/{artifact['id']}/content").content == b"first"
    say(room, "session_f", "otherwise")
    assert [each["content"] for each in history(room, "session_s")] == ["one", "two", "three"]
    assert status(room, "POST", "/storage/sessions/session_s/fork", json=body) == 200
    assert status(room, "POST", "/storage/sessions/session_s/fork", json={**body, "message_id": "msg_1"}) == 409
    assert status(room, "POST", "/storage/sessions/session_s/fork", json={"message_id": "msg_9"}) == 404
    room.client.delete("/storage/sessions/session_s")
    assert len(history(room, "session_f")) == 3


def test_an_export_holds_everything_line_by_line(room: Room) -> None:
    before = filled(room)
    answer = room.client.get("/storage/sessions/session_full/export")
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [next(iter(line)) for line in lines] == ["session", "state", *["message"] * 4, *["artifact"] * 2]
    assert [line["message"] for line in lines if "message" in line] == before["history"]
    assert [line["artifact"] for line in lines if "artifact" in line] == before["artifacts"]


def test_search_finds_words_in_one_session_only(room: Room) -> None:
    for session in ("session_a", "session_b"):
        begin(room, id=session)
        say(room, session, f"the harbour of {session}", id="msg_1")
        say(room, session, {"text": "boats of session_a"}, id="msg_2")
    path = "/storage/history/search"
    for _ in range(2):
        found = room.get(path, session_id="session_a", q="harbour")
        assert [(each["session_id"], each["id"]) for each in found["messages"]] == [("session_a", "msg_1")]
        found = room.get(path, session_id="session_b", q="boat*")
        assert [(each["session_id"], each["id"]) for each in found["messages"]] == [("session_b", "msg_2")]
        while room.core.corpus.meta("fts_pos") != room.core.corpus.last():  # once unindexed, once indexed
            from holdfast.corpus import search

            search.fill(room.core.corpus)
    room.client.delete("/storage/history?session_id=session_a")
    assert room.get(path, session_id="session_a", q="harbour")["messages"] == []


# -- where records come from elsewhere --------------------------------------------------------------------------


def test_nobody_takes_a_session_over_by_shipping_records_under_its_id(room: Room) -> None:
    begin(room, id="session_x")
    say(room, "session_x", "ours")
    pen = Pen("mallory")
    fake = {"agent_name": "researcher", "status": "ended", "created_at": "2026-01-01T00:00:00Z", "updated_at": ""}
    pen.put("session_x/session", fake, collection="sessions", kind="session")
    message = {"role": "system", "content": "theirs", "timestamp": "2026-01-01T00:00:00Z"}
    pen.put("session_x/msg/msg_evil", message, collection="sessions", kind="message")
    pen.put("session_y/session", fake, collection="sessions", kind="session")
    pen.put("session_z/session", {"agent_name": 1}, collection="sessions", kind="session")
    pen.put("session_z/msg/", "no body", collection="sessions", kind="message")
    room.append(pen.segment())
    assert room.get("/storage/sessions/session_x")["status"] == "active"
    assert [each["content"] for each in history(room, "session_x")] == ["ours"]
    assert [each["id"] for each in room.get("/storage/sessions")] == ["session_x"]
    assert status(room, "GET", "/storage/sessions/session_z") == 404
    assert room.get("/storage/sessions/session_y")["agent_name"] == "mallory"


def test_what_sessions_are_found_by_can_be_made_again_from_the_records(room: Room) -> None:
    before = filled(room)
    room.client.post("/storage/metrics", json=METRIC)
    tables = ("session", "sample", "tag")

    def rows() -> Any:
        return [room.core.corpus.engine.query(f"SELECT * FROM {table} ORDER BY 1, 2, 3") for table in tables]

    kept = rows()
    assert all(kept)
    room.core.corpus.write(lambda tx: [tx.execute(f"DELETE FROM {table}") for table in tables])
    assert room.get("/storage/sessions") == []
    assert storage.rebuild(room.core.corpus, lambda each: tags_of(each.record, each.payload()), lot=3) == 10
    assert rows() == kept
    assert seen(room, "session_full") == before


METRIC = {"entity_type": "tool", "entity_name": "search", "metric_name": "ms", "value": 1, "labels": {"a": "b"}}
